/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside table: each range at both ends and just outside, what is embedded in IPv6, and the facts of this machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/inside.h"

static struct sm_addr addr(const char *text)
{
    struct sm_addr a = {0};
    if (!sm_addr_parse(text, &a))
        fail_msg("bad address %s in the test", text);
    return a;
}

static struct sm_endpoint at(const char *text, uint16_t port)
{
    return (struct sm_endpoint){.addr = addr(text), .port = port};
}

static struct sm_prefix range(const char *text)
{
    struct sm_prefix p = {0};
    if (!sm_prefix_parse(text, &p))
        fail_msg("bad range %s in the test", text);
    return p;
}

static void check(const char *text, enum sm_inside_kind kind)
{
    struct sm_addr a = addr(text);
    enum sm_inside_kind got = sm_inside_kind(&a);
    if (got != kind)
        fail_msg("%s is %s, not %s", text, sm_inside_kind_name(got), sm_inside_kind_name(kind));
}

/* Both ends of every range, and the addresses next to them. */
static void every_range(void **state)
{
    static const struct {
        const char *before; /* NULL: nothing before or after */
        enum sm_inside_kind before_kind;
        const char *first, *last;
        enum sm_inside_kind kind;
        const char *after;
        enum sm_inside_kind after_kind;
    } rows[] = {
        {NULL, 0, "0.0.0.0", "0.255.255.255", SM_INSIDE_THIS_NETWORK, "1.0.0.0", SM_INSIDE_NONE},
        {"9.255.255.255", SM_INSIDE_NONE, "10.0.0.0", "10.255.255.255", SM_INSIDE_PRIVATE, "11.0.0.0", SM_INSIDE_NONE},
        {"100.63.255.255", SM_INSIDE_NONE, "100.64.0.0", "100.127.255.255", SM_INSIDE_SHARED, "100.128.0.0",
         SM_INSIDE_NONE},
        {"100.100.100.199", SM_INSIDE_SHARED, "100.100.100.200", "100.100.100.200", SM_INSIDE_METADATA,
         "100.100.100.201", SM_INSIDE_SHARED},
        {"126.255.255.255", SM_INSIDE_NONE, "127.0.0.0", "127.255.255.255", SM_INSIDE_LOOPBACK, "128.0.0.0",
         SM_INSIDE_NONE},
        {"168.63.129.15", SM_INSIDE_NONE, "168.63.129.16", "168.63.129.16", SM_INSIDE_METADATA, "168.63.129.17",
         SM_INSIDE_NONE},
        {"169.253.255.255", SM_INSIDE_NONE, "169.254.0.0", "169.254.255.255", SM_INSIDE_LINK_LOCAL, "169.255.0.0",
         SM_INSIDE_NONE},
        {"169.254.169.253", SM_INSIDE_LINK_LOCAL, "169.254.169.254", "169.254.169.254", SM_INSIDE_METADATA,
         "169.254.169.255", SM_INSIDE_LINK_LOCAL},
        {"172.15.255.255", SM_INSIDE_NONE, "172.16.0.0", "172.31.255.255", SM_INSIDE_PRIVATE, "172.32.0.0",
         SM_INSIDE_NONE},
        {"191.255.255.255", SM_INSIDE_NONE, "192.0.0.0", "192.0.0.255", SM_INSIDE_PROTOCOL, "192.0.1.0",
         SM_INSIDE_NONE},
        {"192.167.255.255", SM_INSIDE_NONE, "192.168.0.0", "192.168.255.255", SM_INSIDE_PRIVATE, "192.169.0.0",
         SM_INSIDE_NONE},
        {"198.17.255.255", SM_INSIDE_NONE, "198.18.0.0", "198.19.255.255", SM_INSIDE_BENCHMARK, "198.20.0.0",
         SM_INSIDE_NONE},
        {"223.255.255.255", SM_INSIDE_NONE, "224.0.0.0", "239.255.255.255", SM_INSIDE_MULTICAST, "240.0.0.0",
         SM_INSIDE_RESERVED},
        {"239.255.255.255", SM_INSIDE_MULTICAST, "240.0.0.0", "255.255.255.254", SM_INSIDE_RESERVED, "255.255.255.255",
         SM_INSIDE_BROADCAST},
        {NULL, 0, "::", "::", SM_INSIDE_THIS_NETWORK, "::1", SM_INSIDE_LOOPBACK},
        {"::", SM_INSIDE_THIS_NETWORK, "::1", "::1", SM_INSIDE_LOOPBACK, "::2", SM_INSIDE_THIS_NETWORK},
        {"fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_NONE, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
         SM_INSIDE_UNIQUE_LOCAL, "fe00::", SM_INSIDE_NONE},
        {"fd00:ec2::253", SM_INSIDE_UNIQUE_LOCAL, "fd00:ec2::254", "fd00:ec2::254", SM_INSIDE_METADATA, "fd00:ec2::255",
         SM_INSIDE_UNIQUE_LOCAL},
        {"fd20:ce::253", SM_INSIDE_UNIQUE_LOCAL, "fd20:ce::254", "fd20:ce::254", SM_INSIDE_METADATA, "fd20:ce::255",
         SM_INSIDE_UNIQUE_LOCAL},
        {"fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_NONE, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
         SM_INSIDE_LINK_LOCAL, "fec0::", SM_INSIDE_SITE_LOCAL},
        {"febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_LINK_LOCAL,
         "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_SITE_LOCAL, "ff00::", SM_INSIDE_MULTICAST},
        {"feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_SITE_LOCAL,
         "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_INSIDE_MULTICAST, NULL, 0},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        if (rows[i].before)
            check(rows[i].before, rows[i].before_kind);
        check(rows[i].first, rows[i].kind);
        check(rows[i].last, rows[i].kind);
        if (rows[i].after)
            check(rows[i].after, rows[i].after_kind);
    }
}

static void public_addresses(void **state)
{
    static const char *const texts[] = {
        "1.1.1.1",
        "8.8.8.8",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::8.8.8.8",
        "64:ff9b:1:808:8:800::",
        "2002:808:808::1",
        "2001:0:808:808::f7f7:f7f7",
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(texts); i++)
        check(texts[i], SM_INSIDE_NONE);
}

static void v4_inside_v6(void **state)
{
    static const struct {
        const char *text;
        enum sm_inside_kind kind;
    } rows[] = {
        {"::ffff:127.0.0.1", SM_INSIDE_LOOPBACK},
        {"::ffff:0.0.0.0", SM_INSIDE_THIS_NETWORK},
        {"::ffff:10.0.0.5", SM_INSIDE_PRIVATE},
        {"::ffff:169.254.169.254", SM_INSIDE_METADATA},
        {"::ffff:168.63.129.16", SM_INSIDE_METADATA},
        {"::10.0.0.5", SM_INSIDE_PRIVATE},
        {"::127.0.0.1", SM_INSIDE_LOOPBACK},
        {"64:ff9b::10.0.0.5", SM_INSIDE_PRIVATE},
        {"64:ff9b::169.254.169.254", SM_INSIDE_METADATA},
        {"64:ff9b::0.0.0.0", SM_INSIDE_THIS_NETWORK},
        {"64:ff9b:1::10.0.0.5", SM_INSIDE_PRIVATE},           /* /96 layout */
        {"64:ff9b:1:a00:0:500::", SM_INSIDE_PRIVATE},         /* /48 layout: 10.0 | 00 | 0.5 */
        {"64:ff9b:1:a9fe:a9:fe00::", SM_INSIDE_METADATA},     /* /48 layout: 169.254 | 00 | 169.254 */
        {"64:ff9b:1:7f00:0:100:808:808", SM_INSIDE_LOOPBACK}, /* both readings: the stricter */
        {"64:ff9b:1:808:8:800:7f00:1", SM_INSIDE_LOOPBACK},
        {"64:ff9b:1::", SM_INSIDE_THIS_NETWORK},
        {"2002:a00:5::1", SM_INSIDE_PRIVATE},
        {"2002:7f00:1::", SM_INSIDE_LOOPBACK},
        {"2002:a9fe:a9fe::1", SM_INSIDE_METADATA},
        {"2001:0:a00:5::f7f7:f7f7", SM_INSIDE_PRIVATE},    /* Teredo server 10.0.0.5, client 8.8.8.8 */
        {"2001:0:808:808::f5ff:fffa", SM_INSIDE_PRIVATE},  /* Teredo client 10.0.0.5 */
        {"2001:0:808:808::80ff:fffe", SM_INSIDE_LOOPBACK}, /* Teredo client 127.0.0.1 */
        {"2001:0:a00:5::80ff:fffe", SM_INSIDE_LOOPBACK},   /* the stricter of server and client */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++)
        check(rows[i].text, rows[i].kind);
    /* The neighbours of the prefixes embed nothing. */
    check("64:ff9a::10.0.0.5", SM_INSIDE_NONE);
    check("64:ff9b:2::10.0.0.5", SM_INSIDE_NONE);
    check("64:ff9b:0:0:1::10.0.0.5", SM_INSIDE_NONE);
    check("2003:a00:5::1", SM_INSIDE_NONE);
    check("2001:1:a00:5::1", SM_INSIDE_NONE);
    check("::1:0:10.0.0.5", SM_INSIDE_NONE);
    check("::fffe:10.0.0.5", SM_INSIDE_NONE);
}

static void no_address_is_not_public(void **state)
{
    assert_int_not_equal(sm_inside_kind(&(struct sm_addr){0}), SM_INSIDE_NONE);
}

static void classes(void **state)
{
    static const enum sm_inside_class expected[SM_INSIDE_KINDS] = {
        [SM_INSIDE_NONE] = SM_INSIDE_CLASS_PUBLIC,
        [SM_INSIDE_PRIVATE] = SM_INSIDE_CLASS_PIN,
        [SM_INSIDE_SHARED] = SM_INSIDE_CLASS_PIN,
        [SM_INSIDE_UNIQUE_LOCAL] = SM_INSIDE_CLASS_PIN,
        [SM_INSIDE_PROTOCOL] = SM_INSIDE_CLASS_RULE,
        [SM_INSIDE_BENCHMARK] = SM_INSIDE_CLASS_RULE,
        [SM_INSIDE_RESERVED] = SM_INSIDE_CLASS_RULE,
        [SM_INSIDE_SITE_LOCAL] = SM_INSIDE_CLASS_RULE,
        [SM_INSIDE_EXTRA] = SM_INSIDE_CLASS_RULE,
        [SM_INSIDE_LOOPBACK] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_THIS_NETWORK] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_LINK_LOCAL] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_METADATA] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_MULTICAST] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_BROADCAST] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_OWN] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_NETWORK] = SM_INSIDE_CLASS_SMALL_RULE,
        [SM_INSIDE_WORKSPACE] = SM_INSIDE_CLASS_NEVER,
        [SM_INSIDE_LISTENER] = SM_INSIDE_CLASS_NEVER,
    };
    for (int k = 0; k < SM_INSIDE_KINDS; k++) {
        assert_int_equal(sm_inside_class((enum sm_inside_kind)k), expected[k]);
        assert_string_not_equal(sm_inside_kind_name((enum sm_inside_kind)k), "?");
    }
    assert_int_equal(sm_inside_class(SM_INSIDE_KINDS), SM_INSIDE_CLASS_NEVER);
}

