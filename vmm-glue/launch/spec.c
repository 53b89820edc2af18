/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec file; see spec.h. The tree of the document is read key by key into a draft of the plan; what the values mean together is judged in
 * netplan.c, whose faults are keys, and get their line and path here.
 */
#include "launch/spec.h"

#include <string.h>

#include "base/error.h"
#include "launch/spelling.h"
#include "policy/tree.h"
#include "supervisor/publish.h"

enum spec_key { KEY_MODE, KEY_IP, KEY_SUBNET, KEY_GATEWAY, KEY_DNS, KEY_ROUTES, KEY_FORWARDS, KEYS };
static const char *const key_names[] = {
    [KEY_MODE] = "mode", [KEY_IP] = "ip",         [KEY_SUBNET] = "subnet",     [KEY_GATEWAY] = "gateway",
    [KEY_DNS] = "dns",   [KEY_ROUTES] = "routes", [KEY_FORWARDS] = "forwards", [KEYS] = NULL};
SM_NAME_TABLE_COVERS(key_names, KEYS + 1);

/* Their order is netplan's. */
static const enum spec_key key_of_net[] = {[SM_NET_IP] = KEY_IP,
                                           [SM_NET_SUBNET] = KEY_SUBNET,
                                           [SM_NET_GATEWAY] = KEY_GATEWAY,
                                           [SM_NET_DNS] = KEY_DNS,
                                           [SM_NET_ROUTES] = KEY_ROUTES};
SM_NAME_TABLE_COVERS(key_of_net, SM_NET_KEYS);

enum forward_key { FORWARD_HOST, FORWARD_HOST_PORT, FORWARD_GUEST_PORT, FORWARD_PROTOCOL, FORWARD_KEYS };
static const char *const forward_names[] = {[FORWARD_HOST] = "host",
                                            [FORWARD_HOST_PORT] = "hostPort",
                                            [FORWARD_GUEST_PORT] = "guestPort",
                                            [FORWARD_PROTOCOL] = "protocol",
                                            [FORWARD_KEYS] = NULL};
SM_NAME_TABLE_COVERS(forward_names, FORWARD_KEYS + 1);

struct draft {
    const char *file;
    const struct sm_node *at[KEYS]; /* NULL: not said */
    struct sm_net_plan plan;
    unsigned said, ip_len;
    struct sm_addr via[SM_NET_ROUTES_MAX];
    GArray *publishes; /* those of the flags first */
    guint n_flags;
};

static bool fail(const struct draft *d, const struct sm_node *node, const char *path, GError **error, const char *fmt,
                 ...) SM_PRINTF(5, 6);

static bool fail(const struct draft *d, const struct sm_node *node, const char *path, GError **error, const char *fmt,
                 ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    sm_error_set(error, SM_ERROR_INVALID, "%s:%zu: %s%s%s", d->file, node->line, path, path[0] ? ": " : "", text);
    return false;
}

static char *path_of(enum spec_key key)
{
    return g_strconcat("network.", key_names[key], NULL);
}

static char *item_path(enum spec_key key, size_t item)
{
    return g_strdup_printf("network.%s[%zu]", key_names[key], item);
}

/* ---- values ---- */

/** What it is instead of what was expected. */
static const char *found(const struct sm_node *node)
{
    return node->kind == SM_NODE_NULL ? "empty" : sm_node_kind_words(node->kind);
}

static const char *text_of(const struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    if (node->kind == SM_NODE_TEXT && node->len > 0 && strlen(node->text) == node->len)
        return node->text;
    if (node->kind == SM_NODE_TEXT)
        fail(d, node, path, error, node->len == 0 ? "is empty: leave it out" : "a NUL byte is in it");
    else
        fail(d, node, path, error, "wrong type: it is text, not %s", found(node));
    return NULL;
}

