/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front of accepted sockets: the test is the client, by TCP over loopback, and the core. Every row of sock.h's table,
 * its ends by either side, and its bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness.h"
#include "nat/pipes.h"
#include "nat/sock.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

/** More than the buffers of a loopback connection and a pair together. */
#define LOTS (24u << 20)

struct hooks_seen {
    unsigned accepted, refused, closed;
    bool with_msg;
    const char *greeting, *answer;
};

struct t {
    struct h h;
    struct sm_endpoint listener;
    /* what the next client of the listener becomes */
    const char *first, *name;
    const struct sm_sock_hooks *hooks;
    struct hooks_seen seen;
    /* INBOUND */
    uint64_t dial_id;
    unsigned dials;
    bool no_dial;
};

static GBytes *bytes_of(const char *text)
{
    return text ? g_bytes_new(text, strlen(text)) : NULL;
}

static GBytes *on_accepted(void *data)
{
    struct hooks_seen *s = data;
    s->accepted++;
    return bytes_of(s->greeting);
}

static GBytes *on_refused(const struct sm_flow_msg *msg, void *data)
{
    struct hooks_seen *s = data;
    s->refused++;
    s->with_msg = msg != NULL;
    return bytes_of(s->answer);
}

static void on_closed(void *data)
{
    struct hooks_seen *s = data;
    s->closed++;
}

static const struct sm_sock_hooks all_hooks = {.accepted = on_accepted, .refused = on_refused, .closed = on_closed};

static void on_client(int fd, const struct sm_endpoint *src, const struct sm_endpoint *dst, void *data)
{
    struct t *t = data;
    struct sm_flow_msg open = {.src = *src, .dst = *dst};

    sm_sock_open(t->h.front, fd, &open, t->first, t->first ? strlen(t->first) : 0, t->hooks, &t->seen);
}

static bool on_dial(uint64_t id, const struct sm_endpoint *src, uint16_t guest_port, void *data)
{
    struct t *t = data;
    char text[SM_ENDPOINT_STRLEN];

    assert_string_equal(sm_endpoint_format(src, text), "203.0.113.9:4000");
    assert_int_equal(guest_port, 80);
    t->dial_id = id;
    t->dials++;
    return !t->no_dial;
}

static struct t *t_new(unsigned max_live)
{
    struct t *t = g_new0(struct t, 1);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    int channel[2], fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    GError *error = NULL;
    struct sm_front_config cfg = {.net = {.link = test_link, .workspace = "test"},
                                  .max_live = max_live,
                                  .clock_us = h_clock,
                                  .clock_data = &t->h};

    (void)signal(SIGPIPE, SIG_IGN); /* as the sandbox does */
    memset(cfg.secret, 7, sizeof(cfg.secret));
    assert_int_equal(sm_fd_seqpair(channel, true), 0);
    t->h.loop = sm_loop_new(&error);
    assert_non_null(t->h.loop);
    t->h.guest = -1;
    t->h.core = channel[1];
    t->h.front = sm_front_new_sock(t->h.loop, &cfg, channel[0], h_failed, &t->h);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &len), 0);
    assert_true(sm_endpoint_from_sockaddr(&bound, &t->listener));
    sm_sock_listen(t->h.front, fd, on_client, t);
    sm_sock_on_inbound(t->h.front, on_dial, t);
    return t;
}

static int setup(void **state)
{
    *state = t_new(0);
    return 0;
}

/* As the kernel path's. */
static int setup_splices(void **state)
{
    struct t *t = t_new(0);

    assert_int_equal(sm_sock_splice(t->h.front), SM_PIPES_MAX);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct t *t = *state;
    assert_null(t->h.failed);
    assert_int_equal(h_stats(&t->h).held_now, 0);
    assert_int_equal(h_stats(&t->h).queued_now, 0);
    sm_front_free(t->h.front);
    sm_loop_free(t->h.loop);
    sm_fd_close(&t->h.core);
    g_free(t);
    return 0;
}

/* A client's connection: in the listener's backlog from here on. */
static int dial(struct t *t)
{
    struct sockaddr_storage to;
    socklen_t len = sm_endpoint_to_sockaddr(&t->listener, &to);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&to, len), 0);
    assert_int_equal(sm_fd_set_nonblock(fd), 0);
    return fd;
}

/* ... and the question that it makes. */
static int ask(struct t *t, uint64_t *ret_id)
{
    static struct mx mx;
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);
    struct sm_endpoint src;
    int fd = dial(t);

    core_expect(&t->h, SM_FLOW_OPEN, &mx);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &len), 0);
    assert_true(sm_endpoint_from_sockaddr(&own, &src));
    assert_true(sm_endpoint_equal(&mx.m.src, &src));
    assert_true(sm_endpoint_equal(&mx.m.dst, &t->listener));
    assert_int_equal(mx.m.proto, SM_FLOW_TCP);
    *ret_id = mx.m.id;
    return fd;
}

