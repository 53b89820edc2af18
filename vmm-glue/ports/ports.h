/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kinds of frame ports (nat/port.h), one file each, and the table of them that the front gets.
 *
 *   kind     descriptor                                     frames                                    connected again
 *   tap      IFF_TAP | IFF_NO_PI, non-blocking              one a readv(2), writev(2)                 no
 *   tap-vnet the same with IFF_VNET_HDR (ports/tap.h)       behind a virtio-net header (vnet_hdr.h)   no
 *   stream   SOCK_STREAM, QEMU's -netdev stream or socket   4-byte big-endian length, then the frame  yes
 *   dgram    SOCK_DGRAM, connected, QEMU's -netdev dgram    one a datagram                            yes
 *   vhost-user  the connection of a vhost-user front-end    virtio-net rings in shared memory         yes
 *   vhost-user-vsock  the same, for a vsock device          vsock packets in the same manner          yes
 */
#ifndef SM_PORTS_PORTS_H
#define SM_PORTS_PORTS_H

#include "nat/port.h"

extern const struct sm_port_kind sm_port_kinds[];
extern const size_t sm_port_kinds_count;

/** sm_port_tap_new() - over a tap that somebody else opened. Takes fd. mtu is the link's. */
struct sm_port *sm_port_tap_new(int fd, unsigned mtu, GError **error);

/** sm_port_tap_vnet_new() - the same for a tap that sm_tap_open() made with its vnet_hdr. */
struct sm_port *sm_port_tap_vnet_new(int fd, unsigned mtu, GError **error);

/** sm_port_stream_new() - takes fd, which may be -1. */
struct sm_port *sm_port_stream_new(int fd, unsigned mtu, GError **error);

/** sm_port_dgram_new() - takes fd, which may be -1. */
struct sm_port *sm_port_dgram_new(int fd, unsigned mtu, GError **error);
/** sm_port_vhost_net_new() - takes fd, which may be -1; mtu as above, and frames to be segmented may be longer. */
struct sm_port *sm_port_vhost_net_new(int fd, unsigned mtu, GError **error);

/** A virtio-vsock packet: header, and the most that Linux puts into one. */
#define SM_PORT_VSOCK_FRAME_MAX (44u + 65536u)

/**
 * sm_port_vhost_vsock_new() - not a network card: each frame is one virtio-vsock packet, header (44 bytes, little-endian) and payload, without
 * offload. Takes fd, which may be -1. A packet that is written with more stream data than the guest's buffers hold arrives as several.
 */
struct sm_port *sm_port_vhost_vsock_new(int fd, uint64_t guest_cid, GError **error);

#endif
