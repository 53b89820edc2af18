/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Java truststores in the JKS format: written, and added to.
 *
 * The format (big-endian): u32 0xFEEDFEED, u32 version 2, u32 number of entries; an entry of a trusted certificate is u32 2, its alias and the
 * word "X.509" as u16 length and text, u64 milliseconds since 1970 between the two, u32 length, DER. At the end SHA-1 over the password in
 * UTF-16BE, the text "Mighty Aphrodite", and all before. The digest protects nothing (the password is known to everybody); Java wants it.
 *
 * Pure. Nothing parses an entry: a store is added to by its number and at its end.
 */
#ifndef SM_PATHS_JKS_H
#define SM_PATHS_JKS_H

#include <glib.h>

#include "base/defs.h"

/** What distributions and the JDK protect theirs with. */
#define SM_JKS_PASSWORD "changeit"
/** Largest store that is added to: a distribution's has 160 KiB. */
#define SM_JKS_MAX (8u << 20)

struct sm_jks;

struct sm_jks *sm_jks_new(void);
/** sm_jks_open() - a store to add to, or NULL: no JKS of version 2 (the JDK also writes PKCS#12), or another password. */
struct sm_jks *sm_jks_open(const uint8_t *data, size_t len);
void sm_jks_free(struct sm_jks *jks);

/** sm_jks_add() - a trusted certificate. @alias: ASCII in lower case; of two of the same name Java keeps the later one. */
void sm_jks_add(struct sm_jks *jks, const char *alias, int64_t when_ms, const uint8_t *der, size_t len);
/** sm_jks_finish() - the store's bytes; jks is freed. */
GBytes *sm_jks_finish(struct sm_jks *jks);

#endif
