/* SPDX-License-Identifier: BSD-3-Clause */
/* The HTTP/1 bridge when somebody does not read, or sends too much: what it takes in is bounded, and it goes on where it stopped. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include "http/bridge.h"
#include "http/h1.h"
#include "http/outq.h"
#include "http/response.h"

#define GET "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"

static struct {
    unsigned asked, told, broken;
    bool wait, refuse, keep;
    struct sm_bridge_response last;
} seen;

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct sm_bridge_answer a = {
        .pass = !seen.refuse, .keep = seen.keep, .body = seen.keep ? "page" : NULL, .body_len = 4};

    (void)ctx;
    seen.asked++;
    if (!seen.wait)
        sm_bridge_answer(b, r->req, &a);
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    (void)ctx;
    seen.told++;
    seen.last = *r;
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    (void)ctx;
    (void)by;
    (void)req;
    (void)reason;
    seen.broken++;
}

static const struct sm_bridge_ops ops = {.request = on_request, .response = on_response, .broken = on_broken};

static struct sm_bridge *begin(void)
{
    static const struct sm_bridge_config config = {.tls = true};

    memset(&seen, 0, sizeof(seen));
    return sm_bridge_new_h1(&ops, NULL, &config);
}

static void feed(struct sm_bridge *b, enum sm_bridge_side side, const char *text)
{
    sm_bridge_feed(b, side, (const uint8_t *)text, strlen(text));
}

/* As much as it takes, `piece` bytes at a time; returns how much that was. */
static size_t fill(struct sm_bridge *b, enum sm_bridge_side side, size_t piece)
{
    g_autofree uint8_t *data = g_malloc0(piece);
    size_t total = 0, n;

    while ((n = SM_MIN(sm_bridge_room(b, side), piece)) > 0) {
        sm_bridge_feed(b, side, data, n);
        total += n;
        if (total > 16 * SM_BRIDGE_OUT_MAX)
            fail_msg("it takes without end");
    }
    return total;
}

static size_t drain(struct sm_bridge *b, enum sm_bridge_side side)
{
    const uint8_t *p;
    size_t total = 0, n;

    while ((n = sm_bridge_out(b, side, &p)) > 0) {
        total += n;
        sm_bridge_took(b, side, n);
    }
    return total;
}

static void test_slow_reader_slows_the_writer(void **state)
{
    static const char *const heads[SM_BRIDGE_SIDES] = {
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"};
    static const size_t pieces[] = {1, 1000, 16384, SM_BRIDGE_OUT_MAX};
    const uint8_t *p;

    (void)state;
    for (unsigned from = 0; from < SM_BRIDGE_SIDES; from++) {
        enum sm_bridge_side to = from == SM_BRIDGE_GUEST ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST;
        for (size_t i = 0; i < SM_ARRAY_LEN(pieces); i++) {
            struct sm_bridge *b = begin();
            feed(b, SM_BRIDGE_GUEST, from == SM_BRIDGE_GUEST ? heads[from] : GET);
            if (from == SM_BRIDGE_ORIGIN)
                feed(b, from, heads[from]);
            size_t before = strlen(heads[from]);
            size_t taken = fill(b, from, pieces[i]);
            assert_int_equal(before + taken, SM_BRIDGE_OUT_MAX);
            assert_int_equal(sm_bridge_room(b, from), 0);
            /* What is taken makes room for as much, and no more. */
            assert_true(sm_bridge_out(b, to, &p) > 100);
            sm_bridge_took(b, to, 100);
            assert_int_equal(sm_bridge_room(b, from), 100);
            assert_int_equal(drain(b, to), SM_BRIDGE_OUT_MAX - 100);
            assert_int_equal(fill(b, from, pieces[i]), SM_BRIDGE_OUT_MAX);
            assert_int_equal(sm_bridge_ended(b), SM_BRIDGE_LIVE);
            sm_bridge_free(b);
        }
    }
}

static void test_raw_is_bounded_too(void **state)
{
    struct sm_bridge *b = begin();

    (void)state;
    feed(b, SM_BRIDGE_GUEST, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_int_equal(sm_bridge_room(b, SM_BRIDGE_GUEST), 0); /* behind an upgrade request nothing is read */
    drain(b, SM_BRIDGE_ORIGIN);
    feed(b, SM_BRIDGE_ORIGIN, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    drain(b, SM_BRIDGE_GUEST);
    assert_int_equal(fill(b, SM_BRIDGE_GUEST, 5000), SM_BRIDGE_OUT_MAX);
    assert_int_equal(fill(b, SM_BRIDGE_ORIGIN, 5000), SM_BRIDGE_OUT_MAX);
    sm_bridge_free(b);
}

static void test_nothing_is_read_while_the_judge_thinks(void **state)
{
    struct sm_bridge *b = begin();
    struct sm_bridge_answer pass = {.pass = true};

    (void)state;
    seen.wait = true;
    feed(b, SM_BRIDGE_GUEST, GET GET);
    assert_int_equal(seen.asked, 1);
    assert_int_equal(sm_bridge_room(b, SM_BRIDGE_GUEST), 0);
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), 0);
    sm_bridge_answer(b, 2, &pass); /* not asked yet */
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), 0);
    sm_bridge_answer(b, 1, &pass);
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), strlen(GET));
    assert_int_equal(seen.asked, 2);
    sm_bridge_answer(b, 1, &pass); /* again */
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), 0);
    sm_bridge_answer(b, 2, &pass);
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), strlen(GET));
    assert_true(sm_bridge_room(b, SM_BRIDGE_GUEST) > 0);
    sm_bridge_free(b);
}

