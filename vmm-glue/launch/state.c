/* SPDX-License-Identifier: BSD-3-Clause */
/* A workspace's folder, lock and settings; see state.h. */
#include "launch/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/event.h"
#include "audit/file.h"
#include "base/error.h"
#include "base/log.h"
#include "launch/keepca.h"
#include "launch/restore.h"
#include "supervisor/control.h"

#define LOCK_TRIES 5
#define LOCK_PAUSE_US 5000

bool sm_state_name_check(const char *name, GError **error)
{
    if (sm_audit_name_valid(name))
        return true;
    g_autofree char *shown = g_strescape(name, NULL);
    sm_error_set(
        error, SM_ERROR_INVALID,
        "'%.80s' is no workspace name: use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        shown);
    return false;
}

char *sm_state_name_new(void)
{
    guint32 r;
    if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
        r = g_random_int(); /* a name, not a secret */
    return g_strdup_printf("run-%08x", r);
}

char *sm_state_default_base(GError **error)
{
    const char *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (xdg && xdg[0] == '/') /* the XDG specification: a relative one is to be ignored */
        return g_build_filename(xdg, "slirp-med", NULL);
    if (!home || home[0] != '/') {
        const struct passwd *pw = getpwuid(geteuid());
        home = pw ? pw->pw_dir : NULL;
    }
    if (!home || home[0] != '/') {
        sm_error_set(
            error, SM_ERROR_MISSING,
            "there is no home folder to keep workspaces in: set HOME or XDG_STATE_HOME, or give --state-dir DIR");
        return NULL;
    }
    return g_build_filename(home, ".local", "state", "slirp-med", NULL);
}

/** Could another user put something else in place of what lies in this folder? */
static int check_base(int fd, const char *path, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "state folder %s", path);
        return -1;
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "state folder %s belongs to another user (uid %u): give --state-dir a folder of your own", path,
                     (unsigned)st.st_uid);
        return -1;
    }
    if ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "others can write to state folder %s: chmod go-w %s, or give --state-dir another folder", path,
                     path);
        return -1;
    }
    return 0;
}

static int check_workspace(int fd, const char *base, const char *name, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "workspace folder %s/%s", base, name);
        return -1;
    }
    if (st.st_uid != geteuid()) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "workspace folder %s/%s belongs to another user (uid %u): choose another --name", base, name,
                     (unsigned)st.st_uid);
        return -1;
    }
    if (st.st_mode & 077) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "workspace folder %s/%s is open to others (mode %04o): chmod 700 it if you trust what is in it",
                     base, name, (unsigned)st.st_mode & 07777);
        return -1;
    }
    return 0;
}

int sm_state_base_open(const char *state_dir, bool create, char **ret_base, GError **error)
{
    g_autofree char *wanted = state_dir ? g_canonicalize_filename(state_dir, NULL) : sm_state_default_base(error);

    if (!wanted)
        return -1;
    if (create && g_mkdir_with_parents(wanted, 0700) < 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "the state folder %s cannot be made (%s): give --state-dir a folder that can, or correct %s",
                     wanted, strerror(errno), getenv("XDG_STATE_HOME") ? "XDG_STATE_HOME" : "HOME");
        return -1;
    }
    char *real = realpath(wanted, NULL);
    if (!real) {
        if (errno == ENOENT)
            sm_error_set(error, SM_ERROR_INVALID, "no folder %s", wanted);
        else
            sm_error_set_errno(error, errno, "state folder %s", wanted);
        return -1;
    }
    g_autofree char *base = g_strdup(real);
    free(real);
    sm_autofd base_fd = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (base_fd < 0) {
        sm_error_set_errno(error, errno, "open state folder %s", base);
        return -1;
    }
    if (check_base(base_fd, base, error) < 0)
        return -1;
    *ret_base = g_steal_pointer(&base);
    return sm_steal_fd(&base_fd);
}

