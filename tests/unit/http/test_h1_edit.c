/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/1 bridge with edits (struct sm_bridge_edit): what the origin gets of a request, what the guest gets of its
 * response, and what the judge sees. Each exchange is played whole, byte by byte and cut at every place, with a judge
 * that answers at once and one that answers later.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include "http/bridge.h"
#include "http/edit.h"
#include "http/scrub.h"

#define SECRET "sk-Test/0+9 z?"
#define STARS "**************"
#define P502(n)                                                                                                        \
    "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: " n "\r\nConnection: close\r\n\r\n"
#define LINE "GET / HTTP/1.1\r\n"
#define HOST "Host: a.test\r\n"
#define KEY "X-Api-Key: " SECRET "\r\n"
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define OKC "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
#define DONE "!1 200 done"

enum { KEEP = 0, KEYED = 1, IDENTITY = 2, SCRUB = 4 };

struct sample {
    const char *name;
    unsigned edit;
    const char *request, *origin;
    const char *response, *guest;
    const char *events;
    enum sm_bridge_end end;
    bool eof; /* of the origin, behind the response */
};

struct run {
    const struct sample *sample;
    struct sm_bridge *b;
    bool later;
    uint64_t pending;
    GString *got[SM_BRIDGE_SIDES];
    GString *events;
    GString *fields;
    struct sm_scrub *scrub;
    struct sm_bridge_edit edit;
    size_t account;
};

static void answer(struct run *r)
{
    struct sm_bridge_answer a = {.pass = true, .edit = &r->edit};
    uint64_t req = r->pending;

    if (req == 0)
        return;
    r->pending = 0;
    /* Its texts are the judge's own again once the call is over. */
    g_autofree char *name = g_strdup(r->edit.name), *value = g_memdup2(r->edit.value, r->edit.value_len);
    struct sm_bridge_edit copy = r->edit;
    copy.name = name;
    copy.value = value;
    a.edit = &copy;
    sm_bridge_answer(r->b, req, &a);
    if (name)
        memset(name, 'x', strlen(name));
    if (value)
        memset(value, 'x', copy.value_len);
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *q)
{
    struct run *r = ctx;
    struct sm_text name, value;

    (void)b;
    for (size_t at = 0; sm_bridge_request_field(q, &at, &name, &value);)
        g_string_append_printf(r->fields, "%.*s=%.*s\n", (int)name.len, name.ptr, (int)value.len, value.ptr);
    r->pending = q->req;
    if (!r->later)
        answer(r);
}

static void on_response(void *ctx, const struct sm_bridge_response *q)
{
    struct run *r = ctx;

    g_string_append_printf(r->events, "!%u %u %s", (unsigned)q->req, q->status, sm_bridge_outcome_name(q->outcome));
    if (q->scrubbed)
        g_string_append_printf(r->events, " %u", q->scrubbed);
    if (q->unscrubbed)
        g_string_append(r->events, " unscrubbed");
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    struct run *r = ctx;

    g_string_append_printf(r->events, "#%u %s %s ", (unsigned)req, sm_bridge_side_name(by), reason);
}

static size_t on_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    (void)ctx;
    (void)status;
    return (size_t)g_snprintf(out, cap, "%s", reason);
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page};

static void take(struct run *r)
{
    const uint8_t *p;
    size_t n;

    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        while ((n = sm_bridge_out(r->b, side, &p)) > 0) {
            g_string_append_len(r->got[side], (const char *)p, (gssize)n);
            sm_bridge_took(r->b, side, n);
        }
    }
}

static void feed(struct run *r, enum sm_bridge_side side, const char *p, size_t n)
{
    while (n > 0) {
        answer(r);
        size_t part = SM_MIN(n, sm_bridge_room(r->b, side));
        assert_true(part > 0);
        g_autofree uint8_t *copy = g_memdup2(p, part);
        sm_bridge_feed(r->b, side, copy, part);
        take(r);
        p += part;
        n -= part;
    }
    answer(r);
    take(r);
}

