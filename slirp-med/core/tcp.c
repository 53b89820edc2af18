/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TCP flows: dial as the guest asked, classify what it says first, hand the upstream socket over, and learn its end from the kernel.
 *
 * Silence never decides. A held flow waits as long as the guest does; only a flow that proves nothing (strict) or that began a head and does
 * not finish it has a clock. If the server speaks before the guest has said anything that is TLS or HTTP, the flow is opaque.
 *
 * After ATTACH the front has the socket and we a duplicate: it tells the end (EPOLLHUP, EPOLLERR) and the bytes (TCP_INFO), whatever the front
 * says. The duplicate is never read, and never asked for SO_ERROR, which would take the error away from the front.
 */
#include "core/mediate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "core/limits.h"

/* tcpi_state's values (the kernel's include/net/tcp_states.h has no exported copy, and netinet/tcp.h cannot be used with linux/tcp.h). */
enum { TCP_FIN_WAIT1 = 4, TCP_TIME_WAIT = 6, TCP_CLOSE = 7, TCP_CLOSE_WAIT = 8, TCP_LAST_ACK = 9, TCP_CLOSING = 11 };

static void connected(struct sm_session *s);
static void on_connected(struct sm_watch *watch, uint32_t events);
static void on_held_upstream(struct sm_watch *watch, uint32_t events);
static void on_write_judged(struct sm_watch *watch, uint32_t events);
static void on_attached(struct sm_watch *watch, uint32_t events);
static void on_held_timer(struct sm_timer *timer, int64_t now_us);
static void classify(struct sm_session *s);
static void on_end_timer(struct sm_timer *timer, int64_t now_us);

enum sm_flow_how sm_tcp_how(int err)
{
    switch (err) {
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ETIMEDOUT:
        return SM_HOW_ICMP_HOST;
    case ENETUNREACH:
    case ENETDOWN:
        return SM_HOW_ICMP_NET;
    case EACCES:
    case EPERM:
        return SM_HOW_ICMP_ADMIN;
    default:
        return SM_HOW_RST;
    }
}

static const char *error_name(int err)
{
    switch (err) {
    case ECONNREFUSED:
        return "refused";
    case EHOSTUNREACH:
    case EHOSTDOWN:
        return "host_unreachable";
    case ENETUNREACH:
    case ENETDOWN:
        return "network_unreachable";
    case ETIMEDOUT:
        return "timed_out";
    case ECONNRESET:
        return "reset";
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
        return "out_of_resources";
    default:
        return "failed";
    }
}

void sm_tcp_drop_upstream(struct sm_session *s, bool reset)
{
    if (s->upstream.fd < 0)
        return;
    sm_loop_unwatch(s->core->loop, &s->upstream);
    if (reset) {
        struct linger now = {.l_onoff = 1};
        (void)setsockopt(s->upstream.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    sm_fd_close(&s->upstream.fd);
    s->upstream_up = false;
}

static void dial_failed(struct sm_session *s, int err, const char *reason)
{
    struct sm_audit_record r;

    sm_tcp_drop_upstream(s, true);
    sm_session_line(s, &r, SM_AUDIT_EGRESS_DIAL_ERROR, reason ? reason : error_name(err));
    if (err)
        sm_audit_add_str(&r, "error", strerror(err));
    sm_core_note(s->core, &r);
    s->dial_recorded = s->allowed = false;
    if (s->state == SM_SESSION_REDIALLING && s->next_addr < s->n_addrs) {
        sm_session_judge(s, SM_STAGE_RESOLVED);
        return;
    }
    sm_session_refuse(s, sm_tcp_how(err), 0, err ? SM_REASON_NONE : SM_REASON_UNRESOLVED);
}

static void dial(struct sm_session *s, enum sm_session_state state)
{
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&s->dialled, &ss);
    int on = 1, retries = SM_CORE_SYN_RETRIES;

    s->state = state;
    int fd = sm_session_fd(s->core, socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd < 0) {
        dial_failed(s, errno, NULL);
        return;
    }
    sm_watch_init(&s->upstream, fd, on_connected);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &retries, sizeof(retries));
    sm_limits_dialling(s, fd);
    int err = connect(fd, (struct sockaddr *)&ss, len) < 0 ? errno : 0;
    if (err == EINPROGRESS) /* a near peer may have answered by now: asked again, the kernel tells how it ended */
        err = connect(fd, (struct sockaddr *)&ss, len) < 0 ? errno : 0;
    if (err == EALREADY) {
        if (sm_loop_watch(s->core->loop, &s->upstream, EPOLLOUT) < 0)
            dial_failed(s, errno, NULL);
    } else if (err) {
        dial_failed(s, err, NULL);
    } else {
        connected(s);
    }
}

