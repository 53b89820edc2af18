/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a frame costs in a port, and in a port with the NAT behind it, on one processor, without a VM and without a
 * core.
 *
 *   vhost PORT LAYER DIRECTION SIZE SECONDS
 *     PORT       vhost-user: the front-end simulator is the VMM; stream: QEMU's -netdev stream, over a socket pair
 *     LAYER      port: frames are read and dropped, or written; nat: one TCP connection through the whole front
 *     DIRECTION  up: from the guest; down: to it
 *     SIZE       1500: MTU-sized frames; tso: 64 KiB ones, which vhost-user sends as segments to be cut (TSO, partial
 *                checksums), and the stream, which has no header for that, as frames of an MTU of 65520
 *
 * One thread takes turns: the guest works (puts frames, takes frames, acknowledges), the far end of the connection
 * works, and the loop turns. Only the loop's processor time counts as `busy`: it is the port, and with nat the front
 * with libslirp and its system calls. `all` is that of the whole thread. Prints one line of JSON.
 *
 * Built into bench_counts (SM_BENCH_COUNTS) it is a few of counts.py's harnesses in place of a program.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "counts.h"
#include "flow/msg.h"
#include "nat/front.h"
#include "net.h"
#include "ports/ports.h"

#define RING 1024
#define REGION (UINT64_C(32) << 20)
#define HEAD 66 /* of a frame that is looked at: Ethernet, IP, TCP and its options */
#define ETH_IP_TCP 54
#define RX_BUFFER 4096
#define RX_BUFFER_SMALL 1536
#define STREAM_ROOM (512u << 10)
#define UP_CHUNK (256u << 10)
#define TURN_FRAMES 128 /* that the guest puts or the port is given before the loop turns */

static const uint8_t guest_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
                     our_mac[6] = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};
#define GUEST 0x0a00020fu
#define PEER 0xcb007107u

struct bench {
    bool vhost, nat, up, tso;
    size_t frame; /* of full length */
    struct sm_loop *loop;
    struct sm_port *port;
    struct sm_front *front;
    int64_t busy_ns, cost_ns, end_us;
    uint64_t frames, bytes;
    uint64_t enough; /* bytes, in place of a time; 0: until end_us */

    /* the guest's end: vhost-user */
    struct sim *sim;
    uint64_t slots; /* guest address of the first frame to send */
    size_t slot_len;
    unsigned next_slot;
    uint32_t rx_len;
    /* the guest's end: stream */
    int sock;
    uint8_t *out, *in;
    size_t out_at, out_len, in_at, in_len;

    /* the guest's connection, the core and what is upstream */
    uint32_t snd_nxt, snd_una, rcv_nxt, window;
    unsigned scale, unacked;
    bool synced;
    int core, upstream;
    uint64_t id;

    struct sm_frame read[SM_PORT_BATCH];
};