static void begin(struct run *r, unsigned edit, bool later)
{
    struct sm_bridge_config config = {.tls = true, .strip_alt_svc = true, .account = &r->account};

    *r = (struct run){.later = later};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        r->got[side] = g_string_new(NULL);
    r->events = g_string_new(NULL);
    r->fields = g_string_new(NULL);
    r->scrub = sm_scrub_new((const uint8_t *)SECRET, strlen(SECRET));
    r->b = sm_bridge_new_h1(&ops, r, &config);
    if (edit & KEYED) {
        r->edit.name = "x-api-key";
        r->edit.value = SECRET;
        r->edit.value_len = strlen(SECRET);
    }
    r->edit.identity = edit & IDENTITY;
    r->edit.scrub = edit & SCRUB ? r->scrub : NULL;
}

static void finish(struct run *r)
{
    sm_bridge_free(r->b);
    assert_int_equal(r->account, 0);
    sm_scrub_unref(r->scrub);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        g_string_free(r->got[side], TRUE);
    g_string_free(r->events, TRUE);
    g_string_free(r->fields, TRUE);
}

static void same(const struct sample *s, size_t cut, const char *what, const char *got, const char *want)
{
    if (strcmp(got, want) != 0)
        fail_msg("%s, cut %zu: %s\n--- got\n%s\n--- expected\n%s\n---", s->name, cut, what, got, want);
}

/* cut: of request and response one behind the other; SIZE_MAX: byte by byte. */
static void play(const struct sample *s, size_t cut, bool later)
{
    struct run r;
    const char *texts[] = {s->request, s->response};
    size_t before = 0;

    begin(&r, s->edit, later);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        size_t len = strlen(texts[side]);
        size_t at = cut == SIZE_MAX ? 0 : cut > before && cut < before + len ? cut - before : 0;
        for (size_t i = 0; cut == SIZE_MAX && i < len; i++)
            feed(&r, side, texts[side] + i, 1);
        if (cut != SIZE_MAX) {
            feed(&r, side, texts[side], at);
            feed(&r, side, texts[side] + at, len - at);
        }
        before += len;
    }
    if (s->eof)
        sm_bridge_eof(r.b, SM_BRIDGE_ORIGIN, false);
    take(&r);
    same(s, cut, "origin", r.got[SM_BRIDGE_ORIGIN]->str, s->origin);
    same(s, cut, "guest", r.got[SM_BRIDGE_GUEST]->str, s->guest);
    same(s, cut, "events", r.events->str, s->events);
    assert_int_equal(sm_bridge_ended(r.b), s->end);
    finish(&r);
}

static void play_all(const struct sample *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned later = 0; later < 2; later++) {
            play(&s[i], SIZE_MAX, later);
            for (size_t cut = 0; cut < strlen(s[i].request) + strlen(s[i].response); cut++)
                play(&s[i], cut, later);
        }
}

/* Lines of the request, and what becomes of them. */
#define EDIT(name, edit, in, out)                                                                                      \
    {                                                                                                                  \
        name, edit, LINE in "\r\n", LINE out "\r\n", OK, OK, DONE, SM_BRIDGE_LIVE, false                               \
    }

