/* SPDX-License-Identifier: BSD-3-Clause */
/* The core's side of a fetch: resolve, judge, record, connect, hand over, read the answer; see fetch.h. */
#include "core/fetch.h"

#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/fetchmsg.h"
#include "cred/text.h"
#include "cred/url.h"

/** Addresses of the host that are tried. */
#define ADDRS_MAX 4

struct sm_fetch {
    struct sm_core *core;
    char *name, *host;
    struct sm_cred_request request;
    bool literal; /* the operator wrote an address, or localhost */
    sm_fetch_done done;
    void *data;

    enum sm_cred_reason failed; /* why, once that is known; told from the timer */
    struct sm_resolver_req *lookup;
    struct sm_endpoint dst;
    struct sm_addr addrs[ADDRS_MAX];
    unsigned n_addrs, next_addr;
    bool denied; /* an address was refused: the reason when none is left */
    struct sm_watch socket, pair;
    struct sm_timer timer;
    bool started; /* it counts as running; otherwise it waits in core->fetch_wait */
    GList link;   /* in core->fetch_wait or core->fetch_running */

    int status; /* of the response; 0: not there yet */
    char *content_type;
    uint8_t *got;
    size_t got_len;
};

static void on_connected(struct sm_watch *watch, uint32_t events);
static void on_pair(struct sm_watch *watch, uint32_t events);
static void next_address(struct sm_fetch *f);
static void wake_next(struct sm_core *core);

static GQueue *queue_of(struct sm_fetch *f)
{
    return f->started ? &f->core->fetch_running : &f->core->fetch_wait;
}

static void free_body(struct sm_fetch *f)
{
    if (f->got)
        sm_wipe(f->got, SM_FETCH_BODY_MAX + 1);
    g_clear_pointer(&f->got, g_free);
}

static void fetch_free(struct sm_fetch *f)
{
    if (f->lookup)
        sm_resolver_cancel(f->lookup);
    sm_loop_disarm(f->core->loop, &f->timer);
    sm_loop_unwatch(f->core->loop, &f->socket);
    sm_loop_unwatch(f->core->loop, &f->pair);
    sm_fd_close(&f->socket.fd);
    sm_fd_close(&f->pair.fd); /* the helper sees it and ends */
    g_queue_unlink(queue_of(f), &f->link);
    free_body(f);
    sm_cred_request_clear(&f->request);
    g_free(f->content_type);
    g_free(f->name);
    g_free(f->host);
    g_free(f);
}

/* From the loop, never from inside sm_fetch_start(). */
static void finish(struct sm_fetch *f, enum sm_cred_reason reason)
{
    struct sm_core *core = f->core;
    struct sm_cred_response r = {
        .status = (unsigned)f->status,
        .content_type = f->content_type,
        .body = f->got,
        .len = f->got_len,
    };
    sm_fetch_done done = f->done;
    void *data = f->data;

    /* It must be over before the callback, which may start another one or end the core's use of this. */
    uint8_t *got = g_steal_pointer(&f->got);
    g_autofree char *type = g_steal_pointer(&f->content_type);
    fetch_free(f);
    done(data, reason, &r);
    if (got)
        sm_wipe(got, SM_FETCH_BODY_MAX + 1);
    g_free(got);
    wake_next(core);
}

static void fail_later(struct sm_fetch *f, enum sm_cred_reason reason)
{
    f->failed = reason;
    sm_loop_unwatch(f->core->loop, &f->socket);
    sm_loop_unwatch(f->core->loop, &f->pair);
    sm_loop_arm(f->core->loop, &f->timer, sm_loop_now(f->core->loop));
}

/* ---- which address ---- */

static bool admitted(struct sm_fetch *f, const struct sm_endpoint *dst)
{
    enum sm_inside_class class;
    enum sm_inside_kind kind = sm_ground_kind(f->core->config->ground, dst, &class);

    switch (class) {
    case SM_INSIDE_CLASS_PUBLIC:
    case SM_INSIDE_CLASS_PIN:
        return true;
    case SM_INSIDE_CLASS_RULE:
        return f->literal;
    case SM_INSIDE_CLASS_SMALL_RULE:
        return f->literal && (kind == SM_INSIDE_LOOPBACK || kind == SM_INSIDE_OWN);
    case SM_INSIDE_CLASS_NEVER:
    case SM_INSIDE_CLASSES:
        break;
    }
    return false;
}

