/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions of the core, driven over a real channel by a scripted front, with real sockets on loopback (opened by an IP
 * rule) and a real audit file: what the front is told, what the server sees, and which lines were written before it.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "core/limits.h"

static int setup_ip_rule(void **state)
{
    *state = fixture_new("guarded", "\"127.0.0.1\"");
    return 0;
}

static int setup_guarded(void **state)
{
    *state = fixture_new("guarded", "");
    return 0;
}

static int setup_strict(void **state)
{
    *state = fixture_new("strict", "\"listed.test\"");
    return 0;
}

static int setup_strict_suffix(void **state)
{
    *state = fixture_new("strict", "\".listed.test\"");
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    return 0;
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

static void turn_until_readable(struct fixture *f, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < 50 && poll(&p, 1, 0) == 0; i++)
        sm_loop_turn(f->core.loop, 100);
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
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
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
    sm_fd_close(&f->listener);
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
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "hi", 2);
    turn_until_readable(f, peer);
    assert_int_equal(recv(peer, got, sizeof(got), 0), 2);
    assert_true(audit_has(f, "egress_allow"));
    assert_int_equal(send(peer, "hello", 5, 0), 5);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 2);
    assert_int_equal(read(f->attached, got, sizeof(got)), 5);
    close(peer);
}

static void test_typed_request_is_still_judged(void **state)
{
    struct fixture *f = *state;
    char got[64] = "";
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "GE", 2);
    turn_until_readable(f, peer);
    assert_int_equal(recv(peer, got, sizeof(got), 0), 2);
    static const char rest[] = "T / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    bytes(f, 1, rest, sizeof(rest) - 1);
    expect_page(f, "HTTP/1.1 400 ");
    assert_true(audit_has(f, "egress_deny"));
    assert_true(recv(peer, got, sizeof(got), 0) <= 0);
    close(peer);
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

static void expect(int peer, const char *text, size_t len)
{
    char got[64];

    assert_int_equal(recv(peer, got, SM_MIN(len, sizeof(got)), MSG_WAITALL), len);
    assert_memory_equal(got, text, len);
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
    assert_int_equal(f->last.consumed, 3); /* what the decision rests on has gone up by now */
    expect(peer, "\x01\x02\x03", 3);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_true(says_nothing(f));
    assert_int_equal(recv(peer, got, sizeof(got), 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(peer);
}

/* Of the kernel path, whose guest need not wait for ACCEPT: judged when upstream is there, as if they had come then. */
static void test_bytes_before_upstream(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg eof = {.type = SM_FLOW_EOF, .id = 3};

    open_tcp(f, 1, loopback, f->port);
    bytes(f, 1, "\x01\x02\x03", 3);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, 3);
    int peer = server_accept(f);
    expect(peer, "\x01\x02\x03", 3);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    close(peer);

    open_tcp(f, 2, sm_addr_v4(10, 9, 8, 7), 80); /* refused: nobody's bytes */
    bytes(f, 2, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->core.held_now, 0);

    open_tcp(f, 3, loopback, f->port);
    bytes(f, 3, "GET / HTTP/1.1\r\nHost: x", 23);
    tell(f, &eof);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    g_autofree char *line = audit_line(f, "egress_deny", 0);
    assert_non_null(strstr(line, "truncated_head"));
    assert_int_equal(f->core.held_now, 0);
}

/* More of them than a front may hold: refused, with a line, and nothing is kept; nor of a guest that goes while it waits. */
static void test_bytes_before_upstream_are_bounded(void **state)
{
    struct fixture *f = *state;
    static const uint8_t block[SM_FLOW_DATA_MAX];

    open_tcp(f, 1, loopback, f->port);
    for (size_t sent = 0; sent <= SM_FLOW_HELD_MAX; sent += sizeof(block))
        bytes(f, 1, block, sizeof(block));
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    g_autofree char *line = audit_line(f, "egress_deny", 0);
    assert_non_null(strstr(line, "head_too_large"));
    assert_int_equal(f->core.held_now, 0);

    open_tcp(f, 2, loopback, f->port);
    bytes(f, 2, block, sizeof(block));
    gone(f, 2, SM_WHY_GUEST_RST);
    assert_true(says_nothing(f));
    assert_int_equal(f->core.held_now, 0);
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
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
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    assert_int_equal(write(f->attached, "x", 1), -1);
    expect(peer, "\x01\x02\x03", 3);
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
    gone(f, 1, SM_WHY_GUEST_RST);
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
    char got[16];
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    turn_until_readable(f, f->front);
    gone(f, 1, SM_WHY_GUEST_RST);
    for (int i = 0; i < 5; i++)
        sm_loop_turn(f->core.loop, 10);
    assert_false(f->core.stopping);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(write(f->attached, "x", 1), -1); /* it is sealed all the same */
    sm_fd_close(&f->attached);
    assert_true(says_nothing(f));
    assert_false(f->core.stopping);
    assert_int_equal(f->core.attach_inflight, 0);
    expect(peer, "\x01\x02\x03", 3);
    assert_true(recv(peer, got, sizeof(got), 0) <= 0);
    close(peer);
}

/* What went upstream is counted, also when the guest is gone before the flow is handed over. */
static void test_judged_bytes_are_counted(void **state)
{
    struct fixture *f = *state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "hi", 2);
    turn_until_readable(f, peer);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_true(says_nothing(f));
    assert_true(audit_has(f, "egress_close"));
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"bytes_up\":2"));
    close(peer);
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

