/* SPDX-License-Identifier: BSD-3-Clause */
/* The arithmetic of the caps; see caps.h. */
#include "core/caps.h"

#define SECOND_US INT64_C(1000000)

static const char *const cap_names[] = {
    [SM_CAP_MAX_BPS] = "max_bps",
    [SM_CAP_MAX_TOTAL_BYTES] = "max_total_bytes",
    [SM_CAP_MAX_CONNS] = "max_conns",
};
SM_NAME_TABLE_COVERS(cap_names, SM_CAP_COUNT);

static const char *const dir_names[] = {[SM_CAPS_UP] = "up", [SM_CAPS_DOWN] = "down"};
SM_NAME_TABLE_COVERS(dir_names, SM_CAPS_DIRS);

struct bucket {
    int64_t tokens;    /* below 0: overdrawn */
    int64_t remainder; /* microseconds times bytes that made no whole token yet */
    int64_t at_us;     /* up to when it was filled */
    int64_t budget;    /* of streams, in the tick that began at tick_us */
    int64_t tick_us;
    int64_t slack_us; /* since when it has been three quarters full; INT64_MAX: it is not */
    GQueue line;      /* of struct sm_caps_flow */
    struct sm_caps_hits hits;
};

struct sm_caps {
    struct sm_caps_limits limits;
    sm_caps_wake_fn wake;
    int64_t depth, quantum, burst;
    struct bucket bucket[SM_CAPS_DIRS];
    uint64_t counted[SM_CAPS_DIRS];
    uint64_t conns;
    bool spent;
    struct sm_caps_flow *awake; /* inside wake(); NULL once it has left */
};

const char *sm_cap_name(enum sm_cap cap)
{
    return cap_names[cap];
}

const char *sm_caps_dir_name(enum sm_caps_dir dir)
{
    return dir_names[dir];
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a > INT64_MAX - SM_MIN(b, (uint64_t)INT64_MAX) ? INT64_MAX : a + b;
}

struct sm_caps *sm_caps_new(const struct sm_caps_limits *limits, const uint64_t counted[SM_CAPS_DIRS],
                            sm_caps_wake_fn wake, int64_t now_us)
{
    struct sm_caps *c = g_new0(struct sm_caps, 1);

    c->limits = (struct sm_caps_limits){.bps = SM_MIN(limits->bps, SM_CAPS_BPS_MAX),
                                        .total = SM_MIN(limits->total, SM_CAPS_TOTAL_MAX),
                                        .conns = limits->conns};
    c->wake = wake;
    c->quantum = (int64_t)(c->limits.bps / SM_CAPS_QUANTUM_SHARE);
    c->quantum = CLAMP(c->quantum, SM_CAPS_QUANTUM_MIN, SM_CAPS_QUANTUM_MAX);
    c->depth = SM_MAX((int64_t)(c->limits.bps / SM_CAPS_DEPTH_SHARE), 4 * SM_CAPS_QUANTUM_MIN);
    c->burst = SM_MAX((int64_t)(c->limits.bps / SM_CAPS_BURST_SHARE), 4 * c->quantum);
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++) {
        c->bucket[dir] = (struct bucket){.tokens = c->depth,
                                         .budget = c->burst,
                                         .at_us = now_us,
                                         .tick_us = now_us,
                                         .slack_us = INT64_MAX,
                                         .line = G_QUEUE_INIT};
        c->counted[dir] = SM_MIN(counted[dir], (uint64_t)INT64_MAX);
    }
    return c;
}

void sm_caps_free(struct sm_caps *c)
{
    g_free(c);
}

const struct sm_caps_limits *sm_caps_limits(const struct sm_caps *c)
{
    return &c->limits;
}

/* The total. */

uint64_t sm_caps_counted(const struct sm_caps *c, enum sm_caps_dir dir)
{
    return c->counted[dir];
}

uint64_t sm_caps_total(const struct sm_caps *c)
{
    return sum(c->counted[SM_CAPS_UP], c->counted[SM_CAPS_DOWN]);
}

uint64_t sm_caps_left(const struct sm_caps *c)
{
    uint64_t total = sm_caps_total(c);

    if (c->limits.total == 0)
        return UINT64_MAX;
    return total < c->limits.total && !c->spent ? c->limits.total - total : 0;
}

bool sm_caps_is_full(const struct sm_caps *c)
{
    return sm_caps_left(c) == 0;
}

