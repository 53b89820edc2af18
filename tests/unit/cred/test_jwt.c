/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keys of every kind and form, the RFCs' own vectors, tokens read back and verified, and errors that say nothing of the
 * key.
 */
#include "engine.h"
#include "keys.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "cred/jwt.h"
#include "cred/value.h"

#define WALL_S INT64_C(1893456000)
#define WALL (WALL_S * 1000000 + 999999)

static const struct {
    enum sm_jwt_alg alg;
    const char *pem;
} keys[] = {
    {SM_JWT_RS256, RSA_PKCS1}, {SM_JWT_RS256, RSA_PKCS8}, {SM_JWT_ES256, EC_SEC1},
    {SM_JWT_ES256, EC_PKCS8},  {SM_JWT_EDDSA, ED25519},
};

static struct sm_jwt_key *load(enum sm_jwt_alg alg, const char *pem, GError **error)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *s = secret(pem);
    return sm_jwt_key_load(alg, s, error);
}

static struct sm_jwt_key *good(enum sm_jwt_alg alg, const char *pem)
{
    GError *error = NULL;
    struct sm_jwt_key *key = load(alg, pem, &error);
    if (!key)
        fail_msg("%s: %s", sm_jwt_alg_name(alg), error->message);
    assert_null(error);
    return key;
}

/* Our own reader of base64url: strict, no padding. */
static size_t decode(const char *text, size_t len, uint8_t *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        const char *at = strchr(letters, text[i]);
        assert_true(at && *at);
        bits = bits << 6 | (uint32_t)(at - letters);
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    assert_int_equal(bits & ((1u << have) - 1), 0);
    return n;
}

static json_t *part(const char *text, size_t len)
{
    uint8_t buf[SM_CRED_TOKEN_MAX];
    json_t *json = json_loadb((char *)buf, decode(text, len, buf), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    return json;
}

/* With OpenSSL and the PEM, nothing of ours. */
static EVP_PKEY *pkey_of(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    assert_non_null(pkey);
    BIO_free(bio);
    return pkey;
}

static bool verify(enum sm_jwt_alg alg, EVP_PKEY *pkey, const char *token)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const char *dot = strrchr(token, '.');
    uint8_t raw[2048], *der = NULL;
    size_t n = decode(dot + 1, strlen(dot + 1), raw);

    const uint8_t *sig = raw;
    if (alg == SM_JWT_ES256) {
        assert_int_equal(n, 64);
        ECDSA_SIG *both = ECDSA_SIG_new();
        assert_int_equal(ECDSA_SIG_set0(both, BN_bin2bn(raw, 32, NULL), BN_bin2bn(raw + 32, 32, NULL)), 1);
        int len = i2d_ECDSA_SIG(both, &der);
        assert_true(len > 0);
        sig = der;
        n = (size_t)len;
        ECDSA_SIG_free(both);
    }
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, alg == SM_JWT_EDDSA ? NULL : EVP_sha256(), NULL, pkey), 1);
    bool ok = EVP_DigestVerify(ctx, sig, n, (const uint8_t *)token, (size_t)(dot - token)) == 1;
    OPENSSL_free(der);
    EVP_MD_CTX_free(ctx);
    return ok;
}

