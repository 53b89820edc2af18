/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One guest query from its bytes to its reply. The stages are the ones that dnsserve.h lists, in that order, each of
 * them a short function; whatever ends a query goes through settle() (an event, and only if it could be recorded a
 * reply), so that no reply can leave unrecorded.
 */
#include "core/dnsserve.h"

#include <string.h>

/* The budget counts in millionths of a query, so that no rate is rounded away. */
#define QUERY_COST 1000000
#define LIMITED_EVERY_US 1000000
/* QTYPEs and meta types (RFC 6895 3.1): transfers, ANY, TKEY, TSIG and whatever will join them. None of them is a
 * lookup of a name. */
#define META_TYPE_FIRST 128
#define META_TYPE_LAST 255

struct pending {
    struct pending *prev, *next;
    struct sm_dnsserve *serve;
    struct sm_resolver_req *req; /* NULL: its record is not written yet; in serve->unsent */
    struct sm_dnsserve_client client;
    struct sm_dns_query q;
    char *rule;
    bool no_h3;
};

struct sm_dnsserve {
    struct sm_loop *loop;
    struct sm_resolver *res;
    const struct sm_dnsserve_ops *ops;
    void *data;
    struct pending *pending;
    unsigned inflight;
    GPtrArray *unsent; /* of struct pending, in the order in which they came */

    uint32_t qps;
    int64_t credit; /* QUERY_COST each */
    int64_t credit_max;
    int64_t credit_us; /* when it was last filled up */
    uint64_t limited;  /* queries refused since the last LIMITED event */
    int64_t limited_us;
    bool limited_ever;
    struct sm_timer limited_timer;
    struct sm_dnsserve_client limited_client;

    uint8_t reply[SM_DNS_MESSAGE_MAX];
};

static const char *const event_names[] = {
    [SM_DNSSERVE_EVENT_FORWARD] = "forward", [SM_DNSSERVE_EVENT_ANSWER] = "answer",   [SM_DNSSERVE_EVENT_DENY] = "deny",
    [SM_DNSSERVE_EVENT_ERROR] = "error",     [SM_DNSSERVE_EVENT_LIMITED] = "limited",
};
SM_NAME_TABLE_COVERS(event_names, SM_DNSSERVE_EVENT_COUNT);

const char *sm_dnsserve_event_name(enum sm_dnsserve_event_kind kind)
{
    return event_names[kind];
}

static size_t reply_max(const struct sm_dnsserve_client *client, const struct sm_dns_query *q)
{
    return client->transport == SM_DNSSERVE_UDP ? q->udp_size : SM_DNS_MESSAGE_MAX;
}

static bool emit(struct sm_dnsserve *serve, const struct sm_dnsserve_event *ev)
{
    return serve->ops->event(serve->data, ev);
}

/* The end of a query that gets a reply without records. */
static void settle(struct sm_dnsserve *serve, const struct sm_dns_query *q, const struct sm_dnsserve_event *ev)
{
    uint8_t out[SM_DNS_UPSTREAM_QUERY_MAX];

    if (!emit(serve, ev))
        return;
    size_t len = sm_dns_reply_simple(q, ev->rcode, out, sizeof(out));
    if (len > 0)
        serve->ops->reply(serve->data, &ev->client, out, len);
}

/* ---- budget ---- */

static bool spend(struct sm_dnsserve *serve, int64_t now_us)
{
    if (serve->qps == 0)
        return true;
    int64_t elapsed = SM_MAX(now_us - serve->credit_us, (int64_t)0);
    serve->credit_us = now_us;
    /* A full bucket takes credit_max / qps microseconds: longer than that counts as that, so that nothing overflows. */
    if (elapsed > serve->credit_max / serve->qps)
        serve->credit = serve->credit_max;
    else
        serve->credit = SM_MIN(serve->credit + elapsed * serve->qps, serve->credit_max);
    if (serve->credit < QUERY_COST)
        return false;
    serve->credit -= QUERY_COST;
    return true;
}

