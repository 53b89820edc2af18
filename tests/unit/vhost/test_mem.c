/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory: what is mapped, what is refused, and where addresses lead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "vhost/mem.h"

#define PAGE 4096u
#define MIB (UINT64_C(1) << 20)

static int memfd(size_t size)
{
    int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static unsigned mappings(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "memfd:guest") != NULL;
    (void)fclose(f);
    return n;
}

static void add(struct sm_vhost_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset, int fd)
{
    const struct sm_vhost_region_spec s = {.gpa = gpa, .size = size, .uva = uva, .offset = offset};
    const char *why = NULL;

    if (sm_vhost_mem_add(mem, &s, fd, &why) < 0)
        fail_msg("%s", why);
}

/* Refused with this reason, and nothing has changed. */
static void refuse(struct sm_vhost_mem *mem, uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset, int fd,
                   const char *reason)
{
    const struct sm_vhost_region_spec s = {.gpa = gpa, .size = size, .uva = uva, .offset = offset};
    const char *why = NULL;
    unsigned n = mem->n, maps = mappings();
    uint64_t total = mem->total;

    assert_int_equal(sm_vhost_mem_add(mem, &s, fd, &why), -1);
    assert_string_equal(why, reason);
    assert_int_equal(mem->n, n);
    assert_int_equal(mem->total, total);
    assert_int_equal(mappings(), maps);
}

static void test_lookup(void **state)
{
    struct sm_vhost_mem mem = {0};
    sm_autofd fd = memfd(8 * MIB);
    size_t got;

    /* As a PC has it: below the hole and above 4 GiB, one file; an offset that is no multiple of a huge page. */
    add(&mem, 0, 2 * MIB, 0x7f0000000000, 0, fd);
    add(&mem, UINT64_C(4) << 30, 4 * MIB, 0x7f0000200000, 3 * PAGE, fd);
    assert_int_equal(mem.n, 2);
    assert_int_equal(mappings(), 2);
    memcpy(mem.regions[1].va, "above", 6);
    char text[6];
    assert_int_equal(pread(fd, text, 6, 3 * PAGE), 6);
    assert_string_equal(text, "above");

    uint8_t *low = sm_vhost_mem_gpa(&mem, 0, 100, &got);
    assert_ptr_equal(low, mem.regions[0].va);
    assert_int_equal(got, 100);
    assert_ptr_equal(sm_vhost_mem_gpa(&mem, 2 * MIB - 10, 100, &got), low + 2 * MIB - 10);
    assert_int_equal(got, 10);
    assert_null(sm_vhost_mem_gpa(&mem, 2 * MIB, 1, &got));
    assert_null(sm_vhost_mem_gpa(&mem, (UINT64_C(4) << 30) - 1, 1, &got));
    assert_ptr_equal(sm_vhost_mem_gpa(&mem, (UINT64_C(4) << 30) + 5, SIZE_MAX, &got), mem.regions[1].va + 5);
    assert_int_equal(got, 4 * MIB - 5);
    assert_null(sm_vhost_mem_gpa(&mem, UINT64_MAX, 1, &got));

    assert_ptr_equal(sm_vhost_mem_uva(&mem, 0x7f0000000000, 2 * MIB), low);
    assert_null(sm_vhost_mem_uva(&mem, 0x7f0000000000, 2 * MIB + 1)); /* although a region follows in that space */
    assert_ptr_equal(sm_vhost_mem_uva(&mem, 0x7f0000200000, 16), mem.regions[1].va);
    assert_null(sm_vhost_mem_uva(&mem, 0x7f0000200000 + 4 * MIB - 8, 16));
    assert_null(sm_vhost_mem_uva(&mem, 0x7f0000000000 - 1, 1));
    assert_null(sm_vhost_mem_uva(&mem, 0x7f0000000010, UINT64_MAX));

    sm_vhost_mem_clear(&mem);
    assert_int_equal(mappings(), 0);
    assert_null(sm_vhost_mem_gpa(&mem, 0, 1, &got));
    assert_null(sm_vhost_mem_uva(&mem, 0x7f0000000000, 1));
}

static void test_copy(void **state)
{
    struct sm_vhost_mem mem = {0};
    sm_autofd fd = memfd(4 * PAGE);
    uint8_t buf[3 * PAGE];

    /* Neighbours for the guest, apart in the file and here, and not in the order of their addresses. */
    add(&mem, 0x100000 + PAGE, PAGE, 0x2000000, 0, fd);
    add(&mem, 0x100000, PAGE, 0x1000000, 2 * PAGE, fd);
    memset(mem.regions[0].va, 'b', PAGE);
    memset(mem.regions[1].va, 'a', PAGE);
    assert_true(sm_vhost_mem_copy(&mem, 0x100000 + PAGE - 3, buf, 7));
    assert_memory_equal(buf, "aaabbbb", 7);
    assert_true(sm_vhost_mem_copy(&mem, 0x100000, buf, 2 * PAGE));
    assert_int_equal(buf[0], 'a');
    assert_int_equal(buf[2 * PAGE - 1], 'b');
    assert_false(sm_vhost_mem_copy(&mem, 0x100000, buf, 2 * PAGE + 1));
    assert_false(sm_vhost_mem_copy(&mem, 0x100000 - 1, buf, 2));
    sm_vhost_mem_clear(&mem);
}

