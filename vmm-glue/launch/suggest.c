/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was used, collected line by line; suggest_write.c makes entries of it.
 *
 *   egress_start                          opaque or not, for the lines behind it
 *   egress_allow, egress_udp_allow        a use of host (or dst) on port
 *   egress_close, egress_udp_close        its bytes
 *   egress_http_request                   its method; an authority of its own is a use too (a connection that names nobody)
 *   egress_dns_allow                      a name that had an answer
 *   *_deny, *_error, egress_loop_guard    a refused destination and its reason
 *
 * Trees, not hashes: the guest chose the names, and may not choose collisions.
 */
#include <string.h>

#include "audit/event.h"
#include "launch/suggest_seen.h"

static int compare(gconstpointer a, gconstpointer b, gpointer data)
{
    (void)data;
    return strcmp(a, b);
}

static void seen_free(void *p)
{
    struct sm_seen *n = p;

    g_array_unref(n->uses);
    g_free(n->name);
    g_free(n);
}

static struct sm_seen *seen_new(const char *name)
{
    struct sm_seen *n = g_new0(struct sm_seen, 1);

    n->name = g_strdup(name);
    n->uses = g_array_new(FALSE, TRUE, sizeof(struct sm_seen_use));
    return n;
}

static void domain_free(void *p)
{
    struct sm_seen_domain *d = p;

    g_tree_unref(d->names);
    g_array_unref(d->rest.uses);
    g_free(d->name);
    g_free(d);
}

struct sm_suggest *sm_suggest_new(void)
{
    struct sm_suggest *s = g_new0(struct sm_suggest, 1);

    s->bad = g_ptr_array_new_with_free_func(g_free);
    s->domains = g_tree_new_full(compare, NULL, NULL, domain_free);
    s->addrs = g_tree_new_full(compare, NULL, NULL, seen_free);
    s->denied = g_tree_new_full(compare, NULL, g_free, g_free);
    s->denied_domains = g_tree_new_full(compare, NULL, g_free, NULL);
    return s;
}

void sm_suggest_free(struct sm_suggest *s)
{
    if (!s)
        return;
    g_ptr_array_unref(s->bad);
    g_tree_unref(s->domains);
    g_tree_unref(s->addrs);
    g_tree_unref(s->denied);
    g_tree_unref(s->denied_domains);
    g_free(s);
}

struct sm_suggest_counts sm_suggest_counts(const struct sm_suggest *s)
{
    return s->counts;
}

const char *sm_suggest_bad(const struct sm_suggest *s, size_t i)
{
    return i < s->bad->len ? g_ptr_array_index(s->bad, i) : NULL;
}

/* ---- the fields of a record ---- */

static const char *text_of(const struct sm_audit_line *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line->json, key));
    return text ? text : "";
}

static uint64_t number_of(const struct sm_audit_line *line, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(line->json, key));
    return n > 0 ? (uint64_t)n : 0;
}

static bool is_true(const struct sm_audit_line *line, const char *key)
{
    return json_is_true(json_object_get(line->json, key));
}

/** Whom a line is about. */
struct target {
    struct sm_host host; /* BAD: no name */
    struct sm_endpoint dst;
    bool odd;
    bool internal;
};

static bool host_of(const struct sm_audit_line *line, struct sm_host *ret)
{
    const json_t *host = json_object_get(line->json, "host");

    *ret = (struct sm_host){0};
    if (!host)
        return true;
    return json_is_string(host) &&
           sm_name_classify(json_string_value(host), json_string_length(host), ret) != SM_NAME_BAD;
}

static bool target_of(const struct sm_audit_line *line, struct target *ret)
{
    *ret = (struct target){.internal = is_true(line, "internal")};
    uint64_t port = number_of(line, "port");
    if (port == 0 || port > UINT16_MAX || !sm_addr_parse(text_of(line, "dst"), &ret->dst.addr) ||
        !host_of(line, &ret->host))
        return false;
    ret->dst.port = (uint16_t)port;
    if (ret->host.kind != SM_NAME_HOST) { /* an address that was asserted is no name */
        ret->odd = ret->host.kind != SM_NAME_BAD && !sm_addr_equal(&ret->host.addr, &ret->dst.addr);
        ret->host.kind = SM_NAME_BAD;
    }
    return true;
}

/* ---- what was used ---- */

static struct sm_seen_domain *domain_of(struct sm_suggest *s, const char *name, bool create)
{
    const char *registrable = sm_name_registrable(name);
    const char *key = registrable ? registrable : name;
    struct sm_seen_domain *d = g_tree_lookup(s->domains, key);

