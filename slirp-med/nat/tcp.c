/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TCP flows of the front: libslirp's connection on one side, a descriptor of the core on the other.
 *
 * Upstream bytes are read straight into libslirp's send buffer (readv into slirp_flow_room), the guest's are written
 * straight from its receive buffer (writev of what tcp_data shows). Only what comes before ATTACH is kept by us
 * (`before`), as it was shown to the core: what the core says it has consumed is dropped from it, the rest goes first.
 * The descriptor is watched edge-triggered for input, since its readiness is remembered in `readable`, and for output
 * only while a write came up short; so a busy flow costs no epoll_ctl.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "nat/front_priv.h"

/* While a batch of frames is handled, fewer bytes than this wait in libslirp for the batch's end. Half of its smallest
 * receive buffer. */
#define WRITE_NOW (32u << 10)

struct tcp_flow {
    struct sm_front_flow base;
    SlirpFlow *conn;      /* NULL after tcp_closed */
    struct sm_buf before; /* guest bytes that came before ATTACH and are not written yet */
    uint32_t held;        /* guest bytes waiting in libslirp and in before, as last seen */
    uint32_t queued;      /* upstream bytes waiting in libslirp, as last seen */
    uint32_t send_size;
    bool readable; /* the descriptor may have bytes, an end or an error for us */
    bool eager;    /* a short read is not the last one: the peer has ended (RDHUP or worse), or an urgent mark cut it */
    bool blocked;  /* a write came up short: wait for EPOLLOUT */
    bool guest_eof;
    bool peer_eof;
};

static struct tcp_flow *as_tcp(struct sm_front_flow *flow)
{
    return (struct tcp_flow *)(void *)flow;
}

static void set_held(struct tcp_flow *t, size_t held)
{
    struct sm_front *front = t->base.front;
    front->stats.held_now += held - t->held;
    t->held = (uint32_t)held;
}

static void set_queued(struct tcp_flow *t, size_t queued)
{
    struct sm_front *front = t->base.front;
    front->stats.queued_now += queued - t->queued;
    t->queued = (uint32_t)queued;
}

static void end_id(struct tcp_flow *t)
{
    sm_front_unlist(&t->base);
    sm_front_close_fd(&t->base);
    sm_buf_clear(&t->before);
    sm_front_forget(&t->base);
    sm_front_set_state(&t->base, SM_FRONT_CLOSING);
}

/* The flow ends by our hand: descriptor first, then the core is told, then the guest gets its RST. */
static void abort_flow(struct tcp_flow *t, enum sm_flow_why why)
{
    if (t->base.state == SM_FRONT_CLOSING)
        return;
    uint64_t id = t->base.id;
    end_id(t);
    sm_front_tell(t->base.front, SM_FLOW_GONE, id, why);
    if (t->conn)
        slirp_flow_abort(t->conn);
}

static void tcp_end(struct sm_front_flow *flow, enum sm_flow_why why)
{
    abort_flow(as_tcp(flow), why);
}

/* Both directions have ended in order: nothing is left to do for the descriptor. libslirp delivers what it still holds
 * by itself. */
static void end_if_complete(struct tcp_flow *t)
{
    if (!t->guest_eof || !t->peer_eof || t->base.state != SM_FRONT_ATTACHED)
        return;
    uint64_t id = t->base.id;
    end_id(t);
    sm_front_tell(t->base.front, SM_FLOW_GONE, id, SM_WHY_CLOSED);
}

static void rewatch(struct tcp_flow *t)
{
    uint32_t events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET | (t->blocked ? EPOLLOUT : 0);
    if (sm_loop_watch(t->base.front->loop, &t->base.watch, events) < 0)
        abort_flow(t, SM_WHY_LIMIT);
}

/* ---- from the guest ---- */

static SlirpFlowVerdict verdict_of(enum sm_flow_how how)
{
    switch (how) {
    case SM_HOW_RST:
        return SLIRP_FLOW_RST;
    case SM_HOW_ICMP_ADMIN:
        return SLIRP_FLOW_UNREACH_ADMIN;
    case SM_HOW_ICMP_HOST:
        return SLIRP_FLOW_UNREACH_HOST;
    case SM_HOW_ICMP_NET:
        return SLIRP_FLOW_UNREACH_NET;
    case SM_HOW_ICMP_PORT:
        return SLIRP_FLOW_UNREACH_PORT;
    case SM_HOW_SILENT:
    case SM_HOWS:
        break;
    }
    return SLIRP_FLOW_DROP;
}

