/* SPDX-License-Identifier: BSD-3-Clause */
/* Trust in the workspace's CA: the files in which a distribution and a user keep theirs; see guest_trust_internal.h. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "paths/guest_nss.h"
#include "paths/guest_trust_internal.h"
#include "paths/jks.h"

#define CERTUTIL "/usr/bin/certutil"
#define JAVA_ALIAS "slirp-med"

/* Bundles, the ways of Debian, Alpine, Arch; Fedora; SUSE; Alpine and BSD. */
static const char *const bundle_paths[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

static const char *const java_paths[] = {
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/etc/pki/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
};

/** Have a file covered by new content, under every name that leads to it. */
static int cover_store(struct sm_trust *t, const char *path, const struct stat *st, const void *data, size_t len,
                       GError **error)
{
    struct store s = {st->st_dev, st->st_ino, g_strdup_printf("store-%u", t->stores->len + 1)};
    struct sm_trust_cover c = {g_strdup(path), g_strdup(s.source), false};

    g_array_append_val(t->stores, s);
    g_array_append_val(t->covers, c);
    sm_trust_show(t, path, s.source);
    return sm_trust_write(t->dir, s.source, data, len, 0444, error);
}

/* ---- bundles ---- */

static int write_pem(struct sm_trust *t, const char *name, const struct sm_certs *certs, GError **error)
{
    GString *text = sm_certs_pem(certs);
    int r = sm_trust_write(t->dir, name, text->str, text->len, 0444, error);
    (void)g_string_free(text, TRUE);
    return r;
}

/** Each bundle there gets the CA; the first one's certificates are the combined bundle's. */
static int cover_bundles(struct sm_trust *t, GError **error)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(bundle_paths); i++) {
        struct stat st;
        size_t len;
        sm_autofd fd = sm_trust_find(t->root, bundle_paths[i], S_IFREG, &st);
        if (fd < 0 || sm_trust_store_of(t, &st))
            continue;
        g_autofree char *text = sm_trust_read(fd, SM_CERTS_FILE_MAX, &len);
        if (!text) {
            sm_log_warning("%s does not get the workspace's CA: %s", bundle_paths[i], g_strerror(errno));
            continue;
        }
        struct sm_certs *own = sm_certs_new();
        (void)sm_certs_add_pem(own, t->pem, strlen(t->pem));
        (void)sm_certs_add_pem(own, text, len);
        if (!t->has_bundle)
            sm_certs_add_all(t->bundle, own);
        t->has_bundle = true;
        GString *pem = sm_certs_pem(own);
        int r = cover_store(t, bundle_paths[i], &st, pem->str, pem->len, error);
        (void)g_string_free(pem, TRUE);
        sm_certs_free(own);
        if (r < 0)
            return -1;
    }
    return 0;
}

/** The certificates of a file that the caller's variable names. */
static void add_named(const struct sm_trust *t, const char *value, const char *cwd, struct sm_certs *certs)
{
    g_autofree char *path = g_canonicalize_filename(value, cwd);
    struct stat st;
    size_t len;
    sm_autofd fd = sm_trust_find(t->root, path, S_IFREG, &st);
    g_autofree char *text = fd < 0 ? NULL : sm_trust_read(fd, SM_CERTS_FILE_MAX, &len);

    if (text)
        (void)sm_certs_add_pem(certs, text, len);
}

static const char *variable(char *const *env, const char *name)
{
    const char *value = g_environ_getenv((char **)(uintptr_t)env, name);
    return value && *value ? value : NULL;
}

/** Often all of them name the same file. */
static bool named_before(char *const *env, size_t n, const char *value)
{
    for (size_t i = 0; i < n; i++)
        if (g_strcmp0(variable(env, sm_trust_variables[i]), value) == 0)
            return true;
    return false;
}