void sm_tcp_dial(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    dial(s, SM_SESSION_DIALLING);
}

void sm_tcp_redial(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    dial(s, SM_SESSION_REDIALLING);
}

bool sm_tcp_accept(struct sm_session *s)
{
    struct sm_flow_msg m = {.type = SM_FLOW_ACCEPT, .id = s->id};

    s->accepted = true;
    return sm_channel_send(s->core->channel, &m, -1);
}

/* Its handshake is still pending here. On the kernel path it is not for the guest, whose first bytes may so come before upstream is there. */
static bool is_early(const struct sm_session *s)
{
    return s->state == SM_SESSION_NEW || s->state == SM_SESSION_DIALLING;
}

static void start_classifying(struct sm_session *s)
{
    s->state = SM_SESSION_HELD;
    s->held_us = sm_loop_now(s->core->loop);
    s->http = g_new0(struct sm_http_head, 1);
    sm_http_head_init(s->http);
    s->tls = g_new0(struct sm_tls_hello, 1);
    sm_tls_hello_init(s->tls);
    sm_timer_init(&s->timer, on_held_timer);
}

/* What came before upstream, or the guest's handshake, was there. */
static void classify_early(struct sm_session *s)
{
    if (s->held.len > 0 || s->guest_eof)
        classify(s);
}

void sm_tcp_hold(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    start_classifying(s);
    (void)sm_tcp_accept(s);
    sm_loop_arm(s->core->loop, &s->timer, sm_loop_now(s->core->loop) + SM_CORE_SILENT_US);
    classify_early(s);
}

static void connected(struct sm_session *s)
{
    s->upstream_up = true;
    sm_loop_unwatch(s->core->loop, &s->upstream);
    if (s->state == SM_SESSION_REDIALLING && s->accepted) {
        sm_tcp_proceed(s);
        return;
    }
    if (s->by_name && !sm_session_is_named(s)) { /* an address that was named: from here on a flow to it */
        s->by_name = false;
        s->assertion = SM_ASSERTION_NONE;
        s->asserted = (struct sm_host){0};
    }
    (void)sm_tcp_accept(s);
    if (s->core->config->mode == SM_MODE_OFF) {
        s->allowed = true;
        sm_core_effect(s, sm_tcp_hand_over);
        return;
    }
    start_classifying(s);
    s->upstream.fn = on_held_upstream;
    if (sm_loop_watch(s->core->loop, &s->upstream, EPOLLIN | EPOLLRDHUP) < 0)
        dial_failed(s, errno, NULL);
    else
        classify_early(s);
}

static void on_connected(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, upstream);
    int err = 0;
    socklen_t len = sizeof(err);

    (void)events;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        err = errno;
    if (err)
        dial_failed(s, err, NULL);
    else
        connected(s);
}

/* A route is for cleartext HTTP (policy/route.h), each request of which is judged and recorded. */
static bool suits_route(const struct sm_session *s)
{
    return !s->route || g_strcmp0(s->classified, "http") == 0 || g_strcmp0(s->classified, "h2") == 0;
}

/* What was said is enough to decide: by whom the name is asserted, and how many bytes the decision rests on. */
static void decided(struct sm_session *s, enum sm_assertion assertion, size_t judged)
{
    sm_loop_disarm(s->core->loop, &s->timer); /* and on_held_upstream() watches until the decision is carried out */
    if (!suits_route(s)) {
        sm_session_deny(s, "route_not_http");
        return;
    }
    if (sm_session_is_named(s))
        s->spoken = assertion;
    else
        s->assertion = assertion;
    s->judged = SM_MAX(judged, s->written); /* what was released early has been consumed */
    sm_session_judge(s, SM_STAGE_ASSERT);
}

