/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front of the kernel path: the test is the kernel of the mediator's namespace, with sockets of its own in the
 * bundle's places, the keeper, and the core. TCP is test_sock.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness.h"
#include "nat/dhcp.h"
#include "nat/tproxy.h"
#include "flow/udpbatch.h"

#include <netinet/in.h>

struct t {
    struct h h;
    struct sm_link link;
    int keeper;
    int frames, raw, runs; /* the other ends */
    int sender;            /* the guest's datagrams; from 127.0.0.1 */
    struct sockaddr_in datagrams;
};

/* A loopback socket of that type, on any port. */
static int bound(int type, struct sockaddr_in *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(*ret);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
    return fd;
}

static struct sm_front *front_of(struct t *t, char hello, size_t n_fds, GError **error)
{
    struct sockaddr_in unused;
    int channel[2], keeper[2], frames[2], raw[2], runs[2], on = 1;
    struct sm_front_config cfg = {
        .net = {.link = t->link, .workspace = "test", .hostname = "ws"}, .clock_us = h_clock, .clock_data = &t->h};

    assert_int_equal(sm_fd_seqpair(channel, true), 0);
    assert_int_equal(sm_fd_seqpair(keeper, true), 0);
    assert_int_equal(sm_fd_seqpair(frames, true), 0);
    assert_int_equal(sm_fd_seqpair(raw, true), 0);
    assert_int_equal(sm_fd_seqpair(runs, true), 0);
    t->h.core = channel[1];
    t->keeper = keeper[1];
    t->frames = frames[1];
    t->raw = raw[1];
    t->runs = runs[1];
    int listener = bound(SOCK_STREAM, &unused), datagram = bound(SOCK_DGRAM, &t->datagrams);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(setsockopt(datagram, IPPROTO_IP, IP_RECVORIGDSTADDR, &on, sizeof(on)), 0);
    sm_dgrams_gather(datagram);
    int fds[SM_TPROXY_FDS] = {listener, datagram, raw[0], frames[0], runs[0]};
    assert_int_equal(sm_fd_send(keeper[1], &hello, 1, fds, n_fds), 1);
    for (size_t i = 0; i < SM_TPROXY_FDS; i++)
        (void)close(fds[i]);
    return sm_front_new_tproxy(t->h.loop, &cfg, keeper[0], channel[0], h_failed, &t->h, error);
}

static struct t *t_new(uint32_t guest)
{
    struct t *t = g_new0(struct t, 1);
    GError *error = NULL;
    struct sockaddr_in unused;

    (void)signal(SIGPIPE, SIG_IGN); /* as the sandbox does */
    t->link = test_link;
    t->link.guest = guest;
    t->h.guest = -1;
    t->h.loop = sm_loop_new(&error);
    assert_non_null(t->h.loop);
    t->h.front = front_of(t, SM_TPROXY_HELLO, SM_TPROXY_FDS, &error);
    assert_non_null(t->h.front);
    t->sender = bound(SOCK_DGRAM, &unused);
    return t;
}

/* A guest of the address that the test's datagrams come from, or one of the frames'. */
static int setup_datagrams(void **state)
{
    *state = t_new(INADDR_LOOPBACK);
    return 0;
}

static int setup_frames(void **state)
{
    *state = t_new(test_link.guest);
    return 0;
}

static int teardown(void **state)
{
    struct t *t = *state;
    sm_front_free(t->h.front);
    sm_loop_free(t->h.loop);
    sm_fd_close(&t->h.core);
    sm_fd_close(&t->keeper);
    sm_fd_close(&t->frames);
    sm_fd_close(&t->raw);
    sm_fd_close(&t->runs);
    sm_fd_close(&t->sender);
    g_free(t);
    return 0;
}

static void frame(struct t *t, const struct buf *b)
{
    assert_int_equal(write(t->frames, b->data, b->len), b->len);
}

