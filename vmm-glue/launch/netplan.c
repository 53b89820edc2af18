/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses of a workspace's virtual network; see netplan.h. */
#include "launch/netplan.h"

#include <string.h>

#include "base/error.h"

static const char *const mode_names[] = {[SM_NETWORK_USER] = "user", [SM_NETWORK_ISOLATED] = "isolated"};
SM_NAME_TABLE_COVERS(mode_names, SM_NETWORK_MODES);

const char *sm_network_mode_name(enum sm_network_mode mode)
{
    return (unsigned)mode < SM_NETWORK_MODES ? mode_names[mode] : "invalid";
}

bool sm_network_mode_parse(const char *text, enum sm_network_mode *ret)
{
    for (unsigned i = 0; i < SM_NETWORK_MODES; i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            *ret = (enum sm_network_mode)i;
            return true;
        }
    }
    return false;
}

static const char *const key_names[] = {[SM_NET_IP] = "ip",
                                        [SM_NET_SUBNET] = "subnet",
                                        [SM_NET_GATEWAY] = "gateway",
                                        [SM_NET_DNS] = "dns",
                                        [SM_NET_ROUTES] = "routes"};
SM_NAME_TABLE_COVERS(key_names, SM_NET_KEYS);

const char *sm_net_key_name(enum sm_net_key key)
{
    return (unsigned)key < SM_NET_KEYS ? key_names[key] : "invalid";
}

/* Places of the reference network within its subnet. */
enum { GATEWAY_AT = 2, RESOLVER_AT = 3, GUEST_AT = 15 };

static const struct sm_prefix everywhere = {{SM_FAMILY_V4, {0, 0, 0, 0}}, 0};

/* Addresses that a guest's own stack does not send out, or that mean everybody. */
static const struct {
    struct sm_prefix range;
    const char *what;
} unfit[] = {
    {{{SM_FAMILY_V4, {0, 0, 0, 0}}, 8}, "this network (0.0.0.0/8)"},
    {{{SM_FAMILY_V4, {127, 0, 0, 0}}, 8}, "loopback (127.0.0.0/8)"},
    {{{SM_FAMILY_V4, {169, 254, 0, 0}}, 16}, "link-local (169.254.0.0/16)"},
    {{{SM_FAMILY_V4, {224, 0, 0, 0}}, 4}, "multicast (224.0.0.0/4)"},
    {{{SM_FAMILY_V4, {240, 0, 0, 0}}, 4}, "reserved (240.0.0.0/4)"},
};

void sm_net_plan_reference(struct sm_net_plan *ret)
{
    *ret = (struct sm_net_plan){
        .mode = SM_NETWORK_USER,
        .guest = sm_addr_v4(10, 0, 2, GUEST_AT),
        .subnet = {sm_addr_v4(10, 0, 2, 0), 24},
        .gateway = sm_addr_v4(10, 0, 2, GATEWAY_AT),
        .resolver = sm_addr_v4(10, 0, 2, RESOLVER_AT),
        .dns = {sm_addr_v4(10, 0, 2, RESOLVER_AT)},
        .n_dns = 1,
        .routes = {everywhere},
        .n_routes = 1,
        .mtu = SM_NET_MTU_DEFAULT,
        .guest_mac = SM_NET_GUEST_MAC,
        .our_mac = SM_NET_GATEWAY_MAC,
    };
}

bool sm_net_plan_equal(const struct sm_net_plan *a, const struct sm_net_plan *b)
{
    bool same = a->mode == b->mode && sm_addr_equal(&a->guest, &b->guest) && sm_prefix_equal(&a->subnet, &b->subnet) &&
                sm_addr_equal(&a->gateway, &b->gateway) && sm_addr_equal(&a->resolver, &b->resolver) &&
                a->n_dns == b->n_dns && a->n_routes == b->n_routes && a->mtu == b->mtu &&
                strcmp(a->guest_mac, b->guest_mac) == 0 && strcmp(a->our_mac, b->our_mac) == 0;

    for (size_t i = 0; same && i < a->n_dns; i++)
        same = sm_addr_equal(&a->dns[i], &b->dns[i]);
    for (size_t i = 0; same && i < a->n_routes; i++)
        same = sm_prefix_equal(&a->routes[i], &b->routes[i]);
    return same;
}

bool sm_net_overlap(const struct sm_prefix *a, const struct sm_prefix *b)
{
    return a->len <= b->len ? sm_prefix_contains(a, &b->addr) : sm_prefix_contains(b, &a->addr);
}

bool sm_net_plan_default_route(const struct sm_net_plan *plan)
{
    for (size_t i = 0; i < plan->n_routes; i++)
        if (plan->routes[i].len == 0)
            return true;
    return false;
}

