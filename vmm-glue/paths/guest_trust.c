/* SPDX-License-Identifier: BSD-3-Clause */
/* Trust in the workspace's CA: its life, look-ups inside CMD's root, the mounts and the variables; see guest_trust.h. */
#include "paths/guest_trust.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "paths/guest_trust_internal.h"
#include "paths/jks.h"
#include "paths/mount.h"

#define DIR_VARIABLE "SSL_CERT_DIR"
#define JAVA_VARIABLE "JAVA_TOOL_OPTIONS"

/* Read as "the CAs that I trust" by: OpenSSL, Python, Go, rustls, Ruby, PHP, .NET; curl; requests; pip; git; cargo; AWS; Deno; gRPC. */
const char *const sm_trust_variables[] = {
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    NULL,
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

GArray *sm_trust_array(size_t size, GDestroyNotify clear)
{
    GArray *a = g_array_new(FALSE, TRUE, (guint)size);
    g_array_set_clear_func(a, clear);
    return a;
}

struct sm_trust *sm_trust_new(const char *pem, size_t len, const char *hash, GError **error)
{
    struct sm_certs *one = sm_certs_new();
    struct sm_trust *t = NULL;

    if (len <= SM_TRUST_CA_MAX && sm_certs_add_pem(one, pem, len) == 1 && strlen(hash) == SM_TRUST_HASH_LEN &&
        strspn(hash, "0123456789abcdef") == SM_TRUST_HASH_LEN) {
        size_t der_len;
        const uint8_t *der = sm_certs_get(one, 0, &der_len);
        g_autofree char *base64 = g_base64_encode(der, der_len);
        t = g_new0(struct sm_trust, 1);
        t->root = t->dir = -1;
        t->pem = g_string_free(sm_certs_pem(one), FALSE);
        t->hash = g_strdup(hash);
        t->bundle = sm_certs_new();
        t->extra = sm_certs_new();
        sm_certs_add_all(t->bundle, one);
        sm_certs_add_all(t->extra, one);
        t->policy = g_strdup_printf("{\"CACertificates\": [\"%s\"]}\n", base64);
        t->covers = sm_trust_array(sizeof(struct sm_trust_cover), clear_cover);
        t->shown = sm_trust_array(sizeof(struct sm_trust_cover), clear_cover);
        t->stores = sm_trust_array(sizeof(struct store), clear_store);
        t->folders = sm_trust_array(sizeof(struct folder), sm_trust_clear_folder);
    } else {
        sm_error_set(error, SM_ERROR_SYSTEM,
                     "the workspace's CA is not one certificate in PEM and the hash of its subject");
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

/**
 * Is it one of the kernel's own file systems? guest-init may read there what CMD may not: its own environment, with what
 * CMD's was cleared of, is /proc/1/environ.
 */
static bool is_kernels(int fd)
{
    static const unsigned long magic[] = {PROC_SUPER_MAGIC,   SYSFS_MAGIC,    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                          DEBUGFS_MAGIC,      TRACEFS_MAGIC,  SECURITYFS_MAGIC,   BPF_FS_MAGIC,
                                          DEVPTS_SUPER_MAGIC, PSTOREFS_MAGIC, EFIVARFS_MAGIC,     BINFMTFS_MAGIC};
    struct statfs st;

    if (fstatfs(fd, &st) < 0)
        return true;
    for (size_t i = 0; i < SM_ARRAY_LEN(magic); i++)
        if ((unsigned long)st.f_type == magic[i])
            return true;
    return false;
}

int sm_trust_find(int root, const char *path, mode_t type, struct stat *ret_st)
{
    sm_autofd fd = open_inside(root, path, O_PATH);

    if (fd < 0 || fstat(fd, ret_st) < 0 || (ret_st->st_mode & S_IFMT) != type || is_kernels(fd))
        return -1;
    return sm_steal_fd(&fd);
}

char *sm_trust_read(int fd, size_t max, size_t *ret_len)
{
    g_autofree char *again = g_strdup_printf("/proc/self/fd/%d", fd);
    sm_autofd readable = open(again, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (readable < 0)
        return NULL;
    if (is_kernels(readable)) {
        errno = EACCES;
        return NULL;
    }
    char *text = sm_fd_read_all(readable, max, ret_len, NULL);
    if (!text)
        errno = EFBIG;
    return text;
}

const struct store *sm_trust_store_of(const struct sm_trust *t, const struct stat *st)
{
    for (guint i = 0; i < t->stores->len; i++) {
        const struct store *s = &g_array_index(t->stores, struct store, i);
        if (s->dev == st->st_dev && s->ino == st->st_ino)
            return s;
    }
    return NULL;
}

int sm_trust_write(int dir, const char *name, const void *data, size_t len, mode_t mode, GError **error)
{
    sm_autofd fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 || sm_fd_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0) {
        sm_error_set_errno(error, errno, "write " SM_TRUST_DIR "/%s", name);
        return -1;
    }
    return 0;
}

void sm_trust_show(struct sm_trust *t, const char *target, const char *source)
{
    struct sm_trust_cover c = {g_strdup(target), g_strdup(source), false};
    g_array_append_val(t->shown, c);
}

int sm_trust_build(struct sm_trust *t, int root, int dir, char *const *env, const char *cwd, GError **error)
{
    t->root = root;
    t->dir = dir;
    /* Files before folders: a folder's copy holds what replaces them. */
    if (sm_trust_make_bundles(t, env, cwd, error) < 0 || sm_trust_make_java(t, error) < 0 ||
        sm_trust_make_hashed(t, error) < 0 || sm_trust_make_folders(t, error) < 0 ||
        sm_trust_make_nss(t, env, error) < 0)
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

/**
 * What we have made, to be mounted. A program of CMD's root has run since then, with our user id (guest_nss.h): a link that it may have left in
 * the place of source would lead to what a mount of ours covers, because a clone shows what lies below.
 */
static int open_ours(const struct sm_trust *t, const char *source)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    return (int)syscall(SYS_openat2, t->dir, source, &how, sizeof(how));
}

/** Lay source over target. The folders kept in a copy bring their own attributes: only the top is restricted. */
static int lay_over(struct sm_trust *t, const char *source, const char *target, unsigned flags, bool writable,
                    GError **error)
{
    uint64_t attributes =
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (writable ? 0 : (uint64_t)MOUNT_ATTR_RDONLY);
    sm_autofd at = open_inside(t->root, target, O_PATH);
    sm_autofd from = at < 0 ? -1 : open_ours(t, source);
    sm_autofd tree = from < 0 ? -1 : sm_mount_clone(from, "", flags | AT_EMPTY_PATH);

    if (tree < 0 || sm_mount_restrict(tree, attributes, 0) < 0 || sm_mount_attach(tree, at) < 0) {
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
        sm_autofd at = open_ours(t, place);
        if (tree < 0 || at < 0 || sm_mount_attach(tree, at) < 0) {
            sm_error_set_errno(error, errno, "keep %s", original);
            return -1;
        }
    }
    return lay_over(t, f->source, f->path, AT_RECURSIVE, false, error);
}

int sm_trust_attach(struct sm_trust *t, GError **error)
{
    for (guint i = 0; i < t->covers->len; i++) {
        const struct sm_trust_cover *c = &g_array_index(t->covers, struct sm_trust_cover, i);
        if (lay_over(t, c->source, c->target, 0, c->writable, error) < 0)
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

    for (size_t i = 0; sm_trust_variables[i]; i++)
        new = g_environ_setenv(new, sm_trust_variables[i], SM_TRUST_DIR "/" BUNDLE_NAME, TRUE);
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
