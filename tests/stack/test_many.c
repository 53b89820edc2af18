/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many flows in one stack: each finds its own among them, and none costs anything while its timers wait.
 *
 * The timers' tests hold what stock's walk did each half second to what comes of doing it when somebody looks: a
 * timer runs at its time within a tick, whatever slept before it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "stack.h"

#define ISN 1000
#define MANY 4000
#define HOUR_MS (3600 * 1000)

/* Of libslirp-flow's flow.h, which needs the engine's headers. */
uint64_t flow_prf(const uint64_t key[2], struct in_addr guest, uint16_t guest_port, struct in_addr peer,
                  uint16_t peer_port);
uint64_t flow_hash(const uint64_t key[2], struct in_addr guest, uint16_t guest_port, struct in_addr peer,
                   uint16_t peer_port);

static SlirpFlowStats stats_of(struct st_stack *st)
{
    SlirpFlowStats s;

    slirp_flow_stats(st->slirp, &s);
    return s;
}

static struct st_conn *connected(struct st_peer *peer, struct st_stack *st, uint16_t sport)
{
    st_peer_init(peer, st, sport, ISN + sport);
    st_peer_connect(peer);
    return st_conn_at(st, st->conns->len - 1);
}

static struct st_stack *with_room(uint16_t mtu, size_t flows)
{
    SlirpFlowConfig cfg;

    st_config(&cfg, mtu);
    cfg.max_flows = flows;
    return st_new_cfg(&cfg);
}

/* Twelve bytes 0 to 11 under the key 0 to 15, the last under the key 0 (which is CPython's hash of bytes with
 * PYTHONHASHSEED=0), prf from the paper's list. */
static void hash_is_siphash(void **state)
{
    uint8_t bytes[16], in[12], want[8] = {0xa2, 0xd9, 0xb4, 0x57, 0xb1, 0x84, 0xa3, 0x78},
                               prf[8] = {0xfb, 0xe5, 0x0e, 0x86, 0xbc, 0x8f, 0x1e, 0x75},
                               zero[8] = {0xc2, 0xe1, 0x9f, 0x0f, 0xfb, 0xf4, 0xba, 0xa6};
    struct in_addr guest, peer;
    uint16_t guest_port, peer_port;
    uint64_t key[2], got;

    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    memcpy(key, bytes, sizeof(key));
    memcpy(in, bytes, sizeof(in));
    memcpy(&guest, in, 4);
    memcpy(&peer, in + 4, 4);
    memcpy(&guest_port, in + 8, 2);
    memcpy(&peer_port, in + 10, 2);
    got = flow_hash(key, guest, guest_port, peer, peer_port);
    assert_memory_equal(&got, want, sizeof(want));
    got = flow_prf(key, guest, guest_port, peer, peer_port);
    assert_memory_equal(&got, prf, sizeof(prf));
    key[0] = key[1] = 0;
    got = flow_hash(key, guest, guest_port, peer, peer_port);
    assert_memory_equal(&got, zero, sizeof(zero));
}

/* Every second flow goes; the rest go on, and the same four-tuples are new flows. A table of 64 chains, so that all of
 * them have several. */
