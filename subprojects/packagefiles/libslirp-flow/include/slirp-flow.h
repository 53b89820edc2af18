/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slirp-flow.h: libslirp without host sockets.
 *
 * The one idea: the library speaks IPv4, TCP and UDP with the guest and knows
 * nothing of the world. Each new TCP connection is first put to the embedder
 * as a question (tcp_open) and only then given memory; its bytes pass through
 * the two ends of a SlirpFlow. There is no socket(2) behind it.
 *
 * Threads: none. One instance is used by one thread; instances share nothing.
 *
 * Re-entrancy: every function on a flow may be called from every callback,
 * except send_packet and send_packetv, from which nothing may be called. What goes out on the
 * wire in consequence (handshake, data, FIN, RST) and every end of a flow is
 * put off until the outermost library call is about to return, so that a flow
 * never disappears under the code that is working on it.
 *
 * Lifetime: a SlirpFlow lives from tcp_opened (or the return of
 * slirp_flow_connect) until its tcp_closed callback, which is called exactly
 * once for each cookie and is the last call for it. After tcp_closed the
 * pointer must not be used. A flow that tcp_open did not take has no cookie
 * and gets no callback at all.
 *
 * Guest bytes never reach an assertion and are never logged.
 */
#ifndef SLIRP_FLOW_H
#define SLIRP_FLOW_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Slirp Slirp; /* one guest network interface */
typedef struct socket SlirpFlow; /* one TCP connection of the guest */

/* The two ends of a flow or datagram. The guest's end comes first whoever
 * started it. Addresses in network order, ports in host order. */
typedef struct SlirpFlowAddr {
    struct in_addr guest;
    struct in_addr peer;
    uint16_t guest_port;
    uint16_t peer_port;
} SlirpFlowAddr;

/* The answer to a SYN. Zero is the answer of an embedder that forgot one. */
typedef enum SlirpFlowVerdict {
    SLIRP_FLOW_DROP = 0, /* say nothing */
    SLIRP_FLOW_RST, /* connection refused */
    SLIRP_FLOW_UNREACH_NET, /* ICMP type 3 code 0 */
    SLIRP_FLOW_UNREACH_HOST, /* ICMP type 3 code 1 */
    SLIRP_FLOW_UNREACH_PORT, /* ICMP type 3 code 3 */
    SLIRP_FLOW_UNREACH_ADMIN, /* ICMP type 3 code 13 */
    SLIRP_FLOW_PENDING, /* hold the handshake: slirp_flow_accept or _refuse
                         * follows; the library gives up after 75 s */
    SLIRP_FLOW_ACCEPT, /* complete the handshake now */
} SlirpFlowVerdict;

/* Why a flow is gone (tcp_closed). */
typedef enum SlirpFlowEnd {
    SLIRP_FLOW_END_CLEAN = 0, /* both FINs were sent and acknowledged, and
                               * tcp_eof has been called */
    SLIRP_FLOW_END_GUEST_RST, /* the guest reset it */
    SLIRP_FLOW_END_PROTOCOL, /* the guest broke the protocol; it got an RST */
    SLIRP_FLOW_END_TIMEOUT, /* handshake, retransmission or half-close timer;
                             * bytes may be lost */
    SLIRP_FLOW_END_LOCAL, /* slirp_flow_abort or slirp_flow_refuse */
    SLIRP_FLOW_END_SHUTDOWN, /* slirp_flow_free */
} SlirpFlowEnd;

/* What the guest's network card does in the guest's stead (virtio 1.1, 5.1.6),
 * on packets to it. Zero, the state at start, means nothing: every packet has
 * its checksum and fits the MTU. */
#define SLIRP_FLOW_OFFLOAD_CSUM 0x1u /* completes a TCP or UDP checksum */
#define SLIRP_FLOW_OFFLOAD_TSO 0x2u /* takes TCP over IPv4 in one piece of up
                                     * to 64 KiB; only together with CSUM */
