/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The proxy front: clients of an explicit HTTP proxy on one side, the handoff channel to the core on the other (spec
 * section 11).
 *
 *   client ── CONNECT, absolute form ──► head (http/proxy.h) ──► nat/sock.h: OPEN by name, and all that follows
 *
 * It decides nothing: whom a client may reach is the core's to say. It knows who may come at all (client networks,
 * credentials), reads the head of a request, and turns the core's refusals into answers that say why. From OPEN on a
 * connection is a flow of an accepted socket like those of the kernel path.
 *
 * CONNECT is answered by 200 when the core accepts. The other requests go on as http/proxy.h rewrites them, as the
 * first bytes of the flow; what comes back is the origin's own answer, or a page of the core's.
 *
 *   what is wrong                                              answer   reported as
 *   a client of another network                                RST      OTHER proxy_client
 *   credentials wrong or missing                               407      OTHER proxy_auth
 *   a head that is refused, over-long or too slow              400 431 408  OTHER proxy_request
 *   too many connections, or flows unanswered, of one client   503      -
 *   the core refuses (reason)                                  403; 400 no name; 503 a bound; 502 unresolved
 *   the dial fails (how)                                       502; 504 unreachable, or no answer in time
 *
 * The process is a front like any other (sandbox.h), which may also accept: the listening socket was opened by the
 * launcher. One thread, one loop, nothing blocks. Memory is bounded by the maxima below and those of nat/front.h.
 */
#ifndef SM_PATHS_PROXY_FRONT_H
#define SM_PATHS_PROXY_FRONT_H

#include "base/loop.h"
#include "paths/proxy_config.h"

/** Connections of one client address: one container must not take all of them from the others (half of the flows that
 * there are descriptors for, where that is less). */
#define SM_PROXY_PEER_MAX 4096
/** ... of which the core has not answered so many: what one container asks of servers that are silent must not keep the
 * others waiting (SM_FRONT_ASKED_MAX is for all). */
#define SM_PROXY_PEER_ASKED_MAX 256
/**
 * Connections whose head is not complete (a quarter of RLIMIT_NOFILE, where that is less); beyond it the oldest of them
 * makes room: slow clients cost each other time, and nobody else.
 */
#define SM_PROXY_HEADS_MAX 1024
/** ... and what is held of their heads. */
#define SM_PROXY_HEADS_BYTES (16u << 20)
/**
 * From accept to the end of the head: browsers open connections ahead of their use, and lose nothing when these end.
 */
#define SM_PROXY_HEAD_US INT64_C(15000000)

struct sm_proxy_stats {
    uint64_t accepted, strangers, unauthorised, bad_requests, refused;
    size_t clients_now, heads_now;
};

struct sm_front;
struct sm_proxy_front;

/**
 * sm_proxy_front_new() - @config is borrowed; @listener and @channel_fd (non-blocking) are taken. @nofile: descriptors
 * that the process may have.
 * @failed: called once when the channel is dead; text is static. NULL with error set.
 */
struct sm_proxy_front *sm_proxy_front_new(struct sm_loop *loop, const struct sm_proxy_config *config, int listener,
                                          int channel_fd, unsigned nofile, void (*failed)(const char *text, void *data),
                                          void *data, GError **error);
void sm_proxy_front_free(struct sm_proxy_front *proxy);
void sm_proxy_front_stats(const struct sm_proxy_front *proxy, struct sm_proxy_stats *ret);
/** sm_proxy_front_hub() - what its flows are of. */
struct sm_front *sm_proxy_front_hub(const struct sm_proxy_front *proxy);
/**
 * sm_proxy_front_finish() - nobody is let in any more; what clients have sent is delivered, and then our side of the
 * channel is shut.
 */
void sm_proxy_front_finish(struct sm_proxy_front *proxy);

/**
 * sm_proxy_front_main() - the subcommand `proxy-front`: descriptors as in base/link.h, then the sandbox, then the
 * loop.
 */
int sm_proxy_front_main(int argc, char **argv);

#endif
