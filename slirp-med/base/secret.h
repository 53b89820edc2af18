/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Secrets have a type of their own: there is no function that prints one, the bytes live in pages that are kept out of swap and core dumps
 * where the kernel lets us, and they are wiped when freed.
 */
#ifndef SM_BASE_SECRET_H
#define SM_BASE_SECRET_H

#include "base/defs.h"

struct sm_secret;

/** sm_secret_new() - takes a copy of len bytes and wipes the source. len may be 0. */
struct sm_secret *sm_secret_new(void *bytes, size_t len);
/**
 * sm_secret_read() - all that a file holds, from its beginning, with no copy left behind. NULL with errno; EFBIG: more than max bytes
 * (at most SM_SECRET_READ_MAX).
 */
struct sm_secret *sm_secret_read(int fd, size_t max);
/** A key in PEM has some 250 bytes. */
#define SM_SECRET_READ_MAX 16384
void sm_secret_free(struct sm_secret *secret);
/** sm_secret_freep() - for sm_cleanup(). */
static inline void sm_secret_freep(struct sm_secret **secret)
{
    sm_secret_free(*secret);
}
const uint8_t *sm_secret_bytes(const struct sm_secret *secret, size_t *ret_len);
/** sm_wipe() - overwrite, and not optimised away. */
void sm_wipe(void *p, size_t len);

#endif