static const struct sample requests[] = {
    EDIT("nothing", KEEP, HOST "Connection: x-api-key ,\r\n", HOST "Connection: x-api-key ,\r\n"),
    EDIT("there was none", KEYED, HOST "A: b\r\n", HOST "A: b\r\nx-api-key: " SECRET "\r\n"),
    EDIT("in its place, under the name that it had", KEYED, "X-API-key:fake\r\n" HOST "A: b\r\n",
         "X-API-key: " SECRET "\r\n" HOST "A: b\r\n"),
    EDIT("empty", KEYED, HOST "x-api-key:\r\nA: b\r\n", HOST "x-api-key: " SECRET "\r\nA: b\r\n"),
    EDIT("all of several", KEYED, "A: b\r\nx-api-key: \t1 \r\n" HOST "X-Api-Key: 2\r\nx-api-key: 3\r\nC: d\r\n",
         "A: b\r\nx-api-key: " SECRET "\r\n" HOST "C: d\r\n"),
    EDIT("names that only look like it", KEYED, HOST "x-api-key2: 1\r\nx-api: x-api-key\r\nax-api-key: 2\r\n",
         HOST "x-api-key2: 1\r\nx-api: x-api-key\r\nax-api-key: 2\r\nx-api-key: " SECRET "\r\n"),
    EDIT("named in Connection", KEYED, "Connection: X-API-KEY\r\n" HOST "x-api-key: 1\r\n",
         HOST "x-api-key: " SECRET "\r\n"),
    EDIT("named in Connection among others, and absent", KEYED,
         HOST "Connection: keep-alive, x-api-key ,TE\r\nTE: trailers\r\nConnection:,x-api-key\r\n",
         HOST "Connection: keep-alive,TE\r\nTE: trailers\r\nx-api-key: " SECRET "\r\n"),
    EDIT("nothing but the whole", IDENTITY,
         "Range: bytes=0-1\r\n" HOST
         "request-RANGE: bytes=2-3\r\nA-IM: vcdiff\r\nIf-Range: \"a\"\r\nX-Range: 1\r\nConnection: range, a\r\n",
         HOST "If-Range: \"a\"\r\nX-Range: 1\r\nConnection: a\r\naccept-encoding: identity\r\n"),
    EDIT("a part of what is not scrubbed", KEYED, HOST "Range: bytes=0-1\r\nX-Api-Key: 1\r\n",
         HOST "Range: bytes=0-1\r\n" KEY),
    EDIT("identity where there was none", IDENTITY, HOST, HOST "accept-encoding: identity\r\n"),
    EDIT("identity for others", IDENTITY,
         "Accept-Encoding: gzip, br\r\n" HOST "accept-encoding:\tzstd\r\nAccept: gzip\r\n",
         "Accept-Encoding: identity\r\n" HOST "Accept: gzip\r\n"),
    EDIT("identity named in Connection", IDENTITY, HOST "Connection: accept-encoding, close2\r\n",
         HOST "Connection: close2\r\naccept-encoding: identity\r\n"),
    EDIT("both, and h2c", KEYED | IDENTITY,
         HOST
         "Connection: Upgrade, X-Api-Key, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Api-Key: 1\r\n",
         HOST "X-Api-Key: " SECRET "\r\naccept-encoding: identity\r\n"),
    {"a body and good trailers", KEYED,
     "POST / HTTP/1.1\r\nX-Api-Key: 1\r\n" HOST CHUNKED "2\r\nhi\r\n0\r\nX-Api: 1\r\n\r\n",
     "POST / HTTP/1.1\r\n" KEY HOST CHUNKED "2\r\nhi\r\n0\r\nX-Api: 1\r\n\r\n", OK, OK, DONE, SM_BRIDGE_LIVE, false},
    {"the header in the trailers", KEYED,
     "POST / HTTP/1.1\r\n" HOST CHUNKED "2\r\nhi\r\n0\r\nA: b\r\nX-API-Key: 1\r\n\r\n",
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nx-api-key: " SECRET "\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n",
     "",
     "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 12\r\nConnection: "
     "close\r\n\r\nhttp_trailer",
     "#1 guest http_trailer !1 400 broken", SM_BRIDGE_CUT, false},
    {"HTTP/1.0", KEYED, "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nx-api-key: " SECRET "\r\n\r\n", OK, OK, DONE,
     SM_BRIDGE_FINISHED, true},
};

#define REPLY(name, response, guest, events, end, eof)                                                                 \
    {                                                                                                                  \
        name, SCRUB, LINE HOST "\r\n", LINE HOST "\r\n", response, guest, events, end, eof                             \
    }
#define LIVE(name, response, guest, events) REPLY(name, response, guest, events, SM_BRIDGE_LIVE, false)

