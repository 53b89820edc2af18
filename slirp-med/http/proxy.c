/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Heads of an explicit proxy's clients; see proxy.h.
 *
 * CONNECT is read here, because head.h refuses it as what it is to an origin: a line at a time, each once. Everything
 * else is head.h's, and here only what a proxy asks beyond it.
 */
#include "http/proxy.h"

#include <string.h>

#include "base/rw.h"
#include "http/field.h"

#define CONNECT_WORD "CONNECT "
#define CONNECT_LEN (sizeof(CONNECT_WORD) - 1)
#define VERSION_LEN (sizeof("HTTP/1.1") - 1)
#define HTTP_SCHEME "http://"

static const char *const status_names[] = {
    [SM_PROXY_NEED_MORE] = "need_more",
    [SM_PROXY_CONNECT] = "connect",
    [SM_PROXY_FORWARD] = "forward",
    [SM_PROXY_REJECT] = "reject",
};
SM_NAME_TABLE_COVERS(status_names, SM_PROXY_STATUS_COUNT);

static const char *const reject_names[] = {
    [SM_PROXY_REJECT_NONE] = "proxy_none",
    [SM_PROXY_REJECT_HTTP] = "proxy_http",
    [SM_PROXY_REJECT_NOT_HTTP] = "proxy_not_http",
    [SM_PROXY_REJECT_ORIGIN] = "proxy_origin_form",
    [SM_PROXY_REJECT_HTTPS] = "proxy_https_target",
    [SM_PROXY_REJECT_AUTHORITY] = "proxy_authority",
    [SM_PROXY_REJECT_BODY] = "proxy_connect_body",
    [SM_PROXY_REJECT_AUTH] = "proxy_authorization",
    [SM_PROXY_REJECT_CONNECTION] = "proxy_connection",
};
SM_NAME_TABLE_COVERS(reject_names, SM_PROXY_REJECT_COUNT);

const char *sm_proxy_status_name(enum sm_proxy_status status)
{
    return (unsigned)status < SM_PROXY_STATUS_COUNT ? status_names[status] : "invalid";
}

const char *sm_proxy_reject_name(const struct sm_proxy_head *h)
{
    return h->reject == SM_PROXY_REJECT_HTTP ? sm_http_reject_name(h->http) : reject_names[h->reject];
}

static void refuse(struct sm_proxy_head *h, enum sm_proxy_reject why)
{
    h->status = SM_PROXY_REJECT;
    h->reject = why;
}

static void refuse_http(struct sm_proxy_head *h, enum sm_http_reject why)
{
    h->http = why;
    refuse(h, SM_PROXY_REJECT_HTTP);
}

static struct sm_http_span span(size_t off, size_t len)
{
    return (struct sm_http_span){.off = (uint32_t)off, .len = (uint32_t)len};
}

void sm_proxy_head_init(struct sm_proxy_head *h)
{
    *h = (struct sm_proxy_head){.status = SM_PROXY_NEED_MORE};
    sm_http_head_init(&h->head);
}

/* ---- what both kinds have ---- */

/* RFC 7617: Basic, a space or more, token68. Another scheme is none of ours: as if there were no credentials. */
static void take_auth(struct sm_proxy_head *h, const uint8_t *data, const struct sm_http_field *f)
{
    static const char scheme[] = "Basic";
    size_t at = sizeof(scheme) - 1;

    if (h->seen_auth) {
        refuse(h, SM_PROXY_REJECT_AUTH);
        return;
    }
    h->seen_auth = true;
    if (!sm_http_begins_nocase(f->value, f->value_len, scheme) || at == f->value_len || f->value[at] != ' ')
        return;
    while (at < f->value_len && f->value[at] == ' ')
        at++;
    for (size_t i = at; i < f->value_len; i++) {
        if (!sm_http_is(f->value[i], SM_HTTP_TOKEN) && f->value[i] != '/' && f->value[i] != '=') {
            refuse(h, SM_PROXY_REJECT_AUTH);
            return;
        }
    }
    h->has_auth = true;
    h->auth = span((size_t)(f->value - data) + at, f->value_len - at);
}

