/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Untrusted text on its way into JSON or onto a terminal: a strict UTF-8 decoder and the one escape rule. Shared by
 * event.c (writing) and show.c (reading), so that both agree on what a control character is. RFC 3629 section 3 and 4;
 * RFC 8259 section 7.
 */
#ifndef SM_AUDIT_TEXT_H
#define SM_AUDIT_TEXT_H

#include "base/defs.h"

/** Returned for a byte that begins no valid sequence; one byte is then used. */
#define SM_AUDIT_UTF8_BAD UINT32_MAX

/** sm_audit_utf8_next() - the first character of p[0..len), len > 0. No overlong forms, surrogates, or values over
 * U+10FFFF. */
uint32_t sm_audit_utf8_next(const uint8_t *p, size_t len, size_t *ret_used);

/** sm_audit_unsafe() - characters that act instead of showing: C0, DEL, C1, zero-width and bidirectional controls,
 * separators, tags. */
bool sm_audit_unsafe(uint32_t cp);

/** Longest escape: a surrogate pair. */
#define SM_AUDIT_ESCAPED_MAX 12

/** sm_audit_escape_cp() - a character inside a JSON string: raw where safe, escaped otherwise, U+FFFD for
 * SM_AUDIT_UTF8_BAD. */
size_t sm_audit_escape_cp(uint32_t cp, const uint8_t *raw, size_t raw_len, char out[SM_AUDIT_ESCAPED_MAX]);

#endif
