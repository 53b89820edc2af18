/* SPDX-License-Identifier: BSD-3-Clause */
/* Names on the wire: decompression that cannot loop, comparison, and text. */
#include <string.h>

#include "dns/message.h"

#define LABEL_MAX 63
/* A name cannot point into the header. */
#define FIRST_NAME 12

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

static bool equal_nocase(const uint8_t *a, const uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

/* Length bytes are below 64 and so are no letters: folding the whole wire form is folding the labels. */
bool sm_dns_name_equal(const struct sm_dns_name *a, const struct sm_dns_name *b)
{
    return a->len == b->len && equal_nocase(a->wire, b->wire, a->len);
}

bool sm_dns_name_within(const struct sm_dns_name *name, const struct sm_dns_name *zone)
{
    size_t at = 0;

    if (zone->len == 0 || zone->len > name->len)
        return false;
    while (name->len - at > zone->len)
        at += 1u + name->wire[at];
    return name->len - at == zone->len && equal_nocase(name->wire + at, zone->wire, zone->len);
}

bool sm_dns_name_read(struct sm_rd *r, struct sm_dns_name *ret)
{
    struct sm_rd at = *r;
    size_t start = r->pos; /* of the piece that is being read: a pointer must go before it, so every jump comes closer
                              to the header */
    bool jumped = false;

    ret->len = 0;
    for (;;) {
        uint8_t n = sm_rd_u8(&at);
        if (at.bad)
            break;
        if ((n & 0xc0) == 0xc0) {
            size_t target = (size_t)(n & 0x3f) << 8 | sm_rd_u8(&at);
            if (at.bad || target >= start || target < FIRST_NAME)
                break;
            if (!jumped)
                r->pos = at.pos;
            jumped = true;
            at.pos = start = target;
            continue;
        }
        /* The two other label types are long dead (RFC 6891 section 5), and a label may not make the name too long. */
        if (n > LABEL_MAX || ret->len + 1u + n + (n > 0) > SM_DNS_NAME_MAX)
            break;
        const uint8_t *label = sm_rd_take(&at, n);
        if (!label)
            break;
        ret->wire[ret->len] = n;
        memcpy(ret->wire + ret->len + 1, label, n);
        ret->len = (uint8_t)(ret->len + 1 + n);
        if (n == 0) {
            if (!jumped)
                r->pos = at.pos;
            return true;
        }
    }
    ret->len = 0;
    r->bad = true;
    return false;
}

const char *sm_dns_name_text(const struct sm_dns_name *name, char out[SM_DNS_NAME_TEXT_MAX])
{
    char *o = out;

    for (size_t at = 0; at < name->len && name->wire[at] != 0;) {
        uint8_t n = name->wire[at++];
        if (o > out)
            *o++ = '.';
        for (; n > 0; n--, at++) {
            uint8_t c = name->wire[at];
            if (c == '.' || c == '\\') {
                *o++ = '\\';
                *o++ = (char)c;
            } else if (c > 0x20 && c < 0x7f) {
                *o++ = (char)c;
            } else {
                *o++ = '\\';
                *o++ = (char)('0' + c / 100);
                *o++ = (char)('0' + c / 10 % 10);
                *o++ = (char)('0' + c % 10);
            }
        }
    }
    if (o == out && name->len > 0)
        *o++ = '.';
    *o = '\0';
    return out;
}

bool sm_dns_name_from_text(const char *text, struct sm_dns_name *ret)
{
    struct sm_dns_name name = {.len = 0};

    while (*text) {
        size_t n = strcspn(text, ".");
        if (n == 0 || n > LABEL_MAX || name.len + n + 2 > SM_DNS_NAME_MAX)
            return false;
        for (size_t i = 0; i < n; i++) {
            uint8_t c = lower((uint8_t)text[i]);
            if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
                return false;
        }
        name.wire[name.len] = (uint8_t)n;
        memcpy(name.wire + name.len + 1, text, n);
        name.len = (uint8_t)(name.len + 1 + n);
        text += n;
        if (*text == '.')
            text++;
    }
    if (name.len == 0)
        return false;
    name.wire[name.len++] = 0;
    *ret = name;
    return true;
}
