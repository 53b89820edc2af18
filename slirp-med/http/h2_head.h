/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Field blocks of HTTP/2: collected as HPACK gives them, judged as a whole, handed on as they came.
 *
 * A block is the request head, a response head, an interim response or the trailers of one stream. Fields keep their
 * order, their bytes and the "never indexed" mark of HPACK (RFC 7541 6.2.3). Memory is bounded by SM_H2_LIST_MAX and
 * SM_H2_FIELDS_MAX; what is over is not kept and the block says so.
 *
 * Pure: no session, no callback. nghttp2 has already refused much of this; it is judged again here because a request
 * is what we exist to judge, and because a library's idea of what may be ignored is not ours (reject, never repair).
 *
 * Sources: RFC 9113 8.1 to 8.3 (8.2.1 validity, 8.2.2 connection-specific fields, 8.3.1 request pseudo-header
 * fields), RFC 9110 5.5, 7.2. The authority follows the rules of head.h, by its very code.
 */
#ifndef SM_HTTP_H2_HEAD_H
#define SM_HTTP_H2_HEAD_H

#include <nghttp2/nghttp2.h>

#include "base/defs.h"
#include "http/bridge.h"
#include "http/h2.h"

/**
 * The text of one block. What HTTP/1 heads may have (SM_HTTP_HEAD_MAX), and what SETTINGS_MAX_HEADER_LIST_SIZE tells
 * the peers.
 */
#define SM_H2_LIST_MAX SM_HTTP_HEAD_MAX
/** Fields of one block, as in HTTP/1. */
#define SM_H2_FIELDS_MAX SM_HTTP_FIELDS_MAX
/**
 * A block that unpacks to more than this many times the bounds is an attack (one octet of HPACK can stand for 4 KiB):
 * decoding it on only to keep the table of the connection in step would cost more than the connection is worth.
 */
#define SM_H2_BOMB_FACTOR 4u

struct sm_h2_field {
    uint32_t name, name_len; /* offsets into the block's text */
    uint32_t value, value_len;
    bool never; /* must not be indexed on the next hop either */
};

struct sm_h2_block {
    char *text;
    size_t len, cap;
    struct sm_h2_field *fields;
    size_t n, fields_cap;
    size_t list_size;        /* RFC 9113 6.5.2: names, values and 32 each, of all fields that came */
    size_t count;            /* of all fields that came */
    enum sm_h2_broken fault; /* what is wrong with it whatever it is: too large, an invalid field; NONE: nothing */
};

void sm_h2_block_clear(struct sm_h2_block *b);
/** sm_h2_block_reset() - empty, for the next; the memory is kept. */
void sm_h2_block_reset(struct sm_h2_block *b);
/**
 * sm_h2_block_add() - one more field. False: it is a bomb, end the connection. What is over the bounds is noted in
 * b->fault.
 */
bool sm_h2_block_add(struct sm_h2_block *b, const uint8_t *name, size_t name_len, const uint8_t *value,
                     size_t value_len, bool never);
/** sm_h2_block_get() - the value of the first field of that name; absent: ptr NULL. */
struct sm_text sm_h2_block_get(const struct sm_h2_block *b, const char *name);
/** sm_h2_block_nv() - the fields for nghttp2 to send; pointers into the block. @nv: room for b->n. */
void sm_h2_block_nv(const struct sm_h2_block *b, nghttp2_nv *nv);
/** sm_h2_block_strip_alt_svc() - takes the offers of HTTP/3 out of a response head. */
void sm_h2_block_strip_alt_svc(struct sm_h2_block *b);
/** sm_h2_block_scrub() - overwrite matches in the values of a response's block. Returns how many. */
unsigned sm_h2_block_scrub(struct sm_h2_block *b, const struct sm_scrub *scrub);
/** sm_h2_block_coded() - does it have a content-encoding other than identity? */
bool sm_h2_block_coded(const struct sm_h2_block *b);

/**
 * sm_h2_head_request() - judge a request head. @tls: inside TLS, so the scheme is https, else http.
 * NONE: *ret is filled (req excepted), its texts are in the block.
 */
enum sm_h2_broken sm_h2_head_request(const struct sm_h2_block *b, bool tls, struct sm_bridge_request *ret);
/** sm_h2_head_response() - judge a response head. NONE: *ret_status is 100 to 999, not 101. */
enum sm_h2_broken sm_h2_head_response(const struct sm_h2_block *b, uint16_t *ret_status);
enum sm_h2_broken sm_h2_head_trailers(const struct sm_h2_block *b, enum sm_bridge_side from);

#endif
