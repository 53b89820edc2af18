/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The caps of a workspace (spec section 7): bytes a second in each direction, bytes in all, connections at once. This
 * is the arithmetic: no descriptor, no clock, no log; time comes in as an argument (microseconds of a clock that should
 * not go back; if it does, no time passed).
 *
 * Rate. Each direction has one token bucket for TCP and UDP together, a tenth of a second deep: a late timer loses
 * nothing, and what has been saved up is 1 % of ten seconds. A flow asks sm_caps_may() before it moves bytes and tells
 * sm_caps_moved() what it moved.
 *
 *   nobody waits, tokens are there    it may have them
 *   otherwise                         0, and the flow stands in line for that direction; who asks next is behind it
 *
 * sm_caps_run(), called when sm_caps_due() says so, goes round that queue and gives each flow one quantum. A stream is
 * woken with it (wake()), uses what it can, and what it leaves goes back; a flow that wants more stands in line again.
 * So flows that always want more get the same, to within a quantum a round. A datagram flow is not woken, since nothing
 * of it is kept: a datagram that finds no tokens is dropped and puts its flow in line, the quantum is a credit for the
 * datagrams to come, and goes back when it is not used in SM_CAPS_CREDIT_US. One datagram may overdraw bucket or
 * credit; what follows pays for it.
 *
 * Streams get what has been saved up in steps, no more than a 32nd of a second's bytes (and at least four quanta) in
 * one millisecond: the kernel sizes a socket's receive buffer by how much is read at a time, and a buffer that grows is
 * filled by the origin beyond the rate.
 *
 * Total. Both directions, TCP and UDP, added up over all runs; a sum sticks at INT64_MAX. sm_caps_may() never gives
 * more than is left, so nothing overshoots. Once a byte was wanted and none was left, or a datagram was larger than
 * what is left, the total is spent for good: every flow that wants a byte is to be torn down, and no flow is admitted.
 *
 * Connections. sm_caps_enter() and sm_caps_leave().
 */
#ifndef SM_CORE_CAPS_H
#define SM_CORE_CAPS_H

#include <glib.h>

#include "base/defs.h"

/** Largest rate: a second of it in microseconds times bytes stays far from 2^63. 1 TiB/s is no cap any more. */
#define SM_CAPS_BPS_MAX (UINT64_C(1) << 40)
/** Largest total: half of where the counters stick, so that a capped sum is always exact. */
#define SM_CAPS_TOTAL_MAX (UINT64_C(1) << 62)
#define SM_CAPS_CONNS_MAX (UINT64_C(1) << 20)
/** A bucket holds this share of a second's bytes, and at least SM_CAPS_QUANTUM_MIN times four. */
#define SM_CAPS_DEPTH_SHARE 10
/** A quantum is this share of a second's bytes (4 ms), between what is worth a system call and what one read moves. */
#define SM_CAPS_QUANTUM_SHARE 256
#define SM_CAPS_QUANTUM_MIN 512
#define SM_CAPS_QUANTUM_MAX (64 << 10)
/**
 * A bucket that has been three quarters full for so long is not used: whoever could use it waits for something else
 * than the rate.
 */
#define SM_CAPS_SLACK_US INT64_C(20000)
/** What streams may move in one SM_CAPS_TICK_US is this share of a second's bytes. */
#define SM_CAPS_BURST_SHARE 32
#define SM_CAPS_TICK_US INT64_C(1000)
/**
 * A credit that a datagram flow has not used goes back after this: all credits together are no more than that time's
 * bytes.
 */
#define SM_CAPS_CREDIT_US INT64_C(200000)

enum sm_cap { SM_CAP_MAX_BPS, SM_CAP_MAX_TOTAL_BYTES, SM_CAP_MAX_CONNS, SM_CAP_COUNT };
/** sm_cap_name() - "max_bps" ...: the key in configuration and audit, and the reason of what it ends or refuses. */
const char *sm_cap_name(enum sm_cap cap);

/** As the guest sees it: UP is what it sends. */
enum sm_caps_dir { SM_CAPS_UP, SM_CAPS_DOWN, SM_CAPS_DIRS };
const char *sm_caps_dir_name(enum sm_caps_dir dir);

