/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mounts by descriptor: a tree is cloned or made, given its attributes and put in place without looking a path up twice. Linux 5.12.
 *
 * All return 0 or a descriptor, or -1 with errno. The attributes are MOUNT_ATTR_* of <sys/mount.h>, the flags AT_*.
 */
#ifndef SM_PATHS_MOUNT_H
#define SM_PATHS_MOUNT_H

#include <glib.h>

#include "base/defs.h"

/** sm_mount_clone() - a detached copy of what path (below dir) is; flags: AT_EMPTY_PATH, AT_RECURSIVE. Returns a descriptor (CLOEXEC). */
int sm_mount_clone(int dir, const char *path, unsigned flags);
/** sm_mount_restrict() - attributes on top of those that the mount has; flags: AT_RECURSIVE. */
int sm_mount_restrict(int tree, uint64_t attributes, unsigned flags);
/** sm_mount_attach() - put a detached tree over what target is. */
int sm_mount_attach(int tree, int target);
/** sm_mount_tmpfs() - a detached, empty tmpfs of at most size (as in size=), its root 0755. Returns a descriptor (CLOEXEC). */
int sm_mount_tmpfs(const char *size);
/** sm_mount_new() - mount(2) with the error set. */
int sm_mount_new(const char *type, const char *path, unsigned long flags, const char *data, GError **error);

#endif
