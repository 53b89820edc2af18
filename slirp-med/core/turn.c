/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a turn: one write(2) for all audit lines, and only then what they allow (spec section 8).
 *
 * Effects may themselves record (a dial that fails at once) and schedule: those wait for the next turn, which then does not block.
 */
#include "core/core.h"

#include <string.h>

#include "base/link.h"
#include "base/log.h"
#include "core/limits.h"

#define SECOND_US INT64_C(1000000)

/* One in core->replies; its message follows it, then padding. */
struct reply {
    struct sm_endpoint guest, peer;
    size_t len;
};
#define REPLY_SIZE(len) ((sizeof(struct reply) + (len) + 7) & ~(size_t)7)
/* Memory for replies that is kept between turns; a burst's is given back. */
#define KEEP_BYTES (64u << 10)

static void schedule(struct sm_session *s, sm_effect_fn fn, GQueue *in)
{
    s->effect = fn;
    s->effect_in = in;
    s->effect_link = (GList){.data = s};
    g_queue_push_tail_link(in, &s->effect_link);
}

void sm_core_effect(struct sm_session *s, sm_effect_fn fn)
{
    g_assert(!s->effect);
    schedule(s, fn, &s->core->effects);
}

void sm_core_end_later(struct sm_session *s, sm_effect_fn fn)
{
    sm_core_effect_cancel(s);
    schedule(s, fn, &s->core->ends);
}

void sm_core_effect_cancel(struct sm_session *s)
{
    if (!s->effect)
        return;
    g_queue_unlink(s->effect_in, &s->effect_link);
    s->effect = NULL;
    s->effect_in = NULL;
}

void sm_core_reply(struct sm_core *core, const struct sm_endpoint *guest, const struct sm_endpoint *peer,
                   const uint8_t *msg, size_t len)
{
    const struct reply r = {.guest = *guest, .peer = *peer, .len = len};
    if (!core->replies)
        core->replies = g_byte_array_new();
    size_t at = core->replies->len;

    g_byte_array_set_size(core->replies, (guint)(at + REPLY_SIZE(len)));
    memcpy(core->replies->data + at, &r, sizeof(r));
    memcpy(core->replies->data + at + sizeof(r), msg, len);
}

/* The first `end` bytes of replies, which are recorded (@ok); others have been added behind them since. */
static void send_replies(struct sm_core *core, size_t end, bool ok)
{
    for (size_t at = 0; ok && at < end;) {
        struct reply r;
        memcpy(&r, core->replies->data + at, sizeof(r));
        struct sm_flow_msg m = {.type = SM_FLOW_DATAGRAM,
                                .src = r.guest,
                                .dst = r.peer,
                                .data = core->replies->data + at + sizeof(r),
                                .data_len = r.len};
        (void)sm_channel_send(core->channel, &m, -1); /* dropped under congestion: the guest asks again */
        at += REPLY_SIZE(r.len);
    }
    if (end > 0)
        g_byte_array_remove_range(core->replies, 0, (guint)end);
    if (end > KEEP_BYTES && core->replies->len == 0) {
        g_clear_pointer(&core->replies, g_byte_array_unref);
    }
}

bool sm_core_record(struct sm_core *core, const struct sm_audit_record *r)
{
    if (core->config->mode == SM_MODE_OFF)
        return true; /* off: nothing is audited */
    return sm_audit_append(core->audit, r);
}

void sm_core_note(struct sm_core *core, const struct sm_audit_record *r)
{
    if (core->config->mode != SM_MODE_OFF)
        (void)sm_audit_note(core->audit,
                            r); /* what is lost is counted by the writer and recorded when it can write again */
}

static bool commit(struct sm_core *core)
{
    uint64_t seq = sm_audit_next_seq(core->audit);

    if (sm_audit_commit(core->audit))
        return true;
    sm_audit_repeats_unwritten(core->repeats, seq);
    return false;
}

bool sm_core_commit_now(struct sm_core *core)
{
    if (commit(core))
        return true;
    core->turn_failed = true;
    return false;
}

void sm_core_make_room(struct sm_core *core)
{
    if (sm_audit_crowded(core->audit))
        (void)!sm_core_commit_now(core); /* ends are facts: what could not be written is kept */
}

static void tell_audit_state(struct sm_core *core)
{
    bool healthy = sm_audit_healthy(core->audit);

    if (!healthy && !core->audit_down)
        sm_log_error("no new flow is admitted: the audit log cannot be written: %s", sm_audit_failure(core->audit));
    else if (healthy && core->audit_down)
        sm_log_error("the audit log can be written again: flows are admitted");
    core->audit_down = !healthy;
}

