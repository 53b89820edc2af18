/* SPDX-License-Identifier: BSD-3-Clause */
/* guest.c: RFC 9293 as far as a test needs it. */
#include "guest.h"

#include <string.h>

#define RTO_MIN 300000000LL

void gt_init(struct gt_conn *gt, uint16_t sport, uint32_t iss, uint16_t mss)
{
    *gt = (struct gt_conn){.dst = FR_PEER, .sport = sport, .dport = 80, .mss = mss, .iss = iss, .deadline = INT64_MAX};
    gt->in = g_byte_array_new();
    gt->ahead = g_malloc(GT_WINDOW);
    gt->have = g_new0(bool, GT_WINDOW);
}

void gt_clear(struct gt_conn *gt)
{
    g_byte_array_unref(gt->in);
    g_free(gt->ahead);
    g_free(gt->have);
}

static void emit(struct gt_conn *gt, uint8_t flags, size_t off, const uint8_t *data, size_t len)
{
    static uint8_t buf[FR_MAX];
    static const uint8_t scale[] = {1, 3, 3, GT_SCALE};
    bool offer = gt->scale && (flags & FR_SYN);
    struct fr_tcp tcp = {
        .src = FR_GUEST,
        .dst = gt->dst,
        .sport = gt->sport,
        .dport = gt->dport,
        .seq = gt->iss + (flags & FR_SYN ? 0 : 1 + (uint32_t)off),
        .flags = flags,
        .win = gt->scaling ? GT_WINDOW >> GT_SCALE : 65535,
        .mss = flags & FR_SYN ? gt->mss : 0,
        .opts = scale,
        .nopts = offer ? sizeof(scale) : 0,
        .data = data,
        .len = len,
    };

    if (flags & FR_ACK) {
        tcp.ack = gt->irs + 1 + gt->in->len + (gt->fin_got ? 1 : 0);
    }
    gt->send(buf, fr_tcp(buf, &tcp), gt->arg);
}

/* The most bytes in one packet. */
static size_t most(const struct gt_conn *gt)
{
    return gt->tso ? (size_t)(65535 - 40) / gt->mss * gt->mss : gt->mss;
}

static void arm(struct gt_conn *gt, int64_t now)
{
    gt->deadline = now + (RTO_MIN << MIN(gt->backoff, 5));
}

/* Send what the window allows; always something when force is set. */
static void output(struct gt_conn *gt, int64_t now, bool force)
{
    size_t limit = gt->una + gt->peer_win;

    if (force && gt->peer_win == 0) {
        limit = gt->una + 1;
    }
    while (gt->nxt < gt->out_len && gt->nxt < limit) {
        size_t n = MIN(MIN(most(gt), gt->out_len - gt->nxt), limit - gt->nxt);

        emit(gt, FR_ACK, gt->nxt, gt->out + gt->nxt, n);
        gt->nxt += n;
    }
    if (gt->nxt == gt->out_len && (!gt->fin_sent || force)) {
        gt->fin_sent = true;
        emit(gt, FR_ACK | FR_FIN, gt->out_len, NULL, 0);
    }
    gt->top = MAX(gt->top, gt->nxt);
    if (gt->deadline == INT64_MAX && !gt->fin_acked) {
        arm(gt, now);
    }
}

void gt_open(struct gt_conn *gt, int64_t now)
{
    emit(gt, FR_SYN, 0, NULL, 0);
    arm(gt, now);
}

