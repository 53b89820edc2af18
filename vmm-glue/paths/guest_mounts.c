/* SPDX-License-Identifier: BSD-3-Clause */
/* CMD's view of the file system; see guest_mounts.h. Mounts are moved by descriptor, so that no path is looked up
 * twice. */
#include "paths/guest_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "paths/mount.h"

/* Longest text of /proc/self/mountinfo: some hosts have 30,000 mounts. */
#define MOUNTINFO_MAX (16u << 20)
/* Symbolic links followed for one name, as the kernel does (MAXSYMLINKS). */
#define LINKS_MAX 40

/* A bare view's root: /tmp and what a VMM leaves lying about. Disks lie in binds. */
#define BARE_SIZE "64m"

/* Our own files in the new /run while the view is made; removed at the end (what is mounted from it stays). */
#define SCRATCH ".slirp-med"

struct mount_entry {
    char *dev; /* "major:minor" */
    char *root;
    char *point;
    char *type;
};

struct target {
    char *dev, *path; /* path inside the file system */
    dev_t st_dev;
    ino_t st_ino;
};

struct pending_bind {
    int tree;
    bool is_dir;
    const char *dst; /* the configuration's, or static */
};

struct sm_guest_view {
    const struct sm_guest_config *config;
    GArray *targets; /* struct target */
    GArray *binds;   /* struct pending_bind */
    int rootfs;      /* detached tree, or -1 */
    int old_root;
    int old_dev; /* the caller's /dev, below ours when that is mounted */
    int scratch; /* folder in the new /run */
    int trust;   /* root of the tmpfs at SM_TRUST_DIR, or -1 */
    mode_t mask; /* the umask before sm_guest_view_apply() */
};

/* ---- mountinfo and identities ---- */

static void clear_mount(void *p)
{
    struct mount_entry *m = p;
    g_free(m->dev);
    g_free(m->root);
    g_free(m->point);
    g_free(m->type);
}

static void clear_target(void *p)
{
    struct target *t = p;
    g_free(t->dev);
    g_free(t->path);
}

static void clear_bind(void *p)
{
    sm_fd_close(&((struct pending_bind *)p)->tree);
}

static GArray *read_mounts(GError **error)
{
    sm_autofd fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    g_autofree char *text = NULL;
    size_t len = 0;

    if (fd < 0) {
        sm_error_set_errno(error, errno, "open /proc/self/mountinfo");
        return NULL;
    }
    /* Not pread(): the file is made anew on each read from offset 0. */
    GString *all = g_string_new(NULL);
    char buf[16384];
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf))) > 0 && len < MOUNTINFO_MAX) {
        g_string_append_len(all, buf, n);
        len += (size_t)n;
    }
    text = g_string_free(all, FALSE);
    GArray *mounts = g_array_new(FALSE, TRUE, sizeof(struct mount_entry));
    g_array_set_clear_func(mounts, clear_mount);
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        g_auto(GStrv) field = g_strsplit(line, " ", 6); /* id parent major:minor root point rest */
        if (g_strv_length(field) < 6)
            continue;
        const char *type = strstr(field[5], " - "); /* options tags - type source options */
        type = type ? type + 3 : "";
        /* Blanks and backslashes are written in octal. */
        struct mount_entry m = {g_strdup(field[2]), g_strcompress(field[3]), g_strcompress(field[4]),
                                g_strndup(type, strcspn(type, " "))};
        g_array_append_val(mounts, m);
    }
    return mounts;
}

/* What remains of path below the folder prefix, with its slash; "" when they are the same; NULL when it is not below.
 */
static const char *below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    if (len == 1) /* "/" */
        return path[1] ? path : "";
    if (strncmp(path, prefix, len) != 0 || (path[len] != '\0' && path[len] != '/'))
        return NULL;
    return path + len;
}

static char *join(const char *folder, const char *rest)
{
    if (strcmp(folder, "/") == 0)
        return g_strdup(*rest ? rest : "/");
    return g_strconcat(folder, rest, NULL);
}