int sm_workspace_open(const char *state_dir, const char *name, bool create, struct sm_workspace *ret, GError **error)
{
    g_autofree char *base = NULL;
    bool created = false;

    if (!sm_state_name_check(name, error))
        return -1;
    sm_autofd base_fd = sm_state_base_open(state_dir, create, &base, error);
    if (base_fd < 0) {
        if (error && g_str_has_prefix((*error)->message, "no folder "))
            g_prefix_error(error, "there is no workspace '%s': ", name);
        return -1;
    }
    if (create) {
        created = mkdirat(base_fd, name, 0700) == 0;
        if (!created && errno != EEXIST) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "the workspace folder %s/%s cannot be made (%s): give --state-dir another folder", base, name,
                         strerror(errno));
            return -1;
        }
    }
    sm_autofd dirfd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dirfd < 0) {
        if (errno == ENOENT)
            sm_error_set(error, SM_ERROR_INVALID, "there is no workspace '%s' in %s", name, base);
        else if (errno == ENOTDIR || errno == ELOOP)
            sm_error_set(error, SM_ERROR_INVALID, "%s/%s is not a folder: remove it or choose another --name", base,
                         name);
        else
            sm_error_set_errno(error, errno, "open workspace folder %s/%s", base, name);
        return -1;
    }
    if (check_workspace(dirfd, base, name, error) < 0)
        return -1;
    *ret = (struct sm_workspace){.name = g_strdup(name),
                                 .base = g_steal_pointer(&base),
                                 .base_fd = sm_steal_fd(&base_fd),
                                 .dirfd = sm_steal_fd(&dirfd),
                                 .lock_fd = -1,
                                 .created = created};
    return 0;
}

void sm_workspace_unlock(struct sm_workspace *ws)
{
    if (ws->lock_fd >= 0)
        (void)!ftruncate(ws->lock_fd, 0); /* before the lock goes: the next holder's pid must stay */
    sm_fd_close(&ws->lock_fd);
}

void sm_workspace_close(struct sm_workspace *ws)
{
    sm_workspace_unlock(ws);
    sm_fd_close(&ws->dirfd);
    sm_fd_close(&ws->base_fd);
    g_clear_pointer(&ws->name, g_free);
    g_clear_pointer(&ws->base, g_free);
}

static int open_lock(const struct sm_workspace *ws, int flags)
{
    return openat(ws->dirfd, SM_STATE_LOCK, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
}

static pid_t read_pid(int fd)
{
    char text[16] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    return (pid_t)strtol(text, NULL, 10);
}

/** Those who only ask whether it runs hold the lock shared for microseconds: do not take one of them for a holder. */
static int lock_exclusively(int fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -1;
        g_usleep(LOCK_PAUSE_US);
    }
    errno = EWOULDBLOCK;
    return -1;
}

int sm_workspace_lock(struct sm_workspace *ws, GError **error)
{
    char text[16];
    sm_autofd fd = open_lock(ws, O_RDWR | O_CREAT);

    if (fd < 0) {
        sm_error_set_errno(error, errno, "open %s/%s/" SM_STATE_LOCK, ws->base, ws->name);
        return -1;
    }
    if (lock_exclusively(fd) < 0) {
        if (errno != EWOULDBLOCK) {
            sm_error_set_errno(error, errno, "lock workspace '%s'", ws->name);
            return -1;
        }
        pid_t pid = read_pid(fd);
        g_autofree char *holder =
            pid > 0 ? g_strdup_printf("pid %d", (int)pid) : g_strdup("a process that is starting");
        sm_error_set(error, SM_ERROR_BUSY,
                     "workspace '%s' is already running (%s): end it with 'slirp-med stop %s', or choose another name",
                     ws->name, holder, ws->name);
        return -1;
    }
    ws->crashed_pid = read_pid(fd);
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        sm_error_set_errno(error, errno, "write %s/%s/" SM_STATE_LOCK, ws->base, ws->name);
        return -1;
    }
    ws->lock_fd = sm_steal_fd(&fd);
    return 0;
}

