/* SPDX-License-Identifier: BSD-3-Clause */
/* Every lie of tests/vhost, told to the port: it lives, comes to rest, does what the table says, and serves an honest
 * VMM afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "harness.h"
#include "lies.h"

/* A port that hangs is found out by the clock: no lie takes a second. */
#define HANG_SECONDS 60

static unsigned failed;

/* All of them are told before the test fails. */
static void fail_lie(const struct sim_lie *lie, const char *what)
{
    print_error("\"%s\": %s\n", lie->name, what);
    failed++;
}

static bool gone(struct env *env)
{
    return !env->port->connected;
}

static void check_end(struct env *env, const struct sim_lie *lie, int said)
{
    static const uint8_t frame[60];

    switch (lie->end) {
    case SIM_END_REFUSED:
        if (said == 0 && !gone(env))
            fail_lie(lie, "was believed");
        break;
    case SIM_END_TX_BROKEN:
        if (!gone(env) && env_up(env))
            fail_lie(lie, "the sending ring goes on");
        break;
    case SIM_END_RX_BROKEN:
        env_send(env, frame, sizeof(frame), NULL);
        (void)env_settle(env);
        if (!gone(env) && env_down(env))
            fail_lie(lie, "the receiving ring goes on");
        break;
    case SIM_END_HARMLESS:
        if (gone(env) || !env_up(env) || !env_down(env))
            fail_lie(lie, "does harm");
        break;
    case SIM_END_ANY: /* it still has to be used, to see that it does not break anything */
        if (!gone(env))
            (void)(env_up(env), env_down(env));
        break;
    }
}

static void tell(struct env *env, const struct sim_lie *lie, enum sim_order honest)
{
    int said = 0;

    sim_rings_new(env->sim);
    env_connect(env, SIM_CLOUD_HYPERVISOR_SLOTS);
    switch (lie->at) {
    case SIM_AT_FRESH:
        break;
    case SIM_AT_NEGOTIATED:
        said = sim_negotiate(env->sim);
        break;
    case SIM_AT_STARTED:
        said = sim_start(env->sim);
        break;
    }
    if (said != 0) {
        fail_lie(lie, "could not even be told");
        return;
    }
    said = lie->tell(env->sim, lie->arg);
    if (!env_settle(env))
        fail_lie(lie, "the loop does not come to rest");
    check_end(env, lie, said);
    if (!env_settle(env))
        fail_lie(lie, "the loop does not come to rest afterwards");
    if (env->dead)
        fail_lie(lie, "the port is dead");

    sim_disconnect(env->sim);
    (void)env_settle(env);
    sim_rings_new(env->sim);
    env->sim->wrong[0] = '\0';
    env_connect(env, honest);
    if (sim_start(env->sim) != 0 || !env_up(env) || !env_down(env))
        fail_lie(lie, "an honest VMM is not served afterwards");
    if (env->sim->wrong[0])
        fail_lie(lie, env->sim->wrong);
    sim_disconnect(env->sim);
    if (!env_settle(env))
        fail_lie(lie, "the loop does not come to rest at the end");
}

static void tell_all(const struct sim_lie *lies, unsigned n)
{
    static const struct sim_config cfg = {
        .features = FEATURES, .protocol = PROTOCOL, .n_queues = 2, .queue_size = 256, .timeout_ms = 2000};
    struct env *env = env_new(&cfg);

    failed = 0;
    unsigned fds = env_count_fds();
    for (unsigned i = 0; i < n; i++) {
        if (g_getenv("SM_TEST_LIES"))
            (void)fprintf(stderr, "%s\n", lies[i].name);
        (void)alarm(HANG_SECONDS);
        tell(env, &lies[i], i % SIM_ORDER_COUNT);
        if (env_count_fds() != fds)
            fail_lie(&lies[i], "leaves descriptors behind");
        fds = env_count_fds();
    }
    (void)alarm(0);
    env_free(env);
    assert_int_equal(failed, 0);
}

static void test_messages(void **state)
{
    tell_all(sim_lies_message, sim_n_lies_message);
}

static void test_rings(void **state)
{
    tell_all(sim_lies_ring, sim_n_lies_ring);
}

/* Indirect tables where none were agreed on. */
static void test_indirect_not_agreed(void **state)
{
    static const struct sim_config cfg = {
        .features = FEATURES & ~VIRTIO_F_INDIRECT_DESC, .protocol = PROTOCOL, .n_queues = 2, .queue_size = 64};
    static const struct sim_shape indirect = {.cuts = {NET_HDR}, .indirect = true};
    uint8_t frame[60] = {0};
    struct env *env = env_new(&cfg);

    env_connect(env, SIM_QEMU);
    assert_int_equal(sim_start(env->sim), 0);
    assert_true(env_up(env));
    assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &indirect), 0);
    assert_true(env_settle(env));
    assert_null(env_take(env));
    assert_true(gone(env) || !env_up(env));
    env_free(env);
}

/* Without REPLY_ACK a refusal cannot be said, so a refused message ends the connection. */
static void test_no_acknowledgements(void **state)
{
    static const struct sim_config cfg = {.features = FEATURES, .protocol = VU_P_MQ, .n_queues = 2, .queue_size = 64};
    struct env *env = env_new(&cfg);

    for (unsigned i = 0; i < 4; i++) {
        sim_rings_new(env->sim);
        env_connect(env, SIM_QEMU);
        assert_int_equal(sim_start(env->sim), 0);
        assert_true(env_up(env) && env_down(env));
        int r = i == 0   ? sim_vring_state(env->sim, VU_SET_VRING_NUM, 2, 64)
                : i == 1 ? sim_vring_state(env->sim, VU_SET_VRING_NUM, 0, 3)
                : i == 2 ? sim_vring_fd(env->sim, VU_SET_VRING_KICK, 5, env->sim->queues[0].kick)
                         : sim_tell_u64(env->sim, VU_SET_FEATURES, UINT64_MAX);
        assert_int_equal(r, 0); /* it was sent */
        assert_int_equal(sim_sync(env->sim), -1);
        assert_true(env->sim->dropped);
        assert_true(env_settle(env));
        assert_true(gone(env));
    }
    assert_false(env->dead);
    env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_rings),
        cmocka_unit_test(test_indirect_not_agreed),
        cmocka_unit_test(test_no_acknowledgements),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    sm_log_set_level(SM_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
