/* SPDX-License-Identifier: BSD-3-Clause */
/* One form of every host name, and no address in disguise among them: see names.h. */
#include "policy/names.h"

#include <idn2.h>
#include <libpsl.h>
#include <string.h>

#include "base/error.h"

static const char *const kind_names[] = {
    [SM_NAME_BAD] = "bad",
    [SM_NAME_HOST] = "host",
    [SM_NAME_IPV4] = "ipv4",
    [SM_NAME_IPV6] = "ipv6",
};
SM_NAME_TABLE_COVERS(kind_names, SM_NAME_KINDS);

const char *sm_name_kind_name(enum sm_name_kind kind)
{
    return (unsigned)kind < SM_NAME_KINDS ? kind_names[kind] : "?";
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* What a host name may consist of; locale-free on purpose. */
static bool is_name_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* WHATWG URL, "ends in a number": all digits, or 0x and any count of hex digits. */
static bool label_is_number(const char *label, size_t len)
{
    size_t i = 0;
    if (len >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X')) {
        for (i = 2; i < len && is_hex(label[i]); i++)
            ;
        return i == len;
    }
    for (i = 0; i < len && is_digit(label[i]); i++)
        ;
    return i == len;
}

/* The whole of len bytes as a strict address; a NUL among them is no part of one. */
static bool parse_addr(const char *text, size_t len, struct sm_addr *ret)
{
    char copy[SM_ADDR_STRLEN];
    if (len == 0 || len >= sizeof(copy) || memchr(text, '\0', len))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return sm_addr_parse(copy, ret);
}

static void set_addr(struct sm_host *ret, const struct sm_addr *addr)
{
    char text[SM_ADDR_STRLEN];
    ret->kind = addr->family == SM_FAMILY_V4 ? SM_NAME_IPV4 : SM_NAME_IPV6;
    ret->addr = *addr;
    g_strlcpy(ret->name, sm_addr_format(addr, text), sizeof(ret->name));
}

/* Checks length, labels and characters, and that the last label is no number. len is without the trailing dot. */
static bool is_host_name(const char *text, size_t len)
{
    size_t start = 0;
    if (len == 0 || len > SM_NAME_MAX)
        return false;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] != '.') {
            if (!is_name_char(text[i]))
                return false;
            continue;
        }
        if (i == start || i - start > SM_NAME_LABEL_MAX)
            return false;
        if (i == len && label_is_number(text + start, i - start))
            return false;
        start = i + 1;
    }
    return true;
}

enum sm_name_kind sm_name_classify(const char *text, size_t len, struct sm_host *ret)
{
    struct sm_addr addr;
    size_t name_len = len;

    memset(ret, 0, sizeof(*ret));
    if (len == 0)
        return ret->kind;
    if (parse_addr(text, len, &addr)) {
        set_addr(ret, &addr);
        return ret->kind;
    }
    if (text[len - 1] == '.')
        name_len--;
    if (!is_host_name(text, name_len))
        return ret->kind;
    for (size_t i = 0; i < name_len; i++)
        ret->name[i] = g_ascii_tolower(text[i]);
    ret->kind = SM_NAME_HOST;
    return ret->kind;
}

enum sm_name_kind sm_name_kind(const char *text, size_t len)
{
    struct sm_host host;
    return sm_name_classify(text, len, &host);
}

