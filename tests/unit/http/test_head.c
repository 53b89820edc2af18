/* SPDX-License-Identifier: BSD-3-Clause */
/* Every sample is fed whole, byte by byte, and cut in two at every place: the answer has to be the same each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "http/head.h"

#define NONE SM_HTTP_REJECT_NONE

struct sample {
    const char *name;
    const char *text;
    size_t len; /* 0: strlen */
    enum sm_http_status status;
    enum sm_http_reject reject;
    enum sm_http_maybe maybe; /* checked for NEED_MORE */
    const char *host;         /* HTTP1 */
    uint16_t port;
};

#define MORE(text, maybe)                                                                                              \
    {                                                                                                                  \
        text, text, 0, SM_HTTP_NEED_MORE, NONE, maybe, NULL, 0                                                         \
    }
#define NOT(text)                                                                                                      \
    {                                                                                                                  \
        text, text, 0, SM_HTTP_NOT_HTTP, NONE, SM_HTTP_MAYBE_EMPTY, NULL, 0                                            \
    }
#define NOTB(text)                                                                                                     \
    {                                                                                                                  \
        text, text, sizeof(text) - 1, SM_HTTP_NOT_HTTP, NONE, SM_HTTP_MAYBE_EMPTY, NULL, 0                             \
    }
#define BAD(text, why)                                                                                                 \
    {                                                                                                                  \
        text, text, 0, SM_HTTP_REJECT, SM_HTTP_REJECT_##why, SM_HTTP_MAYBE_EMPTY, NULL, 0                              \
    }
#define BADB(text, why)                                                                                                \
    {                                                                                                                  \
        text, text, sizeof(text) - 1, SM_HTTP_REJECT, SM_HTTP_REJECT_##why, SM_HTTP_MAYBE_EMPTY, NULL, 0               \
    }
#define OK(text, host, port)                                                                                           \
    {                                                                                                                  \
        text, text, 0, SM_HTTP_HTTP1, NONE, SM_HTTP_MAYBE_LINE, host, port                                             \
    }

#define G "GET / HTTP/1.1\r\n"
#define GH "GET / HTTP/1.1\r\nHost: ok.test\r\n"

