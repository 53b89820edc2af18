/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of the core's own, to token endpoints and to Vault: the core resolves the host, judges the address, writes egress_swap_fetch and
 * connects; a fetch helper (fetcher.h), started by the supervisor for this one request, speaks TLS and HTTP over that socket.
 *
 * The URL is the operator's, so its host counts as an exactly listed name: private addresses (RFC 1918, 100.64/10, fc00::/7) are reached;
 * loopback, link-local, metadata, multicast and the host's own addresses are not, whatever DNS says. An address that the operator wrote
 * himself (and "localhost") is reached unless it is link-local, metadata, multicast or one of our own.
 *
 * At most SM_FETCH_MAX run at once, later ones wait in order; each has SM_CRED_TRANSFER_US from its start. Single-threaded; the callback comes
 * once, from the loop and never from inside sm_fetch_start(), and not after a cancel.
 */
#ifndef SM_CORE_FETCH_H
#define SM_CORE_FETCH_H

#include "core/core.h"
#include "cred/request.h"

/** Helpers at once: each costs a process. The supervisor has the same bound. */
#define SM_FETCH_MAX 4
/** Requests that wait for a helper. Each entry has one in flight, so this is far more than there are entries with tokens. */
#define SM_FETCH_QUEUE_MAX 256

struct sm_fetch;

/** @reason: OK, and there is a response (its body is wiped after the call); otherwise there is none. */
typedef void (*sm_fetch_done)(void *data, enum sm_cred_reason reason, const struct sm_cred_response *response);

/**
 * sm_fetch_start() - @name: whose credential it is, for the line. @request: taken, also on failure, and empty afterwards.
 * NULL when too many wait, or the request cannot be carried out.
 */
struct sm_fetch *sm_fetch_start(struct sm_core *core, const char *name, struct sm_cred_request *request,
                                sm_fetch_done done, void *data);
void sm_fetch_cancel(struct sm_fetch *f);

/** sm_fetch_news() - the answer to WANT fetchroots; fd may be -1; taken. */
void sm_fetch_news(struct sm_core *core, int fd);
/** sm_fetch_free_all() - at the end of the core. */
void sm_fetch_free_all(struct sm_core *core);

#endif
