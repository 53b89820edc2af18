/* SPDX-License-Identifier: BSD-3-Clause */
/* The filters' programs, made when this was built, are what libseccomp makes of the rules here and now. What they do is
 * tried by test_sandbox.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "sandbox/rules.h"

static size_t make(enum sm_filter filter, uint32_t pid, struct sock_filter *code, size_t max)
{
    scmp_filter_ctx ctx = NULL;
    sm_autofd fd = memfd_create("filter", MFD_CLOEXEC);

    assert_int_equal(filter == SM_FILTER_GUEST ? sm_sandbox_guest_rules(&ctx) : sm_sandbox_rules(filter, pid, &ctx), 0);
    assert_int_equal(seccomp_export_bpf(ctx, fd), 0);
    seccomp_release(ctx);
    ssize_t len = pread(fd, code, max * sizeof(*code), 0);
    assert_true(len > 0 && (size_t)len % sizeof(*code) == 0);
    return (size_t)len / sizeof(*code);
}

static void test_as_made_here(void **state)
{
    static struct sock_filter code[4096], other[4096];

    for (int f = 0; f < SM_FILTERS; f++) {
        const struct sock_fprog *p = sm_sandbox_program((enum sm_filter)f);
        size_t n = make((enum sm_filter)f, SM_FILTER_PID, code, SM_ARRAY_LEN(code));
        unsigned places = 0;
        if (n != p->len || memcmp(code, p->filter, n * sizeof(code[0])) != 0)
            fail_msg("%s: %zu instructions, and %u were made", sm_filter_names[f], n, p->len);
        /* The process id is one number of the program, and nothing else changes with it. */
        assert_int_equal(make((enum sm_filter)f, 4711, other, SM_ARRAY_LEN(other)), n);
        for (size_t i = 0; i < n; i++) {
            bool here = code[i].k == SM_FILTER_PID;
            places += here;
            assert_int_equal(other[i].k, here ? 4711 : code[i].k);
            assert_true(other[i].code == code[i].code && other[i].jt == code[i].jt && other[i].jf == code[i].jf);
        }
        assert_int_equal(places, f != SM_FILTER_GUEST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_made_here)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
