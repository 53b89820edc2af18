/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One connection of a proxy's client, from its head to its last byte; the states stand in proxy_front.h.
 *
 * Bytes are read only when there is room for what may come of them: towards upstream when nothing waits to be written there, towards the client
 * likewise. So each direction holds one read at most, and slow takers slow their givers.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/page.h"
#include "paths/proxy_priv.h"

/** Rounds for one connection before others have their turn. */
#define ROUNDS 8

static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";

static void on_sock(struct sm_watch *watch, uint32_t events);
static void on_up(struct sm_watch *watch, uint32_t events);
static void on_timer(struct sm_timer *timer, int64_t now_us);
static void pump(struct sm_proxy_client *c);

struct sm_proxy_client *sm_proxy_client_new(struct sm_proxy_front *front, int fd, const struct sm_endpoint *src)
{
    struct sm_proxy_client *c = g_new0(struct sm_proxy_client, 1);

    c->front = front;
    c->state = SM_PROXY_HEAD;
    c->src = *src;
    c->all.data = c->heads.data = c->grave.data = c;
    sm_watch_init(&c->sock, fd, on_sock);
    sm_watch_init(&c->up, -1, on_up);
    sm_timer_init(&c->timer, on_timer);
    /* A head, and later the bytes behind it, which the core may want to see: both fit. */
    sm_buf_init(&c->in, SM_FLOW_HELD_MAX);
    sm_buf_init(&c->out, sizeof(front->scratch));
    c->head = g_new0(struct sm_proxy_head, 1);
    sm_proxy_head_init(c->head);
    sm_loop_arm(front->loop, &c->timer, sm_loop_now(front->loop) + SM_PROXY_HEAD_US);
    (void)sm_loop_watch(front->loop, &c->sock, EPOLLIN); /* who is not watched is let go of by the caller */
    return c;
}

void sm_proxy_client_free(struct sm_proxy_client *c)
{
    sm_buf_clear(&c->in);
    sm_buf_clear(&c->out);
    g_free(c->head);
    g_free(c->host);
    g_free(c);
}

/* What it holds counts against all. */
static void count_held(struct sm_proxy_client *c)
{
    size_t now = c->dead || c->state == SM_PROXY_HEAD ? 0 : c->in.len;

    c->front->stats.held_now += now - c->counted;
    c->counted = now;
}

static void watch(struct sm_proxy_client *c, struct sm_watch *w, uint32_t events)
{
    if (c->dead)
        return;
    /* HUP is told even to who asks for nothing: an end that can do nothing now is not watched. */
    if (events == 0)
        sm_loop_unwatch(c->front->loop, w);
    else if ((!w->added || w->events != events) && sm_loop_watch(c->front->loop, w, events) < 0)
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
}

static void end(struct sm_proxy_client *c)
{
    uint64_t id = c->id;

    sm_proxy_forget_id(c);
    sm_proxy_bury(c);
    if (id)
        sm_proxy_tell(c->front, SM_FLOW_GONE, id, SM_WHY_CLOSED);
}

void sm_proxy_client_reset(struct sm_proxy_client *c, enum sm_flow_why why)
{
    struct linger now = {.l_onoff = 1};
    uint64_t id = c->id;

    if (c->dead)
        return;
    (void)setsockopt(c->sock.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    sm_proxy_forget_id(c);
    sm_proxy_bury(c); /* closes what was attached before the core hears of it: its own close is then a reset */
    if (id)
        sm_proxy_tell(c->front, SM_FLOW_GONE, id, why);
}

/* ---- answers of ours ---- */

static void write_out(struct sm_proxy_client *c)
{
    while (c->out.len > 0) {
        ssize_t n = write(c->sock.fd, sm_buf_peek(&c->out), c->out.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != ENOBUFS) {
            sm_proxy_client_reset(c, SM_WHY_GUEST_RST);
            return;
        }
        if (n < 0)
            return;
        sm_buf_consume(&c->out, (size_t)n);
    }
}

static void drain(struct sm_proxy_client *c)
{
    write_out(c);
    for (unsigned i = 0; i < ROUNDS && !c->dead; i++) {
        ssize_t n = read(c->sock.fd, c->front->scratch, sizeof(c->front->scratch));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            end(c);
            return;
        }
    }
    if (c->dead)
        return;
    if (c->out.len == 0 && !c->client_shut) {
        (void)shutdown(c->sock.fd, SHUT_WR);
        c->client_shut = true;
    }
    watch(c, &c->sock, EPOLLIN | (c->out.len ? (uint32_t)EPOLLOUT : 0));
}

