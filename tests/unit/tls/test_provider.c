/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is left of OpenSSL's default provider is enough: every cipher suite, group and kind of key that we offer, and
 * every form of private key, against peers in a library context of their own that has the provider complete.
 */
#include "pair.h"

#include <openssl/encoder.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>

static OSSL_LIB_CTX *complete;
static OSSL_PROVIDER *all;
static struct cert root;
static GHashTable *keys; /* one of a kind: making RSA keys is most of the time here */

static int set_up(void **state)
{
    GError *error = NULL;
    complete = OSSL_LIB_CTX_new();
    if (!complete || !(all = OSSL_PROVIDER_load(complete, "default")) || !sm_tls_library_init(&error))
        return -1;
    keys = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)EVP_PKEY_free);
    root = cert_make(NULL, &(struct cert_spec){.cn = "root", .ca = true});
    return 0;
}

static int tear_down(void **state)
{
    cert_free(&root);
    g_hash_table_destroy(keys);
    assert_int_equal(OSSL_PROVIDER_unload(all), 1);
    OSSL_LIB_CTX_free(complete);
    return 0;
}

static EVP_PKEY *key_of(const char *kind)
{
    EVP_PKEY *key = g_hash_table_lookup(keys, kind);
    if (key) {
        assert_int_equal(EVP_PKEY_up_ref(key), 1);
        return key;
    }
    if (g_str_has_prefix(kind, "RSA")) {
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(complete, kind, NULL);
        assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, 2048), 1);
        assert_int_equal(EVP_PKEY_generate(ctx, &key), 1);
        EVP_PKEY_CTX_free(ctx);
    } else if (g_str_has_prefix(kind, "P-")) {
        key = EVP_PKEY_Q_keygen(complete, NULL, "EC", kind);
    } else {
        key = EVP_PKEY_Q_keygen(complete, NULL, kind);
    }
    assert_non_null(key);
    assert_int_equal(EVP_PKEY_up_ref(key), 1);
    (void)g_hash_table_insert(keys, (gpointer)kind, key);
    return key;
}

/* One connection to a server that speaks one version, one suite, one group, with one kind of key; it is used. */
static void talk(const char *kind, int version, const char *suite, const char *group)
{
    GError *error = NULL;
    char buf[8];
    size_t n = 0;
    struct link link;
    SSL_CTX *ctx = SSL_CTX_new_ex(complete, NULL, TLS_server_method());
    struct cert leaf = cert_make(
        &root, &(struct cert_spec){.cn = "x", .san = "DNS:x.example", .usage = "serverAuth", .key = key_of(kind)});
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    if (suite)
        assert_int_equal(
            version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(ctx, suite) : SSL_CTX_set_cipher_list(ctx, suite), 1);
    if (group)
        assert_int_equal(SSL_CTX_set1_groups_list(ctx, group), 1);
    assert_int_equal(SSL_CTX_set_dh_auto(ctx, 1), 1);
    assert_int_equal(SSL_CTX_use_certificate(ctx, leaf.x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, leaf.key), 1);

    struct sm_tls_upstream *u = sm_tls_upstream_new(&error);
    char *pem = cert_pem(root.x);
    assert_int_equal(sm_tls_upstream_add_roots(u, pem, strlen(pem)), 1);
    for (unsigned i = 0; i < 2; i++) { /* the second one is resumed: a binder, or a ticket */
        link_init(&link);
        const struct sm_tls_wire wire = client_wire(&link);
        const struct sm_tls_peer peer = {.name = "x.example", .port = 443, .send_sni = true, .wall_us = WALL};
        struct sm_tls_conn *c = sm_tls_conn_new_upstream(u, &peer, &wire, &error);
        SSL *server = raw_new(ctx, true);
        enum sm_tls_io io = SM_TLS_IO_WANT_READ;
        for (unsigned k = 0; k < 6; k++) {
            io = sm_tls_conn_handshake(c);
            raw_move(server, &link.up, &link.down);
            (void)SSL_do_handshake(server);
            raw_move(server, &link.up, &link.down);
        }
        if (io != SM_TLS_IO_OK)
            fail_msg("%s, %s, %s: %s", kind, suite ? suite : "any suite", group ? group : "any group",
                     sm_tls_conn_error(c));
        if (suite)
            assert_string_equal(SSL_CIPHER_get_name(SSL_get_current_cipher(c->ssl)), suite);
        assert_int_equal(SSL_version(c->ssl), version);
        assert_int_equal(SSL_write(server, "hello", 5), 5);
        raw_move(server, &link.up, &link.down);
        assert_int_equal(sm_tls_conn_read(c, buf, sizeof(buf), &n), SM_TLS_IO_OK);
        assert_memory_equal(buf, "hello", 5);
        assert_int_equal(sm_tls_conn_write(c, "world", 5, &n), SM_TLS_IO_OK);
        assert_int_equal(sm_tls_conn_flush(c), SM_TLS_IO_OK);
        raw_move(server, &link.up, &link.down);
        assert_int_equal(SSL_read(server, buf, sizeof(buf)), 5);
        assert_int_equal(sm_tls_conn_resumed(c), i == 1);
        sm_tls_conn_free(c);
        SSL_free(server);
        link_clear(&link);
    }
    g_free(pem);
    sm_tls_upstream_free(u);
    SSL_CTX_free(ctx);
    cert_free(&leaf);
}

