/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU's stream protocol against a VMM that sends in pieces, lies about lengths, does not read, and comes and goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>

#include "harness.h"

#define QEMU_MAX (4096 + 65536)

static struct pw *start(void)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    return pw_new(sm_port_stream_new(pair[0], MTU, NULL), pair[1]);
}

static size_t put(uint8_t *at, size_t len, uint8_t first)
{
    uint32_t head = htonl((uint32_t)len);
    memcpy(at, &head, 4);
    for (size_t i = 0; i < len; i++)
        at[4 + i] = (uint8_t)(first + i);
    return 4 + len;
}

static void vmm_send(struct pw *w, const void *data, size_t len)
{
    assert_int_equal(send(w->vmm, data, len, MSG_NOSIGNAL), len);
}

static void send_frame(struct pw *w, size_t len, uint8_t first)
{
    static uint8_t buf[4 + QEMU_MAX];
    size_t n = put(buf, len, first), at = 0;

    /* larger than the socket takes at once */
    while (at < n) {
        ssize_t sent = send(w->vmm, buf + at, n - at, MSG_NOSIGNAL);
        if (sent > 0)
            at += (size_t)sent;
        pw_turns(w, 1);
    }
}

static void assert_frame(const struct pw *w, unsigned i, size_t len, uint8_t first)
{
    assert_true(i < w->n_got);
    assert_int_equal(w->got_len[i], len);
    assert_int_equal(w->got_first[i], first);
}

static void vmm_has_left(struct pw *w, unsigned leaves)
{
    assert_int_equal(w->leaves, leaves);
    assert_false(w->port->connected);
    assert_int_equal(w->port->fd, -1);
    char c;
    ssize_t n = recv(w->vmm, &c, 1, MSG_DONTWAIT); /* the VMM sees the end */
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
}

static void test_pieces_at_every_byte(void **state)
{
    uint8_t buf[512];
    size_t len = put(buf, 60, 1);
    len += put(buf + len, 14, 2);
    len += put(buf + len, 1, 3);
    len += put(buf + len, 99, 4);

    for (size_t cut = 1; cut < len; cut++) {
        struct pw *w = start();
        vmm_send(w, buf, cut);
        pw_turns(w, 3);
        vmm_send(w, buf + cut, len - cut);
        pw_turns(w, 3);
        assert_int_equal(w->n_got, 4);
        assert_frame(w, 0, 60, 1);
        assert_frame(w, 1, 14, 2);
        assert_frame(w, 2, 1, 3);
        assert_frame(w, 3, 99, 4);
        assert_true(w->port->connected);
        pw_free(w);
    }
    struct pw *w = start();
    for (size_t i = 0; i < len; i++) {
        vmm_send(w, buf + i, 1);
        pw_turns(w, 2);
    }
    assert_int_equal(w->n_got, 4);
    assert_frame(w, 3, 99, 4);
    assert_int_equal(w->port->rx_frames, 4);
    pw_free(w);
}

static void test_bytes_are_the_frames(void **state)
{
    struct pw *w = start();
    uint8_t buf[4 + MAX_FRAME];
    size_t len = put(buf, MAX_FRAME, 77);

    vmm_send(w, buf, len);
    assert_int_equal(pw_read(w), 1);
    assert_int_equal(w->frames[0].len, MAX_FRAME);
    assert_memory_equal(w->bytes[0], buf + 4, MAX_FRAME);
    assert_int_equal(w->frames[0].offload.flags, 0);
    pw_free(w);
}

static void test_lying_lengths(void **state)
{
    static const uint32_t lies[] = {0, QEMU_MAX + 1, 0x10000000, 0x7fffffff, 0x80000000, 0xffffffff};

    for (size_t i = 0; i < SM_ARRAY_LEN(lies); i++) {
        struct pw *w = start();
        uint8_t buf[256];
        size_t len = put(buf, 60, 9);
        uint32_t lie = htonl(lies[i]);
        memcpy(buf + len, &lie, 4);
        (void)put(buf + len + 4, 60, 10);
        vmm_send(w, buf, len + 4 + 64);
        pw_turns(w, 4);
        /* what came before is the guest's; nothing behind the lie is believed */
        assert_int_equal(w->n_got, 1);
        assert_frame(w, 0, 60, 9);
        vmm_has_left(w, 1);
        pw_free(w);
    }
}

static void test_too_long_for_the_link(void **state)
{
    static const size_t lens[] = {MAX_FRAME + 1, MAX_FRAME + 2, 9000, 65536, QEMU_MAX};

    for (size_t i = 0; i < SM_ARRAY_LEN(lens); i++) {
        struct pw *w = start();
        send_frame(w, 60, 1);
        send_frame(w, lens[i], 2);
        send_frame(w, lens[i], 3);
        send_frame(w, 60, 4);
        pw_turns(w, 8);
        assert_int_equal(w->n_got, 4);
        assert_frame(w, 0, 60, 1);
        assert_frame(w, 1, lens[i], 2); /* its beginning, and what its length was: the guard refuses it */
        assert_frame(w, 2, lens[i], 3);
        assert_frame(w, 3, 60, 4);
        assert_true(w->port->connected);
        pw_free(w);
    }
}

