/* SPDX-License-Identifier: BSD-3-Clause */
/* Install the certificate; see install.h. */
#include "guest/install.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/tool.h"

#define DIR_OURS "/etc/slirp-med"
#define CA DIR_OURS "/ca.pem"
#define BUNDLE DIR_OURS "/ca-bundle.pem"
#define ENV_FILE DIR_OURS "/env"
#define PROFILE "/etc/profile.d/slirp-med.sh"
#define PATH_SIZE 256
/**
 * A file while it is written: this, the process's number. What such a process left behind when it was killed is swept
 * up by the next.
 */
#define TEMPORARY ".slirp-med-new."
/** The files of the variables. */
#define ENV_MAX 4096

const char *const sm_layout_names[] = {
    [SM_LAYOUT_DEBIAN] = "debian", [SM_LAYOUT_FEDORA] = "fedora", [SM_LAYOUT_ALPINE] = "alpine",
    [SM_LAYOUT_NONE] = "none",     [SM_LAYOUT_AUTO] = "auto",
};
SM_NAME_TABLE_COVERS(sm_layout_names, SM_LAYOUTS);

static const struct layout {
    const char *anchor, *tool;
    const char *argument; /* always, or NULL */
    const char *fresh;    /* when a certificate was replaced or removed, or NULL */
} layouts[] = {
    /* Debian's makes the links by subject hash anew only for names it has not seen, unless it is told to. */
    [SM_LAYOUT_DEBIAN] = {"/usr/local/share/ca-certificates/slirp-med.crt", "update-ca-certificates", NULL, "--fresh"},
    [SM_LAYOUT_FEDORA] = {"/etc/pki/ca-trust/source/anchors/slirp-med.pem", "update-ca-trust", "extract", NULL},
    [SM_LAYOUT_ALPINE] = {"/usr/local/share/ca-certificates/slirp-med.crt", "update-ca-certificates", NULL, NULL},
    [SM_LAYOUT_NONE] = {NULL, NULL, NULL, NULL},
    [SM_LAYOUT_AUTO] = {NULL, NULL, NULL, NULL},
};
SM_NAME_TABLE_COVERS(layouts, SM_LAYOUTS);

/* What only that layout has; the first that is there decides. Alpine has a folder of Debian's too. */
static const struct {
    const char *path;
    enum sm_layout layout;
} signs[] = {
    {"/etc/pki/ca-trust/source/anchors", SM_LAYOUT_FEDORA},
    {"/etc/alpine-release", SM_LAYOUT_ALPINE},
    {"/etc/debian_version", SM_LAYOUT_DEBIAN},
    {"/etc/ca-certificates.conf", SM_LAYOUT_DEBIAN},
    {"/usr/share/ca-certificates", SM_LAYOUT_DEBIAN},
    {"/usr/local/share/ca-certificates", SM_LAYOUT_DEBIAN},
};

