/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions of shared guest memory: judged, mapped, looked up; see mem.h. */
#include "vhost/mem.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool overflows(uint64_t start, uint64_t len)
{
    return len > UINT64_MAX - start;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* Everything that can be said without the file. */
static const char *judge(const struct sm_vhost_mem *mem, const struct sm_vhost_region_spec *s)
{
    if (mem->n >= SM_VHOST_MEM_SLOTS)
        return "more memory regions than slots";
    if (s->size == 0)
        return "a memory region without a byte";
    if (overflows(s->gpa, s->size) || overflows(s->uva, s->size) || overflows(s->offset, s->size))
        return "a memory region that wraps around";
    if (s->size > SM_VHOST_MEM_MAX - mem->total || s->offset > SM_VHOST_MEM_MAX)
        return "more guest memory than is mapped here";
    for (unsigned i = 0; i < mem->n; i++) {
        const struct sm_vhost_region_spec *o = &mem->regions[i].spec;
        if (overlap(s->gpa, s->size, o->gpa, o->size) || overlap(s->uva, s->size, o->uva, o->size))
            return "memory regions that overlap";
    }
    return NULL;
}

int sm_vhost_mem_add(struct sm_vhost_mem *mem, const struct sm_vhost_region_spec *spec, int fd, const char **ret_why)
{
    struct stat st;
    const char *why = judge(mem, spec);

    if (!why && fstat(fd, &st) < 0)
        why = "a memory region whose file cannot be looked at";
    else if (!why && !S_ISREG(st.st_mode))
        why = "a memory region that is not of a regular file";
    else if (!why && (st.st_size < 0 || (uint64_t)st.st_size < spec->offset + spec->size))
        why = "a memory region behind the end of its file";
    if (why) {
        *ret_why = why;
        return -1;
    }
    /* Huge pages: the file's block size is the page size, and both ends of a mapping must lie on it. */
    uint64_t page = st.st_blksize > 0 ? (uint64_t)st.st_blksize : 1;
    page = SM_MAX(page, (uint64_t)sysconf(_SC_PAGESIZE));
    uint64_t start = spec->offset - spec->offset % page;
    uint64_t end = spec->offset + spec->size;
    if (end % page != 0)
        end += page - end % page;
    void *map = mmap(NULL, (size_t)(end - start), PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
    if (map == MAP_FAILED) {
        *ret_why = "a memory region that cannot be mapped for reading and writing";
        return -1;
    }
    /* Guest memory in a core dump of ours, or in a child, helps nobody. */
    (void)madvise(map, (size_t)(end - start), MADV_DONTDUMP);
    int seals = fcntl(fd, F_GET_SEALS);
    mem->regions[mem->n++] = (struct sm_vhost_region){.spec = *spec,
                                                      .va = (uint8_t *)map + (spec->offset - start),
                                                      .map = map,
                                                      .map_len = (size_t)(end - start),
                                                      .sealed = seals >= 0 && (seals & F_SEAL_SHRINK)};
    mem->total += spec->size;
    return 0;
}

int sm_vhost_mem_remove(struct sm_vhost_mem *mem, const struct sm_vhost_region_spec *spec, const char **ret_why)
{
    for (unsigned i = 0; i < mem->n; i++) {
        struct sm_vhost_region *r = &mem->regions[i];
        if (r->spec.gpa != spec->gpa || r->spec.uva != spec->uva || r->spec.size != spec->size)
            continue;
        (void)munmap(r->map, r->map_len);
        mem->total -= r->spec.size;
        *r = mem->regions[--mem->n];
        mem->hint = 0;
        return 0;
    }
    *ret_why = "the removal of a memory region that was never added";
    return -1;
}

void sm_vhost_mem_clear(struct sm_vhost_mem *mem)
{
    for (unsigned i = 0; i < mem->n; i++)
        (void)munmap(mem->regions[i].map, mem->regions[i].map_len);
    *mem = (struct sm_vhost_mem){0};
}

bool sm_vhost_mem_sealed(const struct sm_vhost_mem *mem)
{
    for (unsigned i = 0; i < mem->n; i++)
        if (!mem->regions[i].sealed)
            return false;
    return true;
}

void *sm_vhost_mem_uva(const struct sm_vhost_mem *mem, uint64_t uva, uint64_t len)
{
    for (unsigned i = 0; i < mem->n; i++) {
        const struct sm_vhost_region *r = &mem->regions[i];
        uint64_t in = uva - r->spec.uva;
        if (in < r->spec.size)
            return len <= r->spec.size - in ? r->va + in : NULL;
    }
    return NULL;
}

bool sm_vhost_mem_copy(struct sm_vhost_mem *mem, uint64_t gpa, void *buf, size_t len)
{
    uint8_t *to = buf;

    while (len > 0) {
        size_t got;
        const void *from = sm_vhost_mem_gpa(mem, gpa, len, &got);
        if (!from)
            return false;
        memcpy(to, from, got);
        to += got;
        gpa += got; /* a region's end does not overflow */
        len -= got;
    }
    return true;
}
