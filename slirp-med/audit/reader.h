/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading the audit back: lines oldest first, over the rotated file and the current one, and on into files that appear
 * by rotation later.
 *
 * The file is not trusted: lines are bounded, what is not one of our JSON objects comes back as an invalid line and not
 * as an error, a torn tail is told apart from a line that is still being written, and a file that shrinks or disappears
 * ends nothing. Any process may read while the core writes. Not for the core: this module opens files.
 */
#ifndef SM_AUDIT_READER_H
#define SM_AUDIT_READER_H

#include <glib.h>
#include <jansson.h>

#include "base/defs.h"

struct sm_audit_reader;

enum sm_audit_line_kind {
    SM_AUDIT_LINE_RECORD,  /* one of ours: json is set */
    SM_AUDIT_LINE_INVALID, /* not a JSON object, or longer than SM_AUDIT_LINE_MAX (text is then its beginning) */
    SM_AUDIT_LINE_TORN,    /* the last bytes of the file, without a newline */
    SM_AUDIT_LINE_KINDS,
};
const char *sm_audit_line_kind_name(enum sm_audit_line_kind kind);

/** A line; everything belongs to the reader and lasts until the next call. */
struct sm_audit_line {
    enum sm_audit_line_kind kind;
    const char *text; /* without the newline; raw bytes of the file, NUL-terminated behind len */
    size_t len;
    const json_t *json;
    uint64_t seq;      /* 0 when the record has none */
    uint64_t missing;  /* seqs between the record before and this one: rotated away before they were read */
    const char *event; /* "" when it has none */
};

/** sm_audit_parse_line() - what kind of line text is; fills *ret (json is a new reference in *ret_json, NULL if
 * invalid). No I/O. */
void sm_audit_parse_line(const char *text, size_t len, struct sm_audit_line *ret, json_t **ret_json);

/** sm_audit_reader_new() - read the audit of the workspace whose folder dirfd is (duplicated). A missing file is an
 * empty audit. */
struct sm_audit_reader *sm_audit_reader_new(int dirfd, GError **error);
void sm_audit_reader_free(struct sm_audit_reader *r);
/** sm_audit_reader_skip() - on a new reader: what is there now is passed over, next() begins behind the last whole line. False with
 * error set. */
bool sm_audit_reader_skip(struct sm_audit_reader *r, GError **error) SM_WARN_UNUSED;

/**
 * sm_audit_reader_next() - the next complete line.
 * Returns 1 with *ret set, 0 when there is nothing more now (call again later for what is appended or rotated in), -1
 * with error set.
 */
int sm_audit_reader_next(struct sm_audit_reader *r, struct sm_audit_line *ret, GError **error);
/** sm_audit_reader_tail() - after 0: the unfinished bytes at the end, as a TORN line. False when there are none. */
bool sm_audit_reader_tail(struct sm_audit_reader *r, struct sm_audit_line *ret);

/** sm_audit_reader_watch_fd() - an inotify descriptor that becomes readable when anything happens in the folder; -1
 * with errno. */
int sm_audit_reader_watch_fd(struct sm_audit_reader *r);
/** sm_audit_reader_drain_watch() - forget the events that have come; true when the folder itself is gone. */
bool sm_audit_reader_drain_watch(struct sm_audit_reader *r);

#endif
