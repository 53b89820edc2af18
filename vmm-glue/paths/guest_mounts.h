/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file system that CMD sees: the caller's, with what leads out or gives away a secret covered.
 *
 * A thing to cover is identified in the caller's view by file system, path in it and inode, and looked for again in
 * every mount of the finished view: a bind mount or a second mount of the same file system does not show it under
 * another name.
 *
 *   /proc                              new, of the PID namespace; sys bus irq fs read-only; kcore, keys ... covered
 *   /sys                               new, of the network namespace, read-only (or the caller's, read-only)
 *   /dev                               tmpfs with the harmless nodes, a new devpts, the terminal as /dev/console
 *   /run, /var/run, $XDG_RUNTIME_DIR   empty tmpfs, an empty folder
 *   /run/slirp-med                     the workspace's CA, and what lies over the distribution's trust (guest_trust.h)
 *   /etc/resolv.conf, /etc/hosts       ours, read-only, wherever the names lead
 *   sockets, masks, state folder       an empty file or folder without permissions
 *
 * A bare view (a VMM's) has a new, empty root in place of the caller's; in it the same, and what programs are made of:
 *
 *   /usr, /bin, /lib ... /etc/ld.so.*  the machine's, read-only
 */
#ifndef SM_PATHS_GUEST_MOUNTS_H
#define SM_PATHS_GUEST_MOUNTS_H

#include <glib.h>

#include "base/defs.h"
#include "paths/guest_config.h"
#include "paths/guest_trust.h"

struct sm_guest_view;

/**
 * sm_guest_view_prepare() - look up all that is named by paths of the caller's view: what to cover, bind sources, the
 * rootfs. Call it in the new mount namespace, with the caller's root and /proc still in place. @runtime_dir:
 * $XDG_RUNTIME_DIR or NULL. Returns a view for sm_guest_view_free() (it holds descriptors), or NULL with error set.
 */
struct sm_guest_view *sm_guest_view_prepare(const struct sm_guest_config *config, GHashTable *sockets,
                                            const char *runtime_dir, GError **error);

/**
 * sm_guest_view_apply() - make the view, but for the trust in a CA: with_trust says whether that is to come. Call it as
 * PID 1 of the new PID namespace. Returns 0, or -1 with error set (then give up).
 */
int sm_guest_view_apply(struct sm_guest_view *view, bool with_trust, GError **error);

/**
 * sm_guest_view_finish() - after that, the rest.
 * @trust: the workspace's CA, or NULL; @env: CMD's environment, which may name certificates to be trusted too.
 * Returns 0, or -1 with error set (then give up).
 */
int sm_guest_view_finish(struct sm_guest_view *view, struct sm_trust *trust, char *const *env, GError **error);

void sm_guest_view_free(struct sm_guest_view *view);

#endif
