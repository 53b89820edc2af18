/* SPDX-License-Identifier: BSD-3-Clause */
/* The line builder: names, head, escaping, bounds. Every line that it makes is parsed by jansson, which is not ours. */
#include "helper.h"

static char line[SM_AUDIT_LINE_MAX];

static json_t *finish(const struct sm_audit_record *r, uint64_t seq)
{
    size_t n = sm_audit_format_line(line, r->event, r->wall_us, seq, "demo", r->fields, r->len, r->truncated);
    json_error_t error;
    assert_true(n <= SM_AUDIT_LINE_MAX);
    assert_int_equal(line[n - 1], '\n');
    assert_null(memchr(line, '\n', n - 1));
    json_t *json = json_loadb(line, n - 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %.*s", error.text, (int)n, line);
    return json;
}

static void test_names(void **state)
{
    for (unsigned i = 0; i < SM_AUDIT_EVENTS; i++) {
        enum sm_audit_event back = SM_AUDIT_EVENTS;
        const char *name = sm_audit_event_name((enum sm_audit_event)i);
        assert_true(sm_audit_event_parse(name, &back));
        assert_int_equal(back, i);
        assert_true(g_str_has_prefix(name, "egress_") || g_str_has_prefix(name, "ingress_") ||
                    g_str_has_prefix(name, "mediation_") || strcmp(name, "ca_delivered") == 0);
        assert_true(strlen(name) <= 27); /* what SM_AUDIT_HEAD_MAX reckons with */
    }
    enum sm_audit_event untouched = SM_AUDIT_EGRESS_STOP;
    assert_false(sm_audit_event_parse("egress_allow ", &untouched));
    assert_int_equal(untouched, SM_AUDIT_EGRESS_STOP);
    /* The contract's names, spec section 8. */
    static const char *const spec[] = {"egress_start",
                                       "egress_stop",
                                       "egress_allow",
                                       "egress_close",
                                       "egress_deny",
                                       "egress_internal_deny",
                                       "egress_dial_error",
                                       "egress_mitm_handshake_error",
                                       "egress_mitm_upstream_error",
                                       "egress_dns_allow",
                                       "egress_dns_deny",
                                       "egress_dns_error",
                                       "egress_udp_allow",
                                       "egress_udp_deny",
                                       "egress_udp_close",
                                       "egress_udp_internal_deny",
                                       "egress_cap_exceeded",
                                       "egress_loop_guard",
                                       "egress_http_request",
                                       "egress_http_response",
                                       "egress_swap",
                                       "egress_swap_error",
                                       "egress_other_deny",
                                       "ingress_accept",
                                       "ingress_close"};
    for (size_t i = 0; i < SM_ARRAY_LEN(spec); i++)
        assert_true(sm_audit_event_parse(spec[i], &untouched));
}

static void test_workspace_names(void **state)
{
    static const char *const good[] = {"a", "A9", "my.work_space-1", "0", "a.."};
    static const char *const bad[] = {"",    ".",    "..",  ".a",  "-a",       "_a",
                                      "a/b", "../a", "a b", "a\n", "\xc3\xa4", "a\x7f"};
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++)
        assert_true(sm_audit_name_valid(good[i]));
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        assert_false(sm_audit_name_valid(bad[i]));
    char name[65];
    memset(name, 'x', sizeof(name));
    name[63] = '\0';
    assert_true(sm_audit_name_valid(name));
    name[63] = 'x';
    name[64] = '\0';
    assert_false(sm_audit_name_valid(name));
}

