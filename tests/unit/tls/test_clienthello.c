/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hellos of real clients (golden.h), hellos that OpenSSL makes in memory, and hellos built by hand with one fault each.
 * Every one is fed whole, byte by byte, cut in two at every place, and again with its handshake bytes spread over
 * records of other sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>
#include <openssl/ssl.h>

#include "base/rw.h"
#include "golden.h"
#include "tls/clienthello.h"

/* Feeds a copy of exactly n bytes, so that the sanitizers see one byte too many. */
static enum sm_tls_status feed(struct sm_tls_hello *h, const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    enum sm_tls_status status = sm_tls_hello_feed(h, copy, n);
    free(copy);
    return status;
}

static void check_same(const struct sm_tls_hello *a, const struct sm_tls_hello *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->reject, b->reject);
    assert_int_equal(a->consumed, b->consumed);
    if (a->status != SM_TLS_HELLO)
        return;
    assert_string_equal(a->sni, b->sni);
    assert_int_equal(a->ech, b->ech);
    assert_int_equal(a->max_version, b->max_version);
    assert_int_equal(a->alpn_len, b->alpn_len);
    if (a->alpn_len)
        assert_memory_equal(a->alpn, b->alpn, a->alpn_len);
}

/* Whole; then in every other way with the same result. The result of the whole is in *ret: clear it. step thins the
 * cuts of long inputs. */
static void feed_all_ways(const uint8_t *data, size_t len, size_t step, struct sm_tls_hello *ret)
{
    struct sm_tls_hello h;

    sm_tls_hello_init(ret);
    feed(ret, data, len);
    sm_tls_hello_init(&h);
    for (size_t n = 0; n < len; n += step)
        feed(&h, data, n);
    feed(&h, data, len);
    check_same(ret, &h);
    sm_tls_hello_clear(&h);
    for (size_t cut = 0; cut < len; cut += step) {
        sm_tls_hello_init(&h);
        feed(&h, data, cut);
        if (ret->status == SM_TLS_HELLO && cut < ret->consumed)
            assert_int_equal(h.status, SM_TLS_NEED_MORE);
        feed(&h, data, len);
        check_same(ret, &h);
        sm_tls_hello_clear(&h);
    }
}

/* The same handshake bytes in records of at most `size` bytes. */
static GByteArray *respread(const uint8_t *data, size_t len, size_t size)
{
    g_autoptr(GByteArray) hs = g_byte_array_new();
    GByteArray *out = g_byte_array_new();
    struct sm_rd r = sm_rd_init(data, len);

    while (sm_rd_left(&r) > 0) {
        sm_rd_skip(&r, 3);
        uint16_t n = sm_rd_u16(&r);
        g_byte_array_append(hs, sm_rd_take(&r, n), n);
        assert_false(r.bad);
    }
    for (size_t at = 0; at < hs->len; at += size) {
        size_t n = SM_MIN(size, hs->len - at);
        const uint8_t head[5] = {22, 3, 1, (uint8_t)(n >> 8), (uint8_t)n};
        g_byte_array_append(out, head, 5);
        g_byte_array_append(out, hs->data + at, (guint)n);
    }
    return out;
}

static void test_golden(void **state)
{
    static const struct {
        const uint8_t *data;
        size_t len;
        const char *sni;
        uint16_t max_version;
        bool h2, http11;
    } golden[] = {
        {golden_curl, sizeof(golden_curl), "ok.test", 0x0304, true, true},
        {golden_curl_tls12, sizeof(golden_curl_tls12), "a-long-name.sub.ok.test", 0x0303, false, true},
        {golden_node, sizeof(golden_node), "ok.test", 0x0304, true, true},
        {golden_s_client_address, sizeof(golden_s_client_address), "", 0x0304, false, false},
    };
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(golden); i++) {
        struct sm_tls_hello h;
        feed_all_ways(golden[i].data, golden[i].len, 1, &h);
        assert_int_equal(h.status, SM_TLS_HELLO);
        assert_string_equal(h.sni, golden[i].sni);
        assert_int_equal(h.sni_len, strlen(golden[i].sni));
        assert_int_equal(h.max_version, golden[i].max_version);
        assert_int_equal(h.alpn_h2, golden[i].h2);
        assert_int_equal(h.alpn_http11, golden[i].http11);
        assert_false(h.ech);
        assert_int_equal(h.consumed, golden[i].len);
        sm_tls_hello_clear(&h);
        static const size_t sizes[] = {1, 2, 3, 4, 5, 16, 100};
        for (size_t k = 0; k < SM_ARRAY_LEN(sizes); k++) {
            g_autoptr(GByteArray) spread = respread(golden[i].data, golden[i].len, sizes[k]);
            feed_all_ways(spread->data, spread->len, sizes[k] == 1 ? 7 : 1, &h);
            assert_int_equal(h.status, SM_TLS_HELLO);
            assert_string_equal(h.sni, golden[i].sni);
            assert_int_equal(h.consumed, spread->len);
            sm_tls_hello_clear(&h);
        }
    }
}