/** 0: unlimited. */
struct sm_caps_limits {
    uint64_t bps;
    uint64_t total;
    uint64_t conns;
};

/**
 * One flow's place in line. Zero it, set owner and datagrams, sm_caps_enter() it; the members are caps.c's from then
 * on.
 */
struct sm_caps_flow {
    void *owner;
    bool datagrams;
    bool entered;
    struct sm_caps_lane {
        int64_t credit;    /* given by sm_caps_run() and not used; below 0: overdrawn by a datagram */
        int64_t credit_us; /* when it was given */
        bool waiting;
        GList link; /* its place in line; data is the flow */
    } lane[SM_CAPS_DIRS];
};

/** What the rate did to flows since it was last asked: streams that were told to wait, datagrams that were dropped. */
struct sm_caps_hits {
    uint64_t held, dropped;
};

struct sm_caps;

/** A stream in line has its quantum. May ask, move, leave, and free the flow. */
typedef void (*sm_caps_wake_fn)(struct sm_caps_flow *flow, enum sm_caps_dir dir);

/** @counted: bytes of earlier runs, by direction. */
struct sm_caps *sm_caps_new(const struct sm_caps_limits *limits, const uint64_t counted[SM_CAPS_DIRS],
                            sm_caps_wake_fn wake, int64_t now_us);
void sm_caps_free(struct sm_caps *c);
const struct sm_caps_limits *sm_caps_limits(const struct sm_caps *c);

/** sm_caps_enter() - one more connection; false (and nothing done) when there are as many as may be. */
bool sm_caps_enter(struct sm_caps *c, struct sm_caps_flow *flow) SM_WARN_UNUSED;
/** sm_caps_step_out() - out of all lines; an unused credit goes back. */
void sm_caps_step_out(struct sm_caps *c, struct sm_caps_flow *flow);
/** sm_caps_leave() - the same, and one connection less. Harmless for a flow that did not enter. */
void sm_caps_leave(struct sm_caps *c, struct sm_caps_flow *flow);
uint64_t sm_caps_conns(const struct sm_caps *c);

/**
 * sm_caps_may() - how many of want (> 0) bytes this stream may move now. 0: sm_caps_is_spent(), or the flow stands in
 * line for that direction and is woken.
 */
size_t sm_caps_may(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t want, int64_t now_us);
/** sm_caps_may_datagram() - the same for all of a datagram or nothing of it. False: drop it, or sm_caps_is_spent(). */
bool sm_caps_may_datagram(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t len,
                          int64_t now_us);
/**
 * sm_caps_moved() - n bytes moved: counted, and paid for from the flow's credit, then the bucket (which may be
 * overdrawn).
 */
void sm_caps_moved(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t n);

/** sm_caps_due() - when sm_caps_run() is to be called; INT64_MAX while nobody waits. */
int64_t sm_caps_due(struct sm_caps *c, int64_t now_us);
void sm_caps_run(struct sm_caps *c, int64_t now_us);

size_t sm_caps_quantum(const struct sm_caps *c);
/** sm_caps_has_slack() - has the rate been left unused for SM_CAPS_SLACK_US? One late turn is not enough. */
bool sm_caps_has_slack(struct sm_caps *c, enum sm_caps_dir dir, int64_t now_us);

/** sm_caps_is_full() - nothing is left of the total: no flow is to be admitted. */
bool sm_caps_is_full(const struct sm_caps *c);
/** sm_caps_is_spent() - ... and somebody wanted more. */
bool sm_caps_is_spent(const struct sm_caps *c);
/** sm_caps_left() - bytes until then; UINT64_MAX: there is no total. */
uint64_t sm_caps_left(const struct sm_caps *c);
uint64_t sm_caps_counted(const struct sm_caps *c, enum sm_caps_dir dir);
/** sm_caps_total() - both directions; at most INT64_MAX. */
uint64_t sm_caps_total(const struct sm_caps *c);

/** sm_caps_has_hits() - would there be any, in either direction? */
bool sm_caps_has_hits(const struct sm_caps *c);
/** sm_caps_take_hits() - and start over. */
struct sm_caps_hits sm_caps_take_hits(struct sm_caps *c, enum sm_caps_dir dir);

#endif
