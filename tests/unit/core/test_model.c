/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core against a front, servers, resolver, disk, clients of published ports and reloads that do anything at any
 * time, seeded: it never falls over, nothing is handed over or reaches a server without its line in the file, what is
 * refused is not heard of again, tables stay within their bounds, and in the end all is given back.
 * SM_MODEL_SEED and SM_MODEL_SEEDS: the first seed, and how many.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/limits.h"
#include "core/vsock.h"

#define STEPS 500
#define IDS 24
#define SESSIONS_MAX 12
#define PEERS 16
#define CLIENTS 6
#define HYBRIDS 8

struct flow {
    bool udp, dns, vsock, open; /* open: the core owes us an answer, or has accepted */
    bool attached;
    int fd;
};

struct world {
    struct sm_core core;
    uint64_t rng;
    const char *mode;
    struct sm_caps_limits caps;
    int front, audit_fd, tcp, dead_port, udp, dns, published, link[2];
    uint16_t tcp_port, udp_port, closed_port, published_port;
    uint64_t next_id;
    struct flow flows[IDS]; /* by id modulo IDS */
    uint64_t ids[IDS];
    int peers[PEERS];
    struct flow hybrids[HYBRIDS];
    unsigned n_accepted, n_told; /* servers that were dialled, and those that were told something */
    bool told[PEERS];
    int clients[CLIENTS];
    struct {
        uint64_t id;
        int fd;
    } inbound[CLIENTS];   /* as the front has them */
    unsigned sent, words; /* INGRESS and the core's answers */
    bool disk_full;
    uint8_t packet[SM_FLOW_MSG_MAX]; /* what the front has gathered and not said yet */
    size_t packet_len;
    unsigned packet_n;
};

static uint32_t below(struct world *w, uint32_t n)
{
    w->rng = w->rng * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(w->rng >> 33) % n;
}

static void failed(const char *text, void *data)
{
    fail_msg("the channel failed: %s", text);
}

static void message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct sm_core *core = data;
    sm_core_message(msg, fds, n_fds, core);
    if (sm_channel_congested(core->channel))
        sm_channel_pause(core->channel, true);
}

static void drained(void *data)
{
    struct sm_core *core = data;
    sm_channel_pause(core->channel, false);
}

