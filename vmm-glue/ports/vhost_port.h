/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the ports over vhost-user share (vhost_net.c, vhost_vsock.c): the connection and the kicks on the loop, who waits
 * for what, reading, and telling the guest.
 *
 * Ring 0 is what the guest receives, ring 1 what it transmits, in virtio-net and virtio-vsock alike. A kick of ring 1
 * matters while frames are wanted, one of ring 0 while frames wait for the guest; otherwise kicks are off and their
 * descriptors are not watched.
 *
 * States: no VMM (port.fd -1) - a VMM, rings not running yet or not any more (port.connected; frames are dropped and
 * counted, as by a cable without a card) - running. A lie of the VMM's ends its connection (backend.h), one of the
 * guest's stops the ring (ring.h) until the driver starts anew. The front lives in every case.
 */
#ifndef SM_PORTS_VHOST_PORT_H
#define SM_PORTS_VHOST_PORT_H

#include "nat/port.h"
#include "vhost/backend.h"

enum { SM_VHOST_RX, SM_VHOST_TX, SM_VHOST_WATCHED };

struct sm_vhost_port {
    struct sm_port port;
    struct sm_vhost vhost;
    struct sm_watch sock;
    struct sm_watch kicks[SM_VHOST_WATCHED];
    struct sm_timer again;                      /* of the next turn: */
    unsigned again_ready;                       /* something is ready and no kick will say so (enum sm_port_ready) */
    bool call_due;                              /* ring 0: the guest wants to be told of what this turn has put there */
    uint64_t discarded;                         /* chains of a ring that runs but is not enabled */
    struct iovec parts[2 * SM_VHOST_PARTS_MAX]; /* a chain, or those that one frame is merged from */
};

/** sm_vhost_port_init() - without a connection. config: as sm_vhost_init(). */
void sm_vhost_port_init(struct sm_vhost_port *p, const struct sm_port_ops *ops, const struct sm_vhost_device *device,
                        const void *config, size_t config_len, size_t max_frame);
/** sm_vhost_port_of() - the object around a port; around a back-end. */
struct sm_vhost_port *sm_vhost_port_of(struct sm_port *port);
struct sm_vhost_port *sm_vhost_port_around(struct sm_vhost *vhost);

/* For struct sm_port_ops and struct sm_vhost_device, as they are. sm_vhost_port_release() is ops->free but for g_free(). */
int sm_vhost_port_connect(struct sm_port *port, int fd);
int sm_vhost_port_watch(struct sm_port *port, unsigned want);
void sm_vhost_port_left(struct sm_port *port);
void sm_vhost_port_release(struct sm_vhost_port *p);
void sm_vhost_port_kick(struct sm_vhost *vhost, unsigned index, int fd);
void sm_vhost_port_changed(struct sm_vhost *vhost);

/** sm_vhost_port_read() - ops->read: take() fills a frame from each chain of ring 1, which is then used. */
int sm_vhost_port_read(struct sm_vhost_port *p, struct sm_frame *frames, unsigned n,
                       void (*take)(struct sm_vhost_port *p, const struct sm_vhost_chain *chain,
                                    struct sm_frame *frame));
/** sm_vhost_port_running() - the guest receives. */
static inline bool sm_vhost_port_running(const struct sm_vhost_port *p)
{
    return sm_vhost_ring_live(&p->vhost.rings[SM_VHOST_RX]);
}
/** What became of a frame for the guest. */
enum sm_vhost_put {
    SM_VHOST_PUT_DONE,
    SM_VHOST_PUT_FULL,   /* ring 0 has no room now */
    SM_VHOST_PUT_NEVER,  /* it fits in nothing that the guest will post: dropped */
    SM_VHOST_PUT_BROKEN, /* the ring has a fault */
};
/**
 * sm_vhost_port_write() - ops->write: put() lays a frame into ring 0. Returns as ops->write: what is not taken is put again, from its
 * beginning or from where put() left it. Frames for a ring that does not run are dropped and counted.
 */
int sm_vhost_port_write(struct sm_vhost_port *p, const struct sm_frame_out *frames, unsigned n,
                        enum sm_vhost_put (*put)(struct sm_vhost_port *p, const struct sm_frame_out *frame));

#endif
