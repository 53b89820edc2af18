/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a hostile client or server does to the HTTP/2 bridge with frames of its own making: each flood ends its
 * connection, with its word.
 */
#include "h2_world.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

/* GET https://a/ in HPACK: indexed :method GET, :scheme https, :path /, literal :authority "a" without indexing. */
static const uint8_t get_block[] = {0x82, 0x87, 0x84, 0x01, 0x01, 'a'};
/* :status 200 */
static const uint8_t ok_block[] = {0x88};

static void frame(GByteArray *b, uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len)
{
    uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,       type,       flags,
                       (uint8_t)(id >> 24),  (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    g_byte_array_append(b, head, sizeof(head));
    if (len > 0)
        g_byte_array_append(b, payload, (guint)len);
}

static GByteArray *hello(enum sm_bridge_side side)
{
    GByteArray *b = g_byte_array_new();
    if (side == SM_BRIDGE_GUEST)
        g_byte_array_append(b, (const uint8_t *)PREFACE, sizeof(PREFACE) - 1);
    frame(b, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    return b;
}

/* Feeds it in pieces of what one read gives, and takes everything that comes out, as a peer that reads does. */
static void feed(struct h2_world *w, enum sm_bridge_side from, GByteArray *b, bool read)
{
    for (size_t at = 0; at < b->len;) {
        size_t n = SM_MIN(SM_MIN((size_t)b->len - at, (size_t)8192), sm_bridge_room(w->b, from));
        if (n == 0)
            break;
        g_autofree uint8_t *copy = g_memdup2(b->data + at, n);
        sm_bridge_feed(w->b, from, copy, n);
        at += n;
        const uint8_t *p;
        size_t len;
        while (read && (len = sm_bridge_out(w->b, from, &p)) > 0) {
            g_byte_array_append(w->got[from], p, (guint)len); /* kept for last_goaway() */
            sm_bridge_took(w->b, from, len);
        }
    }
    g_byte_array_free(b, TRUE);
}

/* The code of the GOAWAY that ends what that side got; 99: none. */
static uint32_t last_goaway(struct h2_world *w, enum sm_bridge_side to)
{
    GByteArray *got = w->got[to];
    const uint8_t *p;
    size_t len;
    while ((len = sm_bridge_out(w->b, to, &p)) > 0) {
        g_byte_array_append(got, p, (guint)len);
        sm_bridge_took(w->b, to, len);
    }
    uint32_t code = 99;
    size_t at = to == SM_BRIDGE_ORIGIN ? sizeof(PREFACE) - 1 : 0;
    while (at + 9 <= got->len) {
        const uint8_t *f = got->data + at;
        size_t payload = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
        assert_true(at + 9 + payload <= got->len);
        code = 99;
        if (f[3] == NGHTTP2_GOAWAY)
            code = (uint32_t)f[13] << 24 | (uint32_t)f[14] << 16 | (uint32_t)f[15] << 8 | f[16];
        at += 9 + payload;
    }
    assert_int_equal(at, got->len);
    return code;
}

static void ends_with(struct h2_world *w, enum sm_bridge_side by, const char *word, uint32_t code)
{
    g_autofree char *last = g_strdup_printf("%s 0 %s\n", sm_bridge_side_name(by), word);
    if (!g_str_has_suffix(w->broken->str, last))
        fail_msg("%s instead of %s", w->broken->str, last);
    assert_int_equal(last_goaway(w, by), code);
    if (by == SM_BRIDGE_GUEST)
        assert_int_equal(sm_bridge_ended(w->b), SM_BRIDGE_FINISHED);
    assert_true(sm_bridge_out_closed(w->b, by));
    h2_world_done(w);
}

static void repeated(enum sm_bridge_side by, uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len,
                     unsigned enough, const char *word)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    GByteArray *b = hello(by);
    for (unsigned i = 0; i < enough; i++)
        frame(b, type, flags, id, payload, len);
    feed(&w, by, b, true);
    ends_with(&w, by, word, NGHTTP2_ENHANCE_YOUR_CALM);

    /* A tenth of it is nobody's flood. */
    h2_world_init(&w, NULL);
    b = hello(by);
    for (unsigned i = 0; i < enough / 10; i++)
        frame(b, type, flags, id, payload, len);
    feed(&w, by, b, true);
    assert_string_equal(w.broken->str, "");
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

static void pings(void **state)
{
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        repeated(side, NGHTTP2_PING, 0, 0, "12345678", 8, 10001, "h2_ping_flood");
}

static void settings(void **state)
{
    static const uint8_t window[] = {0, 4, 0, 1, 0, 0};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        repeated(side, NGHTTP2_SETTINGS, 0, 0, window, sizeof(window), 1001, "h2_settings_flood");
}

static void window_updates(void **state)
{
    static const uint8_t one[] = {0, 0, 0, 1};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++)
        repeated(side, NGHTTP2_WINDOW_UPDATE, 0, 0, one, sizeof(one), 10001, "h2_window_update_flood");
}

static void priorities(void **state)
{
    static const uint8_t priority[] = {0, 0, 0, 0, 5};
    repeated(SM_BRIDGE_GUEST, NGHTTP2_PRIORITY, 0, 7, priority, sizeof(priority), 10001, "h2_priority_flood");
}

/* Pings whose answers are not even fetched. */
static void pings_unread(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    GByteArray *b = hello(SM_BRIDGE_GUEST);
    for (unsigned i = 0; i < 9999; i++)
        frame(b, NGHTTP2_PING, 0, 0, "12345678", 8);
    feed(&w, SM_BRIDGE_GUEST, b, false);
    ends_with(&w, SM_BRIDGE_GUEST, "h2_ping_flood", NGHTTP2_ENHANCE_YOUR_CALM);
}

static void empty_data(void **state)
{
    static const uint8_t only_padding[] = {2, 0, 0};
    for (unsigned padded = 0; padded < 2; padded++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        GByteArray *b = hello(SM_BRIDGE_GUEST);
        frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, get_block, sizeof(get_block));
        for (unsigned i = 0; i < 1001; i++)
            frame(b, NGHTTP2_DATA, padded ? NGHTTP2_FLAG_PADDED : 0, 1, only_padding, padded ? 3 : 0);
        feed(&w, SM_BRIDGE_GUEST, b, true);
        assert_string_equal(w.told->str, "1 broken 0 0 0\n");
        ends_with(&w, SM_BRIDGE_GUEST, "h2_empty_data_flood", NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

static void rapid_reset(void **state)
{
    static const uint8_t cancel[] = {0, 0, 0, 8};
    for (unsigned later = 0; later < 2; later++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        w.judge = later ? H2_LATER : H2_PASS;
        GByteArray *b = hello(SM_BRIDGE_GUEST);
        for (uint32_t i = 0; i < 600; i++) {
            frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, i * 2 + 1, get_block, sizeof(get_block));
            frame(b, NGHTTP2_RST_STREAM, 0, i * 2 + 1, cancel, sizeof(cancel));
        }
        feed(&w, SM_BRIDGE_GUEST, b, true);
        assert_int_equal(w.requests, 501);
        assert_int_equal(w.responses, 501);
        ends_with(&w, SM_BRIDGE_GUEST, "h2_reset_flood", NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

/* Resets that the guest makes us send: streams that break rules (MadeYouReset), and more streams than we offer. */
static void resets_by_our_hand(void **state)
{
    static const uint8_t zero[] = {0, 0, 0, 0};
    struct h2_world w;
    h2_world_init(&w, NULL);
    GByteArray *b = hello(SM_BRIDGE_GUEST);
    for (uint32_t i = 0; i < 600; i++) {
        frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, i * 2 + 1, get_block, sizeof(get_block));
        frame(b, NGHTTP2_WINDOW_UPDATE, 0, i * 2 + 1, zero, sizeof(zero));
    }
    feed(&w, SM_BRIDGE_GUEST, b, true);
    assert_int_not_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);

    h2_world_init(&w, NULL);
    w.judge = H2_LATER;
    b = g_byte_array_new();
    g_byte_array_append(b, (const uint8_t *)PREFACE, sizeof(PREFACE) - 1);
    frame(b, NGHTTP2_SETTINGS, 0, 0, NULL, 0); /* and never an acknowledgement of ours */
    for (uint32_t i = 0; i < 800; i++)
        frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, i * 2 + 1, get_block, sizeof(get_block));
    feed(&w, SM_BRIDGE_GUEST, b, true);
    assert_int_equal(w.requests, SM_H2_STREAMS_MAX);
    ends_with(&w, SM_BRIDGE_GUEST, "h2_reset_flood", NGHTTP2_ENHANCE_YOUR_CALM);

    /* Requests without any field. */
    h2_world_init(&w, NULL);
    b = hello(SM_BRIDGE_GUEST);
    for (uint32_t i = 0; i < 600; i++)
        frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, i * 2 + 1, NULL, 0);
    feed(&w, SM_BRIDGE_GUEST, b, true);
    assert_int_equal(w.requests, 0);
    ends_with(&w, SM_BRIDGE_GUEST, "h2_reset_flood", NGHTTP2_ENHANCE_YOUR_CALM);
}

static void continuations(void **state)
{
    static const uint8_t field[] = {0x00, 0x01, 'x', 0x01, 'y'};
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        for (unsigned full = 0; full < 2; full++) {
            struct h2_world w;
            h2_world_init(&w, NULL);
            if (side == SM_BRIDGE_ORIGIN) {
                h2_request(&w, "GET", "/wait", -1, NULL);
                h2_step_in(&w, SM_BRIDGE_GUEST, SIZE_MAX);
            }
            GByteArray *b = hello(side);
            frame(b, NGHTTP2_HEADERS, 0, 1, side == SM_BRIDGE_GUEST ? get_block : ok_block,
                  side == SM_BRIDGE_GUEST ? sizeof(get_block) : sizeof(ok_block));
            for (unsigned i = 0; i < 1000; i++)
                frame(b, NGHTTP2_CONTINUATION, 0, 1, field, full ? sizeof(field) : 0);
            feed(&w, side, b, true);
            assert_int_equal(w.requests, side == SM_BRIDGE_ORIGIN);
            ends_with(&w, side, "h2_continuation_flood", NGHTTP2_ENHANCE_YOUR_CALM);
        }
    }
}

