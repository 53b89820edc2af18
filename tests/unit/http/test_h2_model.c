/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random interleavings of what clients, servers, judges and networks do, over the HTTP/2 bridge. The model is what
 * HTTP promises: a stream that nobody gave up comes to its end on both sides with every byte, one that was given up
 * ends too, and nobody has to hold more than the bounds.
 */
#include "h2_world.h"

#define SEEDS 400
#define STREAMS 60

enum kind { ECHO, SIZE, TRAILERS, INTERIM, EARLY, STATUS, RESET, PARTIAL, TOKEN, KINDS };
static const char *const paths[KINDS] = {"/echo",       "/size/0",  "/trailers",  "/interim", "/early",
                                         "/status/304", "/reset/7", "/partial/8", "/token/0"};

/* Where there are edits any request may be sent again, and those to TOKEN are. */
static const struct sm_bridge_edit edit = {
    .name = "x-key", .value = H2_OLD, .value_len = sizeof(H2_OLD) - 1, .replay = true};
static const struct sm_bridge_edit edit_again = {.name = "x-key", .value = "new-token", .value_len = 9, .replay = true};
/* The head of a TOKEN's 401, as HPACK counts it. */
#define TOKEN_HEAD (7u + 3u + 32u + 4u + 9u + 32u)

struct plan {
    int32_t id;
    enum kind kind;
    uint32_t up, down;
    bool given_up;
};

static uint32_t state_of_random;

static uint32_t pick(uint32_t n)
{
    state_of_random = state_of_random * 1664525u + 1013904223u;
    return (state_of_random >> 8) % n;
}

static void ask_late(struct h2_world *w, unsigned *answered)
{
    while (*answered < w->requests) {
        ++*answered;
        h2_answer(w, *answered, true);
    }
}

/* What is inside the bridge, of one direction of one stream, as bytes that one end sent and the other did not get. */
static void bounded(struct h2_world *w, int32_t guest_id)
{
    struct h2_seen *c = h2_seen(w, SM_BRIDGE_GUEST, guest_id);
    uint64_t most = SM_H2_WINDOW_MAX + SM_BRIDGE_OUT_MAX + w->wire[SM_BRIDGE_ORIGIN]->len + 16384;
    uint64_t sent = 0, got = 0;
    GHashTableIter iter;
    void *value;

    assert_true(c->body <= 1u << 30);
    g_hash_table_iter_init(&iter, w->seen[SM_BRIDGE_ORIGIN]);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        sent += ((struct h2_seen *)value)->closed ? 0 : ((struct h2_seen *)value)->sent;
    g_hash_table_iter_init(&iter, w->seen[SM_BRIDGE_GUEST]);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        got += ((struct h2_seen *)value)->body;
    assert_true(sent <= got + SM_H2_WINDOW_CONNECTION + most);
}

