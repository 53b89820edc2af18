/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UDP flows of the front: 4-tuples, each with one end of a SEQPACKET pair whose other end the core holds.
 *
 * The first datagrams of a 4-tuple wait here, already in the pair's packet format (flow/udpbatch.h), until the core has
 * answered. After that, the datagrams that one batch of frames brings for a flow leave as one packet. DNS to the
 * resolver (or, with dns_any, to anybody's port 53) has no flow: it goes to the core as DATAGRAM. A datagram that finds
 * its way full is dropped, as a network would.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nat/front_priv.h"

/* Packets read from one pair in a turn, so that a fast sender does not keep the loop. */
#define READ_BATCH 4

struct sm_udp_flow {
    struct sm_front_flow base;
    uint64_t hash; /* of the 4-tuple, keyed: a bijection, so equal hashes are equal tuples */
    int64_t last_us;
    GList lru;
    GList asked;                  /* its place in front->udp_asked while its verdict is awaited */
    struct sm_front_batch *batch; /* with datagrams of this flow; NULL: none waits */
    uint8_t *held;                /* packet format; NULL when empty */
    uint32_t held_len;
    uint32_t held_count;
};

static struct sm_udp_flow *as_udp(struct sm_front_flow *flow)
{
    return (struct sm_udp_flow *)(void *)flow;
}

static uint64_t hash_of(const struct sm_front *front, uint32_t dst, uint16_t dst_port, uint16_t src_port)
{
    return sm_mix64(((uint64_t)dst << 32 | (uint32_t)src_port << 16 | dst_port) ^ front->tuple_secret);
}

/* The flow leaves ASKED, if it is in it. */
static void set_state(struct sm_udp_flow *u, enum sm_front_state state)
{
    if (u->base.state == SM_FRONT_ASKED)
        g_queue_unlink(&u->base.front->udp_asked, &u->asked);
    sm_front_set_state(&u->base, state);
}

static void drop_held(struct sm_udp_flow *u)
{
    u->base.front->udp_held -= u->held_len;
    g_free(u->held);
    u->held = NULL;
    u->held_len = u->held_count = 0;
}

static void flush_batch(struct sm_front_batch *batch);

/* The flow is over: nothing of it is left but its memory, which goes at the end of the turn. */
static void end_flow(struct sm_udp_flow *u)
{
    struct sm_front *front = u->base.front;

    if (u->base.state == SM_FRONT_CLOSING)
        return;
    if (u->batch)
        flush_batch(u->batch);
    if (u->base.state == SM_FRONT_CLOSING)
        return; /* the flush met a closed pair */
    drop_held(u);
    sm_front_forget(&u->base);
    g_hash_table_remove(front->tuples, &u->hash);
    g_queue_unlink(&front->lru, &u->lru);
    set_state(u, SM_FRONT_CLOSING);
    sm_front_bury(&u->base);
}

static void end_and_tell(struct sm_udp_flow *u, enum sm_flow_why why)
{
    uint64_t id = u->base.id;
    if (u->base.state == SM_FRONT_CLOSING)
        return;
    end_flow(u);
    sm_front_tell(u->base.front, SM_FLOW_GONE, id, why);
}

static void udp_end(struct sm_front_flow *flow, enum sm_flow_why why)
{
    end_and_tell(as_udp(flow), why);
}

static void touch(struct sm_udp_flow *u)
{
    struct sm_front *front = u->base.front;
    u->last_us = sm_front_now(front);
    if (front->lru.tail != &u->lru) {
        g_queue_unlink(&front->lru, &u->lru);
        g_queue_push_tail_link(&front->lru, &u->lru);
    }
}

/* ---- from the guest ---- */

static void hold_datagram(struct sm_udp_flow *u, const uint8_t *data, size_t len)
{
    struct sm_front *front = u->base.front;
    size_t need = SM_UDPBATCH_HEAD + len;

    if (u->held_count >= SM_FRONT_UDP_HELD_DATAGRAMS || need > SM_FRONT_UDP_HELD_BYTES - u->held_len ||
        need > SM_FRONT_UDP_HELD_TOTAL - front->udp_held) {
        front->stats.udp_dropped++;
        return;
    }
    u->held = g_realloc(u->held, u->held_len + need);
    struct sm_udpbatch one = sm_udpbatch_init(u->held + u->held_len, need);
    if (!sm_udpbatch_add(&one, data, len))
        return;
    u->held_len += (uint32_t)need;
    u->held_count++;
    front->udp_held += need;
}

/* One packet to the core's end of the pair. False when the flow has ended because that end is closed. */
static bool write_packet(struct sm_udp_flow *u, const void *packet, size_t len, unsigned count)
{
    ssize_t n;
    do {
        n = write(u->base.watch.fd, packet, len);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return true;
    u->base.front->stats.udp_dropped += count;
    if (errno == EAGAIN || errno == ENOBUFS || errno == EMSGSIZE || errno == ENOMEM)
        return true;
    end_and_tell(u, SM_WHY_CLOSED);
    return false;
}

static void flush_batch(struct sm_front_batch *batch)
{
    struct sm_udp_flow *u = as_udp(batch->flow);

    batch->flow = NULL;
    u->batch = NULL;
    (void)write_packet(u, batch->packet.w.p, batch->packet.w.len, batch->packet.count);
}

void sm_front_udp_flush(struct sm_front *front)
{
    for (size_t i = 0; i < SM_FRONT_UDP_BATCHES; i++)
        if (front->batches[i].flow)
            flush_batch(&front->batches[i]);
}

static struct sm_front_batch *new_batch(struct sm_udp_flow *u)
{
    struct sm_front *front = u->base.front;
    struct sm_front_batch *batch = &front->batches[front->next_batch];

    front->next_batch = (front->next_batch + 1) % SM_FRONT_UDP_BATCHES;
    if (batch->flow)
        flush_batch(batch);
    batch->flow = &u->base;
    batch->packet = sm_udpbatch_init(batch->buf, SM_FLOW_UDP_BATCH_MAX);
    u->batch = batch;
    return batch;
}

static void send_datagram(struct sm_udp_flow *u, const uint8_t *data, size_t len)
{
    if (u->batch && sm_udpbatch_add(&u->batch->packet, data, len))
        return;
    if (u->batch)
        flush_batch(u->batch);
    if (u->base.state != SM_FRONT_ATTACHED)
        return; /* the flush found this very flow's pair closed */
    if (!sm_udpbatch_add(&new_batch(u)->packet, data, len))
        u->base.front->stats.udp_dropped++;
}

static void send_dns(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len)
{
    if (len > SM_FLOW_DATA_MAX) {
        front->stats.udp_dropped++;
        return;
    }
    struct sm_flow_msg m = {.type = SM_FLOW_DATAGRAM,
                            .src = {.addr = sm_addr_from_u32(front->cfg.net.link.guest), .port = key->src_port},
                            .dst = {.addr = sm_addr_from_u32(key->dst), .port = key->dst_port},
                            .data = data,
                            .data_len = len};
    if (sm_channel_send(front->channel, &m, -1))
        front->stats.dns_in++;
}

bool sm_front_udp_evict(struct sm_front *front)
{
    struct sm_udp_flow *oldest = front->lru.head ? front->lru.head->data : NULL;
    if (!oldest || sm_front_now(front) - oldest->last_us < SM_FRONT_UDP_QUIET_US)
        return false;
    end_and_tell(oldest, SM_WHY_LIMIT);
    return true;
}

static const struct sm_front_flow_ops flow_ops;

static struct sm_udp_flow *flow_new(struct sm_front *front, const struct sm_hold_key *key, uint64_t hash)
{
    if (front->stats.udp_now >= SM_FRONT_UDP_MAX && !sm_front_udp_evict(front))
        return NULL;
    struct sm_udp_flow *u = g_new0(struct sm_udp_flow, 1);
    u->base.front = front;
    u->base.ops = &flow_ops;
    u->base.proto = SM_FRONT_UDP;
    u->base.link.data = u->base.defer.data = u->base.grave.data = &u->base;
    u->base.key = *key;
    sm_watch_init(&u->base.watch, -1, NULL);
    u->hash = hash;
    u->lru.data = u->asked.data = u;
    front->stats.udp_now++;
    if (!sm_front_ask(front, &u->base)) {
        sm_front_bury(&u->base);
        return NULL;
    }
    g_hash_table_insert(front->tuples, &u->hash, u);
    g_queue_push_tail_link(&front->lru, &u->lru);
    g_queue_push_tail_link(&front->udp_asked, &u->asked);
    sm_front_want_tick(front);
    return u;
}

void sm_front_udp_input(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len)
{
    if (key->dst_port == 53 && (front->cfg.net.dns_any || key->dst == front->cfg.net.link.resolver)) {
        send_dns(front, key, data, len);
        return;
    }
    uint64_t hash = hash_of(front, key->dst, key->dst_port, key->src_port);
    struct sm_udp_flow *u = g_hash_table_lookup(front->tuples, &hash);
    if (!u) {
        enum sm_flow_how how;
        if (sm_front_held(front, key, &how)) {
            front->side->udp_refuse(front, key, how);
            return;
        }
        u = sm_front_may_ask(front) ? flow_new(front, key, hash) : NULL;
        if (!u) {
            front->stats.opens_dropped++;
            return;
        }
    }
    touch(u);
    if (u->base.state == SM_FRONT_ATTACHED)
        send_datagram(u, data, len);
    else
        hold_datagram(u, data, len);
}

/* ---- from the core ---- */

static void push_run(struct sm_front *front, const struct sm_hold_key *key, struct sm_dgrams_run run)
{
    struct iovec data;
    bool more;

    if (run.len > run.size && front->side->udp_push_run && front->side->udp_push_run(front, key, &run))
        return;
    do {
        more = sm_dgrams_run_take(&run, &data);
        if (!front->side->udp_push(front, key, data.iov_base, data.iov_len))
            front->stats.udp_dropped++;
    } while (more);
}

static void udp_run(struct sm_front_flow *flow)
{
    struct sm_udp_flow *u = as_udp(flow);
    struct sm_front *front = flow->front;

    for (int i = 0; i < READ_BATCH && flow->state == SM_FRONT_ATTACHED; i++) {
        if (front->side->congested(front)) {
            /* Level-triggered: it must not be watched while it waits. */
            sm_loop_unwatch(front->loop, &flow->watch);
            sm_front_stall(flow);
            return;
        }
        ssize_t n;
        do {
            n = read(flow->watch.fd, front->read_buf, SM_FLOW_UDP_BATCH_MAX);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            end_and_tell(u, SM_WHY_CLOSED);
            return;
        }
        struct sm_rd r = sm_rd_init(front->read_buf, (size_t)n);
        struct sm_dgrams_run run;
        unsigned count = 0;
        while (sm_udpbatch_next(&r, &count, &run))
            push_run(front, &flow->key, run);
        if (r.bad) {
            end_and_tell(u, SM_WHY_LIMIT);
            return;
        }
        touch(u);
    }
    if (flow->state == SM_FRONT_ATTACHED && sm_loop_watch(front->loop, &flow->watch, EPOLLIN) < 0)
        end_and_tell(u, SM_WHY_LIMIT);
}

static void on_fd(struct sm_watch *watch, uint32_t events)
{
    udp_run(sm_container_of(watch, struct sm_front_flow, watch));
}

static void attach(struct sm_udp_flow *u, int *fd)
{
    struct sm_front *front = u->base.front;

    sm_watch_init(&u->base.watch, sm_steal_fd(fd), on_fd);
    set_state(u, SM_FRONT_ATTACHED);
    front->stats.attached++;
    if (sm_loop_watch(front->loop, &u->base.watch, EPOLLIN) < 0) {
        end_and_tell(u, SM_WHY_LIMIT);
        return;
    }
    if (u->held_len > 0 && !write_packet(u, u->held, u->held_len, u->held_count))
        return;
    drop_held(u);
}

static void udp_message(struct sm_front_flow *flow, const struct sm_flow_msg *msg, int *fd)
{
    struct sm_udp_flow *u = as_udp(flow);
    struct sm_front *front = flow->front;

    switch (msg->type) {
    case SM_FLOW_REFUSE:
        end_flow(u);
        front->side->udp_refuse(front, &flow->key, msg->how);
        break;
    case SM_FLOW_ACCEPT:
        break; /* UDP has no handshake to complete */
    case SM_FLOW_ATTACH:
        if (flow->state == SM_FRONT_ASKED)
            attach(u, fd);
        break;
    case SM_FLOW_ABORT:
        end_flow(u);
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_INBOUND:
    case SM_FLOW_DATAGRAM:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_RELEASE:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        sm_front_fail(front, "the core sent a message that only a front may send");
        break;
    }
}

void sm_front_udp_datagram(struct sm_front *front, const struct sm_flow_msg *msg)
{
    if (msg->src.addr.family != SM_FAMILY_V4 || msg->dst.addr.family != SM_FAMILY_V4 ||
        sm_addr_to_u32(&msg->src.addr) != front->cfg.net.link.guest)
        return;
    struct sm_hold_key key = {.dst = sm_addr_to_u32(&msg->dst.addr),
                              .dst_port = msg->dst.port,
                              .src_port = msg->src.port,
                              .proto = SM_FLOW_UDP};
    if (front->side->udp_push(front, &key, msg->data, msg->data_len))
        front->stats.dns_out++;
}

void sm_front_udp_expire(struct sm_front *front, int64_t now_us)
{
    /* SM_FRONT_ASKED_MAX of them at most. Attached ones are the core's to end. */
    GList *next;
    for (GList *l = front->udp_asked.head; l; l = next) {
        struct sm_udp_flow *u = l->data;
        next = l->next;
        if (now_us - u->last_us >= SM_FRONT_ASKED_US)
            end_and_tell(u, SM_WHY_TIMEOUT);
    }
}

/* Its verdict is awaited. */
static bool udp_holds(const struct sm_front_flow *flow)
{
    return flow->state == SM_FRONT_ASKED;
}

static void udp_free(struct sm_front_flow *flow)
{
    struct sm_udp_flow *u = as_udp(flow);
    drop_held(u);
    flow->front->stats.udp_now--;
    g_free(u);
}

static const struct sm_front_flow_ops flow_ops = {
    .message = udp_message,
    .run = udp_run,
    .end = udp_end,
    .holds = udp_holds,
    .undelivered = udp_holds,
    .free = udp_free,
};
