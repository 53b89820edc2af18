/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core between a scripted front and an upstream on loopback: real sockets, a real audit file, and OpenSSL at both
 * ends of what is intercepted. What guest and origin do is not counted.
 */
#include "../unit/core/fixture.h"
#include "../unit/tls/pair.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/link.h"
#include "counts.h"
#include "flow/udpbatch.h"

#define NAME "name.test"
#define WAIT_MS 100
static struct fixture *f;

static void turn(void)
{
    counts_turn(f->core.loop, WAIT_MS);
}

static bool hears(enum sm_flow_type type)
{
    if (!heard(f))
        return false;
    assert_string_equal(sm_flow_type_name(f->last.type), sm_flow_type_name(type));
    return true;
}

static bool nobody(void)
{
    return g_hash_table_size(f->core.sessions) == 0;
}

static int origin_accept(void)
{
    int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

static int take_attached(void)
{
    int fd = f->attached;

    f->attached = -1;
    assert_true(fd >= 0 && sm_fd_set_nonblock(fd) == 0);
    return fd;
}

static void failed(const char *text, void *data)
{
    fail_msg("channel failed: %s", text);
}

static const struct sm_channel_ops ops = {.message = sm_core_message, .failed = failed};

static void begin(uint16_t dns_port)
{
    const struct harness_options o = {.mode = "guarded",
                                      .allow = "\"127.0.0.1\",\"." NAME "\"",
                                      .dns_port = dns_port,
                                      .pins = 64,
                                      .sessions = 100,
                                      .ops = &ops};
    f = fixture_new_with(&o);
}

/* ---- opaque connections ---- */

static void opaque(uint64_t id)
{
    static const uint8_t first[64] = "\x01request";
    uint8_t got[64];

    open_tcp(f, id, loopback, f->port);
    UNTIL(hears(SM_FLOW_ACCEPT));
    int peer = origin_accept();
    bytes(f, id, first, sizeof(first));
    UNTIL(hears(SM_FLOW_ATTACH));
    int fd = take_attached();
    assert_int_equal(write(fd, first, sizeof(first)), sizeof(first));
    assert_int_equal(read(peer, got, sizeof(got)), sizeof(got));
    (void)close(peer);
    (void)shutdown(fd, SHUT_WR);
    (void)close(fd);
    gone(f, id, SM_WHY_CLOSED);
    UNTIL(nobody());
}

static void opaque_connections(unsigned n)
{
    begin(9);
    for (unsigned i = 1; i <= n + 20; i++) {
        if (i == 21)
            counts_begin();
        opaque(i);
    }
}

static void denied(unsigned n)
{
    begin(9);
    for (unsigned i = 1; i <= n + BURST; i += BURST) {
        if (i == BURST + 1)
            counts_begin();
        for (unsigned k = 0; k < BURST; k++)
            open_tcp(f, i + k, sm_addr_v4(10, 0, 0, 5), (uint16_t)(1024 + (i + k) % 60000));
        for (unsigned k = 0; k < BURST; k++)
            UNTIL(hears(SM_FLOW_REFUSE));
    }
}

/* ---- datagrams ---- */

static int udp_server(uint16_t *ret_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&in, len) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *ret_port = ntohs(in.sin_port);
    return fd;
}

static uint8_t packet[SM_FLOW_UDP_BATCH_MAX];

static size_t batch(void)
{
    static const uint8_t data[DATAGRAM];
    struct sm_udpbatch b = sm_udpbatch_init(packet, sizeof(packet));

    for (unsigned k = 0; k < BURST; k++)
        assert_true(sm_udpbatch_add(&b, data, sizeof(data)));
    return b.w.len;
}

static bool readable(int fd)
{
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
}

