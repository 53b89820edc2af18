/* SPDX-License-Identifier: BSD-3-Clause */
/* Netlink requests byte by byte, their bounds, and what the kernel says to a few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "paths/netdev.h"
#include "paths/netlink.h"

static struct sm_netlink n;

static void begin(uint16_t flags)
{
    static const uint8_t fixed[] = {0xaa, 0xbb, 0xcc};
    sm_netlink_begin(&n, 0x1234, flags, fixed, sizeof(fixed));
}

/* Every piece begins at a multiple of four, and what lies between is zero (RFC 3549 2.2). */
static void test_bytes(void **state)
{
    static const uint8_t want[] = {
        44,   0,    0,    0,    0x34, 0x12, 5,    0,
        1,    0,    0,    0,    0,    0,    0,    0,    /* header: length, type, REQUEST and ACK, seq */
        0xaa, 0xbb, 0xcc, 0,                            /* the family's own, and padding */
        16,   0,    7,    0x80,                         /* a nest of 16 bytes */
        8,    0,    1,    0,    0x01, 0x02, 0x03, 0x04, /* in network byte order */
        4,    0,    2,    0,                            /* nothing in it */
        6,    0,    3,    0,    'a',  0,    0,    0,    /* behind the nest */
    };

    sm_netlink_init(&n);
    begin(NLM_F_ACK);
    sm_netlink_open(&n, 7);
    sm_netlink_be32(&n, 1, 0x01020304);
    sm_netlink_attr(&n, 2, NULL, 0);
    sm_netlink_close(&n);
    sm_netlink_text(&n, 3, "a");
    assert_false(n.bad);
    assert_int_equal(n.acks, 1);
    assert_int_equal(n.len, sizeof(want));
    assert_memory_equal(n.buf, want, sizeof(want));
}

/* A batch: each message has its own length, and only those that ask for it are awaited and numbered. */
static void test_several(void **state)
{
    struct nlmsghdr head;

    sm_netlink_init(&n);
    begin(0);
    sm_netlink_u32(&n, 1, 5);
    begin(NLM_F_ACK);
    begin(NLM_F_ACK);
    assert_int_equal(n.acks, 2);
    memcpy(&head, n.buf, sizeof(head));
    assert_int_equal(head.nlmsg_len, 16 + 4 + 8);
    memcpy(&head, n.buf + 28, sizeof(head));
    assert_int_equal(head.nlmsg_len, 20);
    assert_int_equal(head.nlmsg_seq, 1);
    memcpy(&head, n.buf + 48, sizeof(head));
    assert_int_equal(head.nlmsg_seq, 2);
    assert_int_equal(n.len, 68);
}

static void expect_refused(void)
{
    errno = 0;
    assert_int_equal(sm_netlink_send(&n, NETLINK_ROUTE), -1);
    assert_int_equal(errno, EMSGSIZE);
}

/* What does not fit, is nested too deeply, or is left open is never sent. */
static void test_bounds(void **state)
{
    static const uint8_t big[SM_NETLINK_MAX];

    sm_netlink_init(&n);
    begin(NLM_F_ACK);
    sm_netlink_attr(&n, 1, big, sizeof(big) - 20 - 4); /* to the last byte */
    assert_false(n.bad);
    assert_int_equal(n.len, sizeof(n.buf));
    sm_netlink_attr(&n, 1, NULL, 0);
    assert_true(n.bad);
    expect_refused();

    sm_netlink_init(&n);
    begin(NLM_F_ACK);
    for (int i = 0; i < SM_NETLINK_DEPTH; i++)
        sm_netlink_open(&n, 1);
    assert_false(n.bad);
    expect_refused(); /* open */
    sm_netlink_open(&n, 1);
    assert_true(n.bad);

    sm_netlink_init(&n);
    begin(NLM_F_ACK);
    sm_netlink_close(&n);
    assert_true(n.bad);
    expect_refused();
}

/* The kernel's own word comes back as errno; what it has done, as 0. */
static void test_the_kernels_answer(void **state)
{
    struct ifinfomsg lo = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex("lo")},
                     none = {.ifi_index = 1 << 30};

    sm_netlink_init(&n);
    sm_netlink_begin(&n, RTM_GETLINK, NLM_F_ACK, &lo, sizeof(lo));
    assert_int_equal(sm_netlink_send(&n, NETLINK_ROUTE), 0);
    sm_netlink_init(&n);
    sm_netlink_begin(&n, RTM_GETLINK, NLM_F_ACK, &none, sizeof(none));
    assert_int_equal(sm_netlink_send(&n, NETLINK_ROUTE), -1);
    assert_int_equal(errno, ENODEV);
}

static void test_a_device_that_is_not_there(void **state)
{
    assert_int_equal(sm_netdev_move("nonesuch0", -1), -1);
    assert_int_equal(errno, ENODEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_the_kernels_answer),
        cmocka_unit_test(test_a_device_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
