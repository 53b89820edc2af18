/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the guest's program did, for people as it happens (stdout; what went wrong: stderr) or as one JSON object at
 * the end. One report a process. Strings are copied.
 */
#ifndef SM_GUEST_REPORT_H
#define SM_GUEST_REPORT_H

#include "base/defs.h"

/** Exit statuses; their numbers are in the manual page. */
enum sm_guest_status {
    SM_GUEST_DONE = 0,
    SM_GUEST_NOT_FETCHED = 1,
    SM_GUEST_USAGE = 2,
    SM_GUEST_BAD_CERT = 3,
    SM_GUEST_NOT_WRITTEN = 4,
};

enum sm_file_state { SM_FILE_UNCHANGED, SM_FILE_WRITTEN, SM_FILE_REMOVED, SM_FILE_STATES };
enum sm_update_state {
    SM_UPDATE_NONE,
    SM_UPDATE_CURRENT,
    SM_UPDATE_DONE,
    SM_UPDATE_MISSING,
    SM_UPDATE_SKIPPED,
    SM_UPDATE_FAILED,
    SM_UPDATE_STATES
};

/**
 * Files we can touch: two anchors, two variables' files, the certificate, the bundle. Notes: a few for each channel
 * and layout.
 */
#define SM_REPORT_FILES 8
#define SM_REPORT_NOTES 16

struct sm_report {
    bool json, quiet, dry_run; /* quiet: stdout has another use */
    const char *root, *layout, *update_tool,
        *system_bundle; /* layout, tool and bundle: NULL when there is none; not owned */
    char *from;         /* the channel, in words */
    char sha256[65];
    bool replaced; /* there was another certificate of ours */
    size_t system_count;
    enum sm_update_state update;
    size_t n_files, n_notes;
    struct {
        const char *path; /* a constant */
        enum sm_file_state state;
    } files[SM_REPORT_FILES];
    char *notes[SM_REPORT_NOTES];
    char *error;
};

/** sm_report_fetched() - the certificate is there. */
void sm_report_fetched(struct sm_report *r, const char *from, const char *sha256);
void sm_report_file(struct sm_report *r, const char *path, enum sm_file_state state);
/** sm_report_note() - something worth knowing that is no failure. */
void sm_report_note(struct sm_report *r, const char *format, ...) SM_PRINTF(2, 3);
/** sm_report_error() - why it failed; the first one stays. */
void sm_report_error(struct sm_report *r, const char *format, ...) SM_PRINTF(2, 3);
/** sm_report_changed() - a file was written or removed, or the distribution's tool was run. */
bool sm_report_changed(const struct sm_report *r);
/**
 * sm_report_finish() - the last line, or the JSON object; the report is empty afterwards. result: in one word, when
 * it did not fail.
 */
void sm_report_finish(struct sm_report *r, enum sm_guest_status status, const char *result);

#endif
