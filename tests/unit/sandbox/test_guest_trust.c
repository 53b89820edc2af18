/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What guest-init makes of the workspace's CA, without mounts: bundles, Java stores, and what is laid over the stores of Debian, Fedora and
 * Alpine (made in a temporary folder that plays CMD's root). The mounts are tried by test_guest_trust.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "paths/certs.h"
#include "paths/guest_trust.h"
#include "paths/jks.h"

enum { CA, ONE, TWO, OWN, CERTIFICATES };

static char top[64];
static char *pems[CERTIFICATES];
static X509 *certificates[CERTIFICATES];

static void make_certificate(int i, const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;

    assert_true(key && x && bio);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(x), i + 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(x), 0);
    (void)X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    (void)X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
                                     0);
    (void)X509_set_issuer_name(x, X509_get_subject_name(x));
    (void)X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_bio_X509(bio, x), 1);
    long n = BIO_get_mem_data(bio, &data);
    pems[i] = g_strndup(data, (gsize)n);
    certificates[i] = x;
    EVP_PKEY_free(key);
    (void)BIO_free(bio);
}

static char *concat(const char *a, const char *b)
{
    return g_strconcat(a, b, NULL);
}

/* ---- a set of certificates ---- */

static char *normal(const char *text, size_t len, size_t *ret_found)
{
    struct sm_certs *c = sm_certs_new();
    *ret_found = sm_certs_add_pem(c, text, len);
    char *pem = g_string_free(sm_certs_pem(c), FALSE);
    sm_certs_free(c);
    return pem;
}

static void expect_pem(const char *text, size_t n, const char *want)
{
    size_t found;
    g_autofree char *got = normal(text, strlen(text), &found);
    assert_int_equal(found, n);
    assert_string_equal(got, want);
}

static void test_certs(void **state)
{
    g_autofree char *both = concat(pems[ONE], pems[TWO]);
    g_autofree char *twice =
        g_strconcat("# one\n", pems[ONE], "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", pems[TWO],
                    "\xff\x01 text ----- more\n", pems[ONE], NULL);
    expect_pem("", 0, "");
    expect_pem("-----", 0, "");
    expect_pem("-----BEGIN CERTIFICATE-----", 0, "");
    expect_pem("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", 0, "");
    expect_pem("-----BEGIN CERTIFICATE-----\nhello!\n-----END CERTIFICATE-----\n", 0, "");
    expect_pem(pems[ONE], 1, pems[ONE]);
    expect_pem(twice, 3, both); /* written once, in the order of their coming, and nothing but certificates */

    g_auto(GStrv) lines = g_strsplit(pems[ONE], "\n", -1);
    g_autofree char *windows = g_strjoinv("\r\n", lines);
    expect_pem(windows, 1, pems[ONE]);

    /* OpenSSL's TRUSTED CERTIFICATE has more behind the certificate; it is not for others. */
    BIO *bio = BIO_new(BIO_s_mem());
    ASN1_OBJECT *use = OBJ_nid2obj(NID_server_auth);
    X509 *copy = X509_dup(certificates[ONE]);
    char *data;
    assert_int_equal(X509_add1_trust_object(copy, use), 1);
    assert_int_equal(PEM_write_bio_X509_AUX(bio, copy), 1);
    long n = BIO_get_mem_data(bio, &data);
    g_autofree char *trusted = g_strndup(data, (gsize)n);
    assert_non_null(strstr(trusted, "TRUSTED CERTIFICATE"));
    expect_pem(trusted, 1, pems[ONE]);
    X509_free(copy);
    (void)BIO_free(bio);

    /* Cut anywhere: what is whole counts. */
    size_t whole = strlen(pems[ONE]);
    for (size_t len = 0; len < strlen(both); len++) {
        size_t found;
        g_autofree char *cut = g_memdup2(both, len ? len : 1); /* its own block: a sanitizer sees a read past the end */
        g_autofree char *got = normal(cut, len, &found);
        if (len >= whole && len < strlen(both) - 40)
            assert_string_equal(got, pems[ONE]);
    }
}

