/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/1 bridge against a model: connections are made up at random from valid parts, so that it is known beforehand
 * what has to arrive, and are played with random cuts, random readers and a judge that takes its time. Everything that
 * passes has to arrive bit-identical and in order, nothing before its answer, nothing of what is refused. Every other
 * connection has edits: its requests are given a header, and a secret that is all over its responses' bodies, across
 * their chunks, is overwritten wherever a plain search finds it. Some of its requests get a 401 and are sent again, if
 * they can be and the judge wants it.
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

#define CONNECTIONS 4000
#define EXCHANGES_MAX 12
#define SECRET "0\r\n\r\nHTTP/1" /* looks like framing, too */

struct response {
    GString *sent, *want; /* as it arrives */
    uint64_t down;        /* payload */
    uint16_t status;
    unsigned matches;
};

struct message {
    GString *request;
    GString *want_request, *want_again; /* as they arrive; again: NULL when it is sent only once */
    uint64_t up;
    struct response rejected, response; /* rejected.sent NULL: there is none */
    bool refused, keep;
};

struct model {
    GRand *rand;
    struct message messages[EXCHANGES_MAX];
    unsigned n_messages;
    unsigned asked, answered, told;
    bool again;    /* the last question was about a 401 */
    bool trailers; /* of the body that was made last */
    struct sm_bridge *b;
    GString *in[SM_BRIDGE_SIDES];
    GString *got[SM_BRIDGE_SIDES];
    size_t allowed;         /* bytes that may be at the origin by now */
    struct sm_scrub *scrub; /* NULL: a connection without edits */
    size_t account;
    GArray *spans; /* of the payload in the message that is being made */
};

struct span {
    size_t off, len;
};

static unsigned upto(struct model *m, unsigned n)
{
    return (unsigned)g_rand_int_range(m->rand, 0, (gint32)n);
}

static const char *pick(struct model *m, const char *const *words, unsigned n)
{
    return words[upto(m, n)];
}
#define PICK(m, ...) pick(m, (const char *const[]){__VA_ARGS__}, SM_ARRAY_LEN(((const char *const[]){__VA_ARGS__})))

static void add_bytes(struct model *m, GString *s, size_t n)
{
    /* Mostly what looks like framing, to be mistaken for it. */
    static const char tricky[] = "\r\n\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";

    for (size_t i = 0; i < n; i++)
        g_string_append_c(s, upto(m, 3) ? tricky[(i + n) % (sizeof(tricky) - 1)] : (char)upto(m, 256));
}

static void add_payload(struct model *m, GString *s, size_t n)
{
    struct span span = {s->len, n};

    add_bytes(m, s, n);
    g_array_append_val(m->spans, span);
}

/* The payload's bytes one after another, out of the message or back into it. */
static void move_payload(struct model *m, char *message, char *payload, bool out)
{
    for (guint i = 0; i < m->spans->len; i++) {
        const struct span *span = &g_array_index(m->spans, struct span, i);
        memcpy(out ? payload : message + span->off, out ? message + span->off : payload, span->len);
        payload += span->len;
    }
}

/* Put the secret at a few places of the response's payload, and overwrite it in what is to arrive. */
static void plant(struct model *m, struct response *r, size_t len)
{
    g_autofree char *payload = g_malloc0(len + 1);
    size_t secret = strlen(SECRET);

    move_payload(m, r->sent->str, payload, true);
    for (unsigned i = 0; i < 3 && len >= secret; i++)
        memcpy(payload + upto(m, (unsigned)(len - secret + 1)), SECRET, secret);
    move_payload(m, r->sent->str, payload, false);
    for (char *at = payload; (at = memmem(at, (size_t)(payload + len - at), SECRET, secret)); r->matches++)
        memset(at, '*', secret);
    g_string_append_len(r->want, r->sent->str, (gssize)r->sent->len);
    move_payload(m, r->want->str, payload, false);
}

static void add_fields(struct model *m, GString *s)
{
    for (unsigned n = upto(m, 5); n > 0; n--)
        g_string_append_printf(s, "%s:%s%s%s\r\n", PICK(m, "X-A", "x-a", "ETag", "Accept", "Via", "Vary", "X_y~z"),
                               PICK(m, "", " ", " \t "),
                               PICK(m, "", "a", "a, b;c=\"d\"", "\xc3\xa4", "=?%00", "h3=:443"),
                               PICK(m, "", " ", "\t"));
}

