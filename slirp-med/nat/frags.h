/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fragments, judged one by one before anything reassembles them (RFC 791, RFC 1858, RFC 3128, RFC 5722's lesson).
 *
 * The table remembers only which 8-byte blocks of a datagram have come, never the bytes. A fragment that overlaps what
 * came before in part, or that disagrees about where the datagram ends, poisons the datagram: nothing more of it
 * passes, so the overlap never reaches libslirp. An exact repeat is dropped by itself (a lossy wire duplicates). The
 * first fragment must hold the whole transport header, and no TCP fragment may start inside it.
 */
#ifndef SM_NAT_FRAGS_H
#define SM_NAT_FRAGS_H

#include "base/defs.h"

/** Datagrams being reassembled: a guest's own kernel sends the fragments of a datagram together, so few are open at
 * once. */
#define SM_FRAGS_MAX 32
/** Bytes that may wait in libslirp's reassembly for all of them. */
#define SM_FRAGS_BYTES_MAX (512u << 10)
/** Fragments of one datagram: 64 KiB at an MTU of 576 is 119; more means that they are cut small on purpose. */
#define SM_FRAGS_PIECES_MAX 128
/** As long as libslirp keeps them (RFC 1122 3.3.2 asks for 60 s at most), microseconds. */
#define SM_FRAGS_LIFE_US (30 * INT64_C(1000000))

#define SM_FRAG_BLOCKS 8192 /* 65536 / 8 */

enum sm_frag_verdict {
    SM_FRAG_PASS,
    SM_FRAG_TINY,     /* the transport header is not whole in the first fragment, or is written over */
    SM_FRAG_ALIGN,    /* a length that is not a multiple of 8 before the last fragment, or empty */
    SM_FRAG_TOO_LONG, /* would end behind 65535 */
    SM_FRAG_OVERLAP,  /* overlaps or contradicts what came before, or belongs to a datagram that did */
    SM_FRAG_REPEAT,   /* came before exactly */
    SM_FRAG_FULL,     /* one of the bounds above */
    SM_FRAG_VERDICTS
};

struct sm_frag_entry {
    bool used, poisoned;
    uint8_t proto;
    uint16_t id;
    uint32_t dst;
    uint32_t end;   /* length of the whole payload once the last fragment came, else 0 */
    uint32_t bytes; /* came so far */
    unsigned pieces;
    int64_t expires_us;
    uint64_t blocks[SM_FRAG_BLOCKS / 64];
};

struct sm_frags {
    struct sm_frag_entry entries[SM_FRAGS_MAX];
    size_t bytes;
    unsigned used;
};

struct sm_frag {
    uint32_t dst;
    uint16_t id;
    uint8_t proto;
    bool more;
    uint32_t offset; /* bytes */
    const uint8_t *payload;
    size_t len;
};

/** sm_frags_judge() - one fragment (the source is the guest's, checked before). now_us is monotonic. */
enum sm_frag_verdict sm_frags_judge(struct sm_frags *frags, const struct sm_frag *f, int64_t now_us);

#endif
