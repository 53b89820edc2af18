/* SPDX-License-Identifier: BSD-3-Clause */
/* TCP through the whole front: a scripted core on one side, a guest that speaks segments on the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define WORLD IP4(203, 0, 113, 7)

static void test_round_trip(void **state)
{
    struct h *h = *state;
    struct mx mx;
    struct conn c = conn_open(h, WORLD, 40000, 80);

    /* Held: shown to the core, still ours. */
    conn_send(&c, TCP_ACK | TCP_PSH, "GET / ", 6);
    core_expect(h, SM_FLOW_BYTES, &mx);
    assert_int_equal(mx.m.id, c.id);
    assert_int_equal(mx.m.data_len, 6);
    assert_memory_equal(mx.m.data, "GET / ", 6);
    conn_send(&c, TCP_ACK | TCP_PSH, "HTTP", 4);
    core_expect(h, SM_FLOW_BYTES, &mx);
    assert_memory_equal(mx.m.data, "HTTP", 4);

    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    upstream_expect(h, up, "GET / HTTP", 10);
    conn_send(&c, TCP_ACK | TCP_PSH, "/1.1", 4);
    upstream_expect(h, up, "/1.1", 4);
    core_expect_nothing(h);
    assert_int_equal(write(up, "hello", 5), 5);
    conn_expect(&c, "hello", 5);

    /* Half-close by the guest: upstream sees the end and may still answer. */
    conn_send(&c, TCP_ACK | TCP_FIN, NULL, 0);
    assert_int_equal(upstream_end(h, up), 0);
    assert_int_equal(write(up, "bye", 3), 3);
    conn_expect(&c, "bye", 3);
    (void)close(up);
    conn_expect_flag(&c, TCP_FIN);
    gone_expect(h, c.id, SM_WHY_CLOSED);
    conn_send(&c, TCP_ACK, NULL, 0);
    h_settle(h);
    assert_int_equal(h_stats(h).tcp_now, 0);
    assert_int_equal(h_stats(h).held_now, 0);
    assert_int_equal(h_stats(h).queued_now, 0);
}

/* Upstream ends first; the guest's bytes still go up. */
static void test_half_close_by_upstream(void **state)
{
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 22);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);

    assert_int_equal(write(up, "SSH-2.0", 7), 7);
    assert_int_equal(shutdown(up, SHUT_WR), 0);
    conn_expect(&c, "SSH-2.0", 7);
    conn_expect_flag(&c, TCP_FIN);
    conn_send(&c, TCP_ACK, NULL, 0);
    conn_send(&c, TCP_ACK | TCP_PSH, "late", 4);
    upstream_expect(h, up, "late", 4);
    conn_send(&c, TCP_ACK | TCP_FIN, NULL, 0);
    assert_int_equal(upstream_end(h, up), 0);
    gone_expect(h, c.id, SM_WHY_CLOSED);
    (void)close(up);
}

/* What the core has consumed is dropped, no more and no less; the rest goes up in order. */
static void test_consumed(void **state)
{
    struct h *h = *state;
    struct mx mx;

    for (uint32_t consumed = 0; consumed <= 6; consumed++) {
        struct conn c = conn_open(h, WORLD, (uint16_t)(41000 + consumed), 80);
        conn_send(&c, TCP_ACK | TCP_PSH, "abcdef", 6);
        core_expect(h, SM_FLOW_BYTES, &mx);
        int up = core_attach(h, c.id, consumed, SOCK_STREAM);
        conn_send(&c, TCP_ACK | TCP_PSH, "ghi", 3);
        upstream_expect(h, up, "abcdefghi" + consumed, 9 - consumed);
        core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
        conn_expect_flag(&c, TCP_RST);
        gone_expect(h, c.id, SM_WHY_UPSTREAM_RST);
        (void)close(up);
    }
    /* More than was shown: never happens, and must not lose or repeat bytes if it does. */
    struct conn c = conn_open(h, WORLD, 42000, 80);
    conn_send(&c, TCP_ACK | TCP_PSH, "abcdef", 6);
    core_expect(h, SM_FLOW_BYTES, &mx);
    int pair[2];
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    core_send_fd(h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = c.id, .consumed = 7}, pair[0]);
    gone_expect(h, c.id, SM_WHY_LIMIT);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(upstream_end(h, pair[1]), 0);
    (void)close(pair[1]);
}

