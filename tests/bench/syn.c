/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New connections in the whole front, in process: frames come from memory and go nowhere, the core is a few lines at
 * the other end of the channel. Times are processor time of the one thread, so that other work on the machine does not
 * count.
 *
 *   bench_syn held [COUNT]        SYNs to one refused destination, which the core has told the front to hold
 *   bench_syn unheld [COUNT]      SYNs to as many destinations: each is asked about, and refused at once
 *   bench_syn beside FLOWS COUNT  COUNT connections one after the other (opened, attached to a socket pair, 64 bytes up
 *                                 and down, reset by the guest) while FLOWS others are open and idle
 *
 * Prints one line of JSON. Also what callgrind runs: the work is the same each time.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "flow/msg.h"
#include "nat/front.h"
#include "nat/wire.h"

#define GUEST UINT32_C(0x0a00020f)
#define PEER UINT32_C(0xcb007107)
#define HEADERS (SM_ETH_HLEN + SM_IP_HLEN + 20)
#define WORD 64
#define SPARE_FDS 64
#define HELD_COUNT 1000000
#define UNHELD_COUNT 100000
#define UNHELD_BATCH 64

static const uint8_t guest_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
                     our_mac[6] = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};

struct segment {
    uint32_t dst, seq, ack;
    uint16_t sport, dport;
    uint8_t flags;
    size_t len; /* zeros */
};

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

struct bench {
    struct sm_loop *loop;
    struct sm_port port;
    struct sm_front *front;
    int core;
    struct segment in[SM_PORT_BATCH]; /* what the port is going to read */
    unsigned n_in;
    struct segment out; /* the last that was written */
    uint64_t written;
    bool hold; /* the core's answer to an OPEN is a refusal; held */
    bool attach;
    uint64_t asked;
    int upstream; /* the core's end of the last pair */
};

static void die(const char *what)
{
    fprintf(stderr, "bench_syn: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double cpu_s(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) < 0)
        die("clock");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the port: a card whose guest is an array ---- */

static void compose(const struct segment *s, struct sm_frame *f)
{
    struct sm_wr w = sm_wr_init(f->data, f->cap);

    sm_wr_eth(&w, our_mac, guest_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&w, GUEST, s->dst, SM_IPPROTO_TCP, 20 + s->len);
    sm_wr_u16(&w, s->sport);
    sm_wr_u16(&w, s->dport);
    sm_wr_u32(&w, s->seq);
    sm_wr_u32(&w, s->ack);
    sm_wr_u16(&w, (uint16_t)(5 << 12 | s->flags));
    sm_wr_u16(&w, 65535);
    sm_wr_u32(&w, 0); /* checksum: the card's, as with a Linux guest; no urgent data */
    memset(f->data + HEADERS, 0, s->len);
    f->len = HEADERS + s->len;
    f->offload =
        (struct sm_offload){.flags = SM_OFFLOAD_NEEDS_CSUM, .csum_start = SM_ETH_HLEN + SM_IP_HLEN, .csum_offset = 16};
}

static int port_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    struct bench *b = sm_container_of(port, struct bench, port);
    unsigned got = SM_MIN(n, b->n_in);

    for (unsigned i = 0; i < got; i++)
        compose(&b->in[i], &frames[i]);
    b->n_in = 0;
    return (int)got;
}

static int port_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    struct bench *b = sm_container_of(port, struct bench, port);

    for (unsigned i = 0; i < n; i++) {
        struct sm_rd r = sm_rd_init(frames[i].iov[0].iov_base, frames[i].iov[0].iov_len);
        sm_rd_skip(&r, SM_ETH_HLEN + SM_IP_HLEN);
        b->out = (struct segment){0};
        b->out.sport = sm_rd_u16(&r);
        b->out.dport = sm_rd_u16(&r);
        b->out.seq = sm_rd_u32(&r);
        b->out.ack = sm_rd_u32(&r);
        b->out.flags = (uint8_t)sm_rd_u16(&r);
        for (unsigned k = 0; k < frames[i].n_iov; k++)
            b->out.len += frames[i].iov[k].iov_len;
        b->written++;
    }
    return (int)n;
}

static void port_free(struct sm_port *port)
{
    sm_fd_close(&port->fd);
}

static const struct sm_port_ops port_ops = {
    .name = "memory", .read = port_read, .write = port_write, .free = port_free};

/* ---- the core ---- */

static void answer_one(struct bench *b, const struct sm_flow_msg *m)
{
    struct sm_flow_msg reply = {.type = SM_FLOW_REFUSE, .id = m->id, .how = SM_HOW_RST};
    int pair[2] = {-1, -1};
    b->asked++;
    if (b->hold) {
        reply.hold_ms = 60000;
        reply.scope = SM_SCOPE_DESTINATION;
    }
    if (b->attach) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
            die("socketpair");
        reply = (struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = m->id};
        b->upstream = pair[0];
    }
    uint8_t out[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(&reply, out, sizeof(out));
    struct iovec iov = {.iov_base = out, .iov_len = len};
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (b->attach) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        control.head =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(&control.head), &pair[1], sizeof(int));
    }
    if (sendmsg(b->core, &msg, MSG_NOSIGNAL) < 0)
        die("the channel");
    if (pair[1] >= 0)
        (void)close(pair[1]);
}

static void answer(struct bench *b)
{
    uint8_t buf[SM_FLOW_MSG_MAX];
    struct sm_flow_msg m;
    ssize_t n;

    while ((n = read(b->core, buf, sizeof(buf))) > 0) {
        struct sm_flow_packet packet = sm_flow_packet_init(buf, (size_t)n);
        while (sm_flow_packet_next(&packet, &m))
            if (m.type == SM_FLOW_OPEN)
                answer_one(b, &m);
    }
}