static void test_in_flight(void **state)
{
    struct sm_bridge *b = begin();

    (void)state;
    for (unsigned i = 0; i < SM_H1_IN_FLIGHT_MAX / 2; i++)
        feed(b, SM_BRIDGE_GUEST, GET GET);
    assert_int_equal(seen.asked, SM_H1_IN_FLIGHT_MAX);
    assert_int_equal(sm_bridge_room(b, SM_BRIDGE_GUEST), 0);
    feed(b, SM_BRIDGE_ORIGIN, "HTTP/1.1 204 x\r\n\r\n");
    assert_int_equal(seen.told, 1);
    feed(b, SM_BRIDGE_GUEST, GET GET GET);
    assert_int_equal(seen.asked, SM_H1_IN_FLIGHT_MAX + 1);
    assert_int_equal(sm_bridge_room(b, SM_BRIDGE_GUEST), 0);
    feed(b, SM_BRIDGE_ORIGIN, "HTTP/1.1 204 x\r\n\r\n");
    assert_int_equal(seen.asked, SM_H1_IN_FLIGHT_MAX + 2);
    /* The guest ends while some wait: they are still asked about, sent and answered. */
    sm_bridge_eof(b, SM_BRIDGE_GUEST, false);
    assert_false(sm_bridge_out_closed(b, SM_BRIDGE_ORIGIN));
    for (unsigned i = 2; i < SM_H1_IN_FLIGHT_MAX + 3; i++) {
        assert_int_equal(sm_bridge_ended(b), SM_BRIDGE_LIVE);
        feed(b, SM_BRIDGE_ORIGIN, "HTTP/1.1 204 x\r\n\r\n");
    }
    assert_int_equal(seen.told, SM_H1_IN_FLIGHT_MAX + 3);
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), strlen(GET) * (SM_H1_IN_FLIGHT_MAX + 3));
    assert_int_equal(sm_bridge_ended(b), SM_BRIDGE_FINISHED);
    sm_bridge_free(b);
}

