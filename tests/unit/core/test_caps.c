/* SPDX-License-Identifier: BSD-3-Clause */
/* The caps' arithmetic under a clock of our own: rates, shares, sums, and clocks that misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "core/caps.h"

#define SECOND INT64_C(1000000)
#define MIB (UINT64_C(1) << 20)
#define FLOWS 50

/* A stream that always wants more, as much as it may have at a time, or a datagram flow that sends at its own pace. */
struct hose {
    struct sm_caps_flow flow;
    size_t piece;     /* at most so much in one go (its peer's window) */
    int64_t every_us; /* datagrams: one each */
    int64_t next_us;
    uint64_t moved, tried;
    bool leaves_awake; /* ends as soon as it is woken */
    bool idle;         /* woken, it has nothing to move any more */
};

static struct sm_caps *caps;
static int64_t now_us;
static uint64_t woken;

static void pump(struct hose *h, enum sm_caps_dir dir)
{
    size_t n;

    while (!sm_caps_is_spent(caps) && (n = sm_caps_may(caps, &h->flow, dir, h->piece, now_us)) > 0) {
        assert_true(n <= h->piece);
        sm_caps_moved(caps, &h->flow, dir, n);
        h->moved += n;
    }
}

static void wake(struct sm_caps_flow *flow, enum sm_caps_dir dir)
{
    struct hose *h = flow->owner;

    woken++;
    if (h->leaves_awake)
        sm_caps_leave(caps, flow);
    else if (!h->idle)
        pump(h, dir);
}

static void start(uint64_t bps, uint64_t total, uint64_t conns)
{
    struct sm_caps_limits limits = {bps, total, conns};
    static const uint64_t none[SM_CAPS_DIRS];

    now_us = 5 * SECOND;
    woken = 0;
    caps = sm_caps_new(&limits, none, wake, now_us);
}

static int stop(void **state)
{
    sm_caps_free(caps);
    caps = NULL;
    return 0;
}

static void enter(struct hose *h, size_t piece, int64_t every_us)
{
    *h = (struct hose){.flow = {.owner = h, .datagrams = every_us > 0}, .piece = piece, .every_us = every_us};
    h->next_us = now_us;
    assert_true(sm_caps_enter(caps, &h->flow));
}

static void send_due(struct hose *h, enum sm_caps_dir dir)
{
    for (; h->every_us && h->next_us <= now_us; h->next_us += h->every_us) {
        h->tried++;
        if (!sm_caps_may_datagram(caps, &h->flow, dir, h->piece, now_us))
            continue;
        sm_caps_moved(caps, &h->flow, dir, h->piece);
        h->moved += h->piece;
    }
}

/* Time goes on; the timer is late by up to late_us each time, as on a loaded machine. */
static void run(struct hose *hoses, size_t n, enum sm_caps_dir dir, int64_t us, int64_t late_us)
{
    int64_t until = now_us + us;

    for (size_t i = 0; i < n; i++)
        if (!hoses[i].every_us)
            pump(&hoses[i], dir);
    while (now_us < until) {
        int64_t next = SM_MIN(sm_caps_due(caps, now_us), until);
        for (size_t i = 0; i < n; i++)
            if (hoses[i].every_us)
                next = SM_MIN(next, SM_MAX(hoses[i].next_us, now_us));
        now_us = SM_MAX(next, now_us) + (late_us ? rand() % late_us : 0);
        for (size_t i = 0; i < n; i++)
            send_due(&hoses[i], dir);
        if (sm_caps_due(caps, now_us) <= now_us)
            sm_caps_run(caps, now_us);
        if (now_us < until && sm_caps_due(caps, now_us) == INT64_MAX)
            now_us++;
    }
}

static uint64_t sum_of(const struct hose *hoses, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += hoses[i].moved;
    return sum;
}

static void clear(struct hose *hoses, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hoses[i].moved = hoses[i].tried = 0;
}

static void assert_rate(uint64_t moved, uint64_t bps, int64_t us)
{
    uint64_t want = bps * (uint64_t)us / (uint64_t)SECOND;

    if (moved * 100 < want * 95 || moved * 100 > want * 102)
        fail_msg("%llu bytes instead of %llu", (unsigned long long)moved, (unsigned long long)want);
}

