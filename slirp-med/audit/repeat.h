/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repeated denials: the first of an (event, destination, port, name, reason) is written at once, those that follow
 * within a second become one line with `count`. A line without `count` stands for one denial, so the counts of all
 * lines add up to what happened: nothing is dropped, also not when the table is full (the entry that wrote its line
 * longest ago is written out before it goes).
 *
 * While the writer is unhealthy the counts wait here, and are written when it works again.
 *
 * Time is an argument: now_us is CLOCK_MONOTONIC, wall_us CLOCK_REALTIME, both in microseconds. One thread (the
 * core's).
 */
#ifndef SM_AUDIT_REPEAT_H
#define SM_AUDIT_REPEAT_H

#include "audit/event.h"
#include "audit/writer.h"

/** Distinct denials that are counted at the same time: a scan of one port over a /22. An entry is about half a KiB. */
#define SM_AUDIT_REPEAT_MAX 1024
/** Longest run of repeats that one line stands for. */
#define SM_AUDIT_REPEAT_WINDOW_US INT64_C(1000000)
/** Entries keep the fields of their first line for the later ones, up to this; a longer line is written every time and
 * never counted. */
#define SM_AUDIT_REPEAT_FIELDS_MAX 2048

struct sm_audit_repeats;

struct sm_audit_repeats *sm_audit_repeats_new(void);
/** sm_audit_repeats_free() - call sm_audit_repeats_flush_all() first: what is pending is forgotten here. */
void sm_audit_repeats_free(struct sm_audit_repeats *rep);

/** What makes two denials the same, beside the record's event. */
struct sm_audit_repeat_key {
    uint8_t proto;          /* IPPROTO_ */
    struct sm_endpoint dst; /* may be family none (DNS) */
    const void *name;       /* guest bytes or NULL; compared whole up to SM_AUDIT_GUEST_MAX */
    size_t name_len;
    const char *reason; /* a static string */
};

/**
 * sm_audit_repeats_deny() - record a denial, at once or by counting it.
 * @r: the complete record without `count`. Of a repeat only its being there counts: the line written later has the
 * fields of the first.
 * @count: how many denials this stands for (the front reports what it refused on its own under a hold); at least 1. A
 * first record with count > 1 gets a `count` field. Returns false when it can be neither written nor counted (the
 * writer is unhealthy): the denial then stays silent.
 */
bool sm_audit_repeats_deny(struct sm_audit_repeats *rep, struct sm_audit_writer *w,
                           const struct sm_audit_repeat_key *key, struct sm_audit_record *r, uint64_t count,
                           int64_t now_us) SM_WARN_UNUSED;

/**
 * sm_audit_repeats_unwritten() - a commit has failed, and the lines that it lost are not there to be counted on: the
 * next of their kind is a line again. What was counted behind such a line is told as ever.
 * @seq: sm_audit_next_seq() before that commit.
 */
void sm_audit_repeats_unwritten(struct sm_audit_repeats *rep, uint64_t seq);
/**
 * sm_audit_repeats_flush() - hand the writer a line for each entry whose second is over, forget entries that were idle
 * for one. Returns when to call again (now_us's clock), or INT64_MAX when nothing waits. For the core's timer.
 */
int64_t sm_audit_repeats_flush(struct sm_audit_repeats *rep, struct sm_audit_writer *w, int64_t now_us,
                               int64_t wall_us);
/** sm_audit_repeats_flush_all() - everything that is pending, due or not: on shutdown, before egress_stop. */
void sm_audit_repeats_flush_all(struct sm_audit_repeats *rep, struct sm_audit_writer *w, int64_t wall_us);

/** sm_audit_repeats_due() - as the return value of flush, without flushing. */
int64_t sm_audit_repeats_due(const struct sm_audit_repeats *rep);
/** sm_audit_repeats_len() - keys held; for tests. */
size_t sm_audit_repeats_len(const struct sm_audit_repeats *rep);

#endif