/* FIN while held: the core hears of it, also when bytes came before it, and the attached descriptor gets both. */
static void test_eof_while_held(void **state)
{
    struct h *h = *state;
    struct mx mx;
    struct conn c = conn_open(h, WORLD, 40000, 80);

    conn_send(&c, TCP_ACK | TCP_PSH | TCP_FIN, "ping", 4);
    c.snd = 1000001 + 5;
    core_expect(h, SM_FLOW_BYTES, &mx);
    core_expect(h, SM_FLOW_EOF, &mx);
    assert_int_equal(mx.m.id, c.id);
    int up = core_attach(h, c.id, 1, SOCK_STREAM);
    upstream_expect(h, up, "ing", 3);
    assert_int_equal(upstream_end(h, up), 0);
    (void)close(up);
    gone_expect(h, c.id, SM_WHY_CLOSED);

    c = conn_open(h, WORLD, 40001, 80);
    conn_send(&c, TCP_ACK | TCP_FIN, NULL, 0);
    core_expect(h, SM_FLOW_EOF, &mx);
    up = core_attach(h, c.id, 0, SOCK_STREAM);
    assert_int_equal(upstream_end(h, up), 0);
    assert_int_equal(write(up, "banner", 6), 6);
    conn_expect(&c, "banner", 6);
    (void)close(up);
}

/* A real TCP connection on loopback as upstream. */
static void tcp_pair(int *ret_ours, int *ret_peer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &len), 0);
    *ret_ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*ret_ours, (struct sockaddr *)&a, sizeof(a)), 0);
    *ret_peer = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(*ret_peer >= 0);
    assert_int_equal(sm_fd_set_nonblock(*ret_ours), 0);
    (void)close(l);
}

/* Segments that one batch brings leave in one write, in order, and the end behind them; a reset in the same batch still
 * ends the flow. */
static void test_batch(void **state)
{
    struct h *h = *state;
    static struct buf b[12];
    static uint8_t data[12 * 1000], got[12 * 1000];
    struct sm_frame frames[12];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 3 ^ i >> 8);
    for (unsigned with = 0; with < 3; with++) {
        struct conn c = conn_open(h, WORLD, (uint16_t)(43000 + with), 80);
        int up = core_attach(h, c.id, 0, SOCK_STREAM);
        for (unsigned i = 0; i < 12; i++) {
            uint8_t flags = i < 11 || with == 0 ? TCP_ACK : with == 1 ? TCP_ACK | TCP_FIN : TCP_ACK | TCP_RST;
            tcp_frame(&b[i], test_link.guest, c.dst, c.sport, c.dport, c.snd + i * 1000, c.rcv, flags, data + i * 1000,
                      1000);
            frames[i] = (struct sm_frame){.data = b[i].data, .cap = b[i].len, .len = b[i].len};
        }
        sm_front_input(h->front, frames, 12);
        if (with == 2) {
            gone_expect(h, c.id, SM_WHY_GUEST_RST);
        } else {
            assert_int_equal(read(up, got, sizeof(got)), sizeof(got));
            assert_memory_equal(got, data, sizeof(data));
        }
        if (with == 1)
            assert_int_equal(upstream_end(h, up), 0);
        core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
        if (with != 2)
            gone_expect(h, c.id, SM_WHY_UPSTREAM_RST);
        (void)close(up);
    }
    core_expect_nothing(h);
    assert_int_equal(h_stats(h).tcp_now, 0);
}

/* Upstream sends urgent data: the kernel cuts a read at the mark, and what is behind it must come all the same. */
static void test_upstream_urgent(void **state)
{
    struct h *h = *state;
    struct mx mx;
    int ours, peer;
    struct conn c = conn_open(h, WORLD, 40000, 23);

    tcp_pair(&ours, &peer);
    assert_int_equal(send(peer, "abc!", 4, MSG_OOB), 4);
    assert_int_equal(send(peer, "def", 3, 0), 3);
    core_send_fd(h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = c.id}, ours);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    conn_expect(&c, "abcdef", 6); /* the urgent byte itself is out of band (RFC 6093: not inline by default) */
    (void)close(peer);
}

