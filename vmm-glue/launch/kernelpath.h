/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel path of `attach` (--datapath tproxy), whose guest is not ours to start: the keeper (paths/keeper.h) is
 * started, and what it makes comes to the launcher.
 *
 *   --tap PATH      slirp0 is a tap. Each process of our user id that connects to PATH is sent its descriptor
 *                   (SCM_RIGHTS, with the four bytes "tap\n"), and the connection is closed. Needs no right of
 *                   anybody's.
 *   --device NAME   slirp0 is the device NAME of our network namespace: one end of a veth pair, or a tap that a VMM
 *                   holds. It is moved, which needs CAP_NET_ADMIN over our network namespace, and goes with the
 *                   workspace.
 *
 * A tap has the virtio-net header (IFF_VNET_HDR, 12 bytes). Who was given its descriptor has it for good; the workspace
 * sees no VMM come or go, and two that read from it share its frames.
 */
#ifndef SM_LAUNCH_KERNELPATH_H
#define SM_LAUNCH_KERNELPATH_H

#include "launch/options.h"

/** What whoever comes to --tap reads beside the descriptor. */
#define SM_KERNEL_PATH_WORD "tap\n"

/** What was started and made; all of it is its holder's, who ends it with sm_kernel_path_clear(). */
struct sm_kernel_path {
    pid_t keeper; /* 0: none was started */
    int pidfd;    /* the keeper's */
    int bundle;   /* for the front (nat/tproxy.h) */
    int tap;      /* for VMMs; -1: it is a device */
};
#define SM_KERNEL_PATH_INIT                                                                                            \
    {                                                                                                                  \
        .pidfd = -1, .bundle = -1, .tap = -1                                                                           \
    }

/** sm_kernel_path_check() - is there a device of that name, and of a kind that has another end? False with error
 * set. */
bool sm_kernel_path_check(const char *device, GError **error) SM_WARN_UNUSED;
/** sm_kernel_path_start() - waits until all stands. @edge, @envp: of the keeper. 0, or -1 with error set and nothing
 * left running; SM_ERROR_MISSING with the spec's message when the kernel refuses TPROXY. */
int sm_kernel_path_start(const struct sm_run_options *o, const char *edge, char *const *envp,
                         struct sm_kernel_path *ret, GError **error);
/** sm_kernel_path_clear() - ends the keeper, waits for it, and closes all; fit for sm_cleanup(). */
void sm_kernel_path_clear(struct sm_kernel_path *k);

#endif
