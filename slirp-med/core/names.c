/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names: the guest's DNS, over UDP (DATAGRAM messages) and TCP (a stream pair whose other end the front has), answered by dnsserve.c and
 * glued here to policy, pins and audit.
 *
 * A query that goes upstream is recorded before it leaves (egress_dns_query), because its name alone can carry data out; its answer is a line
 * of its own, written before the reply is released. All of a turn are one write (turn.c).
 */
#include "core/core.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

/** DNS over TCP: a connection that asks nothing for this long is closed (RFC 7766 6.2.3 leaves the time to the server). */
#define DNS_TCP_IDLE_US INT64_C(30000000)
/** Bytes of queries and replies held for one connection: one largest message each way, and a few small ones behind it. */
#define DNS_TCP_IN_MAX (16 * 1024)
#define DNS_TCP_OUT_MAX (256 * 1024)
/** Largest query over TCP that is looked at. */
#define DNS_TCP_QUERY_MAX SM_DNS_QUERY_MAX

static void judge(void *data, const char *qname, uint16_t qtype, struct sm_dnsserve_judgement *ret)
{
    struct sm_core *core = data;
    struct sm_verdict v;

    (void)qtype;
    sm_decide_dns(core->config->mode, core->config->lists, qname, strlen(qname), &v);
    if (core->config->mode != SM_MODE_OFF && !sm_audit_healthy(core->audit))
        v.action = SM_ACTION_DENY;
    g_strlcpy(core->dns_rule, v.rule, sizeof(core->dns_rule));
    ret->verdict = v.action == SM_ACTION_ALLOW ? SM_DNSSERVE_ALLOW : SM_DNSSERVE_REFUSE;
    ret->reason = sm_reason_name(v.reason);
    ret->rule = core->dns_rule[0] ? core->dns_rule : NULL;
    /* What would be intercepted is led to TCP: HTTP/3 would only be refused at UDP 443, one round trip later. */
    ret->no_h3 = core->config->mode != SM_MODE_OFF && !core->config->opaque && !v.passthrough;
}

static void line(struct sm_audit_record *r, enum sm_audit_event event, const struct sm_dnsserve_event *ev)
{
    const char *type = sm_dns_type_name(ev->qtype);

    sm_audit_begin(r, event, sm_clock_wall_us());
    sm_audit_add_endpoint(r, "src", &ev->client.src);
    sm_audit_add_endpoint(r, "server", &ev->client.dst);
    sm_audit_add_guest(r, "host", ev->qname, strlen(ev->qname));
    if (type)
        sm_audit_add_str(r, "qtype", type);
    else
        sm_audit_add_int(r, "qtype", ev->qtype);
    sm_audit_add_str(r, "rule", ev->rule);
    sm_audit_add_str(r, "reason", ev->reason);
}

static bool record_answer(struct sm_core *core, const struct sm_dnsserve_event *ev)
{
    struct sm_audit_record r;
    /* One more than a line takes, so that the line says itself that it is cut. */
    char text[SM_AUDIT_STRV_MAX + 1][SM_ADDR_STRLEN];
    const char *answers[SM_AUDIT_STRV_MAX + 1];
    size_t n = SM_MIN(ev->n_addrs, SM_ARRAY_LEN(answers));

    line(&r, SM_AUDIT_EGRESS_DNS_ALLOW, ev);
    sm_audit_add_str(&r, "rcode", sm_dns_rcode_name(ev->rcode));
    for (size_t i = 0; i < n; i++)
        answers[i] = sm_addr_format(&ev->addrs[i], text[i]);
    sm_audit_add_strv(&r, "answers", answers, n);
    sm_audit_add_uint(&r, "records", ev->n_records);
    sm_audit_add_uint(&r, "ttl", ev->ttl);
    if (ev->cname)
        sm_audit_add_guest(&r, "cname", ev->cname, strlen(ev->cname));
    return sm_core_record(core, &r);
}

static bool record_denial(struct sm_core *core, const struct sm_dnsserve_event *ev)
{
    struct sm_audit_record r;
    struct sm_audit_repeat_key key = {.proto = IPPROTO_UDP,
                                      .name = ev->qname,
                                      .name_len = strlen(ev->qname),
                                      .reason = ev->reason ? ev->reason : "denied"};

    if (ev->kind == SM_DNSSERVE_EVENT_LIMITED)
        key.name_len = 0; /* one line a second, whatever was asked */
    line(&r, SM_AUDIT_EGRESS_DNS_DENY, ev);
    sm_audit_add_str(&r, "rcode", sm_dns_rcode_name(ev->rcode));
    core->n_denied += ev->count;
    return sm_audit_repeats_deny(core->repeats, core->audit, &key, &r, ev->count, sm_loop_now(core->loop));
}

