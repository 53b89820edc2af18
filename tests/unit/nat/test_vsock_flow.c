/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vsock through the whole front: the guest's packets on a stream socket behind a port that may be connected again, a scripted core on the
 * channel, and the core's ends of the pairs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "vsock_guest.h"

#define CA_PORT 1027u

struct vh {
    struct h *h;
    struct sm_port *port;
    int guest; /* packets, each behind its length */
    GByteArray *in;
    guint in_at;   /* what was looked at */
    uint32_t read; /* bytes of the one stream that the guest has read */
};

static void connect_vmm(struct vh *v)
{
    int pair[2];

    sm_fd_close(&v->guest);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(sm_port_connect(v->port, pair[0]), 0);
    v->guest = pair[1];
    g_byte_array_set_size(v->in, 0);
    v->in_at = 0;
}

static int setup(void **state)
{
    struct vh *v = g_new0(struct vh, 1);

    v->h = h_new();
    v->guest = -1;
    v->in = g_byte_array_new();
    v->port = sm_port_stream_new(-1, SM_VSOCK_PACKET_MAX - SM_ETH_HLEN, NULL);
    sm_front_add_vsock(v->h->front, v->port, GUEST_CID);
    connect_vmm(v);
    *state = v;
    return 0;
}

static int teardown(void **state)
{
    struct vh *v = *state;

    assert_null(v->h->failed);
    h_free(v->h);
    sm_fd_close(&v->guest);
    g_byte_array_unref(v->in);
    g_free(v);
    return 0;
}

/* As many bytes as the socket takes at once, with turns in between. */
static void vmm_write(struct vh *v, const uint8_t *p, size_t len)
{
    int64_t until = sm_clock_us() + DEADLINE_US;

    while (len > 0) {
        ssize_t n = write(v->guest, p, len);
        if (n < 0) {
            uint8_t buf[16384];
            assert_int_equal(errno, EAGAIN);
            assert_true(sm_clock_us() < until);
            /* A VMM does both at once: what is not read would hold up what is written. */
            while ((n = read(v->guest, buf, sizeof(buf))) > 0)
                g_byte_array_append(v->in, buf, (guint)n);
            h_turn(v->h, 20);
            continue;
        }
        p += n;
        len -= (size_t)n;
    }
}

static void give(struct vh *v, const struct vs_packet *p)
{
    static uint8_t raw[4 + SM_VSOCK_PACKET_MAX + 64];
    uint32_t len = (uint32_t)vs_encode(p, raw + 4);

    raw[0] = (uint8_t)(len >> 24);
    raw[1] = (uint8_t)(len >> 16);
    raw[2] = (uint8_t)(len >> 8);
    raw[3] = (uint8_t)len;
    vmm_write(v, raw, 4 + len);
    h_settle(v->h);
}

static void say(struct vh *v, uint32_t port, uint16_t op, uint32_t flags)
{
    struct vs_packet p = vs_packet(port, CA_PORT, op);
    p.flags = flags;
    p.fwd_cnt = v->read;
    give(v, &p);
}

static void say_bytes(struct vh *v, uint32_t port, const void *data, size_t len)
{
    struct vs_packet p = vs_packet(port, CA_PORT, VS_RW);
    p.fwd_cnt = v->read;
    p.len = (uint32_t)len;
    p.payload_len = len;
    memcpy(p.payload, data, len);
    give(v, &p);
}

static bool poll_packet(struct vh *v, struct vs_packet *ret)
{
    uint8_t buf[16384];
    ssize_t n;

    if (v->in_at > 1u << 20 || v->in_at == v->in->len) {
        g_byte_array_remove_range(v->in, 0, v->in_at);
        v->in_at = 0;
    }
    while (v->in->len - v->in_at < 2 * sizeof(buf) && (n = read(v->guest, buf, sizeof(buf))) > 0)
        g_byte_array_append(v->in, buf, (guint)n);
    const uint8_t *at = v->in->data + v->in_at;
    guint left = v->in->len - v->in_at;
    if (left < 4)
        return false;
    guint len = (guint)vs_get((const uint8_t[]){at[3], at[2], at[1], at[0]}, 4);
    if (left < 4 + len)
        return false;
    assert_true(vs_decode(at + 4, len, ret));
    v->in_at += 4 + len;
    return true;
}

static struct vs_packet expect(struct vh *v, uint32_t port, uint16_t op)
{
    struct vs_packet p;
    int64_t until = sm_clock_us() + DEADLINE_US;

