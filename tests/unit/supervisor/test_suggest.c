/* SPDX-License-Identifier: BSD-3-Clause */
/* From records to a policy file: what is listed, how it is collapsed, and that no byte of a record can break out of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/error.h"
#include "launch/suggest.h"
#include "policy/decide.h"
#include "policy/file.h"

static uint64_t seq;

static void feed(struct sm_suggest *s, const char *text)
{
    struct sm_audit_line line;
    json_t *json = NULL;

    sm_audit_parse_line(text, strlen(text), &line, &json);
    sm_suggest_line(s, &line);
    json_decref(json);
}

/** An event with the fields of `rest`, which begin with a comma. */
static void record(struct sm_suggest *s, const char *event, const char *rest)
{
    g_autofree char *text =
        g_strdup_printf("{\"ts\":\"2026-11-28T15:00:00.000000Z\",\"seq\":%llu,\"event\":\"%s\",\"workspace\":\"w\"%s}",
                        (unsigned long long)++seq, event, rest);
    feed(s, text);
}

static void flow(struct sm_suggest *s, const char *event, const char *host, const char *dst, unsigned port,
                 const char *more)
{
    g_autofree char *name =
        host ? g_strdup_printf(",\"host\":\"%s\",\"name_source\":\"pin\"", host) : g_strdup(",\"name_source\":\"ip\"");
    g_autofree char *rest =
        g_strdup_printf(",\"flow\":1,\"dst\":\"%s\",\"port\":%u%s,\"unlisted\":true,\"internal\":%s%s", dst, port, name,
                        strstr(more, "INSIDE") ? "true" : "false", strstr(more, "INSIDE") ? more + 6 : more);
    record(s, event, rest);
}

static void allow(struct sm_suggest *s, const char *host, const char *dst, unsigned port)
{
    flow(s, "egress_allow", host, dst, port, ",\"mitm\":true,\"classified\":\"tls\"");
}

/** The entries of the file, "allow: a b | passthrough: c"; the file itself in *ret_text. */
static char *listed(const struct sm_suggest *s, char **ret_text)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_suggestion_freep) struct sm_suggestion *g = sm_suggest_finish(s);
    g_autofree char *text = sm_suggestion_yaml(g, "w", &error);
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();
    GString *out = g_string_new(NULL);
    char entry[SM_ENTRY_STRLEN];

    assert_non_null(text);
    if (!sm_policy_file_parse("suggested.yaml", text, strlen(text), lists, &error))
        fail_msg("%s in\n%s", error->message, text);
    for (unsigned k = SM_LIST_ALLOW; k <= SM_LIST_PASSTHROUGH; k++) {
        g_string_append_printf(out, "%s%s:", k ? " | " : "", sm_list_kind_name((enum sm_list_kind)k));
        for (size_t i = 0; i < sm_lists_count(lists, (enum sm_list_kind)k); i++)
            g_string_append_printf(out, " %s", sm_entry_format(sm_lists_get(lists, (enum sm_list_kind)k, i), entry));
    }
    json_t *json = sm_suggestion_json(g, "w");
    assert_int_equal(json_array_size(json_object_get(json, "entries")),
                     sm_lists_count(lists, SM_LIST_ALLOW) + sm_lists_count(lists, SM_LIST_PASSTHROUGH));
    json_decref(json);
    if (ret_text)
        *ret_text = g_steal_pointer(&text);
    return g_string_free(out, FALSE);
}

#define assert_listed(s, want)                                                                                         \
    do {                                                                                                               \
        g_autofree char *have_ = listed(s, NULL);                                                                      \
        assert_string_equal(have_, want);                                                                              \
    } while (0)

static struct sm_suggest *begin(const char *start)
{
    struct sm_suggest *s = sm_suggest_new();

    seq = 0;
    if (start)
        record(s, "egress_start", start);
    return s;
}

#define GUARDED ",\"mode\":\"guarded\",\"opaque\":false"

static void test_nothing(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(NULL);

    (void)state;
    assert_listed(s, "allow: | passthrough:");
    feed(s, "nonsense");
    assert_listed(s, "allow: | passthrough:");
    assert_int_equal(sm_suggest_counts(s).bad, 1);
    assert_non_null(strstr(sm_suggest_bad(s, 0), "line 1"));
    assert_null(sm_suggest_bad(s, 1));
}