/* 1..65535 in plain digits without a leading zero. */
static bool parse_port(const char *text, size_t len, uint16_t *ret)
{
    unsigned port = 0;
    if (len == 0 || len > 5 || text[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    if (port > UINT16_MAX)
        return false;
    *ret = (uint16_t)port;
    return true;
}

enum sm_name_kind sm_host_parse(const char *text, size_t len, struct sm_host *ret)
{
    uint16_t port = 0;
    const char *rest = NULL;

    memset(ret, 0, sizeof(*ret));
    if (len == 0)
        return ret->kind;
    if (text[0] == '[') {
        struct sm_addr addr;
        const char *close = memchr(text, ']', len);
        if (!close || !parse_addr(text + 1, (size_t)(close - text - 1), &addr) || addr.family != SM_FAMILY_V6)
            return ret->kind;
        rest = close + 1;
        if (rest < text + len && (*rest != ':' || !parse_port(rest + 1, (size_t)(text + len - rest - 1), &port)))
            return ret->kind;
        set_addr(ret, &addr);
    } else {
        rest = memchr(text, ':', len);
        if (rest && !parse_port(rest + 1, (size_t)(text + len - rest - 1), &port))
            return ret->kind;
        (void)sm_name_classify(text, rest ? (size_t)(rest - text) : len, ret);
    }
    if (ret->kind != SM_NAME_BAD)
        ret->port = port;
    return ret->kind;
}

/* Says which rule a name breaks; called only for names that break one. */
static void explain(const char *shown, const char *ascii, GError **error)
{
    size_t len = strlen(ascii);
    const char *start = ascii;

    if (len > 0 && ascii[len - 1] == '.')
        len--;
    if (len == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "'%s' is empty: write a host name", shown);
        return;
    }
    if (len > SM_NAME_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "'%.60s...' is %zu bytes long: a host name has at most %d", shown, len,
                     SM_NAME_MAX);
        return;
    }
    for (const char *p = ascii; p <= ascii + len; p++) {
        if (p < ascii + len && *p != '.') {
            if (!is_name_char(*p)) {
                sm_error_set(error, SM_ERROR_INVALID,
                             "'%s' has byte 0x%02x in it: a host name has letters, digits, hyphens and underscores",
                             shown, (unsigned)(unsigned char)*p);
                return;
            }
            continue;
        }
        if (p == start) {
            sm_error_set(error, SM_ERROR_INVALID, "'%s' has an empty label: remove the extra dot", shown);
            return;
        }
        if (p - start > SM_NAME_LABEL_MAX) {
            sm_error_set(error, SM_ERROR_INVALID, "'%s' has a label of %td bytes: a label has at most %d", shown,
                         p - start, SM_NAME_LABEL_MAX);
            return;
        }
        start = p + 1;
    }
    sm_error_set(error, SM_ERROR_INVALID,
                 "'%s' ends in a number, so it would be read as an IPv4 address: write the four decimal parts", shown);
}

bool sm_name_from_operator(const char *text, char out[SM_NAME_STRLEN], GError **error)
{
    struct sm_host host;

    if (!g_utf8_validate(text, -1, NULL)) {
        g_autofree char *shown = g_strescape(text, NULL);
        sm_error_set(error, SM_ERROR_INVALID, "'%.200s' is not UTF-8", shown);
        return false;
    }
    if (g_str_is_ascii(text)) {
        if (sm_name_classify(text, strlen(text), &host) == SM_NAME_BAD) {
            explain(text, text, error);
            return false;
        }
    } else {
        char *ascii = NULL;
        int rc = idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
        if (rc != IDN2_OK) {
            sm_error_set(error, SM_ERROR_INVALID, "'%s' is not a valid internationalised host name: %s", text,
                         idn2_strerror(rc));
            return false;
        }
        (void)sm_name_classify(ascii, strlen(ascii), &host);
        if (host.kind == SM_NAME_BAD)
            explain(text, ascii, error);
        idn2_free(ascii);
        if (host.kind == SM_NAME_BAD)
            return false;
    }
    if (host.kind != SM_NAME_HOST) {
        sm_error_set(error, SM_ERROR_INVALID, "'%s' is the address %s, not a host name: write the address", text,
                     host.name);
        return false;
    }
    memcpy(out, host.name, SM_NAME_STRLEN);
    return true;
}

bool sm_name_under(const char *name, const char *apex)
{
    size_t n = strlen(name);
    size_t a = strlen(apex);
    if (a == 0 || n < a || memcmp(name + n - a, apex, a) != 0)
        return false;
    return n == a || name[n - a - 1] == '.';
}

bool sm_name_is_public_suffix(const char *name)
{
    const psl_ctx_t *psl = psl_builtin();
    char below[SM_NAME_STRLEN + 8];

    if (!psl)
        return true;
    if (psl_is_public_suffix2(psl, name, PSL_TYPE_ANY))
        return true;
    /* "*.compute.example" in the list: every name right below is a public suffix, so the suffix entry holds whole ones.
     */
    g_snprintf(below, sizeof(below), "sm-any.%s", name);
    return psl_is_public_suffix2(psl, below, PSL_TYPE_ANY | PSL_TYPE_NO_STAR_RULE);
}

const char *sm_name_registrable(const char *name)
{
    const psl_ctx_t *psl = psl_builtin();
    const char *domain = psl ? psl_registrable_domain(psl, name) : NULL;

    return domain && !sm_name_is_public_suffix(domain) ? domain : NULL;
}
