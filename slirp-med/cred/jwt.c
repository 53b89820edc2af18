/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys, signatures and tokens; see jwt.h. */
#include "cred/jwt.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <string.h>

#include "base/error.h"
#include "cred/json.h"
#include "cred/text.h"
#include "cred/value.h"

/** A signature at its longest: RSA of SM_JWT_RSA_BITS_MAX bits. ES256 in DER and as r||s (RFC 7518 3.4), jti. */
#define SIGNATURE_MAX (SM_JWT_RSA_BITS_MAX / 8)
#define ES256_PART 32
#define JTI_BYTES 16

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free_all)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_MD_CTX, EVP_MD_CTX_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ECDSA_SIG, ECDSA_SIG_free)

struct sm_jwt_key {
    enum sm_jwt_alg alg;
    EVP_PKEY *pkey;
};

static const char *const alg_names[] = {[SM_JWT_RS256] = "RS256", [SM_JWT_ES256] = "ES256", [SM_JWT_EDDSA] = "EdDSA"};
SM_NAME_TABLE_COVERS(alg_names, SM_JWT_ALGS);

const char *sm_jwt_alg_name(enum sm_jwt_alg alg)
{
    return (unsigned)alg < SM_JWT_ALGS ? alg_names[alg] : "?";
}

bool sm_jwt_alg_parse(const char *name, enum sm_jwt_alg *ret)
{
    for (unsigned i = 0; i < SM_JWT_ALGS; i++) {
        if (strcmp(name, alg_names[i]) == 0) {
            *ret = (enum sm_jwt_alg)i;
            return true;
        }
    }
    return false;
}

/* ---- keys ---- */

/* One PEM block as it was found; wiped at the end. */
struct block {
    unsigned char *der;
    long len;
    char *name;
};

static void block_clear(struct block *b)
{
    OPENSSL_secure_clear_free(b->der, b->len > 0 ? (size_t)b->len : 0);
    OPENSSL_secure_free(b->name);
    *b = (struct block){0};
}

/* There is no passphrase; that one was asked for is what the caller wants to know. */
static int note_passphrase(char *buf, int size, int rwflag, void *data)
{
    bool *asked = data;
    (void)buf;
    (void)size;
    (void)rwflag;
    *asked = true;
    return -1;
}

static bool next_private_key(BIO *bio, struct block *b, bool *encrypted)
{
    bool ok = PEM_bytes_read_bio_secmem(&b->der, &b->len, &b->name, PEM_STRING_EVP_PKEY, bio, note_passphrase,
                                        encrypted) == 1;
    ERR_clear_error();
    *encrypted |= ok && strcmp(b->name, PEM_STRING_PKCS8) == 0;
    return ok;
}

static EVP_PKEY *read_pem(const struct sm_secret *pem, GError **error)
{
    size_t len;
    const uint8_t *bytes = sm_secret_bytes(pem, &len);
    g_autoptr(BIO) bio = len > 0 && len <= SM_CRED_SECRET_MAX ? BIO_new_mem_buf(bytes, (int)len) : NULL;
    sm_cleanup(block_clear) struct block first = {0};
    sm_cleanup(block_clear) struct block second = {0};
    bool encrypted = false, more_encrypted = false;
    const char *wrong = NULL;
    EVP_PKEY *pkey = NULL;

    bool found = bio && next_private_key(bio, &first, &encrypted);
    if (encrypted)
        wrong = "is encrypted: give it without a passphrase";
    else if (!found)
        wrong = "holds no private key in PEM (PKCS#8, PKCS#1 or SEC 1)";
    else if (next_private_key(bio, &second, &more_encrypted) || more_encrypted)
        wrong = "holds more than one private key";
    if (!wrong) {
        const unsigned char *der = first.der;
        pkey = d2i_AutoPrivateKey_ex(NULL, &der, first.len, NULL, NULL);
        ERR_clear_error();
        if (!pkey || der != first.der + first.len)
            wrong = "is damaged, or of a kind that is not known";
    }
    if (!wrong)
        return pkey;
    EVP_PKEY_free(pkey);
    sm_error_set(error, SM_ERROR_INVALID, "the signing key %s", wrong);
    return NULL;
}

