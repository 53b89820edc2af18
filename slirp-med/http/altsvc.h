/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Alt-Svc (RFC 7838) without HTTP/3: UDP 443 is refused, so a client that is told of h3 would only lose time.
 *
 * Alternatives whose protocol is h3 or h3-<draft> go, in any case and percent-encoding; what else stands in the value keeps its bytes. A value
 * that has nothing else goes whole. "clear" and what is not understood stay.
 */
#ifndef SM_HTTP_ALTSVC_H
#define SM_HTTP_ALTSVC_H

#include "base/defs.h"

/**
 * sm_http_alt_svc_value() - the value without h3. @out: room for len bytes, may be the value itself.
 * Returns the new length; len: nothing was removed; 0: nothing is left, and the line goes.
 */
size_t sm_http_alt_svc_value(const uint8_t *value, size_t len, uint8_t *out);

/**
 * sm_http_alt_svc_strip() - an HTTP/1 head without h3 in its Alt-Svc lines. @head: valid and complete, with its final empty line.
 * @out: room for len bytes, not the head itself. Returns the new length.
 */
size_t sm_http_alt_svc_strip(const uint8_t *head, size_t len, uint8_t *out);

#endif