static void assert_fair(const struct hose *hoses, size_t n)
{
    uint64_t least = UINT64_MAX, most = 0;

    for (size_t i = 0; i < n; i++) {
        least = SM_MIN(least, hoses[i].moved);
        most = SM_MAX(most, hoses[i].moved);
    }
    if (most > 2 * least)
        fail_msg("shares from %llu to %llu", (unsigned long long)least, (unsigned long long)most);
}

static void test_rate_for_one_and_for_many(void **state)
{
    static const uint64_t rates[] = {64 << 10, MIB, 3 * MIB + 17, 100 * MIB, UINT64_C(2) << 30};
    static const int64_t late[] = {0, 2000, 30000};
    static struct hose hoses[FLOWS];

    for (size_t r = 0; r < SM_ARRAY_LEN(rates); r++)
        for (size_t l = 0; l < SM_ARRAY_LEN(late); l++)
            for (size_t n = 1; n <= FLOWS; n += FLOWS - 1) {
                start(rates[r], 0, 0);
                for (size_t i = 0; i < n; i++)
                    enter(&hoses[i], 64 << 10, 0);
                run(hoses, n, l % 2 ? SM_CAPS_DOWN : SM_CAPS_UP, SECOND, late[l]);
                clear(hoses, n);
                int64_t from = now_us;
                run(hoses, n, l % 2 ? SM_CAPS_DOWN : SM_CAPS_UP, 10 * SECOND, late[l]);
                assert_rate(sum_of(hoses, n), rates[r], now_us - from);
                assert_fair(hoses, n);
                (void)stop(NULL);
            }
}

/* Not only over ten seconds: no tenth of a second lets more through than the rate and one bucket. */
static void test_no_burst_beyond_a_bucket(void **state)
{
    static struct hose hoses[FLOWS];

    start(MIB, 0, 0);
    for (size_t i = 0; i < FLOWS; i++)
        enter(&hoses[i], 64 << 10, 0);
    now_us += 60 * SECOND; /* nobody saves up more than a bucket */
    for (int i = 0; i < 100; i++) {
        clear(hoses, FLOWS);
        run(hoses, FLOWS, SM_CAPS_UP, SECOND / 10, 0);
        assert_true(sum_of(hoses, FLOWS) <= MIB / 10 + MIB / SM_CAPS_DEPTH_SHARE + 1);
    }
}

static void test_directions_are_on_their_own(void **state)
{
    static struct hose up, down;

    start(MIB, 0, 0);
    enter(&up, 64 << 10, 0);
    enter(&down, 64 << 10, 0);
    pump(&up, SM_CAPS_UP);
    assert_true(sm_caps_may(caps, &up.flow, SM_CAPS_UP, 100, now_us) == 0);
    assert_true(sm_caps_may(caps, &up.flow, SM_CAPS_DOWN, 100, now_us) == 100);
    assert_true(sm_caps_may(caps, &down.flow, SM_CAPS_DOWN, 100, now_us) == 100);
}

/* Peers of different speed: who takes little leaves the rest to the others. */
static void test_what_one_leaves_others_get(void **state)
{
    static struct hose hoses[2];

    start(MIB, 0, 0);
    enter(&hoses[0], 64 << 10, 0);
    enter(&hoses[1], 64 << 10, 0);
    hoses[1].idle = true;
    run(hoses, 2, SM_CAPS_UP, SECOND, 0);
    clear(hoses, 2);
    run(hoses, 1, SM_CAPS_UP, 10 * SECOND, 0);
    assert_rate(hoses[0].moved, MIB, 10 * SECOND);
    assert_int_equal(hoses[1].moved, 0);
}

