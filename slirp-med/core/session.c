/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A flow's life in the core. This file strings the stages together; every audit line of a flow begins in its
 * sm_session_line():
 *
 *   OPEN ─► judge ATTEMPT ─┬─ DENY ──► egress_deny, REFUSE
 *                          ├─ DNS ───► served by names.c
 *                          ├─ HOLD ──► ACCEPT; wait for a name (nothing is dialled)
 *                          └─ DIAL ──► egress_dial, connect ─┬─ failed ─► egress_dial_error, REFUSE as upstream said
 *                                                            └─ ACCEPT; watch both sides
 *   first bytes (on the kernel path they may be there before upstream is: they wait for it)
 *               ─► judge ASSERT ─┬─ DENY ────► egress_deny, ABORT
 *                                ├─ RESOLVE ─► own look-up; judge RESOLVED per address; egress_dial, connect
 *                                └─ ALLOW ─┬─ handed over: egress_allow, judged bytes, ATTACH
 *                                           └─ mediated: see mediate.h
 *   end, as the kernel tells it ─► egress_close
 *
 * UDP has one stage: judge ATTEMPT, egress_udp_allow, ATTACH.
 *
 * By name (a proxy front's OPEN) there is no ATTEMPT: judge ASSERT with CONNECT, RESOLVE, own look-up, judge RESOLVED per address, dial, and only
 * then ACCEPT. The first bytes are classified as in any flow, and the address is judged again with what they name (decide.h, `inner`). An address
 * that a client names is judged at CONNECT as well; from ACCEPT on it is a flow to that address like any other.
 */
#include "core/mediate.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "core/limits.h"
#include "core/vsock.h"

static const char *const state_names[] = {
#define X(name) [SM_SESSION_##name] = #name,
    SM_SESSION_STATES(X)
#undef X
};
SM_NAME_TABLE_COVERS(state_names, SM_SESSION_STATES_COUNT);

const char *sm_session_state_name(enum sm_session_state state)
{
    return (unsigned)state < SM_SESSION_STATES_COUNT ? state_names[state] : "invalid";
}

static bool is_udp(const struct sm_session *s)
{
    return s->proto == SM_PROTO_UDP;
}

void sm_session_line(const struct sm_session *s, struct sm_audit_record *r, enum sm_audit_event event,
                     const char *reason)
{
    const struct sm_verdict *v = &s->verdict;

    if (s->inbound) {
        sm_ingress_line(s, r, event, reason);
        return;
    }
    const char *host = v->host;
    size_t host_len = strlen(v->host);

    if (host_len == 0 && s->asserted.kind == SM_NAME_HOST) {
        host = s->asserted.name;
        host_len = strlen(host);
    }
    struct sm_endpoint dst = sm_session_dst(s);
    struct sm_audit_target t = {
        .flow = s->id,
        .src = s->src,
        .dst = dst,
        .host = host_len ? host : NULL,
        .host_len = host_len,
        .name_source = sm_name_source_name(v->name_source),
        .rule = v->rule[0] ? v->rule : NULL,
        .reason = reason,
        .unlisted = v->unlisted,
        .internal = v->internal,
        .has_mitm = !is_udp(s),
        .mitm = s->mitm,
    };
    sm_audit_begin(r, event, sm_clock_wall_us());
    sm_audit_add_target(r, &t);
    sm_audit_add_str(r, "classified", s->classified);
    if (s->dialled.port && !sm_endpoint_equal(&s->dialled, &dst))
        sm_audit_add_endpoint(r, "dialled", &s->dialled);
}

bool sm_session_is_named(const struct sm_session *s)
{
    return s->by_name && s->asserted.kind == SM_NAME_HOST;
}

struct sm_endpoint sm_session_dst(const struct sm_session *s)
{
    struct sm_endpoint dst = s->dst;

    if (sm_session_is_named(s))
        dst.addr = s->dialled.addr;
    return dst;
}

static void drop_held(struct sm_session *s)
{
    s->core->held_now -= s->held.len;
    sm_buf_clear(&s->held);
}

void sm_session_drop_first_bytes(struct sm_session *s)
{
    if (s->tls)
        sm_tls_hello_clear(s->tls);
    g_clear_pointer(&s->tls, g_free);
    g_clear_pointer(&s->http, g_free);
}

int sm_session_fd(struct sm_core *core, int fd)
{
    if (fd < core->fd_max)
        return fd;
    if (core->ends.length > 0) { /* flows that are over give theirs back first, and this one takes the lowest */
        sm_core_run_ends(core);
        int lower = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        (void)close(fd);
        fd = lower;
        if (fd < core->fd_max)
            return fd;
    }
    (void)close(fd);
    core->fd_sessions = g_hash_table_size(core->sessions);
    errno = EMFILE;
    return -1;
}

int sm_session_pair(struct sm_core *core, int type, int ret[2])
{
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0)
        return -1;
    ret[0] = sm_session_fd(core, ret[0]);
    ret[1] = sm_session_fd(core, ret[1]);
    if (ret[0] >= 0 && ret[1] >= 0)
        return 0;
    sm_fd_close(&ret[0]);
    sm_fd_close(&ret[1]);
    errno = EMFILE;
    return -1;
}

