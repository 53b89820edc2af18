/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packet format of a UDP flow's pair: datagrams one behind the other, each led by its 16-bit length. Both sides are trusted to differ:
 * the core reads what a front may have forged, so decoding is strict.
 */
#ifndef SM_FLOW_UDPBATCH_H
#define SM_FLOW_UDPBATCH_H

#include "base/rw.h"
#include "flow/msg.h"

/** sm_udpbatch_add() - append one datagram (at most 65507 bytes); false when the packet has no room for it. */
static inline bool sm_udpbatch_add(struct sm_wr *w, const void *data, size_t len)
{
    if (len > 65507 || len + 2 > w->cap - w->len)
        return false;
    sm_wr_u16(w, (uint16_t)len);
    sm_wr_bytes(w, data, len);
    return !w->bad;
}

/** sm_udpbatch_next() - the next datagram of a packet; false at the end or, with r->bad set, on a malformed one. */
static inline bool sm_udpbatch_next(struct sm_rd *r, const uint8_t **ret_data, size_t *ret_len)
{
    if (sm_rd_left(r) == 0)
        return false;
    size_t len = sm_rd_u16(r);
    if (len > 65507)
        r->bad = true;
    const uint8_t *data = sm_rd_take(r, len);
    if (!data)
        return false;
    *ret_data = data;
    *ret_len = len;
    return true;
}

#endif