#define SLIRP_FLOW_OFFLOAD_USO 0x4u /* the same for a run of UDP datagrams */

/* What goes with a packet to the guest beside its bytes; all zero: nothing.
 * Offsets count from the start of the Ethernet header. */
typedef struct SlirpFlowMeta {
    bool needs_csum; /* the sum at csum_start + csum_offset covers the pseudo
                      * header only */
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t gso_size; /* bytes of TCP payload in each segment that it is to be
                        * cut into: the guest's MSS; 0: it is one already.
                        * UDP: bytes of each datagram (USO) */
    uint16_t hdr_len; /* Ethernet, IP and TCP or UDP header; 0 without
                       * needs_csum */
} SlirpFlowMeta;

#define SLIRP_FLOW_IOV_MAX 3

/* Callbacks. opaque is the one given to slirp_flow_new. All are required
 * unless said otherwise. */
typedef struct SlirpFlowOps {
    /* Monotonic clock in nanoseconds. */
    int64_t (*clock_ns)(void *opaque);

    /* One Ethernet frame to the guest. It must be taken, queued or dropped at
     * once; TCP repairs what is dropped. Not called, and may be NULL, where
     * there is send_packetv. */
    void (*send_packet)(const void *frame, size_t len, void *opaque);

    /* The same in cnt (1 to SLIRP_FLOW_IOV_MAX) pieces, none of them empty:
     * bytes from the send buffer of a flow lie there still. The first has the
     * Ethernet, IP and TCP or UDP header whole. meta asks for no more than
     * slirp_flow_set_offload has allowed. May be NULL; then nothing can be
     * allowed. */
    void (*send_packetv)(const struct iovec *iov, int cnt,
                         const SlirpFlowMeta *meta, void *opaque);

    /* A SYN for an unknown connection. Nothing has been allocated; for
     * PENDING and ACCEPT set *cookie, and tcp_opened follows at once. A
     * retransmitted SYN of a pending flow does not come here. */
    SlirpFlowVerdict (*tcp_open)(const SlirpFlowAddr *addr, void **cookie,
                                 void *opaque);

    /* The flow for the SYN that tcp_open has just taken. */
    void (*tcp_opened)(SlirpFlow *flow, void *cookie, void *opaque);

    /* The handshake is complete. May be NULL. */
    void (*tcp_established)(void *cookie, void *opaque);

    /* Bytes from the guest, in order: everything that has arrived and has not
     * been taken yet, oldest first, in cnt (1 or 2) pieces. Called when new
     * bytes have arrived and from slirp_flow_pull. Returns how many bytes
     * were taken from the front, 0 to all. The rest stays in the receive
     * buffer (64 KiB; up to 512 KiB of a guest that scales its windows, as
     * long as flows are few), comes again in the next call, and closes the
     * guest's window by as much: this is the back-pressure. */
    size_t (*tcp_data)(void *cookie, const struct iovec *iov, int cnt,
                       void *opaque);

    /* The guest has sent FIN and all its bytes have been taken. Once. */
    void (*tcp_eof)(void *cookie, void *opaque);

    /* The guest has acknowledged so much that the send buffer has fallen
     * below half full; room is what fits in now. Called once for each time
     * this happens, so a writer that stops when slirp_flow_room or
     * slirp_flow_push comes up short will be called. */
    void (*tcp_writable)(void *cookie, size_t room, void *opaque);

    /* The flow is gone. Last call for this cookie. */
    void (*tcp_closed)(void *cookie, SlirpFlowEnd how, void *opaque);

    /* A whole, checksummed UDP datagram from the guest. data is valid during
     * the call only. No state is kept. */
    void (*udp_input)(const SlirpFlowAddr *addr, const uint8_t *data,
                      size_t len, void *opaque);

    /* An IPv4 packet that has no other way out: ICMP except an echo request
     * to the gateway or resolver, a protocol other than TCP and UDP, TCP to a
     * broadcast or multicast address. It is dropped after the call. May be
     * NULL. */
    void (*other)(uint8_t proto, struct in_addr src, struct in_addr dst,
                  void *opaque);
} SlirpFlowOps;