static bool event(void *data, const struct sm_dnsserve_event *ev)
{
    struct sm_core *core = data;
    struct sm_audit_record r;

    if (core->config->mode == SM_MODE_OFF)
        return true;
    switch (ev->kind) {
    case SM_DNSSERVE_EVENT_FORWARD:
        line(&r, SM_AUDIT_EGRESS_DNS_QUERY, ev);
        return sm_core_record(core, &r); /* turn.c sends it when this is written */
    case SM_DNSSERVE_EVENT_ANSWER:
        return record_answer(core, ev);
    case SM_DNSSERVE_EVENT_DENY:
    case SM_DNSSERVE_EVENT_LIMITED:
        (void)record_denial(core, ev);
        return true; /* a refusal opens nothing */
    case SM_DNSSERVE_EVENT_ERROR:
        line(&r, SM_AUDIT_EGRESS_DNS_ERROR, ev);
        sm_audit_add_str(&r, "rcode", sm_dns_rcode_name(ev->rcode));
        sm_core_note(core, &r);
        return true;
    case SM_DNSSERVE_EVENT_COUNT:
        break;
    }
    return false;
}

void sm_names_learn(struct sm_core *core, const char *name, const struct sm_addr *addrs, size_t n, uint32_t ttl)
{
    int64_t now = sm_loop_now(core->loop);
    struct sm_host host;
    bool fresh = false, held = now < core->hold_until_us; /* only then does it matter that one is new */

    if (sm_name_classify(name, strlen(name), &host) != SM_NAME_HOST)
        return;
    for (size_t i = 0; i < n; i++) {
        fresh |= held && sm_pins_find(core->pins, host.name, &addrs[i], now) == NULL;
        (void)sm_pins_add(core->pins, host.name, &addrs[i], ttl, now); /* a full table: the name stays unproven */
    }
    if (fresh) {
        struct sm_flow_msg m = {.type = SM_FLOW_RELEASE};
        (void)sm_channel_send(core->channel, &m, -1);
        core->hold_until_us = 0;
    }
}

static void pin(void *data, const char *qname, const struct sm_addr *addrs, size_t n_addrs, uint32_t ttl)
{
    sm_names_learn(data, qname, addrs, n_addrs, ttl);
}

/* DNS over TCP */

static void served_end(struct sm_session *s)
{
    sm_session_close(s, NULL); /* closing our end of the pair is the FIN */
}

static void served_flush(struct sm_session *s)
{
    while (s->dns_out.len > 0) {
        ssize_t n = send(s->pair.fd, sm_buf_peek(&s->dns_out), s->dns_out.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            served_end(s);
            return;
        }
        sm_buf_consume(&s->dns_out, (size_t)n);
    }
    if (s->guest_eof && s->dns_out.len == 0 && s->dns_pending == 0) {
        served_end(s);
        return;
    }
    uint32_t events =
        (s->guest_eof || s->dns_out.len > DNS_TCP_OUT_MAX / 2 ? 0 : EPOLLIN) | (s->dns_out.len ? EPOLLOUT : 0);
    if (sm_loop_watch(s->core->loop, &s->pair, events) < 0)
        served_end(s);
}

static void served_release(struct sm_session *s, bool ok)
{
    if (ok)
        served_flush(s);
    else
        served_end(s);
}

static void served_idle(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    served_end(sm_container_of(timer, struct sm_session, timer));
}

static void on_served(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, pair);
    struct sm_core *core = s->core;

    if (events & (EPOLLHUP | EPOLLERR)) {
        served_end(s); /* both directions are shut: nobody is left to answer */
        return;
    }
    if (events & EPOLLOUT && !s->effect) {
        served_flush(s);
        return; /* s may be gone; level-triggered: the rest comes again */
    }
    if (!(events & EPOLLIN))
        return;
    size_t room = SM_MIN(sm_buf_room(&s->dns_in), (size_t)4096);
    uint8_t *at = sm_buf_reserve(&s->dns_in, room);
    ssize_t n = read(watch->fd, at, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        served_end(s);
        return;
    }
    if (n == 0) {
        s->guest_eof = true;
        if (!s->effect)
            served_flush(s);
        return;
    }
    sm_buf_commit(&s->dns_in, (size_t)n);
    sm_loop_arm(core->loop, &s->timer, sm_loop_now(core->loop) + DNS_TCP_IDLE_US);
    uint64_t id = s->id;
    for (;;) {
        const uint8_t *msg;
        size_t len, taken;
        bool bad = false;
        struct sm_dnsserve_client client = {.key = s->id, .transport = SM_DNSSERVE_TCP, .src = s->src, .dst = s->dst};
        taken = sm_dns_frame_next(sm_buf_peek(&s->dns_in), s->dns_in.len, DNS_TCP_QUERY_MAX, &msg, &len, &bad);
        if (bad) {
            served_end(s);
            return;
        }
        if (taken == 0)
            return;
        s->dns_pending++;
        sm_dnsserve_query(core->dns, &client, msg, len, sm_loop_now(core->loop));
        if (!g_hash_table_contains(core->sessions, &id))
            return;
        sm_buf_consume(&s->dns_in, taken);
    }
}