/* The mount that shows a canonical path: the deepest mount point, and of several there the last. */
static const struct mount_entry *mount_of(GArray *mounts, const char *path)
{
    const struct mount_entry *best = NULL;
    for (guint i = 0; i < mounts->len; i++) {
        const struct mount_entry *m = &g_array_index(mounts, struct mount_entry, i);
        if (below(path, m->point) && (!best || strlen(m->point) >= strlen(best->point)))
            best = m;
    }
    return best;
}

/* Paths that do not exist, or that the caller cannot reach, need no cover: CMD cannot reach them either. */
static void add_target(struct sm_guest_view *view, GArray *mounts, const char *path)
{
    struct stat st;
    char *real = realpath(path, NULL);

    if (real && lstat(real, &st) == 0) {
        const struct mount_entry *m = mount_of(mounts, real);
        if (m) {
            struct target t = {g_strdup(m->dev), join(m->root, below(real, m->point)), st.st_dev, st.st_ino};
            g_array_append_val(view->targets, t);
        }
    }
    free(real);
}

/* Views of the machine that a chroot or a container's root may have of its own: the processes outside, and through their root folders all
 * that is covered; settings of the machine; block devices. Those at the usual places are replaced. */
static void add_kernel_views(struct sm_guest_view *view, GArray *mounts)
{
    static const char *const types[] = {"proc",     "sysfs",   "devtmpfs",   "cgroup",     "cgroup2",
                                        "debugfs",  "tracefs", "configfs",   "securityfs", "bpf",
                                        "efivarfs", "pstore",  "binfmt_misc"};
    static const char *const replaced[] = {"/proc", "/sys", "/dev"};

    for (guint i = 0; i < mounts->len; i++) {
        const struct mount_entry *m = &g_array_index(mounts, struct mount_entry, i);
        bool wanted = false;
        for (size_t k = 0; k < SM_ARRAY_LEN(types); k++)
            wanted |= strcmp(m->type, types[k]) == 0;
        for (size_t k = 0; k < SM_ARRAY_LEN(replaced); k++)
            wanted = wanted && !below(m->point, replaced[k]);
        if (wanted)
            add_target(view, mounts, m->point);
    }
}

/* ---- mounting by descriptor ---- */

/* Put the scratch file or folder `name` over what target is. */
static int cover(const struct sm_guest_view *view, int target, const char *name)
{
    sm_autofd tree = sm_mount_clone(view->scratch, name, 0);
    if (tree < 0 ||
        sm_mount_restrict(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0) < 0)
        return -1;
    return sm_mount_attach(tree, target);
}

static int cover_any(const struct sm_guest_view *view, int target)
{
    struct stat st;
    if (fstat(target, &st) < 0)
        return -1;
    return cover(view, target, S_ISDIR(st.st_mode) ? "void" : "empty");
}

static int cover_path(const struct sm_guest_view *view, const char *path)
{
    sm_autofd fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    return cover_any(view, fd);
}

/* ---- preparation ---- */

static bool same_or_below(const char *path, const char *folder)
{
    char *real = realpath(folder, NULL);
    bool yes = real && below(path, real);
    free(real);
    return yes;
}

static bool bind_allowed(const struct sm_guest_config *c, const char *real)
{
    if (c->state_dir && same_or_below(real, c->state_dir))
        return false;
    for (char **m = c->masks; *m; m++)
        if (same_or_below(real, *m))
            return false;
    return true;
}

/* What programs are made of: a bare view has them, read-only, as far as the machine does. */
static int prepare_system(struct sm_guest_view *view, GError **error)
{
    static const char *const system[] = {"/usr",
                                         "/bin",
                                         "/sbin",
                                         "/lib",
                                         "/lib32",
                                         "/lib64",
                                         "/libx32",
                                         "/nix/store",
                                         "/gnu/store",
                                         "/etc/ld.so.cache",
                                         "/etc/alternatives",
                                         "/etc/qemu"};

    view->rootfs = sm_mount_tmpfs(BARE_SIZE);
    if (view->rootfs < 0) {
        sm_error_set_errno(error, errno, "an empty root folder for the VMM (Linux 5.12 or later is needed)");
        return -1;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(system); i++) {
        struct stat st;
        sm_autofd tree = sm_mount_clone(AT_FDCWD, system[i], AT_RECURSIVE);
        if (tree < 0 && errno == ENOENT)
            continue;
        if (tree < 0 || fstat(tree, &st) < 0 ||
            sm_mount_restrict(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, AT_RECURSIVE) < 0) {
            sm_error_set_errno(error, errno, "%s, read-only", system[i]);
            return -1;
        }
        struct pending_bind p = {.tree = sm_steal_fd(&tree), .is_dir = S_ISDIR(st.st_mode), .dst = system[i]};
        g_array_append_val(view->binds, p);
    }
    return 0;
}

