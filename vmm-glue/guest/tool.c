/* SPDX-License-Identifier: BSD-3-Clause */
/* Run a program of the guest; see tool.h. */
#include "guest/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *sm_guest_tool_find(const char *name, char *ret, size_t size)
{
    static const char *const folders[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};

    for (size_t i = 0; i < SM_ARRAY_LEN(folders); i++) {
        int n = snprintf(ret, size, "%s/%s", folders[i], name);
        if (n > 0 && (size_t)n < size && access(ret, X_OK) == 0)
            return ret;
    }
    return NULL;
}

/** A descriptor at whose end one is at once: /dev/null may not be there yet. */
static int empty_input(void)
{
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return -1;
    (void)close(pair[1]);
    return pair[0];
}

/** SIGCHLD is blocked. Returns the wait status, or -1 with errno. */
static int wait_for(pid_t pid, unsigned seconds)
{
    int64_t deadline = sm_guest_now() + (int64_t)seconds * 1000;
    sigset_t child;
    int status;

    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return status;
        int64_t left = deadline - sm_guest_now();
        if (got < 0 && errno != EINTR)
            return -1;
        if (left <= 0)
            break;
        struct timespec limit = {left / 1000, left % 1000 * 1000000};
        (void)sigtimedwait(&child, NULL, &limit);
    }
    (void)kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    errno = ETIMEDOUT;
    return -1;
}

int sm_guest_tool_run(const char *const *argv, unsigned seconds)
{
    static const char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};
    sm_guest_autofd input = empty_input();
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t child, before;
    pid_t pid;
    int status = -1;

    if (input < 0)
        return -1;
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &child, &before);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    (void)posix_spawnattr_init(&attr);
    /* A process group of its own, so that what the tool started ends with it. */
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    (void)posix_spawnattr_setsigmask(&attr, &before);
    (void)posix_spawnattr_setpgroup(&attr, 0);
    int failed =
        posix_spawn(&pid, argv[0], &actions, &attr, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (failed == 0)
        status = wait_for(pid, seconds);
    else
        errno = failed;
    int saved = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    if (status == -1)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void sm_guest_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

int64_t sm_guest_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

ssize_t sm_guest_read(int fd, void *buf, size_t len)
{
    ssize_t n;

    do
        n = read(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n;
}

int sm_guest_write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}