static uint64_t add_body(struct model *m, GString *s)
{
    uint64_t payload = 0;

    m->trailers = false;
    if (upto(m, 2)) {
        size_t n = upto(m, 4) ? upto(m, 40) : upto(m, 5000);
        g_string_append_printf(s, "%s:%s%zu\r\n", PICK(m, "Content-Length", "content-length"), PICK(m, "", " "), n);
        add_fields(m, s);
        g_string_append(s, "\r\n");
        add_payload(m, s, n);
        return n;
    }
    g_string_append_printf(s, "Transfer-Encoding: %s\r\n", PICK(m, "chunked", "Chunked"));
    add_fields(m, s);
    g_string_append(s, "\r\n");
    for (unsigned n = upto(m, 5); n > 0; n--) {
        unsigned size = upto(m, 4) ? upto(m, 20) + 1 : upto(m, 3000) + 1;
        g_string_append_printf(s, upto(m, 2) ? "%x%s\r\n" : "00%X%s\r\n", size,
                               PICK(m, "", ";a", " ;a=\"b;c\"", "; \x80"));
        add_payload(m, s, size);
        g_string_append(s, "\r\n");
        payload += size;
    }
    g_string_append(s, PICK(m, "0\r\n", "000\r\n", "0;last\r\n"));
    size_t before = s->len;
    add_fields(m, s);
    m->trailers = s->len > before;
    g_string_append(s, "\r\n");
    return payload;
}

static void make_response(struct model *m, struct response *r, uint16_t status, bool head)
{
    *r = (struct response){.sent = g_string_new(NULL), .want = g_string_new(NULL), .status = status};
    g_string_append_printf(r->sent, "HTTP/1.1 %u %s\r\n", status, PICK(m, "OK", "", "x  y \xff"));
    add_fields(m, r->sent);
    if (head || status == 204 || status == 304) {
        g_string_append(r->sent, PICK(m, "\r\n", "Content-Length: 12\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"));
    } else {
        g_array_set_size(m->spans, 0);
        r->down = add_body(m, r->sent);
        if (m->scrub) {
            plant(m, r, (size_t)r->down);
            return;
        }
    }
    g_string_append_len(r->want, r->sent->str, (gssize)r->sent->len);
}

static GString *interim(struct model *m)
{
    GString *s = g_string_new(NULL);

    for (unsigned n = upto(m, 4) ? 0 : upto(m, 3); n > 0; n--) {
        g_string_append(s, PICK(m, "HTTP/1.1 100 Continue\r\n", "HTTP/1.1 103\r\n", "HTTP/1.1 199 x y\r\n"));
        add_fields(m, s);
        g_string_append(s, "\r\n");
    }
    return s;
}

/* With 1xx in front of it. */
static void add_interim(struct model *m, struct response *r, bool lost)
{
    GString *s = interim(m);

    g_string_prepend_len(r->sent, s->str, (gssize)s->len);
    if (lost)
        g_string_truncate(r->want, 0);
    g_string_prepend_len(r->want, s->str, (gssize)s->len);
    g_string_free(s, TRUE);
}

/* The request with its edit. */
static GString *edited(const struct message *msg, size_t key, size_t behind, const char *value)
{
    GString *s = g_string_new_len(msg->request->str, (gssize)msg->request->len);
    bool fake = behind > key;

    if (!fake)
        key = (size_t)(strstr(s->str, "\r\n\r\n") - s->str) + 2;
    else
        g_string_erase(s, (gssize)key, (gssize)(behind - key));
    g_autofree char *line = g_strdup_printf("%s: %s\r\n", fake ? "X-KEY" : "x-key", value);
    g_string_insert(s, (gssize)key, line);
    return s;
}

