/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guest.h: a small TCP of a guest, good enough for a bad link.
 *
 * One active connection that sends `out`, then FIN, and collects what comes in
 * `in` until the other side's FIN. It goes back to the first unacknowledged
 * byte on a time-out or three duplicate ACKs, keeps what arrives out of order,
 * and probes a closed window. Times in ns.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "frame.h"

#define GT_WINDOW (256u << 10) /* 65535 for a guest that does not scale */
#define GT_SCALE 3

struct gt_conn {
    uint32_t dst;
    uint16_t sport, dport, mss;
    bool tso;   /* send packets of many segments for the card to cut */
    bool scale; /* offer window scaling */
    uint32_t iss, irs;
    const uint8_t *out;
    size_t out_len;
    void (*send)(const uint8_t *frame, size_t len, void *arg);
    void *arg;

    /* state; offsets count bytes from the first after SYN */
    bool syn_acked, fin_sent, fin_acked, fin_seen, fin_got, reset;
    size_t una, nxt, top, peer_win, fin_at;
    bool scaling; /* both sides do */
    uint8_t peer_scale;
    unsigned dup_acks;
    int64_t deadline; /* of retransmission, INT64_MAX: none */
    unsigned backoff;
    GByteArray *in;
    uint8_t *ahead; /* GT_WINDOW bytes that came early, and a mark for each */
    bool *have;
    unsigned timeouts;
};

void gt_init(struct gt_conn *gt, uint16_t sport, uint32_t iss, uint16_t mss);
void gt_clear(struct gt_conn *gt);
void gt_open(struct gt_conn *gt, int64_t now);
void gt_input(struct gt_conn *gt, const struct fr_packet *p, int64_t now);
void gt_timer(struct gt_conn *gt, int64_t now);

/* Everything sent and acknowledged, everything received, both FINs. */
bool gt_done(const struct gt_conn *gt);

#endif
