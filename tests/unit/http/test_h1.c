/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/1 bridge on transcripts. Each is replayed whole, byte by byte, and with every step cut in two at every place; with a judge that
 * answers at once and one that answers later; with readers that take all, take one byte at a time, and take nothing before the end. What the
 * origin got, what the guest got and what was told has to be the same each time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include "http/bridge.h"
#include "http/h1.h"
#include "http/page.h"

/* A page of ours is "page" in these tests; the reasons are in the events. */
#define PAGE_HEAD(line)                                                                                                \
    "HTTP/1.1 " line "\r\nContent-Type: application/json\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
#define PAGE(line) PAGE_HEAD(line) "page"
#define P400 PAGE("400 Bad Request")
#define P403 PAGE("403 Forbidden")
#define P502 PAGE("502 Bad Gateway")
/* The connection goes on behind it. */
#define K403_HEAD "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"
#define K403 K403_HEAD "page"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a.test\r\n\r\n"
#define POST(path) "POST " path " HTTP/1.1\r\nHost: a.test\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
#define OK(body, len) "HTTP/1.1 200 OK\r\nContent-Length: " len "\r\n\r\n" body
#define OKC "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define WS(path)                                                                                                       \
    "GET " path " HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                           \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define SWITCH "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#define GH2C                                                                                                           \
    "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"                        \
    "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
#define ASK(n, method, path) "?" n " " method " a.test " path "\n"

/* g, o: bytes from guest and origin. G, O: their orderly ends; x, X: cut. y, n: the answer to a "/later" request. */
struct step {
    char what;
    const char *data;
};

struct script {
    const char *name;
    struct step steps[16];
    const char *origin; /* what it must have got */
    const char *guest;
    const char *events;
    const char *end; /* "live" with "-guest", "-origin" for closed sides; "finished", "cut" */
};

struct run {
    const struct script *script;
    bool async;
    char take; /* 'a'll, '1' byte at a time, 'e'nd */
    struct sm_bridge *b;
    GString *got[SM_BRIDGE_SIDES];
    GString *wait[SM_BRIDGE_SIDES]; /* not yet taken by the bridge */
    GString *events;
    GArray *due; /* struct due */
    uint64_t later;
};

struct due {
    uint64_t req;
    bool pass, keep;
};

static void say(struct run *r, struct due due)
{
    struct sm_bridge_answer a = {
        .pass = due.pass, .status = 403, .keep = due.keep, .body = due.pass ? NULL : "page", .body_len = 4};
    sm_bridge_answer(r->b, due.req, &a);
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *q)
{
    struct run *r = ctx;
    bool keep = g_str_has_prefix(q->path.ptr, "/keep");
    struct due due = {q->req, !keep && !g_str_has_prefix(q->path.ptr, "/deny"), keep};

    assert_ptr_equal(b, r->b);
    g_string_append_printf(r->events, "?%u %.*s %.*s %.*s", (unsigned)q->req, (int)q->method.len, q->method.ptr,
                           (int)q->authority.len, q->authority.ptr ? q->authority.ptr : "", (int)q->path.len,
                           q->path.ptr);
    if (q->query.ptr)
        g_string_append_printf(r->events, "?%.*s", (int)q->query.len, q->query.ptr);
    if (q->scheme.ptr)
        g_string_append_printf(r->events, " scheme=%.*s", (int)q->scheme.len, q->scheme.ptr);
    if (q->upgrade)
        g_string_append(r->events, " upgrade");
    if (strcmp(q->protocol, "HTTP/1.0") == 0)
        g_string_append(r->events, " 1.0");
    g_string_append_c(r->events, '\n');
    if (q->path.len == 6 && memcmp(q->path.ptr, "/later", 6) == 0)
        r->later = q->req;
    else if (r->async)
        g_array_append_val(r->due, due);
    else
        say(r, due);
}

static void on_response(void *ctx, const struct sm_bridge_response *q)
{
    struct run *r = ctx;
    g_string_append_printf(r->events, "!%u %u %u %u %s\n", (unsigned)q->req, q->status, (unsigned)q->bytes_up,
                           (unsigned)q->bytes_down, sm_bridge_outcome_name(q->outcome));
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    struct run *r = ctx;
    g_string_append_printf(r->events, "#%u %s %s\n", (unsigned)req, sm_bridge_side_name(by), reason);
}

static size_t on_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    (void)ctx;
    (void)status;
    (void)reason;
    assert_true(cap >= 4);
    memcpy(out, "page", 4);
    return 4;
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page};
static const struct sm_bridge_config config = {.tls = true, .strip_alt_svc = true};

static void take(struct run *r, enum sm_bridge_side side, bool all)
{
    const uint8_t *p;
    size_t n;

    while ((n = sm_bridge_out(r->b, side, &p)) > 0) {
        n = all ? n : 1;
        g_string_append_len(r->got[side], (const char *)p, (gssize)n);
        sm_bridge_took(r->b, side, n);
    }
}

/* Until nothing moves any more. */
static void settle(struct run *r)
{
    bool moved = true;

    while (moved) {
        moved = false;
        while (r->due->len > 0) {
            struct due due = g_array_index(r->due, struct due, 0);
            g_array_remove_index(r->due, 0);
            say(r, due);
            moved = true;
        }
        for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
            if (r->take != 'e')
                take(r, side, r->take == 'a');
            size_t n = SM_MIN(sm_bridge_room(r->b, side), r->wait[side]->len);
            if (n == 0)
                continue;
            /* Of the exact size, so that the sanitizers see one byte too many. */
            uint8_t *copy = g_memdup2(r->wait[side]->str, n);
            g_string_erase(r->wait[side], 0, (gssize)n);
            sm_bridge_feed(r->b, side, copy, n);
            g_free(copy);
            moved = true;
        }
    }
}

static void give(struct run *r, char what, const char *data, size_t len)
{
    enum sm_bridge_side side = g_ascii_tolower(what) == 'g' || what == 'x' ? SM_BRIDGE_GUEST : SM_BRIDGE_ORIGIN;

    switch (what) {
    case 'g':
    case 'o':
        g_string_append_len(r->wait[side], data, (gssize)len);
        settle(r);
        break;
    case 'G':
    case 'O':
    case 'x':
    case 'X':
        sm_bridge_eof(r->b, side, what == 'x' || what == 'X');
        settle(r);
        break;
    case 'y':
    case 'n':
        say(r, (struct due){r->later, what == 'y', false});
        settle(r);
        break;
    default:
        fail_msg("%s: step %c", r->script->name, what);
    }
}

static void run_begin(struct run *r, const struct script *s, bool async, char taking)
{
    *r = (struct run){.script = s, .async = async, .take = taking};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        r->got[side] = g_string_new(NULL);
        r->wait[side] = g_string_new(NULL);
    }
    r->events = g_string_new(NULL);
    r->due = g_array_new(FALSE, FALSE, sizeof(struct due));
    r->b = sm_bridge_new_h1(&ops, r, &config);
}

