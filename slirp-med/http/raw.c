/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bridge for what is not HTTP: bytes from one side are bytes for the other, half-closes kept, nobody is asked. Whether a connection may
 * use it is the core's to decide and to record.
 */
#include <glib.h>

#include "http/bridge.h"
#include "http/outq.h"

struct raw {
    struct sm_bridge base;
    struct sm_outq out[SM_BRIDGE_SIDES];
    bool eof[SM_BRIDGE_SIDES]; /* of what comes from that side */
    bool cut;
};

static struct raw *raw_of(struct sm_bridge *b)
{
    return (struct raw *)b;
}

static enum sm_bridge_side other(enum sm_bridge_side side)
{
    return side == SM_BRIDGE_GUEST ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST;
}

static void raw_free(struct sm_bridge *b)
{
    struct raw *r = raw_of(b);

    sm_outq_clear(&r->out[SM_BRIDGE_GUEST]);
    sm_outq_clear(&r->out[SM_BRIDGE_ORIGIN]);
    g_free(r);
}

static size_t raw_room(const struct sm_bridge *b, enum sm_bridge_side from)
{
    const struct raw *r = (const struct raw *)b;

    size_t held = r->out[other(from)].len;

    return r->cut || r->eof[from] || held >= SM_BRIDGE_OUT_MAX ? 0 : SM_BRIDGE_OUT_MAX - held;
}

static void raw_feed(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len, bool lent)
{
    struct raw *r = raw_of(b);

    if (!r->cut && !r->eof[from])
        (lent ? sm_outq_lend : sm_outq_put)(&r->out[other(from)], data, len);
}

static void raw_keep(struct sm_bridge *b)
{
    sm_outq_keep(&raw_of(b)->out[SM_BRIDGE_GUEST]);
    sm_outq_keep(&raw_of(b)->out[SM_BRIDGE_ORIGIN]);
}

static void raw_eof(struct sm_bridge *b, enum sm_bridge_side from, bool cut)
{
    struct raw *r = raw_of(b);

    r->eof[from] = true;
    r->cut |= cut;
}

static size_t raw_out(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret)
{
    struct raw *r = raw_of(b);

    return sm_outq_peek(&r->out[to], ret);
}

static void raw_took(struct sm_bridge *b, enum sm_bridge_side to, size_t n)
{
    sm_outq_took(&raw_of(b)->out[to], n);
}

static bool raw_out_closed(const struct sm_bridge *b, enum sm_bridge_side to)
{
    const struct raw *r = (const struct raw *)b;

    return r->eof[other(to)] && !r->cut;
}

static void raw_answer(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer)
{
    (void)b;
    (void)req;
    (void)answer;
}

static enum sm_bridge_end raw_ended(const struct sm_bridge *b)
{
    const struct raw *r = (const struct raw *)b;

    if (r->cut)
        return SM_BRIDGE_CUT;
    return r->eof[SM_BRIDGE_GUEST] && r->eof[SM_BRIDGE_ORIGIN] ? SM_BRIDGE_FINISHED : SM_BRIDGE_LIVE;
}

static bool raw_idle(const struct sm_bridge *b)
{
    (void)b;
    return true;
}

struct sm_bridge *sm_bridge_new_raw(const struct sm_bridge_config *config)
{
    static const struct sm_bridge_vtable vtable = {
        .free = raw_free,
        .room = raw_room,
        .feed = raw_feed,
        .keep = raw_keep,
        .eof = raw_eof,
        .out = raw_out,
        .took = raw_took,
        .out_closed = raw_out_closed,
        .answer = raw_answer,
        .ended = raw_ended,
        .idle = raw_idle,
    };
    struct raw *r = g_new0(struct raw, 1);

    r->base = (struct sm_bridge){.vtable = &vtable, .config = *config};
    r->out[SM_BRIDGE_GUEST].account = r->out[SM_BRIDGE_ORIGIN].account = config->account;
    return &r->base;
}