/* The guest resets when its first bytes are upstream and the flow is not handed over: they must not look complete. */
static void test_reset_behind_first_bytes(void **state)
{
    struct fixture *f = *state;
    char got[16];

    f->core.attach_inflight = SM_FLOW_ATTACH_MAX;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, "\x01\x02\x03", 3);
    assert_true(says_nothing(f));
    expect(peer, "\x01\x02\x03", 3);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_true(says_nothing(f));
    assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
    assert_int_equal(errno, ECONNRESET);
    g_autofree char *line = audit_line(f, "egress_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"guest_reset\""));
    assert_non_null(strstr(line, "\"bytes_up\":3"));
    f->core.attach_inflight = 0;
    close(peer);
}

/* More than the socket takes at once, and more behind it: what the core writes is what it says of it, and the rest is
 * the front's. */
static void test_first_bytes_that_do_not_fit(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[SM_FLOW_DATA_MAX];
    static uint8_t got[2 * sizeof(block)];
    int small = 4096;
    size_t len = 0;

    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)(i * 7 + 1) | 0x80;
    assert_int_equal(setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    assert_int_equal(setsockopt(core_end(peer), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    bytes(f, 1, block, sizeof(block));
    bytes(f, 1, "behind", 6);
    struct sm_flow_msg eof = {.type = SM_FLOW_EOF, .id = 1};
    tell(f, &eof);
    assert_true(says_nothing(f)); /* nobody reads */
    assert_true(audit_has(f, "egress_allow"));
    while (len < sizeof(block)) {
        ssize_t n = recv_turning(f, peer, got + len, sizeof(got) - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, sizeof(block));
    assert_int_equal(len, sizeof(block));
    assert_memory_equal(got, block, len);
    assert_int_equal(write(f->attached, "behind", 6), 6);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 6);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 0);
    g_autofree char *line = audit_line(f, "egress_close", 0);
    g_autofree char *want = g_strdup_printf("\"bytes_up\":%zu,\"bytes_down\":0", sizeof(block) + 6);
    assert_non_null(strstr(line, want));
    close(peer);
}

/* The server resets, or speaks and resets, while the decision's line waits: it is recorded as what it was. */
static void test_server_resets_behind_the_decision(void **state)
{
    struct fixture *f = *state;
    struct linger now = {.l_onoff = 1};

    for (uint64_t id = 1; id <= 2; id++) {
        open_tcp(f, id, loopback, f->port);
        assert_int_equal(hear(f), SM_FLOW_ACCEPT);
        int peer = server_accept(f);
        struct sm_flow_msg m = {.type = SM_FLOW_BYTES, .id = id, .data = (const uint8_t *)"\x01\x02", .data_len = 2};
        sm_core_message(&m, NULL, 0, &f->core); /* decided; its effect waits */
        if (id == 2)
            assert_int_equal(send(peer, "hi", 2, 0), 2);
        assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
        close(peer);
        assert_int_equal(hear(f), SM_FLOW_ABORT);
        assert_true(says_nothing(f));
        assert_int_equal(g_hash_table_size(f->core.sessions), 0);
        g_autofree char *line = audit_line(f, "egress_close", (unsigned)id - 1);
        assert_non_null(strstr(line, "\"reason\":\"upstream_reset\""));
        assert_non_null(strstr(line, "\"bytes_up\":0"));
    }
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
    struct pollfd p = {.fd = f->listener, .events = POLLIN};

    harness_disk(true);
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(poll(&p, 1, 0), 0);
    harness_disk(false);
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
    gone(f, 1, SM_WHY_CLOSED);
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

/* The timer of a second runs while something waits for it, and not else. */
static void test_idle_core_sleeps(void **state)
{
    struct fixture *f = *state;
    sm_loop_disarm(f->core.loop, &f->core.second);
    assert_true(says_nothing(f));
    assert_false(sm_timer_armed(&f->core.second));
    open_tcp(f, 1, sm_addr_v4(10, 0, 0, 5), 80); /* denied: the next ones of a second are counted */
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_true(says_nothing(f));
    assert_true(sm_timer_armed(&f->core.second));
    int64_t due = f->core.second.due_us;
    assert_true(due <= sm_loop_now(f->core.loop) + 1000000);
    open_tcp(f, 2, sm_addr_v4(10, 0, 0, 5), 80);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    sm_loop_disarm(f->core.loop, &f->core.second);
    sm_core_every_second(&f->core.second, due);
    assert_true(says_nothing(f));
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"count\":1"));
    assert_true(sm_timer_armed(&f->core.second)); /* the pair may come again within the second */
    sm_loop_disarm(f->core.loop, &f->core.second);
    sm_core_every_second(&f->core.second, due + 2000000);
    assert_true(says_nothing(f));
    assert_false(sm_timer_armed(&f->core.second));
}

