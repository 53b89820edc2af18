/* SPDX-License-Identifier: BSD-3-Clause */
/* Batches of datagrams over loopback: boundaries, order and counts are those of one call for each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/dgrams.h"

#define MTU_LARGE 60000

struct ends {
    int a, b; /* connected to each other */
};

static int bound(struct sockaddr_in *sin)
{
    socklen_t len = sizeof(*sin);
    int size = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    *sin = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)sin, sizeof(*sin)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)sin, &len), 0);
    return fd;
}

static struct ends ends_new(void)
{
    struct sockaddr_in a, b;
    struct ends e = {.a = bound(&a), .b = bound(&b)};

    assert_int_equal(connect(e.a, (struct sockaddr *)&b, sizeof(b)), 0);
    assert_int_equal(connect(e.b, (struct sockaddr *)&a, sizeof(a)), 0);
    return e;
}

static void ends_close(struct ends *e)
{
    (void)close(e->a);
    (void)close(e->b);
}

static bool refused(int err)
{
    return err == ECONNREFUSED;
}

static uint8_t data[SM_DGRAM_MAX];

static void fill(void)
{
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
}

static struct sm_dgrams_run run(size_t at, size_t len, size_t size)
{
    return (struct sm_dgrams_run){.data = data + at, .len = len, .size = size};
}

/* The next datagram is just these bytes. */
static void expect(int fd, const uint8_t *bytes, size_t len)
{
    static uint8_t got[SM_DGRAM_MAX + 1];

    assert_int_equal(recv(fd, got, sizeof(got), 0), len);
    assert_memory_equal(got, bytes, len);
}

static void expect_nothing(int fd)
{
    uint8_t b;
    assert_int_equal(recv(fd, &b, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static const struct sm_dgrams_run list[] = {
    {data, 3500, 1000},     {data + 7, 1, 1},    {data, 0, 0},
    {data, 0, 0},           {data + 100, 64, 1}, {data, SM_DGRAM_MAX, SM_DGRAM_MAX},
    {data + 5, 2800, 1400},
};

static void expect_list(int fd)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(list); i++) {
        struct sm_dgrams_run r = list[i];
        struct iovec d;
        bool more;
        do {
            more = sm_dgrams_run_take(&r, &d);
            expect(fd, d.iov_base, d.iov_len);
        } while (more);
    }
    expect_nothing(fd);
}

static size_t all_bytes(void)
{
    size_t n = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(list); i++)
        n += list[i].len;
    return n;
}

static size_t all_count(void)
{
    size_t n = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(list); i++)
        n += sm_dgrams_run_count(&list[i]);
    return n;
}

static void test_send(void **state)
{
    struct ends e = ends_new();
    uint16_t segment_max = UINT16_MAX;

    fill();
    struct sm_dgrams_sent done = sm_dgrams_send(e.a, list, SM_ARRAY_LEN(list), &segment_max, refused);
    assert_int_equal(done.err, 0);
    assert_int_equal(done.lost, 0);
    assert_int_equal(done.sent, all_count());
    assert_int_equal(done.bytes, all_bytes());
    assert_int_equal(segment_max, UINT16_MAX);
    expect_list(e.b);
    /* Where nothing may be left to the kernel to cut, the same arrives. */
    segment_max = 0;
    done = sm_dgrams_send(e.a, list, SM_ARRAY_LEN(list), &segment_max, refused);
    assert_int_equal(done.sent, all_count());
    assert_int_equal(done.bytes, all_bytes());
    expect_list(e.b);
    ends_close(&e);
}

/* Datagrams that are larger than the path takes in one piece cannot be cut out of a larger one: they go one by one, in
 * fragments. */
static void test_larger_than_the_path(void **state)
{
    struct ends e = ends_new();
    uint16_t segment_max = UINT16_MAX;
    struct sm_dgrams_run big[] = {run(0, 3000, 1000), run(0, SM_DGRAM_MAX, 40000)};
    int discover = IP_PMTUDISC_DONT;

    fill();
    assert_int_equal(setsockopt(e.a, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover)), 0);
    /* loopback's MTU is 65536 at the most: 40000 fits, so that the limit is taken from what the kernel says, a smaller
     * one is put here */
    segment_max = 20000;
    struct sm_dgrams_sent done = sm_dgrams_send(e.a, big, 2, &segment_max, refused);
    assert_int_equal(done.sent, 5);
    assert_int_equal(done.bytes, 3000 + SM_DGRAM_MAX);
    assert_int_equal(segment_max, 20000);
    for (int i = 0; i < 3; i++)
        expect(e.b, data + 1000 * i, 1000);
    expect(e.b, data, 40000);
    expect(e.b, data + 40000, SM_DGRAM_MAX - 40000);
    expect_nothing(e.b);
    ends_close(&e);
}