static void test_names_and_ports(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    allow(s, "b.example.com", "203.0.113.1", 443);
    allow(s, "a.example.com", "203.0.113.1", 80);
    allow(s, "a.example.com", "203.0.113.1", 22); /* the entry for all ports speaks for it */
    allow(s, "git.example.org", "203.0.113.2", 22);
    allow(s, "git.example.org", "203.0.113.2", 9418);
    allow(s, NULL, "203.0.113.9", 443);
    allow(s, NULL, "203.0.113.8", 8080);
    assert_listed(s, "allow: a.example.com b.example.com git.example.org:22 git.example.org:9418 203.0.113.8:8080 "
                     "203.0.113.9 | passthrough:");
}

static void test_collapse(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    allow(s, "a.example.co.uk", "203.0.113.1", 443);
    allow(s, "b.c.example.co.uk", "203.0.113.1", 443);
    assert_listed(s, "allow: a.example.co.uk b.c.example.co.uk | passthrough:");
    allow(s, "a.example.co.uk", "203.0.113.1", 443); /* the same again is no third */
    assert_listed(s, "allow: a.example.co.uk b.c.example.co.uk | passthrough:");
    allow(s, "example.co.uk", "203.0.113.1", 443);
    assert_listed(s, "allow: .example.co.uk | passthrough:");
    /* Never a public suffix: these are three people's. */
    allow(s, "a.github.io", "203.0.113.1", 443);
    allow(s, "b.github.io", "203.0.113.1", 443);
    allow(s, "c.github.io", "203.0.113.1", 443);
    allow(s, "d.co.uk", "203.0.113.1", 443);
    assert_listed(s, "allow: a.github.io b.github.io c.github.io d.co.uk .example.co.uk | passthrough:");
}

static void test_collapse_by_port(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    allow(s, "a.example.com", "203.0.113.1", 22);
    allow(s, "b.example.com", "203.0.113.1", 22);
    allow(s, "c.example.com", "203.0.113.1", 22);
    allow(s, "w.example.com", "203.0.113.1", 443);
    allow(s, "x.example.com", "203.0.113.1", 5432);
    assert_listed(s, "allow: .example.com:22 w.example.com x.example.com:5432 | passthrough:");
    allow(s, "a.example.com", "203.0.113.1", 443);
    allow(s, "b.example.com", "203.0.113.1", 443);
    assert_listed(s, "allow: .example.com | passthrough:");
}

static void test_passthrough(void **state)
{
    static const char left_alone[] = ",\"mitm\":false,\"classified\":\"tls\"";
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    for (char c = 'a'; c < 'e'; c++) {
        char name[] = "x.example.com";
        name[0] = c;
        flow(s, "egress_allow", name, "203.0.113.1", 443, left_alone);
    }
    /* Not collapsed: that nobody looks into it is never widened. */
    assert_listed(s, "allow: | passthrough: a.example.com b.example.com c.example.com d.example.com");
    allow(s, "a.example.com", "203.0.113.1", 443);
    flow(s, "egress_allow", "b.example.com", "203.0.113.1", 80, ",\"mitm\":false,\"classified\":\"http\"");
    assert_listed(s, "allow: a.example.com b.example.com:80 | passthrough: b.example.com:443 c.example.com "
                     "d.example.com");
    flow(s, "egress_udp_allow", "q.test", "203.0.113.1", 443, ",\"reason\":\"pin\",\"rule\":\"q.test\"");
    flow(s, "egress_udp_allow", NULL, "203.0.113.5", 443, ",\"reason\":\"rule\",\"rule\":\"203.0.113.5\"");
    assert_listed(s, "allow: a.example.com b.example.com:80 203.0.113.5 | passthrough: b.example.com:443 "
                     "c.example.com d.example.com q.test");
}

static void test_opaque_is_no_passthrough(void **state)
{
    static const char left_alone[] = ",\"mitm\":false,\"classified\":\"tls\"";
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(",\"mode\":\"guarded\",\"opaque\":true");
    sm_cleanup(sm_suggest_freep) struct sm_suggest *unknown = begin(NULL);

    (void)state;
    flow(s, "egress_allow", "a.test", "203.0.113.1", 443, left_alone);
    assert_listed(s, "allow: a.test | passthrough:");
    /* The log's beginning is gone: that others were looked into tells. */
    flow(unknown, "egress_allow", "a.test", "203.0.113.1", 443, left_alone);
    assert_listed(unknown, "allow: a.test | passthrough:");
    allow(unknown, "b.test", "203.0.113.1", 443);
    assert_listed(unknown, "allow: b.test | passthrough: a.test");
}