void sm_session_free(struct sm_session *s)
{
    struct sm_core *core = s->core;

    sm_core_effect_cancel(s);
    if (s->attach_waiting)
        g_queue_unlink(&core->attach_wait, &s->attach_link);
    if (s->lookup)
        sm_resolver_cancel(s->lookup);
    sm_loop_disarm(core->loop, &s->timer);
    sm_loop_unwatch(core->loop, &s->upstream);
    sm_loop_unwatch(core->loop, &s->pair);
    sm_ingress_forget(s);
    sm_limits_quit(s);
    sm_mediate_free(s);
    sm_fd_close(&s->upstream.fd);
    sm_fd_close(&s->pair.fd);
    sm_fd_close(&s->give_fd);
    sm_pins_release(core->pins, s->pin, sm_loop_now(core->loop));
    if (s->state == SM_SESSION_SERVED) {
        core->dns_tcp_now--;
        sm_dnsserve_forget(core->dns, s->id);
    }
    drop_held(s);
    sm_buf_clear(&s->dns_in);
    sm_buf_clear(&s->dns_out);
    sm_session_drop_first_bytes(s);
    g_queue_unlink(&core->by_age, &s->age_link);
    g_hash_table_steal(core->sessions, &s->id);
    if (g_hash_table_size(core->sessions) + 1 < core->fd_sessions)
        core->fd_sessions = 0; /* another one than that which had no descriptor */
    g_free(s);
}

struct sm_session *sm_session_new(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_session *s = g_new0(struct sm_session, 1);

    s->core = core;
    s->id = msg->id;
    s->proto = msg->proto == SM_FLOW_UDP ? SM_PROTO_UDP : SM_PROTO_TCP;
    s->src = msg->src;
    s->dst = s->dialled = msg->dst;
    s->give_fd = -1;
    sm_watch_init(&s->upstream, -1, NULL);
    sm_watch_init(&s->pair, -1, NULL);
    sm_timer_init(&s->timer, NULL);
    sm_buf_init(&s->held, SM_FLOW_HELD_MAX);
    s->opened_us = s->last_us = sm_loop_now(core->loop);
    s->attach_link.data = s->age_link.data = s;
    g_queue_push_tail_link(&core->by_age, &s->age_link);
    g_hash_table_insert(core->sessions, &s->id, s);
    return s;
}

void sm_session_refuse(struct sm_session *s, enum sm_flow_how how, uint32_t hold_ms, enum sm_reason reason)
{
    struct sm_flow_msg m = {
        .type = SM_FLOW_REFUSE, .id = s->id, .how = how, .hold_ms = hold_ms, .reason = (uint8_t)reason};

    if (s->accepted || s->state == SM_SESSION_ATTACHED || s->state == SM_SESSION_MEDIATED)
        m = (struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = s->id};
    else if (hold_ms > 0)
        m.scope = SM_SCOPE_DESTINATION;
    (void)sm_channel_send(s->core->channel, &m, -1);
    sm_session_free(s);
}

/* May the front repeat this refusal by itself? Only where the answer cannot depend on anything but the destination. */
static uint32_t hold_for(struct sm_session *s)
{
    struct sm_core *core = s->core;
    enum sm_inside_class class;

    /* No reason: the refusal is ours (a bound), not the policy's. */
    if (s->accepted || s->core->config->proxy || s->verdict.action != SM_ACTION_DENY ||
        s->verdict.reason == SM_REASON_NONE)
        return 0;
    (void)sm_ground_kind(core->config->ground, &s->dst, &class);
    if (class == SM_INSIDE_CLASS_SMALL_RULE || class == SM_INSIDE_CLASS_NEVER || class == SM_INSIDE_CLASS_RULE)
        return SM_CORE_HOLD_MS;
    /* A pin that is learnt in the meantime could open it: names.c then sends RELEASE. */
    int64_t until = sm_loop_now(core->loop) + SM_CORE_HOLD_MS * 1000;
    core->hold_until_us = SM_MAX(core->hold_until_us, until);
    return SM_CORE_HOLD_MS;
}