static void make(struct model *m, struct message *msg, bool refused)
{
    const char *method = PICK(m, "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "PATCH", "TRACE", "m-x");
    bool head = strcmp(method, "HEAD") == 0;

    bool fake = upto(m, 2);

    *msg = (struct message){.request = g_string_new(NULL), .refused = refused, .keep = upto(m, 2)};
    g_string_append_printf(msg->request, "%s %s%s HTTP/1.1\r\n", method, PICK(m, "", "http://a.test"),
                           refused ? "/deny" : PICK(m, "/", "/x?y", "/a%20b?c=/?d", "//a/../b"));
    add_fields(m, msg->request);
    g_string_append(msg->request, PICK(m, "Host: a.test\r\n", "HOST:a.test\r\n"));
    size_t key = msg->request->len;
    if (fake)
        g_string_append(msg->request, "X-KEY:\tfake\r\n");
    size_t behind = msg->request->len;
    m->trailers = false;
    if (upto(m, 2)) {
        msg->up = add_body(m, msg->request);
    } else {
        add_fields(m, msg->request);
        g_string_append(msg->request, "\r\n");
    }
    msg->want_request =
        m->scrub ? edited(msg, key, behind, "value") : g_string_new_len(msg->request->str, (gssize)msg->request->len);
    if (refused)
        return;
    bool trailers = m->trailers;
    static const uint16_t statuses[] = {200, 201, 204, 206, 304, 404, 500, 999};
    if (upto(m, 3) == 0) {
        make_response(m, &msg->rejected, 401, head);
        bool again = m->scrub && msg->keep && !trailers && upto(m, 4);
        add_interim(m, &msg->rejected, again);
        if (again)
            msg->want_again = edited(msg, key, behind, "another");
    }
    make_response(m, &msg->response, statuses[upto(m, SM_ARRAY_LEN(statuses))], head);
    add_interim(m, &msg->response, false);
}

/* What the guest gets. */
static const struct response * final(const struct message *msg)
{
    return msg->rejected.sent && !msg->want_again ? &msg->rejected : &msg->response;
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct model *m = ctx;

    (void)b;
    assert_int_equal(r->req, m->asked + 1);
    assert_int_equal(m->answered, m->asked); /* one after another */
    assert_true(m->asked < m->n_messages);
    m->asked++;
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct model *m = ctx;
    const struct message *msg = &m->messages[m->asked - 1];

    (void)b;
    assert_int_equal(r->req, m->asked);
    assert_int_equal(m->answered, m->asked);
    assert_true(msg->keep && msg->rejected.sent);
    assert_int_equal(r->method.len, strcspn(msg->request->str, " "));
    if (!msg->want_again)
        return false;
    m->answered--;
    m->again = true;
    return true;
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    struct model *m = ctx;
    const struct message *msg = &m->messages[m->told++];
    const struct response *got = final(msg);

    assert_int_equal(r->req, m->told);
    assert_int_equal(r->outcome, msg->refused ? SM_BRIDGE_REFUSED : SM_BRIDGE_DONE);
    assert_int_equal(r->status, msg->refused ? 403 : got->status);
    assert_int_equal(r->bytes_up, msg->refused ? 0 : msg->up);
    assert_int_equal(r->bytes_down, msg->refused ? 0 : got->down);
    assert_int_equal(r->scrubbed, msg->refused ? 0 : got->matches);
    assert_false(r->unscrubbed);
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    (void)ctx;
    fail_msg("%s, request %u: %s", sm_bridge_side_name(by), (unsigned)req, reason);
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .rejected = on_rejected};

static void answer(struct model *m)
{
    const struct message *msg = &m->messages[m->answered];
    struct sm_bridge_edit edit = {
        .name = "X-Key", .value = "value", .value_len = 5, .scrub = m->scrub, .replay = msg->keep};
    struct sm_bridge_answer a = {.pass = !msg->refused, .edit = m->scrub ? &edit : NULL};

    if (m->again) {
        edit.value = "another";
        edit.value_len = 7;
    }
    m->answered++;
    if (!msg->refused)
        m->allowed += m->again ? msg->want_again->len : msg->want_request->len;
    m->again = false;
    sm_bridge_answer(m->b, m->answered, &a);
}

static void take(struct model *m, enum sm_bridge_side side, size_t max)
{
    const uint8_t *p;
    size_t n = SM_MIN(sm_bridge_out(m->b, side, &p), max);

    g_string_append_len(m->got[side], (const char *)p, (gssize)n);
    sm_bridge_took(m->b, side, n);
    if (side == SM_BRIDGE_ORIGIN)
        assert_true(m->got[side]->len <= m->allowed);
}

/* Given, or lent: then some of it is taken before it goes away. */
static void feed(struct model *m, enum sm_bridge_side side, size_t max)
{
    size_t n = SM_MIN(SM_MIN(sm_bridge_room(m->b, side), m->in[side]->len), max);

    if (n == 0)
        return;
    uint8_t *copy = g_memdup2(m->in[side]->str, n);
    g_string_erase(m->in[side], 0, (gssize)n);
    if (g_rand_boolean(m->rand)) {
        sm_bridge_feed(m->b, side, copy, n);
    } else {
        sm_bridge_lend(m->b, side, copy, n);
        for (unsigned i = upto(m, 3); i > 0; i--)
            take(m, side == SM_BRIDGE_GUEST ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST, 1 + upto(m, 2000));
        sm_bridge_keep(m->b);
    }
    memset(copy, '#', n);
    g_free(copy);
}

static void play(struct model *m, uint32_t seed)
{
    struct sm_bridge_config config = {.tls = true, .strip_alt_svc = true, .account = &m->account};
    GString *want[SM_BRIDGE_SIDES] = {g_string_new(NULL), g_string_new(NULL)};
    unsigned responded = 0;
    bool second = false; /* the origin waits for the request to come again */
    bool refused;

    *m = (struct model){.rand = g_rand_new_with_seed(seed), .spans = g_array_new(FALSE, FALSE, sizeof(struct span))};
    if (seed % 2)
        m->scrub = sm_scrub_new((const uint8_t *)SECRET, strlen(SECRET));
    m->b = sm_bridge_new_h1(&ops, m, &config);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        m->in[side] = g_string_new(NULL);
        m->got[side] = g_string_new(NULL);
    }
    m->n_messages = upto(m, EXCHANGES_MAX) + 1;
    for (unsigned i = 0; i < m->n_messages; i++) {
        struct message *msg = &m->messages[i];
        make(m, msg, i + 1 == m->n_messages && upto(m, 3) == 0);
        g_string_append_len(m->in[SM_BRIDGE_GUEST], msg->request->str, (gssize)msg->request->len);
        if (msg->refused)
            continue;
        g_string_append_len(want[SM_BRIDGE_ORIGIN], msg->want_request->str, (gssize)msg->want_request->len);
        if (msg->rejected.sent)
            g_string_append_len(want[SM_BRIDGE_GUEST], msg->rejected.want->str, (gssize)msg->rejected.want->len);
        if (msg->want_again)
            g_string_append_len(want[SM_BRIDGE_ORIGIN], msg->want_again->str, (gssize)msg->want_again->len);
        if (final(msg) == &msg->response)
            g_string_append_len(want[SM_BRIDGE_GUEST], msg->response.want->str, (gssize)msg->response.want->len);
    }
    refused = m->messages[m->n_messages - 1].refused;
    if (refused)
        g_string_append(want[SM_BRIDGE_GUEST],
                        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    size_t most = upto(m, 3) ? 1 + upto(m, 60) : 1 + upto(m, 4000);
    size_t whole = 0; /* bytes of the requests up to and with `responded` */
    for (unsigned steps = 0; m->told < m->n_messages && steps < 1000000; steps++) {
        switch (upto(m, 6)) {
        case 0:
        case 1:
            feed(m, SM_BRIDGE_GUEST, 1 + upto(m, (unsigned)most));
            break;
        case 2:
            if (m->asked > m->answered)
                answer(m);
            break;
        case 3:
            take(m, SM_BRIDGE_ORIGIN, 1 + upto(m, (unsigned)most));
            /* The origin answers what it has got whole. */
            while (responded < m->n_messages && !m->messages[responded].refused) {
                const struct message *msg = &m->messages[responded];
                const GString *next = second ? msg->want_again : msg->want_request;
                if (m->got[SM_BRIDGE_ORIGIN]->len < whole + next->len)
                    break;
                const struct response *r = msg->rejected.sent && !second ? &msg->rejected : &msg->response;
                whole += next->len;
                second = r == &msg->rejected && msg->want_again;
                responded += !second;
                g_string_append_len(m->in[SM_BRIDGE_ORIGIN], r->sent->str, (gssize)r->sent->len);
            }
            break;
        case 4:
            feed(m, SM_BRIDGE_ORIGIN, 1 + upto(m, (unsigned)most));
            break;
        default:
            take(m, SM_BRIDGE_GUEST, 1 + upto(m, (unsigned)most));
            break;
        }
    }
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        const uint8_t *p;
        while (sm_bridge_out(m->b, side, &p) > 0)
            take(m, side, SIZE_MAX);
        if (!g_string_equal(m->got[side], want[side]))
            fail_msg("connection %u: %s got other bytes than were sent to it", seed, sm_bridge_side_name(side));
        g_string_free(want[side], TRUE);
    }
    assert_int_equal(m->told, m->n_messages);
    if (!refused)
        assert_int_equal(sm_bridge_ended(m->b), SM_BRIDGE_LIVE);
    assert_true(sm_bridge_idle(m->b));
    while (m->in[SM_BRIDGE_GUEST]->len > 0)
        feed(m, SM_BRIDGE_GUEST, SIZE_MAX);
    sm_bridge_eof(m->b, SM_BRIDGE_GUEST, false);
    assert_int_equal(sm_bridge_ended(m->b), SM_BRIDGE_FINISHED);

    sm_bridge_free(m->b);
    assert_int_equal(m->account, 0);
    sm_scrub_unref(m->scrub);
    g_array_unref(m->spans);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        g_string_free(m->in[side], TRUE);
        g_string_free(m->got[side], TRUE);
    }
    for (unsigned i = 0; i < m->n_messages; i++) {
        struct message *msg = &m->messages[i];
        GString *all[] = {msg->request,       msg->want_request,  msg->want_again,   msg->rejected.sent,
                          msg->rejected.want, msg->response.sent, msg->response.want};
        for (unsigned j = 0; j < SM_ARRAY_LEN(all); j++)
            if (all[j])
                g_string_free(all[j], TRUE);
    }
    g_rand_free(m->rand);
}

static void test_random_connections(void **state)
{
    struct model m;

    (void)state;
    for (uint32_t seed = 1; seed <= CONNECTIONS; seed++)
        play(&m, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_connections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
