/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections: our two engines against each other and against plain OpenSSL, over a wire in memory that can be cut,
 * narrowed and broken. What a test expects of the peer it asks the peer.
 */
#include "pair.h"

#include "base/error.h"

static const uint8_t h2_http11[] = "\x02h2\x08http/1.1";
#define H2_HTTP11 h2_http11, sizeof(h2_http11) - 1

/* Both engines, and the CA that joins them. */
struct world {
    struct sm_tls_ca *ca;
    struct sm_tls_upstream *up;
    struct sm_tls_guest *guest;
    X509 *leaf;
    struct link link;
    struct sm_tls_conn *client, *server;
    int64_t now_us;
};

static void add_root(struct sm_tls_upstream *u, const char *pem)
{
    assert_int_equal(sm_tls_upstream_add_roots(u, pem, strlen(pem)), 1);
}

static void world_init(struct world *w)
{
    GError *error = NULL;
    int64_t at;
    *w = (struct world){0};
    w->ca = sm_tls_ca_new("w", WALL, &error);
    assert_non_null(w->ca);
    w->up = sm_tls_upstream_new(&error);
    w->guest = sm_tls_guest_new(w->ca, &error);
    assert_null(error);
    add_root(w->up, sm_tls_ca_cert_pem(w->ca));
    assert_int_equal(sm_tls_ca_leaf(w->ca, "www.example", NULL, 0, WALL, &w->leaf, &at), SM_TLS_LEAF_OK);
    link_init(&w->link);
}

static void world_clear(struct world *w)
{
    sm_tls_conn_free(w->client);
    sm_tls_conn_free(w->server);
    sm_tls_upstream_free(w->up);
    sm_tls_guest_free(w->guest);
    X509_free(w->leaf);
    sm_tls_ca_free(w->ca);
    link_clear(&w->link);
    assert_int_equal(ERR_peek_error(), 0); /* our functions leave nothing in OpenSSL's queue */
}

static struct sm_tls_peer peer_of(const char *name)
{
    return (struct sm_tls_peer){.name = name,
                                .addr = sm_addr_v4(203, 0, 113, 1),
                                .port = 443,
                                .send_sni = name != NULL,
                                .alpn = h2_http11,
                                .alpn_len = sizeof(h2_http11) - 1,
                                .wall_us = WALL};
}

static struct sm_tls_conn *new_client(struct sm_tls_upstream *u, const struct sm_tls_peer *peer, struct link *link)
{
    GError *error = NULL;
    const struct sm_tls_wire wire = client_wire(link);
    struct sm_tls_conn *c = sm_tls_conn_new_upstream(u, peer, &wire, &error);
    assert_null(error);
    assert_non_null(c);
    return c;
}

static struct sm_tls_conn *new_server(struct world *w, const char *sni, const char *alpn)
{
    GError *error = NULL;
    const struct sm_tls_wire wire = server_wire(&w->link);
    struct sm_tls_conn *c =
        sm_tls_conn_new_guest(w->guest, sni, w->leaf, (const uint8_t *)alpn, alpn ? strlen(alpn) : 0, &wire, &error);
    assert_null(error);
    assert_non_null(c);
    return c;
}

/* Both handshakes as far as they go. */
static void shake(struct sm_tls_conn *a, struct sm_tls_conn *b, enum sm_tls_io *ret_a, enum sm_tls_io *ret_b)
{
    for (unsigned i = 0; i < 200000; i++) {
        *ret_a = sm_tls_conn_handshake(a);
        *ret_b = sm_tls_conn_handshake(b);
        bool a_done = *ret_a == SM_TLS_IO_OK || *ret_a == SM_TLS_IO_ERROR;
        bool b_done = *ret_b == SM_TLS_IO_OK || *ret_b == SM_TLS_IO_ERROR;
        if (a_done && b_done)
            return;
    }
    fail_msg("the handshakes do not end: %s, %s", sm_tls_io_name(*ret_a), sm_tls_io_name(*ret_b));
}

static void connect_pair(struct world *w)
{
    struct sm_tls_peer peer = peer_of("www.example");
    enum sm_tls_io a, b;
    w->client = new_client(w->up, &peer, &w->link);
    w->server = new_server(w, "www.example", "h2");
    shake(w->client, w->server, &a, &b);
    if (a != SM_TLS_IO_OK || b != SM_TLS_IO_OK)
        fail_msg("client: %s; server: %s", sm_tls_conn_error(w->client), sm_tls_conn_error(w->server));
}

static void expect_text(struct sm_tls_conn *c, const char *text)
{
    char buf[256];
    size_t n = 0;
    assert_int_equal(sm_tls_conn_read(c, buf, sizeof(buf), &n), SM_TLS_IO_OK);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(buf, text, n);
}

static void say(struct sm_tls_conn *c, const char *text)
{
    size_t n = 0;
    assert_int_equal(sm_tls_conn_write(c, text, strlen(text), &n), SM_TLS_IO_OK);
    assert_int_equal(n, strlen(text));
    assert_int_equal(sm_tls_conn_flush(c), SM_TLS_IO_OK);
}

static void test_both(void **state)
{
    struct world w;
    char buf[64];
    size_t n;
    world_init(&w);
    connect_pair(&w);
    assert_string_equal(sm_tls_conn_version(w.client), "TLSv1.3");
    assert_string_equal(sm_tls_conn_version(w.server), "TLSv1.3");
    assert_memory_equal(sm_tls_conn_alpn(w.client, &n), "h2", 2);
    assert_int_equal(n, 2);
    assert_memory_equal(sm_tls_conn_alpn(w.server, &n), "h2", 2);
    assert_int_equal(sm_tls_conn_read(w.client, buf, sizeof(buf), &n), SM_TLS_IO_WANT_READ);
    assert_int_equal(n, 0);
    say(w.client, "question");
    say(w.client, " and more");
    expect_text(w.server, "question and more"); /* over two records */
    say(w.server, "answer");
    expect_text(w.client, "answer");

    /* What does not fit is readable without the wire. */
    say(w.client, "0123456789");
    assert_int_equal(sm_tls_conn_read(w.server, buf, 4, &n), SM_TLS_IO_OK);
    assert_int_equal(n, 4);
    assert_true(sm_tls_conn_readable(w.server));
    expect_text(w.server, "456789");
    assert_false(sm_tls_conn_readable(w.server));
    assert_int_equal(sm_tls_conn_failure(w.client), SM_TLS_FAILURE_NONE);
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_NONE);
    assert_false(sm_tls_conn_resumed(w.client));

    /* Gathered until the flush. */
    assert_int_equal(sm_tls_conn_write(w.server, "x", 1, &n), SM_TLS_IO_OK);
    assert_int_equal(w.link.down.buf.len, 0);
    assert_true(sm_tls_conn_unsent(w.server) > 1);
    assert_int_equal(sm_tls_conn_flush(w.server), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_unsent(w.server), 0);
    expect_text(w.client, "x");
    world_clear(&w);
}

/* A wire that gives one byte at a time, and one that takes few. */
static void test_every_cut(void **state)
{
    struct world w;
    world_init(&w);
    w.link.up.step = w.link.down.step = 1;
    connect_pair(&w);
    static char text[40000], got[40000];
    size_t n, sent = 0, have = 0;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 7 + i / 251);
    assert_int_equal(sm_tls_conn_write(w.client, text, sizeof(text), &sent), SM_TLS_IO_OK);
    assert_int_equal(sent, sizeof(text));
    assert_int_equal(sm_tls_conn_flush(w.client), SM_TLS_IO_OK);
    while (have < sizeof(text)) {
        size_t before = w.link.up.buf.len;
        enum sm_tls_io io = sm_tls_conn_read(w.server, got + have, sizeof(got) - have, &n);
        assert_true(io == SM_TLS_IO_OK || io == SM_TLS_IO_WANT_READ);
        assert_true(io == SM_TLS_IO_OK || w.link.up.buf.len < before);
        have += n;
    }
    assert_memory_equal(text, got, sizeof(text));
    world_clear(&w);
}

/*
 * Two connections of one factory by turns share its buffers; nothing is mixed up and nothing is lost under back-
 * pressure.
 */
