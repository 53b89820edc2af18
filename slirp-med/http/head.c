/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The strict reader of a first HTTP/1 request head.
 *
 * One idea: the head is judged line by line, each line once and only when its LF is there, so that the answer cannot
 * depend on how the bytes were cut. Only the request line is looked at byte by byte, because "this is not HTTP" has to
 * be said before a line end that may never come.
 */
#include "http/head.h"

#include <string.h>
#include <strings.h>

#include "base/addr.h"
#include "http/field.h"

enum { STATE_METHOD, STATE_REQUEST_LINE, STATE_FIELDS };

/** White space before the first word that is looked through: more of it no server skips, and it may be anything. */
#define LEAD_MAX 64

static const char preface_text[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_LEN (sizeof(preface_text) - 1)
/* From here on only an HTTP/2 client can be speaking. */
#define PREFACE_LINE_LEN (sizeof("PRI * HTTP/2.0\r\n") - 1)

static const char *const status_names[] = {
    [SM_HTTP_NEED_MORE] = "need_more", [SM_HTTP_NOT_HTTP] = "not_http", [SM_HTTP_HTTP1] = "http1",
    [SM_HTTP_HTTP2] = "http2",         [SM_HTTP_REJECT] = "reject",
};
SM_NAME_TABLE_COVERS(status_names, SM_HTTP_STATUS_COUNT);

static const char *const reject_names[] = {
    [SM_HTTP_REJECT_NONE] = "http_none",
    [SM_HTTP_REJECT_LEADING_CRLF] = "http_leading_crlf",
    [SM_HTTP_REJECT_REQUEST_LINE] = "http_request_line",
    [SM_HTTP_REJECT_VERSION] = "http_version",
    [SM_HTTP_REJECT_PREFACE] = "http_preface",
    [SM_HTTP_REJECT_BARE_LF] = "http_bare_lf",
    [SM_HTTP_REJECT_BARE_CR] = "http_bare_cr",
    [SM_HTTP_REJECT_CONTROL] = "http_control_character",
    [SM_HTTP_REJECT_FIELD_NAME] = "http_field_name",
    [SM_HTTP_REJECT_SPACE_BEFORE_COLON] = "http_space_before_colon",
    [SM_HTTP_REJECT_FOLDED_LINE] = "http_folded_line",
    [SM_HTTP_REJECT_TOO_LARGE] = "http_head_too_large",
    [SM_HTTP_REJECT_TOO_MANY_FIELDS] = "http_too_many_fields",
    [SM_HTTP_REJECT_CONNECT] = "http_connect",
    [SM_HTTP_REJECT_TARGET] = "http_target",
    [SM_HTTP_REJECT_HOST_MISSING] = "http_host_missing",
    [SM_HTTP_REJECT_HOST_REPEATED] = "http_host_repeated",
    [SM_HTTP_REJECT_HOST_INVALID] = "http_host_invalid",
    [SM_HTTP_REJECT_HOST_MISMATCH] = "http_host_mismatch",
    [SM_HTTP_REJECT_LENGTH_REPEATED] = "http_content_length_repeated",
    [SM_HTTP_REJECT_LENGTH_INVALID] = "http_content_length_invalid",
    [SM_HTTP_REJECT_LENGTH_AND_CODING] = "http_content_length_and_transfer_encoding",
    [SM_HTTP_REJECT_CODING] = "http_transfer_encoding",
    [SM_HTTP_REJECT_CONNECTION] = "http_connection",
    [SM_HTTP_REJECT_UPGRADE] = "http_upgrade",
    [SM_HTTP_REJECT_STATUS_LINE] = "http_status_line",
    [SM_HTTP_REJECT_CHUNK] = "http_chunk",
    [SM_HTTP_REJECT_TRAILER] = "http_trailer",
};
SM_NAME_TABLE_COVERS(reject_names, SM_HTTP_REJECT_COUNT);

const char *sm_http_status_name(enum sm_http_status status)
{
    return status_names[status];
}

const char *sm_http_reject_name(enum sm_http_reject reject)
{
    return reject_names[reject];
}

/* Methods that a server is likely to act on. For these a sloppy line is an attempt at HTTP, for other words it may be
 * any line protocol. */
static const char *const known_methods[] = {"GET",     "HEAD",  "POST",  "PUT",      "DELETE",    "CONNECT",
                                            "OPTIONS", "TRACE", "PATCH", "PROPFIND", "PROPPATCH", "MKCOL",
                                            "COPY",    "MOVE",  "LOCK",  "UNLOCK",   "REPORT",    "SEARCH"};

static bool is_control(uint8_t c)
{
    return c < 0x20 || c == 0x7f;
}

/*
 * What some server takes for white space between the words of a request line: RFC 9112 3 allows SP, HTAB, VT, FF and
 * bare CR, and what splits text by Unicode's rules (Python's str.split()) takes these too.
 */
static bool is_gap(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' || (c >= 0x1c && c <= 0x1f) || c == 0x85 ||
           c == 0xa0;
}

/* Is it the beginning of one? */
static bool begins_known_method(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(known_methods); i++)
        if (len <= strlen(known_methods[i]) && memcmp(p, known_methods[i], len) == 0)
            return true;
    return false;
}

