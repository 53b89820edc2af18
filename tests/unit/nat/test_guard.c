/* SPDX-License-Identifier: BSD-3-Clause */
/* The guard against its table: each row spoils one thing in a good frame and names the reason that must be found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "nat/guard.h"

#define WORLD IP4(203, 0, 113, 7)
#define GUEST test_link.guest

static struct sm_guard guard;

static struct sm_guard_verdict judge_at(const struct buf *b, int64_t now_us)
{
    /* An exact copy on the heap: a byte read too far is seen by the sanitizer build. */
    uint8_t *exact = malloc(b->len ? b->len : 1);
    assert_non_null(exact);
    memcpy(exact, b->data, b->len);
    struct sm_frame f = {.data = exact, .cap = b->len, .len = b->len};
    struct sm_guard_verdict v = sm_guard_judge(&guard, &f, now_us);
    free(exact);
    return v;
}

static struct sm_guard_verdict judge(const struct buf *b)
{
    return judge_at(b, 0);
}

static int setup(void **state)
{
    sm_guard_init(&guard, &test_link, 0);
    return 0;
}

#define assert_passes(b, what) assert_string_equal(sm_guard_action_name(judge(b).action), sm_guard_action_name(what))
#define assert_reason(b, why)                                                                                          \
    do {                                                                                                               \
        struct sm_guard_verdict v_ = judge(b);                                                                         \
        assert_string_equal(sm_guard_reason_name(v_.reason), sm_guard_reason_name(why));                               \
        assert_true(v_.action == SM_GUARD_DROP || v_.action == SM_GUARD_REPORT);                                       \
    } while (0)

static void good_syn(struct buf *b)
{
    tcp_frame(b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_SYN, NULL, 0);
}

static void good_udp(struct buf *b)
{
    udp_frame(b, GUEST, WORLD, 40000, 443, "hello", 5);
}

static void test_good(void **state)
{
    static struct buf b;

    good_syn(&b);
    struct sm_guard_verdict v = judge(&b);
    assert_int_equal(v.action, SM_GUARD_PASS_IP);
    assert_int_equal(v.l4, 34);
    assert_int_equal(v.frame_len, b.len);
    good_udp(&b);
    assert_passes(&b, SM_GUARD_PASS_IP);
    /* Padding behind the packet is not part of it. */
    size_t whole = b.len;
    memset(b.data + b.len, 0xaa, 20);
    b.len += 20;
    assert_int_equal(judge(&b).frame_len, whole);
    arp_frame(&b, 1, GUEST, test_link.gateway);
    assert_passes(&b, SM_GUARD_PASS_ARP);
    arp_frame(&b, 1, 0, test_link.gateway);
    assert_passes(&b, SM_GUARD_PASS_ARP);
    echo_frame(&b, test_link.gateway, "abc", 3);
    assert_passes(&b, SM_GUARD_PASS_ECHO);
    /* Inside addresses are the core's to refuse, not the guard's. */
    tcp_frame(&b, GUEST, IP4(127, 0, 0, 1), 40000, 80, 1, 0, TCP_SYN, NULL, 0);
    assert_passes(&b, SM_GUARD_PASS_IP);
    tcp_frame(&b, GUEST, IP4(169, 254, 169, 254), 40000, 80, 1, 0, TCP_SYN, NULL, 0);
    assert_passes(&b, SM_GUARD_PASS_IP);
    tcp_frame(&b, GUEST, 0, 40000, 80, 1, 0, TCP_SYN, NULL, 0);
    assert_passes(&b, SM_GUARD_PASS_IP);
}

static void test_largest(void **state)
{
    static struct buf b;
    static uint8_t data[1500];

    udp_frame(&b, GUEST, WORLD, 1, 2, data, 1472);
    assert_int_equal(b.len, 1514);
    assert_passes(&b, SM_GUARD_PASS_IP);
    udp_frame(&b, GUEST, WORLD, 1, 2, data, 1473);
    assert_reason(&b, SM_GUARD_OVERSIZE);
}