static int prepare_bind(struct sm_guest_view *view, const struct sm_guest_bind *b, GError **error)
{
    struct stat st;
    char *real = realpath(b->src, NULL);
    int err = errno;
    bool allowed = real && bind_allowed(view->config, real);

    free(real);
    if (!real) {
        sm_error_set_errno(error, err, "--bind %s:%s: source", b->src, b->dst);
        return -1;
    }
    if (!allowed) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--bind %s:%s: this is slirp-med's own state or a credential file, which CMD must not see", b->src,
                     b->dst);
        return -1;
    }
    sm_autofd tree = sm_mount_clone(AT_FDCWD, b->src, AT_RECURSIVE);
    if (tree < 0 || fstat(tree, &st) < 0) {
        sm_error_set_errno(error, errno, "--bind %s:%s: source", b->src, b->dst);
        return -1;
    }
    struct pending_bind p = {.tree = sm_steal_fd(&tree), .is_dir = S_ISDIR(st.st_mode), .dst = b->dst};
    g_array_append_val(view->binds, p);
    return 0;
}

struct sm_guest_view *sm_guest_view_prepare(const struct sm_guest_config *config, GHashTable *sockets,
                                            const char *runtime_dir, GError **error)
{
    /* What no program of ours names, but every desktop and server has. */
    static const char *const always[] = {"/run", "/var/run", "/tmp/.X11-unix", "/tmp/.ICE-unix"};
    struct sm_guest_view *view = g_new0(struct sm_guest_view, 1);
    g_autoptr(GArray) mounts = NULL;
    GHashTableIter it;
    gpointer path;

    view->config = config;
    view->rootfs = view->old_root = view->old_dev = view->scratch = view->trust = -1;
    view->targets = g_array_new(FALSE, TRUE, sizeof(struct target));
    g_array_set_clear_func(view->targets, clear_target);
    view->binds = g_array_new(FALSE, TRUE, sizeof(struct pending_bind));
    g_array_set_clear_func(view->binds, clear_bind);

    /* EINVAL: "/" is no mount point (a chroot); then there is nothing to be shared with. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL) {
        sm_error_set_errno(error, errno, "make the mounts private");
        goto fail;
    }
    mounts = read_mounts(error);
    if (!mounts)
        goto fail;
    for (size_t i = 0; i < SM_ARRAY_LEN(always); i++)
        add_target(view, mounts, always[i]);
    if (runtime_dir && *runtime_dir == '/')
        add_target(view, mounts, runtime_dir);
    if (config->state_dir)
        add_target(view, mounts, config->state_dir);
    for (char **m = config->masks; *m; m++)
        add_target(view, mounts, *m);
    g_hash_table_iter_init(&it, sockets);
    while (g_hash_table_iter_next(&it, &path, NULL))
        add_target(view, mounts, path);
    add_kernel_views(view, mounts);

    if (config->bare && prepare_system(view, error) < 0)
        goto fail;
    for (size_t i = 0; i < config->n_binds; i++)
        if (prepare_bind(view, &config->binds[i], error) < 0)
            goto fail;
    if (config->rootfs) {
        view->rootfs = sm_mount_clone(AT_FDCWD, config->rootfs, AT_RECURSIVE);
        if (view->rootfs < 0) {
            sm_error_set_errno(error, errno, "--rootfs %s", config->rootfs);
            goto fail;
        }
    }
    view->old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    view->old_dev = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (view->old_root < 0 || view->old_dev < 0) {
        sm_error_set_errno(error, errno, "open / and /dev");
        goto fail;
    }
    return view;
fail:
    sm_guest_view_free(view);
    return NULL;
}

void sm_guest_view_free(struct sm_guest_view *view)
{
    if (!view)
        return;
    g_array_unref(view->targets);
    g_array_unref(view->binds);
    sm_fd_close(&view->rootfs);
    sm_fd_close(&view->old_root);
    sm_fd_close(&view->old_dev);
    sm_fd_close(&view->scratch);
    sm_fd_close(&view->trust);
    g_free(view);
}

/* ---- the root ---- */

static bool has_own_root(const struct sm_guest_view *view)
{
    return view->config->bare || view->config->rootfs;
}

/* The old root stays stacked over "/" until drop_old_root(): a new /proc may be mounted only while a whole one is in
 * sight. */
static int enter_rootfs(struct sm_guest_view *view, GError **error)
{
    const char *dir = view->config->bare ? "/usr" : view->config->rootfs; /* any folder that is there will do */
    sm_autofd at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (at < 0 || sm_mount_attach(view->rootfs, at) < 0 || fchdir(view->rootfs) < 0) {
        sm_error_set_errno(error, errno, "--rootfs %s", dir);
        return -1;
    }
    if (syscall(SYS_pivot_root, ".", ".") < 0) {
        sm_error_set_errno(error, errno, "a new root folder: pivot_root (not possible inside a chroot)");
        return -1;
    }
    static const char *const folders[] = {"/proc", "/sys", "/dev", "/run", "/tmp", "/etc"};
    for (size_t i = 0; i < SM_ARRAY_LEN(folders); i++)
        if (mkdir(folders[i], 0755) < 0 && errno != EEXIST) {
            sm_error_set_errno(error, errno, "--rootfs %s: make %s", dir, folders[i]);
            return -1;
        }
    return 0;
}

static int drop_old_root(struct sm_guest_view *view, GError **error)
{
    if (has_own_root(view) && (fchdir(view->old_root) < 0 || umount2(".", MNT_DETACH) < 0)) {
        sm_error_set_errno(error, errno, "detach the caller's root");
        return -1;
    }
    sm_fd_close(&view->old_root);
    if (chdir("/") < 0) {
        sm_error_set_errno(error, errno, "chdir /");
        return -1;
    }
    return 0;
}

static int make_readonly(GError **error)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
        sm_error_set_errno(error, errno, "--ro: make all mounts read-only (Linux 5.12 or later is needed)");
        return -1;
    }
    return 0;
}

