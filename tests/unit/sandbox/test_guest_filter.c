/* SPDX-License-Identifier: BSD-3-Clause */
/* CMD's filter: what it refuses, with which errno, through which door; and that ordinary programs notice nothing. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sandbox/internal.h"

#define HIGH (1ul << 32) /* a bit that the kernel does not see in an int argument */

static long raw_ioctl(unsigned long request)
{
    char c = 'x';
    return syscall(SYS_ioctl, open("/dev/null", O_RDWR), request, &c);
}
static long tiocsti(void)
{
    return raw_ioctl(TIOCSTI);
}
static long tiocsti_high(void)
{
    return raw_ioctl(TIOCSTI | HIGH);
}
static long tioclinux(void)
{
    return raw_ioctl(TIOCLINUX);
}
static long add_key(void)
{
    return syscall(SYS_add_key, "user", "slirp-med", "x", 1, -3);
}
static long keyctl(void)
{
    return syscall(SYS_keyctl, 0, -3, 0);
}
static long request_key(void)
{
    return syscall(SYS_request_key, "user", "slirp-med", NULL, 0);
}
static long bpf(void)
{
    return syscall(SYS_bpf, 0, NULL, 0);
}
static long perf(void)
{
    return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0);
}
static long by_handle(void)
{
    return syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0);
}
/* IORING_OP_SOCKET makes a socket of any family where no filter looks. */
static long uring(void)
{
    uint32_t params[30] = {0}; /* struct io_uring_params */
    return syscall(SYS_io_uring_setup, 4, params);
}
static long uring_enter(void)
{
    return syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
}
static long userfault(void)
{
    return syscall(SYS_userfaultfd, 0);
}
static long unshare_user(void)
{
    return unshare(CLONE_NEWUSER);
}
static long clone_user(void)
{
    long pid = syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    return pid;
}
static long clone3(void)
{
    uint64_t args[8] = {0};
    return syscall(SYS_clone3, args, sizeof(args));
}
static long vsock(void)
{
    return socket(AF_VSOCK, SOCK_STREAM, 0);
}
static long vsock_high(void)
{
    return syscall(SYS_socket, AF_VSOCK | HIGH, SOCK_STREAM, 0);
}
static long alg(void)
{
    return socket(AF_ALG, SOCK_SEQPACKET, 0);
}
static long qipcrtr(void)
{
    return socket(42, SOCK_DGRAM, 0);
}
static long bluetooth(void)
{
    return socket(AF_BLUETOOTH, SOCK_RAW, 1);
}
static long unknown_family(void)
{
    return socket(64, SOCK_RAW, 0);
}
static long negative_family(void)
{
    return socket(-1, SOCK_RAW, 0);
}
#if defined(__x86_64__)
static long int80(long nr, long a, long b)
{
    long rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(nr), "b"(a), "c"(b), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
    if ((int)rc < 0) {
        errno = -(int)rc;
        return -1;
    }
    return rc;
}
static long int80_socketcall(void)
{
    return int80(102, 1, 0);
}
static long int80_socket_vsock(void)
{
    return int80(359, AF_VSOCK, SOCK_STREAM);
}
static long int80_keyctl(void)
{
    return int80(288, 0, 0);
}
static long int80_tiocsti(void)
{
    return int80(54, 0, TIOCSTI);
}
static long x32_bpf(void)
{
    return syscall(0x40000000 | SYS_bpf, 0, NULL, 0);
}
#endif

static const struct {
    const char *name;
    long (*fn)(void);
    int err;
} refused[] = {
    {"TIOCSTI", tiocsti, EPERM},
    {"TIOCSTI with a high bit", tiocsti_high, EPERM},
    {"TIOCLINUX", tioclinux, EPERM},
    {"add_key", add_key, EPERM},
    {"keyctl", keyctl, EPERM},
    {"request_key", request_key, EPERM},
    {"bpf", bpf, EPERM},
    {"perf_event_open", perf, EPERM},
    {"open_by_handle_at", by_handle, EPERM},
    {"userfaultfd", userfault, EPERM},
    {"io_uring_setup", uring, ENOSYS},
    {"io_uring_enter", uring_enter, ENOSYS},
    {"unshare a user namespace", unshare_user, EPERM},
    {"clone a user namespace", clone_user, EPERM},
    {"clone3", clone3, ENOSYS},
    {"AF_VSOCK", vsock, EAFNOSUPPORT},
    {"AF_VSOCK with a high bit", vsock_high, EAFNOSUPPORT},
    {"AF_ALG", alg, EAFNOSUPPORT},
    {"AF_QIPCRTR", qipcrtr, EAFNOSUPPORT},
    {"AF_BLUETOOTH", bluetooth, EAFNOSUPPORT},
    {"family 64", unknown_family, EAFNOSUPPORT},
    {"family -1", negative_family, EAFNOSUPPORT},
#if defined(__x86_64__)
    {"32-bit socketcall", int80_socketcall, ENOSYS},
    {"32-bit AF_VSOCK", int80_socket_vsock, EAFNOSUPPORT},
    {"32-bit keyctl", int80_keyctl, EPERM},
    {"32-bit TIOCSTI", int80_tiocsti, EPERM},
    {"x32 bpf", x32_bpf, EPERM},
#endif
};

static int in_child(long (*fn)(void), int *ret_errno)
{
    int report[2], got = -1, status;

    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        GError *error = NULL;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sm_sandbox_guest_filter(&error) < 0)
            _exit(90);
        long rc = fn();
        int err = rc < 0 ? errno : 0;
        (void)!write(report[1], &err, sizeof(err));
        _exit(0);
    }
    (void)close(report[1]);
    (void)!read(report[0], &got, sizeof(got));
    (void)close(report[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    *ret_errno = got;
    return status;
}

static void test_refused(void **state)
{
    unsigned wrong = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(refused); i++) {
        int err;
        int status = in_child(refused[i].fn, &err);
        if (status != 0 || err != refused[i].err) {
            print_error("%s: status %#x, errno %d (%s), expected %d\n", refused[i].name, status, err,
                        strerror(err > 0 ? err : 0), refused[i].err);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static long ordinary(void)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    int pair[2], status;

    for (size_t i = 0; i < SM_ARRAY_LEN(families); i++)
        if (socket(families[i], families[i] == AF_NETLINK ? SOCK_RAW : SOCK_STREAM, 0) < 0 && errno != EAFNOSUPPORT)
            return -1;
    if (socket(AF_INET, SOCK_DGRAM, 0) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return -1;
    int pty = posix_openpt(O_RDWR | O_NOCTTY);
    struct winsize size;
    if (pty >= 0 && ioctl(pty, TIOCGWINSZ, &size) < 0)
        return -1;
    /* a program with threads and children: the C library meets clone3's ENOSYS on the way */
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/bin/sh", "sh", "-c", "ls / >/dev/null | cat && exit 7", NULL);
        _exit(1);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7) {
        errno = ECHILD;
        return -1;
    }
    return system("exit 0") == 0 ? 0 : -1;
}

static void test_ordinary(void **state)
{
    int err;
    int status = in_child(ordinary, &err);
    assert_int_equal(status, 0);
    assert_int_equal(err, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ordinary),
    };
    (void)alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
