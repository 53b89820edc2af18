/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hub: frames in through the guard, messages in from the core, time, and what must be paused when something is
 * full. See front.h.
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
/* Batches of frames that are read at once when the end is asked for: a device's queue is 500 frames long. */
#define FINISH_READS 64

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

void sm_front_emit(struct sm_front *front, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct sm_frame_out out = {.iov = &iov, .n_iov = 1};
    if (sm_port_send(front->port, &out) < 0)
        sm_front_fail(front, "the guest's network device is gone");
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

void sm_front_defer(struct sm_front_flow *flow)
{
    if (flow->deferred)
        return;
    flow->deferred = true;
    g_queue_push_tail_link(&flow->front->deferred, &flow->defer);
}

static void undefer(struct sm_front_flow *flow)
{
    if (!flow->deferred)
        return;
    flow->deferred = false;
    g_queue_unlink(&flow->front->deferred, &flow->defer);
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

static void run_flow(struct sm_front_flow *flow)
{
    switch (flow->proto) {
    case SM_FRONT_TCP:
        sm_front_tcp_run(flow);
        break;
    case SM_FRONT_UDP:
        sm_front_udp_run(flow);
        break;
    case SM_FRONT_VSOCK:
        sm_front_vsock_run(flow);
        break;
    }
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

static void add_other(struct sm_front *front, enum sm_flow_other kind, uint8_t proto, const struct sm_addr *dst)
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
        add_other(front, SM_OTHER_DEVICE, 0, &nowhere);
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
    (void)slirp_flow_timer(front->slirp);
}

static bool is_undelivered(const struct sm_front_flow *flow)
{
    switch (flow->proto) {
    case SM_FRONT_TCP:
        return sm_front_tcp_undelivered(flow);
    case SM_FRONT_UDP:
        return flow->state == SM_FRONT_ASKED;
    case SM_FRONT_VSOCK:
        return sm_front_vsock_undelivered(flow);
    }
    return false;
}

/* Guest bytes that were taken over and are not upstream yet, or datagrams that wait for a verdict. */
static bool undelivered(struct sm_front *front)
{
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, front->ids);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        if (is_undelivered(value))
            return true;
    }
    return false;
}

void sm_front_guest_left(struct sm_front *front)
{
    front->guest_left = true; /* we may be deep in the stack, which is writing to the port */
}

static void end_orphan(struct sm_front_flow *flow)
{
    switch (flow->proto) {
    case SM_FRONT_TCP:
        sm_front_tcp_end(flow, flow->state == SM_FRONT_ASKED ? SM_WHY_REFUSED : SM_WHY_TIMEOUT);
        break;
    case SM_FRONT_UDP:
        sm_front_udp_end(flow, SM_WHY_TIMEOUT);
        break;
    case SM_FRONT_VSOCK: /* has a port of its own */
        break;
    }
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
        if (late || (flow->proto == SM_FRONT_TCP ? !sm_front_tcp_holds(flow) : flow->state != SM_FRONT_ASKED))
            g_ptr_array_add(over, flow);
        else
            more = true;
    }
    for (guint i = 0; i < over->len; i++) /* nothing is freed before the end of the turn */
        end_orphan(g_ptr_array_index(over, i));
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
        flow->orphan = flow->proto != SM_FRONT_VSOCK;
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
    for (int i = 0; i < FINISH_READS && front->reading && !front->dead; i++) {
        int n = sm_port_read(front->port, front->frames, SM_PORT_BATCH);
        if (n > 0)
            sm_front_input(front, front->frames, (unsigned)n);
        if (n <= 0) /* a stream brings what one read(2) brought, a batch or not */
            break;
    }
}

static void on_tick(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front *front = sm_container_of(timer, struct sm_front, tick_timer);
    sm_front_tick(front);
    if (front->holds.untold > 0 || front->stats.udp_now > 0 || !sm_others_idle(&front->others))
        sm_front_want_tick(front);
}

/* ---- frames ---- */