static void test_inside(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);
    g_autofree char *text = NULL;

    (void)state;
    flow(s, "egress_allow", "db.corp.example", "10.0.0.5", 5432, "INSIDE,\"rule\":\"db.corp.example\"");
    flow(s, "egress_allow", NULL, "10.0.0.6", 80, "INSIDE,\"rule\":\"10.0.0.0/24\"");
    flow(s, "egress_allow", "meta.test", "169.254.169.254", 80, "INSIDE,\"rule\":\"169.254.169.254\"");
    allow(s, "a.corp.example", "203.0.113.1", 443);
    allow(s, "b.corp.example", "203.0.113.1", 443);
    allow(s, "c.corp.example", "203.0.113.1", 443);
    g_autofree char *have = listed(s, &text);
    /* Exact beside the suffix, which would open nothing inside; where a pin would not do, the address too. */
    assert_string_equal(have, "allow: .corp.example db.corp.example:5432 meta.test 10.0.0.6 169.254.169.254 | "
                              "passthrough:");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    unsigned inside = 0;
    for (char **l = lines; *l; l++) {
        if (!strstr(*l, "db.corp") && !strstr(*l, "meta.test") && !strstr(*l, "10.0.0.6") && !strstr(*l, "169.254"))
            continue;
        inside++;
        assert_non_null(strstr(*l, "# "));
        assert_non_null(strstr(*l, "INSIDE"));
    }
    assert_int_equal(inside, 4);
}

static void test_lookups(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    record(s, "egress_dns_allow", ",\"host\":\"mail.test\",\"qtype\":\"MX\",\"rcode\":\"NOERROR\",\"records\":2");
    record(s, "egress_dns_allow", ",\"host\":\"none.test\",\"qtype\":\"A\",\"rcode\":\"NXDOMAIN\",\"records\":0");
    record(s, "egress_dns_allow", ",\"host\":\"v6.test\",\"qtype\":\"AAAA\",\"rcode\":\"NOERROR\",\"records\":0");
    allow(s, "v6.test", "203.0.113.1", 22);
    assert_listed(s, "allow: mail.test v6.test:22 | passthrough:");
}

static void test_denied_are_comments(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);
    g_autofree char *text = NULL;

    (void)state;
    flow(s, "egress_deny", "no.test", "203.0.113.1", 443, ",\"reason\":\"unlisted_name\",\"count\":41");
    flow(s, "egress_deny", "no.test", "203.0.113.1", 443, ",\"reason\":\"unlisted_name\"");
    flow(s, "egress_internal_deny", "rebind.test", "10.0.0.5", 80, "INSIDE,\"reason\":\"inside\"");
    flow(s, "egress_udp_deny", NULL, "203.0.113.7", 123, ",\"reason\":\"unlisted\"");
    flow(s, "egress_deny", "later.test", "203.0.113.1", 443, ",\"reason\":\"unlisted_name\"");
    flow(s, "egress_deny", "later.test", "203.0.113.1", 443, ",\"reason\":\"deny_list\"");
    flow(s, "egress_deny", "odd.test", "203.0.113.1", 443, ",\"reason\":\"x\\n- evil\"");
    flow(s, "egress_dial_error", "down.test", "203.0.113.1", 443, ",\"reason\":\"refused\"");
    record(s, "egress_dns_deny", ",\"host\":\"asked.test\",\"reason\":\"unlisted_name\"");
    record(s, "egress_dns_deny", ",\"host\":\"asked.test\",\"reason\":\"budget\"");
    record(s, "egress_other_deny", ",\"dst\":\"203.0.113.1\",\"count\":5,\"reason\":\"icmp\"");
    allow(s, "later.test", "203.0.113.1", 443); /* behind a reload */
    g_autofree char *have = listed(s, &text);
    assert_string_equal(have, "allow: later.test | passthrough:");
    assert_non_null(strstr(text, "#  - \"no.test\"  # unlisted_name, 42 times\n"));
    assert_non_null(strstr(text, "#  - \"10.0.0.5\"  # inside, 1 time, asked for as rebind.test\n"));
    assert_non_null(strstr(text, "#  - \"203.0.113.7:123\"  # unlisted, 1 time\n"));
    assert_non_null(strstr(text, "#  - \"asked.test\"  # unlisted_name, 1 time\n"));
    assert_non_null(strstr(text, "#  - \"later.test\"  # deny_list, 1 time\n"));
    assert_null(strstr(text, "#  - \"later.test\"  # unlisted_name"));
    assert_non_null(strstr(text, "#  - \"odd.test\"  # other, 1 time\n"));
    assert_non_null(strstr(text, "#  - \"down.test\"  # dial_error, 1 time\n"));
    assert_non_null(strstr(text, "# 5 packets"));
    assert_true(strstr(text, "no.test") < strstr(text, "what no entry")); /* what can be opened comes first */
    assert_true(strstr(text, "deny_list") > strstr(text, "what no entry"));
}

