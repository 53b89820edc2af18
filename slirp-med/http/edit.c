/* SPDX-License-Identifier: BSD-3-Clause */
/* Heads, line by line: copied, dropped, replaced, or a Connection line with fewer members. See edit.h. */
#include "http/edit.h"

#include <glib.h>
#include <string.h>

#include "base/secret.h"
#include "http/field.h"
#include "http/scrub.h"

/* What belongs to an offer of h2c: lines of their own, and members of Connection. */
static const char *const h2c_names[] = {"Upgrade", "HTTP2-Settings"};

/*
 * What asks for a part of a representation, or for what it differs in from another: the guest would have a secret cut in pieces that the
 * scrub does not know. (Request-Range: a draft's name, which Apache still takes.) A server without these answers with the whole.
 */
static const char *const part_names[] = {"Range", "Request-Range", "A-IM"};

static const char identity_name[] = "accept-encoding";
static const char identity_value[] = "identity";

/* What is done to a line of some name. The first two are those that the origin gets one line of. */
enum act { REPLACE, IDENTITY, DROP, CONNECTION, KEEP };
#define ADDED (IDENTITY + 1)
_Static_assert(ADDED == SM_HTTP_EDIT_FIELDS, "each of these may be added");

bool sm_http_edit_valid(const struct sm_bridge_edit *from)
{
    if (!from->name)
        return true;
    return strlen(from->name) <= SM_BRIDGE_NAME_MAX && from->value_len <= SM_BRIDGE_VALUE_MAX &&
           sm_http_may_replace((const uint8_t *)from->name, strlen(from->name)) &&
           sm_http_value_ok((const uint8_t *)from->value, from->value_len);
}

struct sm_http_edit *sm_http_edit_new(const struct sm_bridge_edit *from)
{
    if (!from->name && !from->identity)
        return NULL;
    struct sm_http_edit *e = g_new0(struct sm_http_edit, 1);
    e->identity = from->identity;
    if (from->name) {
        e->name = g_ascii_strdown(from->name, -1);
        e->name_len = strlen(e->name);
        e->value = g_malloc(from->value_len + 1);
        e->value_len = from->value_len;
        if (from->value_len > 0)
            memcpy(e->value, from->value, from->value_len);
    }
    return e;
}

void sm_http_edit_spent(struct sm_http_edit *e)
{
    if (!e->value)
        return;
    sm_wipe(e->value, e->value_len);
    g_free(sm_steal_ptr(&e->value));
    e->value_len = 0;
}

void sm_http_edit_free(struct sm_http_edit *e)
{
    if (!e)
        return;
    sm_http_edit_spent(e);
    g_free(e->name);
    g_free(e);
}

bool sm_http_edit_any(const struct sm_http_edit *e)
{
    return e->drop_h2c || e->identity || e->name;
}

size_t sm_http_edit_room(const struct sm_http_edit *e, size_t len)
{
    size_t around = strlen(": \r\n");

    if (e->name)
        len += e->name_len + e->value_len + around;
    if (e->identity)
        len += strlen(identity_name) + strlen(identity_value) + around;
    return len;
}

/* KEEP, or what becomes of a line of this name, and of the name in Connection. */
static enum act act_on(const struct sm_http_edit *e, const uint8_t *name, size_t len)
{
    if (e->name && sm_http_same_nocase(name, len, e->name))
        return REPLACE;
    if (e->identity && sm_http_same_nocase(name, len, identity_name))
        return IDENTITY;
    for (size_t i = 0; e->identity && i < SM_ARRAY_LEN(part_names); i++)
        if (sm_http_same_nocase(name, len, part_names[i]))
            return DROP;
    for (size_t i = 0; e->drop_h2c && i < SM_ARRAY_LEN(h2c_names); i++)
        if (sm_http_same_nocase(name, len, h2c_names[i]))
            return DROP;
    return KEEP;
}

static size_t append(uint8_t *out, const void *p, size_t len)
{
    if (len > 0)
        memcpy(out, p, len);
    return len;
}

/*
 * A Connection line with its CRLF, without the members that go; what stays keeps its bytes. Nothing when nothing is
 * left.
 */
static size_t edit_connection(const struct sm_http_edit *e, const uint8_t *line, size_t len, uint8_t *out)
{
    size_t name = sizeof("Connection:") - 1;
    const uint8_t *value = line + name, *member;
    size_t value_len = len - name - 2;
    size_t n = name, at = 0, member_len;
    bool first = true, something = false, removed = false;

    memcpy(out, line, name);
    for (size_t begin = 0; sm_http_list_next(value, value_len, &at, &member, &member_len); begin = at) {
        if (act_on(e, member, member_len) != KEEP) {
            removed = true;
            continue;
        }
        something |= member_len > 0;
        if (!first)
            out[n++] = ',';
        first = false;
        memcpy(out + n, value + begin, at - 1 - begin);
        n += at - 1 - begin;
    }
    if (!removed) {
        memcpy(out, line, len);
        return len;
    }
    if (!something)
        return 0;
    memcpy(out + n, "\r\n", 2);
    return n + 2;
}

