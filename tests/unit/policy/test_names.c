/* SPDX-License-Identifier: BSD-3-Clause */
/* Host names: what is canonical, what is refused, and that no address gets by as a name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/names.h"

/* Which row is at work, without its raw bytes on the terminal. */
static void show(const char *text)
{
    g_autofree char *shown = g_strescape(text, NULL);
    print_message("  '%s'\n", shown);
}

struct row {
    const char *text;
    enum sm_name_kind kind;
    const char *name; /* canonical, "" when bad */
};

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct sm_host host;
        memset(&host, 0xa5, sizeof(host));
        show(rows[i].text);
        assert_int_equal(sm_name_classify(rows[i].text, strlen(rows[i].text), &host), rows[i].kind);
        assert_int_equal(host.kind, rows[i].kind);
        assert_string_equal(host.name, rows[i].name);
        assert_int_equal(host.port, 0);
        assert_int_equal(sm_name_kind(rows[i].text, strlen(rows[i].text)), rows[i].kind);
    }
}

static void canonical_names(void **state)
{
    static const struct row rows[] = {
        {"pypi.org", SM_NAME_HOST, "pypi.org"},
        {"PyPI.Org", SM_NAME_HOST, "pypi.org"},
        {"pypi.org.", SM_NAME_HOST, "pypi.org"},
        {"localhost", SM_NAME_HOST, "localhost"},
        {"_dmarc.example.org", SM_NAME_HOST, "_dmarc.example.org"},
        {"a_b-c.example.org", SM_NAME_HOST, "a_b-c.example.org"},
        {"-x-.example.org", SM_NAME_HOST, "-x-.example.org"},
        {"xn--bcher-kva.example", SM_NAME_HOST, "xn--bcher-kva.example"},
        {"4.3.2.1.in-addr.arpa", SM_NAME_HOST, "4.3.2.1.in-addr.arpa"},
        {"1password.com", SM_NAME_HOST, "1password.com"},
        {"0x.example.org", SM_NAME_HOST, "0x.example.org"},
        {"example.0xg", SM_NAME_HOST, "example.0xg"},
        {"example.x0", SM_NAME_HOST, "example.x0"},
    };
    check_rows(rows, SM_ARRAY_LEN(rows));
}

static void bad_names(void **state)
{
    static const struct row rows[] = {
        {".", SM_NAME_BAD, ""},
        {"..", SM_NAME_BAD, ""},
        {".pypi.org", SM_NAME_BAD, ""},
        {"pypi..org", SM_NAME_BAD, ""},
        {"pypi.org..", SM_NAME_BAD, ""},
        {"pypi org", SM_NAME_BAD, ""},
        {" pypi.org", SM_NAME_BAD, ""},
        {"pypi.org\n", SM_NAME_BAD, ""},
        {"pypi.org/", SM_NAME_BAD, ""},
        {"user@pypi.org", SM_NAME_BAD, ""},
        {"pypi.org:443", SM_NAME_BAD, ""},
        {"*.pypi.org", SM_NAME_BAD, ""},
        {"%70ypi.org", SM_NAME_BAD, ""},
        {"b\xc3\xbc"
         "cher.example",
         SM_NAME_BAD, ""},
        {"pypi\xe3\x80\x82org", SM_NAME_BAD, ""},          /* ideographic full stop */
        {"\xef\xbc\x91\xef\xbc\x92.org", SM_NAME_BAD, ""}, /* full-width 12 */
        {"pypi.\xff", SM_NAME_BAD, ""},
    };
    struct sm_host host;
    check_rows(rows, SM_ARRAY_LEN(rows));
    assert_int_equal(sm_name_classify("", 0, &host), SM_NAME_BAD);
    assert_int_equal(sm_name_classify("pypi.org\0.evil.test", 19, &host), SM_NAME_BAD);
    assert_int_equal(sm_name_classify("pypi.org\0", 9, &host), SM_NAME_BAD);
    assert_int_equal(sm_name_classify("10.0.0.5\0", 9, &host), SM_NAME_BAD);
}

