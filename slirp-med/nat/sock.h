/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The side of a front whose flows are TCP sockets that the kernel has accepted: the kernel path (tproxy.h) and the proxy.
 *
 * The front keeps the guest's socket, which never goes to the core, and speaks the handoff as the slirp front does
 * (front.h has the states; docs/ARCHITECTURE.md the whole table):
 *
 *   state     the client's socket                                       upstream's descriptor
 *   ASKED     as HELD, but SM_SOCK_EARLY_MAX; with hooks its end alone   none
 *   HELD      read, bounded, copied to the core (BYTES), EOF told       none
 *   ATTACHED  both ways, at most one read or pipe a turn each           what ATTACH brought; `consumed` bytes are dropped
 *   CLOSING   an answer is on its way (hooks), or nothing is left       none
 *
 * A REFUSE is an immediate RST, whatever its `how` says: the kernel has completed the handshake, so nothing milder is left,
 * and no byte has been relayed. A hold answers the same way. Where there are hooks, a refused client gets their answer.
 *
 * Back-pressure is the kernel's: what one side does not take is kept (one read's or pipe's worth), and the other side is
 * not read. Clients wait in the listener's backlog while a bound of the front or the channel says so.
 *
 * After start the calls on descriptors are those of front.h, accept4 and getsockname on listeners' clients, and
 * setsockopt SO_LINGER (for a RST): the sandbox's `accepts`; and splice where it was asked for (sm_sock_splice()): `splices`.
 */
#ifndef SM_NAT_SOCK_H
#define SM_NAT_SOCK_H

#include "base/dgrams.h"
#include "flow/msg.h"
#include "nat/front.h"
#include "nat/holds.h"

/** Clients taken from one listener in a turn: flows are served in between. */
#define SM_SOCK_ACCEPT_BATCH 32
/** First bytes that the core is shown before it has answered: a usual head. What nobody asked for is to stay small beside what is. */
#define SM_SOCK_EARLY_MAX (4u << 10)
/** First bytes that come with a flow: the largest request head that a proxy takes. */
#define SM_SOCK_FIRST_MAX (64u << 10)
/** Longest answer of a hook. */
#define SM_SOCK_ANSWER_MAX (8u << 10)
/** How long a refused client may take to read its answer and to close. */
#define SM_SOCK_LINGER_US (5 * INT64_C(1000000))
/** Refused clients that are being answered; more get a RST. */
#define SM_SOCK_LINGER_MAX 256
/** Descriptors of one flow: the client's, upstream's, and one that is just on its way. */
#define SM_SOCK_FDS_A_FLOW 3

/** What a flow's owner does; each may be NULL, as may the table. data is sm_sock_open()'s. */
struct sm_sock_hooks {
    /** The flow is accepted or attached, whichever comes first: bytes that the client gets before all others, or NULL. */
    GBytes *(*accepted)(void *data);
    /** The flow is refused before that. msg: the REFUSE, or NULL when a bound or the end of the front is the reason.
     * Returns the client's answer, after which the connection is closed in order; or NULL for a RST. */
    GBytes *(*refused)(const struct sm_flow_msg *msg, void *data);
    /** The client's next bytes, behind the first ones: how many of them may go upstream. The rest is dropped, and once the
     * client has been sent something it is as if it had ended there. */
    size_t (*says)(const uint8_t *p, size_t len, void *data);
    /** The next bytes for the client. Returns false when it has said too much already: its end is told upstream. */
    bool (*hears)(const uint8_t *p, size_t len, void *data);
    /** The last call: data is not used any more. */
    void (*closed)(void *data);
};

/** sm_front_new_sock() - a front without a network card; flows come by the functions below. As sm_front_new(), but that it
 * cannot fail. Of cfg->net it uses link.guest and link.resolver, and dns_any. */
struct sm_front *sm_front_new_sock(struct sm_loop *loop, const struct sm_front_config *cfg, int channel_fd,
                                   void (*failed)(const char *text, void *data), void *data);

