/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions of the core, driven over a real channel by a scripted front, with real sockets on loopback (opened by an IP
 * rule) and a real audit file: what the front is told, what the server sees, and which lines were written before it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "core/mediate.h"

struct fixture {
    struct sm_core core;
    char dir[64];
    int audit_fd; /* our own view of the file */
    int front;    /* the front's end of the channel */
    int listener;
    uint16_t port;
    int attached; /* fd of the last ATTACH */
    struct sm_flow_msg last;
    uint8_t buf[SM_FLOW_MSG_MAX];
};

static void channel_failed(const char *text, void *data)
{
    fail_msg("channel failed: %s", text);
}

static const struct sm_channel_ops ops = {.message = sm_core_message, .failed = channel_failed};

static int setup_with(void **state, const char *mode, const char *allow)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int pair[2];
    char path[128];
    g_autoptr(GError) error = NULL;
    g_autofree char *config =
        g_strdup_printf("{\"workspace\":\"test\",\"mode\":\"%s\",\"opaque\":false,\"log_query\":"
                        "false,\"extra_roots\":\"\",\"allow\":[%s],"
                        "\"passthrough\":[],\"deny\":[],\"swaps\":{\"refs\":[],\"entries\":{}},\"inside\":[],"
                        "\"dns\":[\"127.0.0.1:9\"],\"resolv_conf\":\"\",\"dns_qps\":100,"
                        "\"network\":{\"guest\":\"10.0.2.15\",\"prefix_len\":24,"
                        "\"gateway\":\"10.0.2.2\",\"resolver\":\"10.0.2.3\"},\"audit\":{\"sync\":"
                        "false,\"max_bytes\":0,\"seq_floor\":0}}",
                        mode, allow);

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    f->attached = -1;
    strcpy(f->dir, "/tmp/sm-core-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(path, sizeof(path), "%s/egress.jsonl", f->dir);
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    f->audit_fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && f->audit_fd >= 0);

    struct sm_core *core = &f->core;
    core->config = sm_core_config_load(config, strlen(config), &error);
    if (!core->config)
        fail_msg("%s", error->message);
    struct sm_audit_options options = {.workspace = "test"};
    core->audit = sm_audit_writer_new(fd, &options, sm_clock_wall_us(), &error);
    assert_non_null(core->audit);
    core->loop = sm_loop_new(NULL);
    core->repeats = sm_audit_repeats_new();
    core->pins = sm_pins_new(64);
    core->sessions = g_hash_table_new(g_int64_hash, g_int64_equal);
    core->sessions_max = 100;
    assert_true(sm_names_init(core, &error));
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    core->channel = sm_channel_new(core->loop, pair[0], true, &ops, core);
    f->front = pair[1];
    sm_timer_init(&core->second, sm_core_every_second);
    sm_watch_init(&core->link, -1, NULL);
    sm_watch_init(&core->ghost, -1, sm_tcp_ghost);
    sm_loop_set_turn_end(core->loop, sm_core_turn_end, core);

    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&in, &len), 0);
    f->port = ntohs(in.sin_port);
    *state = f;
    return 0;
}

static int setup_ip_rule(void **state)
{
    return setup_with(state, "guarded", "\"127.0.0.1\"");
}

static int setup_guarded(void **state)
{
    return setup_with(state, "guarded", "");
}

static int setup_strict(void **state)
{
    return setup_with(state, "strict", "\"listed.test\"");
}

static int setup_strict_suffix(void **state)
{
    return setup_with(state, "strict", "\".listed.test\"");
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct sm_core *core = &f->core;
    GHashTableIter it;
    void *value;

    for (;;) {
        g_hash_table_iter_init(&it, core->sessions);
        if (!g_hash_table_iter_next(&it, NULL, &value))
            break;
        sm_session_close(value, "test_end");
    }
    sm_channel_free(core->channel);
    sm_dnsserve_free(core->dns);
    sm_resolver_free(core->resolver);
    sm_audit_repeats_free(core->repeats);
    sm_audit_writer_free(core->audit);
    sm_pins_free(core->pins);
    g_hash_table_destroy(core->sessions);
    sm_core_config_free(core->config);
    sm_loop_free(core->loop);
    sm_fd_close(&f->attached);
    close(f->front);
    close(f->listener);
    close(f->audit_fd);
    g_autofree char *path = g_build_filename(f->dir, "egress.jsonl", NULL);
    unlink(path);
    rmdir(f->dir);
    g_free(f);
    return 0;
}

