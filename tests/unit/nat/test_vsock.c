/* SPDX-License-Identifier: BSD-3-Clause */
/* The vsock engine against a guest by hand: each rule of vsock.h, each lie, and a long talk with random schedules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>

#include "vsock_guest.h"

#define PORT_A 1027u
#define PORT_CLOSED 9u

/** One connection as its owner sees it. */
struct owner {
    struct sm_vsock_stream *s;
    uint32_t guest_port, host_port;
    size_t take; /* bytes taken in each call; SIZE_MAX: all */
    GByteArray *got;
    unsigned eofs, writables, closes;
    enum sm_vsock_end how;
    bool abort_in_bytes;
};

struct world {
    struct sm_vsock *v;
    GPtrArray *owners;
    GPtrArray *out; /* struct vs_packet */
    bool deaf;      /* what comes is not kept */
};

static void on_emit(const struct iovec *iov, unsigned n, void *data)
{
    struct world *w = data;
    uint8_t raw[SM_VSOCK_PACKET_MAX];
    size_t len = 0;

    assert_in_range(n, 1, 2);
    if (w->deaf)
        return;
    for (unsigned i = 0; i < n; i++) {
        assert_true(len + iov[i].iov_len <= sizeof(raw));
        memcpy(raw + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    struct vs_packet *p = g_new(struct vs_packet, 1);
    assert_true(vs_decode(raw, len, p));
    assert_int_equal(p->len, p->payload_len);
    assert_int_equal(p->src_cid, SM_VSOCK_CID_HOST);
    assert_int_equal(p->dst_cid, GUEST_CID);
    assert_true(p->payload_len <= SM_VSOCK_PAYLOAD_OUT_MAX);
    g_ptr_array_add(w->out, p);
}

static void *on_open(struct sm_vsock_stream *s, uint32_t guest_port, uint32_t host_port, void *data)
{
    struct world *w = data;

    if (host_port == PORT_CLOSED)
        return NULL;
    struct owner *o = g_new0(struct owner, 1);
    *o = (struct owner){
        .s = s, .guest_port = guest_port, .host_port = host_port, .take = SIZE_MAX, .got = g_byte_array_new()};
    g_ptr_array_add(w->owners, o);
    return o;
}

static size_t on_bytes(void *cookie, const uint8_t *p, size_t len, void *data)
{
    struct owner *o = cookie;
    size_t n = SM_MIN(len, o->take);

    assert_int_equal(o->closes, 0);
    assert_int_equal(o->eofs, 0);
    g_byte_array_append(o->got, p, (guint)n);
    if (o->abort_in_bytes) {
        sm_vsock_abort(o->s);
        o->s = NULL;
    }
    return n;
}

static void on_eof(void *cookie, void *data)
{
    struct owner *o = cookie;
    assert_int_equal(o->closes, 0);
    o->eofs++;
}

static void on_writable(void *cookie, void *data)
{
    struct owner *o = cookie;
    o->writables++;
}

static void on_closed(void *cookie, enum sm_vsock_end how, void *data)
{
    struct owner *o = cookie;
    o->closes++;
    o->how = how;
    o->s = NULL;
}

static const struct sm_vsock_ops ops = {
    .emit = on_emit, .open = on_open, .bytes = on_bytes, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void owner_free(void *p)
{
    struct owner *o = p;
    g_byte_array_unref(o->got);
    g_free(o);
}

static int setup(void **state)
{
    struct world *w = g_new0(struct world, 1);
    w->owners = g_ptr_array_new_with_free_func(owner_free);
    w->out = g_ptr_array_new_with_free_func(g_free);
    w->v = sm_vsock_new(GUEST_CID, &ops, w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    sm_vsock_free(w->v);
    g_ptr_array_unref(w->owners);
    g_ptr_array_unref(w->out);
    g_free(w);
    return 0;
}

static void give(struct world *w, const struct vs_packet *p)
{
    /* On the heap in its exact size, so that a sanitizer sees one byte too many. */
    g_autofree uint8_t *raw = g_malloc(SM_VSOCK_HDR + p->payload_len);
    sm_vsock_input(w->v, raw, vs_encode(p, raw));
}

static void say(struct world *w, uint32_t port, uint16_t op, uint32_t flags)
{
    struct vs_packet p = vs_packet(port, PORT_A, op);
    p.flags = flags;
    give(w, &p);
}

static void say_bytes(struct world *w, uint32_t port, const char *bytes)
{
    struct vs_packet p = vs_packet(port, PORT_A, VS_RW);
    p.len = (uint32_t)strlen(bytes);
    p.payload_len = p.len;
    memcpy(p.payload, bytes, p.len);
    give(w, &p);
}

/* The oldest packet that was not looked at. */
static struct vs_packet next(struct world *w)
{
    assert_true(w->out->len > 0);
    struct vs_packet p = *(struct vs_packet *)w->out->pdata[0];
    g_ptr_array_remove_index(w->out, 0);
    return p;
}

static void expect(struct world *w, uint32_t port, uint16_t op, uint32_t flags)
{
    struct vs_packet p = next(w);
    assert_int_equal(p.dst_port, port);
    assert_int_equal(p.src_port, PORT_A);
    assert_int_equal(p.op, op);
    assert_int_equal(p.flags, flags);
}

static void expect_silence(const struct world *w)
{
    assert_int_equal(w->out->len, 0);
}

static struct owner *last_owner(const struct world *w)
{
    assert_true(w->owners->len > 0);
    return w->owners->pdata[w->owners->len - 1];
}

static struct sm_vsock_stats stats(const struct world *w)
{
    struct sm_vsock_stats s;
    sm_vsock_stats(w->v, &s);
    return s;
}

static struct owner *connected(struct world *w, uint32_t port)
{
    say(w, port, VS_REQUEST, 0);
    struct owner *o = last_owner(w);
    assert_int_equal(o->guest_port, port);
    assert_int_equal(o->host_port, PORT_A);
    expect_silence(w);
    sm_vsock_accept(o->s);
    struct vs_packet p = next(w);
    assert_int_equal(p.op, VS_RESPONSE);
    assert_int_equal(p.type, VS_STREAM);
    assert_int_equal(p.buf_alloc, SM_VSOCK_BUF);
    assert_int_equal(p.fwd_cnt, 0);
    return o;
}

static void test_connect_and_talk(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    say_bytes(w, 5000, "hello");
    assert_memory_equal(o->got->data, "hello", 5);
    assert_int_equal(sm_vsock_write(o->s, (const uint8_t *)"world", 5), 5);
    struct vs_packet p = next(w);
    assert_int_equal(p.op, VS_RW);
    assert_int_equal(p.fwd_cnt, 5);
    assert_int_equal(p.len, 5);
    assert_memory_equal(p.payload, "world", 5);
    assert_int_equal(sm_vsock_room(o->s), (256u << 10) - 5);
    expect_silence(w);
}

static void test_refused(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_CLOSED, VS_REQUEST);

    give(w, &p);
    p = next(w);
    assert_int_equal(p.op, VS_RST);
    assert_int_equal(p.src_port, PORT_CLOSED);
    /* ... and later, by the owner. */
    say(w, 5001, VS_REQUEST, 0);
    sm_vsock_refuse(last_owner(w)->s);
    expect(w, 5001, VS_RST, 0);
    assert_int_equal(last_owner(w)->closes, 0);
    assert_int_equal(stats(w).refused, 2);
    assert_int_equal(stats(w).streams_now, 0);
    /* The ports are free again. */
    (void)connected(w, 5001);
}

static void test_wrong_cids_are_dropped(void **state)
{
    struct world *w = *state;
    const uint64_t src[] = {0, 1, 2, 4, UINT64_C(0x100000003)};
    const uint64_t dst[] = {0, 1, 3, UINT64_C(0x100000002), UINT64_MAX};
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);

    for (size_t i = 0; i < SM_ARRAY_LEN(src); i++) {
        p.src_cid = src[i];
        give(w, &p);
    }
    p.src_cid = GUEST_CID;
    for (size_t i = 0; i < SM_ARRAY_LEN(dst); i++) {
        p.dst_cid = dst[i];
        give(w, &p);
    }
    expect_silence(w);
    assert_int_equal(w->owners->len, 0);
    assert_int_equal(stats(w).foreign, SM_ARRAY_LEN(src) + SM_ARRAY_LEN(dst));
    /* A live stream is not touched by a forged RST either. */
    struct owner *o = connected(w, 5000);
    p = vs_packet(5000, PORT_A, VS_RST);
    p.src_cid = 77;
    give(w, &p);
    assert_int_equal(o->closes, 0);
}

static void test_short_packets_are_dropped(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);
    uint8_t raw[SM_VSOCK_PACKET_MAX];

    (void)vs_encode(&p, raw);
    for (size_t len = 0; len < SM_VSOCK_HDR; len++) {
        g_autofree uint8_t *exact = g_memdup2(raw, len);
        sm_vsock_input(w->v, exact, len);
    }
    expect_silence(w);
    assert_int_equal(w->owners->len, 0);
    assert_int_equal(stats(w).malformed, SM_VSOCK_HDR);
}

static void test_seqpacket_is_refused(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);

    p.type = VS_SEQPACKET;
    give(w, &p);
    p = next(w);
    assert_int_equal(p.op, VS_RST);
    assert_int_equal(p.type, VS_SEQPACKET);
    assert_int_equal(w->owners->len, 0);
    /* An RST of an unknown type is not answered. */
    p = vs_packet(5000, PORT_A, VS_RST);
    p.type = 7;
    give(w, &p);
    expect_silence(w);
    /* Another type with the ports of a stream does not reach it. */
    struct owner *o = connected(w, 5000);
    p = vs_packet(5000, PORT_A, VS_RW);
    p.type = VS_SEQPACKET;
    p.len = 1;
    p.payload_len = 1;
    give(w, &p);
    assert_int_equal(o->got->len, 0);
    assert_int_equal(o->closes, 0);
}

