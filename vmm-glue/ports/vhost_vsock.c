/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A port over vhost-user whose "frames" are virtio-vsock packets (virtio 1.1, 5.10): a header of 44 bytes and up to
 * 64 KiB. Rings: what the guest receives, what it transmits, and events, of which we have none to tell (a guest that is
 * moved to another host is a new guest here). The configuration space is the guest's CID.
 *
 * A guest's receive buffers are small (Linux posts 4 KiB each), so a packet with stream data that does not fit into one
 * goes as several, each with the header and its own length: to the guest's stream that is the same. When the guest has
 * posted too few, the packet stays with the caller, and `done` remembers what has gone; nat/port.h promises that the
 * same packet comes first again.
 */
#include "ports/ports.h"

#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_vsock.h>
#include <string.h>

#include "base/error.h"
#include "ports/vhost_port.h"

#define BIT(n) (UINT64_C(1) << (n))

#define HDR_LEN sizeof(struct virtio_vsock_hdr)
_Static_assert(HDR_LEN == 44, "virtio 1.1, 5.10.6");

struct vsock {
    struct sm_vhost_port p;
    struct virtio_vsock_config config;
    size_t done; /* payload of the next packet that the guest has already */
};

static struct vsock *of(struct sm_vhost_port *p)
{
    return sm_container_of(p, struct vsock, p);
}

static void changed(struct sm_vhost *v)
{
    struct sm_vhost_port *p = sm_vhost_port_around(v);

    if (!sm_vhost_port_running(p)) {
        of(p)->done = 0;
        p->port.epochs++; /* whoever drives it next knows of no stream */
    }
    sm_vhost_port_changed(v);
}

static const struct sm_vhost_device device = {
    .name = "vsock",
    .features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX),
    .protocol_features = BIT(SM_VHOST_PROTOCOL_MQ) | BIT(SM_VHOST_PROTOCOL_REPLY_ACK) | BIT(SM_VHOST_PROTOCOL_CONFIG) |
                         BIT(SM_VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS),
    .n_rings = 3,
    .queue_num = 3,
    .kick = sm_vhost_port_kick,
    .changed = changed,
};

static void take(struct sm_vhost_port *p, const struct sm_vhost_chain *c, struct sm_frame *f)
{
    f->len = sm_vhost_parts_read(c->parts, c->n_out, 0, f->data, f->cap);
    f->offload = (struct sm_offload){0};
}

static int vsock_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    return sm_vhost_port_read(sm_vhost_port_of(port), frames, n, take);
}

/* One buffer of the guest: the header, and as much of the packet as fits. */
static enum sm_vhost_put put_piece(struct vsock *s, const struct sm_frame_out *f, struct virtio_vsock_hdr *h,
                                   size_t payload)
{
    struct sm_vhost_ring *rx = &s->p.vhost.rings[SM_VHOST_RX];
    struct sm_vhost_chain c;

    switch (sm_vhost_ring_pop(rx, s->p.parts, SM_ARRAY_LEN(s->p.parts), &c)) {
    case SM_VHOST_POP_CHAIN:
        break;
    case SM_VHOST_POP_NONE:
        return SM_VHOST_PUT_FULL;
    case SM_VHOST_POP_NO_ROOM: /* not with so many parts */
        rx->fault = SM_VHOST_FAULT_PARTS;
        return SM_VHOST_PUT_BROKEN;
    case SM_VHOST_POP_BROKEN:
        return SM_VHOST_PUT_BROKEN;
    }
    if (c.n_out > 0) {
        rx->fault = SM_VHOST_FAULT_DIRECTION;
        return SM_VHOST_PUT_BROKEN;
    }
    size_t left = payload - s->done;
    if (c.in_len < HDR_LEN || (left > 0 && c.in_len == HDR_LEN)) {
        rx->fault = SM_VHOST_FAULT_BUFFER;
        return SM_VHOST_PUT_BROKEN;
    }
    size_t piece = SM_MIN(left, c.in_len - HDR_LEN);
    if (piece < left && le16toh(h->op) != VIRTIO_VSOCK_OP_RW) {
        sm_vhost_ring_unpop(rx, 1);
        return SM_VHOST_PUT_NEVER;
    }
    struct sm_vhost_fill fill = {.part = c.parts, .left = c.n_in};
    size_t skip = HDR_LEN + s->done, rest = piece;
    h->len = htole32((uint32_t)piece);
    (void)sm_vhost_fill(&fill, h, HDR_LEN);
    for (unsigned i = 0; i < f->n_iov && rest > 0; i++) {
        size_t len = f->iov[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        size_t n = SM_MIN(len - skip, rest);
        (void)sm_vhost_fill(&fill, (const uint8_t *)f->iov[i].iov_base + skip, n);
        skip = 0;
        rest -= n;
    }
    sm_vhost_ring_push(rx, c.head, (uint32_t)(HDR_LEN + piece));
    s->done += piece;
    return SM_VHOST_PUT_DONE;
}

static enum sm_vhost_put put(struct sm_vhost_port *p, const struct sm_frame_out *f)
{
    struct vsock *s = of(p);
    struct virtio_vsock_hdr h;
    size_t total = 0;

    for (unsigned i = 0; i < f->n_iov; i++)
        total += f->iov[i].iov_len;
    if (sm_vhost_parts_read(f->iov, f->n_iov, 0, &h, HDR_LEN) < HDR_LEN)
        return SM_VHOST_PUT_NEVER;
    do {
        enum sm_vhost_put rc = put_piece(s, f, &h, total - HDR_LEN);
        if (rc != SM_VHOST_PUT_DONE)
            return rc;
    } while (s->done < total - HDR_LEN);
    s->done = 0;
    return SM_VHOST_PUT_DONE;
}

static int vsock_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);
    int taken = sm_vhost_port_write(p, frames, n, put);

    if (!sm_vhost_port_running(p))
        of(p)->done = 0;
    return taken;
}

static void vsock_left(struct sm_port *port)
{
    of(sm_vhost_port_of(port))->done = 0;
    sm_vhost_port_left(port);
}

static void vsock_free(struct sm_port *port)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);

    sm_vhost_port_release(p);
    g_free(of(p));
}

static const struct sm_port_ops vsock_ops = {.name = "vhost-user-vsock",
                                             .read = vsock_read,
                                             .write = vsock_write,
                                             .connect = sm_vhost_port_connect,
                                             .watch = sm_vhost_port_watch,
                                             .left = vsock_left,
                                             .free = vsock_free};

struct sm_port *sm_port_vhost_vsock_new(int fd, uint64_t guest_cid, GError **error)
{
    struct vsock *s = g_new(struct vsock, 1);

    s->config.guest_cid = htole64(guest_cid);
    s->done = 0;
    sm_vhost_port_init(&s->p, &vsock_ops, &device, &s->config, sizeof(s->config), SM_PORT_VSOCK_FRAME_MAX);
    if (fd >= 0 && sm_port_connect(&s->p.port, fd) < 0) {
        sm_error_set_errno(error, errno, "port: the VMM's connection cannot be served");
        g_free(s);
        return NULL;
    }
    return &s->p.port;
}
