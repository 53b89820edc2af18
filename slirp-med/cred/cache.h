/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * When a fetched credential may be used, when it is fetched anew, and when an endpoint is left alone: the state machine
 * of one entry. Events come in with the time, answers go out; nothing is fetched, timed or woken here.
 *
 *   ask()       a request needs the credential now       -> USE, REFRESH, FETCH, WAIT or FAIL
 *   fetched()   the fetch that FETCH or REFRESH began has a credential
 *   failed()    ... has none
 *   rejected()  upstream said 401 to the credential of this generation
 *
 * REFRESH and FETCH tell the caller to begin a fetch; each is followed by exactly one fetched() or failed(), and until
 * then no other fetch is asked for: one in flight an entry. After fetched() or failed() the caller asks again for each
 * request that was told to WAIT (or to FETCH); they then get USE or FAIL, never WAIT for the same fetch again.
 *
 *      asked                              refresh       until     the server's expiry
 *        |------------- fresh --------------|--- stale ---|---- margin ----|
 *              USE                             REFRESH once, then USE       (no longer used: FETCH)
 *
 * until: SM_CRED_MARGIN_US before expiry, or at half of a life shorter than twice that, counted from when the fetch
 * began (the server counted from some moment after it). refresh: SM_CRED_REFRESH_US before until, or at three quarters
 * of a short life: a refresh takes no request's time, and there is room for several tries. Only requests bring it
 * about: an entry that nobody uses is not fetched.
 *
 * Failures: the first keeps the endpoint alone for SM_CRED_RETRY_FIRST_US, each further one for twice as long, up to
 * SM_CRED_RETRY_MAX_US; a success forgets them. Meanwhile a credential that is still good is used, and without one
 * requests fail at once with the reason of the last failure.
 *
 * Rejections: only the very credential that was rejected is dropped, so that fifty requests that come back with 401
 * cause one fetch. A credential that is rejected within SM_CRED_REJECT_HOLD_US of the last drop is kept: the upstream
 * refuses the client, not the token, and would otherwise make a token request out of every request. Its 401 goes to the
 * guest.
 *
 * Time is monotonic microseconds. One that goes backwards is taken as standing still, so that no credential lives
 * longer for it. A machine that sleeps should be told of it by the clock (CLOCK_BOOTTIME); otherwise the first 401
 * brings the new token.
 *
 * Owns the credential. Single-threaded.
 */
#ifndef SM_CRED_CACHE_H
#define SM_CRED_CACHE_H

#include "base/defs.h"
#include "base/secret.h"
#include "cred/reason.h"

#define SM_CRED_MARGIN_US INT64_C(60000000)
#define SM_CRED_REFRESH_US INT64_C(60000000)
/** A second is what a restarting endpoint needs at least, a minute what an operator waits who has repaired it. */
#define SM_CRED_RETRY_FIRST_US INT64_C(1000000)
#define SM_CRED_RETRY_MAX_US INT64_C(60000000)
/** At most one token request a minute because of 401. */
#define SM_CRED_REJECT_HOLD_US INT64_C(60000000)

/** Seen at a moment; for status and tests. */
enum sm_cred_state {
    SM_CRED_EMPTY,    /* nothing to use, nothing under way */
    SM_CRED_FETCHING, /* nothing to use, a fetch in flight */
    SM_CRED_FRESH,
    SM_CRED_STALE,    /* good, and a refresh is due or in flight */
    SM_CRED_HELD_OFF, /* nothing to use, and the endpoint is left alone for now */
    SM_CRED_STATES
};
const char *sm_cred_state_name(enum sm_cred_state state);

enum sm_cred_verdict {
    SM_CRED_FAIL = 0, /* 502 with the reason; a new try is made from retry_us on */
    SM_CRED_USE,
    SM_CRED_REFRESH, /* use it, and begin a fetch */
    SM_CRED_FETCH,   /* begin a fetch, and wait for it */
    SM_CRED_WAIT,    /* a fetch is in flight: wait for it */
    SM_CRED_VERDICTS
};
const char *sm_cred_verdict_name(enum sm_cred_verdict verdict);

struct sm_cred_answer {
    enum sm_cred_verdict verdict;
    const struct sm_secret *value; /* USE, REFRESH: borrowed until the next event of this cache; else NULL */
    uint64_t generation;           /* USE, REFRESH: what rejected() wants to know */
    enum sm_cred_reason reason;    /* FAIL */
    int64_t retry_us;              /* FAIL */
};

/** A zeroed one is empty and ready. Fields are the module's own. */
struct sm_cred_cache {
    struct sm_secret *value;
    uint64_t generation; /* of the value, or of the last one there was; the first is 1 */
    int64_t refresh_us;
    int64_t until_us;
    bool fetching;
    int64_t asked_us;  /* when the fetch in flight began */
    unsigned failures; /* in a row */
    enum sm_cred_reason reason;
    int64_t retry_us;
    bool dropped; /* a rejection has ever dropped a value: dropped_us counts */
    int64_t dropped_us;
    int64_t last_us; /* the latest time seen */
};

/**
 * sm_cred_cache_clear() - wipe and forget all but the generation, so that no old one is mistaken for a new one. No
 * fetch may be in flight whose result is still told.
 */
void sm_cred_cache_clear(struct sm_cred_cache *c);

struct sm_cred_answer sm_cred_cache_ask(struct sm_cred_cache *c, int64_t now_us);
/**
 * sm_cred_cache_fetched() - @value is taken. @ttl_s at least 1. If nothing of its life is left to use, it counts as a
 * failure (SM_CRED_TOKEN_TOO_SHORT).
 */
void sm_cred_cache_fetched(struct sm_cred_cache *c, int64_t now_us, struct sm_secret *value, uint32_t ttl_s);
void sm_cred_cache_failed(struct sm_cred_cache *c, int64_t now_us, enum sm_cred_reason reason);
/**
 * sm_cred_cache_rejected() - true: ask again, what comes is another credential; false: the 401 stands. The caller does
 * this once a request.
 */
bool sm_cred_cache_rejected(struct sm_cred_cache *c, int64_t now_us, uint64_t generation);

enum sm_cred_state sm_cred_cache_state(struct sm_cred_cache *c, int64_t now_us);

#endif
