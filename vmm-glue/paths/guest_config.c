/* SPDX-License-Identifier: BSD-3-Clause */
/* Strict parser of guest-init's configuration; see guest_config.h. */
#include "paths/guest_config.h"

#include <jansson.h>
#include <string.h>

#include "base/error.h"

/* Longest host name of Linux (HOST_NAME_MAX). */
#define HOSTNAME_MAX 64

static const char *const known_keys[] = {
    "name",   "argv",   "cwd",       "network",  "mac",       "ip",          "prefix_len", "gateway",
    "dns",    "routes", "mtu",       "vnet_hdr", "hostname",  "uid",         "gid",        "umask",
    "nofile", "core",   "state_dir", "masks",    "unset_env", "ro",          "rootfs",     "binds",
    "ca",     "bare",   "more",      "files",    "datapath",  "gateway_mac", "resolver",
};

static bool bad(GError **error, const char *key, const char *want)
{
    sm_error_set(error, SM_ERROR_INVALID, "guest-init configuration: \"%s\": expected %s", key, want);
    return false;
}

static bool get_string(json_t *root, const char *key, bool required, char **ret, GError **error)
{
    json_t *v = json_object_get(root, key);
    if (!v && !required)
        return true;
    if (!json_is_string(v) || json_string_length(v) == 0 || strlen(json_string_value(v)) != json_string_length(v))
        return bad(error, key, "a non-empty string");
    *ret = g_strdup(json_string_value(v));
    return true;
}

static bool get_path(json_t *root, const char *key, bool required, char **ret, GError **error)
{
    if (!get_string(root, key, required, ret, error))
        return false;
    return !*ret || **ret == '/' || bad(error, key, "an absolute path");
}

static bool get_int(json_t *root, const char *key, int64_t min, int64_t max, int64_t *ret, GError **error)
{
    json_t *v = json_object_get(root, key);
    if (!v)
        return true;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "guest-init configuration: \"%s\": expected a number from %" G_GINT64_FORMAT
                     " to %" G_GINT64_FORMAT,
                     key, min, max);
        return false;
    }
    *ret = json_integer_value(v);
    return true;
}

static bool get_bool(json_t *root, const char *key, bool *ret, GError **error)
{
    json_t *v = json_object_get(root, key);
    if (v && !json_is_boolean(v))
        return bad(error, key, "true or false");
    if (v)
        *ret = json_is_true(v);
    return true;
}

static bool get_addr(json_t *root, const char *key, struct sm_addr *ret, GError **error)
{
    json_t *v = json_object_get(root, key);
    if (!json_is_string(v) || !sm_addr_parse(json_string_value(v), ret) || ret->family != SM_FAMILY_V4)
        return bad(error, key, "an IPv4 address");
    return true;
}

/* Of both lists each item is an address or a range of IPv4. */
static bool get_dns(json_t *root, struct sm_guest_config *c, GError **error)
{
    json_t *v = json_object_get(root, "dns");
    size_t n = json_array_size(v);

    for (size_t i = 0; i < n && n <= SM_GUEST_DNS_MAX; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (!text || !sm_addr_parse(text, &c->dns[i]) || c->dns[i].family != SM_FAMILY_V4)
            return bad(error, "dns", "IPv4 addresses");
    }
    c->n_dns = n;
    return (json_is_array(v) && n > 0 && n <= SM_GUEST_DNS_MAX) || bad(error, "dns", "a list of 1 to 8 IPv4 addresses");
}

static bool get_routes(json_t *root, struct sm_guest_config *c, GError **error)
{
    json_t *v = json_object_get(root, "routes");
    size_t n = json_array_size(v);

    for (size_t i = 0; i < n && n <= SM_TAP_ROUTES_MAX; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (!text || !sm_prefix_parse(text, &c->tap.routes[i]) || c->tap.routes[i].addr.family != SM_FAMILY_V4)
            return bad(error, "routes", "IPv4 ranges in CIDR form");
    }
    c->tap.n_routes = n;
    return (json_is_array(v) && n <= SM_TAP_ROUTES_MAX) || bad(error, "routes", "a list of at most 8 IPv4 ranges");
}

