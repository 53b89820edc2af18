/* SPDX-License-Identifier: BSD-3-Clause */
/* List entries: every form, every error, and which entry wins in the lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "policy/list.h"

static void good_entries(void **state)
{
    static const struct {
        const char *text;
        enum sm_entry_kind kind;
        const char *canonical;
    } rows[] = {
        {"api.openai.com", SM_ENTRY_HOST, "api.openai.com"},
        {"API.OpenAI.com.", SM_ENTRY_HOST, "api.openai.com"},
        {"api.openai.com:443", SM_ENTRY_HOST, "api.openai.com:443"},
        {"localhost:8080", SM_ENTRY_HOST, "localhost:8080"},
        {"com", SM_ENTRY_HOST, "com"}, /* an exact host, not a suffix */
        {"b\xc3\xbc"
         "cher.example:1",
         SM_ENTRY_HOST, "xn--bcher-kva.example:1"},
        {".pypi.org", SM_ENTRY_SUFFIX, ".pypi.org"},
        {".PyPI.org.", SM_ENTRY_SUFFIX, ".pypi.org"},
        {".pypi.org:65535", SM_ENTRY_SUFFIX, ".pypi.org:65535"},
        {".me.github.io", SM_ENTRY_SUFFIX, ".me.github.io"},
        {"203.0.113.9", SM_ENTRY_ADDR, "203.0.113.9"},
        {"203.0.113.9:443", SM_ENTRY_ADDR, "203.0.113.9:443"},
        {"203.0.113.9/32", SM_ENTRY_ADDR, "203.0.113.9"},
        {"10.0.0.0/8", SM_ENTRY_CIDR, "10.0.0.0/8"},
        {"10.0.0.0/8:5432", SM_ENTRY_CIDR, "10.0.0.0/8:5432"},
        {"0.0.0.0/0", SM_ENTRY_CIDR, "0.0.0.0/0"},
        {"2001:DB8::1", SM_ENTRY_ADDR, "2001:db8::1"},
        {"[2001:db8::1]", SM_ENTRY_ADDR, "2001:db8::1"},
        {"[2001:db8::1]:443", SM_ENTRY_ADDR, "[2001:db8::1]:443"},
        {"2001:db8::/32", SM_ENTRY_CIDR, "2001:db8::/32"},
        {"[2001:db8::/32]:443", SM_ENTRY_CIDR, "[2001:db8::/32]:443"},
        {"2001:db8::1/128", SM_ENTRY_ADDR, "2001:db8::1"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_entry entry, again;
        char text[SM_ENTRY_STRLEN];
        GError *error = NULL;
        if (!sm_entry_parse(rows[i].text, &entry, &error))
            fail_msg("%s", error->message);
        assert_int_equal(entry.kind, rows[i].kind);
        assert_string_equal(sm_entry_format(&entry, text), rows[i].canonical);
        assert_true(sm_entry_parse(text, &again, NULL));
        assert_true(sm_entry_equal(&entry, &again));
    }
}

