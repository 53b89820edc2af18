/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A set of certificates, gathered from PEM files and written as one: the combined bundle that CMD trusts.
 *
 * The files are those that CMD sees, so a former CMD may have written them. Nothing here parses a certificate: a block is taken out of its
 * armour, its outer length is checked, and it is written again. Comments, keys and everything else that is not a certificate stay behind; of
 * a TRUSTED CERTIFICATE (OpenSSL's own format) what follows the certificate does too. A certificate that is there is not added twice.
 *
 * Pure: bytes in, bytes out.
 */
#ifndef SM_PATHS_CERTS_H
#define SM_PATHS_CERTS_H

#include <glib.h>

#include "base/defs.h"

/** One file: the largest bundles of distributions and companies have well under 1 MiB. */
#define SM_CERTS_FILE_MAX (4u << 20)
/** Certificates in a set, and their bytes: ten times what a distribution trusts. */
#define SM_CERTS_MAX 4096
#define SM_CERTS_BYTES_MAX (8u << 20)

struct sm_certs;

struct sm_certs *sm_certs_new(void);
void sm_certs_free(struct sm_certs *certs);

/** sm_certs_add_pem() - take the certificates out of a text. Returns how many it held; what is above the maxima is left out. */
size_t sm_certs_add_pem(struct sm_certs *certs, const char *text, size_t len);
/** sm_certs_add_all() - those of another set. */
void sm_certs_add_all(struct sm_certs *certs, const struct sm_certs *from);
size_t sm_certs_count(const struct sm_certs *certs);
/** sm_certs_get() - DER, borrowed, in the order in which they were added. */
const uint8_t *sm_certs_get(const struct sm_certs *certs, size_t i, size_t *ret_len);
/** sm_certs_pem() - all of them as PEM; g_string_free(). */
GString *sm_certs_pem(const struct sm_certs *certs);

#endif
