/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decision: see decide.h for what it promises.
 *
 * Read it from the bottom: sm_decide() asks the gates that need no list (family, ports), then gathers everything that
 * is known about the destination (struct facts), then lets the stage judge. A stage function ends in deny() or in
 * grant(); whatever ends in neither is a denial, because the verdict starts as one.
 */
#include "policy/decide.h"

#include <string.h>

#include "base/error.h"

#define PORT_DNS 53
#define PORT_HTTPS 443
#define PORT_DNS_OVER_TLS 853

static const char *const mode_names[] = {
    [SM_MODE_GUARDED] = "guarded",
    [SM_MODE_STRICT] = "strict",
    [SM_MODE_OFF] = "off",
};
SM_NAME_TABLE_COVERS(mode_names, SM_MODES);

static const char *const proto_names[] = {
    [SM_PROTO_TCP] = "tcp",
    [SM_PROTO_UDP] = "udp",
};
SM_NAME_TABLE_COVERS(proto_names, SM_PROTOS);

static const char *const stage_names[] = {
    [SM_STAGE_ATTEMPT] = "attempt",
    [SM_STAGE_ASSERT] = "assert",
    [SM_STAGE_RESOLVED] = "resolved",
};
SM_NAME_TABLE_COVERS(stage_names, SM_STAGES);

static const char *const assertion_names[] = {
    [SM_ASSERTION_NONE] = "none",       [SM_ASSERTION_SNI] = "sni",       [SM_ASSERTION_HOST] = "host",
    [SM_ASSERTION_CONNECT] = "connect", [SM_ASSERTION_OPAQUE] = "opaque", [SM_ASSERTION_SERVER_FIRST] = "server_first",
    [SM_ASSERTION_TIMEOUT] = "timeout",
};
SM_NAME_TABLE_COVERS(assertion_names, SM_ASSERTIONS);

static const char *const action_names[] = {
    [SM_ACTION_DENY] = "deny", [SM_ACTION_DNS] = "dns",         [SM_ACTION_DIAL] = "dial",
    [SM_ACTION_HOLD] = "hold", [SM_ACTION_RESOLVE] = "resolve", [SM_ACTION_ALLOW] = "allow",
};
SM_NAME_TABLE_COVERS(action_names, SM_ACTIONS);

static const char *const refusal_names[] = {
    [SM_REFUSAL_NONE] = "none",
    [SM_REFUSAL_RST] = "rst",
    [SM_REFUSAL_ICMP_ADMIN] = "icmp_admin",
    [SM_REFUSAL_DNS_REFUSED] = "dns_refused",
};
SM_NAME_TABLE_COVERS(refusal_names, SM_REFUSALS);

static const char *const source_names[] = {
    [SM_NAME_SOURCE_IP] = "ip",     [SM_NAME_SOURCE_PIN] = "pin",         [SM_NAME_SOURCE_SNI] = "sni",
    [SM_NAME_SOURCE_HOST] = "host", [SM_NAME_SOURCE_CONNECT] = "connect",
};
SM_NAME_TABLE_COVERS(source_names, SM_NAME_SOURCES);

/* One function a table, all alike: a value from outside the enum has a name too, and no reader runs off the end. */
#define NAME_OF(function, type, table, count)                                                                          \
    const char *function(enum type value)                                                                              \
    {                                                                                                                  \
        return (unsigned)value < (count) ? table[value] : "?";                                                         \
    }

NAME_OF(sm_mode_name, sm_mode, mode_names, SM_MODES)
NAME_OF(sm_proto_name, sm_proto, proto_names, SM_PROTOS)
NAME_OF(sm_stage_name, sm_stage, stage_names, SM_STAGES)
NAME_OF(sm_assertion_name, sm_assertion, assertion_names, SM_ASSERTIONS)
NAME_OF(sm_action_name, sm_action, action_names, SM_ACTIONS)
NAME_OF(sm_refusal_name, sm_refusal, refusal_names, SM_REFUSALS)
NAME_OF(sm_name_source_name, sm_name_source, source_names, SM_NAME_SOURCES)

