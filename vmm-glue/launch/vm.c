/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU as a workspace's guest; see vm.h. */
#include "launch/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "launch/kvm.h"
#include "launch/messages.h"
#include "launch/qemu.h"

#define STATUS_NO_QEMU 127
/** The names of the libraries that a program needs stand at its beginning: 0.2 MiB into Debian's QEMU of 16. */
#define LIBRARIES_WITHIN (4u << 20)

/** Whether QEMU knows -sandbox: one that was built without it would refuse to start, and to ask it takes longer than to look. */
static bool has_sandbox(const char *program)
{
    static const char library[] = "libseccomp.so.";
    sm_autofd fd = open(program, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return false;
    size_t len = (size_t)SM_MIN(st.st_size, (off_t)LIBRARIES_WITHIN);
    void *head = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0); /* only what is looked at is read */
    if (head == MAP_FAILED)
        return false;
    bool found = memmem(head, len, library, sizeof(library) - 1) != NULL;
    (void)munmap(head, len);
    return found;
}

static char *find_program(const char *given, GError **error)
{
    g_autofree char *found = g_find_program_in_path(given ? given : SM_QEMU_PROGRAM);
    char *real = found ? realpath(found, NULL) : NULL;
    char *path = g_strdup(real);

    free(real);
    if (!path && given)
        sm_error_set(error, SM_ERROR_MISSING, "--qemu=%s: there is no such program", given);
    else if (!path)
        sm_error_set(error, SM_ERROR_MISSING,
                     SM_QEMU_PROGRAM
                     ": not found: install QEMU 7.2 or newer (Debian: qemu-system-x86), or name it with --qemu PATH");
    return path;
}

void sm_vm_devices(struct sm_run_options *o)
{
    g_autofree char *base = o->state_dir ? g_strdup(o->state_dir) : sm_state_default_base(NULL);

    if (!base || o->net.mode != SM_NETWORK_USER) /* without a home the start fails, and says so */
        return;
    if (sm_run_options_intercepts(o))
        o->vsock.serial = g_build_filename(base, o->name, SM_STATE_SERIAL, NULL);
    if (sm_qemu_port_connects(o->vm.port) || o->vsock.n_targets > 0)
        o->vsock.device = g_build_filename(base, o->name, SM_STATE_VSOCK, NULL);
}

int sm_vm_prepare(const struct sm_run_options *o, struct sm_vm *ret, GError **error)
{
    ret->program = find_program(o->vm.qemu, error);
    if (!ret->program)
        return STATUS_NO_QEMU;
    ret->kvm_asked = sm_kvm_ask();
    return 0;
}

void sm_vm_command(const struct sm_run_options *o, struct sm_vm *ret)
{
    const char *why = NULL;

    ret->kvm = sm_kvm_answer(&ret->kvm_asked, &why);
    if (!ret->kvm && !o->vm.print_command)
        fprintf(stderr, "slirp-med: without KVM, so the guest is slow: %s\n", why ? why : strerror(errno));
    const struct sm_qemu q = {
        .program = ret->program,
        .name = o->name,
        .append = o->vm.append,
        .initrd = o->vm.initrd != NULL,
        .network = o->net.mode == SM_NETWORK_USER,
        .tap = o->datapath == SM_DATAPATH_TPROXY,
        .ca = sm_run_options_intercepts(o),
        .port = o->vm.port,
        .vsock = o->vsock.device != NULL,
        .serial = o->vsock.serial != NULL,
        .mac = o->net.guest_mac,
        .mtu = o->net.mtu,
        .memory_mib = o->vm.memory_mib,
        .cpus = o->vm.cpus,
        .kvm = ret->kvm,
        .sandbox = has_sandbox(ret->program),
        .terminal = isatty(STDIN_FILENO) == 1,
        .more = o->argv,
    };
    ret->argv = sm_qemu_argv(&q);
}

int sm_vm_connect(const struct sm_run_options *o, const struct sm_workspace *ws, struct sm_vm *vm, GError **error)
{
    int pair[2];

    if (o->net.mode != SM_NETWORK_USER || o->datapath == SM_DATAPATH_TPROXY) /* guest-init makes the tap */
        return 0;
    if (sm_qemu_port_connects(o->vm.port)) {
        vm->socket = g_build_filename(ws->base, ws->name, SM_STATE_VMM, NULL);
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        sm_error_set_errno(error, errno, "socket pair for the virtual machine's network");
        return -1;
    }
    vm->front_fd = pair[0];
    vm->guest_fds[vm->n_guest_fds++] = pair[1];
    return 0;
}

void sm_vm_let_go(struct sm_vm *vm)
{
    sm_fd_close(&vm->front_fd);
    while (vm->n_guest_fds > 0)
        sm_fd_close(&vm->guest_fds[--vm->n_guest_fds]);
}

void sm_vm_clear(struct sm_vm *vm)
{
    const char *why;

    sm_vm_let_go(vm);
    if (vm->kvm_asked)
        (void)sm_kvm_answer(&vm->kvm_asked, &why);
    g_clear_pointer(&vm->argv, g_strfreev);
    g_clear_pointer(&vm->program, g_free);
    g_clear_pointer(&vm->socket, g_free);
}
