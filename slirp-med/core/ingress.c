/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Published ports: a client that the supervisor has accepted becomes a connection to a port of the guest (spec section 9).
 *
 *   INGRESS port +fd ─► what it is, and whose (checked here) ─┬─ not to be had: ingress_deny, reset
 *                                                             └─ ingress_accept ─► INBOUND +fd to the front
 *   then as every flow that was handed over (tcp.c): the kernel tells the end and the bytes ─► ingress_close
 *
 * The guest sees the client's own address when that is global or private unicast; loopback, link-local and the virtual network's own addresses,
 * and all of IPv6, which the guest has not, appear as the gateway. Behind one address no two live connections to a guest's port may come from
 * one port: where the client's own is taken, and always for the gateway, a port is given out in turn, so that one comes again late (the guest
 * may still be in TIME_WAIT).
 *
 * Policy and caps are about egress: neither is asked. bytes_up is what went from the guest to the client, as in every other line.
 *
 * Every INGRESS is answered once: when INBOUND is on its way, or when nothing will come of it. The supervisor accepts no more than it has
 * answers for, so that what waits here is bounded (SM_PUBLISH_INFLIGHT_MAX), and what waits for the front too (SM_FLOW_ATTACH_MAX).
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/core.h"

/** Ports that are given out: not those that servers are known by. */
#define PORT_FIRST 1024u
#define PORTS (65536u - PORT_FIRST)
/** A client that has vanished is noticed after some four minutes; the guest's side has libslirp's timers. */
#define KEEP_IDLE_S 120
#define KEEP_INTERVAL_S 30
#define KEEP_COUNT 4

static const struct sm_prefix not_shown[] = {
    {{SM_FAMILY_V4, {0, 0, 0, 0}}, 8},      /* this network */
    {{SM_FAMILY_V4, {127, 0, 0, 0}}, 8},    /* loopback */
    {{SM_FAMILY_V4, {169, 254, 0, 0}}, 16}, /* link-local */
    {{SM_FAMILY_V4, {224, 0, 0, 0}}, 3},    /* multicast, reserved, broadcast: no client has one */
};

bool sm_ingress_shown_as_is(const struct sm_prefix *network, const struct sm_addr *client)
{
    if (client->family != SM_FAMILY_V4 || sm_prefix_contains(network, client))
        return false;
    for (size_t i = 0; i < SM_ARRAY_LEN(not_shown); i++)
        if (sm_prefix_contains(&not_shown[i], client))
            return false;
    return true;
}

void sm_ingress_line(const struct sm_session *s, struct sm_audit_record *r, enum sm_audit_event event,
                     const char *reason)
{
    sm_audit_begin(r, event, sm_clock_wall_us());
    if (s->id)
        sm_audit_add_uint(r, "flow", s->id & ~SM_FLOW_ID_CORE);
    sm_audit_add_endpoint(r, "src", &s->src);
    sm_audit_add_addr(r, "dst", &s->dst.addr);
    sm_audit_add_uint(r, "port", s->dst.port);
    sm_audit_add_endpoint(r, "listener", &s->listener);
    if (s->seen.port && !sm_endpoint_equal(&s->seen, &s->src))
        sm_audit_add_endpoint(r, "seen_as", &s->seen);
    sm_audit_add_str(r, "reason", reason);
}

static void answer(struct sm_core *core)
{
    /* The link may be full for a moment; a credit must not be lost over that. */
    if (sm_link_send(core->link.fd, SM_LINK_INGRESS, NULL, -1) < 0)
        core->ingress_unsaid++;
}

void sm_ingress_every_second(struct sm_core *core)
{
    while (core->ingress_unsaid > 0 && sm_link_send(core->link.fd, SM_LINK_INGRESS, NULL, -1) == 0)
        core->ingress_unsaid--;
}

void sm_ingress_sent(struct sm_session *s)
{
    if (s->ingress_owed)
        answer(s->core);
    s->ingress_owed = false;
}

void sm_ingress_forget(struct sm_session *s)
{
    struct sm_core *core = s->core;

    if (!s->inbound)
        return;
    sm_ingress_sent(s);
    g_hash_table_remove(core->ingress, &s->tuple);
    if (g_hash_table_size(core->ingress) == 0)
        g_clear_pointer(&core->ingress, g_hash_table_destroy);
}

unsigned sm_ingress_count(const struct sm_core *core)
{
    return core->ingress ? g_hash_table_size(core->ingress) : 0;
}

/* An accepted TCP connection, and nothing else? Fills in whose it is. Returns what speaks against it, or NULL. */
static const char *look(struct sm_session *s, int fd)
{
    struct sockaddr_storage peer, own;
    socklen_t len = sizeof(int), peer_len = sizeof(peer), own_len = sizeof(own);
    int domain = 0, type = 0, protocol = 0, listens = 1;

    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || (domain != AF_INET && domain != AF_INET6) ||
        type != SOCK_STREAM || protocol != IPPROTO_TCP || listens || sm_fd_set_nonblock(fd) < 0)
        return "bad_descriptor";
    if (getsockname(fd, (struct sockaddr *)&own, &own_len) < 0 || !sm_endpoint_from_sockaddr(&own, &s->listener))
        return "bad_descriptor";
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0)
        return errno == ENOTCONN ? "client_gone" : "bad_descriptor"; /* it has reset the connection already */
    return sm_endpoint_from_sockaddr(&peer, &s->src) ? NULL : "bad_descriptor";
}

