/* SPDX-License-Identifier: BSD-3-Clause */
/* The HTTP/2 bridge between a real client and a real server: what each of them gets. */
#include "h2_world.h"

static struct h2_seen *client(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_GUEST, id);
}

static struct h2_seen *server(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_ORIGIN, id);
}

static bool reached(struct h2_world *w)
{
    return g_hash_table_size(w->seen[SM_BRIDGE_ORIGIN]) > 0;
}

static void plain_get(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "GET", "/size/1000?a=b", -1,
                            "user-agent: x\nx-secret! y\nte: trailers\ncookie: aaaaaaaaaaaaaaaaaaaaaaaa=1\ncookie: "
                            "bbbbbbbbbbbbbbbbbbbbbbbbb=2\n");
    h2_run(&w);
    struct h2_seen *c = client(&w, id), *s = server(&w, 1);
    assert_string_equal(w.asked->str, "1 GET https ok.test 0 /size/1000 ?a=b\n");
    assert_string_equal(s->head->str, ":method: GET\n:scheme: https\n:authority: ok.test\n:path: /size/1000?a=b\n"
                                      "user-agent: x\nx-secret! y\nte: trailers\ncookie: aaaaaaaaaaaaaaaaaaaaaaaa=1\n"
                                      "cookie: bbbbbbbbbbbbbbbbbbbbbbbbb=2\n");
    assert_true(s->ended);
    assert_int_equal(c->status, 200);
    assert_string_equal(c->head->str, ":status: 200\nserver: test\n");
    assert_int_equal(c->body, 1000);
    assert_false(c->bad_body);
    assert_true(c->ended && c->closed);
    assert_int_equal(c->code, 0);
    assert_string_equal(w.told->str, "1 done 200 0 1000\n");
    assert_string_equal(w.broken->str, "");
    assert_true(sm_bridge_idle(w.b));
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

static void echo(void **state)
{
    static const uint64_t sizes[] = {0, 1, 16384, 65535, 65536, 3000000};
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        int32_t id = h2_request(&w, "POST", "/echo", (int64_t)sizes[i], NULL);
        h2_run(&w);
        struct h2_seen *c = client(&w, id);
        assert_int_equal(c->body, sizes[i]);
        assert_false(c->bad_body || server(&w, 1)->bad_body);
        assert_true(c->ended);
        g_autofree char *told = g_strdup_printf("1 done 200 %u %u\n", (unsigned)sizes[i], (unsigned)sizes[i]);
        assert_string_equal(w.told->str, told);
        h2_world_done(&w);
    }
}

/* The same exchange whatever the bytes are cut into. */
static void every_cut(void **state)
{
    for (size_t cut = 1; cut < 40; cut++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        w.cut = cut;
        int32_t a = h2_request(&w, "POST", "/echo", 300, "content-length: 300\n");
        int32_t b = h2_request(&w, "GET", "/trailers", -1, NULL);
        int32_t c = h2_request(&w, "GET", "/interim", -1, NULL);
        h2_run(&w);
        assert_int_equal(client(&w, a)->body, 300);
        assert_string_equal(client(&w, b)->trailers->str, "grpc-status: yes\n");
        assert_int_equal(client(&w, b)->body, 5);
        assert_int_equal(client(&w, c)->body, 10);
        assert_string_equal(w.broken->str, "");
        assert_int_equal(w.responses, 3);
        h2_world_done(&w);
    }
}

static void trailers_both_ways(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "POST", "/trailers", 5, "te: trailers\n");
    client(&w, id)->send_trailer = "x-sum";
    h2_run(&w);
    assert_string_equal(server(&w, 1)->trailers->str, "x-sum: yes\n");
    assert_true(server(&w, 1)->ended);
    assert_string_equal(client(&w, id)->trailers->str, "grpc-status: yes\n");
    assert_true(client(&w, id)->ended);
    assert_string_equal(w.told->str, "1 done 200 5 5\n");
    /* Trailers that come when all data has long gone, and END_STREAM alone. */
    id = h2_request(&w, "POST", "/wait", 0, NULL);
    struct h2_seen *c = client(&w, id);
    h2_run(&w);
    server(&w, 3)->send_more = true;
    server(&w, 3)->send_trailer = "grpc-status";
    h2_respond(&w, 3, ":status: 200\n", 7);
    h2_run(&w);
    assert_int_equal(c->body, 7);
    assert_false(c->ended);
    h2_more(&w, SM_BRIDGE_ORIGIN, 3, 0, true);
    h2_run(&w);
    assert_true(c->ended);
    assert_string_equal(c->trailers->str, "grpc-status: yes\n");
    h2_world_done(&w);
}

