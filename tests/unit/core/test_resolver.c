/* SPDX-License-Identifier: BSD-3-Clause */
/* The resolver against servers on loopback (upstream.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <seccomp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/resolver.h"
#include "upstream.h"

static struct sm_loop *loop;
static struct upstream *one, *two;
static struct sm_resolver *res;

/* What came back for one request. */
struct got {
    unsigned calls;
    enum sm_resolver_status status;
    enum sm_dns_rcode rcode;
    unsigned n_addrs, n_final, chain_len;
    uint8_t last_byte;
    uint32_t ttl;
};

static void on_done(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp)
{
    struct got *got = data;

    got->calls++;
    got->status = status;
    assert_int_equal(status == SM_RESOLVER_OK, resp != NULL);
    if (!resp)
        return;
    got->rcode = resp->rcode;
    got->n_addrs = resp->n_addrs;
    got->n_final = resp->n_final;
    got->chain_len = resp->chain_len;
    got->ttl = resp->min_ttl;
    if (resp->n_addrs > 0)
        got->last_byte = resp->addrs[0].bytes[3];
}

static int set_up(void **state)
{
    struct sm_endpoint server;
    (void)state;
    loop = sm_loop_new(NULL);
    one = upstream_new(loop, 1);
    two = upstream_new(loop, 2);
    server = upstream_endpoint(one);
    res = sm_resolver_new(loop, &server, 1, NULL);
    return res ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sm_resolver_free(res);
    upstream_free(one);
    upstream_free(two);
    sm_loop_free(loop);
    return 0;
}

static void turn_until(const unsigned *calls, unsigned want)
{
    int64_t end = sm_clock_us() + 20 * 1000000;
    while (*calls < want) {
        assert_true(sm_clock_us() < end);
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    }
}

static struct got ask(const char *name, uint16_t type)
{
    struct got got = {0};
    struct sm_dns_query q = {.id = 1, .rd = true, .has_question = true, .qtype = type, .qclass = 1};

    assert_true(sm_dns_name_from_text(name, &q.qname));
    assert_non_null(sm_resolver_query(res, &q, (struct sm_resolver_done){.fn = on_done, .data = &got}));
    assert_int_equal(got.calls, 0); /* never from inside */
    turn_until(&got.calls, 1);
    assert_int_equal(sm_resolver_inflight(res), 0);
    return got;
}

static void test_answers(void **state)
{
    struct got got = ask("ok.test", SM_DNS_A);
    const uint8_t *last;
    size_t len;

    (void)state;
    assert_int_equal(got.status, SM_RESOLVER_OK);
    assert_int_equal(got.n_addrs, 1);
    assert_int_equal(got.last_byte, 1);
    assert_int_equal(got.ttl, 120);
    last = upstream_last(one, &len);
    assert_int_equal(len, 12 + 9 + 4 + 11);
    assert_int_equal(last[2] << 8 | last[3], 0x0100);

    got = ask("chain.test", SM_DNS_A);
    assert_int_equal(got.n_addrs, 1);
    assert_int_equal(got.chain_len, 1);
    assert_int_equal(got.ttl, 30);
    got = ask("nx.test", SM_DNS_A);
    assert_int_equal(got.status, SM_RESOLVER_OK);
    assert_int_equal(got.rcode, SM_DNS_NXDOMAIN);
    assert_int_equal(upstream_tcp(one), 0);
    assert_int_equal(upstream_udp(one), 3);
}

static void test_lookup(void **state)
{
    struct got got = {0};

    (void)state;
    assert_null(sm_resolver_lookup(res, "no name", (struct sm_resolver_done){.fn = on_done, .data = &got}));
    assert_null(sm_resolver_lookup(res, "", (struct sm_resolver_done){.fn = on_done, .data = &got}));
    assert_non_null(sm_resolver_lookup(res, "chain.test", (struct sm_resolver_done){.fn = on_done, .data = &got}));
    turn_until(&got.calls, 1);
    assert_int_equal(got.n_addrs, 1);
}

