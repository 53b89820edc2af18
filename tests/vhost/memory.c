/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory of the front-end simulator. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "sim.h"

/* The middle of a buffer that begins in region 0 and ends in region 1: sixteen of them in turn, each at most this long.
 */
#define ACROSS_MAX (2 * SIM_PAGE)
#define UVA UINT64_C(0x7f5a00000000)

void sim_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void sim_put32(uint8_t *p, uint32_t v)
{
    sim_put16(p, (uint16_t)v);
    sim_put16(p + 2, (uint16_t)(v >> 16));
}

void sim_put64(uint8_t *p, uint64_t v)
{
    sim_put32(p, (uint32_t)v);
    sim_put32(p + 4, (uint32_t)(v >> 32));
}

uint16_t sim_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t sim_get32(const uint8_t *p)
{
    return sim_get16(p) | (uint32_t)sim_get16(p + 2) << 16;
}

uint64_t sim_get64(const uint8_t *p)
{
    return sim_get32(p) | (uint64_t)sim_get32(p + 4) << 32;
}

static int file(uint64_t size)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);

    SIM_MUST(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return fd;
}

static void map(struct sim_region *r)
{
    r->mem = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)r->offset);
    SIM_MUST(r->mem != MAP_FAILED);
}

/*
 * Region 0 is low memory and region 2 what is above 4 GiB, both in one file as with QEMU; region 1 lies right behind
 * region 0 for the guest, but in another file, at an offset, and below it for the VMM. Region 3 holds no ring, so that
 * it can be plugged and unplugged.
 */
static void files(struct sim *sim)
{
    uint64_t size = sim->cfg.region_size;
    int low = file(2 * size), other = file(size + SIM_PAGE);

    sim->regions[0].fd = low;
    sim->regions[1].fd = other;
    sim->regions[2].fd = dup(low);
    SIM_MUST(sim->regions[2].fd >= 0);
    sim->regions[3].fd = file(size);
    for (unsigned i = 0; i < SIM_REGIONS; i++)
        map(&sim->regions[i]);
}

void sim_memory_init(struct sim *sim)
{
    uint64_t size = sim->cfg.region_size;

    SIM_MUST(size % SIM_PAGE == 0 && size >= 64 * SIM_PAGE && size < UINT64_C(1) << 31);
    sim->regions[0] = (struct sim_region){.gpa = 0, .size = size, .uva = UVA + 2 * size};
    sim->regions[1] = (struct sim_region){.gpa = size, .size = size, .uva = UVA, .offset = SIM_PAGE};
    sim->regions[2] =
        (struct sim_region){.gpa = UINT64_C(1) << 32, .size = size, .uva = UVA + 5 * size, .offset = size};
    sim->regions[3] = (struct sim_region){.gpa = UINT64_C(1) << 36, .size = size, .uva = UVA - 4 * size};
    files(sim);
    sim->regions[0].used = SIM_PAGE; /* so that no address is 0 */
    sim->regions[1].used = ACROSS_MAX;
}

static void unmap(struct sim *sim)
{
    for (unsigned i = 0; i < SIM_REGIONS; i++) {
        (void)munmap(sim->regions[i].mem, sim->regions[i].size);
        (void)close(sim->regions[i].fd);
    }
}

void sim_memory_clear(struct sim *sim)
{
    unmap(sim);
}

/* Every pointer into what was mapped before. */
static void find_rings(struct sim *sim)
{
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        struct sim_queue *q = &sim->queues[i];
        q->desc_mem = sim_at(sim, q->desc, (uint64_t)q->size * DESC_LEN);
        q->avail_mem = sim_at(sim, q->avail, 6 + 2 * (uint64_t)q->size);
        q->used_mem = sim_at(sim, q->used, 6 + 8 * (uint64_t)q->size);
    }
}

void sim_regions_again(struct sim *sim)
{
    for (unsigned i = 0; i < SIM_REGIONS; i++) {
        struct sim_region *r = &sim->regions[i];
        char path[64];
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", r->fd);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        SIM_MUST(fd >= 0);
        (void)close(r->fd);
        r->fd = fd;
    }
}