static void one_frame(struct sm_front *front, const struct sm_frame *frame)
{
    int64_t now_us = sm_front_now(front);
    struct sm_guard_verdict v = sm_guard_judge(&front->guard, frame, now_us);
    size_t n = 0;

    switch (v.action) {
    case SM_GUARD_DROP:
        break;
    case SM_GUARD_REPORT:
        add_other(front, v.other, v.proto, &v.dst);
        break;
    case SM_GUARD_PASS_IP:
        if (v.csum_ok)
            slirp_flow_input_trusted(front->slirp, frame->data, v.frame_len);
        else
            slirp_flow_input(front->slirp, frame->data, v.frame_len);
        break;
    case SM_GUARD_PASS_ARP:
        n = sm_arp_answer(&front->cfg.net.link, frame->data, v.frame_len, front->read_buf);
        break;
    case SM_GUARD_PASS_DHCP:
        n = sm_dhcp_answer(&front->dhcp, frame->data + v.l4, v.frame_len - v.l4, NULL, front->read_buf);
        break;
    case SM_GUARD_PASS_ECHO:
        n = sm_echo_answer(&front->echo, &front->cfg.net.link, frame->data, v.frame_len, now_us, front->read_buf,
                           SM_FLOW_UDP_BATCH_MAX);
        break;
    case SM_GUARD_ACTIONS:
        break;
    }
    if (n > 0)
        sm_front_emit(front, front->read_buf, n);
}

/* What this guest's driver has agreed to by now. */
static void heed_offloads(struct sm_front *front)
{
    uint32_t tx = front->port->tx_offloads;

    front->guard.offloads = front->port->rx_offloads;
    if (tx == front->tx_offloads)
        return;
    front->tx_offloads = tx;
    slirp_flow_set_offload(front->slirp, (tx & SM_OFFLOAD_NEEDS_CSUM ? SLIRP_FLOW_OFFLOAD_CSUM : 0) |
                                             (tx & SM_OFFLOAD_GSO(SM_GSO_TCPV4) ? SLIRP_FLOW_OFFLOAD_TSO : 0));
}

void sm_front_input(struct sm_front *front, const struct sm_frame *frames, unsigned n)
{
    front->in_batch = n > 1;
    heed_offloads(front);
    for (unsigned i = 0; i < n && !front->dead; i++)
        one_frame(front, &frames[i]);
    front->in_batch = false;
    while (front->deferred.head) {
        struct sm_front_flow *flow = front->deferred.head->data;
        undefer(flow);
        sm_front_tcp_flush(flow);
    }
    sm_front_udp_flush(front);
}

static void watch_port(struct sm_front *front)
{
    unsigned want = (front->reading ? SM_PORT_READABLE : 0u) | (sm_port_waiting(front->port) ? SM_PORT_WRITABLE : 0u);
    if (sm_port_want(front->port, want) < 0)
        sm_front_fail(front, "the guest's network device cannot be watched");
}

static void on_port(void *data, unsigned ready)
{
    struct sm_front *front = data;

    if ((ready & SM_PORT_WRITABLE) && sm_port_waiting(front->port) && sm_port_flush(front->port) < 0) {
        sm_front_fail(front, "the guest's network device is gone");
        return;
    }
    if (!front->reading || !(ready & SM_PORT_READABLE))
        return;
    int n = sm_port_read(front->port, front->frames, SM_PORT_BATCH);
    if (n < 0) {
        sm_front_fail(front, "the guest's network device is gone");
        return;
    }
    sm_front_input(front, front->frames, (unsigned)n);
}

/* ---- the stack's callbacks ---- */

static int64_t stack_clock(void *opaque)
{
    return sm_front_now(opaque) * 1000;
}

static void stack_send(const struct iovec *iov, int cnt, const SlirpFlowMeta *meta, void *opaque)
{
    struct sm_front *front = opaque;
    struct sm_frame_out out = {.iov = iov, .n_iov = (unsigned)cnt};

    if (meta->needs_csum)
        out.offload = (struct sm_offload){.flags = SM_OFFLOAD_NEEDS_CSUM,
                                          .gso_type = meta->gso_size ? SM_GSO_TCPV4 : SM_GSO_NONE,
                                          .gso_size = meta->gso_size,
                                          .hdr_len = meta->hdr_len,
                                          .csum_start = meta->csum_start,
                                          .csum_offset = meta->csum_offset};
    if (sm_port_send(front->port, &out) < 0)
        sm_front_fail(front, "the guest's network device is gone");
}
_Static_assert(SLIRP_FLOW_IOV_MAX <= SM_PORT_IOV_MAX, "what libslirp gathers, a port takes");

static void stack_other(uint8_t proto, struct in_addr src, struct in_addr dst, void *opaque)
{
    struct sm_addr a = sm_addr_from_in(dst);
    add_other(opaque, proto == SM_IPPROTO_ICMP ? SM_OTHER_ICMP : SM_OTHER_PROTO, proto, &a);
}

static SlirpFlowVerdict stack_open(const SlirpFlowAddr *addr, void **cookie, void *opaque)
{
    return sm_front_tcp.open(addr, cookie, opaque);
}

