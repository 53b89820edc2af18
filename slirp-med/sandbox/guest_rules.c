/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The deny-list that CMD runs under, as rules; see rules.h. CMD is any program, so all is allowed but what reaches past
 * its namespaces. It is not what holds CMD in (namespaces and the lack of capabilities are); it shuts the few doors
 * that those leave open.
 */
#include "sandbox/rules.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define INT_MASK UINT64_C(0xffffffff)

/** Above every socket family the kernel knows (AF_MAX is 46 in Linux 6.12), so that one rule can refuse the rest. */
#define FAMILY_END 64

static const int refused_calls[] = {
    /* the caller's keyrings hang on the user and the session, not on a namespace */
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(keyctl),
    /* machine-wide */
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(syslog),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    /* a file by handle walks around every mask */
    SCMP_SYS(open_by_handle_at),
    /* exploit helpers that ordinary programs do without */
    SCMP_SYS(userfaultfd),
    /* the mounts are ours (they need a capability anyway) */
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(open_tree),
    SCMP_SYS(move_mount),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(fsconfig),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(setns),
};

/* Families that live in a network namespace, or in the file system. AF_VSOCK reaches the hypervisor, AF_QIPCRTR the
 * modem, AF_ALG the kernel. */
static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET};

static bool family_allowed(int family)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(families); i++)
        if (families[i] == family)
            return true;
    return false;
}

static void rule(scmp_filter_ctx ctx, int *rc, int err, int nr, unsigned n, const struct scmp_arg_cmp *cmp)
{
    if (*rc == 0)
        *rc = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO((uint32_t)err), nr, n, cmp);
}

static void refuse_families(scmp_filter_ctx ctx, int *rc, int nr)
{
    for (int f = 0; f < FAMILY_END; f++) {
        const struct scmp_arg_cmp cmp[] = {SCMP_A0(SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)f)};
        if (!family_allowed(f))
            rule(ctx, rc, EAFNOSUPPORT, nr, 1, cmp);
    }
    /* Also what has bits in the upper half: the kernel would not see them. */
    const struct scmp_arg_cmp rest[] = {SCMP_A0(SCMP_CMP_GE, FAMILY_END, 0)};
    rule(ctx, rc, EAFNOSUPPORT, nr, 1, rest);
}

int sm_sandbox_guest_rules(scmp_filter_ctx *ret)
{
    static const unsigned long ioctls[] = {TIOCSTI, TIOCLINUX};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int rc = ctx ? 0 : -ENOMEM;

#if defined(__x86_64__)
    if (rc == 0)
        rc = seccomp_arch_add(ctx, SCMP_ARCH_X86);
    if (rc == 0)
        rc = seccomp_arch_add(ctx, SCMP_ARCH_X32);
#elif defined(__aarch64__)
    if (rc == 0)
        rc = seccomp_arch_add(ctx, SCMP_ARCH_ARM);
#endif
    for (size_t i = 0; i < SM_ARRAY_LEN(refused_calls); i++)
        rule(ctx, &rc, EPERM, refused_calls[i], 0, NULL);
    for (size_t i = 0; i < SM_ARRAY_LEN(ioctls); i++) {
        const struct scmp_arg_cmp cmp[] = {SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK, ioctls[i])};
        rule(ctx, &rc, EPERM, SCMP_SYS(ioctl), 1, cmp);
    }
    /* A user namespace of its own would give CMD capabilities, if only inside: more of the kernel to attack, and
     * netfilter to play with. */
    const struct scmp_arg_cmp first[] = {SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER)};
    rule(ctx, &rc, EPERM, SCMP_SYS(unshare), 1, first);
    rule(ctx, &rc, EPERM, SCMP_SYS(clone), 1, first);
    rule(ctx, &rc, ENOSYS, SCMP_SYS(clone3), 0, NULL);
    /* A ring makes sockets (IORING_OP_SOCKET) of the families refused below, where no filter sees it. Programs go on
     * without it. */
    rule(ctx, &rc, ENOSYS, SCMP_SYS(io_uring_setup), 0, NULL);
    rule(ctx, &rc, ENOSYS, SCMP_SYS(io_uring_enter), 0, NULL);
    rule(ctx, &rc, ENOSYS, SCMP_SYS(io_uring_register), 0, NULL);

    refuse_families(ctx, &rc, SCMP_SYS(socket));
    refuse_families(ctx, &rc, SCMP_SYS(socketpair));
    /* 32-bit x86 multiplexes socket calls through one call whose arguments lie in memory, where no filter sees them. */
    rule(ctx, &rc, ENOSYS, SCMP_SYS(socketcall), 0, NULL);

    *ret = ctx;
    return rc;
}
