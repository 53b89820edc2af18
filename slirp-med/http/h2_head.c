/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * HTTP/2 field blocks: kept in one text with offsets, so that a head costs two allocations that the next one uses
 * again; judged field by field with one table of the names that mean something. See h2_head.h.
 */
#include "http/h2_head.h"

#include <glib.h>
#include <string.h>
#include <strings.h>

#include "http/altsvc.h"
#include "http/field.h"
#include "http/head.h"
#include "http/scrub.h"

#define TEXT_FIRST 1024u /* most heads fit */
#define FIELDS_FIRST 32u

static const char *const broken_names[] = {
    [SM_H2_BROKEN_NONE] = "h2_none",
    [SM_H2_BROKEN_HEADER_INVALID] = "h2_header_invalid",
    [SM_H2_BROKEN_TOO_LARGE] = "h2_headers_too_large",
    [SM_H2_BROKEN_TOO_MANY_FIELDS] = "h2_too_many_fields",
    [SM_H2_BROKEN_PSEUDO] = "h2_pseudo_header",
    [SM_H2_BROKEN_METHOD] = "h2_method",
    [SM_H2_BROKEN_CONNECT] = "h2_connect",
    [SM_H2_BROKEN_SCHEME] = "h2_scheme",
    [SM_H2_BROKEN_PATH] = "h2_path",
    [SM_H2_BROKEN_AUTHORITY_MISSING] = "h2_authority_missing",
    [SM_H2_BROKEN_AUTHORITY_INVALID] = "h2_authority_invalid",
    [SM_H2_BROKEN_AUTHORITY_MISMATCH] = "h2_authority_mismatch",
    [SM_H2_BROKEN_CONNECTION_FIELD] = "h2_connection_field",
    [SM_H2_BROKEN_TE] = "h2_te",
    [SM_H2_BROKEN_LENGTH] = "h2_content_length",
    [SM_H2_BROKEN_STATUS] = "h2_status",
    [SM_H2_BROKEN_TRAILER] = "h2_trailer",
    [SM_H2_BROKEN_MESSAGE] = "h2_message_invalid",
    [SM_H2_BROKEN_INTERIM] = "h2_interim_flood",
    [SM_H2_BROKEN_PREFACE] = "h2_preface",
    [SM_H2_BROKEN_PROTOCOL] = "h2_protocol_error",
    [SM_H2_BROKEN_FLOW_CONTROL] = "h2_flow_control",
    [SM_H2_BROKEN_FRAME_SIZE] = "h2_frame_size",
    [SM_H2_BROKEN_COMPRESSION] = "h2_compression",
    [SM_H2_BROKEN_STREAM_CLOSED] = "h2_stream_closed",
    [SM_H2_BROKEN_PUSH] = "h2_push",
    [SM_H2_BROKEN_RESET_FLOOD] = "h2_reset_flood",
    [SM_H2_BROKEN_PING_FLOOD] = "h2_ping_flood",
    [SM_H2_BROKEN_SETTINGS_FLOOD] = "h2_settings_flood",
    [SM_H2_BROKEN_WINDOW_FLOOD] = "h2_window_update_flood",
    [SM_H2_BROKEN_PRIORITY_FLOOD] = "h2_priority_flood",
    [SM_H2_BROKEN_EMPTY_FLOOD] = "h2_empty_data_flood",
    [SM_H2_BROKEN_CONTINUATION_FLOOD] = "h2_continuation_flood",
    [SM_H2_BROKEN_HEADER_FLOOD] = "h2_header_flood",
    [SM_H2_BROKEN_INTERNAL] = "h2_internal_error",
};
SM_NAME_TABLE_COVERS(broken_names, SM_H2_BROKEN_COUNT);

const char *sm_h2_broken_name(enum sm_h2_broken broken)
{
    return broken_names[broken];
}

void sm_h2_block_clear(struct sm_h2_block *b)
{
    g_free(b->text);
    g_free(b->fields);
    *b = (struct sm_h2_block){0};
}

void sm_h2_block_reset(struct sm_h2_block *b)
{
    b->len = b->n = b->list_size = b->count = 0;
    b->fault = SM_H2_BROKEN_NONE;
}

