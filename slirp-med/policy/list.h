/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The three lists of a workspace: allow, passthrough, deny.
 *
 * An empty list lists nothing. allow and passthrough together are "listed"; the more specific entry wins and on a tie
 * passthrough does (sm_lists_name(), sm_lists_addr()). deny is asked apart and beats everything (sm_lists_deny_name(),
 * sm_lists_deny_addr()).
 *
 * Look-ups cost two hash probes a label, or two for each prefix length in use, whatever the size of the lists. Entries
 * never leave: a reload builds new lists. Pointers to entries live as long as the lists. Single-threaded; no I/O.
 */
#ifndef SM_POLICY_LIST_H
#define SM_POLICY_LIST_H

#include "policy/entry.h"

enum sm_list_kind { SM_LIST_ALLOW = 0, SM_LIST_PASSTHROUGH, SM_LIST_DENY, SM_LIST_KINDS };

/** Entries of all three lists together: 100k hosts are 40 MB, and more is not a list but a data base. */
#define SM_LISTS_MAX 100000

struct sm_lists;

/** What a look-up found: entry is NULL when nothing did. */
struct sm_match {
    const struct sm_entry *entry;
    enum sm_list_kind list;
};

const char *sm_list_kind_name(enum sm_list_kind kind);

struct sm_lists *sm_lists_new(void);
void sm_lists_free(struct sm_lists *lists);
/** sm_lists_freep() - for sm_cleanup(). */
static inline void sm_lists_freep(struct sm_lists **lists)
{
    sm_lists_free(*lists);
}

/** sm_lists_add() - copy one entry in; an entry that is there already is fine and changes nothing. False with
 * SM_ERROR_LIMIT when full. */
bool sm_lists_add(struct sm_lists *lists, enum sm_list_kind list, const struct sm_entry *entry,
                  GError **error) SM_WARN_UNUSED;
/** sm_lists_add_text() - parse and add; the error names the entry but not the place (use g_prefix_error). */
bool sm_lists_add_text(struct sm_lists *lists, enum sm_list_kind list, const char *text, GError **error) SM_WARN_UNUSED;

size_t sm_lists_count(const struct sm_lists *lists, enum sm_list_kind list);
/** sm_lists_get() - entry i < count of one list, in the order of adding. */
const struct sm_entry *sm_lists_get(const struct sm_lists *lists, enum sm_list_kind list, size_t i);

/** Port argument of the look-ups that means "on whatever port": any entry for the name or address counts (DNS
 * questions). */
#define SM_LISTS_ANY_PORT 0

/** sm_lists_name() - the winning allow or passthrough entry for a canonical name and a port. */
struct sm_match sm_lists_name(const struct sm_lists *lists, const char *name, uint16_t port);
/** sm_lists_addr() - the winning allow or passthrough IP or CIDR entry for an endpoint. */
struct sm_match sm_lists_addr(const struct sm_lists *lists, const struct sm_endpoint *dst);

/** sm_lists_deny_name() - a deny entry for the name on this port; with SM_LISTS_ANY_PORT only an entry for all ports
 * counts. */
const struct sm_entry *sm_lists_deny_name(const struct sm_lists *lists, const char *name, uint16_t port);
const struct sm_entry *sm_lists_deny_addr(const struct sm_lists *lists, const struct sm_endpoint *dst);

/** sm_match_better() - the winner of two matches: more specific, then passthrough, then a. Either may be empty. */
struct sm_match sm_match_better(struct sm_match a, struct sm_match b);

#endif
