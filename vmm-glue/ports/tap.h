/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tap device in the current network namespace: made, addressed and routed by ioctls (no ip(8) needed).
 *
 * The device lives as long as its descriptor, or its namespace (sm_tap_keep()): whoever holds the last copy ends the
 * guest's network by closing it. Needs CAP_NET_ADMIN in the user namespace that owns the network namespace, and
 * permission to open /dev/net/tun.
 */
#ifndef SM_PORTS_TAP_H
#define SM_PORTS_TAP_H

#include <glib.h>

#include "base/addr.h"
#include "base/defs.h"

#define SM_TAP_MTU_MIN 576   /* RFC 791: what every host must accept */
#define SM_TAP_MTU_MAX 65520 /* tun's limit (65535 less the Ethernet header), rounded down */

/** Routes that a device is given: as many as the guest can be told of in other ways (SM_LINK_ROUTES_MAX). */
#define SM_TAP_ROUTES_MAX 8

struct sm_tap_spec {
    const char *name; /* "eth0" */
    uint8_t mac[6];
    struct sm_addr ip;
    uint8_t prefix_len;
    struct sm_addr gateway;                     /* of the routes; family none: there are none */
    struct sm_prefix routes[SM_TAP_ROUTES_MAX]; /* IPv4 */
    size_t n_routes;
    unsigned mtu;
    bool vnet_hdr; /* struct virtio_net_hdr_v1 (12 bytes) before each frame */
};

/** sm_tap_open() - attach to (make) the device. With vnet_hdr there is a little-endian struct virtio_net_hdr_v1 before
 * each frame, and the kernel leaves checksums and the segmentation of TCP over IPv4 to who reads. Returns a descriptor
 * (CLOEXEC, non-blocking) or -1 with error set. */
int sm_tap_open(const char *name, bool vnet_hdr, GError **error);

/** sm_tap_keep() - the device is not taken down when the last descriptor is closed (its carrier goes then), but when
 * its network namespace ends. Taking it down, the kernel waits for all that may still use it, 17 ms or so: in the first
 * case whoever closes waits, in the second a thread of the kernel's own. Only for a namespace that ends soon after. 0
 * or -1 with error. */
int sm_tap_keep(int fd, GError **error);

/** sm_tap_cuts_udp() - does the kernel behind this tap (with a virtio-net header) cut UDP datagrams that are given to
 * it in one piece? Also sets what the guest may leave to us, as sm_tap_open() does. */
bool sm_tap_cuts_udp(int fd);

/** sm_tap_adopt() - one that somebody else made: an IFF_TAP | IFF_NO_PI device; *ret_vnet_hdr says whether it has the header
 * as above, which is set up as there. Returns 0, or -1 with error set (SM_ERROR_INVALID: another kind of descriptor). */
int sm_tap_adopt(int fd, bool *ret_vnet_hdr, GError **error);

/** sm_tap_configure() - MAC, MTU, address, up, routes, in this order, for a device that sm_tap_open() made. 0 or
 * -1 with error. */
int sm_tap_configure(const struct sm_tap_spec *spec, GError **error);

/** sm_tap_loopback_up() - bring lo up. 0 or -1 with error. */
int sm_tap_loopback_up(GError **error);

/** sm_tap_parse_mac() - "aa:bb:cc:dd:ee:ff", unicast only. */
bool sm_tap_parse_mac(const char *text, uint8_t ret[6]) SM_WARN_UNUSED;

#endif
