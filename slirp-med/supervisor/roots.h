/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The certificates that this machine trusts, for the core: it cannot open files, and asks with WANT "roots" when it intercepts for the
 * first time.
 *
 * The core gets a sealed memfd and not the file: it cannot change under its feet or block. Nothing here looks at what the file says.
 */
#ifndef SM_SUPERVISOR_ROOTS_H
#define SM_SUPERVISOR_ROOTS_H

#include <glib.h>

#include "base/defs.h"

/** A distribution's bundle has 150 to 400 KiB, one with a company's own CAs little more. */
#define SM_ROOTS_MAX (4u << 20)

/**
 * sm_roots_paths() - where the bundle may be, best first: that of @preferred (an SSL_CERT_FILE; may be NULL), then those of Debian, Fedora,
 * SUSE and Alpine. NULL-terminated; g_strfreev().
 */
char **sm_roots_paths(const char *preferred);

/**
 * sm_roots_open() - the first of paths that can be had: a regular file that is not empty and not above SM_ROOTS_MAX.
 * @ret_path: which one it was; may be NULL.
 * Returns a read-only descriptor (CLOEXEC), or -1 with error set: what was wrong with each that is there, or that none is.
 */
int sm_roots_open(char *const *paths, const char **ret_path, GError **error);

#endif
