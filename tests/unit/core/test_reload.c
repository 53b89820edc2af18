/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New lists while flows are in every state: which go on, which end and how the guest and the server are told, and what the record says; with a
 * front and a supervisor that this test plays, and real sockets on loopback.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/link.h"
#include "fixture.h"

#define RULE "\"127.0.0.1\""
#define LISTS(allow, passthrough) "{\"allow\":[" allow "],\"passthrough\":[" passthrough "],\"deny\":[]}"

static int link_end; /* the supervisor's */

static struct fixture *begin(const char *mode, const char *allow)
{
    struct fixture *f = fixture_new(mode, allow);
    int pair[2];

    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    f->core.link.fd = pair[0];
    link_end = pair[1];
    return f;
}

static void end(struct fixture *f)
{
    int fd = f->core.link.fd;

    fixture_free(f);
    close(fd);
    close(link_end);
}

/* The answer to new lists: "" when they are in force, otherwise why not. */
static const char *load_fd(struct fixture *f, int fd)
{
    static struct sm_link_msg m;

    sm_reload_take(&f->core, fd);
    assert_int_equal(sm_link_recv(link_end, &m), 1);
    assert_int_equal(m.verb, SM_LINK_POLICY);
    assert_int_equal(m.fd, -1);
    return m.text;
}

static const char *load(struct fixture *f, const char *lists)
{
    sm_autofd fd = sm_fd_memfd("lists", lists, strlen(lists), NULL);
    return load_fd(f, fd);
}

static void expect_last(struct fixture *f, enum sm_flow_type first, enum sm_flow_type second)
{
    assert_int_equal(hear(f), first);
    assert_int_equal(hear(f), second);
    assert_true(says_nothing(f));
}

static unsigned count(struct fixture *f, const char *event)
{
    unsigned n = 0;

    for (;;) {
        g_autofree char *line = audit_line(f, event, n);
        if (!line)
            return n;
        n++;
    }
}

/* A flow that was handed over: the server has spoken first. */
static int attached(struct fixture *f, uint64_t id)
{
    open_tcp(f, id, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    assert_int_equal(send(peer, "220 hello\r\n", 11, 0), 11);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    sm_loop_turn(f->core.loop, 50); /* ATTACHED */
    return peer;
}

static void test_lines_and_lists(void **state)
{
    struct fixture *f = begin("strict", "\"one.test\"");
    int peer;

    (void)state;
    assert_string_equal(
        load(f, "{\"allow\":[\"127.0.0.1\",\"two.test\"],\"passthrough\":[\".three.test\"],\"deny\":[\"no.test\"]}"),
        "");
    g_autofree char *line = audit_line(f, "egress_policy", 0);
    assert_non_null(strstr(line, "\"allow\":2,\"passthrough\":1,\"deny\":1,\"reason\":\"reload\""));
    assert_int_equal(hear(f), SM_FLOW_RELEASE); /* what the front refuses by itself is asked about again */
    peer = attached(f, 1);
    close(peer);
    end(f);
}

/** The flow is cut on both sides, whatever the front does with its end; one line says so. */
static void test_attached_flow_ends(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    int peer = attached(f, 1);
    char buf[64];

    (void)state;
    assert_string_equal(load(f, LISTS("\"other.test\"", "")), "");
    expect_last(f, SM_FLOW_ABORT, SM_FLOW_RELEASE);
    assert_int_equal(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), -1); /* nothing that would look like an end in order */
    assert_int_equal(errno, EAGAIN);
    sm_fd_close(&f->attached); /* the front closes first */
    gone(f, 1, SM_WHY_UPSTREAM_RST);
    assert_int_equal(recv_turning(f, peer, buf, sizeof(buf)), -1);
    assert_int_equal(errno, ECONNRESET);
    g_autofree char *line = audit_line(f, "egress_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"policy_changed\""));
    assert_non_null(strstr(line, "\"bytes_down\":11"));
    assert_int_equal(count(f, "egress_close"), 1);
    assert_int_equal(count(f, "egress_internal_deny"), 0);
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    open_tcp(f, 2, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    close(peer);
    end(f);
}