static bool must_be_named(const struct sm_session *s)
{
    return s->tls->maybe == SM_TLS_MAYBE_RECORD || s->http->maybe == SM_HTTP_MAYBE_LINE;
}

static void on_held_upstream(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, upstream);

    if (s->effect) {
        /* Decided in this turn, or on its way: until that is carried out the server's word waits. */
        sm_loop_unwatch(s->core->loop, watch);
        return;
    }
    if (events & (EPOLLERR | EPOLLHUP)) {
        struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};
        (void)sm_channel_send(s->core->channel, &m, -1);
        sm_tcp_count(s);
        sm_session_close(s, sm_flow_why_name(SM_WHY_UPSTREAM_RST));
        return;
    }
    if (must_be_named(s)) {
        /* The guest is in the middle of a head: the server's word waits until that is read and judged. */
        sm_loop_unwatch(s->core->loop, watch);
        return;
    }
    s->classified = s->written > 0 ? "opaque" : "server_first";
    decided(s, s->written > 0 ? SM_ASSERTION_OPAQUE : SM_ASSERTION_SERVER_FIRST, 0);
}

/* A word of a few letters may be the start of a request line, or all that the guest will say before it is answered. */
static bool undecidable(const struct sm_session *s)
{
    return s->upstream_up && s->tls->status == SM_TLS_NOT_TLS && s->http->maybe == SM_HTTP_MAYBE_TOKEN &&
           s->held.len > s->written;
}

static void set_held_timer(struct sm_session *s)
{
    int64_t now = sm_loop_now(s->core->loop);

    sm_loop_arm(s->core->loop, &s->timer, undecidable(s) ? now + SM_CORE_RELEASE_US : s->held_us + SM_CORE_PARTIAL_US);
}

/* The bytes go upstream, the flow stays held: the next ones are still judged with these before them. */
static void release_held(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    /* Only what the line was written for: what came since has not been looked at. */
    ssize_t n = sm_limits_write(s, sm_buf_peek(&s->held) + s->written, s->judged - s->written);
    if (n > 0)
        s->written += (size_t)n;
    if (sm_loop_watch(s->core->loop, &s->upstream, EPOLLIN | EPOLLRDHUP) < 0)
        sm_session_deny(s, "out_of_resources");
    else
        classify(s); /* with what came while the line was written */
}

static void on_held_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_session *s = sm_container_of(timer, struct sm_session, timer);

    if (s->held.len == 0) {
        decided(s, SM_ASSERTION_TIMEOUT, 0);
    } else if (now_us < s->held_us + SM_CORE_PARTIAL_US && undecidable(s) && !s->route && sm_session_allows_opaque(s)) {
        sm_loop_unwatch(s->core->loop, &s->upstream);
        s->judged = s->held.len;
        sm_session_allow(s, release_held);
    } else if (now_us < s->held_us + SM_CORE_PARTIAL_US) {
        sm_loop_arm(s->core->loop, timer, s->held_us + SM_CORE_PARTIAL_US);
    } else {
        sm_session_deny(s, "classification_timeout");
    }
}

