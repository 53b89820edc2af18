/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole front: frames of a hostile guest, through guard and libslirp, with a core that answers as the input says
 * and a clock that the input moves. The input is a list of operations, so that mutation keeps meaning; frames come raw,
 * repaired (lengths and checksums made right, so that they get further in) or as segments of connections that the
 * harness follows, with any metadata beside them or with right one. What goes to the guest may ask its card for no more
 * than was agreed, and for nothing that its headers do not bear out.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "flow/msg.h"
#include "flow/udpbatch.h"
#include "nat/front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 400
#define MAX_UP 8
#define MAX_IDS 16
#define MAX_CONN 4
#define MAX_BATCH 8
#define MODEL 4096 /* more ids than one input can ask about */

static const struct sm_link wire = {.guest_mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
                                    .our_mac = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02},
                                    .guest = 0x0a00020f,
                                    .gateway = 0x0a000202,
                                    .resolver = 0x0a000203,
                                    .dns = {0x0a000203},
                                    .n_dns = 1,
                                    .n_routes = 1,
                                    .prefix_len = 24,
                                    .mtu = 1500};

/* What the core may believe about an id that the front chose; op 0 is "never". */
struct model {
    uint64_t id;
    uint32_t shown;    /* bytes of BYTES */
    unsigned accepted; /* the operation in which the core said ACCEPT or ATTACH */
    unsigned attached;
    unsigned ended; /* ... REFUSE or ABORT */
    bool udp, eof, gone;
};

struct world {
    struct sm_loop *loop;
    struct sm_front *front;
    int core;
    bool failed;
    int64_t now_us;
    bool card_full;
    int up[MAX_UP];
    unsigned next_up;
    unsigned op;
    uint64_t last_id;
    uint64_t said_id; /* what the core said last, in which operation */
    enum sm_flow_type said;
    unsigned said_op;
    struct model model[MODEL];
    uint64_t ids[MAX_IDS]; /* the last ones asked about */
    unsigned n_ids;
    struct {
        uint32_t snd, rcv;
    } conn[MAX_CONN];
    struct sm_frame batch[MAX_BATCH];
    unsigned n_batch;
    struct sm_port *port;
    struct sm_offload offload; /* of the next frame */
    bool mend_offload;         /* ... made right for it as far as it has any */
};

static struct world *w;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static struct model *model_of(uint64_t id)
{
    struct model *m = &w->model[id % MODEL];
    return id != 0 && m->id == id ? m : NULL;
}

static int port_read(struct sm_port *port, struct sm_frame *frames, unsigned n)
{
    return 0;
}

/* What a frame leaves to the guest's card, by the first bytes of it. */
static void check_offload(const struct sm_port *port, const struct sm_offload *o, const uint8_t *head, size_t len,
                          size_t total)
{
    bool cut = o->gso_type != SM_GSO_NONE, tcp = head[23] == SM_IPPROTO_TCP;
    size_t hlen = tcp ? 54 : 42;

    must(((o->flags | (cut ? SM_OFFLOAD_GSO(o->gso_type) : 0u)) & ~port->tx_offloads) == 0);
    must(total <= SM_ETH_HLEN + (cut ? (size_t)SM_IP_MAX : wire.mtu));
    must(!cut || (o->flags & SM_OFFLOAD_NEEDS_CSUM));
    if (!(o->flags & SM_OFFLOAD_NEEDS_CSUM))
        return;
    struct sm_rd length = sm_rd_init(head + 16, 2), sum = sm_rd_init(head + 34 + (tcp ? 16 : 6), 2);
    must(len >= hlen && head[12] == 8 && head[13] == 0 && head[14] == 0x45 && (tcp || head[23] == SM_IPPROTO_UDP));
    must(sm_rd_u16(&length) == total - SM_ETH_HLEN && (head[20] & 0x3f) == 0 && head[21] == 0);
    must(o->csum_start == 34 && o->csum_offset == (tcp ? 16 : 6) && o->hdr_len == hlen);
    uint16_t pseudo = sm_csum_fold(sm_csum_add(head[23] + (uint32_t)(total - 34), head + 26, 8));
    must(sm_rd_u16(&sum) + pseudo == 0xffff);
    if (!cut)
        return;
    must(tcp == (o->gso_type == SM_GSO_TCPV4) && o->gso_size > 0 && total - hlen > o->gso_size);
    must(hlen - SM_ETH_HLEN + o->gso_size <= wire.mtu);
    must(tcp || total - hlen <= (size_t)o->gso_size * SM_DGRAMS_RUN_MAX);
}