    while (!poll_packet(v, &p)) {
        assert_true(sm_clock_us() < until);
        h_turn(v->h, 20);
    }
    assert_int_equal(p.op, op);
    assert_int_equal(p.dst_port, port);
    return p;
}

static uint64_t ask(struct vh *v, uint32_t port)
{
    static struct mx mx;

    say(v, port, VS_REQUEST, 0);
    core_expect(v->h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_VSOCK);
    assert_int_equal(mx.m.vsock_src, port);
    assert_int_equal(mx.m.vsock_dst, CA_PORT);
    return mx.m.id;
}

static int open_stream(struct vh *v, uint32_t port, uint64_t *ret_id)
{
    *ret_id = ask(v, port);
    int up = core_attach(v->h, *ret_id, 0, SOCK_STREAM);
    (void)expect(v, port, VS_RESPONSE);
    return up;
}

static void test_round_trip(void **state)
{
    struct vh *v = *state;
    uint64_t id;
    int up = open_stream(v, 5000, &id);

    say_bytes(v, 5000, "ping", 4);
    upstream_expect(v->h, up, "ping", 4);
    assert_int_equal(write(up, "pong", 4), 4);
    struct vs_packet p = expect(v, 5000, VS_RW);
    assert_int_equal(p.len, 4);
    assert_memory_equal(p.payload, "pong", 4);
    assert_int_equal(p.fwd_cnt, 4);
    v->read = 4;
    /* The guest's half-close, and then ours. */
    say(v, 5000, VS_SHUTDOWN, VS_NO_SEND);
    assert_int_equal(upstream_end(v->h, up), 0);
    assert_int_equal(write(up, "last", 4), 4);
    (void)expect(v, 5000, VS_RW);
    (void)close(up);
    p = expect(v, 5000, VS_SHUTDOWN);
    assert_int_equal(p.flags, VS_NO_RECEIVE | VS_NO_SEND);
    gone_expect(v->h, id, SM_WHY_CLOSED);
    h_settle(v->h);
    assert_int_equal(h_stats(v->h).vsock_now, 0);
    assert_int_equal(h_stats(v->h).asked_now, 0);
}