static bool fits(enum sm_jwt_alg alg, const EVP_PKEY *pkey, GError **error)
{
    char group[32] = "";
    int bits = EVP_PKEY_get_bits(pkey);

    switch (alg) {
    case SM_JWT_RS256:
        if (!EVP_PKEY_is_a(pkey, "RSA")) {
            sm_error_set(error, SM_ERROR_INVALID, "the signing key is no RSA key: RS256 needs one");
            return false;
        }
        if (bits < SM_JWT_RSA_BITS_MIN || bits > SM_JWT_RSA_BITS_MAX) {
            sm_error_set(error, SM_ERROR_INVALID, "the signing key has %d bits: RS256 needs %d to %d", bits,
                         SM_JWT_RSA_BITS_MIN, SM_JWT_RSA_BITS_MAX);
            return false;
        }
        return true;
    case SM_JWT_ES256:
        if (!EVP_PKEY_is_a(pkey, "EC") || EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1 ||
            strcmp(group, "prime256v1") != 0) {
            ERR_clear_error();
            sm_error_set(error, SM_ERROR_INVALID, "the signing key is no EC key on P-256: ES256 needs one");
            return false;
        }
        return true;
    case SM_JWT_EDDSA:
        if (!EVP_PKEY_is_a(pkey, "ED25519")) {
            sm_error_set(error, SM_ERROR_INVALID, "the signing key is no Ed25519 key: EdDSA needs one");
            return false;
        }
        return true;
    case SM_JWT_ALGS:
        break;
    }
    g_assert_not_reached();
}

static const EVP_MD *digest_of(enum sm_jwt_alg alg)
{
    return alg == SM_JWT_EDDSA ? NULL : EVP_sha256();
}

static bool set_padding(enum sm_jwt_alg alg, EVP_PKEY_CTX *ctx)
{
    return alg != SM_JWT_RS256 || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
}

/* The signature as OpenSSL gives it (ES256: DER). 0: it gave none. */
static size_t sign_raw(const struct sm_jwt_key *key, const void *bytes, size_t len, uint8_t out[SIGNATURE_MAX])
{
    g_autoptr(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL; /* the context's own */
    size_t n = SIGNATURE_MAX;

    bool ok = ctx && EVP_DigestSignInit(ctx, &pctx, digest_of(key->alg), NULL, key->pkey) == 1 &&
              set_padding(key->alg, pctx) && EVP_DigestSign(ctx, out, &n, bytes, len) == 1;
    ERR_clear_error();
    return ok ? n : 0;
}

/* A key whose public half is another key's signs without complaint, and nobody can verify it. */
static bool is_pair(const struct sm_jwt_key *key)
{
    static const char text[] = "slirp-med";
    uint8_t signature[SIGNATURE_MAX];
    size_t n = sign_raw(key, text, sizeof(text), signature);
    g_autoptr(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;

    bool ok = n > 0 && ctx && EVP_DigestVerifyInit(ctx, &pctx, digest_of(key->alg), NULL, key->pkey) == 1 &&
              set_padding(key->alg, pctx) &&
              EVP_DigestVerify(ctx, signature, n, (const unsigned char *)text, sizeof(text)) == 1;
    ERR_clear_error();
    return ok;
}

struct sm_jwt_key *sm_jwt_key_load(enum sm_jwt_alg alg, const struct sm_secret *pem, GError **error)
{
    g_autoptr(EVP_PKEY) pkey = read_pem(pem, error);

    if (!pkey || !fits(alg, pkey, error))
        return NULL;
    struct sm_jwt_key *key = g_new0(struct sm_jwt_key, 1);
    key->alg = alg;
    key->pkey = sm_steal_ptr(&pkey);
    if (!is_pair(key)) {
        sm_jwt_key_free(key);
        sm_error_set(error, SM_ERROR_INVALID, "the signing key is damaged: its private and public halves do not fit");
        return NULL;
    }
    return key;
}

void sm_jwt_key_free(struct sm_jwt_key *key)
{
    if (!key)
        return;
    EVP_PKEY_free(key->pkey);
    g_free(key);
}

/* ---- signatures ---- */

/* r||s with leading zeros, which DER leaves out. */
static bool es256_from_der(const uint8_t *der, size_t len, uint8_t out[2 * ES256_PART])
{
    const unsigned char *p = der;
    g_autoptr(ECDSA_SIG) sig = d2i_ECDSA_SIG(NULL, &p, (long)len);

    return sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, ES256_PART) == ES256_PART &&
           BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + ES256_PART, ES256_PART) == ES256_PART;
}