const char *sm_net_route_format(const struct sm_net_plan *plan, size_t i, char out[SM_NET_ROUTE_STRLEN])
{
    char to[SM_PREFIX_STRLEN], via[SM_ADDR_STRLEN];

    (void)g_snprintf(out, SM_NET_ROUTE_STRLEN, "%s via %s", sm_prefix_format(&plan->routes[i], to),
                     sm_addr_format(&plan->gateway, via));
    return out;
}

/* ---- judging and deriving ---- */

static bool at_fault(struct sm_net_fault *fault, enum sm_net_key key, size_t item, GError **error, const char *fmt, ...)
    SM_PRINTF(5, 6);

static bool at_fault(struct sm_net_fault *fault, enum sm_net_key key, size_t item, GError **error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    *fault = (struct sm_net_fault){key, item};
    sm_error_set(error, SM_ERROR_INVALID, "%s", text);
    return false;
}

static uint32_t host_bits(const struct sm_prefix *net)
{
    return UINT32_MAX >> net->len; /* 8 to 30 */
}

static bool is_host(const struct sm_prefix *net, const struct sm_addr *a)
{
    uint32_t at = sm_addr_to_u32(a) & host_bits(net);

    return sm_prefix_contains(net, a) && at != 0 && at != host_bits(net);
}

/** The address at a place of the subnet; the first host that is neither of the two, when that is no host or one of them. */
static struct sm_addr place(const struct sm_prefix *net, uint32_t at, const struct sm_addr *not1,
                            const struct sm_addr *not2)
{
    struct sm_addr a = sm_addr_from_u32(sm_addr_to_u32(&net->addr) + at);

    for (uint32_t i = 1; at >= host_bits(net) || sm_addr_equal(&a, not1) || sm_addr_equal(&a, not2); i++) {
        at = i;
        a = sm_addr_from_u32(sm_addr_to_u32(&net->addr) + at);
    }
    return a;
}

/* "192.168.1.9 is not in 10.0.0.0/24", or why an address of it can be nobody's. */
static bool check_host(const struct sm_net_plan *p, enum sm_net_key key, size_t item, const struct sm_addr *a,
                       struct sm_net_fault *fault, GError **error)
{
    char text[SM_ADDR_STRLEN], net[SM_PREFIX_STRLEN];

    if (is_host(&p->subnet, a))
        return true;
    (void)sm_addr_format(a, text);
    (void)sm_prefix_format(&p->subnet, net);
    if (!sm_prefix_contains(&p->subnet, a))
        return at_fault(fault, key, item, error, "%s is not in network.subnet %s", text, net);
    return at_fault(fault, key, item, error, "%s is the %s address of network.subnet %s", text,
                    sm_addr_equal(a, &p->subnet.addr) ? "network" : "broadcast", net);
}

static bool check_subnet(struct sm_net_plan *p, enum sm_net_key key, struct sm_net_fault *fault, GError **error)
{
    char net[SM_PREFIX_STRLEN];

    (void)sm_prefix_format(&p->subnet, net);
    if (p->subnet.len < SM_NET_PREFIX_MIN || p->subnet.len > SM_NET_PREFIX_MAX)
        return at_fault(fault, key, 0, error, "%s: a subnet has a prefix of %d to %d bits", net, SM_NET_PREFIX_MIN,
                        SM_NET_PREFIX_MAX);
    for (size_t i = 0; i < SM_ARRAY_LEN(unfit); i++)
        if (sm_net_overlap(&p->subnet, &unfit[i].range))
            return at_fault(fault, key, 0, error, "%s overlaps %s: take a private range, as in 192.168.64.0/24", net,
                            unfit[i].what);
    return true;
}

static bool derive_subnet(struct sm_net_plan *p, unsigned said, unsigned ip_len, struct sm_net_fault *fault,
                          GError **error)
{
    char ip[SM_ADDR_STRLEN], net[SM_PREFIX_STRLEN];
    bool has_ip = said & SM_NET_SAID(SM_NET_IP), has_subnet = said & SM_NET_SAID(SM_NET_SUBNET);

    if (has_ip && has_subnet && ip_len != 0 && ip_len != p->subnet.len)
        return at_fault(fault, SM_NET_IP, 0, error, "its prefix of %u bits is not that of network.subnet %s", ip_len,
                        sm_prefix_format(&p->subnet, net));
    if (has_ip && !has_subnet) {
        if (ip_len == 0)
            return at_fault(fault, SM_NET_IP, 0, error,
                            "without network.subnet it needs its prefix: write it as in 192.168.64.2/24");
        if (ip_len < SM_NET_PREFIX_MIN || ip_len > SM_NET_PREFIX_MAX)
            return at_fault(fault, SM_NET_IP, 0, error, "%s/%u: a subnet has a prefix of %d to %d bits",
                            sm_addr_format(&p->guest, ip), ip_len, SM_NET_PREFIX_MIN, SM_NET_PREFIX_MAX);
        p->subnet =
            (struct sm_prefix){sm_addr_from_u32(sm_addr_to_u32(&p->guest) & ~(UINT32_MAX >> ip_len)), (uint8_t)ip_len};
    }
    return check_subnet(p, has_subnet ? SM_NET_SUBNET : SM_NET_IP, fault, error);
}

