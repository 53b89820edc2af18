/* SPDX-License-Identifier: BSD-3-Clause */
/* Values, formats, encodings and URLs: what may become a header, and what never does. */
#include "engine.h"

#include "cred/reason.h"
#include "cred/url.h"
#include "cred/value.h"

static void clean(const void *bytes, size_t len, enum sm_cred_reason want, const char *want_text)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *raw = secret_of(bytes, len);
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *got = NULL;

    assert_int_equal(sm_cred_value_clean(raw, &got), want);
    if (want_text)
        assert_secret(got, want_text);
    else
        assert_null(got);
}

static void test_clean(void **state)
{
    (void)state;
    clean("sk-1", 4, SM_CRED_OK, "sk-1");
    clean("sk-1\n", 5, SM_CRED_OK, "sk-1");
    clean("sk-1\r\n", 6, SM_CRED_OK, "sk-1");
    clean("sk-1\n\n", 6, SM_CRED_OK, "sk-1\n"); /* one only: a header will refuse the other */
    clean("sk-1\r", 5, SM_CRED_OK, "sk-1\r");
    clean("\nsk-1", 5, SM_CRED_OK, "\nsk-1");
    clean("", 0, SM_CRED_VALUE_EMPTY, NULL);
    clean("\n", 1, SM_CRED_VALUE_EMPTY, NULL);
    clean("\r\n", 2, SM_CRED_VALUE_EMPTY, NULL);
    clean("a\0b", 3, SM_CRED_VALUE_INVALID, NULL);
    clean("\0", 1, SM_CRED_VALUE_INVALID, NULL);

    char *large = malloc(SM_CRED_SECRET_MAX + 2);
    memset(large, 'k', SM_CRED_SECRET_MAX + 1);
    large[SM_CRED_SECRET_MAX + 1] = '\0';
    clean(large, SM_CRED_SECRET_MAX + 1, SM_CRED_VALUE_TOO_LARGE, NULL);
    large[SM_CRED_SECRET_MAX] = '\n';
    char *exact = strndup(large, SM_CRED_SECRET_MAX);
    clean(large, SM_CRED_SECRET_MAX + 1, SM_CRED_OK, exact);
    free(exact);
    free(large);
}

static enum sm_cred_reason header(const void *bytes, size_t len, const char *format, const char *slot, char **ret)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *raw = secret_of(bytes, len);
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *got = NULL;
    enum sm_cred_reason reason = sm_cred_value_header(raw, format, slot, &got);

    assert_int_equal(reason == SM_CRED_OK, got != NULL);
    *ret = got ? text_of(got) : NULL;
    return reason;
}

static void test_header(void **state)
{
    const struct {
        const char *secret, *format, *slot, *want;
    } good[] = {
        {"sk-1", "Bearer {key}", "{key}", "Bearer sk-1"},   {"sk-1", "{key}", "{key}", "sk-1"},
        {"eyJ.a.b", "{token}", "{token}", "eyJ.a.b"},       {"a b", "x{key}y", "{key}", "xa by"},
        {"{key}", "Bearer {key}", "{key}", "Bearer {key}"}, /* what was put in is not read again */
    };
    char *got;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        assert_int_equal(header(good[i].secret, strlen(good[i].secret), good[i].format, good[i].slot, &got),
                         SM_CRED_OK);
        assert_string_equal(got, good[i].want);
        free(got);
    }
    /* Every byte: visible ASCII anywhere, a blank inside only, nothing else. */
    for (unsigned c = 0; c < 256; c++) {
        uint8_t at_end[3] = {'a', 'b', (uint8_t)c}, inside[3] = {'a', (uint8_t)c, 'b'}, first[2] = {(uint8_t)c, 'a'};
        bool visible = c > ' ' && c < 0x7f;
        assert_int_equal(header(at_end, 3, "{key}", "{key}", &got), visible ? SM_CRED_OK : SM_CRED_VALUE_INVALID);
        free(got);
        assert_int_equal(header(first, 2, "{key}", "{key}", &got), visible ? SM_CRED_OK : SM_CRED_VALUE_INVALID);
        free(got);
        assert_int_equal(header(inside, 3, "{key}", "{key}", &got),
                         visible || c == ' ' ? SM_CRED_OK : SM_CRED_VALUE_INVALID);
        free(got);
    }
    assert_int_equal(header("", 0, "Bearer {key}", "{key}", &got), SM_CRED_VALUE_EMPTY);
    char *large = malloc(SM_CRED_TOKEN_MAX + 1);
    memset(large, 'k', SM_CRED_TOKEN_MAX + 1);
    assert_int_equal(header(large, SM_CRED_TOKEN_MAX + 1, "{key}", "{key}", &got), SM_CRED_VALUE_TOO_LARGE);
    assert_int_equal(header(large, SM_CRED_TOKEN_MAX, "Bearer {key}", "{key}", &got), SM_CRED_OK);
    assert_int_equal(strlen(got), SM_CRED_TOKEN_MAX + 7);
    free(got);
    free(large);
}

