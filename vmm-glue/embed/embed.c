/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A workspace as a child of somebody else's process.
 *
 *   descriptor of the child   what
 *   0, 1                      /dev/null
 *   2                         a pipe that keeps nobody waiting: each line is a MESSAGE, what it has no room for is lost
 *   3                         the owner's socket: one line of JSON when all are ready; its end ends the workspace
 *   4                         the guest's device, if it was given as a descriptor
 *
 * Order of events: what was said for the operator, READY, the audit's records, and when the child has ended and all that
 * has been read, STOPPED. The descriptor that the host polls is an epoll instance over all sources and an eventfd, which
 * is set while something that was read already waits to be told.
 */
#include "embed/embed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "launch/state.h"

/** A workspace that was asked to end has its own deadlines; this is past all of them. */
#define FREE_MS 10000
/** Descriptors that the child gets beside 0 and 1. */
#define CHILD_ERR 2
#define CHILD_OWNER 3
#define CHILD_DEVICE 4
/** Where the originals are put first, above every target. */
#define ABOVE 16

extern char **environ;

const char *slirp_med_version(void)
{
    return SM_VERSION;
}

int sm_embed_fail(struct slirp_med_error *error, enum slirp_med_code code, const char *fmt, ...)
{
    if (!error)
        return -1;
    va_list ap;
    error->code = code;
    va_start(ap, fmt);
    (void)g_vsnprintf(error->message, sizeof(error->message), fmt, ap);
    va_end(ap);
    return -1;
}

/* ---- the object ---- */

static bool watch(struct slirp_med *med, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(med->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void unwatch(struct slirp_med *med, int fd)
{
    if (fd >= 0)
        (void)epoll_ctl(med->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/** Close a source. It is taken out first: a child that the host has forked may hold it too, and then it would stay in the epoll instance. */
static void drop(struct slirp_med *med, int *fd)
{
    unwatch(med, *fd);
    sm_fd_close(fd);
}

/** Something that was read waits to be told, or not. */
static void wake(struct slirp_med *med, bool on)
{
    uint64_t n = 1;
    if (on)
        (void)!write(med->wake_fd, &n, sizeof(n));
    else
        (void)!read(med->wake_fd, &n, sizeof(n));
}

struct slirp_med *slirp_med_new(const struct slirp_med_config *given, struct slirp_med_error *error)
{
    struct slirp_med_config config = {0};

    if (!given || given->size < offsetof(struct slirp_med_config, name) + sizeof(config.name)) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "config: begin with SLIRP_MED_CONFIG_INIT");
        return NULL;
    }
    if (given->size > sizeof(config)) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_INVALID,
                            "config: it is a newer version's than this library (" SM_VERSION ")");
        return NULL;
    }
    memcpy(&config, given, given->size);
    char **flags = sm_embed_flags(&config, error);
    if (!flags)
        return NULL;
    struct slirp_med *med = g_new0(struct slirp_med, 1);
    med->flags = flags;
    med->name = g_strdup(config.name);
    med->state_dir = g_strdup(config.state_dir);
    med->program = g_strdup(config.program ? config.program : SM_PROGRAM);
    med->env = g_strdupv((char **)(uintptr_t)config.environment);
    med->pidfd = med->owner_fd = med->words.fd = med->news.fd = med->dirfd = med->watch_fd = -1;
    med->status = -1;
    med->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    med->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (med->epoll_fd < 0 || med->wake_fd < 0 || !watch(med, med->wake_fd)) {
        (void)sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "epoll: %s", g_strerror(errno));
        slirp_med_free(med);
        return NULL;
    }
    return med;
}

static void forget_audit(struct slirp_med *med)
{
    unwatch(med, med->watch_fd);
    med->watch_fd = -1; /* the reader's */
    sm_audit_reader_free(med->reader);
    med->reader = NULL;
}

/** Forget the run. */
static void forget(struct slirp_med *med)
{
    drop(med, &med->pidfd);
    drop(med, &med->owner_fd);
    drop(med, &med->words.fd);
    med->news.fd = -1; /* the owner's */
    med->words.len = med->news.len = 0;
    med->words.cutting = med->news.cutting = false;
    forget_audit(med);
    sm_fd_close(&med->dirfd);
    med->line_held = false;
    med->pid = 0;
    med->last_word[0] = '\0';
}