static void test_timestamps(void **state)
{
    static const struct {
        int64_t us;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {T0, "2026-11-22T21:04:05.123456Z"},
        {INT64_C(951782400000000), "2000-02-29T00:00:00.000000Z"},
        {INT64_C(951868799999999), "2000-02-29T23:59:59.999999Z"},
        {INT64_C(951868800000000), "2000-03-01T00:00:00.000000Z"},
        {INT64_C(4107542400000000), "2100-03-01T00:00:00.000000Z"},
        {-1, "1970-01-01T00:00:00.000000Z"},
        {INT64_MIN, "1970-01-01T00:00:00.000000Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999999Z"},
    };
    char out[SM_AUDIT_TS_STRLEN];
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        sm_audit_format_ts(cases[i].us, out);
        assert_string_equal(out, cases[i].text);
    }
    /* Every day of 200 years against the C library. */
    for (int64_t day = 0; day < 73000; day++) {
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        char want[40];
        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.000007Z", &tm);
        sm_audit_format_ts((int64_t)t * 1000000 + 7, out);
        assert_string_equal(out, want);
    }
}

static void test_exact_line(void **state)
{
    struct sm_audit_record r;
    struct sm_audit_target t = {
        .flow = 7,
        .src = {sm_addr_v4(10, 0, 2, 15), 40000},
        .dst = {sm_addr_v4(203, 0, 113, 5), 443},
        .host = "ok.test",
        .host_len = 7,
        .name_source = "pin",
        .rule = ".test",
        .unlisted = false,
        .has_mitm = true,
    };
    sm_audit_begin(&r, SM_AUDIT_EGRESS_CLOSE, T0);
    sm_audit_add_target(&r, &t);
    sm_audit_add_uint(&r, "bytes_up", 12);
    sm_audit_add_int(&r, "delta", -3);
    sm_audit_add_endpoint(&r, "dialled", &t.dst);
    json_decref(finish(&r, 42));
    const char *want =
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":42,\"event\":\"egress_close\",\"workspace\":\"demo\",\"flow\":"
        "7,"
        "\"src\":\"10.0.2.15:40000\",\"dst\":\"203.0.113.5\",\"port\":443,\"host\":\"ok.test\",\"name_source\":\"pin\","
        "\"rule\":\".test\",\"unlisted\":false,\"internal\":false,\"mitm\":false,\"bytes_up\":12,\"delta\":-3,"
        "\"dialled\":\"203.0.113.5:443\"}\n";
    assert_memory_equal(line, want, strlen(want));
}

static void test_absent_values_are_left_out(void **state)
{
    struct sm_audit_record r;
    struct sm_audit_target none = {0};
    sm_audit_begin(&r, SM_AUDIT_EGRESS_DENY, T0);
    sm_audit_add_target(&r, &none);
    sm_audit_add_str(&r, "rule2", NULL);
    sm_audit_add_guest(&r, "host2", NULL, 5);
    static const char want[] = ",\"unlisted\":false,\"internal\":false"; /* these two are always there */
    assert_int_equal(r.len, sizeof(want) - 1);
    assert_memory_equal(r.fields, want, sizeof(want) - 1);
    assert_false(r.truncated);
}

static void test_numbers(void **state)
{
    struct sm_audit_record r;
    sm_audit_begin(&r, SM_AUDIT_EGRESS_CLOSE, T0);
    sm_audit_add_uint(&r, "max", UINT64_MAX);
    sm_audit_add_uint(&r, "near", (uint64_t)INT64_MAX);
    sm_audit_add_uint(&r, "over", (uint64_t)INT64_MAX + 1);
    sm_audit_add_int(&r, "min", INT64_MIN);
    sm_audit_add_int(&r, "zero", 0);
    sm_audit_add_bool(&r, "yes", true);
    json_t *j = finish(&r, SM_AUDIT_SEQ_MAX);
    assert_true(json_integer_value(json_object_get(j, "max")) == INT64_MAX);
    assert_true(json_integer_value(json_object_get(j, "near")) == INT64_MAX);
    assert_true(json_integer_value(json_object_get(j, "over")) == INT64_MAX);
    assert_true(json_integer_value(json_object_get(j, "min")) == INT64_MIN);
    assert_int_equal(json_integer_value(json_object_get(j, "zero")), 0);
    assert_true(json_is_true(json_object_get(j, "yes")));
    assert_true(json_integer_value(json_object_get(j, "seq")) == INT64_MAX - 1);
    json_decref(j);
}

