/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/2 bridge sends a request again whose response was 401 (bridge.h): between a real client and a real server,
 * what each of them gets, and what becomes of windows, limits and ends.
 */
#include "h2_world.h"

#include "http/scrub.h"

#define NEW "new-token"
#define STARS "*********"

static struct sm_bridge_edit edits[2];
static struct sm_scrub *scrubs[2];

static int set_up(void **state)
{
    static const char *const tokens[] = {H2_OLD, NEW};

    for (unsigned i = 0; i < 2; i++) {
        scrubs[i] = sm_scrub_new((const uint8_t *)tokens[i], strlen(tokens[i]));
        edits[i] = (struct sm_bridge_edit){
            .name = "X-Key", .value = tokens[i], .value_len = strlen(tokens[i]), .scrub = scrubs[i], .replay = true};
    }
    return 0;
}

static int tear_down(void **state)
{
    sm_scrub_unref(scrubs[0]);
    sm_scrub_unref(scrubs[1]);
    return 0;
}

static struct h2_seen *client(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_GUEST, id);
}

static struct h2_seen *server(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_ORIGIN, id);
}

static void begin(struct h2_world *w, const struct h2_options *o, enum h2_judge again)
{
    h2_world_init(w, o);
    w->edit = &edits[0];
    w->edit_again = &edits[1];
    w->again = again;
}

static unsigned at_origin(struct h2_world *w)
{
    return g_hash_table_size(w->seen[SM_BRIDGE_ORIGIN]);
}

/* The whole of it, cut and not, with a judge that answers at once and one that answers later. */
static void exchanges(void **state)
{
    static const struct {
        const char *method, *path;
        int64_t body;
        const char *told;
        uint64_t down;
    } samples[] = {
        {"GET", "/token/0", -1, "1 done 200 0 5\n", 5},
        {"GET", "/token/100", -1, "1 done 200 0 5\n", 5},
        {"HEAD", "/token/9", -1, "1 done 200 0 0\n", 0},
        {"POST", "/token/100", 0, "1 done 200 0 5\n", 5},
        {"POST", "/token/100", 1000, "1 done 200 1000 5\n", 5},
        {"POST", "/token/16000", SM_BRIDGE_REPLAY_BODY_MAX, "1 done 200 65536 5\n", 5},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        for (unsigned how = 0; how < 6; how++) {
            struct h2_world w;
            begin(&w, NULL, how & 1 ? H2_LATER : H2_PASS);
            w.cut = how / 2 == 0 ? 0 : how / 2 == 1 ? 1 : 700;
            int32_t id =
                h2_request(&w, samples[i].method, samples[i].path, samples[i].body, "x-key: fake\nte: trailers\n");
            h2_run(&w);
            assert_string_equal(w.fields->str, "x-key=fake\nte=trailers\n");
            g_autofree char *asked = g_strdup_printf("1 %s https ok.test 0 %s -\n1 again %s\n", samples[i].method,
                                                     samples[i].path, samples[i].path);
            assert_string_equal(w.asked->str, asked);
            if (how & 1) {
                assert_int_equal(client(&w, id)->heads, 0);
                assert_string_equal(w.told->str, "");
                assert_true(w.account > 0);
                h2_answer_again(&w, 1, true);
                h2_run(&w);
            }
            const struct h2_seen *c = client(&w, id);
            assert_int_equal(c->status, 200);
            assert_int_equal(c->heads, 1);
            assert_int_equal(c->body, samples[i].down);
            assert_true(c->closed && c->code == 0 && !c->bad_body);
            assert_string_equal(w.told->str, samples[i].told);
            for (int32_t stream = 1; stream <= 3; stream += 2) {
                const struct h2_seen *s = server(&w, stream);
                g_autofree char *head = g_strdup_printf(
                    ":method: %s\n:scheme: https\n:authority: ok.test\n:path: %s\nx-key! %s\nte: trailers\n",
                    samples[i].method, samples[i].path, stream == 1 ? H2_OLD : NEW);
                assert_string_equal(s->head->str, head);
                assert_int_equal(s->body, SM_MAX(samples[i].body, 0));
                assert_true(s->ended && s->closed && !s->bad_body && s->code == 0);
            }
            assert_int_equal(at_origin(&w), 2);
            assert_int_equal(w.account, 0);
            assert_true(sm_bridge_idle(w.b));
            h2_world_done(&w);
        }
    }
}