static char *audit_text(struct fixture *f)
{
    return sm_fd_read_all(f->audit_fd, 1u << 20, NULL, NULL);
}

static bool audit_has(struct fixture *f, const char *event)
{
    g_autofree char *text = audit_text(f);
    g_autofree char *want = g_strdup_printf("\"event\":\"%s\"", event);
    return strstr(text, want) != NULL;
}

static void tell(struct fixture *f, const struct sm_flow_msg *m)
{
    uint8_t buf[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(write(f->front, buf, len), (int)len);
}

static void open_tcp(struct fixture *f, uint64_t id, struct sm_addr dst, uint16_t port)
{
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = id,
                            .proto = SM_FLOW_TCP,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .dst = {dst, port}};
    tell(f, &m);
}

static void bytes(struct fixture *f, uint64_t id, const char *data, size_t len)
{
    struct sm_flow_msg m = {.type = SM_FLOW_BYTES, .id = id, .data = (const uint8_t *)data, .data_len = len};
    tell(f, &m);
}

/* Turns until the core says something; the message is in f->last. */
static enum sm_flow_type hear(struct fixture *f)
{
    for (int i = 0; i < 200; i++) {
        int fds[SM_FD_MSG_MAX];
        size_t n_fds;
        ssize_t n = sm_fd_recv(f->front, f->buf, sizeof(f->buf), fds, &n_fds);
        if (n > 0) {
            assert_true(sm_flow_decode(f->buf, (size_t)n, &f->last));
            assert_int_equal(n_fds, sm_flow_fds(f->last.type));
            if (n_fds) {
                sm_fd_close(&f->attached);
                f->attached = fds[0];
                struct sm_flow_msg ack = {.type = SM_FLOW_ATTACHED, .id = f->last.id};
                tell(f, &ack);
            }
            return f->last.type;
        }
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    }
    fail_msg("the core says nothing");
    return SM_FLOW_TYPES;
}

static bool says_nothing(struct fixture *f)
{
    struct pollfd p = {.fd = f->front, .events = POLLIN};
    for (int i = 0; i < 5; i++)
        sm_loop_turn(f->core.loop, 10);
    return poll(&p, 1, 0) == 0;
}

static int server_accept(struct fixture *f)
{
    struct pollfd p = {.fd = f->listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    return accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
}

static const struct sm_addr loopback = {.family = SM_FAMILY_V4, .bytes = {127, 0, 0, 1}};

/* Turns until there is something to read, or the end. */
static ssize_t recv_turning(struct fixture *f, int fd, void *buf, size_t cap)
{
    ssize_t n = -1;
    for (int i = 0; i < 200; i++) {
        n = recv(fd, buf, cap, MSG_DONTWAIT);
        if (n >= 0 || errno != EAGAIN)
            return n;
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    }
    return n;
}

/* A denial of cleartext HTTP is a page on a pair. */
static void expect_page(struct fixture *f, const char *status)
{
    char got[1024] = "";
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 0);
    assert_true(recv_turning(f, f->attached, got, sizeof(got) - 1) > 0);
    assert_memory_equal(got, status, strlen(status));
    assert_non_null(strstr(got, "\"workspace\": \"test\""));
}

