/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UDP flows: one connected socket and one SOCK_SEQPACKET pair for each 4-tuple, so that only the peer that the guest addressed can answer.
 *
 * The pair carries datagrams in batches (flow/udpbatch.h). A datagram that does not fit anywhere is dropped, as on any network; nothing is
 * queued here. The packets of the front are decoded strictly: a malformed one ends the flow.
 */
#include "core/limits.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "flow/udpbatch.h"

/** Packets or datagrams moved in one turn for one flow: fairness between flows. */
#define UDP_TURN_MAX 32

void sm_udp_end(struct sm_session *s, const char *reason)
{
    struct sm_flow_msg m = {.type = SM_FLOW_ABORT, .id = s->id};

    (void)sm_channel_send(s->core->channel, &m, -1);
    sm_session_close(s, reason);
}

static void on_idle(struct sm_timer *timer, int64_t now_us)
{
    struct sm_session *s = sm_container_of(timer, struct sm_session, timer);
    int64_t due = s->last_us + (s->replied ? SM_CORE_UDP_REPLIED_US : SM_CORE_UDP_IDLE_US);

    if (now_us >= due)
        sm_udp_end(s, "idle");
    else
        sm_loop_arm(s->core->loop, timer, due);
}

/* The peer's ICMP: port unreachable goes on to the guest, the flow is over; the guest's next datagram opens a new one. */
static void upstream_error(struct sm_session *s, int err)
{
    struct sm_flow_msg m = {.type = SM_FLOW_REFUSE, .id = s->id, .how = SM_HOW_ICMP_HOST};

    if (err == ECONNREFUSED)
        m.how = SM_HOW_ICMP_PORT;
    else if (err == ENETUNREACH)
        m.how = SM_HOW_ICMP_NET;
    else if (err == EACCES || err == EPERM)
        m.how = SM_HOW_ICMP_ADMIN;
    (void)sm_channel_send(s->core->channel, &m, -1);
    sm_session_close(s, err == ECONNREFUSED ? "port_unreachable" : "unreachable");
}

static bool fatal(int err)
{
    return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH || err == EACCES || err == EPERM ||
           err == ENETDOWN;
}

static void on_pair(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, pair);
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];

    (void)events;
    for (int i = 0; i < UDP_TURN_MAX; i++) {
        ssize_t n = read(watch->fd, packet, sizeof(packet));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            sm_session_close(s, sm_flow_why_name(SM_WHY_CLOSED)); /* the front closed its end */
            return;
        }
        struct sm_rd r = sm_rd_init(packet, (size_t)n);
        const uint8_t *data;
        size_t len;
        while (sm_udpbatch_next(&r, &data, &len)) {
            enum sm_limits_fate fate = sm_limits_datagram(s, SM_CAPS_UP, len);
            if (fate == SM_LIMITS_SPENT)
                return;
            if (fate == SM_LIMITS_DROP)
                continue;
            if (send(s->upstream.fd, data, len, MSG_NOSIGNAL) < 0) {
                if (fatal(errno)) {
                    upstream_error(s, errno);
                    return;
                }
                continue; /* EAGAIN, EMSGSIZE, ENOBUFS: this datagram is lost */
            }
            s->bytes_up += len;
            sm_limits_moved(s, SM_CAPS_UP, len);
        }
        if (r.bad) {
            sm_udp_end(s, "malformed_batch");
            return;
        }
        s->last_us = sm_loop_now(s->core->loop);
    }
}

static void on_upstream(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, upstream);
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];

    (void)events;
    for (int i = 0; i < UDP_TURN_MAX; i++) {
        ssize_t n = recv(watch->fd, packet + 2, sizeof(packet) - 2, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            upstream_error(s, errno);
            return;
        }
        packet[0] = (uint8_t)((size_t)n >> 8);
        packet[1] = (uint8_t)n;
        s->replied = true;
        s->last_us = sm_loop_now(s->core->loop);
        enum sm_limits_fate fate = sm_limits_datagram(s, SM_CAPS_DOWN, (size_t)n);
        if (fate == SM_LIMITS_SPENT)
            return;
        if (fate == SM_LIMITS_DROP)
            continue;
        if (write(s->pair.fd, packet, (size_t)n + 2) < 0) {
            if (errno == EAGAIN)
                continue; /* the guest is slower than its peer: lost, as in any full queue */
            sm_session_close(s, sm_flow_why_name(SM_WHY_CLOSED));
            return;
        }
        s->bytes_down += (size_t)n;
        sm_limits_moved(s, SM_CAPS_DOWN, (size_t)n);
    }
}

void sm_udp_start(struct sm_session *s, bool ok)
{
    struct sm_core *core = s->core;
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&s->dialled, &ss);
    int pair[2];

    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    s->upstream.fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->upstream.fd < 0 || connect(s->upstream.fd, (struct sockaddr *)&ss, len) < 0 ||
        sm_fd_seqpair(pair, true) < 0) {
        upstream_error(s, errno);
        return;
    }
    s->give_fd = pair[1];
    sm_watch_init(&s->pair, pair[0], on_pair);
    sm_watch_init(&s->upstream, s->upstream.fd, on_upstream);
    sm_timer_init(&s->timer, on_idle);
    if (sm_loop_watch(core->loop, &s->pair, EPOLLIN) < 0 || sm_loop_watch(core->loop, &s->upstream, EPOLLIN) < 0) {
        upstream_error(s, errno);
        return;
    }
    core->n_allowed++;
    sm_loop_arm(core->loop, &s->timer, sm_loop_now(core->loop) + SM_CORE_UDP_IDLE_US);
    sm_session_attach(s);
}
