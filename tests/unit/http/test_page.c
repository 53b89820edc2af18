/* SPDX-License-Identifier: BSD-3-Clause */
/* Denial pages: what jansson reads from them is what was put in, and nothing of the guest's gets out of its string. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "http/page.h"

static const char *get(json_t *page, const char *name)
{
    json_t *value = json_object_get(page, name);
    assert_non_null(value);
    return json_string_value(value);
}

static void test_body(void **state)
{
    struct sm_http_page page = {
        .status = 421, .reason = "authority_mismatch", .host = {"a.test", 6}, .workspace = "run-1"};
    char text[SM_HTTP_PAGE_MAX];

    (void)state;
    size_t len = sm_http_page_body(&page, text, sizeof(text));
    assert_true(len > 0 && text[len - 1] == '\n');
    json_t *json = json_loadb(text, len, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_object_size(json), 5);
    assert_string_equal(get(json, "error"), "misdirected_request");
    assert_string_equal(get(json, "reason"), "authority_mismatch");
    assert_string_equal(get(json, "host"), "a.test");
    assert_string_equal(get(json, "workspace"), "run-1");
    assert_string_equal(get(json, "hint"), sm_http_page_hint("authority_mismatch"));
    json_decref(json);
    /* All or nothing. */
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(sm_http_page_body(&page, text, cap), 0);
    assert_int_equal(sm_http_page_body(&page, text, len), len);
}

static void test_absent(void **state)
{
    struct sm_http_page page = {.status = 403, .reason = "a_new_word"};
    char text[SM_HTTP_PAGE_MAX];

    (void)state;
    json_t *json = json_loadb(text, sm_http_page_body(&page, text, sizeof(text)), 0, NULL);
    assert_non_null(json);
    assert_true(json_is_null(json_object_get(json, "host")));
    assert_true(json_is_null(json_object_get(json, "workspace")));
    assert_true(json_is_null(json_object_get(json, "hint")));
    json_decref(json);
}

static void test_hostile_host(void **state)
{
    char host[600], text[SM_HTTP_PAGE_MAX];
    struct sm_http_page page = {.status = 403, .reason = "unlisted_name", .workspace = "w"};

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        memset(host, (int)c, sizeof(host));
        page.host = (struct sm_text){host, sizeof(host)};
        size_t len = sm_http_page_body(&page, text, sizeof(text));
        assert_true(len > 0);
        for (size_t i = 0; i + 1 < len; i++)
            assert_true((uint8_t)text[i] >= 0x20 && (uint8_t)text[i] < 0x7f && text[i] != '<');
        json_t *json = json_loadb(text, len, JSON_ALLOW_NUL, NULL);
        assert_non_null(json);
        json_t *value = json_object_get(json, "host");
        assert_int_equal(json_string_length(value), c < 0x80 ? 253 : 253 * 3);
        if (c < 0x80)
            assert_memory_equal(json_string_value(value), host, 253);
        json_decref(json);
    }
}

static void test_response(void **state)
{
    struct sm_http_page page = {.status = 502, .reason = "http_bare_lf", .host = {"a", 1}, .workspace = "w"};
    char body[SM_HTTP_PAGE_MAX], text[SM_HTTP_PAGE_MAX + SM_HTTP_PAGE_HEAD_MAX], want[2 * SM_HTTP_PAGE_MAX];

    (void)state;
    size_t body_len = sm_http_page_body(&page, body, sizeof(body));
    int n = snprintf(want, sizeof(want),
                     "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n%.*s",
                     body_len, (int)body_len, body);
    assert_int_equal(sm_http_page_response(&page, false, text, sizeof(text)), n);
    assert_memory_equal(text, want, (size_t)n);
    assert_int_equal(sm_http_page_response(&page, true, text, sizeof(text)), (size_t)n - body_len);
    assert_memory_equal(text, want, (size_t)n - body_len);
    assert_int_equal(sm_http_page_response(&page, false, text, 100), 0);
    /* Without a body, and a status that nobody knows. */
    size_t len = sm_http_page_wrap(499, NULL, 0, false, false, text, sizeof(text));
    text[len] = '\0';
    assert_string_equal(text, "HTTP/1.1 499 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

static void test_hints(void **state)
{
    (void)state;
    assert_null(sm_http_page_hint(NULL));
    assert_null(sm_http_page_hint(""));
    assert_null(sm_http_page_hint("a_new_word"));
    assert_non_null(strstr(sm_http_page_hint("unlisted_name"), "--egress-allow"));
    assert_non_null(strstr(sm_http_page_hint("client_certificate_required"), "--egress-passthrough"));
    assert_non_null(strstr(sm_http_page_hint("certificate_unknown_issuer"), "--egress-ca-file"));
    assert_non_null(sm_http_page_hint("certificate_expired"));
    /* Every word of the strict readers has one. */
    for (int i = 1; i < SM_HTTP_REJECT_COUNT; i++)
        assert_non_null(sm_http_page_hint(sm_http_reject_name((enum sm_http_reject)i)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_body),     cmocka_unit_test(test_absent), cmocka_unit_test(test_hostile_host),
        cmocka_unit_test(test_response), cmocka_unit_test(test_hints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