/* What goes to the guest: connections of the harness learn the front's sequence numbers from it. */
static int port_write(struct sm_port *port, const struct sm_frame_out *frames, unsigned n)
{
    if (w->card_full)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        uint8_t head[54];
        size_t len = 0, total = 0;
        for (unsigned k = 0; k < frames[i].n_iov; k++) {
            size_t take = SM_MIN(sizeof(head) - len, frames[i].iov[k].iov_len);
            memcpy(head + len, frames[i].iov[k].iov_base, take);
            len += take;
            total += frames[i].iov[k].iov_len;
        }
        must(len >= SM_ETH_HLEN);
        check_offload(port, &frames[i].offload, head, len, total);
        must(memcmp(head, wire.guest_mac, SM_ETH_ALEN) == 0 || (head[0] & 1));
        if (len == sizeof(head) && head[12] == 8 && head[13] == 0 && head[23] == SM_IPPROTO_TCP &&
            head[37] < MAX_CONN) {
            struct sm_rd r = sm_rd_init(head + 38, 8);
            uint32_t payload = (uint32_t)(total - 34 - (size_t)(head[46] >> 4) * 4);
            w->conn[head[37]].rcv = sm_rd_u32(&r) + payload + (head[47] & 3 ? 1 : 0);
        }
    }
    return (int)n;
}

static void port_free(struct sm_port *port)
{
    sm_fd_close(&port->fd);
    free(port);
}

static const struct sm_port_ops port_ops = {.name = "fuzz", .read = port_read, .write = port_write, .free = port_free};

static void on_failed(const char *text, void *data)
{
    w->failed = true;
}

static int64_t clock_us(void *data)
{
    return w->now_us;
}

static void flush_batch(void)
{
    if (w->n_batch > 0)
        sm_front_input(w->front, w->batch, w->n_batch);
    for (unsigned i = 0; i < w->n_batch; i++)
        free(w->batch[i].data);
    w->n_batch = 0;
}

static void frame_in(const uint8_t *data, size_t len)
{
    /* Exact size, so that a byte read too far is seen. */
    uint8_t *exact = malloc(len ? len : 1);
    must(exact != NULL);
    if (len)
        memcpy(exact, data, len);
    struct sm_offload o = w->offload;
    if (w->mend_offload && len >= 54) {
        bool tcp = exact[23] == SM_IPPROTO_TCP;
        o.csum_start = (uint16_t)(SM_ETH_HLEN + (exact[14] & 15) * 4);
        o.csum_offset = tcp ? 16 : 6;
        o.hdr_len = (uint16_t)(o.csum_start + (tcp ? (exact[46] >> 4) * 4 : 8));
    }
    w->offload = (struct sm_offload){0};
    w->mend_offload = false;
    w->batch[w->n_batch++] = (struct sm_frame){.data = exact, .cap = len, .len = len, .offload = o};
}

/* Metadata for the next frame: raw, or with the offsets made right. */
static void metadata(struct sm_rd *r)
{
    uint8_t what = sm_rd_u8(r);

    w->mend_offload = what & 0x80;
    w->offload = (struct sm_offload){.flags = sm_rd_u8(r), .gso_type = what & 0x7f, .gso_size = sm_rd_u16(r)};
    if (w->mend_offload)
        return;
    w->offload.hdr_len = sm_rd_u16(r);
    w->offload.csum_start = sm_rd_u16(r);
    w->offload.csum_offset = sm_rd_u16(r);
}