static const struct sample samples[] = {
    /* What is too short to tell. */
    MORE("", SM_HTTP_MAYBE_EMPTY),
    MORE("G", SM_HTTP_MAYBE_TOKEN),
    MORE("GE", SM_HTTP_MAYBE_TOKEN),
    MORE("SSH-2.0-OpenSSH_9.2p1", SM_HTTP_MAYBE_TOKEN),
    MORE("GET ", SM_HTTP_MAYBE_METHOD),
    MORE("GET / HTTP/1.1", SM_HTTP_MAYBE_METHOD),
    MORE("EHLO mail.test", SM_HTTP_MAYBE_METHOD),
    MORE("P", SM_HTTP_MAYBE_TOKEN),
    MORE("PRI ", SM_HTTP_MAYBE_METHOD),
    MORE("PRI * HTTP/2.0\r\n", SM_HTTP_MAYBE_LINE),
    MORE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", SM_HTTP_MAYBE_LINE),
    MORE(G, SM_HTTP_MAYBE_LINE),
    MORE(GH, SM_HTTP_MAYBE_LINE),
    MORE(GH "\r", SM_HTTP_MAYBE_LINE),
    MORE(GH "X: y\r\nZ", SM_HTTP_MAYBE_LINE),

    /* What is no HTTP. */
    NOT("\x16\x03\x01"),
    NOT("\xff"),
    NOT(" get key\r\n"),
    NOT(" GET key\r\n"),
    NOT(" \x01"),
    NOT("\x0bword"),
    NOT("\xa0\xa0WORD"),
    NOT("GET\x0bkey\r\n"),
    NOT("WORD \x0bkey"),
    NOT("WORD \x0b\x0bHTTX"),
    NOT("POST /path\r\n"),
    NOT("WORD /path\r\n"),
    NOT("SSH-2.0-OpenSSH_9.2p1\r\n"),
    NOT("HTTP/1.1 200 OK\r\n"),
    NOT("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"),
    NOT("EHLO mail.test\r\n"),
    NOT("get key\r\n"),
    NOT("GET key\r\n"),
    NOT("GET\r\n"),
    NOT("*1\r\n$4\r\nPING\r\n"),
    NOT("{\"jsonrpc\":\"2.0\"}"),
    NOT("WORD \x01\x02"),
    NOT("WORD \xc3"),
    NOT("USER\tx"),
    NOTB("\0\0\0\x2b\xff\x53MB"),
    NOTB("AMQP\0\0\x09\x01"),

    /* Good ones. */
    OK(GH "\r\n", "ok.test", 0),
    OK(GH "\r\nbody that is not ours", "ok.test", 0),
    OK("GET / HTTP/1.1\r\nhOsT:ok.test:8080\r\n\r\n", "ok.test", 8080),
    OK("GET / HTTP/1.1\r\nHost: \t ok.test \t\r\n\r\n", "ok.test", 0),
    OK("GET / HTTP/1.0\r\n\r\n", NULL, 0),
    OK("GET / HTTP/1.0\r\nHost: OK.test.\r\n\r\n", "OK.test.", 0),
    OK("OPTIONS * HTTP/1.1\r\nHost: ok.test\r\n\r\n", "ok.test", 0),
    OK("GET http://ok.test/x HTTP/1.1\r\nHost: OK.TEST\r\n\r\n", "OK.TEST", 0),
    OK("GET http://ok.test HTTP/1.1\r\nHost: ok.test:80\r\n\r\n", "ok.test", 80),
    OK("GET HTTPS://ok.test:443?q=/ HTTP/1.1\r\nHost: ok.test\r\n\r\n", "ok.test", 0),
    OK("GET http://ok.test:8000/ HTTP/1.0\r\n\r\n", "ok.test", 8000),
    OK("M-SEARCH / HTTP/1.1\r\nHost: a_b.test\r\n\r\n", "a_b.test", 0),
    OK("GET / HTTP/1.1\r\nHost: 203.0.113.1:81\r\n\r\n", "203.0.113.1", 81),
    OK("GET / HTTP/1.1\r\nHost: [2001:db8::1]:82\r\n\r\n", "2001:db8::1", 82),
    OK("GET / HTTP/1.1\r\nHost: xn--bcher-kva.test\r\nX:\r\nY: \xc3\xa9\ta\r\n\r\n", "xn--bcher-kva.test", 0),
    OK("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", "a", 0),
    OK("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "a", 0),
    OK(GH "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", "ok.test", 0),
    OK(GH "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "ok.test",
       0),
    OK(GH "UPGRADE:H2C\r\n\r\n", "ok.test", 0),
    OK(GH "Upgrade: h2c , \th2C\r\nhttp2-settings: -_+/~.09aZ==\r\nupgrade: \t h2c \r\n\r\n", "ok.test", 0),
    OK(GH "Connection: TE, x-hosts, close\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n", "ok.test", 0),

    /* The first line. */
    BAD("\r\nGET / HTTP/1.1\r\n", LEADING_CRLF),
    BAD("\nGET / HTTP/1.1\r\n", LEADING_CRLF),
    BAD("GET  / HTTP/1.1\r\n", REQUEST_LINE),
    BAD("FOO  / HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET /  HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET / x HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET / HTTP/1.1 \r\n", REQUEST_LINE),
    BAD("GET\t/ HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET /\tHTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET / http/1.1\r\n", REQUEST_LINE),
    BAD("GET / HTTP/1.10\r\n", REQUEST_LINE),
    BAD("GET / HTTP/11\r\n", REQUEST_LINE),
    BAD("GET /\xc3\xa9 HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET HTTP/1.1\r\n", REQUEST_LINE),
    BADB("GET /\0 HTTP/1.1\r\n", CONTROL),
    BAD("GET /\x7f HTTP/1.1\r\n", CONTROL),
    BAD("GET /\rx HTTP/1.1\r\n", BARE_CR),
    BAD("GET / HTTP/1.1\n", BARE_LF),
    BAD("GET / HTTP/1.2\r\n", VERSION),
    BAD("GET / HTTP/2.0\r\n", VERSION),
    BAD("GET / HTTP/0.9\r\n", VERSION),
    BAD("PRI * HTTP/2.0\r\nHost: a\r\n", PREFACE),
    BAD("PRI * HTTP/2.0\r\n\r\nSX", PREFACE),
    BAD("PRI * HTTP/2.0\n", BARE_LF),
    BAD("PRI * HTTP/1.1\r\n", TARGET),

    /* White space of other kinds is white space to somebody: Python's http.server takes each of these. */
    BAD(" GET / HTTP/1.1\r\n", REQUEST_LINE),
    BAD("\t GET / HTTP/1.1\r\n", REQUEST_LINE),
    BAD("\x0bGET / HTTP/1.1\r\n", REQUEST_LINE),
    BAD("\x85\xa0POST / HTTP/1.1\r\n", REQUEST_LINE),
    BAD(" \r\n", LEADING_CRLF),
    BAD("GET\x0b/ HTTP/1.1\r\n", CONTROL),
    BAD("GET\xa0/ HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET\r/ HTTP/1.1\r\n", BARE_CR),
    BAD("GET /\x0bHTTP/1.1\r\n", CONTROL),
    BAD("GET /\x0cHTTP/1.1\r\n", CONTROL),
    BAD("GET /\x1fHTTP/1.1\r\n", CONTROL),
    BAD("GET /\rHTTP/1.1\r\n", BARE_CR),
    BAD("GET /\x85HTTP/1.1\r\n", REQUEST_LINE),
    BAD("GET /\xa0HTTP/1.1\r\n", REQUEST_LINE),
    BAD("FOO /\x0bHTTP/1.1", REQUEST_LINE),
    BAD("FOO /\xa0\x0bhttp/1.1", REQUEST_LINE),
    BAD("FOO /\rHTTP/1.1\r\n", BARE_CR),
    /* HTTP/0.9; behind its line Python's http.server looks for Host. */
    BAD("GET /\r\n", REQUEST_LINE),
    BAD("GET /path\n", REQUEST_LINE),
    BAD(" GET\x0b/path\r\n", REQUEST_LINE),
    BAD("GET http://evil.test/\r\n", REQUEST_LINE),

    /* The target. */
    BAD("CONNECT ok.test:443 HTTP/1.1\r\n", CONNECT),
    BAD("CONNECT / HTTP/1.1\r\n", CONNECT),
    BAD("GET ok.test:443 HTTP/1.1\r\n", TARGET),
    BAD("GET * HTTP/1.1\r\n", TARGET),
    BAD("GET ftp://ok.test/ HTTP/1.1\r\n", TARGET),
    BAD("GET http:///x HTTP/1.1\r\n", TARGET),
    BAD("GET http://u@ok.test/ HTTP/1.1\r\n", TARGET),
    BAD("GET http://ok.test:/ HTTP/1.1\r\n", TARGET),
    BAD("GET http://ok.test\\@evil.test/ HTTP/1.1\r\n", TARGET),
    BAD("GET /#x HTTP/1.1\r\n", TARGET),

    /* Host. */
    BAD(G "\r\n", HOST_MISSING),
    BAD("GET http://ok.test/ HTTP/1.1\r\n\r\n", HOST_MISSING),
    BAD(GH "Host: ok.test\r\n", HOST_REPEATED),
    BAD("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n", HOST_REPEATED),
    BAD(G "Host:\r\n", HOST_INVALID),
    BAD(G "Host: a b\r\n", HOST_INVALID),
    BAD(G "Host: a,b\r\n", HOST_INVALID),
    BAD(G "Host: a/b\r\n", HOST_INVALID),
    BAD(G "Host: u@a\r\n", HOST_INVALID),
    BAD(G "Host: a%2eb\r\n", HOST_INVALID),
    BAD(G "Host: \xef\xbc\x8e\r\n", HOST_INVALID),
    BAD(G "Host: a..b\r\n", HOST_INVALID),
    BAD(G "Host: .\r\n", HOST_INVALID),
    BAD(G "Host: a:\r\n", HOST_INVALID),
    BAD(G "Host: a:0\r\n", HOST_INVALID),
    BAD(G "Host: a:080\r\n", HOST_INVALID),
    BAD(G "Host: a:65536\r\n", HOST_INVALID),
    BAD(G "Host: a:8x\r\n", HOST_INVALID),
    BAD(G "Host: 127.1\r\n", HOST_INVALID),
    BAD(G "Host: 2130706433\r\n", HOST_INVALID),
    BAD(G "Host: 0x7f.0.0.0x1\r\n", HOST_INVALID),
    BAD(G "Host: 0177.0.0.1\r\n", HOST_INVALID),
    BAD(G "Host: 127.0.0.1.\r\n", HOST_INVALID),
    BAD(G "Host: 1.2.3.4.5\r\n", HOST_INVALID),
    BAD(G "Host: [::1\r\n", HOST_INVALID),
    BAD(G "Host: [::1%25lo]\r\n", HOST_INVALID),
    BAD(G "Host: []\r\n", HOST_INVALID),
    BAD(G "Host: [::1]x\r\n", HOST_INVALID),
    BAD("GET http://evil.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n", HOST_MISMATCH),
    BAD("GET http://ok.test:81/ HTTP/1.1\r\nHost: ok.test\r\n\r\n", HOST_MISMATCH),
    BAD("GET https://ok.test/ HTTP/1.1\r\nHost: ok.test:80\r\n\r\n", HOST_MISMATCH),
    BAD("GET http://ok.test/ HTTP/1.1\r\nHost: ok.test.\r\n\r\n", HOST_MISMATCH),

    /* Header lines. */
    BAD(GH " folded\r\n", FOLDED_LINE),
    BAD(G " Host: a\r\n", FOLDED_LINE),
    BAD(GH "X: y\r\n\tz\r\n", FOLDED_LINE),
    BAD(G "Host : a\r\n", SPACE_BEFORE_COLON),
    BAD(G "Host\t: a\r\n", SPACE_BEFORE_COLON),
    BAD(GH ": x\r\n", FIELD_NAME),
    BAD(GH "novalue\r\n", FIELD_NAME),
    BAD(GH "a(b: c\r\n", FIELD_NAME),
    BAD(GH "a\xc3\xa9: c\r\n", FIELD_NAME),
    BAD(GH "X: y\n", BARE_LF),
    BAD(GH "\n", BARE_LF),
    BAD(GH "X: y\rZ: w\r\n", BARE_CR),
    BAD(GH "X: y\r\r\n", BARE_CR),
    BADB(GH "X: a\0b\r\n", CONTROL),
    BAD(GH "X: a\x1b[0m\r\n", CONTROL),

    /* Framing. */
    BAD(GH "Content-Length: 1\r\ncontent-length: 1\r\n", LENGTH_REPEATED),
    BAD(GH "Content-Length: 1, 1\r\n", LENGTH_REPEATED),
    BAD(GH "Content-Length: +1\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: 0x1\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: 1\xc2\xa0\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: \xd9\xa1\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length:\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: 1 1\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: 9999999999999999999\r\n", LENGTH_INVALID),
    BAD(GH "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", LENGTH_AND_CODING),
    BAD(GH "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", LENGTH_AND_CODING),
    BAD(GH "Transfer-Encoding: chunked, identity\r\n", CODING),
    BAD(GH "Transfer-Encoding: gzip, chunked\r\n", CODING),
    BAD(GH "Transfer-Encoding: \x0b"
           "chunked\r\n",
        CONTROL),
    BAD(GH "Transfer-Encoding: xchunked\r\n", CODING),
    BAD(GH "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CODING),
    BAD("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", CODING),
    BAD(GH "Connection: close, content-length\r\n", CONNECTION),
    BAD(GH "Connection: Transfer-Encoding\r\n", CONNECTION),
    BAD(GH "Connection: keep-alive\r\nConnection: x,\tHOST\t,y\r\n", CONNECTION),

    /* Upgrades: h2c stands alone and is whole, or it is refused. */
    BAD(GH "Upgrade: websocket, H2C\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c, websocket\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c,\r\n", UPGRADE),
    BAD(GH "Upgrade: ,h2c\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c h2c\r\n", UPGRADE),
    BAD(GH "Upgrade: \"h2c\", h2c\r\nUpgrade: h2\r\n", UPGRADE),
    BAD(GH "Upgrade: h2\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c/1\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c-14\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c; q=1\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nUpgrade: websocket\r\n\r\n", UPGRADE),
    BAD(GH "Upgrade: websocket\r\nX: y\r\nupgrade: h2c\r\n\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nUpgrade:\r\n\r\n", UPGRADE),
    BAD(GH "Upgrade: TLS/1.2\r\n", UPGRADE),
    BAD(GH "Upgrade: HTTP/2.0\r\n", UPGRADE),
    BAD(GH "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", UPGRADE),
    BAD(GH "Upgrade: websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nHTTP2-Settings: AA\r\nhttp2-settings: AA\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nHTTP2-Settings:\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nHTTP2-Settings: =\r\n", UPGRADE),
    BAD(GH "Upgrade: h2c\r\nHTTP2-Settings: AA, AA\r\n", UPGRADE),
    BAD(GH "Upgrade : h2c\r\n", SPACE_BEFORE_COLON),
    BAD(GH "Upgrade:\r\n h2c\r\n", FOLDED_LINE),
    BAD(GH "Upgrade: \x0bh2c\r\n", CONTROL),
};

static void check(const struct sample *s, const struct sm_http_head *h, const uint8_t *data)
{
    if (h->status != s->status || h->reject != s->reject)
        fail_msg("%s: %s %s, expected %s %s", s->name, sm_http_status_name(h->status), sm_http_reject_name(h->reject),
                 sm_http_status_name(s->status), sm_http_reject_name(s->reject));
    if (s->status == SM_HTTP_NEED_MORE && h->maybe != s->maybe)
        fail_msg("%s: maybe %d, expected %d", s->name, (int)h->maybe, (int)s->maybe);
    if (s->status != SM_HTTP_HTTP1)
        return;
    if (!s->host) {
        assert_int_equal(h->host_kind, SM_HTTP_HOST_NONE);
    } else {
        assert_int_equal(h->host.len, strlen(s->host));
        assert_memory_equal(data + h->host.off, s->host, h->host.len);
    }
    assert_int_equal(h->port, s->port);
    assert_int_equal(h->consumed, (size_t)(strstr(s->text, "\r\n\r\n") - s->text) + 4);
}

/* Feeds a copy of exactly n bytes, so that the sanitizers see one byte too many. */
static void feed(struct sm_http_head *h, const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    sm_http_head_feed(h, copy, n);
    free(copy);
}

static void test_samples_cut_everywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        const struct sample *s = &samples[i];
        const uint8_t *data = (const uint8_t *)s->text;
        size_t len = s->len ? s->len : strlen(s->text);
        struct sm_http_head h;

        sm_http_head_init(&h);
        for (size_t n = 0; n <= len; n++)
            feed(&h, data, n);
        check(s, &h, data);
        for (size_t cut = 0; cut <= len; cut++) {
            sm_http_head_init(&h);
            feed(&h, data, cut);
            /* A verdict that was reached early stays. */
            struct sm_http_head early = h;
            feed(&h, data, len);
            check(s, &h, data);
            if (early.status != SM_HTTP_NEED_MORE)
                assert_memory_equal(&early, &h, sizeof(h));
        }
    }
}

