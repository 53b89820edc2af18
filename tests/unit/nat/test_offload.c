/* SPDX-License-Identifier: BSD-3-Clause */
/* Metadata through the whole front, behind a tap with a virtio-net header: what the guest leaves to us, and what we leave
 * to it. The stack's own part is in tests/stack/test_offload.c, the guard's in test_guard.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "flow/udpbatch.h"
#include "harness.h"

#define WORLD IP4(203, 0, 113, 7)
#define MSS 1460

/* flags, type, hdr_len, gso_size, csum_start, csum_offset, num_buffers */
#define HEAD(flags, type, hdr, gso, start, offset)                                                                     \
    {                                                                                                                  \
        (flags), (type), (uint8_t)(hdr), (hdr) >> 8, (uint8_t)(gso), (uint8_t)((gso) >> 8), (start), 0, (offset), 0,   \
            0, 0                                                                                                       \
    }

static const uint8_t nothing[SM_VNET_HLEN];

/* Leave the sum to the card, as a guest's kernel does. */
static void unsum(struct buf *b)
{
    size_t len = b->len - 34;
    uint8_t proto = b->data[23];
    uint32_t pseudo = sm_csum_add(proto + (uint32_t)len, b->data + 26, 8);

    sm_put_u16(b->data + 34 + (proto == SM_IPPROTO_TCP ? 16 : 6), (uint16_t)~sm_csum_fold(pseudo));
}

static uint8_t *pattern(size_t len)
{
    uint8_t *p = g_malloc(len);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + i / 251);
    return p;
}

static int setup(void **state)
{
    *state = h_new_kind(false, 0, true);
    return 0;
}

static void test_header(void **state)
{
    uint8_t raw[SM_VNET_HLEN] = HEAD(1, 1, 54, 1460, 34, 16), back[SM_VNET_HLEN];
    struct sm_offload o;

    sm_vnet_hdr_get(raw, &o);
    assert_int_equal(o.flags, SM_OFFLOAD_NEEDS_CSUM);
    assert_int_equal(o.gso_type, SM_GSO_TCPV4);
    assert_int_equal(o.gso_size, 1460);
    assert_int_equal(o.hdr_len, 54);
    assert_int_equal(o.csum_start, 34);
    assert_int_equal(o.csum_offset, 16);
    sm_vnet_hdr_put(&o, back);
    assert_memory_equal(back, raw, sizeof(raw));

    /* Every flag and type: there and back, or refused. */
    for (unsigned v = 0; v < 0x10000; v++) {
        raw[0] = (uint8_t)v;
        raw[1] = (uint8_t)(v >> 8);
        sm_vnet_hdr_get(raw, &o);
        bool known = (raw[0] & ~3) == 0 && (raw[1] & 0x7f) <= 1;
        assert_int_equal((o.flags & SM_OFFLOAD_BAD) != 0, !known);
        if (!known || raw[1] == 0x80) /* ECN of nothing: the guard's business */
            continue;
        sm_vnet_hdr_put(&o, back);
        assert_memory_equal(back, raw, sizeof(raw));
    }
}

/* A packet of 60000 bytes goes up whole, although neither its sum nor its length is one that a wire would take. */
static void test_up(void **state)
{
    static const uint8_t head[] = HEAD(1, 1, 54, MSS, 34, 16), half[] = HEAD(1, 0, 0, 0, 34, 16);
    static struct buf b;
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    uint8_t *data = pattern(60000);

    tcp_frame(&b, test_link.guest, WORLD, 40000, 80, c.snd, c.rcv, TCP_ACK | TCP_PSH, data, 60000);
    unsum(&b);
    guest_send_with(h, head, &b);
    upstream_expect(h, up, data, 60000);
    c.snd += 60000;
    tcp_frame(&b, test_link.guest, WORLD, 40000, 80, c.snd, c.rcv, TCP_ACK | TCP_PSH, data, 100);
    unsum(&b);
    guest_send(h, &b); /* nobody vouches for this sum */
    guest_send_with(h, half, &b);
    upstream_expect(h, up, data, 100);
    h_settle(h);
    assert_int_equal(h_stats(h).others, 0);
    (void)close(up);
    g_free(data);
}