int sm_workspace_holder(const struct sm_workspace *ws, pid_t *ret_pid)
{
    sm_autofd fd = open_lock(ws, O_RDONLY);

    *ret_pid = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0; /* given back by close */
    if (errno != EWOULDBLOCK)
        return -1;
    *ret_pid = read_pid(fd);
    return 1;
}

int sm_workspace_open_own(const struct sm_workspace *ws, const char *name, GError **error)
{
    struct stat st;
    sm_autofd fd = openat(ws->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0) {
        int saved = errno;
        sm_error_set_errno(error, saved, "open %s/%s/%s", ws->base, ws->name, name);
        errno = saved;
        return -1;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1 || (st.st_mode & 077)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s/%s/%s is not a plain file of yours with mode 0600: look at who made it", ws->base, ws->name,
                     name);
        errno = EPERM;
        return -1;
    }
    return sm_steal_fd(&fd);
}

static const char *const state_names[] = {
    [SM_WORKSPACE_EMPTY] = "empty",     [SM_WORKSPACE_CREATED] = "created", [SM_WORKSPACE_RESTORED] = "restored",
    [SM_WORKSPACE_RUNNING] = "running", [SM_WORKSPACE_STOPPED] = "stopped", [SM_WORKSPACE_CRASHED] = "crashed",
};
SM_NAME_TABLE_COVERS(state_names, SM_WORKSPACE_STATES);

const char *sm_workspace_state_name(enum sm_workspace_state state)
{
    return (unsigned)state < SM_WORKSPACE_STATES ? state_names[state] : "invalid";
}

