/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The early stage: what a process sheds before it has read one byte from outside. Nothing here needs a namespace or a
 * privilege.
 *
 * The order matters twice. The parent-death signal comes first and the check for the parent right behind it, so that
 * there is no moment in which the parent can die unseen. PR_SET_DUMPABLE comes last, since it takes the ownership of
 * /proc/self away from us.
 */
#include "sandbox/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

/* Kept for sm_log_init(); every other variable is the caller's and none of our business (LD_*, RES_OPTIONS,
 * OPENSSL_CONF, proxies, tokens). */
#define KEPT_VARIABLE "SLIRP_MED_LOG"

/** Most descriptors a child of ours is handed; the longest list in use has five. */
#define KEEP_MAX 64

static const char *const role_names[] = {
    [SM_ROLE_FRONT] = "front",
    [SM_ROLE_CORE] = "core",
    [SM_ROLE_FETCH] = "fetch",
    [SM_ROLE_SUPERVISOR] = "supervisor",
};
SM_NAME_TABLE_COVERS(role_names, SM_ROLES);

bool sm_sandbox_early_done;
int sm_sandbox_leak_check_off;

#if SM_SANDBOX_SANITIZED
/* LeakSanitizer asks this at exit. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return sm_sandbox_leak_check_off;
}
#endif

const char *sm_role_name(enum sm_role role)
{
    return (unsigned)role < SM_ROLES ? role_names[role] : "invalid";
}

int sm_sandbox_parent(int parent_fd, GError **error)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
        sm_error_set_errno(error, errno, "sandbox: PR_SET_PDEATHSIG");
        return -1;
    }
    if (parent_fd < 0)
        return 0;
    /* A hang-up of the socket pair is the one sign of the parent's end that is the same in every PID namespace
     * (getppid() is 0 or 1 there). */
    struct pollfd p = {.fd = parent_fd};
    if (poll(&p, 1, 0) < 0) {
        sm_error_set_errno(error, errno, "sandbox: poll of the supervisor's socket");
        return -1;
    }
    if (p.revents & (POLLHUP | POLLERR | POLLNVAL)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "sandbox: the supervisor is gone (or descriptor %d is no socket to it)",
                     parent_fd);
        return -1;
    }
    return 0;
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int sm_sandbox_close_fds(const int *keep, size_t n_keep)
{
    int sorted[KEEP_MAX] = {0};

    if (n_keep > KEEP_MAX) {
        errno = E2BIG;
        return -1;
    }
    if (n_keep > 0)
        memcpy(sorted, keep, n_keep * sizeof(int));
    qsort(sorted, n_keep, sizeof(int), compare_ints);
    unsigned from = STDERR_FILENO + 1;
    for (size_t i = 0; i < n_keep; i++) {
        if (sorted[i] < (int)from)
            continue;
        if ((unsigned)sorted[i] > from && syscall(SYS_close_range, from, (unsigned)sorted[i] - 1, 0) < 0)
            return -1;
        from = (unsigned)sorted[i] + 1;
    }
    return syscall(SYS_close_range, from, ~0u, 0) < 0 ? -1 : 0;
}

/* The strings lie in the first pages of the stack, where /proc/PID/environ and a reader of our memory would find them:
 * overwrite, then drop. */
static int wipe_environment(GError **error)
{
    const char *found = getenv(KEPT_VARIABLE);
    g_autofree char *kept = g_strdup(found);

    for (char **e = environ; e && *e; e++)
        explicit_bzero(*e, strlen(*e));
    if (clearenv() != 0 || (kept && setenv(KEPT_VARIABLE, kept, 1) != 0)) {
        sm_error_set_errno(error, errno, "sandbox: clear the environment");
        return -1;
    }
    return 0;
}

/* The terminal is CMD's. 2 stays for messages; the supervisor gives a pipe there where it can. */
static int silence_stdio(GError **error)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        sm_error_set_errno(error, errno, "sandbox: open /dev/null");
        return -1;
    }
    int rc = dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ? -1 : 0;
    if (rc < 0)
        sm_error_set_errno(error, errno, "sandbox: put /dev/null on 0 and 1");
    if (null > STDERR_FILENO)
        (void)close(null);
    return rc;
}

static int reset_signals(GError **error)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            (void)signal(sig, SIG_DFL); /* fails for the C library's own signals only */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(2), not our death */
    if (sigemptyset(&none) < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0) {
        sm_error_set_errno(error, errno, "sandbox: signal mask");
        return -1;
    }
    return 0;
}

static int set_limits(enum sm_role role, GError **error)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_CORE, &lim) < 0)
        goto fail;
    lim.rlim_cur = 0;
    if (role != SM_ROLE_SUPERVISOR) /* the supervisor's hard limit is CMD's as well */
        lim.rlim_max = 0;
    if (setrlimit(RLIMIT_CORE, &lim) < 0 || getrlimit(RLIMIT_NOFILE, &lim) < 0)
        goto fail;
    lim.rlim_cur = lim.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &lim) < 0)
        goto fail;
    /* AddressSanitizer's shadow is larger than any limit. */
    if (role == SM_ROLE_FETCH && !SM_SANDBOX_SANITIZED &&
        setrlimit(RLIMIT_DATA, &(struct rlimit){SM_SANDBOX_FETCH_MEMORY, SM_SANDBOX_FETCH_MEMORY}) < 0)
        goto fail;
    return 0;
fail:
    sm_error_set_errno(error, errno, "sandbox: resource limits");
    return -1;
}

int sm_sandbox_early(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error)
{
    if (role != SM_ROLE_SUPERVISOR) {
        if (sm_sandbox_parent(spec->parent_fd, error) < 0)
            return -1;
        if (sm_sandbox_close_fds(spec->keep_fds, spec->n_keep_fds) < 0) {
            sm_error_set_errno(error, errno, "sandbox: close_range (Linux 5.9 or later is needed)");
            return -1;
        }
        if (silence_stdio(error) < 0 || wipe_environment(error) < 0 || reset_signals(error) < 0)
            return -1;
        (void)umask(077);
        if (chdir("/") < 0) {
            sm_error_set_errno(error, errno, "sandbox: chdir /");
            return -1;
        }
    } else {
        (void)signal(SIGPIPE, SIG_IGN);
    }
    if (set_limits(role, error) < 0)
        return -1;
    sm_sandbox_leak_check_off = 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        sm_error_set_errno(error, errno, "sandbox: prctl");
        return -1;
    }
    sm_sandbox_early_done = true;
    return 0;
}