static void test_back_pressure(void **state)
{
    struct world w, v;
    world_init(&w);
    connect_pair(&w);
    v = w; /* same factories, other connections */
    link_init(&v.link);
    connect_pair(&v);
    /* An empty sm_buf's maximum is the wire's width. */
    w.link.up.buf.max = w.link.down.buf.max = v.link.up.buf.max = v.link.down.buf.max = 3000;

    enum { TOTAL = 1 << 20, FLOWS = 4 };
    struct {
        struct sm_tls_conn *from, *to;
        size_t sent, got;
        unsigned waits;
    } f[FLOWS] = {{.from = w.client, .to = w.server},
                  {.from = v.client, .to = v.server},
                  {.from = w.server, .to = w.client},
                  {.from = v.server, .to = v.client}};
    static uint8_t chunk[50000], back[30000];
    bool done = false;
    for (unsigned round = 0; !done; round++) {
        done = true;
        for (size_t i = 0; i < FLOWS; i++) {
            size_t len = SM_MIN((size_t)1 + (round * 7919u) % sizeof(chunk), TOTAL - f[i].sent), n = 0;
            for (size_t k = 0; k < len; k++)
                chunk[k] = (uint8_t)((f[i].sent + k) * (2 * i + 3) >> 3);
            if (len > 0) {
                enum sm_tls_io io = sm_tls_conn_write(f[i].from, chunk, len, &n);
                assert_true(io == SM_TLS_IO_OK || io == SM_TLS_IO_WANT_WRITE);
                f[i].waits += n < len;
                f[i].sent += n;
            }
            assert_true(sm_tls_conn_unsent(f[i].from) <= SM_TLS_OUT_MAX + SM_TLS_OUT_SLACK);
            if (round % 3 != i % 3) /* sometimes the gathered output is left there while another connection writes */
                assert_true(sm_tls_conn_flush(f[i].from) != SM_TLS_IO_ERROR);
        }
        for (size_t i = 0; i < FLOWS; i++) {
            size_t n, cap = 1 + (round * 104729u) % sizeof(back);
            enum sm_tls_io io = sm_tls_conn_read(f[i].to, back, cap, &n);
            assert_true(io == SM_TLS_IO_OK || io == SM_TLS_IO_WANT_READ);
            for (size_t k = 0; k < n; k++)
                if (back[k] != (uint8_t)((f[i].got + k) * (2 * i + 3) >> 3))
                    fail_msg("flow %zu, byte %zu", i, f[i].got + k);
            f[i].got += n;
            assert_true(f[i].got <= f[i].sent);
            done = done && f[i].got == TOTAL;
        }
    }
    for (size_t i = 0; i < FLOWS; i++)
        assert_true(f[i].waits > 0);
    sm_tls_conn_free(v.client);
    sm_tls_conn_free(v.server);
    link_clear(&v.link);
    world_clear(&w);
}

static void test_ends(void **state)
{
    struct world w;
    char buf[64];
    size_t n;

    /* close_notify behind data; the other direction lives on, both ways round. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "last words");
    assert_int_equal(sm_tls_conn_shutdown(w.client), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_shutdown(w.client), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_write(w.client, "x", 1, &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_OK);
    assert_int_equal(n, 10);
    assert_true(sm_tls_conn_readable(w.server)); /* an end that the wire will not announce again */
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_EOF);
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_EOF);
    assert_false(sm_tls_conn_readable(w.server));
    for (unsigned i = 0; i < 100; i++) {
        say(w.server, "still here");
        expect_text(w.client, "still here");
    }
    assert_int_equal(sm_tls_conn_shutdown(w.server), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_read(w.client, buf, sizeof(buf), &n), SM_TLS_IO_EOF);
    world_clear(&w);

    /* An end without close_notify is a cut, and we may still write: the peer may only have ended its half. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "cut");
    w.link.up.closed = true;
    expect_text(w.server, "cut");
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_CUT);
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_CUT);
    say(w.server, "late answer");
    expect_text(w.client, "late answer");
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_NONE);
    world_clear(&w);

    /* ... also in the middle of a record. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "half a record");
    w.link.up.buf.len -= 3;
    w.link.up.closed = true;
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_WANT_READ); /* a short read */
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_CUT);
    assert_int_equal(n, 0);
    world_clear(&w);

    /* A reset. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "before");
    w.link.up.read_err = ECONNRESET;
    expect_text(w.server, "before");
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_RESET);
    world_clear(&w);

    /* A wire that takes nothing more: writing fails, but what the peer said before can be read. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "before");
    w.link.down.write_err = EPIPE;
    assert_int_equal(sm_tls_conn_write(w.server, "x", 1, &n), SM_TLS_IO_OK);
    assert_int_equal(sm_tls_conn_flush(w.server), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_unsent(w.server), 0);
    assert_int_equal(sm_tls_conn_write(w.server, "x", 1, &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_shutdown(w.server), SM_TLS_IO_ERROR);
    expect_text(w.server, "before");
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_RESET);
    world_clear(&w);

    /* A flipped bit ends it for good, and the peer hears why. */
    world_init(&w);
    connect_pair(&w);
    say(w.client, "flip");
    w.link.up.buf.data[w.link.up.buf.head + 8] ^= 1;
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_PROTOCOL);
    assert_int_equal(sm_tls_conn_read(w.client, buf, sizeof(buf), &n), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(w.client), SM_TLS_FAILURE_ALERT);
    assert_string_equal(sm_tls_conn_alert(w.client), "bad_record_mac");
    world_clear(&w);

    /* In the handshake: closed, reset. */
    world_init(&w);
    w.server = new_server(&w, "www.example", NULL);
    assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_WANT_READ);
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_ERROR); /* not yet */
    w.link.up.closed = true;
    assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_CLOSED);
    assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_ERROR);
    world_clear(&w);
    world_init(&w);
    w.server = new_server(&w, "www.example", NULL);
    w.link.up.read_err = ECONNRESET;
    assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_RESET);
    world_clear(&w);
}

/* --- towards servers: plain OpenSSL plays the server --- */

struct origin {
    SSL_CTX *ctx;
    struct link link;
    SSL *ssl;
    const char *alpn;
};