static enum sm_flow_how how_of(const struct sm_session *s)
{
    switch (s->verdict.refuse) {
    case SM_REFUSAL_RST:
        return is_udp(s) ? SM_HOW_ICMP_ADMIN : SM_HOW_RST;
    case SM_REFUSAL_ICMP_ADMIN:
        return SM_HOW_ICMP_ADMIN;
    case SM_REFUSAL_NONE:
    case SM_REFUSAL_DNS_REFUSED:
    case SM_REFUSALS:
        break;
    }
    return is_udp(s) ? SM_HOW_ICMP_ADMIN : SM_HOW_RST;
}

/* What is not policy's is a bound of ours. */
static enum sm_reason reason_of(const struct sm_session *s)
{
    bool policy = s->verdict.action == SM_ACTION_DENY && s->verdict.reason != SM_REASON_NONE;

    return policy ? s->verdict.reason : SM_REASON_LIMIT;
}

static void refuse_effect(struct sm_session *s, bool ok)
{
    (void)ok; /* a refusal opens nothing: it is carried out whether or not it could be recorded */
    sm_session_refuse(s, how_of(s), hold_for(s), reason_of(s));
}

static void count_denial(struct sm_core *core, const struct sm_session *s, struct sm_audit_record *r,
                         const char *reason, const void *name, size_t name_len, uint64_t count)
{
    struct sm_audit_repeat_key key = {.proto = is_udp(s) ? IPPROTO_UDP : IPPROTO_TCP,
                                      .dst = sm_session_dst(s),
                                      .reason = reason,
                                      .name = name,
                                      .name_len = name_len};

    if (!sm_audit_repeats_deny(core->repeats, core->audit, &key, r, count, sm_loop_now(core->loop)))
        sm_log_debug("a denial could not be recorded");
}

void sm_session_record_denial(struct sm_session *s, struct sm_audit_record *r, const char *reason, const void *name,
                              size_t name_len)
{
    s->core->n_denied++;
    count_denial(s->core, s, r, reason, name, name_len, 1);
}

static void record_denial(struct sm_core *core, const struct sm_session *s, const char *reason, uint64_t count)
{
    struct sm_audit_record r;
    bool internal = sm_reason_is_inside(s->verdict.reason) && s->verdict.action == SM_ACTION_DENY;
    enum sm_audit_event event = is_udp(s) ? (internal ? SM_AUDIT_EGRESS_UDP_INTERNAL_DENY : SM_AUDIT_EGRESS_UDP_DENY)
                                          : (internal ? SM_AUDIT_EGRESS_INTERNAL_DENY : SM_AUDIT_EGRESS_DENY);
    if (internal && s->verdict.reason == SM_REASON_LISTENER)
        event = SM_AUDIT_EGRESS_LOOP_GUARD;
    bool named = s->asserted.kind == SM_NAME_HOST;

    core->n_denied += count;
    if (core->config->mode == SM_MODE_OFF)
        return;
    sm_session_line(s, &r, event, reason);
    count_denial(core, s, &r, reason, named ? s->asserted.name : NULL, named ? strlen(s->asserted.name) : 0, count);
}

static void note_close(struct sm_session *s, const char *reason)
{
    struct sm_audit_record r;

    if (!s->allowed && !s->dial_recorded)
        return;
    sm_session_line(s, &r,
                    s->inbound  ? SM_AUDIT_INGRESS_CLOSE
                    : is_udp(s) ? SM_AUDIT_EGRESS_UDP_CLOSE
                                : SM_AUDIT_EGRESS_CLOSE,
                    reason);
    sm_audit_add_uint(&r, "bytes_up", s->bytes_up);
    sm_audit_add_uint(&r, "bytes_down", s->bytes_down);
    sm_audit_add_int(&r, "duration_ms", (sm_loop_now(s->core->loop) - s->opened_us) / 1000);
    /* What it ends may itself not be written yet: then both are, or neither is. */
    if (!s->unwritten || !sm_core_record(s->core, &r))
        sm_core_note(s->core, &r);
    s->allowed = s->dial_recorded = false;
    s->unwritten = NULL;
}

void sm_session_deny(struct sm_session *s, const char *reason)
{
    sm_loop_disarm(s->core->loop, &s->timer);
    sm_loop_unwatch(s->core->loop, &s->upstream);
    record_denial(s->core, s, reason, 1);
    sm_tcp_count(s);
    note_close(s, reason); /* a dial line was written: its close line comes with the refusal */
    sm_core_effect_cancel(s);
    if (sm_mediate_can_page(s)) {
        s->page_reason = reason;
        sm_core_effect(s, sm_mediate_page);
    } else {
        sm_core_effect(s, refuse_effect);
    }
}