void sim_regions_copy(struct sim *sim)
{
    struct sim_region old[SIM_REGIONS];

    memcpy(old, sim->regions, sizeof(old));
    files(sim);
    for (unsigned i = 0; i < SIM_REGIONS; i++) {
        memcpy(sim->regions[i].mem, old[i].mem, old[i].size);
        (void)munmap(old[i].mem, old[i].size);
        (void)close(old[i].fd);
    }
    find_rings(sim);
}

static struct sim_region *region_of(struct sim *sim, uint64_t gpa)
{
    for (unsigned i = 0; i < SIM_REGIONS; i++)
        if (gpa >= sim->regions[i].gpa && gpa - sim->regions[i].gpa < sim->regions[i].size)
            return &sim->regions[i];
    SIM_MUST(!"an address in memory");
    return NULL;
}

uint8_t *sim_at(struct sim *sim, uint64_t gpa, uint64_t len)
{
    struct sim_region *r = region_of(sim, gpa);

    SIM_MUST(len <= r->size - (gpa - r->gpa));
    return r->mem + (gpa - r->gpa);
}

uint64_t sim_uva(struct sim *sim, uint64_t gpa)
{
    struct sim_region *r = region_of(sim, gpa);
    return r->uva + (gpa - r->gpa);
}

/* The part of a range that lies in the region where it begins. */
static size_t part(struct sim *sim, uint64_t gpa, size_t len, uint8_t **ret)
{
    struct sim_region *r = region_of(sim, gpa);
    uint64_t at = gpa - r->gpa;

    *ret = r->mem + at;
    return len < r->size - at ? len : (size_t)(r->size - at);
}

void sim_write(struct sim *sim, uint64_t gpa, const void *data, size_t len)
{
    const uint8_t *from = data;

    while (len > 0) {
        uint8_t *p;
        size_t n = part(sim, gpa, len, &p);
        memcpy(p, from, n);
        from += n;
        gpa += n;
        len -= n;
    }
}

void sim_read(struct sim *sim, uint64_t gpa, void *data, size_t len)
{
    uint8_t *to = data;

    while (len > 0) {
        uint8_t *p;
        size_t n = part(sim, gpa, len, &p);
        memcpy(to, p, n);
        to += n;
        gpa += n;
        len -= n;
    }
}

void sim_fill(struct sim *sim, uint64_t gpa, uint8_t c, size_t len)
{
    while (len > 0) {
        uint8_t *p;
        size_t n = part(sim, gpa, len, &p);
        memset(p, c, n);
        gpa += n;
        len -= n;
    }
}

/* The end of region 0 belongs to the buffers that cross it. */
static uint64_t end_of(const struct sim *sim, unsigned region)
{
    return sim->regions[region].size - (region == 0 ? ACROSS_MAX : 0);
}

uint64_t sim_alloc(struct sim *sim, unsigned region, uint64_t len)
{
    struct sim_region *r = &sim->regions[region];
    uint64_t at = (r->used + SIM_PAGE - 1) / SIM_PAGE * SIM_PAGE;

    SIM_MUST(len <= end_of(sim, region) && at <= end_of(sim, region) - len);
    r->used = at + len;
    if (r->next < r->used)
        r->next = r->used;
    return r->gpa + at;
}

uint64_t sim_buffer(struct sim *sim, unsigned region, uint32_t len)
{
    struct sim_region *r = &sim->regions[region];

    if (r->next + len > end_of(sim, region))
        r->next = r->used;
    SIM_MUST(r->next + len <= end_of(sim, region));
    uint64_t gpa = r->gpa + r->next;
    r->next += len;
    return gpa;
}

/* One at a time is in use: the caller waits until it was used before it asks for the next. */
uint64_t sim_buffer_across(struct sim *sim, uint32_t len)
{
    SIM_MUST(len >= 2 && len <= 2 * ACROSS_MAX);
    return sim->regions[1].gpa - len / 2;
}
