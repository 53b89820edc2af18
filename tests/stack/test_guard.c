/* SPDX-License-Identifier: BSD-3-Clause */
/* test_guard.c: frames that should not be there, fragments, and limits. */
#include "stack.h"

#include <string.h>
#include <malloc.h>
#include <arpa/inet.h>
#include <cmocka.h>

static SlirpFlowStats stats_of(struct st_stack *st)
{
    SlirpFlowStats stats;

    slirp_flow_stats(st->slirp, &stats);
    return stats;
}

/* Only the leased address and the known MAC get in. */
static void source_guard(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX];
    struct fr_packet p;
    struct fr_tcp syn = {.src = FR_GUEST + 1, .dst = FR_PEER, .sport = 1, .dport = 2, .flags = FR_SYN, .win = 1000};
    size_t n;

    (void)state;
    st_input(st, buf, fr_tcp(buf, &syn));
    st_input(st, buf, fr_udp(buf, FR_IP(127, 0, 0, 1), FR_PEER, 1, 2, "x", 1));
    st_input(st, buf, fr_udp(buf, 0, FR_PEER, 1, 2, "x", 1));
    st_input(st, buf, fr_echo(buf, FR_GATEWAY, FR_GATEWAY, 1, "x", 1));
    assert_int_equal(stats_of(st).drop_source, 4);

    syn.src = FR_GUEST;
    n = fr_tcp(buf, &syn);
    buf[11] ^= 1; /* another source MAC */
    st_input(st, buf, n);
    assert_int_equal(stats_of(st).drop_source, 5);
    buf[11] ^= 1;
    buf[0] ^= 1; /* not for us */
    st_input(st, buf, n);
    assert_int_equal(stats_of(st).drop_frame, 1);
    buf[0] ^= 1;
    assert_int_equal(st->asked, 0);
    assert_int_equal(st->datagrams->len, 0);
    assert_false(st_next(st, &p));
    st_input(st, buf, n);
    assert_int_equal(st->asked, 1);
    st_free(st);
}

/* Before the guest is known nothing passes, in either direction. */
static void guest_not_known(void **state)
{
    SlirpFlowConfig cfg;
    struct st_stack *st;
    uint8_t buf[FR_MAX];
    struct fr_packet p;
    SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 1, .peer_port = 53};
    struct in_addr guest = {htonl(FR_GUEST)};

    (void)state;
    st_config(&cfg, 1500);
    memset(cfg.guest_mac, 0, 6);
    st = st_new_cfg(&cfg);
    st_input(st, buf, fr_udp(buf, FR_GUEST, FR_PEER, 1, 2, "x", 1));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY));
    memset(buf + 6, 0, 6);
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY));
    assert_true(slirp_flow_udp_push(st->slirp, &addr, "x", 1));
    assert_int_equal(st->datagrams->len, 0);
    assert_false(st_next(st, &p));
    slirp_flow_set_guest(st->slirp, fr_guest_mac, guest);
    st_input(st, buf, fr_udp(buf, FR_GUEST, FR_PEER, 1, 2, "x", 1));
    assert_int_equal(st->datagrams->len, 1);
    st_free(st);
}

static void arp(void **state)
{
    static const uint8_t other_mac[6] = {2, 2, 2, 2, 2, 2};
    struct st_stack *st = st_new(1500);
    SlirpFlowConfig cfg;
    uint8_t buf[FR_MAX];
    struct fr_packet p;
    size_t n;

    (void)state;
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY));
    assert_true(st_next(st, &p));
    assert_int_equal(p.ether_type, 0x0806);
    assert_int_equal(p.src, FR_GATEWAY);
    assert_int_equal(p.dst, FR_GUEST);
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_RESOLVER));
    assert_true(st_next(st, &p));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, 0, FR_GATEWAY)); /* a probe */
    assert_true(st_next(st, &p));

    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_IP(10, 0, 2, 77)));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GUEST));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, 0, FR_GUEST));
    st_input(st, buf, fr_arp(buf, other_mac, FR_GUEST, FR_GATEWAY));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_IP(10, 0, 2, 9), FR_GATEWAY));
    for (n = 0; n < 42; n++) {
        fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY);
        st_input(st, buf, n);
    }
    for (n = 14; n < 22; n++) { /* every byte of the fixed part, and the reply */
        fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GATEWAY);
        buf[n] ^= 0x40;
        st_input(st, buf, 42);
    }
    assert_false(st_next(st, &p));
    st_free(st);

    st_config(&cfg, 1500);
    cfg.arp_all = true;
    st = st_new_cfg(&cfg);
    st_input(st, buf, fr_arp(buf, fr_guest_mac, FR_GUEST, FR_IP(10, 0, 2, 77)));
    assert_true(st_next(st, &p));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, 0, FR_GUEST));
    st_input(st, buf, fr_arp(buf, fr_guest_mac, 0, FR_IP(10, 0, 2, 77)));
    assert_false(st_next(st, &p));
    st_free(st);
}