/* A lie is reported, and reaches nobody. */
static void test_up_refused(void **state)
{
    static const uint8_t lies[][SM_VNET_HLEN] = {HEAD(1, 1, 54, MSS, 35, 16), HEAD(1, 1, 54, 0, 34, 16),
                                                 HEAD(1, 3, 54, MSS, 34, 16), HEAD(5, 1, 54, MSS, 34, 16),
                                                 HEAD(1, 4, 54, MSS, 34, 16), HEAD(1, 0x81, 54, MSS, 34, 16)};
    static struct buf b;
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    uint8_t *data = pattern(60000), byte;

    tcp_frame(&b, test_link.guest, WORLD, 40000, 80, c.snd, c.rcv, TCP_ACK | TCP_PSH, data, 60000);
    for (size_t i = 0; i < SM_ARRAY_LEN(lies); i++) {
        guest_send_with(h, lies[i], &b);
        h_settle(h);
        assert_int_equal(h_stats(h).others, i + 1);
    }
    assert_int_equal(read(up, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    (void)close(up);
    g_free(data);
}

/* Datagrams with a partial sum, and what we answer ourselves: that has no need of a card. */
static void test_datagram_and_answers(void **state)
{
    static const uint8_t head[] = HEAD(1, 0, 0, 0, 34, 6);
    static struct buf b, m;
    static struct rx rx;
    static struct mx mx;
    struct h *h = *state;

    udp_frame(&b, test_link.guest, WORLD, 5000, 443, "hello", 5);
    unsum(&b);
    guest_send(h, &b);
    core_expect_nothing(h);
    guest_send_with(h, head, &b);
    core_expect(h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_UDP);

    dhcp_message(&m, 0, 0, (const uint8_t *)"\x35\x01\x01\xff", 4);
    udp_frame(&b, 0, UINT32_MAX, 68, 67, m.data, m.len);
    memset(b.data, 0xff, 6);
    unsum(&b);
    guest_send_with(h, head, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.sport, 67);
    assert_memory_equal(rx.head, nothing, sizeof(nothing));
    arp_frame(&b, 1, test_link.guest, test_link.gateway);
    guest_send(h, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.raw[13], 6);
    assert_memory_equal(rx.head, nothing, sizeof(nothing));
    echo_frame(&b, test_link.gateway, "abc", 3);
    guest_send(h, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.icmp_type, 0);
    assert_memory_equal(rx.head, nothing, sizeof(nothing));
}

/* A datagram whose sum the guest leaves to us takes a way of its own through the front, if its IP header is plain and
 * right; what is not takes the long one, with the same result as ever. */
static void test_datagram_ways(void **state)
{
    static const uint8_t head[] = HEAD(1, 0, 0, 0, 34, 6);
    static const struct {
        const char *what;
        uint16_t frag;
        uint8_t ttl, sum, pad, cut; /* sum: added to the header's; pad: bytes behind; cut: of UDP's own length */
        bool arrives;
    } ways[] = {
        {"plain", 0, 64, 0, 0, 0, true},       {"may not be cut", 0x4000, 64, 0, 0, 0, true},
        {"last hop", 0, 1, 0, 0, 0, true},     {"no hop", 0, 0, 0, 0, 0, false},
        {"wrong sum", 0, 64, 1, 0, 0, false},  {"padded", 0, 64, 0, 7, 0, true},
        {"shorter UDP", 0, 64, 0, 0, 2, true}, {"reserved bit", 0x8000, 64, 0, 0, 0, true},
    };
    static struct buf b;
    static struct mx mx;
    static struct rx rx;
    struct h *h = *state;

    for (size_t i = 0; i < SM_ARRAY_LEN(ways); i++) {
        udp_frame(&b, test_link.guest, WORLD, (uint16_t)(5000 + i), 53, "hello", 5);
        uint8_t *ip = b.data + SM_ETH_HLEN;
        sm_put_u16(ip + 6, ways[i].frag);
        ip[8] = ways[i].ttl;
        sm_put_u16(ip + 10, 0);
        sm_put_u16(ip + 10, (uint16_t)(sm_csum_fold(sm_csum_add(0, ip, SM_IP_HLEN)) + ways[i].sum));
        unsum(&b);
        sm_put_u16(ip + SM_IP_HLEN + 4, (uint16_t)(SM_UDP_HLEN + 5 - ways[i].cut));
        memset(b.data + b.len, 0xee, ways[i].pad);
        b.len += ways[i].pad;
        guest_send_with(h, head, &b);
        if (!ways[i].arrives) {
            core_expect_nothing(h);
            while (guest_poll(h, &rx)) /* "time exceeded" for the one that may go nowhere */
                assert_int_equal(rx.proto, SM_IPPROTO_ICMP);
            continue;
        }
        core_expect(h, SM_FLOW_OPEN, &mx);
        assert_int_equal(mx.m.src.port, 5000 + i);
        assert_int_equal(mx.m.dst.port, 53);
        assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), WORLD);
        int up = core_attach(h, mx.m.id, 0, SOCK_SEQPACKET);
        uint8_t raw[64];
        assert_int_equal(read(up, raw, sizeof(raw)), SM_UDPBATCH_HEAD + 5 - ways[i].cut);
        assert_memory_equal(raw + SM_UDPBATCH_HEAD, "hello", 5u - ways[i].cut);
        (void)close(up);
        gone_expect(h, mx.m.id, SM_WHY_CLOSED);
    }
}

