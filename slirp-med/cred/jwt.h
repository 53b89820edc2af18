/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Signing JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, with RS256, ES256 (RFC 7518 3.3, 3.4) or EdDSA on
 * Ed25519 (RFC 8037). Signing only: no token is ever read here.
 *
 * The key comes as PEM (PKCS#8, PKCS#1, SEC 1), not encrypted, one private key in it; certificates and parameters
 * around it are passed over. It must be one for the algorithm: RSA of 2048 to SM_JWT_RSA_BITS_MAX bits, EC on P-256,
 * Ed25519. It is read once, when it is loaded, and its two halves are tried against each other then, so that a wrong
 * key is a message at start and not a 401 later.
 *
 * The header is {"alg", "typ": "JWT"} and "kid" when configured. The claims are the configuration's, in its order,
 * followed by our own iat (now), exp (iat + ttl) and jti (128 random bits): a configuration that has one of these is an
 * error. iat is not dated back: some issuers limit exp - iat to exactly what is asked for. A token is a secret.
 *
 * The PEM is read in place and what is decoded here is wiped; but OpenSSL 3.0's PEM reader and decoders free copies of
 * their own without wiping them. They lie in the same heap as the key itself, which has to live as long as its entry:
 * what protects both is that the process is not dumpable. Claims and tokens leave no copy
 * (tests/unit/cred/test_wipe.c).
 *
 * Errors: GError SM_ERROR_INVALID (key, claims: the user's fault), SM_ERROR_LIMIT, SM_ERROR_SYSTEM (OpenSSL failed).
 * They hold nothing of the key, and nothing of the claims but the name of a forbidden one.
 */
#ifndef SM_CRED_JWT_H
#define SM_CRED_JWT_H

#include <glib.h>
#include <jansson.h>

#include "base/defs.h"
#include "base/secret.h"

/**
 * Under 2048 bits is forbidden for RS256 (RFC 7518 3.3); a signature with 8192 takes some 30 ms of the core's one
 * thread, more would stall it.
 */
#define SM_JWT_RSA_BITS_MIN 2048
#define SM_JWT_RSA_BITS_MAX 8192
/** Claims in text: with header and the longest signature the token stays under SM_CRED_TOKEN_MAX. */
#define SM_JWT_CLAIMS_MAX 8192
#define SM_JWT_KID_MAX 256
/** A token that we sign ourselves need never live longer than a day. */
#define SM_JWT_TTL_MAX_S 86400

enum sm_jwt_alg { SM_JWT_RS256, SM_JWT_ES256, SM_JWT_EDDSA, SM_JWT_ALGS };
/** sm_jwt_alg_name() - "RS256", "ES256", "EdDSA"; sm_jwt_alg_parse() - exactly these. */
const char *sm_jwt_alg_name(enum sm_jwt_alg alg);
bool sm_jwt_alg_parse(const char *name, enum sm_jwt_alg *ret) SM_WARN_UNUSED;

struct sm_jwt_key;

/** sm_jwt_key_load() - @pem stays the caller's. NULL with error. */
struct sm_jwt_key *sm_jwt_key_load(enum sm_jwt_alg alg, const struct sm_secret *pem, GError **error);
void sm_jwt_key_free(struct sm_jwt_key *key);
static inline void sm_jwt_key_freep(struct sm_jwt_key **key)
{
    sm_jwt_key_free(*key);
}

/**
 * sm_jwt_claims_check() - at load: an object without iat, exp and jti, at most SM_JWT_CLAIMS_MAX in text. NULL is fine:
 * no claims.
 */
bool sm_jwt_claims_check(const json_t *claims, GError **error) SM_WARN_UNUSED;

/**
 * sm_jwt_sign() - a token.
 * @kid: NULL for none. @claims: NULL for none, else good by sm_jwt_claims_check(), which is asked again. @wall_us:
 * CLOCK_REALTIME.
 * @ttl_s: 1..SM_JWT_TTL_MAX_S.
 * Return: the caller frees it; NULL with error.
 */
struct sm_secret *sm_jwt_sign(const struct sm_jwt_key *key, const char *kid, const json_t *claims, int64_t wall_us,
                              uint32_t ttl_s, GError **error);

/**
 * sm_jws_sign() - the same around any header and payload, as they are:
 * BASE64URL(header).BASE64URL(payload).BASE64URL(signature).
 */
struct sm_secret *sm_jws_sign(const struct sm_jwt_key *key, const void *header, size_t header_len, const void *payload,
                              size_t payload_len, GError **error);

#endif
