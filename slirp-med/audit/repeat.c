/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A hash table of denials and one queue in the order in which each last wrote a line. All windows have the same length,
 * so the head of the queue is always the next one due, and also the one to give up when the table is full. See
 * repeat.h.
 */
#include "audit/repeat.h"

#include <glib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

struct entry {
    TAILQ_ENTRY(entry) link;
    int64_t written_us; /* when its last line was written */
    uint64_t pending;   /* denials since then */
    uint64_t seq;       /* the writer's, when it got the first line: what a failed commit loses has this one or more */

    enum sm_audit_event event;
    uint8_t proto;
    struct sm_endpoint dst;
    const char *reason;
    size_t name_len;
    size_t fields_len;
    bool truncated;
    char data[]; /* name, then fields */
};

TAILQ_HEAD(queue, entry);

struct sm_audit_repeats {
    struct queue by_due;
    struct entry **slots; /* open addressing, linear probing */
    size_t len;
    uint64_t seed; /* a guest chooses the destinations: it must not choose the slots */
};

/* Twice the entries, so that probing stays short. A power of two. */
#define SLOTS (2 * SM_AUDIT_REPEAT_MAX)
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "slots are masked");

struct sm_audit_repeats *sm_audit_repeats_new(void)
{
    struct sm_audit_repeats *rep = g_new0(struct sm_audit_repeats, 1);
    TAILQ_INIT(&rep->by_due);
    rep->slots = g_new0(struct entry *, SLOTS);
    if (getrandom(&rep->seed, sizeof(rep->seed), GRND_NONBLOCK) < 0)
        rep->seed = (uintptr_t)rep; /* only the speed under attack depends on it */
    return rep;
}

void sm_audit_repeats_free(struct sm_audit_repeats *rep)
{
    if (!rep)
        return;
    struct entry *e;
    while ((e = TAILQ_FIRST(&rep->by_due))) {
        TAILQ_REMOVE(&rep->by_due, e, link);
        g_free(e);
    }
    g_free(rep->slots);
    g_free(rep);
}

size_t sm_audit_repeats_len(const struct sm_audit_repeats *rep)
{
    return rep->len;
}

int64_t sm_audit_repeats_due(const struct sm_audit_repeats *rep)
{
    const struct entry *e = TAILQ_FIRST(&rep->by_due);
    return e ? e->written_us + SM_AUDIT_REPEAT_WINDOW_US : INT64_MAX;
}

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * UINT64_C(0x9fb21c651e98df25);
        h ^= h >> 29;
    }
    return h;
}

static size_t slot_of(const struct sm_audit_repeats *rep, enum sm_audit_event event, uint8_t proto,
                      const struct sm_endpoint *dst, const char *reason, const void *name, size_t name_len)
{
    uint64_t h = rep->seed;
    const uint8_t head[] = {(uint8_t)event, proto, dst->addr.family, (uint8_t)(dst->port >> 8), (uint8_t)dst->port};
    h = mix(h, head, sizeof(head));
    h = mix(h, dst->addr.bytes, sizeof(dst->addr.bytes));
    h = mix(h, reason, strlen(reason));
    h = mix(h, name, name_len);
    h ^= h >> 32;
    return (size_t)(h & (SLOTS - 1));
}

static size_t slot_of_entry(const struct sm_audit_repeats *rep, const struct entry *e)
{
    return slot_of(rep, e->event, e->proto, &e->dst, e->reason, e->data, e->name_len);
}

static void insert(struct sm_audit_repeats *rep, struct entry *e)
{
    size_t i = slot_of_entry(rep, e);
    while (rep->slots[i])
        i = (i + 1) & (SLOTS - 1);
    rep->slots[i] = e;
}

static void drop(struct sm_audit_repeats *rep, struct entry *e)
{
    size_t i = slot_of_entry(rep, e);
    while (rep->slots[i] != e)
        i = (i + 1) & (SLOTS - 1);
    rep->slots[i] = NULL;
    /* What had been pushed past this slot is put in again, so that probing finds it. */
    for (i = (i + 1) & (SLOTS - 1); rep->slots[i]; i = (i + 1) & (SLOTS - 1)) {
        struct entry *moved = rep->slots[i];
        rep->slots[i] = NULL;
        insert(rep, moved);
    }
    TAILQ_REMOVE(&rep->by_due, e, link);
    rep->len--;
    g_free(e);
}