static void stack_opened(SlirpFlow *flow, void *cookie, void *opaque)
{
    sm_front_tcp.opened(flow, cookie, opaque);
}

static size_t stack_data(void *cookie, const struct iovec *iov, int cnt, void *opaque)
{
    return sm_front_tcp.data(cookie, iov, cnt, opaque);
}

static void stack_eof(void *cookie, void *opaque)
{
    sm_front_tcp.eof(cookie, opaque);
}

static void stack_writable(void *cookie, size_t room, void *opaque)
{
    sm_front_tcp.writable(cookie, room, opaque);
}

static void stack_closed(void *cookie, SlirpFlowEnd how, void *opaque)
{
    sm_front_tcp.closed(cookie, how, opaque);
}

static const SlirpFlowOps stack_ops = {
    .clock_ns = stack_clock,
    .send_packetv = stack_send,
    .tcp_open = stack_open,
    .tcp_opened = stack_opened,
    .tcp_data = stack_data,
    .tcp_eof = stack_eof,
    .tcp_writable = stack_writable,
    .tcp_closed = stack_closed,
    .udp_input = sm_front_udp_input,
    .other = stack_other,
};

static void on_stack_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front *front = sm_container_of(timer, struct sm_front, stack_timer);
    (void)slirp_flow_timer(front->slirp);
}

/* ---- messages of the core ---- */

