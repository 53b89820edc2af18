/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/1 bridge sends a request again whose response was 401 (bridge.h): what the origin gets, what the guest gets
 * and what the judge is asked. Each exchange is played whole, byte by byte and cut at every place, with a judge that
 * answers at once and one that answers later.
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
#include "http/scrub.h"

#define OLD "old-token"
#define NEW "new-token"
#define LINE "GET /p?q HTTP/1.1\r\n"
#define HOST "Host: a.test\r\n"
#define ASKED "?1 GET /p fake "
#define REQUEST(line, key, rest) line "X-Key: " key "\r\n" HOST rest "\r\n"
#define NO "HTTP/1.1 401 Unauthorized\r\n"
#define NO_OLD NO "Content-Length: 9\r\nA: " OLD "\r\n\r\n" OLD
#define NO_STARS NO "Content-Length: 9\r\nA: *********\r\n\r\n*********"
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define PAGE(status, n, text)                                                                                          \
    "HTTP/1.1 " status "\r\nContent-Type: application/json\r\nContent-Length: " n "\r\nConnection: close\r\n\r\n" text

/* What the judge says to a 401. */
enum verdict { LET_IT_PASS, AGAIN, AGAIN_BARE, AGAIN_BAD, PAGE_503, PAGE_KEEP };

struct sample {
    const char *name;
    enum verdict verdict;
    const char *request, *origin;
    const char *response, *second; /* the second once the first has been seen to */
    const char *guest;
    const char *events;
    enum sm_bridge_end end;
};

struct run {
    struct sm_bridge *b;
    enum verdict verdict;
    bool later;
    bool no_replay;
    uint64_t pending;
    bool second; /* the pending question */
    GString *got[SM_BRIDGE_SIDES];
    GString *events;
    struct sm_scrub *scrub[2];
    size_t account;
};

static void answer(struct run *r)
{
    struct sm_bridge_edit edit = {.name = "x-key", .value_len = strlen(OLD), .replay = !r->no_replay};
    struct sm_bridge_answer a = {.pass = true, .status = 503, .body = "{}", .body_len = 2, .edit = &edit};
    uint64_t req = r->pending;

    if (req == 0)
        return;
    r->pending = 0;
    edit.value = r->second ? NEW : OLD;
    edit.scrub = r->scrub[r->second];
    if (r->second && r->verdict == AGAIN_BARE)
        a.edit = NULL;
    if (r->second && r->verdict == AGAIN_BAD)
        edit.value = "new\ntoken";
    if (r->second && (r->verdict == PAGE_503 || r->verdict == PAGE_KEEP))
        a.pass = false;
    a.keep = r->verdict == PAGE_KEEP;
    sm_bridge_answer(r->b, req, &a);
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *q)
{
    struct run *r = ctx;

    (void)b;
    assert_true(r->pending == 0);
    r->pending = q->req;
    r->second = false;
    if (!r->later)
        answer(r);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *q)
{
    struct run *r = ctx;
    struct sm_text key = sm_bridge_request_value(q, "X-Key", 0);

    (void)b;
    assert_true(r->pending == 0);
    assert_true(r->account > 0);
    assert_string_equal(q->protocol, "HTTP/1.1");
    assert_int_equal(q->query.len, 1);
    assert_int_equal(q->host.len, 6);
    g_string_append_printf(r->events, "?%u %.*s %.*s %.*s ", (unsigned)q->req, (int)q->method.len, q->method.ptr,
                           (int)q->path.len, q->path.ptr, (int)key.len, key.ptr);
    if (r->verdict == LET_IT_PASS)
        return false;
    r->pending = q->req;
    r->second = true;
    if (!r->later)
        answer(r);
    return true;
}

static void on_response(void *ctx, const struct sm_bridge_response *q)
{
    struct run *r = ctx;

    g_string_append_printf(r->events, "!%u %u %s %u/%u", (unsigned)q->req, q->status,
                           sm_bridge_outcome_name(q->outcome), (unsigned)q->bytes_up, (unsigned)q->bytes_down);
    if (q->scrubbed)
        g_string_append_printf(r->events, " *%u", q->scrubbed);
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
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page, .rejected = on_rejected};

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

