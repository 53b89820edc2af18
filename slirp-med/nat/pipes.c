/* SPDX-License-Identifier: BSD-3-Clause */
/* Pipes between two sockets; see pipes.h. The flags and the missing offsets of splice(2) are those that the sandbox
 * lets through (sandbox/rules.c). */
#include "nat/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"

#define SPLICE_FLAGS (SPLICE_F_NONBLOCK | SPLICE_F_MOVE)

unsigned sm_pipes_make(struct sm_pipes *pipes)
{
    unsigned made = 0;

    *pipes = (struct sm_pipes){0};
    for (size_t i = 0; i < SM_PIPES_MAX; i++)
        pipes->pipe[i].in = pipes->pipe[i].out = -1;
    for (; made < SM_PIPES_MAX; made++) {
        struct sm_pipe *p = &pipes->pipe[made];
        int ends[2];
        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
            break;
        p->out = ends[0];
        p->in = ends[1];
        if (fcntl(p->in, F_SETPIPE_SZ, (int)SM_PIPES_BYTES) < (int)SM_PIPES_BYTES) {
            sm_fd_close(&p->in);
            sm_fd_close(&p->out);
            break;
        }
        p->next = pipes->idle;
        pipes->idle = p;
    }
    return made;
}

void sm_pipes_free(struct sm_pipes *pipes)
{
    for (size_t i = 0; i < SM_PIPES_MAX && pipes->idle; i++) {
        struct sm_pipe *p = pipes->idle;
        pipes->idle = p->next;
        sm_fd_close(&p->in);
        sm_fd_close(&p->out);
    }
}

struct sm_pipe *sm_pipes_borrow(struct sm_pipes *pipes)
{
    struct sm_pipe *p = pipes->idle;

    if (p) {
        pipes->idle = p->next;
        p->next = NULL;
    }
    return p;
}

/* Until the kernel says that it is empty, whatever our count says. */
static bool empty(struct sm_pipe *pipe)
{
    uint8_t waste[4096];
    ssize_t n;

    do {
        n = read(pipe->out, waste, sizeof(waste));
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 && errno == EAGAIN;
}

void sm_pipes_give_back(struct sm_pipes *pipes, struct sm_pipe **pipe)
{
    struct sm_pipe *p = *pipe;

    *pipe = NULL;
    if (!p)
        return;
    if (p->held > 0 && !empty(p)) {
        sm_fd_close(&p->in);
        sm_fd_close(&p->out);
        return;
    }
    p->held = 0;
    p->next = pipes->idle;
    pipes->idle = p;
}

bool sm_pipe_fill(struct sm_pipe *pipe, int from_fd)
{
    ssize_t n;

    g_assert(pipe->held == 0);
    do {
        n = splice(from_fd, NULL, pipe->in, NULL, SM_PIPES_BYTES, SPLICE_FLAGS);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        errno = 0;
    if (n > 0)
        pipe->held = (size_t)n;
    return n > 0;
}

ssize_t sm_pipe_pour(struct sm_pipe *pipe, int to_fd)
{
    ssize_t n;

    do {
        n = splice(pipe->out, NULL, to_fd, NULL, pipe->held, SPLICE_FLAGS);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        pipe->held -= (size_t)n;
    return n;
}

bool sm_pipe_read(struct sm_pipe *pipe, uint8_t *p)
{
    while (pipe->held > 0) {
        ssize_t n = read(pipe->out, p, pipe->held);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        pipe->held -= (size_t)n;
        p += n;
    }
    return true;
}