static void on_flow_message(struct sm_front *front, const struct sm_flow_msg *msg, int *fd)
{
    struct sm_front_flow *flow = g_hash_table_lookup(front->ids, &msg->id);

    if (flow) {
        if (msg->type == SM_FLOW_REFUSE && flow->proto != SM_FRONT_VSOCK) {
            sm_holds_add(&front->holds, &flow->key, msg->scope, msg->how, msg->hold_ms, sm_front_now(front),
                         report_repeated, front);
        }
        switch (flow->proto) {
        case SM_FRONT_TCP:
            sm_front_tcp_message(flow, msg, fd);
            break;
        case SM_FRONT_UDP:
            sm_front_udp_message(flow, msg, fd);
            break;
        case SM_FRONT_VSOCK:
            sm_front_vsock_message(flow, msg, fd);
            break;
        }
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
            sm_front_tcp_inbound(front, msg, &fd);
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

/* Everything that waits in a list now is looked at once; what lists itself again waits for the next turn. */
static void run_list(struct sm_front *front, GQueue *list)
{
    for (guint n = list->length; n > 0 && !front->dead && list->head; n--) {
        struct sm_front_flow *flow = list->head->data;
        sm_front_unlist(flow);
        run_flow(flow);
    }
}

static void on_retry(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front *front = sm_container_of(timer, struct sm_front, retry_timer);
    run_list(front, &front->stalled);
}

static void free_dead_flows(struct sm_front *front)
{
    GList *l;
    while ((l = g_queue_pop_head_link(&front->graveyard))) {
        struct sm_front_flow *flow = l->data;
        switch (flow->proto) {
        case SM_FRONT_TCP:
            sm_front_tcp_free(flow);
            break;
        case SM_FRONT_UDP:
            sm_front_udp_free(flow);
            break;
        case SM_FRONT_VSOCK:
            sm_front_vsock_free_flow(flow);
            break;
        }
    }
}

static bool on_turn_end(void *data)
{
    struct sm_front *front = data;

    heed_offloads(front);
    sm_front_tell_faults(front, front->port, &front->faults_told);
    if (front->guest_left && !front->dead)
        mark_orphans(front);
    run_list(front, &front->ready);
    if (front->stalled.length > 0 && !sm_port_congested(front->port) &&
        front->stats.queued_now <= SM_FRONT_QUEUED_TOTAL)
        run_list(front, &front->stalled);
    sm_front_udp_flush(front);
    free_dead_flows(front);
    if (front->dead)
        return false;
    if (front->finishing && !front->told && !undelivered(front))
        sm_front_last_word(front);
    if (sm_channel_congested(front->channel))
        front->reading = false; /* until on_channel_drained */
    watch_port(front);
    sm_front_vsock_turn(front);
    free_dead_flows(front);
    int ms = slirp_flow_timeout(front->slirp);
    if (ms >= 0)
        sm_loop_arm(front->loop, &front->stack_timer, sm_loop_now(front->loop) + (int64_t)ms * 1000);
    else
        sm_loop_disarm(front->loop, &front->stack_timer);
    return front->ready.length > 0;
}

/* ---- life ---- */

static const struct sm_channel_ops channel_ops = {
    .message = on_message, .failed = on_channel_failed, .drained = on_channel_drained};

struct sm_front *sm_front_new(struct sm_loop *loop, const struct sm_front_config *cfg, struct sm_port *port,
                              int channel_fd, void (*failed)(const char *text, void *data), void *data, GError **error)
{
    const struct sm_link *link = &cfg->net.link;
    struct sm_front *front = g_new0(struct sm_front, 1);
    uint64_t secrets[3];

    front->loop = loop;
    front->cfg = *cfg;
    front->port = port;
    front->failed = failed;
    front->failed_data = data;
    front->next_id = 1;
    sm_timer_init(&front->stack_timer, on_stack_timer);
    sm_timer_init(&front->tick_timer, on_tick);
    sm_timer_init(&front->retry_timer, on_retry);
    sm_timer_init(&front->finish_timer, on_finish_timer);
    sm_timer_init(&front->left_timer, on_left_timer);
    sm_port_start(port, loop, on_port, front);
    g_queue_init(&front->lru);
    g_queue_init(&front->ready);
    g_queue_init(&front->stalled);
    g_queue_init(&front->deferred);
    g_queue_init(&front->graveyard);
    front->ids = g_hash_table_new(g_int64_hash, g_int64_equal);
    front->tuples = g_hash_table_new(g_int64_hash, g_int64_equal);

    /* Different uses, different keys: the tables' secrets are taken through the mixer, libslirp's is not. */
    memcpy(secrets, cfg->secret, sizeof(secrets));
    for (size_t i = 0; i < SM_ARRAY_LEN(secrets); i++)
        secrets[i] = sm_mix64(secrets[i] + i + 1);
    sm_holds_init(&front->holds, secrets);
    front->tuple_secret = secrets[2];

    sm_guard_init(&front->guard, link, port->rx_offloads);
    front->dhcp.link = *link;
    g_strlcpy(front->dhcp.hostname, cfg->net.hostname, sizeof(front->dhcp.hostname));

    size_t cap = port->max_frame + 1;
    front->frame_buf = g_malloc(cap * SM_PORT_BATCH);
    for (size_t i = 0; i < SM_PORT_BATCH; i++)
        front->frames[i] = (struct sm_frame){.data = front->frame_buf + i * cap, .cap = cap};
    front->batch_buf = g_malloc(SM_FLOW_UDP_BATCH_MAX);
    front->read_buf = g_malloc(SM_FLOW_UDP_BATCH_MAX);

    SlirpFlowConfig sc = {.gateway = sm_front_in(link->gateway),
                          .resolver = sm_front_in(link->resolver),
                          .guest = sm_front_in(link->guest),
                          .mtu = link->mtu,
                          .max_flows = SM_FRONT_TCP_MAX};
    memcpy(sc.gateway_mac, link->our_mac, SM_ETH_ALEN);
    memcpy(sc.guest_mac, link->guest_mac, SM_ETH_ALEN);
    memcpy(sc.secret, cfg->secret, sizeof(sc.secret));
    front->slirp = slirp_flow_new(&sc, &stack_ops, front);
    if (!front->slirp) {
        sm_error_set(error, SM_ERROR_INVALID, "front: the network stack refuses its configuration");
        (void)close(channel_fd);
        sm_front_free(front);
        return NULL;
    }
    front->channel = sm_channel_new(loop, channel_fd, false, &channel_ops, front);
    front->reading = true;
    heed_offloads(front);
    sm_loop_set_turn_end(loop, on_turn_end, front);
    watch_port(front);
    return front;
}

void sm_front_free(struct sm_front *front)
{
    if (!front)
        return;
    front->dead = true;
    /* The core learns of our end from the channel's; what the flows still say on the way goes nowhere. */
    if (front->slirp)
        slirp_flow_free(front->slirp);
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
    sm_loop_disarm(front->loop, &front->stack_timer);
    sm_loop_disarm(front->loop, &front->tick_timer);
    sm_loop_disarm(front->loop, &front->retry_timer);
    sm_loop_disarm(front->loop, &front->left_timer);
    sm_loop_disarm(front->loop, &front->finish_timer);
    sm_front_vsock_free(front);
    sm_channel_free(front->channel);
    sm_port_free(front->port);
    g_hash_table_destroy(front->ids);
    g_hash_table_destroy(front->tuples);
    g_free(front->frame_buf);
    g_free(front->batch_buf);
    g_free(front->read_buf);
    g_free(front);
}

void sm_front_stats(const struct sm_front *front, struct sm_front_stats *ret)
{
    *ret = front->stats;
    if (front->channel)
        ret->channel_dropped = sm_channel_dropped(front->channel);
}