static void test_vectors(void **state)
{
    const char payload[] = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    GError *error = NULL;

    (void)state;
    /* RFC 7515 A.2: RS256 is deterministic. */
    struct sm_jwt_key *key = good(SM_JWT_RS256, RSA_PKCS1);
    struct sm_secret *s = sm_jws_sign(key, "{\"alg\":\"RS256\"}", 15, payload, sizeof(payload) - 1, &error);
    assert_secret(s, "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
                     "bS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm"
                     "4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h"
                     "6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOP"
                     "qvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw");
    sm_secret_free(s);
    sm_jwt_key_free(key);
    /* RFC 8037 A.4. */
    key = good(SM_JWT_EDDSA, ED25519);
    s = sm_jws_sign(key, "{\"alg\":\"EdDSA\"}", 15, "Example of Ed25519 signing", 26, &error);
    assert_secret(s, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3"
                     "AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
    sm_secret_free(s);
    sm_jwt_key_free(key);
    assert_null(error);
}

/* ES256: r and s keep their leading zeros. One signature in 128 has one. */
static void test_es256_width(void **state)
{
    struct sm_jwt_key *key = good(SM_JWT_ES256, EC_SEC1);
    EVP_PKEY *pkey = pkey_of(EC_SEC1);
    unsigned short_ones = 0;

    (void)state;
    for (uint32_t i = 0; i < 3000; i++) {
        uint8_t raw[64];
        struct sm_secret *s = sm_jws_sign(key, "{}", 2, &i, sizeof(i), NULL);
        char *token = text_of(s);
        const char *dot = strrchr(token, '.');
        assert_int_equal(strlen(dot + 1), 86);
        assert_int_equal(decode(dot + 1, 86, raw), 64);
        short_ones += raw[0] == 0 || raw[32] == 0;
        assert_true(verify(SM_JWT_ES256, pkey, token));
        free(token);
        sm_secret_free(s);
    }
    assert_true(short_ones > 0);
    EVP_PKEY_free(pkey);
    sm_jwt_key_free(key);
}

static void test_token(void **state)
{
    const char claims_text[] =
        "{\"iss\":\"me\",\"aud\":[\"a\",\"b\"],\"n\":42,\"f\":1.5,\"t\":true,\"u\":\"\\u00e9\\\"\"}";
    json_t *claims = json_loads(claims_text, 0, NULL);
    GError *error = NULL;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++) {
        struct sm_jwt_key *key = good(keys[i].alg, keys[i].pem);
        EVP_PKEY *pkey = pkey_of(keys[i].pem);
        char first_jti[64] = "";
        for (int round = 0; round < 2; round++) {
            struct sm_secret *s = sm_jwt_sign(key, round ? "key \"1\"" : NULL, claims, WALL, 300, &error);
            char *token = text_of(s);
            const char *dot = strchr(token, '.'), *last = strrchr(token, '.');
            json_t *header = part(token, (size_t)(dot - token));
            json_t *body = part(dot + 1, (size_t)(last - dot - 1));

            assert_true(dot < last);
            assert_int_equal(json_object_size(header), round ? 3 : 2);
            assert_string_equal(json_string_value(json_object_get(header, "alg")), sm_jwt_alg_name(keys[i].alg));
            assert_string_equal(json_string_value(json_object_get(header, "typ")), "JWT");
            if (round)
                assert_string_equal(json_string_value(json_object_get(header, "kid")), "key \"1\"");
            assert_int_equal(json_integer_value(json_object_get(body, "iat")), WALL_S);
            assert_int_equal(json_integer_value(json_object_get(body, "exp")), WALL_S + 300);
            const char *jti = json_string_value(json_object_get(body, "jti"));
            assert_int_equal(strlen(jti), 22);
            assert_string_not_equal(jti, first_jti);
            strcpy(first_jti, jti);
            /* What is left is the configuration's, to the letter. */
            json_object_del(body, "iat");
            json_object_del(body, "exp");
            json_object_del(body, "jti");
            assert_true(json_equal(body, claims));
            assert_true(verify(keys[i].alg, pkey, token));
            /* A bit more and it does not verify: the verifier can fail. */
            token[strlen("eyJ")] ^= 1;
            assert_false(verify(keys[i].alg, pkey, token));
            json_decref(header);
            json_decref(body);
            free(token);
            sm_secret_free(s);
        }
        EVP_PKEY_free(pkey);
        sm_jwt_key_free(key);
    }
    assert_int_equal(json_object_size(claims), 6); /* untouched */
    assert_null(error);
    json_decref(claims);
}

static void test_no_claims_and_limits(void **state)
{
    struct sm_jwt_key *key = good(SM_JWT_EDDSA, ED25519);
    GError *error = NULL;
    char kid[SM_JWT_KID_MAX + 2];

    (void)state;
    struct sm_secret *s = sm_jwt_sign(key, NULL, NULL, WALL, SM_JWT_TTL_MAX_S, &error);
    assert_non_null(s);
    sm_secret_free(s);
    assert_null(sm_jwt_sign(key, NULL, NULL, WALL, 0, &error));
    assert_error(&error, SM_ERROR_INVALID, "life of 1 to");
    assert_null(sm_jwt_sign(key, NULL, NULL, WALL, SM_JWT_TTL_MAX_S + 1, &error));
    assert_error(&error, SM_ERROR_INVALID, "life of 1 to");
    assert_null(sm_jwt_sign(key, NULL, NULL, -1, 300, &error));
    assert_error(&error, SM_ERROR_INVALID, "clock");
    assert_null(sm_jwt_sign(key, "", NULL, WALL, 300, &error));
    assert_error(&error, SM_ERROR_INVALID, "key id");
    assert_null(sm_jwt_sign(key, "\xff", NULL, WALL, 300, &error));
    assert_error(&error, SM_ERROR_INVALID, "key id");
    memset(kid, 'k', sizeof(kid));
    kid[SM_JWT_KID_MAX + 1] = '\0';
    assert_null(sm_jwt_sign(key, kid, NULL, WALL, 300, &error));
    assert_error(&error, SM_ERROR_INVALID, "key id");
    s = sm_jws_sign(key, "{}", 2, "", 0, &error); /* an empty payload is one */
    assert_non_null(s);
    sm_secret_free(s);
    char *large = g_strnfill(SM_CRED_TOKEN_MAX, 'x');
    assert_null(sm_jws_sign(key, "{}", 2, large, SM_CRED_TOKEN_MAX, &error));
    assert_error(&error, SM_ERROR_LIMIT, "longer than");
    g_free(large);
    sm_jwt_key_free(key);
}

