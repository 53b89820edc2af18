/* SPDX-License-Identifier: BSD-3-Clause */
/* Strict decoding of the configuration message; see config.h. */
#include "core/config.h"

#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "core/carry.h"
#include "cred/vault.h"

static bool bad_key(const char *key, const char *want, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "core configuration: \"%s\" must be %s", key, want);
    return false;
}

static bool load_entries(json_t *array, const char *key, enum sm_list_kind list, struct sm_lists *lists, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(array))
        return bad_key(key, "an array", error);
    json_array_foreach(array, i, item)
    {
        if (!json_is_string(item))
            return bad_key(key, "an array of strings", error);
        if (!sm_lists_add_text(lists, list, json_string_value(item), error)) {
            g_prefix_error(error, "core configuration: %s[%zu]: ", key, i);
            return false;
        }
    }
    return true;
}

static bool load_lists(json_t *allow, json_t *passthrough, json_t *deny, struct sm_lists *lists, GError **error)
{
    return load_entries(allow, "allow", SM_LIST_ALLOW, lists, error) &&
           load_entries(passthrough, "passthrough", SM_LIST_PASSTHROUGH, lists, error) &&
           load_entries(deny, "deny", SM_LIST_DENY, lists, error);
}

struct sm_lists *sm_core_config_lists(const char *text, size_t len, GError **error)
{
    json_error_t at;
    json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    json_t *allow, *passthrough, *deny;

    if (!root || json_unpack_ex(root, &at, JSON_STRICT, "{s:o, s:o, s:o}", "allow", &allow, "passthrough", &passthrough,
                                "deny", &deny) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: lists: %s", at.text);
        return NULL;
    }
    return load_lists(allow, passthrough, deny, lists, error) ? sm_steal_ptr(&lists) : NULL;
}

static bool load_inside(json_t *array, struct sm_ground *ground, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(array))
        return bad_key("inside", "an array", error);
    json_array_foreach(array, i, item)
    {
        struct sm_prefix p;
        if (!json_is_string(item) || !sm_prefix_parse(json_string_value(item), &p) || !sm_ground_add_inside(ground, &p))
            return bad_key("inside", "an array of CIDRs", error);
    }
    return true;
}

static bool load_dns(json_t *array, const char *resolv_conf, struct sm_core_config *c, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(array) || json_array_size(array) > SM_RESOLVER_SERVERS_MAX)
        return bad_key("dns", "an array of a few endpoints", error);
    json_array_foreach(array, i, item)
    {
        if (!json_is_string(item) || !sm_endpoint_parse(json_string_value(item), 53, &c->dns[i]))
            return bad_key("dns", "an array of endpoints", error);
    }
    c->n_dns = json_array_size(array);
    c->dns_fixed = c->n_dns > 0;
    if (!c->dns_fixed)
        c->n_dns = sm_resolv_conf_parse(resolv_conf, strlen(resolv_conf), c->dns, SM_RESOLVER_SERVERS_MAX);
    return true;
}

static bool load_network(const char *guest, int prefix_len, const char *gateway, const char *resolver,
                         struct sm_core_config *c, GError **error)
{
    struct sm_prefix net;

    if (!sm_addr_parse(guest, &c->guest) || c->guest.family != SM_FAMILY_V4 || !sm_addr_parse(gateway, &c->gateway) ||
        c->gateway.family != SM_FAMILY_V4 || !sm_addr_parse(resolver, &c->resolver) ||
        c->resolver.family != SM_FAMILY_V4)
        return bad_key("network", "IPv4 addresses as text", error);
    if (prefix_len < 8 || prefix_len > 30)
        return bad_key("network.prefix_len", "8 to 30", error);
    net = (struct sm_prefix){.addr = sm_addr_from_u32(sm_addr_to_u32(&c->guest) & (0xffffffffu << (32 - prefix_len))),
                             .len = (uint8_t)prefix_len};
    c->network = net;
    if (!c->proxy) /* its clients are in a network of somebody's own, and none of ours is there */
        sm_ground_set_network(c->ground, &net, &c->resolver);
    return true;
}

static bool load_caps(json_t *caps, struct sm_core_config *c, GError **error)
{
    json_error_t at;
    json_int_t bps, total, conns, seq, up, down;

    if (json_unpack_ex(caps, &at, JSON_STRICT, "{s:I, s:I, s:I, s:{s:I, s:I, s:I !}}", "max_bps", &bps,
                       "max_total_bytes", &total, "max_conns", &conns, "counters", "seq", &seq, "bytes_up", &up,
                       "bytes_down", &down) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: \"caps\": %s", at.text);
        return false;
    }
    if (bps < 0 || bps > (json_int_t)SM_CAPS_BPS_MAX || total < 0 || total > (json_int_t)SM_CAPS_TOTAL_MAX ||
        conns < 0 || conns > (json_int_t)SM_CAPS_CONNS_MAX || seq < 0 || up < 0 || down < 0)
        return bad_key("caps", "numbers in their ranges", error);
    c->caps = (struct sm_caps_limits){.bps = (uint64_t)bps, .total = (uint64_t)total, .conns = (uint64_t)conns};
    c->counters = (struct sm_counters){.seq = (uint64_t)seq, .bytes = {(uint64_t)up, (uint64_t)down}};
    if (c->mode == SM_MODE_OFF && (bps || total || conns))
        return bad_key("caps", "all 0 with mode off: what they do would have to be recorded", error);
    return true;
}

