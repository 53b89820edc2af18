/* SPDX-License-Identifier: BSD-3-Clause */
/* Header lines: lexical rules, and the fields that frame a message. See field.h. */
#include "http/field.h"

#include <string.h>
#include <strings.h>

#define T SM_HTTP_TOKEN
#define X SM_HTTP_TEXT
/* clang-format off */
const uint8_t sm_http_char[256] = {
    ['\t'] = X, [' '] = X,
    ['!'] = T | X, ['"'] = X, ['#' ... '\''] = T | X, ['(' ... ')'] = X, ['*' ... '+'] = T | X, [','] = X, ['-' ... '.'] = T | X, ['/'] = X,
    ['0' ... '9'] = T | X | SM_HTTP_DIGIT | SM_HTTP_HEX,
    [':' ... '@'] = X,
    ['A' ... 'F'] = T | X | SM_HTTP_ALPHA | SM_HTTP_HEX, ['G' ... 'Z'] = T | X | SM_HTTP_ALPHA,
    ['[' ... ']'] = X, ['^' ... '`'] = T | X,
    ['a' ... 'f'] = T | X | SM_HTTP_ALPHA | SM_HTTP_HEX, ['g' ... 'z'] = T | X | SM_HTTP_ALPHA,
    ['{'] = X, ['|'] = T | X, ['}'] = X, ['~'] = T | X,
    [0x80 ... 0xff] = X,
};
/* clang-format on */
#undef T
#undef X

/* What must not come when the message has already been framed, routed and judged by its head. */
static const char *const not_in_trailers[] = {
    "Content-Length", "Transfer-Encoding",   "Host",   "Connection",    "Upgrade", "Trailer", "TE", "Expect",
    "Authorization",  "Proxy-Authorization", "Cookie", "HTTP2-Settings"};

/* What a request's edit must leave alone. */
static const char *const not_replaced[] = {"Host",       "Content-Length", "Transfer-Encoding",
                                           "Connection", "Keep-Alive",     "Proxy-Connection",
                                           "Upgrade",    "HTTP2-Settings", "TE",
                                           "Trailer",    "Expect",         "Accept-Encoding"};

/* What a response's scrub must leave alone. (Upgrade: of a 101.) */
static const char *const not_scrubbed[] = {"Content-Length", "Transfer-Encoding", "Connection", "Upgrade"};

bool sm_http_same(const uint8_t *p, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(p, text, len) == 0;
}

bool sm_http_same_nocase(const uint8_t *p, size_t len, const char *text)
{
    return strlen(text) == len && strncasecmp((const char *)p, text, len) == 0;
}

bool sm_http_begins_nocase(const uint8_t *p, size_t len, const char *text)
{
    size_t n = strlen(text);
    return len >= n && strncasecmp((const char *)p, text, n) == 0;
}

enum sm_http_reject sm_http_field_read(const uint8_t *line, size_t len, struct sm_http_field *ret)
{
    if (line[0] == ' ' || line[0] == '\t')
        return SM_HTTP_REJECT_FOLDED_LINE;
    for (size_t i = 0; i < len; i++)
        if (!sm_http_is(line[i], SM_HTTP_TEXT))
            return line[i] == '\r' ? SM_HTTP_REJECT_BARE_CR : SM_HTTP_REJECT_CONTROL;
    size_t name = 0;
    while (name < len && sm_http_is(line[name], SM_HTTP_TOKEN))
        name++;
    if (name == 0 || name == len || line[name] != ':') {
        bool space = name > 0 && name < len && (line[name] == ' ' || line[name] == '\t');
        return space ? SM_HTTP_REJECT_SPACE_BEFORE_COLON : SM_HTTP_REJECT_FIELD_NAME;
    }
    size_t value = name + 1;
    while (value < len && (line[value] == ' ' || line[value] == '\t'))
        value++;
    while (len > value && (line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    *ret = (struct sm_http_field){.name = line, .name_len = name, .value = line + value, .value_len = len - value};
    return SM_HTTP_REJECT_NONE;
}

bool sm_http_field_is(const struct sm_http_field *f, const char *name)
{
    return sm_http_same_nocase(f->name, f->name_len, name);
}

bool sm_http_list_next(const uint8_t *value, size_t len, size_t *at, const uint8_t **ret, size_t *ret_len)
{
    if (*at > len || len == 0)
        return false;
    size_t begin = *at;
    size_t end = begin;
    while (end < len && value[end] != ',')
        end++;
    *at = end + 1;
    while (begin < end && (value[begin] == ' ' || value[begin] == '\t'))
        begin++;
    while (end > begin && (value[end - 1] == ' ' || value[end - 1] == '\t'))
        end--;
    *ret = value + begin;
    *ret_len = end - begin;
    return true;
}

static enum sm_http_reject take_length(struct sm_http_framing *f, const uint8_t *value, size_t len)
{
    if (f->has_length || memchr(value, ',', len))
        return SM_HTTP_REJECT_LENGTH_REPEATED;
    /* 18 digits fit in 63 bits: no reader behind us can overflow where we did not. */
    if (len < 1 || len > 18)
        return SM_HTTP_REJECT_LENGTH_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (!sm_http_is(value[i], SM_HTTP_DIGIT))
            return SM_HTTP_REJECT_LENGTH_INVALID;
        f->content_length = f->content_length * 10 + (uint64_t)(value[i] - '0');
    }
    f->has_length = true;
    return SM_HTTP_REJECT_NONE;
}

/* The only coding that every reader ends in the same place is one `chunked` alone. */
static enum sm_http_reject take_coding(struct sm_http_framing *f, uint8_t minor, const uint8_t *value, size_t len)
{
    if (f->chunked || minor == 0 || !sm_http_same_nocase(value, len, "chunked"))
        return SM_HTTP_REJECT_CODING;
    f->chunked = true;
    return SM_HTTP_REJECT_NONE;
}

enum sm_http_reject sm_http_framing_field(struct sm_http_framing *f, uint8_t minor, const struct sm_http_field *field)
{
    const uint8_t *option;
    size_t at = 0, len;