/* gRPC: an error is one HEADERS frame; messages of a bidirectional call do not wait for each other. */
static void grpc(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "POST", "/wait", 0, "te: trailers\ncontent-type: application/grpc\n");
    h2_run(&w);
    h2_respond(&w, 1, ":status: 200\ngrpc-status: 12\n", -1);
    h2_run(&w);
    assert_string_equal(client(&w, id)->head->str, ":status: 200\ngrpc-status: 12\n");
    assert_true(client(&w, id)->ended);
    assert_int_equal(client(&w, id)->heads, 1);

    id = h2_request(&w, "POST", "/echo", 0, "te: trailers\n");
    client(&w, id)->send_more = true;
    h2_run(&w);
    for (unsigned i = 1; i <= 50; i++) {
        h2_more(&w, SM_BRIDGE_GUEST, id, 10, i == 50);
        h2_run(&w);
        assert_int_equal(server(&w, 3)->body, i * 10);
        assert_int_equal(client(&w, id)->body, i * 10);
    }
    assert_true(client(&w, id)->ended);
    assert_false(client(&w, id)->bad_body);
    h2_world_done(&w);
}

static void interim_and_bodyless(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "POST", "/interim", 5, "expect: 100-continue\n");
    int32_t b = h2_request(&w, "HEAD", "/status/200", -1, NULL);
    int32_t c = h2_request(&w, "GET", "/status/204", -1, NULL);
    int32_t d = h2_request(&w, "GET", "/status/304", -1, NULL);
    h2_run(&w);
    assert_string_equal(client(&w, a)->interim->str, ":status: 103\nlink: </x>\n:status: 100\n");
    assert_int_equal(client(&w, a)->body, 10);
    assert_string_equal(client(&w, b)->head->str, ":status: 200\ncontent-length: 5\n");
    assert_int_equal(client(&w, c)->status, 204);
    assert_string_equal(client(&w, d)->head->str, ":status: 304\ncontent-length: 5\n");
    assert_true(client(&w, b)->ended && client(&w, c)->ended && client(&w, d)->ended);
    assert_int_equal(w.responses, 4);
    assert_string_equal(w.broken->str, "");
    h2_world_done(&w);
}

static void alt_svc(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "GET", "/alt-svc", -1, NULL);
    h2_run(&w);
    assert_null(strstr(client(&w, id)->head->str, "h3"));
    assert_non_null(strstr(client(&w, id)->head->str, "alt-svc: h2=\":8443\"\nx: y\n"));
    /* ALTSVC and ORIGIN frames stay here. */
    static const uint8_t altsvc[] = {0, 0, 7, 10, 0, 0, 0, 0, 0, 0, 0, 'h', '3', '=', '"', '"'};
    static const uint8_t origin[] = {0, 0, 4, 12, 0, 0, 0, 0, 0, 0, 2, 'a', 'b'};
    size_t before = w.wire_out[SM_BRIDGE_GUEST];
    h2_raw(&w, SM_BRIDGE_ORIGIN, altsvc, sizeof(altsvc));
    h2_raw(&w, SM_BRIDGE_ORIGIN, origin, sizeof(origin));
    h2_run(&w);
    assert_int_equal(w.wire_out[SM_BRIDGE_GUEST], before);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

/* ---- the judge ---- */

static void refused_and_the_connection_lives(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    w.judge = H2_REFUSE;
    w.refuse_status = 421;
    int32_t a = h2_request(&w, "GET", "/size/5", -1, NULL);
    int32_t b = h2_request(&w, "HEAD", "/size/5", -1, NULL);
    /* The guest would go on sending for ever. */
    int32_t c = h2_request(&w, "POST", "/echo", 100000, NULL);
    client(&w, c)->send_more = true;
    h2_run(&w);
    assert_false(reached(&w));
    assert_string_equal(client(&w, a)->head->str, ":status: 421\ncontent-type: application/json\ncontent-length: 8\n");
    assert_string_equal(client(&w, a)->text->str, "{\"no\":1}");
    assert_int_equal(client(&w, b)->status, 421);
    assert_int_equal(client(&w, b)->body, 0);
    assert_true(client(&w, b)->ended);
    assert_string_equal(client(&w, c)->text->str, "{\"no\":1}");
    assert_true(client(&w, c)->ended && client(&w, c)->closed);
    assert_int_equal(client(&w, c)->code, NGHTTP2_NO_ERROR);
    assert_int_equal(w.responses, 3);
    assert_non_null(strstr(w.told->str, "3 refused 421 0 8\n"));
    w.judge = H2_PASS;
    int32_t d = h2_request(&w, "POST", "/echo", 1000000, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, d)->body, 1000000);
    assert_string_equal(w.broken->str, "");
    h2_world_done(&w);
}