/* What cannot be sent again, and what the judge will not have sent again: the guest gets its 401, scrubbed. */
static void passes(void **state)
{
    static const struct {
        const char *path;
        int64_t body;
        const char *trailer;
        enum h2_judge again;
        bool no_replay, asked;
        uint64_t down;
    } samples[] = {
        {"/token/9", -1, NULL, H2_REFUSE, false, true, 9},
        {"/token/0", -1, NULL, H2_REFUSE, false, true, 0},
        {"/token/9", 7, NULL, H2_REFUSE, false, true, 9},
        {"/token/9", 7, NULL, H2_PASS, true, false, 9},
        {"/token/9", SM_BRIDGE_REPLAY_BODY_MAX + 1, NULL, H2_PASS, false, false, 9},
        {"/token/16384", -1, NULL, H2_PASS, false, false, 16384},
        {"/token/100000", 7, NULL, H2_PASS, false, false, 100000},
        {"/token/9", 7, "x-sum", H2_PASS, false, false, 9},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        for (unsigned cut = 0; cut < 2; cut++) {
            struct h2_world w;
            struct sm_bridge_edit edit = edits[0];
            begin(&w, NULL, samples[i].again);
            edit.replay = !samples[i].no_replay;
            w.edit = &edit;
            w.cut = cut ? 100 : 0;
            int32_t id = h2_request(&w, "POST", samples[i].path, samples[i].body, NULL);
            client(&w, id)->send_trailer = samples[i].trailer;
            h2_run(&w);
            assert_int_equal(strstr(w.asked->str, "again") != NULL, samples[i].asked);
            const struct h2_seen *c = client(&w, id);
            assert_string_equal(c->head->str, ":status: 401\necho: " STARS "\n");
            assert_int_equal(c->body, samples[i].down);
            assert_true(c->closed && c->code == 0 && !c->bad_body);
            g_autofree char *told = g_strdup_printf("1 done 401 %u %u *1\n", (unsigned)SM_MAX(samples[i].body, 0),
                                                    (unsigned)samples[i].down);
            assert_string_equal(w.told->str, told);
            assert_int_equal(at_origin(&w), 1);
            assert_int_equal(w.account, 0);
            h2_world_done(&w);
        }
    }
}

/* A 401 before the request is whole: its rest would be missing. */
static void hasty(void **state)
{
    struct h2_world w;

    begin(&w, NULL, H2_PASS);
    int32_t id = h2_request(&w, "POST", "/hasty/9", 10, NULL);
    client(&w, id)->send_more = true;
    h2_run(&w);
    assert_int_equal(client(&w, id)->status, 401);
    h2_more(&w, SM_BRIDGE_GUEST, id, 10, true);
    h2_run(&w);
    assert_int_equal(server(&w, 1)->body, 20);
    assert_string_equal(w.told->str, "1 done 401 20 9 *1\n");
    assert_int_equal(at_origin(&w), 1);
    h2_world_done(&w);
}

/* A held response goes through the scrub when it is let go, body and trailers too; one that came instead of it with the
 * scrub of its own answer. */