static void say(struct t *t, int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    h_settle(&t->h);
}

static void expect_bytes(struct t *t, uint64_t id, const char *text)
{
    static struct mx mx;

    core_expect(&t->h, SM_FLOW_BYTES, &mx);
    assert_int_equal(mx.m.id, id);
    assert_int_equal(mx.m.data_len, strlen(text));
    assert_memory_equal(mx.m.data, text, mx.m.data_len);
}

static void core_say(struct t *t, enum sm_flow_type type, uint64_t id)
{
    core_send(&t->h, &(struct sm_flow_msg){.type = type, .id = id});
}

static void expect_reset(struct t *t, int *fd)
{
    assert_int_equal(upstream_end(&t->h, *fd), -1);
    assert_int_equal(errno, ECONNRESET);
    sm_fd_close(fd);
}

static void expect_end(struct t *t, int fd)
{
    assert_int_equal(upstream_end(&t->h, fd), 0);
}

static void hang_up(int *fd)
{
    struct linger now = {.l_onoff = 1};
    assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    sm_fd_close(fd);
}

/* ---- the life of a flow ---- */

static void test_whole_life(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id);

    say(t, client, "hello ");
    expect_bytes(t, id, "hello "); /* its kernel has let it speak */
    core_say(t, SM_FLOW_ACCEPT, id);
    say(t, client, "world");
    expect_bytes(t, id, "world");
    assert_int_equal(h_stats(&t->h).held_now, 11);
    int upstream = core_attach(&t->h, id, 6, SOCK_STREAM); /* the core has written the first six itself */
    upstream_expect(&t->h, upstream, "world", 5);
    say(t, client, "more");
    upstream_expect(&t->h, upstream, "more", 4);
    assert_int_equal(write(upstream, "back", 4), 4);
    upstream_expect(&t->h, client, "back", 4);
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    expect_end(t, upstream);
    assert_int_equal(write(upstream, "late", 4), 4); /* half closed: this way is open still */
    upstream_expect(&t->h, client, "late", 4);
    core_expect_nothing(&t->h);
    (void)close(upstream);
    expect_end(t, client);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    (void)close(client);
    core_say(t, SM_FLOW_ABORT, id); /* dead: no effect */
    assert_int_equal(h_stats(&t->h).tcp_now, 0);
}

static void test_upstream_ends_first(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = core_attach(&t->h, id, 0, SOCK_STREAM);

    assert_int_equal(shutdown(upstream, SHUT_WR), 0);
    expect_end(t, client);
    say(t, client, "still here");
    upstream_expect(&t->h, upstream, "still here", 10);
    (void)close(client);
    expect_end(t, upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    (void)close(upstream);
}

static void test_end_before_attach(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    uint64_t id;
    int client = ask(t, &id);

    core_say(t, SM_FLOW_ACCEPT, id);
    say(t, client, "all");
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    expect_bytes(t, id, "all");
    core_expect(&t->h, SM_FLOW_EOF, &mx);
    assert_int_equal(mx.m.id, id);
    core_expect_nothing(&t->h); /* told once */
    int upstream = core_attach(&t->h, id, 3, SOCK_STREAM);
    expect_end(t, upstream);
    assert_int_equal(write(upstream, "x", 1), 1);
    upstream_expect(&t->h, client, "x", 1);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    (void)close(client);
}

static void test_first_bytes(void **state)
{
    struct t *t = *state;
    uint64_t id;

    t->first = "GET ";
    int client = ask(t, &id);
    core_say(t, SM_FLOW_ACCEPT, id);
    expect_bytes(t, id, "GET ");
    say(t, client, "/");
    expect_bytes(t, id, "/");
    int upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    upstream_expect(&t->h, upstream, "GET /", 5);
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    (void)close(upstream);
}

static void test_first_bytes_attached_at_once(void **state)
{
    struct t *t = *state;
    uint64_t id;

    t->first = "first ";
    int client = ask(t, &id);
    expect_bytes(t, id, "first ");
    say(t, client, "then");
    expect_bytes(t, id, "then");
    int upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    upstream_expect(&t->h, upstream, "first then", 10);
    core_say(t, SM_FLOW_ABORT, id);
    gone_expect(&t->h, id, SM_WHY_UPSTREAM_RST);
    expect_reset(t, &client);
    (void)close(upstream);
}

static void test_consumed_too_much(void **state)
{
    struct t *t = *state;
    uint64_t id;
    static struct mx mx;
    int pair[2];

    t->first = "shown";
    int client = ask(t, &id);
    expect_bytes(t, id, "shown");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    core_send_fd(&t->h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = id, .consumed = 6}, pair[0]);
    gone_expect(&t->h, id, SM_WHY_LIMIT);
    core_expect(&t->h, SM_FLOW_ATTACHED, &mx); /* acknowledged all the same */
    expect_end(t, pair[1]);
    expect_reset(t, &client);
    (void)close(pair[1]);
}

