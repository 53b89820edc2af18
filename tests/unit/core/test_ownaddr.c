/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's own addresses, in a network namespace of the test's own: all are known at the start, also when they fill more than one answer
 * of the kernel, and changes are followed, also many at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "core/core.h"

/* More than one message of 32 KiB holds. */
#define MANY 700

static int control; /* a socket for the ioctls */

/* lo:i is 203.0.(113+i/250).(1+i%250); a zero address takes it away. */
static struct sm_addr addr_of(int i)
{
    return sm_addr_v4(203, 0, (uint8_t)(113 + i / 250), (uint8_t)(1 + i % 250));
}

static void set(int i, bool there)
{
    struct sm_addr a = addr_of(i);
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct ifreq req = {0};

    (void)snprintf(req.ifr_name, sizeof(req.ifr_name), "lo:%d", i);
    if (there)
        in.sin_addr.s_addr = htonl(sm_addr_to_u32(&a));
    memcpy(&req.ifr_addr, &in, sizeof(in));
    assert_int_equal(ioctl(control, SIOCSIFADDR, &req), 0);
}

static bool known(const struct sm_core *core, int i)
{
    struct sm_endpoint e = {.addr = addr_of(i), .port = 80};
    return sm_ground_kind(core->config->ground, &e, NULL) == SM_INSIDE_OWN;
}

static void late(struct sm_timer *timer, int64_t now_us)
{
    fail_msg("a change was not followed");
}

struct wanted {
    struct sm_core *core;
    int i;
    bool there;
};

static bool turn_end(void *data)
{
    struct wanted *w = data;
    if (known(w->core, w->i) == w->there)
        sm_loop_quit(w->core->loop, 0);
    return false;
}

static void until(struct sm_core *core, int i, bool there)
{
    struct wanted w = {core, i, there};
    struct sm_timer timer;

    sm_timer_init(&timer, late);
    sm_loop_arm(core->loop, &timer, sm_loop_now(core->loop) + 20000000);
    sm_loop_set_turn_end(core->loop, turn_end, &w);
    assert_int_equal(sm_loop_run(core->loop), 0);
    sm_loop_disarm(core->loop, &timer);
}

static void followed(void **state)
{
    static struct sm_core core;
    g_autoptr(GError) error = NULL;

    core.config = g_new0(struct sm_core_config, 1);
    core.config->ground = sm_ground_new();
    core.loop = sm_loop_new(&error);
    assert_non_null(core.loop);
    for (int i = 0; i < MANY; i++)
        set(i, true);
    assert_true(sm_ownaddr_init(&core, &error));
    for (int i = 0; i < MANY; i++)
        assert_true(known(&core, i));
    assert_false(known(&core, MANY));

    set(MANY, true);
    until(&core, MANY, true);
    for (int i = 0; i <= MANY; i++)
        assert_true(known(&core, i));

    set(5, false);
    until(&core, 5, false);
    assert_true(known(&core, 4));
    assert_true(known(&core, MANY));

    /* More news at once than the socket's buffer holds: what is lost is asked for. */
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < MANY; i++)
            set(i, round != 1);
    set(MANY, false);
    until(&core, MANY, false);
    for (int i = 0; i < MANY; i++)
        assert_true(known(&core, i));

    sm_loop_unwatch(core.loop, &core.netlink);
    sm_fd_close(&core.netlink.fd);
    sm_loop_free(core.loop);
    sm_core_config_free(core.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(followed)};

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || (control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        perror("a network namespace of our own");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
