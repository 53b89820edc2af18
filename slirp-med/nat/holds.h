/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Held refusals: what the core refused is refused again here, without asking, until the hold ends (REFUSE, flow/msg.h).
 *
 * A set-associative table of fixed size: a lookup touches one set for each scope, so a refused SYN costs the same
 * however many there are, and a guest that scans cannot grow it; at worst an old hold makes room and the core is asked
 * again. What a hold answered is counted, and told to the core about once a second (REPEATED). Keyed with a secret,
 * because the guest chooses the keys. Pure: time is an argument.
 */
#ifndef SM_NAT_HOLDS_H
#define SM_NAT_HOLDS_H

#include "flow/msg.h"

/** 4096 holds of 32 bytes: more than a guest's own resolver and programs retry at once; a scan falls back to asking. */
#define SM_HOLDS_SETS 1024
#define SM_HOLDS_WAYS 4
/** The longest hold that is believed: a core that asks for more is asked again after this. */
#define SM_HOLDS_MS_MAX 600000

/** What is tried: the guest's address is always the same, so a 4-tuple is these. Host order. */
struct sm_hold_key {
    uint32_t dst;
    uint16_t dst_port;
    uint16_t src_port;
    uint8_t proto;
};

struct sm_hold_entry {
    int64_t until_us;       /* 0: never used */
    struct sm_hold_key key; /* src_port is 0 in the destination's scope */
    uint8_t how;
    uint8_t scope;
    uint32_t count; /* not yet told */
};

struct sm_holds {
    uint64_t secret[2];
    struct sm_hold_entry entries[SM_HOLDS_SETS][SM_HOLDS_WAYS];
    uint64_t untold; /* sum of all counts */
};

/** Gives one count to the core; false: could not be sent, ask again later. */
typedef bool sm_holds_report_fn(const struct sm_hold_key *key, uint32_t count, void *data);

void sm_holds_init(struct sm_holds *holds, const uint64_t secret[2]);

/** sm_holds_add() - remember a refusal. hold_ms 0 does nothing. A hold that makes room is reported first. */
void sm_holds_add(struct sm_holds *holds, const struct sm_hold_key *key, enum sm_flow_scope scope, enum sm_flow_how how,
                  uint32_t hold_ms, int64_t now_us, sm_holds_report_fn *report, void *data);

/** sm_holds_match() - is this attempt refused by a hold? Counts it and sets *ret_how. */
bool sm_holds_match(struct sm_holds *holds, const struct sm_hold_key *key, int64_t now_us, enum sm_flow_how *ret_how);

/** sm_holds_report() - report every count that is not zero; a count whose report fails is kept. */
void sm_holds_report(struct sm_holds *holds, sm_holds_report_fn *report, void *data);

/** sm_holds_release() - end all holds (a policy reload). Counts stay until reported. */
void sm_holds_release(struct sm_holds *holds);

#endif
