/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_offload.c: what is left to the guest's network card, and what is not.
 * The card of every stack (card.h) checks each packet's metadata against its
 * headers; the tests here look at which packets carry any.
 */
#include "stack.h"

#include <string.h>
#include <arpa/inet.h>
#include <cmocka.h>

#define CSUM SLIRP_FLOW_OFFLOAD_CSUM
#define TSO (SLIRP_FLOW_OFFLOAD_CSUM | SLIRP_FLOW_OFFLOAD_TSO)
#define ISN 0xfffffff0u
#define MSS 1460

static uint8_t *pattern(size_t len)
{
    uint8_t *p = g_malloc(len);
    uint32_t x = 12345;
    size_t i;

    for (i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static struct st_stack *stack_with(uint16_t mtu, unsigned offload)
{
    struct st_stack *st = st_new(mtu);

    st_set_offload(st, offload);
    return st;
}

/* Read what waits for this connection and acknowledge it with one ACK; bytes
 * in order are appended to got. False: nothing waited. */
static bool burst(struct st_peer *peer, GByteArray *got)
{
    struct fr_packet p;

    if (!peer->stack->frames.head) {
        return false;
    }
    while (peer->stack->frames.head) {
        uint32_t before = peer->ack;

        st_peer_recv(peer, &p);
        if (p.seq == before && p.len) {
            g_byte_array_append(got, p.data, (guint)p.len);
        }
    }
    st_peer_at(peer, 0, FR_ACK, NULL, 0);
    return true;
}

/* ... and what comes in answer, until nothing does. */
static void drain(struct st_peer *peer, GByteArray *got)
{
    while (burst(peer, got)) {
    }
}

/* Bytes up to a full window may be in flight: congestion has no say any more. */
static void open_window(struct st_peer *peer, struct st_conn *conn, GByteArray *got)
{
    static const uint8_t zeros[200000];
    size_t sent = 0;

    while (sent < sizeof(zeros)) {
        sent += slirp_flow_push(conn->flow, zeros + sent, sizeof(zeros) - sent);
        drain(peer, got);
    }
    drain(peer, got);
    assert_int_equal(got->len, sizeof(zeros));
    g_byte_array_set_size(got, 0);
}

/* Which checksums count on the way in. */
static void checksum_in(void **state)
{
    struct st_stack *st = st_new(1500);
    struct fr_tcp syn = {.src = FR_GUEST, .dst = FR_PEER, .sport = 1, .dport = 2, .flags = FR_SYN, .win = 1000};
    uint8_t buf[FR_MAX], part[3000];
    struct fr_packet p;
    size_t n;

    (void)state;
    n = fr_udp(buf, FR_GUEST, FR_PEER, 1, 2, "x", 1);
    fr_partial(buf);
    st_input(st, buf, n);
    assert_int_equal(st->datagrams->len, 0);
    st_input_trusted(st, buf, n);
    assert_int_equal(st->datagrams->len, 1);

    n = fr_tcp(buf, &syn);
    fr_partial(buf);
    st_input(st, buf, n);
    assert_int_equal(st->asked, 0);
    buf[14 + 8] ^= 1; /* the IP header's own sum is nobody's but ours */
    st_input_trusted(st, buf, n);
    assert_int_equal(st->asked, 0);
    buf[14 + 8] ^= 1;
    st_input_trusted(st, buf, n - 1); /* and a length is a length */
    assert_int_equal(st->asked, 0);
    st_input_trusted(st, buf, n);
    assert_int_equal(st->asked, 1);
    st_discard(st);

    /* A datagram in fragments is summed, whoever vouches for a fragment. */
    memset(part, 'f', sizeof(part));
    n = fr_udp_part(part, FR_GUEST, FR_PEER, 1, 2, part + 8, 1600);
    part[6] ^= 1;
    st_input_trusted(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 7, 0x2000, part, 1000));
    st_input_trusted(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 7, 1000 / 8, part + 1000, n - 1000));
    assert_int_equal(st->datagrams->len, 1);
    part[6] ^= 1;
    st_input_trusted(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 8, 0x2000, part, 1000));
    st_input_trusted(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 8, 1000 / 8, part + 1000, n - 1000));
    assert_int_equal(st->datagrams->len, 2);

    /* ICMP has no pseudo header and no card that sums it. */
    n = fr_echo(buf, FR_GUEST, FR_GATEWAY, 1, "x", 1);
    st_input_trusted(st, buf, n);
    assert_true(st_next(st, &p));
    st_free(st);
}