static const struct sm_front_flow_ops flow_ops;

static struct tcp_flow *flow_new(struct sm_front *front)
{
    struct tcp_flow *t = g_new0(struct tcp_flow, 1);
    t->base.front = front;
    t->base.ops = &flow_ops;
    t->base.proto = SM_FRONT_TCP;
    t->base.link.data = t->base.defer.data = t->base.grave.data = &t->base;
    sm_watch_init(&t->base.watch, -1, NULL);
    sm_buf_init(&t->before, SM_FLOW_HELD_MAX);
    front->stats.tcp_now++;
    return t;
}

static SlirpFlowVerdict on_open(const SlirpFlowAddr *addr, void **cookie, void *opaque)
{
    struct sm_front *front = opaque;
    struct sm_hold_key key = {.dst = ntohl(addr->peer.s_addr),
                              .dst_port = addr->peer_port,
                              .src_port = addr->guest_port,
                              .proto = SM_FLOW_TCP};
    enum sm_flow_how how;

    if (sm_front_held(front, &key, &how))
        return verdict_of(how);
    if (front->stats.tcp_now >= SM_FRONT_TCP_MAX || !sm_front_may_ask(front)) {
        front->stats.opens_dropped++;
        return SLIRP_FLOW_DROP;
    }
    struct tcp_flow *t = flow_new(front);
    t->base.key = key;
    if (!sm_front_ask(front, &t->base)) {
        sm_front_bury(&t->base);
        return SLIRP_FLOW_DROP;
    }
    *cookie = t;
    return SLIRP_FLOW_PENDING;
}

static void on_opened(SlirpFlow *conn, void *cookie, void *opaque)
{
    struct tcp_flow *t = cookie;
    t->conn = conn;
    t->send_size = (uint32_t)slirp_flow_room(conn, NULL);
}

/* Take what may be judged, and show it to the core. Returns how much was taken. */
static size_t keep_and_show(struct tcp_flow *t, const struct iovec *iov, int cnt)
{
    size_t taken = 0;

    for (int i = 0; i < cnt; i++) {
        const uint8_t *p = iov[i].iov_base;
        size_t left = SM_MIN(iov[i].iov_len, sm_buf_room(&t->before));
        if (left == 0 || !sm_buf_append(&t->before, p, left))
            break;
        taken += left;
        while (left > 0) {
            size_t n = SM_MIN(left, (size_t)SM_FLOW_DATA_MAX);
            struct sm_flow_msg m = {.type = SM_FLOW_BYTES, .id = t->base.id, .data = p, .data_len = n};
            (void)sm_channel_send(t->base.front->channel, &m, -1);
            p += n;
            left -= n;
        }
    }
    return taken;
}

static void want_write(struct tcp_flow *t)
{
    t->blocked = true;
    rewatch(t);
}

/* The guest has ended and all its bytes are with upstream. */
static void pass_eof(struct tcp_flow *t)
{
    (void)shutdown(t->base.watch.fd, SHUT_WR);
    end_if_complete(t);
}

/* Write what came before ATTACH. False while some of it is left, or when the flow has ended over it. */
static bool flush_before(struct tcp_flow *t)
{
    if (t->before.len == 0)
        return true;
    while (t->before.len > 0) {
        ssize_t n = write(t->base.watch.fd, sm_buf_peek(&t->before), t->before.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            want_write(t);
            return false;
        }
        if (n < 0) {
            abort_flow(t, SM_WHY_UPSTREAM_RST);
            return false;
        }
        sm_buf_consume(&t->before, (size_t)n);
        set_held(t, t->held - (size_t)n);
    }
    sm_buf_clear(&t->before);
    if (t->guest_eof)
        pass_eof(t);
    return t->base.state == SM_FRONT_ATTACHED;
}