static bool is_known_method(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(known_methods); i++)
        if (sm_http_same(p, len, known_methods[i]))
            return true;
    return false;
}

static struct sm_http_span span(size_t off, size_t len)
{
    return (struct sm_http_span){.off = (uint32_t)off, .len = (uint32_t)len};
}

static void settle(struct sm_http_head *h, enum sm_http_status status)
{
    h->status = status;
}

static void refuse(struct sm_http_head *h, enum sm_http_reject reject)
{
    h->status = SM_HTTP_REJECT;
    h->reject = reject;
}

/* What a URL parser would take for a number, "0x7f.1" and "2130706433" included: then it has to be a dotted quad or it
 * is nothing. */
static bool ends_in_number(const uint8_t *p, size_t len)
{
    size_t begin = len;

    while (begin > 0 && p[begin - 1] != '.')
        begin--;
    p += begin;
    len -= begin;
    bool hex = len >= 2 && p[0] == '0' && (p[1] | 0x20) == 'x';
    for (size_t i = hex ? 2 : 0; i < len; i++)
        if (hex ? !sm_http_is(p[i], SM_HTTP_HEX) : !sm_http_is(p[i], SM_HTTP_DIGIT))
            return false;
    return len > 0;
}

static bool parse_port(const uint8_t *p, size_t len, uint16_t *ret)
{
    uint32_t port = 0;

    if (len < 1 || len > 5 || p[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!sm_http_is(p[i], SM_HTTP_DIGIT))
            return false;
        port = port * 10 + (uint32_t)(p[i] - '0');
    }
    if (port > 65535)
        return false;
    *ret = (uint16_t)port;
    return true;
}

/* host[:port] in data[off, off + len). RFC 3986 allows much more in a reg-name; nobody resolves it, so it is refused.
 */
static bool parse_authority(const uint8_t *data, size_t off, size_t len, enum sm_http_host_kind *ret_kind,
                            struct sm_http_span *ret_host, uint16_t *ret_port)
{
    const uint8_t *p = data + off;
    const uint8_t *after;
    size_t host_off = off;
    size_t host_len;
    enum sm_http_host_kind kind;

