/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions that a proxy front opens by name: resolved, judged and dialled by the core before the client hears of it,
 * and held to that name by what the client says then.
 */
#include "fixture.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/rw.h"
#include "upstream.h"

struct world {
    struct fixture *f;
    struct upstream *dns;
};

static struct world *world_new(const char *mode, const char *allow, const char *routes, struct sm_caps_limits caps)
{
    struct world *w = g_new0(struct world, 1);

    w->f = fixture_new_proxy(mode, allow, routes, caps);
    w->dns = upstream_new(w->f->core.loop, 0);
    struct sm_endpoint server = upstream_endpoint(w->dns);
    assert_true(sm_resolver_set_servers(w->f->core.resolver, &server, 1, NULL));
    return w;
}

static int setup_guarded(void **state)
{
    *state = world_new("guarded", "", "", (struct sm_caps_limits){0});
    return 0;
}

static int setup_ip_rule(void **state)
{
    *state = world_new("guarded", "\"127.0.0.1\"", "", (struct sm_caps_limits){0});
    return 0;
}

static int setup_strict(void **state)
{
    *state = world_new("strict", "\"listed.test\", \"127.0.0.1\"", "", (struct sm_caps_limits){0});
    return 0;
}

static int setup_off(void **state)
{
    *state = world_new("off", "", "\"search=http://127.0.0.1:9\"", (struct sm_caps_limits){0});
    return 0;
}

static int setup_one_flow(void **state)
{
    *state = world_new("guarded", "\"127.0.0.1\"", "", (struct sm_caps_limits){.conns = 1});
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    for (GHashTableIter it;;) {
        void *s;
        g_hash_table_iter_init(&it, w->f->core.sessions);
        if (!g_hash_table_iter_next(&it, NULL, &s))
            break;
        sm_session_close(s, "test_end");
    }
    upstream_free(w->dns);
    fixture_free(w->f);
    g_free(w);
    return 0;
}

static void add_route(struct world *w, const char *text)
{
    assert_true(sm_routes_add(&w->f->core.config->routes, text, NULL));
}

static void expect_refusal(struct fixture *f, enum sm_reason reason)
{
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    if (f->last.reason != reason)
        fail_msg("%s, not %s", sm_reason_name((enum sm_reason)f->last.reason), sm_reason_name(reason));
    assert_int_equal(f->last.hold_ms, 0); /* a front has nothing to repeat it for */
    assert_int_equal(g_hash_table_size(f->core.sessions), 0);
}

static void expect_in_line(struct fixture *f, const char *event, const char *what)
{
    g_autofree char *line = audit_line(f, event, 0);
    if (!line || !strstr(line, what))
        fail_msg("%s: no %s", line ? line : event, what);
}

/* A hello of TLS 1.2 with one suite and a name, as short as they come. */
static size_t hello(const char *name, uint8_t out[256])
{
    struct sm_wr w = sm_wr_init(out, 256);
    uint16_t n = (uint16_t)strlen(name);

    sm_wr_bytes(&w, "\x16\x03\x01", 3);
    sm_wr_u16(&w, (uint16_t)(4 + 34 + 1 + 4 + 2 + 2 + 4 + 5 + n));
    sm_wr_bytes(&w, "\x01\x00", 2);
    sm_wr_u16(&w, (uint16_t)(34 + 1 + 4 + 2 + 2 + 4 + 5 + n));
    sm_wr_bytes(&w, "\x03\x03", 2);
    for (int i = 0; i < 32; i++)
        sm_wr_u8(&w, 7);
    sm_wr_bytes(&w, "\x00\x00\x02\xc0\x2b\x01\x00", 7);
    sm_wr_u16(&w, (uint16_t)(4 + 5 + n));
    sm_wr_u16(&w, 0);
    sm_wr_u16(&w, (uint16_t)(5 + n));
    sm_wr_u16(&w, (uint16_t)(3 + n));
    sm_wr_u8(&w, 0);
    sm_wr_u16(&w, n);
    sm_wr_bytes(&w, name, n);
    assert_false(w.bad);
    return w.len;
}

