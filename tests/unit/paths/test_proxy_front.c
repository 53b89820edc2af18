/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The proxy front in process: clients on loopback, and the test in the core's place. What a client is told and what the
 * core is told, for each way in which a request can go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "http/proxy.h"
#include "nat/sock.h"
#include "paths/proxy_answer.h"
#include "paths/proxy_front.h"
#include "policy/reason.h"

#define TOKEN "dXNlcjpwYXNz" /* user:pass */

struct world {
    struct sm_loop *loop;
    struct sm_proxy_config config;
    struct sm_proxy_front *proxy;
    struct sm_endpoint at;
    int core;  /* our end of the channel */
    int given; /* our end of what the last ATTACH carried */
    bool failed;
    struct sm_flow_msg last;
    uint8_t buf[SM_FLOW_MSG_MAX];
};

static void on_failed(const char *text, void *data)
{
    ((struct world *)data)->failed = true;
}

static struct world *world_new(const char *clients, bool auth)
{
    struct world *w = g_new0(struct world, 1);
    g_autoptr(GError) error = NULL;
    struct sm_endpoint any = {.addr = sm_addr_v4(127, 0, 0, 1)};
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&any, &ss);
    int pair[2];

    signal(SIGPIPE, SIG_IGN);
    w->given = -1;
    w->loop = sm_loop_new(NULL);
    w->config = (struct sm_proxy_config){.workspace = g_strdup("test"), .n_clients = 1, .auth = auth};
    assert_true(sm_prefix_parse(clients, &w->config.clients[0]));
    sm_proxy_digest(w->config.salt, TOKEN, strlen(TOKEN), w->config.digest);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&ss, len), 0);
    assert_int_equal(listen(listener, 16), 0);
    len = sizeof(ss);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&ss, &len), 0);
    assert_true(sm_endpoint_from_sockaddr(&ss, &w->at));
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    w->core = pair[1];
    w->proxy = sm_proxy_front_new(w->loop, &w->config, listener, pair[0], 4096, on_failed, w, &error);
    assert_non_null(w->proxy);
    return w;
}

static int setup(void **state)
{
    *state = world_new("127.0.0.0/8", false);
    return 0;
}

static int setup_auth(void **state)
{
    *state = world_new("127.0.0.0/8", true);
    return 0;
}

static int setup_strangers(void **state)
{
    *state = world_new("172.20.0.0/16", false);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    sm_proxy_front_free(w->proxy);
    sm_loop_free(w->loop);
    sm_proxy_config_clear(&w->config);
    sm_fd_close(&w->given);
    close(w->core);
    g_free(w);
    return 0;
}

static int client_of(struct world *w, uint8_t last)
{
    struct sm_endpoint from = {.addr = sm_addr_v4(127, 0, 0, last)};
    struct sockaddr_storage ss;
    socklen_t len = sm_endpoint_to_sockaddr(&from, &ss);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
    len = sm_endpoint_to_sockaddr(&w->at, &ss);
    assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
    return fd;
}

static int client(struct world *w)
{
    return client_of(w, 1);
}

static int client_says(struct world *w, const char *text)
{
    int fd = client(w);

    assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
    return fd;
}

/* The next message of the front's; turns until there is one. */
static enum sm_flow_type hear(struct world *w)
{
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;

    for (int i = 0; i < 200; i++) {
        ssize_t n = sm_fd_recv(w->core, w->buf, sizeof(w->buf), fds, &n_fds);
        if (n > 0) {
            assert_int_equal(n_fds, 0);
            assert_true(sm_flow_decode(w->buf, (size_t)n, &w->last));
            return w->last.type;
        }
        assert_int_equal(sm_loop_turn(w->loop, 50), 0);
    }
    fail_msg("the front says nothing");
    return SM_FLOW_TYPES;
}

static void tell(struct world *w, const struct sm_flow_msg *m)
{
    uint8_t buf[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, buf, sizeof(buf));

    assert_true(len > 0);
    assert_int_equal(write(w->core, buf, len), (int)len);
}