/* One event for all that were refused since the one before. */
static void tell_limited(struct sm_dnsserve *serve, const char *qname, uint16_t qtype, int64_t now_us)
{
    const struct sm_dnsserve_event ev = {
        .kind = SM_DNSSERVE_EVENT_LIMITED,
        .client = serve->limited_client,
        .qname = qname,
        .qtype = qtype,
        .rcode = SM_DNS_REFUSED,
        .reason = "budget",
        .count = serve->limited,
    };
    /* A record that could not be made is made by the next one: the count goes on. */
    if (emit(serve, &ev))
        serve->limited = 0;
    serve->limited_us = now_us;
    serve->limited_ever = true;
}

static void on_limited_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_dnsserve *serve = sm_container_of(timer, struct sm_dnsserve, limited_timer);

    tell_limited(serve, "", 0, now_us);
    if (serve->limited > 0)
        sm_loop_arm(serve->loop, &serve->limited_timer, now_us + LIMITED_EVERY_US);
}

void sm_dnsserve_tell(struct sm_dnsserve *serve, int64_t now_us)
{
    if (serve->limited > 0)
        tell_limited(serve, "", 0, now_us);
}

static void refuse_over_budget(struct sm_dnsserve *serve, const struct sm_dnsserve_client *client,
                               const struct sm_dns_query *q, const char *qname, int64_t now_us)
{
    uint8_t out[SM_DNS_UPSTREAM_QUERY_MAX];

    serve->limited++;
    serve->limited_client = *client;
    if (!serve->limited_ever || now_us - serve->limited_us >= LIMITED_EVERY_US) {
        sm_loop_disarm(serve->loop, &serve->limited_timer);
        tell_limited(serve, qname, q->qtype, now_us);
        if (serve->limited > 0)
            return; /* not recorded */
    } else if (!sm_timer_armed(&serve->limited_timer)) {
        sm_loop_arm(serve->loop, &serve->limited_timer, serve->limited_us + LIMITED_EVERY_US);
    }
    size_t len = sm_dns_reply_simple(q, SM_DNS_REFUSED, out, sizeof(out));
    if (len > 0)
        serve->ops->reply(serve->data, client, out, len);
}

/* ---- upstream ---- */

static void pending_free(struct pending *p)
{
    struct sm_dnsserve *serve = p->serve;

    if (!p->req)
        (void)g_ptr_array_remove(serve->unsent, p);
    if (p->next)
        p->next->prev = p->prev;
    if (p->prev)
        p->prev->next = p->next;
    else
        serve->pending = p->next;
    serve->inflight--;
    g_free(p->rule);
    g_free(p);
}

static void answer(struct sm_dnsserve *serve, struct pending *p, const struct sm_dns_response *resp,
                   struct sm_dnsserve_event *ev)
{
    char final[SM_DNS_NAME_TEXT_MAX];
    bool truncated;
    size_t len = sm_dns_reply_encode(&p->q, resp, p->no_h3, reply_max(&p->client, &p->q), serve->reply,
                                     sizeof(serve->reply), &truncated);

    ev->kind = SM_DNSSERVE_EVENT_ANSWER;
    ev->rcode = resp->rcode;
    ev->cname = resp->chain_len > 0 ? sm_dns_name_text(&resp->final, final) : NULL;
    if (truncated) {
        ev->reason = "truncated"; /* the guest has got nothing of it and asks again over TCP */
    } else {
        ev->addrs = resp->addrs;
        ev->n_addrs = resp->n_addrs;
        ev->n_records = resp->n_final;
        ev->ttl = resp->min_ttl;
    }
    if (len == 0 || !emit(serve, ev))
        return;
    if (p->q.qtype == SM_DNS_A && ev->n_addrs > 0)
        serve->ops->pin(serve->data, ev->qname, ev->addrs, ev->n_addrs, ev->ttl);
    serve->ops->reply(serve->data, &p->client, serve->reply, len);
}