static void find_among_many(void **state)
{
    struct st_stack *st = with_room(1500, MANY);
    struct st_peer *peers = g_new0(struct st_peer, MANY);
    struct fr_packet p;

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        st_peer_init(&peers[i], st, (uint16_t)(1000 + i % 1000), i);
        peers[i].dst = FR_PEER + i / 1000;
        st_peer_connect(&peers[i]);
    }
    assert_int_equal(st->conns->len, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        unsigned k = i * 7 % MANY;
        st_peer_send(&peers[k], FR_ACK, &k, sizeof(k));
        st_peer_recv(&peers[k], &p);
        assert_int_equal(p.ack, peers[k].seq);
    }
    for (unsigned i = 0; i < MANY; i++) {
        struct st_conn *c = st_conn_at(st, i);
        assert_int_equal(c->got->len, sizeof(i));
        assert_memory_equal(c->got->data, &i, sizeof(i));
        assert_int_equal(c->addr.guest_port, peers[i].sport);
    }
    for (unsigned i = 0; i < MANY; i += 2)
        st_peer_send(&peers[i], FR_RST | FR_ACK, NULL, 0);
    assert_int_equal(stats_of(st).flows, MANY / 2);
    for (unsigned i = 0; i < MANY; i++) {
        st_peer_send(&peers[i], FR_ACK, "x", 1);
        assert_true(st_next(st, &p));
        assert_int_equal(p.dport, peers[i].sport);
        assert_int_equal(!!(p.flags & FR_RST), i % 2 == 0);
        assert_int_equal(st_conn_at(st, i)->closed, i % 2 == 0);
    }
    for (unsigned i = 0; i < MANY; i += 2) {
        peers[i].seq += 100000;
        st_peer_connect(&peers[i]);
        assert_int_equal(st_conn_at(st, st->conns->len - 1)->addr.guest_port, peers[i].sport);
    }
    assert_int_equal(stats_of(st).flows, MANY);
    assert_false(st_next(st, &p));
    st_free(st);
    g_free(peers);
}

/* A four-tuple in TIME-WAIT is found, and a new SYN takes it over (RFC 1122, 4.2.2.13). */
static void find_time_wait(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer, other;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;

    (void)state;
    slirp_flow_eof(conn->flow);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(conn->closed, 1);
    (void)connected(&other, st, 1001);
    st_peer_at(&peer, -1u, FR_ACK | FR_FIN, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.ack, peer.seq);
    assert_false(p.flags & FR_RST);
    peer.seq += 100000; /* beyond the window */
    st_peer_connect(&peer);
    assert_int_equal(st->conns->len, 3);
    assert_int_equal(stats_of(st).flows, 2);
    st_peer_send(&peer, FR_ACK, "new", 3);
    assert_int_equal(st_conn_at(st, 2)->got->len, 3);
    st_free(st);
}

/* Connections that have done something and wait: nobody wakes up for an hour. */
static void idle_flows_sleep(void **state)
{
    struct st_stack *st = with_room(1500, MANY);
    struct st_peer *peers = g_new0(struct st_peer, MANY);
    struct fr_packet p;

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        struct st_conn *c = connected(&peers[i], st, (uint16_t)(1000 + i));
        assert_int_equal(slirp_flow_push(c->flow, "hello", 5), 5);
        st_peer_recv(&peers[i], &p);
        st_peer_send(&peers[i], FR_ACK, NULL, 0);
    }
    assert_true(slirp_flow_timeout(st->slirp) <= 12000);
    st_advance(st, 20000); /* retransmission timers that were stopped come up once */
    assert_true(slirp_flow_timeout(st->slirp) > HOUR_MS);
    st_advance(st, 24 * HOUR_MS);
    assert_false(st_next(st, &p));
    assert_int_equal(stats_of(st).flows, MANY);
    for (unsigned i = 0; i < MANY; i += 100) {
        st_peer_send(&peers[i], FR_ACK, "x", 1);
        st_peer_recv(&peers[i], &p);
        assert_int_equal(p.flags & FR_RST, 0);
    }
    st_free(st);
    g_free(peers);
}

/* Milliseconds until the next frame to the guest, to 100 ms; -1: none within limit. */
static int until_frame(struct st_stack *st, int limit, struct fr_packet *ret)
{
    for (int ms = 0; ms <= limit; ms += 100) {
        if (st_next(st, ret))
            return ms;
        st_advance(st, 100);
    }
    return -1;
}