static void udp(unsigned n, bool up)
{
    struct sm_flow_msg m = {
        .type = SM_FLOW_OPEN, .id = 1, .proto = SM_FLOW_UDP, .src = {sm_addr_v4(10, 0, 2, 15), 40000}};
    static uint8_t got[2048];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    int server;

    begin(9);
    m.dst.addr = loopback;
    server = udp_server(&m.dst.port);
    tell(f, &m);
    UNTIL(hears(SM_FLOW_ATTACH));
    int fd = take_attached();
    assert_true(write(fd, packet, batch()) > 0);
    UNTIL(readable(server));
    for (unsigned k = 0; k < BURST; k++)
        assert_int_equal(recvfrom(server, got, sizeof(got), 0, (struct sockaddr *)&from, &from_len), DATAGRAM);
    assert_int_equal(connect(server, (struct sockaddr *)&from, from_len), 0);
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        if (up)
            assert_true(write(fd, packet, batch()) > 0);
        else
            for (unsigned k = 0; k < BURST; k++)
                assert_int_equal(send(server, got, DATAGRAM, 0), DATAGRAM);
        for (unsigned came = 0; came < BURST;) {
            UNTIL(readable(up ? server : fd));
            ssize_t len = up ? recv(server, got, sizeof(got), 0) : read(fd, packet, sizeof(packet));
            struct sm_rd r = sm_rd_init(packet, (size_t)len);
            struct sm_dgrams_run run;
            unsigned count = 0;
            while (!up && sm_udpbatch_next(&r, &count, &run))
                continue;
            came += up ? 1 : count;
        }
    }
}

static void udp_up(unsigned n)
{
    udp(n, true);
}

static void udp_down(unsigned n)
{
    udp(n, false);
}

/* What the host's resolver says to any question: one address. */
static unsigned answer_all(int server)
{
    static const uint8_t record[] = {0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 203, 0, 113, 7};
    uint8_t q[512], a[600];
    struct sockaddr_storage from;
    unsigned n = 0;

    for (;;) {
        socklen_t from_len = sizeof(from);
        ssize_t len = recvfrom(server, q, sizeof(q), 0, (struct sockaddr *)&from, &from_len);
        size_t end = 12;
        if (len < 17)
            return n;
        while (end < (size_t)len && q[end] != 0)
            end += q[end] + 1u;
        end += 5;
        assert_true(end <= (size_t)len);
        memcpy(a, q, end);
        a[2] = 0x81;
        a[3] = 0x80;
        a[6] = 0;
        a[7] = 1;
        memset(a + 8, 0, 4);
        memcpy(a + end, record, sizeof(record));
        assert_true(sendto(server, a, end + sizeof(record), 0, (struct sockaddr *)&from, from_len) > 0);
        n++;
    }
}

static void dns(unsigned n)
{
    uint8_t query[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\3h00\4name\4test\0\0\1\0\1";
    struct sm_flow_msg m = {
        .type = SM_FLOW_DATAGRAM, .dst = {sm_addr_v4(10, 0, 2, 3), 53}, .data = query, .data_len = sizeof(query) - 1};
    uint16_t port;
    int server = udp_server(&port);

    begin(port);
    for (unsigned i = 0; i < n + BURST; i += BURST) {
        if (i == BURST)
            counts_begin();
        for (unsigned k = 0; k < BURST; k++) {
            query[15] = (uint8_t)('a' + k);
            m.src = (struct sm_endpoint){sm_addr_v4(10, 0, 2, 15), (uint16_t)(2000 + i + k)};
            tell(f, &m);
        }
        for (unsigned turns = 0, asked = 0, came = 0; came < BURST; turns++) {
            assert_true(turns < TURNS_MAX);
            turn();
            asked += answer_all(server);
            while (hears(SM_FLOW_DATAGRAM)) {
                assert_int_equal(f->last.data[3] & 15, 0);
                came++;
            }
            assert_true(asked <= BURST);
        }
    }
}

/* ---- interception ---- */

static struct {
    struct cert root, leaf;
    SSL_CTX *origin, *guest;
    const char *alpn; /* wire format */
} tls;

struct talk {
    uint64_t id;
    SSL *guest, *origin;
    int fd, peer;
};

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned len, void *data)
{
    *out = in + 1;
    *out_len = in[0];
    return SSL_TLSEXT_ERR_OK;
}

static struct cert certificate(const struct cert *issuer, const char *cn, const char *san)
{
    int64_t today = (sm_clock_wall_us() / 1000000 - WALL_S) / DAY_S;
    const struct cert_spec spec = {
        .cn = cn, .san = san, .ca = !issuer, .from_days = today - 9, .until_days = today + 9};