static void scrubbed(void **state)
{
    for (unsigned again = 0; again < 2; again++) {
        struct h2_world w;
        begin(&w, NULL, again ? H2_PASS : H2_REFUSE);
        int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
        h2_run(&w);
        for (int32_t stream = 1; stream <= (again ? 3 : 1); stream += 2) {
            struct h2_seen *s = server(&w, stream);
            s->send_text = "x" H2_OLD NEW H2_OLD;
            s->send_trailer = "sum";
            s->trailer_value = H2_OLD NEW;
            h2_respond(&w, stream, ":status: 401\na: " H2_OLD NEW "\n", 1 + 3 * strlen(NEW));
            h2_run(&w);
        }
        const struct h2_seen *c = client(&w, id);
        assert_string_equal(c->head->str,
                            again ? ":status: 401\na: " H2_OLD STARS "\n" : ":status: 401\na: " STARS NEW "\n");
        assert_string_equal(c->text->str, again ? "x" H2_OLD STARS H2_OLD : "x" STARS NEW STARS);
        assert_string_equal(c->trailers->str, again ? "sum: " H2_OLD STARS "\n" : "sum: " STARS NEW "\n");
        assert_string_equal(w.told->str, again ? "1 done 401 0 28 *3\n" : "1 done 401 0 28 *4\n");
        assert_int_equal(at_origin(&w), again ? 2 : 1);
        assert_string_equal(w.asked->str, "1 GET https ok.test 0 /wait -\n1 again /wait\n");
        h2_world_done(&w);
    }
}

/* 1xx before it have passed. */
static void interim(void **state)
{
    struct h2_world w;
    nghttp2_nv nv = {(uint8_t *)":status", (uint8_t *)"103", 7, 3, 0};

    begin(&w, NULL, H2_PASS);
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    for (int32_t stream = 1; stream <= 3; stream += 2) {
        nghttp2_submit_headers(w.end[SM_BRIDGE_ORIGIN], 0, stream, NULL, &nv, 1, NULL);
        h2_respond(&w, stream, stream == 1 ? ":status: 401\n" : ":status: 204\n", -1);
        h2_run(&w);
    }
    assert_string_equal(client(&w, id)->interim->str, ":status: 103\n:status: 103\n");
    assert_string_equal(client(&w, id)->head->str, ":status: 204\n");
    assert_string_equal(w.told->str, "1 done 204 0 0\n");
    h2_world_done(&w);
}

static void refused_then(void **state)
{
    for (unsigned bad = 0; bad < 2; bad++) {
        struct h2_world w;
        struct sm_bridge_edit edit = {.name = "x-key", .value = "a\nb", .value_len = 3};
        begin(&w, NULL, H2_LATER);
        int32_t id = h2_request(&w, "POST", "/token/9", 10, NULL);
        h2_run(&w);
        w.edit_again = &edit;
        h2_answer_again(&w, 1, bad);
        h2_run(&w);
        assert_int_equal(client(&w, id)->status, bad ? 502 : 403);
        assert_string_equal(client(&w, id)->text->str, bad ? "{\"502\":\"edit_invalid\"}" : "{\"no\":2}");
        assert_string_equal(w.told->str, bad ? "1 refused 502 10 22\n" : "1 refused 403 10 8\n");
        assert_int_equal(at_origin(&w), 1);
        assert_int_equal(w.account, 0);
        /* The connection lives on, and an answer that nobody asked for is none. */
        h2_answer_again(&w, 1, true);
        w.edit = NULL;
        id = h2_request(&w, "GET", "/size/5", -1, NULL);
        h2_run(&w);
        assert_int_equal(client(&w, id)->body, 5);
        h2_world_done(&w);
    }
}

/* The guest resets it while the judge thinks, or while the 401 is still coming; other streams go on. */
static void guest_resets(void **state)
{
    for (unsigned whole = 0; whole < 2; whole++) {
        struct h2_world w;
        begin(&w, NULL, H2_LATER);
        int32_t id = h2_request(&w, "POST", "/wait", 10, NULL);
        int32_t other = h2_request(&w, "GET", "/token/9", -1, NULL);
        h2_run(&w);
        server(&w, 1)->send_more = !whole;
        h2_respond(&w, 1, ":status: 401\n", 100);
        h2_run(&w);
        nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, id, NGHTTP2_CANCEL);
        h2_run(&w);
        assert_string_equal(w.told->str, "1 reset 0 10 0\n");
        assert_true(server(&w, 1)->closed);
        assert_int_equal(server(&w, 1)->code, whole ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
        h2_answer_again(&w, 1, true);
        h2_answer_again(&w, 2, true);
        h2_run(&w);
        assert_int_equal(client(&w, other)->status, 200);
        assert_int_equal(at_origin(&w), 3);
        assert_int_equal(w.account, 0);
        h2_world_done(&w);
    }
}

