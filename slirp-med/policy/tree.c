/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A YAML or JSON document as a tree with lines; see tree.h.
 *
 * Both formats feed one builder with the same five calls (open, close, key, leaf, end). YAML is read as libyaml's
 * events. JSON is checked as a whole by jansson, which keeps no line numbers, and then walked token by token with our
 * own line count; after jansson's check the walk cannot meet a malformed token.
 */
#include "policy/tree.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <yaml.h>

#include "base/error.h"

static const char *const kind_words[] = {
    [SM_NODE_MAP] = "a mapping", [SM_NODE_LIST] = "a list",
    [SM_NODE_TEXT] = "text",     [SM_NODE_INTEGER] = "a number",
    [SM_NODE_REAL] = "a number", [SM_NODE_BOOLEAN] = "true or false",
    [SM_NODE_NULL] = "nothing",  [SM_NODE_ODD] = "a word that YAML readers disagree about (if it is text, quote it)",
};
SM_NAME_TABLE_COVERS(kind_words, SM_NODE_KINDS);

const char *sm_node_kind_words(enum sm_node_kind kind)
{
    return (unsigned)kind < SM_NODE_KINDS ? kind_words[kind] : "invalid";
}

void sm_node_free(struct sm_node *node)
{
    if (!node)
        return;
    if (node->items)
        g_ptr_array_unref(node->items); /* at most SM_TREE_DEPTH_MAX deep */
    g_free(node->key);
    g_free(node->text);
    g_free(node->raw);
    g_free(node);
}

static void node_destroy(gpointer node)
{
    sm_node_free(node);
}

/* ---- the builder ---- */

struct builder {
    const struct sm_tree_format *format;
    const char *file;
    void *data; /* of judge() */
    struct sm_node *root;
    struct sm_node *open[SM_TREE_DEPTH_MAX]; /* maps and lists, borrowed from root */
    GHashTable *keys[SM_TREE_DEPTH_MAX];     /* of the open maps: borrowed from their nodes */
    int depth;
    size_t nodes;
    char *key; /* read, and still without its value */
    size_t key_line;
};

static bool fail(const struct builder *b, size_t line, GError **error, const char *fmt, ...) SM_PRINTF(4, 5);

static bool fail(const struct builder *b, size_t line, GError **error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    sm_error_set(error, SM_ERROR_INVALID, "%s:%zu: %s", b->file, line, text);
    return false;
}

/** Is the next value of the open map a key? */
static bool wants_key(const struct builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1]->kind == SM_NODE_MAP && !b->key;
}

static bool build_key(struct builder *b, size_t line, const char *text, size_t len, GError **error)
{
    if (memchr(text, '\0', len))
        return fail(b, line, error, "a key has a NUL byte in it");
    b->key = g_strndup(text, len);
    b->key_line = line;
    if (!g_hash_table_add(b->keys[b->depth - 1], b->key)) {
        g_autofree char *key = g_steal_pointer(&b->key);
        g_autofree char *shown = g_strescape(key, NULL);
        if (b->format->secret)
            return fail(b, line, error, "a key is there twice in one mapping");
        return fail(b, line, error, "key '%.60s' is there twice%s", shown, b->format->twice);
    }
    return true;
}

/* Where a new value goes. Takes ownership in any case. */
static bool build_node(struct builder *b, struct sm_node *given, GError **error)
{
    sm_cleanup(sm_node_freep) struct sm_node *node = given;

    if (++b->nodes > b->format->nodes_max) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s:%zu: more than %zu values", b->file, node->line, b->format->nodes_max);
        return false;
    }
    if (b->depth > 0 && b->open[b->depth - 1]->kind == SM_NODE_MAP) {
        node->key = g_steal_pointer(&b->key); /* stays in the set of keys, which dies with the map's end */
        node->key_line = b->key_line;
    }
    if (b->format->judge && !b->format->judge(b->data, (const struct sm_node *const *)b->open, b->depth, node, error))
        return false;
    if (node->kind == SM_NODE_MAP || node->kind == SM_NODE_LIST) {
        if (b->depth == SM_TREE_DEPTH_MAX)
            return fail(b, node->line, error, "nested too deep");
        node->items = g_ptr_array_new_with_free_func(node_destroy);
    }
    struct sm_node *kept = sm_steal_ptr(&node);
    if (b->depth > 0)
        g_ptr_array_add(b->open[b->depth - 1]->items, kept);
    else
        b->root = kept;
    if (kept->items) {
        b->open[b->depth] = kept;
        b->keys[b->depth] = g_hash_table_new(g_str_hash, g_str_equal);
        b->depth++;
    }
    return true;
}

