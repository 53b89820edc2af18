/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_timer.c: the clock of half seconds, and whose timers are due.
 *
 * The engine counts in ticks: t_timer[] down, t_idle and t_rtt up. Nobody goes
 * round and does that at each tick. A flow's counters are true for the tick
 * `synced`; whoever is going to look at them brings them up to the present one
 * first (flow_sync: every packet of the flow and every call about it), and what
 * changed is seen when the outermost call returns (flow_settle).
 *
 * A heap has the flows that have a timer running, by the tick at which the
 * first of them may be due. A timer that is set to a later time leaves its flow
 * where it is: the flow comes up once too early, and finds its place then. So
 * a busy flow moves in the heap about once a second, not with each packet, and
 * an idle one (its timer is two hours long) does not at all.
 *
 * Time that nobody saw is not made up for: a process that was stopped for a
 * minute comes back to timers that are due, not to connections of which the
 * guest has been silent for a minute. So the clock goes on to the next due
 * tick at most.
 */
#include "slirp.h"

#define FLOW_TICK_MS 500 /* PR_SLOWHZ */

#define FLOW_TICK_NS (FLOW_TICK_MS * (int64_t)SCALE_MS)

static int64_t flow_now_ns(Slirp *slirp)
{
    return slirp->fl.ops->clock_ns(slirp->opaque);
}

static bool flow_has_fragments(Slirp *slirp)
{
    return slirp->ipq.ip_link.next != &slirp->ipq.ip_link;
}

/* Ticks until something may be due; -1: nothing waits. */
static int64_t flow_ticks_left(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;
    int64_t left = -1;

    if (fs->nheap)
        left = MAX(fs->heap[0]->fl.due - fs->tick, 0);
    if (flow_has_fragments(slirp)) {
        int64_t frag = MAX(fs->frag_tick + 1 - fs->tick, 0);
        left = left < 0 ? frag : MIN(left, frag);
    }
    return left;
}

/* Look at the clock; only where no library call is going on, so that the tick
 * stands still within one. */
void flow_tick(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;
    int64_t now = flow_now_ns(slirp), n, left;

    if (now < fs->next_tick_ns)
        return;
    n = (now - fs->next_tick_ns) / FLOW_TICK_NS + 1;
    left = flow_ticks_left(slirp);
    if (left >= 0 && n > left) {
        n = left;
        fs->next_tick_ns = now + FLOW_TICK_NS;
    } else {
        fs->next_tick_ns += n * FLOW_TICK_NS;
    }
    fs->tick += n;
    if (!flow_has_fragments(slirp))
        fs->frag_tick = fs->tick;
}

/* --- the heap -------------------------------------------------------------- */

static void heap_put(struct flow_state *fs, size_t i, struct socket *so)
{
    fs->heap[i] = so;
    so->fl.heap_at = i + 1;
}