/* A head that never ends stops at its maximum, from either side, whatever the pieces. */
static void test_heads_are_bounded(void **state)
{
    static const size_t pieces[] = {1, 777, SM_BRIDGE_OUT_MAX};

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(pieces); i++) {
        g_autofree char *xs = g_strnfill(SM_BRIDGE_OUT_MAX, 'x');
        for (unsigned from = 0; from < SM_BRIDGE_SIDES; from++) {
            struct sm_bridge *b = begin();
            size_t total;
            if (from == SM_BRIDGE_ORIGIN)
                feed(b, SM_BRIDGE_GUEST, GET);
            const char *first = from == SM_BRIDGE_GUEST ? "GET / HTTP/1.1\r\nX: " : "HTTP/1.1 200 OK\r\nX: ";
            feed(b, from, first);
            for (total = strlen(first); seen.broken == 0;) {
                size_t n = SM_MIN(sm_bridge_room(b, from), pieces[i]);
                assert_true(n > 0);
                assert_true(total < SM_HTTP_HEAD_MAX);
                sm_bridge_feed(b, from, (const uint8_t *)xs, n);
                total += n;
            }
            assert_true(total >= SM_HTTP_HEAD_MAX);
            assert_true(sm_bridge_out_closed(b, SM_BRIDGE_GUEST) && sm_bridge_out_closed(b, SM_BRIDGE_ORIGIN));
            assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), from == SM_BRIDGE_GUEST ? 0 : strlen(GET));
            sm_bridge_free(b);
        }
    }
}

/* The largest head that is taken goes through, one byte more does not. */
static void test_largest_heads(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct sm_bridge *b = begin();
        g_autofree char *xs = g_strnfill(SM_HTTP_HEAD_MAX - strlen(GET) - strlen("X: \r\n") + more, 'x');
        g_autofree char *request = g_strdup_printf("GET / HTTP/1.1\r\nHost: a.test\r\nX: %s\r\n\r\n", xs);
        feed(b, SM_BRIDGE_GUEST, request);
        assert_int_equal(seen.broken, more);
        assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), more ? 0 : SM_HTTP_HEAD_MAX);
        if (!more) {
            static const char rest[] = "HTTP/1.1 204 x\r\nX: \r\n\r\n";
            g_autofree char *ys = g_strnfill(SM_HTTP_RESPONSE_HEAD_MAX - strlen(rest), 'y');
            g_autofree char *response = g_strdup_printf("HTTP/1.1 204 x\r\nX: %s\r\n\r\n", ys);
            feed(b, SM_BRIDGE_ORIGIN, response);
            assert_int_equal(seen.told, 1);
            assert_int_equal(drain(b, SM_BRIDGE_GUEST), SM_HTTP_RESPONSE_HEAD_MAX);
        }
        sm_bridge_free(b);
    }
}

static void endless(const char *first, const char *again, size_t max)
{
    struct sm_bridge *b = begin();
    size_t total = 0;

    feed(b, SM_BRIDGE_GUEST, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    feed(b, SM_BRIDGE_GUEST, first);
    while (seen.broken == 0) {
        feed(b, SM_BRIDGE_GUEST, again);
        drain(b, SM_BRIDGE_ORIGIN);
        total += strlen(again);
        assert_true(total <= max + strlen(again));
    }
    assert_int_equal(sm_bridge_ended(b), SM_BRIDGE_CUT);
    sm_bridge_free(b);
}

static void test_framing_is_bounded(void **state)
{
    (void)state;
    endless("1;", "x", 4096);
    endless("0\r\nX: ", "x", 16384);
    endless("0\r\n", "X: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n", 16384 + 80);
    endless("0\r\n", "X:\r\n", SM_HTTP_FIELDS_MAX * 4);
}

static void test_refused_upload_is_dropped(void **state)
{
    struct sm_bridge *b = begin();
    g_autofree uint8_t *data = g_malloc0(SM_BRIDGE_OUT_MAX);
    uint64_t total = 0;

    (void)state;
    seen.refuse = true;
    feed(b, SM_BRIDGE_GUEST, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    assert_true(drain(b, SM_BRIDGE_GUEST) > 0);
    while (sm_bridge_ended(b) == SM_BRIDGE_LIVE) {
        assert_int_equal(sm_bridge_room(b, SM_BRIDGE_GUEST), SM_BRIDGE_OUT_MAX);
        sm_bridge_feed(b, SM_BRIDGE_GUEST, data, SM_BRIDGE_OUT_MAX);
        total += SM_BRIDGE_OUT_MAX;
        assert_true(total <= SM_H1_LINGER_MAX + SM_BRIDGE_OUT_MAX);
    }
    assert_int_equal(sm_bridge_ended(b), SM_BRIDGE_FINISHED);
    assert_true(total > SM_H1_LINGER_MAX);
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN), 0);
    sm_bridge_feed(b, SM_BRIDGE_GUEST, data, 10); /* dropped */
    assert_int_equal(drain(b, SM_BRIDGE_ORIGIN) + drain(b, SM_BRIDGE_GUEST), 0);
    sm_bridge_free(b);
}

