/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From an audit to the smallest policy that would have allowed what it records: lines in, a policy file out.
 *
 * - A name that was reached is listed by its name. Names below one registrable domain (public suffix list) become a suffix entry when at least
 *   SM_SUGGEST_COLLAPSE different ones were. What was passthrough stays so, name by name: that nobody looks into a connection is never widened.
 *   Nor is a name whose address is inside: only the exact name opens that.
 * - An address is listed where no name is known for it. A port is written when neither 80 nor 443 was used (passthrough beside other ports: always).
 * - A name that was only looked up, and had an answer, is listed too: a strict workspace would refuse to resolve it.
 * - What was refused comes as comments, with the reason; so do warnings about destinations that took much data out. A destination inside is
 *   never written without a comment.
 *
 * The log is data that a guest had its hand in. Only canonical names, addresses and entries that policy/entry.h has parsed and printed are ever
 * written; anything else in a record drops that record and is counted. Memory is bounded by the maxima below. The same records give the same
 * text, whatever their order (but for what is passthrough: as the destination was last used). No I/O, no clock.
 */
#ifndef SM_LAUNCH_SUGGEST_H
#define SM_LAUNCH_SUGGEST_H

#include <jansson.h>

#include "audit/reader.h"

/** So many different names below one registrable domain become a suffix entry. */
#define SM_SUGGEST_COLLAPSE 3
/** Names of one domain that are told apart; the others are counted to the suffix entry that they will be part of. */
#define SM_SUGGEST_NAMES_MAX 32
/** Ports of one name or address that are told apart; one that was used on more is listed for every port. */
#define SM_SUGGEST_PORTS_MAX 16
/** Domains and addresses that are told apart (about 40 MB when each has its most names): more is no policy that somebody reads. */
#define SM_SUGGEST_DOMAINS_MAX 4096
#define SM_SUGGEST_ADDRS_MAX 4096
/** Names whose address is inside, and passthrough names, over all domains: these are never collapsed. */
#define SM_SUGGEST_EXACT_MAX 4096
/** Refused destinations that are told apart, and how many of them are written: the most frequent ones. */
#define SM_SUGGEST_DENIED_MAX 4096
#define SM_SUGGEST_DENIED_SHOWN 200
/** Refused names of one domain that are told apart: a guest that makes names up hides nothing else. */
#define SM_SUGGEST_DENIED_DOMAIN_MAX 16
/** Bad lines that are named; all are counted. */
#define SM_SUGGEST_BAD_MAX 10

/** A destination took much out when its connections carried this many bytes out, */
#define SM_SUGGEST_OUT_BYTES (UINT64_C(16) << 20)
/** or this many and at least as many as came in, or half of its requests or more were POST, PUT or PATCH. */
#define SM_SUGGEST_OUT_BYTES_UPLOAD (UINT64_C(1) << 20)
#define SM_SUGGEST_OUT_SHARE_PERCENT 50

struct sm_suggest;

struct sm_suggest *sm_suggest_new(void);
void sm_suggest_free(struct sm_suggest *s);
/** sm_suggest_freep() - for sm_cleanup(). */
static inline void sm_suggest_freep(struct sm_suggest **s)
{
    sm_suggest_free(*s);
}

/** sm_suggest_line() - take in the next line of the log, oldest first. */
void sm_suggest_line(struct sm_suggest *s, const struct sm_audit_line *line);

/** How much was looked at, and what is not in the suggestion. */
struct sm_suggest_counts {
    uint64_t lines, records;
    uint64_t bad;        /* lines that are no record */
    uint64_t dropped;    /* records whose names or addresses are none */
    uint64_t missing;    /* records that were rotated away before */
    uint64_t over;       /* uses of destinations over the maxima: the file does not allow these */
    uint64_t candidates; /* refusals over the maxima */
};
struct sm_suggest_counts sm_suggest_counts(const struct sm_suggest *s);

/** sm_suggest_bad() - bad line i of those that are named (NULL behind the last), as text for a person. */
const char *sm_suggest_bad(const struct sm_suggest *s, size_t i);

struct sm_suggestion;

/** sm_suggest_finish() - make the entries. The result is its own. */
struct sm_suggestion *sm_suggest_finish(const struct sm_suggest *s);
void sm_suggestion_free(struct sm_suggestion *g);
/** sm_suggestion_freep() - for sm_cleanup(). */
static inline void sm_suggestion_freep(struct sm_suggestion **g)
{
    sm_suggestion_free(*g);
}

/** sm_suggestion_yaml() - a file for --egress-policy; g_free(). NULL with error: it would be larger than such a file may be. */
char *sm_suggestion_yaml(const struct sm_suggestion *g, const char *workspace, GError **error);
/** sm_suggestion_json() - the same as data (docs/JSON.md); a new reference. */
json_t *sm_suggestion_json(const struct sm_suggestion *g, const char *workspace);
/** sm_suggestion_warning() - warning i (NULL behind the last): a destination that took much out, as text for a person. */
const char *sm_suggestion_warning(const struct sm_suggestion *g, size_t i);

#endif
