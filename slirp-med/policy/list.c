/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lists: every entry sits in its list's array and is indexed by (kind, name or prefix, port); see list.h.
 *
 * A name is looked up as itself and then as each of its parents, an address once for each prefix length that is in use,
 * both from the most specific on, so that the first hit wins. Only the operator's entries are ever inserted: a guest's
 * names are probed for, and cannot flood.
 */
#include "policy/list.h"

#include <string.h>

#include "base/error.h"

static const char *const list_names[] = {
    [SM_LIST_ALLOW] = "allow",
    [SM_LIST_PASSTHROUGH] = "passthrough",
    [SM_LIST_DENY] = "deny",
};
SM_NAME_TABLE_COVERS(list_names, SM_LIST_KINDS);

/* Port of an index key that stands for "an entry with whatever port"; real ports and 0 are 16-bit. */
#define PORT_SOME 0x10000u

struct key {
    enum sm_entry_kind kind; /* HOST, SUFFIX; CIDR for addresses and ranges alike */
    uint32_t port;
    const char *name; /* borrowed from the entry */
    struct sm_prefix prefix;
};

struct list {
    GPtrArray *entries;   /* struct sm_entry *, owned */
    GHashTable *index;    /* struct key * (owned) -> struct sm_entry * */
    bool len_used_v4[33]; /* prefix lengths that occur */
    bool len_used_v6[129];
};

struct sm_lists {
    struct list list[SM_LIST_KINDS];
};

const char *sm_list_kind_name(enum sm_list_kind kind)
{
    return (unsigned)kind < SM_LIST_KINDS ? list_names[kind] : "?";
}

static guint key_hash(gconstpointer p)
{
    const struct key *k = p;
    guint h = k->port * 2654435761u + (guint)k->kind;
    if (k->kind == SM_ENTRY_CIDR)
        return h ^ sm_addr_hash(&k->prefix.addr) ^ ((guint)k->prefix.len << 24);
    return h ^ g_str_hash(k->name);
}

static gboolean key_equal(gconstpointer pa, gconstpointer pb)
{
    const struct key *a = pa, *b = pb;
    if (a->kind != b->kind || a->port != b->port)
        return FALSE;
    return a->kind == SM_ENTRY_CIDR ? sm_prefix_equal(&a->prefix, &b->prefix) : strcmp(a->name, b->name) == 0;
}

static struct key key_of(const struct sm_entry *entry, uint32_t port)
{
    struct key k = {.kind = entry->kind, .port = port, .name = entry->name, .prefix = entry->prefix};
    if (k.kind == SM_ENTRY_ADDR)
        k.kind = SM_ENTRY_CIDR;
    return k;
}

struct sm_lists *sm_lists_new(void)
{
    struct sm_lists *lists = g_new0(struct sm_lists, 1);
    for (size_t i = 0; i < SM_LIST_KINDS; i++) {
        lists->list[i].entries = g_ptr_array_new_with_free_func(g_free);
        lists->list[i].index = g_hash_table_new_full(key_hash, key_equal, g_free, NULL);
    }
    return lists;
}

void sm_lists_free(struct sm_lists *lists)
{
    if (!lists)
        return;
    for (size_t i = 0; i < SM_LIST_KINDS; i++) {
        g_hash_table_unref(lists->list[i].index);
        g_ptr_array_unref(lists->list[i].entries);
    }
    g_free(lists);
}

bool sm_lists_add(struct sm_lists *lists, enum sm_list_kind which, const struct sm_entry *entry, GError **error)
{
    struct list *l = &lists->list[which];
    struct key exact = key_of(entry, entry->port);
    size_t total = 0;

    if (g_hash_table_contains(l->index, &exact))
        return true;
    for (size_t i = 0; i < SM_LIST_KINDS; i++)
        total += lists->list[i].entries->len;
    if (total >= SM_LISTS_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "more than %d entries: use suffixes or ranges", SM_LISTS_MAX);
        return false;
    }
    struct sm_entry *copy = g_memdup2(entry, sizeof(*entry));
    struct key port_key = key_of(copy, copy->port);
    struct key some_key = key_of(copy, PORT_SOME);
    g_ptr_array_add(l->entries, copy);
    g_hash_table_insert(l->index, g_memdup2(&port_key, sizeof(port_key)), copy);
    if (!g_hash_table_contains(l->index, &some_key))
        g_hash_table_insert(l->index, g_memdup2(&some_key, sizeof(some_key)), copy);
    if (copy->kind == SM_ENTRY_ADDR || copy->kind == SM_ENTRY_CIDR)
        *(copy->prefix.addr.family == SM_FAMILY_V4 ? &l->len_used_v4[copy->prefix.len]
                                                   : &l->len_used_v6[copy->prefix.len]) = true;
    return true;
}

