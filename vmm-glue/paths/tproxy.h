/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel path (--datapath tproxy): the mediator's network namespace, in which the packets of the guest's card end,
 * and the device through which they come.
 *
 *   guest                                 mediator's namespace                                      the front's (empty)
 *   card with the guest's address ══════ slirp0, gateway's and resolver's address
 *         default route: the gateway       nft: TCP, UDP of the guest ─ TPROXY ─► two sockets ───────► has their descriptors
 *                                          all else: dropped; a packet socket shows it  ────────────► OTHER, DHCP
 *                                          a raw socket, connected to the guest ◄────────────────────  UDP, ICMP
 *                                          keeper: a transparent socket for a published port's client
 *
 *   kind    slirp0 is                                       the guest is
 *   pair    one end of a veth pair                          whoever is in the namespace that has the other end (`run`)
 *   tap     a tap                                           the kernel of a virtual machine, whose VMM has the
 *                                                           descriptor
 *   given   a device that was somebody else's: one end of   whoever has the other end
 *           a veth pair, or a tap that a VMM holds
 *
 * The mediator's namespace has no device but this one and lo, every address is local to it (a local default route), forwarding
 * is off and dropped by rule besides: nothing leaves it, whatever is bound or sent in it. What the guest sends ends in a socket
 * that the front holds, or nowhere; without the front there is no socket, and the rules then drop.
 *
 * Source guard: the rules let through what comes from the guest's card (MAC) and its address, each fragment by itself, and nothing else of IPv4;
 * where answers go is a permanent entry of the neighbour table, so no ARP of the guest's changes it. ARP for any
 * address but the guest's own is answered by the kernel.
 *
 * The keeper is all that stays in there: a child of guest-init or, with `attach`, a process of its own (keeper.h), with
 * CAP_NET_RAW over these namespaces alone (a socket that is bound to an address that is not ours needs it), with no
 * descriptor but its connection to the front and no call but those that make such a socket. It ends when the front
 * does. The record it reads is nat/tproxy.h's.
 */
#ifndef SM_PATHS_TPROXY_H
#define SM_PATHS_TPROXY_H

#include <glib.h>
#include <sys/types.h>

#include "base/addr.h"
#include "base/defs.h"
#include "nat/tproxy.h"
#include "ports/tap.h"

/** Our end. */
#define SM_TPROXY_DEVICE "slirp0"
/** Where the rules send TCP and UDP. Nobody sees it: a connection to this very port of the gateway is taken like any other. */
#define SM_TPROXY_PORT_NUMBER 1

enum sm_tproxy_kind { SM_TPROXY_PAIR, SM_TPROXY_TAP, SM_TPROXY_GIVEN, SM_TPROXY_KINDS };

struct sm_tproxy_spec {
    const char *workspace; /* for the message */
    enum sm_tproxy_kind kind;
    const struct sm_tap_spec *card; /* the guest's: addresses, MAC, MTU; with a pair its name */
    struct sm_addr resolver;        /* ours too; may be the gateway */
    uint8_t our_mac[6];
    const char *given; /* given: the device's name */
    /** given: bring it into the namespace behind ns. 0, or -1 with error set. */
    int (*fetch)(void *data, int ns, GError **error);
    void *fetch_data;
};

struct sm_tproxy {
    int bundle; /* for the front (nat/tproxy.h) */
    int tap;    /* for the VMM; -1: it is none */
    pid_t keeper;
};
#define SM_TPROXY_INIT                                                                                                 \
    {                                                                                                                  \
        .bundle = -1, .tap = -1                                                                                        \
    }

/**
 * sm_tproxy_make() - the mediator's namespace, a pair or a tap, and the keeper. Call it in the user namespace that is
 * to own them, with all capabilities, and before anything is decided about new processes (it forks). Afterwards this
 * process is in another new network namespace: with a pair the guest's, whose card is there, down and without an
 * address (sm_tap_configure()); else an empty one. Returns 0 with *ret filled, whose descriptors are the caller's; or
 * -1 with error set: the spec's message when the kernel refuses TPROXY.
 */
int sm_tproxy_make(const struct sm_tproxy_spec *spec, struct sm_tproxy *ret, GError **error);
/** sm_tproxy_clear() - fit for sm_cleanup(); begin with SM_TPROXY_INIT. */
void sm_tproxy_clear(struct sm_tproxy *t);

/** What fds of the steps begin as. */
#define SM_TPROXY_NO_FDS                                                                                               \
    {                                                                                                                  \
        -1, -1, -1, -1, -1                                                                                             \
    }
_Static_assert(SM_TPROXY_FDS == 5, "and not one that is 0, which would be closed");

/* Its steps, for keeper.h, which puts them together in another order. */

/** sm_tproxy_furnish() - in a new network namespace: all that is in it. *ret_tap is set with a tap alone. 0, or -1 with
 * error set; fds (which begin as -1) are the caller's in any case. */
int sm_tproxy_furnish(const struct sm_tproxy_spec *spec, int guest_ns, int fds[SM_TPROXY_FDS], int *ret_tap,
                      GError **error);
/** sm_tproxy_bundle() - the front's end with the sockets in it, or -1 with error set; *ret_keeper_end is the other
 * one. */
int sm_tproxy_bundle(int fds[SM_TPROXY_FDS], int *ret_keeper_end, GError **error);
/** sm_tproxy_keep() - be the keeper: every other descriptor is closed, every privilege but its own is dropped. */
_Noreturn void sm_tproxy_keep(int front, const struct sm_addr *guest);
void sm_tproxy_close_fds(int (*fds)[SM_TPROXY_FDS]);

/** Who may send: from that card and that address, by that device. */
struct sm_tproxy_source {
    const char *device;
    const struct sm_addr *guest;
    const uint8_t *mac;
};
/** sm_tproxy_rules() - the rules alone, in the current namespace (doctor). 0, or -1 with errno. */
int sm_tproxy_rules(const struct sm_tproxy_source *from);

#endif
