/* SPDX-License-Identifier: BSD-3-Clause */
/* target_flow.c: the patched library, with an embedder that takes all. */
#include "target.h"

#include <string.h>
#include <arpa/inet.h>
#include <glib.h>

#include "slirp-flow.h"

const bool tg_has_bugs = false;

static Slirp *slirp;
static SlirpFlowVerdict verdict;
static size_t taken;
static GQueue frames = G_QUEUE_INIT;

static int64_t op_clock(void *opaque)
{
    (void)opaque;
    return g_get_monotonic_time() * 1000;
}

static void op_send(const void *frame, size_t len, void *opaque)
{
    (void)opaque;
    g_queue_push_tail(&frames, g_bytes_new(frame, len));
}

static SlirpFlowVerdict op_open(const SlirpFlowAddr *addr, void **cookie, void *opaque)
{
    (void)addr;
    (void)cookie;
    (void)opaque;
    return verdict;
}

static void op_opened(SlirpFlow *flow, void *cookie, void *opaque)
{
    (void)flow;
    (void)cookie;
    (void)opaque;
}

static size_t op_data(void *cookie, const struct iovec *iov, int cnt, void *opaque)
{
    size_t n = 0;

    (void)cookie;
    (void)opaque;
    while (cnt--) {
        n += iov++->iov_len;
    }
    taken += n;
    return n;
}

static void op_eof(void *cookie, void *opaque)
{
    (void)cookie;
    (void)opaque;
}

static void op_writable(void *cookie, size_t room, void *opaque)
{
    (void)cookie;
    (void)room;
    (void)opaque;
}

static void op_closed(void *cookie, SlirpFlowEnd how, void *opaque)
{
    (void)cookie;
    (void)how;
    (void)opaque;
}

static void op_udp(const SlirpFlowAddr *addr, const uint8_t *data, size_t len, void *opaque)
{
    (void)addr;
    (void)data;
    (void)len;
    (void)opaque;
}

static const SlirpFlowOps ops = {
    .clock_ns = op_clock,
    .send_packet = op_send,
    .tcp_open = op_open,
    .tcp_opened = op_opened,
    .tcp_data = op_data,
    .tcp_eof = op_eof,
    .tcp_writable = op_writable,
    .tcp_closed = op_closed,
    .udp_input = op_udp,
};

void tg_start(bool accept, bool loopback)
{
    SlirpFlowConfig cfg = {.gateway = {htonl(FR_GATEWAY)}, .guest = {htonl(FR_GUEST)}};

    (void)loopback;
    verdict = accept ? SLIRP_FLOW_ACCEPT : SLIRP_FLOW_RST;
    memcpy(cfg.guest_mac, fr_guest_mac, 6);
    slirp = slirp_flow_new(&cfg, &ops, NULL);
}

void tg_input(const uint8_t *frame, size_t len)
{
    slirp_flow_input(slirp, frame, len);
}

void tg_work(int ms)
{
    (void)ms;
    slirp_flow_timer(slirp);
}

bool tg_next(struct fr_packet *ret)
{
    static GBytes *last;

    g_clear_pointer(&last, g_bytes_unref);
    last = g_queue_pop_head(&frames);
    return last && fr_parse(g_bytes_get_data(last, NULL), g_bytes_get_size(last), ret);
}

size_t tg_taken(void)
{
    return taken;
}
