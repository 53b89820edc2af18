/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a message's body ends.
 *
 * Sans-I/O: the caller shows the bytes that come behind the head, and is told how many of them are judged and may go on. Framing lines (chunk
 * sizes, trailers, the CRLF behind a chunk) are judged whole: a line that has not come to its end is not used, and is shown again with more
 * behind it. Data is passed over in bulk, never byte by byte. Nothing is kept, nothing is changed.
 *
 * Strict (RFC 9112 7.1): a chunk size is 1 to 16 hexadecimal digits and below 2^63; what follows is CRLF, or an extension: optional white
 * space, ';' and text without control characters. Lines end in CRLF and nothing else. Trailers are read by the rules of header lines, and what
 * frames, routes or authorises is refused among them (field.h).
 */
#ifndef SM_HTTP_BODY_H
#define SM_HTTP_BODY_H

#include "base/defs.h"
#include "http/head.h"

/** A chunk's line with its CRLF: extensions are unknown in the wild but for signatures of some hundred bytes. */
#define SM_HTTP_CHUNK_LINE_MAX 4096
/** All trailers of a message: gRPC's status texts are the largest known. Their lines are bounded by the same. */
#define SM_HTTP_TRAILERS_MAX 16384

enum sm_http_body_kind {
    SM_HTTP_BODY_NONE,
    SM_HTTP_BODY_LENGTH,
    SM_HTTP_BODY_CHUNKED,
    SM_HTTP_BODY_CLOSE, /* until the connection ends; of responses only */
    SM_HTTP_BODY_KINDS
};

enum sm_http_body_status {
    SM_HTTP_BODY_MORE, /* all that can be judged is used */
    SM_HTTP_BODY_DONE, /* the message ended with the used bytes */
    SM_HTTP_BODY_BAD,  /* a rule is broken right behind the used bytes: `reject` */
    SM_HTTP_BODY_STATUS_COUNT
};

struct sm_http_body {
    enum sm_http_body_kind kind;
    enum sm_http_reject reject;
    uint64_t payload;       /* data so far, framing not counted */
    const char *no_trailer; /* NULL, or a name that no trailer may have; set after init, outlives this */

    /* Private. */
    uint8_t state;
    uint64_t left;     /* of the body, or of the chunk */
    uint32_t scanned;  /* bytes of the unfinished line that hold no LF */
    uint32_t trailers; /* bytes of them */
    uint16_t fields;
};

void sm_http_body_init(struct sm_http_body *b, enum sm_http_body_kind kind, uint64_t length);
/** sm_http_body_feed() - read on. After DONE and BAD it must not be called again. */
enum sm_http_body_status sm_http_body_feed(struct sm_http_body *b, const uint8_t *data, size_t len, size_t *ret_used);
/**
 * sm_http_body_piece() - the same, one piece at a time: *ret_data says whether the used bytes are data or framing,
 * which a call does not mix. MORE with something used: there may be more of use. With nothing used: all that can be
 * judged is used. A trailer line comes alone.
 */
enum sm_http_body_status sm_http_body_piece(struct sm_http_body *b, const uint8_t *data, size_t len, size_t *ret_used,
                                            bool *ret_data);
/** sm_http_body_trailers() - has the last chunk come? What follows is trailers. */
bool sm_http_body_trailers(const struct sm_http_body *b);
/** sm_http_body_has_trailers() - has there been a trailer line? */
bool sm_http_body_has_trailers(const struct sm_http_body *b);

const char *sm_http_body_kind_name(enum sm_http_body_kind kind);

#endif