bool sm_mode_parse(const char *text, enum sm_mode *ret, GError **error)
{
    static const struct {
        const char *text;
        enum sm_mode mode;
    } words[] = {
        {"", SM_MODE_GUARDED}, {"guarded", SM_MODE_GUARDED}, {"strict", SM_MODE_STRICT},
        {"off", SM_MODE_OFF},  {"open", SM_MODE_OFF},        {"disabled", SM_MODE_OFF},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(words); i++) {
        if (strcmp(text, words[i].text) == 0) {
            *ret = words[i].mode;
            return true;
        }
    }
    sm_error_set(error, SM_ERROR_INVALID, "'%s' is not a mode: write guarded, strict or off", text);
    return false;
}

static enum sm_reason inside_reason(enum sm_inside_kind kind)
{
    switch (kind) {
    case SM_INSIDE_LOOPBACK:
    case SM_INSIDE_THIS_NETWORK:
        return SM_REASON_LOOPBACK;
    case SM_INSIDE_LINK_LOCAL:
        return SM_REASON_LINK_LOCAL;
    case SM_INSIDE_METADATA:
        return SM_REASON_METADATA;
    case SM_INSIDE_MULTICAST:
    case SM_INSIDE_BROADCAST:
        return SM_REASON_MULTICAST;
    case SM_INSIDE_OWN:
        return SM_REASON_OWN_ADDRESS;
    case SM_INSIDE_NETWORK:
        return SM_REASON_VIRTUAL_NETWORK;
    case SM_INSIDE_WORKSPACE:
        return SM_REASON_EAST_WEST;
    case SM_INSIDE_LISTENER:
        return SM_REASON_LISTENER;
    case SM_INSIDE_NONE:
    case SM_INSIDE_PRIVATE:
    case SM_INSIDE_SHARED:
    case SM_INSIDE_UNIQUE_LOCAL:
    case SM_INSIDE_PROTOCOL:
    case SM_INSIDE_BENCHMARK:
    case SM_INSIDE_RESERVED:
    case SM_INSIDE_SITE_LOCAL:
    case SM_INSIDE_EXTRA:
    case SM_INSIDE_KINDS:
        break;
    }
    return SM_REASON_INSIDE;
}

/* One live pin of the destination and what the lists say about its name. */
struct judged {
    const char *name;
    struct sm_match rule;        /* allow or passthrough, for this port */
    const struct sm_entry *deny; /* deny entry for the name on this port */
    bool passthrough;            /* the better of rule and the address's own entry is passthrough */
};

/* All that is known about a destination before anybody asserts anything. */
struct facts {
    enum sm_inside_kind kind;
    enum sm_inside_class class;
    const struct sm_entry *deny; /* of the address */
    struct sm_match rule;        /* of the address */
    bool rule_opens;             /* the address's rule is enough for its class */
    struct judged pins[SM_PINS_PER_ADDR_MAX];
    size_t n_pins;
    const struct sm_entry *denied_pin; /* some pin is denied: its entry */
    bool all_denied;                   /* there are pins, and each is denied */
};

static void set_rule(struct sm_verdict *v, const struct sm_entry *entry)
{
    if (entry)
        (void)sm_entry_format(entry, v->rule);
    else
        v->rule[0] = '\0';
}

static void set_host(struct sm_verdict *v, const char *name, enum sm_name_source source, bool proof)
{
    g_strlcpy(v->host, name, sizeof(v->host));
    v->name_source = source;
    v->proof = proof;
}