static const char *extra_field(uint16_t status)
{
    return status == 407 ? "Proxy-Authenticate: Basic realm=\"slirp-med\"\r\n" : "";
}

void sm_proxy_client_answer(struct sm_proxy_client *c, uint16_t status, const char *reason)
{
    struct sm_proxy_front *front = c->front;
    char body[SM_HTTP_PAGE_MAX], head[SM_HTTP_PAGE_HEAD_MAX];
    struct sm_http_page page = {.status = status, .reason = reason, .workspace = front->config->workspace};

    if (c->dead)
        return;
    sm_proxy_head_done(c);
    if (c->host)
        page.host = (struct sm_text){c->host, strlen(c->host)};
    size_t len = sm_http_page_body(&page, body, sizeof(body));
    int n = g_snprintf(head, sizeof(head),
                       "HTTP/1.1 %u %s\r\n%sContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: "
                       "close\r\n\r\n",
                       (unsigned)status, sm_http_status_text(status), extra_field(status), len);
    sm_buf_clear(&c->in);
    count_held(c);
    c->state = SM_PROXY_ANSWERED;
    sm_loop_arm(front->loop, &c->timer, sm_loop_now(front->loop) + SM_PROXY_ANSWERED_US);
    if (!sm_buf_append(&c->out, head, (size_t)n) || (!c->head_only && !sm_buf_append(&c->out, body, len))) {
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
        return;
    }
    drain(c);
}

/* A refusal of the core's, or what became of the dial. */
static void answer_refusal(struct sm_proxy_client *c, enum sm_flow_how how, uint8_t reason)
{
    uint16_t status = 403;

    if (reason >= SM_REASONS)
        reason = SM_REASON_LIMIT;
    switch ((enum sm_reason)reason) {
    case SM_REASON_NONE:
        status = how == SM_HOW_ICMP_HOST || how == SM_HOW_SILENT ? 504 : 502;
        sm_proxy_client_answer(c, status, status == 504 ? "upstream_unreachable" : "upstream_refused");
        return;
    case SM_REASON_BAD_NAME:
    case SM_REASON_BAD_DESTINATION:
        status = 400;
        break;
    case SM_REASON_UNRESOLVED:
        status = 502;
        break;
    case SM_REASON_LIMIT:
        status = 503;
        break;
    case SM_REASON_INSIDE:
    case SM_REASON_LOOPBACK:
    case SM_REASON_LINK_LOCAL:
    case SM_REASON_METADATA:
    case SM_REASON_MULTICAST:
    case SM_REASON_OWN_ADDRESS:
    case SM_REASON_VIRTUAL_NETWORK:
    case SM_REASON_EAST_WEST:
    case SM_REASON_LISTENER:
    case SM_REASON_DENY_LIST:
    case SM_REASON_UNLISTED:
    case SM_REASON_UNLISTED_NAME:
    case SM_REASON_NO_NAME:
    case SM_REASON_CLASSIFY_TIMEOUT:
    case SM_REASON_QUIC:
    case SM_REASON_DNS_OVER_TLS:
    case SM_REASON_IPV6:
    case SM_REASON_NAME_MISMATCH:
    case SM_REASON_OFF:
    case SM_REASON_PUBLIC:
    case SM_REASON_RULE:
    case SM_REASON_PIN:
    case SM_REASON_RESOLVED:
    case SM_REASON_ROUTE:
    case SM_REASON_LISTED:
    case SM_REASON_WAITING:
    case SM_REASON_RESOLVER:
    case SM_REASONS:
        break;
    }
    sm_proxy_client_answer(c, status, sm_reason_name((enum sm_reason)reason));
}

/* ---- the head ---- */

static bool is_authorised(const struct sm_proxy_client *c)
{
    const struct sm_proxy_config *config = c->front->config;

    return !config->auth ||
           (c->head->has_auth &&
            sm_proxy_config_admits(config, sm_buf_peek(&c->in) + c->head->auth.off, c->head->auth.len));
}

