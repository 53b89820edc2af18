/* SPDX-License-Identifier: BSD-3-Clause */
/* Who comes to the proxy, what is asked of the core, and the process; see proxy_front.h. */
#include "paths/proxy_front.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "paths/proxy_priv.h"
#include "sandbox/sandbox.h"

/** Descriptors that are not clients': the standard ones, link, channel, listener, epoll, and one that is just being received. */
#define FDS_RESERVED 32

/* ---- the core is told ---- */

void sm_proxy_tell(struct sm_proxy_front *front, enum sm_flow_type type, uint64_t id, enum sm_flow_why why)
{
    struct sm_flow_msg m = {.type = type, .id = id, .why = why};

    if (!front->dead && front->channel)
        (void)sm_channel_send(front->channel, &m, -1);
}

static bool report_other(enum sm_flow_other kind, uint8_t proto, const struct sm_addr *client, uint32_t count,
                         void *data)
{
    struct sm_proxy_front *front = data;
    struct sm_flow_msg m = {
        .type = SM_FLOW_OTHER, .other = kind, .ip_proto = proto, .dst = {.addr = *client}, .count = count};

    return sm_channel_send(front->channel, &m, -1);
}

void sm_proxy_report(struct sm_proxy_front *front, enum sm_flow_other kind, const struct sm_addr *client)
{
    sm_others_add(&front->others, kind, SM_FLOW_TCP, client, report_other, front);
    if (!sm_timer_armed(&front->tick))
        sm_loop_arm(front->loop, &front->tick, sm_loop_now(front->loop) + G_USEC_PER_SEC);
}

static void on_tick(struct sm_timer *timer, int64_t now_us)
{
    struct sm_proxy_front *front = sm_container_of(timer, struct sm_proxy_front, tick);

    sm_others_tick(&front->others, report_other, front);
    if (!sm_others_idle(&front->others))
        sm_loop_arm(front->loop, timer, now_us + G_USEC_PER_SEC);
}

bool sm_proxy_ask(struct sm_proxy_client *c, const char *name, size_t len, uint16_t port)
{
    struct sm_proxy_front *front = c->front;
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = front->next_id,
                            .proto = SM_FLOW_TCP,
                            .src = c->src,
                            .name = name,
                            .name_len = len,
                            .dst = {.port = port}};

    if (front->finishing || front->stats.asked_now >= SM_PROXY_ASKED_MAX || sm_channel_congested(front->channel) ||
        !sm_channel_send(front->channel, &m, -1))
        return false;
    c->id = front->next_id++;
    g_hash_table_insert(front->ids, &c->id, c);
    c->asked = true;
    front->stats.opens++;
    front->stats.asked_now++;
    return true;
}

void sm_proxy_answered(struct sm_proxy_client *c)
{
    if (c->asked)
        c->front->stats.asked_now--;
    c->asked = false;
}

void sm_proxy_forget_id(struct sm_proxy_client *c)
{
    sm_proxy_answered(c);
    if (c->id)
        g_hash_table_remove(c->front->ids, &c->id);
    c->id = 0;
}

/* ---- who comes ---- */

static guint addr_hash(gconstpointer p)
{
    const struct sm_addr *a = p;
    guint h = a->family;

    for (size_t i = 0; i < sizeof(a->bytes); i++)
        h = h * 31 + a->bytes[i];
    return h;
}

static gboolean addr_same(gconstpointer a, gconstpointer b)
{
    return sm_addr_equal(a, b);
}

static struct sm_proxy_peer *peer_of(struct sm_proxy_front *front, const struct sm_addr *addr)
{
    struct sm_proxy_peer *peer = g_hash_table_lookup(front->peers, addr);

    if (!peer) {
        peer = g_new0(struct sm_proxy_peer, 1);
        peer->addr = *addr;
        g_hash_table_insert(front->peers, &peer->addr, peer);
    }
    return peer;
}

void sm_proxy_head_done(struct sm_proxy_client *c)
{
    struct sm_proxy_front *front = c->front;

    if (!c->in_heads)
        return;
    c->in_heads = false;
    g_queue_unlink(&front->heads, &c->heads);
    sm_loop_disarm(front->loop, &c->timer);
    front->heads_bytes -= c->heads_counted;
    c->heads_counted = 0;
}

static void watch_listener(struct sm_proxy_front *front)
{
    bool take = !front->finishing && !front->dead && !sm_timer_armed(&front->pause) &&
                front->stats.now < front->max_conns && !sm_channel_congested(front->channel);

    if (take == front->listener.added)
        return;
    if (!take)
        sm_loop_unwatch(front->loop, &front->listener);
    else if (sm_loop_watch(front->loop, &front->listener, EPOLLIN) < 0)
        sm_log_error("the proxy's listener is not served: %s", strerror(errno));
}

