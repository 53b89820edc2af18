/* SPDX-License-Identifier: BSD-3-Clause */
/* Split virtqueues, device side; see ring.h. Field by field: virtio 1.1, 2.6.5 to 2.6.8. */
#include "vhost/ring.h"

#include <endian.h>
#include <string.h>
#include <unistd.h>

#define RELAXED __ATOMIC_RELAXED

static const char *const fault_names[] = {
#define X(name, text) text,
    SM_VHOST_FAULTS(X)
#undef X
};
SM_NAME_TABLE_COVERS(fault_names, SM_VHOST_FAULT_COUNT);

const char *sm_vhost_fault_name(enum sm_vhost_fault fault)
{
    return fault_names[fault];
}

/* The fields of the two rings that the other side writes, or that it reads while we write. */
static uint16_t load16(const __virtio16 *p)
{
    return le16toh(__atomic_load_n(p, RELAXED));
}

static void store16(__virtio16 *p, uint16_t v)
{
    __atomic_store_n(p, htole16(v), RELAXED);
}

static __virtio16 *used_event(const struct sm_vhost_ring *ring) /* behind the available entries: the driver writes it */
{
    return &ring->avail->ring[ring->num];
}

static __virtio16 *avail_event(const struct sm_vhost_ring *ring) /* behind the used entries: we write it */
{
    return (__virtio16 *)(void *)&ring->used->ring[ring->num];
}

void sm_vhost_ring_init(struct sm_vhost_ring *ring)
{
    *ring = (struct sm_vhost_ring){.enable = -1, .kick_fd = -1, .call_fd = -1, .err_fd = -1};
}

bool sm_vhost_ring_map(struct sm_vhost_ring *ring, struct sm_vhost_mem *mem)
{
    /* Each of the two rings ends with an event index, which is there whether it is used or not. */
    void *desc = sm_vhost_mem_uva(mem, ring->desc_uva, ring->num * sizeof(struct vring_desc));
    void *avail = sm_vhost_mem_uva(mem, ring->avail_uva, 4 + 2 * (uint64_t)ring->num + 2);
    void *used = sm_vhost_mem_uva(mem, ring->used_uva, 4 + sizeof(struct vring_used_elem) * (uint64_t)ring->num + 2);

    if (ring->num == 0 || !desc || !avail || !used || (uintptr_t)desc % VRING_DESC_ALIGN_SIZE != 0 ||
        (uintptr_t)avail % VRING_AVAIL_ALIGN_SIZE != 0 || (uintptr_t)used % VRING_USED_ALIGN_SIZE != 0) {
        ring->fault = SM_VHOST_FAULT_MEMORY;
        ring->desc = NULL;
        ring->avail = NULL;
        ring->used = NULL;
        return false;
    }
    ring->mem = mem;
    ring->desc = desc;
    ring->avail = avail;
    ring->used = used;
    return true;
}

void sm_vhost_ring_start(struct sm_vhost_ring *ring, bool event_idx, bool indirect)
{
    uint16_t used = load16(&ring->used->idx);

    ring->event_idx = event_idx;
    ring->indirect = indirect;
    if ((uint16_t)(load16(&ring->avail->idx) - used) <= ring->num)
        ring->last_avail = used;
    ring->avail_seen = ring->last_avail;
    ring->used_idx = ring->published = used;
    ring->signalled_ever = false;
    /* Whatever an earlier back-end left there: nobody waits yet. With EVENT_IDX the flags are 0 (2.6.10.1). */
    store16(&ring->used->flags, event_idx ? 0 : VRING_USED_F_NO_NOTIFY);
    ring->quiet = true;
    ring->fault = SM_VHOST_FAULT_NONE;
    ring->fault_said = false;
    ring->started = true;
}

void sm_vhost_ring_stop(struct sm_vhost_ring *ring)
{
    ring->started = false;
    ring->fault = SM_VHOST_FAULT_NONE;
    ring->fault_said = false;
    ring->mem = NULL;
    ring->desc = NULL;
    ring->avail = NULL;
    ring->used = NULL;
}

/* ---- chains ---- */

/* The other side may write the source meanwhile: from here on the compiler has to use the copy, and may not go back. */
static inline void once(struct vring_desc *d)
{
    __asm__ volatile("" : "+m"(*d));
}

static enum sm_vhost_pop broken(struct sm_vhost_ring *ring, enum sm_vhost_fault fault)
{
    ring->fault = fault;
    return SM_VHOST_POP_BROKEN;
}

/* Where the walk reads descriptors: the ring's own table, then perhaps one indirect table. */
struct table {
    volatile struct vring_desc *direct; /* the ring's */
    const uint8_t *near;                /* an indirect table that lies in one region; no alignment is promised */
    uint64_t gpa;                       /* else its guest address */
    uint32_t n;
};