/** No file can make the set larger than its bounds. */
static void test_certs_are_bounded(void **state)
{
    struct sm_certs *c = sm_certs_new();
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < SM_CERTS_MAX + 10; i++) {
        uint8_t der[] = {0x30, 4, (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
        g_autofree char *base64 = g_base64_encode(der, sizeof(der));
        g_string_append_printf(text, "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n", base64);
    }
    assert_int_equal(sm_certs_add_pem(c, text->str, text->len), SM_CERTS_MAX + 10);
    assert_int_equal(sm_certs_count(c), SM_CERTS_MAX);
    sm_certs_free(c);
    (void)g_string_free(text, TRUE);
}

/* ---- Java ---- */

struct entry {
    char alias[80];
    const uint8_t *der;
    size_t len;
};

static uint64_t number(const uint8_t **p, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes--)
        v = v << 8 | *(*p)++;
    return v;
}

/** The format read a second time, from its description; OpenSSL makes the digest. Returns the number of entries. */
static size_t read_jks(const uint8_t *data, size_t len, struct entry *ret, size_t max)
{
    static const uint8_t password[] = {0, 'c', 0, 'h', 0, 'a', 0, 'n', 0, 'g', 0, 'e', 0, 'i', 0, 't'};
    static const char salt[] = "Mighty Aphrodite";
    const uint8_t *p = data, *end = data + len - 20;
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned sum_len;
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    assert_true(len >= 32);
    assert_int_equal(number(&p, 4), 0xfeedfeed);
    assert_int_equal(number(&p, 4), 2);
    size_t n = number(&p, 4);
    assert_true(n <= max);
    for (size_t i = 0; i < n; i++) {
        assert_true(end - p > 32);
        assert_int_equal(number(&p, 4), 2);
        size_t alias = number(&p, 2);
        assert_true(alias < sizeof(ret[i].alias) && alias < (size_t)(end - p));
        memcpy(ret[i].alias, p, alias);
        ret[i].alias[alias] = '\0';
        p += alias + 8;
        assert_int_equal(number(&p, 2), 5);
        assert_memory_equal(p, "X.509", 5);
        p += 5;
        ret[i].len = number(&p, 4);
        ret[i].der = p;
        assert_true(ret[i].len <= (size_t)(end - p));
        p += ret[i].len;
    }
    assert_ptr_equal(p, end);
    (void)EVP_DigestInit(md, EVP_sha1());
    (void)EVP_DigestUpdate(md, password, sizeof(password));
    (void)EVP_DigestUpdate(md, salt, strlen(salt));
    (void)EVP_DigestUpdate(md, data, (size_t)(end - data));
    (void)EVP_DigestFinal(md, sum, &sum_len);
    EVP_MD_CTX_free(md);
    assert_memory_equal(end, sum, 20);
    return n;
}

static void add_certificate(struct sm_jks *jks, const char *alias, int i)
{
    unsigned char *der = NULL;
    int len = i2d_X509(certificates[i], &der);
    assert_true(len > 0);
    sm_jks_add(jks, alias, 1700000000000, der, (size_t)len);
    OPENSSL_free(der);
}

static void expect_entry(const struct entry *e, const char *alias, int i)
{
    unsigned char *der = NULL;
    int len = i2d_X509(certificates[i], &der);
    assert_string_equal(e->alias, alias);
    assert_int_equal(e->len, len);
    assert_memory_equal(e->der, der, e->len);
    OPENSSL_free(der);
}

