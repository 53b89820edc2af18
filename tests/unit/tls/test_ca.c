/* SPDX-License-Identifier: BSD-3-Clause */
/* The CA and its leaves: every field, strict verification, the table's bound, the minting rate. */
#include "pair.h"

#include "base/error.h"

static struct sm_tls_ca *new_ca(void)
{
    GError *error = NULL;
    struct sm_tls_ca *ca = sm_tls_ca_new("my-workspace.1", WALL, &error);
    assert_null(error);
    assert_non_null(ca);
    return ca;
}

static X509 *leaf(struct sm_tls_ca *ca, const char *name, const struct sm_addr *addr, int64_t now, int64_t wall)
{
    X509 *x = NULL;
    int64_t at;
    assert_int_equal(sm_tls_ca_leaf(ca, name, addr, now, wall, &x, &at), SM_TLS_LEAF_OK);
    assert_non_null(x);
    return x;
}

static int critical(X509 *x, int nid)
{
    int at = X509_get_ext_by_NID(x, nid, -1);
    assert_true(at >= 0);
    assert_int_equal(X509_get_ext_by_NID(x, nid, at), -1); /* once */
    return X509_EXTENSION_get_critical(X509_get_ext(x, at));
}

static void check_common(X509 *x, X509 *issuer)
{
    assert_int_equal(X509_get_version(x), X509_VERSION_3);
    assert_int_equal(X509_get_signature_nid(x), NID_ecdsa_with_SHA256);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(x);
    assert_int_equal(ASN1_STRING_type(serial), V_ASN1_INTEGER); /* not V_ASN1_NEG_INTEGER */
    assert_in_range(ASN1_STRING_length(serial), 12, 16); /* 16 random bytes; fewer than 12 happens once in 2^32 */
    assert_int_equal(X509_NAME_cmp(X509_get_issuer_name(x), X509_get_subject_name(issuer)), 0);
    char group[32];
    assert_int_equal(EVP_PKEY_get_group_name(X509_get0_pubkey(x), group, sizeof(group), NULL), 1);
    assert_string_equal(group, "prime256v1");
    assert_int_equal(critical(x, NID_subject_key_identifier), 0);
    assert_int_equal(critical(x, NID_authority_key_identifier), 0);
    assert_int_equal(ASN1_STRING_cmp(X509_get0_authority_key_id(x), X509_get0_subject_key_id(issuer)), 0);
    assert_int_equal(X509_verify(x, X509_get0_pubkey(issuer)), 1);
}

static int verify(struct sm_tls_ca *ca, X509 *x, const char *name, const struct sm_addr *addr, int64_t wall)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_STORE_add_cert(store, ca->cert);
    X509_STORE_CTX_init(ctx, store, x, NULL);
    X509_VERIFY_PARAM *p = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_flags(p, X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_purpose(p, X509_PURPOSE_SSL_SERVER);
    X509_VERIFY_PARAM_set_auth_level(p, 2);
    X509_VERIFY_PARAM_set_time(p, (time_t)(wall / 1000000));
    if (name)
        X509_VERIFY_PARAM_set1_host(p, name, 0);
    else
        X509_VERIFY_PARAM_set1_ip(p, addr->bytes, addr->family == SM_FAMILY_V4 ? 4 : 16);
    X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    (void)X509_verify_cert(ctx);
    int result = X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return result;
}

static void test_ca_profile(void **state)
{
    struct sm_tls_ca *ca = new_ca(), *other = new_ca();
    X509 *x = ca->cert;
    char text[128], fp[65];

    check_common(x, x);
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, text, sizeof(text)) > 0);
    assert_string_equal(text, "slirp-med CA");
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_organizationName, text, sizeof(text)) > 0);
    assert_string_equal(text, "my-workspace.1");
    assert_int_equal(critical(x, NID_basic_constraints), 1);
    assert_int_equal(X509_check_ca(x), 1);
    assert_int_equal(X509_get_pathlen(x), 0);
    assert_int_equal(critical(x, NID_key_usage), 1);
    assert_int_equal(X509_get_key_usage(x), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
    assert_int_equal(sm_tls_time_us(X509_get0_notBefore(x)), WALL - DAY_S * 1000000);
    assert_int_equal(sm_tls_time_us(X509_get0_notAfter(x)), WALL + SM_TLS_CA_DAYS * DAY_S * 1000000);
    assert_int_equal(X509_get_ext_count(x), 4);

    /* Fresh every time: key, serial, fingerprint. */
    assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(x), X509_get0_pubkey(other->cert)), 0);
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(x), X509_get0_serialNumber(other->cert)), 0);
    assert_int_equal(EVP_PKEY_eq(ca->leaf_key, X509_get0_pubkey(x)), 0);
    sm_tls_ca_fingerprint(ca, fp);
    assert_int_equal(strlen(fp), 64);
    assert_int_equal(strspn(fp, "0123456789abcdef"), 64);
    sm_tls_ca_free(ca);
    sm_tls_ca_free(other);
    sm_tls_ca_free(NULL);
}