static size_t sign(const struct sm_jwt_key *key, const void *bytes, size_t len, uint8_t out[SIGNATURE_MAX])
{
    uint8_t der[SIGNATURE_MAX];

    if (key->alg != SM_JWT_ES256)
        return sign_raw(key, bytes, len, out);
    size_t n = sign_raw(key, bytes, len, der);
    return n > 0 && es256_from_der(der, n, out) ? (size_t)2 * ES256_PART : 0;
}

struct sm_secret *sm_jws_sign(const struct sm_jwt_key *key, const void *header, size_t header_len, const void *payload,
                              size_t payload_len, GError **error)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_TOKEN_MAX);
    uint8_t signature[SIGNATURE_MAX];

    sm_cred_text_base64url(&t, header, header_len);
    sm_cred_text_str(&t, ".");
    sm_cred_text_base64url(&t, payload, payload_len);
    size_t n = t.bad ? 0 : sign(key, t.data, t.len, signature);
    if (!t.bad && n == 0) {
        sm_error_set(error, SM_ERROR_SYSTEM, "signing with %s failed: no memory or no randomness",
                     sm_jwt_alg_name(key->alg));
        return NULL;
    }
    sm_cred_text_str(&t, ".");
    sm_cred_text_base64url(&t, signature, n);
    sm_wipe(signature, sizeof(signature));
    struct sm_secret *token = sm_cred_text_secret(&t);
    if (!token)
        sm_error_set(error, SM_ERROR_LIMIT, "the token is longer than %d bytes", SM_CRED_TOKEN_MAX);
    return token;
}

/* ---- tokens ---- */

static bool kid_ok(const char *kid)
{
    return !kid || (*kid && strlen(kid) <= SM_JWT_KID_MAX && g_utf8_validate(kid, -1, NULL));
}

/* 128 bits as 22 letters. */
static json_t *new_jti(void)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(64);
    uint8_t bytes[JTI_BYTES];

    if (RAND_bytes(bytes, sizeof(bytes)) != 1) {
        ERR_clear_error();
        return NULL;
    }
    sm_cred_text_base64url(&t, bytes, sizeof(bytes));
    return json_stringn((const char *)t.data, t.len);
}

/* The three claims that are ours; json_object_set_new() takes its value in any case, and refuses NULL. */
static bool add_ours(json_t *all, int64_t iat, uint32_t ttl_s)
{
    return json_object_set_new(all, "iat", json_integer(iat)) == 0 &&
           json_object_set_new(all, "exp", json_integer(iat + ttl_s)) == 0 &&
           json_object_set_new(all, "jti", new_jti()) == 0;
}

struct sm_secret *sm_jwt_sign(const struct sm_jwt_key *key, const char *kid, const json_t *claims, int64_t wall_us,
                              uint32_t ttl_s, GError **error)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text header = sm_cred_text_init(SM_JWT_CLAIMS_MAX);
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text payload = sm_cred_text_init(SM_JWT_CLAIMS_MAX + 256);

    if (!sm_jwt_claims_check(claims, error))
        return NULL;
    if (!kid_ok(kid) || ttl_s < 1 || ttl_s > SM_JWT_TTL_MAX_S || wall_us < 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "a token needs a life of 1 to %d seconds, a key id of 1 to %d bytes of UTF-8 if any, and a clock "
                     "after 1970",
                     SM_JWT_TTL_MAX_S, SM_JWT_KID_MAX);
        return NULL;
    }
    sm_cred_json_wipe();
    json_auto_t *head = json_pack("{s:s, s:s, s:s*}", "alg", sm_jwt_alg_name(key->alg), "typ", "JWT", "kid", kid);
    json_auto_t *all = claims ? json_copy((json_t *)claims) : json_object();
    if (!head || !all || !add_ours(all, wall_us / 1000000, ttl_s) || !sm_cred_json_dump(head, &header) ||
        !sm_cred_json_dump(all, &payload)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "the token cannot be built: no memory or no randomness");
        return NULL;
    }
    return sm_jws_sign(key, header.data, header.len, payload.data, payload.len, error);
}