/* At the end a request line without its line end is one; anything else stays what it was. */
static void test_end(void **state)
{
    static const struct {
        const char *text;
        enum sm_http_status status;
    } cases[] = {{"GET / HTTP/1.1", SM_HTTP_REJECT},
                 {"GET / HTTP/1.1\r", SM_HTTP_REJECT},
                 {"GET /", SM_HTTP_REJECT},
                 {" GET /", SM_HTTP_REJECT},
                 {"FOO / HTTP/1.0", SM_HTTP_REJECT},
                 {"GET /\x0bHTTP/1.1", SM_HTTP_REJECT},
                 {"GET key", SM_HTTP_NEED_MORE},
                 {"GET", SM_HTTP_NEED_MORE},
                 {"EHLO mail.test", SM_HTTP_NEED_MORE},
                 {"", SM_HTTP_NEED_MORE},
                 {"GET / HTTP/1.1\r\nX", SM_HTTP_NEED_MORE},
                 {"PRI * HTTP/2.0", SM_HTTP_NEED_MORE},
                 {"\x16", SM_HTTP_NOT_HTTP}};
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_http_head h;
        sm_http_head_init(&h);
        const uint8_t *data = (const uint8_t *)cases[i].text;
        sm_http_head_feed(&h, data, strlen(cases[i].text));
        if (sm_http_head_end(&h, data, strlen(cases[i].text)) != cases[i].status)
            fail_msg("%s: %s", cases[i].text, sm_http_status_name(h.status));
    }
}

