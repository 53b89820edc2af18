/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What front.c (the hub), its sides (stack.c, sock.c) and its kinds of flows (tcp.c, udp.c, vsock_flow.c, sock.c) share,
 * and nobody else includes. The hub calls neither libslirp nor a port: a front of accepted sockets has none.
 *
 * Lifetime: a flow's memory outlives its end by the rest of the turn. Calls into libslirp may end the very flow that
 * they are made for (tcp_closed runs before they return), so an ended flow goes to the graveyard, and the code behind
 * such a call looks at `dead`.
 */
#ifndef SM_NAT_FRONT_PRIV_H
#define SM_NAT_FRONT_PRIV_H

#include <slirp-flow.h>

#include "flow/channel.h"
#include "flow/udpbatch.h"
#include "nat/arp.h"
#include "nat/dhcp.h"
#include "nat/echo.h"
#include "nat/front.h"
#include "nat/guard.h"
#include "nat/holds.h"
#include "nat/others.h"

enum sm_front_state { SM_FRONT_ASKED, SM_FRONT_HELD, SM_FRONT_ATTACHED, SM_FRONT_CLOSING, SM_FRONT_STATES };

struct sm_front_flow;

/** What the hub asks of a flow; a table for each kind. */
struct sm_front_flow_ops {
    /** A message of the core for a live id. May take *fd. */
    void (*message)(struct sm_front_flow *flow, const struct sm_flow_msg *msg, int *fd);
    /** Move what can be moved from upstream to the guest. */
    void (*run)(struct sm_front_flow *flow);
    /** The flow ends by our hand, and the core is told. NULL together with the next: it is no matter of the guest's card. */
    void (*end)(struct sm_front_flow *flow, enum sm_flow_why why);
    /** Are there bytes of the guest that upstream has not got? */
    bool (*holds)(const struct sm_front_flow *flow);
    /** ... or its end? */
    bool (*undelivered)(const struct sm_front_flow *flow);
    void (*free)(struct sm_front_flow *flow);
};

/** What brings the flows. */
struct sm_front_side {
    /** The turn ends: first of all, and last of all (what is watched from now on). */
    void (*turn)(struct sm_front *front);
    void (*turn_end)(struct sm_front *front);
    /** No room towards the guest: no upstream is read. */
    bool (*congested)(const struct sm_front *front);
    /** Once a second while there is something to tell. */
    void (*tick)(struct sm_front *front);
    /** The guest has ended: read what it left on the way. */
    void (*finish)(struct sm_front *front);
    /** INBOUND; the id is the core's and not in use. May take *fd; tells GONE when it cannot serve. */
    void (*inbound)(struct sm_front *front, const struct sm_flow_msg *msg, int *fd);
    /** A datagram to the guest, from the flow's destination: false when it was dropped. */
    bool (*udp_push)(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len);
    /** The same for all datagrams of a run at once: false when that cannot be, and nothing was done. NULL: never. */
    bool (*udp_push_run)(struct sm_front *front, const struct sm_hold_key *key, const struct sm_dgrams_run *run);
    /** Tell the guest that its datagram was refused. */
    void (*udp_refuse)(struct sm_front *front, const struct sm_hold_key *key, enum sm_flow_how how);
    /** Let go of the flows, before the hub frees them. */
    void (*stop)(struct sm_front *front);
    void (*free)(struct sm_front *front);
};

/** What TCP, UDP and vsock flows have in common. First member of each. */
struct sm_front_flow {
    uint64_t id;
    struct sm_front *front;
    const struct sm_front_flow_ops *ops;
    enum sm_front_proto { SM_FRONT_TCP, SM_FRONT_UDP, SM_FRONT_VSOCK } proto;
    enum sm_front_state state;
    bool nameless; /* key says nothing: no hold is made of its refusal */
    bool dead;     /* in the graveyard */
    bool orphan;   /* its guest has gone: it ends when what that sent is upstream */
    bool waiting;  /* in one of the two lists below */
    bool runnable;
    GList link;    /* member of front->ready or front->stalled */
    bool deferred; /* member of front->stack->deferred */
    GList defer;
    GList grave;           /* member of front->graveyard */
    struct sm_watch watch; /* fd -1 until attached */
    struct sm_hold_key key;
};

struct sm_front {
    struct sm_loop *loop;
    struct sm_front_config cfg;
    const struct sm_front_side *side;
    struct sm_front_stack *stack; /* one of these two, */
    struct sm_front_socks *socks; /* as the side wants it */
    struct sm_front_vsock *vsock; /* NULL: the guest has no vsock device */
    struct sm_channel *channel;
    void (*failed)(const char *text, void *data);
    void *failed_data;
    bool dead;
    bool reading;   /* what brings flows is read */
    bool finishing; /* the guest has ended: what it sent is delivered, then ... */
    bool told;      /* ... the last word is said */

    struct sm_timer tick_timer; /* once a second while there is something to tell or to expire */
    struct sm_timer finish_timer;
    bool guest_left;            /* told, and not looked at yet */
    struct sm_timer left_timer; /* orphans are looked at again */
    int64_t left_until;
    struct sm_timer retry_timer; /* stalled flows look again */

    struct sm_holds holds;
    struct sm_others others;

    uint64_t next_id;
    GHashTable *ids;    /* live ids: &flow->id -> struct sm_front_flow */
    GHashTable *tuples; /* UDP: &flow->hash -> struct sm_udp_flow */
    GQueue lru;         /* UDP flows, quiet ones first */
    GQueue udp_asked;   /* of struct sm_udp_flow, in the order in which they were asked about */
    GQueue ready;       /* flows with more to read than their turn allowed */
    GQueue stalled;     /* flows that wait for the port or for memory */
    GQueue graveyard;
    uint64_t tuple_secret;
    size_t udp_held;

