/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_window.c: window scaling (RFC 7323), in both directions, with guests that
 * offer it, that do not, and that do not mean what they say.
 */
#include "stack.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <cmocka.h>

#define ISN 0xfffffff0u
#define RCV_SMALL 65536u /* FLOW_RCVSPACE, FLOW_RCVSPACE_MAX, FLOW_RCVSPACE_SHARED */
#define RCV_LARGE (512u << 10)
#define RCV_SHARED (32u << 20)
#define OUR_SCALE 4 /* the first that RCV_LARGE needs */

/* NOP, kind 3, length 3, shift. */
#define OFFER(shift)                                                                                                   \
    (const uint8_t[])                                                                                                  \
    {                                                                                                                  \
        1, 3, 3, (shift)                                                                                               \
    }

static uint8_t zeros[1 << 20];

static uint8_t *pattern(size_t len)
{
    uint8_t *p = g_malloc(len);
    uint32_t x = 54321;
    size_t i;

    for (i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static void offer(struct st_peer *peer, const uint8_t opts[4])
{
    peer->opts = opts;
    peer->nopts = opts ? 4 : 0;
}

/* Connect, and return what the SYN-ACK said. */
static struct fr_packet connected(struct st_peer *peer, struct st_stack *st, uint16_t sport, const uint8_t opts[4])
{
    struct fr_packet p;

    st_peer_init(peer, st, sport, ISN);
    offer(peer, opts);
    st_peer_send(peer, FR_SYN, NULL, 0);
    st_peer_recv(peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    st_peer_send(peer, FR_ACK, NULL, 0);
    return p;
}

/* Read everything that waits and acknowledge it, each packet or all at once; the number of its bytes. */
static size_t burst(struct st_peer *peer, bool each)
{
    struct fr_packet p;
    uint32_t before = peer->ack;

    while (peer->stack->frames.head) {
        st_peer_recv(peer, &p);
        if (each && p.len) {
            st_peer_at(peer, 0, FR_ACK, NULL, 0);
        }
    }
    if (!each && peer->ack != before) {
        st_peer_at(peer, 0, FR_ACK, NULL, 0);
    }
    return peer->ack - before;
}

/* The congestion window has been opened beyond any window of these tests. */
static void slow_start(struct st_peer *peer, struct st_conn *conn)
{
    uint16_t win = peer->win;
    size_t sent = 0;

    peer->win = 65535;
    st_peer_send(peer, FR_ACK, "x", 1);
    while (sent < sizeof(zeros)) {
        sent += slirp_flow_push(conn->flow, zeros, sizeof(zeros) - sent);
        burst(peer, true);
    }
    while (burst(peer, true)) {
    }
    peer->win = win; /* and only by what is newer than the last ACK */
    st_peer_send(peer, FR_ACK, "x", 1);
    st_peer_send(peer, FR_ACK, "x", 1);
    burst(peer, true);
}

/* How many bytes go to the guest before it acknowledges any. */
static size_t in_flight(struct st_peer *peer, struct st_conn *conn)
{
    slow_start(peer, conn);
    slirp_flow_push(conn->flow, zeros, sizeof(zeros));
    return burst(peer, false);
}

/* Shifts that a guest may offer; more than 14 is 14 (RFC 7323, 2.3). */
static void offered(void **state)
{
    static const struct {
        uint8_t shift;
        uint16_t win;
        size_t flight;
    } rows[] = {{0, 20000, 20000}, {1, 20000, 40000},     {7, 500, 64000},       {7, 0x100, 32768},
                {10, 40, 40960},   {14, 3, 49152},        {15, 3, 49152},        {200, 3, 49152},
                {255, 2, 32768},   {7, 65535, 256 << 10}, {14, 65535, 256 << 10}};
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;
        struct fr_packet p;

        st->quota = SIZE_MAX;
        p = connected(&peer, st, 1000, OFFER(rows[i].shift));
        assert_true(p.scaled);
        assert_int_equal(p.scale, OUR_SCALE);
        assert_int_equal(p.win, 65535); /* that of a SYN is not scaled */
        peer.win = rows[i].win;
        assert_in_range(in_flight(&peer, st_conn_at(st, 0)), rows[i].flight - 1460, rows[i].flight);
        st_free(st);
    }
}

/* Without the option, with one that is none, and with one where none counts. */
static void not_offered(void **state)
{
    static const uint8_t rows[][4] = {
        {1, 1, 1, 1},  {3, 4, 7, 0}, /* a length that is not its own */
        {3, 2, 1, 1},                /* none of its bytes */
        {1, 1, 3, 3},                /* cut off by the end of the header */
        {0, 3, 3, 7},                /* behind the end of the list */
        {253, 4, 3, 7}               /* inside another */
    };
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct st_stack *st = st_new(1500);
        struct st_peer peer;
        struct fr_packet p;
        unsigned n;

        st->quota = SIZE_MAX;
        p = connected(&peer, st, 1000, rows[i]);
        assert_false(p.scaled);
        peer.win = 3000;
        assert_in_range(in_flight(&peer, st_conn_at(st, 0)), 2920, 3000);
        /* ... nor is ours ever scaled: 64 KiB is all that we take unread. */
        st_conn_at(st, 0)->quota = 0;
        for (n = 0; n < 100; n++) {
            st_peer_send(&peer, FR_ACK, zeros, 1460);
        }
        assert_int_equal(slirp_flow_held(st_conn_at(st, 0)->flow, NULL), RCV_SMALL);
        st_free(st);
    }
}

/* In anything but a SYN it says nothing. */
static void not_in_a_syn(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t buf[FR_MAX];
    struct st_peer peer;
    struct fr_tcp tcp;

    (void)state;
    st->quota = SIZE_MAX;
    connected(&peer, st, 1000, NULL);
    tcp = (struct fr_tcp){.src = FR_GUEST,
                          .dst = FR_PEER,
                          .sport = 1000,
                          .dport = 80,
                          .seq = peer.seq,
                          .ack = peer.ack,
                          .flags = FR_ACK,
                          .win = 3000,
                          .opts = OFFER(7),
                          .nopts = 4};
    st_input(st, buf, fr_tcp(buf, &tcp));
    peer.win = 3000;
    assert_in_range(in_flight(&peer, st_conn_at(st, 0)), 2920, 3000);
    st_free(st);
}

/* The same SYN again gets the same answer; another one, with the same ports,
 * is another attempt, and what the first had offered is forgotten. */
static void offered_again(void **state)
{
    struct st_stack *st = st_new(1500);
    struct st_peer peer;
    struct fr_packet p;

    (void)state;
    st->quota = SIZE_MAX;
    st_peer_init(&peer, st, 1000, ISN);
    offer(&peer, OFFER(9));
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_true(p.scaled);
    peer.seq--;
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    assert_true(p.scaled);
    assert_int_equal(p.scale, OUR_SCALE);
    assert_int_equal(p.win, 65535);

    st->verdict = SLIRP_FLOW_PENDING;
    st_peer_init(&peer, st, 1001, ISN);
    offer(&peer, OFFER(9));
    st_peer_send(&peer, FR_SYN, NULL, 0);
    st_peer_init(&peer, st, 1001, 77);
    st_peer_send(&peer, FR_SYN, NULL, 0);
    slirp_flow_accept(st_conn_at(st, 1)->flow);
    st_peer_recv(&peer, &p);
    assert_int_equal(p.flags, FR_SYN | FR_ACK);
    assert_false(p.scaled);
    st_peer_send(&peer, FR_ACK, NULL, 0);
    peer.win = 3000;
    assert_in_range(in_flight(&peer, st_conn_at(st, 1)), 2920, 3000);
    st_free(st);
}

/* A connection towards the guest: we offer, and it takes it or leaves it. */
static void towards_guest(void **state)
{
    unsigned take;

    (void)state;
    for (take = 0; take < 2; take++) {
        struct st_stack *st = st_new(1500);
        struct st_conn *conn = g_new0(struct st_conn, 1);
        SlirpFlowAddr addr = {.guest = {htonl(FR_GUEST)}, .peer = {htonl(FR_PEER)}, .guest_port = 80, .peer_port = 9};
        struct st_peer peer;
        struct fr_packet p;

        conn->stack = st;
        conn->got = g_byte_array_new();
        conn->quota = SIZE_MAX;
        g_ptr_array_add(st->conns, conn);
        conn->flow = slirp_flow_connect(st->slirp, &addr, conn);
        assert_non_null(conn->flow);
        st_peer_init(&peer, st, 80, ISN);
        peer.dport = 9;
        st_peer_recv(&peer, &p);
        assert_int_equal(p.flags, FR_SYN);
        assert_true(p.scaled);
        assert_int_equal(p.scale, OUR_SCALE);
        assert_int_equal(p.win, 65535);
        offer(&peer, take ? OFFER(3) : NULL);
        peer.win = 5000;
        st_peer_send(&peer, FR_SYN | FR_ACK, NULL, 0);
        burst(&peer, false);
        assert_in_range(in_flight(&peer, conn), take ? 38540 : 4380, take ? 40000 : 5000);
        st_free(st);
    }
}

/* Windows grow when something comes, and it is taken. */
static size_t grow(struct st_peer *peer, struct st_conn *conn)
{
    size_t n;

    conn->quota = SIZE_MAX;
    for (n = 0; n <= RCV_SMALL / 2; n += 1024) {
        st_peer_send(peer, FR_ACK, zeros, 1024);
    }
    conn->quota = 0;
    st_discard(peer->stack);
    g_byte_array_set_size(conn->got, 0);
    return n;
}

/* What is not taken stays, up to the large limit; the window that we offer and
 * what we hold never add up to more, and all that was offered is taken. */
static void received(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t *data = pattern(2 << 20);
    size_t sent = 0, held, edge = RCV_LARGE, most = 0;
    uint32_t first;
    struct st_peer peer;
    struct st_conn *conn;
    struct fr_packet p;
    unsigned i;

    (void)state;
    st->quota = 0;
    connected(&peer, st, 1000, OFFER(7));
    conn = st_conn_at(st, 0);
    first = ISN + 1 + (uint32_t)grow(&peer, conn);
    for (i = 0; i < 4000 && sent < 2 << 20; i++) {
        size_t n = MIN(MIN((size_t)1460, edge - sent), (size_t)(2 << 20) - sent);

        if (n) {
            st_peer_send(&peer, FR_ACK, data + sent, n);
            sent += n;
        } else {
            conn->quota = 100001;
            slirp_flow_pull(conn->flow);
            conn->quota = 0;
        }
        held = slirp_flow_held(conn->flow, NULL);
        most = MAX(most, held);
        while (st_next(st, &p)) {
            size_t to = p.ack - first + ((size_t)p.win << OUR_SCALE);

            assert_true(held + ((size_t)p.win << OUR_SCALE) <= RCV_LARGE);
            /* what the shift cannot say may be missing, no more */
            assert_true(to + (1 << OUR_SCALE) > edge);
            edge = MAX(edge, to);
        }
        assert_int_equal(held + conn->got->len, sent); /* nothing within the window was refused */
    }
    assert_int_equal(sent, 2 << 20);
    assert_true(most > RCV_LARGE - (1 << OUR_SCALE));
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    assert_int_equal(conn->got->len, sent);
    assert_memory_equal(conn->got->data, data, sent);
    st_free(st);
    g_free(data);
}

/* A guest that does not heed the window: what is beyond it is not taken. */
static void overrun(void **state)
{
    struct st_stack *st = st_new(1500);
    uint8_t *data = pattern(1 << 20);
    struct st_peer peer;
    struct st_conn *conn;
    size_t i, taken, before;

    (void)state;
    connected(&peer, st, 1000, OFFER(14));
    conn = st_conn_at(st, 0);
    before = grow(&peer, conn);
    for (i = 0; i < (1 << 20) / 1024; i++) {
        st_peer_send(&peer, FR_ACK, data + i * 1024, 1024);
        st_discard(st);
        assert_true(slirp_flow_held(conn->flow, NULL) <= RCV_LARGE);
    }
    conn->quota = SIZE_MAX;
    slirp_flow_pull(conn->flow);
    taken = conn->got->len;
    assert_in_range(taken, RCV_LARGE - (1 << OUR_SCALE), RCV_LARGE);
    peer.seq = ISN + 1 + (uint32_t)(before + taken);
    st_peer_send(&peer, FR_ACK, data + taken, 1000);
    assert_int_equal(conn->got->len, taken + 1000);
    assert_memory_equal(conn->got->data, data, taken + 1000);
    st_free(st);
    g_free(data);
}

/* The guest's window shrinks under what is on the way: nothing is sent beyond
 * it until it opens again, and nothing is lost. */
static void shrinks(void **state)
{
    static const uint16_t wins[] = {500, 100, 1, 0};
    uint8_t *data = pattern(100000);
    size_t i;

    (void)state;
    for (i = 0; i < G_N_ELEMENTS(wins); i++) {
        struct st_stack *st = st_new(1500);
        GByteArray *got = g_byte_array_new();
        struct st_peer peer;
        struct st_conn *conn;
        struct fr_packet p;
        uint32_t base;
        unsigned n;

        st->quota = SIZE_MAX;
        connected(&peer, st, 1000, OFFER(6)); /* 500 is 32000 bytes */
        conn = st_conn_at(st, 0);
        peer.win = 1000;
        slow_start(&peer, conn);
        base = peer.ack;
        slirp_flow_push(conn->flow, data, 100000);
        st_peer_recv(&peer, &p); /* 64000 bytes are out, and one packet of them is taken */
        g_byte_array_append(got, p.data, (guint)p.len);
        st_discard(st);
        peer.win = wins[i];
        st_peer_at(&peer, 0, FR_ACK, NULL, 0);
        for (n = 0; n < 20; n++) { /* the clock of retransmissions and probes */
            while (st_next(st, &p)) {
                assert_true(p.len == 0 ||
                            p.seq + p.len - peer.ack <= MAX((size_t)wins[i] << 6, (size_t)1)); /* a probe is one byte */
            }
            st_advance(st, 1000);
        }
        st_discard(st);
        peer.win = 1023;
        st_peer_send(&peer, FR_ACK, "x", 1);
        for (n = 0; n < 1000 && got->len < 100000; n++) {
            while (st_next(st, &p)) {
                if (p.len && p.seq - base <= got->len && p.seq - base + p.len > got->len) {
                    size_t skip = got->len - (p.seq - base);

                    g_byte_array_append(got, p.data + skip, (guint)(p.len - skip));
                }
            }
            peer.ack = base + got->len;
            st_peer_at(&peer, 0, FR_ACK, NULL, 0);
            if (!st->frames.head) {
                st_advance(st, 500);
            }
        }
        assert_int_equal(got->len, 100000);
        assert_memory_equal(got->data, data, 100000);
        st_free(st);
        g_byte_array_unref(got);
    }
    g_free(data);
}

/* Many flows share what may be on the way; the promise to one that was first
 * holds, and each has its 64 KiB. */
static void shared(void **state)
{
    enum { N = 600 };
    static struct st_peer peers[N];
    struct st_stack *st = st_new(65520); /* two segments are more than the smallest limit */
    size_t sum = 0;
    unsigned i, n;

    (void)state;
    st->quota = 0;
    for (i = 0; i < N; i++) {
        connected(&peers[i], st, (uint16_t)(1000 + i), OFFER(7));
        if (i == 0) {
            grow(&peers[0], st_conn_at(st, 0));
        }
    }
    for (i = 1; i < N; i++) {
        grow(&peers[i], st_conn_at(st, i));
    }
    for (i = 0; i < N; i++) {
        for (n = 0; n < 600; n++) {
            st_peer_send(&peers[i], FR_ACK, zeros, 1024);
        }
        st_discard(st);
        sum += slirp_flow_held(st_conn_at(st, i)->flow, NULL);
        if (i == 0) {
            assert_in_range(sum, RCV_LARGE - 1024, RCV_LARGE);
        } else {
            assert_in_range(slirp_flow_held(st_conn_at(st, i)->flow, NULL), 65535 - 1024, RCV_SMALL);
        }
    }
    assert_true(sum <= RCV_SHARED + N * RCV_SMALL);
    /* What was held goes, and windows open again: also where 64 KiB is the
     * limit of a buffer that was promised more. */
    st_conn_at(st, 0)->quota = SIZE_MAX;
    slirp_flow_pull(st_conn_at(st, 0)->flow);
    assert_non_null(st->frames.head);
    st_free(st);
}

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Pages that this process really has, in bytes. */
static size_t resident(void)
{
    unsigned long all, here;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &all, &here), 2);
    fclose(f);
    return here * (size_t)sysconf(_SC_PAGESIZE);
}