/* What OpenSSL sends, as one string of raw records. */
static GByteArray *openssl_hello(const char *sni, size_t alpn_entries)
{
    GByteArray *out = g_byte_array_new();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *wire = BIO_new(BIO_s_mem());
    uint8_t buf[4096];
    int n;

    if (sni)
        assert_int_equal(SSL_set_tlsext_host_name(ssl, sni), 1);
    if (alpn_entries > 0) {
        g_autoptr(GByteArray) alpn = g_byte_array_new();
        uint8_t entry[256];
        memset(entry, 'x', sizeof(entry));
        entry[0] = 255;
        for (size_t i = 0; i < alpn_entries; i++)
            g_byte_array_append(alpn, entry, sizeof(entry));
        g_byte_array_append(alpn, (const uint8_t *)"\2h2", 3);
        assert_int_equal(SSL_set_alpn_protos(ssl, alpn->data, alpn->len), 0);
    }
    SSL_set_bio(ssl, in, wire);
    SSL_connect(ssl);
    while ((n = BIO_read(wire, buf, sizeof(buf))) > 0)
        g_byte_array_append(out, buf, (guint)n);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return out;
}

static void test_hello_over_16_kib(void **state)
{
    g_autoptr(GByteArray) raw = openssl_hello("big.ok.test", 80);
    struct sm_tls_hello h;

    (void)state;
    assert_true(raw->len > 20000);
    assert_int_equal(raw->data[3] << 8 | raw->data[4], 16384);
    feed_all_ways(raw->data, raw->len, 97, &h);
    assert_int_equal(h.status, SM_TLS_HELLO);
    assert_string_equal(h.sni, "big.ok.test");
    assert_true(h.alpn_h2);
    assert_int_equal(h.consumed, raw->len);
    size_t count = 0, last = 0;
    for (size_t pos = 0; pos < h.alpn_len; pos += 1u + h.alpn[pos]) {
        count++;
        last = pos;
    }
    assert_int_equal(count, 81);
    assert_memory_equal(h.alpn + last, "\x02h2", 3);
    sm_tls_hello_clear(&h);
}

static void test_sizes_are_bounded(void **state)
{
    struct sm_tls_hello h;
    (void)state;

    /* Announced too large: refused at the handshake header, not after 64 KiB. */
    const uint8_t big[] = {22, 3, 1, 0x40, 0, 1, 1, 0, 0};
    feed_all_ways(big, sizeof(big), 1, &h);
    assert_int_equal(h.status, SM_TLS_REJECT);
    assert_int_equal(h.reject, SM_TLS_REJECT_TOO_LARGE);
    assert_true(h.hs_cap <= 4096);
    sm_tls_hello_clear(&h);

    /* An endless drip of one-byte records. */
    g_autoptr(GByteArray) raw = openssl_hello("drip.ok.test", 20);
    g_autoptr(GByteArray) drip = respread(raw->data, raw->len, 1);
    sm_tls_hello_init(&h);
    assert_int_equal(feed(&h, drip->data, SM_TLS_HELLO_RECORDS_MAX * 6), SM_TLS_NEED_MORE);
    assert_int_equal(feed(&h, drip->data, drip->len), SM_TLS_REJECT);
    assert_int_equal(h.reject, SM_TLS_REJECT_TOO_LARGE);
    sm_tls_hello_clear(&h);

    /* The largest hello decides within SM_TLS_HELLO_RAW_MAX. */
    g_autoptr(GByteArray) large = openssl_hello("large.ok.test", 253);
    assert_true(large->len > 64000 && large->len < SM_TLS_HELLO_RAW_MAX);
    sm_tls_hello_init(&h);
    assert_int_equal(feed(&h, large->data, large->len), SM_TLS_HELLO);
    sm_tls_hello_clear(&h);
}

