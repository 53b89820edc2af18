/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost-user messages: the table of those that are spoken here, and how they travel over a non-blocking AF_UNIX stream
 * socket. A header of 12 bytes (request, flags, payload length) in the host's byte order, then the payload; descriptors
 * come with the bytes.
 *
 * Reading is recvmsg(2), writing write(2), since the front's list of system calls has no send*. Both ends may stop in the
 * middle of a message.
 *
 * SM_VHOST_MSGS is the contract: name, number, payload length (least, most), which descriptors belong to it, and what is
 * answered. What is not in the table is refused. Descriptors that a message has no use for are an error and are closed.
 *
 * Source: vhost-user protocol (QEMU, docs/interop/vhost-user.rst).
 */
#ifndef SM_VHOST_PROTO_H
#define SM_VHOST_PROTO_H

#include "base/defs.h"
#include "base/rw.h"

#define SM_VHOST_HEADER_LEN 12
/** Regions in one SET_MEM_TABLE, and so descriptors in one message (VHOST_MEMORY_BASELINE_NREGIONS). */
#define SM_VHOST_FDS_MAX 8
#define SM_VHOST_REGION_LEN 32
/** Configuration space that one message may ask for (VHOST_USER_MAX_CONFIG_SIZE). */
#define SM_VHOST_CONFIG_MAX 256
/** The longest payload: a configuration space with its own header, or a table of regions. */
#define SM_VHOST_PAYLOAD_MAX 272
_Static_assert(SM_VHOST_PAYLOAD_MAX >= 8 + SM_VHOST_FDS_MAX * SM_VHOST_REGION_LEN, "a table of regions fits");
_Static_assert(SM_VHOST_PAYLOAD_MAX >= 12 + SM_VHOST_CONFIG_MAX, "a configuration space fits");

#define SM_VHOST_VERSION 1u         /* flags, bits 0 and 1 */
#define SM_VHOST_FLAG_REPLY 4u      /* an answer; never from the VMM */
#define SM_VHOST_FLAG_NEED_REPLY 8u /* REPLY_ACK: success or failure is to be said */
#define SM_VHOST_FLAGS_KNOWN 15u

/** Payload of SET_VRING_KICK, _CALL and _ERR. */
#define SM_VHOST_VRING_INDEX 0xffu
#define SM_VHOST_VRING_NOFD 0x100u

/* Bit numbers: of the features (beside virtio's own), and of the protocol features. */
#define SM_VHOST_F_PROTOCOL_FEATURES 30
enum sm_vhost_protocol_feature {
    SM_VHOST_PROTOCOL_MQ = 0,
    SM_VHOST_PROTOCOL_REPLY_ACK = 3,
    SM_VHOST_PROTOCOL_CONFIG = 9,
    SM_VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
};

enum sm_vhost_fds {
    SM_VHOST_FDS_NONE,
    SM_VHOST_FDS_VRING,   /* one, or none when the payload says NOFD */
    SM_VHOST_FDS_REGIONS, /* one for each region */
    SM_VHOST_FDS_ONE,
    SM_VHOST_FDS_IGNORED, /* at most one, which is closed */
};
enum sm_vhost_reply {
    SM_VHOST_REPLY_ACK,     /* only when NEED_REPLY asks for it */
    SM_VHOST_REPLY_PAYLOAD, /* always */
};