static void test_resets(void **state)
{
    struct h *h = *state;
    struct conn c;
    int up;

    /* By the guest: while asked, while held, while attached. */
    c = conn_ask(h, WORLD, 40000, 80);
    conn_send(&c, TCP_RST, NULL, 0);
    gone_expect(h, c.id, SM_WHY_REFUSED);
    c = conn_open(h, WORLD, 40001, 80);
    conn_send(&c, TCP_RST | TCP_ACK, NULL, 0);
    gone_expect(h, c.id, SM_WHY_GUEST_RST);
    c = conn_open(h, WORLD, 40002, 80);
    up = core_attach(h, c.id, 0, SOCK_STREAM);
    conn_send(&c, TCP_RST | TCP_ACK, NULL, 0);
    gone_expect(h, c.id, SM_WHY_GUEST_RST);
    assert_int_equal(upstream_end(h, up), 0);
    (void)close(up);

    /* By the core: while asked (as ABORT), held, attached. Only of the last it has to know that the descriptor is closed. */
    c = conn_ask(h, WORLD, 40003, 80);
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
    c = conn_open(h, WORLD, 40004, 80);
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
    conn_expect_flag(&c, TCP_RST);
    c = conn_open(h, WORLD, 40005, 80);
    up = core_attach(h, c.id, 0, SOCK_STREAM);
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
    conn_expect_flag(&c, TCP_RST);
    assert_int_equal(upstream_end(h, up), 0);
    (void)close(up);
    gone_expect(h, c.id, SM_WHY_UPSTREAM_RST);
    core_expect_nothing(h);
    assert_int_equal(h_stats(h).tcp_now, 0);
    assert_int_equal(h_stats(h).asked_now, 0);
}

static void test_upstream_reset(void **state)
{
    struct h *h = *state;
    struct linger linger = {.l_onoff = 1};
    struct mx mx;
    int ours, peer;

    for (int half_closed = 0; half_closed < 2; half_closed++) {
        struct conn c = conn_open(h, WORLD, (uint16_t)(40000 + half_closed), 80);
        tcp_pair(&ours, &peer);
        core_send_fd(h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = c.id}, ours);
        core_expect(h, SM_FLOW_ATTACHED, &mx);
        assert_int_equal(write(peer, "x", 1), 1);
        conn_expect(&c, "x", 1);
        if (half_closed) {
            assert_int_equal(shutdown(peer, SHUT_WR), 0);
            conn_expect_flag(&c, TCP_FIN);
            conn_send(&c, TCP_ACK, NULL, 0);
        }
        assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
        (void)close(peer);
        conn_expect_flag(&c, TCP_RST);
        gone_expect(h, c.id, SM_WHY_UPSTREAM_RST);
    }
}

/* In either order: a flow may end while it is being attached. */
static void expect_acked_and_gone(struct h *h, enum sm_flow_why why)
{
    bool gone = false, acked = false;
    struct mx mx;

    for (int i = 0; i < 100 && !(gone && acked); i++) {
        h_turn(h, 10);
        while (core_poll(h, &mx)) {
            assert_true(mx.m.type == SM_FLOW_ATTACHED || (mx.m.type == SM_FLOW_GONE && mx.m.why == why));
            gone |= mx.m.type == SM_FLOW_GONE;
            acked |= mx.m.type == SM_FLOW_ATTACHED;
        }
    }
    assert_true(gone && acked);
}

/* What the server has said, and how it ended, when the descriptor comes: whatever the core has consumed and whether the
 * guest has ended. */
static void test_said_before_attach(void **state)
{
    enum { DATA = 1, FIN = 2, RST = 4 };
    static const int said[] = {0, DATA, FIN, DATA | FIN, RST};
    struct h *h = *state;
    struct linger linger = {.l_onoff = 1};
    uint16_t port = 41000;
    struct mx mx;

    for (size_t i = 0; i < SM_ARRAY_LEN(said); i++) {
        for (unsigned mix = 0; mix < 6; mix++) {
            uint32_t consumed = mix % 3 * 3;
            bool eof = mix >= 3;
            int ours, peer;
            struct conn c = conn_open(h, WORLD, port++, 80);
            conn_send(&c, TCP_ACK | TCP_PSH | (eof ? TCP_FIN : 0u), "abcdef", 6);
            c.snd += eof;
            core_expect(h, SM_FLOW_BYTES, &mx);
            if (eof)
                core_expect(h, SM_FLOW_EOF, &mx);
            tcp_pair(&ours, &peer);
            if (said[i] & DATA)
                assert_int_equal(write(peer, "hello", 5), 5);
            if (said[i] & FIN)
                assert_int_equal(shutdown(peer, SHUT_WR), 0);
            if (said[i] & RST) {
                assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
                sm_fd_close(&peer);
            }
            core_send_fd(h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = c.id, .consumed = consumed}, ours);
            if (said[i] & RST) {
                conn_expect_flag(&c, TCP_RST);
                expect_acked_and_gone(h, SM_WHY_UPSTREAM_RST);
                continue;
            }
            upstream_expect(h, peer, "abcdef" + consumed, 6 - consumed);
            if (said[i] & DATA)
                conn_expect(&c, "hello", 5);
            if (said[i] & FIN)
                conn_expect_flag(&c, TCP_FIN);
            if (eof)
                assert_int_equal(upstream_end(h, peer), 0);
            if (eof && (said[i] & FIN)) {
                h_settle(h);
                expect_acked_and_gone(h, SM_WHY_CLOSED);
                conn_send(&c, TCP_ACK, NULL, 0);
            } else {
                core_expect(h, SM_FLOW_ATTACHED, &mx);
                core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
                gone_expect(h, c.id, SM_WHY_UPSTREAM_RST);
                conn_expect_flag(&c, TCP_RST);
            }
            (void)close(peer);
        }
    }
    h_settle(h);
    assert_int_equal(h_stats(h).held_now, 0);
    assert_int_equal(h_stats(h).queued_now, 0);
}