/* A hello by hand. */
struct maker {
    GByteArray *exts;
    uint16_t legacy;
    size_t session_len;
    GByteArray *ciphers;
    const char *compression; /* bytes of the list */
    size_t compression_len;
    bool no_exts;
    const char *tail; /* behind the extensions, inside the message */
};

static struct maker maker_new(void)
{
    struct maker m = {.exts = g_byte_array_new(),
                      .legacy = 0x0303,
                      .session_len = 32,
                      .ciphers = g_byte_array_new(),
                      .compression = "",
                      .compression_len = 1};
    const uint8_t ciphers[] = {0x1a, 0x1a, 0x13, 0x01, 0xc0, 0x2b};
    g_byte_array_append(m.ciphers, ciphers, sizeof(ciphers));
    return m;
}

static void put16(GByteArray *a, size_t v)
{
    const uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    g_byte_array_append(a, b, 2);
}

static void put8(GByteArray *a, size_t v)
{
    const uint8_t b = (uint8_t)v;
    g_byte_array_append(a, &b, 1);
}

static void ext(struct maker *m, uint16_t type, const void *body, size_t len)
{
    put16(m->exts, type);
    put16(m->exts, len);
    g_byte_array_append(m->exts, body, (guint)len);
}

static void ext_sni(struct maker *m, const void *name, size_t len)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    put16(b, len + 3);
    put8(b, 0);
    put16(b, len);
    g_byte_array_append(b, name, (guint)len);
    ext(m, 0, b->data, b->len);
}

/* One record, or what one record cannot hold in more of them. Frees the maker. */
static GByteArray *make(struct maker *m)
{
    static const uint8_t zeros[64];
    g_autoptr(GByteArray) body = g_byte_array_new();
    GByteArray *out = g_byte_array_new();

    put16(body, m->legacy);
    g_byte_array_append(body, zeros, 32);
    put8(body, m->session_len);
    g_byte_array_append(body, zeros, (guint)m->session_len);
    put16(body, m->ciphers->len);
    g_byte_array_append(body, m->ciphers->data, m->ciphers->len);
    put8(body, m->compression_len);
    g_byte_array_append(body, (const uint8_t *)m->compression, (guint)m->compression_len);
    if (!m->no_exts) {
        put16(body, m->exts->len);
        g_byte_array_append(body, m->exts->data, m->exts->len);
    }
    if (m->tail)
        g_byte_array_append(body, (const uint8_t *)m->tail, (guint)strlen(m->tail));
    const uint8_t head[] = {22,
                            3,
                            1,
                            (uint8_t)((body->len + 4) >> 8),
                            (uint8_t)(body->len + 4),
                            1,
                            0,
                            (uint8_t)(body->len >> 8),
                            (uint8_t)body->len};
    g_byte_array_append(out, head, sizeof(head));
    g_byte_array_append(out, body->data, body->len);
    g_byte_array_unref(m->exts);
    g_byte_array_unref(m->ciphers);
    return out;
}

static void expect(struct maker *m, enum sm_tls_reject reject)
{
    g_autoptr(GByteArray) raw = make(m);
    struct sm_tls_hello h;

    feed_all_ways(raw->data, raw->len, 1, &h);
    if (h.reject != reject)
        fail_msg("got %s, expected %s", sm_tls_reject_name(h.reject), sm_tls_reject_name(reject));
    assert_int_equal(h.status, reject ? SM_TLS_REJECT : SM_TLS_HELLO);
    sm_tls_hello_clear(&h);
}

