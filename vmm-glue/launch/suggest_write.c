/* SPDX-License-Identifier: BSD-3-Clause */
/* Entries of what was used, and the file that they become; see suggest.h. */
#include <string.h>

#include "base/error.h"
#include "launch/suggest_seen.h"
#include "policy/file.h"
#include "policy/list.h"

/** An entry of the suggestion with what it stands for. */
struct entry {
    char text[SM_ENTRY_STRLEN];
    struct sm_entry parsed;
    enum sm_list_kind list;
    struct sm_seen_count count;
    uint64_t names, lookups; /* names: of a suffix */
    bool more_names;         /* and others, that were not told apart */
    bool internal;
    struct sm_addr inside;
    bool is_addr; /* no name is known */
    bool asserted, odd, many_ports;
    bool out; /* took much out */
};

struct sm_suggestion {
    struct sm_suggest_counts counts;
    uint64_t other_denied;
    GArray *entries;     /* struct entry: allow before passthrough, names before addresses, each in order */
    GArray *denied;      /* struct sm_seen_denied */
    uint64_t denied_cut; /* refused destinations that were told apart, and are not written */
    GPtrArray *warnings;
};

static void add_count(struct sm_seen_count *to, const struct sm_seen_count *c)
{
    to->flows += c->flows;
    to->requests += c->requests;
    to->uploads += c->uploads;
    to->bytes_up += c->bytes_up;
    to->bytes_down += c->bytes_down;
}

static bool took_much_out(const struct sm_seen_count *c)
{
    if (c->bytes_up >= SM_SUGGEST_OUT_BYTES)
        return true;
    return c->bytes_up >= SM_SUGGEST_OUT_BYTES_UPLOAD &&
           (c->bytes_up >= c->bytes_down ||
            (c->requests > 0 && c->uploads >= c->requests - c->requests * SM_SUGGEST_OUT_SHARE_PERCENT / 100));
}

static void finish_entry(struct sm_suggestion *g, struct entry *e)
{
    (void)sm_entry_format(&e->parsed, e->text);
    e->out = took_much_out(&e->count);
    g_array_append_val(g->entries, *e);
}

static bool is_web(uint16_t port)
{
    return port == 80 || port == 443;
}

static bool is_left_alone(const struct sm_suggest *s, const struct sm_seen_use *u)
{
    return u->passthrough == SM_SEEN_PASSTHROUGH || (u->passthrough == SM_SEEN_UNKNOWN && s->mitm_seen);
}

static void add_use(struct entry *e, const struct sm_seen_use *u)
{
    add_count(&e->count, &u->count);
    e->asserted |= !u->pinned && !e->is_addr;
    e->odd |= u->odd;
    e->many_ports |= u->port == 0;
}

/** What a name's or address's uses have in common. */
struct shape {
    bool used;  /* some flow was let through */
    bool alone; /* some use is passthrough */
    bool mixed; /* and some is not, or is on an odd port: then each entry has its port */
    bool any;   /* it was used on 80, 443 or too many ports: one entry for all ports */
};

static struct shape shape_of(const struct sm_suggest *s, const struct sm_seen *n)
{
    struct shape shape = {0};
    bool looked_into = false, odd_port = false;

    for (guint i = 0; i < n->uses->len; i++) {
        const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (u->count.flows == 0)
            continue;
        shape.used = true;
        if (is_left_alone(s, u))
            shape.alone = true;
        else
            looked_into = true;
        shape.any |= u->port == 0 || is_web(u->port);
        odd_port |= !is_web(u->port);
    }
    shape.mixed = shape.alone && (looked_into || odd_port);
    return shape;
}

static struct entry entry_of(const struct sm_seen *n)
{
    struct entry e = {.list = SM_LIST_ALLOW, .internal = n->internal, .inside = n->inside, .names = 1};

