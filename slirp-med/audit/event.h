/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One audit line: which events there are, and how a line's fields are built.
 *
 * A line is one JSON object. Its head is the writer's (writer.h) and always the same four keys in the same order: ts,
 * seq, event, workspace. The record holds what follows, in the order in which it is added; sm_audit_add_target() adds
 * what the lines of a TCP or UDP flow have in common, so that their order is decided in one place. The builder never
 * allocates, never fails and never breaks the JSON: a value that is too long is cut at a character border, ends in
 * U+2026, and the line gets "truncated":true; a field for which there is no room at all is left out and the line gets
 * "truncated":true as well.
 *
 * Guest and peer bytes are data: sm_audit_add_guest() replaces invalid UTF-8 by U+FFFD and escapes control characters
 * (C0, DEL, C1), line and paragraph separators and bidirectional overrides, so that no line of a guest's making can
 * appear in the log or on a terminal. sm_audit_add_str() does the same (it costs nothing), but is unbounded except by
 * the line.
 *
 * Keys are string literals of ours; a key twice in one line is a bug and asserted. No I/O, no clock. Spec section 8.
 */
#ifndef SM_AUDIT_EVENT_H
#define SM_AUDIT_EVENT_H

#include "base/addr.h"
#include "base/defs.h"

/** What happened. The names in the log are sm_audit_event_name()'s; an event never changes its meaning, new ones go in
 * front of the count. */
enum sm_audit_event {
    SM_AUDIT_EGRESS_START,
    SM_AUDIT_EGRESS_STOP,
    SM_AUDIT_EGRESS_ALLOW,
    SM_AUDIT_EGRESS_CLOSE,
    SM_AUDIT_EGRESS_DENY,
    SM_AUDIT_EGRESS_INTERNAL_DENY,
    SM_AUDIT_EGRESS_DIAL, /* written before the core dials an upstream for a flow */
    SM_AUDIT_EGRESS_DIAL_ERROR,
    SM_AUDIT_EGRESS_MITM_DIAL,   /* written before the core's own ClientHello goes to an upstream */
    SM_AUDIT_EGRESS_MITM_OPAQUE, /* what is inside TLS is no HTTP (reason says how that is known): relayed as it is */
    SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR,
    SM_AUDIT_EGRESS_MITM_UPSTREAM_ERROR,
    SM_AUDIT_EGRESS_DNS_ALLOW,
    SM_AUDIT_EGRESS_DNS_DENY,
    SM_AUDIT_EGRESS_DNS_ERROR,
    SM_AUDIT_EGRESS_DNS_QUERY, /* written before a query goes upstream; its answer is a line of its own */
    SM_AUDIT_EGRESS_UDP_ALLOW,
    SM_AUDIT_EGRESS_UDP_DENY,
    SM_AUDIT_EGRESS_UDP_CLOSE,
    SM_AUDIT_EGRESS_UDP_INTERNAL_DENY,
    SM_AUDIT_EGRESS_CAP_EXCEEDED,
    SM_AUDIT_EGRESS_LOOP_GUARD,
    SM_AUDIT_EGRESS_HTTP_REQUEST,
    SM_AUDIT_EGRESS_HTTP_RESPONSE,
    SM_AUDIT_EGRESS_SWAP,
    SM_AUDIT_EGRESS_SWAP_ERROR,
    SM_AUDIT_EGRESS_SWAP_FETCH,
    SM_AUDIT_EGRESS_OTHER_DENY,
    SM_AUDIT_INGRESS_ACCEPT,
    SM_AUDIT_INGRESS_CLOSE,
    SM_AUDIT_MEDIATION_OPEN, /* written before the target of a vsock port is dialled */
    SM_AUDIT_MEDIATION_CLOSE,
    SM_AUDIT_MEDIATION_ERROR,
    SM_AUDIT_CA_DELIVERED,
    SM_AUDIT_EGRESS_LOG_REPAIR, /* the writer's: a torn tail was ended with a newline (torn_bytes) */
    SM_AUDIT_EGRESS_LOG_ROTATE, /* the writer's: first line of a new file (why: size, removed; previous_bytes) */
    SM_AUDIT_EGRESS_LOG_RESUME, /* the writer's: writing works again (error, failures, lost) */
    SM_AUDIT_EGRESS_POLICY,     /* new lists (their counts): what comes behind it was judged by them */
    SM_AUDIT_INGRESS_DENY,      /* a client of a published port that was not let in */
    SM_AUDIT_EVENTS,
};

const char *sm_audit_event_name(enum sm_audit_event event);
/** sm_audit_event_parse() - the event of that name; false (and *ret untouched) when there is none. */
bool sm_audit_event_parse(const char *name, enum sm_audit_event *ret) SM_WARN_UNUSED;

/** Longest line with its newline. 16 KiB holds a DNS answer of 64 KiB's worth of addresses cut, and every other event
 * whole. */
#define SM_AUDIT_LINE_MAX 16384
/** Room kept for the head: ts 34, seq 27, event 45, workspace 80, the "truncated" mark, braces and newline; rounded up.
 */
#define SM_AUDIT_HEAD_MAX 256
#define SM_AUDIT_FIELDS_MAX (SM_AUDIT_LINE_MAX - SM_AUDIT_HEAD_MAX)
/** Input bytes that sm_audit_add_guest() looks at: four times the longest DNS name, enough of a path to recognise it.
 */
