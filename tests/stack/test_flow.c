/* SPDX-License-Identifier: BSD-3-Clause */
/* test_flow.c: the life of a flow, each callback and each way to its end. */
#include "stack.h"

#include <string.h>
#include <arpa/inet.h>
#include <cmocka.h>

#define ISN 0xfffffff0u /* every connection wraps early */

/* The first connection, from port 1000. */
static struct st_conn *connected(struct st_peer *peer, struct st_stack *st)
{
    st_peer_init(peer, st, 1000, ISN);
    st_peer_connect(peer);
    return st_conn_at(st, 0);
}

static void accept_at_once(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    assert_int_equal(st->asked, 1);
    assert_int_equal(ntohl(st->asked_addr.peer.s_addr), FR_PEER);
    assert_int_equal(ntohl(st->asked_addr.guest.s_addr), FR_GUEST);
    assert_int_equal(st->asked_addr.guest_port, 1000);
    assert_int_equal(st->asked_addr.peer_port, 80);
    conn = st_conn_at(st, 0);
    assert_int_equal(conn->established, 1);
    assert_ptr_equal(slirp_flow_cookie(conn->flow), conn);

    st_peer_send(&peer, FR_ACK | FR_PSH, "hello", 5);
    assert_memory_equal(conn->got->data, "hello", 5);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_int_equal(slirp_flow_push(conn->flow, "world!", 6), 6);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, 6);
    assert_memory_equal(p.data, "world!", 6);
    assert_false(st_next(st, &p));
    st_free(st);
    (void)conn;
}

/* Nothing goes to the guest and nothing is asked twice until the embedder
 * has decided. */
static void pending_then_accept(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    st->verdict = SLIRP_FLOW_PENDING;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_at(&peer, -1u, FR_SYN, NULL, 0);
    st_advance(st, 3000);
    st_peer_at(&peer, -1u, FR_SYN, NULL, 0);
    assert_false(st_next(st, &p));
    assert_int_equal(st->asked, 1);
    conn = st_conn_at(st, 0);
    assert_int_equal(conn->opened, 1);

    /* what the embedder has already goes out after the handshake */
    assert_int_equal(slirp_flow_push(conn->flow, "220 hi\r\n", 8), 8);
    assert_false(st_next(st, &p));
    slirp_flow_accept(conn->flow);
    slirp_flow_accept(conn->flow);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    assert_int_equal(p.len, 0);
    assert_false(st_next(st, &p));
    st_peer_send(&peer, FR_ACK, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_memory_equal(p.data, "220 hi\r\n", 8);
    slirp_flow_refuse(conn->flow, SLIRP_FLOW_UNREACH_NET); /* too late: an abort */
    st_peer_recv(&peer, &p);
    assert_true(p.flags & FR_RST);
    assert_int_equal(conn->end, SLIRP_FLOW_END_LOCAL);
    st_free(st);
}

/* Another SYN on the same ports is a new attempt of the guest. */
static void pending_new_isn(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st->verdict = SLIRP_FLOW_PENDING;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_init(&peer, st, 1000, 77777);
    peer.mss = 600;
    st_peer_send(&peer, FR_SYN, NULL, 0);
    assert_int_equal(st->asked, 1);
    slirp_flow_accept(st_conn_at(st, 0)->flow);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, 77778);
    st_free(st);
}

static const struct refusal {
    SlirpFlowVerdict how;
    int code; /* of ICMP, -1: RST, -2: silence */
} refusals[] = {
    {SLIRP_FLOW_DROP, -2},        {SLIRP_FLOW_RST, -1},         {SLIRP_FLOW_UNREACH_NET, 0},
    {SLIRP_FLOW_UNREACH_HOST, 1}, {SLIRP_FLOW_UNREACH_PORT, 3}, {SLIRP_FLOW_UNREACH_ADMIN, 13},
};

static void check_refusal(struct st_stack *st, struct st_peer *peer, int code)
{
    struct fr_packet p;

    if (code == -2) {
        assert_false(st_next(st, &p));
    } else if (code == -1) {
        st_peer_recv(peer, &p);
        assert_int_equal(p.flags, FR_RST | FR_ACK);
        assert_int_equal(p.ack, peer->seq);
    } else {
        assert_true(st_next(st, &p));
        assert_int_equal(p.proto, FR_ICMP);
        assert_int_equal(p.src, FR_GATEWAY);
        assert_int_equal(p.icmp_type, 3);
        assert_int_equal(p.icmp_code, code);
        assert_int_equal(p.len, 28);
        assert_int_equal(p.data[9], FR_TCP);
        /* the guest's kernel looks for ports and sequence number */
        assert_int_equal(p.data[20] << 8 | p.data[21], peer->sport);
        assert_int_equal(p.data[22] << 8 | p.data[23], peer->dport);
        assert_int_equal((uint32_t)p.data[24] << 24 | (uint32_t)p.data[25] << 16 | (uint32_t)p.data[26] << 8 |
                             p.data[27],
                         peer->seq - 1);
        assert_int_equal(fr_sum(p.data, 20, 0), 0);
    }
    assert_false(st_next(st, &p));
}