static void test_truncated_goes_over_tcp(void **state)
{
    struct got got = ask("big.test", SM_DNS_TXT);

    (void)state;
    assert_int_equal(got.status, SM_RESOLVER_OK);
    assert_int_equal(got.n_final, 40);
    assert_int_equal(upstream_udp(one), 1);
    assert_int_equal(upstream_tcp(one), 1);
    /* What fits in what we offer needs no TCP. */
    got = ask("middle.test", SM_DNS_TXT);
    assert_int_equal(got.n_final, 9);
    assert_int_equal(upstream_tcp(one), 1);
}

static void test_server_without_edns(void **state)
{
    (void)state;
    /* The first time c-ares notices, later we do. */
    for (unsigned i = 0; i < 3; i++) {
        struct got got = ask("formerr.test", SM_DNS_A);
        assert_int_equal(got.status, SM_RESOLVER_OK);
        assert_int_equal(got.rcode, SM_DNS_NOERROR);
        assert_int_equal(got.n_addrs, 1);
        assert_int_equal(upstream_udp(one), 2 * (i + 1));
    }
    /* Others go on with EDNS, at worst over TCP. */
    struct got got = ask("middle.test", SM_DNS_TXT);
    assert_int_equal(got.n_final, 9);
}

static void test_failures(void **state)
{
    struct got got = ask("servfail.test", SM_DNS_A);

    (void)state;
    assert_int_equal(got.status, SM_RESOLVER_SERVFAIL);
    got = ask("refused.test", SM_DNS_A);
    assert_int_equal(got.status, SM_RESOLVER_REFUSED);
    got = ask("broken.test", SM_DNS_A);
    assert_int_equal(got.status, SM_RESOLVER_BAD);

    /* Nothing listens there: ICMP says so at once. */
    struct upstream *gone = upstream_new(loop, 3);
    struct sm_endpoint server = upstream_endpoint(gone);
    upstream_free(gone);
    assert_true(sm_resolver_set_servers(res, &server, 1, NULL));
    int64_t before = sm_clock_us();
    got = ask("ok.test", SM_DNS_A);
    assert_int_equal(got.status, SM_RESOLVER_UNREACHABLE);
    assert_true(sm_clock_us() - before < 1000000);
}

/* Fail-over to the second server at once when the first refuses, and forged answers that are never taken. Both wait for
 * the same time-outs. */
static void test_fail_over_and_time_outs(void **state)
{
    static const char *const names[] = {"silent.test", "wrongid.test", "other.test"};
    struct got got[SM_ARRAY_LEN(names)] = {0};
    unsigned calls = 0;

    (void)state;
    struct sm_endpoint servers[2] = {upstream_endpoint(one), upstream_endpoint(two)};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        assert_non_null(sm_resolver_lookup(res, names[i], (struct sm_resolver_done){.fn = on_done, .data = &got[i]}));
    int64_t before = sm_clock_us();
    while (calls < SM_ARRAY_LEN(names)) {
        assert_true(sm_clock_us() - before < 20 * 1000000);
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
        calls = 0;
        for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
            calls += got[i].calls;
    }
    /* 2 s and then 4 s, and no later than a tick behind. */
    assert_in_range((unsigned long)(sm_clock_us() - before), 5900000, 7500000);
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        assert_int_equal(got[i].calls, 1);
        assert_int_equal(got[i].status, SM_RESOLVER_TIMEOUT);
    }

    assert_true(sm_resolver_set_servers(res, servers, 2, NULL));
    unsigned had = upstream_udp(two);
    struct got refused = ask("refused.test", SM_DNS_A);
    assert_int_equal(refused.status, SM_RESOLVER_REFUSED);
    assert_true(upstream_udp(two) > had);
}