    *ret_port = 0;
    if (len == 0)
        return false;
    if (p[0] == '[') {
        const uint8_t *close = memchr(p, ']', len);
        if (!close)
            return false;
        host_off = off + 1;
        host_len = (size_t)(close - p) - 1;
        /* The longest text of an address, and at least "::". */
        if (host_len < 2 || host_len >= SM_ADDR_STRLEN || !memchr(p + 1, ':', host_len))
            return false;
        for (size_t i = 1; i <= host_len; i++)
            if (!sm_http_is(p[i], SM_HTTP_HEX) && p[i] != ':' && p[i] != '.')
                return false;
        kind = SM_HTTP_HOST_V6;
        after = close + 1;
    } else {
        const uint8_t *colon = memchr(p, ':', len);
        host_len = colon ? (size_t)(colon - p) : len;
        if (host_len == 0 || host_len > 254 || p[0] == '.')
            return false;
        for (size_t i = 0; i < host_len; i++) {
            if (!sm_http_is(p[i], SM_HTTP_ALPHA) && !sm_http_is(p[i], SM_HTTP_DIGIT) && p[i] != '-' && p[i] != '_' &&
                p[i] != '.')
                return false;
            if (p[i] == '.' && i > 0 && p[i - 1] == '.')
                return false;
        }
        kind = SM_HTTP_HOST_NAME;
        size_t bare = p[host_len - 1] == '.' ? host_len - 1 : host_len;
        if (ends_in_number(p, bare)) {
            char text[SM_ADDR_STRLEN];
            struct sm_addr addr;
            if (host_len >= sizeof(text))
                return false;
            memcpy(text, p, host_len);
            text[host_len] = '\0';
            if (!sm_addr_parse(text, &addr) || addr.family != SM_FAMILY_V4)
                return false;
            kind = SM_HTTP_HOST_V4;
        }
        after = p + host_len;
    }
    if (after < p + len) {
        if (*after != ':' || !parse_port(after + 1, (size_t)(p + len - after) - 1, ret_port))
            return false;
    }
    *ret_kind = kind;
    *ret_host = span(host_off, host_len);
    return true;
}

/* RFC 9112 3.2: the form of the target, and the authority inside it. */
static void judge_target(struct sm_http_head *h, const uint8_t *data)
{
    const uint8_t *t = data + h->target.off;
    size_t len = h->target.len;
    size_t path = 0;

    if (sm_http_same(data, h->method.len, "CONNECT")) {
        refuse(h, SM_HTTP_REJECT_CONNECT);
        return;
    }
    if (memchr(t, '#', len)) {
        refuse(h, SM_HTTP_REJECT_TARGET);
        return;
    }
    if (sm_http_same(t, len, "*") && sm_http_same(data, h->method.len, "OPTIONS")) {
        h->form = SM_HTTP_TARGET_ASTERISK;
        h->path = span(h->target.off, 0);
        return;
    }
    if (t[0] == '/') {
        h->form = SM_HTTP_TARGET_ORIGIN;
    } else {
        h->abs_https = sm_http_begins_nocase(t, len, "https://");
        if (!h->abs_https && !sm_http_begins_nocase(t, len, "http://")) {
            refuse(h, SM_HTTP_REJECT_TARGET);
            return;
        }
        h->form = SM_HTTP_TARGET_ABSOLUTE;
        size_t authority = strlen(h->abs_https ? "https://" : "http://");
        for (path = authority; path < len && t[path] != '/' && t[path] != '?'; path++)
            ;
        if (!parse_authority(data, h->target.off + authority, path - authority, &h->abs_kind, &h->abs_host,
                             &h->abs_port)) {
            refuse(h, SM_HTTP_REJECT_TARGET);
            return;
        }
    }
    const uint8_t *query = memchr(t + path, '?', len - path);
    h->path = span(h->target.off + path, query ? (size_t)(query - t) - path : len - path);
}

/* Would a lenient server find a version in this line? */
static bool mentions_http(const uint8_t *line, size_t len)
{
    for (size_t i = 1; i < len; i++)
        if ((is_gap(line[i - 1]) || is_control(line[i - 1])) && sm_http_begins_nocase(line + i, len - i, "HTTP/"))
            return true;
    return false;
}

/* HTTP/0.9, which many servers still answer, some of them after reading header lines: a path, and no version. */
static bool is_simple_request(const struct sm_http_head *h, const uint8_t *line, size_t len)
{
    size_t at = h->lead;

    if (!sm_http_begins_nocase(line + at, len - at, "GET"))
        return false;
    for (at += strlen("GET"); at < len && is_gap(line[at]); at++)
        ;
    return at < len && (line[at] == '/' || sm_http_begins_nocase(line + at, len - at, "http://") ||
                        sm_http_begins_nocase(line + at, len - at, "https://"));
}