/* No descriptor of the reserve is for a flow, whatever kind it is: what has none ends, and nothing begins before it
 * did. */
static void test_no_descriptor_left(void **state)
{
    struct fixture *f = *state;
    int lowest = dup(0), pair[2];
    struct sm_flow_msg udp = {.type = SM_FLOW_OPEN,
                              .id = 4,
                              .proto = SM_FLOW_UDP,
                              .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                              .dst = {loopback, f->port}};

    (void)close(lowest);
    f->core.fd_max = lowest + 1;
    assert_int_equal(sm_session_pair(&f->core, SOCK_STREAM, pair), -1);
    assert_int_equal(errno, EMFILE);
    open_tcp(f, 1, loopback, f->port); /* the one that there is */
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    int again = dup(0);
    assert_true(again > lowest); /* what was made for the second is closed */
    (void)close(again);
    open_tcp(f, 3, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    tell(f, &udp);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 1, .why = SM_WHY_CLOSED};
    tell(f, &gone);
    open_tcp(f, 5, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
}

/* A question over UDP, of a name that is one letter and a domain. */
static void ask(struct fixture *f, const char *domain)
{
    uint8_t query[64] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01"
                        "a";
    size_t len = 14, n = strlen(domain);

    memcpy(query + len, domain, n + 1);
    memcpy(query + len + n + 1, "\x00\x01\x00\x01", 4);
    struct sm_flow_msg m = {.type = SM_FLOW_DATAGRAM,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .dst = {sm_addr_v4(10, 0, 2, 3), 53},
                            .data = query,
                            .data_len = len + n + 5};
    tell(f, &m);
}

/* A name can carry data out: of what could not be recorded no question leaves, and no answer either. */
static void test_unwritable_log_lets_no_question_out(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    uint8_t got[512];
    sm_autofd server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&in, &len), 0);
    struct sm_endpoint at = {loopback, ntohs(in.sin_port)};
    assert_true(sm_resolver_set_servers(f->core.resolver, &at, 1, NULL));

    harness_disk(true);
    ask(f, "\x06listed\x04test");
    ask(f, "\x04"
           "evil\x04test");
    assert_true(says_nothing(f));
    assert_int_equal(recv(server, got, sizeof(got), 0), -1);
    harness_disk(false);
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    ask(f, "\x06listed\x04test");
    assert_true(recv_turning(f, server, got, sizeof(got)) > 0);
    assert_true(audit_has(f, "egress_dns_query"));
    ask(f, "\x04"
           "evil\x04test");
    assert_int_equal(hear(f), SM_FLOW_DATAGRAM);
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

