/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The key that authenticates snapshots: one a user and state folder, <base>/.snapshot-key, beside the workspaces and outside all of them (no
 * workspace's name begins with a dot). 32 random bytes as 64 hex digits and a newline, mode 0600, made when it is needed first. Whoever has it can
 * make snapshots that this user restores; CMD cannot see it, since the base folder is masked from it.
 *
 * The same text in a file of its own is what --key-file takes: copying the file is how a key gets to another machine.
 */
#ifndef SM_LAUNCH_SNAPKEY_H
#define SM_LAUNCH_SNAPKEY_H

#include <glib.h>

#include "base/secret.h"

#define SM_SNAPSHOT_KEY_FILE ".snapshot-key"

/**
 * sm_snapshot_key() - the key of a state folder. @base: its path, for errors. @make: make it if there is none (whole or not at all, once, however many
 * ask at a time); otherwise that is SM_ERROR_MISSING. NULL with error set.
 */
struct sm_secret *sm_snapshot_key(int base_fd, const char *base, bool make, GError **error);
/** sm_snapshot_key_file() - of --key-file. NULL with error set, which names the file. */
struct sm_secret *sm_snapshot_key_file(const char *path, GError **error);

#endif