static void test_dhcp(void **state)
{
    static struct buf m, b;

    dhcp_message(&m, 0, 0, (const uint8_t *)"\x35\x01\x01\xff", 4);
    udp_frame(&b, 0, UINT32_MAX, 68, 67, m.data, m.len);
    memset(b.data, 0xff, 6);
    struct sm_guard_verdict v = judge(&b);
    assert_int_equal(v.action, SM_GUARD_PASS_DHCP);
    assert_int_equal(v.l4, 42);
    assert_int_equal(v.frame_len - v.l4, m.len);
    udp_frame(&b, GUEST, test_link.gateway, 68, 67, m.data, m.len);
    assert_passes(&b, SM_GUARD_PASS_DHCP);
    /* Only to us or to everybody, and never with a stranger's address. */
    udp_frame(&b, GUEST, WORLD, 68, 67, m.data, m.len);
    assert_passes(&b, SM_GUARD_PASS_IP);
    udp_frame(&b, IP4(10, 0, 2, 16), UINT32_MAX, 68, 67, m.data, m.len);
    assert_reason(&b, SM_GUARD_IP_SOURCE);
    udp_frame(&b, 0, UINT32_MAX, 68, 68, m.data, m.len);
    assert_reason(&b, SM_GUARD_IP_SOURCE);
    tcp_frame(&b, 0, WORLD, 68, 67, 1, 0, TCP_SYN, NULL, 0);
    assert_reason(&b, SM_GUARD_IP_SOURCE);
}

/* Every prefix of every kind of frame: only the whole one passes, and nothing is read behind the end. */
static void test_truncated(void **state)
{
    static struct buf b, cut;

    for (int kind = 0; kind < 5; kind++) {
        switch (kind) {
        case 0:
            good_syn(&b);
            break;
        case 1:
            good_udp(&b);
            break;
        case 2:
            arp_frame(&b, 1, GUEST, test_link.gateway);
            break;
        case 3:
            echo_frame(&b, test_link.gateway, "abc", 3);
            break;
        default: {
            static struct buf m;
            dhcp_message(&m, 0, 0, (const uint8_t *)"\x35\x01\x01\xff", 4);
            udp_frame(&b, GUEST, test_link.gateway, 68, 67, m.data, m.len);
        }
        }
        for (size_t n = 0; n < b.len; n++) {
            memcpy(cut.data, b.data, n);
            cut.len = n;
            enum sm_guard_action a = judge(&cut).action;
            assert_true(a == SM_GUARD_DROP || a == SM_GUARD_REPORT);
        }
        enum sm_guard_action a = judge(&b).action;
        assert_true(a != SM_GUARD_DROP && a != SM_GUARD_REPORT);
    }
}

/* One byte changed at an offset from a good SYN. */
static void test_one_byte(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        enum sm_guard_reason reason;
    } rows[] = {
        {6, 0x54, SM_GUARD_SRC_MAC},    {11, 0x57, SM_GUARD_SRC_MAC},   {5, 0x03, SM_GUARD_DST_MAC},
        {0, 0xff, SM_GUARD_DST_MAC},    {12, 0x81, SM_GUARD_VLAN},      {12, 0x88, SM_GUARD_ETHERTYPE},
        {13, 0x05, SM_GUARD_ETHERTYPE}, {14, 0x65, SM_GUARD_IP_HEADER}, {14, 0x44, SM_GUARD_IP_HEADER},
        {14, 0x4f, SM_GUARD_IP_LENGTH}, {16, 0xff, SM_GUARD_IP_LENGTH}, {17, 19, SM_GUARD_IP_LENGTH},
        {17, 45, SM_GUARD_IP_LENGTH},   {17, 39, SM_GUARD_L4_HEADER},   {29, 16, SM_GUARD_IP_SOURCE},
        {26, 127, SM_GUARD_IP_SOURCE},  {23, 2, SM_GUARD_IP_PROTO},     {23, 41, SM_GUARD_IP_PROTO},
        {23, 1, SM_GUARD_ICMP},         {23, 132, SM_GUARD_IP_PROTO},   {30, 224, SM_GUARD_GROUP},
        {30, 239, SM_GUARD_GROUP},      {46, 0x40, SM_GUARD_L4_HEADER}, {46, 0x70, SM_GUARD_L4_HEADER},
    };
    static struct buf b;

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        good_syn(&b);
        b.data[rows[i].at] = rows[i].value;
        if (rows[i].reason == SM_GUARD_VLAN)
            b.data[13] = 0;
        assert_reason(&b, rows[i].reason);
    }
}