static int origin_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    const struct origin *o = arg;
    if (!o->alpn)
        return SSL_TLSEXT_ERR_NOACK;
    for (unsigned i = 0; i < in_len; i += 1u + in[i])
        if (in[i] == strlen(o->alpn) && memcmp(in + i + 1, o->alpn, in[i]) == 0) {
            *out = in + i + 1;
            *out_len = in[i];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void origin_init(struct origin *o, const struct cert *leaf, const struct cert *intermediate, int version)
{
    *o = (struct origin){.ctx = SSL_CTX_new(TLS_server_method())};
    SSL_CTX_set_security_level(o->ctx, 0);
    assert_int_equal(SSL_CTX_set_min_proto_version(o->ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(o->ctx, version), 1);
    assert_int_equal(SSL_CTX_use_certificate(o->ctx, leaf->x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(o->ctx, leaf->key), 1);
    if (intermediate)
        assert_int_equal(SSL_CTX_add1_chain_cert(o->ctx, intermediate->x), 1);
    SSL_CTX_set_alpn_select_cb(o->ctx, origin_alpn, o);
    assert_int_equal(SSL_CTX_set_session_id_context(o->ctx, (const unsigned char *)"t", 1), 1);
    link_init(&o->link);
}

static void origin_reset(struct origin *o)
{
    SSL_free(o->ssl);
    o->ssl = NULL;
    link_clear(&o->link);
    link_init(&o->link);
}

static void origin_clear(struct origin *o)
{
    SSL_free(o->ssl);
    SSL_CTX_free(o->ctx);
    link_clear(&o->link);
    ERR_clear_error();
}

/* One connection of ours to the origin; the handshake has succeeded or failed. */
static struct sm_tls_conn *dial(struct origin *o, struct sm_tls_upstream *u, const struct sm_tls_peer *peer)
{
    origin_reset(o);
    o->ssl = raw_new(o->ctx, true);
    struct sm_tls_conn *c = new_client(u, peer, &o->link);
    for (unsigned i = 0; i < 100; i++) {
        enum sm_tls_io io = sm_tls_conn_handshake(c);
        raw_move(o->ssl, &o->link.up, &o->link.down);
        (void)SSL_do_handshake(o->ssl);
        ERR_clear_error();
        raw_move(o->ssl, &o->link.up, &o->link.down);
        if (io == SM_TLS_IO_ERROR)
            return c;
        if (io == SM_TLS_IO_OK && SSL_is_init_finished(o->ssl)) {
            char buf[8];
            size_t n;
            assert_int_equal(sm_tls_conn_read(c, buf, sizeof(buf), &n), SM_TLS_IO_WANT_READ); /* tickets */
            return c;
        }
    }
    fail_msg("the handshake with the origin does not end");
    return NULL;
}

struct pki {
    struct cert root, other_root, inter, plain_inter, limited, weak_inter;
};

static struct pki pki;

static int make_pki(void **state)
{
    GError *error = NULL;
    if (!sm_tls_library_init(&error))
        return -1;
    pki.root = cert_make(NULL, &(struct cert_spec){.cn = "root", .ca = true});
    pki.other_root = cert_make(NULL, &(struct cert_spec){.cn = "other root", .ca = true});
    pki.inter = cert_make(&pki.root, &(struct cert_spec){.cn = "inter", .ca = true});
    pki.plain_inter = cert_make(&pki.root, &(struct cert_spec){.cn = "not a CA", .san = "DNS:not-a-ca.example"});
    pki.limited = cert_make(
        &pki.root, &(struct cert_spec){.cn = "limited", .ca = true, .constraints = "permitted;DNS:other.example"});
    pki.weak_inter = cert_make(&pki.root, &(struct cert_spec){.cn = "weak", .ca = true, .rsa_bits = 1024});
    return 0;
}

static int free_pki(void **state)
{
    cert_free(&pki.root);
    cert_free(&pki.other_root);
    cert_free(&pki.inter);
    cert_free(&pki.plain_inter);
    cert_free(&pki.limited);
    cert_free(&pki.weak_inter);
    return 0;
}

static struct sm_tls_upstream *new_upstream(void)
{
    GError *error = NULL;
    struct sm_tls_upstream *u = sm_tls_upstream_new(&error);
    char *pem = cert_pem(pki.root.x);
    assert_non_null(u);
    add_root(u, pem);
    g_free(pem);
    return u;
}

static void test_certificates(void **state)
{
    static const struct cert_spec good = {.cn = "x", .san = "DNS:www.example"};
    const struct {
        const char *what;
        struct cert_spec spec;
        const struct cert *issuer, *sent; /* sent: the intermediate that the server sends */
        const char *name;                 /* NULL: the address 203.0.113.1 */
        enum sm_tls_failure failure;
    } cases[] = {
        {"good", good, &pki.root, NULL, "www.example", SM_TLS_FAILURE_NONE},
        {"good, with an intermediate", good, &pki.inter, &pki.inter, "www.example", SM_TLS_FAILURE_NONE},
        {"good, RSA", {.cn = "x", .san = "DNS:www.example", .rsa_bits = 2048}, &pki.root, NULL, "www.example", 0},
        {"good, wildcard", {.cn = "x", .san = "DNS:*.wild.example"}, &pki.root, NULL, "www.wild.example", 0},
        {"good, address", {.cn = "x", .san = "IP:203.0.113.1"}, &pki.root, NULL, NULL, 0},
        {"good, for servers",
         {.cn = "x", .san = "DNS:www.example", .usage = "serverAuth"},
         &pki.root,
         NULL,
         "www.example",
         0},
        {"expired",
         {.cn = "x", .san = "DNS:www.example", .from_days = -9, .until_days = -1},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_EXPIRED},
        {"not yet",
         {.cn = "x", .san = "DNS:www.example", .from_days = 1, .until_days = 9},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_NOT_YET_VALID},
        {"another name", good, &pki.root, NULL, "other.example", SM_TLS_FAILURE_NAME_MISMATCH},
        {"the name is only in the subject",
         {.cn = "www.example"},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_NAME_MISMATCH},
        {"partial wildcard",
         {.cn = "x", .san = "DNS:w*.wild.example"},
         &pki.root,
         NULL,
         "www.wild.example",
         SM_TLS_FAILURE_NAME_MISMATCH},
        {"wildcard over two labels",
         {.cn = "x", .san = "DNS:*.wild.example"},
         &pki.root,
         NULL,
         "a.www.wild.example",
         SM_TLS_FAILURE_NAME_MISMATCH},
        {"another address", {.cn = "x", .san = "IP:203.0.113.2"}, &pki.root, NULL, NULL, SM_TLS_FAILURE_NAME_MISMATCH},
        {"the address as a name",
         {.cn = "203.0.113.1", .san = "DNS:203.0.113.1"},
         &pki.root,
         NULL,
         NULL,
         SM_TLS_FAILURE_NAME_MISMATCH},
        {"signs itself", good, NULL, NULL, "www.example", SM_TLS_FAILURE_SELF_SIGNED},
        {"unknown root in the chain", good, &pki.other_root, &pki.other_root, "www.example",
         SM_TLS_FAILURE_SELF_SIGNED},
        {"unknown CA", good, &pki.other_root, NULL, "www.example", SM_TLS_FAILURE_UNKNOWN_ISSUER},
        {"missing intermediate", good, &pki.inter, NULL, "www.example", SM_TLS_FAILURE_UNKNOWN_ISSUER},
        {"RSA 1024",
         {.cn = "x", .san = "DNS:www.example", .rsa_bits = 1024},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_WEAK},
        {"SHA-1",
         {.cn = "x", .san = "DNS:www.example", .sha1 = true},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_WEAK},
        {"weak intermediate", good, &pki.weak_inter, &pki.weak_inter, "www.example", SM_TLS_FAILURE_WEAK},
        {"name constraint", good, &pki.limited, &pki.limited, "www.example", SM_TLS_FAILURE_NAME_CONSTRAINT},
        {"for clients",
         {.cn = "x", .san = "DNS:www.example", .usage = "clientAuth"},
         &pki.root,
         NULL,
         "www.example",
         SM_TLS_FAILURE_PURPOSE},
        {"signed by what is no CA", good, &pki.plain_inter, &pki.plain_inter, "www.example", SM_TLS_FAILURE_PURPOSE},
    };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++)
        for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
            struct cert leaf = cert_make(cases[i].issuer, &cases[i].spec);
            struct sm_tls_upstream *u = new_upstream();
            struct sm_tls_peer peer = peer_of(cases[i].name);
            struct origin o;
            origin_init(&o, &leaf, cases[i].sent, versions[v]);
            struct sm_tls_conn *c = dial(&o, u, &peer);
            enum sm_tls_failure failure = sm_tls_conn_failure(c);
            /* RSA 1024 with TLS 1.3 on the other side cannot even sign; the chain was judged before that. */
            if (failure != cases[i].failure)
                fail_msg("%s: %s (%s), not %s", cases[i].what, sm_tls_failure_name(failure), sm_tls_conn_error(c),
                         sm_tls_failure_name(cases[i].failure));
            assert_int_equal(strlen(sm_tls_conn_error(c)) > 0, failure != SM_TLS_FAILURE_NONE);
            /* What was refused leaves no session; the server saw no end of the handshake, or an alert. */
            assert_int_equal(SSL_is_init_finished(o.ssl), failure == SM_TLS_FAILURE_NONE);
            if (failure != SM_TLS_FAILURE_NONE) {
                size_t n;
                assert_int_equal(sm_tls_conn_write(c, "x", 1, &n), SM_TLS_IO_ERROR);
                assert_int_equal(sm_tls_conn_read(c, (char[1]){0}, 1, &n), SM_TLS_IO_ERROR);
            }
            sm_tls_conn_free(c);
            c = dial(&o, u, &peer);
            assert_int_equal(sm_tls_conn_resumed(c), failure == SM_TLS_FAILURE_NONE);
            sm_tls_conn_free(c);
            origin_clear(&o);
            sm_tls_upstream_free(u);
            cert_free(&leaf);
        }
}

/* Without the name on the wire the certificate must still be for it. */
static void test_no_sni(void **state)
{
    struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    struct sm_tls_upstream *u = new_upstream();
    struct sm_tls_peer peer = peer_of("www.example");
    struct origin o;
    origin_init(&o, &leaf, NULL, TLS1_3_VERSION);
    struct sm_tls_conn *c = dial(&o, u, &peer);
    assert_string_equal(SSL_get_servername(o.ssl, TLSEXT_NAMETYPE_host_name), "www.example");
    sm_tls_conn_free(c);
    peer.send_sni = false;
    c = dial(&o, u, &peer);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_NONE);
    assert_null(SSL_get_servername(o.ssl, TLSEXT_NAMETYPE_host_name));
    assert_false(sm_tls_conn_resumed(c));
    sm_tls_conn_free(c);
    peer.name = "other.example";
    c = dial(&o, u, &peer);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_NAME_MISMATCH);
    sm_tls_conn_free(c);

    GError *error = NULL;
    static const char *const not_names[] = {"", ".example"};
    const struct sm_tls_wire wire = client_wire(&o.link);
    for (size_t i = 0; i < SM_ARRAY_LEN(not_names); i++) {
        peer.name = not_names[i];
        assert_null(sm_tls_conn_new_upstream(u, &peer, &wire, &error));
        g_clear_error(&error);
    }
    origin_clear(&o);
    sm_tls_upstream_free(u);
    cert_free(&leaf);
}