/* Until the answer nothing of it goes on, and its body is taken only as far as its window goes. */
static void late_answer(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    w.judge = H2_LATER;
    int32_t a = h2_request(&w, "POST", "/echo", 1000000, NULL);
    int32_t b = h2_request(&w, "GET", "/size/7", -1, NULL);
    int32_t c = h2_request(&w, "GET", "/size/8", -1, NULL);
    h2_run(&w);
    assert_int_equal(w.requests, 3);
    assert_false(reached(&w));
    assert_true(client(&w, a)->sent <= SM_H2_WINDOW_MIN);
    h2_answer(&w, 2, true);
    h2_answer(&w, 2, true);
    h2_answer(&w, 77, true);
    h2_run(&w);
    assert_int_equal(client(&w, b)->body, 7);
    assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 1);
    /* Gone before the answer: nothing is sent, and it is told once. */
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, c, NGHTTP2_CANCEL);
    h2_run(&w);
    assert_non_null(strstr(w.told->str, "3 reset 0 0 0\n"));
    h2_answer(&w, 3, true);
    h2_answer(&w, 1, true);
    h2_run(&w);
    assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 2);
    assert_int_equal(client(&w, a)->body, 1000000);
    assert_false(client(&w, a)->bad_body);
    h2_world_done(&w);
}

/* ---- broken requests ---- */

static void broken_requests(void **state)
{
    static const struct {
        const char *fields, *word;
        int status; /* 0: reset by nghttp2, PROTOCOL_ERROR */
    } samples[] = {
#define P ":method: GET\n:scheme: https\n:path: /\n"
#define PA P ":authority: ok.test\n"
        {P ":authority: a.test\nhost: b.test\n", "h2_authority_mismatch", 400},
        {P ":authority: a.test\nhost: a.test:444\n", "h2_authority_mismatch", 400},
        {P, "h2_message_invalid", 0},
        {P ":authority: u@a.test\n", "h2_authority_invalid", 400},
        {P ":authority: 1.2.3\n", "h2_authority_invalid", 400},
        {P ":authority: 0x7f.1\n", "h2_authority_invalid", 400},
        {P ":authority: a.test:99999\n", "h2_authority_invalid", 400},
        {P ":authority: a..test\n", "h2_authority_invalid", 400},
        {P ":authority: [::1\n", "h2_authority_invalid", 400},
        {":method: GET\n:scheme: http\n:path: /\n:authority: a.test\n", "h2_scheme", 400},
        {":method: GET\n:scheme: ftp\n:path: /\n:authority: a.test\n", "h2_scheme", 400},
        {":method: CONNECT\n:authority: a.test:443\n", "h2_connect", 400},
        {":method: GET\n:scheme: https\n:path: /a#b\n:authority: a.test\n", "h2_path", 400},
        {":method: GET\n:scheme: https\n:path: /\xc3\xa4\n:authority: a.test\n", "h2_path", 400},
        {":method: GET\n:scheme: https\n:path: *\n:authority: a.test\n", "h2_message_invalid", 0},
        {":method: GET\n:scheme: https\n:path: a.test/\n:authority: a.test\n", "h2_message_invalid", 0},
        {":method: METHODSTHATARELONGERTHANALLOWEDBYUS\n:scheme: https\n:path: /\n:authority: a.test\n", "h2_method",
         400},
        {":method: GE T\n:scheme: https\n:path: /\n:authority: a.test\n", "h2_header_invalid", 0},
        {PA "x: a\rb\n", "h2_header_invalid", 400},
        {PA "x: a \n", "h2_header_invalid", 400},
        {PA "x\x01: a\n", "h2_header_invalid", 400},
        {PA "transfer-encoding: chunked\n", "h2_header_invalid", 0},
        {PA "connection: close\n", "h2_header_invalid", 0},
        {PA "upgrade: h2c\n", "h2_header_invalid", 0},
        {PA "http2-settings: AAAA\n", "h2_connection_field", 400},
        {PA "te: gzip\n", "h2_header_invalid", 0},
        {PA "content-length: 5\n", "h2_message_invalid", 0},
        {PA "content-length: 1\ncontent-length: 1\n", "h2_header_invalid", 0},
        {PA "content-length: 0000000000000000000\n", "h2_content_length", 400},
        {PA "host: ok.test\nhost: ok.test\n", "h2_header_invalid", 0},
        {PA ":authority: ok.test\n", "h2_header_invalid", 0},
        {PA "x: y\n:foo: bar\n", "h2_header_invalid", 0},
        {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\n:authority: ok.test\n", "h2_header_invalid",
         0},
    };
    struct h2_world w;
    h2_world_init(&w, NULL);
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        g_string_truncate(w.broken, 0);
        int32_t id = h2_request_raw(&w, samples[i].fields, -1);
        h2_run(&w);
        g_autofree char *broken = g_strdup_printf("guest %u %s\n", (unsigned)i + 1, samples[i].word);
        assert_string_equal(w.broken->str, broken);
        struct h2_seen *c = client(&w, id);
        assert_int_equal(c->status, samples[i].status);
        assert_true(c->closed);
        if (samples[i].status) {
            g_autofree char *page = g_strdup_printf("{\"400\":\"%s\"}", samples[i].word);
            assert_string_equal(c->text->str, page);
        } else {
            assert_int_equal(c->code, NGHTTP2_PROTOCOL_ERROR);
        }
    }
    assert_int_equal(w.requests, 0);
    assert_false(reached(&w));
    int32_t id = h2_request(&w, "GET", "/size/5", -1, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 5);
    h2_world_done(&w);
}

