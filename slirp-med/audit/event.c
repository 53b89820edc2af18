/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Building a line without ever breaking it: room for what closes a value is kept back before a byte of the value is
 * written, so that a cut can happen anywhere and the JSON stays whole. See event.h.
 */
#include "audit/event.h"

#include <assert.h>
#include <string.h>

#include "audit/text.h"

static const char *const event_names[] = {
    [SM_AUDIT_EGRESS_START] = "egress_start",
    [SM_AUDIT_EGRESS_STOP] = "egress_stop",
    [SM_AUDIT_EGRESS_ALLOW] = "egress_allow",
    [SM_AUDIT_EGRESS_CLOSE] = "egress_close",
    [SM_AUDIT_EGRESS_DENY] = "egress_deny",
    [SM_AUDIT_EGRESS_INTERNAL_DENY] = "egress_internal_deny",
    [SM_AUDIT_EGRESS_DIAL] = "egress_dial",
    [SM_AUDIT_EGRESS_DIAL_ERROR] = "egress_dial_error",
    [SM_AUDIT_EGRESS_MITM_DIAL] = "egress_mitm_dial",
    [SM_AUDIT_EGRESS_MITM_OPAQUE] = "egress_mitm_opaque",
    [SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR] = "egress_mitm_handshake_error",
    [SM_AUDIT_EGRESS_MITM_UPSTREAM_ERROR] = "egress_mitm_upstream_error",
    [SM_AUDIT_EGRESS_DNS_ALLOW] = "egress_dns_allow",
    [SM_AUDIT_EGRESS_DNS_DENY] = "egress_dns_deny",
    [SM_AUDIT_EGRESS_DNS_ERROR] = "egress_dns_error",
    [SM_AUDIT_EGRESS_DNS_QUERY] = "egress_dns_query",
    [SM_AUDIT_EGRESS_UDP_ALLOW] = "egress_udp_allow",
    [SM_AUDIT_EGRESS_UDP_DENY] = "egress_udp_deny",
    [SM_AUDIT_EGRESS_UDP_CLOSE] = "egress_udp_close",
    [SM_AUDIT_EGRESS_UDP_INTERNAL_DENY] = "egress_udp_internal_deny",
    [SM_AUDIT_EGRESS_CAP_EXCEEDED] = "egress_cap_exceeded",
    [SM_AUDIT_EGRESS_LOOP_GUARD] = "egress_loop_guard",
    [SM_AUDIT_EGRESS_HTTP_REQUEST] = "egress_http_request",
    [SM_AUDIT_EGRESS_HTTP_RESPONSE] = "egress_http_response",
    [SM_AUDIT_EGRESS_SWAP] = "egress_swap",
    [SM_AUDIT_EGRESS_SWAP_ERROR] = "egress_swap_error",
    [SM_AUDIT_EGRESS_SWAP_FETCH] = "egress_swap_fetch",
    [SM_AUDIT_EGRESS_OTHER_DENY] = "egress_other_deny",
    [SM_AUDIT_INGRESS_ACCEPT] = "ingress_accept",
    [SM_AUDIT_INGRESS_CLOSE] = "ingress_close",
    [SM_AUDIT_MEDIATION_OPEN] = "mediation_open",
    [SM_AUDIT_MEDIATION_CLOSE] = "mediation_close",
    [SM_AUDIT_MEDIATION_ERROR] = "mediation_error",
    [SM_AUDIT_CA_DELIVERED] = "ca_delivered",
    [SM_AUDIT_EGRESS_LOG_REPAIR] = "egress_log_repair",
    [SM_AUDIT_EGRESS_LOG_ROTATE] = "egress_log_rotate",
    [SM_AUDIT_EGRESS_LOG_RESUME] = "egress_log_resume",
    [SM_AUDIT_EGRESS_POLICY] = "egress_policy",
    [SM_AUDIT_INGRESS_DENY] = "ingress_deny",
};
SM_NAME_TABLE_COVERS(event_names, SM_AUDIT_EVENTS);

