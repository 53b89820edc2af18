/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link.h: one direction of a bad link, the same for the same seed.
 *
 * Frames go in with the time (ns) and come out later, perhaps twice, cut,
 * after frames that went in behind them, or not at all. Rates are of 1000.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

struct lk_rates {
    unsigned drop, duplicate, truncate, reorder;
    unsigned delay_us;    /* of every frame */
    unsigned overtake_us; /* more for a reordered one, up to this */
};

struct lk_link {
    struct lk_rates rates;
    uint64_t random;
    GQueue queue; /* struct lk_frame by time */
    unsigned dropped, duplicated, truncated, reordered;
};

void lk_init(struct lk_link *link, uint64_t seed, const struct lk_rates *rates);
void lk_clear(struct lk_link *link);
void lk_put(struct lk_link *link, int64_t now, const void *frame, size_t len);

/* True once in a while, by the link's own generator. */
bool lk_one_in_1000(struct lk_link *link, unsigned rate);

/* When the next frame comes out, INT64_MAX when there is none. */
int64_t lk_deadline(const struct lk_link *link);

/* The next frame that is due, or NULL; the caller unrefs it. */
GBytes *lk_get(struct lk_link *link, int64_t now);

#endif
