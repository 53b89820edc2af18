/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UDP flows: one connected socket and one SOCK_SEQPACKET pair for each 4-tuple, so that only the peer that the guest addressed can answer.
 *
 * The pair carries datagrams in batches (flow/udpbatch.h), and the upstream socket takes and gives them in batches
 * (base/dgrams.h). A datagram that does not fit anywhere is dropped, as on any network, and counted; nothing is queued
 * here. The packets of the front are decoded strictly: a malformed one ends the flow. Under a byte cap datagrams move
 * one by one, since what one uses decides about the next.
 */
#include "core/limits.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/dgrams.h"
#include "base/fd.h"
#include "flow/udpbatch.h"

/** Datagrams moved in one turn for one flow and direction, and a batch more: fairness between flows. */
#define UDP_TURN_MAX 128
/** Kernel memory of a pair, and of the upstream socket, each way: a few full packets, for the time in which the other
 * side is not scheduled. Counted by the kernel only while it is filled. */
#define UDP_BUFFER_BYTES (1 << 20)

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

/* ---- from the guest ---- */

/* False when the flow is over. */
static bool up_send(struct sm_session *s, const struct sm_dgrams_run *runs, size_t n)
{
    struct sm_dgrams_sent done = sm_dgrams_send(s->upstream.fd, runs, n, &s->segment_max, fatal);

    s->bytes_up += done.bytes;
    s->core->udp_lost[SM_CAPS_UP] += done.lost;
    if (done.sent > 0)
        sm_limits_moved(s, SM_CAPS_UP, done.bytes);
    if (done.err)
        upstream_error(s, done.err);
    return done.err == 0;
}

/* Under a cap: what one datagram uses is taken before the next one is asked about. False when the flow is over. */
static bool up_one_by_one(struct sm_session *s, struct sm_dgrams_run run)
{
    struct iovec data;
    bool more;

    do {
        more = sm_dgrams_run_take(&run, &data);
        struct sm_dgrams_run one = {.data = data.iov_base, .len = data.iov_len, .size = data.iov_len};
        enum sm_limits_fate fate = sm_limits_datagram(s, SM_CAPS_UP, one.len);
        if (fate == SM_LIMITS_SPENT || (fate == SM_LIMITS_PASS && !up_send(s, &one, 1)))
            return false;
    } while (more);
    return true;
}

/* All datagrams of a packet. False when the flow is over. */
static bool up_packet(struct sm_session *s, const uint8_t *packet, size_t n, unsigned *ret_count)
{
    struct sm_dgrams_run runs[SM_DGRAMS_SEND_MAX];
    struct sm_rd r = sm_rd_init(packet, n);
    size_t n_runs = 0;
    bool one_by_one = sm_limits_relays(s->core);

    *ret_count = 0;
    while (sm_udpbatch_next(&r, ret_count, &runs[n_runs])) {
        if (one_by_one) {
            if (!up_one_by_one(s, runs[0]))
                return false;
        } else if (++n_runs == SM_DGRAMS_SEND_MAX) {
            if (!up_send(s, runs, n_runs))
                return false;
            n_runs = 0;
        }
    }
    if (n_runs > 0 && !up_send(s, runs, n_runs))
        return false;
    if (r.bad) {
        sm_udp_end(s, "malformed_batch");
        return false;
    }
    s->last_us = sm_loop_now(s->core->loop);
    return true;
}

static void on_pair(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, pair);
    static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];

    (void)events;
    for (unsigned moved = 0, count; moved < UDP_TURN_MAX; moved += count) {
        ssize_t n = read(watch->fd, packet, sizeof(packet));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            sm_session_close(s, sm_flow_why_name(SM_WHY_CLOSED)); /* the front closed its end */
            return;
        }
        if (!up_packet(s, packet, (size_t)n, &count))
            return;
    }
}

/* ---- to the guest ---- */

/* Datagrams on their way to the front, as one packet of the pair, which is gathered from where they were received. */
struct down {
    struct sm_session *s;
    uint8_t heads[SM_FLOW_UDP_BATCH_DATAGRAMS][SM_UDPBATCH_HEAD];
    struct iovec iov[2 * SM_FLOW_UDP_BATCH_DATAGRAMS];
    int n_iov;
    size_t n_runs, count, packet, bytes;
    size_t all, size; /* of the last run; size 0: nothing joins it */
};
_Static_assert(2 * SM_FLOW_UDP_BATCH_DATAGRAMS <= 1024, "writev(2) takes IOV_MAX parts");

static void down_empty(struct down *down)
{
    down->n_iov = 0;
    down->n_runs = down->count = down->packet = down->bytes = down->all = down->size = 0;
}