static void bad_entries(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "empty entry"},
        {" ", "white space"},
        {"api.openai.com ", "white space"},
        {"a b", "white space"},
        {"a\tb", "white space"},
        {"a\x1b[31mb", "control"},
        {"\xff", "not UTF-8"},
        {".", "empty"},
        {"..pypi.org", "empty label"},
        {".com", "public suffix"},
        {".co.uk", "public suffix"},
        {".github.io", "public suffix"},
        {".CO.UK.", "public suffix"},
        {".com:443", "public suffix"},
        {".test", "public suffix"},
        {".ck", "public suffix"},
        {".\xe4\xb8\xad\xe5\x9b\xbd", "public suffix"}, /* .xn--fiqs8s */
        {"*.pypi.org", "no wildcards"},
        {"*", "0x2a"},
        {"https://pypi.org", "is a URL"},
        {"pypi.org/simple", "is not an IP address"},
        {"pypi.org:", "is not a port"},
        {"pypi.org:0", "is not a port"},
        {"pypi.org:65536", "is not a port"},
        {"pypi.org:https", "is not a port"},
        {"pypi.org:-1", "is not a port"},
        {"pypi.org:0443", "is not a port"},
        {":443", "empty"},
        {"10.0.0.5/8", "write 10.0.0.0/8"},
        {"10.0.0.0/33", "prefix length"},
        {"10.0.0.0/", "prefix length"},
        {"10.0.0.0/+8", "prefix length"},
        {"10.0.0.0/08", "prefix length"},
        {"10.0.0.0/8/8", "prefix length"},
        {"10/8", "is not an IP address"},
        {"10.0.0/8", "is not an IP address"},
        {"127.1", "ends in a number"},
        {"2130706433", "ends in a number"},
        {"0x7f.0.0.1", "ends in a number"},
        {"0177.0.0.1:80", "ends in a number"},
        {".10.0.0.5", "is the address"},
        {"2001:db8::1/64", "write 2001:db8::/64"},
        {"2001:db8::/129", "prefix length"},
        {"::ffff:10.0.0.5", "write the IPv4 address"},
        {"::ffff:0:0/96", "write the IPv4 address"},
        {"[10.0.0.5]:80", "brackets are for IPv6"},
        {"[2001:db8::1", "brackets are for IPv6"},
        {"[2001:db8::1]443", "brackets are for IPv6"},
        {"[2001:db8::1]:", "is not a port"},
        {"[pypi.org]:443", "brackets are for IPv6"},
        {"[]", "brackets are for IPv6"},
        {"[", "brackets are for IPv6"},
        {"fe80::1%eth0", "is not an IP address"},
        {"a:b:c", "is not an IP address"},
        {"user@pypi.org", "0x40"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_entry entry;
        g_autoptr(GError) error = NULL;
        memset(&entry, 0x5a, sizeof(entry));
        struct sm_entry before = entry;
        if (sm_entry_parse(rows[i].text, &entry, &error))
            fail_msg("'%s' was taken", rows[i].text);
        if (!strstr(error->message, rows[i].says))
            fail_msg("'%s' does not say '%s'", error->message, rows[i].says);
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        assert_memory_equal(&entry, &before, sizeof(entry));
    }
}

static void over_long_entry(void **state)
{
    g_autofree char *text = g_strnfill(SM_ENTRY_TEXT_MAX + 1, 'a');
    struct sm_entry entry;
    g_autoptr(GError) error = NULL;
    assert_false(sm_entry_parse(text, &entry, &error));
    assert_non_null(strstr(error->message, "bytes long"));
    g_clear_error(&error);
    text[SM_ENTRY_TEXT_MAX] = '\0';
    assert_false(sm_entry_parse(text, &entry, &error));
    assert_non_null(strstr(error->message, "at most 253"));
}

static void matching(void **state)
{
    static const struct {
        const char *entry, *name;
        bool match;
    } rows[] = {
        {".pypi.org", "pypi.org", true},       {".pypi.org", "files.pypi.org", true},
        {".pypi.org", "evilpypi.org", false},  {".pypi.org", "pypi.org.evil.test", false},
        {".pypi.org", "org", false},           {"pypi.org", "pypi.org", true},
        {"pypi.org", "files.pypi.org", false}, {"pypi.org", "evilpypi.org", false},
        {"10.0.0.5", "10.0.0.5", false}, /* an address entry is no name */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
        assert_true(sm_lists_add_text(lists, SM_LIST_ALLOW, rows[i].entry, NULL));
        assert_int_equal(sm_lists_name(lists, rows[i].name, 443).entry != NULL, rows[i].match);
    }
    static const struct {
        uint8_t last;
        bool match;
    } hosts[] = {{0, true}, {127, true}, {128, false}};
    sm_cleanup(sm_lists_freep) struct sm_lists *net = sm_lists_new();
    assert_true(sm_lists_add_text(net, SM_LIST_ALLOW, "10.0.0.0/25", NULL));
    for (size_t i = 0; i < SM_ARRAY_LEN(hosts); i++) {
        struct sm_endpoint dst = {sm_addr_v4(10, 0, 0, hosts[i].last), 443};
        assert_int_equal(sm_lists_addr(net, &dst).entry != NULL, hosts[i].match);
    }
}

