/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The side of a front that has a network card: frames in through the guard, to libslirp or to one of the small answerers,
 * and frames out. See front.h.
 */
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "nat/front_priv.h"

/* Batches of frames that are read at once when the end is asked for: a device's queue is 500 frames long. */
#define FINISH_READS 64
/* Of the memory of a frame that is read: a line of the cache, and more than libslirp asks for. */
#define FRAME_ALIGN 64

void sm_front_emit(struct sm_front *front, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct sm_frame_out out = {.iov = &iov, .n_iov = 1};
    if (sm_port_send(front->stack->port, &out) < 0)
        sm_front_fail(front, "the guest's network device is gone");
}

void sm_front_defer(struct sm_front_flow *flow)
{
    if (flow->deferred)
        return;
    flow->deferred = true;
    g_queue_push_tail_link(&flow->front->stack->deferred, &flow->defer);
}

/* ---- frames ---- */

/*
 * A whole datagram behind a plain header, whose own sum nobody need look at: it goes past libslirp, which would copy it
 * and find in it what the guard has found. The guard does not sum the IP header. Anything else takes the long way, and
 * is dropped or answered there.
 */
static bool plain_datagram(struct sm_front *front, const struct sm_frame *frame, const struct sm_guard_verdict *v)
{
    if (v->proto != SM_IPPROTO_UDP || !v->csum_ok || v->l4 != SM_ETH_HLEN + SM_IP_HLEN)
        return false;
    const uint8_t *ip = frame->data + SM_ETH_HLEN;
    struct sm_rd r = sm_rd_init(ip, v->frame_len - SM_ETH_HLEN);
    sm_rd_skip(&r, 6);
    uint16_t frag = sm_rd_u16(&r);
    uint8_t ttl = sm_rd_u8(&r);
    sm_rd_skip(&r, 1 + 2 + 4);
    struct sm_hold_key key = {.dst = sm_rd_u32(&r), .proto = SM_FLOW_UDP};
    key.src_port = sm_rd_u16(&r);
    key.dst_port = sm_rd_u16(&r);
    size_t len = sm_rd_u16(&r);
    sm_rd_skip(&r, 2);
    if (r.bad || len < SM_UDP_HLEN || (frag & ~SM_IP_DF) || ttl == 0 ||
        sm_csum_fold(sm_csum_add(0, ip, SM_IP_HLEN)) != 0)
        return false;
    const uint8_t *data = sm_rd_take(&r, len - SM_UDP_HLEN);
    if (!data)
        return false;
    sm_front_udp_input(front, &key, data, len - SM_UDP_HLEN);
    return true;
}