/* More segments than any kernel cuts: it says EINVAL, and each goes by itself. */
static void test_kernel_refuses_to_cut(void **state)
{
    struct ends e = ends_new();
    uint16_t segment_max = UINT16_MAX;
    struct sm_dgrams_run many = run(0, 1000, 1); /* our callers never give more than 64 */

    fill();
    struct sm_dgrams_sent done = sm_dgrams_send(e.a, &many, 1, &segment_max, refused);
    assert_int_equal(done.sent, 1000);
    assert_int_equal(done.lost, 0);
    assert_int_equal(segment_max, 0);
    for (int i = 0; i < 1000; i++)
        expect(e.b, data + i, 1);
    expect_nothing(e.b);
    ends_close(&e);
}

static void test_errors(void **state)
{
    struct ends e = ends_new();
    uint16_t segment_max = UINT16_MAX;
    int small = 4096;

    fill();
    /* A queue that is full loses what does not fit, and says how much. */
    assert_int_equal(setsockopt(e.a, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    struct sm_dgrams_run one = run(0, 60000, 1000);
    struct sm_dgrams_sent done = sm_dgrams_send(e.a, &one, 1, &segment_max, refused);
    assert_int_equal(done.err, 0);
    assert_int_equal(done.sent + done.lost, 60);
    assert_int_equal(done.bytes, done.sent * 1000);
    /* Nobody there: the first word of it ends the list, and no datagram counts as lost or sent. */
    struct ends f = ends_new();
    (void)close(f.b);
    struct sm_dgrams_run hello[] = {run(0, 5, 5), run(0, 10, 5)};
    done = sm_dgrams_send(f.a, hello, 1, &segment_max, refused);
    assert_int_equal(done.sent, 1);
    done = sm_dgrams_send(f.a, hello, 2, &segment_max, refused);
    assert_int_equal(done.err, ECONNREFUSED);
    assert_int_equal(done.sent + done.lost, 0);
    (void)close(f.a);
    ends_close(&e);
}

/* What arrives is taken apart into what was sent, whether the kernel has gathered it or not. */
static void receive(bool gather)
{
    struct ends e = ends_new();
    struct sm_dgrams *in = sm_dgrams_new();
    uint16_t segment_max = UINT16_MAX;
    size_t i = 0, got = 0;
    struct sm_dgrams_run want = list[0], r;
    struct iovec a, b;
    int n;

    fill();
    if (gather)
        sm_dgrams_gather(e.b);
    assert_int_equal(sm_dgrams_recv(in, e.b), -1);
    assert_int_equal(errno, EAGAIN);
    assert_false(sm_dgrams_next(in, &r));
    assert_int_equal(sm_dgrams_send(e.a, list, SM_ARRAY_LEN(list), &segment_max, refused).sent, all_count());
    while ((n = sm_dgrams_recv(in, e.b)) > 0) {
        assert_true(n <= SM_DGRAMS_RECV_MAX);
        while (sm_dgrams_next(in, &r)) {
            bool more;
            assert_true(sm_dgrams_run_count(&r) <= SM_DGRAMS_RUN_MAX);
            do {
                more = sm_dgrams_run_take(&r, &a);
                assert_true(i < SM_ARRAY_LEN(list));
                if (!sm_dgrams_run_take(&want, &b) && ++i < SM_ARRAY_LEN(list))
                    want = list[i];
                assert_int_equal(a.iov_len, b.iov_len);
                assert_memory_equal(a.iov_base, b.iov_base, a.iov_len);
                got++;
            } while (more);
        }
    }
    assert_int_equal(got, all_count());
    sm_dgrams_free(in);
    ends_close(&e);
}

static void test_receive(void **state)
{
    receive(false);
}

static void test_receive_gathered(void **state)
{
    receive(true);
}

/* Where the kernel gathers more than a run holds, what is left over is a run like any other: no datagram of it claims
 * more than there is. */
static void test_receive_more_than_a_run(void **state)
{
    enum { SIZE = 100, REST = 30 };
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control = {0};
    struct ends e = ends_new();
    struct sm_dgrams *in = sm_dgrams_new();
    struct sm_dgrams_run r;
    struct iovec iov = {data, SM_DGRAMS_RUN_MAX * SIZE + REST}, a;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    uint16_t size = SIZE;
    size_t got = 0;
    bool more;

    *c = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = 103, .cmsg_len = CMSG_LEN(sizeof(size))};
    memcpy(CMSG_DATA(c), &size, sizeof(size));
    fill();
    sm_dgrams_gather(e.b);
    if (sendmsg(e.a, &msg, 0) < 0)
        skip(); /* before Linux 6.9 the kernel cuts no more than that, and gathers no more */
    while (sm_dgrams_recv(in, e.b) > 0)
        while (sm_dgrams_next(in, &r)) {
            assert_true(r.size <= r.len);
            do {
                more = sm_dgrams_run_take(&r, &a);
                assert_int_equal(a.iov_len, got < SM_DGRAMS_RUN_MAX * SIZE ? SIZE : REST);
                assert_memory_equal(a.iov_base, data + got, a.iov_len);
                got += a.iov_len;
            } while (more);
        }
    assert_int_equal(got, iov.iov_len);
    sm_dgrams_free(in);
    ends_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send),
        cmocka_unit_test(test_larger_than_the_path),
        cmocka_unit_test(test_kernel_refuses_to_cut),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_receive_gathered),
        cmocka_unit_test(test_receive_more_than_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