static bool table_read(struct sm_vhost_mem *mem, const struct table *t, uint32_t i, struct vring_desc *ret)
{
    if (t->direct) {
        const volatile struct vring_desc *d = &t->direct[i];
        *ret = (struct vring_desc){.addr = d->addr, .len = d->len, .flags = d->flags, .next = d->next};
    } else if (t->near)
        memcpy(ret, t->near + (size_t)i * sizeof(*ret), sizeof(*ret));
    else if (!sm_vhost_mem_copy(mem, t->gpa + (uint64_t)i * sizeof(*ret), ret, sizeof(*ret)))
        return false;
    once(ret);
    *ret = (struct vring_desc){
        .addr = le64toh(ret->addr), .len = le32toh(ret->len), .flags = le16toh(ret->flags), .next = le16toh(ret->next)};
    return true;
}

static bool table_open(struct sm_vhost_mem *mem, const struct vring_desc *d, struct table *ret)
{
    size_t got;

    if (d->len == 0 || d->len % sizeof(struct vring_desc) != 0 || d->len > UINT64_MAX - d->addr)
        return false;
    const uint8_t *at = sm_vhost_mem_gpa(mem, d->addr, d->len, &got);
    if (!at)
        return false;
    *ret = (struct table){.near = got == d->len ? at : NULL, .gpa = d->addr, .n = d->len / sizeof(struct vring_desc)};
    return true;
}

/* The bytes of one descriptor become parts: one, or one for each region that it lies in. */
static enum sm_vhost_pop add_parts(struct sm_vhost_ring *ring, const struct vring_desc *d, unsigned max,
                                   struct sm_vhost_chain *c)
{
    uint64_t addr = d->addr;
    size_t left = d->len;
    bool in = d->flags & VRING_DESC_F_WRITE;

    if (!in && c->n_in > 0)
        return broken(ring, SM_VHOST_FAULT_ORDER);
    while (left > 0) {
        size_t got;
        void *va = sm_vhost_mem_gpa(ring->mem, addr, left, &got);
        if (!va)
            return broken(ring, SM_VHOST_FAULT_ADDRESS);
        if (c->n_out + c->n_in >= SM_MIN(max, SM_VHOST_PARTS_MAX)) {
            if (max >= SM_VHOST_PARTS_MAX)
                return broken(ring, SM_VHOST_FAULT_PARTS);
            return SM_VHOST_POP_NO_ROOM;
        }
        c->parts[c->n_out + c->n_in] = (struct iovec){.iov_base = va, .iov_len = got};
        *(in ? &c->n_in : &c->n_out) += 1;
        *(in ? &c->in_len : &c->out_len) += got;
        addr += got; /* a region's end does not overflow */
        left -= got;
    }
    return SM_VHOST_POP_CHAIN;
}

static enum sm_vhost_pop walk(struct sm_vhost_ring *ring, unsigned max, struct sm_vhost_chain *c)
{
    struct table t = {.direct = ring->desc, .n = ring->num};
    uint32_t i = c->head;

    for (unsigned count = 0;;) {
        struct vring_desc d;
        if (i >= t.n)
            return broken(ring, SM_VHOST_FAULT_NEXT);
        if (t.direct && ++c->n_desc > ring->num)
            return broken(ring, SM_VHOST_FAULT_LONG);
        if (!table_read(ring->mem, &t, i, &d))
            return broken(ring, SM_VHOST_FAULT_TABLE);
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (!ring->indirect)
                return broken(ring, SM_VHOST_FAULT_INDIRECT);
            if (!t.direct || (d.flags & VRING_DESC_F_NEXT))
                return broken(ring, SM_VHOST_FAULT_NESTED);
            if (!table_open(ring->mem, &d, &t))
                return broken(ring, SM_VHOST_FAULT_TABLE);
            i = 0;
            continue; /* once, since tables do not nest */
        }
        if (++count > SM_VHOST_CHAIN_MAX)
            return broken(ring, SM_VHOST_FAULT_LONG);
        enum sm_vhost_pop rc = add_parts(ring, &d, max, c);
        if (rc != SM_VHOST_POP_CHAIN || !(d.flags & VRING_DESC_F_NEXT))
            return rc;
        i = d.next;
    }
}

/* Read the guest's index. False when it is a lie. */
static bool see(struct sm_vhost_ring *ring)
{
    uint16_t idx =
        le16toh(__atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE)); /* before the entries that it counts */

    if ((uint16_t)(idx - ring->last_avail) > ring->num) {
        ring->fault = SM_VHOST_FAULT_AVAIL_INDEX;
        return false;
    }
    ring->avail_seen = idx;
    return true;
}

/* Is there an entry? The index is read only when it seems that there is none. */
static bool look(struct sm_vhost_ring *ring)
{
    if (ring->avail_seen == ring->last_avail && !see(ring))
        return false;
    return ring->avail_seen != ring->last_avail;
}

