/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the CA's certificate and its leaves look like, field by field. Which leaves there are and how fast they may be
 * made is leaves.c.
 *
 * Key identifiers are the first 160 bits of the SHA-256 of the public key (RFC 7093 2, method 1). Extensions are added
 * as structures, not as text in OpenSSL's configuration language: a name from outside never meets a parser of ours or
 * theirs.
 */
#include "tls/ca.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/error.h"
#include "tls/internal.h"

#define SECOND_US INT64_C(1000000)
#define DAY_US (86400 * SECOND_US)
#define SERIAL_BYTES 16
#define KEY_ID_BYTES 20
/** ub-common-name, RFC 5280 appendix A. */
#define CN_MAX 64

G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509, X509_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free_all)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(X509_NAME, X509_NAME_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GENERAL_NAMES, GENERAL_NAMES_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ASN1_OCTET_STRING, ASN1_OCTET_STRING_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ASN1_BIT_STRING, ASN1_BIT_STRING_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AUTHORITY_KEYID, AUTHORITY_KEYID_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIGNUM, BN_free)

static EVP_PKEY *new_key(void)
{
    return EVP_EC_gen("P-256");
}

/* 128 random bits, positive; zero, which RFC 5280 4.1.2.2 forbids, becomes one. */
static bool set_serial(X509 *cert)
{
    uint8_t bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    g_autoptr(BIGNUM) n = BN_bin2bn(bytes, sizeof(bytes), NULL);
    if (!n || (BN_is_zero(n) && BN_one(n) != 1))
        return false;
    return BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
}

static bool set_time(ASN1_TIME *t, int64_t us)
{
    time_t seconds = (time_t)(us / SECOND_US);
    return X509_time_adj_ex(t, 0, 0, &seconds) != NULL;
}

/* version, serial, validity, key */
static bool set_frame(X509 *cert, EVP_PKEY *key, int64_t from_us, int64_t until_us)
{
    return X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
           set_time(X509_getm_notBefore(cert), from_us) && set_time(X509_getm_notAfter(cert), until_us) &&
           X509_set_pubkey(cert, key) == 1;
}

static bool add_text(X509_NAME *name, int nid, const char *text)
{
    return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)text, -1, -1, 0) == 1;
}

static bool add_basic_constraints(X509 *cert, bool ca)
{
    g_autoptr(BASIC_CONSTRAINTS) bc = BASIC_CONSTRAINTS_new();
    if (!bc)
        return false;
    if (ca) {
        bc->ca = 0xff; /* as it stands in DER; OpenSSL would encode 1 as 1 */
        bc->pathlen = ASN1_INTEGER_new();
        if (!bc->pathlen || ASN1_INTEGER_set(bc->pathlen, 0) != 1)
            return false;
    }
    return X509_add1_ext_i2d(cert, NID_basic_constraints, bc, ca ? 1 : 0, X509V3_ADD_DEFAULT) == 1;
}

/* Bits as RFC 5280 4.2.1.3 numbers them. */
#define USE_DIGITAL_SIGNATURE 0
#define USE_KEY_CERT_SIGN 5
#define USE_CRL_SIGN 6

static bool add_key_usage(X509 *cert, bool ca)
{
    g_autoptr(ASN1_BIT_STRING) bits = ASN1_BIT_STRING_new();
    if (!bits)
        return false;
    bool ok = ca ? ASN1_BIT_STRING_set_bit(bits, USE_KEY_CERT_SIGN, 1) && ASN1_BIT_STRING_set_bit(bits, USE_CRL_SIGN, 1)
                 : ASN1_BIT_STRING_set_bit(bits, USE_DIGITAL_SIGNATURE, 1);
    return ok && X509_add1_ext_i2d(cert, NID_key_usage, bits, 1, X509V3_ADD_DEFAULT) == 1;
}

static bool key_id(const X509 *cert, uint8_t out[KEY_ID_BYTES])
{
    uint8_t md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (X509_pubkey_digest(cert, EVP_sha256(), md, &len) != 1 || len < KEY_ID_BYTES)
        return false;
    memcpy(out, md, KEY_ID_BYTES);
    return true;
}