static void expect_refusal(struct h *h, struct conn *c, enum sm_flow_how how)
{
    static struct rx rx;
    switch (how) {
    case SM_HOW_RST:
        conn_recv(c, &rx);
        assert_int_equal(rx.flags & TCP_RST, TCP_RST);
        break;
    case SM_HOW_SILENT:
        h_settle(h);
        assert_false(guest_poll(h, &rx));
        break;
    case SM_HOW_ICMP_ADMIN:
    case SM_HOW_ICMP_HOST:
    case SM_HOW_ICMP_NET:
    case SM_HOW_ICMP_PORT: {
        static const uint8_t codes[] = {
            [SM_HOW_ICMP_ADMIN] = 13, [SM_HOW_ICMP_HOST] = 1, [SM_HOW_ICMP_NET] = 0, [SM_HOW_ICMP_PORT] = 3};
        guest_recv(h, &rx);
        assert_int_equal(rx.proto, SM_IPPROTO_ICMP);
        assert_int_equal(rx.icmp_type, 3);
        assert_int_equal(rx.icmp_code, codes[how]);
        break;
    }
    case SM_HOWS:
        fail();
    }
}

static void test_refusals(void **state)
{
    struct h *h = *state;

    for (unsigned how = 0; how < SM_HOWS; how++) {
        struct conn c = conn_ask(h, WORLD, (uint16_t)(40000 + how), 80);
        core_refuse(h, c.id, (enum sm_flow_how)how, SM_SCOPE_TUPLE, 0);
        expect_refusal(h, &c, (enum sm_flow_how)how);
        core_expect_nothing(h);
    }
    assert_int_equal(h_stats(h).tcp_now, 0);
    assert_int_equal(h_stats(h).asked_now, 0);
}

static void test_holds(void **state)
{
    struct h *h = *state;
    struct mx mx;
    struct conn c = conn_ask(h, WORLD, 40000, 80);

    core_refuse(h, c.id, SM_HOW_RST, SM_SCOPE_DESTINATION, 5000);
    expect_refusal(h, &c, SM_HOW_RST);
    /* The same destination from any port is answered without a question. */
    for (uint16_t i = 1; i <= 7; i++) {
        struct conn again = {.h = h, .dst = WORLD, .sport = (uint16_t)(40000 + i), .dport = 80, .snd = 5};
        conn_send(&again, TCP_SYN, NULL, 0);
        expect_refusal(h, &again, SM_HOW_RST);
    }
    core_expect_nothing(h);
    sm_front_tick(h->front);
    core_expect(h, SM_FLOW_REPEATED, &mx);
    assert_int_equal(mx.m.count, 7);
    assert_int_equal(mx.m.proto, SM_FLOW_TCP);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), WORLD);
    assert_int_equal(mx.m.dst.port, 80);
    sm_front_tick(h->front);
    core_expect_nothing(h);
    /* Another port of it is not. */
    c = conn_ask(h, WORLD, 40010, 81);
    core_refuse(h, c.id, SM_HOW_ICMP_ADMIN, SM_SCOPE_TUPLE, 5000);
    expect_refusal(h, &c, SM_HOW_ICMP_ADMIN);
    conn_send(&c, TCP_SYN, NULL, 0);
    expect_refusal(h, &c, SM_HOW_ICMP_ADMIN);
    core_expect_nothing(h);
    c = conn_ask(h, WORLD, 40011, 81);
    core_refuse(h, c.id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    expect_refusal(h, &c, SM_HOW_RST);

    /* Time ends a hold, and so does RELEASE. */
    h->skew_us += 5000 * 1000;
    c = conn_ask(h, WORLD, 40001, 80);
    core_refuse(h, c.id, SM_HOW_RST, SM_SCOPE_DESTINATION, 60000);
    expect_refusal(h, &c, SM_HOW_RST);
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_RELEASE});
    c = conn_ask(h, WORLD, 40002, 80);
    core_refuse(h, c.id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    expect_refusal(h, &c, SM_HOW_RST);
}