void sm_session_give_up(struct sm_session *s, const char *reason)
{
    sm_mediate_settle(s);
    if (!is_udp(s)) {
        sm_tcp_count(s);
        sm_tcp_drop_upstream(s, true);
    }
    note_close(s, reason);
    sm_session_refuse(s, is_udp(s) ? SM_HOW_ICMP_ADMIN : SM_HOW_RST, 0, SM_REASON_LIMIT);
}

void sm_session_not_recorded(struct sm_session *s)
{
    /* The audit log is full: what cannot be recorded is not done (turn.c told the operator). */
    if (s->unwritten)
        *s->unwritten = false;
    sm_session_give_up(s, "not_recorded");
}

static void hold_pin(struct sm_session *s)
{
    struct sm_core *core = s->core;

    int64_t now = sm_loop_now(core->loop);
    const struct sm_pin *old = s->pin;

    /* What ATTEMPT guessed from the address, ASSERT or RESOLVED may have replaced by another name or address. */
    s->pin = s->verdict.host[0] ? sm_pins_hold(core->pins, s->verdict.host, &s->dialled.addr, now) : NULL;
    sm_pins_release(core->pins, old, now);
}

/* The flag of what this event begins, if it is not up already. */
static bool *begun_by(struct sm_session *s, enum sm_audit_event event)
{
    bool *flag = NULL;

    if (event == SM_AUDIT_EGRESS_DIAL)
        flag = &s->dial_recorded;
    else if (event == SM_AUDIT_EGRESS_ALLOW || event == SM_AUDIT_EGRESS_UDP_ALLOW || event == SM_AUDIT_INGRESS_ACCEPT)
        flag = &s->allowed;
    return flag && !*flag ? flag : NULL;
}

void sm_session_record(struct sm_session *s, const struct sm_audit_record *r, sm_effect_fn fn)
{
    s->unwritten = NULL;
    if (!sm_core_record(s->core, r)) {
        sm_session_not_recorded(s);
        return;
    }
    s->unwritten = begun_by(s, r->event);
    if (s->unwritten)
        *s->unwritten = true;
    hold_pin(s);
    sm_core_effect(s, fn);
}

static void record_and_schedule(struct sm_session *s, enum sm_audit_event event, sm_effect_fn fn)
{
    struct sm_audit_record r;

    sm_session_line(s, &r, event, sm_reason_name(s->verdict.reason));
    sm_session_record(s, &r, fn);
}

static void question(struct sm_session *s, enum sm_stage stage, const struct sm_endpoint *dst, struct sm_question *ret)
{
    struct sm_core *core = s->core;
    bool names =
        s->assertion == SM_ASSERTION_SNI || s->assertion == SM_ASSERTION_HOST || s->assertion == SM_ASSERTION_CONNECT;

    *ret = (struct sm_question){
        .mode = core->config->mode,
        .stage = stage,
        .proto = s->proto,
        .opaque = core->config->opaque,
        .dst = *dst,
        .assertion = s->assertion,
        .asserted = names ? &s->asserted : NULL,
        .route = s->route,
        .lists = core->config->lists,
        .pins = core->pins,
        .ground = core->config->ground,
        .now_us = sm_loop_now(core->loop),
    };
}

static void ask(struct sm_session *s, enum sm_stage stage, const struct sm_endpoint *dst, struct sm_verdict *ret)
{
    struct sm_question q;

    question(s, stage, dst, &q);
    sm_decide(&q, ret);
}

/* A flow by name, at the address that it has: as when it was dialled, and with what its first bytes name. */
static void ask_named(struct sm_session *s, enum sm_assertion spoken, struct sm_verdict *ret)
{
    struct sm_question q;

    question(s, SM_STAGE_RESOLVED, &s->dialled, &q);
    q.inner = spoken == SM_ASSERTION_SNI || spoken == SM_ASSERTION_HOST ? &s->inner : NULL;
    q.inner_is_host = spoken == SM_ASSERTION_HOST;
    sm_decide(&q, ret);
}

void sm_session_ask_host(struct sm_session *s, const struct sm_host *host, struct sm_verdict *ret)
{
    struct sm_question q;

    question(s, SM_STAGE_ASSERT, &s->dialled, &q);
    q.assertion = SM_ASSERTION_HOST;
    q.asserted = host;
    sm_decide(&q, ret);
}

