/* SPDX-License-Identifier: BSD-3-Clause */
/* The bounded byte queue; see buf.h. */
#include "base/buf.h"

#include <glib.h>
#include <string.h>

void sm_buf_init(struct sm_buf *b, size_t max)
{
    *b = (struct sm_buf){.max = max};
}

void sm_buf_clear(struct sm_buf *b)
{
    g_free(b->data);
    b->data = NULL;
    b->head = b->len = b->cap = 0;
}

uint8_t *sm_buf_reserve(struct sm_buf *b, size_t n)
{
    if (n > sm_buf_room(b))
        return NULL;
    if (b->head + b->len + n > b->cap) {
        if (b->head > 0) {
            memmove(b->data, b->data + b->head, b->len);
            b->head = 0;
        }
        if (b->len + n > b->cap) {
            size_t cap = SM_MAX(b->cap * 2, (size_t)1024);
            cap = SM_MAX(cap, b->len + n);
            cap = SM_MIN(cap, SM_MAX(b->max, b->len + n));
            b->data = g_realloc(b->data, cap);
            b->cap = cap;
        }
    }
    return b->data + b->head + b->len;
}

void sm_buf_commit(struct sm_buf *b, size_t n)
{
    b->len += n;
}

bool sm_buf_append(struct sm_buf *b, const void *src, size_t n)
{
    if (n == 0)
        return true;
    uint8_t *at = sm_buf_reserve(b, n);
    if (!at)
        return false;
    memcpy(at, src, n);
    sm_buf_commit(b, n);
    return true;
}

void sm_buf_consume(struct sm_buf *b, size_t n)
{
    g_assert(n <= b->len);
    b->head += n;
    b->len -= n;
    if (b->len == 0) {
        size_t max = b->max;
        sm_buf_clear(b);
        b->max = max;
    }
}