void sm_proxy_bury(struct sm_proxy_client *c)
{
    struct sm_proxy_front *front = c->front;

    if (c->dead)
        return;
    sm_proxy_head_done(c);
    c->dead = true;
    front->stats.held_now -= c->counted;
    c->counted = 0;
    sm_loop_disarm(front->loop, &c->timer);
    sm_loop_unwatch(front->loop, &c->sock);
    sm_loop_unwatch(front->loop, &c->up);
    sm_fd_close(&c->up.fd);
    sm_fd_close(&c->sock.fd);
    g_queue_unlink(&front->all, &c->all);
    g_queue_push_tail_link(&front->graveyard, &c->grave);
    front->stats.now--;
    if (--c->peer->conns == 0)
        g_hash_table_remove(front->peers, &c->peer->addr);
    c->peer = NULL;
}

static void let_in(struct sm_proxy_front *front, int fd, const struct sm_endpoint *src)
{
    struct sm_proxy_client *oldest;

    front->stats.accepted++;
    if (!sm_proxy_config_is_client(front->config, &src->addr)) {
        front->stats.strangers++;
        sm_proxy_report(front, SM_OTHER_CLIENT, &src->addr);
        (void)close(fd);
        return;
    }
    if (front->heads.length >= SM_PROXY_HEADS_MAX) {
        oldest = front->heads.head->data;
        sm_proxy_client_answer(oldest, 408, "proxy_head_timeout");
    }
    struct sm_proxy_peer *peer = peer_of(front, &src->addr);
    struct sm_proxy_client *c = sm_proxy_client_new(front, fd, src);
    c->peer = peer;
    peer->conns++;
    front->stats.now++;
    g_queue_push_tail_link(&front->all, &c->all);
    g_queue_push_tail_link(&front->heads, &c->heads);
    c->in_heads = true;
    if (!c->sock.added)
        sm_proxy_bury(c);
    else if (peer->conns > SM_PROXY_PEER_MAX)
        sm_proxy_client_answer(c, 503, "limit");
}

static void on_listener(struct sm_watch *watch, uint32_t events)
{
    struct sm_proxy_front *front = sm_container_of(watch, struct sm_proxy_front, listener);

    (void)events;
    for (unsigned i = 0; i < SM_PROXY_ACCEPT_BATCH && front->stats.now < front->max_conns; i++) {
        struct sockaddr_storage ss;
        socklen_t len = sizeof(ss);
        struct sm_endpoint src;
        int fd = accept4(watch->fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                sm_loop_arm(front->loop, &front->pause, sm_loop_now(front->loop) + SM_PROXY_ACCEPT_PAUSE_US);
            break; /* nobody is left, or one has gone before he came: the next event brings the others */
        }
        if (sm_endpoint_from_sockaddr(&ss, &src))
            let_in(front, fd, &src);
        else
            (void)close(fd);
    }
}

static void on_pause(struct sm_timer *timer, int64_t now_us)
{
    (void)timer; /* on_turn_end() looks whether it is armed */
    (void)now_us;
}

/* ---- messages of the core ---- */

static void fail(struct sm_proxy_front *front, const char *text)
{
    if (front->dead)
        return;
    front->dead = true;
    front->failed(text, front->failed_data);
}

static void on_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct sm_proxy_front *front = data;
    sm_autofd fd = n_fds > 0 ? fds[0] : -1;

    if (front->dead)
        return;
    switch (msg->type) {
    case SM_FLOW_REFUSE:
    case SM_FLOW_ACCEPT:
    case SM_FLOW_ATTACH:
    case SM_FLOW_ABORT: {
        struct sm_proxy_client *c = g_hash_table_lookup(front->ids, &msg->id);
        if (c)
            sm_proxy_client_message(c, msg, &fd);
        break;
    }
    case SM_FLOW_INBOUND: /* nobody is here to be connected to */
        sm_proxy_tell(front, SM_FLOW_GONE, msg->id, SM_WHY_LIMIT);
        break;
    case SM_FLOW_DATAGRAM:
    case SM_FLOW_RELEASE: /* nothing is held */
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        fail(front, "the core sent a message that only a front may send");
        return;
    }
    if (msg->type == SM_FLOW_ATTACH || msg->type == SM_FLOW_INBOUND)
        sm_proxy_tell(front, SM_FLOW_ATTACHED, msg->id, SM_WHY_CLOSED);
}

static void on_channel_failed(const char *text, void *data)
{
    sm_log_info("channel: %s", text);
    fail(data, "the channel to the core is gone");
}

