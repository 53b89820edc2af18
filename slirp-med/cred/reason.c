/* SPDX-License-Identifier: BSD-3-Clause */
/* The names of the reasons; see reason.h. */
#include "cred/reason.h"

#include <string.h>

static const char *const names[] = {
    [SM_CRED_OK] = "none",
    [SM_CRED_REF_MISSING] = "ref_missing",
    [SM_CRED_REF_EMPTY] = "ref_empty",
    [SM_CRED_REF_TOO_LARGE] = "ref_too_large",
    [SM_CRED_REF_NOT_A_FILE] = "ref_not_a_file",
    [SM_CRED_REF_OWNER] = "ref_owner",
    [SM_CRED_REF_MODE] = "ref_mode",
    [SM_CRED_REF_UNREADABLE] = "ref_unreadable",
    [SM_CRED_VALUE_EMPTY] = "value_empty",
    [SM_CRED_VALUE_TOO_LARGE] = "value_too_large",
    [SM_CRED_VALUE_INVALID] = "value_invalid",
    [SM_CRED_SIGNING_KEY] = "signing_key_invalid",
    [SM_CRED_SIGNING] = "signing_failed",
    [SM_CRED_ENDPOINT_UNREACHABLE] = "endpoint_unreachable",
    [SM_CRED_ENDPOINT_DENIED] = "endpoint_denied",
    [SM_CRED_ENDPOINT_TLS] = "endpoint_tls",
    [SM_CRED_ENDPOINT_TIMEOUT] = "endpoint_timeout",
    [SM_CRED_FETCH_HELPER] = "fetch_helper",
    [SM_CRED_FETCH_BUSY] = "fetch_busy",
    [SM_CRED_NOT_RECORDED] = "not_recorded",
    [SM_CRED_ENDPOINT_REDIRECT] = "endpoint_redirect",
    [SM_CRED_TOKEN_STATUS] = "token_endpoint_status",
    [SM_CRED_TOKEN_RESPONSE_TYPE] = "token_response_type",
    [SM_CRED_TOKEN_RESPONSE_TOO_LARGE] = "token_response_too_large",
    [SM_CRED_TOKEN_RESPONSE_MALFORMED] = "token_response_malformed",
    [SM_CRED_TOKEN_MISSING] = "token_missing",
    [SM_CRED_TOKEN_INVALID] = "token_invalid",
    [SM_CRED_TOKEN_TYPE] = "token_type_unsupported",
    [SM_CRED_TOKEN_EXPIRY] = "token_expiry_invalid",
    [SM_CRED_TOKEN_TOO_SHORT] = "token_too_short_lived",
    [SM_CRED_VAULT_STATUS] = "vault_status",
    [SM_CRED_VAULT_DENIED] = "vault_denied",
    [SM_CRED_VAULT_NOT_FOUND] = "vault_not_found",
    [SM_CRED_VAULT_SEALED] = "vault_sealed",
    [SM_CRED_VAULT_RESPONSE_TYPE] = "vault_response_type",
    [SM_CRED_VAULT_RESPONSE_TOO_LARGE] = "vault_response_too_large",
    [SM_CRED_VAULT_RESPONSE_MALFORMED] = "vault_response_malformed",
    [SM_CRED_VAULT_FIELD_MISSING] = "vault_field_missing",
    [SM_CRED_VAULT_FIELD_INVALID] = "vault_field_invalid",
};
SM_NAME_TABLE_COVERS(names, SM_CRED_REASONS);

const char *sm_cred_reason_name(enum sm_cred_reason reason)
{
    return (unsigned)reason < SM_CRED_REASONS ? names[reason] : "?";
}

enum sm_cred_reason sm_cred_reason_parse(const char *name, enum sm_cred_reason fallback)
{
    for (unsigned i = 1; i < SM_CRED_REASONS; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum sm_cred_reason)i;
    return fallback;
}
