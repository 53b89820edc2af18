/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/2 bridge with edits (struct sm_bridge_edit): between a real client and a real server, what each of them
 * gets.
 */
#include "h2_world.h"

#include "http/edit.h"
#include "http/scrub.h"

#define SECRET "sk-Test/0+9 z?"
#define STARS "**************"
#define HEAD ":method: GET\n:scheme: https\n:authority: ok.test\n:path: /wait\n"

static struct h2_seen *client(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_GUEST, id);
}

static struct h2_seen *server(struct h2_world *w, int32_t id)
{
    return h2_seen(w, SM_BRIDGE_ORIGIN, id);
}

static const struct sm_bridge_edit keyed = {.name = "X-Api-Key", .value = SECRET, .value_len = sizeof(SECRET) - 1};

static struct sm_scrub *scrub_new(void)
{
    return sm_scrub_new((const uint8_t *)SECRET, strlen(SECRET));
}

static void requests(void **state)
{
    static const struct {
        struct sm_bridge_edit edit;
        const char *fields, *origin;
    } samples[] = {
        {{0}, "x-api-key: fake\n", "x-api-key: fake\n"},
        {keyed, "a: b\n", "a: b\nx-api-key! " SECRET "\n"},
        {keyed, "a: b\nx-api-key: 1\nc: d\n", "a: b\nx-api-key! " SECRET "\nc: d\n"},
        {keyed, "x-api-key! 1\na: b\nx-api-key: 2\nx-api-key: \nx-api-key2: 3\n",
         "x-api-key! " SECRET "\na: b\nx-api-key2: 3\n"},
        {{.name = "COOKIE", .value = "k=1", .value_len = 3}, "cookie: a=b\nx: y\ncookie: c=d\n", "cookie! k=1\nx: y\n"},
        {{.identity = true}, "a: b\n", "a: b\naccept-encoding: identity\n"},
        {{.identity = true},
         "accept-encoding: gzip, br\na: b\naccept-encoding: zstd\n",
         "accept-encoding: identity\na: b\n"},
        {{.identity = true},
         "range: bytes=0-1\nif-range: \"a\"\nrequest-range: bytes=0-1\na-im: vcdiff\n",
         "if-range: \"a\"\naccept-encoding: identity\n"},
        {keyed, "range: bytes=0-1\n", "range: bytes=0-1\nx-api-key! " SECRET "\n"},
        {{.name = "authorization", .value = "", .identity = true},
         "te: trailers\n",
         "te: trailers\nauthorization! \naccept-encoding: identity\n"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        for (unsigned late = 0; late < 2; late++) {
            struct h2_world w;
            h2_world_init(&w, NULL);
            w.edit = &samples[i].edit;
            w.judge = late ? H2_LATER : H2_PASS;
            g_autofree char *head = g_strconcat(HEAD, samples[i].fields, NULL);
            g_autofree char *want = g_strconcat(HEAD, samples[i].origin, NULL);
            (void)h2_request_raw(&w, head, -1);
            h2_run(&w);
            if (late)
                h2_answer(&w, 1, true);
            h2_run(&w);
            assert_string_equal(server(&w, 1)->head->str, want);
            h2_world_done(&w);
        }
    }
}

/* A head that is full has room for what an edit adds, and the judge sees all of it but the pseudo-headers. */
static void full_head(void **state)
{
    struct h2_world w;
    struct sm_bridge_edit edit = keyed;
    g_autoptr(GString) head = g_string_new(HEAD), fields = g_string_new(NULL);

    h2_world_init(&w, NULL);
    edit.identity = true;
    w.edit = &edit;
    for (unsigned i = 4; i < 256; i++) {
        g_string_append_printf(head, "x-%u: %u\n", i, i);
        g_string_append_printf(fields, "x-%u=%u\n", i, i);
    }
    (void)h2_request_raw(&w, head->str, -1);
    h2_run(&w);
    assert_string_equal(w.fields->str, fields->str);
    g_string_append(head, "x-api-key! " SECRET "\naccept-encoding: identity\n");
    assert_string_equal(server(&w, 1)->head->str, head->str);
    h2_world_done(&w);
}

static void invalid(void **state)
{
    static const struct sm_bridge_edit bad[] = {
        {.name = "x-key", .value = "a\nb", .value_len = 3},       {.name = "x-key", .value = "a\0b", .value_len = 3},
        {.name = "x-key", .value = "a ", .value_len = 2},         {.name = ":path", .value = "/", .value_len = 1},
        {.name = "host", .value = "evil.test", .value_len = 9},   {.name = "", .value = "a", .value_len = 1},
        {.name = "content-length", .value = "1", .value_len = 1}, {.name = "connection", .value = "a", .value_len = 1},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        w.edit = &bad[i];
        int32_t id = h2_request(&w, "POST", "/echo", 10, NULL);
        h2_run(&w);
        assert_int_equal(client(&w, id)->status, 502);
        assert_string_equal(client(&w, id)->text->str, "{\"502\":\"" SM_HTTP_EDIT_INVALID "\"}");
        assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), 0);
        assert_true(g_str_has_prefix(w.told->str, "1 refused 502 0"));
        /* The connection lives on. */
        w.edit = NULL;
        id = h2_request(&w, "GET", "/size/5", -1, NULL);
        h2_run(&w);
        assert_int_equal(client(&w, id)->body, 5);
        h2_world_done(&w);
    }
}

