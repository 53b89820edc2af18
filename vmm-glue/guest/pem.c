/* SPDX-License-Identifier: BSD-3-Clause */
/* One certificate, strictly; a bundle, leniently; see pem.h. */
#include "guest/pem.h"

#include <string.h>

#include "base/rw.h"

#define NORMAL_LINE 64

const char *const sm_pem_fault_names[] = {
    [SM_PEM_NONE] = "good",
    [SM_PEM_UNFINISHED] = "it ends before its END CERTIFICATE line",
    [SM_PEM_TOO_LONG] = "it is longer than 64 KiB",
    [SM_PEM_CONTROL] = "it has characters in it that no certificate has",
    [SM_PEM_NO_BEGIN] = "it does not begin with a BEGIN CERTIFICATE line",
    [SM_PEM_BASE64] = "what it holds is not base64",
    [SM_PEM_TRAILING] = "something comes after its END CERTIFICATE line",
    [SM_PEM_DER] = "what it holds is not one DER SEQUENCE",
};
SM_NAME_TABLE_COVERS(sm_pem_fault_names, SM_PEM_FAULTS);

/** One line of a text, without its end. */
struct line {
    const char *p;
    size_t len;
    bool ended; /* false: the text stops here */
};

static bool next_line(const char **at, const char *end, struct line *ret)
{
    if (*at == end)
        return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    ret->ended = stop != NULL;
    ret->p = *at;
    ret->len = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    if (ret->len > 0 && ret->p[ret->len - 1] == '\r')
        ret->len--;
    return true;
}

static bool is(const struct line *l, const char *what)
{
    return l->len == strlen(what) && memcmp(l->p, what, l->len) == 0;
}

/** The text stops in the middle of what. */
static bool is_part(const struct line *l, const char *what)
{
    return !l->ended && l->len < strlen(what) && memcmp(l->p, what, l->len) == 0;
}

/** 0 to 63; 64: the padding; -1: no letter of base64. */
static int letter(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    switch (c) {
    case '+':
        return 62;
    case '/':
        return 63;
    case '=':
        return 64;
    }
    return -1;
}

/**
 * Base64 in pieces; strict (RFC 4648, section 3.5): nothing behind the padding, and the bits that it leaves over are
 * zero.
 */
struct decoder {
    struct sm_wr out;
    uint32_t bits;
    unsigned n, padding; /* letters of the group so far, and how many of them are padding */
    bool bad;
};

static void decode(struct decoder *d, const struct line *l)
{
    for (size_t i = 0; i < l->len; i++) {
        int v = letter(l->p[i]);
        bool padding = v == 64;
        if (v < 0 || (d->padding > 0 && (!padding || d->n == 0)) || (padding && d->n < 2)) {
            d->bad = true;
            return;
        }
        d->padding += padding;
        d->bits = d->bits << 6 | (padding ? 0 : (uint32_t)v);
        if (++d->n < 4)
            continue;
        for (unsigned k = 0; k < 3 - d->padding; k++)
            sm_wr_u8(&d->out, (uint8_t)(d->bits >> (16 - 8 * k)));
        if ((d->padding == 1 && (d->bits & 0xff)) || (d->padding == 2 && (d->bits & 0xffff)))
            d->bad = true;
        d->n = 0;
        d->bits = 0;
    }
}

static bool is_sequence(const uint8_t *der, size_t len)
{
    struct sm_rd r = sm_rd_init(der, len);
    uint8_t tag = sm_rd_u8(&r);
    size_t first = sm_rd_u8(&r), content = first;

    /* The shortest form is the only one in DER; SM_GUEST_DER_MAX fits into two bytes. */
    if (first == 0x81) {
        content = sm_rd_u8(&r);
        if (content < 0x80)
            return false;
    } else if (first == 0x82) {
        content = sm_rd_u16(&r);
        if (content < 0x100)
            return false;
    } else if (first >= 0x80) {
        return false;
    }
    return !r.bad && tag == 0x30 && content > 0 && content == sm_rd_left(&r);
}

static void write_normal(struct sm_guest_cert *c)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct sm_wr w = sm_wr_init(c->pem, sizeof(c->pem));
    size_t column = 0;

    sm_wr_bytes(&w, SM_GUEST_BEGIN "\n", strlen(SM_GUEST_BEGIN "\n"));
    for (size_t i = 0; i < c->der_len; i += 3) {
        size_t n = SM_MIN(c->der_len - i, (size_t)3);
        uint32_t bits = (uint32_t)c->der[i] << 16;
        if (n > 1)
            bits |= (uint32_t)c->der[i + 1] << 8;
        if (n > 2)
            bits |= c->der[i + 2];
        for (size_t k = 0; k < 4; k++)
            sm_wr_u8(&w, (uint8_t)(k <= n ? letters[bits >> (18 - 6 * k) & 63] : '='));
        column += 4;
        if (column == NORMAL_LINE || i + n == c->der_len) {
            sm_wr_u8(&w, '\n');
            column = 0;
        }
    }
    sm_wr_bytes(&w, SM_GUEST_END "\n", strlen(SM_GUEST_END "\n"));
    c->pem_len = w.bad ? 0 : w.len;
}

/** A letter, a space or a sign of ASCII; a line end; a carriage return in front of one. */
static bool characters_ok(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool return_ok = c == '\r' && (i + 1 == len || text[i + 1] == '\n');
        if (c != '\n' && !return_ok && (c < 0x20 || c > 0x7e))
            return false;
    }
    return true;
}