static void test_http_cut_everywhere(void **state)
{
    struct fixture *f = *state;
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    static const char head[] = "GET /a?b HTTP/1.1\r\nHost: name.test\r\nX: y\r\n\r\n";
    char got[256];

    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_true(audit_has(f, "egress_dial"));
    int peer = server_accept(f);
    for (size_t i = 0; i < sizeof(head) - 1; i++) {
        assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1); /* nothing goes up before the verdict */
        assert_false(audit_has(f, "egress_allow"));
        bytes(f, 1, head + i, 1);
        sm_loop_turn(f->core.loop, 100);
    }
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 0);
    assert_true(audit_has(f, "egress_allow"));

    /* It is a pair: what was judged comes through it again, and is judged again. */
    for (size_t i = 0; i < sizeof(head) - 1; i++) {
        assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
        assert_false(audit_has(f, "egress_http_request"));
        assert_int_equal(write(f->attached, head + i, 1), 1);
        sm_loop_turn(f->core.loop, 100);
    }
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), sizeof(head) - 1);
    assert_memory_equal(got, head, sizeof(head) - 1);
    assert_true(audit_has(f, "egress_http_request"));
    assert_int_equal(send(peer, answer, sizeof(answer) - 1, 0), sizeof(answer) - 1);
    assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), sizeof(answer) - 1);
    assert_memory_equal(got, answer, sizeof(answer) - 1);
    assert_int_equal(shutdown(f->attached, SHUT_WR), 0);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 0);
    close(peer);
    assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), 0);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    sm_fd_close(&f->attached);
    tell(f, &gone);
    assert_true(says_nothing(f));
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"event\":\"egress_close\""));
    assert_non_null(strstr(text, "\"event\":\"egress_http_response\""));
    g_autofree char *up = g_strdup_printf("\"bytes_up\":%zu", sizeof(head) - 1);
    assert_non_null(strstr(text, up));
    assert_non_null(strstr(text, "\"path\":\"/a\""));
    assert_non_null(strstr(text, "\"host\":\"name.test\""));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
}

static void test_refused_upstream(void **state)
{
    struct fixture *f = *state;
    close(f->listener);
    f->listener = -1;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->last.how, SM_HOW_RST);
    assert_true(says_nothing(f));
    assert_true(audit_has(f, "egress_dial_error"));
    assert_false(audit_has(f, "egress_close"));
}

static void test_server_speaks_first(void **state)
{
    struct fixture *f = *state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    assert_true(says_nothing(f)); /* silence decides nothing */
    assert_int_equal(send(peer, "220 hello\r\n", 11, 0), 11);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 0);
    close(peer);
}

/* A client that says "hi" without a line end and waits: its letters go up, and what follows is still judged with them. */
static void test_short_word_is_answered(void **state)
{
    struct fixture *f = *state;
    char got[64];
    struct pollfd p = {.events = POLLIN};
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    p.fd = server_accept(f);
    bytes(f, 1, "hi", 2);
    for (int i = 0; i < 50 && poll(&p, 1, 0) == 0; i++)
        sm_loop_turn(f->core.loop, 50);
    assert_int_equal(recv(p.fd, got, sizeof(got), 0), 2);
    assert_true(audit_has(f, "egress_allow"));
    assert_int_equal(send(p.fd, "hello", 5, 0), 5);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 2);
    assert_int_equal(read(f->attached, got, sizeof(got)), 5);
    close(p.fd);
}

static void test_typed_request_is_still_judged(void **state)
{
    struct fixture *f = *state;
    char got[64] = "";
    struct pollfd p = {.events = POLLIN};
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    p.fd = server_accept(f);
    bytes(f, 1, "GE", 2);
    for (int i = 0; i < 50 && poll(&p, 1, 0) == 0; i++)
        sm_loop_turn(f->core.loop, 50);
    assert_int_equal(recv(p.fd, got, sizeof(got), 0), 2);
    static const char rest[] = "T / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    bytes(f, 1, rest, sizeof(rest) - 1);
    expect_page(f, "HTTP/1.1 400 ");
    assert_true(audit_has(f, "egress_deny"));
    assert_true(recv(p.fd, got, sizeof(got), 0) <= 0);
    close(p.fd);
}

static void test_guest_only_closes(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg eof = {.type = SM_FLOW_EOF, .id = 1};
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    tell(f, &eof);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
}