#define SLIRP_FLOW_MTU_MIN 576
#define SLIRP_FLOW_MTU_MAX 65521
#define SLIRP_FLOW_MAX_DEFAULT 8192 /* flows, when max_flows is 0 */

typedef struct SlirpFlowConfig {
    struct in_addr gateway; /* our address: answers ARP and echo */
    struct in_addr resolver; /* a second one, same MAC; 0 for none */
    struct in_addr guest; /* the leased address: the only source allowed */
    uint8_t gateway_mac[6]; /* all zero: 52:55 and the gateway address */
    uint8_t guest_mac[6]; /* the only source MAC; all zero: not known yet, no
                           * frame passes until slirp_flow_set_guest */
    bool arp_all; /* answer ARP for every address but the guest's */
    uint16_t mtu; /* IP MTU of the link, SLIRP_FLOW_MTU_MIN..MAX; 0: 1500 */
    size_t max_flows; /* TCP flows at once; a SYN above it is dropped */
    uint8_t secret[32]; /* random; keys the initial sequence numbers */
} SlirpFlowConfig;

/* What the library dropped or answered by itself. */
typedef struct SlirpFlowStats {
    uint64_t drop_source; /* wrong source MAC or IPv4 address */
    uint64_t drop_frame; /* not for our MAC, unknown type, short */
    uint64_t drop_frag; /* fragment over a limit or nonsense */
    uint64_t drop_reass; /* out-of-order TCP segment over a limit */
    uint64_t drop_syn; /* SYN above max_flows */
    size_t flows; /* now, TIME-WAIT included */
    size_t held_bytes; /* now held by reassembly of segments and fragments */
} SlirpFlowStats;

/* Create an instance. cfg is copied, ops must outlive it. NULL when cfg is
 * out of range. */
Slirp *slirp_flow_new(const SlirpFlowConfig *cfg, const SlirpFlowOps *ops,
                      void *opaque);

/* End it: each flow gets tcp_closed(SHUTDOWN), nothing goes to the guest. */
void slirp_flow_free(Slirp *slirp);

/* The guest's MAC and leased address (again); flows in being are kept. */
void slirp_flow_set_guest(Slirp *slirp, const uint8_t mac[6],
                          struct in_addr addr);

/* One Ethernet frame from the guest, without FCS. A TCP packet may be longer
 * than the MTU (one that the guest's card was to segment), up to 64 KiB. */
void slirp_flow_input(Slirp *slirp, const uint8_t *frame, size_t len);

/* The same, for a frame whose TCP or UDP checksum is not to be looked at: the
 * guest has left it to its card, or the card has looked. Lengths, the IP
 * header's own checksum and everything else are checked as ever, and a
 * fragment's word for its datagram counts for nothing. */
void slirp_flow_input_trusted(Slirp *slirp, const uint8_t *frame, size_t len);

/* Both, for a frame in memory that may be written to: SLIRP_FLOW_HEADROOM bytes
 * in front of it, which begin at an address that is a multiple of 8, and the
 * frame itself. What is taken at once is taken from there, without a copy. When
 * the call returns all of it is the caller's again, and its bytes are anything. */
#define SLIRP_FLOW_HEADROOM 62
void slirp_flow_input_lent(Slirp *slirp, uint8_t *frame, size_t len,
                           bool trusted);

/* Around calls that belong together, frames that were read in one go above all:
 * what is to be sent for a flow in consequence (an ACK, more data) is sent once,
 * when the outermost slirp_flow_end returns. What cannot wait does not. */
void slirp_flow_begin(Slirp *slirp);
void slirp_flow_end(Slirp *slirp);

/* What packets to the guest may leave to its card from now on:
 * SLIRP_FLOW_OFFLOAD_*. Unknown flags, TSO or USO without CSUM and, without
 * send_packetv, all of them are ignored. May be called at any time: what was
 * sent one way is sent again the other way. */