static void good_requests(void **state)
{
    static const struct {
        const char *fields, *asked;
    } samples[] = {
        {P ":authority: OK.Test\nhost: ok.test:443\n", "GET https OK.Test 0 / -"},
        {P "host: a_b.test.\n", "GET https a_b.test. 0 / -"},
        {P ":authority: 192.0.2.1:8443\n", "GET https 192.0.2.1 8443 / -"},
        {P ":authority: [2001:db8::1]:8443\n", "GET https 2001:db8::1 8443 / -"},
        {":method: OPTIONS\n:scheme: https\n:path: *\n:authority: ok.test\n", "OPTIONS https ok.test 0 * -"},
        {":method: GET\n:scheme: https\n:path: /?\n:authority: ok.test\n", "GET https ok.test 0 / ?"},
        {PA "x: \xff\xfe\nempty: \n", "GET https ok.test 0 / -"},
    };
    struct h2_world w;
    h2_world_init(&w, NULL);
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        g_string_truncate(w.asked, 0);
        h2_request_raw(&w, samples[i].fields, -1);
        h2_run(&w);
        g_autofree char *asked = g_strdup_printf("%u %s\n", (unsigned)i + 1, samples[i].asked);
        assert_string_equal(w.asked->str, asked);
        assert_string_equal(server(&w, (int32_t)i * 2 + 1)->head->str, samples[i].fields);
    }
    assert_string_equal(w.broken->str, "");
    h2_world_done(&w);
}

static void cleartext(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.cleartext = true});
    int32_t a = h2_request(&w, "GET", "/size/5", -1, NULL);
    int32_t b = h2_request_raw(&w, PA, -1);
    h2_run(&w);
    assert_int_equal(client(&w, a)->body, 5);
    assert_int_equal(client(&w, b)->status, 400);
    assert_string_equal(w.broken->str, "guest 2 h2_scheme\n");
    h2_world_done(&w);
}

static char *many_fields(unsigned n, unsigned value_len)
{
    GString *s = g_string_new(NULL);
    g_autofree char *value = g_strnfill(value_len, 'v');
    for (unsigned i = 0; i < n; i++)
        g_string_append_printf(s, "x-%u: %s\n", i, value);
    return g_string_free(s, FALSE);
}