/*
 * CMD gains nothing from set-user-id bits and file capabilities (no_new_privs, empty bounding set), but the kernel refuses to run a program
 * whose file capabilities it cannot grant (ping). On a nosuid mount they are ignored. Comfort: a kernel before 5.12 goes without.
 */
static void make_nosuid(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};
    if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        sm_log_info("nosuid: %s", g_strerror(errno));
}

/* ---- /proc, /sys, /dev, /run ---- */

static int mount_proc(GError **error)
{
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
        return 0;
    int err = errno;
    if (err == EPERM)
        sm_error_set(
            error, SM_ERROR_MISSING,
            "mount /proc: %s: parts of this machine's /proc are covered (a container?), so the kernel gives no new "
            "one: start the "
            "container with --security-opt systempaths=unconfined (Docker, Podman) or procMount: Unmasked (Kubernetes)",
            g_strerror(err));
    else
        sm_error_set_errno(error, err, "mount /proc");
    return -1;
}

/* A caller who is root owns the machine's settings even without a capability (core_pattern would be a way out). */
static int protect_proc(const struct sm_guest_view *view, GError **error)
{
    static const char *const readonly[] = {"/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs"};
    static const char *const hidden[] = {
        "/proc/kcore",       "/proc/keys",          "/proc/key-users", "/proc/sysrq-trigger", "/proc/timer_list",
        "/proc/sched_debug", "/proc/latency_stats", "/proc/kmsg",      "/proc/acpi",          "/proc/scsi"};

    for (size_t i = 0; i < SM_ARRAY_LEN(readonly); i++) {
        sm_autofd at = open(readonly[i], O_PATH | O_CLOEXEC);
        if (at < 0)
            continue;
        sm_autofd tree = sm_mount_clone(at, "", AT_EMPTY_PATH);
        if (tree < 0 ||
            sm_mount_restrict(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0) <
                0 ||
            sm_mount_attach(tree, at) < 0) {
            sm_error_set_errno(error, errno, "make %s read-only", readonly[i]);
            return -1;
        }
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(hidden); i++)
        if (cover_path(view, hidden[i]) < 0) {
            sm_error_set_errno(error, errno, "cover %s", hidden[i]);
            return -1;
        }
    return 0;
}