/* A guest that has each of its many flows fill its buffers, one after the other, and then leaves it alone: what is empty costs nothing. */
static void idle_flows(void **state)
{
    enum { FLOWS = 1200, FILLED = 300 };
    struct st_stack *st = st_new(1500);
    struct st_peer *peers = g_new0(struct st_peer, FLOWS);
    size_t before = 0, sent;
    struct iovec iov[2];
    unsigned i, n;

    (void)state;
    st->quota = SIZE_MAX;
    for (i = 0; i < FLOWS; i++) {
        connected(&peers[i], st, (uint16_t)(1000 + i), OFFER(7));
    }
    for (i = 0; i < FILLED; i++) {
        struct st_conn *conn = st_conn_at(st, i);
        if (i == 1) {
            before = resident(); /* the tests' own memory is there by now */
        }
        for (sent = 0; sent < 256 << 10;) {
            sent += slirp_flow_push(conn->flow, zeros, (256 << 10) - sent);
            while (burst(&peers[i], true)) {
            }
        }
        conn->quota = 0;
        for (n = 0; n < 44; n++) {
            st_peer_send(&peers[i], FR_ACK, zeros, 1460);
        }
        assert_int_equal(slirp_flow_held(conn->flow, NULL), 44 * 1460);
        conn->quota = SIZE_MAX;
        slirp_flow_pull(conn->flow);
        assert_int_equal(slirp_flow_held(conn->flow, NULL), 0);
        g_byte_array_set_size(conn->got, 0);
        burst(&peers[i], true);
        /* Nor does one that was asked for room, for which there was nothing then. */
        conn = st_conn_at(st, FILLED + i);
        assert_int_equal(slirp_flow_room(conn->flow, iov), 256 << 10);
        slirp_flow_commit(conn->flow, 0);
    }
#ifdef SANITIZED
    (void)before; /* freed memory is kept there, to find who uses it */
#else
    assert_in_range(resident() - MIN(before, resident()), 0, 24 << 20);
#endif
    g_free(peers);
    st_free(st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offered),    cmocka_unit_test(not_offered), cmocka_unit_test(not_in_a_syn),
        cmocka_unit_test(received),   cmocka_unit_test(overrun),     cmocka_unit_test(offered_again),
        cmocka_unit_test(shrinks),    cmocka_unit_test(shared),      cmocka_unit_test(towards_guest),
        cmocka_unit_test(idle_flows),
    };

    st_args(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
