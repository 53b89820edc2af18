/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trust in the workspace's CA, laid over what CMD sees; see guest_trust.h.
 *
 * Covering works in two kinds. A file is replaced by one with the CA added. A folder is replaced by a copy of it with files added: links as links,
 * files as copies (or what replaces them), folders as mounts of the originals; so that nothing else in it changes.
 */
#include "paths/guest_trust.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "paths/certs.h"
#include "paths/jks.h"
#include "paths/mount.h"

#define CA_NAME "slirp-med-ca.pem"
#define BUNDLE_NAME "ca-bundle.pem"
#define NODE_NAME "node-extra.pem"
#define JAVA_NAME "ca-bundle.jks"
#define HASHED_NAME "hashed"
#define POLICY_NAME "slirp-med.json"
#define JAVA_ALIAS "slirp-med"
/** Subject hashes may collide: NAME.0, NAME.1 ... */
#define HASH_SUFFIXES 10

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

/* Folders in which OpenSSL and its kin look a certificate up by the hash of its subject. */
static const char *const hashed_paths[] = {
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "/var/lib/ca-certificates/openssl",
};

/* Sources of p11-kit's trust module (GnuTLS and NSS of Fedora and Arch): every certificate in them is trusted. */
static const char *const anchor_paths[] = {
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
};

/* Chromium and its kin read managed policies below base; the deepest folder of the way that is there is covered. */
static const struct {
    const char *base, *rest;
} policy_paths[] = {
    {"/etc/chromium", "policies/managed"},   {"/etc/chromium-browser", "policies/managed"},
    {"/etc/opt", "chrome/policies/managed"}, {"/etc/opt", "chrome_for_testing/policies/managed"},
    {"/etc/opt", "edge/policies/managed"},   {"/etc/brave", "policies/managed"},
};

/* Read as "the CAs that I trust" by: OpenSSL, Python, Go, rustls, Ruby, PHP, .NET; curl; requests; pip; git; cargo; AWS; Deno; gRPC. */
static const char *const bundle_variables[] = {
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
    "PIP_CERT",      "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE", "DENO_CERT",      "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
};
#define NODE_VARIABLE "NODE_EXTRA_CA_CERTS"
#define DIR_VARIABLE "SSL_CERT_DIR"
#define JAVA_VARIABLE "JAVA_TOOL_OPTIONS"

/** A file that is covered, by what identifies it. */
struct store {
    dev_t dev;
    ino_t ino;
    char *source; /* in dir */
};

/** Something to be added to a folder's copy. */
struct addition {
    char *name; /* relative, may have folders in it */
    char *link; /* a symbolic link to this, or NULL: */
    const char *text;
};

struct folder {
    char *path;
    dev_t dev;
    ino_t ino;
    GArray *additions; /* struct addition */
    char *source;
    GPtrArray *kept; /* char *: folders in it, which stay as they are */
};

struct sm_trust {
    char *pem;               /* the CA, one normal block */
    char *hash;              /* of its subject, eight digits */
    char *policy;            /* Chromium's */
    struct sm_certs *bundle; /* ca-bundle.pem: the CA first, so that there is always room for it */
    struct sm_certs *extra;  /* node-extra.pem */
    int root, dir;
    GArray *covers;  /* struct sm_trust_cover: files */
    GArray *stores;  /* struct store */
    GArray *folders; /* struct folder, inner before outer once sorted */
    GArray *shown;   /* struct sm_trust_cover: files and folders */
    bool has_bundle; /* the file system that CMD sees has one */
    bool has_extra;  /* node-extra.pem is more than the CA */
};

/* ---- a new one ---- */

static void clear_cover(void *p)
{
    struct sm_trust_cover *c = p;
    g_free(c->target);
    g_free(c->source);
}

static void clear_store(void *p)
{
    g_free(((struct store *)p)->source);
}

static void clear_addition(void *p)
{
    struct addition *a = p;
    g_free(a->name);
    g_free(a->link);
}

static void clear_folder(void *p)
{
    struct folder *f = p;
    g_free(f->path);
    g_free(f->source);
    g_array_unref(f->additions);
    g_ptr_array_unref(f->kept);
}

static GArray *array_of(size_t size, GDestroyNotify clear)
{
    GArray *a = g_array_new(FALSE, TRUE, (guint)size);
    g_array_set_clear_func(a, clear);
    return a;
}

