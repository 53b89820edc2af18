/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state machine of a fetched credential: lives, refreshes, failures, rejections, clocks; and a random walk that
 * holds its promises.
 */
#include "engine.h"

#include <glib.h>

#include "cred/cache.h"

#define S INT64_C(1000000)
#define START (1000 * S)

static struct sm_cred_answer ask(struct sm_cred_cache *c, int64_t now, enum sm_cred_verdict want)
{
    struct sm_cred_answer a = sm_cred_cache_ask(c, now);
    if (a.verdict != want)
        fail_msg("%s, not %s", sm_cred_verdict_name(a.verdict), sm_cred_verdict_name(want));
    bool use = want == SM_CRED_USE || want == SM_CRED_REFRESH;
    assert_int_equal(a.value != NULL, use);
    assert_int_equal(a.generation != 0, use);
    assert_int_equal(a.reason != SM_CRED_OK, want == SM_CRED_FAIL);
    return a;
}

static void fetched(struct sm_cred_cache *c, int64_t now, const char *text, uint32_t ttl)
{
    sm_cred_cache_fetched(c, now, secret(text), ttl);
}

static void test_life(void **state)
{
    const struct {
        uint32_t ttl;
        int64_t refresh, until; /* after the fetch began, in tenths of a second */
    } lives[] = {
        {3600, 34800, 35400}, {300, 1800, 2400}, {180, 900, 1200}, {121, 458, 610}, /* 45.75 and 61 s */
        {120, 450, 600},      {60, 225, 300},    {2, 8, 10},       {86400, 862800, 863400},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(lives); i++) {
        struct sm_cred_cache c = {0};
        assert_int_equal(sm_cred_cache_state(&c, START), SM_CRED_EMPTY);
        ask(&c, START, SM_CRED_FETCH);
        assert_int_equal(sm_cred_cache_state(&c, START), SM_CRED_FETCHING);
        ask(&c, START + 1, SM_CRED_WAIT);
        fetched(&c, START + S / 10, "t1", lives[i].ttl); /* the life counts from START */
        struct sm_cred_answer a = ask(&c, START + S / 10, SM_CRED_USE);
        assert_secret(a.value, "t1");
        assert_int_equal(a.generation, 1);
        assert_int_equal(sm_cred_cache_state(&c, START + S / 10), SM_CRED_FRESH);
        int64_t refresh = START + lives[i].refresh * S / 10, until = START + lives[i].until * S / 10;
        ask(&c, refresh - S / 10, SM_CRED_USE);
        /* Stale: used at once, and one refresh under way. */
        a = ask(&c, refresh, SM_CRED_REFRESH);
        assert_secret(a.value, "t1");
        assert_int_equal(sm_cred_cache_state(&c, refresh), SM_CRED_STALE);
        ask(&c, refresh + 1, SM_CRED_USE);
        ask(&c, until - 1, SM_CRED_USE);
        /* Over while the refresh is still out: now it is waited for. */
        ask(&c, until, SM_CRED_WAIT);
        assert_null(c.value); /* wiped when it is over, not when the next one comes */
        fetched(&c, until + S, "t2", 3600 * 24);
        a = ask(&c, until + S, SM_CRED_USE);
        assert_secret(a.value, "t2");
        assert_int_equal(a.generation, 2);
        sm_cred_cache_clear(&c);
        assert_int_equal(sm_cred_cache_state(&c, until + S), SM_CRED_EMPTY);
    }
}

static void test_over_without_a_request(void **state)
{
    struct sm_cred_cache c = {0};

    (void)state;
    ask(&c, START, SM_CRED_FETCH);
    fetched(&c, START, "t1", 300);
    /* Nobody asked for a day: no refresh was made, the next request waits for one. */
    assert_int_equal(sm_cred_cache_state(&c, START + 86400 * S), SM_CRED_EMPTY);
    ask(&c, START + 86400 * S, SM_CRED_FETCH);
    sm_cred_cache_clear(&c);
}

