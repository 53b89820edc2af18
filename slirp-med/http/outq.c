/* SPDX-License-Identifier: BSD-3-Clause */
/* A queue of blocks; see outq.h. */
#include "http/outq.h"

#include <glib.h>
#include <string.h>

#include "base/secret.h"

/* Whole TLS records are worth more than a size that the allocator would like better. */
#define BLOCK_MAX (32u << 10)
#define BLOCK_MIN 1024u
/** Less than this is copied sooner than a block is made for it. */
#define LEND_MIN 512u

struct sm_outq_block {
    struct sm_outq_block *next;
    size_t begin, end, cap;
    bool secret;
    const uint8_t *lent; /* NULL: data. A lent block is full */
    uint8_t data[];
};

static void append(struct sm_outq *q, struct sm_outq_block *block)
{
    if (q->last)
        q->last->next = block;
    else
        q->first = block;
    q->last = block;
}

static void count(struct sm_outq *q, size_t n)
{
    q->len += n;
    if (q->account)
        *q->account += n;
}

static struct sm_outq_block *add_block(struct sm_outq *q, size_t n)
{
    size_t cap = BLOCK_MAX;

    /* A first small message will rarely be followed before it is taken; a second block means a burst. */
    if (!q->first)
        for (cap = BLOCK_MIN; cap < n && cap < BLOCK_MAX;)
            cap *= 2;
    struct sm_outq_block *block = g_malloc(sizeof(*block) + cap);
    *block = (struct sm_outq_block){.cap = cap};
    append(q, block);
    return block;
}

/* A block that only described what was lent is kept, one of them: a record of TLS is lent after the other. */
static void free_block(struct sm_outq *q, struct sm_outq_block *block)
{
    if (block->secret)
        sm_wipe(block->data, block->end);
    if (block->lent && !q->spare)
        q->spare = block;
    else
        g_free(block);
}

static void put(struct sm_outq *q, const uint8_t *p, size_t n, bool secret)
{

    count(q, n);
    while (n > 0) {
        struct sm_outq_block *block = q->last;
        if (!block || block->end == block->cap)
            block = add_block(q, n);
        size_t part = SM_MIN(n, block->cap - block->end);
        block->secret |= secret;
        memcpy(block->data + block->end, p, part);
        block->end += part;
        p += part;
        n -= part;
    }
}

void sm_outq_put(struct sm_outq *q, const void *src, size_t n)
{
    put(q, src, n, false);
}

void sm_outq_put_secret(struct sm_outq *q, const void *src, size_t n)
{
    put(q, src, n, true);
}

void sm_outq_lend(struct sm_outq *q, const void *src, size_t n)
{
    if (n < LEND_MIN) {
        sm_outq_put(q, src, n);
        return;
    }
    struct sm_outq_block *block = q->spare ? q->spare : g_new(struct sm_outq_block, 1);
    q->spare = NULL;
    *block = (struct sm_outq_block){.end = n, .cap = n, .lent = src};
    append(q, block);
    count(q, n);
    q->lent = true;
}

void sm_outq_keep(struct sm_outq *q)
{
    struct sm_outq_block *last = NULL;

    if (!q->lent)
        return;
    q->lent = false;
    for (struct sm_outq_block **at = &q->first; *at; at = &(*at)->next) {
        struct sm_outq_block *block = *at;
        if (block->lent) {
            size_t n = block->end - block->begin;
            *at = g_malloc(sizeof(*block) + n);
            **at = (struct sm_outq_block){.next = block->next, .end = n, .cap = n};
            memcpy((*at)->data, block->lent + block->begin, n);
            free_block(q, block);
        }
        last = *at;
    }
    q->last = last;
}

static const uint8_t *bytes_of(const struct sm_outq_block *block)
{
    return block->lent ? block->lent : block->data;
}

size_t sm_outq_peek(const struct sm_outq *q, const uint8_t **ret)
{
    *ret = q->first ? bytes_of(q->first) + q->first->begin : (const uint8_t *)"";
    return q->first ? q->first->end - q->first->begin : 0;
}

void sm_outq_took(struct sm_outq *q, size_t n)
{
    g_assert(n <= q->len);
    q->len -= n;
    if (q->account)
        *q->account -= n;
    for (struct sm_outq_block *block; n > 0 && (block = q->first);) {
        size_t part = SM_MIN(n, block->end - block->begin);
        block->begin += part;
        n -= part;
        if (block->begin == block->end) {
            q->first = block->next;
            if (!q->first)
                q->last = NULL;
            free_block(q, block);
        }
    }
}

void sm_outq_clear(struct sm_outq *q)
{
    while (q->first) {
        struct sm_outq_block *block = q->first;
        q->first = block->next;
        free_block(q, block);
    }
    g_free(q->spare);
    q->spare = NULL;
    if (q->account)
        *q->account -= q->len;
    q->last = NULL;
    q->len = 0;
    q->lent = false;
}

uint8_t *sm_outq_flat(const struct sm_outq *q)
{
    uint8_t *flat = g_malloc(q->len), *at = flat;

    for (const struct sm_outq_block *block = q->first; block; block = block->next) {
        memcpy(at, bytes_of(block) + block->begin, block->end - block->begin);
        at += block->end - block->begin;
    }
    return flat;
}

void sm_outq_move(struct sm_outq *to, struct sm_outq *from)
{
    while (from->first) {
        const struct sm_outq_block *block = from->first;
        size_t n = block->end - block->begin;
        put(to, bytes_of(block) + block->begin, n, block->secret);
        sm_outq_took(from, n);
    }
}
