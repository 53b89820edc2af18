/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two ends of a wire in memory, a plain OpenSSL peer over it, and certificates of every kind. Time is 2030, not the
 * machine's.
 */
#ifndef TESTS_TLS_PAIR_H
#define TESTS_TLS_PAIR_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/buf.h"
#include "tls/internal.h"

#define WALL_S INT64_C(1893456000)
#define WALL (WALL_S * 1000000)
#define DAY_S INT64_C(86400)

/* --- the wire --- */

struct lane {
    struct sm_buf buf;
    size_t step;  /* most bytes a read gives */
    bool closed;  /* the writer has ended */
    int read_err; /* what a read of an empty lane says instead of EAGAIN */
    int write_err;
};

struct link {
    struct lane up, down; /* client to server; server to client */
    struct {
        struct lane *in, *out;
    } client, server;
};

static inline ssize_t lane_read(struct lane *l, void *buf, size_t len)
{
    if (l->buf.len == 0) {
        if (l->closed)
            return 0;
        errno = l->read_err ? l->read_err : EAGAIN;
        return -1;
    }
    size_t n = SM_MIN(SM_MIN(len, l->step), l->buf.len);
    memcpy(buf, sm_buf_peek(&l->buf), n);
    sm_buf_consume(&l->buf, n);
    return (ssize_t)n;
}

static inline ssize_t lane_write(struct lane *l, const void *buf, size_t len)
{
    size_t n = SM_MIN(len, sm_buf_room(&l->buf));
    if (l->write_err || n == 0) {
        errno = l->write_err ? l->write_err : EAGAIN;
        return -1;
    }
    assert_true(sm_buf_append(&l->buf, buf, n));
    return (ssize_t)n;
}

static inline ssize_t client_read(void *ctx, void *buf, size_t len)
{
    return lane_read(&((struct link *)ctx)->down, buf, len);
}
static inline ssize_t client_write(void *ctx, const void *buf, size_t len)
{
    return lane_write(&((struct link *)ctx)->up, buf, len);
}
static inline ssize_t server_read(void *ctx, void *buf, size_t len)
{
    return lane_read(&((struct link *)ctx)->up, buf, len);
}
static inline ssize_t server_write(void *ctx, const void *buf, size_t len)
{
    return lane_write(&((struct link *)ctx)->down, buf, len);
}

static inline struct sm_tls_wire client_wire(struct link *l)
{
    return (struct sm_tls_wire){.read = client_read, .write = client_write, .ctx = l};
}
static inline struct sm_tls_wire server_wire(struct link *l)
{
    return (struct sm_tls_wire){.read = server_read, .write = server_write, .ctx = l};
}

static inline void link_init(struct link *l)
{
    *l = (struct link){0};
    sm_buf_init(&l->up.buf, 8 << 20);
    sm_buf_init(&l->down.buf, 8 << 20);
    l->up.step = l->down.step = SIZE_MAX;
}
static inline void link_clear(struct link *l)
{
    sm_buf_clear(&l->up.buf);
    sm_buf_clear(&l->down.buf);
}

/* --- a plain OpenSSL peer: mem BIOs, moved to and from the wire by raw_move() --- */

static inline void raw_move(SSL *ssl, struct lane *in, struct lane *out)
{
    uint8_t buf[4096];
    ssize_t n;
    int m;
    while ((n = lane_read(in, buf, sizeof(buf))) > 0)
        assert_int_equal(BIO_write(SSL_get_rbio(ssl), buf, (int)n), n);
    while ((m = BIO_read(SSL_get_wbio(ssl), buf, sizeof(buf))) > 0)
        assert_true(sm_buf_append(&out->buf, buf, (size_t)m));
}

static inline SSL *raw_new(SSL_CTX *ctx, bool server)
{
    SSL *ssl = SSL_new(ctx);
    assert_non_null(ssl);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

/* --- certificates --- */

struct cert {
    EVP_PKEY *key;
    X509 *x;
};

struct cert_spec {
    const char *cn;
    const char *san;         /* "DNS:a,IP:1.2.3.4"; NULL: none */
    const char *constraints; /* a CA's name constraints */
    const char *usage;       /* extended key usage */
    bool ca;
    bool no_basic;
    bool sha1;
    int rsa_bits;                  /* 0: P-256 */
    EVP_PKEY *key;                 /* taken; NULL: a new one */
    int64_t from_days, until_days; /* from WALL; both 0: -10 and 10 */
};

static inline void cert_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(x, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static inline struct cert cert_make(const struct cert *issuer, const struct cert_spec *s)
{
    static long serial = 1000;
    struct cert c = {.key = s->key        ? s->key
                            : s->rsa_bits ? EVP_RSA_gen((unsigned)s->rsa_bits)
                                          : EVP_EC_gen("P-256"),
                     .x = X509_new()};
    time_t from = WALL_S + (s->from_days || s->until_days ? s->from_days : -10) * DAY_S;
    time_t until = WALL_S + (s->from_days || s->until_days ? s->until_days : 10) * DAY_S;
    assert_non_null(c.key);
    X509_set_version(c.x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x), serial++);
    X509_time_adj_ex(X509_getm_notBefore(c.x), 0, 0, &from);
    X509_time_adj_ex(X509_getm_notAfter(c.x), 0, 0, &until);
    X509_set_pubkey(c.x, c.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x), "CN", MBSTRING_UTF8, (const unsigned char *)s->cn, -1, -1,
                               0);
    X509_set_issuer_name(c.x, X509_get_subject_name(issuer ? issuer->x : c.x));
    X509 *by = issuer ? issuer->x : c.x;
    if (!s->no_basic)
        cert_ext(c.x, by, NID_basic_constraints, s->ca ? "critical,CA:TRUE" : "CA:FALSE");
    if (s->ca)
        cert_ext(c.x, by, NID_key_usage, "critical,keyCertSign,cRLSign");
    cert_ext(c.x, by, NID_subject_key_identifier, "hash");
    if (s->san)
        cert_ext(c.x, by, NID_subject_alt_name, s->san);
    if (s->constraints)
        cert_ext(c.x, by, NID_name_constraints, s->constraints);
    if (s->usage)
        cert_ext(c.x, by, NID_ext_key_usage, s->usage);
    assert_true(X509_sign(c.x, issuer ? issuer->key : c.key, s->sha1 ? EVP_sha1() : EVP_sha256()) > 0);
    return c;
}

static inline void cert_free(struct cert *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->x);
}

static inline char *cert_pem(X509 *x)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    assert_int_equal(PEM_write_bio_X509(bio, x), 1);
    long len = BIO_get_mem_data(bio, &data);
    char *pem = g_strndup(data, (gsize)len);
    BIO_free(bio);
    return pem;
}

#endif