/* Every shape that inet_aton(3) or a URL parser reads as an IPv4 address is a strict dotted quad or bad. */
static void addresses_in_odd_forms(void **state)
{
    static const struct row rows[] = {
        {"127.0.0.1", SM_NAME_IPV4, "127.0.0.1"},
        {"203.0.113.9", SM_NAME_IPV4, "203.0.113.9"},
        {"::1", SM_NAME_IPV6, "::1"},
        {"2001:DB8::1", SM_NAME_IPV6, "2001:db8::1"},
        {"2130706433", SM_NAME_BAD, ""},
        {"0x7f000001", SM_NAME_BAD, ""},
        {"0X7F000001", SM_NAME_BAD, ""},
        {"017700000001", SM_NAME_BAD, ""},
        {"0177.0.0.1", SM_NAME_BAD, ""},
        {"127.1", SM_NAME_BAD, ""},
        {"127.0.1", SM_NAME_BAD, ""},
        {"10.5", SM_NAME_BAD, ""},
        {"0", SM_NAME_BAD, ""},
        {"0x", SM_NAME_BAD, ""},
        {"1.2.3.4.5", SM_NAME_BAD, ""},
        {"256.1.1.1", SM_NAME_BAD, ""},
        {"127.0.0.01", SM_NAME_BAD, ""},
        {"127.0.0.0x1", SM_NAME_BAD, ""},
        {"127.0.0.1.", SM_NAME_BAD, ""},
        {"169.254.43518", SM_NAME_BAD, ""},
        {"evil.127", SM_NAME_BAD, ""},
        {"evil.0x7f", SM_NAME_BAD, ""},
        {"fe80::1%eth0", SM_NAME_BAD, ""},
        {"[::1]", SM_NAME_BAD, ""},
        {"1.2.3.4:80", SM_NAME_BAD, ""},
    };
    check_rows(rows, SM_ARRAY_LEN(rows));
}

static void lengths(void **state)
{
    char label[80], name[300];
    struct sm_host host;

    memset(label, 'a', sizeof(label));
    assert_int_equal(sm_name_classify(label, 63, &host), SM_NAME_HOST);
    assert_int_equal(strlen(host.name), 63);
    assert_int_equal(sm_name_classify(label, 64, &host), SM_NAME_BAD);

    memset(name, 'a', sizeof(name));
    for (size_t i = 49; i < sizeof(name); i += 50)
        name[i] = '.';
    name[252] = 'z';
    assert_int_equal(sm_name_classify(name, 253, &host), SM_NAME_HOST);
    assert_int_equal(strlen(host.name), 253);
    name[253] = '.';
    assert_int_equal(sm_name_classify(name, 254, &host), SM_NAME_HOST); /* the trailing dot is not counted */
    assert_int_equal(strlen(host.name), 253);
    name[253] = 'z';
    assert_int_equal(sm_name_classify(name, 254, &host), SM_NAME_BAD);
}

static void host_field(void **state)
{
    static const struct {
        const char *text;
        enum sm_name_kind kind;
        const char *name;
        uint16_t port;
    } rows[] = {
        {"pypi.org", SM_NAME_HOST, "pypi.org", 0},
        {"pypi.org:443", SM_NAME_HOST, "pypi.org", 443},
        {"PYPI.org.:8080", SM_NAME_HOST, "pypi.org", 8080},
        {"10.0.0.5", SM_NAME_IPV4, "10.0.0.5", 0},
        {"10.0.0.5:65535", SM_NAME_IPV4, "10.0.0.5", 65535},
        {"[::1]", SM_NAME_IPV6, "::1", 0},
        {"[2001:db8::1]:443", SM_NAME_IPV6, "2001:db8::1", 443},
        {"", SM_NAME_BAD, "", 0},
        {":80", SM_NAME_BAD, "", 0},
        {"pypi.org:", SM_NAME_BAD, "", 0},
        {"pypi.org:0", SM_NAME_BAD, "", 0},
        {"pypi.org:65536", SM_NAME_BAD, "", 0},
        {"pypi.org:+80", SM_NAME_BAD, "", 0},
        {"pypi.org:080", SM_NAME_BAD, "", 0},
        {"pypi.org:80:80", SM_NAME_BAD, "", 0},
        {"pypi.org:80 ", SM_NAME_BAD, "", 0},
        {"::1", SM_NAME_BAD, "", 0},
        {"::1:80", SM_NAME_BAD, "", 0},
        {"[::1", SM_NAME_BAD, "", 0},
        {"[::1]x", SM_NAME_BAD, "", 0},
        {"[::1]:", SM_NAME_BAD, "", 0},
        {"[::1]:0", SM_NAME_BAD, "", 0},
        {"[127.0.0.1]", SM_NAME_BAD, "", 0},
        {"[]", SM_NAME_BAD, "", 0},
        {"[fe80::1%25lo]", SM_NAME_BAD, "", 0},
        {"u:p@pypi.org", SM_NAME_BAD, "", 0},
        {"pypi.org, evil.test", SM_NAME_BAD, "", 0},
        {"0x7f.1:80", SM_NAME_BAD, "", 0},
        {"2130706433:80", SM_NAME_BAD, "", 0},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_host host;
        show(rows[i].text);
        assert_int_equal(sm_host_parse(rows[i].text, strlen(rows[i].text), &host), rows[i].kind);
        assert_string_equal(host.name, rows[i].name);
        assert_int_equal(host.port, rows[i].port);
    }
}