static void test_truncated_head_is_denied(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg eof = {.type = SM_FLOW_EOF, .id = 1};
    char got[16];
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "GET / HTTP/1.1\r\nHost: x", 23);
    tell(f, &eof);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_true(audit_has(f, "egress_deny"));
    assert_true(recv(peer, got, sizeof(got), 0) <= 0);
    close(peer);
}

static void test_guest_reset_reaches_the_server(void **state)
{
    struct fixture *f = *state;
    char got[16];
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3); /* neither TLS nor HTTP */
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 0);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_GUEST_RST};
    sm_fd_close(&f->attached);
    tell(f, &gone);
    assert_true(says_nothing(f));
    assert_int_equal(recv(peer, got, sizeof(got), 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(peer);
}

/* A front that says GONE and keeps the descriptor has a dead one. */
static void test_front_that_keeps_the_socket(void **state)
{
    struct fixture *f = *state;
    char got[16];
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    tell(f, &gone);
    assert_true(says_nothing(f));
    assert_int_equal(write(f->attached, "x", 1), -1);
    assert_int_equal(recv(peer, got, sizeof(got), 0), 0);
    close(peer);
}

static void test_front_that_keeps_a_reset_socket(void **state)
{
    struct fixture *f = *state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_GUEST_RST};
    tell(f, &gone);
    for (int i = 0; i < 20 && !f->core.stopping; i++)
        sm_loop_turn(f->core.loop, 100);
    assert_true(f->core.stopping);
    assert_true(audit_has(f, "egress_close"));
    assert_true(audit_has(f, "egress_stop"));
    close(peer);
}

/* The guest resets while ATTACH is on its way: the front cannot have closed what it has not got, and has done no wrong. */
static void test_reset_crosses_attach(void **state)
{
    struct fixture *f = *state;
    struct pollfd p = {.fd = f->front, .events = POLLIN};
    char got[16];
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    for (int i = 0; i < 50 && poll(&p, 1, 0) == 0; i++)
        sm_loop_turn(f->core.loop, 100);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_GUEST_RST};
    tell(f, &gone);
    for (int i = 0; i < 5; i++)
        sm_loop_turn(f->core.loop, 10);
    assert_false(f->core.stopping);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(write(f->attached, "x", 1), -1); /* it is sealed all the same */
    sm_fd_close(&f->attached);
    assert_true(says_nothing(f));
    assert_false(f->core.stopping);
    assert_int_equal(f->core.attach_inflight, 0);
    assert_true(recv(peer, got, sizeof(got), 0) <= 0);
    close(peer);
}

/* What went upstream is counted, also when the guest is gone before the flow is handed over. */
static void test_judged_bytes_are_counted(void **state)
{
    struct fixture *f = *state;
    struct pollfd p = {.events = POLLIN};
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    p.fd = server_accept(f);
    bytes(f, 1, "hi", 2);
    for (int i = 0; i < 50 && poll(&p, 1, 0) == 0; i++)
        sm_loop_turn(f->core.loop, 50);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_GUEST_RST};
    tell(f, &gone);
    assert_true(says_nothing(f));
    assert_true(audit_has(f, "egress_close"));
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"bytes_up\":2"));
    close(p.fd);
}

/* A flow whose turn to be handed over has not come ends upstream: the guest is told. */
static void test_reset_while_attach_waits(void **state)
{
    struct fixture *f = *state;
    struct linger now = {.l_onoff = 1};
    f->core.attach_inflight = SM_FLOW_ATTACH_MAX;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    assert_true(says_nothing(f));
    assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(peer);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    assert_true(audit_has(f, "egress_close"));
    f->core.attach_inflight = 0;
}