static void ping(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX];
    struct fr_packet p;

    (void)state;
    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_GATEWAY, 7, "abc", 3));
    assert_true(st_next(st, &p));
    assert_int_equal(p.proto, FR_ICMP);
    assert_int_equal(p.icmp_type, 0);
    assert_int_equal(p.src, FR_GATEWAY);
    assert_memory_equal(p.data, "abc", 3);
    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_RESOLVER, 7, "abc", 3));
    assert_true(st_next(st, &p));

    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_PEER, 7, "abc", 3));
    assert_int_equal(st->others, 1);
    assert_int_equal(st->other_proto, FR_ICMP);
    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_IP(127, 0, 0, 1), 7, "abc", 3));
    assert_int_equal(st->others, 2);
    st_input(st, buf, fr_ip4(buf, 47, FR_GUEST, FR_PEER, 1, 0, "gre", 3));
    assert_int_equal(st->others, 3);
    assert_int_equal(st->other_proto, 47);
    assert_false(st_next(st, &p));
    st_free(st);
}

/* Every prefix of good frames, and every single wrong byte in their headers:
 * no crash, and no answer that is not well formed. */
static void cut_and_spoiled(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[4][FR_MAX];
    size_t len[4], i, j, bit;
    struct fr_tcp tcp = {.src = FR_GUEST,
                         .dst = FR_PEER,
                         .sport = 1000,
                         .dport = 80,
                         .flags = FR_ACK,
                         .win = 9000,
                         .data = "data",
                         .len = 4,
                         .mss = 1400};
    struct fr_packet p;

    (void)state;
    len[0] = fr_tcp(buf[0], &tcp);
    tcp.flags = FR_SYN;
    len[1] = fr_tcp(buf[1], &tcp);
    len[2] = fr_udp(buf[2], FR_GUEST, FR_PEER, 5, 6, "data", 4);
    len[3] = fr_echo(buf[3], FR_GUEST, FR_GATEWAY, 1, "data", 4);
    for (i = 0; i < 4; i++) {
        for (j = 0; j < len[i]; j++) {
            st_input(st, buf[i], j);
            for (bit = 0; bit < 8; bit++) {
                uint16_t sum;

                buf[i][j] ^= (uint8_t)(1 << bit);
                st_input(st, buf[i], len[i]);
                /* the same with a right IP checksum */
                buf[i][24] = buf[i][25] = 0;
                sum = fr_sum(buf[i] + 14, MIN((size_t)(buf[i][14] & 15) * 4, len[i] - 14), 0);
                buf[i][24] = (uint8_t)(sum >> 8);
                buf[i][25] = (uint8_t)sum;
                st_input(st, buf[i], len[i]);
                buf[i][j] ^= (uint8_t)(1 << bit);
                while (st_next(st, &p)) {
                    /* parsed and checked */
                }
            }
        }
    }
    st_free(st);
}