/* Behind the body nothing is added to what was replaced, whether the trailers come before the answer or after it. */
static void trailers(void **state)
{
    for (unsigned late = 0; late < 2; late++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        w.edit = &keyed;
        w.judge = late ? H2_LATER : H2_PASS;
        int32_t id = h2_request(&w, "POST", "/echo", 5, NULL);
        struct h2_seen *c = client(&w, id);
        c->send_trailer = "x-api-key";
        c->send_more = !late;
        h2_run(&w);
        if (!late)
            h2_more(&w, SM_BRIDGE_GUEST, id, 0, true);
        h2_run(&w);
        if (late)
            h2_answer(&w, 1, true);
        h2_run(&w);
        assert_string_equal(w.broken->str, "guest 1 h2_trailer\n");
        assert_true(client(&w, id)->closed);
        assert_int_equal(client(&w, id)->status, late ? 400 : 200);
        assert_int_equal(g_hash_table_size(w.seen[SM_BRIDGE_ORIGIN]), late ? 0 : 1);
        assert_true(late || server(&w, 1)->trailers->len == 0);
        assert_non_null(strstr(w.told->str, "1 broken"));
        id = h2_request(&w, "POST", "/echo", 5, NULL);
        client(&w, id)->send_trailer = "x-sum";
        h2_run(&w);
        if (late)
            h2_answer(&w, 2, true);
        h2_run(&w);
        assert_string_equal(server(&w, late ? 1 : 3)->trailers->str, "x-sum: yes\n");
        h2_world_done(&w);
    }
}

/* What waits for the origin keeps its value; what is given up while it waits takes it along. */
static void waiting(void **state)
{
    struct h2_options options = {.server_streams = 1};
    struct h2_world w;

    h2_world_init(&w, &options);
    h2_run(&w);
    w.edit = &keyed;
    (void)h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    (void)h2_request(&w, "GET", "/size/7", -1, NULL);
    int32_t third = h2_request(&w, "GET", "/size/8", -1, NULL);
    h2_run(&w);
    assert_true(w.account > 2 * strlen(SECRET));
    nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, third, NGHTTP2_CANCEL);
    h2_run(&w);
    h2_respond(&w, 1, ":status: 200\n", -1);
    h2_run(&w);
    assert_non_null(strstr(server(&w, 3)->head->str, "x-api-key! " SECRET "\n"));
    assert_string_equal(w.told->str, "3 reset 0 0 0\n1 done 200 0 0\n2 done 200 0 7\n");
    assert_int_equal(w.account, 0);
    h2_world_done(&w);
}

struct reply {
    const char *fields, *body, *trailer;
    const char *want_head, *want_body, *want_trailer;
    const char *told;
};