int sm_trust_make_bundles(struct sm_trust *t, char *const *env, const char *cwd, GError **error)
{
    const char *node = variable(env, NODE_VARIABLE);

    if (cover_bundles(t, error) < 0)
        return -1;
    if (node)
        add_named(t, node, cwd, t->extra);
    sm_certs_add_all(t->bundle, t->extra);
    t->has_extra = sm_certs_count(t->extra) > 1;
    for (size_t i = 0; sm_trust_variables[i]; i++) {
        const char *value = variable(env, sm_trust_variables[i]);
        if (value && g_strcmp0(value, node) != 0 && !named_before(env, i, value))
            add_named(t, value, cwd, t->bundle);
    }
    if (sm_trust_write(t->dir, CA_NAME, t->pem, strlen(t->pem), 0444, error) < 0 ||
        write_pem(t, BUNDLE_NAME, t->bundle, error) < 0 || write_pem(t, NODE_NAME, t->extra, error) < 0)
        return -1;
    return 0;
}

/* ---- Java ---- */

/** A store of all that the combined bundle holds, but the CA. */
static struct sm_jks *java_from_bundle(const struct sm_trust *t)
{
    struct sm_jks *jks = sm_jks_new();

    for (size_t i = 1; i < sm_certs_count(t->bundle); i++) {
        size_t len;
        const uint8_t *der = sm_certs_get(t->bundle, i, &len);
        g_autofree char *alias = g_strdup_printf("system-%zu", i);
        sm_jks_add(jks, alias, 0, der, len);
    }
    return jks;
}

static GBytes *java_finish(const struct sm_trust *t, struct sm_jks *jks)
{
    size_t len;
    const uint8_t *der = sm_certs_get(t->bundle, 0, &len);
    sm_jks_add(jks, JAVA_ALIAS, 0, der, len);
    return sm_jks_finish(jks);
}

/** Each store there gets the CA, or is replaced when it is of another format; the first begins ours too (it may hold an administrator's own). */
int sm_trust_make_java(struct sm_trust *t, GError **error)
{
    g_autoptr(GBytes) ours = NULL;

    for (size_t i = 0; i < SM_ARRAY_LEN(java_paths); i++) {
        struct stat st;
        size_t len;
        sm_autofd fd = sm_trust_find(t->root, java_paths[i], S_IFREG, &st);
        if (fd < 0 || sm_trust_store_of(t, &st))
            continue;
        g_autofree char *data = sm_trust_read(fd, SM_JKS_MAX, &len);
        struct sm_jks *jks = data ? sm_jks_open((const uint8_t *)data, len) : NULL;
        g_autoptr(GBytes) store = java_finish(t, jks ? jks : java_from_bundle(t));
        if (cover_store(t, java_paths[i], &st, g_bytes_get_data(store, NULL), g_bytes_get_size(store), error) < 0)
            return -1;
        if (!ours)
            ours = g_bytes_ref(store);
    }
    if (!ours)
        ours = java_finish(t, java_from_bundle(t));
    return sm_trust_write(t->dir, JAVA_NAME, g_bytes_get_data(ours, NULL), g_bytes_get_size(ours), 0444, error);
}

/* ---- NSS ---- */

/** A copy of each database of the home folder, with the CA trusted in it. Without certutil, or where it fails, the database stays as it is. */
int sm_trust_make_nss(struct sm_trust *t, char *const *env, GError **error)
{
    struct stat st;
    sm_autofd program = sm_trust_find(t->root, CERTUTIL, S_IFREG, &st);
    g_auto(GStrv) paths = sm_nss_paths(env);

    for (unsigned i = 0; program >= 0 && paths[i]; i++) {
        g_autofree char *name = g_strdup_printf("nss-%u", i + 1);
        g_autofree char *folder = g_build_filename(SM_TRUST_DIR, name, NULL);
        sm_autofd found = sm_trust_find(t->root, paths[i], S_IFDIR, &st);
        if (found < 0)
            continue;
        sm_autofd to = mkdirat(t->dir, name, 0700) < 0 ? -1 : openat(t->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (to < 0) {
            sm_error_set_errno(error, errno, "make %s", folder);
            return -1;
        }
        if (!sm_nss_copy(found, to) || !sm_nss_add(program, folder, SM_TRUST_DIR "/" CA_NAME)) {
            sm_log_info("%s does not get the workspace's CA (a password?)", paths[i]);
            continue;
        }
        struct sm_trust_cover c = {g_strdup(paths[i]), g_strdup(name), true};
        g_array_append_val(t->covers, c);
        sm_trust_show(t, paths[i], name);
    }
    return 0;
}