/* A packet of the channel with so many questions about names that are not listed, and as many about one that is. */
static void ask_in_numbers(struct fixture *f, unsigned n_denied, unsigned n_listed)
{
    static unsigned names; /* a new one each time: what is repeated is counted */
    char denied[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04"
                    "evil\x04test\x00\x00\x01\x00\x01";
    static const char listed[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01"
                                 "a\x06listed\x04test\x00\x00\x01\x00\x01";
    uint8_t packet[SM_FLOW_MSG_MAX] = {SM_FLOW_PACKET_MANY};
    size_t len = 1;

    for (unsigned i = 0; i < n_denied + n_listed; i++) {
        bool good = i >= n_denied;
        denied[13] = (char)('a' + names / 26);
        denied[14] = (char)('a' + names++ % 26);
        struct sm_flow_msg m = {.type = SM_FLOW_DATAGRAM,
                                .src = {f->core.config->guest, (uint16_t)(1000 + i)},
                                .dst = {sm_addr_v4(10, 0, 2, 3), 53},
                                .data = (const uint8_t *)(good ? listed : denied),
                                .data_len = good ? sizeof(listed) - 1 : sizeof(denied) - 1};
        size_t n = sm_flow_encode(&m, packet + len + 2, sizeof(packet) - len - 2);
        assert_true(n > 0);
        packet[len] = (uint8_t)(n >> 8);
        packet[len + 1] = (uint8_t)n;
        len += 2 + n;
    }
    assert_int_equal(send(f->front, packet, len, 0), len);
}

static unsigned lines_of(const struct fixture *f, const char *event)
{
    unsigned n = 0;
    for (;; n++) {
        g_autofree char *line = audit_line(f, event, n);
        if (!line)
            return n;
    }
}

/* Questions that come together are answered and sent on together, behind their lines; and where these cannot be written, neither. */
static void test_dns_in_numbers(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int silent = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pollfd asked = {.fd = silent, .events = POLLIN};
    assert_int_equal(bind(silent, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(silent, (struct sockaddr *)&in, &len), 0);
    struct sm_endpoint server = {loopback, ntohs(in.sin_port)};
    assert_true(sm_resolver_set_servers(f->core.resolver, &server, 1, NULL));

    ask_in_numbers(f, 40, 0);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(hear(f), SM_FLOW_DATAGRAM);
        assert_int_equal(f->last.src.port, 1000 + i);
        assert_int_equal(f->last.data[3] & 15, 5); /* REFUSED */
        assert_int_equal(lines_of(f, "egress_dns_deny"), 40);
    }
    assert_true(says_nothing(f));

    harness_disk(true);
    ask_in_numbers(f, 20, 20);
    assert_true(says_nothing(f));
    ask_in_numbers(f, 0, 20); /* it is known now: a refusal may go out without its line, for it opens nothing */
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(hear(f), SM_FLOW_DATAGRAM);
        assert_int_equal(f->last.data[3] & 15, 5);
    }
    assert_true(says_nothing(f));
    assert_int_equal(poll(&asked, 1, 0), 0);
    harness_disk(false);
    assert_int_equal(lines_of(f, "egress_dns_deny"), 40);
    assert_int_equal(lines_of(f, "egress_dns_query"), 0);
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    assert_true(says_nothing(f)); /* what was not written is not said later either */
    assert_int_equal(poll(&asked, 1, 0), 0);

    ask_in_numbers(f, 1, 2);
    assert_int_equal(hear(f), SM_FLOW_DATAGRAM);
    assert_int_equal(lines_of(f, "egress_dns_deny"), 41);
    assert_int_equal(lines_of(f, "egress_dns_query"), 2);
    assert_int_equal(poll(&asked, 1, 1000), 1);
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
    gone(f, 1, SM_WHY_CLOSED);
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
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    assert_int_equal(f->core.held_now, 0);
}

/* --- many ends at once */

static unsigned lines_of(const struct fixture *f, const char *event);

/* A log that may be small takes few lines in one write. */
static void use_small_log(struct fixture *f)
{
    struct sm_audit_options options = {.workspace = "test", .max_bytes = SM_AUDIT_MAX_BYTES_MIN};
    g_autofree char *path = g_build_filename(f->dir, "egress.jsonl", NULL);

    sm_audit_writer_free(f->core.audit);
    f->core.audit = sm_audit_writer_new(open(path, O_RDWR | O_APPEND | O_CLOEXEC), &options, sm_clock_wall_us(), NULL);
    assert_non_null(f->core.audit);
}

/* Flows that have been let through, with nothing behind them. */
static void make_flows(struct fixture *f, unsigned n)
{
    for (uint64_t id = 1; id <= n; id++) {
        struct sm_flow_msg m = {
            .id = id, .proto = SM_FLOW_TCP, .src = {sm_addr_v4(10, 0, 2, 15), 40000}, .dst = {loopback, f->port}};
        struct sm_session *s = sm_session_new(&f->core, &m);
        s->state = SM_SESSION_ATTACHED;
        s->allowed = true;
    }
}

static void test_ends_of_one_packet(void **state)
{
    struct fixture *f = *state;
    enum { N = SM_FLOW_PACKET_MAX };

    use_small_log(f);
    make_flows(f, N);
    for (uint64_t id = 1; id <= N; id++) {
        struct sm_flow_msg m = {.type = SM_FLOW_GONE, .id = id, .why = SM_WHY_CLOSED};
        sm_core_message(&m, NULL, 0, &f->core);
    }
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    assert_int_equal(sm_audit_lost(f->core.audit), 0);
    assert_int_equal(lines_of(f, "egress_close"), N);
}

static void test_stop_with_many_flows(void **state)
{
    struct fixture *f = *state;

    make_flows(f, SM_CORE_SESSIONS_MAX);
    sm_core_stop(&f->core, "test_end", 0);
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    assert_int_equal(sm_audit_lost(f->core.audit), 0);
}

/* --- caps */

static int setup_total(void **state)
{
    *state = fixture_new_capped("guarded", "\"127.0.0.1\"", (struct sm_caps_limits){.total = 1000});
    return 0;
}

static int setup_large_total(void **state)
{
    *state = fixture_new_capped("guarded", "\"127.0.0.1\"", (struct sm_caps_limits){.total = 1000000000});
    return 0;
}

static int setup_two_conns(void **state)
{
    *state = fixture_new_capped("guarded", "\"127.0.0.1\"", (struct sm_caps_limits){.conns = 2});
    return 0;
}

static bool is_pair(int fd)
{
    int domain = -1;
    socklen_t len = sizeof(domain);
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

/* A flow that the server begins; returns the server's end. */
static int server_first(struct fixture *f, uint64_t id)
{
    open_tcp(f, id, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    assert_int_equal(send(peer, "hi", 2, 0), 2);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    return peer;
}

/* While the log cannot be written what must not be forgotten waits for the next try, and the core with it. */
static void test_core_sleeps_while_the_log_is_full(void **state)
{
    struct fixture *f = *state;

    int peer = server_first(f, 1);
    harness_disk(true);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    while (sm_timer_armed(&f->core.lines))
        sm_loop_turn(f->core.loop, 100);
    assert_false(sm_audit_healthy(f->core.audit));
    assert_int_equal(sm_audit_pending(f->core.audit), 1);
    assert_false(sm_core_turn_end(&f->core)); /* nothing that another turn could do */
    assert_false(sm_timer_armed(&f->core.lines));
    harness_disk(false);
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    assert_true(audit_has(f, "egress_close"));
    close(peer);
}

/* A flow that is over has given back what it held before another asks for it, in whatever turn that is. */
static void test_descriptor_of_a_flow_that_is_over(void **state)
{
    struct fixture *f = *state;
    int lowest = dup(0);

    (void)close(lowest);
    f->core.fd_max = lowest + 1;
    int peer = server_first(f, 1);
    assert_int_equal(f->core.fd_sessions, 0);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    assert_int_equal(f->core.fd_sessions, 0);
    close(peer);
}

static void test_total(void **state)
{
    struct fixture *f = *state;
    char got[2000], much[2000] = "";

    int peer = server_first(f, 1);
    assert_true(is_pair(f->attached)); /* what must be counted is not handed over */
    assert_int_equal(f->last.consumed, 0);
    assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), 2);
    assert_int_equal(write(f->attached, much, 997), 997);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 997);
    assert_true(says_nothing(f));
    assert_false(audit_has(f, "egress_cap_exceeded"));

    /* One byte is left, and two come: one goes on, the flow ends. */
    assert_int_equal(send(peer, "ab", 2, 0), 2);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), 1);
    assert_int_equal(got[0], 'a');
    assert_int_equal(recv(f->attached, got, sizeof(got), MSG_DONTWAIT), -1); /* no end that could be taken for a FIN */
    assert_int_equal(errno, EAGAIN);
    sm_fd_close(&f->attached);
    assert_true(says_nothing(f));
    g_autofree char *text = audit_text(f);
    const char *cap = strstr(text, "\"event\":\"egress_cap_exceeded\""),
               *over = strstr(text, "\"event\":\"egress_close\"");
    assert_true(cap && over && cap < over);
    assert_non_null(strstr(cap, "\"cap\":\"max_total_bytes\",\"limit\":1000,\"total\":1000"));
    assert_non_null(strstr(over, "\"reason\":\"max_total_bytes\""));
    assert_non_null(strstr(over, "\"bytes_up\":997,\"bytes_down\":3"));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
    assert_int_equal(errno, ECONNRESET);
    close(peer);

    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->last.how, SM_HOW_RST);
    assert_int_equal(f->last.hold_ms, 0);
    g_autofree char *after = audit_text(f);
    assert_non_null(strstr(after, "\"event\":\"egress_deny\""));
    assert_null(strstr(after + strlen(text), "egress_dial"));
}