static void test_leaf_profile(void **state)
{
    struct sm_tls_ca *ca = new_ca();
    char longest[254];
    memset(longest, 'a', sizeof(longest));
    for (size_t i = 60; i < 240; i += 60)
        longest[i] = '.';
    strcpy(longest + 240, ".example.com");
    const struct {
        const char *name;
        struct sm_addr addr;
    } cases[] = {
        {"www.example.com", {0}},
        {"xn--bcher-kva.example", {0}},
        {longest, {0}},
        {NULL, sm_addr_v4(203, 0, 113, 1)},
        {NULL, {.family = SM_FAMILY_V6, .bytes = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}}},
        {"both.example.com", sm_addr_v4(203, 0, 113, 2)}, /* what a guest without SNI gets */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        const struct sm_addr *addr = cases[i].addr.family == SM_FAMILY_NONE ? NULL : &cases[i].addr;
        X509 *x = leaf(ca, cases[i].name, addr, 0, WALL);
        bool empty = cases[i].name && strlen(cases[i].name) > 64;
        check_common(x, ca->cert);
        assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(x)), empty ? 0 : 1);
        assert_int_equal(critical(x, NID_subject_alt_name), empty);
        GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        assert_int_equal(sk_GENERAL_NAME_num(names), cases[i].name && addr ? 2 : 1);
        assert_int_equal(sk_GENERAL_NAME_value(names, 0)->type, cases[i].name ? GEN_DNS : GEN_IPADD);
        if (addr)
            assert_int_equal(verify(ca, x, NULL, addr, WALL), X509_V_OK);
        GENERAL_NAMES_free(names);
        assert_int_equal(critical(x, NID_basic_constraints), 0);
        assert_int_equal(X509_check_ca(x), 0);
        assert_int_equal(critical(x, NID_key_usage), 1);
        assert_int_equal(X509_get_key_usage(x), KU_DIGITAL_SIGNATURE);
        assert_int_equal(critical(x, NID_ext_key_usage), 0);
        assert_int_equal(X509_get_extended_key_usage(x), XKU_SSL_SERVER);
        assert_int_equal(X509_get_ext_count(x), 6);
        assert_int_equal(sm_tls_time_us(X509_get0_notBefore(x)), WALL - DAY_S * 1000000);
        assert_int_equal(sm_tls_time_us(X509_get0_notAfter(x)), WALL + SM_TLS_LEAF_DAYS * DAY_S * 1000000);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(x), ca->leaf_key), 1);

        assert_int_equal(verify(ca, x, cases[i].name, &cases[i].addr, WALL), X509_V_OK);
        /* A guest whose clock is most of a day slow takes it, for another name it does not hold. */
        assert_int_equal(verify(ca, x, cases[i].name, &cases[i].addr, WALL - 86000 * INT64_C(1000000)), X509_V_OK);
        assert_int_equal(verify(ca, x, "other.example", NULL, WALL), X509_V_ERR_HOSTNAME_MISMATCH);
        X509_free(x);
    }
    const struct sm_addr none = {0};
    X509 *x = NULL;
    int64_t at;
    assert_int_equal(sm_tls_ca_leaf(ca, NULL, &none, 0, WALL, &x, &at), SM_TLS_LEAF_FAILED);
    assert_null(x);
    sm_tls_ca_free(ca);
}