void slirp_med_free(struct slirp_med *med)
{
    if (!med)
        return;
    if (med->pidfd >= 0) {
        siginfo_t info;
        (void)slirp_med_stop(med, FREE_MS, NULL);
        (void)pidfd_send_signal(med->pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t)med->pidfd, &info, WEXITED) < 0 && errno == EINTR)
            continue;
    }
    forget(med);
    sm_fd_close(&med->wake_fd);
    sm_fd_close(&med->epoll_fd);
    json_decref(med->network);
    g_free(med->network_json);
    g_free(med->ca_path);
    g_free(med->audit_path);
    g_free(med->folder);
    g_free(med->name);
    g_free(med->state_dir);
    g_free(med->program);
    g_strfreev(med->flags);
    g_strfreev(med->env);
    g_free(med);
}

int slirp_med_fd(const struct slirp_med *med)
{
    return med->epoll_fd;
}

int slirp_med_pid(const struct slirp_med *med)
{
    return med->pid;
}

/* ---- the start ---- */

/** A copy of fd above every number that the child is to have, so that no dup2 overwrites a source of another. */
static int above(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, ABOVE);
}

static int spawn(struct slirp_med *med, char **argv, int err_fd, int owner_fd, int device_fd)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID;
    pid_t pid = -1;

    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attr);
    int r = posix_spawnattr_setflags(&attr, flags);
    r = r ? r : posix_spawnattr_setsigmask(&attr, &none);
    r = r ? r : posix_spawnattr_setsigdefault(&attr, &all);
    r = r ? r : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    r = r ? r : posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    r = r ? r : posix_spawn_file_actions_adddup2(&actions, err_fd, CHILD_ERR);
    r = r ? r : posix_spawn_file_actions_adddup2(&actions, owner_fd, CHILD_OWNER);
    if (device_fd >= 0)
        r = r ? r : posix_spawn_file_actions_adddup2(&actions, device_fd, CHILD_DEVICE);
    /* Whatever the host has open without CLOEXEC is not the workspace's. */
    r = r ? r : posix_spawn_file_actions_addclosefrom_np(&actions, device_fd >= 0 ? CHILD_DEVICE + 1 : CHILD_DEVICE);
    r = r ? r : posix_spawn(&pid, med->program, &actions, &attr, argv, med->env ? med->env : environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attr);
    errno = r;
    return r ? -1 : pid;
}

/** The audit as it is now belongs to earlier runs. */
static bool pass_over_earlier_runs(struct slirp_med *med, struct slirp_med_error *error)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) problem = NULL;

    if (sm_workspace_open(med->state_dir, med->name, false, &ws, NULL) < 0)
        return true; /* there is none, or the start will say what is wrong with it */
    med->reader = sm_audit_reader_new(ws.dirfd, &problem);
    if (med->reader && sm_audit_reader_skip(med->reader, &problem))
        return true;
    (void)sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "the audit of workspace '%s': %s", med->name, problem->message);
    return false;
}

