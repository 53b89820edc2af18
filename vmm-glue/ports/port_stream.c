/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame port over a stream socket, as QEMU's `-netdev stream` and `-netdev socket` speak it: each frame behind its
 * length, four bytes, big-endian.
 *
 * The peer is the VMM, which a guest may have taken over: a length is believed only so far. Up to what QEMU itself would
 * ever send, a frame that is longer than the link allows is read past and reported as too long; beyond that, or with the
 * length 0, nothing after it can be trusted, and the connection ends. The next one begins afresh.
 *
 * Reading goes through one buffer, since one read(2) brings many small frames; each is then copied to the caller. Of a
 * frame that writev(2) took in part, the rest is kept and goes first.
 */
#include "ports/ports.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/rw.h"
#include "nat/wire.h"

#define HEAD 4
/** QEMU's NET_BUFSIZE: no frame of its is longer. */
#define FRAME_MAX (4096u + 65536u)
/** A few dozen frames of 1500 bytes, and always a whole one of any size. */
#define IN_SIZE (128u << 10)
_Static_assert(IN_SIZE > HEAD + FRAME_MAX, "a whole frame of any size");

struct stream {
    struct sm_port port;
    size_t in_at, in_len; /* what is in the buffer and not consumed */
    size_t skip;          /* bytes of a frame that was too long, to be read past */
    uint8_t *rest;        /* of the frame that went out in part */
    size_t rest_at, rest_len;
    uint8_t in[IN_SIZE];
};

static struct stream *of(struct sm_port *port)
{
    return sm_container_of(port, struct stream, port);
}

/** More bytes into the buffer. 1: some came; 0: none now; -1 with errno: the connection is over. */
static int fill(struct stream *s)
{
    memmove(s->in, s->in + s->in_at, s->in_len);
    s->in_at = 0;
    for (;;) {
        ssize_t n = read(s->port.fd, s->in + s->in_len, sizeof(s->in) - s->in_len);
        if (n > 0) {
            s->in_len += (size_t)n;
            return 1;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n == 0)
            errno = ENODATA;
        return -1;
    }
}

static void consume(struct stream *s, size_t n)
{
    s->in_at += n;
    s->in_len -= n;
}

/** The next frame of the buffer. 1: *frame is filled; 0: more bytes are needed; -1: the peer's framing is broken. */
static int next_frame(struct stream *s, struct sm_frame *frame)
{
    size_t gone = SM_MIN(s->skip, s->in_len);
    consume(s, gone);
    s->skip -= gone;
    if (s->skip > 0 || s->in_len < HEAD)
        return 0;
    struct sm_rd r = sm_rd_init(s->in + s->in_at, s->in_len);
    size_t len = sm_rd_u32(&r);
    if (len == 0 || len > FRAME_MAX)
        return -1;
    bool whole = s->in_len >= HEAD + len;
    if (!whole && len <= s->port.max_frame)
        return 0;
    frame->len = len;
    frame->offload = (struct sm_offload){0};
    if (len <= s->port.max_frame) {
        memcpy(frame->data, s->in + s->in_at + HEAD, len);
        consume(s, HEAD + len);
        return 1;
    }
    /* Too long: its beginning is enough to say whose it was, and the rest goes by. */
    if (s->in_len < HEAD + SM_ETH_HLEN)
        return 0;
    memcpy(frame->data, s->in + s->in_at + HEAD, SM_MIN(SM_MIN(len, s->in_len - HEAD), frame->cap));
    consume(s, HEAD);
    s->skip = len;
    return 1;
}