/* The origin breaks the 401 off: what came goes to the guest, and the reset behind it. */
static void origin_resets(void **state)
{
    struct h2_world w;

    begin(&w, NULL, H2_PASS);
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    server(&w, 1)->send_more = true;
    h2_respond(&w, 1, ":status: 401\n", 100);
    h2_run(&w);
    assert_int_equal(client(&w, id)->heads, 0);
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_ORIGIN], 0, 1, NGHTTP2_ENHANCE_YOUR_CALM);
    h2_run(&w);
    assert_int_equal(client(&w, id)->status, 401);
    assert_int_equal(client(&w, id)->body, 100);
    assert_int_equal(client(&w, id)->code, NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(w.told->str, "1 reset 401 0 100\n");
    assert_null(strstr(w.asked->str, "again"));
    h2_world_done(&w);
}

/* A trailer that breaks a rule behind it: 502, as for any response that has not gone on. */
static void origin_breaks(void **state)
{
    struct h2_world w;

    begin(&w, NULL, H2_PASS);
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    server(&w, 1)->send_trailer = "content-length";
    h2_respond(&w, 1, ":status: 401\n", 10);
    h2_run(&w);
    assert_int_equal(client(&w, id)->status, 502);
    assert_string_equal(w.broken->str, "origin 1 h2_header_invalid\n");
    assert_null(strstr(w.asked->str, "again"));
    h2_world_done(&w);
}

/* The origin takes its leave, or goes, while the judge thinks or while the 401 is coming: the guest gets what came. */
static void origin_goes(void **state)
{
    enum { BEFORE_THE_END, ASKED, ANSWERED_AND_WAITING };

    for (unsigned when = BEFORE_THE_END; when <= ANSWERED_AND_WAITING; when++) {
        for (unsigned eof = 0; eof < 2; eof++) {
            struct h2_world w;
            struct h2_options o = {.server_streams = when == ANSWERED_AND_WAITING ? 1 : 0};
            begin(&w, &o, H2_LATER);
            int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
            h2_run(&w);
            server(&w, 1)->send_more = when == BEFORE_THE_END;
            h2_respond(&w, 1, ":status: 401\n", 100);
            h2_run(&w);
            int32_t other = when == ANSWERED_AND_WAITING ? h2_request(&w, "GET", "/wait", -1, NULL) : 0;
            h2_run(&w);
            if (other)
                h2_answer_again(&w, 1, true);
            h2_run(&w);
            assert_int_equal(client(&w, id)->heads, 0);
            if (eof)
                sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, false);
            else
                nghttp2_submit_goaway(w.end[SM_BRIDGE_ORIGIN], 0, other ? 3 : 1, NGHTTP2_NO_ERROR, NULL, 0);
            h2_run(&w);
            if (!eof && when == BEFORE_THE_END) {
                h2_more(&w, SM_BRIDGE_ORIGIN, 1, 0, true);
                h2_run(&w);
                assert_null(strstr(w.asked->str, "again"));
            }
            if (when == ASKED)
                h2_answer_again(&w, 1, true);
            h2_run(&w);
            const struct h2_seen *c = client(&w, id);
            bool whole = !(eof && when == BEFORE_THE_END);
            assert_int_equal(c->status, 401);
            assert_int_equal(c->body, 100);
            assert_true(!whole || (c->closed && c->code == NGHTTP2_NO_ERROR));
            assert_non_null(strstr(w.told->str, whole ? "1 done 401 0 100\n" : "1 reset 401 0 100\n"));
            assert_int_equal(at_origin(&w), other ? 2 : 1);
            h2_world_done(&w);
        }
    }
}