/* What goes upstream first: of CONNECT what the client has sent behind it, of the others the rewritten head too. */
static bool begin_bytes(struct sm_proxy_client *c)
{
    struct sm_proxy_head *h = c->head;

    if (h->status == SM_PROXY_FORWARD) {
        size_t cap = h->consumed + SM_PROXY_REWRITE_MORE, rest = c->in.len - h->consumed;
        g_autofree uint8_t *head = g_malloc(cap);
        struct sm_buf bytes;
        size_t len = sm_proxy_head_rewrite(h, sm_buf_peek(&c->in), head, cap);
        sm_buf_init(&bytes, SM_FLOW_HELD_MAX);
        if (len == 0 || !sm_buf_append(&bytes, head, len) ||
            !sm_buf_append(&bytes, sm_buf_peek(&c->in) + h->consumed, rest)) {
            sm_buf_clear(&bytes);
            return false;
        }
        sm_buf_clear(&c->in);
        c->in = bytes;
    } else {
        sm_buf_consume(&c->in, h->consumed);
    }
    g_clear_pointer(&c->head, g_free);
    return true;
}

static void head_complete(struct sm_proxy_client *c)
{
    struct sm_proxy_front *front = c->front;
    const struct sm_proxy_head *h = c->head;
    const char *data = (const char *)sm_buf_peek(&c->in);
    uint16_t port = h->port;

    c->connect = h->status == SM_PROXY_CONNECT;
    c->head_only = c->in.len >= 5 && memcmp(data, "HEAD ", 5) == 0;
    c->host = g_strndup(data + h->host.off, h->host.len);
    if (!is_authorised(c)) {
        front->stats.unauthorised++;
        sm_proxy_report(front, SM_OTHER_AUTH, &c->src.addr);
        sm_proxy_client_answer(c, 407, "proxy_authorization");
        return;
    }
    if (!begin_bytes(c)) {
        sm_proxy_client_answer(c, 431, "http_head_too_large");
        return;
    }
    if (!sm_proxy_ask(c, c->host, strlen(c->host), port)) {
        sm_proxy_client_answer(c, 503, "limit");
        return;
    }
    sm_proxy_head_done(c);
    c->state = SM_PROXY_ASKED;
    count_held(c);
    sm_loop_arm(front->loop, &c->timer, sm_loop_now(front->loop) + SM_PROXY_ASKED_US);
    watch(c, &c->sock, EPOLLRDHUP); /* its end is told by HUP and ERR; a half-close alone is none, see on_sock() */
}

static void read_head(struct sm_proxy_client *c)
{
    struct sm_proxy_front *front = c->front;
    size_t room = SM_HTTP_HEAD_MAX - c->in.len; /* a head that fills it is refused as too large */
    ssize_t n = read(c->sock.fd, front->scratch, SM_MIN(room, sizeof(front->scratch)));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        end(c);
        return;
    }
    if (front->heads_bytes + (size_t)n > SM_PROXY_HEADS_BYTES || !sm_buf_append(&c->in, front->scratch, (size_t)n)) {
        sm_proxy_client_answer(c, 503, "limit");
        return;
    }
    front->heads_bytes += (size_t)n;
    c->heads_counted += (size_t)n;
    switch (sm_proxy_head_feed(c->head, sm_buf_peek(&c->in), c->in.len)) {
    case SM_PROXY_NEED_MORE:
        break;
    case SM_PROXY_CONNECT:
    case SM_PROXY_FORWARD:
        head_complete(c);
        break;
    case SM_PROXY_REJECT:
    case SM_PROXY_STATUS_COUNT:
        front->stats.bad_requests++;
        sm_proxy_report(front, SM_OTHER_REQUEST, &c->src.addr);
        sm_proxy_client_answer(c, c->head->http == SM_HTTP_REJECT_TOO_LARGE ? 431 : 400, sm_proxy_reject_name(c->head));
        break;
    }
}

/* ---- held: the core looks at the first bytes ---- */

static void show(struct sm_proxy_client *c)
{
    while (c->shown < c->in.len) {
        size_t n = SM_MIN(c->in.len - c->shown, (size_t)SM_FLOW_DATA_MAX);
        struct sm_flow_msg m = {
            .type = SM_FLOW_BYTES, .id = c->id, .data = sm_buf_peek(&c->in) + c->shown, .data_len = n};
        (void)sm_channel_send(c->front->channel, &m, -1);
        c->shown += n;
    }
    count_held(c);
    if (c->front->stats.held_now > SM_PROXY_HELD_TOTAL)
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
}