/** A front that does not let go is cut off. */
static void test_front_keeps_it(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    int peer = attached(f, 1);
    char buf[64];

    (void)state;
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_string_equal(load(f, LISTS("", "")), ""); /* once more, in between: it is ending already */
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    ssize_t n = recv_turning(f, peer, buf, sizeof(buf));
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    assert_int_equal(send(f->attached, "x", 1, MSG_NOSIGNAL), -1);
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "egress_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"policy_changed\""));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    close(peer);
    end(f);
}

static void test_what_is_still_allowed_goes_on(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    int peer = attached(f, 1);
    char buf[8];

    (void)state;
    assert_string_equal(load(f, LISTS("\"127.0.0.0/24\"", "")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_true(says_nothing(f));
    assert_int_equal(write(f->attached, "hi", 2), 2);
    assert_int_equal(recv(peer, buf, 2, MSG_WAITALL), 2);
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    close(peer);
    end(f);
}

/** Decided, recorded, and not carried out yet: the dial of before the reload does not happen behind it. */
static void test_before_the_dial(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = 1,
                            .proto = SM_FLOW_TCP,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .dst = {loopback, f->port}};
    struct pollfd p = {.fd = f->listener, .events = POLLIN};

    (void)state;
    sm_core_message(&m, NULL, 0, &f->core);
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_true(says_nothing(f));
    assert_int_equal(poll(&p, 1, 50), 0);
    g_autofree char *line = audit_line(f, "egress_internal_deny", 0);
    assert_non_null(strstr(line, "\"reason\":\"policy_changed\""));
    assert_int_equal(count(f, "egress_dial"), count(f, "egress_close")); /* what began has an end */
    end(f);
}

/** Connected, and the guest has not said anything. */
static void test_held(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    char c;

    (void)state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_true(recv_turning(f, peer, &c, 1) <= 0);
    assert_int_equal(count(f, "egress_internal_deny"), 1);
    assert_int_equal(count(f, "egress_close"), 1);
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    close(peer);
    end(f);
}

/** Cleartext HTTP on its way through a bridge. */
static void test_mediated(void **state)
{
    static const char head[] = "GET / HTTP/1.1\r\nHost: name.test\r\n\r\n";
    struct fixture *f = begin("guarded", RULE);
    char buf[256];

    (void)state;
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(write(f->attached, head, sizeof(head) - 1), sizeof(head) - 1);
    assert_true(recv_turning(f, peer, buf, sizeof(buf)) > 0);
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_int_equal(recv_turning(f, peer, buf, sizeof(buf)), -1);
    assert_int_equal(errno, ECONNRESET);
    sm_fd_close(&f->attached);
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "egress_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"policy_changed\""));
    assert_int_equal(count(f, "egress_http_response"), 1); /* the request that was open has its end */
    close(peer);
    end(f);
}

/** Passthrough is a grant too: a flow that was left alone and would be looked into now does not go on unseen. */
static void test_passthrough_is_taken_away(void **state)
{
    static const char head[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    struct fixture *f = begin("guarded", "");

    (void)state;
    assert_string_equal(load(f, LISTS("", RULE)), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.consumed, sizeof(head) - 1); /* the upstream socket itself */
    int opaque = attached(f, 2);                          /* nobody would look into this one */
    assert_string_equal(load(f, LISTS(RULE, "")), "");
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_int_equal(f->last.id, 1);
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 2); /* its GONE has not come */
    gone(f, 1, SM_WHY_UPSTREAM_RST);
    assert_true(says_nothing(f));
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    close(peer);
    close(opaque);
    end(f);
}

