/* SPDX-License-Identifier: BSD-3-Clause */
/* Following resolv.conf; see resolv.h. */
#include "supervisor/resolv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

#define WATCHED (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_ONLYDIR)

struct sm_resolv_watch {
    struct sm_loop *loop;
    char *path;
    char *target; /* what the path points at, NULL when that is itself or nothing */
    char *known;
    int inotify;
    int wd_target; /* -1: none */
    struct sm_watch watch;
    struct sm_timer settle;
    void (*changed)(void *data, int fd);
    void *data;
};

char *sm_resolv_read(const char *path, GError **error)
{
    struct stat st;
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set_errno(error, errno, "open %s", path);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s is not a regular file", path);
        return NULL;
    }
    char *text = sm_fd_read_all(fd, SM_RESOLV_MAX, NULL, error);
    if (!text)
        g_prefix_error(error, "%s: ", path);
    return text;
}

/** Watch the folder of what the path points at now. */
static void follow_target(struct sm_resolv_watch *w)
{
    char *target = realpath(w->path, NULL);

    if (target && w->target && strcmp(target, w->target) == 0) {
        free(target);
        return;
    }
    if (w->wd_target >= 0)
        (void)inotify_rm_watch(w->inotify, w->wd_target);
    w->wd_target = -1;
    g_clear_pointer(&w->target, g_free);
    if (target && strcmp(target, w->path) != 0) {
        g_autofree char *dir = g_path_get_dirname(target);
        g_autofree char *own = g_path_get_dirname(w->path);
        w->target = g_strdup(target);
        if (strcmp(dir, own) != 0)
            w->wd_target = inotify_add_watch(w->inotify, dir, WATCHED);
    }
    free(target);
}

static void on_settled(struct sm_timer *timer, int64_t now_us)
{
    struct sm_resolv_watch *w = sm_container_of(timer, struct sm_resolv_watch, settle);

    follow_target(w);
    g_autofree char *text = sm_resolv_read(w->path, NULL);
    if (!text || g_strcmp0(text, w->known) == 0)
        return; /* gone for the moment, or only touched */
    g_autoptr(GError) error = NULL;
    int fd = sm_fd_memfd("resolv.conf", text, strlen(text), &error);
    if (fd < 0) {
        sm_log_warning("%s changed, but cannot be passed on: %s", w->path, error->message);
        return;
    }
    g_free(w->known);
    w->known = g_steal_pointer(&text);
    w->changed(w->data, fd);
}

static bool is_base_of(const char *path, const char *name)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash && strcmp(slash + 1, name) == 0;
}

static void on_event(struct sm_watch *watch, uint32_t events)
{
    struct sm_resolv_watch *w = sm_container_of(watch, struct sm_resolv_watch, watch);
    _Alignas(struct inotify_event) char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
    bool ours = false;

    ssize_t n = read(w->inotify, buf, sizeof(buf));
    for (ssize_t at = 0; n > 0 && at < n;) {
        const struct inotify_event *e = (const struct inotify_event *)(const void *)(buf + at);
        if (e->len == 0 || is_base_of(w->path, e->name) || is_base_of(w->target, e->name))
            ours = true;
        at += (ssize_t)(sizeof(*e) + e->len);
    }
    if (ours)
        sm_loop_arm(w->loop, &w->settle, sm_clock_us() + SM_RESOLV_SETTLE_US);
}

struct sm_resolv_watch *sm_resolv_watch_new(struct sm_loop *loop, const char *path, const char *known,
                                            void (*changed)(void *data, int fd), void *data, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(path);
    sm_autofd fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (fd < 0 || inotify_add_watch(fd, dir, WATCHED) < 0) {
        sm_error_set_errno(error, errno, "watch %s for changes of %s", dir, path);
        return NULL;
    }
    struct sm_resolv_watch *w = g_new0(struct sm_resolv_watch, 1);
    w->loop = loop;
    w->path = g_strdup(path);
    w->known = g_strdup(known);
    w->inotify = sm_steal_fd(&fd);
    w->wd_target = -1;
    w->changed = changed;
    w->data = data;
    sm_watch_init(&w->watch, w->inotify, on_event);
    sm_timer_init(&w->settle, on_settled);
    follow_target(w);
    if (sm_loop_watch(loop, &w->watch, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "watch %s", path);
        sm_resolv_watch_free(w);
        return NULL;
    }
    return w;
}

void sm_resolv_watch_free(struct sm_resolv_watch *w)
{
    if (!w)
        return;
    sm_loop_unwatch(w->loop, &w->watch);
    sm_loop_disarm(w->loop, &w->settle);
    sm_fd_close(&w->inotify);
    g_free(w->path);
    g_free(w->target);
    g_free(w->known);
    g_free(w);
}

int sm_resolv_watch_get(struct sm_resolv_watch *w, GError **error)
{
    g_autofree char *text = sm_resolv_read(w->path, error);
    if (!text)
        return -1;
    int fd = sm_fd_memfd("resolv.conf", text, strlen(text), error);
    if (fd >= 0) {
        g_free(w->known);
        w->known = g_steal_pointer(&text);
    }
    return fd;
}
