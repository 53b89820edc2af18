/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack.h: the patched libslirp in process, with a virtual clock.
 *
 * Frames go in with st_input, and what the stack says to the guest comes out
 * of st_next in order, behind the guest's network card (card.h), which checks
 * and does what the stack left to it. Each TCP flow that the stack opens gets a struct
 * st_conn, which plays the embedder: it takes the guest's bytes up to a quota,
 * sends what it was told to send, and counts every callback. st_new fails the
 * test when it cannot work.
 */
#ifndef STACK_H
#define STACK_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "slirp-flow.h"
#include "frame.h"
#include "card.h"

struct st_conn {
    struct st_stack *stack;
    SlirpFlow *flow; /* NULL before tcp_opened and after tcp_closed */
    SlirpFlowAddr addr;

    GByteArray *got; /* the guest's bytes that were taken */
    size_t quota;    /* how many more tcp_data may take */
    size_t offered;  /* bytes in the last tcp_data call */

    const uint8_t *out; /* to be sent to the guest as room allows */
    size_t out_len, out_sent;
    bool out_eof;   /* FIN after that */
    bool eof_reply; /* FIN when the guest's came */

    unsigned opened, established, eof, closed, writable, data_calls;
    SlirpFlowEnd end;

    /* Called inside the callbacks, for tests of re-entrancy. May be NULL. */
    void (*on_data)(struct st_conn *conn);
    void (*on_eof)(struct st_conn *conn);
};

struct st_datagram {
    SlirpFlowAddr addr;
    size_t len;
    uint8_t *data;
};

struct st_stack {
    Slirp *slirp;
    int64_t now_ns;
    uint16_t mtu;
    unsigned inputs; /* frames so far; every other one is lent (slirp_flow_input_lent) */

    SlirpFlowVerdict verdict; /* the answer to each SYN */
    unsigned asked;           /* tcp_open calls */
    SlirpFlowAddr asked_addr; /* the last one */
    size_t quota;             /* for new conns */
    const uint8_t *out;       /* for new conns */
    size_t out_len;
    bool out_eof, eof_reply;
    GPtrArray *conns; /* struct st_conn, in order of opening */
    void (*on_open)(struct st_conn *conn);

    struct cd_card card;
    unsigned offload;                                           /* SLIRP_FLOW_OFFLOAD_*, see st_set_offload */
    bool (*lose)(void *arg);                                    /* true: the packet does not reach the card; or NULL */
    GQueue frames;                                              /* GBytes to the guest */
    void (*to_guest)(const void *frame, size_t len, void *arg); /* in place of the queue */
    void *to_guest_arg;

    GPtrArray *datagrams; /* struct st_datagram */
    unsigned others;
    uint8_t other_proto;
};

/* What stacks are born with, by the arguments of a test program: nothing, or
 * "csum" or "tso". Frames from the guest have their checksums left to the card
 * then as well. */
void st_args(int argc, char **argv);
extern unsigned st_offload;

struct st_stack *st_new(uint16_t mtu);
struct st_stack *st_new_cfg(const SlirpFlowConfig *cfg);
void st_config(SlirpFlowConfig *ret_cfg, uint16_t mtu);
void st_free(struct st_stack *st);

void st_set_offload(struct st_stack *st, unsigned offload);

void st_input(struct st_stack *st, const uint8_t *frame, size_t len);

/* The same with a checksum that is not looked at. */
void st_input_trusted(struct st_stack *st, const uint8_t *frame, size_t len);

/* The next frame to the guest, parsed; the bytes live until the next call.
 * False: there is none. A frame that does not parse fails the test. */
bool st_next(struct st_stack *st, struct fr_packet *ret);
void st_discard(struct st_stack *st);

/* Let time pass, running every timer at its time. */
void st_advance(struct st_stack *st, unsigned ms);

/* Try to send more of conn->out. */
void st_conn_send(struct st_conn *conn);

struct st_conn *st_conn_at(struct st_stack *st, unsigned index);

/* A scripted guest: one connection whose segments the test sends by hand. */
struct st_peer {
    struct st_stack *stack;
    uint32_t dst;
    uint16_t sport, dport;
    uint32_t seq; /* next to send */
    uint32_t ack; /* next expected */
    uint16_t win;
    uint16_t mss;
    uint16_t urp;
    const uint8_t *opts; /* of its SYN, after the MSS; a multiple of 4 */
    size_t nopts;
};

void st_peer_init(struct st_peer *peer, struct st_stack *st, uint16_t sport, uint32_t isn);

/* Send a segment with these flags and data at seq + offset. Does not move
 * peer->seq. */
void st_peer_at(struct st_peer *peer, uint32_t offset, uint8_t flags, const void *data, size_t len);

/* The same at seq, and move seq past data, SYN and FIN. */
void st_peer_send(struct st_peer *peer, uint8_t flags, const void *data, size_t len);

/* Read one TCP segment of this connection and move ack past what it brings in
 * order. Fails the test when the next frame is none. */
void st_peer_recv(struct st_peer *peer, struct fr_packet *ret);

/* SYN, SYN-ACK, ACK. */
void st_peer_connect(struct st_peer *peer);

#endif
