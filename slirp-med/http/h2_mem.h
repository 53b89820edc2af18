/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator that nghttp2 is given, so that an idle connection costs little.
 *
 * A session allocates one buffer of 16 KiB for the frame that it is sending. Heads are a few hundred bytes and DATA
 * never goes through it (h2.c sends bodies from its own queues), so of the four pages three are never written; but
 * memory that malloc hands out again is resident. This one gives such a buffer pages of its own and tells the kernel
 * that nothing is in them: two sessions of an idle connection, 51 -> 27 KiB.
 *
 * A connection that a credential was put into has all of its memory wiped when it is freed, from then on: nghttp2 keeps
 * copies of what it is given, and frees them as they are.
 */
#ifndef SM_HTTP_H2_MEM_H
#define SM_HTTP_H2_MEM_H

#include <nghttp2/nghttp2.h>

#include "base/defs.h"

struct sm_h2_mem {
    nghttp2_mem mem; /* for nghttp2_session_*_new3() */
    bool wipe;       /* may become true at any time */
};

/** sm_h2_mem_init() - must outlive the sessions, and not move. */
void sm_h2_mem_init(struct sm_h2_mem *m);

#endif