static void run_free(struct run *r)
{
    sm_bridge_free(r->b);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        g_string_free(r->got[side], TRUE);
        g_string_free(r->wait[side], TRUE);
    }
    g_string_free(r->events, TRUE);
    g_array_free(r->due, TRUE);
}

static const char *end_of(const struct run *r)
{
    static char text[32];

    switch (sm_bridge_ended(r->b)) {
    case SM_BRIDGE_FINISHED:
        return "finished";
    case SM_BRIDGE_CUT:
        return "cut";
    case SM_BRIDGE_LIVE:
    case SM_BRIDGE_ENDS:
        break;
    }
    g_snprintf(text, sizeof(text), "live%s%s", sm_bridge_out_closed(r->b, SM_BRIDGE_GUEST) ? "-guest" : "",
               sm_bridge_out_closed(r->b, SM_BRIDGE_ORIGIN) ? "-origin" : "");
    return text;
}

static void expect(const struct run *r, const char *how, const char *what, const char *got, size_t len,
                   const char *want)
{
    if (len != strlen(want) || memcmp(got, want, len) != 0)
        fail_msg("%s (%s): %s\n--- got\n%.*s\n--- expected\n%s\n---", r->script->name, how, what, (int)len, got, want);
}

static void run_check(struct run *r, const char *how)
{
    take(r, SM_BRIDGE_GUEST, true);
    take(r, SM_BRIDGE_ORIGIN, true);
    const GString *origin = r->got[SM_BRIDGE_ORIGIN], *guest = r->got[SM_BRIDGE_GUEST];
    expect(r, how, "origin", origin->str, origin->len, r->script->origin);
    expect(r, how, "guest", guest->str, guest->len, r->script->guest);
    expect(r, how, "events", r->events->str, r->events->len, r->script->events);
    expect(r, how, "end", end_of(r), strlen(end_of(r)), r->script->end);
}

static void replay(const struct script *s, bool async, char taking, const char *cut, size_t step, size_t at)
{
    struct run r;
    g_autofree char *how =
        g_strdup_printf("%s, judge %s, reader %c, step %zu at %zu", cut, async ? "later" : "at once", taking, step, at);

    run_begin(&r, s, async, taking);
    for (size_t i = 0; i < SM_ARRAY_LEN(s->steps) && s->steps[i].what; i++) {
        const char *data = s->steps[i].data ? s->steps[i].data : "";
        size_t len = strlen(data);
        if (len == 0) {
            give(&r, s->steps[i].what, "", 0);
        } else if (*cut == 'b') {
            for (size_t n = 0; n < len; n++)
                give(&r, s->steps[i].what, data + n, 1);
        } else if (*cut == 'c' && i == step) {
            give(&r, s->steps[i].what, data, at);
            give(&r, s->steps[i].what, data + at, len - at);
        } else {
            give(&r, s->steps[i].what, data, len);
        }
    }
    run_check(&r, how);
    run_free(&r);
}

static void replay_all(const struct script *s)
{
    for (int async = 0; async < 2; async++) {
        for (const char *taking = "a1e"; *taking; taking++) {
            replay(s, async, *taking, "whole", 0, 0);
            replay(s, async, *taking, "bytes", 0, 0);
        }
        for (size_t i = 0; i < SM_ARRAY_LEN(s->steps) && s->steps[i].what; i++)
            for (size_t at = 1; s->steps[i].data && at < strlen(s->steps[i].data); at++)
                replay(s, async, 'a', "cut", i, at);
    }
}

#define CHUNKS "4;x=\"y\"\r\nwiki\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Two:\t2 \r\n\r\n"