/* A card that sums: no packet is longer than without it. */
static void checksum_out(void **state)
{
    struct st_stack *st = stack_with(1500, CSUM);
    uint8_t *data = pattern(100000);
    GByteArray *got = g_byte_array_new();
    struct st_peer peer;
    struct st_conn *conn;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    assert_int_equal(st->card.partial, 0); /* nothing but headers: summed */
    conn = st_conn_at(st, 0);
    conn->out = data;
    conn->out_len = 100000;
    st_conn_send(conn);
    drain(&peer, got);
    assert_int_equal(got->len, 100000);
    assert_memory_equal(got->data, data, 100000);
    assert_int_equal(st->card.super, 0);
    assert_true(st->card.partial >= 100000 / MSS);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

static void datagrams_out(void **state)
{
    SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 9, .peer_port = 53};
    struct st_stack *st = stack_with(1500, CSUM);
    uint8_t *data = pattern(65507);
    struct fr_packet p;
    size_t n;

    (void)state;
    for (n = 0; n <= 1472; n += n < 10 || n >= 1462 ? 1 : 1452) {
        unsigned partial = st->card.partial;

        assert_true(slirp_flow_udp_push(st->slirp, &addr, data, n));
        assert_int_equal(st->card.partial, partial + (n > 0));
        assert_true(st_next(st, &p));
        assert_int_equal(p.len, n);
        assert_memory_equal(p.data, data, n);
    }
    /* In fragments it is summed here: fr_parse of the first shows the length,
     * the card that none of them asks for anything. */
    n = st->card.partial;
    assert_true(slirp_flow_udp_push(st->slirp, &addr, data, 65507));
    assert_int_equal(st->card.partial, n);
    assert_true(st_next(st, &p));
    assert_int_equal(p.frag, 0x2000);
    assert_int_not_equal(p.data[6] << 8 | p.data[7], 0);
    st_free(st);
    g_free(data);
}

/* The sum that a card makes of a datagram may come out as 0, which means none:
 * for that the field must be filled in by somebody who knows. */
static void datagram_sum_zero(void **state)
{
    SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 9, .peer_port = 53};
    struct st_stack *st = stack_with(1500, CSUM);
    uint8_t data[2] = {0}, frame[FR_MAX];
    struct fr_packet p;

    (void)state;
    fr_udp(frame, FR_PEER, FR_GUEST, 53, 9, data, 2);
    memcpy(data, frame + 40, 2); /* adds up to all ones */
    assert_true(slirp_flow_udp_push(st->slirp, &addr, data, 2));
    assert_true(st_next(st, &p));
    assert_int_equal(p.data[-2], 0xff);
    assert_int_equal(p.data[-1], 0xff);
    st_free(st);
}

/* What is not TCP or UDP data never asks for anything. */
static void others_out(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 9, .peer_port = 53};
    static const uint8_t data[1400];
    uint8_t buf[FR_MAX];
    struct st_peer peer;
    struct fr_packet p;
    unsigned n = 0;

    (void)state;
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY));
    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_GATEWAY, 1, data, sizeof(data)));
    slirp_flow_udp_unreach(st->slirp, &addr, 3);
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st->verdict = SLIRP_FLOW_RST;
    st_peer_init(&peer, st, 1001, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st->verdict = SLIRP_FLOW_UNREACH_ADMIN;
    st_peer_init(&peer, st, 1002, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    while (st_next(st, &p)) {
        n++;
    }
    assert_int_equal(n, 6);
    assert_int_equal(st->card.partial, 0);
    st_free(st);
}

/* A card that cuts: packets of up to 64 KiB, cut at the guest's MSS. */
static void super_out(void **state)
{
    static const struct {
        uint16_t mtu, mss, want;
    } rows[] = {{1500, 1460, 1460}, {1500, 536, 536}, {1500, 9000, 1460},    {576, 536, 536},    {576, 1460, 536},
                {9000, 8960, 8960}, {1500, 1, 32},    {65520, 65480, 65480}, {65520, 1460, 1460}};
    uint8_t *data = pattern(1 << 20);
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct st_stack *st = stack_with(rows[i].mtu, TSO);
        GByteArray *got = g_byte_array_new();
        struct st_peer peer;
        struct st_conn *conn;

        st->card.mss = rows[i].want;
        st_peer_init(&peer, st, 1000, ISN);
        peer.mss = rows[i].mss;
        st_peer_connect(&peer);
        conn = st_conn_at(st, 0);
        conn->out = data;
        conn->out_len = 1 << 20;
        st_conn_send(conn);
        drain(&peer, got);
        assert_int_equal(got->len, 1 << 20);
        assert_memory_equal(got->data, data, 1 << 20);
        if (rows[i].want < 65495 / 2) {
            assert_true(st->card.super > 16);
            assert_true(st->card.largest > 14 + 65535u - rows[i].want);
            assert_int_equal(st->card.pieces, 3); /* the end of the ring came by */
        } else {
            assert_in_range(st->card.super, 0, 1); /* two whole ones are too long: only the end may be */
        }
        st_free(st);
        g_byte_array_unref(got);
    }
    g_free(data);
}