static void test_much_out(void **state)
{
    static const struct {
        const char *up, *down, *method;
        bool warned;
    } cases[] = {
        {"1000", "10", "POST", false},          {"1048575", "0", "POST", false},
        {"1048576", "1048577", "GET", false},   {"1048576", "1048576", "GET", true},   /* as much out as in */
        {"1048576", "9000000", "PUT", true},                                           /* by the methods */
        {"16777215", "99999999", "GET", false}, {"16777216", "99999999", "GET", true}, /* much is much */
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);
        g_autofree char *text = NULL;
        g_autofree char *bytes = g_strdup_printf(",\"bytes_up\":%s,\"bytes_down\":%s", cases[i].up, cases[i].down);
        g_autofree char *request = g_strdup_printf(",\"method\":\"%s\",\"authority\":\"out.test\"", cases[i].method);
        allow(s, "out.test", "203.0.113.1", 443);
        flow(s, "egress_http_request", "out.test", "203.0.113.1", 443, request);
        flow(s, "egress_http_request", "out.test", "203.0.113.1", 443, ",\"method\":\"GET\"");
        flow(s, "egress_close", "out.test", "203.0.113.1", 443, bytes);
        g_autofree char *have = listed(s, &text);
        sm_cleanup(sm_suggestion_freep) struct sm_suggestion *g = sm_suggest_finish(s);
        assert_string_equal(have, "allow: out.test | passthrough:");
        if ((strstr(text, "WARNING") != NULL) != cases[i].warned ||
            (sm_suggestion_warning(g, 0) != NULL) != cases[i].warned)
            fail_msg("case %zu: %s", i, text);
    }
}

/** A connection that names nobody: each request's authority is judged, so it is listed. */
static void test_authorities(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);

    (void)state;
    flow(s, "egress_allow", NULL, "203.0.113.1", 8080, ",\"mitm\":false,\"classified\":\"h2\"");
    flow(s, "egress_http_request", NULL, "203.0.113.1", 8080, ",\"method\":\"GET\",\"authority\":\"h2c.test:8080\"");
    flow(s, "egress_http_request", NULL, "203.0.113.1", 8080, ",\"method\":\"GET\",\"authority\":\"203.0.113.1:8080\"");
    flow(s, "egress_http_request", NULL, "203.0.113.1", 8080, ",\"method\":\"GET\",\"authority\":\"\\\"\\n- x\"");
    assert_listed(s, "allow: h2c.test:8080 203.0.113.1:8080 | passthrough:");
}

/** Whatever stands in a record, only canonical text comes out. */
static void test_hostile_records(void **state)
{
    static const char *const hosts[] = {
        "evil.test\\\"\\n  - \\\".com",
        "evil.test # x",
        "a\\nallow: [.com]",
        "*.test",
        ".com",
        "",
        "..",
        "-",
        "\\u0000.test",
        "x\\u2028y.test",
        "{a: b}",
        "&a",
        "!!t",
        "a b",
        "\\u001b[31mred.test",
        "a:443",
        "0x7f.1",
        "xn--",
    };
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);
    g_autofree char *text = NULL;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(hosts); i++) {
        allow(s, hosts[i], "203.0.113.1", 443);
        flow(s, "egress_deny", hosts[i], "203.0.113.1", 443, ",\"reason\":\"unlisted_name\"");
        g_autofree char *dns = g_strdup_printf(",\"host\":\"%s\",\"rcode\":\"NOERROR\",\"records\":1", hosts[i]);
        record(s, "egress_dns_allow", dns);
    }
    record(s, "egress_allow", ",\"dst\":\"203.0.113.1\\n\",\"port\":443");
    record(s, "egress_allow", ",\"dst\":\"203.0.113.1\",\"port\":0");
    record(s, "egress_allow", ",\"dst\":\"203.0.113.1\",\"port\":65536");
    record(s, "egress_allow", ",\"dst\":\"203.0.113.1\",\"port\":\"443\"");
    record(s, "egress_allow", ",\"dst\":[],\"port\":443");
    record(s, "egress_allow", ",\"host\":7,\"dst\":\"203.0.113.1\",\"port\":443");
    record(s, "egress_allow", ",\"host\":\"ok.test\",\"dst\":\"203.0.113.1\",\"port\":443,\"rule\":{}");
    record(s, "egress_close",
           ",\"host\":\"ok.test\",\"dst\":\"203.0.113.1\",\"port\":443,\"bytes_up\":-5,\"bytes_down\":\"x\"");
    g_autofree char *have = listed(s, &text);
    for (const char *c = text; *c; c++)
        assert_true((*c >= 0x20 && *c < 0x7f) || *c == '\n');
    /* "-" and "xn--" are labels of legal letters. */
    assert_string_equal(have, "allow: - ok.test xn-- | passthrough:");
    assert_true(sm_suggest_counts(s).dropped >= 3 * (SM_ARRAY_LEN(hosts) - 2) + 6);
    assert_null(strstr(text, "evil"));
}