/* Our side of the channel is shut behind everything. */
static void core_expect_end(struct h *h)
{
    uint8_t raw[SM_FLOW_MSG_MAX];
    int64_t until = sm_clock_us() + DEADLINE_US;
    ssize_t n;

    while ((n = read(h->core, raw, sizeof(raw))) < 0 && errno == EAGAIN) {
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
    assert_int_equal(n, 0);
}

/* The guest ended: what it sent is waited for, its silence is not, and the counts come last. */
static void test_finish(void **state)
{
    struct h *h = *state;
    struct mx mx;
    struct conn asked, held = conn_open(h, WORLD, 40000, 80), done = conn_open(h, WORLD, 40001, 80);

    int up_done = core_attach(h, done.id, 0, SOCK_STREAM);
    conn_send(&done, TCP_ACK | TCP_FIN, NULL, 0); /* half-closed: upstream may go on, nobody waits for it */
    assert_int_equal(upstream_end(h, up_done), 0);
    asked = conn_ask(h, WORLD, 40002, 80);
    core_refuse(h, asked.id, SM_HOW_RST, SM_SCOPE_DESTINATION, 60000);
    expect_refusal(h, &asked, SM_HOW_RST);
    struct conn again = {.h = h, .dst = WORLD, .sport = 40003, .dport = 80, .snd = 5};
    conn_send(&again, TCP_SYN, NULL, 0);
    expect_refusal(h, &again, SM_HOW_RST);
    core_expect_nothing(h);

    /* On the wire, not yet read when the end is asked for. */
    static struct buf b;
    tcp_frame(&b, test_link.guest, held.dst, held.sport, held.dport, held.snd, held.rcv, TCP_ACK | TCP_FIN, "last", 4);
    assert_int_equal(write(h->guest, b.data, b.len), b.len);
    sm_front_finish(h->front);
    core_expect(h, SM_FLOW_BYTES, &mx);
    core_expect(h, SM_FLOW_EOF, &mx);
    core_expect_nothing(h);
    int up = core_attach(h, held.id, 0, SOCK_STREAM);
    upstream_expect(h, up, "last", 4);
    assert_int_equal(upstream_end(h, up), 0);
    core_expect(h, SM_FLOW_REPEATED, &mx);
    assert_int_equal(mx.m.count, 1);
    core_expect_end(h);
    (void)close(up);
    (void)close(up_done);
}

/* A flow that does not end, because upstream does not read, is not waited for for ever. */
static void test_finish_bounded(void **state)
{
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);

    sm_front_finish(h->front);
    core_expect_nothing(h);
    int64_t start = sm_clock_us();
    core_expect_end(h);
    assert_in_range(sm_clock_us() - start, SM_FRONT_LINGER_US / 2, 4 * SM_FRONT_LINGER_US);
    assert_null(h->failed);
    sm_fd_close(&h->core);
    h_settle(h);
    assert_non_null(h->failed);
    h->failed = NULL;
    (void)close(up);
}

/* The VMM is gone: flows end without the guest's word, what it sent goes first, and the next guest's are its own. */
static void test_guest_left(void **state)
{
    static struct mx mx;
    struct h *h = *state;
    struct conn idle = conn_open(h, WORLD, 40000, 80), says = conn_open(h, WORLD, 40001, 80);
    int up = core_attach(h, idle.id, 0, SOCK_STREAM);
    uint64_t ended[2];

    conn_send(&says, TCP_ACK, "all that it said", 16);
    core_expect(h, SM_FLOW_BYTES, &mx);
    struct conn asked = conn_ask(h, WORLD, 40002, 80);
    sm_front_guest_left(h->front);
    for (size_t i = 0; i < 2; i++) {
        core_expect(h, SM_FLOW_GONE, &mx);
        assert_int_equal(mx.m.why, mx.m.id == asked.id ? SM_WHY_REFUSED : SM_WHY_TIMEOUT);
        ended[i] = mx.m.id;
    }
    assert_int_equal(ended[0] + ended[1], idle.id + asked.id);
    assert_int_equal(upstream_end(h, up), 0);
    (void)close(up);

    /* A new guest, which takes a port that the old one had; its flow stays. What the old one was told is nobody's. */
    static struct rx rx;
    while (guest_poll(h, &rx))
        continue;
    struct conn next = conn_open(h, WORLD, 40000, 80);
    up = core_attach(h, next.id, 0, SOCK_STREAM);
    int up_says = core_attach(h, says.id, 0, SOCK_STREAM);
    upstream_expect(h, up_says, "all that it said", 16);
    core_expect(h, SM_FLOW_GONE, &mx);
    assert_int_equal(mx.m.id, says.id);
    assert_int_equal(mx.m.why, SM_WHY_TIMEOUT);
    core_expect_nothing(h);
    conn_send(&next, TCP_ACK, "hello", 5);
    upstream_expect(h, up, "hello", 5);
    assert_int_equal(h_stats(h).tcp_now, 1);
    (void)close(up);
    (void)close(up_says);
}

