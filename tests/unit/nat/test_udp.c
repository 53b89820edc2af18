/* SPDX-License-Identifier: BSD-3-Clause */
/* UDP, DNS, the answers of our own and the counts through the whole front. */
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

static void send_udp(struct h *h, uint32_t dst, uint16_t sport, uint16_t dport, const void *data, size_t len)
{
    static struct buf b;
    udp_frame(&b, test_link.guest, dst, sport, dport, data, len);
    guest_send(h, &b);
}

static uint64_t ask_udp(struct h *h, uint32_t dst, uint16_t sport, uint16_t dport, const char *text)
{
    static struct mx mx;
    send_udp(h, dst, sport, dport, text, strlen(text));
    core_expect(h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_UDP);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), dst);
    assert_int_equal(mx.m.dst.port, dport);
    assert_int_equal(mx.m.src.port, sport);
    return mx.m.id;
}

/* One packet from the pair, taken apart: how many datagrams, and their texts joined by commas. */
static unsigned packet(struct h *h, int fd, char *texts, size_t cap)
{
    static uint8_t raw[SM_FLOW_UDP_BATCH_MAX];
    int64_t until = sm_clock_us() + DEADLINE_US;
    ssize_t n;
    while ((n = read(fd, raw, sizeof(raw))) < 0) {
        assert_int_equal(errno, EAGAIN);
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
    struct sm_rd r = sm_rd_init(raw, (size_t)n);
    struct sm_dgrams_run run;
    struct iovec data;
    unsigned count = 0;
    GString *s = g_string_new(NULL);
    while (sm_udpbatch_next(&r, &count, &run))
        for (bool more = true; more;) {
            more = sm_dgrams_run_take(&run, &data);
            g_string_append_printf(s, "%s%.*s", s->len ? "," : "", (int)data.iov_len, (const char *)data.iov_base);
        }
    assert_false(r.bad);
    g_strlcpy(texts, s->str, cap);
    g_string_free(s, TRUE);
    return count;
}

static void reply(int fd, const char *a, const char *b)
{
    uint8_t raw[256];
    struct sm_udpbatch batch = sm_udpbatch_init(raw, sizeof(raw));
    assert_true(sm_udpbatch_add(&batch, a, strlen(a)));
    if (b)
        assert_true(sm_udpbatch_add(&batch, b, strlen(b)));
    assert_int_equal(write(fd, raw, batch.w.len), batch.w.len);
}

static void expect_udp(struct h *h, uint32_t src, uint16_t sport, uint16_t dport, const char *text)
{
    static struct rx rx;
    guest_recv(h, &rx);
    assert_int_equal(rx.proto, SM_IPPROTO_UDP);
    assert_int_equal(rx.src, src);
    assert_int_equal(rx.sport, sport);
    assert_int_equal(rx.dport, dport);
    assert_int_equal(rx.data_len, strlen(text));
    assert_memory_equal(rx.data, text, rx.data_len);
}

static void test_flow(void **state)
{
    struct h *h = *state;
    char texts[256];
    uint64_t id = ask_udp(h, WORLD, 5000, 443, "one");

    send_udp(h, WORLD, 5000, 443, "two", 3);
    send_udp(h, WORLD, 5000, 443, "", 0);
    h_settle(h);
    core_expect_nothing(h);
    int up = core_attach(h, id, 0, SOCK_SEQPACKET);
    assert_int_equal(packet(h, up, texts, sizeof(texts)), 3);
    assert_string_equal(texts, "one,two,");
    /* What one batch of frames brings is one packet. */
    send_udp(h, WORLD, 5000, 443, "three", 5);
    send_udp(h, WORLD, 5000, 443, "four", 4);
    assert_int_equal(packet(h, up, texts, sizeof(texts)), 2);
    assert_string_equal(texts, "three,four");
    reply(up, "re", "ply");
    expect_udp(h, WORLD, 443, 5000, "re");
    expect_udp(h, WORLD, 443, 5000, "ply");
    /* The core ends it; the next datagram is a new question. */
    (void)close(up);
    gone_expect(h, id, SM_WHY_CLOSED);
    assert_true(ask_udp(h, WORLD, 5000, 443, "again") > id);
}

/* Flows are 4-tuples: another port or address of either side is another question, and replies stay apart. */
static void test_tuples(void **state)
{
    struct h *h = *state;
    char texts[64];
    uint64_t a = ask_udp(h, WORLD, 5000, 443, "a");
    uint64_t b = ask_udp(h, WORLD, 5001, 443, "b");
    uint64_t c = ask_udp(h, WORLD, 5000, 444, "c");
    uint64_t d = ask_udp(h, WORLD + 1, 5000, 443, "d");

    assert_true(a < b && b < c && c < d);
    int up_c = core_attach(h, c, 0, SOCK_SEQPACKET);
    int up_a = core_attach(h, a, 0, SOCK_SEQPACKET);
    assert_int_equal(packet(h, up_a, texts, sizeof(texts)), 1);
    assert_string_equal(texts, "a");
    assert_int_equal(packet(h, up_c, texts, sizeof(texts)), 1);
    assert_string_equal(texts, "c");
    /* Two flows in one batch of frames: each gets its own. */
    send_udp(h, WORLD, 5000, 443, "a2", 2);
    send_udp(h, WORLD, 5000, 444, "c2", 2);
    send_udp(h, WORLD, 5000, 443, "a3", 2);
    assert_int_equal(packet(h, up_a, texts, sizeof(texts)), 2);
    assert_string_equal(texts, "a2,a3");
    assert_int_equal(packet(h, up_c, texts, sizeof(texts)), 1);
    assert_string_equal(texts, "c2");
    reply(up_c, "rc", NULL);
    expect_udp(h, WORLD, 444, 5000, "rc");
    (void)close(up_a);
    (void)close(up_c);
}

/* More flows take turns in one batch of frames than are gathered at once: nothing is lost, mixed up or late. */
static void test_turns(void **state)
{
    struct h *h = *state;
    enum { FLOWS = SM_FRONT_UDP_BATCHES + 2, EACH = 5 };
    int up[FLOWS];
    char text[16], texts[256];

    for (unsigned i = 0; i < FLOWS; i++) {
        g_snprintf(text, sizeof(text), "%u", i);
        up[i] = core_attach(h, ask_udp(h, WORLD, (uint16_t)(5000 + i), 443, text), 0, SOCK_SEQPACKET);
        assert_int_equal(packet(h, up[i], texts, sizeof(texts)), 1);
    }
    for (unsigned k = 0; k < EACH; k++)
        for (unsigned i = 0; i < FLOWS; i++) {
            g_snprintf(text, sizeof(text), "%u-%u", i, k);
            send_udp(h, WORLD, (uint16_t)(5000 + i), 443, text, strlen(text));
        }
    for (unsigned i = 0; i < FLOWS; i++) {
        g_autoptr(GString) got = g_string_new(NULL);
        for (unsigned n = 0; n < EACH;) {
            n += packet(h, up[i], texts, sizeof(texts));
            g_string_append_printf(got, "%s%s", got->len ? "," : "", texts);
        }
        g_autofree char *want = g_strdup_printf("%u-0,%u-1,%u-2,%u-3,%u-4", i, i, i, i, i);
        assert_string_equal(got->str, want);
        (void)close(up[i]);
    }
    assert_int_equal(h_stats(h).udp_dropped, 0);
}

static void test_refusals(void **state)
{
    struct h *h = *state;
    static struct rx rx;
    static struct mx mx;
    static const struct {
        enum sm_flow_how how;
        int code; /* -1: silence */
    } rows[] = {{SM_HOW_ICMP_ADMIN, 13}, {SM_HOW_ICMP_HOST, 1}, {SM_HOW_ICMP_NET, 0},
                {SM_HOW_ICMP_PORT, 3},   {SM_HOW_SILENT, -1},   {SM_HOW_RST, -1}};

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        uint16_t port = (uint16_t)(100 + i);
        uint64_t id = ask_udp(h, WORLD, 5000, port, "x");
        core_refuse(h, id, rows[i].how, SM_SCOPE_DESTINATION, 5000);
        /* At once, and again for a repeat from the hold. */
        for (int again = 0; again < 2; again++) {
            if (rows[i].code >= 0) {
                guest_recv(h, &rx);
                assert_int_equal(rx.proto, SM_IPPROTO_ICMP);
                assert_int_equal(rx.icmp_type, 3);
                assert_int_equal(rx.icmp_code, rows[i].code);
            }
            h_settle(h);
            assert_false(guest_poll(h, &rx));
            if (!again)
                send_udp(h, WORLD, (uint16_t)(6000 + i), port, "y", 1);
        }
        core_expect_nothing(h);
    }
    sm_front_tick(h->front);
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        core_expect(h, SM_FLOW_REPEATED, &mx);
        assert_int_equal(mx.m.proto, SM_FLOW_UDP);
        assert_int_equal(mx.m.count, 1);
    }
    /* Upstream's refusal comes when the flow is attached already. */
    uint64_t id = ask_udp(h, WORLD, 5000, 99, "x");
    int up = core_attach(h, id, 0, SOCK_SEQPACKET);
    core_refuse(h, id, SM_HOW_ICMP_PORT, SM_SCOPE_TUPLE, 0);
    guest_recv(h, &rx);
    assert_int_equal(rx.icmp_code, 3);
    char texts[16];
    assert_int_equal(packet(h, up, texts, sizeof(texts)), 1);
    assert_int_equal(upstream_end(h, up), 0);
    (void)close(up);
    assert_int_equal(h_stats(h).udp_now, 0);
}