bool sm_session_allows_opaque(struct sm_session *s)
{
    struct sm_verdict v;
    enum sm_assertion before = s->assertion;

    if (sm_session_is_named(s)) {
        ask_named(s, SM_ASSERTION_OPAQUE, &v);
    } else {
        s->assertion = SM_ASSERTION_OPAQUE;
        ask(s, SM_STAGE_ASSERT, &s->dst, &v);
        s->assertion = before;
    }
    if (v.action != SM_ACTION_ALLOW || !s->upstream_up)
        return false;
    s->verdict = v;
    return true;
}

void sm_session_allow(struct sm_session *s, sm_effect_fn fn)
{
    if (!s->allowed)
        s->core->n_allowed++;
    record_and_schedule(s, SM_AUDIT_EGRESS_ALLOW, fn);
}

/* RESOLVED: the first address that policy admits is dialled; the others stay for when it does not answer. */
static void judge_resolved(struct sm_session *s)
{
    struct sm_verdict v = {0};

    while (s->next_addr < s->n_addrs) {
        s->dialled = (struct sm_endpoint){.addr = s->addrs[s->next_addr++],
                                          .port = s->route ? s->route->target.port : s->dst.port};
        ask(s, SM_STAGE_RESOLVED, &s->dialled, &v);
        if (v.action == SM_ACTION_ALLOW) {
            s->verdict = v;
            record_and_schedule(s, SM_AUDIT_EGRESS_DIAL, sm_tcp_redial);
            return;
        }
    }
    s->verdict = v;
    sm_session_deny(s, v.reason == SM_REASON_NONE ? "unresolved" : sm_reason_name(v.reason));
}

/* The caps come after policy: what is denied anyway keeps its reason, and counts as no connection. */
static bool admitted(struct sm_session *s)
{
    if (s->verdict.action == SM_ACTION_DENY || s->verdict.action == SM_ACTION_DNS)
        return true;
    const char *reason = sm_limits_admit(s);
    if (reason)
        sm_session_deny(s, reason);
    return !reason;
}

void sm_session_judge(struct sm_session *s, enum sm_stage stage)
{
    if (stage == SM_STAGE_RESOLVED) {
        judge_resolved(s);
        return;
    }
    if (sm_session_is_named(s) && s->state == SM_SESSION_HELD)
        ask_named(s, s->spoken, &s->verdict);
    else
        ask(s, stage, &s->dst, &s->verdict);
    if ((stage == SM_STAGE_ATTEMPT || (s->by_name && s->state == SM_SESSION_NEW)) && !admitted(s))
        return;
    switch (s->verdict.action) {
    case SM_ACTION_DENY:
        sm_session_deny(s, sm_reason_name(s->verdict.reason));
        break;
    case SM_ACTION_DNS:
        sm_core_effect(s, sm_names_serve);
        break;
    case SM_ACTION_DIAL:
        if (is_udp(s))
            record_and_schedule(s, SM_AUDIT_EGRESS_UDP_ALLOW, sm_udp_start);
        else
            record_and_schedule(s, SM_AUDIT_EGRESS_DIAL, sm_tcp_dial);
        break;
    case SM_ACTION_HOLD:
        sm_core_effect(s, sm_tcp_hold);
        break;
    case SM_ACTION_RESOLVE:
        sm_tcp_resolve(s);
        break;
    case SM_ACTION_ALLOW:
        if (is_udp(s)) {
            record_and_schedule(s, SM_AUDIT_EGRESS_UDP_ALLOW, sm_udp_start);
        } else if (s->upstream_up) {
            sm_tcp_proceed(s);
        } else {
            /* Held without upstream, and now an asserted name is proven for the guest's own address (a pin came in between);
             * or an address that a proxy's client named. */
            s->addrs[0] = s->dst.addr;
            s->n_addrs = 1;
            s->next_addr = 1;
            s->dialled = s->dst;
            record_and_schedule(s, SM_AUDIT_EGRESS_DIAL, sm_tcp_redial);
        }
        break;
    case SM_ACTIONS:
        sm_session_deny(s, "undecided");
        break;
    }
}

void sm_session_close(struct sm_session *s, const char *reason)
{
    sm_mediate_settle(s);
    note_close(s, reason);
    sm_session_free(s);
}

