/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Landlock as the second wall behind the empty root, and the first one where pivot_root(2) is refused: a ruleset that
 * handles every file system right the kernel knows and has no rule. Descriptors that are open already are not touched.
 */
#include "sandbox/internal.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From linux/landlock.h of Linux 6.12, written out because Debian 12's headers stop at version 2. */
#define LL_CREATE_RULESET_VERSION (1u << 0)
#define LL_FS_V1 ((UINT64_C(1) << 13) - 1)
#define LL_FS_REFER (UINT64_C(1) << 13)     /* version 2 */
#define LL_FS_TRUNCATE (UINT64_C(1) << 14)  /* version 3 */
#define LL_FS_IOCTL_DEV (UINT64_C(1) << 15) /* version 5 */
#define LL_SCOPE_ABSTRACT_UNIX (UINT64_C(1) << 0)
#define LL_SCOPE_SIGNAL (UINT64_C(1) << 1) /* both version 6 */

struct ll_ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

int sm_sandbox_landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (int)abi;
}

int sm_sandbox_landlock(void)
{
    int abi = sm_sandbox_landlock_abi();
    struct ll_ruleset_attr attr = {.handled_access_fs = LL_FS_V1};
    size_t size = sizeof(uint64_t);

    if (abi == 0)
        return 0;
    if (abi >= 2)
        attr.handled_access_fs |= LL_FS_REFER;
    if (abi >= 3)
        attr.handled_access_fs |= LL_FS_TRUNCATE;
    if (abi >= 5)
        attr.handled_access_fs |= LL_FS_IOCTL_DEV;
    if (abi >= 6) {
        attr.scoped = LL_SCOPE_ABSTRACT_UNIX | LL_SCOPE_SIGNAL;
        size = sizeof(attr);
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0)
        return -1;
    long rc = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (rc == 0)
        rc = syscall(SYS_landlock_restrict_self, fd, 0);
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return rc < 0 ? -1 : 1;
}
