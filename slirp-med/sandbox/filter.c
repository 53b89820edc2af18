/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seccomp filters, loaded. What they let through stands in rules.c and guest_rules.c; the programs were made of
 * that by libseccomp when this was built (rules.h). One number in them is known only here: our own process id.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "sandbox/internal.h"

#include "sandbox/filters.h"

_Static_assert(SM_ARRAY_LEN(filters) == SM_FILTERS, "a program for each filter");

const struct sock_fprog *sm_sandbox_program(enum sm_filter filter)
{
    return &filters[filter];
}

/** Returns 0 or a negative errno. */
static int load(enum sm_filter filter, unsigned flags)
{
    const struct sock_fprog *made = &filters[filter];
    size_t size = made->len * sizeof(struct sock_filter);
    g_autofree struct sock_filter *code = g_memdup2(made->filter, size);
    struct sock_fprog program = {made->len, code};
    unsigned places = 0;

    for (size_t i = 0; i < made->len; i++)
        if (code[i].k == SM_FILTER_PID) {
            code[i].k = (uint32_t)getpid();
            places++;
        }
    if (places != (filter != SM_FILTER_GUEST))
        return -EINVAL; /* not the program that we know: rather none of ours runs than one with another filter */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return rc == 0 ? 0 : rc < 0 ? -errno : -ESRCH; /* a thread that could not follow */
}

static enum sm_filter filter_of(enum sm_role role, const struct sm_sandbox_spec *spec)
{
    switch (role) {
    case SM_ROLE_FRONT:
        if (spec->accepts && spec->splices)
            return spec->guest_memory ? SM_FILTER_FRONT_MEMORY_SPLICES : SM_FILTER_FRONT_SPLICES;
        if (spec->guest_memory)
            return SM_FILTER_FRONT_MEMORY;
        return spec->accepts ? SM_FILTER_FRONT_ACCEPTS : SM_FILTER_FRONT;
    case SM_ROLE_CORE:
        return SM_FILTER_CORE;
    case SM_ROLE_FETCH:
        return SM_FILTER_FETCH;
    case SM_ROLE_SUPERVISOR: /* has none */
    case SM_ROLES:
        break;
    }
    return SM_FILTER_FRONT; /* the least of all */
}

int sm_sandbox_filter(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error)
{
    int rc = load(filter_of(role, spec), SECCOMP_FILTER_FLAG_TSYNC);

    if (rc == 0)
        return 0;
    sm_error_set_errno(error, -rc, "sandbox: seccomp filter of the %s (CONFIG_SECCOMP_FILTER is needed)",
                       sm_role_name(role));
    return -1;
}

int sm_sandbox_guest_filter(GError **error)
{
    int rc = load(SM_FILTER_GUEST, 0);

    if (rc == 0)
        return 0;
    sm_error_set_errno(error, -rc, "sandbox: CMD's seccomp filter (CONFIG_SECCOMP_FILTER is needed)");
    return -1;
}
