/* SPDX-License-Identifier: BSD-3-Clause */
/* The channel end: kernel queue first, then our own bounded one; see channel.h. */
#include "flow/channel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct queued {
    struct queued *next;
    int fd;
    size_t len;
    uint8_t data[];
};

struct sm_channel {
    struct sm_loop *loop;
    struct sm_watch watch;
    bool may_send_fds;
    struct sm_channel_ops ops;
    void *data;
    struct queued *first, **last;
    size_t queued_bytes;
    bool paused;
    bool congested;
    bool dead;
    bool finishing;          /* our side is shut as soon as nothing waits */
    bool busy;               /* a callback is running: sm_channel_free() only marks, on_ready() frees */
    bool doomed;             /* freed while busy */
    struct sm_timer failure; /* reports an overflow from the loop and not from inside a send */
    uint64_t dropped;
};

/* What a queued message weighs: its bytes and the node, so that empty messages are bounded too. */
static size_t weight(size_t len)
{
    return len + sizeof(struct queued);
}

static bool droppable(enum sm_flow_type type)
{
    return type == SM_FLOW_OPEN || type == SM_FLOW_OTHER || type == SM_FLOW_DATAGRAM || type == SM_FLOW_REPEATED;
}

static void drop_queue(struct sm_channel *ch)
{
    while (ch->first) {
        struct queued *q = ch->first;
        ch->first = q->next;
        sm_fd_close(&q->fd);
        g_free(q);
    }
    ch->last = &ch->first;
    ch->queued_bytes = 0;
}

static void fail(struct sm_channel *ch, const char *text)
{
    if (ch->dead)
        return;
    ch->dead = true;
    sm_loop_unwatch(ch->loop, &ch->watch);
    drop_queue(ch);
    ch->ops.failed(text, ch->data);
}

static void update_watch(struct sm_channel *ch)
{
    uint32_t events = (ch->paused ? 0 : EPOLLIN) | (ch->first ? EPOLLOUT : 0);
    if (sm_loop_watch(ch->loop, &ch->watch, events) < 0)
        fail(ch, "the channel cannot be watched");
}

