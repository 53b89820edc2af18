/* SPDX-License-Identifier: BSD-3-Clause */
/* A mediated flow from the first handshake to the last byte; the phases stand in mediate.h. */
#include "core/mediate.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "http/page.h"

/** What one read may bring: four full records. One thread, so one buffer for all flows. */
static uint8_t scratch[64 << 10];

static void on_guest(struct sm_watch *watch, uint32_t events);
static void on_origin(struct sm_watch *watch, uint32_t events);
static void advance(struct sm_session *s);
static void on_limit(struct sm_timer *timer, int64_t now_us);
static void upstream_failed(struct sm_session *s, enum sm_tls_failure failure, const char *reason, const char *text);
static void guest_failed(struct sm_session *s, const char *reason);
static void handshake(struct sm_session *s, enum sm_bridge_side with);
static void sniff(struct sm_session *s, bool waited);

/* The wire under TLS. */

static ssize_t wire_read(void *ctx, void *buf, size_t len)
{
    return read(((struct sm_watch *)ctx)->fd, buf, len);
}

static ssize_t wire_write(void *ctx, const void *buf, size_t len)
{
    return send(((struct sm_watch *)ctx)->fd, buf, len, MSG_NOSIGNAL);
}

static ssize_t origin_read(void *ctx, void *buf, size_t len)
{
    return sm_limits_read(ctx, buf, len);
}

static ssize_t origin_write(void *ctx, const void *buf, size_t len)
{
    return sm_limits_write(ctx, buf, len);
}

/* One side: TLS or not. */

static enum sm_tls_io end_read(struct sm_mediate_end *e, void *buf, size_t cap, size_t *ret_n)
{
    if (e->tls)
        return sm_tls_conn_read(e->tls, buf, cap, ret_n);
    ssize_t n = e->wire.read(e->wire.ctx, buf, cap);
    if (n > 0) {
        *ret_n = (size_t)n;
        return SM_TLS_IO_OK;
    }
    if (n == 0)
        return SM_TLS_IO_EOF;
    return errno == EAGAIN || errno == EINTR ? SM_TLS_IO_WANT_READ : SM_TLS_IO_CUT;
}

static enum sm_tls_io end_write(struct sm_mediate_end *e, const void *buf, size_t len, size_t *ret_n)
{
    if (e->tls)
        return sm_tls_conn_write(e->tls, buf, len, ret_n);
    ssize_t n = e->wire.write(e->wire.ctx, buf, len);
    if (n >= 0) {
        *ret_n = (size_t)n;
        return SM_TLS_IO_OK;
    }
    return errno == EAGAIN || errno == EINTR ? SM_TLS_IO_WANT_WRITE : SM_TLS_IO_ERROR;
}

static size_t end_unsent(const struct sm_mediate_end *e)
{
    return e->tls ? sm_tls_conn_unsent(e->tls) : 0;
}

static void watch_end(struct sm_session *s, struct sm_mediate_end *e, bool in, bool out)
{
    if (e->watch == &s->upstream) { /* under a cap: until it is woken there is nothing that it could do */
        in = in && !sm_limits_blocked(s, SM_CAPS_DOWN);
        out = out && !sm_limits_blocked(s, SM_CAPS_UP);
    }
    uint32_t events = (in ? (uint32_t)EPOLLIN : 0) | (out ? (uint32_t)EPOLLOUT : 0);

    /* Level-triggered, HUP is told even to who asks for nothing: an end that can do nothing now is not watched at all. */
    if (events == 0)
        sm_loop_unwatch(s->core->loop, e->watch);
    else if (e->watch->events != events || !e->watch->added)
        (void)sm_loop_watch(s->core->loop, e->watch, events);
}

static void watch_handshake(struct sm_session *s, struct sm_mediate_end *e, enum sm_tls_io io)
{
    watch_end(s, e, true, io == SM_TLS_IO_WANT_WRITE || end_unsent(e) > 0);
}

static void limit(struct sm_session *s, int64_t us)
{
    sm_loop_disarm(s->core->loop, &s->timer);
    sm_timer_init(&s->timer, on_limit);
    sm_loop_arm(s->core->loop, &s->timer, sm_loop_now(s->core->loop) + us);
}

static void unlimit(struct sm_session *s)
{
    sm_loop_disarm(s->core->loop, &s->timer);
}

static void on_again(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    advance(sm_container_of(timer, struct sm_mediation, again)->s);
}

static struct sm_mediation *begin(struct sm_session *s, bool tls)
{
    struct sm_mediation *m = g_new0(struct sm_mediation, 1);

    m->s = s;
    m->tls = tls;
    m->end[SM_BRIDGE_ORIGIN].watch = &s->upstream;
    m->end[SM_BRIDGE_ORIGIN].wire = (struct sm_tls_wire){.read = origin_read, .write = origin_write, .ctx = s};
    m->end[SM_BRIDGE_GUEST].watch = &s->pair;
    m->end[SM_BRIDGE_GUEST].wire = (struct sm_tls_wire){.read = wire_read, .write = wire_write, .ctx = &s->pair};
    m->skip = s->written;
    s->judged = s->written = 0; /* the front keeps all of it for the pair */
    sm_timer_init(&m->again, on_again);
    sm_buf_init(&m->sniff, SM_MEDIATE_SNIFF_MAX);
    sm_requests_init(m);
    s->mediation = m;
    s->mitm = tls;
    sm_loop_disarm(s->core->loop, &s->timer);
    sm_loop_unwatch(s->core->loop, &s->upstream);
    s->upstream.fn = on_origin;
    return m;
}