static void test_unknown_gets_rst(void **state)
{
    struct world *w = *state;
    const uint16_t all[] = {VS_SHUTDOWN, VS_RW, VS_CREDIT_UPDATE, VS_CREDIT_REQUEST, VS_RESPONSE, VS_INVALID,
                            8,           0xffff};

    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        say(w, 6000, all[i], 0);
        expect(w, 6000, VS_RST, 0);
    }
    say(w, 6000, VS_RST, 0);
    expect_silence(w);
}

/* Each of these ends the stream with RST, and the owner hears of it once. */
static void test_rule_breakers(void **state)
{
    struct world *w = *state;
    static const struct {
        uint16_t op;
        uint32_t len;
        size_t payload_len;
        uint32_t fwd_cnt;
        const char *what;
    } rows[] = {
        {VS_RW, 100, 10, 0, "len larger than the payload"},
        {VS_RW, 10, 100, 0, "len smaller than the payload"},
        {VS_RW, UINT32_MAX, 4, 0, "len that wraps"},
        {VS_RW, SM_VSOCK_PAYLOAD_MAX + 1, SM_VSOCK_PAYLOAD_MAX + 1, 0, "a payload over the maximum"},
        {VS_CREDIT_UPDATE, 4, 4, 0, "a payload where none belongs"},
        {VS_SHUTDOWN, 0, 4, 0, "a payload behind SHUTDOWN"},
        {VS_RESPONSE, 0, 0, 0, "RESPONSE to nothing"},
        {VS_INVALID, 0, 0, 0, "no operation"},
        {8, 0, 0, 0, "an operation that there is not"},
        {VS_CREDIT_UPDATE, 0, 0, 1, "forwarded what was never sent"},
        {VS_RW, 1, 1, UINT32_MAX, "forwarded less than nothing"},
    };

    for (uint32_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct owner *o = connected(w, 7000 + i);
        struct vs_packet p = vs_packet(7000 + i, PORT_A, rows[i].op);
        p.len = rows[i].len;
        p.payload_len = rows[i].payload_len;
        p.fwd_cnt = rows[i].fwd_cnt;
        give(w, &p);
        expect(w, 7000 + i, VS_RST, 0);
        expect_silence(w);
        if (o->closes != 1 || o->how != SM_VSOCK_END_PROTOCOL || o->got->len != 0)
            fail_msg("%s: %u closes, %s, %u bytes", rows[i].what, o->closes, sm_vsock_end_name(o->how), o->got->len);
    }
    assert_int_equal(stats(w).streams_now, 0);
    assert_int_equal(stats(w).cheated, 2);
}