bool sm_h2_block_add(struct sm_h2_block *b, const uint8_t *name, size_t name_len, const uint8_t *value,
                     size_t value_len, bool never)
{
    b->list_size += name_len + value_len + 32;
    b->count++;
    if (b->list_size > SM_H2_BOMB_FACTOR * SM_H2_LIST_MAX || b->count > SM_H2_BOMB_FACTOR * SM_H2_FIELDS_MAX)
        return false;
    if (b->list_size > SM_H2_LIST_MAX && b->fault == SM_H2_BROKEN_NONE)
        b->fault = SM_H2_BROKEN_TOO_LARGE;
    if (b->count > SM_H2_FIELDS_MAX && b->fault == SM_H2_BROKEN_NONE)
        b->fault = SM_H2_BROKEN_TOO_MANY_FIELDS;
    /* The page of a refusal needs the method alone, which comes early or not at all. */
    if (b->fault != SM_H2_BROKEN_NONE)
        return true;

    size_t need = b->len + name_len + value_len;
    if (need > b->cap) {
        b->cap = SM_MAX(SM_MAX(b->cap * 2, (size_t)TEXT_FIRST), need);
        b->text = g_realloc(b->text, b->cap);
    }
    if (b->n == b->fields_cap) {
        b->fields_cap = SM_MAX(b->fields_cap * 2, (size_t)FIELDS_FIRST);
        b->fields = g_renew(struct sm_h2_field, b->fields, b->fields_cap);
    }
    b->fields[b->n++] = (struct sm_h2_field){
        .name = (uint32_t)b->len,
        .name_len = (uint32_t)name_len,
        .value = (uint32_t)(b->len + name_len),
        .value_len = (uint32_t)value_len,
        .never = never,
    };
    if (name_len > 0)
        memcpy(b->text + b->len, name, name_len);
    if (value_len > 0)
        memcpy(b->text + b->len + name_len, value, value_len);
    b->len = need;
    return true;
}

/* A block with fields has text; this says so to who reads the code without knowing it. */
static const char *text_of(const struct sm_h2_block *b)
{
    return b->text ? b->text : "";
}

static struct sm_text name_of(const struct sm_h2_block *b, size_t i)
{
    return (struct sm_text){text_of(b) + b->fields[i].name, b->fields[i].name_len};
}

static struct sm_text value_of(const struct sm_h2_block *b, size_t i)
{
    return (struct sm_text){text_of(b) + b->fields[i].value, b->fields[i].value_len};
}

static bool is(struct sm_text t, const char *text)
{
    return t.len == strlen(text) && memcmp(t.ptr, text, t.len) == 0;
}

static bool is_nocase(struct sm_text t, const char *text)
{
    return t.len == strlen(text) && strncasecmp(t.ptr, text, t.len) == 0;
}

struct sm_text sm_h2_block_get(const struct sm_h2_block *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++)
        if (is(name_of(b, i), name))
            return value_of(b, i);
    return (struct sm_text){0};
}

void sm_h2_block_nv(const struct sm_h2_block *b, nghttp2_nv *nv)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct sm_h2_field *f = &b->fields[i];
        nv[i] = (nghttp2_nv){
            .name = (uint8_t *)b->text + f->name,
            .namelen = f->name_len,
            .value = (uint8_t *)b->text + f->value,
            .valuelen = f->value_len,
            .flags = f->never ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
        };
    }
}

void sm_h2_block_strip_alt_svc(struct sm_h2_block *b)
{
    size_t kept = 0;

    for (size_t i = 0; i < b->n; i++) {
        struct sm_h2_field *f = &b->fields[i];
        if (is(name_of(b, i), "alt-svc") && f->value_len > 0) {
            uint8_t *value = (uint8_t *)b->text + f->value;
            size_t len = sm_http_alt_svc_value(value, f->value_len, value);
            /*
             * In front of what stays may now stand the space that stood behind a comma: RFC 9113 8.2.1 has none there.
             */
            for (; len > 0 && len < f->value_len && (*value == ' ' || *value == '\t');
                 value++, f->value++, f->value_len--)
                len--;
            if (len == 0)
                continue;
            f->value_len = (uint32_t)len;
        }
        b->fields[kept++] = *f;
    }
    b->n = kept;
}

unsigned sm_h2_block_scrub(struct sm_h2_block *b, const struct sm_scrub *scrub)
{
    unsigned matches = 0;

    for (size_t i = 0; i < b->n; i++) {
        struct sm_text name = name_of(b, i);
        if (name.ptr[0] != ':' && sm_http_scrubs((const uint8_t *)name.ptr, name.len))
            matches += sm_scrub_text(scrub, (uint8_t *)b->text + b->fields[i].value, b->fields[i].value_len);
    }
    return matches;
}