static void tell_eof(struct sm_mediation *m, enum sm_bridge_side side)
{
    struct sm_mediate_end *e = &m->end[side];

    if (!e->told)
        sm_bridge_eof(m->bridge, side, e->cut);
    e->told = true;
}

void sm_mediate_settle(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;

    if (!m || !m->bridge)
        return;
    for (enum sm_bridge_side side = 0; side < SM_BRIDGE_SIDES; side++) {
        struct sm_mediate_end *e = &m->end[side];
        e->cut = true;
        tell_eof(m, side);
    }
}

void sm_mediate_free(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;

    if (!m)
        return;
    sm_pki_wait_cancel(m);
    sm_loop_disarm(s->core->loop, &m->again);
    s->core->relayed_now -= m->counted;
    sm_tls_conn_free(m->end[SM_BRIDGE_GUEST].tls);
    sm_tls_conn_free(m->end[SM_BRIDGE_ORIGIN].tls);
    sm_bridge_free(m->bridge);
    sm_requests_clear(m);
    sm_buf_clear(&m->sniff);
    X509_free(m->leaf);
    g_free(m);
    s->mediation = NULL;
}

/* The pair goes to the front: all that it holds of the guest comes through it again, and is judged again. */
static bool attach_pair(struct sm_session *s)
{
    int pair[2];

    if (sm_session_pair(s->core, SOCK_STREAM, pair) < 0)
        return false;
    /* Less than was asked for (net.core.wmem_max) is slower and no fault. */
    int size = g_hash_table_size(s->core->sessions) <= SM_MEDIATE_PAIR_FLOWS ? SM_MEDIATE_PAIR_BYTES : 0;
    size = sm_limits_pair_bytes(s, size);
    for (unsigned i = 0; i < 2 && size > 0; i++)
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    sm_watch_init(&s->pair, pair[0], on_guest);
    s->give_fd = pair[1];
    s->state = SM_SESSION_MEDIATED;
    sm_session_attach(s);
    return true;
}

/* Over. */

static void drop_origin(struct sm_session *s, bool reset)
{
    struct sm_mediate_end *e = &s->mediation->end[SM_BRIDGE_ORIGIN];

    sm_tcp_count(s);
    sm_limits_stop_waiting(s);
    sm_tls_conn_free(e->tls);
    e->tls = NULL;
    e->eof = e->dead = true;
    sm_tcp_drop_upstream(s, reset);
}

static void drain_guest(struct sm_session *s);

/*
 * Our end of the pair stays open until the front has closed its own: it may be reading the pair right now, and would
 * take an end there for a FIN before it has read ABORT from the channel.
 */
static void abort_guest(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;
    struct sm_flow_msg msg = {.type = SM_FLOW_ABORT, .id = s->id};
    bool again = m->phase == SM_MEDIATE_CLOSING;

    m->aborted = true;
    (void)sm_channel_send(s->core->channel, &msg, -1);
    if (again || s->state != SM_SESSION_MEDIATED || s->give_fd >= 0) {
        sm_session_close(s, m->why);
        return;
    }
    m->phase = SM_MEDIATE_CLOSING;
    limit(s, SM_MEDIATE_CLOSING_US);
    drain_guest(s);
}

static void close_mediated(struct sm_session *s)
{
    const struct sm_mediation *m = s->mediation;

    sm_session_close(s, m->why || m->aborted ? m->why : sm_flow_why_name(SM_WHY_CLOSED));
}

/* What the guest still says is dropped; a socket closed with bytes unread would take our last words with it. */
static void drain_guest(struct sm_session *s)
{
    struct sm_mediate_end *e = &s->mediation->end[SM_BRIDGE_GUEST];

    for (unsigned i = 0; i < SM_MEDIATE_ROUNDS; i++) {
        ssize_t n = read(e->watch->fd, scratch, sizeof(scratch));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n > 0)
            continue;
        if (s->gone || s->mediation->aborted) {
            close_mediated(s);
            return;
        }
        /* The front closes its end before it says how the guest's side ended: the close line waits for that. */
        e->eof = true;
        watch_end(s, e, false, false);
        limit(s, SM_CORE_END_WAIT_US);
        return;
    }
    watch_end(s, e, true, false);
}

/* @orderly: the guest may take what it got for complete. */
static void close_guest(struct sm_session *s, bool orderly)
{
    struct sm_mediation *m = s->mediation;
    struct sm_mediate_end *e = &m->end[SM_BRIDGE_GUEST];

    if (!orderly && !m->tls) {
        abort_guest(s); /* without TLS only a reset says that something is missing */
        return;
    }
    m->phase = SM_MEDIATE_CLOSING;
    if (orderly && e->tls && !e->shut && !e->dead) {
        (void)sm_tls_conn_shutdown(e->tls);
        (void)sm_tls_conn_flush(e->tls);
    }
    (void)shutdown(e->watch->fd, SHUT_WR);
    limit(s, SM_MEDIATE_CLOSING_US);
    drain_guest(s);
}

static void finish(struct sm_session *s, bool orderly)
{
    /* A cut inside TLS is a FIN without close_notify; RST would throw away what the origin has not read yet. */
    drop_origin(s, !orderly && !s->mediation->tls);
    close_guest(s, orderly);
}

/* The end that was put off: it is read again. */
static void hear_the_end(struct sm_mediation *m)
{
    m->word_awaited = false;
    m->end[SM_BRIDGE_GUEST].readable = true;
    advance(m->s);
}