/** The guest's name is being looked up when its listing goes. */
static void test_while_resolving(void **state)
{
    static const char head[] = "GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n";
    struct fixture *f = begin("guarded", "");
    char got[512] = "";

    (void)state;
    assert_string_equal(load(f, LISTS(RULE, "\"listed.test\"")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    open_tcp(f, 1, loopback, f->port);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    bytes(f, 1, head, sizeof(head) - 1);
    uint64_t id = 1;
    const struct sm_session *s = g_hash_table_lookup(f->core.sessions, &id);
    for (int i = 0; i < 50 && s->state != SM_SESSION_RESOLVING; i++)
        (void)sm_loop_turn(f->core.loop, 0);
    assert_int_equal(s->state, SM_SESSION_RESOLVING);
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_int_equal(hear(f), SM_FLOW_ATTACH); /* it spoke HTTP: a page tells it */
    assert_true(recv_turning(f, f->attached, got, sizeof(got) - 1) > 0);
    assert_non_null(strstr(got, "403"));
    assert_non_null(strstr(got, "policy_changed"));
    close(peer);
    end(f);
}

/** Strict, nothing dialled, waiting for a name: whatever it will say is judged by the new lists. */
static void test_waiting_for_a_name(void **state)
{
    static const struct sm_addr away = {.family = SM_FAMILY_V4, .bytes = {203, 0, 113, 77}};
    static const char head[] = "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n";
    struct fixture *f = begin("strict", "\"one.test\"");
    char got[512] = "";

    (void)state;
    open_tcp(f, 1, away, 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    assert_string_equal(load(f, LISTS("\"two.test\"", "")), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_true(says_nothing(f));
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_true(recv_turning(f, f->attached, got, sizeof(got) - 1) > 0);
    assert_non_null(strstr(got, "unlisted_name"));
    end(f);
}

static void test_udp(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = 1,
                            .proto = SM_FLOW_UDP,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .dst = {loopback, f->port}};

    (void)state;
    tell(f, &m);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_string_equal(load(f, LISTS("", "")), "");
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->last.how, SM_HOW_ICMP_ADMIN);
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "egress_udp_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"policy_changed\""));
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    end(f);
}

/** Lists that are wrong change nothing, and say where they are wrong. */
static void test_wrong_lists(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "lists"},
        {"[]", "lists"},
        {"{\"allow\":[],\"passthrough\":[]}", "deny"},
        {"{\"allow\":[],\"passthrough\":[],\"deny\":[],\"more\":[]}", "more"},
        {"{\"allow\":[],\"allow\":[],\"passthrough\":[],\"deny\":[]}", "allow"},
        {"{\"allow\":{},\"passthrough\":[],\"deny\":[]}", "\"allow\" must be an array"},
        {"{\"allow\":[1],\"passthrough\":[],\"deny\":[]}", "\"allow\" must be an array of strings"},
        {"{\"allow\":[],\"passthrough\":[\".com\"],\"deny\":[]}", "passthrough[0]"},
        {"{\"allow\":[\"a.test\",\"\"],\"passthrough\":[],\"deny\":[]}", "allow[1]"},
    };
    struct fixture *f = begin("guarded", RULE);
    int peer = attached(f, 1);

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        const char *why = load(f, cases[i].text);
        if (!strstr(why, cases[i].why))
            fail_msg("case %zu: '%s' lacks '%s'", i, why, cases[i].why);
    }
    assert_string_not_equal(load_fd(f, -1), ""); /* no descriptor at all */
    assert_true(says_nothing(f));
    assert_false(audit_has(f, "egress_policy"));
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    close(peer);
    end(f);
}

