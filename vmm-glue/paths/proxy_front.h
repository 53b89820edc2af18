/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The proxy front: clients of an explicit HTTP proxy on one side, the handoff channel to the core on the other (spec section 11).
 *
 *   client ──CONNECT, absolute form──► head (http/proxy.h) ──OPEN by name──► core ──REFUSE, ACCEPT, ATTACH──► answer, or the bytes
 *
 * It decides nothing: whom a client may reach is the core's to say. It knows who may come at all (client networks, credentials), turns the
 * core's refusals into answers that say why, and moves bytes between a client's connection and the descriptor that it was given.
 *
 *   state     entered by               the client                                             leaves by
 *   HEAD      accept                   its head is read, for SM_PROXY_HEAD_US at most         OPEN; an answer; its end
 *   ASKED     OPEN sent                not read                                               REFUSE: an answer; ACCEPT; its end: GONE
 *   HELD      ACCEPT                   kept, bounded; copied to the core (BYTES, EOF)         ATTACH; ABORT; GONE
 *   ATTACHED  ATTACH                   written to the descriptor, and the other way round     both ends; ABORT; GONE
 *   ANSWERED  an answer of ours        what it still says is dropped, for a moment            its end
 *
 * CONNECT is answered by 200 on ACCEPT. The other requests go on as http/proxy.h rewrites them, as the first bytes of the flow; what comes back
 * is the origin's own answer, or a page of the core's.
 *
 *   what is wrong                                              answer   reported as
 *   a client of another network                                none     OTHER proxy_client
 *   credentials wrong or missing                               407      OTHER proxy_auth
 *   a head that is refused, over-long or too slow              400 408  OTHER proxy_request
 *   too many connections of one client, or flows unanswered    503      -
 *   the core refuses (reason)                                  403; 400 a name that is none; 503 a bound; 502 unresolved
 *   the dial fails (how)                                       502; 504 no answer in time, or unreachable
 *
 * The process is a front like any other (sandbox.h), which may also accept: the listening socket was opened by the launcher. One thread, one
 * loop, nothing blocks. Memory is bounded by the maxima below.
 */
#ifndef SM_PATHS_PROXY_FRONT_H
#define SM_PATHS_PROXY_FRONT_H

#include "base/loop.h"
#include "paths/proxy_config.h"

/** Connections at once; fewer where RLIMIT_NOFILE is low (two descriptors each). Beyond it nobody is accepted until one ends. */
#define SM_PROXY_CONNS_MAX 16384
/** ... of one client address: one container must not take all of them from the others. */
#define SM_PROXY_PEER_MAX 4096
/** Connections whose head is not complete; beyond it the oldest of them makes room: slow clients cost each other time, and nobody else. */
#define SM_PROXY_HEADS_MAX 1024
/** ... and what is held of their heads. */
#define SM_PROXY_HEADS_BYTES (16u << 20)
/** From accept to the end of the head: browsers open connections ahead of their use, and lose nothing when these end. */
#define SM_PROXY_HEAD_US INT64_C(15000000)
/** OPENs without an answer. */
#define SM_PROXY_ASKED_MAX 1024
/** The core answers sooner: its dials give up after 63 s. */
#define SM_PROXY_ASKED_US INT64_C(90000000)
/** A client's bytes that wait for the core or for upstream, all flows together: past it the flow that grew is ended. */
#define SM_PROXY_HELD_TOTAL (256u << 20)
/** After an answer of ours the client has this long to take it: closed with unread bytes, TCP would take it away again. */
#define SM_PROXY_ANSWERED_US INT64_C(2000000)
/** The end of the workspace waits this long until what clients have sent is upstream. */
#define SM_PROXY_FINISH_US INT64_C(2000000)
/** Accepted in one turn, so that others have theirs. */
#define SM_PROXY_ACCEPT_BATCH 64
/** After accept(2) failed for want of descriptors or memory. */
#define SM_PROXY_ACCEPT_PAUSE_US INT64_C(200000)

struct sm_proxy_stats {
    uint64_t accepted, strangers, unauthorised, bad_requests, opens, refused, attached;
    size_t now, heads_now, asked_now, held_now;
};

struct sm_proxy_front;

/**
 * sm_proxy_front_new() - @config is borrowed; @listener and @channel_fd (non-blocking) are taken. @max_conns: of SM_PROXY_CONNS_MAX as many as
 * there are descriptors for. @failed: called once when the channel is dead; text is static. NULL with error set.
 */
struct sm_proxy_front *sm_proxy_front_new(struct sm_loop *loop, const struct sm_proxy_config *config, int listener,
                                          int channel_fd, unsigned max_conns,
                                          void (*failed)(const char *text, void *data), void *data, GError **error);
void sm_proxy_front_free(struct sm_proxy_front *front);
void sm_proxy_front_stats(const struct sm_proxy_front *front, struct sm_proxy_stats *ret);
/** sm_proxy_front_finish() - nobody is let in any more; what clients have sent is delivered, and then our side of the channel is shut. */
void sm_proxy_front_finish(struct sm_proxy_front *front);

/** sm_proxy_front_main() - the subcommand `slirp-med proxy-front`: descriptors as in base/link.h, then the sandbox, then the loop. */
int sm_proxy_front_main(int argc, char **argv);

#endif
