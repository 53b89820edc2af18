/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The policy file, strictly: see file.h.
 *
 * Both formats feed one small collector (which key is open, which entries came) that knows nothing of YAML or JSON;
 * only when the whole file is good does anything reach the lists. YAML is read as libyaml's events. JSON is checked as
 * a whole by jansson, which keeps no line numbers, and then walked token by token with our own line count; after
 * jansson's check the walk cannot meet a malformed token.
 */
#include "policy/file.h"

#include <jansson.h>
#include <string.h>
#include <yaml.h>

#include "base/error.h"

struct collected {
    enum sm_list_kind list;
    struct sm_entry entry;
};

struct collector {
    const char *file;
    GArray *entries; /* struct collected */
    size_t room;     /* how many more the lists can take */
    bool seen[SM_LIST_KINDS];
    enum sm_list_kind open;
};

static bool fail(const struct collector *c, size_t line, GError **error, const char *fmt, ...) SM_PRINTF(4, 5);

static bool fail(const struct collector *c, size_t line, GError **error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    sm_error_set(error, SM_ERROR_INVALID, "%s:%zu: %s", c->file, line, text);
    return false;
}

/* A key of the top mapping begins. */
static bool collect_key(struct collector *c, size_t line, const char *key, size_t len, GError **error)
{
    static const enum sm_list_kind keys[] = {SM_LIST_ALLOW, SM_LIST_PASSTHROUGH};

    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++) {
        const char *name = sm_list_kind_name(keys[i]);
        if (strlen(name) != len || memcmp(name, key, len) != 0)
            continue;
        if (c->seen[keys[i]])
            return fail(c, line, error, "key '%s' is there twice: join the two lists", name);
        c->seen[keys[i]] = true;
        c->open = keys[i];
        return true;
    }
    g_autofree char *copy = g_strndup(key, len);
    g_autofree char *shown = g_strescape(copy, NULL);
    return fail(c, line, error, "unknown key '%.60s': a policy file has allow and passthrough", shown);
}

/* An entry of the open list. */
static bool collect_entry(struct collector *c, size_t line, const char *text, size_t len, GError **error)
{
    struct collected item = {.list = c->open};
    GError *inner = NULL;

    if (memchr(text, '\0', len))
        return fail(c, line, error, "an entry has a NUL byte in it");
    g_autofree char *copy = g_strndup(text, len);
    if (!sm_entry_parse(copy, &item.entry, &inner)) {
        g_propagate_prefixed_error(error, inner, "%s:%zu: ", c->file, line);
        return false;
    }
    if (c->entries->len >= c->room) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s:%zu: more than %d entries: use suffixes or ranges", c->file, line,
                     SM_LISTS_MAX);
        return false;
    }
    g_array_append_val(c->entries, item);
    return true;
}

/* ---- YAML ---- */

enum yaml_state {
    AT_STREAM, /* before the stream */
    AT_DOCUMENT,
    AT_TOP, /* the document's root */
    AT_KEY,
    AT_VALUE,
    AT_ENTRY,
    AT_DOCUMENT_END,
    AT_END,
};

/* Plain words that YAML 1.1 readers take for null or a boolean: an operator who writes one did not mean a host. */
static bool is_yaml_word(const char *text, size_t len)
{
    static const char *const words[] = {"~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < SM_ARRAY_LEN(words); i++)
        if (strlen(words[i]) == len && g_ascii_strncasecmp(words[i], text, len) == 0)
            return true;
    return false;
}

static size_t line_of_offset(const char *data, size_t len, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < SM_MIN(offset, len); i++)
        line += data[i] == '\n';
    return line;
}

static const char *event_word(yaml_event_type_t type)
{
    switch (type) {
    case YAML_SCALAR_EVENT:
        return "text";
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_ALIAS_EVENT:
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        break;
    }
    return "nothing";
}

/* Anchors, aliases and tags: a list of hosts needs none, and each can make a file mean other than it reads. */
static bool yaml_is_plain_value(const struct collector *c, const yaml_event_t *ev, size_t line, GError **error)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (ev->type == YAML_ALIAS_EVENT)
        return fail(c, line, error, "aliases (*name) are not allowed: write the value out");
    if (ev->type == YAML_SCALAR_EVENT) {
        anchor = ev->data.scalar.anchor;
        tag = ev->data.scalar.tag;
    } else if (ev->type == YAML_SEQUENCE_START_EVENT) {
        anchor = ev->data.sequence_start.anchor;
        tag = ev->data.sequence_start.tag;
    } else if (ev->type == YAML_MAPPING_START_EVENT) {
        anchor = ev->data.mapping_start.anchor;
        tag = ev->data.mapping_start.tag;
    }
    if (anchor)
        return fail(c, line, error, "anchors (&name) are not allowed: write the value out");
    if (tag)
        return fail(c, line, error, "tags (!type) are not allowed: remove it");
    return true;
}

