/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A launcher: boots a guest whose only network is a slirp-med workspace, and prints every decision.
 *
 *   cc launcher.c $(pkg-config --cflags --libs slirp-med) -o launcher
 *   ./launcher vmlinuz initrd.img api.example.com .pypi.org
 *
 * The guest may reach the hosts that are named, and nothing else (mode strict). Its console is this terminal, Ctrl-C
 * included; Ctrl-a x ends QEMU, and the workspace with it.
 */
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <slirp-med/slirp-med.h>

static pid_t start_qemu(const char *kernel, const char *initrd, int fd, const char *mac)
{
    char netdev[64], device[64];

    (void)snprintf(netdev, sizeof(netdev), "stream,id=n0,addr.type=fd,addr.str=%d", fd);
    (void)snprintf(device, sizeof(device), "virtio-net-pci,netdev=n0,mac=%s", mac);
    pid_t pid = fork();
    if (pid == 0) {
        (void)fcntl(fd, F_SETFD, 0); /* QEMU is to have it */
        execlp("qemu-system-x86_64", "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-nographic", "-serial",
               "mon:stdio", "-m", "512", "-kernel", kernel, "-initrd", initrd, "-append",
               "console=ttyS0 quiet panic=-1", "-netdev", netdev, "-device", device, (char *)NULL);
        err(127, "qemu-system-x86_64");
    }
    return pid;
}

int main(int argc, char **argv)
{
    struct slirp_med_config config = SLIRP_MED_CONFIG_INIT;
    struct slirp_med_network net;
    struct slirp_med_error error;
    struct slirp_med_event event;
    int vm[2];

    if (argc < 3)
        errx(2, "usage: launcher KERNEL INITRD [ALLOWED-HOST...]");
    config.name = "example";
    config.program = getenv("SLIRP_MED"); /* NULL: the one that was installed with the library */
    config.mode = SLIRP_MED_STRICT;
    config.allow = (const char *const *)argv + 3; /* ends in NULL, as argv does */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vm) < 0)
        err(1, "socketpair");
    struct slirp_med *med = slirp_med_new(&config, &error);
    if (!med || slirp_med_start_fd(med, SLIRP_MED_STREAM, vm[0], &error) < 0 ||
        slirp_med_wait_ready(med, 10000, &error) < 0 || slirp_med_network(med, &net, &error) < 0)
        errx(1, "%s", error.message);
    close(vm[0]);
    printf("ready: guest %s, audit %s\n", net.guest, net.audit_path);
    (void)fflush(stdout);

    pid_t qemu = start_qemu(argv[1], argv[2], vm[1], net.mac);
    close(vm[1]);
    signal(SIGINT, SIG_IGN); /* for QEMU alone to act on: when it ends, so do we */
    struct pollfd p[] = {{.fd = slirp_med_fd(med), .events = POLLIN}, {.fd = pidfd_open(qemu, 0), .events = POLLIN}};
    bool stopped = false;
    while (!stopped) {
        if (poll(p, 2, -1) > 0 && p[1].revents) { /* the guest has ended: so shall its network */
            (void)slirp_med_stop(med, 10000, NULL);
            p[1].fd = -1;
        }
        while (slirp_med_next(med, &event) > 0) {
            if (event.type == SLIRP_MED_RECORD)
                printf("%s %s %s:%u %s\n", event.ts, event.name,
                       event.host  ? event.host
                       : event.dst ? event.dst
                                   : "-",
                       event.port, event.reason ? event.reason : "");
            else if (event.type == SLIRP_MED_MESSAGE)
                printf("%s\n", event.text);
            stopped = event.type == SLIRP_MED_STOPPED;
        }
        (void)fflush(stdout);
    }
    printf("stopped: %d\n", event.status);
    slirp_med_free(med);
    return event.status;
}