/* What the guest sent does not get upstream: its flow does not stay for ever. */
static void test_guest_left_bounded(void **state)
{
    static struct mx mx;
    struct h *h = *state;
    struct conn c = conn_open(h, WORLD, 40000, 80);

    conn_send(&c, TCP_ACK, "x", 1);
    core_expect(h, SM_FLOW_BYTES, &mx);
    sm_front_guest_left(h->front);
    core_expect_nothing(h);
    int64_t start = sm_clock_us();
    core_expect(h, SM_FLOW_GONE, &mx);
    assert_in_range(sm_clock_us() - start, SM_FRONT_LINGER_US / 2, 4 * SM_FRONT_LINGER_US);
    assert_int_equal(mx.m.id, c.id);
}

/* A SYN that comes again while the core thinks is no second question. */
static void test_pending_syn_again(void **state)
{
    struct h *h = *state;
    struct conn c = conn_ask(h, WORLD, 40000, 80);

    for (int i = 0; i < 5; i++) {
        c.snd = 1000000;
        conn_send(&c, TCP_SYN, NULL, 0);
    }
    core_expect_nothing(h);
    assert_int_equal(h_stats(h).asked_now, 1);
    core_refuse(h, c.id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    expect_refusal(h, &c, SM_HOW_RST);
}

static void test_syn_flood(void **state)
{
    struct h *h = *state;
    static struct mx mx;
    uint64_t asked = 0, last = 0;

    for (unsigned i = 0; i < 3 * SM_FRONT_ASKED_MAX; i++) {
        struct conn c = {.h = h, .dst = WORLD + i, .sport = 40000, .dport = 80, .snd = i};
        conn_send(&c, TCP_SYN, NULL, 0);
        while (core_poll(h, &mx)) {
            assert_int_equal(mx.m.type, SM_FLOW_OPEN);
            assert_true(mx.m.id > last);
            last = mx.m.id;
            asked++;
        }
    }
    assert_int_equal(asked, SM_FRONT_ASKED_MAX);
    assert_int_equal(h_stats(h).asked_now, SM_FRONT_ASKED_MAX);
    assert_int_equal(h_stats(h).opens_dropped, 2 * SM_FRONT_ASKED_MAX);
    /* Answers make room again. */
    core_refuse(h, last, SM_HOW_SILENT, SM_SCOPE_TUPLE, 0);
    struct conn c = conn_ask(h, WORLD, 50000, 80);
    assert_true(c.id > last);
}

/* Messages for ids that are not live: no effect, and the descriptor is closed and acknowledged. */
static void test_dead_ids(void **state)
{
    struct h *h = *state;
    const uint64_t ids[] = {1, 77, SM_FLOW_ID_CORE - 1, SM_FLOW_ID_CORE | 5};

    for (size_t i = 0; i < SM_ARRAY_LEN(ids); i++) {
        core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = ids[i]});
        core_refuse(h, ids[i], SM_HOW_RST, SM_SCOPE_DESTINATION, 1000);
        core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = ids[i]});
        int up = core_attach(h, ids[i], 0, SOCK_STREAM);
        assert_int_equal(upstream_end(h, up), 0);
        (void)close(up);
    }
    core_expect_nothing(h);
}

/* A core that says what only a front may say is not listened to any more. */
static void test_wrong_direction(void **state)
{
    struct h *h = h_new();
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_GONE, .id = 1});
    assert_non_null(h->failed);
    h_free(h);
    h = h_new();
    sm_fd_close(&h->core);
    h_settle(h);
    assert_non_null(h->failed);
    h_free(h);
    h = h_new();
    sm_fd_close(&h->guest);
    h_settle(h);
    assert_non_null(h->failed);
    h_free(h);
}

/* The sender of test_back_pressure_up: as much as the window allows; true when it is closed. */
static bool send_window(struct conn *c, const uint8_t *data, size_t len, uint32_t first, size_t *sent, size_t *edge)
{
    static struct rx rx;

    while (*sent < len && *sent + 1400 <= *edge) {
        size_t n = SM_MIN(len - *sent, (size_t)1400);
        conn_send(c, TCP_ACK, data + *sent, n);
        *sent += n;
    }
    while (guest_poll(c->h, &rx))
        *edge = SM_MAX(*edge, rx.ack - first + rx.window);
    return *sent<len && * sent + 1400> * edge;
}

