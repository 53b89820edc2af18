/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A workspace out of a snapshot: made as `create` makes one, so that `start` re-arms what the snapshot had.
 *
 *   settings.json         the snapshot's flags; those of policy files replaced by one, and --keep-ca added where there is a CA
 *   policy.json           the entries that were in force; what `reload` reads again
 *   ca.key, ca.pem,       the CA, as one that is kept (keepca.h)
 *   ca.kept
 *   pins.json             the pins with the times of their ends (core/carry.h); each start takes those that are not over
 *   counters.json         bytes moved; never less than what the name had, unless told to begin anew
 *   restored.json         {"snapshot": id, "workspace": its name then, "created": when, "ca_sha256": fingerprint or null}: what a fork is known by
 *
 * All is written beside what is there and put in place at the end, settings.json behind all that it needs; a restore that fails leaves the folder as it was, and
 * none where there was none. A name that is taken is replaced only when told to, and never while it runs; its audit goes on. Restores of
 * one user wait for each other, so that two of one snapshot see each other.
 */
#ifndef SM_LAUNCH_RESTORE_H
#define SM_LAUNCH_RESTORE_H

#include "launch/snapfile.h"
#include "launch/state.h"

#define SM_STATE_POLICY "policy.json"
#define SM_STATE_PINS "pins.json"
#define SM_STATE_RESTORED "restored.json"

struct sm_restore_request {
    const char *state_dir; /* NULL: the default */
    const char *file;
    const char *name;      /* NULL: the snapshot's */
    const char *expect_ca; /* fingerprint, with or without colons; NULL: any */
    const char *key_file;  /* NULL: the key of the state folder */
    bool reset_caps;       /* count from zero */
    bool refuse_fork;      /* fail where another workspace is of this snapshot, or has its CA */
    bool force;            /* replace a stopped workspace of that name */
};

struct sm_restore_result {
    char *name;
    struct sm_snapshot snapshot;
    uint64_t counters[SM_CAPS_DIRS]; /* as they are now */
    size_t pins;                     /* not over yet */
    GPtrArray *shares;               /* char *: workspaces that have its CA too */
};

/** sm_restore() - 0 and *ret, or -1 with error set. */
int sm_restore(const struct sm_restore_request *r, struct sm_restore_result *ret, GError **error);
/** sm_restore_result_clear() - fit for sm_cleanup(); a zeroed struct is empty. */
void sm_restore_result_clear(struct sm_restore_result *r);

/** sm_restored_pins() - for a start: pins.json, checked; an empty array where there is none. *ret is a new reference. */
bool sm_restored_pins(const struct sm_workspace *ws, json_t **ret, GError **error) SM_WARN_UNUSED;

#endif