static void test_suites(void **state)
{
    static const char *const rsa[] = {
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-RSA-AES128-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES256-SHA256",
        "AES128-SHA",
    };
    static const char *const ecdsa[] = {
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA256",     "ECDHE-ECDSA-AES256-SHA384",     "ECDHE-ECDSA-AES256-SHA",
    };
    static const char *const tls13[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                        "TLS_CHACHA20_POLY1305_SHA256"};
    for (size_t i = 0; i < G_N_ELEMENTS(rsa); i++)
        talk("RSA", TLS1_2_VERSION, rsa[i], NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(ecdsa); i++)
        talk("P-256", TLS1_2_VERSION, ecdsa[i], NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tls13); i++)
        talk("P-256", TLS1_3_VERSION, tls13[i], NULL);
}

static void test_groups(void **state)
{
    static const char *const groups[] = {"X25519", "P-256", "P-384", "P-521"};
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
        talk("RSA", TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", groups[i]);
        talk("RSA", TLS1_3_VERSION, NULL, groups[i]);
    }
}

static void test_certificates(void **state)
{
    static const char *const kinds[] = {"RSA", "RSA-PSS", "P-256", "P-384", "P-521", "ED25519", "ED448"};
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        talk(kinds[i], TLS1_2_VERSION, NULL, NULL);
        talk(kinds[i], TLS1_3_VERSION, NULL, NULL);
    }
}

/* A private key as its owner has it in a file is read, and signs what its public half accepts. */
static void test_private_keys(void **state)
{
    static const struct {
        const char *kind, *structure, *label;
    } forms[] = {
        {"RSA", "PrivateKeyInfo", "-----BEGIN PRIVATE KEY"},   {"RSA", "type-specific", "-----BEGIN RSA PRIVATE KEY"},
        {"P-256", "PrivateKeyInfo", "-----BEGIN PRIVATE KEY"}, {"P-256", "type-specific", "-----BEGIN EC PRIVATE KEY"},
        {"P-384", "PrivateKeyInfo", "-----BEGIN PRIVATE KEY"}, {"ED25519", "PrivateKeyInfo", "-----BEGIN PRIVATE KEY"},
        {"ED448", "PrivateKeyInfo", "-----BEGIN PRIVATE KEY"},
    };
    static const uint8_t text[] = "header.claims";
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        unsigned char *pem = NULL, sig[512];
        size_t pem_len = 0, sig_len = sizeof(sig);
        EVP_PKEY *theirs = key_of(forms[i].kind);
        OSSL_ENCODER_CTX *enc =
            OSSL_ENCODER_CTX_new_for_pkey(theirs, EVP_PKEY_KEYPAIR, "PEM", forms[i].structure, NULL);
        assert_int_equal(OSSL_ENCODER_to_data(enc, &pem, &pem_len), 1);
        assert_memory_equal(pem, forms[i].label, strlen(forms[i].label));
        BIO *bio = BIO_new_mem_buf(pem, (int)pem_len);
        EVP_PKEY *ours = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        assert_non_null(ours);
        const char *md = g_str_has_prefix(forms[i].kind, "ED") ? NULL : "SHA256";
        EVP_MD_CTX *signs = EVP_MD_CTX_new(), *verifies = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestSignInit_ex(signs, NULL, md, NULL, NULL, ours, NULL), 1);
        assert_int_equal(EVP_DigestSign(signs, sig, &sig_len, text, sizeof(text)), 1);
        assert_int_equal(EVP_DigestVerifyInit_ex(verifies, NULL, md, complete, NULL, theirs, NULL), 1);
        assert_int_equal(EVP_DigestVerify(verifies, sig, sig_len, text, sizeof(text)), 1);
        EVP_MD_CTX_free(signs);
        EVP_MD_CTX_free(verifies);
        EVP_PKEY_free(ours);
        EVP_PKEY_free(theirs);
        BIO_free(bio);
        OSSL_ENCODER_CTX_free(enc);
        OPENSSL_free(pem);
    }
}

/* The other tests are about something: before 3.2 the provider is shortened, and otherwise as OpenSSL made it. */
static void test_control(void **state)
{
    bool shortened = OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2;
    assert_int_equal(OSSL_PROVIDER_available(NULL, "slirp-med"), shortened);
    assert_int_equal(OSSL_PROVIDER_available(NULL, "default"), !shortened);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "CAMELLIA-128-CBC", NULL);
    assert_int_equal(cipher == NULL, shortened);
    EVP_CIPHER_free(cipher);
    cipher = EVP_CIPHER_fetch(complete, "CAMELLIA-128-CBC", NULL);
    assert_non_null(cipher);
    EVP_CIPHER_free(cipher);
    ERR_clear_error();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suites),       cmocka_unit_test(test_groups),  cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_private_keys), cmocka_unit_test(test_control),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