/* Before there is an answer little is read; the rest when there is one. */
static void test_early_is_bounded(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    static char much[5 * SM_SOCK_EARLY_MAX];
    uint64_t id;
    size_t shown = 0;
    int client = ask(t, &id);

    for (size_t i = 0; i < sizeof(much); i++)
        much[i] = (char)(i * 7 + i / 251);
    assert_int_equal(write(client, much, sizeof(much)), sizeof(much));
    for (size_t bound = SM_SOCK_EARLY_MAX;; bound = sizeof(much)) {
        while (shown < bound) {
            core_expect(&t->h, SM_FLOW_BYTES, &mx);
            assert_memory_equal(mx.m.data, much + shown, mx.m.data_len);
            shown += mx.m.data_len;
        }
        assert_int_equal(shown, bound);
        core_expect_nothing(&t->h);
        if (bound == sizeof(much))
            break;
        core_say(t, SM_FLOW_ACCEPT, id);
    }
    core_refuse(&t->h, id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    expect_reset(t, &client);
}

/* Clients wait in the backlog while an OPEN would find no room: dropped, it would be a reset. */
static void test_no_room_for_a_question(void **state)
{
    enum { FLOWS = 24 };
    struct t *t = *state;
    static struct mx mx;
    static char much[SM_FLOW_HELD_MAX];
    uint64_t id[FLOWS], late_id[8];
    int client[FLOWS], late[8];
    unsigned asked = 0;
    char c;

    for (unsigned i = 0; i < FLOWS; i++)
        client[i] = ask(t, &id[i]);
    for (unsigned i = 0; i < FLOWS; i++) {
        core_say(t, SM_FLOW_ACCEPT, id[i]);
        assert_true(write(client[i], much, sizeof(much)) > 0);
        h_settle(&t->h); /* the core does not read */
    }
    for (unsigned i = 0; i < SM_ARRAY_LEN(late); i++) {
        late[i] = dial(t);
        h_settle(&t->h);
        assert_int_equal(recv(late[i], &c, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EAGAIN);
    }
    assert_int_equal(h_stats(&t->h).opens_dropped, 0);
    for (unsigned turns = 0; asked < SM_ARRAY_LEN(late) && turns < 100000; turns++) {
        while (core_poll(&t->h, &mx))
            if (mx.m.type == SM_FLOW_OPEN)
                late_id[asked++] = mx.m.id;
        h_turn(&t->h, 0);
    }
    assert_int_equal(asked, SM_ARRAY_LEN(late));
    for (unsigned i = 0; i < FLOWS; i++) {
        core_refuse(&t->h, id[i], SM_HOW_RST, SM_SCOPE_TUPLE, 0);
        expect_reset(t, &client[i]);
    }
    for (unsigned i = 0; i < SM_ARRAY_LEN(late); i++) {
        core_refuse(&t->h, late_id[i], SM_HOW_RST, SM_SCOPE_TUPLE, 0);
        expect_reset(t, &late[i]);
    }
}

static void test_held_is_bounded(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    uint64_t id;
    size_t shown = 0;
    static uint8_t much[256 << 10];
    int client = ask(t, &id);

    for (size_t i = 0; i < sizeof(much); i++)
        much[i] = (uint8_t)(i * 7 >> 3);
    core_say(t, SM_FLOW_ACCEPT, id);
    ssize_t sent = write(client, much, sizeof(much));
    assert_true(sent > SM_FLOW_HELD_MAX);
    while (shown < SM_FLOW_HELD_MAX) {
        core_expect(&t->h, SM_FLOW_BYTES, &mx);
        assert_memory_equal(mx.m.data, much + shown, mx.m.data_len);
        shown += mx.m.data_len;
    }
    assert_int_equal(shown, SM_FLOW_HELD_MAX);
    core_expect_nothing(&t->h);
    int upstream = core_attach(&t->h, id, 1000, SOCK_STREAM);
    upstream_expect(&t->h, upstream, much + 1000, (size_t)sent - 1000);
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
}

/* ---- refusals ---- */

static void test_refused(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id);

    say(t, client, "for nobody");
    expect_bytes(t, id, "for nobody");
    core_refuse(&t->h, id, SM_HOW_ICMP_ADMIN, SM_SCOPE_TUPLE, 0);
    expect_reset(t, &client);
    client = ask(t, &id);
    core_say(t, SM_FLOW_ACCEPT, id);
    core_refuse(&t->h, id, SM_HOW_SILENT, SM_SCOPE_TUPLE, 0);
    expect_reset(t, &client);
    core_expect_nothing(&t->h);
}

static void test_held_refusal(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    uint64_t id;
    int client = ask(t, &id);

    core_refuse(&t->h, id, SM_HOW_RST, SM_SCOPE_DESTINATION, 60000);
    expect_reset(t, &client);
    client = dial(t);
    expect_reset(t, &client);
    core_expect_nothing(&t->h);
    assert_int_equal(h_stats(&t->h).repeated, 1);
    sm_front_tick(t->h.front);
    core_expect(&t->h, SM_FLOW_REPEATED, &mx);
    assert_int_equal(mx.m.count, 1);
    assert_true(sm_endpoint_equal(&mx.m.dst, &t->listener));
    core_say(t, SM_FLOW_RELEASE, 0);
    client = ask(t, &id);
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_REFUSED);
}

