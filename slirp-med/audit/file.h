/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The audit file's place on disk: <state>/NAME/egress.jsonl (0600) in a folder that is 0700, and one rotated file
 * egress.jsonl.1. For the supervisor and the launcher (opening, rotating) and the reader. Nothing here looks at a
 * line's content, except at the fixed-format head that the writer itself wrote (sm_audit_parse_head()), to find the
 * last seq.
 *
 * Opening is distrustful: no symlink, a regular file, owned by the caller, one hard link, no access for group or
 * others.
 */
#ifndef SM_AUDIT_FILE_H
#define SM_AUDIT_FILE_H

#include <glib.h>

#include "base/defs.h"

#define SM_AUDIT_FILE "egress.jsonl"
#define SM_AUDIT_FILE_ROTATED "egress.jsonl.1"

/**
 * sm_audit_open() - open the audit file for the writer, creating it (0600) when it is not there.
 * @dirfd: the workspace's folder; must be the caller's and closed to group and others.
 * @ret_seq_floor: last seq of the rotated file, 0 without one; goes into sm_audit_options.seq_floor. May be NULL
 * (reopening). Returns a descriptor (O_RDWR | O_APPEND | O_CLOEXEC) or -1 with error set.
 */
int sm_audit_open(int dirfd, uint64_t *ret_seq_floor, GError **error);

/** The new file while a rotation is under way; a stale one is removed by the next rotation. */
#define SM_AUDIT_FILE_NEW "egress.jsonl.new"

/**
 * sm_audit_rotate() - egress.jsonl becomes egress.jsonl.1 (an older one is replaced), and a new egress.jsonl is
 * created. Returns the new file's descriptor as sm_audit_open() does, or -1 with error set; then the
 * names are as they were and the writer goes on with the descriptor that it has.
 */
int sm_audit_rotate(int dirfd, GError **error);

/** sm_audit_is_current() - whether fd is the file that now bears the name egress.jsonl: false when somebody renamed or
 * removed it. */
bool sm_audit_is_current(int dirfd, int fd);

/**
 * sm_audit_last_seq() - the seq of the last complete line that is one of ours; garbage behind it is passed over.
 * @ret_size: size of the file; @ret_torn: bytes behind the last newline. Either may be NULL.
 * Returns 1 when found, 0 when no line of ours is in the file, or -1 with errno. Reads backwards, as far as it has to.
 */
int sm_audit_last_seq(int fd, uint64_t *ret_seq, uint64_t *ret_size, uint64_t *ret_torn);

#endif
