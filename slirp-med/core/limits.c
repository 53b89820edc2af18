/* SPDX-License-Identifier: BSD-3-Clause */
/* The caps at work; see limits.h. */
#include "core/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "core/counters.h"
#include "core/mediate.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72 /* Linux 5.14 */
#endif

/** What a flow under a cap has beside its session. */
struct sm_limited {
    struct sm_caps_flow flow;
    bool over; /* it wanted a byte that the total does not have: the timer ends it */
    bool cut_short;
    int buffer;  /* the receive buffer that we gave it; 0: it is the kernel's */
    size_t read; /* since it was sized */
    uint64_t moved[SM_CAPS_DIRS];
    GList over_link; /* its place in limits->over; data is the session */
};

struct sm_limits {
    struct sm_core *core;
    struct sm_caps *caps;
    struct sm_timer timer;          /* whose turn it is, and whose end */
    GQueue over;                    /* of struct sm_session */
    uint64_t refused[SM_CAP_COUNT]; /* since the last line */
    int fd;                         /* counters.json; -1: no byte cap */
    struct sm_counters stored;
    int64_t stored_us;
    bool store_failed;
    bool near; /* the total is nearly used up: receive buffers are small */
};

static int64_t now_of(const struct sm_limits *l)
{
    return sm_loop_now(l->core->loop);
}

/* The file. */

static bool store(struct sm_limits *l)
{
    struct sm_counters c = {
        .seq = l->stored.seq + 1,
        .bytes = {sm_caps_counted(l->caps, SM_CAPS_UP), sm_caps_counted(l->caps, SM_CAPS_DOWN)},
    };
    char record[SM_COUNTERS_RECORD];

    sm_counters_encode(&c, record);
    l->stored_us = now_of(l);
    errno = EIO; /* of a short write */
    if (pwrite(l->fd, record, sizeof(record), (off_t)(c.seq % 2 * sizeof(record))) != (ssize_t)sizeof(record))
        return false; /* seq stays: the next try is at the same place, and the other record is whole */
    l->stored = c;
    return true;
}

static uint64_t unstored(const struct sm_limits *l)
{
    return sm_caps_counted(l->caps, SM_CAPS_UP) - l->stored.bytes[SM_CAPS_UP] + sm_caps_counted(l->caps, SM_CAPS_DOWN) -
           l->stored.bytes[SM_CAPS_DOWN];
}

static void store_if_due(struct sm_limits *l)
{
    if (l->fd < 0 || (unstored(l) == 0 && !l->store_failed))
        return;
    bool late = now_of(l) - l->stored_us >= SM_LIMITS_STORE_US;
    if (!late && (unstored(l) < SM_LIMITS_STORE_BYTES || l->store_failed))
        return;
    bool ok = store(l);
    if (!ok && !l->store_failed)
        sm_log_error("no new flow is admitted: counters.json cannot be written: %s", strerror(errno));
    else if (ok && l->store_failed)
        sm_log_error("counters.json can be written again: flows are admitted");
    l->store_failed = !ok;
}

/* Lines. */

static void add_cap(struct sm_audit_record *r, const struct sm_limits *l, enum sm_cap cap)
{
    const struct sm_caps_limits *limits = sm_caps_limits(l->caps);

    sm_audit_add_str(r, "cap", sm_cap_name(cap));
    switch (cap) {
    case SM_CAP_MAX_BPS:
        sm_audit_add_uint(r, "limit", limits->bps);
        break;
    case SM_CAP_MAX_TOTAL_BYTES:
        sm_audit_add_uint(r, "limit", limits->total);
        sm_audit_add_uint(r, "total", sm_caps_total(l->caps));
        break;
    case SM_CAP_MAX_CONNS:
        sm_audit_add_uint(r, "limit", limits->conns);
        break;
    case SM_CAP_COUNT:
        break;
    }
}

bool sm_limits_waits(const struct sm_core *core)
{
    const struct sm_limits *l = core->limits;

    if (!l)
        return false;
    for (enum sm_cap cap = 0; cap < SM_CAP_COUNT; cap++)
        if (l->refused[cap] > 0)
            return true;
    return sm_caps_has_hits(l->caps) || (l->fd >= 0 && (l->store_failed || unstored(l) > 0));
}

