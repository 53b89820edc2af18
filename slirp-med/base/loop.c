/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop; see loop.h.
 *
 * Removing a watch inside a callback is made safe by slots: each watch knows the index of its fetched event, and unwatching clears that
 * entry. Timers sit in a binary heap; each knows its index, so re-arming is a sift and not a search.
 */
#include "base/loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

#define NOT_ARMED SIZE_MAX

struct sm_loop {
    int epfd;
    int64_t now_us;
    struct epoll_event fetched[SM_LOOP_BATCH];
    int n_fetched;
    GPtrArray *heap; /* of struct sm_timer *, not owned */
    bool (*turn_end)(void *data);
    void *turn_end_data;
    bool again; /* the last hook asked for another turn at once */
    bool quit;
    int status;
};

int64_t sm_clock_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t sm_clock_wall_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

struct sm_loop *sm_loop_new(GError **error)
{
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        sm_error_set_errno(error, errno, "epoll_create1");
        return NULL;
    }
    struct sm_loop *loop = g_new0(struct sm_loop, 1);
    loop->epfd = epfd;
    loop->now_us = sm_clock_us();
    loop->heap = g_ptr_array_new();
    return loop;
}

void sm_loop_free(struct sm_loop *loop)
{
    if (!loop)
        return;
    sm_fd_close(&loop->epfd);
    g_ptr_array_free(loop->heap, TRUE);
    g_free(loop);
}

int64_t sm_loop_now(const struct sm_loop *loop)
{
    return loop->now_us;
}

void sm_watch_init(struct sm_watch *watch, int fd, void (*fn)(struct sm_watch *, uint32_t))
{
    *watch = (struct sm_watch){.fd = fd, .fn = fn, .slot = -1};
}

int sm_loop_watch(struct sm_loop *loop, struct sm_watch *watch, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = watch};

    if (watch->added && watch->events == events && !(events & (EPOLLET | EPOLLONESHOT)))
        return 0;
    if (epoll_ctl(loop->epfd, watch->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &ev) < 0)
        return -1;
    watch->added = true;
    watch->events = events;
    return 0;
}

void sm_loop_unwatch(struct sm_loop *loop, struct sm_watch *watch)
{
    if (watch->slot >= 0) {
        loop->fetched[watch->slot].data.ptr = NULL;
        watch->slot = -1;
    }
    if (!watch->added)
        return;
    (void)epoll_ctl(loop->epfd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->added = false;
    watch->events = 0;
}

int sm_loop_leave_ghost(struct sm_loop *loop, int fd, struct sm_watch *ghost)
{
    struct epoll_event ev = {.events = EPOLLOUT | EPOLLET, .data.ptr = ghost};
    return epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev);
}

static struct sm_timer *heap_at(const struct sm_loop *loop, size_t i)
{
    return g_ptr_array_index(loop->heap, i);
}

static void heap_put(struct sm_loop *loop, size_t i, struct sm_timer *t)
{
    g_ptr_array_index(loop->heap, i) = t;
    t->heap_index = i;
}

static void heap_sift(struct sm_loop *loop, size_t i)
{
    struct sm_timer *t = heap_at(loop, i);
    size_t n = loop->heap->len;

    while (i > 0 && heap_at(loop, (i - 1) / 2)->due_us > t->due_us) {
        heap_put(loop, i, heap_at(loop, (i - 1) / 2));
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap_at(loop, child + 1)->due_us < heap_at(loop, child)->due_us)
            child++;
        if (heap_at(loop, child)->due_us >= t->due_us)
            break;
        heap_put(loop, i, heap_at(loop, child));
        i = child;
    }
    heap_put(loop, i, t);
}

void sm_timer_init(struct sm_timer *timer, void (*fn)(struct sm_timer *, int64_t))
{
    *timer = (struct sm_timer){.fn = fn, .heap_index = NOT_ARMED};
}

bool sm_timer_armed(const struct sm_timer *timer)
{
    return timer->heap_index != NOT_ARMED;
}

void sm_loop_arm(struct sm_loop *loop, struct sm_timer *timer, int64_t due_us)
{
    timer->due_us = due_us;
    if (timer->heap_index == NOT_ARMED) {
        g_ptr_array_add(loop->heap, timer);
        timer->heap_index = loop->heap->len - 1;
    }
    heap_sift(loop, timer->heap_index);
}

void sm_loop_disarm(struct sm_loop *loop, struct sm_timer *timer)
{
    size_t i = timer->heap_index;
    if (i == NOT_ARMED)
        return;
    timer->heap_index = NOT_ARMED;
    struct sm_timer *last = heap_at(loop, loop->heap->len - 1);
    g_ptr_array_set_size(loop->heap, (gint)loop->heap->len - 1);
    if (last != timer) {
        heap_put(loop, i, last);
        heap_sift(loop, i);
    }
}

void sm_loop_set_turn_end(struct sm_loop *loop, bool (*fn)(void *), void *data)
{
    loop->turn_end = fn;
    loop->turn_end_data = data;
}

static int wait_ms(const struct sm_loop *loop, int timeout_ms)
{
    if (loop->again)
        return 0;
    if (loop->heap->len == 0)
        return timeout_ms;
    int64_t left = heap_at(loop, 0)->due_us - sm_clock_us();
    if (left <= 0)
        return 0;
    int64_t ms = (left + 999) / 1000;
    if (ms > INT32_MAX)
        ms = INT32_MAX;
    return timeout_ms >= 0 && timeout_ms < ms ? timeout_ms : (int)ms;
}

int sm_loop_turn(struct sm_loop *loop, int timeout_ms)
{
    int n = epoll_wait(loop->epfd, loop->fetched, SM_LOOP_BATCH, wait_ms(loop, timeout_ms));
    if (n < 0) {
        if (errno != EINTR)
            return -1;
        n = 0;
    }
    loop->now_us = sm_clock_us();
    loop->n_fetched = n;
    for (int i = 0; i < n; i++)
        ((struct sm_watch *)loop->fetched[i].data.ptr)->slot = i;
    for (int i = 0; i < n; i++) {
        struct sm_watch *w = loop->fetched[i].data.ptr;
        if (!w)
            continue;
        w->slot = -1;
        w->fn(w, loop->fetched[i].events);
    }
    loop->n_fetched = 0;
    /* Only timers that are due now: one that re-arms itself for the past waits for the next turn. */
    size_t budget = loop->heap->len;
    while (budget-- > 0 && loop->heap->len > 0 && heap_at(loop, 0)->due_us <= loop->now_us) {
        struct sm_timer *t = heap_at(loop, 0);
        sm_loop_disarm(loop, t);
        t->fn(t, loop->now_us);
    }
    loop->again = loop->turn_end && loop->turn_end(loop->turn_end_data);
    return 0;
}

int sm_loop_run(struct sm_loop *loop)
{
    while (!loop->quit)
        if (sm_loop_turn(loop, -1) < 0)
            return -1;
    return loop->status;
}

void sm_loop_quit(struct sm_loop *loop, int status)
{
    loop->quit = true;
    loop->status = status;
}