static void turn(struct bench *b)
{
    if (sm_loop_turn(b->loop, 0) < 0)
        die("epoll");
    answer(b);
}

static void put(struct bench *b, const struct segment *s)
{
    b->in[b->n_in++] = *s;
}

/* ---- what is measured ---- */

static size_t heap_kib(void)
{
    struct mallinfo2 m = mallinfo2();

    return (m.uordblks + m.hblkhd) / 1024;
}

static void flood(struct bench *b, bool held, unsigned count)
{
    unsigned sent = 0, batch = held ? SM_PORT_BATCH : UNHELD_BATCH;
    uint64_t written = 0;
    double begin = 0;
    size_t before = 0;

    b->hold = held;
    /* The first batch sets things up, and is not counted. */
    for (int round = -1; sent < count; round++) {
        if (round == 0) {
            before = heap_kib();
            written = b->written;
            begin = cpu_s();
        }
        for (unsigned i = 0; i < batch; i++) {
            unsigned k = held ? 0 : (unsigned)(round + 1) * batch + i;
            put(b, &(struct segment){.dst = PEER + k / 60000,
                                     .dport = (uint16_t)(1 + k % 60000),
                                     .sport = (uint16_t)(1024 + (sent + i) % 60000),
                                     .seq = sent + i,
                                     .flags = SYN});
        }
        sent += round >= 0 ? batch : 0;
        turn(b);
        if (!held || round < 0)
            turn(b); /* the answers */
        for (int i = 0; round < 0 && i < 4; i++)
            turn(b);
    }
    double spent = cpu_s() - begin;
    size_t after = heap_kib();
    written = b->written - written;
    if (written < sent) {
        fprintf(stderr, "bench_syn: %u SYNs, %lu answers\n", sent, (unsigned long)written);
        exit(1);
    }
    printf("{\"held\": %s, \"n\": %u, \"rate\": %.0f, \"grown_kib\": %ld, \"asked\": %lu}\n", held ? "true" : "false",
           sent, sent / spent, (long)after - (long)before, (unsigned long)b->asked);
}

/* A connection of the guest's, its word up and another down. */
static struct segment connection(struct bench *b, unsigned k)
{
    static const uint8_t word[WORD];
    static uint8_t got[WORD];
    struct segment s = {
        .dst = PEER + k / 60000, .dport = 80, .sport = (uint16_t)(1024 + k % 60000), .seq = k, .flags = SYN};

    put(b, &s);
    turn(b);
    turn(b);
    if (b->out.flags != (SYN | ACK) || b->out.dport != s.sport)
        die("no SYN-ACK");
    s.seq++;
    s.ack = b->out.seq + 1;
    s.flags = ACK;
    s.len = WORD;
    put(b, &s);
    turn(b);
    if (read(b->upstream, got, sizeof(got)) != WORD || write(b->upstream, word, WORD) != WORD)
        die("upstream");
    turn(b);
    if (b->out.len != HEADERS + WORD)
        die("no answer");
    s.seq += WORD;
    s.ack += WORD;
    s.len = 0;
    put(b, &s);
    turn(b);
    return s;
}

static void beside(struct bench *b, unsigned flows, unsigned count)
{
    double begin = 0;

    b->attach = true;
    for (unsigned i = 0; i < flows; i++)
        (void)connection(b, i);
    for (unsigned i = 0; i < count + 100; i++) { /* the first hundred warm the path */
        if (i == 100)
            begin = cpu_s();
        struct segment s = connection(b, flows + i);
        s.flags = RST | ACK;
        put(b, &s);
        turn(b);
        (void)close(b->upstream);
    }
    printf("{\"beside\": %u, \"n\": %u, \"us\": %.3f}\n", flows, count, (cpu_s() - begin) / count * 1e6);
}

static void on_failed(const char *text, void *data)
{
    (void)data;
    fprintf(stderr, "bench_syn: the front has failed: %s\n", text);
    exit(1);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct sm_front_config cfg = {.net = {.link = {.guest = GUEST,
                                                   .gateway = UINT32_C(0x0a000202),
                                                   .resolver = UINT32_C(0x0a000203),
                                                   .prefix_len = 24,
                                                   .mtu = 1500}}};
    struct rlimit files;
    int channel[2];
    GError *error = NULL;
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

    (void)signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    memcpy(cfg.net.link.guest_mac, guest_mac, 6);
    memcpy(cfg.net.link.our_mac, our_mac, 6);
    memset(cfg.secret, 7, sizeof(cfg.secret));
    if (sm_fd_seqpair(channel, true) < 0 || !(b.loop = sm_loop_new(&error)))
        die("start");
    sm_port_init(&b.port, &port_ops, eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC), SM_ETH_HLEN + 1500);
    b.port.rx_offloads = b.port.tx_offloads = SM_OFFLOAD_NEEDS_CSUM;
    b.core = channel[1];
    b.front = sm_front_new(b.loop, &cfg, &b.port, channel[0], on_failed, &b, &error);
    if (!b.front)
        die("the front");
    if (argc > 1 && strcmp(argv[1], "held") == 0)
        flood(&b, true, count ? count : HELD_COUNT);
    else if (argc > 1 && strcmp(argv[1], "unheld") == 0)
        flood(&b, false, count ? count : UNHELD_COUNT);
    else if (argc > 3 && strcmp(argv[1], "beside") == 0)
        beside(&b, SM_MIN(count, (unsigned)(files.rlim_max - SPARE_FDS) / 2), (unsigned)atoi(argv[3]));
    else
        return fprintf(stderr, "usage: bench_syn held|unheld [COUNT] | beside FLOWS COUNT\n"), 2;
    return 0;
}
