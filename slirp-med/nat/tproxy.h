/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front of the kernel path (--datapath tproxy): what the guest's kernel says arrives here as accepted sockets and as
 * datagrams with the address that they were meant for. Flows of TCP are sock.h's, flows of UDP udp.c's.
 *
 * These sockets live in a network namespace of the mediator's, at the other end of the guest's card
 * (vmm-glue/paths/tproxy.h). The front is not in it: it has the descriptors.
 *
 *   guest ══ card ══╦═ nft TPROXY ─ TCP ─► listener          accept4   ─► OPEN, from the guest to where it meant to go
 *                   ║             └ UDP ─► datagrams         recvmsg   ─► DATAGRAM (port 53), or OPEN and the flow's pair
 *                   ║◄────────────────────  raw              writev    ◄─ UDP from the flow's destination; ICMP for refusals
 *                   ╚═ all other frames ─► frames            recvmsg   ─► the guard (guard.h) names them: OTHER
 *                    ◄────────────────────                   write     ◄─ answers of DHCP (dhcp.h)
 *                    ◄────────────────────  runs             writev    ◄─ UDP, many datagrams at once, which the kernel cuts
 *   keeper ◄── "dial me the guest, from this address" ── socket ──► a connected socket (published ports)
 *
 * Datagrams leave by one raw socket which is connected to the guest, with the header that we write: whatever its source
 * says, the kernel sends it to the guest and to nobody else. So there is no socket for each destination, none is bound, and
 * a front that was taken over can do what a front with a network card can: write packets to its own guest.
 *
 * Datagrams of one size that come together (base/dgrams.h: a run) go as one frame of the guest's device with a virtio-net header that says
 * how to cut it (packet(7): PACKET_VNET_HDR): the kernel cuts it where it has to, or never, if the guest's socket takes it whole. A
 * kernel that does not (before Linux 6.2) says so, and each goes by itself. In the other direction a guest that has its kernel cut
 * is met whole (UDP_GRO), and taken apart here.
 *
 * The bundle: one SOCK_SEQPACKET connection to the keeper, in whose queue the first message is SM_TPROXY_HELLO with the
 * five descriptors, in the order of enum sm_tproxy_fd. After it both sides speak in fixed records, big-endian:
 *
 *   front -> keeper  id u64, source address u32, source port u16, guest port u16
 *   keeper -> front  id u64, and the socket, connected or connecting; without one: it could not be
 *
 * The end of the keeper is the end of the front.
 */
#ifndef SM_NAT_TPROXY_H
#define SM_NAT_TPROXY_H

#include "nat/front.h"

/** The name of this datapath where a port is named (nat/config.h). */
#define SM_TPROXY_PORT "tproxy"
/** Datagrams taken in one turn: flows are served in between. */
#define SM_TPROXY_DATAGRAMS 64
/** Frames that are no flow's, looked at in one turn. */
#define SM_TPROXY_FRAMES 16

#define SM_TPROXY_HELLO 'S'
#define SM_TPROXY_ASK_LEN 16
#define SM_TPROXY_ANSWER_LEN 8

enum sm_tproxy_fd {
    SM_TPROXY_LISTENER,
    SM_TPROXY_DATAGRAM,
    SM_TPROXY_RAW,
    SM_TPROXY_FRAME,
    SM_TPROXY_RUNS,
    SM_TPROXY_FDS
};

/**
 * sm_front_new_tproxy() - as sm_front_new(); keeper is the bundle's descriptor. It, and what it brings, is taken, also on
 * failure. The sandbox has to let it accept and splice (sandbox.h: accepts, splices).
 */
struct sm_front *sm_front_new_tproxy(struct sm_loop *loop, const struct sm_front_config *cfg, int keeper,
                                     int channel_fd, void (*failed)(const char *text, void *data), void *data,
                                     GError **error);

#endif