bool sm_caps_is_spent(const struct sm_caps *c)
{
    return c->spent;
}

/* Connections. */

bool sm_caps_enter(struct sm_caps *c, struct sm_caps_flow *flow)
{
    if (c->limits.conns && c->conns >= c->limits.conns)
        return false;
    c->conns++;
    flow->entered = true;
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++)
        flow->lane[dir].link.data = flow;
    return true;
}

static void add_tokens(struct sm_caps *c, enum sm_caps_dir dir, int64_t n)
{
    struct bucket *b = &c->bucket[dir];

    b->tokens = SM_MIN(b->tokens + n, c->depth);
}

void sm_caps_step_out(struct sm_caps *c, struct sm_caps_flow *flow)
{
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++) {
        struct sm_caps_lane *lane = &flow->lane[dir];
        if (lane->waiting)
            g_queue_unlink(&c->bucket[dir].line, &lane->link);
        add_tokens(c, dir, lane->credit);
        lane->waiting = false;
        lane->credit = 0;
    }
}

void sm_caps_leave(struct sm_caps *c, struct sm_caps_flow *flow)
{
    if (!flow->entered)
        return;
    flow->entered = false;
    c->conns--;
    if (c->awake == flow)
        c->awake = NULL;
    sm_caps_step_out(c, flow);
}

uint64_t sm_caps_conns(const struct sm_caps *c)
{
    return c->conns;
}

/* The rate. */

static void refill(struct sm_caps *c, enum sm_caps_dir dir, int64_t now_us)
{
    struct bucket *b = &c->bucket[dir];
    int64_t rate = (int64_t)c->limits.bps;
    int64_t passed = now_us - b->at_us;

    if (now_us - b->tick_us >= SM_CAPS_TICK_US || now_us < b->tick_us) {
        b->tick_us = now_us;
        b->budget = c->burst;
    }
    b->at_us = now_us; /* also when the clock went back: from there on it goes forward again */
    if (passed <= 0 || b->tokens >= c->depth)
        return;
    /* Past this the bucket is full: the product below is at most the missing bytes times a million. */
    int64_t missing = c->depth - b->tokens;
    if (passed > missing * SECOND_US / rate) {
        b->tokens = c->depth;
        b->remainder = 0;
        return;
    }
    int64_t gained = rate * passed + b->remainder;
    b->tokens += gained / SECOND_US;
    b->remainder = gained % SECOND_US;
}

static void stand_in_line(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir)
{
    struct sm_caps_lane *lane = &flow->lane[dir];

    if (lane->waiting)
        return;
    lane->waiting = true;
    g_queue_push_tail_link(&c->bucket[dir].line, &lane->link);
}

size_t sm_caps_may(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t want, int64_t now_us)
{
    struct sm_caps_lane *lane = &flow->lane[dir];
    struct bucket *b = &c->bucket[dir];
    uint64_t rest = sm_caps_left(c);

    if (rest == 0) {
        c->spent = true;
        return 0;
    }
    want = (size_t)SM_MIN((uint64_t)want, rest);
    if (c->limits.bps == 0)
        return want;
    if (lane->credit > 0)
        return SM_MIN(want, (size_t)lane->credit);
    if (lane->waiting)
        return 0;
    refill(c, dir, now_us);
    /* Not the last few: a read of three bytes costs as much as one of a quantum. */
    int64_t least = (int64_t)SM_MIN(want, (size_t)c->quantum);
    if (b->line.length == 0 && b->tokens >= least && b->budget >= least)
        return SM_MIN(want, (size_t)SM_MIN(b->tokens, b->budget));
    if (b->line.length > 0 || b->tokens < least)
        b->hits.held++; /* the rest of a tick is no matter of the rate */
    stand_in_line(c, flow, dir);
    return 0;
}

bool sm_caps_may_datagram(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t len,
                          int64_t now_us)
{
    struct sm_caps_lane *lane = &flow->lane[dir];
    struct bucket *b = &c->bucket[dir];

    if (sm_caps_left(c) < SM_MAX(len, (size_t)1)) {
        c->spent = true;
        return false;
    }
    if (c->limits.bps == 0)
        return true;
    if (lane->credit > 0 && now_us - lane->credit_us > SM_CAPS_CREDIT_US) {
        add_tokens(c, dir, lane->credit);
        lane->credit = 0;
    }
    if (lane->credit > 0)
        return true;
    refill(c, dir, now_us);
    if (!lane->waiting && b->line.length == 0) {
        b->tokens += lane->credit; /* what it owes */
        lane->credit = 0;
        if (b->tokens > 0)
            return true;
    }
    b->hits.dropped++;
    stand_in_line(c, flow, dir);
    return false;
}