static void refuse_at_once(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(refusals); i++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;
        SlirpFlowStats stats;

        st->verdict = refusals[i].how;
        st_peer_init(&peer, st, 1000, ISN);
        st_peer_send(&peer, FR_SYN, NULL, 0);
        check_refusal(st, &peer, refusals[i].code);
        slirp_flow_stats(st->slirp, &stats);
        assert_int_equal(stats.flows, 0);
        assert_int_equal(slirp_flow_timeout(st->slirp), -1);
        st_free(st);
    }
}

static void refuse_later(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(refusals); i++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;

        st->verdict = SLIRP_FLOW_PENDING;
        st_peer_init(&peer, st, 1000, ISN);
        st_peer_send(&peer, FR_SYN, NULL, 0);
        st_advance(st, 700);
        slirp_flow_refuse(st_conn_at(st, 0)->flow, refusals[i].how);
        check_refusal(st, &peer, refusals[i].code);
        assert_int_equal(st_conn_at(st, 0)->closed, 1);
        assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_LOCAL);
        st_free(st);
    }
}

static void pending_times_out(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;

    (void)state;
    st->verdict = SLIRP_FLOW_PENDING;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_advance(st, 74000);
    assert_int_equal(st_conn_at(st, 0)->closed, 0);
    st_advance(st, 2000);
    assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_TIMEOUT);
    check_refusal(st, &peer, -1);
    st_free(st);
}

static void pending_guest_rst(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st->verdict = SLIRP_FLOW_PENDING;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_at(&peer, 5, FR_RST, NULL, 0); /* not its number */
    assert_int_equal(st_conn_at(st, 0)->closed, 0);
    st_peer_at(&peer, 0, FR_RST, NULL, 0);
    assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_GUEST_RST);
    assert_false(st_next(st, &p));
    st_free(st);
}

/* The guest lost our SYN-ACK. */
static void handshake_syn_again(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p, again;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &p);
    st_advance(st, 1000);
    st_peer_at(&peer, -1u, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &again);
    assert_int_equal(again.flags, FR_SYN | FR_ACK);
    assert_int_equal(again.seq, p.seq);
    assert_int_equal(again.ack, p.ack);
    assert_int_equal(st->asked, 1);
    /* and a half-open connection does not last however often it repeats */
    for (unsigned i = 0; i < 60; i++) {
        st_peer_at(&peer, -1u, FR_SYN, NULL, 0);
        st_advance(st, 2000);
    }
    assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_TIMEOUT);
    st_free(st);
}

/* RFC 9293, 3.10.7.4: in SYN-RECEIVED an ACK that does not cover our SYN gets
 * an RST. */
static void handshake_ack_of_nothing(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &p);
    peer.ack--;
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    assert_int_equal(st_conn_at(st, 0)->established, 0);
    assert_true(st_next(st, &p));
    assert_int_equal(p.flags, FR_RST);
    assert_int_equal(p.seq, peer.ack);
    peer.ack += 2; /* nor one of something we have not sent */
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    assert_int_equal(st_conn_at(st, 0)->established, 0);
    st_discard(st);
    peer.ack--;
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    assert_int_equal(st_conn_at(st, 0)->established, 1);
    st_free(st);
}

static void stray_segments(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    peer.ack = 4711;
    st_peer_at(&peer, 0, FR_ACK, "x", 1);
    assert_true(st_next(st, &p));
    assert_int_equal(p.flags, FR_RST);
    assert_int_equal(p.seq, 4711);
    st_peer_at(&peer, 0, FR_RST, NULL, 0); /* never an RST for an RST */
    st_peer_at(&peer, 0, FR_RST | FR_ACK, NULL, 0);
    assert_false(st_next(st, &p));
    st_peer_at(&peer, 0, FR_SYN | FR_FIN, NULL, 0);
    assert_true(st_next(st, &p));
    assert_true(p.flags & FR_RST);
    assert_int_equal(st->asked, 0);

    peer.dport = 0;
    st_peer_at(&peer, 0, FR_SYN, NULL, 0);
    peer.dport = 80;
    peer.dst = FR_IP(224, 0, 0, 1);
    st_peer_at(&peer, 0, FR_SYN, NULL, 0);
    peer.dst = 0xffffffff;
    st_peer_at(&peer, 0, FR_SYN, NULL, 0);
    peer.dst = 0;
    st_peer_at(&peer, 0, FR_SYN, NULL, 0);
    assert_false(st_next(st, &p));
    assert_int_equal(st->asked, 0);
    assert_int_equal(st->others, 4);
    st_free(st);
}