/* The guest's driver starts again: what is agreed on is new, and of what waits nothing may be more. */
static void renegotiate(struct sm_rd *r)
{
    enum { SUM = SM_OFFLOAD_NEEDS_CSUM, TCP = SM_OFFLOAD_GSO(SM_GSO_TCPV4), UDP = SM_OFFLOAD_GSO(SM_GSO_UDPV4) };
    static const uint32_t tx[] = {0, SUM, SUM | TCP, TCP, SUM | TCP | UDP, SUM | UDP, UDP, TCP | UDP};
    uint8_t what = sm_rd_u8(r);

    w->port->rx_offloads = (what & 7) | (what & 8 ? SM_OFFLOAD_GSO(SM_GSO_TCPV4) : 0u);
    w->port->tx_offloads = tx[what >> 4 & 7];
}

/* Make a frame right where a random one is always wrong. */
static void repair(uint8_t *f, size_t len)
{
    if (len < 34)
        return;
    memcpy(f, wire.our_mac, 6);
    memcpy(f + 6, wire.guest_mac, 6);
    sm_put_u16(f + 12, SM_ETHERTYPE_IPV4);
    f[14] = (uint8_t)(0x40 | SM_MAX(5, f[14] & 15));
    size_t header = (size_t)(f[14] & 15) * 4;
    if (len < SM_ETH_HLEN + header)
        return;
    sm_put_u16(f + 16, (uint16_t)(len - SM_ETH_HLEN));
    struct sm_wr src = sm_wr_init(f + 26, 4);
    sm_wr_u32(&src, wire.guest);
    sm_put_u16(f + 24, 0);
    sm_put_u16(f + 24, sm_csum_fold(sm_csum_add(0, f + 14, header)));
    uint8_t *l4 = f + SM_ETH_HLEN + header;
    size_t l4_len = len - SM_ETH_HLEN - header;
    uint32_t pseudo = sm_csum_add(f[23] + (uint32_t)l4_len, f + 26, 8);
    if (f[23] == SM_IPPROTO_TCP && l4_len >= SM_TCP_HLEN) {
        sm_put_u16(l4 + 16, 0);
        sm_put_u16(l4 + 16, sm_csum_fold(sm_csum_add(pseudo, l4, l4_len)));
    } else if (f[23] == SM_IPPROTO_UDP && l4_len >= SM_UDP_HLEN) {
        sm_put_u16(l4 + 4, (uint16_t)l4_len);
        sm_put_u16(l4 + 6, 0);
    }
}

static void raw_frame(struct sm_rd *r, bool mend)
{
    uint8_t f[2048];
    size_t len = SM_MIN(sm_rd_u16(r) % 1600u, sm_rd_left(r));
    const uint8_t *p = sm_rd_take(r, len);
    if (!p)
        return;
    memcpy(f, p, len);
    if (mend)
        repair(f, len);
    frame_in(f, len);
}

static void build_ip(struct sm_wr *out, uint8_t proto)
{
    memset(out->p, 0, 34);
    out->len = 34;
    out->p[14] = 0x45;
    out->p[22] = 64;
    out->p[23] = proto;
    out->p[30] = 203;
    out->p[32] = 113;
    out->p[33] = 7;
}

