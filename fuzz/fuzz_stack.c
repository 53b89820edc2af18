/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_stack.c: the patched libslirp under any sequence of frames and calls.
 *
 * The input is a program: each step is a TCP segment near the numbers of one
 * of a few connections, a UDP datagram or fragment, a raw frame, a call of the
 * flow API, or time, alone or in a batch, and frames are lent or not. Checksums are made right, or left to the guest's
 * card, so that the input gets past them; what goes to the guest passes the card of the tests. After each step what
 * must always hold is checked.
 */
#include <stdint.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include "slirp-flow.h"
#include "../tests/stack/card.h"
#include "../tests/stack/frame.h"

#define CONNS 4
#define FLOWS 64

struct conn {
    SlirpFlow *flow;
    unsigned calls, closed;
    size_t budget;
};

static const uint8_t *in, *end;
static int64_t now;
static Slirp *slirp;
static struct cd_card card;
static struct conn conns[FLOWS];
static unsigned nconns;
static uint32_t last_seq[CONNS], last_ack[CONNS]; /* as the guest sees it */

static unsigned byte(void)
{
    return in < end ? *in++ : 0;
}

static unsigned word(void)
{
    unsigned hi = byte();

    return hi << 8 | byte();
}

static void must(int ok)
{
    if (!ok) {
        abort();
    }
}

static int64_t op_clock(void *opaque)
{
    (void)opaque;
    return now;
}

void cd_failed(const char *what, int line)
{
    (void)what;
    (void)line;
    abort();
}

static void from_card(const uint8_t *frame, size_t len, void *arg)
{
    uint8_t *copy = malloc(len);
    struct fr_packet p;

    (void)arg;
    must(copy != NULL);
    memcpy(copy, frame, len);
    must(fr_parse(copy, len, &p));
    if (p.proto == FR_TCP && p.ether_type == 0x0800 && !(p.frag & 0x3fff)) {
        unsigned i = (unsigned)(p.dport - 1000) % CONNS;

        last_ack[i] = p.seq + (uint32_t)p.len + (p.flags & FR_SYN ? 1 : 0) + (p.flags & FR_FIN ? 1 : 0);
        if (p.flags & FR_ACK) {
            last_seq[i] = p.ack;
        }
    }
    free(copy);
}

static void op_send(const struct iovec *iov, int cnt, const SlirpFlowMeta *meta, void *opaque)
{
    (void)opaque;
    cd_take(&card, iov, cnt, meta, from_card, NULL);
}

static void set_offload(unsigned what)
{
    static const unsigned offloads[] = {0, SLIRP_FLOW_OFFLOAD_CSUM, SLIRP_FLOW_OFFLOAD_CSUM | SLIRP_FLOW_OFFLOAD_TSO,
                                        SLIRP_FLOW_OFFLOAD_TSO};

    slirp_flow_set_offload(slirp, offloads[what % 4]);
    card.offload = what % 4 == 3 ? 0 : offloads[what % 4];
}

static void call(SlirpFlow *flow)
{
    static uint8_t data[70000];
    struct iovec iov[2];
    size_t n;

    switch (byte() % 14) {
    case 0:
        slirp_flow_accept(flow);
        break;
    case 1:
        slirp_flow_refuse(flow, (SlirpFlowVerdict)(byte() % 8));
        break;
    case 2:
    case 3:
        n = word();
        must(slirp_flow_push(flow, data, n) <= n);
        break;
    case 4:
        slirp_flow_eof(flow);
        break;
    case 5:
        slirp_flow_abort(flow);
        break;
    case 6:
    case 7:
        slirp_flow_pull(flow);
        break;
    case 8:
        slirp_flow_drop(flow, word());
        break;
    case 9:
        n = slirp_flow_held(flow, iov);
        must(n <= 512 * 1024 && iov[0].iov_len + iov[1].iov_len == n);
        break;
    case 10:
        n = slirp_flow_room(flow, iov);
        must(n <= 256 * 1024 && iov[0].iov_len + iov[1].iov_len == n);
        memset(iov[0].iov_base, 1, iov[0].iov_len);
        memset(iov[1].iov_base, 1, iov[1].iov_len);
        slirp_flow_commit(flow, word());
        break;
    default:
        break;
    }
}

