/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside: what is not the public internet (spec section 3). One table, one function; everything that asks, asks here.
 *
 * sm_inside_kind() knows the fixed ranges. struct sm_ground adds the facts of this machine (own addresses, virtual
 * network, other workspaces, own listeners, --egress-inside) and sm_ground_kind() answers for an endpoint. An IPv6
 * address that embeds an IPv4 one is judged by both.
 *
 * What may open an inside destination depends on its class, not on who asks (sm_inside_class()):
 *
 *   class        kinds                                             opened by
 *   public       none                                              (not inside)
 *   pin          private, shared, unique_local                     IP or CIDR rule; pin of an exact listed name to that
 *                                                                  very address
 *   rule         protocol, benchmark, reserved, site_local, extra  IP or CIDR rule
 *   small_rule   loopback, this_network, link_local, metadata,     IP or CIDR rule of at most 256 addresses (v4 /24,
 *                multicast, broadcast, own, network                v6 /120)
 *   never        workspace, listener                               nothing
 *
 * Cloud metadata services that sit in a range of class pin (100.100.100.200, fd00:ec2::254, fd20:ce::254) are metadata
 * here: whoever runs the DNS of one listed name must not thereby open them. An address of class pin that is embedded in
 * an IPv6 address is of class rule.
 *
 * Sources: IANA special-purpose registries (RFC 6890), RFC 1918, 6598, 3927, 4193, 4291, 3879, 5737 (documentation
 * ranges are public here), RFC 6052 2.2 and RFC 8215 (NAT64), RFC 3056 (6to4), RFC 4380 4 (Teredo).
 *
 * Memory is bounded by the maxima below; single-threaded; no I/O.
 */
#ifndef SM_POLICY_INSIDE_H
#define SM_POLICY_INSIDE_H

#include <glib.h>

#include "base/addr.h"

enum sm_inside_kind {
    SM_INSIDE_NONE = 0,     /* public */
    SM_INSIDE_PRIVATE,      /* RFC 1918 */
    SM_INSIDE_SHARED,       /* 100.64/10 */
    SM_INSIDE_UNIQUE_LOCAL, /* fc00::/7 */
    SM_INSIDE_PROTOCOL,     /* 192.0.0/24 */
    SM_INSIDE_BENCHMARK,    /* 198.18/15 */
    SM_INSIDE_RESERVED,     /* 240/4 */
    SM_INSIDE_SITE_LOCAL,   /* fec0::/10 */
    SM_INSIDE_EXTRA,        /* --egress-inside */
    SM_INSIDE_LOOPBACK,     /* 127/8, ::1 */
    SM_INSIDE_THIS_NETWORK, /* 0/8, :: (Linux connects 0.0.0.0 and :: to loopback) */
    SM_INSIDE_LINK_LOCAL,   /* 169.254/16, fe80::/10 */
    SM_INSIDE_METADATA,     /* 169.254.169.254, 168.63.129.16, 100.100.100.200, fd00:ec2::254, fd20:ce::254 */
    SM_INSIDE_MULTICAST,    /* 224/4, ff00::/8 */
    SM_INSIDE_BROADCAST,    /* 255.255.255.255 */
    SM_INSIDE_OWN,          /* an address of this host */
    SM_INSIDE_NETWORK,      /* the virtual network, except its resolver's port 53 */
    SM_INSIDE_WORKSPACE,    /* another workspace (east-west) */
    SM_INSIDE_LISTENER,     /* one of our own listening sockets (loop guard) */
    SM_INSIDE_KINDS
};

enum sm_inside_class {
    SM_INSIDE_CLASS_PUBLIC = 0,
    SM_INSIDE_CLASS_PIN,
    SM_INSIDE_CLASS_RULE,
    SM_INSIDE_CLASS_SMALL_RULE,
    SM_INSIDE_CLASS_NEVER,
    SM_INSIDE_CLASSES
};

/** A rule opens class small_rule only when it covers at most 256 addresses. */
#define SM_INSIDE_SMALL_V4 24
#define SM_INSIDE_SMALL_V6 120

/** Maxima of struct sm_ground: a host with more addresses than this, or an operator with more ranges, is a mistake.
 * Lists are scanned in order. */