/* 200000 bytes down. Returns how many packets were larger than a segment. */
static unsigned go_down(struct h *h, struct conn *c, int up, const uint8_t *data, unsigned *ret_partial)
{
    static struct rx rx;
    size_t sent = 0, got = 0;
    unsigned large = 0;

    *ret_partial = 0;
    while (got < 200000) {
        ssize_t n = write(up, data + sent, 200000 - sent);
        sent += n > 0 ? (size_t)n : 0;
        h_settle(h);
        conn_recv(c, &rx);
        if (rx.data_len == 0 || rx.seq != c->rcv)
            continue;
        assert_memory_equal(rx.data, data + got, rx.data_len);
        got += rx.data_len;
        c->rcv += (uint32_t)rx.data_len;
        if (rx.head[0] & 1) {
            const uint8_t whole[] = HEAD(1, rx.data_len > MSS ? 1 : 0, 54, rx.data_len > MSS ? MSS : 0, 34, 16);
            assert_memory_equal(rx.head, whole, sizeof(whole));
            large += rx.data_len > MSS;
            (*ret_partial)++;
        } else {
            assert_memory_equal(rx.head, nothing, sizeof(nothing));
            assert_true(rx.data_len <= MSS);
        }
        conn_send(c, TCP_ACK, NULL, 0);
    }
    return large;
}

/* Down: large packets, each with the header that the guest's kernel needs to cut and sum it, for as long as its driver
 * says so. */
static void test_down(void **state)
{
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    uint8_t *data = pattern(200000);
    uint32_t everything = h->port->tx_offloads;
    unsigned partial;

    assert_true(go_down(h, &c, up, data, &partial) >= 3);
    h->port->tx_offloads = 0;
    h_settle(h);
    assert_int_equal(go_down(h, &c, up, data, &partial), 0);
    assert_int_equal(partial, 0);
    h->port->tx_offloads = SM_OFFLOAD_NEEDS_CSUM;
    h_settle(h);
    assert_int_equal(go_down(h, &c, up, data, &partial), 0);
    assert_true(partial >= 200000 / MSS);
    h->port->tx_offloads = everything;
    h_settle(h);
    assert_true(go_down(h, &c, up, data, &partial) >= 3);
    assert_int_equal(h->port->tx_dropped, 0);
    (void)close(up);
    g_free(data);
}

static void reply_run(int fd, const uint8_t *data, size_t len, size_t size)
{
    static uint8_t raw[SM_FLOW_UDP_BATCH_MAX];
    struct sm_udpbatch b = sm_udpbatch_init(raw, sizeof(raw));

    for (size_t at = 0; at < len; at += size)
        assert_true(sm_udpbatch_add(&b, data + at, SM_MIN(size, len - at)));
    assert_int_equal(b.run, 0); /* one run, or it would not be what is tried here */
    assert_int_equal(write(fd, raw, b.w.len), b.w.len);
}