/* The MSS of the first SYN is kept while the flow is pending. */
static void mss_of_a_pending_syn(void **state)
{
    struct st_stack *st = st_new(65520);
    uint8_t data[5000];
    struct st_peer peer;
    struct fr_packet p;
    size_t sum = 0;

    (void)state;
    memset(data, 'm', sizeof(data));
    st->verdict = SLIRP_FLOW_PENDING;
    st->out = data;
    st->out_len = sizeof(data);
    st_peer_init(&peer, st, 1000, ISN);
    peer.mss = 536;
    st_peer_send(&peer, FR_SYN, NULL, 0);
    slirp_flow_accept(st_conn_at(st, 0)->flow);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.mss, 65480); /* what we can take is another matter */
    st_peer_send(&peer, FR_ACK, NULL, 0);
    while (sum < sizeof(data)) {
        st_peer_recv(&peer, &p);
        assert_true(p.len > 0 && p.len <= 536);
        sum += p.len;
        st_peer_send(&peer, FR_ACK, NULL, 0);
    }
    /* a later option changes nothing */
    peer.mss = 1400;
    st_peer_at(&peer, -1u, FR_SYN | FR_ACK, NULL, 0);
    st_discard(st);
    slirp_flow_push(st_conn_at(st, 0)->flow, data, 2000);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, 536);
    st_free(st);
}

static void mss_of_the_link(void **state)
{
    static const uint16_t mtus[] = {576, 1500, 9000, 65520, 65521};
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(mtus); i++) {
        struct st_stack *st = st_new(mtus[i]);
        uint8_t *data = g_malloc(65536);
        struct st_peer peer;
        struct fr_packet p;

        memset(data, 'd', 65536);
        st_peer_init(&peer, st, 1000, ISN);
        st_peer_send(&peer, FR_SYN, NULL, 0);
        st_peer_recv(&peer, &p);
        assert_int_equal(p.mss, mtus[i] - 40);
        st_peer_send(&peer, FR_ACK, NULL, 0);
        /* a segment as large as we said is taken whole */
        st_peer_send(&peer, FR_ACK, data, mtus[i] - 40);
        assert_int_equal(st_conn_at(st, 0)->got->len, mtus[i] - 40);
        st_discard(st);
        slirp_flow_push(st_conn_at(st, 0)->flow, data, 65536);
        st_peer_recv(&peer, &p);
        assert_true(p.len > 0 && p.len <= mtus[i] - 40u);
        g_free(data);
        st_free(st);
    }
}

/* RFC 9293, 3.1: the option list may be cut or lie about its length. */
static void options_cut(void **state)
{
    static const uint8_t cut[][4] = {
        {1, 1, 1, 2},   /* MSS without length */
        {2, 4, 1, 0},   /* fine */
        {1, 1, 2, 4},   /* MSS without value */
        {2, 255, 9, 9}, /* longer than the header */
        {99, 0, 2, 4},  /* length zero */
        {99, 1, 2, 4},  /* length one */
    };
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(cut); i++) {
        struct st_stack *st = st_new(1500);
        uint8_t buf[FR_MAX];
        struct fr_packet p;
        /* 536, if the option were read beyond the header */
        struct fr_tcp tcp = {.src = FR_GUEST,
                             .dst = FR_PEER,
                             .sport = 1,
                             .dport = 2,
                             .seq = 5,
                             .flags = FR_SYN,
                             .win = 65535,
                             .opts = cut[i],
                             .nopts = 4,
                             .data = "\x02\x18\x02\x18",
                             .len = 4};
        static const uint8_t data[1460];

        st_input(st, buf, fr_tcp(buf, &tcp));
        assert_true(st_next(st, &p));
        assert_int_equal(p.flags, FR_SYN | FR_ACK);
        assert_int_equal(p.mss, 1460);
        tcp = (struct fr_tcp){.src = FR_GUEST,
                              .dst = FR_PEER,
                              .sport = 1,
                              .dport = 2,
                              .seq = 6,
                              .ack = p.seq + 1,
                              .flags = FR_ACK,
                              .win = 65535};
        st_input(st, buf, fr_tcp(buf, &tcp));
        slirp_flow_push(st_conn_at(st, 0)->flow, data, sizeof(data));
        assert_true(st_next(st, &p));
        assert_int_equal(p.len, i == 1 ? 256 : 1460);
        st_free(st);
    }
}

/* Data in the SYN is not acknowledged, so it comes again. */
static void data_in_syn(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_at(&peer, 0, FR_SYN, "early", 5);
    peer.seq++;
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, ISN + 1);
    st_peer_send(&peer, FR_ACK, "early", 5);
    assert_int_equal(st_conn_at(st, 0)->got->len, 5);
    st_free(st);
}

/* RFC 6093: the urgent flag and pointer change nothing. */
static void urgent_is_ordinary(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN | FR_URG, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    peer.urp = 0xffff;
    st_peer_send(&peer, FR_ACK | FR_URG, "abc", 3);
    peer.urp = 1;
    st_peer_send(&peer, FR_ACK | FR_URG, "def", 3);
    st_peer_send(&peer, FR_ACK, "ghi", 3);
    assert_int_equal(st_conn_at(st, 0)->got->len, 9);
    assert_memory_equal(st_conn_at(st, 0)->got->data, "abcdefghi", 9);
    st_free(st);
}