/* One segment of connection n (guest port = n): flags and small lies about the numbers come from the input. */
static void segment(struct sm_rd *r)
{
    static uint8_t f[66000];
    uint8_t n = sm_rd_u8(r) % MAX_CONN, flags = sm_rd_u8(r);
    int8_t seq_off = (int8_t)sm_rd_u8(r), ack_off = (int8_t)sm_rd_u8(r);
    uint16_t window = sm_rd_u16(r);
    size_t len = (size_t)sm_rd_u8(r) * (w->offload.gso_type ? 256 : 5);
    struct sm_wr out = sm_wr_init(f, sizeof(f));

    build_ip(&out, SM_IPPROTO_TCP);
    sm_wr_u16(&out, (uint16_t)(0x100 | n));
    sm_wr_u16(&out, (uint16_t)(80 + n));
    sm_wr_u32(&out, w->conn[n].snd + (uint32_t)seq_off * 16);
    sm_wr_u32(&out, w->conn[n].rcv + (uint32_t)ack_off * 16);
    sm_wr_u8(&out, 0x50);
    sm_wr_u8(&out, flags);
    sm_wr_u16(&out, window);
    sm_wr_u16(&out, 0);
    sm_wr_u16(&out, flags & 0x20 ? (uint16_t)(len * 3) : 0);
    uint8_t *payload = sm_wr_room(&out, len);
    memset(payload, 'a' + n, len);
    repair(f, out.len);
    frame_in(f, out.len);
    if (seq_off == 0)
        w->conn[n].snd += (uint32_t)len + (flags & 3 ? 1 : 0);
}

static void datagram(struct sm_rd *r)
{
    uint8_t f[1600], n = sm_rd_u8(r);
    size_t len = (size_t)sm_rd_u8(r) * 5;
    struct sm_wr out = sm_wr_init(f, sizeof(f));

    build_ip(&out, SM_IPPROTO_UDP);
    sm_wr_u16(&out, (uint16_t)(1000 + n % 8));
    sm_wr_u16(&out, n & 0x80 ? 53 : 443);
    sm_wr_u32(&out, 0);
    uint8_t *payload = sm_wr_room(&out, len);
    memset(payload, 'u', len);
    if (n & 0x40) {
        f[30] = 10;
        f[31] = 0;
        f[32] = 2;
        f[33] = 3;
    }
    repair(f, out.len);
    frame_in(f, out.len);
}

static void core_said(struct model *known, enum sm_flow_type type)
{
    if (known->gone || known->ended)
        return;
    if ((type == SM_FLOW_ACCEPT || type == SM_FLOW_ATTACH) && !known->accepted)
        known->accepted = w->op;
    if (type == SM_FLOW_ATTACH && !known->attached)
        known->attached = w->op;
    if (type == SM_FLOW_REFUSE || type == SM_FLOW_ABORT)
        known->ended = w->op;
}