static void on_drained(void *data)
{
    struct sm_proxy_front *front = data;

    for (GList *l = front->all.head, *next; l; l = next) {
        next = l->next;
        sm_proxy_client_resume(l->data);
    }
}

/* ---- life ---- */

static bool undelivered(const struct sm_proxy_front *front)
{
    for (GList *l = front->all.head; l; l = l->next)
        if (sm_proxy_client_undelivered(l->data))
            return true;
    return false;
}

static void last_word(struct sm_proxy_front *front)
{
    if (front->told)
        return;
    front->told = true;
    sm_others_tick(&front->others, report_other, front);
    sm_channel_finish(front->channel);
}

static void on_finish(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    last_word(sm_container_of(timer, struct sm_proxy_front, finish));
}

static bool on_turn_end(void *data)
{
    struct sm_proxy_front *front = data;
    GList *l;

    while ((l = g_queue_pop_head_link(&front->graveyard)))
        sm_proxy_client_free(l->data);
    if (front->dead)
        return false;
    if (front->finishing && !front->told && !undelivered(front))
        last_word(front);
    watch_listener(front);
    return false;
}

struct sm_proxy_front *sm_proxy_front_new(struct sm_loop *loop, const struct sm_proxy_config *config, int listener,
                                          int channel_fd, unsigned max_conns,
                                          void (*failed)(const char *text, void *data), void *data, GError **error)
{
    static const struct sm_channel_ops ops = {
        .message = on_message, .failed = on_channel_failed, .drained = on_drained};
    struct sm_proxy_front *front = g_new0(struct sm_proxy_front, 1);

    front->loop = loop;
    front->config = config;
    front->failed = failed;
    front->failed_data = data;
    front->max_conns = SM_MIN(max_conns, (unsigned)SM_PROXY_CONNS_MAX);
    front->next_id = 1;
    front->ids = g_hash_table_new(g_int64_hash, g_int64_equal);
    front->peers = g_hash_table_new_full(addr_hash, addr_same, NULL, g_free);
    g_queue_init(&front->all);
    g_queue_init(&front->heads);
    g_queue_init(&front->graveyard);
    sm_timer_init(&front->tick, on_tick);
    sm_timer_init(&front->pause, on_pause);
    sm_timer_init(&front->finish, on_finish);
    sm_watch_init(&front->listener, listener, on_listener);
    front->channel = sm_channel_new(loop, channel_fd, false, &ops, front);
    sm_loop_set_turn_end(loop, on_turn_end, front);
    if (sm_loop_watch(loop, &front->listener, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "proxy: the listening socket cannot be watched");
        sm_proxy_front_free(front);
        return NULL;
    }
    return front;
}

void sm_proxy_front_free(struct sm_proxy_front *front)
{
    GList *l;

    if (!front)
        return;
    front->dead = true; /* nobody is told any more */
    while (front->all.head) {
        struct sm_proxy_client *c = front->all.head->data;
        sm_proxy_forget_id(c);
        sm_proxy_bury(c);
    }
    while ((l = g_queue_pop_head_link(&front->graveyard)))
        sm_proxy_client_free(l->data);
    sm_loop_set_turn_end(front->loop, NULL, NULL);
    sm_loop_disarm(front->loop, &front->tick);
    sm_loop_disarm(front->loop, &front->pause);
    sm_loop_disarm(front->loop, &front->finish);
    sm_loop_unwatch(front->loop, &front->listener);
    sm_fd_close(&front->listener.fd);
    sm_channel_free(front->channel);
    g_hash_table_destroy(front->ids);
    g_hash_table_destroy(front->peers);
    g_free(front);
}

void sm_proxy_front_stats(const struct sm_proxy_front *front, struct sm_proxy_stats *ret)
{
    *ret = front->stats;
    ret->heads_now = front->heads.length;
}

void sm_proxy_front_finish(struct sm_proxy_front *front)
{
    if (front->finishing)
        return;
    front->finishing = true;
    sm_loop_arm(front->loop, &front->finish, sm_loop_now(front->loop) + SM_PROXY_FINISH_US);
}

/* ---- the process ---- */

struct process {
    struct sm_loop *loop;
    struct sm_watch link;
    struct sm_proxy_config config;
    struct sm_proxy_front *front;
    bool stopping;
};

static void on_front_failed(const char *text, void *data)
{
    struct process *p = data;
    char line[256];

    if (p->stopping) { /* the core has read our last word and closed the channel */
        sm_loop_quit(p->loop, 0);
        return;
    }
    int n = g_snprintf(line, sizeof(line), "%s %s", sm_link_verb_name(SM_LINK_FAIL), text);
    sm_log_info("%s", text);
    (void)!write(p->link.fd, line, (size_t)n);
    sm_loop_quit(p->loop, 1);
}