static void large_heads(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    g_autofree char *fits = many_fields(200, 200), *fields = many_fields(300, 1), *large = many_fields(100, 700);
    int32_t a = h2_request(&w, "GET", "/size/5", -1, fits);
    int32_t b = h2_request(&w, "GET", "/size/5", -1, fields);
    int32_t c = h2_request(&w, "GET", "/size/5", -1, large);
    h2_run(&w);
    assert_int_equal(client(&w, a)->body, 5);
    assert_non_null(strstr(server(&w, 1)->head->str, fits));
    assert_int_equal(client(&w, b)->status, 431);
    assert_int_equal(client(&w, c)->status, 431);
    assert_string_equal(w.broken->str, "guest 2 h2_too_many_fields\nguest 3 h2_headers_too_large\n");
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

static void length_and_trailers_of_the_guest(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "POST", "/wait", 5, "content-length: 6\n");
    client(&w, a)->send_more = true;
    h2_run(&w);
    h2_more(&w, SM_BRIDGE_GUEST, a, 0, true);
    h2_run(&w);
    assert_string_equal(w.broken->str, "guest 1 h2_content_length\n");
    assert_int_equal(client(&w, a)->code, NGHTTP2_PROTOCOL_ERROR);
    assert_int_equal(server(&w, 1)->code, NGHTTP2_CANCEL);
    assert_false(server(&w, 1)->ended);
    assert_string_equal(w.told->str, "1 broken 0 5 0\n");
    int32_t b = h2_request(&w, "POST", "/wait", 7, "content-length: 6\n");
    h2_run(&w);
    assert_int_equal(client(&w, b)->code, NGHTTP2_PROTOCOL_ERROR);
    assert_false(server(&w, 3)->ended);
    /* A field that routes, behind the body. */
    int32_t c = h2_request(&w, "POST", "/wait", 5, NULL);
    client(&w, c)->send_trailer = "content-length";
    h2_run(&w);
    assert_true(client(&w, c)->closed);
    assert_false(server(&w, 5)->ended);
    int32_t d = h2_request(&w, "POST", "/wait", 5, NULL);
    client(&w, d)->send_trailer = "authorization";
    h2_run(&w);
    assert_non_null(strstr(w.broken->str, "guest 4 h2_trailer\n"));
    assert_int_equal(client(&w, d)->code, NGHTTP2_PROTOCOL_ERROR);
    assert_false(server(&w, 7)->ended);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

/* ---- broken responses ---- */

static void broken_responses(void **state)
{
    static const struct {
        const char *fields, *word;
    } samples[] = {
        {":status: 200\nx: a\rb\n", "h2_header_invalid"},
        {":status: 200\nconnection: close\n", "h2_header_invalid"},
        {":status: 101\n", "h2_header_invalid"},
        {":status: 20\n", "h2_header_invalid"},
        {":status: 099\n", "h2_status"},
        {"x: y\n", "h2_message_invalid"},
        {":status: 200\ncontent-length: 1\ncontent-length: 2\n", "h2_header_invalid"},
    };
    struct h2_world w;
    h2_world_init(&w, NULL);
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        g_string_truncate(w.broken, 0);
        int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
        h2_run(&w);
        h2_respond(&w, (int32_t)i * 2 + 1, samples[i].fields, -1);
        h2_run(&w);
        g_autofree char *broken = g_strdup_printf("origin %u %s\n", (unsigned)i + 1, samples[i].word);
        assert_string_equal(w.broken->str, broken);
        assert_int_equal(client(&w, id)->status, 502);
        g_autofree char *page = g_strdup_printf("{\"502\":\"%s\"}", samples[i].word);
        assert_string_equal(client(&w, id)->text->str, page);
        assert_true(client(&w, id)->closed);
    }
    assert_non_null(strstr(w.told->str, "1 broken 502 0 "));
    /* White space around a value is the reader's own affair. */
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    h2_respond(&w, (int32_t)SM_ARRAY_LEN(samples) * 2 + 1, ":status: 200\nx: a \n", -1);
    h2_run(&w);
    assert_string_equal(client(&w, id)->head->str, ":status: 200\nx: a \n");
    /* Too short a body, after the head has gone on. */
    g_string_truncate(w.broken, 0);
    id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    h2_respond(&w, (int32_t)SM_ARRAY_LEN(samples) * 2 + 3, ":status: 200\ncontent-length: 9\n", 8);
    h2_run(&w);
    assert_int_equal(client(&w, id)->status, 200);
    assert_false(client(&w, id)->ended);
    assert_int_equal(client(&w, id)->code, NGHTTP2_INTERNAL_ERROR);
    assert_string_equal(w.broken->str, "origin 9 h2_content_length\n");
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

/* ---- resets ---- */

static void resets(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "GET", "/reset/8", -1, NULL);
    int32_t b = h2_request(&w, "GET", "/reset/7", -1, NULL);
    int32_t c = h2_request(&w, "POST", "/partial/2", 100, NULL);
    int32_t d = h2_request(&w, "POST", "/wait", 100, NULL);
    client(&w, d)->send_more = true;
    h2_run(&w);
    assert_int_equal(client(&w, a)->code, NGHTTP2_CANCEL);
    assert_int_equal(client(&w, b)->code, NGHTTP2_REFUSED_STREAM);
    /* What came before the reset is not lost. */
    assert_int_equal(client(&w, c)->body, 10);
    assert_int_equal(client(&w, c)->code, NGHTTP2_INTERNAL_ERROR);
    assert_false(client(&w, c)->ended);
    assert_non_null(strstr(w.told->str, "3 reset 200 100 10\n"));
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, d, NGHTTP2_INTERNAL_ERROR);
    h2_run(&w);
    assert_int_equal(server(&w, 7)->code, NGHTTP2_INTERNAL_ERROR);
    assert_non_null(strstr(w.told->str, "4 reset 0 100 0\n"));
    assert_true(sm_bridge_idle(w.b));
    assert_string_equal(w.broken->str, "");
    h2_world_done(&w);
}

