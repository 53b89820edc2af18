/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vhost-user back-end: what a VMM's messages make of memory and rings. Knows no kind of device: a constant struct
 * sm_vhost_device says what is offered, and the owner is told when something has changed.
 *
 * Order. QEMU and cloud-hypervisor set things up in different orders, and QEMU sends SET_VRING_ENABLE before there is
 * memory or a ring. So every message only notes what it says, and a ring starts with whichever message completes it: it
 * has a size, addresses, a kick descriptor, and there is memory. `started` (until GET_VRING_BASE) and `enabled`
 * (SET_VRING_ENABLE; without PROTOCOL_FEATURES always) are apart, as the protocol has them:
 *
 *   started, enabled      chains are served
 *   started, not enabled  the ring is not looked at. (The protocol would have a network device take and drop what the guest
 *                         sends; but cloud-hypervisor disables a ring when its guest has reset the device, and then its
 *                         memory may be anything.) It may be set up anew, which stops it.
 *   not started           the ring is not looked at
 *   broken                started, but a rule was broken (ring.h): as not started, until it is stopped
 *
 * Refusals. A message that is a lie (an index without a ring, a size that is no power of two, memory that is not there,
 * features that were not offered, a descriptor too many) has no effect; but a refused SET_MEM_TABLE leaves no memory at
 * all. With REPLY_ACK agreed and a reply asked for, the VMM is told and the connection goes on. Without, it would go on in
 * the belief that all is well: the connection ends. A message that does not decode always ends it. When memory goes from
 * under a running ring, that ring is broken.
 *
 * Descriptors that the VMM sends are made non-blocking here. Their file descriptions are shared with it, so a hostile VMM
 * could undo that and make us wait in a read: it would then have stopped its own network, and nothing else.
 *
 * No loop: the owner watches `fd` (sm_vhost_input(), and sm_vhost_output() while sm_vhost_wants_output()), and the
 * kicks, which kick() tells it about.
 *
 * One thread; nothing blocks. Of the kernel it wants recvmsg, write, read, fcntl, fstat, mmap, munmap, madvise, close.
 */
#ifndef SM_VHOST_BACKEND_H
#define SM_VHOST_BACKEND_H

#include "vhost/mem.h"
#include "vhost/proto.h"
#include "vhost/ring.h"

/** Rings of a device: vsock has three. */
#define SM_VHOST_RINGS_MAX 4
/** Messages of one sm_vhost_input(): a whole set-up is about thirty, and flows are served in between. */
#define SM_VHOST_INPUT_MAX 32

struct sm_vhost;

/** What a device is. */
struct sm_vhost_device {
    const char *name;
    uint64_t features;          /* virtio's bits; PROTOCOL_FEATURES is added */
    uint64_t protocol_features; /* 1 << enum sm_vhost_protocol_feature */
    unsigned n_rings;
    uint64_t queue_num; /* the answer to GET_QUEUE_NUM */
    /** the kick descriptor of a ring is now fd (-1: none). Called before the old one is closed. */
    void (*kick)(struct sm_vhost *vhost, unsigned index, int fd);
    /** features, memory or rings have changed: look at what may be done now. Once a message at most. */
    void (*changed)(struct sm_vhost *vhost);
};

struct sm_vhost_stats {
    uint64_t messages, refused; /* refused: those that were lies */
    uint64_t broken;            /* rings that broke */
};

struct sm_vhost {
    const struct sm_vhost_device *device;
    const uint8_t *config; /* the device's configuration space, the owner's; NULL: none */
    size_t config_len;

    int fd; /* the connection; the owner's, -1 when there is none */
    struct sm_vhost_msg in;
    struct sm_vhost_out out;

    uint64_t features, protocol_features; /* agreed */
    struct sm_vhost_mem mem;
    struct sm_vhost_ring rings[SM_VHOST_RINGS_MAX];
    struct sm_vhost_stats stats; /* over all connections */
};

/** sm_vhost_init() - no connection yet. config (NULL: none) must live as long. */
void sm_vhost_init(struct sm_vhost *vhost, const struct sm_vhost_device *device, const void *config, size_t config_len);
/** sm_vhost_open() - a new connection over fd, a non-blocking stream socket that stays the caller's. Everything of an earlier one is gone. */
void sm_vhost_open(struct sm_vhost *vhost, int fd);
/** sm_vhost_close() - rings stopped, memory unmapped, the VMM's descriptors closed, agreed features forgotten. changed() is not
 * called. */
void sm_vhost_close(struct sm_vhost *vhost);

/**
 * sm_vhost_input() - messages that are there, SM_VHOST_INPUT_MAX at most. Returns 0, or -1 with *ret_why when the
 * connection is over (NULL: the VMM has left in order); then sm_vhost_close() is due.
 */
int sm_vhost_input(struct sm_vhost *vhost, const char **ret_why);
/** sm_vhost_wants_output() - an answer waits for the socket to take it; no message is read meanwhile. */
static inline bool sm_vhost_wants_output(const struct sm_vhost *vhost)
{
    return sm_vhost_out_waiting(&vhost->out);
}
/** sm_vhost_output() - returns 0, or -1 when the VMM is gone. */
int sm_vhost_output(struct sm_vhost *vhost);

/** sm_vhost_has() - a feature (bit number) was agreed on. */
static inline bool sm_vhost_has(const struct sm_vhost *vhost, unsigned feature)
{
    return vhost->features >> feature & 1;
}

/** sm_vhost_check() - after using a ring: if it has broken, say so once, on the log and to the VMM over err_fd. Returns true
 * when it has, be it long ago. */
bool sm_vhost_check(struct sm_vhost *vhost, unsigned index);

#endif