/* What is held before the verdict is bounded in number and bytes. */
static void test_held_bound(void **state)
{
    struct h *h = *state;
    static uint8_t big[1472];
    char texts[256];

    uint64_t id = ask_udp(h, WORLD, 5000, 443, "0");
    for (int i = 0; i < 100; i++)
        send_udp(h, WORLD, 5000, 443, "x", 1);
    h_settle(h);
    int up = core_attach(h, id, 0, SOCK_SEQPACKET);
    assert_int_equal(packet(h, up, texts, sizeof(texts)), SM_FRONT_UDP_HELD_DATAGRAMS);
    assert_int_equal(h_stats(h).udp_dropped, 101 - SM_FRONT_UDP_HELD_DATAGRAMS);
    (void)close(up);
    gone_expect(h, id, SM_WHY_CLOSED);
    (void)ask_udp(h, WORLD, 5001, 443, "0");
    for (int i = 0; i < 15; i++)
        send_udp(h, WORLD, 5001, 443, big, sizeof(big));
    h_settle(h);
    assert_int_equal(h_stats(h).udp_dropped, 101 - SM_FRONT_UDP_HELD_DATAGRAMS);
}

/* A question that nobody answers ends by itself, an attached flow does not. */
static void test_unanswered(void **state)
{
    struct h *h = *state;
    uint64_t a = ask_udp(h, WORLD, 5000, 443, "a");
    uint64_t b = ask_udp(h, WORLD, 5001, 443, "b");
    int up = core_attach(h, b, 0, SOCK_SEQPACKET);

    h->skew_us += SM_FRONT_ASKED_US - 1000000;
    sm_front_tick(h->front);
    core_expect_nothing(h);
    h->skew_us += 2000000;
    sm_front_tick(h->front);
    gone_expect(h, a, SM_WHY_TIMEOUT);
    core_expect_nothing(h);
    assert_int_equal(h_stats(h).asked_now, 0);
    (void)close(up);
    gone_expect(h, b, SM_WHY_CLOSED);
}

