/* SPDX-License-Identifier: BSD-3-Clause */
/* Repeats: the first at once, one line a second, and the counts add up whatever happens. */
#include "helper.h"

#include "audit/repeat.h"

#include <signal.h>
#include <sys/resource.h>

#define SECOND SM_AUDIT_REPEAT_WINDOW_US

struct fixture {
    struct folder *f;
    struct sm_audit_writer *w;
    struct sm_audit_repeats *rep;
};

static bool deny_full(struct fixture *x, enum sm_audit_event event, uint32_t dst, uint16_t port, const char *name,
                      const char *reason, uint64_t count, int64_t now)
{
    struct sm_audit_record r;
    struct sm_audit_repeat_key key = {.proto = IPPROTO_TCP,
                                      .dst = {sm_addr_from_u32(dst), port},
                                      .name = name,
                                      .name_len = name ? strlen(name) : 0,
                                      .reason = reason};
    struct sm_audit_target t = {.dst = key.dst, .host = name, .host_len = key.name_len, .reason = reason};
    sm_audit_begin(&r, event, T0 + now);
    sm_audit_add_target(&r, &t);
    return sm_audit_repeats_deny(x->rep, x->w, &key, &r, count, now);
}

static bool deny(struct fixture *x, uint32_t dst, uint64_t count, int64_t now)
{
    return deny_full(x, SM_AUDIT_EGRESS_DENY, dst, 443, NULL, "unlisted", count, now);
}

static int setup(void **state)
{
    struct fixture *x = g_new0(struct fixture, 1);
    void *f = NULL;
    folder_setup(&f);
    x->f = f;
    x->w = writer_open(x->f);
    x->rep = sm_audit_repeats_new();
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    void *f = x->f;
    sm_audit_repeats_free(x->rep);
    sm_audit_writer_free(x->w);
    folder_teardown(&f);
    g_free(x);
    return 0;
}

static json_t *committed(struct fixture *x)
{
    assert_true(sm_audit_commit(x->w));
    json_t *lines = load_lines(x->f, SM_AUDIT_FILE);
    assert_seqs(lines, 1);
    return lines;
}

static int64_t count_at(const json_t *lines, size_t i)
{
    const json_t *v = json_object_get(json_array_get(lines, i), "count");
    return v ? json_integer_value(v) : 1;
}

static int64_t sum(const json_t *lines)
{
    int64_t all = 0;
    for (size_t i = 0; i < json_array_size(lines); i++)
        all += count_at(lines, i);
    return all;
}

static void test_first_at_once_then_one_a_second(void **state)
{
    struct fixture *x = *state;
    assert_true(sm_audit_repeats_due(x->rep) == INT64_MAX);
    assert_true(deny(x, 1, 1, 1000));
    assert_int_equal(sm_audit_pending(x->w), 1);
    assert_true(sm_audit_repeats_due(x->rep) == 1000 + SECOND);
    for (int i = 0; i < 500; i++)
        assert_true(deny(x, 1, 1, 2000 + i));
    assert_int_equal(sm_audit_pending(x->w), 1);
    /* Not due yet. */
    assert_true(sm_audit_repeats_flush(x->rep, x->w, 999 + SECOND, T0) == 1000 + SECOND);
    assert_int_equal(sm_audit_pending(x->w), 1);
    assert_true(sm_audit_repeats_flush(x->rep, x->w, 1000 + SECOND, T0 + SECOND) == 1000 + 2 * SECOND);
    assert_int_equal(sm_audit_pending(x->w), 2);
    /* The next second begins with the line. */
    assert_true(deny(x, 1, 1, 1001 + SECOND));
    assert_int_equal(sm_audit_pending(x->w), 2);
    assert_true(sm_audit_repeats_flush(x->rep, x->w, 1000 + 2 * SECOND, T0) == 1000 + 3 * SECOND);
    /* An idle second: forgotten, and a new denial is a first one again. */
    assert_true(sm_audit_repeats_flush(x->rep, x->w, 1000 + 3 * SECOND, T0) == INT64_MAX);
    assert_int_equal(sm_audit_repeats_len(x->rep), 0);
    assert_true(deny(x, 1, 1, 1001 + 3 * SECOND));

    json_t *lines = committed(x);
    assert_int_equal(json_array_size(lines), 4);
    assert_null(json_object_get(json_array_get(lines, 0), "count"));
    assert_int_equal(count_at(lines, 1), 500);
    assert_string_equal(str_at(lines, 1, "dst"), "0.0.0.1"); /* the first one's fields */
    assert_string_equal(str_at(lines, 1, "reason"), "unlisted");
    assert_string_equal(str_at(lines, 1, "ts"), "2026-11-22T21:04:06.123456Z");
    assert_int_equal(count_at(lines, 2), 1);
    assert_int_equal(sum(lines), 503);
    json_decref(lines);
}

static void test_what_makes_a_repeat(void **state)
{
    struct fixture *x = *state;
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, NULL, "a", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 2, 443, NULL, "a", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 80, NULL, "a", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, NULL, "b", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, "x.test", "a", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, "y.test", "a", 1, 0));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DNS_DENY, 1, 443, NULL, "a", 1, 0));
    assert_int_equal(sm_audit_pending(x->w), 7);
    g_autofree char *copy = g_strdup("a"); /* another pointer, the same reason */
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, NULL, copy, 1, 1));
    assert_true(deny_full(x, SM_AUDIT_EGRESS_DENY, 1, 443, "x.test", "a", 1, 1));
    assert_int_equal(sm_audit_pending(x->w), 7);
    assert_int_equal(sm_audit_repeats_len(x->rep), 7);
}