/* The front closes its end of a pair, and its word that it was a reset comes a moment later: no FIN is made of it. */
static void test_reset_of_a_relayed_flow_is_no_fin(void **state)
{
    struct fixture *f = *state;
    char got[16];

    int peer = server_first(f, 1);
    assert_true(is_pair(f->attached));
    assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), 2);
    assert_int_equal(write(f->attached, "part", 4), 4);
    sm_fd_close(&f->attached);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 4);
    assert_true(says_nothing(f));
    assert_int_equal(recv(peer, got, sizeof(got), MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "egress_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"guest_reset\""));
    close(peer);
}

/* In order: the end goes on with the word, or without it when it does not come. */
static void test_end_of_a_relayed_flow(void **state)
{
    struct fixture *f = *state;
    char got[16];

    for (uint64_t id = 1; id <= 2; id++) {
        int peer = server_first(f, id);
        assert_int_equal(recv_turning(f, f->attached, got, sizeof(got)), 2);
        assert_int_equal(write(f->attached, "all", 3), 3);
        sm_fd_close(&f->attached);
        if (id == 1)
            gone(f, id, SM_WHY_CLOSED);
        assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 3);
        assert_int_equal(recv_turning(f, peer, got, sizeof(got)), 0);
        close(peer);
    }
}