    if (n->addr.family == SM_FAMILY_NONE) {
        e.parsed.kind = SM_ENTRY_HOST;
        g_strlcpy(e.parsed.name, n->name, sizeof(e.parsed.name));
    } else {
        e.parsed.kind = SM_ENTRY_ADDR;
        e.parsed.prefix = (struct sm_prefix){.addr = n->addr, .len = n->addr.family == SM_FAMILY_V4 ? 32 : 128};
        e.is_addr = true;
    }
    e.lookups = n->lookups;
    return e;
}

/** The entries of one list for a name or address that is listed by itself. */
static void list_one(struct sm_suggestion *g, const struct sm_suggest *s, const struct sm_seen *n,
                     enum sm_list_kind list)
{
    struct shape shape = shape_of(s, n);
    struct entry whole = entry_of(n);
    bool one = !shape.mixed && (shape.any || !shape.used); /* one entry for all ports */

    whole.list = list;
    if (!shape.used) {
        if (list == SM_LIST_ALLOW && n->lookups > 0)
            finish_entry(g, &whole);
        return;
    }
    if (one && (list == SM_LIST_PASSTHROUGH) != shape.alone)
        return;
    for (uint32_t after = 0;;) { /* by port: the order of the log is not that of the file */
        const struct sm_seen_use *next = NULL;
        for (guint i = 0; i < n->uses->len; i++) {
            const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
            if (u->count.flows > 0 && (uint32_t)u->port + 1 > after && (!next || u->port < next->port))
                next = u;
        }
        if (!next)
            break;
        after = (uint32_t)next->port + 1;
        if (one) {
            add_use(&whole, next);
        } else if ((list == SM_LIST_PASSTHROUGH) == is_left_alone(s, next)) {
            struct entry e = entry_of(n);
            e.list = list;
            e.parsed.port = next->port;
            add_use(&e, next);
            finish_entry(g, &e);
        }
    }
    if (one)
        finish_entry(g, &whole);
}

/* ---- names of one domain ---- */

struct group {
    struct sm_suggestion *g;
    const struct sm_suggest *s;
    const struct sm_seen_domain *d;
    enum sm_list_kind list;
    GArray *ports;       /* uint16_t: used by some name that may be collapsed, 0 for 80 and 443 */
    uint16_t port;       /* the one being collapsed */
    struct entry suffix; /* being made */
    GArray *collapsed;   /* uint16_t: ports that have a suffix entry */
};

static bool may_collapse(const struct group *p, const struct sm_seen *n, const struct shape *shape)
{
    return p->d->collapses && !n->internal && !shape->alone;
}

/** Does the name count to the suffix entry of this port? A name that is good for all ports does to that of all ports alone. */
static bool counts_to(const struct sm_seen *n, const struct shape *shape, uint16_t port)
{
    if (shape->any || !shape->used)
        return port == 0;
    for (guint i = 0; i < n->uses->len; i++) {
        const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (u->count.flows > 0 && u->port == port)
            return true;
    }
    return false;
}

static bool has_port(const GArray *ports, uint16_t port)
{
    for (guint i = 0; i < ports->len; i++)
        if (g_array_index(ports, uint16_t, i) == port)
            return true;
    return false;
}

static void gather_ports(struct group *p, const struct sm_seen *n)
{
    struct shape shape = shape_of(p->s, n);
    uint16_t any = 0;

    if (!may_collapse(p, n, &shape) || (!shape.used && n->lookups == 0))
        return;
    if (shape.any || !shape.used) {
        if (!has_port(p->ports, any))
            g_array_append_val(p->ports, any);
        return;
    }
    for (guint i = 0; i < n->uses->len; i++) {
        const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (u->count.flows > 0 && !has_port(p->ports, u->port))
            g_array_append_val(p->ports, u->port);
    }
}

static gboolean gather_name(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    gather_ports(data, value);
    return FALSE;
}

