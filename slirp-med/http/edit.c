/* SPDX-License-Identifier: BSD-3-Clause */
/* Request heads, line by line: copied, dropped, or a Connection line with fewer members. See edit.h. */
#include "http/edit.h"

#include <string.h>

#include "http/field.h"

/* What belongs to an offer of h2c: lines of their own, and members of Connection. */
static const char *const h2c_names[] = {"Upgrade", "HTTP2-Settings"};

static bool is_h2c(const uint8_t *name, size_t len)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(h2c_names); i++)
        if (sm_http_same_nocase(name, len, h2c_names[i]))
            return true;
    return false;
}

bool sm_http_edit_any(const struct sm_http_edit *e)
{
    return e->drop_h2c;
}

/* Is a line of this name, or what Connection says of it, to go? */
static bool goes(const struct sm_http_edit *e, const uint8_t *name, size_t len)
{
    return e->drop_h2c && is_h2c(name, len);
}

/*
 * A Connection line with its CRLF, without the members that go; what stays keeps its bytes. Nothing when nothing is
 * left.
 */
static size_t edit_connection(const struct sm_http_edit *e, const uint8_t *line, size_t len, uint8_t *out)
{
    size_t name = sizeof("Connection:") - 1;
    const uint8_t *value = line + name, *member;
    size_t value_len = len - name - 2;
    size_t n = name, at = 0, member_len;
    bool first = true, something = false, removed = false;

    memcpy(out, line, name);
    for (size_t begin = 0; sm_http_list_next(value, value_len, &at, &member, &member_len); begin = at) {
        if (goes(e, member, member_len)) {
            removed = true;
            continue;
        }
        something |= member_len > 0;
        if (!first)
            out[n++] = ',';
        first = false;
        memcpy(out + n, value + begin, at - 1 - begin);
        n += at - 1 - begin;
    }
    if (!removed) {
        memcpy(out, line, len);
        return len;
    }
    if (!something)
        return 0;
    memcpy(out + n, "\r\n", 2);
    return n + 2;
}

size_t sm_http_edit_head(const struct sm_http_edit *e, const uint8_t *head, size_t len, uint8_t *out)
{
    size_t n = 0;
    bool first = true; /* the request line is no field */

    for (size_t at = 0; at < len; first = false) {
        const uint8_t *lf = memchr(head + at, '\n', len - at);
        size_t line = lf ? (size_t)(lf - head) + 1 - at : len - at;
        const uint8_t *colon = first ? NULL : memchr(head + at, ':', line);
        size_t name = colon ? (size_t)(colon - head) - at : 0;

        if (name > 0 && sm_http_same_nocase(head + at, name, "Connection")) {
            n += edit_connection(e, head + at, line, out + n);
        } else if (name == 0 || !goes(e, head + at, name)) {
            memcpy(out + n, head + at, line);
            n += line;
        }
        at += line;
    }
    return n;
}