static void test_failures(void **state)
{
    static const int64_t delays[] = {1, 2, 4, 8, 16, 32, 60, 60, 60};
    struct sm_cred_cache c = {0};
    int64_t now = START;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(delays); i++) {
        ask(&c, now, SM_CRED_FETCH);
        sm_cred_cache_failed(&c, now + S / 2, SM_CRED_ENDPOINT_TIMEOUT);
        now += S / 2;
        struct sm_cred_answer a = ask(&c, now, SM_CRED_FAIL);
        assert_int_equal(a.reason, SM_CRED_ENDPOINT_TIMEOUT);
        assert_int_equal(a.retry_us, now + delays[i] * S);
        assert_int_equal(sm_cred_cache_state(&c, now), SM_CRED_HELD_OFF);
        ask(&c, a.retry_us - 1, SM_CRED_FAIL);
        now = a.retry_us;
        assert_int_equal(sm_cred_cache_state(&c, now), SM_CRED_EMPTY);
    }
    ask(&c, now, SM_CRED_FETCH);
    fetched(&c, now, "t1", 300);
    /* A success forgets them: the next failure is a first one, and the good token is used meanwhile. */
    now += 180 * S;
    ask(&c, now, SM_CRED_REFRESH);
    sm_cred_cache_failed(&c, now, SM_CRED_TOKEN_STATUS);
    ask(&c, now, SM_CRED_USE);
    ask(&c, now + S - 1, SM_CRED_USE);
    ask(&c, now + S, SM_CRED_REFRESH);
    sm_cred_cache_failed(&c, now + S, SM_CRED_TOKEN_STATUS);
    ask(&c, now + S + 2 * S - 1, SM_CRED_USE);
    ask(&c, now + 3 * S, SM_CRED_REFRESH);
    sm_cred_cache_failed(&c, now + 59 * S, SM_CRED_TOKEN_MISSING);
    /* Over, and held off: fails at once with the last reason. */
    struct sm_cred_answer a = ask(&c, now + 60 * S, SM_CRED_FAIL);
    assert_int_equal(a.reason, SM_CRED_TOKEN_MISSING);
    ask(&c, now + 63 * S, SM_CRED_FETCH);
    sm_cred_cache_failed(&c, now + 64 * S, SM_CRED_TOKEN_MISSING);
    sm_cred_cache_clear(&c);
    ask(&c, now + 64 * S, SM_CRED_FETCH); /* a new start knows of no failure */
}

static void test_too_short(void **state)
{
    struct sm_cred_cache c = {0};

    (void)state;
    ask(&c, START, SM_CRED_FETCH);
    fetched(&c, START + 10 * S, "t1", 20); /* half its life went by on the way */
    assert_int_equal(ask(&c, START + 10 * S, SM_CRED_FAIL).reason, SM_CRED_TOKEN_TOO_SHORT);
    ask(&c, START + 11 * S, SM_CRED_FETCH);
    fetched(&c, START + 11 * S, "t2", 1);
    ask(&c, START + 11 * S, SM_CRED_USE);
    sm_cred_cache_clear(&c);
}

static void test_rejections(void **state)
{
    struct sm_cred_cache c = {0};
    int64_t now = START;

    (void)state;
    ask(&c, now, SM_CRED_FETCH);
    fetched(&c, now, "t1", 3600);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask(&c, now, SM_CRED_USE).generation, 1);
    /* Fifty come back with 401: one fetch. */
    assert_true(sm_cred_cache_rejected(&c, now + S, 1));
    assert_null(c.value);
    ask(&c, now + S, SM_CRED_FETCH);
    for (int i = 1; i < 25; i++) {
        assert_true(sm_cred_cache_rejected(&c, now + S, 1));
        ask(&c, now + S, SM_CRED_WAIT);
    }
    fetched(&c, now + 2 * S, "t2", 3600);
    for (int i = 25; i < 50; i++) {
        assert_true(sm_cred_cache_rejected(&c, now + 3 * S, 1));
        assert_int_equal(ask(&c, now + 3 * S, SM_CRED_USE).generation, 2);
    }
    /* The new one is refused as well: it stays, for the hold. */
    assert_false(sm_cred_cache_rejected(&c, now + 4 * S, 2));
    assert_secret(ask(&c, now + 4 * S, SM_CRED_USE).value, "t2");
    assert_false(sm_cred_cache_rejected(&c, now + S + SM_CRED_REJECT_HOLD_US - 1, 2));
    assert_true(sm_cred_cache_rejected(&c, now + S + SM_CRED_REJECT_HOLD_US, 2));
    now += S + SM_CRED_REJECT_HOLD_US;
    ask(&c, now, SM_CRED_FETCH);
    sm_cred_cache_failed(&c, now, SM_CRED_ENDPOINT_UNREACHABLE);
    /* A rejection does not get round the hold-off. */
    assert_true(sm_cred_cache_rejected(&c, now, 2));
    ask(&c, now, SM_CRED_FAIL);
    sm_cred_cache_clear(&c);
    /* Generations go on after a clear: a late 401 for an old one drops nothing. */
    ask(&c, now, SM_CRED_FETCH);
    fetched(&c, now, "t3", 3600);
    assert_true(sm_cred_cache_rejected(&c, now, 2));
    assert_int_equal(ask(&c, now, SM_CRED_USE).generation, 3);
    sm_cred_cache_clear(&c);
}

