/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients of the proxy from accept to the end of their heads, and the process; see proxy_front.h. */
#include "paths/proxy_front.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "http/proxy.h"
#include "nat/sock.h"
#include "paths/proxy_answer.h"
#include "sandbox/sandbox.h"

static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";

/** One client address, while it has connections. */
struct peer {
    struct sm_addr addr; /* the key */
    unsigned conns, asked;
};

/** A connection. Its socket is ours until the head is complete, and the hub's from then on. */
struct client {
    struct sm_proxy_front *proxy;
    struct sm_endpoint src;
    struct peer *peer;
    struct sm_watch sock; /* fd -1: the hub has it */
    struct sm_timer timer;
    GList link; /* in proxy->heads, while the head is read */
    struct sm_proxy_head head;
    struct sm_proxy_rest rest; /* absolute form: behind the head */
    struct sm_buf in;
    size_t counted; /* of in, in proxy->heads_bytes */
    bool connect, head_only;
    bool asked; /* and not answered */
    char *host; /* for pages */
};

struct sm_proxy_front {
    struct sm_loop *loop;
    const struct sm_proxy_config *config;
    struct sm_front *hub;
    unsigned heads_max, peer_max;
    bool finishing;
    GQueue heads;      /* of struct client, oldest first */
    GHashTable *peers; /* &peer->addr -> peer */
    size_t heads_bytes;
    struct sm_proxy_stats stats;
    uint8_t scratch[16 << 10]; /* what one read of a head may bring */
};

/* ---- clients and their addresses ---- */

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

static struct peer *peer_of(struct sm_proxy_front *proxy, const struct sm_addr *addr)
{
    struct peer *peer = g_hash_table_lookup(proxy->peers, addr);

    if (!peer) {
        peer = g_new0(struct peer, 1);
        peer->addr = *addr;
        g_hash_table_insert(proxy->peers, &peer->addr, peer);
    }
    return peer;
}

/* Its head is not waited for any more, and its socket is the caller's. */
static int leave_heads(struct client *c)
{
    struct sm_proxy_front *proxy = c->proxy;

    g_queue_unlink(&proxy->heads, &c->link);
    sm_loop_disarm(proxy->loop, &c->timer);
    sm_loop_unwatch(proxy->loop, &c->sock);
    proxy->heads_bytes -= c->counted;
    c->counted = 0;
    return sm_steal_fd(&c->sock.fd);
}

static void answered(struct client *c)
{
    c->peer->asked -= c->asked;
    c->asked = false;
}

static void client_free(struct client *c)
{
    struct sm_proxy_front *proxy = c->proxy;

    answered(c);
    sm_buf_clear(&c->in);
    sm_proxy_rest_clear(&c->rest);
    g_free(c->host);
    if (--c->peer->conns == 0)
        g_hash_table_remove(proxy->peers, &c->peer->addr);
    proxy->stats.clients_now--;
    g_free(c);
}

static GBytes *page(const struct client *c, struct sm_proxy_answer a)
{
    a.host = c->host;
    a.workspace = c->proxy->config->workspace;
    a.head_only = c->head_only;
    return sm_proxy_answer(&a);
}

/* An answer to a head, and the end of it. */
static void answer(struct client *c, uint16_t status, const char *reason)
{
    int fd = leave_heads(c);

    sm_sock_answer(c->proxy->hub, fd, page(c, (struct sm_proxy_answer){.status = status, .reason = reason}));
    client_free(c);
}

static void report(struct client *c, enum sm_flow_other kind)
{
    sm_sock_other(c->proxy->hub, kind, SM_FLOW_TCP, &c->src.addr);
}

/* ---- what the hub asks about a flow ---- */

static GBytes *on_accepted(void *data)
{
    struct client *c = data;

    answered(c);
    return c->connect ? g_bytes_new_static(established, sizeof(established) - 1) : NULL;
}

static GBytes *on_refused(const struct sm_flow_msg *msg, void *data)
{
    struct client *c = data;
    struct sm_proxy_answer a = {0};

    c->proxy->stats.refused++;
    sm_proxy_answer_refusal(msg, &a);
    return page(c, a);
}