static void attach(struct world *w, uint64_t id, uint32_t consumed)
{
    struct sm_flow_msg m = {.type = SM_FLOW_ATTACH, .id = id, .consumed = consumed};
    uint8_t buf[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(&m, buf, sizeof(buf));
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(sm_fd_send(w->core, buf, len, &pair[0], 1), (int)len);
    close(pair[0]);
    sm_fd_close(&w->given);
    w->given = pair[1];
}

/* All that comes, to the end or until it has @want bytes. */
static char *take(struct world *w, int fd, size_t want)
{
    GString *got = g_string_new(NULL);
    char buf[4096];

    for (int i = 0; i < 300 && got->len < want; i++) {
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
        if (n > 0)
            g_string_append_len(got, buf, n);
        else
            assert_int_equal(sm_loop_turn(w->loop, 20), 0);
    }
    return g_string_free(got, FALSE);
}

static void expect_open(struct world *w, const char *name, uint16_t port)
{
    assert_int_equal(hear(w), SM_FLOW_OPEN);
    assert_int_equal(w->last.proto, SM_FLOW_TCP);
    assert_int_equal(w->last.name_len, strlen(name));
    assert_memory_equal(w->last.name, name, strlen(name));
    assert_int_equal(w->last.dst.port, port);
    assert_int_equal(sm_addr_to_u32(&w->last.src.addr), 0x7f000001);
}

static void expect_answer(struct world *w, int fd, const char *status, const char *reason)
{
    g_autofree char *got = take(w, fd, SIZE_MAX);
    g_autofree char *word = g_strdup_printf("\"reason\": \"%s\"", reason);

    if (strncmp(got, status, strlen(status)) != 0 || !strstr(got, word) || !strstr(got, "\r\nConnection: close\r\n"))
        fail_msg("not %s %s: %s", status, reason, got);
    close(fd);
}

static void a_tunnel(void **state)
{
    struct world *w = *state;
    int fd = client_says(w, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nearly");

    expect_open(w, "a.test", 443);
    uint64_t id = w->last.id;
    tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = id});
    assert_int_equal(hear(w), SM_FLOW_BYTES);
    assert_int_equal(w->last.data_len, 5);
    assert_memory_equal(w->last.data, "early", 5);
    g_autofree char *greeting = take(w, fd, 39);
    assert_string_equal(greeting, "HTTP/1.1 200 Connection established\r\n\r\n");
    attach(w, id, 2); /* the core has sent two of them itself */
    assert_int_equal(hear(w), SM_FLOW_ATTACHED);
    g_autofree char *rest = take(w, w->given, 3);
    assert_string_equal(rest, "rly");
    assert_int_equal(write(w->given, "answer", 6), 6);
    g_autofree char *back = take(w, fd, 6);
    assert_string_equal(back, "answer");
    close(fd);
    sm_fd_close(&w->given);
    assert_int_equal(hear(w), SM_FLOW_GONE);
    assert_int_equal(w->last.id, id);
}

static void an_absolute_form(void **state)
{
    struct world *w = *state;
    int fd =
        client_says(w, "POST http://a.test:8080/x HTTP/1.1\r\nHost: a.test:8080\r\nProxy-Connection: keep-alive\r\n"
                       "Content-Length: 4\r\n\r\nbody");
    static const char want[] =
        "POST /x HTTP/1.1\r\nHost: a.test:8080\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";

    expect_open(w, "a.test", 8080);
    tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = w->last.id});
    assert_int_equal(hear(w), SM_FLOW_BYTES);
    assert_int_equal(w->last.data_len, sizeof(want) - 1);
    assert_memory_equal(w->last.data, want, sizeof(want) - 1);
    char none;
    assert_int_equal(recv(fd, &none, 1, MSG_DONTWAIT), -1); /* the answer is the origin's */
    close(fd);
}

/* What is said behind a request is for the proxy, and maybe for another host: upstream gets none of it, whatever it
 * answers. */