static void test_server_failures(void **state)
{
    struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    struct sm_tls_upstream *u = new_upstream();
    struct sm_tls_peer peer = peer_of("www.example");
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct origin o;

    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
        /* It asks for a certificate, though it would do without. */
        origin_init(&o, &leaf, NULL, versions[v]);
        SSL_CTX_set_verify(o.ctx, SSL_VERIFY_PEER, NULL);
        struct sm_tls_conn *c = dial(&o, u, &peer);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_CLIENT_CERTIFICATE);
        assert_int_equal(sm_tls_conn_handshake(c), SM_TLS_IO_ERROR);
        assert_false(SSL_is_init_finished(o.ssl));
        sm_tls_conn_free(c);
        origin_clear(&o);

        /* No protocol of the offer: it says so. */
        origin_init(&o, &leaf, NULL, versions[v]);
        o.alpn = "imap";
        c = dial(&o, u, &peer);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_ALERT);
        assert_string_equal(sm_tls_conn_alert(c), "no_application_protocol");
        sm_tls_conn_free(c);

        /* No offer at all: no protocol. */
        peer.alpn = NULL;
        peer.alpn_len = 0;
        c = dial(&o, u, &peer);
        size_t n = 9;
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_NONE);
        assert_null(sm_tls_conn_alpn(c, &n));
        assert_int_equal(n, 0);
        sm_tls_conn_free(c);
        origin_clear(&o);
        peer = peer_of("www.example");
    }

    origin_init(&o, &leaf, NULL, TLS1_1_VERSION);
    struct sm_tls_conn *c = dial(&o, u, &peer);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_VERSION);
    sm_tls_conn_free(c);

    /* Not TLS at all; and one that goes away. */
    static const char *const rubbish[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n",
                                          "\x15\x03\x03\x00\x02\x02\x28"};
    static const enum sm_tls_failure why[] = {SM_TLS_FAILURE_PROTOCOL, SM_TLS_FAILURE_PROTOCOL, SM_TLS_FAILURE_ALERT};
    for (size_t i = 0; i < SM_ARRAY_LEN(rubbish); i++) {
        origin_reset(&o);
        c = new_client(u, &peer, &o.link);
        assert_int_equal(sm_tls_conn_handshake(c), SM_TLS_IO_WANT_READ);
        size_t len = i == 2 ? 7 : strlen(rubbish[i]);
        assert_true(sm_buf_append(&o.link.down.buf, rubbish[i], len));
        o.link.up.write_err = EPIPE; /* the reason counts, not that our alert does not get through */
        o.link.down.closed = true;
        assert_int_equal(sm_tls_conn_handshake(c), SM_TLS_IO_ERROR);
        assert_int_equal(sm_tls_conn_failure(c), why[i]);
        sm_tls_conn_free(c);
    }
    origin_reset(&o);
    c = new_client(u, &peer, &o.link);
    assert_int_equal(sm_tls_conn_handshake(c), SM_TLS_IO_WANT_READ);
    o.link.down.closed = true;
    assert_int_equal(sm_tls_conn_handshake(c), SM_TLS_IO_ERROR);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_CLOSED);
    sm_tls_conn_free(c);
    origin_clear(&o);
    sm_tls_upstream_free(u);
    cert_free(&leaf);
}

static void expect_resumed(struct origin *o, struct sm_tls_upstream *u, const struct sm_tls_peer *peer, bool resumed)
{
    struct sm_tls_conn *c = dial(o, u, peer);
    if (sm_tls_conn_failure(c) != SM_TLS_FAILURE_NONE)
        fail_msg("%s", sm_tls_conn_error(c));
    assert_int_equal(sm_tls_conn_resumed(c), resumed);
    assert_int_equal(SSL_session_reused(o->ssl), resumed);
    sm_tls_conn_free(c);
}

static void test_sessions(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
        struct cert leaf =
            cert_make(&pki.root, &(struct cert_spec){.cn = "x",
                                                     .san = "DNS:www.example,DNS:other.example,IP:203.0.113.1",
                                                     .from_days = -1,
                                                     .until_days = 10});
        struct sm_tls_upstream *u = new_upstream();
        struct sm_tls_peer peer = peer_of("www.example");
        struct origin o;
        origin_init(&o, &leaf, NULL, versions[v]);
        SSL_CTX_set_timeout(o.ctx, 1000000); /* the origin's opinion is not what is tested */

        expect_resumed(&o, u, &peer, false);
        expect_resumed(&o, u, &peer, true);
        expect_resumed(&o, u, &peer, true);
        /* Nothing but the same name, port, offer and SNI. */
        struct sm_tls_peer p = peer_of("other.example");
        expect_resumed(&o, u, &p, false);
        p = peer_of(NULL);
        expect_resumed(&o, u, &p, false);
        p = peer;
        p.port = 8443;
        expect_resumed(&o, u, &p, false);
        p = peer;
        p.alpn_len = 3;
        expect_resumed(&o, u, &p, false);
        p = peer;
        p.send_sni = false;
        expect_resumed(&o, u, &p, false);
        /* Another address of the name is the same server. */
        p = peer;
        p.addr = sm_addr_v4(203, 0, 113, 2);
        expect_resumed(&o, u, &p, true);
        /* An hour after the full handshake it is over, though it was resumed in between. */
        p = peer;
        p.wall_us = WALL + (SM_TLS_SESSION_SECONDS - 1) * INT64_C(1000000);
        expect_resumed(&o, u, &p, true);
        p.wall_us = WALL + SM_TLS_SESSION_SECONDS * INT64_C(1000000);
        expect_resumed(&o, u, &p, false);
        expect_resumed(&o, u, &p, true);
        /* A clock that was set back. */
        expect_resumed(&o, u, &peer, false);
        origin_clear(&o);
        cert_free(&leaf);

        /* The certificate ends before the hour does: then so does the session. */
        leaf = cert_make(&pki.root,
                         &(struct cert_spec){.cn = "x", .san = "DNS:www.example", .from_days = -1, .until_days = 1});
        sm_tls_upstream_free(u);
        u = new_upstream();
        origin_init(&o, &leaf, NULL, versions[v]);
        p = peer;
        p.wall_us = WALL + DAY_S * 1000000 - 10 * INT64_C(1000000);
        expect_resumed(&o, u, &p, false);
        p.wall_us += 9 * INT64_C(1000000);
        expect_resumed(&o, u, &p, true);
        p.wall_us += 2 * INT64_C(1000000);
        struct sm_tls_conn *c = dial(&o, u, &p);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_EXPIRED);
        sm_tls_conn_free(c);
        origin_clear(&o);
        sm_tls_upstream_free(u);
        cert_free(&leaf);
    }
}

/*
 * Two connections at once: under TLS 1.3 each has a ticket of its own; a connection that ended without close_notify
 * leaves its session.
 */
