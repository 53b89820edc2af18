/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a credential cannot be had: the words of `egress_swap_error` and of the 502 page that the guest gets. One list
 * for all strategies and references. A word says what went wrong and never holds a byte of a secret or of a peer's
 * answer.
 */
#ifndef SM_CRED_REASON_H
#define SM_CRED_REASON_H

#include "base/defs.h"

enum sm_cred_reason {
    SM_CRED_OK = 0,
    /* what a reference names (supervisor/refs.h has the same words) */
    SM_CRED_REF_MISSING,
    SM_CRED_REF_EMPTY,
    SM_CRED_REF_TOO_LARGE,
    SM_CRED_REF_NOT_A_FILE,
    SM_CRED_REF_OWNER, /* neither the launcher's user nor root */
    SM_CRED_REF_MODE,  /* group or others have any right to it */
    SM_CRED_REF_UNREADABLE,
    /* the secret itself (value.h) */
    SM_CRED_VALUE_EMPTY,
    SM_CRED_VALUE_TOO_LARGE,
    SM_CRED_VALUE_INVALID, /* a byte that cannot stand in a header's value */
    /* signing (jwt.h) */
    SM_CRED_SIGNING_KEY, /* not a key for the algorithm */
    SM_CRED_SIGNING,     /* OpenSSL or the claims: no token came out */
    /* getting an answer at all; found by whoever does the transfer */
    SM_CRED_ENDPOINT_UNREACHABLE, /* name, connection, reset */
    SM_CRED_ENDPOINT_DENIED,      /* its address is inside */
    SM_CRED_ENDPOINT_TLS,
    SM_CRED_ENDPOINT_TIMEOUT,
    SM_CRED_FETCH_HELPER,      /* the helper, or libcurl, cannot be started, or it died */
    SM_CRED_FETCH_BUSY,        /* too many wait */
    SM_CRED_NOT_RECORDED,      /* the audit log cannot be written */
    SM_CRED_ENDPOINT_REDIRECT, /* 3xx: never followed, the next host is not the operator's choice */
    /* the token endpoint's answer (token.h) */
    SM_CRED_TOKEN_STATUS,
    SM_CRED_TOKEN_RESPONSE_TYPE,
    SM_CRED_TOKEN_RESPONSE_TOO_LARGE,
    SM_CRED_TOKEN_RESPONSE_MALFORMED,
    SM_CRED_TOKEN_MISSING,
    SM_CRED_TOKEN_INVALID, /* empty, too long, or not for a header's value */
    SM_CRED_TOKEN_TYPE,
    SM_CRED_TOKEN_EXPIRY,    /* expires_in is no number of seconds */
    SM_CRED_TOKEN_TOO_SHORT, /* over before it could be used (cache.h) */
    /* Vault's answer (vault.h) */
    SM_CRED_VAULT_STATUS,
    SM_CRED_VAULT_DENIED,    /* 403 */
    SM_CRED_VAULT_NOT_FOUND, /* 404; a deleted version too */
    SM_CRED_VAULT_SEALED,    /* 503; in maintenance too */
    SM_CRED_VAULT_RESPONSE_TYPE,
    SM_CRED_VAULT_RESPONSE_TOO_LARGE,
    SM_CRED_VAULT_RESPONSE_MALFORMED,
    SM_CRED_VAULT_FIELD_MISSING,
    SM_CRED_VAULT_FIELD_INVALID, /* no text, empty, too long */
    SM_CRED_REASONS
};

/** sm_cred_reason_name() - "token_missing"; "none" for OK. */
const char *sm_cred_reason_name(enum sm_cred_reason reason);
/** sm_cred_reason_parse() - the reason of a name; @fallback when there is none. */
enum sm_cred_reason sm_cred_reason_parse(const char *name, enum sm_cred_reason fallback);

#endif