static void test_too_long_in_pieces(void **state)
{
    static uint8_t buf[4 + MAX_FRAME + 1 + 64];
    size_t len = put(buf, MAX_FRAME + 1, 5);
    len += put(buf + len, 60, 6);

    for (size_t cut = 1; cut < 64; cut++) { /* through the length and the header, and a little beyond */
        struct pw *w = start();
        vmm_send(w, buf, cut);
        pw_turns(w, 2);
        vmm_send(w, buf + cut, len - cut);
        pw_turns(w, 4);
        assert_int_equal(w->n_got, 2);
        assert_frame(w, 0, MAX_FRAME + 1, 5);
        assert_frame(w, 1, 60, 6);
        pw_free(w);
    }
}

/* One read(2) brings many batches; what is left over must not wait for the next byte of the socket. */
static void test_more_than_a_batch(void **state)
{
    enum { N = 5 * SM_PORT_BATCH + 7 };
    static uint8_t buf[N * 18];
    struct pw *w = start();
    size_t len = 0;

    for (unsigned i = 0; i < N; i++)
        len += put(buf + len, 14, (uint8_t)i);
    vmm_send(w, buf, len);
    pw_turns(w, 12);
    assert_int_equal(w->n_got, N);
    assert_int_equal(w->biggest_read, SM_PORT_BATCH);
    for (unsigned i = 0; i < N; i++)
        assert_frame(w, i, 14, (uint8_t)i);
    unsigned reads = w->reads;
    pw_turns(w, 5);
    assert_int_equal(w->reads, reads); /* and then it is quiet */
    pw_free(w);
}

/* A full batch, and behind it, in the same read(2), something that ends the connection. */
static void test_lie_behind_a_batch(void **state)
{
    struct pw *w = start();
    uint8_t buf[32];
    size_t len = put(buf, 14, 0);

    for (unsigned i = 0; i < SM_PORT_BATCH; i++)
        vmm_send(w, buf, len);
    vmm_send(w, "\xff\xff\xff\xff", 4);
    pw_turns(w, 5);
    assert_int_equal(w->n_got, SM_PORT_BATCH);
    vmm_has_left(w, 1);
    pw_free(w);
}

static void test_end_in_the_middle(void **state)
{
    uint8_t buf[128];
    size_t len = put(buf, 60, 1);
    (void)put(buf + len, 50, 2);

    for (size_t cut = len; cut < len + 54; cut++) {
        struct pw *w = start();
        vmm_send(w, buf, cut);
        sm_fd_close(&w->vmm);
        pw_turns(w, 5);
        assert_int_equal(w->n_got, 1);
        assert_frame(w, 0, 60, 1);
        assert_int_equal(w->leaves, 1);
        assert_false(w->port->connected);
        pw_free(w);
    }
}

static void test_another_vmm_comes(void **state)
{
    struct pw *w = start();
    uint8_t buf[128], frame[60] = {7};
    size_t len = put(buf, 60, 1);
    int pair[2];

    assert_int_equal(w->port->connections, 1);
    vmm_send(w, buf, len - 5); /* half a frame must not be the beginning of the next VMM's */
    pw_turns(w, 2);
    sm_fd_close(&w->vmm);
    pw_turns(w, 2);
    assert_int_equal(w->leaves, 1);

    assert_int_equal(pw_send(w, frame, sizeof(frame)), 0); /* nobody is there */
    assert_int_equal(w->port->tx_dropped, 1);
    assert_int_equal(w->port->queued_frames, 0);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0); /* blocking: the port sees to that */
    w->vmm = pair[1];
    assert_int_equal(sm_port_connect(w->port, pair[0]), 0);
    assert_true(w->port->connected);
    assert_int_equal(w->port->connections, 2);
    vmm_send(w, buf, len);
    pw_turns(w, 3);
    assert_int_equal(w->n_got, 1);
    assert_frame(w, 0, 60, 1);
    assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
    assert_int_equal(recv(w->vmm, buf, sizeof(buf), MSG_DONTWAIT), 64);
    assert_int_equal(w->leaves, 1);
    pw_free(w);
}

/* A new connection in place of one that lives: the old one is closed, and nobody is told that the VMM has gone. */
static void test_replaced(void **state)
{
    struct pw *w = start();
    int pair[2], old = w->vmm;
    char c;

    vmm_send(w, "\0\0\0\x3c", 4);
    pw_turns(w, 2);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(sm_port_connect(w->port, pair[0]), 0);
    w->vmm = pair[1];
    assert_int_equal(recv(old, &c, 1, MSG_DONTWAIT), 0);
    close(old);
    assert_int_equal(w->leaves, 0);
    uint8_t buf[64];
    vmm_send(w, buf, put(buf, 14, 8));
    pw_turns(w, 3);
    assert_int_equal(w->n_got, 1);
    assert_frame(w, 0, 14, 8);
    pw_free(w);
}