/* What a proxy takes away without being told, or which is for the connection itself. */
static bool connection_ok(const struct sm_http_field *f)
{
    static const char *const known[] = {"close",          "keep-alive",       "upgrade", "te",
                                        "http2-settings", "proxy-connection", ""};
    const uint8_t *option;
    size_t at = 0, len;

    while (sm_http_list_next(f->value, f->value_len, &at, &option, &len)) {
        bool ok = false;
        for (size_t i = 0; i < SM_ARRAY_LEN(known) && !ok; i++)
            ok = sm_http_same_nocase(option, len, known[i]);
        if (!ok)
            return false;
    }
    return true;
}

static void take_field(struct sm_proxy_head *h, const uint8_t *data, const struct sm_http_field *f)
{
    if (sm_http_field_is(f, "Proxy-Authorization"))
        take_auth(h, data, f);
    else if (sm_http_field_is(f, "Connection") && !connection_ok(f))
        refuse(h, SM_PROXY_REJECT_CONNECTION);
}

/* ---- CONNECT ---- */

static bool parse_port(const uint8_t *p, size_t len, uint16_t *ret)
{
    unsigned port = 0;

    if (len == 0 || len > 5 || p[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!sm_http_is(p[i], SM_HTTP_DIGIT))
            return false;
        port = port * 10 + (p[i] - (unsigned)'0');
    }
    *ret = (uint16_t)port;
    return port <= UINT16_MAX;
}

/*
 * HOST:PORT. The host's characters are looked at, so that nothing odd reaches another parser; what they say is the
 * core's to judge.
 */
static bool parse_authority(struct sm_proxy_head *h, const uint8_t *data, size_t off, size_t len)
{
    const uint8_t *p = data + off;
    size_t host = 0, after;
    bool v6 = len > 0 && p[0] == '[';

    if (v6) {
        const uint8_t *close = memchr(p, ']', len);
        if (!close)
            return false;
        host = 1;
        after = (size_t)(close - p) + 1;
    } else {
        const uint8_t *colon = memchr(p, ':', len);
        if (!colon)
            return false;
        after = (size_t)(colon - p);
    }
    size_t host_len = after - host - (v6 ? 1 : 0);
    if (host_len == 0 || host_len > UINT8_MAX || after >= len || p[after] != ':' ||
        (v6 && !memchr(p + host, ':', host_len)))
        return false;
    for (size_t i = host; i < host + host_len; i++) {
        bool ok = v6 ? sm_http_is(p[i], SM_HTTP_HEX) || p[i] == ':' || p[i] == '.'
                     : sm_http_is(p[i], SM_HTTP_ALPHA | SM_HTTP_DIGIT) || memchr("-._", p[i], 3);
        if (!ok)
            return false;
    }
    h->host = span(off + host, host_len);
    return parse_port(p + after + 1, len - after - 1, &h->port);
}

/* "CONNECT HOST:PORT HTTP/1.x", without its line end. */
static void judge_connect_line(struct sm_proxy_head *h, const uint8_t *data, size_t len)
{
    size_t end = CONNECT_LEN;

    for (size_t i = 0; i < len; i++) {
        if (data[i] < 0x20 || data[i] >= 0x7f) {
            refuse_http(h, data[i] == '\r' ? SM_HTTP_REJECT_BARE_CR : SM_HTTP_REJECT_CONTROL);
            return;
        }
    }
    while (end < len && data[end] != ' ')
        end++;
    const uint8_t *version = data + end + 1;
    if (end == len || len - end - 1 != VERSION_LEN || memcmp(version, "HTTP/", 5) != 0 ||
        !sm_http_is(version[5], SM_HTTP_DIGIT) || version[6] != '.' || !sm_http_is(version[7], SM_HTTP_DIGIT)) {
        refuse_http(h, SM_HTTP_REJECT_REQUEST_LINE);
        return;
    }
    if (version[5] != '1' || version[7] > '1') {
        refuse_http(h, SM_HTTP_REJECT_VERSION);
        return;
    }
    if (!parse_authority(h, data, CONNECT_LEN, end - CONNECT_LEN))
        refuse(h, SM_PROXY_REJECT_AUTHORITY);
}

