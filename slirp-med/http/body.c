/* SPDX-License-Identifier: BSD-3-Clause */
/* Body framing: a counter over data, and whole lines between. See body.h. */
#include "http/body.h"

#include <string.h>

#include "http/field.h"

enum body_state { STATE_DATA, STATE_SIZE, STATE_CHUNK, STATE_CHUNK_END, STATE_TRAILER };

static const char *const kind_names[] = {
    [SM_HTTP_BODY_NONE] = "none",
    [SM_HTTP_BODY_LENGTH] = "length",
    [SM_HTTP_BODY_CHUNKED] = "chunked",
    [SM_HTTP_BODY_CLOSE] = "close",
};
SM_NAME_TABLE_COVERS(kind_names, SM_HTTP_BODY_KINDS);

const char *sm_http_body_kind_name(enum sm_http_body_kind kind)
{
    return kind_names[kind];
}

void sm_http_body_init(struct sm_http_body *b, enum sm_http_body_kind kind, uint64_t length)
{
    *b = (struct sm_http_body){
        .kind = kind, .state = kind == SM_HTTP_BODY_CHUNKED ? STATE_SIZE : STATE_DATA, .left = length};
}

static enum sm_http_body_status bad(struct sm_http_body *b, enum sm_http_reject why)
{
    b->reject = why;
    return SM_HTTP_BODY_BAD;
}

/*
 * The line that begins at data, without its CRLF. MORE: not complete. DONE: *ret_len is set, and the line takes *ret_len + 2 bytes.
 */
static enum sm_http_body_status take_line(struct sm_http_body *b, const uint8_t *data, size_t len, size_t max,
                                          enum sm_http_reject too_long, size_t *ret_len)
{
    size_t look = SM_MIN(len, max);
    const uint8_t *lf = b->scanned < look ? memchr(data + b->scanned, '\n', look - b->scanned) : NULL;

    if (!lf) {
        b->scanned = (uint32_t)look;
        return look == max ? bad(b, too_long) : SM_HTTP_BODY_MORE;
    }
    b->scanned = 0;
    *ret_len = (size_t)(lf - data);
    if (*ret_len == 0 || lf[-1] != '\r')
        return bad(b, SM_HTTP_REJECT_BARE_LF);
    *ret_len -= 1;
    return SM_HTTP_BODY_DONE;
}

/* chunk-size [ chunk-ext ], RFC 9112 7.1.1 */
static enum sm_http_body_status take_size(struct sm_http_body *b, const uint8_t *line, size_t len)
{
    uint64_t size = 0;
    size_t at = 0;

    while (at < len && at < 16 && sm_http_is(line[at], SM_HTTP_HEX))
        size = size << 4 | sm_http_hex(line[at++]);
    if (at == 0 || size > INT64_MAX)
        return bad(b, SM_HTTP_REJECT_CHUNK);
    if (at < len) {
        while (at < len && (line[at] == ' ' || line[at] == '\t'))
            at++;
        if (at == len || line[at] != ';')
            return bad(b, SM_HTTP_REJECT_CHUNK);
        for (; at < len; at++)
            if (!sm_http_is(line[at], SM_HTTP_TEXT))
                return bad(b, line[at] == '\r' ? SM_HTTP_REJECT_BARE_CR : SM_HTTP_REJECT_CONTROL);
    }
    b->left = size;
    b->state = size > 0 ? STATE_CHUNK : STATE_TRAILER;
    return SM_HTTP_BODY_MORE;
}

static enum sm_http_body_status take_trailer(struct sm_http_body *b, const uint8_t *line, size_t len)
{
    struct sm_http_field field;

    if (len == 0)
        return SM_HTTP_BODY_DONE;
    enum sm_http_reject why = sm_http_field_read(line, len, &field);
    if (why == SM_HTTP_REJECT_NONE && ++b->fields > SM_HTTP_FIELDS_MAX)
        why = SM_HTTP_REJECT_TOO_MANY_FIELDS;
    if (why == SM_HTTP_REJECT_NONE &&
        (!sm_http_trailer_ok(&field) || (b->no_trailer && sm_http_field_is(&field, b->no_trailer))))
        why = SM_HTTP_REJECT_TRAILER;
    b->trailers += (uint32_t)len + 2;
    return why == SM_HTTP_REJECT_NONE ? SM_HTTP_BODY_MORE : bad(b, why);
}