static void early_response(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "POST", "/early", 10, NULL);
    client(&w, id)->send_more = true;
    h2_run(&w);
    assert_int_equal(client(&w, id)->status, 413);
    assert_int_equal(client(&w, id)->body, 20);
    assert_true(client(&w, id)->ended);
    assert_int_equal(client(&w, id)->code, NGHTTP2_NO_ERROR);
    assert_true(client(&w, id)->closed);
    assert_string_equal(w.told->str, "1 done 413 10 20\n");
    /* Without the reset the guest may finish, and the origin gets all of it. */
    id = h2_request(&w, "POST", "/wait", 10, NULL);
    client(&w, id)->send_more = true;
    h2_run(&w);
    h2_respond(&w, 3, ":status: 200\n", 5);
    h2_run(&w);
    assert_true(client(&w, id)->ended && !client(&w, id)->closed);
    h2_more(&w, SM_BRIDGE_GUEST, id, 200000, true);
    h2_run(&w);
    assert_int_equal(server(&w, 3)->body, 200010);
    assert_true(server(&w, 3)->ended);
    assert_true(client(&w, id)->closed);
    h2_world_done(&w);
}

/* ---- ends ---- */

static void goaway_of_the_origin(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "POST", "/wait", 5, NULL);
    int32_t b = h2_request(&w, "POST", "/wait", 5, NULL);
    h2_run(&w);
    nghttp2_submit_goaway(w.end[SM_BRIDGE_ORIGIN], 0, 1, NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)"too_many_pings",
                          14);
    h2_run(&w);
    assert_true(w.goaway[SM_BRIDGE_GUEST]);
    assert_int_equal(w.goaway_code[SM_BRIDGE_GUEST], NGHTTP2_ENHANCE_YOUR_CALM);
    assert_string_equal(w.goaway_text[SM_BRIDGE_GUEST]->str, "too_many_pings");
    assert_int_equal(w.goaway_last[SM_BRIDGE_GUEST], b);
    assert_int_equal(client(&w, b)->code, NGHTTP2_REFUSED_STREAM);
    assert_false(client(&w, a)->closed);
    h2_respond(&w, 1, ":status: 200\n", 9);
    h2_run(&w);
    assert_int_equal(client(&w, a)->body, 9);
    assert_true(client(&w, a)->ended);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    h2_world_done(&w);
}

static void shutdown_notice(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "POST", "/wait", 5, NULL);
    h2_run(&w);
    nghttp2_submit_shutdown_notice(w.end[SM_BRIDGE_ORIGIN]);
    /* On its way when the notice comes. */
    int32_t b = h2_request(&w, "GET", "/size/1", -1, NULL);
    while (h2_step_in(&w, SM_BRIDGE_ORIGIN, SIZE_MAX))
        ;
    h2_run(&w);
    assert_int_equal(w.goaway_last[SM_BRIDGE_GUEST], INT32_MAX);
    assert_int_equal(client(&w, b)->code, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    nghttp2_submit_goaway(w.end[SM_BRIDGE_ORIGIN], 0, 1, NGHTTP2_NO_ERROR, NULL, 0);
    h2_respond(&w, 1, ":status: 200\n", 9);
    h2_run(&w);
    assert_int_equal(client(&w, a)->body, 9);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    h2_world_done(&w);
}

static void goaway_of_the_guest(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "POST", "/wait", 5, NULL);
    h2_run(&w);
    nghttp2_submit_goaway(w.end[SM_BRIDGE_GUEST], 0, 0, NGHTTP2_PROTOCOL_ERROR, NULL, 0);
    h2_run(&w);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_respond(&w, 1, ":status: 200\n", 9);
    h2_run(&w);
    assert_int_equal(client(&w, a)->body, 9);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    assert_int_equal(w.goaway_code[SM_BRIDGE_ORIGIN], NGHTTP2_PROTOCOL_ERROR);
    h2_world_done(&w);
}

static void end_of_the_guest(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    sm_bridge_eof(w.b, SM_BRIDGE_GUEST, true);
    assert_string_equal(w.told->str, "1 reset 0 0 0\n");
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_CUT);
    assert_true(sm_bridge_out_closed(w.b, SM_BRIDGE_ORIGIN));
    h2_run(&w);
    assert_int_equal(server(&w, 1)->code, NGHTTP2_CANCEL);
    assert_true(w.goaway[SM_BRIDGE_ORIGIN]);
    assert_int_equal(sm_bridge_room(w.b, SM_BRIDGE_GUEST), 0);
    h2_world_done(&w);

    h2_world_init(&w, NULL);
    h2_request(&w, "GET", "/size/5", -1, NULL);
    h2_run(&w);
    sm_bridge_eof(w.b, SM_BRIDGE_GUEST, false);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    h2_world_done(&w);
}