static void test_jks(void **state)
{
    struct entry e[8];
    gsize len;
    g_autoptr(GBytes) empty = sm_jks_finish(sm_jks_new());
    const uint8_t *data = g_bytes_get_data(empty, &len);
    assert_int_equal(read_jks(data, len, e, 8), 0);

    struct sm_jks *jks = sm_jks_new();
    add_certificate(jks, "one", ONE);
    add_certificate(jks, "two", TWO);
    g_autoptr(GBytes) two = sm_jks_finish(jks);
    data = g_bytes_get_data(two, &len);
    assert_int_equal(read_jks(data, len, e, 8), 2);
    expect_entry(&e[0], "one", ONE);
    expect_entry(&e[1], "two", TWO);

    /* Added to: what was there stays. */
    jks = sm_jks_open(data, len);
    assert_non_null(jks);
    add_certificate(jks, "ca", CA);
    g_autoptr(GBytes) three = sm_jks_finish(jks);
    const uint8_t *data3 = g_bytes_get_data(three, NULL);
    assert_int_equal(read_jks(data3, g_bytes_get_size(three), e, 8), 3);
    expect_entry(&e[1], "two", TWO);
    expect_entry(&e[2], "ca", CA);

    /* Any byte changed, or any cut: not taken. */
    g_autofree uint8_t *bad = g_memdup2(data, len);
    for (size_t i = 0; i < len; i += i < 40 ? 1 : 7) {
        bad[i] ^= 1;
        assert_null(sm_jks_open(bad, len));
        bad[i] ^= 1;
    }
    for (size_t cut = 0; cut < len; cut += 5) {
        g_autofree uint8_t *part = g_memdup2(data, cut ? cut : 1);
        assert_null(sm_jks_open(part, cut));
    }
}

/** Java itself reads it; without a JDK the format stands on test_jks. */
static void test_jks_with_keytool(void **state)
{
    g_autofree char *keytool = g_find_program_in_path("keytool");
    g_autofree char *path = g_build_filename(top, "store.jks", NULL);
    g_autofree char *out = NULL;
    int status;
    char *argv[] = {keytool,
                    (char[]){"-list"},
                    (char[]){"-keystore"},
                    path,
                    (char[]){"-storepass"},
                    (char[]){"changeit"},
                    (char[]){"-rfc"},
                    NULL};

    if (!keytool) {
        assert_null(g_getenv("CI")); /* ./dev test installs it */
        print_message("skipped: this machine has no keytool\n");
        skip();
    }
    struct sm_jks *jks = sm_jks_new();
    add_certificate(jks, "one", ONE);
    add_certificate(jks, "slirp-med", CA);
    g_autoptr(GBytes) bytes = sm_jks_finish(jks);
    assert_true(g_file_set_contents(path, g_bytes_get_data(bytes, NULL), (gssize)g_bytes_get_size(bytes), NULL));
    assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL, &status, NULL));
    (void)unlink(path);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out, "2 entries"));
    assert_non_null(strstr(out, "slirp-med"));
    size_t n;
    g_autofree char *listed = normal(out, strlen(out), &n);
    assert_int_equal(n, 2);
    assert_true(strstr(listed, pems[ONE]) && strstr(listed, pems[CA]));
}

/* ---- the stores of distributions ---- */