static void test_reported_as(void **state)
{
    static struct buf b;
    struct sm_guard_verdict v;

    echo_frame(&b, WORLD, "abc", 3);
    v = judge(&b);
    assert_int_equal(v.action, SM_GUARD_REPORT);
    assert_int_equal(v.other, SM_OTHER_ICMP);
    assert_int_equal(v.proto, 1);
    assert_int_equal(sm_addr_to_u32(&v.dst), WORLD);

    good_syn(&b);
    b.data[23] = 47;
    v = judge(&b);
    assert_int_equal(v.other, SM_OTHER_PROTO);
    assert_int_equal(v.proto, 47);

    good_syn(&b);
    b.data[7] ^= 1;
    v = judge(&b);
    assert_int_equal(v.action, SM_GUARD_REPORT);
    assert_int_equal(v.other, SM_OTHER_SPOOFED);
    assert_int_equal(v.dst.family, SM_FAMILY_NONE);

    /* IPv6: the destination is taken from its header, when it is there. */
    memset(&b, 0, sizeof(b));
    good_syn(&b);
    sm_put_u16(b.data + 12, SM_ETHERTYPE_IPV6);
    b.len = 54;
    memset(b.data + 14, 0, 40);
    b.data[14] = 0x60;
    b.data[20] = 58;
    b.data[38] = 0xff;
    b.data[39] = 0x02;
    b.data[53] = 0x16;
    v = judge(&b);
    assert_int_equal(v.action, SM_GUARD_REPORT);
    assert_int_equal(v.other, SM_OTHER_IPV6);
    assert_int_equal(v.proto, 58);
    char text[SM_ADDR_STRLEN];
    assert_string_equal(sm_addr_format(&v.dst, text), "ff02::16");
    b.len = 53;
    v = judge(&b);
    assert_int_equal(v.other, SM_OTHER_IPV6);
    assert_int_equal(v.dst.family, SM_FAMILY_NONE);
}

static void test_broadcast(void **state)
{
    static struct buf b;

    udp_frame(&b, GUEST, IP4(10, 0, 2, 255), 137, 137, "x", 1);
    assert_reason(&b, SM_GUARD_GROUP);
    udp_frame(&b, GUEST, IP4(10, 0, 2, 0), 137, 137, "x", 1);
    assert_reason(&b, SM_GUARD_GROUP);
    udp_frame(&b, GUEST, IP4(224, 0, 0, 251), 5353, 5353, "x", 1);
    assert_reason(&b, SM_GUARD_GROUP);
    udp_frame(&b, GUEST, IP4(255, 255, 255, 255), 137, 137, "x", 1);
    assert_reason(&b, SM_GUARD_GROUP);
    /* Class E but for the last address is a place that one can connect to. */
    udp_frame(&b, GUEST, IP4(240, 0, 0, 5), 137, 137, "x", 1);
    assert_passes(&b, SM_GUARD_PASS_IP);
    udp_frame(&b, GUEST, IP4(255, 255, 255, 254), 137, 137, "x", 1);
    assert_passes(&b, SM_GUARD_PASS_IP);
    /* A unicast packet in a broadcast frame. */
    good_udp(&b);
    memset(b.data, 0xff, 6);
    assert_reason(&b, SM_GUARD_DST_MAC);
    udp_frame(&b, GUEST, GUEST, 1, 1, "x", 1);
    assert_reason(&b, SM_GUARD_IP_LAND);
    udp_frame(&b, GUEST, WORLD, 1, 0, "x", 1);
    assert_reason(&b, SM_GUARD_PORT_ZERO);
}

static void test_udp_length(void **state)
{
    static struct buf b;

    good_udp(&b);
    sm_put_u16(b.data + 38, 7);
    assert_reason(&b, SM_GUARD_L4_HEADER);
    sm_put_u16(b.data + 38, 14);
    assert_reason(&b, SM_GUARD_L4_HEADER);
    sm_put_u16(b.data + 38, 0xffff);
    assert_reason(&b, SM_GUARD_L4_HEADER);
}

static void with_options(struct buf *b, const uint8_t *options, size_t len)
{
    static struct buf plain;
    good_udp(&plain);
    memcpy(b->data, plain.data, 34);
    memcpy(b->data + 34, options, len);
    memcpy(b->data + 34 + len, plain.data + 34, plain.len - 34);
    b->len = plain.len + len;
    b->data[14] = (uint8_t)(0x40 | (5 + len / 4));
    sm_put_u16(b->data + 16, (uint16_t)(b->len - 14));
}

static void test_options(void **state)
{
    static struct buf b;

    with_options(&b, (const uint8_t *)"\x01\x01\x01\x00", 4);
    assert_passes(&b, SM_GUARD_PASS_IP);
    with_options(&b, (const uint8_t *)"\x94\x04\x00\x00", 4); /* router alert */
    assert_passes(&b, SM_GUARD_PASS_IP);
    with_options(&b, (const uint8_t *)"\x83\x07\x04\x01\x02\x03\x04\x00", 8); /* loose source route */
    assert_reason(&b, SM_GUARD_IP_OPTIONS);
    with_options(&b, (const uint8_t *)"\x01\x89\x07\x04\x01\x02\x03\x04", 8); /* strict, behind a no-op */
    assert_reason(&b, SM_GUARD_IP_OPTIONS);
    with_options(&b, (const uint8_t *)"\x07\x05\x04\x00", 4); /* longer than the header */
    assert_reason(&b, SM_GUARD_IP_OPTIONS);
    with_options(&b, (const uint8_t *)"\x07\x00\x04\x00", 4); /* length 0 loops in careless parsers */
    assert_reason(&b, SM_GUARD_IP_OPTIONS);
    with_options(&b, (const uint8_t *)"\x01\x01\x01\x07", 4); /* no length */
    assert_reason(&b, SM_GUARD_IP_OPTIONS);
}