static void deny(const struct sm_question *q, struct sm_verdict *v, enum sm_reason reason)
{
    v->action = SM_ACTION_DENY;
    v->reason = reason;
    v->refuse = q->proto == SM_PROTO_UDP ? SM_REFUSAL_ICMP_ADMIN : SM_REFUSAL_RST;
    v->passthrough = v->intercept = v->unlisted = false;
    set_rule(v, NULL);
}

static void deny_listed(const struct sm_question *q, struct sm_verdict *v, const struct sm_entry *entry)
{
    deny(q, v, SM_REASON_DENY_LIST);
    set_rule(v, entry);
}

/* The only way to a positive verdict. rule: the entry with proof that stands behind it, or none. */
static void grant(const struct sm_question *q, struct sm_verdict *v, enum sm_action action, enum sm_reason reason,
                  const struct sm_entry *rule, bool passthrough)
{
    v->action = action;
    v->reason = reason;
    v->refuse = SM_REFUSAL_NONE;
    set_rule(v, rule);
    v->unlisted = q->mode == SM_MODE_GUARDED && !rule;
    v->passthrough = passthrough;
    v->intercept =
        q->mode != SM_MODE_OFF && !passthrough && !q->opaque && q->proto == SM_PROTO_TCP && action != SM_ACTION_DNS;
}

/* Is the address's rule enough to open its class? */
static bool rule_opens(enum sm_inside_class class, const struct sm_entry *rule)
{
    if (!rule)
        return false;
    switch (class) {
    case SM_INSIDE_CLASS_PUBLIC:
    case SM_INSIDE_CLASS_PIN:
    case SM_INSIDE_CLASS_RULE:
        return true;
    case SM_INSIDE_CLASS_SMALL_RULE:
        return rule->prefix.len >= (rule->prefix.addr.family == SM_FAMILY_V4 ? SM_INSIDE_SMALL_V4 : SM_INSIDE_SMALL_V6);
    case SM_INSIDE_CLASS_NEVER:
    case SM_INSIDE_CLASSES:
        break;
    }
    return false;
}

static bool is_passthrough(struct sm_match m)
{
    return m.entry && m.list == SM_LIST_PASSTHROUGH;
}

static void judge_name(const struct sm_question *q, const struct facts *f, const char *name, struct judged *ret)
{
    *ret = (struct judged){.name = name};
    if (!q->lists)
        return;
    ret->deny = sm_lists_deny_name(q->lists, name, q->dst.port);
    ret->rule = sm_lists_name(q->lists, name, q->dst.port);
    ret->passthrough = is_passthrough(sm_match_better(ret->rule, f->rule));
}

static void gather(const struct sm_question *q, struct facts *f)
{
    const struct sm_pin *found[SM_PINS_PER_ADDR_MAX];

    f->kind = sm_ground_kind(q->ground, &q->dst, &f->class);
    f->deny = q->lists ? sm_lists_deny_addr(q->lists, &q->dst) : NULL;
    f->rule = q->lists ? sm_lists_addr(q->lists, &q->dst) : (struct sm_match){0};
    f->rule_opens = rule_opens(f->class, f->rule.entry);
    f->denied_pin = NULL;
    f->n_pins = q->pins ? sm_pins_of(q->pins, &q->dst.addr, q->now_us, found) : 0;
    f->all_denied = f->n_pins > 0;
    for (size_t i = 0; i < f->n_pins; i++) {
        judge_name(q, f, found[i]->name, &f->pins[i]);
        if (!f->pins[i].deny)
            f->all_denied = false;
        else if (!f->denied_pin)
            f->denied_pin = f->pins[i].deny;
    }
}

static const struct judged *pin_of(const struct facts *f, const char *name)
{
    for (size_t i = 0; i < f->n_pins; i++)
        if (strcmp(f->pins[i].name, name) == 0)
            return &f->pins[i];
    return NULL;
}

/* May this pin open this destination? A public one needs no opening; an inside one of class pin an exact listed name.
 */
