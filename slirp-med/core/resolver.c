/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * c-ares as a transport on our loop. It is given whole queries (ares_send) and gives back whole answers; names, ids,
 * parsing and believing are ours. Its callbacks only put a finished request on a list: what the asker does runs after
 * c-ares has returned, because c-ares may not be destroyed, cancelled or re-configured from inside its own callbacks.
 */
#include "core/resolver.h"

#include <ares.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

/* Each server has at most one UDP and one TCP socket. */
#define SOCKETS_MAX (2 * SM_RESOLVER_SERVERS_MAX)
/* Datagrams taken in one go: c-ares would read on for as long as a server sends. The loop is level-triggered and comes
 * back. */
#define DATAGRAMS_PER_TURN 64
/* How often time-outs are looked for while something is in flight. ares_timeout() would walk all queries at every
 * packet. */
#define TICK_US 100000
/* Requests by id. */
#define BUCKETS 256

struct socket_watch {
    struct sm_watch watch;
    struct sm_resolver *res;
    bool used;
};

struct sm_resolver_req {
    struct sm_resolver *res;
    struct sm_resolver_done done; /* fn NULL: the asker is gone */
    struct sm_dns_query q;
    uint16_t id;
    bool plain;         /* asked without EDNS */
    uint8_t seen_rcode; /* what a server said when c-ares went on to the next one */
    struct sm_resolver_req *bucket_next;
    struct sm_resolver_req *list_next;

    /* Finished: */
    int status; /* ARES_* */
    uint8_t *msg;
    size_t msg_len;
};

/* A queue that is taken from the front. */
struct req_list {
    struct sm_resolver_req *first;
    struct sm_resolver_req **last;
};

struct sm_resolver {
    struct sm_loop *loop;
    ares_channel channel;
    struct socket_watch sockets[SOCKETS_MAX];
    struct sm_timer tick;
    struct sm_timer deliver;
    struct sm_resolver_req *buckets[BUCKETS];
    struct req_list finished;
    struct req_list again; /* cancelled because the servers changed */
    unsigned inflight;
    int datagrams_left;
    bool processing; /* inside ares_process_fd(): what finishes is delivered behind it */
    bool switching;
    bool closing;
    uint8_t random[256];
    size_t random_left;
};

static const char *const status_names[] = {
    [SM_RESOLVER_OK] = "ok",
    [SM_RESOLVER_TIMEOUT] = "timeout",
    [SM_RESOLVER_REFUSED] = "upstream_refused",
    [SM_RESOLVER_SERVFAIL] = "upstream_servfail",
    [SM_RESOLVER_BAD] = "upstream_bad_answer",
    [SM_RESOLVER_UNREACHABLE] = "upstream_unreachable",
};
SM_NAME_TABLE_COVERS(status_names, SM_RESOLVER_STATUS_COUNT);

const char *sm_resolver_status_name(enum sm_resolver_status status)
{
    return status_names[status];
}