static const struct reply replies[] = {
    {":status: 200\n", "sk-Test/0+9 z", NULL, ":status: 200\n", "sk-Test/0+9 z", "", "1 done 200 0 13\n"},
    {":status: 200\nx-echo: a " SECRET "\nlocation: /?k=sk-Test%2f0%2B9+z%3F\ncontent-length: 32\n",
     SECRET "and " SECRET, SECRET,
     ":status: 200\nx-echo: a " STARS "\nlocation: /?k=********************\ncontent-length: 32\n", STARS "and " STARS,
     "x-sum: " STARS "\n", "1 done 200 0 32 *5\n"},
    {":status: 200\ncontent-encoding: gzip\nx: " SECRET "\n", SECRET, "ok",
     ":status: 200\ncontent-encoding: gzip\nx: " STARS "\n", SECRET, "x-sum: ok\n", "1 done 200 0 14 *1 unscrubbed\n"},
    {":status: 200\ncontent-encoding: identity\n", "c2stVGVzdC8wKzkgej8=", NULL,
     ":status: 200\ncontent-encoding: identity\n", "******************8=", "", "1 done 200 0 20 *1\n"},
};

/* The body in two DATA frames cut at every place, with everything cut into every few bytes. */
static void responses(void **state)
{
    struct sm_scrub *scrub = scrub_new();
    struct sm_bridge_edit edit = {.scrub = scrub};

    for (size_t i = 0; i < SM_ARRAY_LEN(replies); i++) {
        const struct reply *r = &replies[i];
        size_t len = strlen(r->body);
        for (size_t at = 0; at <= len; at++) {
            struct h2_world w;
            h2_world_init(&w, NULL);
            w.edit = &edit;
            w.cut = at % 3 ? at : 0;
            int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
            h2_run(&w);
            struct h2_seen *s = server(&w, 1);
            s->send_text = r->body;
            s->send_trailer = r->trailer ? "x-sum" : NULL;
            s->trailer_value = r->trailer;
            s->send_more = true;
            h2_respond(&w, 1, r->fields, (int64_t)at);
            h2_run(&w);
            h2_more(&w, SM_BRIDGE_ORIGIN, 1, len - at, at % 2);
            h2_run(&w);
            if (at % 2 == 0)
                h2_more(&w, SM_BRIDGE_ORIGIN, 1, 0, true);
            h2_run(&w);
            struct h2_seen *c = client(&w, id);
            assert_string_equal(c->head->str, r->want_head);
            assert_string_equal(c->text->str, r->want_body);
            assert_string_equal(c->trailers->str, r->want_trailer);
            assert_true(c->ended);
            assert_string_equal(w.told->str, r->told);
            assert_string_equal(w.broken->str, "");
            assert_int_equal(w.account, 0);
            h2_world_done(&w);
        }
    }
    sm_scrub_unref(scrub);
}

static void interim(void **state)
{
    struct sm_scrub *scrub = sm_scrub_new((const uint8_t *)"</x>; r", 7),
                    *link = sm_scrub_new((const uint8_t *)"grpc-status", 11);
    struct sm_bridge_edit edit = {.scrub = scrub};
    struct h2_world w;

    h2_world_init(&w, NULL);
    w.edit = &edit;
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    nghttp2_nv hints[] = {{(uint8_t *)":status", (uint8_t *)"103", 7, 3, 0},
                          {(uint8_t *)"link", (uint8_t *)"</x>; rel", 4, 9, 0}};
    nghttp2_submit_headers(w.end[SM_BRIDGE_ORIGIN], 0, 1, NULL, hints, 2, NULL);
    h2_respond(&w, 1, ":status: 200\n", -1);
    h2_run(&w);
    assert_string_equal(client(&w, id)->interim->str, ":status: 103\nlink: *******el\n");
    assert_string_equal(w.told->str, "1 done 200 0 0 *1\n");
    /* Names stay: they are not the secret's place, and what frames has its own. */
    edit.scrub = link;
    id = h2_request(&w, "GET", "/trailers", -1, NULL);
    h2_run(&w);
    assert_string_equal(client(&w, id)->trailers->str, "grpc-status: yes\n");
    h2_world_done(&w);
    sm_scrub_unref(scrub);
    sm_scrub_unref(link);
}

