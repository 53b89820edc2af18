/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port over vhost-user: virtio-net, one pair of rings (virtio 1.1, 5.1).
 *
 * In front of each frame stands a virtio_net_hdr. Of a frame that is read it becomes struct sm_offload as it is; nothing
 * in it is believed here: the guard judges it against what was agreed on (rx_offloads) and against the frame's own
 * headers. Frames that are written ask for no more than the guest agreed to (tx_offloads; nat/port.c sees to it).
 *
 * A frame is copied once each way: out of the guest's buffers before anybody looks at it, or into them. With MRG_RXBUF
 * it may take up to MERGE_MAX buffers, without it has to fit into one. When the guest has posted too few, the frame
 * stays with the caller (the bounded queue of nat/port.c) until the guest posts more; when no number of its buffers
 * could ever hold it, it is dropped and counted.
 */
#include "ports/ports.h"

#include <errno.h>
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "base/error.h"
#include "nat/wire.h"
#include "ports/vhost_port.h"
#include "ports/vnet_hdr.h"

/** Buffers of one frame: 64 KiB in buffers for 1500 bytes, which no driver goes below, are 44. */
#define MERGE_MAX 64
_Static_assert(MERGE_MAX <= UINT8_MAX, "the number of buffers is one byte of two");
/** The header with its last field; an old driver (no VERSION_1, no MRG_RXBUF) leaves that out. */
#define HDR_LEN SM_VNET_HLEN
#define HDR_LEN_OLD SM_VNET_NUM_BUFFERS

#define BIT(n) (UINT64_C(1) << (n))

static size_t hdr_len(const struct sm_vhost *v)
{
    return sm_vhost_has(v, VIRTIO_F_VERSION_1) || sm_vhost_has(v, VIRTIO_NET_F_MRG_RXBUF) ? HDR_LEN : HDR_LEN_OLD;
}

static void take_features(struct sm_vhost *v)
{
    struct sm_port *port = &sm_vhost_port_around(v)->port;

    port->rx_offloads = 0;
    port->tx_offloads = 0;
    if (sm_vhost_has(v, VIRTIO_NET_F_CSUM))
        port->rx_offloads = SM_OFFLOAD_NEEDS_CSUM |
                            (sm_vhost_has(v, VIRTIO_NET_F_HOST_TSO4) ? SM_OFFLOAD_GSO(SM_GSO_TCPV4) : 0) |
                            (sm_vhost_has(v, VIRTIO_NET_F_HOST_ECN) ? SM_OFFLOAD_ECN : 0);
    if (sm_vhost_has(v, VIRTIO_NET_F_GUEST_CSUM))
        port->tx_offloads = SM_OFFLOAD_NEEDS_CSUM | SM_OFFLOAD_CSUM_OK |
                            (sm_vhost_has(v, VIRTIO_NET_F_GUEST_TSO4) ? SM_OFFLOAD_GSO(SM_GSO_TCPV4) : 0) |
                            (sm_vhost_has(v, VIRTIO_NET_F_GUEST_ECN) ? SM_OFFLOAD_ECN : 0);
}

static void changed(struct sm_vhost *v)
{
    take_features(v);
    sm_vhost_port_changed(v);
}

static const struct sm_vhost_device device = {
    .name = "net",
    .features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM) |
                BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
                BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                BIT(VIRTIO_RING_F_EVENT_IDX),
    .protocol_features =
        BIT(SM_VHOST_PROTOCOL_MQ) | BIT(SM_VHOST_PROTOCOL_REPLY_ACK) | BIT(SM_VHOST_PROTOCOL_CONFIGURE_MEM_SLOTS),
    .n_rings = 2,
    .queue_num = 2, /* QEMU counts pairs and asks for one at least, cloud-hypervisor counts rings and asks for two */
    .kick = sm_vhost_port_kick,
    .changed = changed,
};

/* ---- from the guest ---- */

static void take(struct sm_vhost_port *p, const struct sm_vhost_chain *c, struct sm_frame *f)
{
    uint8_t h[SM_VNET_HLEN] = {0};
    size_t skip = hdr_len(&p->vhost);

    f->len = 0; /* a frame shorter than its header: the guard refuses a runt */
    f->offload = (struct sm_offload){0};
    if (c->out_len < skip)
        return;
    (void)sm_vhost_parts_read(c->parts, c->n_out, 0, h, skip);
    f->len = sm_vhost_parts_read(c->parts, c->n_out, skip, f->data, f->cap);
    sm_vnet_hdr_get(h, &f->offload);
    f->offload.flags &= (uint8_t)~SM_OFFLOAD_CSUM_OK; /* not a driver's to say, and to be ignored (5.1.6.2.2) */
}

static int net_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    return sm_vhost_port_read(sm_vhost_port_of(port), frames, n, take);
}

/* ---- to the guest ---- */