/* A stream that is sent again has its place among those that the origin permits, behind those that wait already. */
static void limits(void **state)
{
    struct h2_world w;
    struct h2_options o = {.server_streams = 1};
    int32_t ids[4];

    begin(&w, &o, H2_PASS);
    h2_run(&w);
    for (unsigned i = 0; i < 4; i++)
        ids[i] = h2_request(&w, "POST", "/token/9", 100, NULL);
    h2_run(&w);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(client(&w, ids[i])->status, 200);
    for (int32_t i = 0; i < 8; i++)
        assert_int_equal(server(&w, 1 + 2 * i)->body, 100);
    assert_int_equal(at_origin(&w), 8);
    assert_true(sm_bridge_idle(w.b));
    h2_world_done(&w);
}

/* All streams at once, and a judge that answers in another order. */
static void many(void **state)
{
    struct h2_world w;
    int32_t ids[SM_H2_STREAMS_MAX];

    begin(&w, NULL, H2_LATER);
    for (unsigned i = 0; i < SM_H2_STREAMS_MAX; i++)
        ids[i] = h2_request(&w, "POST", "/token/1000", 3000, NULL);
    h2_run(&w);
    assert_true(w.account >= SM_H2_STREAMS_MAX * 4000u);
    for (unsigned i = 0; i < SM_H2_STREAMS_MAX; i++) {
        h2_answer_again(&w, 1 + (i * 37) % SM_H2_STREAMS_MAX, true);
        h2_run(&w);
    }
    for (unsigned i = 0; i < SM_H2_STREAMS_MAX; i++) {
        assert_int_equal(client(&w, ids[i])->status, 200);
        assert_int_equal(client(&w, ids[i])->code, NGHTTP2_NO_ERROR);
    }
    assert_int_equal(at_origin(&w), 2 * SM_H2_STREAMS_MAX);
    assert_int_equal(w.account, 0);
    h2_world_done(&w);
}

/*
 * More credit than was used would show only when nothing is taken any more: whatever the guest may still send and what
 * is stuck in the bridge together are no more than the window.
 */
static void no_credit_left(struct h2_world *w)
{
    enum { STREAMS = 90 };

    w->edit = NULL;
    w->deaf[SM_BRIDGE_ORIGIN] = true;
    for (unsigned i = 0; i < STREAMS; i++)
        (void)h2_request(w, "POST", "/wait", SM_H2_WINDOW_MIN, NULL);
    h2_run(w);
    /* A little is taken, or nothing would be reckoned up. */
    w->deaf[SM_BRIDGE_ORIGIN] = false;
    (void)h2_step_out(w, SM_BRIDGE_ORIGIN, 50000);
    (void)h2_step_out(w, SM_BRIDGE_ORIGIN, 50000);
    w->deaf[SM_BRIDGE_ORIGIN] = true;
    h2_run(w);
    int32_t theirs = nghttp2_session_get_remote_window_size(w->end[SM_BRIDGE_GUEST]);
    int32_t stuck = (int32_t)(STREAMS * SM_H2_WINDOW_MIN - 100000 - 2 * SM_BRIDGE_OUT_MAX);
    assert_true(theirs + stuck <= (int32_t)SM_H2_WINDOW_CONNECTION);
}

/* What is kept, held and sent again counts once in the windows: more goes through one connection than they hold. */
static void windows(void **state)
{
    for (unsigned late = 0; late < 2; late++) {
        struct h2_world w;
        begin(&w, NULL, late ? H2_LATER : H2_PASS);
        for (unsigned i = 0; i < 800; i++) {
            int32_t id = h2_request(&w, "POST", "/token/16000", 15000, NULL);
            h2_run(&w);
            if (late)
                h2_answer_again(&w, i + 1, true);
            h2_run(&w);
            assert_int_equal(client(&w, id)->status, 200);
            for (unsigned end = 0; end < SM_BRIDGE_SIDES; end++) {
                int32_t theirs = nghttp2_session_get_remote_window_size(w.end[end]);
                assert_true(theirs >= (int32_t)SM_H2_WINDOW_CONNECTION / 3);
            }
        }
        assert_int_equal(w.account, 0);
        no_credit_left(&w);
        h2_world_done(&w);
    }
}