/* One large field in the dynamic table, and thousands of octets that each stand for it. */
static void hpack_bomb(void **state)
{
    struct h2_world w;
    uint8_t block[16000];
    size_t n = 0;
    h2_world_init(&w, NULL);
    memcpy(block, get_block, sizeof(get_block));
    n = sizeof(get_block);
    /* Literal with incremental indexing, name "x", value of 3,000 octets (127 + 2873 as a 7-bit prefix integer). */
    block[n++] = 0x40;
    block[n++] = 1;
    block[n++] = 'x';
    block[n++] = 0x7f;
    block[n++] = 0x80 | (2873 & 0x7f);
    block[n++] = 2873 >> 7;
    memset(block + n, 'v', 3000);
    n += 3000;
    memset(block + n, 0x80 | 62, sizeof(block) - n);
    GByteArray *b = hello(SM_BRIDGE_GUEST);
    frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block, sizeof(block));
    feed(&w, SM_BRIDGE_GUEST, b, true);
    assert_int_equal(w.requests, 0);
    ends_with(&w, SM_BRIDGE_GUEST, "h2_header_flood", NGHTTP2_ENHANCE_YOUR_CALM);
}

/* ---- not floods, but no HTTP/2 either ---- */

static void one(enum sm_bridge_side by, uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len,
                const char *word, uint32_t code)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    if (by == SM_BRIDGE_ORIGIN) {
        h2_request(&w, "GET", "/wait", -1, NULL);
        h2_step_in(&w, SM_BRIDGE_GUEST, SIZE_MAX);
    }
    GByteArray *b = hello(by);
    frame(b, type, flags, id, payload, len);
    feed(&w, by, b, true);
    if (by == SM_BRIDGE_ORIGIN) {
        /* The guest, which did nothing, gets a page and an orderly end. */
        while (h2_step_out(&w, SM_BRIDGE_GUEST, SIZE_MAX))
            ;
        assert_int_equal(h2_seen(&w, SM_BRIDGE_GUEST, 1)->status, 502);
        assert_true(w.goaway[SM_BRIDGE_GUEST]);
        assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_FINISHED);
        assert_non_null(strstr(w.told->str, "1 broken 502 0 "));
    }
    ends_with(&w, by, word, code);
}

