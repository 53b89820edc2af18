/* SPDX-License-Identifier: BSD-3-Clause */
/* What the front answers by itself: ARP, DHCP, the gateway's echo. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <string.h>
#include <stdlib.h>

#include "frames.h"
#include "nat/arp.h"
#include "nat/dhcp.h"
#include "nat/echo.h"

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void test_arp(void **state)
{
    static struct buf b;
    uint8_t out[SM_ARP_REPLY_LEN];
    /* Gateway, resolver, and all that nobody has: they are refused by name of address, not by silence. */
    const uint32_t ours[] = {test_link.gateway, test_link.resolver, IP4(10, 0, 2, 4), IP4(10, 0, 2, 254)};

    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++) {
        arp_frame(&b, 1, test_link.guest, ours[i]);
        assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), SM_ARP_REPLY_LEN);
        assert_memory_equal(out, test_link.guest_mac, 6);
        assert_memory_equal(out + 6, test_link.our_mac, 6);
        assert_int_equal(out[21], 2);
        assert_memory_equal(out + 22, test_link.our_mac, 6);
        assert_int_equal(be32(out + 28), ours[i]);
        assert_memory_equal(out + 32, test_link.guest_mac, 6);
        assert_int_equal(be32(out + 38), test_link.guest);
    }
    /* A probe is answered by the owner only. */
    arp_frame(&b, 1, 0, test_link.gateway);
    assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), SM_ARP_REPLY_LEN);
    arp_frame(&b, 1, 0, IP4(10, 0, 2, 4));
    assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), 0);
    /* Its own address, whether probed for or announced, other subnets, both ends of ours, and answers. */
    arp_frame(&b, 1, 0, test_link.guest);
    assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), 0);
    arp_frame(&b, 1, test_link.guest, test_link.guest);
    assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), 0);
    const uint32_t not_ours[] = {IP4(10, 0, 3, 4), IP4(10, 0, 2, 0), IP4(10, 0, 2, 255), IP4(203, 0, 113, 1)};
    for (size_t i = 0; i < SM_ARRAY_LEN(not_ours); i++) {
        arp_frame(&b, 1, test_link.guest, not_ours[i]);
        assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), 0);
    }
    arp_frame(&b, 2, test_link.guest, test_link.gateway);
    assert_int_equal(sm_arp_answer(&test_link, b.data, b.len, out), 0);
    arp_frame(&b, 1, test_link.guest, test_link.gateway);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(sm_arp_answer(&test_link, b.data, n, out), 0);
}

static void test_echo(void **state)
{
    static struct buf b;
    static uint8_t out[2000];
    struct sm_echo echo = {0};

    echo_frame(&b, test_link.gateway, "ping!", 5);
    assert_int_equal(sm_echo_answer(&echo, &test_link, b.data, b.len, 0, out, sizeof(out)), SM_ETH_MIN);
    assert_memory_equal(out, test_link.guest_mac, 6);
    assert_int_equal(be32(out + 26), test_link.gateway);
    assert_int_equal(be32(out + 30), test_link.guest);
    assert_int_equal(sm_csum_fold(sm_csum_add(0, out + 14, 20)), 0);
    assert_int_equal(out[34], 0);
    assert_int_equal(sm_csum_fold(sm_csum_add(0, out + 34, 13)), 0);
    assert_memory_equal(out + 38, "\x12\x34\x00\x01ping!", 9);
    b.data[40] ^= 1;
    assert_int_equal(sm_echo_answer(&echo, &test_link, b.data, b.len, 0, out, sizeof(out)), 0);
    b.data[40] ^= 1;
    assert_int_equal(sm_echo_answer(&echo, &test_link, b.data, b.len, 0, out, SM_ETH_MIN - 1), 0);
}

static void test_echo_rate(void **state)
{
    static struct buf b;
    static uint8_t out[2000];
    struct sm_echo echo = {0};
    unsigned answered = 0;

    echo_frame(&b, test_link.gateway, "x", 1);
    for (int i = 0; i < 1000; i++)
        answered += sm_echo_answer(&echo, &test_link, b.data, b.len, 5, out, sizeof(out)) > 0;
    assert_int_equal(answered, SM_ECHO_BURST);
    answered = 0;
    for (int ms = 0; ms < 1000; ms++)
        for (int i = 0; i < 5; i++)
            answered += sm_echo_answer(&echo, &test_link, b.data, b.len, 5 + ms * 1000, out, sizeof(out)) > 0;
    assert_in_range(answered, SM_ECHO_RATE - 1, SM_ECHO_RATE);
    /* A clock that stands still or jumps far ahead never gives more than one burst. */
    answered = 0;
    for (int i = 0; i < 1000; i++)
        answered += sm_echo_answer(&echo, &test_link, b.data, b.len, INT64_MAX, out, sizeof(out)) > 0;
    assert_int_equal(answered, SM_ECHO_BURST);
}

