/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * card.h: the guest's network card, which finishes what the stack left to it.
 *
 * Every packet is looked at as a suspicious card would: the metadata must ask
 * for nothing that is not negotiated, agree with the headers by which it is
 * checked here, and leave nothing undone that it does not name. Then the card
 * cuts and sums as a kernel does, and hands on ordinary frames. What is wrong
 * goes to cd_failed(), which the program provides and which does not return.
 */
#ifndef CARD_H
#define CARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "slirp-flow.h"
#include "frame.h"

struct cd_card {
    unsigned offload; /* SLIRP_FLOW_OFFLOAD_* that were negotiated */
    uint16_t mtu;
    uint16_t mss; /* what gso_size has to be; 0: anything that fits the MTU */

    /* What came, for tests to ask. */
    unsigned packets, partial, super, segments;
    int pieces;         /* most in one packet */
    SlirpFlowMeta last; /* of the last packet */
    size_t last_len, largest;
    const void *last_data; /* where its second piece lay */
    uint32_t last_id;      /* IP identification of the last segment, and a bit above it */
};

/* Take one packet and put what comes of it out by out(). */
void cd_take(struct cd_card *card, const struct iovec *iov, int cnt, const SlirpFlowMeta *meta,
             void (*out)(const uint8_t *frame, size_t len, void *arg), void *arg);

void cd_failed(const char *what, int line);

#endif
