/* SPDX-License-Identifier: BSD-3-Clause */
/* The part that all ports share: the bounded queue between the front and a guest that does not read; see port.h. */
#include "nat/port.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

struct sm_port_queued {
    struct sm_port_queued *next;
    struct sm_offload offload;
    size_t len;
    uint8_t data[];
};

static void on_more(struct sm_timer *timer, int64_t now_us)
{
    sm_port_ready(sm_container_of(timer, struct sm_port, more_timer), SM_PORT_READABLE);
}

void sm_port_init(struct sm_port *port, const struct sm_port_ops *ops, int fd, size_t max_frame)
{
    memset(port, 0, sizeof(*port));
    port->ops = ops;
    port->fd = fd;
    port->connected = fd >= 0;
    port->connections = fd >= 0;
    port->max_frame = max_frame;
    port->tail = &port->head;
    sm_watch_init(&port->fd_watch, -1, NULL);
    sm_timer_init(&port->more_timer, on_more);
}

static void queue_pop(struct sm_port *port)
{
    struct sm_port_queued *q = port->head;
    port->head = q->next;
    if (!port->head)
        port->tail = &port->head;
    port->queued_frames--;
    port->queued_bytes -= q->len;
    g_free(q);
}

static void drop_queue(struct sm_port *port)
{
    while (port->head)
        queue_pop(port);
}

static void unwatch(struct sm_port *port)
{
    port->more = false;
    if (!port->loop)
        return;
    sm_loop_unwatch(port->loop, &port->fd_watch);
    sm_loop_disarm(port->loop, &port->more_timer);
}

void sm_port_free(struct sm_port *port)
{
    if (!port)
        return;
    drop_queue(port);
    unwatch(port);
    port->ops->free(port);
}

/* ---- readiness ---- */

void sm_port_ready(struct sm_port *port, unsigned ready)
{
    port->ready(port->ready_data, ready & port->want);
}

static void on_fd(struct sm_watch *watch, uint32_t events)
{
    struct sm_port *port = sm_container_of(watch, struct sm_port, fd_watch);
    bool ended = events & (EPOLLERR | EPOLLHUP); /* reading or writing will say what it is */

    sm_port_ready(port, (events & EPOLLIN || ended ? SM_PORT_READABLE : 0u) |
                            (events & EPOLLOUT || ended ? SM_PORT_WRITABLE : 0u));
}

void sm_port_start(struct sm_port *port, struct sm_loop *loop, void (*ready)(void *data, unsigned ready), void *data)
{
    port->loop = loop;
    port->ready = ready;
    port->ready_data = data;
    sm_watch_init(&port->fd_watch, port->fd, on_fd);
}

void sm_port_on_leave(struct sm_port *port, void (*fn)(void *data), void *data)
{
    port->on_leave = fn;
    port->on_leave_data = data;
}

int sm_port_want(struct sm_port *port, unsigned want)
{
    bool changed = want != port->want;

    port->want = want;
    if (port->more && (want & SM_PORT_READABLE)) /* due in the next turn, which waits for nothing else */
        sm_loop_arm(port->loop, &port->more_timer, sm_loop_now(port->loop));
    else
        sm_loop_disarm(port->loop, &port->more_timer);
    if (port->ops->watch)
        return changed ? port->ops->watch(port, want) : 0;
    /* A device that is gone must not wake us for ever, so with nothing wanted it is not watched. */
    if (port->fd < 0 || want == 0) {
        sm_loop_unwatch(port->loop, &port->fd_watch);
        return 0;
    }
    return sm_loop_watch(port->loop, &port->fd_watch,
                         (want & SM_PORT_READABLE ? EPOLLIN : 0u) | (want & SM_PORT_WRITABLE ? EPOLLOUT : 0u));
}

/* ---- coming and going ---- */

static void forget(struct sm_port *port)
{
    drop_queue(port);
    unwatch(port);
    if (port->ops->left)
        port->ops->left(port);
    port->connected = false;
    sm_fd_close(&port->fd);
}

