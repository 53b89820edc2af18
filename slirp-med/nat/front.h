/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front: what a guest sends on one side, the handoff channel to the core on the other (design.md section 1).
 *
 * The hub (front.c) has the channel, ids, holds, counts and lists. What brings the flows is one of two sides: a network
 * card, whose frames go through libslirp (stack.c, here), or sockets that the kernel has accepted (sock.h).
 *
 *   port --frames--> guard --+--> arp, dhcp, echo --> port
 *                            +--> libslirp (flow ops) --> tcp.c, udp.c --> channel: OPEN BYTES EOF GONE DATAGRAM
 *                                                              ^                    OTHER REPEATED ATTACHED
 *                                                              +---------- channel: REFUSE ACCEPT ATTACH ABORT INBOUND
 *                                                                                   DATAGRAM RELEASE
 *
 * The front decides nothing: it asks about each new flow, repeats a refusal for as long as it was told to (holds.h),
 * and moves bytes between libslirp's buffers and the descriptors that it was given. A flow's life, as the front of a card
 * sees it (sock.h has that of accepted sockets, docs/ARCHITECTURE.md the whole table):
 *
 *   state     entered by          bytes from the guest                       leaves by
 *   ASKED     OPEN sent           TCP, vsock: none yet; UDP: held, bounded   REFUSE, ACCEPT (TCP), ATTACH, ABORT; GONE
 *   HELD      ACCEPT (TCP only)   kept, bounded; copied to the core (BYTES)  ATTACH, ABORT; GONE
 *   ATTACHED  ATTACH or INBOUND   written to the descriptor                  REFUSE (UDP), ABORT; GONE
 *   CLOSING   the id is dead      -                                          libslirp lets go of the connection
 *
 * Any other message of the core for an id that is not live is dropped, its descriptor closed; every ATTACH and INBOUND
 * is acknowledged all the same, since the acknowledgement says that the descriptor is out of flight.
 *
 * Back-pressure: upstream full -> libslirp keeps the bytes and closes the guest's window; guest full -> libslirp has no
 * room and upstream is not read; port full -> no upstream is read; channel full -> no frames are read. Memory is
 * bounded by the maxima below.
 *
 * A second port may carry the guest's vsock: its packets go through vsock.c and vsock_flow.c to the same channel.
 *
 * One thread, one loop; nothing blocks. After start the only calls on descriptors are read, readv, recvmsg, write,
 * writev, epoll_*, close and shutdown. SIGPIPE must be ignored.
 */
#ifndef SM_NAT_FRONT_H
#define SM_NAT_FRONT_H

#include <glib.h>

#include "base/loop.h"
#include "nat/config.h"
#include "nat/port.h"
#include "nat/vsock.h"

/** TCP connections at once, libslirp's TIME-WAIT included; a SYN above it is dropped. Design goal: 10,000 open ones. */
#define SM_FRONT_TCP_MAX 16384
/** Descriptors that are not flows': the standard ones, link, channel, port (or the kernel path's sockets and pipes), epoll, and
 * one that is just being received. */
#define SM_FRONT_FDS_RESERVED 32
/** UDP 4-tuples at once. When full, the one that was quiet longest makes room if it was quiet for
 * SM_FRONT_UDP_QUIET_US. */
#define SM_FRONT_UDP_MAX 16384
#define SM_FRONT_UDP_QUIET_US (10 * INT64_C(1000000))
/** OPENs without an answer, TCP and UDP together: the guest sends again, and the core's table of pending dials stays
 * short. */
#define SM_FRONT_ASKED_MAX 1024
/** A UDP flow that nobody answered for so long is forgotten (GONE timeout). For TCP libslirp does it, after 75 s. */
#define SM_FRONT_ASKED_US (75 * INT64_C(1000000))
/** Datagrams held for one UDP flow before its verdict: a QUIC client's first flight and its retransmissions. */
#define SM_FRONT_UDP_HELD_DATAGRAMS 16
#define SM_FRONT_UDP_HELD_BYTES (32u << 10)
/** UDP flows whose datagrams are gathered at the same time, so that a few that take turns still fill their packets. */
#define SM_FRONT_UDP_BATCHES 4
/** All held datagrams together. */
#define SM_FRONT_UDP_HELD_TOTAL (8u << 20)
/** Guest TCP bytes that wait for the core or for upstream, in libslirp or here, all flows: past it the flow that grew
 * is aborted (GONE limit). */
