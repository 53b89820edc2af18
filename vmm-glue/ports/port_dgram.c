/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port over a datagram socket, as QEMU's `-netdev dgram` speaks it: one frame a datagram.
 *
 * The socket is bound and connected by whoever made it (supervisor/listens.h), and may be connected anew behind our back
 * when a VMM comes again, since write(2) is all that is allowed here. A datagram socket has no end that could be seen:
 * what nobody takes is lost and counted, as on a wire without a plug.
 */
#include "ports/ports.h"

#include <errno.h>
#include <glib.h>
#include <unistd.h>

#include "base/fd.h"
#include "nat/wire.h"

/** The peer is away: a frame is lost, the port is not. EPERM: it is connected to somebody else by now. */
static bool peer_away(int err)
{
    return err == ECONNREFUSED || err == ECONNRESET || err == ENOTCONN || err == EDESTADDRREQ || err == EPERM ||
           err == EPIPE;
}

static int dgram_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    unsigned got = 0;

    while (got < n) {
        struct sm_frame *f = &frames[got];
        ssize_t len = read(port->fd, f->data, f->cap); /* 0 is an empty datagram: the guard's to refuse */
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && (errno == EAGAIN || peer_away(errno))) /* an error that waited on the socket is said once */
            break;
        if (len < 0)
            return got > 0 ? (int)got : -1;
        f->len = (size_t)len;
        f->offload = (struct sm_offload){0};
        got++;
    }
    return (int)got;
}

static int dgram_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ssize_t len;
        do {
            len = writev(port->fd, frames[i].iov, (int)frames[i].n_iov);
        } while (len < 0 && errno == EINTR);
        if (len >= 0)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS)
            return (int)i;
        if (!peer_away(errno) && errno != EMSGSIZE)
            return -1;
        port->tx_dropped++;
    }
    return (int)n;
}

static void dgram_free(struct sm_port *port)
{
    sm_fd_close(&port->fd);
    g_free(port);
}

static const struct sm_port_ops dgram_ops = {
    .name = "dgram", .read = dgram_read, .write = dgram_write, .connect = sm_port_serve, .free = dgram_free};

struct sm_port *sm_port_dgram_new(int fd, unsigned mtu, GError **error)
{
    struct sm_port *port = g_new0(struct sm_port, 1);
    sm_port_init(port, &dgram_ops, fd, SM_ETH_HLEN + mtu);
    return port;
}
