/* SPDX-License-Identifier: BSD-3-Clause */
/* Failures: OpenSSL's many words for them turned into our few, and ours into the alert that a guest gets. */
#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <openssl/x509_vfy.h>
#include <string.h>

#include "base/error.h"
#include "tls/internal.h"

static const char *const io_names[] = {
    [SM_TLS_IO_OK] = "ok",
    [SM_TLS_IO_WANT_READ] = "want_read",
    [SM_TLS_IO_WANT_WRITE] = "want_write",
    [SM_TLS_IO_EOF] = "eof",
    [SM_TLS_IO_CUT] = "cut",
    [SM_TLS_IO_ERROR] = "error",
};
SM_NAME_TABLE_COVERS(io_names, SM_TLS_IO_COUNT);

static const char *const failure_names[] = {
    [SM_TLS_FAILURE_NONE] = "none",
    [SM_TLS_FAILURE_EXPIRED] = "certificate_expired",
    [SM_TLS_FAILURE_NOT_YET_VALID] = "certificate_not_yet_valid",
    [SM_TLS_FAILURE_NAME_MISMATCH] = "certificate_name_mismatch",
    [SM_TLS_FAILURE_SELF_SIGNED] = "certificate_self_signed",
    [SM_TLS_FAILURE_UNKNOWN_ISSUER] = "certificate_unknown_issuer",
    [SM_TLS_FAILURE_WEAK] = "certificate_weak",
    [SM_TLS_FAILURE_NAME_CONSTRAINT] = "certificate_name_constraint",
    [SM_TLS_FAILURE_REVOKED] = "certificate_revoked",
    [SM_TLS_FAILURE_PURPOSE] = "certificate_purpose",
    [SM_TLS_FAILURE_CERTIFICATE] = "certificate_invalid",
    [SM_TLS_FAILURE_CLIENT_CERTIFICATE] = "client_certificate_required",
    [SM_TLS_FAILURE_VERSION] = "tls_version",
    [SM_TLS_FAILURE_ALERT] = "peer_alert",
    [SM_TLS_FAILURE_PROTOCOL] = "tls_protocol_error",
    [SM_TLS_FAILURE_CLOSED] = "closed_in_handshake",
    [SM_TLS_FAILURE_RESET] = "reset",
    [SM_TLS_FAILURE_RENAMED] = "hello_changed",
    [SM_TLS_FAILURE_RESOURCES] = "out_of_resources",
};
SM_NAME_TABLE_COVERS(failure_names, SM_TLS_FAILURE_COUNT);

const char *sm_tls_io_name(enum sm_tls_io io)
{
    return (unsigned)io < SM_TLS_IO_COUNT ? io_names[io] : "?";
}

const char *sm_tls_failure_name(enum sm_tls_failure failure)
{
    return (unsigned)failure < SM_TLS_FAILURE_COUNT ? failure_names[failure] : "?";
}

/* RFC 8446 6.2, with the names that only RFC 5246 7.2 has. */
static const struct {
    uint8_t alert;
    const char *name;
} alert_names[] = {
    {0, "close_notify"},
    {10, "unexpected_message"},
    {20, "bad_record_mac"},
    {21, "decryption_failed"},
    {22, "record_overflow"},
    {30, "decompression_failure"},
    {40, "handshake_failure"},
    {41, "no_certificate"},
    {42, "bad_certificate"},
    {43, "unsupported_certificate"},
    {44, "certificate_revoked"},
    {45, "certificate_expired"},
    {46, "certificate_unknown"},
    {47, "illegal_parameter"},
    {48, "unknown_ca"},
    {49, "access_denied"},
    {50, "decode_error"},
    {51, "decrypt_error"},
    {60, "export_restriction"},
    {70, "protocol_version"},
    {71, "insufficient_security"},
    {80, "internal_error"},
    {86, "inappropriate_fallback"},
    {90, "user_canceled"},
    {100, "no_renegotiation"},
    {109, "missing_extension"},
    {110, "unsupported_extension"},
    {111, "certificate_unobtainable"},
    {112, "unrecognized_name"},
    {113, "bad_certificate_status_response"},
    {114, "bad_certificate_hash_value"},
    {115, "unknown_psk_identity"},
    {116, "certificate_required"},
    {120, "no_application_protocol"},
    {121, "ech_required"},
};

const char *sm_tls_alert_name(int alert)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(alert_names); i++)
        if (alert_names[i].alert == alert)
            return alert_names[i].name;
    return "unknown_alert";
}