#define SM_FRONT_HELD_TOTAL (256u << 20)
/** Upstream TCP bytes that wait for the guest, all flows: past it a flow is read only while it has less than
 * SM_FRONT_QUEUED_LOW waiting. */
#define SM_FRONT_QUEUED_TOTAL (256u << 20)
#define SM_FRONT_QUEUED_LOW (16u << 10)

struct sm_front_config {
    struct sm_nat_config net;
    unsigned max_live;  /* flows that may hold a descriptor, 0: no bound but those above; main.c takes it from
                           RLIMIT_NOFILE */
    uint8_t secret[32]; /* random: initial sequence numbers and table keys */
    int64_t (*clock_us)(void *data); /* NULL: the loop's time of this turn */
    void *clock_data;
};

/** All counters since the start, except those that say "now". */
struct sm_front_stats {
    uint64_t opens, opens_dropped; /* asked; a bound or a full channel made us ignore the guest's packet */
    uint64_t repeated;             /* answered from a hold */
    uint64_t attached, gone;
    uint64_t dns_in, dns_out;
    uint64_t udp_dropped; /* datagrams: held too many, or the pair was full */
    uint64_t others;      /* frames refused by the guard or by libslirp and reported */
    uint64_t channel_dropped;
    uint64_t spliced; /* bytes of TCP that went through a pipe (sock.h) */
    size_t tcp_now, udp_now, vsock_now, asked_now;
    size_t held_now, queued_now; /* bytes, TCP */
};

struct sm_front;

/**
 * sm_front_new() - start serving: watches are registered, nothing is read before the loop runs.
 * @port, @channel_fd: taken, also on failure. The front uses the loop's turn-end hook.
 * @failed: called once when the port or the channel is dead; text is static. The owner then quits.
 * Returns NULL with error set.
 */
struct sm_front *sm_front_new(struct sm_loop *loop, const struct sm_front_config *cfg, struct sm_port *port,
                              int channel_fd, void (*failed)(const char *text, void *data), void *data, GError **error);
/** sm_front_add_vsock() - the guest has a vsock device too; its packets go over port, which is taken. Once. */
void sm_front_add_vsock(struct sm_front *front, struct sm_port *port, uint32_t guest_cid);
void sm_front_free(struct sm_front *front);

void sm_front_stats(const struct sm_front *front, struct sm_front_stats *ret);
/** sm_front_vsock_stats() - all zero without a vsock device. */
void sm_front_vsock_stats(const struct sm_front *front, struct sm_vsock_stats *ret);

/** sm_front_input() - judge and handle a batch of frames as if the port had read them (for harnesses; the loop does it
 * by itself). */
void sm_front_input(struct sm_front *front, const struct sm_frame *frames, unsigned n);
/** sm_front_tick() - what is done once a second: counts are reported, UDP flows that nobody answered end. The loop
 * calls it by itself. */
void sm_front_tick(struct sm_front *front);
/** How long the end waits until what the guest sent before it ended is upstream: a retransmission or two on a loaded machine. */
#define SM_FRONT_LINGER_US 3000000
/** sm_front_finish() - the guest has ended (its kernel says so by FIN or RST for each connection): what it sent is
 * delivered, for at most SM_FRONT_LINGER_US, then the last word is said. */
void sm_front_finish(struct sm_front *front);
/** sm_front_guest_left() - the VMM has gone, and the guest's connections with it, without a FIN: they end at the end of
 * this turn (GONE timeout), or when what the guest sent is upstream, for at most SM_FRONT_LINGER_US. Flows that come
 * later are the next guest's. May be called from within the port. */
void sm_front_guest_left(struct sm_front *front);
/** sm_front_last_word() - no frame is read any more, all counts are reported, and our side of the channel is shut. failed()
 * is called when the core closes it in its turn. */
void sm_front_last_word(struct sm_front *front);

/** sm_nat_main() - the subcommand `slirp-med-edge nat`: descriptors as in base/link.h, then the sandbox, then the loop.
 * kinds: the ports that the configuration may name. Returns an exit status. */
int sm_nat_main(const struct sm_port_kind *kinds, size_t n_kinds);

#endif