/* Refusals behind which the connection goes on: for who reads them, as many as he likes; who does not read has at most a buffer of them. */
static void test_kept_refusals_are_bounded(void **state)
{
    (void)state;
    for (unsigned reads = 0; reads < 2; reads++) {
        struct sm_bridge *b = begin();
        const uint8_t *p;
        unsigned sent = 0;
        seen.refuse = seen.keep = true;
        for (; sent < 10000 && sm_bridge_ended(b) == SM_BRIDGE_LIVE; sent++) {
            feed(b, SM_BRIDGE_GUEST, GET);
            if (reads)
                assert_true(drain(b, SM_BRIDGE_GUEST) > 0);
        }
        assert_int_equal(seen.asked, seen.told);
        assert_int_equal(sm_bridge_ended(b), reads ? SM_BRIDGE_LIVE : SM_BRIDGE_FINISHED);
        assert_true(reads ? sent == 10000 : sent < 10000);
        assert_true(reads || drain(b, SM_BRIDGE_GUEST) < SM_BRIDGE_OUT_MAX + 1000);
        assert_int_equal(sm_bridge_out(b, SM_BRIDGE_ORIGIN, &p), 0);
        sm_bridge_free(b);
    }
}

/* An idle connection holds what a new one holds; malloc itself keeps a few small pieces that were freed in a cache that it counts as used. */
/* Half a head is held for as long as its sender likes, and thousands of connections may do that: it is counted with all that waits. */
static void test_what_is_held_is_counted(void **state)
{
    static const char begun[] = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: ";
    static const char answer[] = "HTTP/1.1 200 OK\r\nX-Long: ";
    g_autofree char *rest = g_strnfill(60000, 'x');
    size_t account = 7;
    struct sm_bridge_config config = {.account = &account};

    (void)state;
    memset(&seen, 0, sizeof(seen));
    for (unsigned ends = 0; ends < 3; ends++) {
        struct sm_bridge *b = sm_bridge_new_h1(&ops, NULL, &config);
        feed(b, SM_BRIDGE_GUEST, begun);
        assert_int_equal(account, 7 + strlen(begun));
        feed(b, SM_BRIDGE_GUEST, rest);
        assert_int_equal(account, 7 + strlen(begun) + 60000);
        if (ends == 1) {
            feed(b, SM_BRIDGE_GUEST, "\n"); /* a bare LF: nothing of it is kept but the page */
            drain(b, SM_BRIDGE_GUEST);
            assert_int_equal(account, 7);
        } else if (ends == 2) {
            feed(b, SM_BRIDGE_GUEST, "\r\n\r\n");
            assert_int_equal(account, 7 + strlen(begun) + 60004); /* in the origin's queue: it is counted once */
            drain(b, SM_BRIDGE_ORIGIN);
            assert_int_equal(account, 7);
            feed(b, SM_BRIDGE_ORIGIN, answer);
            feed(b, SM_BRIDGE_ORIGIN, rest);
            assert_int_equal(account, 7 + strlen(answer) + 60000);
            feed(b, SM_BRIDGE_ORIGIN, "\r\nContent-Length: 0\r\n\r\n");
            drain(b, SM_BRIDGE_GUEST);
            assert_int_equal(account, 7);
        }
        sm_bridge_free(b);
        assert_int_equal(account, 7);
    }
}