static bool number_of(const struct draft *d, const struct sm_node *node, const char *path, int64_t min, uint16_t *ret,
                      GError **error)
{
    if (node->kind != SM_NODE_INTEGER)
        return fail(d, node, path, error, "wrong type: it is a number, not %s", found(node));
    if (node->integer < min || node->integer > UINT16_MAX)
        return fail(d, node, path, error, "%" G_GINT64_FORMAT " is no port: write %" G_GINT64_FORMAT " to 65535",
                    node->integer, min);
    *ret = (uint16_t)node->integer;
    return true;
}

static bool v4_of(const struct draft *d, const struct sm_node *node, const char *path, struct sm_addr *ret,
                  GError **error)
{
    const char *text = text_of(d, node, path, error);

    if (!text)
        return false;
    if (sm_addr_parse(text, ret) && ret->family == SM_FAMILY_V4)
        return true;
    g_autofree char *shown = g_strescape(text, NULL);
    return fail(d, node, path, error, "'%.60s' is not an IPv4 address", shown);
}

static bool list_of(const struct draft *d, const struct sm_node *node, const char *path, size_t max, GError **error)
{
    if (node->kind != SM_NODE_LIST)
        return fail(d, node, path, error, "wrong type: it is a list, not %s", found(node));
    if (node->items->len <= max)
        return true;
    sm_error_set(error, SM_ERROR_LIMIT, "%s:%zu: %s: more than %zu", d->file, node->line, path, max);
    return false;
}

static const struct sm_node *item_of(const struct sm_node *list, size_t i)
{
    return g_ptr_array_index(list->items, i);
}

/** Which of the names a key is; -1 with error, which says what it may have been. */
static int name_of(const struct draft *d, const struct sm_node *node, const char *path, const char *const *names,
                   size_t n, GError **error)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], node->key) == 0)
            return (int)i;
    g_autofree char *key = g_strescape(node->key, NULL);
    g_autofree char *whole = g_strdup_printf("%s%s%.60s", path, path[0] ? "." : "", key);
    const struct sm_node at = {.line = node->key_line};
    if (g_ascii_strncasecmp(node->key, "egress", 6) == 0) {
        fail(d, &at, whole, error,
             "egress settings are flags (--egress, --egress-allow, --egress-policy and so on) and do not belong into a "
             "spec file");
        return -1;
    }
    const char *like = sm_option_suggest(node->key, names, n);
    g_autofree char *all = g_strjoinv(", ", (char **)(uintptr_t)names);
    if (like)
        fail(d, &at, whole, error, "unknown key; did you mean %s?", like);
    else
        fail(d, &at, whole, error, "unknown key (there are %s)", all);
    return -1;
}

/* ---- keys ---- */

static bool take_mode(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    const char *text = text_of(d, node, path, error);

    return text && (sm_network_mode_parse(text, &d->plan.mode) ||
                    fail(d, node, path, error, "no such network: write user or isolated"));
}

static bool take_ip(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    const char *text = text_of(d, node, path, error);

    if (!text)
        return false;
    const char *slash = strchr(text, '/');
    g_autofree char *addr = slash ? g_strndup(text, (gsize)(slash - text)) : g_strdup(text);
    guint64 len = 0;
    if (!sm_addr_parse(addr, &d->plan.guest) || d->plan.guest.family != SM_FAMILY_V4 ||
        (slash && !g_ascii_string_to_unsigned(slash + 1, 10, 1, 32, &len, NULL))) {
        g_autofree char *shown = g_strescape(text, NULL);
        return fail(d, node, path, error,
                    "'%.60s' is not an IPv4 address with its prefix: write it as in 192.168.64.2/24", shown);
    }
    d->ip_len = (unsigned)len;
    return true;
}

