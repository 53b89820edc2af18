/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a snapshot of a workspace: gathering what snapfile.h says from the workspace's folder and, where it runs, from its core (over the
 * control socket), and writing it into a file.
 *
 *   runs     settings: settings.json, or the flags of `run`; policy, pins, counters, CA: what the core has now
 *   stopped  only a created one (settings.json). policy: flags and files, as the next start would read them; pins: what is left of those of a
 *            restore; counters: counters.json; CA: the kept one, without which nothing that intercepts is taken
 *
 * The file is written whole or not at all (an unnamed file until then, where the file system has such), with mode 0600, and replaces another one only
 * when it is told to. It holds the CA's key. Credentials are not in it: settings have references alone.
 *
 * The caller is to be undumpable (sandbox/sandbox.h): the key passes through it.
 */
#ifndef SM_LAUNCH_SNAPSHOT_H
#define SM_LAUNCH_SNAPSHOT_H

#include "launch/snapfile.h"

struct sm_snapshot_request {
    const char *state_dir; /* NULL: the default */
    const char *name;
    const char *file;
    const char *key_file; /* NULL: the key of the state folder, made if there is none */
    bool force;           /* replace the file */
};

/** sm_snapshot_take() - *ret is for sm_snapshot_clear(). 0, or -1 with error set, and no file written. */
int sm_snapshot_take(const struct sm_snapshot_request *r, struct sm_snapshot *ret, GError **error);

/** sm_snapshot_load() - read a file that sm_snapshot_take() wrote; it must be the caller's own and closed to others. Errors name it. */
bool sm_snapshot_load(const char *file, const struct sm_secret *key, struct sm_snapshot *ret,
                      GError **error) SM_WARN_UNUSED;

#endif