/* The bytes go out from where they lie. */
static void gathered(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    struct st_peer peer;
    struct st_conn *conn;
    struct iovec room[2], again[2];

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    slirp_flow_room(conn->flow, room);
    slirp_flow_push(conn->flow, "hello", 5);
    assert_int_equal(st->card.pieces, 2);
    assert_ptr_equal(st->card.last_data, room[0].iov_base);
    drain(&peer, got);
    assert_memory_equal(got->data, "hello", 5);
    /* ... and an empty buffer begins where it began. */
    assert_int_equal(slirp_flow_room(conn->flow, again), 256 * 1024);
    assert_ptr_equal(again[0].iov_base, room[0].iov_base);
    assert_int_equal(again[1].iov_len, 0);
    st_free(st);
    g_byte_array_unref(got);
}

/* A window that is no multiple of the MSS: whole segments only, and the rest
 * waits; a window below one MSS is only used when time has passed. */
static void small_windows(void **state)
{
    static const struct {
        uint16_t win;
        size_t first;
    } rows[] = {{5000, 4380}, {2920, 2920}, {2919, 1460}, {1461, 1460}, {1460, 1460}, {1000, 1000}, {1, 1}};
    uint8_t *data = pattern(60000);
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct st_stack *st = stack_with(1500, TSO);
        GByteArray *got = g_byte_array_new();
        struct st_peer peer;
        struct st_conn *conn;

        st_peer_init(&peer, st, 1000, ISN);
        st_peer_connect(&peer);
        conn = st_conn_at(st, 0);
        open_window(&peer, conn, got);
        peer.win = rows[i].win;
        st_peer_send(&peer, FR_ACK, "x", 1); /* a window is only made smaller by something new */
        burst(&peer, got);
        slirp_flow_push(conn->flow, data, 60000);
        if (rows[i].win < MSS) {
            assert_null(st->frames.head);
            st_advance(st, 6000);
        }
        assert_int_equal(st->card.last_len, 54 + rows[i].first);
        burst(&peer, got);
        assert_int_equal(got->len, rows[i].first);
        peer.win = 65535;
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        drain(&peer, got);
        assert_int_equal(got->len, 60000);
        assert_memory_equal(got->data, data, 60000);
        st_free(st);
        g_byte_array_unref(got);
    }
    g_free(data);
}

/* A closed window is asked with one byte, and what waited goes in packets of
 * many segments when it opens. */