static void the_dialled_address_is_judged(void **state)
{
    struct world *w = *state;

    open_name(w->f, 1, "rebind.test", w->f->port); /* its address is 127.0.0.1 */
    expect_refusal(w->f, SM_REASON_LOOPBACK);
    expect_in_line(w->f, "egress_internal_deny", "\"dst\":\"127.0.0.1\"");
    expect_in_line(w->f, "egress_internal_deny", "\"host\":\"rebind.test\",\"name_source\":\"connect\"");
    assert_true(audit_has(w->f, "egress_dns_query"));
    assert_false(audit_has(w->f, "egress_dial"));
}

static void what_is_no_name_is_refused(void **state)
{
    static const struct {
        const char *name;
        enum sm_reason reason;
    } rows[] = {
        {"2130706433", SM_REASON_BAD_NAME},      {"0x7f000001", SM_REASON_BAD_NAME},
        {"0177.0.0.1", SM_REASON_BAD_NAME},      {"127.1", SM_REASON_BAD_NAME},
        {"0x7f.1", SM_REASON_BAD_NAME},          {"a..test", SM_REASON_BAD_NAME},
        {"a b.test", SM_REASON_BAD_NAME},        {"127.0.0.1", SM_REASON_LOOPBACK},
        {"169.254.169.254", SM_REASON_METADATA}, {"10.0.0.5", SM_REASON_INSIDE},
        {"172.20.0.9", SM_REASON_INSIDE},        {"::1", SM_REASON_IPV6},
        {"::ffff:10.0.0.5", SM_REASON_IPV6},
    };
    struct world *w = *state;

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        open_name(w->f, i + 1, rows[i].name, 80);
        expect_refusal(w->f, rows[i].reason);
    }
    assert_int_equal(upstream_udp(w->dns), 0);
}

static void an_unlisted_name_is_not_asked_for(void **state)
{
    struct world *w = *state;

    open_name(w->f, 1, "other.test", 443);
    expect_refusal(w->f, SM_REASON_UNLISTED_NAME);
    expect_in_line(w->f, "egress_deny", "\"name_source\":\"connect\"");
    assert_int_equal(upstream_udp(w->dns), 0);
    open_name(w->f, 2, "203.0.113.9", 443);
    expect_refusal(w->f, SM_REASON_NO_NAME);
}

static int opened(struct world *w, uint64_t id, const char *name)
{
    open_name(w->f, id, name, w->f->port);
    assert_int_equal(hear(w->f), SM_FLOW_ACCEPT);
    return server_accept(w->f);
}

static void a_request_for_the_name_goes_through(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    char head[128], got[1024] = "";
    int peer = opened(w, 1, "Listed.test.");

    expect_in_line(f, "egress_dial", "\"host\":\"listed.test\",\"name_source\":\"connect\"");
    g_snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: listed.test:%u\r\n\r\n", (unsigned)f->port);
    bytes(f, 1, head, strlen(head));
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    expect_in_line(f, "egress_allow", "\"name_source\":\"connect\"");
    assert_true(write(f->attached, head, strlen(head)) > 0);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), (int)strlen(head));

    /* Another authority on the same connection is misdirected, and does not leave. */
    static const char other[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(send(peer, other, sizeof(other) - 1, 0), sizeof(other) - 1);
    assert_true(recv_turning(f, f->attached, got, sizeof(got)) > 0);
    static const char second[] = "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n";
    assert_true(write(f->attached, second, sizeof(second) - 1) > 0);
    memset(got, 0, sizeof(got));
    assert_true(recv_turning(f, f->attached, got, sizeof(got) - 1) > 0);
    assert_memory_equal(got, "HTTP/1.1 421", 12);
    close(peer);
}

static void another_host_is_misdirected(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    char got[1024] = "";
    static const char head[] = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";
    int peer = opened(w, 1, "listed.test");

    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_true(write(f->attached, head, sizeof(head) - 1) > 0);
    assert_true(recv_turning(f, f->attached, got, sizeof(got) - 1) > 0);
    assert_memory_equal(got, "HTTP/1.1 421", 12);
    expect_in_line(f, "egress_deny", "\"reason\":\"authority_mismatch\"");
    assert_false(audit_has(f, "egress_http_request"));
    close(peer);
}

