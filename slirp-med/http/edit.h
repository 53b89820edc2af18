/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is changed in passing: request heads on their way to the origin, the few lines that change and all others byte
 * for byte; and the values of response heads.
 *
 * Of a request:
 * - An offer of HTTP/2 over cleartext (Upgrade: h2c) is taken out. A recipient may ignore an Upgrade (RFC 9110 7.8),
 *   and all of it is hop-by-hop: the lines Upgrade and HTTP2-Settings, and their names in Connection (RFC 9110 7.6.1).
 *   What offers h2c and something else besides never gets here (head.h refuses it), so that nothing is ever half
 *   removed, and an origin that never saw the offer cannot take it up.
 * - One header is replaced, and Accept-Encoding may become identity (struct sm_bridge_edit in bridge.h). A line that
 *   stands where one stood keeps the spelling of that one's name. The names are taken out of Connection: a proxy behind
 *   us would remove what Connection names.
 * - With identity, what asks for a part of the answer goes too, so that the guest cannot choose where it is cut.
 * A Connection line that has lost all its members goes whole; one that loses none keeps its bytes.
 *
 * Sans-I/O: bytes in, bytes out.
 */
#ifndef SM_HTTP_EDIT_H
#define SM_HTTP_EDIT_H

#include <nghttp2/nghttp2.h>

#include "base/defs.h"
#include "http/bridge.h"

/** The word for an edit that cannot be made, for ops->page. */
#define SM_HTTP_EDIT_INVALID "edit_invalid"
/** Fields that an edit may add to a head. */
#define SM_HTTP_EDIT_FIELDS 2u

struct sm_http_edit {
    bool drop_h2c; /* the Upgrade and HTTP2-Settings lines, and their names in Connection */
    bool identity;
    char *name; /* in lower case; NULL: none */
    size_t name_len;
    uint8_t *value; /* NULL: none, or spent */
    size_t value_len;
};

/** sm_http_edit_valid() - can this be done to any request? */
bool sm_http_edit_valid(const struct sm_bridge_edit *from);
/** sm_http_edit_new() - a copy of the request's part of a valid one; NULL when it has none. */
struct sm_http_edit *sm_http_edit_new(const struct sm_bridge_edit *from);
/** sm_http_edit_spent() - the head has left: wipe the value. The name stays, for the trailers. */
void sm_http_edit_spent(struct sm_http_edit *e);
/** sm_http_edit_free() - NULL is allowed. */
void sm_http_edit_free(struct sm_http_edit *e);

/** sm_http_edit_any() - is there anything to do? */
bool sm_http_edit_any(const struct sm_http_edit *e);
/** sm_http_edit_room() - how long a head of this length may become. */
size_t sm_http_edit_room(const struct sm_http_edit *e, size_t len);
/**
 * sm_http_edit_head() - write the edited HTTP/1 head. @head: valid and complete, with its final empty line. @out: room
 * for sm_http_edit_room() bytes, not the head itself. Returns the new length.
 */
size_t sm_http_edit_head(const struct sm_http_edit *e, const uint8_t *head, size_t len, uint8_t *out);
/**
 * sm_http_edit_nv() - the same for an HTTP/2 head. @nv: n fields, with room for SM_HTTP_EDIT_FIELDS more; afterwards
 * some point into the edit. Returns the new number.
 */
size_t sm_http_edit_nv(const struct sm_http_edit *e, nghttp2_nv *nv, size_t n);

/** sm_http_scrub_line() - overwrite matches in the value of a field line without its CRLF. Returns how many. */
unsigned sm_http_scrub_line(const struct sm_scrub *scrub, uint8_t *line, size_t len);
/** sm_http_scrub_head() - in the reason phrase and the values of a response head, valid and complete. */
unsigned sm_http_scrub_head(const struct sm_scrub *scrub, uint8_t *head, size_t len);

#endif
