/* SPDX-License-Identifier: BSD-3-Clause */
/* malloc, but for one buffer; see h2_mem.h. */
#include "http/h2_mem.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/secret.h"

/*
 * nghttp2's frame buffer is 16,384 bytes and a little; nothing else that it allocates for an idle connection comes
 * near.
 */
#define SPARSE_MIN 16384u
#define SPARSE_MAX 20480u
#define PAGE 4096u /* where pages are larger this only saves less */

static void *sparse(size_t size)
{
    void *p = aligned_alloc(PAGE, (size + PAGE - 1) / PAGE * PAGE);

    if (p)
        (void)madvise(p, SPARSE_MIN, MADV_DONTNEED);
    return p;
}

static void *mem_malloc(size_t size, void *user_data)
{
    (void)user_data;
    return size >= SPARSE_MIN && size <= SPARSE_MAX ? sparse(size) : malloc(size);
}

static void mem_free(void *p, void *user_data)
{
    const struct sm_h2_mem *m = user_data;

    if (m->wipe && p)
        sm_wipe(p, malloc_usable_size(p));
    free(p);
}

static void *mem_calloc(size_t n, size_t size, void *user_data)
{
    (void)user_data;
    return calloc(n, size);
}

static void *mem_realloc(void *p, size_t size, void *user_data)
{
    const struct sm_h2_mem *m = user_data;

    if (!p)
        return mem_malloc(size, user_data);
    if (!m->wipe)
        return realloc(p, size);
    /* realloc() would leave the old place as it is. */
    void *larger = mem_malloc(size, user_data);
    if (larger) {
        memcpy(larger, p, SM_MIN(size, malloc_usable_size(p)));
        mem_free(p, user_data);
    }
    return larger;
}

void sm_h2_mem_init(struct sm_h2_mem *m)
{
    *m = (struct sm_h2_mem){.mem = {m, mem_malloc, mem_free, mem_calloc, mem_realloc}};
}
