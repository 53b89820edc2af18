/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A whole front in one process: the test is the guest (frames on a SEQPACKET pair behind a tap port) and the core (the
 * other end of the channel). Everything runs in turns of one loop; what is waited for is an event with a deadline,
 * never a time.
 */
#ifndef SM_TESTS_NAT_HARNESS_H
#define SM_TESTS_NAT_HARNESS_H

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "flow/msg.h"
#include "frames.h"
#include "nat/front.h"
#include "ports/ports.h"
#include "ports/vnet_hdr.h"

#define DEADLINE_US (10 * INT64_C(1000000))

struct h {
    struct sm_loop *loop;
    struct sm_front *front;
    struct sm_port *port;
    int guest;                    /* frames */
    int core;                     /* messages */
    struct sm_flow_packet packet; /* what is left of a packet of many, */
    uint8_t many[SM_FLOW_MSG_MAX];
    bool vnet; /* a virtio-net header before each frame */
    const char *failed;
    int64_t frozen_us; /* if set, the clock stands here */
    int64_t skew_us;   /* added to the clock */
};

/* One frame that the guest got, taken apart. */
struct rx {
    uint8_t head[SM_VNET_HLEN];
    uint8_t raw[66000];
    size_t len;
    uint8_t proto;
    uint32_t src;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint16_t window;
    uint8_t flags;
    uint8_t icmp_type, icmp_code;
    const uint8_t *data;
    size_t data_len;
};

/* One message that the core got. */
struct mx {
    struct sm_flow_msg m;
    uint8_t raw[SM_FLOW_MSG_MAX];
};

static inline void h_failed(const char *text, void *data)
{
    struct h *h = data;
    h->failed = text;
}

static inline int64_t h_clock(void *data)
{
    struct h *h = data;
    return (h->frozen_us ? h->frozen_us : sm_loop_now(h->loop)) + h->skew_us;
}

static inline struct h *h_new_kind(bool dns_any, unsigned max_live, bool vnet)
{
    struct h *h = g_new0(struct h, 1);
    int tap[2], channel[2];
    GError *error = NULL;
    struct sm_front_config cfg = {.net = {.link = test_link, .dns_any = dns_any, .workspace = "test"},
                                  .max_live = max_live,
                                  .clock_us = h_clock,
                                  .clock_data = h};

    (void)signal(SIGPIPE, SIG_IGN); /* as the sandbox does */
    memset(cfg.secret, 7, sizeof(cfg.secret));
    assert_int_equal(sm_fd_seqpair(tap, true), 0);
    assert_int_equal(sm_fd_seqpair(channel, true), 0);
    h->loop = sm_loop_new(&error);
    assert_non_null(h->loop);
    h->vnet = vnet;
    h->port = (vnet ? sm_port_tap_vnet_new : sm_port_tap_new)(tap[0], test_link.mtu, NULL);
    h->front = sm_front_new(h->loop, &cfg, h->port, channel[0], h_failed, h, &error);
    assert_non_null(h->front);
    h->guest = tap[1];
    h->core = channel[1];
    return h;
}

static inline struct h *h_new_with(bool dns_any, unsigned max_live)
{
    return h_new_kind(dns_any, max_live, false);
}

static inline struct h *h_new(void)
{
    return h_new_with(false, 0);
}

static inline void h_free(struct h *h)
{
    sm_front_free(h->front);
    sm_loop_free(h->loop);
    sm_fd_close(&h->guest);
    sm_fd_close(&h->core);
    g_free(h);
}

static inline void h_turn(struct h *h, int ms)
{
    assert_int_equal(sm_loop_turn(h->loop, ms), 0);
}

/* Turns until nothing more happens at once. */
static inline void h_settle(struct h *h)
{
    for (int i = 0; i < 8; i++)
        h_turn(h, 0);
}

static inline void guest_send_with(struct h *h, const uint8_t head[SM_VNET_HLEN], const struct buf *b)
{
    size_t head_len = h->vnet ? SM_VNET_HLEN : 0;
    struct iovec iov[2] = {{(void *)(uintptr_t)head, head_len}, {(void *)(uintptr_t)b->data, b->len}};
    ssize_t n;
    while ((n = writev(h->guest, iov, 2)) < 0 && errno == EAGAIN)
        h_turn(h, 0);
    assert_int_equal(n, head_len + b->len);
}

static inline void guest_send(struct h *h, const struct buf *b)
{
    static const uint8_t nothing[SM_VNET_HLEN];
    guest_send_with(h, nothing, b);
}

