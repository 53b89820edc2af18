/* SPDX-License-Identifier: BSD-3-Clause */
/* The plan of a virtual network: what follows from what was said, and what contradicts it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "launch/netplan.h"
#include "nat/wire.h"
#include "paths/guest_config.h"

_Static_assert(SM_NET_DNS_MAX == SM_LINK_DNS_MAX && SM_NET_DNS_MAX == SM_GUEST_DNS_MAX, "one bound for resolvers");
_Static_assert(SM_NET_ROUTES_MAX == SM_LINK_ROUTES_MAX && SM_NET_ROUTES_MAX == SM_TAP_ROUTES_MAX, "one for routes");

/* What a row says: "ADDR[/LEN]", "CIDR", "ADDR", addresses and CIDRs behind commas; NULL is not said, "" an empty list. */
struct said {
    const char *ip, *subnet, *gateway, *dns, *routes;
};

static bool complete(const struct said *said, struct sm_net_plan *p, struct sm_net_fault *fault, GError **error)
{
    unsigned keys = 0, ip_len = 0;

    sm_net_plan_reference(p);
    if (said->ip) {
        g_auto(GStrv) parts = g_strsplit(said->ip, "/", 2);
        assert_true(sm_addr_parse(parts[0], &p->guest));
        ip_len = parts[1] ? (unsigned)g_ascii_strtoull(parts[1], NULL, 10) : 0;
        keys |= SM_NET_SAID(SM_NET_IP);
    }
    if (said->subnet) {
        assert_true(sm_prefix_parse(said->subnet, &p->subnet));
        keys |= SM_NET_SAID(SM_NET_SUBNET);
    }
    if (said->gateway) {
        assert_true(sm_addr_parse(said->gateway, &p->gateway));
        keys |= SM_NET_SAID(SM_NET_GATEWAY);
    }
    if (said->dns) {
        g_auto(GStrv) parts = g_strsplit(said->dns, ",", -1);
        for (p->n_dns = 0; parts[p->n_dns]; p->n_dns++)
            assert_true(sm_addr_parse(parts[p->n_dns], &p->dns[p->n_dns]));
        keys |= SM_NET_SAID(SM_NET_DNS);
    }
    if (said->routes) {
        g_auto(GStrv) parts = g_strsplit(said->routes, ",", -1);
        for (p->n_routes = 0; parts[p->n_routes]; p->n_routes++)
            assert_true(sm_prefix_parse(parts[p->n_routes], &p->routes[p->n_routes]));
        keys |= SM_NET_SAID(SM_NET_ROUTES);
    }
    return sm_net_plan_complete(p, keys, ip_len, fault, error);
}

static void assert_addr(const struct sm_addr *a, const char *text)
{
    char out[SM_ADDR_STRLEN];
    assert_string_equal(sm_addr_format(a, out), text);
}

static void test_reference(void **state)
{
    struct sm_net_plan p, q;
    struct sm_net_fault fault;
    char text[SM_PREFIX_STRLEN], route[SM_NET_ROUTE_STRLEN];

    sm_net_plan_reference(&p);
    assert_addr(&p.guest, "10.0.2.15");
    assert_addr(&p.gateway, "10.0.2.2");
    assert_addr(&p.resolver, "10.0.2.3");
    assert_int_equal(p.n_dns, 1);
    assert_addr(&p.dns[0], "10.0.2.3");
    assert_string_equal(sm_prefix_format(&p.subnet, text), "10.0.2.0/24");
    assert_string_equal(sm_net_route_format(&p, 0, route), "0.0.0.0/0 via 10.0.2.2");
    assert_true(sm_net_plan_default_route(&p));
    assert_int_equal(p.mode, SM_NETWORK_USER);
    /* Nothing said changes nothing. */
    assert_true(complete(&(struct said){0}, &q, &fault, NULL));
    assert_true(sm_net_plan_equal(&p, &q));
}