static void persist(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    uint8_t *data = pattern(60000);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    unsigned i;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    open_window(&peer, conn, got);
    peer.win = 0;
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    slirp_flow_push(conn->flow, data, 60000);
    assert_false(st_next(st, &p));
    for (i = 0; i < 3; i++) {
        uint32_t at = peer.ack;

        st_advance(st, 61000);
        while (st_next(st, &p)) {
            assert_int_equal(p.seq, at);
            assert_int_equal(p.len, 1);
            assert_memory_equal(p.data, data, 1);
        }
        assert_int_equal(st->card.last_len, 55);
        assert_int_equal(st->card.last.gso_size, 0);
        st_peer_at(&peer, 0, FR_ACK, NULL, 0); /* not taken, still closed */
    }
    peer.win = 65535;
    i = st->card.super;
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    drain(&peer, got);
    assert_true(st->card.super > i);
    assert_int_equal(got->len, 60000);
    assert_memory_equal(got->data, data, 60000);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

/* A packet of many segments is lost whole: by the clock one segment comes
 * again, and the rest as the window opens. */
static void lost_by_clock(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    uint8_t *data = pattern(60000);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    unsigned super;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    open_window(&peer, conn, got);
    super = st->card.super;
    slirp_flow_push(conn->flow, data, 60000);
    assert_int_equal(st->card.super, super + 1);
    st_discard(st);
    st_advance(st, 3000);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, MSS);
    assert_memory_equal(p.data, data, MSS);
    g_byte_array_append(got, p.data, (guint)p.len);
    assert_false(st_next(st, &p));
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    drain(&peer, got);
    assert_true(st->card.super > super + 1); /* in several again */
    assert_int_equal(got->len, 60000);
    assert_memory_equal(got->data, data, 60000);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

/* ... and by three repeated ACKs. */
static void lost_by_acks(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    uint8_t *data = pattern(60000);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    uint32_t first;
    unsigned i;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    open_window(&peer, conn, got);
    first = peer.ack;
    slirp_flow_push(conn->flow, data, 60000);
    assert_true(st_next(st, &p)); /* the first segment of the packet is lost behind the card */
    assert_int_equal(p.seq, first);
    st_discard(st);
    for (i = 0; i < 3; i++) {
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    }
    st_peer_recv(&peer, &p);
    assert_int_equal(p.seq, first);
    assert_int_equal(p.len, MSS);
    assert_false(st_next(st, &p));
    peer.ack = first + 60000; /* it had the others */
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    st_advance(st, 5000);
    assert_false(st_next(st, &p));
    assert_int_equal(slirp_flow_room(conn->flow, NULL), 256 * 1024);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

/* FIN and PSH come with the last segment, and only there. */
static void fin_at_end(void **state)
{
    static const size_t lens[] = {1461, 2920, 60000, 64240};
    uint8_t *data = pattern(64240);
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(lens); i++) {
        struct st_stack *st = stack_with(1500, TSO);
        GByteArray *got = g_byte_array_new();
        struct st_peer peer;
        struct st_conn *conn;
        struct fr_packet p;

        st_peer_init(&peer, st, 1000, ISN);
        st_peer_connect(&peer);
        conn = st_conn_at(st, 0);
        open_window(&peer, conn, got);
        peer.win = 0;
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        slirp_flow_push(conn->flow, data, lens[i]);
        slirp_flow_eof(conn->flow);
        assert_false(st_next(st, &p));
        peer.win = 65535;
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        assert_int_equal(st->card.last_len, 54 + lens[i]);
        while (st->frames.head) {
            st_peer_recv(&peer, &p);
            g_byte_array_append(got, p.data, (guint)p.len);
            assert_int_equal(p.flags, st->frames.head ? FR_ACK : FR_ACK | FR_PSH | FR_FIN);
        }
        assert_int_equal(got->len, lens[i]);
        assert_memory_equal(got->data, data, lens[i]);
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        st_advance(st, 5000);
        assert_false(st_next(st, &p)); /* the FIN counts as acknowledged */
        assert_int_equal(conn->closed, 0);
        st_peer_send(&peer, FR_ACK | FR_FIN, "bye", 3);
        assert_memory_equal(conn->got->data, "bye", 3);
        assert_int_equal(conn->eof, 1);
        assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
        st_free(st);
        g_byte_array_unref(got);
    }
    g_free(data);
}

/* The guest has closed its half; what comes down goes on in large packets. */
static void half_closed(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    uint8_t *data = pattern(300000);
    struct st_peer peer;
    struct st_conn *conn;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
    assert_int_equal(conn->eof, 1);
    conn->out = data;
    conn->out_len = 300000;
    conn->out_eof = true;
    st_conn_send(conn);
    drain(&peer, got);
    assert_int_equal(got->len, 300000);
    assert_memory_equal(got->data, data, 300000);
    assert_true(st->card.super > 4);
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

/* Large packets of the guest: in order, ahead of order, twice, and over the
 * edge of the window. */
static void super_in(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    uint8_t *data = pattern(260000);
    SlirpFlowStats stats;
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    st_peer_send(&peer, FR_ACK | FR_PSH, data, 65495);
    assert_int_equal(conn->got->len, 65495);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_int_equal(p.win, 65535);
    assert_false(st_next(st, &p)); /* one ACK for all of it */

    /* Ahead of order, with an overlap, and the gap filled last. */
    st_peer_at(&peer, 40000, FR_ACK, data + 65495 + 40000, 20000);
    st_peer_at(&peer, 30000, FR_ACK, data + 65495 + 30000, 20000);
    slirp_flow_stats(st->slirp, &stats);
    assert_true(stats.held_bytes >= 40000);
    st_peer_at(&peer, 0, FR_ACK, data + 65495, 35000);
    assert_int_equal(conn->got->len, 65495 + 60000);
    slirp_flow_stats(st->slirp, &stats);
    assert_int_equal(stats.held_bytes, 0);
    peer.seq += 60000;
    st_discard(st);

    /* Half of it is old. */
    st_peer_at(&peer, -30000u, FR_ACK, data + 65495 + 30000, 60000);
    assert_int_equal(conn->got->len, 65495 + 90000);
    peer.seq += 30000;
    st_discard(st);

    /* Nobody takes: the window closes by what is held, and what lies behind
     * its edge is not kept. */
    conn->quota = 0;
    st_peer_at(&peer, 0, FR_ACK, data + 155495, 40000);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq + 40000);
    assert_int_equal(p.win, 65536 - 40000);
    st_peer_at(&peer, 40000, FR_ACK, data + 195495, 60000);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq + 65536);
    assert_int_equal(p.win, 0);
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    assert_int_equal(conn->got->len, 155495 + 65536);
    assert_memory_equal(conn->got->data, data, conn->got->len);
    st_free(st);
    g_free(data);
}

