/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front between a guest that speaks frames (a tap port over a socket pair, with virtio-net headers as on a real
 * tap) and a core and an upstream that say what they must.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "../unit/nat/harness.h"
#include "counts.h"
#include "flow/udpbatch.h"

#define WORLD IP4(203, 0, 113, 7)
#define CLOSED IP4(10, 0, 0, 5)
#define MSS 1460u
/** A segment of full length with offload: what Linux makes of it. */
#define BIG (44u * MSS)
#define ETH_IP_TCP 54u
#define CHUNK (256u << 10)
#define IDLE_FLOWS 1000u

static struct h *h;
static struct rx rx;
static struct mx mx;
static uint8_t chunk[CHUNK];

struct side {
    uint16_t sport, dport;
    uint32_t snd, una, rcv, window;
    unsigned scale, unacked;
    bool synced, fin;
    size_t got; /* bytes for the guest */
    uint64_t id;
    int up; /* our end of what the front was given */
};

static void turn(void)
{
    counts_turn(h->loop, 0);
}

/* vnet: the guest's card has the offloads. */
static void begin(bool vnet)
{
    int big = 4 << 20;

    h = h_new_kind(false, 0, vnet);
    (void)setsockopt(h->guest, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    turn();
}

/* What stands in the checksum's place when the rest is left to the device. */
static uint16_t pseudo_sum(size_t len)
{
    return (uint16_t)~sm_csum_fold((test_link.guest >> 16) + (test_link.guest & 0xffff) + (WORLD >> 16) +
                                   (WORLD & 0xffff) + SM_IPPROTO_TCP + (uint32_t)len);
}

/* One segment of zeros, its sum partial, as a guest's driver leaves it. False: the card is full. */
static bool segment(struct side *s, uint8_t flags, size_t data)
{
    /* flags: NEEDS_CSUM; type; hdr_len, gso_size, csum_start, csum_offset (little-endian); num_buffers */
    static const uint8_t sum[SM_VNET_HLEN] = {1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0},
                         cut[SM_VNET_HLEN] = {1, 1, ETH_IP_TCP, 0, MSS & 255, MSS >> 8, 34, 0, 16, 0, 0, 0};
    uint8_t frame[ETH_IP_TCP + 8];
    size_t options = flags & TCP_SYN ? 8 : 0, tcp_len = SM_TCP_HLEN + options;
    struct sm_wr w = sm_wr_init(frame, sizeof(frame));
    const uint8_t *head = data > MSS ? cut : sum;
    size_t head_len = h->vnet ? SM_VNET_HLEN : 0;
    struct iovec iov[3] = {{(void *)(uintptr_t)head, head_len}, {frame, 34 + tcp_len}, {chunk, data}};

    sm_wr_eth(&w, test_link.our_mac, test_link.guest_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&w, test_link.guest, WORLD, SM_IPPROTO_TCP, tcp_len + data);
    sm_wr_u16(&w, s->sport);
    sm_wr_u16(&w, s->dport);
    sm_wr_u32(&w, s->snd);
    sm_wr_u32(&w, flags & TCP_ACK ? s->rcv : 0);
    sm_wr_u8(&w, (uint8_t)(tcp_len / 4 << 4));
    sm_wr_u8(&w, flags);
    sm_wr_u16(&w, 65535);
    sm_wr_u16(&w, pseudo_sum(tcp_len + data));
    sm_wr_u16(&w, 0);
    if (options) {
        sm_wr_u32(&w, 0x020405b4); /* MSS 1460 */
        sm_wr_u32(&w, 0x01030307); /* a window scale of 7 */
    }
    if (!h->vnet) /* nobody sums behind the guest, and zeros add nothing */
        sm_put_u16(frame + 34 + SM_TCP_CSUM, sm_csum_fold(sm_csum_add(0, frame + 34, tcp_len)));
    ssize_t n = writev(h->guest, iov, data ? 3 : 2);
    if (n < 0 && errno == EAGAIN)
        return false;
    assert_int_equal(n, head_len + 34 + tcp_len + data);
    s->snd += (uint32_t)data + (flags & (TCP_SYN | TCP_FIN) ? 1 : 0);
    if (flags & TCP_ACK)
        s->unacked = 0;
    return true;
}

/* What has come for this connection; every second segment is acknowledged, and the last (RFC 1122). */
static void guest_takes(struct side *s)
{
    while (guest_poll(h, &rx)) {
        if (rx.proto != SM_IPPROTO_TCP || rx.dport != s->sport)
            continue;
        assert_int_equal(rx.flags & TCP_RST, 0);
        s->una = rx.ack;
        s->window = (uint32_t)rx.window << (rx.flags & TCP_SYN ? 0 : s->scale);
        if (rx.flags & TCP_SYN) {
            const uint8_t *option = rx.raw + ETH_IP_TCP;
            for (const uint8_t *end = rx.data; option < end && *option; option += *option == 1 ? 1 : option[1])
                if (*option == 3)
                    s->scale = option[2];
            s->rcv = rx.seq + 1;
            s->synced = true;
            continue;
        }
        if (rx.data_len == 0 && !(rx.flags & TCP_FIN))
            continue;
        assert_int_equal(rx.seq, s->rcv);
        s->rcv += (uint32_t)rx.data_len + (rx.flags & TCP_FIN ? 1 : 0);
        s->got += rx.data_len;
        s->fin |= rx.flags & TCP_FIN;
        if (++s->unacked == 2)
            assert_true(segment(s, TCP_ACK, 0));
    }
    if (s->unacked > 0)
        assert_true(segment(s, TCP_ACK, 0));
}

/* Acknowledgements and ends come in the company of what is waited for. */
static bool core_hears(enum sm_flow_type type)
{
    while (core_poll(h, &mx)) {
        if (mx.m.type == type)
            return true;
        assert_true(mx.m.type == SM_FLOW_ATTACHED || mx.m.type == SM_FLOW_GONE);
    }
    return false;
}

static void core_says(const struct sm_flow_msg *m, int fd)
{
    uint8_t raw[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, raw, sizeof(raw));

    assert_true(len > 0);
    assert_int_equal(sm_fd_send(h->core, raw, len, &fd, fd >= 0 ? 1 : 0), len);
    if (fd >= 0)
        (void)close(fd);
}

static bool takes_until(struct side *s, size_t got)
{
    guest_takes(s);
    return s->got >= got;
}

static bool synced(struct side *s)
{
    guest_takes(s);
    return s->synced;
}

static bool finished(struct side *s)
{
    guest_takes(s);
    return s->fin;
}

static void give(struct side *s, int type)
{
    int pair[2], big = 1 << 20;

    assert_int_equal(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    for (unsigned i = 0; i < 2; i++)
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    core_says(&(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = s->id}, pair[0]);
    s->up = pair[1];
    turn();
}

/* The handshake, the guest's first 64 bytes, the verdict. */
static struct side connection(uint16_t sport, uint16_t dport)
{
    struct side s = {.sport = sport, .dport = dport, .snd = 1000000};

    assert_true(segment(&s, TCP_SYN, 0));
    UNTIL(core_hears(SM_FLOW_OPEN));
    s.id = mx.m.id;
    core_says(&(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = s.id}, -1);
    UNTIL(synced(&s));
    assert_true(segment(&s, TCP_ACK, 0));
    assert_true(segment(&s, TCP_ACK | TCP_PSH, 64));
    UNTIL(core_hears(SM_FLOW_BYTES));
    give(&s, SOCK_STREAM);
    UNTIL(read(s.up, chunk, 64) == 64);
    return s;
}

static void many(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        (void)connection((uint16_t)(1024 + i), 80);
}

/* ---- bytes ---- */

static void up(unsigned n, size_t size)
{
    static uint8_t sink[CHUNK];
    begin(true);
    struct side s = connection(40000, 443);

    /* The first rounds let buffers and windows grow. */
    for (unsigned sent = 0, warm = n / 4 + 1, want = n + warm; sent < want;) {
        size_t came = 0;
        unsigned burst = 0;
        if (sent >= warm && warm > 0) {
            counts_begin();
            want = sent + n;
            warm = 0;
        }
        while (burst < BURST && sent + burst < want && s.snd - s.una + size <= s.window && segment(&s, TCP_ACK, size))
            burst++;
        sent += burst;
        for (unsigned turns = 0; came < burst * size; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            for (ssize_t got; (got = read(s.up, sink, sizeof(sink))) > 0;)
                came += (size_t)got;
        }
        for (unsigned turns = 0; s.una != s.snd; turns++) {
            assert_true(turns < TURNS_MAX);
            guest_takes(&s);
            if (s.una != s.snd)
                turn();
        }
    }
}

static void up_big(unsigned n)
{
    up(n, BIG);
}

static void up_small(unsigned n)
{
    up(n, MSS);
}

static void down(unsigned n, bool vnet, unsigned idle)
{
    begin(vnet);
    many(idle);
    struct side s = connection(40000, 443);

    memset(chunk, 0, sizeof(chunk));
    for (unsigned i = 0; i < n + n / 4 + 1; i++) {
        size_t had = s.got;
        if (i == n / 4 + 1)
            counts_begin();
        assert_int_equal(write(s.up, chunk, BIG), BIG);
        UNTIL(takes_until(&s, had + BIG));
    }
}

static void down_big(unsigned n)
{
    down(n, true, 0);
}

static void down_plain(unsigned n)
{
    down(n, false, 0);
}

static void down_among(unsigned n)
{
    down(n, true, IDLE_FLOWS);
}

/* ---- connections ---- */

static void one(unsigned i)
{
    struct side s = connection((uint16_t)(10000 + i), 443);
    char c;

    assert_int_equal(write(s.up, chunk, 64), 64);
    UNTIL(takes_until(&s, 64));
    assert_true(segment(&s, TCP_ACK | TCP_FIN, 0));
    UNTIL(read(s.up, &c, 1) == 0);
    (void)close(s.up);
    UNTIL(finished(&s)); /* its last ACK is taken with the next SYN */
}

static void connections(unsigned n, unsigned idle)
{
    begin(true);
    many(idle);
    for (unsigned i = 0; i < 20; i++)
        one(i);
    counts_begin();
    for (unsigned i = 0; i < n; i++)
        one(20 + i);
}

static void connect_close(unsigned n)
{
    connections(n, 0);
}

static void connect_among(unsigned n)
{
    connections(n, IDLE_FLOWS);
}

static void refused(unsigned n, bool held)
{
    begin(true);
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        for (unsigned k = 0; k < BURST; k++) {
            struct side s = {
                .sport = (uint16_t)(1024 + i + k), .dport = (uint16_t)(held ? 443 : 1024 + i + k), .snd = 1};
            assert_true(segment(&s, TCP_SYN, 0));
        }
        for (unsigned turns = 0, resets = 0; resets < BURST; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            while (core_poll(h, &mx))
                if (mx.m.type == SM_FLOW_OPEN)
                    core_says(&(struct sm_flow_msg){.type = SM_FLOW_REFUSE,
                                                    .id = mx.m.id,
                                                    .how = SM_HOW_RST,
                                                    .scope = held ? SM_SCOPE_DESTINATION : SM_SCOPE_TUPLE,
                                                    .hold_ms = 600000},
                              -1);
            while (guest_poll(h, &rx))
                resets += (rx.flags & TCP_RST) != 0;
        }
    }
}

static void refused_held(unsigned n)
{
    refused(n, true);
}

static void refused_asked(unsigned n)
{
    refused(n, false);
}

/* ---- datagrams ---- */

static void guest_udp(uint32_t dst, uint16_t sport, uint16_t dport, size_t len)
{
    /* As the kernel behind a tap has it: the sum is left to us. */
    static const uint8_t head[SM_VNET_HLEN] = {[0] = 1, [6] = 34, [8] = 6};
    static struct buf b;

    udp_frame(&b, test_link.guest, dst, sport, dport, chunk, len);
    guest_send_with(h, head, &b);
}

static struct side udp_flow(void)
{
    struct side s = {0};

    guest_udp(WORLD, 5000, 4433, DATAGRAM);
    UNTIL(core_hears(SM_FLOW_OPEN));
    s.id = mx.m.id;
    give(&s, SOCK_SEQPACKET);
    return s;
}

static void udp_up(unsigned n)
{
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];
    begin(true);
    struct side s = udp_flow();

    while (read(s.up, packet, sizeof(packet)) > 0)
        continue;
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        for (unsigned k = 0; k < BURST; k++)
            guest_udp(WORLD, 5000, 4433, DATAGRAM);
        for (unsigned turns = 0, came = 0; came < BURST; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            for (ssize_t got; (got = read(s.up, packet, sizeof(packet))) > 0;) {
                struct sm_rd r = sm_rd_init(packet, (size_t)got);
                struct sm_dgrams_run run;
                unsigned count = 0;
                while (sm_udpbatch_next(&r, &count, &run))
                    continue;
                came += count;
            }
        }
    }
}

