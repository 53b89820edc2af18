/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The TLS client and the odd server of the interception benchmark: threads and blocking sockets, so that what is timed is the path and not
 * this program's cleverness. Every client verifies the server's certificate for NAME against the one CA file that it is given: a mediator's
 * CA shows that there was interception, the world's that there was none. A thread verifies a certificate once and after that compares its
 * bytes with the verified one's; another one is verified anew, and the signature of the handshake every time. OpenSSL is started as the
 * core starts it (tls/provider.c): of a client that does nothing but handshakes, the search for decoders would be a quarter.
 *
 *   bench_tls serve ADDR:PORT PEM                     an origin that swallows bodies (any path) and sends an event every 2 ms (/sse)
 *   bench_tls conns ADDR:PORT NAME CA SECONDS THREADS new connection, one small request, close: rate and time of one, us
 *   bench_tls get   ADDR:PORT NAME CA COUNT           small requests on one connection, one after the other: us
 *   bench_tls idle  ADDR:PORT NAME CA COUNT           COUNT connections, one request on each, "ready", kept until standard input ends
 *   bench_tls idle2 ADDR:PORT NAME CA COUNT           the same over HTTP/2
 *   bench_tls sse   ADDR:PORT NAME CA COUNT           from sending an event to its arrival: us
 *
 * Figures are one line: RATE P50 P99 MAX (RATE 0 where there is none).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls/conn.h"

#define EVENT_EVERY_NS 2000000L
#define SAMPLES_MAX (1u << 20)

static const char *name, *ca_file;
static bool alpn_h2;
static struct sockaddr_in addr;
static uint64_t stop_at;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t samples[SAMPLES_MAX];
static size_t n_samples;
static size_t n_failed;

static void die(const char *what)
{
    fprintf(stderr, "bench_tls: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void sample(uint64_t us)
{
    (void)pthread_mutex_lock(&lock);
    if (n_samples < SAMPLES_MAX)
        samples[n_samples++] = (uint32_t)us;
    (void)pthread_mutex_unlock(&lock);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int report(double seconds)
{
    if (n_samples == 0 || n_failed > 0) {
        fprintf(stderr, "bench_tls: %zu done, %zu failed\n", n_samples, n_failed);
        return 1;
    }
    qsort(samples, n_samples, sizeof(samples[0]), compare);
    printf("%.1f %u %u %u\n", seconds > 0 ? (double)n_samples / seconds : 0.0, samples[n_samples / 2],
           samples[n_samples * 99 / 100], samples[n_samples - 1]);
    return 0;
}

static struct sockaddr_in parse(const char *text)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strchr(text, ':');

    snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - text) : 0, text);
    if (!colon || inet_pton(AF_INET, host, &sa.sin_addr) != 1)
        die(text);
    sa.sin_port = htons((uint16_t)atoi(colon + 1));
    return sa;
}

/* ---- client ---- */

/* The certificate that a context verified last. */
struct verified {
    int len;
    uint8_t der[8192];
};

static int verify(X509_STORE_CTX *store, void *arg)
{
    struct verified *last = arg;
    uint8_t der[sizeof(last->der)], *p = der;
    X509 *cert = X509_STORE_CTX_get0_cert(store);
    int len = i2d_X509(cert, NULL);

    if (len <= 0 || (size_t)len > sizeof(der) || i2d_X509(cert, &p) != len)
        return 0;
    if (len == last->len && memcmp(der, last->der, (size_t)len) == 0) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    if (X509_verify_cert(store) != 1)
        return 0;
    memcpy(last->der, der, (size_t)len);
    last->len = len;
    return 1;
}

/* A context belongs to one thread: shared, it would be twenty threads' lock. */
static SSL_CTX *client_ctx(struct verified *last)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx || SSL_CTX_load_verify_file(ctx, ca_file) != 1)
        die(ca_file);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, verify, last);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_set_alpn_protos(ctx, (const uint8_t *)(alpn_h2 ? "\x02h2" : "\x08http/1.1"), alpn_h2 ? 3 : 9) != 0)
        die("alpn");
    return ctx;
}

static SSL *connect_tls(SSL_CTX *ctx)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return NULL;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    SSL *ssl = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? SSL_new(ctx) : NULL;
    if (!ssl) {
        (void)close(fd);
        return NULL;
    }
    (void)SSL_set_fd(ssl, fd);
    (void)SSL_set_tlsext_host_name(ssl, name);
    (void)SSL_set1_host(ssl, name);
    if (SSL_connect(ssl) == 1)
        return ssl;
    SSL_free(ssl);
    (void)close(fd);
    return NULL;
}

static void close_tls(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    (void)SSL_shutdown(ssl);
    SSL_free(ssl);
    (void)close(fd);
}