/*
 * Both key identifiers. issuer: NULL for a certificate that signs itself; else its subjectKeyIdentifier is copied as
 * it stands there.
 */
static bool add_key_ids(X509 *cert, X509 *issuer)
{
    uint8_t id[KEY_ID_BYTES];
    g_autoptr(ASN1_OCTET_STRING) own = ASN1_OCTET_STRING_new();
    g_autoptr(AUTHORITY_KEYID) aki = AUTHORITY_KEYID_new();
    if (!own || !aki || !key_id(cert, id) || ASN1_OCTET_STRING_set(own, id, sizeof(id)) != 1)
        return false;
    const ASN1_OCTET_STRING *signer = issuer ? X509_get0_subject_key_id(issuer) : own;
    aki->keyid = signer ? ASN1_OCTET_STRING_dup(signer) : NULL;
    return aki->keyid && X509_add1_ext_i2d(cert, NID_subject_key_identifier, own, 0, X509V3_ADD_DEFAULT) == 1 &&
           X509_add1_ext_i2d(cert, NID_authority_key_identifier, aki, 0, X509V3_ADD_DEFAULT) == 1;
}

static bool add_server_auth(X509 *cert)
{
    g_autoptr(EXTENDED_KEY_USAGE) eku = sk_ASN1_OBJECT_new_null();
    return eku && sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth)) > 0 &&
           X509_add1_ext_i2d(cert, NID_ext_key_usage, eku, 0, X509V3_ADD_DEFAULT) == 1;
}

static bool add_general_name(GENERAL_NAMES *names, int type, const void *bytes, size_t len)
{
    GENERAL_NAME *one = GENERAL_NAME_new();
    if (!one || sk_GENERAL_NAME_push(names, one) <= 0) {
        GENERAL_NAME_free(one);
        return false;
    }
    ASN1_STRING *value = type == GEN_DNS ? ASN1_IA5STRING_new() : ASN1_OCTET_STRING_new();
    if (!value)
        return false;
    GENERAL_NAME_set0_value(one, type, value);
    return ASN1_STRING_set(value, bytes, (int)len) == 1;
}

static bool add_alt_name(X509 *cert, const char *name, const struct sm_addr *addr, bool critical)
{
    g_autoptr(GENERAL_NAMES) names = GENERAL_NAMES_new();
    return names && (!name || add_general_name(names, GEN_DNS, name, strlen(name))) &&
           (!addr || add_general_name(names, GEN_IPADD, addr->bytes, addr->family == SM_FAMILY_V4 ? 4 : 16)) &&
           X509_add1_ext_i2d(cert, NID_subject_alt_name, names, critical ? 1 : 0, X509V3_ADD_DEFAULT) == 1;
}

/* sign, and let OpenSSL decode the extensions now: a certificate is shared by connections afterwards */
static bool sign(X509 *cert, EVP_PKEY *key)
{
    return X509_sign(cert, key, EVP_sha256()) > 0 && X509_check_purpose(cert, -1, 0) == 1;
}

X509 *sm_tls_ca_sign(struct sm_tls_ca *ca, const char *name, const struct sm_addr *addr, int64_t wall_us,
                     int64_t *ret_from_us, int64_t *ret_until_us)
{
    g_autoptr(X509) cert = X509_new();
    char text[SM_ADDR_STRLEN];
    int64_t from = SM_MAX(wall_us - DAY_US, ca->from_us),
            until = SM_MIN(wall_us + SM_TLS_LEAF_DAYS * DAY_US, ca->until_us);
    if (addr ? addr->family != SM_FAMILY_V4 && addr->family != SM_FAMILY_V6 : !name)
        return NULL;
    const char *cn = name ? name : sm_addr_format(addr, text);
    bool with_cn = strlen(cn) <= CN_MAX;
    if (!cert || !set_frame(cert, ca->leaf_key, from, until) ||
        X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) != 1 ||
        (with_cn && !add_text(X509_get_subject_name(cert), NID_commonName, cn)) ||
        !add_basic_constraints(cert, false) || !add_key_usage(cert, false) || !add_server_auth(cert) ||
        !add_key_ids(cert, ca->cert) || !add_alt_name(cert, name, addr, !with_cn) || !sign(cert, ca->key)) {
        ERR_clear_error();
        return NULL;
    }
    *ret_from_us = from;
    *ret_until_us = until;
    return sm_steal_ptr(&cert);
}

