/* SPDX-License-Identifier: BSD-3-Clause */
/* The host's vsock ports; see vsock.h. */
#include "core/vsock.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

/** Bytes moved one way in a turn for one connection: fairness between them. */
#define TURN_BYTES (256u << 10)
/** What one read takes. */
#define READ_BYTES (32u << 10)
/** What a guest may say to the certificate's port before it is shown out: it has nothing to say there. */
#define CA_SINK_MAX 4096
/** Bytes of the serial port's that are looked at in a turn. */
#define SERIAL_TURN 256

/** Why there is no connection; also in the record. */
enum refusal { REFUSAL_NONE, REFUSAL_NOT_LISTED, REFUSAL_NO_CA, REFUSAL_TOO_MANY, REFUSAL_RESOURCES, REFUSALS };
static const char *const refusal_names[] = {
    [REFUSAL_NONE] = "none",         [REFUSAL_NOT_LISTED] = "not_listed",      [REFUSAL_NO_CA] = "no_ca",
    [REFUSAL_TOO_MANY] = "too_many", [REFUSAL_RESOURCES] = "out_of_resources",
};
SM_NAME_TABLE_COVERS(refusal_names, REFUSALS);

/** One way through a pipe. */
struct way {
    struct sm_buf buf;
    uint64_t bytes; /* that reached the other side */
    bool eof;       /* the source has ended */
    bool shut;      /* and the other side was told */
};

struct pipe {
    struct sm_core *core;
    GList link;
    uint64_t id; /* the flow's; 0: it came over the link */
    uint64_t conn;
    uint32_t guest_port, port;
    const struct sm_mediation_target *target; /* NULL: the certificate */
    struct target_state *state;
    struct sm_watch guest, upstream;
    int give_fd; /* goes with ATTACH */
    bool attach_waiting;
    GList attach_link;
    bool connected;  /* upstream is; a certificate's pipe is from the start */
    bool guest_gone; /* nobody is there to read */
    bool gone;       /* the front has said how it ended: in order, or we would not be here */
    unsigned next_addr;
    struct way up, down;
    int64_t opened_us;
    struct sm_timer timer;
};

/** A target's first try, and what its last one said. */
struct target_state {
    struct sm_core *core;
    const struct sm_mediation_target *target;
    struct sm_watch probe;
    struct sm_timer timer;
    unsigned next_addr;
    bool probing, ready;
    unsigned now; /* connections */
};

struct serial {
    struct sm_core *core;
    struct sm_watch watch;
    char line[SM_CORE_SERIAL_LINE_MAX];
    size_t len;
    bool too_long;
    struct sm_buf out;
};

struct sm_core_vsock {
    void (*done)(struct sm_core *core, const GError *error);
    struct target_state *states; /* one a target */
    unsigned probing;            /* required ones that have not answered yet */
    GQueue pipes;                /* of struct pipe */
    GHashTable *ids;             /* those with an id */
    GQueue attach_wait;
    unsigned mediations, certificates;
    uint64_t last_conn;
    struct serial serial;
};

/* ---- the record ---- */

static void line(struct sm_audit_record *r, enum sm_audit_event event, const struct pipe *p, const char *reason)
{
    sm_audit_begin(r, event, sm_clock_wall_us());
    if (p->id)
        sm_audit_add_uint(r, "flow", p->id);
    if (p->conn)
        sm_audit_add_uint(r, "conn", p->conn);
    sm_audit_add_str(r, "via", p->id ? "vsock" : "unix");
    if (p->id)
        sm_audit_add_uint(r, "guest_port", p->guest_port);
    sm_audit_add_uint(r, "vsock_port", p->port);
    if (p->target)
        sm_audit_add_str(r, "target", p->target->text);
    sm_audit_add_str(r, "reason", reason);
}