static void test_tickets_once(void **state)
{
    struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    struct sm_tls_upstream *u = new_upstream();
    struct sm_tls_peer peer = peer_of("www.example");
    struct origin o, o2;
    origin_init(&o, &leaf, NULL, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(o.ctx, 2);
    expect_resumed(&o, u, &peer, false);
    /* Two tickets: two are resumed without new ones, the third is not. */
    SSL_CTX_set_num_tickets(o.ctx, 0);
    expect_resumed(&o, u, &peer, true);
    expect_resumed(&o, u, &peer, true);
    expect_resumed(&o, u, &peer, false);
    /* A server that forgot its tickets: a full handshake, verified. */
    SSL_CTX_set_num_tickets(o.ctx, 2);
    expect_resumed(&o, u, &peer, false);
    origin_init(&o2, &leaf, NULL, TLS1_3_VERSION);
    expect_resumed(&o2, u, &peer, false);
    origin_clear(&o2);
    struct cert bad = cert_make(&pki.other_root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    origin_init(&o2, &bad, NULL, TLS1_3_VERSION);
    struct sm_tls_conn *c = dial(&o2, u, &peer);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_UNKNOWN_ISSUER);
    sm_tls_conn_free(c);
    origin_clear(&o2);
    cert_free(&bad);
    origin_clear(&o);
    sm_tls_upstream_free(u);
    cert_free(&leaf);
}

static SSL_SESSION *blank_session(unsigned char id)
{
    SSL_SESSION *s = SSL_SESSION_new();
    unsigned char bytes[32] = {id};
    SSL_SESSION_set_protocol_version(s, TLS1_2_VERSION);
    SSL_SESSION_set1_id(s, bytes, sizeof(bytes));
    return s;
}

static void test_sessions_bounded(void **state)
{
    struct sm_tls_sessions *s = sm_tls_sessions_new();
    const struct sm_tls_trust trust = {.verified_us = WALL, .from_us = 0, .until_us = INT64_MAX};
    struct sm_tls_trust got;
    char key[32];
    for (unsigned i = 0; i < SM_TLS_SESSIONS_PER_KEY + 10; i++)
        sm_tls_sessions_put(s, "one", blank_session((unsigned char)i), &trust);
    assert_int_equal(sm_tls_sessions_count(s), SM_TLS_SESSIONS_PER_KEY);
    for (unsigned i = 0; i < 2 * SM_TLS_SESSIONS_MAX; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        sm_tls_sessions_put(s, key, blank_session(1), &trust);
        assert_true(sm_tls_sessions_count(s) <= SM_TLS_SESSIONS_MAX);
    }
    assert_int_equal(sm_tls_sessions_count(s), SM_TLS_SESSIONS_MAX);
    assert_null(sm_tls_sessions_take(s, "one", WALL, &got)); /* the oldest went */
    SSL_SESSION *last = sm_tls_sessions_take(s, key, WALL, &got);
    assert_non_null(last);
    SSL_SESSION_free(last);
    last = sm_tls_sessions_take(s, key, WALL, &got);
    assert_non_null(last); /* TLS 1.2: as often as it likes */
    SSL_SESSION_free(last);
    assert_null(sm_tls_sessions_take(s, key, WALL - 1, &got));
    assert_null(sm_tls_sessions_take(s, key, WALL, &got)); /* what was found unusable is gone */
    sm_tls_sessions_free(s);
    sm_tls_sessions_free(NULL);
}

/* A certificate that nobody needs, of at least so many bytes: a server may add it to its chain. */
static struct cert junk(size_t len)
{
    char *text = g_strnfill(len, 'a');
    struct cert c = cert_make(NULL, &(struct cert_spec){.cn = "junk", .ca = true});
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    ASN1_OBJECT *oid = OBJ_txt2obj("1.2.3.4", 1);
    assert_int_equal(ASN1_OCTET_STRING_set(value, (const unsigned char *)text, (int)len), 1);
    X509_EXTENSION *ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
    assert_int_equal(X509_add_ext(c.x, ext, -1), 1);
    assert_true(X509_sign(c.x, c.key, EVP_sha256()) > 0);
    X509_EXTENSION_free(ext);
    ASN1_OBJECT_free(oid);
    ASN1_OCTET_STRING_free(value);
    g_free(text);
    return c;
}

/* A server decides how large its chain and its tickets are; what we keep of all of them is bounded. */
static void test_sessions_cost(void **state)
{
    static const size_t len = 30 << 10;
    struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:*.wild.example"});
    struct cert extra = junk(len);
    struct sm_tls_upstream *u = new_upstream();
    const struct sm_tls_sessions *s = sm_tls_upstream_sessions(u);
    struct origin o;
    char name[32];
    origin_init(&o, &leaf, &extra, TLS1_3_VERSION);

    /* Sessions of one connection share its chain, and it counts until the last of them is gone. */
    SSL_CTX_set_num_tickets(o.ctx, 8);
    struct sm_tls_peer peer = peer_of("a.wild.example");
    sm_tls_conn_free(dial(&o, u, &peer));
    assert_int_equal(sm_tls_sessions_count(s), 8);
    assert_in_range(sm_tls_sessions_cost(s), len * SM_TLS_CHAIN_COST, (len + 4096) * SM_TLS_CHAIN_COST);
    SSL_CTX_set_num_tickets(o.ctx, 0);
    for (unsigned left = 7;; left--) {
        expect_resumed(&o, u, &peer, true);
        assert_int_equal(sm_tls_sessions_count(s), left);
        if (left == 0)
            break;
        assert_in_range(sm_tls_sessions_cost(s), len * SM_TLS_CHAIN_COST, (len + 4096) * SM_TLS_CHAIN_COST);
    }
    assert_int_equal(sm_tls_sessions_cost(s), 0);

    /* Names without end, each with a chain of its own: the oldest go, the newest stays. */
    SSL_CTX_set_num_tickets(o.ctx, 1);
    size_t most = 0;
    for (unsigned i = 0; i < 2 * SM_TLS_SESSIONS_COST / (len * SM_TLS_CHAIN_COST); i++) {
        (void)g_snprintf(name, sizeof(name), "n%u.wild.example", i);
        peer = peer_of(name);
        expect_resumed(&o, u, &peer, false);
        assert_true(sm_tls_sessions_cost(s) <= SM_TLS_SESSIONS_COST);
        most = SM_MAX(most, sm_tls_sessions_count(s));
    }
    assert_in_range(most, 32, SM_TLS_SESSIONS_COST / (len * SM_TLS_CHAIN_COST));
    expect_resumed(&o, u, &peer, true);
    peer = peer_of("n0.wild.example");
    expect_resumed(&o, u, &peer, false);
    origin_clear(&o);
    sm_tls_upstream_free(u);
    cert_free(&extra);
    cert_free(&leaf);
}

/* What a live connection holds of its server is bounded too, and what all of them hold. */
static void test_chains_cost(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
        struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
        struct cert large = junk(SM_TLS_CHAIN_MAX - 4096), too_large = junk(SM_TLS_CHAIN_MAX);
        struct sm_tls_upstream *u = new_upstream();
        struct sm_tls_peer peer = peer_of("www.example");
        struct origin small_o, large_o, o;
        origin_init(&o, &leaf, &too_large, versions[v]);
        struct sm_tls_conn *c = dial(&o, u, &peer);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_PROTOCOL);
        sm_tls_conn_free(c);

        /* Room for three of the large ones: the fourth fails, what is no larger than others are does not. */
        origin_init(&large_o, &leaf, &large, versions[v]);
        origin_init(&small_o, &leaf, NULL, versions[v]);
        SSL_CTX_set_options(large_o.ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(large_o.ctx, 0);
        sm_tls_upstream_set_chains_cost(u, 3 * (size_t)SM_TLS_CHAIN_MAX * SM_TLS_CHAIN_COST);
        struct sm_tls_conn *live[3];
        for (unsigned i = 0; i < SM_ARRAY_LEN(live); i++) {
            peer.port = (uint16_t)(1000 + i); /* nothing is resumed */
            live[i] = dial(&large_o, u, &peer);
            assert_int_equal(sm_tls_conn_failure(live[i]), SM_TLS_FAILURE_NONE);
        }
        peer.port = 2000;
        c = dial(&large_o, u, &peer);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_RESOURCES);
        sm_tls_conn_free(c);
        expect_resumed(&small_o, u, &peer, false);
        sm_tls_conn_free(live[0]);
        peer.port = 2001;
        c = dial(&large_o, u, &peer);
        assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_NONE);
        sm_tls_conn_free(c);
        sm_tls_conn_free(live[1]);
        sm_tls_conn_free(live[2]);
        origin_clear(&large_o);
        origin_clear(&small_o);
        origin_clear(&o);
        sm_tls_upstream_free(u);
        cert_free(&large);
        cert_free(&too_large);
        cert_free(&leaf);
    }
}

static void expect_full(struct origin *o, struct sm_tls_upstream *u, const struct sm_tls_peer *peer,
                        enum sm_tls_failure failure)
{
    struct sm_tls_conn *c = dial(o, u, peer);
    if (sm_tls_conn_failure(c) != failure)
        fail_msg("%s, not %s", sm_tls_failure_name(sm_tls_conn_failure(c)), sm_tls_failure_name(failure));
    assert_false(sm_tls_conn_resumed(c));
    sm_tls_conn_free(c);
}

/* From here on every real verification fails: what is still accepted was not verified again. */
static void forget_roots(struct origin *o, struct sm_tls_upstream *u, const struct sm_tls_peer *peer)
{
    struct sm_tls_conn *c = dial(o, u, peer);
    SSL_CTX_set_cert_store(SSL_get_SSL_CTX(c->ssl), X509_STORE_new());
    sm_tls_conn_free(c);
}