static void test_starts_without_a_vmm(void **state)
{
    struct pw *w = pw_new(sm_port_stream_new(-1, MTU, NULL), -1);
    uint8_t frame[60] = {0}, buf[64];
    int pair[2];

    assert_false(w->port->connected);
    pw_turns(w, 2);
    assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
    assert_int_equal(w->port->tx_dropped, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(sm_port_connect(w->port, pair[0]), 0);
    w->vmm = pair[1];
    vmm_send(w, buf, put(buf, 14, 3));
    pw_turns(w, 2);
    assert_int_equal(w->n_got, 1);
    assert_int_equal(w->port->connections, 1);
    pw_free(w);
}

/* The VMM does not read: frames wait, in order and whole, and are dropped only behind the queue's bound. */
static void test_back_pressure(void **state)
{
    struct pw *w = start();
    uint8_t frame[MAX_FRAME], *all = g_malloc(16u << 20);
    unsigned n = 0, small = 4096;
    size_t have = 0;

    assert_int_equal(setsockopt(w->port->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    while (w->port->tx_dropped == 0 && n < 2 * SM_PORT_QUEUE_FRAMES) {
        memset(frame, (int)(n & 0xff), sizeof(frame));
        size_t len = 60 + n % (MAX_FRAME - 60);
        assert_int_equal(pw_send(w, frame, len), 0);
        n++;
    }
    unsigned kept = n - 1;
    assert_int_equal(w->port->tx_dropped, 1);
    assert_true(sm_port_congested(w->port));
    assert_true(w->port->queued_bytes <= SM_PORT_QUEUE_BYTES);
    /* it reads again, in pieces of an odd size */
    for (unsigned idle = 0; idle < 3;) {
        ssize_t got = recv(w->vmm, all + have, 1999, MSG_DONTWAIT);
        if (got > 0) {
            have += (size_t)got;
            idle = 0;
        } else {
            idle++;
        }
        pw_turns(w, 1);
    }
    assert_false(sm_port_waiting(w->port));
    assert_false(sm_port_congested(w->port));
    size_t at = 0;
    for (unsigned i = 0; i < kept; i++) {
        uint32_t head;
        size_t len = 60 + i % (MAX_FRAME - 60);
        assert_true(have - at >= 4 + len);
        memcpy(&head, all + at, 4);
        assert_int_equal(ntohl(head), len);
        for (size_t k = 0; k < len; k += 13)
            assert_int_equal(all[at + 4 + k], i & 0xff);
        at += 4 + len;
    }
    assert_int_equal(at, have);
    assert_int_equal(w->port->tx_frames, kept);
    g_free(all);
    pw_free(w);
}

/* It goes while frames wait for it, one of them half written: the next VMM begins with a whole frame of its own. */
static void test_leaves_while_frames_wait(void **state)
{
    struct pw *w = start();
    uint8_t frame[MAX_FRAME] = {0}, buf[64];
    unsigned small = 4096;
    int pair[2];

    assert_int_equal(setsockopt(w->port->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    while (w->port->queued_frames < 100)
        assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
    assert_true(sm_port_waiting(w->port));
    sm_fd_close(&w->vmm);
    pw_turns(w, 3);
    assert_int_equal(w->leaves, 1);
    assert_false(sm_port_waiting(w->port));
    assert_int_equal(w->port->queued_frames, 0);
    assert_int_equal(w->port->queued_bytes, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(sm_port_connect(w->port, pair[0]), 0);
    w->vmm = pair[1];
    assert_int_equal(pw_send(w, frame, 20), 0);
    assert_int_equal(recv(w->vmm, buf, sizeof(buf), MSG_DONTWAIT), 24);
    assert_int_equal(buf[3], 20);
    pw_free(w);
}

/* Written to when it has gone and nobody has looked yet. */
static void test_gone_before_it_is_written_to(void **state)
{
    struct pw *w = start();
    uint8_t frame[60] = {0};

    sm_fd_close(&w->vmm);
    assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
    assert_int_equal(w->leaves, 1);
    assert_int_equal(w->port->tx_dropped, 1);
    assert_int_equal(w->port->tx_frames, 0);
    pw_turns(w, 2);
    assert_int_equal(w->leaves, 1);
    pw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_at_every_byte),
        cmocka_unit_test(test_bytes_are_the_frames),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_too_long_for_the_link),
        cmocka_unit_test(test_too_long_in_pieces),
        cmocka_unit_test(test_more_than_a_batch),
        cmocka_unit_test(test_lie_behind_a_batch),
        cmocka_unit_test(test_end_in_the_middle),
        cmocka_unit_test(test_another_vmm_comes),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_starts_without_a_vmm),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_leaves_while_frames_wait),
        cmocka_unit_test(test_gone_before_it_is_written_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