/* FIN, and the end of the handshake, on a large packet. */
static void super_in_edges(void **state)
{
    struct st_stack *st = stack_with(1500, TSO);
    uint8_t *data = pattern(60000);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, data, 60000); /* data in a SYN comes again later */
    peer.seq -= 60000;
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    conn = st_conn_at(st, 0);
    conn->quota = 100;
    st_peer_send(&peer, FR_ACK | FR_FIN, data, 60000); /* the handshake's ACK with everything */
    assert_int_equal(conn->established, 1);
    assert_int_equal(conn->got->len, 100);
    assert_int_equal(conn->eof, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    assert_int_equal(conn->got->len, 60000);
    assert_memory_equal(conn->got->data, data, 60000);
    assert_int_equal(conn->eof, 1);
    st_free(st);
    g_free(data);
}

/* The guest's driver starts anew with other features, in the middle of a
 * transfer: what was sent one way comes again the other way. */
static void change_while_running(void **state)
{
    static const unsigned steps[] = {TSO, 0, CSUM, TSO, 0, TSO, CSUM, 0};
    struct st_stack *st = stack_with(1500, TSO);
    GByteArray *got = g_byte_array_new();
    uint8_t *data = pattern(1 << 20);
    struct st_peer peer;
    struct st_conn *conn;
    unsigned i = 0, cut = 0;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    open_window(&peer, conn, got);
    conn->out = data;
    conn->out_len = 1 << 20;
    st_conn_send(conn);
    while (got->len < 1 << 20) {
        unsigned super, partial;

        if (i % 16 == 5) {
            st_discard(st); /* lost with the old card */
        }
        st_set_offload(st, steps[i++ % G_N_ELEMENTS(steps)]);
        super = st->card.super;
        partial = st->card.partial;
        if (!burst(&peer, got)) {
            st_advance(st, 3000);
        }
        cut += st->card.super > super;
        /* cd_take() has looked at each packet; here, that they changed. */
        assert_true(st->offload & SLIRP_FLOW_OFFLOAD_TSO || st->card.super == super);
        assert_true(st->offload || st->card.partial == partial);
        assert_in_range(i, 0, 2000);
    }
    assert_memory_equal(got->data, data, 1 << 20);
    assert_true(i > 3 * G_N_ELEMENTS(steps) && cut >= 3);
    st_free(st);
    g_byte_array_unref(got);
    g_free(data);
}

/* Nonsense is nothing: no card cuts without summing. */
static void flags_alone(void **state)
{
    struct st_stack *st = st_new(1500);
    GByteArray *got = g_byte_array_new();
    struct st_peer peer;
    struct st_conn *conn;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 0);
    slirp_flow_set_offload(st->slirp, SLIRP_FLOW_OFFLOAD_TSO | 0xf0);
    open_window(&peer, conn, got);
    assert_int_equal(st->card.partial, 0);
    slirp_flow_set_offload(st->slirp, SLIRP_FLOW_OFFLOAD_CSUM | 0xf0);
    st->card.offload = CSUM;
    open_window(&peer, conn, got);
    assert_true(st->card.partial > 0);
    assert_int_equal(st->card.super, 0);
    st_free(st);
    g_byte_array_unref(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_in),    cmocka_unit_test(checksum_out),
        cmocka_unit_test(datagrams_out),  cmocka_unit_test(datagram_sum_zero),
        cmocka_unit_test(others_out),     cmocka_unit_test(super_out),
        cmocka_unit_test(gathered),       cmocka_unit_test(small_windows),
        cmocka_unit_test(persist),        cmocka_unit_test(lost_by_clock),
        cmocka_unit_test(lost_by_acks),   cmocka_unit_test(fin_at_end),
        cmocka_unit_test(half_closed),    cmocka_unit_test(super_in),
        cmocka_unit_test(super_in_edges), cmocka_unit_test(change_while_running),
        cmocka_unit_test(flags_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