void sm_session_attach(struct sm_session *s)
{
    struct sm_core *core = s->core;

    if (core->attach_inflight >= SM_FLOW_ATTACH_MAX) {
        if (!s->attach_waiting) {
            s->attach_waiting = true;
            g_queue_push_tail_link(&core->attach_wait, &s->attach_link);
        }
        return;
    }
    struct sm_flow_msg m = {.type = SM_FLOW_ATTACH, .id = s->id, .consumed = (uint32_t)s->judged};
    if (s->inbound)
        m = (struct sm_flow_msg){.type = SM_FLOW_INBOUND, .id = s->id, .src = s->seen, .guest_port = s->dst.port};
    int fd = s->give_fd;
    s->give_fd = -1;
    core->attach_inflight++;
    if (!sm_channel_send(core->channel, &m, fd))
        sm_fd_close(&fd); /* the channel is dead: main.c ends the workspace */
    sm_ingress_sent(s);
    if (s->state != SM_SESSION_SERVED && s->state != SM_SESSION_MEDIATED)
        s->state = SM_SESSION_ATTACHED;
    drop_held(s);
}

void sm_session_attached(struct sm_core *core)
{
    if (core->attach_inflight > 0)
        core->attach_inflight--;
    while (core->attach_inflight < SM_FLOW_ATTACH_MAX && core->attach_wait.head) {
        struct sm_session *s = core->attach_wait.head->data;
        g_queue_unlink(&core->attach_wait, &s->attach_link);
        s->attach_waiting = false;
        sm_session_attach(s);
    }
}

/* Once: who has taken the front must not fill the operator's journal. */
static void front_is_odd(struct sm_core *core, const char *what)
{
    if (!core->front_odd)
        sm_log_error("the front %s: it is broken or taken over", what);
    core->front_odd = true;
}

/* What the flow would get now, at the stage that it has reached. */
static void ask_again(struct sm_session *s, struct sm_verdict *ret)
{
    enum sm_assertion before = s->assertion;

    if (s->by_name) {
        /* Until there is an address it is the name that is asked about; an address that was named keeps by_name until it is accepted. */
        if (sm_session_is_named(s) && s->dialled.addr.family != SM_FAMILY_NONE)
            ask_named(s, s->spoken, ret);
        else
            ask(s, SM_STAGE_ASSERT, &s->dst, ret);
        return;
    }
    if (is_udp(s) || s->state == SM_SESSION_NEW || s->state == SM_SESSION_DIALLING) {
        ask(s, SM_STAGE_ATTEMPT, &s->dst, ret);
        return;
    }
    if (s->assertion == SM_ASSERTION_NONE && s->written == 0 && !s->allowed) {
        ask(s, SM_STAGE_ATTEMPT, &s->dst, ret); /* the first bytes are asked about when they are there */
        return;
    }
    if (s->assertion == SM_ASSERTION_NONE) /* a few letters went upstream, as a flow's that names nobody */
        s->assertion = SM_ASSERTION_OPAQUE;
    if (sm_endpoint_equal(&s->dialled, &s->dst))
        ask(s, SM_STAGE_ASSERT, &s->dst, ret);
    else
        ask(s, SM_STAGE_RESOLVED, &s->dialled, ret);
    s->assertion = before;
}

/* Passthrough is a grant of the lists too: without it, a flow that could be looked into would not be left alone. */
static bool loses_passthrough(const struct sm_session *s, const struct sm_verdict *now)
{
    return s->verdict.passthrough && !now->passthrough && s->allowed && s->classified &&
           (g_str_equal(s->classified, "tls") || g_str_equal(s->classified, "http") ||
            g_str_equal(s->classified, "h2"));
}

static bool may_go_on(const struct sm_session *s, const struct sm_verdict *now)
{
    if (loses_passthrough(s, now))
        return false;
    switch (now->action) {
    case SM_ACTION_DIAL:
    case SM_ACTION_ALLOW:
    case SM_ACTION_DNS:
        return true;
    case SM_ACTION_HOLD: /* nothing may be dialled before a name is known */
        return !s->upstream_up && s->state != SM_SESSION_DIALLING && s->verdict.action == SM_ACTION_HOLD;
    case SM_ACTION_RESOLVE: /* only an address of the core's own look-up may be dialled */
        return s->state == SM_SESSION_RESOLVING || s->verdict.action == SM_ACTION_RESOLVE;
    case SM_ACTION_DENY:
    case SM_ACTIONS:
        break;
    }
    return false;
}

/* Nothing to ask: not egress, answered by the core itself, or at its end already. */
static bool is_exempt(const struct sm_session *s)
{
    return s->inbound || s->state == SM_SESSION_SERVED || s->effect == sm_names_serve || s->effect == refuse_effect ||
           s->effect == sm_mediate_page || s->kernel_end || s->end_reason ||
           (s->mediation && (s->mediation->phase == SM_MEDIATE_CLOSING || s->mediation->aborted));
}

