/* SPDX-License-Identifier: BSD-3-Clause */
/* stack.c: the recording embedder, the virtual clock and the scripted guest. */
#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <cmocka.h>

static struct in_addr in4(uint32_t host)
{
    struct in_addr a = {.s_addr = htonl(host)};

    return a;
}

static int64_t op_clock(void *opaque)
{
    const struct st_stack *st = opaque;

    return st->now_ns;
}

unsigned st_offload;

void st_args(int argc, char **argv)
{
    if (argc > 1) {
        st_offload = SLIRP_FLOW_OFFLOAD_CSUM;
        if (strcmp(argv[1], "tso") == 0) {
            st_offload |= SLIRP_FLOW_OFFLOAD_TSO;
        } else if (strcmp(argv[1], "csum") != 0) {
            fprintf(stderr, "usage: %s [csum | tso]\n", argv[0]);
            exit(2);
        }
    }
}

void cd_failed(const char *what, int line)
{
    fail_msg("card.c:%d: %s", line, what);
}

static void from_card(const uint8_t *frame, size_t len, void *arg)
{
    struct st_stack *st = arg;

    if (st->to_guest) {
        st->to_guest(frame, len, st->to_guest_arg);
    } else {
        g_queue_push_tail(&st->frames, g_bytes_new(frame, len));
    }
}

static void op_send(const struct iovec *iov, int cnt, const SlirpFlowMeta *meta, void *opaque)
{
    struct st_stack *st = opaque;

    if (!st->lose || !st->lose(st->to_guest_arg)) {
        cd_take(&st->card, iov, cnt, meta, from_card, st);
    }
}

static SlirpFlowVerdict op_open(const SlirpFlowAddr *addr, void **cookie, void *opaque)
{
    struct st_stack *st = opaque;
    struct st_conn *conn;

    st->asked++;
    st->asked_addr = *addr;
    if (st->verdict != SLIRP_FLOW_PENDING && st->verdict != SLIRP_FLOW_ACCEPT) {
        return st->verdict;
    }
    conn = g_new0(struct st_conn, 1);
    conn->stack = st;
    conn->addr = *addr;
    conn->got = g_byte_array_new();
    conn->quota = st->quota;
    conn->out = st->out;
    conn->out_len = st->out_len;
    conn->out_eof = st->out_eof;
    conn->eof_reply = st->eof_reply;
    g_ptr_array_add(st->conns, conn);
    *cookie = conn;
    return st->verdict;
}

static void op_opened(SlirpFlow *flow, void *cookie, void *opaque)
{
    struct st_stack *st = opaque;
    struct st_conn *conn = cookie;

    conn->opened++;
    conn->flow = flow;
    if (st->on_open) {
        st->on_open(conn);
    }
    st_conn_send(conn);
}

static void op_established(void *cookie, void *opaque)
{
    struct st_conn *conn = cookie;

    (void)opaque;
    conn->established++;
}

static size_t op_data(void *cookie, const struct iovec *iov, int cnt, void *opaque)
{
    struct st_conn *conn = cookie;
    size_t took = 0, n;
    int i;

    (void)opaque;
    conn->data_calls++;
    conn->offered = 0;
    for (i = 0; i < cnt; i++) {
        conn->offered += iov[i].iov_len;
        n = MIN(iov[i].iov_len, conn->quota);
        g_byte_array_append(conn->got, iov[i].iov_base, (guint)n);
        conn->quota -= n;
        took += n;
    }
    if (conn->on_data) {
        conn->on_data(conn);
    }
    return took;
}

static void op_eof(void *cookie, void *opaque)
{
    struct st_conn *conn = cookie;

    (void)opaque;
    conn->eof++;
    if (conn->on_eof) {
        conn->on_eof(conn);
    }
    if (conn->eof_reply) {
        slirp_flow_eof(conn->flow);
    }
}

static void op_writable(void *cookie, size_t room, void *opaque)
{
    struct st_conn *conn = cookie;

    (void)opaque;
    conn->writable++;
    assert_int_equal(room, slirp_flow_room(conn->flow, NULL));
    st_conn_send(conn);
}

static void op_closed(void *cookie, SlirpFlowEnd how, void *opaque)
{
    struct st_conn *conn = cookie;

    (void)opaque;
    conn->closed++;
    conn->end = how;
    conn->flow = NULL;
}

