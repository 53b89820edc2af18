/* SPDX-License-Identifier: BSD-3-Clause */
/* Policy files: what is taken, and that every refusal names file and line and leaves the lists alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "policy/file.h"

static char *lists_text(const struct sm_lists *lists)
{
    GString *out = g_string_new(NULL);
    for (int k = 0; k < SM_LIST_KINDS; k++) {
        for (size_t i = 0; i < sm_lists_count(lists, (enum sm_list_kind)k); i++) {
            char text[SM_ENTRY_STRLEN];
            g_string_append_printf(out, "%s%s %s", out->len ? ", " : "", sm_list_kind_name((enum sm_list_kind)k),
                                   sm_entry_format(sm_lists_get(lists, (enum sm_list_kind)k, i), text));
        }
    }
    return g_string_free(out, FALSE);
}

static void good_files(void **state)
{
    static const struct {
        const char *name, *text, *lists;
    } rows[] = {
        {"p.yaml", "allow:\n  - api.openai.com\n  - .PyPI.org:443\npassthrough: [.corp.example, '10.0.0.0/8']\n",
         "allow api.openai.com, allow .pypi.org:443, passthrough .corp.example, passthrough 10.0.0.0/8"},
        {"p.yml", "# nothing\nallow: []\n", ""},
        {"p.yaml", "{}", ""},
        {"p.yaml", "--- {allow: [a.test]}\n...\n", "allow a.test"},
        {"p.yaml", "%YAML 1.1\n---\nallow:\n- 'true'\n- \"2001:db8::1\"\n", "allow true, allow 2001:db8::1"},
        {"p.yaml",
         "\xef\xbb\xbf"
         "allow: [a.test]\r\n",
         "allow a.test"},
        {"p.yaml", "allow: [a.test, A.test]\npassthrough: [a.test]", "allow a.test, passthrough a.test"},
        {"p.json", "{\"allow\": [\"api.openai.com\", \".pypi.org:443\"],\n \"passthrough\": [\".corp.example\"]}",
         "allow api.openai.com, allow .pypi.org:443, passthrough .corp.example"},
        {"p.json", "{}", ""},
        {"p.json", " {\"allow\" : [ ] }\n", ""},
        {"p.json", "{\"\\u0061llow\": [\"\\u0061.test\", \"b\\u00fccher.example\"]}",
         "allow a.test, allow xn--bcher-kva.example"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
        GError *error = NULL;
        if (!sm_policy_file_parse(rows[i].name, rows[i].text, strlen(rows[i].text), lists, &error))
            fail_msg("%s", error->message);
        g_autofree char *got = lists_text(lists);
        assert_string_equal(got, rows[i].lists);
    }
}

static void bad_files(void **state)
{
    static const struct {
        const char *name, *text;
        size_t line; /* 0: the message names the file alone */
        const char *says;
    } rows[] = {
        {"p.txt", "allow: []", 0, "ends in .yaml, .yml or .json"},
        {"p", "allow: []", 0, "ends in .yaml, .yml or .json"},
        /* unknown and repeated keys */
        {"p.yaml", "allow: []\ndeny: []\n", 2, "unknown key 'deny'"},
        {"p.yaml", "allow: []\n\nAllow: []\n", 3, "unknown key 'Allow'"},
        {"p.yaml", "allow: [a.test]\npassthrough: []\nallow: [b.test]\n", 3, "key 'allow' is there twice"},
        {"p.yaml", "<<: {allow: []}\n", 1, "unknown key '<<'"},
        {"p.json", "{\n\"allow\": [],\n\"deny\": []}", 3, "unknown key 'deny'"},
        {"p.json", "{\"allow\": [],\n\"allow\": []}", 2, "duplicate object key"},
        {"p.json", "{\"allow\": [],\n\"\\u0061llow\": []}", 2, "duplicate object key"},
        /* entries */
        {"p.yaml", "allow:\n  - a.test\n  -\n", 3, "empty entry"},
        {"p.yaml", "allow:\n  - a.test\n  - ''\n", 3, "empty entry"},
        {"p.yaml", "allow:\n  - a.test\n  - .com\n", 3, "public suffix"},
        {"p.yaml", "allow:\n  - |\n    a.test\n", 2, "white space"},
        {"p.yaml", "allow: [a.test,\n\n  'b\\0c', \"d\\0e\"]\n", 3, "0x5c"},
        {"p.yaml", "allow: [a.test,\n\n  \"d\\0e\"]\n", 3, "NUL byte"},
        {"p.json", "{\"allow\": [\"a.test\",\n\"\"]}", 2, "empty entry"},
        {"p.json", "{\"allow\": [\"a.test\",\n\n\".co.uk\"]}", 3, "public suffix"},
        {"p.json", "{\"allow\": [\"a\\u0000b\"]}", 1, "not JSON"},
        /* a second document */
        {"p.yaml", "allow: []\n---\nallow: []\n", 2, "a second document"},
        {"p.yaml", "allow: []\n...\n---\n", 3, "a second document"},
        {"p.json", "{}\n{}", 2, "not JSON"},
        /* wrong types */
        {"p.yaml", "", 1, "empty"},
        {"p.yaml", "# only a comment\n", 2, "empty"},
        {"p.yaml", "- a.test\n", 1, "not a list"},
        {"p.yaml", "a.test\n", 1, "not text"},
        {"p.yaml", "allow: a.test\n", 1, "is a list of entries, not text"},
        {"p.yaml", "allow:\npassthrough: []\n", 1, "is a list of entries, not text"},
        {"p.yaml", "passthrough: []\nallow:\n  a.test: 1\n", 3, "is a list of entries, not a mapping"},
        {"p.yaml", "allow:\n  - a.test\n  - b: c\n", 3, "is text, not a mapping"},
        {"p.yaml", "allow:\n  - [a.test]\n", 2, "is text, not a list"},
        {"p.yaml", "allow:\n  - true\n", 2, "'true' is not"},
        {"p.yaml", "allow:\n  - a.test\n  - null\n", 3, "'null' is not"},
        {"p.yaml", "allow:\n  - ~\n", 2, "'~' is not"},
        {"p.yaml", "allow:\n  - No\n", 2, "'No' is not"},
        {"p.yaml", "allow:\n  - 443\n", 2, "ends in a number"},
        {"p.yaml", "? [allow]\n: []\n", 1, "a key is allow or passthrough, not a list"},
        {"p.json", "[]", 1, "an object of allow and passthrough, not a list"},
        {"p.json", "\"allow\"", 1, "not JSON"},
        {"p.json", "", 1, "not JSON"},
        {"p.json", "{\"allow\":\n\"a.test\"}", 2, "is a list of entries, not text"},
        {"p.json", "{\"allow\": null}", 1, "not null"},
        {"p.json", "{\"allow\":\n\n{\"a\": []}}", 3, "not a mapping"},
        {"p.json", "{\"allow\": [\n\"a\\\"]\\\\\", true]}", 2, "has byte 0x22"},
        {"p.json", "{\"allow\": [\n\"a.test\",\ntrue]}", 3, "not a boolean"},
        {"p.json", "{\"allow\": [1]}", 1, "not a number"},
        {"p.json", "{\"allow\": [-1.5e3]}", 1, "not a number"},
        {"p.json", "{\"allow\": [null]}", 1, "not null"},
        {"p.json", "{\"allow\": [\n[\"a.test\"]]}", 2, "not a list"},
        {"p.json", "{\"allow\": [{}]}", 1, "not a mapping"},
        /* anchors, aliases, tags */
        {"p.yaml", "allow: &a []\n", 1, "anchors"},
        {"p.yaml", "allow:\n - &a a.test\n", 2, "anchors"},
        {"p.yaml", "&a\nallow: []\n", 1, "anchors"},
        {"p.yaml", "allow: [a.test]\npassthrough: *a\n", 2, "alias"},
        {"p.yaml", "allow:\n - !!str a.test\n", 2, "tags"},
        {"p.yaml", "allow: !x []\n", 1, "tags"},
        {"p.yaml", "!!map {allow: []}\n", 1, "tags"},
        {"p.yaml", "%TAG ! tag:x,2000:\n---\nallow: []\n", 1, "tags"},
        /* not the format at all */
        {"p.yaml", "allow: [a.test\n", 2, "not YAML"},
        {"p.yaml", "allow: []\n\tx: []\n", 2, "not YAML"},
        {"p.yaml", "allow: []\n\xff\n", 2, "not YAML"},
        {"p.yaml",
         "\xff\xfe"
         "a",
         1, "not YAML"},
        {"p.json", "allow: []\n", 1, "not JSON"},
        {"p.json", "{\"allow\": [\"a.test\",\n]}", 2, "not JSON"},
        {"p.json", "{\"allow\": [\"\xff\"]}", 1, "not JSON"},
        {"p.json", "{\"allow\": []} // x", 1, "not JSON"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
        g_autoptr(GError) error = NULL;
        g_autofree char *place = rows[i].line ? g_strdup_printf("%s:%zu: ", rows[i].name, rows[i].line)
                                              : g_strdup_printf("%s: ", rows[i].name);
        assert_true(sm_lists_add_text(lists, SM_LIST_ALLOW, "before.test", NULL));
        if (sm_policy_file_parse(rows[i].name, rows[i].text, strlen(rows[i].text), lists, &error))
            fail_msg("row %zu was taken", i);
        if (!g_str_has_prefix(error->message, place) || !strstr(error->message, rows[i].says))
            fail_msg("row %zu: '%s' is not '%s...%s'", i, error->message, place, rows[i].says);
        g_autofree char *got = lists_text(lists);
        assert_string_equal(got, "allow before.test");
    }
}

