/* SPDX-License-Identifier: BSD-3-Clause */
/* See upstream.h. */
#include "upstream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dns/message.h"

#define HELD_MAX 2048
#define CONNS_MAX 8
/* What the asker's socket buffer surely holds. */
#define RELEASE_MAX 64

struct held {
    uint8_t query[512];
    size_t len;
    struct sockaddr_storage from;
    socklen_t from_len;
};

struct conn {
    struct sm_watch watch;
    struct upstream *u;
    bool used;
    uint8_t in[4096];
    size_t in_len;
};

struct upstream {
    struct sm_loop *loop;
    struct sm_watch udp, listener;
    struct conn conns[CONNS_MAX];
    struct sm_endpoint endpoint;
    uint8_t number;
    unsigned n_udp, n_tcp, n_held;
    uint8_t last[512];
    size_t last_len;
    struct held held[HELD_MAX];
};

static void put(struct sm_wr *w, const void *p, size_t n)
{
    sm_wr_bytes(w, p, n);
}

/* Owner as a pointer to the question. */
static void rr(struct sm_wr *w, uint16_t type, uint32_t ttl, const void *rdata, size_t len)
{
    sm_wr_u16(w, 0xc00c);
    sm_wr_u16(w, type);
    sm_wr_u16(w, 1);
    sm_wr_u32(w, ttl);
    sm_wr_u16(w, (uint16_t)len);
    put(w, rdata, len);
}

static bool first_label(const uint8_t *query, size_t len, const char *label)
{
    size_t n = strlen(label);
    return len > 13 + n && query[12] == n && memcmp(query + 13, label, n) == 0;
}

/* The answer to a query; 0: none. */
static size_t answer(struct upstream *u, const uint8_t *query, size_t len, bool tcp, bool release, uint8_t *out,
                     size_t cap)
{
    static const uint8_t soa[] = "\2ns\4test\0\4root\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5";
    static const uint8_t https[] = "\0\1\0\0\1\0\6\2h3\2h2\0\5\0\3ECH";
    struct sm_wr w = sm_wr_init(out, cap);
    struct sm_dns_query q;
    enum sm_dns_rcode bad;
    uint8_t public[4] = {203, 0, 113, u->number}, loopback[4] = {127, 0, 0, 1};
    const uint8_t *addr = u->number ? public : loopback;
    uint16_t flags = 0x8180, answers = 1, authorities = 0;
    uint16_t id = (uint16_t)(query[0] << 8 | query[1]);

    if (sm_dns_query_parse(query, len, &q, &bad) != SM_DNS_QUERY_OK || first_label(query, len, "silent") ||
        (first_label(query, len, "hold") && !release))
        return 0;
    if (first_label(query, len, "nx"))
        flags |= SM_DNS_NXDOMAIN;
    if (first_label(query, len, "servfail"))
        flags |= SM_DNS_SERVFAIL;
    if (first_label(query, len, "refused"))
        flags |= SM_DNS_REFUSED;
    if (first_label(query, len, "formerr") && q.edns)
        flags |= SM_DNS_FORMERR;
    if (flags & 15) {
        answers = 0;
        authorities = first_label(query, len, "nx");
    }
    if (first_label(query, len, "wrongid"))
        id ^= 1;
    bool big = first_label(query, len, "big");
    if (big && !tcp) {
        flags |= 0x0200;
        answers = 0;
    } else if (big) {
        answers = 40;
    } else if (first_label(query, len, "middle")) {
        answers = 9;
    } else if (first_label(query, len, "chain")) {
        answers = 2;
    }
    sm_wr_u16(&w, id);
    sm_wr_u16(&w, flags);
    sm_wr_u16(&w, 1);
    sm_wr_u16(&w, (uint16_t)(answers + (first_label(query, len, "broken") ? 1 : 0)));
    sm_wr_u16(&w, authorities);
    sm_wr_u16(&w, 0);
    put(&w, q.qname.wire, q.qname.len);
    if (first_label(query, len, "other"))
        out[13] ^= 1;
    sm_wr_u16(&w, q.qtype);
    sm_wr_u16(&w, 1);
    if (authorities) {
        rr(&w, SM_DNS_SOA, 60, soa, sizeof(soa) - 1);
    } else if (answers == 2) {
        rr(&w, SM_DNS_CNAME, 90, "\3cdn\4test", 10);
        put(&w, "\3cdn\4test\0\0\1\0\1\0\0\0\x1e\0\4", 20);
        put(&w, addr, 4);
    } else if (answers > 2) {
        uint8_t txt[120];
        memset(txt, 't', sizeof(txt));
        txt[0] = sizeof(txt) - 1;
        for (unsigned i = 0; i < answers; i++)
            rr(&w, SM_DNS_TXT, 60, txt, sizeof(txt) - (answers == 9 ? 6 : 0));
    } else if (answers == 1 && first_label(query, len, "https")) {
        rr(&w, SM_DNS_HTTPS, 60, https, sizeof(https) - 1);
    } else if (answers == 1) {
        rr(&w, SM_DNS_A, 120, addr, 4);
    }
    assert(!w.bad);
    return w.len;
}

static void note(struct upstream *u, const uint8_t *query, size_t len)
{
    u->last_len = SM_MIN(len, sizeof(u->last));
    memcpy(u->last, query, u->last_len);
}

