/* SPDX-License-Identifier: BSD-3-Clause */
/* Exec of our own subcommands; see spawn.h. */
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

/** Sources are first moved up here, so that no dup2 onto 3, 4 ... can overwrite one that is still to be moved. */
#define SPAWN_FD_FLOOR 32

static void file_actions_destroy(posix_spawn_file_actions_t *fa)
{
    (void)posix_spawn_file_actions_destroy(fa);
}

static void attr_destroy(posix_spawnattr_t *attr)
{
    (void)posix_spawnattr_destroy(attr);
}

pid_t sm_spawn(const struct sm_spawn_spec *spec, int *ret_pidfd, GError **error)
{
    sm_autofd high0 = -1;
    sm_autofd high1 = -1;
    sm_autofd high2 = -1;
    sm_autofd high3 = -1;
    sm_autofd high4 = -1;
    sm_autofd high5 = -1;
    sm_autofd high6 = -1;
    sm_autofd high7 = -1;
    sm_autofd high8 = -1;
    int *high[] = {&high0, &high1, &high2, &high3, &high4, &high5, &high6, &high7, &high8};
    _Static_assert(SM_ARRAY_LEN(high) == SM_SPAWN_FDS_MAX, "one for each descriptor of the child");
    sm_cleanup(file_actions_destroy) posix_spawn_file_actions_t fa;
    sm_cleanup(attr_destroy) posix_spawnattr_t attr;
    sigset_t none, defaults;
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    int r;

    g_assert(spec->n_fds <= SM_SPAWN_FDS_MAX);
    /* On Linux with glibc these initialisers only zero the objects. */
    (void)posix_spawn_file_actions_init(&fa);
    (void)posix_spawnattr_init(&attr);

    for (size_t i = 0; i < spec->n_fds; i++) {
        if (spec->fds[i] < 0) { /* what our caller left open there without CLOEXEC is not for the child */
            r = posix_spawn_file_actions_addclose(&fa, 3 + (int)i);
            if (r != 0) {
                sm_error_set_errno(error, r, "start %s", spec->argv[0]);
                return -1;
            }
            continue;
        }
        *high[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, SPAWN_FD_FLOOR);
        if (*high[i] < 0) {
            sm_error_set_errno(error, errno, "start %s %s: duplicate descriptor", spec->argv[0],
                               spec->argv[1] ? spec->argv[1] : "");
            return -1;
        }
        r = posix_spawn_file_actions_adddup2(&fa, *high[i], 3 + (int)i);
        if (r != 0) {
            sm_error_set_errno(error, r, "start %s", spec->argv[0]);
            return -1;
        }
    }
    if (spec->err_fd >= 0) {
        r = posix_spawn_file_actions_adddup2(&fa, spec->err_fd, STDERR_FILENO);
        if (r != 0) {
            sm_error_set_errno(error, r, "start %s", spec->argv[0]);
            return -1;
        }
    }
    /* What our caller left open without CLOEXEC ends here. */
    r = posix_spawn_file_actions_addclosefrom_np(&fa, 3 + (int)spec->n_fds);
    if (r != 0) {
        sm_error_set_errno(error, r, "start %s", spec->argv[0]);
        return -1;
    }
    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE); /* the only one that we ignore ourselves */
    (void)posix_spawnattr_setsigmask(&attr, spec->sigmask ? spec->sigmask : &none);
    (void)posix_spawnattr_setsigdefault(&attr, &defaults);
    if (spec->own_session)
        flags = (short)(flags | POSIX_SPAWN_SETSID);
    (void)posix_spawnattr_setflags(&attr, flags);

    pid_t pid;
    r = posix_spawn(&pid, spec->exe, &fa, &attr, spec->argv, spec->envp);
    if (r != 0) {
        sm_error_set_errno(error, r, "start %s %s (exec of %s)", spec->argv[0], spec->argv[1] ? spec->argv[1] : "",
                           spec->exe);
        return -1;
    }
    /* The pid cannot be recycled: nobody but us reaps it. */
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        sm_error_set_errno(error, errno, "pidfd_open of %s %s", spec->argv[0], spec->argv[1] ? spec->argv[1] : "");
        (void)kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        return -1;
    }
    *ret_pidfd = pidfd;
    return pid;
}

int sm_spawn_reap(int pidfd, siginfo_t *ret)
{
    int r;

    memset(ret, 0, sizeof(*ret));
    do {
        r = waitid(P_PIDFD, (id_t)pidfd, ret, WEXITED | WNOHANG);
    } while (r < 0 && errno == EINTR);
    if (r < 0)
        return -1;
    return ret->si_pid != 0;
}

int sm_spawn_signal(int pidfd, int signo)
{
    return pidfd_send_signal(pidfd, signo, NULL, 0);
}