static void on_closed(void *data)
{
    client_free(data);
}

/* A tunnel's client says what it likes; another one the request that was judged, and not the next, which is for us. */
static size_t on_says(const uint8_t *p, size_t len, void *data)
{
    struct client *c = data;

    return c->connect ? len : sm_proxy_rest_says(&c->rest, p, len);
}

static bool on_hears(const uint8_t *p, size_t len, void *data)
{
    struct client *c = data;

    if (c->connect)
        return true;
    sm_proxy_rest_hears(&c->rest, p, len);
    return !c->rest.too_much;
}

static const struct sm_sock_hooks hooks = {
    .accepted = on_accepted, .refused = on_refused, .says = on_says, .hears = on_hears, .closed = on_closed};

/* ---- heads ---- */

static bool is_authorised(const struct client *c)
{
    const struct sm_proxy_config *config = c->proxy->config;

    return !config->auth || (c->head.has_auth &&
                             sm_proxy_config_admits(config, sm_buf_peek(&c->in) + c->head.auth.off, c->head.auth.len));
}

/* What goes upstream first: of CONNECT what the client has sent behind it; of the others the rewritten head, and what
 * has come of the body. */
static bool first_bytes(struct client *c, struct sm_buf *ret)
{
    const struct sm_proxy_head *h = &c->head;
    const uint8_t *data = sm_buf_peek(&c->in);
    size_t cap = h->consumed + SM_PROXY_REWRITE_MORE;
    g_autofree uint8_t *head = NULL;
    size_t len = 0, more = c->in.len - h->consumed;

    if (h->status == SM_PROXY_FORWARD) {
        head = g_malloc(cap);
        len = sm_proxy_head_rewrite(h, data, head, cap);
        if (len == 0)
            return false;
        sm_proxy_rest_init(&c->rest, h);
        more = sm_proxy_rest_says(&c->rest, data + h->consumed, more);
    }
    return sm_buf_append(ret, head, len) && sm_buf_append(ret, data + h->consumed, more);
}

static void head_complete(struct client *c)
{
    struct sm_proxy_front *proxy = c->proxy;
    const struct sm_proxy_head *h = &c->head;
    const char *data = (const char *)sm_buf_peek(&c->in);
    struct sm_buf first;

    c->connect = h->status == SM_PROXY_CONNECT;
    c->head_only = !c->connect && c->in.len >= 5 && memcmp(data, "HEAD ", 5) == 0;
    c->host = g_strndup(data + h->host.off, h->host.len);
    if (!is_authorised(c)) {
        proxy->stats.unauthorised++;
        report(c, SM_OTHER_AUTH);
        answer(c, 407, "proxy_authorization");
        return;
    }
    if (c->peer->asked >= SM_PROXY_PEER_ASKED_MAX) {
        answer(c, 503, "limit");
        return;
    }
    sm_buf_init(&first, SM_SOCK_FIRST_MAX);
    if (!first_bytes(c, &first)) {
        sm_buf_clear(&first);
        answer(c, 431, "http_head_too_large");
        return;
    }
    struct sm_flow_msg open = {.src = c->src, .name = c->host, .name_len = strlen(c->host), .dst = {.port = h->port}};
    int fd = leave_heads(c);
    sm_buf_clear(&c->in);
    c->asked = true;
    c->peer->asked++;
    sm_sock_open(proxy->hub, fd, &open, sm_buf_peek(&first), first.len, &hooks, c); /* c may be gone */
    sm_buf_clear(&first);
}

static void bad_head(struct client *c)
{
    bool large = c->head.reject == SM_PROXY_REJECT_HTTP && c->head.http == SM_HTTP_REJECT_TOO_LARGE;

    c->proxy->stats.bad_requests++;
    report(c, SM_OTHER_REQUEST);
    answer(c, large ? 431 : 400, sm_proxy_reject_name(&c->head));
}