/* Saved and loaded again it signs what the old one's certificate verifies. */
static void test_load(void **state)
{
    struct sm_tls_ca *ca = new_ca(), *other = new_ca();
    struct sm_secret *key = sm_tls_ca_key_pem(ca), *wrong = sm_tls_ca_key_pem(other);
    GError *error = NULL;
    size_t len;
    char a[65], b[65];

    assert_non_null(key);
    assert_memory_equal(sm_secret_bytes(key, &len), "-----BEGIN PRIVATE KEY-----\n", 28);
    struct sm_tls_ca *again = sm_tls_ca_load(sm_tls_ca_cert_pem(ca), key, &error);
    assert_null(error);
    sm_tls_ca_fingerprint(ca, a);
    sm_tls_ca_fingerprint(again, b);
    assert_string_equal(a, b);
    X509 *x = leaf(again, "www.example", NULL, 0, WALL);
    assert_int_equal(verify(ca, x, "www.example", NULL, WALL), X509_V_OK);
    X509_free(x);

    struct sm_secret *junk = sm_secret_new((char[]){"no key"}, 6), *empty = sm_secret_new((char[]){""}, 0);
    X509 *leaf_cert = leaf(other, "a.example", NULL, 0, WALL);
    char *leaf_pem = cert_pem(leaf_cert);
    const struct {
        const char *cert;
        const struct sm_secret *key;
    } bad[] = {
        {sm_tls_ca_cert_pem(ca), wrong},
        {sm_tls_ca_cert_pem(ca), junk},
        {sm_tls_ca_cert_pem(ca), empty},
        {"no certificate", key},
        {"", key},
        {leaf_pem, wrong},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        assert_null(sm_tls_ca_load(bad[i].cert, bad[i].key, &error));
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        assert_null(strstr(error->message, "BEGIN"));
        g_clear_error(&error);
        assert_int_equal(ERR_peek_error(), 0);
    }
    /* The guest gets the file as it is: nothing else may stand in it. */
    g_autofree char *two = g_strconcat(sm_tls_ca_cert_pem(ca), sm_tls_ca_cert_pem(other), NULL);
    g_autofree char *said = g_strconcat("here it comes\n", sm_tls_ca_cert_pem(ca), NULL);
    const char *const more[] = {two, said};
    for (size_t i = 0; i < SM_ARRAY_LEN(more); i++) {
        assert_null(sm_tls_ca_load(more[i], key, &error));
        assert_non_null(strstr(error->message, "more than one certificate"));
        g_clear_error(&error);
    }
    X509_free(leaf_cert);
    g_free(leaf_pem);
    sm_secret_free(junk);
    sm_secret_free(empty);
    sm_secret_free(key);
    sm_secret_free(wrong);
    sm_tls_ca_free(again);
    sm_tls_ca_free(other);
    sm_tls_ca_free(ca);
}

/* From a day before it was made to a week before its end. */
static void test_lasts(void **state)
{
    const int64_t day = INT64_C(86400000000), wall = WALL / 1000000 * 1000000; /* certificates have no microseconds */
    struct sm_tls_ca *ca = sm_tls_ca_new("w", wall, NULL);
    GError *error = NULL;

    assert_true(sm_tls_ca_lasts(ca, wall, &error));
    assert_true(sm_tls_ca_lasts(ca, wall - day, &error));
    assert_true(sm_tls_ca_lasts(ca, wall + (SM_TLS_CA_DAYS - SM_TLS_CA_LEFT_DAYS) * day, &error));
    assert_null(error);
    assert_false(sm_tls_ca_lasts(ca, wall - day - 1, &error));
    assert_non_null(strstr(error->message, "not valid before"));
    g_clear_error(&error);
    assert_false(sm_tls_ca_lasts(ca, wall + (SM_TLS_CA_DAYS - SM_TLS_CA_LEFT_DAYS) * day + 1, &error));
    assert_non_null(strstr(error->message, "too soon"));
    g_clear_error(&error);
    sm_tls_ca_free(ca);
}

static bool same_bytes(X509 *a, X509 *b)
{
    uint8_t *p = NULL, *q = NULL;
    int n = i2d_X509(a, &p), m = i2d_X509(b, &q);
    bool same = n > 0 && n == m && memcmp(p, q, (size_t)n) == 0;
    OPENSSL_free(p);
    OPENSSL_free(q);
    return same;
}

