/* SPDX-License-Identifier: BSD-3-Clause */
/* Trust in the workspace's CA: folders that are replaced by copies; see guest_trust_internal.h. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "paths/guest_trust_internal.h"

#define POLICY_NAME "slirp-med.json"
/** Subject hashes may collide: NAME.0, NAME.1 ... */
#define HASH_SUFFIXES 10

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

static void clear_addition(void *p)
{
    struct addition *a = p;
    g_free(a->name);
    g_free(a->link);
}

void sm_trust_clear_folder(void *p)
{
    struct folder *f = p;
    g_free(f->path);
    g_free(f->source);
    g_array_unref(f->additions);
    g_ptr_array_unref(f->kept);
}

/* ---- folders ---- */

/** The plan for a folder: one, however many names it has. */
static struct folder *plan_folder(struct sm_trust *t, const char *path)
{
    struct stat st;
    sm_autofd fd = sm_trust_find(t->root, path, S_IFDIR, &st);

    if (fd < 0)
        return NULL;
    for (guint i = 0; i < t->folders->len; i++) {
        struct folder *f = &g_array_index(t->folders, struct folder, i);
        g_assert(f);
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f;
    }
    struct folder f = {.path = g_strdup(path),
                       .dev = st.st_dev,
                       .ino = st.st_ino,
                       .additions = sm_trust_array(sizeof(struct addition), clear_addition),
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
    sm_autofd fd = sm_trust_find(t->root, path, S_IFDIR, &st);

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
static int copy_entry(struct sm_trust *t, struct folder *f, int from, int to, const struct dirent *e, size_t *bytes,
                      GError **error)
{
    const char *name = e->d_name;
    struct stat st = {.st_mode = S_IFLNK};
    const struct store *store;
    int r = 0;

    /* Hundreds of links: those are not asked for more than where they lead. */
    if (is_addition(f, name) || (e->d_type != DT_LNK && fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0))
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
    } else if (S_ISREG(st.st_mode) && (store = sm_trust_store_of(t, &st)) != NULL) {
        r = linkat(t->dir, store->source, to, name, 0);
    } else if (S_ISREG(st.st_mode)) {
        size_t len = 0;
        sm_autofd fd = openat(from, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        g_autofree char *data = fd < 0 ? NULL : sm_trust_read(fd, SM_TRUST_FOLDER_BYTES, &len);
        if (!data && errno == EFBIG)
            return 1;
        *bytes += len;
        if (*bytes > SM_TRUST_FOLDER_BYTES)
            return 1;
        /* What cannot be read: CMD could not either, and finds an empty file without permissions. */
        return sm_trust_write(to, name, data, data ? len : 0, data ? st.st_mode & 0555 : 0, error);
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
    sm_autofd path_fd = sm_trust_find(t->root, f->path, S_IFDIR, &st);
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
        r = ++entries > SM_TRUST_FOLDER_ENTRIES ? 1 : copy_entry(t, f, from, to, e, &bytes, error);
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
        return sm_trust_write(at, parts[last], a->text, strlen(a->text), 0444, error);
    if (at < 0 || symlinkat(a->link, at, parts[last]) < 0) {
        sm_error_set_errno(error, errno, "make %s", a->name);
        return -1;
    }
    return 0;
}

/** What was copied of a folder that is left as it is takes memory and helps nobody. */
static void remove_copy(const struct sm_trust *t, const char *name, int to)
{
    int again = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    struct dirent *e;

    if (!dir && again >= 0)
        (void)close(again);
    while (dir && (e = readdir(dir)) != NULL)
        if (unlinkat(to, e->d_name, 0) < 0) /* a folder in it is empty yet */
            (void)unlinkat(to, e->d_name, AT_REMOVEDIR);
    if (dir)
        (void)closedir(dir);
    (void)unlinkat(t->dir, name, AT_REMOVEDIR);
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
    if (r > 0)
        remove_copy(t, name, to);
    if (r != 0)
        return SM_MIN(r, 0); /* left as it is, or failed */
    for (guint i = 0; i < f->additions->len; i++)
        if (make_addition(&g_array_index(f->additions, struct addition, i), to, error) < 0)
            return -1;
    f->source = g_steal_pointer(&name);
    sm_trust_show(t, f->path, f->source);
    return 0;
}

/** The deeper one first: an outer copy shows it as a mount of what is there by then. */
static int compare_depth(const void *a, const void *b)
{
    const struct folder *x = a, *y = b;
    size_t m = strlen(x->path), n = strlen(y->path);
    return m < n ? 1 : m > n ? -1 : strcmp(x->path, y->path);
}

int sm_trust_make_folders(struct sm_trust *t, GError **error)
{
    plan_folders(t);
    g_array_sort(t->folders, compare_depth);
    for (guint i = 0; i < t->folders->len; i++)
        if (make_folder(t, &g_array_index(t->folders, struct folder, i), i + 1, error) < 0)
            return -1;
    return 0;
}

int sm_trust_make_hashed(struct sm_trust *t, GError **error)
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