static void test_bytes_before_response(void **state)
{
    struct world *w = *state;

    say(w, 5000, VS_REQUEST, 0);
    struct owner *o = last_owner(w);
    say_bytes(w, 5000, "early");
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->how, SM_VSOCK_END_PROTOCOL);
    assert_int_equal(o->got->len, 0);
}

static void test_request_with_credit_is_refused(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);

    p.fwd_cnt = 1;
    give(w, &p);
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(w->owners->len, 0);
}

static void test_guest_gives_up_while_asked(void **state)
{
    struct world *w = *state;

    say(w, 5000, VS_REQUEST, 0);
    say(w, 5000, VS_RST, 0);
    assert_int_equal(last_owner(w)->how, SM_VSOCK_END_GUEST_RST);
    assert_int_equal(last_owner(w)->closes, 1);
    expect_silence(w);
    say(w, 5001, VS_REQUEST, 0);
    say(w, 5001, VS_SHUTDOWN, VS_NO_SEND);
    assert_int_equal(last_owner(w)->closes, 1);
    expect(w, 5001, VS_RST, 0);
}

static void fill(struct vs_packet *p, size_t len)
{
    p->len = (uint32_t)len;
    p->payload_len = len;
    for (size_t i = 0; i < len; i++)
        p->payload[i] = (uint8_t)(i * 7);
}