static const struct sample responses[] = {
    LIVE("nothing to find", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsk-Test/0+",
         "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsk-Test/0+", DONE),
    LIVE("values and the reason",
         "HTTP/1.1 200 no " SECRET "\r\nX-Echo:" SECRET
         "\r\nLocation: /?k=sk-Test%2f0%2B9+z%3F&a\r\nVary: sk-\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 200 no " STARS "\r\nX-Echo:" STARS
         "\r\nLocation: /?k=********************&a\r\nVary: sk-\r\nContent-Length: 0\r\n\r\n",
         DONE " 3"),
    LIVE("interim responses", "HTTP/1.1 103 " SECRET "\r\nLink: " SECRET "\r\n\r\nHTTP/1.1 100\r\n\r\n" OK,
         "HTTP/1.1 103 " STARS "\r\nLink: " STARS "\r\n\r\nHTTP/1.1 100\r\n\r\n" OK, DONE " 2"),
    LIVE("a body with its length, twice", "HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" SECRET "and " SECRET,
         "HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" STARS "and " STARS, DONE " 2"),
    LIVE("a body that ends within", "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nxxsk-Test/0+9 z",
         "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nxxsk-Test/0+9 z", DONE),
    LIVE("over chunk borders", OKC "4;a=\"sk-Test\"\r\nxsk-\r\n5\r\nTest/\r\n001\r\n0\r\n7;sk\r\n+9 z?yy\r\n0\r\n\r\n",
         OKC "4;a=\"sk-Test\"\r\nx***\r\n5\r\n*****\r\n001\r\n*\r\n7;sk\r\n*****yy\r\n0\r\n\r\n", DONE " 1"),
    LIVE("trailers", OKC "4\r\nsk-T\r\n0\r\nX-Sum: a " SECRET " b\r\nX-Two:sk-Test/0+9 z\r\n\r\n",
         OKC "4\r\nsk-T\r\n0\r\nX-Sum: a " STARS " b\r\nX-Two:sk-Test/0+9 z\r\n\r\n", DONE " 1"),
    LIVE("base64 in chunks of a byte",
         OKC "1\r\nc\r\n1\r\n2\r\n1\r\ns\r\n1\r\nt\r\n10\r\nVGVzdC8wKzkgej8=\r\n0\r\n\r\n",
         OKC "1\r\n*\r\n1\r\n*\r\n1\r\n*\r\n1\r\n*\r\n10\r\n**************8=\r\n0\r\n\r\n", DONE " 1"),
    REPLY("until the end", "HTTP/1.1 200 OK\r\n\r\n" SECRET "sk-T", "HTTP/1.1 200 OK\r\n\r\n" STARS "sk-T", DONE " 1",
          SM_BRIDGE_FINISHED, true),
    REPLY("cut off within", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" SECRET "sk-T",
          "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" STARS "sk-T", "!1 200 reset 1", SM_BRIDGE_CUT, true),
    REPLY("broken within", OKC "4\r\nsk-T\r\n4\r\nest/\r\nx\r\n", OKC "4\r\nsk-T\r\n4\r\nest/\r\n",
          "#1 origin http_chunk !1 200 broken", SM_BRIDGE_CUT, false),
    LIVE("encoded: the head alone",
         "HTTP/1.1 200 OK\r\nX: " SECRET "\r\ncontent-encoding: identity,GZIP\r\nContent-Length: 14\r\n\r\n" SECRET,
         "HTTP/1.1 200 OK\r\nX: " STARS "\r\ncontent-encoding: identity,GZIP\r\nContent-Length: 14\r\n\r\n" SECRET,
         DONE " 1 unscrubbed"),
    LIVE("encoded and chunked",
         "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n" CHUNKED "e\r\n" SECRET "\r\n0\r\nX: " SECRET "\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n" CHUNKED "e\r\n" SECRET "\r\n0\r\nX: " STARS "\r\n\r\n",
         DONE " 1 unscrubbed"),
    LIVE("encoded by nothing", "HTTP/1.1 200 OK\r\nContent-Encoding: Identity, ,\r\nContent-Length: 14\r\n\r\n" SECRET,
         "HTTP/1.1 200 OK\r\nContent-Encoding: Identity, ,\r\nContent-Length: 14\r\n\r\n" STARS, DONE " 1"),
    LIVE("no body that could be encoded", "HTTP/1.1 304 x\r\nContent-Encoding: gzip\r\n\r\n",
         "HTTP/1.1 304 x\r\nContent-Encoding: gzip\r\n\r\n", "!1 304 done"),
    LIVE("with Alt-Svc", "HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\", h2=\"" SECRET "\"\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 200 OK\r\nAlt-Svc: h2=\"" STARS "\"\r\nContent-Length: 0\r\n\r\n", DONE " 1"),
};

