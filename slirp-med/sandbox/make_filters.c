/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs when this is built: writes the filters of rules.h as C tables to its standard output; filter.c includes them. */
#include <linux/filter.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sandbox/rules.h"

/** The kernel's limit, BPF_MAXINSNS. */
#define CODE_MAX 4096

static int fail(const char *what, int rc)
{
    fprintf(stderr, "make_filters: %s: %s\n", what, strerror(-rc));
    return 1;
}

static int make(enum sm_filter filter)
{
    static struct sock_filter code[CODE_MAX];
    scmp_filter_ctx ctx = NULL;
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int rc = filter == SM_FILTER_GUEST ? sm_sandbox_guest_rules(&ctx) : sm_sandbox_rules(filter, SM_FILTER_PID, &ctx);

    if (rc == 0)
        rc = seccomp_export_bpf(ctx, fd);
    if (ctx)
        seccomp_release(ctx);
    if (fd < 0 || rc < 0)
        return fail(sm_filter_names[filter], rc);
    ssize_t len = pread(fd, code, sizeof(code), 0);
    (void)close(fd);
    if (len <= 0 || (size_t)len % sizeof(code[0]) != 0)
        return fail(sm_filter_names[filter], -E2BIG);
    printf("static const struct sock_filter code_%d[] = { /* %s */\n", (int)filter, sm_filter_names[filter]);
    for (size_t i = 0; i < (size_t)len / sizeof(code[0]); i++)
        printf("    {0x%x, %u, %u, 0x%x},\n", code[i].code, code[i].jt, code[i].jf, code[i].k);
    printf("};\n");
    return 0;
}

int main(void)
{
    /* What comes out is for the kernel that it will run on, whatever this one can do: level 3 has KILL_PROCESS (Linux
     * 4.14). */
    int rc = seccomp_api_set(3);

    if (rc < 0)
        return fail("libseccomp's API level", rc);
    for (int i = 0; i < SM_FILTERS; i++)
        if (make((enum sm_filter)i))
            return 1;
    printf("static const struct sock_fprog filters[] = {\n");
    for (int i = 0; i < SM_FILTERS; i++)
        printf("    {sizeof(code_%d) / sizeof(code_%d[0]), (struct sock_filter *)code_%d},\n", i, i, i);
    printf("};\n");
    return fflush(stdout) == 0 ? 0 : 1;
}
