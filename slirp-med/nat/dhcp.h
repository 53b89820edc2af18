/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A DHCP responder for one guest and one address (RFC 2131, RFC 2132), without I/O and without state: a message in, a
 * whole frame out.
 *
 * It offers the guest's address with mask, broadcast, router, resolvers, MTU, lease time and, where they are other than the default
 * route alone, classless routes (RFC 3442; a client that asks for them ignores the router). A host name comes where
 * there is one, and room. A request for any other address gets DHCPNAK; one that names another server is none of ours. DHCPINFORM is
 * answered without a lease; RELEASE and DECLINE get no answer and change nothing, because the address is the guest's
 * whatever it says. Rapid commit (RFC 4039) and relays are not served. The client identifier is echoed (RFC 6842).
 */
#ifndef SM_NAT_DHCP_H
#define SM_NAT_DHCP_H

#include "nat/wire.h"

/** A whole answer: headers, 240 bytes of BOOTP, options. Clients need to accept no more than 576 bytes of IP (RFC 2131,
 * section 2). */
#define SM_DHCP_FRAME_MAX (SM_ETH_HLEN + 576)
/** Longest host name: one DNS label. */
#define SM_DHCP_HOSTNAME_MAX 63
/** Longest client identifier that is echoed: DUIDs end at 130 bytes, common ones have 7 to 19. */
#define SM_DHCP_CLIENT_ID_MAX 132
/** The address never changes while the workspace runs: one day keeps renewals rare. */
#define SM_DHCP_LEASE_S 86400

struct sm_dhcp {
    struct sm_link link;
    char hostname[SM_DHCP_HOSTNAME_MAX + 1]; /* empty: none is offered */
};

enum sm_dhcp_type {
    SM_DHCP_NONE = 0, /* not a DHCP message for us */
    SM_DHCP_DISCOVER,
    SM_DHCP_OFFER,
    SM_DHCP_REQUEST,
    SM_DHCP_DECLINE,
    SM_DHCP_ACK,
    SM_DHCP_NAK,
    SM_DHCP_RELEASE,
    SM_DHCP_INFORM,
    SM_DHCP_TYPES
};

/**
 * sm_dhcp_answer() - the answer to a BOOTP message (what the guard passed as DHCP, from its l4 on).
 * @ret_got: what came, SM_DHCP_NONE when it was nothing we understand; may be NULL.
 * Returns the length of the whole Ethernet frame in out, or 0 when there is no answer.
 */
size_t sm_dhcp_answer(const struct sm_dhcp *dhcp, const uint8_t *msg, size_t len, enum sm_dhcp_type *ret_got,
                      uint8_t out[SM_DHCP_FRAME_MAX]);

const char *sm_dhcp_type_name(enum sm_dhcp_type type);

#endif