static bool take_subnet(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    const char *text = text_of(d, node, path, error);

    if (!text)
        return false;
    if (strchr(text, '/') && sm_prefix_parse(text, &d->plan.subnet) && d->plan.subnet.addr.family == SM_FAMILY_V4)
        return true;
    g_autofree char *shown = g_strescape(text, NULL);
    return fail(d, node, path, error,
                "'%.60s' is not an IPv4 range: write ADDRESS/BITS with zeros behind the prefix, as in 192.168.64.0/24",
                shown);
}

static bool take_gateway(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    return v4_of(d, node, path, &d->plan.gateway, error);
}

static bool take_dns(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    if (!list_of(d, node, path, SM_NET_DNS_MAX, error))
        return false;
    if (node->items->len == 0)
        return fail(d, node, path, error, "is empty: leave it out, and the guest is told of ours");
    for (d->plan.n_dns = 0; d->plan.n_dns < node->items->len; d->plan.n_dns++) {
        g_autofree char *at = item_path(KEY_DNS, d->plan.n_dns);
        if (!v4_of(d, item_of(node, d->plan.n_dns), at, &d->plan.dns[d->plan.n_dns], error))
            return false;
    }
    return true;
}

/* "CIDR via ADDRESS"; that the address is the gateway is judged when that is known. */
static bool take_route(struct draft *d, const struct sm_node *node, const char *path, size_t i, GError **error)
{
    static const char via[] = " via ";
    const char *text = text_of(d, node, path, error);

    if (!text)
        return false;
    const char *at = strstr(text, via);
    g_autofree char *to = at ? g_strndup(text, (gsize)(at - text)) : NULL;
    if (at && sm_prefix_parse(to, &d->plan.routes[i]) && d->plan.routes[i].addr.family == SM_FAMILY_V4 &&
        sm_addr_parse(at + strlen(via), &d->via[i]) && d->via[i].family == SM_FAMILY_V4)
        return true;
    g_autofree char *shown = g_strescape(text, NULL);
    return fail(d, node, path, error,
                "'%.80s' is not a route: write RANGE via GATEWAY, as in 0.0.0.0/0 via 192.168.64.1", shown);
}

static bool take_routes(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    if (!list_of(d, node, path, SM_NET_ROUTES_MAX, error))
        return false;
    for (d->plan.n_routes = 0; d->plan.n_routes < node->items->len; d->plan.n_routes++) {
        g_autofree char *at = item_path(KEY_ROUTES, d->plan.n_routes);
        if (!take_route(d, item_of(node, d->plan.n_routes), at, d->plan.n_routes, error))
            return false;
    }
    return true;
}

static bool forward_value(const struct draft *d, const struct sm_node *node, const char *path, enum forward_key key,
                          struct sm_publish *p, GError **error)
{
    const char *text;

    switch (key) {
    case FORWARD_HOST:
        if (!(text = text_of(d, node, path, error)))
            return false;
        return sm_addr_parse(text, &p->host.addr) ||
               fail(d, node, path, error, "it is no address of this host: write one, as in 127.0.0.1");
    case FORWARD_HOST_PORT:
        return number_of(d, node, path, 0, &p->host.port, error);
    case FORWARD_GUEST_PORT:
        return number_of(d, node, path, 1, &p->guest_port, error);
    case FORWARD_PROTOCOL:
        if (!(text = text_of(d, node, path, error)))
            return false;
        return strcmp(text, "tcp") == 0 || fail(d, node, path, error, "only tcp can be forwarded");
    case FORWARD_KEYS:
        break;
    }
    return false;
}