static void write_pending(struct entry *e, struct sm_audit_writer *w, int64_t wall_us)
{
    struct sm_audit_record r;
    sm_audit_begin(&r, e->event, wall_us);
    memcpy(r.fields, e->data + e->name_len, e->fields_len);
    r.len = e->fields_len;
    r.truncated = e->truncated;
    sm_audit_add_uint(&r, "count", e->pending);
    (void)sm_audit_note(w, &r); /* what it cannot take it counts as lost */
    e->pending = 0;
}

static uint64_t add_counts(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

bool sm_audit_repeats_deny(struct sm_audit_repeats *rep, struct sm_audit_writer *w,
                           const struct sm_audit_repeat_key *key, struct sm_audit_record *r, uint64_t count,
                           int64_t now_us)
{
    size_t name_len = key->name ? SM_MIN(key->name_len, SM_AUDIT_GUEST_MAX) : 0;
    const void *name = name_len ? key->name : "";
    const char *reason = key->reason ? key->reason : "";

    for (size_t i = slot_of(rep, r->event, key->proto, &key->dst, reason, name, name_len); rep->slots[i];
         i = (i + 1) & (SLOTS - 1)) {
        struct entry *e = rep->slots[i];
        if (e->event != r->event || e->proto != key->proto || !sm_endpoint_equal(&e->dst, &key->dst) ||
            e->name_len != name_len || strcmp(e->reason, reason) != 0 || memcmp(e->data, name, name_len) != 0)
            continue;
        e->pending = add_counts(e->pending, count);
        return true;
    }

    size_t fields_len = r->len;
    bool truncated = r->truncated;
    if (count > 1)
        sm_audit_add_uint(r, "count", count);
    if (!sm_audit_append(w, r))
        return false;
    if (fields_len > SM_AUDIT_REPEAT_FIELDS_MAX)
        return true;

    if (rep->len >= SM_AUDIT_REPEAT_MAX) {
        struct entry *oldest = TAILQ_FIRST(&rep->by_due);
        if (oldest->pending > 0)
            write_pending(oldest, w, r->wall_us);
        drop(rep, oldest);
    }
    struct entry *e = g_malloc0(sizeof(*e) + name_len + fields_len);
    e->written_us = now_us;
    e->seq = sm_audit_next_seq(w);
    e->event = r->event;
    e->proto = key->proto;
    e->dst = key->dst;
    e->reason = reason;
    e->name_len = name_len;
    e->fields_len = fields_len;
    e->truncated = truncated;
    memcpy(e->data, name, name_len);
    memcpy(e->data + name_len, r->fields, fields_len);
    TAILQ_INSERT_TAIL(&rep->by_due, e, link);
    insert(rep, e);
    rep->len++;
    return true;
}

void sm_audit_repeats_unwritten(struct sm_audit_repeats *rep, uint64_t seq)
{
    struct entry *next;

    for (struct entry *e = TAILQ_FIRST(&rep->by_due); e; e = next) {
        next = TAILQ_NEXT(e, link);
        if (e->seq >= seq && e->pending == 0)
            drop(rep, e);
    }
}

int64_t sm_audit_repeats_flush(struct sm_audit_repeats *rep, struct sm_audit_writer *w, int64_t now_us, int64_t wall_us)
{
    struct entry *e;
    /* While nothing can be written the counts wait here, where they take no room, and not as lines among the writer's
     * facts. */
    if (!sm_audit_healthy(w))
        return rep->len > 0 ? now_us + SM_AUDIT_REPEAT_WINDOW_US : INT64_MAX;
    while ((e = TAILQ_FIRST(&rep->by_due)) && e->written_us + SM_AUDIT_REPEAT_WINDOW_US <= now_us) {
        if (e->pending == 0) {
            drop(rep, e);
            continue;
        }
        write_pending(e, w, wall_us);
        e->written_us = now_us;
        TAILQ_REMOVE(&rep->by_due, e, link);
        TAILQ_INSERT_TAIL(&rep->by_due, e, link);
    }
    return sm_audit_repeats_due(rep);
}

void sm_audit_repeats_flush_all(struct sm_audit_repeats *rep, struct sm_audit_writer *w, int64_t wall_us)
{
    struct entry *e;
    while ((e = TAILQ_FIRST(&rep->by_due))) {
        if (e->pending > 0)
            write_pending(e, w, wall_us);
        drop(rep, e);
    }
}