static bool pin_opens(const struct facts *f, const struct judged *pin)
{
    if (f->class == SM_INSIDE_CLASS_PUBLIC)
        return true;
    /* A HOST entry outranks every suffix, so a name that has one is seen to have it here. */
    return f->class == SM_INSIDE_CLASS_PIN && pin->rule.entry && pin->rule.entry->kind == SM_ENTRY_HOST && !pin->deny;
}

/*
 * The pin that speaks for a flow that names nobody: a listed one that may open the destination, an intercepted one
 * before a passthrough one (interception beats passthrough); failing that, the most recently learnt that is not denied.
 * NULL without pins.
 */
static const struct judged *best_pin(const struct facts *f)
{
    const struct judged *best = NULL, *other = NULL;
    for (size_t i = 0; i < f->n_pins; i++) {
        const struct judged *p = &f->pins[i];
        if (!other || (other->deny && !p->deny))
            other = p;
        if (!p->rule.entry || p->deny || !pin_opens(f, p))
            continue;
        if (!best || (best->passthrough && !p->passthrough))
            best = p;
    }
    return best ? best : other;
}

static bool is_listed(const struct judged *pin)
{
    return pin && pin->rule.entry && !pin->deny;
}

/* Passthrough for a flow that names nobody: every live pin, or without pins the address's own entry. */
static bool nameless_passthrough(const struct facts *f)
{
    for (size_t i = 0; i < f->n_pins; i++)
        if (!f->pins[i].passthrough)
            return false;
    return f->n_pins > 0 || is_passthrough(f->rule);
}

/*
 * A flow that names nobody (attempts, UDP, opaque, server-first, silent) to an address: go on with `action`, or what to
 * say when nothing proves the address. Returns false when it was denied for being inside or denied by list.
 */
static bool nameless(const struct sm_question *q, const struct facts *f, struct sm_verdict *v, enum sm_action action,
                     enum sm_reason unproven)
{
    const struct judged *pin = best_pin(f);
    bool listed_pin = is_listed(pin) && pin_opens(f, pin);

    if (pin)
        set_host(v, pin->name, SM_NAME_SOURCE_PIN, true);
    if (f->class != SM_INSIDE_CLASS_PUBLIC && !f->rule_opens && !listed_pin) {
        deny(q, v, inside_reason(f->kind));
        return false;
    }
    if (f->rule_opens || listed_pin) {
        struct sm_match winner = f->rule_opens ? f->rule : (struct sm_match){0};
        if (listed_pin)
            winner = sm_match_better(pin->rule, winner);
        grant(q, v, action, listed_pin ? SM_REASON_PIN : SM_REASON_RULE, winner.entry, nameless_passthrough(f));
        return true;
    }
    if (q->mode == SM_MODE_GUARDED) {
        grant(q, v, action, SM_REASON_PUBLIC, NULL, false);
        return true;
    }
    deny(q, v, unproven);
    return true;
}

static void decide_attempt_tcp(const struct sm_question *q, const struct facts *f, struct sm_verdict *v)
{
    if (!nameless(q, f, v, SM_ACTION_DIAL, SM_REASON_UNLISTED))
        return;
    /* Strict, public, and nothing proves the address: the guest may still name a listed host, whose own address is then
     * dialled. */
    if (v->action == SM_ACTION_DENY)
        grant(q, v, SM_ACTION_HOLD, SM_REASON_WAITING, NULL, false);
}

static void decide_attempt_udp(const struct sm_question *q, const struct facts *f, struct sm_verdict *v)
{
    if (f->denied_pin) { /* no name will ever be asserted that could pick another pin */
        deny_listed(q, v, f->denied_pin);
        return;
    }
    if (!nameless(q, f, v, SM_ACTION_DIAL, SM_REASON_UNLISTED))
        return;
    if (q->dst.port == PORT_HTTPS && v->action != SM_ACTION_DENY && !q->opaque && !f->rule_opens &&
        !(f->n_pins > 0 && nameless_passthrough(f)))
        deny(q, v, SM_REASON_QUIC);
}

