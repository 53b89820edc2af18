/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * counters.json: what is written is read again, a torn write falls back by one, and damage is never taken for a
 * beginning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "core/counters.h"

static void put(char file[SM_COUNTERS_FILE], uint64_t seq, uint64_t up, uint64_t down)
{
    struct sm_counters c = {.seq = seq, .bytes = {up, down}};
    sm_counters_encode(&c, file + seq % 2 * SM_COUNTERS_RECORD);
}

static void test_written_and_read(void **state)
{
    static const uint64_t numbers[] = {0, 1, 9, 10, 4096, UINT64_C(123456789012), INT64_MAX};
    char file[SM_COUNTERS_FILE];
    struct sm_counters got;

    for (size_t i = 0; i < SM_ARRAY_LEN(numbers); i++)
        for (size_t j = 0; j < SM_ARRAY_LEN(numbers); j++) {
            uint64_t seq = numbers[j] ? numbers[j] : 2;
            put(file, seq - 1, 1, 1);
            put(file, seq, numbers[i], numbers[j]);
            assert_true(sm_counters_decode(file, sizeof(file), &got, NULL));
            assert_int_equal(got.seq, seq);
            assert_int_equal(got.bytes[SM_CAPS_UP], numbers[i]);
            assert_int_equal(got.bytes[SM_CAPS_DOWN], numbers[j]);
            json_t *json = json_loadb(file, sizeof(file), JSON_REJECT_DUPLICATES, NULL);
            assert_int_equal(json_array_size(json), 2); /* readable for everybody else too */
            json_decref(json);
        }
}

static void test_empty_is_a_beginning(void **state)
{
    struct sm_counters got = {.seq = 7};

    assert_true(sm_counters_decode("", 0, &got, NULL));
    assert_int_equal(got.seq, 0);
    assert_int_equal(got.bytes[SM_CAPS_UP] + got.bytes[SM_CAPS_DOWN], 0);
}

/* After every prefix of a write either the old or the new record is the answer, and never less. */
static void test_torn_at_every_byte(void **state)
{
    char before[SM_COUNTERS_FILE], after[SM_COUNTERS_FILE], torn[SM_COUNTERS_FILE];
    struct sm_counters got;

    for (uint64_t seq = 40; seq < 42; seq++) {
        put(before, seq - 1, 900, 1000);
        put(before, seq, 1000, 2000);
        memcpy(after, before, sizeof(after));
        put(after, seq + 1, 1100, 2222);
        for (size_t cut = 0; cut <= sizeof(after); cut++) {
            memcpy(torn, after, cut);
            memcpy(torn + cut, before + cut, sizeof(torn) - cut);
            assert_true(sm_counters_decode(torn, sizeof(torn), &got, NULL));
            if (memcmp(torn, after, sizeof(torn)) == 0)
                assert_int_equal(got.bytes[SM_CAPS_UP], 1100);
            else
                assert_int_equal(got.bytes[SM_CAPS_UP], 1000);
        }
    }
}

static void test_the_first_write_of_all_may_be_torn(void **state)
{
    char file[SM_COUNTERS_FILE] = {0};
    struct sm_counters got;

    put(file, 1, 0, 0); /* at its place behind a hole: the file has its length from then on */
    assert_true(sm_counters_decode(file, sizeof(file), &got, NULL));
    assert_int_equal(got.seq, 1);
}

static void damaged(const char *text, size_t len)
{
    struct sm_counters got = {.seq = 7};
    g_autoptr(GError) error = NULL;

    assert_false(sm_counters_decode(text, len, &got, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
    assert_true(strstr(error->message, "damaged"));
    assert_int_equal(got.seq, 7);
}

static void test_damage(void **state)
{
    char file[SM_COUNTERS_FILE], copy[SM_COUNTERS_FILE];

    put(file, 6, 1000, 2000);
    put(file, 7, 1001, 2000);
    for (size_t len = 1; len < sizeof(file); len++)
        damaged(file, len);
    /* One byte of each record wrong, whichever it is: no change goes unseen, not even in the padding. */
    for (size_t i = 0; i < SM_COUNTERS_RECORD; i++) {
        memcpy(copy, file, sizeof(copy));
        copy[i] ^= 1;
        copy[SM_COUNTERS_RECORD + i] ^= 1;
        damaged(copy, sizeof(copy));
    }
    memset(copy, 0, sizeof(copy));
    damaged(copy, sizeof(copy));
    /* Right records in each other's place, and numbers that no counter has. */
    memcpy(copy, file + SM_COUNTERS_RECORD, SM_COUNTERS_RECORD);
    memcpy(copy + SM_COUNTERS_RECORD, file, SM_COUNTERS_RECORD);
    damaged(copy, sizeof(copy));
    put(copy, 6, (uint64_t)INT64_MAX + 1, 0);
    put(copy, 7, 0, UINT64_MAX);
    damaged(copy, sizeof(copy));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_empty_is_a_beginning),
        cmocka_unit_test(test_torn_at_every_byte),
        cmocka_unit_test(test_the_first_write_of_all_may_be_torn),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