static void on_limit(struct sm_timer *timer, int64_t now_us)
{
    struct sm_session *s = sm_container_of(timer, struct sm_session, timer);
    struct sm_mediation *m = s->mediation;

    (void)now_us;
    switch (m->phase) {
    case SM_MEDIATE_COMMIT:
        break; /* the end of the turn is nearer than any limit */
    case SM_MEDIATE_UPSTREAM:
    case SM_MEDIATE_LEAF:
        upstream_failed(s, SM_TLS_FAILURE_CLOSED, "tls_timeout", NULL);
        break;
    case SM_MEDIATE_GUEST:
        guest_failed(s, "tls_timeout");
        break;
    case SM_MEDIATE_SNIFF:
        sniff(s, true);
        break;
    case SM_MEDIATE_RELAY:
        if (m->word_awaited) {
            m->word_late = true;
            hear_the_end(m);
            break;
        }
        if (sm_limits_blocked(s, SM_CAPS_UP) || sm_limits_blocked(s, SM_CAPS_DOWN)) {
            limit(s, SM_MEDIATE_GUEST_US); /* it is a cap that holds the last bytes back, and no side */
            break;
        }
        drop_origin(s, true);
        abort_guest(s);
        break;
    case SM_MEDIATE_CLOSING:
        if (m->end[SM_BRIDGE_GUEST].eof) {
            close_mediated(s); /* the guest may still be taking its last bytes from the front */
        } else {
            drop_origin(s, true);
            abort_guest(s);
        }
        break;
    }
}

/* Upstream's handshake. */

static const char *connection_name(const struct sm_session *s)
{
    if (s->asserted.kind == SM_NAME_HOST)
        return s->asserted.name;
    return s->verdict.host[0] ? s->verdict.host : NULL; /* no SNI: the name that the address was pinned for */
}

enum sm_mediate_kind sm_mediate_kind(const struct sm_session *s)
{
    return sm_rule_kind(s->core->config->mode, &s->verdict, s->classified);
}

static void start_upstream(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;
    struct sm_mediate_end *e = &m->end[SM_BRIDGE_ORIGIN];
    g_autoptr(GError) error = NULL;
    struct sm_tls_peer peer = {
        .name = connection_name(s),
        .addr = s->dialled.addr,
        .port = s->dialled.port,
        .send_sni = s->tls->sni_len > 0,
        .alpn = s->tls->alpn,
        .alpn_len = s->tls->alpn_len,
        .wall_us = sm_clock_wall_us(),
    };

    e->tls = sm_tls_conn_new_upstream(s->core->tls_upstream, &peer, &e->wire, &error);
    if (!e->tls) {
        upstream_failed(s, SM_TLS_FAILURE_RESOURCES, "out_of_resources", error->message);
        return;
    }
    handshake(s, SM_BRIDGE_ORIGIN);
}

static void dial_recorded(struct sm_session *s, bool ok)
{
    struct sm_mediation *m = s->mediation;

    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    m->phase = SM_MEDIATE_UPSTREAM;
    limit(s, SM_MEDIATE_UPSTREAM_US);
    if (sm_pki_roots(m))
        start_upstream(s);
}

void sm_mediate_tls(struct sm_session *s)
{
    struct sm_audit_record r;

    if (!s->core->ca) {
        sm_session_deny(s, "interception_unavailable");
        return;
    }
    struct sm_mediation *m = begin(s, true);
    m->phase = SM_MEDIATE_COMMIT;
    s->state = SM_SESSION_SECURING;
    sm_session_line(s, &r, SM_AUDIT_EGRESS_MITM_DIAL, sm_reason_name(s->verdict.reason));
    if (s->tls->ech)
        sm_audit_add_bool(&r, "ech", true); /* the name is the outer one; what is inside is not for us */
    sm_session_record(s, &r, dial_recorded);
}

/* The alert that says why, on a pair of its own: never a certificate of ours for a server that could not show one. */
static void alert_guest(struct sm_session *s, bool ok)
{
    struct sm_mediation *m = s->mediation;

    drop_origin(s, true);
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    if (!attach_pair(s)) {
        sm_session_give_up(s, "out_of_resources");
        return;
    }
    (void)!send(s->pair.fd, m->alert, sizeof(m->alert), MSG_NOSIGNAL); /* an empty socket buffer takes seven bytes */
    close_guest(s, false);
}

static void upstream_failed(struct sm_session *s, enum sm_tls_failure failure, const char *reason, const char *text)
{
    struct sm_mediation *m = s->mediation;
    struct sm_audit_record r;

    sm_pki_wait_cancel(m);
    unlimit(s);
    sm_loop_unwatch(s->core->loop, &s->upstream);
    sm_tls_alert_for(failure, m->alert);
    m->why = reason;
    m->phase = SM_MEDIATE_COMMIT;
    sm_session_line(s, &r, SM_AUDIT_EGRESS_MITM_UPSTREAM_ERROR, reason);
    sm_audit_add_guest(&r, "error", text, text ? strlen(text) : 0);
    if (m->end[SM_BRIDGE_ORIGIN].tls)
        sm_audit_add_str(&r, "alert", sm_tls_conn_alert(m->end[SM_BRIDGE_ORIGIN].tls));
    sm_audit_add_str(&r, "hint", sm_http_page_hint(reason));
    sm_core_note(s->core, &r);
    sm_core_effect(s, alert_guest);
}