static void test_derived(void **state)
{
    static const struct {
        struct said said;
        const char *guest, *subnet, *gateway, *resolver, *dns0;
    } rows[] = {
        /* The example of the seeds. */
        {{"192.168.64.2/24", "192.168.64.0/24", "192.168.64.1", "1.1.1.1,8.8.8.8", "0.0.0.0/0"},
         "192.168.64.2",
         "192.168.64.0/24",
         "192.168.64.1",
         "192.168.64.1",
         "1.1.1.1"},
        {{"192.168.64.9/24", NULL, NULL, NULL, NULL},
         "192.168.64.9",
         "192.168.64.0/24",
         "192.168.64.2",
         "192.168.64.3",
         "192.168.64.3"},
        /* The places of the reference network are taken: the first that is free. */
        {{"192.168.64.2/24", NULL, NULL, NULL, NULL},
         "192.168.64.2",
         "192.168.64.0/24",
         "192.168.64.1",
         "192.168.64.3",
         "192.168.64.3"},
        {{"192.168.64.3", "192.168.64.0/24", "192.168.64.15", NULL, NULL},
         "192.168.64.3",
         "192.168.64.0/24",
         "192.168.64.15",
         "192.168.64.1",
         "192.168.64.1"},
        {{NULL, "172.20.0.0/16", NULL, NULL, NULL},
         "172.20.0.15",
         "172.20.0.0/16",
         "172.20.0.2",
         "172.20.0.3",
         "172.20.0.3"},
        {{NULL, "172.20.0.0/28", NULL, NULL, NULL},
         "172.20.0.1",
         "172.20.0.0/28",
         "172.20.0.2",
         "172.20.0.3",
         "172.20.0.3"},
        {{NULL, "172.20.0.4/30", NULL, NULL, NULL},
         "172.20.0.5",
         "172.20.0.4/30",
         "172.20.0.6",
         "172.20.0.6",
         "172.20.0.6"},
        {{NULL, NULL, "10.0.2.15", NULL, NULL}, "10.0.2.1", "10.0.2.0/24", "10.0.2.15", "10.0.2.3", "10.0.2.3"},
        {{NULL, NULL, NULL, "9.9.9.9,10.0.2.53,10.0.2.2", NULL},
         "10.0.2.15",
         "10.0.2.0/24",
         "10.0.2.2",
         "10.0.2.53",
         "9.9.9.9"},
        {{"100.64.3.4/8", NULL, NULL, NULL, NULL}, "100.64.3.4", "100.0.0.0/8", "100.0.0.2", "100.0.0.3", "100.0.0.3"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autoptr(GError) error = NULL;
        struct sm_net_plan p;
        struct sm_net_fault fault;
        char text[SM_PREFIX_STRLEN];
        if (!complete(&rows[i].said, &p, &fault, &error))
            fail_msg("row %zu: %s", i, error->message);
        assert_addr(&p.guest, rows[i].guest);
        assert_string_equal(sm_prefix_format(&p.subnet, text), rows[i].subnet);
        assert_addr(&p.gateway, rows[i].gateway);
        assert_addr(&p.resolver, rows[i].resolver);
        assert_addr(&p.dns[0], rows[i].dns0);
    }
}

static void test_refused(void **state)
{
    static const struct {
        struct said said;
        enum sm_net_key key;
        size_t item;
        const char *text;
    } rows[] = {
        {{.gateway = "10.1.0.1"}, SM_NET_GATEWAY, 0, "10.1.0.1 is not in network.subnet 10.0.2.0/24"},
        {{.gateway = "10.0.2.0"}, SM_NET_GATEWAY, 0, "10.0.2.0 is the network address"},
        {{.gateway = "10.0.2.255"}, SM_NET_GATEWAY, 0, "10.0.2.255 is the broadcast address"},
        {{.ip = "192.168.64.2/24", .gateway = "192.168.64.2"}, SM_NET_GATEWAY, 0, "the guest's own address"},
        {{.ip = "192.168.64.2/24", .subnet = "192.168.65.0/24"}, SM_NET_IP, 0, "is not in network.subnet"},
        {{.ip = "192.168.64.2/16", .subnet = "192.168.64.0/24"}, SM_NET_IP, 0, "prefix of 16 bits is not that"},
        {{.ip = "192.168.64.0/24"}, SM_NET_IP, 0, "network address"},
        {{.ip = "192.168.64.255/24"}, SM_NET_IP, 0, "broadcast address"},
        {{.ip = "192.168.64.2"}, SM_NET_IP, 0, "needs its prefix"},
        {{.ip = "192.168.64.2/31"}, SM_NET_IP, 0, "8 to 30 bits"},
        {{.ip = "192.168.64.2/7"}, SM_NET_IP, 0, "8 to 30 bits"},
        {{.subnet = "192.168.64.2"}, SM_NET_SUBNET, 0, "8 to 30 bits"},
        {{.subnet = "0.0.0.0/0"}, SM_NET_SUBNET, 0, "8 to 30 bits"},
        {{.subnet = "127.0.0.0/24"}, SM_NET_SUBNET, 0, "loopback"},
        {{.ip = "127.1.2.3/24"}, SM_NET_IP, 0, "loopback"},
        {{.subnet = "169.254.7.0/24"}, SM_NET_SUBNET, 0, "link-local"},
        {{.subnet = "224.0.0.0/24"}, SM_NET_SUBNET, 0, "multicast"},
        {{.subnet = "250.0.0.0/8"}, SM_NET_SUBNET, 0, "reserved"},
        {{.subnet = "0.1.0.0/16"}, SM_NET_SUBNET, 0, "this network"},
        {{.dns = "1.1.1.1,127.0.0.53"}, SM_NET_DNS, 1, "loopback"},
        {{.dns = "1.1.1.1,8.8.8.8,1.1.1.1"}, SM_NET_DNS, 2, "twice"},
        {{.dns = "10.0.2.15"}, SM_NET_DNS, 0, "guest's own"},
        {{.dns = "10.0.2.255"}, SM_NET_DNS, 0, "broadcast"},
        {{.dns = "10.0.2.7,10.0.2.8"}, SM_NET_DNS, 1, "10.0.2.7 is it"},
        {{.routes = "0.0.0.0/0,10.0.2.0/24"}, SM_NET_ROUTES, 1, "needs no route"},
        {{.routes = "10.0.2.9/32"}, SM_NET_ROUTES, 0, "needs no route"},
        {{.routes = "127.0.0.0/8"}, SM_NET_ROUTES, 0, "loopback"},
        {{.routes = "0.0.0.0/0,172.16.0.0/12,0.0.0.0/0"}, SM_NET_ROUTES, 2, "twice"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autoptr(GError) error = NULL;
        struct sm_net_plan p;
        struct sm_net_fault fault = {SM_NET_KEYS, 99};
        if (complete(&rows[i].said, &p, &fault, &error))
            fail_msg("row %zu is taken", i);
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        if (!strstr(error->message, rows[i].text))
            fail_msg("row %zu: %s", i, error->message);
        assert_int_equal(fault.key, rows[i].key);
        assert_int_equal(fault.item, rows[i].item);
    }
}

/* Whatever a plan becomes, no two of its addresses are the same, and all are hosts of the subnet. */
static void test_every_place(void **state)
{
    for (unsigned len = 24; len <= 30; len++) {
        uint32_t net = 0xc0a84000, hosts = UINT32_MAX >> len;
        for (uint32_t at = 1; at < hosts; at++) {
            for (int which = 0; which < 2; which++) {
                char text[SM_ADDR_STRLEN];
                struct sm_addr a = sm_addr_from_u32(net + at);
                (void)sm_addr_format(&a, text);
                g_autofree char *ip = g_strdup_printf("%s/%u", text, len);
                g_autofree char *subnet = g_strdup_printf("192.168.64.0/%u", len);
                struct said said = which ? (struct said){.subnet = subnet, .gateway = text} : (struct said){.ip = ip};
                struct sm_net_plan p;
                struct sm_net_fault fault;
                assert_true(complete(&said, &p, &fault, NULL));
                const struct sm_addr *all[] = {&p.guest, &p.gateway, &p.resolver};
                for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
                    uint32_t host = sm_addr_to_u32(all[i]) - net;
                    assert_true(host > 0 && host < hosts);
                }
                assert_false(sm_addr_equal(&p.guest, &p.gateway));
                assert_false(sm_addr_equal(&p.guest, &p.resolver));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_derived),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_every_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
