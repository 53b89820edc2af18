/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where slirp-med-edge is: the program of the two roles that face the guest, front and guest-init. It is a program of its own so that neither
 * maps OpenSSL, c-ares and the rest of what the core and the commands need: less code beside hostile bytes, and a start that is some
 * milliseconds shorter (docs/BENCHMARKS.md).
 *
 * It belongs to the slirp-med that runs and to no other: it is looked for beside that (a build folder), then in the libexec folder of the same
 * prefix, then in the one that was configured. Never in PATH.
 */
#ifndef SM_LAUNCH_EDGE_H
#define SM_LAUNCH_EDGE_H

#include <glib.h>

#define SM_EDGE_NAME "slirp-med-edge"

/** sm_edge_path() - g_free(); NULL with error set (SM_ERROR_MISSING), which says where was looked. */
char *sm_edge_path(GError **error);

#endif
