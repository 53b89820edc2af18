/* SPDX-License-Identifier: BSD-3-Clause */
/* One list entry: from what an operator wrote to a canonical value, or an error that says what to write instead. See
 * entry.h. */
#include "policy/entry.h"

#include <string.h>

#include "base/error.h"

static const char *const kind_names[] = {
    [SM_ENTRY_HOST] = "host",
    [SM_ENTRY_SUFFIX] = "suffix",
    [SM_ENTRY_ADDR] = "address",
    [SM_ENTRY_CIDR] = "range",
};
SM_NAME_TABLE_COVERS(kind_names, SM_ENTRY_KINDS);

static const struct sm_prefix mapped = {{SM_FAMILY_V6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96};

const char *sm_entry_kind_name(enum sm_entry_kind kind)
{
    return (unsigned)kind < SM_ENTRY_KINDS ? kind_names[kind] : "?";
}

static uint8_t full_len(const struct sm_addr *addr)
{
    return addr->family == SM_FAMILY_V4 ? 32 : 128;
}

/* Plain decimal digits, no sign, no leading zero, at most max. */
static bool parse_number(const char *text, unsigned max, unsigned *ret)
{
    size_t len = strlen(text);
    unsigned value = 0;
    if (len == 0 || len > 5 || (text[0] == '0' && len > 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value > max)
        return false;
    *ret = value;
    return true;
}

static bool parse_port(const char *text, const char *port, uint16_t *ret, GError **error)
{
    unsigned value = 0;
    if (!parse_number(port, UINT16_MAX, &value) || value == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "entry '%s': '%s' is not a port: write a number from 1 to 65535", text,
                     port);
        return false;
    }
    *ret = (uint16_t)value;
    return true;
}

static void mask_prefix(struct sm_prefix *p)
{
    for (unsigned i = 0; i < sizeof(p->addr.bytes); i++) {
        unsigned first = i * 8;
        if (first >= p->len)
            p->addr.bytes[i] = 0;
        else if (p->len - first < 8)
            p->addr.bytes[i] &= (uint8_t)(0xff << (8 - (p->len - first)));
    }
}

/* ADDR or ADDR/LEN, without a port. */
static bool parse_prefix(const char *text, const char *body, struct sm_entry *ret, GError **error)
{
    g_autofree char *addr = g_strdup(body);
    char *slash = strchr(addr, '/');
    struct sm_prefix p = {0}, masked;
    unsigned bits = 0;

    if (slash)
        *slash++ = '\0';
    if (!sm_addr_parse(addr, &p.addr)) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "entry '%s': '%s' is not an IP address: write four decimal parts, or IPv6 text (in brackets before "
            "a port)",
            text, addr);
        return false;
    }
    bits = full_len(&p.addr);
    if (slash && !parse_number(slash, full_len(&p.addr), &bits)) {
        sm_error_set(error, SM_ERROR_INVALID, "entry '%s': '%s' is not a prefix length: write a number from 0 to %d",
                     text, slash, full_len(&p.addr));
        return false;
    }
    p.len = (uint8_t)bits;
    if (p.len >= 96 && sm_prefix_contains(&mapped, &p.addr)) {
        sm_error_set(error, SM_ERROR_INVALID, "entry '%s': write the IPv4 address that it stands for", text);
        return false;
    }
    masked = p;
    mask_prefix(&masked);
    if (!sm_addr_equal(&masked.addr, &p.addr)) {
        char shown[SM_PREFIX_STRLEN];
        sm_error_set(error, SM_ERROR_INVALID,
                     "entry '%s': the address has bits outside its prefix: write %s, or the address alone", text,
                     sm_prefix_format(&masked, shown));
        return false;
    }
    ret->kind = p.len == full_len(&p.addr) ? SM_ENTRY_ADDR : SM_ENTRY_CIDR;
    ret->prefix = p;
    return true;
}

static bool parse_name(const char *text, const char *body, struct sm_entry *ret, GError **error)
{
    bool suffix = body[0] == '.';

    if (strncmp(body, "*.", 2) == 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "entry '%s': there are no wildcards: write '%s' for a name and all below it", text, body + 1);
        return false;
    }
    if (!sm_name_from_operator(suffix ? body + 1 : body, ret->name, error)) {
        g_prefix_error(error, "entry '%s': ", text);
        return false;
    }
    if (suffix && sm_name_is_public_suffix(ret->name)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "entry '%s': '%s' is a public suffix (anyone can get a name under it): write the domains that you "
                     "mean, as .name.%s",
                     text, ret->name, ret->name);
        return false;
    }
    ret->kind = suffix ? SM_ENTRY_SUFFIX : SM_ENTRY_HOST;
    return true;
}

