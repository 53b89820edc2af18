/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A YAML or JSON document as one small tree that remembers lines: the one reader of the files that operators write (policy, swap and spec files),
 * so that each is judged once, whatever the format, and every error begins "FILE:LINE: ".
 *
 * What can make a document mean other than it reads is refused here: a second document, a key given twice, anchors,
 * aliases, tags and merge keys. Plain YAML words are typed narrowly: numbers in JSON's spelling, true and false, null;
 * everything else that some YAML reader takes for a number, a boolean or null (0x10, 1_000, .5, +1, 1:30, yes, ~) is
 * SM_NODE_ODD: quoted it is text.
 *
 * What a file is called, how much it may hold, and whether an error may quote it, its schema says (struct sm_tree_format). A schema may also judge
 * each value as it comes, which finds the first fault of a file wherever it is.
 */
#ifndef SM_POLICY_TREE_H
#define SM_POLICY_TREE_H

#include <glib.h>

#include "base/defs.h"

enum sm_node_kind {
    SM_NODE_MAP = 0,
    SM_NODE_LIST,
    SM_NODE_TEXT,
    SM_NODE_INTEGER,
    SM_NODE_REAL,
    SM_NODE_BOOLEAN,
    SM_NODE_NULL,
    SM_NODE_ODD, /* YAML only: a plain word that readers disagree about */
    SM_NODE_KINDS
};

/** Deepest nesting: in a swap file swaps, an entry, claims, a list of a claim are five. */
#define SM_TREE_DEPTH_MAX 8

struct sm_node {
    enum sm_node_kind kind;
    size_t line;      /* of the value, from 1 */
    char *key;        /* in a map: NUL-terminated, without NUL inside; otherwise NULL */
    size_t key_line;  /* in a map */
    char *text;       /* TEXT: len bytes and a NUL; otherwise NULL */
    size_t len;       /* TEXT */
    char *raw;        /* a plain word of YAML that is no TEXT, as it was written, "" included; otherwise NULL */
    int64_t integer;  /* INTEGER */
    double real;      /* REAL: finite */
    bool boolean;     /* BOOLEAN */
    GPtrArray *items; /* MAP, LIST: struct sm_node *, in the order of the document; otherwise NULL */
};

/** sm_node_kind_words() - for errors: "a mapping", "a list", "text", "a number", "true or false", "nothing". */
const char *sm_node_kind_words(enum sm_node_kind kind);

/** What a kind of file is. */
struct sm_tree_format {
    const char *noun;  /* "a policy file" */
    const char *keys;  /* what a key is, for one that is none: "text" */
    const char *empty; /* what to write in place of nothing: "write allow: [] to list nothing" */
    const char *twice; /* advice behind a key that is there twice: ": join the two lists" */
    size_t nodes_max;  /* values of a document */
    bool secret;       /* a secret may stand anywhere in it: no error quotes it */
    bool free_keys;    /* somewhere keys are the operator's own, so that a merge key would not be an unknown one */
    /**
     * judge() - a value has come: with its key where it is in a map, and without what it will hold. May be NULL.
     * @above: the maps and lists that it is in, from the root; depth of them.
     */
    bool (*judge)(void *data, const struct sm_node *const *above, int depth, const struct sm_node *node,
                  GError **error);
};

/**
 * sm_tree_parse() - a whole document.
 * @file: as the operator wrote it: its ending (.yaml, .yml, .json) gives the format, and errors begin with it.
 * @data: for judge().
 * Return: the root for sm_node_free(), or NULL with error (SM_ERROR_INVALID, SM_ERROR_LIMIT).
 */
struct sm_node *sm_tree_parse(const struct sm_tree_format *format, const char *file, const char *text, size_t len,
                              void *data, GError **error);
/** sm_tree_is_json() - by the file's name. */
bool sm_tree_is_json(const char *file);
void sm_node_free(struct sm_node *node);
/** sm_node_freep() - for sm_cleanup(). */
static inline void sm_node_freep(struct sm_node **node)
{
    sm_node_free(*node);
}

#endif
