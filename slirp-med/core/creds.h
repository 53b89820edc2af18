/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Credentials at work (spec section 6): what a reference names, read when it is needed and again when it has changed; tokens, fetched or
 * signed; and the value that goes into a request's header.
 *
 *   request ─► sm_creds_ask() ─┬─ HAVE: a credential, shared, to be put into the request
 *                              ├─ WAIT: the waiter is told when it is worth asking again
 *                              └─ FAIL: 502 with the reason
 *
 *   reference   env: asked of the supervisor once; file: asked again when what is known is SM_CREDS_FILE_US old; vault: fetched, and kept as
 *               its lease says (cred/cache.h)
 *   static      the reference's secret in `format`
 *   oauth2-cc   cred/cache.h says when a token is fetched; its references are asked for then
 *   jwt-bearer  signed here, or signed here and exchanged at token_url
 *
 * A request waits for what it needs and for nothing else; one fetch an entry is in flight. Secrets live in struct sm_secret, are never
 * formatted into text, and are wiped with the last user. Single-threaded, on the core's loop.
 */
#ifndef SM_CORE_CREDS_H
#define SM_CORE_CREDS_H

#include "core/core.h"
#include "cred/reason.h"
#include "cred/swap.h"
#include "http/scrub.h"

/** A file reference is looked at again after this: a rotated key is used within a second, and a busy agent costs one message a second. */
#define SM_CREDS_FILE_US INT64_C(1000000)
/** A reference that could not be read is tried again after this. */
#define SM_CREDS_RETRY_US INT64_C(1000000)
/** The assertion of an RFC 7523 exchange need only outlive the exchange. */
#define SM_CREDS_ASSERTION_TTL_S 300

struct sm_creds;

/** What goes into requests; shared, does not change. */
struct sm_credential {
    unsigned refs;
    struct sm_secret *secret; /* what stands for {key} or {token} */
    struct sm_secret *header; /* `format` with it */
    struct sm_scrub *scrub;   /* NULL: not scrubbed, or too short for it */
    uint64_t generation;      /* of the token; 0: static */
};
struct sm_credential *sm_credential_ref(struct sm_credential *c);
/** sm_credential_unref() - NULL is allowed. */
void sm_credential_unref(struct sm_credential *c);

enum sm_creds_answer { SM_CREDS_FAIL = 0, SM_CREDS_HAVE, SM_CREDS_WAIT };

/** Somebody who waits; embedded in what waits. */
struct sm_creds_waiter {
    void (*again)(struct sm_creds_waiter *w); /* ask again; it waits no more */
    GList link;
    GQueue *in; /* NULL: it does not wait */
};

/** sm_creds_new() - for the swaps of core->config; NULL when there are none. */
struct sm_creds *sm_creds_new(struct sm_core *core);
void sm_creds_free(struct sm_creds *creds);

/** sm_creds_match() - the entry for a verified name; NULL: none. creds may be NULL. */
const struct sm_swap *sm_creds_match(const struct sm_creds *creds, const char *name);
/**
 * sm_creds_ask() - @swap: of sm_creds_match(). HAVE: *ret is a new reference. WAIT: @w->again will be called, from the loop. FAIL: *ret_reason.
 */
enum sm_creds_answer sm_creds_ask(struct sm_creds *creds, const struct sm_swap *swap, struct sm_creds_waiter *w,
                                  struct sm_credential **ret, enum sm_cred_reason *ret_reason);
void sm_creds_wait_cancel(struct sm_creds_waiter *w);
/** sm_creds_rejected() - upstream said 401 to this credential. True: ask again, another one will come. Once a request. */
bool sm_creds_rejected(struct sm_creds *creds, const struct sm_swap *swap, const struct sm_credential *c);

/** sm_creds_has_placeholders() - does any entry have one? Otherwise nothing has to be searched. */
bool sm_creds_has_placeholders(const struct sm_creds *creds);
/** sm_creds_placeholder_of_other() - does the placeholder of an entry other than @swap (NULL: of any) stand in this text? */
bool sm_creds_placeholder_of_other(const struct sm_creds *creds, const struct sm_swap *swap, const char *text,
                                   size_t len);

/** sm_creds_news() - the answer to WANT ref:N (@text is what follows "ref:"); fd may be -1; not taken. */
void sm_creds_news(struct sm_creds *creds, const char *text, int fd);

#endif