static enum sm_guard_reason fragment(uint8_t proto, uint16_t id, size_t offset, size_t len, bool more, int64_t now_us)
{
    static struct buf b;
    static uint8_t payload[1480];
    payload[12] = 0x50;
    ip_frame(&b, GUEST, WORLD, proto, id, (uint16_t)(offset / 8 | (more ? SM_IP_MF : 0)), payload, len);
    return judge_at(&b, now_us).reason;
}

static void test_fragments(void **state)
{
    /* In order, then in reverse. */
    assert_int_equal(fragment(17, 1, 0, 1480, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 1, 1480, 100, false, 0), SM_GUARD_NONE);
    assert_int_equal(guard.frags.used, 0);
    assert_int_equal(fragment(17, 2, 1480, 100, false, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 2, 0, 1480, true, 0), SM_GUARD_NONE);
    assert_int_equal(guard.frags.used, 0);
    assert_int_equal(guard.frags.bytes, 0);
    /* A repeat is dropped alone and does no harm. */
    assert_int_equal(fragment(17, 3, 0, 1480, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 3, 0, 1480, true, 0), SM_GUARD_FRAG_REPEAT);
    assert_int_equal(fragment(17, 3, 1480, 8, false, 0), SM_GUARD_NONE);
    assert_int_equal(guard.frags.used, 0);
    /* The tiny first fragment, and the one that writes over the header (RFC 1858). */
    assert_int_equal(fragment(6, 4, 0, 16, true, 0), SM_GUARD_FRAG_TINY);
    assert_int_equal(fragment(6, 4, 8, 16, true, 0), SM_GUARD_FRAG_TINY);
    assert_int_equal(fragment(6, 4, 56, 16, true, 0), SM_GUARD_FRAG_TINY);
    assert_int_equal(fragment(17, 5, 0, 0, true, 0), SM_GUARD_FRAG_ALIGN);
    assert_int_equal(fragment(17, 5, 0, 12, true, 0), SM_GUARD_FRAG_ALIGN);
    /* Ping of death. */
    assert_int_equal(fragment(17, 6, 65528, 8, false, 0), SM_GUARD_FRAG_TOO_LONG);
    assert_int_equal(fragment(17, 6, 65512, 4, false, 0), SM_GUARD_FRAG_TOO_LONG);
}

static void test_overlap(void **state)
{
    /* In part: the datagram is spoilt for good. */
    assert_int_equal(fragment(17, 1, 0, 800, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 1, 792, 16, true, 0), SM_GUARD_FRAG_OVERLAP);
    assert_int_equal(fragment(17, 1, 800, 8, false, 0), SM_GUARD_FRAG_OVERLAP);
    /* Teardrop: the second lies inside the first but ends the datagram early. */
    assert_int_equal(fragment(17, 2, 0, 800, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 2, 24, 4, false, 0), SM_GUARD_FRAG_OVERLAP);
    /* Two ends. */
    assert_int_equal(fragment(17, 3, 800, 100, false, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 3, 1600, 100, false, 0), SM_GUARD_FRAG_OVERLAP);
    /* Behind the end. */
    assert_int_equal(fragment(17, 4, 800, 104, false, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 4, 904, 8, true, 0), SM_GUARD_FRAG_OVERLAP);
    /* The end comes last and lies before what came. */
    assert_int_equal(fragment(17, 5, 1600, 800, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 5, 800, 8, false, 0), SM_GUARD_FRAG_OVERLAP);
}

static void test_fragment_bounds(void **state)
{
    for (uint16_t i = 0; i < SM_FRAGS_MAX; i++)
        assert_int_equal(fragment(17, (uint16_t)(100 + i), 0, 8, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 99, 0, 8, true, 0), SM_GUARD_FRAG_FULL);
    /* Time makes room. */
    assert_int_equal(fragment(17, 99, 0, 8, true, SM_FRAGS_LIFE_US - 1), SM_GUARD_FRAG_FULL);
    assert_int_equal(fragment(17, 99, 0, 8, true, SM_FRAGS_LIFE_US), SM_GUARD_NONE);
    assert_int_equal(guard.frags.used, 1);
    assert_int_equal(guard.frags.bytes, 8);

    /* Pieces of one datagram. */
    sm_guard_init(&guard, &test_link, 0);
    for (size_t i = 0; i < SM_FRAGS_PIECES_MAX; i++)
        assert_int_equal(fragment(17, 1, i * 8, 8, true, 0), SM_GUARD_NONE);
    assert_int_equal(fragment(17, 1, 8 * SM_FRAGS_PIECES_MAX, 8, true, 0), SM_GUARD_FRAG_FULL);

    /* Bytes of all of them. */
    sm_guard_init(&guard, &test_link, 0);
    unsigned passed = 0;
    for (uint16_t id = 0; id < SM_FRAGS_MAX; id++)
        for (size_t i = 0; i < 44; i++)
            passed += fragment(17, id, i * 1480, 1480, true, 0) == SM_GUARD_NONE;
    assert_true(passed * 1480 <= SM_FRAGS_BYTES_MAX);
    assert_true(passed * 1480 > SM_FRAGS_BYTES_MAX - 1480);
}

