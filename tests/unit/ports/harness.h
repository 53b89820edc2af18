/* SPDX-License-Identifier: BSD-3-Clause */
/* A port without a front: the test is the VMM at the other end of its socket, and reads frames as the front would. */
#ifndef SM_TESTS_PORTS_HARNESS_H
#define SM_TESTS_PORTS_HARNESS_H

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "nat/wire.h"
#include "ports/ports.h"

#define MTU 1500
#define MAX_FRAME (SM_ETH_HLEN + MTU)
#define CAP (MAX_FRAME + 1)

struct pw {
    struct sm_loop *loop;
    struct sm_port *port;
    int vmm;
    unsigned leaves;
    struct sm_frame frames[SM_PORT_BATCH];
    uint8_t bytes[SM_PORT_BATCH][CAP];
    /* what the loop brought: lengths and first bytes */
    unsigned n_got;
    size_t got_len[8192];
    uint8_t got_first[8192];
    unsigned reads, biggest_read;
};

static inline int pw_read(struct pw *w)
{
    for (unsigned i = 0; i < SM_PORT_BATCH; i++)
        w->frames[i] = (struct sm_frame){.data = w->bytes[i], .cap = CAP};
    return sm_port_read(w->port, w->frames, SM_PORT_BATCH);
}

static inline void pw_on_ready(void *data, unsigned ready)
{
    struct pw *w = data;

    if ((ready & SM_PORT_WRITABLE) && sm_port_waiting(w->port))
        assert_int_equal(sm_port_flush(w->port), 0);
    if (!(ready & SM_PORT_READABLE))
        return;
    int n = pw_read(w);
    assert_true(n >= 0);
    w->reads++;
    w->biggest_read = SM_MAX(w->biggest_read, (unsigned)n);
    for (int i = 0; i < n; i++) {
        assert_true(w->n_got < SM_ARRAY_LEN(w->got_len));
        w->got_len[w->n_got] = w->frames[i].len;
        w->got_first[w->n_got++] = w->bytes[i][0];
    }
}

static inline void pw_on_leave(void *data)
{
    ((struct pw *)data)->leaves++;
}

/* As the front's end of turn. */
static inline bool pw_on_turn_end(void *data)
{
    struct pw *w = data;
    unsigned want = SM_PORT_READABLE | (sm_port_waiting(w->port) ? SM_PORT_WRITABLE : 0u);
    assert_int_equal(sm_port_want(w->port, want), 0);
    return false;
}

static inline void pw_turns(struct pw *w, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(sm_loop_turn(w->loop, 0), 0);
}

static inline struct pw *pw_new(struct sm_port *port, int vmm)
{
    struct pw *w = g_new0(struct pw, 1);

    (void)signal(SIGPIPE, SIG_IGN); /* as the sandbox does */
    w->loop = sm_loop_new(NULL);
    assert_non_null(w->loop);
    w->port = port;
    w->vmm = vmm;
    sm_port_start(port, w->loop, pw_on_ready, w);
    sm_port_on_leave(port, pw_on_leave, w);
    sm_loop_set_turn_end(w->loop, pw_on_turn_end, w);
    assert_int_equal(sm_port_want(port, SM_PORT_READABLE), 0);
    return w;
}

static inline void pw_free(struct pw *w)
{
    sm_port_free(w->port);
    sm_loop_free(w->loop);
    sm_fd_close(&w->vmm);
    g_free(w);
}

static inline int pw_send(struct pw *w, const void *data, size_t len)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)data, len / 3}, {(uint8_t *)(uintptr_t)data + len / 3, len - len / 3}};
    struct sm_frame_out out = {.iov = iov, .n_iov = 2};
    return sm_port_send(w->port, &out);
}

#endif