static void list_init(struct req_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_push(struct req_list *list, struct sm_resolver_req *req)
{
    req->list_next = NULL;
    *list->last = req;
    list->last = &req->list_next;
}

static struct sm_resolver_req *list_pop(struct req_list *list)
{
    struct sm_resolver_req *req = list->first;
    if (req && !(list->first = req->list_next))
        list->last = &list->first;
    return req;
}

static struct sm_resolver_req *find(struct sm_resolver *res, uint16_t id)
{
    struct sm_resolver_req *req = res->buckets[id % BUCKETS];
    while (req && req->id != id)
        req = req->bucket_next;
    return req;
}

static void drop(struct sm_resolver_req *req)
{
    struct sm_resolver *res = req->res;
    struct sm_resolver_req **at = &res->buckets[req->id % BUCKETS];

    while (*at != req)
        at = &(*at)->bucket_next;
    *at = req->bucket_next;
    res->inflight--;
    if (res->inflight == 0)
        sm_loop_disarm(res->loop, &res->tick);
    g_free(req->msg);
    g_free(req);
}

/* Two bytes that nobody can guess; a query that could be answered by a guesser is not sent. */
static bool random_id(struct sm_resolver *res, uint16_t *ret)
{
    if (res->random_left < 2) {
        if (getrandom(res->random, sizeof(res->random), 0) != (ssize_t)sizeof(res->random))
            return false;
        res->random_left = sizeof(res->random);
    }
    res->random_left -= 2;
    memcpy(ret, res->random + res->random_left, 2);
    return true;
}

/* ---- sockets ---- */

/* c-ares' own functions would need fcntl, ioctl and writev, and would not set TCP_NODELAY with these set. */

static ares_socket_t own_socket(int af, int type, int protocol, void *data)
{
    int fd = socket(af, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    int on = 1;

    if (fd >= 0 && type == SOCK_STREAM)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static int own_close(ares_socket_t fd, void *data)
{
    return close(fd);
}

static int own_connect(ares_socket_t fd, const struct sockaddr *addr, ares_socklen_t len, void *data)
{
    return connect(fd, addr, len);
}

static ares_ssize_t own_recvfrom(ares_socket_t fd, void *buf, size_t cap, int flags, struct sockaddr *from,
                                 ares_socklen_t *from_len, void *data)
{
    struct sm_resolver *res = data;
    /* c-ares asks for the sender only of datagrams. */
    bool datagram = from != NULL;

    if (datagram && res->datagrams_left-- <= 0) {
        errno = EAGAIN;
        return -1;
    }
    ares_ssize_t n = recvfrom(fd, buf, cap, flags, from, from_len);
    if (datagram && n >= 4) {
        /* Only to be able to say why, when c-ares has tried the last server; nothing is decided by it. */
        const uint8_t *head = buf;
        struct sm_resolver_req *req = find(res, (uint16_t)((unsigned)head[0] << 8 | head[1]));
        if (req)
            req->seen_rcode = head[3] & 15;
    }
    return n;
}

static ares_ssize_t own_sendv(ares_socket_t fd, const struct iovec *vec, int n, void *data)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)vec, .msg_iovlen = (size_t)n};
    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static const struct ares_socket_functions own_functions = {.asocket = own_socket,
                                                           .aclose = own_close,
                                                           .aconnect = own_connect,
                                                           .arecvfrom = own_recvfrom,
                                                           .asendv = own_sendv};

static void deliver(struct sm_resolver *res);

static void process(struct sm_resolver *res, int read_fd, int write_fd)
{
    res->datagrams_left = DATAGRAMS_PER_TURN;
    res->processing = true;
    ares_process_fd(res->channel, read_fd, write_fd);
    res->processing = false;
    deliver(res);
}

static void on_socket(struct sm_watch *watch, uint32_t events)
{
    struct socket_watch *s = sm_container_of(watch, struct socket_watch, watch);
    struct sm_resolver *res = s->res;
    bool broken = events & (EPOLLERR | EPOLLHUP);

    process(res, broken || events & EPOLLIN ? watch->fd : ARES_SOCKET_BAD,
            broken || events & EPOLLOUT ? watch->fd : ARES_SOCKET_BAD);
}

/* c-ares wants these events of a socket from now on; none: it is about to close it. */
static void on_socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct sm_resolver *res = data;
    struct socket_watch *s = NULL, *unused = NULL;

    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        if (res->sockets[i].used && res->sockets[i].watch.fd == fd)
            s = &res->sockets[i];
        else if (!res->sockets[i].used)
            unused = &res->sockets[i];
    }
    if (!readable && !writable) {
        if (s) {
            sm_loop_unwatch(res->loop, &s->watch);
            s->used = false;
        }
        return;
    }
    if (!s) {
        /* More sockets than servers could have: without a watch its queries run into their time-out. */
        if (!unused)
            return;
        s = unused;
        s->used = true;
        sm_watch_init(&s->watch, fd, on_socket);
    }
    (void)sm_loop_watch(res->loop, &s->watch, (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u));
}

/* ---- requests ---- */

static void on_answer(void *data, int status, int timeouts, unsigned char *abuf, int alen)
{
    struct sm_resolver_req *req = data;
    struct sm_resolver *res = req->res;

    if (res->closing || (status == ARES_ECANCELLED && !req->done.fn)) {
        drop(req);
        return;
    }
    if (status == ARES_ECANCELLED && res->switching) {
        list_push(&res->again, req);
        return;
    }
    req->status = status;
    if (status == ARES_SUCCESS && alen > 0) {
        req->msg = g_memdup2(abuf, (gsize)alen);
        req->msg_len = (size_t)alen;
    }
    list_push(&res->finished, req);
    if (!res->processing)
        sm_loop_arm(res->loop, &res->deliver, sm_loop_now(res->loop));
}

static void send_query(struct sm_resolver_req *req)
{
    struct sm_resolver *res = req->res;
    uint8_t msg[SM_DNS_UPSTREAM_QUERY_MAX];
    size_t len = sm_dns_query_build(&req->q, req->id, msg, sizeof(msg));

    if (req->plain) {
        /* The OPT is the last thing in it, and the only additional record. */
        len -= SM_DNS_UPSTREAM_OPT_LEN;
        msg[11] = 0;
    }
    if (!sm_timer_armed(&res->tick))
        sm_loop_arm(res->loop, &res->tick, sm_loop_now(res->loop) + TICK_US);
    ares_send(res->channel, msg, (int)len, on_answer, req);
}