static void build_close(struct builder *b)
{
    b->depth--;
    g_clear_pointer(&b->keys[b->depth], g_hash_table_unref);
}

static void builder_clear(struct builder *b)
{
    while (b->depth > 0)
        build_close(b);
    g_free(b->key);
    sm_node_free(b->root);
}

static struct sm_node *node_new(enum sm_node_kind kind, size_t line)
{
    struct sm_node *node = g_new0(struct sm_node, 1);
    node->kind = kind;
    node->line = line;
    return node;
}

static struct sm_node *node_text(size_t line, const char *text, size_t len)
{
    struct sm_node *node = node_new(SM_NODE_TEXT, line);
    node->text = g_malloc(len + 1);
    if (len > 0)
        memcpy(node->text, text, len);
    node->text[len] = '\0';
    node->len = len;
    return node;
}

/* ---- YAML ---- */

static bool one_of(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (g_ascii_strcasecmp(words[i], text) == 0)
            return true;
    return false;
}

/* JSON's spelling of a number (RFC 8259, 6), which every YAML reader takes for the same. */
static bool is_json_number(const char *p, bool *ret_real)
{
    *ret_real = false;
    p += *p == '-';
    if (*p == '0')
        p++;
    else if (g_ascii_isdigit(*p))
        p += strspn(p, "0123456789");
    else
        return false;
    if (*p == '.') {
        *ret_real = true;
        if (!g_ascii_isdigit(*++p))
            return false;
        p += strspn(p, "0123456789");
    }
    if (*p == 'e' || *p == 'E') {
        *ret_real = true;
        p++;
        p += *p == '+' || *p == '-';
        if (!g_ascii_isdigit(*p))
            return false;
        p += strspn(p, "0123456789");
    }
    return *p == '\0';
}

/* Numbers of YAML 1.1 in other spellings: signs, octal, hex, binary, underscores, base 60, a bare point. Wide on
 * purpose: what it takes wrongly is refused with the advice to quote it, not misread. */
static bool is_odd_number(const char *text)
{
    const char *p = text + strspn(text, "+-");
    if (*p == '.')
        p++;
    if (!g_ascii_isdigit(*p))
        return false;
    const char *point = strchr(text, '.');
    if (point && strchr(point + 1, '.'))
        return false; /* an address, a version */
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
        return p[2 + strspn(p + 2, "0123456789abcdefABCDEF_")] == '\0';
    return p[strspn(p, "0123456789_.:+-eEboB")] == '\0';
}

static struct sm_node *plain_scalar(size_t line, const char *text, size_t len)
{
    static const char *const odd[] = {"yes",  "no",   "on",    "off",   "y",    "n",    "~",
                                      ".nan", ".inf", "+.inf", "-.inf", "null", "true", "false"};
    bool real;

    if (len == 0 || strcmp(text, "null") == 0)
        return node_new(SM_NODE_NULL, line);
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        struct sm_node *node = node_new(SM_NODE_BOOLEAN, line);
        node->boolean = text[0] == 't';
        return node;
    }
    if (strlen(text) != len)
        return node_text(line, text, len); /* a NUL is in it: refused by whoever wants text */
    if (is_json_number(text, &real)) {
        struct sm_node *node = node_new(real ? SM_NODE_REAL : SM_NODE_INTEGER, line);
        errno = 0;
        if (real)
            node->real = g_ascii_strtod(text, NULL);
        else
            node->integer = g_ascii_strtoll(text, NULL, 10);
        if (errno == ERANGE || !isfinite(node->real))
            node->kind = SM_NODE_ODD;
        return node;
    }
    if (one_of(text, odd, SM_ARRAY_LEN(odd)) || is_odd_number(text))
        return node_new(SM_NODE_ODD, line);
    return node_text(line, text, len);
}