static void give_up(struct client *c)
{
    int fd = leave_heads(c);

    sm_fd_close(&fd);
    client_free(c);
}

static void on_sock(struct sm_watch *watch, uint32_t events)
{
    struct client *c = sm_container_of(watch, struct client, sock);
    struct sm_proxy_front *proxy = c->proxy;
    /* One byte more than the largest head: that it is too large is the parser's to say. */
    size_t room = SM_HTTP_HEAD_MAX - c->in.len;
    ssize_t n = read(watch->fd, proxy->scratch, SM_MIN(room, sizeof(proxy->scratch)));

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        give_up(c);
        return;
    }
    if (proxy->heads_bytes + (size_t)n > SM_PROXY_HEADS_BYTES || !sm_buf_append(&c->in, proxy->scratch, (size_t)n)) {
        answer(c, 503, "limit");
        return;
    }
    proxy->heads_bytes += (size_t)n;
    c->counted += (size_t)n;
    switch (sm_proxy_head_feed(&c->head, sm_buf_peek(&c->in), c->in.len)) {
    case SM_PROXY_NEED_MORE:
        break;
    case SM_PROXY_CONNECT:
    case SM_PROXY_FORWARD:
        head_complete(c);
        break;
    case SM_PROXY_REJECT:
    case SM_PROXY_STATUS_COUNT:
        bad_head(c);
        break;
    }
}

static void too_slow(struct client *c)
{
    if (c->in.len == 0) { /* opened ahead of its use */
        give_up(c);
        return;
    }
    c->proxy->stats.bad_requests++;
    report(c, SM_OTHER_REQUEST);
    answer(c, 408, "proxy_head_timeout");
}

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    (void)now_us;
    too_slow(sm_container_of(timer, struct client, timer));
}

/* ---- who comes ---- */

static void on_client(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data)
{
    struct sm_proxy_front *proxy = data;

    (void)dst;
    proxy->stats.accepted++;
    if (!sm_proxy_config_is_client(proxy->config, &src->addr)) {
        proxy->stats.strangers++;
        sm_sock_other(proxy->hub, SM_OTHER_CLIENT, SM_FLOW_TCP, &src->addr);
        sm_sock_answer(proxy->hub, fd, NULL);
        return;
    }
    if (proxy->heads.length >= proxy->heads_max)
        too_slow(proxy->heads.head->data);
    struct client *c = g_new0(struct client, 1);
    c->proxy = proxy;
    c->src = *src;
    c->peer = peer_of(proxy, &src->addr);
    c->peer->conns++;
    c->link.data = c;
    sm_watch_init(&c->sock, fd, on_sock);
    sm_timer_init(&c->timer, on_timer);
    sm_buf_init(&c->in, SM_HTTP_HEAD_MAX);
    sm_proxy_head_init(&c->head);
    proxy->stats.clients_now++;
    g_queue_push_tail_link(&proxy->heads, &c->link);
    sm_loop_arm(proxy->loop, &c->timer, sm_loop_now(proxy->loop) + SM_PROXY_HEAD_US);
    if (proxy->finishing || c->peer->conns > proxy->peer_max || sm_loop_watch(proxy->loop, &c->sock, EPOLLIN) < 0)
        answer(c, 503, "limit");
}

/* ---- life ---- */

struct sm_proxy_front *sm_proxy_front_new(struct sm_loop *loop, const struct sm_proxy_config *config, int listener,
                                          int channel_fd, unsigned nofile, void (*failed)(const char *text, void *data),
                                          void *data, GError **error)
{
    struct sm_proxy_front *proxy = g_new0(struct sm_proxy_front, 1);
    struct sm_front_config cfg = {0};

    if (getrandom(cfg.secret, sizeof(cfg.secret), 0) != (ssize_t)sizeof(cfg.secret)) {
        sm_error_set_errno(error, errno, "proxy: getrandom");
        g_free(proxy);
        return NULL;
    }
    proxy->loop = loop;
    proxy->config = config;
    proxy->heads_max = SM_MIN((unsigned)SM_PROXY_HEADS_MAX, nofile / 4);
    cfg.max_live = (nofile - SM_FRONT_FDS_RESERVED - proxy->heads_max) / SM_SOCK_FDS_A_FLOW;
    proxy->peer_max = SM_MIN((unsigned)SM_PROXY_PEER_MAX, cfg.max_live / 2);
    g_queue_init(&proxy->heads);
    proxy->peers = g_hash_table_new_full(addr_hash, addr_same, NULL, g_free);
    proxy->hub = sm_front_new_sock(loop, &cfg, channel_fd, failed, data);
    sm_sock_listen(proxy->hub, listener, on_client, proxy);
    return proxy;
}

