/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vsock flows of the front: a stream of the engine (vsock.h) on one side, a descriptor of the core on the other, and the port that carries
 * the packets.
 *
 * The core is asked for each connection (OPEN, proto vsock) and says REFUSE (RST) or ATTACH; there is no ACCEPT, since nothing of what the
 * guest says is judged. The descriptor is one end of a socket pair. Nothing that is given to the port may be lost, so while its queue is half
 * full neither packets of the guest nor descriptors are read; the engine's own words fit into the other half.
 *
 * A guest whose driver begins anew, or a VMM that leaves and comes again, has forgotten its streams: all of them end then.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "nat/front_priv.h"
#include "nat/vsock.h"

/** Packets of one read(): 0.5 MiB of buffers, touched as far as they are used. */
#define BATCH 8
/** Bytes moved from one descriptor in a turn: fairness between flows. */
#define TURN_BYTES (64u << 10)

struct vsock_flow {
    struct sm_front_flow base;
    struct sm_vsock_stream *stream; /* NULL when the engine has let go of it */
    bool blocked;                   /* a write came up short: wait for EPOLLOUT */
    bool peer_eof;
};

struct sm_front_vsock {
    struct sm_front *front;
    struct sm_port *port;
    uint64_t faults_told; /* of port->faults */
    struct sm_vsock *engine;
    bool connected; /* as it was when we looked last */
    uint64_t connections, epochs;
    uint8_t *buf;
    struct sm_frame frames[BATCH];
};

static struct vsock_flow *as_vsock(struct sm_front_flow *flow)
{
    return (struct vsock_flow *)(void *)flow;
}

/* The id dies; the core hears why, unless it said so itself. */
static void end_id(struct vsock_flow *f)
{
    sm_front_unlist(&f->base);
    sm_front_close_fd(&f->base);
    sm_front_forget(&f->base);
    sm_front_set_state(&f->base, SM_FRONT_CLOSING);
    sm_front_bury(&f->base);
}

static void end_flow(struct vsock_flow *f, enum sm_flow_why why)
{
    uint64_t id = f->base.id;

    if (f->base.state == SM_FRONT_CLOSING)
        return;
    end_id(f);
    sm_front_tell(f->base.front, SM_FLOW_GONE, id, why);
}

static void abort_stream(struct vsock_flow *f)
{
    struct sm_vsock_stream *s = f->stream;

    f->stream = NULL;
    if (s)
        sm_vsock_abort(s);
}

static void abort_flow(struct vsock_flow *f, enum sm_flow_why why)
{
    abort_stream(f);
    end_flow(f, why);
}

static void rewatch(struct vsock_flow *f)
{
    bool in = !f->peer_eof && !f->base.waiting && f->stream && sm_vsock_room(f->stream) > 0;
    uint32_t events = (in ? EPOLLIN : 0u) | (f->blocked ? EPOLLOUT : 0u);

    if (f->base.state != SM_FRONT_ATTACHED)
        return;
    /* Its end would be told for ever to one who does not read it now. */
    if (events == 0)
        sm_loop_unwatch(f->base.front->loop, &f->base.watch);
    else if (sm_loop_watch(f->base.front->loop, &f->base.watch, events) < 0)
        abort_flow(f, SM_WHY_LIMIT);
}

/* ---- from the guest ---- */

static void on_emit(const struct iovec *iov, unsigned n_iov, void *data)
{
    struct sm_front_vsock *v = data;
    struct sm_frame_out out = {.iov = iov, .n_iov = n_iov};

    if (sm_port_send(v->port, &out) < 0)
        sm_front_fail(v->front, "the guest's vsock device is gone");
}

static const struct sm_front_flow_ops flow_ops;

static void *on_open(struct sm_vsock_stream *s, uint32_t guest_port, uint32_t host_port, void *data)
{
    struct sm_front_vsock *v = data;
    struct sm_front *front = v->front;

    if (front->told || !sm_front_may_ask(front)) {
        front->stats.opens_dropped++;
        return NULL;
    }
    struct vsock_flow *f = g_new0(struct vsock_flow, 1);
    f->base.front = front;
    f->base.ops = &flow_ops;
    f->base.nameless = true;
    f->base.proto = SM_FRONT_VSOCK;
    f->base.link.data = f->base.defer.data = f->base.grave.data = &f->base;
    f->stream = s;
    sm_watch_init(&f->base.watch, -1, NULL);
    front->stats.vsock_now++;
    struct sm_flow_msg m = {
        .type = SM_FLOW_OPEN, .proto = SM_FLOW_VSOCK, .vsock_src = guest_port, .vsock_dst = host_port};
    if (!sm_front_ask_with(front, &f->base, &m)) {
        sm_front_bury(&f->base);
        return NULL;
    }
    return f;
}

