/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The strict reader of an HTTP/1 response head.
 *
 * Sans-I/O, as head.h: the caller shows all bytes from the head's first one each time more has come; the answer does not depend on how they are
 * cut. Sources: RFC 9112 4 (status line), 5 (fields), 6.3 (framing).
 *
 * As strict as the request side, because the guest's parser is as unknown as the origin's: lines end in CRLF (a bare LF is refused, though some
 * old servers send it), no folded lines, no white space before a colon, no control characters, one Content-Length at most, `chunked` alone as
 * transfer coding, never both. Tolerated: a status line that ends after the three digits, for which there is no second reading.
 */
#ifndef SM_HTTP_RESPONSE_H
#define SM_HTTP_RESPONSE_H

#include "base/defs.h"
#include "http/body.h"
#include "http/head.h"

/** A head with its final empty line: what the widespread proxies take is 8 to 64 KiB. */
#define SM_HTTP_RESPONSE_HEAD_MAX 65536

struct sm_http_response {
    /* Result. */
    enum sm_http_status status; /* NEED_MORE, HTTP1, REJECT */
    enum sm_http_reject reject;
    size_t consumed;
    uint8_t minor;
    uint16_t code; /* 100 to 999 */
    struct sm_http_framing framing;
    bool upgrade; /* an Upgrade line with a protocol that may follow a 101 */
    bool alt_svc; /* has an Alt-Svc line */
    bool coded;   /* has a Content-Encoding other than identity */

    /* Private. */
    bool line_read;
    bool upgrade_bad;
    uint16_t fields;
    uint32_t scanned;
    uint32_t line;
};

void sm_http_response_init(struct sm_http_response *r);
enum sm_http_status sm_http_response_feed(struct sm_http_response *r, const uint8_t *data, size_t len);
/**
 * sm_http_response_body() - RFC 9112 6.3: how the body of this response is framed. @head: the request was HEAD. Not for 101.
 */
enum sm_http_body_kind sm_http_response_body(const struct sm_http_response *r, bool head);

#endif
