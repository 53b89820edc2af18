/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Heads that a proxy's clients send: what is taken and for whom, what is refused and for which reason, and what goes
 * on to the origin.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "http/proxy.h"

static struct sm_proxy_head feed(const char *text)
{
    struct sm_proxy_head h, cut;
    size_t len = strlen(text);

    sm_proxy_head_init(&h);
    (void)sm_proxy_head_feed(&h, (const uint8_t *)text, len);
    /* However the bytes are cut, the answer is the same. */
    sm_proxy_head_init(&cut);
    for (size_t n = 0; n <= len; n++)
        (void)sm_proxy_head_feed(&cut, (const uint8_t *)text, n);
    assert_int_equal(h.status, cut.status);
    assert_int_equal(h.reject, cut.reject);
    assert_int_equal(h.http, cut.http);
    assert_int_equal(h.consumed, cut.consumed);
    return h;
}

static void assert_span(const char *text, struct sm_http_span s, const char *want)
{
    assert_int_equal(s.len, strlen(want));
    assert_memory_equal(text + s.off, want, s.len);
}

static void connect_names_its_destination(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "example.com", 443},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: Example.Com\r\nUser-Agent: x\r\n\r\n", "example.com", 443},
        {"CONNECT example.com:443 HTTP/1.0\r\n\r\n", "example.com", 443},
        {"CONNECT EXAMPLE.com:1 HTTP/1.1\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive\r\n\r\n",
         "EXAMPLE.com", 1},
        {"CONNECT 203.0.113.5:65535 HTTP/1.1\r\n\r\n", "203.0.113.5", 65535},
        {"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", "2001:db8::1", 443},
        {"CONNECT 2130706433:80 HTTP/1.1\r\n\r\n", "2130706433", 80}, /* the core says what that is */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        struct sm_proxy_head h = feed(good[i].text);
        assert_int_equal(h.status, SM_PROXY_CONNECT);
        assert_int_equal(h.consumed, strlen(good[i].text));
        assert_span(good[i].text, h.host, good[i].host);
        assert_int_equal(h.port, good[i].port);
        assert_false(h.has_auth);
    }
}

static void what_follows_a_connect_is_the_tunnels(void **state)
{
    static const char text[] = "CONNECT a.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01";
    struct sm_proxy_head h = feed(text);

    assert_int_equal(h.status, SM_PROXY_CONNECT);
    assert_int_equal(h.consumed, sizeof(text) - 1 - 3);
}