static int mount_sys(GError **error)
{
    if (mount("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
        return 0;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (mount_setattr(AT_FDCWD, "/sys", AT_RECURSIVE, &attr, sizeof(attr)) == 0 || errno == ENOENT)
        return 0;
    if (errno == EINVAL) { /* not a mount point: an ordinary folder of a chroot */
        sm_autofd at = open("/sys", O_PATH | O_CLOEXEC);
        sm_autofd tree = at < 0 ? -1 : sm_mount_clone(at, "", AT_EMPTY_PATH | AT_RECURSIVE);
        if (tree >= 0 && sm_mount_restrict(tree, MOUNT_ATTR_RDONLY, AT_RECURSIVE) == 0 &&
            sm_mount_attach(tree, at) == 0)
            return 0;
    }
    sm_error_set_errno(error, errno, "make /sys read-only");
    return -1;
}

static int bind_node(int old_dev, const char *name, GError **error)
{
    g_autofree char *to = g_strconcat("/dev/", name, NULL);
    sm_autofd tree = sm_mount_clone(old_dev, name, 0);

    if (tree < 0 && (errno == ENOENT || errno == EACCES))
        return 0;
    sm_autofd at = tree < 0 ? -1 : open(to, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0644);
    if (at < 0 || sm_mount_attach(tree, at) < 0) {
        sm_error_set_errno(error, errno, "bind /dev/%s", name);
        return -1;
    }
    return 0;
}

static int mount_dev(const struct sm_guest_view *view, int terminal, GError **error)
{
    static const char *const nodes[] = {"null", "zero", "full", "random", "urandom", "tty", "kvm"};
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"fd/0", "/dev/stdin"},
                                           {"fd/1", "/dev/stdout"},
                                           {"fd/2", "/dev/stderr"},
                                           {"pts/ptmx", "/dev/ptmx"}};

    if (sm_mount_new("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m", error) < 0)
        return -1;
    for (size_t i = 0; i < SM_ARRAY_LEN(nodes); i++)
        if (bind_node(view->old_dev, nodes[i], error) < 0)
            return -1;
    for (size_t i = 0; i < SM_ARRAY_LEN(links); i++)
        if (symlink(links[i][0], links[i][1]) < 0) {
            sm_error_set_errno(error, errno, "make %s", links[i][1]);
            return -1;
        }
    if (mkdir("/dev/pts", 0755) < 0 || mkdir("/dev/shm", 0755) < 0 || mkdir("/dev/mqueue", 0755) < 0) {
        sm_error_set_errno(error, errno, "make folders in /dev");
        return -1;
    }
    if (sm_mount_new("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620", error) < 0 ||
        sm_mount_new("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", error) < 0)
        return -1;
    (void)mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL); /* a kernel may lack it */
    if (terminal >= 0) {
        /* ttyname(3) looks the terminal up in /dev; its own number there belongs to the caller's devpts. */
        sm_autofd at = open("/dev/console", O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0600);
        if (at < 0 || sm_mount_attach(terminal, at) < 0) {
            sm_error_set_errno(error, errno, "bind the terminal to /dev/console");
            return -1;
        }
    }
    return 0;
}

/* The caller's terminal as a mount, or -1 when there is none (or it has no name). */
static int clone_terminal(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        const char *name = isatty(fd) ? ttyname(fd) : NULL;
        if (name)
            return sm_mount_clone(AT_FDCWD, name, 0);
    }
    return -1;
}

static int scratch_file(const struct sm_guest_view *view, const char *name, mode_t mode, const char *text,
                        GError **error)
{
    sm_autofd fd = openat(view->scratch, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || sm_fd_write_all(fd, text, strlen(text)) < 0 || fchmod(fd, mode) < 0) {
        sm_error_set_errno(error, errno, "write %s", name);
        return -1;
    }
    return 0;
}

