/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The DNS service for one workspace's guest, without its sockets: a query's bytes in, a reply's bytes out, and between
 * them the budget, the policy, the resolver, the pins and the record. All port-53 traffic of a guest ends here (spec
 * section 4).
 *
 * For each query, in this order: budget (over it REFUSED; one LIMITED event a second), parse (FORMERR, NOTIMP ...),
 * types that are never served (ANY, AXFR, IXFR and the like: REFUSED), the judge, AAAA (NODATA, answered here: IPv6 is
 * not mediated), in-flight bound (SERVFAIL), event, and then the query waits for the caller to write the record of this
 * turn and call sm_dnsserve_send(): all queries of a turn are one write and then leave. When the answer has come:
 * event, pin, reply - in this order, all in one turn, so that the caller's end-of-turn hook can write the record before
 * the reply leaves. An event callback that returns false (it cannot be recorded) stops what it stands for: nothing is
 * sent, no pin is made.
 *
 * Events: for a query that goes upstream SM_DNSSERVE_FORWARD comes before it is sent and then exactly one ANSWER or
 * ERROR (none if the client was forgotten, or the record could not be written); every other query makes exactly one
 * event. Queries over the budget make at
 * most one LIMITED event a second, with a count.
 */
#ifndef SM_CORE_DNSSERVE_H
#define SM_CORE_DNSSERVE_H

#include "core/resolver.h"

/** A guest's queries that wait for the upstream: half of what the resolver takes, so that the core's own lookups always
 * find room. */
#define SM_DNSSERVE_INFLIGHT_MAX 512
#define SM_DNSSERVE_QPS_DEFAULT 100
#define SM_DNSSERVE_BURST_DEFAULT 200

enum sm_dnsserve_transport { SM_DNSSERVE_UDP, SM_DNSSERVE_TCP };

/** Who asks, as the caller names it; replies carry it back. */
struct sm_dnsserve_client {
    uint64_t key; /* the channel's DATAGRAM key or flow id */
    enum sm_dnsserve_transport transport;
    struct sm_endpoint src; /* for the record */
    struct sm_endpoint dst; /* the server that the guest thought it asked */
};

enum sm_dnsserve_verdict {
    SM_DNSSERVE_REFUSE, /* REFUSED, nothing is forwarded */
    SM_DNSSERVE_ALLOW,
    SM_DNSSERVE_NODATA, /* answered here, empty */
};

enum sm_dnsserve_event_kind {
    SM_DNSSERVE_EVENT_FORWARD, /* allowed, about to go upstream; a caller that writes one line a query does so at ANSWER
                                */
    SM_DNSSERVE_EVENT_ANSWER,  /* allowed and answered: rcode and addresses (also local NODATA) */
    SM_DNSSERVE_EVENT_DENY,    /* refused by the judge, by type, or for its form */
    SM_DNSSERVE_EVENT_ERROR,   /* no believable answer from upstream, or no room */
    SM_DNSSERVE_EVENT_LIMITED, /* over the budget; count queries since the last such event */
    SM_DNSSERVE_EVENT_COUNT
};
const char *sm_dnsserve_event_name(enum sm_dnsserve_event_kind kind);

struct sm_dnsserve_event {
    enum sm_dnsserve_event_kind kind;
    struct sm_dnsserve_client client;
    const char *qname; /* presentation form (sm_dns_name_text), "" when none could be read; guest's bytes: escape when
                          written */
    uint16_t qtype;    /* 0 when none could be read */
    enum sm_dns_rcode rcode; /* what the guest gets */
    const char *reason;      /* static word or the judge's, or NULL: "malformed", "qtype", "budget", "busy", "timeout",
                                "servfail", "truncated" ... */
    const char *rule;        /* the judge's, or NULL */
    const struct sm_addr *addrs; /* ANSWER: addresses at the end of the chain */
    size_t n_addrs;
    unsigned n_records; /* ANSWER: records of the asked type */
    uint32_t ttl;       /* seconds */
    const char *cname;  /* ANSWER: end of the CNAME chain when there is one, else NULL */
    uint64_t count;     /* LIMITED: queries that this event stands for; else 1 */
};

struct sm_dnsserve_judgement {
    enum sm_dnsserve_verdict verdict; /* starts as REFUSE */
    const char *reason;               /* static, may be NULL */
    const char *rule; /* lives until the callback that follows; copied when the query goes upstream. May be NULL */
    bool no_h3;       /* the name would be intercepted: its HTTPS and SVCB records may not lead to HTTP/3 */
};

struct sm_dnsserve_ops {
    /** judge() - qname is presentation form, not canonical. */
    void (*judge)(void *data, const char *qname, uint16_t qtype, struct sm_dnsserve_judgement *ret);
    /** event() - false: it cannot be recorded, and what it stands for must not happen. */
    bool (*event)(void *data, const struct sm_dnsserve_event *ev);
    /** pin() - the addresses of an A answer that is given to the guest, for the question's name (presentation form). */
    void (*pin)(void *data, const char *qname, const struct sm_addr *addrs, size_t n_addrs, uint32_t ttl);
    /** reply() - one DNS message without TCP framing. May call sm_dnsserve_forget(). */
    void (*reply)(void *data, const struct sm_dnsserve_client *client, const uint8_t *msg, size_t len);
};

struct sm_dnsserve;

/** sm_dnsserve_new() - qps 0: no budget. ops and res must outlive it. */
struct sm_dnsserve *sm_dnsserve_new(struct sm_loop *loop, struct sm_resolver *res, uint32_t qps, uint32_t burst,
                                    const struct sm_dnsserve_ops *ops, void *data);
/** sm_dnsserve_tell() - the LIMITED event for what was refused since the last one, before its second is over. */
void sm_dnsserve_tell(struct sm_dnsserve *serve, int64_t now_us);
/** sm_dnsserve_free() - cancels what is in flight without replies or events. */
void sm_dnsserve_free(struct sm_dnsserve *serve);

/** sm_dnsserve_query() - one message of a guest (UDP payload, or a TCP frame without its length). now_us:
 * sm_loop_now(). */
void sm_dnsserve_query(struct sm_dnsserve *serve, const struct sm_dnsserve_client *client, const uint8_t *msg,
                       size_t len, int64_t now_us);
/** sm_dnsserve_send() - the record of this turn is written (@ok): what waited for it goes upstream. Not ok: it is
 * dropped, and nobody is answered. */
void sm_dnsserve_send(struct sm_dnsserve *serve, bool ok);
/** sm_dnsserve_forget() - the client with this key is gone (TCP connection closed): its queries are dropped without
 * replies. */
void sm_dnsserve_forget(struct sm_dnsserve *serve, uint64_t key);
/** sm_dnsserve_inflight() - queries that have not been answered; for tests. */
unsigned sm_dnsserve_inflight(const struct sm_dnsserve *serve);

#endif