    if (d || !create || s->n_domains == SM_SUGGEST_DOMAINS_MAX)
        return d;
    d = g_new0(struct sm_seen_domain, 1);
    d->name = g_strdup(key);
    d->collapses = registrable != NULL;
    d->names = g_tree_new_full(compare, NULL, NULL, seen_free);
    d->rest.uses = g_array_new(FALSE, TRUE, sizeof(struct sm_seen_use));
    g_tree_insert(s->domains, d->name, d);
    s->n_domains++;
    return d;
}

/** The record of a name. @exact: it must have its own, since it will not be collapsed. NULL: there is none (counted if it was to be made). */
static struct sm_seen *name_of(struct sm_suggest *s, const char *name, bool exact, bool create)
{
    struct sm_seen_domain *d = domain_of(s, name, create);
    struct sm_seen *n = d ? g_tree_lookup(d->names, name) : NULL;

    if (n || !d)
        goto out;
    if (!create)
        return d->rest_names ? &d->rest : NULL;
    if (d->n < SM_SUGGEST_NAMES_MAX) {
        d->n++;
    } else if (!exact && d->collapses) {
        d->rest_names++;
        return &d->rest;
    } else if (s->n_exact < SM_SUGGEST_EXACT_MAX) {
        s->n_exact++;
    } else {
        goto out;
    }
    n = seen_new(name);
    g_tree_insert(d->names, n->name, n);
out:
    if (!n && create)
        s->counts.over++;
    return n;
}

static struct sm_seen *addr_of(struct sm_suggest *s, const struct sm_addr *addr, bool create)
{
    char text[SM_ADDR_STRLEN];
    struct sm_seen *n = g_tree_lookup(s->addrs, sm_addr_format(addr, text));

    if (n || !create)
        return n;
    if (s->n_addrs == SM_SUGGEST_ADDRS_MAX) {
        s->counts.over++;
        return NULL;
    }
    n = seen_new(text);
    n->addr = *addr;
    g_tree_insert(s->addrs, n->name, n);
    s->n_addrs++;
    return n;
}

static struct sm_seen_use *use_of(struct sm_seen *n, uint16_t port, bool create)
{
    struct sm_seen_use *any = NULL;

    for (guint i = 0; i < n->uses->len; i++) {
        struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (u->port == port)
            return u;
        if (u->port == 0)
            any = u;
    }
    if (any || !create)
        return any;
    struct sm_seen_use fresh = {.port = n->uses->len < SM_SUGGEST_PORTS_MAX ? port : 0};
    g_array_append_val(n->uses, fresh);
    return &g_array_index(n->uses, struct sm_seen_use, n->uses->len - 1);
}

static struct sm_seen_use *find_use(struct sm_suggest *s, const struct target *t)
{
    struct sm_seen *n =
        t->host.kind == SM_NAME_HOST ? name_of(s, t->host.name, false, false) : addr_of(s, &t->dst.addr, false);

    return n ? use_of(n, t->dst.port, false) : NULL;
}

static void mark_inside(struct sm_seen *n, const struct sm_addr *addr)
{
    if (!n->internal || sm_addr_cmp(addr, &n->inside) < 0)
        n->inside = *addr; /* one of several: the lowest, whatever their order */
    n->internal = true;
}

static bool is_address_rule(const char *rule)
{
    struct sm_entry entry;

    return rule[0] && sm_entry_parse(rule, &entry, NULL) &&
           (entry.kind == SM_ENTRY_ADDR || entry.kind == SM_ENTRY_CIDR);
}

/** Left alone: TLS that was not terminated, or QUIC that only a passthrough name allows. */
static bool left_alone(const struct sm_audit_line *line, const struct target *t, bool udp)
{
    if (udp)
        return t->dst.port == 443 && strcmp(text_of(line, "reason"), sm_reason_name(SM_REASON_PIN)) == 0 &&
               !is_address_rule(text_of(line, "rule"));
    return strcmp(text_of(line, "classified"), "tls") == 0 && !is_true(line, "mitm");
}