static void watch_held(struct sm_proxy_client *c)
{
    bool read = !c->client_eof && sm_buf_room(&c->in) > 0 && !sm_channel_congested(c->front->channel);

    watch(c, &c->sock, (read ? (uint32_t)EPOLLIN : 0) | (c->out.len ? (uint32_t)EPOLLOUT : 0));
}

static void read_held(struct sm_proxy_client *c)
{
    size_t room = SM_MIN(sm_buf_room(&c->in), sizeof(c->front->scratch));

    write_out(c);
    if (c->dead)
        return;
    if (!c->client_eof && room > 0 && !sm_channel_congested(c->front->channel)) {
        ssize_t n = read(c->sock.fd, c->front->scratch, room);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            sm_proxy_client_reset(c, SM_WHY_GUEST_RST);
            return;
        }
        if (n == 0) {
            c->client_eof = true;
            sm_proxy_tell(c->front, SM_FLOW_EOF, c->id, SM_WHY_CLOSED);
        } else if (n > 0) {
            (void)!sm_buf_append(&c->in, c->front->scratch, (size_t)n); /* there was room */
            show(c);
        }
    }
    if (!c->dead)
        watch_held(c);
}

void sm_proxy_client_resume(struct sm_proxy_client *c)
{
    if (!c->dead && c->state == SM_PROXY_HELD)
        watch_held(c);
}

/* ---- attached: bytes both ways ---- */

/* One direction, one round. @waiting: what could not be written yet. Returns whether anything moved; the flow may be over. */
static bool move(struct sm_proxy_client *c, struct sm_watch *from, struct sm_watch *to, struct sm_buf *waiting,
                 bool *eof)
{
    bool from_client = from == &c->sock;
    enum sm_flow_why reader_gone = from_client ? SM_WHY_GUEST_RST : SM_WHY_UPSTREAM_RST;
    enum sm_flow_why writer_gone = from_client ? SM_WHY_UPSTREAM_RST : SM_WHY_GUEST_RST;
    const uint8_t *p = sm_buf_peek(waiting);
    size_t len = waiting->len;
    bool fresh = len == 0;

    if (fresh) {
        if (*eof)
            return false;
        ssize_t got = read(from->fd, c->front->scratch, sizeof(c->front->scratch));
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (got < 0) {
            sm_proxy_client_reset(c, reader_gone);
            return false;
        }
        if (got == 0) {
            *eof = true;
            return true;
        }
        p = c->front->scratch;
        len = (size_t)got;
    }
    ssize_t n = write(to->fd, p, len);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
        sm_proxy_client_reset(c, writer_gone);
        return false;
    }
    size_t put = n > 0 ? (size_t)n : 0;
    if (!fresh)
        sm_buf_consume(waiting, put);
    else if (put < len && !sm_buf_append(waiting, p + put, len - put))
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
    return put > 0 && !c->dead;
}

static void pump(struct sm_proxy_client *c)
{
    bool moved = true;

    for (unsigned i = 0; i < ROUNDS && moved && !c->dead; i++) {
        moved = move(c, &c->sock, &c->up, &c->in, &c->client_eof);
        if (!c->dead)
            moved |= move(c, &c->up, &c->sock, &c->out, &c->up_eof);
    }
    if (c->dead)
        return;
    count_held(c);
    if (c->client_eof && c->in.len == 0 && !c->up_shut) {
        (void)shutdown(c->up.fd, SHUT_WR);
        c->up_shut = true;
    }
    if (c->up_eof && c->out.len == 0 && !c->client_shut) {
        (void)shutdown(c->sock.fd, SHUT_WR);
        c->client_shut = true;
    }
    if (c->up_shut && c->client_shut) {
        end(c);
        return;
    }
    watch(c, &c->sock,
          (c->in.len == 0 && !c->client_eof ? (uint32_t)EPOLLIN : 0) | (c->out.len ? (uint32_t)EPOLLOUT : 0));
    if (!c->dead)
        watch(c, &c->up,
              (c->out.len == 0 && !c->up_eof ? (uint32_t)EPOLLIN : 0) | (c->in.len ? (uint32_t)EPOLLOUT : 0));
}

/* ---- from the core ---- */