static void test_answered(void **state)
{
    struct t *t = *state;
    uint64_t id;

    t->hooks = &all_hooks;
    t->seen.answer = "403 no\n";
    int client = ask(t, &id);
    say(t, client, "unread");
    core_refuse(&t->h, id, SM_HOW_RST, SM_SCOPE_DESTINATION, 60000);
    upstream_expect(&t->h, client, "403 no\n", 7);
    expect_end(t, client); /* in order, though it has said what nobody asked for */
    assert_int_equal(t->seen.refused, 1);
    assert_true(t->seen.with_msg);
    assert_int_equal(t->seen.closed, 1);
    assert_int_equal(h_stats(&t->h).tcp_now, 0);
    (void)close(client);
    client = dial(t); /* the hold has no message */
    upstream_expect(&t->h, client, "403 no\n", 7);
    expect_end(t, client);
    assert_int_equal(t->seen.refused, 2);
    assert_false(t->seen.with_msg);
    assert_int_equal(t->seen.closed, 2);
    assert_int_equal(t->seen.accepted, 0);
    (void)close(client);
    h_settle(&t->h);
}

static void test_slow_to_leave(void **state)
{
    struct t *t = *state;
    uint64_t id;
    char c = 'x';
    int64_t until = sm_clock_us() + SM_SOCK_LINGER_US + DEADLINE_US;

    t->hooks = &all_hooks;
    t->seen.answer = "no\n";
    int client = ask(t, &id);
    core_refuse(&t->h, id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    upstream_expect(&t->h, client, "no\n", 3);
    expect_end(t, client);
    while (write(client, &c, 1) == 1) { /* it does not close: its time ends by the timer */
        assert_true(sm_clock_us() < until);
        h_turn(&t->h, 100);
    }
    assert_true(errno == EPIPE || errno == ECONNRESET);
    (void)close(client);
}

static void test_greeting(void **state)
{
    struct t *t = *state;
    uint64_t id;

    t->hooks = &all_hooks;
    t->seen.greeting = "200 go\n";
    int client = ask(t, &id);
    core_say(t, SM_FLOW_ACCEPT, id);
    upstream_expect(&t->h, client, "200 go\n", 7);
    int upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    assert_int_equal(write(upstream, "data", 4), 4);
    upstream_expect(&t->h, client, "data", 4);
    (void)close(upstream);
    expect_end(t, client);
    (void)close(client);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    assert_int_equal(t->seen.accepted, 1);
    assert_int_equal(t->seen.closed, 1);

    client = ask(t, &id); /* attached at once: it comes before upstream's bytes too */
    upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    assert_int_equal(write(upstream, "data", 4), 4);
    upstream_expect(&t->h, client, "200 go\ndata", 11);
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    (void)close(upstream);

    client = ask(t, &id); /* refused when it was told already that all is well: no second answer */
    t->seen.answer = "never";
    core_say(t, SM_FLOW_ACCEPT, id);
    upstream_expect(&t->h, client, "200 go\n", 7);
    core_refuse(&t->h, id, SM_HOW_RST, SM_SCOPE_TUPLE, 0);
    expect_reset(t, &client);
    assert_int_equal(t->seen.accepted, 3);
    assert_int_equal(t->seen.refused, 0);
    assert_int_equal(t->seen.closed, 3);
}

/* ---- sudden ends ---- */

static void test_client_resets(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id);

    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_REFUSED);
    client = ask(t, &id);
    core_say(t, SM_FLOW_ACCEPT, id);
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    client = ask(t, &id);
    int upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    expect_end(t, upstream);
    (void)close(upstream);
}

static void test_upstream_resets(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = core_attach(&t->h, id, 0, SOCK_STREAM);

    say(t, client, "unread");
    (void)close(upstream); /* with bytes unread: the other end of a pair sees a reset */
    gone_expect(&t->h, id, SM_WHY_UPSTREAM_RST);
    expect_reset(t, &client);
}