static bool has_file(const struct sm_workspace *ws, const char *name)
{
    struct stat st;
    return fstatat(ws->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int sm_workspace_look(const struct sm_workspace *ws, enum sm_workspace_state *ret, pid_t *ret_pid)
{
    sm_autofd fd = open_lock(ws, O_RDONLY);
    pid_t pid = 0;

    if (fd < 0 && errno != ENOENT)
        return -1;
    if (fd >= 0) {
        bool held = flock(fd, LOCK_SH | LOCK_NB) < 0;
        if (held && errno != EWOULDBLOCK)
            return -1;
        pid = read_pid(fd);
        if (held || pid > 0) {
            *ret = held ? SM_WORKSPACE_RUNNING : SM_WORKSPACE_CRASHED;
            *ret_pid = pid;
            return 0;
        }
    }
    *ret_pid = 0;
    bool created = has_file(ws, SM_STATE_CREATED);
    if (created && !has_file(ws, SM_STATE_EXIT))
        *ret = has_file(ws, SM_STATE_RESTORED) ? SM_WORKSPACE_RESTORED : SM_WORKSPACE_CREATED;
    else
        *ret = created || has_file(ws, SM_STATE_SETTINGS) ? SM_WORKSPACE_STOPPED : SM_WORKSPACE_EMPTY;
    return 0;
}

int sm_workspace_stage(const struct sm_workspace *ws, const char *name, const void *data, size_t len, GError **error)
{
    g_autofree char *new_name = g_strconcat(name, SM_STATE_NEW, NULL);

    (void)unlinkat(ws->dirfd, new_name, 0);
    sm_autofd fd = openat(ws->dirfd, new_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 && sm_fd_write_all(fd, data, len) == 0)
        return 0;
    sm_error_set_errno(error, errno, "write %s/%s/%s", ws->base, ws->name, name);
    (void)unlinkat(ws->dirfd, new_name, 0);
    return -1;
}

int sm_workspace_commit(const struct sm_workspace *ws, const char *name, GError **error)
{
    g_autofree char *new_name = g_strconcat(name, SM_STATE_NEW, NULL);

    if (renameat(ws->dirfd, new_name, ws->dirfd, name) == 0)
        return 0;
    sm_error_set_errno(error, errno, "write %s/%s/%s", ws->base, ws->name, name);
    (void)unlinkat(ws->dirfd, new_name, 0);
    return -1;
}

int sm_workspace_write_file(const struct sm_workspace *ws, const char *name, const char *text, GError **error)
{
    return sm_workspace_stage(ws, name, text, strlen(text), error) == 0 ? sm_workspace_commit(ws, name, error) : -1;
}

char *sm_workspace_read_file(const struct sm_workspace *ws, const char *name, size_t max, size_t *ret_len,
                             GError **error)
{
    struct stat st;
    sm_autofd fd = openat(ws->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "open %s/%s/%s", ws->base, ws->name, name);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s/%s/%s is not a regular file", ws->base, ws->name, name);
        return NULL;
    }
    char *text = sm_fd_read_all(fd, max, ret_len, error);
    if (!text)
        g_prefix_error(error, "%s/%s/%s: ", ws->base, ws->name, name);
    return text;
}

int sm_workspace_write_settings(const struct sm_workspace *ws, const char *text, GError **error)
{
    return sm_workspace_write_file(ws, SM_STATE_SETTINGS, text, error);
}

char *sm_workspace_read_settings(const struct sm_workspace *ws, GError **error)
{
    return sm_workspace_read_file(ws, SM_STATE_SETTINGS, SM_STATE_SETTINGS_MAX, NULL, error);
}

/** A file that nobody has open and no other name leads to: an old one goes, the new one must be made by this call. */
static int new_file(const struct sm_workspace *ws, const char *name, GError **error)
{
    if (unlinkat(ws->dirfd, name, 0) < 0 && errno != ENOENT) {
        sm_error_set_errno(error, errno, "replace %s/%s/%s", ws->base, ws->name, name);
        return -1;
    }
    int fd = openat(ws->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        sm_error_set_errno(error, errno, "make %s/%s/%s", ws->base, ws->name, name);
    return fd;
}

int sm_workspace_new_ca(const struct sm_workspace *ws, struct sm_workspace_ca *ret, GError **error)
{
    sm_autofd key = new_file(ws, SM_STATE_CA_KEY, error);
    sm_autofd cert = key < 0 ? -1 : new_file(ws, SM_STATE_CA_CERT, error);
    sm_autofd guest = -1;
    struct stat made, found;

    if (cert < 0)
        goto fail;
    guest = openat(ws->dirfd, SM_STATE_CA_CERT, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (guest < 0 || fstat(cert, &made) < 0 || fstat(guest, &found) < 0 || made.st_dev != found.st_dev ||
        made.st_ino != found.st_ino) {
        sm_error_set(error, SM_ERROR_SYSTEM, "%s/%s/" SM_STATE_CA_CERT " was exchanged while it was made", ws->base,
                     ws->name);
        goto fail;
    }
    ret->key_fd = sm_steal_fd(&key);
    ret->cert_fd = sm_steal_fd(&cert);
    ret->guest_fd = sm_steal_fd(&guest);
    return 0;
fail:
    (void)unlinkat(ws->dirfd, SM_STATE_CA_KEY, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_CA_CERT, 0);
    return -1;
}

void sm_workspace_ca_close(struct sm_workspace_ca *ca)
{
    sm_fd_close(&ca->key_fd);
    sm_fd_close(&ca->cert_fd);
    sm_fd_close(&ca->guest_fd);
}

void sm_workspace_drop_ca(const struct sm_workspace *ws, bool key_alone)
{
    if (unlinkat(ws->dirfd, SM_STATE_CA_KEY, 0) < 0 && errno != ENOENT)
        sm_log_error("%s/%s/" SM_STATE_CA_KEY " cannot be removed (%s): remove it", ws->base, ws->name,
                     strerror(errno));
    if (!key_alone)
        (void)unlinkat(ws->dirfd, SM_STATE_CA_CERT, 0);
}

/** counters.json behind fd: the caller's own regular file, of one name, closed to others, and right. */
static bool check_counters(const struct sm_workspace *ws, int fd, struct sm_counters *ret, GError **error)
{
    struct stat st;
    size_t len;

    if (fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "read %s/%s/" SM_STATE_COUNTERS, ws->base, ws->name);
        return false;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1 || (st.st_mode & 077)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s/%s/" SM_STATE_COUNTERS " is not a plain file of yours with mode 0600: look at who made it",
                     ws->base, ws->name);
        return false;
    }
    g_autoptr(GError) local = NULL;
    g_autofree char *text = sm_fd_read_all(fd, SM_COUNTERS_FILE, &len, &local);
    if (!text || !sm_counters_decode(text, len, ret, &local)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s/%s/" SM_STATE_COUNTERS
                     ": %s: what the workspace has used of its caps is not known; put a copy back, or remove the file "
                     "to count from zero",
                     ws->base, ws->name, local->message);
        return false;
    }
    return true;
}