/* Bundles, as in paths/guest_stores.c. */
static const char *const bundle_paths[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

/*
 * As sm_trust_variables of paths/guest_trust.h; Node adds the file to its own list, so that the certificate alone is
 * enough.
 */
static const struct {
    const char *name, *value;
} variables[] = {
    {"SSL_CERT_FILE", BUNDLE},   {"CURL_CA_BUNDLE", BUNDLE}, {"REQUESTS_CA_BUNDLE", BUNDLE},
    {"PIP_CERT", BUNDLE},        {"GIT_SSL_CAINFO", BUNDLE}, {"CARGO_HTTP_CAINFO", BUNDLE},
    {"AWS_CA_BUNDLE", BUNDLE},   {"DENO_CERT", BUNDLE},      {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", BUNDLE},
    {"NODE_EXTRA_CA_CERTS", CA},
};

/** One run. */
struct job {
    const struct sm_install *i;
    struct sm_report *r;
    int root;
    bool failed, noted; /* noted: what was said of the system's bundles need not be said again */
};

/* ---- names inside the root ---- */

static int open_inside(int root, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
    struct stat a, b;

    /* Before Linux 5.6: no harm where the root is everybody's. */
    if (fd < 0 && errno == ENOSYS) {
        if (fstat(root, &a) == 0 && stat("/", &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
            return open(path, (int)flags | O_CLOEXEC);
        errno = ENOSYS;
    }
    return fd;
}

static bool is_there(int root, const char *path)
{
    sm_guest_autofd fd = open_inside(root, path, O_PATH);
    return fd >= 0;
}

static int open_root(const char *path)
{
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/** The folder of a path, made with its parents if make. */
static int open_folder(int root, const char *path, bool make)
{
    char part[PATH_SIZE];
    size_t whole = (size_t)(strrchr(path, '/') - path);
    sm_guest_autofd fd = -1;

    if (whole >= sizeof(part)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t at = 0; at < whole;) {
        size_t name = at + 1;
        at = name + strcspn(path + name, "/");
        memcpy(part, path, at);
        part[at] = '\0';
        int next = open_inside(root, part, O_PATH | O_DIRECTORY);
        if (next < 0 && errno == ENOENT && make) {
            if (mkdirat(fd < 0 ? root : fd, part + name, 0755) < 0 && errno != EEXIST)
                return -1;
            next = open_inside(root, part, O_PATH | O_DIRECTORY);
        }
        if (next < 0)
            return -1;
        sm_guest_close(&fd);
        fd = next;
    }
    int stolen = fd;
    fd = -1;
    return stolen;
}

/** All of a regular file, for free(); NULL with errno. */
static char *read_file(int fd, size_t max, size_t *ret_len)
{
    struct stat st;
    size_t len = 0;

    if (fstat(fd, &st) < 0)
        return NULL;
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)max) {
        errno = S_ISREG(st.st_mode) ? EFBIG : EINVAL;
        return NULL;
    }
    char *text = malloc((size_t)st.st_size + 1);
    while (text && len < (size_t)st.st_size) {
        ssize_t n = sm_guest_read(fd, text + len, (size_t)st.st_size - len);
        if (n < 0) {
            free(text);
            return NULL;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_len = len;
    return text;
}

static char *read_path(int root, const char *path, size_t max, size_t *ret_len)
{
    sm_guest_autofd fd = open_inside(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? NULL : read_file(fd, max, ret_len);
}

/* ---- files of ours ---- */

static void free_text(char **text)
{
    free(*text);
}
#define autotext sm_cleanup(free_text) char *

static void fail(struct job *j, const char *what, const char *path)
{
    sm_report_error(j->r, "cannot %s %s%s: %s", what, strcmp(j->i->root, "/") == 0 ? "" : j->i->root, path,
                    strerror(errno));
    j->failed = true;
}

/** Is it what we would write? A link is not: it is replaced, and what it leads to is left alone. */
static bool is_right(int folder, const char *name, const char *data, size_t len)
{
    sm_guest_autofd fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    size_t have;

    if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & 07777) != 0644 || st.st_size != (off_t)len)
        return false;
    autotext text = read_file(fd, len, &have);
    return text && have == len && memcmp(text, data, len) == 0;
}

static void sweep(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    while (dir && (e = readdir(dir)) != NULL)
        if (strncmp(e->d_name, TEMPORARY, strlen(TEMPORARY)) == 0)
            (void)unlinkat(folder, e->d_name, 0);
    if (dir)
        (void)closedir(dir);
    else
        sm_guest_close(&fd);
}

/** Returns 0 or -1 with errno; nothing is left behind. */
static int replace(int folder, const char *name, const char *data, size_t len)
{
    char temporary[sizeof(TEMPORARY) + 16];

    sweep(folder);
    (void)snprintf(temporary, sizeof(temporary), TEMPORARY "%ld", (long)getpid());
    sm_guest_autofd fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    /* No fsync: what a power loss spoils, the run after the next boot finds and writes again. */
    if (sm_guest_write_all(fd, data, len) == 0 && fchmod(fd, 0644) == 0 &&
        renameat(folder, temporary, folder, name) == 0)
        return 0;
    int saved = errno;
    (void)unlinkat(folder, temporary, 0);
    errno = saved;
    return -1;
}

/** Returns whether it was, or would be, written. */
static bool put(struct job *j, const char *path, const char *data, size_t len)
{
    const char *name = strrchr(path, '/') + 1;

    if (j->failed)
        return false;
    sm_guest_autofd folder = open_folder(j->root, path, !j->i->dry_run);
    if (folder < 0 && !(j->i->dry_run && errno == ENOENT)) {
        fail(j, "make the folder of", path);
        return false;
    }
    if (folder >= 0 && is_right(folder, name, data, len)) {
        sm_report_file(j->r, path, SM_FILE_UNCHANGED);
        return false;
    }
    if (!j->i->dry_run && replace(folder, name, data, len) < 0) {
        fail(j, "write", path);
        return false;
    }
    sm_report_file(j->r, path, SM_FILE_WRITTEN);
    return true;
}

/** Returns whether it was, or would be, removed. */
static bool take_away(struct job *j, const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    sm_guest_autofd folder = open_folder(j->root, path, false);
    struct stat st;

    if (j->failed || folder < 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    if (!j->i->dry_run) {
        sweep(folder);
        if (unlinkat(folder, name, 0) < 0) {
            fail(j, "remove", path);
            return false;
        }
    }
    sm_report_file(j->r, path, SM_FILE_REMOVED);
    return true;
}

/* ---- the distribution's store ---- */

static enum sm_layout find_layout(int root)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(signs); i++)
        if (is_there(root, signs[i].path))
            return signs[i].layout;
    return SM_LAYOUT_NONE;
}

/** The guest's own bundle without ours and former ones. */
struct system {
    char *text;
    size_t len;
    bool has_cert; /* it held ours */
};

static void read_system(struct job *j, const struct sm_guest_cert *cert, struct system *s)
{
    free(s->text);
    *s = (struct system){0};
    for (size_t i = 0; i < SM_ARRAY_LEN(bundle_paths); i++) {
        size_t len, count;
        autotext text = read_path(j->root, bundle_paths[i], SM_GUEST_BUNDLE_MAX, &len);
        if (!text) {
            if (errno != ENOENT && errno != ENOTDIR && !j->noted)
                sm_report_note(j->r, "%s is not used: %s", bundle_paths[i], strerror(errno));
            continue;
        }
        char *out = malloc(len + 1);
        if (!out)
            abort();
        size_t kept = sm_guest_bundle_filter(text, len, cert, out, &count, &s->has_cert);
        if (count == 0 && !s->has_cert) {
            free(out);
            continue;
        }
        s->text = out;
        s->len = kept;
        j->r->system_bundle = bundle_paths[i];
        j->r->system_count = count;
        break;
    }
    j->noted = true;
}

/** Have the store made anew. fresh: something is gone from it. */
static void update(struct job *j, const struct layout *l, bool fresh)
{
    static char path[PATH_SIZE];
    const char *argv[SM_GUEST_TOOL_ARGS] = {NULL};
    size_t n = 1;

    j->r->update_tool = l->tool;
    if (strcmp(j->i->root, "/") != 0) {
        j->r->update = SM_UPDATE_SKIPPED;
        sm_report_note(j->r, "%s was not run: nothing is run in another root; run it there", l->tool);
        return;
    }
    argv[0] = sm_guest_tool_find(l->tool, path, sizeof(path));
    if (!argv[0]) {
        j->r->update = SM_UPDATE_MISSING;
        sm_report_note(j->r,
                       "%s is not there: the system's store stays as it is, the variables lead to the combined bundle",
                       l->tool);
        return;
    }
    if (j->i->dry_run) {
        j->r->update = SM_UPDATE_SKIPPED;
        sm_report_note(j->r, "%s would be run", argv[0]);
        return;
    }
    if (l->argument)
        argv[n++] = l->argument;
    if (fresh && l->fresh)
        argv[n++] = l->fresh;
    (void)fflush(stdout);
    int status = sm_guest_tool_run(argv, SM_GUEST_TOOL_SECONDS);
    j->r->update = status == 0 ? SM_UPDATE_DONE : SM_UPDATE_FAILED;
    if (status < 0)
        sm_report_error(j->r, "%s: %s", argv[0], strerror(errno));
    else if (status > 0)
        sm_report_error(j->r, "%s failed with status %d", argv[0], status);
    else if (!j->r->json)
        printf("run: %s%s%s\n", argv[0], argv[1] ? " " : "", argv[1] ? argv[1] : "");
}

/** Was another certificate put there before? */
static bool was_other(struct job *j, const char *path, const struct sm_guest_cert *cert)
{
    static struct sm_guest_cert old;
    size_t len;
    autotext text = path ? read_path(j->root, path, SM_GUEST_PEM_MAX, &len) : NULL;

    return text && sm_guest_pem_check(text, len, &old) == SM_PEM_NONE &&
           (old.der_len != cert->der_len || memcmp(old.der, cert->der, old.der_len) != 0);
}

/* ---- all of it ---- */

static void put_bundle(struct job *j, const struct sm_guest_cert *cert, const struct system *s)
{
    autotext all = malloc(cert->pem_len + s->len);

    if (!all)
        abort();
    memcpy(all, cert->pem, cert->pem_len);
    if (s->len > 0)
        memcpy(all + cert->pem_len, s->text, s->len);
    if (!s->text)
        sm_report_note(j->r,
                       "this system has no bundle of certificates: the combined bundle holds the workspace's alone");
    (void)put(j, BUNDLE, all, cert->pem_len + s->len);
}

/** The variables, a line each. */
static size_t write_variables(char *out, size_t size, const char *before, const char *head)
{
    size_t used = (size_t)snprintf(out, size, "%s", head);

    for (size_t i = 0; i < SM_ARRAY_LEN(variables) && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s=%s\n", before, variables[i].name, variables[i].value);
    return used;
}

static void put_variables(struct job *j)
{
    char text[ENV_MAX];

    (void)put(j, ENV_FILE, text, write_variables(text, sizeof(text), "", ""));
    (void)put(j, PROFILE, text,
              write_variables(text, sizeof(text), "export ",
                              "# Written by slirp-med-guest: programs trust the certificate of this workspace.\n"));
}

static bool start(struct job *j, const struct sm_install *i, struct sm_report *r)
{
    *j = (struct job){.i = i, .r = r, .root = open_root(i->root)};
    r->root = i->root;
    r->dry_run = i->dry_run;
    if (j->root < 0) {
        sm_report_error(r, "%s: %s", i->root, strerror(errno));
        return false;
    }
    return true;
}

static enum sm_guest_status finish(struct job *j)
{
    sm_guest_close(&j->root);
    return j->failed || j->r->update == SM_UPDATE_FAILED ? SM_GUEST_NOT_WRITTEN : SM_GUEST_DONE;
}

enum sm_guest_status sm_guest_install(const struct sm_install *i, const struct sm_guest_cert *cert, struct sm_report *r)
{
    struct job j;

    if (!start(&j, i, r))
        return SM_GUEST_NOT_WRITTEN;
    enum sm_layout layout = i->layout == SM_LAYOUT_AUTO ? find_layout(j.root) : i->layout;
    const struct layout *l = &layouts[layout];
    struct system s = {0};

    r->layout = sm_layout_names[layout];
    r->replaced = was_other(&j, CA, cert) || was_other(&j, l->anchor, cert);
    bool written = l->anchor && put(&j, l->anchor, cert->pem, cert->pem_len);
    read_system(&j, cert, &s);
    if (l->tool && !j.failed) {
        if (written || !s.has_cert) {
            update(&j, l, r->replaced);
            read_system(&j, cert, &s);
        } else {
            r->update_tool = l->tool;
            r->update = SM_UPDATE_CURRENT;
        }
    }
    (void)put(&j, CA, cert->pem, cert->pem_len);
    put_bundle(&j, cert, &s);
    put_variables(&j);
    free(s.text);
    return finish(&j);
}

enum sm_guest_status sm_guest_uninstall(const struct sm_install *i, struct sm_report *r)
{
    static const char *const ours[] = {PROFILE, ENV_FILE, BUNDLE, CA};
    struct job j;

    if (!start(&j, i, r))
        return SM_GUEST_NOT_WRITTEN;
    enum sm_layout found = i->layout == SM_LAYOUT_AUTO ? find_layout(j.root) : i->layout;
    r->layout = sm_layout_names[found];
    /* Alpine's anchor is Debian's. */
    for (enum sm_layout l = SM_LAYOUT_DEBIAN; l <= SM_LAYOUT_FEDORA; l++) {
        bool mine = layouts[found].anchor && strcmp(layouts[found].anchor, layouts[l].anchor) == 0;
        if (take_away(&j, layouts[l].anchor) && mine && !j.failed)
            update(&j, &layouts[found], true);
    }
    for (size_t k = 0; k < SM_ARRAY_LEN(ours); k++)
        (void)take_away(&j, ours[k]);
    if (!i->dry_run && !j.failed) {
        sm_guest_autofd etc = open_folder(j.root, DIR_OURS, false);
        if (etc >= 0) /* stays when somebody else has put something into it */
            (void)unlinkat(etc, strrchr(DIR_OURS, '/') + 1, AT_REMOVEDIR);
    }
    return finish(&j);
}

bool sm_guest_print_env(const char *root)
{
    char text[ENV_MAX];
    sm_guest_autofd fd = open_root(root);

    if (fd < 0 || !is_there(fd, BUNDLE) || !is_there(fd, CA))
        return false;
    (void)write_variables(text, sizeof(text), "export ", "");
    return fputs(text, stdout) >= 0 && fflush(stdout) == 0;
}