void sm_limits_every_second(struct sm_core *core)
{
    struct sm_limits *l = core->limits;
    struct sm_audit_record r;

    if (!l)
        return;
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++) {
        struct sm_caps_hits hits = sm_caps_take_hits(l->caps, dir);
        if (hits.held + hits.dropped == 0)
            continue;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_CAP_EXCEEDED, sm_clock_wall_us());
        add_cap(&r, l, SM_CAP_MAX_BPS);
        sm_audit_add_str(&r, "direction", sm_caps_dir_name(dir));
        sm_audit_add_uint(&r, "count", hits.held + hits.dropped);
        sm_audit_add_uint(&r, "dropped", hits.dropped);
        sm_core_note(core, &r);
    }
    for (enum sm_cap cap = 0; cap < SM_CAP_COUNT; cap++) {
        if (l->refused[cap] == 0)
            continue;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_CAP_EXCEEDED, sm_clock_wall_us());
        add_cap(&r, l, cap);
        sm_audit_add_uint(&r, "count", l->refused[cap]);
        sm_core_note(core, &r);
        l->refused[cap] = 0;
    }
    store_if_due(l);
}

void sm_limits_start_line(const struct sm_core *core, struct sm_audit_record *r)
{
    if (!core->limits)
        return;
    const struct sm_caps_limits *limits = sm_caps_limits(core->limits->caps);
    if (limits->bps)
        sm_audit_add_uint(r, sm_cap_name(SM_CAP_MAX_BPS), limits->bps);
    if (limits->total)
        sm_audit_add_uint(r, sm_cap_name(SM_CAP_MAX_TOTAL_BYTES), limits->total);
    if (limits->conns)
        sm_audit_add_uint(r, sm_cap_name(SM_CAP_MAX_CONNS), limits->conns);
    if (core->limits->fd >= 0)
        sm_audit_add_uint(r, "total", sm_caps_total(core->limits->caps));
}

uint64_t sm_limits_total(const struct sm_core *core)
{
    return core->limits ? sm_caps_total(core->limits->caps) : 0;
}

bool sm_limits_counted(const struct sm_core *core, uint64_t ret[SM_CAPS_DIRS])
{
    if (!core->limits || core->limits->fd < 0)
        return false;
    for (enum sm_caps_dir dir = 0; dir < SM_CAPS_DIRS; dir++)
        ret[dir] = sm_caps_counted(core->limits->caps, dir);
    return true;
}

static json_t *limit_json(uint64_t limit)
{
    return limit ? json_integer((json_int_t)limit) : json_null();
}

struct json_t *sm_limits_report(const struct sm_core *core)
{
    if (!core->limits)
        return NULL;
    const struct sm_caps *caps = core->limits->caps;
    const struct sm_caps_limits *limits = sm_caps_limits(caps);
    json_t *o = json_pack("{s:o, s:o, s:o, s:I}", sm_cap_name(SM_CAP_MAX_BPS), limit_json(limits->bps),
                          sm_cap_name(SM_CAP_MAX_TOTAL_BYTES), limit_json(limits->total), sm_cap_name(SM_CAP_MAX_CONNS),
                          limit_json(limits->conns), "conns", (json_int_t)sm_caps_conns(caps));
    if (core->limits->fd >= 0) {
        (void)json_object_set_new(o, "bytes_up", json_integer((json_int_t)sm_caps_counted(caps, SM_CAPS_UP)));
        (void)json_object_set_new(o, "bytes_down", json_integer((json_int_t)sm_caps_counted(caps, SM_CAPS_DOWN)));
    }
    return o;
}

/* Flows. */

static void arm(struct sm_limits *l)
{
    int64_t now = now_of(l);
    int64_t due = l->over.length > 0 ? now : sm_caps_due(l->caps, now);

    if (due < INT64_MAX && (!sm_timer_armed(&l->timer) || due < l->timer.due_us))
        sm_loop_arm(l->core->loop, &l->timer, due);
}

static void record_over(struct sm_session *s)
{
    struct sm_audit_record r;

    sm_session_line(s, &r, SM_AUDIT_EGRESS_CAP_EXCEEDED, NULL);
    add_cap(&r, s->core->limits, SM_CAP_MAX_TOTAL_BYTES);
    sm_core_note(s->core, &r);
}

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_limits *l = sm_container_of(timer, struct sm_limits, timer);

    while (l->over.head) {
        struct sm_session *s = l->over.head->data;
        g_queue_unlink(&l->over, &s->limited->over_link);
        s->limited->over = false;
        record_over(s);
        sm_mediate_tear_down(s, sm_cap_name(SM_CAP_MAX_TOTAL_BYTES));
        sm_core_make_room(l->core);
    }
    sm_caps_run(l->caps, now_us);
    arm(l);
}

static void wake(struct sm_caps_flow *flow, enum sm_caps_dir dir)
{
    sm_mediate_wake(flow->owner, dir);
}