static void on_resolved(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp)
{
    struct pending *p = data;
    struct sm_dnsserve *serve = p->serve;
    char qname[SM_DNS_NAME_TEXT_MAX];
    struct sm_dnsserve_event ev = {
        .kind = SM_DNSSERVE_EVENT_ERROR,
        .client = p->client,
        .qname = sm_dns_name_text(&p->q.qname, qname),
        .qtype = p->q.qtype,
        .rcode = SM_DNS_SERVFAIL,
        .reason = sm_resolver_status_name(status),
        .rule = p->rule,
        .count = 1,
    };

    /* Off the list first: a reply may make the caller forget this client. */
    struct pending mine = *p;
    p->rule = NULL;
    pending_free(p);
    if (status == SM_RESOLVER_OK && (resp->rcode == SM_DNS_NOERROR || resp->rcode == SM_DNS_NXDOMAIN) &&
        !resp->truncated) {
        ev.reason = NULL;
        answer(serve, &mine, resp, &ev);
    } else {
        if (status == SM_RESOLVER_OK)
            ev.reason = resp->truncated ? "upstream_truncated" : "upstream_rcode";
        settle(serve, &mine.q, &ev);
    }
    g_free(mine.rule);
}

static void forward(struct sm_dnsserve *serve, const struct sm_dns_query *q, bool no_h3, struct sm_dnsserve_event *ev)
{
    /* Room is looked for before the event, so that FORWARD is said only of what is then sent. */
    if (serve->inflight >= SM_DNSSERVE_INFLIGHT_MAX ||
        sm_resolver_inflight(serve->res) + serve->unsent->len >= SM_RESOLVER_INFLIGHT_MAX) {
        ev->kind = SM_DNSSERVE_EVENT_ERROR;
        ev->rcode = SM_DNS_SERVFAIL;
        ev->reason = "busy";
        settle(serve, q, ev);
        return;
    }
    ev->kind = SM_DNSSERVE_EVENT_FORWARD;
    if (!emit(serve, ev))
        return;
    struct pending *p = g_new0(struct pending, 1);
    p->serve = serve;
    p->client = ev->client;
    p->q = *q;
    p->rule = g_strdup(ev->rule);
    p->no_h3 = no_h3;
    p->next = serve->pending;
    if (p->next)
        p->next->prev = p;
    serve->pending = p;
    serve->inflight++;
    g_ptr_array_add(serve->unsent, p);
}

/* Others have taken the room since, or there is no randomness to be had. */
static void send_failed(struct pending *p)
{
    struct sm_dnsserve *serve = p->serve;
    char qname[SM_DNS_NAME_TEXT_MAX];
    struct sm_dns_query q = p->q;
    struct sm_dnsserve_event ev = {.kind = SM_DNSSERVE_EVENT_ERROR,
                                   .client = p->client,
                                   .qname = sm_dns_name_text(&q.qname, qname),
                                   .qtype = q.qtype,
                                   .rcode = SM_DNS_SERVFAIL,
                                   .reason = "busy",
                                   .rule = p->rule,
                                   .count = 1};

    g_autofree char *rule = sm_steal_ptr(&p->rule);
    pending_free(p);
    settle(serve, &q, &ev);
}

void sm_dnsserve_send(struct sm_dnsserve *serve, bool ok)
{
    guint n = serve->unsent->len, failed = 0;

    /* What cannot be sent stays at the front of the array, and is told of when all others are on their way. */
    for (guint i = 0; i < n; i++) {
        struct pending *p = g_ptr_array_index(serve->unsent, i);
        if (ok)
            p->req = sm_resolver_query(serve->res, &p->q, (struct sm_resolver_done){.fn = on_resolved, .data = p});
        if (!p->req)
            g_ptr_array_index(serve->unsent, failed++) = p;
    }
    if (n > 0)
        g_ptr_array_set_size(serve->unsent, (gint)failed);
    while (serve->unsent->len > 0) {
        struct pending *p = g_ptr_array_index(serve->unsent, 0);
        if (ok)
            send_failed(p);
        else
            pending_free(p);
    }
}

/* ---- a query ---- */

static const char *error_reason(enum sm_dns_rcode rcode)
{
    return rcode == SM_DNS_NOTIMP    ? "opcode"
           : rcode == SM_DNS_REFUSED ? "class"
           : rcode == SM_DNS_BADVERS ? "edns_version"
                                     : "malformed";
}