/* What is not taken stays, closes the window, and comes again. */
static void back_pressure(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t data[1000], seen[64];
    struct st_peer peer;
    struct st_conn *conn;
    struct iovec iov[2];
    struct fr_packet p;
    uint16_t win = 65535;
    size_t sent = 0, i;

    (void)state;
    st->quota = 10;
    conn = connected(&peer, st);
    while (win >= sizeof(data)) {
        for (i = 0; i < sizeof(data); i++) {
            data[i] = (uint8_t)((sent + i) * 31 >> 3);
        }
        st_peer_send(&peer, FR_ACK, data, sizeof(data));
        sent += sizeof(data);
        st_peer_recv(&peer, &p);
        assert_int_equal(p.ack, peer.seq);
        win = p.win;
        assert_true(sent - 10 + win <= 65536);
    }
    assert_true(sent > 60000);
    assert_int_equal(conn->got->len, 10);
    assert_int_equal(slirp_flow_held(conn->flow, NULL), sent - 10);
    assert_int_equal(conn->offered, sent - 10); /* all of it, each time */
    assert_int_equal(slirp_flow_held(conn->flow, iov), sent - 10);
    memcpy(seen, iov[0].iov_base, sizeof(seen));
    assert_int_equal(seen[0], (uint8_t)(10 * 31 >> 3));

    /* drop: bytes that went another way */
    slirp_flow_drop(conn->flow, 20000);
    assert_int_equal(slirp_flow_held(conn->flow, NULL), sent - 20010);
    st_peer_recv(&peer, &p); /* the window opens again */
    assert_true(p.win > 16000);

    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    assert_int_equal(conn->got->len, sent - 20000);
    for (i = 10; i < conn->got->len; i++) {
        assert_int_equal(conn->got->data[i], (uint8_t)((i + 20000) * 31 >> 3));
    }
    st_peer_recv(&peer, &p);
    assert_true(p.win > 60000);
    st_free(st);
}

/* A sender that ignores the window loses the rest and nothing else. */
static void window_overrun(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t data[1400];
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    size_t i;

    (void)state;
    st->quota = 0;
    conn = connected(&peer, st);
    for (i = 0; i < 100; i++) {
        memset(data, (int)i, sizeof(data));
        st_peer_send(&peer, FR_ACK, data, sizeof(data));
        assert_true(slirp_flow_held(conn->flow, NULL) <= 65536);
        while (st_next(st, &p)) {
            assert_true(slirp_flow_held(conn->flow, NULL) + p.win <= 65536);
        }
    }
    /* Room that is too small to be offered is used all the same; what is
     * offered then must not wrap around. */
    slirp_flow_drop(conn->flow, 1000);
    st_discard(st);
    peer.seq -= (uint32_t)(100 * sizeof(data) - 65536); /* what was taken */
    st_peer_send(&peer, FR_ACK, data, 800);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_int_equal(p.win, 0);
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    st_peer_recv(&peer, &p); /* and when there is room again, it is said */
    assert_true(p.win > 60000);
    assert_int_equal(conn->got->len, 65536 - 1000 + 800);
    for (i = 0; i < 65536 - 1000; i++) {
        assert_int_equal(conn->got->data[i], (i + 1000) / 1400);
    }
    st_free(st);
}

/* A FIN that lies beyond the window is not one. */
static void fin_beyond_window(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t data[1400];
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    size_t n;

    (void)state;
    st->quota = 0;
    memset(data, 'f', sizeof(data));
    conn = connected(&peer, st);
    do {
        st_peer_send(&peer, FR_ACK, data, sizeof(data));
        st_peer_recv(&peer, &p);
        n = 65536 - slirp_flow_held(conn->flow, NULL);
    } while (n >= sizeof(data));
    assert_true(n > 0);
    st_peer_send(&peer, FR_ACK | FR_FIN, data, sizeof(data));
    assert_int_equal(slirp_flow_held(conn->flow, NULL), 65536);
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    assert_int_equal(conn->eof, 0);
    st_peer_at(&peer, (uint32_t) - (sizeof(data) + 1), FR_ACK | FR_FIN, data, sizeof(data));
    assert_int_equal(conn->eof, 1);
    assert_int_equal(conn->got->len % sizeof(data), 0);
    st_free(st);
}

/* The guest ends first; the embedder goes on, then ends. */
static void half_close_by_guest(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    conn = connected(&peer, st);
    st_peer_send(&peer, FR_ACK | FR_FIN, "bye", 3);
    assert_int_equal(conn->got->len, 3);
    assert_int_equal(conn->eof, 1);
    assert_int_equal(conn->closed, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_int_equal(p.flags, FR_ACK);
    slirp_flow_push(conn->flow, "answer", 6);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, 6);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    slirp_flow_eof(conn->flow);
    st_peer_recv(&peer, &p);
    assert_true(p.flags & FR_FIN);
    assert_int_equal(conn->closed, 0);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->eof, 1);
    st_free(st);
}