/* ---- what goes with a frame beside its bytes ---- */

#define CSUM SM_OFFLOAD_NEEDS_CSUM
#define OK SM_OFFLOAD_CSUM_OK
#define ECN SM_OFFLOAD_ECN
#define TSO SM_OFFLOAD_GSO(SM_GSO_TCPV4)
#define EVERYTHING (CSUM | OK | ECN | TSO)

enum kind { SYN, BIG, BIG_CWR, UDP, DHCP, ECHO, FRAGMENT, ARP, IPV6, KINDS };

static void make(enum kind kind, struct buf *b)
{
    static uint8_t data[65495];
    static struct buf m;

    switch (kind) {
    case SYN: /* 34 + 24 */
        good_syn(b);
        break;
    case BIG: /* 34 + 20 + 60000 */
        tcp_frame(b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_ACK, data, 60000);
        break;
    case BIG_CWR:
        tcp_frame(b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_ACK | SM_TCP_CWR, data, 60000);
        break;
    case UDP: /* 34 + 8 + 5 */
        good_udp(b);
        break;
    case DHCP:
        dhcp_message(&m, 0, 0, (const uint8_t *)"\x35\x01\x01\xff", 4);
        udp_frame(b, GUEST, test_link.gateway, 68, 67, m.data, m.len);
        break;
    case ECHO:
        echo_frame(b, test_link.gateway, data, 100);
        break;
    case FRAGMENT:
        ip_frame(b, GUEST, WORLD, SM_IPPROTO_UDP, 5, SM_IP_MF, data, 1480);
        break;
    case ARP:
        arp_frame(b, 1, GUEST, test_link.gateway);
        break;
    case IPV6:
        good_syn(b);
        sm_put_u16(b->data + 12, SM_ETHERTYPE_IPV6);
        break;
    case KINDS:
        fail();
    }
}

#define PASSES SM_GUARD_NONE
#define REFUSED SM_GUARD_OFFLOAD