static void add_to_suffix(struct group *p, const struct sm_seen *n)
{
    struct shape shape = shape_of(p->s, n);

    if (!may_collapse(p, n, &shape) || (!shape.used && n->lookups == 0))
        return;
    /* The entry for all ports, once it is there, speaks for every name of the domain. */
    bool counts = counts_to(n, &shape, p->port);
    if (!counts && p->port != 0)
        return;
    if (n->name)
        p->suffix.names += counts;
    else
        p->suffix.more_names |= counts;
    p->suffix.lookups += n->lookups;
    for (guint i = 0; i < n->uses->len; i++) {
        const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (p->port == 0 || u->port == p->port)
            add_use(&p->suffix, u);
    }
}

static gboolean add_name(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    add_to_suffix(data, value);
    return FALSE;
}

static void try_suffix(struct group *p, uint16_t port)
{
    p->port = port;
    p->suffix = (struct entry){.list = SM_LIST_ALLOW, .parsed = {.kind = SM_ENTRY_SUFFIX, .port = port}};
    g_strlcpy(p->suffix.parsed.name, p->d->name, sizeof(p->suffix.parsed.name));
    g_tree_foreach(p->d->names, add_name, p);
    add_to_suffix(p, &p->d->rest);
    if (p->suffix.names < SM_SUGGEST_COLLAPSE && !p->suffix.more_names)
        return;
    g_array_append_val(p->collapsed, port);
    finish_entry(p->g, &p->suffix);
}

/** Do the suffix entries speak for all that the name was used for? */
static bool is_covered(const struct group *p, const struct sm_seen *n, const struct shape *shape)
{
    if (!may_collapse(p, n, shape))
        return false;
    if (has_port(p->collapsed, 0))
        return true;
    if (shape->any || !shape->used)
        return false;
    for (guint i = 0; i < n->uses->len; i++) {
        const struct sm_seen_use *u = &g_array_index(n->uses, struct sm_seen_use, i);
        if (u->count.flows > 0 && !has_port(p->collapsed, u->port))
            return false;
    }
    return true;
}

static gboolean list_name(gpointer key, gpointer value, gpointer data)
{
    struct group *p = data;
    const struct sm_seen *n = value;
    struct shape shape = shape_of(p->s, n);

    (void)key;
    if (!is_covered(p, n, &shape))
        list_one(p->g, p->s, n, p->list);
    return FALSE;
}