static size_t on_data(void *cookie, const struct iovec *iov, int cnt, void *opaque)
{
    struct sm_front *front = opaque;
    struct tcp_flow *t = cookie;
    size_t all = 0, taken = 0;

    for (int i = 0; i < cnt; i++)
        all += iov[i].iov_len;
    switch (t->base.state) {
    case SM_FRONT_HELD:
        taken = keep_and_show(t, iov, cnt);
        break;
    case SM_FRONT_ATTACHED:
        if (t->blocked || t->before.len > 0 || all == 0)
            break;
        if (front->stack->in_batch && all < WRITE_NOW) {
            /* More of this flow may be in the batch: one large write is worth a copy, for us and for upstream's
             * segments. */
            sm_front_defer(&t->base);
            break;
        }
        ssize_t n;
        do {
            n = writev(t->base.watch.fd, iov, cnt);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EAGAIN && errno != ENOBUFS) {
            abort_flow(t, SM_WHY_UPSTREAM_RST);
            return all;
        }
        taken = n > 0 ? (size_t)n : 0;
        if (taken < all)
            want_write(t);
        break;
    case SM_FRONT_CLOSING:
        return all; /* nobody is left to read them */
    case SM_FRONT_ASKED:
    case SM_FRONT_STATES:
        break;
    }
    if (t->base.state == SM_FRONT_CLOSING)
        return all;
    set_held(t, t->before.len + all - taken);
    if (t->held > 0 && front->stats.held_now > SM_FRONT_HELD_TOTAL)
        abort_flow(t, SM_WHY_LIMIT);
    return taken;
}

static void on_eof(void *cookie, void *opaque)
{
    struct tcp_flow *t = cookie;

    t->guest_eof = true;
    if (t->base.state == SM_FRONT_HELD)
        sm_front_tell(t->base.front, SM_FLOW_EOF, t->base.id, SM_WHY_CLOSED);
    else if (t->base.state == SM_FRONT_ATTACHED && t->before.len == 0)
        pass_eof(t);
}

static enum sm_flow_why why_of(SlirpFlowEnd how)
{
    switch (how) {
    case SLIRP_FLOW_END_GUEST_RST:
    case SLIRP_FLOW_END_PROTOCOL:
        return SM_WHY_GUEST_RST;
    case SLIRP_FLOW_END_TIMEOUT:
        return SM_WHY_TIMEOUT;
    case SLIRP_FLOW_END_CLEAN:
    case SLIRP_FLOW_END_LOCAL:
    case SLIRP_FLOW_END_SHUTDOWN:
        break;
    }
    return SM_WHY_CLOSED;
}

static void on_closed(void *cookie, SlirpFlowEnd how, void *opaque)
{
    struct tcp_flow *t = cookie;

    t->conn = NULL;
    set_held(t, 0);
    set_queued(t, 0);
    if (t->base.state != SM_FRONT_CLOSING) {
        enum sm_flow_why why = t->base.state == SM_FRONT_ASKED ? SM_WHY_REFUSED : why_of(how);
        uint64_t id = t->base.id;
        end_id(t);
        sm_front_tell(t->base.front, SM_FLOW_GONE, id, why);
    }
    sm_front_bury(&t->base);
}

/* ---- from upstream ---- */