static void test_aborted(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id);

    core_say(t, SM_FLOW_ABORT, id);
    expect_reset(t, &client);
    client = ask(t, &id);
    core_say(t, SM_FLOW_ACCEPT, id);
    core_say(t, SM_FLOW_ABORT, id);
    expect_reset(t, &client);
    core_expect_nothing(&t->h); /* the core knows */
    client = ask(t, &id);
    int upstream = core_attach(&t->h, id, 0, SOCK_STREAM);
    core_say(t, SM_FLOW_ABORT, id);
    gone_expect(&t->h, id, SM_WHY_UPSTREAM_RST); /* the core waits until ours is closed */
    expect_reset(t, &client);
    (void)close(upstream);
}

static void test_front_ends(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = core_attach(&t->h, id, 0, SOCK_STREAM);

    sm_front_finish(t->h.front);
    h_settle(&t->h);
    assert_int_equal(write(client, "last", 4), 4);
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    upstream_expect(&t->h, upstream, "last", 4); /* what was said before the end is delivered */
    expect_end(t, upstream);
    int late = dial(t);
    h_settle(&t->h);
    char c;
    assert_int_equal(upstream_end(&t->h, t->h.core), 0); /* the last word; nobody new was let in */
    assert_int_equal(read(late, &c, 1), -1);
    assert_int_equal(errno, EAGAIN);
    (void)close(late);
    (void)close(upstream);
    (void)close(client);
    h_settle(&t->h);
}

/* ---- back-pressure and bounds ---- */

static uint8_t pattern(size_t i)
{
    return (uint8_t)((i * 2654435761u) >> 13);
}

/* LOTS of bytes from one side to the other; the reader begins when the writer is stuck. */
static void pour(struct t *t, int from, int to, size_t may_keep)
{
    static uint8_t buf[60000];
    size_t sent = 0, got = 0;
    bool stuck = false;
    int64_t until = sm_clock_us() + 3 * DEADLINE_US;

    while (got < LOTS) {
        assert_true(sm_clock_us() < until);
        size_t n = SM_MIN(sizeof(buf), LOTS - sent);
        for (size_t i = 0; i < n; i++)
            buf[i] = pattern(sent + i);
        ssize_t put = n > 0 ? write(from, buf, n) : 0;
        sent += put > 0 ? (size_t)put : 0;
        h_settle(&t->h);
        if (!stuck && put < 0) {
            struct sm_front_stats s = h_stats(&t->h);
            assert_int_equal(errno, EAGAIN);
            stuck = true;
            assert_true(s.held_now + s.queued_now > 0);
            assert_true(s.held_now + s.queued_now <= may_keep); /* one read's or pipe's worth, whatever is sent */
        }
        ssize_t r = stuck ? read(to, buf, sizeof(buf)) : 0;
        for (ssize_t i = 0; i < r; i++)
            if (buf[i] != pattern(got + (size_t)i))
                assert_int_equal(i, -1);
        got += r > 0 ? (size_t)r : 0;
    }
    assert_true(stuck);
}

static void test_back_pressure(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = core_attach(&t->h, id, 0, SOCK_STREAM);

    pour(t, client, upstream, SM_FLOW_UDP_BATCH_MAX);
    pour(t, upstream, client, SM_FLOW_UDP_BATCH_MAX);
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    assert_true(h_stats(&t->h).spliced == 0); /* nobody has asked for it */
}

/* ---- through pipes ---- */

/* A flow whose upstream is a TCP socket, as that of an opaque one is. Returns the other end of it. */
static int attach_tcp(struct t *t, uint64_t id)
{
    static struct mx mx;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    sm_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(sm_fd_set_nonblock(fd), 0);
    int other = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(other >= 0);
    core_send_fd(&t->h, &(struct sm_flow_msg){.type = SM_FLOW_ATTACH, .id = id}, fd);
    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    return other;
}

/* One direction of a flow, as its two ends see it; each flow and direction has bytes of its own. */
struct stream {
    int from, to;
    size_t sent, got, all, salt;
    bool ended;
};

static void stream_say(struct stream *s, size_t most)
{
    static uint8_t buf[128 << 10];
    size_t n = SM_MIN(SM_MIN(sizeof(buf), most), s->all - s->sent);

    for (size_t i = 0; i < n; i++)
        buf[i] = pattern(s->sent + i + s->salt);
    ssize_t put = n > 0 ? write(s->from, buf, n) : 0;
    assert_true(put >= 0 || errno == EAGAIN);
    s->sent += put > 0 ? (size_t)put : 0;
}

static void stream_hear(struct stream *s, size_t most)
{
    static uint8_t buf[512 << 10];
    ssize_t n = read(s->to, buf, SM_MIN(sizeof(buf), most));

    assert_true(n >= 0 || errno == EAGAIN);
    s->ended = s->ended || (n == 0 && most > 0);
    for (ssize_t i = 0; i < n; i++)
        if (buf[i] != pattern(s->got + (size_t)i + s->salt))
            fail_msg("byte %zu is another one", s->got + (size_t)i);
    s->got += n > 0 ? (size_t)n : 0;
}