void sm_dnsserve_query(struct sm_dnsserve *serve, const struct sm_dnsserve_client *client, const uint8_t *msg,
                       size_t len, int64_t now_us)
{
    struct sm_dns_query q;
    enum sm_dns_rcode rcode = SM_DNS_FORMERR;
    char qname[SM_DNS_NAME_TEXT_MAX];
    bool within = spend(serve, now_us);
    enum sm_dns_query_result result = sm_dns_query_parse(msg, len, &q, &rcode);
    struct sm_dnsserve_event ev = {
        .kind = SM_DNSSERVE_EVENT_DENY,
        .client = *client,
        .qname = sm_dns_name_text(&q.qname, qname),
        .qtype = q.qtype,
        .rcode = rcode,
        .count = 1,
    };

    if (!within) {
        if (result != SM_DNS_QUERY_DROP)
            refuse_over_budget(serve, client, &q, ev.qname, now_us);
        return;
    }
    if (result == SM_DNS_QUERY_DROP) {
        ev.reason = "malformed";
        (void)emit(serve, &ev);
        return;
    }
    if (result == SM_DNS_QUERY_ERROR) {
        ev.reason = error_reason(rcode);
        settle(serve, &q, &ev);
        return;
    }
    if (q.qtype >= META_TYPE_FIRST && q.qtype <= META_TYPE_LAST) {
        ev.rcode = SM_DNS_REFUSED;
        ev.reason = "qtype";
        settle(serve, &q, &ev);
        return;
    }

    struct sm_dnsserve_judgement judgement = {.verdict = SM_DNSSERVE_REFUSE};
    serve->ops->judge(serve->data, ev.qname, q.qtype, &judgement);
    ev.reason = judgement.reason;
    ev.rule = judgement.rule;
    if (judgement.verdict == SM_DNSSERVE_REFUSE) {
        ev.rcode = SM_DNS_REFUSED;
        settle(serve, &q, &ev);
        return;
    }
    ev.rcode = SM_DNS_NOERROR;
    if (judgement.verdict == SM_DNSSERVE_NODATA || q.qtype == SM_DNS_AAAA) {
        ev.kind = SM_DNSSERVE_EVENT_ANSWER;
        if (judgement.verdict != SM_DNSSERVE_NODATA)
            ev.reason = "ipv6";
        settle(serve, &q, &ev);
        return;
    }
    forward(serve, &q, judgement.no_h3, &ev);
}

void sm_dnsserve_forget(struct sm_dnsserve *serve, uint64_t key)
{
    for (struct pending *p = serve->pending, *next; p; p = next) {
        next = p->next;
        if (p->client.key != key)
            continue;
        if (p->req)
            sm_resolver_cancel(p->req);
        pending_free(p);
    }
}

unsigned sm_dnsserve_inflight(const struct sm_dnsserve *serve)
{
    return serve->inflight;
}

struct sm_dnsserve *sm_dnsserve_new(struct sm_loop *loop, struct sm_resolver *res, uint32_t qps, uint32_t burst,
                                    const struct sm_dnsserve_ops *ops, void *data)
{
    struct sm_dnsserve *serve = g_new0(struct sm_dnsserve, 1);

    serve->loop = loop;
    serve->unsent = g_ptr_array_new();
    serve->res = res;
    serve->ops = ops;
    serve->data = data;
    serve->qps = qps;
    serve->credit_max = (int64_t)SM_MAX(burst, 1u) * QUERY_COST;
    serve->credit = serve->credit_max;
    serve->credit_us = sm_loop_now(loop);
    sm_timer_init(&serve->limited_timer, on_limited_timer);
    return serve;
}

void sm_dnsserve_free(struct sm_dnsserve *serve)
{
    if (!serve)
        return;
    while (serve->pending) {
        if (serve->pending->req)
            sm_resolver_cancel(serve->pending->req);
        pending_free(serve->pending);
    }
    sm_loop_disarm(serve->loop, &serve->limited_timer);
    g_ptr_array_unref(serve->unsent);
    g_free(serve);
}
