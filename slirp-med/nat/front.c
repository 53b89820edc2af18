/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hub: flows and their ids, messages in from the core, holds and counts, time, and what must be paused when something
 * is full. What brings the flows is a side: the stack of a network card (stack.c), or accepted sockets (sock.c). See
 * front.h.
 */
#include "nat/front.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "nat/front_priv.h"

#define TICK_US 1000000
/* How soon a flow that was stalled looks again; the port's own readiness usually comes first. */
#define RETRY_US 20000
/* How often flows are looked at whose guest has gone and whose bytes are still on their way. */
#define ORPHANS_US 100000

/* ---- small services for tcp.c and udp.c ---- */

int64_t sm_front_now(const struct sm_front *front)
{
    return front->cfg.clock_us ? front->cfg.clock_us(front->cfg.clock_data) : sm_loop_now(front->loop);
}

void sm_front_fail(struct sm_front *front, const char *text)
{
    if (front->dead)
        return;
    front->dead = true;
    front->failed(text, front->failed_data);
}

void sm_front_tell(struct sm_front *front, enum sm_flow_type type, uint64_t id, enum sm_flow_why why)
{
    struct sm_flow_msg m = {.type = type, .id = id, .why = why};
    if (type == SM_FLOW_GONE)
        front->stats.gone++;
    (void)sm_channel_send(front->channel, &m, -1);
}

bool sm_front_has_room(struct sm_front *front)
{
    /* A descriptor that finds the process's table full is lost on the way, and the channel with it: so this bound comes
     * first. */
    return front->cfg.max_live == 0 || g_hash_table_size(front->ids) < front->cfg.max_live || sm_front_udp_evict(front);
}

bool sm_front_may_ask(struct sm_front *front)
{
    return front->stats.asked_now < SM_FRONT_ASKED_MAX && sm_front_has_room(front);
}

bool sm_front_ask(struct sm_front *front, struct sm_front_flow *flow)
{
    const struct sm_hold_key *k = &flow->key;
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .proto = (enum sm_flow_proto)k->proto,
                            .src = {.addr = sm_addr_from_u32(front->cfg.net.link.guest), .port = k->src_port},
                            .dst = {.addr = sm_addr_from_u32(k->dst), .port = k->dst_port}};
    return sm_front_ask_with(front, flow, &m);
}

bool sm_front_ask_with(struct sm_front *front, struct sm_front_flow *flow, struct sm_flow_msg *open)
{
    open->id = front->next_id;
    if (!sm_channel_send(front->channel, open, -1)) {
        front->stats.opens_dropped++;
        return false;
    }
    flow->id = front->next_id++;
    flow->state = SM_FRONT_ASKED;
    g_hash_table_insert(front->ids, &flow->id, flow);
    front->stats.opens++;
    front->stats.asked_now++;
    return true;
}

void sm_front_set_state(struct sm_front_flow *flow, enum sm_front_state state)
{
    if (flow->state == SM_FRONT_ASKED && state != SM_FRONT_ASKED)
        flow->front->stats.asked_now--;
    flow->state = state;
}

void sm_front_forget(struct sm_front_flow *flow)
{
    (void)g_hash_table_remove(flow->front->ids, &flow->id);
}

void sm_front_close_fd(struct sm_front_flow *flow)
{
    if (flow->watch.fd < 0)
        return;
    sm_loop_unwatch(flow->front->loop, &flow->watch);
    sm_fd_close(&flow->watch.fd);
}

void sm_front_unlist(struct sm_front_flow *flow)
{
    if (!flow->waiting)
        return;
    g_queue_unlink(flow->runnable ? &flow->front->ready : &flow->front->stalled, &flow->link);
    flow->waiting = false;
}

static void enlist(struct sm_front_flow *flow, bool runnable)
{
    if (flow->waiting && flow->runnable == runnable)
        return;
    sm_front_unlist(flow);
    flow->waiting = true;
    flow->runnable = runnable;
    g_queue_push_tail_link(runnable ? &flow->front->ready : &flow->front->stalled, &flow->link);
}

void sm_front_ready(struct sm_front_flow *flow)
{
    enlist(flow, true);
}

void sm_front_stall(struct sm_front_flow *flow)
{
    struct sm_front *front = flow->front;
    enlist(flow, false);
    if (!sm_timer_armed(&front->retry_timer))
        sm_loop_arm(front->loop, &front->retry_timer, sm_loop_now(front->loop) + RETRY_US);
}