static void attach_recorded(struct sm_session *s, bool ok)
{
    struct sm_mediation *m = s->mediation;
    struct sm_mediate_end *e = &m->end[SM_BRIDGE_GUEST];
    g_autoptr(GError) error = NULL;
    size_t alpn_len;
    const uint8_t *alpn = sm_tls_conn_alpn(m->end[SM_BRIDGE_ORIGIN].tls, &alpn_len);

    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    if (!attach_pair(s)) {
        sm_session_give_up(s, "out_of_resources");
        return;
    }
    e->tls = sm_tls_conn_new_guest(s->core->tls_guest, s->tls->sni_len ? s->tls->sni : NULL, m->leaf, alpn, alpn_len,
                                   &e->wire, &error);
    g_clear_pointer(&m->leaf, X509_free);
    sm_session_drop_first_bytes(s);
    if (!e->tls) {
        guest_failed(s, "out_of_resources");
        return;
    }
    m->phase = SM_MEDIATE_GUEST;
    limit(s, SM_MEDIATE_GUEST_US);
    advance(s);
}

static void have_leaf(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;
    const struct sm_tls_conn *tls = m->end[SM_BRIDGE_ORIGIN].tls;
    struct sm_audit_record r;
    size_t alpn_len;
    const uint8_t *alpn = sm_tls_conn_alpn(tls, &alpn_len);

    unlimit(s);
    m->phase = SM_MEDIATE_COMMIT;
    sm_session_line(s, &r, SM_AUDIT_EGRESS_ALLOW, sm_reason_name(s->verdict.reason));
    sm_audit_add_guest(&r, "alpn", alpn, alpn_len);
    sm_audit_add_str(&r, "tls_version", sm_tls_conn_version(tls));
    sm_audit_add_bool(&r, "resumed", sm_tls_conn_resumed(tls));
    s->core->n_allowed++;
    sm_session_record(s, &r, attach_recorded);
}

static void want_leaf(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;

    m->phase = SM_MEDIATE_LEAF;
    watch_end(s, &m->end[SM_BRIDGE_ORIGIN], false, false);
    switch (sm_pki_leaf(m)) {
    case SM_TLS_LEAF_OK:
        have_leaf(s);
        break;
    case SM_TLS_LEAF_LATER:
        limit(s, SM_MEDIATE_UPSTREAM_US);
        break;
    case SM_TLS_LEAF_FAILED:
    case SM_TLS_LEAF_STATUS_COUNT:
        upstream_failed(s, SM_TLS_FAILURE_RESOURCES, "leaf_unavailable", NULL);
        break;
    }
}

void sm_mediate_go_on(struct sm_mediation *m)
{
    if (m->phase == SM_MEDIATE_UPSTREAM)
        start_upstream(m->s);
    else if (m->phase == SM_MEDIATE_LEAF && m->leaf)
        have_leaf(m->s);
    else if (m->phase == SM_MEDIATE_LEAF)
        upstream_failed(m->s, SM_TLS_FAILURE_RESOURCES, "leaf_unavailable", NULL);
}

/* The guest's handshake. */

static void guest_failed(struct sm_session *s, const char *reason)
{
    struct sm_mediation *m = s->mediation;
    const struct sm_tls_conn *tls = m->end[SM_BRIDGE_GUEST].tls;
    struct sm_audit_record r;
    const char *name = connection_name(s);
    char addr[SM_ADDR_STRLEN];
    g_autofree char *hint = g_strdup_printf(
        "a client that brings its own certificates cannot be intercepted: --egress-passthrough %s leaves it alone",
        name ? name : sm_addr_format(&s->dst.addr, addr));

    m->why = reason;
    sm_session_line(s, &r, SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR, reason);
    if (tls) {
        sm_audit_add_str(&r, "alert", sm_tls_conn_alert(tls));
        sm_audit_add_str(&r, "error", sm_tls_conn_error(tls));
    }
    sm_audit_add_str(&r, "hint", hint);
    sm_core_note(s->core, &r);
    unlimit(s);
    drop_origin(s, true);
    close_guest(s, false);
}

static void use_bridge(struct sm_session *s, struct sm_bridge *bridge)
{
    struct sm_mediation *m = s->mediation;

    m->bridge = bridge;
    m->phase = SM_MEDIATE_RELAY;
    m->end[SM_BRIDGE_GUEST].readable = m->end[SM_BRIDGE_ORIGIN].readable = true; /* nobody knows yet */
    unlimit(s);
}

static struct sm_bridge *new_http(struct sm_mediation *m, bool h2)
{
    struct sm_bridge_config config = {.tls = m->tls, .strip_alt_svc = m->tls, .account = &m->held};

    m->h2 = h2;
    return h2 ? sm_bridge_new_h2(&sm_request_ops, m, &config) : sm_bridge_new_h1(&sm_request_ops, m, &config);
}

static struct sm_bridge *new_raw(struct sm_mediation *m)
{
    return sm_bridge_new_raw(&(struct sm_bridge_config){.tls = m->tls, .account = &m->held});
}

/* What was read to find out what it is goes to the bridge first. */
static void feed_sniffed(struct sm_mediation *m)
{
    while (m->sniff.len > 0) {
        size_t n = SM_MIN(sm_bridge_room(m->bridge, SM_BRIDGE_GUEST), m->sniff.len);
        if (n == 0)
            return;
        sm_bridge_feed(m->bridge, SM_BRIDGE_GUEST, sm_buf_peek(&m->sniff), n);
        sm_buf_consume(&m->sniff, n);
    }
}

