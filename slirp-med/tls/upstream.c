/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Towards servers: the roots, what a certificate must be, and the sessions and verified chains that spare work.
 *
 * A server must prove the name that the guest asked for (RFC 9525: subjectAltName only, no partial wildcards), or,
 * when there was no name, the address that was dialled. The chain must end in a root that was added here; security
 * level 2 bounds its keys and signatures.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/rw.h"
#include "tls/internal.h"

/** Certificates between a leaf and its root: real chains have one to three. Bounds what a server can make us verify. */
#define CHAIN_DEPTH_MAX 8

struct sm_tls_upstream {
    SSL_CTX *ctx;
    struct sm_tls_sessions *sessions;
    struct sm_tls_chains *chains;
    struct sm_tls_scratch scratch;
    size_t chains_cost, chains_max; /* of the live connections */
};

/* The verified chain's validity, after a verification now. */
static void note_trust(struct sm_tls_conn *c, STACK_OF(X509) * chain)
{
    for (int i = 0; i < sk_X509_num(chain); i++) {
        int64_t from = sm_tls_time_us(X509_get0_notBefore(sk_X509_value(chain, i)));
        int64_t until = sm_tls_time_us(X509_get0_notAfter(sk_X509_value(chain, i)));
        c->trust.from_us = SM_MAX(c->trust.from_us, from);
        c->trust.until_us = SM_MIN(c->trust.until_us, until);
    }
}

/* In place of X509_verify_cert(), which it calls if the same was not verified lately. */
static int on_verify(X509_STORE_CTX *ctx, void *arg)
{
    struct sm_tls_upstream *u = arg;
    struct sm_tls_conn *c = SSL_get_app_data(X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx()));
    struct sm_tls_chain_key key;
    struct sm_tls_trust trust;
    bool keyed = sm_tls_chain_key(X509_STORE_CTX_get0_untrusted(ctx), c->identity, &key);
    /* c->trust.verified_us: now */
    if (keyed && sm_tls_chains_find(u->chains, &key, c->trust.verified_us, &trust)) {
        trust.chain_len = c->trust.chain_len; /* this connection's own */
        c->trust = trust;
        X509_STORE_CTX_set_error(ctx, X509_V_OK);
        return 1;
    }
    int rc = X509_verify_cert(ctx);
    if (rc == 1 && X509_STORE_CTX_get_error(ctx) == X509_V_OK) {
        note_trust(c, X509_STORE_CTX_get0_chain(ctx));
        if (keyed)
            sm_tls_chains_put(u->chains, &key, &c->trust);
    }
    return rc;
}

/*
 * A server asks for a certificate of ours: there is none, and without one the guest would talk to the server as a
 * stranger.
 */
static int on_client_certificate(SSL *ssl, void *arg)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    sm_tls_conn_fail(c, SM_TLS_FAILURE_CLIENT_CERTIFICATE, "the server asks for a client certificate");
    return -1; /* stop here */
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    if (!c->upstream || c->later > SM_TLS_LATER_MAX || SSL_get_verify_result(ssl) != X509_V_OK ||
        !SSL_SESSION_is_resumable(session))
        return 0;
    /* Under TLS 1.2 this comes before the handshake has returned. */
    if (!c->handshaken && !sm_tls_upstream_accepted(c))
        return 0;
    sm_tls_sessions_put(c->upstream->sessions, c->session_key, session, &c->trust);
    return 1;
}

static bool set_up(struct sm_tls_upstream *u)
{
    SSL_CTX *ctx = u->ctx;
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, on_verify, u);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
    SSL_CTX_set_max_cert_list(ctx, SM_TLS_CHAIN_MAX);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);
    SSL_CTX_set_cert_cb(ctx, on_client_certificate, NULL);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return sm_tls_ctx_common(ctx) && X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_SERVER) == 1 &&
           X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_TRUSTED_FIRST) == 1 &&
           SSL_CTX_set_ciphersuites(
               ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1 &&
           /* Forward secrecy first; what only speaks RSA key exchange is still reached, as the guest would reach it. */
           SSL_CTX_set_cipher_list(ctx,
                                   "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:"
                                   "!aNULL:!eNULL:!PSK:!SRP:!DSS:!AESCCM:!MD5") == 1;
}