static void no_resumption(struct origin *o)
{
    assert_int_equal(SSL_CTX_set_num_tickets(o->ctx, 0), 1);
    (void)SSL_CTX_set_options(o->ctx, SSL_OP_NO_TICKET);
    (void)SSL_CTX_set_session_cache_mode(o->ctx, SSL_SESS_CACHE_OFF);
}

/* A chain that was verified is believed again: the same chain, for the same name, for a time, and nothing else. */
static void test_chains(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const struct cert_spec spec = {
        .cn = "x", .san = "DNS:www.example,DNS:other.example,IP:203.0.113.1", .from_days = -1, .until_days = 10};
    const int64_t hour_us = SM_TLS_SESSION_SECONDS * INT64_C(1000000);
    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
        struct cert leaf = cert_make(&pki.inter, &spec), twin = cert_make(&pki.inter, &spec);
        struct sm_tls_upstream *u = new_upstream();
        struct sm_tls_peer peer = peer_of("www.example"), p = peer;
        struct origin o, o2, longer;
        origin_init(&o, &leaf, &pki.inter, versions[v]);
        origin_init(&o2, &twin, &pki.inter, versions[v]);
        origin_init(&longer, &leaf, &pki.inter, versions[v]);
        assert_int_equal(SSL_CTX_add1_chain_cert(longer.ctx, pki.plain_inter.x), 1);
        no_resumption(&o);
        no_resumption(&o2);
        no_resumption(&longer);

        forget_roots(&o, u, &peer);
        expect_full(&o, u, &peer, SM_TLS_FAILURE_NONE);
        expect_full(&o, u, &peer, SM_TLS_FAILURE_NONE);
        /* Of no meaning to the certificate: another port, another offer. */
        p.port = 8443;
        p.alpn_len = 0;
        expect_full(&o, u, &p, SM_TLS_FAILURE_NONE);
        /* Another name of the same certificate, its address, another certificate for the name, one certificate more. */
        p = peer_of("other.example");
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        p = peer_of(NULL);
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        p = peer_of("stranger.example");
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        expect_full(&o2, u, &peer, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        expect_full(&longer, u, &peer, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        /* The hour counts from the verification, not from the last use. */
        p = peer;
        p.wall_us = WALL + hour_us - 1;
        expect_full(&o, u, &p, SM_TLS_FAILURE_NONE);
        p.wall_us = WALL + hour_us;
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        expect_full(&o, u, &peer, SM_TLS_FAILURE_UNKNOWN_ISSUER); /* what was found unusable is gone */
        sm_tls_upstream_free(u);

        /* A clock that was set back, to a time at which the chain is valid. */
        u = new_upstream();
        forget_roots(&o, u, &peer);
        p = peer;
        p.wall_us = WALL - 1;
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        sm_tls_upstream_free(u);

        /* An end of the chain within the hour. */
        u = new_upstream();
        p = peer;
        p.wall_us = WALL + 10 * DAY_S * INT64_C(1000000) - 60 * INT64_C(1000000);
        forget_roots(&o, u, &p);
        p.wall_us += 59 * INT64_C(1000000);
        expect_full(&o, u, &p, SM_TLS_FAILURE_NONE);
        p.wall_us += 2 * INT64_C(1000000);
        expect_full(&o, u, &p, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        sm_tls_upstream_free(u);

        /* Other roots. */
        u = new_upstream();
        forget_roots(&o, u, &peer);
        char *pem = cert_pem(pki.other_root.x);
        add_root(u, pem);
        g_free(pem);
        expect_full(&o, u, &peer, SM_TLS_FAILURE_UNKNOWN_ISSUER);
        sm_tls_upstream_free(u);

        /* What was refused is not remembered. */
        u = new_upstream();
        p = peer_of("stranger.example");
        expect_full(&o, u, &p, SM_TLS_FAILURE_NAME_MISMATCH);
        expect_full(&o, u, &p, SM_TLS_FAILURE_NAME_MISMATCH);
        sm_tls_upstream_free(u);

        origin_clear(&o);
        origin_clear(&o2);
        origin_clear(&longer);
        cert_free(&leaf);
        cert_free(&twin);
    }
}

/* A session that began with a remembered chain ends an hour after that chain was verified. */
static void test_chains_and_sessions(void **state)
{
    struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
    struct sm_tls_upstream *u = new_upstream();
    struct sm_tls_peer peer = peer_of("www.example"), p = peer;
    struct origin o;
    origin_init(&o, &leaf, NULL, TLS1_3_VERSION);
    SSL_CTX_set_timeout(o.ctx, 1000000);
    expect_resumed(&o, u, &peer, false);
    p.port = 8443;
    p.wall_us = WALL + (SM_TLS_SESSION_SECONDS - 10) * INT64_C(1000000);
    forget_roots(&o, u, &p); /* another port: a full handshake, with the chain that is known */
    p.wall_us += 9 * INT64_C(1000000);
    expect_resumed(&o, u, &p, true);
    p.wall_us += 2 * INT64_C(1000000);
    struct sm_tls_conn *c = dial(&o, u, &p);
    assert_int_equal(sm_tls_conn_failure(c), SM_TLS_FAILURE_UNKNOWN_ISSUER);
    sm_tls_conn_free(c);
    origin_clear(&o);
    sm_tls_upstream_free(u);
    cert_free(&leaf);
}

static void test_chains_bounded(void **state)
{
    struct sm_tls_chains *t = sm_tls_chains_new();
    const struct sm_tls_trust trust = {.verified_us = WALL, .from_us = 0, .until_us = INT64_MAX};
    struct sm_tls_trust got;
    const struct sm_tls_chain_key first = {{0}};
    struct sm_tls_chain_key key = first;
    sm_tls_chains_put(t, &first, &trust);
    for (unsigned i = 1; i <= 2 * SM_TLS_CHAINS_MAX; i++) {
        memcpy(key.sha256, &i, sizeof(i));
        sm_tls_chains_put(t, &key, &trust);
        sm_tls_chains_put(t, &key, &trust);
        assert_true(sm_tls_chains_count(t) <= SM_TLS_CHAINS_MAX);
        if (i == SM_TLS_CHAINS_MAX - 1)
            assert_true(sm_tls_chains_find(t, &first, WALL, &got));
        if (i == SM_TLS_CHAINS_MAX) { /* the first one has just been used: the second one goes */
            const unsigned second = 1;
            struct sm_tls_chain_key k = first;
            memcpy(k.sha256, &second, sizeof(second));
            assert_false(sm_tls_chains_find(t, &k, WALL, &got));
            assert_true(sm_tls_chains_find(t, &first, WALL, &got));
        }
    }
    assert_int_equal(sm_tls_chains_count(t), SM_TLS_CHAINS_MAX);
    assert_false(sm_tls_chains_find(t, &first, WALL, &got));
    assert_true(sm_tls_chains_find(t, &key, WALL, &got));
    assert_int_equal(got.verified_us, WALL);
    sm_tls_chains_clear(t);
    assert_int_equal(sm_tls_chains_count(t), 0);
    assert_false(sm_tls_chains_find(t, &key, WALL, &got));
    sm_tls_chains_free(t);
    sm_tls_chains_free(NULL);

    /* Where the name ends and the certificates begin is part of the key. */
    STACK_OF(X509) *none = sk_X509_new_null(), *one = sk_X509_new_null();
    struct sm_tls_chain_key a, b;
    assert_true(sk_X509_push(one, pki.root.x) > 0);
    assert_true(sm_tls_chain_key(none, "a", &a) && sm_tls_chain_key(one, "a", &b));
    assert_memory_not_equal(&a, &b, sizeof(a));
    assert_true(sm_tls_chain_key(one, "a", &a));
    assert_memory_equal(&a, &b, sizeof(a));
    assert_true(sm_tls_chain_key(one, "b", &a));
    assert_memory_not_equal(&a, &b, sizeof(a));
    sk_X509_free(none);
    sk_X509_free(one);
}

static void test_roots(void **state)
{
    GError *error = NULL;
    struct sm_tls_upstream *u = sm_tls_upstream_new(&error);
    char *a = cert_pem(pki.root.x), *b = cert_pem(pki.other_root.x);
    char *broken = g_strdup(a), *mixed;
    memset(broken + 100, '!', 20);
    mixed = g_strconcat("# a bundle\n", a, "text\n", broken, a, "\n-----BEGIN JUNK-----\nAAAA\n-----END JUNK-----\n", b,
                        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN CERT", NULL);
    assert_int_equal(sm_tls_upstream_add_roots(u, "", 0), 0);
    assert_int_equal(sm_tls_upstream_add_roots(u, "no PEM", 6), 0);
    assert_int_equal(sm_tls_upstream_add_roots(u, mixed, strlen(mixed)), 2);
    assert_int_equal(sm_tls_upstream_add_roots(u, mixed, strlen(mixed)), 0);
    assert_int_equal(ERR_peek_error(), 0);
    sm_tls_upstream_free(u);
    sm_tls_upstream_free(NULL);
    g_free(a);
    g_free(b);
    g_free(broken);
    g_free(mixed);
}

/* --- towards guests: plain OpenSSL plays the guest --- */

static SSL_CTX *guest_ctx(struct world *w, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(ctx, 0);
    if (version) {
        assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
        assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (w)
        X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), w->ca->cert);
    X509_VERIFY_PARAM *p = SSL_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(p, (time_t)WALL_S);
    X509_VERIFY_PARAM_set_flags(p, X509_V_FLAG_X509_STRICT);
    SSL_CTX_set_alpn_protos(ctx, H2_HTTP11);
    return ctx;
}

/* The guest's handshake with the engine; returns the engine's last word. */
static enum sm_tls_io guest_shake(struct world *w, SSL *ssl)
{
    enum sm_tls_io io = SM_TLS_IO_WANT_READ;
    for (unsigned i = 0; i < 100 && (io != SM_TLS_IO_OK || !SSL_is_init_finished(ssl)) && io != SM_TLS_IO_ERROR; i++) {
        (void)SSL_do_handshake(ssl);
        ERR_clear_error();
        raw_move(ssl, &w->link.down, &w->link.up);
        io = sm_tls_conn_handshake(w->server);
        raw_move(ssl, &w->link.down, &w->link.up);
    }
    (void)SSL_do_handshake(ssl); /* an alert of the engine's */
    return io;
}

static void test_guest_hello(void **state)
{
    const struct {
        const char *judged, *sent, *alpn;
        enum sm_tls_failure failure;
        int alert; /* that the guest receives */
    } cases[] = {
        {"www.example", "www.example", "h2", SM_TLS_FAILURE_NONE, 0},
        {"www.example", "WWW.Example", "http/1.1", SM_TLS_FAILURE_NONE, 0},
        {"www.example", "www.example", NULL, SM_TLS_FAILURE_NONE, 0},
        {NULL, NULL, "h2", SM_TLS_FAILURE_NONE, 0},
        {"www.example", "other.example", "h2", SM_TLS_FAILURE_RENAMED, SSL_AD_UNRECOGNIZED_NAME},
        {"www.example", "www.example.", "h2", SM_TLS_FAILURE_RENAMED, SSL_AD_UNRECOGNIZED_NAME},
        {"www.example", "www.exampl", "h2", SM_TLS_FAILURE_RENAMED, SSL_AD_UNRECOGNIZED_NAME},
        {"www.example", NULL, "h2", SM_TLS_FAILURE_RENAMED, SSL_AD_UNRECOGNIZED_NAME},
        {NULL, "www.example", "h2", SM_TLS_FAILURE_RENAMED, SSL_AD_UNRECOGNIZED_NAME},
        {"www.example", "www.example", "imap", SM_TLS_FAILURE_RENAMED, SSL_AD_NO_APPLICATION_PROTOCOL},
    };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++)
        for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
            struct world w;
            world_init(&w);
            SSL_CTX *ctx = guest_ctx(&w, versions[v]);
            SSL *ssl = raw_new(ctx, false);
            if (cases[i].sent)
                SSL_set_tlsext_host_name(ssl, cases[i].sent);
            w.server = new_server(&w, cases[i].judged, cases[i].alpn);
            enum sm_tls_io io = guest_shake(&w, ssl);
            unsigned long reason = ERR_peek_last_error();
            ERR_clear_error();
            assert_int_equal(sm_tls_conn_failure(w.server), cases[i].failure);
            assert_int_equal(io, cases[i].failure ? SM_TLS_IO_ERROR : SM_TLS_IO_OK);
            if (cases[i].failure) {
                assert_int_equal(ERR_GET_REASON(reason), SSL_AD_REASON_OFFSET + cases[i].alert);
            } else {
                const unsigned char *chosen;
                unsigned len;
                SSL_get0_alpn_selected(ssl, &chosen, &len);
                assert_int_equal(len, cases[i].alpn ? strlen(cases[i].alpn) : 0);
                if (len > 0)
                    assert_memory_equal(chosen, cases[i].alpn, len);
                assert_int_equal(SSL_get_verify_result(ssl), X509_V_OK);
                assert_string_equal(sm_tls_conn_version(w.server), SSL_get_version(ssl));
            }
            SSL_free(ssl);
            SSL_CTX_free(ctx);
            world_clear(&w);
        }
}