void slirp_flow_set_offload(Slirp *slirp, unsigned flags);

/* Run what is due by clock_ns; returns milliseconds until it wants to be
 * called again, -1 when no timer runs. Any other call may start one: ask
 * slirp_flow_timeout, which runs nothing, before going to sleep. */
int slirp_flow_timer(Slirp *slirp);
int slirp_flow_timeout(Slirp *slirp);

/* Complete the guest's handshake. Only on a pending flow, else no effect. */
void slirp_flow_accept(SlirpFlow *flow);

/* Refuse a pending flow; tcp_closed(LOCAL) follows. On a flow that is not
 * pending any more it is slirp_flow_abort. PENDING and ACCEPT count as
 * DROP. */
void slirp_flow_refuse(SlirpFlow *flow, SlirpFlowVerdict how);

/* Bytes to the guest; returns how many fit in the send buffer (256 KiB).
 * Allowed from tcp_opened on; they leave when the handshake is complete. */
size_t slirp_flow_push(SlirpFlow *flow, const void *data, size_t len);

/* The free part of the send buffer, for readv(2) straight into it: returns
 * its size and, when iov is not NULL, its two pieces (the second may have
 * length 0). slirp_flow_commit(n) says that its first n bytes are filled, 0 if
 * there was nothing to fill them with: the memory need not wait for it. The
 * pieces are valid until the next library call. 0 after slirp_flow_eof. */
size_t slirp_flow_room(SlirpFlow *flow, struct iovec iov[2]);
void slirp_flow_commit(SlirpFlow *flow, size_t n);

/* The bytes from the guest that tcp_data has not taken, to look at: returns
 * their number and, when iov is not NULL, their two pieces (the second may
 * have length 0), valid until the next library call. slirp_flow_drop takes n
 * of them away (tcp_eof follows when the last one goes after a FIN). */
size_t slirp_flow_held(SlirpFlow *flow, struct iovec iov[2]);
void slirp_flow_drop(SlirpFlow *flow, size_t n);

/* tcp_data can take bytes again: it is called with what is held. */
void slirp_flow_pull(SlirpFlow *flow);

/* No more bytes to the guest: FIN after what is buffered. */
void slirp_flow_eof(SlirpFlow *flow);

/* RST to the guest, discard all; tcp_closed(LOCAL) follows. */
void slirp_flow_abort(SlirpFlow *flow);

/* The flow's addresses; its cookie. */
void slirp_flow_addr(const SlirpFlow *flow, SlirpFlowAddr *ret_addr);
void *slirp_flow_cookie(const SlirpFlow *flow);

/* Open a connection towards the guest (a published port): SYN from peer to
 * guest. NULL when the 4-tuple is in use or max_flows is reached. Bytes may
 * be pushed at once; a refusal is tcp_closed(GUEST_RST). */
SlirpFlow *slirp_flow_connect(Slirp *slirp, const SlirpFlowAddr *addr,
                              void *cookie);

/* One UDP datagram from addr->peer to addr->guest. False when len is more
 * than fits in one (65507). */
bool slirp_flow_udp_push(Slirp *slirp, const SlirpFlowAddr *addr,
                         const void *data, size_t len);

/* A run of UDP datagrams: len bytes, each datagram of size, the last one may be
 * shorter. All of it leaves as one frame, for the guest's card to cut; false,
 * and nothing is done, where that may not be: without USO, or when a datagram
 * does not fit the MTU. */
bool slirp_flow_udp_push_run(Slirp *slirp, const SlirpFlowAddr *addr,
                             const void *data, size_t len, size_t size);

/* ICMP destination unreachable from the gateway about a UDP datagram that
 * the guest sent to addr->peer; code as in RFC 792 and RFC 1812. */
void slirp_flow_udp_unreach(Slirp *slirp, const SlirpFlowAddr *addr,
                            uint8_t code);

/* Counters. */
void slirp_flow_stats(const Slirp *slirp, SlirpFlowStats *ret_stats);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SLIRP_FLOW_H */