static void take(struct gt_conn *gt, const struct fr_packet *p)
{
    int32_t at = (int32_t)(p->seq - (gt->irs + 1) - gt->in->len);
    size_t i, n;

    for (i = 0; i < p->len; i++) {
        int64_t pos = (int64_t)at + (int64_t)i;

        if (pos >= 0 && pos < GT_WINDOW) {
            gt->ahead[pos] = p->data[i];
            gt->have[pos] = true;
        }
    }
    if (p->flags & FR_FIN) {
        gt->fin_seen = true;
        gt->fin_at = gt->in->len + (size_t)at + p->len;
    }
    for (n = 0; n < GT_WINDOW && gt->have[n]; n++) {
    }
    if (n) {
        g_byte_array_append(gt->in, gt->ahead, (guint)n);
        memmove(gt->ahead, gt->ahead + n, GT_WINDOW - n);
        memmove(gt->have, gt->have + n, (GT_WINDOW - n) * sizeof(bool));
        memset(gt->have + GT_WINDOW - n, 0, n * sizeof(bool));
    }
    if (gt->fin_seen && gt->in->len == gt->fin_at) {
        gt->fin_got = true;
    }
}

static void acked(struct gt_conn *gt, const struct fr_packet *p, int64_t now)
{
    int32_t move = (int32_t)(p->ack - (gt->iss + 1) - (uint32_t)gt->una);
    size_t bytes = move > 0 ? MIN((size_t)move, gt->out_len - gt->una) : 0;
    size_t win = (size_t)p->win << gt->peer_scale;

    if (move > 0 && gt->fin_sent && gt->una + (size_t)move == gt->out_len + 1) {
        gt->fin_acked = true;
    }
    if (move > 0) {
        gt->una += bytes;
        gt->nxt = MAX(gt->nxt, gt->una);
        gt->dup_acks = 0;
        gt->backoff = 0;
        gt->deadline = INT64_MAX;
    } else if (move == 0 && p->len == 0 && gt->top > gt->una && win == gt->peer_win && ++gt->dup_acks == 3) {
        size_t n = MIN((size_t)gt->mss, gt->out_len - gt->una);

        emit(gt, FR_ACK, gt->una, gt->out + gt->una, n);
        arm(gt, now);
    }
    gt->peer_win = win;
}

void gt_input(struct gt_conn *gt, const struct fr_packet *p, int64_t now)
{
    if (p->proto != FR_TCP || p->dport != gt->sport || p->sport != gt->dport || gt->reset) {
        return;
    }
    if (p->flags & FR_RST) { /* a late copy of our last ACK is answered so: nothing to a guest that is done */
        gt->reset = !gt_done(gt);
        gt->deadline = INT64_MAX;
        return;
    }
    if (!gt->syn_acked) {
        if ((p->flags & (FR_SYN | FR_ACK)) != (FR_SYN | FR_ACK) || p->ack != gt->iss + 1) {
            return;
        }
        gt->syn_acked = true;
        gt->irs = p->seq;
        gt->peer_win = p->win;
        gt->scaling = gt->scale && p->scaled;
        gt->peer_scale = gt->scaling ? p->scale : 0;
        gt->deadline = INT64_MAX;
        gt->backoff = 0;
        emit(gt, FR_ACK, 0, NULL, 0);
        output(gt, now, false);
        return;
    }
    if (p->flags & FR_SYN) { /* our ACK got lost */
        emit(gt, FR_ACK, gt->nxt, NULL, 0);
        return;
    }
    acked(gt, p, now);
    if (p->len || (p->flags & FR_FIN)) {
        take(gt, p);
        emit(gt, FR_ACK, gt->fin_sent && gt->nxt == gt->out_len ? gt->out_len + 1 : gt->nxt, NULL, 0);
    }
    output(gt, now, false);
}

void gt_timer(struct gt_conn *gt, int64_t now)
{
    if (now < gt->deadline) {
        return;
    }
    gt->timeouts++;
    gt->backoff++;
    gt->deadline = INT64_MAX;
    if (!gt->syn_acked) {
        emit(gt, FR_SYN, 0, NULL, 0);
        arm(gt, now);
    } else if (!gt->fin_acked) {
        gt->nxt = gt->una; /* go back */
        output(gt, now, true);
    }
}

bool gt_done(const struct gt_conn *gt)
{
    return gt->fin_acked && gt->fin_got;
}