    return cert_make(issuer, &spec);
}

static void tls_begin(const char *alpn, bool resumes)
{
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("roots", MFD_CLOEXEC);

    begin(9);
    assert_true(sm_pki_make(&f->core, -1, -1, &error) && sm_pki_open(&f->core, &error));
    tls.alpn = alpn;
    tls.root = certificate(NULL, "root", NULL);
    tls.leaf = certificate(&tls.root, "leaf", "DNS:" NAME);
    tls.origin = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls.origin, tls.leaf.x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls.origin, tls.leaf.key), 1);
    SSL_CTX_set_alpn_select_cb(tls.origin, choose_alpn, NULL);
    SSL_CTX_set_mode(tls.origin, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_id_context(tls.origin, (const uint8_t *)NAME, sizeof(NAME) - 1);
    if (!resumes)
        SSL_CTX_set_num_tickets(tls.origin, 0);
    tls.guest = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(tls.guest, SSL_VERIFY_PEER, NULL);
    assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(tls.guest), f->core.ca->cert), 1);

    g_autofree char *pem = cert_pem(tls.root.x);
    assert_int_equal(sm_fd_write_all(fd, pem, strlen(pem)), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    f->core.roots_asked = true;
    sm_pki_news(&f->core, fd);
    (void)close(fd);
}

static bool step(SSL *ssl)
{
    int n = SSL_do_handshake(ssl);

    assert_true(n == 1 || SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ);
    return n == 1;
}

static bool attached(struct talk *t)
{
    (void)step(t->origin);
    return hears(SM_FLOW_ATTACH);
}

static bool secured(struct talk *t)
{
    bool origin = step(t->origin);

    return step(t->guest) && origin;
}

static struct talk talk_begin(uint64_t id)
{
    struct talk t = {.id = id, .guest = raw_new(tls.guest, false), .origin = SSL_new(tls.origin)};
    uint8_t hello[4096];

    assert_int_equal(SSL_set_tlsext_host_name(t.guest, NAME), 1);
    assert_int_equal(SSL_set1_host(t.guest, NAME), 1);
    assert_int_equal(SSL_set_alpn_protos(t.guest, (const uint8_t *)tls.alpn, (unsigned)strlen(tls.alpn)), 0);
    assert_true(SSL_do_handshake(t.guest) < 0);
    int len = BIO_read(SSL_get_wbio(t.guest), hello, sizeof(hello));
    assert_true(len > 0);

    open_tcp(f, id, loopback, f->port);
    UNTIL(hears(SM_FLOW_ACCEPT));
    t.peer = origin_accept();
    assert_int_equal(SSL_set_fd(t.origin, t.peer), 1);
    SSL_set_accept_state(t.origin);
    bytes(f, id, hello, (size_t)len);
    UNTIL(attached(&t));
    t.fd = take_attached();
    assert_int_equal(send(t.fd, hello, (size_t)len, MSG_NOSIGNAL), len);
    assert_int_equal(SSL_set_fd(t.guest, t.fd), 1);
    UNTIL(secured(&t));
    return t;
}

/* All that has come, at most cap; 0: nothing yet. *end: and nothing follows. */
static size_t take(SSL *ssl, void *buf, size_t cap, bool *end)
{
    size_t have = 0;
    int n = 0;

    while (have < cap && (n = SSL_read(ssl, (char *)buf + have, (int)(cap - have))) > 0)
        have += (size_t)n;
    if (n <= 0 && SSL_get_error(ssl, n) != SSL_ERROR_WANT_READ) {
        assert_non_null(end);
        *end = true;
    }
    return have;
}

static void say(SSL *ssl, const void *data, size_t len)
{
    assert_int_equal(SSL_write(ssl, data, (int)len), (int)len);
}

static void expect(SSL *ssl, size_t len)
{
    static uint8_t got[65536];
    size_t have = 0;

    UNTIL((have += take(ssl, got, sizeof(got), NULL)) >= len);
    assert_int_equal(have, len);
}

static bool ended(SSL *ssl)
{
    uint8_t got[4096];
    bool end = false;

    (void)take(ssl, got, sizeof(got), &end);
    return end;
}