static void undefer(struct sm_front_flow *flow)
{
    if (!flow->deferred)
        return;
    flow->deferred = false;
    g_queue_unlink(&flow->front->stack->deferred, &flow->defer);
}

void sm_front_bury(struct sm_front_flow *flow)
{
    if (flow->dead)
        return;
    sm_front_unlist(flow);
    undefer(flow);
    sm_front_close_fd(flow);
    flow->dead = true;
    g_queue_push_tail_link(&flow->front->graveyard, &flow->grave);
}

void sm_front_want_tick(struct sm_front *front)
{
    if (!sm_timer_armed(&front->tick_timer))
        sm_loop_arm(front->loop, &front->tick_timer, sm_loop_now(front->loop) + TICK_US);
}

/* ---- counts for the audit ---- */

static bool report_repeated(const struct sm_hold_key *key, uint32_t count, void *data)
{
    struct sm_front *front = data;
    struct sm_flow_msg m = {.type = SM_FLOW_REPEATED,
                            .proto = (enum sm_flow_proto)key->proto,
                            .dst = {.addr = sm_addr_from_u32(key->dst), .port = key->dst_port},
                            .count = count};
    return sm_channel_send(front->channel, &m, -1);
}

static bool report_other(enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst, uint32_t count, void *data)
{
    struct sm_front *front = data;
    struct sm_flow_msg m = {
        .type = SM_FLOW_OTHER, .other = kind, .ip_proto = proto, .dst = {.addr = *dst}, .count = count};
    return sm_channel_send(front->channel, &m, -1);
}

void sm_front_other(struct sm_front *front, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst)
{
    front->stats.others++;
    sm_others_add(&front->others, kind, proto, dst, report_other, front);
    sm_front_want_tick(front);
}

void sm_front_tell_faults(struct sm_front *front, const struct sm_port *port, uint64_t *told)
{
    static const struct sm_addr nowhere;

    /* A fault stops a ring or a connection: a turn has a handful, and the table makes one line a second of them. */
    for (; *told < port->faults; (*told)++)
        sm_front_other(front, SM_OTHER_DEVICE, 0, &nowhere);
}

bool sm_front_held(struct sm_front *front, const struct sm_hold_key *key, enum sm_flow_how *ret_how)
{
    if (!sm_holds_match(&front->holds, key, sm_front_now(front), ret_how))
        return false;
    front->stats.repeated++;
    sm_front_want_tick(front);
    return true;
}

void sm_front_tick(struct sm_front *front)
{
    sm_holds_report(&front->holds, report_repeated, front);
    sm_others_tick(&front->others, report_other, front);
    sm_front_udp_expire(front, sm_front_now(front));
    front->side->tick(front);
}

/* Guest bytes that were taken over and are not upstream yet, or datagrams that wait for a verdict. */
static bool undelivered(struct sm_front *front)
{
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, front->ids);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        const struct sm_front_flow *flow = value;
        if (flow->ops->undelivered(flow))
            return true;
    }
    return false;
}

void sm_front_guest_left(struct sm_front *front)
{
    front->guest_left = true; /* we may be deep in the stack, which is writing to the port */
}

/* Flows whose guest has gone end: at once, or when what it sent is upstream, or when that takes too long. */
static void end_orphans(struct sm_front *front, int64_t now_us)
{
    g_autoptr(GPtrArray) over = g_ptr_array_new();
    bool late = now_us >= front->left_until, more = false;
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, front->ids);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        struct sm_front_flow *flow = value;
        if (!flow->orphan)
            continue;
        if (late || !flow->ops->holds(flow))
            g_ptr_array_add(over, flow);
        else
            more = true;
    }
    for (guint i = 0; i < over->len; i++) { /* nothing is freed before the end of the turn */
        struct sm_front_flow *flow = g_ptr_array_index(over, i);
        bool unanswered = flow->proto == SM_FRONT_TCP && flow->state == SM_FRONT_ASKED;
        flow->ops->end(flow, unanswered ? SM_WHY_REFUSED : SM_WHY_TIMEOUT);
    }
    if (more)
        sm_loop_arm(front->loop, &front->left_timer, now_us + ORPHANS_US);
}

static void on_left_timer(struct sm_timer *timer, int64_t now_us)
{
    end_orphans(sm_container_of(timer, struct sm_front, left_timer), now_us);
}

/* Before the next VMM can be there: its flows are not meant. */
static void mark_orphans(struct sm_front *front)
{
    GHashTableIter it;
    gpointer value;

    front->guest_left = false;
    front->left_until = sm_loop_now(front->loop) + SM_FRONT_LINGER_US;
    g_hash_table_iter_init(&it, front->ids);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        struct sm_front_flow *flow = value;
        flow->orphan = flow->ops->holds != NULL; /* vsock has a port of its own */
    }
    end_orphans(front, sm_loop_now(front->loop));
}