static void op_udp(const SlirpFlowAddr *addr, const uint8_t *data, size_t len, void *opaque)
{
    struct st_stack *st = opaque;
    struct st_datagram *d = g_new0(struct st_datagram, 1);

    d->addr = *addr;
    d->len = len;
    d->data = g_memdup2(data, len);
    g_ptr_array_add(st->datagrams, d);
}

static void op_other(uint8_t proto, struct in_addr src, struct in_addr dst, void *opaque)
{
    struct st_stack *st = opaque;

    (void)src;
    (void)dst;
    st->others++;
    st->other_proto = proto;
}

static const SlirpFlowOps ops = {
    .clock_ns = op_clock,
    .send_packetv = op_send,
    .tcp_open = op_open,
    .tcp_opened = op_opened,
    .tcp_established = op_established,
    .tcp_data = op_data,
    .tcp_eof = op_eof,
    .tcp_writable = op_writable,
    .tcp_closed = op_closed,
    .udp_input = op_udp,
    .other = op_other,
};

static void conn_free(gpointer p)
{
    struct st_conn *conn = p;

    g_byte_array_unref(conn->got);
    g_free(conn);
}

static void datagram_free(gpointer p)
{
    struct st_datagram *d = p;

    g_free(d->data);
    g_free(d);
}

void st_config(SlirpFlowConfig *ret_cfg, uint16_t mtu)
{
    memset(ret_cfg, 0, sizeof(*ret_cfg));
    ret_cfg->gateway = in4(FR_GATEWAY);
    ret_cfg->resolver = in4(FR_RESOLVER);
    ret_cfg->guest = in4(FR_GUEST);
    memcpy(ret_cfg->guest_mac, fr_guest_mac, 6);
    ret_cfg->mtu = mtu;
    memset(ret_cfg->secret, 0x5a, sizeof(ret_cfg->secret));
}

struct st_stack *st_new_cfg(const SlirpFlowConfig *cfg)
{
    struct st_stack *st = g_new0(struct st_stack, 1);

    st->now_ns = 1000000000;
    st->mtu = cfg->mtu;
    st->verdict = SLIRP_FLOW_ACCEPT;
    st->quota = SIZE_MAX;
    st->conns = g_ptr_array_new_with_free_func(conn_free);
    st->datagrams = g_ptr_array_new_with_free_func(datagram_free);
    g_queue_init(&st->frames);
    st->slirp = slirp_flow_new(cfg, &ops, st);
    assert_non_null(st->slirp);
    st->card.mtu = cfg->mtu;
    st_set_offload(st, st_offload);
    return st;
}

void st_set_offload(struct st_stack *st, unsigned offload)
{
    st->offload = st->card.offload = offload;
    slirp_flow_set_offload(st->slirp, offload);
}

struct st_stack *st_new(uint16_t mtu)
{
    SlirpFlowConfig cfg;

    st_config(&cfg, mtu);
    return st_new_cfg(&cfg);
}

void st_discard(struct st_stack *st)
{
    GBytes *b;

    while ((b = g_queue_pop_head(&st->frames))) {
        g_bytes_unref(b);
    }
}

void st_free(struct st_stack *st)
{
    guint i;

    slirp_flow_free(st->slirp);
    for (i = 0; i < st->conns->len; i++) {
        assert_int_equal(st_conn_at(st, i)->closed, 1);
    }
    st_discard(st);
    g_ptr_array_unref(st->conns);
    g_ptr_array_unref(st->datagrams);
    g_free(st);
}

/* A copy of exact size, so that a sanitizer sees a read beyond it. Every other
 * frame is lent, and its memory is something else afterwards. */
static void input(struct st_stack *st, const uint8_t *frame, size_t len, bool trusted)
{
    size_t room = st->inputs++ & 1 ? SLIRP_FLOW_HEADROOM : 0;
    uint8_t *copy = g_malloc(MAX(room + len, 1));

    memset(copy, 0xa5, room);
    if (len) {
        memcpy(copy + room, frame, len);
    }
    if (room) {
        slirp_flow_input_lent(st->slirp, copy + room, len, trusted);
    } else if (trusted) {
        slirp_flow_input_trusted(st->slirp, copy, len);
    } else {
        slirp_flow_input(st->slirp, copy, len);
    }
    memset(copy, 0x5a, room + len);
    g_free(copy);
}

void st_input(struct st_stack *st, const uint8_t *frame, size_t len)
{
    input(st, frame, len, false);
}

void st_input_trusted(struct st_stack *st, const uint8_t *frame, size_t len)
{
    input(st, frame, len, true);
}