static void bytes_that_end_early(void **state)
{
    /* Every prefix of good files: a clean result each time, and never a read past the end (ASan). */
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"p.yaml", "allow:\n  - api.openai.com\n  - \"x\\u00fc.test\"\npassthrough: [.corp.example, '10.0.0.0/8']\n"},
        {"p.json", "{\"allow\": [\"a\\u00fc.test\", \".pypi.org:443\"], \"passthrough\": []}"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].text);
        for (size_t cut = 0; cut <= len; cut++) {
            g_autofree char *copy = g_memdup2(rows[i].text, cut ? cut : 1);
            sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
            g_autoptr(GError) error = NULL;
            bool ok = sm_policy_file_parse(rows[i].name, copy, cut, lists, &error);
            assert_int_equal(ok, error == NULL);
            if (cut == len)
                assert_true(ok);
        }
    }
}

static void limits(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *big = g_strnfill(SM_POLICY_FILE_MAX + 1, '#');
    GString *many = g_string_new("allow:\n");
    GString *deep = g_string_new("allow: ");

    assert_false(sm_policy_file_parse("p.yaml", big, SM_POLICY_FILE_MAX + 1, lists, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    g_clear_error(&error);

    for (unsigned i = 0; i <= SM_LISTS_MAX; i++)
        g_string_append(many, "- a.b\n");
    assert_false(sm_policy_file_parse("p.yaml", many->str, many->len, lists, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    assert_true(g_str_has_prefix(error->message, "p.yaml:100002: "));
    assert_int_equal(sm_lists_count(lists, SM_LIST_ALLOW), 0);
    g_clear_error(&error);

    for (unsigned i = 0; i < 200000; i++)
        g_string_append_c(deep, '[');
    assert_false(sm_policy_file_parse("p.yaml", deep->str, deep->len, lists, &error));
    assert_non_null(strstr(error->message, "is text, not a list"));
    g_clear_error(&error);
    memcpy(deep->str, "{\"allow\"", 7);
    assert_false(sm_policy_file_parse("p.json", deep->str, deep->len, lists, &error));
    assert_non_null(strstr(error->message, "not JSON"));

    g_string_free(many, TRUE);
    g_string_free(deep, TRUE);
}

static void test_line(void **state)
{
    static const char text[] = "allow:\n  - A.test\n  - .b.test:443\npassthrough:\n  - a.test\n";
    static const char json[] = "{\"allow\":\n [\"a.test\",\n \".b.test\"]}";
    struct sm_entry a, b;

    (void)state;
    assert_true(sm_entry_parse("a.test", &a, NULL));
    assert_true(sm_entry_parse(".b.test:443", &b, NULL));
    assert_int_equal(sm_policy_file_line("x.yaml", text, strlen(text), SM_LIST_ALLOW, &a), 2);
    assert_int_equal(sm_policy_file_line("x.yaml", text, strlen(text), SM_LIST_PASSTHROUGH, &a), 5);
    assert_int_equal(sm_policy_file_line("x.yaml", text, strlen(text), SM_LIST_ALLOW, &b), 3);
    assert_int_equal(sm_policy_file_line("x.yaml", text, strlen(text), SM_LIST_PASSTHROUGH, &b), 0);
    assert_int_equal(sm_policy_file_line("x.json", json, strlen(json), SM_LIST_ALLOW, &a), 2);
    assert_int_equal(sm_policy_file_line("x.json", json, strlen(json), SM_LIST_ALLOW, &b), 0); /* another port */
    assert_int_equal(sm_policy_file_line("x.yaml", "allow: [.com]\n", 14, SM_LIST_ALLOW, &a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files), cmocka_unit_test(bad_files), cmocka_unit_test(bytes_that_end_early),
        cmocka_unit_test(test_line),  cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