static void end_udp(struct sm_session *s)
{
    struct sm_flow_msg m = {.type = SM_FLOW_REFUSE, .id = s->id, .how = SM_HOW_ICMP_ADMIN};

    note_close(s, "policy_changed");
    (void)sm_channel_send(s->core->channel, &m, -1);
    sm_session_free(s);
}

void sm_session_rejudge(struct sm_session *s)
{
    struct sm_verdict now;

    if (is_exempt(s))
        return;
    ask_again(s, &now);
    if (may_go_on(s, &now))
        return;
    bool begun = s->allowed || s->mediation; /* what has begun has a close line, what has not a denial */
    if (!s->allowed)
        s->verdict = now;
    if (s->lookup) {
        sm_resolver_cancel(s->lookup);
        s->lookup = NULL;
    }
    if (!begun) {
        sm_session_deny(s, "policy_changed");
        return;
    }
    if (is_udp(s)) {
        end_udp(s);
        return;
    }
    if (!s->allowed)
        record_denial(s->core, s, "policy_changed", 1);
    if (s->state == SM_SESSION_ATTACHED) {
        sm_tcp_end(s, "policy_changed");
        return;
    }
    if (!s->mediation) {
        sm_tcp_count(s);
        sm_tcp_drop_upstream(s, true);
    }
    sm_mediate_tear_down(s, "policy_changed");
}

/* May this address be the source of a flow? One guest has one; a proxy has the clients that it was made for. */
static bool is_source(const struct sm_core *core, const struct sm_addr *src)
{
    const struct sm_core_config *c = core->config;

    if (!c->proxy)
        return src->family == SM_FAMILY_V4 && sm_addr_equal(src, &c->guest);
    for (size_t i = 0; i < c->n_clients; i++)
        if (sm_prefix_contains(&c->clients[i], src))
            return true;
    return false;
}

/* Whom a proxy's client wants. What is no name and no address in its usual form is refused as such by the decision. */
static void take_name(struct sm_session *s, const struct sm_flow_msg *msg)
{
    s->by_name = true;
    s->assertion = SM_ASSERTION_CONNECT;
    if (sm_name_classify(msg->name, msg->name_len, &s->asserted) == SM_NAME_HOST)
        s->route = sm_routes_find(&s->core->config->routes, s->asserted.name, s->dst.port);
    else if (s->asserted.kind != SM_NAME_BAD)
        s->dst.addr = s->dialled.addr = s->asserted.addr;
    if (s->asserted.kind == SM_NAME_IPV6)
        s->by_name = false; /* as a guest's: there is no mediation of it yet */
}

static void on_open(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_flow_msg no = {.type = SM_FLOW_REFUSE, .id = msg->id, .how = SM_HOW_RST, .reason = SM_REASON_LIMIT};

    if (msg->proto == SM_FLOW_UDP)
        no.how = SM_HOW_ICMP_ADMIN;
    if (msg->id >= SM_CORE_INGRESS_IDS || msg->id <= core->last_id) {
        front_is_odd(core, "used a flow id twice, or one that is not its own");
        return; /* the front is broken or taken: it gets nothing for it */
    }
    core->last_id = msg->id;
    if (msg->proto == SM_FLOW_VSOCK) {
        sm_core_vsock_open(core, msg);
        return;
    }
    if (!is_source(core, &msg->src.addr) || core->config->proxy != (msg->name_len > 0) || core->stopping) {
        (void)sm_channel_send(core->channel, &no, -1);
        return;
    }
    if (core->config->mode != SM_MODE_OFF && !sm_audit_healthy(core->audit)) {
        (void)sm_channel_send(core->channel, &no, -1);
        return;
    }
    struct sm_session *s = sm_session_new(core, msg);
    core->n_opened++;
    if (core->limits || g_hash_table_size(core->sessions) > core->sessions_max || core->fd_sessions)
        sm_core_run_ends(core); /* what they held is this one's to have */
    unsigned now = g_hash_table_size(core->sessions);
    if (now > core->sessions_max || (core->fd_sessions && now >= core->fd_sessions)) {
        s->verdict.refuse = is_udp(s) ? SM_REFUSAL_ICMP_ADMIN : SM_REFUSAL_RST;
        sm_session_deny(s, "too_many_flows");
        return;
    }
    if (msg->name_len > 0)
        take_name(s, msg);
    sm_session_judge(s, s->by_name ? SM_STAGE_ASSERT : SM_STAGE_ATTEMPT);
}