static void test_idle_holds_no_buffer(void **state)
{
    (void)state;
    struct sm_bridge *b = begin();
    size_t before = mallinfo2().uordblks;
    for (unsigned i = 0; i < 100; i++) {
        feed(b, SM_BRIDGE_GUEST, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n");
        feed(b, SM_BRIDGE_GUEST, "\r\n");
        g_autofree char *body = g_strnfill(100000, 'x');
        feed(b, SM_BRIDGE_GUEST, body);
        assert_true(drain(b, SM_BRIDGE_ORIGIN) > 100000);
        feed(b, SM_BRIDGE_ORIGIN, "HTTP/1.1 200 OK\r\nContent-Le");
        feed(b, SM_BRIDGE_ORIGIN, "ngth: 100000\r\n\r\n");
        feed(b, SM_BRIDGE_ORIGIN, body);
        assert_true(drain(b, SM_BRIDGE_GUEST) > 100000);
        assert_true(sm_bridge_idle(b));
    }
    assert_int_equal(seen.told, 100);
    assert_true(mallinfo2().uordblks < before + 4096);
    sm_bridge_free(b);
}

static void test_queue(void **state)
{
    struct sm_outq q = {0};
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    uint8_t data[70000];
    const uint8_t *p;
    uint64_t in = 0, out = 0;

    (void)state;
    assert_int_equal(sm_outq_peek(&q, &p), 0);
    assert_non_null(p);
    for (unsigned i = 0; i < 20000; i++) {
        size_t n = (size_t)g_rand_int_range(rand, 0, i % 50 ? 300 : (gint32)sizeof(data));
        for (size_t k = 0; k < n; k++)
            data[k] = (uint8_t)((in + k) * 31 >> 3);
        sm_outq_put(&q, data, n);
        in += n;
        size_t want = (size_t)g_rand_int_range(rand, 0, i % 100 ? 700 : 200000);
        while (want > 0 && (n = SM_MIN(sm_outq_peek(&q, &p), want)) > 0) {
            for (size_t k = 0; k < n; k++)
                assert_int_equal(p[k], (uint8_t)((out + k) * 31 >> 3));
            sm_outq_took(&q, n);
            out += n;
            want -= n;
        }
        assert_int_equal(q.len, in - out);
    }
    /* A burst comes in whole TLS records. */
    sm_outq_clear(&q);
    assert_int_equal(q.len, 0);
    sm_outq_put(&q, data, 100);
    sm_outq_put(&q, data, 65536);
    sm_outq_took(&q, sm_outq_peek(&q, &p));
    assert_int_equal(sm_outq_peek(&q, &p), 32768);
    sm_outq_clear(&q);
}

/* Lent bytes go out in order with the others, and are the queue's own before the lender takes them back. */
static void test_queue_lent(void **state)
{
    size_t account = 0;
    struct sm_outq q = {.account = &account};
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);
    const uint8_t *p;
    uint64_t in = 0, out = 0;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t *pieces[3];
        size_t sizes[3];
        for (unsigned k = 0; k < SM_ARRAY_LEN(pieces); k++) {
            size_t n = sizes[k] = (size_t)g_rand_int_range(rand, 0, i % 10 ? 1200 : 70000);
            pieces[k] = g_malloc(n + 1);
            for (size_t j = 0; j < n; j++)
                pieces[k][j] = (uint8_t)((in + j) * 31 >> 3);
            in += n;
            if (g_rand_boolean(rand))
                sm_outq_lend(&q, pieces[k], n);
            else
                sm_outq_put(&q, pieces[k], n);
        }
        size_t want = (size_t)g_rand_int_range(rand, 0, i % 20 ? 3000 : 300000), n;
        for (unsigned part = 0; part < 2; part++, want = 500) {
            while (want > 0 && (n = SM_MIN(sm_outq_peek(&q, &p), want)) > 0) {
                for (size_t j = 0; j < n; j++)
                    assert_int_equal(p[j], (uint8_t)((out + j) * 31 >> 3));
                sm_outq_took(&q, n);
                out += n;
                want -= n;
            }
            assert_int_equal(q.len, in - out);
            assert_int_equal(account, in - out);
            if (part > 0)
                break;
            sm_outq_keep(&q);
            for (unsigned k = 0; k < SM_ARRAY_LEN(pieces); k++) {
                memset(pieces[k], '#', sizes[k]);
                g_free(pieces[k]);
            }
        }
    }
    static const uint8_t last[4096];
    /* One record after the other: what describes the bytes is not allocated again. */
    sm_outq_clear(&q);
    sm_outq_lend(&q, last, sizeof(last));
    const struct sm_outq_block *block = q.first;
    for (unsigned i = 0; i < 3; i++) {
        sm_outq_took(&q, sizeof(last));
        assert_null(q.first);
        sm_outq_lend(&q, last, sizeof(last));
        assert_ptr_equal(q.first, block);
    }
    sm_outq_clear(&q);
    assert_null(q.spare);
    assert_int_equal(account, 0);
    sm_outq_keep(&q);
    assert_int_equal(sm_outq_peek(&q, &p), 0);
}

