/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One list entry (spec section 2): what an operator writes in --egress-allow, --egress-passthrough, --egress-deny and
 * the policy file.
 *
 *   api.openai.com          that host                       .pypi.org          the apex and every subdomain
 *   203.0.113.9             that address                    10.0.0.0/8         that range
 *   host:443 .suffix:443 203.0.113.9:443 10.0.0.0/8:443     the same, on that port only
 *   2001:db8::1  2001:db8::/32  [2001:db8::1]:443  [2001:db8::/32]:443
 *
 * A suffix that would match a whole public suffix is an error, whatever list it is for. Errors are SM_ERROR_INVALID;
 * they quote the entry, say what is wrong and what to write instead. The place (file:line, flag) is put in front by the
 * caller (g_prefix_error).
 */
#ifndef SM_POLICY_ENTRY_H
#define SM_POLICY_ENTRY_H

#include "policy/names.h"

enum sm_entry_kind {
    SM_ENTRY_HOST = 0, /* exact name */
    SM_ENTRY_SUFFIX,   /* apex and every subdomain */
    SM_ENTRY_ADDR,     /* one address */
    SM_ENTRY_CIDR,     /* a range */
    SM_ENTRY_KINDS
};

/** Longest canonical text of an entry with the NUL: dot, name, colon, port. */
#define SM_ENTRY_STRLEN (1 + SM_NAME_MAX + 1 + 5 + 1)
/** Longest text of an entry that is looked at at all (a U-label name is longer than its A-label form). */
#define SM_ENTRY_TEXT_MAX 1024

struct sm_entry {
    enum sm_entry_kind kind;
    uint16_t port;             /* 0: any port */
    char name[SM_NAME_STRLEN]; /* HOST, SUFFIX: canonical, without the leading dot */
    struct sm_prefix prefix;   /* ADDR (full length), CIDR */
};

const char *sm_entry_kind_name(enum sm_entry_kind kind);

/** sm_entry_parse() - one entry from NUL-terminated UTF-8. Return: true and *ret, or false with error and *ret
 * untouched. */
bool sm_entry_parse(const char *text, struct sm_entry *ret, GError **error) SM_WARN_UNUSED;
/** sm_entry_format() - the canonical text; sm_entry_parse() of it gives the same entry. */
const char *sm_entry_format(const struct sm_entry *entry, char out[SM_ENTRY_STRLEN]);
/** sm_entry_equal() - same entry, whatever its text was; for tests. */
bool sm_entry_equal(const struct sm_entry *a, const struct sm_entry *b);

/**
 * sm_entry_specificity_cmp() - is a more specific (> 0), less (< 0) or equally specific (0) as b?
 * A host or single address is more specific than a suffix or range; among suffixes the longer, among ranges the
 * smaller; a suffix and a range are equal; then an entry with a port is more specific than one without.
 */
int sm_entry_specificity_cmp(const struct sm_entry *a, const struct sm_entry *b);

#endif