/* Bytes, with no answer to what they may ask. */
static void put(struct run *r, enum sm_bridge_side side, const char *p, size_t n)
{
    while (n > 0) {
        size_t part = SM_MIN(n, sm_bridge_room(r->b, side));
        assert_true(part > 0);
        g_autofree uint8_t *copy = g_memdup2(p, part);
        sm_bridge_lend(r->b, side, copy, part);
        take(r);
        sm_bridge_keep(r->b);
        p += part;
        n -= part;
    }
}

static void feed(struct run *r, enum sm_bridge_side side, const char *p, size_t n)
{
    answer(r);
    put(r, side, p, n);
    answer(r);
    take(r);
}

static void say(struct run *r, enum sm_bridge_side side, const char *text)
{
    feed(r, side, text, strlen(text));
}

static void begin(struct run *r, enum verdict verdict, bool later)
{
    struct sm_bridge_config config = {.tls = true, .strip_alt_svc = true, .account = &r->account};

    *r = (struct run){.verdict = verdict, .later = later};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        r->got[side] = g_string_new(NULL);
    r->events = g_string_new(NULL);
    r->scrub[0] = sm_scrub_new((const uint8_t *)OLD, strlen(OLD));
    r->scrub[1] = sm_scrub_new((const uint8_t *)NEW, strlen(NEW));
    r->b = sm_bridge_new_h1(&ops, r, &config);
}

static void finish(struct run *r)
{
    sm_bridge_free(r->b);
    assert_int_equal(r->account, 0);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        sm_scrub_unref(r->scrub[side]);
        g_string_free(r->got[side], TRUE);
    }
    g_string_free(r->events, TRUE);
}

static void same(const char *name, size_t cut, const char *what, const char *got, const char *want)
{
    if (strcmp(got, want) != 0)
        fail_msg("%s, cut %zu: %s\n--- got\n%s\n--- expected\n%s\n---", name, cut, what, got, want);
}

static void look(const struct run *r, const char *name, const char *origin, const char *guest, const char *events,
                 enum sm_bridge_end end)
{
    same(name, 0, "origin", r->got[SM_BRIDGE_ORIGIN]->str, origin);
    same(name, 0, "guest", r->got[SM_BRIDGE_GUEST]->str, guest);
    same(name, 0, "events", r->events->str, events);
    assert_int_equal(sm_bridge_ended(r->b), end);
}

static void play_part(struct run *r, enum sm_bridge_side side, const char *text, size_t cut, size_t *before)
{
    size_t len = text ? strlen(text) : 0;
    size_t at = cut > *before && cut < *before + len ? cut - *before : 0;

    for (size_t i = 0; cut == SIZE_MAX && i < len; i++)
        feed(r, side, text + i, 1);
    if (cut != SIZE_MAX && len > 0) {
        feed(r, side, text, at);
        feed(r, side, text + at, len - at);
    }
    *before += len;
}

/* cut: of request and responses one behind the other; SIZE_MAX: byte by byte. Returns their length. */
static size_t play(const struct sample *s, size_t cut, bool later)
{
    struct run r;
    size_t before = 0;

    begin(&r, s->verdict, later);
    play_part(&r, SM_BRIDGE_GUEST, s->request, cut, &before);
    play_part(&r, SM_BRIDGE_ORIGIN, s->response, cut, &before);
    play_part(&r, SM_BRIDGE_ORIGIN, s->second, cut, &before);
    same(s->name, cut, "origin", r.got[SM_BRIDGE_ORIGIN]->str, s->origin);
    same(s->name, cut, "guest", r.got[SM_BRIDGE_GUEST]->str, s->guest);
    same(s->name, cut, "events", r.events->str, s->events);
    assert_int_equal(sm_bridge_ended(r.b), s->end);
    /* Nothing is kept of what is over. */
    assert_int_equal(r.account, 0);
    finish(&r);
    return before;
}

#define GET(key) REQUEST(LINE, key, "")
#define POST_FIVE(key) REQUEST("POST /p?q HTTP/1.1\r\n", key, "Content-Length: 5\r\n") "hello"
#define POST_CHUNKED(key, trailer)                                                                                     \
    REQUEST("POST /p?q HTTP/1.1\r\n", key, "Transfer-Encoding: chunked\r\n")                                           \
    "3;a\r\nhel\r\n2\r\nlo\r\n0\r\n" trailer "\r\n"