int sm_workspace_open_counters(const struct sm_workspace *ws, struct sm_counters *ret, GError **error)
{
    sm_autofd fd =
        openat(ws->dirfd, SM_STATE_COUNTERS, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);

    if (fd < 0) {
        sm_error_set_errno(error, errno, "open %s/%s/" SM_STATE_COUNTERS, ws->base, ws->name);
        return -1;
    }
    return check_counters(ws, fd, ret, error) ? sm_steal_fd(&fd) : -1;
}

bool sm_workspace_read_counters(const struct sm_workspace *ws, struct sm_counters *ret, GError **error)
{
    sm_autofd fd = openat(ws->dirfd, SM_STATE_COUNTERS, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 && errno == ENOENT) {
        *ret = (struct sm_counters){0};
        return true;
    }
    if (fd < 0) {
        sm_error_set_errno(error, errno, "open %s/%s/" SM_STATE_COUNTERS, ws->base, ws->name);
        return false;
    }
    return check_counters(ws, fd, ret, error);
}

/* ---- the end of a workspace ---- */

/** All that slirp-med puts into the folder. */
static const char *const own_files[] = {
    SM_STATE_CA_KEY,   SM_STATE_CA_CERT, SM_CONTROL_SOCKET, SM_STATE_VMM,          SM_STATE_VSOCK, SM_STATE_SERIAL,
    SM_STATE_COUNTERS, SM_STATE_EXIT,    SM_STATE_SETTINGS, SM_STATE_CREATED,      "ca.kept",      "pins.json",
    "policy.json",     "restored.json",  SM_AUDIT_FILE,     SM_AUDIT_FILE_ROTATED, SM_STATE_LOCK,
};

static bool is_own(const char *name)
{
    size_t len = strlen(name);

    if (g_str_has_suffix(name, SM_STATE_NEW)) /* one that was being written */
        len -= strlen(SM_STATE_NEW);
    for (size_t i = 0; i < SM_ARRAY_LEN(own_files); i++)
        if (strlen(own_files[i]) == len && strncmp(own_files[i], name, len) == 0)
            return true;
    /* Of hybrid vsock: a socket for each port. */
    if (!g_str_has_prefix(name, SM_STATE_VSOCK "_"))
        return false;
    const char *port = name + strlen(SM_STATE_VSOCK "_");
    return *port && strspn(port, "0123456789") == strlen(port);
}

