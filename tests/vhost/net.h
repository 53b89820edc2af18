/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The network driver of the front-end simulator (virtio 1.1, 5.1.6): frames out by ring 1, frames in by ring 0.
 *
 * A shape says how a frame and its header are cut into descriptors. All of them are legal: virtio 1.1, 2.6.4.2 lets a
 * driver cut a buffer as it likes, and a device must not care (VERSION_1 implies ANY_LAYOUT).
 */
#ifndef TESTS_VHOST_NET_H
#define TESTS_VHOST_NET_H

#include <sys/types.h>

#include "sim.h"

#define SIM_SHAPE_CUTS 12
/** A frame of 64 KiB with Ethernet header and one byte to spare. */
#define SIM_FRAME_MAX (65536 + 18)

struct sim_shape {
    const char *name;
    unsigned cuts[SIM_SHAPE_CUTS]; /* lengths of the first pieces, 0 ends the list; what remains is the last piece */
    unsigned every;                /* what remains is cut into pieces of so many bytes; 0: it is not cut */
    bool indirect;
    bool across; /* the buffer lies across two regions; at most 16 KiB, and one at a time */
};

/** Every legal shape that the tests use. */
extern const struct sim_shape sim_shapes[];
extern const unsigned sim_n_shapes;

struct sim_net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

void sim_net_hdr_put(uint8_t p[NET_HDR], const struct sim_net_hdr *hdr);
void sim_net_hdr_get(const uint8_t p[NET_HDR], struct sim_net_hdr *ret);

/** sim_net_add() - a frame for the device, not yet published. hdr NULL: all zero. Returns 0, or -1 when the ring is
 * full. */
int sim_net_add(struct sim *sim, const struct sim_net_hdr *hdr, const void *frame, size_t len,
                const struct sim_shape *shape);
/** sim_net_send() - the same, published. */
int sim_net_send(struct sim *sim, const struct sim_net_hdr *hdr, const void *frame, size_t len,
                 const struct sim_shape *shape);
/** sim_net_reap() - take the sent chains that were used back. Returns how many. */
unsigned sim_net_reap(struct sim *sim);

/** sim_net_supply() - n buffers of len bytes for frames to come (header included), published. Returns how many fitted.
 */
unsigned sim_net_supply(struct sim *sim, unsigned n, uint32_t len, const struct sim_shape *shape);
/** sim_net_receive() - the next frame. Returns its length, or -1 when there is none, or none that is right or fits. */
ssize_t sim_net_receive(struct sim *sim, struct sim_net_hdr *ret_hdr, uint8_t *frame, size_t cap);

#endif
