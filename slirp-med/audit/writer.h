/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The append-only audit file: lines are collected for one turn of the loop and written by one write(2) at its end,
 * before that turn's effects are released (spec section 8). Owned and called by the core's one thread; the file is
 * opened, renamed and reopened by the supervisor with the functions of file.h, because the core cannot open anything.
 *
 * The turn, as the core writes it:
 *
 *     if (!sm_audit_append(w, &r))        a decision: it cannot be recorded, so it is not carried out
 *             drop it;
 *     sm_audit_note(w, &r);               a fact: it has happened already and must not be forgotten
 *     ...
 *     if (sm_audit_commit(w))             end of the turn
 *             release the turn's effects;
 *     else
 *             undo them;                  every decision of this turn: nothing of them is in the file, no seq was used
 *
 * Decisions and facts. A decision whose commit failed is forgotten: it was not carried out, so it must not be in the
 * file. A fact is kept in memory (bounded) and written first as soon as writing works again; facts over the bound are
 * counted and the count is recorded ("lost"). While the writer is unhealthy, sm_audit_append() refuses at once, which
 * stops admission; sm_audit_note() goes on taking facts. sm_audit_failure() is the clear message for the operator. The
 * core calls sm_audit_probe() once a second until it succeeds.
 *
 * Space is reserved ahead with fallocate(KEEP_SIZE), so that a full disk shows there and no write is ever short. On
 * file systems without it a short write is taken back with ftruncate to the line border; where even that fails, the
 * torn line is ended with a newline at the next success, recorded (egress_log_repair), and the seqs of the batch stay
 * used (a gap, never a repeat).
 *
 * Rotation: two files, each at most half of max_bytes. When sm_audit_need() says so, the core asks the supervisor
 * (sm_audit_rotate()) and hands the new descriptor to sm_audit_adopt(). Lines go on into the old file until then, up to
 * its hard limit; at the limit the writer is unhealthy, as on a full disk. A file that was removed while it is written
 * to (link count 0) makes the writer unhealthy as well, with SM_AUDIT_NEED_REOPEN.
 *
 * System calls: fstat, fcntl(F_GETFL), pread64, write, fallocate, ftruncate, fdatasync (with sync), close. SIGXFSZ must
 * be ignored in the process.
 */
#ifndef SM_AUDIT_WRITER_H
#define SM_AUDIT_WRITER_H

#include <glib.h>

#include "audit/event.h"

struct sm_audit_writer;

/** Default and least value of --audit-max-bytes. Least: half a file must hold several batches. */
#define SM_AUDIT_MAX_BYTES_DEFAULT (UINT64_C(1) << 30)
#define SM_AUDIT_MAX_BYTES_MIN (UINT64_C(1) << 20)
/** Memory for one turn's lines: SM_LOOP_BATCH events with the longest possible line each, twice (decisions and facts
 * have half each). */
#define SM_AUDIT_BATCH_MAX (8u << 20)
/** Reserved ahead in one step: a few thousand lines, and not much to have missing from a disk. */
#define SM_AUDIT_RESERVE_BYTES (1u << 20)
/** Free space that a probe asks for before it calls the disk usable again, so that the state does not flap. */
#define SM_AUDIT_RESUME_BYTES (64u << 10)

struct sm_audit_options {
    const char *workspace; /* a valid name (sm_audit_name_valid()); copied */
    uint64_t max_bytes;    /* over both files; 0 = SM_AUDIT_MAX_BYTES_DEFAULT; below the least value is an error */
    uint64_t seq_floor;    /* highest seq known from the rotated file (sm_audit_open() gives it); 0 = none */
    bool sync;             /* --audit-sync: fdatasync before commit returns true */
};

/**
 * sm_audit_writer_new() - take over an open audit file.
 * @fd: from sm_audit_open(): regular file, read-write, O_APPEND. Becomes the writer's on success, stays the caller's on
 * failure.
 * @wall_us: CLOCK_REALTIME, for the repair record.
 *
 * Finds the last seq (over garbage at the end, if need be) and goes on behind it; ends a torn tail and records that.
 * Returns NULL with error set when the file cannot be read or a needed repair cannot be written.
 */
struct sm_audit_writer *sm_audit_writer_new(int fd, const struct sm_audit_options *options, int64_t wall_us,
                                            GError **error);
/** sm_audit_writer_free() - does not commit (the caller did). Gives back the space reserved ahead and closes the file.
 */
void sm_audit_writer_free(struct sm_audit_writer *w);

/** sm_audit_append() - a decision's line into the turn's batch. False: it cannot be recorded (unhealthy, or the batch
 * is full). */
bool sm_audit_append(struct sm_audit_writer *w, const struct sm_audit_record *r) SM_WARN_UNUSED;
/** sm_audit_note() - a fact's line. False: no room even for that; it has been counted as lost. */
bool sm_audit_note(struct sm_audit_writer *w, const struct sm_audit_record *r);

/**
 * sm_audit_commit() - one write(2) for all that was appended and noted.
 * Returns true when no decision of this turn is unrecorded (so also with nothing to write, and while unhealthy with
 * facts only). Returns false when the write failed: all decisions of the batch are forgotten, facts are kept, no seq
 * was used, sm_audit_healthy() is false.
 */
bool sm_audit_commit(struct sm_audit_writer *w) SM_WARN_UNUSED;

bool sm_audit_healthy(const struct sm_audit_writer *w);
/** sm_audit_failure() - what is wrong and what to do about it; NULL while healthy. Belongs to the writer. */
const char *sm_audit_failure(const struct sm_audit_writer *w);
/** sm_audit_probe() - when unhealthy: try to write the kept facts and an egress_log_resume record. Returns
 * sm_audit_healthy(). */
bool sm_audit_probe(struct sm_audit_writer *w, int64_t wall_us);

enum sm_audit_need {
    SM_AUDIT_NEED_NOTHING,
    SM_AUDIT_NEED_ROTATE, /* ask the supervisor for sm_audit_rotate() */
    SM_AUDIT_NEED_REOPEN, /* the file was removed: ask for sm_audit_open() */
    SM_AUDIT_NEEDS,
};
const char *sm_audit_need_name(enum sm_audit_need need);
/** sm_audit_need() - what the supervisor should be asked for; the core asks once and again after a second. Cheap: no
 * system call. */
enum sm_audit_need sm_audit_need(const struct sm_audit_writer *w);
/**
 * sm_audit_adopt() - go on in another file; takes fd over in any case. seq goes on; the first line is
 * egress_log_rotate. While unhealthy, the new file is probed at once. A descriptor that is not a regular file opened
 * for reading and appending is closed and refused with false; the writer then goes on with what it has.
 */
bool sm_audit_adopt(struct sm_audit_writer *w, int fd, int64_t wall_us);

/** sm_audit_next_seq() - the seq that the next line gets. sm_audit_pending() - lines that wait for commit.
 * sm_audit_lost() - facts lost. */
uint64_t sm_audit_next_seq(const struct sm_audit_writer *w);
size_t sm_audit_pending(const struct sm_audit_writer *w);
/**
 * sm_audit_crowded() - do facts, or decisions, take half of the room that there is for them? Who makes many in one go
 * commits then: what has no room is lost.
 */
bool sm_audit_crowded(const struct sm_audit_writer *w);
uint64_t sm_audit_lost(const struct sm_audit_writer *w);

#endif
