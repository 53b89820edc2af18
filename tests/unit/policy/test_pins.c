/* SPDX-License-Identifier: BSD-3-Clause */
/* The pin table: life times, use, bounds. Time is an argument, so nothing here waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/pins.h"

#define S ((int64_t)1000000)

static const struct sm_addr A = {SM_FAMILY_V4, {203, 0, 113, 1}};
static const struct sm_addr B = {SM_FAMILY_V4, {203, 0, 113, 2}};

static void exact_name_and_address(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    const struct sm_addr v6 = {SM_FAMILY_V6, {203, 0, 113, 1}};

    assert_non_null(sm_pins_add(pins, "a.test", &A, 300, 0));
    assert_non_null(sm_pins_find(pins, "a.test", &A, 0));
    assert_null(sm_pins_find(pins, "a.test", &B, 0));
    assert_null(sm_pins_find(pins, "b.test", &A, 0));
    assert_null(sm_pins_find(pins, "x.a.test", &A, 0));
    assert_null(sm_pins_find(pins, "a.test", &v6, 0));
    assert_int_equal(sm_pins_count(pins), 1);
}

/* The time that is left counts, with no floor; a day is the most, whatever is said. */
static void restored(void **state)
{
    static const struct {
        int64_t expires, lives; /* seconds; 0: not taken */
    } rows[] = {{-5, 0},  {4, 0},         {5, 0},         {6, 1},
                {30, 25}, {86405, 86400}, {86406, 86400}, {INT64_C(9000000000), 86400}};
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
        const struct sm_pin *pin = sm_pins_restore(pins, "a.test", &A, rows[i].expires * S, 5 * S);
        assert_int_equal(pin != NULL, rows[i].lives > 0);
        assert_int_equal(sm_pins_count(pins), rows[i].lives > 0);
        if (!pin)
            continue;
        assert_non_null(sm_pins_find(pins, "a.test", &A, (5 + rows[i].lives) * S - 1));
        assert_null(sm_pins_find(pins, "a.test", &A, (5 + rows[i].lives) * S));
        /* An answer of now renews it, and it never shortens one. */
        assert_non_null(sm_pins_add(pins, "a.test", &A, 300, 5 * S));
        assert_non_null(sm_pins_restore(pins, "a.test", &A, 6 * S, 5 * S));
        assert_non_null(sm_pins_find(pins, "a.test", &A, 304 * S));
    }
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    assert_null(sm_pins_restore(pins, "", &A, 100 * S, 0));
    assert_null(sm_pins_restore(pins, "a.test", &(struct sm_addr){0}, 100 * S, 0));
}

static void ttl_floor_and_ceiling(void **state)
{
    static const struct {
        uint32_t ttl;
        int64_t lives; /* seconds */
    } rows[] = {{0, 60},        {1, 60},        {59, 60},       {60, 60},           {61, 61},
                {86399, 86399}, {86400, 86400}, {86401, 86400}, {UINT32_MAX, 86400}};
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
        assert_non_null(sm_pins_add(pins, "a.test", &A, rows[i].ttl, 5 * S));
        assert_non_null(sm_pins_find(pins, "a.test", &A, (5 + rows[i].lives) * S - 1));
        assert_null(sm_pins_find(pins, "a.test", &A, (5 + rows[i].lives) * S));
    }
}

static void renewal_never_shortens(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 1000, 0));
    assert_non_null(sm_pins_add(pins, "a.test", &A, 60, 10 * S));
    assert_non_null(sm_pins_find(pins, "a.test", &A, 999 * S));
    assert_non_null(sm_pins_add(pins, "a.test", &A, 1000, 500 * S));
    assert_non_null(sm_pins_find(pins, "a.test", &A, 1499 * S));
    assert_null(sm_pins_find(pins, "a.test", &A, 1500 * S));
    assert_int_equal(sm_pins_count(pins), 1);
}

