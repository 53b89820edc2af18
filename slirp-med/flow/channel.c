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
    uint8_t *many; /* a packet that is being filled, SM_FLOW_MSG_MAX; NULL: none was yet */
    size_t many_len;
    unsigned many_n;
    bool many_prompt; /* somebody waits for what is in it: it leaves with the turn */
    struct sm_timer many_timer;
};

/* In front of the first gathered message: the packet's byte and the length, which it does not need when it stays
 * alone. */
#define MANY_HEAD 3

/* What a queued message weighs: its bytes and the node, so that empty messages are bounded too. */
static size_t weight(size_t len)
{
    return len + sizeof(struct queued);
}

static bool droppable(enum sm_flow_type type)
{
    return type == SM_FLOW_OPEN || type == SM_FLOW_OTHER || type == SM_FLOW_DATAGRAM || type == SM_FLOW_REPEATED;
}

/* Nobody waits for an acknowledgement or an ordered end: they go with the next message, or after
 * SM_CHANNEL_PATIENCE_US. The word of a reset is needed at once: the core may see the front close a pair before it,
 * which looks like a FIN. */
static bool can_wait(const struct sm_flow_msg *msg)
{
    return msg->type == SM_FLOW_ATTACHED || (msg->type == SM_FLOW_GONE && msg->why == SM_WHY_CLOSED);
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
    ch->many_n = 0;
    ch->many_prompt = false;
    sm_loop_disarm(ch->loop, &ch->many_timer);
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

    for (int i = 0; i < SM_CHANNEL_BATCH && !ch->paused && !ch->dead;) {
        int fds[SM_FD_MSG_MAX];
        size_t n_fds = 0;
        struct sm_flow_msg msg;
        ssize_t n = sm_fd_recv(ch->watch.fd, buf, sizeof(buf), fds, &n_fds);
        if (n < 0 && would_block(errno))
            break;
        if (n < 0 && errno == ECONNRESET) {
            i++;
            continue; /* it ended without reading all that we sent; said once, and what it had to say comes behind */
        }
        if (n <= 0) {
            fail(ch, n == 0 ? "the peer closed the channel" : "the channel failed");
            break;
        }
        struct sm_flow_packet packet = sm_flow_packet_init(buf, (size_t)n);
        while (!ch->dead && sm_flow_packet_next(&packet, &msg)) {
            if (n_fds != sm_flow_fds(msg.type) && !(msg.type == SM_FLOW_OPEN && n_fds == 1)) {
                packet.bad = true;
                break;
            }
            ch->ops.message(&msg, fds, n_fds, ch->data);
            n_fds = 0; /* they are the receiver's now; a packet of many has none */
            i++;
        }
        if (packet.bad) {
            for (size_t k = 0; k < n_fds; k++)
                (void)close(fds[k]);
            fail(ch, "the peer sent a malformed message");
            break;
        }
    }
}