/* NOT_HTTP is of use only when it comes with the first byte that shows it. */
static void test_not_http_is_early(void **state)
{
    static const struct {
        const char *text;
        size_t at; /* bytes needed */
    } cases[] = {{"\x16\x03", 1},
                 {"SSH-2.0-x\r\n", 10},
                 {"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH", 33},
                 {"WORD \x01", 6},
                 {"GET\r\n", 5},
                 {"{", 1},
                 {"EHLO a\r\nx", 8},
                 {"HTTP/1.1", 5},
                 {":x", 1},
                 {" WORD", 2},
                 {"\x20\x01", 2},
                 {"\x0b"
                  "GEX",
                  4}};
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_http_head h;
        size_t n;
        sm_http_head_init(&h);
        for (n = 0; n <= strlen(cases[i].text) && h.status == SM_HTTP_NEED_MORE; n++)
            sm_http_head_feed(&h, (const uint8_t *)cases[i].text, n);
        assert_int_equal(h.status, SM_HTTP_NOT_HTTP);
        if (n - 1 != cases[i].at)
            fail_msg("%s: decided at %zu, expected %zu", cases[i].text, n - 1, cases[i].at);
    }
}

static void test_preface(void **state)
{
    const uint8_t text[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4";
    struct sm_http_head h;

    (void)state;
    sm_http_head_init(&h);
    for (size_t n = 0; n < 24; n++)
        assert_int_equal(sm_http_head_feed(&h, text, n), SM_HTTP_NEED_MORE);
    assert_int_equal(sm_http_head_feed(&h, text, 24), SM_HTTP_HTTP2);
    assert_int_equal(h.consumed, 24);
    assert_int_equal(h.host_kind, SM_HTTP_HOST_NONE);
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, text, sizeof(text)), SM_HTTP_HTTP2);
    assert_int_equal(h.consumed, 24);
}