static void end_of_the_origin(void **state)
{
    /* Nothing open: the guest is told. */
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t a = h2_request(&w, "GET", "/size/5", -1, NULL);
    h2_run(&w);
    sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, false);
    h2_run(&w);
    assert_true(w.goaway[SM_BRIDGE_GUEST]);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    h2_world_done(&w);

    /* In the middle of a response: what a direct client would see. What was not sent yet may be tried again. */
    h2_world_init(&w, &(struct h2_options){.server_streams = 1});
    int32_t first = h2_request(&w, "GET", "/size/1", -1, NULL);
    h2_run(&w);
    a = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    h2_respond(&w, 3, ":status: 200\n", 9);
    server(&w, 3)->send_more = true;
    h2_run(&w);
    sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, true);
    h2_run(&w);
    assert_int_equal(client(&w, first)->body, 1);
    assert_int_equal(client(&w, a)->body, 9);
    assert_false(client(&w, a)->ended);
    assert_true(w.goaway[SM_BRIDGE_GUEST]);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_CUT);
    assert_non_null(strstr(w.told->str, "2 reset 200 0 9\n"));
    h2_world_done(&w);

    h2_world_init(&w, &(struct h2_options){.server_streams = 1});
    first = h2_request(&w, "GET", "/size/1", -1, NULL);
    h2_run(&w);
    a = h2_request(&w, "GET", "/wait", -1, NULL);
    int32_t b = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 2);
    sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, false);
    h2_run(&w);
    assert_int_equal(client(&w, b)->code, NGHTTP2_REFUSED_STREAM);
    assert_true(client(&w, a)->closed);
    assert_int_equal(client(&w, a)->code, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    h2_world_done(&w);
}

/* All of a response has come, its reader is slow, and the origin has gone: it still gets all of it. */
static void end_of_the_origin_while_draining(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.slow_client = true});
    int32_t id = h2_request(&w, "GET", "/size/100000", -1, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 65535);
    sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, false);
    h2_run(&w);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    nghttp2_session_consume(w.end[SM_BRIDGE_GUEST], id, 65535);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 100000);
    assert_true(client(&w, id)->ended);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
    assert_string_equal(w.told->str, "1 done 200 0 100000\n");
    h2_world_done(&w);
}

/* ---- flow control ---- */

static void slow_guest_slows_the_origin(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.slow_client = true});
    int32_t id = h2_request(&w, "GET", "/size/50000000", -1, NULL);
    h2_run(&w);
    /* What the client's window took, and what we may hold. */
    assert_int_equal(client(&w, id)->body, 65535);
    uint64_t sent = server(&w, 1)->sent;
    assert_true(sent >= 65535 && sent <= 65535 + SM_H2_WINDOW_MIN * 2 + SM_BRIDGE_OUT_MAX);
    /* Another stream does not wait for it... but for the connection's window, which is the client's own affair. */
    nghttp2_submit_window_update(w.end[SM_BRIDGE_GUEST], 0, 0, 1000000);
    int32_t other = h2_request(&w, "GET", "/size/50000", -1, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, other)->body, 50000);
    assert_int_equal(client(&w, id)->body, 65535);
    for (unsigned i = 0; i < 40; i++) {
        nghttp2_session_consume_stream(w.end[SM_BRIDGE_GUEST], id, 65535);
        h2_run(&w);
    }
    assert_true(client(&w, id)->body > 900000);
    assert_false(client(&w, id)->bad_body);
    assert_true(server(&w, 1)->sent <= client(&w, id)->body + SM_H2_WINDOW_MAX);
    h2_world_done(&w);
}

static void slow_origin_slows_the_guest(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.slow_server = true});
    int32_t id = h2_request(&w, "POST", "/wait", 50000000, NULL);
    h2_run(&w);
    assert_int_equal(server(&w, 1)->body, 65535);
    assert_true(client(&w, id)->sent <= 65535 + SM_H2_WINDOW_MIN * 2 + SM_BRIDGE_OUT_MAX);
    h2_world_done(&w);
}

