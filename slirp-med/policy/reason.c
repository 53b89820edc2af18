/* SPDX-License-Identifier: BSD-3-Clause */
/* The words; see reason.h. */
#include "policy/reason.h"

static const char *const reason_names[] = {
    [SM_REASON_NONE] = "undecided",
    [SM_REASON_INSIDE] = "inside",
    [SM_REASON_LOOPBACK] = "loopback",
    [SM_REASON_LINK_LOCAL] = "link_local",
    [SM_REASON_METADATA] = "metadata",
    [SM_REASON_MULTICAST] = "multicast",
    [SM_REASON_OWN_ADDRESS] = "own_address",
    [SM_REASON_VIRTUAL_NETWORK] = "virtual_network",
    [SM_REASON_EAST_WEST] = "east_west",
    [SM_REASON_LISTENER] = "listener",
    [SM_REASON_DENY_LIST] = "deny_list",
    [SM_REASON_UNLISTED] = "unlisted",
    [SM_REASON_UNLISTED_NAME] = "unlisted_name",
    [SM_REASON_NO_NAME] = "no_name",
    [SM_REASON_CLASSIFY_TIMEOUT] = "classification_timeout",
    [SM_REASON_BAD_NAME] = "bad_name",
    [SM_REASON_BAD_DESTINATION] = "bad_destination",
    [SM_REASON_QUIC] = "quic",
    [SM_REASON_DNS_OVER_TLS] = "dns_over_tls",
    [SM_REASON_IPV6] = "ipv6",
    [SM_REASON_NAME_MISMATCH] = "name_mismatch",
    [SM_REASON_LIMIT] = "limit",
    [SM_REASON_UNRESOLVED] = "unresolved",
    [SM_REASON_OFF] = "off",
    [SM_REASON_PUBLIC] = "public",
    [SM_REASON_RULE] = "rule",
    [SM_REASON_PIN] = "pin",
    [SM_REASON_RESOLVED] = "resolved",
    [SM_REASON_ROUTE] = "route",
    [SM_REASON_LISTED] = "listed",
    [SM_REASON_WAITING] = "waiting",
    [SM_REASON_RESOLVER] = "resolver",
};
SM_NAME_TABLE_COVERS(reason_names, SM_REASONS);

const char *sm_reason_name(enum sm_reason reason)
{
    return (unsigned)reason < SM_REASONS ? reason_names[reason] : "?";
}

bool sm_reason_is_inside(enum sm_reason reason)
{
    return reason >= SM_REASON_INSIDE && reason <= SM_REASON_LISTENER;
}
