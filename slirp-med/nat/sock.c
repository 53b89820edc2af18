/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flows of accepted sockets: the client's on one side, a descriptor of the core on the other; see sock.h.
 *
 * Both sockets are watched edge-triggered and once; what an edge said is remembered (`readable`, `writable`), and each
 * direction moves one read a turn (move()). A busy flow so costs no epoll_ctl, and a flow that waits costs nothing.
 *
 * Where the owner does not look at the bytes and a read was full, there is likely more of the same: from then on that
 * direction's bytes go through a pipe (pipes.h, haul()), until little comes at once. What it brings and its ends stay
 * read's to say.
 */
#include "nat/sock.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "nat/front_priv.h"
#include "nat/pipes.h"

/** What one read takes at most; also what is kept of it when the other side is full. */
#define READ_MAX SM_FLOW_UDP_BATCH_MAX
/** A direction that brings less than this at once is read again: a read that is short says that there is no more, and
 * behind a splice that is it takes another one and a read. For bulk 1, 32 and 128 KiB measured the same. */
#define HAUL_MIN (32u << 10)
/** Accepting goes on so long after the process had no descriptor left for a client. */
#define ACCEPT_RETRY_US 20000

/** One end of a flow. */
struct end {
    bool readable; /* may have bytes, an end or an error for us */
    bool writable;
    bool eager; /* a short read is not the last one: the peer has ended, or worse */
};

/** One direction. */
struct way {
    struct sm_buf buf;
    struct sm_pipe *pipe; /* borrowed while there are bytes in it; then there are none in buf */
    bool bulk;            /* much came at once: what comes next goes through a pipe */
    bool eof;             /* the source has ended */
    bool passed;          /* and the sink was told, behind the last byte */
};

struct sock_flow {
    struct sm_front_flow base; /* watch: upstream's */
    struct sm_watch client;    /* fd -1: not yet dialled, or closed */
    struct end up_end, client_end;
    struct way up, down; /* from the client, to it; up.buf is also what is held before ATTACH */
    size_t shown;        /* bytes of up.buf that the core has seen */
    bool heard;          /* the client was sent bytes of upstream's */
    bool dialling;       /* INBOUND: the socket to the guest is asked for */
    const struct sm_sock_hooks *hooks;
    void *data;
};

/** A client that is being told why not. */
struct lingering {
    struct sm_front *front;
    struct sm_watch watch;
    GBytes *answer;
    size_t sent;
    int64_t until_us;
    GList link;
};

struct listener {
    struct sm_front *front;
    struct sm_watch watch;
    void (*client)(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data);
    void *data;
    int64_t again_us; /* not before this time */
};

struct sm_front_socks {
    GPtrArray *listeners;
    GQueue lingering; /* oldest first */
    struct sm_timer timer;
    bool (*dial)(uint64_t id, const struct sm_endpoint *src, uint16_t guest_port, void *data);
    void *dial_data;
    const struct sm_sock_udp *udp; /* NULL: no datagrams */
    void *udp_data;
    struct sm_watch *source; /* NULL: none */
    struct sm_pipes pipes;   /* none, but for sm_sock_splice() */
};

static const struct sm_front_flow_ops flow_ops;

static struct sock_flow *as_sock(struct sm_front_flow *flow)
{
    return (struct sock_flow *)(void *)flow;
}

