/* SPDX-License-Identifier: BSD-3-Clause */
/* The state machine of a fetched credential; see cache.h. */
#include "cred/cache.h"

#include <glib.h>

#define SECOND_US INT64_C(1000000)

static const char *const state_names[] = {
    [SM_CRED_EMPTY] = "empty", [SM_CRED_FETCHING] = "fetching", [SM_CRED_FRESH] = "fresh",
    [SM_CRED_STALE] = "stale", [SM_CRED_HELD_OFF] = "held_off",
};
SM_NAME_TABLE_COVERS(state_names, SM_CRED_STATES);

static const char *const verdict_names[] = {
    [SM_CRED_FAIL] = "fail",   [SM_CRED_USE] = "use",   [SM_CRED_REFRESH] = "refresh",
    [SM_CRED_FETCH] = "fetch", [SM_CRED_WAIT] = "wait",
};
SM_NAME_TABLE_COVERS(verdict_names, SM_CRED_VERDICTS);

const char *sm_cred_state_name(enum sm_cred_state state)
{
    return (unsigned)state < SM_CRED_STATES ? state_names[state] : "?";
}

const char *sm_cred_verdict_name(enum sm_cred_verdict verdict)
{
    return (unsigned)verdict < SM_CRED_VERDICTS ? verdict_names[verdict] : "?";
}

static void drop(struct sm_cred_cache *c)
{
    sm_secret_free(c->value);
    c->value = NULL;
}

void sm_cred_cache_clear(struct sm_cred_cache *c)
{
    drop(c);
    *c = (struct sm_cred_cache){.generation = c->generation, .last_us = c->last_us};
}

/* Time never goes back, and what is over is not kept in memory. */
static int64_t advance(struct sm_cred_cache *c, int64_t now_us)
{
    c->last_us = SM_MAX(c->last_us, now_us);
    if (c->value && c->last_us >= c->until_us)
        drop(c);
    return c->last_us;
}

enum sm_cred_state sm_cred_cache_state(struct sm_cred_cache *c, int64_t now_us)
{
    int64_t now = advance(c, now_us);

    if (c->value)
        return now >= c->refresh_us ? SM_CRED_STALE : SM_CRED_FRESH;
    if (c->fetching)
        return SM_CRED_FETCHING;
    return c->failures > 0 && now < c->retry_us ? SM_CRED_HELD_OFF : SM_CRED_EMPTY;
}

static void begin(struct sm_cred_cache *c, int64_t now)
{
    c->fetching = true;
    c->asked_us = now;
}

struct sm_cred_answer sm_cred_cache_ask(struct sm_cred_cache *c, int64_t now_us)
{
    enum sm_cred_state state = sm_cred_cache_state(c, now_us);
    int64_t now = c->last_us;
    struct sm_cred_answer a = {.verdict = SM_CRED_FAIL};

    switch (state) {
    case SM_CRED_EMPTY:
        begin(c, now);
        a.verdict = SM_CRED_FETCH;
        return a;
    case SM_CRED_FETCHING:
        a.verdict = SM_CRED_WAIT;
        return a;
    case SM_CRED_HELD_OFF:
        a.reason = c->reason;
        a.retry_us = c->retry_us;
        return a;
    case SM_CRED_FRESH:
        a.verdict = SM_CRED_USE;
        break;
    case SM_CRED_STALE:
        a.verdict = SM_CRED_USE;
        if (!c->fetching && !(c->failures > 0 && now < c->retry_us)) {
            begin(c, now);
            a.verdict = SM_CRED_REFRESH;
        }
        break;
    case SM_CRED_STATES:
        g_assert_not_reached();
    }
    a.value = c->value;
    a.generation = c->generation;
    return a;
}

static void note_failure(struct sm_cred_cache *c, int64_t now, enum sm_cred_reason reason)
{
    int64_t delay = SM_CRED_RETRY_FIRST_US;

    for (unsigned i = 0; i < c->failures && delay < SM_CRED_RETRY_MAX_US; i++)
        delay *= 2;
    delay = SM_MIN(delay, SM_CRED_RETRY_MAX_US);
    if (c->failures < UINT16_MAX)
        c->failures++;
    c->reason = reason;
    c->retry_us = now + delay;
}

void sm_cred_cache_failed(struct sm_cred_cache *c, int64_t now_us, enum sm_cred_reason reason)
{
    g_assert(c->fetching && reason != SM_CRED_OK);
    c->fetching = false;
    note_failure(c, advance(c, now_us), reason);
}

void sm_cred_cache_fetched(struct sm_cred_cache *c, int64_t now_us, struct sm_secret *value, uint32_t ttl_s)
{
    g_assert(c->fetching && value && ttl_s > 0);
    int64_t now = advance(c, now_us);
    int64_t life = ttl_s * SECOND_US;
    int64_t usable = life - SM_MIN(SM_CRED_MARGIN_US, life / 2);
    int64_t until = c->asked_us + usable;

    c->fetching = false;
    if (until <= now) {
        /* Believing it would make every request a token request. */
        sm_secret_free(value);
        note_failure(c, now, SM_CRED_TOKEN_TOO_SHORT);
        return;
    }
    drop(c);
    c->value = value;
    c->generation++;
    c->until_us = until;
    c->refresh_us = until - SM_MIN(SM_CRED_REFRESH_US, usable / 4);
    c->failures = 0;
    c->reason = SM_CRED_OK;
}

bool sm_cred_cache_rejected(struct sm_cred_cache *c, int64_t now_us, uint64_t generation)
{
    int64_t now = advance(c, now_us);

    if (generation != c->generation || !c->value)
        return true; /* gone already: what comes is another one */
    if (c->dropped && now < c->dropped_us + SM_CRED_REJECT_HOLD_US)
        return false;
    drop(c);
    c->dropped = true;
    c->dropped_us = now;
    return true;
}