static int bound(int type, uint16_t *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

static bool off(const struct world *w)
{
    return strcmp(w->mode, "off") == 0;
}

static void no_start(struct sm_core *core, const GError *error)
{
    assert_null(error); /* no target is required */
}

static void make_core(struct world *w, const char *dir)
{
    static const struct sm_channel_ops ops = {.message = message, .failed = failed, .drained = drained};
    struct sm_core *core = &w->core;
    uint16_t dns_port;
    g_autoptr(GError) error = NULL;

    w->tcp = bound(SOCK_STREAM, &w->tcp_port);
    assert_int_equal(listen(w->tcp, 64), 0);
    w->udp = bound(SOCK_DGRAM, &w->udp_port);
    w->dns = bound(SOCK_DGRAM, &dns_port);
    w->dead_port = bound(SOCK_STREAM, &w->closed_port);
    w->published = bound(SOCK_STREAM, &w->published_port);
    assert_int_equal(listen(w->published, 64), 0);
    g_autofree char *vsock = g_strdup_printf(
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5000,\"target\":\"a:1\",\"required\":false,\"addrs\":[\"127.0.0.1:%"
        "u\"]},"
        "{\"port\":5001,\"target\":\"b:1\",\"required\":false,\"addrs\":[\"127.0.0.1:%u\",\"203.0.113.9:1\"]}]}",
        w->tcp_port, w->closed_port);
    struct harness_options o = {.mode = w->mode,
                                .vsock = vsock,
                                .allow = "\"127.0.0.1\",\".listed.test\"",
                                .deny = "\"denied.test\"",
                                .dns_port = dns_port,
                                .dns_qps = 50,
                                .pins = 16,
                                .sessions = SESSIONS_MAX,
                                .caps = w->caps,
                                .ops = &ops};
    harness_start(core, dir, &o, &w->audit_fd, &w->front);
    assert_int_equal(sm_fd_seqpair(w->link, true), 0);
    core->link.fd = w->link[0];
    if (!off(w)) {
        assert_true(sm_pki_make(core, -1, -1, &error) && sm_pki_open(core, &error));
        core->roots_asked = true;
        sm_pki_news(core, -1);
    }
    sm_core_vsock_new(core, no_start);
    for (size_t i = 0; i < IDS; i++)
        w->flows[i].fd = -1;
    for (size_t i = 0; i < PEERS; i++)
        w->peers[i] = -1;
    for (size_t i = 0; i < CLIENTS; i++)
        w->clients[i] = w->inbound[i].fd = -1;
    for (size_t i = 0; i < HYBRIDS; i++)
        w->hybrids[i].fd = -1;
}

/* No connection is counted any more, and no byte too many ever was. */
static void check_caps(struct world *w)
{
    json_t *report = sm_limits_report(&w->core);

    assert_true((report != NULL) == (w->caps.bps || w->caps.total || w->caps.conns));
    if (!report)
        return;
    assert_int_equal(json_integer_value(json_object_get(report, "conns")), 0);
    json_decref(report);
    if (w->caps.total)
        assert_in_range(sm_limits_total(&w->core), 0, w->caps.total);
}

static void free_core(struct world *w, const char *dir)
{
    struct sm_core *core = &w->core;

    sm_core_stop(core, "test_end", 0);
    check_caps(w);
    assert_int_equal(g_hash_table_size(core->sessions), 0);
    assert_int_equal(core->held_now, 0);
    assert_int_equal(core->dns_tcp_now, 0);
    assert_int_equal(core->attach_wait.length, 0);
    assert_int_equal(core->effects.length, 0);
    assert_int_equal(core->relayed_now, 0);
    harness_end(core);
    for (size_t i = 0; i < IDS; i++)
        sm_fd_close(&w->flows[i].fd);
    for (size_t i = 0; i < PEERS; i++)
        sm_fd_close(&w->peers[i]);
    for (size_t i = 0; i < CLIENTS; i++) {
        sm_fd_close(&w->clients[i]);
        sm_fd_close(&w->inbound[i].fd);
    }
    close(w->published);
    close(w->link[0]);
    close(w->link[1]);
    for (size_t i = 0; i < HYBRIDS; i++)
        sm_fd_close(&w->hybrids[i].fd);
    close(w->front);
    close(w->audit_fd);
    close(w->tcp);
    close(w->udp);
    close(w->dns);
    close(w->dead_port);
    g_autofree char *path = g_build_filename(dir, "egress.jsonl", NULL);
    unlink(path);
}

static unsigned lines_of(struct world *w, const char *event, uint64_t flow)
{
    g_autofree char *text = sm_fd_read_all(w->audit_fd, 16u << 20, NULL, NULL);
    g_autofree char *e = g_strdup_printf("\"event\":\"%s\"", event);
    g_autofree char *f = g_strdup_printf("\"flow\":%" G_GUINT64_FORMAT ",", flow);
    unsigned n = 0;

    assert_non_null(text);
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        n += strstr(line, e) && (flow == 0 || strstr(line, f));
    return n;
}

static struct flow *flow_of(struct world *w, uint64_t id)
{
    return w->ids[id % IDS] == id && id ? &w->flows[id % IDS] : NULL;
}

/* --- what the core says */

/* A denial that explains itself: the core has written a page, or a TLS alert, into the pair. */
static bool is_page(int fd)
{
    char got[12] = "";
    ssize_t n = recv(fd, got, sizeof(got), MSG_PEEK | MSG_DONTWAIT);

    return (n == sizeof(got) && memcmp(got, "HTTP/1.1 40", 11) == 0) || (n == 7 && memcmp(got, "\x15\x03\x03", 3) == 0);
}

static void tell(struct world *w, const struct sm_flow_msg *m);

static void acknowledge(struct world *w, uint64_t id)
{
    struct sm_flow_msg ack = {.type = SM_FLOW_ATTACHED, .id = id};

    tell(w, &ack);
}

static void hear_one(struct world *w, const struct sm_flow_msg *m, int fd)
{
    struct flow *f = flow_of(w, m->id);

    switch (m->type) {
    case SM_FLOW_REFUSE:
    case SM_FLOW_ABORT:
        if (f)
            f->open = false;
        break;
    case SM_FLOW_ACCEPT:
        if (f)
            assert_true(f->open && !f->udp);
        break;
    case SM_FLOW_ATTACH:
        assert_true(fd >= 0);
        if (f) {
            assert_true(f->open && !f->attached);
            f->attached = true;
            if (!off(w) && f->vsock)
                assert_true(lines_of(w, "mediation_open", m->id) > 0 || lines_of(w, "ca_delivered", 0) > 0);
            else if (!off(w) && !f->dns && !is_page(fd))
                assert_true(lines_of(w, f->udp ? "egress_udp_allow" : "egress_allow", m->id) > 0);
            f->fd = fd;
            fd = -1;
        }
        acknowledge(w, m->id);
        break;
    case SM_FLOW_INBOUND: {
        size_t i = below(w, CLIENTS);
        assert_true(fd >= 0 && (m->id & SM_FLOW_ID_CORE));
        if (!off(w))
            assert_int_equal(lines_of(w, "ingress_accept", m->id & ~SM_FLOW_ID_CORE), 1);
        sm_fd_close(&w->inbound[i].fd);
        w->inbound[i].fd = fd;
        w->inbound[i].id = m->id;
        fd = -1;
        acknowledge(w, m->id);
        break;
    }
    case SM_FLOW_DATAGRAM:
    case SM_FLOW_RELEASE:
        break;
    case SM_FLOW_OPEN:
    case SM_FLOW_BYTES:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_GONE:
    case SM_FLOW_OTHER:
    case SM_FLOW_REPEATED:
    case SM_FLOW_EOF:
    case SM_FLOW_TYPES:
        fail_msg("the core sent %s", sm_flow_type_name(m->type));
    }
    sm_fd_close(&fd);
}

static void hear(struct world *w, unsigned most)
{
    static uint8_t buf[SM_FLOW_MSG_MAX];

    while (most-- > 0) {
        int fds[SM_FD_MSG_MAX] = {-1};
        size_t n_fds = 0;
        struct sm_flow_msg m;
        ssize_t n = sm_fd_recv(w->front, buf, sizeof(buf), fds, &n_fds);
        if (n <= 0)
            return;
        struct sm_flow_packet packet = sm_flow_packet_init(buf, (size_t)n);
        while (sm_flow_packet_next(&packet, &m)) {
            assert_int_equal(n_fds, sm_flow_fds(m.type));
            hear_one(w, &m, n_fds ? fds[0] : -1);
        }
        assert_false(packet.bad);
    }
}

/* --- what the front says */

static void say(struct world *w)
{
    if (w->packet_n > 0)
        (void)!write(w->front, w->packet, w->packet_len); /* a full channel: it is not said */
    w->packet_n = 0;
}

/* Alone, or in a packet with what comes before and behind it. */
static void tell(struct world *w, const struct sm_flow_msg *m)
{
    uint8_t buf[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, buf, sizeof(buf));

    assert_true(len > 0);
    if (w->packet_n == SM_FLOW_PACKET_MAX || w->packet_len + 2 + len > sizeof(w->packet))
        say(w);
    if (w->packet_n == 0 && below(w, 2)) {
        (void)!write(w->front, buf, len);
        return;
    }
    if (w->packet_n++ == 0) {
        w->packet[0] = SM_FLOW_PACKET_MANY;
        w->packet_len = 1;
    }
    assert_true(w->packet_len + 2 + len <= sizeof(w->packet));
    w->packet[w->packet_len++] = (uint8_t)(len >> 8);
    w->packet[w->packet_len++] = (uint8_t)len;
    memcpy(w->packet + w->packet_len, buf, len);
    w->packet_len += len;
    if (below(w, 4) == 0)
        say(w);
}

static struct sm_endpoint destination(struct world *w, bool udp)
{
    switch (below(w, 9)) {
    case 0:
        return (struct sm_endpoint){sm_addr_v4(127, 0, 0, 1), w->closed_port};
    case 1:
    case 5:
        return (struct sm_endpoint){sm_addr_v4(203, 0, 113, 9), w->tcp_port}; /* there is no way to it in here */
    case 2:
        return (struct sm_endpoint){sm_addr_v4(10, 0, 2, 3), 53};
    case 3:
        return (struct sm_endpoint){sm_addr_v4(169, 254, 169, 254), 80};
    case 4:
        return (struct sm_endpoint){{.family = SM_FAMILY_V6, .bytes = {[15] = 1}}, w->tcp_port};
    default:
        return (struct sm_endpoint){sm_addr_v4(127, 0, 0, 1), udp ? w->udp_port : w->tcp_port};
    }
}

static uint32_t vsock_port(struct world *w)
{
    static const uint32_t ports[] = {1027, 5000, 5000, 5001, 7};
    return ports[below(w, SM_ARRAY_LEN(ports))];
}

/* The supervisor brings a connection of the VMM's; we have the guest's side of it. */
static void hybrid(struct world *w)
{
    g_autofree char *port = g_strdup_printf("%u", vsock_port(w));
    struct flow *f = &w->hybrids[below(w, HYBRIDS)];
    int pair[2];

    if (f->fd >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    sm_core_vsock_take(&w->core, port, &pair[1]);
    if (below(w, 10) == 0) {
        sm_core_vsock_serial(&w->core, &pair[0]);
        return;
    }
    f->fd = pair[0];
}

static void tell_open(struct world *w)
{
    bool udp = below(w, 3) == 0;
    struct sm_flow_msg m = {
        .type = SM_FLOW_OPEN,
        .id = ++w->next_id,
        .proto = udp ? SM_FLOW_UDP : SM_FLOW_TCP,
        .src = {sm_addr_v4(10, 0, 2, below(w, 20) ? 15 : 16), (uint16_t)(1024 + w->next_id % 60000)},
        .dst = destination(w, udp)};
    struct flow *f = &w->flows[m.id % IDS];
    bool vsock = below(w, 6) == 0;

    if (vsock) {
        m.proto = SM_FLOW_VSOCK;
        m.vsock_dst = vsock_port(w);
    }
    if (below(w, 20) == 0) { /* an id that is taken, or not the front's */
        m.id = below(w, 2) ? SM_FLOW_ID_CORE | m.id : 1 + below(w, (uint32_t)w->next_id);
        tell(w, &m);
        return;
    }
    sm_fd_close(&f->fd);
    *f = (struct flow){.udp = udp && !vsock, .dns = m.dst.port == 53 && !vsock, .vsock = vsock, .open = true, .fd = -1};
    w->ids[m.id % IDS] = m.id;
    tell(w, &m);
}

static const struct {
    const char *data;
    size_t len;
} pieces[] = {
#define P(text)                                                                                                        \
    {                                                                                                                  \
        text, sizeof(text) - 1                                                                                         \
    }
    P("G"),
    P("hi"),
    P("GET / HTTP/1.1\r\n"),
    P("Host: www.listed.test\r\n"),
    P("Host: denied.test\r\n"),
    P("Host: other.test\r\n"),
    P("Host: 127.0.0.1\r\n"),
    P("\r\n"),
    P("GET / HTTP/1.1\r\nHost: www.listed.test\r\n\r\nbody"),
    P("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"),
    P("GET / HTTP/1.0\r\n\r\n"),
    P("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    P("\x16\x03\x01"),
    P("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
    P("\x01\x02\x03\x04"),
    P("SSH-2.0-x\r\n"),
};

#define WHOLE_HEAD 8 /* of a listed name */

/* A ClientHello for a listed name, as OpenSSL says it. */
static uint8_t hello[2048];
static size_t hello_len;

static void make_hello(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());

    SSL_set_bio(ssl, in, out);
    assert_int_equal(SSL_set_tlsext_host_name(ssl, "www.listed.test"), 1);
    assert_true(SSL_connect(ssl) < 0);
    int n = BIO_read(out, hello, sizeof(hello));
    assert_true(n > 100 && (size_t)n < sizeof(hello));
    hello_len = (size_t)n;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}

static const char dns_query[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03"
                                "www\x06listed\x04test\x00\x00\x01\x00\x01";

static void tell_something(struct world *w)
{
    uint64_t id = w->next_id ? w->next_id - below(w, (uint32_t)SM_MIN(w->next_id, (uint64_t)IDS)) : 1;
    struct flow *f = flow_of(w, id);
    struct sm_flow_msg m = {.id = id};
    static uint8_t big[SM_FLOW_DATA_MAX];
    size_t i;

    switch (below(w, 16)) {
    default:
        tell_open(w);
        return;
    case 6:
    case 7:
    case 8:
    case 9:
        i = below(w, 3) ? below(w, SM_ARRAY_LEN(pieces)) : WHOLE_HEAD;
        m.type = SM_FLOW_BYTES;
        m.data = (const uint8_t *)pieces[i].data;
        m.data_len = pieces[i].len;
        if (below(w, 6) == 0) {
            m.data = hello;
            m.data_len = hello_len - (below(w, 4) ? 0 : below(w, (uint32_t)hello_len));
        }
        if (below(w, 30) == 0) {
            memset(big, 'A', sizeof(big));
            m.data = big;
            m.data_len = sizeof(big);
        }
        break;
    case 10:
        m.type = SM_FLOW_EOF;
        break;
    case 11:
        m.type = SM_FLOW_GONE;
        m.why = (enum sm_flow_why)below(w, SM_WHYS);
        if (f) {
            f->open = f->attached; /* what was on its way may still come */
            if (below(w, 40))      /* else a front that keeps what it says it has closed */
                sm_fd_close(&f->fd);
            if (!f->attached)
                w->ids[id % IDS] = 0;
        }
        break;
    case 12:
        m.type = SM_FLOW_DATAGRAM;
        m.id = 0;
        m.src = (struct sm_endpoint){sm_addr_v4(10, 0, 2, 15), 5353};
        m.dst = (struct sm_endpoint){sm_addr_v4(10, 0, 2, 3), below(w, 10) ? 53 : 54};
        m.data = (const uint8_t *)dns_query;
        m.data_len = sizeof(dns_query) - 1 - (below(w, 4) ? 0 : below(w, 30));
        break;
    case 13:
        m.type = SM_FLOW_OTHER;
        m.id = 0;
        m.other = (enum sm_flow_other)below(w, SM_OTHERS);
        m.dst.addr = destination(w, true).addr;
        m.count = below(w, 3) ? 1 : UINT32_MAX;
        break;
    case 14:
        m.type = SM_FLOW_REPEATED;
        m.id = 0;
        m.proto = below(w, 2) ? SM_FLOW_TCP : SM_FLOW_UDP;
        m.dst = destination(w, true);
        m.count = below(w, 3);
        break;
    case 15:
        if (below(w, 4) == 0) { /* an acknowledgement too many, or what only the core may say */
            static const enum sm_flow_type odd[] = {SM_FLOW_ATTACHED, SM_FLOW_REFUSE, SM_FLOW_ACCEPT, SM_FLOW_ABORT};
            m.type = odd[below(w, SM_ARRAY_LEN(odd))];
            break;
        }
        return;
    }
    tell(w, &m);
}

static void use_descriptor(struct world *w)
{
    struct flow *f = below(w, 4) ? &w->flows[below(w, IDS)] : &w->hybrids[below(w, HYBRIDS)];
    char junk[512];

    if (f->fd < 0)
        return;
    switch (below(w, 12)) {
    case 0:
        sm_fd_close(&f->fd);
        break;
    case 1:
        (void)shutdown(f->fd, SHUT_WR);
        break;
    case 2:
        (void)shutdown(f->fd, SHUT_RDWR);
        break;
    case 3: /* DNS over TCP, a batch of one datagram, or bytes: as the flow takes it */
        (void)!send(f->fd, "\x00\x21", 2, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)!send(f->fd, dns_query, sizeof(dns_query) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 4:
        (void)!send(f->fd,
                    "\x00\x03"
                    "abc",
                    5, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 5:
        memset(junk, (int)below(w, 256), sizeof(junk));
        (void)!send(f->fd, junk, below(w, sizeof(junk)), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 6: /* what the front holds comes again through a pair */
        (void)!send(f->fd, hello, hello_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 7:
        (void)!send(f->fd, pieces[WHOLE_HEAD].data, pieces[WHOLE_HEAD].len, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    default:
        (void)!recv(f->fd, junk, sizeof(junk), MSG_DONTWAIT);
        break;
    }
}

/* --- servers, resolver, disk */

static void server(struct world *w)
{
    size_t i = below(w, PEERS);
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    struct linger now = {.l_onoff = 1};
    char buf[4096];

    if (w->peers[i] < 0) {
        w->peers[i] = accept4(w->tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (w->peers[i] >= 0) {
            w->told[i] = false;
            w->n_accepted++;
            if (!off(w))
                assert_true(
                    lines_of(w, "egress_dial", 0) + lines_of(w, "mediation_open", 0) + 1 /* the start's try */ >=
                    w->n_accepted);
        }
        return;
    }
    switch (below(w, 8)) {
    case 0:
        (void)setsockopt(w->peers[i], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        sm_fd_close(&w->peers[i]);
        break;
    case 1:
        sm_fd_close(&w->peers[i]);
        break;
    case 2:
        (void)!send(w->peers[i], "220 hello\r\n", 11, MSG_NOSIGNAL);
        break;
    case 3:
        (void)shutdown(w->peers[i], SHUT_WR);
        break;
    case 4:
        (void)!send(w->peers[i], answer, sizeof(answer) - 1, MSG_NOSIGNAL);
        break;
    default:
        if (recv(w->peers[i], buf, sizeof(buf), 0) <= 0 || w->told[i])
            break;
        w->told[i] = true;
        w->n_told++;
        if (!off(w))
            assert_true(lines_of(w, "egress_allow", 0) + lines_of(w, "egress_mitm_dial", 0) +
                            lines_of(w, "mediation_open", 0) >=
                        w->n_told);
        break;
    }
}

static void udp_server(struct world *w)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    char buf[65536];
    ssize_t n = recvfrom(w->udp, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

    if (n >= 0) {
        if (!off(w))
            assert_true(lines_of(w, "egress_udp_allow", 0) > 0);
        (void)!sendto(w->udp, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
    }
}

static void resolver(struct world *w)
{
    static const uint8_t addrs[][4] = {{127, 0, 0, 1}, {203, 0, 113, 9}, {10, 0, 0, 5}, {169, 254, 169, 254}};
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    uint8_t buf[1024];
    ssize_t n = recvfrom(w->dns, buf, 512, 0, (struct sockaddr *)&from, &len);

    if (n < 12)
        return;
    if (!off(w))
        assert_true(lines_of(w, "egress_dns_query", 0) > 0);
    if (below(w, 5) == 0)
        return;      /* lost */
    size_t end = 12; /* of the question */
    while (end < (size_t)n && buf[end])
        end += buf[end] + 1u;
    end += 5;
    buf[2] = 0x81;
    buf[3] = below(w, 6) ? 0x80 : (uint8_t)(0x80 | below(w, 6));
    buf[7] = 1;
    buf[10] = buf[11] = 0;
    static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4};
    memcpy(buf + end, record, sizeof(record));
    memcpy(buf + end + sizeof(record), addrs[below(w, SM_ARRAY_LEN(addrs))], 4);
    (void)!sendto(w->dns, buf, end + sizeof(record) + 4, 0, (struct sockaddr *)&from, len);
}

/* --- clients of a published port, and what the front does with them */

static void new_client(struct world *w, int *fd)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(w->published_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger now = {.l_onoff = 1};

    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*fd, (struct sockaddr *)&in, sizeof(in)), 0);
    int accepted = accept4(w->published, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    if (below(w, 6) == 0) { /* gone before the core looks at it */
        (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        sm_fd_close(fd);
    } else if (below(w, 8) == 0) {
        (void)dup2(w->udp, accepted); /* not what it should be */
    }
    w->sent++;
    sm_ingress_take(&w->core, below(w, 10) ? "8080" : "0", &accepted);
    sm_fd_close(&accepted);
}

static void client(struct world *w)
{
    int *fd = &w->clients[below(w, CLIENTS)];
    char buf[256];

    if (*fd < 0) {
        new_client(w, fd);
        return;
    }
    switch (below(w, 5)) {
    case 0:
        sm_fd_close(fd);
        break;
    case 1:
        (void)shutdown(*fd, SHUT_WR);
        break;
    case 2:
        (void)!send(*fd, "hello", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    default:
        (void)!recv(*fd, buf, sizeof(buf), MSG_DONTWAIT);
        break;
    }
}

static void inbound(struct world *w)
{
    size_t i = below(w, CLIENTS);
    struct sm_flow_msg m = {.type = SM_FLOW_GONE, .id = w->inbound[i].id, .why = (enum sm_flow_why)below(w, SM_WHYS)};

    if (m.id == 0)
        return;
    switch (below(w, 6)) {
    case 0:
        (void)!send(w->inbound[i].fd, "answer", 6, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 1:
        (void)shutdown(w->inbound[i].fd, SHUT_WR);
        break;
    case 2: /* in any order, and also what only the guest's own flows have */
        m.type = below(w, 2) ? SM_FLOW_EOF : SM_FLOW_ATTACHED;
        tell(w, &m);
        break;
    case 3:
        if (below(w, 30) == 0) { /* says that it has closed what it keeps: the workspace ends, or it is cut off */
            tell(w, &m);
            break;
        }
        sm_fd_close(&w->inbound[i].fd);
        tell(w, &m);
        w->inbound[i].id = 0;
        break;
    default:
        break;
    }
}

static void reload(struct world *w)
{
    static const char *const lists[] = {
        "{\"allow\":[\"127.0.0.1\",\".listed.test\"],\"passthrough\":[],\"deny\":[\"denied.test\"]}",
        "{\"allow\":[\".listed.test\"],\"passthrough\":[\"127.0.0.1\"],\"deny\":[]}",
        "{\"allow\":[],\"passthrough\":[\".listed.test\"],\"deny\":[\"127.0.0.1\"]}",
        "{\"allow\":[\"127.0.0.0/24\"],\"passthrough\":[],\"deny\":[\".listed.test\"]}",
        "{\"allow\":[\".com\"],\"passthrough\":[],\"deny\":[]}", /* wrong: nothing changes */
    };
    const char *text = lists[below(w, SM_ARRAY_LEN(lists))];
    unsigned before = off(w) ? 0 : lines_of(w, "egress_policy", 0);

    if (w->disk_full)
        return; /* not even a memfd can be written then */
    sm_autofd fd = sm_fd_memfd("lists", text, strlen(text), NULL);
    sm_reload_take(&w->core, fd);
    if (!off(w) && text != lists[4] && sm_audit_healthy(w->core.audit))
        assert_int_equal(lines_of(w, "egress_policy", 0), before + 1);
}

/* The supervisor reads. */
static void words(struct world *w)
{
    static struct sm_link_msg m;

    while (sm_link_recv(w->link[1], &m) == 1) {
        assert_true(m.verb == SM_LINK_INGRESS || m.verb == SM_LINK_POLICY || m.verb == SM_LINK_WANT);
        w->words += m.verb == SM_LINK_INGRESS;
    }
    assert_true(w->words <= w->sent); /* each is answered once */
}

static void disk(struct world *w)
{
    w->disk_full = !w->disk_full;
    harness_disk(w->disk_full);
}

static void step(struct world *w)
{
    switch (below(w, 24)) {
    default:
        tell_something(w);
        break;
    case 20:
        if (below(w, 8) == 0)
            reload(w);
        words(w);
        break;
    case 21:
    case 22:
        client(w);
        break;
    case 23:
        inbound(w);
        break;
    case 8:
    case 9:
        use_descriptor(w);
        break;
    case 10:
    case 11:
        server(w);
        break;
    case 12:
        udp_server(w);
        break;
    case 13:
    case 18:
        resolver(w);
        break;
    case 14:
        if (below(w, 40) == 0)
            disk(w);
        if (below(w, 3) == 0)
            hybrid(w);
        break;
    case 15:
        if (below(w, 10) == 0)
            sm_core_every_second(&w->core.second, sm_loop_now(w->core.loop));
        if (below(w, 60) == 0)
            (void)poll(NULL, 0, 110); /* the time in which a short word is released passes */
        break;
    case 16:
    case 17:
        hear(w, 1 + below(w, 8));
        break;
    }
    if (below(w, 3))
        assert_int_equal(sm_loop_turn(w->core.loop, 0), 0);
    /* One that is refused for being too many is there until the end of its turn. */
    assert_in_range(g_hash_table_size(w->core.sessions), 0, SESSIONS_MAX + SM_CHANNEL_BATCH + SM_FLOW_PACKET_MAX);
}

/* Each flow that was let through has its end in the file, once. */
static void check_ends(struct world *w)
{
    for (uint64_t id = 1; id <= w->next_id; id++) {
        unsigned begun =
            lines_of(w, "egress_allow", id) + lines_of(w, "egress_udp_allow", id) + lines_of(w, "egress_dial", id);
        unsigned ended = lines_of(w, "egress_close", id) + lines_of(w, "egress_udp_close", id);
        unsigned undialled = lines_of(w, "egress_dial_error", id);
        assert_in_range(ended, 0, 1);
        if (begun)
            assert_true(ended + undialled >= 1);
        else
            assert_int_equal(ended, 0);
        if (lines_of(w, "mediation_open", id))
            assert_int_equal(lines_of(w, "mediation_close", id) + lines_of(w, "mediation_error", id), 1);
    }
}

/* Each client is answered for, and each that was let in has an end. */
static void check_clients(struct world *w)
{
    sm_ingress_every_second(&w->core);
    words(w);
    assert_int_equal(w->words, w->sent);
    assert_int_equal(sm_ingress_count(&w->core), 0);
    if (!off(w))
        assert_int_equal(lines_of(w, "ingress_accept", 0), lines_of(w, "ingress_close", 0));
}

/* Every other seed of a mode runs under caps that bind at once. */
static void set_caps(struct world *w, uint64_t seed)
{
    if (off(w) || seed / 3 % 2 == 0)
        return;
    w->caps.bps = below(w, 2) ? 500 + below(w, 20000) : 0;
    w->caps.total = below(w, 2) ? 100 + below(w, 5000) : 0;
    w->caps.conns = below(w, 2) ? 1 + below(w, 6) : 0;
}

static void run(uint64_t seed, const char *mode, const char *dir)
{
    static struct world w;
    unsigned fds = count_fds();

    memset(&w, 0, sizeof(w));
    w.rng = seed * 1000003 + 17;
    w.mode = mode;
    set_caps(&w, seed);
    make_core(&w, dir);
    for (unsigned i = 0; i < STEPS && !w.core.stopping; i++)
        step(&w);
    if (w.disk_full)
        disk(&w);
    for (int i = 0; i < 20 && !w.core.stopping; i++) {
        hear(&w, 100);
        say(&w);
        sm_loop_turn(w.core.loop, 0);
    }
    if (!sm_audit_healthy(w.core.audit))
        assert_true(
            sm_audit_probe(w.core.audit, sm_clock_wall_us())); /* facts that were kept while the disk was full */
    sm_core_stop(&w.core, "test_end", 0);
    if (!off(&w))
        check_ends(&w);
    check_clients(&w);
    free_core(&w, dir);
    assert_int_equal(count_fds(), fds);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_model(void **state)
{
    static const char *const modes[] = {"guarded", "strict", "off"};
    uint64_t first = number("SM_MODEL_SEED", 1), n = number("SM_MODEL_SEEDS", 40);
    char dir[] = "/tmp/sm-model-XXXXXX";

    assert_non_null(mkdtemp(dir));
    make_hello();
    for (uint64_t seed = first; seed < first + n; seed++) {
        const char *mode = modes[seed % SM_ARRAY_LEN(modes)];
        if (n > 1000 || getenv("SM_MODEL_SEED"))
            print_message("seed %" G_GUINT64_FORMAT " %s\n", seed, mode);
        run(seed, mode, dir);
    }
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) { /* so that nothing that is dialled leaves this machine */
        perror("a network namespace of our own");
        return 77;
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0) {
        perror("lo");
        return 77;
    }
    close(fd);
    sm_log_set_level(SM_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