static void test_datagrams_over_the_rate_are_dropped(void **state)
{
    static struct hose hoses[FLOWS];

    static const int64_t interval[] = {333, 666, 1150}; /* 4, 2 and 1.16 times the rate, all flows together */

    for (size_t over = 0, n = 1; n <= FLOWS; over = (over + 1) % 3, n += over == 0 ? FLOWS - 1 : 0) {
        start(MIB, 0, 0);
        for (size_t i = 0; i < n; i++) {
            enter(&hoses[i], 1400, (int64_t)n * interval[over]);
            hoses[i].next_us += (int64_t)i * 311;
        }
        run(hoses, n, SM_CAPS_UP, SECOND, 1000);
        clear(hoses, n);
        int64_t from = now_us;
        run(hoses, n, SM_CAPS_UP, 10 * SECOND, 1000);
        assert_rate(sum_of(hoses, n), MIB, now_us - from);
        assert_fair(hoses, n);
        assert_true(sm_caps_take_hits(caps, SM_CAPS_UP).dropped > 0);
        (void)stop(NULL);
    }
}

static void test_datagrams_under_the_rate_all_pass(void **state)
{
    static struct hose h;

    start(MIB, 0, 0);
    enter(&h, 1400, 1400 * SECOND / (int64_t)MIB * 11 / 10);
    run(&h, 1, SM_CAPS_DOWN, 10 * SECOND, 5000);
    assert_int_equal(h.moved, h.tried * 1400);
    struct sm_caps_hits hits = sm_caps_take_hits(caps, SM_CAPS_DOWN);
    assert_int_equal(hits.dropped + hits.held, 0);
}

/* Largest datagrams, each many quanta: overdrawn and paid for. */
static void test_large_datagrams(void **state)
{
    static struct hose h;

    start(MIB, 0, 0);
    enter(&h, 65507, 10000);
    run(&h, 1, SM_CAPS_UP, SECOND, 0);
    clear(&h, 1);
    int64_t from = now_us;
    run(&h, 1, SM_CAPS_UP, 20 * SECOND, 0);
    assert_rate(h.moved, MIB, now_us - from);
}

static void test_datagrams_and_streams_share(void **state)
{
    static struct hose hoses[10];

    start(MIB, 0, 0);
    for (size_t i = 0; i < 5; i++)
        enter(&hoses[i], 64 << 10, 0);
    for (size_t i = 5; i < 10; i++)
        enter(&hoses[i], 1200, 2000);
    run(hoses, 10, SM_CAPS_UP, SECOND, 0);
    clear(hoses, 10);
    int64_t from = now_us;
    run(hoses, 10, SM_CAPS_UP, 10 * SECOND, 0);
    assert_rate(sum_of(hoses, 10), MIB, now_us - from);
    assert_fair(hoses, 10);
}

/* Thousands of flows that once wanted a datagram cannot save their quanta up and send all at once. */
static void test_credits_are_not_saved_up(void **state)
{
    enum { MANY = 4000 };
    struct hose *hoses = g_new0(struct hose, MANY);

    start(64 * MIB, 0, 0);
    for (size_t i = 0; i < MANY; i++)
        enter(&hoses[i], 1400, SECOND * 1000);
    for (size_t i = 0; i < MANY; i++)
        for (unsigned n = 0; n < 10; n++)
            if (sm_caps_may_datagram(caps, &hoses[i].flow, SM_CAPS_UP, 1400, now_us))
                sm_caps_moved(caps, &hoses[i].flow, SM_CAPS_UP, 1400);
    for (int64_t end = now_us + 20 * SECOND; now_us < end; now_us += 4000)
        sm_caps_run(caps, now_us);
    assert_true(sm_caps_due(caps, now_us) == INT64_MAX);
    uint64_t at_once = 0;
    for (size_t i = 0; i < MANY; i++)
        for (unsigned n = 0; n < 40; n++)
            if (sm_caps_may_datagram(caps, &hoses[i].flow, SM_CAPS_UP, 1400, now_us)) {
                sm_caps_moved(caps, &hoses[i].flow, SM_CAPS_UP, 1400);
                at_once += 1400;
            }
    assert_true(at_once > 0 && at_once <= 64 * MIB / SM_CAPS_DEPTH_SHARE + 1400);
    g_free(hoses);
}