static void test_guest_refuses(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++)
        for (unsigned broken = 0; broken < 2; broken++) {
            struct world w;
            world_init(&w);
            SSL_CTX *ctx = guest_ctx(NULL, versions[v]); /* knows no root */
            SSL *ssl = raw_new(ctx, false);
            w.server = new_server(&w, NULL, NULL);
            (void)SSL_do_handshake(ssl);
            raw_move(ssl, &w.link.down, &w.link.up);
            assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_WANT_READ);
            raw_move(ssl, &w.link.down, &w.link.up);
            (void)SSL_do_handshake(ssl);
            ERR_clear_error();
            raw_move(ssl, &w.link.down, &w.link.up);
            if (broken) /* it is gone, but its alert is there to be read */
                w.link.down.write_err = EPIPE;
            w.link.up.closed = true;
            assert_int_equal(sm_tls_conn_handshake(w.server), SM_TLS_IO_ERROR);
            assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_ALERT);
            assert_string_equal(sm_tls_conn_alert(w.server), "unknown_ca");
            assert_non_null(strstr(sm_tls_conn_error(w.server), "unknown_ca"));
            SSL_free(ssl);
            SSL_CTX_free(ctx);
            world_clear(&w);
        }
    struct world w;
    world_init(&w);
    SSL_CTX *ctx = guest_ctx(&w, TLS1_1_VERSION);
    SSL *ssl = raw_new(ctx, false);
    w.server = new_server(&w, NULL, NULL);
    assert_int_equal(guest_shake(&w, ssl), SM_TLS_IO_ERROR);
    ERR_clear_error();
    assert_int_equal(sm_tls_conn_failure(w.server), SM_TLS_FAILURE_VERSION);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    world_clear(&w);
}

static int add_padding(SSL *ssl, unsigned type, unsigned context, const unsigned char **out, size_t *out_len, X509 *x,
                       size_t chain, int *al, void *arg)
{
    static const unsigned char padding[40000];
    *out = padding;
    *out_len = *(const size_t *)arg;
    return 1;
}