X509 *sm_tls_ca_read_back(X509 *cert)
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    const unsigned char *p = der;
    g_autoptr(X509) read = len > 0 ? d2i_X509(NULL, &p, len) : NULL;
    OPENSSL_free(der);
    if (!read || X509_check_purpose(read, -1, 0) != 1) {
        ERR_clear_error();
        return NULL;
    }
    return sm_steal_ptr(&read);
}

/* The CA around a key and a certificate; both are taken. */
static struct sm_tls_ca *assemble(EVP_PKEY *key, X509 *cert, GError **error)
{
    struct sm_tls_ca *ca = g_new0(struct sm_tls_ca, 1);
    ca->key = key;
    ca->cert = cert;
    ca->leaves = sm_tls_leaves_new();
    ca->leaf_key = new_key();
    ca->from_us = sm_tls_time_us(X509_get0_notBefore(cert));
    ca->until_us = sm_tls_time_us(X509_get0_notAfter(cert));
    g_autoptr(BIO) bio = BIO_new(BIO_s_mem());
    if (ca->leaf_key && bio && PEM_write_bio_X509(bio, cert) == 1) {
        char *data = NULL;
        long len = BIO_get_mem_data(bio, &data);
        ca->pem = g_strndup(data, (gsize)len);
        return ca;
    }
    sm_tls_set_error(error, SM_ERROR_SYSTEM, "the workspace's CA cannot be made");
    sm_tls_ca_free(ca);
    return NULL;
}

struct sm_tls_ca *sm_tls_ca_new(const char *workspace, int64_t wall_us, GError **error)
{
    g_autoptr(EVP_PKEY) key = new_key();
    g_autoptr(X509) cert = X509_new();
    X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
    if (!key || !cert || !set_frame(cert, key, wall_us - DAY_US, wall_us + SM_TLS_CA_DAYS * DAY_US) ||
        !add_text(subject, NID_organizationName, workspace) || !add_text(subject, NID_commonName, "slirp-med CA") ||
        X509_set_issuer_name(cert, subject) != 1 || !add_basic_constraints(cert, true) || !add_key_usage(cert, true) ||
        !add_key_ids(cert, NULL) || !sign(cert, key)) {
        sm_tls_set_error(error, SM_ERROR_SYSTEM, "the workspace's CA cannot be made");
        return NULL;
    }
    return assemble(sm_steal_ptr(&key), sm_steal_ptr(&cert), error);
}