/** A guest that makes up names and ports fills its own share, and not the file. */
static void test_bounds(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = begin(GUARDED);
    g_autofree char *text = NULL;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        g_autofree char *name = g_strdup_printf("n%u.tunnel.test", i);
        g_autofree char *denied = g_strdup_printf("d%u.made-up.test", i);
        allow(s, name, "203.0.113.1", 443);
        flow(s, "egress_close", name, "203.0.113.1", 443, ",\"bytes_up\":10000,\"bytes_down\":1");
        flow(s, "egress_deny", denied, "203.0.113.1", 443, ",\"reason\":\"unlisted_name\"");
        allow(s, "ports.test", "203.0.113.1", 1000 + i);
    }
    allow(s, "good.test", "203.0.113.1", 443);
    flow(s, "egress_deny", "real.test", "203.0.113.1", 443, ",\"reason\":\"unlisted_name\"");
    g_autofree char *have = listed(s, &text);
    assert_string_equal(have, "allow: good.test ports.test .tunnel.test | passthrough:");
    assert_non_null(strstr(text, "\"real.test\""));
    assert_non_null(strstr(text, "and more"));
    assert_non_null(strstr(text, "WARNING")); /* all of them together took 20 MB out */
    assert_int_equal(sm_suggest_counts(s).candidates, 2000 - SM_SUGGEST_DENIED_DOMAIN_MAX);
    assert_int_equal(sm_suggest_counts(s).over, 0);
    for (unsigned i = 0; i < SM_SUGGEST_DOMAINS_MAX + 10; i++) {
        g_autofree char *name = g_strdup_printf("domain%u.test", i);
        allow(s, name, "203.0.113.1", 443);
    }
    assert_true(sm_suggest_counts(s).over > 0);
    g_autofree char *more = NULL;
    g_autofree char *again = listed(s, &more);
    assert_non_null(again);
    assert_non_null(strstr(more, "NOT ALLOWED"));
}

/** The same records in another order give the same file. */
static void test_order(void **state)
{
    sm_cleanup(sm_suggest_freep) struct sm_suggest *a = begin(GUARDED);
    sm_cleanup(sm_suggest_freep) struct sm_suggest *b = begin(GUARDED);
    g_autofree char *x = NULL, *y = NULL;
    enum { N = 50 };

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        for (unsigned k = 0; k < 2; k++) {
            unsigned n = k ? N - 1 - i : i;
            struct sm_suggest *s = k ? b : a;
            g_autofree char *name = g_strdup_printf("n%u.d%u.example", n % 7, n % 5);
            g_autofree char *addr = g_strdup_printf("203.0.113.%u", n);
            allow(s, name, addr, n % 3 ? 443 : 1000 + n);
            allow(s, NULL, addr, 80 + n % 2);
            flow(s, "egress_deny", name, addr, 9, ",\"reason\":\"deny_list\"");
            flow(s, "egress_allow", "in.test", n % 2 ? "10.0.0.5" : "10.0.0.4", 80, "INSIDE");
        }
    }
    g_autofree char *la = listed(a, &x), *lb = listed(b, &y);
    assert_string_equal(x, y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_names_and_ports),
        cmocka_unit_test(test_collapse),
        cmocka_unit_test(test_collapse_by_port),
        cmocka_unit_test(test_passthrough),
        cmocka_unit_test(test_opaque_is_no_passthrough),
        cmocka_unit_test(test_inside),
        cmocka_unit_test(test_lookups),
        cmocka_unit_test(test_denied_are_comments),
        cmocka_unit_test(test_much_out),
        cmocka_unit_test(test_authorities),
        cmocka_unit_test(test_hostile_records),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