/* The embedder ends first; the guest goes on, then ends. */
static void half_close_by_embedder(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    SlirpFlowStats stats;

    (void)state;
    conn = connected(&peer, st);
    slirp_flow_push(conn->flow, "all", 3);
    slirp_flow_eof(conn->flow);
    slirp_flow_eof(conn->flow);
    assert_int_equal(slirp_flow_room(conn->flow, NULL), 0);
    assert_int_equal(slirp_flow_push(conn->flow, "more", 4), 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, 3);
    if (!(p.flags & FR_FIN)) {
        st_peer_recv(&peer, &p);
    }
    assert_true(p.flags & FR_FIN);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    assert_false(st_next(st, &p));
    st_advance(st, 60000);
    st_peer_send(&peer, FR_ACK, "upload", 6);
    assert_int_equal(conn->got->len, 6);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
    assert_int_equal(conn->eof, 1);
    assert_int_equal(conn->closed, 1); /* at once, not after TIME-WAIT */
    assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    st_peer_at(&peer, -1u, FR_ACK | FR_FIN, NULL, 0); /* our ACK got lost */
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    st_advance(st, 20000);
    slirp_flow_stats(st->slirp, &stats);
    assert_int_equal(stats.flows, 0);
    st_free(st);
}

/* Both FINs are through, but the embedder has not fetched everything: the
 * flow waits for it and loses nothing. */
static void closed_waits_for_held_bytes(void **state)
{
    int first;

    (void)state;
    for (first = 0; first < 2; first++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;
        struct st_conn *conn;
        struct fr_packet p;

        st->quota = 0;
        conn = connected(&peer, st);
        if (first == 0) {
            slirp_flow_eof(conn->flow);
            st_peer_recv(&peer, &p);
            st_peer_send(&peer, FR_ACK | FR_FIN, "last", 4);
        } else {
            st_peer_send(&peer, FR_ACK | FR_FIN, "last", 4);
            st_peer_recv(&peer, &p);
            slirp_flow_eof(conn->flow);
            st_peer_recv(&peer, &p);
            assert_true(p.flags & FR_FIN);
            st_peer_send(&peer, FR_ACK, NULL, 0);
        }
        st_advance(st, 60000);
        assert_int_equal(conn->closed, 0);
        assert_int_equal(conn->eof, 0);
        if (first ==
            0) /* a guest that is done has no socket any more, and answers what comes late with RST (RFC 1337) */
            st_peer_at(&peer, 0, FR_RST, NULL, 0);
        assert_int_equal(conn->closed, 0);
        conn->quota = 3;
        slirp_flow_pull(conn->flow);
        assert_int_equal(conn->closed, 0);
        slirp_flow_drop(conn->flow, 1);
        assert_int_equal(conn->eof, 1);
        assert_int_equal(conn->closed, 1);
        assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
        assert_memory_equal(conn->got->data, "las", 3);
        st_free(st);
    }
}

static void reset_by_guest(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    conn = connected(&peer, st);
    st_peer_send(&peer, FR_RST, NULL, 0);
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->end, SLIRP_FLOW_END_GUEST_RST);
    assert_int_equal(conn->eof, 0);
    assert_false(st_next(st, &p));
    st_free(st);
}

static void reset_by_embedder(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    conn = connected(&peer, st);
    slirp_flow_push(conn->flow, "half", 4);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    slirp_flow_abort(conn->flow);
    assert_int_equal(conn->end, SLIRP_FLOW_END_LOCAL);
    st_peer_recv(&peer, &p);
    assert_true(p.flags & FR_RST);
    assert_int_equal(p.seq, peer.ack);
    assert_int_equal(p.len, 0);
    assert_false(st_next(st, &p));
    st_free(st);
}

static void abort_inside(struct st_conn *conn)
{
    slirp_flow_push(conn->flow, "too late", 8);
    slirp_flow_eof(conn->flow);
    slirp_flow_abort(conn->flow);
    slirp_flow_pull(conn->flow);
    slirp_flow_drop(conn->flow, 1);
    assert_int_equal(conn->closed, 0);
}

/* Every callback may end the flow it is about. */
static void abort_in_callbacks(void **state)
{
    int which;

    (void)state;
    for (which = 0; which < 3; which++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;
        struct fr_packet p;

        st_peer_init(&peer, st, 1000, ISN);
        if (which == 0) {
            st->on_open = abort_inside;
            st_peer_send(&peer, FR_SYN, NULL, 0);
        } else {
            st_peer_connect(&peer);
            if (which == 1) {
                st_conn_at(st, 0)->on_data = abort_inside;
            } else {
                st_conn_at(st, 0)->on_eof = abort_inside;
            }
            st_peer_send(&peer, FR_ACK | FR_FIN, "abc", 3);
        }
        assert_int_equal(st_conn_at(st, 0)->closed, 1);
        assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_LOCAL);
        do {
            st_peer_recv(&peer, &p);
        } while (!(p.flags & FR_RST));
        assert_false(st_next(st, &p));
        st_free(st);
    }
}

static void echo_inside(struct st_conn *conn)
{
    slirp_flow_push(conn->flow, "pong", 4);
}

static void push_in_callback(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    st_conn_at(st, 0)->on_data = echo_inside;
    st_peer_send(&peer, FR_ACK, "ping", 4);
    do {
        st_peer_recv(&peer, &p);
    } while (!p.len);
    assert_memory_equal(p.data, "pong", 4);
    assert_int_equal(p.ack, peer.seq);
    st_free(st);
}

