/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The last stage: namespaces, empty root, capabilities, Landlock, filter, in this order, because each step needs what
 * the next takes away.
 */
#include "sandbox/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

/** The id that the front and the core see themselves as: nobody's, so that not even an exec could bring capabilities
 * back. */
#define INNER_ID 65534

static int write_file(const char *path, const char *text)
{
    sm_autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    return sm_fd_write_all(fd, text, strlen(text));
}

static bool have_cap(unsigned cap)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &head, data) < 0)
        return false;
    return data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

int sm_sandbox_user_ns(uid_t uid, gid_t gid, GError **error)
{
    char map[64];
    uid_t outer_uid = geteuid();
    gid_t outer_gid = getegid();
    int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    bool could_without = have_cap(CAP_SYS_ADMIN);

    sm_sandbox_leak_check_off = 1;
    if (unshare(CLONE_NEWUSER) < 0) {
        int err = errno;
        if (could_without)
            return 0;
        sm_error_set(error, SM_ERROR_MISSING,
                     "user namespaces are refused on this machine (%s): allow them with `sysctl "
                     "kernel.unprivileged_userns_clone=1`, "
                     "`sysctl user.max_user_namespaces=15000` or, on Ubuntu, `sysctl "
                     "kernel.apparmor_restrict_unprivileged_userns=0` (as root); "
                     "in a container allow unshare(2); in a chroot run as root",
                     g_strerror(err));
        return -1;
    }
    (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    int rc = 0;
    (void)snprintf(map, sizeof(map), "%u %u 1\n", uid, outer_uid);
    if (write_file("/proc/self/setgroups", "deny") < 0) {
        sm_error_set_errno(error, errno, "user namespace: write /proc/self/setgroups");
        rc = -1;
    } else if (write_file("/proc/self/uid_map", map) < 0) {
        sm_error_set_errno(error, errno,
                           "user namespace: write uid_map (is user namespace creation restricted by AppArmor? "
                           "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root)");
        rc = -1;
    } else {
        (void)snprintf(map, sizeof(map), "%u %u 1\n", gid, outer_gid);
        if (write_file("/proc/self/gid_map", map) < 0) {
            sm_error_set_errno(error, errno, "user namespace: write gid_map");
            rc = -1;
        }
    }
    (void)prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0);
    return rc < 0 ? -1 : 1;
}

int sm_sandbox_drop_caps(GError **error)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    /* KEEP_CAPS stays unlocked: there is nothing to keep, and ping(8) gives up where it may not be set. */
    const unsigned long locked = SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT |
                                 SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        sm_error_set_errno(error, errno, "sandbox: no_new_privs");
        return -1;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (have_cap(CAP_SETPCAP)) {
        for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
            if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
                sm_error_set_errno(error, errno, "sandbox: drop capability %d from the bounding set", cap);
                return -1;
            }
        if (prctl(PR_SET_SECUREBITS, locked, 0, 0, 0) < 0) {
            sm_error_set_errno(error, errno, "sandbox: securebits");
            return -1;
        }
    }
    if (syscall(SYS_capset, &head, none) < 0) {
        sm_error_set_errno(error, errno, "sandbox: drop capabilities");
        return -1;
    }
    /* Looked at, not believed: without CAP_SETPCAP the loop above was passed over. */
    for (int cap = 0, held; (held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
        if (held > 0) {
            sm_error_set(error, SM_ERROR_SYSTEM, "sandbox: capability %d is still in the bounding set", cap);
            return -1;
        }
    return 0;
}

/*
 * An empty read-only tmpfs as the root. It is mounted over some folder that exists everywhere; pivot_root(".", ".")
 * stacks the old root on top of the new one, and the lazy unmount takes the old one off. Returns 1 when the old root is
 * gone, 0 when only a chroot was possible.
 */
static int empty_root(GError **error)
{
    static const char *const places[] = {"/tmp", "/proc", "/sys", "/dev"};
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    bool mounted = false;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 &&
        errno != EINVAL) { /* EINVAL: "/" is no mount point (chroot) */
        sm_error_set_errno(error, errno, "sandbox: make the mounts private");
        return -1;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(places) && !mounted; i++)
        mounted = mount("none", places[i], "tmpfs", flags, "nr_inodes=2,mode=0555") == 0 && chdir(places[i]) == 0;
    if (!mounted) {
        sm_error_set_errno(error, errno, "sandbox: mount an empty root");
        return -1;
    }
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) == 0 && chdir("/") == 0)
            return 1;
        sm_error_set_errno(error, errno, "sandbox: detach the old root");
        return -1;
    }
    if (chroot(".") < 0 || chdir("/") < 0) {
        sm_error_set_errno(error, errno, "sandbox: neither pivot_root nor chroot into an empty root");
        return -1;
    }
    return 0;
}

int sm_sandbox_enter(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error)
{
    if (!sm_sandbox_early_done && sm_sandbox_early(role, spec, error) < 0)
        return -1;
    if (role == SM_ROLE_SUPERVISOR)
        return 0;

    /* Groups beyond the first cannot be dropped once setgroups is denied, and only a privileged caller may drop them at
     * all. */
    if (have_cap(CAP_SETGID))
        (void)setgroups(0, NULL);
    if (sm_sandbox_user_ns(INNER_ID, INNER_ID, error) < 0)
        return -1;
    int spaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
    bool no_network = role == SM_ROLE_FRONT || role == SM_ROLE_FETCH;
    if (no_network)
        spaces |= CLONE_NEWNET;
    if (unshare(spaces) < 0) {
        sm_error_set_errno(error, errno, "sandbox: unshare %s",
                           no_network ? "network, mount, IPC and UTS" : "mount, IPC and UTS");
        return -1;
    }
    int pivoted = empty_root(error);
    if (pivoted < 0)
        return -1;
    if (sm_sandbox_drop_caps(error) < 0)
        return -1;
    int fenced = sm_sandbox_landlock();
    if (fenced < 0) {
        sm_error_set_errno(error, errno, "sandbox: Landlock");
        return -1;
    }
    if (!pivoted && !fenced) {
        sm_error_set(
            error, SM_ERROR_MISSING,
            "sandbox: pivot_root is refused here (a chroot?) and this kernel has no Landlock: start from a real root "
            "(`unshare --mount` or systemd-nspawn), or boot with lsm=landlock,...");
        return -1;
    }
    /* Credentials have changed: the parent-death signal may be gone and the process dumpable. */
    if (sm_sandbox_parent(spec->parent_fd, error) < 0)
        return -1;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        sm_error_set_errno(error, errno, "sandbox: not dumpable");
        return -1;
    }
    return sm_sandbox_filter(role, spec, error);
}