/* The request line without its LF: [0, len) of data. */
static void judge_request_line(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    bool crlf = len > 0 && data[len - 1] == '\r';
    size_t end = crlf ? len - 1 : len;

    if (!mentions_http(data, end)) {
        if (h->known && is_simple_request(h, data, end))
            refuse(h, SM_HTTP_REJECT_REQUEST_LINE);
        else
            settle(h, SM_HTTP_NOT_HTTP);
        return;
    }
    if (h->lead > 0) {
        refuse(h, SM_HTTP_REJECT_REQUEST_LINE);
        return;
    }
    for (size_t i = 0; i < end; i++) {
        if (is_control(data[i]) && data[i] != '\t') {
            refuse(h, data[i] == '\r' ? SM_HTTP_REJECT_BARE_CR : SM_HTTP_REJECT_CONTROL);
            return;
        }
    }
    size_t target = (size_t)h->method.len + 1;
    size_t target_end = target;
    while (target_end < end && data[target_end] > 0x20 && data[target_end] < 0x7f)
        target_end++;
    const uint8_t *version = data + target_end + 1;
    size_t version_len = target_end < end ? end - target_end - 1 : 0;
    if (data[h->method.len] != ' ' || target_end == target || target_end == end || data[target_end] != ' ' ||
        version_len != 8 || memcmp(version, "HTTP/", 5) != 0 || !sm_http_is(version[5], SM_HTTP_DIGIT) ||
        version[6] != '.' || !sm_http_is(version[7], SM_HTTP_DIGIT)) {
        refuse(h, SM_HTTP_REJECT_REQUEST_LINE);
        return;
    }
    if (!crlf) {
        refuse(h, SM_HTTP_REJECT_BARE_LF);
        return;
    }
    if (version[5] != '1' || version[7] > '1') {
        refuse(h, SM_HTTP_REJECT_VERSION);
        return;
    }
    h->minor = (uint8_t)(version[7] - '0');
    h->target = span(target, target_end - target);
    h->maybe = SM_HTTP_MAYBE_LINE;
    judge_target(h, data);
}

static void judge_host(struct sm_http_head *h, const uint8_t *data, size_t off, size_t len)
{
    if (h->seen_host) {
        refuse(h, SM_HTTP_REJECT_HOST_REPEATED);
        return;
    }
    h->seen_host = true;
    h->authority = span(off, len);
    if (!parse_authority(data, off, len, &h->host_kind, &h->host, &h->port))
        refuse(h, SM_HTTP_REJECT_HOST_INVALID);
}