static void test_refused(void **state)
{
    struct sm_vhost_mem mem = {0};
    sm_autofd fd = memfd(4 * MIB), sealed = memfd(PAGE);
    sm_autofd readonly = -1;
    int pipes[2], pair[2];
    char path[64];

    add(&mem, MIB, MIB, 16 * MIB, 0, fd);
    refuse(&mem, 4 * MIB, 0, 32 * MIB, 0, fd, "a memory region without a byte");
    refuse(&mem, UINT64_MAX - 10, MIB, 32 * MIB, 0, fd, "a memory region that wraps around");
    refuse(&mem, 4 * MIB, MIB, UINT64_MAX - MIB + 1, 0, fd, "a memory region that wraps around");
    refuse(&mem, 4 * MIB, MIB, 32 * MIB, UINT64_MAX - PAGE, fd, "a memory region that wraps around");
    refuse(&mem, 4 * MIB, UINT64_MAX, 32 * MIB, 0, fd, "a memory region that wraps around");
    refuse(&mem, 4 * MIB, SM_VHOST_MEM_MAX, 32 * MIB, 0, fd, "more guest memory than is mapped here");
    refuse(&mem, 4 * MIB, MIB, 32 * MIB, UINT64_C(1) << 62, fd, "more guest memory than is mapped here");
    refuse(&mem, MIB, MIB, 32 * MIB, MIB, fd, "memory regions that overlap");
    refuse(&mem, 2 * MIB - 1, MIB, 32 * MIB, MIB, fd, "memory regions that overlap");
    refuse(&mem, 0, MIB + 1, 32 * MIB, MIB, fd, "memory regions that overlap");
    refuse(&mem, 4 * MIB, MIB, 17 * MIB - 1, MIB, fd, "memory regions that overlap");
    /* No access may meet the end of the file. */
    refuse(&mem, 4 * MIB, 4 * MIB + 1, 32 * MIB, 0, fd, "a memory region behind the end of its file");
    refuse(&mem, 4 * MIB, MIB, 32 * MIB, 3 * MIB + 1, fd, "a memory region behind the end of its file");
    /* Not files. */
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    refuse(&mem, 4 * MIB, PAGE, 32 * MIB, 0, pipes[0], "a memory region that is not of a regular file");
    refuse(&mem, 4 * MIB, PAGE, 32 * MIB, 0, pair[0], "a memory region that is not of a regular file");
    sm_autofd zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    assert_true(zero >= 0);
    refuse(&mem, 4 * MIB, PAGE, 32 * MIB, 0, zero, "a memory region that is not of a regular file");
    refuse(&mem, 4 * MIB, PAGE, 32 * MIB, 0, -1, "a memory region whose file cannot be looked at");
    /* Not writable: opened for reading, and sealed against it. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    readonly = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(readonly >= 0);
    refuse(&mem, 4 * MIB, MIB, 32 * MIB, 0, readonly, "a memory region that cannot be mapped for reading and writing");
    assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE), 0);
    refuse(&mem, 4 * MIB, PAGE, 32 * MIB, 0, sealed, "a memory region that cannot be mapped for reading and writing");
    for (int i = 0; i < 2; i++) {
        sm_fd_close(&pipes[i]);
        sm_fd_close(&pair[i]);
    }
    sm_vhost_mem_clear(&mem);
}

static void test_slots(void **state)
{
    struct sm_vhost_mem mem = {0};
    sm_autofd fd = memfd(PAGE);
    const char *why = NULL;
    size_t got;

    for (unsigned i = 0; i < SM_VHOST_MEM_SLOTS; i++)
        add(&mem, i * PAGE, PAGE, MIB + i * PAGE, 0, fd);
    refuse(&mem, MIB, PAGE, 2 * MIB, 0, fd, "more memory regions than slots");
    assert_int_equal(mem.total, SM_VHOST_MEM_SLOTS * PAGE);

    /* All three must fit; where it lies in its file need not. */
    struct sm_vhost_region_spec s = {.gpa = 3 * PAGE, .size = PAGE, .uva = MIB + 4 * PAGE};
    assert_int_equal(sm_vhost_mem_remove(&mem, &s, &why), -1);
    s.uva = MIB + 3 * PAGE;
    s.size = PAGE - 1;
    assert_int_equal(sm_vhost_mem_remove(&mem, &s, &why), -1);
    s.size = PAGE;
    s.offset = 77;
    assert_int_equal(sm_vhost_mem_remove(&mem, &s, &why), 0);
    assert_int_equal(mem.n, SM_VHOST_MEM_SLOTS - 1);
    assert_null(sm_vhost_mem_gpa(&mem, 3 * PAGE, 1, &got));
    for (unsigned i = 0; i < SM_VHOST_MEM_SLOTS; i++)
        if (i != 3)
            assert_non_null(sm_vhost_mem_gpa(&mem, i * PAGE, 1, &got));
    assert_int_equal(sm_vhost_mem_remove(&mem, &s, &why), -1);
    assert_string_equal(why, "the removal of a memory region that was never added");
    add(&mem, 3 * PAGE, PAGE, MIB + 3 * PAGE, 0, fd);
    sm_vhost_mem_clear(&mem);
    assert_int_equal(mappings(), 0);
}

static void test_sealed(void **state)
{
    struct sm_vhost_mem mem = {0};
    sm_autofd sealed = memfd(PAGE), open_ended = memfd(PAGE);

    assert_true(sm_vhost_mem_sealed(&mem));
    assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    add(&mem, 0, PAGE, 0, 0, sealed);
    assert_true(sm_vhost_mem_sealed(&mem));
    add(&mem, PAGE, PAGE, PAGE, 0, open_ended);
    assert_false(sm_vhost_mem_sealed(&mem));
    sm_vhost_mem_clear(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup), cmocka_unit_test(test_copy),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_slots),  cmocka_unit_test(test_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
