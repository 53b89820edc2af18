/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The policy file, strictly: see file.h.
 *
 * The reader of trees (tree.h) hands over each value as it comes, and it is judged by how deep it stands: the top mapping, a list under a
 * key, an entry. Only when the whole file is good does anything reach the lists.
 */
#include "policy/file.h"

#include <string.h>

#include "base/error.h"
#include "policy/tree.h"

struct collected {
    enum sm_list_kind list;
    struct sm_entry entry;
    size_t line;
};

struct collector {
    const char *file;
    GArray *entries; /* struct collected */
    size_t room;     /* how many more the lists can take */
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

/* A key of the top mapping. */
static bool collect_key(struct collector *c, size_t line, const char *key, GError **error)
{
    static const enum sm_list_kind keys[] = {SM_LIST_ALLOW, SM_LIST_PASSTHROUGH};

    for (size_t i = 0; i < SM_ARRAY_LEN(keys); i++) {
        const char *name = sm_list_kind_name(keys[i]);
        if (strcmp(name, key) != 0)
            continue;
        c->open = keys[i];
        return true;
    }
    g_autofree char *shown = g_strescape(key, NULL);
    return fail(c, line, error, "unknown key '%.60s': a policy file has allow and passthrough", shown);
}

/* An entry of the open list. */
static bool collect_entry(struct collector *c, size_t line, const char *text, size_t len, GError **error)
{
    struct collected item = {.list = c->open, .line = line};
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

/* Plain words that YAML 1.1 readers take for null or a boolean: an operator who writes one did not mean a host. */
static bool is_yaml_word(const char *text)
{
    static const char *const words[] = {"~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < SM_ARRAY_LEN(words); i++)
        if (g_ascii_strcasecmp(words[i], text) == 0)
            return true;
    return false;
}

/* A host needs no quotes in YAML, so whatever is written there is text to begin with; JSON has types. */
static bool is_text(const struct sm_node *node)
{
    return node->kind == SM_NODE_TEXT || node->raw;
}

static const char *word_of(const struct sm_node *node)
{
    if (is_text(node))
        return "text";
    switch (node->kind) {
    case SM_NODE_BOOLEAN:
        return "a boolean";
    case SM_NODE_NULL:
        return "null";
    case SM_NODE_MAP:
    case SM_NODE_LIST:
    case SM_NODE_TEXT:
    case SM_NODE_INTEGER:
    case SM_NODE_REAL:
    case SM_NODE_ODD:
    case SM_NODE_KINDS:
        break;
    }
    return sm_node_kind_words(node->kind);
}

static bool judge(void *data, const struct sm_node *const *above, int depth, const struct sm_node *node, GError **error)
{
    struct collector *c = data;

    (void)above;
    if (depth == 0)
        return node->kind == SM_NODE_MAP ||
               fail(c, node->line, error, "wrong type: a policy file is %s of allow and passthrough, not %s",
                    sm_tree_is_json(c->file) ? "an object" : "a mapping", word_of(node));
    if (depth == 1)
        return collect_key(c, node->key_line, node->key, error) &&
               (node->kind == SM_NODE_LIST ||
                fail(c, node->line, error, "wrong type: '%s' is a list of entries, not %s", sm_list_kind_name(c->open),
                     word_of(node)));
    if (!is_text(node))
        return fail(c, node->line, error, "wrong type: an entry of '%s' is text, not %s", sm_list_kind_name(c->open),
                    word_of(node));
    if (node->raw && is_yaml_word(node->raw))
        return fail(c, node->line, error, "wrong type: an entry is text, '%s' is not (quote it if it is a host)",
                    node->raw);
    return collect_entry(c, node->line, node->raw ? node->raw : node->text, node->raw ? strlen(node->raw) : node->len,
                         error);
}

/* Everything that the file lists, in c->entries (which the caller frees). */
static bool collect(struct collector *c, const char *data, size_t len, GError **error)
{
    static const struct sm_tree_format format = {.noun = "a policy file",
                                                 .keys = "allow or passthrough",
                                                 .empty = "write allow: [] to list nothing",
                                                 .twice = ": join the two lists",
                                                 .nodes_max = SM_POLICY_FILE_MAX,
                                                 .judge = judge};

    c->entries = g_array_new(FALSE, FALSE, sizeof(struct collected));
    if (len > SM_POLICY_FILE_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: a policy file has at most %zu bytes", c->file, SM_POLICY_FILE_MAX);
        return false;
    }
    sm_cleanup(sm_node_freep) struct sm_node *tree = sm_tree_parse(&format, c->file, data, len, c, error);
    return tree;
}

bool sm_policy_file_parse(const char *file_name, const char *data, size_t len, struct sm_lists *lists, GError **error)
{
    struct collector c = {.file = file_name, .room = SM_LISTS_MAX};

    for (int i = 0; i < SM_LIST_KINDS; i++)
        c.room -= sm_lists_count(lists, (enum sm_list_kind)i);
    bool ok = collect(&c, data, len, error);
    for (guint i = 0; ok && i < c.entries->len; i++) {
        const struct collected *item = &g_array_index(c.entries, struct collected, i);
        ok = sm_lists_add(lists, item->list, &item->entry, error);
    }
    g_array_unref(c.entries);
    return ok;
}

size_t sm_policy_file_line(const char *file_name, const char *data, size_t len, enum sm_list_kind list,
                           const struct sm_entry *entry)
{
    struct collector c = {.file = file_name, .room = SM_LISTS_MAX};
    bool ok = collect(&c, data, len, NULL);
    size_t line = 0;

    for (guint i = 0; ok && line == 0 && i < c.entries->len; i++) {
        const struct collected *item = &g_array_index(c.entries, struct collected, i);
        if (item->list == list && sm_entry_equal(&item->entry, entry))
            line = item->line;
    }
    g_array_unref(c.entries);
    return line;
}