static const struct sample samples[] = {
    {"a GET", AGAIN, GET("fake"), GET(OLD) GET(NEW), NO_OLD, OK, OK, ASKED "!1 200 done 0/2", SM_BRIDGE_LIVE},
    {"a 401 without a body", AGAIN, GET("fake"), GET(OLD) GET(NEW), NO "Content-Length: 0\r\n\r\n", OK, OK,
     ASKED "!1 200 done 0/2", SM_BRIDGE_LIVE},
    {"a chunked 401 with trailers", AGAIN, GET("fake"), GET(OLD) GET(NEW),
     NO "Transfer-Encoding: chunked\r\n\r\n2;x\r\nno\r\n0\r\nA: b\r\n\r\n", OK, OK, ASKED "!1 200 done 0/2",
     SM_BRIDGE_LIVE},
    {"HEAD", AGAIN, REQUEST("HEAD /p?q HTTP/1.1\r\n", "fake", ""),
     REQUEST("HEAD /p?q HTTP/1.1\r\n", OLD, "") REQUEST("HEAD /p?q HTTP/1.1\r\n", NEW, ""),
     NO "Content-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "?1 HEAD /p fake !1 200 done 0/0", SM_BRIDGE_LIVE},
    {"a body", AGAIN, POST_FIVE("fake"), POST_FIVE(OLD) POST_FIVE(NEW), NO_OLD, OK, OK,
     "?1 POST /p fake !1 200 done 5/2", SM_BRIDGE_LIVE},
    {"a chunked body", AGAIN, POST_CHUNKED("fake", ""), POST_CHUNKED(OLD, "") POST_CHUNKED(NEW, ""), NO_OLD, OK, OK,
     "?1 POST /p fake !1 200 done 5/2", SM_BRIDGE_LIVE},
    {"trailers", AGAIN, POST_CHUNKED("fake", "A: b\r\n"), POST_CHUNKED(OLD, "A: b\r\n"), NO_OLD, NULL, NO_STARS,
     "!1 401 done 5/9 *2", SM_BRIDGE_LIVE},
    {"the judge says no", LET_IT_PASS, GET("fake"), GET(OLD), NO_OLD, NULL, NO_STARS, ASKED "!1 401 done 0/9 *2",
     SM_BRIDGE_LIVE},
    {"a second 401", AGAIN, GET("fake"), GET(OLD) GET(NEW), NO_OLD, NO "Content-Length: 10\r\n\r\n" NEW "!",
     NO "Content-Length: 10\r\n\r\n*********!", ASKED "!1 401 done 0/10 *1", SM_BRIDGE_LIVE},
    {"scrubbed anew", AGAIN, GET("fake"), GET(OLD) GET(NEW), NO_OLD,
     "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" OLD "<>" NEW,
     "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" OLD "<>*********", ASKED "!1 200 done 0/20 *1", SM_BRIDGE_LIVE},
    {"1xx of both", AGAIN, GET("fake"), GET(OLD) GET(NEW), "HTTP/1.1 103 " OLD "\r\n\r\n" NO_OLD,
     "HTTP/1.1 100 Continue\r\n\r\n" OK, "HTTP/1.1 103 *********\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" OK,
     ASKED "!1 200 done 0/2 *1", SM_BRIDGE_LIVE},
    {"Expect stays", AGAIN,
     REQUEST("POST /p?q HTTP/1.1\r\n", "fake", "Expect: 100-continue\r\nContent-Length: 2\r\n") "hi",
     REQUEST("POST /p?q HTTP/1.1\r\n", OLD, "Expect: 100-continue\r\nContent-Length: 2\r\n") "hi" REQUEST(
         "POST /p?q HTTP/1.1\r\n", NEW, "Expect: 100-continue\r\nContent-Length: 2\r\n") "hi",
     "HTTP/1.1 100 Continue\r\n\r\n" NO_OLD, OK, "HTTP/1.1 100 Continue\r\n\r\n" OK, "?1 POST /p fake !1 200 done 2/2",
     SM_BRIDGE_LIVE},
    {"an offer of h2c", AGAIN,
     REQUEST(LINE, "fake", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
     GET(OLD) GET(NEW), NO_OLD, OK, OK, ASKED "!1 200 done 0/2", SM_BRIDGE_LIVE},
    {"again without an edit", AGAIN_BARE, GET("fake"), GET(OLD) GET("fake"), NO_OLD,
     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" NEW, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" NEW,
     ASKED "!1 200 done 0/9", SM_BRIDGE_LIVE},
    {"again with an edit that cannot be", AGAIN_BAD, GET("fake"), GET(OLD), NO_OLD, NULL,
     PAGE("502 Bad Gateway", "12", "edit_invalid"), ASKED "!1 502 refused 0/12", SM_BRIDGE_FINISHED},
    {"refused then", PAGE_503, POST_FIVE("fake"), POST_FIVE(OLD), NO_OLD, NULL,
     PAGE("503 Service Unavailable", "2", "{}"), "?1 POST /p fake !1 503 refused 5/2", SM_BRIDGE_FINISHED},
    {"a connection that ends", AGAIN, GET("fake"), GET(OLD), NO "Connection: close\r\nContent-Length: 2\r\n\r\nno",
     NULL, NO "Connection: close\r\nContent-Length: 2\r\n\r\nno", "!1 401 done 0/2", SM_BRIDGE_FINISHED},
    {"an origin of HTTP/1.0", AGAIN, GET("fake"), GET(OLD), "HTTP/1.0 401 no\r\nContent-Length: 2\r\n\r\nno", NULL,
     "HTTP/1.0 401 no\r\nContent-Length: 2\r\n\r\nno", "!1 401 done 0/2", SM_BRIDGE_FINISHED},
    {"a guest that wants the end", AGAIN, REQUEST(LINE, "fake", "Connection: close\r\n"),
     REQUEST(LINE, OLD, "Connection: close\r\n"), NO_OLD, NULL, NO_STARS, "!1 401 done 0/9 *2", SM_BRIDGE_FINISHED},
    {"an upgrade request", AGAIN, REQUEST(LINE, "fake", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
     REQUEST(LINE, OLD, "Connection: Upgrade\r\nUpgrade: websocket\r\n"), NO_OLD, NULL, NO_STARS, "!1 401 done 0/9 *2",
     SM_BRIDGE_LIVE},
    {"another status", AGAIN, GET("fake"), GET(OLD), "HTTP/1.1 403 x\r\nContent-Length: 9\r\n\r\n" OLD, NULL,
     "HTTP/1.1 403 x\r\nContent-Length: 9\r\n\r\n*********", "!1 403 done 0/9 *1", SM_BRIDGE_LIVE},
    {"a 401 that breaks a rule", AGAIN, GET("fake"), GET(OLD), NO "Transfer-Encoding: chunked\r\n\r\n2\r\nnoXX", NULL,
     PAGE("502 Bad Gateway", "10", "http_chunk"), "#1 origin http_chunk !1 502 broken 0/10", SM_BRIDGE_FINISHED},
};

static void exchanges(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++)
        for (unsigned later = 0; later < 2; later++) {
            size_t len = play(&samples[i], SIZE_MAX, later);
            for (size_t cut = 0; cut < len; cut++)
                (void)play(&samples[i], cut, later);
        }
}

/* Bodies and responses of just the size that is kept, and one byte more. */
static void bounds(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct run r;
        g_autofree char *body = g_strnfill(SM_BRIDGE_REPLAY_BODY_MAX + more, 'b');
        g_autofree char *sent = g_strdup_printf(
            REQUEST("POST /p?q HTTP/1.1\r\n", "fake", "Content-Length: %zu\r\n") "%s", strlen(body), body);
        g_autofree char *old =
            g_strdup_printf(REQUEST("POST /p?q HTTP/1.1\r\n", OLD, "Content-Length: %zu\r\n") "%s", strlen(body), body);
        g_autofree char *new =
            g_strdup_printf(REQUEST("POST /p?q HTTP/1.1\r\n", NEW, "Content-Length: %zu\r\n") "%s", strlen(body), body);
        g_autofree char *both = g_strconcat(old, new, NULL);
        g_autofree char *told = g_strdup_printf("%s%zu/%u%s", more ? "!1 401 done " : "?1 POST /p fake !1 200 done ",
                                                strlen(body), more ? 9 : 2, more ? " *2" : "");
        begin(&r, AGAIN, false);
        say(&r, SM_BRIDGE_GUEST, sent);
        assert_true(more ? r.account == 0 : r.account > SM_BRIDGE_REPLAY_BODY_MAX);
        say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
        if (!more)
            say(&r, SM_BRIDGE_ORIGIN, OK);
        look(&r, "body", more ? old : both, more ? NO_STARS : OK, told, SM_BRIDGE_LIVE);
        finish(&r);

        size_t rest = SM_BRIDGE_REPLAY_RESPONSE_MAX - strlen(NO "Content-Length: 16300\r\n\r\n");
        g_autofree char *text = g_strnfill(rest + more, 'r');
        g_autofree char *no = g_strdup_printf(NO "Content-Length: %zu\r\n\r\n%s", strlen(text), text);
        g_autofree char *passed = g_strdup_printf("!1 401 done 0/%zu", strlen(text));
        for (unsigned cut = 0; cut < 3; cut++) {
            begin(&r, AGAIN, false);
            if (cut == 2) /* without a scrub bodies go on where they lie */
                sm_scrub_unref(sm_steal_ptr(&r.scrub[0]));
            say(&r, SM_BRIDGE_GUEST, GET("fake"));
            feed(&r, SM_BRIDGE_ORIGIN, no, cut ? 16000 : 0);
            say(&r, SM_BRIDGE_ORIGIN, no + (cut ? 16000 : 0));
            if (!more)
                say(&r, SM_BRIDGE_ORIGIN, OK);
            look(&r, "response", more ? GET(OLD) : GET(OLD) GET(NEW), more ? no : OK,
                 more ? passed : ASKED "!1 200 done 0/2", SM_BRIDGE_LIVE);
            finish(&r);
        }
    }
}

/* An answer that comes before the request has: the rest of it would be missing. */
static void early(void **state)
{
    struct run r;

    (void)state;
    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, REQUEST("POST /p?q HTTP/1.1\r\n", "fake", "Content-Length: 5\r\n") "hel");
    say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
    assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, NO_STARS);
    say(&r, SM_BRIDGE_GUEST, "lo");
    look(&r, "early", POST_FIVE(OLD), NO_STARS, "!1 401 done 5/9 *2", SM_BRIDGE_LIVE);
    assert_int_equal(r.account, 0);
    finish(&r);
}

