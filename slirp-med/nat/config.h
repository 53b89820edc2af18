/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front's configuration message: one JSON object in the sealed memfd SM_CONFIG_FD, written by the supervisor.
 *
 *   key          type     meaning
 *   workspace    string   name, for log lines
 *   mac          string   the guest's MAC, "52:54:00:12:34:56"
 *   gateway_mac  string   ours; gateway and resolver answer with it
 *   guest        string   the leased IPv4 address
 *   prefix_len   integer  8..30
 *   gateway      string   in the same subnet
 *   resolver     string   in the same subnet
 *   dns          array    of addresses: what the guest is told as its resolvers; 1 to SM_LINK_DNS_MAX
 *   routes       array    of CIDRs behind the gateway; at most SM_LINK_ROUTES_MAX, 0.0.0.0/0 is the default route
 *   mtu          integer  SM_MTU_MIN..SM_MTU_MAX
 *   port         string   what carries the frames: the name of a struct sm_port_kind
 *   dns_any      boolean  true: every UDP datagram to port 53 goes to the core as DNS; false: only the resolver's
 *   hostname     string   optional; offered by DHCP
 *   vsock        object   optional, when the guest has a vsock device: port (string, a kind again), cid (integer, the guest's)
 *
 * Unknown keys are errors, as is anything out of range: the writer is our own program, and a misunderstanding must not
 * be guessed at.
 */
#ifndef SM_NAT_CONFIG_H
#define SM_NAT_CONFIG_H

#include <glib.h>

#include "nat/dhcp.h"
#include "nat/vsock.h"
#include "nat/wire.h"

/** Largest configuration message: a dozen short fields, two lists of a few addresses. */
#define SM_NAT_CONFIG_MAX 8192
#define SM_NAT_WORKSPACE_MAX 64
#define SM_NAT_PORT_MAX 32

struct sm_nat_config {
    struct sm_link link;
    bool dns_any;
    char port[SM_NAT_PORT_MAX + 1];
    char vsock_port[SM_NAT_PORT_MAX + 1]; /* "": no vsock device */
    uint32_t vsock_cid;
    char workspace[SM_NAT_WORKSPACE_MAX + 1];
    char hostname[SM_DHCP_HOSTNAME_MAX + 1];
};

/** sm_nat_config_parse() - returns false with error set, and leaves *ret alone, when anything is missing, unknown or
 * out of range. */
bool sm_nat_config_parse(const char *json, size_t len, struct sm_nat_config *ret, GError **error);

/** sm_mac_parse() - "aa:bb:cc:dd:ee:ff", unicast, not all zero. */
bool sm_mac_parse(const char *text, uint8_t ret[SM_ETH_ALEN]);

#endif