static void release(struct sm_channel *ch)
{
    sm_loop_unwatch(ch->loop, &ch->watch);
    sm_loop_disarm(ch->loop, &ch->failure);
    drop_queue(ch);
    sm_fd_close(&ch->watch.fd);
    g_free(ch->many);
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

static void send_gathered(struct sm_channel *ch);

static void on_many(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    send_gathered(sm_container_of(timer, struct sm_channel, many_timer));
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
    sm_timer_init(&ch->many_timer, on_many);
    update_watch(ch);
    return ch;
}

void sm_channel_free(struct sm_channel *ch)
{
    if (!ch)
        return;
    send_gathered(ch);
    if (ch->busy) {
        ch->dead = ch->doomed = true;
        return;
    }
    release(ch);
}

/* A packet of n messages, now or behind those that wait. False when it was dropped, or the channel is dead. */
static bool transmit(struct sm_channel *ch, const uint8_t *data, size_t len, int fd, bool may_drop, unsigned n)
{
    if (!ch->first) {
        if (put(ch, data, len, fd) >= 0) {
            sm_fd_close(&fd);
            return true;
        }
        if (!would_block(errno)) {
            /* Reported from the loop (EPOLLHUP), not from inside a send. */
            ch->dropped += n;
            return false;
        }
    }
    if (may_drop && ch->queued_bytes + weight(len) > SM_CHANNEL_QUEUE_MAX / 4) {
        ch->dropped += n;
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
    memcpy(q->data, data, len);
    *ch->last = q;
    ch->last = &q->next;
    ch->queued_bytes += weight(len);
    if (ch->queued_bytes > SM_CHANNEL_QUEUE_MAX / 2)
        ch->congested = true;
    update_watch(ch);
    return !ch->dead;
}

static void send_gathered(struct sm_channel *ch)
{
    unsigned n = ch->many_n;

    if (n == 0 || ch->dead)
        return;
    ch->many_n = 0;
    ch->many_prompt = false;
    sm_loop_disarm(ch->loop, &ch->many_timer);
    if (n == 1)
        (void)transmit(ch, ch->many + MANY_HEAD, ch->many_len - MANY_HEAD, -1, true, n);
    else
        (void)transmit(ch, ch->many, ch->many_len, -1, true, n);
}

void sm_channel_flush(struct sm_channel *ch)
{
    if (ch->many_prompt)
        send_gathered(ch);
}

/* False: it does not fit behind those that are there, or by itself. Only while nothing waits in our own queue, so that
 * a packet of some finds it empty and is never one of those that are dropped. */
static bool gather(struct sm_channel *ch, const struct sm_flow_msg *msg)
{
    if (ch->first || ch->many_n == SM_FLOW_PACKET_MAX)
        return false;
    if (!ch->many)
        ch->many = g_malloc(SM_FLOW_MSG_MAX);
    size_t at = ch->many_n > 0 ? ch->many_len : 1;
    size_t len = at + 2 < SM_FLOW_MSG_MAX ? sm_flow_encode(msg, ch->many + at + 2, SM_FLOW_MSG_MAX - at - 2) : 0;
    if (len == 0)
        return false;
    bool prompt = !can_wait(msg);
    if (ch->many_n == 0) {
        ch->many[0] = SM_FLOW_PACKET_MANY;
        ch->many_prompt = false;
        sm_loop_arm(ch->loop, &ch->many_timer, sm_loop_now(ch->loop) + SM_CHANNEL_PATIENCE_US);
    }
    if (prompt && !ch->many_prompt) {
        ch->many_prompt = true;
        sm_loop_arm(ch->loop, &ch->many_timer, sm_loop_now(ch->loop));
    }
    ch->many[at] = (uint8_t)(len >> 8);
    ch->many[at + 1] = (uint8_t)len;
    ch->many_len = at + 2 + len;
    ch->many_n++;
    return true;
}

bool sm_channel_send(struct sm_channel *ch, const struct sm_flow_msg *msg, int fd)
{
    uint8_t buf[SM_FLOW_MSG_MAX];

    if (ch->dead)
        return false;
    g_assert((fd >= 0) == (sm_flow_fds(msg->type) == 1) && (fd < 0 || ch->may_send_fds));
    bool waits = msg->type == SM_FLOW_DATAGRAM || can_wait(msg);
    if (fd < 0 && (waits || ch->many_n > 0) && gather(ch, msg)) {
        if (!waits)
            send_gathered(ch);
        return true;
    }
    send_gathered(ch); /* order is kept */
    if (ch->dead)
        return false;
    if (waits && gather(ch, msg))
        return true;
    size_t len = sm_flow_encode(msg, buf, sizeof(buf));
    g_assert(len > 0); /* our own message: a field out of range is our mistake */
    return transmit(ch, buf, len, fd, droppable(msg->type), 1);
}

void sm_channel_finish(struct sm_channel *ch)
{
    send_gathered(ch);
    ch->finishing = true;
    if (!ch->dead && !ch->first)
        (void)shutdown(ch->watch.fd, SHUT_WR);
}

bool sm_channel_crowded(const struct sm_channel *ch)
{
    return ch->first && ch->queued_bytes + weight(SM_FLOW_MSG_MAX) > SM_CHANNEL_QUEUE_MAX / 4;
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