static void test_front_reports_counts(void **state)
{
    struct fixture *x = *state;
    assert_true(deny(x, 1, 40, 0)); /* a first one that already stands for many */
    assert_true(deny(x, 1, 2, 1));
    assert_true(deny(x, 1, UINT64_MAX, 2)); /* near the end of the counter */
    assert_true(deny(x, 1, 5, 3));
    sm_audit_repeats_flush_all(x->rep, x->w, T0);
    json_t *lines = committed(x);
    assert_int_equal(json_array_size(lines), 2);
    assert_int_equal(count_at(lines, 0), 40);
    assert_true(count_at(lines, 1) == INT64_MAX); /* saturates */
    json_decref(lines);
}

static void test_full_table_loses_nothing(void **state)
{
    struct fixture *x = *state;
    const uint32_t n = 3 * SM_AUDIT_REPEAT_MAX;
    int64_t denied = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t dst = 1; dst <= n; dst++) {
            for (unsigned i = 0; i <= dst % 3; i++, denied++)
                assert_true(deny(x, dst, 1, denied));
            assert_true(sm_audit_repeats_len(x->rep) <= SM_AUDIT_REPEAT_MAX);
        }
        assert_true(sm_audit_commit(x->w));
    }
    sm_audit_repeats_flush_all(x->rep, x->w, T0);
    assert_int_equal(sm_audit_repeats_len(x->rep), 0);
    json_t *lines = committed(x);
    assert_int_equal(sum(lines), denied);
    json_decref(lines);
}

/* Against a simple model: any order of denials, flushes and time, and the sum is right, at most one line a second for a
 * destination. */
static void test_random_against_a_model(void **state)
{
    struct fixture *x = *state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261122);
    int64_t now = 0, denied = 0, due = INT64_MAX;
    for (unsigned step = 0; step < 20000; step++) {
        now += g_rand_int_range(rand, 0, 40000);
        if (now >= due)
            due = sm_audit_repeats_flush(x->rep, x->w, now, T0 + now);
        uint32_t dst = (uint32_t)g_rand_int_range(rand, 1, 60);
        int64_t count = g_rand_int_range(rand, 1, 4);
        assert_true(deny(x, dst, (uint64_t)count, now));
        due = sm_audit_repeats_due(x->rep);
        denied += count;
        if (step % 64 == 0)
            assert_true(sm_audit_commit(x->w));
    }
    sm_audit_repeats_flush_all(x->rep, x->w, T0 + now);
    json_t *lines = committed(x);
    assert_int_equal(sum(lines), denied);
    int64_t seconds = now / SECOND + 1;
    assert_true((int64_t)json_array_size(lines) <= 60 * (seconds + 1));
    json_decref(lines);
}

/* While nothing can be written, denials go on being counted and come out afterwards. */
static void test_counts_wait_for_the_disk(void **state)
{
    struct fixture *x = *state;
    struct rlimit lim;
    assert_true(deny(x, 1, 1, 0));
    assert_true(sm_audit_commit(x->w));
    struct stat st;
    assert_int_equal(fstatat(x->f->fd, SM_AUDIT_FILE, &st, 0), 0);

    void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
    struct rlimit small = {.rlim_cur = (rlim_t)st.st_size, .rlim_max = lim.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_true(append_simple(x->w, 1));
    bool committed_ok = sm_audit_commit(x->w);
    bool first_ok = deny(x, 2, 1, 1);
    bool repeats_ok = true;
    int64_t due = 0;
    for (int i = 0; i < 100; i++) {
        repeats_ok &= deny(x, 1, 1, i * SECOND);
        due = sm_audit_repeats_flush(x->rep, x->w, i * SECOND, T0);
    }
    size_t pending = sm_audit_pending(x->w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
    (void)signal(SIGXFSZ, old);
    assert_false(committed_ok);
    assert_false(first_ok); /* stays silent */
    assert_true(repeats_ok);
    assert_int_equal(pending, 0); /* the counts take no room among the facts */
    assert_true(due == 100 * SECOND);

    assert_true(sm_audit_probe(x->w, T0));
    (void)sm_audit_repeats_flush(x->rep, x->w, 100 * SECOND, T0);
    json_t *lines = committed(x);
    size_t n = json_array_size(lines);
    assert_int_equal(count_at(lines, n - 1), 100);
    json_decref(lines);
}

static void test_long_lines_are_always_written(void **state)
{
    struct fixture *x = *state;
    g_autofree char *name = g_strnfill(1000, '\x01'); /* six bytes each in the line */
    struct sm_audit_repeat_key key = {.name = name, .name_len = 1000, .reason = "r"};
    for (int i = 0; i < 3; i++) {
        struct sm_audit_record r;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_DNS_DENY, T0);
        sm_audit_add_guest(&r, "host", name, 1000);
        assert_true(sm_audit_repeats_deny(x->rep, x->w, &key, &r, 1, i));
    }
    assert_int_equal(sm_audit_repeats_len(x->rep), 0);
    json_t *lines = committed(x);
    assert_int_equal(json_array_size(lines), 3);
    json_decref(lines);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_first_at_once_then_one_a_second), T(test_what_makes_a_repeat),    T(test_front_reports_counts),
        T(test_full_table_loses_nothing),        T(test_random_against_a_model), T(test_counts_wait_for_the_disk),
        T(test_long_lines_are_always_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