static void test_credit_of_the_guest(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);
    struct vs_packet p = vs_packet(5000, PORT_A, VS_RW);

    /* The owner takes nothing: exactly SM_VSOCK_BUF are kept. */
    o->take = 0;
    fill(&p, SM_VSOCK_BUF / 2);
    give(w, &p);
    give(w, &p);
    assert_int_equal(sm_vsock_kept(o->s), SM_VSOCK_BUF);
    assert_int_equal(stats(w).kept_now, SM_VSOCK_BUF);
    expect_silence(w);
    /* A quarter is taken: the guest is told. */
    o->take = SM_VSOCK_TELL;
    sm_vsock_flush(o->s);
    struct vs_packet u = next(w);
    assert_int_equal(u.op, VS_CREDIT_UPDATE);
    assert_int_equal(u.fwd_cnt, SM_VSOCK_TELL);
    /* That much it may send, and what is kept comes first. */
    o->take = SIZE_MAX;
    fill(&p, SM_VSOCK_TELL);
    give(w, &p);
    assert_int_equal(o->got->len, SM_VSOCK_TELL);
    sm_vsock_flush(o->s);
    assert_int_equal(o->got->len, SM_VSOCK_BUF + SM_VSOCK_TELL);
    for (size_t i = 0; i < SM_VSOCK_BUF; i++)
        assert_int_equal(o->got->data[i], (uint8_t)((i % (SM_VSOCK_BUF / 2)) * 7));
    u = next(w);
    assert_int_equal(u.fwd_cnt, SM_VSOCK_BUF + SM_VSOCK_TELL);
    assert_int_equal(stats(w).kept_now, 0);
    /* It asks: it is told. */
    say(w, 5000, VS_CREDIT_REQUEST, 0);
    expect(w, 5000, VS_CREDIT_UPDATE, 0);
}

static void test_guest_overdraws(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);
    struct vs_packet p = vs_packet(5000, PORT_A, VS_RW);

    o->take = 0;
    fill(&p, SM_VSOCK_BUF);
    give(w, &p);
    expect_silence(w);
    fill(&p, 1);
    give(w, &p);
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->how, SM_VSOCK_END_PROTOCOL);
    assert_int_equal(stats(w).cheated, 1);
    assert_int_equal(stats(w).kept_now, 0);
}