static void test_slow_rates_move_at_all(void **state)
{
    static const uint64_t rates[] = {1, 100, 1000};
    static struct hose h;

    for (size_t r = 0; r < SM_ARRAY_LEN(rates); r++) {
        start(rates[r], 0, 0);
        enter(&h, 64 << 10, 0);
        run(&h, 1, SM_CAPS_UP, 100 * SECOND, 0); /* the bucket's first content */
        clear(&h, 1);
        int64_t us = INT64_C(100000) * SECOND / (int64_t)rates[r];
        run(&h, 1, SM_CAPS_UP, us, 0);
        assert_rate(h.moved, rates[r], us);
        (void)stop(NULL);
    }
}

static void test_the_clock_goes_back(void **state)
{
    static struct hose h;

    start(MIB, 0, 0);
    enter(&h, 64 << 10, 0);
    run(&h, 1, SM_CAPS_UP, SECOND, 0);
    h.moved = 0;
    now_us -= 3 * SECOND;
    sm_caps_run(caps, now_us);
    assert_int_equal(h.moved, 0); /* nothing is given for it */
    int64_t due = sm_caps_due(caps, now_us);
    assert_true(due > now_us && due <= now_us + SECOND); /* and nobody waits for the old time to come back */
    run(&h, 1, SM_CAPS_UP, 10 * SECOND, 0);
    assert_rate(h.moved, MIB, 10 * SECOND);
}

static void test_the_clock_leaps(void **state)
{
    static struct hose h;

    start(SM_CAPS_BPS_MAX, 0, 0);
    enter(&h, 64 << 10, 0);
    pump(&h, SM_CAPS_UP);
    h.moved = 0;
    now_us = INT64_MAX / 4;
    sm_caps_run(caps, now_us);
    assert_true(h.moved > 0);
    assert_true(h.moved <= SM_CAPS_BPS_MAX / SM_CAPS_DEPTH_SHARE);
}

static void test_total_is_never_exceeded(void **state)
{
    static struct hose hoses[FLOWS];

    start(0, 10 * MIB + 3, 0);
    for (size_t i = 0; i < FLOWS; i++)
        enter(&hoses[i], 64 << 10, 0);
    for (size_t i = 0; !sm_caps_is_full(caps); i++) {
        enum sm_caps_dir dir = i % 2 ? SM_CAPS_UP : SM_CAPS_DOWN;
        size_t n = sm_caps_may(caps, &hoses[i % FLOWS].flow, dir, 48000, now_us);
        assert_true(n > 0);
        sm_caps_moved(caps, &hoses[i % FLOWS].flow, dir, n);
    }
    assert_int_equal(sm_caps_total(caps), 10 * MIB + 3);
    /* All of it was moved and nobody wanted more: no flow is at fault yet. */
    assert_false(sm_caps_is_spent(caps));
    assert_int_equal(sm_caps_may(caps, &hoses[0].flow, SM_CAPS_UP, 1, now_us), 0);
    assert_true(sm_caps_is_spent(caps));
}

static void test_total_and_a_datagram_that_does_not_fit(void **state)
{
    static struct hose h;

    start(0, 2000, 0);
    enter(&h, 1400, 1);
    assert_true(sm_caps_may_datagram(caps, &h.flow, SM_CAPS_UP, 1400, now_us));
    sm_caps_moved(caps, &h.flow, SM_CAPS_UP, 1400);
    assert_false(sm_caps_is_full(caps));
    assert_false(sm_caps_may_datagram(caps, &h.flow, SM_CAPS_DOWN, 1400, now_us));
    assert_true(sm_caps_is_spent(caps) && sm_caps_is_full(caps)); /* for good */
    assert_int_equal(sm_caps_total(caps), 1400);
    assert_false(sm_caps_may_datagram(caps, &h.flow, SM_CAPS_DOWN, 1, now_us));
}