/** What cannot be recorded is not done: the lists of before stay in force. */
static void test_not_recorded(void **state)
{
    struct fixture *f = begin("guarded", RULE);
    int peer = attached(f, 1);
    static const char lists[] = LISTS("", "");
    sm_autofd fd = sm_fd_memfd("lists", lists, strlen(lists), NULL);

    (void)state;
    harness_disk(true);
    const char *why = load_fd(f, fd);
    harness_disk(false);
    assert_non_null(strstr(why, "cannot be recorded"));
    assert_true(says_nothing(f));
    assert_false(audit_has(f, "egress_policy"));
    assert_int_equal(g_hash_table_size(f->core.sessions), 1);
    assert_int_equal(sm_lists_count(f->core.config->lists, SM_LIST_ALLOW), 1);
    close(peer);
    end(f);
}

static void test_off(void **state)
{
    struct fixture *f = begin("off", "");

    (void)state;
    assert_non_null(strstr(load(f, LISTS("", "")), "--egress off"));
    end(f);
}

/** Clients of published ports are none of the lists' business. */
static void test_ingress_goes_on(void **state)
{
    struct fixture *f = begin("guarded", "");
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    static struct sm_link_msg m;

    (void)state;
    assert_int_equal(connect(client, (struct sockaddr *)&to, sizeof(to)), 0);
    int fd = server_accept(f);
    sm_ingress_take(&f->core, "80", &fd);
    assert_int_equal(hear(f), SM_FLOW_INBOUND);
    assert_int_equal(sm_link_recv(link_end, &m), 1);
    assert_string_equal(load(f, "{\"allow\":[],\"passthrough\":[],\"deny\":[\"127.0.0.1\",\"10.0.2.15\"]}"), "");
    assert_int_equal(hear(f), SM_FLOW_RELEASE);
    assert_true(says_nothing(f));
    assert_int_equal(sm_ingress_count(&f->core), 1);
    close(client);
    end(f);
}

/** Thousands of flows end in one reload, each with its line. */
static void test_many(void **state)
{
    enum { N = 3000 };
    struct fixture *f = begin("strict", "\"a.test\"");
    static const struct sm_addr away = {.family = SM_FAMILY_V4, .bytes = {203, 0, 113, 77}};
    struct sm_flow_msg m = {
        .type = SM_FLOW_OPEN, .proto = SM_FLOW_TCP, .src = {sm_addr_v4(10, 0, 2, 15), 40000}, .dst = {away, 80}};
    unsigned types[SM_FLOW_TYPES] = {0};

    (void)state;
    f->core.sessions_max = N;
    for (m.id = 1; m.id <= N; m.id++) {
        m.src.port = (uint16_t)(1024 + m.id);
        sm_core_message(&m, NULL, 0, &f->core);
    }
    /* Held for a name; then the address itself is denied. */
    (void)sm_core_turn_end(&f->core);
    assert_string_equal(load(f, "{\"allow\":[],\"passthrough\":[],\"deny\":[\"203.0.113.77\"]}"), "");
    for (int i = 0; i < 3; i++)
        (void)sm_loop_turn(f->core.loop, 0);
    for (int quiet = 0; quiet < 20;) {
        if (!heard(f)) {
            (void)sm_loop_turn(f->core.loop, 5);
            quiet++;
        } else {
            types[f->last.type]++;
            quiet = 0; /* the channel's queue comes in pieces */
        }
    }
    assert_int_equal(types[SM_FLOW_ACCEPT], N);
    assert_int_equal(types[SM_FLOW_ABORT], N);
    assert_int_equal(types[SM_FLOW_RELEASE], 1);
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
    assert_int_equal(f->core.n_denied, N);
    end(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_and_lists),
        cmocka_unit_test(test_attached_flow_ends),
        cmocka_unit_test(test_front_keeps_it),
        cmocka_unit_test(test_what_is_still_allowed_goes_on),
        cmocka_unit_test(test_before_the_dial),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_mediated),
        cmocka_unit_test(test_passthrough_is_taken_away),
        cmocka_unit_test(test_while_resolving),
        cmocka_unit_test(test_waiting_for_a_name),
        cmocka_unit_test(test_udp),
        cmocka_unit_test(test_wrong_lists),
        cmocka_unit_test(test_not_recorded),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_ingress_goes_on),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