static struct sm_dhcp dhcp;
static const struct sm_link *wire = &test_link;
static uint8_t out[SM_DHCP_FRAME_MAX];
static size_t out_len;
static enum sm_dhcp_type got;

static void ask(uint32_t ciaddr, uint16_t flags, const char *options, size_t len)
{
    static struct buf b;
    dhcp.link = *wire;
    dhcp_message(&b, ciaddr, flags, (const uint8_t *)options, len);
    uint8_t *exact = malloc(b.len);
    assert_non_null(exact);
    memcpy(exact, b.data, b.len);
    memset(out, 0xee, sizeof(out));
    out_len = sm_dhcp_answer(&dhcp, exact, b.len, &got, out);
    free(exact);
}
#define ASK(ciaddr, flags, options) ask(ciaddr, flags, options, sizeof(options) - 1)

/* The answer's option, or NULL; *len is its length. */
static const uint8_t *option(uint8_t code, size_t *len)
{
    size_t at = 42 + 240;
    while (at + 1 < out_len && out[at] != 255) {
        if (out[at] == 0) {
            at++;
            continue;
        }
        if (out[at] == code) {
            *len = out[at + 1];
            assert_true(at + 2 + *len <= out_len);
            return out + at + 2;
        }
        at += 2u + out[at + 1];
    }
    return NULL;
}

static void assert_answer(uint8_t type)
{
    size_t len;
    assert_true(out_len > 0);
    /* A well-formed frame: lengths and both checksums. */
    assert_int_equal(out[16] << 8 | out[17], out_len - 14);
    assert_int_equal(sm_csum_fold(sm_csum_add(0, out + 14, 20)), 0);
    assert_int_equal(out[38] << 8 | out[39], out_len - 34);
    assert_int_equal(transport_sum(be32(out + 26), be32(out + 30), 17, out + 34, out_len - 34), 0);
    assert_int_equal(out[35], 67);
    assert_int_equal(out[37], 68);
    assert_int_equal(out[42], 2);
    assert_int_equal(be32(out + 46), 0xdeadbeef);
    assert_true(out_len - 42 >= 300);
    const uint8_t *o = option(53, &len);
    assert_non_null(o);
    assert_int_equal(o[0], type);
    o = option(54, &len);
    assert_non_null(o);
    assert_int_equal(be32(o), test_link.gateway);
}

static void assert_u32(uint8_t code, uint32_t value)
{
    size_t len = 0;
    const uint8_t *o = option(code, &len);
    assert_non_null(o);
    assert_int_equal(len, 4);
    assert_int_equal(be32(o), value);
}