static void core_says(struct sm_rd *r)
{
    static const enum sm_flow_type types[] = {SM_FLOW_REFUSE,  SM_FLOW_ACCEPT,   SM_FLOW_ATTACH,  SM_FLOW_ABORT,
                                              SM_FLOW_INBOUND, SM_FLOW_DATAGRAM, SM_FLOW_RELEASE, SM_FLOW_ATTACH};
    uint8_t what = sm_rd_u8(r), which = sm_rd_u8(r), arg = sm_rd_u8(r), raw[SM_FLOW_MSG_MAX], text[64] = {0};
    struct sm_endpoint guest = {.addr = sm_addr_from_u32(wire.guest), .port = arg},
                       peer = {.addr = sm_addr_v4(203, 0, 113, 7), .port = which};
    struct sm_flow_msg m = {.type = types[what % SM_ARRAY_LEN(types)],
                            .id = which & 0x80 ? which : w->ids[which % MAX_IDS],
                            .how = (enum sm_flow_how)(arg % SM_HOWS),
                            .scope = (enum sm_flow_scope)(arg / 8 % SM_SCOPES),
                            .hold_ms = arg * 40u,
                            .consumed = arg & 0x40 ? 0 : arg,
                            .guest_port = (uint16_t)(arg % MAX_CONN | 0x100),
                            .src = guest,
                            .dst = peer};
    int pair[2] = {-1, -1};

    if (m.type == SM_FLOW_INBOUND) {
        m.id = SM_FLOW_ID_CORE | which;
        m.src = peer;
        m.src.port = (uint16_t)(80 + arg % MAX_CONN);
    } else if (m.type == SM_FLOW_DATAGRAM || m.type == SM_FLOW_RELEASE) {
        m.id = 0;
        m.data = text;
        m.data_len = m.type == SM_FLOW_DATAGRAM ? arg % sizeof(text) : 0;
    } else if (m.id == 0) {
        m.id = 1;
    }
    size_t len = sm_flow_encode(&m, raw, sizeof(raw));
    must(len > 0);
    if (sm_flow_fds(m.type) == 1) {
        int type = arg & 0x80 ? SOCK_SEQPACKET : SOCK_STREAM;
        must(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
        sm_fd_close(&w->up[w->next_up]);
        w->up[w->next_up] = pair[1];
        w->next_up = (w->next_up + 1) % MAX_UP;
    }
    w->said_id = m.id;
    w->said = m.type;
    w->said_op = w->op;
    struct model *known = model_of(m.id);
    if (known)
        core_said(known, m.type);
    (void)sm_fd_send(w->core, raw, len, pair, pair[0] >= 0 ? 1 : 0);
    sm_fd_close(&pair[0]);
}

static void upstream_does(struct sm_rd *r)
{
    static uint8_t bytes[16384];
    uint8_t which = sm_rd_u8(r), what = sm_rd_u8(r);
    size_t size = (what & 0x7cu) * 5u + 1, all = size * (what & 0x0cu) * 2u + 1;
    uint8_t sink[8192];
    int *fd = &w->up[which % MAX_UP];

    if (*fd < 0)
        return;
    switch (what & 3) {
    case 0:
        /* A run, or a lie about one, as the core would send of a UDP flow; to a TCP flow all of it is bytes. */
        sm_udpbatch_put_head(bytes, what & 0x80 ? all : what, size);
        (void)!write(*fd, bytes, what & 0x80 ? SM_UDPBATCH_HEAD + all : (size_t)what * 32);
        break;
    case 1:
        (void)!read(*fd, sink, sizeof(sink));
        break;
    case 2:
        (void)shutdown(*fd, SHUT_WR);
        break;
    default:
        sm_fd_close(fd);
        break;
    }
}

/* A message about one flow: legal in the state that the model has. What the core said in this very operation may have
 * crossed it. */
static void hear_of_flow(const struct sm_flow_msg *m)
{
    struct model *known = model_of(m->id);

    must(known && !known->gone && (!known->ended || known->ended == w->op));
    if (m->type == SM_FLOW_GONE) {
        known->gone = true;
        return;
    }
    must(!known->udp && !known->eof && known->accepted && (!known->attached || known->attached == w->op));
    if (m->type == SM_FLOW_EOF) {
        known->eof = true;
        return;
    }
    known->shown += (uint32_t)m->data_len;
    must(known->shown <= SM_FLOW_HELD_MAX);
}

static void hear_message(const struct sm_flow_msg *m)
{
    must(m->type == SM_FLOW_OPEN || m->type == SM_FLOW_BYTES || m->type == SM_FLOW_ATTACHED ||
         m->type == SM_FLOW_GONE || m->type == SM_FLOW_DATAGRAM || m->type == SM_FLOW_OTHER ||
         m->type == SM_FLOW_REPEATED || m->type == SM_FLOW_EOF);
    if (m->type == SM_FLOW_OPEN) {
        struct model *fresh = &w->model[m->id % MODEL];
        must(m->id == w->last_id + 1); /* never used again */
        w->last_id = m->id;
        *fresh = (struct model){.id = m->id, .udp = m->proto == SM_FLOW_UDP};
        w->ids[w->n_ids++ % MAX_IDS] = m->id;
        /* A batch is handed in behind what the core says in the same operation, which may have guessed the id. */
        if (w->said_op == w->op && w->said_id == m->id)
            core_said(fresh, w->said);
    }
    if ((m->type == SM_FLOW_BYTES || m->type == SM_FLOW_EOF || m->type == SM_FLOW_GONE) && !(m->id & SM_FLOW_ID_CORE))
        hear_of_flow(m);
}

/* What the front said, which must be legal, and what the core remembers of it. */
static void core_hears(void)
{
    uint8_t raw[SM_FLOW_MSG_MAX];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;
    ssize_t n;

    while ((n = sm_fd_recv(w->core, raw, sizeof(raw), fds, &n_fds)) > 0) {
        struct sm_flow_packet packet = sm_flow_packet_init(raw, (size_t)n);
        struct sm_flow_msg m;
        must(n_fds == 0);
        while (sm_flow_packet_next(&packet, &m))
            hear_message(&m);
        must(!packet.bad);
    }
}

static void check(void)
{
    struct sm_front_stats s;
    sm_front_stats(w->front, &s);
    must(s.tcp_now <= SM_FRONT_TCP_MAX && s.udp_now <= SM_FRONT_UDP_MAX + 1 && s.asked_now <= SM_FRONT_ASKED_MAX);
    must(s.held_now <= SM_FRONT_HELD_TOTAL + (1u << 20) && s.queued_now <= s.tcp_now * (256u << 10));
}

static void start(void)
{
    struct sm_front_config cfg = {.net = {.link = wire, .dns_any = false}, .clock_us = clock_us};
    int channel[2], idle[2];
    struct sm_port *port = calloc(1, sizeof(*port));

    (void)signal(SIGPIPE, SIG_IGN); /* as the sandbox does */
    sm_log_set_level(SM_LOG_ERROR);
    must(port && sm_fd_seqpair(channel, true) == 0 && sm_fd_seqpair(idle, true) == 0);
    sm_port_init(port, &port_ops, idle[0], SM_ETH_HLEN + wire.mtu); /* of its read buffers, which nobody uses here */
    w->port = port;
    w->up[0] = idle[1]; /* keeps the port's descriptor from hanging up */
    for (unsigned i = 1; i < MAX_UP; i++)
        w->up[i] = -1;
    w->next_up = 1;
    w->now_us = 1000000;
    w->loop = sm_loop_new(NULL);
    w->core = channel[1];
    w->front = sm_front_new(w->loop, &cfg, port, channel[0], on_failed, NULL, NULL);
    must(w->loop && w->front);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world; /* the model is large for a stack */
    struct sm_rd r = sm_rd_init(data, size);

    memset(&world, 0, sizeof(world));
    w = &world;
    start();
    for (unsigned ops = 0; ops < MAX_OPS && sm_rd_left(&r) > 0 && !w->failed; ops++) {
        uint8_t op = sm_rd_u8(&r);
        w->op = ops + 1;
        switch ((op & 0x7f) % 11) {
        case 0:
            raw_frame(&r, false);
            break;
        case 1:
            raw_frame(&r, true);
            break;
        case 2:
        case 3:
            segment(&r);
            break;
        case 4:
            datagram(&r);
            break;
        case 5:
            core_says(&r);
            break;
        case 6:
            upstream_does(&r);
            break;
        case 7:
            w->now_us += (int64_t)sm_rd_u8(&r) * 100000;
            sm_front_tick(w->front);
            break;
        case 8:
            w->card_full = !w->card_full;
            break;
        case 9:
            metadata(&r);
            continue;
        default:
            renegotiate(&r);
            break;
        }
        /* The top bit keeps a frame for a batch with the next ones. */
        if ((op & 0x80) && (op & 0x7f) % 11 < 5 && w->n_batch < MAX_BATCH)
            continue;
        flush_batch();
        must(sm_loop_turn(w->loop, 0) == 0);
        core_hears();
        check();
    }
    flush_batch();
    sm_front_free(w->front);
    sm_loop_free(w->loop);
    for (unsigned i = 0; i < MAX_UP; i++)
        sm_fd_close(&w->up[i]);
    sm_fd_close(&w->core);
    return 0;
}
