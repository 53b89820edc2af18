/* SPDX-License-Identifier: BSD-3-Clause */
/* The common part of the ports over vhost-user; see vhost_port.h. */
#include "ports/vhost_port.h"

#include <errno.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

/** Bytes of one read(), beyond a frame: what is copied out of the guest's memory is still in the processor's cache when it is judged and
 * taken apart. */
#define READ_BYTES (256u << 10)

static void update(struct sm_vhost_port *p);

struct sm_vhost_port *sm_vhost_port_of(struct sm_port *port)
{
    return sm_container_of(port, struct sm_vhost_port, port);
}

struct sm_vhost_port *sm_vhost_port_around(struct sm_vhost *vhost)
{
    return sm_container_of(vhost, struct sm_vhost_port, vhost);
}

/* ---- with the next turn ---- */

static void arm(struct sm_vhost_port *p)
{
    /* Later than now, so that it is the next turn's and others have theirs before. */
    if (p->port.loop && !sm_timer_armed(&p->again))
        sm_loop_arm(p->port.loop, &p->again, sm_loop_now(p->port.loop) + 1);
}

static void ready_again(struct sm_vhost_port *p, unsigned ready)
{
    p->again_ready |= ready;
    arm(p);
}

static void tell_guest(struct sm_vhost_port *p)
{
    const struct sm_vhost_ring *rx = &p->vhost.rings[SM_VHOST_RX];
    const uint64_t one = 1;

    p->call_due = false;
    if (rx->call_fd >= 0)
        (void)!write(rx->call_fd, &one, sizeof(one));
}

static void on_again(struct sm_timer *timer, int64_t now_us)
{
    struct sm_vhost_port *p = sm_container_of(timer, struct sm_vhost_port, again);
    unsigned ready = p->again_ready & p->port.want;

    p->again_ready = 0;
    if (p->call_due)
        tell_guest(p);
    if (ready)
        sm_port_ready(&p->port, ready);
}

/** At the end of a write(): what was put into ring 0 becomes visible, and the guest is told with the next turn, once for all of this
 * one. */
static void written(struct sm_vhost_port *p)
{
    if (!sm_vhost_ring_publish(&p->vhost.rings[SM_VHOST_RX]))
        return;
    p->call_due = true;
    if (p->port.loop)
        arm(p);
    else
        tell_guest(p);
}

/* ---- kicks ---- */

static void count_faults(struct sm_vhost_port *p)
{
    p->port.faults = p->vhost.stats.broken + p->vhost.stats.refused;
}

/** After using a ring: reports it if it has broken, and lets nothing wait for it. */
static void check(struct sm_vhost_port *p, unsigned index)
{
    bool broken = sm_vhost_check(&p->vhost, index);

    count_faults(p);
    if (broken && index == SM_VHOST_RX && (p->port.want & SM_PORT_WRITABLE))
        ready_again(p, SM_PORT_WRITABLE); /* write() drops what waits */
}

static void on_kick(struct sm_watch *watch, uint32_t events)
{
    uint64_t count;
    /* One read empties an eventfd. It is watched edge by edge, so that whatever else it may be, it wakes us only with what
     * is new. */
    (void)!read(watch->fd, &count, sizeof(count));
}

static void on_rx_kick(struct sm_watch *watch, uint32_t events)
{
    struct sm_vhost_port *p = sm_container_of(watch, struct sm_vhost_port, kicks[SM_VHOST_RX]);

    on_kick(watch, events);
    sm_port_ready(&p->port, SM_PORT_WRITABLE);
}

static void on_tx_kick(struct sm_watch *watch, uint32_t events)
{
    struct sm_vhost_port *p = sm_container_of(watch, struct sm_vhost_port, kicks[SM_VHOST_TX]);

    on_kick(watch, events);
    sm_port_ready(&p->port, SM_PORT_READABLE);
}