static void test_credit_of_ours(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);
    uint8_t data[8192] = {1, 2, 3};

    p.buf_alloc = 5000;
    give(w, &p);
    struct owner *o = last_owner(w);
    assert_int_equal(sm_vsock_room(o->s), 0);
    sm_vsock_accept(o->s);
    expect(w, 5000, VS_RESPONSE, 0);
    assert_int_equal(sm_vsock_write(o->s, data, sizeof(data)), SM_VSOCK_PAYLOAD_OUT_MAX);
    assert_int_equal(sm_vsock_write(o->s, data, sizeof(data)), 5000 - SM_VSOCK_PAYLOAD_OUT_MAX);
    assert_int_equal(sm_vsock_write(o->s, data, sizeof(data)), 0);
    (void)next(w);
    (void)next(w);
    expect_silence(w);
    /* The owner waits: the guest is asked once. */
    sm_vsock_want(o->s);
    sm_vsock_want(o->s);
    expect(w, 5000, VS_CREDIT_REQUEST, 0);
    expect_silence(w);
    p = vs_packet(5000, PORT_A, VS_CREDIT_UPDATE);
    p.buf_alloc = 5000;
    give(w, &p);
    assert_int_equal(o->writables, 0); /* an answer without credit */
    p.fwd_cnt = 100;
    give(w, &p);
    assert_int_equal(o->writables, 1);
    assert_int_equal(sm_vsock_room(o->s), 100);
    /* A smaller buffer than what is under way is no room, and no wrap. */
    p.buf_alloc = 10;
    give(w, &p);
    assert_int_equal(sm_vsock_room(o->s), 0);
    /* Backwards: a cheat. */
    p.fwd_cnt = 99;
    give(w, &p);
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->how, SM_VSOCK_END_PROTOCOL);
}

static void test_a_huge_buffer_is_not_believed(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(5000, PORT_A, VS_REQUEST);

    p.buf_alloc = UINT32_MAX;
    give(w, &p);
    sm_vsock_accept(last_owner(w)->s);
    assert_int_equal(sm_vsock_room(last_owner(w)->s), SM_VSOCK_PEER_BUF_MAX);
}

/* Our counter of sent bytes passes 2^32. */
static void test_counters_wrap(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);
    static const uint8_t data[SM_VSOCK_PAYLOAD_OUT_MAX];
    struct vs_packet p = vs_packet(5000, PORT_A, VS_CREDIT_UPDATE);
    uint64_t sent = 0;

    w->deaf = true;
    while (sent < (UINT64_C(1) << 32) + 100000) {
        size_t n = sm_vsock_write(o->s, data, sizeof(data));
        if (n == 0) {
            p.fwd_cnt = (uint32_t)sent;
            give(w, &p);
            assert_int_equal(sm_vsock_room(o->s), p.buf_alloc);
        }
        sent += n;
    }
    assert_int_equal(o->closes, 0);
}

static void test_half_close_by_the_guest(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    o->take = 2;
    say_bytes(w, 5000, "hello");
    say(w, 5000, VS_SHUTDOWN, VS_NO_SEND);
    assert_int_equal(o->eofs, 0); /* not all is taken */
    sm_vsock_flush(o->s);
    assert_int_equal(o->eofs, 0);
    sm_vsock_flush(o->s);
    assert_int_equal(o->eofs, 1);
    expect_silence(w);
    /* The other direction goes on, until we end it too. */
    assert_int_equal(sm_vsock_write(o->s, (const uint8_t *)"x", 1), 1);
    (void)next(w);
    sm_vsock_end(o->s);
    expect(w, 5000, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->how, SM_VSOCK_END_CLEAN);
    assert_int_equal(stats(w).streams_now, 0);
    assert_int_equal(stats(w).lingering_now, 1);
    say(w, 5000, VS_RST, 0);
    assert_int_equal(stats(w).lingering_now, 0);
    expect_silence(w);
}

static void test_bytes_after_shutdown(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    say(w, 5000, VS_SHUTDOWN, VS_NO_SEND);
    assert_int_equal(o->eofs, 1);
    say_bytes(w, 5000, "late");
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->how, SM_VSOCK_END_PROTOCOL);
}

static void test_half_close_by_us(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    sm_vsock_end(o->s);
    expect(w, 5000, VS_SHUTDOWN, VS_NO_SEND);
    assert_int_equal(sm_vsock_room(o->s), 0);
    say_bytes(w, 5000, "still");
    assert_int_equal(o->got->len, 5);
    /* close(2) in the guest: both flags; the answer is the RST that it waits for. */
    say(w, 5000, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->how, SM_VSOCK_END_CLEAN);
    expect_silence(w);
    assert_int_equal(stats(w).streams_now + stats(w).lingering_now, 0);
}