static void test_inside_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct pollfd p = {.fd = f->listener, .events = POLLIN};
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_true(f->last.hold_ms > 0);
    assert_int_equal(f->last.scope, SM_SCOPE_DESTINATION);
    assert_true(audit_has(f, "egress_internal_deny"));
    assert_false(audit_has(f, "egress_dial"));
    assert_int_equal(poll(&p, 1, 0), 0);
    struct sm_flow_msg repeated = {
        .type = SM_FLOW_REPEATED, .proto = SM_FLOW_TCP, .dst = {loopback, f->port}, .count = 41};
    tell(f, &repeated);
    sm_loop_turn(f->core.loop, 100);
    sm_audit_repeats_flush_all(f->core.repeats, f->core.audit, sm_clock_wall_us());
    assert_true(sm_audit_commit(f->core.audit));
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"count\":41"));
}

static void test_strict_dials_nothing_for_a_forged_name(void **state)
{
    struct fixture *f = *state;
    static const char head[] = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    open_tcp(f, 1, sm_addr_v4(203, 0, 113, 9), 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_false(audit_has(f, "egress_dial"));
    bytes(f, 1, head, sizeof(head) - 1);
    expect_page(f, "HTTP/1.1 403 ");
    assert_true(audit_has(f, "egress_deny"));
    assert_false(audit_has(f, "egress_dial"));
}

static void test_strict_resolves_a_listed_name_itself(void **state)
{
    struct fixture *f = *state;
    static const char head[] = "GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n";
    open_tcp(f, 1, sm_addr_v4(203, 0, 113, 9), 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ABORT); /* the resolver (port 9) does not answer */
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"event\":\"egress_dns_query\""));
    assert_null(strstr(text, "\"event\":\"egress_dial\""));
    assert_null(strstr(text, "\"event\":\"egress_allow\""));
}