static void test_dhcp_offer(void **state)
{
    size_t len;

    g_strlcpy(dhcp.hostname, "ws1", sizeof(dhcp.hostname));
    ASK(0, 0, "\x35\x01\x01\x3d\x07\x01\x52\x54\x00\x12\x34\x56\xff");
    assert_int_equal(got, SM_DHCP_DISCOVER);
    assert_answer(2);
    assert_int_equal(be32(out + 42 + 16), test_link.guest);
    assert_u32(1, IP4(255, 255, 255, 0));
    assert_u32(3, test_link.gateway);
    assert_u32(6, test_link.resolver);
    assert_u32(28, IP4(10, 0, 2, 255));
    assert_u32(51, SM_DHCP_LEASE_S);
    const uint8_t *o = option(26, &len);
    assert_non_null(o);
    assert_int_equal(len, 2);
    assert_int_equal(o[0] << 8 | o[1], 1500);
    o = option(12, &len);
    assert_non_null(o);
    assert_int_equal(len, 3);
    assert_memory_equal(o, "ws1", 3);
    o = option(61, &len);
    assert_non_null(o);
    assert_int_equal(len, 7);
    dhcp.hostname[0] = '\0';
    /* To the address that it is given, unless it asks for a broadcast. */
    assert_memory_equal(out, test_link.guest_mac, 6);
    assert_int_equal(be32(out + 30), test_link.guest);
    ASK(0, 0x8000, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_int_equal(out[0], 0xff);
    assert_int_equal(be32(out + 30), UINT32_MAX);
    assert_null(option(12, &len));
    assert_null(option(61, &len));
}

static void assert_option(uint8_t code, const char *bytes, size_t len)
{
    size_t got_len = 0;
    const uint8_t *o = option(code, &got_len);
    assert_non_null(o);
    assert_int_equal(got_len, len);
    assert_memory_equal(o, bytes, len);
}

/* Routes other than the default one alone go into option 121, and the router option says no more than they do. */
static void test_dhcp_routes(void **state)
{
    struct sm_link l = test_link;
    size_t len;

    ASK(0, 0, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_u32(3, test_link.gateway);
    assert_null(option(121, &len));

    wire = &l;
    l.n_dns = 2;
    l.dns[1] = IP4(8, 8, 8, 8);
    l.n_routes = 4;
    l.routes[0] = (struct sm_link_route){IP4(172, 16, 0, 0), 12};
    l.routes[1] = (struct sm_link_route){0, 0};
    l.routes[2] = (struct sm_link_route){IP4(10, 1, 2, 3), 32};
    l.routes[3] = (struct sm_link_route){IP4(10, 9, 8, 0), 24};
    ASK(0, 0, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_u32(3, test_link.gateway);
    assert_option(6, "\x0a\x00\x02\x03\x08\x08\x08\x08", 8);
#define VIA "\x0a\x00\x02\x02"
    assert_option(121, "\x0c\xac\x10" VIA "\x00" VIA "\x20\x0a\x01\x02\x03" VIA "\x18\x0a\x09\x08" VIA, 7 + 5 + 9 + 8);

    l.routes[1] = (struct sm_link_route){IP4(100, 64, 0, 0), 10};
    ASK(0, 0, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_null(option(3, &len));
    assert_non_null(option(121, &len));

    l.n_routes = 0;
    ASK(0, 0, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_null(option(3, &len));
    assert_null(option(121, &len));
    wire = &test_link;
}

/* All at once at their longest: the host name gives way, and what the client cannot do without is there. */
static void test_dhcp_full(void **state)
{
    struct sm_link l = test_link;
    char options[3 + 2 + SM_DHCP_CLIENT_ID_MAX + 1] = "\x35\x01\x01\x3d";
    size_t len;

    options[4] = (char)SM_DHCP_CLIENT_ID_MAX;
    memset(options + 5, 'c', SM_DHCP_CLIENT_ID_MAX);
    options[sizeof(options) - 1] = (char)0xff;
    memset(dhcp.hostname, 'h', SM_DHCP_HOSTNAME_MAX);
    wire = &l;
    l.n_dns = SM_LINK_DNS_MAX;
    l.n_routes = SM_LINK_ROUTES_MAX;
    for (unsigned i = 0; i < SM_LINK_ROUTES_MAX; i++)
        l.routes[i] = (struct sm_link_route){IP4(10, 1, 2, i), 32};
    ask(0, 0, options, sizeof(options));
    assert_answer(2);
    assert_non_null(option(61, &len));
    assert_int_equal(len, SM_DHCP_CLIENT_ID_MAX);
    assert_non_null(option(121, &len));
    assert_int_equal(len, 9 * SM_LINK_ROUTES_MAX);
    assert_null(option(12, &len));
    ASK(0, 0, "\x35\x01\x01\xff");
    assert_answer(2);
    assert_non_null(option(12, &len));
    memset(dhcp.hostname, 0, sizeof(dhcp.hostname));
    wire = &test_link;
}

static void test_dhcp_request(void **state)
{
    size_t len;

    /* SELECTING us, another server, and us with another address. */
    ASK(0, 0, "\x35\x01\x03\x36\x04\x0a\x00\x02\x02\x32\x04\x0a\x00\x02\x0f\xff");
    assert_answer(5);
    assert_u32(51, SM_DHCP_LEASE_S);
    ASK(0, 0, "\x35\x01\x03\x36\x04\x0a\x00\x02\x09\x32\x04\x0a\x00\x02\x0f\xff");
    assert_int_equal(got, SM_DHCP_REQUEST);
    assert_int_equal(out_len, 0);
    ASK(0, 0, "\x35\x01\x03\x36\x04\x0a\x00\x02\x02\x32\x04\x0a\x00\x02\x10\xff");
    assert_answer(6);
    assert_int_equal(be32(out + 30), UINT32_MAX);
    assert_int_equal(be32(out + 42 + 16), 0);
    assert_null(option(51, &len));
    /* INIT-REBOOT. */
    ASK(0, 0, "\x35\x01\x03\x32\x04\x0a\x00\x02\x0f\xff");
    assert_answer(5);
    ASK(0, 0, "\x35\x01\x03\x32\x04\xc0\xa8\x01\x05\xff");
    assert_answer(6);
    /* RENEWING. */
    ASK(test_link.guest, 0x8000, "\x35\x01\x03\xff");
    assert_answer(5);
    assert_int_equal(be32(out + 30), test_link.guest);
    assert_int_equal(be32(out + 42 + 12), test_link.guest);
    ASK(IP4(10, 0, 2, 77), 0, "\x35\x01\x03\xff");
    assert_answer(6);
    ASK(0, 0, "\x35\x01\x03\xff");
    assert_int_equal(out_len, 0);
}

static void test_dhcp_others(void **state)
{
    size_t len;

    ASK(test_link.guest, 0, "\x35\x01\x08\xff");
    assert_answer(5);
    assert_int_equal(be32(out + 42 + 16), 0);
    assert_null(option(51, &len));
    ASK(IP4(1, 2, 3, 4), 0, "\x35\x01\x08\xff");
    assert_int_equal(out_len, 0);
    ASK(test_link.guest, 0, "\x35\x01\x07\xff");
    assert_int_equal(got, SM_DHCP_RELEASE);
    assert_int_equal(out_len, 0);
    ASK(0, 0, "\x35\x01\x04\x32\x04\x0a\x00\x02\x0f\xff");
    assert_int_equal(got, SM_DHCP_DECLINE);
    assert_int_equal(out_len, 0);
    /* A server's messages, an unknown one, none, two, and options that lie. */
    static const struct {
        const char *options;
        size_t len;
    } bad[] = {
        {"\x35\x01\x02\xff", 4},
        {"\x35\x01\x05\xff", 4},
        {"\x35\x01\x63\xff", 4},
        {"\xff", 1},
        {"\x35\x01\x00\xff", 4},
        {"\x35\x02\x01\x01", 4},
        {"\x35\x01\x01\x35\x01\x01", 6},
        {"\x35\x01\x01\x32\x05\x0a", 6},
        {"\x35\x01\x01\x32\x03\x0a\x00\x02", 8},
        {"\x35\x01\x01\x36", 4},
        {"\x35", 1},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        ask(0, 0, bad[i].options, bad[i].len);
        assert_int_equal(out_len, 0);
    }
}

/* Somebody else's message, a relay's, a reply, another hardware; and every truncation. */
static void test_dhcp_header(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } rows[] = {{0, 2}, {1, 6}, {2, 7}, {24, 1}, {27, 9}, {28, 0x50}, {33, 0x57}, {236, 0}, {239, 0x62}};
    static struct buf b, ok;

    dhcp.link = test_link;
    dhcp_message(&ok, 0, 0, (const uint8_t *)"\x35\x01\x01", 3);
    assert_true(sm_dhcp_answer(&dhcp, ok.data, ok.len, NULL, out) > 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        memcpy(&b, &ok, sizeof(b));
        b.data[rows[i].at] = rows[i].value;
        assert_int_equal(sm_dhcp_answer(&dhcp, b.data, b.len, &got, out), 0);
        assert_int_equal(got, SM_DHCP_NONE);
    }
    for (size_t n = 0; n < ok.len; n++)
        assert_int_equal(sm_dhcp_answer(&dhcp, ok.data, n, &got, out), 0);
}

/* The longest identifier that is echoed fits beside the longest name; a longer one is left out. */
static void test_dhcp_longest(void **state)
{
    char options[3 + 2 + 255] = "\x35\x01\x01\x3d";
    size_t len;

    memset(dhcp.hostname, 'h', SM_DHCP_HOSTNAME_MAX);
    options[4] = (char)SM_DHCP_CLIENT_ID_MAX;
    ask(0, 0, options, 5 + SM_DHCP_CLIENT_ID_MAX);
    assert_answer(2);
    assert_non_null(option(61, &len));
    assert_int_equal(len, SM_DHCP_CLIENT_ID_MAX);
    assert_non_null(option(12, &len));
    assert_int_equal(len, SM_DHCP_HOSTNAME_MAX);
    options[4] = (char)255;
    ask(0, 0, options, sizeof(options));
    assert_answer(2);
    assert_null(option(61, &len));
    memset(dhcp.hostname, 0, sizeof(dhcp.hostname));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arp),          cmocka_unit_test(test_echo),        cmocka_unit_test(test_echo_rate),
        cmocka_unit_test(test_dhcp_offer),   cmocka_unit_test(test_dhcp_routes), cmocka_unit_test(test_dhcp_full),
        cmocka_unit_test(test_dhcp_request), cmocka_unit_test(test_dhcp_others), cmocka_unit_test(test_dhcp_header),
        cmocka_unit_test(test_dhcp_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
