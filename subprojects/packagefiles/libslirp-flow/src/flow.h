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
 * of 536 bytes are 122. What a larger window brings beyond that comes again. */
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

/* Flows whose buffers keep their memory when they are empty: with TCP_SNDSPACE
 * as much as all flows' buffers together may hold (SM_FRONT_QUEUED_TOTAL). */
#define FLOW_SPARE_MAX 1024

/* Work on a flow that waits for the outermost call to return. */
#define FLOW_TODO_ACCEPT 0x01
#define FLOW_TODO_REFUSE 0x02
#define FLOW_TODO_ABORT 0x04
#define FLOW_TODO_EOF 0x08
#define FLOW_TODO_OUTPUT 0x10

struct flow_sock {
    void *cookie;
    struct socket *todo_next;
    struct socket *chain; /* next with the same hash (flow_table.c) */
    struct socket *tw_prev, *tw_next; /* time_wait_head, while !taken */
    int64_t synced; /* the tick for which the counters are true */
    int64_t due; /* the tick at which it comes up (flow_timer.c) */
    size_t heap_at; /* place in the heap plus 1; 0: not in it */
    unsigned todo; /* FLOW_TODO_* */
    bool queued; /* on the todo list */
    bool taken; /* the embedder knows it: tcp_closed is due */
    bool in_data; /* inside tcp_data */
    bool eof_in; /* tcp_eof was called */
    bool eof_out; /* slirp_flow_eof was called */
    bool time_wait; /* counted in ntime_wait */
    uint32_t rcv_limit; /* flow_window: bytes on the way and held */
    bool chained; /* in the table */
    bool evictable; /* in the list of time_wait_head */
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
    struct socket *time_wait_head, *time_wait_tail; /* oldest first */
    size_t max_flows, nflows, ntime_wait;
    struct socket **table; /* by hash of the four-tuple */
    size_t table_mask;
    uint64_t table_key[2], isn_key[2];
    struct socket **heap; /* flows with a timer, by due */
    size_t nheap, heap_size;
    int64_t tick; /* half seconds */
    int64_t next_tick_ns; /* when it ends */
    int64_t frag_tick; /* when fragments last grew older */
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
uint32_t flow_initial_window(uint32_t mss);
void flow_touch(struct socket *so);

/* flow.c to flow_table.c and flow_timer.c, and back. */
void flow_enter(Slirp *slirp);
void flow_leave(Slirp *slirp);
uint64_t flow_hash(const uint64_t key[2], struct in_addr guest,
                   uint16_t guest_port, struct in_addr peer,
                   uint16_t peer_port);
uint64_t flow_prf(const uint64_t key[2], struct in_addr guest,
                  uint16_t guest_port, struct in_addr peer, uint16_t peer_port);
void flow_table_init(Slirp *slirp);
void flow_table_free(Slirp *slirp);
struct socket *flow_find(Slirp *slirp, struct in_addr guest,
                         uint16_t guest_port, struct in_addr peer,
                         uint16_t peer_port);
void flow_table_add(struct socket *so);
void flow_table_remove(struct socket *so);
void flow_tick(Slirp *slirp);
void flow_sync(struct socket *so);
void flow_settle(struct socket *so);
void flow_unsettle(struct socket *so);
void flow_timer_free(Slirp *slirp);

#endif