/* What each frame may say of itself, when what is in rx was negotiated. */
static const struct offload_row {
    const char *what;
    enum kind kind;
    uint32_t rx;
    struct sm_offload o;
    enum sm_guard_reason reason;
} offload_rows[] = {
#define META(f, type, size, hdr, start, offset)                                                                        \
    {                                                                                                                  \
        .flags = (f), .gso_type = (type), .gso_size = (size), .hdr_len = (hdr), .csum_start = (start),                 \
        .csum_offset = (offset)                                                                                        \
    }
#define GSO SM_GSO_TCPV4
    {"nothing", SYN, EVERYTHING, META(0, 0, 0, 0, 0, 0), PASSES},
    {"noise without a flag means nothing", SYN, 0, META(0, 0, 77, 0xffff, 0xffff, 0xffff), PASSES},
    {"a partial sum", SYN, CSUM, META(CSUM, 0, 0, 0, 34, 16), PASSES},
    {"... with a hint", SYN, CSUM, META(CSUM, 0, 0, 58, 34, 16), PASSES},
    {"... of UDP", UDP, CSUM, META(CSUM, 0, 0, 0, 34, 6), PASSES},
    {"... of DHCP", DHCP, CSUM, META(CSUM, 0, 0, 0, 34, 6), PASSES},
    {"a sum that was checked", SYN, OK, META(OK, 0, 0, 0, 0, 0), PASSES},
    {"... of what has none", ARP, OK, META(OK, 0, 0, 0, 0, 0), PASSES},
    {"a fragment whose sum was checked", FRAGMENT, OK, META(OK, 0, 0, 0, 0, 0), PASSES},
    {"a packet to be cut", BIG, EVERYTHING, META(CSUM, GSO, 1460, 54, 34, 16), PASSES},
    {"... in tiny pieces", BIG, EVERYTHING, META(CSUM, GSO, 1, 54, 34, 16), PASSES},
    {"... with more than the headers up front", BIG, EVERYTHING, META(CSUM, GSO, 1460, 1000, 34, 16), PASSES},
    {"... with CWR in its first", BIG_CWR, EVERYTHING, META(CSUM | ECN, GSO, 1460, 54, 34, 16), PASSES},
    {"... that is one piece", SYN, EVERYTHING, META(CSUM, GSO, 0, 58, 34, 16), REFUSED},

    {"no partial sum was agreed", SYN, OK | TSO, META(CSUM, 0, 0, 0, 34, 16), REFUSED},
    {"no checked sum was agreed", SYN, CSUM | TSO, META(OK, 0, 0, 0, 0, 0), REFUSED},
    {"no cutting was agreed", BIG, CSUM | OK | ECN, META(CSUM, GSO, 1460, 54, 34, 16), REFUSED},
    {"no ECN was agreed", BIG_CWR, CSUM | TSO, META(CSUM | ECN, GSO, 1460, 54, 34, 16), REFUSED},
    {"a port without any", BIG, 0, META(CSUM, GSO, 1460, 54, 34, 16), REFUSED},
    {"a flag without a name", SYN, EVERYTHING, META(SM_OFFLOAD_BAD, 0, 0, 0, 0, 0), REFUSED},
    {"... beside a good one", SYN, EVERYTHING, META(CSUM | SM_OFFLOAD_BAD, 0, 0, 0, 34, 16), REFUSED},
    {"another flag", SYN, EVERYTHING, META(0x40, 0, 0, 0, 0, 0), REFUSED},
    {"a type without a name", BIG, EVERYTHING, META(CSUM, SM_GSO_COUNT, 1460, 54, 34, 16), REFUSED},
    {"... far away", BIG, EVERYTHING, META(CSUM, 255, 1460, 54, 34, 16), REFUSED},
    {"ECN without a type", BIG_CWR, EVERYTHING, META(CSUM | ECN, 0, 1460, 54, 34, 16), SM_GUARD_OVERSIZE},
    {"... on a short one", SYN, EVERYTHING, META(CSUM | ECN, 0, 0, 0, 34, 16), REFUSED},
    {"ECN without CWR", BIG, EVERYTHING, META(CSUM | ECN, GSO, 1460, 54, 34, 16), REFUSED},

    {"csum_start before the header", SYN, CSUM, META(CSUM, 0, 0, 0, 33, 16), REFUSED},
    {"... behind it", SYN, CSUM, META(CSUM, 0, 0, 0, 35, 16), REFUSED},
    {"... at the IP header", SYN, CSUM, META(CSUM, 0, 0, 0, 14, 16), REFUSED},
    {"... zero", SYN, CSUM, META(CSUM, 0, 0, 0, 0, 16), REFUSED},
    {"... at the end (CVE-2024-11614)", SYN, CSUM, META(CSUM, 0, 0, 0, 58, 16), REFUSED},
    {"... one behind what is left", SYN, CSUM, META(CSUM, 0, 0, 0, 41, 16), REFUSED},
    {"... as far as it goes", SYN, CSUM, META(CSUM, 0, 0, 0, 0xffff, 0xffff), REFUSED},
    {"a sum that wraps around to the right place", SYN, CSUM, META(CSUM, 0, 0, 0, 0xfff0, 66), REFUSED},
    {"the right place by another way", SYN, CSUM, META(CSUM, 0, 0, 0, 14, 36), REFUSED},
    {"UDP's place in TCP", SYN, CSUM, META(CSUM, 0, 0, 0, 34, 6), REFUSED},
    {"TCP's place in UDP", UDP, CSUM, META(CSUM, 0, 0, 0, 34, 16), REFUSED},
    {"... in DHCP", DHCP, CSUM, META(CSUM, 0, 0, 0, 34, 16), REFUSED},
    {"csum_offset zero", SYN, CSUM, META(CSUM, 0, 0, 0, 34, 0), REFUSED},
    {"... behind the packet", UDP, CSUM, META(CSUM, 0, 0, 0, 34, 12), REFUSED},
    {"a partial sum of ICMP", ECHO, CSUM, META(CSUM, 0, 0, 0, 34, 2), REFUSED},
    {"... of a fragment", FRAGMENT, CSUM, META(CSUM, 0, 0, 0, 34, 6), REFUSED},
    {"... of ARP", ARP, CSUM, META(CSUM, 0, 0, 0, 34, 6), REFUSED},
    {"IPv6 is refused as what it is", IPV6, CSUM, META(CSUM, 0, 0, 0, 54, 16), SM_GUARD_IPV6},

    {"gso_size zero", BIG, EVERYTHING, META(CSUM, GSO, 0, 54, 34, 16), REFUSED},
    {"... too long for the link", BIG, EVERYTHING, META(CSUM, GSO, 1461, 54, 34, 16), REFUSED},
    {"... more than there is", BIG, EVERYTHING, META(CSUM, GSO, 60001, 54, 34, 16), REFUSED},
    {"... as much as there can be", BIG, EVERYTHING, META(CSUM, GSO, 0xffff, 54, 34, 16), REFUSED},
    {"... of a packet without data", SYN, EVERYTHING, META(CSUM, GSO, 1460, 58, 34, 16), REFUSED},
    {"cutting without summing", BIG, EVERYTHING, META(0, GSO, 1460, 54, 34, 16), REFUSED},
    {"... with a sum that was checked", BIG, EVERYTHING, META(OK, GSO, 1460, 54, 34, 16), REFUSED},
    {"UDP to be cut", UDP, EVERYTHING, META(CSUM, GSO, 2, 42, 34, 6), REFUSED},
    {"DHCP to be cut", DHCP, EVERYTHING, META(CSUM, GSO, 100, 42, 34, 6), REFUSED},
    {"ICMP to be cut", ECHO, EVERYTHING, META(CSUM, GSO, 50, 42, 34, 2), REFUSED},
    {"ARP to be cut", ARP, EVERYTHING, META(CSUM, GSO, 10, 42, 34, 16), REFUSED},
    {"a fragment to be cut", FRAGMENT, EVERYTHING, META(CSUM, GSO, 100, 42, 34, 6), REFUSED},
    {"IPv6 to be cut", IPV6, EVERYTHING, META(CSUM, GSO, 1440, 74, 54, 16), SM_GUARD_IPV6},
    {"hdr_len inside the headers", BIG, EVERYTHING, META(CSUM, GSO, 1460, 53, 34, 16), REFUSED},
    {"... zero", BIG, EVERYTHING, META(CSUM, GSO, 1460, 0, 34, 16), REFUSED},
    {"... behind the frame", BIG, EVERYTHING, META(CSUM, GSO, 1460, 60055, 34, 16), REFUSED},
    {"... of a short one", SYN, CSUM, META(CSUM, 0, 0, 59, 34, 16), REFUSED},
    {"a long packet that nobody is to cut", BIG, EVERYTHING, META(CSUM, 0, 0, 54, 34, 16), SM_GUARD_OVERSIZE},
    {"... with a size, but no type", BIG, EVERYTHING, META(CSUM, 0, 1460, 54, 34, 16), SM_GUARD_OVERSIZE},
#undef META
#undef GSO
};