#define SM_GROUND_OWN_MAX 4096
#define SM_GROUND_EXTRA_MAX 1024
#define SM_GROUND_WORKSPACES_MAX 4096
#define SM_GROUND_LISTENERS_MAX 1024

const char *sm_inside_kind_name(enum sm_inside_kind kind);
enum sm_inside_class sm_inside_class(enum sm_inside_kind kind);

/**
 * sm_inside_kind() - the kind of an address by the fixed table alone. Of an address that embeds another, the stricter
 * of both kinds. Family none is SM_INSIDE_RESERVED: no address is never public.
 */
enum sm_inside_kind sm_inside_kind(const struct sm_addr *addr);

/** Most IPv4 addresses one IPv6 address can be read as (64:ff9b:1::/48: two layouts; Teredo: server and client). */
#define SM_INSIDE_EMBEDDED_MAX 2
/**
 * sm_inside_embedded() - the IPv4 addresses that an IPv6 address stands for: mapped, compatible, NAT64 (64:ff9b::/96;
 * 64:ff9b:1::/48 in its /48 and its /96 layout, a reading of 0.0.0.0 being skipped when the other one is not), 6to4,
 * Teredo (server, client). Return: how many were written to @ret.
 */
size_t sm_inside_embedded(const struct sm_addr *addr, struct sm_addr ret[SM_INSIDE_EMBEDDED_MAX]);

/** Facts of this machine and workspace. Owned by the caller; set-functions replace what was there and copy their
 * arguments. */
struct sm_ground;

struct sm_ground *sm_ground_new(void);
void sm_ground_free(struct sm_ground *ground);
/** sm_ground_freep() - for sm_cleanup(). */
static inline void sm_ground_freep(struct sm_ground **ground)
{
    sm_ground_free(*ground);
}

/** sm_ground_set_own() - this host's addresses, all of them, whenever they change. False (nothing changed) when n is
 * over SM_GROUND_OWN_MAX. */
bool sm_ground_set_own(struct sm_ground *ground, const struct sm_addr *addrs, size_t n) SM_WARN_UNUSED;
/** sm_ground_set_network() - the virtual network and its resolver's address (family none: no resolver). */
void sm_ground_set_network(struct sm_ground *ground, const struct sm_prefix *network, const struct sm_addr *resolver);
/** sm_ground_add_inside() - one more --egress-inside range. False when full. */
bool sm_ground_add_inside(struct sm_ground *ground, const struct sm_prefix *range) SM_WARN_UNUSED;
/**
 * sm_ground_set_workspaces() - addresses or ranges of the other workspaces. False when too many.
 *
 * The program has none to give, and does not call this. A virtual network is in the routing table of its own guest
 * alone: no address that a core dials leads into another's, and the same number on the host's side is a host of the
 * operator's. What another workspace publishes is at an address of this host (SM_INSIDE_OWN or loopback). A proxy's
 * clients are hosts of a private network; which other proxies run, and for whom, one core cannot know.
 */
bool sm_ground_set_workspaces(struct sm_ground *ground, const struct sm_prefix *ranges, size_t n) SM_WARN_UNUSED;
/**
 * sm_ground_set_listeners() - our own listening endpoints. An unspecified address (0.0.0.0, ::, family none) means the
 * port on loopback, this_network and every own address; a destination of 0.0.0.0 or :: meets every listener on
 * loopback. Port 0 means every port of the address. False when too many.
 */
bool sm_ground_set_listeners(struct sm_ground *ground, const struct sm_endpoint *listeners, size_t n) SM_WARN_UNUSED;

/** sm_ground_is_resolver() - is this endpoint the virtual network's resolver on port 53? */
bool sm_ground_is_resolver(const struct sm_ground *ground, const struct sm_endpoint *dst);

/**
 * sm_ground_kind() - the kind of an endpoint; the strictest that applies to the address or to one embedded in it.
 * @ret_class: may be NULL; the class, which differs from sm_inside_class(kind) only for embedded addresses (pin becomes
 * rule). ground may be NULL: the fixed table alone.
 */
enum sm_inside_kind sm_ground_kind(const struct sm_ground *ground, const struct sm_endpoint *dst,
                                   enum sm_inside_class *ret_class);

#endif
