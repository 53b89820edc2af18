/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port: the guest's network card seen from our side, whatever carries the frames.
 *
 * The front reads and writes frames in batches and never learns whether a tap, a QEMU stream socket or a vhost-user
 * ring is behind them. The kinds of ports are in vmm-glue/ports; the front is given a table of them (struct
 * sm_port_kind). A port is a vtable:
 *  - read() fills buffers that the caller owns (a port over shared guest memory copies here, once, so that the guest
 * cannot change a frame after it was judged);
 *  - write() takes frames as lists of parts, so that a header and a piece of a socket buffer need no copy in between;
 *  - each frame carries what virtio_net_hdr carries (virtio 1.1, 5.1.6): whether its checksum is to be trusted or
 * completed, and how it is to be segmented. A port says which of these it can do: rx_offloads what frames that are read
 * may carry, tx_offloads what frames that are written may ask for. Both may change between two calls: a guest that starts
 * again negotiates anew. write() never gets a frame that asks for more than tx_offloads at that moment: one that waited
 * while it changed is dropped and counted.
 *
 * A kind whose `connect` is not NULL may be without a guest: at first, and again when the VMM has gone. What is sent
 * meanwhile is dropped and counted, and the front goes on; sm_port_connect() brings the next VMM's descriptor.
 *
 * When the guest's side is full, frames wait in a bounded queue in front of write(); nothing is dropped until the queue
 * is full, and the front stops producing (reading upstream) once it is half full: sm_port_congested(). TCP repairs what
 * is dropped after that.
 *
 * One thread; nothing blocks. After start a port makes only read, readv, recvmsg, write and writev calls; one over guest
 * memory maps it besides.
 */
#ifndef SM_NAT_PORT_H
#define SM_NAT_PORT_H

#include <sys/uio.h>

#include <glib.h>

#include "base/defs.h"
#include "base/loop.h"

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
    SM_OFFLOAD_ECN = 1 << 2,        /* with SM_GSO_TCPV4: the header has CWR, which only the first segment gets */
    SM_OFFLOAD_BAD = 1 << 7,        /* something that has no name here; no port may carry it, so the guard refuses it */
};
/** A kind of segmentation in a port's rx_offloads and tx_offloads. */
#define SM_OFFLOAD_GSO(type) (1u << (16 + (type)))

enum sm_gso { SM_GSO_NONE, SM_GSO_TCPV4, SM_GSO_UDPV4, SM_GSO_COUNT };

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

/** What a port is ready for; also what is wanted of it. */
enum sm_port_ready { SM_PORT_READABLE = 1 << 0, SM_PORT_WRITABLE = 1 << 1 };

struct sm_port_ops {
    const char *name;
    /** read up to n frames. Returns how many came (0: none now), or -1 with errno when the port is dead (ENODATA: the
     * other side left). One that can be connected again says sm_port_leave() and returns 0 in place of that. */
    int (*read)(struct sm_port *port, struct sm_frame *frames, unsigned n);
    /** write frames in order. Returns how many were taken; fewer than n means that the guest's side is full (wait until
     * writable). -1: dead. Only called while connected. */
    int (*write)(struct sm_port *port, const struct sm_frame_out *frames, unsigned n);
    /** a new connection; takes fd, and drops what was before. 0, or -1 with errno when fd cannot serve. NULL: this kind
     * has one descriptor for life. */
    int (*connect)(struct sm_port *port, int fd);
    /** want (enum sm_port_ready) has changed: call sm_port_ready() when some of it is so. 0, or -1 with errno. NULL: port->fd is
     * all there is to watch. */
    int (*watch)(struct sm_port *port, unsigned want);
    /** forget what belongs to the connection (half a frame, a ring); port->fd is closed afterwards. May be NULL. */
    void (*left)(struct sm_port *port);
    void (*free)(struct sm_port *port);
};

struct sm_port_queued;

struct sm_port {
    const struct sm_port_ops *ops;
    int fd;           /* the connection, or -1; owned by the port */
    bool connected;   /* there is a guest's side */
    size_t max_frame; /* the largest frame that is read; a read buffer holds one byte more, to see what is too long */
    uint32_t rx_offloads; /* enum sm_offload_flag, and SM_OFFLOAD_GSO(): what frames that are read may carry */
    uint32_t tx_offloads; /* the same for frames that are written */