static void on_allow(struct sm_suggest *s, const struct sm_audit_line *line, bool udp)
{
    struct target t;

    if (!target_of(line, &t)) {
        s->counts.dropped++;
        return;
    }
    bool named = t.host.kind == SM_NAME_HOST, tls = udp || strcmp(text_of(line, "classified"), "tls") == 0;
    enum sm_seen_passthrough alone = SM_SEEN_LOOKED_INTO;
    if (left_alone(line, &t, udp) && !(s->start_seen && s->opaque))
        alone = s->start_seen ? SM_SEEN_PASSTHROUGH : SM_SEEN_UNKNOWN;
    if (is_true(line, "mitm"))
        s->mitm_seen = true;

    struct sm_seen *n = named ? name_of(s, t.host.name, t.internal || alone != SM_SEEN_LOOKED_INTO, true)
                              : addr_of(s, &t.dst.addr, true);
    if (!n)
        return;
    struct sm_seen_use *u = use_of(n, t.dst.port, true);
    u->count.flows++;
    u->odd |= t.odd;
    if (strcmp(text_of(line, "name_source"), sm_name_source_name(SM_NAME_SOURCE_PIN)) == 0 ||
        strcmp(text_of(line, "name_source"), sm_name_source_name(SM_NAME_SOURCE_CONNECT)) == 0)
        u->pinned = true;
    if (tls && u->port)
        u->passthrough = alone;
    if (!t.internal)
        return;
    mark_inside(n, &t.dst.addr);
    /* A pin opens some kinds of inside, and a rule others: where it was a rule, the address is part of the policy too. */
    if (named && (sm_inside_class(sm_inside_kind(&t.dst.addr)) != SM_INSIDE_CLASS_PIN ||
                  is_address_rule(text_of(line, "rule")))) {
        struct sm_seen *a = addr_of(s, &t.dst.addr, true);
        if (!a)
            return;
        use_of(a, t.dst.port, true)->count.flows++;
        mark_inside(a, &t.dst.addr);
    }
}

static void on_close(struct sm_suggest *s, const struct sm_audit_line *line)
{
    struct target t;

    if (!target_of(line, &t)) {
        s->counts.dropped++;
        return;
    }
    struct sm_seen_use *u = find_use(s, &t);
    if (!u)
        return; /* dialled, and then refused */
    u->count.bytes_up += number_of(line, "bytes_up");
    u->count.bytes_down += number_of(line, "bytes_down");
}

static void on_request(struct sm_suggest *s, const struct sm_audit_line *line)
{
    static const char *const uploads[] = {"POST", "PUT", "PATCH", NULL};
    const char *authority = text_of(line, "authority");
    struct target t;
    struct sm_host host;

    if (!target_of(line, &t)) {
        s->counts.dropped++;
        return;
    }
    struct sm_seen_use *u = find_use(s, &t);
    /* On a connection that names nobody, each request names whom it is for, and is judged by that. */
    if (authority[0] && sm_host_parse(authority, strlen(authority), &host) == SM_NAME_HOST &&
        (t.host.kind != SM_NAME_HOST || strcmp(host.name, t.host.name) != 0)) {
        struct sm_seen *n = name_of(s, host.name, t.internal, true);
        if (n) {
            u = use_of(n, t.dst.port, true);
            if (u->count.flows == 0)
                u->count.flows = 1;
            if (t.internal)
                mark_inside(n, &t.dst.addr);
        }
    }
    if (!u)
        return;
    u->count.requests++;
    if (g_strv_contains(uploads, text_of(line, "method")))
        u->count.uploads++;
}

static void on_lookup(struct sm_suggest *s, const struct sm_audit_line *line)
{
    struct sm_host host;

    if (!host_of(line, &host) || host.kind != SM_NAME_HOST) {
        s->counts.dropped++;
        return;
    }
    if (strcmp(text_of(line, "rcode"), "NOERROR") != 0 || number_of(line, "records") == 0)
        return;
    struct sm_seen *n = name_of(s, host.name, false, true);
    if (n)
        n->lookups++;
}

/* ---- what was refused ---- */

/** The reason as far as it is a word of ours. */
static void copy_reason(const char *reason, char *out, size_t cap)
{
    size_t len = strlen(reason);

    for (size_t i = 0; i < len; i++)
        if (!g_ascii_islower(reason[i]) && !g_ascii_isdigit(reason[i]) && reason[i] != '_')
            len = 0;
    g_strlcpy(out, len > 0 && len < cap ? reason : "other", cap);
}

static enum sm_reason reason_of(const char *text)
{
    for (unsigned i = 1; i < SM_REASONS; i++)
        if (strcmp(text, sm_reason_name((enum sm_reason)i)) == 0)
            return (enum sm_reason)i;
    return SM_REASON_NONE;
}