static void test_connections_are_given_back(void **state)
{
    struct fixture *f = *state;

    int one = server_first(f, 1);
    assert_false(is_pair(f->attached)); /* no byte is counted: nothing to be relayed for */
    int two = server_first(f, 2);
    open_tcp(f, 3, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_true(says_nothing(f));
    int three = server_first(f, 4);
    /* What policy denies, or fails at once, keeps no place. */
    open_tcp(f, 5, sm_addr_v4(10, 0, 0, 5), 80);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"reason\":\"max_conns\""));
    assert_non_null(strstr(text, "egress_internal_deny"));
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    assert_true(says_nothing(f));
    g_autofree char *later = audit_text(f);
    assert_non_null(strstr(later, "\"cap\":\"max_conns\",\"limit\":2,\"count\":1"));
    close(one);
    close(two);
    close(three);
}

/* What cannot be counted is not begun; what has begun goes on. */
static void test_unwritable_counters_stop_admission(void **state)
{
    struct fixture *f = *state;
    enum { MUCH = 300000 };
    g_autofree char *much = g_malloc0(MUCH);
    g_autofree char *path = g_build_filename(f->dir, "counters.json", NULL);
    g_autoptr(GError) error = NULL;
    struct sm_counters c;
    size_t len;

    sm_limits_free(&f->core);
    sm_udp_free(&f->core);
    int good = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), used = dup(good);
    assert_true(sm_limits_init(&f->core, used, &error));
    int peer = server_first(f, 1);
    int bad = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(dup2(bad, used) == used);
    assert_int_equal(send(peer, much, MUCH, 0), MUCH);
    for (ssize_t left = MUCH + 2; left > 0;)
        left -= recv_turning(f, f->attached, much, MUCH);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    g_autofree char *text = audit_text(f);
    assert_non_null(strstr(text, "\"reason\":\"counters_unwritable\""));
    assert_int_equal(send(peer, "on", 2, 0), 2);
    assert_int_equal(recv_turning(f, f->attached, much, MUCH), 2);

    assert_true(dup2(good, used) == used);
    int64_t until = sm_clock_us() + 5000000;
    do { /* the next try is a second after the last */
        sm_loop_turn(f->core.loop, 100);
        sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
        g_autofree char *now = sm_fd_read_all(good, SM_COUNTERS_FILE, &len, NULL);
        assert_true(sm_counters_decode(now, len, &c, NULL));
    } while (c.bytes[SM_CAPS_DOWN] != MUCH + 4 && sm_clock_us() < until);
    assert_int_equal(c.bytes[SM_CAPS_DOWN], MUCH + 4);
    close(peer);
    peer = server_first(f, 3);
    close(peer);
    close(bad);
    close(good);
    unlink(path);
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
        T(test_bytes_before_upstream, setup_ip_rule),
        T(test_bytes_before_upstream_are_bounded, setup_ip_rule),
        T(test_front_that_keeps_the_socket, setup_ip_rule),
        T(test_front_that_keeps_a_reset_socket, setup_ip_rule),
        T(test_reset_crosses_attach, setup_ip_rule),
        T(test_judged_bytes_are_counted, setup_ip_rule),
        T(test_reset_while_attach_waits, setup_ip_rule),
        T(test_reset_behind_first_bytes, setup_ip_rule),
        T(test_first_bytes_that_do_not_fit, setup_ip_rule),
        T(test_server_resets_behind_the_decision, setup_ip_rule),
        T(test_inside_is_refused_at_once, setup_guarded),
        T(test_strict_dials_nothing_for_a_forged_name, setup_strict),
        T(test_strict_resolves_a_listed_name_itself, setup_strict),
        T(test_unwritable_log_stops_admission, setup_ip_rule),
        T(test_nonsense_from_the_front, setup_ip_rule),
        T(test_too_many_flows, setup_ip_rule),
        T(test_no_descriptor_left, setup_ip_rule),
        T(test_ends_of_one_packet, setup_ip_rule),
        T(test_stop_with_many_flows, setup_ip_rule),
        T(test_descriptor_of_a_flow_that_is_over, setup_ip_rule),
        T(test_core_sleeps_while_the_log_is_full, setup_ip_rule),
        T(test_idle_core_sleeps, setup_ip_rule),
        T(test_unwritable_log_lets_no_question_out, setup_strict_suffix),
        T(test_dns_connection_that_is_dropped, setup_strict_suffix),
        T(test_dns_in_numbers, setup_strict_suffix),
        T(test_too_many_dns_connections, setup_guarded),
        T(test_held_bytes_of_all_flows, setup_strict),
        T(test_total, setup_total),
        T(test_reset_of_a_relayed_flow_is_no_fin, setup_large_total),
        T(test_end_of_a_relayed_flow, setup_large_total),
        T(test_connections_are_given_back, setup_two_conns),
        T(test_unwritable_counters_stop_admission, setup_large_total),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
