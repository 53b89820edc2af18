/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An audit line as a person or a program reads it. Pure functions over text: whatever the file holds, what comes out
 * has no control byte but the newline at its end, is valid UTF-8, and in the JSON form is valid JSON. So no byte of a
 * guest's or a forger's making acts on a terminal.
 */
#ifndef SM_AUDIT_SHOW_H
#define SM_AUDIT_SHOW_H

#include <glib.h>

#include "audit/reader.h"

/** sm_audit_show_header() - the heading of the columns. */
void sm_audit_show_header(GString *out);
/**
 * sm_audit_show_columns() - TIME EVENT FLOW TARGET DETAIL and a newline. Target is host, address and port; detail is
 * every other field of the record as key=value in the record's order (false ones left out). Lines that are not records
 * are shown as such, escaped.
 */
void sm_audit_show_columns(GString *out, const struct sm_audit_line *line);
/** sm_audit_show_json() - the record as one line of JSON without a newline; a line that is not one as
 * {"invalid":KIND,"text":…}. */
void sm_audit_show_json(GString *out, const struct sm_audit_line *line);

#endif
