/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU's command line; see qemu.h. Written for QEMU 7.2, the first with -netdev stream. */
#include "launch/qemu.h"

#include <string.h>

#include "base/link.h"
#include "launch/vsock.h"
#include "paths/guest_config.h"

/** The links to descriptors: QEMU opens them as files. */
#define FD_PATH "/proc/self/fd/%d"
/** The card has no boot program of its own (a megabyte of it would be read and run), and the device no defaults of QEMU's. */
#define CARD "virtio-net-pci,id=nic0,netdev=net0,romfile="

static const struct port {
    const char *name;
    const char *netdev;
    bool shared_memory; /* the front reads and writes the guest's memory itself */
} ports[] = {
    [SM_QEMU_STREAM] = {"stream", "stream,id=net0,server=off,addr.type=fd,addr.str=" G_STRINGIFY(SM_GUEST_MORE_FD),
                        false},
    [SM_QEMU_VHOST_USER] = {"vhost-user", "vhost-user,id=net0,chardev=net0-socket", true},
};
_Static_assert(SM_ARRAY_LEN(ports) == SM_QEMU_PORTS, "a row for each port");

const char *sm_qemu_port_name(enum sm_qemu_port port)
{
    return (unsigned)port < SM_QEMU_PORTS ? ports[port].name : "invalid";
}

bool sm_qemu_port_parse(const char *text, enum sm_qemu_port *ret)
{
    for (unsigned i = 0; i < SM_QEMU_PORTS; i++) {
        if (strcmp(text, ports[i].name) == 0) {
            *ret = (enum sm_qemu_port)i;
            return true;
        }
    }
    return false;
}

static void add(GPtrArray *argv, const char *option, const char *fmt, ...) SM_PRINTF(3, 4);
static void add(GPtrArray *argv, const char *option, const char *fmt, ...)
{
    va_list ap;

    g_ptr_array_add(argv, g_strdup(option));
    va_start(ap, fmt);
    g_ptr_array_add(argv, g_strdup_vprintf(fmt, ap));
    va_end(ap);
}

/** The next of the sockets that QEMU connects to. */
static void add_socket(GPtrArray *argv, const char *id, int *fd)
{
    add(argv, "-chardev", "socket,id=%s,path=" FD_PATH, id, (*fd)++);
}

/** QEMU 7.2 under TCG crashes when a vhost-user device uses MSI-X, whatever is behind it. */
static const char *msix(const struct sm_qemu *q)
{
    return q->kvm ? "" : ",vectors=0";
}

/** A tap with a virtio-net header: QEMU sees that it has one. vhost=off: the kernel's vhost would be one more way into
 * it. */
static void add_tap(GPtrArray *argv, const struct sm_qemu *q)
{
    add(argv, "-netdev", "tap,id=net0,fd=%d,vhost=off", SM_GUEST_MORE_FD);
    add(argv, "-device", CARD ",mac=%s,host_mtu=%u", q->mac, q->mtu);
}

static void add_network(GPtrArray *argv, const struct sm_qemu *q, int *fd)
{
    const struct port *port = &ports[q->port];

    /* QEMU passes the guest's memory only over a socket that it has connected to by a path. */
    if (port->shared_memory)
        add_socket(argv, "net0-socket", fd);
    add(argv, "-netdev", "%s", port->netdev);
    add(argv, "-device", CARD ",mac=%s,host_mtu=%u%s", q->mac, q->mtu, port->shared_memory ? msix(q) : "");
}

static void add_vsock(GPtrArray *argv, const struct sm_qemu *q, int *fd)
{
    add_socket(argv, "vsock0", fd);
    add(argv, "-device", "vhost-user-vsock-pci,chardev=vsock0%s", msix(q));
}

static void add_serial(GPtrArray *argv, int *fd)
{
    add_socket(argv, "serial0", fd);
    add(argv, "-device", "virtio-serial-pci");
    add(argv, "-device", "virtserialport,chardev=serial0,name=" SM_VSOCK_SERIAL_NAME);
}

bool sm_qemu_port_connects(enum sm_qemu_port port)
{
    return ports[port].shared_memory;
}

char **sm_qemu_argv(const struct sm_qemu *q)
{
    GPtrArray *argv = g_ptr_array_new();
    bool shared = (q->network && !q->tap && ports[q->port].shared_memory) || q->vsock;
    int socket_fd = SM_GUEST_FILES_FD + 1 + q->initrd;

    g_ptr_array_add(argv, g_strdup(q->program));
    add(argv, "-name", "%s", q->name);
    g_ptr_array_add(argv, g_strdup("-nodefaults"));
    g_ptr_array_add(argv, g_strdup("-no-user-config"));
    g_ptr_array_add(argv, g_strdup("-no-reboot"));
    add(argv, "-display", "none");
    if (q->sandbox)
        add(argv, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add(argv, "-machine", "q35,accel=%s%s", q->kvm ? "kvm" : "tcg", shared ? ",memory-backend=memory0" : "");
    add(argv, "-cpu", "%s", q->kvm ? "host" : "max");
    add(argv, "-smp", "%u", q->cpus);
    add(argv, "-m", "%" G_GUINT64_FORMAT "M", q->memory_mib);
    if (shared)
        add(argv, "-object", "memory-backend-memfd,id=memory0,size=%" G_GUINT64_FORMAT "M,share=on", q->memory_mib);
    add(argv, "-kernel", FD_PATH, SM_GUEST_FILES_FD);
    if (q->initrd)
        add(argv, "-initrd", FD_PATH, SM_GUEST_FILES_FD + 1);
    add(argv, "-append", "%s%s%s", SM_QEMU_APPEND, q->append ? " " : "", q->append ? q->append : "");
    add(argv, "-chardev", "stdio,id=console,signal=off%s", q->terminal ? ",mux=on" : "");
    add(argv, "-serial", "chardev:console");
    if (q->network && q->tap)
        add_tap(argv, q);
    else if (q->network)
        add_network(argv, q, &socket_fd);
    if (q->vsock)
        add_vsock(argv, q, &socket_fd);
    if (q->serial)
        add_serial(argv, &socket_fd);
    if (q->ca)
        add(argv, "-fw_cfg", "name=" SM_QEMU_FW_CFG_CA ",file=" FD_PATH, SM_GUEST_CA_FD);
    for (size_t i = 0; q->more && q->more[i]; i++)
        g_ptr_array_add(argv, g_strdup(q->more[i]));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

char *sm_qemu_show(char *const *argv)
{
    GString *out = g_string_new(NULL);

    for (size_t i = 0; argv[i]; i++) {
        bool plain = argv[i][0] != '\0' &&
                     strspn(argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:=+@%") ==
                         strlen(argv[i]);
        g_autofree char *quoted = plain ? g_strdup(argv[i]) : g_shell_quote(argv[i]);
        g_string_append_printf(out, "%s%s", i == 0 ? "" : argv[i][0] == '-' ? " \\\n    " : " ", quoted);
    }
    g_string_append_c(out, '\n');
    return g_string_free(out, FALSE);
}