static bool subject_hash(const char *pem, size_t len, unsigned long *ret)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    int ok = 0;

    if (x)
        *ret = X509_NAME_hash_ex(X509_get_subject_name(x), NULL, NULL, &ok);
    X509_free(x);
    (void)BIO_free(bio);
    ERR_clear_error();
    return ok;
}

struct sm_trust *sm_trust_new(const char *pem, size_t len, GError **error)
{
    struct sm_certs *one = sm_certs_new();
    unsigned long hash = 0;
    struct sm_trust *t = NULL;

    if (len <= SM_TRUST_CA_MAX && sm_certs_add_pem(one, pem, len) == 1 && subject_hash(pem, len, &hash)) {
        size_t der_len;
        const uint8_t *der = sm_certs_get(one, 0, &der_len);
        g_autofree char *base64 = g_base64_encode(der, der_len);
        t = g_new0(struct sm_trust, 1);
        t->root = t->dir = -1;
        t->pem = g_string_free(sm_certs_pem(one), FALSE);
        t->hash = g_strdup_printf("%08lx", hash);
        t->bundle = sm_certs_new();
        t->extra = sm_certs_new();
        sm_certs_add_all(t->bundle, one);
        sm_certs_add_all(t->extra, one);
        t->policy = g_strdup_printf("{\"CACertificates\": [\"%s\"]}\n", base64);
        t->covers = array_of(sizeof(struct sm_trust_cover), clear_cover);
        t->shown = array_of(sizeof(struct sm_trust_cover), clear_cover);
        t->stores = array_of(sizeof(struct store), clear_store);
        t->folders = array_of(sizeof(struct folder), clear_folder);
    } else {
        sm_error_set(error, SM_ERROR_SYSTEM, "the workspace's CA is not one certificate in PEM");
    }
    sm_certs_free(one);
    return t;
}

void sm_trust_free(struct sm_trust *t)
{
    if (!t)
        return;
    g_free(t->pem);
    g_free(t->hash);
    g_free(t->policy);
    sm_certs_free(t->bundle);
    sm_certs_free(t->extra);
    g_array_unref(t->covers);
    g_array_unref(t->shown);
    g_array_unref(t->stores);
    g_array_unref(t->folders);
    g_free(t);
}

/* ---- looking things up inside CMD's root ---- */

static int open_inside(int root, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/** An O_PATH descriptor of a file or folder of that type, or -1: not there, or something else. */
static int find_inside(int root, const char *path, mode_t type, struct stat *ret_st)
{
    sm_autofd fd = open_inside(root, path, O_PATH);

    if (fd < 0 || fstat(fd, ret_st) < 0 || (ret_st->st_mode & S_IFMT) != type)
        return -1;
    return sm_steal_fd(&fd);
}

/** The content of what an O_PATH descriptor (of a regular file) stands for; NULL with errno. */
static char *read_found(int fd, size_t max, size_t *ret_len)
{
    g_autofree char *again = g_strdup_printf("/proc/self/fd/%d", fd);
    sm_autofd readable = open(again, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (readable < 0)
        return NULL;
    char *text = sm_fd_read_all(readable, max, ret_len, NULL);
    if (!text)
        errno = EFBIG;
    return text;
}

static const struct store *store_of(const struct sm_trust *t, const struct stat *st)
{
    for (guint i = 0; i < t->stores->len; i++) {
        const struct store *s = &g_array_index(t->stores, struct store, i);
        if (s->dev == st->st_dev && s->ino == st->st_ino)
            return s;
    }
    return NULL;
}

static int write_new(int dir, const char *name, const void *data, size_t len, mode_t mode, GError **error)
{
    sm_autofd fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 || sm_fd_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0) {
        sm_error_set_errno(error, errno, "write " SM_TRUST_DIR "/%s", name);
        return -1;
    }
    return 0;
}

static void show(struct sm_trust *t, const char *target, const char *source)
{
    struct sm_trust_cover c = {g_strdup(target), g_strdup(source)};
    g_array_append_val(t->shown, c);
}

/** Have a file covered by new content, under every name that leads to it. */
static int cover_store(struct sm_trust *t, const char *path, const struct stat *st, const void *data, size_t len,
                       GError **error)
{
    struct store s = {st->st_dev, st->st_ino, g_strdup_printf("store-%u", t->stores->len + 1)};
    struct sm_trust_cover c = {g_strdup(path), g_strdup(s.source)};

    g_array_append_val(t->stores, s);
    g_array_append_val(t->covers, c);
    show(t, path, s.source);
    return write_new(t->dir, s.source, data, len, 0444, error);
}

/* ---- bundles ---- */

static int write_pem(struct sm_trust *t, const char *name, const struct sm_certs *certs, GError **error)
{
    GString *text = sm_certs_pem(certs);
    int r = write_new(t->dir, name, text->str, text->len, 0444, error);
    (void)g_string_free(text, TRUE);
    return r;
}

/** Each bundle there gets the CA; the first one's certificates are the combined bundle's. */
static int cover_bundles(struct sm_trust *t, GError **error)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(bundle_paths); i++) {
        struct stat st;
        size_t len;
        sm_autofd fd = find_inside(t->root, bundle_paths[i], S_IFREG, &st);
        if (fd < 0 || store_of(t, &st))
            continue;
        g_autofree char *text = read_found(fd, SM_CERTS_FILE_MAX, &len);
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
    sm_autofd fd = find_inside(t->root, path, S_IFREG, &st);
    g_autofree char *text = fd < 0 ? NULL : read_found(fd, SM_CERTS_FILE_MAX, &len);

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
        if (g_strcmp0(variable(env, bundle_variables[i]), value) == 0)
            return true;
    return false;
}