void sm_names_serve(struct sm_session *s, bool ok)
{
    int pair[2];

    if (ok && s->core->dns_tcp_now >= SM_CORE_DNS_TCP_MAX) {
        sm_session_deny(s, "too_many_flows");
        return;
    }
    if (!ok || s->proto != SM_PROTO_TCP || !s->core->dns || sm_session_pair(s->core, SOCK_STREAM, pair) < 0) {
        sm_session_refuse(s, SM_HOW_RST, 0, SM_REASON_LIMIT);
        return;
    }
    s->state = SM_SESSION_SERVED;
    s->core->dns_tcp_now++;
    s->give_fd = pair[1];
    sm_watch_init(&s->pair, pair[0], on_served);
    sm_buf_init(&s->dns_in, DNS_TCP_IN_MAX);
    sm_buf_init(&s->dns_out, DNS_TCP_OUT_MAX);
    sm_timer_init(&s->timer, served_idle);
    sm_loop_arm(s->core->loop, &s->timer, sm_loop_now(s->core->loop) + DNS_TCP_IDLE_US);
    if (sm_loop_watch(s->core->loop, &s->pair, EPOLLIN) < 0) {
        sm_session_refuse(s, SM_HOW_RST, 0, SM_REASON_LIMIT);
        return;
    }
    (void)sm_tcp_accept(s);
    sm_session_attach(s);
}

static void reply(void *data, const struct sm_dnsserve_client *client, const uint8_t *msg, size_t len)
{
    struct sm_core *core = data;

    if (client->transport == SM_DNSSERVE_UDP) {
        sm_core_reply(core, &client->src, &client->dst, msg, len);
        return;
    }
    struct sm_session *s = g_hash_table_lookup(core->sessions, &client->key);
    if (!s || s->state != SM_SESSION_SERVED || len > UINT16_MAX)
        return;
    uint8_t head[2] = {(uint8_t)(len >> 8), (uint8_t)len};
    if (s->dns_pending > 0)
        s->dns_pending--;
    if (sm_buf_room(&s->dns_out) < len + 2)
        return; /* a guest that asks and does not read */
    (void)!sm_buf_append(&s->dns_out, head, 2);
    (void)!sm_buf_append(&s->dns_out, msg, len);
    if (!s->effect)
        sm_core_effect(s, served_release);
}

/* Start */

bool sm_names_init(struct sm_core *core, GError **error)
{
    static const struct sm_dnsserve_ops ops = {.judge = judge, .event = event, .pin = pin, .reply = reply};
    struct sm_core_config *c = core->config;

    if (c->n_dns == 0) {
        /* resolv.conf(5): without a nameserver line the one on this machine is asked. */
        c->dns[0] = (struct sm_endpoint){.addr = sm_addr_v4(127, 0, 0, 1), .port = 53};
        c->n_dns = 1;
    }
    core->resolver = sm_resolver_new(core->loop, c->dns, c->n_dns, error);
    if (!core->resolver)
        return false;
    core->dns = sm_dnsserve_new(core->loop, core->resolver, c->dns_qps, c->dns_qps * 2, &ops, core);
    return true;
}

void sm_names_datagram(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_dnsserve_client client = {
        .key = ++core->dns_key | SM_FLOW_ID_CORE, .transport = SM_DNSSERVE_UDP, .src = msg->src, .dst = msg->dst};

    if (core->stopping || core->config->proxy || !sm_addr_equal(&msg->src.addr, &core->config->guest) ||
        msg->dst.port != 53)
        return;
    sm_dnsserve_query(core->dns, &client, msg->data, msg->data_len, sm_loop_now(core->loop));
}

void sm_names_news(struct sm_core *core, const char *resolv_conf, size_t len)
{
    struct sm_endpoint servers[SM_RESOLVER_SERVERS_MAX];
    g_autoptr(GError) error = NULL;

    if (core->config->dns_fixed)
        return;
    size_t n = sm_resolv_conf_parse(resolv_conf, len, servers, SM_RESOLVER_SERVERS_MAX);
    if (n > 0 && !sm_resolver_set_servers(core->resolver, servers, n, &error))
        sm_log_warning("the new resolv.conf is not used: %s", error->message);
}