/* Host is the authority once more (RFC 9112 3.2.3), with or without its port; some clients leave it out. */
static void judge_connect_host(struct sm_proxy_head *h, const uint8_t *data, const struct sm_http_field *f)
{
    const uint8_t *want = data + CONNECT_LEN;
    size_t with_port = 0;

    if (h->seen_host) {
        refuse_http(h, SM_HTTP_REJECT_HOST_REPEATED);
        return;
    }
    h->seen_host = true;
    while (want[with_port] != ' ')
        with_port++;
    size_t without = (size_t)h->host.off + h->host.len - CONNECT_LEN + (want[0] == '[' ? 1 : 0);
    bool same = f->value_len == with_port || f->value_len == without;
    for (size_t i = 0; same && i < f->value_len; i++)
        same = (f->value[i] | (sm_http_is(f->value[i], SM_HTTP_ALPHA) ? 0x20 : 0)) ==
               (want[i] | (sm_http_is(want[i], SM_HTTP_ALPHA) ? 0x20 : 0));
    if (!same)
        refuse_http(h, SM_HTTP_REJECT_HOST_MISMATCH);
}

static void judge_connect_field(struct sm_proxy_head *h, const uint8_t *data, size_t off, size_t len)
{
    struct sm_http_field f;
    enum sm_http_reject why = sm_http_field_read(data + off, len, &f);

    if (why == SM_HTTP_REJECT_NONE && ++h->fields > SM_HTTP_FIELDS_MAX)
        why = SM_HTTP_REJECT_TOO_MANY_FIELDS;
    if (why != SM_HTTP_REJECT_NONE)
        refuse_http(h, why);
    else if (sm_http_field_is(&f, "Content-Length") || sm_http_field_is(&f, "Transfer-Encoding") ||
             sm_http_field_is(&f, "Upgrade"))
        refuse(h, SM_PROXY_REJECT_BODY);
    else if (sm_http_field_is(&f, "Host"))
        judge_connect_host(h, data, &f);
    else
        take_field(h, data, &f);
}

static void read_connect(struct sm_proxy_head *h, const uint8_t *data, size_t len)
{
    len = SM_MIN(len, (size_t)SM_PROXY_CONNECT_MAX);
    while (h->status == SM_PROXY_NEED_MORE) {
        const uint8_t *lf = memchr(data + h->scanned, '\n', len - h->scanned);
        if (!lf) {
            h->scanned = (uint32_t)len;
            if (len >= SM_PROXY_CONNECT_MAX)
                refuse_http(h, SM_HTTP_REJECT_TOO_LARGE);
            return;
        }
        size_t begin = h->line, end = (size_t)(lf - data);
        h->scanned = h->line = (uint32_t)end + 1;
        if (end == begin || data[end - 1] != '\r') {
            refuse_http(h, SM_HTTP_REJECT_BARE_LF);
        } else if (begin == 0) {
            judge_connect_line(h, data, end - 1);
        } else if (end > begin + 1) {
            judge_connect_field(h, data, begin, end - 1 - begin);
        } else {
            h->consumed = end + 1;
            h->status = SM_PROXY_CONNECT;
        }
    }
}

/* ---- absolute form ---- */

/* Each header line of a head that head.h has accepted. False: no more. */
static bool next_field(const uint8_t *data, size_t end, size_t *at, struct sm_http_field *ret, size_t *ret_len)
{
    const uint8_t *lf = memchr(data + *at, '\n', end - *at);
    size_t line = *at;

    if (!lf || (size_t)(lf - data) == line + 1)
        return false;
    *at = (size_t)(lf - data) + 1;
    *ret_len = *at - line;
    return sm_http_field_read(data + line, *ret_len - 2, ret) == SM_HTTP_REJECT_NONE;
}