static int mount_run(struct sm_guest_view *view, GError **error)
{
    const struct sm_guest_config *c = view->config;
    char ip[SM_ADDR_STRLEN];

    if (sm_mount_new("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755", error) < 0)
        return -1;
    if (mkdir("/run/lock", 01777) < 0 || chmod("/run/lock", 01777) < 0 || mkdir("/run/" SCRATCH, 0700) < 0) {
        sm_error_set_errno(error, errno, "make folders in /run");
        return -1;
    }
    view->scratch = open("/run/" SCRATCH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (view->scratch < 0 || mkdirat(view->scratch, "void", 0) < 0) {
        sm_error_set_errno(error, errno, "make folders in /run");
        return -1;
    }
    g_autoptr(GString) resolv = g_string_new(c->isolated ? "# no network\n" : NULL);
    for (size_t i = 0; !c->isolated && i < c->n_dns; i++)
        g_string_append_printf(resolv, "nameserver %s\n", sm_addr_format(&c->dns[i], ip));
    g_autofree char *hosts = g_strdup_printf("127.0.0.1\tlocalhost\n%s\t%s\n",
                                             c->isolated ? "127.0.1.1" : sm_addr_format(&c->tap.ip, ip), c->hostname);
    if (scratch_file(view, "empty", 0, "", error) < 0 ||
        scratch_file(view, "resolv.conf", 0444, resolv->str, error) < 0 ||
        scratch_file(view, "hosts", 0444, hosts, error) < 0)
        return -1;

    char *var_run = realpath("/var/run", NULL);
    bool own = var_run && strcmp(var_run, "/run") != 0;
    free(var_run);
    if (own && sm_mount_new("tmpfs", "/var/run", MS_NOSUID | MS_NODEV, "mode=0755", error) < 0)
        return -1;
    if (c->ro && sm_mount_new("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777", error) < 0)
        return -1;
    return 0;
}

/* ---- trust ---- */

static int mount_trust(struct sm_guest_view *view, GError **error)
{
    if (mkdir(SM_TRUST_DIR, 0755) < 0) {
        sm_error_set_errno(error, errno, "make " SM_TRUST_DIR);
        return -1;
    }
    if (sm_mount_new("tmpfs", SM_TRUST_DIR, MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755," SM_TRUST_SIZE, error) < 0)
        return -1;
    view->trust = open(SM_TRUST_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (view->trust < 0)
        sm_error_set_errno(error, errno, "open " SM_TRUST_DIR);
    return view->trust < 0 ? -1 : 0;
}

/* Late, when CMD's root is what CMD will see: what is covered cannot be read into a bundle. */
static int apply_trust(struct sm_guest_view *view, struct sm_trust *trust, char *const *env, GError **error)
{
    struct stat ours, seen;
    sm_autofd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 || fstat(view->trust, &ours) < 0) {
        sm_error_set_errno(error, errno, "open /");
        return -1;
    }
    if (stat(SM_TRUST_DIR, &seen) < 0 || seen.st_dev != ours.st_dev || seen.st_ino != ours.st_ino) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "a --bind hides " SM_TRUST_DIR ", where CMD finds the certificates to trust: bind what lies below "
                     "/run one by one, or use --egress-opaque");
        return -1;
    }
    if (sm_trust_build(trust, root, view->trust, env, view->config->cwd, error) < 0)
        return -1;
    return sm_trust_attach(trust, error);
}

/* ---- files of ours, binds, covers ---- */

/* Where a name leads through its links, whether the end exists or not. */
static char *follow(const char *path)
{
    char *at = g_strdup(path);

    for (int i = 0; i < LINKS_MAX; i++) {
        char link[PATH_MAX];
        ssize_t n = readlink(at, link, sizeof(link) - 1);
        if (n < 0)
            return at;
        link[n] = '\0';
        g_autofree char *dir = g_path_get_dirname(at);
        char *next = *link == '/' ? g_strdup(link) : g_build_filename(dir, link, NULL);
        g_free(at);
        at = g_canonicalize_filename(next, "/");
        g_free(next);
    }
    return at;
}

/* May we make files and folders there? In private tmpfs and in a rootfs; never in the caller's own folders. */
static bool may_create(const struct sm_guest_view *view, const char *path)
{
    return has_own_root(view) || below(path, "/run") || below(path, "/var/run") ||
           (view->config->ro && below(path, "/tmp"));
}

static int open_target(const struct sm_guest_view *view, const char *path, bool is_dir)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    g_autofree char *end = follow(path);
    if (!may_create(view, end)) {
        errno = ENOENT;
        return -1;
    }
    g_autofree char *dir = is_dir ? g_strdup(end) : g_path_get_dirname(end);
    if (g_mkdir_with_parents(dir, 0755) < 0)
        return -1;
    if (!is_dir) {
        sm_autofd made = open(end, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (made < 0)
            return -1;
    }
    return open(end, O_PATH | O_CLOEXEC);
}

static int attach_binds(struct sm_guest_view *view, GError **error)
{
    for (guint i = 0; i < view->binds->len; i++) {
        struct pending_bind *b = &g_array_index(view->binds, struct pending_bind, i);
        sm_autofd at = open_target(view, b->dst, b->is_dir);
        if (at < 0 || sm_mount_attach(b->tree, at) < 0) {
            sm_error_set_errno(error, errno, "--bind to %s (the place must exist, and be a folder for a folder)",
                               b->dst);
            return -1;
        }
    }
    return 0;
}

static int place_file(const struct sm_guest_view *view, const char *path, const char *name, bool required,
                      GError **error)
{
    sm_autofd at = open_target(view, path, false);
    if (at < 0 && errno == ENOENT && !required)
        return 0;
    if (at < 0 || cover(view, at, name) < 0) {
        sm_error_set_errno(error, errno, "%s: put ours in its place (an empty file there is enough)", path);
        return -1;
    }
    return 0;
}

static int cover_targets(const struct sm_guest_view *view, GError **error)
{
    g_autoptr(GArray) mounts = read_mounts(error);
    if (!mounts)
        return -1;
    for (guint i = 0; i < view->targets->len; i++) {
        const struct target *t = &g_array_index(view->targets, struct target, i);
        for (guint k = 0; k < mounts->len; k++) {
            const struct mount_entry *m = &g_array_index(mounts, struct mount_entry, k);
            const char *rest = strcmp(m->dev, t->dev) == 0 ? below(t->path, m->root) : NULL;
            struct stat st;
            if (!rest)
                continue;
            g_autofree char *path = join(m->point, rest);
            sm_autofd at = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
            /* Another file there: something of ours lies above it already. */
            if (at < 0 || fstat(at, &st) < 0 || st.st_dev != t->st_dev || st.st_ino != t->st_ino)
                continue;
            if (cover_any(view, at) < 0) {
                sm_error_set_errno(error, errno, "cover %s", path);
                return -1;
            }
        }
    }
    return 0;
}

static void remove_scratch(struct sm_guest_view *view)
{
    static const char *const names[] = {"empty", "resolv.conf", "hosts"};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        (void)unlinkat(view->scratch, names[i], 0);
    (void)unlinkat(view->scratch, "void", AT_REMOVEDIR);
    sm_fd_close(&view->scratch);
    (void)rmdir("/run/" SCRATCH);
}

int sm_guest_view_apply(struct sm_guest_view *view, bool with_trust, GError **error)
{
    sm_autofd terminal = clone_terminal();

    view->mask = umask(0);
    if (has_own_root(view) && enter_rootfs(view, error) < 0)
        return -1;
    if (view->config->ro && make_readonly(error) < 0)
        return -1;
    if (mount_proc(error) < 0 || mount_sys(error) < 0 || mount_dev(view, terminal, error) < 0 ||
        mount_run(view, error) < 0 || (with_trust && mount_trust(view, error) < 0) || protect_proc(view, error) < 0 ||
        drop_old_root(view, error) < 0 || attach_binds(view, error) < 0 ||
        place_file(view, "/etc/resolv.conf", "resolv.conf", true, error) < 0 ||
        place_file(view, "/etc/hosts", "hosts", false, error) < 0 || cover_targets(view, error) < 0)
        return -1;
    remove_scratch(view);
    return 0;
}

int sm_guest_view_finish(struct sm_guest_view *view, struct sm_trust *trust, char *const *env, GError **error)
{
    if (trust && apply_trust(view, trust, env, error) < 0)
        return -1;
    make_nosuid();
    (void)umask(view->mask);
    return 0;
}
