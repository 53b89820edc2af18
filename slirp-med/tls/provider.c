/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A provider that stands in front of OpenSSL's default one and passes on only the algorithms that TLS as we speak it,
 * and the keys that we read and write, can need.
 *
 * Why: OpenSSL before 3.2 builds a chain of decoders for every public key in every certificate, and each time walks
 * over all algorithms and all names that it knows. With the default provider alone that is half as dear as the
 * signatures of the chain; of its 130 ciphers, 50 decoders and 140 encoders we use a tenth. What is gone is also out of
 * a server's reach.
 *
 * How: the real provider is loaded into a library context of its own; ours, in the default context, answers
 * query_operation with shortened copies of the real one's lists, and every implementation gets the real one's provider
 * context, as it would have without us. What an implementation fetches on its own (a digest for a signature, the
 * cipher of the random generator) comes from the real provider's context, which is complete.
 *
 * Encryption with keys (RSA) and the random generator pass as they are. The version decides: from 3.2 on the chain of
 * decoders is kept, lists have new entries that are not known here, and the default provider is loaded as it is; so it
 * is when anything here fails.
 */
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <string.h>

#include "tls/internal.h"

#define NAME "slirp-med"

/** Library contexts and lists live as long as the process. */
static struct {
    OSSL_LIB_CTX *ctx;
    OSSL_PROVIDER *provider;
} real;

/* Names as the default provider has them: the first of an algorithm's. libssl asserts that MD5 is there. */
static const char *const digests[] = {"MD5",      "MD5-SHA1", "SHA1",      "SHA2-224", "SHA2-256",
                                      "SHA2-384", "SHA2-512", "SHAKE-256", NULL};
static const char *const ciphers[] = {"NULL",
                                      "AES-128-GCM",
                                      "AES-256-GCM",
                                      "AES-128-CBC",
                                      "AES-256-CBC",
                                      "AES-128-CBC-HMAC-SHA1",
                                      "AES-256-CBC-HMAC-SHA1",
                                      "AES-128-CBC-HMAC-SHA256",
                                      "AES-256-CBC-HMAC-SHA256",
                                      "AES-256-CTR",
                                      "ChaCha20",
                                      "ChaCha20-Poly1305",
                                      NULL};
/* HMAC, HKDF and TLS1-PRF are keys to libssl: of a PSK's binder, of a record under CBC. */
static const char *const keys[] = {"RSA",  "RSA-PSS", "EC",   "ED25519", "ED448",    "X25519",
                                   "X448", "DH",      "HMAC", "HKDF",    "TLS1-PRF", NULL};
static const char *const exchanges[] = {"DH", "ECDH", "X25519", "X448", NULL};
static const char *const signatures[] = {"RSA", "ECDSA", "ED25519", "ED448", "HMAC", NULL};
static const char *const macs[] = {"HMAC", NULL};
static const char *const kdfs[] = {"TLS13-KDF", "TLS1-PRF", "HKDF", NULL};
static const char *const codecs[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448", NULL};

static const struct shortened {
    int operation;
    const char *const *names;
    const char *const *forms; /* of a codec, in its properties; NULL: any */
} shortened[] = {
    {OSSL_OP_DIGEST, digests, NULL},
    {OSSL_OP_CIPHER, ciphers, NULL},
    {OSSL_OP_KEYMGMT, keys, NULL},
    {OSSL_OP_KEYEXCH, exchanges, NULL},
    {OSSL_OP_SIGNATURE, signatures, NULL},
    {OSSL_OP_MAC, macs, NULL},
    {OSSL_OP_KDF, kdfs, NULL},
    /* Of certificates. For private keys OpenSSL falls back to the code that it had before there were decoders. */
    {OSSL_OP_DECODER, codecs, (const char *const[]){"structure=SubjectPublicKeyInfo", NULL}},
    {OSSL_OP_ENCODER, codecs,
     (const char *const[]){"structure=SubjectPublicKeyInfo", "structure=PrivateKeyInfo", NULL}},
};

static OSSL_ALGORITHM *lists[G_N_ELEMENTS(shortened)];

static bool passes(const struct shortened *s, const OSSL_ALGORITHM *a)
{
    size_t len = strcspn(a->algorithm_names, ":");
    bool named = false, formed = !s->forms;
    for (const char *const *n = s->names; *n && !named; n++)
        named = strlen(*n) == len && memcmp(*n, a->algorithm_names, len) == 0;
    for (const char *const *f = s->forms; f && *f && !formed; f++)
        formed = strstr(a->property_definition, *f) != NULL;
    return named && formed;
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
    const OSSL_ALGORITHM *all = OSSL_PROVIDER_query_operation(real.provider, operation, no_cache);
    for (size_t i = 0; all && i < G_N_ELEMENTS(shortened); i++) {
        if (shortened[i].operation != operation)
            continue;
        if (lists[i])
            return lists[i];
        size_t n = 0, k = 0;
        while (all[n].algorithm_names)
            n++;
        lists[i] = g_new0(OSSL_ALGORITHM, n + 1); /* the last one ends it */
        for (size_t j = 0; j < n; j++)
            if (passes(&shortened[i], &all[j]))
                lists[i][k++] = all[j];
        return lists[i];
    }
    return all;
}

static const OSSL_PARAM *gettable(void *provctx)
{
    return OSSL_PROVIDER_gettable_params(real.provider);
}

static int get(void *provctx, OSSL_PARAM params[])
{
    return OSSL_PROVIDER_get_params(real.provider, params);
}

/* TLS groups. */
static int capabilities(void *provctx, const char *capability, OSSL_CALLBACK *cb, void *arg)
{
    return OSSL_PROVIDER_get_capabilities(real.provider, capability, cb, arg);
}

static int init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx)
{
    static const OSSL_DISPATCH table[] = {
        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
        {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable},
        {OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get},
        {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities},
        {0, NULL},
    };
    *out = table;
    *provctx = OSSL_PROVIDER_get0_provider_ctx(real.provider);
    return 1;
}

/* The real provider has random generators of its own, which are started here as those of the default context are. */
static bool load_real(void)
{
    uint8_t byte;
    real.ctx = OSSL_LIB_CTX_new();
    real.provider = real.ctx ? OSSL_PROVIDER_load(real.ctx, "default") : NULL;
    return real.provider && RAND_bytes_ex(real.ctx, &byte, 1, 0) == 1 && RAND_priv_bytes_ex(real.ctx, &byte, 1, 0) == 1;
}

bool sm_tls_provider_load(void)
{
    static OSSL_PROVIDER *loaded;
    if (loaded)
        return true;
    if (OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2 && load_real() &&
        OSSL_PROVIDER_add_builtin(NULL, NAME, init) == 1)
        loaded = OSSL_PROVIDER_load(NULL, NAME);
    if (!loaded)
        loaded = OSSL_PROVIDER_load(NULL, "default");
    return loaded != NULL;
}
