/* SPDX-License-Identifier: BSD-3-Clause */
/* Alt-Svc values and lines without HTTP/3. See altsvc.h. */
#include "http/altsvc.h"

#include <string.h>

#include "http/field.h"

/* protocol-id is a percent-encoded token: h3, H3-29, h%33. */
static bool is_h3(const uint8_t *p, size_t len)
{
    uint8_t id[8] = {0};
    size_t n = 0;

    while (len > 0 && (*p == ' ' || *p == '\t')) {
        p++;
        len--;
    }
    for (size_t i = 0; i < len && p[i] != '=' && n < sizeof(id); i++) {
        uint8_t c = p[i];
        if (c == '%' && len - i > 2 && sm_http_is(p[i + 1], SM_HTTP_HEX) && sm_http_is(p[i + 2], SM_HTTP_HEX)) {
            c = (uint8_t)(sm_http_hex(p[i + 1]) << 4 | sm_http_hex(p[i + 2]));
            i += 2;
        }
        id[n++] = c;
    }
    while (n > 0 && (id[n - 1] == ' ' || id[n - 1] == '\t'))
        n--;
    return sm_http_begins_nocase(id, n, "h3") && (n == 2 || id[2] == '-');
}

/* The end of the member that begins at `at`: a comma that is not quoted, or the end. */
static size_t member_end(const uint8_t *value, size_t len, size_t at)
{
    bool quoted = false;

    for (; at < len; at++) {
        if (quoted && value[at] == '\\' && at + 1 < len)
            at++;
        else if (value[at] == '"')
            quoted = !quoted;
        else if (value[at] == ',' && !quoted)
            break;
    }
    return at;
}

static bool is_blank(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != ' ' && p[i] != '\t')
            return false;
    return true;
}

size_t sm_http_alt_svc_value(const uint8_t *value, size_t len, uint8_t *out)
{
    size_t n = 0;
    bool first = true;
    bool something = false;
    bool removed = false;

    for (size_t at = 0; at <= len;) {
        size_t end = member_end(value, len, at);
        if (is_h3(value + at, end - at)) {
            removed = true;
        } else {
            something |= !is_blank(value + at, end - at);
            if (!first)
                out[n++] = ',';
            first = false;
            memmove(out + n, value + at, end - at);
            n += end - at;
        }
        at = end + 1;
    }
    return something || !removed ? n : 0;
}

size_t sm_http_alt_svc_strip(const uint8_t *head, size_t len, uint8_t *out)
{
    static const char name[] = "Alt-Svc:";
    size_t n = 0;

    for (size_t at = 0; at < len;) {
        const uint8_t *lf = memchr(head + at, '\n', len - at);
        size_t line = lf ? (size_t)(lf - head) + 1 - at : len - at;
        size_t skip = sizeof(name) - 1;
        if (line >= skip + 2 && sm_http_begins_nocase(head + at, line, name)) {
            size_t value = line - skip - 2; /* up to the CRLF */
            memcpy(out + n, head + at, skip);
            size_t kept = sm_http_alt_svc_value(head + at + skip, value, out + n + skip);
            if (kept > 0 || value == 0) {
                n += skip + kept;
                out[n++] = '\r';
                out[n++] = '\n';
            }
        } else {
            memcpy(out + n, head + at, line);
            n += line;
        }
        at += line;
    }
    return n;
}
