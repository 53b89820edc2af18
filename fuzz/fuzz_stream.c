/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QEMU's stream protocol: hostile bytes in hostile pieces, against a model of a few lines.
 *
 * The first byte says how long the pieces are; the rest is the stream. The model takes the whole stream apart at once;
 * the port must find the same frames with the same lengths and bytes, and the same end.
 */
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nat/wire.h"
#include "ports/ports.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MTU 576
#define MAX_FRAME (SM_ETH_HLEN + MTU)
#define QEMU_MAX (4096u + 65536u)

struct model {
    const uint8_t *p;
    size_t left;
};

/** 1: a frame; 0: the stream ends here, in a frame or between two; -1: a length that nobody sends. */
static int model_next(struct model *m, const uint8_t **ret, size_t *ret_len)
{
    if (m->left < 4)
        return 0;
    size_t len = (size_t)m->p[0] << 24 | (size_t)m->p[1] << 16 | (size_t)m->p[2] << 8 | m->p[3];
    if (len == 0 || len > QEMU_MAX)
        return -1;
    /* One that is too long is told when its header has come; the others when they are whole. */
    size_t need = len > MAX_FRAME ? SM_ETH_HLEN : len;
    if (m->left - 4 < need)
        return 0;
    *ret = m->p + 4;
    *ret_len = len;
    size_t taken = 4 + len > m->left ? m->left : 4 + len;
    m->p += taken;
    m->left -= taken;
    return 1;
}

/** Read what is there and hold it against the model. */
static void compare(struct sm_port *port, struct model *m)
{
    static uint8_t bytes[SM_PORT_BATCH][MAX_FRAME + 1];
    struct sm_frame frames[SM_PORT_BATCH];
    int n, idle = 0;

    while (port->connected && idle < 2) { /* one call is one read(2): the second says that there is no more */
        for (unsigned i = 0; i < SM_PORT_BATCH; i++)
            frames[i] = (struct sm_frame){.data = bytes[i], .cap = sizeof(bytes[i])};
        n = sm_port_read(port, frames, SM_PORT_BATCH);
        if (n < 0)
            abort();
        idle = n == 0 ? idle + 1 : 0;
        for (int i = 0; i < n; i++) {
            const uint8_t *expected;
            size_t len;
            if (model_next(m, &expected, &len) != 1 || frames[i].len != len)
                abort();
            if (memcmp(frames[i].data, expected, len > MAX_FRAME ? SM_ETH_HLEN : len) != 0)
                abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];

    if (size < 1)
        return 0;
    (void)signal(SIGPIPE, SIG_IGN);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    struct sm_port *port = sm_port_stream_new(pair[0], MTU, NULL);
    size_t piece = data[0] ? (size_t)data[0] * data[0] : 1, at = 1;
    struct model m = {data + 1, size - 1};

    while (at < size && port->connected) {
        ssize_t sent = send(pair[1], data + at, SM_MIN(piece, size - at), MSG_NOSIGNAL);
        if (sent > 0)
            at += (size_t)sent;
        compare(port, &m);
    }
    const uint8_t *rest;
    size_t len;
    int end = model_next(&m, &rest, &len);
    if (end == 1 || port->connected != (end == 0))
        abort();
    (void)close(pair[1]);
    compare(port, &m); /* the end is met: nothing more comes, and the port is without a guest */
    if (port->connected || port->fd >= 0)
        abort();
    sm_port_free(port);
    return 0;
}