/* Sent, then closed, before the handshake was complete. */
static void eof_before_handshake(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st->verdict = SLIRP_FLOW_PENDING;
    st->out = (const uint8_t *)"banner";
    st->out_len = 6;
    st->out_eof = true;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    assert_false(st_next(st, &p));
    slirp_flow_accept(st_conn_at(st, 0)->flow);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_memory_equal(p.data, "banner", 6);
    if (!(p.flags & FR_FIN)) {
        st_peer_recv(&peer, &p);
    }
    assert_true(p.flags & FR_FIN);
    st_free(st);
}

/* A full window stops us, probes keep the connection, and it goes on. */
static void zero_window(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t data[8000];
    struct st_peer peer;
    struct fr_packet p;
    size_t sum = 0, i, probes = 0;

    (void)state;
    for (i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i >> 4);
    }
    st->out = data;
    st->out_len = sizeof(data);
    st_peer_init(&peer, st, 1000, ISN);
    peer.win = 0;
    st_peer_connect(&peer);
    assert_false(st_next(st, &p));
    for (i = 0; i < 30; i++) {
        st_advance(st, 10000);
        while (st_next(st, &p)) {
            assert_true(p.len <= 1);
            probes++;
            st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        }
    }
    assert_true(probes >= 3);
    assert_int_equal(st_conn_at(st, 0)->closed, 0);
    peer.win = 65535;
    st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    for (i = 0; sum < sizeof(data) && i < 100; i++) {
        while (st_next(st, &p)) {
            if (p.seq == peer.ack) {
                assert_memory_equal(p.data, data + sum, p.len);
                sum += p.len;
                peer.ack += (uint32_t)p.len;
            }
            st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        }
        st_advance(st, 1000);
    }
    assert_int_equal(sum, sizeof(data));
    st_free(st);
}

/* The send buffer fills; the embedder hears of room at half. */
static void writable(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t *data = g_malloc0(600000);
    struct iovec iov[2];
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    size_t sum = 0, i;

    (void)state;
    for (i = 0; i < 600000; i++) {
        data[i] = (uint8_t)(i * 7 >> 5);
    }
    st->out = data;
    st->out_len = 600000;
    conn = connected(&peer, st);
    assert_int_equal(conn->out_sent, 256 * 1024);
    assert_int_equal(slirp_flow_room(conn->flow, iov), 0);
    assert_int_equal(iov[0].iov_len + iov[1].iov_len, 0);
    while (sum < 600000) {
        while (st_next(st, &p)) {
            if (p.seq == peer.ack && p.len) {
                assert_memory_equal(p.data, data + sum, p.len);
                sum += p.len;
                peer.ack += (uint32_t)p.len;
            }
        }
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
    }
    assert_true(conn->writable >= 2 && conn->writable < 20);
    assert_int_equal(slirp_flow_room(conn->flow, iov), 256 * 1024);
    assert_int_equal(iov[0].iov_len + iov[1].iov_len, 256 * 1024);
    memset(iov[0].iov_base, 'z', 9);
    slirp_flow_commit(conn->flow, 9);
    st_peer_recv(&peer, &p);
    assert_memory_equal(p.data, "zzzzzzzzz", 9);
    g_free(data);
    st_free(st);
}

/* Same sequence numbers, different bytes: what came first counts. */
static void overlap(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn;

    (void)state;
    conn = connected(&peer, st);
    st_peer_at(&peer, 4, FR_ACK, "EEEE", 4);
    st_peer_at(&peer, 2, FR_ACK, "ccccccccGG", 10); /* over it: the new tail counts */
    st_peer_at(&peer, 4, FR_ACK, "xxxx", 4);
    assert_int_equal(conn->got->len, 0);
    st_peer_at(&peer, 0, FR_ACK, "AAAA", 4);
    st_peer_at(&peer, 0, FR_ACK, "zzzz", 4);
    assert_int_equal(conn->got->len, 12);
    assert_memory_equal(conn->got->data, "AA", 2);
    assert_memory_equal(conn->got->data + 10, "GG", 2);
    st_free(st);
}