static void test_many_at_once_and_cancel(void **state)
{
    static struct got got[SM_RESOLVER_INFLIGHT_MAX + 1];
    static struct sm_resolver_req *reqs[SM_RESOLVER_INFLIGHT_MAX + 1];
    unsigned done = 0;

    (void)state;
    memset(got, 0, sizeof(got));
    for (unsigned i = 0; i < SM_RESOLVER_INFLIGHT_MAX; i++) {
        char name[32];
        snprintf(name, sizeof(name), "hold.n%u.test", i);
        reqs[i] = sm_resolver_lookup(res, name, (struct sm_resolver_done){.fn = on_done, .data = &got[i]});
        assert_non_null(reqs[i]);
        /* Let the server read: its socket buffer is smaller than all of them. */
        if (i % 64 == 63)
            sm_loop_turn(loop, 0);
    }
    assert_null(sm_resolver_lookup(res, "ok.test",
                                   (struct sm_resolver_done){.fn = on_done, .data = &got[SM_RESOLVER_INFLIGHT_MAX]}));
    assert_int_equal(sm_resolver_inflight(res), SM_RESOLVER_INFLIGHT_MAX);
    for (unsigned i = 0; i < SM_RESOLVER_INFLIGHT_MAX; i += 2)
        sm_resolver_cancel(reqs[i]);
    while (sm_resolver_inflight(res) > 0) {
        upstream_release(one);
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    }
    for (unsigned i = 0; i < SM_RESOLVER_INFLIGHT_MAX; i++) {
        assert_int_equal(got[i].calls, i % 2);
        if (i % 2)
            assert_int_equal(got[i].status, SM_RESOLVER_OK);
        done += got[i].calls;
    }
    assert_int_equal(done, SM_RESOLVER_INFLIGHT_MAX / 2);
}

/* New servers while queries wait: they are asked again, of the new one, and answered once. One of them was over TCP. */
static void test_change_of_servers(void **state)
{
    struct got got[3] = {0};
    struct sm_endpoint server = upstream_endpoint(two);
    GError *error = NULL;

    (void)state;
    struct sm_resolver_req *cancelled;
    assert_non_null(sm_resolver_lookup(res, "hold.test", (struct sm_resolver_done){.fn = on_done, .data = &got[0]}));
    assert_non_null(sm_resolver_lookup(res, "big.test", (struct sm_resolver_done){.fn = on_done, .data = &got[1]}));
    cancelled = sm_resolver_lookup(res, "hold.gone.test", (struct sm_resolver_done){.fn = on_done, .data = &got[2]});
    while (upstream_udp(one) < 3)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    sm_resolver_cancel(cancelled);
    assert_false(sm_resolver_set_servers(res, &server, 0, &error));
    assert_non_null(error);
    g_clear_error(&error);
    assert_true(sm_resolver_set_servers(res, &server, 1, NULL));
    while (upstream_udp(two) < 1 || upstream_release(two) == 0)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    turn_until(&got[0].calls, 1);
    turn_until(&got[1].calls, 1);
    assert_int_equal(got[0].status, SM_RESOLVER_OK);
    assert_int_equal(got[0].last_byte, 2);
    assert_int_equal(got[1].status, SM_RESOLVER_OK);
    assert_int_equal(got[2].calls, 0);
    assert_int_equal(sm_resolver_inflight(res), 0);
}

/* Freed with queries in flight: nobody is called (the sanitizers watch the rest). */
static void test_free_in_flight(void **state)
{
    struct got got = {0};

    (void)state;
    assert_non_null(sm_resolver_lookup(res, "hold.test", (struct sm_resolver_done){.fn = on_done, .data = &got}));
    assert_non_null(sm_resolver_lookup(res, "ok.test", (struct sm_resolver_done){.fn = on_done, .data = &got}));
    sm_resolver_free(sm_steal_ptr(&res));
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    assert_int_equal(got.calls, 0);
}

/* In the core's sandbox there is no file to open: once it is made, the resolver does without, time-outs, TCP and new
 * servers included. */
