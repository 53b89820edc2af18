/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A peer that shook hands as it should and then sends what costs us work and brings nobody anything, for ever: records
 * without data, key updates, tickets, requests to renegotiate, warnings. Either the connection ends while the flood is
 * still young, or one call does a bounded part of it and loses nothing. Both ends of ours, both versions.
 */
#include "forge.h"

/** What the peer has ready to send: far more than one call reads of the wire. */
#define FLOOD (256u << 10)

struct side {
    bool origin; /* the peer is the origin: ours is the upstream's engine */
    int version;
    struct sm_tls_ca *ca;
    struct sm_tls_upstream *up;
    struct sm_tls_guest *guest;
    X509 *leaf;
    struct link link;
    SSL_CTX *ctx;
    SSL *ssl;
    struct sm_tls_conn *c;
    struct lane *to, *from; /* of ours */
    struct forge f;
};

static struct cert root, origin_cert;

static void side_init(struct side *s, bool origin, int version)
{
    GError *error = NULL;
    char *pem = cert_pem(root.x), buf[4];
    int64_t at;
    size_t n;

    *s = (struct side){.origin = origin, .version = version};
    link_init(&s->link);
    s->to = origin ? &s->link.down : &s->link.up;
    s->from = origin ? &s->link.up : &s->link.down;
    s->ca = sm_tls_ca_new("w", WALL, &error);
    s->up = sm_tls_upstream_new(&error);
    s->guest = sm_tls_guest_new(s->ca, &error);
    assert_int_equal(sm_tls_upstream_add_roots(s->up, pem, strlen(pem)), 1);
    g_free(pem);
    s->ctx = SSL_CTX_new(origin ? TLS_server_method() : TLS_client_method());
    assert_int_equal(SSL_CTX_set_min_proto_version(s->ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(s->ctx, version), 1);
    forge_listen(s->ctx);
    if (origin) {
        struct sm_tls_peer peer = {
            .name = "www.example", .addr = sm_addr_v4(203, 0, 113, 1), .port = 443, .send_sni = true, .wall_us = WALL};
        const struct sm_tls_wire wire = client_wire(&s->link);
        assert_int_equal(SSL_CTX_use_certificate(s->ctx, origin_cert.x), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(s->ctx, origin_cert.key), 1);
        assert_int_equal(SSL_CTX_set_num_tickets(s->ctx, 0), 1);
        s->c = sm_tls_conn_new_upstream(s->up, &peer, &wire, &error);
    } else {
        const struct sm_tls_wire wire = server_wire(&s->link);
        assert_int_equal(sm_tls_ca_leaf(s->ca, "www.example", NULL, 0, WALL, &s->leaf, &at), SM_TLS_LEAF_OK);
        s->c = sm_tls_conn_new_guest(s->guest, NULL, s->leaf, NULL, 0, &wire, &error);
    }
    assert_null(error);
    s->ssl = raw_new(s->ctx, origin);
    for (unsigned i = 0; i < 5; i++) {
        (void)SSL_do_handshake(s->ssl);
        raw_move(s->ssl, s->from, s->to);
        (void)sm_tls_conn_handshake(s->c);
        raw_move(s->ssl, s->from, s->to);
    }
    assert_true(SSL_is_init_finished(s->ssl));
    assert_int_equal(sm_tls_conn_handshake(s->c), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_WANT_READ);
    s->f = forge_begin(s->ssl);
}

static void side_clear(struct side *s)
{
    sm_tls_conn_free(s->c);
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
    sm_tls_upstream_free(s->up);
    sm_tls_guest_free(s->guest);
    X509_free(s->leaf);
    sm_tls_ca_free(s->ca);
    link_clear(&s->link);
    ERR_clear_error();
}

static void record(struct side *s, uint8_t type, const void *data, size_t len, size_t pad)
{
    assert_true(forge_record(&s->f, &s->to->buf, type, data, len, pad));
}

/* --- what is sent --- */

static const uint8_t ticket[] = {4, 0, 0, 15, 0, 0, 14, 16, 1, 2, 3, 4, 1, 7, 0, 1, 9, 0, 0};
static const uint8_t hello_request[] = {0, 0, 0, 0};
static const uint8_t client_hello[44] = {1, 0, 0, 40, 3, 3, [40] = 2, 0xc0, 0x2b, 1};
static const uint8_t warning[] = {1, 90};

static void send_empty(struct side *s)
{
    record(s, FORGE_DATA, "", 0, 0);
}
static void send_padding(struct side *s)
{
    record(s, FORGE_DATA, "", 0, 1000);
}
static void send_warning(struct side *s)
{
    record(s, FORGE_ALERT, warning, sizeof(warning), 0);
}
static void send_ccs(struct side *s)
{
    static const uint8_t ccs[] = {20, 3, 3, 0, 1, 1};
    assert_true(sm_buf_append(&s->to->buf, ccs, sizeof(ccs)));
}
static void send_empty_handshake(struct side *s)
{
    record(s, FORGE_HANDSHAKE, "", 0, 0);
}
static void send_key_update(struct side *s)
{
    assert_true(forge_key_update(&s->f, &s->to->buf, false));
}
static void send_key_update_requested(struct side *s)
{
    assert_true(forge_key_update(&s->f, &s->to->buf, true));
}
static void send_ticket(struct side *s)
{
    record(s, FORGE_HANDSHAKE, ticket, sizeof(ticket), 0);
}
static void send_hello_request(struct side *s)
{
    record(s, FORGE_HANDSHAKE, hello_request, sizeof(hello_request), 0);
}
static void send_client_hello(struct side *s)
{
    record(s, FORGE_HANDSHAKE, client_hello, sizeof(client_hello), 0);
}

static void send_packed(struct side *s, const uint8_t *message, size_t len)
{
    uint8_t many[16384];
    size_t n = 0;
    for (; n + len <= sizeof(many); n += len)
        memcpy(many + n, message, len);
    record(s, FORGE_HANDSHAKE, many, n, 0);
}
static void send_packed_tickets(struct side *s)
{
    send_packed(s, ticket, sizeof(ticket));
}
static void send_packed_hello_requests(struct side *s)
{
    send_packed(s, hello_request, sizeof(hello_request));
}

struct flood {
    const char *name;
    void (*send)(struct side *s);
    bool to_guest_end, to_upstream_end, tls12, tls13;
    bool later; /* a peer that behaves may send SM_TLS_LATER_MAX / cost of them */
    unsigned cost;
};

static const struct flood floods[] = {
    {"records without data", send_empty, true, true, true, true, false, 0},
    {"records of padding", send_padding, true, true, false, true, false, 0},
    {"warnings", send_warning, true, true, true, true, false, 0},
    {"change cipher spec", send_ccs, true, true, true, true, false, 0},
    {"handshake records without a message", send_empty_handshake, true, true, true, true, false, 0},
    {"key updates", send_key_update, true, true, false, true, true, 1},
    {"key updates that ask for one", send_key_update_requested, true, true, false, true, true, 1},
    {"tickets", send_ticket, false, true, false, true, true, 1},
    {"tickets, many in a record", send_packed_tickets, false, true, false, true, false, 0},
    {"requests to renegotiate", send_hello_request, false, true, true, false, true, 2},
    {"requests to renegotiate, many in a record", send_packed_hello_requests, false, true, true, false, false, 0},
    {"renegotiations", send_client_hello, true, false, true, false, true, 2},
};

/* Each flood, at each of our ends and in each version that knows it. */
static void each(void (*test)(struct side *s, const struct flood *f))
{
    for (size_t i = 0; i < SM_ARRAY_LEN(floods); i++) {
        for (unsigned k = 0; k < 4; k++) {
            const struct flood *f = &floods[i];
            bool origin = k & 1, tls13 = k & 2;
            if (!(origin ? f->to_upstream_end : f->to_guest_end) || !(tls13 ? f->tls13 : f->tls12))
                continue;
            struct side s;
            side_init(&s, origin, tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
            test(&s, f);
            side_clear(&s);
        }
    }
}

/* --- endless: it ends in the first calls, of which the peer hears little, and nothing is kept --- */

static void ends_soon(struct side *s, const struct flood *f)
{
    char buf[16];
    size_t n;

    while (s->to->buf.len < FLOOD)
        f->send(s);
    size_t before = s->to->buf.len;
    enum sm_tls_io io = SM_TLS_IO_WANT_READ;
    for (unsigned calls = 0; calls < 8 && io == SM_TLS_IO_WANT_READ; calls++)
        io = sm_tls_conn_read(s->c, buf, sizeof(buf), &n);
    if (io != SM_TLS_IO_ERROR)
        fail_msg("%s, %s, %s: the read says %s", f->name, s->origin ? "origin" : "guest", sm_tls_conn_version(s->c),
                 sm_tls_io_name(io));
    assert_int_equal(sm_tls_conn_failure(s->c), SM_TLS_FAILURE_PROTOCOL);
    assert_true(before - s->to->buf.len <= 3 * SM_TLS_IN_MAX);
    assert_true(s->from->buf.len + sm_tls_conn_unsent(s->c) <= SM_TLS_LATER_MAX * (size_t)64);
    assert_true(sm_tls_sessions_count(sm_tls_upstream_sessions(s->up)) <= SM_TLS_SESSIONS_PER_KEY);
    assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_write(s->c, "x", 1, &n), SM_TLS_IO_ERROR);
}

static void test_endless(void **state)
{
    each(ends_soon);
}

/* --- what may be sent: some at once, and more for data --- */

static void some_are_free(struct side *s, const struct flood *f)
{
    char buf[16];
    size_t n;

    if (!f->later)
        return;
    for (unsigned i = 0; i < SM_TLS_LATER_MAX / f->cost; i++)
        f->send(s);
    record(s, FORGE_DATA, "data", 4, 0);
    if (sm_tls_conn_read(s->c, buf, sizeof(buf), &n) != SM_TLS_IO_OK)
        fail_msg("%s, %s: %s", f->name, sm_tls_conn_version(s->c), sm_tls_conn_error(s->c));
    assert_int_equal(n, 4);
    assert_memory_equal(buf, "data", 4);
    f->send(s); /* and one more */
    assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
    assert_string_equal(sm_tls_conn_error(s->c), "too many messages after the handshake");
}

static void data_earns_more(struct side *s, const struct flood *f)
{
    static char data[16384], buf[64 << 10];
    size_t n, got = 0, sent = 0;

    if (!f->later)
        return;
    for (unsigned i = 0; i < 4 * SM_TLS_LATER_MAX; i++) {
        f->send(s);
        record(s, FORGE_DATA, data, SM_TLS_LATER_BYTES * f->cost, 0);
        sent += SM_TLS_LATER_BYTES * f->cost;
        while (s->to->buf.len > 0 || sm_tls_conn_readable(s->c)) {
            assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_OK);
            got += n;
        }
    }
    assert_int_equal(got, sent);
    sm_buf_clear(&s->from->buf); /* the answers; the peer's library does not know what we sent in its name */
}

