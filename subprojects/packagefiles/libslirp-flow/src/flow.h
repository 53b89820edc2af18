/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow.h: what flow.c adds to a Slirp and to a struct socket, and the hooks
 * through which the TCP engine reaches it. Internal; the API is slirp-flow.h.
 */
#ifndef FLOW_H
#define FLOW_H

#include "slirp-flow.h"

struct mbuf;
struct socket;
struct tcpcb;
struct tcpiphdr;

/* Flows in TIME-WAIT at most; the oldest goes first. They protect against old
 * segments, and a virtual link has hardly any. */
#define FLOW_TIME_WAIT_MAX 256

/* Out-of-order segments held for one connection: 64 KiB of window in segments
 * of 536 bytes are 122. */
#define FLOW_SEGMENTS_MAX 128

/* Fragmented datagrams in reassembly, and fragments of each: 64 KiB in pieces
 * of 552 bytes (MTU 576) are 119. */
#define FLOW_FRAG_QUEUES_MAX 16
#define FLOW_FRAGMENTS_MAX 128

/* Memory of all mbufs held by both kinds of reassembly, in bytes. At MTU 65520
 * one mbuf is 64 KiB, so this is 256 of them. */
#define FLOW_HELD_MAX (16 * 1024 * 1024)

/* Receive buffer, which a window of 65535 can offer without scaling; with it,
 * at most as much as pays (docs/PERFORMANCE.md), and a share of what all flows
 * together may have on the way beyond that. */
#define FLOW_RCVSPACE 65536
#define FLOW_RCVSPACE_MAX (512 * 1024)
#define FLOW_RCVSPACE_SHARED (32 * 1024 * 1024)

/* Work on a flow that waits for the outermost call to return. */
#define FLOW_TODO_ACCEPT 0x01
#define FLOW_TODO_REFUSE 0x02
#define FLOW_TODO_ABORT 0x04
#define FLOW_TODO_EOF 0x08
#define FLOW_TODO_OUTPUT 0x10

struct flow_sock {
    void *cookie;
    struct socket *todo_next;
    unsigned todo; /* FLOW_TODO_* */
    bool queued; /* on the todo list */
    bool taken; /* the embedder knows it: tcp_closed is due */
    bool in_data; /* inside tcp_data */
    bool eof_in; /* tcp_eof was called */
    bool eof_out; /* slirp_flow_eof was called */
    bool time_wait; /* counted in ntime_wait */
    uint32_t rcv_limit; /* flow_window: bytes on the way and held */
    SlirpFlowVerdict refuse;
    SlirpFlowEnd end; /* what tcp_closed will say */
};

struct flow_state {
    const SlirpFlowOps *ops;
    struct in_addr guest;
    uint8_t guest_mac[6];
    uint8_t gateway_mac[6];
    bool guest_known;
    bool arp_all;
    uint8_t secret[32];
    unsigned depth; /* nested library calls */
    unsigned offload; /* SLIRP_FLOW_OFFLOAD_* */
    struct socket *todo_head, *todo_tail;
    size_t max_flows, nflows, ntime_wait;
    bool ticking;
    int64_t last_tick; /* ms */
    SlirpFlowStats stats;
};

/* Called by the engine. */
SlirpFlowVerdict flow_tcp_syn(Slirp *slirp, struct tcpiphdr *ti, uint8_t *optp,
                              int optlen, uint32_t iss);
void flow_tcp_pending(struct socket *so, struct tcpiphdr *ti, uint8_t *optp,
                      int optlen);
uint32_t flow_isn(const struct socket *so);
uint32_t flow_isn_after(const struct socket *so, uint32_t last);
void flow_deliver(struct socket *so);
void flow_closed(struct socket *so);
void flow_time_wait(struct socket *so);
void flow_other(struct mbuf *m, uint8_t proto);
bool flow_hold(struct mbuf *m);
void flow_output(struct tcpcb *tp);
long flow_window(struct socket *so);
int flow_send_max(const struct tcpcb *tp);
bool flow_gather(struct socket *so, struct mbuf *m, size_t off, size_t len);

#endif
