/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bytes that wait for one side: a queue of blocks. Each byte is copied in once and never moved again, however the reader takes them; an empty
 * queue holds no memory, or, if it was lent some, what will describe the next ones, until sm_outq_clear(). Bytes that are lent are not copied at
 * all if the reader takes them before they go away.
 *
 * A block is 32 KiB, so that a full one fills two TLS records, or smaller when it is the only one and little was put in. The queue itself has
 * no maximum: its owner stops reading the other side at SM_BRIDGE_OUT_MAX. A zeroed queue is empty and counted nowhere.
 */
#ifndef SM_HTTP_OUTQ_H
#define SM_HTTP_OUTQ_H

#include "base/defs.h"

struct sm_outq_block;

struct sm_outq {
    struct sm_outq_block *first, *last;
    struct sm_outq_block *spare; /* for the next bytes that are lent; NULL: none */
    size_t len;                  /* bytes held */
    size_t *account;             /* NULL, or where they are counted with those of other queues */
    bool lent;                   /* some of them may still be the lender's */
};

void sm_outq_put(struct sm_outq *q, const void *src, size_t n);
/** sm_outq_put_secret() - the same; the blocks that it went into are wiped when they have been taken. */
void sm_outq_put_secret(struct sm_outq *q, const void *src, size_t n);
/**
 * sm_outq_lend() - as sm_outq_put(), but the bytes stay where they are until sm_outq_keep(), which copies what has not
 * been taken.
 */
void sm_outq_lend(struct sm_outq *q, const void *src, size_t n);
void sm_outq_keep(struct sm_outq *q);
/** sm_outq_peek() - the first contiguous bytes; 0 and a non-NULL pointer when there are none. */
size_t sm_outq_peek(const struct sm_outq *q, const uint8_t **ret);
/** sm_outq_took() - n <= q->len bytes are done with. */
void sm_outq_took(struct sm_outq *q, size_t n);
/** sm_outq_clear() - drops all that it holds; its owner's last call. */
void sm_outq_clear(struct sm_outq *q);
/** sm_outq_flat() - a copy of all that is in it, in one piece; g_free() it, wiped if it was secret. */
uint8_t *sm_outq_flat(const struct sm_outq *q);
/** sm_outq_move() - all of from goes behind what is in to. */
void sm_outq_move(struct sm_outq *to, struct sm_outq *from);

#endif
