/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Netlink requests, built attribute by attribute and sent with their acknowledgement awaited (netlink(7), RFC 3549).
 *
 * A request grows in a buffer of its own; what does not fit makes it bad, and a bad one is not sent. Several messages in one
 * buffer go to the kernel as one (a batch of nf_tables).
 */
#ifndef SM_PATHS_NETLINK_H
#define SM_PATHS_NETLINK_H

#include <glib.h>

#include "base/defs.h"

/** Longest request: a rule has 400 bytes, a whole batch of ours 2 KiB. */
#define SM_NETLINK_MAX 8192
/** Nesting of attributes. */
#define SM_NETLINK_DEPTH 6

struct sm_netlink {
    _Alignas(8) uint8_t buf[SM_NETLINK_MAX];
    size_t len;
    size_t head; /* of the message that is being built */
    size_t nest[SM_NETLINK_DEPTH];
    unsigned depth;
    unsigned acks; /* messages that the kernel will answer */
    bool bad;
};

void sm_netlink_init(struct sm_netlink *n);
/** sm_netlink_begin() - a message of that type; flags: NLM_F_* beside NLM_F_REQUEST. fixed is the family's own header. */
void sm_netlink_begin(struct sm_netlink *n, uint16_t type, uint16_t flags, const void *fixed, size_t len);
void sm_netlink_attr(struct sm_netlink *n, uint16_t type, const void *data, size_t len);
void sm_netlink_u32(struct sm_netlink *n, uint16_t type, uint32_t v);
/** ... in network byte order, as nf_tables has it. */
void sm_netlink_be32(struct sm_netlink *n, uint16_t type, uint32_t v);
void sm_netlink_text(struct sm_netlink *n, uint16_t type, const char *text);
/** sm_netlink_open() - attributes inside an attribute, until sm_netlink_close(). */
void sm_netlink_open(struct sm_netlink *n, uint16_t type);
/** ... behind a fixed header, as VETH_INFO_PEER has it. */
void sm_netlink_open_with(struct sm_netlink *n, uint16_t type, const void *fixed, size_t len);
void sm_netlink_close(struct sm_netlink *n);
/** sm_netlink_send() - to a protocol (NETLINK_ROUTE, NETLINK_NETFILTER), in the current network namespace. Returns 0 when the
 * kernel has done all of it, or -1 with errno. */
int sm_netlink_send(struct sm_netlink *n, int protocol);

#endif