bool sm_lists_add_text(struct sm_lists *lists, enum sm_list_kind which, const char *text, GError **error)
{
    struct sm_entry entry;
    return sm_entry_parse(text, &entry, error) && sm_lists_add(lists, which, &entry, error);
}

size_t sm_lists_count(const struct sm_lists *lists, enum sm_list_kind which)
{
    return lists->list[which].entries->len;
}

const struct sm_entry *sm_lists_get(const struct sm_lists *lists, enum sm_list_kind which, size_t i)
{
    return g_ptr_array_index(lists->list[which].entries, i);
}

/* Which ports an entry may have to count. */
enum port_rule {
    PORT_RULE_MATCH, /* none, or this one */
    PORT_RULE_SOME,  /* any */
};

static const struct sm_entry *probe(const struct list *l, struct key *k, uint16_t port, enum port_rule rule)
{
    const struct sm_entry *hit = NULL;

    if (rule == PORT_RULE_SOME) {
        k->port = PORT_SOME;
        return g_hash_table_lookup(l->index, k);
    }
    if (port != 0) {
        k->port = port;
        hit = g_hash_table_lookup(l->index, k);
    }
    if (!hit) {
        k->port = 0;
        hit = g_hash_table_lookup(l->index, k);
    }
    return hit;
}

static const struct sm_entry *find_exact(const struct list *l, const char *name, uint16_t port, enum port_rule rule)
{
    struct key k = {.kind = SM_ENTRY_HOST, .name = name};
    return l->entries->len ? probe(l, &k, port, rule) : NULL;
}

static const struct sm_entry *find_name(const struct list *l, const char *name, uint16_t port, enum port_rule rule)
{
    const struct sm_entry *hit = find_exact(l, name, port, rule);
    struct key k = {.kind = SM_ENTRY_SUFFIX};

    if (l->entries->len == 0)
        return NULL;
    for (const char *parent = name; !hit && parent; parent = strchr(parent, '.')) {
        if (*parent == '.')
            parent++;
        k.name = parent;
        hit = probe(l, &k, port, rule);
    }
    return hit;
}

static const struct sm_entry *find_addr(const struct list *l, const struct sm_endpoint *dst)
{
    bool v4 = dst->addr.family == SM_FAMILY_V4;
    const bool *used = v4 ? l->len_used_v4 : l->len_used_v6;
    struct key k = {.kind = SM_ENTRY_CIDR, .prefix.addr = dst->addr};

    if (l->entries->len == 0 || dst->addr.family == SM_FAMILY_NONE)
        return NULL;
    /* From the longest length down, one more bit cleared at each step. */
    for (int len = v4 ? 32 : 128; len >= 0; len--) {
        if (len < (v4 ? 32 : 128))
            k.prefix.addr.bytes[len / 8] &= (uint8_t) ~(0x80 >> (len % 8));
        if (!used[len])
            continue;
        k.prefix.len = (uint8_t)len;
        const struct sm_entry *hit = probe(l, &k, dst->port, PORT_RULE_MATCH);
        if (hit)
            return hit;
    }
    return NULL;
}

struct sm_match sm_match_better(struct sm_match a, struct sm_match b)
{
    int cmp;

    if (!a.entry || !b.entry)
        return a.entry ? a : b;
    cmp = sm_entry_specificity_cmp(a.entry, b.entry);
    if (cmp != 0)
        return cmp > 0 ? a : b;
    return b.list == SM_LIST_PASSTHROUGH && a.list != SM_LIST_PASSTHROUGH ? b : a;
}

static struct sm_match better_of(const struct sm_entry *allow, const struct sm_entry *passthrough)
{
    return sm_match_better((struct sm_match){allow, SM_LIST_ALLOW},
                           (struct sm_match){passthrough, SM_LIST_PASSTHROUGH});
}

struct sm_match sm_lists_name(const struct sm_lists *lists, const char *name, uint16_t port)
{
    enum port_rule rule = port == SM_LISTS_ANY_PORT ? PORT_RULE_SOME : PORT_RULE_MATCH;
    return better_of(find_name(&lists->list[SM_LIST_ALLOW], name, port, rule),
                     find_name(&lists->list[SM_LIST_PASSTHROUGH], name, port, rule));
}

struct sm_match sm_lists_addr(const struct sm_lists *lists, const struct sm_endpoint *dst)
{
    return better_of(find_addr(&lists->list[SM_LIST_ALLOW], dst), find_addr(&lists->list[SM_LIST_PASSTHROUGH], dst));
}

const struct sm_entry *sm_lists_deny_name(const struct sm_lists *lists, const char *name, uint16_t port)
{
    return find_name(&lists->list[SM_LIST_DENY], name, port, PORT_RULE_MATCH);
}

const struct sm_entry *sm_lists_deny_addr(const struct sm_lists *lists, const struct sm_endpoint *dst)
{
    return find_addr(&lists->list[SM_LIST_DENY], dst);
}