static void another_sni_ends_the_flow(void **state)
{
    struct world *w = *state;
    uint8_t text[256];
    int peer = opened(w, 1, "listed.test");

    bytes(w->f, 1, text, hello("other.test", text));
    assert_int_equal(hear(w->f), SM_FLOW_ABORT);
    expect_in_line(w->f, "egress_deny", "\"reason\":\"name_mismatch\"");
    assert_false(audit_has(w->f, "egress_allow"));
    close(peer);
}

static void its_own_sni_is_secured(void **state)
{
    struct world *w = *state;
    uint8_t text[256];
    int peer = opened(w, 1, "listed.test");

    bytes(w->f, 1, text, hello("listed.test", text));
    assert_int_equal(hear(w->f), SM_FLOW_ABORT); /* this core has no CA: it gets as far as that */
    expect_in_line(w->f, "egress_deny", "\"reason\":\"interception_unavailable\"");
    close(peer);
}

static void what_cannot_be_dialled_is_told_apart(void **state)
{
    struct world *w = *state;

    open_name(w->f, 1, "nx.test", 80);
    expect_refusal(w->f, SM_REASON_UNRESOLVED);
    assert_true(audit_has(w->f, "egress_dns_error"));
    sm_fd_close(&w->f->listener);
    open_name(w->f, 2, "gone.test", w->f->port);
    expect_refusal(w->f, SM_REASON_NONE);
    assert_int_equal(w->f->last.how, SM_HOW_RST);
    expect_in_line(w->f, "egress_dial_error", "\"reason\":\"unresolved\"");
}

static void an_address_that_was_named_is_an_address(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    static const char head[] = "GET / HTTP/1.1\r\nHost: any.test\r\n\r\n";
    int peer = opened(w, 1, "127.0.0.1");

    expect_in_line(f, "egress_dial", "\"name_source\":\"connect\",\"rule\":\"127.0.0.1\"");
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    expect_in_line(f, "egress_allow", "\"host\":\"any.test\",\"name_source\":\"host\"");
    close(peer);
}

static void a_cap_is_told_apart(void **state)
{
    struct world *w = *state;
    int peer = opened(w, 1, "one.test");

    open_name(w->f, 2, "two.test", w->f->port);
    assert_int_equal(hear(w->f), SM_FLOW_REFUSE);
    assert_int_equal(w->f->last.reason, SM_REASON_LIMIT);
    expect_in_line(w->f, "egress_deny", "\"reason\":\"max_conns\"");
    close(peer);
}

static void a_route_leads_to_its_upstream(void **state)
{
    struct world *w = *state;
    struct fixture *f = w->f;
    char got[256];
    static const char head[] = "GET /?q=x HTTP/1.1\r\nHost: search\r\nConnection: close\r\n\r\n";
    g_autofree char *route = g_strdup_printf("search=http://127.0.0.1:%u", (unsigned)f->port);

    add_route(w, route);
    open_name(f, 1, "search", 80);
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    int peer = server_accept(f);
    expect_in_line(f, "egress_dial", "\"rule\":\"route search\",\"reason\":\"route\",\"unlisted\":false");
    expect_in_line(f, "egress_dial", "\"port\":80,\"host\":\"search\"");
    bytes(f, 1, head, sizeof(head) - 1);
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_true(write(f->attached, head, sizeof(head) - 1) > 0);
    assert_int_equal(recv_turning(f, peer, got, sizeof(got)), sizeof(head) - 1);
    assert_memory_equal(got, head, sizeof(head) - 1);
    assert_true(audit_has(f, "egress_http_request"));
    assert_int_equal(upstream_udp(w->dns), 0);
    close(peer);
    open_name(f, 2, "search", 81); /* another port has no route */
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->last.reason, SM_REASON_LOOPBACK);
}

