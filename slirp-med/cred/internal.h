/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the configuration side share: the set, the decoder of a tree, the rules for single values. Not for
 * other modules.
 */
#ifndef SM_CRED_INTERNAL_H
#define SM_CRED_INTERNAL_H

#include "cred/swap.h"
#include "policy/tree.h"

struct sm_swaps {
    GPtrArray *entries;   /* struct sm_swap * */
    GPtrArray *refs;      /* struct sm_ref *, distinct */
    GHashTable *domains;  /* canonical text, borrowed from the entry -> struct sm_swap * */
    GPtrArray *variables; /* char *: named by claims, distinct */
};

void sm_swap_free(struct sm_swap *swap);
static inline void sm_swap_freep(struct sm_swap **swap)
{
    sm_swap_free(*swap);
}

/** sm_swaps_add() - a complete entry, which must not get in the way of those that are there: name, domains,
 * placeholder. Takes ownership when it returns true; the error begins with the place. */
bool sm_swaps_add(struct sm_swaps *swaps, struct sm_swap *swap, GError **error) SM_WARN_UNUSED;
/** sm_swaps_intern() - the set's own copy of a reference; ref is moved in or cleared. */
const struct sm_ref *sm_swaps_intern(struct sm_swaps *swaps, struct sm_ref *ref);
/** sm_swaps_name_variable() - a claim names this variable. False when there are too many. */
bool sm_swaps_name_variable(struct sm_swaps *swaps, const char *name);

/**
 * sm_swaps_decode() - the mapping of names to entries, from a file or from the core's configuration.
 * @source: its variable function NULL: claims are taken as they are.
 * @numbered: references are numbers into swaps->refs, which are there already.
 * Errors begin with the file, and with ":LINE" where a node has a line.
 */
bool sm_swaps_decode(struct sm_swaps *swaps, const struct sm_node *entries, const struct sm_swap_source *source,
                     bool numbered, GError **error) SM_WARN_UNUSED;

/*
 * The rules for single values: NUL-terminated text that is not empty. The error has no place, and quotes the value only
 * where that is a name that cannot be a secret.
 */
bool sm_swap_check_name(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_header(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_format(enum sm_swap_type type, const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_placeholder(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_url(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_scope(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_audience(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_field(const char *text, GError **error) SM_WARN_UNUSED;
bool sm_swap_check_claim_name(const char *text, GError **error) SM_WARN_UNUSED;
/** A claim's text or a variable's value: UTF-8 without control characters. */
bool sm_swap_claim_text_ok(const char *text);
/** sm_swap_parse_domain() - fills entry and text. */
bool sm_swap_parse_domain(const char *text, struct sm_swap_domain *ret, GError **error) SM_WARN_UNUSED;

#endif
