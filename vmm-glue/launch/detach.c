/* SPDX-License-Identifier: BSD-3-Clause */
/* A start in the background; see detach.h. */
#include "launch/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "supervisor/spawn.h"

/** The first descriptor that a child of ours gets (spawn.h). */
#define TELL_FD 3
#define READY "ready"

/** Its exit status, as a shell would say it; -1 with errno. */
static int wait_for(int pidfd)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
        if (errno != EINTR)
            return -1;
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int sm_detach(char *const *args, GError **error)
{
    int pair[2], pidfd = -1;
    char word[sizeof(READY)];
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, (gpointer)(uintptr_t) "slirp-med");
    g_ptr_array_add(argv, (gpointer)(uintptr_t)SM_DETACH_COMMAND);
    for (size_t i = 0; args[i]; i++)
        g_ptr_array_add(argv, args[i]);
    g_ptr_array_add(argv, NULL);
    if (sm_fd_seqpair(pair, false) < 0) {
        sm_error_set_errno(error, errno, "socket pair for the workspace");
        return -1;
    }
    sm_autofd ours = pair[0];
    sm_autofd theirs = pair[1];
    struct sm_spawn_spec spec = {.exe = SM_SPAWN_SELF,
                                 .argv = (char *const *)argv->pdata,
                                 .envp = environ,
                                 .fds = {theirs},
                                 .n_fds = 1,
                                 .err_fd = -1,
                                 .own_session = true};
    if (sm_spawn(&spec, &pidfd, error) < 0)
        return -1;
    sm_autofd child = pidfd;
    sm_fd_close(&theirs);
    ssize_t n;
    do { /* bounded by the child: it runs within SM_SUPERVISOR_START_MS, or ends */
        n = recv(ours, word, sizeof(word), 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        return 0;
    int status = wait_for(child);
    if (status < 0) {
        sm_error_set_errno(error, errno, "wait for the workspace");
        return -1;
    }
    if (status == 0) { /* without having been ready: no start that worked */
        sm_error_set(error, SM_ERROR_SYSTEM, "the workspace ended before it ran");
        return -1;
    }
    return status;
}

static bool become(int fd, int as, GError **error)
{
    if (dup2(fd, as) >= 0)
        return true;
    sm_error_set_errno(error, errno, "dup2");
    return false;
}

bool sm_detached_enter(struct sm_detached *ret, const char *log, GError **error)
{
    sm_autofd null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sm_autofd out = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : -1;

    if (null < 0) {
        sm_error_set_errno(error, errno, "/dev/null");
        return false;
    }
    if (log && out < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "--log=%s: %s", log, strerror(errno));
        return false;
    }
    if (fcntl(TELL_FD, F_GETFD) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "'" SM_DETACH_COMMAND "' is started by 'slirp-med start --detach' alone");
        return false;
    }
    ret->tell_fd = TELL_FD;
    return become(null, STDIN_FILENO, error) && become(out >= 0 ? out : null, STDOUT_FILENO, error);
}

void sm_detached_keep(const struct sm_detached *d)
{
    (void)sm_fd_set_cloexec(d->tell_fd, true);
}

void sm_detached_ready(void *data)
{
    struct sm_detached *d = data;

    if (send(d->tell_fd, READY, strlen(READY), MSG_NOSIGNAL) < 0)
        (void)kill(getpid(), SIGTERM); /* nobody waits for it any more: the supervisor takes this as a stop */
    sm_fd_close(&d->tell_fd);
    (void)dup2(STDOUT_FILENO, STDERR_FILENO);
}