const char *sm_limits_admit(struct sm_session *s)
{
    struct sm_limits *l = s->core->limits;

    if (!l)
        return NULL;
    if (l->store_failed)
        return "counters_unwritable";
    if (sm_caps_is_full(l->caps)) {
        l->refused[SM_CAP_MAX_TOTAL_BYTES]++;
        return sm_cap_name(SM_CAP_MAX_TOTAL_BYTES);
    }
    s->limited = g_new0(struct sm_limited, 1);
    s->limited->flow.owner = s;
    s->limited->flow.datagrams = s->proto == SM_PROTO_UDP;
    s->limited->over_link.data = s;
    if (sm_caps_enter(l->caps, &s->limited->flow))
        return NULL;
    g_clear_pointer(&s->limited, g_free);
    l->refused[SM_CAP_MAX_CONNS]++;
    return sm_cap_name(SM_CAP_MAX_CONNS);
}

void sm_limits_stop_waiting(struct sm_session *s)
{
    if (!s->limited)
        return;
    sm_caps_step_out(s->core->limits->caps, &s->limited->flow);
    if (s->limited->over)
        g_queue_unlink(&s->core->limits->over, &s->limited->over_link);
    s->limited->over = false;
}

void sm_limits_quit(struct sm_session *s)
{
    if (!s->limited)
        return;
    sm_limits_stop_waiting(s);
    sm_caps_leave(s->core->limits->caps, &s->limited->flow);
    g_clear_pointer(&s->limited, g_free);
}

bool sm_limits_relays(const struct sm_core *core)
{
    if (!core->limits)
        return false;
    const struct sm_caps_limits *limits = sm_caps_limits(core->limits->caps);
    return limits->bps || limits->total;
}

static bool give_buffer_back(int fd)
{
    int locks = 0;

    return setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locks, sizeof(locks)) == 0;
}

/* No buffer is enlarged any more: the last bytes of the total are shared. */
static void shrink_buffer(struct sm_session *s, int fd)
{
    const struct sm_caps *caps = s->core->limits->caps;
    int size = (int)(SM_LIMITS_NEAR_BUFFERS / SM_MAX(sm_caps_conns(caps), UINT64_C(1)));

    size = SM_MAX(size, SM_LIMITS_BUFFER_MIN);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    s->limited->buffer = 0;
}

static void look_at_the_end(struct sm_limits *l)
{
    GHashTableIter it;
    void *value;

    if (l->near || sm_caps_left(l->caps) > SM_LIMITS_NEAR)
        return;
    l->near = true;
    g_hash_table_iter_init(&it, l->core->sessions);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        struct sm_session *s = value;
        if (s->limited && s->proto == SM_PROTO_TCP && s->upstream.fd >= 0)
            shrink_buffer(s, s->upstream.fd);
    }
}

void sm_limits_dialling(struct sm_session *s, int fd)
{
    if (!s->limited)
        return;
    struct sm_limits *l = s->core->limits;
    int size = SM_MAX((int)sm_caps_quantum(l->caps), SM_LIMITS_BUFFER_MIN);
    s->limited->buffer = 0;
    look_at_the_end(l);
    if (l->near)
        shrink_buffer(s, fd);
    else if (sm_caps_limits(l->caps)->bps && give_buffer_back(fd) &&
             setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0)
        s->limited->buffer = size;
}

