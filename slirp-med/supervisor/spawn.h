/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starting one of our own subcommands by exec of one of our own programs (launch/program.h), with exactly the descriptors
 * that it is to have.
 *
 * posix_spawn(3) does the work (vfork underneath): between the fork and the exec runs only code that is async-signal-safe. The child has
 * 0, 1 and 2 as we have them, 3 and up as the spec says, and nothing else; an empty signal mask or the one given; and nothing of our
 * environment but what is passed.
 */
#ifndef SM_SUPERVISOR_SPAWN_H
#define SM_SUPERVISOR_SPAWN_H

#include <glib.h>
#include <signal.h>

#include "base/fd.h"

/** The executable that we are, for sm_spawn_spec.exe. */
#define SM_SPAWN_SELF "/proc/self/exe"
/** Descriptors beside 0, 1 and 2 that a child may get: link, configuration, channel, role, CA key and certificate, counters; or
 * what a launcher adds for the guest (base/link.h). */
#define SM_SPAWN_FDS_MAX 9

struct sm_spawn_spec {
    const char *exe;
    char *const *argv;
    char *const *envp;
    int fds[SM_SPAWN_FDS_MAX]; /* become 3, 4 ...; -1: that number stays closed; stay the caller's here */
    size_t n_fds;
    int err_fd;              /* becomes 2; -1: our own stderr */
    bool own_session;        /* setsid(2): the terminal's signals do not reach it */
    const sigset_t *sigmask; /* NULL: empty */
};

/** sm_spawn() - start it. Returns the pid and sets *ret_pidfd (CLOEXEC), or -1 with error set and nothing started. */
pid_t sm_spawn(const struct sm_spawn_spec *spec, int *ret_pidfd, GError **error);

/** sm_spawn_reap() - has the process behind pidfd ended? Returns 1 with *ret filled (si_code, si_status), 0 when it has not, -1 with errno. */
int sm_spawn_reap(int pidfd, siginfo_t *ret);

/** sm_spawn_signal() - send a signal by pidfd: never meets a recycled pid. Returns 0 or -1 with errno. */
int sm_spawn_signal(int pidfd, int signo);

#endif