static enum sm_name_source source_of(enum sm_assertion assertion)
{
    switch (assertion) {
    case SM_ASSERTION_SNI:
        return SM_NAME_SOURCE_SNI;
    case SM_ASSERTION_HOST:
        return SM_NAME_SOURCE_HOST;
    case SM_ASSERTION_CONNECT:
        return SM_NAME_SOURCE_CONNECT;
    case SM_ASSERTION_NONE:
    case SM_ASSERTION_OPAQUE:
    case SM_ASSERTION_SERVER_FIRST:
    case SM_ASSERTION_TIMEOUT:
    case SM_ASSERTIONS:
        break;
    }
    return SM_NAME_SOURCE_IP;
}

/* The name is proven for this address: by a pin, or because the core has just resolved it. */
static void decide_proven(const struct sm_question *q, const struct facts *f, const struct judged *n,
                          enum sm_reason reason, struct sm_verdict *v)
{
    struct sm_match winner = n->rule;

    set_host(v, n->name, q->assertion == SM_ASSERTION_CONNECT ? SM_NAME_SOURCE_CONNECT : SM_NAME_SOURCE_PIN, true);
    if (!f->rule_opens && !pin_opens(f, n)) {
        deny(q, v, inside_reason(f->kind));
        return;
    }
    if (q->mode == SM_MODE_STRICT && !n->rule.entry) {
        deny(q, v, SM_REASON_UNLISTED_NAME);
        return;
    }
    if (f->rule_opens)
        winner = sm_match_better(n->rule, f->rule);
    if (!n->rule.entry)
        reason = winner.entry ? SM_REASON_RULE : SM_REASON_PUBLIC;
    grant(q, v, SM_ACTION_ALLOW, reason, winner.entry, is_passthrough(winner));
}

/* The name is only what the guest says: it overrides nothing, and what the lists grant to it is given at its own
 * address. */
static void decide_unproven(const struct sm_question *q, const struct facts *f, const struct judged *n,
                            struct sm_verdict *v)
{
    struct sm_match winner = sm_match_better(f->rule_opens ? f->rule : (struct sm_match){0}, n->rule);
    bool by_name_passthrough = is_passthrough(winner) && winner.entry == n->rule.entry;
    bool reachable = f->class == SM_INSIDE_CLASS_PUBLIC || f->rule_opens;
    bool opened = reachable;

    for (size_t i = 0; i < f->n_pins && !opened; i++)
        opened = pin_opens(f, &f->pins[i]);
    if (!opened) {
        deny(q, v, inside_reason(f->kind));
        return;
    }
    if (q->mode == SM_MODE_STRICT && !n->rule.entry) {
        deny(q, v, SM_REASON_UNLISTED_NAME);
        return;
    }
    if (n->rule.entry && (by_name_passthrough || (q->mode == SM_MODE_STRICT && !f->rule_opens))) {
        grant(q, v, SM_ACTION_RESOLVE, SM_REASON_LISTED, n->rule.entry, false);
        return;
    }
    if (!reachable) {
        deny(q, v, inside_reason(f->kind));
        return;
    }
    if (f->denied_pin) {
        deny_listed(q, v, f->denied_pin);
        return;
    }
    grant(q, v, SM_ACTION_ALLOW, f->rule_opens ? SM_REASON_RULE : SM_REASON_PUBLIC,
          f->rule_opens ? f->rule.entry : NULL, f->rule_opens && is_passthrough(winner));
}

/* Is there a deny entry for an address that a Host or CONNECT names? */
static const struct sm_entry *deny_of_literal(const struct sm_question *q, const struct sm_host *host)
{
    return q->lists ? sm_lists_deny_addr(q->lists, &(struct sm_endpoint){.addr = host->addr, .port = q->dst.port})
                    : NULL;
}

