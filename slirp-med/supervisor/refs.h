/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * References to credentials, opened for the core by number (WANT ref:N): a variable of the launcher's environment, or a file. The supervisor
 * looks at a file's type, owner and mode and hands the descriptor on; it does not read it. A variable's value goes into a sealed memfd.
 *
 * A file is looked for in the folder that its path had at the start, wherever that is now: CMD may be able to rename a folder above it, and
 * put another one there with a link to another host's credential. (In a folder of its own the name itself is out of CMD's reach:
 * launch/hidden.h.)
 */
#ifndef SM_SUPERVISOR_REFS_H
#define SM_SUPERVISOR_REFS_H

#include "base/defs.h"

/** A secret: a key, a token, a PEM. */
#define SM_REF_BYTES_MAX (64u << 10)

struct sm_ref_source {
    bool env;         /* what is a variable; otherwise an absolute path */
    const char *what; /* borrowed; NULL: not for the supervisor to open (Vault) */
    bool pinned;      /* a file whose folder was there at the start: dir is that, O_PATH */
    int dir;
};

/** sm_ref_pin() - hold the folder of a file. */
void sm_ref_pin(struct sm_ref_source *source);
/** sm_ref_unpin() - let go of it. */
void sm_ref_unpin(struct sm_ref_source *source);

/**
 * sm_ref_open() - a descriptor that can be read, or -1 with a word in *ret_why: ref_missing, ref_empty, ref_too_large, ref_not_a_file,
 * ref_owner (neither ours nor root's), ref_mode (group or others have any right to it), ref_unreadable.
 */
int sm_ref_open(const struct sm_ref_source *source, const char **ret_why);

#endif