/* Without the flag, and for a caller that has no use for it, nothing is kept and nothing waits. */
static void unasked_for(void **state)
{
    static const struct sm_bridge_ops without = {.request = on_request, .response = on_response, .broken = on_broken};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct run r;
        begin(&r, AGAIN, false);
        r.no_replay = i == 0;
        if (i == 1)
            r.b->ops = &without;
        say(&r, SM_BRIDGE_GUEST, POST_FIVE("fake") GET("fake"));
        assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, POST_FIVE(OLD) GET(OLD));
        assert_int_equal(r.account, 0);
        say(&r, SM_BRIDGE_ORIGIN, NO_OLD OK);
        look(&r, "not asked for", POST_FIVE(OLD) GET(OLD), NO_STARS OK, "!1 401 done 5/9 *2!2 200 done 0/2",
             SM_BRIDGE_LIVE);
        finish(&r);
    }
}

/* Requests that were sent ahead wait until it is clear that nothing is sent again, and the responses keep their order. */
static void pipelined(void **state)
{
    (void)state;
    for (unsigned later = 0; later < 2; later++) {
        struct run r;
        begin(&r, AGAIN, later);
        say(&r, SM_BRIDGE_GUEST, GET("fake") POST_FIVE("fake") "GET /p?q HT");
        assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, GET(OLD));
        assert_int_equal(sm_bridge_room(r.b, SM_BRIDGE_GUEST), 0);
        put(&r, SM_BRIDGE_ORIGIN, NO_OLD, strlen(NO_OLD));
        assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, later ? GET(OLD) : GET(OLD) GET(NEW) POST_FIVE(OLD));
        answer(&r); /* and now it is asked about the second one */
        assert_int_equal(r.pending, later ? 2 : 0);
        answer(&r);
        take(&r);
        assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, GET(OLD) GET(NEW) POST_FIVE(OLD));
        assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, "");
        say(&r, SM_BRIDGE_ORIGIN, OK "HTTP/1.1 2");
        assert_string_equal(r.got[SM_BRIDGE_GUEST]->str, OK);
        say(&r, SM_BRIDGE_ORIGIN, "04 x\r\n\r\n");
        say(&r, SM_BRIDGE_GUEST, "TP/1.1\r\n" HOST "\r\n");
        look(&r, "pipelined", GET(OLD) GET(NEW) POST_FIVE(OLD) LINE HOST "x-key: " OLD "\r\n\r\n",
             OK "HTTP/1.1 204 x\r\n\r\n", ASKED "!1 200 done 0/2!2 204 done 5/0", SM_BRIDGE_LIVE);
        finish(&r);
    }
}