/* The run as it must arrive: one frame that the guest's kernel cuts and sums, or each datagram by itself. */
static void expect_run(struct h *h, const uint8_t *data, size_t len, size_t size, bool whole)
{
    static struct rx rx;

    for (size_t at = 0; at < len; at += rx.data_len) {
        size_t n = whole ? len : SM_MIN(size, len - at);
        guest_recv(h, &rx);
        assert_int_equal(rx.proto, SM_IPPROTO_UDP);
        assert_int_equal(rx.src, WORLD);
        assert_int_equal(rx.sport, 443);
        assert_int_equal(rx.dport, 5000);
        assert_int_equal(rx.data_len, n);
        assert_memory_equal(rx.data, data + at, n);
        assert_int_equal(sm_udpbatch_u16(rx.raw + 16), rx.data_len + SM_IP_HLEN + SM_UDP_HLEN);
        const uint8_t cut[] = HEAD(1, 5, 42, (uint16_t)size, 34, 6), sum[] = HEAD(1, 0, 42, 0, 34, 6);
        if (whole)
            assert_memory_equal(rx.head, cut, sizeof(cut));
        else
            assert_memory_equal(rx.head, h->port->tx_offloads ? sum : nothing, sizeof(sum));
    }
    assert_false(guest_poll(h, &rx));
}

/* Runs of datagrams to a guest whose kernel cuts them, for as long as its driver says so, and never into more than its
 * MTU. */
static void test_datagrams_down(void **state)
{
    static struct buf b;
    static struct mx mx;
    struct h *h = *state;
    uint8_t *data = pattern(SM_DGRAM_MAX);

    udp_frame(&b, test_link.guest, WORLD, 5000, 443, "hello", 5);
    guest_send(h, &b);
    core_expect(h, SM_FLOW_OPEN, &mx);
    int up = core_attach(h, mx.m.id, 0, SOCK_SEQPACKET);
    assert_false(h->port->tx_offloads & SM_OFFLOAD_GSO(SM_GSO_UDPV4)); /* a socket is no tap: nobody there cuts */
    uint32_t without = h->port->tx_offloads, with = without | SM_OFFLOAD_GSO(SM_GSO_UDPV4);
    const struct {
        uint32_t tx;
        size_t len, size;
        bool whole;
    } tries[] = {
        {without, 5000, 1000, false},
        {with, 5000, 1000, true},
        {with, 45 * 1400 + 3, 1400, true},
        {with, 64, 1, true},
        {with, 2 * 1472, 1472, true},
        {with, 1000, 1000, false},
        {0, 5000, 1000, false},
        {SM_OFFLOAD_NEEDS_CSUM, 900, 300, false},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(tries); i++) {
        h->port->tx_offloads = tries[i].tx;
        h_settle(h);
        reply_run(up, data, tries[i].len, tries[i].size);
        expect_run(h, data, tries[i].len, tries[i].size, tries[i].whole);
    }
    /* Larger than the MTU: each in fragments, none of which asks for anything. */
    static struct rx rx;
    h->port->tx_offloads = with;
    h_settle(h);
    reply_run(up, data, 2 * 2000, 2000);
    for (int i = 0; i < 4; i++) {
        guest_recv(h, &rx);
        assert_true(rx.len <= 1514);
        assert_memory_equal(rx.head, nothing, sizeof(nothing));
    }
    assert_false(guest_poll(h, &rx));
    assert_int_equal(h->port->tx_dropped, 0);
    (void)close(up);
    g_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test_setup_teardown(test_up, setup, h_teardown),
        cmocka_unit_test_setup_teardown(test_up_refused, setup, h_teardown),
        cmocka_unit_test_setup_teardown(test_datagram_and_answers, setup, h_teardown),
        cmocka_unit_test_setup_teardown(test_datagram_ways, setup, h_teardown),
        cmocka_unit_test_setup_teardown(test_down, setup, h_teardown),
        cmocka_unit_test_setup_teardown(test_datagrams_down, setup, h_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
