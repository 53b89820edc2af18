/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading the front's configuration; see config.h. */
#include "nat/config.h"

#include <jansson.h>

#include "base/addr.h"
#include "base/error.h"

static void json_free(json_t **j)
{
    json_decref(*j);
}

bool sm_mac_parse(const char *text, uint8_t ret[SM_ETH_ALEN])
{
    uint8_t mac[SM_ETH_ALEN], any = 0;

    if (strlen(text) != 17)
        return false;
    for (size_t i = 0; i < SM_ETH_ALEN; i++) {
        int hi = g_ascii_xdigit_value(text[i * 3]), lo = g_ascii_xdigit_value(text[i * 3 + 1]);
        if (hi < 0 || lo < 0 || (i < 5 && text[i * 3 + 2] != ':'))
            return false;
        mac[i] = (uint8_t)(hi << 4 | lo);
        any |= mac[i];
    }
    if (any == 0 || (mac[0] & 1))
        return false;
    memcpy(ret, mac, SM_ETH_ALEN);
    return true;
}

static bool get_v4(const char *key, const char *text, uint32_t *ret, GError **error)
{
    struct sm_addr a;
    if (!sm_addr_parse(text, &a) || a.family != SM_FAMILY_V4) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: %s: '%s' is not an IPv4 address", key, text);
        return false;
    }
    *ret = sm_addr_to_u32(&a);
    return true;
}

static bool get_dns(json_t *list, struct sm_link *l, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > SM_LINK_DNS_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: dns: not 1 to %d addresses", SM_LINK_DNS_MAX);
        return false;
    }
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (!get_v4("dns", text ? text : "", &l->dns[i], error))
            return false;
    }
    l->n_dns = (uint8_t)json_array_size(list);
    return true;
}

static bool get_routes(json_t *list, struct sm_link *l, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(list) || json_array_size(list) > SM_LINK_ROUTES_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: routes: not at most %d ranges", SM_LINK_ROUTES_MAX);
        return false;
    }
    json_array_foreach(list, i, item)
    {
        struct sm_prefix p;
        if (!json_is_string(item) || !sm_prefix_parse(json_string_value(item), &p) || p.addr.family != SM_FAMILY_V4) {
            sm_error_set(error, SM_ERROR_INVALID, "front configuration: routes: item %zu is not an IPv4 CIDR", i);
            return false;
        }
        l->routes[i] = (struct sm_link_route){.net = sm_addr_to_u32(&p.addr), .len = p.len};
    }
    l->n_routes = (uint8_t)json_array_size(list);
    return true;
}

static bool get_mac(const char *key, const char *text, uint8_t ret[SM_ETH_ALEN], GError **error)
{
    if (sm_mac_parse(text, ret))
        return true;
    sm_error_set(error, SM_ERROR_INVALID, "front configuration: %s: '%s' is not a unicast MAC address", key, text);
    return false;
}

/* Every one of our addresses is a host of the subnet, and no two are the same. */
static bool check_link(const struct sm_link *l, GError **error)
{
    const uint32_t hosts[] = {l->guest, l->gateway, l->resolver};
    static const char *const names[] = {"guest", "gateway", "resolver"};
    uint32_t mask = sm_link_mask(l), net = l->gateway & mask;

    for (size_t i = 0; i < SM_ARRAY_LEN(hosts); i++) {
        if ((hosts[i] & mask) != net || hosts[i] == net || hosts[i] == sm_link_broadcast(l)) {
            sm_error_set(error, SM_ERROR_INVALID, "front configuration: %s is not a host address of the gateway's /%u",
                         names[i], l->prefix_len);
            return false;
        }
    }
    if (l->guest == l->gateway || l->guest == l->resolver || memcmp(l->guest_mac, l->our_mac, SM_ETH_ALEN) == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: the guest has an address of ours");
        return false;
    }
    return true;
}

bool sm_nat_config_parse(const char *json, size_t len, struct sm_nat_config *ret, GError **error)
{
    struct sm_nat_config c = {0};
    json_error_t je;
    sm_cleanup(json_free) json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    const char *workspace, *mac, *gateway_mac, *guest, *gateway, *resolver, *port, *hostname = "", *vsock_port = "";
    json_int_t cid = SM_VSOCK_CID_DEFAULT;
    int prefix_len, mtu, dns_any;
    json_t *dns, *routes;

    if (!root) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: not JSON: %s", je.text);
        return false;
    }
    if (json_unpack_ex(root, &je, JSON_STRICT, "{s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:i,s:i,s:b,s:s,s?s,s?{s:s,s:I!}}",
                       "workspace", &workspace, "mac", &mac, "gateway_mac", &gateway_mac, "guest", &guest, "gateway",
                       &gateway, "resolver", &resolver, "dns", &dns, "routes", &routes, "prefix_len", &prefix_len,
                       "mtu", &mtu, "dns_any", &dns_any, "port", &port, "hostname", &hostname, "vsock", "port",
                       &vsock_port, "cid", &cid) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: %s", je.text);
        return false;
    }
    if (prefix_len < 8 || prefix_len > 30) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: prefix_len: %d is not in 8..30", prefix_len);
        return false;
    }
    if (mtu < SM_MTU_MIN || mtu > SM_MTU_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: mtu: %d is not in %d..%d", mtu, SM_MTU_MIN,
                     SM_MTU_MAX);
        return false;
    }
    if (strlen(workspace) > SM_NAT_WORKSPACE_MAX || strlen(hostname) > SM_DHCP_HOSTNAME_MAX ||
        strlen(port) > SM_NAT_PORT_MAX || strlen(vsock_port) > SM_NAT_PORT_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "front configuration: workspace, hostname or port is too long");
        return false;
    }
    if (cid < SM_VSOCK_CID_MIN || cid > (json_int_t)SM_VSOCK_CID_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: vsock: cid is not in %d..%u", SM_VSOCK_CID_MIN,
                     SM_VSOCK_CID_MAX);
        return false;
    }
    c.vsock_cid = (uint32_t)cid;
    g_strlcpy(c.vsock_port, vsock_port, sizeof(c.vsock_port));
    c.link.prefix_len = (uint8_t)prefix_len;
    c.link.mtu = (uint16_t)mtu;
    c.dns_any = dns_any != 0;
    g_strlcpy(c.workspace, workspace, sizeof(c.workspace));
    g_strlcpy(c.port, port, sizeof(c.port));
    g_strlcpy(c.hostname, hostname, sizeof(c.hostname));
    if (!get_mac("mac", mac, c.link.guest_mac, error) || !get_mac("gateway_mac", gateway_mac, c.link.our_mac, error) ||
        !get_v4("guest", guest, &c.link.guest, error) || !get_v4("gateway", gateway, &c.link.gateway, error) ||
        !get_v4("resolver", resolver, &c.link.resolver, error) || !get_dns(dns, &c.link, error) ||
        !get_routes(routes, &c.link, error) || !check_link(&c.link, error))
        return false;
    *ret = c;
    return true;
}