/* What a guest can have by the thousand is counted: one line a second. False: it cannot be recorded. */
static bool record_counted(struct sm_core *core, struct sm_audit_record *r, const char *reason, uint32_t port)
{
    struct sm_audit_repeat_key key = {
        .proto = SM_FLOW_VSOCK, .reason = reason, .name = &port, .name_len = sizeof(port)};

    return core->config->mode == SM_MODE_OFF ||
           sm_audit_repeats_deny(core->repeats, core->audit, &key, r, 1, sm_loop_now(core->loop));
}

/* The certificate is about to leave. */
static bool record_ca(struct sm_core *core, struct sm_audit_record *r, uint32_t port)
{
    if (core->config->mode == SM_MODE_OFF)
        return true;
    return sm_audit_healthy(core->audit) && record_counted(core, r, "ca_delivered", port) && sm_core_commit_now(core);
}

/* ---- a pipe's end ---- */

static void pipe_free(struct pipe *p)
{
    struct sm_core_vsock *v = p->core->vsock;

    if (p->attach_waiting)
        g_queue_unlink(&v->attach_wait, &p->attach_link);
    if (p->target) {
        v->mediations--;
        p->state->now--;
    } else {
        v->certificates--;
    }
    if (p->id)
        (void)g_hash_table_remove(v->ids, &p->id);
    g_queue_unlink(&v->pipes, &p->link);
    sm_loop_disarm(p->core->loop, &p->timer);
    sm_loop_unwatch(p->core->loop, &p->guest);
    sm_loop_unwatch(p->core->loop, &p->upstream);
    sm_fd_close(&p->guest.fd);
    sm_fd_close(&p->upstream.fd);
    sm_fd_close(&p->give_fd);
    sm_buf_clear(&p->up.buf);
    sm_buf_clear(&p->down.buf);
    g_free(p);
}