static void classify(struct sm_session *s)
{
    const uint8_t *data = sm_buf_peek(&s->held);
    enum sm_tls_status tls = sm_tls_hello_feed(s->tls, data, s->held.len);
    enum sm_http_status http = sm_http_head_feed(s->http, data, s->held.len);
    struct sm_host *said = sm_session_is_named(s) ? &s->inner : &s->asserted;

    if (s->guest_eof && tls == SM_TLS_NOT_TLS)
        http = sm_http_head_end(s->http, data, s->held.len);
    if (tls != SM_TLS_NOT_TLS && tls != SM_TLS_NEED_MORE)
        s->classified = "tls";
    else if (http == SM_HTTP_HTTP1 || http == SM_HTTP_REJECT)
        s->classified = "http";
    else if (http == SM_HTTP_HTTP2)
        s->classified = "h2";
    else if (tls == SM_TLS_NOT_TLS && http == SM_HTTP_NOT_HTTP)
        s->classified = "opaque";
    if (tls == SM_TLS_HELLO) {
        if (s->tls->sni_len == 0) {
            decided(s, SM_ASSERTION_OPAQUE, s->tls->consumed);
            return;
        }
        (void)sm_name_classify(s->tls->sni, s->tls->sni_len, said);
        decided(s, SM_ASSERTION_SNI, s->tls->consumed);
    } else if (tls == SM_TLS_REJECT) {
        sm_session_deny(s, sm_tls_reject_name(s->tls->reject));
    } else if (http == SM_HTTP_HTTP1) {
        if (s->http->host_kind == SM_HTTP_HOST_NONE) {
            decided(s, SM_ASSERTION_OPAQUE, s->http->consumed);
            return;
        }
        const char *host = (const char *)data + s->http->host.off;
        if (s->http->host_kind == SM_HTTP_HOST_V6) {
            g_autofree char *bracketed = g_strdup_printf("[%.*s]", (int)s->http->host.len, host);
            (void)sm_host_parse(bracketed, strlen(bracketed), said);
        } else {
            (void)sm_host_parse(host, s->http->host.len, said);
        }
        decided(s, SM_ASSERTION_HOST, s->http->consumed);
    } else if (http == SM_HTTP_HTTP2) {
        decided(s, SM_ASSERTION_OPAQUE, s->http->consumed);
    } else if (http == SM_HTTP_REJECT) {
        sm_session_deny(s, sm_http_reject_name(s->http->reject));
    } else if (tls == SM_TLS_NOT_TLS && http == SM_HTTP_NOT_HTTP) {
        decided(s, SM_ASSERTION_OPAQUE, s->held.len);
    } else if (s->guest_eof) {
        /* Nothing more will come: a head that was begun stays unfinished, anything else is a short opaque message. */
        if (must_be_named(s))
            sm_session_deny(s, "truncated_head");
        else
            decided(s, SM_ASSERTION_OPAQUE, 0);
    } else {
        set_held_timer(s);
    }
}

void sm_tcp_bytes(struct sm_session *s, const uint8_t *data, size_t len)
{
    bool early = is_early(s);

    if (!early && s->effect && s->effect != release_held)
        return; /* decided already; what comes now is the front's to keep */
    if (s->held.len == 0)
        s->held_us = sm_loop_now(s->core->loop);
    if (s->core->held_now + len > SM_CORE_HELD_TOTAL) {
        sm_session_deny(s, "too_many_held_bytes");
        return;
    }
    if (!sm_buf_append(&s->held, data, len)) {
        sm_session_deny(s, "head_too_large");
        return;
    }
    s->core->held_now += len;
    if (!early && !s->effect)
        classify(s);
}

void sm_tcp_guest_eof(struct sm_session *s)
{
    s->guest_eof = true;
    if (!is_early(s) && !s->effect)
        classify(s);
}

static void on_looked_up(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp)
{
    struct sm_session *s = data;
    struct sm_core *core = s->core;
    struct sm_audit_record r;
    bool good = status == SM_RESOLVER_OK && resp->rcode == SM_DNS_NOERROR;

    s->lookup = NULL;
    for (unsigned i = 0; good && i < resp->n_addrs && s->n_addrs < SM_CORE_DIAL_ADDRS_MAX; i++)
        if (resp->addrs[i].family == SM_FAMILY_V4)
            s->addrs[s->n_addrs++] = resp->addrs[i];
    if (s->n_addrs == 0) {
        sm_session_line(s, &r, SM_AUDIT_EGRESS_DNS_ERROR,
                        good                       ? "no_address"
                        : status == SM_RESOLVER_OK ? "rcode"
                                                   : sm_resolver_status_name(status));
        sm_core_note(core, &r);
        dial_failed(s, 0, "unresolved");
        return;
    }
    g_autoptr(GPtrArray) text = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < s->n_addrs; i++) {
        char a[SM_ADDR_STRLEN];
        g_ptr_array_add(text, g_strdup(sm_addr_format(&s->addrs[i], a)));
    }
    sm_session_line(s, &r, SM_AUDIT_EGRESS_DNS_ALLOW, "own_lookup");
    sm_audit_add_strv(&r, "answers", (const char *const *)text->pdata, text->len);
    if (!sm_core_record(core, &r)) {
        sm_session_not_recorded(s);
        return;
    }
    if (!s->route) /* what a route leads to has not been learnt for the route's name */
        sm_names_learn(core, s->verdict.host, s->addrs, s->n_addrs, resp->min_ttl);
    sm_session_judge(s, SM_STAGE_RESOLVED);
}

