/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a secret as it lies somewhere (a variable, a file, a field of Vault, a token) to the value of a header.
 *
 * Two steps, because not every secret becomes a header: a signing key and a client's secret are cleaned only.
 *   sm_cred_value_clean()   what is a secret at all: one line end at its end is the editor's and is dropped; not empty,
 *                           no NUL, bounded
 *   sm_cred_value_header()  the format ("Bearer {key}") around it; now every byte must be one that may stand in a
 *                           field's value
 *
 * A field's value here is visible ASCII, and blanks that are not at its ends (RFC 9110 5.5 without tabs and obs-text,
 * which "should be limited to US-ASCII"; RFC 6749 appendix A.12 says the same for a token): a CR, LF or NUL would end
 * the header and begin another.
 */
#ifndef SM_CRED_VALUE_H
#define SM_CRED_VALUE_H

#include <glib.h>

#include "base/defs.h"
#include "base/secret.h"
#include "cred/reason.h"

/** A secret at its longest: an RSA key of 16384 bits in PEM is 13 KiB; beyond this a reference names the wrong file. */
#define SM_CRED_SECRET_MAX 65536
/** What is put into a header at its longest, a token or a key: servers refuse heads of 8 to 64 KiB. */
#define SM_CRED_TOKEN_MAX 16384
/** A format is a scheme word and a few letters. */
#define SM_CRED_FORMAT_MAX 256

/** sm_cred_value_ok() - may these bytes stand in a field's value? Not empty, 0x20..0x7e, no blank at either end. */
bool sm_cred_value_ok(const void *bytes, size_t len);

/** sm_cred_value_clean() - @raw stays the caller's. OK: *ret is a new secret. Otherwise *ret is untouched. */
enum sm_cred_reason sm_cred_value_clean(const struct sm_secret *raw, struct sm_secret **ret);

/**
 * sm_cred_format_check() - is @format one for @slot ("{key}" or "{token}")? The slot is there exactly once, the other
 * one is not, and the rest may stand in a field's value. The error quotes nothing of the format: an operator may have
 * written a secret there.
 */
bool sm_cred_format_check(const char *format, const char *slot, GError **error) SM_WARN_UNUSED;

/**
 * sm_cred_value_header() - @format with @secret in its @slot, both good by sm_cred_format_check().
 * OK: *ret is a new secret, without NUL at its end. Otherwise *ret is untouched.
 */
enum sm_cred_reason sm_cred_value_header(const struct sm_secret *secret, const char *format, const char *slot,
                                         struct sm_secret **ret);

#endif
