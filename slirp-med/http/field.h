/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What request heads, response heads and trailers have in common: the lexical rules of a header line, and the fields that frame a message
 * and end a connection.
 *
 * Sources: RFC 9110 5.5, 5.6.2, 7.6.1; RFC 9112 5, 6, 9.3. Pure functions over bytes that the caller has bounded; nothing is kept.
 */
#ifndef SM_HTTP_FIELD_H
#define SM_HTTP_FIELD_H

#include "base/defs.h"
#include "http/head.h"

/** Classes of sm_http_char[]. */
#define SM_HTTP_TOKEN 1u /* RFC 9110 5.6.2 tchar */
#define SM_HTTP_TEXT 2u  /* may stand in a value or a reason phrase: HT, SP, VCHAR, obs-text */
#define SM_HTTP_DIGIT 4u
#define SM_HTTP_HEX 8u
#define SM_HTTP_ALPHA 16u
extern const uint8_t sm_http_char[256];

static inline bool sm_http_is(uint8_t c, unsigned classes)
{
    return (sm_http_char[c] & classes) != 0;
}

/** sm_http_hex() - the value of a character of class HEX. */
static inline unsigned sm_http_hex(uint8_t c)
{
    return sm_http_is(c, SM_HTTP_DIGIT) ? c - (unsigned)'0' : (c | 0x20u) - 'a' + 10;
}

/** Exactly this text; exactly this text in any case; begins with it in any case. */
bool sm_http_same(const uint8_t *p, size_t len, const char *text);
bool sm_http_same_nocase(const uint8_t *p, size_t len, const char *text);
bool sm_http_begins_nocase(const uint8_t *p, size_t len, const char *text);

/** One header line: pointers into it, the value without the white space around it. */
struct sm_http_field {
    const uint8_t *name;
    size_t name_len;
    const uint8_t *value;
    size_t value_len;
};

/** sm_http_field_read() - a line without its CRLF, len > 0. NONE: *ret is set. */
enum sm_http_reject sm_http_field_read(const uint8_t *line, size_t len, struct sm_http_field *ret);
bool sm_http_field_is(const struct sm_http_field *f, const char *name);

/**
 * sm_http_list_next() - the next member of a comma list, white space around it removed; quotes are not looked at.
 * @at: where to go on, 0 at first. False: no more.
 */
bool sm_http_list_next(const uint8_t *value, size_t len, size_t *at, const uint8_t **ret, size_t *ret_len);

/** sm_http_framing_field() - take note of a line. @minor: of the message's version. NONE for lines that are none of these. */
enum sm_http_reject sm_http_framing_field(struct sm_http_framing *f, uint8_t minor, const struct sm_http_field *field);
/** sm_http_framing_persists() - RFC 9112 9.3: would the connection outlive this message? */
bool sm_http_framing_persists(const struct sm_http_framing *f, uint8_t minor);
/** sm_http_upgrade_ok() - may this Upgrade value lead to another protocol? Not to HTTP of any kind and not to TLS: these would go on unjudged. */
bool sm_http_upgrade_ok(const uint8_t *value, size_t len);
/** sm_http_upgrade_h2c() - does this Upgrade value offer h2c, in any case, and nothing else? */
bool sm_http_upgrade_h2c(const uint8_t *value, size_t len);
/** sm_http_coded() - does this Content-Encoding value mean that the body is not what it says? */
bool sm_http_coded(const uint8_t *value, size_t len);
/**
 * sm_http_may_replace() - may a request's header of this name be replaced? A token, and not what frames, routes or
 * belongs to the hop.
 */
bool sm_http_may_replace(const uint8_t *name, size_t len);
/**
 * sm_http_value_ok() - is this a field value (RFC 9110 5.5)? No control character but HT, no white space at its ends.
 * May be empty.
 */
bool sm_http_value_ok(const uint8_t *value, size_t len);
/**
 * sm_http_scrubs() - may the value of a response's field of this name be overwritten? Not what frames or ends the
 * connection.
 */
bool sm_http_scrubs(const uint8_t *name, size_t len);
/** sm_http_trailer_ok() - may a field of this name come after the body? Not what frames, routes or authorises (RFC 9110 6.5.1). */
bool sm_http_trailer_ok(const struct sm_http_field *field);

#endif