static void look_up(struct sm_session *s, bool ok)
{
    struct sm_resolver_done done = {.fn = on_looked_up, .data = s};

    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    const char *name = s->route ? s->route->target.name : s->verdict.host;
    s->state = SM_SESSION_RESOLVING;
    s->lookup = s->core->resolver ? sm_resolver_lookup(s->core->resolver, name, done) : NULL;
    if (!s->lookup)
        dial_failed(s, 0, "resolver_busy");
}

void sm_tcp_resolve(struct sm_session *s)
{
    struct sm_audit_record r;

    sm_tcp_drop_upstream(s, true); /* it went to the guest's address, which proves nothing */
    s->written = 0;
    if (s->route && s->route->target.kind != SM_NAME_HOST) {
        s->addrs[0] = s->route->target.addr;
        s->n_addrs = 1;
        sm_session_judge(s, SM_STAGE_RESOLVED);
        return;
    }
    sm_session_line(s, &r, SM_AUDIT_EGRESS_DNS_QUERY, sm_reason_name(s->verdict.reason));
    if (!sm_core_record(s->core, &r)) {
        sm_session_not_recorded(s);
        return;
    }
    sm_core_effect(s, look_up);
}

static void hand_over_now(struct sm_session *s)
{
    s->give_fd = fcntl(s->upstream.fd, F_DUPFD_CLOEXEC, 0);
    s->upstream.fn = on_attached;
    if (s->give_fd < 0 || sm_loop_watch(s->core->loop, &s->upstream, EPOLLET) < 0) {
        struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};
        (void)sm_channel_send(s->core->channel, &m, -1);
        sm_session_close(s, "out_of_resources");
        return;
    }
    sm_session_attach(s);
}

static void write_judged(struct sm_session *s)
{
    while (s->written < s->judged) {
        ssize_t n = write(s->upstream.fd, sm_buf_peek(&s->held) + s->written, s->judged - s->written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            s->upstream.fn = on_write_judged;
            if (sm_loop_watch(s->core->loop, &s->upstream, EPOLLOUT) == 0)
                return;
        }
        if (n < 0) {
            struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};
            (void)sm_channel_send(s->core->channel, &m, -1);
            sm_tcp_count(s);
            sm_session_close(s, sm_flow_why_name(SM_WHY_UPSTREAM_RST));
            return;
        }
        s->written += (size_t)n;
    }
    hand_over_now(s);
}

static void on_write_judged(struct sm_watch *watch, uint32_t events)
{
    (void)events;
    write_judged(sm_container_of(watch, struct sm_session, upstream));
}

void sm_tcp_hand_over(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    s->state = SM_SESSION_JUDGED;
    write_judged(s);
}

void sm_tcp_proceed(struct sm_session *s)
{
    switch (sm_mediate_kind(s)) {
    case SM_MEDIATE_TLS:
        sm_mediate_tls(s);
        break;
    case SM_MEDIATE_CLEARTEXT:
        sm_session_allow(s, sm_mediate_cleartext);
        break;
    case SM_MEDIATE_NOT:
        sm_session_allow(s, sm_limits_relays(s->core) ? sm_mediate_raw : sm_tcp_hand_over);
        break;
    }
}

/* Did upstream's FIN come? CLOSE is reached by both FINs or by a reset. */
static bool fin_received(const struct sm_session *s, uint8_t state)
{
    switch (state) {
    case TCP_CLOSE_WAIT:
    case TCP_LAST_ACK:
    case TCP_CLOSING:
    case TCP_TIME_WAIT:
        return true;
    case TCP_CLOSE:
        return !s->kernel_reset && !(s->gone && s->gone_why == SM_WHY_UPSTREAM_RST);
    default:
        return false;
    }
}

/* Is our FIN behind what waits in the queue? */
static bool fin_waits(const struct tcp_info *info)
{
    return info->tcpi_notsent_bytes > 0 &&
           (info->tcpi_state == TCP_FIN_WAIT1 || info->tcpi_state == TCP_CLOSING || info->tcpi_state == TCP_LAST_ACK);
}