/* argv has its own bound, the kernel's: max 0 means none here. */
static bool get_list(json_t *root, const char *key, bool paths, size_t min, size_t max, char ***ret, GError **error)
{
    json_t *v = json_object_get(root, key);
    size_t n = v ? json_array_size(v) : 0;

    if ((v && !json_is_array(v)) || n < min)
        return bad(error, key, min ? "a non-empty list of strings" : "a list of strings");
    if (max && n > max) {
        sm_error_set(error, SM_ERROR_LIMIT, "guest-init configuration: \"%s\" has %zu entries, more than %zu", key, n,
                     max);
        return false;
    }
    g_auto(GStrv) list = g_new0(char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(v, i);
        if (!json_is_string(e) || strlen(json_string_value(e)) != json_string_length(e))
            return bad(error, key, "strings without NUL");
        if (paths && json_string_value(e)[0] != '/')
            return bad(error, key, "absolute paths");
        list[i] = g_strdup(json_string_value(e));
    }
    *ret = g_steal_pointer(&list);
    return true;
}

static bool get_binds(json_t *root, struct sm_guest_config *c, GError **error)
{
    g_auto(GStrv) list = NULL;
    if (!get_list(root, "binds", true, 0, SM_GUEST_LIST_MAX, &list, error))
        return false;
    size_t n = g_strv_length(list);
    c->binds = g_new0(struct sm_guest_bind, n + 1);
    for (size_t i = 0; i < n; i++) {
        const char *colon = strchr(list[i], ':');
        struct sm_guest_bind *b = &c->binds[c->n_binds++];
        b->src = colon ? g_strndup(list[i], (gsize)(colon - list[i])) : g_strdup(list[i]);
        b->dst = g_strdup(colon ? colon + 1 : list[i]);
        if (*b->dst != '/')
            return bad(error, "binds", "SRC or SRC:DST with absolute paths");
    }
    return true;
}

static bool get_tproxy(json_t *root, struct sm_guest_config *c, GError **error)
{
    g_autofree char *datapath = NULL, *mac = NULL;

    if (!get_string(root, "datapath", false, &datapath, error))
        return false;
    if (!datapath || strcmp(datapath, "slirp") == 0)
        return true;
    if (strcmp(datapath, "tproxy") != 0)
        return bad(error, "datapath", "\"slirp\" or \"tproxy\"");
    c->tproxy = true;
    return get_string(root, "gateway_mac", true, &mac, error) && get_addr(root, "resolver", &c->resolver, error) &&
           (sm_tap_parse_mac(mac, c->gateway_mac) ||
            bad(error, "gateway_mac", "a unicast MAC address (aa:bb:cc:dd:ee:ff)"));
}

static bool get_network(json_t *root, struct sm_guest_config *c, GError **error)
{
    g_autofree char *network = NULL, *mac = NULL;
    int64_t mtu = 0, prefix_len = 0;

    if (!get_string(root, "network", false, &network, error))
        return false;
    if (network && strcmp(network, "isolated") == 0) {
        c->isolated = true;
        return true;
    }
    if (network && strcmp(network, "user") != 0)
        return bad(error, "network", "\"user\" or \"isolated\"");
    if (!get_string(root, "mac", true, &mac, error))
        return false;
    if (!sm_tap_parse_mac(mac, c->tap.mac))
        return bad(error, "mac", "a unicast MAC address (aa:bb:cc:dd:ee:ff)");
    if (!get_addr(root, "ip", &c->tap.ip, error) || !get_addr(root, "gateway", &c->tap.gateway, error) ||
        !get_dns(root, c, error) || !get_routes(root, c, error) ||
        !get_int(root, "mtu", SM_TAP_MTU_MIN, SM_TAP_MTU_MAX, &mtu, error) ||
        !get_int(root, "prefix_len", 1, 30, &prefix_len, error) || !get_bool(root, "vnet_hdr", &c->tap.vnet_hdr, error))
        return false;
    if (mtu == 0 || prefix_len == 0)
        return bad(error, mtu == 0 ? "mtu" : "prefix_len", "a number (it is missing)");
    uint32_t mask = ~UINT32_C(0) << (32 - prefix_len);
    if ((sm_addr_to_u32(&c->tap.ip) & mask) != (sm_addr_to_u32(&c->tap.gateway) & mask))
        return bad(error, "gateway", "an address in the subnet of \"ip\"");
    if (!get_tproxy(root, c, error))
        return false;
    c->tap.name = "eth0";
    c->tap.mtu = (unsigned)mtu;
    c->tap.prefix_len = (uint8_t)prefix_len;
    return true;
}