/** What the lines say. *ret_der_len is set with SM_PEM_NONE. */
static enum sm_pem_fault read_lines(const char *text, size_t len, uint8_t *der, size_t *ret_der_len)
{
    enum { BEFORE, BODY, AFTER } place = BEFORE;
    struct decoder d = {.out = sm_wr_init(der, SM_GUEST_DER_MAX)};
    const char *at = text;
    struct line l;

    while (next_line(&at, text + len, &l)) {
        switch (place) {
        case BEFORE:
            if (is(&l, SM_GUEST_BEGIN))
                place = BODY;
            else if (l.len > 0 && !is_part(&l, SM_GUEST_BEGIN))
                return SM_PEM_NO_BEGIN;
            break;
        case BODY:
            if (is(&l, SM_GUEST_END)) {
                place = AFTER;
            } else if (l.len == 0 || !is_part(&l, SM_GUEST_END)) {
                if (l.len > SM_GUEST_LINE_MAX || (l.len == 0 && l.ended))
                    return SM_PEM_BASE64;
                decode(&d, &l);
                if (d.bad)
                    return SM_PEM_BASE64;
            }
            break;
        case AFTER:
            if (l.len > 0)
                return SM_PEM_TRAILING;
            break;
        }
    }
    if (place != AFTER)
        return SM_PEM_UNFINISHED;
    if (d.n != 0 || d.out.bad)
        return SM_PEM_BASE64;
    *ret_der_len = d.out.len;
    return SM_PEM_NONE;
}

enum sm_pem_fault sm_guest_pem_check(const char *text, size_t len, struct sm_guest_cert *ret)
{
    /*
     * Only a whole answer may change *ret, and the stack of an early process is no place for 48 KiB: one process, one
     * thread.
     */
    static uint8_t der[SM_GUEST_DER_MAX];
    size_t der_len = 0;

    if (len > SM_GUEST_PEM_MAX)
        return SM_PEM_TOO_LONG;
    if (!characters_ok(text, len))
        return SM_PEM_CONTROL;
    enum sm_pem_fault fault = read_lines(text, len, der, &der_len);
    if (fault != SM_PEM_NONE)
        return fault;
    if (!is_sequence(der, der_len))
        return SM_PEM_DER;
    memcpy(ret->der, der, der_len);
    ret->der_len = der_len;
    write_normal(ret);
    return SM_PEM_NONE;
}

/* ---- a bundle ---- */

/*
 * "slirp-med CA" behind its length, as it looks in base64 when it begins at the first, second or third byte of a
 * group.
 */
static const char *const name_in_base64[] = {"DHNsaXJwLW1lZCBDQ", "xzbGlycC1tZWQgQ0", "Mc2xpcnAtbWVkIENB"};

/** Is it the certificate of a workspace? body: the letters of a block, in lines. */
static bool has_name(const char *body, size_t len)
{
    char window[64]; /* the end of what was seen, without line ends: longer than any of the names */
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (body[i] == '\n')
            continue;
        if (n == sizeof(window)) {
            memmove(window, window + sizeof(window) / 2, sizeof(window) / 2);
            n = sizeof(window) / 2;
        }
        window[n++] = body[i];
        for (size_t k = 0; k < SM_ARRAY_LEN(name_in_base64); k++) {
            size_t name = strlen(name_in_base64[k]);
            if (n >= name && memcmp(window + n - name, name_in_base64[k], name) == 0)
                return true;
        }
    }
    return false;
}

/** The letters of a block are those of c: both without line ends. */
static bool same(const char *text, size_t len, const struct sm_guest_cert *c)
{
    const char *a = text, *b = c->pem + strlen(SM_GUEST_BEGIN "\n");
    const char *a_end = text + len, *b_end = c->pem + c->pem_len - strlen(SM_GUEST_END "\n");

    for (;;) {
        while (a < a_end && *a == '\n')
            a++;
        while (b < b_end && *b == '\n')
            b++;
        if (a == a_end || b == b_end)
            return a == a_end && b == b_end;
        if (*a++ != *b++)
            return false;
    }
}

static bool is_base64(const struct line *l)
{
    for (size_t i = 0; i < l->len; i++)
        if (letter(l->p[i]) < 0)
            return false;
    return true;
}

size_t sm_guest_bundle_filter(const char *text, size_t len, const struct sm_guest_cert *cert, char *out,
                              size_t *ret_count, bool *ret_has)
{
    struct sm_wr w = sm_wr_init(out, len + 1); /* the last line may lack its end */
    const char *at = text;
    size_t start = 0;
    bool inside = false;
    struct line l;

    *ret_count = 0;
    *ret_has = false;
    while (next_line(&at, text + len, &l)) {
        if (is(&l, SM_GUEST_BEGIN)) {
            if (inside) /* the block before it never ended */
                w.len = start;
            start = w.len;
            inside = true;
        } else if (inside && !is(&l, SM_GUEST_END) && !is_base64(&l)) {
            w.len = start;
            inside = false;
        }
        if (!inside)
            continue;
        sm_wr_bytes(&w, l.p, l.len);
        sm_wr_u8(&w, '\n');
        if (!is(&l, SM_GUEST_END))
            continue;
        const char *body = out + start + strlen(SM_GUEST_BEGIN "\n");
        size_t body_len = w.len - start - strlen(SM_GUEST_BEGIN "\n" SM_GUEST_END "\n");
        bool ours = same(body, body_len, cert);
        *ret_has |= ours;
        if (ours || has_name(body, body_len))
            w.len = start;
        else
            (*ret_count)++;
        inside = false;
    }
    return inside ? start : w.len;
}