/**
 * sm_sock_listen() - take the clients of a listening, non-blocking socket (which is taken) from now on, as fast as the
 * front's bounds allow.
 * @client: a client's non-blocking socket, which is the callee's; src is the peer, dst what it connected to.
 * TCP_NODELAY is to be set on the listener: clients inherit it.
 */
void sm_sock_listen(struct sm_front *front, int fd,
                    void (*client)(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data),
                    void *data);

/**
 * sm_sock_open() - a new flow of a client's socket: OPEN is sent.
 * @fd: non-blocking; taken in any case.
 * @open: proto TCP, and src and dst, or src and a name, as OPEN is to say. By address a hold may refuse it at once.
 * @first: bytes of the client that were read already; they come before all others. At most SM_SOCK_FIRST_MAX.
 * What cannot become a flow is refused here and now: hooks->refused(NULL) and hooks->closed() are called from within.
 */
void sm_sock_open(struct sm_front *front, int fd, const struct sm_flow_msg *open, const void *first, size_t first_len,
                  const struct sm_sock_hooks *hooks, void *data);

/** sm_sock_answer() - a client that never became a flow is answered, and closed in order; fd and answer are taken. NULL: RST. */
void sm_sock_answer(struct sm_front *front, int fd, GBytes *answer);

/**
 * sm_sock_on_inbound() - how a flow of a published port gets its socket to the guest.
 * @dial: INBOUND came; sm_sock_dialled() is to be called with the flow's id, sooner or later. False: it cannot be.
 * Without it every INBOUND is answered by GONE limit.
 */
void sm_sock_on_inbound(struct sm_front *front,
                        bool (*dial)(uint64_t id, const struct sm_endpoint *src, uint16_t guest_port, void *data),
                        void *data);
/** sm_sock_dialled() - fd (taken) is connected or connecting to the guest; -1: there is none. An id that has ended is fine. */
void sm_sock_dialled(struct sm_front *front, uint64_t id, int fd);

/**
 * sm_sock_splice() - flows of the kernel path: from now on the bytes of a busy direction, of flows without hooks, go
 * by splice(2) (pipes.h). Once, before the sandbox, which has to let it (sandbox.h: splices). Returns how many pipes
 * there are; without any, bytes are read and written as ever.
 */
unsigned sm_sock_splice(struct sm_front *front);

/** Where datagrams of UDP flows and of DNS leave for the guest. */
struct sm_sock_udp {
    /** From key's destination to its source port; false: dropped. */
    bool (*push)(const struct sm_hold_key *key, const uint8_t *data, size_t len, void *data_of_owner);
    /** The same for all datagrams of a run at once: false when that cannot be, and nothing was done. May be NULL. */
    bool (*push_run)(const struct sm_hold_key *key, const struct sm_dgrams_run *run, void *data_of_owner);
    /** Its datagram was refused, like this. */
    void (*refuse)(const struct sm_hold_key *key, enum sm_flow_how how, void *data_of_owner);
    /** The front ends: the last call. */
    void (*free)(void *data_of_owner);
};
void sm_sock_on_udp(struct sm_front *front, const struct sm_sock_udp *udp, void *data);
/** sm_sock_udp_input() - a datagram of the guest's: of a flow, of a new one, or DNS (udp.c); sm_sock_udp_flush() behind a
 * batch of them. */
void sm_sock_udp_input(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len);
void sm_sock_udp_flush(struct sm_front *front);
/** sm_sock_reading() - may more of the guest's be taken in now? */
bool sm_sock_reading(const struct sm_front *front);
/** sm_sock_watch_source() - a source of the owner's, which is watched for input only while that is so. At most one. */
void sm_sock_watch_source(struct sm_front *front, struct sm_watch *source);

/** sm_sock_other() - something of the guest's that is no flow was dropped: it is recorded. */
void sm_sock_other(struct sm_front *front, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst);

#endif