static void test_half_close_by_the_core(void **state)
{
    struct vh *v = *state;
    uint64_t id;
    int up = open_stream(v, 5000, &id);

    assert_int_equal(write(up, "PEM", 3), 3);
    assert_int_equal(shutdown(up, SHUT_WR), 0);
    assert_int_equal(expect(v, 5000, VS_RW).len, 3);
    v->read = 3;
    assert_int_equal(expect(v, 5000, VS_SHUTDOWN).flags, VS_NO_SEND);
    say_bytes(v, 5000, "thanks", 6);
    upstream_expect(v->h, up, "thanks", 6);
    say(v, 5000, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    (void)expect(v, 5000, VS_RST);
    assert_int_equal(upstream_end(v->h, up), 0);
    gone_expect(v->h, id, SM_WHY_CLOSED);
    (void)close(up);
}

static void test_refused_and_aborted(void **state)
{
    struct vh *v = *state;
    uint64_t id = ask(v, 5000);

    core_refuse(v->h, id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    (void)expect(v, 5000, VS_RST);
    /* A hold is not for vsock: the next one is asked for all the same. */
    id = ask(v, 5000);
    core_refuse(v->h, id, SM_HOW_RST, SM_SCOPE_DESTINATION, 60000);
    (void)expect(v, 5000, VS_RST);
    int up = open_stream(v, 5000, &id);
    core_send(v->h, &(struct sm_flow_msg){.type = SM_FLOW_ABORT, .id = id});
    (void)expect(v, 5000, VS_RST);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    core_expect_nothing(v->h); /* the core said it: it is not told */
    assert_int_equal(h_stats(v->h).vsock_now, 0);
}

static void test_guest_resets(void **state)
{
    struct vh *v = *state;
    uint64_t id;
    int up = open_stream(v, 5000, &id);

    say(v, 5000, VS_RST, 0);
    gone_expect(v->h, id, SM_WHY_GUEST_RST);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    /* Before the answer: an ATTACH that was under way is acknowledged, and its descriptor closed. */
    id = ask(v, 5001);
    say(v, 5001, VS_RST, 0);
    gone_expect(v->h, id, SM_WHY_REFUSED);
    up = core_attach(v->h, id, 0, SOCK_STREAM);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    h_settle(v->h);
    assert_int_equal(h_stats(v->h).vsock_now + h_stats(v->h).asked_now, 0);
}

static void test_core_end_fails(void **state)
{
    struct vh *v = *state;
    uint64_t id;
    int up = open_stream(v, 5000, &id);

    (void)close(up);
    assert_int_equal(expect(v, 5000, VS_SHUTDOWN).flags, VS_NO_SEND);
    say_bytes(v, 5000, "to nobody", 9);
    (void)expect(v, 5000, VS_RST);
    gone_expect(v->h, id, SM_WHY_UPSTREAM_RST);
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((i * 2654435761u + seed) >> 11);
}

/* Upstream does not read: what the guest may send is bounded by its credit, and nothing is lost when it reads again. */
static void test_slow_upstream(void **state)
{
    struct vh *v = *state;
    uint64_t id;
    enum { TOTAL = 1 << 20, CHUNK = 8192 };
    g_autofree uint8_t *data = g_malloc(TOTAL), *got = g_malloc(TOTAL);
    int up = open_stream(v, 5000, &id);
    size_t sent = 0, have = 0;
    uint32_t fwd = 0;
    unsigned stuck = 0;
    int64_t until = sm_clock_us() + DEADLINE_US;

    fill(data, TOTAL, 1);
    while (have < TOTAL) {
        struct vs_packet p;
        struct sm_vsock_stats st;
        assert_true(sm_clock_us() < until);
        while (poll_packet(v, &p)) {
            assert_int_equal(p.op, VS_CREDIT_UPDATE);
            fwd = p.fwd_cnt;
        }
        size_t n = SM_MIN(SM_MIN((size_t)CHUNK, TOTAL - sent), SM_VSOCK_BUF - (sent - fwd));
        if (n > 0) {
            say_bytes(v, 5000, data + sent, n);
            sent += n;
            continue;
        }
        sm_front_vsock_stats(v->h->front, &st);
        assert_true(st.kept_now <= SM_VSOCK_BUF);
        stuck += st.kept_now > 0;
        /* Out of credit: now upstream reads a little. */
        ssize_t r = read(up, got + have, SM_MIN((size_t)30000, TOTAL - have));
        if (r > 0)
            have += (size_t)r;
        h_turn(v->h, r > 0 ? 0 : 20);
    }
    assert_true(stuck > 0);
    assert_memory_equal(got, data, TOTAL);
    (void)close(up);
}

/* The guest reads no packets at all: upstream is not read beyond its credit and the port's queue, and then all arrives. */
static void test_slow_guest(void **state)
{
    struct vh *v = *state;
    enum { STREAMS = 40, TOTAL = 200000 };
    g_autofree uint8_t *data = g_malloc(TOTAL);
    int up[STREAMS];
    size_t written[STREAMS] = {0}, got[STREAMS] = {0};
    uint64_t id;
    bool congested = false;

    fill(data, TOTAL, 2);
    for (uint32_t i = 0; i < STREAMS; i++)
        up[i] = open_stream(v, 6000 + i, &id);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < STREAMS; i++) {
            ssize_t n = write(up[i], data + written[i], TOTAL - written[i]);
            written[i] += n > 0 ? (size_t)n : 0;
        }
        h_turn(v->h, 0);
        congested |= sm_port_congested(v->port);
        assert_true(v->port->queued_bytes <= SM_PORT_QUEUE_BYTES / 2 + SM_VSOCK_PACKET_MAX);
    }
    assert_true(congested);
    int64_t until = sm_clock_us() + DEADLINE_US;
    for (size_t done = 0; done < STREAMS;) {
        struct vs_packet p;
        assert_true(sm_clock_us() < until);
        done = 0;
        for (int i = 0; i < STREAMS; i++) {
            ssize_t n = write(up[i], data + written[i], TOTAL - written[i]);
            written[i] += n > 0 ? (size_t)n : 0;
            done += got[i] == TOTAL;
        }
        while (poll_packet(v, &p)) {
            size_t i = p.dst_port - 6000;
            assert_true(i < STREAMS);
            if (p.op == VS_RW) {
                assert_memory_equal(p.payload, data + got[i], p.len);
                got[i] += p.len;
                until = sm_clock_us() + DEADLINE_US;
            }
            /* It reads at once, and says so. */
            struct vs_packet u = vs_packet(p.dst_port, CA_PORT, VS_CREDIT_UPDATE);
            u.fwd_cnt = (uint32_t)got[i];
            if (p.op == VS_CREDIT_REQUEST || got[i] % 7 == 0)
                give(v, &u);
        }
        h_turn(v->h, done == STREAMS ? 0 : 20);
    }
    assert_int_equal(v->port->tx_dropped, 0);
    for (int i = 0; i < STREAMS; i++)
        (void)close(up[i]);
}

