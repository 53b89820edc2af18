/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel path (--datapath tproxy): the guest's network namespace, and beside it the mediator's, in which its kernel's
 * packets end.
 *
 *   guest's namespace                     mediator's namespace                                      the front's (empty)
 *   CMD ─ eth0, guest's address ══ veth ══ slirp0, gateway's and resolver's address
 *         default route: the gateway       nft: TCP, UDP of the guest ─ TPROXY ─► two sockets ───────► has their descriptors
 *                                          all else: dropped; a packet socket shows it  ────────────► OTHER
 *                                          a raw socket, connected to the guest ◄────────────────────  UDP, ICMP
 *                                          keeper: a transparent socket for a published port's client
 *
 * The mediator's namespace has no device but this one and lo, every address is local to it (a local default route), forwarding
 * is off and dropped by rule besides: nothing leaves it, whatever is bound or sent in it. What the guest sends ends in a socket
 * that the front holds, or nowhere; without the front there is no socket, and the rules then drop.
 *
 * The keeper is all that stays in there: a child of guest-init with CAP_NET_RAW over these namespaces alone (a socket that is
 * bound to an address that is not ours needs it), with no descriptor but its connection to the front and no call but those that
 * make such a socket. It ends when the front does. The record it reads is nat/tproxy.h's.
 */
#ifndef SM_PATHS_TPROXY_H
#define SM_PATHS_TPROXY_H

#include <glib.h>

#include "base/addr.h"
#include "base/defs.h"
#include "ports/tap.h"

/** Where the rules send TCP and UDP. Nobody sees it: a connection to this very port of the gateway is taken like any other. */
#define SM_TPROXY_PORT_NUMBER 1

struct sm_tproxy_spec {
    const char *workspace;          /* for the message */
    const struct sm_tap_spec *card; /* the guest's: name, addresses, MTU */
    struct sm_addr resolver;        /* ours too; may be the gateway */
    uint8_t our_mac[6];
};

/**
 * sm_tproxy_make() - both namespaces, and the keeper. Call it in the user namespace that is to own them, with all capabilities,
 * and before anything is decided about new processes (it forks). Afterwards this process is in the guest's namespace, whose
 * card is there, down and without an address (sm_tap_configure()).
 * Returns the bundle for the front, or -1 with error set: the spec's message when the kernel refuses TPROXY.
 */
int sm_tproxy_make(const struct sm_tproxy_spec *spec, GError **error);

/** sm_tproxy_rules() - the rules alone, in the current namespace (doctor). 0, or -1 with errno. */
int sm_tproxy_rules(const char *device, const struct sm_addr *guest);

#endif