static void test_requests(void **state)
{
    (void)state;
    play_all(requests, SM_ARRAY_LEN(requests));
}

static void test_responses(void **state)
{
    (void)state;
    play_all(responses, SM_ARRAY_LEN(responses));
}

/* What cannot be done to a request refuses it, and nothing of it is at the origin. */
static void test_invalid(void **state)
{
    g_autofree char *long_name = g_strnfill(SM_BRIDGE_NAME_MAX + 1, 'a'),
                    *long_value = g_strnfill(SM_BRIDGE_VALUE_MAX + 1, 'a');
    const struct {
        const char *name, *value;
        size_t len;
    } bad[] = {
        {"X-Key", "a\rb", 3},
        {"X-Key", "a\nb", 3},
        {"X-Key", "a\r\nB: c", 7},
        {"X-Key", "a\0b", 3},
        {"X-Key", "a\x7f", 2},
        {"X-Key", " a", 2},
        {"X-Key", "a\t", 2},
        {"X-Key", long_value, SM_BRIDGE_VALUE_MAX + 1},
        {long_name, "a", 1},
        {"", "a", 1},
        {"X Key", "a", 1},
        {"X-Key:", "a", 1},
        {":authority", "a", 1},
        {"X\xc3\xa4", "a", 1},
        {"host", "b.test", 6},
        {"Content-Length", "1", 1},
        {"TRANSFER-ENCODING", "chunked", 7},
        {"Connection", "close", 5},
        {"Upgrade", "websocket", 9},
        {"HTTP2-Settings", "AA", 2},
        {"TE", "gzip", 4},
        {"Trailer", "a", 1},
        {"Expect", "a", 1},
        {"Accept-Encoding", "gzip", 4},
        {"Keep-Alive", "a", 1},
        {"Proxy-Connection", "a", 1},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        for (unsigned later = 0; later < 2; later++) {
            struct run r;
            begin(&r, SCRUB, later);
            r.edit.name = bad[i].name;
            r.edit.value = bad[i].value;
            r.edit.value_len = bad[i].len;
            feed(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n", strlen(LINE HOST "\r\n"));
            assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, "");
            assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, P502("12") SM_HTTP_EDIT_INVALID);
            assert_string_equal(r.events->str, "!1 502 refused");
            assert_int_equal(sm_bridge_ended(r.b), SM_BRIDGE_FINISHED);
            finish(&r);
        }
    }
    /* The longest of both is none of these, nor is an empty value, nor 8-bit text. */
    static const size_t good[] = {SM_BRIDGE_VALUE_MAX, 0, 3};
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        struct run r;
        begin(&r, KEEP, false);
        long_name[SM_BRIDGE_NAME_MAX] = '\0';
        r.edit.name = long_name;
        r.edit.value = good[i] == 3 ? "\xc3\t\xff" : long_value;
        r.edit.value_len = good[i];
        feed(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n", strlen(LINE HOST "\r\n"));
        assert_int_equal(r.got[SM_BRIDGE_ORIGIN]->len, strlen(LINE HOST "\r\n") + SM_BRIDGE_NAME_MAX + 4 + good[i]);
        finish(&r);
    }
}