static int start(struct slirp_med *med, char **how, int device, struct slirp_med_error *error)
{
    int pair[2], err[2];
    sm_autofd ours = -1;
    sm_autofd theirs = -1;
    sm_autofd err_read = -1;
    sm_autofd err_write = -1;
    sm_autofd high_err = -1;
    sm_autofd high_owner = -1;
    sm_autofd high_device = -1;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    if (med->state == SM_EMBED_STARTING || med->state == SM_EMBED_RUNNING)
        return sm_embed_fail(error, SLIRP_MED_ERROR_STATE, "workspace '%s' runs already", med->name);
    forget(med);
    if (!pass_over_earlier_runs(med, error)) {
        forget(med);
        return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        goto system;
    ours = pair[0];
    theirs = pair[1];
    if (pipe2(err, O_CLOEXEC) < 0)
        goto system;
    err_read = err[0];
    err_write = err[1];
    high_err = above(err_write);
    high_owner = above(theirs);
    high_device = device >= 0 ? above(device) : -1;
    /* The child's end of the pipe too: a supervisor that waits for a reader of its words does not even hear that it is
     * to stop, and a guest can have it say much. */
    if (high_err < 0 || sm_fd_set_nonblock(high_err) < 0 || high_owner < 0 || (device >= 0 && high_device < 0) ||
        sm_fd_set_nonblock(ours) < 0 || sm_fd_set_nonblock(err_read) < 0)
        goto system;

    g_ptr_array_add(argv, med->program);
    g_ptr_array_add(argv, (char *)(uintptr_t) "attach");
    for (char **f = med->flags; *f; f++)
        g_ptr_array_add(argv, *f);
    for (; *how; how++)
        g_ptr_array_add(argv, *how);
    g_ptr_array_add(argv, (char *)(uintptr_t) "--owner-fd=3");
    g_ptr_array_add(argv, med->name);
    g_ptr_array_add(argv, NULL);
    int pid = spawn(med, (char **)argv->pdata, high_err, high_owner, high_device);
    if (pid < 0) {
        forget(med);
        return sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "%s cannot be started: %s", med->program,
                             g_strerror(errno));
    }
    med->pid = pid;
    med->pidfd = pidfd_open(pid, 0);
    med->owner_fd = med->news.fd = sm_steal_fd(&ours);
    med->words.fd = sm_steal_fd(&err_read);
    if (med->pidfd < 0 || !watch(med, med->pidfd) || !watch(med, med->owner_fd) || !watch(med, med->words.fd)) {
        int saved = errno;
        (void)kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        errno = saved;
        goto system;
    }
    med->state = SM_EMBED_STARTING;
    med->status = -1;
    return 0;

system:
    (void)sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "the start of workspace '%s': %s", med->name, g_strerror(errno));
    forget(med);
    return -1;
}

static const char *const port_names[] = {[SLIRP_MED_STREAM] = "stream",
                                         [SLIRP_MED_VHOST_USER] = "vhost-user",
                                         [SLIRP_MED_DGRAM] = "dgram",
                                         [SLIRP_MED_TAP] = "tap"};

int slirp_med_start_fd(struct slirp_med *med, enum slirp_med_port port, int fd, struct slirp_med_error *error)
{
    if ((unsigned)port >= SM_ARRAY_LEN(port_names) || fd < 0)
        return sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "port %d over descriptor %d: not possible", (int)port, fd);
    char device[] = "--fd=4";
    g_autofree char *kind = g_strdup_printf("--fd-kind=%s", port_names[port]);
    return start(med, (char *[]){device, kind, NULL}, fd, error);
}

int slirp_med_start_path(struct slirp_med *med, enum slirp_med_port port, const char *path, bool client,
                         struct slirp_med_error *error)
{
    if ((unsigned)port >= SLIRP_MED_TAP || !path)
        return sm_embed_fail(error, SLIRP_MED_ERROR_INVALID, "port %d has no path", (int)port);
    char as_client[] = "--client";
    g_autofree char *flag = g_strdup_printf("--%s=%s", port_names[port], path);
    return start(med, (char *[]){flag, client ? as_client : NULL, NULL}, -1, error);
}

/* ---- events ---- */

/**
 * The next line of a pipe into out (NUL-terminated, without the newline). A line that is too long comes cut. 1: a line;
 * 0: none now; at the end of the pipe the rest is a line, and fd is -1 afterwards.
 */
static int next_line(struct sm_embed_lines *l, char out[SM_EMBED_LINE_MAX + 1])
{
    for (;;) {
        char *nl = memchr(l->buf, '\n', l->len);
        bool full = l->len == sizeof(l->buf), ended = l->fd < 0 && l->len > 0;
        if (nl || full || ended) {
            size_t n = nl ? (size_t)(nl - l->buf) : l->len;
            bool tell = !l->cutting;
            memcpy(out, l->buf, n);
            out[n] = '\0';
            l->cutting = !nl && full;
            l->len -= n + (nl ? 1 : 0);
            memmove(l->buf, l->buf + n + (nl ? 1 : 0), l->len);
            if (tell)
                return 1;
            continue;
        }
        if (l->fd < 0)
            return 0;
        ssize_t got = read(l->fd, l->buf + l->len, sizeof(l->buf) - l->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got <= 0) {
            l->fd = -1; /* the caller's to close */
            continue;
        }
        l->len += (size_t)got;
    }
}

