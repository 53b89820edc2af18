/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * OpenSSL's start. The core opens no file once its sandbox is closed (SIGSYS), so all that OpenSSL or the C library
 * would read on first use is read, or ruled out, here:
 *
 *   openssl.cnf        never read: what this module needs it sets itself, and a distribution's edits are not to
 *                      change our policy
 *   providers          the default one, which is built in, or the part of it that provider.c passes on; algorithms are
 *                      then fetched from memory at any time
 *   names of ciphers   none but the provider's: OpenSSL would add those of its own 130, and walks over all names that
 *                      there are several times a handshake
 *   randomness         getrandom(2) alone; the first draw here shows that it works, so that no device is looked for
 *                      later
 *   /etc/localtime     gmtime_r() of the C library, which every certificate's date goes through, reads it once a
 *                      process
 *   trust, tickets     no default verify paths are ever set, and session tickets to guests do not exist
 */
#include <openssl/err.h>
#include <openssl/rand.h>
#include <time.h>

#include "base/error.h"
#include "tls/internal.h"

bool sm_tls_library_init(GError **error)
{
    static bool done;
    uint8_t byte;
    struct tm tm;

    if (done)
        return true;
    tzset();
    (void)gmtime_r(&(const time_t){0}, &tm);
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ADD_ALL_CIPHERS, NULL) != 1 ||
        OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
                             OPENSSL_INIT_LOAD_CRYPTO_STRINGS | OPENSSL_INIT_ADD_ALL_DIGESTS,
                         NULL) != 1 ||
        !sm_tls_provider_load() || RAND_bytes(&byte, 1) != 1 || RAND_priv_bytes(&byte, 1) != 1) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "OpenSSL cannot be initialised");
        return false;
    }
    ERR_clear_error();
    done = true;
    return true;
}

bool sm_tls_ctx_common(SSL_CTX *ctx)
{
    /*
     * Not needed where a peer follows its protocol, and no gain where it does not: compression (CRIME),
     * renegotiation, tickets.
     */
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_security_level(ctx, 2);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384:P-521") == 1;
}

int64_t sm_tls_time_us(const ASN1_TIME *t)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return INT64_MIN;
    return (int64_t)timegm(&tm) * 1000000;
}