/* Upstream does not read: the guest's window closes, nothing is lost, and all of it arrives once upstream reads. */
static void test_back_pressure_up(void **state)
{
    struct h *h = *state;
    static uint8_t data[1 << 20];
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    size_t sent = 0, edge = 65535, got = 0;
    uint32_t first = c.snd;
    int64_t until = sm_clock_us() + DEADLINE_US;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31 ^ i >> 8);
    for (int quiet = 0; quiet < 20;)
        quiet = send_window(&c, data, sizeof(data), first, &sent, &edge) ? quiet + 1 : 0;
    assert_true(sent < sizeof(data));
    assert_in_range(h_stats(h).held_now, 1, 64 << 10);
    while (got < sizeof(data)) {
        uint8_t piece[8192];
        assert_true(sm_clock_us() < until);
        ssize_t n = read(up, piece, sizeof(piece));
        if (n > 0) {
            assert_memory_equal(piece, data + got, n);
            got += (size_t)n;
        }
        h_turn(h, n > 0 ? 0 : 5);
        (void)send_window(&c, data, sizeof(data), first, &sent, &edge);
    }
    assert_int_equal(h_stats(h).held_now, 0);
    (void)close(up);
}

/* The guest does not acknowledge: upstream is read no further than the send buffer, and its writer is held back. */
static void test_back_pressure_down(void **state)
{
    struct h *h = *state;
    static uint8_t data[4 << 20];
    struct conn c = conn_open(h, WORLD, 40000, 80);
    int up = core_attach(h, c.id, 0, SOCK_STREAM);
    size_t written = 0;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 13 ^ i >> 8);
    for (int quiet = 0; quiet < 20;) {
        ssize_t n = write(up, data + written, sizeof(data) - written);
        h_settle(h);
        if (n > 0) {
            written += (size_t)n;
            quiet = 0;
        } else {
            quiet++;
        }
    }
    assert_true(written < 1 << 20);
    assert_in_range(h_stats(h).queued_now, 1, 256 << 10);
    /* Now it reads: everything comes, in order. */
    static struct rx rx;
    size_t got = 0;
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (got < sizeof(data)) {
        assert_true(sm_clock_us() < until);
        if (written < sizeof(data)) {
            ssize_t n = write(up, data + written, sizeof(data) - written);
            written += n > 0 ? (size_t)n : 0;
        }
        bool any = false;
        while (guest_poll(h, &rx)) {
            any = true;
            if (rx.proto != SM_IPPROTO_TCP || rx.seq != c.rcv || rx.data_len == 0)
                continue;
            assert_memory_equal(rx.data, data + got, rx.data_len);
            got += rx.data_len;
            c.rcv += (uint32_t)rx.data_len;
        }
        if (any)
            conn_send(&c, TCP_ACK, NULL, 0);
        h_turn(h, any ? 0 : 5);
    }
    (void)close(up);
}

/* A guest whose card is full: frames wait, bounded, and upstream is not read meanwhile. */
static void test_port_full(void **state)
{
    struct h *h = *state;
    static uint8_t data[65000];
    struct sm_front_stats s;
    int up[64];
    struct conn c[64];

    for (unsigned i = 0; i < 64; i++) {
        c[i] = conn_open(h, WORLD, (uint16_t)(40000 + i), 80);
        up[i] = core_attach(h, c[i].id, 0, SOCK_STREAM);
    }
    for (int round = 0; round < 40; round++) {
        for (unsigned i = 0; i < 64; i++)
            (void)!write(up[i], data, sizeof(data));
        h_settle(h);
    }
    assert_true(h->port->queued_bytes <= SM_PORT_QUEUE_BYTES);
    assert_true(h->port->queued_frames <= SM_PORT_QUEUE_FRAMES);
    sm_front_stats(h->front, &s);
    assert_in_range(s.queued_now, 1, 64 * (256u << 10));
    for (unsigned i = 0; i < 64; i++)
        (void)close(up[i]);
}

/* A core that does not read: the front stops reading frames, keeps what it must say, and goes on when the core does. */
static void test_channel_full(void **state)
{
    struct h *h = *state;
    static struct conn c[200];
    static uint8_t data[1400];
    static struct mx mx;
    uint64_t bytes = 0, sent = 0;

    for (unsigned i = 0; i < 200; i++)
        c[i] = conn_open(h, WORLD, (uint16_t)(30000 + i), 80);
    /* 200 x 56 KB of BYTES; nobody reads the channel. */
    for (unsigned k = 0; k < 40; k++) {
        for (unsigned i = 0; i < 200; i++) {
            static struct buf b;
            tcp_frame(&b, test_link.guest, c[i].dst, c[i].sport, c[i].dport, c[i].snd, c[i].rcv, TCP_ACK, data,
                      sizeof(data));
            h_turn(h, 0);
            if (write(h->guest, b.data, b.len) < 0) {
                assert_int_equal(errno, EAGAIN); /* not read any more: what a full card does */
                goto full;
            }
            c[i].snd += sizeof(data);
            sent += sizeof(data);
            static struct rx rx;
            while (guest_poll(h, &rx))
                ;
        }
    }
    fail_msg("the front never stopped reading");
full:
    assert_null(h->failed);
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (bytes < sent) {
        assert_true(sm_clock_us() < until);
        if (core_poll(h, &mx)) {
            assert_int_equal(mx.m.type, SM_FLOW_BYTES);
            bytes += mx.m.data_len;
        } else {
            h_turn(h, 5);
        }
        static struct rx rx;
        while (guest_poll(h, &rx))
            ;
    }
    assert_int_equal(bytes, sent);
}