void sm_caps_moved(struct sm_caps *c, struct sm_caps_flow *flow, enum sm_caps_dir dir, size_t n)
{
    struct sm_caps_lane *lane = &flow->lane[dir];
    int64_t cost = (int64_t)n;

    c->counted[dir] = sum(c->counted[dir], n);
    if (c->limits.bps == 0)
        return;
    if (lane->credit > 0) {
        int64_t own = flow->datagrams ? cost : SM_MIN(cost, lane->credit);
        lane->credit -= own;
        cost -= own;
    }
    c->bucket[dir].tokens -= cost;
    if (c->bucket[dir].tokens < c->depth / 4 * 3)
        c->bucket[dir].slack_us = INT64_MAX;
    if (!flow->datagrams)
        c->bucket[dir].budget -= cost;
}

int64_t sm_caps_due(struct sm_caps *c, int64_t now_us)
{
    int64_t due = INT64_MAX;

    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++) {
        const struct bucket *b = &c->bucket[dir];
        if (b->line.length == 0)
            continue;
        refill(c, dir, now_us);
        int64_t missing = SM_MAX(c->quantum - b->tokens, (int64_t)0);
        int64_t then = now_us + (missing * SECOND_US + (int64_t)c->limits.bps - 1) / (int64_t)c->limits.bps;
        if (b->budget < c->quantum)
            then = SM_MAX(then, b->tick_us + SM_CAPS_TICK_US);
        due = SM_MIN(due, then);
    }
    return due;
}

static void serve(struct sm_caps *c, enum sm_caps_dir dir, int64_t now_us)
{
    struct bucket *b = &c->bucket[dir];
    GList *link = g_queue_pop_head_link(&b->line);
    struct sm_caps_flow *flow = link->data;
    struct sm_caps_lane *lane = &flow->lane[dir];

    lane->waiting = false;
    lane->credit += c->quantum;
    lane->credit_us = now_us;
    b->tokens -= c->quantum;
    b->budget -= c->quantum;
    if (flow->datagrams) {
        if (lane->credit <= 0)
            stand_in_line(c, flow, dir);
        return;
    }
    c->awake = flow;
    c->wake(flow, dir);
    if (c->awake == flow) { /* it has not left, so it is still there */
        add_tokens(c, dir, lane->credit);
        lane->credit = 0;
    }
    c->awake = NULL;
}

void sm_caps_run(struct sm_caps *c, int64_t now_us)
{
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++) {
        struct bucket *b = &c->bucket[dir];
        /* Streams that use nothing do not stand in line again, others cost tokens: it comes to an end. The bound is for
         * those that stand in line again although they used nothing. */
        unsigned rounds = b->line.length + (unsigned)(c->depth / c->quantum) + 1;
        if (b->line.length == 0)
            continue;
        refill(c, dir, now_us);
        while (rounds-- > 0 && b->line.length > 0 && b->tokens >= c->quantum && b->budget >= c->quantum)
            serve(c, dir, now_us);
    }
}

size_t sm_caps_quantum(const struct sm_caps *c)
{
    return (size_t)c->quantum;
}

bool sm_caps_has_slack(struct sm_caps *c, enum sm_caps_dir dir, int64_t now_us)
{
    struct bucket *b = &c->bucket[dir];

    refill(c, dir, now_us);
    if (b->tokens < c->depth / 4 * 3 || b->line.length > 0)
        b->slack_us = INT64_MAX;
    else if (b->slack_us > now_us)
        b->slack_us = now_us; /* as far as we know */
    return now_us - b->slack_us >= SM_CAPS_SLACK_US;
}

bool sm_caps_has_hits(const struct sm_caps *c)
{
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++)
        if (c->bucket[dir].hits.held + c->bucket[dir].hits.dropped > 0)
            return true;
    return false;
}

struct sm_caps_hits sm_caps_take_hits(struct sm_caps *c, enum sm_caps_dir dir)
{
    struct sm_caps_hits hits = c->bucket[dir].hits;

    c->bucket[dir].hits = (struct sm_caps_hits){0};
    return hits;
}
