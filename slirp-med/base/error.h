/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Errors are GErrors of one domain. A message names the place (file:line, flag), the value and what to do; it never holds a secret.
 */
#ifndef SM_BASE_ERROR_H
#define SM_BASE_ERROR_H

#include <glib.h>

#include "base/defs.h"

enum sm_error_code {
    SM_ERROR_INVALID, /* input that does not parse or breaks a rule: the user's fault, exit status 2 */
    SM_ERROR_LIMIT,   /* input over a stated maximum */
    SM_ERROR_SYSTEM,  /* a system call failed: errno's text is in the message */
    SM_ERROR_MISSING, /* this machine lacks something that is needed; the message says how to get it */
    SM_ERROR_BUSY,    /* held by another process */
};

#define SM_ERROR (sm_error_quark())
GQuark sm_error_quark(void);

void sm_error_set(GError **error, enum sm_error_code code, const char *fmt, ...) SM_PRINTF(3, 4);
/** sm_error_set_errno() - SM_ERROR_SYSTEM with ": strerror(err)" behind the message. */
void sm_error_set_errno(GError **error, int err, const char *fmt, ...) SM_PRINTF(3, 4);

#endif