static bool span_is(const char *text, struct sm_http_span s, const char *want)
{
    return s.len == strlen(want) && memcmp(text + s.off, want, s.len) == 0;
}

static void test_fields_of_the_result(void **state)
{
    const char *text = "POST http://ok.test:8080/a/b?c=/d HTTP/1.1\r\nHost: ok.test:8080\r\nContent-Length: 123\r\n"
                       "Upgrade: websocket\r\n\r\n";
    struct sm_http_head h;

    (void)state;
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, strlen(text)), SM_HTTP_HTTP1);
    assert_true(span_is(text, h.method, "POST"));
    assert_true(span_is(text, h.target, "http://ok.test:8080/a/b?c=/d"));
    assert_true(span_is(text, h.path, "/a/b"));
    assert_int_equal(h.form, SM_HTTP_TARGET_ABSOLUTE);
    assert_int_equal(h.host_kind, SM_HTTP_HOST_NAME);
    assert_int_equal(h.minor, 1);
    assert_true(h.framing.has_length);
    assert_int_equal(h.framing.content_length, 123);
    assert_false(h.framing.chunked);
    assert_true(h.upgrade && !h.h2c);

    text = "GET /x?y HTTP/1.0\r\nHost: [::ffff:1.2.3.4]\r\n\r\n";
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, strlen(text)), SM_HTTP_HTTP1);
    assert_true(span_is(text, h.path, "/x"));
    assert_int_equal(h.host_kind, SM_HTTP_HOST_V6);
    assert_int_equal(h.form, SM_HTTP_TARGET_ORIGIN);
    assert_int_equal(h.minor, 0);

    text = "GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, strlen(text)), SM_HTTP_HTTP1);
    assert_int_equal(h.host_kind, SM_HTTP_HOST_V4);
    assert_true(h.framing.chunked);

    text = "GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AA\r\nUpgrade: H2C\r\n\r\n";
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, strlen(text)), SM_HTTP_HTTP1);
    assert_true(h.h2c && !h.upgrade);
}

