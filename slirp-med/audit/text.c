/* SPDX-License-Identifier: BSD-3-Clause */
/* Which characters may pass raw, and how the others are written; see text.h. */
#include "audit/text.h"

#include <string.h>

uint32_t sm_audit_utf8_next(const uint8_t *p, size_t len, size_t *ret_used)
{
    uint8_t b = p[0];
    uint32_t cp;
    size_t need;
    uint32_t least;

    *ret_used = 1;
    if (b < 0x80)
        return b;
    if (b >= 0xc2 && b <= 0xdf) {
        need = 1, cp = b & 0x1fu, least = 0x80;
    } else if ((b & 0xf0) == 0xe0) {
        need = 2, cp = b & 0x0fu, least = 0x800;
    } else if (b >= 0xf0 && b <= 0xf4) {
        need = 3, cp = b & 0x07u, least = 0x10000;
    } else {
        return SM_AUDIT_UTF8_BAD;
    }
    for (size_t i = 1; i <= need; i++) {
        if (i >= len || (p[i] & 0xc0) != 0x80)
            return SM_AUDIT_UTF8_BAD;
        cp = cp << 6 | (p[i] & 0x3fu);
    }
    if (cp < least || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return SM_AUDIT_UTF8_BAD;
    *ret_used = need + 1;
    return cp;
}

bool sm_audit_unsafe(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp <= 0x9f) || cp == 0x061c || (cp >= 0x200b && cp <= 0x200f) ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff ||
           (cp >= 0xfff9 && cp <= 0xfffb) || (cp >= 0xe0000 && cp <= 0xe007f);
}

static size_t put_u_escape(char *out, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";
    out[0] = '\\';
    out[1] = 'u';
    out[2] = hex[unit >> 12 & 15];
    out[3] = hex[unit >> 8 & 15];
    out[4] = hex[unit >> 4 & 15];
    out[5] = hex[unit & 15];
    return 6;
}

size_t sm_audit_escape_cp(uint32_t cp, const uint8_t *raw, size_t raw_len, char out[SM_AUDIT_ESCAPED_MAX])
{
    if (cp == SM_AUDIT_UTF8_BAD) {
        memcpy(out, "\xef\xbf\xbd", 3);
        return 3;
    }
    if (cp == '"' || cp == '\\') {
        out[0] = '\\';
        out[1] = (char)cp;
        return 2;
    }
    if (sm_audit_unsafe(cp)) {
        if (cp < 0x10000)
            return put_u_escape(out, cp);
        size_t n = put_u_escape(out, 0xd800 + ((cp - 0x10000) >> 10));
        return n + put_u_escape(out + n, 0xdc00 + ((cp - 0x10000) & 0x3ff));
    }
    memcpy(out, raw, raw_len);
    return raw_len;
}