/* GREASE in every place where Chrome puts it, an ECH extension, a ticket, early data and a PSK at the end. */
static void test_grease_and_ech(void **state)
{
    struct maker m = maker_new();
    struct sm_tls_hello h;
    static const uint8_t ech[] = {0, 0, 1, 0, 1, 0x55, 0, 2, 0xaa, 0xbb, 0, 3, 1, 2, 3};

    (void)state;
    ext(&m, 0x3a3a, "", 0);
    ext_sni(&m, "public.test", 11);
    ext(&m, 43, "\x06\x4a\x4a\x03\x04\x03\x03", 7);
    ext(&m, 16, "\0\x0c\x02h2\x08http/1.1", 14);
    ext(&m, 0xfe0d, ech, sizeof(ech));
    ext(&m, 35, "ticket", 6);
    ext(&m, 42, "", 0);
    ext(&m, 0x8a8a, "\0", 1);
    ext(&m, 41, "anything", 8);
    g_autoptr(GByteArray) raw = make(&m);
    /* What follows in other records (early data) is not the hello's. */
    size_t hello = raw->len;
    g_byte_array_append(raw, (const uint8_t *)"\x14\x03\x03\0\1\1\x17\x03\x03\0\1\xff", 12);
    feed_all_ways(raw->data, raw->len, 1, &h);
    assert_int_equal(h.status, SM_TLS_HELLO);
    assert_int_equal(h.consumed, hello);
    assert_string_equal(h.sni, "public.test");
    assert_int_equal(h.max_version, 0x0304);
    assert_true(h.ech && h.session_ticket && h.early_data && h.psk && h.alpn_h2 && h.alpn_http11);
    sm_tls_hello_clear(&h);

    m = maker_new();
    ext(&m, 43, "\x02\x4a\x4a", 3);
    g_autoptr(GByteArray) only_grease = make(&m);
    feed_all_ways(only_grease->data, only_grease->len, 1, &h);
    assert_int_equal(h.status, SM_TLS_HELLO);
    assert_int_equal(h.max_version, 0);
    assert_int_equal(h.sni_len, 0);
    sm_tls_hello_clear(&h);
}

static void test_sni_faults(void **state)
{
    static const struct {
        const char *name;
        size_t len;
        enum sm_tls_reject reject;
    } names[] = {
        {"ok.test", 7, SM_TLS_REJECT_NONE},
        {"OK.test.", 8, SM_TLS_REJECT_NONE},
        {"_a.b-c", 6, SM_TLS_REJECT_NONE},
        {"ok\0.test", 8, SM_TLS_REJECT_SNI_CHARACTERS},
        {"ok.test\0", 8, SM_TLS_REJECT_SNI_CHARACTERS},
        {"b\xc3\xbc.test", 8, SM_TLS_REJECT_SNI_CHARACTERS},
        {"a b", 3, SM_TLS_REJECT_SNI_CHARACTERS},
        {"*.ok.test", 9, SM_TLS_REJECT_SNI_CHARACTERS},
        {"ok..test", 8, SM_TLS_REJECT_SNI_CHARACTERS},
        {".ok.test", 8, SM_TLS_REJECT_SNI_CHARACTERS},
        {".", 1, SM_TLS_REJECT_SNI_CHARACTERS},
        {"", 0, SM_TLS_REJECT_SNI_MALFORMED},
        {"10.0.0.5", 8, SM_TLS_REJECT_SNI_ADDRESS},
        {"10.0.0.5.", 9, SM_TLS_REJECT_SNI_ADDRESS},
        {"2130706433", 10, SM_TLS_REJECT_SNI_ADDRESS},
        {"0x7f.1", 6, SM_TLS_REJECT_SNI_ADDRESS},
        {"ok.0x7f", 7, SM_TLS_REJECT_SNI_ADDRESS},
        {"::1", 3, SM_TLS_REJECT_SNI_ADDRESS},
    };
    struct maker m;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        m = maker_new();
        ext_sni(&m, names[i].name, names[i].len);
        expect(&m, names[i].reject);
    }
    char name[256];
    memset(name, 'a', sizeof(name));
    for (size_t i = 50; i < sizeof(name); i += 50)
        name[i] = '.';
    m = maker_new();
    ext_sni(&m, name, 253);
    expect(&m, SM_TLS_REJECT_NONE);
    m = maker_new();
    ext_sni(&m, name, 254);
    expect(&m, SM_TLS_REJECT_SNI_CHARACTERS);

    m = maker_new();
    ext(&m, 0, "\0\x08\0\0\1a\0\0\1b", 10);
    expect(&m, SM_TLS_REJECT_SNI_TWICE);
    m = maker_new();
    ext_sni(&m, "a.test", 6);
    ext_sni(&m, "b.test", 6);
    expect(&m, SM_TLS_REJECT_EXTENSION_TWICE);
    m = maker_new();
    ext(&m, 0, "\0\x04\1\0\1a", 6); /* another name type */
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
    m = maker_new();
    ext(&m, 0, "\0\x04\0\0\1ab", 7); /* more behind the list */
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
    m = maker_new();
    ext(&m, 0, "\0\x09\0\0\1a", 6); /* a list longer than the extension */
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
    m = maker_new();
    ext(&m, 0, "\0\x04\0\0\5a", 6); /* a name longer than the list */
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
    m = maker_new();
    ext(&m, 0, "", 0);
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
    m = maker_new();
    ext(&m, 0, "\0\0", 2);
    expect(&m, SM_TLS_REJECT_SNI_MALFORMED);
}