void sm_tcp_count(struct sm_session *s)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    if (s->proto != SM_PROTO_TCP || s->upstream.fd < 0 ||
        getsockopt(s->upstream.fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return;
    if (sm_limits_count(s))
        return; /* under a byte cap what was counted against it is what is told */
    /* bytes_sent counts retransmissions; what is still in the queue will be sent by the kernel after our close. */
    s->bytes_up = info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
    s->bytes_down = info.tcpi_bytes_received;
    /* The kernel counts the sequence number of a FIN: of ours while it waits to be sent, of theirs for good. */
    if (fin_waits(&info))
        s->bytes_up--;
    if (s->bytes_down > 0 && fin_received(s, info.tcpi_state))
        s->bytes_down--;
}

/*
 * The front says that it has closed its end. It is not taken at its word: an ordered end is made sure of by shutdown(2); a reset cannot be
 * forced on a socket that another process still holds, so a ghost tells if one does. Before ATTACHED the descriptor may still be on its way
 * to a front that has done no wrong.
 */
static void seal(struct sm_session *s, bool reset)
{
    if (reset && sm_loop_leave_ghost(s->core->loop, s->upstream.fd, &s->core->ghost) == 0)
        return;
    (void)shutdown(s->upstream.fd, SHUT_RDWR);
}

void sm_tcp_ghost(struct sm_watch *ghost, uint32_t events)
{
    struct sm_core *core = sm_container_of(ghost, struct sm_core, ghost);

    (void)events;
    sm_log_error("the front kept a socket that it said it had closed");
    sm_core_stop(core, "front_misbehaved", 1);
}

static void finish(struct sm_session *s, const char *reason, bool reset)
{
    sm_tcp_count(s);
    sm_tcp_drop_upstream(s, reset);
    sm_session_close(s, reason);
}

static bool is_reset(enum sm_flow_why why)
{
    return why != SM_WHY_CLOSED;
}

void sm_tcp_gone(struct sm_session *s, bool ok)
{
    bool reset = is_reset(s->gone_why);

    (void)ok; /* an end opens nothing */
    if (!s->kernel_end) {
        sm_tcp_count(s);
        sm_loop_unwatch(s->core->loop, &s->upstream);
        seal(s, reset && s->attach_acked);
    }
    finish(s, s->end_reason ? s->end_reason : sm_flow_why_name(s->gone_why), reset);
}

/* It was asked to let go and does not, or cannot now: both directions end for whoever holds the socket. */
static void on_kept(struct sm_timer *timer, int64_t now_us)
{
    struct sm_session *s = sm_container_of(timer, struct sm_session, timer);

    (void)now_us;
    sm_tcp_count(s);
    (void)shutdown(s->upstream.fd, SHUT_RDWR);
    finish(s, s->end_reason, true);
}

void sm_tcp_end(struct sm_session *s, const char *reason)
{
    struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};

    s->end_reason = reason;
    (void)sm_channel_send(s->core->channel, &m, -1);
    sm_timer_init(&s->timer, on_kept);
    sm_loop_arm(s->core->loop, &s->timer, sm_loop_now(s->core->loop) + SM_CORE_END_WAIT_US);
}

static void on_attached(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, upstream);

    if (!(events & (EPOLLHUP | EPOLLERR)))
        return;
    s->kernel_end = true;
    s->kernel_reset = events & EPOLLERR;
    sm_loop_unwatch(s->core->loop, watch);
    sm_loop_disarm(s->core->loop, &s->timer); /* of sm_tcp_end() */
    sm_timer_init(&s->timer, on_end_timer);
    sm_loop_arm(s->core->loop, &s->timer, sm_loop_now(s->core->loop) + SM_CORE_END_WAIT_US);
}

static void on_end_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_session *s = sm_container_of(timer, struct sm_session, timer);

    (void)now_us;
    if (s->state !=
        SM_SESSION_ATTACHED) { /* its turn to be handed over has not come: the front still holds the guest's side */
        struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};
        (void)sm_channel_send(s->core->channel, &m, -1);
    }
    finish(s, s->end_reason ? s->end_reason : sm_flow_why_name(SM_WHY_CLOSED), false);
}