static bool take_forward(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    struct sm_publish p = {.host.addr = sm_addr_v4(127, 0, 0, 1)};
    char text[SM_PUBLISH_STRLEN];
    unsigned said = 0;

    if (node->kind != SM_NODE_MAP)
        return fail(d, node, path, error, "wrong type: a forward is a mapping, not %s", found(node));
    for (guint i = 0; i < node->items->len; i++) {
        const struct sm_node *value = item_of(node, i);
        int key = name_of(d, value, path, forward_names, FORWARD_KEYS, error);
        if (key < 0)
            return false;
        g_autofree char *at = g_strdup_printf("%s.%s", path, forward_names[key]);
        if (!forward_value(d, value, at, (enum forward_key)key, &p, error))
            return false;
        said |= 1u << key;
    }
    for (unsigned key = FORWARD_HOST_PORT; key <= FORWARD_GUEST_PORT; key++)
        if (!(said & 1u << key))
            return fail(d, node, path, error, "lacks %s", forward_names[key]);
    if (d->publishes->len == SM_PUBLISH_MAX)
        return fail(d, node, path, error, "too many: at most %d ports can be published", SM_PUBLISH_MAX);
    for (guint i = 0; i < d->publishes->len; i++) {
        const struct sm_publish *other = &g_array_index(d->publishes, struct sm_publish, i);
        if (sm_publish_clashes(&p, other))
            return fail(d, node, path, error, "its address on this host is that of %s%s: give it once",
                        i < d->n_flags ? "--publish=" : "", sm_publish_format(other, text));
    }
    g_array_append_val(d->publishes, p);
    return true;
}

static bool take_forwards(struct draft *d, const struct sm_node *node, const char *path, GError **error)
{
    if (!list_of(d, node, path, SM_PUBLISH_MAX, error))
        return false;
    for (guint i = 0; i < node->items->len; i++) {
        g_autofree char *at = item_path(KEY_FORWARDS, i);
        if (!take_forward(d, item_of(node, i), at, error))
            return false;
    }
    return true;
}

typedef bool (*take_fn)(struct draft *d, const struct sm_node *node, const char *path, GError **error);
static const take_fn takers[] = {
    [KEY_MODE] = take_mode, [KEY_IP] = take_ip,         [KEY_SUBNET] = take_subnet,    [KEY_GATEWAY] = take_gateway,
    [KEY_DNS] = take_dns,   [KEY_ROUTES] = take_routes, [KEY_FORWARDS] = take_forwards};
SM_NAME_TABLE_COVERS(takers, KEYS);

/* ---- together ---- */

static bool take_network(struct draft *d, const struct sm_node *network, GError **error)
{
    if (network->kind != SM_NODE_MAP)
        return fail(d, network, "network", error, "wrong type: it is a mapping, not %s", found(network));
    for (guint i = 0; i < network->items->len; i++) {
        const struct sm_node *node = item_of(network, i);
        int key = name_of(d, node, "network", key_names, KEYS, error);
        if (key < 0)
            return false;
        g_autofree char *path = path_of((enum spec_key)key);
        if (!takers[key](d, node, path, error))
            return false;
        d->at[key] = node;
    }
    for (unsigned i = 0; i < SM_NET_KEYS; i++)
        if (d->at[key_of_net[i]])
            d->said |= SM_NET_SAID(i);
    return true;
}

/* Isolated: nothing else can be meant. */
static bool check_isolated(const struct draft *d, GError **error)
{
    char text[SM_PUBLISH_STRLEN];
    const char *who = d->at[KEY_MODE] ? "network.mode isolated" : "--network isolated";

    for (unsigned key = 0; key < KEYS; key++) {
        if (key == KEY_MODE || !d->at[key])
            continue;
        g_autofree char *path = path_of((enum spec_key)key);
        return fail(d, d->at[key], path, error, "there is no network device with %s: leave one of them out", who);
    }
    if (d->n_flags > 0 && d->at[KEY_MODE])
        return fail(d, d->at[KEY_MODE], "network.mode", error,
                    "isolated, and --publish=%s needs a network: leave one of them out",
                    sm_publish_format(&g_array_index(d->publishes, struct sm_publish, 0), text));
    return true;
}