static void check_at(const struct sm_ground *g, const char *text, uint16_t port, enum sm_inside_kind kind,
                     enum sm_inside_class class)
{
    struct sm_endpoint dst = at(text, port);
    enum sm_inside_class got_class = SM_INSIDE_CLASSES;
    enum sm_inside_kind got = sm_ground_kind(g, &dst, &got_class);
    if (got != kind || got_class != class)
        fail_msg("%s:%u is %s (class %d), not %s (class %d)", text, (unsigned)port, sm_inside_kind_name(got),
                 (int)got_class, sm_inside_kind_name(kind), (int)class);
}

static void embedded_is_never_class_pin(void **state)
{
    check_at(NULL, "10.0.0.5", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_PIN);
    check_at(NULL, "fd12::5", 80, SM_INSIDE_UNIQUE_LOCAL, SM_INSIDE_CLASS_PIN);
    check_at(NULL, "::ffff:10.0.0.5", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_RULE);
    check_at(NULL, "2002:a00:5::1", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_RULE);
}

static void own_addresses(void **state)
{
    sm_cleanup(sm_ground_freep) struct sm_ground *g = sm_ground_new();
    const struct sm_addr own[] = {addr("203.0.113.5"), addr("192.168.1.10"), addr("2001:db8::5")};
    const struct sm_addr later[] = {addr("203.0.113.6")};

    check_at(g, "203.0.113.5", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    assert_true(sm_ground_set_own(g, own, 3));
    check_at(g, "203.0.113.5", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "192.168.1.10", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "192.168.1.11", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_PIN);
    check_at(g, "2001:db8::5", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "::ffff:203.0.113.5", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "2002:cb00:7105::1", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    /* Followed as they change: the set is replaced. */
    assert_true(sm_ground_set_own(g, later, 1));
    check_at(g, "203.0.113.5", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    check_at(g, "203.0.113.6", 80, SM_INSIDE_OWN, SM_INSIDE_CLASS_SMALL_RULE);
    assert_true(sm_ground_set_own(g, NULL, 0));
    check_at(g, "203.0.113.6", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
}

static void virtual_network(void **state)
{
    sm_cleanup(sm_ground_freep) struct sm_ground *g = sm_ground_new();
    struct sm_prefix net = range("10.0.2.0/24");
    struct sm_addr resolver = addr("10.0.2.3");

    sm_ground_set_network(g, &net, &resolver);
    check_at(g, "10.0.1.255", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_PIN);
    check_at(g, "10.0.2.0", 80, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "10.0.2.2", 80, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "10.0.2.255", 80, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "10.0.3.0", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_PIN);
    check_at(g, "10.0.2.3", 53, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    /* Another port of the resolver would be dialled on the host's own 10.0.2.3. */
    check_at(g, "10.0.2.3", 80, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "::ffff:10.0.2.2", 80, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    assert_true(sm_ground_is_resolver(g, &(struct sm_endpoint){resolver, 53}));
    assert_false(sm_ground_is_resolver(g, &(struct sm_endpoint){resolver, 54}));
    sm_ground_set_network(g, &net, NULL);
    check_at(g, "10.0.2.3", 53, SM_INSIDE_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    assert_false(sm_ground_is_resolver(g, &(struct sm_endpoint){{0}, 53}));
}

static void extra_ranges(void **state)
{
    sm_cleanup(sm_ground_freep) struct sm_ground *g = sm_ground_new();
    struct sm_prefix extra = range("198.51.100.0/25");

    assert_true(sm_ground_add_inside(g, &extra));
    check_at(g, "198.51.99.255", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    check_at(g, "198.51.100.0", 80, SM_INSIDE_EXTRA, SM_INSIDE_CLASS_RULE);
    check_at(g, "198.51.100.127", 80, SM_INSIDE_EXTRA, SM_INSIDE_CLASS_RULE);
    check_at(g, "198.51.100.128", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    check_at(g, "64:ff9b::198.51.100.1", 80, SM_INSIDE_EXTRA, SM_INSIDE_CLASS_RULE);
    for (size_t i = 1; i < SM_GROUND_EXTRA_MAX; i++)
        assert_true(sm_ground_add_inside(g, &extra));
    assert_false(sm_ground_add_inside(g, &extra));
}

static void east_west(void **state)
{
    sm_cleanup(sm_ground_freep) struct sm_ground *g = sm_ground_new();
    const struct sm_prefix others[] = {range("10.77.0.0/30"), range("203.0.113.77/32")};

    assert_true(sm_ground_set_workspaces(g, others, 2));
    check_at(g, "10.77.0.0", 80, SM_INSIDE_WORKSPACE, SM_INSIDE_CLASS_NEVER);
    check_at(g, "10.77.0.3", 80, SM_INSIDE_WORKSPACE, SM_INSIDE_CLASS_NEVER);
    check_at(g, "10.77.0.4", 80, SM_INSIDE_PRIVATE, SM_INSIDE_CLASS_PIN);
    check_at(g, "203.0.113.77", 80, SM_INSIDE_WORKSPACE, SM_INSIDE_CLASS_NEVER);
    check_at(g, "203.0.113.78", 80, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    check_at(g, "::ffff:10.77.0.1", 80, SM_INSIDE_WORKSPACE, SM_INSIDE_CLASS_NEVER);
}

static void own_listeners(void **state)
{
    sm_cleanup(sm_ground_freep) struct sm_ground *g = sm_ground_new();
    const struct sm_addr own[] = {addr("203.0.113.5")};
    const struct sm_endpoint listeners[] = {at("127.0.0.1", 8080), at("0.0.0.0", 9090), at("203.0.113.50", 0)};

    assert_true(sm_ground_set_own(g, own, 1));
    assert_true(sm_ground_set_listeners(g, listeners, 3));
    check_at(g, "127.0.0.1", 8080, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "127.0.0.1", 8081, SM_INSIDE_LOOPBACK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "127.0.0.2", 8080, SM_INSIDE_LOOPBACK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "0.0.0.0", 8080, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER); /* Linux: the same as 127.0.0.1 */
    check_at(g, "0.0.0.0", 7, SM_INSIDE_THIS_NETWORK, SM_INSIDE_CLASS_SMALL_RULE);
    check_at(g, "::", 8080, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "::ffff:127.0.0.1", 8080, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    /* A wildcard listener is met on every address of this host. */
    check_at(g, "127.9.9.9", 9090, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "203.0.113.5", 9090, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "203.0.113.6", 9090, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
    /* Port 0: every port of that address. */
    check_at(g, "203.0.113.50", 1, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "203.0.113.50", 65535, SM_INSIDE_LISTENER, SM_INSIDE_CLASS_NEVER);
    check_at(g, "203.0.113.51", 1, SM_INSIDE_NONE, SM_INSIDE_CLASS_PUBLIC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_range),   cmocka_unit_test(public_addresses),
        cmocka_unit_test(v4_inside_v6),  cmocka_unit_test(no_address_is_not_public),
        cmocka_unit_test(classes),       cmocka_unit_test(embedded_is_never_class_pin),
        cmocka_unit_test(own_addresses), cmocka_unit_test(virtual_network),
        cmocka_unit_test(extra_ranges),  cmocka_unit_test(east_west),
        cmocka_unit_test(own_listeners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