/* The node with the word that it was made of, for whoever can use it as text. */
static struct sm_node *plain_value(size_t line, const char *text, size_t len)
{
    struct sm_node *node = plain_scalar(line, text, len);
    if (node->kind != SM_NODE_TEXT)
        node->raw = g_strdup(text);
    return node;
}

/* Anchors, aliases and tags: none of these files needs one, and each can make it mean other than it reads. */
static bool yaml_is_plain_value(const struct builder *b, const yaml_event_t *ev, size_t line, GError **error)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (ev->type == YAML_ALIAS_EVENT)
        return fail(b, line, error, "aliases (*name) are not allowed: write the value out");
    if (ev->type == YAML_SCALAR_EVENT) {
        anchor = ev->data.scalar.anchor;
        tag = ev->data.scalar.tag;
    } else if (ev->type == YAML_SEQUENCE_START_EVENT) {
        anchor = ev->data.sequence_start.anchor;
        tag = ev->data.sequence_start.tag;
    } else if (ev->type == YAML_MAPPING_START_EVENT) {
        anchor = ev->data.mapping_start.anchor;
        tag = ev->data.mapping_start.tag;
    } else if (ev->type == YAML_DOCUMENT_START_EVENT &&
               ev->data.document_start.tag_directives.start != ev->data.document_start.tag_directives.end) {
        return fail(b, line, error, "tags (%%TAG) are not allowed: remove it");
    }
    if (anchor)
        return fail(b, line, error, "anchors (&name) are not allowed: write the value out");
    if (tag)
        return fail(b, line, error, "tags (!type) are not allowed: remove it");
    return true;
}

static bool yaml_scalar(struct builder *b, const yaml_event_t *ev, size_t line, GError **error)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (wants_key(b)) {
        if (plain && b->format->free_keys && strcmp(text, "<<") == 0)
            return fail(b, line, error, "merge keys (<<) are not allowed: write the values out");
        return build_key(b, line, text, len, error);
    }
    return build_node(b, plain ? plain_value(line, text, len) : node_text(line, text, len), error);
}

static bool yaml_step(struct builder *b, const yaml_event_t *ev, bool *done, GError **error)
{
    size_t line = ev->start_mark.line + 1;

    if (!yaml_is_plain_value(b, ev, line, error))
        return false;
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        return yaml_scalar(b, ev, line, error);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (wants_key(b))
            return fail(b, line, error, "wrong type: a key is %s, not %s", b->format->keys,
                        sm_node_kind_words(ev->type == YAML_MAPPING_START_EVENT ? SM_NODE_MAP : SM_NODE_LIST));
        return build_node(b, node_new(ev->type == YAML_MAPPING_START_EVENT ? SM_NODE_MAP : SM_NODE_LIST, line), error);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        build_close(b);
        return true;
    case YAML_DOCUMENT_START_EVENT:
        return !b->root || fail(b, line, error, "a second document: %s has one", b->format->noun);
    case YAML_STREAM_END_EVENT:
        *done = true;
        return b->root || fail(b, line, error, "the file is empty: %s", b->format->empty);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_ALIAS_EVENT:
        break;
    }
    return true;
}

static size_t line_of_offset(const char *data, size_t len, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < SM_MIN(offset, len); i++)
        line += data[i] == '\n';
    return line;
}

