/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port over a tap device: one readv(2) or writev(2) a frame, nothing else. With a virtio-net header in front of
 * each frame the guest's kernel leaves checksums and segmentation to us, and takes what we leave to it.
 */
#include "ports/ports.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "nat/wire.h"
#include "ports/tap.h"
#include "ports/vnet_hdr.h"

/* One read() ends behind so many bytes: what was read is written upstream from the processor's cache, and upstream is
 * served in between. */
#define READ_BYTES (64u << 10)

struct tap {
    struct sm_port port;
    size_t head; /* SM_VNET_HLEN, or 0 */
};

static struct tap *of(struct sm_port *port)
{
    return sm_container_of(port, struct tap, port);
}

static int tap_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    size_t head = of(port)->head, bytes = 0;
    unsigned got = 0;

    while (got < n && bytes < READ_BYTES) {
        struct sm_frame *f = &frames[got];
        uint8_t raw[SM_VNET_HLEN] = {0};
        struct iovec iov[2] = {{.iov_base = raw, .iov_len = head}, {.iov_base = f->data, .iov_len = f->cap}};
        ssize_t len = readv(port->fd, iov, 2);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && errno == EAGAIN)
            break;
        if (len <= 0) {
            if (len == 0)
                errno = ENODATA;
            /* Frames that came before the end are still the guest's; the next call meets the end again. */
            return got > 0 ? (int)got : -1;
        }
        /* No kernel gives less than the header; a frame of no bytes is refused as any other short one. */
        f->len = (size_t)len > head ? (size_t)len - head : 0;
        sm_vnet_hdr_get(raw, &f->offload);
        bytes += f->len;
        got++;
    }
    return (int)got;
}

static int tap_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    size_t head = of(port)->head;

    for (unsigned i = 0; i < n; i++) {
        uint8_t raw[SM_VNET_HLEN];
        struct iovec iov[1 + SM_PORT_IOV_MAX] = {{.iov_base = raw, .iov_len = head}};
        ssize_t len;
        sm_vnet_hdr_put(&frames[i].offload, raw);
        memcpy(iov + 1, frames[i].iov, frames[i].n_iov * sizeof(*iov));
        do {
            len = writev(port->fd, iov, (int)frames[i].n_iov + 1);
        } while (len < 0 && errno == EINTR);
        if (len >= 0)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS)
            return (int)i;
        if (errno == EBADFD || errno == EBADF || errno == EPIPE)
            return -1;
        /* EIO while the guest has its interface down, EINVAL for one frame: that frame is lost, the port is not. */
        port->tx_dropped++;
    }
    return (int)n;
}

static void tap_free(struct sm_port *port)
{
    sm_fd_close(&port->fd);
    g_free(of(port));
}

static const struct sm_port_ops tap_ops = {.name = "tap", .read = tap_read, .write = tap_write, .free = tap_free};

static struct sm_port *tap_new(int fd, size_t head, size_t max_frame)
{
    struct tap *t = g_new0(struct tap, 1);

    sm_port_init(&t->port, &tap_ops, fd, max_frame);
    t->head = head;
    return &t->port;
}

struct sm_port *sm_port_tap_new(int fd, unsigned mtu, GError **error)
{
    return tap_new(fd, 0, SM_ETH_HLEN + mtu);
}

struct sm_port *sm_port_tap_vnet_new(int fd, unsigned mtu, GError **error)
{
    struct sm_port *port = tap_new(fd, SM_VNET_HLEN, SM_ETH_HLEN + SM_IP_MAX);

    /* What sm_tap_open() has asked for; CSUM_OK is what a kernel says of packets that it forwards. */
    port->rx_offloads = SM_OFFLOAD_NEEDS_CSUM | SM_OFFLOAD_CSUM_OK | SM_OFFLOAD_ECN | SM_OFFLOAD_GSO(SM_GSO_TCPV4);
    port->tx_offloads = SM_OFFLOAD_NEEDS_CSUM | SM_OFFLOAD_GSO(SM_GSO_TCPV4);
    if (sm_tap_cuts_udp(fd))
        port->tx_offloads |= SM_OFFLOAD_GSO(SM_GSO_UDPV4);
    return port;
}