struct layout {
    char *root, *dir; /* CMD's root, and where ours goes */
    struct sm_trust *trust;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static char *ca_hash(void)
{
    return g_strdup_printf("%08lx", X509_NAME_hash_ex(X509_get_subject_name(certificates[CA]), NULL, NULL, NULL));
}

static void begin(struct layout *l, const char *name)
{
    l->root = g_build_filename(top, name, "root", NULL);
    l->dir = g_build_filename(top, name, "trust", NULL);
    assert_int_equal(g_mkdir_with_parents(l->root, 0755), 0);
    assert_int_equal(g_mkdir_with_parents(l->dir, 0755), 0);
    g_autofree char *hash = ca_hash();
    l->trust = sm_trust_new(pems[CA], strlen(pems[CA]), hash, NULL);
    assert_non_null(l->trust);
}

static void end(struct layout *l)
{
    g_autofree char *both = g_path_get_dirname(l->root);
    sm_trust_free(l->trust);
    assert_int_equal(nftw(both, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    g_free(l->root);
    g_free(l->dir);
}

static void file(const struct layout *l, const char *path, const void *data, gssize len)
{
    g_autofree char *at = concat(l->root, path);
    g_autofree char *folder = g_path_get_dirname(at);
    assert_int_equal(g_mkdir_with_parents(folder, 0755), 0);
    assert_true(g_file_set_contents(at, data, len, NULL));
}

static void link_to(const struct layout *l, const char *path, const char *to)
{
    g_autofree char *at = concat(l->root, path);
    g_autofree char *folder = g_path_get_dirname(at);
    assert_int_equal(g_mkdir_with_parents(folder, 0755), 0);
    assert_int_equal(symlink(to, at), 0);
}

static void folder(const struct layout *l, const char *path)
{
    g_autofree char *at = concat(l->root, path);
    assert_int_equal(g_mkdir_with_parents(at, 0755), 0);
}

static void build(struct layout *l, char *const *env)
{
    static char *const none[] = {NULL};
    g_autoptr(GError) error = NULL;
    sm_autofd root = open(l->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    sm_autofd dir = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root >= 0 && dir >= 0);
    if (sm_trust_build(l->trust, root, dir, env ? env : none, "/place", &error) < 0)
        fail_msg("%s", error->message);
}

/** The name in dir of what covers path; NULL: nothing does. */
static const char *covered(const struct layout *l, const char *path)
{
    for (size_t i = 0; i < sm_trust_n_covers(l->trust); i++)
        if (strcmp(sm_trust_cover(l->trust, i)->target, path) == 0)
            return sm_trust_cover(l->trust, i)->source;
    return NULL;
}

static char *made(const struct layout *l, const char *name, gsize *ret_len)
{
    g_autofree char *at = g_build_filename(l->dir, name, NULL);
    char *text = NULL;
    if (!g_file_get_contents(at, &text, ret_len, NULL))
        fail_msg("%s was not made", at);
    return text;
}

static void expect_made(const struct layout *l, const char *name, const char *want)
{
    g_autofree char *got = made(l, name, NULL);
    assert_string_equal(got, want);
}

/** What lies over path holds want. */
static void expect_cover(const struct layout *l, const char *path, const char *want)
{
    const char *source = covered(l, path);
    if (!source)
        fail_msg("%s is not covered", path);
    expect_made(l, source, want);
}

/** A path in the copy of a folder. */
static char *in_copy(const struct layout *l, const char *path, const char *name)
{
    const char *source = covered(l, path);
    if (!source)
        fail_msg("%s is not covered", path);
    return g_build_filename(source, name, NULL);
}

static void expect_in_copy(const struct layout *l, const char *path, const char *name, const char *want)
{
    g_autofree char *at = in_copy(l, path, name);
    expect_made(l, at, want);
}

static void expect_link_in_copy(const struct layout *l, const char *path, const char *name, const char *want)
{
    g_autofree char *at = in_copy(l, path, name);
    g_autofree char *whole = g_build_filename(l->dir, at, NULL);
    g_autofree char *got = g_file_read_link(whole, NULL);
    if (g_strcmp0(got, want) != 0)
        fail_msg("%s leads to %s and not to %s", at, got ? got : "nothing", want);
}

static char *java_of(int a, int b)
{
    struct sm_jks *jks = sm_jks_new();
    if (a >= 0)
        add_certificate(jks, "debian:a.pem", a);
    if (b >= 0)
        add_certificate(jks, "own", b);
    g_autoptr(GBytes) bytes = sm_jks_finish(jks);
    return g_base64_encode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

static void test_debian(void **state)
{
    struct layout l;
    g_autofree char *hash = ca_hash();
    g_autofree char *name0 = concat(hash, ".0"), *name1 = concat(hash, ".1");
    g_autofree char *system = concat(pems[ONE], pems[TWO]);
    g_autofree char *with_ca = concat(pems[CA], system);
    g_autofree char *taken = concat("/etc/ssl/certs/", name0);
    g_autofree char *java64 = java_of(ONE, OWN);
    gsize java_len, len;
    g_autofree guchar *java = g_base64_decode(java64, &java_len);
    struct entry e[8];

    begin(&l, "debian");
    file(&l, "/usr/share/ca-certificates/mozilla/One.crt", pems[ONE], -1);
    link_to(&l, "/etc/ssl/certs/One.pem", "/usr/share/ca-certificates/mozilla/One.crt");
    link_to(&l, taken, "One.pem"); /* another subject with the same hash */
    file(&l, "/etc/ssl/certs/ca-certificates.crt", system, -1);
    file(&l, "/etc/ssl/certs/ssl-cert-snakeoil.pem", pems[OWN], -1);
    file(&l, "/etc/ssl/certs/java/cacerts", java, (gssize)java_len);
    link_to(&l, "/usr/lib/ssl/certs", "/etc/ssl/certs");
    file(&l, "/etc/chromium/master_preferences", "{}", -1);
    folder(&l, "/etc/opt");
    build(&l, NULL);

    expect_made(&l, "slirp-med-ca.pem", pems[CA]);
    expect_made(&l, "node-extra.pem", pems[CA]);
    expect_made(&l, "ca-bundle.pem", with_ca);
    expect_cover(&l, "/etc/ssl/certs/ca-certificates.crt", with_ca);
    /* The folder: as it was, the bundle replaced, the CA under its name and the next free hash. */
    expect_in_copy(&l, "/etc/ssl/certs", "ca-certificates.crt", with_ca);
    expect_in_copy(&l, "/etc/ssl/certs", "ssl-cert-snakeoil.pem", pems[OWN]);
    expect_in_copy(&l, "/etc/ssl/certs", "slirp-med-ca.pem", pems[CA]);
    expect_link_in_copy(&l, "/etc/ssl/certs", "One.pem", "/usr/share/ca-certificates/mozilla/One.crt");
    expect_link_in_copy(&l, "/etc/ssl/certs", name0, "One.pem");
    expect_link_in_copy(&l, "/etc/ssl/certs", name1, "slirp-med-ca.pem");
    g_autofree char *hashed = g_build_filename("hashed", name0, NULL);
    expect_made(&l, hashed, pems[CA]);

    /* An administrator's own root in Java's store is in ours too. */
    const char *names[] = {"ca-bundle.jks", covered(&l, "/etc/ssl/certs/java/cacerts")};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        g_autofree char *store = made(&l, names[i], &len);
        assert_int_equal(read_jks((const uint8_t *)store, len, e, 8), 3);
        expect_entry(&e[1], "own", OWN);
        expect_entry(&e[2], "slirp-med", CA);
    }
    /* Chromium's policy, in a copy of the deepest folder that is there. */
    g_autofree char *policy_name = in_copy(&l, "/etc/chromium", "policies/managed/slirp-med.json");
    g_autofree char *policy = made(&l, policy_name, NULL);
    g_auto(GStrv) armour = g_strsplit(pems[CA], "\n", -1);
    assert_true(g_str_has_prefix(policy, "{\"CACertificates\": [\"MII"));
    assert_non_null(strstr(policy, armour[1]));
    expect_in_copy(&l, "/etc/chromium", "master_preferences", "{}");
    g_autofree char *chrome = in_copy(&l, "/etc/opt", "chrome/policies/managed/slirp-med.json");
    expect_made(&l, chrome, policy);
    end(&l);
}

static void test_fedora(void **state)
{
    struct layout l;
    g_autofree char *system = concat(pems[ONE], pems[TWO]);
    g_autofree char *with_ca = concat(pems[CA], system);
    g_autofree char *hash = ca_hash();
    g_autofree char *name = concat(hash, ".0");
    struct entry e[8];
    gsize len;

    begin(&l, "fedora");
    file(&l, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", system, -1);
    file(&l, "/etc/pki/ca-trust/extracted/java/cacerts", "PKCS12?", -1);
    folder(&l, "/etc/pki/ca-trust/source/anchors");
    link_to(&l, "/etc/pki/tls/certs/ca-bundle.crt", "../../ca-trust/extracted/pem/tls-ca-bundle.pem");
    link_to(&l, "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
    link_to(&l, "/etc/pki/java/cacerts", "../ca-trust/extracted/java/cacerts");
    link_to(&l, "/etc/ssl/certs", "../pki/tls/certs");
    build(&l, NULL);

    expect_made(&l, "ca-bundle.pem", with_ca);
    /* One file under three names: covered once. */
    expect_cover(&l, "/etc/pki/tls/certs/ca-bundle.crt", with_ca);
    assert_null(covered(&l, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"));
    assert_null(covered(&l, "/etc/pki/tls/cert.pem"));
    /* One folder under two names. */
    expect_in_copy(&l, "/etc/ssl/certs", "slirp-med-ca.pem", pems[CA]);
    expect_link_in_copy(&l, "/etc/ssl/certs", name, "slirp-med-ca.pem");
    expect_link_in_copy(&l, "/etc/ssl/certs", "ca-bundle.crt", "../../ca-trust/extracted/pem/tls-ca-bundle.pem");
    assert_null(covered(&l, "/etc/pki/tls/certs"));
    expect_in_copy(&l, "/etc/pki/ca-trust/source/anchors", "slirp-med-ca.pem", pems[CA]);
    /* A store of another format is replaced by one of the system's certificates. */
    g_autofree char *java = made(&l, covered(&l, "/etc/pki/ca-trust/extracted/java/cacerts"), &len);
    assert_int_equal(read_jks((const uint8_t *)java, len, e, 8), 3);
    expect_entry(&e[0], "system-1", ONE);
    expect_entry(&e[1], "system-2", TWO);
    expect_entry(&e[2], "slirp-med", CA);
    end(&l);
}

static void test_alpine(void **state)
{
    struct layout l;
    g_autofree char *with_ca = concat(pems[CA], pems[ONE]);

    begin(&l, "alpine");
    file(&l, "/etc/ssl/certs/ca-certificates.crt", pems[ONE], -1);
    link_to(&l, "/etc/ssl/cert.pem", "certs/ca-certificates.crt");
    link_to(&l, "/etc/ssl/certs/ca-cert-One.pem", "/usr/share/ca-certificates/mozilla/One.crt");
    build(&l, NULL);
    expect_made(&l, "ca-bundle.pem", with_ca);
    expect_cover(&l, "/etc/ssl/certs/ca-certificates.crt", with_ca);
    assert_null(covered(&l, "/etc/ssl/cert.pem")); /* leads there */
    end(&l);

    /* Without the package: one file. */
    begin(&l, "alpine-small");
    file(&l, "/etc/ssl/cert.pem", pems[ONE], -1);
    build(&l, NULL);
    expect_made(&l, "ca-bundle.pem", with_ca);
    expect_cover(&l, "/etc/ssl/cert.pem", with_ca);
    assert_int_equal(sm_trust_n_covers(l.trust), 1);
    end(&l);
}

/** Nothing there: nothing covered, nothing made but ours; a folder for certificates gets a bundle. */
static void test_bare(void **state)
{
    struct layout l;

    begin(&l, "bare");
    build(&l, NULL);
    expect_made(&l, "ca-bundle.pem", pems[CA]);
    assert_int_equal(sm_trust_n_covers(l.trust), 0);
    assert_int_equal(rmdir(l.root), 0); /* still empty */
    assert_int_equal(mkdir(l.root, 0755), 0);
    end(&l);

    begin(&l, "folder");
    folder(&l, "/etc/ssl/certs");
    build(&l, NULL);
    expect_link_in_copy(&l, "/etc/ssl/certs", "ca-certificates.crt", "/run/slirp-med/ca-bundle.pem");
    assert_int_equal(sm_trust_n_covers(l.trust), 1);
    end(&l);
}

/** Links that lead out of the root end inside it; what is no file or folder is left alone; one that is too large too. */
static void test_links_and_oddities(void **state)
{
    struct layout l;
    g_autofree char *secret = g_build_filename(top, "secret.pem", NULL);
    g_autofree char *up = g_strconcat("../../../../../../../..", secret, NULL);
    g_autofree char *large = g_strnfill(SM_CERTS_FILE_MAX + 1, '#');

    assert_true(g_file_set_contents(secret, pems[OWN], -1, NULL));
    begin(&l, "links");
    link_to(&l, "/etc/ssl/certs/ca-certificates.crt", secret);
    link_to(&l, "/etc/pki/tls/certs/ca-bundle.crt", up);
    link_to(&l, "/etc/ssl/ca-bundle.pem", "/proc/self/root/etc/passwd");
    link_to(&l, "/etc/ssl/cert.pem", "cert.pem"); /* a loop */
    link_to(&l, "/etc/chromium", up);
    file(&l, "/etc/pki/tls/cert.pem", large, -1);
    folder(&l, "/var/lib/ca-certificates/ca-bundle.pem");
    folder(&l, "/etc/ssl/certs/java/cacerts");
    file(&l, "/etc/opt", "a file", -1);
    g_autofree char *fifo = concat(l.root, "/etc/ssl/certs/pipe");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    g_autofree char *file_variable = concat("SSL_CERT_FILE=", secret);
    g_autofree char *node_variable = concat("NODE_EXTRA_CA_CERTS=", up);
    char *env[] = {file_variable, node_variable, NULL};
    build(&l, env);
    expect_made(&l, "ca-bundle.pem", pems[CA]); /* nothing of what lies outside */
    for (size_t i = 0; i < sm_trust_n_covers(l.trust); i++) {
        const char *target = sm_trust_cover(l.trust, i)->target;
        if (strcmp(target, "/etc/ssl/certs") != 0 && strcmp(target, "/etc/pki/tls/certs") != 0)
            fail_msg("%s is covered", target);
    }
    g_autofree char *pipe = in_copy(&l, "/etc/ssl/certs", "pipe");
    g_autofree char *at = g_build_filename(l.dir, pipe, NULL);
    assert_int_equal(access(at, F_OK), -1);
    end(&l);

    /* The same name inside the root is taken. */
    begin(&l, "inside");
    file(&l, secret, pems[TWO], -1);
    link_to(&l, "/etc/ssl/certs/ca-certificates.crt", up);
    build(&l, NULL);
    g_autofree char *with_ca = concat(pems[CA], pems[TWO]);
    expect_made(&l, "ca-bundle.pem", with_ca);
    end(&l);

    /* A folder with more in it than is copied stays as it is, its bundle does not. */
    begin(&l, "crowd");
    file(&l, "/etc/ssl/certs/ca-certificates.crt", pems[ONE], -1);
    for (unsigned i = 0; i < SM_TRUST_FOLDER_ENTRIES; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "/etc/ssl/certs/%u", i);
        link_to(&l, name, "x");
    }
    build(&l, NULL);
    assert_null(covered(&l, "/etc/ssl/certs"));
    assert_non_null(covered(&l, "/etc/ssl/certs/ca-certificates.crt"));
    end(&l);

    /* In the place of a folder of ours: no trust for that program, and no failure. */
    begin(&l, "place");
    link_to(&l, "/etc/chromium/policies", "/nowhere");
    file(&l, "/etc/brave/policies", "a file", -1);
    build(&l, NULL);
    expect_in_copy(&l, "/etc/brave", "policies", "a file");
    expect_link_in_copy(&l, "/etc/chromium", "policies", "/nowhere");
    end(&l);
    (void)unlink(secret);
}

static const char *value(char **env, const char *name)
{
    return g_environ_getenv(env, name);
}

static void test_environment(void **state)
{
    struct layout l;
    static const char *const all[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
                                      "PIP_CERT",      "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
                                      "AWS_CA_BUNDLE", "DENO_CERT",      "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"};
    static const char java[] =
        "-Djavax.net.ssl.trustStore=/run/slirp-med/ca-bundle.jks -Djavax.net.ssl.trustStorePassword=changeit";

    begin(&l, "env");
    file(&l, "/etc/ssl/cert.pem", pems[ONE], -1);
    char *plain[] = {(char[]){"PATH=/bin"}, NULL};
    build(&l, plain);
    g_auto(GStrv) env = sm_trust_environment(l.trust, plain);
    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++)
        assert_string_equal(value(env, all[i]), "/run/slirp-med/ca-bundle.pem");
    assert_string_equal(value(env, "NODE_EXTRA_CA_CERTS"), "/run/slirp-med/slirp-med-ca.pem");
    assert_string_equal(value(env, "JAVA_TOOL_OPTIONS"), java);
    assert_string_equal(value(env, "PATH"), "/bin");
    assert_null(value(env, "SSL_CERT_DIR")); /* the default ones are covered */
    assert_int_equal(g_strv_length(env), SM_ARRAY_LEN(all) + 3);
    end(&l);

    /* The caller's own certificates stay trusted, whichever variable names them; their keys do not get in. */
    begin(&l, "env-own");
    g_autofree char *with_key = concat("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", pems[OWN]);
    file(&l, "/etc/ssl/cert.pem", pems[ONE], -1);
    file(&l, "/place/my.pem", with_key, -1);
    file(&l, "/home/two.pem", pems[TWO], -1);
    char *given[] = {(char[]){"SSL_CERT_FILE=my.pem"},
                     (char[]){"NODE_EXTRA_CA_CERTS=/home/two.pem"},
                     (char[]){"PIP_CERT=/none"},
                     (char[]){"CURL_CA_BUNDLE="},
                     (char[]){"SSL_CERT_DIR=/a:/b"},
                     (char[]){"JAVA_TOOL_OPTIONS=-Xmx64m"},
                     NULL};
    build(&l, given);
    g_autofree char *bundle = g_strconcat(pems[CA], pems[ONE], pems[TWO], pems[OWN], NULL);
    g_autofree char *node = concat(pems[CA], pems[TWO]);
    expect_made(&l, "ca-bundle.pem", bundle);
    expect_made(&l, "node-extra.pem", node);
    g_auto(GStrv) env2 = sm_trust_environment(l.trust, given);
    g_autofree char *options = concat("-Xmx64m ", java);
    assert_string_equal(value(env2, "SSL_CERT_FILE"), "/run/slirp-med/ca-bundle.pem");
    assert_string_equal(value(env2, "NODE_EXTRA_CA_CERTS"), "/run/slirp-med/node-extra.pem");
    assert_string_equal(value(env2, "SSL_CERT_DIR"), "/run/slirp-med/hashed:/a:/b");
    assert_string_equal(value(env2, "JAVA_TOOL_OPTIONS"), options);
    end(&l);
}

static void test_new(void **state)
{
    static const char *const no_certificates[] = {"", "x",
                                                  "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
    static const char *const no_hashes[] = {"", "0123456", "012345678", "0123456G", "0123456F", "../../ab"};
    g_autofree char *two = concat(pems[ONE], pems[TWO]);
    g_autofree char *hash = ca_hash();
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < SM_ARRAY_LEN(no_certificates); i++) {
        assert_null(sm_trust_new(no_certificates[i], strlen(no_certificates[i]), hash, &error));
        assert_non_null(error);
        g_clear_error(&error);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(no_hashes); i++) {
        assert_null(sm_trust_new(pems[CA], strlen(pems[CA]), no_hashes[i], &error));
        assert_non_null(error);
        g_clear_error(&error);
    }
    assert_null(sm_trust_new(two, strlen(two), hash, &error));
    assert_non_null(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certs),
        cmocka_unit_test(test_certs_are_bounded),
        cmocka_unit_test(test_jks),
        cmocka_unit_test(test_debian),
        cmocka_unit_test(test_fedora),
        cmocka_unit_test(test_alpine),
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_links_and_oddities),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_new),
        cmocka_unit_test(test_jks_with_keytool),
    };
    static const char *const names[] = {"workspace CA", "One", "Two", "Own"};

    g_strlcpy(top, "/tmp/sm-test-trust-XXXXXX", sizeof(top));
    if (!mkdtemp(top))
        return 1;
    for (int i = 0; i < CERTIFICATES; i++)
        make_certificate(i, names[i]);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < CERTIFICATES; i++) {
        g_free(pems[i]);
        X509_free(certificates[i]);
    }
    (void)rmdir(top);
    return r;
}