/* Each event is there as soon as it was sent, but for a tail that may be the secret's beginning. */
static void events(void **state)
{
    struct sm_scrub *scrub = scrub_new();
    struct sm_bridge_edit edit = {.scrub = scrub};
    struct h2_world w;

    h2_world_init(&w, NULL);
    w.edit = &edit;
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    struct h2_seen *c = client(&w, id), *s = server(&w, 1);
    s->send_text = "data: a\n\ndata: sk-T!\n\nsk-Test/0+9 z?\n";
    s->send_more = true;
    h2_respond(&w, 1, ":status: 200\n", 9);
    h2_run(&w);
    assert_string_equal(c->text->str, "data: a\n\n");
    h2_more(&w, SM_BRIDGE_ORIGIN, 1, 10, false);
    h2_run(&w);
    assert_string_equal(c->text->str, "data: a\n\ndata: ");
    assert_int_equal(w.account, 4);
    h2_more(&w, SM_BRIDGE_ORIGIN, 1, 3, false);
    h2_run(&w);
    assert_string_equal(c->text->str, "data: a\n\ndata: sk-T!\n\n");
    assert_int_equal(w.account, 0);
    h2_more(&w, SM_BRIDGE_ORIGIN, 1, 13, false);
    h2_run(&w);
    assert_string_equal(c->text->str, "data: a\n\ndata: sk-T!\n\n");
    h2_more(&w, SM_BRIDGE_ORIGIN, 1, 2, true);
    h2_run(&w);
    assert_string_equal(c->text->str, "data: a\n\ndata: sk-T!\n\n" STARS "\n");
    assert_string_equal(w.told->str, "1 done 200 0 37 *1\n");
    h2_world_done(&w);
    sm_scrub_unref(scrub);
}

/* What is held when the response is cut off is delivered as without a scrub, and then the end. */
static void cut_off(void **state)
{
    struct sm_scrub *scrub = scrub_new();
    struct sm_bridge_edit edit = {.scrub = scrub};

    for (unsigned how = 0; how < 5; how++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        w.edit = &edit;
        int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
        h2_run(&w);
        struct h2_seen *s = server(&w, 1);
        s->send_text = "data: sk-Test";
        s->send_more = true;
        h2_respond(&w, 1, ":status: 200\n", 13);
        h2_run(&w);
        assert_string_equal(client(&w, id)->text->str, "data: ");
        assert_int_equal(w.account, 7);
        if (how == 0)
            nghttp2_submit_rst_stream(w.end[SM_BRIDGE_ORIGIN], 0, 1, NGHTTP2_INTERNAL_ERROR);
        else if (how == 1)
            sm_bridge_eof(w.b, SM_BRIDGE_ORIGIN, true);
        else if (how == 2)
            nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, id, NGHTTP2_CANCEL);
        else if (how == 3)
            h2_raw(&w, SM_BRIDGE_ORIGIN, "\0\0\1\0\1\0\0\0\0x", 10); /* DATA on stream 0 */
        else
            s->send_trailer = "connection";
        if (how == 4)
            h2_more(&w, SM_BRIDGE_ORIGIN, 1, 0, true);
        h2_run(&w);
        assert_string_equal(client(&w, id)->text->str, how == 2 ? "data: " : "data: sk-Test");
        assert_false(client(&w, id)->ended);
        assert_int_equal(w.account, 0);
        h2_world_done(&w);
    }
    sm_scrub_unref(scrub);
}