static void malformed(void **state)
{
    static const uint8_t big_window[] = {0x7f, 0xff, 0xff, 0xff};
    static const uint8_t push[] = {0, 0, 0, 2, 0x82, 0x87, 0x84, 0x01, 0x01, 'a'};
    static const uint8_t bad_index[] = {0xff, 0xff, 0x7f};
    one(SM_BRIDGE_GUEST, NGHTTP2_DATA, 0, 0, "x", 1, "h2_protocol_error", NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_DATA, 0, 1, "x", 1, "h2_protocol_error", NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, get_block, sizeof(get_block),
        "h2_protocol_error", NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, bad_index, sizeof(bad_index), "h2_compression",
        NGHTTP2_COMPRESSION_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 1, get_block, sizeof(get_block),
        "h2_protocol_error", NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, push, sizeof(push), "h2_push",
        NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_WINDOW_UPDATE, 0, 0, big_window, 4, "h2_flow_control", NGHTTP2_FLOW_CONTROL_ERROR);
    one(SM_BRIDGE_GUEST, NGHTTP2_PING, 0, 0, "1234567", 7, "h2_frame_size", NGHTTP2_FRAME_SIZE_ERROR);
    one(SM_BRIDGE_ORIGIN, NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, push, sizeof(push), "h2_push",
        NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_ORIGIN, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, ok_block, sizeof(ok_block), "h2_protocol_error",
        NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_ORIGIN, NGHTTP2_DATA, 0, 1, "x", 1, "h2_protocol_error", NGHTTP2_PROTOCOL_ERROR);
    one(SM_BRIDGE_ORIGIN, NGHTTP2_PING, 0, 0, "1234567", 7, "h2_frame_size", NGHTTP2_FRAME_SIZE_ERROR);
}