static void udp(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX], *big = g_malloc(65508);
    struct st_datagram *d;
    struct fr_packet p;
    SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 5353, .peer_port = 53};
    size_t sum = 0, n;
    unsigned frames = 0;

    (void)state;
    st_input(st, buf, fr_udp(buf, FR_GUEST, FR_PEER, 5353, 53, "query", 5));
    assert_int_equal(st->datagrams->len, 1);
    d = g_ptr_array_index(st->datagrams, 0);
    assert_memory_equal(d->data, "query", 5);
    assert_int_equal(d->addr.guest_port, 5353);
    assert_int_equal(d->addr.peer_port, 53);
    assert_int_equal(ntohl(d->addr.peer.s_addr), FR_PEER);
    assert_true(slirp_flow_udp_push(st->slirp, &addr, "answer", 6));
    assert_true(st_next(st, &p));
    assert_int_equal(p.proto, FR_UDP);
    assert_int_equal(p.sport, 53);
    assert_int_equal(p.dport, 5353);
    assert_memory_equal(p.data, "answer", 6);
    st_input(st, buf, fr_udp(buf, FR_GUEST, FR_PEER, 5353, 53, NULL, 0));
    assert_int_equal(st->datagrams->len, 2);
    assert_true(slirp_flow_udp_push(st->slirp, &addr, NULL, 0));
    assert_true(st_next(st, &p));
    assert_int_equal(p.len, 0);

    /* lengths that lie */
    n = fr_udp(buf, FR_GUEST, FR_PEER, 5353, 53, "query", 5);
    buf[40] = buf[41] = 0; /* no checksum: only the length can be wrong */
    for (unsigned l = 0; l < 64; l++) {
        guint before = st->datagrams->len;

        buf[38] = 0;
        buf[39] = (uint8_t)l;
        st_input(st, buf, n);
        assert_int_equal(st->datagrams->len - before, l >= 8 && l <= 13 ? 1 : 0);
        if (st->datagrams->len > before) {
            d = g_ptr_array_index(st->datagrams, before);
            assert_int_equal(d->len, l - 8);
        }
    }

    /* more than the MTU goes out in fragments */
    memset(big, 'b', 65508);
    assert_false(slirp_flow_udp_push(st->slirp, &addr, big, 65508));
    assert_true(slirp_flow_udp_push(st->slirp, &addr, big, 65507));
    while (st_next(st, &p)) {
        frames++;
        sum += p.len;
        assert_int_equal(p.proto, FR_UDP);
    }
    assert_int_equal(sum, 65507 + 8);
    assert_true(frames >= 45);

    slirp_flow_udp_unreach(st->slirp, &addr, 13);
    assert_true(st_next(st, &p));
    assert_int_equal(p.icmp_type, 3);
    assert_int_equal(p.icmp_code, 13);
    assert_int_equal(p.data[9], FR_UDP);
    assert_int_equal(p.data[20] << 8 | p.data[21], 5353);
    g_free(big);
    st_free(st);
}

/* IP options are left out; the rest is as before. */
static void ip_options(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX], part[64];
    struct st_datagram *d;
    uint16_t sum;
    size_t n;

    (void)state;
    n = fr_udp_part(part, FR_GUEST, FR_PEER, 1, 2, "opt", 3);
    fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 1, 0, NULL, n + 40);
    memset(buf + 34, 1, 40);
    buf[34] = 131; /* loose source route to somewhere */
    buf[35] = 7;
    buf[36] = 4;
    memcpy(buf + 74, part, n);
    buf[14] = 0x4f;
    buf[24] = buf[25] = 0;
    sum = fr_sum(buf + 14, 60, 0);
    buf[24] = (uint8_t)(sum >> 8);
    buf[25] = (uint8_t)sum;
    st_input(st, buf, 74 + n);
    assert_int_equal(st->datagrams->len, 1);
    d = g_ptr_array_index(st->datagrams, 0);
    assert_memory_equal(d->data, "opt", 3);
    assert_int_equal(ntohl(d->addr.peer.s_addr), FR_PEER);
    st_free(st);
}

/* ---- fragments ---- */

static void frag(struct st_stack *st, uint16_t id, const uint8_t *whole, size_t from, size_t len, bool more)
{
    uint8_t *buf = g_malloc(FR_MAX);

    st_input(st, buf,
             fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, id, (uint16_t)(from / 8 | (more ? 0x2000 : 0)), whole + from, len));
    g_free(buf);
}

static void frag_any_order(void **state)
{
    static const size_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    struct st_stack *st = st_new(1500);
    uint8_t data[2400], whole[2408];
    struct st_datagram *d;
    size_t i, j, k, n;

    (void)state;
    for (i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i ^ i >> 7);
    }
    n = fr_udp_part(whole, FR_GUEST, FR_PEER, 1, 2, data, sizeof(data));
    for (i = 0; i < G_N_ELEMENTS(orders); i++) {
        for (j = 0; j < 3; j++) {
            size_t from = orders[i][j] * 800;
            size_t len = from == 1600 ? n - from : 800;

            for (k = 0; k < (j < 2 ? 2 : 1); k++) { /* a duplicate does no harm */
                frag(st, (uint16_t)(100 + i), whole, from, len, from != 1600);
            }
        }
        assert_int_equal(st->datagrams->len, i + 1);
        d = g_ptr_array_index(st->datagrams, i);
        assert_int_equal(d->len, sizeof(data));
        assert_memory_equal(d->data, data, sizeof(data));
        assert_int_equal(stats_of(st).held_bytes, 0);
    }
    st_free(st);
}