static void drop_upstream(struct pipe *p, bool reset)
{
    struct linger now = {.l_onoff = 1};

    if (p->upstream.fd < 0)
        return;
    sm_loop_unwatch(p->core->loop, &p->upstream);
    if (reset)
        (void)setsockopt(p->upstream.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sm_fd_close(&p->upstream.fd);
}

/* Tell the front, unless it has told us. */
static void tell(struct pipe *p, enum sm_flow_type type)
{
    struct sm_flow_msg m = {.type = type, .id = p->id, .how = SM_HOW_RST};

    if (p->id)
        (void)sm_channel_send(p->core->channel, &m, -1);
}

static void finish(struct pipe *p, const char *reason)
{
    struct sm_audit_record r;

    if (p->target && p->conn) {
        line(&r, SM_AUDIT_MEDIATION_CLOSE, p, reason);
        sm_audit_add_uint(&r, "bytes_up", p->up.bytes);
        sm_audit_add_uint(&r, "bytes_down", p->down.bytes);
        sm_audit_add_int(&r, "duration_ms", (sm_loop_now(p->core->loop) - p->opened_us) / 1000);
        sm_core_note(p->core, &r);
    }
    pipe_free(p);
}

/* It fails in the middle: both sides hear of it as of a reset, where they can. */
static void fail(struct pipe *p, const char *reason)
{
    drop_upstream(p, true);
    tell(p, SM_FLOW_ABORT);
    finish(p, reason);
}

/* ---- moving bytes ---- */

enum moved { MOVED, MOVED_SOURCE_FAILED, MOVED_SINK_FAILED };

/* One direction, as far as it goes now. sink -1: what comes is thrown away, and counted as if it had gone there. */
static enum moved move(struct way *w, int source, int sink)
{
    for (size_t moved = 0; moved < TURN_BYTES;) {
        ssize_t got = 0, put = 0;
        if (!w->eof && sm_buf_room(&w->buf) >= READ_BYTES) {
            uint8_t *at = sm_buf_reserve(&w->buf, READ_BYTES);
            got = recv(source, at, READ_BYTES, MSG_DONTWAIT);
            if (got == 0)
                w->eof = true;
            else if (got > 0)
                sm_buf_commit(&w->buf, (size_t)got);
            else if (errno != EAGAIN && errno != EINTR)
                return MOVED_SOURCE_FAILED;
        }
        if (sink < 0) {
            w->bytes += w->buf.len;
            sm_buf_clear(&w->buf);
        } else if (w->buf.len > 0) {
            put = send(sink, sm_buf_peek(&w->buf), w->buf.len, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (put > 0) {
                sm_buf_consume(&w->buf, (size_t)put);
                w->bytes += (uint64_t)put;
                moved += (size_t)put;
            } else if (put < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
                return MOVED_SINK_FAILED;
            }
        }
        if (got <= 0 && put <= 0)
            break;
        if (sink < 0)
            moved += (size_t)SM_MAX(got, (ssize_t)0);
    }
    if (w->buf.len == 0 && w->buf.data)
        sm_buf_clear(&w->buf);
    return MOVED;
}

/* All that the source said has arrived, and its end is passed on. */
static void pass_end(struct way *w, int sink)
{
    if (!w->eof || w->buf.len > 0 || w->shut)
        return;
    w->shut = true;
    if (sink >= 0)
        (void)shutdown(sink, SHUT_WR);
}

static bool wants_read(const struct way *w)
{
    return !w->eof && sm_buf_room(&w->buf) >= READ_BYTES;
}

static void rewatch(struct pipe *p)
{
    uint32_t guest = (wants_read(&p->up) ? EPOLLIN : 0u) | (p->down.buf.len > 0 && !p->guest_gone ? EPOLLOUT : 0u);
    uint32_t upstream = (wants_read(&p->down) ? EPOLLIN : 0u) | (p->up.buf.len > 0 ? EPOLLOUT : 0u);
    struct sm_loop *loop = p->core->loop;
    bool ok = true;

    /* Without events the end of both directions is still told; once it was, it would be told for ever. */
    if (p->guest_gone && !wants_read(&p->up))
        sm_loop_unwatch(loop, &p->guest);
    else
        ok = sm_loop_watch(loop, &p->guest, guest) == 0;
    if (p->upstream.fd >= 0 && p->up.shut && upstream == 0)
        sm_loop_unwatch(loop, &p->upstream);
    else if (ok && p->upstream.fd >= 0)
        ok = sm_loop_watch(loop, &p->upstream, upstream) == 0;
    if (!ok)
        fail(p, "out_of_resources");
}

static void on_gone_timer(struct sm_timer *timer, int64_t now_us);

/*
 * The front has closed its end. Was it the guest's close, or its RST? A pair tells them not apart: so the target hears of it when GONE has come.
 * A front that does not say it is not waited for.
 */
static bool awaits_word(struct pipe *p, bool eof_is_new)
{
    /* Is the other direction gone too? Then sending fails, even nothing. */
    if (p->id && eof_is_new && send(p->guest.fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        p->guest_gone = true;
    if (!p->id || !p->target || !p->guest_gone || p->gone)
        return false;
    if (!sm_timer_armed(&p->timer)) {
        sm_timer_init(&p->timer, on_gone_timer);
        sm_loop_arm(p->core->loop, &p->timer, sm_loop_now(p->core->loop) + SM_CORE_END_WAIT_US);
    }
    return true;
}

static void pump(struct pipe *p)
{
    bool had_ended = p->up.eof;

    if (!p->connected)
        return;
    switch (move(&p->up, p->guest.fd, p->upstream.fd)) {
    case MOVED:
        break;
    case MOVED_SOURCE_FAILED: /* it left without reading all that it was sent; a reset would have come as GONE */
        p->up.eof = p->guest_gone = true;
        pump(p);
        return;
    case MOVED_SINK_FAILED:
        fail(p, "target_reset");
        return;
    }
    bool waits = awaits_word(p, p->up.eof && !had_ended);
    if (!waits)
        pass_end(&p->up, p->upstream.fd);
    if (p->guest_gone) {
        p->down.eof = p->down.shut = true;
        sm_buf_clear(&p->down.buf);
    } else {
        switch (move(&p->down, p->upstream.fd, p->guest.fd)) {
        case MOVED:
            break;
        case MOVED_SOURCE_FAILED:
            fail(p, "target_reset");
            return;
        case MOVED_SINK_FAILED:
            p->guest_gone = true; /* it does not read any more; what it said still goes up */
            pump(p);
            return;
        }
        pass_end(&p->down, p->guest.fd);
    }
    if (p->up.shut && p->down.shut && !waits)
        finish(p, "closed");
    else if (!p->target && p->up.bytes > CA_SINK_MAX)
        fail(p, "talkative");
    else
        rewatch(p);
}

static void on_guest(struct sm_watch *watch, uint32_t events)
{
    struct pipe *p = sm_container_of(watch, struct pipe, guest);

    if (events & (EPOLLHUP | EPOLLERR))
        p->guest_gone = true;
    pump(p);
}

static void on_gone_timer(struct sm_timer *timer, int64_t now_us)
{
    struct pipe *p = sm_container_of(timer, struct pipe, timer);

    (void)now_us;
    p->gone = true;
    pump(p);
}

static void on_upstream(struct sm_watch *watch, uint32_t events)
{
    struct pipe *p = sm_container_of(watch, struct pipe, upstream);

    /* Nothing is wanted of it, and yet it has something to say: a reset, since its ordered end is not watched for (rewatch()). */
    if ((events & (EPOLLERR | EPOLLHUP)) && !wants_read(&p->down) && p->up.buf.len == 0)
        fail(p, "target_reset");
    else
        pump(p);
}

/* ---- handing over ---- */

static void attach(struct pipe *p)
{
    struct sm_core *core = p->core;
    struct sm_flow_msg m = {.type = SM_FLOW_ATTACH, .id = p->id};

    if (core->attach_inflight >= SM_FLOW_ATTACH_MAX) {
        p->attach_waiting = true;
        p->attach_link.data = p;
        g_queue_push_tail_link(&core->vsock->attach_wait, &p->attach_link);
        return;
    }
    core->attach_inflight++;
    if (sm_channel_send(core->channel, &m, p->give_fd))
        p->give_fd = -1;
    else
        sm_fd_close(&p->give_fd); /* the channel is dead: main.c ends the workspace */
}

void sm_core_vsock_attached(struct sm_core *core)
{
    GQueue *waiting = core->vsock ? &core->vsock->attach_wait : NULL;

    while (waiting && waiting->head && core->attach_inflight < SM_FLOW_ATTACH_MAX) {
        struct pipe *p = waiting->head->data;
        g_queue_unlink(waiting, &p->attach_link);
        p->attach_waiting = false;
        attach(p);
    }
}

/* Both ends are there: the guest's connect(2) returns, and bytes move. */
static void established(struct pipe *p)
{
    p->connected = true;
    if (p->id)
        attach(p);
    pump(p);
}

/* ---- dialling ---- */

static const char *dial_error(int err)
{
    switch (err) {
    case ECONNREFUSED:
        return "refused";
    case ETIMEDOUT:
        return "timed_out";
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
        return "unreachable";
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EADDRNOTAVAIL:
        return "out_of_resources";
    case ENOENT: /* no address: the name was not resolved at the start */
        return "unresolved";
    default:
        return "failed";
    }
}

/* A socket that connects, or -1 with errno. */
static int connecting(const struct sm_endpoint *to)
{
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(to, &ss);
    int on = 1;
    sm_autofd fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)); /* a target that vanished is noticed some day */
    if (connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS)
        return -1;
    return sm_steal_fd(&fd);
}

static int connect_result(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
}

static void on_connected(struct sm_watch *watch, uint32_t events);
static void on_dial_timer(struct sm_timer *timer, int64_t now_us);

/* The next address. The last one's error is the answer. */
static void dial(struct pipe *p, int err)
{
    struct sm_audit_record r;

    while (p->next_addr < p->target->n_addrs) {
        int fd = connecting(&p->target->addrs[p->next_addr++]);
        if (fd < 0) {
            err = errno;
            continue;
        }
        sm_watch_init(&p->upstream, fd, on_connected);
        if (sm_loop_watch(p->core->loop, &p->upstream, EPOLLOUT) < 0) {
            err = errno;
            sm_fd_close(&p->upstream.fd);
            continue;
        }
        sm_timer_init(&p->timer, on_dial_timer);
        sm_loop_arm(p->core->loop, &p->timer, sm_loop_now(p->core->loop) + SM_CORE_MEDIATION_DIAL_US);
        return;
    }
    p->state->ready = false;
    line(&r, SM_AUDIT_MEDIATION_ERROR, p, dial_error(err));
    if (err != ENOENT)
        sm_audit_add_str(&r, "error", strerror(err));
    sm_core_note(p->core, &r);
    tell(p, SM_FLOW_REFUSE);
    pipe_free(p);
}

static void on_connected(struct sm_watch *watch, uint32_t events)
{
    struct pipe *p = sm_container_of(watch, struct pipe, upstream);
    int err = connect_result(watch->fd);

    (void)events;
    sm_loop_disarm(p->core->loop, &p->timer);
    if (err) {
        drop_upstream(p, true);
        dial(p, err);
        return;
    }
    p->state->ready = true;
    watch->fn = on_upstream;
    established(p);
}

static void on_dial_timer(struct sm_timer *timer, int64_t now_us)
{
    struct pipe *p = sm_container_of(timer, struct pipe, timer);

    (void)now_us;
    drop_upstream(p, true);
    dial(p, ETIMEDOUT);
}

/* ---- a connection ---- */

static void on_ca_timer(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    fail(sm_container_of(timer, struct pipe, timer), "timed_out");
}

static void refuse(struct sm_core *core, struct pipe *known, enum refusal why)
{
    struct sm_audit_record r;

    core->n_denied++;
    line(&r, SM_AUDIT_MEDIATION_ERROR, known, refusal_names[why]);
    if (!record_counted(core, &r, refusal_names[why], known->port))
        sm_log_debug("a refused vsock connection could not be recorded");
    tell(known, SM_FLOW_REFUSE);
}

static struct target_state *find_target(const struct sm_core *core, uint32_t port)
{
    const struct sm_core_config *c = core->config;

    for (size_t i = 0; i < c->n_mediation; i++)
        if (c->mediation[i].port == port)
            return &core->vsock->states[i];
    return NULL;
}

/* What speaks against it. *ret: its target, NULL for the certificate. */
static enum refusal judge(const struct sm_core *core, uint32_t port, struct target_state **ret)
{
    const struct sm_core_vsock *v = core->vsock;

    *ret = NULL;
    if (port == core->config->ca_port) {
        if (!core->ca)
            return REFUSAL_NO_CA;
        return v->certificates < SM_CORE_CA_CONNS_MAX ? REFUSAL_NONE : REFUSAL_TOO_MANY;
    }
    *ret = find_target(core, port);
    if (!*ret)
        return REFUSAL_NOT_LISTED;
    return v->mediations < SM_CORE_MEDIATION_MAX ? REFUSAL_NONE : REFUSAL_TOO_MANY;
}

static void begin_ca(struct pipe *p)
{
    struct sm_core *core = p->core;
    const char *pem = sm_tls_ca_cert_pem(core->ca);
    struct sm_audit_record r;

    line(&r, SM_AUDIT_CA_DELIVERED, p, NULL);
    if (!record_ca(core, &r, p->port) || !sm_buf_append(&p->down.buf, pem, strlen(pem))) {
        tell(p, SM_FLOW_REFUSE);
        pipe_free(p);
        return;
    }
    p->down.eof = true;
    sm_timer_init(&p->timer, on_ca_timer);
    sm_loop_arm(core->loop, &p->timer, sm_loop_now(core->loop) + SM_CORE_CA_US);
    established(p);
}

static void begin_mediation(struct pipe *p)
{
    struct sm_core *core = p->core;
    struct sm_audit_record r;

    line(&r, SM_AUDIT_MEDIATION_OPEN, p, NULL);
    if (!sm_core_record(core, &r) || (core->config->mode != SM_MODE_OFF && !sm_core_commit_now(core))) {
        p->conn = 0; /* no line, no close line */
        tell(p, SM_FLOW_REFUSE);
        pipe_free(p);
        return;
    }
    dial(p, ENOENT);
}

/* fd: taken; -1 when it comes over the channel, and gets a pair. */
static void begin(struct sm_core *core, uint64_t id, uint32_t guest_port, uint32_t port, int fd)
{
    struct sm_core_vsock *v = core->vsock;
    struct pipe known = {.core = core, .id = id, .guest_port = guest_port, .port = port};
    struct target_state *state;
    enum refusal why = judge(core, port, &state);
    int pair[2] = {fd, -1};

    if (why == REFUSAL_NONE && id && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        why = REFUSAL_RESOURCES;
    known.target = state ? state->target : NULL;
    if (why != REFUSAL_NONE) {
        refuse(core, &known, why);
        sm_fd_close(&pair[0]);
        return;
    }
    struct pipe *p = g_memdup2(&known, sizeof(known));
    p->state = state;
    p->conn = ++v->last_conn;
    p->opened_us = sm_loop_now(core->loop);
    p->give_fd = pair[1];
    p->link.data = p;
    sm_watch_init(&p->guest, pair[0], on_guest);
    sm_watch_init(&p->upstream, -1, on_upstream);
    sm_timer_init(&p->timer, NULL);
    sm_buf_init(&p->up.buf, SM_CORE_MEDIATION_BUF);
    sm_buf_init(&p->down.buf, SM_CORE_MEDIATION_BUF);
    g_queue_push_tail_link(&v->pipes, &p->link);
    if (id)
        g_hash_table_insert(v->ids, &p->id, p);
    if (state) {
        v->mediations++;
        state->now++;
        begin_mediation(p);
    } else {
        v->certificates++;
        begin_ca(p);
    }
}

void sm_core_vsock_open(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_flow_msg no = {.type = SM_FLOW_REFUSE, .id = msg->id, .how = SM_HOW_RST};

    if (!core->vsock || core->stopping || (core->config->mode != SM_MODE_OFF && !sm_audit_healthy(core->audit))) {
        (void)sm_channel_send(core->channel, &no, -1);
        return;
    }
    begin(core, msg->id, msg->vsock_src, msg->vsock_dst, -1);
}

void sm_core_vsock_gone(struct sm_core *core, uint64_t id, enum sm_flow_why why)
{
    struct pipe *p = core->vsock ? g_hash_table_lookup(core->vsock->ids, &id) : NULL;

    if (!p)
        return;
    if (why == SM_WHY_CLOSED && p->connected) { /* in order: what it sent is still in the pair, and goes up */
        p->gone = true;
        if (p->target)
            sm_loop_disarm(core->loop, &p->timer);
        pump(p);
        return;
    }
    drop_upstream(p, true);
    finish(p, sm_flow_why_name(why));
}

void sm_core_vsock_take(struct sm_core *core, const char *text, int *fd)
{
    guint64 port;
    int domain = 0, type = 0;
    socklen_t len = sizeof(int);

    if (*fd < 0 || !g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &port, NULL) ||
        getsockopt(*fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
        getsockopt(*fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || domain != AF_UNIX || type != SOCK_STREAM) {
        sm_log_error("the supervisor brings a vsock connection that is none");
    } else if (core->vsock && !core->stopping && (core->config->mode == SM_MODE_OFF || sm_audit_healthy(core->audit))) {
        begin(core, 0, 0, (uint32_t)port, sm_steal_fd(fd));
    }
    sm_fd_close(fd);
}

/* ---- the serial port ---- */

static void serial_close(struct serial *s)
{
    sm_loop_unwatch(s->core->loop, &s->watch);
    sm_fd_close(&s->watch.fd);
    sm_buf_clear(&s->out);
    s->len = 0;
    s->too_long = false;
}

static void serial_answer(struct serial *s)
{
    static const char error[] = "error\n";
    struct sm_core *core = s->core;
    struct sm_audit_record r;
    bool asked = !s->too_long && s->len == 2 && memcmp(s->line, "ca", 2) == 0;
    const char *answer = error;

    s->len = 0;
    s->too_long = false;
    if (asked && core->ca && !core->stopping) {
        sm_audit_begin(&r, SM_AUDIT_CA_DELIVERED, sm_clock_wall_us());
        sm_audit_add_str(&r, "via", "serial");
        if (record_ca(core, &r, 0))
            answer = sm_tls_ca_cert_pem(core->ca);
    }
    (void)!sm_buf_append(&s->out, answer, strlen(answer));
}

/* The bytes of the guest, up to the end of a line; what is behind it stays in the socket until the answer has left. */
static bool serial_read(struct serial *s)
{
    for (int i = 0; i < SERIAL_TURN && s->out.len == 0; i++) {
        char c;
        ssize_t n = recv(s->watch.fd, &c, 1, MSG_DONTWAIT);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        if (c == '\n')
            serial_answer(s);
        else if (s->len < sizeof(s->line))
            s->line[s->len++] = c;
        else
            s->too_long = true;
    }
    return true;
}

static void on_serial(struct sm_watch *watch, uint32_t events)
{
    struct serial *s = sm_container_of(watch, struct serial, watch);

    (void)events;
    while (s->out.len > 0) {
        ssize_t n = send(watch->fd, sm_buf_peek(&s->out), s->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            serial_close(s);
            return;
        }
        sm_buf_consume(&s->out, (size_t)n);
    }
    if ((s->out.len == 0 && !serial_read(s)) ||
        sm_loop_watch(s->core->loop, watch, s->out.len > 0 ? EPOLLOUT : EPOLLIN) < 0)
        serial_close(s);
}

void sm_core_vsock_serial(struct sm_core *core, int *fd)
{
    struct serial *s = core->vsock ? &core->vsock->serial : NULL;

    if (s && *fd >= 0) {
        serial_close(s);
        sm_watch_init(&s->watch, sm_steal_fd(fd), on_serial);
        if (sm_loop_watch(core->loop, &s->watch, EPOLLIN) < 0)
            serial_close(s);
    }
    sm_fd_close(fd);
}

/* ---- the start ---- */

static void on_probe(struct sm_watch *watch, uint32_t events);

static void probe_end(struct target_state *t)
{
    sm_loop_disarm(t->core->loop, &t->timer);
    sm_loop_unwatch(t->core->loop, &t->probe);
    sm_fd_close(&t->probe.fd);
    t->probing = false;
}

static void probe_done(struct target_state *t, int err)
{
    struct sm_core *core = t->core;
    struct sm_core_vsock *v = core->vsock;
    struct sm_audit_record r;
    g_autoptr(GError) error = NULL;

    probe_end(t);
    t->ready = err == 0;
    if (err) {
        sm_audit_begin(&r, SM_AUDIT_MEDIATION_ERROR, sm_clock_wall_us());
        sm_audit_add_uint(&r, "vsock_port", t->target->port);
        sm_audit_add_str(&r, "target", t->target->text);
        sm_audit_add_str(&r, "reason", dial_error(err));
        sm_audit_add_bool(&r, "required", t->target->required);
        sm_core_note(core, &r);
    }
    if (!t->target->required)
        return;
    if (err)
        sm_error_set(&error, SM_ERROR_MISSING,
                     "mediation: the target of vsock port %u, %s, cannot be reached: %s; start it first, or use "
                     "--mediation-optional",
                     t->target->port, t->target->text, err == ENOENT ? "its name has no address" : strerror(err));
    if (v->probing == 0)
        return; /* another one has ended the start */
    v->probing = err ? 0 : v->probing - 1;
    if (v->probing == 0)
        v->done(core, error);
}

static void probe(struct target_state *t, int err)
{
    while (t->next_addr < t->target->n_addrs) {
        int fd = connecting(&t->target->addrs[t->next_addr++]);
        if (fd < 0) {
            err = errno;
            continue;
        }
        sm_watch_init(&t->probe, fd, on_probe);
        if (sm_loop_watch(t->core->loop, &t->probe, EPOLLOUT) < 0) {
            err = errno;
            sm_fd_close(&t->probe.fd);
            continue;
        }
        sm_loop_arm(t->core->loop, &t->timer, sm_loop_now(t->core->loop) + SM_CORE_MEDIATION_DIAL_US);
        return;
    }
    probe_done(t, err);
}

static void probe_again(struct target_state *t, int err)
{
    probe_end(t);
    t->probing = true;
    probe(t, err);
}

static void on_probe(struct sm_watch *watch, uint32_t events)
{
    struct target_state *t = sm_container_of(watch, struct target_state, probe);
    int err = connect_result(watch->fd);

    (void)events;
    if (err)
        probe_again(t, err);
    else
        probe_done(t, 0);
}

/* Also how a probe begins, so that done() is called from the loop. */
static void on_probe_timer(struct sm_timer *timer, int64_t now_us)
{
    struct target_state *t = sm_container_of(timer, struct target_state, timer);

    (void)now_us;
    probe_again(t, t->next_addr == 0 ? ENOENT : ETIMEDOUT);
}

void sm_core_vsock_new(struct sm_core *core, void (*done)(struct sm_core *core, const GError *error))
{
    const struct sm_core_config *c = core->config;
    struct sm_core_vsock *v = g_new0(struct sm_core_vsock, 1);

    core->vsock = v;
    v->done = done;
    v->ids = g_hash_table_new(g_int64_hash, g_int64_equal);
    v->states = g_new0(struct target_state, c->n_mediation + 1);
    v->serial.core = core;
    sm_watch_init(&v->serial.watch, -1, on_serial);
    sm_buf_init(&v->serial.out, SM_CORE_MEDIATION_BUF);
    for (size_t i = 0; i < c->n_mediation; i++) {
        struct target_state *t = &v->states[i];
        t->core = core;
        t->target = &c->mediation[i];
        t->probing = true;
        sm_watch_init(&t->probe, -1, on_probe);
        sm_timer_init(&t->timer, on_probe_timer);
        sm_loop_arm(core->loop, &t->timer, sm_loop_now(core->loop));
        v->probing += t->target->required;
    }
    if (v->probing == 0)
        done(core, NULL);
}

void sm_core_vsock_stop(struct sm_core *core, const char *reason)
{
    while (core->vsock && core->vsock->pipes.head) {
        struct pipe *p = core->vsock->pipes.head->data;
        finish(p, reason);
    }
}

void sm_core_vsock_free(struct sm_core *core)
{
    struct sm_core_vsock *v = core->vsock;

    if (!v)
        return;
    while (v->pipes.head)
        pipe_free(v->pipes.head->data);
    for (size_t i = 0; i < core->config->n_mediation; i++)
        probe_end(&v->states[i]);
    serial_close(&v->serial);
    g_hash_table_destroy(v->ids);
    g_free(v->states);
    g_free(v);
    core->vsock = NULL;
}

void sm_core_vsock_report(const struct sm_core *core, json_t *report)
{
    const struct sm_core_config *c = core->config;
    bool ready = true;

    if (!core->vsock || c->n_mediation == 0)
        return;
    json_t *table = json_array();
    for (size_t i = 0; i < c->n_mediation; i++) {
        const struct target_state *t = &core->vsock->states[i];
        ready = ready && (t->ready || !t->target->required);
        (void)json_array_append_new(table, json_pack("{s:I, s:s, s:b, s:b, s:I}", "port", (json_int_t)t->target->port,
                                                     "target", t->target->text, "required", (int)t->target->required,
                                                     "ready", (int)t->ready, "connections", (json_int_t)t->now));
    }
    (void)json_object_set_new(report, "mediationReady", json_boolean(ready));
    (void)json_object_set_new(report, "mediation", table);
}
