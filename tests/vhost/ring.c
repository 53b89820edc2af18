/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver's half of a split ring (virtio 1.1, 2.6). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "internal.h"
#include "sim.h"

static uint16_t load(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store(uint8_t *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_RELEASE);
}

static bool event_idx(const struct sim_queue *q)
{
    return (q->sim->acked & VIRTIO_F_EVENT_IDX) != 0;
}

static uint8_t *used_event(const struct sim_queue *q)
{
    return q->avail_mem + 4 + 2 * (size_t)q->size;
}

static const uint8_t *avail_event(const struct sim_queue *q)
{
    return q->used_mem + 4 + 8 * (size_t)q->size;
}

void sim_queue_reset(struct sim_queue *q)
{
    memset(q->desc_mem, 0, (size_t)q->size * DESC_LEN);
    memset(q->avail_mem, 0, 6 + 2 * (size_t)q->size);
    memset(q->used_mem, 0, 6 + 8 * (size_t)q->size);
    q->avail_idx = q->pending = q->last_used = q->base = q->in_flight = 0;
    q->n_free = 0;
    for (unsigned i = q->size; i > 0; i--)
        q->free[q->n_free++] = (uint16_t)(i - 1);
    for (unsigned i = 0; i < q->size; i++)
        q->chains[i].descs = 0;
    q->quiet = false;
}

/* The three parts lie in three regions, so that an address that is looked up in the wrong one is found out. */
void sim_queue_init(struct sim *sim, unsigned index)
{
    struct sim_queue *q = &sim->queues[index];
    uint16_t size = sim->cfg.queue_size;

    *q = (struct sim_queue){.sim = sim, .index = index, .size = size};
    q->desc = sim_alloc(sim, (index + 2) % SIM_RING_REGIONS, (uint64_t)size * DESC_LEN);
    q->avail = sim_alloc(sim, index % SIM_RING_REGIONS, 6 + 2 * (uint64_t)size);
    q->used = sim_alloc(sim, (index + 1) % SIM_RING_REGIONS, 6 + 8 * (uint64_t)size);
    q->desc_mem = sim_at(sim, q->desc, (uint64_t)size * DESC_LEN);
    q->avail_mem = sim_at(sim, q->avail, 6 + 2 * (uint64_t)size);
    q->used_mem = sim_at(sim, q->used, 6 + 8 * (uint64_t)size);
    q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    q->err = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    q->free = calloc(size, sizeof(*q->free));
    q->link = calloc(size, sizeof(*q->link));
    q->chains = calloc(size, sizeof(*q->chains));
    SIM_MUST(q->kick >= 0 && q->call >= 0 && q->err >= 0 && q->free && q->link && q->chains);
    sim_queue_reset(q);
}

void sim_queue_clear(struct sim_queue *q)
{
    for (unsigned i = 0; i < q->size; i++)
        free(q->chains[i].pieces);
    free(q->free);
    free(q->link);
    free(q->chains);
    (void)close(q->kick);
    (void)close(q->call);
    (void)close(q->err);
}

void sim_desc(struct sim *sim, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t *p = sim_at(sim, gpa, DESC_LEN);

    sim_put64(p, addr);
    sim_put32(p + 8, len);
    sim_put16(p + 12, flags);
    sim_put16(p + 14, next);
}

static uint16_t flags_of(const struct sim_piece *piece, bool more)
{
    return (uint16_t)((piece->write ? DESC_WRITE : 0) | (more ? DESC_NEXT : 0));
}

static void keep(struct sim_chain *c, const struct sim_piece *pieces, unsigned n)
{
    if (n > c->cap) {
        free(c->pieces);
        c->pieces = calloc(n, sizeof(*pieces));
        SIM_MUST(c->pieces);
        c->cap = n;
    }
    memcpy(c->pieces, pieces, n * sizeof(*pieces));
    c->n = n;
}

