/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What `slirp-med vm` has beyond `run`: which QEMU, with which accelerator, and the socket between its network card and
 * the front. The rest of a start is launch/run.h's.
 */
#ifndef SM_LAUNCH_VM_H
#define SM_LAUNCH_VM_H

#include "base/link.h"
#include "launch/options.h"
#include "launch/state.h"

struct sm_vm {
    char **argv;                    /* QEMU's */
    char *program;                  /* its real path */
    struct sm_kvm_asked *kvm_asked; /* between the two: launch/kvm.h */
    bool kvm;
    char *socket;                     /* the path that QEMU connects to, or NULL */
    int front_fd;                     /* the front's end of the network; -1: there is none */
    int guest_fds[SM_GUEST_MORE_MAX]; /* what QEMU gets, from SM_GUEST_MORE_FD on */
    size_t n_guest_fds;
};
#define SM_VM_INIT                                                                                                     \
    {                                                                                                                  \
        .front_fd = -1                                                                                                 \
    }

/** sm_vm_devices() - which other ways to the host the machine has: the options get the paths of their sockets, in the workspace's folder. A
 * virtio-serial port where there is a CA to be had; a vsock device where memory is shared anyway, or a mediation target is given. */
void sm_vm_devices(struct sm_run_options *o);
/** sm_vm_prepare() - look for QEMU, and begin to look for KVM: makes no process, no file and no socket. Returns 0, or
 * the exit status of `vm` (127: no QEMU) with error set. */
int sm_vm_prepare(const struct sm_run_options *o, struct sm_vm *ret, GError **error);
/** sm_vm_command() - after that, the command line. */
void sm_vm_command(const struct sm_run_options *o, struct sm_vm *vm);
/** sm_vm_connect() - make the socket pairs that the command line speaks of, and name the socket in the workspace's folder that is to
 * listen. 0, or -1 with error set. */
int sm_vm_connect(const struct sm_run_options *o, const struct sm_workspace *ws, struct sm_vm *vm, GError **error);
/** sm_vm_let_go() - close them: they are the children's now. */
void sm_vm_let_go(struct sm_vm *vm);
/** sm_vm_clear() - fit for sm_cleanup(); begin with SM_VM_INIT. */
void sm_vm_clear(struct sm_vm *vm);

#endif
