/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trust in the workspace's CA for programs with an NSS database in the home folder: Electron and chrome-headless-shell (Chromium itself takes
 * the policy of guest_trust.c).
 *
 * Only where such a database is, since a folder that is not there is not made; and only where NSS's certutil is, in the file system that CMD
 * sees: the trust in a database is signed with the database's own key, which is NSS's to do. certutil works on a copy, as CMD would run it: without
 * capabilities, no descriptor but /dev/null, bounded in time. A database with a password stays as it is.
 */
#ifndef SM_PATHS_GUEST_NSS_H
#define SM_PATHS_GUEST_NSS_H

#include <glib.h>

#include "base/defs.h"

/** One file of a database: those of browsers have 200 KiB. */
#define SM_NSS_FILE_MAX (8u << 20)
/** certutil needs 30 ms; the start does not wait longer than this for it. */
#define SM_NSS_TIMEOUT_MS 5000

/**
 * sm_nss_paths() - where a database may be: ~/.pki/nssdb, and pki/nssdb in $XDG_DATA_HOME (~/.local/share). NULL-terminated; g_strfreev().
 * @env: CMD's environment.
 */
char **sm_nss_paths(char *const *env);

/** sm_nss_copy() - the files of the database in folder `from` (a descriptor) into the empty folder `to`. False: one cannot be read. */
bool sm_nss_copy(int from, int to);

/**
 * sm_nss_add() - have a CA trusted in a database, which is made when the folder is empty.
 * @certutil: descriptor of the program; @folder, @certificate: paths.
 * Returns true, or false when certutil did not succeed or took too long (it is killed).
 */
bool sm_nss_add(int certutil, const char *folder, const char *certificate);

#endif