/* The source speaks and nobody reads, until nothing moves any more. */
static void stream_stick(struct t *t, struct stream *s)
{
    for (int idle = 0; idle < 20;) {
        size_t before = s->sent;
        stream_say(s, s->all);
        h_settle(&t->h);
        idle = s->sent == before ? idle + 1 : 0;
    }
    assert_true(s->sent < s->all);
}

static void stream_finish(struct t *t, struct stream *s)
{
    int64_t until = sm_clock_us() + 3 * DEADLINE_US;

    while (s->got < s->all) {
        assert_true(sm_clock_us() < until);
        stream_say(s, s->all);
        h_turn(&t->h, 0);
        stream_hear(s, s->all);
    }
}

static void test_splice_back_pressure(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = core_attach(&t->h, id, 0, SOCK_STREAM);

    pour(t, client, upstream, SM_PIPES_BYTES);
    uint64_t up = h_stats(&t->h).spliced;
    assert_true(up > LOTS / 2);
    pour(t, upstream, client, SM_PIPES_BYTES); /* out of a pair, as a flow under a cap has it */
    assert_true(h_stats(&t->h).spliced - up > LOTS / 2);
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
}

/* Both ways at once, each side speaking and reading in pieces of any size, or not at all for a while; then the ends. */
static void test_splice_any_pace(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = attach_tcp(t, id);
    struct stream s[2] = {{client, upstream, .all = LOTS, .salt = 1}, {upstream, client, .all = LOTS, .salt = 77777}};
    GRand *rand = g_rand_new_with_seed(20);
    int64_t until = sm_clock_us() + 6 * DEADLINE_US;
    gint32 pause[4] = {0};

    while (s[0].got < LOTS || s[1].got < LOTS) {
        assert_true(sm_clock_us() < until);
        for (int i = 0; i < 4; i++) {
            if (pause[i]-- > 0)
                continue;
            pause[i] = g_rand_int_range(rand, 0, 40) == 0 ? g_rand_int_range(rand, 0, 60) : 0;
            size_t most = (size_t)1 << g_rand_int_range(rand, 8, 20);
            if (i < 2)
                stream_say(&s[i], most);
            else if (s[i - 2].got < LOTS)
                stream_hear(&s[i - 2], most);
        }
        h_turn(&t->h, 0);
        struct sm_front_stats now = h_stats(&t->h);
        assert_true(now.held_now <= SM_PIPES_BYTES && now.queued_now <= SM_PIPES_BYTES);
    }
    g_rand_free(rand);
    assert_true(h_stats(&t->h).spliced > LOTS);
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    expect_end(t, upstream);
    (void)close(upstream);
    expect_end(t, client);
    (void)close(client);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
}

/* An end comes behind the last byte, whatever is in the pipe before it, and the other direction goes on. */
static void test_splice_half_close(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = attach_tcp(t, id);
    struct stream up = {client, upstream, .all = LOTS, .salt = 3}, down = {upstream, client, .all = LOTS, .salt = 5};

    stream_stick(t, &up);
    stream_stick(t, &down);
    assert_true(h_stats(&t->h).held_now > 0 && h_stats(&t->h).queued_now > 0);
    up.all = up.sent;
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    h_settle(&t->h);
    stream_finish(t, &up);
    assert_false(up.ended);
    expect_end(t, upstream);
    down.all = down.sent + LOTS / 8; /* it has more to say, and then ends while it is stuck */
    for (int64_t until = sm_clock_us() + DEADLINE_US; down.sent < down.all;) {
        assert_true(sm_clock_us() < until);
        stream_say(&down, 1 << 16);
        stream_hear(&down, 1 << 15);
        h_turn(&t->h, 0);
    }
    assert_int_equal(shutdown(upstream, SHUT_WR), 0);
    stream_finish(t, &down);
    expect_end(t, client);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    (void)close(client);
    (void)close(upstream);
}