static void test_format(void **state)
{
    GError *error = NULL;
    char longest[SM_CRED_FORMAT_MAX + 8];

    (void)state;
    assert_true(sm_cred_format_check("Bearer {key}", "{key}", &error));
    assert_true(sm_cred_format_check("{token}", "{token}", &error));
    assert_null(error);
    assert_false(sm_cred_format_check("Bearer", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "{key} exactly once");
    assert_false(sm_cred_format_check("{key}{key}", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "{key} exactly once");
    assert_false(sm_cred_format_check("{token}", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "{key} exactly once");
    assert_false(sm_cred_format_check("{key} {token}", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "has {token}");
    assert_false(sm_cred_format_check("a\r\nX: {key}", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "visible ASCII");
    assert_false(sm_cred_format_check(" {key}", "{key}", &error));
    assert_error(&error, SM_ERROR_INVALID, "visible ASCII");
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "{key}", 5);
    longest[SM_CRED_FORMAT_MAX] = '\0';
    assert_true(sm_cred_format_check(longest, "{key}", &error));
    longest[SM_CRED_FORMAT_MAX] = 'a';
    longest[SM_CRED_FORMAT_MAX + 1] = '\0';
    assert_false(sm_cred_format_check(longest, "{key}", &error));
    assert_error(&error, SM_ERROR_LIMIT, "longer than");
}

static void test_encodings(void **state)
{
    /* RFC 4648 10, and the two letters that differ. */
    const struct {
        const char *in, *plain, *url;
    } cases[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xef\xff", "++//", "--__"},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_cred_text a = sm_cred_text_init(64), b = sm_cred_text_init(64);
        sm_cred_text_base64(&a, cases[i].in, strlen(cases[i].in));
        sm_cred_text_str(&b, "+/="); /* what stood there is left alone */
        sm_cred_text_base64url(&b, cases[i].in, strlen(cases[i].in));
        assert_int_equal(a.len, strlen(cases[i].plain));
        assert_memory_equal(a.data ? (char *)a.data : "", cases[i].plain, a.len);
        assert_int_equal(b.len, 3 + strlen(cases[i].url));
        assert_memory_equal(b.data, "+/=", 3);
        assert_memory_equal(b.data + 3, cases[i].url, b.len - 3);
        sm_cred_text_clear(&a);
        sm_cred_text_clear(&b);
    }
    struct sm_cred_text t = sm_cred_text_init(256);
    sm_cred_text_form(&t, "aZ09-._~* +&=%/:\0\xc3\xa9\r\n", 21);
    struct sm_secret *s = sm_cred_text_secret(&t);
    assert_secret(s, "aZ09-._~*+%2B%26%3D%25%2F%3A%00%C3%A9%0D%0A");
    sm_secret_free(s);
    t = sm_cred_text_init(256);
    sm_cred_text_percent(&t, "aZ09-._~* +/%", 13);
    s = sm_cred_text_secret(&t);
    assert_secret(s, "aZ09-._~%2A%20%2B%2F%25");
    sm_secret_free(s);
}

static void test_text_bound(void **state)
{
    struct sm_cred_text t = sm_cred_text_init(3000);

    (void)state;
    for (int i = 0; i < 3000; i++)
        sm_cred_text_add(&t, "x", 1);
    assert_false(t.bad);
    assert_true(t.cap <= 3000);
    sm_cred_text_add(&t, "", 0);
    assert_false(t.bad);
    sm_cred_text_add(&t, "x", 1);
    assert_true(t.bad);
    assert_int_equal(t.len, 3000);
    assert_null(sm_cred_text_secret(&t));
    assert_null(t.data);
}

static void test_url(void **state)
{
    const struct {
        const char *url;
        bool tls, loopback;
        const char *host;
        uint16_t port;
        const char *path;
    } good[] = {
        {"https://auth.example.com/oauth/token", true, false, "auth.example.com", 443, "/oauth/token"},
        {"HTTPS://Auth.Example.COM", true, false, "auth.example.com", 443, ""},
        {"https://auth.example.com:8443?x=1", true, false, "auth.example.com", 8443, "?x=1"},
        {"https://203.0.113.7/t@b", true, false, "203.0.113.7", 443, "/t@b"},
        {"http://127.0.0.1:8200", false, true, "127.0.0.1", 8200, ""},
        {"http://127.9.8.7/", false, true, "127.9.8.7", 80, "/"},
        {"http://[::1]:8200/v", false, true, "::1", 8200, "/v"},
        {"http://localhost:8200/v", false, true, "localhost", 8200, "/v"},
        {"https://localhost/", true, true, "localhost", 443, "/"},
    };
    const struct {
        const char *url, *why;
    } bad[] = {
        {"", "must begin with https"},
        {"ftp://a.example/", "must begin with https"},
        {"//a.example/", "must begin with https"},
        {"https://", "host or port"},
        {"https:///token", "host or port"},
        {"https://a.example:0/", "host or port"},
        {"https://a.example:65536/", "host or port"},
        {"https://0x7f.1/", "host or port"},
        {"https://a_b..example/", "host or port"},
        {"http://a.example/", "must be https"},
        {"http://10.0.0.1/", "must be https"},
        {"http://128.0.0.1/", "must be https"},
        {"http://localhost.example/", "must be https"},
        {"http://[::2]/", "must be https"},
        {"http://[::ffff:127.0.0.1]/", "must be https"},
        {"https://user:hunter2@a.example/", "user or password"},
        {"http://127.0.0.1@a.example/", "user or password"},
        {"https://a.example/#x", "fragment"},
        {"https://a.example\\@b.example/", "percent-encoded"},
        {"https://a.example/ x", "percent-encoded"},
        {"https://a.example/\r\nX: y", "percent-encoded"},
        {"https://a.example/\xc3\xa9", "percent-encoded"},
    };
    GError *error = NULL;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        struct sm_cred_url url;
        assert_true(sm_cred_url_parse(good[i].url, &url, &error));
        assert_int_equal(url.tls, good[i].tls);
        assert_int_equal(url.loopback, good[i].loopback);
        assert_string_equal(url.host.name, good[i].host);
        assert_int_equal(url.host.port, good[i].port);
        assert_string_equal(url.path, good[i].path);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        assert_false(sm_cred_url_parse(bad[i].url, NULL, &error));
        assert_null(strstr(error->message, "hunter2"));
        assert_error(&error, SM_ERROR_INVALID, bad[i].why);
    }
    char *large = g_strnfill(SM_CRED_URL_MAX + 1, 'a');
    memcpy(large, "https://a/", 10);
    assert_false(sm_cred_url_parse(large, NULL, &error));
    assert_error(&error, SM_ERROR_INVALID, "longer than 2048");
    large[SM_CRED_URL_MAX] = '\0';
    assert_true(sm_cred_url_parse(large, NULL, &error));
    g_free(large);
}

static void test_reason_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SM_CRED_REASONS; i++) {
        const char *name = sm_cred_reason_name((enum sm_cred_reason)i);
        assert_non_null(name);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(name, sm_cred_reason_name((enum sm_cred_reason)k));
    }
    assert_string_equal(sm_cred_reason_name(SM_CRED_REASONS), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),        cmocka_unit_test(test_header),     cmocka_unit_test(test_format),
        cmocka_unit_test(test_encodings),    cmocka_unit_test(test_text_bound), cmocka_unit_test(test_url),
        cmocka_unit_test(test_reason_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