static uint64_t tuple_of(const struct sm_endpoint *seen, uint16_t port)
{
    return (uint64_t)sm_addr_to_u32(&seen->addr) << 32 | (uint32_t)seen->port << 16 | port;
}

static bool is_free(struct sm_session *s)
{
    s->tuple = tuple_of(&s->seen, s->dst.port);
    return !s->core->ingress || !g_hash_table_contains(s->core->ingress, &s->tuple);
}

/* Where the guest is to see it come from. */
static bool choose_seen(struct sm_session *s)
{
    struct sm_core *core = s->core;

    s->seen = s->src;
    if (sm_ingress_shown_as_is(&core->config->network, &s->src.addr) && is_free(s))
        return true;
    if (!sm_ingress_shown_as_is(&core->config->network, &s->src.addr))
        s->seen.addr = core->config->gateway;
    for (unsigned i = 0; i < PORTS; i++) {
        s->seen.port = (uint16_t)(PORT_FIRST + core->ingress_port++ % PORTS);
        if (is_free(s))
            return true;
    }
    return false;
}

static void tune(int fd)
{
    int on = 1, idle = KEEP_IDLE_S, interval = KEEP_INTERVAL_S, count = KEEP_COUNT;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* @s holds what is known of it. */
static void turn_away(struct sm_core *core, const struct sm_session *s, int fd, const char *reason)
{
    struct sm_audit_repeat_key key = {.proto = IPPROTO_TCP, .dst = s->dst, .reason = reason};
    struct linger now = {.l_onoff = 1};
    struct sm_audit_record r;

    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)); /* the caller's close is a reset */
    answer(core);
    if (core->config->mode == SM_MODE_OFF)
        return;
    sm_ingress_line(s, &r, SM_AUDIT_INGRESS_DENY, reason);
    if (!sm_audit_repeats_deny(core->repeats, core->audit, &key, &r, 1, sm_loop_now(core->loop)))
        sm_log_debug("a refused client could not be recorded");
}

static void let_in(struct sm_session *s, bool ok)
{
    if (!ok) {
        sm_session_not_recorded(s);
        return;
    }
    s->core->n_ingress++;
    sm_tcp_hand_over(s, true);
}

void sm_ingress_take(struct sm_core *core, const char *text, int *fd)
{
    struct sm_session known = {.core = core, .dst = {.addr = core->config->guest}};
    struct sm_audit_record r;
    guint64 port;

    if (!g_ascii_string_to_unsigned(text, 10, 1, UINT16_MAX, &port, NULL)) {
        sm_log_error("the supervisor names a port that there is not");
        answer(core);
        return;
    }
    known.dst.port = (uint16_t)port;
    const char *reason = look(&known, *fd);
    if (!reason && core->stopping)
        reason = "workspace_stop";
    if (!reason && core->config->mode != SM_MODE_OFF && !sm_audit_healthy(core->audit))
        reason = "not_recorded";
    if (sm_ingress_count(core) >= core->sessions_max / SM_CORE_INGRESS_SHARE)
        sm_core_run_ends(core); /* what they held is this one's to have */
    if (!reason && (sm_ingress_count(core) >= core->sessions_max / SM_CORE_INGRESS_SHARE || *fd >= core->fd_max ||
                    !choose_seen(&known)))
        reason = "too_many_flows";
    if (reason) {
        turn_away(core, &known, *fd, reason);
        return;
    }
    struct sm_flow_msg m = {.id = SM_FLOW_ID_CORE | SM_CORE_INGRESS_IDS | ++core->last_inbound,
                            .proto = SM_FLOW_TCP,
                            .src = known.src,
                            .dst = known.dst};
    struct sm_session *s = sm_session_new(core, &m);
    s->inbound = s->ingress_owed = s->upstream_up = true;
    s->seen = known.seen;
    s->listener = known.listener;
    s->tuple = known.tuple;
    if (!core->ingress)
        core->ingress = g_hash_table_new(g_int64_hash, g_int64_equal);
    (void)g_hash_table_add(core->ingress, &s->tuple);
    tune(*fd);
    sm_watch_init(&s->upstream, sm_steal_fd(fd), NULL);
    sm_ingress_line(s, &r, SM_AUDIT_INGRESS_ACCEPT, "published");
    sm_session_record(s, &r, let_in);
}

void sm_ingress_listeners(struct sm_core *core, const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", SM_GROUND_LISTENERS_MAX + 1);
    size_t n = g_strv_length(parts);
    g_autofree struct sm_endpoint *all = g_new0(struct sm_endpoint, n + 2);

    for (size_t i = 0; i < n; i++) {
        if (sm_endpoint_parse(parts[i], 0, &all[i]))
            continue;
        sm_log_error("the supervisor names a listener that is no address"); /* unanswered: it will not listen */
        return;
    }
    if (core->config->proxy) /* the front's own is not in the supervisor's list */
        all[n++] = core->config->proxy_listen;
    if (!sm_ground_set_listeners(core->config->ground, all, n) ||
        sm_link_send(core->link.fd, SM_LINK_LISTENERS, NULL, -1) < 0)
        sm_log_error("the addresses that are published could not be taken over");
}
