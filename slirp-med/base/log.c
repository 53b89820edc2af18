/* SPDX-License-Identifier: BSD-3-Clause */
/* One-line messages on stderr; see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Longest message: one line must stay one write(2), also on a pipe. */
#define LOG_LINE_MAX 1024

static const char *const level_names[] = {
    [SM_LOG_ERROR] = "error", [SM_LOG_WARNING] = "warning", [SM_LOG_INFO] = "info", [SM_LOG_DEBUG] = "debug"};
SM_NAME_TABLE_COVERS(level_names, SM_LOG_LEVELS);

static const char *log_role = "slirp-med";
static enum sm_log_level log_level = SM_LOG_WARNING;

void sm_log_init(const char *role)
{
    log_role = role;
    const char *want = getenv("SLIRP_MED_LOG");
    for (unsigned i = 0; want && i < SM_LOG_LEVELS; i++)
        if (strcmp(want, level_names[i]) == 0)
            log_level = (enum sm_log_level)i;
}

void sm_log_set_level(enum sm_log_level level)
{
    log_level = level;
}

void sm_log(enum sm_log_level level, const char *fmt, ...)
{
    char text[LOG_LINE_MAX], line[LOG_LINE_MAX * 4 + 128];
    va_list ap;

    if (level > log_level)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    int n = snprintf(line, 128, "slirp-med %s: %s%s", log_role, level_names[level], ": ");
    size_t len = n > 0 ? (size_t)n : 0;
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f)
            len += (size_t)snprintf(line + len, 5, "\\x%02x", c);
        else
            line[len++] = (char)c;
    }
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere to report it */
}