static bool load_target(json_t *item, struct sm_core_config *c, GError **error)
{
    struct sm_mediation_target *t = &c->mediation[c->n_mediation];
    json_error_t at;
    json_int_t port;
    const char *text;
    json_t *addrs, *addr;
    size_t i;
    int required;

    if (json_unpack_ex(item, &at, JSON_STRICT, "{s:I, s:s, s:b, s:o}", "port", &port, "target", &text, "required",
                       &required, "addrs", &addrs) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: vsock.mediation: %s", at.text);
        return false;
    }
    if (port < 1 || port > (json_int_t)SM_VSOCK_PORT_MAX || port == (json_int_t)c->ca_port)
        return bad_key("vsock.mediation.port", "a port of its own", error);
    for (i = 0; i < c->n_mediation; i++)
        if (c->mediation[i].port == (uint32_t)port)
            return bad_key("vsock.mediation.port", "a port of its own", error);
    if (!json_is_array(addrs) || json_array_size(addrs) > SM_MEDIATION_ADDRS_MAX)
        return bad_key("vsock.mediation.addrs", "an array of a few endpoints", error);
    json_array_foreach(addrs, i, addr)
    {
        if (!json_is_string(addr) || !sm_endpoint_parse(json_string_value(addr), 0, &t->addrs[i]) ||
            t->addrs[i].port == 0)
            return bad_key("vsock.mediation.addrs", "endpoints", error);
    }
    t->n_addrs = json_array_size(addrs);
    t->port = (uint32_t)port;
    t->required = required;
    t->text = g_strdup(text);
    c->n_mediation++;
    return true;
}

static bool load_vsock(json_t *vsock, struct sm_core_config *c, GError **error)
{
    json_error_t at;
    json_int_t ca_port;
    json_t *mediation, *item;
    size_t i;

    c->ca_port = SM_VSOCK_CA_PORT;
    if (!vsock)
        return true;
    if (json_unpack_ex(vsock, &at, JSON_STRICT, "{s:I, s:o}", "ca_port", &ca_port, "mediation", &mediation) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: vsock: %s", at.text);
        return false;
    }
    if (ca_port < 1 || ca_port > (json_int_t)SM_VSOCK_PORT_MAX)
        return bad_key("vsock.ca_port", "a port", error);
    c->ca_port = (uint32_t)ca_port;
    if (!json_is_array(mediation) || json_array_size(mediation) > SM_MEDIATION_TARGETS_MAX)
        return bad_key("vsock.mediation", "an array of targets", error);
    json_array_foreach(mediation, i, item)
    {
        if (!load_target(item, c, error))
            return false;
    }
    return true;
}

static bool load_proxy(json_t *proxy, struct sm_core_config *c, GError **error)
{
    json_error_t at;
    json_t *clients, *routes, *item;
    const char *listen;
    size_t i;

    if (!proxy)
        return true;
    c->proxy = true;
    if (json_unpack_ex(proxy, &at, JSON_STRICT, "{s:s, s:o, s:o}", "listen", &listen, "clients", &clients, "routes",
                       &routes) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: proxy: %s", at.text);
        return false;
    }
    if (!sm_endpoint_parse(listen, 0, &c->proxy_listen) || c->proxy_listen.port == 0 ||
        !sm_ground_set_listeners(c->ground, &c->proxy_listen, 1))
        return bad_key("proxy.listen", "an address with its port", error);
    if (!json_is_array(clients) || json_array_size(clients) > SM_PROXY_CLIENTS_MAX || !json_is_array(routes))
        return bad_key("proxy", "an array of a few clients, and one of routes", error);
    json_array_foreach(clients, i, item)
    {
        struct sm_prefix *p = &c->clients[i];
        if (!json_is_string(item) || !sm_prefix_parse(json_string_value(item), p) ||
            !sm_ground_add_inside(c->ground, p))
            return bad_key("proxy.clients", "CIDRs", error);
        c->n_clients++;
    }
    json_array_foreach(routes, i, item)
    {
        if (!json_is_string(item))
            return bad_key("proxy.routes", "an array of strings", error);
        if (!sm_routes_add(&c->routes, json_string_value(item), error)) {
            g_prefix_error(error, "core configuration: proxy.routes: ");
            return false;
        }
    }
    return true;
}