void sm_front_last_word(struct sm_front *front)
{
    if (front->told)
        return;
    front->told = true;
    front->reading = false;
    sm_loop_disarm(front->loop, &front->finish_timer);
    sm_holds_report(&front->holds, report_repeated, front);
    sm_others_tick(&front->others, report_other, front);
    sm_channel_finish(front->channel);
}

static void on_finish_timer(struct sm_timer *timer, int64_t now_us)
{
    sm_front_last_word(sm_container_of(timer, struct sm_front, finish_timer));
}

void sm_front_finish(struct sm_front *front)
{
    front->finishing = true;
    sm_loop_arm(front->loop, &front->finish_timer, sm_loop_now(front->loop) + SM_FRONT_LINGER_US);
    /* What the guest sent before it ended is on the wire already; the end of the turn looks what came of it. */
    front->side->finish(front);
}

static void on_tick(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front *front = sm_container_of(timer, struct sm_front, tick_timer);
    sm_front_tick(front);
    if (front->holds.untold > 0 || front->udp_asked.length > 0 || !sm_others_idle(&front->others))
        sm_front_want_tick(front);
}

/* ---- messages of the core ---- */

static void on_flow_message(struct sm_front *front, const struct sm_flow_msg *msg, int *fd)
{
    struct sm_front_flow *flow = g_hash_table_lookup(front->ids, &msg->id);

    if (flow) {
        if (msg->type == SM_FLOW_REFUSE && !flow->nameless) {
            sm_holds_add(&front->holds, &flow->key, msg->scope, msg->how, msg->hold_ms, sm_front_now(front),
                         report_repeated, front);
        }
        flow->ops->message(flow, msg, fd);
    }
    if (msg->type == SM_FLOW_ATTACH)
        sm_front_tell(front, SM_FLOW_ATTACHED, msg->id, SM_WHY_CLOSED);
}

static void on_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct sm_front *front = data;
    sm_autofd fd = n_fds > 0 ? fds[0] : -1;

    if (front->dead)
        return;
    switch (msg->type) {
    case SM_FLOW_REFUSE:
    case SM_FLOW_ACCEPT:
    case SM_FLOW_ATTACH:
    case SM_FLOW_ABORT:
        on_flow_message(front, msg, &fd);
        break;
    case SM_FLOW_INBOUND:
        if ((msg->id & SM_FLOW_ID_CORE) && !g_hash_table_contains(front->ids, &msg->id))
            front->side->inbound(front, msg, &fd);
        sm_front_tell(front, SM_FLOW_ATTACHED, msg->id, SM_WHY_CLOSED);
        break;
    case SM_FLOW_DATAGRAM:
        sm_front_udp_datagram(front, msg);
        break;
    case SM_FLOW_RELEASE:
        sm_holds_release(&front->holds);
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        sm_front_fail(front, "the core sent a message that only a front may send");
        break;
    }
}

static void on_channel_failed(const char *text, void *data)
{
    sm_log_info("channel: %s", text);
    sm_front_fail(data, "the channel to the core is gone");
}

static void on_channel_drained(void *data)
{
    struct sm_front *front = data;
    front->reading = !front->told;
}

/* ---- the turn ---- */

static bool has_room(const struct sm_front *front)
{
    return !front->side->congested(front) && front->stats.queued_now <= SM_FRONT_QUEUED_TOTAL;
}

/* Everything that waits in a list now is looked at once; what lists itself again waits for the next turn. The list of
 * those that wait for room ends where the room does: the rest would only go back to its tail, and theirs is the next
 * room. */
static void run_list(struct sm_front *front, GQueue *list)
{
    for (guint n = list->length; n > 0 && !front->dead && list->head; n--) {
        if (list == &front->stalled && front->side->congested(front))
            break;
        struct sm_front_flow *flow = list->head->data;
        sm_front_unlist(flow);
        flow->ops->run(flow);
    }
}

static void on_retry(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front *front = sm_container_of(timer, struct sm_front, retry_timer);
    run_list(front, &front->stalled);
    if (front->stalled.length > 0 && !sm_timer_armed(timer))
        sm_loop_arm(front->loop, timer, now_us + RETRY_US);
}