static void raw_recorded(struct sm_session *s, bool ok)
{
    struct sm_mediation *m = s->mediation;

    if (!ok) {
        m->why = "not_recorded";
        finish(s, false);
        return;
    }
    m->phase = SM_MEDIATE_RELAY;
    if (s->gone)
        limit(s, SM_MEDIATE_CLOSING_US);
    sm_mediate_pump(s);
}

static void relay_raw(struct sm_session *s, const char *reason)
{
    struct sm_mediation *m = s->mediation;
    struct sm_audit_record r;

    if (!m->bridge)
        use_bridge(s, new_raw(m));
    m->phase = SM_MEDIATE_COMMIT;
    watch_end(s, &m->end[SM_BRIDGE_GUEST], false, false);
    watch_end(s, &m->end[SM_BRIDGE_ORIGIN], false, false);
    unlimit(s);
    feed_sniffed(m);
    sm_session_line(s, &r, SM_AUDIT_EGRESS_MITM_OPAQUE, reason);
    sm_session_record(s, &r, raw_recorded);
}

/* The guest's word goes on and stays here: what follows is still read with it before it, and the origin gets it once. */
static void release_word(struct sm_mediation *m)
{
    struct sm_mediate_end *origin = &m->end[SM_BRIDGE_ORIGIN];
    size_t n;

    while (m->skip < m->sniff.len &&
           end_write(origin, sm_buf_peek(&m->sniff) + m->skip, m->sniff.len - m->skip, &n) == SM_TLS_IO_OK)
        m->skip += n;
    (void)sm_tls_conn_flush(origin->tls);
}

/* Inside TLS, and no ALPN said what it is. As with first bytes on the wire: silence decides nothing, the server may speak first. */
static void sniff(struct sm_session *s, bool waited)
{
    struct sm_mediation *m = s->mediation;
    struct sm_mediate_end *guest = &m->end[SM_BRIDGE_GUEST], *origin = &m->end[SM_BRIDGE_ORIGIN];
    enum sm_tls_io io = SM_TLS_IO_WANT_READ;
    bool stuck; /* a read that waits for what TLS has to answer */
    size_t n;

    (void)sm_tls_conn_flush(guest->tls);
    (void)sm_tls_conn_flush(origin->tls);
    for (unsigned i = 0; i < SM_MEDIATE_ROUNDS && !guest->eof && sm_buf_room(&m->sniff) > 0; i++) {
        size_t room = SM_MIN(sm_buf_room(&m->sniff), sizeof(scratch));
        io = end_read(guest, scratch, room, &n);
        if (io != SM_TLS_IO_OK)
            break;
        (void)!sm_buf_append(&m->sniff, scratch, n);
    }
    if (io != SM_TLS_IO_OK && io != SM_TLS_IO_WANT_READ && io != SM_TLS_IO_WANT_WRITE) {
        guest->eof = true;
        guest->cut = io != SM_TLS_IO_EOF;
    }
    stuck = io == SM_TLS_IO_WANT_WRITE;
    enum sm_http_status http = sm_http_head_feed(&m->head, sm_buf_peek(&m->sniff), m->sniff.len);
    if (guest->eof)
        http = sm_http_head_end(&m->head, sm_buf_peek(&m->sniff), m->sniff.len);
    if (http == SM_HTTP_HTTP1 || http == SM_HTTP_REJECT || http == SM_HTTP_HTTP2 ||
        m->head.maybe == SM_HTTP_MAYBE_LINE) {
        use_bridge(s, new_http(m, http == SM_HTTP_HTTP2));
        feed_sniffed(m);
        if (guest->eof)
            tell_eof(m, SM_BRIDGE_GUEST);
        sm_mediate_pump(s);
        return;
    }
    /* A word of a few letters may be all that the guest says before it is answered, or the start of a request line. */
    bool word = m->head.maybe == SM_HTTP_MAYBE_TOKEN;
    if (word && waited && !guest->eof)
        release_word(m);
    bool not_http = http == SM_HTTP_NOT_HTTP || guest->eof;
    const char *reason = not_http || m->skip > 0 ? "not_http" : "server_first";
    if (!not_http && !origin->eof) {
        io = end_read(origin, scratch, sizeof(scratch), &n);
        if (io == SM_TLS_IO_OK || (io != SM_TLS_IO_WANT_READ && io != SM_TLS_IO_WANT_WRITE)) {
            use_bridge(s, new_raw(m));
            if (io == SM_TLS_IO_OK) {
                sm_bridge_feed(m->bridge, SM_BRIDGE_ORIGIN, scratch, n);
            } else {
                origin->eof = true;
                origin->cut = io != SM_TLS_IO_EOF;
                tell_eof(m, SM_BRIDGE_ORIGIN);
            }
            not_http = true;
        }
    }
    if (not_http) {
        if (!m->bridge)
            use_bridge(s, new_raw(m));
        if (guest->eof) {
            feed_sniffed(m);
            tell_eof(m, SM_BRIDGE_GUEST);
        }
        relay_raw(s, reason);
        return;
    }
    if (word && m->sniff.len > m->skip && !sm_timer_armed(&s->timer))
        limit(s, SM_CORE_RELEASE_US);
    if (sm_tls_conn_readable(guest->tls) && !stuck && !sm_timer_armed(&m->again)) /* it sends small records */
        sm_loop_arm(s->core->loop, &m->again, sm_loop_now(s->core->loop));
    watch_end(s, guest, !stuck, end_unsent(guest) > 0);
    watch_end(s, origin, io != SM_TLS_IO_WANT_WRITE, end_unsent(origin) > 0);
}