static size_t fields_begin(const struct sm_http_head *h)
{
    return (size_t)h->target.off + h->target.len + 1 + VERSION_LEN + 2;
}

static void judge_forward(struct sm_proxy_head *h, const uint8_t *data)
{
    const struct sm_http_head *head = &h->head;
    size_t at = fields_begin(head), len;
    struct sm_http_field f;

    if (head->form != SM_HTTP_TARGET_ABSOLUTE) {
        refuse(h, SM_PROXY_REJECT_ORIGIN);
        return;
    }
    if (head->abs_https) {
        refuse(h, SM_PROXY_REJECT_HTTPS);
        return;
    }
    while (h->status == SM_PROXY_NEED_MORE && next_field(data, head->consumed, &at, &f, &len))
        take_field(h, data, &f);
    if (h->status != SM_PROXY_NEED_MORE)
        return;
    h->host = head->abs_host;
    h->port = head->abs_port ? head->abs_port : 80;
    h->upgrade = head->upgrade;
    h->consumed = head->consumed;
    h->status = SM_PROXY_FORWARD;
}

enum sm_proxy_status sm_proxy_head_feed(struct sm_proxy_head *h, const uint8_t *data, size_t len)
{
    if (h->status != SM_PROXY_NEED_MORE || len == 0)
        return h->status;
    if (!h->connect && !h->other) {
        if (memcmp(data, CONNECT_WORD, SM_MIN(len, CONNECT_LEN)) != 0)
            h->other = true;
        else if (len >= CONNECT_LEN)
            h->connect = true;
        else
            return h->status;
    }
    if (h->connect) {
        read_connect(h, data, len);
        return h->status;
    }
    switch (sm_http_head_feed(&h->head, data, len)) {
    case SM_HTTP_NEED_MORE:
        break;
    case SM_HTTP_HTTP1:
        judge_forward(h, data);
        break;
    case SM_HTTP_REJECT:
        refuse_http(h, h->head.reject);
        break;
    case SM_HTTP_NOT_HTTP:
    case SM_HTTP_HTTP2:
    case SM_HTTP_STATUS_COUNT:
        refuse(h, SM_PROXY_REJECT_NOT_HTTP);
        break;
    }
    return h->status;
}

/* ---- what goes on ---- */

static void put(struct sm_wr *w, const char *text)
{
    sm_wr_bytes(w, text, strlen(text));
}

static void put_request_line(const struct sm_http_head *h, const uint8_t *data, struct sm_wr *w)
{
    size_t end = (size_t)h->target.off + h->target.len;
    size_t rest = h->target.off + strlen(HTTP_SCHEME);

    while (rest < end && data[rest] != '/' && data[rest] != '?')
        rest++;
    sm_wr_bytes(w, data + h->method.off, h->method.len);
    put(w, " ");
    if (rest == end && sm_http_same(data + h->method.off, h->method.len, "OPTIONS"))
        put(w, "*"); /* RFC 9112 3.2.4: the last proxy writes it so */
    else if (rest == end || data[rest] != '/')
        put(w, "/");
    sm_wr_bytes(w, data + rest, end - rest);
    sm_wr_bytes(w, data + end, 1 + VERSION_LEN + 2);
}

static bool is_for_the_hop(const struct sm_proxy_head *h, const struct sm_http_field *f)
{
    if (sm_http_begins_nocase(f->name, f->name_len, "Proxy-") || sm_http_field_is(f, "Connection") ||
        sm_http_field_is(f, "Keep-Alive") || sm_http_field_is(f, "TE") || sm_http_field_is(f, "HTTP2-Settings"))
        return true;
    return sm_http_field_is(f, "Upgrade") && !h->upgrade; /* an offer of h2c */
}

