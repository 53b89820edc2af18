/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An HTTP/1 request head as it leaves for the origin: the few lines that are changed, and all others byte for byte.
 *
 * An offer of HTTP/2 over cleartext (Upgrade: h2c) is taken out. A recipient may ignore an Upgrade (RFC 9110 7.8), and
 * all of it is hop-by-hop: the lines Upgrade and HTTP2-Settings, and their names in Connection (RFC 9110 7.6.1). What
 * offers h2c and something else besides never gets here (head.h refuses it), so that nothing is ever half removed, and
 * an origin that never saw the offer cannot take it up.
 *
 * Pure: bytes in, bytes out.
 */
#ifndef SM_HTTP_EDIT_H
#define SM_HTTP_EDIT_H

#include "base/defs.h"

struct sm_http_edit {
    bool drop_h2c; /* the Upgrade and HTTP2-Settings lines, and their names in Connection */
};

/** sm_http_edit_any() - is there anything to do? */
bool sm_http_edit_any(const struct sm_http_edit *e);

/**
 * sm_http_edit_head() - write the edited head. @head: valid and complete, with its final empty line. @out: room for
 * len bytes, not the head itself. Returns the new length.
 */
size_t sm_http_edit_head(const struct sm_http_edit *e, const uint8_t *head, size_t len, uint8_t *out);

#endif