static bool alpn_is(const uint8_t *alpn, size_t len, const char *name)
{
    return alpn && len == strlen(name) && memcmp(alpn, name, len) == 0;
}

static void inside_tls(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;
    size_t len;
    const uint8_t *alpn = sm_tls_conn_alpn(m->end[SM_BRIDGE_GUEST].tls, &len);

    bool h2 = alpn_is(alpn, len, "h2") || alpn_is(alpn, len, "grpc-exp"); /* what older gRPC calls it */

    if (h2 || alpn_is(alpn, len, "http/1.1") || alpn_is(alpn, len, "http/1.0")) {
        use_bridge(s, new_http(m, h2));
        sm_mediate_pump(s);
    } else if (alpn) {
        relay_raw(s, "alpn");
    } else {
        m->phase = SM_MEDIATE_SNIFF;
        sm_http_head_init(&m->head);
        sniff(s, false);
    }
}

/* With upstream first, then with the guest: mediate.h. */
static void handshake(struct sm_session *s, enum sm_bridge_side with)
{
    struct sm_mediate_end *e = &s->mediation->end[with];
    enum sm_tls_failure failure = SM_TLS_FAILURE_CLOSED;
    const char *text = NULL;
    enum sm_tls_io io = sm_tls_conn_handshake(e->tls);

    switch (io) {
    case SM_TLS_IO_OK:
        unlimit(s);
        if (with == SM_BRIDGE_ORIGIN)
            want_leaf(s);
        else
            inside_tls(s);
        return;
    case SM_TLS_IO_WANT_READ:
    case SM_TLS_IO_WANT_WRITE:
        watch_handshake(s, e, io);
        return;
    case SM_TLS_IO_EOF:
    case SM_TLS_IO_CUT:
        break;
    case SM_TLS_IO_ERROR:
    case SM_TLS_IO_COUNT:
        failure = sm_tls_conn_failure(e->tls);
        text = sm_tls_conn_error(e->tls);
        break;
    }
    if (with == SM_BRIDGE_ORIGIN)
        upstream_failed(s, failure, sm_tls_failure_name(failure), text);
    else
        guest_failed(s, sm_tls_failure_name(failure));
}

/* Cleartext. */

void sm_mediate_cleartext(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    struct sm_mediation *m = begin(s, false);
    bool h2 = strcmp(s->classified, "h2") == 0;

    if (!attach_pair(s)) {
        sm_session_give_up(s, "out_of_resources");
        return;
    }
    sm_session_drop_first_bytes(s);
    use_bridge(s, new_http(m, h2));
    sm_mediate_pump(s);
}

void sm_mediate_raw(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    struct sm_mediation *m = begin(s, false);

    if (!attach_pair(s)) {
        sm_session_give_up(s, "out_of_resources");
        return;
    }
    sm_session_drop_first_bytes(s);
    m->raw = true;
    use_bridge(s, new_raw(m));
    sm_mediate_pump(s);
}

bool sm_mediate_can_page(const struct sm_session *s)
{
    return s->accepted && s->http && !s->mediation && s->give_fd < 0 && s->core->config->mode != SM_MODE_OFF &&
           (s->http->status == SM_HTTP_HTTP1 || s->http->status == SM_HTTP_REJECT);
}

void sm_mediate_page(struct sm_session *s, bool ok)
{
    char text[SM_HTTP_PAGE_MAX + 512];
    const uint8_t *data = sm_buf_peek(&s->held);
    bool rejected = s->http->status == SM_HTTP_REJECT;
    bool head = !rejected && s->http->method.len == 4 && memcmp(data + s->http->method.off, "HEAD", 4) == 0;
    struct sm_http_page page = {
        .status = rejected ? 400 : 403, .reason = s->page_reason, .workspace = s->core->config->workspace};

    if (rejected)
        page.host = (struct sm_text){s->verdict.host, strlen(s->verdict.host)};
    else
        page.host = (struct sm_text){(const char *)data + s->http->host.off, s->http->host.len};
    size_t len = sm_http_page_response(&page, head, text, sizeof(text));
    struct sm_mediation *m = begin(s, false);
    drop_origin(s, true);
    if (!ok || len == 0 || !attach_pair(s)) {
        sm_session_refuse(s, SM_HOW_RST, 0, SM_REASON_LIMIT);
        return;
    }
    m->why = s->page_reason;
    (void)!send(s->pair.fd, text, len, MSG_NOSIGNAL); /* an empty socket buffer takes a page */
    close_guest(s, true);
}

/* The relay. */

/* All flows together hold too much, and this one more than its small share: it is not read until somebody has taken what waits. */
static bool over_budget(const struct sm_mediation *m)
{
    return m->s->core->relayed_now > SM_MEDIATE_TOTAL && m->counted > SM_MEDIATE_SHARE;
}

static size_t room_for(const struct sm_mediation *m, enum sm_bridge_side side)
{
    /* HTTP/2 must be read, or it would never hear that a window is open again; see sm_mediate_pump(). */
    return m->end[side].eof || (over_budget(m) && !m->h2) ? 0 : sm_bridge_room(m->bridge, side);
}

