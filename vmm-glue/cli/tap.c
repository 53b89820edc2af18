/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med tap PATH`: fetch the tap of `attach --tap PATH` (launch/kernelpath.h), for a VMM that takes descriptors
 * but no socket: either it is started with it, or, as the helper of QEMU's -netdev tap, it is sent it over the socket
 * that --fd names.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "launch/kernelpath.h"

#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127
/** Where CMD finds it: the first that no program has of itself. */
#define TAP_FD 3

static const char help[] =
    "usage: slirp-med tap PATH [--] CMD [ARG...]\n"
    "       slirp-med tap PATH --fd N\n"
    "\n"
    "Fetches the tap that 'slirp-med attach --datapath tproxy --tap PATH' has for a virtual machine. CMD is started in "
    "this\n"
    "program's place with the tap as descriptor 3; it has a virtio-net header of 12 bytes (IFF_VNET_HDR).\n"
    "\n"
    "  slirp-med tap /run/user/1000/net.sock -- cloud-hypervisor --net fd=3,mac=52:55:0a:00:02:0f ...\n"
    "  qemu-system-x86_64 -netdev tap,id=net0,helper='slirp-med tap /run/user/1000/net.sock' ...\n"
    "\n"
    "  --fd N      send the tap over the socket N instead, as QEMU asks its helper to\n"
    "  --br NAME, --use-vnet\n"
    "              QEMU's too: there is no bridge, and there is a header, so they do nothing\n"
    "  -h, --help  print this and exit\n"
    "\n"
    "Exit status: CMD's; 126 when CMD cannot be run, 127 when there is none; 1 when the tap cannot be had; 2 when a "
    "flag is wrong.";

struct given {
    const char *path;
    int fd;     /* -1: CMD is to be started */
    char **cmd; /* NULL: it is not */
    bool help;
};

/** Is it "--name=value", or "--name" with its value behind it? */
static bool takes(const char *name, char **argv, int argc, int *i, const char **ret)
{
    size_t len = strlen(name);
    const char *arg = argv[*i];

    if (strncmp(arg, name, len) != 0)
        return false;
    if (arg[len] == '=') {
        *ret = arg + len + 1;
        return true;
    }
    if (arg[len] != '\0' || *i + 1 >= argc)
        return false;
    *ret = argv[++*i];
    return true;
}

static bool parse(int argc, char **argv, struct given *ret, GError **error)
{
    *ret = (struct given){.fd = -1};
    for (int i = 1; i < argc; i++) {
        const char *value = "";
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            ret->help = true;
            return true;
        }
        if (strcmp(argv[i], "--") == 0) {
            ret->cmd = argv + i + 1;
            break;
        }
        if (takes("--fd", argv, argc, &i, &value)) {
            size_t n = strspn(value, "0123456789");
            ret->fd = n > 0 && n <= 7 && value[n] == '\0' ? (int)g_ascii_strtoll(value, NULL, 10) : -1;
            if (ret->fd < 3) {
                sm_error_set(error, SM_ERROR_INVALID, "--fd=%.80s: not the number of a socket, 3 or more", value);
                return false;
            }
        } else if (strcmp(argv[i], "--use-vnet") == 0 || takes("--br", argv, argc, &i, &value)) {
            continue; /* it has the header in any case, and there is no bridge */
        } else if (argv[i][0] == '-') {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: unknown flag ('slirp-med tap --help' lists all)", argv[i]);
            return false;
        } else if (!ret->path) {
            ret->path = argv[i];
        } else {
            ret->cmd = argv + i;
            break;
        }
    }
    if (!ret->path) {
        sm_error_set(error, SM_ERROR_INVALID, "no path: write the one of 'slirp-med attach --tap PATH'");
        return false;
    }
    if ((ret->cmd && ret->cmd[0]) == (ret->fd >= 0)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "what is to be done with the tap? Write a command behind --, or --fd N, one of them");
        return false;
    }
    return true;
}

/** Whatever the length of the path: sun_path holds 108 bytes. */
static int dial(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path), *name = g_path_get_basename(path);
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    sm_autofd folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    sm_autofd sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (folder < 0 || sock < 0)
        return -1;
    int n = g_snprintf(there.sun_path, sizeof(there.sun_path), "/proc/self/fd/%d/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof(there.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (connect(sock, (struct sockaddr *)&there, sizeof(there)) < 0)
        return -1;
    return sm_steal_fd(&sock);
}

static int fetch(const char *path, GError **error)
{
    char word[sizeof(SM_KERNEL_PATH_WORD)];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds = 0;
    sm_autofd sock = dial(path);

    if (sock < 0) {
        sm_error_set_errno(error, errno, "%s", path);
        return -1;
    }
    ssize_t n = sm_fd_recv(sock, word, sizeof(word), fds, &n_fds);
    for (size_t i = 1; n > 0 && i < n_fds; i++)
        (void)close(fds[i]);
    sm_autofd tap = n > 0 && n_fds > 0 ? fds[0] : -1;
    if (tap >= 0 && n == (ssize_t)strlen(SM_KERNEL_PATH_WORD) && memcmp(word, SM_KERNEL_PATH_WORD, (size_t)n) == 0)
        return sm_steal_fd(&tap);
    sm_error_set(error, SM_ERROR_SYSTEM, "%s: no tap came: is it the socket of 'slirp-med attach --tap'?", path);
    return -1;
}

static int run(char **cmd, int *tap)
{
    /* Not close-on-exec, and no second one of it. */
    if (*tap == TAP_FD ? sm_fd_set_cloexec(TAP_FD, false) < 0 : dup2(*tap, TAP_FD) < 0) {
        fprintf(stderr, "slirp-med tap: descriptor %d: %s\n", TAP_FD, strerror(errno));
        return 1;
    }
    if (*tap == TAP_FD)
        *tap = -1;
    (void)execvp(cmd[0], cmd);
    int err = errno;
    fprintf(stderr, "slirp-med tap: %s: %s\n", cmd[0], err == ENOENT ? "command not found" : strerror(err));
    return err == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
}

int sm_cli_tap(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct given given;

    if (!parse(argc, argv, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts(help);
        return 0;
    }
    sm_autofd tap = fetch(given.path, &error);
    if (tap < 0)
        return sm_cli_fail(error, 1);
    if (given.fd < 0)
        return run(given.cmd, &tap);
    if (sm_fd_send(given.fd, "t", 1, &tap, 1) == 1) /* qemu-bridge-helper sends one byte as well */
        return 0;
    sm_error_set_errno(&error, errno, "--fd=%d", given.fd);
    return sm_cli_fail(error, 1);
}