/* It found less than it might have read. */
static void enlarge_buffer(struct sm_session *s)
{
    int size = 2 * s->limited->buffer;

    if (size == 0 || s->limited->read < (size_t)size ||
        !sm_caps_has_slack(s->core->limits->caps, SM_CAPS_DOWN, now_of(s->core->limits)))
        return;
    s->limited->read = 0;
    if (size <= SM_LIMITS_BUFFER_MAX && setsockopt(s->upstream.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0) {
        s->limited->buffer = size;
        return;
    }
    (void)give_buffer_back(s->upstream.fd);
    s->limited->buffer = 0;
}

int sm_limits_pair_bytes(const struct sm_session *s, int otherwise)
{
    if (!s->limited || sm_caps_limits(s->core->limits->caps)->bps == 0)
        return otherwise;
    uint64_t share = sm_caps_limits(s->core->limits->caps)->bps / SM_LIMITS_PAIR_SHARE;
    return (int)CLAMP(share, (uint64_t)SM_LIMITS_PAIR_MIN, (uint64_t)(otherwise > 0 ? otherwise : SM_LIMITS_PAIR_MAX));
}

bool sm_limits_blocked(const struct sm_session *s, enum sm_caps_dir dir)
{
    return s->limited && (s->limited->over || s->limited->flow.lane[dir].waiting);
}

bool sm_limits_cut_short(const struct sm_session *s)
{
    return s->limited && s->limited->cut_short;
}

/* 0: not now; the timer will end it or wake it. */
static size_t may(struct sm_session *s, enum sm_caps_dir dir, size_t len)
{
    struct sm_limits *l = s->core->limits;

    if (s->limited->over)
        return 0;
    size_t n = sm_caps_may(l->caps, &s->limited->flow, dir, len, now_of(l));
    if (n == 0) {
        if (sm_caps_is_spent(l->caps)) {
            s->limited->over = true;
            g_queue_push_tail_link(&l->over, &s->limited->over_link);
        }
        arm(l);
    }
    return n;
}

void sm_limits_moved(struct sm_session *s, enum sm_caps_dir dir, size_t n)
{
    if (!s->limited)
        return;
    s->limited->moved[dir] += n;
    sm_caps_moved(s->core->limits->caps, &s->limited->flow, dir, n);
    store_if_due(s->core->limits);
}

bool sm_limits_count(struct sm_session *s)
{
    if (!s->limited || !sm_limits_relays(s->core))
        return false;
    s->bytes_up = s->limited->moved[SM_CAPS_UP];
    s->bytes_down = s->limited->moved[SM_CAPS_DOWN];
    return true;
}

ssize_t sm_limits_read(struct sm_session *s, void *buf, size_t len)
{
    if (!s->limited)
        return read(s->upstream.fd, buf, len);
    s->limited->cut_short = false;
    if (sm_caps_is_full(s->core->limits->caps)) {
        /* An end is no byte: a flow whose last byte was the total's last ends in order. */
        uint8_t next;
        ssize_t n = recv(s->upstream.fd, &next, 1, MSG_PEEK);
        if (n <= 0)
            return n;
    }
    size_t n_may = may(s, SM_CAPS_DOWN, len);
    if (n_may == 0) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t n = read(s->upstream.fd, buf, n_may);
    if (n > 0) {
        sm_limits_moved(s, SM_CAPS_DOWN, (size_t)n);
        s->limited->read += (size_t)n;
        look_at_the_end(s->core->limits);
    }
    s->limited->cut_short = n == (ssize_t)n_may && n_may < len;
    if (n < (ssize_t)n_may)
        enlarge_buffer(s);
    return n;
}

ssize_t sm_limits_write(struct sm_session *s, const void *buf, size_t len)
{
    if (s->limited) {
        len = len > 0 ? may(s, SM_CAPS_UP, len) : 0;
        if (len == 0) {
            errno = EAGAIN;
            return -1;
        }
    }
    ssize_t n = send(s->upstream.fd, buf, len, MSG_NOSIGNAL);
    if (n > 0)
        sm_limits_moved(s, SM_CAPS_UP, (size_t)n);
    return n;
}

enum sm_limits_fate sm_limits_datagram(struct sm_session *s, enum sm_caps_dir dir, size_t len)
{
    if (!s->limited)
        return SM_LIMITS_PASS;
    struct sm_limits *l = s->core->limits;
    if (sm_caps_may_datagram(l->caps, &s->limited->flow, dir, len, now_of(l)))
        return SM_LIMITS_PASS;
    if (!sm_caps_is_spent(l->caps)) {
        arm(l);
        return SM_LIMITS_DROP;
    }
    record_over(s);
    sm_udp_end(s, sm_cap_name(SM_CAP_MAX_TOTAL_BYTES));
    return SM_LIMITS_SPENT;
}

/* Beginning and end. */

bool sm_limits_init(struct sm_core *core, int fd, GError **error)
{
    const struct sm_core_config *config = core->config;
    sm_autofd given = fd;

    if (!config->caps.bps && !config->caps.total && !config->caps.conns)
        return true;
    struct sm_limits *l = g_new0(struct sm_limits, 1);
    core->limits = l;
    l->core = core;
    l->fd = sm_steal_fd(&given);
    l->stored = config->counters;
    l->caps = sm_caps_new(&config->caps, config->counters.bytes, wake, now_of(l));
    g_queue_init(&l->over);
    sm_timer_init(&l->timer, on_timer);
    /* Twice: both records are whole from here on, and the file is known to take them. */
    if (l->fd >= 0 && (!store(l) || !store(l))) {
        sm_error_set_errno(error, errno, "counters.json in the workspace's folder cannot be written");
        return false;
    }
    return true;
}

void sm_limits_stop(struct sm_core *core)
{
    if (!core->limits)
        return;
    sm_limits_every_second(core);
    if (core->limits->fd >= 0 && unstored(core->limits) > 0 && !store(core->limits))
        sm_log_error("the last %" PRIu64 " bytes are not in counters.json: %s", unstored(core->limits),
                     strerror(errno));
}

void sm_limits_free(struct sm_core *core)
{
    struct sm_limits *l = core->limits;

    if (!l)
        return;
    sm_loop_disarm(core->loop, &l->timer);
    sm_caps_free(l->caps);
    sm_fd_close(&l->fd);
    g_free(l);
    core->limits = NULL;
}