static void on_gone(struct sm_session *s, enum sm_flow_why why)
{
    s->gone = true;
    s->gone_why = why;
    if (s->state == SM_SESSION_ATTACHED && !is_udp(s)) {
        sm_core_end_later(s, sm_tcp_gone);
        return;
    }
    if (s->state == SM_SESSION_MEDIATED) {
        sm_mediate_gone(s);
        return;
    }
    sm_tcp_count(s); /* judged bytes may have gone up already */
    if (why != SM_WHY_CLOSED && !is_udp(s))
        sm_tcp_drop_upstream(s, true); /* ... and must not look complete */
    sm_session_close(s, sm_flow_why_name(why));
}

/* What was refused in this turn, or is answered by the core itself, is the front's to keep. */
static bool takes_bytes(const struct sm_session *s)
{
    if (s->state == SM_SESSION_HELD)
        return true;
    return (s->state == SM_SESSION_NEW || s->state == SM_SESSION_DIALLING) && s->proto == SM_PROTO_TCP && !s->by_name &&
           s->core->config->mode != SM_MODE_OFF && s->effect != refuse_effect && s->effect != sm_names_serve;
}

static void on_other(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_audit_record r;
    const char *kind = sm_flow_other_name(msg->other);
    struct sm_audit_repeat_key key = {.proto = msg->ip_proto, .dst = {.addr = msg->dst.addr}, .reason = kind};

    core->n_denied += msg->count;
    if (core->config->mode == SM_MODE_OFF)
        return;
    sm_audit_begin(&r, SM_AUDIT_EGRESS_OTHER_DENY, sm_clock_wall_us());
    /* A proxy's: a client that got no further than the proxy itself. */
    sm_audit_add_addr(&r, "src", core->config->proxy ? &msg->dst.addr : &core->config->guest);
    if (!core->config->proxy)
        sm_audit_add_addr(&r, "dst", &msg->dst.addr);
    sm_audit_add_str(&r, "reason", kind);
    sm_audit_add_uint(&r, "protocol", msg->ip_proto);
    if (!sm_audit_repeats_deny(core->repeats, core->audit, &key, &r, SM_MAX(msg->count, 1u), sm_loop_now(core->loop)))
        sm_log_debug("a drop could not be recorded");
}

/* Attempts that the front answered by itself under a hold. The reason is asked again: it is the same question. */
static void on_repeated(struct sm_core *core, const struct sm_flow_msg *msg)
{
    struct sm_session s = {.core = core,
                           .proto = msg->proto == SM_FLOW_UDP ? SM_PROTO_UDP : SM_PROTO_TCP,
                           .dst = msg->dst,
                           .src = {.addr = core->config->guest}};

    ask(&s, SM_STAGE_ATTEMPT, &s.dst, &s.verdict);
    record_denial(core, &s, s.verdict.action == SM_ACTION_DENY ? sm_reason_name(s.verdict.reason) : "held",
                  SM_MAX(msg->count, 1u));
}

void sm_core_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct sm_core *core = data;
    struct sm_session *s = msg->id ? g_hash_table_lookup(core->sessions, &msg->id) : NULL;

    for (size_t i = 0; i < n_fds; i++)
        (void)close(fds[i]); /* the slirp front sends none */
    switch (msg->type) {
    case SM_FLOW_OPEN:
        on_open(core, msg);
        break;
    case SM_FLOW_BYTES:
        if (s && takes_bytes(s))
            sm_tcp_bytes(s, msg->data, msg->data_len);
        break;
    case SM_FLOW_EOF:
        if (s && takes_bytes(s))
            sm_tcp_guest_eof(s);
        break;
    case SM_FLOW_ATTACHED:
        if (s && s->state == SM_SESSION_ATTACHED)
            s->attach_acked = true;
        sm_session_attached(core);
        sm_core_vsock_attached(core);
        break;
    case SM_FLOW_GONE:
        if (s)
            on_gone(s, msg->why);
        else
            sm_core_vsock_gone(core, msg->id, msg->why);
        break;
    case SM_FLOW_DATAGRAM:
        sm_names_datagram(core, msg);
        break;
    case SM_FLOW_OTHER:
        on_other(core, msg);
        break;
    case SM_FLOW_REPEATED:
        on_repeated(core, msg);
        break;
    case SM_FLOW_REFUSE:
    case SM_FLOW_ACCEPT:
    case SM_FLOW_ATTACH:
    case SM_FLOW_ABORT:
    case SM_FLOW_INBOUND:
    case SM_FLOW_RELEASE:
    case SM_FLOW_TYPES:
        front_is_odd(core, "sent a message that only the core may send");
        break;
    }
}