static void send_status(struct process *p)
{
    struct sm_proxy_stats s;

    sm_proxy_front_stats(p->front, &s);
    json_auto_t *j =
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "accepted", (json_int_t)s.accepted, "strangers",
                  (json_int_t)s.strangers, "unauthorised", (json_int_t)s.unauthorised, "bad_requests",
                  (json_int_t)s.bad_requests, "opens", (json_int_t)s.opens, "refused", (json_int_t)s.refused,
                  "attached", (json_int_t)s.attached, "clients_now", (json_int_t)s.now, "heads_now",
                  (json_int_t)s.heads_now, "asked_now", (json_int_t)s.asked_now, "held_now", (json_int_t)s.held_now);
    char *text = json_dumps(j, JSON_COMPACT);
    if (text) {
        g_autofree char *line = g_strdup_printf("%s %s", sm_link_verb_name(SM_LINK_STATUS), text);
        (void)!write(p->link.fd, line, strlen(line));
    }
    free(text);
}

static void on_link(struct sm_watch *watch, uint32_t events)
{
    struct process *p = sm_container_of(watch, struct process, link);
    struct sm_link_msg msg;
    int got = sm_link_recv(watch->fd, &msg);

    (void)events;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        sm_log_info("the supervisor is gone");
        sm_loop_quit(p->loop, 1);
        return;
    }
    sm_fd_close(&msg.fd);
    if (msg.verb == SM_LINK_STATUS) {
        send_status(p);
    } else if (msg.verb == SM_LINK_STOP && !p->stopping) {
        p->stopping = true;
        sm_proxy_front_finish(p->front);
    }
}

static bool start(struct process *p, struct sm_sandbox_spec *spec, GError **error)
{
    struct rlimit nofile;
    size_t len = 0;

    if (sm_sandbox_early(SM_ROLE_FRONT, spec, error) < 0)
        return false;
    g_autofree char *json = sm_fd_read_all(SM_CONFIG_FD, SM_PROXY_CONFIG_MAX, &len, error);
    if (!json || !sm_proxy_config_parse(json, len, &p->config, error))
        return false;
    (void)close(SM_CONFIG_FD);
    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0 || nofile.rlim_cur < 4 * FDS_RESERVED) {
        sm_error_set(error, SM_ERROR_MISSING, "proxy: the limit of open files is too low; raise it (ulimit -n 4096)");
        return false;
    }
    unsigned conns =
        (unsigned)(SM_MIN(nofile.rlim_cur, (rlim_t)SM_PROXY_CONNS_MAX * 2 + FDS_RESERVED) - FDS_RESERVED) / 2;
    if (sm_fd_set_nonblock(SM_LINK_FD) < 0 || sm_fd_set_nonblock(SM_CHANNEL_FD) < 0 ||
        sm_fd_set_nonblock(SM_ROLE_FD) < 0) {
        sm_error_set_errno(error, errno, "proxy: a descriptor of the supervisor is missing");
        return false;
    }
    if (!(p->loop = sm_loop_new(error)) ||
        !(p->front =
              sm_proxy_front_new(p->loop, &p->config, SM_ROLE_FD, SM_CHANNEL_FD, conns, on_front_failed, p, error)))
        return false;
    sm_watch_init(&p->link, SM_LINK_FD, on_link);
    if (sm_loop_watch(p->loop, &p->link, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "proxy: epoll_ctl");
        return false;
    }
    return sm_sandbox_enter(SM_ROLE_FRONT, spec, error) == 0;
}

int sm_proxy_front_main(int argc, char **argv)
{
    static const int keep[] = {SM_LINK_FD, SM_CONFIG_FD, SM_CHANNEL_FD, SM_ROLE_FD};
    struct sm_sandbox_spec spec = {
        .keep_fds = keep, .n_keep_fds = SM_ARRAY_LEN(keep), .parent_fd = SM_LINK_FD, .accepts = true};
    static struct process p;
    g_autoptr(GError) error = NULL;

    (void)argc;
    (void)argv;
    sm_log_init("proxy");
    if (!start(&p, &spec, &error)) {
        sm_log_error("%s", error->message);
        g_autofree char *line = g_strdup_printf("%s %s", sm_link_verb_name(SM_LINK_FAIL), error->message);
        (void)!write(SM_LINK_FD, line, strlen(line));
        return 1;
    }
    const char *ready = sm_link_verb_name(SM_LINK_READY);
    if (write(SM_LINK_FD, ready, strlen(ready)) < 0)
        return 1;
    int status = sm_loop_run(p.loop);
    /* The kernel frees everything; closing the descriptors by ending is what the core waits for. */
    return status < 0 ? 1 : status;
}