static void test_opens_nothing_once_made(void **state)
{
    static const int forbidden[] = {
        SCMP_SYS(open),       SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(stat),
        SCMP_SYS(newfstatat), SCMP_SYS(access), SCMP_SYS(fcntl),   SCMP_SYS(readlink),
        SCMP_SYS(faccessat2), SCMP_SYS(ioctl),  SCMP_SYS(uname),   SCMP_SYS(sendto),
        SCMP_SYS(bind),       SCMP_SYS(writev), SCMP_SYS(execve),  SCMP_SYS(getsockopt),
    };
    struct sm_endpoint server = upstream_endpoint(two);
    int status;

    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        if (!filter)
            _exit(2);
        for (size_t i = 0; i < SM_ARRAY_LEN(forbidden); i++)
            if (seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, forbidden[i], 0) != 0)
                _exit(3);
        if (seccomp_load(filter) != 0)
            _exit(4);
        if (ask("ok.test", SM_DNS_A).status != SM_RESOLVER_OK || ask("big.test", SM_DNS_TXT).n_final != 40 ||
            ask("servfail.test", SM_DNS_A).status != SM_RESOLVER_SERVFAIL)
            _exit(5);
        if (!sm_resolver_set_servers(res, &server, 1, NULL) || ask("ok.test", SM_DNS_A).last_byte != 2)
            _exit(6);
        sm_resolver_free(res);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_resolv_conf(void **state)
{
    static const char text[] = "# nameserver 192.0.2.9\n"
                               "nameserver 192.0.2.1\n"
                               "nameserver\t2001:db8::1   # second\r\n"
                               "nameserver fe80::1%eth0\n"
                               "nameserver 127.1\n"
                               "nameserverx 192.0.2.2\n"
                               " nameserver 192.0.2.3\n"
                               "search ok.test\noptions ndots:5\n"
                               "nameserver\n"
                               "nameserver 127.0.0.53";
    struct sm_endpoint servers[8];
    char out[SM_ENDPOINT_STRLEN];

    (void)state;
    assert_int_equal(sm_resolv_conf_parse(text, sizeof(text) - 1, servers, 8), 3);
    assert_string_equal(sm_endpoint_format(&servers[0], out), "192.0.2.1:53");
    assert_string_equal(sm_endpoint_format(&servers[1], out), "[2001:db8::1]:53");
    assert_string_equal(sm_endpoint_format(&servers[2], out), "127.0.0.53:53");
    assert_int_equal(sm_resolv_conf_parse(text, sizeof(text) - 1, servers, 1), 1);
    assert_int_equal(sm_resolv_conf_parse("", 0, servers, 8), 0);
    for (size_t len = 0; len < sizeof(text); len++) {
        g_autofree char *copy = g_memdup2(text, len ? len : 1);
        (void)sm_resolv_conf_parse(copy, len, servers, 8);
    }
}

static void test_bad_servers(void **state)
{
    struct sm_endpoint servers[SM_RESOLVER_SERVERS_MAX + 1] = {0};
    GError *error = NULL;

    (void)state;
    assert_null(sm_resolver_new(loop, servers, 0, &error));
    assert_non_null(strstr(error->message, "--dns"));
    g_clear_error(&error);
    assert_null(sm_resolver_new(loop, servers, 1, &error));
    g_clear_error(&error);
    assert_null(sm_resolver_new(loop, servers, SM_ARRAY_LEN(servers), &error));
    g_clear_error(&error);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_answers),
        T(test_lookup),
        T(test_truncated_goes_over_tcp),
        T(test_server_without_edns),
        T(test_failures),
        T(test_many_at_once_and_cancel),
        T(test_change_of_servers),
        T(test_free_in_flight),
        T(test_opens_nothing_once_made),
        T(test_bad_servers),
        cmocka_unit_test(test_resolv_conf),
        T(test_fail_over_and_time_outs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