static void heap_sift(struct flow_state *fs, size_t i)
{
    struct socket *so = fs->heap[i];
    size_t child;

    while (i > 0 && fs->heap[(i - 1) / 2]->fl.due > so->fl.due) {
        heap_put(fs, i, fs->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    while ((child = 2 * i + 1) < fs->nheap) {
        if (child + 1 < fs->nheap &&
            fs->heap[child + 1]->fl.due < fs->heap[child]->fl.due)
            child++;
        if (fs->heap[child]->fl.due >= so->fl.due)
            break;
        heap_put(fs, i, fs->heap[child]);
        i = child;
    }
    heap_put(fs, i, so);
}

void flow_unsettle(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;
    struct socket *last;
    size_t i = so->fl.heap_at;

    if (!i)
        return;
    so->fl.heap_at = 0;
    last = fs->heap[--fs->nheap];
    if (last != so) {
        heap_put(fs, i - 1, last);
        heap_sift(fs, i - 1);
    }
}

/* max_flows bounds it: a flow is in it once. */
static void heap_add(struct flow_state *fs, struct socket *so)
{
    if (fs->nheap == fs->heap_size) {
        fs->heap_size = fs->heap_size ? 2 * fs->heap_size : 64;
        fs->heap = g_renew(struct socket *, fs->heap, fs->heap_size);
    }
    heap_put(fs, fs->nheap++, so);
    heap_sift(fs, fs->nheap - 1);
}

/* --- a flow's counters ------------------------------------------------------ */

/* The shortest of the timers that run; 0: none does. Less one, what does not run
 * is the longest. */
static unsigned flow_first(const struct tcpcb *tp)
{
    uint16_t a = tp->t_timer[0] - 1, b = tp->t_timer[1] - 1,
             c = tp->t_timer[2] - 1, d = tp->t_timer[3] - 1;

    G_STATIC_ASSERT(TCPT_NTIMERS == 4);
    a = MIN(a, b);
    c = MIN(c, d);
    return (uint16_t)(MIN(a, c) + 1);
}

/* Upward counters end at their type's end: a guest may be idle for days. */
static void flow_count_up(struct tcpcb *tp, int64_t ticks)
{
    tp->t_idle = MIN(tp->t_idle + ticks, G_MAXSHORT);
    if (tp->t_rtt)
        tp->t_rtt = MIN(tp->t_rtt + ticks, G_MAXSHORT);
}

void flow_sync(struct socket *so)
{
    struct tcpcb *tp = sototcpcb(so);
    int64_t n = so->slirp->fl.tick - so->fl.synced;
    unsigned first;
    int i;

    if (!n || !tp)
        return;
    /* What is due is run by slirp_flow_timer; until then it is all but due. */
    first = flow_first(tp);
    if (first && n >= first)
        n = first - 1;
    for (i = 0; i < TCPT_NTIMERS; i++)
        if (tp->t_timer[i])
            tp->t_timer[i] -= n;
    flow_count_up(tp, n);
    so->fl.synced += n;
}

void flow_settle(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;
    unsigned first = flow_first(sototcpcb(so));
    int64_t due = so->fl.synced + first;

    if (!first)
        return; /* if it is in the heap, it leaves when it comes up */
    if (!so->fl.heap_at) {
        so->fl.due = due;
        heap_add(fs, so);
    } else if (due < so->fl.due) {
        so->fl.due = due;
        heap_sift(fs, so->fl.heap_at - 1);
    }
}

/* A flow that has come up: what is due runs, and it goes to its place. */
static void flow_run(struct socket *so)
{
    struct flow_state *fs = &so->slirp->fl;
    struct tcpcb *tp = sototcpcb(so);
    int64_t n = fs->tick - so->fl.synced;
    bool due[TCPT_NTIMERS];
    unsigned first;
    int i;

    for (i = 0; i < TCPT_NTIMERS; i++) {
        due[i] = tp->t_timer[i] && tp->t_timer[i] <= n;
        if (tp->t_timer[i])
            tp->t_timer[i] = due[i] ? 1 : tp->t_timer[i] - n;
    }
    flow_count_up(tp, n);
    so->fl.synced = fs->tick;
    for (i = 0; i < TCPT_NTIMERS; i++) {
        /* Another value than 1: one before it has stopped or set it. */
        if (!due[i] || tp->t_timer[i] != 1)
            continue;
        tp->t_timer[i] = 0;
        if (!tcp_timers(tp, i))
            return; /* and the flow with it */
    }
    first = flow_first(tp);
    if (first) {
        so->fl.due = fs->tick + first;
        heap_sift(fs, so->fl.heap_at - 1);
    } else {
        flow_unsettle(so);
    }
}

/* --- the API ----------------------------------------------------------------- */

int slirp_flow_timeout(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;
    int64_t left, ns;

    if (!fs->depth)
        flow_tick(slirp);
    left = flow_ticks_left(slirp);
    if (left < 0)
        return -1;
    if (left == 0)
        return 0;
    ns = fs->next_tick_ns + (left - 1) * FLOW_TICK_NS - flow_now_ns(slirp);
    return (int)CLAMP((ns + SCALE_MS - 1) / SCALE_MS, 0, G_MAXINT);
}

int slirp_flow_timer(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;

    flow_enter(slirp);
    if (flow_has_fragments(slirp) && fs->frag_tick < fs->tick) {
        fs->frag_tick = fs->tick;
        ip_slowtimo(slirp);
    }
    while (fs->nheap && fs->heap[0]->fl.due <= fs->tick)
        flow_run(fs->heap[0]);
    flow_leave(slirp);
    return slirp_flow_timeout(slirp);
}

void flow_timer_free(Slirp *slirp)
{
    g_free(slirp->fl.heap);
}