static bool record(struct sm_fetch *f)
{
    struct sm_audit_record r;
    char addr[SM_ADDR_STRLEN];

    sm_audit_begin(&r, SM_AUDIT_EGRESS_SWAP_FETCH, sm_clock_wall_us());
    sm_audit_add_str(&r, "name", f->name);
    sm_audit_add_str(&r, "host", f->host);
    sm_audit_add_str(&r, "dst", sm_addr_format(&f->dst.addr, addr));
    sm_audit_add_uint(&r, "port", f->dst.port);
    /* Not at the end of the turn: nothing of the guest's depends on it, and the connection must not be made before. */
    return sm_core_record(f->core, &r) && sm_core_commit_now(f->core);
}

static bool dial(struct sm_fetch *f)
{
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&f->dst, &ss);
    int on = 1;

    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    sm_watch_init(&f->socket, fd, on_connected);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return (connect(fd, (struct sockaddr *)&ss, len) == 0 || errno == EINPROGRESS) &&
           sm_loop_watch(f->core->loop, &f->socket, EPOLLOUT) == 0;
}

static void next_address(struct sm_fetch *f)
{
    sm_loop_unwatch(f->core->loop, &f->socket);
    sm_fd_close(&f->socket.fd);
    while (f->next_addr < f->n_addrs) {
        f->dst.addr = f->addrs[f->next_addr++];
        if (!admitted(f, &f->dst)) {
            f->denied = true;
            continue;
        }
        if (!record(f)) {
            fail_later(f, SM_CRED_NOT_RECORDED);
            return;
        }
        if (dial(f))
            return;
        sm_fd_close(&f->socket.fd);
    }
    fail_later(f, f->denied ? SM_CRED_ENDPOINT_DENIED : SM_CRED_ENDPOINT_UNREACHABLE);
}

static void on_lookup(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp)
{
    struct sm_fetch *f = data;

    f->lookup = NULL;
    if (status != SM_RESOLVER_OK || resp->n_addrs == 0) {
        fail_later(f, SM_CRED_ENDPOINT_UNREACHABLE);
        return;
    }
    f->n_addrs = SM_MIN(resp->n_addrs, (unsigned)ADDRS_MAX);
    memcpy(f->addrs, resp->addrs, f->n_addrs * sizeof(f->addrs[0]));
    next_address(f);
}

/* The first that waits, if there is a helper for it. */
static void wake_next(struct sm_core *core)
{
    struct sm_fetch *next = core->fetch_wait.head ? core->fetch_wait.head->data : NULL;

    if (next && core->fetch_running.length < SM_FETCH_MAX)
        sm_loop_arm(core->loop, &next->timer, sm_loop_now(core->loop));
}

static void begin(struct sm_fetch *f)
{
    struct sm_core *core = f->core;
    struct sm_resolver_done done = {.fn = on_lookup, .data = f};

    g_queue_unlink(&core->fetch_wait, &f->link);
    f->started = true;
    g_queue_push_tail_link(&core->fetch_running, &f->link);
    sm_loop_arm(core->loop, &f->timer, sm_loop_now(core->loop) + SM_CRED_TRANSFER_US);
    wake_next(core);
    if (!core->fetch_roots_asked) {
        core->fetch_roots_asked = true;
        if (sm_link_send(core->link.fd, SM_LINK_WANT, "fetchroots", -1) < 0) {
            core->fetch_roots_asked = false;
            fail_later(f, SM_CRED_FETCH_HELPER);
            return;
        }
    }
    if (f->literal) {
        next_address(f);
        return;
    }
    f->lookup = core->resolver ? sm_resolver_lookup(core->resolver, f->host, done) : NULL;
    if (!f->lookup)
        fail_later(f, SM_CRED_ENDPOINT_UNREACHABLE);
}

/* ---- the helper ---- */

static bool say(struct sm_fetch *f, char kind, const void *data, size_t len, const int *fds, size_t n_fds)
{
    if (len > SM_FETCH_MSG_MAX)
        return false;
    g_autofree char *msg = g_malloc(1 + len);
    msg[0] = kind;
    if (len > 0)
        memcpy(msg + 1, data, len);
    bool ok = sm_fd_send(f->pair.fd, msg, 1 + len, fds, n_fds) >= 0;
    sm_wipe(msg, 1 + len);
    return ok;
}