static void test_dns(void **state)
{
    struct h *h = *state;
    static struct mx mx;

    send_udp(h, test_link.resolver, 5000, 53, "query", 5);
    core_expect(h, SM_FLOW_DATAGRAM, &mx);
    assert_int_equal(mx.m.src.port, 5000);
    assert_int_equal(sm_addr_to_u32(&mx.m.src.addr), test_link.guest);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), test_link.resolver);
    assert_int_equal(mx.m.dst.port, 53);
    assert_int_equal(mx.m.data_len, 5);
    struct sm_flow_msg answer = mx.m;
    answer.data = (const uint8_t *)"answer";
    answer.data_len = 6;
    core_send(h, &answer);
    expect_udp(h, test_link.resolver, 53, 5000, "answer");
    /* An answer to somebody who is not there. */
    answer.src.addr = sm_addr_from_u32(WORLD);
    core_send(h, &answer);
    static struct rx rx;
    h_settle(h);
    assert_false(guest_poll(h, &rx));
    /* Another resolver is an ordinary flow, as is another port of ours. */
    uint64_t id = ask_udp(h, WORLD, 5000, 53, "query");
    assert_true(ask_udp(h, test_link.resolver, 5000, 853, "query") > id);
    assert_int_equal(h_stats(h).dns_in, 1);
    assert_int_equal(h_stats(h).dns_out, 1);
}

