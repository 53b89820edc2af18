/* SPDX-License-Identifier: BSD-3-Clause */
/* A child that is started before it is known what it will have; see ahead.h. */
#include "supervisor/ahead.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/link.h"
#include "supervisor/spawn.h"

int sm_ahead_start(struct sm_ahead *a, const char *exe, char *const *argv, char *const *envp, GError **error)
{
    int pair[2];

    if (sm_fd_seqpair(pair, false) < 0) {
        sm_error_set_errno(error, errno, "socket pair for the %s", argv[1]);
        return -1;
    }
    sm_autofd ours = pair[0];
    sm_autofd theirs = pair[1];
    const struct sm_spawn_spec sp = {
        .exe = exe, .argv = argv, .envp = envp, .fds = {theirs}, .n_fds = 1, .err_fd = -1, .own_session = true};
    a->pid = sm_spawn(&sp, &a->pidfd, error);
    if (a->pid < 0) {
        a->pid = 0;
        return -1;
    }
    a->link = sm_steal_fd(&ours);
    return 0;
}

int sm_ahead_give(const struct sm_ahead *a, int number, int fd)
{
    char text[16];

    (void)g_snprintf(text, sizeof(text), "%d", number);
    return sm_link_send(a->link, SM_LINK_TAKE, text, fd);
}

int sm_ahead_go(const struct sm_ahead *a)
{
    return sm_link_send(a->link, SM_LINK_TAKE, NULL, -1);
}

void sm_ahead_end(struct sm_ahead *a)
{
    if (a->pid > 0) {
        (void)sm_spawn_signal(a->pidfd, SIGKILL);
        while (waitpid(a->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    a->pid = 0;
    sm_fd_close(&a->pidfd);
    sm_fd_close(&a->link);
}
