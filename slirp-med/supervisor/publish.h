/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Published ports (spec section 9): listening sockets of the host, whose clients become connections to a port of the guest.
 *
 *   publish ─► bind ─► LISTENERS ─► the core refuses the address to the guest, and says so ─► listen ─► settled()
 *   client ─► accept ─► INGRESS port +fd ─► the core records it and hands it to the front ─► INGRESS: room for one more
 *
 * No guest may reach our own listeners (spec section 3), so a socket that is bound listens only when the core knows its address. The core
 * answers in order: the n-th answer is for the n-th LISTENERS.
 *
 * At most SM_PUBLISH_INFLIGHT_MAX clients are between accept and the core's answer; the rest wait in the kernel's queue, and whoever finds that
 * full is answered by nobody until there is room (TCP tries again). No byte of a client is looked at here, and none of them is held.
 *
 * Where accept(2) fails for want of descriptors or memory, or where the link is full, all listeners rest for a moment: no busy loop.
 */
#ifndef SM_SUPERVISOR_PUBLISH_H
#define SM_SUPERVISOR_PUBLISH_H

#include <jansson.h>

#include "base/addr.h"
#include "base/link.h"
#include "base/loop.h"

/** Publishes of one workspace: their list must fit into one message of the link. */
#define SM_PUBLISH_MAX 256
/** Clients without the core's answer: as many as the core may hand to the front without its answer (SM_FLOW_ATTACH_MAX). */
#define SM_PUBLISH_INFLIGHT_MAX 64
/** Clients that wait in the kernel, for each publish; net.core.somaxconn cuts it (4096 by default). */
#define SM_PUBLISH_BACKLOG 4096
/** Accepted for one listener before the others have their turn. */
#define SM_PUBLISH_BATCH 16
/** After accept(2) or the link failed. */
#define SM_PUBLISH_PAUSE_US (G_USEC_PER_SEC / 5)

struct sm_publish {
    struct sm_endpoint host; /* where the host listens; port 0: any free one */
    uint16_t guest_port;
};

/** sm_publish_parse() - "[HOST:]HOSTPORT:GUESTPORT[/tcp]"; HOST is an address (an IPv6 one in brackets), 127.0.0.1 where it is left out. */
bool sm_publish_parse(const char *text, struct sm_publish *ret, GError **error) SM_WARN_UNUSED;
/** Longest text of sm_publish_format(), with the NUL. */
#define SM_PUBLISH_STRLEN (SM_ENDPOINT_STRLEN + 16)
/** sm_publish_format() - "HOST:HOSTPORT:GUESTPORT/tcp". */
const char *sm_publish_format(const struct sm_publish *p, char out[SM_PUBLISH_STRLEN]);
/** sm_publish_clashes() - can both not be listened on: the same port of the same address, or of one that stands for all. Port 0 clashes with none. */
bool sm_publish_clashes(const struct sm_publish *a, const struct sm_publish *b);
/** sm_publish_json() - {host, hostPort, guestPort, protocol}; a new reference. */
json_t *sm_publish_json(const struct sm_publish *p);

struct sm_publishes;

struct sm_publishes_ops {
    /** tell() - a message to the core; 0, or -1 with errno. The descriptor stays ours. */
    int (*tell)(void *data, enum sm_link_verb verb, const char *text, int fd);
    /** settled() - a publish is served (error NULL), or cannot be and is forgotten. @client: as given to sm_publishes_add(). */
    void (*settled)(void *data, uint64_t client, const struct sm_publish *p, const char *error);
};

struct sm_publishes *sm_publishes_new(struct sm_loop *loop, const struct sm_publishes_ops *ops, void *data);
/** sm_publishes_free() - all listeners are closed. */
void sm_publishes_free(struct sm_publishes *ps);
/** sm_publishes_end() - the same, for good: nothing is told or accepted any more. */
void sm_publishes_end(struct sm_publishes *ps);

/**
 * sm_publishes_add() - bind, and tell the core. settled() follows when the core has answered. False with error (nothing changed) when the
 * address is in use, not this host's, or published already.
 */
bool sm_publishes_add(struct sm_publishes *ps, const struct sm_publish *p, uint64_t client,
                      GError **error) SM_WARN_UNUSED;
/** sm_publishes_begin() - the core has been started: tell it. Until then publishes are only bound. False: it cannot be told. */
bool sm_publishes_begin(struct sm_publishes *ps) SM_WARN_UNUSED;
/** sm_publishes_remove() - stop listening. False when there is none like this. Who waits for its settled() gets an error. */
bool sm_publishes_remove(struct sm_publishes *ps, const struct sm_publish *p) SM_WARN_UNUSED;

/** sm_publishes_listeners_known(), sm_publishes_taken() - the core's LISTENERS and INGRESS. */
void sm_publishes_listeners_known(struct sm_publishes *ps);
void sm_publishes_taken(struct sm_publishes *ps);
/** sm_publishes_owed() - answers that the core owes to LISTENERS or INGRESS. */
unsigned sm_publishes_owed(const struct sm_publishes *ps, enum sm_link_verb verb);
/** sm_publishes_get() - number i, in the order of adding, with its real port. */
const struct sm_publish *sm_publishes_get(const struct sm_publishes *ps, size_t i);
/** sm_publishes_all_listen() - is every one of them served? */
bool sm_publishes_all_listen(const struct sm_publishes *ps);
/** sm_publishes_json() - an array of those that are served; a new reference. */
json_t *sm_publishes_json(const struct sm_publishes *ps);

#endif