static void test_guest_closes_before_all_is_taken(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    o->take = 0;
    say_bytes(w, 5000, "last words");
    say(w, 5000, VS_SHUTDOWN, VS_NO_SEND);
    say(w, 5000, VS_SHUTDOWN, VS_NO_RECEIVE); /* the flags add up */
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->closes, 0);
    assert_int_equal(sm_vsock_room(o->s), 0);
    /* The ports are free at once, and the two streams do not meet. */
    struct owner *second = connected(w, 5000);
    say_bytes(w, 5000, "new");
    o->take = SIZE_MAX;
    sm_vsock_flush(o->s);
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->how, SM_VSOCK_END_CLEAN);
    assert_int_equal(o->got->len, 10);
    assert_int_equal(second->got->len, 3);
    assert_int_equal(second->closes, 0);
    expect_silence(w);
}

static void test_guest_will_not_receive(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    say(w, 5000, VS_SHUTDOWN, VS_NO_RECEIVE);
    assert_int_equal(o->closes + o->eofs, 0);
    assert_int_equal(sm_vsock_room(o->s), 0);
    sm_vsock_want(o->s);
    expect_silence(w);
    say_bytes(w, 5000, "but sends");
    assert_int_equal(o->got->len, 9);
}

static void test_rst_drops_what_is_kept(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    o->take = 0;
    say_bytes(w, 5000, "gone");
    say(w, 5000, VS_RST, 0);
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->how, SM_VSOCK_END_GUEST_RST);
    assert_int_equal(stats(w).kept_now, 0);
    expect_silence(w);
}

static void test_request_on_a_live_stream(void **state)
{
    struct world *w = *state;
    struct owner *old = connected(w, 5000);
    struct owner *fresh = connected(w, 5000); /* asserts that nothing was said in between */

    assert_int_equal(old->closes, 1);
    assert_int_equal(old->how, SM_VSOCK_END_GUEST_RST);
    assert_int_equal(fresh->closes, 0);
    assert_int_equal(stats(w).streams_now, 1);
}

static void test_abort(void **state)
{
    struct world *w = *state;
    struct owner *o = connected(w, 5000);

    sm_vsock_abort(o->s);
    expect(w, 5000, VS_RST, 0);
    assert_int_equal(o->closes, 0);
    /* From inside of a callback, with more to come in the same packet. */
    o = connected(w, 5001);
    o->abort_in_bytes = true;
    o->take = 1;
    say_bytes(w, 5001, "abc");
    expect(w, 5001, VS_RST, 0);
    assert_int_equal(o->closes, 0);
    o = connected(w, 5002);
    o->take = 0;
    say_bytes(w, 5002, "abc");
    o->abort_in_bytes = true;
    sm_vsock_flush(o->s);
    expect(w, 5002, VS_RST, 0);
    assert_int_equal(stats(w).streams_now, 0);
    assert_int_equal(stats(w).kept_now, 0);
}