static void frag_reassembled(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t *data = g_malloc(65507), *whole = g_malloc(65515);
    struct st_datagram *d;
    size_t i, n, from;

    (void)state;
    for (i = 0; i < 65507; i++) {
        data[i] = (uint8_t)(i * 11 >> 4);
    }
    n = fr_udp_part(whole, FR_GUEST, FR_PEER, 1, 2, data, 65507);
    /* the largest datagram, last fragment first */
    for (from = n / 1480 * 1480;; from -= 1480) {
        frag(st, 7, whole, from, MIN(1480, n - from), from + 1480 < n);
        if (!from) {
            break;
        }
    }
    assert_int_equal(st->datagrams->len, 1);
    d = g_ptr_array_index(st->datagrams, 0);
    assert_int_equal(d->len, 65507);
    assert_memory_equal(d->data, data, 65507);
    assert_int_equal(stats_of(st).held_bytes, 0);
    g_free(data);
    g_free(whole);
    st_free(st);
}

/* Overlap with other bytes, beyond 64 KiB, and other things that no honest
 * sender makes: nothing is delivered. */
static void frag_nonsense(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t whole[65536] = {0}, *buf = g_malloc(FR_MAX);

    (void)state;
    fr_udp_part(whole, FR_GUEST, FR_PEER, 1, 2, whole + 8, 1592);

    frag(st, 1, whole, 0, 800, true); /* teardrop: inside the first */
    frag(st, 1, whole, 24, 8, false);
    frag(st, 2, whole, 800, 800, false); /* overlaps what follows */
    frag(st, 2, whole, 0, 808, true);
    assert_int_equal(stats_of(st).drop_frag, 2);
    frag(st, 3, whole, 0, 804, true); /* not a multiple of 8 */
    assert_int_equal(stats_of(st).drop_frag, 3);
    frag(st, 3, whole, 800, 800, false);
    frag(st, 4, whole, 0, 0, true); /* empty */
    frag(st, 4, whole, 0, 0, false);
    st_input(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 5, 0x1fff, whole, 1000)); /* ping of death */
    assert_int_equal(st->datagrams->len, 0);
    assert_true(stats_of(st).drop_frag >= 5);

    st_advance(st, 60000); /* and what is left is given up */
    assert_int_equal(stats_of(st).held_bytes, 0);
    assert_int_equal(slirp_flow_timeout(st->slirp), -1);
    frag(st, 3, whole, 0, 800, true);
    frag(st, 3, whole, 800, 800, false);
    assert_int_equal(st->datagrams->len, 1);
    g_free(buf);
    st_free(st);
}

/* The header length that counts is the first fragment's. */
static void frag_header_length(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX], whole[24] = {8, 0, 0, 0};
    struct fr_packet p;
    uint16_t sum;

    (void)state;
    sum = fr_sum(whole, 24, 0);
    whole[2] = (uint8_t)(sum >> 8);
    whole[3] = (uint8_t)sum;
    /* first: 20 bytes of header; last: 60 */
    st_input(st, buf, fr_ip4(buf, FR_ICMP, FR_GUEST, FR_GATEWAY, 9, 0x2000, whole, 16));
    fr_ip4(buf, FR_ICMP, FR_GUEST, FR_GATEWAY, 9, 2, NULL, 48);
    memset(buf + 34, 1, 40);
    memcpy(buf + 74, whole + 16, 8);
    buf[14] = 0x4f;
    buf[24] = buf[25] = 0;
    sum = fr_sum(buf + 14, 60, 0);
    buf[24] = (uint8_t)(sum >> 8);
    buf[25] = (uint8_t)sum;
    st_input(st, buf, 82);
    assert_true(st_next(st, &p));
    assert_int_equal(p.icmp_type, 0);
    assert_int_equal(p.len, 16);
    st_free(st);
}

