/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a verdict is what it is: the words of the record, of pages and, as numbers, of the handoff's REFUSE. A header of
 * its own, so that a front can say why without the decision and what that is made of.
 */
#ifndef SM_POLICY_REASON_H
#define SM_POLICY_REASON_H

#include "base/defs.h"

enum sm_reason {
    SM_REASON_NONE = 0, /* undecided: a verdict that nobody filled is a denial for this reason */
    /* why not */
    SM_REASON_INSIDE,           /* private, shared, unique-local, reserved and extra ranges */
    SM_REASON_LOOPBACK,         /* loopback and 0/8 */
    SM_REASON_LINK_LOCAL,       /* 169.254/16, fe80::/10 */
    SM_REASON_METADATA,         /* cloud metadata service */
    SM_REASON_MULTICAST,        /* multicast and broadcast */
    SM_REASON_OWN_ADDRESS,      /* an address of this host */
    SM_REASON_VIRTUAL_NETWORK,  /* the virtual network itself */
    SM_REASON_EAST_WEST,        /* another workspace */
    SM_REASON_LISTENER,         /* our own listener: loop */
    SM_REASON_DENY_LIST,        /* a deny entry; `rule` names it */
    SM_REASON_UNLISTED,         /* strict: neither an IP rule nor a pin of a listed name (UDP, bare address) */
    SM_REASON_UNLISTED_NAME,    /* strict: the asserted or asked name is not listed */
    SM_REASON_NO_NAME,          /* strict: the flow names nobody and nothing proves its address */
    SM_REASON_CLASSIFY_TIMEOUT, /* strict: silent, and nothing proves its address */
    SM_REASON_BAD_NAME,         /* not a canonical name, or an address in an odd form */
    SM_REASON_BAD_DESTINATION,  /* no address, or port 0 */
    SM_REASON_QUIC,             /* UDP 443: so that the client uses TCP */
    SM_REASON_DNS_OVER_TLS,     /* port 853: so that the client falls back to port 53 */
    SM_REASON_IPV6,             /* IPv6 from the guest */
    SM_REASON_NAME_MISMATCH,    /* proxy: what the client says names another host than its CONNECT did */
    SM_REASON_LIMIT,            /* not policy: a cap, a bound, or a record that cannot be written */
    SM_REASON_UNRESOLVED,       /* not policy: the name has no address */
    /* why */
    SM_REASON_OFF,      /* mode off: nothing is judged */
    SM_REASON_PUBLIC,   /* guarded: a public address */
    SM_REASON_RULE,     /* an IP or CIDR rule */
    SM_REASON_PIN,      /* a pin of a listed name */
    SM_REASON_RESOLVED, /* the core's own resolution */
    SM_REASON_ROUTE,    /* proxy: a route of the operator's */
    SM_REASON_LISTED,   /* DNS, RESOLVE: the name is listed */
    SM_REASON_WAITING,  /* HOLD: for a listed name */
    SM_REASON_RESOLVER, /* port 53 */
    SM_REASONS
};

const char *sm_reason_name(enum sm_reason reason);

/** sm_reason_is_inside() - is this a denial because the destination is inside (event egress_internal_deny,
 * egress_udp_internal_deny)? */
bool sm_reason_is_inside(enum sm_reason reason);

#endif