/* Packets that want an answer, from a guest that takes none: they are not read any more, and no answer is lost. */
static void test_flood_of_unknown(void **state)
{
    struct vh *v = *state;
    static uint8_t raw[4 + SM_VSOCK_HDR] = {0, 0, 0, SM_VSOCK_HDR};
    unsigned sent = 0, answered = 0;
    struct vs_packet p = vs_packet(1, 2, VS_CREDIT_UPDATE);

    for (int idle = 0; idle < 50 && sent < 200000;) {
        p.src_port = sent;
        (void)vs_encode(&p, raw + 4);
        ssize_t n = write(v->guest, raw, sizeof(raw));
        idle = n < 0 ? idle + 1 : 0;
        assert_true(n < 0 || n == (ssize_t)sizeof(raw)); /* a unix socket takes what is so small whole or not */
        sent += n > 0;
        if (n < 0 || sent % 64 == 0)
            h_turn(v->h, 0);
    }
    assert_true(sm_port_congested(v->port));
    assert_true(sent < 200000);
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (answered < sent) {
        assert_true(sm_clock_us() < until);
        while (poll_packet(v, &p)) {
            assert_int_equal(p.op, VS_RST);
            assert_int_equal(p.dst_port, answered);
            answered++;
        }
        h_turn(v->h, answered < sent ? 20 : 0);
    }
    assert_int_equal(v->port->tx_dropped, 0);
}

/* The VMM is gone: every stream ends, and the next one finds a device that knows nothing. */
static void test_vmm_comes_again(void **state)
{
    struct vh *v = *state;
    uint64_t one, two;
    int up = open_stream(v, 5000, &one);

    two = ask(v, 5001);
    sm_fd_close(&v->guest);
    gone_expect(v->h, one, SM_WHY_GUEST_RST);
    gone_expect(v->h, two, SM_WHY_REFUSED);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    /* Late answers of the core meet nobody. */
    up = core_attach(v->h, two, 0, SOCK_STREAM);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    connect_vmm(v);
    up = open_stream(v, 5000, &one);
    /* ... and one that is there is put out by the next. */
    connect_vmm(v);
    h_turn(v->h, 0);
    gone_expect(v->h, one, SM_WHY_GUEST_RST);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    say_bytes(v, 5000, "old", 3);
    (void)expect(v, 5000, VS_RST);
    assert_int_equal(h_stats(v->h).vsock_now, 0);
    /* The guest begins anew while the VMM stays. */
    up = open_stream(v, 5000, &one);
    v->port->epochs++;
    h_turn(v->h, 0);
    gone_expect(v->h, one, SM_WHY_GUEST_RST);
    assert_int_equal(upstream_end(v->h, up), 0);
    (void)close(up);
    (void)open_stream(v, 5000, &one);
}

/* The workspace ends: what the guest sent before is delivered. */
static void test_finish_delivers(void **state)
{
    struct vh *v = *state;
    static uint8_t data[60000];
    uint64_t id;
    int up = open_stream(v, 5000, &id);
    static struct mx mx;

    /* Until upstream's socket is full. */
    struct sm_vsock_stats st = {0};
    size_t sent = 0;
    while (st.kept_now == 0 && sent < (8u << 20)) {
        struct vs_packet p;
        fill(data, sizeof(data), 3);
        say_bytes(v, 5000, data, sizeof(data));
        sent += sizeof(data);
        sm_front_vsock_stats(v->h->front, &st);
        while (poll_packet(v, &p))
            assert_int_equal(p.op, VS_CREDIT_UPDATE);
    }
    assert_true(st.kept_now > 0);
    sm_front_finish(v->h->front);
    h_settle(v->h);
    assert_false(core_poll(v->h, &mx));
    size_t have = 0;
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (have < sent) {
        uint8_t buf[30000];
        ssize_t n = read(up, buf, sizeof(buf));
        assert_true(sm_clock_us() < until);
        have += n > 0 ? (size_t)n : 0;
        h_turn(v->h, n > 0 ? 0 : 20);
    }
    /* The last word: our side of the channel is shut. */
    h_settle(v->h);
    uint8_t c;
    while (recv(v->h->core, &c, 1, 0) < 0) {
        assert_int_equal(errno, EAGAIN);
        assert_true(sm_clock_us() < until);
        h_turn(v->h, 20);
    }
    (void)close(up);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_round_trip),      T(test_half_close_by_the_core), T(test_refused_and_aborted), T(test_guest_resets),
        T(test_core_end_fails),  T(test_slow_upstream),          T(test_slow_guest),          T(test_flood_of_unknown),
        T(test_vmm_comes_again), T(test_finish_delivers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