    /* Readiness; sm_port_start(). */
    struct sm_loop *loop;
    void (*ready)(void *data, unsigned ready);
    void *ready_data;
    unsigned want;
    struct sm_watch fd_watch; /* kinds without ops->watch */
    bool more; /* set by ops->read: it holds frames that no descriptor will announce, so it is to be called again */
    struct sm_timer more_timer;
    void (*on_leave)(void *data); /* sm_port_on_leave() */
    void *on_leave_data;

    /* The bounded queue in front of write(). */
    struct sm_port_queued *head, **tail;
    unsigned queued_frames;
    size_t queued_bytes;
    bool
        pending; /* the implementation holds the rest of a frame that it took: write() is to be called, be it with none */

    uint64_t rx_frames, tx_frames;
    uint64_t tx_dropped; /* the queue was full, the port refused this frame, or there was no guest */
    uint64_t connections;
    uint64_t
        epochs; /* counted up by a kind whose guest's driver can begin anew while the VMM stays: who keeps state forgets it */
    uint64_t
        faults; /* rings that broke, messages of the VMM that were refused, framing that was none; recorded by the front */
};

/** A kind of port: a row of the table that the program gives to sm_nat_main(). */
struct sm_port_kind {
    const char *name; /* in the front's configuration */
    /** fd is taken; -1 (only where `later`): it will be connected. NULL with error set, and fd closed. */
    struct sm_port *(*new)(int fd, unsigned mtu, GError **error);
    bool vsock;        /* its frames are vsock packets, and what new() takes for mtu is the guest's CID */
    bool later;        /* may be started without a descriptor: ops->connect is there */
    bool guest_memory; /* maps memory of the VMM's: the sandbox has to let it */
};

/** sm_port_init() - for implementations: the common part. fd may be -1. */
void sm_port_init(struct sm_port *port, const struct sm_port_ops *ops, int fd, size_t max_frame);
/** sm_port_free() - drops what waits and calls ops->free. NULL is fine. */
void sm_port_free(struct sm_port *port);

/** sm_port_start() - from now on ready() is called, from the loop, with what is ready of what is wanted; at first nothing is. */
void sm_port_start(struct sm_port *port, struct sm_loop *loop, void (*ready)(void *data, unsigned ready), void *data);
/** sm_port_on_leave() - fn is called when the guest's side has gone by itself (not when sm_port_connect() replaces it). */
void sm_port_on_leave(struct sm_port *port, void (*fn)(void *data), void *data);
/** sm_port_want() - what is to be told (enum sm_port_ready). Call it at the end of each turn; cheap when nothing changes. 0, or -1
 * with errno. */
int sm_port_want(struct sm_port *port, unsigned want);
/** sm_port_ready() - for implementations: say what is ready. */
void sm_port_ready(struct sm_port *port, unsigned ready);

/** sm_port_connect() - the next VMM's descriptor, which is taken. 0, or -1 with errno (ENOTSUP: this kind takes none). */
int sm_port_connect(struct sm_port *port, int fd);
/** sm_port_serve() - for implementations: an ops->connect that need do no more than go on with another socket. */
int sm_port_serve(struct sm_port *port, int fd);
/** sm_port_leave() - for implementations: the guest's side has gone. Drops what waits for it and closes port->fd. */
void sm_port_leave(struct sm_port *port);

/** sm_port_read() - up to n frames into frames[].data (each cap > max_frame). Returns as ops->read. */
int sm_port_read(struct sm_port *port, struct sm_frame *frames, unsigned n);
/**
 * sm_port_send() - write one frame now, or queue a copy behind those that wait. A full queue drops it and counts, as does
 * a port without a guest.
 * Returns 0, or -1 with errno when the port is dead.
 */
int sm_port_send(struct sm_port *port, const struct sm_frame_out *frame);
/** sm_port_flush() - write what waits; call when writable. Returns 0, or -1 with errno when the port is dead. */
int sm_port_flush(struct sm_port *port);
/** sm_port_waiting() - frames wait, so SM_PORT_WRITABLE is wanted. */
static inline bool sm_port_waiting(const struct sm_port *port)
{
    return port->head != NULL || port->pending;
}
/** sm_port_congested() - half of the queue is used: produce no more for this guest until it drains. */
static inline bool sm_port_congested(const struct sm_port *port)
{
    return port->queued_frames >= SM_PORT_QUEUE_FRAMES / 2 || port->queued_bytes >= SM_PORT_QUEUE_BYTES / 2;
}

#endif