enum sm_vhost_pop sm_vhost_ring_pop(struct sm_vhost_ring *ring, struct iovec *parts, unsigned max,
                                    struct sm_vhost_chain *ret)
{
    if (!sm_vhost_ring_live(ring))
        return SM_VHOST_POP_NONE;
    if (!look(ring))
        return ring->fault ? SM_VHOST_POP_BROKEN : SM_VHOST_POP_NONE;
    *ret =
        (struct sm_vhost_chain){.head = load16(&ring->avail->ring[ring->last_avail & (ring->num - 1)]), .parts = parts};
    if (ret->head >= ring->num)
        return broken(ring, SM_VHOST_FAULT_HEAD);
    enum sm_vhost_pop rc = walk(ring, max, ret);
    if (rc == SM_VHOST_POP_CHAIN)
        ring->last_avail++;
    return rc;
}

void sm_vhost_ring_unpop(struct sm_vhost_ring *ring, unsigned n)
{
    ring->last_avail = (uint16_t)(ring->last_avail - n);
}

/* ---- used entries and notifications ---- */

void sm_vhost_ring_push(struct sm_vhost_ring *ring, uint16_t head, uint32_t len)
{
    struct vring_used_elem *e = &ring->used->ring[ring->used_idx & (ring->num - 1)];

    *e = (struct vring_used_elem){.id = htole32(head), .len = htole32(len)};
    ring->used_idx++;
}

bool sm_vhost_ring_publish(struct sm_vhost_ring *ring)
{
    if (ring->published == ring->used_idx)
        return false;
    ring->published = ring->used_idx;
    __atomic_store_n(&ring->used->idx, htole16(ring->used_idx), __ATOMIC_RELEASE); /* after the entries */
    /* The driver writes what it wants and then looks at our index; we wrote the index and now look at what it wants. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!ring->event_idx)
        return !(load16(&ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
    uint16_t old = ring->signalled;
    bool ever = ring->signalled_ever;
    ring->signalled = ring->used_idx;
    ring->signalled_ever = true;
    return !ever || vring_need_event(load16(used_event(ring)), ring->used_idx, old);
}

bool sm_vhost_ring_call(struct sm_vhost_ring *ring)
{
    const uint64_t one = 1;

    if (!sm_vhost_ring_publish(ring) || ring->call_fd < 0)
        return false;
    /* An eventfd that is full says the same already; the descriptor is the VMM's, and what else may be wrong with it is
     * the VMM's affair. */
    (void)!write(ring->call_fd, &one, sizeof(one));
    return true;
}

void sm_vhost_ring_kicks_off(struct sm_vhost_ring *ring)
{
    /* With EVENT_IDX the event lies behind us after the first chain: nothing has to be done. */
    if (!sm_vhost_ring_live(ring) || ring->event_idx || ring->quiet)
        return;
    store16(&ring->used->flags, VRING_USED_F_NO_NOTIFY);
    ring->quiet = true;
}

bool sm_vhost_ring_kicks_on(struct sm_vhost_ring *ring)
{
    if (!sm_vhost_ring_live(ring))
        return false;
    if (ring->event_idx)
        store16(avail_event(ring), ring->avail_seen);
    else if (ring->quiet) {
        store16(&ring->used->flags, 0);
        ring->quiet = false;
    }
    /* The other order of the driver's: it writes its index and then looks at what we want. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t seen = ring->avail_seen;
    return see(ring) && ring->avail_seen != seen;
}

bool sm_vhost_ring_waiting(struct sm_vhost_ring *ring)
{
    return sm_vhost_ring_live(ring) && look(ring);
}

/* ---- bytes ---- */

size_t sm_vhost_parts_read(const struct iovec *parts, unsigned n, size_t skip, void *buf, size_t len)
{
    uint8_t *to = buf;
    size_t left = len;

    for (unsigned i = 0; i < n && left > 0; i++) {
        if (skip >= parts[i].iov_len) {
            skip -= parts[i].iov_len;
            continue;
        }
        size_t take = SM_MIN(parts[i].iov_len - skip, left);
        memcpy(to, (const uint8_t *)parts[i].iov_base + skip, take);
        skip = 0;
        to += take;
        left -= take;
    }
    return len - left;
}

size_t sm_vhost_fill(struct sm_vhost_fill *fill, const void *buf, size_t len)
{
    const uint8_t *from = buf;
    size_t left = len;

    while (left > 0 && fill->left > 0) {
        size_t room = SM_MIN(fill->part->iov_len - fill->at, left);
        memcpy((uint8_t *)fill->part->iov_base + fill->at, from, room);
        from += room;
        left -= room;
        fill->at += room;
        if (fill->at == fill->part->iov_len) {
            fill->part++;
            fill->left--;
            fill->at = 0;
        }
    }
    return len - left;
}