bool sm_h2_block_coded(const struct sm_h2_block *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct sm_text value = value_of(b, i);
        if (is(name_of(b, i), "content-encoding") && sm_http_coded((const uint8_t *)value.ptr, value.len))
            return true;
    }
    return false;
}

static bool next_field(const struct sm_bridge_request *r, size_t *at, struct sm_text *ret_name,
                       struct sm_text *ret_value)
{
    const struct sm_h2_block *b = r->head;

    for (; *at < b->n; ++*at) {
        *ret_name = name_of(b, *at);
        *ret_value = value_of(b, *at);
        if (ret_name->ptr[0] != ':') {
            ++*at;
            return true;
        }
    }
    return false;
}

/* What a name means to us. One look per field, by length and then by text. */
enum meaning {
    PLAIN,
    PSEUDO_METHOD,
    PSEUDO_SCHEME,
    PSEUDO_AUTHORITY,
    PSEUDO_PATH,
    PSEUDO_STATUS,
    PSEUDO_PROTOCOL,
    PSEUDO_UNKNOWN,
    HOST,
    CONTENT_LENGTH,
    TE,
    CONNECTION_SPECIFIC,
};

static const struct {
    const char *name;
    enum meaning meaning;
} meanings[] = {
    {":path", PSEUDO_PATH},
    {":method", PSEUDO_METHOD},
    {":scheme", PSEUDO_SCHEME},
    {":status", PSEUDO_STATUS},
    {":protocol", PSEUDO_PROTOCOL},
    {":authority", PSEUDO_AUTHORITY},
    {"te", TE},
    {"host", HOST},
    {"content-length", CONTENT_LENGTH},
    {"upgrade", CONNECTION_SPECIFIC},
    {"connection", CONNECTION_SPECIFIC},
    {"keep-alive", CONNECTION_SPECIFIC},
    {"http2-settings", CONNECTION_SPECIFIC},
    {"proxy-connection", CONNECTION_SPECIFIC},
    {"transfer-encoding", CONNECTION_SPECIFIC},
};

static enum meaning meaning_of(struct sm_text name)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(meanings); i++)
        if (is(name, meanings[i].name))
            return meanings[i].meaning;
    return name.len > 0 && name.ptr[0] == ':' ? PSEUDO_UNKNOWN : PLAIN;
}

/* RFC 9113 8.2.1: no control characters in a value; what stands around it is a matter of who reads it. */
static bool value_valid(struct sm_text value, bool strict)
{
    for (size_t i = 0; i < value.len; i++)
        if (!sm_http_is((uint8_t)value.ptr[i], SM_HTTP_TEXT))
            return false;
    if (!strict || value.len == 0)
        return true;
    char first = value.ptr[0], last = value.ptr[value.len - 1];
    return first != ' ' && first != '\t' && last != ' ' && last != '\t';
}

static bool name_valid(struct sm_text name)
{
    size_t i = name.len > 0 && name.ptr[0] == ':' ? 1 : 0;

    if (i == name.len)
        return false;
    for (; i < name.len; i++) {
        uint8_t c = (uint8_t)name.ptr[i];
        if (!sm_http_is(c, SM_HTTP_TOKEN) || (c >= 'A' && c <= 'Z'))
            return false;
    }
    return true;
}

static bool length_valid(struct sm_text value)
{
    if (value.len < 1 || value.len > 18)
        return false;
    for (size_t i = 0; i < value.len; i++)
        if (!sm_http_is((uint8_t)value.ptr[i], SM_HTTP_DIGIT))
            return false;
    return true;
}

/*
 * What holds for every field of every block. A request is read strictly; white space around a response's value harms
 * nobody but its reader.
 */
static enum sm_h2_broken judge_field(struct sm_text name, struct sm_text value, enum meaning meaning, bool strict)
{
    if (!name_valid(name) || !value_valid(value, strict))
        return SM_H2_BROKEN_HEADER_INVALID;
    if (meaning == CONNECTION_SPECIFIC)
        return SM_H2_BROKEN_CONNECTION_FIELD;
    if (meaning == TE && strict && !is_nocase(value, "trailers"))
        return SM_H2_BROKEN_TE;
    return SM_H2_BROKEN_NONE;
}

struct authority {
    enum sm_http_host_kind kind;
    struct sm_text host;
    uint16_t port;
};