static void test_rejected_during_refresh(void **state)
{
    struct sm_cred_cache c = {0};

    (void)state;
    ask(&c, START, SM_CRED_FETCH);
    fetched(&c, START, "t1", 3600);
    ask(&c, START + 3500 * S, SM_CRED_REFRESH);
    assert_true(sm_cred_cache_rejected(&c, START + 3500 * S, 1));
    ask(&c, START + 3500 * S, SM_CRED_WAIT); /* for the refresh: not a second fetch */
    fetched(&c, START + 3501 * S, "t2", 3600);
    ask(&c, START + 3501 * S, SM_CRED_USE);
    sm_cred_cache_clear(&c);
}

static void test_clock_backwards(void **state)
{
    struct sm_cred_cache c = {0};

    (void)state;
    ask(&c, START, SM_CRED_FETCH);
    fetched(&c, START - 500 * S, "t1", 300); /* as if at START */
    assert_int_equal(c.until_us, START + 240 * S);
    ask(&c, START + 240 * S - 1, SM_CRED_REFRESH);
    sm_cred_cache_failed(&c, 0, SM_CRED_TOKEN_STATUS);
    ask(&c, START - 900 * S, SM_CRED_USE);
    ask(&c, START + 240 * S, SM_CRED_FAIL);
    /* What is over stays over. */
    ask(&c, START, SM_CRED_FAIL);
    assert_int_equal(ask(&c, 0, SM_CRED_FAIL).retry_us, START + 241 * S - 1);
    sm_cred_cache_clear(&c);
}

/* Promises, whatever happens in whatever order. */
static void test_walk(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 200; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        struct sm_cred_cache c = {0};
        int64_t now = START, expiry = 0, last_begin = -1, failed_at = -1;
        bool in_flight = false;
        unsigned failures = 0;

        for (int step = 0; step < 2000; step++) {
            now +=
                g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0, 3000000) : g_rand_int_range(rand, 0, 90000000);
            int what = g_rand_int_range(rand, 0, 10);
            if (what < 6) {
                struct sm_cred_answer a = sm_cred_cache_ask(&c, now);
                bool begins = a.verdict == SM_CRED_FETCH || a.verdict == SM_CRED_REFRESH;
                assert_false(begins && in_flight); /* one in flight */
                if (begins && failed_at >= 0)
                    assert_true(now >= failed_at + SM_MIN(S << SM_MIN(failures - 1, 10u), SM_CRED_RETRY_MAX_US));
                assert_int_equal(a.verdict == SM_CRED_WAIT, in_flight && !a.value);
                if (a.value)
                    assert_true(now < expiry); /* never beyond its life */
                if (begins) {
                    in_flight = true;
                    last_begin = now;
                }
            } else if (what < 8 && in_flight) {
                in_flight = false;
                uint32_t ttl = (uint32_t)g_rand_int_range(rand, 1, 600);
                if (g_rand_int_range(rand, 0, 3)) {
                    uint64_t before = c.generation;
                    sm_cred_cache_fetched(&c, now, secret("t"), ttl);
                    if (c.generation > before) {
                        expiry = last_begin + ttl * S;
                        failures = 0;
                        failed_at = -1;
                    } else {
                        failures++;
                        failed_at = now;
                    }
                } else {
                    sm_cred_cache_failed(&c, now, SM_CRED_TOKEN_STATUS);
                    failures++;
                    failed_at = now;
                }
            } else if (what == 8) {
                uint64_t g = c.generation;
                bool again = sm_cred_cache_rejected(&c, now, g);
                assert_true(again == !c.value);
            } else {
                assert_true(sm_cred_cache_rejected(&c, now, c.generation + 1)); /* not this one's business */
            }
        }
        sm_cred_cache_clear(&c);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SM_CRED_STATES; i++)
        assert_string_not_equal(sm_cred_state_name((enum sm_cred_state)i), "?");
    for (unsigned i = 0; i < SM_CRED_VERDICTS; i++)
        assert_string_not_equal(sm_cred_verdict_name((enum sm_cred_verdict)i), "?");
    assert_string_equal(sm_cred_state_name(SM_CRED_STATES), "?");
    assert_string_equal(sm_cred_verdict_name(SM_CRED_VERDICTS), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_over_without_a_request),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_too_short),
        cmocka_unit_test(test_rejections),
        cmocka_unit_test(test_rejected_during_refresh),
        cmocka_unit_test(test_clock_backwards),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