static void one_frame(struct sm_front *front, const struct sm_frame *frame, bool ours)
{
    int64_t now_us = sm_front_now(front);
    struct sm_guard_verdict v = sm_guard_judge(&front->stack->guard, frame, now_us);
    size_t n = 0;

    switch (v.action) {
    case SM_GUARD_DROP:
        break;
    case SM_GUARD_REPORT:
        sm_front_other(front, v.other, v.proto, &v.dst);
        break;
    case SM_GUARD_PASS_IP:
        if (plain_datagram(front, frame, &v))
            break;
        if (ours)
            slirp_flow_input_lent(front->stack->slirp, frame->data, v.frame_len, v.csum_ok);
        else if (v.csum_ok)
            slirp_flow_input_trusted(front->stack->slirp, frame->data, v.frame_len);
        else
            slirp_flow_input(front->stack->slirp, frame->data, v.frame_len);
        break;
    case SM_GUARD_PASS_ARP:
        n = sm_arp_answer(&front->cfg.net.link, frame->data, v.frame_len, front->read_buf);
        break;
    case SM_GUARD_PASS_DHCP:
        n = sm_dhcp_answer(&front->stack->dhcp, frame->data + v.l4, v.frame_len - v.l4, NULL, front->read_buf);
        break;
    case SM_GUARD_PASS_ECHO:
        n = sm_echo_answer(&front->stack->echo, &front->cfg.net.link, frame->data, v.frame_len, now_us, front->read_buf,
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
    uint32_t tx = front->stack->port->tx_offloads;

    front->stack->guard.offloads = front->stack->port->rx_offloads;
    if (tx == front->stack->tx_offloads)
        return;
    front->stack->tx_offloads = tx;
    slirp_flow_set_offload(front->stack->slirp, (tx & SM_OFFLOAD_NEEDS_CSUM ? SLIRP_FLOW_OFFLOAD_CSUM : 0) |
                                                    (tx & SM_OFFLOAD_GSO(SM_GSO_TCPV4) ? SLIRP_FLOW_OFFLOAD_TSO : 0) |
                                                    (tx & SM_OFFLOAD_GSO(SM_GSO_UDPV4) ? SLIRP_FLOW_OFFLOAD_USO : 0));
}

/* ours: they are those of the stack, with the room in front that libslirp works in. */
static void input(struct sm_front *front, const struct sm_frame *frames, unsigned n, bool ours)
{
    front->stack->in_batch = n > 1;
    heed_offloads(front);
    slirp_flow_begin(front->stack->slirp);
    for (unsigned i = 0; i < n && !front->dead; i++)
        one_frame(front, &frames[i], ours);
    front->stack->in_batch = false;
    while (front->stack->deferred.head) {
        struct sm_front_flow *flow = front->stack->deferred.head->data;
        flow->deferred = false;
        g_queue_unlink(&front->stack->deferred, &flow->defer);
        sm_front_tcp_flush(flow);
    }
    slirp_flow_end(front->stack->slirp);
    sm_front_udp_flush(front);
}

void sm_front_input(struct sm_front *front, const struct sm_frame *frames, unsigned n)
{
    input(front, frames, n, false);
}

static void watch_port(struct sm_front *front)
{
    unsigned want =
        (front->reading ? SM_PORT_READABLE : 0u) | (sm_port_waiting(front->stack->port) ? SM_PORT_WRITABLE : 0u);
    if (sm_port_want(front->stack->port, want) < 0)
        sm_front_fail(front, "the guest's network device cannot be watched");
}

static void on_port(void *data, unsigned ready)
{
    struct sm_front *front = data;

    if ((ready & SM_PORT_WRITABLE) && sm_port_waiting(front->stack->port) && sm_port_flush(front->stack->port) < 0) {
        sm_front_fail(front, "the guest's network device is gone");
        return;
    }
    if (!front->reading || !(ready & SM_PORT_READABLE))
        return;
    int n = sm_port_read(front->stack->port, front->stack->frames, SM_PORT_BATCH);
    if (n < 0) {
        sm_front_fail(front, "the guest's network device is gone");
        return;
    }
    input(front, front->stack->frames, (unsigned)n, true);
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
                                          .gso_type = meta->gso_size == 0                ? SM_GSO_NONE
                                                      : meta->csum_offset == SM_UDP_CSUM ? SM_GSO_UDPV4
                                                                                         : SM_GSO_TCPV4,
                                          .gso_size = meta->gso_size,
                                          .hdr_len = meta->hdr_len,
                                          .csum_start = meta->csum_start,
                                          .csum_offset = meta->csum_offset};
    if (sm_port_send(front->stack->port, &out) < 0)
        sm_front_fail(front, "the guest's network device is gone");
}
_Static_assert(SLIRP_FLOW_IOV_MAX <= SM_PORT_IOV_MAX, "what libslirp gathers, a port takes");

static void stack_other(uint8_t proto, struct in_addr src, struct in_addr dst, void *opaque)
{
    struct sm_addr a = sm_addr_from_in(dst);
    sm_front_other(opaque, proto == SM_IPPROTO_ICMP ? SM_OTHER_ICMP : SM_OTHER_PROTO, proto, &a);
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

static void stack_udp_input(const SlirpFlowAddr *addr, const uint8_t *data, size_t len, void *opaque)
{
    struct sm_hold_key key = {.dst = ntohl(addr->peer.s_addr),
                              .dst_port = addr->peer_port,
                              .src_port = addr->guest_port,
                              .proto = SM_FLOW_UDP};
    sm_front_udp_input(opaque, &key, data, len);
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
    .udp_input = stack_udp_input,
    .other = stack_other,
};

static void on_stack_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_front_stack *stack = sm_container_of(timer, struct sm_front_stack, timer);
    (void)slirp_flow_timer(stack->slirp);
}

/* ---- the side ---- */

static SlirpFlowAddr addr_of(const struct sm_front *front, const struct sm_hold_key *key)
{
    return (SlirpFlowAddr){.guest = sm_front_in(front->cfg.net.link.guest),
                           .peer = sm_front_in(key->dst),
                           .guest_port = key->src_port,
                           .peer_port = key->dst_port};
}

static bool side_udp_push(struct sm_front *front, const struct sm_hold_key *key, const uint8_t *data, size_t len)
{
    SlirpFlowAddr addr = addr_of(front, key);
    return slirp_flow_udp_push(front->stack->slirp, &addr, data, len);
}

static bool side_udp_push_run(struct sm_front *front, const struct sm_hold_key *key, const struct sm_dgrams_run *run)
{
    SlirpFlowAddr addr = addr_of(front, key);
    return slirp_flow_udp_push_run(front->stack->slirp, &addr, run->data, run->len, run->size);
}

static void side_udp_refuse(struct sm_front *front, const struct sm_hold_key *key, enum sm_flow_how how)
{
    SlirpFlowAddr addr = addr_of(front, key);
    int code = sm_flow_how_icmp_code(how);
    if (code >= 0)
        slirp_flow_udp_unreach(front->stack->slirp, &addr, (uint8_t)code);
}

static bool side_congested(const struct sm_front *front)
{
    return sm_port_congested(front->stack->port);
}

static void side_turn(struct sm_front *front)
{
    heed_offloads(front);
    sm_front_tell_faults(front, front->stack->port, &front->stack->faults_told);
}

static void side_turn_end(struct sm_front *front)
{
    struct sm_front_stack *stack = front->stack;

    watch_port(front);
    int ms = slirp_flow_timeout(stack->slirp);
    if (ms >= 0)
        sm_loop_arm(front->loop, &stack->timer, sm_loop_now(front->loop) + (int64_t)ms * 1000);
    else
        sm_loop_disarm(front->loop, &stack->timer);
}

static void side_tick(struct sm_front *front)
{
    (void)slirp_flow_timer(front->stack->slirp);
}

static void side_finish(struct sm_front *front)
{
    struct sm_front_stack *stack = front->stack;

    for (int i = 0; i < FINISH_READS && front->reading && !front->dead; i++) {
        int n = sm_port_read(stack->port, stack->frames, SM_PORT_BATCH);
        if (n > 0)
            input(front, stack->frames, (unsigned)n, true);
        if (n <= 0) /* a stream brings what one read(2) brought, a batch or not */
            break;
    }
}

static void side_stop(struct sm_front *front)
{
    if (front->stack->slirp)
        slirp_flow_free(front->stack->slirp);
}

static void side_free(struct sm_front *front)
{
    struct sm_front_stack *stack = front->stack;

    sm_loop_disarm(front->loop, &stack->timer);
    sm_port_free(stack->port);
    g_free(stack->frame_buf);
    g_free(stack);
}

static const struct sm_front_side side = {
    .turn = side_turn,
    .turn_end = side_turn_end,
    .congested = side_congested,
    .tick = side_tick,
    .finish = side_finish,
    .inbound = sm_front_tcp_inbound,
    .udp_push = side_udp_push,
    .udp_push_run = side_udp_push_run,
    .udp_refuse = side_udp_refuse,
    .stop = side_stop,
    .free = side_free,
};

struct sm_front *sm_front_new(struct sm_loop *loop, const struct sm_front_config *cfg, struct sm_port *port,
                              int channel_fd, void (*failed)(const char *text, void *data), void *data, GError **error)
{
    const struct sm_link *link = &cfg->net.link;
    struct sm_front *front = sm_front_new_hub(loop, cfg, &side, channel_fd, failed, data);
    struct sm_front_stack *stack = g_new0(struct sm_front_stack, 1);

    front->stack = stack;
    stack->port = port;
    sm_timer_init(&stack->timer, on_stack_timer);
    sm_port_start(port, loop, on_port, front);
    g_queue_init(&stack->deferred);

    sm_guard_init(&stack->guard, link, port->rx_offloads);
    stack->dhcp.link = *link;
    g_strlcpy(stack->dhcp.hostname, cfg->net.hostname, sizeof(stack->dhcp.hostname));

    size_t cap = port->max_frame + 1;
    size_t each = (SLIRP_FLOW_HEADROOM + cap + FRAME_ALIGN - 1) / FRAME_ALIGN * FRAME_ALIGN;
    stack->frame_buf = g_malloc(each * SM_PORT_BATCH);
    for (size_t i = 0; i < SM_PORT_BATCH; i++)
        stack->frames[i] = (struct sm_frame){.data = stack->frame_buf + i * each + SLIRP_FLOW_HEADROOM, .cap = cap};

    SlirpFlowConfig sc = {.gateway = sm_front_in(link->gateway),
                          .resolver = sm_front_in(link->resolver),
                          .guest = sm_front_in(link->guest),
                          .mtu = link->mtu,
                          .max_flows = SM_FRONT_TCP_MAX};
    memcpy(sc.gateway_mac, link->our_mac, SM_ETH_ALEN);
    memcpy(sc.guest_mac, link->guest_mac, SM_ETH_ALEN);
    memcpy(sc.secret, cfg->secret, sizeof(sc.secret));
    stack->slirp = slirp_flow_new(&sc, &stack_ops, front);
    if (!stack->slirp) {
        sm_error_set(error, SM_ERROR_INVALID, "front: the network stack refuses its configuration");
        sm_front_free(front);
        return NULL;
    }
    heed_offloads(front);
    watch_port(front);
    return front;
}
