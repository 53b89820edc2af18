/* SPDX-License-Identifier: BSD-3-Clause */
/* Mounts by descriptor; see mount.h. */
#include "paths/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h> /* with the mount calls by descriptor: glibc 2.36 */

#include "base/error.h"
#include "base/fd.h"

int sm_mount_clone(int dir, const char *path, unsigned flags)
{
    return open_tree(dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

int sm_mount_restrict(int tree, uint64_t attributes, unsigned flags)
{
    struct mount_attr attr = {.attr_set = attributes};
    return mount_setattr(tree, "", AT_EMPTY_PATH | flags, &attr, sizeof(attr));
}

int sm_mount_attach(int tree, int target)
{
    return move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int sm_mount_tmpfs(const char *size)
{
    sm_autofd fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "size", size, 0) < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

int sm_mount_new(const char *type, const char *path, unsigned long flags, const char *data, GError **error)
{
    if (mount(type, path, type, flags, data) == 0)
        return 0;
    sm_error_set_errno(error, errno, "mount %s on %s", type, path);
    return -1;
}