static bool yaml_entry(struct collector *c, const yaml_event_t *ev, size_t line, GError **error)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;

    if (len > 0 && ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && is_yaml_word(text, len))
        return fail(c, line, error, "wrong type: an entry is text, '%.*s' is not (quote it if it is a host)", (int)len,
                    text);
    return collect_entry(c, line, text, len, error);
}

static bool yaml_step(struct collector *c, enum yaml_state *state, const yaml_event_t *ev, GError **error)
{
    size_t line = ev->start_mark.line + 1;

    if (!yaml_is_plain_value(c, ev, line, error))
        return false;
    switch (*state) {
    case AT_STREAM:
        *state = AT_DOCUMENT;
        return true;
    case AT_DOCUMENT:
        if (ev->type == YAML_STREAM_END_EVENT)
            return fail(c, line, error, "the file is empty: write allow: [] to list nothing");
        if (ev->data.document_start.tag_directives.start != ev->data.document_start.tag_directives.end)
            return fail(c, line, error, "tags (%%TAG) are not allowed: remove it");
        *state = AT_TOP;
        return true;
    case AT_TOP:
        if (ev->type != YAML_MAPPING_START_EVENT)
            return fail(c, line, error, "wrong type: a policy file is a mapping of allow and passthrough, not %s",
                        event_word(ev->type));
        *state = AT_KEY;
        return true;
    case AT_KEY:
        if (ev->type == YAML_MAPPING_END_EVENT) {
            *state = AT_DOCUMENT_END;
            return true;
        }
        if (ev->type != YAML_SCALAR_EVENT)
            return fail(c, line, error, "wrong type: a key is allow or passthrough, not %s", event_word(ev->type));
        if (!collect_key(c, line, (const char *)ev->data.scalar.value, ev->data.scalar.length, error))
            return false;
        *state = AT_VALUE;
        return true;
    case AT_VALUE:
        if (ev->type != YAML_SEQUENCE_START_EVENT)
            return fail(c, line, error, "wrong type: '%s' is a list of entries, not %s", sm_list_kind_name(c->open),
                        event_word(ev->type));
        *state = AT_ENTRY;
        return true;
    case AT_ENTRY:
        if (ev->type == YAML_SEQUENCE_END_EVENT) {
            *state = AT_KEY;
            return true;
        }
        if (ev->type != YAML_SCALAR_EVENT)
            return fail(c, line, error, "wrong type: an entry of '%s' is text, not %s", sm_list_kind_name(c->open),
                        event_word(ev->type));
        return yaml_entry(c, ev, line, error);
    case AT_DOCUMENT_END:
        if (ev->type == YAML_DOCUMENT_END_EVENT)
            return true;
        if (ev->type == YAML_DOCUMENT_START_EVENT)
            return fail(c, line, error, "a second document: a policy file has one");
        *state = AT_END;
        return true;
    case AT_END:
        break;
    }
    return true;
}

static bool parse_yaml(struct collector *c, const char *data, size_t len, GError **error)
{
    yaml_parser_t parser;
    enum yaml_state state = AT_STREAM;
    bool ok = true;

    if (!yaml_parser_initialize(&parser)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "%s: out of memory", c->file);
        return false;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, len);
    while (ok && state != AT_END) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&parser, &ev)) {
            size_t line = parser.error == YAML_READER_ERROR ? line_of_offset(data, len, parser.problem_offset)
                                                            : parser.problem_mark.line + 1;
            ok = fail(c, line, error, "not YAML: %s%s%s", parser.problem ? parser.problem : "parse error",
                      parser.context ? ", " : "", parser.context ? parser.context : "");
            break;
        }
        ok = yaml_step(c, &state, &ev, error);
        yaml_event_delete(&ev);
    }
    yaml_parser_delete(&parser);
    return ok;
}

/* ---- JSON ---- */

struct json_walk {
    const char *p;
    const char *end;
    size_t line;
    const char *token; /* start of the token that json_next() returned */
    size_t token_len;
};