static struct sm_guard_verdict judge_with(const struct buf *b, const struct sm_offload *o)
{
    uint8_t *exact = malloc(b->len ? b->len : 1);
    assert_non_null(exact);
    memcpy(exact, b->data, b->len);
    struct sm_frame f = {.data = exact, .cap = b->len, .len = b->len, .offload = *o};
    struct sm_guard_verdict v = sm_guard_judge(&guard, &f, 0);
    free(exact);
    return v;
}

static void test_offload(void **state)
{
    static struct buf b;

    for (size_t i = 0; i < SM_ARRAY_LEN(offload_rows); i++) {
        const struct offload_row *row = &offload_rows[i];
        sm_guard_init(&guard, &test_link, row->rx);
        make(row->kind, &b);
        struct sm_guard_verdict v = judge_with(&b, &row->o);
        if (v.reason != row->reason)
            fail_msg("%s: %s, want %s", row->what, sm_guard_reason_name(v.reason), sm_guard_reason_name(row->reason));
        bool passes = v.action != SM_GUARD_DROP && v.action != SM_GUARD_REPORT;
        assert_int_equal(passes, row->reason == PASSES);
        if (passes)
            assert_int_equal(v.csum_ok, (row->o.flags & (CSUM | OK)) != 0);
    }
}

/* What was agreed on may change between two frames: the same frame is judged by what holds now. */
static void test_offload_changes(void **state)
{
    static const struct sm_offload o = {
        .flags = CSUM, .gso_type = SM_GSO_TCPV4, .gso_size = 1460, .hdr_len = 54, .csum_start = 34, .csum_offset = 16};
    static struct buf b;

    make(BIG, &b);
    sm_guard_init(&guard, &test_link, 0);
    assert_int_equal(judge_with(&b, &o).reason, REFUSED);
    guard.offloads = EVERYTHING;
    assert_int_equal(judge_with(&b, &o).reason, PASSES);
    guard.offloads = CSUM;
    assert_int_equal(judge_with(&b, &o).reason, REFUSED);
}