static int tell_message(struct slirp_med *med, struct slirp_med_event *event)
{
    int fd = med->words.fd;
    int r = next_line(&med->words, med->text);

    if (med->words.fd < 0)
        drop(med, &fd);
    if (r > 0) {
        g_strlcpy(med->last_word, med->text, sizeof(med->last_word));
        *event = (struct slirp_med_event){.type = SLIRP_MED_MESSAGE, .text = med->text, .status = -1};
    }
    return r;
}

/** "folder", "audit" and "ca" of the line that says READY. */
static bool understand_ready(struct slirp_med *med, const char *line)
{
    json_t *o = json_loads(line, 0, NULL);
    const char *folder = json_string_value(json_object_get(o, "folder"));
    const char *ca = json_string_value(json_object_get(o, "ca"));
    struct slirp_med_error error;
    bool ok = folder != NULL;

    if (ok) {
        g_free(med->folder);
        med->folder = g_strdup(folder);
        g_free(med->ca_path);
        med->ca_path = g_strdup(ca);
        med->audit = json_is_true(json_object_get(o, "audit"));
        ok = sm_embed_open_folder(med, &error);
        if (ok && med->audit) {
            med->watch_fd = sm_audit_reader_watch_fd(med->reader);
            ok = med->watch_fd >= 0 && watch(med, med->watch_fd);
            if (!ok)
                (void)sm_embed_fail(&error, SLIRP_MED_ERROR_SYSTEM, "%s cannot be watched: %s", med->audit_path,
                                    g_strerror(errno));
        }
        if (!ok)
            g_strlcpy(med->last_word, error.message, sizeof(med->last_word));
    }
    json_decref(o);
    return ok;
}

static int tell_ready(struct slirp_med *med, struct slirp_med_event *event)
{
    char line[SM_EMBED_LINE_MAX + 1];

    if (med->state != SM_EMBED_STARTING || next_line(&med->news, line) <= 0)
        return 0;
    if (!understand_ready(med, line)) {
        /* What we cannot watch must not run on. */
        (void)pidfd_send_signal(med->pidfd, SIGTERM, NULL, 0);
        return 0;
    }
    med->state = SM_EMBED_RUNNING;
    *event = (struct slirp_med_event){.type = SLIRP_MED_READY, .status = -1};
    return 1;
}

static int tell_record(struct slirp_med *med, struct slirp_med_event *event)
{
    if (!med->reader || !med->audit)
        return 0;
    if (med->line_held) {
        med->line_held = false;
        sm_embed_event_of(event, &med->line);
        return 1;
    }
    for (int look = 0; look < 2;) {
        g_autoptr(GError) problem = NULL;
        int r = sm_audit_reader_next(med->reader, &med->line, &problem);
        if (r < 0) { /* it cannot be read any more: what happens from here on is not seen, and that is said */
            g_snprintf(med->text, sizeof(med->text), "the audit cannot be read: %s", problem->message);
            forget_audit(med);
            *event = (struct slirp_med_event){.type = SLIRP_MED_MESSAGE, .text = med->text, .status = -1};
            return 1;
        }
        if (r == 0) {
            /* Nothing: forget what woke us, and look again at what came meanwhile. */
            if (med->watch_fd >= 0)
                (void)sm_audit_reader_drain_watch(med->reader);
            look++;
            continue;
        }
        if (med->line.kind != SM_AUDIT_LINE_RECORD || med->line.seq == 0)
            continue;
        if (med->line.missing > 0) {
            med->line_held = true;
            *event = (struct slirp_med_event){.type = SLIRP_MED_LOST, .count = med->line.missing, .status = -1};
            return 1;
        }
        sm_embed_event_of(event, &med->line);
        return 1;
    }
    return 0;
}

