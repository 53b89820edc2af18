/* SPDX-License-Identifier: BSD-3-Clause */
/* Published ports; see publish.h. */
#include "supervisor/publish.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

struct listener {
    struct sm_publishes *all;
    struct sm_publish p; /* with its real port */
    struct sm_watch watch;
    uint64_t round;  /* the LISTENERS message that has it first */
    uint64_t client; /* who waits for settled() */
    bool listens;
};

struct sm_publishes {
    struct sm_loop *loop;
    struct sm_publishes_ops ops;
    void *data;
    GPtrArray *listeners; /* of struct listener */
    bool begun, ended;
    uint64_t told, known; /* LISTENERS messages and the core's answers */
    unsigned inflight;
    bool resting;
    struct sm_timer rest;
    int stuck; /* accepted, and the link would not take it; -1: none */
    uint16_t stuck_port;
};

/* ---- as text ---- */

/* Decimal digits alone. */
static bool parse_port(const char *text, bool zero, uint16_t *ret)
{
    unsigned value = 0;
    size_t n = strspn(text, "0123456789");

    if (n == 0 || n > 5 || text[n] != '\0')
        return false;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    if (value > UINT16_MAX || (value == 0 && !zero))
        return false;
    *ret = (uint16_t)value;
    return true;
}

static bool bad(GError **error, const char *what)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s: write HOST:HOSTPORT:GUESTPORT/tcp, for instance 127.0.0.1:8080:80/tcp",
                 what);
    return false;
}

bool sm_publish_parse(const char *text, struct sm_publish *ret, GError **error)
{
    struct sm_publish p = {.host.addr = sm_addr_v4(127, 0, 0, 1)};
    g_autofree char *copy = g_strdup(text);
    char *slash = strchr(copy, '/');
    const char *host = NULL;

    if (slash && strcmp(slash, "/tcp") != 0)
        return bad(error, "only tcp can be published");
    if (slash)
        *slash = '\0';
    char *colon = strrchr(copy, ':');
    if (!colon)
        return bad(error, "lacks a port");
    if (!parse_port(colon + 1, false, &p.guest_port))
        return bad(error, "its last part is no port of the guest (1 to 65535)");
    *colon = '\0';
    colon = strrchr(copy, ':');
    if (colon) {
        *colon = '\0';
        host = copy;
    }
    if (!parse_port(colon ? colon + 1 : copy, true, &p.host.port))
        return bad(error, "its part before the last is no port of this host (0, for a free one, to 65535)");
    if (host) {
        size_t len = strlen(host);
        bool v6 = len > 2 && host[0] == '[' && host[len - 1] == ']';
        g_autofree char *inner = v6 ? g_strndup(host + 1, len - 2) : g_strdup(host);
        if (!sm_addr_parse(inner, &p.host.addr) || (p.host.addr.family == SM_FAMILY_V6) != v6)
            return bad(error, "its first part is no address of this host (an IPv6 address stands in brackets)");
    }
    *ret = p;
    return true;
}

const char *sm_publish_format(const struct sm_publish *p, char out[SM_PUBLISH_STRLEN])
{
    char host[SM_ENDPOINT_STRLEN];

    (void)g_snprintf(out, SM_PUBLISH_STRLEN, "%s:%u/tcp", sm_endpoint_format(&p->host, host), p->guest_port);
    return out;
}

static bool is_any(const struct sm_addr *a)
{
    static const uint8_t zero[sizeof(a->bytes)];
    return memcmp(a->bytes, zero, sizeof(zero)) == 0;
}

bool sm_publish_clashes(const struct sm_publish *a, const struct sm_publish *b)
{
    /* Of IPv6 a socket of ours takes IPv6 alone (bind_socket()). */
    return a->host.port != 0 && a->host.port == b->host.port && a->host.addr.family == b->host.addr.family &&
           (sm_addr_equal(&a->host.addr, &b->host.addr) || is_any(&a->host.addr) || is_any(&b->host.addr));
}

json_t *sm_publish_json(const struct sm_publish *p)
{
    char host[SM_ADDR_STRLEN];

    return json_pack("{s:s, s:i, s:i, s:s}", "host", sm_addr_format(&p->host.addr, host), "hostPort", (int)p->host.port,
                     "guestPort", (int)p->guest_port, "protocol", "tcp");
}

/* ---- accepting ---- */