/* sendmsg(2) as the resolver itself does, so that a test may forbid all other ways of sending. */
static void send_to(int fd, const struct held *to, const uint8_t *msg, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
    struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1};

    if (to) {
        head.msg_name = (void *)(uintptr_t)&to->from;
        head.msg_namelen = to->from_len;
    }
    (void)sendmsg(fd, &head, MSG_NOSIGNAL);
}

static void on_udp(struct sm_watch *watch, uint32_t events)
{
    struct upstream *u = sm_container_of(watch, struct upstream, udp);
    struct held h = {.from_len = sizeof(h.from)};
    uint8_t out[8192];
    ssize_t n;

    (void)events;
    while ((n = recvfrom(watch->fd, h.query, sizeof(h.query), 0, (struct sockaddr *)&h.from, &h.from_len)) > 0) {
        h.len = (size_t)n;
        u->n_udp++;
        note(u, h.query, h.len);
        if (first_label(h.query, h.len, "hold") && u->n_held < HELD_MAX)
            u->held[u->n_held++] = h;
        size_t len = answer(u, h.query, h.len, false, false, out, sizeof(out));
        if (len > 0)
            send_to(watch->fd, &h, out, len);
        h.from_len = sizeof(h.from);
    }
}

static void conn_close(struct conn *c)
{
    sm_loop_unwatch(c->u->loop, &c->watch);
    close(c->watch.fd);
    c->used = false;
}

static void on_conn(struct sm_watch *watch, uint32_t events)
{
    struct conn *c = sm_container_of(watch, struct conn, watch);
    const uint8_t *msg;
    size_t len, used;
    bool bad;
    uint8_t out[8192];

    (void)events;
    ssize_t n = recv(watch->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, 0);
    if (n <= 0) {
        conn_close(c);
        return;
    }
    c->in_len += (size_t)n;
    while ((used = sm_dns_frame_next(c->in, c->in_len, sizeof(c->in), &msg, &len, &bad)) > 0) {
        c->u->n_tcp++;
        note(c->u, msg, len);
        size_t out_len = answer(c->u, msg, len, true, false, out + 2, sizeof(out) - 2);
        out[0] = (uint8_t)(out_len >> 8);
        out[1] = (uint8_t)out_len;
        if (out_len > 0)
            send_to(watch->fd, NULL, out, out_len + 2);
        c->in_len -= used;
        memmove(c->in, c->in + used, c->in_len);
    }
}

static void on_listener(struct sm_watch *watch, uint32_t events)
{
    struct upstream *u = sm_container_of(watch, struct upstream, listener);
    int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    for (size_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &u->conns[i];
        if (c->used)
            continue;
        *c = (struct conn){.u = u, .used = true};
        sm_watch_init(&c->watch, fd, on_conn);
        assert(sm_loop_watch(u->loop, &c->watch, EPOLLIN) == 0);
        return;
    }
    close(fd);
}

struct upstream *upstream_new(struct sm_loop *loop, uint8_t number)
{
    struct upstream *u = g_new0(struct upstream, 1);
    struct sockaddr_storage ss;
    socklen_t len;
    int udp, tcp;

    u->loop = loop;
    u->number = number;
    /* A port that is free for both; another process may take the TCP one in between. */
    for (;;) {
        struct sm_endpoint any = {.addr = sm_addr_v4(127, 0, 0, 1)};
        len = sm_endpoint_to_sockaddr(&any, &ss);
        udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert(udp >= 0 && tcp >= 0 && bind(udp, (struct sockaddr *)&ss, len) == 0);
        len = sizeof(ss);
        assert(getsockname(udp, (struct sockaddr *)&ss, &len) == 0 && sm_endpoint_from_sockaddr(&ss, &u->endpoint));
        if (bind(tcp, (struct sockaddr *)&ss, len) == 0 && listen(tcp, 16) == 0)
            break;
        close(udp);
        close(tcp);
    }
    int size = 4 << 20;
    (void)setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    sm_watch_init(&u->udp, udp, on_udp);
    sm_watch_init(&u->listener, tcp, on_listener);
    assert(sm_loop_watch(loop, &u->udp, EPOLLIN) == 0 && sm_loop_watch(loop, &u->listener, EPOLLIN) == 0);
    return u;
}

void upstream_free(struct upstream *u)
{
    for (size_t i = 0; i < CONNS_MAX; i++)
        if (u->conns[i].used)
            conn_close(&u->conns[i]);
    sm_loop_unwatch(u->loop, &u->udp);
    sm_loop_unwatch(u->loop, &u->listener);
    close(u->udp.fd);
    close(u->listener.fd);
    g_free(u);
}

struct sm_endpoint upstream_endpoint(const struct upstream *u)
{
    return u->endpoint;
}

unsigned upstream_udp(const struct upstream *u)
{
    return u->n_udp;
}

unsigned upstream_tcp(const struct upstream *u)
{
    return u->n_tcp;
}

const uint8_t *upstream_last(const struct upstream *u, size_t *ret_len)
{
    *ret_len = u->last_len;
    return u->last;
}

unsigned upstream_release(struct upstream *u)
{
    uint8_t out[8192];
    unsigned n = SM_MIN(u->n_held, RELEASE_MAX);

    for (unsigned i = 0; i < n; i++) {
        struct held *h = &u->held[i];
        size_t len = answer(u, h->query, h->len, false, true, out, sizeof(out));
        send_to(u->udp.fd, h, out, len);
    }
    u->n_held -= n;
    memmove(u->held, u->held + n, u->n_held * sizeof(u->held[0]));
    return n;
}