/* A small request and its whole answer: a head with Content-Length and a body, together below 4 KiB. */
static bool get(SSL *ssl)
{
    char buf[4097];
    size_t have = 0;
    int n = snprintf(buf, sizeof(buf), "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n", name);

    if (SSL_write(ssl, buf, n) != n)
        return false;
    for (;;) {
        n = SSL_read(ssl, buf + have, (int)(sizeof(buf) - 1 - have));
        if (n <= 0)
            return false;
        have += (size_t)n;
        buf[have] = '\0';
        const char *end = strstr(buf, "\r\n\r\n"), *len = strcasestr(buf, "\r\ncontent-length:");
        if (end && len && len < end && have >= (size_t)(end + 4 - buf) + strtoul(len + 17, NULL, 10))
            return strncmp(buf, "HTTP/1.1 200", 12) == 0;
    }
}

/* RFC 9113: preface, empty SETTINGS, HEADERS of stream 1 with indexed and plain fields (RFC 7541); then frames until that stream's end. */
static bool get_h2(SSL *ssl)
{
    uint8_t buf[16384 + 9] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\1\5\0\0\0\1\x82\x87\4\6/hello\1";
    const size_t head = 24 + 9, fixed = head + 9 + 11;
    size_t len = strlen(name), have = 0;

    buf[head + 2] = (uint8_t)(11 + 1 + len);
    buf[fixed] = (uint8_t)len;
    memcpy(buf + fixed + 1, name, len);
    if (SSL_write(ssl, buf, (int)(fixed + 1 + len)) <= 0)
        return false;
    for (;;) {
        int n = SSL_read(ssl, buf + have, (int)(sizeof(buf) - have));
        if (n <= 0)
            return false;
        have += (size_t)n;
        while (have >= 9) {
            size_t frame = 9 + ((size_t)buf[0] << 16 | (size_t)buf[1] << 8 | buf[2]);
            if (have < frame)
                break;
            if (buf[3] == 7 || buf[3] == 3) /* GOAWAY, RST_STREAM */
                return false;
            if (buf[8] == 1 && buf[3] <= 1 && buf[4] & 1)
                return true;
            have -= frame;
            memmove(buf, buf + frame, have);
        }
    }
}

static void *conns_thread(void *arg)
{
    struct verified last = {0};
    bool ok = true;

    (void)arg;
    /* What OpenSSL sets up for the first context is not set up by two at once: the core has one thread, and so has its provider. */
    (void)pthread_mutex_lock(&lock);
    SSL_CTX *ctx = client_ctx(&last);
    (void)pthread_mutex_unlock(&lock);
    while (ok) {
        uint64_t begin = now_us();
        if (begin >= stop_at)
            break;
        SSL *ssl = connect_tls(ctx);
        ok = ssl && get(ssl);
        if (ok)
            sample(now_us() - begin);
        if (ssl)
            close_tls(ssl);
        if (!ok) {
            (void)pthread_mutex_lock(&lock);
            n_failed++;
            (void)pthread_mutex_unlock(&lock);
        }
    }
    SSL_CTX_free(ctx);
    return NULL;
}

static int conns(double seconds, int n_threads)
{
    pthread_t threads[64];
    uint64_t begin = now_us();

    stop_at = begin + (uint64_t)(seconds * 1e6);
    if (n_threads < 1 || n_threads > 64)
        die("1 to 64 threads");
    for (int i = 0; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, conns_thread, NULL) != 0)
            die("pthread_create");
    for (int i = 0; i < n_threads; i++)
        (void)pthread_join(threads[i], NULL);
    return report((double)(now_us() - begin) / 1e6);
}

static int gets(SSL_CTX *ctx, int count)
{
    SSL *ssl = connect_tls(ctx);

    for (int i = 0; ssl && i < count + 10; i++) {
        uint64_t begin = now_us();
        if (!get(ssl))
            die("get");
        if (i >= 10) /* the first few warm everything */
            sample(now_us() - begin);
    }
    if (!ssl)
        die("connect");
    close_tls(ssl);
    return report(0);
}

static int idle(SSL_CTX *ctx, int count, bool (*request)(SSL *))
{
    SSL **all = calloc((size_t)count, sizeof(SSL *));
    char c;

    for (int i = 0; i < count; i++)
        if (!(all[i] = connect_tls(ctx)) || !request(all[i]))
            die("connect");
    printf("ready\n");
    (void)fflush(stdout);
    (void)!read(STDIN_FILENO, &c, 1);
    for (int i = 0; i < count; i++)
        close_tls(all[i]);
    free(all);
    return 0;
}