/* The next token's first character: one of {}[]:, or " for a string, or the first of a number or word. 0 at the end. */
static char json_next(struct json_walk *w)
{
    while (w->p < w->end && strchr(" \t\r\n", *w->p) && *w->p) {
        w->line += *w->p == '\n';
        w->p++;
    }
    if (w->p >= w->end)
        return '\0';
    w->token = w->p;
    if (*w->p == '"') {
        for (w->p++; w->p < w->end && *w->p != '"'; w->p++)
            if (*w->p == '\\')
                w->p++;
        w->p++;
    } else if (strchr("{}[]:,", *w->p)) {
        w->p++;
    } else {
        while (w->p < w->end && *w->p && !strchr(" \t\r\n{}[]:,\"", *w->p))
            w->p++;
    }
    w->p = SM_MIN(w->p, w->end);
    w->token_len = (size_t)(w->p - w->token);
    return *w->token;
}

static const char *json_word(char first)
{
    switch (first) {
    case '"':
        return "text";
    case '[':
        return "a list";
    case '{':
        return "a mapping";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return "a number";
    }
}

/* The string that the token spells, decoded; NULL if it is none (cannot happen after jansson's check). */
static json_t *json_string_of(const struct json_walk *w)
{
    return json_loadb(w->token, w->token_len, JSON_DECODE_ANY, NULL);
}

static bool json_list(struct collector *c, struct json_walk *w, GError **error)
{
    char first = json_next(w);

    if (first != '[')
        return fail(c, w->line, error, "wrong type: '%s' is a list of entries, not %s", sm_list_kind_name(c->open),
                    json_word(first));
    while ((first = json_next(w)) != ']') {
        if (first == ',')
            continue;
        if (first != '"')
            return fail(c, w->line, error, "wrong type: an entry of '%s' is text, not %s", sm_list_kind_name(c->open),
                        json_word(first));
        json_t *text = json_string_of(w);
        bool ok = text ? collect_entry(c, w->line, json_string_value(text), json_string_length(text), error)
                       : fail(c, w->line, error, "not JSON: a string does not parse");
        json_decref(text);
        if (!ok)
            return false;
    }
    return true;
}

static bool parse_json(struct collector *c, const char *data, size_t len, GError **error)
{
    struct json_walk w = {.p = data, .end = data + len, .line = 1};
    json_error_t problem;
    json_t *whole = json_loadb(data, len, JSON_REJECT_DUPLICATES, &problem);
    char first;

    if (!whole) {
        g_autofree char *shown = g_strescape(problem.text, NULL);
        return fail(c, problem.line > 0 ? (size_t)problem.line : 1, error, "not JSON: %s", shown);
    }
    json_decref(whole);
    first = json_next(&w);
    if (first != '{')
        return fail(c, w.line, error, "wrong type: a policy file is an object of allow and passthrough, not %s",
                    json_word(first));
    while ((first = json_next(&w)) != '}') {
        if (first == ',')
            continue;
        json_t *key = first == '"' ? json_string_of(&w) : NULL;
        bool ok = key ? collect_key(c, w.line, json_string_value(key), json_string_length(key), error)
                      : fail(c, w.line, error, "not JSON: a key does not parse");
        json_decref(key);
        if (!ok)
            return false;
        (void)json_next(&w); /* ':' */
        if (!json_list(c, &w, error))
            return false;
    }
    return true;
}

bool sm_policy_file_parse(const char *file_name, const char *data, size_t len, struct sm_lists *lists, GError **error)
{
    struct collector c = {.file = file_name, .room = SM_LISTS_MAX};
    bool yaml = g_str_has_suffix(file_name, ".yaml") || g_str_has_suffix(file_name, ".yml");
    bool ok;

    if (!yaml && !g_str_has_suffix(file_name, ".json")) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: the name of a policy file ends in .yaml, .yml or .json", file_name);
        return false;
    }
    if (len > SM_POLICY_FILE_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: a policy file has at most %zu bytes", file_name, SM_POLICY_FILE_MAX);
        return false;
    }
    for (int i = 0; i < SM_LIST_KINDS; i++)
        c.room -= sm_lists_count(lists, (enum sm_list_kind)i);
    c.entries = g_array_new(FALSE, FALSE, sizeof(struct collected));
    ok = yaml ? parse_yaml(&c, data, len, error) : parse_json(&c, data, len, error);
    for (guint i = 0; ok && i < c.entries->len; i++) {
        const struct collected *item = &g_array_index(c.entries, struct collected, i);
        ok = sm_lists_add(lists, item->list, &item->entry, error);
    }
    g_array_unref(c.entries);
    return ok;
}