static void lives_while_a_flow_uses_it(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 60, 0));
    const struct sm_pin *one = sm_pins_hold(pins, "a.test", &A, 59 * S);
    const struct sm_pin *two = sm_pins_hold(pins, "a.test", &A, 59 * S);
    assert_ptr_equal(one, two);
    assert_non_null(sm_pins_find(pins, "a.test", &A, 9999 * S));
    assert_int_equal(sm_pins_expire(pins, 9999 * S), 0);
    sm_pins_release(pins, one, 9999 * S);
    assert_non_null(sm_pins_find(pins, "a.test", &A, 9999 * S)); /* one flow left */
    sm_pins_release(pins, two, 9999 * S);
    assert_null(sm_pins_find(pins, "a.test", &A, 9999 * S));
    assert_null(sm_pins_hold(pins, "a.test", &A, 9999 * S));
    assert_int_equal(sm_pins_count(pins), 0);
    sm_pins_release(pins, NULL, 0);
}

static void released_before_its_time_goes_on(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0));
    sm_pins_release(pins, sm_pins_hold(pins, "a.test", &A, 1 * S), 2 * S);
    assert_non_null(sm_pins_find(pins, "a.test", &A, 99 * S));
    assert_null(sm_pins_find(pins, "a.test", &A, 100 * S));
}

static void all_names_of_an_address(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    const struct sm_pin *found[SM_PINS_PER_ADDR_MAX];

    assert_int_equal(sm_pins_of(pins, &A, 0, found), 0);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0));
    assert_non_null(sm_pins_add(pins, "b.test", &A, 200, 0));
    assert_non_null(sm_pins_add(pins, "c.test", &B, 200, 0));
    assert_int_equal(sm_pins_of(pins, &A, 0, found), 2);
    assert_string_equal(found[0]->name, "b.test");
    assert_string_equal(found[1]->name, "a.test");
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0)); /* learnt again: first */
    assert_int_equal(sm_pins_of(pins, &A, 0, found), 2);
    assert_string_equal(found[0]->name, "a.test");
    assert_int_equal(sm_pins_of(pins, &A, 150 * S, found), 1);
    assert_string_equal(found[0]->name, "b.test");
    assert_int_equal(sm_pins_expire(pins, 150 * S), 1);
    assert_int_equal(sm_pins_count(pins), 2);
    assert_int_equal(sm_pins_expire(pins, 200 * S), 2);
    assert_int_equal(sm_pins_count(pins), 0);
}

static void least_recently_used_makes_room(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(3);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0));
    assert_non_null(sm_pins_add(pins, "b.test", &B, 100, 1));
    assert_non_null(sm_pins_add(pins, "c.test", &A, 100, 2));
    sm_pins_release(pins, sm_pins_hold(pins, "a.test", &A, 3), 4); /* a is used: now b is the oldest */
    assert_non_null(sm_pins_add(pins, "d.test", &B, 100, 5));
    assert_null(sm_pins_find(pins, "b.test", &B, 6));
    assert_non_null(sm_pins_find(pins, "a.test", &A, 6));
    assert_non_null(sm_pins_find(pins, "c.test", &A, 6));
    assert_non_null(sm_pins_find(pins, "d.test", &B, 6));
    assert_int_equal(sm_pins_count(pins), 3);
}

static void pins_in_use_are_never_evicted(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(2);
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0));
    assert_non_null(sm_pins_add(pins, "b.test", &A, 100, 0));
    const struct sm_pin *a = sm_pins_hold(pins, "a.test", &A, 0);
    for (unsigned i = 0; i < 100; i++) {
        char name[32];
        g_snprintf(name, sizeof(name), "n%u.test", i);
        assert_non_null(sm_pins_add(pins, name, &B, 100, 1));
        assert_non_null(sm_pins_find(pins, "a.test", &A, 1));
        assert_int_equal(sm_pins_count(pins), 2);
    }
    const struct sm_pin *n = sm_pins_hold(pins, "n99.test", &B, 1);
    assert_null(sm_pins_add(pins, "one.more.test", &B, 100, 1)); /* all are held */
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 1));    /* a renewal needs no room */
    sm_pins_release(pins, n, 2);
    sm_pins_release(pins, a, 2);
    assert_non_null(sm_pins_add(pins, "one.more.test", &B, 100, 3));
}