static void test_claims(void **state)
{
    const char *const ours[] = {"iat", "exp", "jti"};
    struct sm_jwt_key *key = good(SM_JWT_EDDSA, ED25519);
    GError *error = NULL;

    (void)state;
    assert_true(sm_jwt_claims_check(NULL, &error));
    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++) {
        json_t *claims = json_pack("{s:s, s:n}", "iss", "canary", ours[i]);
        assert_null(sm_jwt_sign(key, NULL, claims, WALL, 300, &error));
        assert_null(strstr(error->message, "canary"));
        assert_error(&error, SM_ERROR_INVALID, ours[i]);
        json_decref(claims);
    }
    json_t *list = json_pack("[s]", "iss");
    assert_false(sm_jwt_claims_check(list, &error));
    assert_error(&error, SM_ERROR_INVALID, "mapping");
    json_decref(list);

    /* The longest claims, with the longest key id and an RSA signature, still make a token. */
    char *text = g_strnfill(SM_JWT_CLAIMS_MAX - 8, 'x');
    char *kid = g_strnfill(SM_JWT_KID_MAX, '"');
    struct sm_jwt_key *rsa = good(SM_JWT_RS256, RSA_PKCS8);
    json_t *claims = json_pack("{s:s}", "c", text);
    struct sm_secret *s = sm_jwt_sign(rsa, kid, claims, WALL, 300, &error);
    assert_non_null(s);
    sm_secret_free(s);
    json_object_set_new(claims, "d", json_null());
    assert_null(sm_jwt_sign(rsa, kid, claims, WALL, 300, &error));
    assert_error(&error, SM_ERROR_LIMIT, "longer than");
    json_decref(claims);
    sm_jwt_key_free(rsa);
    sm_jwt_key_free(key);
    g_free(kid);
    g_free(text);
}

/* A fresh key in PEM; the caller frees it. */
static char *fresh(EVP_PKEY *pkey, const EVP_CIPHER *cipher, bool traditional)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;

    assert_non_null(pkey);
    if (traditional)
        assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, pkey, cipher, (const uint8_t *)"pw", 2, NULL, NULL),
                         1);
    else
        assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, cipher, "pw", 2, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &data);
    char *text = g_strndup(data, (gsize)len);
    BIO_free(bio);
    EVP_PKEY_free(pkey);
    return text;
}

static void refused(enum sm_jwt_alg alg, const char *pem, const char *why)
{
    GError *error = NULL;
    size_t len = strlen(pem);

    assert_null(load(alg, pem, &error));
    /* No eight letters in a row of the PEM's inner lines are in the message. */
    for (size_t i = 0; i + 8 < len; i++) {
        char window[9] = {0};
        memcpy(window, pem + i, 8);
        if (!strpbrk(window, " -\n"))
            assert_null(strstr(error->message, window));
    }
    assert_error(&error, SM_ERROR_INVALID, why);
}