static ssize_t put(struct sm_channel *ch, const void *data, size_t len, int fd)
{
    if (ch->may_send_fds)
        return sm_fd_send(ch->watch.fd, data, len, &fd, fd >= 0 ? 1 : 0);
    ssize_t n;
    do {
        n = write(ch->watch.fd, data, len);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* True when the kernel's queue is full for now. ETOOMANYREFS: too many descriptors in flight, which the peer's reading mends. */
static bool would_block(int err)
{
    return err == EAGAIN || err == EWOULDBLOCK || err == ENOBUFS || err == ETOOMANYREFS;
}

static void flush(struct sm_channel *ch)
{
    while (ch->first) {
        struct queued *q = ch->first;
        if (put(ch, q->data, q->len, q->fd) < 0) {
            if (!would_block(errno))
                fail(ch, "the peer of the channel is gone");
            break;
        }
        ch->first = q->next;
        if (!ch->first)
            ch->last = &ch->first;
        ch->queued_bytes -= weight(q->len);
        sm_fd_close(&q->fd);
        g_free(q);
    }
    if (ch->dead)
        return;
    if (ch->finishing && !ch->first)
        (void)shutdown(ch->watch.fd, SHUT_WR);
    if (ch->congested && ch->queued_bytes < SM_CHANNEL_QUEUE_MAX / 4) {
        ch->congested = false;
        if (ch->ops.drained)
            ch->ops.drained(ch->data);
    }
}

static void receive(struct sm_channel *ch)
{
    uint8_t buf[SM_FLOW_MSG_MAX];

    for (int i = 0; i < SM_CHANNEL_BATCH && !ch->paused && !ch->dead; i++) {
        int fds[SM_FD_MSG_MAX];
        size_t n_fds = 0;
        struct sm_flow_msg msg;
        ssize_t n = sm_fd_recv(ch->watch.fd, buf, sizeof(buf), fds, &n_fds);
        if (n < 0 && would_block(errno))
            break;
        if (n < 0 && errno == ECONNRESET)
            continue; /* it ended without reading all that we sent; said once, and what it had to say comes behind */
        if (n <= 0) {
            fail(ch, n == 0 ? "the peer closed the channel" : "the channel failed");
            break;
        }
        size_t want = 0;
        bool ok = sm_flow_decode(buf, (size_t)n, &msg);
        if (ok)
            want = sm_flow_fds(msg.type);
        if (!ok || (n_fds != want && !(msg.type == SM_FLOW_OPEN && n_fds == 1))) {
            for (size_t k = 0; k < n_fds; k++)
                (void)close(fds[k]);
            fail(ch, "the peer sent a malformed message");
            break;
        }
        ch->ops.message(&msg, fds, n_fds, ch->data);
    }
}

static void release(struct sm_channel *ch)
{
    sm_loop_unwatch(ch->loop, &ch->watch);
    sm_loop_disarm(ch->loop, &ch->failure);
    drop_queue(ch);
    sm_fd_close(&ch->watch.fd);
    g_free(ch);
}

static void on_ready(struct sm_watch *watch, uint32_t events)
{
    struct sm_channel *ch = sm_container_of(watch, struct sm_channel, watch);

    ch->busy = true;
    if (events & EPOLLOUT)
        flush(ch);
    if (!ch->dead && ch->paused && (events & (EPOLLHUP | EPOLLERR)))
        fail(ch, "the peer closed the channel");
    if (!ch->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        receive(ch);
    if (!ch->dead)
        update_watch(ch);
    ch->busy = false;
    if (ch->doomed)
        release(ch);
}

static void on_failure(struct sm_timer *timer, int64_t now_us)
{
    struct sm_channel *ch = sm_container_of(timer, struct sm_channel, failure);
    (void)now_us;
    ch->ops.failed("the peer does not read its channel", ch->data);
}

struct sm_channel *sm_channel_new(struct sm_loop *loop, int fd, bool may_send_fds, const struct sm_channel_ops *ops,
                                  void *data)
{
    struct sm_channel *ch = g_new0(struct sm_channel, 1);
    ch->loop = loop;
    ch->may_send_fds = may_send_fds;
    ch->ops = *ops;
    ch->data = data;
    ch->last = &ch->first;
    sm_watch_init(&ch->watch, fd, on_ready);
    sm_timer_init(&ch->failure, on_failure);
    update_watch(ch);
    return ch;
}

void sm_channel_free(struct sm_channel *ch)
{
    if (!ch)
        return;
    if (ch->busy) {
        ch->dead = ch->doomed = true;
        return;
    }
    release(ch);
}

bool sm_channel_send(struct sm_channel *ch, const struct sm_flow_msg *msg, int fd)
{
    uint8_t buf[SM_FLOW_MSG_MAX];

    if (ch->dead)
        return false;
    g_assert((fd >= 0) == (sm_flow_fds(msg->type) == 1) && (fd < 0 || ch->may_send_fds));
    size_t len = sm_flow_encode(msg, buf, sizeof(buf));
    g_assert(len > 0); /* our own message: a field out of range is our mistake */
    if (!ch->first) {
        if (put(ch, buf, len, fd) >= 0) {
            sm_fd_close(&fd);
            return true;
        }
        if (!would_block(errno)) {
            /* Reported from the loop (EPOLLHUP), not from inside a send. */
            ch->dropped++;
            return false;
        }
    }
    if (droppable(msg->type) && ch->queued_bytes + weight(len) > SM_CHANNEL_QUEUE_MAX / 4) {
        ch->dropped++;
        return false;
    }
    if (ch->queued_bytes + weight(len) > SM_CHANNEL_QUEUE_MAX) {
        ch->dead = true;
        sm_loop_unwatch(ch->loop, &ch->watch);
        drop_queue(ch);
        sm_loop_arm(ch->loop, &ch->failure, sm_loop_now(ch->loop));
        return false;
    }
    struct queued *q = g_malloc(sizeof(*q) + len);
    q->next = NULL;
    q->fd = fd;
    q->len = len;
    memcpy(q->data, buf, len);
    *ch->last = q;
    ch->last = &q->next;
    ch->queued_bytes += weight(len);
    if (ch->queued_bytes > SM_CHANNEL_QUEUE_MAX / 2)
        ch->congested = true;
    update_watch(ch);
    return !ch->dead;
}

void sm_channel_finish(struct sm_channel *ch)
{
    ch->finishing = true;
    if (!ch->dead && !ch->first)
        (void)shutdown(ch->watch.fd, SHUT_WR);
}

bool sm_channel_congested(const struct sm_channel *ch)
{
    return ch->congested;
}

void sm_channel_pause(struct sm_channel *ch, bool pause)
{
    ch->paused = pause;
    if (!ch->dead)
        update_watch(ch);
}

uint64_t sm_channel_dropped(const struct sm_channel *ch)
{
    return ch->dropped;
}