static void talk_end(struct talk *t)
{
    (void)SSL_shutdown(t->guest);
    (void)shutdown(t->fd, SHUT_WR);
    UNTIL(ended(t->origin));
    (void)SSL_shutdown(t->origin);
    (void)close(t->peer);
    UNTIL(ended(t->guest));
    (void)close(t->fd);
    gone(f, t->id, SM_WHY_CLOSED);
    UNTIL(nobody());
    SSL_free(t->guest);
    SSL_free(t->origin);
}

static const char request[] = "GET /hello HTTP/1.1\r\nHost: " NAME "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

static void exchange(struct talk *t)
{
    say(t->guest, request, sizeof(request) - 1);
    expect(t->origin, sizeof(request) - 1);
    say(t->origin, response, sizeof(response) - 1);
    expect(t->guest, sizeof(response) - 1);
}

/** Connections until all that is kept is there: the chain, a session, and a leaf that is asked for often (leaves.c). */
#define TLS_WARM 6u

static void tls_connections(unsigned n, bool resumes)
{
    tls_begin("\x08http/1.1", resumes);
    for (unsigned i = 1; i <= n + TLS_WARM; i++) {
        if (i == TLS_WARM + 1)
            counts_begin();
        struct talk t = talk_begin(i);
        exchange(&t);
        if (i > TLS_WARM)
            assert_int_equal(SSL_session_reused(t.origin), resumes);
        talk_end(&t);
    }
}

static void tls_resumed(unsigned n)
{
    tls_connections(n, true);
}

static void tls_full(unsigned n)
{
    tls_connections(n, false);
}

static void requests_h1(unsigned n)
{
    tls_begin("\x08http/1.1", true);
    struct talk t = talk_begin(1);

    for (unsigned i = 0; i < n + 20; i++) {
        if (i == 20)
            counts_begin();
        exchange(&t);
    }
}

/* ---- bytes ---- */

#define CHUNK (64u << 10)
/** What is written before the loop turns: with its records' heads it fits any receive buffer. */
#define STEP (CHUNK / 4)

/** A record's head, type and tag (RFC 8446, 5.2). */
#define RECORD_OVER 22

static uint8_t body[CHUNK];

static void pour(SSL *from, SSL *to, int far)
{
    static uint8_t got[CHUNK];

    for (size_t sent = 0, came = 0; sent < CHUNK; sent += STEP) {
        say(from, body, STEP);
        if (far >= 0)
            until_arrived(far, STEP + RECORD_OVER);
        UNTIL((came += take(to, got, sizeof(got), NULL)) >= sent + STEP);
    }
}

static void stream(unsigned n, bool up)
{
    unsigned warm = n / 4 + 1;
    g_autofree char *head =
        g_strdup_printf("%sContent-Length: %u\r\n\r\n",
                        up ? "PUT /up HTTP/1.1\r\nHost: " NAME "\r\n" : "HTTP/1.1 200 OK\r\n", (n + warm) * CHUNK);
    tls_begin("\x08http/1.1", true);
    struct talk t = talk_begin(1);

    if (!up) {
        say(t.guest, request, sizeof(request) - 1);
        expect(t.origin, sizeof(request) - 1);
    }
    int far = up ? -1 : core_end(t.peer);
    say(up ? t.guest : t.origin, head, strlen(head));
    expect(up ? t.origin : t.guest, strlen(head));
    for (unsigned i = 0; i < n + warm; i++) {
        if (i == warm)
            counts_begin();
        pour(up ? t.guest : t.origin, up ? t.origin : t.guest, far);
    }
}

static void download(unsigned n)
{
    stream(n, false);
}

static void upload(unsigned n)
{
    stream(n, true);
}

/* ---- HTTP/2: frames as bytes (RFC 9113, 4.1) ---- */

#define STREAMS 10u

enum { DATA = 0, HEADERS = 1, RST = 3, SETTINGS = 4, PING = 6, GOAWAY = 7 };
enum { ACK = 1, END_STREAM = 1, END_HEADERS = 4 };

struct h2 {
    SSL *ssl;
    bool origin, greeted;
    uint8_t in[65536];
    size_t len;
    unsigned done; /* streams that the other side has ended */
};