/* Held bytes are bounded for one flow: the window closes instead. */
static void test_held_bound(void **state)
{
    struct h *h = *state;
    static struct mx mx;
    static struct rx rx;
    static uint8_t data[1400];
    struct conn c = conn_open(h, WORLD, 40000, 80);
    size_t shown = 0;

    for (int i = 0; i < 200; i++) {
        conn_send(&c, TCP_ACK, data, sizeof(data));
        while (core_poll(h, &mx)) {
            assert_int_equal(mx.m.type, SM_FLOW_BYTES);
            shown += mx.m.data_len;
        }
        while (guest_poll(h, &rx))
            ;
    }
    assert_int_equal(shown, SM_FLOW_HELD_MAX);
    assert_true(rx.window < 1400);
    assert_in_range(h_stats(h).held_now, SM_FLOW_HELD_MAX, SM_FLOW_HELD_MAX + (64 << 10));
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = c.id});
    assert_int_equal(h_stats(h).held_now, 0);
}

/* A published port: the core gives a descriptor, the guest gets a SYN. */
static void test_inbound(void **state)
{
    struct h *h = *state;
    static struct mx mx;
    static struct rx rx;
    const uint64_t id = SM_FLOW_ID_CORE | 1;
    int pair[2];
    struct sm_flow_msg in = {
        .type = SM_FLOW_INBOUND, .id = id, .guest_port = 8080, .src = {.addr = sm_addr_from_u32(WORLD), .port = 5555}};

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(write(pair[1], "early", 5), 5);
    core_send_fd(h, &in, pair[0]);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(mx.m.id, id);
    guest_recv(h, &rx);
    assert_int_equal(rx.flags, TCP_SYN);
    assert_int_equal(rx.src, WORLD);
    assert_int_equal(rx.sport, 5555);
    assert_int_equal(rx.dport, 8080);
    struct conn c = {.h = h, .dst = WORLD, .sport = 8080, .dport = 5555, .snd = 7, .rcv = rx.seq + 1, .id = id};
    conn_send(&c, TCP_SYN | TCP_ACK, NULL, 0);
    conn_expect(&c, "early", 5);
    conn_send(&c, TCP_ACK | TCP_PSH, "reply", 5);
    upstream_expect(h, pair[1], "reply", 5);
    conn_send(&c, TCP_RST | TCP_ACK, NULL, 0);
    gone_expect(h, id, SM_WHY_GUEST_RST);
    (void)close(pair[1]);

    /* Refused by the guest. */
    in.id = SM_FLOW_ID_CORE | 2;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    core_send_fd(h, &in, pair[0]);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    do
        guest_recv(h, &rx);
    while (rx.flags != TCP_SYN);
    c.rcv = rx.seq + 1;
    c.snd = 0;
    conn_send(&c, TCP_RST | TCP_ACK, NULL, 0);
    gone_expect(h, in.id, SM_WHY_GUEST_RST);
    assert_int_equal(upstream_end(h, pair[1]), 0);
    (void)close(pair[1]);
    assert_int_equal(h_stats(h).tcp_now, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, h_setup, h_teardown)
        T(test_round_trip),
        T(test_batch),
        T(test_upstream_urgent),
        T(test_half_close_by_upstream),
        T(test_consumed),
        T(test_eof_while_held),
        T(test_resets),
        T(test_upstream_reset),
        T(test_said_before_attach),
        T(test_refusals),
        T(test_holds),
        T(test_finish),
        T(test_finish_bounded),
        T(test_guest_left),
        T(test_guest_left_bounded),
        T(test_pending_syn_again),
        T(test_syn_flood),
        T(test_dead_ids),
        T(test_wrong_direction),
        T(test_back_pressure_up),
        T(test_back_pressure_down),
        T(test_port_full),
        T(test_channel_full),
        T(test_held_bound),
        T(test_inbound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