/** The child's end, once. */
static bool reap(struct slirp_med *med)
{
    siginfo_t info = {0};

    if (med->pidfd < 0)
        return false;
    int r = waitid(P_PIDFD, (id_t)med->pidfd, &info, WEXITED | WNOHANG);
    if (r < 0 && errno == EINTR)
        return false;
    if (r == 0 && info.si_pid == 0)
        return false;
    if (r == 0)
        med->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    drop(med, &med->pidfd);
    med->pid = 0;
    return true;
}

static int tell(struct slirp_med *med, struct slirp_med_event *event)
{
    int r;

    if (med->state != SM_EMBED_STARTING && med->state != SM_EMBED_RUNNING)
        return 0;
    /* First, so that all that it wrote before it ended is read below. */
    bool ended = med->pidfd < 0 || reap(med);
    if ((r = tell_message(med, event)) > 0 || (r = tell_ready(med, event)) > 0 || (r = tell_record(med, event)) > 0)
        return r;
    if (!ended)
        return 0;
    bool wrong = med->status != 0;
    g_strlcpy(med->text, med->last_word, sizeof(med->text));
    *event = (struct slirp_med_event){
        .type = SLIRP_MED_STOPPED, .status = med->status, .text = wrong && med->text[0] ? med->text : NULL};
    forget(med);
    med->state = SM_EMBED_ENDED;
    return 1;
}

int slirp_med_next(struct slirp_med *med, struct slirp_med_event *event)
{
    int r = tell(med, event);
    /* Something may be waiting that no source will wake anybody for: until next() has said 0. */
    wake(med, r > 0);
    return r;
}

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

int slirp_med_wait(struct slirp_med *med, int timeout_ms, struct slirp_med_event *event)
{
    int64_t until = now_ms() + timeout_ms;

    for (;;) {
        if (slirp_med_next(med, event) > 0)
            return 1;
        if (med->state != SM_EMBED_STARTING && med->state != SM_EMBED_RUNNING)
            return 0;
        int64_t left = timeout_ms < 0 ? -1 : until - now_ms();
        if (timeout_ms >= 0 && left <= 0)
            return 0;
        struct pollfd p = {.fd = med->epoll_fd, .events = POLLIN};
        (void)poll(&p, 1, (int)left);
    }
}

int slirp_med_wait_ready(struct slirp_med *med, int timeout_ms, struct slirp_med_error *error)
{
    int64_t until = now_ms() + timeout_ms;
    struct slirp_med_event event;

    if (med->state == SM_EMBED_RUNNING)
        return 0;
    if (med->state != SM_EMBED_STARTING)
        return sm_embed_fail(error, SLIRP_MED_ERROR_STATE, "workspace '%s' was not started", med->name);
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : SM_MAX(until - now_ms(), 0);
        if (slirp_med_wait(med, (int)left, &event) <= 0)
            return sm_embed_fail(error, SLIRP_MED_ERROR_TIMEOUT, "workspace '%s' is not ready after %d ms", med->name,
                                 timeout_ms);
        if (event.type == SLIRP_MED_READY)
            return 0;
        if (event.type == SLIRP_MED_STOPPED)
            return sm_embed_fail(error, SLIRP_MED_ERROR_REFUSED, "workspace '%s' did not start: %s", med->name,
                                 event.text ? event.text : "it ended");
    }
}

int slirp_med_stop(struct slirp_med *med, int timeout_ms, struct slirp_med_error *error)
{
    if (med->pidfd < 0)
        return sm_embed_fail(error, SLIRP_MED_ERROR_STATE, "workspace '%s' does not run", med->name);
    (void)pidfd_send_signal(med->pidfd, SIGTERM, NULL, 0);
    if (timeout_ms == 0)
        return 0;
    int64_t until = now_ms() + timeout_ms;
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : SM_MAX(until - now_ms(), 0);
        struct pollfd p = {.fd = med->pidfd, .events = POLLIN};
        int r = poll(&p, 1, (int)left);
        if (r > 0)
            return 0;
        if (r == 0)
            return sm_embed_fail(error, SLIRP_MED_ERROR_TIMEOUT, "workspace '%s' has not ended after %d ms", med->name,
                                 timeout_ms);
        if (errno != EINTR)
            return sm_embed_fail(error, SLIRP_MED_ERROR_SYSTEM, "poll: %s", g_strerror(errno));
    }
}