/* Take as many buffers as `need` bytes want. */
static enum sm_vhost_put gather(struct sm_vhost_port *p, size_t need, struct sm_vhost_chain *chains, unsigned *ret_n)
{
    struct sm_vhost_ring *rx = &p->vhost.rings[SM_VHOST_RX];
    unsigned max = sm_vhost_has(&p->vhost, VIRTIO_NET_F_MRG_RXBUF) ? MERGE_MAX : 1;
    unsigned n = 0, parts = 0, desc = 0;
    size_t room = 0;
    enum sm_vhost_put why = SM_VHOST_PUT_DONE;

    while (room < need && why == SM_VHOST_PUT_DONE) {
        enum sm_vhost_pop rc = n < max
                                   ? sm_vhost_ring_pop(rx, p->parts + parts, SM_ARRAY_LEN(p->parts) - parts, &chains[n])
                                   : SM_VHOST_POP_NO_ROOM;
        switch (rc) {
        case SM_VHOST_POP_CHAIN:
            parts += chains[n].n_out + chains[n].n_in;
            desc += chains[n].n_desc;
            room += chains[n].in_len;
            if (chains[n].n_out > 0) {
                rx->fault = SM_VHOST_FAULT_DIRECTION;
                why = SM_VHOST_PUT_BROKEN;
            }
            n++;
            break;
        case SM_VHOST_POP_NONE:
            why = desc >= rx->num ? SM_VHOST_PUT_NEVER
                                  : SM_VHOST_PUT_FULL; /* the guest has posted all that the ring holds */
            break;
        case SM_VHOST_POP_NO_ROOM:
            why = SM_VHOST_PUT_NEVER;
            break;
        case SM_VHOST_POP_BROKEN:
            why = SM_VHOST_PUT_BROKEN;
            break;
        }
    }
    if (why != SM_VHOST_PUT_DONE)
        sm_vhost_ring_unpop(rx, n);
    *ret_n = n;
    return why;
}

static enum sm_vhost_put put(struct sm_vhost_port *p, const struct sm_frame_out *f)
{
    struct sm_vhost_ring *rx = &p->vhost.rings[SM_VHOST_RX];
    struct sm_vhost_chain chains[MERGE_MAX];
    uint8_t h[SM_VNET_HLEN];
    size_t head = hdr_len(&p->vhost), left = head;
    unsigned n;

    for (unsigned i = 0; i < f->n_iov; i++)
        left += f->iov[i].iov_len;
    enum sm_vhost_put rc = gather(p, left, chains, &n);
    if (rc != SM_VHOST_PUT_DONE)
        return rc;

    sm_vnet_hdr_put(&f->offload, h);
    h[SM_VNET_NUM_BUFFERS] = (uint8_t)n;
    unsigned piece = 0; /* of the source: 0 is the header, i + 1 is iov[i] */
    size_t at = 0;
    for (unsigned c = 0; c < n; c++) {
        struct sm_vhost_fill fill = {.part = chains[c].parts + chains[c].n_out, .left = chains[c].n_in};
        size_t want = SM_MIN(left, chains[c].in_len), done = 0;
        while (done < want) {
            const uint8_t *from = piece == 0 ? h : f->iov[piece - 1].iov_base;
            size_t len = piece == 0 ? head : f->iov[piece - 1].iov_len;
            size_t took = sm_vhost_fill(&fill, from + at, len - at);
            done += took;
            at += took;
            if (at == len) {
                piece++;
                at = 0;
            }
        }
        left -= want;
        sm_vhost_ring_push(rx, chains[c].head, (uint32_t)want);
    }
    return SM_VHOST_PUT_DONE;
}

static int net_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    return sm_vhost_port_write(sm_vhost_port_of(port), frames, n, put);
}

static void net_free(struct sm_port *port)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);

    sm_vhost_port_release(p);
    g_free(p);
}

static const struct sm_port_ops net_ops = {.name = "vhost-user",
                                           .read = net_read,
                                           .write = net_write,
                                           .connect = sm_vhost_port_connect,
                                           .watch = sm_vhost_port_watch,
                                           .left = sm_vhost_port_left,
                                           .free = net_free};

struct sm_port *sm_port_vhost_net_new(int fd, unsigned mtu, GError **error)
{
    struct sm_vhost_port *p = g_new(struct sm_vhost_port, 1);

    /* Frames that are to be segmented are as long as an IPv4 packet can be. */
    sm_vhost_port_init(p, &net_ops, &device, NULL, 0, SM_ETH_HLEN + SM_MAX((size_t)mtu, (size_t)SM_IP_MAX));
    if (fd >= 0 && sm_port_connect(&p->port, fd) < 0) {
        sm_error_set_errno(error, errno, "port: the VMM's connection cannot be served");
        g_free(p);
        return NULL;
    }
    return &p->port;
}