/* The same when what is sent again waits behind others for an origin that does not read, and is given up there. */
static void windows_given_up(void **state)
{
    struct h2_world w;

    begin(&w, NULL, H2_LATER);
    for (unsigned i = 0; i < 200; i++) {
        int32_t others[4];
        int32_t id = h2_request(&w, "POST", "/token/9", 60000, NULL);
        h2_run(&w);
        w.deaf[SM_BRIDGE_ORIGIN] = true;
        for (unsigned k = 0; k < SM_ARRAY_LEN(others); k++)
            others[k] = h2_request(&w, "POST", "/token/0", 60000, "x: y\n");
        w.edit = &edits[1];
        h2_run(&w);
        w.edit = &edits[0];
        assert_true(h2_answer_next(&w));
        h2_run(&w);
        nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, id, NGHTTP2_CANCEL);
        h2_run(&w);
        w.deaf[SM_BRIDGE_ORIGIN] = false;
        h2_run(&w);
        for (unsigned k = 0; k < SM_ARRAY_LEN(others); k++)
            assert_int_equal(client(&w, others[k])->status, 200);
    }
    assert_true(sm_bridge_idle(w.b));
    no_credit_left(&w);
    h2_world_done(&w);
}

/* An origin that opens its window slowly: what is sent again waits like anything else. */
static void slow_origin(void **state)
{
    struct h2_world w;
    struct h2_options o = {.slow_server = true};

    begin(&w, &o, H2_PASS);
    int32_t id = h2_request(&w, "POST", "/token/9", 40000, NULL);
    h2_run(&w);
    assert_true(server(&w, 3)->body < 40000 && server(&w, 3)->body > 0);
    nghttp2_session_consume(w.end[SM_BRIDGE_ORIGIN], 1, 40000);
    nghttp2_session_consume(w.end[SM_BRIDGE_ORIGIN], 3, server(&w, 3)->body);
    h2_run(&w);
    assert_int_equal(server(&w, 3)->body, 40000);
    assert_int_equal(client(&w, id)->status, 200);
    h2_world_done(&w);

    /* ... and dropped in the middle of it. */
    begin(&w, &o, H2_PASS);
    id = h2_request(&w, "POST", "/token/9", 40000, NULL);
    h2_run(&w);
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, id, NGHTTP2_CANCEL);
    h2_run(&w);
    assert_int_equal(server(&w, 3)->code, NGHTTP2_CANCEL);
    assert_true(nghttp2_session_get_remote_window_size(w.end[SM_BRIDGE_GUEST]) <= (int32_t)SM_H2_WINDOW_CONNECTION);
    assert_int_equal(w.account, 0);
    h2_world_done(&w);
}

/* Freed with all that is held. */
static void freed(void **state)
{
    struct h2_world w;

    begin(&w, NULL, H2_LATER);
    for (unsigned i = 0; i < 3; i++)
        (void)h2_request(&w, "POST", "/token/1000", 3000, NULL);
    h2_run(&w);
    sm_bridge_eof(w.b, SM_BRIDGE_GUEST, false);
    assert_string_equal(w.told->str, "1 reset 0 3000 0\n2 reset 0 3000 0\n3 reset 0 3000 0\n");
    h2_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchanges),     cmocka_unit_test(passes),           cmocka_unit_test(hasty),
        cmocka_unit_test(scrubbed),      cmocka_unit_test(interim),          cmocka_unit_test(refused_then),
        cmocka_unit_test(guest_resets),  cmocka_unit_test(origin_resets),    cmocka_unit_test(origin_goes),
        cmocka_unit_test(origin_breaks), cmocka_unit_test(limits),           cmocka_unit_test(many),
        cmocka_unit_test(windows),       cmocka_unit_test(windows_given_up), cmocka_unit_test(slow_origin),
        cmocka_unit_test(freed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