static int make_bundles(struct sm_trust *t, char *const *env, const char *cwd, GError **error)
{
    const char *node = variable(env, NODE_VARIABLE);

    if (cover_bundles(t, error) < 0)
        return -1;
    if (node)
        add_named(t, node, cwd, t->extra);
    sm_certs_add_all(t->bundle, t->extra);
    t->has_extra = sm_certs_count(t->extra) > 1;
    for (size_t i = 0; i < SM_ARRAY_LEN(bundle_variables); i++) {
        const char *value = variable(env, bundle_variables[i]);
        if (value && g_strcmp0(value, node) != 0 && !named_before(env, i, value))
            add_named(t, value, cwd, t->bundle);
    }
    if (write_new(t->dir, CA_NAME, t->pem, strlen(t->pem), 0444, error) < 0 ||
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
static int make_java(struct sm_trust *t, GError **error)
{
    g_autoptr(GBytes) ours = NULL;

    for (size_t i = 0; i < SM_ARRAY_LEN(java_paths); i++) {
        struct stat st;
        size_t len;
        sm_autofd fd = find_inside(t->root, java_paths[i], S_IFREG, &st);
        if (fd < 0 || store_of(t, &st))
            continue;
        g_autofree char *data = read_found(fd, SM_JKS_MAX, &len);
        struct sm_jks *jks = data ? sm_jks_open((const uint8_t *)data, len) : NULL;
        g_autoptr(GBytes) store = java_finish(t, jks ? jks : java_from_bundle(t));
        if (cover_store(t, java_paths[i], &st, g_bytes_get_data(store, NULL), g_bytes_get_size(store), error) < 0)
            return -1;
        if (!ours)
            ours = g_bytes_ref(store);
    }
    if (!ours)
        ours = java_finish(t, java_from_bundle(t));
    return write_new(t->dir, JAVA_NAME, g_bytes_get_data(ours, NULL), g_bytes_get_size(ours), 0444, error);
}

/* ---- folders ---- */

/** The plan for a folder: one, however many names it has. */
static struct folder *plan_folder(struct sm_trust *t, const char *path)
{
    struct stat st;
    sm_autofd fd = find_inside(t->root, path, S_IFDIR, &st);

    if (fd < 0)
        return NULL;
    for (guint i = 0; i < t->folders->len; i++) {
        struct folder *f = &g_array_index(t->folders, struct folder, i);
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f;
    }
    struct folder f = {.path = g_strdup(path),
                       .dev = st.st_dev,
                       .ino = st.st_ino,
                       .additions = array_of(sizeof(struct addition), clear_addition),
                       .kept = g_ptr_array_new_with_free_func(g_free)};
    g_array_append_val(t->folders, f);
    return &g_array_index(t->folders, struct folder, t->folders->len - 1);
}

/** Takes name and link over. */
static void add_to(struct folder *f, char *name, char *link, const char *text)
{
    struct addition a = {name, link, text};
    for (guint i = 0; i < f->additions->len; i++) {
        if (strcmp(g_array_index(f->additions, struct addition, i).name, name) == 0) {
            clear_addition(&a);
            return;
        }
    }
    g_array_append_val(f->additions, a);
}

/** "HASH.n" with the first n that is not taken in the folder. */
static char *hashed_name(const struct sm_trust *t, const char *path)
{
    struct stat st;
    sm_autofd fd = find_inside(t->root, path, S_IFDIR, &st);

    for (unsigned n = 0; n < HASH_SUFFIXES; n++) {
        g_autofree char *name = g_strdup_printf("%s.%u", t->hash, n);
        if (fd < 0 || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return g_steal_pointer(&name);
    }
    return g_strdup_printf("%s.0", t->hash); /* ours in place of one of ten */
}

static void plan_policy(struct sm_trust *t, const char *base, const char *rest)
{
    g_autofree char *path = g_strconcat(base, "/", rest, NULL);

    /* From the deepest folder upwards: what is missing below it is made in its copy. */
    for (;;) {
        struct folder *f = plan_folder(t, path);
        if (f) {
            g_autofree char *whole = g_strconcat(base, "/", rest, "/" POLICY_NAME, NULL);
            add_to(f, g_strdup(whole + strlen(path) + 1), NULL, t->policy);
            return;
        }
        if (strcmp(path, base) == 0)
            return;
        *strrchr(path, '/') = '\0';
    }
}

static void plan_folders(struct sm_trust *t)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(hashed_paths); i++) {
        struct folder *f = plan_folder(t, hashed_paths[i]);
        if (!f)
            continue;
        add_to(f, g_strdup(CA_NAME), NULL, t->pem);
        if (f->additions->len == 1)
            add_to(f, hashed_name(t, hashed_paths[i]), g_strdup(CA_NAME), NULL);
        /* A Debian without the package ca-certificates has the folder alone; GnuTLS reads nothing but this file in it. */
        if (i == 0 && !t->has_bundle)
            add_to(f, g_strdup("ca-certificates.crt"), g_strdup(SM_TRUST_DIR "/" BUNDLE_NAME), NULL);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(anchor_paths); i++) {
        struct folder *f = plan_folder(t, anchor_paths[i]);
        if (f)
            add_to(f, g_strdup(CA_NAME), NULL, t->pem);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(policy_paths); i++)
        plan_policy(t, policy_paths[i].base, policy_paths[i].rest);
}

static bool is_addition(const struct folder *f, const char *name)
{
    for (guint i = 0; i < f->additions->len; i++)
        if (strcmp(g_array_index(f->additions, struct addition, i).name, name) == 0)
            return true;
    return false;
}

/** One entry of the original; *bytes counts. Returns 0, or -1 with error set, or 1: too much. */
static int copy_entry(struct sm_trust *t, struct folder *f, int from, int to, const char *name, size_t *bytes,
                      GError **error)
{
    struct stat st;
    const struct store *store;
    int r = 0;

    if (is_addition(f, name) || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (S_ISLNK(st.st_mode)) {
        char link[PATH_MAX];
        ssize_t n = readlinkat(from, name, link, sizeof(link) - 1);
        if (n < 0)
            return 0;
        link[n] = '\0';
        r = symlinkat(link, to, name);
    } else if (S_ISDIR(st.st_mode)) {
        r = mkdirat(to, name, 0755);
        if (r == 0)
            g_ptr_array_add(f->kept, g_strdup(name));
    } else if (S_ISREG(st.st_mode) && (store = store_of(t, &st)) != NULL) {
        r = linkat(t->dir, store->source, to, name, 0);
    } else if (S_ISREG(st.st_mode)) {
        size_t len = 0;
        sm_autofd fd = openat(from, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        g_autofree char *data = fd < 0 ? NULL : read_found(fd, SM_TRUST_FOLDER_BYTES, &len);
        if (!data && errno == EFBIG)
            return 1;
        *bytes += len;
        if (*bytes > SM_TRUST_FOLDER_BYTES)
            return 1;
        /* What cannot be read: CMD could not either, and finds an empty file without permissions. */
        return write_new(to, name, data, data ? len : 0, data ? st.st_mode & 0555 : 0, error);
    }
    if (r < 0) {
        sm_error_set_errno(error, errno, "copy %s/%s", f->path, name);
        return -1;
    }
    return 0;
}

static int copy_folder(struct sm_trust *t, struct folder *f, int to, GError **error)
{
    struct stat st;
    sm_autofd path_fd = find_inside(t->root, f->path, S_IFDIR, &st);
    int from = path_fd < 0 ? -1 : openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = from < 0 ? NULL : fdopendir(from);
    size_t entries = 0, bytes = 0;
    struct dirent *e;
    int r = 0;

    if (!dir) {
        sm_log_warning("%s does not get the workspace's CA: %s", f->path, g_strerror(errno));
        if (from >= 0)
            (void)close(from);
        return 1;
    }
    while (r == 0 && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        r = ++entries > SM_TRUST_FOLDER_ENTRIES ? 1 : copy_entry(t, f, from, to, e->d_name, &bytes, error);
    }
    (void)closedir(dir);
    if (r > 0)
        sm_log_warning("%s does not get the workspace's CA: there is too much in it", f->path);
    return r;
}

/** Something of that name there already (a file where we want a folder, a link that leads nowhere) stays. */
static int make_addition(const struct addition *a, int to, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(a->name, "/", -1);
    guint last = g_strv_length(parts) - 1;
    sm_autofd at = fcntl(to, F_DUPFD_CLOEXEC, 3);
    struct stat st;

    for (guint i = 0; i < last && at >= 0; i++) {
        int next = -1;
        if (mkdirat(at, parts[i], 0755) == 0 || errno == EEXIST)
            next = openat(at, parts[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int err = errno;
        sm_fd_close(&at);
        errno = err;
        at = next;
    }
    bool taken = at < 0 ? errno == ENOTDIR || errno == ELOOP : fstatat(at, parts[last], &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (taken) {
        sm_log_warning("%s: something else is in its place", a->name);
        return 0;
    }
    if (at >= 0 && !a->link)
        return write_new(at, parts[last], a->text, strlen(a->text), 0444, error);
    if (at < 0 || symlinkat(a->link, at, parts[last]) < 0) {
        sm_error_set_errno(error, errno, "make %s", a->name);
        return -1;
    }
    return 0;
}

static int make_folder(struct sm_trust *t, struct folder *f, unsigned number, GError **error)
{
    g_autofree char *name = g_strdup_printf("folder-%u", number);

    if (mkdirat(t->dir, name, 0755) < 0) {
        sm_error_set_errno(error, errno, "make " SM_TRUST_DIR "/%s", name);
        return -1;
    }
    sm_autofd to = openat(t->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0) {
        sm_error_set_errno(error, errno, "open " SM_TRUST_DIR "/%s", name);
        return -1;
    }
    int r = copy_folder(t, f, to, error);
    if (r != 0)
        return SM_MIN(r, 0); /* left as it is, or failed */
    for (guint i = 0; i < f->additions->len; i++)
        if (make_addition(&g_array_index(f->additions, struct addition, i), to, error) < 0)
            return -1;
    f->source = g_steal_pointer(&name);
    show(t, f->path, f->source);
    return 0;
}

/** The deeper one first: an outer copy shows it as a mount of what is there by then. */
static int compare_depth(const void *a, const void *b)
{
    const struct folder *x = a, *y = b;
    size_t m = strlen(x->path), n = strlen(y->path);
    return m < n ? 1 : m > n ? -1 : strcmp(x->path, y->path);
}

static int make_folders(struct sm_trust *t, GError **error)
{
    plan_folders(t);
    g_array_sort(t->folders, compare_depth);
    for (guint i = 0; i < t->folders->len; i++)
        if (make_folder(t, &g_array_index(t->folders, struct folder, i), i + 1, error) < 0)
            return -1;
    return 0;
}

static int make_hashed(struct sm_trust *t, GError **error)
{
    struct addition certificate = {(char[]){CA_NAME}, NULL, t->pem};
    g_autofree char *name = g_strconcat(t->hash, ".0", NULL);
    struct addition link = {name, (char[]){CA_NAME}, NULL};
    sm_autofd to =
        mkdirat(t->dir, HASHED_NAME, 0755) < 0 ? -1 : openat(t->dir, HASHED_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0) {
        sm_error_set_errno(error, errno, "make " SM_TRUST_DIR "/" HASHED_NAME);
        return -1;
    }
    return make_addition(&certificate, to, error) < 0 ? -1 : make_addition(&link, to, error);
}

int sm_trust_build(struct sm_trust *t, int root, int dir, char *const *env, const char *cwd, GError **error)
{
    t->root = root;
    t->dir = dir;
    /* Files before folders: a folder's copy holds what replaces them. */
    if (make_bundles(t, env, cwd, error) < 0 || make_java(t, error) < 0 || make_hashed(t, error) < 0 ||
        make_folders(t, error) < 0)
        return -1;
    return 0;
}

size_t sm_trust_n_covers(const struct sm_trust *t)
{
    return t->shown->len;
}

const struct sm_trust_cover *sm_trust_cover(const struct sm_trust *t, size_t i)
{
    return &g_array_index(t->shown, struct sm_trust_cover, (guint)i);
}

/* ---- mounts ---- */

/** Lay source over target. The folders kept in a copy bring their own attributes: only the top is restricted. */
static int lay_over(struct sm_trust *t, const char *source, const char *target, unsigned flags, GError **error)
{
    sm_autofd at = open_inside(t->root, target, O_PATH);
    sm_autofd tree = at < 0 ? -1 : sm_mount_clone(t->dir, source, flags);

    if (tree < 0 ||
        sm_mount_restrict(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0) < 0 ||
        sm_mount_attach(tree, at) < 0) {
        sm_error_set_errno(error, errno, "%s: lay the trust in the workspace's CA over it", target);
        return -1;
    }
    return 0;
}

static int attach_folder(struct sm_trust *t, const struct folder *f, GError **error)
{
    for (guint i = 0; i < f->kept->len; i++) {
        const char *name = g_ptr_array_index(f->kept, i);
        g_autofree char *original = g_strconcat(f->path, "/", name, NULL);
        g_autofree char *place = g_strconcat(f->source, "/", name, NULL);
        sm_autofd from = open_inside(t->root, original, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        sm_autofd tree = from < 0 ? -1 : sm_mount_clone(from, "", AT_EMPTY_PATH | AT_RECURSIVE);
        sm_autofd at = openat(t->dir, place, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (tree < 0 || at < 0 || sm_mount_attach(tree, at) < 0) {
            sm_error_set_errno(error, errno, "keep %s", original);
            return -1;
        }
    }
    return lay_over(t, f->source, f->path, AT_RECURSIVE, error);
}

int sm_trust_attach(struct sm_trust *t, GError **error)
{
    for (guint i = 0; i < t->covers->len; i++) {
        const struct sm_trust_cover *c = &g_array_index(t->covers, struct sm_trust_cover, i);
        if (lay_over(t, c->source, c->target, 0, error) < 0)
            return -1;
    }
    for (guint i = 0; i < t->folders->len; i++) {
        const struct folder *f = &g_array_index(t->folders, struct folder, i);
        if (f->source && attach_folder(t, f, error) < 0)
            return -1;
    }
    if (sm_mount_restrict(t->dir, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0) <
        0) {
        sm_error_set_errno(error, errno, "make " SM_TRUST_DIR " read-only");
        return -1;
    }
    return 0;
}

/* ---- variables ---- */

char **sm_trust_environment(const struct sm_trust *t, char *const *env)
{
    static const char java[] =
        "-Djavax.net.ssl.trustStore=" SM_TRUST_DIR "/" JAVA_NAME " -Djavax.net.ssl.trustStorePassword=" SM_JKS_PASSWORD;
    char **new = g_strdupv((char **)(uintptr_t)env);

    for (size_t i = 0; i < SM_ARRAY_LEN(bundle_variables); i++)
        new = g_environ_setenv(new, bundle_variables[i], SM_TRUST_DIR "/" BUNDLE_NAME, TRUE);
    new = g_environ_setenv(new, NODE_VARIABLE, t->has_extra ? SM_TRUST_DIR "/" NODE_NAME : SM_TRUST_DIR "/" CA_NAME,
                           TRUE);
    g_autofree char *dirs = g_strdup(g_environ_getenv(new, DIR_VARIABLE));
    if (dirs && *dirs) { /* the default ones are covered */
        g_autofree char *value = g_strconcat(SM_TRUST_DIR "/" HASHED_NAME ":", dirs, NULL);
        new = g_environ_setenv(new, DIR_VARIABLE, value, TRUE);
    }
    /* Of two settings of one property Java takes the later one. */
    g_autofree char *options = g_strdup(g_environ_getenv(new, JAVA_VARIABLE));
    g_autofree char *value = g_strconcat(options ? options : "", options && *options ? " " : "", java, NULL);
    return g_environ_setenv(new, JAVA_VARIABLE, value, TRUE);
}