    if (sm_http_field_is(field, "Content-Length"))
        return take_length(f, field->value, field->value_len);
    if (sm_http_field_is(field, "Transfer-Encoding"))
        return take_coding(f, minor, field->value, field->value_len);
    if (sm_http_field_is(field, "Connection")) {
        while (sm_http_list_next(field->value, field->value_len, &at, &option, &len)) {
            f->close |= sm_http_same_nocase(option, len, "close");
            f->keep_alive |= sm_http_same_nocase(option, len, "keep-alive");
        }
    }
    return SM_HTTP_REJECT_NONE;
}

bool sm_http_framing_persists(const struct sm_http_framing *f, uint8_t minor)
{
    return !f->close && (minor > 0 || f->keep_alive);
}

bool sm_http_upgrade_ok(const uint8_t *value, size_t len)
{
    const uint8_t *protocol;
    size_t at = 0, n;

    while (sm_http_list_next(value, len, &at, &protocol, &n))
        if (sm_http_begins_nocase(protocol, n, "h2") || sm_http_begins_nocase(protocol, n, "HTTP/") ||
            sm_http_begins_nocase(protocol, n, "tls"))
            return false;
    return true;
}

bool sm_http_upgrade_h2c(const uint8_t *value, size_t len)
{
    const uint8_t *protocol;
    size_t at = 0, n;

    while (sm_http_list_next(value, len, &at, &protocol, &n))
        if (!sm_http_same_nocase(protocol, n, "h2c"))
            return false;
    return len > 0;
}

bool sm_http_coded(const uint8_t *value, size_t len)
{
    const uint8_t *coding;
    size_t at = 0, n;

    while (sm_http_list_next(value, len, &at, &coding, &n))
        if (n > 0 && !sm_http_same_nocase(coding, n, "identity"))
            return true;
    return false;
}

static bool is_one_of(const uint8_t *name, size_t len, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (sm_http_same_nocase(name, len, names[i]))
            return true;
    return false;
}

bool sm_http_may_replace(const uint8_t *name, size_t len)
{
    if (len == 0 || is_one_of(name, len, not_replaced, SM_ARRAY_LEN(not_replaced)))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!sm_http_is(name[i], SM_HTTP_TOKEN))
            return false;
    return true;
}

bool sm_http_value_ok(const uint8_t *value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!sm_http_is(value[i], SM_HTTP_TEXT))
            return false;
    return len == 0 || !(value[0] == ' ' || value[0] == '\t' || value[len - 1] == ' ' || value[len - 1] == '\t');
}

bool sm_http_scrubs(const uint8_t *name, size_t len)
{
    return !is_one_of(name, len, not_scrubbed, SM_ARRAY_LEN(not_scrubbed));
}

bool sm_http_trailer_ok(const struct sm_http_field *field)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(not_in_trailers); i++)
        if (sm_http_field_is(field, not_in_trailers[i]))
            return false;
    return true;
}