/* The one line of a header that was replaced, under the name that a line had, or its own. */
static size_t put_line(const struct sm_http_edit *e, enum act act, const uint8_t *name, size_t name_len, uint8_t *out)
{
    size_t n = append(out, name, name_len);

    n += append(out + n, ": ", 2);
    if (act == REPLACE)
        n += append(out + n, e->value, e->value_len);
    else
        n += append(out + n, identity_value, strlen(identity_value));
    return n + append(out + n, "\r\n", 2);
}

size_t sm_http_edit_head(const struct sm_http_edit *e, const uint8_t *head, size_t len, uint8_t *out)
{
    bool put[ADDED] = {[REPLACE] = !e->name, [IDENTITY] = !e->identity};
    size_t n = 0, end = len - 2; /* the empty line */
    bool first = true;           /* the request line is no field */

    for (size_t at = 0; at < end; first = false) {
        const uint8_t *lf = memchr(head + at, '\n', end - at);
        size_t line = lf ? (size_t)(lf - head) + 1 - at : end - at;
        const uint8_t *colon = first ? NULL : memchr(head + at, ':', line);
        size_t name = colon ? (size_t)(colon - head) - at : 0;
        enum act act = name == 0                                            ? KEEP
                       : sm_http_same_nocase(head + at, name, "Connection") ? CONNECTION
                                                                            : act_on(e, head + at, name);

        switch (act) {
        case REPLACE:
        case IDENTITY:
            if (!put[act])
                n += put_line(e, act, head + at, name, out + n);
            put[act] = true;
            break;
        case DROP:
            break;
        case CONNECTION:
            n += edit_connection(e, head + at, line, out + n);
            break;
        case KEEP:
            n += append(out + n, head + at, line);
            break;
        }
        at += line;
    }
    if (!put[REPLACE])
        n += put_line(e, REPLACE, (const uint8_t *)e->name, e->name_len, out + n);
    if (!put[IDENTITY])
        n += put_line(e, IDENTITY, (const uint8_t *)identity_name, strlen(identity_name), out + n);
    return n + append(out + n, "\r\n", 2);
}

static nghttp2_nv nv_of(const struct sm_http_edit *e, enum act act)
{
    if (act == REPLACE)
        return (nghttp2_nv){(uint8_t *)e->name, e->value, e->name_len, e->value_len, NGHTTP2_NV_FLAG_NO_INDEX};
    return (nghttp2_nv){(uint8_t *)identity_name, (uint8_t *)identity_value, strlen(identity_name),
                        strlen(identity_value), NGHTTP2_NV_FLAG_NONE};
}

size_t sm_http_edit_nv(const struct sm_http_edit *e, nghttp2_nv *nv, size_t n)
{
    bool put[ADDED] = {[REPLACE] = !e->name, [IDENTITY] = !e->identity};
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        enum act act = act_on(e, nv[i].name, nv[i].namelen);
        if (act == KEEP) {
            nv[kept++] = nv[i];
        } else if (act < ADDED && !put[act]) {
            nv[kept++] = nv_of(e, act);
            put[act] = true;
        }
    }
    for (unsigned act = 0; act < ADDED; act++)
        if (!put[act])
            nv[kept++] = nv_of(e, act);
    return kept;
}

unsigned sm_http_scrub_line(const struct sm_scrub *scrub, uint8_t *line, size_t len)
{
    const uint8_t *colon = memchr(line, ':', len);
    size_t value = colon ? (size_t)(colon - line) + 1 : len;

    if (!colon || !sm_http_scrubs(line, value - 1))
        return 0;
    return sm_scrub_text(scrub, line + value, len - value);
}

unsigned sm_http_scrub_head(const struct sm_scrub *scrub, uint8_t *head, size_t len)
{
    size_t status = strlen("HTTP/1.1 200");
    unsigned matches = 0;

    for (size_t at = 0; at < len;) {
        const uint8_t *lf = memchr(head + at, '\n', len - at);
        size_t line = (lf ? (size_t)(lf - head) : len) - at; /* with its CR */
        if (at == 0 && line > status)
            matches += sm_scrub_text(scrub, head + status, line - 1 - status);
        else if (at > 0 && line > 1)
            matches += sm_http_scrub_line(scrub, head + at, line - 1);
        at += line + 1;
    }
    return matches;
}
