/* SPDX-License-Identifier: BSD-3-Clause */
/* The tree's one GError domain; see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <string.h>

GQuark sm_error_quark(void)
{
    return g_quark_from_static_string("slirp-med");
}

void sm_error_set(GError **error, enum sm_error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error_literal(error, SM_ERROR, (gint)code, text);
}

void sm_error_set_errno(GError **error, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error(error, SM_ERROR, SM_ERROR_SYSTEM, "%s: %s", text, strerror(err));
}