void sm_core_config_free(struct sm_core_config *c)
{
    if (!c)
        return;
    g_free(c->workspace);
    g_free(c->extra_roots);
    sm_lists_free(c->lists);
    sm_swaps_free(c->swaps);
    g_free(c->vault_addr);
    g_free(c->ca_sha256);
    json_decref(c->pins);
    g_free(c->vault_namespace);
    sm_ground_free(c->ground);
    for (size_t i = 0; i < c->n_mediation; i++)
        g_free(c->mediation[i].text);
    g_free(c);
}

static void config_freep(struct sm_core_config **c)
{
    sm_core_config_free(*c);
}

struct sm_core_config *sm_core_config_load(const char *text, size_t len, GError **error)
{
    json_error_t at;
    json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    const char *vault_addr = NULL, *vault_namespace = NULL;
    const char *workspace, *mode, *extra_roots, *resolv_conf, *guest, *gateway, *resolver;
    const char *ca_sha256 = NULL;
    json_t *allow, *passthrough, *deny, *swaps, *inside, *dns, *caps, *pins = NULL;
    json_int_t qps, max_bytes, seq_floor;
    int opaque, log_query, sync, prefix_len, tproxy = 0;

    if (!root) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: line %d: %s", at.line, at.text);
        return NULL;
    }
    json_auto_t *vsock = json_incref(json_object_get(root, "vsock")); /* decoded by itself */
    (void)json_object_del(root, "vsock");
    json_auto_t *proxy = json_incref(json_object_get(root, "proxy")); /* as well */
    (void)json_object_del(root, "proxy");
    if (json_unpack_ex(
            root, &at, JSON_STRICT,
            "{s:s, s:s, s:b, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:I, s:{s:s, s:i, s:s, s:s !}, s:{s:b, "
            "s:I, s:I !}, s:o, s?{s:s, s:s !}, s?s, s?o, s?b}",
            "workspace", &workspace, "mode", &mode, "opaque", &opaque, "log_query", &log_query, "extra_roots",
            &extra_roots, "allow", &allow, "passthrough", &passthrough, "deny", &deny, "swaps", &swaps, "inside",
            &inside, "dns", &dns, "resolv_conf", &resolv_conf, "dns_qps", &qps, "network", "guest", &guest,
            "prefix_len", &prefix_len, "gateway", &gateway, "resolver", &resolver, "audit", "sync", &sync, "max_bytes",
            &max_bytes, "seq_floor", &seq_floor, "caps", &caps, "vault", "addr", &vault_addr, "namespace",
            &vault_namespace, "ca_sha256", &ca_sha256, "pins", &pins, "tproxy", &tproxy) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "core configuration: %s", at.text);
        return NULL;
    }
    sm_cleanup(config_freep) struct sm_core_config *c = g_new0(struct sm_core_config, 1);
    c->workspace = g_strdup(workspace);
    c->opaque = opaque;
    c->log_query = log_query;
    c->extra_roots = g_strdup(extra_roots);
    c->lists = sm_lists_new();
    c->ground = sm_ground_new();
    c->audit_sync = sync;
    c->tproxy = tproxy;
    if (qps < 0 || qps > 1000000) {
        bad_key("dns_qps", "0 to 1000000", error);
        return NULL;
    }
    c->dns_qps = (uint32_t)qps;
    if (max_bytes < 0 || seq_floor < 0) {
        bad_key("audit", "numbers from 0", error);
        return NULL;
    }
    c->audit_max_bytes = (uint64_t)max_bytes;
    c->audit_seq_floor = (uint64_t)seq_floor;
    if (vault_addr && !sm_vault_addr_check(vault_addr, error)) {
        g_prefix_error(error, "core configuration: vault: ");
        return NULL;
    }
    c->vault_addr = g_strdup(vault_addr);
    c->vault_namespace = g_strdup(vault_namespace);
    if (ca_sha256 && !sm_carry_is_hex(ca_sha256, 64)) {
        bad_key("ca_sha256", "64 lower-case hex digits", error);
        return NULL;
    }
    c->ca_sha256 = g_strdup(ca_sha256);
    if (pins && !sm_carry_pins_check(pins, error)) {
        g_prefix_error(error, "core configuration: ");
        return NULL;
    }
    c->pins = json_incref(pins);
    if (!(c->swaps = sm_swaps_from_json(swaps, error))) {
        g_prefix_error(error, "core configuration: ");
        return NULL;
    }
    if (!load_proxy(proxy, c, error))
        return NULL;
    if (!sm_mode_parse(mode, &c->mode, error) || !load_lists(allow, passthrough, deny, c->lists, error) ||
        !load_inside(inside, c->ground, error) || !load_dns(dns, resolv_conf, c, error) ||
        !load_network(guest, prefix_len, gateway, resolver, c, error) || !load_caps(caps, c, error) ||
        !load_vsock(vsock, c, error))
        return NULL;
    return sm_steal_ptr(&c);
}