/* Data that was read before the flood is given out first. */
static void data_comes_first(struct side *s, const struct flood *f)
{
    char buf[16];
    size_t n;

    record(s, FORGE_DATA, "data", 4, 0);
    for (unsigned i = 0; s->to->buf.len < 65536; i++)
        f->send(s);
    assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(buf, "data", 4);
    assert_true(sm_tls_conn_readable(s->c)); /* epoll will not tell of the end */
    assert_int_equal(sm_tls_conn_read(s->c, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
}

static void test_some(void **state)
{
    each(some_are_free);
    each(data_earns_more);
    each(data_comes_first);
}

/* --- records of one byte, with as many empty ones between them as are let through --- */

static void small_records(unsigned empty, bool origin, int version)
{
    static uint8_t data[20000], got[64 << 10], all[20000 + (64 << 10)];
    struct side s;
    size_t n, done = 0;

    side_init(&s, origin, version);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    size_t sent = 0;
    while (sent < sizeof(data) && s.to->buf.len < FLOOD) {
        for (unsigned i = 0; i < empty; i++)
            send_empty(&s);
        record(&s, FORGE_DATA, data + sent++, 1, 0);
    }
    size_t records = sent * (1 + empty);
    for (unsigned calls = 0; done < sent; calls++) {
        assert_int_equal(sm_tls_conn_read(s.c, got, sizeof(got), &n), SM_TLS_IO_OK);
        assert_true(n <= SM_TLS_READ_RECORDS);
        assert_true(s.c->records <= SM_TLS_READ_RECORDS + empty);
        assert_true(calls <= records / SM_TLS_READ_RECORDS + 1);
        assert_true(sm_tls_conn_held(s.c) <= SM_TLS_IN_MAX);
        /* What is not in the wire any more is said to be here. */
        if (s.to->buf.len == 0 && done + n < sent)
            assert_true(sm_tls_conn_readable(s.c));
        memcpy(all + done, got, n);
        done += n;
    }
    assert_memory_equal(all, data, sent);
    side_clear(&s);
}

static void test_small(void **state)
{
    for (unsigned k = 0; k < 4; k++) {
        small_records(0, k & 1, k & 2 ? TLS1_3_VERSION : TLS1_2_VERSION);
        small_records(30, k & 1, k & 2 ? TLS1_3_VERSION : TLS1_2_VERSION);
    }
}

static int set_up(void **state)
{
    GError *error = NULL;
    if (!sm_tls_library_init(&error))
        return -1;
    root = cert_make(NULL, &(struct cert_spec){.cn = "root", .ca = true});
    origin_cert = cert_make(&root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    return 0;
}

static int tear_down(void **state)
{
    cert_free(&root);
    cert_free(&origin_cert);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endless),
        cmocka_unit_test(test_some),
        cmocka_unit_test(test_small),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