static void not_a_preface(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    h2_raw(&w, SM_BRIDGE_GUEST, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    ends_with(&w, SM_BRIDGE_GUEST, "h2_preface", NGHTTP2_PROTOCOL_ERROR);
}

/* A guest that sends more than its window. */
static void over_the_window(void **state)
{
    struct h2_world w;
    uint8_t data[16384] = {0};
    h2_world_init(&w, NULL);
    w.judge = H2_LATER;
    GByteArray *b = hello(SM_BRIDGE_GUEST);
    frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, get_block, sizeof(get_block));
    for (unsigned i = 0; i < 5; i++)
        frame(b, NGHTTP2_DATA, 0, 1, data, sizeof(data));
    feed(&w, SM_BRIDGE_GUEST, b, true);
    assert_non_null(strstr(w.broken->str, "h2_flow_control"));
    assert_string_equal(w.told->str, "1 broken 0 0 0\n");
    h2_world_done(&w);
}

static void interim_flood(void **state)
{
    static const uint8_t hints[] = {0x08, 0x03, '1', '0', '3'};
    struct h2_world w;
    h2_world_init(&w, NULL);
    h2_request(&w, "GET", "/wait", -1, NULL);
    h2_step_in(&w, SM_BRIDGE_GUEST, SIZE_MAX);
    GByteArray *b = hello(SM_BRIDGE_ORIGIN);
    for (unsigned i = 0; i <= SM_H2_INTERIM_MAX; i++)
        frame(b, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, hints, sizeof(hints));
    feed(&w, SM_BRIDGE_ORIGIN, b, true);
    while (h2_step_out(&w, SM_BRIDGE_GUEST, SIZE_MAX))
        ;
    assert_string_equal(w.broken->str, "origin 1 h2_interim_flood\n");
    assert_int_equal(h2_seen(&w, SM_BRIDGE_GUEST, 1)->heads, SM_H2_INTERIM_MAX + 1);
    assert_int_equal(h2_seen(&w, SM_BRIDGE_GUEST, 1)->status, 502);
    h2_world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pings),           cmocka_unit_test(settings),           cmocka_unit_test(window_updates),
        cmocka_unit_test(priorities),      cmocka_unit_test(pings_unread),       cmocka_unit_test(empty_data),
        cmocka_unit_test(rapid_reset),     cmocka_unit_test(resets_by_our_hand), cmocka_unit_test(continuations),
        cmocka_unit_test(hpack_bomb),      cmocka_unit_test(malformed),          cmocka_unit_test(not_a_preface),
        cmocka_unit_test(over_the_window), cmocka_unit_test(interim_flood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