static inline bool guest_poll(struct h *h, struct rx *rx)
{
    size_t head = h->vnet ? SM_VNET_HLEN : 0;
    struct iovec iov[2] = {{rx->head, head}, {rx->raw, sizeof(rx->raw)}};
    ssize_t n = readv(h->guest, iov, 2);
    if (n < 0)
        return false;
    assert_true((size_t)n > head);
    rx->len = (size_t)n - head;
    struct sm_rd r = sm_rd_init(rx->raw, rx->len);
    sm_rd_skip(&r, SM_ETH_HLEN);
    sm_rd_skip(&r, 2);
    size_t total = sm_rd_u16(&r);
    sm_rd_skip(&r, 5);
    rx->proto = sm_rd_u8(&r);
    sm_rd_skip(&r, 2);
    rx->src = sm_rd_u32(&r);
    sm_rd_skip(&r, 4);
    rx->sport = rx->dport = 0;
    struct sm_rd l4 = sm_rd_sub(&r, total - SM_IP_HLEN);
    if (rx->raw[12] == 8 && rx->raw[13] == 6) {
        rx->proto = 0;
        return true;
    }
    assert_false(l4.bad);
    if (rx->proto == SM_IPPROTO_TCP) {
        if (!h->vnet || !(rx->head[0] & 1))
            assert_int_equal(transport_sum(rx->src, test_link.guest, SM_IPPROTO_TCP, l4.p, l4.len), 0);
        rx->sport = sm_rd_u16(&l4);
        rx->dport = sm_rd_u16(&l4);
        rx->seq = sm_rd_u32(&l4);
        rx->ack = sm_rd_u32(&l4);
        size_t header = (size_t)(sm_rd_u8(&l4) >> 4) * 4;
        rx->flags = sm_rd_u8(&l4);
        rx->window = sm_rd_u16(&l4);
        sm_rd_skip(&l4, header - 16);
    } else if (rx->proto == SM_IPPROTO_UDP) {
        rx->sport = sm_rd_u16(&l4);
        rx->dport = sm_rd_u16(&l4);
        sm_rd_skip(&l4, 4);
    } else if (rx->proto == SM_IPPROTO_ICMP) {
        rx->icmp_type = sm_rd_u8(&l4);
        rx->icmp_code = sm_rd_u8(&l4);
    }
    rx->data_len = sm_rd_left(&l4);
    rx->data = sm_rd_take(&l4, rx->data_len);
    assert_false(l4.bad);
    return true;
}