void sm_vhost_port_kick(struct sm_vhost *vhost, unsigned index, int fd)
{
    static void (*const on[SM_VHOST_WATCHED])(struct sm_watch *, uint32_t) = {on_rx_kick, on_tx_kick};
    struct sm_vhost_port *p = sm_vhost_port_around(vhost);

    if (index >= SM_VHOST_WATCHED)
        return;
    if (index == SM_VHOST_RX && p->call_due) /* the ring may be about to stop */
        tell_guest(p);
    if (p->port.loop)
        sm_loop_unwatch(p->port.loop, &p->kicks[index]);
    sm_watch_init(&p->kicks[index], fd, on[index]);
}

/* A ring's kicks are wanted: watched, and looked for once more after the guest was told so. */
static void listen_to(struct sm_vhost_port *p, unsigned index, unsigned ready)
{
    struct sm_vhost_ring *ring = &p->vhost.rings[index];

    if (!sm_vhost_ring_live(ring))
        return;
    if (!p->kicks[index].added && sm_loop_watch(p->port.loop, &p->kicks[index], EPOLLIN | EPOLLET) < 0)
        ring->fault = SM_VHOST_FAULT_KICK;
    else if (sm_vhost_ring_kicks_on(ring) || sm_vhost_ring_waiting(ring))
        ready_again(p, ready);
    check(p, index);
}

static void ignore(struct sm_vhost_port *p, unsigned index)
{
    sm_vhost_ring_kicks_off(&p->vhost.rings[index]);
    sm_loop_unwatch(p->port.loop, &p->kicks[index]);
}

static void update(struct sm_vhost_port *p)
{
    if (!p->port.loop)
        return;
    if (p->port.want & SM_PORT_READABLE)
        listen_to(p, SM_VHOST_TX, SM_PORT_READABLE);
    else
        ignore(p, SM_VHOST_TX);
    if (!(p->port.want & SM_PORT_WRITABLE))
        ignore(p, SM_VHOST_RX);
    else if (sm_vhost_port_running(p))
        listen_to(p, SM_VHOST_RX, SM_PORT_WRITABLE);
    else
        ready_again(p, SM_PORT_WRITABLE); /* nobody is there any more: write() drops what waits */
}

void sm_vhost_port_changed(struct sm_vhost *vhost)
{
    update(sm_vhost_port_around(vhost));
}

/* ---- the connection ---- */

static void over(struct sm_vhost_port *p, const char *why)
{
    if (why)
        sm_log_warning("vhost-user %s: the connection ends: %s", p->vhost.device->name, why);
    else
        sm_log_info("vhost-user %s: the VMM has left", p->vhost.device->name);
    sm_port_leave(&p->port);
}

static int watch_sock(struct sm_vhost_port *p)
{
    return sm_loop_watch(p->port.loop, &p->sock, sm_vhost_wants_output(&p->vhost) ? EPOLLOUT : EPOLLIN);
}

static void on_sock(struct sm_watch *watch, uint32_t events)
{
    struct sm_vhost_port *p = sm_container_of(watch, struct sm_vhost_port, sock);
    const char *why = NULL;

    if (sm_vhost_wants_output(&p->vhost)) {
        if (sm_vhost_output(&p->vhost) < 0)
            over(p, NULL);
        else if (watch_sock(p) < 0)
            over(p, "its socket cannot be watched");
        return;
    }
    int rc = sm_vhost_input(&p->vhost, &why);
    count_faults(p);
    if (rc < 0)
        over(p, why);
    else if (watch_sock(p) < 0)
        over(p, "its socket cannot be watched");
}

int sm_vhost_port_connect(struct sm_port *port, int fd)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);

    if (sm_fd_set_nonblock(fd) < 0) {
        sm_fd_close(&fd);
        return -1;
    }
    sm_watch_init(&p->sock, fd, on_sock);
    sm_vhost_open(&p->vhost, fd);
    if (port->loop && watch_sock(p) < 0) {
        sm_vhost_close(&p->vhost);
        sm_fd_close(&fd);
        return -1;
    }
    port->fd = fd;
    port->connected = true;
    return 0;
}

int sm_vhost_port_watch(struct sm_port *port, unsigned want)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);

    if (port->fd < 0)
        return 0;
    if (!p->sock.added && watch_sock(p) < 0) /* connected before there was a loop */
        return -1;
    update(p);
    return 0;
}

