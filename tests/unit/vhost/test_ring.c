/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Split rings. The test is the driver, over two regions of one memfd that are neighbours for the guest and strangers
 * here: chains of every shape, each broken rule, wrap-around, and when either side is told of something.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "vhost/ring.h"

#define PAGE 4096u
#define REGION (64 * PAGE)
#define GPA 0x100000u
#define UVA 0x7f0000000000u
#define UVA_2 0x7e0000000000u
#define BORDER (GPA + REGION) /* the second region begins here for the guest */
#define DATA (GPA + 16 * PAGE)
#define TABLE (GPA + 8 * PAGE)

struct t {
    struct sm_vhost_mem mem;
    struct sm_vhost_ring ring;
    struct vring v; /* the driver's view */
    uint16_t next;  /* avail index */
    struct iovec parts[SM_VHOST_PARTS_MAX];
};

static void *at(struct t *t, uint64_t gpa)
{
    size_t got;
    void *p = sm_vhost_mem_gpa(&t->mem, gpa, 1, &got);
    assert_non_null(p);
    return p;
}

static struct t *t_new(unsigned num, bool event_idx, bool indirect)
{
    struct t *t = g_new0(struct t, 1);
    sm_autofd fd = memfd_create("guest", MFD_CLOEXEC);
    const char *why = NULL;
    const struct sm_vhost_region_spec low = {.gpa = GPA, .size = REGION, .uva = UVA, .offset = REGION};
    const struct sm_vhost_region_spec high = {.gpa = BORDER, .size = REGION, .uva = UVA_2, .offset = 0};

    assert_int_equal(ftruncate(fd, 2 * REGION), 0);
    assert_int_equal(sm_vhost_mem_add(&t->mem, &low, fd, &why), 0);
    assert_int_equal(sm_vhost_mem_add(&t->mem, &high, fd, &why), 0);
    vring_init(&t->v, num, at(t, GPA), PAGE);
    sm_vhost_ring_init(&t->ring);
    t->ring.num = num;
    t->ring.enabled = true;
    t->ring.desc_uva = UVA;
    t->ring.avail_uva = UVA + (uint64_t)((char *)t->v.avail - (char *)t->v.desc);
    t->ring.used_uva = UVA + (uint64_t)((char *)t->v.used - (char *)t->v.desc);
    assert_true(sm_vhost_ring_map(&t->ring, &t->mem));
    sm_vhost_ring_start(&t->ring, event_idx, indirect);
    return t;
}

static void t_free(struct t *t)
{
    sm_vhost_mem_clear(&t->mem);
    g_free(t);
}

static void offer(struct t *t, uint16_t head)
{
    t->v.avail->ring[t->next & (t->v.num - 1)] = head;
    t->next++;
    __atomic_store_n(&t->v.avail->idx, t->next, __ATOMIC_RELEASE);
}