static void names_of_one_address_are_bounded(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    const struct sm_pin *found[SM_PINS_PER_ADDR_MAX];
    char name[32];

    assert_non_null(sm_pins_add(pins, "held.test", &A, 100, 0));
    const struct sm_pin *held = sm_pins_hold(pins, "held.test", &A, 0);
    for (unsigned i = 0; i < SM_PINS_PER_ADDR_MAX * 3; i++) {
        g_snprintf(name, sizeof(name), "n%u.test", i);
        assert_non_null(sm_pins_add(pins, name, &A, 100, 0));
    }
    assert_int_equal(sm_pins_of(pins, &A, 0, found), SM_PINS_PER_ADDR_MAX);
    assert_int_equal(sm_pins_count(pins), SM_PINS_PER_ADDR_MAX);
    assert_non_null(sm_pins_find(pins, "held.test", &A, 0));
    assert_non_null(sm_pins_find(pins, name, &A, 0));
    assert_null(sm_pins_find(pins, "n0.test", &A, 0));
    sm_pins_release(pins, held, 0);
}

static void a_full_table_stays_in_bounds(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    char name[32];
    for (unsigned i = 0; i < SM_PINS_MAX * 2; i++) {
        struct sm_addr a = sm_addr_from_u32(0xcb007100u + i % 5000);
        g_snprintf(name, sizeof(name), "n%u.test", i);
        assert_non_null(sm_pins_add(pins, name, &a, 100, i));
        assert_true(sm_pins_count(pins) <= SM_PINS_MAX);
    }
    assert_int_equal(sm_pins_count(pins), SM_PINS_MAX);
    assert_int_equal(sm_pins_expire(pins, 1000 * S), SM_PINS_MAX);
}

static void refused_names(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    g_autofree char *longest = g_strnfill(SM_NAME_MAX, 'a');
    g_autofree char *too_long = g_strnfill(SM_NAME_MAX + 1, 'a');
    assert_null(sm_pins_add(pins, "", &A, 100, 0));
    assert_null(sm_pins_add(pins, too_long, &A, 100, 0));
    assert_non_null(sm_pins_add(pins, longest, &A, 100, 0));
    assert_null(sm_pins_add(pins, "a.test", &(struct sm_addr){0}, 100, 0));
}

static void collect(const struct sm_pin *pin, void *data)
{
    g_string_append_printf(data, "%s ", pin->name);
}

static void each_live_pin(void **state)
{
    sm_cleanup(sm_pins_freep) struct sm_pins *pins = sm_pins_new(SM_PINS_MAX);
    GString *names = g_string_new(NULL);
    assert_non_null(sm_pins_add(pins, "b.test", &B, 100, 0));
    assert_non_null(sm_pins_add(pins, "a.test", &A, 100, 0));
    assert_non_null(sm_pins_add(pins, "old.test", &A, 60, 0));
    sm_pins_each(pins, 70 * S, collect, names);
    assert_string_equal(names->str, "a.test b.test ");
    g_string_free(names, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_name_and_address),
        cmocka_unit_test(ttl_floor_and_ceiling),
        cmocka_unit_test(restored),
        cmocka_unit_test(renewal_never_shortens),
        cmocka_unit_test(lives_while_a_flow_uses_it),
        cmocka_unit_test(released_before_its_time_goes_on),
        cmocka_unit_test(all_names_of_an_address),
        cmocka_unit_test(least_recently_used_makes_room),
        cmocka_unit_test(pins_in_use_are_never_evicted),
        cmocka_unit_test(names_of_one_address_are_bounded),
        cmocka_unit_test(a_full_table_stays_in_bounds),
        cmocka_unit_test(refused_names),
        cmocka_unit_test(each_live_pin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