struct sm_tls_upstream *sm_tls_upstream_new(GError **error)
{
    struct sm_tls_upstream *u = g_new0(struct sm_tls_upstream, 1);
    u->chains_max = SM_TLS_CHAINS_COST;
    u->sessions = sm_tls_sessions_new();
    u->chains = sm_tls_chains_new();
    sm_tls_scratch_init(&u->scratch);
    u->ctx = SSL_CTX_new(TLS_client_method());
    if (!u->ctx || !set_up(u)) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "TLS towards servers cannot be set up");
        sm_tls_upstream_free(u);
        return NULL;
    }
    return u;
}

void sm_tls_upstream_free(struct sm_tls_upstream *u)
{
    if (!u)
        return;
    sm_tls_sessions_free(u->sessions);
    sm_tls_chains_free(u->chains);
    SSL_CTX_free(u->ctx);
    sm_tls_scratch_clear(&u->scratch);
    g_free(u);
}

const struct sm_tls_sessions *sm_tls_upstream_sessions(const struct sm_tls_upstream *u)
{
    return u->sessions;
}

void sm_tls_upstream_set_chains_cost(struct sm_tls_upstream *u, size_t cost)
{
    u->chains_max = cost;
}

bool sm_tls_upstream_chain(struct sm_tls_conn *c, size_t len)
{
    struct sm_tls_upstream *u = c->upstream;
    sm_tls_upstream_forget(c);
    c->trust.chain_len = len;
    c->chain_cost = len * SM_TLS_CHAIN_COST;
    u->chains_cost += c->chain_cost;
    return u->chains_cost <= u->chains_max || len <= SM_TLS_CHAIN_SHARE;
}

void sm_tls_upstream_forget(struct sm_tls_conn *c)
{
    if (c->upstream)
        c->upstream->chains_cost -= c->chain_cost;
    c->chain_cost = 0;
}

size_t sm_tls_upstream_add_roots(struct sm_tls_upstream *u, const char *pem, size_t len)
{
    X509_STORE *store = SSL_CTX_get_cert_store(u->ctx);
    int before = sk_X509_OBJECT_num(X509_STORE_get0_objects(store));
    BIO *bio = len <= INT_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    while (bio && BIO_pending(bio) > 0) {
        char *name = NULL, *header = NULL;
        unsigned char *der = NULL;
        long der_len = 0;
        if (PEM_read_bio(bio, &name, &header, &der, &der_len) != 1) {
            /* A broken block: go on behind it. */
            bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
            ERR_clear_error();
            if (end)
                break;
            continue;
        }
        if (strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0) {
            const unsigned char *p = der;
            X509 *cert = d2i_X509(NULL, &p, der_len);
            if (cert && p == der + der_len)
                (void)X509_STORE_add_cert(store, cert); /* does nothing for one that is there */
            X509_free(cert);
        }
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_free(der);
    }
    BIO_free(bio);
    ERR_clear_error();
    sm_tls_chains_clear(u->chains);
    return (size_t)(sk_X509_OBJECT_num(X509_STORE_get0_objects(store)) - before);
}

static bool set_identity(SSL *ssl, const struct sm_tls_peer *peer)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_time(param, (time_t)(peer->wall_us / 1000000));
    if (!peer->name)
        return (peer->addr.family == SM_FAMILY_V4 || peer->addr.family == SM_FAMILY_V6) &&
               X509_VERIFY_PARAM_set1_ip(param, peer->addr.bytes, peer->addr.family == SM_FAMILY_V4 ? 4 : 16) == 1;
    /* OpenSSL takes an empty name for "any" and a leading dot for "any below". */
    if (peer->name[0] == '\0' || peer->name[0] == '.')
        return false;
    return X509_VERIFY_PARAM_set1_host(param, peer->name, 0) == 1 &&
           (!peer->send_sni || SSL_set_tlsext_host_name(ssl, peer->name) == 1);
}

