/* SPDX-License-Identifier: BSD-3-Clause */
/* Which fragments may reach reassembly; see frags.h. */
#include "nat/frags.h"

#include <string.h>

#include "nat/wire.h"

static void entry_free(struct sm_frags *frags, struct sm_frag_entry *e)
{
    frags->bytes -= e->bytes;
    frags->used--;
    e->used = false;
}

/* The entry of this datagram, a new one, or NULL when the table is full. Expired ones are cleared on the way. */
static struct sm_frag_entry *entry_get(struct sm_frags *frags, const struct sm_frag *f, int64_t now_us)
{
    struct sm_frag_entry *empty = NULL;

    for (size_t i = 0; i < SM_FRAGS_MAX; i++) {
        struct sm_frag_entry *e = &frags->entries[i];
        if (e->used && e->expires_us <= now_us)
            entry_free(frags, e);
        if (!e->used) {
            if (!empty)
                empty = e;
            continue;
        }
        if (e->dst == f->dst && e->id == f->id && e->proto == f->proto)
            return e;
    }
    if (empty) {
        memset(empty, 0, sizeof(*empty));
        empty->used = true;
        empty->dst = f->dst;
        empty->id = f->id;
        empty->proto = f->proto;
        empty->expires_us = now_us + SM_FRAGS_LIFE_US;
        frags->used++;
    }
    return empty;
}

static bool is_tiny(const struct sm_frag *f)
{
    if (f->offset > 0)
        return f->proto == SM_IPPROTO_TCP && f->offset < 60; /* inside the longest TCP header */
    if (f->proto == SM_IPPROTO_UDP)
        return f->len < SM_UDP_HLEN;
    /* Only TCP and UDP come here. */
    if (f->len < SM_TCP_HLEN)
        return true;
    size_t header = (size_t)(f->payload[12] >> 4) * 4;
    return header < SM_TCP_HLEN || header > f->len;
}

enum sm_frag_verdict sm_frags_judge(struct sm_frags *frags, const struct sm_frag *f, int64_t now_us)
{
    if (f->len == 0 || (f->more && f->len % 8 != 0))
        return SM_FRAG_ALIGN;
    /* The reassembled datagram has a header of 20 bytes again. */
    if (f->offset + f->len > SM_IP_MAX - SM_IP_HLEN)
        return SM_FRAG_TOO_LONG;
    if (is_tiny(f))
        return SM_FRAG_TINY;

    struct sm_frag_entry *e = entry_get(frags, f, now_us);
    if (!e)
        return SM_FRAG_FULL;
    if (e->poisoned)
        return SM_FRAG_OVERLAP;

    size_t first = f->offset / 8, past = (f->offset + f->len + 7) / 8, seen = 0;
    for (size_t b = first; b < past; b++)
        seen += e->blocks[b / 64] >> (b % 64) & 1;
    uint32_t end = (uint32_t)(f->offset + f->len);
    bool contradicts = e->end != 0 && (f->more ? end > e->end : end != e->end);
    if (!f->more && e->end == 0) {
        /* The end becomes known now: nothing may have come from behind it. */
        for (size_t b = past; b < SM_FRAG_BLOCKS && !contradicts; b++)
            contradicts = e->blocks[b / 64] >> (b % 64) & 1;
    }
    if (seen == past - first && !contradicts)
        return SM_FRAG_REPEAT;
    if (seen > 0 || contradicts) {
        e->poisoned = true;
        return SM_FRAG_OVERLAP;
    }
    if (e->pieces >= SM_FRAGS_PIECES_MAX || f->len > SM_FRAGS_BYTES_MAX - frags->bytes) {
        /* Without this piece it can never be whole, so the rest need not come either. */
        e->poisoned = true;
        return SM_FRAG_FULL;
    }
    for (size_t b = first; b < past; b++)
        e->blocks[b / 64] |= UINT64_C(1) << (b % 64);
    e->pieces++;
    e->bytes += (uint32_t)f->len;
    frags->bytes += f->len;
    if (!f->more)
        e->end = end;
    if (e->end != 0 && e->bytes == e->end)
        entry_free(frags, e);
    return SM_FRAG_PASS;
}
