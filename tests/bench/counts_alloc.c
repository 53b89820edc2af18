/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocations of what is counted: malloc and its family, in place of libc's for the program and for every library
 * in it, since they are looked up in the program first. Each call is one, whatever comes of it; the memory is glibc's as
 * ever, and so is free(). GLib's slices go the same way when G_SLICE says always-malloc, which counts.py does.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "counts.h"

static bool counting;
static unsigned long made;

void counts_allocations_count(bool on)
{
    counting = on;
}

unsigned long counts_allocations_made(void)
{
    return made;
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) /* which has a malloc of its own */

/* glibc's own names, which no header has, for a program that has a malloc of its own. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    made += counting;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    made += counting;
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    made += counting;
    return __libc_realloc(old, size);
}

void *reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;

    made += counting;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t size)
{
    made += counting;
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    made += counting;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    void *p;

    made += counting;
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
        return EINVAL;
    p = __libc_memalign(alignment, size);
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}

#endif
