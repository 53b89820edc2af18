/* SPDX-License-Identifier: BSD-3-Clause */
/* What a person and a program see: columns, JSON, and never a byte that acts on a terminal. */
#include "helper.h"

#include "audit/show.h"

static char *show(const char *text, size_t len, void (*fn)(GString *, const struct sm_audit_line *))
{
    struct sm_audit_line line;
    json_t *json = NULL;
    GString *out = g_string_new(NULL);
    sm_audit_parse_line(text, len, &line, &json);
    fn(out, &line);
    json_decref(json);
    return g_string_free(out, FALSE);
}

static void expect_columns(const char *text, const char *want)
{
    g_autofree char *got = show(text, strlen(text), sm_audit_show_columns);
    assert_string_equal(got, want);
}

#define HEAD "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":1,\"event\":\"egress_deny\",\"workspace\":\"demo\""

static void test_columns(void **state)
{
    expect_columns(
        HEAD ",\"flow\":7,\"src\":\"10.0.2.15:40000\",\"dst\":\"203.0.113.5\",\"port\":443,\"host\":\"ok.test\","
             "\"name_source\":\"sni\",\"reason\":\"not listed\",\"unlisted\":true,\"mitm\":false,\"bytes_up\":12}",
        "2026-11-22T21:04:05.123456Z  egress_deny               7       ok.test:443 (203.0.113.5)                     "
        "src=10.0.2.15:40000 name_source=sni reason=\"not listed\" unlisted bytes_up=12\n");
    expect_columns(HEAD ",\"dst\":\"203.0.113.5\",\"port\":22}",
                   "2026-11-22T21:04:05.123456Z  egress_deny               -       203.0.113.5:22\n");
    expect_columns(HEAD ",\"dst\":\"2001:db8::1\",\"port\":22}",
                   "2026-11-22T21:04:05.123456Z  egress_deny               -       [2001:db8::1]:22\n");
    expect_columns(
        HEAD ",\"host\":\"a.test\",\"answers\":[\"192.0.2.1\",\"x "
             "y\",[1],{}],\"none\":[],\"o\":{\"a\":1},\"n\":null,\"r\":1.5}",
        "2026-11-22T21:04:05.123456Z  egress_deny               -       a.test                                        "
        "answers=192.0.2.1,\"x y\",...,... none=[] o={...} n=null r=1.5\n");
    expect_columns("{}", "-                            -                         -       -\n");
    /* A long value pushes the others and is not cut. */
    expect_columns(HEAD ",\"host\":\"a-host-name-that-is-longer-than-its-column-is-wide.example\",\"rule\":\"r\"}",
                   "2026-11-22T21:04:05.123456Z  egress_deny               -       "
                   "a-host-name-that-is-longer-than-its-column-is-wide.example  rule=r\n");
    GString *header = g_string_new(NULL);
    sm_audit_show_header(header);
    assert_string_equal(header->str, "TIME                         EVENT                     FLOW    TARGET"
                                     "                                        DETAIL\n");
    g_string_free(header, TRUE);
}

static void test_nothing_acts(void **state)
{
    /* As escapes (a guest's bytes through our writer), raw (a forger's), and in keys. */
    expect_columns(
        HEAD ",\"host\":\"\\u001b[2J\\u0000\\n\\u009b\\u202e\"}",
        "2026-11-22T21:04:05.123456Z  egress_deny               -       \"\\u001b[2J\\u0000\\u000a\\u009b\\u202e\"\n");
    expect_columns(
        HEAD ",\"host\":\"a\",\"k\\u001b\":\"\x7f\xc2\x9b\"}",
        "2026-11-22T21:04:05.123456Z  egress_deny               -       a                                             "
        "k\\u001b=\"\\u007f\\u009b\"\n");
    expect_columns("\x1b]0;title\x07 \xff \"q\"",
                   "-                            (invalid line of 16 bytes: \\u001b]0;title\\u0007 "
                   "\xef\xbf\xbd \"q\")\n");
}

static void test_json(void **state)
{
    const char *record = HEAD ",\t\"host\":\"\\u001b \x7f\xc2\x9b\xe2\x80\xae\xc3\xa4\\\\\"\r}";
    g_autofree char *got = show(record, strlen(record), sm_audit_show_json);
    assert_string_equal(got, HEAD ", \"host\":\"\\u001b \\u007f\\u009b\\u202e\xc3\xa4\\\\\" }");
    g_autofree char *invalid = show("not\x1b\"json\xff", 10, sm_audit_show_json);
    assert_string_equal(invalid, "{\"invalid\":\"invalid\",\"text\":\"not\\u001b\\\"json\xef\xbf\xbd\"}");
}

/* Random bytes, and valid lines with random bytes in them: the output is valid UTF-8 without controls, and JSON stays
 * JSON. */
static void test_random(void **state)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(8);
    for (unsigned round = 0; round < 20000; round++) {
        char text[300];
        size_t len;
        if (round % 2 == 0) {
            len = (size_t)g_rand_int_range(rand, 0, 80);
            for (size_t i = 0; i < len; i++)
                text[i] = (char)g_rand_int_range(rand, 0, 256);
        } else {
            const char *base = HEAD
                ",\"flow\":7,\"dst\":\"203.0.113.5\",\"host\":\"\\u001b\xc2\x9b\",\"answers\":[\"a\",1.5e3,true,null]}";
            len = strlen(base);
            memcpy(text, base, len);
            for (int i = g_rand_int_range(rand, 0, 4); i > 0; i--)
                text[g_rand_int_range(rand, 0, (gint32)len)] = (char)g_rand_int_range(rand, 0, 256);
        }
        g_autofree char *cols = show(text, len, sm_audit_show_columns);
        g_autofree char *json = show(text, len, sm_audit_show_json);
        size_t n = strlen(cols);
        assert_true(n > 0 && cols[n - 1] == '\n');
        cols[n - 1] = ' ';
        assert_true(g_utf8_validate(cols, -1, NULL));
        for (size_t i = 0; cols[i]; i++)
            assert_true((unsigned char)cols[i] >= 0x20 && cols[i] != 0x7f);
        assert_true(g_utf8_validate(json, -1, NULL));
        for (size_t i = 0; json[i]; i++)
            assert_true((unsigned char)json[i] >= 0x20 && json[i] != 0x7f);
        json_error_t error;
        json_t *parsed = json_loads(json, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
        if (!parsed)
            fail_msg("%s: %s", error.text, json);
        json_decref(parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_nothing_acts),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