static enum sm_resolver_status judge(struct sm_resolver_req *req, struct sm_dns_response *resp)
{
    if (req->status == ARES_SUCCESS) {
        bool good = sm_dns_response_parse(req->msg, req->msg_len, req->id, &req->q, resp) == SM_DNS_RESPONSE_OK;
        return good ? SM_RESOLVER_OK : SM_RESOLVER_BAD;
    }
    /* With SERVFAIL, NOTIMP or REFUSED from the last server c-ares reports what it would for an unreachable one. */
    if (req->seen_rcode == SM_DNS_REFUSED)
        return SM_RESOLVER_REFUSED;
    if (req->seen_rcode == SM_DNS_SERVFAIL || req->seen_rcode == SM_DNS_NOTIMP)
        return SM_RESOLVER_SERVFAIL;
    return req->status == ARES_ETIMEOUT ? SM_RESOLVER_TIMEOUT : SM_RESOLVER_UNREACHABLE;
}

/* Calls back for everything that is finished. */
static void deliver(struct sm_resolver *res)
{
    struct sm_resolver_req *req;
    struct sm_dns_response resp;

    while ((req = list_pop(&res->finished))) {
        if (!req->done.fn) {
            drop(req);
            continue;
        }
        enum sm_resolver_status status = judge(req, &resp);
        if (status == SM_RESOLVER_OK && resp.rcode == SM_DNS_FORMERR && !resp.edns && !req->plain) {
            req->plain = true;
            g_clear_pointer(&req->msg, g_free);
            send_query(req);
            continue;
        }
        /* The handle is dead before the callback runs: a cancel from inside it would be a mistake. */
        struct sm_resolver_done done = req->done;
        uint8_t *msg = sm_steal_ptr(&req->msg); /* resp points into it */
        drop(req);
        done.fn(done.data, status, status == SM_RESOLVER_OK ? &resp : NULL);
        g_free(msg);
    }
}

static void on_deliver(struct sm_timer *timer, int64_t now_us)
{
    deliver(sm_container_of(timer, struct sm_resolver, deliver));
}

static void on_tick(struct sm_timer *timer, int64_t now_us)
{
    struct sm_resolver *res = sm_container_of(timer, struct sm_resolver, tick);

    if (res->inflight > 0)
        sm_loop_arm(res->loop, &res->tick, now_us + TICK_US);
    process(res, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

struct sm_resolver_req *sm_resolver_query(struct sm_resolver *res, const struct sm_dns_query *q,
                                          struct sm_resolver_done done)
{
    uint16_t id;

    if (res->inflight >= SM_RESOLVER_INFLIGHT_MAX)
        return NULL;
    do {
        if (!random_id(res, &id))
            return NULL;
    } while (find(res, id));

    struct sm_resolver_req *req = g_new0(struct sm_resolver_req, 1);
    req->res = res;
    req->done = done;
    req->q = *q;
    req->id = id;
    req->bucket_next = res->buckets[id % BUCKETS];
    res->buckets[id % BUCKETS] = req;
    res->inflight++;
    send_query(req);
    return req;
}

struct sm_resolver_req *sm_resolver_lookup(struct sm_resolver *res, const char *name, struct sm_resolver_done done)
{
    struct sm_dns_query q = {.rd = true, .has_question = true, .qtype = SM_DNS_A, .qclass = 1, .edns = true};

    return sm_dns_name_from_text(name, &q.qname) ? sm_resolver_query(res, &q, done) : NULL;
}

void sm_resolver_cancel(struct sm_resolver_req *req)
{
    /* c-ares cannot forget one query: it goes on until it is answered or timed out, counted as in flight, and nobody is
     * called. */
    req->done.fn = NULL;
}

unsigned sm_resolver_inflight(const struct sm_resolver *res)
{
    return res->inflight;
}

/* ---- set-up ---- */

static bool apply_servers(struct sm_resolver *res, const struct sm_endpoint *servers, size_t n, GError **error)
{
    struct ares_addr_port_node nodes[SM_RESOLVER_SERVERS_MAX] = {0};

    for (size_t i = 0; i < n; i++) {
        bool v4 = servers[i].addr.family == SM_FAMILY_V4;
        uint16_t port = servers[i].port ? servers[i].port : 53;
        nodes[i].family = v4 ? AF_INET : AF_INET6;
        memcpy(&nodes[i].addr, servers[i].addr.bytes, v4 ? 4 : 16);
        nodes[i].udp_port = nodes[i].tcp_port = port;
        nodes[i].next = i + 1 < n ? &nodes[i + 1] : NULL;
    }
    int status = ares_set_servers_ports(res->channel, nodes);
    if (status != ARES_SUCCESS)
        sm_error_set(error, SM_ERROR_SYSTEM, "resolver: c-ares does not take the servers: %s", ares_strerror(status));
    return status == ARES_SUCCESS;
}

static bool check_servers(const struct sm_endpoint *servers, size_t n, GError **error)
{
    if (n == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "resolver: no DNS server is known: give one with --dns ADDR");
        return false;
    }
    if (n > SM_RESOLVER_SERVERS_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "resolver: %zu DNS servers, at most %d can be used", n,
                     SM_RESOLVER_SERVERS_MAX);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (servers[i].addr.family == SM_FAMILY_NONE) {
            sm_error_set(error, SM_ERROR_INVALID, "resolver: DNS server %zu has no address", i + 1);
            return false;
        }
    }
    return true;
}