static void test_other_faults(void **state)
{
    struct maker m;

    (void)state;
    m = maker_new();
    expect(&m, SM_TLS_REJECT_NONE); /* an empty extension block */
    m = maker_new();
    m.no_exts = true;
    expect(&m, SM_TLS_REJECT_NONE);
    m = maker_new();
    m.no_exts = true;
    m.tail = "x";
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    m.tail = "x";
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    m.legacy = 0x0203;
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    m.session_len = 33;
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    g_byte_array_set_size(m.ciphers, 0);
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    put8(m.ciphers, 1);
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    m.compression = "\1";
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    m.compression_len = 0;
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    put16(m.exts, 16); /* an extension that lies about its length */
    put16(m.exts, 9);
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    put8(m.exts, 0);
    expect(&m, SM_TLS_REJECT_MALFORMED);
    m = maker_new();
    ext(&m, 41, "x", 1);
    ext_sni(&m, "a.test", 6);
    expect(&m, SM_TLS_REJECT_EXTENSION_ORDER);
    m = maker_new();
    ext(&m, 0x1234, "", 0);
    ext(&m, 0x1234, "", 0);
    expect(&m, SM_TLS_REJECT_EXTENSION_TWICE);
    for (unsigned extra = 0; extra < 2; extra++) {
        m = maker_new();
        for (unsigned i = 0; i < SM_TLS_HELLO_EXTENSIONS_MAX + extra; i++)
            ext(&m, (uint16_t)(0x4000 + i), "", 0);
        expect(&m, extra ? SM_TLS_REJECT_TOO_MANY : SM_TLS_REJECT_NONE);
    }
    static const struct {
        uint16_t type;
        const char *body;
        size_t len;
        enum sm_tls_reject reject;
    } bad[] = {
        {16, "", 0, SM_TLS_REJECT_ALPN_MALFORMED},
        {16, "\0\0", 2, SM_TLS_REJECT_ALPN_MALFORMED},
        {16, "\0\1\0", 3, SM_TLS_REJECT_ALPN_MALFORMED},
        {16, "\0\3\5h2", 5, SM_TLS_REJECT_ALPN_MALFORMED},
        {16, "\0\3\2h2x", 6, SM_TLS_REJECT_ALPN_MALFORMED},
        {43, "", 0, SM_TLS_REJECT_VERSIONS_MALFORMED},
        {43, "\0", 1, SM_TLS_REJECT_VERSIONS_MALFORMED},
        {43, "\3\3\4\3", 4, SM_TLS_REJECT_VERSIONS_MALFORMED},
        {43, "\4\3\4", 3, SM_TLS_REJECT_VERSIONS_MALFORMED},
        {0xfe0d, "\1", 1, SM_TLS_REJECT_ECH_INNER},
        {0xfe0d, "", 0, SM_TLS_REJECT_ECH_INNER},
        {0xfe0d, "\2", 1, SM_TLS_REJECT_ECH_INNER},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        m = maker_new();
        ext(&m, bad[i].type, bad[i].body, bad[i].len);
        expect(&m, bad[i].reject);
    }
}

/* Every shorter or longer length in a good hello: refused or still waiting, never read past the end (the sanitizers
 * watch). */
