/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop: watches that free each other, timers in order, the end-of-turn hook. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"

struct peer {
    struct sm_watch watch;
    struct sm_loop *loop;
    struct peer *other;
    int hits;
};

static void kill_other(struct sm_watch *w, uint32_t events)
{
    struct peer *p = sm_container_of(w, struct peer, watch);
    p->hits++;
    sm_loop_unwatch(p->loop, &p->other->watch);
    sm_loop_unwatch(p->loop, &p->watch);
}

static void test_unwatch_in_callback(void **state)
{
    struct sm_loop *loop = sm_loop_new(NULL);
    int a[2], b[2];
    struct peer x = {.loop = loop}, y = {.loop = loop, .other = &x};
    x.other = &y;
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    sm_watch_init(&x.watch, a[0], kill_other);
    sm_watch_init(&y.watch, b[0], kill_other);
    assert_int_equal(sm_loop_watch(loop, &x.watch, EPOLLIN), 0);
    assert_int_equal(sm_loop_watch(loop, &y.watch, EPOLLIN), 0);
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    assert_int_equal(sm_loop_turn(loop, 1000), 0);
    assert_int_equal(x.hits + y.hits, 1);
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    assert_int_equal(x.hits + y.hits, 1);
    sm_loop_free(loop);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

struct tick {
    struct sm_timer timer;
    struct sm_loop *loop;
    int order;
};
static int ticks;

static void on_tick(struct sm_timer *t, int64_t now)
{
    sm_container_of(t, struct tick, timer)->order = ++ticks;
}

static void test_timers_in_order(void **state)
{
    enum { N = 500 };
    struct sm_loop *loop = sm_loop_new(NULL);
    struct tick *t = calloc(N, sizeof(*t));
    int64_t base = sm_clock_us() - 1000000;
    srand(7);
    for (int i = 0; i < N; i++) {
        sm_timer_init(&t[i].timer, on_tick);
        sm_loop_arm(loop, &t[i].timer, base + rand() % 100000);
    }
    for (int i = 0; i < N; i++)
        if (i % 3 == 0)
            sm_loop_arm(loop, &t[i].timer, base + rand() % 100000);
        else if (i % 3 == 1)
            sm_loop_disarm(loop, &t[i].timer);
    ticks = 0;
    assert_int_equal(sm_loop_turn(loop, 1000), 0);
    for (int i = 0; i < N; i++) {
        assert_false(sm_timer_armed(&t[i].timer));
        assert_true((t[i].order == 0) == (i % 3 == 1));
        for (int k = 0; k < i; k++)
            if (t[i].order && t[k].order && t[i].timer.due_us < t[k].timer.due_us)
                assert_true(t[i].order < t[k].order);
    }
    free(t);
    sm_loop_free(loop);
}

static bool count_turn(void *data)
{
    return ++*(int *)data < 3;
}

static void test_turn_end(void **state)
{
    struct sm_loop *loop = sm_loop_new(NULL);
    int turns = 0;
    sm_loop_set_turn_end(loop, count_turn, &turns);
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    assert_int_equal(sm_loop_turn(loop, -1), 0); /* must not block: the hook asked for another turn */
    assert_int_equal(sm_loop_turn(loop, -1), 0);
    assert_int_equal(turns, 3);
    sm_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unwatch_in_callback),
        cmocka_unit_test(test_timers_in_order),
        cmocka_unit_test(test_turn_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
