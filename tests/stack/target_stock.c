/* SPDX-License-Identifier: BSD-3-Clause */
/* target_stock.c: libslirp 4.7.0 as released, with its host sockets. */
#include "target.h"

#include <poll.h>
#include <string.h>
#include <arpa/inet.h>
#include <glib.h>

#include "libslirp.h"

const bool tg_has_bugs = true;

static Slirp *slirp;
static GQueue frames = G_QUEUE_INIT;
static struct pollfd fds[64];
static nfds_t nfds;

static ssize_t cb_send(const void *buf, size_t len, void *opaque)
{
    (void)opaque;
    g_queue_push_tail(&frames, g_bytes_new(buf, len));
    return (ssize_t)len;
}

static void cb_error(const char *msg, void *opaque)
{
    (void)msg;
    (void)opaque;
}

static int64_t cb_clock(void *opaque)
{
    (void)opaque;
    return g_get_monotonic_time() * 1000;
}

static void *cb_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
    (void)cb;
    (void)cb_opaque;
    (void)opaque;
    return NULL;
}

static void cb_timer_free(void *timer, void *opaque)
{
    (void)timer;
    (void)opaque;
}

static void cb_timer_mod(void *timer, int64_t expire, void *opaque)
{
    (void)timer;
    (void)expire;
    (void)opaque;
}

static void cb_fd(int fd, void *opaque)
{
    (void)fd;
    (void)opaque;
}

static void cb_notify(void *opaque)
{
    (void)opaque;
}

static const SlirpCb callbacks = {
    .send_packet = cb_send,
    .guest_error = cb_error,
    .clock_get_ns = cb_clock,
    .timer_new = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_fd,
    .unregister_poll_fd = cb_fd,
    .notify = cb_notify,
};

void tg_start(bool accept, bool loopback)
{
    SlirpConfig cfg = {
        .version = 4,
        .in_enabled = true,
        .vnetwork = {htonl(FR_IP(10, 0, 2, 0))},
        .vnetmask = {htonl(0xffffff00)},
        .vhost = {htonl(FR_GATEWAY)},
        .vnameserver = {htonl(FR_RESOLVER)},
        .vdhcp_start = {htonl(FR_GUEST)},
        .disable_host_loopback = !loopback,
        .disable_dns = true,
    };
    uint8_t buf[64];

    (void)accept;
    slirp = slirp_new(&cfg, &callbacks, NULL);
    slirp_input(slirp, buf, (int)fr_arp(buf, fr_guest_mac, FR_GUEST, FR_GUEST));
}

void tg_input(const uint8_t *frame, size_t len)
{
    slirp_input(slirp, frame, (int)len);
}

static int add_poll(int fd, int events, void *opaque)
{
    short want = 0;

    (void)opaque;
    want |= events & SLIRP_POLL_IN ? POLLIN : 0;
    want |= events & SLIRP_POLL_OUT ? POLLOUT : 0;
    want |= events & SLIRP_POLL_PRI ? POLLPRI : 0;
    g_assert(nfds < G_N_ELEMENTS(fds));
    fds[nfds] = (struct pollfd){.fd = fd, .events = want};
    return (int)nfds++;
}

static int get_revents(int idx, void *opaque)
{
    short got = fds[idx].revents;
    int events = 0;

    (void)opaque;
    events |= got & POLLIN ? SLIRP_POLL_IN : 0;
    events |= got & POLLOUT ? SLIRP_POLL_OUT : 0;
    events |= got & POLLPRI ? SLIRP_POLL_PRI : 0;
    events |= got & POLLERR ? SLIRP_POLL_ERR : 0;
    events |= got & POLLHUP ? SLIRP_POLL_HUP : 0;
    return events;
}

void tg_work(int ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;

    do {
        uint32_t timeout = 20;

        nfds = 0;
        slirp_pollfds_fill(slirp, &timeout, add_poll, NULL);
        slirp_pollfds_poll(slirp, poll(fds, nfds, (int)timeout) < 0, get_revents, NULL);
    } while (g_queue_is_empty(&frames) && g_get_monotonic_time() < end);
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
    return 0;
}
