/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The workspace's certificate authority and the leaves that it signs.
 *
 * One ECDSA P-256 CA a run, one P-256 leaf key a run, a bounded least-recently-used table of leaves by name, and a
 * bounded minting rate: a guest that asks for ever new names gets its leaves at SM_TLS_MINT_PER_SECOND and nobody else
 * waits for the signatures. Time is an argument: wall clock for what stands in a certificate, monotonic for the rate.
 * The private keys never leave this module except for sm_tls_ca_key_pem(), which the core writes to the workspace's
 * folder.
 *
 * Profile of a leaf (what strict verifiers want: RFC 5280 4.2, CA/B baseline, Python's VERIFY_X509_STRICT): version 3,
 * random positive 128-bit serial, one subjectAltName (dNSName, iPAddress or both; critical when the subject is empty),
 * basicConstraints CA:FALSE, keyUsage digitalSignature (critical), extKeyUsage serverAuth, subjectKeyIdentifier,
 * authorityKeyIdentifier; notBefore backdated by a day against guests with a slow clock, life SM_TLS_LEAF_DAYS. The
 * CA: basicConstraints critical CA:TRUE pathlen 0, keyUsage critical keyCertSign and cRLSign, SKI, AKI.
 * ecdsa-with-SHA256 everywhere.
 *
 * Not thread-safe: one loop owns it. Errors: GError SM_ERROR_SYSTEM (no randomness, no memory), SM_ERROR_INVALID (a
 * PEM that is none).
 */
#ifndef SM_TLS_CA_H
#define SM_TLS_CA_H

#include <glib.h>
#include <openssl/ssl.h>

#include "base/addr.h"
#include "base/defs.h"
#include "base/secret.h"

/** Leaves kept. Each is some 3 KiB; a busy agent speaks with a few hundred names. */
#define SM_TLS_LEAVES_MAX 1024
/**
 * Signatures a second and how many may be saved up: a mint costs some 200 us, so a flood costs at most 4 % of a core.
 */
#define SM_TLS_MINT_PER_SECOND 200
#define SM_TLS_MINT_BURST 200
/** Life of a leaf and of the CA. Under the 398 days that Apple and Chromium take at most; longer than any run. */
#define SM_TLS_LEAF_DAYS 90
#define SM_TLS_CA_DAYS 365

/** What a CA that is used again must have left: a workspace that starts now is to end before its CA does. */
#define SM_TLS_CA_LEFT_DAYS 7
/** Its files, with room: ours have some 800 and 250 bytes. */
#define SM_TLS_CA_CERT_PEM_MAX 4096
#define SM_TLS_CA_KEY_PEM_MAX 1024
#define SM_TLS_FINGERPRINT_STRLEN 65

struct sm_tls_ca;

/**
 * sm_tls_ca_new() - a fresh CA. @workspace: goes into the subject ("slirp-med CA" and the name), valid as in
 * audit/event.h.
 */
struct sm_tls_ca *sm_tls_ca_new(const char *workspace, int64_t wall_us, GError **error);
/**
 * sm_tls_ca_load() - the CA of a snapshot, or one that was kept. cert_pem must be the certificate as sm_tls_ca_cert_pem() gives it and
 * nothing else: the guest gets the whole file, and would trust what else stood in it.
 */
struct sm_tls_ca *sm_tls_ca_load(const char *cert_pem, const struct sm_secret *key_pem, GError **error);
void sm_tls_ca_free(struct sm_tls_ca *ca);

/** sm_tls_ca_cert_pem() - text, owned by the CA. */
const char *sm_tls_ca_cert_pem(const struct sm_tls_ca *ca);
/** sm_tls_ca_key_pem() - PKCS#8 PEM; the caller frees it with sm_secret_free(). NULL when there is no memory. */
struct sm_secret *sm_tls_ca_key_pem(const struct sm_tls_ca *ca);
/**
 * sm_tls_ca_lasts() - is the time inside the CA's life, with SM_TLS_CA_LEFT_DAYS left? False with error: SM_ERROR_INVALID.
 */
bool sm_tls_ca_lasts(const struct sm_tls_ca *ca, int64_t wall_us, GError **error) SM_WARN_UNUSED;
/** sm_tls_ca_fingerprint() - SHA-256 of the certificate, 64 lower-case hex digits and NUL. */
void sm_tls_ca_fingerprint(const struct sm_tls_ca *ca, char out[SM_TLS_FINGERPRINT_STRLEN]);
/** sm_tls_ca_subject_hash() - the name under which OpenSSL looks for it in a folder of certificates: 8 lower-case hex digits and NUL.
 * False: not known. */
bool sm_tls_ca_subject_hash(const struct sm_tls_ca *ca, char out[9]) SM_WARN_UNUSED;

enum sm_tls_leaf_status {
    SM_TLS_LEAF_OK,
    SM_TLS_LEAF_LATER, /* over the rate: ask again at *ret_at_us */
    SM_TLS_LEAF_FAILED,
    SM_TLS_LEAF_STATUS_COUNT
};

/**
 * sm_tls_ca_leaf() - the leaf for a name, an address, or both (a guest that sent no SNI may check either), from the table or freshly signed.
 * @name: canonical DNS name, or NULL. @addr: the address, or NULL. One of them at least.
 * @now_us: monotonic; @wall_us: CLOCK_REALTIME. A leaf with less than a day left is signed anew, unless the CA itself
 * ends then.
 * @ret_cert: a new reference (X509_free()).
 */
enum sm_tls_leaf_status sm_tls_ca_leaf(struct sm_tls_ca *ca, const char *name, const struct sm_addr *addr,
                                       int64_t now_us, int64_t wall_us, X509 **ret_cert, int64_t *ret_at_us);
/** Leaves held, and signatures made since the start: for tests. */
size_t sm_tls_ca_leaves(const struct sm_tls_ca *ca);
uint64_t sm_tls_ca_minted(const struct sm_tls_ca *ca);

#endif