static void decide_no_name(const struct sm_question *q, const struct facts *f, struct sm_verdict *v)
{
    if (f->denied_pin) {
        deny_listed(q, v, f->denied_pin);
        return;
    }
    (void)nameless(q, f, v, SM_ACTION_ALLOW,
                   q->assertion == SM_ASSERTION_TIMEOUT ? SM_REASON_CLASSIFY_TIMEOUT : SM_REASON_NO_NAME);
}

/* ASSERT and RESOLVED with a name or address that somebody wrote. */
static void decide_named(const struct sm_question *q, const struct facts *f, struct sm_verdict *v)
{
    const struct sm_host *host = q->asserted;
    struct judged name;

    if (!host || host->kind == SM_NAME_BAD || (q->stage == SM_STAGE_RESOLVED && host->kind != SM_NAME_HOST)) {
        deny(q, v, SM_REASON_BAD_NAME);
        return;
    }
    set_host(v, host->name, source_of(q->assertion), false);
    if (host->kind != SM_NAME_HOST) {
        const struct sm_entry *denied = deny_of_literal(q, host);
        if (denied) {
            deny_listed(q, v, denied);
            return;
        }
        if (sm_addr_equal(&host->addr, &q->dst.addr)) {
            v->host[0] = '\0';
            v->name_source = q->assertion == SM_ASSERTION_CONNECT ? SM_NAME_SOURCE_CONNECT : SM_NAME_SOURCE_IP;
            decide_no_name(q, f, v);
            return;
        }
        /* No list entry is a name that looks like an address, so this one is unlisted and unproven. */
        decide_unproven(q, f, &(struct judged){.name = host->name}, v);
        return;
    }
    judge_name(q, f, host->name, &name);
    if (name.deny) {
        deny_listed(q, v, name.deny);
        return;
    }
    if (q->stage == SM_STAGE_RESOLVED)
        decide_proven(q, f, &name, SM_REASON_RESOLVED, v);
    else if (pin_of(f, host->name))
        decide_proven(q, f, &name, SM_REASON_PIN, v);
    else
        decide_unproven(q, f, &name, v);
}

/* The first bytes of a flow whose name is known speak for that name, or nobody is spoken for. */
static bool is_foreign(const struct sm_question *q)
{
    return q->inner && !(q->inner->kind == SM_NAME_HOST && q->asserted && q->asserted->kind == SM_NAME_HOST &&
                         strcmp(q->inner->name, q->asserted->name) == 0);
}

/* A verdict for the name of CONNECT that lets the flow go on, and what its first bytes have to do with that. */
static void heed_inner(const struct sm_question *q, struct sm_verdict *v)
{
    if (v->action == SM_ACTION_DENY || q->mode == SM_MODE_OFF || !is_foreign(q))
        return;
    if (q->inner_is_host && !v->passthrough)
        return; /* every request will be judged, and answered by a page */
    deny(q, v, SM_REASON_NAME_MISMATCH);
}

/* A name with a route: before there is an address, and for the address of its upstream. */
static void decide_route(const struct sm_question *q, struct sm_verdict *v)
{
    enum sm_inside_class class = SM_INSIDE_CLASS_PUBLIC;
    const struct sm_entry *denied = NULL;

    set_host(v, q->asserted->name, SM_NAME_SOURCE_CONNECT, false);
    if (q->lists && q->mode != SM_MODE_OFF)
        denied = sm_lists_deny_name(q->lists, q->asserted->name, q->route->port);
    if (q->stage == SM_STAGE_RESOLVED) {
        v->inside = sm_ground_kind(q->ground, &q->dst, &class);
        v->internal = v->inside != SM_INSIDE_NONE;
        if (!denied && q->lists && q->mode != SM_MODE_OFF)
            denied = sm_lists_deny_addr(q->lists, &q->dst);
    }
    if (class == SM_INSIDE_CLASS_NEVER) {
        deny(q, v, inside_reason(v->inside));
        return;
    }
    if (denied) {
        deny_listed(q, v, denied);
        return;
    }
    grant(q, v, q->stage == SM_STAGE_RESOLVED ? SM_ACTION_ALLOW : SM_ACTION_RESOLVE, SM_REASON_ROUTE, NULL, false);
    v->unlisted = false;
    v->proof = q->stage == SM_STAGE_RESOLVED;
    (void)sm_route_rule(q->route, v->rule);
}