static bool check_plan(struct draft *d, GError **error)
{
    g_autoptr(GError) inner = NULL;
    char gateway[SM_ADDR_STRLEN], via[SM_ADDR_STRLEN];
    struct sm_net_fault fault;

    if (!sm_net_plan_complete(&d->plan, d->said, d->ip_len, &fault, &inner)) {
        enum spec_key key = key_of_net[fault.key];
        const struct sm_node *node = d->at[key];
        bool list = node->kind == SM_NODE_LIST;
        g_autofree char *path = list ? item_path(key, fault.item) : path_of(key);
        return fail(d, list ? item_of(node, fault.item) : node, path, error, "%s", inner->message);
    }
    for (size_t i = 0; d->at[KEY_ROUTES] && i < d->plan.n_routes; i++) {
        if (sm_addr_equal(&d->via[i], &d->plan.gateway))
            continue;
        g_autofree char *path = item_path(KEY_ROUTES, i);
        return fail(d, item_of(d->at[KEY_ROUTES], i), path, error,
                    "%s is not the gateway, %s: there is nobody else who could forward",
                    sm_addr_format(&d->via[i], via), sm_addr_format(&d->plan.gateway, gateway));
    }
    return true;
}

/** The document again; what was taken has only these kinds. */
static json_t *json_of(const struct sm_node *node)
{
    json_t *out;

    switch (node->kind) {
    case SM_NODE_MAP:
        out = json_object();
        for (guint i = 0; i < node->items->len; i++)
            (void)json_object_set_new(out, item_of(node, i)->key, json_of(item_of(node, i)));
        return out;
    case SM_NODE_LIST:
        out = json_array();
        for (guint i = 0; i < node->items->len; i++)
            (void)json_array_append_new(out, json_of(item_of(node, i)));
        return out;
    case SM_NODE_TEXT:
        return json_stringn(node->text, node->len);
    case SM_NODE_INTEGER:
        return json_integer(node->integer);
    case SM_NODE_REAL:
    case SM_NODE_BOOLEAN:
    case SM_NODE_NULL:
    case SM_NODE_ODD:
    case SM_NODE_KINDS:
        break;
    }
    return json_null();
}

bool sm_spec_apply(const char *file, const char *text, size_t len, bool mode_given, struct sm_net_plan *plan,
                   GArray *publishes, json_t **ret, GError **error)
{
    static const struct sm_tree_format format = {.noun = "a spec file",
                                                 .keys = "text",
                                                 .empty = "write network: {} for the reference network",
                                                 .twice = "",
                                                 .nodes_max = SM_SPEC_NODES_MAX};
    static const char *const top[] = {"network", NULL};
    g_autoptr(GArray) all = g_array_copy(publishes);
    struct draft d = {.file = file, .plan = *plan, .publishes = all, .n_flags = publishes->len};

    if (len > SM_SPEC_FILE_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: a spec file has at most %zu bytes", file, SM_SPEC_FILE_MAX);
        return false;
    }
    sm_cleanup(sm_node_freep) struct sm_node *root = sm_tree_parse(&format, file, text, len, NULL, error);
    if (!root)
        return false;
    if (root->kind != SM_NODE_MAP)
        return fail(&d, root, "", error, "wrong type: a spec file is a mapping with the key network, not %s",
                    found(root));
    for (guint i = 0; i < root->items->len; i++)
        if (name_of(&d, item_of(root, i), "", top, 1, error) < 0 || !take_network(&d, item_of(root, i), error))
            return false;
    if (mode_given && d.plan.mode != plan->mode)
        return fail(&d, d.at[KEY_MODE], "network.mode", error, "%s, and --network says %s: leave one of them out",
                    sm_network_mode_name(d.plan.mode), sm_network_mode_name(plan->mode));
    if (d.plan.mode == SM_NETWORK_ISOLATED ? !check_isolated(&d, error) : !check_plan(&d, error))
        return false;
    g_array_append_vals(publishes, &g_array_index(all, struct sm_publish, d.n_flags), all->len - d.n_flags);
    *plan = d.plan;
    *ret = json_of(root);
    return true;
}
