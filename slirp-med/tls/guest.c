/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Towards guests: a server with a leaf of the workspace's CA, which says exactly what upstream said. The hello is
 * compared with the one that was judged before anything is answered; nothing is ever resumed, so that no session of
 * one name can come back under another.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#include "base/rw.h"
#include "tls/internal.h"

/**
 * What a guest may send as early data before we stop skipping it: it belongs to a session with the real server, from
 * before the interception.
 */
#define EARLY_DATA_SKIPPED (1u << 20)

struct sm_tls_guest {
    SSL_CTX *ctx;
    struct sm_tls_ca *ca;
    struct sm_tls_scratch scratch;
};

/* The one host_name of a server_name extension, as sent. false: it breaks RFC 6066 3. */
static bool parse_sni(const uint8_t *ext, size_t len, const uint8_t **ret_name, size_t *ret_len)
{
    struct sm_rd r = sm_rd_init(ext, len);
    struct sm_rd list = sm_rd_sub(&r, sm_rd_u16(&r));
    uint8_t type = sm_rd_u8(&list);
    size_t name_len = sm_rd_u16(&list);
    const uint8_t *name = sm_rd_take(&list, name_len);
    if (!sm_rd_done(&r) || !sm_rd_done(&list) || type != TLSEXT_NAMETYPE_host_name || name_len == 0)
        return false;
    *ret_name = name;
    *ret_len = name_len;
    return true;
}

static bool offers(const uint8_t *list, size_t len, const uint8_t *one, size_t one_len)
{
    struct sm_rd r = sm_rd_init(list, len);
    while (sm_rd_left(&r) > 0) {
        size_t n = sm_rd_u8(&r);
        const uint8_t *p = sm_rd_take(&r, n);
        if (p && n == one_len && memcmp(p, one, n) == 0)
            return true;
    }
    return false;
}

/* Runs for every hello, also for the second one after a HelloRetryRequest. */
static int on_hello(SSL *ssl, int *alert, void *arg)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    const uint8_t *ext, *name = NULL;
    size_t len, name_len = 0;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &ext, &len) == 1 &&
        !parse_sni(ext, len, &name, &name_len)) {
        sm_tls_conn_fail(c, SM_TLS_FAILURE_PROTOCOL, "the server name of the ClientHello is malformed");
        *alert = SSL_AD_DECODE_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    bool same =
        c->sni ? name && strlen(c->sni) == name_len && g_ascii_strncasecmp(c->sni, (const char *)name, name_len) == 0
               : !name;
    if (!same) {
        sm_tls_conn_fail(c, SM_TLS_FAILURE_RENAMED,
                         "the ClientHello names another server than the one that was judged");
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (c->alpn) {
        bool offered = false;
        if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext, &len) == 1) {
            struct sm_rd r = sm_rd_init(ext, len);
            size_t list_len = sm_rd_u16(&r);
            const uint8_t *list = sm_rd_take(&r, list_len);
            offered = list && sm_rd_done(&r) && offers(list, list_len, c->alpn, c->alpn_len);
        }
        if (!offered) {
            sm_tls_conn_fail(c, SM_TLS_FAILURE_RENAMED,
                             "the ClientHello does not offer the protocol that the server chose");
            *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
            return SSL_CLIENT_HELLO_ERROR;
        }
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                   unsigned in_len, void *arg)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    if (!c->alpn)
        return SSL_TLSEXT_ERR_NOACK;
    if (!offers(in, in_len, c->alpn, c->alpn_len))
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = c->alpn;
    *out_len = (unsigned char)c->alpn_len;
    return SSL_TLSEXT_ERR_OK;
}

static bool set_up(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    /*
     * AES-128-GCM is the fastest that all take; what has no AES instructions says so by preferring ChaCha. The CBC
     * ones are for old Java.
     */
    return sm_tls_ctx_common(ctx) && SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1 &&
           SSL_CTX_set_recv_max_early_data(ctx, EARLY_DATA_SKIPPED) == 1 &&
           SSL_CTX_set_ciphersuites(
               ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") == 1 &&
           SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"
                                        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA256:"
                                        "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA") == 1;
}

struct sm_tls_guest *sm_tls_guest_new(struct sm_tls_ca *ca, GError **error)
{
    struct sm_tls_guest *g = g_new0(struct sm_tls_guest, 1);
    g->ca = ca;
    sm_tls_scratch_init(&g->scratch);
    g->ctx = SSL_CTX_new(TLS_server_method());
    if (!g->ctx || !set_up(g->ctx)) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "TLS towards the guest cannot be set up");
        sm_tls_guest_free(g);
        return NULL;
    }
    return g;
}

void sm_tls_guest_free(struct sm_tls_guest *g)
{
    if (!g)
        return;
    SSL_CTX_free(g->ctx);
    sm_tls_scratch_clear(&g->scratch);
    g_free(g);
}

struct sm_tls_conn *sm_tls_conn_new_guest(struct sm_tls_guest *g, const char *sni, X509 *leaf, const uint8_t *alpn,
                                          size_t alpn_len, const struct sm_tls_wire *wire, GError **error)
{
    SSL *ssl = SSL_new(g->ctx);
    if (!ssl || SSL_use_certificate(ssl, leaf) != 1 || SSL_use_PrivateKey(ssl, g->ca->leaf_key) != 1) {
        SSL_free(ssl);
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "a TLS connection with the guest cannot be made");
        return NULL;
    }
    struct sm_tls_conn *c = sm_tls_conn_new(ssl, &g->scratch, wire);
    if (!c) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "a TLS connection with the guest cannot be made");
        return NULL;
    }
    c->sni = g_strdup(sni);
    if (alpn && alpn_len > 0 && alpn_len <= UINT8_MAX) {
        c->alpn = g_memdup2(alpn, alpn_len);
        c->alpn_len = alpn_len;
    }
    SSL_set_accept_state(ssl);
    ERR_clear_error();
    return c;
}
