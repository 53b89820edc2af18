/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bounded reader and writer. Every byte from a guest, a peer or another process is read through struct sm_rd and nothing else.
 *
 * The error is sticky: after one read past the end every later read gives zero and `bad` stays set, so a parser reads straight on and
 * checks once, before it believes anything. Integers are big-endian (network order).
 */
#ifndef SM_BASE_RW_H
#define SM_BASE_RW_H

#include <string.h>

#include "base/defs.h"

struct sm_rd {
    const uint8_t *p;
    size_t len;
    size_t pos;
    bool bad;
};

static inline struct sm_rd sm_rd_init(const void *p, size_t len)
{
    return (struct sm_rd){.p = p, .len = len};
}

static inline size_t sm_rd_left(const struct sm_rd *r)
{
    return r->bad ? 0 : r->len - r->pos;
}

/** sm_rd_take() - a pointer to the next n bytes, or NULL with the error set. n == 0 gives a non-NULL pointer. */
static inline const uint8_t *sm_rd_take(struct sm_rd *r, size_t n)
{
    if (r->bad || n > r->len - r->pos) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *at = r->p ? r->p + r->pos : (const uint8_t *)"";
    r->pos += n;
    return at;
}

static inline void sm_rd_skip(struct sm_rd *r, size_t n)
{
    (void)sm_rd_take(r, n);
}

static inline uint8_t sm_rd_u8(struct sm_rd *r)
{
    const uint8_t *b = sm_rd_take(r, 1);
    return b ? b[0] : 0;
}

static inline uint16_t sm_rd_u16(struct sm_rd *r)
{
    const uint8_t *b = sm_rd_take(r, 2);
    return b ? (uint16_t)((unsigned)b[0] << 8 | b[1]) : 0;
}

static inline uint32_t sm_rd_u24(struct sm_rd *r)
{
    const uint8_t *b = sm_rd_take(r, 3);
    return b ? (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2] : 0;
}

static inline uint32_t sm_rd_u32(struct sm_rd *r)
{
    const uint8_t *b = sm_rd_take(r, 4);
    return b ? (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3] : 0;
}

static inline uint64_t sm_rd_u64(struct sm_rd *r)
{
    uint64_t hi = sm_rd_u32(r);
    return hi << 32 | sm_rd_u32(r);
}

/** sm_rd_bytes() - copy n bytes out; on error out is zeroed and false is returned. */
static inline bool sm_rd_bytes(struct sm_rd *r, void *out, size_t n)
{
    const uint8_t *b = sm_rd_take(r, n);
    if (!b) {
        memset(out, 0, n);
        return false;
    }
    memcpy(out, b, n);
    return true;
}

/** sm_rd_sub() - a reader over the next n bytes; bad from the start if they are not there (the parent is then bad too). */
static inline struct sm_rd sm_rd_sub(struct sm_rd *r, size_t n)
{
    const uint8_t *b = sm_rd_take(r, n);
    return (struct sm_rd){.p = b, .len = b ? n : 0, .bad = !b};
}

/** sm_rd_done() - true when all was read and nothing went wrong. */
static inline bool sm_rd_done(const struct sm_rd *r)
{
    return !r->bad && r->pos == r->len;
}

/** Writer into a fixed buffer; the error is sticky as well and nothing is written past cap. */
struct sm_wr {
    uint8_t *p;
    size_t cap;
    size_t len;
    bool bad;
};

static inline struct sm_wr sm_wr_init(void *p, size_t cap)
{
    return (struct sm_wr){.p = p, .cap = cap};
}

/** sm_wr_room() - reserve n bytes and return where they are, or NULL with the error set. */
static inline uint8_t *sm_wr_room(struct sm_wr *w, size_t n)
{
    if (w->bad || n > w->cap - w->len) {
        w->bad = true;
        return NULL;
    }
    uint8_t *at = w->p + w->len;
    w->len += n;
    return at;
}

static inline void sm_wr_bytes(struct sm_wr *w, const void *src, size_t n)
{
    uint8_t *b = sm_wr_room(w, n);
    if (b && n > 0)
        memcpy(b, src, n);
}

static inline void sm_wr_u8(struct sm_wr *w, uint8_t v)
{
    uint8_t *b = sm_wr_room(w, 1);
    if (b)
        b[0] = v;
}

static inline void sm_wr_u16(struct sm_wr *w, uint16_t v)
{
    uint8_t *b = sm_wr_room(w, 2);
    if (b) {
        b[0] = (uint8_t)(v >> 8);
        b[1] = (uint8_t)v;
    }
}

static inline void sm_wr_u32(struct sm_wr *w, uint32_t v)
{
    sm_wr_u16(w, (uint16_t)(v >> 16));
    sm_wr_u16(w, (uint16_t)v);
}

static inline void sm_wr_u64(struct sm_wr *w, uint64_t v)
{
    sm_wr_u32(w, (uint32_t)(v >> 32));
    sm_wr_u32(w, (uint32_t)v);
}

#endif
