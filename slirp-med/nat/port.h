/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port: the guest's network card seen from our side, whatever carries the frames.
 *
 * The front reads and writes frames in batches and never learns whether a tap, a QEMU stream socket or a vhost-user
 * ring is behind them. A port is a vtable over one descriptor:
 *  - read() fills buffers that the caller owns (a port over shared guest memory copies here, once, so that the guest
 * cannot change a frame after it was judged);
 *  - write() takes frames as lists of parts, so that a header and a piece of a socket buffer need no copy in between;
 *  - each frame carries what virtio_net_hdr carries (virtio 1.1, 5.1.6): whether its checksum is to be trusted or
 * completed, and how it is to be segmented. A port says with `offloads` which of these it can do; frames given to it
 * never ask for more.
 *
 * When the guest's side is full, frames wait in a bounded queue in front of write(); nothing is dropped until the queue
 * is full, and the front stops producing (reading upstream) once it is half full: sm_port_congested(). TCP repairs what
 * is dropped after that.
 *
 * One thread; nothing blocks. After start a port makes only read, readv, write and writev calls.
 */
#ifndef SM_NAT_PORT_H
#define SM_NAT_PORT_H

#include <sys/uio.h>

#include "base/defs.h"

/** Frames of one read(): long enough to spread the cost of a wake-up, short enough that flows are served in between. */
#define SM_PORT_BATCH 64
/** Waiting frames for a guest that does not read: 4 MiB is about 20 ms at 1.6 Gbit/s; memory stays flat behind it. */
#define SM_PORT_QUEUE_FRAMES 4096
#define SM_PORT_QUEUE_BYTES (4u << 20)
/** Parts of one outgoing frame: Ethernet header, IP and TCP headers, and a ring buffer's two pieces, with one to spare.
 */
#define SM_PORT_IOV_MAX 5

enum sm_offload_flag {
    SM_OFFLOAD_NEEDS_CSUM = 1 << 0, /* the sum at csum_start + csum_offset holds the pseudo header's part only */
    SM_OFFLOAD_CSUM_OK = 1 << 1,    /* the transport checksum was checked, or never left this machine */
};

enum sm_gso { SM_GSO_NONE, SM_GSO_TCPV4, SM_GSO_COUNT };

/** What goes with a frame beside its bytes; all zero means a plain frame. Offsets count from the start of the Ethernet
 * header. */
struct sm_offload {
    uint8_t flags;    /* enum sm_offload_flag */
    uint8_t gso_type; /* enum sm_gso */
    uint16_t gso_size;
    uint16_t hdr_len;
    uint16_t csum_start;
    uint16_t csum_offset;
};

/** A frame that was read, in a buffer of the caller. */
struct sm_frame {
    uint8_t *data;
    size_t cap;
    size_t len; /* > the port's max_frame means that it did not fit and was cut */
    struct sm_offload offload;
};

/** A frame to write. */
struct sm_frame_out {
    const struct iovec *iov;
    unsigned n_iov; /* <= SM_PORT_IOV_MAX */
    struct sm_offload offload;
};

struct sm_port;

struct sm_port_ops {
    const char *name;
    /** read up to n frames. Returns how many came (0: none now), or -1 with errno when the port is dead (ENODATA: the
     * other side left). */
    int (*read)(struct sm_port *port, struct sm_frame *frames, unsigned n);
    /** write frames in order. Returns how many were taken; fewer than n means that the guest's side is full (wait for
     * EPOLLOUT). -1: dead. */
    int (*write)(struct sm_port *port, const struct sm_frame_out *frames, unsigned n);
    void (*free)(struct sm_port *port);
};

struct sm_port_queued;

struct sm_port {
    const struct sm_port_ops *ops;
    int fd;            /* readiness; owned by the port */
    size_t max_frame;  /* Ethernet header and MTU; a read buffer holds one byte more, to see what is too long */
    uint32_t offloads; /* enum sm_offload_flag, and 1 << (16 + enum sm_gso): what write() accepts */

    /* The bounded queue in front of write(). */
    struct sm_port_queued *head, **tail;
    unsigned queued_frames;
    size_t queued_bytes;

    uint64_t rx_frames, tx_frames;
    uint64_t tx_dropped; /* the queue was full, or the port refused this frame */
};

/** sm_port_init() - for implementations: the common part. */
void sm_port_init(struct sm_port *port, const struct sm_port_ops *ops, int fd, size_t max_frame, uint32_t offloads);
/** sm_port_free() - drops what waits and calls ops->free. NULL is fine. */
void sm_port_free(struct sm_port *port);

/** sm_port_read() - up to n frames into frames[].data (each cap > max_frame). Returns as ops->read. */
int sm_port_read(struct sm_port *port, struct sm_frame *frames, unsigned n);
/**
 * sm_port_send() - write one frame now, or queue a copy behind those that wait. A full queue drops it and counts.
 * Returns 0, or -1 with errno when the port is dead.
 */
int sm_port_send(struct sm_port *port, const struct sm_frame_out *frame);
/** sm_port_flush() - write what waits; call on EPOLLOUT. Returns 0, or -1 with errno when the port is dead. */
int sm_port_flush(struct sm_port *port);
/** sm_port_waiting() - frames wait, so EPOLLOUT is wanted. */
static inline bool sm_port_waiting(const struct sm_port *port)
{
    return port->head != NULL;
}
/** sm_port_congested() - half of the queue is used: produce no more for this guest until it drains. */
static inline bool sm_port_congested(const struct sm_port *port)
{
    return port->queued_frames >= SM_PORT_QUEUE_FRAMES / 2 || port->queued_bytes >= SM_PORT_QUEUE_BYTES / 2;
}

/**
 * sm_port_tap_new() - a port over a non-blocking tap descriptor (IFF_TAP | IFF_NO_PI, no vnet header) that somebody
 * else opened. Takes the descriptor. mtu is the link's.
 */
struct sm_port *sm_port_tap_new(int fd, unsigned mtu);

#endif