static void test_total_of_earlier_runs(void **state)
{
    struct sm_caps_limits limits = {.total = 1000};
    const uint64_t counted[SM_CAPS_DIRS] = {400, 599};
    static struct hose h;

    caps = sm_caps_new(&limits, counted, wake, 0);
    enter(&h, 100, 0);
    assert_int_equal(sm_caps_may(caps, &h.flow, SM_CAPS_DOWN, 100, now_us), 1);
    sm_caps_moved(caps, &h.flow, SM_CAPS_DOWN, 1);
    assert_true(sm_caps_is_full(caps));
    assert_int_equal(sm_caps_counted(caps, SM_CAPS_UP), 400);
    assert_int_equal(sm_caps_counted(caps, SM_CAPS_DOWN), 600);
    (void)stop(NULL);
    limits.total = 999; /* lowered below what was moved already */
    caps = sm_caps_new(&limits, counted, wake, 0);
    assert_true(sm_caps_is_full(caps));
}

static void test_counters_stick_at_the_top(void **state)
{
    struct sm_caps_limits limits = {.total = UINT64_MAX};
    const uint64_t counted[SM_CAPS_DIRS] = {UINT64_MAX, INT64_MAX - 10};
    static struct hose h;

    caps = sm_caps_new(&limits, counted, wake, 0);
    assert_int_equal(sm_caps_counted(caps, SM_CAPS_UP), INT64_MAX);
    assert_int_equal(sm_caps_total(caps), INT64_MAX);
    assert_true(sm_caps_is_full(caps)); /* no sum wraps round to an open cap */
    enter(&h, 100, 0);
    sm_caps_moved(caps, &h.flow, SM_CAPS_DOWN, 100);
    assert_int_equal(sm_caps_counted(caps, SM_CAPS_DOWN), INT64_MAX);
}

static void test_connections(void **state)
{
    static struct hose a, b, c;

    start(0, 0, 2);
    enter(&a, 1, 0);
    enter(&b, 1, 0);
    c = (struct hose){.flow.owner = &c};
    assert_false(sm_caps_enter(caps, &c.flow));
    sm_caps_leave(caps, &c.flow); /* who did not enter does not leave */
    assert_int_equal(sm_caps_conns(caps), 2);
    sm_caps_leave(caps, &a.flow);
    sm_caps_leave(caps, &a.flow);
    assert_int_equal(sm_caps_conns(caps), 1);
    assert_true(sm_caps_enter(caps, &c.flow));
    assert_int_equal(sm_caps_conns(caps), 2);
    /* No other cap is set: nothing is counted against a rate. */
    assert_int_equal(sm_caps_may(caps, &c.flow, SM_CAPS_UP, 1 << 30, now_us), 1 << 30);
}

/* Flows that end while they wait, or while they are woken. */
static void test_leaving(void **state)
{
    static struct hose hoses[4];

    start(MIB, 0, 0);
    for (size_t i = 0; i < 4; i++)
        enter(&hoses[i], 64 << 10, 0);
    run(hoses, 4, SM_CAPS_UP, SECOND, 0);
    clear(hoses, 4);
    sm_caps_leave(caps, &hoses[0].flow);
    hoses[1].leaves_awake = true;
    for (unsigned i = 0; i < 100 && hoses[3].moved == 0; i++) {
        now_us = sm_caps_due(caps, now_us);
        sm_caps_run(caps, now_us);
    }
    assert_int_equal(hoses[0].moved + hoses[1].moved, 0);
    assert_true(hoses[2].moved > 0 && hoses[3].moved > 0);
    assert_int_equal(sm_caps_conns(caps), 2);
    assert_true(hoses[2].moved <=
                2 * (uint64_t)(MIB / SM_CAPS_QUANTUM_SHARE)); /* what the two left was not given twice */
}

/* What was saved up comes in steps, so that no receive buffer grows by it. */
static void test_steps(void **state)
{
    static struct hose h;

    start(64 * MIB, 0, 0);
    enter(&h, 64 << 10, 0);
    pump(&h, SM_CAPS_UP);
    assert_true(h.moved > 0 && h.moved <= 64 * MIB / SM_CAPS_BURST_SHARE);
    for (int i = 0; i < 4; i++) {
        uint64_t before = h.moved;
        now_us = sm_caps_due(caps, now_us);
        sm_caps_run(caps, now_us);
        assert_true(h.moved > before && h.moved - before <= 64 * MIB / SM_CAPS_BURST_SHARE);
    }
}

