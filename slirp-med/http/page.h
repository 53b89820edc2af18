/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The page that explains a denial: one JSON object, the same words as the audit's.
 *
 *   {"error": "forbidden", "reason": "unlisted_name", "host": "example.com", "workspace": "run-1", "hint": "..."}
 *
 * Pure text: host is guest data and escaped (RFC 8259), bounded, never trusted to be UTF-8. error is a word for the status (403 forbidden,
 * 421 misdirected_request, 400 bad_request, 502 bad_gateway); hint says what to do about it.
 */
#ifndef SM_HTTP_PAGE_H
#define SM_HTTP_PAGE_H

#include "base/defs.h"
#include "http/bridge.h"

/** A page at its longest: 253 bytes of host, six bytes each when escaped, and our words. */
#define SM_HTTP_PAGE_MAX 4096
/** What sm_http_page_wrap() puts in front of a body. */
#define SM_HTTP_PAGE_HEAD_MAX 256

struct sm_http_page {
    uint16_t status;
    const char *reason;  /* the audit's word */
    struct sm_text host; /* absent: null */
    const char *workspace;
    const char *hint; /* NULL: the one that belongs to the reason, if there is one */
};

/** sm_http_page_body() - the JSON, with a newline at its end. Returns its length; never more than cap; 0 if it does not fit. */
size_t sm_http_page_body(const struct sm_http_page *page, char *out, size_t cap);
/** sm_http_page_response() - a whole HTTP/1.1 response: head with content-type, content-length and connection: close, and the body unless @head_only. */
size_t sm_http_page_response(const struct sm_http_page *page, bool head_only, char *out, size_t cap);
/**
 * sm_http_page_wrap() - the same around a body that is there already. @body NULL: none, and no content-type.
 * @keep: without connection: close. 0 if it does not fit.
 */
size_t sm_http_page_wrap(uint16_t status, const char *body, size_t body_len, bool head_only, bool keep, char *out,
                         size_t cap);
/** sm_http_status_text() - "Forbidden"; "" for a status that we never send. */
const char *sm_http_status_text(uint16_t status);
/** sm_http_page_hint() - for a reason: what its reader can do; NULL when we know nothing better than the reason. */
const char *sm_http_page_hint(const char *reason);

#endif