/* SO_LINGER of 0 makes close(2) say RST. */
static void reset(int *fd)
{
    struct linger now = {.l_onoff = 1};

    if (*fd >= 0 && setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
        sm_log_debug("SO_LINGER: %s", strerror(errno));
    sm_fd_close(fd);
}

/* ---- a refused client's last answer ---- */

static void linger_end(struct lingering *l)
{
    g_queue_unlink(&l->front->socks->lingering, &l->link);
    sm_loop_unwatch(l->front->loop, &l->watch);
    sm_fd_close(&l->watch.fd);
    g_bytes_unref(l->answer);
    g_free(l);
}

/* Write, end, and read until the client has closed: to close with bytes unread would be a RST, which may overtake the
 * answer. */
static void linger_run(struct lingering *l)
{
    struct sm_front *front = l->front;
    size_t len;
    const uint8_t *p = g_bytes_get_data(l->answer, &len);

    while (l->sent < len) {
        ssize_t n = write(l->watch.fd, p + l->sent, len - l->sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            linger_end(l);
            return;
        }
        l->sent += (size_t)n;
        if (l->sent == len)
            (void)shutdown(l->watch.fd, SHUT_WR);
    }
    ssize_t n;
    do {
        n = read(l->watch.fd, front->read_buf, READ_MAX);
    } while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        linger_end(l);
    else if (sm_loop_watch(front->loop, &l->watch, EPOLLIN | (l->sent < len ? EPOLLOUT : 0u)) < 0)
        linger_end(l);
}

static void on_linger(struct sm_watch *watch, uint32_t events)
{
    linger_run(sm_container_of(watch, struct lingering, watch));
}

static void arm(struct sm_front *front, int64_t due_us)
{
    struct sm_timer *timer = &front->socks->timer;

    if (!sm_timer_armed(timer) || timer->due_us > due_us)
        sm_loop_arm(front->loop, timer, due_us);
}

void sm_sock_answer(struct sm_front *front, int fd, GBytes *answer)
{
    struct sm_front_socks *s = front->socks;

    if (!answer || front->dead || s->lingering.length >= SM_SOCK_LINGER_MAX) {
        g_clear_pointer(&answer, g_bytes_unref);
        reset(&fd);
        return;
    }
    struct lingering *l = g_new0(struct lingering, 1);
    l->front = front;
    l->answer = answer;
    l->until_us = sm_loop_now(front->loop) + SM_SOCK_LINGER_US;
    l->link.data = l;
    sm_watch_init(&l->watch, fd, on_linger);
    g_queue_push_tail_link(&s->lingering, &l->link);
    arm(front, l->until_us);
    linger_run(l);
}

/* ---- the end of a flow ---- */

/* Bytes that its sink has not taken. */
static size_t kept(const struct way *way)
{
    return way->buf.len + (way->pipe ? way->pipe->held : 0);
}

static void account(struct sock_flow *f, size_t up_before, size_t down_before)
{
    struct sm_front_stats *stats = &f->base.front->stats;

    stats->held_now += kept(&f->up) - up_before;
    stats->queued_now += kept(&f->down) - down_before;
}

/* The id dies; the client's descriptor is the caller's to reset, to close or to hand on. */
static int end_id(struct sock_flow *f)
{
    struct sm_pipes *pipes = &f->base.front->socks->pipes;
    size_t up = kept(&f->up), down = kept(&f->down);

    sm_loop_unwatch(f->base.front->loop, &f->client);
    int client = sm_steal_fd(&f->client.fd);
    sm_front_close_fd(&f->base);
    sm_buf_clear(&f->up.buf);
    sm_buf_clear(&f->down.buf);
    sm_pipes_give_back(pipes, &f->up.pipe);
    sm_pipes_give_back(pipes, &f->down.pipe);
    account(f, up, down);
    sm_front_forget(&f->base);
    sm_front_set_state(&f->base, SM_FRONT_CLOSING);
    sm_front_bury(&f->base);
    return client;
}

static void let_go(struct sock_flow *f)
{
    if (f->hooks && f->hooks->closed)
        f->hooks->closed(f->data);
    f->hooks = NULL;
}

/* The flow ends by our hand: descriptors first, then the core is told. */
static void abort_flow(struct sock_flow *f, enum sm_flow_why why)
{
    uint64_t id = f->base.id;

    if (f->base.state == SM_FRONT_CLOSING)
        return;
    sm_autofd client = end_id(f);
    reset(&client);
    sm_front_tell(f->base.front, SM_FLOW_GONE, id, why);
    let_go(f);
}

static void sock_end(struct sm_front_flow *flow, enum sm_flow_why why)
{
    abort_flow(as_sock(flow), why);
}

/* It has gone: before it was answered, or after. */
static enum sm_flow_why why_of_client(const struct sock_flow *f)
{
    return f->base.state == SM_FRONT_ASKED ? SM_WHY_REFUSED : SM_WHY_GUEST_RST;
}

/* Both directions have ended in order, and all that was said is with the kernel. */
static void end_if_complete(struct sock_flow *f)
{
    uint64_t id = f->base.id;

    if (f->base.state != SM_FRONT_ATTACHED || !f->up.passed || !f->down.passed)
        return;
    sm_autofd client = end_id(f);
    sm_front_tell(f->base.front, SM_FLOW_GONE, id, SM_WHY_CLOSED);
    let_go(f);
}

/* The client of a refused flow, whose id has ended. msg: NULL when it is not the core that refuses. */
static void turn_away(struct sm_front *front, int client, const struct sm_flow_msg *msg,
                      const struct sm_sock_hooks *hooks, void *data)
{
    sm_sock_answer(front, client, hooks && hooks->refused ? hooks->refused(msg, data) : NULL);
    if (hooks && hooks->closed)
        hooks->closed(data);
}

/* ---- moving bytes ---- */

enum moved { MOVED, MOVED_MORE, SOURCE_FAILED, SINK_FAILED };

/* What is kept goes on: bytes of buf, or of the pipe, which is then given back. */
static enum moved flush(struct sm_pipes *pipes, struct way *way, struct end *to, int to_fd)
{
    while (kept(way) > 0 && to->writable) {
        ssize_t n = way->pipe ? sm_pipe_pour(way->pipe, to_fd) : write(to_fd, sm_buf_peek(&way->buf), way->buf.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            to->writable = false;
            break;
        }
        if (n < 0 || (n == 0 && way->pipe))
            return SINK_FAILED;
        if (!way->pipe)
            sm_buf_consume(&way->buf, (size_t)n);
    }
    if (way->pipe && way->pipe->held == 0)
        sm_pipes_give_back(pipes, &way->pipe);
    return MOVED;
}

/* Take up to cap bytes of what there is. Returns how many; 0 when there is nothing now, or the end (way->eof). */
static ssize_t take(struct way *way, struct end *from, int from_fd, uint8_t *p, size_t cap)
{
    ssize_t n;

    do {
        n = read(from_fd, p, cap);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        way->eof = true;
    /* A short read from a stream took everything there was, and a later arrival is a new edge; an end that has come already
     * is not. */
    if (n <= 0 || ((size_t)n < cap && !from->eager))
        from->readable = false;
    return n < 0 && errno == EAGAIN ? 0 : n;
}

/* What the owner lets go on of bytes that were read for this direction. */
static ssize_t let_pass(struct sock_flow *f, const struct way *way, const uint8_t *p, ssize_t n)
{
    if (n <= 0 || !f->hooks)
        return n;
    if (way == &f->down) {
        f->heard = true;
        if (f->hooks->hears && !f->hooks->hears(p, (size_t)n, f->data) && !f->up.eof) {
            f->up.eof = true;
            sm_front_ready(&f->base); /* nothing else will come that tells upstream */
        }
        return n;
    }
    size_t goes = f->hooks->says ? f->hooks->says(p, (size_t)n, f->data) : (size_t)n;
    if (goes < (size_t)n && f->heard)
        f->up.eof = true;
    return (ssize_t)goes;
}

/* Bulk: a pipe's worth from socket to socket. False: nothing was moved, and a read is to say what there is. A sink
 * that is full keeps the pipe with what it did not take, but never the last one: its bytes are copied then, so that
 * sinks that stand still cannot bring all others to copying. */
static bool haul(struct sock_flow *f, struct way *way, int from_fd, struct end *to, int to_fd, enum moved *ret)
{
    struct sm_pipes *pipes = &f->base.front->socks->pipes;

    if (!way->bulk || !to->writable)
        return false;
    way->pipe = sm_pipes_borrow(pipes);
    if (!way->pipe)
        return false;
    if (!sm_pipe_fill(way->pipe, from_fd)) {
        way->bulk = errno == EAGAIN;
        sm_pipes_give_back(pipes, &way->pipe);
        return false;
    }
    f->base.front->stats.spliced += way->pipe->held;
    way->bulk = way->pipe->held >= HAUL_MIN;
    *ret = flush(pipes, way, to, to_fd);
    if (*ret == MOVED && way->pipe && !sm_pipes_spare(pipes)) {
        size_t n = way->pipe->held;
        uint8_t *at = sm_buf_reserve(&way->buf, n);
        if (!at || !sm_pipe_read(way->pipe, at)) { /* never: the queue was empty, and what was put in is there */
            *ret = SINK_FAILED;
            return true;
        }
        sm_buf_commit(&way->buf, n);
        sm_pipes_give_back(pipes, &way->pipe);
    }
    return true;
}
_Static_assert(HAUL_MIN <= READ_MAX && HAUL_MIN <= SM_PIPES_BYTES, "a full read, or a full pipe, is much");

/* One direction's share of a turn: what was kept, one read, and the end. may_read: there is memory for what may be kept. */
static enum moved move(struct sock_flow *f, struct way *way, struct end *from, int from_fd, struct end *to, int to_fd,
                       uint8_t *scratch, bool may_read)
{
    enum moved moved = flush(&f->base.front->socks->pipes, way, to, to_fd);

    if (moved == MOVED && kept(way) == 0 && !way->eof && from->readable && may_read &&
        !haul(f, way, from_fd, to, to_fd, &moved)) {
        ssize_t n = take(way, from, from_fd, scratch, READ_MAX);
        if (n < 0)
            return SOURCE_FAILED;
        if (n > 0)
            way->bulk = n == READ_MAX && !f->hooks;
        n = let_pass(f, way, scratch, n);
        ssize_t put = 0;
        if (n > 0 && to->writable) {
            do {
                put = write(to_fd, scratch, (size_t)n);
            } while (put < 0 && errno == EINTR);
            if (put < 0 && errno != EAGAIN && errno != ENOBUFS)
                return SINK_FAILED;
            put = SM_MAX(put, (ssize_t)0);
            to->writable = put == n;
        }
        if (put < n && !sm_buf_append(&way->buf, scratch + put, (size_t)(n - put)))
            return SINK_FAILED; /* never: the queue holds a read, and was empty */
    }
    if (moved == SINK_FAILED)
        return SINK_FAILED;
    if (way->eof && kept(way) == 0 && !way->passed) {
        (void)shutdown(to_fd, SHUT_WR);
        way->passed = true;
    }
    return kept(way) == 0 && !way->eof && from->readable ? MOVED_MORE : MOVED;
}
_Static_assert(READ_MAX <= SM_FLOW_HELD_MAX && READ_MAX + SM_SOCK_ANSWER_MAX <= SM_PIPES_BYTES,
               "what one read brings, a direction can keep");

static void run_attached(struct sock_flow *f)
{
    struct sm_front *front = f->base.front;
    int client = f->client.fd, upstream = f->base.watch.fd;
    size_t up_before = kept(&f->up), down_before = kept(&f->down);
    bool up_room = front->stats.held_now <= SM_FRONT_HELD_TOTAL,
         down_room = front->stats.queued_now <= SM_FRONT_QUEUED_TOTAL;

    enum moved up = move(f, &f->up, &f->client_end, client, &f->up_end, upstream, front->read_buf, up_room);
    enum moved down = up == SOURCE_FAILED || up == SINK_FAILED
                          ? MOVED
                          : move(f, &f->down, &f->up_end, upstream, &f->client_end, client, front->read_buf, down_room);
    account(f, up_before, down_before);
    if (up == SOURCE_FAILED || down == SINK_FAILED)
        abort_flow(f, SM_WHY_GUEST_RST);
    else if (up == SINK_FAILED || down == SOURCE_FAILED)
        abort_flow(f, SM_WHY_UPSTREAM_RST);
    else if ((up == MOVED_MORE && up_room) || (down == MOVED_MORE && down_room))
        sm_front_ready(&f->base);
    else if (up == MOVED_MORE || down == MOVED_MORE)
        sm_front_stall(&f->base);
    end_if_complete(f);
}

/* Copies for the core of what it has not seen. */
static void show(struct sock_flow *f)
{
    while (f->shown < f->up.buf.len) {
        size_t n = SM_MIN(f->up.buf.len - f->shown, (size_t)SM_FLOW_DATA_MAX);
        struct sm_flow_msg m = {
            .type = SM_FLOW_BYTES, .id = f->base.id, .data = sm_buf_peek(&f->up.buf) + f->shown, .data_len = n};
        (void)sm_channel_send(f->base.front->channel, &m, -1);
        f->shown += n;
    }
}

/* What is said before ATTACH is read, kept and shown: in HELD, and in ASKED, where the client's own kernel lets it speak. */
static void run_held(struct sock_flow *f)
{
    struct sm_front *front = f->base.front;
    size_t up = f->up.buf.len, down = f->down.buf.len, room = sm_buf_room(&f->up.buf);
    bool told = f->up.eof;
    if (f->base.state == SM_FRONT_ASKED)
        room = up < SM_SOCK_EARLY_MAX ? SM_SOCK_EARLY_MAX - up : 0;
    enum moved greeted = flush(&front->socks->pipes, &f->down, &f->client_end, f->client.fd);
    ssize_t n = 0;

    show(f);
    if (greeted == MOVED && f->client_end.readable && !told && room > 0) {
        if (sm_channel_congested(front->channel) || front->stats.held_now > SM_FRONT_HELD_TOTAL) {
            sm_front_stall(&f->base);
        } else {
            n = take(&f->up, &f->client_end, f->client.fd, front->read_buf, SM_MIN(room, (size_t)READ_MAX));
            ssize_t goes = let_pass(f, &f->up, front->read_buf, n);
            if (goes > 0 && !sm_buf_append(&f->up.buf, front->read_buf, (size_t)goes))
                n = -1; /* never: room was looked at */
        }
    }
    account(f, up, down);
    if (greeted != MOVED || n < 0) {
        abort_flow(f, why_of_client(f));
        return;
    }
    show(f);
    if (f->up.eof && !told)
        sm_front_tell(front, SM_FLOW_EOF, f->base.id, SM_WHY_CLOSED);
    else if (n > 0 && f->client_end.readable)
        sm_front_ready(&f->base);
}

static void sock_run(struct sm_front_flow *flow)
{
    struct sock_flow *f = as_sock(flow);

    switch (flow->state) {
    case SM_FRONT_HELD:
        if (!f->dialling)
            run_held(f);
        break;
    case SM_FRONT_ATTACHED:
        run_attached(f);
        break;
    case SM_FRONT_ASKED:
        if (!f->hooks) /* its kernel has let it speak already, and the core can judge the sooner */
            run_held(f);
        break;
    case SM_FRONT_CLOSING:
    case SM_FRONT_STATES:
        break;
    }
}

static void heed(struct end *end, uint32_t events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        end->eager = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        end->readable = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        end->writable = true;
}

static void on_client(struct sm_watch *watch, uint32_t events)
{
    struct sock_flow *f = sm_container_of(watch, struct sock_flow, client);

    heed(&f->client_end, events);
    if (events & EPOLLERR) /* it has reset its connection: nobody is left for whom anything is worth its while */
        abort_flow(f, why_of_client(f));
    else
        sock_run(&f->base);
}

static void on_upstream(struct sm_watch *watch, uint32_t events)
{
    struct sock_flow *f = sm_container_of(watch, struct sock_flow, base.watch);

    heed(&f->up_end, events);
    if (f->down.eof && (events & EPOLLERR)) /* nothing is left to read that would tell us */
        abort_flow(f, SM_WHY_UPSTREAM_RST);
    else
        sock_run(&f->base);
}

static bool watch_end(struct sock_flow *f, struct sm_watch *watch)
{
    return sm_loop_watch(f->base.front->loop, watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) == 0;
}

/* ---- a new flow ---- */

static struct sock_flow *flow_new(struct sm_front *front)
{
    struct sock_flow *f = g_new0(struct sock_flow, 1);

    f->base.front = front;
    f->base.ops = &flow_ops;
    f->base.proto = SM_FRONT_TCP;
    f->base.link.data = f->base.defer.data = f->base.grave.data = &f->base;
    sm_watch_init(&f->base.watch, -1, on_upstream);
    sm_watch_init(&f->client, -1, on_client);
    sm_buf_init(&f->up.buf, SM_FLOW_HELD_MAX);
    sm_buf_init(&f->down.buf, SM_PIPES_BYTES);
    front->stats.tcp_now++;
    return f;
}

static bool may_open(struct sm_front *front)
{
    return !front->dead && !front->told && front->stats.tcp_now < SM_FRONT_TCP_MAX && sm_front_may_ask(front) &&
           !sm_channel_crowded(front->channel);
}

void sm_sock_open(struct sm_front *front, int fd, const struct sm_flow_msg *open, const void *first, size_t first_len,
                  const struct sm_sock_hooks *hooks, void *data)
{
    bool v4 = open->dst.addr.family == SM_FAMILY_V4;
    struct sm_hold_key key = {.dst = sm_addr_to_u32(&open->dst.addr),
                              .dst_port = open->dst.port,
                              .src_port = open->src.port,
                              .proto = SM_FLOW_TCP};
    enum sm_flow_how how;

    g_assert(first_len <= SM_SOCK_FIRST_MAX);
    if (v4 && sm_front_held(front, &key, &how)) {
        turn_away(front, fd, NULL, hooks, data);
        return;
    }
    if (!may_open(front)) {
        front->stats.opens_dropped++;
        turn_away(front, fd, NULL, hooks, data);
        return;
    }
    struct sock_flow *f = flow_new(front);
    struct sm_flow_msg m = *open;
    m.type = SM_FLOW_OPEN;
    m.proto = SM_FLOW_TCP;
    f->base.key = key;
    f->base.nameless = !v4;
    if (!sm_front_ask_with(front, &f->base, &m)) {
        sm_front_bury(&f->base);
        turn_away(front, fd, NULL, hooks, data);
        return;
    }
    f->client.fd = fd;
    f->hooks = hooks;
    f->data = data;
    if (!sm_buf_append(&f->up.buf, first, first_len) || !watch_end(f, &f->client)) {
        abort_flow(f, SM_WHY_LIMIT);
        return;
    }
    account(f, 0, 0);
}
_Static_assert(SM_SOCK_FIRST_MAX <= SM_FLOW_HELD_MAX, "the first bytes are held like any others");

/* ---- from the core ---- */

/* Before its first byte, what its owner has to say. */
static bool greet(struct sock_flow *f)
{
    g_autoptr(GBytes) text = f->hooks && f->hooks->accepted ? f->hooks->accepted(f->data) : NULL;
    size_t len, down = f->down.buf.len;

    if (!text)
        return true;
    const void *p = g_bytes_get_data(text, &len);
    bool fits = sm_buf_append(&f->down.buf, p, len);
    account(f, f->up.buf.len, down);
    return fits;
}

static void attach(struct sock_flow *f, uint32_t consumed, int *fd)
{
    size_t up = f->up.buf.len, down = f->down.buf.len;
    bool asked = f->base.state == SM_FRONT_ASKED;

    if (consumed > f->shown || (asked && !greet(f))) {
        /* The core writes upstream what it was shown and no more; if it says otherwise, bytes would be lost or sent twice. */
        abort_flow(f, SM_WHY_LIMIT);
        return;
    }
    if (asked)
        down = f->down.buf.len;
    sm_buf_consume(&f->up.buf, consumed);
    f->up.buf.max = SM_PIPES_BYTES; /* until now it was the bound of what is held */
    account(f, up, down);
    sm_front_set_state(&f->base, SM_FRONT_ATTACHED);
    f->base.front->stats.attached++;
    f->base.watch.fd = sm_steal_fd(fd);
    if (!watch_end(f, &f->base.watch)) {
        abort_flow(f, SM_WHY_LIMIT);
        return;
    }
    f->up_end.writable = true;
    f->up_end.readable = consumed > 0; /* a near server has answered by now what the core wrote to it */
    run_attached(f);
}

static void accept_flow(struct sock_flow *f)
{
    sm_front_set_state(&f->base, SM_FRONT_HELD);
    if (greet(f))
        sock_run(&f->base);
    else
        abort_flow(f, SM_WHY_LIMIT);
}

static void refuse(struct sock_flow *f, const struct sm_flow_msg *msg)
{
    bool asked = f->base.state == SM_FRONT_ASKED;
    int client = end_id(f);

    if (asked) {
        const struct sm_sock_hooks *hooks = f->hooks;
        f->hooks = NULL;
        turn_away(f->base.front, client, msg, hooks, f->data);
        return;
    }
    reset(&client);
    let_go(f);
}

static void sock_message(struct sm_front_flow *flow, const struct sm_flow_msg *msg, int *fd)
{
    struct sock_flow *f = as_sock(flow);

    switch (msg->type) {
    case SM_FLOW_REFUSE:
        refuse(f, msg);
        break;
    case SM_FLOW_ACCEPT:
        if (flow->state == SM_FRONT_ASKED)
            accept_flow(f);
        break;
    case SM_FLOW_ATTACH:
        if (flow->state == SM_FRONT_ASKED || (flow->state == SM_FRONT_HELD && !f->dialling))
            attach(f, msg->consumed, fd);
        break;
    case SM_FLOW_ABORT:
        if (flow->state == SM_FRONT_ATTACHED) { /* the core has a duplicate, and resets upstream when ours is closed */
            abort_flow(f, SM_WHY_UPSTREAM_RST);
        } else {
            sm_autofd client = end_id(f);
            reset(&client);
            let_go(f);
        }
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_INBOUND:
    case SM_FLOW_DATAGRAM:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_RELEASE:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        sm_front_fail(flow->front, "the core sent a message that only a front may send");
        break;
    }
}

static bool sock_holds(const struct sm_front_flow *flow)
{
    return kept(&((const struct sock_flow *)(const void *)flow)->up) > 0;
}

static bool sock_undelivered(const struct sm_front_flow *flow)
{
    const struct sock_flow *f = (const struct sock_flow *)(const void *)flow;

    switch (flow->state) {
    case SM_FRONT_HELD:
        return !f->dialling;
    case SM_FRONT_ATTACHED:
        return !f->up.passed;
    case SM_FRONT_ASKED: /* its client's bytes may be in the kernel, but nobody has let it speak */
    case SM_FRONT_CLOSING:
    case SM_FRONT_STATES:
        break;
    }
    return false;
}

static void sock_free(struct sm_front_flow *flow)
{
    flow->front->stats.tcp_now--;
    g_free(as_sock(flow));
}

static const struct sm_front_flow_ops flow_ops = {
    .message = sock_message,
    .run = sock_run,
    .end = sock_end,
    .holds = sock_holds,
    .undelivered = sock_undelivered,
    .free = sock_free,
};

/* ---- published ports ---- */

static void side_inbound(struct sm_front *front, const struct sm_flow_msg *msg, int *fd)
{
    struct sm_front_socks *s = front->socks;

    if (!s->dial || front->told || front->stats.tcp_now >= SM_FRONT_TCP_MAX || !sm_front_has_room(front)) {
        sm_front_tell(front, SM_FLOW_GONE, msg->id, SM_WHY_LIMIT);
        return;
    }
    struct sock_flow *f = flow_new(front);
    f->base.id = msg->id;
    f->base.nameless = true;
    f->base.state = SM_FRONT_HELD;
    f->base.watch.fd = sm_steal_fd(fd); /* watched when the guest's side is there */
    f->dialling = true;
    g_hash_table_insert(front->ids, &f->base.id, &f->base);
    if (!s->dial(msg->id, &msg->src, msg->guest_port, s->dial_data))
        abort_flow(f, SM_WHY_LIMIT);
}

void sm_sock_dialled(struct sm_front *front, uint64_t id, int fd)
{
    struct sm_front_flow *flow = g_hash_table_lookup(front->ids, &id);
    struct sock_flow *f = flow ? as_sock(flow) : NULL;

    if (!f || flow->ops != &flow_ops || !f->dialling) {
        reset(&fd);
        return;
    }
    f->dialling = false;
    f->up.buf.max = SM_PIPES_BYTES;
    if (fd < 0) {
        abort_flow(f, SM_WHY_GUEST_RST);
        return;
    }
    f->client.fd = fd;
    sm_front_set_state(flow, SM_FRONT_ATTACHED);
    front->stats.attached++;
    /* What is ready is told by the first edges; a connection that is still being made is neither. */
    if (!watch_end(f, &f->client) || !watch_end(f, &flow->watch))
        abort_flow(f, SM_WHY_LIMIT);
}

void sm_sock_on_inbound(struct sm_front *front,
                        bool (*dial)(uint64_t id, const struct sm_endpoint *src, uint16_t guest_port, void *data),
                        void *data)
{
    front->socks->dial = dial;
    front->socks->dial_data = data;
}

/* ---- listeners ---- */

static void on_listener(struct sm_watch *watch, uint32_t events)
{
    struct listener *l = sm_container_of(watch, struct listener, watch);
    struct sm_front *front = l->front;

    for (int i = 0; i < SM_SOCK_ACCEPT_BATCH && front->reading && may_open(front); i++) {
        struct sockaddr_storage peer, local;
        socklen_t peer_len = sizeof(peer), local_len = sizeof(local);
        struct sm_endpoint src, dst;
        sm_autofd fd = accept4(watch->fd, (struct sockaddr *)&peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            l->again_us = sm_loop_now(front->loop) + ACCEPT_RETRY_US;
            arm(front, l->again_us);
            break;
        }
        if (fd < 0 && errno == EAGAIN)
            break;
        if (fd < 0)
            continue; /* this client has gone already */
        if (getsockname(fd, (struct sockaddr *)&local, &local_len) < 0 || !sm_endpoint_from_sockaddr(&peer, &src) ||
            !sm_endpoint_from_sockaddr(&local, &dst)) {
            reset(&fd);
            continue;
        }
        l->client(sm_steal_fd(&fd), &src, &dst, l->data);
    }
}

void sm_sock_listen(struct sm_front *front, int fd,
                    void (*client)(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data),
                    void *data)
{
    struct listener *l = g_new0(struct listener, 1);

    l->front = front;
    l->client = client;
    l->data = data;
    sm_watch_init(&l->watch, fd, on_listener);
    g_ptr_array_add(front->socks->listeners, l);
    if (sm_loop_watch(front->loop, &l->watch, EPOLLIN) < 0)
        sm_front_fail(front, "a listening socket cannot be watched");
}

static void free_listener(void *p)
{
    struct listener *l = p;

    sm_loop_unwatch(l->front->loop, &l->watch);
    sm_fd_close(&l->watch.fd);
    g_free(l);
}

/* ---- the side ---- */

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front_socks *s = sm_container_of(timer, struct sm_front_socks, timer);

    while (s->lingering.head) {
        struct lingering *l = s->lingering.head->data;
        if (now_us < l->until_us) {
            sm_loop_arm(l->front->loop, timer, l->until_us);
            return;
        }
        linger_end(l);
    }
}

static void watch_source(struct sm_front *front)
{
    struct sm_watch *source = front->socks->source;

    if (source && !front->reading)
        sm_loop_unwatch(front->loop, source);
    else if (source && sm_loop_watch(front->loop, source, EPOLLIN) < 0)
        sm_front_fail(front, "the guest's datagrams cannot be watched");
}

static void side_turn_end(struct sm_front *front)
{
    struct sm_front_socks *s = front->socks;
    bool open = front->reading && may_open(front);
    int64_t now_us = sm_loop_now(front->loop);

    for (guint i = 0; i < s->listeners->len; i++) {
        struct listener *l = g_ptr_array_index(s->listeners, i);
        if (!open || now_us < l->again_us)
            sm_loop_unwatch(front->loop, &l->watch);
        else if (sm_loop_watch(front->loop, &l->watch, EPOLLIN) < 0)
            sm_front_fail(front, "a listening socket cannot be watched");
        if (open && now_us < l->again_us)
            arm(front, l->again_us);
    }
    watch_source(front);
}

static bool side_congested(const struct sm_front *front)
{
    return false;
}

static void side_nothing(struct sm_front *front)
{
}

static bool side_udp_push(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len)
{
    struct sm_front_socks *s = front->socks;
    return s->udp && s->udp->push(key, data, len, s->udp_data);
}

static bool side_udp_push_run(struct sm_front *front, const struct sm_hold_key *key, const struct sm_dgrams_run *run)
{
    struct sm_front_socks *s = front->socks;
    return s->udp && s->udp->push_run && s->udp->push_run(key, run, s->udp_data);
}

static void side_udp_refuse(struct sm_front *front, const struct sm_hold_key *key, enum sm_flow_how how)
{
    struct sm_front_socks *s = front->socks;
    if (s->udp)
        s->udp->refuse(key, how, s->udp_data);
}

/* The core learns of our end from the channel's; clients learn it by a RST. */
static void side_stop(struct sm_front *front)
{
    g_autoptr(GList) flows = g_hash_table_get_values(front->ids);

    for (GList *l = flows; l; l = l->next) {
        struct sm_front_flow *flow = l->data;
        if (flow->ops == &flow_ops)
            abort_flow(as_sock(flow), SM_WHY_CLOSED);
    }
}

static void side_free(struct sm_front *front)
{
    struct sm_front_socks *s = front->socks;

    while (s->lingering.head)
        linger_end(s->lingering.head->data);
    sm_loop_disarm(front->loop, &s->timer);
    g_ptr_array_unref(s->listeners);
    sm_pipes_free(&s->pipes);
    if (s->udp)
        s->udp->free(s->udp_data);
    g_free(s);
}

static const struct sm_front_side side = {
    .turn = side_nothing,
    .turn_end = side_turn_end,
    .congested = side_congested,
    .tick = side_nothing,
    .finish = side_nothing,
    .inbound = side_inbound,
    .udp_push = side_udp_push,
    .udp_push_run = side_udp_push_run,
    .udp_refuse = side_udp_refuse,
    .stop = side_stop,
    .free = side_free,
};

struct sm_front *sm_front_new_sock(struct sm_loop *loop, const struct sm_front_config *cfg, int channel_fd,
                                   void (*failed)(const char *text, void *data), void *data)
{
    struct sm_front *front = sm_front_new_hub(loop, cfg, &side, channel_fd, failed, data);
    struct sm_front_socks *s = g_new0(struct sm_front_socks, 1);

    front->socks = s;
    s->listeners = g_ptr_array_new_with_free_func(free_listener);
    g_queue_init(&s->lingering);
    sm_timer_init(&s->timer, on_timer);
    return front;
}

unsigned sm_sock_splice(struct sm_front *front)
{
    return sm_pipes_make(&front->socks->pipes);
}

void sm_sock_on_udp(struct sm_front *front, const struct sm_sock_udp *udp, void *data)
{
    front->socks->udp = udp;
    front->socks->udp_data = data;
}

void sm_sock_udp_input(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len)
{
    sm_front_udp_input(front, key, data, len);
}

void sm_sock_udp_flush(struct sm_front *front)
{
    sm_front_udp_flush(front);
}

bool sm_sock_reading(const struct sm_front *front)
{
    return front->reading && !front->dead;
}

void sm_sock_watch_source(struct sm_front *front, struct sm_watch *source)
{
    front->socks->source = source;
    watch_source(front); /* the first turn may be a long one */
}

void sm_sock_other(struct sm_front *front, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst)
{
    sm_front_other(front, kind, proto, dst);
}
