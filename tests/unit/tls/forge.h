/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records that no TLS library would write: a plain OpenSSL peer does the handshake, tells its secrets (keylog), and from
 * then on the records of its sending side are made here. AES-128-GCM with SHA-256 only, TLS 1.2 and 1.3.
 */
#ifndef TESTS_TLS_FORGE_H
#define TESTS_TLS_FORGE_H

#include <openssl/core_names.h>
#include <openssl/kdf.h>

#include "pair.h"

#define FORGE_ALERT 21
#define FORGE_CCS 20
#define FORGE_HANDSHAKE 22
#define FORGE_DATA 23

struct forge {
    bool tls13;
    bool server; /* it writes as the server */
    uint8_t secret[32];
    uint8_t key[16], iv[12];
    uint64_t seq;
};

static char forge_log[8][256];
static size_t forge_lines;

static inline void forge_keylog(const SSL *ssl, const char *line)
{
    if (forge_lines < SM_ARRAY_LEN(forge_log))
        (void)g_strlcpy(forge_log[forge_lines++], line, sizeof(forge_log[0]));
}

static inline void forge_listen(SSL_CTX *ctx)
{
    forge_lines = 0;
    SSL_CTX_set_keylog_callback(ctx, forge_keylog);
    assert_int_equal(SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256"), 1);
    assert_int_equal(SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-GCM-SHA256"), 1);
}

/* The last field of the line that begins with label, from hex. */
static inline size_t forge_secret(const char *label, uint8_t *out, size_t cap)
{
    for (size_t i = 0; i < forge_lines; i++) {
        if (!g_str_has_prefix(forge_log[i], label) || forge_log[i][strlen(label)] != ' ')
            continue;
        const char *hex = strrchr(forge_log[i], ' ') + 1;
        size_t n = strlen(hex) / 2;
        assert_true(n <= cap);
        for (size_t k = 0; k < n; k++)
            out[k] = (uint8_t)(g_ascii_xdigit_value(hex[2 * k]) << 4 | g_ascii_xdigit_value(hex[2 * k + 1]));
        return n;
    }
    fail_msg("the handshake told no %s", label);
    return 0;
}

/* By a library context of its own: ours does not have all of them. */
static inline void forge_kdf(const char *kdf, OSSL_PARAM *params, uint8_t *out, size_t len)
{
    static OSSL_LIB_CTX *complete;
    if (!complete)
        complete = OSSL_LIB_CTX_new();
    EVP_KDF *k = EVP_KDF_fetch(complete, kdf, NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(k);
    assert_int_equal(EVP_KDF_derive(ctx, out, len, params), 1);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(k);
}

/* HKDF-Expand-Label, RFC 8446 7.1, without context. */
static inline void forge_expand(const uint8_t secret[32], const char *label, uint8_t *out, size_t len)
{
    uint8_t info[64] = {0, (uint8_t)len, (uint8_t)(6 + strlen(label))};
    size_t n = 3;
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    n += (size_t)g_snprintf((char *)info + n, sizeof(info) - n, "tls13 %s", label) + 1; /* with the empty context */
    uint8_t key[32];
    memcpy(key, secret, 32);
    OSSL_PARAM p[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
                      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof(key)),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, n), OSSL_PARAM_construct_end()};
    forge_kdf("HKDF", p, out, len);
}

static inline void forge_keys13(struct forge *f)
{
    forge_expand(f->secret, "key", f->key, sizeof(f->key));
    forge_expand(f->secret, "iv", f->iv, sizeof(f->iv));
    f->seq = 0;
}

/* After the handshake of ssl, which has sent nothing since. */
static inline struct forge forge_begin(SSL *ssl)
{
    struct forge f = {.tls13 = SSL_version(ssl) == TLS1_3_VERSION, .server = SSL_is_server(ssl) == 1};
    if (f.tls13) {
        (void)forge_secret(f.server ? "SERVER_TRAFFIC_SECRET_0" : "CLIENT_TRAFFIC_SECRET_0", f.secret, 32);
        forge_keys13(&f);
        return f;
    }
    uint8_t master[48], block[2 * 16 + 2 * 4], seed[13 + 64] = "key expansion";
    (void)forge_secret("CLIENT_RANDOM", master, sizeof(master));
    (void)SSL_get_server_random(ssl, seed + 13, 32);
    (void)SSL_get_client_random(ssl, seed + 45, 32);
    OSSL_PARAM p[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, sizeof(master)),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed)),
                      OSSL_PARAM_construct_end()};
    forge_kdf("TLS1-PRF", p, block, sizeof(block));
    memcpy(f.key, block + (f.server ? 16 : 0), 16);
    memcpy(f.iv, block + 32 + (f.server ? 4 : 0), 4);
    f.seq = 1; /* Finished */
    return f;
}

/* One record, appended to out; false: out is full. pad: zeros behind a TLS 1.3 plaintext. */
static inline bool forge_record(struct forge *f, struct sm_buf *out, uint8_t type, const void *data, size_t len,
                                size_t pad)
{
    uint8_t record[5 + 8 + 17000], plain[17000], nonce[12], aad[13], seq[8];
    size_t n = 0, aad_len;
    int m;
    for (unsigned i = 0; i < 8; i++)
        seq[i] = (uint8_t)(f->seq >> (56 - 8 * i));
    memcpy(nonce, f->iv, 12);
    memcpy(plain, data, len);
    n = len;
    uint8_t *body = record + 5;
    record[0] = type;
    record[1] = record[2] = 3;
    if (f->tls13) {
        record[0] = FORGE_DATA;
        plain[n++] = type;
        memset(plain + n, 0, pad);
        n += pad;
        for (unsigned i = 0; i < 8; i++)
            nonce[4 + i] ^= seq[i];
        memcpy(aad, record, 3);
        aad[3] = (uint8_t)((n + 16) >> 8);
        aad[4] = (uint8_t)(n + 16);
        aad_len = 5;
    } else {
        memcpy(nonce + 4, seq, 8);
        memcpy(body, seq, 8);
        body += 8;
        memcpy(aad, seq, 8);
        memcpy(aad + 8, record, 3);
        aad[11] = (uint8_t)(n >> 8);
        aad[12] = (uint8_t)n;
        aad_len = 13;
    }
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, f->key, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &m, aad, (int)aad_len), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, body, &m, plain, (int)n), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, body + n, &m), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, 16, body + n), 1);
    EVP_CIPHER_CTX_free(ctx);
    size_t whole = (size_t)(body - record) + n + 16;
    record[3] = (uint8_t)((whole - 5) >> 8);
    record[4] = (uint8_t)(whole - 5);
    f->seq++;
    return sm_buf_append(out, record, whole);
}

static inline bool forge_key_update(struct forge *f, struct sm_buf *out, bool requested)
{
    const uint8_t message[5] = {24, 0, 0, 1, requested};
    uint8_t next[32];
    bool ok = forge_record(f, out, FORGE_HANDSHAKE, message, sizeof(message), 0);
    forge_expand(f->secret, "traffic upd", next, sizeof(next));
    memcpy(f->secret, next, sizeof(next));
    forge_keys13(f);
    return ok;
}

#endif