static void specificity(void **state)
{
    static const struct {
        const char *a, *b;
        int cmp;
    } rows[] = {
        {"a.pypi.org", ".pypi.org", 1},   {".a.pypi.org", ".pypi.org", 1},    {"10.0.0.5", "10.0.0.0/8", 1},
        {"10.0.0.0/16", "10.0.0.0/8", 1}, {"a.test:443", "a.test", 1},        {"a.test", ".a.test:443", 1},
        {".a.test:443", ".a.test", 1},    {"10.0.0.0/8:80", "10.0.0.0/8", 1}, {"10.0.0.0/9", "10.0.0.0/8:80", 1},
        {"a.test", "a.test", 0},          {"a.test", "10.0.0.5", 0},          {".a.test", "10.0.0.0/8", 0},
        {"a.test", "10.0.0.0/8", 1},      {"10.0.0.5", ".a.test", 1},         {"a.test:80", "10.0.0.5", 1},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_entry a, b;
        assert_true(sm_entry_parse(rows[i].a, &a, NULL));
        assert_true(sm_entry_parse(rows[i].b, &b, NULL));
        assert_int_equal(sm_entry_specificity_cmp(&a, &b), rows[i].cmp);
        assert_int_equal(sm_entry_specificity_cmp(&b, &a), -rows[i].cmp);
    }
}

static struct sm_lists *lists_of(const char *const *allow, const char *const *passthrough, const char *const *denied)
{
    struct sm_lists *lists = sm_lists_new();
    const char *const *const texts[] = {allow, passthrough, denied};
    for (int k = 0; k < SM_LIST_KINDS; k++)
        for (const char *const *t = texts[k]; t && *t; t++)
            assert_true(sm_lists_add_text(lists, (enum sm_list_kind)k, *t, NULL));
    return lists;
}

static void check_name(const struct sm_lists *lists, const char *name, uint16_t port, const char *winner)
{
    struct sm_match m = sm_lists_name(lists, name, port);
    char text[SM_ENTRY_STRLEN], shown[SM_ENTRY_STRLEN + 20] = "nothing";
    if (m.entry)
        g_snprintf(shown, sizeof(shown), "%s %s", sm_list_kind_name(m.list), sm_entry_format(m.entry, text));
    if (strcmp(shown, winner) != 0)
        fail_msg("%s:%u gives %s, not %s", name, (unsigned)port, shown, winner);
}

static void check_addr(const struct sm_lists *lists, const char *addr, uint16_t port, const char *winner)
{
    struct sm_endpoint dst = {.port = port};
    char text[SM_ENTRY_STRLEN], shown[SM_ENTRY_STRLEN + 20] = "nothing";
    assert_true(sm_addr_parse(addr, &dst.addr));
    struct sm_match m = sm_lists_addr(lists, &dst);
    if (m.entry)
        g_snprintf(shown, sizeof(shown), "%s %s", sm_list_kind_name(m.list), sm_entry_format(m.entry, text));
    if (strcmp(shown, winner) != 0)
        fail_msg("%s:%u gives %s, not %s", addr, (unsigned)port, shown, winner);
}

static void empty_lists_list_nothing(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    check_name(lists, "pypi.org", 443, "nothing");
    check_name(lists, "pypi.org", SM_LISTS_ANY_PORT, "nothing");
    check_addr(lists, "10.0.0.5", 443, "nothing");
    assert_null(sm_lists_deny_name(lists, "pypi.org", 443));
}

static void winners_by_name(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists =
        lists_of((const char *const[]){".pypi.org", "files.pypi.org", "tie.test", "p.test:8080", ".port.test:22", NULL},
                 (const char *const[]){".files.pypi.org", "deep.a.pypi.org", "tie.test", "p.test", NULL}, NULL);
    check_name(lists, "pypi.org", 443, "allow .pypi.org");
    check_name(lists, "a.pypi.org", 443, "allow .pypi.org");
    check_name(lists, "deep.a.pypi.org", 443, "passthrough deep.a.pypi.org");
    check_name(lists, "files.pypi.org", 443, "allow files.pypi.org"); /* exact beats the suffix */
    check_name(lists, "x.files.pypi.org", 443, "passthrough .files.pypi.org");
    check_name(lists, "tie.test", 443, "passthrough tie.test");
    check_name(lists, "p.test", 443, "passthrough p.test");
    check_name(lists, "p.test", 8080, "allow p.test:8080");
    check_name(lists, "evilpypi.org", 443, "nothing");
    check_name(lists, "pypi.org.evil.test", 443, "nothing");
    check_name(lists, "x.port.test", 22, "allow .port.test:22");
    check_name(lists, "x.port.test", 23, "nothing");
    check_name(lists, "x.port.test", SM_LISTS_ANY_PORT, "allow .port.test:22");
}