static size_t on_bytes(void *cookie, const uint8_t *p, size_t len, void *data)
{
    struct vsock_flow *f = cookie;
    ssize_t n;

    if (f->base.state == SM_FRONT_CLOSING)
        return len; /* nobody is left to read them */
    if (f->base.state != SM_FRONT_ATTACHED || f->blocked)
        return 0;
    do {
        n = write(f->base.watch.fd, p, len);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS) {
        abort_flow(f, SM_WHY_UPSTREAM_RST);
        return len;
    }
    if (n < (ssize_t)len) {
        f->blocked = true;
        rewatch(f);
    }
    return f->base.state == SM_FRONT_ATTACHED ? (size_t)SM_MAX(n, (ssize_t)0) : len;
}

static void on_eof(void *cookie, void *data)
{
    struct vsock_flow *f = cookie;

    if (f->base.state == SM_FRONT_ATTACHED)
        (void)shutdown(f->base.watch.fd, SHUT_WR);
}

static void on_writable(void *cookie, void *data)
{
    struct vsock_flow *f = cookie;

    if (f->base.state == SM_FRONT_ATTACHED)
        sm_front_ready(&f->base);
}

static void on_closed(void *cookie, enum sm_vsock_end how, void *data)
{
    struct vsock_flow *f = cookie;

    f->stream = NULL;
    if (f->base.state == SM_FRONT_ASKED)
        end_flow(f, SM_WHY_REFUSED);
    else
        end_flow(f, how == SM_VSOCK_END_CLEAN ? SM_WHY_CLOSED : SM_WHY_GUEST_RST);
}

static const struct sm_vsock_ops engine_ops = {
    .emit = on_emit, .open = on_open, .bytes = on_bytes, .eof = on_eof, .writable = on_writable, .closed = on_closed};

/* ---- from upstream ---- */

static void vsock_run(struct sm_front_flow *flow)
{
    struct vsock_flow *f = as_vsock(flow);
    struct sm_front *front = flow->front;
    uint8_t buf[SM_VSOCK_PAYLOAD_OUT_MAX];

    for (size_t moved = 0; flow->state == SM_FRONT_ATTACHED && !f->peer_eof && f->stream;) {
        size_t room = sm_vsock_room(f->stream);
        if (sm_port_congested(front->vsock->port)) {
            sm_front_stall(flow);
            break;
        }
        if (room == 0) {
            sm_vsock_want(f->stream);
            break;
        }
        if (moved >= TURN_BYTES) {
            sm_front_ready(flow);
            break;
        }
        ssize_t n = read(flow->watch.fd, buf, SM_MIN(room, sizeof(buf)));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            abort_flow(f, SM_WHY_UPSTREAM_RST);
            return;
        }
        if (n == 0) {
            f->peer_eof = true;
            sm_vsock_end(f->stream); /* it may be over with that */
            break;
        }
        size_t sent = sm_vsock_write(f->stream, buf, (size_t)n);
        g_assert(sent == (size_t)n);
        moved += sent;
    }
    rewatch(f);
}