#define SM_VHOST_MSGS(X)                                                                                               \
    X(GET_FEATURES, 1, 0, 0, NONE, PAYLOAD)                                                                            \
    X(SET_FEATURES, 2, 8, 8, NONE, ACK)                                                                                \
    X(SET_OWNER, 3, 0, 0, NONE, ACK)                                                                                   \
    X(RESET_OWNER, 4, 0, 0, NONE, ACK)                                                                                 \
    X(SET_MEM_TABLE, 5, 8 + SM_VHOST_REGION_LEN, 8 + SM_VHOST_FDS_MAX * SM_VHOST_REGION_LEN, REGIONS, ACK)             \
    X(SET_VRING_NUM, 8, 8, 8, NONE, ACK)                                                                               \
    X(SET_VRING_ADDR, 9, 40, 40, NONE, ACK)                                                                            \
    X(SET_VRING_BASE, 10, 8, 8, NONE, ACK)                                                                             \
    X(GET_VRING_BASE, 11, 8, 8, NONE, PAYLOAD)                                                                         \
    X(SET_VRING_KICK, 12, 8, 8, VRING, ACK)                                                                            \
    X(SET_VRING_CALL, 13, 8, 8, VRING, ACK)                                                                            \
    X(SET_VRING_ERR, 14, 8, 8, VRING, ACK)                                                                             \
    X(GET_PROTOCOL_FEATURES, 15, 0, 0, NONE, PAYLOAD)                                                                  \
    X(SET_PROTOCOL_FEATURES, 16, 8, 8, NONE, ACK)                                                                      \
    X(GET_QUEUE_NUM, 17, 0, 0, NONE, PAYLOAD)                                                                          \
    X(SET_VRING_ENABLE, 18, 8, 8, NONE, ACK)                                                                           \
    X(GET_CONFIG, 24, 12, 12 + SM_VHOST_CONFIG_MAX, NONE, PAYLOAD)                                                     \
    X(GET_MAX_MEM_SLOTS, 36, 0, 0, NONE, PAYLOAD)                                                                      \
    X(ADD_MEM_REG, 37, 8 + SM_VHOST_REGION_LEN, 8 + SM_VHOST_REGION_LEN, ONE, ACK)                                     \
    X(REM_MEM_REG, 38, 8 + SM_VHOST_REGION_LEN, 8 + SM_VHOST_REGION_LEN, IGNORED, ACK)

enum sm_vhost_request {
#define X(name, number, min, max, fds, reply) SM_VHOST_##name = (number),
    SM_VHOST_MSGS(X)
#undef X
};

struct sm_vhost_msg_info {
    const char *name;
    enum sm_vhost_request request;
    uint32_t min, max;
    enum sm_vhost_fds fds;
    enum sm_vhost_reply reply;
};

/** sm_vhost_msg_info() - the row of the table, or NULL. */
const struct sm_vhost_msg_info *sm_vhost_msg_info(uint32_t request);

/** A message while it comes in, and when it is there. Its descriptors are owned. */
struct sm_vhost_msg {
    size_t got; /* bytes so far, header included */
    uint8_t head[SM_VHOST_HEADER_LEN];
    uint8_t payload[SM_VHOST_PAYLOAD_MAX];
    uint32_t request, flags, size; /* once the header is there */
    int fds[SM_VHOST_FDS_MAX];
    unsigned n_fds;
};

/**
 * sm_vhost_msg_read() - read on. Returns 1 when a message is complete, 0 when more must come first, or -1 with *ret_why
 * (NULL: the VMM has closed the connection in order) when the connection is over.
 */
int sm_vhost_msg_read(int sock, struct sm_vhost_msg *msg, const char **ret_why);
/** sm_vhost_msg_clear() - closes the descriptors that were not taken, ready for the next. */
void sm_vhost_msg_clear(struct sm_vhost_msg *msg);

/** One answer, while it goes out. There is never more than one: nothing is read before it has gone. */
struct sm_vhost_out {
    uint8_t data[SM_VHOST_HEADER_LEN + SM_VHOST_PAYLOAD_MAX];
    size_t len, done;
};
/** sm_vhost_out_set() - an answer to request. */
void sm_vhost_out_set(struct sm_vhost_out *out, uint32_t request, const void *payload, uint32_t len);
static inline bool sm_vhost_out_waiting(const struct sm_vhost_out *out)
{
    return out->done < out->len;
}
/** sm_vhost_out_write() - write what waits. Returns 0 (look at _waiting()), or -1 when the VMM is gone. */
int sm_vhost_out_write(int sock, struct sm_vhost_out *out);

/* The payload's integers are in the host's byte order. */
static inline uint32_t sm_vhost_u32(struct sm_rd *r)
{
    uint32_t v;
    (void)sm_rd_bytes(r, &v, sizeof(v));
    return v;
}
static inline uint64_t sm_vhost_u64(struct sm_rd *r)
{
    uint64_t v;
    (void)sm_rd_bytes(r, &v, sizeof(v));
    return v;
}

#endif