/* Without the other two a bare view is merely small; without it they would be the caller's descriptors in CMD's hands. */
static bool get_bare(json_t *root, struct sm_guest_config *c, GError **error)
{
    if (!get_bool(root, "bare", &c->bare, error) || !get_int(root, "more", 0, SM_GUEST_MORE_MAX, &c->n_more, error) ||
        !get_list(root, "files", true, 0, SM_GUEST_FILES_MAX, &c->files, error))
        return false;
    if (!c->bare && (c->n_more > 0 || c->files[0]))
        return bad(error, "bare", "true, since there are descriptors for CMD");
    if (c->bare && c->tproxy) {
        c->isolated = true;
        c->tap.vnet_hdr = true;
        if (c->n_more > 0)
            return bad(error, "more", "0: the tap is CMD's first descriptor");
    }
    return !c->bare || (!c->rootfs && !c->ro) || bad(error, "bare", "no ro and no rootfs beside it");
}

static bool check_keys(json_t *root, GError **error)
{
    const char *key;
    json_t *value;

    json_object_foreach(root, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < SM_ARRAY_LEN(known_keys); i++)
            known |= strcmp(key, known_keys[i]) == 0;
        if (!known) {
            sm_error_set(error, SM_ERROR_INVALID, "guest-init configuration: unknown key \"%s\"", key);
            return false;
        }
    }
    return true;
}

struct sm_guest_config *sm_guest_config_parse(const char *text, size_t len, GError **error)
{
    json_error_t where;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    struct sm_guest_config *c = g_new0(struct sm_guest_config, 1);
    const int64_t id_max = UINT32_MAX - 1, limit_max = INT64_MAX;
    bool ok = false;

    c->uid = c->gid = c->umask = -1;
    c->nofile = c->core = -2;
    if (!root)
        sm_error_set(error, SM_ERROR_INVALID, "guest-init configuration: line %d: %s", where.line, where.text);
    else if (!json_is_object(root))
        sm_error_set(error, SM_ERROR_INVALID, "guest-init configuration: expected one object");
    else
        ok = check_keys(root, error) && get_string(root, "name", true, &c->name, error) &&
             get_list(root, "argv", false, 1, 0, &c->argv, error) && get_path(root, "cwd", true, &c->cwd, error) &&
             get_network(root, c, error) && get_string(root, "hostname", false, &c->hostname, error) &&
             get_int(root, "uid", 0, id_max, &c->uid, error) && get_int(root, "gid", 0, id_max, &c->gid, error) &&
             get_int(root, "umask", 0, 0777, &c->umask, error) &&
             get_int(root, "nofile", -1, limit_max, &c->nofile, error) &&
             get_int(root, "core", -1, limit_max, &c->core, error) &&
             get_path(root, "state_dir", false, &c->state_dir, error) &&
             get_list(root, "masks", true, 0, SM_GUEST_LIST_MAX, &c->masks, error) &&
             get_list(root, "unset_env", false, 0, SM_GUEST_LIST_MAX, &c->unset_env, error) &&
             get_bool(root, "ro", &c->ro, error) && get_bool(root, "ca", &c->ca, error) &&
             get_path(root, "rootfs", false, &c->rootfs, error) && get_binds(root, c, error) &&
             get_bare(root, c, error);
    if (ok && !c->hostname)
        c->hostname = g_strndup(c->name, HOSTNAME_MAX);
    if (ok && strlen(c->hostname) > HOSTNAME_MAX)
        ok = bad(error, "hostname", "at most 64 characters");
    json_decref(root);
    if (!ok)
        g_clear_pointer(&c, sm_guest_config_free);
    return c;
}

void sm_guest_config_free(struct sm_guest_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_binds; i++) {
        g_free(c->binds[i].src);
        g_free(c->binds[i].dst);
    }
    g_free(c->binds);
    g_free(c->name);
    g_strfreev(c->argv);
    g_free(c->cwd);
    g_free(c->hostname);
    g_free(c->state_dir);
    g_strfreev(c->masks);
    g_strfreev(c->unset_env);
    g_strfreev(c->files);
    g_free(c->rootfs);
    g_free(c);
}