static void test_many_streams(void **state)
{
    struct world *w = *state;

    for (uint32_t i = 0; i < SM_VSOCK_STREAMS_MAX; i++)
        (void)connected(w, 10000 + i);
    say(w, 20000, VS_REQUEST, 0);
    expect(w, 20000, VS_RST, 0);
    assert_int_equal(w->owners->len, SM_VSOCK_STREAMS_MAX);
    /* A draining one still counts. */
    struct owner *o = w->owners->pdata[7];
    o->take = 0;
    say_bytes(w, 10007, "x");
    say(w, 10007, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    expect(w, 10007, VS_RST, 0);
    say(w, 20000, VS_REQUEST, 0);
    expect(w, 20000, VS_RST, 0);
    o->take = SIZE_MAX;
    sm_vsock_flush(o->s);
    (void)connected(w, 20000);
}

static void test_lingering_is_bounded(void **state)
{
    struct world *w = *state;

    for (uint32_t i = 0; i < SM_VSOCK_LINGER_MAX + 3; i++) {
        struct owner *o = connected(w, 10000 + i);
        say(w, 10000 + i, VS_SHUTDOWN, VS_NO_SEND);
        sm_vsock_end(o->s);
        expect(w, 10000 + i, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    }
    assert_int_equal(stats(w).lingering_now, SM_VSOCK_LINGER_MAX);
    assert_int_equal(stats(w).streams_now, 0);
    /* The newest is still known, and answers as a stream does; the oldest is not. */
    say(w, 10000 + SM_VSOCK_LINGER_MAX + 2, VS_CREDIT_UPDATE, 0);
    expect_silence(w);
    say(w, 10000 + SM_VSOCK_LINGER_MAX + 2, VS_CREDIT_REQUEST, 0);
    expect(w, 10000 + SM_VSOCK_LINGER_MAX + 2, VS_CREDIT_UPDATE, 0);
    say(w, 10000 + SM_VSOCK_LINGER_MAX + 2, VS_SHUTDOWN, VS_NO_RECEIVE);
    expect(w, 10000 + SM_VSOCK_LINGER_MAX + 2, VS_RST, 0);
    say(w, 10000, VS_CREDIT_UPDATE, 0);
    expect(w, 10000, VS_RST, 0);
    /* Ports that linger may be used again. */
    (void)connected(w, 10100);
}

static void test_reset(void **state)
{
    struct world *w = *state;
    struct owner *a = connected(w, 5000), *b = connected(w, 5001), *c = connected(w, 5002);

    b->take = 0;
    say_bytes(w, 5001, "x");
    say(w, 5001, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    expect(w, 5001, VS_RST, 0);
    say(w, 5002, VS_SHUTDOWN, VS_NO_SEND);
    sm_vsock_end(c->s);
    expect(w, 5002, VS_SHUTDOWN, VS_NO_RECEIVE | VS_NO_SEND);
    sm_vsock_reset(w->v);
    assert_int_equal(a->how, SM_VSOCK_END_RESET);
    assert_int_equal(b->how, SM_VSOCK_END_RESET);
    assert_int_equal(a->closes + b->closes + c->closes, 3);
    assert_int_equal(stats(w).streams_now + stats(w).lingering_now + stats(w).kept_now, 0);
    expect_silence(w);
    (void)connected(w, 5000);
}

/* Whatever is kept and however the owners end: what is said without being asked stays below its bound. */
static void test_own_packets_are_bounded(void **state)
{
    struct world *w = *state;
    struct vs_packet p = vs_packet(0, PORT_A, VS_RW);

    for (uint32_t i = 0; i < SM_VSOCK_STREAMS_MAX; i++) {
        struct owner *o = connected(w, 10000 + i);
        o->take = 0;
        p.src_port = 10000 + i;
        fill(&p, SM_VSOCK_BUF);
        give(w, &p);
        o->take = SM_VSOCK_TELL;
    }
    expect_silence(w);
    for (guint i = 0; i < w->owners->len; i++) {
        struct owner *o = w->owners->pdata[i];
        sm_vsock_want(o->s);
        while (sm_vsock_kept(o->s) > 0)
            sm_vsock_flush(o->s);
        sm_vsock_end(o->s);
        sm_vsock_abort(o->s);
    }
    assert_true(w->out->len > SM_VSOCK_STREAMS_MAX);
    assert_true(w->out->len <= SM_VSOCK_OWN_PACKETS);
}

/* A guest that keeps the rules, over one stream, with every choice by chance: both directions arrive whole. */
struct talk {
    GByteArray *to_host, *to_guest; /* all that is sent */
    size_t guest_sent, host_sent, guest_got, guest_read;
    uint32_t peer_fwd;
    bool guest_fin, host_fin_seen;
};

static void guest_listens(struct world *w, struct talk *t)
{
    while (w->out->len > 0) {
        struct vs_packet p = next(w);
        t->peer_fwd = p.fwd_cnt;
        if (p.op == VS_RW) {
            assert_memory_equal(p.payload, t->to_guest->data + t->guest_got, p.len);
            t->guest_got += p.len;
            assert_true(t->guest_got - t->guest_read <= 4096);
        } else if (p.op == VS_SHUTDOWN) {
            t->host_fin_seen = true;
        } else if (p.op != VS_CREDIT_UPDATE && p.op != VS_CREDIT_REQUEST) {
            struct sm_vsock_stats s = stats(w);
            fail_msg("operation %u; malformed %" PRIu64 ", cheated %" PRIu64 ", unknown %" PRIu64, p.op, s.malformed,
                     s.cheated, s.unknown);
        }
    }
}

static void random_talk(struct world *w, uint32_t seed)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(seed);
    struct talk t = {.to_host = g_byte_array_new(), .to_guest = g_byte_array_new()};
    struct vs_packet req = vs_packet(9000, PORT_A, VS_REQUEST);

    for (int i = 0; i < 200000; i++) {
        uint8_t up = (uint8_t)g_rand_int(rnd), down = (uint8_t)g_rand_int(rnd);
        g_byte_array_append(t.to_host, &up, 1);
        g_byte_array_append(t.to_guest, &down, 1);
    }
    req.buf_alloc = 4096;
    give(w, &req);
    struct owner *o = last_owner(w);
    sm_vsock_accept(o->s);
    (void)next(w);
    for (int step = 0; step < 200000 && o->closes == 0; step++) {
        struct vs_packet p = vs_packet(9000, PORT_A, VS_CREDIT_UPDATE);
        p.buf_alloc = 4096;
        o->take = (size_t)g_rand_int_range(rnd, 0, 20000);
        switch (g_rand_int_range(rnd, 0, 4)) {
        case 0: { /* the guest sends what it may */
            size_t credit = SM_VSOCK_BUF - (uint32_t)((uint32_t)t.guest_sent - t.peer_fwd);
            size_t some = (size_t)g_rand_int_range(rnd, 0, 40000);
            size_t n = SM_MIN(SM_MIN(credit, t.to_host->len - t.guest_sent), some);
            p.op = VS_RW;
            p.len = (uint32_t)n;
            p.payload_len = n;
            p.fwd_cnt = (uint32_t)t.guest_read;
            memcpy(p.payload, t.to_host->data + t.guest_sent, n);
            if (!t.guest_fin)
                give(w, &p);
            t.guest_sent += t.guest_fin ? 0 : n;
            if (t.guest_sent == t.to_host->len && !t.guest_fin) {
                p = vs_packet(9000, PORT_A, VS_SHUTDOWN);
                p.buf_alloc = 4096;
                p.fwd_cnt = (uint32_t)t.guest_read;
                p.flags = VS_NO_SEND;
                give(w, &p);
                t.guest_fin = true;
            }
            break;
        }
        case 1: /* it reads */
            t.guest_read += (size_t)g_rand_int_range(rnd, 0, (gint32)(t.guest_got - t.guest_read) + 1);
            p.fwd_cnt = (uint32_t)t.guest_read;
            give(w, &p);
            break;
        case 2: /* the owner takes */
            sm_vsock_flush(o->s);
            break;
        default: /* the owner writes */
            if (t.host_sent < t.to_guest->len) {
                size_t n = sm_vsock_write(o->s, t.to_guest->data + t.host_sent, t.to_guest->len - t.host_sent);
                t.host_sent += n;
                if (n == 0)
                    sm_vsock_want(o->s);
            } else {
                sm_vsock_end(o->s);
            }
            break;
        }
        guest_listens(w, &t);
    }
    assert_int_equal(o->closes, 1);
    assert_int_equal(o->how, SM_VSOCK_END_CLEAN);
    assert_int_equal(o->got->len, t.to_host->len);
    assert_memory_equal(o->got->data, t.to_host->data, t.to_host->len);
    assert_int_equal(t.guest_got, t.to_guest->len);
    assert_true(t.host_fin_seen);
    g_byte_array_unref(t.to_host);
    g_byte_array_unref(t.to_guest);
}

static void test_random_talk(void **state)
{
    for (uint32_t seed = 1; seed <= 8; seed++)
        random_talk(*state, seed);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_connect_and_talk),
        T(test_refused),
        T(test_wrong_cids_are_dropped),
        T(test_short_packets_are_dropped),
        T(test_seqpacket_is_refused),
        T(test_unknown_gets_rst),
        T(test_rule_breakers),
        T(test_bytes_before_response),
        T(test_request_with_credit_is_refused),
        T(test_guest_gives_up_while_asked),
        T(test_credit_of_the_guest),
        T(test_guest_overdraws),
        T(test_credit_of_ours),
        T(test_a_huge_buffer_is_not_believed),
        T(test_counters_wrap),
        T(test_half_close_by_the_guest),
        T(test_bytes_after_shutdown),
        T(test_half_close_by_us),
        T(test_guest_closes_before_all_is_taken),
        T(test_guest_will_not_receive),
        T(test_rst_drops_what_is_kept),
        T(test_request_on_a_live_stream),
        T(test_abort),
        T(test_many_streams),
        T(test_lingering_is_bounded),
        T(test_reset),
        T(test_own_packets_are_bounded),
        T(test_random_talk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