/*
 * head.c is the one place that knows what an authority looks like, and it reads request heads; so it is given one.
 * (Longer than a host and a port can be is never needed.)
 */
static bool read_authority(struct sm_text text, struct authority *ret)
{
    static const char before[] = "GET / HTTP/1.1\r\nHost:";
    static const char after[] = "\r\n\r\n";
    uint8_t line[sizeof(before) + 320 + sizeof(after)];
    struct sm_http_head head;

    if (text.len == 0 || text.len > 320)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if ((uint8_t)text.ptr[i] <= 0x20 || (uint8_t)text.ptr[i] >= 0x7f)
            return false;
    size_t off = sizeof(before) - 1;
    memcpy(line, before, off);
    memcpy(line + off, text.ptr, text.len);
    memcpy(line + off + text.len, after, sizeof(after) - 1);
    sm_http_head_init(&head);
    if (sm_http_head_feed(&head, line, off + text.len + sizeof(after) - 1) != SM_HTTP_HTTP1)
        return false;
    *ret = (struct authority){
        .kind = head.host_kind,
        .host = {text.ptr + (head.host.off - off), head.host.len},
        .port = head.port,
    };
    return true;
}

static bool same_authority(const struct authority *a, const struct authority *b, bool tls)
{
    uint16_t usual = tls ? 443 : 80;

    return a->kind == b->kind && a->host.len == b->host.len &&
           strncasecmp(a->host.ptr, b->host.ptr, a->host.len) == 0 &&
           (a->port ? a->port : usual) == (b->port ? b->port : usual);
}

static enum sm_h2_broken judge_method(struct sm_text method)
{
    if (method.len == 0 || method.len > SM_HTTP_METHOD_MAX)
        return SM_H2_BROKEN_METHOD;
    for (size_t i = 0; i < method.len; i++)
        if (!sm_http_is((uint8_t)method.ptr[i], SM_HTTP_TOKEN))
            return SM_H2_BROKEN_METHOD;
    return SM_H2_BROKEN_NONE;
}

static enum sm_h2_broken judge_path(struct sm_text target, struct sm_bridge_request *ret)
{
    if (target.len == 0)
        return SM_H2_BROKEN_PATH;
    for (size_t i = 0; i < target.len; i++) {
        uint8_t c = (uint8_t)target.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return SM_H2_BROKEN_PATH;
    }
    if (target.ptr[0] != '/' && !(is(target, "*") && is(ret->method, "OPTIONS")))
        return SM_H2_BROKEN_PATH;
    const char *query = memchr(target.ptr, '?', target.len);
    ret->path = (struct sm_text){target.ptr, query ? (size_t)(query - target.ptr) : target.len};
    if (query)
        ret->query = (struct sm_text){query + 1, target.len - ret->path.len - 1};
    return SM_H2_BROKEN_NONE;
}

static enum sm_h2_broken judge_authority(struct sm_text authority, struct sm_text host, bool tls,
                                         struct sm_bridge_request *ret)
{
    struct authority a, h;

    if (!authority.ptr && !host.ptr)
        return SM_H2_BROKEN_AUTHORITY_MISSING;
    if (host.ptr && !read_authority(host, &h))
        return SM_H2_BROKEN_AUTHORITY_INVALID;
    if (authority.ptr && !read_authority(authority, &a))
        return SM_H2_BROKEN_AUTHORITY_INVALID;
    if (authority.ptr && host.ptr && !same_authority(&a, &h, tls))
        return SM_H2_BROKEN_AUTHORITY_MISMATCH;
    if (!authority.ptr)
        a = h;
    ret->authority = authority.ptr ? authority : host;
    ret->host_kind = a.kind;
    ret->host = a.host;
    ret->port = a.port;
    return SM_H2_BROKEN_NONE;
}

enum sm_h2_broken sm_h2_head_request(const struct sm_h2_block *b, bool tls, struct sm_bridge_request *ret)
{
    struct sm_text method = {0}, scheme = {0}, authority = {0}, path = {0}, host = {0}, length = {0};
    bool plain = false;