static void play(uint32_t seed)
{
    struct h2_options options = {0};
    struct h2_world w;
    struct plan plans[STREAMS];
    unsigned n = 0, answered = 0;

    state_of_random = seed * 2654435761u + 1;
    options.server_streams = pick(3) == 0 ? 1 + pick(5) : 0;
    options.windows = pick(2) ? 1u << (16 + pick(8)) : 0;
    h2_world_init(&w, &options);
    w.judge = pick(2) ? H2_LATER : H2_PASS;
    bool late = w.judge == H2_LATER;
    w.edit = pick(2) ? &edit : NULL;
    w.edit_again = &edit_again;
    w.again = (enum h2_judge[]){H2_PASS, H2_LATER, H2_LATER, H2_REFUSE}[pick(4)];
    /* Who opens more streams than the server wants before it could say so gets some refused, as without us. */
    if (options.server_streams)
        h2_run(&w);
    for (unsigned step = 0; step < 600; step++) {
        enum sm_bridge_side side = pick(2) ? SM_BRIDGE_GUEST : SM_BRIDGE_ORIGIN;
        switch (pick(12)) {
        case 0:
            if (n < STREAMS) {
                struct plan *p = &plans[n++];
                *p = (struct plan){.kind = pick(KINDS)};
                p->up = pick(3) == 0 ? pick(200000) : pick(100);
                p->down = pick(3) == 0 ? pick(300000) : pick(100);
                g_autofree char *path = g_strdup(paths[p->kind]);
                if (p->kind == SIZE || p->kind == TOKEN) {
                    g_free(path);
                    path = g_strdup_printf("/%s/%u", p->kind == SIZE ? "size" : "token", p->down);
                }
                bool body = p->kind == ECHO || pick(2);
                p->up = body ? p->up : 0;
                p->id = h2_request(&w, body ? "POST" : "GET", path, body ? (int64_t)p->up : -1, "te: trailers\n");
            }
            break;
        case 1:
            if (late && answered < w.requests) {
                answered++;
                h2_answer(&w, answered, true);
            }
            break;
        case 5:
            (void)h2_answer_next(&w);
            break;
        case 2:
            if (n > 0 && pick(4) == 0) {
                struct plan *p = &plans[pick(n)];
                if (p->given_up || h2_seen(&w, SM_BRIDGE_GUEST, p->id)->closed)
                    break;
                p->given_up = true;
                nghttp2_submit_rst_stream(w.end[SM_BRIDGE_GUEST], 0, p->id, NGHTTP2_CANCEL);
            }
            break;
        case 3:
            w.deaf[side] = pick(2);
            break;
        case 4:
            if (n > 0)
                bounded(&w, plans[pick(n)].id);
            break;
        default:
            if (pick(2))
                h2_step_in(&w, side, 1 + pick(pick(2) ? 50 : 200000));
            else
                h2_step_out(&w, side, 1 + pick(pick(2) ? 50 : 200000));
            break;
        }
    }
    w.deaf[SM_BRIDGE_GUEST] = w.deaf[SM_BRIDGE_ORIGIN] = false;
    w.judge = H2_PASS;
    if (late)
        ask_late(&w, &answered);
    h2_run(&w);
    while (h2_answer_next(&w))
        h2_run(&w);

    assert_string_equal(w.broken->str, "");
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    assert_true(sm_bridge_idle(w.b));
    for (unsigned i = 0; i < n; i++) {
        struct plan *p = &plans[i];
        struct h2_seen *c = h2_seen(&w, SM_BRIDGE_GUEST, p->id);
        assert_true(c->closed);
        assert_false(c->bad_body);
        if (p->given_up)
            continue;
        assert_true(c->ended == (p->kind != RESET && p->kind != PARTIAL));
        switch (p->kind) {
        case ECHO:
            assert_int_equal(c->body, p->up);
            break;
        case SIZE:
            assert_int_equal(c->body, p->down);
            break;
        case TOKEN: {
            bool old = w.edit && (w.again == H2_REFUSE || p->up > SM_BRIDGE_REPLAY_BODY_MAX ||
                                  TOKEN_HEAD + p->down > SM_BRIDGE_REPLAY_RESPONSE_MAX);
            assert_int_equal(c->status, old ? 401 : 200);
            assert_int_equal(c->body, old ? p->down : 5);
            break;
        }
        case TRAILERS:
            assert_int_equal(c->body, 5);
            assert_string_equal(c->trailers->str, "grpc-status: yes\n");
            break;
        case INTERIM:
            assert_string_equal(c->interim->str, ":status: 103\nlink: </x>\n:status: 100\n");
            assert_int_equal(c->body, 10);
            break;
        case EARLY:
            assert_int_equal(c->status, 413);
            assert_int_equal(c->body, 20);
            break;
        case STATUS:
            assert_int_equal(c->status, 304);
            break;
        case RESET:
            assert_int_equal(c->code, NGHTTP2_REFUSED_STREAM);
            break;
        case PARTIAL:
            assert_int_equal(c->body, 10);
            assert_int_equal(c->code, NGHTTP2_CANCEL);
            break;
        case KINDS:
            break;
        }
    }
    h2_world_done(&w);
}

static void interleavings(void **state)
{
    for (uint32_t seed = 0; seed < SEEDS; seed++)
        play(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interleavings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