static void winners_by_address(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = lists_of(
        (const char *const[]){"10.0.0.0/8", "10.1.0.0/16:443", "0.0.0.0/0:22", "2001:db8::/32", "10.9.9.9", NULL},
        (const char *const[]){"10.1.2.0/24", "10.0.0.0/8", "[2001:db8::1]:443", "10.9.9.9:80", NULL}, NULL);
    check_addr(lists, "10.2.0.0", 80, "passthrough 10.0.0.0/8");
    check_addr(lists, "10.1.0.1", 443, "allow 10.1.0.0/16:443");
    check_addr(lists, "10.1.0.1", 80, "passthrough 10.0.0.0/8");
    check_addr(lists, "10.1.2.3", 443, "passthrough 10.1.2.0/24");
    check_addr(lists, "10.9.9.9", 80, "passthrough 10.9.9.9:80");
    check_addr(lists, "10.9.9.9", 81, "allow 10.9.9.9");
    check_addr(lists, "11.0.0.0", 80, "nothing");
    check_addr(lists, "11.0.0.0", 22, "allow 0.0.0.0/0:22");
    check_addr(lists, "2001:db8::1", 443, "passthrough [2001:db8::1]:443");
    check_addr(lists, "2001:db8::1", 80, "allow 2001:db8::/32");
    check_addr(lists, "2001:db9::1", 22, "nothing"); /* a v4 range is no v6 range */
}

static void deny_is_asked_apart(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists =
        lists_of((const char *const[]){"a.evil.test", NULL}, NULL,
                 (const char *const[]){".evil.test", "p.test:443", "203.0.113.0/24", "198.51.100.9:80", NULL});
    struct sm_endpoint dst = {.addr = sm_addr_v4(203, 0, 113, 255), .port = 1};

    assert_non_null(sm_lists_deny_name(lists, "a.evil.test", 443));
    assert_null(sm_lists_deny_name(lists, "notevil.test", 443));
    assert_non_null(sm_lists_deny_name(lists, "p.test", 443));
    assert_null(sm_lists_deny_name(lists, "p.test", 80));
    assert_null(sm_lists_deny_name(lists, "p.test", SM_LISTS_ANY_PORT));
    assert_non_null(sm_lists_deny_name(lists, "evil.test", SM_LISTS_ANY_PORT));
    assert_non_null(sm_lists_deny_addr(lists, &dst));
    dst = (struct sm_endpoint){.addr = sm_addr_v4(198, 51, 100, 9), .port = 80};
    assert_non_null(sm_lists_deny_addr(lists, &dst));
    dst.port = 81;
    assert_null(sm_lists_deny_addr(lists, &dst));
    check_name(lists, "b.evil.test", 443, "nothing"); /* deny lists nothing */
}

static void duplicates_and_the_maximum(void **state)
{
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    g_autoptr(GError) error = NULL;
    char text[64];

    assert_true(sm_lists_add_text(lists, SM_LIST_ALLOW, "a.test", NULL));
    assert_true(sm_lists_add_text(lists, SM_LIST_ALLOW, "A.TEST.", NULL));
    assert_int_equal(sm_lists_count(lists, SM_LIST_ALLOW), 1);
    assert_string_equal(sm_lists_get(lists, SM_LIST_ALLOW, 0)->name, "a.test");
    for (unsigned i = 1; i < SM_LISTS_MAX; i++) {
        g_snprintf(text, sizeof(text), "h%u.z%u.test", i, i % 7);
        assert_true(sm_lists_add_text(lists, i % 2 ? SM_LIST_ALLOW : SM_LIST_PASSTHROUGH, text, NULL));
    }
    assert_false(sm_lists_add_text(lists, SM_LIST_DENY, "one.more.test", &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    assert_true(sm_lists_add_text(lists, SM_LIST_ALLOW, "a.test", NULL)); /* there already */
    check_name(lists, "h99999.z4.test", 443, "allow h99999.z4.test");
    check_name(lists, "h99999.z5.test", 443, "nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_entries),        cmocka_unit_test(bad_entries),
        cmocka_unit_test(over_long_entry),     cmocka_unit_test(matching),
        cmocka_unit_test(specificity),         cmocka_unit_test(empty_lists_list_nothing),
        cmocka_unit_test(winners_by_name),     cmocka_unit_test(winners_by_address),
        cmocka_unit_test(deny_is_asked_apart), cmocka_unit_test(duplicates_and_the_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