/* Together with the options of the first header it is more than 64 KiB. */
static void frag_header_overflow(void **state)
{
    struct st_stack *st = st_new(65520);
    uint8_t *buf = g_malloc(FR_MAX), *whole = g_malloc0(65515);
    struct fr_packet p;
    uint16_t sum;

    (void)state;
    whole[0] = 8;
    sum = fr_sum(whole, 65515, 0);
    whole[2] = (uint8_t)(sum >> 8);
    whole[3] = (uint8_t)sum;
    fr_ip4(buf, FR_ICMP, FR_GUEST, FR_GATEWAY, 9, 0x2000, NULL, 40 + 32000);
    memset(buf + 34, 1, 40);
    memcpy(buf + 74, whole, 32000);
    buf[14] = 0x4f;
    buf[24] = buf[25] = 0;
    sum = fr_sum(buf + 14, 60, 0);
    buf[24] = (uint8_t)(sum >> 8);
    buf[25] = (uint8_t)sum;
    st_input(st, buf, 74 + 32000);
    st_input(st, buf, fr_ip4(buf, FR_ICMP, FR_GUEST, FR_GATEWAY, 9, 32000 / 8, whole + 32000, 65515 - 32000));
    assert_false(st_next(st, &p));
    assert_int_equal(stats_of(st).drop_frag, 1);
    assert_int_equal(stats_of(st).held_bytes, 0);
    g_free(buf);
    g_free(whole);
    st_free(st);
}

/* RFC 1122, 3.2.1.7: a packet that has used up its time. */
static void ttl_zero(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX];
    struct fr_packet p;
    uint16_t sum;
    size_t n;

    (void)state;
    n = fr_udp(buf, FR_GUEST, FR_PEER, 1, 2, "x", 1);
    buf[22] = 0;
    buf[24] = buf[25] = 0;
    sum = fr_sum(buf + 14, 20, 0);
    buf[24] = (uint8_t)(sum >> 8);
    buf[25] = (uint8_t)sum;
    st_input(st, buf, n);
    assert_int_equal(st->datagrams->len, 0);
    assert_true(st_next(st, &p));
    assert_int_equal(p.icmp_type, 11);
    assert_int_equal(p.data[9], FR_UDP);
    st_free(st);
}

/* The largest and heaviest there is. */
static void big_datagram_ones(void **state)
{
    struct st_stack *st = st_new(65520);
    uint8_t *data = g_malloc(65507), *whole = g_malloc(65515), *buf = g_malloc(FR_MAX);
    struct fr_packet p;
    size_t n;

    (void)state;
    memset(data, 0xff, 65507);
    n = fr_udp_part(whole, FR_GUEST, FR_PEER, 0xffff, 0xffff, data, 65507);
    st_input(st, buf, fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, 1, 0, whole, n));
    assert_int_equal(st->datagrams->len, 1);
    st_input(st, buf, fr_echo(buf, FR_GUEST, FR_GATEWAY, 0xffff, data, 65480));
    assert_true(st_next(st, &p));
    assert_int_equal(p.len, 65480);
    g_free(data);
    g_free(whole);
    g_free(buf);
    st_free(st);
}

/* ---- limits ---- */

static void bounds_fragments(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t whole[1480] = {0};
    unsigned i, j;

    (void)state;
    for (i = 0; i < 3000; i++) {
        frag(st, (uint16_t)i, whole, 0, 1480, true);
        assert_true(stats_of(st).held_bytes <= 16 * 1024 * 1024);
    }
    assert_true(stats_of(st).held_bytes <= 16 * 2000);
    for (i = 0; i < 100; i++) { /* many tiny ones of few datagrams */
        for (j = 0; j < 1000; j++) {
            uint8_t buf[FR_MAX];

            st_input(st, buf,
                     fr_ip4(buf, FR_UDP, FR_GUEST, FR_PEER, (uint16_t)i, (uint16_t)(0x2000 | (j * 2 + 1)), whole, 8));
        }
        assert_true(stats_of(st).held_bytes <= 16 * 128 * 2000);
    }
    st_free(st);
}