/* An encrypted key has no passphrase here, and nobody is asked for one on a terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
    return -1;
}

struct sm_tls_ca *sm_tls_ca_load(const char *cert_pem, const struct sm_secret *key_pem, GError **error)
{
    size_t len = 0;
    const uint8_t *bytes = sm_secret_bytes(key_pem, &len);
    g_autoptr(BIO) cert_bio = BIO_new_mem_buf(cert_pem, -1);
    g_autoptr(BIO) key_bio = len <= INT_MAX ? BIO_new_mem_buf(bytes, (int)len) : NULL;
    g_autoptr(X509) cert = cert_bio ? PEM_read_bio_X509(cert_bio, NULL, no_passphrase, NULL) : NULL;
    g_autoptr(EVP_PKEY) key = key_bio ? PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, NULL) : NULL;
    char group[32] = "";

    ERR_clear_error();
    if (!cert || !key) {
        sm_error_set(error, SM_ERROR_INVALID, "the workspace's CA: the %s is no PEM; delete it for a new one",
                     cert ? "key" : "certificate");
        return NULL;
    }
    bool fits = EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 && g_str_equal(group, "prime256v1") &&
                X509_check_private_key(cert, key) == 1 && X509_check_ca(cert) == 1 && X509_get0_subject_key_id(cert) &&
                (X509_get_key_usage(cert) & KU_KEY_CERT_SIGN) &&
                sm_tls_time_us(X509_get0_notAfter(cert)) != INT64_MIN &&
                sm_tls_time_us(X509_get0_notBefore(cert)) != INT64_MIN;
    ERR_clear_error();
    if (!fits) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "the workspace's CA: key and certificate are not a P-256 CA of one pair; delete both for a new one");
        return NULL;
    }
    struct sm_tls_ca *ca = assemble(sm_steal_ptr(&key), sm_steal_ptr(&cert), error);
    if (ca && strcmp(ca->pem, cert_pem) != 0) {
        sm_error_set(error, SM_ERROR_INVALID, "the workspace's CA: there is more than one certificate in its file");
        g_clear_pointer(&ca, sm_tls_ca_free);
    }
    return ca;
}

bool sm_tls_ca_lasts(const struct sm_tls_ca *ca, int64_t wall_us, GError **error)
{
    if (wall_us >= ca->from_us && wall_us <= ca->until_us - SM_TLS_CA_LEFT_DAYS * DAY_US)
        return true;
    g_autoptr(GDateTime) when =
        g_date_time_new_from_unix_utc((wall_us < ca->from_us ? ca->from_us : ca->until_us) / SECOND_US);
    g_autofree char *text = when ? g_date_time_format(when, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("another time");
    sm_error_set(error, SM_ERROR_INVALID, "the workspace's CA is %s %s%s",
                 wall_us < ca->from_us ? "not valid before" : "valid until", text,
                 wall_us < ca->from_us ? ": look at this machine's clock"
                                       : ", which is too soon: make a new workspace");
    return false;
}

void sm_tls_ca_free(struct sm_tls_ca *ca)
{
    if (!ca)
        return;
    sm_tls_leaves_free(ca->leaves);
    EVP_PKEY_free(ca->leaf_key);
    EVP_PKEY_free(ca->key);
    X509_free(ca->cert);
    g_free(ca->pem);
    g_free(ca);
}

const char *sm_tls_ca_cert_pem(const struct sm_tls_ca *ca)
{
    return ca->pem;
}

struct sm_secret *sm_tls_ca_key_pem(const struct sm_tls_ca *ca)
{
    /* The secure kind wipes its buffer when it grows and when it is freed. */
    g_autoptr(BIO) bio = BIO_new(BIO_s_secmem());
    char *data = NULL;
    if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, ca->key, NULL, NULL, 0, NULL, NULL) != 1) {
        ERR_clear_error();
        return NULL;
    }
    long len = BIO_get_mem_data(bio, &data);
    return len > 0 ? sm_secret_new(data, (size_t)len) : NULL;
}

static void fingerprint(const X509 *cert, char out[SM_TLS_FINGERPRINT_STRLEN])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t md[EVP_MAX_MD_SIZE] = {0};
    unsigned len = 0;
    (void)X509_digest(cert, EVP_sha256(), md, &len);
    for (unsigned i = 0; i < 32; i++) {
        out[2 * i] = hex[md[i] >> 4];
        out[2 * i + 1] = hex[md[i] & 15];
    }
    out[64] = '\0';
}

bool sm_tls_ca_subject_hash(const struct sm_tls_ca *ca, char out[9])
{
    int ok = 0;
    unsigned long hash = X509_NAME_hash_ex(X509_get_subject_name(ca->cert), NULL, NULL, &ok);

    (void)g_snprintf(out, 9, "%08lx", hash & 0xffffffffUL);
    ERR_clear_error();
    return ok;
}

void sm_tls_ca_fingerprint(const struct sm_tls_ca *ca, char out[SM_TLS_FINGERPRINT_STRLEN])
{
    fingerprint(ca->cert, out);
}