/* Retransmissions come at doubling distances, after any time of rest, and beside flows that rest. */
static void timer_retransmission(void **state)
{
    struct st_stack *st = with_room(1500, MANY);
    struct st_peer peer, beside;
    struct st_conn *conn;
    struct fr_packet p;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        (void)connected(&beside, st, (uint16_t)(2000 + i));
    conn = connected(&peer, st, 1000);
    for (unsigned round = 0; round < 3; round++) {
        int before = 0, ms;
        st_advance(st, round * HOUR_MS + 50);
        assert_int_equal(slirp_flow_push(conn->flow, "word", 4), 4);
        assert_true(st_next(st, &p));
        assert_int_equal(p.len, 4);
        for (unsigned i = 0; i < 4; i++) {
            ms = until_frame(st, 30000, &p);
            assert_int_equal(p.len, 4);
            assert_int_equal(p.seq, peer.ack);
            assert_true(i == 0 ? ms >= 400 : ms >= before * 3 / 2);
            assert_true(ms <= 13000);
            before = ms;
        }
        peer.ack += 4;
        st_peer_send(&peer, FR_ACK, NULL, 0);
        assert_int_equal(until_frame(st, 60000, &p), -1);
        assert_int_equal(conn->closed, 0);
        /* An answer at once: the next round begins with a short timer again. */
        for (unsigned i = 0; i < 20; i++) {
            (void)slirp_flow_push(conn->flow, "x", 1);
            st_peer_recv(&peer, &p);
            st_peer_send(&peer, FR_ACK, NULL, 0);
        }
    }
    st_free(st);
}

/* Time in which the flow rests is no round trip: after it a lost segment comes again as soon as before it. */
static void timer_rest_is_no_rtt(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        (void)slirp_flow_push(conn->flow, "x", 1);
        st_peer_recv(&peer, &p);
        st_peer_send(&peer, FR_ACK, NULL, 0);
        st_advance(st, 10 * 60 * 1000);
    }
    (void)slirp_flow_push(conn->flow, "x", 1);
    st_peer_recv(&peer, &p);
    assert_true(until_frame(st, 10000, &p) <= 1600);
    st_free(st);
}

/* A round trip of three seconds is one: the timer learns it, and does not fire before the answer. */
static void timer_learns_rtt(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;
    unsigned again = 0;

    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        (void)slirp_flow_push(conn->flow, "x", 1);
        st_peer_recv(&peer, &p);
        st_advance(st, 3000);
        while (st_next(st, &p))
            again += i >= 30;
        st_peer_send(&peer, FR_ACK, NULL, 0);
    }
    assert_int_equal(again, 0);
    st_free(st);
}

/* TIME-WAIT lasts ten seconds, and a half-closed connection of which nothing comes ends. */
static void timer_2msl(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;

    (void)state;
    st_advance(st, HOUR_MS);
    slirp_flow_eof(conn->flow);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK | FR_FIN, NULL, 0);
    st_peer_recv(&peer, &p);
    st_advance(st, 6000);
    st_peer_at(&peer, -1u, FR_ACK | FR_FIN, NULL, 0);
    st_peer_recv(&peer, &p);
    st_advance(st, 3000);
    assert_int_equal(stats_of(st).flows, 1);
    st_advance(st, 2000);
    assert_int_equal(stats_of(st).flows, 0);
    assert_int_equal(slirp_flow_timeout(st->slirp), -1);

    conn = connected(&peer, st, 1001);
    slirp_flow_eof(conn->flow);
    st_peer_recv(&peer, &p);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    st_advance(st, 9 * 60 * 1000);
    assert_int_equal(conn->closed, 0);
    st_advance(st, 15 * 60 * 1000);
    assert_int_equal(conn->closed, 1);
    assert_int_equal(conn->end, SLIRP_FLOW_END_TIMEOUT);
    st_free(st);
}

/* A window of nothing is asked about at least every minute, also after a rest. */
static void timer_persist(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;

    (void)state;
    peer.win = 0;
    for (unsigned i = 0; i < 2; i++) { /* a segment that begins where the last one did closes nothing */
        st_peer_send(&peer, FR_ACK, "x", 1);
        st_peer_recv(&peer, &p);
    }
    st_advance(st, 2 * HOUR_MS);
    assert_false(st_next(st, &p));
    (void)slirp_flow_push(conn->flow, "held", 4);
    for (unsigned i = 0; i < 10; i++) {
        int ms = until_frame(st, 70000, &p);
        assert_true(ms >= 4000 && ms <= 61000);
        assert_true(p.len <= 1);
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        st_discard(st);
    }
    assert_int_equal(conn->closed, 0);
    st_free(st);
}