/* A client that nobody will serve: told so at once. */
static void turn_away(int *fd)
{
    struct linger now = {.l_onoff = 1};

    if (*fd < 0)
        return;
    (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sm_fd_close(fd);
}

/* Listeners are watched while clients can be taken. */
static void watch_all(struct sm_publishes *ps)
{
    bool take = !ps->resting && ps->inflight < SM_PUBLISH_INFLIGHT_MAX && ps->stuck < 0;

    for (guint i = 0; i < ps->listeners->len; i++) {
        struct listener *l = g_ptr_array_index(ps->listeners, i);
        if (!l->listens || l->watch.added == take)
            continue;
        if (!take)
            sm_loop_unwatch(ps->loop, &l->watch);
        else if (sm_loop_watch(ps->loop, &l->watch, EPOLLIN) < 0)
            sm_log_error("a published port is not served: %s", strerror(errno));
    }
}

static void rest(struct sm_publishes *ps)
{
    ps->resting = true;
    sm_loop_arm(ps->loop, &ps->rest, sm_clock_us() + SM_PUBLISH_PAUSE_US);
}

/* False: it waits in ps->stuck. */
static bool hand_over(struct sm_publishes *ps, int given, uint16_t port)
{
    sm_autofd fd = given;
    char text[8];

    (void)g_snprintf(text, sizeof(text), "%u", port);
    if (ps->ops.tell(ps->data, SM_LINK_INGRESS, text, fd) == 0) {
        ps->inflight++;
        return true;
    }
    /* ETOOMANYREFS: this user has too many descriptors on their way, which reading mends. */
    if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM && errno != ETOOMANYREFS) {
        turn_away(&fd); /* the core ends, and the workspace with it */
        return true;
    }
    ps->stuck = sm_steal_fd(&fd);
    ps->stuck_port = port;
    rest(ps);
    return false;
}

static void on_client(struct sm_watch *watch, uint32_t events)
{
    struct listener *l = sm_container_of(watch, struct listener, watch);
    struct sm_publishes *ps = l->all;

    (void)events;
    for (int i = 0; i < SM_PUBLISH_BATCH && ps->inflight < SM_PUBLISH_INFLIGHT_MAX; i++) {
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            /* Errors of the connection itself are accept(2)'s too, and the next one may be well. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                sm_log_warning("clients of published ports have to wait: %s", strerror(errno));
                rest(ps);
            }
            break;
        }
        if (!hand_over(ps, fd, l->p.guest_port))
            break;
    }
    watch_all(ps);
}

static void on_rested(struct sm_timer *timer, int64_t now_us)
{
    struct sm_publishes *ps = sm_container_of(timer, struct sm_publishes, rest);

    (void)now_us;
    ps->resting = false;
    if (ps->stuck >= 0)
        (void)hand_over(ps, sm_steal_fd(&ps->stuck), ps->stuck_port);
    watch_all(ps);
}

/* ---- the list ---- */

static void listener_free(void *data)
{
    struct listener *l = data;

    sm_loop_unwatch(l->all->loop, &l->watch);
    sm_fd_close(&l->watch.fd);
    g_free(l);
}

struct sm_publishes *sm_publishes_new(struct sm_loop *loop, const struct sm_publishes_ops *ops, void *data)
{
    struct sm_publishes *ps = g_new0(struct sm_publishes, 1);

    ps->loop = loop;
    ps->ops = *ops;
    ps->data = data;
    ps->stuck = -1;
    ps->listeners = g_ptr_array_new_with_free_func(listener_free);
    sm_timer_init(&ps->rest, on_rested);
    return ps;
}

void sm_publishes_end(struct sm_publishes *ps)
{
    ps->ended = true;
    g_ptr_array_set_size(ps->listeners, 0);
    sm_loop_disarm(ps->loop, &ps->rest);
    turn_away(&ps->stuck);
}

void sm_publishes_free(struct sm_publishes *ps)
{
    if (!ps)
        return;
    sm_publishes_end(ps);
    g_ptr_array_unref(ps->listeners);
    g_free(ps);
}

/* All addresses to the core. The answer settles what is bound by then. */
static bool tell(struct sm_publishes *ps)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char one[SM_ENDPOINT_STRLEN];

    if (!ps->begun || ps->ended)
        return true;
    for (guint i = 0; i < ps->listeners->len; i++) {
        const struct listener *l = g_ptr_array_index(ps->listeners, i);
        g_string_append_printf(text, "%s%s", i ? "," : "", sm_endpoint_format(&l->p.host, one));
    }
    if (ps->ops.tell(ps->data, SM_LINK_LISTENERS, text->str, -1) < 0)
        return false;
    ps->told++;
    return true;
}

bool sm_publishes_begin(struct sm_publishes *ps)
{
    ps->begun = true;
    return ps->listeners->len == 0 || tell(ps);
}

static int bind_socket(const struct sm_endpoint *host)
{
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(host, &ss);
    int on = 1;
    sm_autofd fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (ss.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, (const struct sockaddr *)&ss, len) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

static struct listener *find(const struct sm_publishes *ps, const struct sm_endpoint *host)
{
    for (guint i = 0; i < ps->listeners->len; i++) {
        struct listener *l = g_ptr_array_index(ps->listeners, i);
        if (sm_endpoint_equal(&l->p.host, host))
            return l;
    }
    return NULL;
}

static void cannot(const struct sm_publish *p, int err, GError **error)
{
    char host[SM_ENDPOINT_STRLEN];

    (void)sm_endpoint_format(&p->host, host);
    if (err == EADDRINUSE)
        sm_error_set(error, SM_ERROR_BUSY, "%s is in use by another program: choose another port, or 0 for a free one",
                     host);
    else if (err == EADDRNOTAVAIL)
        sm_error_set(error, SM_ERROR_INVALID, "%s is no address of this host", host);
    else if (err == EACCES)
        sm_error_set(error, SM_ERROR_SYSTEM, "%s: this user may not listen there (ports below 1024 are for root)",
                     host);
    else
        sm_error_set_errno(error, err, "cannot listen on %s", host);
}

bool sm_publishes_add(struct sm_publishes *ps, const struct sm_publish *p, uint64_t client, GError **error)
{
    struct sm_publish actual = *p;
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    char text[SM_PUBLISH_STRLEN];

    if (ps->listeners->len >= SM_PUBLISH_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "%d ports are published, and there can be no more", SM_PUBLISH_MAX);
        return false;
    }
    const struct listener *old = p->host.port ? find(ps, &p->host) : NULL;
    if (old) {
        sm_error_set(error, SM_ERROR_BUSY, "%s is published already", sm_publish_format(&old->p, text));
        return false;
    }
    sm_autofd fd = bind_socket(&p->host);
    if (fd < 0) {
        cannot(p, errno, error);
        return false;
    }
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 || !sm_endpoint_from_sockaddr(&ss, &actual.host)) {
        sm_error_set_errno(error, errno, "name of a published socket");
        return false;
    }
    struct listener *l = g_new0(struct listener, 1);
    l->all = ps;
    l->p = actual;
    l->client = client;
    l->round = ps->told + 1;
    sm_watch_init(&l->watch, sm_steal_fd(&fd), on_client);
    g_ptr_array_add(ps->listeners, l);
    if (tell(ps))
        return true;
    sm_error_set_errno(error, errno, "the core does not take the address");
    g_ptr_array_remove(ps->listeners, l);
    return false;
}