/** Could an entry of the allow or passthrough list change this refusal? */
static bool entry_opens(enum sm_reason reason)
{
    switch (reason) {
    case SM_REASON_INSIDE:
    case SM_REASON_LOOPBACK:
    case SM_REASON_LINK_LOCAL:
    case SM_REASON_METADATA:
    case SM_REASON_MULTICAST:
    case SM_REASON_OWN_ADDRESS:
    case SM_REASON_VIRTUAL_NETWORK:
    case SM_REASON_UNLISTED:
    case SM_REASON_UNLISTED_NAME:
    case SM_REASON_NO_NAME:
    case SM_REASON_CLASSIFY_TIMEOUT:
    case SM_REASON_QUIC:
        return true;
    case SM_REASON_NONE:
    case SM_REASON_EAST_WEST:
    case SM_REASON_LISTENER:
    case SM_REASON_DENY_LIST:
    case SM_REASON_BAD_NAME:
    case SM_REASON_BAD_DESTINATION:
    case SM_REASON_DNS_OVER_TLS:
    case SM_REASON_IPV6:
    case SM_REASON_NAME_MISMATCH:
    case SM_REASON_LIMIT:
    case SM_REASON_UNRESOLVED:
    case SM_REASON_ROUTE:
    case SM_REASON_OFF:
    case SM_REASON_PUBLIC:
    case SM_REASON_RULE:
    case SM_REASON_PIN:
    case SM_REASON_RESOLVED:
    case SM_REASON_LISTED:
    case SM_REASON_WAITING:
    case SM_REASON_RESOLVER:
    case SM_REASONS:
        break;
    }
    return false;
}

/** A guest that makes up names fills its own domain's share and no more. */
static bool domain_has_room(struct sm_suggest *s, const char *name)
{
    const char *registrable = sm_name_registrable(name);
    const char *key = registrable ? registrable : name;
    uintptr_t n = (uintptr_t)g_tree_lookup(s->denied_domains, key);

    if (n >= SM_SUGGEST_DENIED_DOMAIN_MAX)
        return false;
    g_tree_insert(s->denied_domains, g_strdup(key), (gpointer)(n + 1));
    return true;
}

static void add_denied(struct sm_suggest *s, const struct sm_seen_denied *d, const char *domain, uint64_t count)
{
    g_autofree char *key = g_strconcat(d->entry, " ", d->reason, NULL);
    struct sm_seen_denied *have = g_tree_lookup(s->denied, key);

    if (have) {
        have->count += count;
        return;
    }
    if (s->n_denied == SM_SUGGEST_DENIED_MAX || (domain && !domain_has_room(s, domain))) {
        s->counts.candidates += count;
        return;
    }
    have = g_new(struct sm_seen_denied, 1);
    *have = *d;
    have->count = count;
    g_tree_insert(s->denied, g_steal_pointer(&key), have);
    s->n_denied++;
}

static uint16_t entry_port(uint16_t port)
{
    return port == 80 || port == 443 ? 0 : port;
}

static void on_denied(struct sm_suggest *s, const struct sm_audit_line *line, bool dns, const char *what)
{
    struct sm_seen_denied d = {0};
    uint64_t count = SM_MAX(number_of(line, "count"), UINT64_C(1));
    struct target t = {0};

    if (dns ? !host_of(line, &t.host) || t.host.kind != SM_NAME_HOST : !target_of(line, &t)) {
        s->counts.dropped++;
        return;
    }
    copy_reason(what ? what : text_of(line, "reason"), d.reason, sizeof(d.reason));
    enum sm_reason reason = what ? SM_REASON_NONE : reason_of(d.reason);
    d.opens = entry_opens(reason);
    d.stays = what || !d.opens || reason == SM_REASON_QUIC;
    /* Inside, the address says more than its name, and opens more surely. */
    bool inside = sm_reason_is_inside(reason);
    if (t.host.kind == SM_NAME_HOST && !inside) {
        d.parsed = (struct sm_entry){.kind = SM_ENTRY_HOST, .port = entry_port(t.dst.port)};
        g_strlcpy(d.parsed.name, t.host.name, sizeof(d.parsed.name));
    } else {
        d.parsed = (struct sm_entry){.kind = SM_ENTRY_ADDR, .port = entry_port(t.dst.port)};
        d.parsed.prefix = (struct sm_prefix){.addr = t.dst.addr, .len = t.dst.addr.family == SM_FAMILY_V4 ? 32 : 128};
        if (t.host.kind == SM_NAME_HOST)
            g_strlcpy(d.name, t.host.name, sizeof(d.name));
    }
    (void)sm_entry_format(&d.parsed, d.entry);
    add_denied(s, &d, d.parsed.kind == SM_ENTRY_HOST ? d.parsed.name : NULL, count);
}