/* Large hellos, in large and small records; the choice of the cipher; a HelloRetryRequest. */
static void test_guest_shapes(void **state)
{
    struct {
        size_t pad;
        unsigned fragment; /* 0: as it comes */
        const char *suites, *groups, *chosen;
        size_t hello_min;
    } cases[] = {
        {20000, 0, NULL, NULL, NULL, 20000}, /* as large as post-quantum shares are */
        {40000, 512, NULL, NULL, NULL, 40000},
        {0, 512, NULL, "P-521:X25519", NULL, 0}, /* a key share that we would rather not have */
        {0, 0, NULL, "P-384", NULL, 0},
        {0, 0, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256", NULL, "TLS_AES_128_GCM_SHA256", 0},
        {0, 0, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", NULL, "TLS_CHACHA20_POLY1305_SHA256", 0},
        {0, 0, "TLS_AES_256_GCM_SHA384", NULL, "TLS_AES_256_GCM_SHA384", 0},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct world w;
        world_init(&w);
        SSL_CTX *ctx = guest_ctx(&w, TLS1_3_VERSION);
        if (cases[i].pad)
            assert_int_equal(
                SSL_CTX_add_custom_ext(ctx, 0xfe77, SSL_EXT_CLIENT_HELLO, add_padding, NULL, &cases[i].pad, NULL, NULL),
                1);
        if (cases[i].suites)
            assert_int_equal(SSL_CTX_set_ciphersuites(ctx, cases[i].suites), 1);
        if (cases[i].groups)
            assert_int_equal(SSL_CTX_set1_groups_list(ctx, cases[i].groups), 1);
        if (cases[i].fragment)
            assert_int_equal(SSL_CTX_set_max_send_fragment(ctx, cases[i].fragment), 1);
        SSL *ssl = raw_new(ctx, false);
        w.server = new_server(&w, NULL, "h2");
        assert_int_equal(SSL_do_handshake(ssl), -1);
        assert_true((size_t)BIO_pending(SSL_get_wbio(ssl)) > cases[i].hello_min);
        if (guest_shake(&w, ssl) != SM_TLS_IO_OK)
            fail_msg("case %zu: %s", i, sm_tls_conn_error(w.server));
        if (cases[i].chosen)
            assert_string_equal(SSL_get_cipher_name(ssl), cases[i].chosen);
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        world_clear(&w);
    }
}

static SSL_SESSION *kept_session;

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(kept_session);
    kept_session = session;
    return 1;
}

/*
 * The guest resumes what it has from before the interception, early data and all: it gets a full handshake, and what
 * it sent early is skipped.
 */
static void test_guest_resumes(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < SM_ARRAY_LEN(versions); v++) {
        struct world w;
        struct origin o;
        world_init(&w);
        /* A session with the real server, which has nothing to do with our CA. */
        struct cert leaf = cert_make(&pki.root, &(struct cert_spec){.cn = "x", .san = "DNS:www.example"});
        origin_init(&o, &leaf, NULL, versions[v]);
        SSL_CTX_set_max_early_data(o.ctx, 16384);
        o.alpn = "h2";
        SSL_CTX *ctx = guest_ctx(&w, versions[v]);
        X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki.root.x);
        X509_VERIFY_PARAM_clear_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_X509_STRICT); /* of the test's own root */
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
        SSL *ssl = raw_new(ctx, false);
        SSL_set_tlsext_host_name(ssl, "www.example");
        o.ssl = raw_new(o.ctx, true);
        for (unsigned i = 0; i < 8; i++) {
            (void)SSL_do_handshake(ssl);
            raw_move(ssl, &o.link.down, &o.link.up);
            (void)SSL_do_handshake(o.ssl);
            raw_move(o.ssl, &o.link.up, &o.link.down);
        }
        char buf[32];
        raw_move(ssl, &o.link.down, &o.link.up);
        (void)SSL_read(ssl, buf, sizeof(buf));
        if (!kept_session)
            fail_msg("no session: %s, %s", SSL_state_string_long(ssl), ERR_reason_error_string(ERR_peek_error()));
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(ssl);
        assert_true(SSL_SESSION_is_resumable(kept_session));

        ssl = raw_new(ctx, false);
        SSL_set_tlsext_host_name(ssl, "www.example");
        assert_int_equal(SSL_set_session(ssl, kept_session), 1);
        if (versions[v] == TLS1_3_VERSION) {
            size_t written = 0;
            assert_int_equal(SSL_write_early_data(ssl, "GET / early", 11, &written), 1);
            assert_int_equal(written, 11);
        }
        w.server = new_server(&w, "www.example", "h2");
        if (guest_shake(&w, ssl) != SM_TLS_IO_OK)
            fail_msg("%s", sm_tls_conn_error(w.server));
        assert_int_equal(SSL_session_reused(ssl), 0);
        assert_int_not_equal(SSL_get_early_data_status(ssl), SSL_EARLY_DATA_ACCEPTED);
        assert_int_equal(SSL_write(ssl, "GET / late", 10), 10);
        raw_move(ssl, &w.link.down, &w.link.up);
        expect_text(w.server, "GET / late");
        /* And ours gives the guest nothing to resume. */
        say(w.server, "no ticket");
        raw_move(ssl, &w.link.down, &w.link.up);
        assert_int_equal(SSL_read(ssl, buf, sizeof(buf)), 9);
        assert_false(SSL_SESSION_has_ticket(SSL_get_session(ssl)));
        unsigned id_len;
        (void)SSL_SESSION_get_id(SSL_get_session(ssl), &id_len);
        assert_true(versions[v] == TLS1_3_VERSION ? !SSL_SESSION_is_resumable(SSL_get_session(ssl)) : id_len == 0);
        SSL_free(ssl);
        SSL_SESSION_free(kept_session);
        kept_session = NULL;
        SSL_CTX_free(ctx);
        origin_clear(&o);
        cert_free(&leaf);
        world_clear(&w);
    }
}

/* After the handshake: a key update is answered, a renegotiation is not. */
static void test_guest_later(void **state)
{
    struct world w;
    char buf[32];
    size_t n;
    world_init(&w);
    SSL_CTX *ctx = guest_ctx(&w, TLS1_3_VERSION);
    SSL *ssl = raw_new(ctx, false);
    w.server = new_server(&w, NULL, NULL);
    assert_int_equal(guest_shake(&w, ssl), SM_TLS_IO_OK);
    assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_int_equal(SSL_write(ssl, "new keys", 8), 8);
    raw_move(ssl, &w.link.down, &w.link.up);
    expect_text(w.server, "new keys");
    say(w.server, "here too");
    raw_move(ssl, &w.link.down, &w.link.up);
    assert_int_equal(SSL_read(ssl, buf, sizeof(buf)), 8);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    world_clear(&w);

    world_init(&w);
    ctx = guest_ctx(&w, TLS1_2_VERSION);
    ssl = raw_new(ctx, false);
    w.server = new_server(&w, NULL, NULL);
    assert_int_equal(guest_shake(&w, ssl), SM_TLS_IO_OK);
    assert_int_equal(SSL_renegotiate(ssl), 1);
    (void)SSL_do_handshake(ssl);
    ERR_clear_error();
    raw_move(ssl, &w.link.down, &w.link.up);
    assert_int_equal(sm_tls_conn_read(w.server, buf, sizeof(buf), &n), SM_TLS_IO_WANT_READ);
    assert_true(w.link.down.buf.len > 0); /* no_renegotiation, sent without being asked to flush */
    raw_move(ssl, &w.link.down, &w.link.up);
    assert_int_equal(SSL_do_handshake(ssl), -1);
    assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    world_clear(&w);
}

/* The record is one that a client understands at once. */
static void test_alerts(void **state)
{
    for (unsigned f = 0; f < SM_TLS_FAILURE_COUNT; f++) {
        struct world w;
        uint8_t record[7];
        world_init(&w);
        SSL_CTX *ctx = guest_ctx(&w, 0);
        SSL *ssl = raw_new(ctx, false);
        (void)SSL_do_handshake(ssl);
        sm_tls_alert_for((enum sm_tls_failure)f, record);
        assert_memory_equal(record, "\x15\x03\x03\x00\x02\x02", 6);
        assert_int_equal(BIO_write(SSL_get_rbio(ssl), record, 7), 7);
        assert_int_equal(SSL_do_handshake(ssl), -1);
        assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_AD_REASON_OFFSET + record[6]);
        ERR_clear_error();
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        world_clear(&w);
        for (unsigned g = 0; g < f; g++)
            assert_string_not_equal(sm_tls_failure_name((enum sm_tls_failure)f),
                                    sm_tls_failure_name((enum sm_tls_failure)g));
    }
    uint8_t record[7];
    sm_tls_alert_for(SM_TLS_FAILURE_EXPIRED, record);
    assert_int_equal(record[6], 45);
    sm_tls_alert_for(SM_TLS_FAILURE_UNKNOWN_ISSUER, record);
    assert_int_equal(record[6], 48);
    sm_tls_alert_for(SM_TLS_FAILURE_NAME_MISMATCH, record);
    assert_int_equal(record[6], 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_no_sni),
        cmocka_unit_test(test_server_failures),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_tickets_once),
        cmocka_unit_test(test_sessions_bounded),
        cmocka_unit_test(test_sessions_cost),
        cmocka_unit_test(test_chains_cost),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_chains_and_sessions),
        cmocka_unit_test(test_chains_bounded),
        cmocka_unit_test(test_roots),
        cmocka_unit_test(test_guest_hello),
        cmocka_unit_test(test_guest_refuses),
        cmocka_unit_test(test_guest_shapes),
        cmocka_unit_test(test_guest_resumes),
        cmocka_unit_test(test_guest_later),
        cmocka_unit_test(test_alerts),
    };
    return cmocka_run_group_tests(tests, make_pki, free_pki);
}
