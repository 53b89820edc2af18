/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slirp-med is three programs, so that a process maps no library that it has no use for: less code beside hostile
 * bytes, and a start that is some milliseconds shorter for each (docs/BENCHMARKS.md).
 *
 *   slirp-med       what users call: the launcher and all commands, but for what needs OpenSSL. In its place a command
 *                   or a flag that does has a few lines (cli/thin.c) by which the process becomes slirp-med-core
 *   slirp-med-core  the core and the fetch helper, with OpenSSL, nghttp2 and c-ares; and everything that slirp-med can
 *                   do as well
 *   slirp-med-edge  the roles that face the guest or a proxy's clients: the two fronts, guest-init, the keeper
 *
 * The other two belong to the slirp-med that runs and to no other: they are looked for beside that (a build folder),
 * then in the libexec folder of the same prefix, then in the one that was configured. Never in PATH.
 */
#ifndef SM_LAUNCH_PROGRAM_H
#define SM_LAUNCH_PROGRAM_H

#include <glib.h>

#define SM_EDGE_NAME "slirp-med-edge"
#define SM_CORE_NAME "slirp-med-core"

/** sm_program_path() - @name: one of these. g_free(); NULL with error set (SM_ERROR_MISSING), which says where was
 * looked. */
char *sm_program_path(const char *name, GError **error);

/** sm_program_begin() - first in main(): what this process was started with, to become another program with the
 * same. */
void sm_program_begin(char **argv);
/** sm_program_settle() - this process has made something (a workspace's lock, children), and stays the program that it
 * is. */
void sm_program_settle(void);

#endif