/* ---- lines ---- */

static void on_bad(struct sm_suggest *s, const struct sm_audit_line *line)
{
    s->counts.bad++;
    if (s->bad->len < SM_SUGGEST_BAD_MAX)
        g_ptr_array_add(s->bad,
                        g_strdup_printf("line %" G_GUINT64_FORMAT " (behind seq %" G_GUINT64_FORMAT
                                        ") is no record: %s, %zu bytes",
                                        s->counts.lines, s->last_seq, sm_audit_line_kind_name(line->kind), line->len));
}

static void on_record(struct sm_suggest *s, const struct sm_audit_line *line)
{
    enum sm_audit_event event;

    if (!sm_audit_event_parse(line->event, &event))
        return; /* of a later version */
    switch (event) {
    case SM_AUDIT_EGRESS_START:
        s->start_seen = true;
        s->opaque = is_true(line, "opaque");
        break;
    case SM_AUDIT_EGRESS_ALLOW:
    case SM_AUDIT_EGRESS_UDP_ALLOW:
        on_allow(s, line, event == SM_AUDIT_EGRESS_UDP_ALLOW);
        break;
    case SM_AUDIT_EGRESS_CLOSE:
    case SM_AUDIT_EGRESS_UDP_CLOSE:
        on_close(s, line);
        break;
    case SM_AUDIT_EGRESS_HTTP_REQUEST:
        on_request(s, line);
        break;
    case SM_AUDIT_EGRESS_DNS_ALLOW:
        on_lookup(s, line);
        break;
    case SM_AUDIT_EGRESS_DNS_DENY:
        if (strcmp(text_of(line, "reason"), "budget") != 0)
            on_denied(s, line, true, NULL);
        break;
    case SM_AUDIT_EGRESS_DENY:
    case SM_AUDIT_EGRESS_INTERNAL_DENY:
    case SM_AUDIT_EGRESS_UDP_DENY:
    case SM_AUDIT_EGRESS_UDP_INTERNAL_DENY:
    case SM_AUDIT_EGRESS_LOOP_GUARD:
        on_denied(s, line, false, NULL);
        break;
    case SM_AUDIT_EGRESS_DIAL_ERROR:
        on_denied(s, line, false, "dial_error");
        break;
    case SM_AUDIT_EGRESS_MITM_UPSTREAM_ERROR:
        on_denied(s, line, false, "mitm_upstream_error");
        break;
    case SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR:
        on_denied(s, line, false, "mitm_handshake_error");
        break;
    case SM_AUDIT_EGRESS_OTHER_DENY:
        s->other_denied += SM_MAX(number_of(line, "count"), UINT64_C(1));
        break;
    case SM_AUDIT_EGRESS_STOP:
    case SM_AUDIT_EGRESS_DIAL:
    case SM_AUDIT_EGRESS_MITM_DIAL:
    case SM_AUDIT_EGRESS_MITM_OPAQUE:
    case SM_AUDIT_EGRESS_DNS_ERROR:
    case SM_AUDIT_EGRESS_DNS_QUERY:
    case SM_AUDIT_EGRESS_CAP_EXCEEDED:
    case SM_AUDIT_EGRESS_HTTP_RESPONSE:
    case SM_AUDIT_EGRESS_SWAP:
    case SM_AUDIT_EGRESS_SWAP_ERROR:
    case SM_AUDIT_EGRESS_SWAP_FETCH:
    case SM_AUDIT_INGRESS_ACCEPT:
    case SM_AUDIT_INGRESS_CLOSE:
    case SM_AUDIT_MEDIATION_OPEN:
    case SM_AUDIT_MEDIATION_CLOSE:
    case SM_AUDIT_MEDIATION_ERROR:
    case SM_AUDIT_CA_DELIVERED:
    case SM_AUDIT_EGRESS_LOG_REPAIR:
    case SM_AUDIT_EGRESS_LOG_ROTATE:
    case SM_AUDIT_EGRESS_LOG_RESUME:
    case SM_AUDIT_EGRESS_POLICY:
    case SM_AUDIT_INGRESS_DENY:
    case SM_AUDIT_EVENTS:
        break;
    }
}

void sm_suggest_line(struct sm_suggest *s, const struct sm_audit_line *line)
{
    s->counts.lines++;
    s->counts.missing += line->missing;
    if (line->kind != SM_AUDIT_LINE_RECORD || !line->event[0] || line->seq == 0) {
        on_bad(s, line);
        return;
    }
    s->counts.records++;
    s->last_seq = line->seq;
    on_record(s, line);
}