/* A body that is lent leaves from where it is; what is not taken before it goes away is copied, and so is all else. */
static void test_lent_body(void **state)
{
    static const uint8_t head[] = "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n";
    struct sm_bridge *b = begin();
    g_autofree uint8_t *data = g_malloc(20000), *whole = g_malloc(sizeof(head) - 1 + 20000);
    const uint8_t *p;

    (void)state;
    memset(data, 'b', 20000);
    memcpy(whole, head, sizeof(head) - 1);
    memcpy(whole + sizeof(head) - 1, data, 20000);
    feed(b, SM_BRIDGE_GUEST, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(drain(b, SM_BRIDGE_ORIGIN) > 0);
    /* The head is copied, the body behind it is not. */
    sm_bridge_lend(b, SM_BRIDGE_ORIGIN, whole, sizeof(head) - 1 + 20000);
    assert_int_equal(sm_bridge_out(b, SM_BRIDGE_GUEST, &p), sizeof(head) - 1);
    assert_true(p != whole);
    sm_bridge_took(b, SM_BRIDGE_GUEST, sizeof(head) - 1);
    assert_int_equal(sm_bridge_out(b, SM_BRIDGE_GUEST, &p), 20000);
    assert_ptr_equal(p, whole + sizeof(head) - 1);
    sm_bridge_took(b, SM_BRIDGE_GUEST, 20000);
    sm_bridge_keep(b);
    /* What waits counts as what waits, and outlives the loan. */
    sm_bridge_lend(b, SM_BRIDGE_ORIGIN, data, 20000);
    assert_int_equal(sm_bridge_room(b, SM_BRIDGE_ORIGIN), SM_BRIDGE_OUT_MAX - 20000);
    assert_int_equal(sm_bridge_out(b, SM_BRIDGE_GUEST, &p), 20000);
    assert_ptr_equal(p, data);
    sm_bridge_took(b, SM_BRIDGE_GUEST, 5000);
    sm_bridge_keep(b);
    memset(data, '#', 20000);
    assert_int_equal(sm_bridge_out(b, SM_BRIDGE_GUEST, &p), 15000);
    for (size_t i = 0; i < 15000; i++)
        assert_int_equal(p[i], 'b');
    assert_int_equal(drain(b, SM_BRIDGE_GUEST), 15000);
    assert_true(sm_bridge_idle(b));
    sm_bridge_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_reader_slows_the_writer),
        cmocka_unit_test(test_raw_is_bounded_too),
        cmocka_unit_test(test_nothing_is_read_while_the_judge_thinks),
        cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_heads_are_bounded),
        cmocka_unit_test(test_largest_heads),
        cmocka_unit_test(test_framing_is_bounded),
        cmocka_unit_test(test_refused_upload_is_dropped),
        cmocka_unit_test(test_kept_refusals_are_bounded),
        cmocka_unit_test(test_what_is_held_is_counted),
        cmocka_unit_test(test_idle_holds_no_buffer),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_queue_lent),
        cmocka_unit_test(test_lent_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