/* CONNECT to a name: there is no address yet, so the lists speak alone and the resolved address is judged next. */
static void decide_connect(const struct sm_question *q, struct sm_verdict *v)
{
    struct judged name;
    const struct facts nowhere = {.kind = SM_INSIDE_NONE};

    set_host(v, q->asserted->name, SM_NAME_SOURCE_CONNECT, false);
    if (q->mode == SM_MODE_OFF) {
        grant(q, v, SM_ACTION_RESOLVE, SM_REASON_OFF, NULL, false);
        return;
    }
    judge_name(q, &nowhere, q->asserted->name, &name);
    if (name.deny)
        deny_listed(q, v, name.deny);
    else if (q->mode == SM_MODE_STRICT && !name.rule.entry)
        deny(q, v, SM_REASON_UNLISTED_NAME);
    else
        grant(q, v, SM_ACTION_RESOLVE, name.rule.entry ? SM_REASON_LISTED : SM_REASON_PUBLIC, name.rule.entry, false);
}

static void decide_off(const struct sm_question *q, struct sm_verdict *v)
{
    v->inside = sm_ground_kind(q->ground, &q->dst, NULL);
    v->internal = v->inside != SM_INSIDE_NONE;
    if (v->inside == SM_INSIDE_LOOPBACK || v->inside == SM_INSIDE_THIS_NETWORK || v->inside == SM_INSIDE_LISTENER) {
        deny(q, v, inside_reason(v->inside));
        return;
    }
    grant(q, v, q->stage == SM_STAGE_ATTEMPT ? SM_ACTION_DIAL : SM_ACTION_ALLOW, SM_REASON_OFF, NULL, false);
}

