/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of the core's own, to token endpoints and to Vault: the core resolves the host, judges the address, writes egress_swap_fetch and
 * connects; a fetch helper (fetcher.h), started by the supervisor for this one request, speaks TLS and HTTP over that socket.
 *
 * The URL is the operator's, so its host counts as an exactly listed name: private addresses (RFC 1918, 100.64/10, fc00::/7) are reached;
 * loopback, link-local, metadata, multicast and the host's own addresses are not, whatever DNS says. An address that the operator wrote
 * himself (and "localhost") is reached unless it is link-local, metadata, multicast or one of our own.
 *
 * At most SM_FETCH_MAX run at once, later ones wait in order; each has SM_FETCH_TOTAL_US from its start. Single-threaded; the callback comes
 * once, from the loop and never from inside sm_fetch_start(), and not after a cancel.
 */
#ifndef SM_CORE_FETCH_H
#define SM_CORE_FETCH_H

#include "base/secret.h"
#include "core/core.h"

/** Helpers at once: each costs a process. The supervisor has the same bound. */
#define SM_FETCH_MAX 4
/** Requests that wait for a helper. Each entry has one in flight, so this is far more than there are entries with tokens. */
#define SM_FETCH_QUEUE_MAX 256
/** From the start (not the waiting) to the last byte: the 10 s. */
#define SM_FETCH_TOTAL_US INT64_C(10000000)

struct sm_fetch;

struct sm_fetch_request {
    const char *name; /* for the line: whose credential it is */
    const char *url;  /* https, or http to loopback; validated */
    bool post;
    struct sm_secret *headers; /* lines, each ended by LF; NULL: none. Taken */
    struct sm_secret *body;    /* NULL: none. Taken */
};

struct sm_fetch_result {
    const char *reason; /* a word: no response; NULL: there is one */
    int status;
    const char *content_type; /* "" when there was none */
    const uint8_t *body;      /* borrowed for the call, wiped afterwards */
    size_t body_len;
};

typedef void (*sm_fetch_done)(void *data, const struct sm_fetch_result *result);

/** sm_fetch_start() - NULL when too many wait, or the URL cannot be read. What is taken is taken in any case. */
struct sm_fetch *sm_fetch_start(struct sm_core *core, const struct sm_fetch_request *request, sm_fetch_done done,
                                void *data);
void sm_fetch_cancel(struct sm_fetch *f);

/** sm_fetch_news() - the answer to WANT fetchroots; fd may be -1; taken. */
void sm_fetch_news(struct sm_core *core, int fd);
/** sm_fetch_free_all() - at the end of the core. */
void sm_fetch_free_all(struct sm_core *core);

#endif
