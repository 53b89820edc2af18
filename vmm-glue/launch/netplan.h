/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtual network of a workspace: every address that the guest, the front and the core are told, in one value. Whoever writes a message to
 * one of them takes the addresses from here; nobody else knows any.
 *
 *   10.0.2.0/24 ── guest .15 (its card: guest_mac)
 *               ├─ gateway .2 (ours: our_mac; all that is sent to it and through it is mediated)
 *               └─ resolver .3 (ours too; may be the gateway itself)
 *
 * That is the reference network (spec section 9). A spec file (spec.h) may say other addresses; what it leaves out is derived from what it says:
 * the subnet from the guest's address, and gateway, resolver and guest at the reference network's places in it, or at the first that is free.
 *
 * The guest is told `dns` as its resolvers and `routes` as what lies behind the gateway. The core answers all traffic to port 53, whatever the
 * address (with --egress off: to `resolver` alone), so `dns` need not lie in the subnet; what does lie in it has to be answered for, and that are
 * gateway and resolver.
 *
 * Pure: no file, no socket.
 */
#ifndef SM_LAUNCH_NETPLAN_H
#define SM_LAUNCH_NETPLAN_H

#include <glib.h>

#include "base/addr.h"

enum sm_network_mode { SM_NETWORK_USER, SM_NETWORK_ISOLATED, SM_NETWORK_MODES };
const char *sm_network_mode_name(enum sm_network_mode mode);
/** sm_network_mode_parse() - false, with *ret untouched, when there is no such mode. */
bool sm_network_mode_parse(const char *text, enum sm_network_mode *ret) SM_WARN_UNUSED;

#define SM_NET_MTU_DEFAULT 1500
/** As many as the front's DHCP has room for (SM_LINK_DNS_MAX, SM_LINK_ROUTES_MAX in nat/wire.h). */
#define SM_NET_DNS_MAX 8
#define SM_NET_ROUTES_MAX 8
/** A subnet has room for guest and gateway, and is not larger than the largest private one. */
#define SM_NET_PREFIX_MIN 8
#define SM_NET_PREFIX_MAX 30

/* Locally administered, as slirp has always had them: 52:55 and the address in the reference network. */
#define SM_NET_GATEWAY_MAC "52:55:0a:00:02:02"
#define SM_NET_GUEST_MAC "52:55:0a:00:02:0f"
#define SM_NET_MAC_STRLEN 18

struct sm_net_plan {
    enum sm_network_mode mode; /* isolated: there is no device, and all below is unused */
    struct sm_addr guest;
    struct sm_prefix subnet;
    struct sm_addr gateway, resolver;
    struct sm_addr dns[SM_NET_DNS_MAX]; /* at least one */
    size_t n_dns;
    struct sm_prefix routes[SM_NET_ROUTES_MAX]; /* through the gateway */
    size_t n_routes;
    unsigned mtu;
    char guest_mac[SM_NET_MAC_STRLEN];
    char our_mac[SM_NET_MAC_STRLEN];
};

/** sm_net_plan_reference() - the reference network. */
void sm_net_plan_reference(struct sm_net_plan *ret);

/** sm_net_plan_equal() - the same in all that anybody is told. */
bool sm_net_plan_equal(const struct sm_net_plan *a, const struct sm_net_plan *b);

/** What somebody said; the rest of the plan follows from it. Also the keys of a spec file's `network` that have addresses. */
enum sm_net_key { SM_NET_IP, SM_NET_SUBNET, SM_NET_GATEWAY, SM_NET_DNS, SM_NET_ROUTES, SM_NET_KEYS };
const char *sm_net_key_name(enum sm_net_key key);
#define SM_NET_SAID(key) (1u << (key))

/** Where the fault is: a key, and which item of its list (0 for those that are none). */
struct sm_net_fault {
    enum sm_net_key key;
    size_t item;
};

/**
 * sm_net_plan_complete() - judge what was said, and derive the rest.
 * @plan: the reference network, in which what was said is filled in. Complete and without contradiction afterwards.
 * @said: SM_NET_SAID() of each key that was filled in.
 * @ip_len: the prefix length that was written with the address, 0: none.
 * Returns false with error (SM_ERROR_INVALID; it does not name the key) and *fault set; *plan is then of no use.
 */
bool sm_net_plan_complete(struct sm_net_plan *plan, unsigned said, unsigned ip_len, struct sm_net_fault *fault,
                          GError **error) SM_WARN_UNUSED;

/** sm_net_plan_default_route() - is 0.0.0.0/0 among the routes? */
bool sm_net_plan_default_route(const struct sm_net_plan *plan);

/** "0.0.0.0/0 via 10.0.2.2". */
#define SM_NET_ROUTE_STRLEN (SM_PREFIX_STRLEN + SM_ADDR_STRLEN + 5)
const char *sm_net_route_format(const struct sm_net_plan *plan, size_t i, char out[SM_NET_ROUTE_STRLEN]);

/** sm_net_overlap() - does one hold the other? */
bool sm_net_overlap(const struct sm_prefix *a, const struct sm_prefix *b);

#endif