/* What a cut string needs behind its last character: U+2026 and the quote. */
#define CUT_MARK "\xe2\x80\xa6"
#define STR_CLOSE (sizeof(CUT_MARK) - 1 + 1)

const char *sm_audit_event_name(enum sm_audit_event event)
{
    return (unsigned)event < SM_AUDIT_EVENTS ? event_names[event] : "egress_unknown";
}

bool sm_audit_event_parse(const char *name, enum sm_audit_event *ret)
{
    for (unsigned i = 0; i < SM_AUDIT_EVENTS; i++) {
        if (strcmp(name, event_names[i]) == 0) {
            *ret = (enum sm_audit_event)i;
            return true;
        }
    }
    return false;
}

bool sm_audit_name_valid(const char *name)
{
    size_t n = 0;
    for (; name[n]; n++) {
        char c = name[n];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (n >= 63 || !(alnum || (n > 0 && (c == '.' || c == '_' || c == '-'))))
            return false;
    }
    return n > 0;
}

/* ---- the record ---- */

void sm_audit_begin(struct sm_audit_record *r, enum sm_audit_event event, int64_t wall_us)
{
    r->event = event;
    r->wall_us = wall_us;
    r->len = 0;
    r->truncated = false;
    r->n_keys = 0;
}

static size_t room(const struct sm_audit_record *r)
{
    return SM_AUDIT_FIELDS_MAX - r->len;
}

static void put(struct sm_audit_record *r, const char *text, size_t n)
{
    assert(n <= room(r));
    memcpy(r->fields + r->len, text, n);
    r->len += n;
}

/* `,"key":`, if it and value_least bytes behind it fit; else the field is left out and the line marked. */
static bool open_field(struct sm_audit_record *r, const char *key, size_t value_least)
{
    size_t n = strlen(key);
    /* The first letter spares nearly all of the calls: a request's line has some twenty keys. */
    for (unsigned i = 0; i < r->n_keys; i++)
        assert(r->keys[i][0] != key[0] || strcmp(r->keys[i], key) != 0);
    if (r->n_keys >= SM_AUDIT_KEYS_MAX || n + 4 + value_least > room(r)) {
        r->truncated = true;
        return false;
    }
    r->keys[r->n_keys++] = key;
    put(r, ",\"", 2);
    put(r, key, n);
    put(r, "\":", 2);
    return true;
}

/* Nearly every byte is one that stands for itself: names and addresses. */
static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* A string value of at most max input bytes. keep: room that must stay free behind its closing quote. */
static void put_string(struct sm_audit_record *r, const void *bytes, size_t len, size_t max, size_t keep)
{
    const uint8_t *p = bytes;
    bool cut = false;
    size_t i = 0;

    put(r, "\"", 1);
    while (i < len) {
        char esc[SM_AUDIT_ESCAPED_MAX];
        size_t used;
        size_t most = room(r) > STR_CLOSE + keep ? room(r) - STR_CLOSE - keep : 0;
        size_t end = i + SM_MIN(most, i < max ? SM_MIN(len, max) - i : 0), from = i;
        while (i < end && is_plain(p[i]))
            i++;
        if (i > from) {
            put(r, (const char *)p + from, i - from);
            continue;
        }
        /* Decoding looks at all bytes that are there, so that the maximum cuts between characters. */
        uint32_t cp = sm_audit_utf8_next(p + i, len - i, &used);
        size_t n = sm_audit_escape_cp(cp, p + i, used, esc);
        if (i + used > max || n + STR_CLOSE + keep > room(r)) {
            cut = true;
            break;
        }
        put(r, esc, n);
        i += used;
    }
    if (cut) {
        put(r, CUT_MARK, sizeof(CUT_MARK) - 1);
        r->truncated = true;
    }
    put(r, "\"", 1);
}