static void test_table(void **state)
{
    struct sm_tls_ca *ca = new_ca();
    const struct sm_addr addr = sm_addr_v4(203, 0, 113, 1);
    char name[32];
    int64_t now = 0;

    X509 *first = leaf(ca, "first.example", NULL, now, WALL), *same = leaf(ca, "first.example", NULL, now, WALL);
    assert_ptr_equal(first, same);
    X509_free(same);
    X509_free(leaf(ca, NULL, &addr, now, WALL));
    X509_free(leaf(ca, NULL, &addr, now, WALL));
    assert_int_equal(sm_tls_ca_minted(ca), 2);

    /* Full: what was used lately stays. */
    for (unsigned i = 0; i < SM_TLS_LEAVES_MAX; i++) {
        now += 1000000;
        (void)snprintf(name, sizeof(name), "n%u.example", i);
        X509_free(leaf(ca, name, NULL, now, WALL));
        X509_free(leaf(ca, "first.example", NULL, now, WALL));
        assert_true(sm_tls_ca_leaves(ca) <= SM_TLS_LEAVES_MAX);
    }
    assert_int_equal(sm_tls_ca_leaves(ca), SM_TLS_LEAVES_MAX);
    uint64_t minted = sm_tls_ca_minted(ca);
    same = leaf(ca, "first.example", NULL, now, WALL);
    assert_ptr_not_equal(first, same); /* it was read back, and is what it was */
    assert_int_equal(verify(ca, same, "first.example", NULL, WALL), X509_V_OK);
    assert_true(same_bytes(first, same));
    assert_int_equal(sm_tls_ca_minted(ca), minted);
    X509_free(same);
    X509_free(leaf(ca, NULL, &addr, now, WALL)); /* had gone */
    assert_int_equal(sm_tls_ca_minted(ca), minted + 1);

    /* A day before its end it is signed anew; so it is when the clock was set back to before its beginning. */
    int64_t end = WALL + SM_TLS_LEAF_DAYS * DAY_S * 1000000;
    same = leaf(ca, "first.example", NULL, now, end - DAY_S * 1000000 - 1);
    assert_true(same_bytes(first, same));
    X509_free(same);
    X509 *next = leaf(ca, "first.example", NULL, now, end - DAY_S * 1000000);
    assert_false(same_bytes(first, next));
    assert_int_equal(verify(ca, next, "first.example", NULL, end), X509_V_OK);
    same = leaf(ca, "first.example", NULL, now, WALL);
    assert_false(same_bytes(next, same));
    assert_int_equal(verify(ca, same, "first.example", NULL, WALL), X509_V_OK);
    X509_free(same);
    X509_free(next);
    X509_free(first);

    /* Near the CA's end a leaf ends with it, and is not signed again for that. */
    int64_t ca_end = WALL + SM_TLS_CA_DAYS * DAY_S * 1000000;
    first = leaf(ca, "late.example", NULL, now, ca_end - DAY_S * 1000000 / 2);
    assert_int_equal(sm_tls_time_us(X509_get0_notAfter(first)), ca_end);
    minted = sm_tls_ca_minted(ca);
    X509_free(leaf(ca, "late.example", NULL, now, ca_end - DAY_S * 1000000 / 2));
    assert_int_equal(sm_tls_ca_minted(ca), minted);
    X509_free(first);
    sm_tls_ca_free(ca);
}

static void test_rate(void **state)
{
    struct sm_tls_ca *ca = new_ca();
    char name[32];
    int64_t at = -1, now = 5000000;
    X509 *x = NULL;
    unsigned n = 0;

    for (;; n++) {
        (void)snprintf(name, sizeof(name), "n%u.example", n);
        enum sm_tls_leaf_status status = sm_tls_ca_leaf(ca, name, NULL, now, WALL, &x, &at);
        if (status == SM_TLS_LEAF_LATER)
            break;
        assert_int_equal(status, SM_TLS_LEAF_OK);
        X509_free(x);
    }
    assert_int_equal(n, SM_TLS_MINT_BURST);
    assert_int_equal(at, now + 1000000 / SM_TLS_MINT_PER_SECOND);
    /* Names that have their leaf do not wait, and cost no token. */
    for (unsigned i = 0; i < 1000; i++)
        X509_free(leaf(ca, "n0.example", NULL, now, WALL));
    /* Not a moment before `at`, and then exactly one. */
    assert_int_equal(sm_tls_ca_leaf(ca, name, NULL, at - 1, WALL, &x, &now), SM_TLS_LEAF_LATER);
    assert_int_equal(now, at);
    X509_free(leaf(ca, name, NULL, at, WALL));
    assert_int_equal(sm_tls_ca_leaf(ca, "y.example", NULL, at, WALL, &x, &now), SM_TLS_LEAF_LATER);
    /* A flood for ten seconds gets ten seconds' worth; afterwards the burst is saved up again, and no more. */
    int64_t start = at;
    uint64_t before = sm_tls_ca_minted(ca);
    for (int64_t t = start; t < start + 1000000; t += 1000) {
        (void)snprintf(name, sizeof(name), "f%lld.example", (long long)t);
        if (sm_tls_ca_leaf(ca, name, NULL, t, WALL, &x, &at) == SM_TLS_LEAF_OK)
            X509_free(x);
    }
    assert_in_range(sm_tls_ca_minted(ca) - before, SM_TLS_MINT_PER_SECOND - 2, SM_TLS_MINT_PER_SECOND);
    before = sm_tls_ca_minted(ca);
    for (unsigned i = 0; i < 2 * SM_TLS_MINT_BURST; i++) {
        (void)snprintf(name, sizeof(name), "g%u.example", i);
        if (sm_tls_ca_leaf(ca, name, NULL, start + 1000000000, WALL, &x, &at) == SM_TLS_LEAF_OK)
            X509_free(x);
    }
    assert_int_equal(sm_tls_ca_minted(ca) - before, SM_TLS_MINT_BURST);
    sm_tls_ca_free(ca);
}

static int setup(void **state)
{
    GError *error = NULL;
    return sm_tls_library_init(&error) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ca_profile), cmocka_unit_test(test_leaf_profile), cmocka_unit_test(test_load),
        cmocka_unit_test(test_lasts),      cmocka_unit_test(test_table),        cmocka_unit_test(test_rate),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