/* A head of exactly the maximum passes, one byte more does not, and neither is read twice. */
static void test_head_size(void **state)
{
    static const char start[] = GH "X: ";
    static const char end[] = "\r\n\r\n";
    size_t cap = SM_HTTP_HEAD_MAX + 1;
    char *text = malloc(cap);

    (void)state;
    assert_non_null(text);
    for (size_t len = SM_HTTP_HEAD_MAX; len <= cap; len++) {
        struct sm_http_head h;
        memset(text, 'a', len);
        memcpy(text, start, sizeof(start) - 1);
        memcpy(text + len - 4, end, 4);
        sm_http_head_init(&h);
        for (size_t n = 0; n < len; n += 7)
            sm_http_head_feed(&h, (const uint8_t *)text, n);
        sm_http_head_feed(&h, (const uint8_t *)text, len);
        if (len == SM_HTTP_HEAD_MAX) {
            assert_int_equal(h.status, SM_HTTP_HTTP1);
            assert_int_equal(h.consumed, len);
        } else {
            assert_int_equal(h.status, SM_HTTP_REJECT);
            assert_int_equal(h.reject, SM_HTTP_REJECT_TOO_LARGE);
        }
    }
    /* A first line without an end: under a method of HTTP it is refused, under another word it is not HTTP. */
    struct sm_http_head h;
    memset(text, 'a', cap);
    memcpy(text, "GET /", 5);
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, SM_HTTP_HEAD_MAX - 1), SM_HTTP_NEED_MORE);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, cap), SM_HTTP_REJECT);
    assert_int_equal(h.reject, SM_HTTP_REJECT_TOO_LARGE);
    memcpy(text, "FOO /", 5);
    sm_http_head_init(&h);
    assert_int_equal(sm_http_head_feed(&h, (const uint8_t *)text, cap), SM_HTTP_NOT_HTTP);
    free(text);
}

static void test_field_count(void **state)
{
    char text[SM_HTTP_FIELDS_MAX * 8 + 128];
    struct sm_http_head h;

    (void)state;
    for (unsigned extra = 0; extra < 2; extra++) {
        size_t len = (size_t)snprintf(text, sizeof(text), "%s", GH);
        for (unsigned i = 1; i < SM_HTTP_FIELDS_MAX + extra; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "X: y\r\n");
        len += (size_t)snprintf(text + len, sizeof(text) - len, "\r\n");
        sm_http_head_init(&h);
        sm_http_head_feed(&h, (const uint8_t *)text, len);
        assert_int_equal(h.status, extra ? SM_HTTP_REJECT : SM_HTTP_HTTP1);
        assert_int_equal(h.reject, extra ? SM_HTTP_REJECT_TOO_MANY_FIELDS : SM_HTTP_REJECT_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_cut_everywhere),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_not_http_is_early),
        cmocka_unit_test(test_preface),
        cmocka_unit_test(test_fields_of_the_result),
        cmocka_unit_test(test_head_size),
        cmocka_unit_test(test_field_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
