/* SPDX-License-Identifier: BSD-3-Clause */
/* The part that all ports share: the bounded queue between the front and a guest that does not read; see port.h. */
#include "nat/port.h"

#include <glib.h>
#include <string.h>

struct sm_port_queued {
    struct sm_port_queued *next;
    struct sm_offload offload;
    size_t len;
    uint8_t data[];
};

void sm_port_init(struct sm_port *port, const struct sm_port_ops *ops, int fd, size_t max_frame, uint32_t offloads)
{
    memset(port, 0, sizeof(*port));
    port->ops = ops;
    port->fd = fd;
    port->max_frame = max_frame;
    port->offloads = offloads;
    port->tail = &port->head;
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

void sm_port_free(struct sm_port *port)
{
    if (!port)
        return;
    while (port->head)
        queue_pop(port);
    port->ops->free(port);
}

int sm_port_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    int got = port->ops->read(port, frames, n);
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
    if (!port->head) {
        int n = port->ops->write(port, frame, 1);
        if (n < 0)
            return -1;
        if (n == 1) {
            port->tx_frames++;
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
        for (struct sm_port_queued *q = port->head; q && n < SM_ARRAY_LEN(out); q = q->next, n++) {
            iov[n] = (struct iovec){.iov_base = q->data, .iov_len = q->len};
            out[n] = (struct sm_frame_out){.iov = &iov[n], .n_iov = 1, .offload = q->offload};
        }
        int taken = port->ops->write(port, out, n);
        if (taken < 0)
            return -1;
        port->tx_frames += (uint64_t)taken;
        for (int i = 0; i < taken; i++)
            queue_pop(port);
        if ((unsigned)taken < n)
            break;
    }
    return 0;
}