static void die(const char *what)
{
    fprintf(stderr, "vhost: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the loop, and its clock ---- */

/* Processor time of this thread, so that a machine with other work to do does not count; asking for it is a system
 * call. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) < 0)
        die("clock");
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What a pair of questions costs by itself. */
static int64_t cpu_cost(void)
{
    int64_t first = cpu_ns(), last = first;

    for (unsigned i = 0; i < 10000; i++)
        last = cpu_ns();
    return (last - first) / 10000;
}

static void turn(struct bench *b)
{
    int64_t before = cpu_ns();

#ifdef SM_BENCH_COUNTS
    counts_turn(b->loop, 0);
#else
    if (sm_loop_turn(b->loop, 0) < 0)
        die("epoll");
#endif
    b->busy_ns += cpu_ns() - before - b->cost_ns;
}

static bool going_on(const struct bench *b)
{
    return b->enough > 0 ? b->bytes < b->enough : sm_clock_us() < b->end_us;
}

static void sim_turn(void *data, int timeout_ms)
{
    struct bench *b = data;

    if (sm_loop_turn(b->loop, timeout_ms) < 0)
        die("epoll");
}

/* The port alone: what a front does with it, less the frames. */
static void on_port(void *data, unsigned ready)
{
    struct bench *b = data;

    if (ready & SM_PORT_WRITABLE && sm_port_waiting(b->port) && sm_port_flush(b->port) < 0)
        die("the port");
    if (!(ready & SM_PORT_READABLE))
        return;
    int n = sm_port_read(b->port, b->read, SM_PORT_BATCH);
    if (n < 0)
        die("the port");
    for (int i = 0; i < n; i++)
        b->bytes += b->read[i].len;
    b->frames += (uint64_t)n;
}

static void want(struct bench *b)
{
    if (sm_port_want(b->port, SM_PORT_READABLE | (sm_port_waiting(b->port) ? SM_PORT_WRITABLE : 0u)) < 0)
        die("the port");
}

/* ---- the guest's end ---- */

static void supply(struct bench *b)
{
    struct sim_queue *q = &b->sim->queues[NET_RX];

    while (q->n_free > 0) {
        struct sim_piece piece = {.gpa = sim_alloc(b->sim, 2, b->rx_len), .len = b->rx_len, .write = true};
        (void)sim_queue_add(q, &piece, 1, false);
    }
    (void)sim_queue_publish(q);
}

static void start_vhost(struct bench *b)
{
    int pair[2];
    const struct sim_config cfg = {.features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC |
                                               NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MRG_RXBUF |
                                               (b->tso ? NET_F_GUEST_TSO4 | NET_F_HOST_TSO4 : 0),
                                   .protocol = VU_P_MQ | VU_P_REPLY_ACK,
                                   .n_queues = 2,
                                   .queue_size = RING,
                                   .region_size = REGION,
                                   .turn = sim_turn,
                                   .data = b};

    b->rx_len = b->tso ? RX_BUFFER : RX_BUFFER_SMALL;
    b->sim = sim_new(&cfg);
    b->slot_len = (NET_HDR + b->frame + 63) / 64 * 64;
    b->slots = sim_alloc(b->sim, 3, b->slot_len * (b->tso ? 128 : RING));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
        sm_port_connect(b->port, pair[1]) < 0)
        die("socketpair");
    sim_connect(b->sim, pair[0], SIM_QEMU);
    if (sim_start(b->sim) != 0)
        die("the VMM was refused");
    sim_queue_quiet(&b->sim->queues[NET_TX], true); /* as Linux's driver: sent frames are taken back when it sends */
    supply(b);
}

/* Room for a frame more. */
static bool can_send(struct bench *b)
{
    if (!b->vhost)
        return b->out_len < STREAM_ROOM;
    struct sim_queue *q = &b->sim->queues[NET_TX];
    return q->in_flight < (b->tso ? 128 : RING / 2);
}

/* A frame whose first bytes are given; what follows are zeros. */
static void send_frame(struct bench *b, const struct sim_net_hdr *hdr, const uint8_t *head, size_t head_len, size_t len)
{
    if (!b->vhost) {
        uint8_t *p = b->out + b->out_at + b->out_len;
        p[0] = p[1] = 0;
        p[1] = (uint8_t)(len >> 16);
        p[2] = (uint8_t)(len >> 8);
        p[3] = (uint8_t)len;
        memcpy(p + 4, head, head_len);
        memset(p + 4 + head_len, 0, len - head_len);
        b->out_len += 4 + len;
        return;
    }
    uint64_t gpa = b->slots + b->slot_len * b->next_slot;
    uint8_t *p = sim_at(b->sim, gpa, NET_HDR + len);
    b->next_slot = (b->next_slot + 1) % (b->tso ? 128 : RING);
    sim_net_hdr_put(p, hdr);
    memcpy(p + NET_HDR, head, head_len);
    memset(p + NET_HDR + head_len, 0, len - head_len); /* the stream's guest writes its frames too */
    /* Linux: header and linear part together, then fragments of at most 32 KiB. */
    uint32_t linear = (uint32_t)(NET_HDR + (len > 2048 ? head_len : len)), rest = (uint32_t)(NET_HDR + len) - linear;
    struct sim_piece pieces[4] = {{.gpa = gpa, .len = linear}};
    unsigned n = 1;
    for (uint64_t at = gpa + linear; rest > 0; n++) {
        pieces[n] = (struct sim_piece){.gpa = at, .len = SM_MIN(rest, UINT32_C(32768))};
        at += pieces[n].len;
        rest -= pieces[n].len;
    }
    if (sim_queue_add(&b->sim->queues[NET_TX], pieces, n, false) < 0)
        die("the sending ring");
}

static void flush_frames(struct bench *b)
{
    if (b->vhost) {
        if (b->sim->queues[NET_TX].pending > 0)
            (void)sim_queue_publish(&b->sim->queues[NET_TX]);
        (void)sim_net_reap(b->sim);
        return;
    }
    while (b->out_len > 0) {
        ssize_t n = write(b->sock, b->out + b->out_at, b->out_len);
        if (n < 0 && errno != EAGAIN)
            die("the stream");
        if (n <= 0)
            return;
        b->out_len -= (size_t)n;
        b->out_at = b->out_len > 0 ? b->out_at + (size_t)n : 0;
        if (b->out_at > 2 * STREAM_ROOM) {
            memmove(b->out, b->out + b->out_at, b->out_len);
            b->out_at = 0;
        }
    }
}

/* The next frame for the guest: its first bytes and its length. */
static bool recv_stream(struct bench *b, uint8_t head[HEAD], size_t *ret_len)
{
    for (;;) {
        const uint8_t *p = b->in + b->in_at;
        if (b->in_len >= 4) {
            size_t len = (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
            if (b->in_len >= 4 + len) {
                memcpy(head, p + 4, SM_MIN(len, (size_t)HEAD));
                b->in_at += 4 + len;
                b->in_len -= 4 + len;
                *ret_len = len;
                return true;
            }
        }
        memmove(b->in, p, b->in_len);
        b->in_at = 0;
        ssize_t n = read(b->sock, b->in + b->in_len, 2 * STREAM_ROOM - b->in_len);
        if (n <= 0)
            return false;
        b->in_len += (size_t)n;
    }
}

static bool recv_vhost(struct bench *b, uint8_t head[HEAD], size_t *ret_len)
{
    struct sim_queue *q = &b->sim->queues[NET_RX];
    unsigned n = 1;
    size_t sum = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t len;
        const struct sim_chain *c = sim_queue_pop(q, &len);
        if (!c)
            return false;
        struct sim_piece piece = c->pieces[0];
        if (i == 0) {
            const uint8_t *p = sim_at(b->sim, piece.gpa, piece.len);
            n = sim_get16(p + 10);
            memcpy(head, p + NET_HDR, SM_MIN((size_t)len - NET_HDR, (size_t)HEAD));
        }
        sum += len;
        (void)sim_queue_add(q, &piece, 1, false);
    }
    *ret_len = sum - NET_HDR;
    return true;
}

static bool recv_frame(struct bench *b, uint8_t head[HEAD], size_t *ret_len)
{
    return b->vhost ? recv_vhost(b, head, ret_len) : recv_stream(b, head, ret_len);
}

static void recv_done(struct bench *b)
{
    if (b->vhost && b->sim->queues[NET_RX].pending > 0)
        (void)sim_queue_publish(&b->sim->queues[NET_RX]);
    if (b->vhost)
        (void)sim_queue_calls(&b->sim->queues[NET_RX]);
}

/* ---- the port alone ---- */

static void port_up(struct bench *b)
{
    uint8_t head[ETH_IP_TCP] = {0};
    const struct sim_net_hdr hdr = {0};

    while (going_on(b)) {
        for (unsigned i = 0; i < TURN_FRAMES && can_send(b); i++)
            send_frame(b, &hdr, head, sizeof(head), b->frame);
        flush_frames(b);
        want(b);
        turn(b);
        turn(b);
    }
}

static void port_down(struct bench *b)
{
    uint8_t *frame = g_malloc0(b->frame), head[HEAD];
    /* As the front hands it over: headers apart, and two pieces of a socket buffer. */
    struct iovec iov[] = {{.iov_base = frame, .iov_len = ETH_IP_TCP},
                          {.iov_base = frame + ETH_IP_TCP, .iov_len = (b->frame - ETH_IP_TCP) / 2},
                          {.iov_base = frame + ETH_IP_TCP + (b->frame - ETH_IP_TCP) / 2,
                           .iov_len = b->frame - ETH_IP_TCP - (b->frame - ETH_IP_TCP) / 2}};
    struct sm_frame_out out = {.iov = iov, .n_iov = 3};
    size_t len;

    while (going_on(b)) {
        int64_t before = cpu_ns();
        for (unsigned i = 0; i < TURN_FRAMES && !sm_port_waiting(b->port); i++)
            if (sm_port_send(b->port, &out) < 0)
                die("the port");
        want(b);
        b->busy_ns += cpu_ns() - before - b->cost_ns;
        turn(b);
        while (recv_frame(b, head, &len)) {
            b->frames++;
            b->bytes += len;
        }
        recv_done(b);
        turn(b);
    }
    g_free(frame);
}

/* ---- one TCP connection ---- */

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A segment whose data are zeros. */
static void segment(struct bench *b, uint8_t flags, size_t data)
{
    uint8_t head[HEAD] = {0}, *ip = head + 14, *tcp = ip + 20;
    size_t tcp_len = flags & 2 ? 28 : 20, mss = b->vhost || !b->tso ? 1460 : 65480;
    struct sim_net_hdr hdr = {0};

    memcpy(head, our_mac, 6);
    memcpy(head + 6, guest_mac, 6);
    put16(head + 12, 0x0800);
    put16(ip, 0x4500);
    put16(ip + 2, (unsigned)(20 + tcp_len + data));
    put16(ip + 6, 0x4000);
    put16(ip + 8, 64 << 8 | 6);
    put32(ip + 12, GUEST);
    put32(ip + 16, PEER);
    put16(ip + 10, sm_csum_fold(sm_csum_add(0, ip, 20)));
    put16(tcp, 40000);
    put16(tcp + 2, 5001);
    put32(tcp + 4, b->snd_nxt);
    put32(tcp + 8, flags & 16 ? b->rcv_nxt : 0);
    put16(tcp + 12, (unsigned)(tcp_len / 4) << 12 | flags);
    put16(tcp + 14, 65535);
    if (flags & 2) { /* MSS and a window scale of 7 */
        put16(tcp + 20, 0x0204);
        put16(tcp + 22, (unsigned)mss);
        put32(tcp + 24, 0x01030307);
    }
    uint32_t pseudo =
        (GUEST >> 16) + (GUEST & 0xffff) + (PEER >> 16) + (PEER & 0xffff) + 6 + (uint32_t)(tcp_len + data);
    if (b->vhost) { /* the pseudo header's sum: the rest is left to the device */
        hdr = (struct sim_net_hdr){.flags = NET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
        put16(tcp + 16, (uint16_t)~sm_csum_fold(pseudo));
        if (data > mss) {
            hdr.gso_type = NET_GSO_TCPV4;
            hdr.gso_size = (uint16_t)mss;
            hdr.hdr_len = ETH_IP_TCP;
        }
    } else
        put16(tcp + 16, sm_csum_fold(sm_csum_add(pseudo, tcp, tcp_len)));
    send_frame(b, &hdr, head, 34 + tcp_len, 34 + tcp_len + data);
    b->snd_nxt += (uint32_t)data + (flags & 2 ? 1 : 0);
    b->unacked = 0;
}

/* What came for the guest; acknowledged as RFC 1122 wants it, every second segment or frame. */
static void guest_takes(struct bench *b)
{
    uint8_t head[HEAD];
    size_t len;

    while (can_send(b) && recv_frame(b, head, &len)) {
        const uint8_t *tcp = head + 34;
        if (len < ETH_IP_TCP || head[12] != 8 || head[13] != 0 || head[23] != 6)
            continue;
        size_t tcp_len = (size_t)(tcp[12] >> 4) * 4, data = (size_t)(head[16] << 8 | head[17]) - 20 - tcp_len;
        if (tcp[13] & 4)
            die("the connection was reset");
        b->window = (uint32_t)(tcp[14] << 8 | tcp[15]) << (tcp[13] & 2 ? 0 : b->scale);
        b->snd_una = get32(tcp + 8);
        if (tcp[13] & 2) {
            for (size_t i = 20; i < tcp_len && tcp[i] != 0; i += tcp[i] == 1 ? 1 : tcp[i + 1])
                if (tcp[i] == 3)
                    b->scale = tcp[i + 2];
            b->rcv_nxt = get32(tcp + 4) + 1;
            b->synced = true;
            segment(b, 16, 0);
        } else if (data > 0) {
            if (get32(tcp + 4) != b->rcv_nxt)
                die("a segment out of order");
            b->rcv_nxt += (uint32_t)data;
            if (!b->up) {
                b->frames++;
                b->bytes += len;
            }
            if (++b->unacked == 2)
                segment(b, 16, 0);
        }
    }
    if (b->unacked > 0)
        segment(b, 16, 0);
    recv_done(b);
    flush_frames(b);
}

static bool core_hears(struct bench *b)
{
    uint8_t data[SM_FLOW_DATA_MAX + 256];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;
    struct sm_flow_msg m;
    ssize_t n = sm_fd_recv(b->core, data, sizeof(data), fds, &n_fds);

    if (n <= 0)
        return false;
    if (!sm_flow_decode(data, (size_t)n, &m))
        die("the channel");
    if (m.type == SM_FLOW_GONE)
        die("the flow ended");
    if (m.type == SM_FLOW_OPEN)
        b->id = m.id;
    return true;
}

static void core_says(struct bench *b, enum sm_flow_type type, int fd)
{
    struct sm_flow_msg m = {.type = type, .id = b->id};
    uint8_t data[256];
    size_t len = sm_flow_encode(&m, data, sizeof(data));

    if (len == 0 || sm_fd_send(b->core, data, len, &fd, fd >= 0 ? 1 : 0) != (ssize_t)len)
        die("the channel");
}

static void on_failed(const char *text, void *data)
{
    fprintf(stderr, "vhost: the front: %s\n", text);
    exit(1);
}

static void connect_tcp(struct bench *b)
{
    int pair[2], big = 1 << 20;

    b->snd_nxt = 1000000;
    segment(b, 2, 0);
    flush_frames(b);
    for (unsigned i = 0; i < 1000 && b->id == 0; i++) {
        turn(b);
        while (core_hears(b))
            continue;
    }
    if (b->id == 0)
        die("the front did not ask");
    core_says(b, SM_FLOW_ACCEPT, -1);
    for (unsigned i = 0; i < 1000 && !b->synced; i++) {
        turn(b);
        guest_takes(b);
    }
    if (!b->synced || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        die("the front did not accept");
    for (unsigned i = 0; i < 2; i++)
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    core_says(b, SM_FLOW_ATTACH, pair[0]);
    (void)close(pair[0]);
    b->upstream = pair[1];
    turn(b);
}

static void nat_up(struct bench *b)
{
    uint8_t *sink = g_malloc(UP_CHUNK);
    size_t data = b->frame - ETH_IP_TCP;
    int64_t progress = sm_clock_us();

    while (going_on(b)) {
        unsigned i = 0;
        for (; i < TURN_FRAMES && can_send(b) && b->snd_nxt - b->snd_una + data <= b->window; i++)
            segment(b, 16, data);
        flush_frames(b);
        turn(b);
        turn(b);
        guest_takes(b);
        ssize_t n;
        while ((n = read(b->upstream, sink, UP_CHUNK)) > 0) {
            b->bytes += (uint64_t)n;
            progress = sm_clock_us();
        }
        while (core_hears(b))
            continue;
        if (sm_clock_us() - progress > 2000000)
            die("nothing moves");
    }
    b->frames = b->bytes / data;
    b->bytes += b->frames * ETH_IP_TCP;
    g_free(sink);
}

static void nat_down(struct bench *b)
{
    uint8_t *source = g_malloc0(UP_CHUNK);
    int64_t progress = sm_clock_us();

    while (going_on(b)) {
        uint64_t before = b->frames;
        while (write(b->upstream, source, UP_CHUNK) > 0)
            continue;
        turn(b);
        guest_takes(b);
        turn(b);
        while (core_hears(b))
            continue;
        if (b->frames != before)
            progress = sm_clock_us();
        else if (sm_clock_us() - progress > 2000000)
            die("nothing moves");
    }
    g_free(source);
}

static void start(struct bench *b)
{
    int pair[2], channel[2];
    unsigned mtu = b->tso && !b->vhost ? SM_MTU_MAX : SM_MTU_DEFAULT;
    g_autoptr(GError) error = NULL;

    b->cost_ns = cpu_cost();
    b->frame = b->tso ? (b->vhost ? 14 + 65535 - 15 : 14 + SM_MTU_MAX) : 14 + SM_MTU_DEFAULT;
    b->loop = sm_loop_new(&error);
    b->port = b->vhost ? sm_port_vhost_net_new(-1, mtu, &error) : sm_port_stream_new(-1, mtu, &error);
    if (!b->loop || !b->port)
        die("the port");
    if (b->nat) {
        struct sm_front_config cfg = {.net.link = {.guest = GUEST,
                                                   .gateway = 0x0a000202,
                                                   .resolver = 0x0a000203,
                                                   .dns = {0x0a000203},
                                                   .n_dns = 1,
                                                   .n_routes = 1,
                                                   .prefix_len = 24,
                                                   .mtu = (uint16_t)mtu}};
        memcpy(cfg.net.link.guest_mac, guest_mac, 6);
        memcpy(cfg.net.link.our_mac, our_mac, 6);
        if (sm_fd_seqpair(channel, true) < 0)
            die("socketpair");
        b->core = channel[1];
        b->front = sm_front_new(b->loop, &cfg, b->port, channel[0], on_failed, b, &error);
        if (!b->front)
            die(error->message);
        turn(b);
    } else {
        for (unsigned i = 0; i < SM_PORT_BATCH; i++) {
            b->read[i].cap = b->port->max_frame + 1;
            b->read[i].data = g_malloc(b->read[i].cap);
        }
        sm_port_start(b->port, b->loop, on_port, b);
        want(b);
    }
    if (b->vhost) {
        start_vhost(b);
    } else {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
            sm_port_connect(b->port, pair[1]) < 0)
            die("socketpair");
        b->sock = pair[0];
        b->out = g_malloc(4 * STREAM_ROOM);
        b->in = g_malloc(2 * STREAM_ROOM);
    }
    if (!b->nat)
        want(b);
}

static void run(struct bench *b)
{
    if (b->nat)
        (b->up ? nat_up : nat_down)(b);
    else
        (b->up ? port_up : port_down)(b);
}

#ifdef SM_BENCH_COUNTS
/* n frames' worth of bytes through the NAT, behind a first part. */
static void counted(unsigned n, bool up, bool tso)
{
    static struct bench b = {.sock = -1, .core = -1, .upstream = -1, .vhost = true, .nat = true};

    b.up = up;
    b.tso = tso;
    start(&b);
    connect_tcp(&b);
    b.enough = (n / 4 + 1) * b.frame;
    run(&b);
    b.frames = b.bytes = 0;
    b.enough = n * b.frame;
    counts_begin();
    run(&b);
    if (b.sim->wrong[0])
        die(b.sim->wrong);
}

static void up_big(unsigned n)
{
    counted(n, true, true);
}

static void up_small(unsigned n)
{
    counted(n, true, false);
}

static void down_big(unsigned n)
{
    counted(n, false, true);
}

static void down_small(unsigned n)
{
    counted(n, false, false);
}

const struct counts_case counts_vhost[] = {
    {"vhost-up", "64 KiB from a guest over vhost-user, through the NAT", 800, up_big},
    {"vhost-up-1500", "1500 bytes from a guest over vhost-user, through the NAT", 8000, up_small},
    {"vhost-down", "64 KiB to a guest over vhost-user, through the NAT", 800, down_big},
    {"vhost-down-1500", "1500 bytes to a guest over vhost-user, through the NAT", 8000, down_small},
};
const size_t n_counts_vhost = SM_ARRAY_LEN(counts_vhost);
#else
int main(int argc, char **argv)
{
    static struct bench b = {.sock = -1, .core = -1, .upstream = -1};
    double seconds = argc == 6 ? g_ascii_strtod(argv[5], NULL) : 0;

    if (seconds <= 0) {
        fprintf(stderr, "usage: vhost vhost-user|stream port|nat up|down 1500|tso SECONDS\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    b.vhost = strcmp(argv[1], "vhost-user") == 0;
    b.nat = strcmp(argv[2], "nat") == 0;
    b.up = strcmp(argv[3], "up") == 0;
    b.tso = strcmp(argv[4], "tso") == 0;
    start(&b);
    if (b.nat)
        connect_tcp(&b);
    b.busy_ns = 0;
    int64_t begin_ns = cpu_ns();
    int64_t begin = sm_clock_us();
    b.end_us = begin + (int64_t)(seconds * 1e6);
    run(&b);
    if (b.sim && b.sim->wrong[0]) {
        fprintf(stderr, "vhost: %s\n", b.sim->wrong);
        return 1;
    }
    printf("{\"port\": \"%s\", \"layer\": \"%s\", \"direction\": \"%s\", \"size\": \"%s\", \"frame\": %zu, \"frames\": "
           "%llu, "
           "\"bytes\": %llu, \"busy_us\": %lld, \"all_us\": %lld, \"wall_us\": %lld}\n",
           argv[1], argv[2], argv[3], argv[4], b.frame, (unsigned long long)b.frames, (unsigned long long)b.bytes,
           (long long)(b.busy_ns / 1000), (long long)((cpu_ns() - begin_ns) / 1000),
           (long long)(sm_clock_us() - begin));
    return b.frames > 0 ? 0 : 1;
}
#endif