static void test_wrong_keys(void **state)
{
    const struct {
        enum sm_jwt_alg alg;
        char *pem;
        const char *why;
    } made[] = {
        {SM_JWT_RS256, fresh(EVP_RSA_gen(1024), NULL, false), "1024 bits: RS256 needs 2048 to 8192"},
        {SM_JWT_ES256, fresh(EVP_EC_gen("P-384"), NULL, false), "no EC key on P-256"},
        {SM_JWT_ES256, fresh(EVP_EC_gen("secp256k1"), NULL, true), "no EC key on P-256"},
        {SM_JWT_EDDSA, fresh(EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), NULL, false), "no Ed25519 key"},
        {SM_JWT_EDDSA, fresh(EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), NULL, false), "no Ed25519 key"},
        {SM_JWT_ES256, fresh(EVP_EC_gen("P-256"), EVP_aes_128_cbc(), false), "is encrypted"},
        {SM_JWT_ES256, fresh(EVP_EC_gen("P-256"), EVP_aes_128_cbc(), true), "is encrypted"},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(made); i++) {
        refused(made[i].alg, made[i].pem, made[i].why);
        g_free(made[i].pem);
    }
    /* Each algorithm with each other's keys. */
    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++)
        for (unsigned alg = 0; alg < SM_JWT_ALGS; alg++)
            if (alg != keys[i].alg)
                refused((enum sm_jwt_alg)alg, keys[i].pem, sm_jwt_alg_name((enum sm_jwt_alg)alg));
    refused(SM_JWT_RS256, "", "no private key in PEM");
    refused(SM_JWT_RS256, "sk-not-a-key-at-all", "no private key in PEM");
    refused(SM_JWT_RS256, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged");
    refused(SM_JWT_RS256, "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n", "no private key");
    refused(SM_JWT_RS256, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no private key");
    refused(SM_JWT_EDDSA, ED25519 ED25519, "more than one");
    refused(SM_JWT_ES256, EC_SEC1 EC_PKCS8, "more than one");
}

/* The DER in a PEM with some bytes replaced. The caller frees it. */
static char *patched(const char *pem, long at, const void *bytes, size_t n)
{
    BIO *in = BIO_new_mem_buf(pem, -1), *out = BIO_new(BIO_s_mem());
    uint8_t *der = NULL;
    char *name = NULL, *header = NULL, *data;
    long len = 0;

    assert_int_equal(PEM_read_bio(in, &name, &header, &der, &len), 1);
    memcpy(der + (at < 0 ? len + at : at), bytes, n);
    assert_true(PEM_write_bio(out, name, "", der, len) > 0);
    long text_len = BIO_get_mem_data(out, &data);
    char *text = g_strndup(data, (gsize)text_len);
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(der);
    BIO_free(out);
    BIO_free(in);
    return text;
}

/* Keys that OpenSSL reads and signs with, and whose signatures nobody could verify. */
static void test_halves(void **state)
{
    /* The generator of P-256: a point of the curve, and another key's public half. */
    static const uint8_t g[64] = {0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63,
                                  0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1,
                                  0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f,
                                  0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57,
                                  0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5};
    char *pem = patched(EC_SEC1, -64, g, sizeof(g));

    (void)state;
    refused(SM_JWT_ES256, pem, "halves do not fit");
    g_free(pem);
    pem = patched(EC_SEC1, -1, "", 1); /* no point of the curve */
    refused(SM_JWT_ES256, pem, "damaged");
    g_free(pem);
    pem = patched(RSA_PKCS1, 40, "slirp", 5); /* in the modulus */
    refused(SM_JWT_RS256, pem, "halves do not fit");
    g_free(pem);
}

/* What stands around a key in the files that people have. */
static void test_surroundings(void **state)
{
    const char params[] = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    char *text = g_strconcat("Bag Attributes\n  friendlyName: x\n", params, EC_SEC1, "trailing text\n", NULL);

    (void)state;
    sm_jwt_key_free(good(SM_JWT_ES256, text));
    g_free(text);
    text = g_strndup(ED25519, strlen(ED25519) - 1); /* without the last line end, as sm_cred_value_clean() leaves it */
    sm_jwt_key_free(good(SM_JWT_EDDSA, text));
    g_free(text);
    sm_jwt_key_free(NULL);
}

static void test_names(void **state)
{
    enum sm_jwt_alg alg;

    (void)state;
    for (unsigned i = 0; i < SM_JWT_ALGS; i++) {
        assert_true(sm_jwt_alg_parse(sm_jwt_alg_name((enum sm_jwt_alg)i), &alg));
        assert_int_equal(alg, i);
    }
    assert_false(sm_jwt_alg_parse("none", &alg));
    assert_false(sm_jwt_alg_parse("HS256", &alg));
    assert_false(sm_jwt_alg_parse("rs256", &alg));
    assert_false(sm_jwt_alg_parse("", &alg));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_es256_width),
        cmocka_unit_test(test_token),   cmocka_unit_test(test_no_claims_and_limits),
        cmocka_unit_test(test_claims),  cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_halves),  cmocka_unit_test(test_surroundings),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