static void test_dns_any(void **state)
{
    struct h *h = h_new_with(true, 0);
    static struct mx mx;

    send_udp(h, WORLD, 5000, 53, "query", 5);
    core_expect(h, SM_FLOW_DATAGRAM, &mx);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), WORLD);
    core_send(h, &mx.m);
    expect_udp(h, WORLD, 53, 5000, "query");
    assert_null(h->failed);
    h_free(h);
}

/* Packets of the pair that lie about their lengths end the flow and reach nobody. */
static void test_bad_batch(void **state)
{
    struct h *h = *state;
    static struct rx rx;
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {{"\x00", 1}, {"\x00\x05\x00\x05zzzz", 8}, {"\xff\xff\xff\xff", 4}, {"\x00\x01\x00\x01z\x00", 6}};

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        uint64_t id = ask_udp(h, WORLD, (uint16_t)(5000 + i), 443, "a");
        int up = core_attach(h, id, 0, SOCK_SEQPACKET);
        assert_int_equal(write(up, bad[i].bytes, bad[i].len), bad[i].len);
        gone_expect(h, id, SM_WHY_LIMIT);
        if (i == 3) /* the whole datagram before the bad one was fine */
            expect_udp(h, WORLD, 443, 5003, "z");
        assert_false(guest_poll(h, &rx));
        (void)close(up);
    }
}

/* A datagram of two fragments, and a reply that needs two. */
static void test_fragments(void **state)
{
    struct h *h = *state;
    static struct buf whole, part;
    static struct mx mx;
    static uint8_t data[3000], raw[SM_FLOW_UDP_BATCH_MAX];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    udp_frame(&whole, test_link.guest, WORLD, 5000, 443, data, sizeof(data));
    const uint8_t *udp = whole.data + 34;
    size_t len = whole.len - 34;
    for (size_t at = len / 1480 * 1480;; at -= 1480) { /* last one first */
        size_t n = SM_MIN(len - at, (size_t)1480);
        ip_frame(&part, test_link.guest, WORLD, 17, 9, (uint16_t)(at / 8 | (at + n < len ? SM_IP_MF : 0)), udp + at, n);
        guest_send(h, &part);
        if (at == 0)
            break;
    }
    core_expect(h, SM_FLOW_OPEN, &mx);
    int up = core_attach(h, mx.m.id, 0, SOCK_SEQPACKET);
    ssize_t n = read(up, raw, sizeof(raw));
    assert_int_equal(n, sizeof(data) + SM_UDPBATCH_HEAD);
    assert_memory_equal(raw + SM_UDPBATCH_HEAD, data, sizeof(data));
    assert_int_equal(write(up, raw, (size_t)n), n);
    static struct rx rx;
    size_t got = 0;
    while (got < sizeof(data) + SM_UDP_HLEN) {
        guest_recv(h, &rx);
        assert_true(rx.len <= 1514);
        got += (size_t)(rx.raw[16] << 8 | rx.raw[17]) - SM_IP_HLEN;
    }
    assert_int_equal(got, sizeof(data) + SM_UDP_HLEN);
    (void)close(up);
}