static void the_next_request_goes_nowhere(void **state)
{
    static const char next[] =
        "GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\nProxy-Authorization: Basic " TOKEN "\r\n\r\n";
    static const struct {
        const char *head, *body; /* body: as it comes, '|' where a write ends */
        const char *answer;
        bool opens; /* what follows goes on */
    } cases[] = {
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
         false},
        {"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\n", "01|234567",
         "HTTP/1.1 204 No\r\n\r\n", false},
        {"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
         "4|\r|\n0123\r|\n0\r\nX|-T: 1\r\n\r|\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "",
         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "",
         "HTTP/1.1 101 Switching\r\n\r\n", true},
    };

    for (int early = 0; early < 2; early++) { /* before the answer, and behind it */
        for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
            struct world *w = *state;
            int fd = client_says(w, cases[i].head);
            g_auto(GStrv) pieces = g_strsplit(cases[i].body, "|", -1);
            g_autofree char *body = g_strjoinv("", pieces);

            expect_open(w, "a.test", 80);
            uint64_t id = w->last.id;
            tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = id});
            assert_int_equal(hear(w), SM_FLOW_BYTES);
            uint32_t head = (uint32_t)w->last.data_len;
            assert_null(g_strstr_len((const char *)w->last.data, (gssize)head, "Basic"));
            attach(w, id, head);
            assert_int_equal(hear(w), SM_FLOW_ATTACHED);
            for (char **p = pieces; *p; p++) {
                assert_int_equal(write(fd, *p, strlen(*p)), (int)strlen(*p));
                g_autofree char *got = take(w, w->given, strlen(*p));
                assert_string_equal(got, *p);
            }
            if (early) {
                assert_int_equal(write(fd, next, strlen(next)), (int)strlen(next));
                assert_int_equal(sm_loop_turn(w->loop, 20), 0);
            }
            assert_int_equal(write(w->given, cases[i].answer, strlen(cases[i].answer)), (int)strlen(cases[i].answer));
            g_autofree char *answer = take(w, fd, strlen(cases[i].answer));
            assert_string_equal(answer, cases[i].answer);
            if (!early)
                assert_int_equal(write(fd, next, strlen(next)), (int)strlen(next));
            g_autofree char *rest = take(w, w->given, strlen(next)); /* to its end, where nothing comes */
            assert_string_equal(rest, cases[i].opens && !early ? next : "");
            char none;
            if (!cases[i].opens || early)
                assert_int_equal(recv(w->given, &none, 1, MSG_DONTWAIT), 0); /* upstream was told */
            close(fd);
            sm_fd_close(&w->given);
            assert_int_equal(hear(w), SM_FLOW_GONE);
        }
    }
}

/* The next request in one write with the first one. */
static void nothing_of_the_next_comes_with_the_first(void **state)
{
    struct world *w = *state;
    int fd =
        client_says(w, "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nokGET http://b.test/ "
                       "HTTP/1.1\r\nHost: b.test\r\n\r\n");
    static const char want[] = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

    expect_open(w, "a.test", 80);
    tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = w->last.id});
    assert_int_equal(hear(w), SM_FLOW_BYTES);
    assert_int_equal(w->last.data_len, sizeof(want) - 1);
    assert_memory_equal(w->last.data, want, sizeof(want) - 1);
    close(fd);
}