/* ... and one byte of a head that is not 401 is enough to let them go on; a body that will not be sent again, too. */
static void pipelined_goes_on(void **state)
{
    struct run r;

    (void)state;
    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, GET("fake") GET("fake"));
    say(&r, SM_BRIDGE_ORIGIN, "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r");
    assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, GET(OLD));
    say(&r, SM_BRIDGE_ORIGIN, "\n");
    assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, GET(OLD) GET(OLD));
    finish(&r);

    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, POST_CHUNKED("fake", "A: b\r\n") GET("fake"));
    assert_string_equal(r.got[SM_BRIDGE_ORIGIN]->str, POST_CHUNKED(OLD, "A: b\r\n") GET(OLD));
    finish(&r);
}

/* The origin goes, or says what nobody asked for, while the judge thinks: the 401 is all that there will be. */
static void origin_goes(void **state)
{
    static const struct {
        const char *more;
        bool eof, cut;
        const char *events;
    } cases[] = {
        {"", true, false, ASKED "!1 401 done 0/9 *2"},
        {"", true, true, ASKED "!1 401 done 0/9 *2"},
        {"HTTP/1.1 408 x\r\n\r\n", false, false, ASKED "#1 origin http_response_unasked !1 401 done 0/9 *2"},
        {"HTT", true, false, ASKED "#1 origin http_response_unasked !1 401 done 0/9 *2"},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct run r;
        begin(&r, AGAIN, true);
        say(&r, SM_BRIDGE_GUEST, GET("fake"));
        answer(&r);
        put(&r, SM_BRIDGE_ORIGIN, NO_OLD, strlen(NO_OLD));
        assert_true(r.account > strlen(GET("fake")) + strlen(NO_OLD) - 1);
        put(&r, SM_BRIDGE_ORIGIN, cases[i].more, strlen(cases[i].more));
        if (cases[i].eof)
            sm_bridge_eof(r.b, SM_BRIDGE_ORIGIN, cases[i].cut);
        answer(&r); /* too late */
        take(&r);
        look(&r, "origin goes", GET(OLD), NO_STARS, cases[i].events, SM_BRIDGE_FINISHED);
        finish(&r);
    }
}

