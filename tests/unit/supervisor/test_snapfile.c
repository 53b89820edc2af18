/* SPDX-License-Identifier: BSD-3-Clause */
/* A snapshot's bytes: what is written is read again, and nothing else is: every bit, every length, every key but the right one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/error.h"
#include "launch/snapfile.h"

static struct sm_secret *key_of(uint8_t fill)
{
    uint8_t bytes[SM_SNAPSHOT_KEY_BYTES];

    memset(bytes, fill, sizeof(bytes));
    return sm_secret_new(bytes, sizeof(bytes));
}

static struct sm_snapshot sample(bool with_ca)
{
    struct sm_snapshot s = {.id = "00112233445566778899aabbccddeeff",
                            .created = g_strdup("2026-01-02T03:04:05Z"),
                            .program = g_strdup("0.1"),
                            .workspace = g_strdup("w"),
                            .settings = json_pack("{s:i}", "version", 1),
                            .policy = json_pack("{s:[s], s:[]}", "allow", "ok.test", "passthrough"),
                            .counters = {1, INT64_MAX},
                            .pins = json_pack("[{s:s, s:s, s:I}]", "name", "ok.test", "addr", "203.0.113.1",
                                              "expires_us", (json_int_t)1795000000000000)};
    if (with_ca) {
        struct sm_tls_ca *ca = sm_tls_ca_new("w", INT64_C(1795000000000000), NULL);
        s.ca_cert = g_strdup(sm_tls_ca_cert_pem(ca));
        s.ca_key = sm_tls_ca_key_pem(ca);
        sm_tls_ca_fingerprint(ca, s.ca_sha256);
        sm_tls_ca_free(ca);
    }
    return s;
}

static void test_there_and_back(void **state)
{
    for (int with_ca = 0; with_ca < 2; with_ca++) {
        sm_cleanup(sm_secret_freep) struct sm_secret *key = key_of(7);
        sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = sample(with_ca), got = {0};
        sm_cleanup(sm_secret_freep) struct sm_secret *file = sm_snapshot_encode(&s, key, NULL);
        g_autoptr(GError) error = NULL;
        size_t len, a, b;
        const uint8_t *data = sm_secret_bytes(file, &len);

        assert_memory_equal(data, "slirp-med-snapshot 1 ", 21);
        if (!sm_snapshot_decode(data, len, key, &got, &error))
            fail_msg("%s", error->message);
        assert_string_equal(got.id, s.id);
        assert_string_equal(got.created, s.created);
        assert_string_equal(got.program, s.program);
        assert_string_equal(got.workspace, s.workspace);
        assert_true(json_equal(got.settings, s.settings) && json_equal(got.policy, s.policy) &&
                    json_equal(got.pins, s.pins));
        assert_memory_equal(got.counters, s.counters, sizeof(s.counters));
        assert_int_equal(got.ca_cert != NULL, with_ca);
        assert_string_equal(got.ca_sha256, s.ca_sha256);
        if (with_ca) {
            assert_string_equal(got.ca_cert, s.ca_cert);
            const uint8_t *x = sm_secret_bytes(got.ca_key, &a), *y = sm_secret_bytes(s.ca_key, &b);
            assert_int_equal(a, b);
            assert_memory_equal(x, y, a);
        }
        sm_cleanup(sm_secret_freep) struct sm_secret *again = sm_snapshot_encode(&got, key, NULL);
        const uint8_t *second = sm_secret_bytes(again, &a);
        assert_int_equal(a, len);
        assert_memory_equal(second, data, len);
    }
}

/* Refused, with *ret as it was. */
static void refused(const uint8_t *data, size_t len, const struct sm_secret *key, const char *words)
{
    struct sm_snapshot got = {.created = (char *)(uintptr_t) "untouched"};
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *exact = g_memdup2(data, len); /* ASan sees one byte too many */

    assert_false(sm_snapshot_decode(exact, len, key, &got, &error));
    assert_string_equal(got.created, "untouched");
    assert_true(g_utf8_validate(error->message, -1, NULL));
    if (words && !strstr(error->message, words))
        fail_msg("'%s' lacks '%s'", error->message, words);
    assert_null(strstr(error->message, "PRIVATE"));
}

static void test_every_bit_and_every_length(void **state)
{
    sm_cleanup(sm_secret_freep) struct sm_secret *key = key_of(7);
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = sample(true);
    sm_cleanup(sm_secret_freep) struct sm_secret *file = sm_snapshot_encode(&s, key, NULL);
    size_t len;
    const uint8_t *data = sm_secret_bytes(file, &len);
    g_autofree uint8_t *copy = g_malloc(len + 1);

    for (size_t i = 0; i < len; i++) {
        memcpy(copy, data, len);
        for (unsigned bit = 0; bit < 8; bit++) {
            copy[i] = data[i] ^ (uint8_t)(1u << bit);
            refused(copy, len, key, NULL);
        }
    }
    for (size_t n = 0; n < len; n++)
        refused(data, n, key, NULL);
    memcpy(copy, data, len);
    for (unsigned more = 0; more < 256; more++) {
        copy[len] = (uint8_t)more;
        refused(copy, len + 1, key, "belong to it");
    }
}

static void test_other_keys(void **state)
{
    sm_cleanup(sm_secret_freep) struct sm_secret *key = key_of(7), *other = key_of(8),
                                                 *none = sm_secret_new((char[]){""}, 0);
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = sample(false);
    sm_cleanup(sm_secret_freep) struct sm_secret *file = sm_snapshot_encode(&s, key, NULL);
    g_autoptr(GError) error = NULL;
    size_t len;
    const uint8_t *data = sm_secret_bytes(file, &len);

    refused(data, len, other, "another key");
    refused(data, len, none, NULL);
    assert_null(sm_snapshot_encode(&s, none, &error));
    assert_non_null(error);
}

static void test_first_lines(void **state)
{
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"", "not a snapshot"},
        {"\n", "not a snapshot"},
        {"slirp-med-snapshot\n", "not a snapshot"},
        {"slirp-med-snapshot 1\n", "not a snapshot"},
        {"slirp-med-snapshot 2\n", "not a snapshot"},
        {"slirp-med-snapshot 2 \n", "version 2: this slirp-med"},
        {"slirp-med-snapshot 0 0123456789abcdef 0 0\n", "version 0"},
        {"slirp-med-snapshot 01 0123456789abcdef 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot -1 0123456789abcdef 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot 4294967297 0123456789abcdef 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789ABCDEF 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcde 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef0 0 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 00 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 99999999999999999999 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 67108865 0\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 67108864 0\n", "cut off"},
        {"slirp-med-snapshot 1 0123456789abcdef 0 1025\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 0 0 \n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 0 0\r\n", "not a snapshot"},
        {"slirp-med-snapshot 1 0123456789abcdef 0 0\n", "cut off: 42 of 108 bytes"},
    };
    sm_cleanup(sm_secret_freep) struct sm_secret *key = key_of(7);
    uint8_t line[SM_SNAPSHOT_HEAD_MAX + 10];

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++)
        refused((const uint8_t *)rows[i].text, strlen(rows[i].text), key, rows[i].words);
    memset(line, ' ', sizeof(line));
    memcpy(line, "slirp-med-snapshot 1 ", 21);
    line[sizeof(line) - 1] = '\n';
    refused(line, sizeof(line), key, "not a snapshot");
    refused((const uint8_t *)"slirp-med-snapshot 1 \0\n", 23, key, "not a snapshot");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_every_bit_and_every_length),
        cmocka_unit_test(test_other_keys),
        cmocka_unit_test(test_first_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
