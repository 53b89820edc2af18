/* SPDX-License-Identifier: BSD-3-Clause */
/* A virtio-vsock guest by hand: builds any packet, right or wrong, and takes apart what it gets. */
#ifndef SM_TESTS_NAT_VSOCK_GUEST_H
#define SM_TESTS_NAT_VSOCK_GUEST_H

#include <string.h>
#include <sys/uio.h>

#include "nat/vsock.h"

#define GUEST_CID 3u

enum { VS_INVALID, VS_REQUEST, VS_RESPONSE, VS_RST, VS_SHUTDOWN, VS_RW, VS_CREDIT_UPDATE, VS_CREDIT_REQUEST };
enum { VS_STREAM = 1, VS_SEQPACKET = 2 };
enum { VS_NO_RECEIVE = 1, VS_NO_SEND = 2 };

struct vs_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
    size_t payload_len; /* what follows the header */
    uint8_t payload[SM_VSOCK_PAYLOAD_MAX + 64];
};

static inline void vs_put(uint8_t *at, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t vs_get(const uint8_t *at, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)at[i] << (8 * i);
    return v;
}

static inline struct vs_packet vs_packet(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
    return (struct vs_packet){.src_cid = GUEST_CID,
                              .dst_cid = SM_VSOCK_CID_HOST,
                              .src_port = guest_port,
                              .dst_port = host_port,
                              .type = VS_STREAM,
                              .op = op,
                              .buf_alloc = 256u << 10};
}

static inline size_t vs_encode(const struct vs_packet *p, uint8_t *out)
{
    vs_put(out, p->src_cid, 8);
    vs_put(out + 8, p->dst_cid, 8);
    vs_put(out + 16, p->src_port, 4);
    vs_put(out + 20, p->dst_port, 4);
    vs_put(out + 24, p->len, 4);
    vs_put(out + 28, p->type, 2);
    vs_put(out + 30, p->op, 2);
    vs_put(out + 32, p->flags, 4);
    vs_put(out + 36, p->buf_alloc, 4);
    vs_put(out + 40, p->fwd_cnt, 4);
    memcpy(out + SM_VSOCK_HDR, p->payload, p->payload_len);
    return SM_VSOCK_HDR + p->payload_len;
}

static inline bool vs_decode(const uint8_t *in, size_t len, struct vs_packet *ret)
{
    if (len < SM_VSOCK_HDR || len - SM_VSOCK_HDR > sizeof(ret->payload))
        return false;
    ret->src_cid = vs_get(in, 8);
    ret->dst_cid = vs_get(in + 8, 8);
    ret->src_port = (uint32_t)vs_get(in + 16, 4);
    ret->dst_port = (uint32_t)vs_get(in + 20, 4);
    ret->len = (uint32_t)vs_get(in + 24, 4);
    ret->type = (uint16_t)vs_get(in + 28, 2);
    ret->op = (uint16_t)vs_get(in + 30, 2);
    ret->flags = (uint32_t)vs_get(in + 32, 4);
    ret->buf_alloc = (uint32_t)vs_get(in + 36, 4);
    ret->fwd_cnt = (uint32_t)vs_get(in + 40, 4);
    ret->payload_len = len - SM_VSOCK_HDR;
    memcpy(ret->payload, in + SM_VSOCK_HDR, ret->payload_len);
    return true;
}

#endif