static void ask_for_file(struct sm_core *core)
{
    int64_t now = sm_loop_now(core->loop);

    if (sm_audit_need(core->audit) == SM_AUDIT_NEED_NOTHING)
        return;
    if (core->asked_audit && now - core->asked_audit_us < 1000000)
        return;
    core->asked_audit = true;
    core->asked_audit_us = now;
    (void)sm_link_send(core->link.fd, SM_LINK_WANT, "audit", -1);
}

/* When sm_core_every_second() has something to do; INT64_MAX: nothing waits, and a core that does nothing sleeps. */
static int64_t second_due(const struct sm_core *core)
{
    int64_t soon = sm_loop_now(core->loop) + SECOND_US, due = INT64_MAX;
    bool healthy = sm_audit_healthy(core->audit);

    if (healthy)
        due = sm_audit_repeats_due(core->repeats);
    if (!healthy || sm_audit_need(core->audit) != SM_AUDIT_NEED_NOTHING || core->ingress_unsaid > 0 ||
        sm_limits_waits(core))
        due = SM_MIN(due, soon);
    if (sm_pins_count(core->pins) > 0)
        due = SM_MIN(due, core->pins_us + SM_CORE_PINS_US);
    return due == INT64_MAX ? due : SM_MAX(due, core->second_us + SECOND_US);
}

static void arm_second(struct sm_core *core)
{
    int64_t due = second_due(core);

    if (due < (sm_timer_armed(&core->second) ? core->second.due_us : INT64_MAX))
        sm_loop_arm(core->loop, &core->second, due);
}

void sm_core_lines_due(struct sm_timer *timer, int64_t now_us)
{
    (void)timer;
    (void)now_us;
}

void sm_core_run_ends(struct sm_core *core)
{
    while (core->ends.head) {
        struct sm_session *s = core->ends.head->data;
        sm_effect_fn fn = s->effect;
        sm_core_effect_cancel(s);
        fn(s, true);
        sm_core_make_room(core);
    }
}

/* Lines that could be written now: while the log cannot be, they wait for the next try (sm_core_every_second()). */
static bool lines_wait(const struct sm_core *core)
{
    return sm_audit_healthy(core->audit) && sm_audit_pending(core->audit) > 0;
}

bool sm_core_turn_end(void *data)
{
    struct sm_core *core = data;
    bool ok = commit(core) && !core->turn_failed;
    size_t replies_end = core->replies ? core->replies->len : 0;

    core->turn_failed = false;
    tell_audit_state(core);
    ask_for_file(core);
    /* What is scheduled from here on waits for the next commit. */
    g_assert(core->running.length == 0);
    core->running = core->effects;
    g_queue_init(&core->effects);
    for (GList *l = core->running.head; l; l = l->next)
        ((struct sm_session *)l->data)->effect_in = &core->running;
    while (core->running.head) {
        struct sm_session *s = core->running.head->data;
        sm_effect_fn fn = s->effect;
        sm_core_effect_cancel(s);
        if (ok)
            s->unwritten = NULL;
        fn(s, ok);
    }
    if (core->dns)
        sm_dnsserve_send(core->dns, ok);
    send_replies(core, replies_end, ok);
    sm_channel_flush(core->channel);
    bool again = core->effects.length > 0 || (core->replies && core->replies->len > 0) || lines_wait(core);
    /* Nobody waits for these: they come when everybody who waits for something has it, or a turn later. */
    if (!again || core->ends_waited)
        sm_core_run_ends(core);
    core->ends_waited = core->ends.length > 0;
    if (!again && lines_wait(core) && !sm_timer_armed(&core->lines))
        sm_loop_arm(core->loop, &core->lines, sm_loop_now(core->loop) + SM_CORE_LINES_US);
    arm_second(core);
    return again;
}

void sm_core_every_second(struct sm_timer *timer, int64_t now_us)
{
    struct sm_core *core = sm_container_of(timer, struct sm_core, second);

    if (!sm_audit_healthy(core->audit))
        (void)sm_audit_probe(core->audit, sm_clock_wall_us());
    (void)sm_audit_repeats_flush(core->repeats, core->audit, now_us, sm_clock_wall_us());
    if (now_us - core->pins_us >= SM_CORE_PINS_US) {
        (void)sm_pins_expire(core->pins, now_us);
        core->pins_us = now_us;
    }
    sm_limits_every_second(core);
    sm_ingress_every_second(core);
    core->second_us = now_us; /* the end of the turn arms it again if something waits */
}