#define SM_AUDIT_GUEST_MAX 1024
/** Most fields of one record; ours have about twenty. */
#define SM_AUDIT_KEYS_MAX 40
/** Elements of an array that are written: more answers than any resolver gives in earnest. */
#define SM_AUDIT_STRV_MAX 64

/** A record under construction. Put it on the stack, sm_audit_begin() it, add, hand it to the writer. The members are
 * event.c's. */
struct sm_audit_record {
    enum sm_audit_event event;
    int64_t wall_us;
    size_t len;
    bool truncated;
    unsigned n_keys;
    const char *keys[SM_AUDIT_KEYS_MAX];
    char fields[SM_AUDIT_FIELDS_MAX]; /* `,"key":value` for each field; not NUL-terminated */
};

/** sm_audit_begin() - start over. @wall_us: CLOCK_REALTIME in microseconds, becomes ts. */
void sm_audit_begin(struct sm_audit_record *r, enum sm_audit_event event, int64_t wall_us);

/** sm_audit_add_str() - our own text, or text from a configuration. value NULL: the field is left out. */
void sm_audit_add_str(struct sm_audit_record *r, const char *key, const char *value);
/** sm_audit_add_guest() - bytes from a guest or peer; only the first SM_AUDIT_GUEST_MAX bytes are looked at. bytes
 * NULL: left out. */
void sm_audit_add_guest(struct sm_audit_record *r, const char *key, const void *bytes, size_t len);
/** sm_audit_add_guest_max() - as sm_audit_add_guest() with a maximum of input bytes of the caller's own. */
void sm_audit_add_guest_max(struct sm_audit_record *r, const char *key, const void *bytes, size_t len, size_t max);
void sm_audit_add_int(struct sm_audit_record *r, const char *key, int64_t value);
/** sm_audit_add_uint() - for counters and ids. Over INT64_MAX it is written as INT64_MAX, the most that JSON readers
 * take. */
void sm_audit_add_uint(struct sm_audit_record *r, const char *key, uint64_t value);
void sm_audit_add_bool(struct sm_audit_record *r, const char *key, bool value);
/** sm_audit_add_addr() - the address alone; family none: left out. */
void sm_audit_add_addr(struct sm_audit_record *r, const char *key, const struct sm_addr *addr);
/** sm_audit_add_endpoint() - "A.B.C.D:PORT" or "[v6]:PORT"; family none: left out. */
void sm_audit_add_endpoint(struct sm_audit_record *r, const char *key, const struct sm_endpoint *endpoint);
/** sm_audit_add_strv() - an array of strings, treated as guest bytes; at most SM_AUDIT_STRV_MAX of them. n == 0: an
 * empty array. */
void sm_audit_add_strv(struct sm_audit_record *r, const char *key, const char *const *values, size_t n);

/** What the lines of a TCP or UDP flow share. Zero and NULL members are left out; `unlisted` and `internal` are always written, `mitm`
 * whenever has_mitm is set. */
struct sm_audit_target {
    uint64_t flow;          /* 0: none */
    struct sm_endpoint src; /* "src": the guest's address and port */
    struct sm_endpoint dst; /* "dst": the address; "port": its port */
    const char *host;       /* "host": guest bytes, host_len of them */
    size_t host_len;
    const char *name_source; /* pin, sni, host, connect, ip */
    const char *rule;        /* the entry that decided, as the operator wrote it */
    const char *reason;
    bool unlisted;
    bool internal;
    bool has_mitm;
    bool mitm;
};

/** sm_audit_add_target() - flow, src, dst, port, host, name_source, rule, reason, unlisted, internal, mitm; in this
 * order. */
void sm_audit_add_target(struct sm_audit_record *r, const struct sm_audit_target *target);

/**
 * sm_audit_format_line() - the finished line with its newline. The writer's; here because the format is one idea.
 * @workspace: a valid name; @out: at least SM_AUDIT_LINE_MAX bytes. Returns the length, never more than
 * SM_AUDIT_LINE_MAX.
 */
size_t sm_audit_format_line(char *out, enum sm_audit_event event, int64_t wall_us, uint64_t seq, const char *workspace,
                            const char *fields, size_t fields_len, bool truncated);

/** Highest seq: what JSON readers take as an integer. The writer stops there (it never will be there). */
#define SM_AUDIT_SEQ_MAX ((uint64_t)INT64_MAX - 1)

/** "2026-11-22T21:04:05.123456Z" with the NUL. */
#define SM_AUDIT_TS_STRLEN 28
/** sm_audit_format_ts() - RFC 3339 in UTC with microseconds. Times outside the years 1970 to 9999 are clamped to the
 * nearer end. */
void sm_audit_format_ts(int64_t wall_us, char out[SM_AUDIT_TS_STRLEN]);

/**
 * sm_audit_parse_head() - the seq of a line of ours, from its fixed-format head alone: `{"ts":"` 27 bytes `","seq":`
 * digits `,"event":"`. Looks at no byte behind that, so it is safe on a line of any content. False when the line is not
 * one of ours.
 */
bool sm_audit_parse_head(const char *line, size_t len, uint64_t *ret_seq) SM_WARN_UNUSED;

/** sm_audit_name_valid() - a workspace's name: [A-Za-z0-9][A-Za-z0-9._-]{0,62}. */
bool sm_audit_name_valid(const char *name) SM_WARN_UNUSED;

#endif