/* A side that takes nothing at all: output stops at its bound and the sender stalls, whatever its windows. */
static void deaf_guest(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.windows = 1u << 30});
    int32_t id = h2_request(&w, "GET", "/size/50000000", -1, NULL);
    h2_step_in(&w, SM_BRIDGE_GUEST, SIZE_MAX);
    w.deaf[SM_BRIDGE_GUEST] = true;
    h2_run(&w);
    assert_true(server(&w, 1)->sent <= SM_BRIDGE_OUT_MAX + 16393 + SM_H2_WINDOW_MAX);
    assert_true(server(&w, 1)->sent >= SM_BRIDGE_OUT_MAX);
    w.deaf[SM_BRIDGE_GUEST] = false;
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 50000000);
    assert_false(client(&w, id)->bad_body);
    h2_world_done(&w);
}

/* One stuck stream after the other must not close the connection for the rest. */
static void stuck_streams_do_not_stop_others(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.slow_client = true});
    nghttp2_session_set_local_window_size(w.end[SM_BRIDGE_GUEST], 0, 0, 1 << 30);
    for (unsigned i = 0; i < 99; i++)
        h2_request(&w, "GET", "/size/500000", -1, NULL);
    h2_run(&w);
    int32_t id = h2_request(&w, "GET", "/size/60000", -1, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 60000);
    assert_true(client(&w, id)->ended);
    h2_world_done(&w);
}

static void windows_grow_for_a_fast_reader(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.windows = 1u << 30});
    int32_t id = h2_request(&w, "GET", "/size/20000000", -1, NULL);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, 20000000);
    /* Twenty streams: the pool is shared, and comes back. */
    for (unsigned round = 0; round < 3; round++) {
        int32_t ids[20];
        for (unsigned i = 0; i < 20; i++)
            ids[i] = h2_request(&w, "POST", "/echo", 1000000, NULL);
        h2_run(&w);
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(client(&w, ids[i])->body, 1000000);
            assert_false(client(&w, ids[i])->bad_body);
        }
    }
    h2_world_done(&w);
}

static void origin_with_few_streams(void **state)
{
    struct h2_world w;
    h2_world_init(&w, &(struct h2_options){.server_streams = 2});
    h2_request(&w, "GET", "/size/1", -1, NULL);
    h2_run(&w);
    for (unsigned i = 0; i < 10; i++)
        h2_request(&w, "POST", "/wait", 3, NULL);
    h2_run(&w);
    assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 3);
    /* One that waits may be given up without a trace. */
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, 9, NGHTTP2_CANCEL);
    h2_run(&w);
    for (int32_t id = 3; id < 3 + 2 * 9; id += 2) {
        h2_respond(&w, id, ":status: 200\n", 2);
        h2_run(&w);
    }
    assert_int_equal(w.responses, 11);
    assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 10);
    assert_true(sm_bridge_idle(w.b));
    h2_world_done(&w);
}

/* Padding counts for the windows and goes no further. */
static void padding(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "POST", "/echo", 0, NULL);
    client(&w, id)->send_more = true;
    h2_run(&w);
    uint8_t frame[9 + 1 + 4 + 200] = {0, 0, 205, NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 0, 0, 0, 1, 200, 7, 38, 69, 100};
    for (unsigned i = 0; i < 2000; i++)
        h2_raw(&w, SM_BRIDGE_GUEST, frame, sizeof(frame));
    h2_run(&w);
    assert_string_equal(w.broken->str, "");
    assert_int_equal(server(&w, 1)->body, 8000);
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_get),
        cmocka_unit_test(echo),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(trailers_both_ways),
        cmocka_unit_test(grpc),
        cmocka_unit_test(interim_and_bodyless),
        cmocka_unit_test(alt_svc),
        cmocka_unit_test(refused_and_the_connection_lives),
        cmocka_unit_test(late_answer),
        cmocka_unit_test(broken_requests),
        cmocka_unit_test(good_requests),
        cmocka_unit_test(cleartext),
        cmocka_unit_test(large_heads),
        cmocka_unit_test(length_and_trailers_of_the_guest),
        cmocka_unit_test(broken_responses),
        cmocka_unit_test(resets),
        cmocka_unit_test(early_response),
        cmocka_unit_test(goaway_of_the_origin),
        cmocka_unit_test(shutdown_notice),
        cmocka_unit_test(goaway_of_the_guest),
        cmocka_unit_test(end_of_the_guest),
        cmocka_unit_test(end_of_the_origin),
        cmocka_unit_test(end_of_the_origin_while_draining),
        cmocka_unit_test(slow_guest_slows_the_origin),
        cmocka_unit_test(slow_origin_slows_the_guest),
        cmocka_unit_test(deaf_guest),
        cmocka_unit_test(stuck_streams_do_not_stop_others),
        cmocka_unit_test(windows_grow_for_a_fast_reader),
        cmocka_unit_test(origin_with_few_streams),
        cmocka_unit_test(padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
