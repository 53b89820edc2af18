/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A YAML or JSON document as one small tree that remembers lines, so that what stands in a swap file is judged once,
 * whatever the format, and every error begins "FILE:LINE: ".
 *
 * What can make a document mean other than it reads is refused here: a second document, a key given twice, anchors,
 * aliases, tags and merge keys. Plain YAML words are typed narrowly: numbers in JSON's spelling, true and false, null;
 * everything else that some YAML reader takes for a number, a boolean or null (0x10, 1_000, .5, +1, 1:30, yes, ~) is
 * SM_NODE_ODD, which no key accepts: quoted it is text.
 *
 * Errors never quote the document: a secret may be anywhere in it.
 */
#ifndef SM_CRED_TREE_H
#define SM_CRED_TREE_H

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

/** Deepest nesting: swaps, an entry, claims, a list of a claim are five. */
#define SM_TREE_DEPTH_MAX 8
/** Most values of a document: far above what the bounds of swap.h let through, so that memory stays small. */
#define SM_TREE_NODES_MAX 32768

struct sm_node {
    enum sm_node_kind kind;
    size_t line;      /* of the value, from 1 */
    char *key;        /* in a map: NUL-terminated, without NUL inside; otherwise NULL */
    size_t key_line;  /* in a map */
    char *text;       /* TEXT: len bytes and a NUL; otherwise NULL */
    size_t len;       /* TEXT */
    int64_t integer;  /* INTEGER */
    double real;      /* REAL: finite */
    bool boolean;     /* BOOLEAN */
    GPtrArray *items; /* MAP, LIST: struct sm_node *, in the order of the document; otherwise NULL */
};

/** sm_node_kind_words() - for errors: "a mapping", "a list", "text", "a number", "true or false", "nothing". */
const char *sm_node_kind_words(enum sm_node_kind kind);

/**
 * sm_tree_parse() - a whole document.
 * @file: as the operator wrote it: its ending (.yaml, .yml, .json) gives the format, and errors begin with it.
 * Return: the root for sm_node_free(), or NULL with error (SM_ERROR_INVALID, SM_ERROR_LIMIT).
 */
struct sm_node *sm_tree_parse(const char *file, const char *data, size_t len, GError **error);
void sm_node_free(struct sm_node *node);
/** sm_node_freep() - for sm_cleanup(). */
static inline void sm_node_freep(struct sm_node **node)
{
    sm_node_free(*node);
}

#endif