static void refusals_say_why(void **state)
{
    static const struct {
        enum sm_reason reason;
        enum sm_flow_how how;
        const char *status, *word;
    } rows[] = {
        {SM_REASON_UNLISTED_NAME, SM_HOW_RST, "HTTP/1.1 403 ", "unlisted_name"},
        {SM_REASON_METADATA, SM_HOW_RST, "HTTP/1.1 403 ", "metadata"},
        {SM_REASON_BAD_NAME, SM_HOW_RST, "HTTP/1.1 400 ", "bad_name"},
        {SM_REASON_UNRESOLVED, SM_HOW_RST, "HTTP/1.1 502 ", "unresolved"},
        {SM_REASON_LIMIT, SM_HOW_RST, "HTTP/1.1 503 ", "limit"},
        {SM_REASON_NONE, SM_HOW_RST, "HTTP/1.1 502 ", "upstream_refused"},
        {SM_REASON_NONE, SM_HOW_ICMP_HOST, "HTTP/1.1 504 ", "upstream_unreachable"},
        {SM_REASON_NONE, SM_HOW_ICMP_NET, "HTTP/1.1 502 ", "upstream_refused"},
        {(enum sm_reason)200, SM_HOW_RST, "HTTP/1.1 503 ", "limit"}, /* a number that we do not know */
        {SM_REASON_PUBLIC, SM_HOW_RST, "HTTP/1.1 403 ", "public"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        int fd = client_says(w, i % 2 ? "CONNECT a.test:443 HTTP/1.1\r\n\r\n"
                                      : "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
        expect_open(w, "a.test", i % 2 ? 443 : 80);
        tell(w, &(struct sm_flow_msg){
                    .type = SM_FLOW_REFUSE, .id = w->last.id, .how = rows[i].how, .reason = (uint8_t)rows[i].reason});
        expect_answer(w, fd, rows[i].status, rows[i].word);
    }
    struct sm_proxy_stats s;
    sm_proxy_front_stats(w->proxy, &s);
    assert_int_equal(s.refused, SM_ARRAY_LEN(rows));
    assert_int_equal(s.clients_now, 0);
    assert_int_equal(s.heads_now, 0);
}

static void a_head_request_gets_no_body(void **state)
{
    struct world *w = *state;
    int fd = client_says(w, "HEAD http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");

    expect_open(w, "a.test", 80);
    tell(w, &(struct sm_flow_msg){
                .type = SM_FLOW_REFUSE, .id = w->last.id, .how = SM_HOW_RST, .reason = SM_REASON_INSIDE});
    g_autofree char *got = take(w, fd, SIZE_MAX);
    assert_memory_equal(got, "HTTP/1.1 403 ", 13);
    assert_true(g_str_has_suffix(got, "\r\n\r\n"));
    close(fd);
}

static void what_breaks_http_asks_nobody(void **state)
{
    static const struct {
        const char *text, *status, *word;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "HTTP/1.1 400 ", "proxy_origin_form"},
        {"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", "HTTP/1.1 400 ", "http_host_mismatch"},
        {"GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "HTTP/1.1 400 ", "proxy_https_target"},
        {"CONNECT a.test HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "proxy_authority"},
        {"\x16\x03\x01", "HTTP/1.1 400 ", "proxy_not_http"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        int fd = client_says(w, rows[i].text);
        expect_answer(w, fd, rows[i].status, rows[i].word);
    }
    assert_int_equal(hear(w), SM_FLOW_OTHER); /* the first at once, the others with the second's count */
    assert_int_equal(w->last.other, SM_OTHER_REQUEST);
    assert_int_equal(sm_addr_to_u32(&w->last.dst.addr), 0x7f000001);
    g_autofree char *large = g_strnfill(SM_PROXY_CONNECT_MAX + 100, 'a');
    memcpy(large, "CONNECT ", 8);
    expect_answer(w, client_says(w, large), "HTTP/1.1 431 ", "http_head_too_large");
}

static void credentials_are_asked_for(void **state)
{
    static const char *const wrong[] = {
        "CONNECT a.test:443 HTTP/1.1\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpwYXNx\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nProxy-Authorization: Basic " TOKEN "=\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nProxy-Authorization: Bearer " TOKEN "\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic " TOKEN "\r\n\r\n",
    };
    struct world *w = *state;

    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        int fd = client_says(w, wrong[i]);
        g_autofree char *got = take(w, fd, SIZE_MAX);
        assert_memory_equal(got, "HTTP/1.1 407 ", 13);
        assert_non_null(strstr(got, "\r\nProxy-Authenticate: Basic realm=\"slirp-med\"\r\n"));
        close(fd);
    }
    assert_int_equal(hear(w), SM_FLOW_OTHER);
    assert_int_equal(w->last.other, SM_OTHER_AUTH);
    int fd =
        client_says(w, "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: basic " TOKEN "\r\n\r\n");
    expect_open(w, "a.test", 80);
    tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = w->last.id});
    assert_int_equal(hear(w), SM_FLOW_BYTES);
    g_autofree char *sent = g_strndup((const char *)w->last.data, w->last.data_len);
    assert_null(strstr(sent, TOKEN)); /* the origin is not told */
    close(fd);
}

static void strangers_are_reset(void **state)
{
    struct world *w = *state;
    int fd = client(w);
    char byte;

    assert_int_equal(hear(w), SM_FLOW_OTHER);
    assert_int_equal(w->last.other, SM_OTHER_CLIENT);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void who_goes_before_the_answer_is_gone(void **state)
{
    struct world *w = *state;
    struct linger now = {.l_onoff = 1};
    int fd = client_says(w, "CONNECT a.test:443 HTTP/1.1\r\n\r\n");

    expect_open(w, "a.test", 443);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(fd);
    assert_int_equal(hear(w), SM_FLOW_GONE);
    assert_int_equal(w->last.why, SM_WHY_REFUSED);
    fd = client_says(w, "CONN"); /* and of one whose head was not complete nobody hears */
    close(fd);
    for (int i = 0; i < 5; i++)
        assert_int_equal(sm_loop_turn(w->loop, 10), 0);
    struct sm_proxy_stats s;
    sm_proxy_front_stats(w->proxy, &s);
    assert_int_equal(s.clients_now, 0);
}

static void the_oldest_head_makes_room(void **state)
{
    struct world *w = *state;
    int slow = client_says(w, "GET http://a.test/ HTTP/1.1\r\n");
    int idle[SM_PROXY_HEADS_MAX];

    for (size_t i = 0; i < SM_ARRAY_LEN(idle); i++) {
        idle[i] = client_of(w, (uint8_t)(1 + i % 4)); /* of one address they would be too many */
        if (i % 8 == 0)
            assert_int_equal(sm_loop_turn(w->loop, 10), 0);
    }
    expect_answer(w, slow, "HTTP/1.1 408 ", "proxy_head_timeout");
    struct sm_proxy_stats s;
    sm_proxy_front_stats(w->proxy, &s);
    assert_true(s.heads_now <= SM_PROXY_HEADS_MAX);
    for (size_t i = 0; i < SM_ARRAY_LEN(idle); i++)
        close(idle[i]);
}

/* What one address asks of silent servers costs itself, and nobody else. */
static void one_client_leaves_room_for_the_others(void **state)
{
    static const char head[] = "CONNECT a.test:443 HTTP/1.1\r\n\r\n";
    struct world *w = *state;
    int fds[SM_PROXY_PEER_ASKED_MAX];

    for (size_t i = 0; i < SM_ARRAY_LEN(fds); i++) {
        fds[i] = client_says(w, head);
        expect_open(w, "a.test", 443);
    }
    int more = client_says(w, head);
    expect_answer(w, more, "HTTP/1.1 503 ", "limit");
    int other = client_of(w, 2);
    assert_int_equal(write(other, head, strlen(head)), (int)strlen(head));
    assert_int_equal(hear(w), SM_FLOW_OPEN);
    assert_int_equal(sm_addr_to_u32(&w->last.src.addr), 0x7f000002);
    /* What is answered does not count. */
    tell(w, &(struct sm_flow_msg){.type = SM_FLOW_ACCEPT, .id = w->last.id - 1});
    g_autofree char *greeting = take(w, fds[SM_ARRAY_LEN(fds) - 1], 39);
    assert_true(g_str_has_prefix(greeting, "HTTP/1.1 200 "));
    more = client_says(w, head);
    expect_open(w, "a.test", 443);
    close(more);
    close(other);
    for (size_t i = 0; i < SM_ARRAY_LEN(fds); i++)
        close(fds[i]);
}

static void the_end_of_the_channel_is_told(void **state)
{
    struct world *w = *state;

    assert_int_equal(shutdown(w->core, SHUT_RDWR), 0);
    for (int i = 0; i < 20 && !w->failed; i++)
        (void)sm_loop_turn(w->loop, 20);
    assert_true(w->failed);
}

static void the_configuration_is_read_strictly(void **state)
{
    static const char salt[] = "00112233445566778899aabbccddeeff";
    static const char digest[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    g_autofree char *with = g_strdup_printf(
        "{\"workspace\":\"w\",\"clients\":[\"10.0.0.0/8\",\"fd00::/8\"],\"auth\":{\"salt\":\"%s\",\"digest\":\"%s\"}}",
        salt, digest);
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"workspace\":\"w\"}",
        "{\"workspace\":\"w\",\"clients\":[]}",
        "{\"workspace\":\"w\",\"clients\":[\"10.0.0.1/8\"]}",
        "{\"workspace\":\"w\",\"clients\":[1]}",
        "{\"workspace\":\"w\",\"clients\":[\"10.0.0.0/8\"],\"more\":1}",
        "{\"workspace\":\"w\",\"clients\":[\"10.0.0.0/8\"],\"auth\":{\"salt\":\"00\",\"digest\":\"00\"}}",
        "{\"workspace\":\"w\",\"clients\":[\"10.0.0.0/8\"],\"auth\":{}}"};
    struct sm_proxy_config c;
    struct sm_addr a;

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        g_autoptr(GError) error = NULL;
        if (sm_proxy_config_parse(bad[i], strlen(bad[i]), &c, &error))
            fail_msg("%s was taken", bad[i]);
        assert_non_null(error);
    }
    assert_true(sm_proxy_config_parse(with, strlen(with), &c, NULL));
    assert_true(c.auth);
    assert_int_equal(c.digest[31], 0xff);
    assert_true(sm_addr_parse("10.1.2.3", &a) && sm_proxy_config_is_client(&c, &a));
    assert_true(sm_addr_parse("fd00::1", &a) && sm_proxy_config_is_client(&c, &a));
    assert_true(sm_addr_parse("11.0.0.1", &a) && !sm_proxy_config_is_client(&c, &a));
    sm_proxy_config_clear(&c);
}

#define IN(setup_fn, test) cmocka_unit_test_setup_teardown(test, setup_fn, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN(setup, a_tunnel),
        IN(setup, an_absolute_form),
        IN(setup, the_next_request_goes_nowhere),
        IN(setup, nothing_of_the_next_comes_with_the_first),
        IN(setup, refusals_say_why),
        IN(setup, a_head_request_gets_no_body),
        IN(setup, what_breaks_http_asks_nobody),
        IN(setup_auth, credentials_are_asked_for),
        IN(setup_strangers, strangers_are_reset),
        IN(setup, who_goes_before_the_answer_is_gone),
        IN(setup, the_oldest_head_makes_room),
        IN(setup, one_client_leaves_room_for_the_others),
        IN(setup, the_end_of_the_channel_is_told),
        cmocka_unit_test(the_configuration_is_read_strictly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