/* What is good goes through with the same bytes. */
static const struct script good[] = {
    {"get",
     {{'g', GET("/a?q=1")}, {'o', OK("hello", "5")}},
     GET("/a?q=1"),
     OK("hello", "5"),
     ASK("1", "GET", "/a?q=1") "!1 200 0 5 done\n",
     "live"},
    {"keep-alive",
     {{'g', GET("/1")}, {'o', OK("a", "1")}, {'g', GET("/2")}, {'o', OK("", "0")}, {'G', NULL}},
     GET("/1") GET("/2"),
     OK("a", "1") OK("", "0"),
     ASK("1", "GET", "/1") "!1 200 0 1 done\n" ASK("2", "GET", "/2") "!2 200 0 0 done\n",
     "finished"},
    {"bytes are not repaired",
     {{'g', "get  /x HTTP/1.1\r\nHost: a.test\r\n\r\n"}},
     "",
     P400,
     "#0 guest http_request_line\n",
     "live-guest-origin"},
    {"odd but valid bytes",
     {{'g', "pOsT /x?a=%zz&&b HTTP/1.1\r\nhOSt:a.test\r\nX:\r\nX:  two \t\r\ncontent-LENGTH: 003\r\n\r\nabc"},
      {'o', "HTTP/1.1 299 \xc3\xa4 x\r\nSet-Cookie: a\r\nset-cookie:b\r\nCONTENT-length:2\r\n\r\nok"}},
     "pOsT /x?a=%zz&&b HTTP/1.1\r\nhOSt:a.test\r\nX:\r\nX:  two \t\r\ncontent-LENGTH: 003\r\n\r\nabc",
     "HTTP/1.1 299 \xc3\xa4 x\r\nSet-Cookie: a\r\nset-cookie:b\r\nCONTENT-length:2\r\n\r\nok",
     ASK("1", "pOsT", "/x?a=%zz&&b") "!1 299 3 2 done\n",
     "live"},
    {"chunked both ways with trailers",
     {{'g', POST("/c") CHUNKED CHUNKS}, {'o', OKC CHUNKS}},
     POST("/c") CHUNKED CHUNKS,
     OKC CHUNKS,
     ASK("1", "POST", "/c") "!1 200 14 14 done\n",
     "live"},
    {"pipelined, judged and answered in order",
     {{'g', GET("/1") POST("/2") "Content-Length: 2\r\n\r\nhi" GET("/3")},
      {'o', OK("1", "1") OK("2", "1") OK("3", "1")}},
     GET("/1") POST("/2") "Content-Length: 2\r\n\r\nhi" GET("/3"),
     OK("1", "1") OK("2", "1") OK("3", "1"),
     ASK("1", "GET", "/1") ASK("2", "POST", "/2")
         ASK("3", "GET", "/3") "!1 200 0 1 done\n!2 200 2 1 done\n!3 200 0 1 done\n",
     "live"},
    {"nothing goes on before the answer", {{'g', GET("/later")}}, "", "", ASK("1", "GET", "/later"), "live"},
    {"a later request waits for the answer before it",
     {{'g', GET("/later") GET("/2")}, {'y', NULL}, {'o', OK("", "0")}},
     GET("/later") GET("/2"),
     OK("", "0"),
     ASK("1", "GET", "/later") ASK("2", "GET", "/2") "!1 200 0 0 done\n",
     "live"},
    {"body behind an unjudged head",
     {{'g', POST("/later") "Content-Length: 3\r\n\r\nabc"}, {'y', NULL}, {'o', OK("", "0")}},
     POST("/later") "Content-Length: 3\r\n\r\nabc",
     OK("", "0"),
     ASK("1", "POST", "/later") "!1 200 3 0 done\n",
     "live"},
    {"interim responses",
     {{'g', POST("/e") "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"},
      {'o', "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\n"},
      {'g', "ok"},
      {'o', "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n" OK("", "0")}},
     POST("/e") "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
     "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: "
     "</s>\r\n\r\n" OK("", "0"),
     ASK("1", "POST", "/e") "!1 200 2 0 done\n",
     "live"},
    {"no body by method or status",
     {{'g', "HEAD /h HTTP/1.1\r\nHost: a.test\r\n\r\n" GET("/204") GET("/304") GET("/4")},
      {'o', "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"},
      {'o', "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {'o', "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"},
      {'o', OK("x", "1")}},
     "HEAD /h HTTP/1.1\r\nHost: a.test\r\n\r\n" GET("/204") GET("/304") GET("/4"),
     "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"
     "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n" OK("x", "1"),
     ASK("1", "HEAD", "/h") ASK("2", "GET", "/204") ASK("3", "GET", "/304")
         ASK("4", "GET", "/4") "!1 200 0 0 done\n!2 204 0 0 done\n!3 304 0 0 done\n!4 200 0 1 done\n",
     "live"},
    {"until close",
     {{'g', GET("/")}, {'o', "HTTP/1.1 200 OK\r\n\r\nall of it"}, {'O', NULL}},
     GET("/"),
     "HTTP/1.1 200 OK\r\n\r\nall of it",
     ASK("1", "GET", "/") "!1 200 0 9 done\n",
     "finished"},
    {"a status line without its last space",
     {{'g', GET("/")}, {'o', "HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n"}},
     GET("/"),
     "HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "GET", "/") "!1 200 0 0 done\n",
     "finished"},
    {"the response closes",
     {{'g', GET("/1")}, {'o', "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\na"}},
     GET("/1"),
     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\na",
     ASK("1", "GET", "/1") "!1 200 0 1 done\n",
     "finished"},
    {"the request closes, and what comes behind it is nothing",
     {{'g', "GET /1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" GET("/2")},
      {'o', OK("a", "1")},
      {'G', NULL}},
     "GET /1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
     OK("a", "1"),
     ASK("1", "GET", "/1") "!1 200 0 1 done\n",
     "finished"},
    {"HTTP/1.0",
     {{'g', "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"},
      {'o', "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na"},
      {'g', "GET http://a.test HTTP/1.0\r\n\r\n" GET("/3")},
      {'o', OK("b", "1")},
      {'G', NULL}},
     "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://a.test HTTP/1.0\r\n\r\n",
     "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na" OK("b", "1"),
     "?1 GET  /1 1.0\n!1 200 0 1 done\n?2 GET a.test / scheme=http 1.0\n!2 200 0 1 done\n",
     "finished"},
    {"forms of the target",
     {{'g', "OPTIONS * HTTP/1.1\r\nHost: a.test:443\r\n\r\n"},
      {'o', OK("", "0")},
      {'g', "GET HTTPS://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n"},
      {'o', OK("", "0")},
      {'g', "GET http://a.test?y HTTP/1.1\r\nHost: a.test\r\n\r\n"},
      {'o', OK("", "0")},
      {'g', "TRACE /? HTTP/1.1\r\nHost: a.test\r\n\r\n"},
      {'o', OK("", "0")}},
     "OPTIONS * HTTP/1.1\r\nHost: a.test:443\r\n\r\nGET HTTPS://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n"
     "GET http://a.test?y HTTP/1.1\r\nHost: a.test\r\n\r\nTRACE /? HTTP/1.1\r\nHost: a.test\r\n\r\n",
     OK("", "0") OK("", "0") OK("", "0") OK("", "0"),
     "?1 OPTIONS a.test:443 *\n!1 200 0 0 done\n?2 GET a.test /x?y scheme=HTTPS\n!2 200 0 0 done\n"
     "?3 GET a.test /?y scheme=http\n!3 200 0 0 done\n?4 TRACE a.test /?\n!4 200 0 0 done\n",
     "live"},
    {"half-close, and the response still comes",
     {{'g', GET("/")}, {'G', NULL}, {'o', OK("a", "1")}},
     GET("/"),
     OK("a", "1"),
     ASK("1", "GET", "/") "!1 200 0 1 done\n",
     "finished"},
    {"half-close goes on", {{'g', GET("/")}, {'G', NULL}}, GET("/"), "", ASK("1", "GET", "/"), "live-origin"},
    {"early response, the request ends after it",
     {{'g', POST("/p") "Content-Length: 4\r\n\r\nab"},
      {'o', "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"},
      {'g', "cd" GET("/2")}},
     POST("/p") "Content-Length: 4\r\n\r\nabcd" GET("/2"),
     "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "POST", "/p") "!1 413 4 0 done\n" ASK("2", "GET", "/2"),
     "live"},
    {"early response that closes: the guest may read it while it sends",
     {{'g', POST("/p") "Content-Length: 99\r\n\r\nab"},
      {'o', "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
      {'g', "more of it"}},
     POST("/p") "Content-Length: 99\r\n\r\nab",
     "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "POST", "/p") "!1 413 2 0 done\n",
     "live-guest-origin"},
    {"the guest ends in the middle of a body and is still answered",
     {{'g', POST("/p") "Content-Length: 9\r\n\r\nab"},
      {'G', NULL},
      {'o', "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"}},
     POST("/p") "Content-Length: 9\r\n\r\nab",
     "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "POST", "/p") "!1 400 2 0 done\n",
     "finished"},
    {"the guest goes in the middle of a head",
     {{'g', GET("/") "GET /"}, {'o', OK("", "0")}, {'G', NULL}},
     GET("/"),
     OK("", "0"),
     ASK("1", "GET", "/") "!1 200 0 0 done\n",
     "finished"},
    {"the origin closes an idle connection",
     {{'g', GET("/")}, {'o', OK("", "0")}, {'X', NULL}},
     GET("/"),
     OK("", "0"),
     ASK("1", "GET", "/") "!1 200 0 0 done\n",
     "finished"},
    {"the origin closes as the request comes: no page, so that the client repeats it",
     {{'g', GET("/")}, {'O', NULL}},
     GET("/"),
     "",
     ASK("1", "GET", "/") "!1 0 0 0 reset\n",
     "finished"},
    {"the origin is cut as the request comes",
     {{'g', GET("/")}, {'X', NULL}},
     GET("/"),
     "",
     ASK("1", "GET", "/") "!1 0 0 0 reset\n",
     "cut"},
    {"the origin closed before the answer",
     {{'g', GET("/later")}, {'O', NULL}, {'y', NULL}},
     "",
     "",
     ASK("1", "GET", "/later") "!1 0 0 0 reset\n",
     "finished"},
};

/* The offer of HTTP/2 in clear: of the lines `in` the origin gets `out`. */
#define H2C(name, in, out)                                                                                             \
    {                                                                                                                  \
        name, {{'g', "GET /u HTTP/1.1\r\n" in "\r\n"}, {'o', OK("", "0")}}, "GET /u HTTP/1.1\r\n" out "\r\n",          \
            OK("", "0"), ASK("1", "GET", "/u") "!1 200 0 0 done\n", "live"                                             \
    }
#define HA "Host: a.test\r\n"
#define OFFER "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"

static const struct script h2c[] = {
    H2C("as curl has it", HA "User-Agent: curl/8\r\nAccept: */*\r\nConnection: Upgrade, HTTP2-Settings\r\n" OFFER,
        HA "User-Agent: curl/8\r\nAccept: */*\r\n"),
    H2C("as Java has it",
        "Connection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\n" HA
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java\r\n",
        "Content-Length: 0\r\n" HA "User-Agent: Java\r\n"),
    H2C("odd case, no white space, no Connection", HA "uPGRADE:H2C\r\nhttp2-SETTINGS:AA==\r\nX:y\r\n", HA "X:y\r\n"),
    H2C("no settings", "Upgrade: h2c\r\nConnection: upgrade\r\n" HA, HA),
    H2C("white space, twice in a line, two lines",
        HA "Upgrade: \t h2c,h2c \t\r\nUpgrade: H2c\r\nConnection:\tUPGRADE \r\n", HA),
    H2C("what else Connection says stays as it was",
        HA "cOnnection:  keep-alive ,Upgrade,\tX-Hop , http2-settings,,close2\r\nX-Hop: 1\r\n" OFFER,
        HA "cOnnection:  keep-alive ,\tX-Hop ,,close2\r\nX-Hop: 1\r\n"),
    H2C("an empty member first", HA "Connection:,Upgrade,TE\r\n" OFFER, HA "Connection:,TE\r\n"),
    H2C("several Connection lines",
        HA "Connection: TE\r\nConnection: Upgrade\r\nTE: trailers\r\nConnection: Upgrade, Upgrade , HTTP2-Settings\r\n"
           "Connection:\r\nConnection: upgrades, xUpgrade, HTTP2\r\nConnection: Upgrade ,, \t\r\n" OFFER,
        HA "Connection: TE\r\nTE: trailers\r\nConnection:\r\nConnection: upgrades, xUpgrade, HTTP2\r\n"),
    H2C("names that only look like it",
        HA "Upgrade-Insecure-Requests: 1\r\nX-Upgrade: h2c\r\nHTTP2-Settings-X: AA\r\n" OFFER,
        HA "Upgrade-Insecure-Requests: 1\r\nX-Upgrade: h2c\r\nHTTP2-Settings-X: AA\r\n"),
    {"with a body, and the next behind it",
     {{'g', POST("/1") "Connection: Upgrade, HTTP2-Settings\r\n" OFFER CHUNKED CHUNKS GET("/2")},
      {'o', OK("a", "1") OK("b", "1")}},
     POST("/1") CHUNKED CHUNKS GET("/2"),
     OK("a", "1") OK("b", "1"),
     ASK("1", "POST", "/1") ASK("2", "GET", "/2") "!1 200 14 1 done\n!2 200 0 1 done\n",
     "live"},
    {"and it closes",
     {{'g', POST("/1") "Connection: close, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"},
      {'o', OK("a", "1")}},
     POST("/1") "Connection: close\r\nContent-Length: 2\r\n\r\nhi",
     OK("a", "1"),
     ASK("1", "POST", "/1") "!1 200 2 1 done\n",
     "finished"},
    {"HTTP/1.0",
     {{'g', "GET / HTTP/1.0\r\nConnection: keep-alive, Upgrade\r\n" OFFER "\r\n"}, {'o', OK("", "0")}},
     "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     OK("", "0"),
     "?1 GET  / 1.0\n!1 200 0 0 done\n",
     "live"},
    {"an origin that takes it up all the same",
     {{'g', GH2C}, {'o', "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"}},
     GET("/"),
     P502,
     ASK("1", "GET", "/") "#1 origin http_upgrade_unasked\n!1 502 0 4 broken\n",
     "finished"},
    {"nothing is held behind it: the preface is a request like any other",
     {{'g', GH2C "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, {'o', OK("", "0")}},
     GET("/"),
     OK("", "0") P400,
     ASK("1", "GET", "/") "#0 guest http_preface\n!1 200 0 0 done\n",
     "live-guest-origin"},
    {"refused as any other",
     {{'g', "GET /deny HTTP/1.1\r\n" HA "Connection: Upgrade\r\n" OFFER "\r\n"}, {'G', NULL}},
     "",
     P403,
     ASK("1", "GET", "/deny") "!1 403 0 4 refused\n",
     "finished"},
};

static const struct script upgrades[] = {
    {"101, then raw both ways",
     {{'g', WS("/ws")},
      {'o', SWITCH "\x81\x02hi"},
      {'g', "\x81\x82\x01\x02\x03\x04ik"},
      {'o', "\x88"},
      {'O', NULL},
      {'g', "tail"},
      {'G', NULL}},
     WS("/ws") "\x81\x82\x01\x02\x03\x04iktail",
     SWITCH "\x81\x02hi\x88",
     "?1 GET a.test /ws upgrade\n!1 101 12 5 upgraded\n",
     "finished"},
    {"half-close of the origin goes on",
     {{'g', WS("/ws")}, {'o', SWITCH "bye"}, {'O', NULL}},
     WS("/ws"),
     SWITCH "bye",
     "?1 GET a.test /ws upgrade\n",
     "live-guest"},
    {"half-close of the guest goes on",
     {{'g', WS("/ws")}, {'o', SWITCH}, {'g', "bye"}, {'G', NULL}, {'o', "bye"}},
     WS("/ws") "bye",
     SWITCH "bye",
     "?1 GET a.test /ws upgrade\n",
     "live-origin"},
    {"a cut is told on",
     {{'g', WS("/ws")}, {'o', SWITCH "by"}, {'X', NULL}},
     WS("/ws"),
     SWITCH "by",
     "?1 GET a.test /ws upgrade\n!1 101 0 2 upgraded\n",
     "cut"},
    {"raw data before the 101 waits for it",
     {{'g', WS("/ws") "early"}, {'o', SWITCH}},
     WS("/ws") "early",
     SWITCH,
     "?1 GET a.test /ws upgrade\n",
     "live"},
    {"no 101: nothing raw goes on", {{'g', WS("/ws") "early"}}, WS("/ws"), "", "?1 GET a.test /ws upgrade\n", "live"},
    {"no 101: what came early is HTTP",
     {{'g', WS("/ws") GET("/deny") "GET /smuggled"},
      {'o', "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"},
      {'G', NULL}},
     WS("/ws"),
     "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n" P403,
     "?1 GET a.test /ws upgrade\n!1 400 0 0 done\n" ASK("2", "GET", "/deny") "!2 403 0 4 refused\n",
     "finished"},
    {"no 101: what came early breaks a rule",
     {{'g', WS("/ws") "\x81\x82"}, {'o', OK("", "0")}},
     WS("/ws"),
     OK("", "0") P400,
     "?1 GET a.test /ws upgrade\n!1 200 0 0 done\n#0 guest http_request_line\n",
     "live-guest-origin"},
    {"behind earlier requests",
     {{'g', GET("/1") WS("/ws") "early"}, {'o', OK("", "0") SWITCH "hi"}},
     GET("/1") WS("/ws") "early",
     OK("", "0") SWITCH "hi",
     ASK("1", "GET", "/1") "?2 GET a.test /ws upgrade\n!1 200 0 0 done\n",
     "live"},
    {"101 that nobody asked for",
     {{'g', GET("/")}, {'o', SWITCH "\x81"}},
     GET("/"),
     P502,
     ASK("1", "GET", "/") "#1 origin http_upgrade_unasked\n!1 502 0 4 broken\n",
     "finished"},
    {"101 in the middle of a request",
     {{'g', "POST / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\na"}, {'o', SWITCH}},
     "POST / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\na",
     P502,
     "?1 POST a.test / upgrade\n#1 origin http_upgrade_unasked\n!1 502 1 4 broken\n",
     "live-guest-origin"},
    {"101 to a protocol that would go unjudged",
     {{'g', WS("/ws")}, {'o', "HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"}},
     WS("/ws"),
     P502,
     "?1 GET a.test /ws upgrade\n#1 origin http_upgrade_unasked\n!1 502 0 4 broken\n",
     "finished"},
    {"101 without a protocol",
     {{'g', WS("/ws")}, {'o', "HTTP/1.1 101 OK\r\n\r\n"}},
     WS("/ws"),
     P502,
     "?1 GET a.test /ws upgrade\n#1 origin http_upgrade_unasked\n!1 502 0 4 broken\n",
     "finished"},
    {"an offer of h2c in an ordinary response is nothing",
     {{'g', GET("/")}, {'o', "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"}},
     GET("/"),
     "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "GET", "/") "!1 200 0 0 done\n",
     "live"},
    {"HTTP/1.0 cannot upgrade",
     {{'g', "GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n"}, {'o', SWITCH}},
     "GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
     P502,
     "?1 GET  / 1.0\n#1 origin http_upgrade_unasked\n!1 502 0 4 broken\n",
     "finished"},
};

static const struct script refusals[] = {
    {"refused", {{'g', GET("/deny")}}, "", P403, ASK("1", "GET", "/deny") "!1 403 0 4 refused\n", "finished"},
    {"refused later",
     {{'g', GET("/later") GET("/2")}, {'n', NULL}, {'G', NULL}},
     "",
     P403,
     ASK("1", "GET", "/later") "!1 403 0 4 refused\n",
     "finished"},
    {"HEAD gets no body",
     {{'g', "HEAD /deny HTTP/1.1\r\nHost: a.test\r\n\r\n"}},
     "",
     PAGE_HEAD("403 Forbidden"),
     ASK("1", "HEAD", "/deny") "!1 403 0 0 refused\n",
     "finished"},
    {"its body is dropped until the guest ends",
     {{'g', POST("/deny") "Content-Length: 5\r\n\r\nhe"}, {'g', "llo" GET("/2")}, {'G', NULL}},
     "",
     P403,
     ASK("1", "POST", "/deny") "!1 403 0 4 refused\n",
     "finished"},
    {"... and read until then",
     {{'g', POST("/deny") "Content-Length: 5\r\n\r\nhe"}},
     "",
     P403,
     ASK("1", "POST", "/deny") "!1 403 0 4 refused\n",
     "live-guest-origin"},
    {"Expect gets the final status",
     {{'g', POST("/deny") "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"}, {'G', NULL}},
     "",
     P403,
     ASK("1", "POST", "/deny") "!1 403 0 4 refused\n",
     "finished"},
    {"after the responses before it",
     {{'g', GET("/1") GET("/2") GET("/deny") GET("/4")},
      {'o', OK("a", "1") "HTTP/1.1 200 OK\r\nContent-Le"},
      {'o', "ngth: 2\r\n\r\nb"},
      {'o', "c"},
      {'G', NULL}},
     GET("/1") GET("/2"),
     OK("a", "1") OK("bc", "2") P403,
     ASK("1", "GET", "/1") ASK("2", "GET", "/2")
         ASK("3", "GET", "/deny") "!1 200 0 1 done\n!2 200 0 2 done\n!3 403 0 4 refused\n",
     "finished"},
    {"the response before it ends the connection",
     {{'g', GET("/1") GET("/deny")}, {'o', "HTTP/1.1 200 OK\r\n\r\na"}, {'O', NULL}},
     GET("/1"),
     "HTTP/1.1 200 OK\r\n\r\na",
     ASK("1", "GET", "/1") ASK("2", "GET", "/deny") "!1 200 0 1 done\n!2 0 0 0 reset\n",
     "finished"},
    {"kept: it goes on behind it",
     {{'g', GET("/keep") GET("/2")}, {'g', GET("/keep")}, {'o', OK("b", "1")}, {'g', GET("/4")}, {'o', OK("d", "1")}},
     GET("/2") GET("/4"),
     K403 OK("b", "1") K403 OK("d", "1"),
     ASK("1", "GET", "/keep") "!1 403 0 4 refused\n" ASK("2", "GET", "/2")
         ASK("3", "GET", "/keep") "!2 200 0 1 done\n!3 403 0 4 refused\n" ASK("4", "GET", "/4") "!4 200 0 1 done\n",
     "live"},
    {"kept: the guest ends behind it",
     {{'g', GET("/1") GET("/keep")}, {'G', NULL}, {'o', OK("a", "1")}},
     GET("/1"),
     OK("a", "1") K403,
     ASK("1", "GET", "/1") ASK("2", "GET", "/keep") "!1 200 0 1 done\n!2 403 0 4 refused\n",
     "finished"},
    {"kept: HEAD",
     {{'g', "HEAD /keep HTTP/1.1\r\nHost: a.test\r\n\r\n"}},
     "",
     K403_HEAD,
     ASK("1", "HEAD", "/keep") "!1 403 0 0 refused\n",
     "live"},
    {"kept: what the origin says unasked is not its answer",
     {{'g', GET("/keep")}, {'o', OK("a", "1")}},
     "",
     K403,
     ASK("1", "GET", "/keep") "!1 403 0 4 refused\n#0 origin http_response_unasked\n",
     "finished"},
    {"not kept: it has a body",
     {{'g', POST("/keep") "Content-Length: 5\r\n\r\nhello" GET("/2")}, {'G', NULL}},
     "",
     P403,
     ASK("1", "POST", "/keep") "!1 403 0 4 refused\n",
     "finished"},
    {"not kept: chunked",
     {{'g', POST("/keep") CHUNKED "0\r\n\r\n" GET("/2")}, {'G', NULL}},
     "",
     P403,
     ASK("1", "POST", "/keep") "!1 403 0 4 refused\n",
     "finished"},
    {"not kept: the guest closes",
     {{'g', "GET /keep HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"}},
     "",
     P403,
     ASK("1", "GET", "/keep") "!1 403 0 4 refused\n",
     "finished"},
    {"not kept: HTTP/1.0",
     {{'g', "GET /keep HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n"}},
     "",
     P403,
     "?1 GET a.test /keep 1.0\n!1 403 0 4 refused\n",
     "finished"},
    {"not kept: an upgrade",
     {{'g', WS("/keep")}},
     "",
     P403,
     "?1 GET a.test /keep upgrade\n!1 403 0 4 refused\n",
     "finished"},
    {"an origin is not needed for it",
     {{'g', GET("/later")}, {'X', NULL}, {'n', NULL}},
     "",
     P403,
     ASK("1", "GET", "/later") "!1 403 0 4 refused\n",
     "finished"},
};

#define BAD(name, text, reason)                                                                                        \
    {                                                                                                                  \
        name, {{'g', text GET("/smuggled")}}, "", P400, "#0 guest " reason "\n", "live-guest-origin"                   \
    }
#define G1 "GET / HTTP/1.1\r\nHost: a.test\r\n"
/* A body that breaks a rule behind what of it is good. */
#define BADBODY(name, ok, rest, up, reason)                                                                            \
    {                                                                                                                  \
        name, {{'g', POST("/") CHUNKED ok rest}}, POST("/") CHUNKED ok, P400,                                          \
            ASK("1", "POST", "/") "#1 guest " reason "\n!1 400 " up " 4 broken\n", "cut"                               \
    }

/* attacks.md, HTTP: nothing of it reaches the origin. */
static const struct script smuggling[] = {
    BAD("length and coding", POST("/") "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "http_content_length_and_transfer_encoding"),
    BAD("repeated length", POST("/") "Content-Length: 4\r\nContent-Length: 4\r\n\r\n", "http_content_length_repeated"),
    BAD("list of lengths", POST("/") "Content-Length: 4, 4\r\n\r\n", "http_content_length_repeated"),
    BAD("signed length", POST("/") "Content-Length: +4\r\n\r\n", "http_content_length_invalid"),
    BAD("chunked not last", POST("/") "Transfer-Encoding: chunked, identity\r\n\r\n", "http_transfer_encoding"),
    BAD("coding in disguise", POST("/") "Transfer-Encoding: xchunked\r\n\r\n", "http_transfer_encoding"),
    BAD("coding twice", POST("/") "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "http_transfer_encoding"),
    BAD("coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "http_transfer_encoding"),
    BAD("folded line", G1 "X: a\r\n b\r\n\r\n", "http_folded_line"),
    BAD("bare LF", G1 "X: a\n\r\n", "http_bare_lf"),
    BAD("bare LF ends the head", G1 "\n", "http_bare_lf"),
    BAD("bare CR", G1 "X: a\rY: b\r\n\r\n", "http_bare_cr"),
    BAD("leading CRLF", "\r\n" GET("/"), "http_leading_crlf"),
    BAD("space before the colon", "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", "http_space_before_colon"),
    BAD("coding with a space", POST("/") "Transfer-Encoding : chunked\r\n\r\n", "http_space_before_colon"),
    BAD("two Hosts", G1 "Host: a.test\r\n\r\n", "http_host_repeated"),
    BAD("no Host", "GET / HTTP/1.1\r\n\r\n", "http_host_missing"),
    BAD("another host in the target", "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "http_host_mismatch"),
    BAD("authority-form", "GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", "http_target"),
    BAD("CONNECT", "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "http_connect"),
    BAD("h2c among others",
        G1 "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "http_upgrade"),
    BAD("h2c among other lines", G1 "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
        "http_upgrade"),
    BAD("h2c over TLS", G1 "Connection: Upgrade\r\nUpgrade: h2\r\n\r\n", "http_upgrade"),
    BAD("the settings of h2c alone", G1 "Connection: HTTP2-Settings\r\nHTTP2-Settings: AA\r\n\r\n", "http_upgrade"),
    BAD("the settings of h2c twice", G1 "Upgrade: h2c\r\nHTTP2-Settings: AA\r\nHTTP2-Settings: AA\r\n\r\n",
        "http_upgrade"),
    BAD("the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http_preface"),
    BAD("no HTTP", "\x16\x03\x01\x02", "http_request_line"),
    BAD("no version", "GET /\r\n", "http_request_line"),
    {"the second is bad",
     {{'g', GET("/1") G1 "Host: b.test\r\n\r\n"}, {'o', OK("", "0")}},
     GET("/1"),
     OK("", "0") P400,
     ASK("1", "GET", "/1") "#0 guest http_host_repeated\n!1 200 0 0 done\n",
     "live-guest-origin"},
    {"HEAD that breaks a rule",
     {{'g', "HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"}, {'G', NULL}},
     "",
     PAGE_HEAD("400 Bad Request"),
     "#0 guest http_host_repeated\n",
     "finished"},

    BADBODY("size is no number", "", "x\r\n", "0", "http_chunk"),
    BADBODY("empty size", "", "\r\n", "0", "http_chunk"),
    BADBODY("size with a prefix", "", "0x4\r\n", "0", "http_chunk"),
    BADBODY("signed size", "", "-1\r\n", "0", "http_chunk"),
    BADBODY("17 digits", "", "00000000000000004\r\n", "0", "http_chunk"),
    BADBODY("size over 2^63", "", "8000000000000000\r\n", "0", "http_chunk"),
    BADBODY("space behind the size", "", "4 \r\nwiki", "0", "http_chunk"),
    BADBODY("bare LF behind the size", "", "4\nwiki", "0", "http_bare_lf"),
    BADBODY("bare LF in an extension", "", "4;a\nb\r\nwiki", "0", "http_bare_lf"),
    BADBODY("bare CR in an extension", "", "4;a\rb\r\nwiki", "0", "http_bare_cr"),
    BADBODY("control character in an extension", "", "4;\x01\r\nwiki", "0", "http_control_character"),
    BADBODY("chunk longer than its size", "4\r\nwiki", "p\r\n0\r\n\r\n", "4", "http_chunk"),
    BADBODY("bare LF behind a chunk", "4\r\nwiki", "\n0\r\n\r\n", "4", "http_chunk"),
    BADBODY("CR CR behind a chunk", "4\r\nwiki", "\r\r\n0\r\n\r\n", "4", "http_chunk"),
    BADBODY("length in the trailers", "0\r\nX: y\r\n", "Content-Length: 4\r\n\r\n", "0", "http_trailer"),
    BADBODY("coding in the trailers", "0\r\n", "transfer-encoding: chunked\r\n\r\n", "0", "http_trailer"),
    BADBODY("Host in the trailers", "0\r\n", "Host: b.test\r\n\r\n", "0", "http_trailer"),
    BADBODY("credential in the trailers", "0\r\n", "Authorization: x\r\n\r\n", "0", "http_trailer"),
    BADBODY("folded trailer", "0\r\nX: y\r\n", " z\r\n\r\n", "0", "http_folded_line"),
    BADBODY("trailers end in a bare LF", "0\r\nX: y\r\n", "\n", "0", "http_bare_lf"),
    BADBODY("a request in the place of trailers", "0\r\n", GET("/smuggled"), "0", "http_space_before_colon"),
    {"a bad body behind another request",
     {{'g', GET("/1") POST("/2") CHUNKED "z\r\n"}, {'o', OK("a", "1")}},
     GET("/1") POST("/2") CHUNKED,
     OK("a", "1") P400,
     ASK("1", "GET", "/1") ASK("2", "POST", "/2") "#2 guest http_chunk\n!1 200 0 1 done\n!2 400 0 4 broken\n",
     "cut"},
    {"a bad body that was answered early",
     {{'g', POST("/2") CHUNKED}, {'o', OK("a", "2")}, {'g', "z\r\n"}},
     POST("/2") CHUNKED,
     OK("a", "2"),
     ASK("1", "POST", "/2") "#1 guest http_chunk\n!1 200 0 1 broken\n",
     "cut"},
};

#define BADRSP(name, text, reason)                                                                                     \
    {                                                                                                                  \
        name, {{'g', GET("/")}, {'o', text}}, GET("/"), P502,                                                          \
            ASK("1", "GET", "/") "#1 origin " reason "\n!1 502 0 4 broken\n", "finished"                               \
    }
#define R1 "HTTP/1.1 200 OK\r\n"

static const struct script responses[] = {
    BADRSP("no status line", "SSH-2.0-x\r\n", "http_status_line"),
    BADRSP("other version", "HTTP/1.2 200 OK\r\n", "http_status_line"),
    BADRSP("HTTP/2", "HTTP/2 200 OK\r\n", "http_status_line"),
    BADRSP("two digits", "HTTP/1.1 20 OK\r\n", "http_status_line"),
    BADRSP("four digits", "HTTP/1.1 2000 OK\r\n", "http_status_line"),
    BADRSP("status under 100", "HTTP/1.1 099 OK\r\n", "http_status_line"),
    BADRSP("two spaces", "HTTP/1.1  200 OK\r\n", "http_status_line"),
    BADRSP("control character in the reason", "HTTP/1.1 200 O\x01K\r\n", "http_control_character"),
    BADRSP("bare LF", "HTTP/1.1 200 OK\n", "http_bare_lf"),
    BADRSP("leading CRLF", "\r\n" R1, "http_status_line"),
    BADRSP("bare LF in a field", R1 "X: y\n", "http_bare_lf"),
    BADRSP("bare CR", R1 "X: y\rZ: w\r\n", "http_bare_cr"),
    BADRSP("folded line", R1 "X: y\r\n z\r\n", "http_folded_line"),
    BADRSP("space before the colon", R1 "X : y\r\n", "http_space_before_colon"),
    BADRSP("length and coding", R1 "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
           "http_content_length_and_transfer_encoding"),
    BADRSP("repeated length", R1 "Content-Length: 1\r\nContent-Length: 1\r\n", "http_content_length_repeated"),
    BADRSP("list of lengths", R1 "Content-Length: 1,1\r\n", "http_content_length_repeated"),
    BADRSP("no number", R1 "Content-Length: 1x\r\n", "http_content_length_invalid"),
    BADRSP("other coding", R1 "Transfer-Encoding: gzip, chunked\r\n", "http_transfer_encoding"),
    BADRSP("coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", "http_transfer_encoding"),
    {"interim to HTTP/1.0",
     {{'g', "GET / HTTP/1.0\r\n\r\n"}, {'o', "HTTP/1.1 103 Early Hints\r\n\r\n"}},
     "GET / HTTP/1.0\r\n\r\n",
     P502,
     "?1 GET  / 1.0\n#1 origin http_response_interim\n!1 502 0 4 broken\n",
     "finished"},
    {"bad after an interim",
     {{'g', GET("/")}, {'o', "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2\r\n"}},
     GET("/"),
     "HTTP/1.1 103 Early Hints\r\n\r\n" P502,
     ASK("1", "GET", "/") "#1 origin http_status_line\n!1 502 0 4 broken\n",
     "finished"},
    {"bad chunk",
     {{'g', GET("/")}, {'o', OKC "3\r\nabc\r\n+3\r\n"}},
     GET("/"),
     OKC "3\r\nabc\r\n",
     ASK("1", "GET", "/") "#1 origin http_chunk\n!1 200 0 3 broken\n",
     "cut"},
    {"bad trailer",
     {{'g', GET("/")}, {'o', OKC "0\r\nContent-Length: 3\r\n"}},
     GET("/"),
     OKC "0\r\n",
     ASK("1", "GET", "/") "#1 origin http_trailer\n!1 200 0 0 broken\n",
     "cut"},
    {"ends in its head",
     {{'g', GET("/")}, {'o', "HTTP/1.1 200 OK\r\nConte"}, {'O', NULL}},
     GET("/"),
     P502,
     ASK("1", "GET", "/") "#1 origin http_response_truncated\n!1 502 0 4 broken\n",
     "finished"},
    {"ends in its body",
     {{'g', GET("/")}, {'o', OK("a", "2")}, {'O', NULL}},
     GET("/"),
     OK("a", "2"),
     ASK("1", "GET", "/") "!1 200 0 1 reset\n",
     "cut"},
    {"ends in its chunks",
     {{'g', GET("/")}, {'o', OKC "1\r\na\r\n"}, {'O', NULL}},
     GET("/"),
     OKC "1\r\na\r\n",
     ASK("1", "GET", "/") "!1 200 0 1 reset\n",
     "cut"},
    {"until close, and cut",
     {{'g', GET("/")}, {'o', R1 "\r\na"}, {'X', NULL}},
     GET("/"),
     R1 "\r\na",
     ASK("1", "GET", "/") "!1 200 0 1 reset\n",
     "cut"},
    {"before any request", {{'o', OK("", "0")}}, "", "", "#0 origin http_response_unasked\n", "finished"},
    {"more than was asked for",
     {{'g', GET("/")}, {'o', OK("", "0") OK("", "0")}},
     GET("/"),
     OK("", "0"),
     ASK("1", "GET", "/") "!1 200 0 0 done\n#0 origin http_response_unasked\n",
     "finished"},
    {"longer than its length",
     {{'g', GET("/")}, {'o', OK("ab", "1")}},
     GET("/"),
     OK("a", "1"),
     ASK("1", "GET", "/") "!1 200 0 1 done\n#0 origin http_response_unasked\n",
     "finished"},
    {"a body behind 304",
     {{'g', GET("/")}, {'o', "HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\nab"}},
     GET("/"),
     "HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\n",
     ASK("1", "GET", "/") "!1 304 0 0 done\n#0 origin http_response_unasked\n",
     "finished"},
    {"for a request that is at the judge",
     {{'g', GET("/later")}, {'o', OK("poison", "6")}, {'y', NULL}},
     "",
     "",
     ASK("1", "GET", "/later") "#0 origin http_response_unasked\n!1 0 0 0 reset\n",
     "live-guest-origin"},
    {"a second one to a request that is not whole",
     {{'g', POST("/") "Content-Length: 2\r\n\r\na"}, {'o', OK("", "0") OK("", "0")}},
     POST("/") "Content-Length: 2\r\n\r\na",
     OK("", "0"),
     ASK("1", "POST", "/") "#1 origin http_response_unasked\n!1 200 1 0 done\n",
     "live-guest-origin"},
    {"the guest goes in the middle of a response",
     {{'g', GET("/") GET("/2")}, {'o', OK("a", "2")}, {'x', NULL}},
     GET("/") GET("/2"),
     OK("a", "2"),
     ASK("1", "GET", "/") ASK("2", "GET", "/2") "!1 200 0 1 reset\n!2 0 0 0 reset\n",
     "cut"},
    {"a pipelined request behind a response that closes",
     {{'g', GET("/1") GET("/2")}, {'o', R1 "Connection: close\r\nContent-Length: 0\r\n\r\n" OK("", "0")}},
     GET("/1") GET("/2"),
     R1 "Connection: close\r\nContent-Length: 0\r\n\r\n",
     ASK("1", "GET", "/1") ASK("2", "GET", "/2") "!1 200 0 0 done\n!2 0 0 0 reset\n",
     "finished"},
    {"a request behind a response's word that no more are read",
     {{'g', GET("/1")},
      {'o', R1 "Connection: close\r\nContent-Length: 1\r\n\r\n"},
      {'g', GET("/2")},
      {'o', "a"},
      {'G', NULL}},
     GET("/1"),
     R1 "Connection: close\r\nContent-Length: 1\r\n\r\na",
     ASK("1", "GET", "/1") "!1 200 0 1 done\n",
     "finished"},
    {"judged while the response says that no more are read",
     {{'g', GET("/1") GET("/later")},
      {'o', R1 "Connection: close\r\nContent-Length: 1\r\n\r\n"},
      {'y', NULL},
      {'o', "a"},
      {'G', NULL}},
     GET("/1"),
     R1 "Connection: close\r\nContent-Length: 1\r\n\r\na",
     ASK("1", "GET", "/1") ASK("2", "GET", "/later") "!1 200 0 1 done\n!2 0 0 0 reset\n",
     "finished"},
};

#define ALT(in, out)                                                                                                   \
    {                                                                                                                  \
        in, {{'g', GET("/")}, {'o', R1 "A: b\r\n" in "Content-Length: 0\r\n\r\n"}}, GET("/"),                          \
            R1 "A: b\r\n" out "Content-Length: 0\r\n\r\n", ASK("1", "GET", "/") "!1 200 0 0 done\n", "live"            \
    }

static const struct script alt_svc[] = {
    ALT("Alt-Svc: h3=\":443\"; ma=86400\r\n", ""),
    ALT("alt-svc:h3=\":443\";ma=86400,h3-29=\":443\";ma=86400\r\n", ""),
    ALT("ALT-SVC: H%33=\":443\"\r\n", ""),
    ALT("Alt-Svc: h3=\":443\"; ma=86400, h2=\":443\"; ma=1\r\n", "Alt-Svc: h2=\":443\"; ma=1\r\n"),
    ALT("Alt-Svc: h2=\"a.test:443\" ,h3=\":443\",  x=\"y,h3=\\\",\"\r\n",
        "Alt-Svc: h2=\"a.test:443\" ,  x=\"y,h3=\\\",\"\r\n"),
    ALT("Alt-Svc: clear\r\n", "Alt-Svc: clear\r\n"),
    ALT("Alt-Svc:  h2=\":443\" \t\r\n", "Alt-Svc:  h2=\":443\" \t\r\n"),
    ALT("Alt-Svc: h31=\":443\", , h3x=\":1\"\r\n", "Alt-Svc: h31=\":443\", , h3x=\":1\"\r\n"),
    ALT("Alt-Svc:\r\n", "Alt-Svc:\r\n"),
    ALT("Alt-Svc: ,\r\n", "Alt-Svc: ,\r\n"),
    ALT("Alt-Svc: h3=\":443\r\n", ""),
    ALT("Alt-Svc: h3=\":443\", ,\t\r\n", ""),
    ALT("X-Alt-Svc: h3=\":443\"\r\nAlt-Svc: h3=\":1\"\r\nAlt-Svc: h2=\":1\"\r\nAlt-Svc: h3=\":2\"\r\n",
        "X-Alt-Svc: h3=\":443\"\r\nAlt-Svc: h2=\":1\"\r\n"),
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++)
        replay_all(&good[i]);
}

static void test_upgrades(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(upgrades); i++)
        replay_all(&upgrades[i]);
}

static void test_h2c(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(h2c); i++)
        replay_all(&h2c[i]);
}

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(refusals); i++)
        replay_all(&refusals[i]);
}

static void test_smuggling(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(smuggling); i++)
        replay_all(&smuggling[i]);
}

static void test_responses(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(responses); i++)
        replay_all(&responses[i]);
}

static void test_alt_svc(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(alt_svc); i++)
        replay_all(&alt_svc[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_upgrades),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_h2c),     cmocka_unit_test(test_smuggling), cmocka_unit_test(test_responses),
        cmocka_unit_test(test_alt_svc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