void sm_vhost_port_left(struct sm_port *port)
{
    struct sm_vhost_port *p = sm_vhost_port_of(port);

    if (port->loop) {
        sm_loop_unwatch(port->loop, &p->sock);
        sm_loop_disarm(port->loop, &p->again);
    }
    p->again_ready = 0;
    p->call_due = false;
    sm_vhost_close(&p->vhost); /* takes the kicks off the loop */
    port->rx_offloads = port->tx_offloads = 0;
}

void sm_vhost_port_release(struct sm_vhost_port *p)
{
    sm_vhost_port_left(&p->port);
    sm_fd_close(&p->port.fd);
}

void sm_vhost_port_init(struct sm_vhost_port *p, const struct sm_port_ops *ops, const struct sm_vhost_device *device,
                        const void *config, size_t config_len, size_t max_frame)
{
    sm_port_init(&p->port, ops, -1, max_frame);
    sm_vhost_init(&p->vhost, device, config, config_len);
    sm_watch_init(&p->sock, -1, on_sock);
    sm_watch_init(&p->kicks[SM_VHOST_RX], -1, on_rx_kick);
    sm_watch_init(&p->kicks[SM_VHOST_TX], -1, on_tx_kick);
    sm_timer_init(&p->again, on_again);
    p->again_ready = 0;
    p->call_due = false;
}

/* ---- frames of the guest ---- */

int sm_vhost_port_read(struct sm_vhost_port *p, struct sm_frame *frames, unsigned n,
                       void (*take)(struct sm_vhost_port *p, const struct sm_vhost_chain *chain,
                                    struct sm_frame *frame))
{
    struct sm_vhost_ring *tx = &p->vhost.rings[SM_VHOST_TX];
    unsigned got = 0;
    size_t bytes = 0;

    for (;;) {
        struct sm_vhost_chain chain;
        if (got == n || bytes >= READ_BYTES) {
            sm_vhost_ring_kicks_off(tx);
            if (sm_vhost_ring_waiting(tx) || sm_vhost_ring_kicks_on(tx))
                ready_again(p, SM_PORT_READABLE);
            break;
        }
        enum sm_vhost_pop rc = sm_vhost_ring_pop(tx, p->parts, SM_ARRAY_LEN(p->parts), &chain);
        if (rc == SM_VHOST_POP_CHAIN && chain.n_in > 0) {
            tx->fault = SM_VHOST_FAULT_DIRECTION;
            break;
        } else if (rc == SM_VHOST_POP_CHAIN) {
            take(p, &chain, &frames[got]);
            bytes += frames[got++].len;
            sm_vhost_ring_push(tx, chain.head, 0);
        } else if (rc != SM_VHOST_POP_NONE || !sm_vhost_ring_kicks_on(tx)) {
            break; /* broken, or dry */
        }
    }
    check(p, SM_VHOST_TX);
    if (sm_vhost_ring_live(tx))
        (void)sm_vhost_ring_call(tx);
    return (int)got;
}

int sm_vhost_port_write(struct sm_vhost_port *p, const struct sm_frame_out *frames, unsigned n,
                        enum sm_vhost_put (*put)(struct sm_vhost_port *p, const struct sm_frame_out *frame))
{
    unsigned taken = 0;
    bool full = false;

    while (taken < n && !full && sm_vhost_port_running(p)) {
        switch (put(p, &frames[taken])) {
        case SM_VHOST_PUT_DONE:
            taken++;
            break;
        case SM_VHOST_PUT_FULL: /* unless more has come while we asked to be told */
            full = !sm_vhost_ring_kicks_on(&p->vhost.rings[SM_VHOST_RX]);
            break;
        case SM_VHOST_PUT_NEVER:
            p->port.tx_dropped++;
            taken++;
            break;
        case SM_VHOST_PUT_BROKEN: /* and not running any more */
            break;
        }
    }
    check(p, SM_VHOST_RX);
    if (sm_vhost_port_running(p)) {
        written(p);
        return (int)taken;
    }
    p->port.tx_dropped += n - taken; /* no driver, or one that broke its ring */
    return (int)n;
}