/* A core that does not read its pair: datagrams are dropped, nothing grows, and the flow lives. */
static void test_pair_full(void **state)
{
    struct h *h = *state;
    static uint8_t big[1400];
    uint64_t id = ask_udp(h, WORLD, 5000, 443, "a");
    int up = core_attach(h, id, 0, SOCK_SEQPACKET);

    for (int i = 0; i < 2000; i++)
        send_udp(h, WORLD, 5000, 443, big, sizeof(big));
    h_settle(h);
    assert_true(h_stats(h).udp_dropped > 0);
    static uint8_t raw[SM_FLOW_UDP_BATCH_MAX];
    struct sm_dgrams_run run;
    unsigned got = 0;
    for (ssize_t n; (n = read(up, raw, sizeof(raw))) > 0;) {
        struct sm_rd r = sm_rd_init(raw, (size_t)n);
        unsigned count = 0;
        while (sm_udpbatch_next(&r, &count, &run))
            continue;
        assert_true(sm_rd_done(&r));
        got += count;
    }
    assert_int_equal(got + h_stats(h).udp_dropped, 2001); /* what is lost is counted, a whole packet of them too */
    send_udp(h, WORLD, 5000, 443, "last", 4);
    char texts[16];
    assert_int_equal(packet(h, up, texts, sizeof(texts)), 1);
    assert_string_equal(texts, "last");
    (void)close(up);
}

static void test_asked_bound(void **state)
{
    struct h *h = *state;
    static struct mx mx;
    unsigned asked = 0;

    for (unsigned i = 0; i < 2 * SM_FRONT_ASKED_MAX; i++) {
        send_udp(h, WORLD + i, 5000, 443, "x", 1);
        h_turn(h, 0);
        while (core_poll(h, &mx))
            asked++;
    }
    h_settle(h);
    while (core_poll(h, &mx))
        asked++;
    assert_int_equal(asked, SM_FRONT_ASKED_MAX);
    assert_int_equal(h_stats(h).udp_now, SM_FRONT_ASKED_MAX);
}

/* As many live flows as the process may have descriptors: a new one takes the place of the quietest UDP flow, but only
 * if that one is really quiet. */
static void test_table_full(void **state)
{
    enum { LIVE = 40 };
    struct h *h = h_new_with(false, LIVE);
    static struct mx mx;
    int up[LIVE];
    static struct buf b;

    h->frozen_us = sm_clock_us();
    for (unsigned i = 0; i < LIVE; i++)
        up[i] = core_attach(h, ask_udp(h, WORLD, (uint16_t)(1000 + i), 443, ""), 0, SOCK_SEQPACKET);
    send_udp(h, WORLD, 70, 443, "", 0);
    tcp_frame(&b, test_link.guest, WORLD, 70, 80, 1, 0, TCP_SYN, NULL, 0);
    guest_send(h, &b);
    core_expect_nothing(h);
    assert_int_equal(h_stats(h).opens_dropped, 2);
    h->skew_us += SM_FRONT_UDP_QUIET_US;
    send_udp(h, WORLD, 1000, 443, "", 0); /* the first is not the quietest any more */
    h_settle(h);
    send_udp(h, WORLD, 70, 443, "", 0);
    gone_expect(h, 2, SM_WHY_LIMIT);
    core_expect(h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.id, LIVE + 1);
    /* TCP as well, and a published port. */
    guest_send(h, &b);
    gone_expect(h, 3, SM_WHY_LIMIT);
    core_expect(h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_TCP);
    h->skew_us -= SM_FRONT_UDP_QUIET_US;
    int pair[2];
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    core_send_fd(h,
                 &(struct sm_flow_msg){.type = SM_FLOW_INBOUND,
                                       .id = SM_FLOW_ID_CORE | 1,
                                       .guest_port = 80,
                                       .src = {.addr = sm_addr_from_u32(WORLD), .port = 5555}},
                 pair[0]);
    gone_expect(h, SM_FLOW_ID_CORE | 1, SM_WHY_LIMIT);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(upstream_end(h, pair[1]), 0);
    (void)close(pair[1]);
    assert_null(h->failed);
    h_free(h);
    for (unsigned i = 0; i < LIVE; i++)
        (void)close(up[i]);
}