static bool parse_yaml(struct builder *b, const char *data, size_t len, GError **error)
{
    yaml_parser_t parser;
    bool ok = true, done = false;

    if (!yaml_parser_initialize(&parser)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "%s: out of memory", b->file);
        return false;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, len);
    while (ok && !done) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&parser, &ev)) {
            /* libyaml's problem and context are fixed texts: they quote nothing. */
            size_t line = parser.error == YAML_READER_ERROR ? line_of_offset(data, len, parser.problem_offset)
                                                            : parser.problem_mark.line + 1;
            ok = fail(b, line, error, "not YAML: %s%s%s", parser.problem ? parser.problem : "parse error",
                      parser.context ? ", " : "", parser.context ? parser.context : "");
            break;
        }
        ok = yaml_step(b, &ev, &done, error);
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
    while (w->p < w->end && *w->p && strchr(" \t\r\n", *w->p)) {
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

static bool json_leaf(struct builder *b, const struct json_walk *w, GError **error)
{
    json_t *value = json_loadb(w->token, w->token_len, JSON_DECODE_ANY, NULL);
    struct sm_node *node = NULL;

    if (!value)
        return fail(b, w->line, error, "not JSON: a value does not parse"); /* cannot happen after jansson's check */
    switch (json_typeof(value)) {
    case JSON_STRING:
        node = node_text(w->line, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        node = node_new(SM_NODE_INTEGER, w->line);
        node->integer = json_integer_value(value);
        break;
    case JSON_REAL:
        node = node_new(SM_NODE_REAL, w->line);
        node->real = json_real_value(value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        node = node_new(SM_NODE_BOOLEAN, w->line);
        node->boolean = json_is_true(value);
        break;
    case JSON_NULL:
    case JSON_OBJECT: /* these two are no leaves */
    case JSON_ARRAY:
        node = node_new(SM_NODE_NULL, w->line);
        break;
    }
    json_decref(value);
    return build_node(b, node, error);
}

static bool json_key(struct builder *b, const struct json_walk *w, GError **error)
{
    json_t *key = json_loadb(w->token, w->token_len, JSON_DECODE_ANY, NULL);
    bool ok = key ? build_key(b, w->line, json_string_value(key), json_string_length(key), error)
                  : fail(b, w->line, error, "not JSON: a key does not parse");
    json_decref(key);
    return ok;
}

static bool parse_json(struct builder *b, const char *data, size_t len, GError **error)
{
    struct json_walk w = {.p = data, .end = data + len, .line = 1};
    json_error_t problem;
    json_t *whole = json_loadb(data, len, JSON_REJECT_DUPLICATES, &problem);
    bool ok = true;
    char first;

    if (!whole) {
        /* jansson quotes what it stumbled over behind " near ": that may be a secret. */
        char *near = b->format->secret ? strstr(problem.text, " near ") : NULL;
        if (near)
            *near = '\0';
        g_autofree char *shown = g_strescape(problem.text, NULL);
        return fail(b, problem.line > 0 ? (size_t)problem.line : 1, error, "not JSON: %s", shown);
    }
    json_decref(whole);
    while (ok && (first = json_next(&w)) != '\0') {
        if (first == '}' || first == ']')
            build_close(b);
        else if (first == ',' || first == ':')
            continue;
        else if (wants_key(b))
            ok = json_key(b, &w, error);
        else if (first == '{' || first == '[')
            ok = build_node(b, node_new(first == '{' ? SM_NODE_MAP : SM_NODE_LIST, w.line), error);
        else
            ok = json_leaf(b, &w, error);
    }
    return ok;
}

bool sm_tree_is_json(const char *file)
{
    return g_str_has_suffix(file, ".json");
}

struct sm_node *sm_tree_parse(const struct sm_tree_format *format, const char *file, const char *text, size_t len,
                              void *data, GError **error)
{
    sm_cleanup(builder_clear) struct builder b = {.format = format, .file = file, .data = data};
    bool yaml = g_str_has_suffix(file, ".yaml") || g_str_has_suffix(file, ".yml");

    if (!yaml && !sm_tree_is_json(file)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: the name of %s ends in .yaml, .yml or .json", file, format->noun);
        return NULL;
    }
    if (!(yaml ? parse_yaml(&b, text, len, error) : parse_json(&b, text, len, error)))
        return NULL;
    return g_steal_pointer(&b.root);
}
