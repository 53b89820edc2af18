/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * counters.json: how many bytes a workspace's flows have moved, over all its runs. The text only; who opens and writes
 * it stands in core/limits.c (while it runs) and launch/state.h (before).
 *
 * The file is one JSON array of two records, each a line of SM_COUNTERS_RECORD bytes, padded with spaces:
 *
 *   [{"seq":41,"bytes_up":1048576,"bytes_down":73400320,"check":"0f343b0931126a20"} ... ,
 *    {"seq":42,"bytes_up":1048576,"bytes_down":75497472,"check":"..."} ... ]
 *
 * They are written in turns, record seq % 2 each time, in place: a write that is torn leaves the other one, which is
 * one write older. check is the first half of the SHA-256 of what stands before it. A record is right only if it is
 * byte for byte what would be written for its numbers. One wrong record is what a crash can leave, and is passed over;
 * both wrong, or another length, is damage, and nobody guesses: the total must not begin anew because a file broke.
 * Bounded and pure.
 */
#ifndef SM_CORE_COUNTERS_H
#define SM_CORE_COUNTERS_H

#include <glib.h>

#include "core/caps.h"

#define SM_COUNTERS_RECORD 160
#define SM_COUNTERS_FILE ((size_t)2 * SM_COUNTERS_RECORD)

struct sm_counters {
    uint64_t seq; /* of the record; 0: nothing was written yet */
    uint64_t bytes[SM_CAPS_DIRS];
};

/**
 * sm_counters_encode() - the record with its place: it belongs at offset seq % 2 * SM_COUNTERS_RECORD. Numbers up to
 * INT64_MAX.
 */
void sm_counters_encode(const struct sm_counters *counters, char out[SM_COUNTERS_RECORD]);
/**
 * sm_counters_decode() - the newer right record of a whole file; an empty file is all zero. False with error (which
 * names no file): damaged.
 */
bool sm_counters_decode(const char *text, size_t len, struct sm_counters *ret, GError **error) SM_WARN_UNUSED;

#endif
