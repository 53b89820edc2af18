/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: one epoll instance, timers on CLOCK_MONOTONIC, and an end-of-turn hook.
 *
 * One loop a process, one thread. A turn is: wait, run the ready watches, run the due timers, run the end-of-turn hook. The hook is where
 * the core writes the turn's audit lines in one write(2) and only then releases the turn's effects (spec section 8).
 *
 * Watches and timers are caller-owned structs that are embedded in the caller's object (no allocation here); a watch may be removed and its
 * object freed from inside any callback, its own included: events already fetched for it are skipped.
 */
#ifndef SM_BASE_LOOP_H
#define SM_BASE_LOOP_H

#include <glib.h>
#include <sys/epoll.h>

#include "base/defs.h"

/** Events fetched by one epoll_wait: bounds how long a turn can be (and how many audit lines one write carries). */
#define SM_LOOP_BATCH 256

struct sm_loop;

struct sm_watch {
    int fd;
    uint32_t events; /* what is registered now */
    void (*fn)(struct sm_watch *watch, uint32_t events);
    int slot; /* the loop's: index of a fetched event, -1 when none is waiting */
    bool added;
};

struct sm_timer {
    int64_t due_us; /* CLOCK_MONOTONIC, microseconds */
    void (*fn)(struct sm_timer *timer, int64_t now_us);
    size_t heap_index; /* the loop's: place in the heap, SIZE_MAX when not armed */
};

/** sm_container_of() - the object that a watch or timer is embedded in. */
#define sm_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct sm_loop *sm_loop_new(GError **error);
void sm_loop_free(struct sm_loop *loop);

/** sm_loop_now() - the time of this turn, microseconds on CLOCK_MONOTONIC (one clock read a turn). */
int64_t sm_loop_now(const struct sm_loop *loop);

void sm_watch_init(struct sm_watch *watch, int fd, void (*fn)(struct sm_watch *, uint32_t));
/** sm_loop_watch() - add the watch or change its events (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET ...). Returns 0 or -1 with errno. */
int sm_loop_watch(struct sm_loop *loop, struct sm_watch *watch, uint32_t events);
/** sm_loop_unwatch() - forget it; harmless when it is not watched. The descriptor stays the caller's. Call it before close(2). */
void sm_loop_unwatch(struct sm_loop *loop, struct sm_watch *watch);

/**
 * sm_loop_leave_ghost() - the last thing before closing a descriptor that another process should have closed already.
 *
 * An epoll registration lives as long as the open file description, not as the descriptor. fd (not watched any more) is registered for ghost
 * and then closed by the caller: if we were the last holder nothing happens; if not, ghost->fn is called soon, because a socket becomes
 * writable, fails or ends. One ghost serves any number of descriptors. Returns 0 or -1 with errno.
 */
int sm_loop_leave_ghost(struct sm_loop *loop, int fd, struct sm_watch *ghost);

void sm_timer_init(struct sm_timer *timer, void (*fn)(struct sm_timer *, int64_t));
/** sm_loop_arm() - (re)arm for an absolute time. Cannot fail (the heap grows; its size is bounded by the number of objects). */
void sm_loop_arm(struct sm_loop *loop, struct sm_timer *timer, int64_t due_us);
void sm_loop_disarm(struct sm_loop *loop, struct sm_timer *timer);
bool sm_timer_armed(const struct sm_timer *timer);

/** sm_loop_set_turn_end() - called once at the end of every turn; returns true when the next wait must not block. */
void sm_loop_set_turn_end(struct sm_loop *loop, bool (*fn)(void *data), void *data);

/** sm_loop_run() - turns until sm_loop_quit(); returns the status given there, or -1 with errno when epoll fails. */
int sm_loop_run(struct sm_loop *loop);
/** sm_loop_turn() - one turn that waits at most timeout_ms (-1: until something happens). For tests and for embedders. */
int sm_loop_turn(struct sm_loop *loop, int timeout_ms);
void sm_loop_quit(struct sm_loop *loop, int status);

/** sm_clock_us() - CLOCK_MONOTONIC now; sm_clock_wall_us() - CLOCK_REALTIME now. */
int64_t sm_clock_us(void);
int64_t sm_clock_wall_us(void);

#endif