/* A connection towards the guest. */
static void inbound(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_conn conn = {.stack = st, .quota = SIZE_MAX, .got = g_byte_array_new()};
    SlirpFlowAddr addr = {
        .guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_GATEWAY)}, .guest_port = 8080, .peer_port = 40000};
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    conn.flow = slirp_flow_connect(st->slirp, &addr, &conn);
    assert_non_null(conn.flow);
    assert_null(slirp_flow_connect(st->slirp, &addr, &conn));
    slirp_flow_push(conn.flow, "GET", 3);
    assert_true(st_next(st, &p));
    assert_int_equal(p.flags, FR_SYN);
    assert_int_equal(p.mss, 1460);
    assert_int_equal(p.dport, 8080);
    assert_int_equal(p.src, FR_GATEWAY);
    assert_false(st_next(st, &p));
    st_peer_init(&peer, st, 8080, ISN);
    peer.dst = FR_GATEWAY;
    peer.dport = 40000;
    peer.ack = p.seq + 1;
    st_peer_send(&peer, FR_SYN | FR_ACK, NULL, 0);
    assert_int_equal(conn.established, 1);
    do {
        st_peer_recv(&peer, &p);
    } while (!p.len);
    assert_memory_equal(p.data, "GET", 3);
    st_peer_send(&peer, FR_ACK | FR_FIN, "200", 3);
    assert_memory_equal(conn.got->data, "200", 3);
    assert_int_equal(conn.eof, 1);
    slirp_flow_eof(conn.flow);
    st_peer_recv(&peer, &p);
    while (!(p.flags & FR_FIN)) {
        st_peer_recv(&peer, &p);
    }
    st_peer_send(&peer, FR_ACK, NULL, 0);
    assert_int_equal(conn.end, SLIRP_FLOW_END_CLEAN);
    assert_int_equal(conn.closed, 1);

    addr.peer_port++;
    conn.flow = slirp_flow_connect(st->slirp, &addr, &conn);
    assert_true(st_next(st, &p));
    peer.dport++;
    peer.ack = p.seq + 1;
    st_peer_send(&peer, FR_RST | FR_ACK, NULL, 0);
    assert_int_equal(conn.closed, 2);
    assert_int_equal(conn.end, SLIRP_FLOW_END_GUEST_RST);
    g_byte_array_unref(conn.got);
    st_free(st);
}

/* Ports used again while the old connection is in TIME-WAIT. */
static void time_wait_reuse(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;
    uint32_t last;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    slirp_flow_eof(st_conn_at(st, 0)->flow);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
    st_peer_recv(&peer, &p);
    last = p.seq;
    assert_int_equal(st_conn_at(st, 0)->closed, 1);
    st_peer_init(&peer, st, 1000, peer.seq + 1000000);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    assert_int_equal(st->asked, 2);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    assert_true((int32_t)(p.seq - last) > 65535);
    st_free(st);
}

static uint32_t isn_of(struct st_stack *st, uint16_t sport)
{
    struct st_peer peer;
    struct fr_packet p;

    st_peer_init(&peer, st, sport, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_RST, NULL, 0);
    return p.seq;
}

/* RFC 6528: what one connection shows says nothing about another, the secret
 * matters, and the same tuple moves with the clock. */
static void isn_unpredictable(void **state)
{
    struct st_stack *st = st_new(1500), *other;
    SlirpFlowConfig cfg;
    uint32_t first, again, spread = 0, deltas[200];
    unsigned i, j, same = 0;

    (void)state;
    first = isn_of(st, 1000);
    st->now_ns += 400000000;
    again = isn_of(st, 1000);
    assert_int_equal(again - first, 100000); /* one in 4 us */

    for (i = 0; i < 200; i++) {
        uint32_t isn = isn_of(st, (uint16_t)(2000 + i));

        deltas[i] = isn - again;
        spread |= deltas[i];
        for (j = 0; j < i; j++) {
            same += deltas[i] == deltas[j];
        }
    }
    assert_true(same == 0);
    assert_int_equal(spread, 0xffffffff);

    st_config(&cfg, 1500);
    cfg.secret[31] ^= 1;
    other = st_new_cfg(&cfg);
    other->now_ns = st->now_ns;
    assert_int_not_equal(isn_of(st, 3000), isn_of(other, 3000));
    st_free(other);
    st_free(st);
}

/* Instances share nothing. */
static void two_instances(void **state)
{
    struct st_stack *a = st_new(1500), *b = st_new(9000);
    struct st_peer pa, pb;

    (void)state;
    b->now_ns = 987654321;
    st_peer_init(&pa, a, 1000, 1);
    st_peer_init(&pb, b, 1000, 1);
    st_peer_connect(&pa);
    st_peer_connect(&pb);
    st_peer_send(&pa, FR_ACK, "a", 1);
    st_peer_send(&pb, FR_ACK, "bb", 2);
    assert_int_equal(st_conn_at(a, 0)->got->len, 1);
    assert_int_equal(st_conn_at(b, 0)->got->len, 2);
    st_free(a);
    assert_int_equal(st_conn_at(b, 0)->closed, 0);
    st_peer_send(&pb, FR_ACK, "bb", 2);
    assert_int_equal(st_conn_at(b, 0)->got->len, 4);
    st_free(b);
}

/* Nobody answers: the guest is gone. */
static void guest_vanishes(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    slirp_flow_push(st_conn_at(st, 0)->flow, "x", 1);
    st_advance(st, 30 * 60 * 1000);
    assert_int_equal(st_conn_at(st, 0)->end, SLIRP_FLOW_END_TIMEOUT);
    assert_int_equal(slirp_flow_timeout(st->slirp), -1);
    st_free(st);
}

/* An idle connection stays: keep-alive is the guest's affair. */
static void idle_stays(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_connect(&peer);
    st_advance(st, 5 * 3600 * 1000);
    assert_false(st_next(st, &p));
    st_peer_send(&peer, FR_ACK, "still here", 10);
    assert_int_equal(st_conn_at(st, 0)->got->len, 10);
    st_free(st);
}