static size_t expect(struct t *t, int fd, uint8_t *buf, size_t cap)
{
    int64_t until = sm_clock_us() + DEADLINE_US;
    ssize_t n;

    while ((n = read(fd, buf, cap)) < 0 && errno == EAGAIN) {
        assert_true(sm_clock_us() < until);
        h_turn(&t->h, 20);
    }
    assert_true(n > 0);
    return (size_t)n;
}

static void expect_nothing(struct t *t, int fd)
{
    uint8_t c;
    h_settle(&t->h);
    assert_true(read(fd, &c, 1) < 0 && errno == EAGAIN);
}

static void expect_other(struct t *t, enum sm_flow_other other, uint8_t proto)
{
    static struct mx mx;
    core_expect(&t->h, SM_FLOW_OTHER, &mx);
    assert_string_equal(sm_flow_other_name(mx.m.other), sm_flow_other_name(other));
    assert_int_equal(mx.m.ip_proto, proto);
}

/* ---- frames that are no flow's ---- */

static void test_what_is_recorded(void **state)
{
    struct t *t = *state;
    static struct buf b;

    udp_frame(&b, test_link.guest, IP4(203, 0, 113, 1), 1, 2, "x", 1);
    b.data[11] ^= 1; /* another card's */
    frame(t, &b);
    expect_other(t, SM_OTHER_SPOOFED, 0);

    udp_frame(&b, IP4(10, 0, 2, 99), IP4(203, 0, 113, 1), 1, 2, "x", 1);
    frame(t, &b);
    expect_other(t, SM_OTHER_SPOOFED, SM_IPPROTO_UDP);

    arp_frame(&b, 1, IP4(10, 0, 2, 99), test_link.gateway);
    frame(t, &b);
    expect_other(t, SM_OTHER_SPOOFED, 0);

    echo_frame(&b, IP4(203, 0, 113, 1), "ping", 4);
    frame(t, &b);
    expect_other(t, SM_OTHER_ICMP, SM_IPPROTO_ICMP);

    ip_frame(&b, test_link.guest, IP4(203, 0, 113, 1), 47, 1, 0, "GRE.", 4);
    frame(t, &b);
    expect_other(t, SM_OTHER_PROTO, 47);

    /* The kernel takes these for no packets of a wire's, and they come to no socket. */
    udp_frame(&b, test_link.guest, IP4(127, 9, 9, 9), 1, 2, "x", 1);
    frame(t, &b);
    expect_other(t, SM_OTHER_PROTO, SM_IPPROTO_UDP);
    udp_frame(&b, test_link.guest, IP4(0, 0, 0, 0), 1, 2, "x", 1);
    frame(t, &b);
    expect_other(t, SM_OTHER_PROTO, SM_IPPROTO_UDP);
    udp_frame(&b, test_link.guest, IP4(128, 0, 0, 1), 1, 2, "x", 1); /* with options, say: it is a flow's as well */
    frame(t, &b);
    core_expect_nothing(&t->h);
    expect_nothing(t, t->frames);
    expect_nothing(t, t->raw);
}

/* The kernel has answered these, and we say nothing on top. */
static void test_what_the_kernel_answers(void **state)
{
    struct t *t = *state;
    static struct buf b;

    arp_frame(&b, 1, test_link.guest, test_link.gateway);
    frame(t, &b);
    arp_frame(&b, 1, 0, test_link.guest); /* is the address free? (RFC 5227) */
    frame(t, &b);
    echo_frame(&b, test_link.gateway, "ping", 4);
    frame(t, &b);
    core_expect_nothing(&t->h);
    expect_nothing(t, t->frames);
    expect_nothing(t, t->raw);
}

static void discover(struct buf *b)
{
    static struct buf m;
    static const uint8_t options[] = {53, 1, 1, 255};

    dhcp_message(&m, 0, 0, options, sizeof(options));
    udp_frame(b, 0, UINT32_MAX, 68, 67, m.data, m.len);
    memset(b->data, 0xff, SM_ETH_ALEN);
}