static bool say_secret(struct sm_fetch *f, char kind, const struct sm_secret *secret)
{
    size_t len = 0;
    const uint8_t *p = secret ? sm_secret_bytes(secret, &len) : NULL;

    return say(f, kind, p, len, NULL, 0);
}

static bool say_fields(struct sm_fetch *f)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_FETCH_MSG_MAX);

    for (size_t i = 0; i < f->request.n_fields; i++) {
        size_t len;
        const uint8_t *value = sm_secret_bytes(f->request.fields[i].value, &len);
        sm_cred_text_str(&t, f->request.fields[i].name);
        sm_cred_text_str(&t, ": ");
        sm_cred_text_add(&t, value, len);
        sm_cred_text_str(&t, "\n");
    }
    return !t.bad && say(f, SM_FETCH_H, t.data, t.len, NULL, 0);
}

static bool ask(struct sm_fetch *f)
{
    char addr[SM_ADDR_STRLEN];
    json_t *q = json_pack("{s:s, s:s, s:s, s:i, s:s, s:i}", "url", f->request.url, "method", f->request.method, "host",
                          f->host, "port", (int)f->dst.port, "addr", sm_addr_format(&f->dst.addr, addr), "timeout_ms",
                          SM_FETCH_TIMEOUT_MS);
    char *text = q ? json_dumps(q, JSON_COMPACT) : NULL;
    const int fds[2] = {f->socket.fd, f->core->fetch_roots};
    bool ok = text && say(f, SM_FETCH_Q, text, strlen(text), fds, 2) && say_fields(f) &&
              say_secret(f, SM_FETCH_D, f->request.body);

    free(text);
    json_decref(q);
    return ok;
}

/* The socket is connected, the roots are there. */
static void start_helper(struct sm_fetch *f)
{
    int pair[2];

    if (sm_fd_seqpair(pair, false) < 0) {
        fail_later(f, SM_CRED_FETCH_HELPER);
        return;
    }
    sm_autofd theirs = pair[1];
    sm_watch_init(&f->pair, pair[0], on_pair);
    /* Our end only: the helper blocks where it writes. What is said waits in the pair until it reads. */
    if (sm_fd_set_nonblock(pair[0]) < 0 || !ask(f) || sm_link_send(f->core->link.fd, SM_LINK_FETCH, NULL, theirs) < 0 ||
        sm_loop_watch(f->core->loop, &f->pair, EPOLLIN) < 0) {
        fail_later(f, SM_CRED_FETCH_HELPER);
        return;
    }
    sm_fd_close(&f->socket.fd); /* the helper's alone */
    sm_cred_request_clear(&f->request);
}

static void on_connected(struct sm_watch *watch, uint32_t events)
{
    struct sm_fetch *f = sm_container_of(watch, struct sm_fetch, socket);
    int err = 0;
    socklen_t len = sizeof(err);

    (void)events;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err != 0) {
        next_address(f);
        return;
    }
    sm_loop_unwatch(f->core->loop, watch);
    if (f->core->fetch_roots >= 0)
        start_helper(f);
}

void sm_fetch_news(struct sm_core *core, int fd)
{
    if (core->fetch_roots >= 0 || !core->fetch_roots_asked) {
        sm_fd_close(&fd);
        return;
    }
    core->fetch_roots = fd;
    core->fetch_roots_asked = fd >= 0; /* asked again by the next one */
    for (GList *at = core->fetch_running.head, *next; at; at = next) {
        struct sm_fetch *f = at->data;
        next = at->next;
        if (fd < 0)
            fail_later(f, SM_CRED_FETCH_HELPER);
        else if (f->socket.fd >= 0 && !f->socket.added && f->pair.fd < 0 && !f->failed)
            start_helper(f);
    }
}

static bool take_head(struct sm_fetch *f, const char *text, size_t len)
{
    const char *type;
    json_t *head = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    bool ok = head && f->status == 0 &&
              json_unpack_ex(head, NULL, JSON_STRICT, "{s:i, s:s}", "status", &f->status, "content_type", &type) == 0 &&
              f->status > 0;

    if (ok)
        f->content_type = g_strdup(type);
    json_decref(head);
    return ok;
}

