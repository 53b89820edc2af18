/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages to the operator on stderr, one line each: "slirp-med core: text". Not the audit log (audit/), and never guest bytes raw:
 * sm_log() escapes control characters in the finished line. Levels follow syslog's words.
 */
#ifndef SM_BASE_LOG_H
#define SM_BASE_LOG_H

#include "base/defs.h"

enum sm_log_level { SM_LOG_ERROR, SM_LOG_WARNING, SM_LOG_INFO, SM_LOG_DEBUG, SM_LOG_LEVELS };

/** sm_log_init() - role is a static string ("core"); SLIRP_MED_LOG=error|warning|info|debug sets the level (default warning). */
void sm_log_init(const char *role);
/** sm_log_set_level() - for tests and fuzz targets, which provoke warnings. */
void sm_log_set_level(enum sm_log_level level);
void sm_log(enum sm_log_level level, const char *fmt, ...) SM_PRINTF(2, 3);

#define sm_log_error(...) sm_log(SM_LOG_ERROR, __VA_ARGS__)
#define sm_log_warning(...) sm_log(SM_LOG_WARNING, __VA_ARGS__)
#define sm_log_info(...) sm_log(SM_LOG_INFO, __VA_ARGS__)
#define sm_log_debug(...) sm_log(SM_LOG_DEBUG, __VA_ARGS__)

#endif