/* The judge may look at every header. */
static void test_fields(void **state)
{
    static const char text[] = LINE "A:b\r\n" HOST "X-Api-Key: \t sk one \t\r\nE:\r\nx-api-key:two\r\n\r\nGET /more";
    struct run r;

    (void)state;
    begin(&r, KEEP, true);
    sm_bridge_feed(r.b, SM_BRIDGE_GUEST, (const uint8_t *)text, sizeof(text) - 1);
    assert_string_equal(r.fields->str, "A=b\nHost=a.test\nX-Api-Key=sk one\nE=\nx-api-key=two\n");
    finish(&r);
}

static void on_request_value(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *q)
{
    struct run *r = ctx;
    struct sm_text one = sm_bridge_request_value(q, "x-API-key", 0), two = sm_bridge_request_value(q, "x-api-key", 1);

    (void)b;
    assert_true(one.len == 3 && memcmp(one.ptr, "one", 3) == 0);
    assert_true(two.len == 0 && two.ptr);
    assert_null(sm_bridge_request_value(q, "x-api-key", 2).ptr);
    assert_null(sm_bridge_request_value(q, "x-api", 0).ptr);
    g_string_append(r->fields, "asked");
}

static void test_values(void **state)
{
    static const struct sm_bridge_ops value_ops = {
        .request = on_request_value, .response = on_response, .broken = on_broken};
    static const char text[] = LINE HOST "X-Api-Key: one\r\nX-api-key:\r\n\r\n";
    struct sm_bridge_config config = {.tls = true};
    struct run r = {.fields = g_string_new(NULL), .events = g_string_new(NULL)};

    (void)state;
    r.b = sm_bridge_new_h1(&value_ops, &r, &config);
    sm_bridge_feed(r.b, SM_BRIDGE_GUEST, (const uint8_t *)text, sizeof(text) - 1);
    assert_string_equal(r.fields->str, "asked");
    sm_bridge_free(r.b);
    g_string_free(r.fields, TRUE);
    g_string_free(r.events, TRUE);
}

static void say(struct run *r, enum sm_bridge_side side, const char *text)
{
    feed(r, side, text, strlen(text));
}

/* Each event is there as soon as it was sent, but for a tail that may be the secret's beginning. */
static void test_events(void **state)
{
    struct run r;

    (void)state;
    begin(&r, SCRUB, false);
    say(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n");
    say(&r, SM_BRIDGE_ORIGIN, OKC);
    g_string_truncate(r.got[SM_BRIDGE_GUEST], 0);
    for (unsigned i = 0; i < 10; i++) {
        say(&r, SM_BRIDGE_ORIGIN, "d\r\ndata: hello\n\n\r\n");
        assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "d\r\ndata: hello\n\n\r\n");
        g_string_truncate(r.got[SM_BRIDGE_GUEST], 0);
    }
    say(&r, SM_BRIDGE_ORIGIN, "8\r\ndata: sk\r\n");
    assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "8\r\ndata: ");
    assert_int_equal(r.account, 4);
    assert_int_equal(sm_bridge_room(r.b, SM_BRIDGE_ORIGIN), SM_BRIDGE_OUT_MAX - 4);
    say(&r, SM_BRIDGE_ORIGIN, "1\r\n\n\r\n");
    assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "8\r\ndata: sk\r\n1\r\n\n\r\n");
    finish(&r);
}

/* The tail of one response and the head of the next are no match; nor is one edit the other's. */
static void test_pipelined(void **state)
{
    struct run r;

    (void)state;
    begin(&r, KEYED | IDENTITY | SCRUB, false);
    say(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n" LINE "X-Api-Key: 2\r\n" HOST "\r\n");
    r.edit = (struct sm_bridge_edit){.name = NULL};
    say(&r, SM_BRIDGE_GUEST, LINE KEY HOST "\r\n");
    assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str,
                        LINE HOST "x-api-key: " SECRET "\r\naccept-encoding: identity\r\n\r\n" LINE KEY HOST
                                  "accept-encoding: identity\r\n\r\n" LINE KEY HOST "\r\n");
    say(&r, SM_BRIDGE_ORIGIN, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsk-Test");
    say(&r, SM_BRIDGE_ORIGIN, "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n/0+9 z?" SECRET);
    say(&r, SM_BRIDGE_ORIGIN, "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" SECRET);
    assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsk-Test"
                                                     "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n/0+9 z?" STARS
                                                     "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" SECRET);
    assert_string_equal(r.events->str, "!1 200 done!2 200 done 1!3 200 done");
    finish(&r);
}

