/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line that makes QEMU a workspace's guest: a table of the ports, and one function that puts all together.
 * Pure.
 *
 * What QEMU reads comes as descriptors, since it sees no file of the caller's (guest_init.h, "bare"): the CA's certificate
 * SM_GUEST_CA_FD, the network's socket SM_GUEST_MORE_FD; from SM_GUEST_FILES_FD on, as far as they are there: kernel, initrd,
 * and the sockets to connect to, of the network, the vsock device and the serial port.
 *
 * The guest finds: a virtio network card with the workspace's MAC; a serial console (ttyS0), which is QEMU's stdin and
 * stdout; and, where TLS is intercepted, the workspace's CA certificate as fw_cfg file SM_QEMU_FW_CFG_CA, and by request over
 * a virtio-serial port and over vsock (core/vsock.h).
 */
#ifndef SM_LAUNCH_QEMU_H
#define SM_LAUNCH_QEMU_H

#include <glib.h>

#include "base/defs.h"

#define SM_QEMU_PROGRAM "qemu-system-x86_64"
/** Where Linux shows it: /sys/firmware/qemu_fw_cfg/by_name/.../raw. */
#define SM_QEMU_FW_CFG_CA "opt/org.slirp-med/ca.pem"
/** In front of what --append adds. panic=-1 and QEMU's -no-reboot: a guest that panics ends. */
#define SM_QEMU_APPEND "console=ttyS0 panic=-1"

/** How frames get from QEMU to the front. The names are those of ports.h. */
enum sm_qemu_port { SM_QEMU_STREAM, SM_QEMU_VHOST_USER, SM_QEMU_PORTS };
const char *sm_qemu_port_name(enum sm_qemu_port port);
bool sm_qemu_port_parse(const char *text, enum sm_qemu_port *ret) SM_WARN_UNUSED;
/** sm_qemu_port_connects() - does QEMU connect to a socket (the file behind kernel and initrd), or has it one already? */
bool sm_qemu_port_connects(enum sm_qemu_port port);

struct sm_qemu {
    const char *program;
    const char *name; /* of the workspace */
    const char *append;
    bool initrd, network, ca;
    bool tap;           /* the network is a tap, which QEMU has in its hands, in place of a port */
    bool vsock, serial; /* devices beside the card */
    enum sm_qemu_port port;
    const char *mac;
    unsigned mtu;
    uint64_t memory_mib;
    unsigned cpus;
    bool kvm;          /* else TCG */
    bool sandbox;      /* this QEMU was built with libseccomp */
    bool terminal;     /* stdin is one: Ctrl-a x ends QEMU, as Ctrl-C is the guest's */
    char *const *more; /* QEMU's own arguments, behind all of ours; may be NULL */
};

/** sm_qemu_argv() - program first, NULL last; g_strfreev(). */
char **sm_qemu_argv(const struct sm_qemu *q);
/** sm_qemu_show() - argv as a shell would take it, an option a line; g_free(). */
char *sm_qemu_show(char *const *argv);

#endif