static void a_route_to_a_name_pins_nothing(void **state)
{
    struct world *w = *state;
    g_autofree char *route = g_strdup_printf("search=http://upstream.test:%u", (unsigned)w->f->port);

    add_route(w, route);
    open_name(w->f, 1, "search", 80);
    assert_int_equal(hear(w->f), SM_FLOW_ACCEPT);
    assert_null(sm_pins_find(w->f->core.pins, "search", &loopback, sm_loop_now(w->f->core.loop)));
    assert_null(sm_pins_find(w->f->core.pins, "upstream.test", &loopback, sm_loop_now(w->f->core.loop)));
}

static void no_route_leads_to_ourselves(void **state)
{
    struct world *w = *state;
    const struct sm_endpoint own = {.addr = loopback, .port = w->f->port};
    g_autofree char *route = g_strdup_printf("search=http://127.0.0.1:%u", (unsigned)w->f->port);

    assert_true(sm_ground_set_listeners(w->f->core.config->ground, &own, 1));
    add_route(w, route);
    open_name(w->f, 1, "search", 80);
    expect_refusal(w->f, SM_REASON_LISTENER);
    assert_true(audit_has(w->f, "egress_loop_guard"));
    open_name(w->f, 2, "self.test", w->f->port);
    expect_refusal(w->f, SM_REASON_LISTENER);
}

static void strangers_get_no_session(void **state)
{
    struct world *w = *state;
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = 1,
                            .proto = SM_FLOW_TCP,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .name = "listed.test",
                            .name_len = 11,
                            .dst = {.port = 443}};
    tell(w->f, &m);
    expect_refusal(w->f, SM_REASON_LIMIT);
    open_tcp(w->f, 2, sm_addr_v4(203, 0, 113, 1), 443); /* by address, of no client */
    expect_refusal(w->f, SM_REASON_LIMIT);
    m = (struct sm_flow_msg){
        .type = SM_FLOW_OTHER, .other = SM_OTHER_CLIENT, .dst = {sm_addr_v4(10, 9, 8, 7), 0}, .count = 3};
    tell(w->f, &m);
    assert_true(says_nothing(w->f));
    expect_in_line(w->f, "egress_other_deny", "\"src\":\"10.9.8.7\",\"reason\":\"proxy_client\"");
}

static void off_keeps_to_itself_too(void **state)
{
    struct world *w = *state;

    open_name(w->f, 1, "name.test", w->f->port);
    expect_refusal(w->f, SM_REASON_LOOPBACK);
    open_name(w->f, 2, "search", 80); /* a route's upstream was dialled: nobody listens there */
    expect_refusal(w->f, SM_REASON_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_dialled_address_is_judged, setup_guarded, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_name_is_refused, setup_guarded, teardown),
        cmocka_unit_test_setup_teardown(an_unlisted_name_is_not_asked_for, setup_strict, teardown),
        cmocka_unit_test_setup_teardown(a_request_for_the_name_goes_through, setup_strict, teardown),
        cmocka_unit_test_setup_teardown(another_host_is_misdirected, setup_strict, teardown),
        cmocka_unit_test_setup_teardown(another_sni_ends_the_flow, setup_strict, teardown),
        cmocka_unit_test_setup_teardown(its_own_sni_is_secured, setup_strict, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_dialled_is_told_apart, setup_ip_rule, teardown),
        cmocka_unit_test_setup_teardown(an_address_that_was_named_is_an_address, setup_ip_rule, teardown),
        cmocka_unit_test_setup_teardown(a_cap_is_told_apart, setup_one_flow, teardown),
        cmocka_unit_test_setup_teardown(a_route_leads_to_its_upstream, setup_guarded, teardown),
        cmocka_unit_test_setup_teardown(a_route_to_a_name_pins_nothing, setup_guarded, teardown),
        cmocka_unit_test_setup_teardown(no_route_leads_to_ourselves, setup_ip_rule, teardown),
        cmocka_unit_test_setup_teardown(strangers_get_no_session, setup_ip_rule, teardown),
        cmocka_unit_test_setup_teardown(off_keeps_to_itself_too, setup_off, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