/* Whatever a guest calls itself, there is one line, and a reader gets the text back without a byte that acts. */
static void test_injection(void **state)
{
    static const struct {
        const char *in;
        size_t len;
        const char *raw; /* as it stands between the quotes */
    } cases[] = {
        {"a\nb", 3, "a\\u000ab"},
        {"a\r\n{\"seq\":1}", 12, "a\\u000d\\u000a{\\\"seq\\\":1}"},
        {"q\"\\", 3, "q\\\"\\\\"},
        {"nul\0x", 5, "nul\\u0000x"},
        {"\x1b[2J", 4, "\\u001b[2J"},
        {"\x7f", 1, "\\u007f"},
        {"\xc2\x9b", 2, "\\u009b"},                  /* C1: CSI */
        {"\xe2\x80\xae", 3, "\\u202e"},              /* right-to-left override */
        {"\xe2\x80\xa8", 3, "\\u2028"},              /* line separator */
        {"\xc3\xa4", 2, "\xc3\xa4"},                 /* an ordinary letter passes */
        {"\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80"}, /* and one outside the BMP */
        {"\xf3\xa0\x80\x81", 4, "\\udb40\\udc01"},   /* a tag: pair of surrogates */
        {"\xff", 1, "\xef\xbf\xbd"},
        {"\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong slash */
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
        {"\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82", 2, "\xef\xbf\xbd\xef\xbf\xbd"}, /* cut off */
        {"\xe2\x82z", 3, "\xef\xbf\xbd\xef\xbf\xbdz"},
        {"", 0, ""},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_audit_record r;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_DENY, T0);
        sm_audit_add_guest(&r, "host", cases[i].in, cases[i].len);
        g_autofree char *want = g_strdup_printf(",\"host\":\"%s\"", cases[i].raw);
        assert_int_equal(r.len, strlen(want));
        assert_memory_equal(r.fields, want, r.len);
        assert_false(r.truncated);
        json_decref(finish(&r, 1));
    }
    /* Every byte and every pair of bytes. */
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            char two[2] = {(char)a, (char)b};
            struct sm_audit_record r;
            sm_audit_begin(&r, SM_AUDIT_EGRESS_DENY, T0);
            sm_audit_add_guest(&r, "host", two, 2);
            for (size_t i = 0; i < r.len; i++)
                assert_true((unsigned char)r.fields[i] >= 0x20 && r.fields[i] != 0x7f);
            assert_true(g_utf8_validate(r.fields, (gssize)r.len, NULL));
        }
    }
}

static void test_long_names_are_cut(void **state)
{
    enum { BIG = 65536 };
    g_autofree char *big = g_malloc(BIG);
    static const char *const units[] = {"x", "\x01", "\"", "\xff", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xe2\x80\xae"};
    for (size_t u = 0; u < SM_ARRAY_LEN(units); u++) {
        size_t n = strlen(units[u]);
        for (size_t i = 0; i < BIG; i++)
            big[i] = units[u][i % n];
        struct sm_audit_record r;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_DENY, T0);
        sm_audit_add_guest(&r, "host", big, BIG);
        sm_audit_add_guest_max(&r, "whole", big, BIG, SIZE_MAX);
        sm_audit_add_str(&r, "reason", "after");
        sm_audit_add_uint(&r, "bytes", 5);
        const char *strv[100];
        big[BIG - 1] = '\0';
        for (size_t i = 0; i < SM_ARRAY_LEN(strv); i++)
            strv[i] = big + BIG - 300;
        sm_audit_add_strv(&r, "answers", strv, SM_ARRAY_LEN(strv));
        assert_true(r.len <= SM_AUDIT_FIELDS_MAX);
        assert_true(r.truncated);
        json_t *j = finish(&r, 1);
        assert_true(json_is_true(json_object_get(j, "truncated")));
        const char *host = json_string_value(json_object_get(j, "host"));
        assert_non_null(host);
        assert_true(g_str_has_suffix(host, "\xe2\x80\xa6"));
        json_decref(j);
    }
}