/* What a flow that was reset has left in a pipe is nobody's: all pipes are used again, by flows with other bytes. */
static void test_splice_reset_leaves_nothing(void **state)
{
    struct t *t = *state;

    for (unsigned round = 0; round < 3; round++) {
        int client[SM_PIPES_MAX], upstream[SM_PIPES_MAX];
        uint64_t id[SM_PIPES_MAX];
        for (unsigned i = 0; i < SM_PIPES_MAX; i++) {
            client[i] = ask(t, &id[i]);
            upstream[i] = attach_tcp(t, id[i]);
            struct stream s = {client[i], upstream[i], .all = LOTS, .salt = 11 + i};
            stream_stick(t, &s);
        }
        assert_true(h_stats(&t->h).held_now > 0);
        for (unsigned i = 0; i < SM_PIPES_MAX; i++) {
            if (round == 0) { /* by the guest, */
                hang_up(&client[i]);
                gone_expect(&t->h, id[i], SM_WHY_GUEST_RST);
            } else if (round == 1) { /* upstream, */
                hang_up(&upstream[i]);
                gone_expect(&t->h, id[i], SM_WHY_UPSTREAM_RST);
            } else { /* the core */
                core_say(t, SM_FLOW_ABORT, id[i]);
                gone_expect(&t->h, id[i], SM_WHY_UPSTREAM_RST);
            }
            sm_fd_close(&client[i]);
            sm_fd_close(&upstream[i]);
        }
        assert_int_equal(h_stats(&t->h).held_now, 0);
        uint64_t before = h_stats(&t->h).spliced;
        struct stream s[SM_PIPES_MAX];
        for (unsigned i = 0; i < SM_PIPES_MAX; i++) { /* each of them stuck with a pipe: so it was every pipe */
            client[i] = ask(t, &id[i]);
            upstream[i] = attach_tcp(t, id[i]);
            s[i] = (struct stream){client[i], upstream[i], .all = LOTS, .salt = 5000 + i};
            stream_stick(t, &s[i]);
        }
        assert_true(h_stats(&t->h).spliced > before);
        for (unsigned i = 0; i < SM_PIPES_MAX; i++) {
            s[i].all = s[i].sent;
            stream_finish(t, &s[i]);
            (void)close(client[i]);
            expect_end(t, upstream[i]);
            (void)close(upstream[i]);
            gone_expect(&t->h, id[i], SM_WHY_CLOSED);
        }
    }
}

/* More flows than pipes, all of them stuck: each keeps its own, no more than a pipe's worth, and one whose sink takes
 * what it is given is spliced beside them. */
static void test_splice_more_flows_than_pipes(void **state)
{
    enum { FLOWS = SM_PIPES_MAX + 3 };
    struct t *t = *state;
    struct stream s[FLOWS];
    uint64_t id[FLOWS];

    for (unsigned i = 0; i < FLOWS; i++) {
        int client = ask(t, &id[i]), upstream = attach_tcp(t, id[i]);
        s[i] = (struct stream){client, upstream, .all = LOTS, .salt = i * 1000};
        stream_stick(t, &s[i]);
        assert_true(h_stats(&t->h).held_now <= (i + 1) * (size_t)SM_PIPES_BYTES);
    }
    uint64_t before = h_stats(&t->h).spliced, free_id;
    int client = ask(t, &free_id), upstream = attach_tcp(t, free_id);
    struct stream free_one = {client, upstream, .all = LOTS, .salt = 31};
    stream_finish(t, &free_one);
    assert_true(h_stats(&t->h).spliced - before > LOTS / 2);
    for (unsigned i = FLOWS; i-- > 0;) {
        s[i].all = s[i].sent;
        stream_finish(t, &s[i]);
        (void)close(s[i].from);
        expect_end(t, s[i].to);
        (void)close(s[i].to);
        gone_expect(&t->h, id[i], SM_WHY_CLOSED);
    }
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, free_id, SM_WHY_CLOSED);
}

/* At a byte of urgent data splice(2) says what it says at an end. It is no end: all but that byte comes, as without
 * pipes. */
static void test_splice_urgent(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = attach_tcp(t, id);
    struct stream s = {client, upstream, .all = LOTS, .salt = 9};

    stream_stick(t, &s);
    s.all = s.sent; /* the source's kernel is full; there is room for a byte when the sink has read some */
    for (int64_t until = sm_clock_us() + DEADLINE_US; send(client, "!", 1, MSG_OOB) != 1; h_turn(&t->h, 0)) {
        assert_true(errno == EAGAIN && sm_clock_us() < until);
        stream_hear(&s, 1 << 20);
    }
    s.all = s.sent + LOTS / 4;
    for (int64_t until = sm_clock_us() + DEADLINE_US; s.sent < s.all; h_turn(&t->h, 0)) {
        assert_true(sm_clock_us() < until);
        stream_say(&s, 1 << 16);
        stream_hear(&s, 1 << 15);
    }
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    stream_finish(t, &s);
    expect_end(t, upstream);
    (void)close(upstream);
    (void)close(client);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    assert_true(h_stats(&t->h).spliced > 0);
}

static void test_splice_front_ends(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = attach_tcp(t, id);
    struct stream s = {client, upstream, .all = LOTS, .salt = 13};

    stream_stick(t, &s);
    s.all = s.sent;
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    sm_front_finish(t->h.front);
    stream_finish(t, &s); /* what was said before the end is delivered, also what is in a pipe */
    expect_end(t, upstream);
    (void)close(upstream);
    (void)close(client);
    h_settle(&t->h);
    assert_int_equal(h_stats(&t->h).held_now, 0);
}