/* The events are "data: MICROSECONDS\n\n"; they may come in pieces, and inside chunks. */
static int sse(SSL_CTX *ctx, int count)
{
    SSL *ssl = connect_tls(ctx);
    char line[256], buf[4096];
    size_t len = 0;
    int n = snprintf(buf, sizeof(buf), "GET /sse HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", name),
        seen = 0;

    if (!ssl || SSL_write(ssl, buf, n) != n)
        die("connect");
    while (seen < count + 10 && (n = SSL_read(ssl, buf, sizeof(buf))) > 0) {
        uint64_t now = now_us();
        for (int i = 0; i < n; i++) {
            if (len < sizeof(line) - 1)
                line[len++] = buf[i];
            if (buf[i] != '\n')
                continue;
            line[len] = '\0';
            len = 0;
            if (strncmp(line, "data: ", 6) == 0 && ++seen > 10)
                sample(now - strtoull(line + 6, NULL, 10));
        }
    }
    if (seen < count + 10)
        die("sse");
    close_tls(ssl);
    return report(0);
}

static int client(int argc, char **argv)
{
    const char *what = argv[1];
    double number = atof(argv[5]);
    struct rlimit files;
    GError *error = NULL;

    if (!sm_tls_library_init(&error))
        die(error->message);
    addr = parse(argv[2]);
    name = argv[3];
    ca_file = argv[4];
    alpn_h2 = strcmp(what, "idle2") == 0;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (strcmp(what, "conns") == 0 && argc == 7)
        return conns(number, atoi(argv[6]));
    struct verified last = {0};
    SSL_CTX *ctx = client_ctx(&last);
    if (strcmp(what, "get") == 0)
        return gets(ctx, (int)number);
    if (strcmp(what, "idle") == 0)
        return idle(ctx, (int)number, get);
    if (strcmp(what, "idle2") == 0)
        return idle(ctx, (int)number, get_h2);
    if (strcmp(what, "sse") == 0)
        return sse(ctx, (int)number);
    return 2;
}

/* ---- origin ---- */

static SSL_CTX *server_ctx;

static void send_events(SSL *ssl)
{
    char buf[128];
    int n = snprintf(buf, sizeof(buf),
                     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");

    while (SSL_write(ssl, buf, n) == n) {
        char event[64];
        (void)nanosleep(&(struct timespec){.tv_nsec = EVENT_EVERY_NS}, NULL);
        int len = snprintf(event, sizeof(event), "data: %llu\n\n", (unsigned long long)now_us());
        n = snprintf(buf, sizeof(buf), "%x\r\n%s\r\n", (unsigned)len, event);
    }
}

/* One request after the other; a body is counted and dropped. */
static void serve_requests(SSL *ssl)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    static _Thread_local char buf[65537];
    size_t have = 0;

    for (;;) {
        char *end;
        while (buf[have] = '\0', !(end = strstr(buf, "\r\n\r\n"))) {
            int n = have < 8192 ? SSL_read(ssl, buf + have, 8192) : 0;
            if (n <= 0)
                return;
            have += (size_t)n;
        }
        const char *at = strcasestr(buf, "\r\ncontent-length:"), *expect = strcasestr(buf, "100-continue");
        uint64_t body = at && at < end ? strtoull(at + 17, NULL, 10) : 0;
        if (strncmp(buf, "GET /sse ", 9) == 0) {
            send_events(ssl);
            return;
        }
        if (expect && expect < end && SSL_write(ssl, "HTTP/1.1 100 Continue\r\n\r\n", 25) <= 0)
            return;
        size_t head = (size_t)(end + 4 - buf), with_it = have - head;
        if (with_it > body) {
            memmove(buf, buf + head + body, with_it - body);
            have = with_it - body;
            body = 0;
        } else {
            body -= with_it;
            have = 0;
        }
        while (body > 0) {
            int n = SSL_read(ssl, buf, (int)(body < sizeof(buf) - 1 ? body : sizeof(buf) - 1));
            if (n <= 0)
                return;
            body -= (uint64_t)n;
        }
        if (SSL_write(ssl, answer, sizeof(answer) - 1) <= 0)
            return;
    }
}

static void *serve_thread(void *arg)
{
    int one = 1, fd = (int)(intptr_t)arg;
    SSL *ssl = SSL_new(server_ctx);

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
        serve_requests(ssl);
        (void)SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    (void)close(fd);
    return NULL;
}

static int choose_http1(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                        unsigned len, void *arg)
{
    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, (const uint8_t *)"\x08http/1.1", 9, in,
                                 len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

static void serve(const char *where, const char *pem)
{
    struct sockaddr_in sa = parse(where);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    SSL_CTX *ctx = server_ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, pem, SSL_FILETYPE_PEM) != 1)
        die(pem);
    SSL_CTX_set_alpn_select_cb(ctx, choose_http1, NULL);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1024) < 0)
        die(where);
    printf("ready\n");
    (void)fflush(stdout);
    for (;;) {
        pthread_t t;
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (c >= 0 && pthread_create(&t, NULL, serve_thread, (void *)(intptr_t)c) == 0)
            (void)pthread_detach(t);
    }
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        serve(argv[2], argv[3]);
    if (argc >= 6)
        return client(argc, argv);
    fprintf(stderr, "usage: bench_tls serve ADDR:PORT PEM | conns|get|idle|sse ADDR:PORT NAME CA NUMBER [THREADS]\n");
    return 2;
}