static void bounds_reassembly(void **state)
{
    struct st_stack *st = st_new(65520);
    struct st_peer peer[64];
    struct st_conn *conn;
    struct fr_packet p;
    uint8_t data[2] = "ab";
    unsigned i, j;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(peer); i++) {
        st_peer_init(&peer[i], st, (uint16_t)(1000 + i), 1);
        st_peer_connect(&peer[i]);
        for (j = 0; j < 1000; j++) { /* every other byte */
            st_peer_at(&peer[i], 1 + j * 2, FR_ACK, data, 1);
        }
        st_discard(st);
        assert_true(stats_of(st).held_bytes <= 16 * 1024 * 1024);
    }
    assert_true(stats_of(st).drop_reass > 60000);

    /* the missing bytes are always taken, whatever is held */
    for (i = 0; i < G_N_ELEMENTS(peer); i++) {
        conn = st_conn_at(st, i);
        for (j = 0; j < 40; j++) {
            st_peer_at(&peer[i], conn->got->len, FR_ACK, data, 2);
            st_discard(st);
        }
        assert_true(conn->got->len >= 80);
    }
    for (i = 0; i < G_N_ELEMENTS(peer); i++) {
        slirp_flow_abort(st_conn_at(st, i)->flow);
    }
    assert_int_equal(stats_of(st).held_bytes, 0);
    while (st_next(st, &p)) {
    }
    st_free(st);
}

/* A SYN flood costs little memory for each flow, and only up to the limit. */
static void bounds_syn_flood(void **state)
{
    SlirpFlowConfig cfg;
    struct st_stack *st;
    struct st_peer peer;
    unsigned i;
#ifndef FR_ASAN
    struct mallinfo2 before = mallinfo2(), after;
#endif

    (void)state;
    st_config(&cfg, 65520);
    cfg.max_flows = 2000;
    st = st_new_cfg(&cfg);
    st->verdict = SLIRP_FLOW_PENDING;
    for (i = 0; i < 5000; i++) {
        st_peer_init(&peer, st, (uint16_t)(1000 + i), i);
        st_peer_send(&peer, FR_SYN, NULL, 0);
    }
    assert_int_equal(stats_of(st).flows, 2000);
    assert_int_equal(stats_of(st).drop_syn, 3000);
    assert_int_equal(st->asked, 2000);
#ifndef FR_ASAN
    after = mallinfo2();
    assert_true(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd < 2000 * 2048 + 1000000);
#endif
    st_advance(st, 80000);
    assert_int_equal(stats_of(st).flows, 0);
    st_free(st);
}

/* Refused SYNs leave nothing behind. */
static void bounds_refused(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    unsigned i;

    (void)state;
    st->verdict = SLIRP_FLOW_RST;
    for (i = 0; i < 20000; i++) {
        st_peer_init(&peer, st, (uint16_t)(1 + i), i);
        st_peer_send(&peer, FR_SYN, NULL, 0);
        st_discard(st);
    }
    assert_int_equal(stats_of(st).flows, 0);
    assert_int_equal(slirp_flow_timeout(st->slirp), -1);
    st_free(st);
}

/* Connections in TIME-WAIT do not use up the table. */
static void bounds_time_wait(void **state)
{
    SlirpFlowConfig cfg;
    struct st_stack *st;
    struct st_peer peer;
    struct fr_packet p;
    unsigned i;

    (void)state;
    st_config(&cfg, 1500);
    cfg.max_flows = 300;
    st = st_new_cfg(&cfg);
    for (i = 0; i < 2000; i++) {
        st_peer_init(&peer, st, (uint16_t)(1000 + i), i);
        st_peer_connect(&peer);
        slirp_flow_eof(st_conn_at(st, i)->flow);
        st_peer_recv(&peer, &p);
        st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
        st_discard(st);
        assert_int_equal(st_conn_at(st, i)->closed, 1);
        assert_true(stats_of(st).flows <= 257);
    }
    assert_int_equal(stats_of(st).drop_syn, 0);
    st_free(st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_guard),
        cmocka_unit_test(guest_not_known),
        cmocka_unit_test(arp),
        cmocka_unit_test(ping),
        cmocka_unit_test(cut_and_spoiled),
        cmocka_unit_test(udp),
        cmocka_unit_test(ip_options),
        cmocka_unit_test(frag_any_order),
        cmocka_unit_test(frag_reassembled),
        cmocka_unit_test(frag_nonsense),
        cmocka_unit_test(frag_header_length),
        cmocka_unit_test(frag_header_overflow),
        cmocka_unit_test(ttl_zero),
        cmocka_unit_test(big_datagram_ones),
        cmocka_unit_test(bounds_fragments),
        cmocka_unit_test(bounds_reassembly),
        cmocka_unit_test(bounds_syn_flood),
        cmocka_unit_test(bounds_refused),
        cmocka_unit_test(bounds_time_wait),
    };

    st_args(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