/* It goes in the middle of the 401: the guest has what came, and no end. */
static void origin_goes_early(void **state)
{
    struct run r;

    (void)state;
    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, GET("fake"));
    say(&r, SM_BRIDGE_ORIGIN, NO "Content-Length: 9\r\n\r\nnono");
    sm_bridge_eof(r.b, SM_BRIDGE_ORIGIN, false);
    take(&r);
    look(&r, "cut", GET(OLD), NO "Content-Length: 9\r\n\r\nnono", "!1 401 reset 0/4", SM_BRIDGE_CUT);
    finish(&r);
}

static void guest_goes(void **state)
{
    struct run r;

    (void)state;
    /* It has ended its side before: as it is closed at the origin nothing more can be sent. */
    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, GET("fake"));
    sm_bridge_eof(r.b, SM_BRIDGE_GUEST, false);
    assert_true(sm_bridge_out_closed(r.b, SM_BRIDGE_ORIGIN));
    say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
    look(&r, "half closed before", GET(OLD), NO_STARS, "!1 401 done 0/9 *2", SM_BRIDGE_FINISHED);
    finish(&r);

    /* While the judge thinks: its end is passed on behind what is sent again. */
    begin(&r, AGAIN, true);
    say(&r, SM_BRIDGE_GUEST, GET("fake"));
    put(&r, SM_BRIDGE_ORIGIN, NO_OLD, strlen(NO_OLD));
    sm_bridge_eof(r.b, SM_BRIDGE_GUEST, false);
    assert_false(sm_bridge_out_closed(r.b, SM_BRIDGE_ORIGIN));
    answer(&r);
    take(&r);
    assert_true(sm_bridge_out_closed(r.b, SM_BRIDGE_ORIGIN));
    say(&r, SM_BRIDGE_ORIGIN, OK);
    look(&r, "half closed", GET(OLD) GET(NEW), OK, ASKED "!1 200 done 0/2", SM_BRIDGE_FINISHED);
    finish(&r);

    /* It has sent a request ahead and ended: that is sent on in its turn, and then the end. */
    begin(&r, AGAIN, false);
    say(&r, SM_BRIDGE_GUEST, GET("fake") GET("fake"));
    sm_bridge_eof(r.b, SM_BRIDGE_GUEST, false);
    assert_false(sm_bridge_out_closed(r.b, SM_BRIDGE_ORIGIN));
    say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
    assert_true(sm_bridge_out_closed(r.b, SM_BRIDGE_ORIGIN));
    say(&r, SM_BRIDGE_ORIGIN, OK OK);
    look(&r, "half closed behind another", GET(OLD) GET(NEW) GET(OLD), OK OK, ASKED "!1 200 done 0/2!2 200 done 0/2",
         SM_BRIDGE_FINISHED);
    finish(&r);

    /* It is gone. */
    begin(&r, AGAIN, true);
    say(&r, SM_BRIDGE_GUEST, GET("fake"));
    put(&r, SM_BRIDGE_ORIGIN, NO_OLD, strlen(NO_OLD));
    sm_bridge_eof(r.b, SM_BRIDGE_GUEST, true);
    answer(&r);
    take(&r);
    look(&r, "gone", GET(OLD), "", ASKED "!1 0 reset 0/0", SM_BRIDGE_CUT);
    finish(&r);

    /* Freed with all that is held. */
    begin(&r, AGAIN, true);
    say(&r, SM_BRIDGE_GUEST, POST_FIVE("fake") GET("fake"));
    put(&r, SM_BRIDGE_ORIGIN, NO_OLD, strlen(NO_OLD));
    finish(&r);
}