void sm_decide(const struct sm_question *question, struct sm_verdict *v)
{
    struct sm_question copy = *question;
    const struct sm_question *q = &copy;
    struct facts f;
    bool connect = q->stage == SM_STAGE_ASSERT && q->assertion == SM_ASSERTION_CONNECT;

    memset(v, 0, sizeof(*v));
    deny(q, v, SM_REASON_NONE);
    if (connect && q->asserted && (q->asserted->kind == SM_NAME_IPV4 || q->asserted->kind == SM_NAME_IPV6))
        copy.dst.addr = q->asserted->addr;

    /* Gates that no list opens. */
    if (q->dst.port == 0 || (q->proto != SM_PROTO_TCP && q->proto != SM_PROTO_UDP)) {
        deny(q, v, SM_REASON_BAD_DESTINATION);
        return;
    }
    if (q->dst.addr.family == SM_FAMILY_V6 && !connect && q->stage != SM_STAGE_RESOLVED) {
        deny(q, v, SM_REASON_IPV6);
        return;
    }
    if (q->mode == SM_MODE_OFF ? sm_ground_is_resolver(q->ground, &q->dst) : q->dst.port == PORT_DNS) {
        grant(q, v, SM_ACTION_DNS, SM_REASON_RESOLVER, NULL, false);
        v->unlisted = false;
        return;
    }
    if (q->mode != SM_MODE_OFF && q->dst.port == PORT_DNS_OVER_TLS) {
        deny(q, v, SM_REASON_DNS_OVER_TLS);
        return;
    }
    if (connect && (!q->asserted || q->asserted->kind == SM_NAME_BAD)) {
        deny(q, v, SM_REASON_BAD_NAME);
        return;
    }
    if (q->route && q->assertion == SM_ASSERTION_CONNECT && q->asserted && q->asserted->kind == SM_NAME_HOST &&
        (connect || (q->stage == SM_STAGE_RESOLVED && q->dst.addr.family != SM_FAMILY_NONE))) {
        decide_route(q, v);
        heed_inner(q, v);
        return;
    }
    if (connect && q->asserted->kind == SM_NAME_HOST) {
        decide_connect(q, v);
        return;
    }
    if (q->dst.addr.family == SM_FAMILY_NONE) {
        deny(q, v, SM_REASON_BAD_DESTINATION);
        return;
    }
    if (q->mode == SM_MODE_OFF) {
        decide_off(q, v);
        return;
    }

    gather(q, &f);
    v->inside = f.kind;
    v->internal = f.kind != SM_INSIDE_NONE;
    if (f.class == SM_INSIDE_CLASS_NEVER) {
        deny(q, v, inside_reason(f.kind));
        return;
    }
    if (f.deny || (f.all_denied && q->stage != SM_STAGE_RESOLVED)) {
        deny_listed(q, v, f.deny ? f.deny : f.denied_pin);
        return;
    }
    switch (q->stage) {
    case SM_STAGE_ATTEMPT:
        if (q->proto == SM_PROTO_UDP)
            decide_attempt_udp(q, &f, v);
        else
            decide_attempt_tcp(q, &f, v);
        return;
    case SM_STAGE_ASSERT:
    case SM_STAGE_RESOLVED:
        switch (q->assertion) {
        case SM_ASSERTION_SNI:
        case SM_ASSERTION_HOST:
        case SM_ASSERTION_CONNECT:
            decide_named(q, &f, v);
            heed_inner(q, v);
            return;
        case SM_ASSERTION_NONE:
        case SM_ASSERTION_OPAQUE:
        case SM_ASSERTION_SERVER_FIRST:
        case SM_ASSERTION_TIMEOUT:
            if (q->stage == SM_STAGE_RESOLVED) /* there is no resolution without a name */
                deny(q, v, SM_REASON_BAD_NAME);
            else
                decide_no_name(q, &f, v);
            return;
        case SM_ASSERTIONS:
            return;
        }
        return;
    case SM_STAGES:
        return;
    }
}

void sm_decide_dns(enum sm_mode mode, const struct sm_lists *lists, const char *qname, size_t len, struct sm_verdict *v)
{
    struct sm_host host;
    struct sm_match rule = {0};
    const struct sm_entry *denied = NULL;

    memset(v, 0, sizeof(*v));
    v->refuse = SM_REFUSAL_DNS_REFUSED;
    if (sm_name_classify(qname, len, &host) != SM_NAME_HOST) {
        v->reason = SM_REASON_BAD_NAME;
        return;
    }
    g_strlcpy(v->host, host.name, sizeof(v->host));
    if (lists && mode != SM_MODE_OFF) {
        denied = sm_lists_deny_name(lists, host.name, SM_LISTS_ANY_PORT);
        rule = sm_lists_name(lists, host.name, SM_LISTS_ANY_PORT);
    }
    set_rule(v, denied ? denied : rule.entry);
    if (denied) {
        v->reason = SM_REASON_DENY_LIST;
        return;
    }
    if (mode == SM_MODE_STRICT && !rule.entry) {
        v->reason = SM_REASON_UNLISTED_NAME;
        return;
    }
    v->action = SM_ACTION_ALLOW;
    v->refuse = SM_REFUSAL_NONE;
    v->reason = mode == SM_MODE_OFF ? SM_REASON_OFF : rule.entry ? SM_REASON_LISTED : SM_REASON_PUBLIC;
    v->unlisted = mode == SM_MODE_GUARDED && !rule.entry;
    if (rule.entry)
        v->passthrough = is_passthrough(sm_lists_name(lists, host.name, PORT_HTTPS));
}