static gint port_compare(gconstpointer a, gconstpointer b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

struct walk {
    struct sm_suggestion *g;
    const struct sm_suggest *s;
    enum sm_list_kind list;
};

static gboolean list_domain(gpointer key, gpointer value, gpointer data)
{
    const struct walk *w = data;
    struct group p = {.g = w->g, .s = w->s, .d = value, .list = w->list};

    (void)key;
    p.ports = g_array_new(FALSE, FALSE, sizeof(uint16_t));
    p.collapsed = g_array_new(FALSE, FALSE, sizeof(uint16_t));
    if (w->list == SM_LIST_ALLOW) {
        g_tree_foreach(p.d->names, gather_name, &p);
        gather_ports(&p, &p.d->rest);
        g_array_sort(p.ports, port_compare);
        for (guint i = 0; i < p.ports->len && !has_port(p.collapsed, 0); i++)
            try_suffix(&p, g_array_index(p.ports, uint16_t, i));
    }
    g_tree_foreach(p.d->names, list_name, &p);
    g_array_unref(p.ports);
    g_array_unref(p.collapsed);
    return FALSE;
}

static gboolean list_addr(gpointer key, gpointer value, gpointer data)
{
    const struct walk *w = data;

    (void)key;
    list_one(w->g, w->s, value, w->list);
    return FALSE;
}

/* ---- what was refused ---- */

struct denied_walk {
    struct sm_suggestion *g;
    const struct sm_lists *lists;
};

static bool is_listed(const struct sm_lists *lists, const struct sm_entry *e)
{
    if (e->kind == SM_ENTRY_HOST) /* of a DNS question the port is not known: any will do */
        return sm_lists_name(lists, e->name, e->port).entry != NULL;
    return sm_lists_addr(lists, &(struct sm_endpoint){.addr = e->prefix.addr, .port = e->port ? e->port : 443}).entry !=
           NULL;
}

static gboolean take_denied(gpointer key, gpointer value, gpointer data)
{
    struct denied_walk *w = data;
    const struct sm_seen_denied *d = value;

    (void)key;
    if (d->stays || !is_listed(w->lists, &d->parsed))
        g_array_append_val(w->g->denied, *d);
    return FALSE;
}

static gint by_count(gconstpointer a, gconstpointer b)
{
    const struct sm_seen_denied *x = a, *y = b;

    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    int order = strcmp(x->entry, y->entry);
    return order ? order : strcmp(x->reason, y->reason);
}

static gint by_entry(gconstpointer a, gconstpointer b)
{
    const struct sm_seen_denied *x = a, *y = b;
    int order = strcmp(x->entry, y->entry);

    return order ? order : strcmp(x->reason, y->reason);
}

static void finish_denied(struct sm_suggestion *g, const struct sm_suggest *s)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    struct denied_walk w = {.g = g, .lists = lists};

    for (guint i = 0; i < g->entries->len; i++) {
        const struct entry *e = &g_array_index(g->entries, struct entry, i);
        (void)!sm_lists_add(lists, e->list, &e->parsed, NULL); /* full: a candidate more is shown */
    }
    g_tree_foreach(s->denied, take_denied, &w);
    if (g->denied->len > SM_SUGGEST_DENIED_SHOWN) {
        g_array_sort(g->denied, by_count);
        g->denied_cut = g->denied->len - SM_SUGGEST_DENIED_SHOWN;
        g_array_set_size(g->denied, SM_SUGGEST_DENIED_SHOWN);
    }
    g_array_sort(g->denied, by_entry);
}

/* ---- text ---- */