void sm_tls_alert_for(enum sm_tls_failure failure, uint8_t out[7])
{
    uint8_t alert = SSL_AD_INTERNAL_ERROR;
    switch (failure) {
    case SM_TLS_FAILURE_EXPIRED:
    case SM_TLS_FAILURE_NOT_YET_VALID:
        alert = SSL_AD_CERTIFICATE_EXPIRED;
        break;
    case SM_TLS_FAILURE_SELF_SIGNED:
    case SM_TLS_FAILURE_UNKNOWN_ISSUER:
        alert = SSL_AD_UNKNOWN_CA;
        break;
    case SM_TLS_FAILURE_NAME_MISMATCH:
    case SM_TLS_FAILURE_WEAK:
    case SM_TLS_FAILURE_NAME_CONSTRAINT:
    case SM_TLS_FAILURE_CERTIFICATE:
        alert = SSL_AD_BAD_CERTIFICATE;
        break;
    case SM_TLS_FAILURE_REVOKED:
        alert = SSL_AD_CERTIFICATE_REVOKED;
        break;
    case SM_TLS_FAILURE_PURPOSE:
        alert = SSL_AD_UNSUPPORTED_CERTIFICATE;
        break;
    case SM_TLS_FAILURE_CLIENT_CERTIFICATE:
        alert = SSL_AD_CERTIFICATE_REQUIRED;
        break;
    case SM_TLS_FAILURE_VERSION:
        alert = SSL_AD_PROTOCOL_VERSION;
        break;
    case SM_TLS_FAILURE_ALERT:
        alert = SSL_AD_HANDSHAKE_FAILURE;
        break;
    case SM_TLS_FAILURE_RENAMED:
        alert = SSL_AD_UNRECOGNIZED_NAME;
        break;
    case SM_TLS_FAILURE_NONE:
    case SM_TLS_FAILURE_PROTOCOL:
    case SM_TLS_FAILURE_CLOSED:
    case SM_TLS_FAILURE_RESET:
    case SM_TLS_FAILURE_RESOURCES:
    case SM_TLS_FAILURE_COUNT:
        break;
    }
    /* type alert, version 1.2 (what every client takes before a ServerHello), two bytes, fatal */
    memcpy(out, ((const uint8_t[]){21, 3, 3, 0, 2, SSL3_AL_FATAL, alert}), 7);
}

enum sm_tls_failure sm_tls_failure_of_verify(long result)
{
    static const struct {
        int result;
        enum sm_tls_failure failure;
    } table[] = {
        {X509_V_ERR_CERT_HAS_EXPIRED, SM_TLS_FAILURE_EXPIRED},
        {X509_V_ERR_CERT_NOT_YET_VALID, SM_TLS_FAILURE_NOT_YET_VALID},
        {X509_V_ERR_HOSTNAME_MISMATCH, SM_TLS_FAILURE_NAME_MISMATCH},
        {X509_V_ERR_IP_ADDRESS_MISMATCH, SM_TLS_FAILURE_NAME_MISMATCH},
        {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, SM_TLS_FAILURE_SELF_SIGNED},
        {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, SM_TLS_FAILURE_SELF_SIGNED},
        {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, SM_TLS_FAILURE_UNKNOWN_ISSUER},
        {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, SM_TLS_FAILURE_UNKNOWN_ISSUER},
        {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, SM_TLS_FAILURE_UNKNOWN_ISSUER},
        {X509_V_ERR_EE_KEY_TOO_SMALL, SM_TLS_FAILURE_WEAK},
        {X509_V_ERR_CA_KEY_TOO_SMALL, SM_TLS_FAILURE_WEAK},
        {X509_V_ERR_CA_MD_TOO_WEAK, SM_TLS_FAILURE_WEAK},
        {X509_V_ERR_PERMITTED_VIOLATION, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_EXCLUDED_VIOLATION, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_SUBTREE_MINMAX, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_UNSUPPORTED_NAME_SYNTAX, SM_TLS_FAILURE_NAME_CONSTRAINT},
        {X509_V_ERR_CERT_REVOKED, SM_TLS_FAILURE_REVOKED},
        {X509_V_ERR_INVALID_PURPOSE, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_INVALID_CA, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_NO_ISSUER_PUBLIC_KEY, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_PATH_LENGTH_EXCEEDED, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_KEYUSAGE_NO_CERTSIGN, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_CERT_UNTRUSTED, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_CERT_REJECTED, SM_TLS_FAILURE_PURPOSE},
        {X509_V_ERR_OUT_OF_MEM, SM_TLS_FAILURE_RESOURCES},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(table); i++)
        if (table[i].result == result)
            return table[i].failure;
    return SM_TLS_FAILURE_CERTIFICATE;
}

enum sm_tls_failure sm_tls_failure_of_error(unsigned long error)
{
    if (ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE)
        return SM_TLS_FAILURE_RESOURCES;
    if (ERR_GET_LIB(error) != ERR_LIB_SSL)
        return SM_TLS_FAILURE_PROTOCOL;
    static const struct {
        int reason;
        enum sm_tls_failure failure;
    } table[] = {
        {SSL_R_UNSUPPORTED_PROTOCOL, SM_TLS_FAILURE_VERSION},   {SSL_R_UNSUPPORTED_SSL_VERSION, SM_TLS_FAILURE_VERSION},
        {SSL_R_WRONG_SSL_VERSION, SM_TLS_FAILURE_VERSION},      {SSL_R_VERSION_TOO_LOW, SM_TLS_FAILURE_VERSION},
        {SSL_R_VERSION_TOO_HIGH, SM_TLS_FAILURE_VERSION},       {SSL_R_NO_PROTOCOLS_AVAILABLE, SM_TLS_FAILURE_VERSION},
        {SSL_R_INAPPROPRIATE_FALLBACK, SM_TLS_FAILURE_VERSION}, {SSL_R_EE_KEY_TOO_SMALL, SM_TLS_FAILURE_WEAK},
        {SSL_R_CA_KEY_TOO_SMALL, SM_TLS_FAILURE_WEAK},          {SSL_R_CA_MD_TOO_WEAK, SM_TLS_FAILURE_WEAK},
        {SSL_R_DH_KEY_TOO_SMALL, SM_TLS_FAILURE_WEAK},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(table); i++)
        if (table[i].reason == ERR_GET_REASON(error))
            return table[i].failure;
    return SM_TLS_FAILURE_PROTOCOL;
}

void sm_tls_set_error(GError **error, enum sm_error_code code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    sm_error_set(error, code, "%s: %s", what, reason ? reason : "out of memory or randomness");
    ERR_clear_error();
}