/** Opened anew, so that the place where one reads is not shared; NULL with errno. */
static DIR *open_listing(int dirfd)
{
    sm_autofd fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (dir)
        (void)sm_steal_fd(&fd);
    return dir;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/** The names in a folder, sorted; g_strfreev(). NULL with errno. */
static char **listing(int dirfd)
{
    GPtrArray *names = g_ptr_array_new();
    const struct dirent *e;
    DIR *dir = open_listing(dirfd);

    if (!dir) {
        g_ptr_array_unref(names);
        return NULL;
    }
    while ((e = readdir(dir)))
        if (!is_dots(e->d_name))
            g_ptr_array_add(names, g_strdup(e->d_name));
    (void)closedir(dir);
    g_ptr_array_sort(names, by_name);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

char **sm_state_names(const char *state_dir, GError **error)
{
    g_autofree char *base = state_dir ? g_canonicalize_filename(state_dir, NULL) : sm_state_default_base(error);

    if (!base)
        return NULL;
    sm_autofd fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char **all = fd < 0 ? NULL : listing(fd);
    if (!all && errno == ENOENT)
        return g_new0(char *, 1);
    if (!all) {
        sm_error_set_errno(error, errno, "state folder %s", base);
        return NULL;
    }
    size_t n = 0;
    for (size_t i = 0; all[i]; i++) {
        struct stat st;
        if (sm_audit_name_valid(all[i]) && fstatat(fd, all[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            all[n++] = all[i];
        else
            g_free(all[i]);
    }
    all[n] = NULL;
    return all;
}

/** Something that is not ours, or cannot be: a folder under a name of ours. */
static bool check_own(const struct sm_workspace *ws, char *const *names, GError **error)
{
    for (size_t i = 0; names[i]; i++) {
        struct stat st;
        if (is_own(names[i]) && fstatat(ws->dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
            continue;
        g_autofree char *shown = g_strescape(names[i], NULL);
        sm_error_set(error, SM_ERROR_BUSY, "%s/%s/%s is not of slirp-med: move it away; nothing was removed", ws->base,
                     ws->name, shown);
        return false;
    }
    return true;
}

int sm_workspace_delete(struct sm_workspace *ws, bool keep_audit, GPtrArray *ret_removed, GError **error)
{
    g_auto(GStrv) names = listing(ws->dirfd);
    bool kept = false;

    if (!names) {
        sm_error_set_errno(error, errno, "%s/%s", ws->base, ws->name);
        return -1;
    }
    if (!check_own(ws, names, error))
        return -1;
    for (size_t i = 0; names[i]; i++)
        if (!g_strv_contains((const char *const[]){SM_AUDIT_FILE, SM_AUDIT_FILE_ROTATED, SM_STATE_LOCK, NULL},
                             names[i]) &&
            unlinkat(ws->dirfd, names[i], 0) == 0)
            g_ptr_array_add(ret_removed, g_strdup(names[i]));
    for (size_t i = 0; names[i]; i++) {
        if (!g_str_has_prefix(names[i], SM_AUDIT_FILE))
            continue;
        if (keep_audit)
            kept = true;
        else if (unlinkat(ws->dirfd, names[i], 0) == 0)
            g_ptr_array_add(ret_removed, g_strdup(names[i]));
    }
    if (kept)
        return 0;
    if (unlinkat(ws->dirfd, SM_STATE_LOCK, 0) < 0 || unlinkat(ws->base_fd, ws->name, AT_REMOVEDIR) < 0) {
        sm_error_set_errno(error, errno, "remove %s/%s", ws->base, ws->name);
        return -1;
    }
    return 0;
}

void sm_workspace_undo(struct sm_workspace *ws)
{
    struct stat st;

    if (!ws->created || ws->dirfd < 0)
        return;
    if (fstatat(ws->dirfd, SM_AUDIT_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (st.st_size > 0)
            return;
        (void)unlinkat(ws->dirfd, SM_AUDIT_FILE, 0);
    }
    sm_control_remove_stale(ws->dirfd);
    (void)unlinkat(ws->dirfd, SM_STATE_SETTINGS, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_CREATED, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_EXIT, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_CA_CERT, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_CA_KEPT, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_COUNTERS, 0);
    (void)unlinkat(ws->dirfd, SM_STATE_LOCK, 0);
    (void)unlinkat(ws->base_fd, ws->name, AT_REMOVEDIR);
}