static void frame(struct h2 *p, uint8_t type, uint8_t flags, uint32_t stream, const void *data, size_t len)
{
    uint8_t out[256];
    struct sm_wr w = sm_wr_init(out, sizeof(out));

    sm_wr_u8(&w, 0);
    sm_wr_u16(&w, (uint16_t)len);
    sm_wr_u8(&w, type);
    sm_wr_u8(&w, flags);
    sm_wr_u32(&w, stream);
    sm_wr_bytes(&w, data, len);
    assert_false(w.bad);
    say(p->ssl, out, w.len);
}

static void on_frame(struct h2 *p, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *data, size_t len)
{
    static const uint8_t ok[] = {0x88}; /* :status 200 */

    assert_true(type != RST && type != GOAWAY);
    if (type == SETTINGS && !(flags & ACK))
        frame(p, SETTINGS, ACK, 0, NULL, 0);
    if (type == PING && !(flags & ACK))
        frame(p, PING, ACK, 0, data, len);
    if ((type == HEADERS || type == DATA) && flags & END_STREAM) {
        p->done++;
        if (p->origin) {
            frame(p, HEADERS, END_HEADERS, stream, ok, sizeof(ok));
            frame(p, DATA, END_STREAM, stream, "hello\n", 6);
        }
    }
}

static void h2_hears(struct h2 *p)
{
    size_t at = p->origin && !p->greeted ? 24 : 0;

    p->len += take(p->ssl, p->in + p->len, sizeof(p->in) - p->len, NULL);
    if (p->len < at)
        return;
    p->greeted = true;
    for (size_t len; p->len - at >= 9; at += 9 + len) {
        const uint8_t *h = p->in + at;
        len = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        if (p->len - at < 9 + len)
            break;
        on_frame(p, h[3], h[4], (uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8], h + 9, len);
    }
    p->len -= at;
    memmove(p->in, p->in + at, p->len);
}

static bool h2_answered(struct h2 *guest, struct h2 *origin, unsigned n)
{
    h2_hears(origin);
    h2_hears(guest);
    return guest->done >= n;
}

static void requests_h2(unsigned n)
{
    /* GET https / and the authority, nothing of it for the dynamic table */
    static const char head[] = "\x82\x87\x84\x01\x09" NAME;
    static struct h2 guest, origin = {.origin = true};

    tls_begin("\x02h2", true);
    struct talk t = talk_begin(1);
    guest.ssl = t.guest;
    origin.ssl = t.origin;
    say(t.guest, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frame(&guest, SETTINGS, 0, 0, NULL, 0);
    frame(&origin, SETTINGS, 0, 0, NULL, 0);
    for (unsigned i = 0; i < n + 2 * STREAMS; i += STREAMS) {
        if (i == 2 * STREAMS)
            counts_begin();
        for (unsigned k = 0; k < STREAMS; k++)
            frame(&guest, HEADERS, END_HEADERS | END_STREAM, 1 + 2 * (i + k), head, sizeof(head) - 1);
        UNTIL(h2_answered(&guest, &origin, i + STREAMS));
    }
}

const struct counts_case counts_core[] = {
    {"core-connection", "opaque connection, from OPEN to its close line", 200, opaque_connections},
    {"core-denied", "denied SYN, with its line", 1600, denied},
    {"core-udp-up", "datagram of 1400 bytes to upstream", 1600, udp_up},
    {"core-udp-down", "datagram of 1400 bytes from upstream", 1600, udp_down},
    {"core-dns", "DNS query, forwarded, and its answer", 800, dns},
    {"core-tls-connection", "new intercepted connection with one request, upstream resumed", 8, tls_resumed},
    {"core-tls-connection-full", "new intercepted connection with one request, upstream in full", 8, tls_full},
    {"core-request-h1", "intercepted request and response, HTTP/1.1", 200, requests_h1},
    {"core-request-h2", "intercepted request and response, HTTP/2, 10 at once", 400, requests_h2},
    {"core-download", "64 KiB of an intercepted download, HTTP/1.1", 24, download},
    {"core-upload", "64 KiB of an intercepted upload, HTTP/1.1", 24, upload},
};
const size_t n_counts_core = SM_ARRAY_LEN(counts_core);
