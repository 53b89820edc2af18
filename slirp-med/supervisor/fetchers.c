/* SPDX-License-Identifier: BSD-3-Clause */
/* Starting and reaping fetch helpers; see fetchers.h. */
#include "supervisor/fetchers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "supervisor/spawn.h"

struct helper {
    struct sm_fetchers *all;
    pid_t pid;
    int pidfd; /* -1: this place is free */
    struct sm_watch watch;
    struct sm_timer life;
};

struct sm_fetchers {
    struct sm_loop *loop;
    const char *exe;
    char *const *envp;
    struct helper helpers[SM_FETCHERS_MAX];
};

static void forget(struct helper *h)
{
    sm_loop_unwatch(h->all->loop, &h->watch);
    sm_loop_disarm(h->all->loop, &h->life);
    sm_fd_close(&h->pidfd);
}

static void on_end(struct sm_watch *watch, uint32_t events)
{
    struct helper *h = sm_container_of(watch, struct helper, watch);
    siginfo_t info;

    (void)events;
    if (sm_spawn_reap(h->pidfd, &info) != 0)
        forget(h);
}

static void on_life(struct sm_timer *timer, int64_t now_us)
{
    struct helper *h = sm_container_of(timer, struct helper, life);

    (void)now_us;
    sm_log_warning("a fetch helper (pid %d) did not end and is killed", (int)h->pid);
    (void)sm_spawn_signal(h->pidfd, SIGKILL);
}

struct sm_fetchers *sm_fetchers_new(struct sm_loop *loop, const char *exe, char *const *envp)
{
    struct sm_fetchers *f = g_new0(struct sm_fetchers, 1);

    f->loop = loop;
    f->exe = exe;
    f->envp = envp;
    for (size_t i = 0; i < SM_FETCHERS_MAX; i++) {
        f->helpers[i] = (struct helper){.all = f, .pidfd = -1};
        sm_watch_init(&f->helpers[i].watch, -1, on_end);
        sm_timer_init(&f->helpers[i].life, on_life);
    }
    return f;
}

static struct helper *free_place(struct sm_fetchers *f)
{
    for (size_t i = 0; i < SM_FETCHERS_MAX; i++)
        if (f->helpers[i].pidfd < 0)
            return &f->helpers[i];
    return NULL;
}

void sm_fetchers_start(struct sm_fetchers *f, int fd)
{
    g_autoptr(GError) error = NULL;
    struct helper *h = free_place(f);
    char self[] = "slirp-med", fetch[] = "fetch";
    char *argv[] = {self, fetch, NULL};
    /* What it has to say it says to the core; libcurl has no business on the operator's terminal. */
    sm_autofd null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (!h || null < 0) {
        sm_log_warning("no fetch helper can be started: %s", h ? strerror(errno) : "too many are running");
        return;
    }
    struct sm_spawn_spec spec = {
        .exe = f->exe, .argv = argv, .envp = f->envp, .fds = {fd}, .n_fds = 1, .err_fd = null, .own_session = true};
    h->pid = sm_spawn(&spec, &h->pidfd, &error);
    if (h->pid < 0) {
        h->pidfd = -1;
        sm_log_error("%s", error->message);
        return;
    }
    h->watch.fd = h->pidfd;
    if (sm_loop_watch(f->loop, &h->watch, EPOLLIN) < 0) {
        sm_log_error("watch a fetch helper: %s", strerror(errno));
        (void)sm_spawn_signal(h->pidfd, SIGKILL);
        while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        forget(h);
        return;
    }
    sm_loop_arm(f->loop, &h->life, sm_clock_us() + SM_FETCHERS_LIFE_US);
}

void sm_fetchers_end(struct sm_fetchers *f)
{
    for (size_t i = 0; i < SM_FETCHERS_MAX; i++) {
        struct helper *h = &f->helpers[i];
        if (h->pidfd < 0)
            continue;
        (void)sm_spawn_signal(h->pidfd, SIGKILL);
        while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        forget(h);
    }
}

void sm_fetchers_free(struct sm_fetchers *f)
{
    if (!f)
        return;
    sm_fetchers_end(f);
    g_free(f);
}