static void what_is_refused(void **state)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"CONNECT example.com HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com: HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com:0 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com:65536 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com:0443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com:443:443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT u@example.com:443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT http://example.com:443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT /x HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT  HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT [::1:443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT [192.0.2.1]:443 HTTP/1.1\r\n\r\n", "proxy_authority"}, /* brackets are IPv6's */
        {"CONNECT [dead.beef]:443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT :443 HTTP/1.1\r\n\r\n", "proxy_authority"},
        {"CONNECT example.com:443  HTTP/1.1\r\n\r\n", "http_request_line"},
        {"CONNECT example.com:443\r\n\r\n", "http_request_line"},
        {"CONNECT example.com:443 HTTP/2.0\r\n\r\n", "http_version"},
        {"CONNECT example.com:443 HTTP/1.1\n\n", "http_bare_lf"},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: other.com:443\r\n\r\n", "http_host_mismatch"},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:80\r\n\r\n", "http_host_mismatch"},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.co\r\n\r\n", "http_host_mismatch"},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nHost: example.com\r\n\r\n", "http_host_repeated"},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost : example.com\r\n\r\n", "http_space_before_colon"},
        {"CONNECT example.com:443 HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "http_folded_line"},
        {"CONNECT example.com:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "proxy_connect_body"},
        {"CONNECT example.com:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "proxy_connect_body"},
        {"CONNECT example.com:443 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "proxy_connect_body"},
        {"CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic YQ==\r\nProxy-Authorization: Basic "
         "YQ==\r\n\r\n",
         "proxy_authorization"},
        {"CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic a b\r\n\r\n", "proxy_authorization"},
        {"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "proxy_origin_form"},
        {"OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", "proxy_origin_form"},
        {"GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "proxy_https_target"},
        {"GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "http_target"},
        {"GET http://u:p@example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "http_target"},
        {"GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433\r\n\r\n", "http_target"},
        {"GET http://0x7f.1/ HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", "http_target"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", "http_host_mismatch"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test:81\r\n\r\n", "http_host_mismatch"},
        {"GET http://a.test/ HTTP/1.1\r\n\r\n", "http_host_missing"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Authorization\r\n\r\n", "proxy_connection"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "http_content_length_and_transfer_encoding"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "proxy_not_http"},
        {"\x16\x03\x01\x02\x00", "proxy_not_http"},
        {"\x05\x01\x00", "proxy_not_http"}, /* SOCKS */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct sm_proxy_head h = feed(bad[i].text);
        if (h.status != SM_PROXY_REJECT || strcmp(sm_proxy_reject_name(&h), bad[i].word) != 0)
            fail_msg("%s: %s %s, not %s", bad[i].text, sm_proxy_status_name(h.status), sm_proxy_reject_name(&h),
                     bad[i].word);
    }
}

static void credentials_are_found(void **state)
{
    static const char text[] =
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nproxy-authorization:  basic  dXNlcjpwYXNz \r\n\r\n";
    struct sm_proxy_head h = feed(text);

    assert_int_equal(h.status, SM_PROXY_FORWARD);
    assert_true(h.has_auth);
    assert_span(text, h.auth, "dXNlcjpwYXNz");
    h = feed("CONNECT a.test:443 HTTP/1.1\r\nProxy-Authorization: Negotiate abc\r\n\r\n");
    assert_int_equal(h.status, SM_PROXY_CONNECT);
    assert_false(h.has_auth);
}

static void what_goes_on(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"GET http://a.test/x?y=z HTTP/1.1\r\nHost: a.test\r\nProxy-Connection: keep-alive\r\n"
         "Proxy-Authorization: Basic YTpi\r\nAccept: */*\r\nTE: trailers\r\nConnection: TE, keep-alive\r\n\r\n",
         "GET /x?y=z HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nConnection: close\r\n\r\n"},
        {"GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"},
        {"GET http://a.test?q HTTP/1.1\r\nHost: a.test:80\r\n\r\n",
         "GET /?q HTTP/1.1\r\nHost: a.test:80\r\nConnection: close\r\n\r\n"},
        {"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
         "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"},
        {"GET HTTP://A.test:8080/ HTTP/1.0\r\nX: y\r\n\r\n",
         "GET / HTTP/1.0\r\nHost: A.test:8080\r\nX: y\r\nConnection: close\r\n\r\n"},
        {"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
         "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
         "Connection: Upgrade, HTTP2-Settings\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"},
    };
    uint8_t out[2048];

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_proxy_head h = feed(rows[i].text);
        assert_int_equal(h.status, SM_PROXY_FORWARD);
        size_t len = sm_proxy_head_rewrite(&h, (const uint8_t *)rows[i].text, out, sizeof(out));
        assert_int_equal(len, strlen(rows[i].want));
        assert_memory_equal(out, rows[i].want, len);
        assert_true(len <= h.consumed + SM_PROXY_REWRITE_MORE);
        for (size_t cap = 0; cap < len; cap++)
            assert_int_equal(sm_proxy_head_rewrite(&h, (const uint8_t *)rows[i].text, out, cap), 0);
        /* What an origin is sent is one head, as strict as any. */
        struct sm_http_head again;
        len = sm_proxy_head_rewrite(&h, (const uint8_t *)rows[i].text, out, sizeof(out));
        sm_http_head_init(&again);
        assert_int_equal(sm_http_head_feed(&again, out, len), SM_HTTP_HTTP1);
        assert_int_equal(again.consumed, len);
    }
}

static void heads_have_an_end(void **state)
{
    static uint8_t big[SM_HTTP_HEAD_MAX + 16];
    struct sm_proxy_head h;

    memset(big, 'a', sizeof(big));
    memcpy(big, "CONNECT ", 8);
    sm_proxy_head_init(&h);
    assert_int_equal(sm_proxy_head_feed(&h, big, SM_PROXY_CONNECT_MAX - 1), SM_PROXY_NEED_MORE);
    assert_int_equal(sm_proxy_head_feed(&h, big, SM_PROXY_CONNECT_MAX), SM_PROXY_REJECT);
    assert_int_equal(h.http, SM_HTTP_REJECT_TOO_LARGE);
    memcpy(big, "GET http://a/", 13);
    sm_proxy_head_init(&h);
    assert_int_equal(sm_proxy_head_feed(&h, big, sizeof(big)), SM_PROXY_REJECT);
    assert_int_equal(h.http, SM_HTTP_REJECT_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connect_names_its_destination),
        cmocka_unit_test(what_follows_a_connect_is_the_tunnels),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(credentials_are_found),
        cmocka_unit_test(what_goes_on),
        cmocka_unit_test(heads_have_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