int sim_queue_add(struct sim_queue *q, const struct sim_piece *pieces, unsigned n, bool indirect)
{
    unsigned want = indirect ? 1 : n;

    SIM_MUST(n > 0);
    if (want > q->n_free)
        return -1;
    uint16_t head = q->free[q->n_free - 1];
    struct sim_chain *c = &q->chains[head];
    keep(c, pieces, n);
    c->descs = (uint16_t)want;
    c->table = 0;
    if (indirect) {
        c->table = (sim_buffer(q->sim, 2, (n + 1) * DESC_LEN) + DESC_LEN - 1) / DESC_LEN * DESC_LEN;
        for (unsigned i = 0; i < n; i++)
            sim_desc(q->sim, c->table + (uint64_t)i * DESC_LEN, pieces[i].gpa, pieces[i].len,
                     flags_of(&pieces[i], i + 1 < n), (uint16_t)(i + 1 < n ? i + 1 : 0));
        sim_desc(q->sim, q->desc + (uint64_t)head * DESC_LEN, c->table, n * DESC_LEN, DESC_INDIRECT, 0);
        q->n_free--;
    } else {
        for (unsigned i = 0; i < n; i++) {
            uint16_t at = q->free[--q->n_free];
            uint16_t next = i + 1 < n ? q->free[q->n_free - 1] : 0;
            q->link[at] = next;
            sim_desc(q->sim, q->desc + (uint64_t)at * DESC_LEN, pieces[i].gpa, pieces[i].len,
                     flags_of(&pieces[i], i + 1 < n), next);
        }
    }
    q->in_flight++;
    sim_queue_push(q, head);
    return head;
}

void sim_queue_push(struct sim_queue *q, uint16_t head)
{
    uint16_t at = (uint16_t)(q->avail_idx + q->pending);

    sim_put16(q->avail_mem + 4 + 2 * (size_t)(at % q->size), head);
    q->pending++;
}

void sim_queue_kick(struct sim_queue *q)
{
    uint64_t one = 1;

    SIM_MUST(write(q->kick, &one, sizeof(one)) == (ssize_t)sizeof(one));
    q->kicks++;
}

bool sim_queue_publish(struct sim_queue *q)
{
    uint16_t old = q->avail_idx, idx = (uint16_t)(old + q->pending);

    q->avail_idx = idx;
    q->pending = 0;
    store(q->avail_mem + 2, idx);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (event_idx(q) && load(q->used_mem) != 0)
        sim_wrong(q->sim, "ring %u: flags %x in the used ring, with EVENT_IDX", q->index, load(q->used_mem));
    bool want = event_idx(q) ? (uint16_t)(idx - load(avail_event(q)) - 1) < (uint16_t)(idx - old)
                             : !(load(q->used_mem) & USED_NO_NOTIFY);
    if (want)
        sim_queue_kick(q);
    else
        q->unkicked++;
    return want;
}

unsigned sim_queue_done(struct sim_queue *q)
{
    uint16_t n = (uint16_t)(load(q->used_mem + 2) - q->last_used);

    if (n > q->in_flight) {
        sim_wrong(q->sim, "ring %u: %u used chains where %u are in flight", q->index, n, q->in_flight);
        return 0;
    }
    return n;
}

/* Bytes that the device may write. */
static uint64_t writable(const struct sim_chain *c)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < c->n; i++)
        sum += c->pieces[i].write ? c->pieces[i].len : 0;
    return sum;
}

const struct sim_chain *sim_queue_pop(struct sim_queue *q, uint32_t *ret_len)
{
    if (sim_queue_done(q) == 0)
        return NULL;
    const uint8_t *p = q->used_mem + 4 + 8 * (size_t)(q->last_used % q->size);
    uint32_t id = sim_get32(p), len = sim_get32(p + 4);
    struct sim_chain *c = id < q->size ? &q->chains[id] : NULL;
    q->last_used++;
    if (!c || c->descs == 0) {
        sim_wrong(q->sim, "ring %u: chain %u was used and is not in flight", q->index, id);
        return NULL;
    }
    uint64_t most = writable(c);
    if (len > most) {
        sim_wrong(q->sim, "ring %u: %u bytes were written to %llu", q->index, len, (unsigned long long)most);
        len = (uint32_t)most;
    }
    uint16_t at = (uint16_t)id;
    for (unsigned i = 0; i < c->descs; i++) {
        q->free[q->n_free++] = at;
        at = q->link[at];
    }
    c->descs = 0;
    q->in_flight--;
    if (!q->quiet)
        store(used_event(q), q->last_used);
    *ret_len = len;
    return c;
}

void sim_queue_quiet(struct sim_queue *q, bool quiet)
{
    q->quiet = quiet;
    store(q->avail_mem, quiet && !event_idx(q) ? AVAIL_NO_INTERRUPT : 0);
    store(used_event(q), (uint16_t)(quiet ? q->last_used - 1 : q->last_used));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void sim_queue_call_after(struct sim_queue *q, uint16_t n)
{
    SIM_MUST(n >= 1);
    q->quiet = true; /* so that pop() leaves the mark where it is */
    store(used_event(q), (uint16_t)(q->last_used + n - 1));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint64_t sim_queue_calls(struct sim_queue *q)
{
    uint64_t n = 0;

    if (read(q->call, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
        SIM_MUST(errno == EAGAIN);
        return 0;
    }
    q->calls += n;
    return n;
}
