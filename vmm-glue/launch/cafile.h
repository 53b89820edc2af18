/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --egress-ca-file: certificates that the core is to trust upstream beside the host's own.
 *
 * A file is checked when the flag is read, so that a wrong one fails the start and not the first connection. What goes on is its
 * certificates, written anew as PEM: comments, and text that is not UTF-8, stay behind.
 *
 * Errors: SM_ERROR_INVALID; the message says what is wrong and what to give instead (the caller puts flag and file in front).
 */
#ifndef SM_LAUNCH_CAFILE_H
#define SM_LAUNCH_CAFILE_H

#include <glib.h>

#include "base/defs.h"

/** One file, and the certificates of all files together: 20 times what a distribution trusts. */
#define SM_CA_FILE_MAX (4u << 20)

/**
 * sm_ca_file_read() - append the certificates of the file to pem.
 * Refused: what cannot be read, what is not a regular file, a file without a certificate, with a broken one, or with a private key.
 * Returns 0, or -1 with error set and pem as it was.
 */
int sm_ca_file_read(const char *path, GString *pem, GError **error);

#endif