static void udp_down(unsigned n)
{
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];
    begin(true);
    struct side s = udp_flow();
    struct sm_udpbatch batch = sm_udpbatch_init(packet, sizeof(packet));

    /* As on a tap of Linux 6.2 and later, whose kernel cuts a run of datagrams itself. */
    h->port->tx_offloads |= SM_OFFLOAD_GSO(SM_GSO_UDPV4);
    for (unsigned k = 0; k < BURST; k++)
        assert_true(sm_udpbatch_add(&batch, chunk, DATAGRAM));
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        assert_int_equal(write(s.up, packet, batch.w.len), batch.w.len);
        for (unsigned turns = 0, came = 0; came < BURST; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            while (guest_poll(h, &rx))
                came += (unsigned)((rx.data_len + DATAGRAM - 1) / DATAGRAM);
        }
    }
}

static void dns(unsigned n)
{
    begin(true);
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        for (unsigned k = 0; k < BURST; k++)
            guest_udp(test_link.resolver, (uint16_t)(5000 + i + k), 53, 40);
        for (unsigned turns = 0, came = 0; came < BURST; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            while (core_poll(h, &mx)) {
                struct sm_flow_msg m = mx.m;
                assert_int_equal(m.type, SM_FLOW_DATAGRAM);
                core_says(&m, -1);
            }
            while (guest_poll(h, &rx))
                came++;
        }
    }
}

const struct counts_case counts_front[] = {
    {"front-up", "64,240 bytes from the guest, one frame with offload", 400, up_big},
    {"front-up-1500", "segment of 1460 bytes from the guest", 4000, up_small},
    {"front-down", "64,240 bytes to the guest", 400, down_big},
    {"front-down-1500", "64,240 bytes to a guest without offload", 100, down_plain},
    {"front-down-among-1000", "64,240 bytes to the guest, 1,000 idle connections", 100, down_among},
    {"front-connection", "connection, from SYN to the last ACK, 64 bytes each way", 300, connect_close},
    {"front-connection-among-1000", "connection as above, 1,000 idle ones", 100, connect_among},
    {"front-refused-held", "refused SYN, repeated from a hold", 4000, refused_held},
    {"front-refused", "refused SYN, the core asked", 2000, refused_asked},
    {"front-udp-up", "datagram of 1400 bytes from the guest", 4000, udp_up},
    {"front-udp-down", "datagram of 1400 bytes to the guest", 4000, udp_down},
    {"front-dns", "DNS query and its answer", 2000, dns},
};
const size_t n_counts_front = SM_ARRAY_LEN(counts_front);
