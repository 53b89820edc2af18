/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the guest sent that is neither TCP nor UDP flow, added up so that it can be recorded without flooding the
 * channel.
 *
 * The first packet of a (kind, protocol, destination) is reported at once, what follows once a second with its count.
 * The table is fixed; when a guest sends to more destinations than it holds, the rest of that second is one line a kind
 * with destination 0.0.0.0. Pure.
 */
#ifndef SM_NAT_OTHERS_H
#define SM_NAT_OTHERS_H

#include "flow/msg.h"

/** Destinations told apart in one second: an ordinary guest's multicast and IPv6 chatter has a dozen. */
#define SM_OTHERS_MAX 128

struct sm_others_entry {
    bool used;
    uint8_t kind;
    uint8_t proto;
    struct sm_addr dst;
    uint32_t count; /* not yet told */
};

struct sm_others {
    struct sm_others_entry entries[SM_OTHERS_MAX];
    unsigned used;
    uint32_t overflow[SM_OTHERS]; /* not yet told, by kind */
};

/** Reports one line; false: could not be sent, the count is kept. */
typedef bool sm_others_report_fn(enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst, uint32_t count,
                                 void *data);

/** sm_others_add() - one packet. dst of family none is told as 0.0.0.0. */
void sm_others_add(struct sm_others *others, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst,
                   sm_others_report_fn *report, void *data);
/** sm_others_tick() - once a second: report the counts, forget what was quiet. */
void sm_others_tick(struct sm_others *others, sm_others_report_fn *report, void *data);
/** sm_others_idle() - nothing is remembered, so no tick is needed. */
bool sm_others_idle(const struct sm_others *others);

#endif
