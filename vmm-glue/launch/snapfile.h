/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A snapshot as bytes. docs/SNAPSHOT.md is the format's description; in short:
 *
 *   slirp-med-snapshot 1 KEYID LENGTH KEYLENGTH\n      one line of ASCII, at most SM_SNAPSHOT_HEAD_MAX bytes
 *   JSON                                               LENGTH bytes, one object
 *   \n
 *   the CA's private key                               KEYLENGTH bytes of PEM, 0: there is no CA
 *   64 hex digits\n                                    HMAC-SHA256 over all that stands before them
 *
 * The key of the HMAC is the operator's (snapkey.h); KEYID tells one from another. Nothing behind the first line is looked at before the HMAC
 * is right; a file that is longer or shorter than the first line says is refused. After that each field is checked all the same: the
 * program that wrote it may have been another one. The CA's key stands outside the JSON so that no parser copies it.
 *
 * Pure: no file, no clock. Errors: SM_ERROR_INVALID, SM_ERROR_LIMIT; they name the field, and not the file.
 */
#ifndef SM_LAUNCH_SNAPFILE_H
#define SM_LAUNCH_SNAPFILE_H

#include <glib.h>
#include <jansson.h>

#include "base/secret.h"
#include "core/caps.h"
#include "tls/ca.h"

#define SM_SNAPSHOT_VERSION 1
#define SM_SNAPSHOT_HEAD_MAX 128
/** Lists of 100,000 entries are 26 MiB, 16,384 pins 6 MiB, settings 4 MiB; twice that is no snapshot. */
#define SM_SNAPSHOT_FILE_MAX (64u << 20)
/** HMAC-SHA256 with a key of its own length (RFC 2104 3). */
#define SM_SNAPSHOT_KEY_BYTES 32
#define SM_SNAPSHOT_ID_STRLEN 33

struct sm_snapshot {
    char id[SM_SNAPSHOT_ID_STRLEN]; /* 128 random bits: what a restored workspace remembers */
    char *created;                  /* RFC 3339 */
    char *program;                  /* version of the slirp-med that wrote it */
    char *workspace;
    json_t *settings; /* as settings.json (settings.h, which checks it) */
    json_t *
        policy; /* {allow, passthrough}: arrays of canonical entries, those that were in force; NULL: mode off, or no network */
    uint64_t counters[SM_CAPS_DIRS];
    json_t *pins;                              /* core/carry.h */
    char *ca_cert;                             /* PEM; NULL: there is no CA */
    struct sm_secret *ca_key;                  /* PEM */
    char ca_sha256[SM_TLS_FINGERPRINT_STRLEN]; /* "": no CA */
};

/** sm_snapshot_clear() - fit for sm_cleanup(); a zeroed struct is empty. */
void sm_snapshot_clear(struct sm_snapshot *s);

/** sm_snapshot_encode() - the whole file. @key: SM_SNAPSHOT_KEY_BYTES. NULL with error set: too large. */
struct sm_secret *sm_snapshot_encode(const struct sm_snapshot *s, const struct sm_secret *key, GError **error);
/**
 * sm_snapshot_decode() - the whole file, and every rule of its contents but two: whether the settings are right (sm_settings_parse()), and
 * whether the CA's life goes on (sm_tls_ca_lasts()). False with error set, and *ret untouched.
 */
bool sm_snapshot_decode(const uint8_t *data, size_t len, const struct sm_secret *key, struct sm_snapshot *ret,
                        GError **error) SM_WARN_UNUSED;

#endif