/* A whole frame, for the guest's card; and no flow comes of it. */
static void test_dhcp(void **state)
{
    struct t *t = *state;
    static struct buf b;
    uint8_t got[SM_DHCP_FRAME_MAX];
    const size_t bootp = SM_ETH_HLEN + SM_IP_HLEN + SM_UDP_HLEN;

    discover(&b);
    frame(t, &b);
    size_t n = expect(t, t->frames, got, sizeof(got));
    assert_true(n > bootp + 240);
    assert_memory_equal(got, test_link.guest_mac, SM_ETH_ALEN);
    assert_memory_equal(got + SM_ETH_ALEN, test_link.our_mac, SM_ETH_ALEN);
    struct sm_rd r = sm_rd_init(got + bootp, n - bootp);
    sm_rd_skip(&r, 16);
    assert_int_equal(sm_rd_u32(&r), test_link.guest);
    assert_memory_equal(got + bootp + 240, "\x35\x01\x02", 3); /* OFFER */
    core_expect_nothing(&t->h);
    expect_nothing(t, t->raw);

    b.data[11] ^= 1; /* of another card: no lease */
    frame(t, &b);
    expect_other(t, SM_OTHER_SPOOFED, 0);
    expect_nothing(t, t->frames);
}

/* ---- datagrams ---- */

static void say(struct t *t, int fd, const char *text)
{
    assert_int_equal(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&t->datagrams, sizeof(t->datagrams)),
                     strlen(text));
}

/* Asked for with the address that it was sent to; refused in the gateway's name, with what names it. */
static void test_a_datagram_and_its_refusal(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    uint8_t got[2000];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);

    assert_int_equal(getsockname(t->sender, (struct sockaddr *)&from, &len), 0);
    say(t, t->sender, "hello");
    core_expect(&t->h, SM_FLOW_OPEN, &mx);
    assert_int_equal(mx.m.proto, SM_FLOW_UDP);
    assert_int_equal(sm_addr_to_u32(&mx.m.src.addr), INADDR_LOOPBACK);
    assert_int_equal(mx.m.src.port, ntohs(from.sin_port));
    assert_int_equal(sm_addr_to_u32(&mx.m.dst.addr), INADDR_LOOPBACK);
    assert_int_equal(mx.m.dst.port, ntohs(t->datagrams.sin_port));
    core_refuse(&t->h, mx.m.id, SM_HOW_ICMP_ADMIN, SM_SCOPE_TUPLE, 0);
    size_t n = expect(t, t->raw, got, sizeof(got));
    struct sm_rd r = sm_rd_init(got, n);
    sm_rd_skip(&r, 9);
    assert_int_equal(sm_rd_u8(&r), SM_IPPROTO_ICMP);
    sm_rd_skip(&r, 2);
    assert_int_equal(sm_rd_u32(&r), test_link.gateway);
    assert_int_equal(sm_rd_u32(&r), t->link.guest);
    assert_int_equal(sm_rd_u8(&r), 3);
    assert_int_equal(sm_rd_u8(&r), 13);
    assert_int_equal(sm_csum_fold(sm_csum_add(0, got + SM_IP_HLEN, n - SM_IP_HLEN)), 0);
    sm_rd_skip(&r, 6 + SM_IP_HLEN);
    assert_int_equal(sm_rd_u16(&r), ntohs(from.sin_port));
    assert_int_equal(sm_rd_u16(&r), ntohs(t->datagrams.sin_port));
    assert_false(r.bad);
}

/* The rules let nobody else through, and the front does not count on that. */
static void test_a_strangers_datagram(void **state)
{
    struct t *t = *state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
    sm_autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    say(t, fd, "hello");
    core_expect_nothing(&t->h);
}