void sm_port_leave(struct sm_port *port)
{
    forget(port);
    if (port->on_leave)
        port->on_leave(port->on_leave_data);
}

int sm_port_serve(struct sm_port *port, int fd)
{
    if (sm_fd_set_nonblock(fd) < 0) {
        (void)close(fd);
        return -1;
    }
    port->fd = fd;
    port->connected = true;
    return 0;
}

int sm_port_connect(struct sm_port *port, int fd)
{
    if (!port->ops->connect) {
        (void)close(fd);
        errno = ENOTSUP;
        return -1;
    }
    if (port->fd >= 0)
        forget(port);
    if (port->ops->connect(port, fd) < 0)
        return -1;
    port->connections++;
    sm_watch_init(&port->fd_watch, port->fd, on_fd);
    return port->loop ? sm_port_want(port, port->want) : 0;
}

/* ---- frames ---- */

/* A guest that has started again may not do any more what its driver did before. */
static bool may_ask(const struct sm_port *port, const struct sm_offload *o)
{
    uint32_t asks = o->flags | (o->gso_type == SM_GSO_NONE ? 0u : SM_OFFLOAD_GSO(o->gso_type));

    return (asks & ~port->tx_offloads) == 0;
}

int sm_port_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    int got = 0;

    port->more = false;
    if (port->fd >= 0)
        got = port->ops->read(port, frames, n);
    if (got > 0)
        port->rx_frames += (uint64_t)got;
    return got;
}

static void queue_push(struct sm_port *port, const struct sm_frame_out *frame)
{
    size_t len = 0;
    for (unsigned i = 0; i < frame->n_iov; i++)
        len += frame->iov[i].iov_len;
    if (port->queued_frames >= SM_PORT_QUEUE_FRAMES || len > SM_PORT_QUEUE_BYTES - port->queued_bytes) {
        port->tx_dropped++;
        return;
    }
    struct sm_port_queued *q = g_malloc(sizeof(*q) + len);
    q->next = NULL;
    q->offload = frame->offload;
    q->len = 0;
    for (unsigned i = 0; i < frame->n_iov; i++) {
        if (frame->iov[i].iov_len == 0)
            continue;
        memcpy(q->data + q->len, frame->iov[i].iov_base, frame->iov[i].iov_len);
        q->len += frame->iov[i].iov_len;
    }
    *port->tail = q;
    port->tail = &q->next;
    port->queued_frames++;
    port->queued_bytes += len;
}

int sm_port_send(struct sm_port *port, const struct sm_frame_out *frame)
{
    if (!port->connected || !may_ask(port, &frame->offload)) {
        port->tx_dropped++;
        return 0;
    }
    if (!sm_port_waiting(port)) {
        int n = port->ops->write(port, frame, 1);
        if (n < 0)
            return -1;
        if (n == 1) {
            port->tx_frames++;
            return 0;
        }
        if (!port->connected) {
            port->tx_dropped++;
            return 0;
        }
    }
    queue_push(port, frame);
    return 0;
}

int sm_port_flush(struct sm_port *port)
{
    while (port->head) {
        struct sm_frame_out out[16];
        struct iovec iov[16];
        unsigned n = 0;
        if (!may_ask(port, &port->head->offload)) {
            port->tx_dropped++;
            queue_pop(port);
            continue;
        }
        for (struct sm_port_queued *q = port->head; q && n < SM_ARRAY_LEN(out) && may_ask(port, &q->offload);
             q = q->next, n++) {
            iov[n] = (struct iovec){.iov_base = q->data, .iov_len = q->len};
            out[n] = (struct sm_frame_out){.iov = &iov[n], .n_iov = 1, .offload = q->offload};
        }
        int taken = port->ops->write(port, out, n);
        if (taken < 0)
            return -1;
        if (!port->connected) /* it left meanwhile, and what waited with it */
            return 0;
        port->tx_frames += (uint64_t)taken;
        for (int i = 0; i < taken; i++)
            queue_pop(port);
        if ((unsigned)taken < n)
            return 0;
    }
    return port->pending && port->ops->write(port, NULL, 0) < 0 ? -1 : 0;
}