void sm_proxy_front_free(struct sm_proxy_front *proxy)
{
    if (!proxy)
        return;
    while (proxy->heads.head)
        give_up(proxy->heads.head->data);
    sm_front_free(proxy->hub); /* and what is a flow */
    g_hash_table_destroy(proxy->peers);
    g_free(proxy);
}

void sm_proxy_front_stats(const struct sm_proxy_front *proxy, struct sm_proxy_stats *ret)
{
    *ret = proxy->stats;
    ret->heads_now = proxy->heads.length;
}

struct sm_front *sm_proxy_front_hub(const struct sm_proxy_front *proxy)
{
    return proxy->hub;
}

void sm_proxy_front_finish(struct sm_proxy_front *proxy)
{
    struct sm_front_stats s;

    proxy->finishing = true;
    sm_front_stats(proxy->hub, &s);
    /* A tunnel may be quiet and open for days: what is waited for is what clients have sent, and not their end. */
    if (s.held_now > 0)
        sm_front_finish(proxy->hub);
    else
        sm_front_last_word(proxy->hub);
}

/* ---- the process ---- */

struct process {
    struct sm_loop *loop;
    struct sm_watch link;
    struct sm_proxy_config config;
    struct sm_proxy_front *proxy;
    bool stopping;
};

static void on_failed(const char *text, void *data)
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
    struct sm_front_stats f;

    sm_proxy_front_stats(p->proxy, &s);
    sm_front_stats(sm_proxy_front_hub(p->proxy), &f);
    json_auto_t *j =
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "accepted", (json_int_t)s.accepted,
                  "strangers", (json_int_t)s.strangers, "unauthorised", (json_int_t)s.unauthorised, "bad_requests",
                  (json_int_t)s.bad_requests, "refused", (json_int_t)s.refused, "clients_now",
                  (json_int_t)s.clients_now, "heads_now", (json_int_t)s.heads_now, "opens", (json_int_t)f.opens,
                  "opens_dropped", (json_int_t)f.opens_dropped, "attached", (json_int_t)f.attached, "gone",
                  (json_int_t)f.gone, "tcp_now", (json_int_t)f.tcp_now, "asked_now", (json_int_t)f.asked_now,
                  "held_now", (json_int_t)f.held_now, "channel_dropped", (json_int_t)f.channel_dropped);
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
        sm_proxy_front_finish(p->proxy);
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
    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0 || nofile.rlim_cur < 4 * SM_FRONT_FDS_RESERVED) {
        sm_error_set(error, SM_ERROR_MISSING, "proxy: the limit of open files is too low; raise it (ulimit -n 4096)");
        return false;
    }
    if (sm_fd_set_nonblock(SM_LINK_FD) < 0 || sm_fd_set_nonblock(SM_CHANNEL_FD) < 0 ||
        sm_fd_set_nonblock(SM_ROLE_FD) < 0) {
        sm_error_set_errno(error, errno, "proxy: a descriptor of the supervisor is missing");
        return false;
    }
    unsigned most = (unsigned)SM_MIN(nofile.rlim_cur, (rlim_t)1 << 20);
    p->loop = sm_loop_new(error);
    if (!p->loop)
        return false;
    p->proxy = sm_proxy_front_new(p->loop, &p->config, SM_ROLE_FD, SM_CHANNEL_FD, most, on_failed, p, error);
    if (!p->proxy)
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
    struct process p = {0};
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