static bool check_dns(struct sm_net_plan *p, struct sm_net_fault *fault, GError **error)
{
    char text[SM_ADDR_STRLEN], other[SM_ADDR_STRLEN];

    p->resolver = p->gateway;
    for (size_t i = 0; i < p->n_dns; i++) {
        const struct sm_addr *a = &p->dns[i];
        (void)sm_addr_format(a, text);
        for (size_t j = 0; j < SM_ARRAY_LEN(unfit); j++)
            if (sm_prefix_contains(&unfit[j].range, a))
                return at_fault(fault, SM_NET_DNS, i, error,
                                "%s is %s: no question of the guest's to it would come out", text, unfit[j].what);
        for (size_t j = 0; j < i; j++)
            if (sm_addr_equal(a, &p->dns[j]))
                return at_fault(fault, SM_NET_DNS, i, error, "%s is there twice", text);
        if (!sm_prefix_contains(&p->subnet, a))
            continue;
        if (!check_host(p, SM_NET_DNS, i, a, fault, error))
            return false;
        if (sm_addr_equal(a, &p->guest))
            return at_fault(fault, SM_NET_DNS, i, error, "%s is the guest's own address", text);
        if (sm_addr_equal(a, &p->gateway))
            continue;
        if (!sm_addr_equal(&p->resolver, &p->gateway))
            return at_fault(fault, SM_NET_DNS, i, error,
                            "beside the gateway one address of the subnet can be a resolver, and %s is it",
                            sm_addr_format(&p->resolver, other));
        p->resolver = *a;
    }
    return true;
}

static bool check_routes(const struct sm_net_plan *p, struct sm_net_fault *fault, GError **error)
{
    char to[SM_PREFIX_STRLEN], net[SM_PREFIX_STRLEN];

    for (size_t i = 0; i < p->n_routes; i++) {
        const struct sm_prefix *r = &p->routes[i];
        (void)sm_prefix_format(r, to);
        if (r->len >= p->subnet.len && sm_net_overlap(r, &p->subnet))
            return at_fault(fault, SM_NET_ROUTES, i, error, "%s lies in network.subnet %s, which needs no route", to,
                            sm_prefix_format(&p->subnet, net));
        for (size_t j = 0; j < SM_ARRAY_LEN(unfit); j++)
            if (r->len >= unfit[j].range.len && sm_net_overlap(r, &unfit[j].range))
                return at_fault(fault, SM_NET_ROUTES, i, error, "%s is %s, which nothing is routed to", to,
                                unfit[j].what);
        for (size_t j = 0; j < i; j++)
            if (sm_prefix_equal(r, &p->routes[j]))
                return at_fault(fault, SM_NET_ROUTES, i, error, "%s is there twice", to);
    }
    return true;
}

bool sm_net_plan_complete(struct sm_net_plan *p, unsigned said, unsigned ip_len, struct sm_net_fault *fault,
                          GError **error)
{
    static const struct sm_addr none;
    char text[SM_ADDR_STRLEN];
    bool has_ip = said & SM_NET_SAID(SM_NET_IP), has_gateway = said & SM_NET_SAID(SM_NET_GATEWAY);

    if (!derive_subnet(p, said, ip_len, fault, error))
        return false;
    if (has_ip && !check_host(p, SM_NET_IP, 0, &p->guest, fault, error))
        return false;
    if (has_gateway && !check_host(p, SM_NET_GATEWAY, 0, &p->gateway, fault, error))
        return false;
    if (has_ip && has_gateway && sm_addr_equal(&p->guest, &p->gateway))
        return at_fault(fault, SM_NET_GATEWAY, 0, error, "%s is the guest's own address (network.ip)",
                        sm_addr_format(&p->gateway, text));
    if (!has_gateway)
        p->gateway = place(&p->subnet, GATEWAY_AT, has_ip ? &p->guest : &none, &none);
    if (!has_ip)
        p->guest = place(&p->subnet, GUEST_AT, &p->gateway, &none);
    if (said & SM_NET_SAID(SM_NET_DNS)) {
        if (!check_dns(p, fault, error))
            return false;
    } else {
        /* A subnet of two hosts has no third address. */
        p->resolver =
            host_bits(&p->subnet) > RESOLVER_AT ? place(&p->subnet, RESOLVER_AT, &p->guest, &p->gateway) : p->gateway;
        p->dns[0] = p->resolver;
        p->n_dns = 1;
    }
    return check_routes(p, fault, error);
}