/* False when the flow is over. */
static bool down_flush(struct down *down)
{
    struct sm_session *s = down->s;
    size_t count = down->count, bytes = down->bytes;

    if (count == 0)
        return true;
    ssize_t done = writev(s->pair.fd, down->iov, down->n_iov);
    int err = errno;
    down_empty(down);
    if (done >= 0) {
        s->bytes_down += bytes;
        sm_limits_moved(s, SM_CAPS_DOWN, bytes);
        return true;
    }
    s->core->udp_lost[SM_CAPS_DOWN] += count;
    if (err == EAGAIN || err == ENOBUFS || err == ENOMEM || err == EINTR)
        return true; /* the guest is slower than its peer: lost, as in any full queue */
    sm_session_close(s, sm_flow_why_name(SM_WHY_CLOSED));
    return false;
}

static bool down_add(struct down *down, const struct sm_dgrams_run *run)
{
    size_t count = sm_dgrams_run_count(run);

    if ((down->packet + SM_UDPBATCH_HEAD + run->len > SM_FLOW_UDP_BATCH_MAX ||
         down->count + count > SM_FLOW_UDP_BATCH_DATAGRAMS) &&
        !down_flush(down))
        return false;
    if (count > 1 || down->size == 0 || !sm_udpbatch_joins(down->all, down->size, run->len)) {
        down->iov[down->n_iov++] = (struct iovec){.iov_base = down->heads[down->n_runs++], .iov_len = SM_UDPBATCH_HEAD};
        down->packet += SM_UDPBATCH_HEAD;
        down->all = 0;
        down->size = run->size;
    }
    down->all += run->len;
    sm_udpbatch_put_head(down->heads[down->n_runs - 1], down->all, down->size);
    if (run->len > 0)
        down->iov[down->n_iov++] = (struct iovec){.iov_base = (void *)(uintptr_t)run->data, .iov_len = run->len};
    if (count > 1 || run->len < down->size)
        down->size = 0;
    down->count += count;
    down->packet += run->len;
    down->bytes += run->len;
    return true;
}

/* Under a cap; see up_one_by_one(). */
static bool down_one_by_one(struct down *down, struct sm_dgrams_run run)
{
    struct iovec data;
    bool more;

    do {
        more = sm_dgrams_run_take(&run, &data);
        struct sm_dgrams_run one = {.data = data.iov_base, .len = data.iov_len, .size = data.iov_len};
        enum sm_limits_fate fate = sm_limits_datagram(down->s, SM_CAPS_DOWN, one.len);
        if (fate == SM_LIMITS_SPENT || (fate == SM_LIMITS_PASS && (!down_add(down, &one) || !down_flush(down))))
            return false;
    } while (more);
    return true;
}

static void on_upstream(struct sm_watch *watch, uint32_t events)
{
    struct sm_session *s = sm_container_of(watch, struct sm_session, upstream);
    struct sm_dgrams *in = s->core->dgrams;
    struct down down;
    bool one_by_one = sm_limits_relays(s->core);

    (void)events;
    down.s = s;
    down_empty(&down);
    for (int moved = 0, n; moved < UDP_TURN_MAX; moved += n) {
        n = sm_dgrams_recv(in, watch->fd);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            upstream_error(s, errno);
            return;
        }
        s->replied = true;
        s->last_us = sm_loop_now(s->core->loop);
        struct sm_dgrams_run run;
        while (sm_dgrams_next(in, &run))
            if (one_by_one ? !down_one_by_one(&down, run) : !down_add(&down, &run))
                return;
        if (!down_flush(&down)) /* the next ones come where these are */
            return;
        if (n < SM_DGRAMS_RECV_MAX) /* there was no more */
            break;
    }
}

/* ---- begin and end ---- */

void sm_udp_free(struct sm_core *core)
{
    g_clear_pointer(&core->dgrams, sm_dgrams_free);
}

static void enlarge(int fd)
{
    int size = UDP_BUFFER_BYTES;

    /* As far as the machine's limits let it. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
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
    s->upstream.fd = sm_session_fd(core, socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (s->upstream.fd < 0 || connect(s->upstream.fd, (struct sockaddr *)&ss, len) < 0 ||
        sm_session_pair(core, SOCK_SEQPACKET, pair) < 0) {
        upstream_error(s, errno);
        return;
    }
    s->give_fd = pair[1];
    s->segment_max = UINT16_MAX;
    enlarge(pair[0]);
    enlarge(pair[1]);
    enlarge(s->upstream.fd);
    sm_dgrams_gather(s->upstream.fd);
    if (!core->dgrams)
        core->dgrams = sm_dgrams_new();
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