static void put_size(GString *out, uint64_t n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;
    double v = (double)n;

    while (v >= 1024 && u + 1 < SM_ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    g_string_append_printf(out, u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static void put_times(GString *out, uint64_t n, const char *one, const char *many)
{
    g_string_append_printf(out, "%" G_GUINT64_FORMAT " %s", n, n == 1 ? one : many);
}

static void put_traffic(GString *out, const struct sm_seen_count *c)
{
    put_size(out, c->bytes_up);
    g_string_append(out, " out, ");
    put_size(out, c->bytes_down);
    g_string_append(out, " in");
    if (c->requests) {
        g_string_append(out, ", ");
        put_times(out, c->requests, "request", "requests");
        if (c->uploads)
            g_string_append_printf(out, " (%" G_GUINT64_FORMAT " POST, PUT or PATCH)", c->uploads);
    }
}

static void put_comment(GString *out, const struct entry *e)
{
    char addr[SM_ADDR_STRLEN];

    if (e->count.flows == 0) {
        put_times(out, e->lookups, "look-up", "look-ups");
        g_string_append(out, ", no connection");
    } else {
        put_times(out, e->count.flows, "connection", "connections");
        g_string_append(out, ", ");
        put_traffic(out, &e->count);
    }
    if (e->parsed.kind == SM_ENTRY_SUFFIX)
        g_string_append_printf(out, "; %" G_GUINT64_FORMAT " names%s", e->names, e->more_names ? " and more" : "");
    enum sm_inside_kind kind = sm_inside_kind(&e->inside);
    if (e->internal) /* none: of this host or of --egress-inside, which the record does not say */
        g_string_append_printf(out, "; INSIDE: %s%s%s", sm_addr_format(&e->inside, addr),
                               kind == SM_INSIDE_NONE ? "" : ", ",
                               kind == SM_INSIDE_NONE ? "" : sm_inside_kind_name(kind));
    else if (e->is_addr)
        g_string_append(out, "; no name is known for it");
    if (e->asserted && e->count.flows)
        g_string_append(out, "; not always looked up: the name is what the guest said");
    if (e->odd)
        g_string_append(out, "; it named another address, which strict refuses");
    if (e->many_ports)
        g_string_append(out, "; many ports");
}

static char *warning_of(const struct entry *e)
{
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "%s took much data out: ", e->text);
    put_traffic(out, &e->count);
    return g_string_free(out, FALSE);
}

static void put_list(GString *out, const struct sm_suggestion *g, enum sm_list_kind list, bool comments)
{
    bool any = false;

    for (guint i = 0; i < g->entries->len; i++) {
        const struct entry *e = &g_array_index(g->entries, struct entry, i);
        if (e->list != list)
            continue;
        if (!any)
            g_string_append_printf(out, "%s:\n", sm_list_kind_name(list));
        any = true;
        if (e->out)
            g_string_append_printf(out, "  # WARNING: it took much data out\n");
        /* Quoted whatever it is: an entry is only letters, digits and ".-_:/[]" (entry.h). */
        g_string_append_printf(out, "  - \"%s\"", e->text);
        if (comments || e->internal) {
            g_string_append(out, "  # ");
            put_comment(out, e);
        }
        g_string_append_c(out, '\n');
    }
    if (!any)
        g_string_append_printf(out, "%s: []\n", sm_list_kind_name(list));
}

static void put_denied(GString *out, const struct sm_suggestion *g, bool opens)
{
    bool any = false;

    for (guint i = 0; i < g->denied->len; i++) {
        const struct sm_seen_denied *d = &g_array_index(g->denied, struct sm_seen_denied, i);
        if (d->opens != opens)
            continue;
        if (!any)
            g_string_append(out, opens ? "\n# Refused; to allow one, move it into a list above:\n"
                                       : "\n# Failed, or refused for what no entry of this file changes:\n");
        any = true;
        g_string_append_printf(out, "#  - \"%s\"  # %s, ", d->entry, d->reason);
        put_times(out, d->count, "time", "times");
        if (d->name[0])
            g_string_append_printf(out, ", asked for as %s", d->name);
        g_string_append_c(out, '\n');
    }
}

static void put_number(GString *out, uint64_t n, const char *what)
{
    if (n)
        g_string_append_printf(out, "# %" G_GUINT64_FORMAT " %s\n", n, what);
}

static void put_head(GString *out, const struct sm_suggestion *g, const char *workspace)
{
    const struct sm_suggest_counts *c = &g->counts;

    g_string_append_printf(out,
                           "# Suggested by 'slirp-med suggest %s' from %" G_GUINT64_FORMAT " records.\n"
                           "# It allows what was used, which is not what should be used: read it first.\n",
                           workspace, c->records);
    put_number(out, c->bad, "lines were no records");
    put_number(out, c->dropped, "records had names or addresses that are none: left out");
    put_number(out, c->missing, "records had been rotated away");
    put_number(out, c->over, "uses of destinations over the maximum: NOT ALLOWED by this file");
    g_string_append_c(out, '\n');
}

static char *compose(const struct sm_suggestion *g, const char *workspace, bool comments, size_t *ret_len)
{
    GString *out = g_string_new(NULL);

    put_head(out, g, workspace);
    put_list(out, g, SM_LIST_ALLOW, comments);
    put_list(out, g, SM_LIST_PASSTHROUGH, comments);
    if (comments) {
        put_denied(out, g, true);
        put_denied(out, g, false);
    }
    put_number(out, g->denied_cut, "refused destinations more");
    put_number(out, g->counts.candidates, "refusals of destinations over the maximum");
    put_number(out, g->other_denied, "packets were neither TCP nor UDP over IPv4 (no entry is about these)");
    *ret_len = out->len;
    return g_string_free(out, FALSE);
}

char *sm_suggestion_yaml(const struct sm_suggestion *g, const char *workspace, GError **error)
{
    size_t len;
    g_autofree char *text = compose(g, workspace, true, &len);

    if (len > SM_POLICY_FILE_MAX) { /* the entries are what it is for */
        g_free(text);
        text = compose(g, workspace, false, &len);
    }
    if (len <= SM_POLICY_FILE_MAX)
        return g_steal_pointer(&text);
    sm_error_set(error, SM_ERROR_LIMIT,
                 "%u entries are more than a policy file may hold (%zu bytes): what did all this is no list of hosts",
                 g->entries->len, SM_POLICY_FILE_MAX);
    return NULL;
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)SM_MIN(n, (uint64_t)INT64_MAX));
}

