/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames as datagrams: one each, whatever its length; a peer that is away, does not read, or is another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/un.h>

#include "harness.h"

static struct pw *start(void)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    return pw_new(sm_port_dgram_new(pair[0], MTU, NULL), pair[1]);
}

/* An abstract name of this process, so that nothing is left on disk. */
static int named(const char *name)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n = g_snprintf(sun.sun_path + 1, sizeof(sun.sun_path) - 1, "sm-test-%d-%s", (int)getpid(), name);
    assert_true(fd >= 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1u + (size_t)n)), 0);
    return fd;
}

static int connect_to(int fd, const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n = g_snprintf(sun.sun_path + 1, sizeof(sun.sun_path) - 1, "sm-test-%d-%s", (int)getpid(), name);
    return connect(fd, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1u + (size_t)n));
}

static void test_one_frame_a_datagram(void **state)
{
    static const size_t lens[] = {60, 1, 0, MAX_FRAME, MAX_FRAME + 1, 9000, 60};
    struct pw *w = start();
    uint8_t data[9000];

    memset(data, 5, sizeof(data));
    for (size_t i = 0; i < SM_ARRAY_LEN(lens); i++)
        assert_int_equal(send(w->vmm, data, lens[i], 0), lens[i]);
    pw_turns(w, 3);
    assert_int_equal(w->n_got, SM_ARRAY_LEN(lens));
    for (size_t i = 0; i < SM_ARRAY_LEN(lens); i++)
        assert_int_equal(w->got_len[i],
                         SM_MIN(lens[i], CAP)); /* a cut one shows that it was longer than the link allows */
    assert_true(w->port->connected);
    pw_free(w);
}

static void test_batches(void **state)
{
    struct pw *w = start();
    uint8_t data[14] = {0};
    unsigned n = 0;

    for (unsigned round = 0; round < 40; round++) {
        while (n < 3 * SM_PORT_BATCH * (round + 1) && send(w->vmm, data, sizeof(data), MSG_DONTWAIT) >= 0)
            n++;
        pw_turns(w, 1);
    }
    pw_turns(w, 40);
    assert_true(n > 100);
    assert_int_equal(w->n_got, n);
    assert_true(w->biggest_read <= SM_PORT_BATCH);
    pw_free(w);
}

static void test_back_pressure(void **state)
{
    struct pw *w = start();
    uint8_t frame[1000], buf[2000];
    unsigned n = 0, taken = 0;

    while (w->port->queued_frames < 200) {
        memset(frame, (int)(n & 0xff), sizeof(frame));
        assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
        n++;
    }
    for (unsigned idle = 0; idle < 3;) {
        ssize_t got = recv(w->vmm, buf, sizeof(buf), MSG_DONTWAIT);
        if (got > 0) {
            assert_int_equal(got, sizeof(frame));
            assert_int_equal(buf[999], taken & 0xff);
            taken++;
            idle = 0;
        } else {
            idle++;
        }
        pw_turns(w, 1);
    }
    assert_int_equal(taken, n);
    assert_int_equal(w->port->tx_dropped, 0);
    pw_free(w);
}

/* The VMM is not there yet, comes, goes, and comes again; the socket is connected anew by the one that made it. */
static void test_peer_away_and_back(void **state)
{
    int ours = named("ours"), again = dup(ours), vmm = -1;
    struct pw *w = pw_new(sm_port_dgram_new(ours, MTU, NULL), -1);
    uint8_t frame[60] = {1}, buf[100];

    assert_int_equal(pw_send(w, frame, sizeof(frame)), 0); /* not connected: ENOTCONN or EDESTADDRREQ */
    assert_int_equal(w->port->tx_dropped, 1);
    for (unsigned round = 0; round < 3; round++) {
        vmm = named("vmm");
        assert_int_equal(connect_to(again, "vmm"), 0);
        assert_int_equal(connect_to(vmm, "ours"), 0);
        assert_int_equal(send(vmm, frame, sizeof(frame), 0), sizeof(frame));
        pw_turns(w, 2);
        assert_int_equal(w->n_got, round + 1);
        assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
        assert_int_equal(recv(vmm, buf, sizeof(buf), MSG_DONTWAIT), sizeof(frame));
        uint64_t dropped = w->port->tx_dropped;
        close(vmm);
        assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
        assert_int_equal(pw_send(w, frame, sizeof(frame)), 0);
        pw_turns(w, 3);
        assert_int_equal(w->port->tx_dropped, dropped + 2);
        assert_true(w->port->connected);
        assert_int_equal(w->leaves, 0);
    }
    close(again);
    pw_free(w);
}

/* While it is connected nobody else is heard. */
static void test_stranger(void **state)
{
    int ours = named("ours2"), vmm = named("vmm2"), stranger = named("stranger2");
    uint8_t frame[60] = {1};

    assert_int_equal(connect_to(ours, "vmm2"), 0);
    assert_int_equal(connect_to(stranger, "ours2"), -1);
    assert_int_equal(errno, EPERM);
    struct pw *w = pw_new(sm_port_dgram_new(ours, MTU, NULL), vmm);
    assert_int_equal(send(stranger, frame, sizeof(frame), 0), -1);
    pw_turns(w, 2);
    assert_int_equal(w->n_got, 0);
    close(stranger);
    pw_free(w);
}

static void test_too_long_for_the_socket(void **state)
{
    struct pw *w = start();
    uint8_t *frame = g_malloc0(1u << 20);
    uint8_t buf[100];

    assert_int_equal(pw_send(w, frame, 1u << 20), 0); /* EMSGSIZE: this frame is lost, the port is not */
    assert_int_equal(w->port->tx_dropped, 1);
    assert_int_equal(pw_send(w, frame, 60), 0);
    assert_int_equal(recv(w->vmm, buf, sizeof(buf), MSG_DONTWAIT), 60);
    g_free(frame);
    pw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_frame_a_datagram),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_peer_away_and_back),
        cmocka_unit_test(test_stranger),
        cmocka_unit_test(test_too_long_for_the_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