/* Options move the header: metadata has to move with it. */
static void test_offload_options(void **state)
{
    struct sm_offload o = {.flags = CSUM, .csum_start = 38, .csum_offset = 6};
    static struct buf b;

    sm_guard_init(&guard, &test_link, EVERYTHING);
    with_options(&b, (const uint8_t *)"\x01\x01\x01\x00", 4);
    assert_int_equal(judge_with(&b, &o).reason, PASSES);
    o.csum_start = 34;
    assert_int_equal(judge_with(&b, &o).reason, REFUSED);
}

/* The longest packet that there is passes, and a total length beyond the frame does not, whatever the metadata says. */
static void test_offload_lengths(void **state)
{
    static const struct sm_offload o = {
        .flags = CSUM, .gso_type = SM_GSO_TCPV4, .gso_size = 1460, .hdr_len = 54, .csum_start = 34, .csum_offset = 16};
    static uint8_t data[65495];
    static struct buf b;

    sm_guard_init(&guard, &test_link, EVERYTHING);
    tcp_frame(&b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_ACK, data, sizeof(data));
    struct sm_guard_verdict v = judge_with(&b, &o);
    assert_int_equal(v.action, SM_GUARD_PASS_IP);
    assert_int_equal(v.frame_len, 14 + 65535);
    b.len++;
    assert_int_equal(judge_with(&b, &o).reason, SM_GUARD_OVERSIZE);
    b.len -= 2;
    assert_int_equal(judge_with(&b, &o).reason, SM_GUARD_IP_LENGTH);
    /* A total length below what the metadata speaks of: only what the packet has counts. */
    tcp_frame(&b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_ACK, data, 60000);
    sm_put_u16(b.data + 16, 20 + 20 + 1459);
    assert_int_equal(judge_with(&b, &o).reason, REFUSED);
    sm_put_u16(b.data + 16, 20 + 20 + 1460);
    v = judge_with(&b, &o);
    assert_int_equal(v.action, SM_GUARD_PASS_IP);
    assert_int_equal(v.frame_len, 14 + 1500);
}

/* Every prefix and every field value of a few: nothing is read behind the end, and nothing but the right ones passes. */
static void test_offload_sweep(void **state)
{
    static const struct sm_offload good = {
        .flags = CSUM, .gso_type = SM_GSO_TCPV4, .gso_size = 100, .hdr_len = 54, .csum_start = 34, .csum_offset = 16};
    static uint8_t data[300];
    static struct buf b;

    sm_guard_init(&guard, &test_link, EVERYTHING);
    tcp_frame(&b, GUEST, WORLD, 40000, 443, 1000, 0, TCP_ACK, data, sizeof(data));
    size_t whole = b.len;
    for (b.len = 0; b.len < whole; b.len++)
        assert_int_not_equal(judge_with(&b, &good).reason, PASSES);
    for (unsigned v = 0; v <= 0xffff; v++) {
        struct sm_offload o = good;
        o.csum_start = (uint16_t)v;
        assert_int_equal(judge_with(&b, &o).reason == PASSES, v == 34);
        o = good;
        o.csum_offset = (uint16_t)v;
        assert_int_equal(judge_with(&b, &o).reason == PASSES, v == 16);
        o = good;
        o.gso_size = (uint16_t)v;
        assert_int_equal(judge_with(&b, &o).reason == PASSES, v >= 1 && v <= 300);
        o = good;
        o.hdr_len = (uint16_t)v;
        assert_int_equal(judge_with(&b, &o).reason == PASSES, v >= 54 && v <= whole);
        o = good;
        o.flags = (uint8_t)v;
        o.gso_type = (uint8_t)(v >> 8);
        bool sums = o.flags & CSUM, known = (o.flags & ~(CSUM | OK)) == 0;
        assert_int_equal(judge_with(&b, &o).reason == PASSES, known && (o.gso_type == 0 || (o.gso_type == 1 && sums)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_good, setup),
        cmocka_unit_test_setup(test_largest, setup),
        cmocka_unit_test_setup(test_dhcp, setup),
        cmocka_unit_test_setup(test_truncated, setup),
        cmocka_unit_test_setup(test_one_byte, setup),
        cmocka_unit_test_setup(test_reported_as, setup),
        cmocka_unit_test_setup(test_broadcast, setup),
        cmocka_unit_test_setup(test_udp_length, setup),
        cmocka_unit_test_setup(test_options, setup),
        cmocka_unit_test_setup(test_fragments, setup),
        cmocka_unit_test_setup(test_overlap, setup),
        cmocka_unit_test_setup(test_fragment_bounds, setup),
        cmocka_unit_test_setup(test_offload, setup),
        cmocka_unit_test_setup(test_offload_changes, setup),
        cmocka_unit_test_setup(test_offload_options, setup),
        cmocka_unit_test_setup(test_offload_lengths, setup),
        cmocka_unit_test_setup(test_offload_sweep, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
