/* SPDX-License-Identifier: BSD-3-Clause */
/* NSS databases of the home folder; see guest_nss.h. */
#include "paths/guest_nss.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "sandbox/sandbox.h"

#define NICKNAME "slirp-med workspace CA"
#define CERTIFICATES "cert9.db"

char **sm_nss_paths(char *const *env)
{
    const char *home = g_environ_getenv((char **)(uintptr_t)env, "HOME");
    const char *data = g_environ_getenv((char **)(uintptr_t)env, "XDG_DATA_HOME");
    char **paths = g_new0(char *, 3);
    size_t n = 0;

    if (home && *home == '/')
        paths[n++] = g_build_filename(home, ".pki", "nssdb", NULL);
    if (data && *data == '/')
        paths[n++] = g_build_filename(data, "pki", "nssdb", NULL);
    else if (home && *home == '/')
        paths[n++] = g_build_filename(home, ".local", "share", "pki", "nssdb", NULL);
    return paths;
}

bool sm_nss_copy(int from, int to)
{
    static const char *const names[] = {CERTIFICATES, "key4.db", "pkcs11.txt"};

    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        struct stat st;
        size_t len;
        sm_autofd in = openat(from, names[i], O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (in < 0 && errno == ENOENT)
            continue;
        if (in < 0 || fstat(in, &st) < 0 || !S_ISREG(st.st_mode))
            return false;
        g_autofree char *data = sm_fd_read_all(in, SM_NSS_FILE_MAX, &len, NULL);
        sm_autofd out = data ? openat(to, names[i], O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
        if (out < 0 || sm_fd_write_all(out, data, len) < 0)
            return false;
    }
    return true;
}

static _Noreturn void become_certutil(int program, char *const argv[])
{
    static char *const env[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", (char *)(uintptr_t) "HOME=/", NULL};
    sigset_t none;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            _exit(1);
    if (sm_sandbox_close_fds(&program, 1) < 0 || sm_sandbox_drop_caps(NULL) < 0 || sm_sandbox_guest_filter(NULL) < 0)
        _exit(1);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)fexecve(program, argv, env);
    _exit(1);
}

static bool certutil(int program, char *const argv[])
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0)
        become_certutil(program, argv);
    if (pid < 0)
        return false;
    struct pollfd p = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    if (p.fd < 0 || poll(&p, 1, SM_NSS_TIMEOUT_MS) != 1)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    sm_fd_close(&p.fd);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool sm_nss_add(int program, const char *folder, const char *certificate)
{
    g_autofree char *database = g_strconcat("sql:", folder, NULL);
    g_autofree char *db = g_build_filename(folder, CERTIFICATES, NULL);
    char *path = (char *)(uintptr_t)certificate;
    /* -f: an empty password is taken from there, another is not waited for. */
    char *make[] = {(char[]){"certutil"}, (char[]){"-N"}, (char[]){"-d"}, database, (char[]){"--empty-password"}, NULL};
    char *add[] = {(char[]){"certutil"},
                   (char[]){"-A"},
                   (char[]){"-d"},
                   database,
                   (char[]){"-n"},
                   (char[]){NICKNAME},
                   (char[]){"-t"},
                   (char[]){"C,,"},
                   (char[]){"-i"},
                   path,
                   (char[]){"-f"},
                   (char[]){"/dev/null"},
                   NULL};

    if (access(db, F_OK) < 0 && !certutil(program, make))
        return false;
    return certutil(program, add);
}