static void test_unwritable_log_stops_admission(void **state)
{
    struct fixture *f = *state;
    struct rlimit old, none = {0};
    struct pollfd p = {.fd = f->listener, .events = POLLIN};

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    open_tcp(f, 3, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
}

static void test_nonsense_from_the_front(void **state)
{
    struct fixture *f = *state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    open_tcp(f, 1, loopback, f->port);                   /* the id again */
    open_tcp(f, SM_FLOW_ID_CORE | 5, loopback, f->port); /* an id that is the core's to choose */
    for (unsigned type = 1; type < SM_FLOW_TYPES; type++) {
        struct sm_flow_msg m = {
            .type = (enum sm_flow_type)type, .id = 99, .proto = SM_FLOW_UDP, .data = (const uint8_t *)"x"};
        if (type == SM_FLOW_OPEN || type == SM_FLOW_ATTACH || type == SM_FLOW_INBOUND)
            continue;
        m.src = m.dst = (struct sm_endpoint){sm_addr_v4(1, 2, 3, 4), 5};
        if (type == SM_FLOW_BYTES || type == SM_FLOW_DATAGRAM)
            m.data_len = 1;
        if (type == SM_FLOW_DATAGRAM || type == SM_FLOW_OTHER || type == SM_FLOW_REPEATED || type == SM_FLOW_RELEASE)
            m.id = 0;
        tell(f, &m);
    }
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    tell(f, &gone);
    open_tcp(f, 1, loopback, f->port); /* an id of the past: two flows of the record would share it */
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    struct sm_flow_msg spoofed = {.type = SM_FLOW_OPEN,
                                  .id = 7,
                                  .proto = SM_FLOW_TCP,
                                  .src = {sm_addr_v4(10, 0, 2, 16), 1},
                                  .dst = {loopback, f->port}};
    tell(f, &spoofed);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
}

static void test_too_many_flows(void **state)
{
    struct fixture *f = *state;
    f->core.sessions_max = 2;
    for (uint64_t id = 1; id <= 2; id++) {
        open_tcp(f, id, loopback, f->port);
        assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    }
    open_tcp(f, 3, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(g_hash_table_size(f->core.sessions), 2);
}

/* A front that closes its end of a DNS connection and does not say GONE: nobody is left to answer, whatever is still asked. */
static void test_dns_connection_that_is_dropped(void **state)
{
    struct fixture *f = *state;
    static const char query[] = "\x00\x1f\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01"
                                "a\x06listed\x04test\x00\x00\x01\x00\x01";
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int silent = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(silent, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(silent, (struct sockaddr *)&in, &len), 0);
    struct sm_endpoint server = {loopback, ntohs(in.sin_port)};
    assert_true(sm_resolver_set_servers(f->core.resolver, &server, 1, NULL));

    open_tcp(f, 1, sm_addr_v4(10, 0, 2, 3), 53);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(write(f->attached, query, sizeof(query) - 1), sizeof(query) - 1);
    assert_true(says_nothing(f));
    assert_true(audit_has(f, "egress_dns_query"));
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    sm_fd_close(&f->attached);
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    close(silent);
}

static void test_too_many_dns_connections(void **state)
{
    struct fixture *f = *state;
    int ours[SM_CORE_DNS_TCP_MAX];
    f->core.sessions_max = SM_CORE_DNS_TCP_MAX + 10;
    for (uint64_t id = 1; id <= SM_CORE_DNS_TCP_MAX; id++) {
        open_tcp(f, id, sm_addr_v4(10, 0, 2, 3), 53);
        assert_int_equal(hear(f), SM_FLOW_ACCEPT);
        assert_int_equal(hear(f), SM_FLOW_ATTACH);
        ours[id - 1] = sm_steal_fd(&f->attached);
    }
    open_tcp(f, 1000, sm_addr_v4(10, 0, 2, 3), 53);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_true(audit_has(f, "egress_deny"));
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    tell(f, &gone);
    open_tcp(f, 1001, sm_addr_v4(10, 0, 2, 3), 53);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    for (size_t i = 0; i < SM_ARRAY_LEN(ours); i++)
        close(ours[i]);
}

/* Every flow may hold a large head, but not all of them at once. */
static void test_held_bytes_of_all_flows(void **state)
{
    struct fixture *f = *state;
    static char big[SM_FLOW_DATA_MAX];
    memset(big, 'a', sizeof(big));
    memcpy(big, "GET /", 5);
    open_tcp(f, 1, sm_addr_v4(203, 0, 113, 9), 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    bytes(f, 1, big, sizeof(big));
    assert_true(says_nothing(f));
    assert_int_equal(f->core.held_now, sizeof(big));
    f->core.held_now = SM_CORE_HELD_TOTAL; /* those of the others */
    open_tcp(f, 2, sm_addr_v4(203, 0, 113, 9), 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    bytes(f, 2, big, 1);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    f->core.held_now = sizeof(big);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    tell(f, &gone);
    assert_true(says_nothing(f));
    assert_int_equal(f->core.held_now, 0);
}

int main(void)
{
#define T(fn, setup) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_http_cut_everywhere, setup_ip_rule),
        T(test_refused_upstream, setup_ip_rule),
        T(test_server_speaks_first, setup_ip_rule),
        T(test_short_word_is_answered, setup_ip_rule),
        T(test_typed_request_is_still_judged, setup_ip_rule),
        T(test_guest_only_closes, setup_ip_rule),
        T(test_truncated_head_is_denied, setup_ip_rule),
        T(test_guest_reset_reaches_the_server, setup_ip_rule),
        T(test_front_that_keeps_the_socket, setup_ip_rule),
        T(test_front_that_keeps_a_reset_socket, setup_ip_rule),
        T(test_reset_crosses_attach, setup_ip_rule),
        T(test_judged_bytes_are_counted, setup_ip_rule),
        T(test_reset_while_attach_waits, setup_ip_rule),
        T(test_inside_is_refused_at_once, setup_guarded),
        T(test_strict_dials_nothing_for_a_forged_name, setup_strict),
        T(test_strict_resolves_a_listed_name_itself, setup_strict),
        T(test_unwritable_log_stops_admission, setup_ip_rule),
        T(test_nonsense_from_the_front, setup_ip_rule),
        T(test_too_many_flows, setup_ip_rule),
        T(test_dns_connection_that_is_dropped, setup_strict_suffix),
        T(test_too_many_dns_connections, setup_guarded),
        T(test_held_bytes_of_all_flows, setup_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