static void accepted(struct sm_proxy_client *c)
{
    sm_loop_disarm(c->front->loop, &c->timer);
    sm_proxy_answered(c);
    c->state = SM_PROXY_HELD;
    if (c->connect && !sm_buf_append(&c->out, established, sizeof(established) - 1)) {
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
        return;
    }
    write_out(c);
    if (!c->dead)
        show(c);
    if (!c->dead)
        watch_held(c);
}

static void attach(struct sm_proxy_client *c, uint32_t consumed, int *fd)
{
    if (c->state == SM_PROXY_ASKED)
        accepted(c);
    if (c->dead || c->state != SM_PROXY_HELD)
        return;
    if (consumed > c->shown) { /* it writes what it was shown, and no more: bytes would be lost, or sent twice */
        sm_proxy_client_reset(c, SM_WHY_LIMIT);
        return;
    }
    sm_buf_consume(&c->in, consumed);
    sm_watch_init(&c->up, *fd, on_up);
    *fd = -1;
    c->state = SM_PROXY_ATTACHED;
    c->front->stats.attached++;
    pump(c);
}

void sm_proxy_client_message(struct sm_proxy_client *c, const struct sm_flow_msg *msg, int *fd)
{
    switch (msg->type) {
    case SM_FLOW_REFUSE:
        if (c->state == SM_PROXY_ASKED) {
            c->front->stats.refused++;
            sm_proxy_forget_id(c);
            answer_refusal(c, msg->how, msg->reason);
            break;
        }
        sm_proxy_forget_id(c);
        sm_proxy_client_reset(c, SM_WHY_REFUSED);
        break;
    case SM_FLOW_ACCEPT:
        if (c->state == SM_PROXY_ASKED)
            accepted(c);
        break;
    case SM_FLOW_ATTACH:
        attach(c, msg->consumed, fd);
        break;
    case SM_FLOW_ABORT:
        if (c->state != SM_PROXY_ATTACHED) /* the core has forgotten it already */
            sm_proxy_forget_id(c);
        sm_proxy_client_reset(c, SM_WHY_UPSTREAM_RST);
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_INBOUND:
    case SM_FLOW_DATAGRAM:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_RELEASE:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        break;
    }
}

bool sm_proxy_client_undelivered(const struct sm_proxy_client *c)
{
    return !c->dead && (c->state == SM_PROXY_HELD || c->state == SM_PROXY_ATTACHED) && c->in.len > 0;
}

/* ---- events ---- */

static void on_sock(struct sm_watch *w, uint32_t events)
{
    struct sm_proxy_client *c = sm_container_of(w, struct sm_proxy_client, sock);

    switch (c->state) {
    case SM_PROXY_HEAD:
        read_head(c);
        break;
    case SM_PROXY_ASKED:
        if (events & (EPOLLHUP | EPOLLERR)) {
            sm_proxy_client_reset(c, SM_WHY_REFUSED);
        } else {
            watch(c, w, 0); /* it has said all that it will: read when there is somebody to read for */
        }
        break;
    case SM_PROXY_HELD:
        read_held(c);
        break;
    case SM_PROXY_ATTACHED:
        pump(c);
        break;
    case SM_PROXY_ANSWERED:
        drain(c);
        break;
    }
}

static void on_up(struct sm_watch *w, uint32_t events)
{
    (void)events;
    pump(sm_container_of(w, struct sm_proxy_client, up));
}

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_proxy_client *c = sm_container_of(timer, struct sm_proxy_client, timer);
    uint64_t id = c->id;

    (void)now_us;
    switch (c->state) {
    case SM_PROXY_HEAD:
        if (c->in.len == 0) { /* opened ahead of its use */
            end(c);
            break;
        }
        c->front->stats.bad_requests++;
        sm_proxy_report(c->front, SM_OTHER_REQUEST, &c->src.addr);
        sm_proxy_client_answer(c, 408, "proxy_head_timeout");
        break;
    case SM_PROXY_ASKED:
        sm_proxy_forget_id(c);
        sm_proxy_tell(c->front, SM_FLOW_GONE, id, SM_WHY_TIMEOUT);
        sm_proxy_client_answer(c, 504, "upstream_unreachable");
        break;
    case SM_PROXY_HELD:
    case SM_PROXY_ATTACHED:
        break;
    case SM_PROXY_ANSWERED:
        end(c);
        break;
    }
}