static void test_every_byte_changed(void **state)
{
    uint8_t copy[sizeof(golden_curl_tls12)];

    (void)state;
    for (size_t i = 0; i < sizeof(copy); i++) {
        for (unsigned v = 0; v < 256; v++) {
            struct sm_tls_hello h;
            memcpy(copy, golden_curl_tls12, sizeof(copy));
            copy[i] = (uint8_t)v;
            sm_tls_hello_init(&h);
            feed(&h, copy, sizeof(copy));
            assert_true(h.consumed <= sizeof(copy));
            assert_true(h.sni_len < sizeof(h.sni));
            sm_tls_hello_clear(&h);
        }
    }
}

static void test_records(void **state)
{
#define R(bytes, st, rj, mb)                                                                                           \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, SM_TLS_##st, SM_TLS_REJECT_##rj, SM_TLS_MAYBE_##mb                                   \
    }
    static const struct {
        const char *bytes;
        size_t len;
        enum sm_tls_status status;
        enum sm_tls_reject reject;
        enum sm_tls_maybe maybe;
    } cases[] = {
        R("", NEED_MORE, NONE, EMPTY),
        R("\x16", NEED_MORE, NONE, BYTE),
        R("\x16\x03", NEED_MORE, NONE, BYTE),
        R("\x16\x03\x01", NEED_MORE, NONE, RECORD),
        R("\x16\x03\x01\x02\0\x01", NEED_MORE, NONE, RECORD),
        R("G", NOT_TLS, NONE, EMPTY),
        R("\x13", NOT_TLS, NONE, EMPTY),
        R("\x18", NOT_TLS, NONE, EMPTY),
        R("\x16\x02", NOT_TLS, NONE, BYTE),
        R("\x16\x03\x05", NOT_TLS, NONE, BYTE),
        R("\x17\x00", NOT_TLS, NONE, BYTE),
        R("\x15\x03\x01\0\2\2\x28", REJECT, NOT_HANDSHAKE, RECORD),
        R("\x17\x03\x03\0\1\0", REJECT, NOT_HANDSHAKE, RECORD),
        R("\x14\x03\x03\0\1\1", REJECT, NOT_HANDSHAKE, RECORD),
        R("\x16\x03\x01\0\0\x16\x03\x01\0\1\1", REJECT, RECORD_LENGTH, RECORD),
        R("\x16\x03\x01\x40\x01", REJECT, RECORD_LENGTH, RECORD),
        R("\x16\x03\x01\0\1\1\x16\x03\x01\0\0", REJECT, RECORD_LENGTH, RECORD),
        R("\x16\x03\x01\0\1\1\x15\x03\x01\0\2", REJECT, INTERLEAVED, RECORD),
        R("\x16\x03\x01\0\1\1\x16\x02\x01\0\2", REJECT, INTERLEAVED, RECORD),
        R("\x16\x03\x03\0\4\2\0\0\0", REJECT, NOT_HELLO, RECORD),
        R("\x16\x03\x01\0\x05\x01\0\0\0x", REJECT, TRAILING, RECORD),
        R("\x16\x03\x01\0\x04\x01\0\0\0", REJECT, MALFORMED, RECORD),
        /* SSLv2: 46 = 9 + 21 + 0 + 16, offering SSL 3.x or 2. */
        R("\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", REJECT, SSLV2, BYTE),
        R("\x80\x2e\x01\0\2\0\x15\0\0\0\x10", REJECT, SSLV2, BYTE),
        R("\x80\x2e\x01\x03\x01\0\x15\0\0\0\x11", NOT_TLS, NONE, BYTE),
        R("\x80\x2e\x01\x03", NEED_MORE, NONE, BYTE),
        R("\x80\x2e\x02", NOT_TLS, NONE, BYTE),
        R("\xff\xfb\x01\xff", NOT_TLS, NONE, BYTE),
    };
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_tls_hello h;
        feed_all_ways((const uint8_t *)cases[i].bytes, cases[i].len, 1, &h);
        if (h.status != cases[i].status || h.reject != cases[i].reject)
            fail_msg("case %zu: %s %s", i, sm_tls_status_name(h.status), sm_tls_reject_name(h.reject));
        if (h.status == SM_TLS_NEED_MORE)
            assert_int_equal(h.maybe, cases[i].maybe);
        sm_tls_hello_clear(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_hello_over_16_kib),
        cmocka_unit_test(test_sizes_are_bounded),
        cmocka_unit_test(test_grease_and_ech),
        cmocka_unit_test(test_sni_faults),
        cmocka_unit_test(test_other_faults),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_every_byte_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
