/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What proxy_front.c (who comes, and what is asked of the core) and proxy_client.c (one connection) share, and nobody else includes.
 *
 * Lifetime: a connection that has ended goes to the graveyard and is freed at the end of the turn; code behind a call that may end one looks
 * at `dead`.
 */
#ifndef SM_PATHS_PROXY_PRIV_H
#define SM_PATHS_PROXY_PRIV_H

#include "base/buf.h"
#include "flow/channel.h"
#include "http/proxy.h"
#include "nat/others.h"
#include "paths/proxy_front.h"
#include "policy/reason.h"

#define SM_PROXY_STATES_X(X) X(HEAD) X(ASKED) X(HELD) X(ATTACHED) X(ANSWERED)
enum sm_proxy_state {
#define X(name) SM_PROXY_##name,
    SM_PROXY_STATES_X(X)
#undef X
};

/** One client address, while it has connections. */
struct sm_proxy_peer {
    struct sm_addr addr; /* the key */
    unsigned conns;
};

struct sm_proxy_client {
    struct sm_proxy_front *front;
    uint64_t id; /* of the flow; 0: none */
    enum sm_proxy_state state;
    bool dead;
    struct sm_endpoint src;
    struct sm_proxy_peer *peer;
    struct sm_watch sock; /* the client */
    struct sm_watch up;   /* what ATTACH brought; fd -1: nothing yet */
    struct sm_timer timer;
    GList all, heads, grave; /* places in the front's lists; data is this */
    bool in_heads, asked;    /* counted among those */
    size_t heads_counted;    /* of its head, in front->heads_bytes */

    struct sm_proxy_head *head; /* HEAD */
    bool connect, head_only;    /* CONNECT; a HEAD request */
    char *host;                 /* for pages */
    struct sm_buf in;           /* from the client: its head, then what waits to go upstream */
    size_t shown;               /* HELD: of in, what the core has been shown */
    size_t counted;             /* of in, in front->stats.held_now */
    struct sm_buf out;          /* for the client */
    bool client_eof, up_eof, client_shut, up_shut;
};

struct sm_proxy_front {
    struct sm_loop *loop;
    const struct sm_proxy_config *config;
    struct sm_channel *channel;
    struct sm_watch listener;
    void (*failed)(const char *text, void *data);
    void *failed_data;
    bool dead, finishing, told;
    unsigned max_conns;
    uint64_t next_id;
    GHashTable *ids;   /* of flows: &client->id -> client */
    GHashTable *peers; /* &peer->addr -> peer */
    GQueue all, heads, graveyard;
    struct sm_others others;
    struct sm_timer tick, pause, finish;
    size_t heads_bytes;
    struct sm_proxy_stats stats;
    uint8_t scratch[64 << 10]; /* what one read may bring */
};

/* proxy_front.c */
/** sm_proxy_report() - a client got no further than us. */
void sm_proxy_report(struct sm_proxy_front *front, enum sm_flow_other kind, const struct sm_addr *client);
/** sm_proxy_ask() - OPEN for a head that is complete. False: it cannot be asked now. */
bool sm_proxy_ask(struct sm_proxy_client *c, const char *name, size_t len, uint16_t port) SM_WARN_UNUSED;
void sm_proxy_tell(struct sm_proxy_front *front, enum sm_flow_type type, uint64_t id, enum sm_flow_why why);
/** sm_proxy_answered() - the core has said something about its OPEN. */
void sm_proxy_answered(struct sm_proxy_client *c);
/** sm_proxy_forget_id() - nothing of the core's is for this connection any more. */
void sm_proxy_forget_id(struct sm_proxy_client *c);
/** sm_proxy_bury() - it has ended: its descriptors are closed, its memory goes with the turn. */
void sm_proxy_bury(struct sm_proxy_client *c);
/** sm_proxy_head_done() - it is not one of those whose head is waited for any more. */
void sm_proxy_head_done(struct sm_proxy_client *c);

/* proxy_client.c */
struct sm_proxy_client *sm_proxy_client_new(struct sm_proxy_front *front, int fd, const struct sm_endpoint *src);
void sm_proxy_client_free(struct sm_proxy_client *c);
/** sm_proxy_client_message() - REFUSE, ACCEPT, ATTACH or ABORT for its flow. *fd is taken with ATTACH. */
void sm_proxy_client_message(struct sm_proxy_client *c, const struct sm_flow_msg *msg, int *fd);
/** sm_proxy_client_answer() - a page of ours, and the end. */
void sm_proxy_client_answer(struct sm_proxy_client *c, uint16_t status, const char *reason);
/** sm_proxy_client_reset() - RST to the client, GONE to the core if it has a flow. */
void sm_proxy_client_reset(struct sm_proxy_client *c, enum sm_flow_why why);
/** sm_proxy_client_resume() - the channel has room again. */
void sm_proxy_client_resume(struct sm_proxy_client *c);
/** sm_proxy_client_undelivered() - has it sent what is not upstream yet? */
bool sm_proxy_client_undelivered(const struct sm_proxy_client *c);

#endif
