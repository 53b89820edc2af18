/* SPDX-License-Identifier: BSD-3-Clause */
/* A frame port over a tap device: one read(2) or writev(2) a frame, nothing else. */
#include "ports/ports.h"

#include <errno.h>
#include <glib.h>
#include <unistd.h>

#include "base/fd.h"
#include "nat/wire.h"

static int tap_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    unsigned got = 0;

    while (got < n) {
        struct sm_frame *f = &frames[got];
        ssize_t len = read(port->fd, f->data, f->cap);
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
        f->len = (size_t)len;
        f->offload = (struct sm_offload){0};
        got++;
    }
    return (int)got;
}

static int tap_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
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
    g_free(port);
}

static const struct sm_port_ops tap_ops = {.name = "tap", .read = tap_read, .write = tap_write, .free = tap_free};

struct sm_port *sm_port_tap_new(int fd, unsigned mtu, GError **error)
{
    struct sm_port *port = g_new0(struct sm_port, 1);
    sm_port_init(port, &tap_ops, fd, SM_ETH_HLEN + mtu);
    return port;
}