static int stream_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    struct stream *s = of(port);
    unsigned got = 0;
    bool filled = false;

    while (got < n) {
        int r = next_frame(s, &frames[got]);
        if (r > 0) {
            got++;
            continue;
        }
        /* One read(2) a call: what is behind it is met at the next wake-up, when others have had their turn. */
        if (r == 0 && filled)
            return (int)got;
        bool lied = r < 0;
        if (r == 0 && (r = fill(s)) == 0)
            return (int)got;
        if (r < 0) {
            if (got == 0) {
                port->faults += lied;
                sm_port_leave(port);
            } else /* what came before the end is still the guest's; the next call meets the end again */
                port->more = true;
            return (int)got;
        }
        filled = true;
    }
    port->more = s->in_len > 0; /* the socket may be empty by now */
    return (int)got;
}

/** What is left of a frame. 1: nothing; 0: the socket is full; -1: the connection is over. */
static int write_rest(struct stream *s)
{
    while (s->rest_at < s->rest_len) {
        ssize_t n = write(s->port.fd, s->rest + s->rest_at, s->rest_len - s->rest_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == ENOBUFS ? 0 : -1;
        s->rest_at += (size_t)n;
    }
    g_clear_pointer(&s->rest, g_free);
    s->rest_at = s->rest_len = 0;
    s->port.pending = false;
    return 1;
}

static void keep_rest(struct stream *s, const struct iovec *iov, unsigned n_iov, size_t done, size_t total)
{
    s->rest = g_malloc(total - done);
    s->rest_at = s->rest_len = 0;
    s->port.pending = true;
    for (unsigned i = 0; i < n_iov; i++) {
        size_t skip = SM_MIN(done, iov[i].iov_len);
        done -= skip;
        if (iov[i].iov_len > skip)
            memcpy(s->rest + s->rest_len, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        s->rest_len += iov[i].iov_len - skip;
    }
}

static int stream_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    struct stream *s = of(port);

    for (unsigned i = 0; i <= n; i++) {
        int r = s->rest ? write_rest(s) : 1;
        if (r < 0)
            sm_port_leave(port);
        if (r <= 0 || i == n)
            return (int)i;
        struct iovec iov[SM_PORT_IOV_MAX + 1];
        uint8_t head[HEAD];
        size_t len = 0;
        for (unsigned k = 0; k < frames[i].n_iov; k++)
            len += (iov[k + 1] = frames[i].iov[k]).iov_len;
        struct sm_wr w = sm_wr_init(head, sizeof(head));
        sm_wr_u32(&w, (uint32_t)len);
        iov[0] = (struct iovec){.iov_base = head, .iov_len = HEAD};
        ssize_t done;
        do {
            done = writev(port->fd, iov, (int)frames[i].n_iov + 1);
        } while (done < 0 && errno == EINTR);
        if (done < 0 && (errno == EAGAIN || errno == ENOBUFS))
            return (int)i;
        if (done < 0) {
            sm_port_leave(port);
            return (int)i;
        }
        if ((size_t)done < HEAD + len)
            keep_rest(s, iov, frames[i].n_iov + 1, (size_t)done, HEAD + len);
    }
    return (int)n;
}

static void stream_left(struct sm_port *port)
{
    struct stream *s = of(port);

    g_clear_pointer(&s->rest, g_free);
    s->rest_at = s->rest_len = s->skip = s->in_at = s->in_len = 0;
    port->pending = false;
}

static void stream_free(struct sm_port *port)
{
    struct stream *s = of(port);

    sm_fd_close(&port->fd);
    g_free(s->rest);
    g_free(s);
}

static const struct sm_port_ops stream_ops = {.name = "stream",
                                              .read = stream_read,
                                              .write = stream_write,
                                              .connect = sm_port_serve,
                                              .left = stream_left,
                                              .free = stream_free};

struct sm_port *sm_port_stream_new(int fd, unsigned mtu, GError **error)
{
    struct stream *s = g_malloc(sizeof(*s)); /* its buffer is only touched as far as it is used */

    memset(s, 0, offsetof(struct stream, in));
    sm_port_init(&s->port, &stream_ops, fd, SM_ETH_HLEN + mtu);
    return &s->port;
}