/* One step of the chunked coding; data is not empty. *ret_n is what it used, 0 when a line is not complete. */
static enum sm_http_body_status chunked_step(struct sm_http_body *b, const uint8_t *data, size_t len, size_t *ret_n)
{
    enum sm_http_body_status status = SM_HTTP_BODY_BAD;
    size_t line;

    *ret_n = 0;
    switch ((enum body_state)b->state) {
    case STATE_SIZE:
        status = take_line(b, data, len, SM_HTTP_CHUNK_LINE_MAX, SM_HTTP_REJECT_CHUNK, &line);
        if (status == SM_HTTP_BODY_DONE) {
            status = take_size(b, data, line);
            *ret_n = line + 2;
        }
        break;
    case STATE_CHUNK:
        *ret_n = b->left < len ? (size_t)b->left : len;
        b->left -= *ret_n;
        b->payload += *ret_n;
        if (b->left == 0)
            b->state = STATE_CHUNK_END;
        return SM_HTTP_BODY_MORE;
    case STATE_CHUNK_END:
        if (data[0] != '\r' || (len > 1 && data[1] != '\n'))
            return bad(b, SM_HTTP_REJECT_CHUNK);
        if (len > 1) {
            b->state = STATE_SIZE;
            *ret_n = 2;
        }
        return SM_HTTP_BODY_MORE;
    case STATE_TRAILER:
        status = take_line(b, data, len, SM_HTTP_TRAILERS_MAX - b->trailers, SM_HTTP_REJECT_TOO_LARGE, &line);
        if (status == SM_HTTP_BODY_DONE) {
            status = take_trailer(b, data, line);
            *ret_n = line + 2;
        }
        break;
    case STATE_DATA: /* not of a chunked body */
        b->reject = SM_HTTP_REJECT_CHUNK;
        break;
    }
    if (status == SM_HTTP_BODY_BAD)
        *ret_n = 0; /* what breaks a rule does not go on */
    return status;
}

bool sm_http_body_trailers(const struct sm_http_body *b)
{
    return b->kind == SM_HTTP_BODY_CHUNKED && b->state == STATE_TRAILER;
}

bool sm_http_body_has_trailers(const struct sm_http_body *b)
{
    return b->fields > 0;
}

enum sm_http_body_status sm_http_body_piece(struct sm_http_body *b, const uint8_t *data, size_t len, size_t *ret_used,
                                            bool *ret_data)
{
    *ret_data = b->state == STATE_DATA || b->state == STATE_CHUNK;
    if (b->kind != SM_HTTP_BODY_CHUNKED)
        return sm_http_body_feed(b, data, len, ret_used);
    *ret_used = 0;
    return len > 0 ? chunked_step(b, data, len, ret_used) : SM_HTTP_BODY_MORE;
}

enum sm_http_body_status sm_http_body_feed(struct sm_http_body *b, const uint8_t *data, size_t len, size_t *ret_used)
{
    enum sm_http_body_status status = SM_HTTP_BODY_MORE;
    size_t n;

    *ret_used = 0;
    switch (b->kind) {
    case SM_HTTP_BODY_NONE:
    case SM_HTTP_BODY_KINDS:
        return SM_HTTP_BODY_DONE;
    case SM_HTTP_BODY_CLOSE:
        b->payload += len;
        *ret_used = len;
        return SM_HTTP_BODY_MORE;
    case SM_HTTP_BODY_LENGTH:
        n = b->left < len ? (size_t)b->left : len;
        b->left -= n;
        b->payload += n;
        *ret_used = n;
        return b->left == 0 ? SM_HTTP_BODY_DONE : SM_HTTP_BODY_MORE;
    case SM_HTTP_BODY_CHUNKED:
        break;
    }
    while (*ret_used < len && status == SM_HTTP_BODY_MORE) {
        status = chunked_step(b, data + *ret_used, len - *ret_used, &n);
        *ret_used += n;
        if (n == 0)
            break;
    }
    return status;
}