/* What is held never keeps its own end from coming: the longest secret, with the smallest window. */
static void window(void **state)
{
    uint8_t secret[SM_SCRUB_SECRET_MAX];
    g_autoptr(GString) body = g_string_new(NULL);
    struct h2_world w;

    for (size_t i = 0; i < sizeof(secret); i++)
        secret[i] = (uint8_t)(i * 131 + (i >> 3) + 1);
    struct sm_scrub *scrub = sm_scrub_new(secret, sizeof(secret));
    struct sm_bridge_edit edit = {.scrub = scrub};
    g_autofree char *coded = g_base64_encode(secret, sizeof(secret));
    coded[sizeof(secret) * 8 / 6] = '\0';
    for (unsigned n = 0; n < 6; n++) {
        for (const char *c = coded; *c; c++)
            g_string_append_printf(body, "%%%02X", (uint8_t)*c);
        g_string_append(body, "%63%32 and then\n");
    }
    h2_world_init(&w, NULL);
    w.edit = &edit;
    int32_t id = h2_request(&w, "GET", "/wait", -1, NULL);
    h2_run(&w);
    server(&w, 1)->send_text = body->str;
    h2_respond(&w, 1, ":status: 200\n", (int64_t)body->len);
    h2_run(&w);
    assert_int_equal(client(&w, id)->body, body->len);
    assert_true(client(&w, id)->ended);
    assert_int_equal(strspn(client(&w, id)->text->str, "*"),
                     4096 < client(&w, id)->text->len ? client(&w, id)->text->len : 4096);
    g_autofree char *told = g_strdup_printf("1 done 200 0 %zu *6\n", (size_t)body->len);
    assert_string_equal(w.told->str, told);
    h2_world_done(&w);
    sm_scrub_unref(scrub);
}

/* What was held of a response that nobody wants any more is not counted any more. */
static void given_up(void **state)
{
    uint8_t secret[SM_SCRUB_SECRET_MAX];
    g_autoptr(GString) body = g_string_new(NULL);
    struct h2_options options = {.windows = 1 << 24};
    struct h2_world w;

    for (size_t i = 0; i < sizeof(secret); i++)
        secret[i] = (uint8_t)(i * 131 + (i >> 3) + 1);
    for (size_t i = 0; i < 23; i++) /* one more, and it would be sure */
        g_string_append_printf(body, "%%%02X", secret[i]);
    struct sm_scrub *scrub = sm_scrub_new(secret, sizeof(secret));
    struct sm_bridge_edit edit = {.scrub = scrub};
    h2_world_init(&w, &options);
    w.edit = &edit;
    for (unsigned n = 0; n < 100; n++) {
        int32_t id = h2_request(&w, "GET", "/wait", -1, NULL), there = (int32_t)(2 * n + 1);
        h2_run(&w);
        struct h2_seen *s = server(&w, there);
        s->send_text = body->str;
        s->send_more = true;
        h2_respond(&w, there, ":status: 200\n", (int64_t)body->len);
        h2_run(&w);
        assert_int_equal(w.account, body->len);
        nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, id, NGHTTP2_CANCEL);
        h2_run(&w);
        assert_int_equal(w.account, 0);
    }
    assert_string_equal(w.broken->str, "");
    h2_world_done(&w);
    sm_scrub_unref(scrub);
}

/* A HEAD has no body that could be encoded, whatever its answer says and however it ends. */
static void head_request(void **state)
{
    struct sm_scrub *scrub = scrub_new();
    struct sm_bridge_edit edit = {.scrub = scrub};
    struct h2_world w;

    h2_world_init(&w, NULL);
    w.edit = &edit;
    (void)h2_request(&w, "HEAD", "/wait", -1, NULL);
    h2_run(&w);
    h2_respond(&w, 1, ":status: 200\ncontent-encoding: gzip\n", 0);
    h2_run(&w);
    assert_string_equal(w.told->str, "1 done 200 0 0\n");
    h2_world_done(&w);
    sm_scrub_unref(scrub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests), cmocka_unit_test(full_head), cmocka_unit_test(invalid),
        cmocka_unit_test(trailers), cmocka_unit_test(waiting),   cmocka_unit_test(responses),
        cmocka_unit_test(interim),  cmocka_unit_test(events),    cmocka_unit_test(cut_off),
        cmocka_unit_test(window),   cmocka_unit_test(given_up),  cmocka_unit_test(head_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