/* An entry is quoted in errors; control characters and endless text must not reach a terminal that way. */
static bool presentable(const char *text, GError **error)
{
    if (text[0] == '\0') {
        sm_error_set(error, SM_ERROR_INVALID, "empty entry: write a host, .suffix, address or range, or remove it");
        return false;
    }
    if (strlen(text) > SM_ENTRY_TEXT_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "entry '%.40s...' is over %d bytes long", text, SM_ENTRY_TEXT_MAX);
        return false;
    }
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f) {
            g_autofree char *shown = g_strescape(text, NULL);
            sm_error_set(error, SM_ERROR_INVALID, "entry '%.200s' has white space or a control character in it", shown);
            return false;
        }
    }
    if (!g_utf8_validate(text, -1, NULL)) {
        g_autofree char *shown = g_strescape(text, NULL);
        sm_error_set(error, SM_ERROR_INVALID, "entry '%.200s' is not UTF-8", shown);
        return false;
    }
    return true;
}

bool sm_entry_parse(const char *text, struct sm_entry *ret, GError **error)
{
    struct sm_entry entry = {0};
    const char *port = NULL;
    g_autofree char *body = NULL;

    if (!presentable(text, error))
        return false;
    if (strstr(text, "://")) {
        sm_error_set(error, SM_ERROR_INVALID, "entry '%s' is a URL: write only its host, or host:port", text);
        return false;
    }
    body = g_strdup(text);
    if (body[0] == '[') {
        char *close = strchr(body, ']');
        if (!close || (close[1] != '\0' && close[1] != ':') || !strchr(body, ':') || strchr(body, ':') > close) {
            sm_error_set(error, SM_ERROR_INVALID, "entry '%s': brackets are for IPv6: write [address]:port", text);
            return false;
        }
        *close = '\0';
        if (close[1] == ':')
            port = close + 2;
        memmove(body, body + 1, strlen(body));
        if (port && !parse_port(text, port, &entry.port, error))
            return false;
        if (!parse_prefix(text, body, &entry, error))
            return false;
        *ret = entry;
        return true;
    }

    char *colon = strchr(body, ':');
    if (colon && strchr(colon + 1, ':')) { /* two colons and no bracket: IPv6 without a port */
        if (!parse_prefix(text, body, &entry, error))
            return false;
        *ret = entry;
        return true;
    }
    if (colon) {
        *colon = '\0';
        if (!parse_port(text, colon + 1, &entry.port, error))
            return false;
    }
    if (strchr(body, '/') || sm_name_kind(body, strlen(body)) == SM_NAME_IPV4) {
        if (!parse_prefix(text, body, &entry, error))
            return false;
    } else if (!parse_name(text, body, &entry, error)) {
        return false;
    }
    *ret = entry;
    return true;
}

const char *sm_entry_format(const struct sm_entry *entry, char out[SM_ENTRY_STRLEN])
{
    char text[SM_PREFIX_STRLEN];
    char port[8] = "";
    bool bracket = false;

    if (entry->port)
        g_snprintf(port, sizeof(port), ":%u", (unsigned)entry->port);
    switch (entry->kind) {
    case SM_ENTRY_HOST:
    case SM_ENTRY_SUFFIX:
        g_snprintf(out, SM_ENTRY_STRLEN, "%s%s%s", entry->kind == SM_ENTRY_SUFFIX ? "." : "", entry->name, port);
        return out;
    case SM_ENTRY_ADDR:
        (void)sm_addr_format(&entry->prefix.addr, text);
        break;
    case SM_ENTRY_CIDR:
        (void)sm_prefix_format(&entry->prefix, text);
        break;
    case SM_ENTRY_KINDS:
        out[0] = '\0';
        return out;
    }
    bracket = entry->port && entry->prefix.addr.family == SM_FAMILY_V6;
    g_snprintf(out, SM_ENTRY_STRLEN, "%s%s%s%s", bracket ? "[" : "", text, bracket ? "]" : "", port);
    return out;
}

static bool is_name_entry(const struct sm_entry *entry)
{
    return entry->kind == SM_ENTRY_HOST || entry->kind == SM_ENTRY_SUFFIX;
}

bool sm_entry_equal(const struct sm_entry *a, const struct sm_entry *b)
{
    if (a->kind != b->kind || a->port != b->port)
        return false;
    return is_name_entry(a) ? strcmp(a->name, b->name) == 0 : sm_prefix_equal(&a->prefix, &b->prefix);
}

static int sign(long difference)
{
    return (difference > 0) - (difference < 0);
}

int sm_entry_specificity_cmp(const struct sm_entry *a, const struct sm_entry *b)
{
    bool a_exact = a->kind == SM_ENTRY_HOST || a->kind == SM_ENTRY_ADDR;
    bool b_exact = b->kind == SM_ENTRY_HOST || b->kind == SM_ENTRY_ADDR;
    int by_size = 0;

    if (a_exact != b_exact)
        return a_exact ? 1 : -1;
    if (a->kind == SM_ENTRY_SUFFIX && b->kind == SM_ENTRY_SUFFIX)
        by_size = sign((long)strlen(a->name) - (long)strlen(b->name));
    if (a->kind == SM_ENTRY_CIDR && b->kind == SM_ENTRY_CIDR)
        by_size = sign((long)a->prefix.len - (long)b->prefix.len);
    if (by_size != 0)
        return by_size;
    return (a->port != 0) - (b->port != 0);
}