/* Flows with an owner who looks at the bytes, and small ones, go without. */
static void test_splice_not_these(void **state)
{
    struct t *t = *state;
    uint64_t id;
    int client = ask(t, &id), upstream = attach_tcp(t, id);

    for (int i = 0; i < 50; i++) {
        say(t, client, "question");
        upstream_expect(&t->h, upstream, "question", 8);
        assert_int_equal(write(upstream, "answer", 6), 6);
        upstream_expect(&t->h, client, "answer", 6);
    }
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    t->hooks = &all_hooks;
    client = ask(t, &id);
    upstream = attach_tcp(t, id);
    struct stream s = {client, upstream, .all = LOTS};
    stream_finish(t, &s);
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    assert_true(h_stats(&t->h).spliced == 0);
}

/* The kernel gives none, or the size is refused: everything goes as ever. */
static void test_splice_refused(void **state)
{
    struct t *t = *state;
    struct rlimit was, none;
    uint64_t id;
    sm_autofd next = dup(0);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){(rlim_t)next + 1, was.rlim_max}; /* one descriptor more: not a pipe */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    unsigned made = sm_sock_splice(t->h.front);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(made, 0);
    int client = ask(t, &id), upstream = attach_tcp(t, id);
    struct stream s = {client, upstream, .all = LOTS};
    stream_finish(t, &s);
    (void)close(client);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
    assert_true(h_stats(&t->h).spliced == 0);
}

static void test_backlog_waits(void **state)
{
    struct t *t = t_new(1);
    uint64_t id, second_id;
    static struct mx mx;
    int client = ask(t, &id), second = dial(t);

    core_expect_nothing(&t->h); /* no room: it waits where it is */
    hang_up(&client);
    gone_expect(&t->h, id, SM_WHY_REFUSED);
    core_expect(&t->h, SM_FLOW_OPEN, &mx);
    second_id = mx.m.id;
    assert_true(second_id > id);
    hang_up(&second);
    gone_expect(&t->h, second_id, SM_WHY_REFUSED);
    void *p = t;
    teardown(&p);
}

/* ---- published ports ---- */

static int inbound(struct t *t, uint64_t id)
{
    int pair[2];
    struct sm_flow_msg m = {.type = SM_FLOW_INBOUND, .id = id, .guest_port = 80};

    assert_true(sm_endpoint_parse("203.0.113.9:4000", 0, &m.src));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    core_send_fd(&t->h, &m, pair[0]);
    return pair[1];
}

static void test_inbound(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    int guest[2];
    uint64_t id = SM_FLOW_ID_CORE | 1;
    int upstream = inbound(t, id);

    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    assert_int_equal(t->dials, 1);
    assert_true(t->dial_id == id);
    assert_int_equal(write(upstream, "in", 2), 2);
    h_settle(&t->h);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, guest), 0);
    sm_sock_dialled(t->h.front, id, guest[0]);
    upstream_expect(&t->h, guest[1], "in", 2);
    assert_int_equal(write(guest[1], "out", 3), 3);
    upstream_expect(&t->h, upstream, "out", 3);
    (void)close(guest[1]);
    expect_end(t, upstream);
    (void)close(upstream);
    gone_expect(&t->h, id, SM_WHY_CLOSED);
}

static void test_inbound_fails(void **state)
{
    struct t *t = *state;
    static struct mx mx;
    uint64_t id = SM_FLOW_ID_CORE | 1;
    int guest[2], upstream = inbound(t, id);

    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    sm_sock_dialled(t->h.front, id, -1);
    gone_expect(&t->h, id, SM_WHY_GUEST_RST);
    expect_end(t, upstream);
    (void)close(upstream);

    upstream = inbound(t, ++id); /* the client gives up first */
    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    core_say(t, SM_FLOW_ABORT, id);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, guest), 0);
    sm_sock_dialled(t->h.front, id, guest[0]);
    expect_end(t, guest[1]);
    (void)close(guest[1]);
    (void)close(upstream);

    t->no_dial = true;
    upstream = inbound(t, ++id);
    gone_expect(&t->h, id, SM_WHY_LIMIT);
    core_expect(&t->h, SM_FLOW_ATTACHED, &mx);
    expect_end(t, upstream);
    (void)close(upstream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upstream_ends_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_before_attach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_bytes_attached_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_consumed_too_much, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_a_question, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_refusal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_to_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(test_greeting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upstream_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_aborted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_front_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_splice_back_pressure, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_any_pace, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_half_close, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_reset_leaves_nothing, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_more_flows_than_pipes, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_urgent, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_front_ends, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_not_these, setup_splices, teardown),
        cmocka_unit_test_setup_teardown(test_splice_refused, setup, teardown),
        cmocka_unit_test(test_backlog_waits),
        cmocka_unit_test_setup_teardown(test_inbound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inbound_fails, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