/* RFC 9110 11.2, what an HTTP2-Settings line holds (RFC 7540 3.2.1). */
static bool is_token68(const uint8_t *p, size_t len)
{
    while (len > 0 && p[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++)
        if (!sm_http_is(p[i], SM_HTTP_ALPHA | SM_HTTP_DIGIT) && !memchr("-._~+/", p[i], 6))
            return false;
    return len > 0;
}

/*
 * A proxy behind us takes away what Connection names (RFC 9110 7.6.1). Without its length a body is the next request;
 * without its Host a request is somebody else's.
 */
static bool connection_ok(const struct sm_http_field *f)
{
    static const char *const not_for_one_hop[] = {"Host", "Content-Length", "Transfer-Encoding"};
    const uint8_t *option;
    size_t at = 0, len;

    while (sm_http_list_next(f->value, f->value_len, &at, &option, &len))
        for (size_t i = 0; i < SM_ARRAY_LEN(not_for_one_hop); i++)
            if (sm_http_same_nocase(option, len, not_for_one_hop[i]))
                return false;
    return true;
}

/* One header line without its CRLF. */
static void judge_field(struct sm_http_head *h, const uint8_t *data, size_t off, size_t len)
{
    struct sm_http_field f;
    enum sm_http_reject why = sm_http_field_read(data + off, len, &f);

    if (why == SM_HTTP_REJECT_NONE && ++h->fields > SM_HTTP_FIELDS_MAX)
        why = SM_HTTP_REJECT_TOO_MANY_FIELDS;
    if (why == SM_HTTP_REJECT_NONE)
        why = sm_http_framing_field(&h->framing, h->minor, &f);
    if (why != SM_HTTP_REJECT_NONE) {
        refuse(h, why);
        return;
    }
    if (sm_http_field_is(&f, "Connection")) {
        if (!connection_ok(&f))
            refuse(h, SM_HTTP_REJECT_CONNECTION);
    } else if (sm_http_field_is(&f, "Host")) {
        judge_host(h, data, (size_t)(f.value - data), f.value_len);
    } else if (sm_http_field_is(&f, "Upgrade")) {
        if (sm_http_upgrade_h2c(f.value, f.value_len))
            h->h2c = true;
        else if (sm_http_upgrade_ok(f.value, f.value_len))
            h->upgrade = true;
        else
            refuse(h, SM_HTTP_REJECT_UPGRADE);
    } else if (sm_http_field_is(&f, "HTTP2-Settings")) {
        if (h->h2_settings || !is_token68(f.value, f.value_len))
            refuse(h, SM_HTTP_REJECT_UPGRADE);
        h->h2_settings = true;
    }
}

/* The empty line has come: what can only be judged over the whole head. */
static void judge_head(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    /* An offer of h2c is whole and alone, or it is none of what we know. */
    if (h->h2c ? h->upgrade : h->h2_settings) {
        refuse(h, SM_HTTP_REJECT_UPGRADE);
        return;
    }
    if (h->framing.has_length && h->framing.chunked) {
        refuse(h, SM_HTTP_REJECT_LENGTH_AND_CODING);
        return;
    }
    if (!h->seen_host) {
        if (h->minor > 0) {
            refuse(h, SM_HTTP_REJECT_HOST_MISSING);
            return;
        }
        if (h->form == SM_HTTP_TARGET_ABSOLUTE) {
            h->host_kind = h->abs_kind;
            h->host = h->abs_host;
            h->port = h->abs_port;
        }
    } else if (h->form == SM_HTTP_TARGET_ABSOLUTE) {
        uint16_t usual = h->abs_https ? 443 : 80;
        uint16_t a = h->abs_port ? h->abs_port : usual;
        uint16_t b = h->port ? h->port : usual;
        if (a != b || h->abs_kind != h->host_kind || h->abs_host.len != h->host.len ||
            strncasecmp((const char *)data + h->abs_host.off, (const char *)data + h->host.off, h->host.len) != 0) {
            refuse(h, SM_HTTP_REJECT_HOST_MISMATCH);
            return;
        }
    }
    h->consumed = len;
    settle(h, SM_HTTP_HTTP1);
}

/* Up to the first space. Returns with the state changed, the status settled, or at the end of the bytes. */
static void read_method(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    for (; h->scanned < len; h->scanned++) {
        uint8_t c = data[h->scanned];
        size_t n = h->scanned - h->lead;
        if (sm_http_is(c, SM_HTTP_TOKEN)) {
            h->maybe = SM_HTTP_MAYBE_TOKEN;
            if (n >= SM_HTTP_METHOD_MAX || (h->lead > 0 && !begins_known_method(data + h->lead, n + 1))) {
                settle(h, SM_HTTP_NOT_HTTP);
                return;
            }
            continue;
        }
        if (n == 0 && h->lead < LEAD_MAX && is_gap(c) && c != '\r') {
            h->maybe = SM_HTTP_MAYBE_TOKEN;
            h->lead++;
            continue;
        }
        h->known = is_known_method(data + h->lead, n);
        if (n == 0 && (c == '\r' || c == '\n')) {
            refuse(h, SM_HTTP_REJECT_LEADING_CRLF);
        } else if (n > 0 && ((c == ' ' && h->lead == 0) || (h->known && is_gap(c)))) {
            h->method = span(h->lead, n);
            h->maybe = SM_HTTP_MAYBE_METHOD;
            h->state = STATE_REQUEST_LINE;
        } else {
            settle(h, SM_HTTP_NOT_HTTP);
        }
        return;
    }
}

/* The rest of the first line. */
static void read_request_line(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    for (; h->scanned < len; h->scanned++) {
        uint8_t c = data[h->scanned];
        if (c == '\n') {
            judge_request_line(h, data, h->scanned);
            h->scanned++;
            h->line = h->scanned;
            h->state = STATE_FIELDS;
            return;
        }
        /* The version behind a gap of the odd kind; what else a control character is part of, see below. */
        if (!h->known && is_gap(c) && c != ' ' && c != '\t' && c != '\r') {
            size_t at = h->scanned;
            while (at < len && is_gap(data[at]))
                at++;
            size_t have = SM_MIN(len - at, sizeof("HTTP/") - 1);
            if (strncasecmp((const char *)data + at, "HTTP/", have) == 0) {
                if (have < sizeof("HTTP/") - 1)
                    break; /* the rest will tell */
                refuse(h, SM_HTTP_REJECT_REQUEST_LINE);
                return;
            }
        }
        /* A binary protocol that happens to begin with a word and a space. Nobody serves such a line under such a
         * method. */
        if (!h->known && ((is_control(c) && c != '\r' && c != '\t') || c >= 0x80)) {
            settle(h, SM_HTTP_NOT_HTTP);
            return;
        }
    }
    if (len >= SM_HTTP_HEAD_MAX) {
        if (h->known)
            refuse(h, SM_HTTP_REJECT_TOO_LARGE);
        else
            settle(h, SM_HTTP_NOT_HTTP);
    }
}

static void read_fields(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    while (h->status == SM_HTTP_NEED_MORE) {
        const uint8_t *lf = memchr(data + h->scanned, '\n', len - h->scanned);
        if (!lf) {
            h->scanned = (uint32_t)len;
            if (len >= SM_HTTP_HEAD_MAX)
                refuse(h, SM_HTTP_REJECT_TOO_LARGE);
            return;
        }
        size_t end = (size_t)(lf - data);
        size_t begin = h->line;
        h->scanned = h->line = (uint32_t)end + 1;
        if (end == begin || data[end - 1] != '\r') {
            refuse(h, SM_HTTP_REJECT_BARE_LF);
            return;
        }
        if (end == begin + 1)
            judge_head(h, data, end + 1);
        else
            judge_field(h, data, begin, end - 1 - begin);
    }
}

/* As long as the bytes are a beginning of the preface nothing else has to be read: the first difference sends them
 * through the HTTP/1 reader. */
static void read_preface(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    size_t same = 0;

    while (same < len && same < PREFACE_LEN && data[same] == (uint8_t)preface_text[same])
        same++;
    if (same == PREFACE_LEN) {
        h->maybe = SM_HTTP_MAYBE_LINE;
        h->consumed = PREFACE_LEN;
        settle(h, SM_HTTP_HTTP2);
    } else if (same == len) {
        h->maybe = same >= PREFACE_LINE_LEN ? SM_HTTP_MAYBE_LINE
                   : same >= 4              ? SM_HTTP_MAYBE_METHOD
                   : same > 0               ? SM_HTTP_MAYBE_TOKEN
                                            : SM_HTTP_MAYBE_EMPTY;
    } else if (same >= PREFACE_LINE_LEN) {
        h->maybe = SM_HTTP_MAYBE_LINE;
        refuse(h, SM_HTTP_REJECT_PREFACE);
    } else {
        h->not_preface = true;
    }
}

void sm_http_head_init(struct sm_http_head *h)
{
    *h = (struct sm_http_head){.status = SM_HTTP_NEED_MORE, .state = STATE_METHOD};
}

enum sm_http_status sm_http_head_feed(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    /* What stands behind the largest head is never needed to decide. */
    len = SM_MIN(len, (size_t)SM_HTTP_HEAD_MAX);

    if (h->status == SM_HTTP_NEED_MORE && !h->not_preface) {
        read_preface(h, data, len);
        if (!h->not_preface)
            return h->status;
    }
    if (h->status == SM_HTTP_NEED_MORE && h->state == STATE_METHOD)
        read_method(h, data, len);
    if (h->status == SM_HTTP_NEED_MORE && h->state == STATE_REQUEST_LINE)
        read_request_line(h, data, len);
    if (h->status == SM_HTTP_NEED_MORE && h->state == STATE_FIELDS)
        read_fields(h, data, len);
    return h->status;
}

enum sm_http_status sm_http_head_end(struct sm_http_head *h, const uint8_t *data, size_t len)
{
    len = SM_MIN(len, (size_t)SM_HTTP_HEAD_MAX);
    if (h->status == SM_HTTP_NEED_MORE && h->not_preface && h->state == STATE_REQUEST_LINE &&
        (mentions_http(data, len) || (h->known && is_simple_request(h, data, len))))
        refuse(h, SM_HTTP_REJECT_REQUEST_LINE);
    return h->status;
}
