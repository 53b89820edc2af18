/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packet format of a UDP flow's pair: runs of datagrams, one behind the other.
 *
 *   +-----------------+-----------------+------------------------------------------+
 *   | bytes of all: 2 | size of each: 2 | the datagrams' bytes, with nothing between |
 *   +-----------------+-----------------+------------------------------------------+
 *
 * A run is what a kernel cuts (UDP_SEGMENT) and gathers (UDP_GRO): all of its datagrams have one size, and the last may
 * be shorter, but not empty. So a run goes to a socket or to a guest's card as it lies here. An empty datagram is a run
 * of its own, of size 0.
 *
 * Both sides are trusted to differ: the core reads what a front may have forged, so decoding is strict.
 */
#ifndef SM_FLOW_UDPBATCH_H
#define SM_FLOW_UDPBATCH_H

#include "base/dgrams.h"
#include "base/rw.h"
#include "flow/msg.h"

/** Bytes in front of each run. */
#define SM_UDPBATCH_HEAD 4
_Static_assert(SM_DGRAM_MAX + SM_UDPBATCH_HEAD <= SM_FLOW_UDP_BATCH_MAX, "the largest datagram fits into a packet");

/** A packet that is being filled. */
struct sm_udpbatch {
    struct sm_wr w;
    unsigned count; /* datagrams */
    size_t run;     /* where the last run begins */
    bool open;      /* ... and it can take more */
};

static inline struct sm_udpbatch sm_udpbatch_init(void *p, size_t cap)
{
    return (struct sm_udpbatch){.w = sm_wr_init(p, cap)};
}

static inline uint16_t sm_udpbatch_u16(const uint8_t *p)
{
    return (uint16_t)((unsigned)p[0] << 8 | p[1]);
}

static inline void sm_udpbatch_put_head(uint8_t head[SM_UDPBATCH_HEAD], size_t all, size_t size)
{
    head[0] = (uint8_t)(all >> 8);
    head[1] = (uint8_t)all;
    head[2] = (uint8_t)(size >> 8);
    head[3] = (uint8_t)size;
}

/** sm_udpbatch_joins() - may a datagram of len bytes join a run of `all` bytes in datagrams of `size` that no shorter
 * one has ended? */
static inline bool sm_udpbatch_joins(size_t all, size_t size, size_t len)
{
    return len > 0 && len <= size && all + len <= SM_DGRAM_MAX && all / size < SM_DGRAMS_RUN_MAX;
}

/** sm_udpbatch_add() - append one datagram; false, and nothing changed, when the packet has no room for it. */
static inline bool sm_udpbatch_add(struct sm_udpbatch *b, const void *data, size_t len)
{
    uint8_t *head = b->w.p + b->run;
    size_t all = b->open ? sm_udpbatch_u16(head) : 0, size = b->open ? sm_udpbatch_u16(head + 2) : 0;
    bool joins = b->open && sm_udpbatch_joins(all, size, len);

    if (len > SM_DGRAM_MAX || len + (joins ? 0 : SM_UDPBATCH_HEAD) > b->w.cap - b->w.len ||
        b->count >= SM_FLOW_UDP_BATCH_DATAGRAMS)
        return false;
    if (!joins) {
        b->run = b->w.len;
        head = sm_wr_room(&b->w, SM_UDPBATCH_HEAD);
        all = 0;
        size = len;
    }
    sm_udpbatch_put_head(head, all + len, size);
    sm_wr_bytes(&b->w, data, len);
    b->open = len == size && len > 0;
    b->count++;
    return true;
}

/**
 * sm_udpbatch_next() - the next run of a packet; false at the end or, with r->bad set, on a malformed one.
 * @count: datagrams so far, 0 at first.
 */
static inline bool sm_udpbatch_next(struct sm_rd *r, unsigned *count, struct sm_dgrams_run *ret)
{
    if (sm_rd_left(r) == 0)
        return false;
    size_t all = sm_rd_u16(r), size = sm_rd_u16(r);
    const uint8_t *data = sm_rd_take(r, all);
    struct sm_dgrams_run run = {.data = data, .len = all, .size = size};
    if (all > SM_DGRAM_MAX || size > all || (size == 0 && all > 0) || sm_dgrams_run_count(&run) > SM_DGRAMS_RUN_MAX ||
        sm_dgrams_run_count(&run) > SM_FLOW_UDP_BATCH_DATAGRAMS - *count)
        r->bad = true;
    if (!data || r->bad)
        return false;
    *count += (unsigned)sm_dgrams_run_count(&run);
    *ret = run;
    return true;
}

#endif