static void free_dead_flows(struct sm_front *front)
{
    GList *l;
    while ((l = g_queue_pop_head_link(&front->graveyard))) {
        struct sm_front_flow *flow = l->data;
        flow->ops->free(flow);
    }
}

static bool on_turn_end(void *data)
{
    struct sm_front *front = data;

    front->side->turn(front);
    if (front->guest_left && !front->dead)
        mark_orphans(front);
    run_list(front, &front->ready);
    if (front->stalled.length > 0 && has_room(front))
        run_list(front, &front->stalled);
    sm_front_udp_flush(front);
    sm_channel_flush(front->channel);
    free_dead_flows(front);
    if (front->dead)
        return false;
    if (front->finishing && !front->told && !undelivered(front))
        sm_front_last_word(front);
    if (sm_channel_congested(front->channel))
        front->reading = false; /* until on_channel_drained */
    front->side->turn_end(front);
    sm_front_vsock_turn(front);
    free_dead_flows(front);
    return front->ready.length > 0;
}

/* ---- life ---- */

static const struct sm_channel_ops channel_ops = {
    .message = on_message, .failed = on_channel_failed, .drained = on_channel_drained};

struct sm_front *sm_front_new_hub(struct sm_loop *loop, const struct sm_front_config *cfg,
                                  const struct sm_front_side *side, int channel_fd,
                                  void (*failed)(const char *text, void *data), void *data)
{
    struct sm_front *front = g_new0(struct sm_front, 1);
    uint64_t secrets[3];

    front->loop = loop;
    front->cfg = *cfg;
    front->side = side;
    front->failed = failed;
    front->failed_data = data;
    front->next_id = 1;
    sm_timer_init(&front->tick_timer, on_tick);
    sm_timer_init(&front->retry_timer, on_retry);
    sm_timer_init(&front->finish_timer, on_finish_timer);
    sm_timer_init(&front->left_timer, on_left_timer);
    g_queue_init(&front->lru);
    g_queue_init(&front->udp_asked);
    g_queue_init(&front->ready);
    g_queue_init(&front->stalled);
    g_queue_init(&front->graveyard);
    front->ids = g_hash_table_new(g_int64_hash, g_int64_equal);
    front->tuples = g_hash_table_new(g_int64_hash, g_int64_equal);

    /* Different uses, different keys: the tables' secrets are taken through the mixer, libslirp's is not. */
    memcpy(secrets, cfg->secret, sizeof(secrets));
    for (size_t i = 0; i < SM_ARRAY_LEN(secrets); i++)
        secrets[i] = sm_mix64(secrets[i] + i + 1);
    sm_holds_init(&front->holds, secrets);
    front->tuple_secret = secrets[2];
    for (size_t i = 0; i < SM_FRONT_UDP_BATCHES; i++)
        front->batches[i].buf = g_malloc(SM_FLOW_UDP_BATCH_MAX);
    front->read_buf = g_malloc(SM_FLOW_UDP_BATCH_MAX);
    front->channel = sm_channel_new(loop, channel_fd, false, &channel_ops, front);
    front->reading = true;
    sm_loop_set_turn_end(loop, on_turn_end, front);
    return front;
}

void sm_front_free(struct sm_front *front)
{
    if (!front)
        return;
    front->dead = true;
    /* The core learns of our end from the channel's; what the flows still say on the way tells it nothing more. */
    front->side->stop(front);
    GHashTableIter it;
    gpointer flow;
    g_hash_table_iter_init(&it, front->ids);
    while (g_hash_table_iter_next(&it, NULL, &flow)) {
        struct sm_front_flow *f = flow;
        g_hash_table_iter_remove(&it);
        sm_front_bury(f);
    }
    free_dead_flows(front);
    sm_loop_set_turn_end(front->loop, NULL, NULL);
    sm_loop_disarm(front->loop, &front->tick_timer);
    sm_loop_disarm(front->loop, &front->retry_timer);
    sm_loop_disarm(front->loop, &front->left_timer);
    sm_loop_disarm(front->loop, &front->finish_timer);
    sm_front_vsock_free(front);
    sm_channel_free(front->channel);
    front->side->free(front);
    g_hash_table_destroy(front->ids);
    g_hash_table_destroy(front->tuples);
    for (size_t i = 0; i < SM_FRONT_UDP_BATCHES; i++)
        g_free(front->batches[i].buf);
    g_free(front->read_buf);
    g_free(front);
}

void sm_front_stats(const struct sm_front *front, struct sm_front_stats *ret)
{
    *ret = front->stats;
    if (front->channel)
        ret->channel_dropped = sm_channel_dropped(front->channel);
}