/* What the front answers by itself goes nowhere else. */
static void test_own_answers(void **state)
{
    struct h *h = *state;
    static struct buf m, b;
    static struct rx rx;

    arp_frame(&b, 1, test_link.guest, test_link.gateway);
    guest_send(h, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.raw[13], 6);
    echo_frame(&b, test_link.gateway, "ping", 4);
    guest_send(h, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.proto, SM_IPPROTO_ICMP);
    assert_int_equal(rx.icmp_type, 0);
    assert_int_equal(rx.src, test_link.gateway);
    dhcp_message(&m, 0, 0, (const uint8_t *)"\x35\x01\x01\xff", 4);
    udp_frame(&b, 0, UINT32_MAX, 68, 67, m.data, m.len);
    memset(b.data, 0xff, 6);
    guest_send(h, &b);
    guest_recv(h, &rx);
    assert_int_equal(rx.proto, SM_IPPROTO_UDP);
    assert_int_equal(rx.sport, 67);
    assert_int_equal(rx.dport, 68);
    core_expect_nothing(h);
}

/* A ring that broke is no packet, and is recorded as what is dropped: once, and a flood of them as a count. */
static void test_faults_are_told(void **state)
{
    struct h *h = *state;
    static struct mx mx;

    h->port->faults = 1;
    core_expect(h, SM_FLOW_OTHER, &mx);
    assert_int_equal(mx.m.other, SM_OTHER_DEVICE);
    assert_int_equal(mx.m.count, 1);
    core_expect_nothing(h);
    h->port->faults = 40;
    core_expect_nothing(h);
    sm_front_tick(h->front);
    core_expect(h, SM_FLOW_OTHER, &mx);
    assert_int_equal(mx.m.other, SM_OTHER_DEVICE);
    assert_int_equal(mx.m.count, 39);
}

/* The first of a kind at once, the rest once a second with a count, and never more lines than the table holds. */
static void test_others(void **state)
{
    struct h *h = *state;
    static struct buf b;
    static struct mx mx;

    echo_frame(&b, WORLD, "ping", 4);
    for (int i = 0; i < 5; i++)
        guest_send(h, &b);
    core_expect(h, SM_FLOW_OTHER, &mx);
    assert_int_equal(mx.m.other, SM_OTHER_ICMP);
    assert_int_equal(mx.m.ip_proto, 1);
    assert_int_equal(mx.m.count, 1);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), WORLD);
    core_expect_nothing(h);
    sm_front_tick(h->front);
    core_expect(h, SM_FLOW_OTHER, &mx);
    assert_int_equal(mx.m.count, 4);
    sm_front_tick(h->front);
    core_expect_nothing(h);

    uint32_t told = 0;
    unsigned lines = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        echo_frame(&b, WORLD + 100 + i, "ping", 4);
        guest_send(h, &b);
        h_turn(h, 0);
        while (core_poll(h, &mx)) {
            told += mx.m.count;
            lines++;
        }
    }
    h_settle(h);
    sm_front_tick(h->front);
    while (core_poll(h, &mx)) {
        told += mx.m.count;
        lines++;
    }
    assert_int_equal(told, 1000);
    assert_true(lines <= 2 * 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, h_setup, h_teardown)
        T(test_flow),       T(test_tuples),      T(test_turns),     T(test_refusals),
        T(test_held_bound), T(test_unanswered),  T(test_dns),       T(test_dns_any),
        T(test_bad_batch),  T(test_fragments),   T(test_pair_full), T(test_asked_bound),
        T(test_table_full), T(test_own_answers), T(test_others),    T(test_faults_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