static void count_held(struct sm_mediation *m)
{
    size_t now = m->held + m->sniff.len;

    for (enum sm_bridge_side side = 0; side < SM_BRIDGE_SIDES; side++)
        now += m->end[side].tls ? sm_tls_conn_held(m->end[side].tls) : 0;

    m->s->core->relayed_now += now - m->counted;
    m->counted = now;
}

/*
 * The guest's end of a pair was read. If the front has closed it altogether (then sending fails, even nothing) that may
 * have been the guest's reset, and what the origin got so far must not look complete: it hears of it with GONE. A front
 * that does not say it is not waited for.
 */
static bool awaits_word(struct sm_mediation *m)
{
    struct sm_session *s = m->s;
    struct sm_mediate_end *e = &m->end[SM_BRIDGE_GUEST];

    if (!m->raw || s->gone || m->word_late || e->shut || send(e->watch->fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) == 0)
        return false;
    m->word_awaited = e->dead = true;
    limit(s, SM_CORE_END_WAIT_US);
    return true;
}

/* What it reads is lent to the bridge: sm_bridge_keep() before the next pull. */
static bool pull(struct sm_mediation *m, enum sm_bridge_side side)
{
    struct sm_mediate_end *e = &m->end[side];
    size_t room = SM_MIN(room_for(m, side), sizeof(scratch));
    size_t n;

    if (side == SM_BRIDGE_GUEST && m->sniff.len > 0) {
        feed_sniffed(m);
        return m->sniff.len == 0;
    }
    if (room == 0 || e->stuck || (!e->readable && !(e->tls && sm_tls_conn_readable(e->tls))))
        return false;
    enum sm_tls_io io = end_read(e, scratch, room, &n);
    switch (io) {
    case SM_TLS_IO_OK:
        if (n < room && !(side == SM_BRIDGE_ORIGIN && sm_limits_cut_short(m->s)))
            e->readable = false; /* it took all there was; more, or the end, is a new event */
        sm_bridge_lend(m->bridge, side, scratch, n);
        return true;
    case SM_TLS_IO_WANT_WRITE:
        e->stuck = true; /* what TLS has to answer goes first */
        return false;
    case SM_TLS_IO_WANT_READ:
        e->readable = false;
        return false;
    case SM_TLS_IO_EOF:
    case SM_TLS_IO_CUT:
    case SM_TLS_IO_ERROR:
    case SM_TLS_IO_COUNT:
        break;
    }
    if (side == SM_BRIDGE_GUEST && io == SM_TLS_IO_EOF && awaits_word(m)) {
        e->readable = false;
        return false;
    }
    e->eof = true;
    e->cut = io != SM_TLS_IO_EOF;
    tell_eof(m, side);
    return true;
}

/* True when something was taken. */
static bool push(struct sm_mediation *m, enum sm_bridge_side side)
{
    struct sm_mediate_end *e = &m->end[side];
    bool moved = false;
    const uint8_t *p;
    size_t len, n;

    while ((len = sm_bridge_out(m->bridge, side, &p)) > 0) {
        if (e->dead) {
            sm_bridge_took(m->bridge, side, len); /* nobody is there to take it; what that side still says is read */
            moved = true;
            continue;
        }
        if (side == SM_BRIDGE_ORIGIN && m->skip > 0) {
            n = SM_MIN(m->skip, len);
            m->skip -= n;
            sm_bridge_took(m->bridge, side, n);
            continue;
        }
        enum sm_tls_io io = end_write(e, p, len, &n);
        if (io == SM_TLS_IO_WANT_READ || io == SM_TLS_IO_WANT_WRITE)
            break;
        if (io != SM_TLS_IO_OK) {
            e->dead = true;
            continue;
        }
        sm_bridge_took(m->bridge, side, n);
        moved = true;
    }
    if (e->tls && !e->dead && sm_tls_conn_flush(e->tls) == SM_TLS_IO_ERROR)
        e->dead = true;
    if (e->stuck && (e->dead || end_unsent(e) == 0)) {
        e->stuck = false;
        moved = true;
    }
    if (!e->shut && !e->dead && sm_bridge_ended(m->bridge) != SM_BRIDGE_CUT && sm_bridge_out_closed(m->bridge, side) &&
        sm_bridge_out(m->bridge, side, &p) == 0 && end_unsent(e) == 0) {
        if (e->tls)
            (void)sm_tls_conn_shutdown(e->tls);
        if (end_unsent(e) == 0) {
            (void)shutdown(e->watch->fd, SHUT_WR);
            e->shut = true;
        }
    }
    return moved;
}

static bool all_sent(struct sm_mediation *m, enum sm_bridge_side side)
{
    const uint8_t *p;

    return m->end[side].dead || (sm_bridge_out(m->bridge, side, &p) == 0 && end_unsent(&m->end[side]) == 0);
}

static void watch_relay(struct sm_mediation *m, enum sm_bridge_side side)
{
    struct sm_mediate_end *e = &m->end[side];
    const uint8_t *p;
    /* An end that says something and cannot be read is left alone until it can; one that says nothing stays watched, which costs no call. */
    bool in = !e->eof && !(e->readable && (e->stuck || room_for(m, side) == 0));
    in = in && !(side == SM_BRIDGE_GUEST && m->word_awaited);
    bool out = !e->dead && (end_unsent(e) > 0 || sm_bridge_out(m->bridge, side, &p) > 0);

    watch_end(m->s, e, in, out);
}