bool sm_publishes_remove(struct sm_publishes *ps, const struct sm_publish *p)
{
    struct listener *l = find(ps, &p->host);

    if (!l || l->p.guest_port != p->guest_port)
        return false;
    struct sm_publish was = l->p;
    uint64_t waits = l->listens ? 0 : l->client;
    g_ptr_array_remove(ps->listeners, l);
    (void)tell(ps); /* a core that keeps it a while longer refuses the guest an address that nobody serves */
    if (waits)
        ps->ops.settled(ps->data, waits, &was, "it was unpublished");
    return true;
}

static void settle(struct sm_publishes *ps, struct listener *l)
{
    g_autoptr(GError) error = NULL;
    struct sm_publish p = l->p;
    uint64_t client = l->client;

    /* Another program may have bound it beside us, and listen now: the kernel tells only here. */
    if (listen(l->watch.fd, SM_PUBLISH_BACKLOG) < 0) {
        cannot(&p, errno, &error);
        g_ptr_array_remove(ps->listeners, l);
        (void)tell(ps);
    } else {
        l->listens = true;
    }
    ps->ops.settled(ps->data, client, &p, error ? error->message : NULL);
}

void sm_publishes_listeners_known(struct sm_publishes *ps)
{
    ps->known++;
    for (guint i = 0; i < ps->listeners->len;) {
        struct listener *l = g_ptr_array_index(ps->listeners, i);
        guint before = ps->listeners->len;
        if (!l->listens && l->round <= ps->known)
            settle(ps, l);
        if (ps->listeners->len < before)
            i = 0; /* settled() may have removed any of them */
        else
            i++;
    }
    watch_all(ps);
}

void sm_publishes_taken(struct sm_publishes *ps)
{
    if (ps->inflight > 0)
        ps->inflight--;
    if (!ps->ended)
        watch_all(ps);
}

unsigned sm_publishes_owed(const struct sm_publishes *ps, enum sm_link_verb verb)
{
    if (verb == SM_LINK_INGRESS)
        return ps->inflight;
    return verb == SM_LINK_LISTENERS ? (unsigned)(ps->told - ps->known) : 0;
}

const struct sm_publish *sm_publishes_get(const struct sm_publishes *ps, size_t i)
{
    return &((const struct listener *)g_ptr_array_index(ps->listeners, i))->p;
}

bool sm_publishes_all_listen(const struct sm_publishes *ps)
{
    for (guint i = 0; i < ps->listeners->len; i++)
        if (!((const struct listener *)g_ptr_array_index(ps->listeners, i))->listens)
            return false;
    return true;
}

json_t *sm_publishes_json(const struct sm_publishes *ps)
{
    json_t *a = json_array();

    for (guint i = 0; i < ps->listeners->len; i++) {
        const struct listener *l = g_ptr_array_index(ps->listeners, i);
        if (l->listens)
            (void)json_array_append_new(a, sm_publish_json(&l->p));
    }
    return a;
}