static bool take_piece(struct sm_fetch *f, const void *data, size_t len)
{
    if (f->status == 0 || len > SM_FETCH_BODY_MAX + 1 - f->got_len)
        return false;
    if (!f->got)
        f->got = g_malloc(SM_FETCH_BODY_MAX + 1);
    memcpy(f->got + f->got_len, data, len);
    f->got_len += len;
    return true;
}

/** What the helper may say; anything else is its own failure. */
static enum sm_cred_reason reason_of(const char *text, size_t len)
{
    g_autofree char *word = g_strndup(text, SM_MIN(len, (size_t)64));

    return sm_cred_reason_parse(word, SM_CRED_FETCH_HELPER);
}

static void on_pair(struct sm_watch *watch, uint32_t events)
{
    struct sm_fetch *f = sm_container_of(watch, struct sm_fetch, pair);
    static char buf[SM_FETCH_MSG_MAX + 1];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds = 0;

    (void)events;
    ssize_t len = sm_fd_recv(watch->fd, buf, sizeof(buf), fds, &n_fds);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (size_t i = 0; len > 0 && i < n_fds; i++)
        sm_fd_close(&fds[i]); /* a helper has none to give */
    bool ok = len > 0;
    if (ok && buf[0] == SM_FETCH_S)
        ok = take_head(f, buf + 1, (size_t)len - 1);
    else if (ok && buf[0] == SM_FETCH_D)
        ok = take_piece(f, buf + 1, (size_t)len - 1);
    else if (ok && buf[0] == SM_FETCH_E && f->status > 0) {
        finish(f, SM_CRED_OK);
        return;
    } else if (ok && buf[0] == SM_FETCH_F) {
        finish(f, reason_of(buf + 1, (size_t)len - 1));
        return;
    } else
        ok = false;
    if (len > 0)
        sm_wipe(buf, (size_t)len);
    if (!ok)
        finish(f, SM_CRED_FETCH_HELPER); /* it died, or talks nonsense */
}

/* ---- life ---- */

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_fetch *f = sm_container_of(timer, struct sm_fetch, timer);

    (void)now_us;
    if (f->failed)
        finish(f, f->failed);
    else if (f->started)
        finish(f, SM_CRED_ENDPOINT_TIMEOUT);
    else
        begin(f);
}

/* The URL's host and port. False: not one of ours. */
static bool read_url(struct sm_fetch *f)
{
    struct sm_cred_url url;
    char addr[SM_ADDR_STRLEN];

    if (!f->request.url || !sm_cred_url_parse(f->request.url, &url, NULL))
        return false;
    f->dst.port = url.host.port;
    f->literal = url.host.kind != SM_NAME_HOST || url.loopback;
    f->host = g_strdup(url.host.kind != SM_NAME_HOST ? sm_addr_format(&url.host.addr, addr) : url.host.name);
    f->n_addrs = f->literal ? 1 : 0;
    if (url.host.kind != SM_NAME_HOST)
        f->addrs[0] = url.host.addr;
    return !f->literal || url.host.kind != SM_NAME_HOST || sm_addr_parse("127.0.0.1", &f->addrs[0]);
}

struct sm_fetch *sm_fetch_start(struct sm_core *core, const char *name, struct sm_cred_request *request,
                                sm_fetch_done done, void *data)
{
    struct sm_fetch *f = g_new0(struct sm_fetch, 1);

    f->core = core;
    f->name = g_strdup(name);
    f->request = *request;
    *request = (struct sm_cred_request){0};
    f->done = done;
    f->data = data;
    f->link.data = f;
    sm_watch_init(&f->socket, -1, on_connected);
    sm_watch_init(&f->pair, -1, on_pair);
    sm_timer_init(&f->timer, on_timer);
    bool fits = core->fetch_wait.length < SM_FETCH_QUEUE_MAX;
    g_queue_push_tail_link(&core->fetch_wait, &f->link);
    if (!fits || !read_url(f)) {
        fetch_free(f);
        return NULL;
    }
    wake_next(core);
    return f;
}

void sm_fetch_cancel(struct sm_fetch *f)
{
    struct sm_core *core = f->core;

    fetch_free(f);
    wake_next(core);
}

void sm_fetch_free_all(struct sm_core *core)
{
    while (core->fetch_running.head)
        fetch_free(core->fetch_running.head->data);
    while (core->fetch_wait.head)
        fetch_free(core->fetch_wait.head->data);
    sm_fd_close(&core->fetch_roots);
}
