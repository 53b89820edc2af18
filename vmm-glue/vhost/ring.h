/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split virtqueues, device side (virtio 1.1, section 2.6): chains of descriptors out of the available ring, used entries
 * back, and notifications that are left out when nobody waits for them.
 *
 * The guest is on the other side and may write anywhere at any time. So:
 *  - each descriptor, available entry and index is read once, into a private copy, and only the copy is judged and used;
 *  - where the walk goes is bounded by SM_VHOST_CHAIN_MAX descriptors, whatever the descriptors say;
 *  - the parts of a chain lie inside guest memory (mem.h); their bytes may change while they are copied, and nobody
 *    reads them twice.
 * What breaks a rule of the specification breaks the ring: `fault` says which, nothing more is taken from it until the
 * VMM has stopped it and set it up again. Nothing here ends the process.
 *
 * Chains are used in the order in which they came, and at once: between two calls of the port none is outstanding. So
 * the ring needs no memory of its own, and a VMM that asks where the ring stands (GET_VRING_BASE) gets an answer that a
 * later back-end can go on from.
 *
 * Notifications. Ours to the guest: sm_vhost_ring_publish() makes used entries visible and says whether the guest wants
 * to be told (EVENT_IDX or the available ring's flag). The guest's to us: off unless somebody waits,
 * sm_vhost_ring_kicks_on() and _off(). After _on() look again: it says whether something came in between.
 *
 * Addresses and numbers in a ring are little-endian. One thread.
 */
#ifndef SM_VHOST_RING_H
#define SM_VHOST_RING_H

#include <linux/virtio_ring.h>

#include "vhost/mem.h"

/** Entries of a ring: the specification's maximum. Nothing here is allocated by it. */
#define SM_VHOST_RING_SIZE_MAX 32768
/** Descriptors of one chain, indirect ones included: QEMU's own limit, so that no driver makes longer ones. */
#define SM_VHOST_CHAIN_MAX 1024
/** Parts of one chain: a descriptor that lies across two regions is two parts, which happens at few places of a guest. */
#define SM_VHOST_PARTS_MAX (SM_VHOST_CHAIN_MAX + SM_VHOST_MEM_SLOTS)

/* What breaks a ring. */
#define SM_VHOST_FAULTS(X)                                                                                             \
    X(NONE, "none")                                                                                                    \
    X(AVAIL_INDEX, "more available entries than the ring has")                                                         \
    X(HEAD, "an available entry that names no descriptor")                                                             \
    X(NEXT, "a descriptor that goes on to none")                                                                       \
    X(LONG, "a chain that is too long or a loop")                                                                      \
    X(ADDRESS, "a descriptor outside guest memory")                                                                    \
    X(INDIRECT, "an indirect descriptor that was not agreed on")                                                       \
    X(NESTED, "an indirect table inside an indirect table, or in the middle of a chain")                               \
    X(TABLE, "an indirect table of a wrong length, or outside guest memory")                                           \
    X(ORDER, "a readable descriptor behind a writable one")                                                            \
    X(DIRECTION, "a descriptor to write in what the guest sends, or one to read in what it receives")                  \
    X(PARTS, "a chain across too many memory regions")                                                                 \
    X(MEMORY, "a ring that lies outside guest memory")                                                                 \
    X(KICK, "a kick descriptor that cannot be watched")                                                                \
    X(BUFFER, "a buffer that is too small for a header")

enum sm_vhost_fault {
#define X(name, text) SM_VHOST_FAULT_##name,
    SM_VHOST_FAULTS(X)
#undef X
        SM_VHOST_FAULT_COUNT
};

/** sm_vhost_fault_name() - the text above. */
const char *sm_vhost_fault_name(enum sm_vhost_fault fault);

struct sm_vhost_ring {
    /* Set by the VMM's messages (backend.c). */
    uint32_t num;                           /* 0: not said yet; else a power of two */
    uint64_t desc_uva, avail_uva, used_uva; /* the VMM's addresses */
    bool has_addr;
    bool started;                 /* between the message that completed it and GET_VRING_BASE */
    int8_t enable;                /* SET_VRING_ENABLE: 0 or 1; -1 before the first */
    bool enabled;                 /* what `enable` and the features come to */
    int kick_fd, call_fd, err_fd; /* -1: none; owned */

    /* Set when it starts. */
    struct sm_vhost_mem *mem;
    bool event_idx, indirect;
    bool quiet; /* the guest was told not to kick (without EVENT_IDX) */
    volatile struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;

    /* Where it stands. */
    uint16_t last_avail; /* the next entry to take */
    uint16_t avail_seen; /* the guest's index when it was read last */
    uint16_t used_idx;   /* the next used entry */
    uint16_t published;  /* what the guest has been shown of it */
    uint16_t signalled;  /* used_idx when the guest was asked last whether it wants to be told */
    bool signalled_ever;
    enum sm_vhost_fault fault;
    bool fault_said; /* backend.c: reported */
};

/** A chain. Its parts stand in the caller's array: n_out that the device reads, then n_in that it writes. */
struct sm_vhost_chain {
    uint16_t head;
    uint16_t n_desc; /* descriptors of the ring itself that it takes: an indirect table counts as one */
    unsigned n_out, n_in;
    size_t out_len, in_len;
    struct iovec *parts;
};

enum sm_vhost_pop {
    SM_VHOST_POP_BROKEN = -1, /* `fault` says why */
    SM_VHOST_POP_NONE = 0,    /* nothing available (or not running) */
    SM_VHOST_POP_CHAIN = 1,
    SM_VHOST_POP_NO_ROOM = 2, /* the chain has more parts than fit; it was not taken */
};

/** sm_vhost_ring_init() - no ring yet. */
void sm_vhost_ring_init(struct sm_vhost_ring *ring);
/** sm_vhost_ring_map() - find the ring's three parts in mem (kept). Returns false, with `fault` MEMORY, when they are not
 * there or not aligned. Does not touch where it stands. */
bool sm_vhost_ring_map(struct sm_vhost_ring *ring, struct sm_vhost_mem *mem);
/**
 * sm_vhost_ring_start() - a mapped ring begins behind what guest memory has as used: whoever served it before, chains were used
 * in order, so the rest is still to be done. What the VMM says (last_avail) counts only where that cannot be: cloud-hypervisor
 * gives the guest's own index after a back-end has gone, which would leave out all that the guest had posted.
 */
void sm_vhost_ring_start(struct sm_vhost_ring *ring, bool event_idx, bool indirect);
/** sm_vhost_ring_stop() - forgets the mapping and the fault; last_avail stays. */
void sm_vhost_ring_stop(struct sm_vhost_ring *ring);

/** sm_vhost_ring_live() - started, enabled, and not broken: nothing else is read or written. */
static inline bool sm_vhost_ring_live(const struct sm_vhost_ring *ring)
{
    return ring->started && ring->enabled && ring->fault == SM_VHOST_FAULT_NONE;
}

/**
 * sm_vhost_ring_pop() - take the next chain; its parts go to parts[0 ... max). With max >= SM_VHOST_PARTS_MAX the answer
 * is never NO_ROOM.
 */
enum sm_vhost_pop sm_vhost_ring_pop(struct sm_vhost_ring *ring, struct iovec *parts, unsigned max,
                                    struct sm_vhost_chain *ret);
/** sm_vhost_ring_unpop() - give the last n chains back, none of which was pushed. */
void sm_vhost_ring_unpop(struct sm_vhost_ring *ring, unsigned n);
/** sm_vhost_ring_push() - a chain is used, len bytes were written into it. The guest sees it after _publish(). */
void sm_vhost_ring_push(struct sm_vhost_ring *ring, uint16_t head, uint32_t len);
/** sm_vhost_ring_publish() - what was pushed becomes visible. Returns true when the guest wants to be told. */
bool sm_vhost_ring_publish(struct sm_vhost_ring *ring);
/** sm_vhost_ring_call() - publish, and tell the guest if it wants that: one write(2) of 8 bytes to call_fd, which does not
 * block. Returns true when it was told. */
bool sm_vhost_ring_call(struct sm_vhost_ring *ring);

/** sm_vhost_ring_kicks_off() - we look by ourselves; kicks are only hints to the guest, some may still come. */
void sm_vhost_ring_kicks_off(struct sm_vhost_ring *ring);
/** sm_vhost_ring_kicks_on() - the next chain beyond those that were seen is to be announced. Returns true when there is
 * one already, which will not be. */
bool sm_vhost_ring_kicks_on(struct sm_vhost_ring *ring);
/** sm_vhost_ring_waiting() - a chain is there now. */
bool sm_vhost_ring_waiting(struct sm_vhost_ring *ring);

/** sm_vhost_parts_read() - copy len bytes out of the readable parts of a chain, from byte `skip` on; fewer when it is
 * shorter. Returns how many. */
size_t sm_vhost_parts_read(const struct iovec *parts, unsigned n, size_t skip, void *buf, size_t len);

/** Where the next byte goes in a row of writable parts. */
struct sm_vhost_fill {
    const struct iovec *part;
    unsigned left; /* parts, this one included */
    size_t at;     /* in this part */
};
/** sm_vhost_fill() - copy up to len bytes to where fill stands, and move it. Returns how many had room. */
size_t sm_vhost_fill(struct sm_vhost_fill *fill, const void *buf, size_t len);

#endif