static SlirpFlowVerdict op_open(const SlirpFlowAddr *addr, void **cookie, void *opaque)
{
    SlirpFlowVerdict verdict = (SlirpFlowVerdict)(byte() & 8 ? SLIRP_FLOW_ACCEPT : byte() % 8);

    (void)addr;
    (void)opaque;
    if (nconns == FLOWS && verdict >= SLIRP_FLOW_PENDING) {
        return SLIRP_FLOW_RST;
    }
    if (verdict >= SLIRP_FLOW_PENDING) {
        conns[nconns] = (struct conn){.calls = 0};
        *cookie = &conns[nconns++];
    }
    return verdict;
}

static void op_opened(SlirpFlow *flow, void *cookie, void *opaque)
{
    struct conn *c = cookie;

    (void)opaque;
    c->flow = flow;
    must(slirp_flow_cookie(flow) == c);
    if (byte() & 1) {
        call(flow);
    }
}

static void any(void *cookie)
{
    struct conn *c = cookie;

    must(!c->closed);
    if (c->flow && byte() & 1) {
        call(c->flow);
    }
    if (nconns && byte() & 1) {
        struct conn *other = &conns[byte() % nconns];

        if (other->flow) {
            call(other->flow);
        }
    }
}

static void op_established(void *cookie, void *opaque)
{
    (void)opaque;
    any(cookie);
}

static size_t op_data(void *cookie, const struct iovec *iov, int cnt, void *opaque)
{
    size_t sum = 0, n;

    (void)opaque;
    for (int i = 0; i < cnt; i++) {
        for (n = 0; n < iov[i].iov_len; n++) {
            sum += ((const volatile uint8_t *)iov[i].iov_base)[n] * 0u + 1u;
        }
    }
    must(sum > 0 && sum <= 512 * 1024);
    any(cookie);
    switch (byte() & 3) {
    case 0:
        return 0;
    case 1:
        return word() % (sum + 1);
    default:
        return sum;
    }
}

static void op_eof(void *cookie, void *opaque)
{
    (void)opaque;
    any(cookie);
}

static void op_writable(void *cookie, size_t room, void *opaque)
{
    (void)opaque;
    must(room > 0);
    any(cookie);
}

static void op_closed(void *cookie, SlirpFlowEnd how, void *opaque)
{
    struct conn *c = cookie;

    (void)opaque;
    must(how <= SLIRP_FLOW_END_SHUTDOWN);
    must(++c->closed == 1);
    c->flow = NULL;
    if (nconns && byte() & 1) {
        struct conn *other = &conns[byte() % nconns];

        if (other->flow) {
            call(other->flow);
        }
    }
}

static void op_udp(const SlirpFlowAddr *addr, const uint8_t *data, size_t len, void *opaque)
{
    (void)opaque;
    if (byte() & 1) {
        slirp_flow_udp_push(slirp, addr, data, len);
    }
    if (byte() & 1) {
        slirp_flow_udp_unreach(slirp, addr, (uint8_t)byte());
    }
}

static void op_other(uint8_t proto, struct in_addr src, struct in_addr dst, void *opaque)
{
    (void)proto;
    (void)src;
    (void)dst;
    (void)opaque;
}

static const SlirpFlowOps ops = {
    .clock_ns = op_clock,
    .send_packetv = op_send,
    .tcp_open = op_open,
    .tcp_opened = op_opened,
    .tcp_established = op_established,
    .tcp_data = op_data,
    .tcp_eof = op_eof,
    .tcp_writable = op_writable,
    .tcp_closed = op_closed,
    .udp_input = op_udp,
    .other = op_other,
};

static bool lent;

static void input(const uint8_t *frame, size_t len, bool trusted)
{
    size_t room = lent ? SLIRP_FLOW_HEADROOM : 0;
    uint8_t *copy = malloc(room + len ? room + len : 1);

    must(copy != NULL);
    memcpy(copy + room, frame, len);
    if (lent) {
        slirp_flow_input_lent(slirp, copy + room, len, trusted);
        memset(copy, 0x5a, room + len);
    } else if (trusted) {
        slirp_flow_input_trusted(slirp, copy, len);
    } else {
        slirp_flow_input(slirp, copy, len);
    }
    free(copy);
}