static void desc(struct t *t, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    t->v.desc[i] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static void table(struct t *t, uint64_t gpa, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    const struct vring_desc d = {.addr = addr, .len = len, .flags = flags, .next = next};
    for (size_t b = 0; b < sizeof(d); b++) /* it may lie anywhere */
        *(uint8_t *)at(t, gpa + i * sizeof(d) + b) = ((const uint8_t *)&d)[b];
}

static struct sm_vhost_chain pop(struct t *t)
{
    struct sm_vhost_chain c;
    enum sm_vhost_pop rc = sm_vhost_ring_pop(&t->ring, t->parts, SM_ARRAY_LEN(t->parts), &c);
    if (rc != SM_VHOST_POP_CHAIN)
        fail_msg("no chain (%d): %s", rc, sm_vhost_fault_name(t->ring.fault));
    return c;
}

static void nothing(struct t *t)
{
    struct sm_vhost_chain c;
    assert_int_equal(sm_vhost_ring_pop(&t->ring, t->parts, SM_ARRAY_LEN(t->parts), &c), SM_VHOST_POP_NONE);
}

static void part(const struct sm_vhost_chain *c, unsigned i, const void *base, size_t len)
{
    assert_ptr_equal(c->parts[i].iov_base, base);
    assert_int_equal(c->parts[i].iov_len, len);
}

/* The chain at head 0 breaks the ring in this way; nothing more comes out of it until it has been stopped and started. */
static void breaks(struct t *t, enum sm_vhost_fault fault)
{
    struct sm_vhost_chain c;

    offer(t, 0);
    assert_int_equal(sm_vhost_ring_pop(&t->ring, t->parts, SM_ARRAY_LEN(t->parts), &c), SM_VHOST_POP_BROKEN);
    assert_string_equal(sm_vhost_fault_name(t->ring.fault), sm_vhost_fault_name(fault));
    assert_false(sm_vhost_ring_live(&t->ring));
    nothing(t);
    assert_false(sm_vhost_ring_waiting(&t->ring));
    assert_false(sm_vhost_ring_kicks_on(&t->ring));

    sm_vhost_ring_stop(&t->ring);
    nothing(t);
    t->ring.last_avail = t->next;
    assert_true(sm_vhost_ring_map(&t->ring, &t->mem));
    sm_vhost_ring_start(&t->ring, t->ring.event_idx, t->ring.indirect);
    desc(t, 0, DATA, 1, 0, 0);
    offer(t, 0);
    assert_int_equal(pop(t).out_len, 1);
    t_free(t);
}

static void test_chains(void **state)
{
    struct t *t = t_new(8, false, true);
    struct sm_vhost_chain c;

    nothing(t);
    /* Readable, then writable, in no order of the table. */
    desc(t, 5, DATA, 10, VRING_DESC_F_NEXT, 2);
    desc(t, 2, DATA + 100, 20, VRING_DESC_F_NEXT, 7);
    desc(t, 7, DATA + 200, 30, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0);
    desc(t, 0, DATA + 300, 40, VRING_DESC_F_WRITE, 0);
    offer(t, 5);
    c = pop(t);
    assert_int_equal(c.head, 5);
    assert_int_equal(c.n_desc, 4);
    assert_int_equal(c.n_out, 2);
    assert_int_equal(c.n_in, 2);
    assert_int_equal(c.out_len, 30);
    assert_int_equal(c.in_len, 70);
    part(&c, 0, at(t, DATA), 10);
    part(&c, 3, at(t, DATA + 300), 40);
    nothing(t);

    /* Nothing at all in it is legal too. */
    desc(t, 1, 1, 0, VRING_DESC_F_NEXT, 3);
    desc(t, 3, 0, 0, VRING_DESC_F_WRITE, 0);
    offer(t, 1);
    c = pop(t);
    assert_int_equal(c.n_out + c.n_in, 0);

    /* Across the border: one descriptor, two parts. */
    desc(t, 1, BORDER - 6, 10, VRING_DESC_F_WRITE, 0);
    offer(t, 1);
    c = pop(t);
    assert_int_equal(c.n_in, 2);
    part(&c, 0, at(t, BORDER - 6), 6);
    part(&c, 1, at(t, BORDER), 4);

    /* An indirect table, after a descriptor of the ring's own; the flag WRITE beside INDIRECT means nothing. */
    desc(t, 4, DATA, 5, VRING_DESC_F_NEXT, 6);
    desc(t, 6, TABLE, 3 * 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
    table(t, TABLE, 0, DATA + 10, 6, VRING_DESC_F_NEXT, 2);
    table(t, TABLE, 2, DATA + 20, 7, VRING_DESC_F_WRITE, 0);
    offer(t, 4);
    c = pop(t);
    assert_int_equal(c.n_desc, 2);
    assert_int_equal(c.n_out, 2);
    assert_int_equal(c.n_in, 1);
    part(&c, 1, at(t, DATA + 10), 6);
    part(&c, 2, at(t, DATA + 20), 7);

    /* A table that is not aligned, and one of which a descriptor lies across the border. */
    for (unsigned i = 0; i < 2; i++) {
        uint64_t where = i == 0 ? TABLE + 3 : BORDER - 16 - 5;
        desc(t, 0, where, 3 * 16, VRING_DESC_F_INDIRECT, 0);
        table(t, where, 0, DATA, 1, VRING_DESC_F_NEXT, 1);
        table(t, where, 1, DATA + 1, 2, VRING_DESC_F_NEXT, 2);
        table(t, where, 2, DATA + 3, 3, 0, 0);
        offer(t, 0);
        c = pop(t);
        assert_int_equal(c.n_out, 3);
        assert_int_equal(c.out_len, 6);
        part(&c, 2, at(t, DATA + 3), 3);
    }
    t_free(t);
}

static void test_long_chains(void **state)
{
    struct t *t = t_new(8, false, true);
    struct sm_vhost_chain c;

    /* As long as one may be, in parts of a byte. */
    desc(t, 0, TABLE, SM_VHOST_CHAIN_MAX * 16, VRING_DESC_F_INDIRECT, 0);
    for (unsigned i = 0; i < SM_VHOST_CHAIN_MAX; i++)
        table(t, TABLE, i, DATA + i, 1, i + 1 < SM_VHOST_CHAIN_MAX ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    offer(t, 0);
    assert_int_equal(sm_vhost_ring_pop(&t->ring, t->parts, 10, &c), SM_VHOST_POP_NO_ROOM);
    assert_int_equal(t->ring.last_avail, 0); /* not taken */
    c = pop(t);
    assert_int_equal(c.out_len, SM_VHOST_CHAIN_MAX);
    assert_int_equal(c.n_desc, 1);

    /* One more. */
    desc(t, 0, TABLE, (SM_VHOST_CHAIN_MAX + 1) * 16, VRING_DESC_F_INDIRECT, 0);
    table(t, TABLE, SM_VHOST_CHAIN_MAX - 1, DATA, 1, VRING_DESC_F_NEXT, SM_VHOST_CHAIN_MAX);
    table(t, TABLE, SM_VHOST_CHAIN_MAX, DATA, 1, 0, 0);
    breaks(t, SM_VHOST_FAULT_LONG);
}

static void test_faults(void **state)
{
    struct t *t;

    t = t_new(8, false, true);
    desc(t, 0, DATA, 1, VRING_DESC_F_NEXT, 8);
    breaks(t, SM_VHOST_FAULT_NEXT);

    t = t_new(8, false, true); /* a loop of two, of nothing */
    desc(t, 0, DATA, 0, VRING_DESC_F_NEXT, 1);
    desc(t, 1, DATA, 0, VRING_DESC_F_NEXT, 0);
    breaks(t, SM_VHOST_FAULT_LONG);

    t = t_new(8, false, true); /* a loop in a table */
    desc(t, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    table(t, TABLE, 0, DATA, 1, VRING_DESC_F_NEXT, 0);
    breaks(t, SM_VHOST_FAULT_LONG);

    t = t_new(8, false, true);
    desc(t, 0, TABLE, 2 * 16, VRING_DESC_F_INDIRECT, 0);
    table(t, TABLE, 0, DATA, 1, VRING_DESC_F_NEXT, 2);
    breaks(t, SM_VHOST_FAULT_NEXT);

    static const struct {
        uint64_t addr;
        uint32_t len;
    } outside[] = {{0, 1},
                   {GPA - 1, 1},
                   {GPA - 1, 2},
                   {BORDER + REGION, 1},
                   {BORDER + REGION - 1, 2},
                   {BORDER - 1, REGION + 2},
                   {UINT64_MAX, 1},
                   {UINT64_MAX - 1, UINT32_MAX},
                   {GPA, UINT32_MAX}};
    for (size_t i = 0; i < SM_ARRAY_LEN(outside); i++) {
        t = t_new(8, false, true);
        desc(t, 0, outside[i].addr, outside[i].len, 0, 0);
        breaks(t, SM_VHOST_FAULT_ADDRESS);
    }

    t = t_new(8, false, false);
    desc(t, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    table(t, TABLE, 0, DATA, 1, 0, 0);
    breaks(t, SM_VHOST_FAULT_INDIRECT);

    t = t_new(8, false, true);
    desc(t, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    table(t, TABLE, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    breaks(t, SM_VHOST_FAULT_NESTED);

    t = t_new(8, false, true); /* a chain that goes on behind its table */
    desc(t, 0, TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
    table(t, TABLE, 0, DATA, 1, 0, 0);
    breaks(t, SM_VHOST_FAULT_NESTED);

    static const struct {
        uint64_t addr;
        uint32_t len;
    } tables[] = {{TABLE, 0}, {TABLE, 15}, {TABLE, 17}, {0, 16}, {UINT64_MAX - 10, 16}, {UINT64_MAX - 15, 32}};
    for (size_t i = 0; i < SM_ARRAY_LEN(tables); i++) {
        t = t_new(8, false, true);
        desc(t, 0, tables[i].addr, tables[i].len, VRING_DESC_F_INDIRECT, 0);
        breaks(t, SM_VHOST_FAULT_TABLE);
    }

    t = t_new(8, false, true); /* a table that runs out of memory behind its first entry */
    desc(t, 0, BORDER + REGION - 16, 2 * 16, VRING_DESC_F_INDIRECT, 0);
    table(t, BORDER + REGION - 16, 0, DATA, 1, VRING_DESC_F_NEXT, 1);
    breaks(t, SM_VHOST_FAULT_TABLE);

    t = t_new(8, false, true);
    desc(t, 0, DATA, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    desc(t, 1, DATA, 1, 0, 0);
    breaks(t, SM_VHOST_FAULT_ORDER);

    t = t_new(8, false, true);
    t->v.avail->ring[0] = 8;
    t->v.avail->idx = t->next = 1;
    struct sm_vhost_chain c;
    assert_int_equal(sm_vhost_ring_pop(&t->ring, t->parts, SM_VHOST_PARTS_MAX, &c), SM_VHOST_POP_BROKEN);
    assert_int_equal(t->ring.fault, SM_VHOST_FAULT_HEAD);
    t_free(t);

    static const uint16_t indices[] = {9, 0x8000, 0xffff}; /* more than there are, and backwards */
    for (size_t i = 0; i < SM_ARRAY_LEN(indices); i++) {
        t = t_new(8, false, true);
        t->v.avail->idx = indices[i];
        assert_int_equal(sm_vhost_ring_pop(&t->ring, t->parts, SM_VHOST_PARTS_MAX, &c), SM_VHOST_POP_BROKEN);
        assert_int_equal(t->ring.fault, SM_VHOST_FAULT_AVAIL_INDEX);
        t_free(t);
    }
}

static void test_map(void **state)
{
    struct t *t = t_new(8, true, true);
    const struct sm_vhost_ring good = t->ring;
    struct sm_vhost_ring *r = &t->ring;

#define BAD(change)                                                                                                    \
    do {                                                                                                               \
        *r = good;                                                                                                     \
        change;                                                                                                        \
        assert_false(sm_vhost_ring_map(r, &t->mem));                                                                   \
        assert_int_equal(r->fault, SM_VHOST_FAULT_MEMORY);                                                             \
        assert_false(sm_vhost_ring_live(r));                                                                           \
        nothing(t);                                                                                                    \
    } while (0)
    BAD(r->num = 0);
    BAD(r->desc_uva += 8);
    BAD(r->avail_uva += 1);
    BAD(r->used_uva += 2);
    BAD(r->desc_uva = UVA - 16);
    BAD(r->desc_uva = UVA + REGION - 8 * 16 + 16);
    BAD(r->avail_uva = UVA + REGION - (4 + 2 * 8)); /* without the event index behind it */
    BAD(r->used_uva = UVA + REGION - (4 + 8 * 8));
    BAD(r->num = 32768);
    BAD(r->used_uva = UINT64_MAX - 3);
#undef BAD
    *r = good;
    r->avail_uva = UVA + REGION - (4 + 2 * 8 + 2);
    r->used_uva = UVA_2 + REGION - (4 + 8 * 8 + 4);
    assert_true(sm_vhost_ring_map(r, &t->mem));
    t_free(t);
}

/* Two times around the indices, in steps that divide nothing, with used entries to match. */
static void test_wrap(void **state)
{
    struct t *t = t_new(16, true, false);
    unsigned done = 0;

    for (unsigned i = 0; i < 16; i++)
        desc(t, i, DATA + i, 1, VRING_DESC_F_WRITE, 0);
    for (unsigned round = 0; done < 140000; round++) {
        unsigned step = 1 + round * 7 % 16;
        for (unsigned i = 0; i < step; i++)
            offer(t, (uint16_t)((done + i * 5) % 16));
        for (unsigned i = 0; i < step; i++) {
            struct sm_vhost_chain c = pop(t);
            assert_int_equal(c.head, (done + i * 5) % 16);
            sm_vhost_ring_push(&t->ring, c.head, 100 + i);
        }
        assert_int_equal(t->v.used->idx, done & 0xffff); /* nothing is seen before it is published */
        (void)sm_vhost_ring_publish(&t->ring);
        for (unsigned i = 0; i < step; i++) {
            const struct vring_used_elem *e = &t->v.used->ring[(done + i) % 16];
            assert_int_equal(e->id, (done + i * 5) % 16);
            assert_int_equal(e->len, 100 + i);
        }
        done += step;
        assert_int_equal(t->v.used->idx, done & 0xffff);
        nothing(t);
    }
    t_free(t);
}

static void test_base(void **state)
{
    struct t *t = t_new(8, false, false);

    /* A ring that an earlier back-end has worked on: it goes on where that stood. */
    t->ring.last_avail = 0xfffe;
    t->next = 0xfffe;
    t->v.avail->idx = 0xfffe;
    t->v.used->idx = 0xfffe;
    sm_vhost_ring_start(&t->ring, false, false);
    desc(t, 3, DATA, 4, 0, 0);
    nothing(t);
    for (int i = 0; i < 4; i++) {
        offer(t, 3);
        sm_vhost_ring_push(&t->ring, pop(t).head, 0);
        (void)sm_vhost_ring_publish(&t->ring);
    }
    assert_int_equal(t->v.used->idx, 2);
    assert_int_equal(t->ring.last_avail, 2);

    offer(t, 3);
    offer(t, 3);
    (void)pop(t);
    (void)pop(t);
    nothing(t);
    sm_vhost_ring_unpop(&t->ring, 2);
    assert_true(sm_vhost_ring_waiting(&t->ring));
    (void)pop(t);
    (void)pop(t);
    nothing(t);

    /* The back-end dies over these two, and the VMM says that the next one is behind them: they are still to be done. */
    sm_vhost_ring_stop(&t->ring);
    t->ring.last_avail = t->next;
    assert_true(sm_vhost_ring_map(&t->ring, &t->mem));
    sm_vhost_ring_start(&t->ring, false, false);
    (void)pop(t);
    (void)pop(t);
    nothing(t);

    /* What memory has as used cannot be: then what the VMM says. */
    sm_vhost_ring_stop(&t->ring);
    t->v.used->idx = 2000;
    t->ring.last_avail = (uint16_t)(t->next - 1);
    assert_true(sm_vhost_ring_map(&t->ring, &t->mem));
    sm_vhost_ring_start(&t->ring, false, false);
    (void)pop(t);
    nothing(t);

    /* Not enabled: not touched. */
    offer(t, 3);
    t->ring.enabled = false;
    nothing(t);
    assert_false(sm_vhost_ring_kicks_on(&t->ring));
    assert_false(sm_vhost_ring_waiting(&t->ring));
    t->ring.enabled = true;
    (void)pop(t);
    t_free(t);
}

static bool used_one(struct t *t)
{
    offer(t, 0);
    sm_vhost_ring_push(&t->ring, pop(t).head, 0);
    return sm_vhost_ring_publish(&t->ring);
}

static uint64_t count(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void test_interrupts(void **state)
{
    struct t *t = t_new(8, false, false);

    desc(t, 0, DATA, 1, 0, 0);
    assert_true(used_one(t));
    t->v.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    assert_false(used_one(t));
    t->v.avail->flags = 0;
    assert_true(used_one(t));
    assert_false(sm_vhost_ring_publish(&t->ring)); /* nothing new */

    /* The call itself. */
    t->ring.call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_false(sm_vhost_ring_call(&t->ring));
    sm_vhost_ring_push(&t->ring, 0, 0);
    assert_true(sm_vhost_ring_call(&t->ring));
    assert_int_equal(count(t->ring.call_fd), 1);
    /* One that is full does not make us wait. */
    const uint64_t full = UINT64_MAX - 1;
    assert_int_equal(write(t->ring.call_fd, &full, sizeof(full)), sizeof(full));
    sm_vhost_ring_push(&t->ring, 0, 0);
    assert_true(sm_vhost_ring_call(&t->ring));
    sm_fd_close(&t->ring.call_fd);
    t_free(t);

    /* EVENT_IDX: the driver says behind which entry it wants to be woken. */
    t = t_new(8, true, false);
    desc(t, 0, DATA, 1, 0, 0);
    uint16_t *event = &vring_used_event(&t->v);
    t->v.avail->flags = VRING_AVAIL_F_NO_INTERRUPT; /* means nothing now */
    *event = 5;
    assert_true(used_one(t)); /* the first is always told: nobody knows what the driver has seen */
    for (int i = 1; i < 5; i++)
        assert_false(used_one(t));
    assert_true(used_one(t)); /* entry 5 */
    assert_false(used_one(t));
    *event = 9;
    assert_false(used_one(t));
    for (int i = 0; i < 4; i++) { /* several at once, and the entry is among them */
        offer(t, 0);
        sm_vhost_ring_push(&t->ring, pop(t).head, 0);
    }
    assert_true(sm_vhost_ring_publish(&t->ring));
    t_free(t);
}

static void test_kicks(void **state)
{
    struct t *t = t_new(8, false, false);

    desc(t, 0, DATA, 1, 0, 0);
    assert_false(sm_vhost_ring_kicks_on(&t->ring));
    assert_int_equal(t->v.used->flags, 0);
    sm_vhost_ring_kicks_off(&t->ring);
    assert_int_equal(t->v.used->flags, VRING_USED_F_NO_NOTIFY);
    offer(t, 0);
    assert_true(sm_vhost_ring_kicks_on(&t->ring)); /* it came while nobody would have been told */
    assert_int_equal(t->v.used->flags, 0);
    assert_false(sm_vhost_ring_kicks_on(&t->ring)); /* seen, though not taken: it is the next that matters */
    assert_true(sm_vhost_ring_waiting(&t->ring));
    (void)pop(t);
    assert_false(sm_vhost_ring_waiting(&t->ring));
    t_free(t);

    t = t_new(8, true, false);
    desc(t, 0, DATA, 1, 0, 0);
    uint16_t *event = &vring_avail_event(&t->v);
    *event = 0x1234;
    assert_false(sm_vhost_ring_kicks_on(&t->ring));
    assert_int_equal(*event, 0);
    offer(t, 0);
    offer(t, 0);
    (void)pop(t);
    sm_vhost_ring_kicks_off(&t->ring);
    assert_int_equal(*event, 0); /* lies behind us: the driver is silent */
    assert_int_equal(t->v.used->flags, 0);
    /* One of two is left and more are wanted: told with the third. */
    assert_false(sm_vhost_ring_kicks_on(&t->ring));
    assert_int_equal(*event, 2);
    offer(t, 0);
    assert_true(sm_vhost_ring_kicks_on(&t->ring));
    assert_int_equal(*event, 2);
    t->v.avail->idx = 100; /* a lie is met here too */
    assert_false(sm_vhost_ring_kicks_on(&t->ring));
    assert_int_equal(t->ring.fault, SM_VHOST_FAULT_AVAIL_INDEX);
    t_free(t);
}

/* A guest that changes a descriptor all the time gets one of its two chains or a broken ring, and never a mixture. */
struct flipper {
    struct t *t;
    bool stop;
};

static void *flip(void *data)
{
    struct flipper *f = data;
    volatile struct vring_desc *d = &f->t->v.desc[0];

    for (unsigned i = 0; !__atomic_load_n(&f->stop, __ATOMIC_RELAXED); i++) {
        d->len = i & 1 ? 16 : 0x7fffffff;
        d->addr = i & 2 ? DATA : UINT64_MAX - 4;
        d->next = (uint16_t)(i * 13);
        d->flags = i & 4 ? VRING_DESC_F_NEXT : 0;
    }
    return NULL;
}

static void test_changing(void **state)
{
    struct t *t = t_new(8, false, true);
    struct flipper f = {.t = t};
    pthread_t thread;
    unsigned chains = 0, broken = 0;

    desc(t, 0, DATA, 16, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, flip, &f), 0);
    for (int i = 0; i < 200000; i++) {
        struct sm_vhost_chain c;
        offer(t, 0);
        if (sm_vhost_ring_pop(&t->ring, t->parts, SM_VHOST_PARTS_MAX, &c) == SM_VHOST_POP_CHAIN) {
            for (unsigned p = 0; p < c.n_out; p++) {
                part(&c, p, at(t, DATA), 16);
                chains++;
            }
            sm_vhost_ring_push(&t->ring, c.head, 0);
            (void)sm_vhost_ring_publish(&t->ring);
            continue;
        }
        broken++;
        assert_int_not_equal(t->ring.fault, SM_VHOST_FAULT_NONE);
        t->ring.last_avail = t->next;
        sm_vhost_ring_start(&t->ring, false, true);
    }
    __atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(broken > 0);
    print_message("%u parts, %u times broken\n", chains, broken);
    t_free(t);
}

static void test_bytes(void **state)
{
    char a[] = "abc", b[] = "", c[] = "defgh";
    const struct iovec parts[] = {{a, 3}, {b, 0}, {c, 5}};
    char out[16] = {0};

    assert_int_equal(sm_vhost_parts_read(parts, 3, 0, out, 16), 8);
    assert_memory_equal(out, "abcdefgh", 8);
    assert_int_equal(sm_vhost_parts_read(parts, 3, 2, out, 3), 3);
    assert_memory_equal(out, "cde", 3);
    assert_int_equal(sm_vhost_parts_read(parts, 3, 8, out, 3), 0);
    assert_int_equal(sm_vhost_parts_read(parts, 3, 100, out, 3), 0);
    assert_int_equal(sm_vhost_parts_read(parts, 0, 0, out, 3), 0);

    struct sm_vhost_fill fill = {.part = parts, .left = 3};
    assert_int_equal(sm_vhost_fill(&fill, "1", 1), 1);
    assert_int_equal(sm_vhost_fill(&fill, "2345", 4), 4);
    assert_int_equal(sm_vhost_fill(&fill, "", 0), 0);
    assert_int_equal(sm_vhost_fill(&fill, "678XYZ", 6), 3);
    assert_int_equal(sm_vhost_fill(&fill, "X", 1), 0);
    assert_string_equal(a, "123");
    assert_string_equal(c, "45678");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains),     cmocka_unit_test(test_long_chains), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_map),        cmocka_unit_test(test_wrap),        cmocka_unit_test(test_base),
        cmocka_unit_test(test_interrupts), cmocka_unit_test(test_kicks),       cmocka_unit_test(test_changing),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
