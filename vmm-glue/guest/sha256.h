/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SHA-256 (FIPS 180-4), of a text that is there as a whole. Our own, so that the guest's program needs no library; no
 * secret goes through it.
 */
#ifndef SM_GUEST_SHA256_H
#define SM_GUEST_SHA256_H

#include "base/defs.h"

/** In lower-case hexadecimal digits, with the terminator. */
#define SM_SHA256_HEX 65

/** sm_guest_sha256() - the hash of data as text. */
void sm_guest_sha256(const void *data, size_t len, char ret_hex[SM_SHA256_HEX]);

#endif
