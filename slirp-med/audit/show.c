/* SPDX-License-Identifier: BSD-3-Clause */
/* Every byte of the output goes through one of two functions here: put_text() for columns, put_json_text() for JSON;
 * see show.h. */
#include "audit/show.h"

#include <string.h>

#include "audit/event.h"
#include "audit/text.h"

/* Columns are as wide as the usual content; a longer one pushes the next. */
enum { COL_TS = 27, COL_EVENT = 24, COL_FLOW = 6, COL_TARGET = 44 };

/* Text as it is, except for characters that act and bytes that are no UTF-8. quoted: inside double quotes, where quote
 * and backslash are escaped. */
static void put_text(GString *out, const char *text, size_t len, bool quoted)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0; i < len;) {
        char esc[SM_AUDIT_ESCAPED_MAX];
        size_t used;
        uint32_t cp = sm_audit_utf8_next(p + i, len - i, &used);
        if (!quoted && (cp == '"' || cp == '\\'))
            g_string_append_c(out, (char)cp);
        else
            g_string_append_len(out, esc, (gssize)sm_audit_escape_cp(cp, p + i, used, esc));
        i += used;
    }
}

/* Valid JSON, with what acts on a terminal escaped: raw C0 can only be white space between tokens there, the others
 * only inside strings. */
static void put_json_text(GString *out, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0; i < len;) {
        char esc[SM_AUDIT_ESCAPED_MAX];
        size_t used;
        uint32_t cp = sm_audit_utf8_next(p + i, len - i, &used);
        if (cp < 0x20)
            g_string_append_c(out, ' ');
        else if (cp == '"' || cp == '\\')
            g_string_append_c(out, (char)cp);
        else
            g_string_append_len(out, esc, (gssize)sm_audit_escape_cp(cp, p + i, used, esc));
        i += used;
    }
}

static bool needs_quotes(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return true;
    }
    return len == 0;
}

/* One value of a key=value pair; arrays as a,b,c. */
static void put_value(GString *out, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING: {
        const char *s = json_string_value(v);
        size_t n = json_string_length(v);
        bool quoted = needs_quotes(s, n);
        if (quoted)
            g_string_append_c(out, '"');
        put_text(out, s, n, quoted);
        if (quoted)
            g_string_append_c(out, '"');
        break;
    }
    case JSON_ARRAY: {
        size_t n = json_array_size(v);
        if (n == 0)
            g_string_append(out, "[]");
        for (size_t i = 0; i < n; i++) {
            const json_t *item = json_array_get(v, i);
            if (i > 0)
                g_string_append_c(out, ',');
            /* Records of ours have no nested arrays; a forged one is not followed into its depth. */
            if (json_is_array(item) || json_is_object(item))
                g_string_append(out, "...");
            else
                put_value(out, item);
        }
        break;
    }
    case JSON_OBJECT:
        g_string_append(out, "{...}");
        break;
    case JSON_INTEGER:
        g_string_append_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        g_string_append_printf(out, "%g", json_real_value(v));
        break;
    case JSON_TRUE:
        g_string_append(out, "true");
        break;
    case JSON_FALSE:
        g_string_append(out, "false");
        break;
    case JSON_NULL:
        g_string_append(out, "null");
        break;
    }
}

/* Fill up to a column's width, counted in characters from `from`, and two blanks. */
static void pad(GString *out, gsize from, long width)
{
    long have = g_utf8_strlen(out->str + from, (gssize)(out->len - from));
    for (; have < width; have++)
        g_string_append_c(out, ' ');
    g_string_append(out, "  ");
}

static void put_field(GString *out, const json_t *v, long width)
{
    gsize from = out->len;
    if (v)
        put_value(out, v);
    else
        g_string_append_c(out, '-');
    pad(out, from, width);
}

/* host:port (dst), or dst:port, or - */
static void put_target(GString *out, const json_t *json)
{
    const json_t *host = json_object_get(json, "host"), *dst = json_object_get(json, "dst"),
                 *port = json_object_get(json, "port");
    gsize from = out->len;

    if (host)
        put_value(out, host);
    else if (dst && json_is_string(dst) && strchr(json_string_value(dst), ':')) {
        g_string_append_c(out, '[');
        put_value(out, dst);
        g_string_append_c(out, ']');
    } else if (dst)
        put_value(out, dst);
    else
        g_string_append_c(out, '-');
    if (port) {
        g_string_append_c(out, ':');
        put_value(out, port);
    }
    if (host && dst) {
        g_string_append(out, " (");
        put_value(out, dst);
        g_string_append_c(out, ')');
    }
    pad(out, from, COL_TARGET);
}

static bool has_column(const char *key)
{
    static const char *const keys[] = {"ts", "seq", "event", "workspace", "flow", "host", "dst", "port"};
    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* No blanks before the newline: the last column may be empty. */
static void end_line(GString *out)
{
    while (out->len > 0 && out->str[out->len - 1] == ' ')
        g_string_truncate(out, out->len - 1);
    g_string_append_c(out, '\n');
}

void sm_audit_show_header(GString *out)
{
    g_string_append_printf(out, "%-*s  %-*s  %-*s  %-*s  %s\n", COL_TS, "TIME", COL_EVENT, "EVENT", COL_FLOW, "FLOW",
                           COL_TARGET, "TARGET", "DETAIL");
}

void sm_audit_show_columns(GString *out, const struct sm_audit_line *line)
{
    if (line->kind != SM_AUDIT_LINE_RECORD) {
        gsize from = out->len;
        g_string_append_c(out, '-');
        pad(out, from, COL_TS);
        g_string_append_printf(out, "(%s line of %zu bytes: ", sm_audit_line_kind_name(line->kind), line->len);
        put_text(out, line->text, line->len, false);
        g_string_append_c(out, ')');
        end_line(out);
        return;
    }

    const json_t *json = line->json;
    put_field(out, json_object_get(json, "ts"), COL_TS);
    put_field(out, json_object_get(json, "event"), COL_EVENT);
    put_field(out, json_object_get(json, "flow"), COL_FLOW);
    put_target(out, json);

    const char *key;
    json_t *v;
    bool first = true;
    /* jansson's iteration wants a non-const object and does not change it. */
    json_t *object = (json_t *)(uintptr_t)json;
    json_object_foreach(object, key, v)
    {
        if (has_column(key) || json_is_false(v))
            continue;
        if (!first)
            g_string_append_c(out, ' ');
        first = false;
        put_text(out, key, strlen(key), false);
        if (!json_is_true(v)) {
            g_string_append_c(out, '=');
            put_value(out, v);
        }
    }
    end_line(out);
}

void sm_audit_show_json(GString *out, const struct sm_audit_line *line)
{
    if (line->kind == SM_AUDIT_LINE_RECORD) {
        put_json_text(out, line->text, line->len);
        return;
    }
    g_string_append_printf(out, "{\"invalid\":\"%s\",\"text\":\"", sm_audit_line_kind_name(line->kind));
    put_text(out, line->text, line->len, true);
    g_string_append(out, "\"}");
}