static void test_slack(void **state)
{
    static struct hose h;

    start(MIB, 0, 0);
    enter(&h, 64 << 10, 0);
    assert_false(sm_caps_has_slack(caps, SM_CAPS_UP, now_us)); /* full, but since when? */
    now_us += SM_CAPS_SLACK_US;
    assert_true(sm_caps_has_slack(caps, SM_CAPS_UP, now_us));
    sm_caps_moved(caps, &h.flow, SM_CAPS_UP, MIB / SM_CAPS_DEPTH_SHARE / 2);
    assert_false(sm_caps_has_slack(caps, SM_CAPS_UP, now_us));
    now_us += SECOND; /* a late turn: nobody could have used it */
    assert_false(sm_caps_has_slack(caps, SM_CAPS_UP, now_us));
    run(&h, 1, SM_CAPS_UP, SECOND, 0);
    assert_false(sm_caps_has_slack(caps, SM_CAPS_UP, now_us + SECOND)); /* somebody waits for the rate */
}

static void test_hits(void **state)
{
    static struct hose h;

    start(MIB, 0, 0);
    enter(&h, 64 << 10, 0);
    assert_int_equal(sm_caps_may(caps, &h.flow, SM_CAPS_UP, 1000, now_us), 1000);
    pump(&h, SM_CAPS_UP);
    assert_int_equal(sm_caps_take_hits(caps, SM_CAPS_UP).held,
                     0); /* it waits for the next tick, and not for the rate */
    now_us += SM_CAPS_TICK_US;
    for (int i = 0; i < 20 && sm_caps_due(caps, now_us) <= now_us; i++, now_us += SM_CAPS_TICK_US)
        sm_caps_run(caps, now_us);
    assert_int_equal(sm_caps_may(caps, &h.flow, SM_CAPS_UP, 1000, now_us), 0); /* asked again in line: told once */
    assert_int_equal(sm_caps_take_hits(caps, SM_CAPS_UP).held, 1);
    assert_int_equal(sm_caps_take_hits(caps, SM_CAPS_UP).held, 0);
    assert_int_equal(sm_caps_take_hits(caps, SM_CAPS_DOWN).held, 0);
}

static void test_names(void **state)
{
    assert_string_equal(sm_cap_name(SM_CAP_MAX_BPS), "max_bps");
    assert_string_equal(sm_cap_name(SM_CAP_MAX_TOTAL_BYTES), "max_total_bytes");
    assert_string_equal(sm_cap_name(SM_CAP_MAX_CONNS), "max_conns");
    assert_string_equal(sm_caps_dir_name(SM_CAPS_DOWN), "down");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_rate_for_one_and_for_many, stop),
        cmocka_unit_test_teardown(test_no_burst_beyond_a_bucket, stop),
        cmocka_unit_test_teardown(test_directions_are_on_their_own, stop),
        cmocka_unit_test_teardown(test_what_one_leaves_others_get, stop),
        cmocka_unit_test_teardown(test_datagrams_over_the_rate_are_dropped, stop),
        cmocka_unit_test_teardown(test_datagrams_under_the_rate_all_pass, stop),
        cmocka_unit_test_teardown(test_large_datagrams, stop),
        cmocka_unit_test_teardown(test_datagrams_and_streams_share, stop),
        cmocka_unit_test_teardown(test_credits_are_not_saved_up, stop),
        cmocka_unit_test_teardown(test_slow_rates_move_at_all, stop),
        cmocka_unit_test_teardown(test_the_clock_goes_back, stop),
        cmocka_unit_test_teardown(test_the_clock_leaps, stop),
        cmocka_unit_test_teardown(test_total_is_never_exceeded, stop),
        cmocka_unit_test_teardown(test_total_and_a_datagram_that_does_not_fit, stop),
        cmocka_unit_test_teardown(test_total_of_earlier_runs, stop),
        cmocka_unit_test_teardown(test_counters_stick_at_the_top, stop),
        cmocka_unit_test_teardown(test_connections, stop),
        cmocka_unit_test_teardown(test_leaving, stop),
        cmocka_unit_test_teardown(test_steps, stop),
        cmocka_unit_test_teardown(test_slack, stop),
        cmocka_unit_test_teardown(test_hits, stop),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