void sm_audit_add_guest_max(struct sm_audit_record *r, const char *key, const void *bytes, size_t len, size_t max)
{
    if (bytes && open_field(r, key, 1 + STR_CLOSE))
        put_string(r, bytes, len, max, 0);
}

void sm_audit_add_guest(struct sm_audit_record *r, const char *key, const void *bytes, size_t len)
{
    sm_audit_add_guest_max(r, key, bytes, len, SM_AUDIT_GUEST_MAX);
}

void sm_audit_add_str(struct sm_audit_record *r, const char *key, const char *value)
{
    if (value)
        sm_audit_add_guest_max(r, key, value, strlen(value), SIZE_MAX);
}

static size_t format_u64(uint64_t v, char out[20])
{
    char rev[20];
    size_t n = 0;
    do {
        rev[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (size_t i = 0; i < n; i++)
        out[i] = rev[n - 1 - i];
    return n;
}

void sm_audit_add_uint(struct sm_audit_record *r, const char *key, uint64_t value)
{
    char text[20];
    size_t n = format_u64(SM_MIN(value, (uint64_t)INT64_MAX), text);
    if (open_field(r, key, n))
        put(r, text, n);
}

void sm_audit_add_int(struct sm_audit_record *r, const char *key, int64_t value)
{
    char text[21] = "-";
    if (value >= 0) {
        sm_audit_add_uint(r, key, (uint64_t)value);
        return;
    }
    size_t n = 1 + format_u64(-(uint64_t)value, text + 1);
    if (open_field(r, key, n))
        put(r, text, n);
}

void sm_audit_add_bool(struct sm_audit_record *r, const char *key, bool value)
{
    const char *text = value ? "true" : "false";
    if (open_field(r, key, 5))
        put(r, text, strlen(text));
}

void sm_audit_add_addr(struct sm_audit_record *r, const char *key, const struct sm_addr *addr)
{
    char text[SM_ADDR_STRLEN];
    if (addr->family != SM_FAMILY_NONE)
        sm_audit_add_str(r, key, sm_addr_format(addr, text));
}

void sm_audit_add_endpoint(struct sm_audit_record *r, const char *key, const struct sm_endpoint *endpoint)
{
    char text[SM_ENDPOINT_STRLEN];
    if (endpoint->addr.family != SM_FAMILY_NONE)
        sm_audit_add_str(r, key, sm_endpoint_format(endpoint, text));
}

void sm_audit_add_strv(struct sm_audit_record *r, const char *key, const char *const *values, size_t n)
{
    if (!open_field(r, key, 2))
        return;
    put(r, "[", 1);
    for (size_t i = 0; i < n; i++) {
        /* comma, quote, at least a cut mark, quote, bracket */
        if (i >= SM_AUDIT_STRV_MAX || 2 + STR_CLOSE + 1 > room(r)) {
            r->truncated = true;
            break;
        }
        if (i > 0)
            put(r, ",", 1);
        put_string(r, values[i], strlen(values[i]), SM_AUDIT_GUEST_MAX, 1);
    }
    put(r, "]", 1);
}

void sm_audit_add_target(struct sm_audit_record *r, const struct sm_audit_target *target)
{
    if (target->flow)
        sm_audit_add_uint(r, "flow", target->flow);
    sm_audit_add_endpoint(r, "src", &target->src);
    sm_audit_add_addr(r, "dst", &target->dst.addr);
    if (target->dst.port)
        sm_audit_add_uint(r, "port", target->dst.port);
    if (target->host && target->host_len)
        sm_audit_add_guest(r, "host", target->host, target->host_len);
    sm_audit_add_str(r, "name_source", target->name_source);
    sm_audit_add_str(r, "rule", target->rule);
    sm_audit_add_str(r, "reason", target->reason);
    sm_audit_add_bool(r, "unlisted", target->unlisted);
    sm_audit_add_bool(r, "internal", target->internal);
    if (target->has_mitm)
        sm_audit_add_bool(r, "mitm", target->mitm);
}

/* ---- the line ---- */

static void put_digits(char *out, unsigned v, size_t n)
{
    while (n-- > 0) {
        out[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

void sm_audit_format_ts(int64_t wall_us, char out[SM_AUDIT_TS_STRLEN])
{
    /* 9999-12-31T23:59:59.999999Z */
    const int64_t last = INT64_C(253402300799999999);
    int64_t us = SM_MIN(SM_MAX(wall_us, 0), last);
    int64_t secs = us / 1000000;
    unsigned in_day = (unsigned)(secs % 86400);
    /* Days to a civil date over 400-year eras that begin on 1 March, so that the leap day is the last of its year. */
    unsigned days = (unsigned)(secs / 86400) + 719468;
    unsigned era = days / 146097, doe = days % 146097;
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    unsigned month = mp < 10 ? mp + 3 : mp - 9;
    unsigned year = yoe + era * 400 + (month <= 2 ? 1 : 0);

    memcpy(out, "YYYY-MM-DDTHH:MM:SS.uuuuuuZ", SM_AUDIT_TS_STRLEN);
    put_digits(out, year, 4);
    put_digits(out + 5, month, 2);
    put_digits(out + 8, doy - (153 * mp + 2) / 5 + 1, 2);
    put_digits(out + 11, in_day / 3600, 2);
    put_digits(out + 14, in_day / 60 % 60, 2);
    put_digits(out + 17, in_day % 60, 2);
    put_digits(out + 20, (unsigned)(us % 1000000), 6);
}

static char *stp(char *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, text, n);
    return at + n;
}

/* The parts of the head that sm_audit_parse_head() relies on. */
#define HEAD_TS "{\"ts\":\""
#define HEAD_SEQ "\",\"seq\":"
#define HEAD_EVENT ",\"event\":\""

size_t sm_audit_format_line(char *out, enum sm_audit_event event, int64_t wall_us, uint64_t seq, const char *workspace,
                            const char *fields, size_t fields_len, bool truncated)
{
    char ts[SM_AUDIT_TS_STRLEN];
    char *at = out;

    assert(fields_len <= SM_AUDIT_FIELDS_MAX && sm_audit_name_valid(workspace));
    sm_audit_format_ts(wall_us, ts);
    at = stp(at, HEAD_TS);
    at = stp(at, ts);
    at = stp(at, HEAD_SEQ);
    at += format_u64(seq, at);
    at = stp(at, HEAD_EVENT);
    at = stp(at, sm_audit_event_name(event));
    at = stp(at, "\",\"workspace\":\"");
    at = stp(at, workspace);
    at = stp(at, "\"");
    memcpy(at, fields, fields_len);
    at += fields_len;
    if (truncated)
        at = stp(at, ",\"truncated\":true");
    at = stp(at, "}\n");
    return (size_t)(at - out);
}

bool sm_audit_parse_head(const char *line, size_t len, uint64_t *ret_seq)
{
    const size_t digits_at = sizeof(HEAD_TS) - 1 + SM_AUDIT_TS_STRLEN - 1 + sizeof(HEAD_SEQ) - 1;
    const size_t event_len = sizeof(HEAD_EVENT) - 1;
    uint64_t seq = 0;
    size_t i = digits_at;

    if (len < digits_at || memcmp(line, HEAD_TS, sizeof(HEAD_TS) - 1) != 0 ||
        memcmp(line + digits_at - (sizeof(HEAD_SEQ) - 1), HEAD_SEQ, sizeof(HEAD_SEQ) - 1) != 0)
        return false;
    for (; i < len && line[i] >= '0' && line[i] <= '9'; i++) {
        if (i - digits_at >= 19) /* 19 digits fit in 64 bits */
            return false;
        seq = seq * 10 + (uint64_t)(line[i] - '0');
    }
    if (seq > SM_AUDIT_SEQ_MAX || i == digits_at || len - i < event_len || memcmp(line + i, HEAD_EVENT, event_len) != 0)
        return false;
    *ret_seq = seq;
    return true;
}