static inline void guest_recv(struct h *h, struct rx *rx)
{
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (!guest_poll(h, rx)) {
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
}

static inline bool core_poll(struct h *h, struct mx *mx)
{
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;
    if (sm_flow_packet_next(&h->packet, &mx->m))
        return true; /* another one of the last packet's */
    assert_false(h->packet.bad);
    ssize_t n = sm_fd_recv(h->core, mx->raw, sizeof(mx->raw), fds, &n_fds);
    if (n < 0 && errno == EAGAIN)
        return false;
    assert_true(n > 0);
    assert_int_equal(n_fds, 0); /* the front never sends a descriptor */
    if (mx->raw[0] != SM_FLOW_PACKET_MANY) {
        assert_true(sm_flow_decode(mx->raw, (size_t)n, &mx->m));
        return true;
    }
    memcpy(h->many, mx->raw, (size_t)n);
    h->packet = sm_flow_packet_init(h->many, (size_t)n);
    assert_true(sm_flow_packet_next(&h->packet, &mx->m));
    return true;
}

static inline void core_expect(struct h *h, enum sm_flow_type type, struct mx *mx)
{
    int64_t until = sm_clock_us() + DEADLINE_US;
    while (!core_poll(h, mx)) {
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
    assert_string_equal(sm_flow_type_name(mx->m.type), sm_flow_type_name(type));
}

static inline void core_expect_nothing(struct h *h)
{
    static struct mx mx;
    h_settle(h);
    if (core_poll(h, &mx))
        assert_string_equal("nothing", sm_flow_type_name(mx.m.type));
}

static inline void core_send_fd(struct h *h, const struct sm_flow_msg *m, int fd)
{
    uint8_t raw[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, raw, sizeof(raw));
    assert_true(len > 0);
    assert_int_equal(sm_fd_send(h->core, raw, len, &fd, fd >= 0 ? 1 : 0), len);
    if (fd >= 0)
        (void)close(fd);
    h_settle(h);
}

static inline void core_send(struct h *h, const struct sm_flow_msg *m)
{
    core_send_fd(h, m, -1);
}

static inline void core_refuse(struct h *h, uint64_t id, enum sm_flow_how how, enum sm_flow_scope scope,
                               uint32_t hold_ms)
{
    core_send(h,
              &(struct sm_flow_msg){.type = SM_FLOW_REFUSE, .id = id, .how = how, .scope = scope, .hold_ms = hold_ms});
}

/* Attach one end of a new pair and give back the other, non-blocking; the acknowledgement is waited for. */
static inline int core_attach(struct h *h, uint64_t id, uint32_t consumed, int type)
{
    static struct mx mx;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    core_send_fd(h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = id, .consumed = consumed}, pair[0]);
    core_expect(h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(mx.m.id, id);
    return pair[1];
}

/* Exactly this many bytes from an upstream end. */
static inline void upstream_expect(struct h *h, int fd, const void *want, size_t len)
{
    int64_t until = sm_clock_us() + DEADLINE_US;
    uint8_t *got = g_malloc(len + 1);
    size_t have = 0;
    while (have < len) {
        ssize_t n = read(fd, got + have, len - have);
        if (n > 0) {
            have += (size_t)n;
            continue;
        }
        assert_true(n < 0 && errno == EAGAIN);
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
    assert_memory_equal(got, want, len);
    g_free(got);
}

/* The end of an upstream end: 0, or -1 with errno. */
static inline ssize_t upstream_end(struct h *h, int fd)
{
    int64_t until = sm_clock_us() + DEADLINE_US;
    char c;
    ssize_t n;
    while ((n = read(fd, &c, 1)) < 0 && errno == EAGAIN) {
        assert_true(sm_clock_us() < until);
        h_turn(h, 20);
    }
    return n;
}

/* The guest's side of one TCP connection. */
struct conn {
    struct h *h;
    uint32_t dst;
    uint16_t sport, dport;
    uint32_t snd, rcv;
    uint64_t id;
};

static inline void conn_send(struct conn *c, uint8_t flags, const void *data, size_t len)
{
    static struct buf b;
    tcp_frame(&b, test_link.guest, c->dst, c->sport, c->dport, c->snd, flags & TCP_ACK ? c->rcv : 0, flags, data, len);
    guest_send(c->h, &b);
    c->snd += (uint32_t)len + (flags & (TCP_SYN | TCP_FIN) ? 1 : 0);
    h_settle(c->h);
}

/* The next TCP segment of this connection that has one of these flags or data. */
static inline void conn_recv(struct conn *c, struct rx *rx)
{
    do
        guest_recv(c->h, rx);
    while (rx->proto != SM_IPPROTO_TCP || rx->dport != c->sport || rx->sport != c->dport);
}

/* SYN, and the question that it makes. */
static inline struct conn conn_ask(struct h *h, uint32_t dst, uint16_t sport, uint16_t dport)
{
    static struct mx mx;
    struct conn c = {.h = h, .dst = dst, .sport = sport, .dport = dport, .snd = 1000000};
    conn_send(&c, TCP_SYN, NULL, 0);
    core_expect(h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_TCP);
    assert_int_equal(sm_addr_to_u32(&mx.m.src.addr), test_link.guest);
    assert_int_equal(mx.m.src.port, sport);
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), dst);
    assert_int_equal(mx.m.dst.port, dport);
    c.id = mx.m.id;
    return c;
}

/* ... accepted, and the handshake done. */
static inline struct conn conn_open(struct h *h, uint32_t dst, uint16_t sport, uint16_t dport)
{
    static struct rx rx;
    struct conn c = conn_ask(h, dst, sport, dport);
    core_send(h, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = c.id});
    conn_recv(&c, &rx);
    assert_int_equal(rx.flags, TCP_SYN | TCP_ACK);
    assert_int_equal(rx.ack, c.snd);
    c.rcv = rx.seq + 1;
    conn_send(&c, TCP_ACK, NULL, 0);
    return c;
}

/* Bytes from upstream as the guest gets them, acknowledged as they come. */
static inline void conn_expect(struct conn *c, const void *want, size_t len)
{
    static struct rx rx;
    const uint8_t *p = want;
    while (len > 0) {
        conn_recv(c, &rx);
        assert_int_equal(rx.flags & (TCP_RST | TCP_SYN), 0);
        if (rx.data_len == 0 || rx.seq != c->rcv)
            continue;
        assert_true(rx.data_len <= len);
        assert_memory_equal(rx.data, p, rx.data_len);
        p += rx.data_len;
        len -= rx.data_len;
        c->rcv += (uint32_t)rx.data_len;
        conn_send(c, TCP_ACK, NULL, 0);
    }
}

/* A segment with this flag. */
static inline void conn_expect_flag(struct conn *c, uint8_t flag)
{
    static struct rx rx;
    do
        conn_recv(c, &rx);
    while (!(rx.flags & flag));
    if (flag == TCP_FIN)
        c->rcv = rx.seq + (uint32_t)rx.data_len + 1;
}

static inline void gone_expect(struct h *h, uint64_t id, enum sm_flow_why why)
{
    static struct mx mx;
    core_expect(h, SM_FLOW_GONE, &mx);
    assert_int_equal(mx.m.id, id);
    assert_string_equal(sm_flow_why_name(mx.m.why), sm_flow_why_name(why));
}

static inline struct sm_front_stats h_stats(struct h *h)
{
    struct sm_front_stats s;
    sm_front_stats(h->front, &s);
    return s;
}

static inline int h_setup(void **state)
{
    *state = h_new();
    return 0;
}

static inline int h_teardown(void **state)
{
    struct h *h = *state;
    assert_null(h->failed);
    h_free(h);
    return 0;
}

#endif