/* Datagrams of 500 bytes and one of 100, which their sender's kernel was to cut, come as what they are. */
static void test_datagrams_that_come_whole(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    static uint8_t text[3 * 500 + 100], got[SM_FLOW_UDP_BATCH_MAX];
    uint16_t size = 500;
    union {
        char buf[CMSG_SPACE(sizeof(size))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {text, sizeof(text)};
    struct msghdr msg = {.msg_name = &t->datagrams,
                         .msg_namelen = sizeof(t->datagrams),
                         .msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i / 500 + i);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = 103; /* UDP_SEGMENT */
    c->cmsg_len = CMSG_LEN(sizeof(size));
    memcpy(CMSG_DATA(c), &size, sizeof(size));
    assert_int_equal(sendmsg(t->sender, &msg, 0), sizeof(text));
    core_expect(&t->h, SM_FLOW_OPEN, &mx);
    int pair = core_attach(&t->h, mx.m.id, 0, SOCK_SEQPACKET);
    struct sm_rd r = sm_rd_init(got, expect(t, pair, got, sizeof(got)));
    struct sm_dgrams_run run;
    unsigned count = 0;
    size_t at = 0;
    while (sm_udpbatch_next(&r, &count, &run)) {
        assert_true(run.size == 500 || (at + run.len == sizeof(text) && run.len == 100));
        assert_memory_equal(run.data, text + at, run.len);
        at += run.len;
    }
    assert_false(r.bad);
    assert_int_equal(count, 4);
    assert_int_equal(at, sizeof(text));
    (void)close(pair);
}

/* A flow of the guest's, and the core's end of its pair. */
static int flow(struct t *t, uint16_t *ret_port)
{
    static struct mx mx;
    struct sockaddr_in from;
    socklen_t len = sizeof(from);

    say(t, t->sender, "hello");
    core_expect(&t->h, SM_FLOW_OPEN, &mx);
    int pair = core_attach(&t->h, mx.m.id, 0, SOCK_SEQPACKET);
    assert_int_equal(getsockname(t->sender, (struct sockaddr *)&from, &len), 0);
    *ret_port = ntohs(from.sin_port);
    return pair;
}

static void answer(struct t *t, int pair, const uint8_t *data, const size_t *sizes, size_t n)
{
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];
    struct sm_udpbatch b = sm_udpbatch_init(packet, sizeof(packet));

    for (size_t i = 0; i < n; data += sizes[i++])
        assert_true(sm_udpbatch_add(&b, data, sizes[i]));
    assert_int_equal(write(pair, packet, b.w.len), b.w.len);
    h_settle(&t->h);
}

/* Datagrams of one size leave as one frame, with what the kernel needs to cut it; one alone, and what has to be fragmented, does not. */
static void test_a_run_for_the_guest(void **state)
{
    struct t *t = *state;
    static uint8_t data[3 * 1200 + 7], got[70000];
    uint16_t port;
    int pair = flow(t, &port);
    static const size_t four[] = {1200, 1200, 1200, 7}, large[] = {1473, 1473};
    const size_t head = 10 + SM_ETH_HLEN + SM_IP_HLEN + SM_UDP_HLEN;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 3 >> 2);
    answer(t, pair, data, four, 4);
    assert_int_equal(expect(t, t->runs, got, sizeof(got)), head + sizeof(data));
    struct {
        uint8_t flags, type;
        uint16_t hdr_len, size, start, offset;
    } vnet; /* in the machine's own order (packet(7)) */
    memcpy(&vnet, got, sizeof(vnet));
    assert_int_equal(vnet.flags, 1);
    assert_int_equal(vnet.type, 5);
    assert_int_equal(vnet.hdr_len, head - 10);
    assert_int_equal(vnet.size, 1200);
    assert_int_equal(vnet.start, SM_ETH_HLEN + SM_IP_HLEN);
    assert_int_equal(vnet.offset, 6);
    assert_memory_equal(got + 10, t->link.guest_mac, SM_ETH_ALEN);
    assert_memory_equal(got + 16, t->link.our_mac, SM_ETH_ALEN);
    const uint8_t *ip = got + 10 + SM_ETH_HLEN, *udp = ip + SM_IP_HLEN;
    assert_int_equal(sm_csum_fold(sm_csum_add(0, ip, SM_IP_HLEN)), 0);
    struct sm_rd r = sm_rd_init(ip, SM_IP_HLEN + SM_UDP_HLEN);
    sm_rd_skip(&r, 2);
    assert_int_equal(sm_rd_u16(&r), SM_IP_HLEN + SM_UDP_HLEN + sizeof(data));
    sm_rd_skip(&r, 8);
    assert_int_equal(sm_rd_u32(&r), INADDR_LOOPBACK);
    assert_int_equal(sm_rd_u32(&r), t->link.guest);
    assert_int_equal(sm_rd_u16(&r), ntohs(t->datagrams.sin_port));
    assert_int_equal(sm_rd_u16(&r), port);
    assert_int_equal(sm_rd_u16(&r), SM_UDP_HLEN + sizeof(data));
    uint16_t pseudo = sm_rd_u16(&r);
    /* Whoever completes it sums from the UDP header on: then the whole, with the pseudo header, sums up to nothing. */
    uint16_t sum = sm_csum_fold(sm_csum_add(0, udp, SM_UDP_HLEN + sizeof(data)));
    got[udp - got + 6] = (uint8_t)(sum >> 8);
    got[udp - got + 7] = (uint8_t)sum;
    assert_int_equal(sm_csum_fold(sm_csum_add(pseudo, udp, SM_UDP_HLEN + sizeof(data))), 0);
    assert_memory_equal(udp + SM_UDP_HLEN, data, sizeof(data));

    answer(t, pair, data, four, 1);
    assert_int_equal(expect(t, t->raw, got, sizeof(got)), SM_IP_HLEN + SM_UDP_HLEN + 1200);
    answer(t, pair, data, large, 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(expect(t, t->raw, got, sizeof(got)), i % 2 == 0 ? 1500 : SM_IP_HLEN + 1);
    expect_nothing(t, t->runs);
    expect_nothing(t, t->raw);
    (void)close(pair);
}

/* The kernel does not take it: each goes by itself. */
static void test_a_run_goes_one_by_one(void **state)
{
    struct t *t = *state;
    static uint8_t data[5 * 100], got[2000];
    uint16_t port;
    int pair = flow(t, &port);
    static const size_t sizes[] = {100, 100, 100, 100, 100};

    sm_fd_close(&t->runs);
    answer(t, pair, data, sizes, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(expect(t, t->raw, got, sizeof(got)), SM_IP_HLEN + SM_UDP_HLEN + 100);
    expect_nothing(t, t->raw);
    (void)close(pair);
}

/* ---- the keeper ---- */

static void inbound(struct t *t, uint64_t id)
{
    int pair[2];
    struct sm_flow_msg m = {.type = SM_FLOW_INBOUND, .id = id, .guest_port = 80};

    assert_true(sm_endpoint_parse("203.0.113.9:4000", 0, &m.src));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    core_send_fd(&t->h, &m, pair[0]);
    (void)close(pair[1]);
}

static void test_the_keeper_is_asked(void **state)
{
    struct t *t = *state;
    uint8_t got[100];
    static const uint8_t want[] = {0x80, 0, 0, 0, 0, 0, 1, 2, 203, 0, 113, 9, 0x0f, 0xa0, 0, 80};

    static struct mx mx;
    const uint64_t id = SM_FLOW_ID_CORE | 0x102;

    inbound(t, id);
    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(expect(t, t->keeper, got, sizeof(got)), SM_TPROXY_ASK_LEN);
    assert_memory_equal(got, want, sizeof(want));
    assert_int_equal(sm_fd_send(t->keeper, want, SM_TPROXY_ANSWER_LEN, NULL, 0),
                     SM_TPROXY_ANSWER_LEN); /* it cannot be */
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    assert_int_equal(sm_fd_send(t->keeper, want, SM_TPROXY_ANSWER_LEN, NULL, 0),
                     SM_TPROXY_ANSWER_LEN); /* of one that has ended */
    core_expect_nothing(&t->h);
    assert_null(t->h.failed);
}

/* Clients come faster than it dials: all are asked for, in order, and none is turned away. */
static void test_a_keeper_that_is_slow(void **state)
{
    enum { CLIENTS = 900 };
    struct t *t = *state;
    static struct mx mx;
    uint8_t got[100];

    for (uint64_t i = 0; i < CLIENTS; i++) {
        inbound(t, SM_FLOW_ID_CORE | i);
        core_expect(&t->h, SM_FLOW_ATTACHED, &mx); /* no GONE before it */
    }
    for (uint64_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(expect(t, t->keeper, got, sizeof(got)), SM_TPROXY_ASK_LEN);
        struct sm_rd r = sm_rd_init(got, SM_TPROXY_ASK_LEN);
        assert_true(sm_rd_u64(&r) == (SM_FLOW_ID_CORE | i));
    }
    expect_nothing(t, t->keeper);
    core_expect_nothing(&t->h);
    assert_int_equal(h_stats(&t->h).tcp_now, CLIENTS);
    assert_null(t->h.failed);
}

static void test_a_keeper_that_says_something_else(void **state)
{
    struct t *t = *state;

    assert_int_equal(write(t->keeper, "123", 3), 3);
    h_settle(&t->h);
    assert_non_null(t->h.failed);
}

static void test_the_keepers_end(void **state)
{
    struct t *t = *state;

    sm_fd_close(&t->keeper);
    h_settle(&t->h);
    assert_non_null(t->h.failed);
}

static void test_a_bundle_that_is_none(void **state)
{
    static const struct {
        char hello;
        size_t n;
    } rows[] = {{'X', SM_TPROXY_FDS}, {SM_TPROXY_HELLO, SM_TPROXY_FDS - 1}, {SM_TPROXY_HELLO, 0}};

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct t *t = g_new0(struct t, 1);
        g_autoptr(GError) error = NULL;
        t->link = test_link;
        t->h.loop = sm_loop_new(&error);
        t->h.guest = t->sender = -1;
        assert_null(front_of(t, rows[i].hello, rows[i].n, &error));
        assert_non_null(error);
        char c;
        assert_int_equal(read(t->h.core, &c, 1), 0); /* all that was given is closed */
        assert_int_equal(read(t->keeper, &c, 1), 0);
        assert_int_equal(read(t->frames, &c, 1), 0);
        sm_loop_free(t->h.loop);
        sm_fd_close(&t->h.core);
        sm_fd_close(&t->keeper);
        sm_fd_close(&t->frames);
        sm_fd_close(&t->raw);
        sm_fd_close(&t->runs);
        g_free(t);
    }
}

#define TEST(f, setup) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_recorded, setup_frames),
        TEST(test_what_the_kernel_answers, setup_frames),
        TEST(test_dhcp, setup_frames),
        TEST(test_a_datagram_and_its_refusal, setup_datagrams),
        TEST(test_a_strangers_datagram, setup_datagrams),
        TEST(test_datagrams_that_come_whole, setup_datagrams),
        TEST(test_a_run_for_the_guest, setup_datagrams),
        TEST(test_a_run_goes_one_by_one, setup_datagrams),
        TEST(test_the_keeper_is_asked, setup_frames),
        TEST(test_a_keeper_that_is_slow, setup_frames),
        TEST(test_a_keeper_that_says_something_else, setup_frames),
        TEST(test_the_keepers_end, setup_frames),
        cmocka_unit_test(test_a_bundle_that_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