static void tcp_run(struct sm_front_flow *flow)
{
    struct tcp_flow *t = as_tcp(flow);
    struct sm_front *front = flow->front;

    if (flow->state != SM_FRONT_ATTACHED || !t->readable || t->peer_eof || !t->conn)
        return;
    if (sm_port_congested(front->stack->port)) {
        sm_front_stall(flow);
        return;
    }
    struct iovec iov[2];
    size_t room = slirp_flow_room(t->conn, iov);
    set_queued(t, t->send_size > room ? t->send_size - room : 0);
    if (room == 0)
        return; /* on_writable comes */
    if (front->stats.queued_now > SM_FRONT_QUEUED_TOTAL && t->queued >= SM_FRONT_QUEUED_LOW) {
        sm_front_stall(flow);
        return;
    }
    ssize_t n;
    do {
        n = readv(flow->watch.fd, iov, iov[1].iov_len > 0 ? 2 : 1);
    } while (n < 0 && errno == EINTR);
    int err = errno;
    if (n <= 0)
        slirp_flow_commit(t->conn, 0);
    if (n < 0 && err == EAGAIN) {
        t->readable = false;
        return;
    }
    if (n < 0) {
        abort_flow(t, SM_WHY_UPSTREAM_RST);
        return;
    }
    if (n == 0) {
        t->peer_eof = true;
        slirp_flow_eof(t->conn);
        if (!flow->dead)
            end_if_complete(t);
        return;
    }
    /* A short read from a stream took everything there was, and a later arrival is a new edge; an end that has come
     * already is not. */
    if ((size_t)n < room && !t->eager)
        t->readable = false;
    set_queued(t, t->queued + (size_t)n);
    slirp_flow_commit(t->conn, (size_t)n);
    /* One read a turn is this flow's share. A full buffer is continued by on_writable. */
    if (!flow->dead && t->readable && (size_t)n < room)
        sm_front_ready(flow);
}

static void on_writable(void *cookie, size_t room, void *opaque)
{
    struct tcp_flow *t = cookie;
    set_queued(t, t->send_size > room ? t->send_size - room : 0);
    if (t->base.state == SM_FRONT_ATTACHED && t->readable && !t->peer_eof)
        sm_front_ready(&t->base);
}

static void on_fd(struct sm_watch *watch, uint32_t events)
{
    struct sm_front_flow *flow = sm_container_of(watch, struct sm_front_flow, watch);
    struct tcp_flow *t = as_tcp(flow);

    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        t->eager = true;
    if (t->peer_eof && (events & EPOLLERR)) {
        /* Nothing is left to read that would tell us: upstream reset a half-closed connection. */
        abort_flow(t, SM_WHY_UPSTREAM_RST);
        return;
    }
    if (t->blocked && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
        t->blocked = false;
        rewatch(t);
        if (flow->state == SM_FRONT_ATTACHED && flush_before(t) && t->conn)
            slirp_flow_pull(t->conn);
        if (flow->dead || flow->state != SM_FRONT_ATTACHED)
            return;
    }
    if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        t->readable = true;
        tcp_run(flow);
    }
}

void sm_front_tcp_flush(struct sm_front_flow *flow)
{
    struct tcp_flow *t = as_tcp(flow);
    if (flow->state == SM_FRONT_ATTACHED && t->conn)
        slirp_flow_pull(t->conn);
}

/* ---- from the core ---- */

static void take_fd(struct tcp_flow *t, int *fd)
{
    sm_watch_init(&t->base.watch, sm_steal_fd(fd), on_fd);
    sm_front_set_state(&t->base, SM_FRONT_ATTACHED);
    t->base.front->stats.attached++;
    rewatch(t); /* and what is readable already is the first edge */
}

static void attach(struct tcp_flow *t, uint32_t consumed, int *fd)
{
    if (t->base.state == SM_FRONT_ASKED)
        slirp_flow_accept(t->conn);
    if (t->base.dead || t->base.state == SM_FRONT_CLOSING)
        return;
    if (consumed > t->before.len) {
        /* The core writes upstream what it was shown and no more; if it says otherwise, bytes would be lost or sent
         * twice. */
        abort_flow(t, SM_WHY_LIMIT);
        return;
    }
    sm_buf_consume(&t->before, consumed);
    set_held(t, t->held - consumed);
    take_fd(t, fd);
    if (t->base.state != SM_FRONT_ATTACHED)
        return;
    if (t->before.len == 0 && t->guest_eof)
        pass_eof(t); /* the FIN came with nothing left before it */
    else if (flush_before(t))
        slirp_flow_pull(t->conn);
    if (consumed > 0 && !t->base.dead) {
        t->readable = true; /* a near server has answered by now what the core wrote to it */
        tcp_run(&t->base);
    }
}