struct sm_resolver *sm_resolver_new(struct sm_loop *loop, const struct sm_endpoint *servers, size_t n_servers,
                                    GError **error)
{
    char lookups[] = "b";

    if (!check_servers(servers, n_servers, error))
        return NULL;
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    if (status != ARES_SUCCESS) {
        sm_error_set(error, SM_ERROR_SYSTEM, "resolver: c-ares: %s", ares_strerror(status));
        return NULL;
    }
    struct sm_resolver *res = g_new0(struct sm_resolver, 1);
    res->loop = loop;
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        res->sockets[i].res = res;
    sm_timer_init(&res->tick, on_tick);
    sm_timer_init(&res->deliver, on_deliver);
    list_init(&res->finished);
    list_init(&res->again);

    /* Every option that c-ares would otherwise look for in resolv.conf, nsswitch.conf, host.conf or the environment is
     * given here. */
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
        .timeout = SM_RESOLVER_TIMEOUT_MS,
        .tries = SM_RESOLVER_TRIES,
        .ndots = 0,
        .lookups = lookups,
        .ednspsz = SM_DNS_UDP_MAX,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = res,
    };
    status = ares_init_options(&res->channel, &options,
                               ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
                                   ARES_OPT_LOOKUPS | ARES_OPT_DOMAINS | ARES_OPT_SORTLIST | ARES_OPT_SERVERS |
                                   ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE);
    if (status != ARES_SUCCESS) {
        sm_error_set(error, SM_ERROR_SYSTEM, "resolver: c-ares: %s", ares_strerror(status));
        g_free(res);
        ares_library_cleanup();
        return NULL;
    }
    ares_set_socket_functions(res->channel, &own_functions, res);
    if (!apply_servers(res, servers, n_servers, error)) {
        sm_resolver_free(res);
        return NULL;
    }
    return res;
}

bool sm_resolver_set_servers(struct sm_resolver *res, const struct sm_endpoint *servers, size_t n_servers,
                             GError **error)
{
    struct sm_resolver_req *req;

    if (!check_servers(servers, n_servers, error))
        return false;
    /* c-ares takes new servers only while nothing is in flight, and a query may not be sent from inside ares_cancel():
     * it would keep the sockets open whose send queues still point into the cancelled queries. So: cancel, change, and
     * then send again. */
    res->switching = true;
    ares_cancel(res->channel);
    res->switching = false;
    bool good = apply_servers(res, servers, n_servers, error);
    while ((req = list_pop(&res->again))) {
        req->plain = false;
        req->seen_rcode = 0;
        send_query(req);
    }
    return good;
}

void sm_resolver_free(struct sm_resolver *res)
{
    struct sm_resolver_req *req;

    if (!res)
        return;
    res->closing = true;
    ares_destroy(res->channel);
    while ((req = list_pop(&res->finished)))
        drop(req);
    sm_loop_disarm(res->loop, &res->tick);
    sm_loop_disarm(res->loop, &res->deliver);
    g_free(res);
    ares_library_cleanup();
}

size_t sm_resolv_conf_parse(const char *text, size_t len, struct sm_endpoint *ret, size_t max)
{
    static const char keyword[] = "nameserver";
    const char *end = text + len;
    size_t n = 0;

    while (text < end && n < max) {
        const char *eol = memchr(text, '\n', (size_t)(end - text));
        const char *line = text;
        size_t left = (size_t)((eol ? eol : end) - line);
        text = eol ? eol + 1 : end;
        /* As resolv.conf(5) has it: the keyword begins the line, white space, the address; what follows it is ignored.
         */
        size_t k = sizeof(keyword) - 1;
        if (left <= k || memcmp(line, keyword, k) != 0 || (line[k] != ' ' && line[k] != '\t'))
            continue;
        while (k < left && (line[k] == ' ' || line[k] == '\t'))
            k++;
        size_t word = 0;
        while (k + word < left && !strchr(" \t\r#;", line[k + word]))
            word++;
        char addr[SM_ADDR_STRLEN];
        struct sm_endpoint server = {.port = 53};
        if (word >= sizeof(addr) || memchr(line + k, '\0', word))
            continue;
        memcpy(addr, line + k, word);
        addr[word] = '\0';
        if (sm_addr_parse(addr, &server.addr))
            ret[n++] = server;
    }
    return n;
}
