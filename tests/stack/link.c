/* SPDX-License-Identifier: BSD-3-Clause */
/* link.c: what a bad link does to frames, drawn from a seeded generator. */
#include "link.h"

struct lk_frame {
    int64_t when;
    GBytes *bytes;
};

/* splitmix64, by Sebastiano Vigna, public domain */
static uint64_t draw(struct lk_link *link)
{
    uint64_t z = link->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

bool lk_one_in_1000(struct lk_link *link, unsigned rate)
{
    return draw(link) % 1000 < rate;
}

void lk_init(struct lk_link *link, uint64_t seed, const struct lk_rates *rates)
{
    *link = (struct lk_link){.rates = *rates, .random = seed};
    g_queue_init(&link->queue);
}

static void frame_free(gpointer p)
{
    struct lk_frame *f = p;

    g_bytes_unref(f->bytes);
    g_free(f);
}

void lk_clear(struct lk_link *link)
{
    g_queue_clear_full(&link->queue, frame_free);
}

static void insert(struct lk_link *link, int64_t when, const void *frame, size_t len)
{
    struct lk_frame *f = g_new(struct lk_frame, 1);
    GList *after = link->queue.tail;

    f->when = when;
    f->bytes = g_bytes_new(frame, len);
    while (after && ((struct lk_frame *)after->data)->when > when) {
        after = after->prev;
    }
    if (after) {
        g_queue_insert_after(&link->queue, after, f);
    } else {
        g_queue_push_head(&link->queue, f);
    }
}

void lk_put(struct lk_link *link, int64_t now, const void *frame, size_t len)
{
    int64_t when = now + (int64_t)link->rates.delay_us * 1000;

    if (lk_one_in_1000(link, link->rates.drop)) {
        link->dropped++;
        return;
    }
    if (lk_one_in_1000(link, link->rates.truncate)) {
        link->truncated++;
        len = draw(link) % len;
    }
    if (lk_one_in_1000(link, link->rates.duplicate)) {
        link->duplicated++;
        insert(link, when + (int64_t)(draw(link) % (link->rates.overtake_us + 1)) * 1000, frame, len);
    }
    if (lk_one_in_1000(link, link->rates.reorder)) {
        link->reordered++;
        when += (int64_t)(draw(link) % (link->rates.overtake_us + 1)) * 1000;
    }
    insert(link, when, frame, len);
}

int64_t lk_deadline(const struct lk_link *link)
{
    return link->queue.head ? ((struct lk_frame *)link->queue.head->data)->when : INT64_MAX;
}

GBytes *lk_get(struct lk_link *link, int64_t now)
{
    struct lk_frame *f;
    GBytes *bytes;

    if (lk_deadline(link) > now) {
        return NULL;
    }
    f = g_queue_pop_head(&link->queue);
    bytes = f->bytes;
    g_free(f);
    return bytes;
}
