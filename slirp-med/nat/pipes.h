/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A few pipes, through which sock.c moves a busy flow's bytes from one socket to the other by splice(2): the pages
 * go, and nobody copies them. A pipe is a direction's for as long as there are bytes in it, most often for a part of
 * one turn.
 *
 * They are made before the sandbox is on, since nothing can be made after it, and there may be none: then everything
 * is read and written. What is in a pipe is counted here, by what splice(2) says, and bounded by what it is asked
 * for, not by the kernel's idea of the pipe's size (one of its slots may hold more than a page).
 *
 * Ends and errors are not seen here: splice(2) answers 0 or EAGAIN at urgent data too, and at a pipe that is full.
 * Whoever gets nothing from sm_pipe_fill() asks read(2).
 *
 * Source: splice(2), pipe(7) ("Pipe capacity", /proc/sys/fs/pipe-user-pages-soft).
 */
#ifndef SM_NAT_PIPES_H
#define SM_NAT_PIPES_H

#include "base/defs.h"

/** Pipes of a front. One serves all flows whose sinks take what they are given; the others are for sinks that are
 * full, and the last one never stays with such a one (sock.c). More were no faster, and each counts against the
 * user's own limit (below). */
#define SM_PIPES_MAX 4
/**
 * What a pipe is filled with at most: a direction's turn, and what is kept of it when its sink is full. Also its size
 * in the kernel's terms. Measured (docs/PERFORMANCE.md). SM_PIPES_MAX times its 64 pages is a 64th part of what the
 * kernel lets a user's pipes have together (16384 pages) before new ones of the same user's are made small.
 */
#define SM_PIPES_BYTES (256u << 10)

struct sm_pipe {
    int in, out; /* the ends; -1: given up */
    size_t held; /* bytes in it */
    struct sm_pipe *next;
};

/** All zero: there are none, and sm_pipes_borrow() says so. */
struct sm_pipes {
    struct sm_pipe pipe[SM_PIPES_MAX];
    struct sm_pipe *idle;
};

/** sm_pipes_make() - before the sandbox. The kernel may refuse a pipe, or its size (the user's other pipes count): then
 * there are fewer, or none. Returns how many there are. */
unsigned sm_pipes_make(struct sm_pipes *pipes);
void sm_pipes_free(struct sm_pipes *pipes);

/** sm_pipes_borrow() - an empty pipe, or NULL. */
struct sm_pipe *sm_pipes_borrow(struct sm_pipes *pipes);
/** sm_pipes_spare() - is there one left? */
static inline bool sm_pipes_spare(const struct sm_pipes *pipes)
{
    return pipes->idle != NULL;
}
/** sm_pipes_give_back() - *pipe (NULL: nothing is done) is not the caller's any more, and set to NULL. What is still
 * in it is thrown away: no other flow gets it. A pipe that cannot be emptied is closed. */
void sm_pipes_give_back(struct sm_pipes *pipes, struct sm_pipe **pipe);

/** sm_pipe_fill() - an empty pipe takes what the socket has, at most SM_PIPES_BYTES. True: pipe->held says how much.
 * False: nothing came, errno says why not (0: perhaps the end), and read(2) is the one to ask. */
bool sm_pipe_fill(struct sm_pipe *pipe, int from_fd);
/** sm_pipe_pour() - what is in it goes to the socket. Returns as write(2) does, EINTR aside. */
ssize_t sm_pipe_pour(struct sm_pipe *pipe, int to_fd);
/** sm_pipe_read() - all that is in it is copied to p, which has room for pipe->held. False: the kernel has less; the
 * flow has lost bytes and has to end. */
bool sm_pipe_read(struct sm_pipe *pipe, uint8_t *p);

#endif