bool st_next(struct st_stack *st, struct fr_packet *ret)
{
    static uint8_t last[FR_MAX + 64];
    GBytes *b = g_queue_pop_head(&st->frames);
    gsize len;

    if (!b) {
        return false;
    }
    len = g_bytes_get_size(b);
    assert_true(len <= sizeof(last));
    assert_true(len <= 14 + MAX((size_t)st->mtu, 50));
    memcpy(last, g_bytes_get_data(b, NULL), len);
    g_bytes_unref(b);
    assert_memory_equal(last, fr_guest_mac, 6);
    assert_true(fr_parse(last, len, ret));
    return true;
}

void st_advance(struct st_stack *st, unsigned ms)
{
    int64_t end = st->now_ns + (int64_t)ms * 1000000;

    for (;;) {
        int wait = slirp_flow_timeout(st->slirp);

        if (wait < 0 || st->now_ns + (int64_t)wait * 1000000 > end) {
            break;
        }
        st->now_ns += (int64_t)wait * 1000000;
        slirp_flow_timer(st->slirp);
    }
    st->now_ns = end;
}

void st_conn_send(struct st_conn *conn)
{
    size_t n;

    while (conn->flow && conn->out_sent < conn->out_len) {
        n = slirp_flow_push(conn->flow, conn->out + conn->out_sent, conn->out_len - conn->out_sent);
        if (!n) {
            return;
        }
        conn->out_sent += n;
    }
    if (conn->flow && conn->out_eof) {
        conn->out_eof = false;
        slirp_flow_eof(conn->flow);
    }
}

struct st_conn *st_conn_at(struct st_stack *st, unsigned index)
{
    assert_true(index < st->conns->len);
    return g_ptr_array_index(st->conns, index);
}

void st_peer_init(struct st_peer *peer, struct st_stack *st, uint16_t sport, uint32_t isn)
{
    *peer = (struct st_peer){.stack = st,
                             .dst = FR_PEER,
                             .sport = sport,
                             .dport = 80,
                             .seq = isn,
                             .win = 65535,
                             .mss = (uint16_t)(st->mtu - 40)};
}

void st_peer_at(struct st_peer *peer, uint32_t offset, uint8_t flags, const void *data, size_t len)
{
    static uint8_t buf[FR_MAX];
    struct fr_tcp tcp = {
        .src = FR_GUEST,
        .dst = peer->dst,
        .sport = peer->sport,
        .dport = peer->dport,
        .seq = peer->seq + offset,
        .ack = flags & FR_ACK ? peer->ack : 0,
        .flags = flags,
        .win = peer->win,
        .urp = peer->urp,
        .mss = flags & FR_SYN ? peer->mss : 0,
        .opts = peer->opts,
        .nopts = flags & FR_SYN ? peer->nopts : 0,
        .data = data,
        .len = len,
    };

    if (peer->stack->offload) {
        size_t n = fr_tcp(buf, &tcp);

        fr_partial(buf);
        st_input_trusted(peer->stack, buf, n);
    } else {
        st_input(peer->stack, buf, fr_tcp(buf, &tcp));
    }
}

void st_peer_send(struct st_peer *peer, uint8_t flags, const void *data, size_t len)
{
    uint32_t move = (uint32_t)len + (flags & FR_SYN ? 1 : 0) + (flags & FR_FIN ? 1 : 0);

    peer->seq += move; /* before, for callbacks; undone for the segment */
    st_peer_at(peer, -move, flags, data, len);
}

void st_peer_recv(struct st_peer *peer, struct fr_packet *ret)
{
    assert_true(st_next(peer->stack, ret));
    assert_int_equal(ret->proto, FR_TCP);
    assert_int_equal(ret->sport, peer->dport);
    assert_int_equal(ret->dport, peer->sport);
    if (ret->flags & FR_SYN) {
        peer->ack = ret->seq;
    }
    if (ret->seq == peer->ack) {
        peer->ack += (uint32_t)ret->len + (ret->flags & FR_SYN ? 1 : 0) + (ret->flags & FR_FIN ? 1 : 0);
    }
}

void st_peer_connect(struct st_peer *peer)
{
    struct fr_packet p;

    st_peer_send(peer, FR_SYN, NULL, 0);
    st_peer_recv(peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    assert_int_equal(p.ack, peer->seq);
    st_peer_send(peer, FR_ACK, NULL, 0);
}