static void on_fd(struct sm_watch *watch, uint32_t events)
{
    struct vsock_flow *f = sm_container_of(watch, struct vsock_flow, base.watch);

    if (f->blocked && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        f->blocked = false;
        if (f->stream)
            sm_vsock_flush(f->stream);
    }
    if (f->base.state == SM_FRONT_ATTACHED && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        vsock_run(&f->base);
    else
        rewatch(f);
}

/* ---- from the core ---- */

static void attach(struct vsock_flow *f, int *fd)
{
    sm_front_set_state(&f->base, SM_FRONT_ATTACHED);
    f->base.front->stats.attached++;
    sm_watch_init(&f->base.watch, sm_steal_fd(fd), on_fd);
    sm_vsock_accept(f->stream);
    vsock_run(&f->base);
}

static void vsock_message(struct sm_front_flow *flow, const struct sm_flow_msg *msg, int *fd)
{
    struct vsock_flow *f = as_vsock(flow);
    bool asked = flow->state == SM_FRONT_ASKED;

    if (msg->type == SM_FLOW_ATTACH && asked) {
        attach(f, fd);
    } else if (msg->type == SM_FLOW_ABORT || (msg->type == SM_FLOW_REFUSE && asked)) {
        abort_stream(f);
        end_id(f);
    }
}

static bool vsock_undelivered(const struct sm_front_flow *flow)
{
    const struct vsock_flow *f = (const struct vsock_flow *)(const void *)flow;

    return f->stream && sm_vsock_kept(f->stream) > 0;
}

static void vsock_free(struct sm_front_flow *flow)
{
    flow->front->stats.vsock_now--;
    g_free(flow);
}

static const struct sm_front_flow_ops flow_ops = {
    .message = vsock_message, .run = vsock_run, .undelivered = vsock_undelivered, .free = vsock_free};

/* ---- the port ---- */

/* Has the guest's side been another one in the meantime? */
static void look_who_is_there(struct sm_front_vsock *v)
{
    if (v->connected == v->port->connected && v->connections == v->port->connections && v->epochs == v->port->epochs)
        return;
    v->epochs = v->port->epochs;
    v->connected = v->port->connected;
    v->connections = v->port->connections;
    sm_vsock_reset(v->engine);
}

static bool may_read(const struct sm_front_vsock *v)
{
    return v->front->reading && !v->front->dead && !sm_port_congested(v->port);
}

static void read_packets(struct sm_front_vsock *v)
{
    struct sm_front *front = v->front;

    if (!may_read(v))
        return;
    int n = sm_port_read(v->port, v->frames, BATCH);
    if (n < 0) {
        sm_front_fail(front, "the guest's vsock device is gone");
        return;
    }
    for (int i = 0; i < n && !front->dead; i++) {
        look_who_is_there(v);
        /* What did not fit is cut and its length no longer says so: the engine refuses what is over the maximum. */
        sm_vsock_input(v->engine, v->frames[i].data, SM_MIN(v->frames[i].len, v->frames[i].cap));
    }
    look_who_is_there(v);
}

static void on_port(void *data, unsigned ready)
{
    struct sm_front_vsock *v = data;
    struct sm_front *front = v->front;

    look_who_is_there(v);
    if ((ready & SM_PORT_WRITABLE) && sm_port_waiting(v->port) && sm_port_flush(v->port) < 0) {
        sm_front_fail(front, "the guest's vsock device is gone");
        return;
    }
    if (ready & SM_PORT_READABLE)
        read_packets(v);
}

void sm_front_vsock_turn(struct sm_front *front)
{
    struct sm_front_vsock *v = front->vsock;

    if (!v || front->dead)
        return;
    look_who_is_there(v);
    sm_front_tell_faults(front, v->port, &v->faults_told);
    unsigned want = (may_read(v) ? SM_PORT_READABLE : 0u) | (sm_port_waiting(v->port) ? SM_PORT_WRITABLE : 0u);
    if (sm_port_want(v->port, want) < 0)
        sm_front_fail(front, "the guest's vsock device cannot be watched");
}

void sm_front_add_vsock(struct sm_front *front, struct sm_port *port, uint32_t guest_cid)
{
    struct sm_front_vsock *v = g_new0(struct sm_front_vsock, 1);
    size_t cap = SM_VSOCK_PACKET_MAX + 1;

    g_assert(!front->vsock && port->max_frame <= SM_VSOCK_PACKET_MAX);
    v->front = front;
    v->port = port;
    v->connected = port->connected;
    v->connections = port->connections;
    v->epochs = port->epochs;
    v->engine = sm_vsock_new(guest_cid, &engine_ops, v);
    v->buf = g_malloc(cap * BATCH);
    for (size_t i = 0; i < BATCH; i++)
        v->frames[i] = (struct sm_frame){.data = v->buf + i * cap, .cap = cap};
    front->vsock = v;
    sm_port_start(port, front->loop, on_port, v);
    sm_front_vsock_turn(front);
}

void sm_front_vsock_stats(const struct sm_front *front, struct sm_vsock_stats *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (front->vsock)
        sm_vsock_stats(front->vsock->engine, ret);
}

void sm_front_vsock_free(struct sm_front *front)
{
    struct sm_front_vsock *v = front->vsock;

    if (!v)
        return;
    sm_vsock_free(v->engine);
    sm_port_free(v->port);
    g_free(v->buf);
    g_free(v);
    front->vsock = NULL;
}