static void tcp_message(struct sm_front_flow *flow, const struct sm_flow_msg *msg, int *fd)
{
    struct tcp_flow *t = as_tcp(flow);
    struct sm_front *front = flow->front;

    switch (msg->type) {
    case SM_FLOW_REFUSE:
        if (flow->state == SM_FRONT_ASKED) {
            end_id(t);
            slirp_flow_refuse(t->conn, verdict_of(msg->how));
        } else {
            end_id(t);
            slirp_flow_abort(t->conn);
        }
        break;
    case SM_FLOW_ACCEPT:
        if (flow->state == SM_FRONT_ASKED) {
            sm_front_set_state(flow, SM_FRONT_HELD);
            slirp_flow_accept(t->conn);
        }
        break;
    case SM_FLOW_ATTACH:
        if (flow->state != SM_FRONT_ATTACHED)
            attach(t, msg->consumed, fd);
        break;
    case SM_FLOW_ABORT:
        if (flow->state == SM_FRONT_ATTACHED) { /* the core has a duplicate, and resets upstream when ours is closed */
            abort_flow(t, SM_WHY_UPSTREAM_RST);
            break;
        }
        end_id(t);
        slirp_flow_abort(t->conn);
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
        sm_front_fail(front, "the core sent a message that only a front may send");
        break;
    }
}

void sm_front_tcp_inbound(struct sm_front *front, const struct sm_flow_msg *msg, int *fd)
{
    SlirpFlowAddr addr = {.guest = sm_front_in(front->cfg.net.link.guest),
                          .peer = sm_addr_to_in(&msg->src.addr),
                          .guest_port = msg->guest_port,
                          .peer_port = msg->src.port};

    if (msg->src.addr.family != SM_FAMILY_V4 || front->stats.tcp_now >= SM_FRONT_TCP_MAX || !sm_front_has_room(front)) {
        sm_front_tell(front, SM_FLOW_GONE, msg->id, SM_WHY_LIMIT);
        return;
    }
    struct tcp_flow *t = flow_new(front);
    t->base.id = msg->id;
    t->base.key = (struct sm_hold_key){.dst = sm_addr_to_u32(&msg->src.addr),
                                       .dst_port = msg->src.port,
                                       .src_port = msg->guest_port,
                                       .proto = SM_FLOW_TCP};
    /* Attached once the descriptor is in: libslirp may call back from inside connect. */
    t->base.state = SM_FRONT_HELD;
    g_hash_table_insert(front->ids, &t->base.id, &t->base);
    t->conn = slirp_flow_connect(front->stack->slirp, &addr, t);
    if (t->base.dead)
        return; /* ended in there, and the core was told */
    if (!t->conn) {
        end_id(t);
        sm_front_bury(&t->base);
        sm_front_tell(front, SM_FLOW_GONE, msg->id, SM_WHY_LIMIT);
        return;
    }
    t->send_size = (uint32_t)slirp_flow_room(t->conn, NULL);
    take_fd(t, fd);
}

static bool tcp_holds(const struct sm_front_flow *flow)
{
    const struct tcp_flow *t = (const struct tcp_flow *)(const void *)flow;
    return t->held > 0 || t->before.len > 0;
}

static bool tcp_undelivered(const struct sm_front_flow *flow)
{
    const struct tcp_flow *t = (const struct tcp_flow *)(const void *)flow;

    switch (flow->state) {
    case SM_FRONT_HELD:
        return true;
    case SM_FRONT_ATTACHED: /* libslirp shows the FIN when it has no byte before it */
        return !t->guest_eof || t->before.len > 0;
    case SM_FRONT_ASKED: /* the guest did not wait for its handshake */
    case SM_FRONT_CLOSING:
    case SM_FRONT_STATES:
        break;
    }
    return false;
}

static void tcp_free(struct sm_front_flow *flow)
{
    struct tcp_flow *t = as_tcp(flow);
    sm_buf_clear(&t->before);
    flow->front->stats.tcp_now--;
    g_free(t);
}

static const struct sm_front_flow_ops flow_ops = {
    .message = tcp_message,
    .run = tcp_run,
    .end = tcp_end,
    .holds = tcp_holds,
    .undelivered = tcp_undelivered,
    .free = tcp_free,
};

const struct sm_front_tcp_ops sm_front_tcp = {
    .open = on_open,
    .opened = on_opened,
    .data = on_data,
    .eof = on_eof,
    .writable = on_writable,
    .closed = on_closed,
};