static json_t *entry_json(const struct entry *e)
{
    char addr[SM_ADDR_STRLEN];

    return json_pack("{s:s, s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "list",
                     sm_list_kind_name(e->list), "entry", e->text, "connections", number(e->count.flows), "names",
                     number(e->is_addr ? 0 : e->names), "more_names", e->more_names, "lookups", number(e->lookups),
                     "requests", number(e->count.requests), "uploads", number(e->count.uploads), "bytes_up",
                     number(e->count.bytes_up), "bytes_down", number(e->count.bytes_down), "inside",
                     e->internal ? json_string(sm_addr_format(&e->inside, addr)) : json_null(), "asserted",
                     e->asserted && e->count.flows > 0, "warning", e->out);
}

json_t *sm_suggestion_json(const struct sm_suggestion *g, const char *workspace)
{
    const struct sm_suggest_counts *c = &g->counts;
    json_t *entries = json_array(), *denied = json_array();

    for (guint i = 0; i < g->entries->len; i++)
        (void)json_array_append_new(entries, entry_json(&g_array_index(g->entries, struct entry, i)));
    for (guint i = 0; i < g->denied->len; i++) {
        const struct sm_seen_denied *d = &g_array_index(g->denied, struct sm_seen_denied, i);
        (void)json_array_append_new(denied, json_pack("{s:s, s:s, s:o, s:b, s:s*}", "entry", d->entry, "reason",
                                                      d->reason, "count", number(d->count), "opens", d->opens, "name",
                                                      d->name[0] ? d->name : NULL));
    }
    return json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "schema", 1, "workspace", workspace, "records",
                     number(c->records), "bad_lines", number(c->bad), "dropped", number(c->dropped), "missing",
                     number(c->missing), "over", number(c->over), "entries", entries, "denied", denied);
}

const char *sm_suggestion_warning(const struct sm_suggestion *g, size_t i)
{
    return i < g->warnings->len ? g_ptr_array_index(g->warnings, i) : NULL;
}

struct sm_suggestion *sm_suggest_finish(const struct sm_suggest *s)
{
    struct sm_suggestion *g = g_new0(struct sm_suggestion, 1);
    static const enum sm_list_kind lists[] = {SM_LIST_ALLOW, SM_LIST_PASSTHROUGH};

    g->counts = s->counts;
    g->other_denied = s->other_denied;
    g->entries = g_array_new(FALSE, FALSE, sizeof(struct entry));
    g->denied = g_array_new(FALSE, FALSE, sizeof(struct sm_seen_denied));
    g->warnings = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < SM_ARRAY_LEN(lists); i++) {
        struct walk w = {.g = g, .s = s, .list = lists[i]};
        g_tree_foreach(s->domains, list_domain, &w);
        g_tree_foreach(s->addrs, list_addr, &w);
    }
    for (guint i = 0; i < g->entries->len; i++) {
        const struct entry *e = &g_array_index(g->entries, struct entry, i);
        if (e->out)
            g_ptr_array_add(g->warnings, warning_of(e));
    }
    finish_denied(g, s);
    return g;
}

void sm_suggestion_free(struct sm_suggestion *g)
{
    if (!g)
        return;
    g_array_unref(g->entries);
    g_array_unref(g->denied);
    g_ptr_array_unref(g->warnings);
    g_free(g);
}