static void segment(bool trusted)
{
    static uint8_t buf[FR_MAX], data[65536];
    unsigned i = byte() % CONNS, shape = byte();
    struct fr_tcp tcp = {
        .src = FR_GUEST,
        .dst = FR_PEER,
        .sport = (uint16_t)(1000 + i),
        .dport = 80,
        .flags = (uint8_t)byte(),
        .win = (uint16_t)(shape & 1 ? word() : 65535),
        .urp = (uint16_t)(shape & 2 ? word() : 0),
        .mss = (uint16_t)(shape & 4 ? word() : 0),
        .data = data,
        .len = shape & 8 ? word() % 60000 : shape >> 4,
    };

    tcp.seq = last_seq[i] + (uint32_t)(int32_t)(int16_t)(shape & 16 ? word() : 0);
    tcp.ack = last_ack[i] + (uint32_t)(int32_t)(int16_t)(shape & 32 ? word() : 0);
    /* A window scale, as long as its byte says. */
    uint8_t opts[4] = {1, 3, (uint8_t)(i & 1 ? 3 : shape & 7), (uint8_t)shape};
    if (shape & 64) {
        tcp.opts = opts;
        tcp.nopts = sizeof(opts);
    }
    size_t n = fr_tcp(buf, &tcp);
    if (trusted) {
        fr_partial(buf);
    }
    input(buf, n, trusted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t mtus[] = {576, 1500, 9000, 65520};
    static uint8_t buf[FR_MAX];
    SlirpFlowConfig cfg = {.gateway = {htonl(FR_GATEWAY)}, .guest = {htonl(FR_GUEST)}, .max_flows = 40};
    SlirpFlowStats stats;
    size_t n;

    in = data;
    end = data + size;
    now = 0;
    nconns = 0;
    memset(conns, 0, sizeof(conns));
    memset(last_seq, 0, sizeof(last_seq));
    memset(last_ack, 0, sizeof(last_ack));
    memcpy(cfg.guest_mac, fr_guest_mac, 6);
    n = byte();
    cfg.mtu = mtus[n % 4];
    slirp = slirp_flow_new(&cfg, &ops, NULL);
    must(slirp != NULL);
    card = (struct cd_card){.mtu = cfg.mtu};
    set_offload((unsigned)n / 4);
    bool batch = false;
    while (in < end) {
        unsigned op = byte();
        if (!batch && op & 0x20) {
            slirp_flow_begin(slirp);
        }
        if (batch && !(op & 0x20)) {
            slirp_flow_end(slirp);
        }
        batch = op & 0x20;
        lent = op & 0x40;
        bool trusted = op & 0x80; /* the guest's card has the checksum, or will have */

        switch (op % 8) {
        case 0:
        case 1:
        case 2:
            segment(trusted);
            break;
        case 3: /* a fragment, or a whole datagram of any protocol */
            n = word() % 2000;
            memset(buf + 34, (int)n, n);
            {
                uint16_t id = (uint16_t)(byte() & 3), frag = (uint16_t)(word() & 0x3fff);

                n = fr_ip4(buf, (uint8_t)(byte() & 1 ? FR_UDP : FR_ICMP), FR_GUEST, FR_GATEWAY, id, frag, NULL, n);
                input(buf, n, trusted);
            }
            break;
        case 4: /* raw, behind good addresses */
            n = byte();
            n = n < (size_t)(end - in) ? n : (size_t)(end - in);
            memcpy(buf, fr_gateway_mac, 6);
            memcpy(buf + 6, fr_guest_mac, 6);
            memcpy(buf + 12, in, n);
            in += n;
            input(buf, 12 + n, trusted);
            break;
        case 5:
            if (nconns) {
                struct conn *c = &conns[byte() % nconns];

                if (c->flow) {
                    call(c->flow);
                }
            }
            break;
        case 6:
            if (trusted) {
                set_offload(byte()); /* the guest's driver starts anew */
            }
            now += (int64_t)byte() * 100000000;
            slirp_flow_timer(slirp);
            break;
        case 7:
            n = byte() % (size + 1);
            n = fr_udp(buf, FR_GUEST, FR_PEER, (uint16_t)word(), (uint16_t)word(), data, n);
            if (trusted) {
                fr_partial(buf);
            }
            input(buf, n, trusted);
            break;
        }
        slirp_flow_stats(slirp, &stats);
        must(stats.flows <= 40 && stats.held_bytes <= 16 * 1024 * 1024);
    }
    if (batch) {
        slirp_flow_end(slirp);
    }
    slirp_flow_free(slirp);
    for (unsigned i = 0; i < nconns; i++) {
        must(conns[i].closed == 1);
    }
    return 0;
}