    *ret = (struct sm_bridge_request){.protocol = "HTTP/2", .head = b, .next_field = next_field};
    if (b->fault != SM_H2_BROKEN_NONE)
        return b->fault;
    for (size_t i = 0; i < b->n; i++) {
        struct sm_text name = name_of(b, i), value = value_of(b, i);
        enum meaning meaning = meaning_of(name);
        enum sm_h2_broken broken = judge_field(name, value, meaning, true);
        struct sm_text *once = NULL;

        if (broken != SM_H2_BROKEN_NONE)
            return broken;
        if (name.ptr[0] != ':')
            plain = true;
        else if (plain)
            return SM_H2_BROKEN_PSEUDO;
        switch (meaning) {
        case PSEUDO_METHOD:
            once = &method;
            break;
        case PSEUDO_SCHEME:
            once = &scheme;
            break;
        case PSEUDO_AUTHORITY:
            once = &authority;
            break;
        case PSEUDO_PATH:
            once = &path;
            break;
        case PSEUDO_PROTOCOL:
            return SM_H2_BROKEN_CONNECT;
        case PSEUDO_STATUS:
        case PSEUDO_UNKNOWN:
            return SM_H2_BROKEN_PSEUDO;
        case HOST:
            if (host.ptr)
                return SM_H2_BROKEN_AUTHORITY_INVALID;
            once = &host;
            break;
        case CONTENT_LENGTH:
            if (length.ptr || !length_valid(value))
                return SM_H2_BROKEN_LENGTH;
            once = &length;
            break;
        case TE:
        case CONNECTION_SPECIFIC: /* refused above */
        case PLAIN:
            break;
        }
        if (once) {
            if (once->ptr)
                return SM_H2_BROKEN_PSEUDO;
            *once = value;
        }
    }
    if (!method.ptr)
        return SM_H2_BROKEN_PSEUDO;
    enum sm_h2_broken broken = judge_method(method);
    if (broken != SM_H2_BROKEN_NONE)
        return broken;
    if (is(method, "CONNECT"))
        return SM_H2_BROKEN_CONNECT;
    if (!scheme.ptr || !path.ptr)
        return SM_H2_BROKEN_PSEUDO;
    if (!is(scheme, tls ? "https" : "http"))
        return SM_H2_BROKEN_SCHEME;
    ret->method = method;
    ret->scheme = scheme;
    broken = judge_path(path, ret);
    if (broken != SM_H2_BROKEN_NONE)
        return broken;
    return judge_authority(authority, host, tls, ret);
}

enum sm_h2_broken sm_h2_head_response(const struct sm_h2_block *b, uint16_t *ret_status)
{
    struct sm_text status = {0};
    bool length = false, plain = false;

    if (b->fault != SM_H2_BROKEN_NONE)
        return b->fault;
    for (size_t i = 0; i < b->n; i++) {
        struct sm_text name = name_of(b, i), value = value_of(b, i);
        enum meaning meaning = meaning_of(name);
        enum sm_h2_broken broken = judge_field(name, value, meaning, false);

        if (broken != SM_H2_BROKEN_NONE)
            return broken;
        if (name.ptr[0] != ':') {
            plain = true;
        } else {
            if (plain || meaning != PSEUDO_STATUS || status.ptr)
                return SM_H2_BROKEN_PSEUDO;
            status = value;
        }
        if (meaning == CONTENT_LENGTH) {
            if (length || !length_valid(value))
                return SM_H2_BROKEN_LENGTH;
            length = true;
        }
    }
    if (!status.ptr)
        return SM_H2_BROKEN_PSEUDO;
    if (status.len != 3 || !length_valid(status) || status.ptr[0] == '0' || is(status, "101"))
        return SM_H2_BROKEN_STATUS;
    *ret_status = (uint16_t)((status.ptr[0] - '0') * 100 + (status.ptr[1] - '0') * 10 + (status.ptr[2] - '0'));
    return SM_H2_BROKEN_NONE;
}

enum sm_h2_broken sm_h2_head_trailers(const struct sm_h2_block *b, enum sm_bridge_side from)
{
    bool strict = from == SM_BRIDGE_GUEST;

    if (b->fault != SM_H2_BROKEN_NONE)
        return b->fault;
    for (size_t i = 0; i < b->n; i++) {
        struct sm_text name = name_of(b, i), value = value_of(b, i);
        enum sm_h2_broken broken = judge_field(name, value, meaning_of(name), strict);

        if (broken != SM_H2_BROKEN_NONE)
            return broken;
        if (name.ptr[0] == ':')
            return SM_H2_BROKEN_PSEUDO;
        struct sm_http_field f = {(const uint8_t *)name.ptr, name.len, (const uint8_t *)value.ptr, value.len};
        if (strict && !sm_http_trailer_ok(&f))
            return SM_H2_BROKEN_TRAILER;
    }
    return SM_H2_BROKEN_NONE;
}