/* The process was stopped for ten minutes while a word was on the way: it is sent again once, and the connection has
 * not been given up meanwhile. */
static void timer_stopped_process(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct st_conn *conn = connected(&peer, st, 1000);
    struct fr_packet p;

    (void)state;
    (void)slirp_flow_push(conn->flow, "word", 4);
    st_peer_recv(&peer, &p);
    st->now_ns += INT64_C(600) * 1000000000;
    (void)slirp_flow_timer(st->slirp);
    (void)slirp_flow_timer(st->slirp);
    assert_true(st_next(st, &p));
    assert_int_equal(p.len, 4);
    assert_false(st_next(st, &p));
    st_peer_send(&peer, FR_ACK, NULL, 0);
    st_advance(st, 60000);
    assert_false(st_next(st, &p));
    assert_int_equal(conn->closed, 0);
    st_free(st);
}

/* How much comes before anything is acknowledged; all of it is acknowledged then, as a guest does, in one. */
static size_t burst(struct st_stack *st, struct st_peer *peer)
{
    struct fr_packet p;
    size_t sum = 0;

    while (st_next(st, &p)) {
        assert_int_equal(p.seq, peer->ack);
        peer->ack += (uint32_t)p.len;
        sum += p.len;
    }
    return sum;
}

static void initial_window(void **state)
{
    static const struct {
        uint16_t mtu;
        size_t want;
    } rows[] = /* the last guest's window has room for one of its two */
        {{1500, 10 * 1460}, {576, 10 * 536}, {9000, 2 * 8960}, {65520, 65480}};
    static uint8_t data[100000];

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct st_stack *st = st_new(rows[i].mtu);
        struct st_peer peer;
        size_t second, third;
        st->out = data;
        st->out_len = sizeof(data);
        (void)connected(&peer, st, 1000);
        size_t first = burst(st, &peer);
        assert_int_equal(first, rows[i].want);
        if (rows[i].mtu == 1500) {
            st_peer_send(&peer, FR_ACK, NULL, 0);
            second = burst(st, &peer);
            assert_true(second > first);
            /* After a pause it begins again, with no more than that. */
            st_peer_send(&peer, FR_ACK, NULL, 0);
            (void)burst(st, &peer);
            while (st_conn_at(st, 0)->out_sent < sizeof(data)) {
                st_peer_send(&peer, FR_ACK, NULL, 0);
                st_conn_send(st_conn_at(st, 0));
                (void)burst(st, &peer);
            }
            do {
                st_peer_send(&peer, FR_ACK, NULL, 0);
            } while (burst(st, &peer) > 0);
            st_advance(st, 60000);
            st_conn_at(st, 0)->out_sent = 0;
            st_conn_send(st_conn_at(st, 0));
            third = burst(st, &peer);
            assert_int_equal(third, rows[i].want);
        }
        st_free(st);
    }
}

/* RFC 6928, 2: one segment, when the SYN-ACK had to be sent again by its timer. */
static void initial_window_after_loss(void **state)
{
    static uint8_t data[100000];
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st->out = data;
    st->out_len = sizeof(data);
    st_peer_init(&peer, st, 1000, ISN);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    assert_true(st_next(st, &p));
    assert_true(until_frame(st, 20000, &p) > 0);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    peer.ack = p.seq + 1;
    st_peer_send(&peer, FR_ACK, NULL, 0);
    assert_int_equal(burst(st, &peer), 1460);
    st_free(st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_is_siphash),      cmocka_unit_test(find_among_many),
        cmocka_unit_test(find_time_wait),       cmocka_unit_test(idle_flows_sleep),
        cmocka_unit_test(timer_retransmission), cmocka_unit_test(timer_rest_is_no_rtt),
        cmocka_unit_test(timer_learns_rtt),     cmocka_unit_test(timer_2msl),
        cmocka_unit_test(timer_persist),        cmocka_unit_test(timer_stopped_process),
        cmocka_unit_test(initial_window),       cmocka_unit_test(initial_window_after_loss),
    };

    st_args(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