/* Whom the server's certificate must be for, as set_identity() tells OpenSSL. No name is an address in text. */
static char *identity_of(const struct sm_tls_peer *peer)
{
    char text[SM_ADDR_STRLEN];
    return g_strdup(peer->name ? peer->name : sm_addr_format(&peer->addr, text));
}

/* Whom a session is good for: what was verified, where, and what was offered. */
static char *session_key(const char *identity, const struct sm_tls_peer *peer)
{
    g_autofree char *alpn = g_compute_checksum_for_data(G_CHECKSUM_SHA256, peer->alpn, peer->alpn_len);
    return g_strdup_printf("%s|%u|%d|%s", identity, (unsigned)peer->port, peer->send_sni ? 1 : 0, alpn);
}

struct sm_tls_conn *sm_tls_conn_new_upstream(struct sm_tls_upstream *u, const struct sm_tls_peer *peer,
                                             const struct sm_tls_wire *wire, GError **error)
{
    SSL *ssl = SSL_new(u->ctx);
    if (!ssl || !set_identity(ssl, peer) ||
        (peer->alpn_len > 0 && SSL_set_alpn_protos(ssl, peer->alpn, (unsigned)peer->alpn_len) != 0)) {
        SSL_free(ssl);
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "a TLS connection with the server cannot be made");
        return NULL;
    }
    struct sm_tls_conn *c = sm_tls_conn_new(ssl, &u->scratch, wire);
    if (!c) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "a TLS connection with the server cannot be made");
        return NULL;
    }
    c->upstream = u;
    c->identity = identity_of(peer);
    c->session_key = session_key(c->identity, peer);
    c->alpn = g_memdup2(peer->alpn, peer->alpn_len);
    c->alpn_len = peer->alpn_len;
    c->trust = (struct sm_tls_trust){.verified_us = peer->wall_us, .from_us = INT64_MIN, .until_us = INT64_MAX};
    struct sm_tls_trust trust;
    SSL_SESSION *session = sm_tls_sessions_take(u->sessions, c->session_key, peer->wall_us, &trust);
    if (session) {
        if (SSL_set_session(ssl, session) == 1)
            c->resumes = trust;
        SSL_SESSION_free(session);
    }
    SSL_set_connect_state(ssl);
    ERR_clear_error();
    return c;
}

/* OpenSSL 3.0 takes any protocol from a server that sends exactly one. */
static bool alpn_offered(const struct sm_tls_conn *c)
{
    const unsigned char *chosen;
    unsigned chosen_len;
    SSL_get0_alpn_selected(c->ssl, &chosen, &chosen_len);
    if (chosen_len == 0)
        return true;
    struct sm_rd r = sm_rd_init(c->alpn, c->alpn_len);
    while (sm_rd_left(&r) > 0) {
        size_t n = sm_rd_u8(&r);
        const uint8_t *p = sm_rd_take(&r, n);
        if (p && n == chosen_len && memcmp(p, chosen, n) == 0)
            return true;
    }
    return false;
}

bool sm_tls_upstream_accepted(struct sm_tls_conn *c)
{
    if (!alpn_offered(c)) {
        sm_tls_conn_fail(c, SM_TLS_FAILURE_PROTOCOL, "the server chose a protocol that was not offered");
        return false;
    }
    if (SSL_session_reused(c->ssl)) {
        c->trust = c->resumes;
        (void)sm_tls_upstream_chain(c, c->trust.chain_len); /* it was small enough once */
    }
    return true;
}

bool sm_tls_conn_resumed(const struct sm_tls_conn *c)
{
    return c->handshaken && SSL_session_reused(c->ssl) == 1;
}
