/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A byte queue that is born with a maximum: append at the end, consume at the front, contiguous view of what is held.
 * Memory is taken on need and given back when the queue is empty.
 */
#ifndef SM_BASE_BUF_H
#define SM_BASE_BUF_H

#include "base/defs.h"

struct sm_buf {
    uint8_t *data;
    size_t head; /* first held byte */
    size_t len;  /* held bytes */
    size_t cap;  /* allocated */
    size_t max;  /* never more than this is held */
};

void sm_buf_init(struct sm_buf *b, size_t max);
void sm_buf_clear(struct sm_buf *b);
static inline size_t sm_buf_room(const struct sm_buf *b)
{
    return b->max - b->len;
}
static inline const uint8_t *sm_buf_peek(const struct sm_buf *b)
{
    return b->data ? b->data + b->head : (const uint8_t *)"";
}
/** sm_buf_append() - all or nothing; false when it would exceed the maximum. */
bool sm_buf_append(struct sm_buf *b, const void *src, size_t n) SM_WARN_UNUSED;
/** sm_buf_reserve() - a place to write up to n bytes into (n <= room), made final with sm_buf_commit(). NULL when over the maximum. */
uint8_t *sm_buf_reserve(struct sm_buf *b, size_t n);
void sm_buf_commit(struct sm_buf *b, size_t n);
/** sm_buf_consume() - drop n <= len bytes from the front. */
void sm_buf_consume(struct sm_buf *b, size_t n);

#endif