/* Refused with the second answer, without prejudice to the connection: what was sent ahead goes on. */
static void refused_and_kept(void **state)
{
    (void)state;
    for (unsigned later = 0; later < 2; later++) {
        struct run r;
        begin(&r, PAGE_KEEP, later);
        say(&r, SM_BRIDGE_GUEST, POST_FIVE("fake") GET("fake"));
        say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
        answer(&r); /* of the one behind it */
        take(&r);
        say(&r, SM_BRIDGE_ORIGIN, OK);
        look(&r, "kept", POST_FIVE(OLD) GET(OLD),
             "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" OK,
             "?1 POST /p fake !1 503 refused 5/2!2 200 done 0/2", SM_BRIDGE_LIVE);
        finish(&r);
    }
}

/* More than one request of a connection, each in its turn. */
static void one_after_another(void **state)
{
    struct run r;

    (void)state;
    begin(&r, AGAIN, true);
    for (unsigned i = 0; i < 3; i++) {
        say(&r, SM_BRIDGE_GUEST, POST_FIVE("fake"));
        say(&r, SM_BRIDGE_ORIGIN, NO_OLD);
        say(&r, SM_BRIDGE_ORIGIN, OK);
    }
#define BOTH POST_FIVE(OLD) POST_FIVE(NEW)
    look(&r, "three", BOTH BOTH BOTH, OK OK OK,
         "?1 POST /p fake !1 200 done 5/2?2 POST /p fake !2 200 done 5/2?3 POST /p fake !3 200 done 5/2",
         SM_BRIDGE_LIVE);
    assert_int_equal(r.account, 0);
    finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchanges),         cmocka_unit_test(bounds),           cmocka_unit_test(early),
        cmocka_unit_test(unasked_for),       cmocka_unit_test(pipelined),        cmocka_unit_test(pipelined_goes_on),
        cmocka_unit_test(origin_goes),       cmocka_unit_test(guest_goes),       cmocka_unit_test(origin_goes_early),
        cmocka_unit_test(one_after_another), cmocka_unit_test(refused_and_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