void sm_mediate_pump(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;
    bool moved = true;

    if (m->phase != SM_MEDIATE_RELAY)
        return;
    for (unsigned i = 0; moved && i < SM_MEDIATE_ROUNDS; i++) {
        moved = pull(m, SM_BRIDGE_ORIGIN);
        moved |= push(m, SM_BRIDGE_GUEST);
        sm_bridge_keep(m->bridge);
        moved |= pull(m, SM_BRIDGE_GUEST);
        moved |= push(m, SM_BRIDGE_ORIGIN);
        sm_bridge_keep(m->bridge);
        count_held(m);
    }
    if (m->h2 && over_budget(m)) {
        m->why = "too_many_held_bytes";
        finish(s, false);
        return;
    }
    enum sm_bridge_end end = sm_bridge_ended(m->bridge);
    if (end != SM_BRIDGE_LIVE) {
        if (all_sent(m, SM_BRIDGE_GUEST) && all_sent(m, SM_BRIDGE_ORIGIN)) {
            finish(s, end == SM_BRIDGE_FINISHED);
            return;
        }
        if (!sm_timer_armed(&s->timer))
            limit(s, SM_MEDIATE_GUEST_US); /* a side that does not take its last bytes */
    }
    /* Nothing more will be said to either side: what the guest still sends (the body of a refused request) is dropped, but not for ever. */
    if (end == SM_BRIDGE_LIVE && m->end[SM_BRIDGE_GUEST].shut && m->end[SM_BRIDGE_ORIGIN].shut &&
        !sm_timer_armed(&s->timer))
        limit(s, SM_MEDIATE_GUEST_US);
    watch_relay(m, SM_BRIDGE_GUEST);
    watch_relay(m, SM_BRIDGE_ORIGIN);
    if (moved && !sm_timer_armed(&m->again))
        sm_loop_arm(s->core->loop, &m->again, sm_loop_now(s->core->loop));
}

static void advance(struct sm_session *s)
{
    switch (s->mediation->phase) {
    case SM_MEDIATE_UPSTREAM:
        handshake(s, SM_BRIDGE_ORIGIN);
        break;
    case SM_MEDIATE_LEAF:
    case SM_MEDIATE_COMMIT:
        break;
    case SM_MEDIATE_GUEST:
        handshake(s, SM_BRIDGE_GUEST);
        break;
    case SM_MEDIATE_SNIFF:
        sniff(s, false);
        break;
    case SM_MEDIATE_RELAY:
        sm_mediate_pump(s);
        break;
    case SM_MEDIATE_CLOSING:
        drain_guest(s);
        break;
    }
}

static void on_end(struct sm_session *s, enum sm_bridge_side side, uint32_t events)
{
    if (events & ~(uint32_t)EPOLLOUT)
        s->mediation->end[side].readable = true;
    advance(s);
}

static void on_guest(struct sm_watch *watch, uint32_t events)
{
    on_end(sm_container_of(watch, struct sm_session, pair), SM_BRIDGE_GUEST, events);
}

static void on_origin(struct sm_watch *watch, uint32_t events)
{
    on_end(sm_container_of(watch, struct sm_session, upstream), SM_BRIDGE_ORIGIN, events);
}

void sm_mediate_wake(struct sm_session *s, enum sm_caps_dir dir)
{
    if (!s->mediation)
        return; /* first bytes that are sent on ahead: their own timer comes again */
    if (dir == SM_CAPS_DOWN)
        s->mediation->end[SM_BRIDGE_ORIGIN].readable = true;
    advance(s);
}

void sm_mediate_tear_down(struct sm_session *s, const char *why)
{
    struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};

    if (!s->mediation) {
        sm_tcp_count(s);
        (void)sm_channel_send(s->core->channel, &m, -1);
        sm_session_close(s, why);
        return;
    }
    s->mediation->why = why;
    sm_core_effect_cancel(s);
    drop_origin(s, true);
    abort_guest(s);
}

void sm_mediate_gone(struct sm_session *s)
{
    struct sm_mediation *m = s->mediation;

    if (m->aborted) { /* by us: the front has closed its end, which is all that was waited for */
        sm_session_close(s, m->why);
        return;
    }
    if (s->gone_why != SM_WHY_CLOSED) {
        if (!m->why)
            m->why = sm_flow_why_name(s->gone_why);
        drop_origin(s, !m->tls);
        sm_session_close(s, m->why);
        return;
    }
    /* The front has closed its end in order: what it wrote before is still in the pair, and nobody will read what we write. */
    struct sm_core *core = s->core;
    uint64_t id = s->id;
    m->end[SM_BRIDGE_GUEST].dead = true;
    if (m->word_awaited) {
        unlimit(s);
        hear_the_end(m);
    } else {
        advance(s);
    }
    if (g_hash_table_lookup(core->sessions, &id) == s && m->phase == SM_MEDIATE_RELAY)
        limit(s, SM_MEDIATE_CLOSING_US);
}

void sm_mediate_stop(struct sm_session *s)
{
    struct sm_core *core = s->core;
    uint64_t id = s->id;

    for (unsigned i = 0; i < SM_MEDIATE_STOP_ROUNDS; i++) {
        if (g_hash_table_lookup(core->sessions, &id) != s || s->mediation->phase != SM_MEDIATE_RELAY)
            return;
        sm_mediate_pump(s);
    }
    if (g_hash_table_lookup(core->sessions, &id) == s && s->mediation->phase == SM_MEDIATE_RELAY &&
        !all_sent(s->mediation, SM_BRIDGE_ORIGIN))
        drop_origin(s, true); /* what is held back is lost, and must not end as if it had been all */
}