static void config_refused(void **state)
{
    static const SlirpFlowOps none;
    SlirpFlowConfig cfg;

    (void)state;
    st_config(&cfg, 1500);
    assert_null(slirp_flow_new(&cfg, &none, NULL));
    st_config(&cfg, 575);
    assert_null(slirp_flow_new(&cfg, &none, NULL));
}

/* Frames that were read in one go: one ACK for all that was in order, and what
 * the guest's ACKs make room for goes together; what is out of order, and an
 * end, are answered at once. */
static void batch(void **state)
{
    static const uint8_t data[1000];
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st);
    struct fr_packet p;
    unsigned i;

    (void)state;
    slirp_flow_begin(st->slirp);
    slirp_flow_begin(st->slirp);
    for (i = 0; i < 5; i++) {
        st_peer_send(&peer, FR_ACK, data, 100);
    }
    slirp_flow_end(st->slirp);
    assert_int_equal(conn->got->len, 500); /* taken as it came */
    assert_false(st_next(st, &p));
    slirp_flow_end(st->slirp);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_false(st_next(st, &p));

    slirp_flow_begin(st->slirp);
    st_peer_send(&peer, FR_ACK, data, 100);
    for (i = 0; i < 3; i++) {
        st_peer_at(&peer, 100 + 100 * i, FR_ACK, data, 100);
        st_peer_recv(&peer, &p);
        assert_int_equal(p.ack, peer.seq);
        assert_false(st_next(st, &p));
    }
    st_peer_send(&peer, FR_ACK, data, 100);
    peer.seq += 300;
    assert_false(st_next(st, &p));
    slirp_flow_end(st->slirp);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_false(st_next(st, &p));

    /* what the embedder says in between waits as well, and is said once */
    slirp_flow_begin(st->slirp);
    slirp_flow_push(conn->flow, data, 10);
    st_peer_send(&peer, FR_ACK, data, 100);
    slirp_flow_push(conn->flow, data, 10);
    slirp_flow_end(st->slirp);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.len, 20);
    assert_int_equal(p.ack, peer.seq);
    assert_false(st_next(st, &p));

    /* data, FIN, and the end of it all, within one batch */
    slirp_flow_begin(st->slirp);
    st_peer_send(&peer, FR_ACK, data, 100);
    st_peer_send(&peer, FR_ACK | FR_FIN, data, 100);
    assert_int_equal(conn->eof, 1);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    slirp_flow_eof(conn->flow);
    slirp_flow_end(st->slirp);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags & (FR_FIN | FR_ACK), FR_FIN | FR_ACK);
    assert_int_equal(p.ack, peer.seq);
    slirp_flow_begin(st->slirp);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    slirp_flow_end(st->slirp);
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->end, SLIRP_FLOW_END_CLEAN);
    assert_int_equal(conn->got->len, 500 + 500 + 100 + 200);

    /* a reset behind data that nobody has been told of yet */
    st_peer_init(&peer, st, 1001, ISN);
    st_peer_connect(&peer);
    conn = st_conn_at(st, 1);
    slirp_flow_begin(st->slirp);
    st_peer_send(&peer, FR_ACK, data, 100);
    st_peer_send(&peer, FR_ACK | FR_RST, NULL, 0);
    slirp_flow_end(st->slirp);
    assert_false(st_next(st, &p));
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->end, SLIRP_FLOW_END_GUEST_RST);
    st_free(st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_at_once),
        cmocka_unit_test(pending_then_accept),
        cmocka_unit_test(pending_new_isn),
        cmocka_unit_test(refuse_at_once),
        cmocka_unit_test(refuse_later),
        cmocka_unit_test(pending_times_out),
        cmocka_unit_test(pending_guest_rst),
        cmocka_unit_test(handshake_syn_again),
        cmocka_unit_test(handshake_ack_of_nothing),
        cmocka_unit_test(stray_segments),
        cmocka_unit_test(mss_of_a_pending_syn),
        cmocka_unit_test(mss_of_the_link),
        cmocka_unit_test(options_cut),
        cmocka_unit_test(data_in_syn),
        cmocka_unit_test(urgent_is_ordinary),
        cmocka_unit_test(back_pressure),
        cmocka_unit_test(window_overrun),
        cmocka_unit_test(fin_beyond_window),
        cmocka_unit_test(half_close_by_guest),
        cmocka_unit_test(half_close_by_embedder),
        cmocka_unit_test(closed_waits_for_held_bytes),
        cmocka_unit_test(reset_by_guest),
        cmocka_unit_test(reset_by_embedder),
        cmocka_unit_test(abort_in_callbacks),
        cmocka_unit_test(push_in_callback),
        cmocka_unit_test(eof_before_handshake),
        cmocka_unit_test(zero_window),
        cmocka_unit_test(batch),
        cmocka_unit_test(writable),
        cmocka_unit_test(overlap),
        cmocka_unit_test(inbound),
        cmocka_unit_test(time_wait_reuse),
        cmocka_unit_test(isn_unpredictable),
        cmocka_unit_test(two_instances),
        cmocka_unit_test(guest_vanishes),
        cmocka_unit_test(idle_stays),
        cmocka_unit_test(config_refused),
    };

    st_args(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
