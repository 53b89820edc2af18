/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory that a VMM shares over vhost-user: regions of files, mapped, and the way from an address of the guest (in
 * descriptors) or of the VMM's own process (where rings lie) to ours.
 *
 * What holds after sm_vhost_mem_add() has returned 0: the region's guest addresses, VMM addresses and file offsets do not
 * overflow; it overlaps no other region in either space; its file is a regular one (memfd, hugetlbfs, shm) that was at
 * least as long as offset + size at that moment, so that no access inside the region meets the end of the file. It is
 * mapped readable and writable, never executable.
 *
 * What does not hold: that the bytes stay as they are (the guest writes at any time: whoever uses them copies them once
 * and judges the copy), and that the file stays that long. A VMM that truncates it later makes our next access a SIGBUS,
 * which ends the front and with it the workspace's network: the VMM can do that to itself only. Where the file is sealed
 * against shrinking (QEMU's memory-backend-memfd seals by default) it cannot even do that; `sealed` says so. The same ends
 * it when a page that nobody has touched yet cannot be had: the machine is out of huge pages or the file system is full. A
 * file system of the VMM's own (FUSE) could make an access wait instead.
 *
 * Source: vhost-user protocol, "Memory region description", SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG.
 * One thread. The owner of the struct zero-initialises it; sm_vhost_mem_clear() unmaps everything.
 */
#ifndef SM_VHOST_MEM_H
#define SM_VHOST_MEM_H

#include <glib.h>
#include <sys/uio.h>

#include "base/defs.h"

/** Memory slots: what GET_MAX_MEM_SLOTS answers. As many as QEMU's own library offers; a guest has two to four, each
 * memory device that is plugged in takes one. */
#define SM_VHOST_MEM_SLOTS 32
/** All regions together: no guest of a rootless VMM comes near it, and it leaves our address space room. */
#define SM_VHOST_MEM_MAX (UINT64_C(4) << 40)

/** A region as the VMM describes it. */
struct sm_vhost_region_spec {
    uint64_t gpa; /* guest physical address */
    uint64_t size;
    uint64_t uva;    /* the same place in the VMM's process */
    uint64_t offset; /* in the file */
};

struct sm_vhost_region {
    struct sm_vhost_region_spec spec;
    uint8_t *va; /* where spec.gpa is here */
    void *map;   /* the mapping, which begins on a page of the file */
    size_t map_len;
    bool sealed; /* the file cannot shrink any more */
};

struct sm_vhost_mem {
    struct sm_vhost_region regions[SM_VHOST_MEM_SLOTS];
    unsigned n;
    unsigned hint; /* the region that was found last */
    uint64_t total;
};

/**
 * sm_vhost_mem_add() - map one more region. fd stays the caller's and is not needed afterwards.
 * Returns 0, or -1 with *ret_why (a constant text) and nothing changed.
 */
int sm_vhost_mem_add(struct sm_vhost_mem *mem, const struct sm_vhost_region_spec *spec, int fd, const char **ret_why);
/** sm_vhost_mem_remove() - unmap the region with this gpa, uva and size (the offset is not looked at: ABI of REM_MEM_REG).
 * Returns 0, or -1 with *ret_why. Pointers into it are dead. */
int sm_vhost_mem_remove(struct sm_vhost_mem *mem, const struct sm_vhost_region_spec *spec, const char **ret_why);
/** sm_vhost_mem_clear() - unmap all. */
void sm_vhost_mem_clear(struct sm_vhost_mem *mem);
/** sm_vhost_mem_sealed() - no region's file can shrink under us. True for no region. */
bool sm_vhost_mem_sealed(const struct sm_vhost_mem *mem);

/**
 * sm_vhost_mem_gpa() - our address of guest address gpa.
 * @want: bytes wanted, > 0; @ret_got: how many of them lie in the same region (1 ... want).
 * Returns NULL when no region holds gpa.
 */
static inline void *sm_vhost_mem_gpa(struct sm_vhost_mem *mem, uint64_t gpa, size_t want, size_t *ret_got)
{
    unsigned i = mem->hint;

    for (unsigned tried = 0; tried < mem->n; tried++) {
        const struct sm_vhost_region *r = &mem->regions[i];
        uint64_t in = gpa - r->spec.gpa; /* huge when gpa is below it */
        if (in < r->spec.size) {
            uint64_t left = r->spec.size - in;
            mem->hint = i;
            *ret_got = want < left ? want : (size_t)left;
            return r->va + in;
        }
        i = i + 1 < mem->n ? i + 1 : 0;
    }
    return NULL;
}

/** sm_vhost_mem_uva() - our address of the VMM's address uva, for len > 0 bytes that all lie in one region; else NULL. */
void *sm_vhost_mem_uva(const struct sm_vhost_mem *mem, uint64_t uva, uint64_t len);

/** sm_vhost_mem_copy() - copy len bytes from guest address gpa, over the borders of regions. False when a byte of them is
 * in none; then buf holds something. */
bool sm_vhost_mem_copy(struct sm_vhost_mem *mem, uint64_t gpa, void *buf, size_t len);

#endif