static void operator_names(void **state)
{
    static const struct {
        const char *text;
        const char *name; /* NULL: refused */
        const char *message;
    } rows[] = {
        {"API.OpenAI.com.", "api.openai.com", NULL},
        {"b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example", NULL},
        {"B\xc3\x9c"
         "CHER.example",
         "xn--bcher-kva.example", NULL},
        {"fa\xc3\x9f.de", "xn--fa-hia.de", NULL},             /* non-transitional: the sharp s stays */
        {"pypi\xe3\x80\x82org", "pypi.org", NULL},            /* UTS 46 maps the ideographic full stop */
        {"\xef\xbc\x91\x61.org", "1a.org", NULL},             /* full-width digit */
        {"\xef\xbc\x91\xef\xbc\x90.0.0.5", NULL, "10.0.0.5"}, /* becomes an address */
        {"\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.1", NULL, "ends in a number"},
        {"10.0.0.5", NULL, "is the address"},
        {"127.1", NULL, "ends in a number"},
        {"", NULL, "empty"},
        {".", NULL, "empty"},
        {"a..b", NULL, "empty label"},
        {"a b.org", NULL, "0x20"},
        {"\xff.org", NULL, "not UTF-8"},
        {"\xcc\x80"
         "a.example",
         NULL, "internationalised"}, /* leading combining mark */
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.org", NULL, "label of 64 bytes"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        char name[SM_NAME_STRLEN] = "untouched";
        g_autoptr(GError) error = NULL;
        bool ok = sm_name_from_operator(rows[i].text, name, &error);
        show(rows[i].text);
        assert_int_equal(ok, rows[i].name != NULL);
        if (ok) {
            assert_string_equal(name, rows[i].name);
            assert_null(error);
        } else {
            assert_string_equal(name, "untouched");
            assert_non_null(strstr(error->message, rows[i].message));
        }
    }
}

static void below_an_apex(void **state)
{
    assert_true(sm_name_under("pypi.org", "pypi.org"));
    assert_true(sm_name_under("files.pypi.org", "pypi.org"));
    assert_true(sm_name_under("a.b.pypi.org", "pypi.org"));
    assert_false(sm_name_under("evilpypi.org", "pypi.org"));
    assert_false(sm_name_under("pypi.org.evil.test", "pypi.org"));
    assert_false(sm_name_under("org", "pypi.org"));
    assert_false(sm_name_under("pypi.org", ""));
}

static void public_suffixes(void **state)
{
    static const char *const yes[] = {"com", "co.uk", "github.io", "test", "no-such-tld", "ck", "x.ck", "kawasaki.jp"};
    static const char *const no[] = {"pypi.org", "openai.com", "me.github.io", "www.ck", "a.b.test"};
    for (size_t i = 0; i < SM_ARRAY_LEN(yes); i++) {
        print_message("  %s\n", yes[i]);
        assert_true(sm_name_is_public_suffix(yes[i]));
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(no); i++) {
        print_message("  %s\n", no[i]);
        assert_false(sm_name_is_public_suffix(no[i]));
    }
}

static void kinds_have_names(void **state)
{
    assert_string_equal(sm_name_kind_name(SM_NAME_IPV6), "ipv6");
    assert_string_equal(sm_name_kind_name((enum sm_name_kind)99), "?");
}

static void test_registrable(void **state)
{
    static const struct {
        const char *name, *domain; /* NULL: no suffix entry may be made of it */
    } cases[] = {
        {"a.b.example.co.uk", "example.co.uk"},
        {"example.co.uk", "example.co.uk"},
        {"www.example.com", "example.com"},
        {"co.uk", NULL},
        {"com", NULL},
        {"github.io", NULL},
        {"me.github.io", "me.github.io"},
        {"a.ok.test", "ok.test"}, /* not in the list: the last label is the suffix */
        {"test", NULL},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        const char *domain = sm_name_registrable(cases[i].name);
        if (!cases[i].domain)
            assert_null(domain);
        else
            assert_string_equal(domain, cases[i].domain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_names),  cmocka_unit_test(bad_names),       cmocka_unit_test(addresses_in_odd_forms),
        cmocka_unit_test(lengths),          cmocka_unit_test(host_field),      cmocka_unit_test(operator_names),
        cmocka_unit_test(below_an_apex),    cmocka_unit_test(public_suffixes), cmocka_unit_test(test_registrable),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