/* Behind a 101 nothing is looked at, and that is said. */
static void test_upgrade(void **state)
{
    struct run r;

    (void)state;
    begin(&r, KEYED | SCRUB, false);
    say(&r, SM_BRIDGE_GUEST, LINE HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str,
                        LINE HOST "Connection: Upgrade\r\nUpgrade: websocket\r\nx-api-key: " SECRET "\r\n\r\n");
    say(&r, SM_BRIDGE_ORIGIN,
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nX: " SECRET "\r\nConnection: Upgrade\r\n\r\n" SECRET "sk-");
    assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nX: " STARS
                                                     "\r\nConnection: Upgrade\r\n\r\n" SECRET "sk-");
    sm_bridge_eof(r.b, SM_BRIDGE_GUEST, true);
    assert_string_equal(r.events->str, "!1 101 upgraded 1 unscrubbed");
    finish(&r);
}

/* What frames is not overwritten, whatever the secret is. */
static void test_framing_fields(void **state)
{
    static const char *const secrets[] = {"100000", "chunked", "keep-alive", "websocket"};

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(secrets); i++) {
        struct run r;
        g_autofree char *stars = g_strnfill(strlen(secrets[i]), '*');
        g_autofree char *head =
            g_strdup_printf("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX: %s\r\nUpgrade: websocket\r\n%s\r\n\r\n",
                            secrets[i], i == 0 ? "Content-Length: 100000" : "Transfer-Encoding: chunked");
        g_autofree char *want =
            g_strdup_printf("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX: %s\r\nUpgrade: websocket\r\n%s\r\n\r\n",
                            stars, i == 0 ? "Content-Length: 100000" : "Transfer-Encoding: chunked");
        begin(&r, SCRUB, false);
        sm_scrub_unref(r.scrub);
        r.edit.scrub = r.scrub = sm_scrub_new((const uint8_t *)secrets[i], strlen(secrets[i]));
        say(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n");
        say(&r, SM_BRIDGE_ORIGIN, head);
        assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, want);
        finish(&r);
    }
}

/* Chunks of a byte with long extensions: what is held is bounded, and the flow goes on. */
static void test_much_framing(void **state)
{
    struct run r;
    g_autofree char *extension = g_strnfill(4000, 'e');

    (void)state;
    begin(&r, SCRUB, false);
    say(&r, SM_BRIDGE_GUEST, LINE HOST "\r\n");
    say(&r, SM_BRIDGE_ORIGIN, OKC);
    for (size_t i = 0; i < strlen(SECRET); i++) {
        g_autofree char *chunk = g_strdup_printf("1;%s\r\n%c\r\n", extension, SECRET[i]);
        say(&r, SM_BRIDGE_ORIGIN, chunk);
        assert_true(r.account <= SM_SCRUB_HELD_MAX);
    }
    say(&r, SM_BRIDGE_ORIGIN, "0\r\n\r\n");
    assert_null(strstr(r.got[SM_BRIDGE_GUEST]->str, "\r\ns\r\n"));
    assert_non_null(strstr(r.got[SM_BRIDGE_GUEST]->str, "\r\n*\r\n"));
    assert_string_equal(r.events->str, DONE " 1");
    finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),     cmocka_unit_test(test_responses), cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_fields),       cmocka_unit_test(test_values),    cmocka_unit_test(test_events),
        cmocka_unit_test(test_pipelined),    cmocka_unit_test(test_upgrade),   cmocka_unit_test(test_framing_fields),
        cmocka_unit_test(test_much_framing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