/* At every fill level of the line each kind of field is either whole, cut, or left out, and the line stays JSON. */
static void test_every_fill_level(void **state)
{
    g_autofree char *fill = g_strnfill(SM_AUDIT_LINE_MAX, 'f');
    const char *answers[] = {"192.0.2.1", "\x01\x02\x03", "\xf0\x9f\x98\x80"};
    struct sm_endpoint ep = {sm_addr_v4(203, 0, 113, 5), 443};
    for (size_t left = 0; left < 160; left++) {
        struct sm_audit_record r;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR, T0);
        /* ,"f":"…" leaves exactly `left` bytes */
        sm_audit_add_guest_max(&r, "f", fill, SM_AUDIT_FIELDS_MAX - left - 7, SIZE_MAX);
        sm_audit_add_strv(&r, "answers", answers, SM_ARRAY_LEN(answers));
        sm_audit_add_guest(&r, "host", "\xe2\x80\xae\"x\\", 6);
        sm_audit_add_bool(&r, "b", false);
        sm_audit_add_int(&r, "i", INT64_MIN);
        sm_audit_add_endpoint(&r, "e", &ep);
        sm_audit_add_uint(&r, "u", 1);
        assert_true(r.len <= SM_AUDIT_FIELDS_MAX);
        json_t *j = finish(&r, SM_AUDIT_SEQ_MAX);
        if (!json_object_get(j, "u") || !json_object_get(j, "host"))
            assert_true(r.truncated);
        json_decref(j);
    }
}

static void test_strv(void **state)
{
    struct sm_audit_record r;
    const char *two[] = {"192.0.2.1", "a\nb"};
    sm_audit_begin(&r, SM_AUDIT_EGRESS_DNS_ALLOW, T0);
    sm_audit_add_strv(&r, "answers", two, 2);
    sm_audit_add_strv(&r, "none", NULL, 0);
    const char *want = ",\"answers\":[\"192.0.2.1\",\"a\\u000ab\"],\"none\":[]";
    assert_int_equal(r.len, strlen(want));
    assert_memory_equal(r.fields, want, r.len);
}

static void test_head_is_found_again(void **state)
{
    struct sm_audit_record r;
    uint64_t seq = 0;
    static const uint64_t seqs[] = {1, 9, 10, 4294967296, 999999999999999999, SM_AUDIT_SEQ_MAX};
    sm_audit_begin(&r, SM_AUDIT_EGRESS_START, T0);
    for (size_t i = 0; i < SM_ARRAY_LEN(seqs); i++) {
        json_decref(finish(&r, seqs[i]));
        assert_true(sm_audit_parse_head(line, sizeof(line), &seq));
        assert_true(seq == seqs[i]);
        for (size_t n = 0; n < 62; n++) /* cut anywhere in the head */
            assert_false(sm_audit_parse_head(line, n < 52 ? n : 51, &seq));
    }
    static const char *const bad[] = {
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":,\"event\":\"x",
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":9223372036854775807,\"event\":\"x",
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":99999999999999999999,\"event\":\"x",
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":-1,\"event\":\"x",
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":1 ,\"event\":\"x",
        " {\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":1,\"event\":\"x",
        "{\"seq\":1,\"ts\":\"2026-11-22T21:04:05.123456Z\",\"event\":\"x",
    };
    seq = 77;
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        assert_false(sm_audit_parse_head(bad[i], strlen(bad[i]), &seq));
    assert_true(seq == 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_workspace_names),
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_exact_line),
        cmocka_unit_test(test_absent_values_are_left_out),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_long_names_are_cut),
        cmocka_unit_test(test_every_fill_level),
        cmocka_unit_test(test_strv),
        cmocka_unit_test(test_head_is_found_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