size_t sm_proxy_head_rewrite(const struct sm_proxy_head *h, const uint8_t *data, uint8_t *out, size_t cap)
{
    const struct sm_http_head *head = &h->head;
    struct sm_wr w = sm_wr_init(out, cap);
    size_t at = fields_begin(head), len;
    struct sm_http_field f;

    put_request_line(head, data, &w);
    if (!head->seen_host) {
        size_t begin = head->target.off + strlen(HTTP_SCHEME), end = begin;
        while (end < (size_t)head->target.off + head->target.len && data[end] != '/' && data[end] != '?')
            end++;
        put(&w, "Host: ");
        sm_wr_bytes(&w, data + begin, end - begin);
        put(&w, "\r\n");
    }
    for (size_t line = at; next_field(data, head->consumed, &at, &f, &len); line = at)
        if (!is_for_the_hop(h, &f))
            sm_wr_bytes(&w, data + line, len);
    put(&w, h->upgrade ? "Connection: Upgrade\r\n\r\n" : "Connection: close\r\n\r\n");
    return w.bad ? 0 : w.len;
}

/* ---- what may follow ---- */

void sm_proxy_rest_init(struct sm_proxy_rest *r, const struct sm_proxy_head *h)
{
    const struct sm_http_framing *f = &h->head.framing;
    bool body = f->chunked || (f->has_length && f->content_length > 0);

    *r = (struct sm_proxy_rest){.upgrade = h->upgrade, .over = !body};
    if (body)
        sm_http_body_init(&r->body, f->chunked ? SM_HTTP_BODY_CHUNKED : SM_HTTP_BODY_LENGTH, f->content_length);
    /* A line that was kept, and as much again that is looked at with it. */
    sm_buf_init(&r->line, 2 * (size_t)SM_HTTP_TRAILERS_MAX);
}

void sm_proxy_rest_clear(struct sm_proxy_rest *r)
{
    sm_buf_clear(&r->line);
}

/* Up to the end of the body or of the bytes. Returns how many are the request's. */
static size_t read_body(struct sm_proxy_rest *r, const uint8_t *data, size_t len)
{
    size_t kept = r->line.len, used = 0;

    if (kept > 0) {
        len = SM_MIN(len, (size_t)SM_HTTP_TRAILERS_MAX);
        r->open = !sm_buf_append(&r->line, data, len); /* never: a longer line is BAD */
        if (r->open)
            return len;
    }
    switch (sm_http_body_feed(&r->body, kept > 0 ? sm_buf_peek(&r->line) : data, kept + len, &used)) {
    case SM_HTTP_BODY_MORE:
        if (kept > 0)
            sm_buf_consume(&r->line, used);
        else
            r->open = !sm_buf_append(&r->line, data + used, len - used);
        return len;
    case SM_HTTP_BODY_DONE:
        r->over = true;
        sm_buf_clear(&r->line);
        return used - kept; /* what was kept was no whole line */
    case SM_HTTP_BODY_BAD:
    case SM_HTTP_BODY_STATUS_COUNT:
        break;
    }
    r->open = true;
    return len;
}

size_t sm_proxy_rest_says(struct sm_proxy_rest *r, const uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && !r->over && !r->open)
        at += read_body(r, data + at, len - at);
    if (r->open)
        return len;
    r->too_much = r->too_much || at < len;
    return at;
}

void sm_proxy_rest_hears(struct sm_proxy_rest *r, const uint8_t *data, size_t len)
{
    size_t n = SM_MIN(len, sizeof(r->status) - r->n_status);

    memcpy(r->status + r->n_status, data, n);
    r->n_status = (uint8_t)(r->n_status + n);
    if (r->upgrade && r->over && !r->too_much && n > 0 && r->n_status == sizeof(r->status) &&
        memcmp(r->status, "HTTP/1.1 101", sizeof(r->status)) == 0)
        r->open = true;
}