    struct sm_front_batch {
        struct sm_front_flow *flow; /* NULL: empty */
        struct sm_udpbatch packet;
        uint8_t *buf; /* SM_FLOW_UDP_BATCH_MAX */
    } batches[SM_FRONT_UDP_BATCHES];
    unsigned next_batch; /* the one that goes when a further flow needs one */
    uint8_t *read_buf;   /* SM_FLOW_UDP_BATCH_MAX: a packet from a UDP pair; also frames that we build */

    struct sm_front_stats stats;
};

/** The network card and what answers it: stack.c. */
struct sm_front_stack {
    struct sm_port *port;
    uint64_t faults_told; /* of port->faults */
    Slirp *slirp;
    struct sm_timer timer; /* libslirp's next wish */
    struct sm_guard guard;
    uint32_t tx_offloads; /* the port's, as libslirp has been told */
    struct sm_dhcp dhcp;
    struct sm_echo echo;
    bool in_batch;
    GQueue deferred; /* TCP flows that write at the end of the batch of frames */
    uint8_t *frame_buf;
    struct sm_frame frames[SM_PORT_BATCH];
};

/* front.c */
int64_t sm_front_now(const struct sm_front *front);
void sm_front_fail(struct sm_front *front, const char *text);
/** A front without flows; the caller makes what side needs, and reads nothing before the loop runs. */
struct sm_front *sm_front_new_hub(struct sm_loop *loop, const struct sm_front_config *cfg,
                                  const struct sm_front_side *side, int channel_fd,
                                  void (*failed)(const char *text, void *data), void *data);
/** Something of the guest's that is no flow was dropped: recorded. */
void sm_front_other(struct sm_front *front, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst);
/** A message without fields beside its id and why. */
void sm_front_tell(struct sm_front *front, enum sm_flow_type type, uint64_t id, enum sm_flow_why why);
/** Ask the core about a new flow: false when a bound or the channel says no, and then nothing has changed. On true the
 * id is set and live. */
bool sm_front_ask(struct sm_front *front, struct sm_front_flow *flow);
/** The same with an OPEN whose addresses are filled in (its id is not). */
bool sm_front_ask_with(struct sm_front *front, struct sm_front_flow *flow, struct sm_flow_msg *open);
/** Whether a hold refuses this attempt; counts it. */
bool sm_front_held(struct sm_front *front, const struct sm_hold_key *key, enum sm_flow_how *ret_how);
/** Room for one more live flow? A UDP flow that was quiet for long may make it. */
bool sm_front_has_room(struct sm_front *front);
/** ... that waits for its verdict? */
bool sm_front_may_ask(struct sm_front *front);
void sm_front_set_state(struct sm_front_flow *flow, enum sm_front_state state);
/** The id dies: no message for it has an effect from now on. */
void sm_front_forget(struct sm_front_flow *flow);
/** Free at the end of the turn. Also takes it out of the lists and closes its descriptor. */
void sm_front_bury(struct sm_front_flow *flow);
void sm_front_close_fd(struct sm_front_flow *flow);
/** Look at this flow again: at the end of this turn, or when the port or memory has room. */
void sm_front_ready(struct sm_front_flow *flow);
void sm_front_stall(struct sm_front_flow *flow);
void sm_front_unlist(struct sm_front_flow *flow);
void sm_front_want_tick(struct sm_front *front);

static inline struct in_addr sm_front_in(uint32_t host_order)
{
    return (struct in_addr){.s_addr = htonl(host_order)};
}

/* tcp.c */
extern const struct sm_front_tcp_ops {
    SlirpFlowVerdict (*open)(const SlirpFlowAddr *, void **, void *);
    void (*opened)(SlirpFlow *, void *, void *);
    size_t (*data)(void *, const struct iovec *, int, void *);
    void (*eof)(void *, void *);
    void (*writable)(void *, size_t, void *);
    void (*closed)(void *, SlirpFlowEnd, void *);
} sm_front_tcp;
void sm_front_tcp_inbound(struct sm_front *front, const struct sm_flow_msg *msg, int *fd);
/** Write what the guest sent and was put off. */
void sm_front_tcp_flush(struct sm_front_flow *flow);

/* udp.c */
void sm_front_udp_input(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len);
void sm_front_udp_flush(struct sm_front *front);
/** End the flow that was quiet longest, if it was quiet long enough; false when there is none. */
bool sm_front_udp_evict(struct sm_front *front);
void sm_front_udp_expire(struct sm_front *front, int64_t now_us);
void sm_front_udp_datagram(struct sm_front *front, const struct sm_flow_msg *msg);

/** sm_front_tell_faults() - what has broken at a port since *told is recorded, as other things that are dropped are. */
void sm_front_tell_faults(struct sm_front *front, const struct sm_port *port, uint64_t *told);

/* stack.c */
/** A frame of ours to the guest. */
void sm_front_emit(struct sm_front *front, const void *data, size_t len);
/** TCP: call sm_front_tcp_flush() for it at the end of this batch of frames. */
void sm_front_defer(struct sm_front_flow *flow);

/* vsock_flow.c */
/** The end of a turn: what is wanted of the port, and whether it has another guest. */
void sm_front_vsock_turn(struct sm_front *front);
void sm_front_vsock_free(struct sm_front *front);

#endif
