/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The DNS service between a guest's bytes and a server on loopback. The caller's side is played here: what it was told,
 * in which order, is a string of letters: F forward, A answer, D deny, E error, L limited, P pin, R reply.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "core/dnsserve.h"
#include "upstream.h"

static struct sm_loop *loop;
static struct upstream *server;
static struct sm_resolver *res;
static struct sm_dnsserve *serve;

static char told[4096];
static bool record_fails, commit_fails;
static bool forget_in_reply;
static struct sm_dnsserve_event last; /* strings are copied below */
static char last_qname[SM_DNS_NAME_TEXT_MAX], last_reason[64], last_rule[64], last_cname[SM_DNS_NAME_TEXT_MAX];
static struct sm_addr last_addr;
static char pin_name[SM_DNS_NAME_TEXT_MAX];
static struct sm_addr pin_addr;
static uint32_t pin_ttl;
static uint8_t reply[SM_DNS_MESSAGE_MAX];
static size_t reply_len;
static uint64_t reply_key;
static unsigned replies;
static uint64_t limited_total;

static void tell(char c)
{
    size_t n = strlen(told);
    assert_true(n + 1 < sizeof(told));
    told[n] = c;
    told[n + 1] = '\0';
}

static void judge(void *data, const char *qname, uint16_t qtype, struct sm_dnsserve_judgement *ret)
{
    (void)data;
    (void)qtype;
    assert_int_equal(ret->verdict, SM_DNSSERVE_REFUSE);
    if (g_str_has_suffix(qname, "nodata.test")) {
        ret->verdict = SM_DNSSERVE_NODATA;
        ret->reason = "said_nodata";
    } else if (g_str_has_suffix(qname, "evil.test")) {
        ret->reason = "unlisted";
    } else {
        ret->verdict = SM_DNSSERVE_ALLOW;
        ret->rule = "rule .test";
        ret->no_h3 = !g_str_has_prefix(qname, "https.pass");
    }
}

static bool event(void *data, const struct sm_dnsserve_event *ev)
{
    (void)data;
    tell("FADEL"[ev->kind]);
    if (record_fails)
        return false;
    last = *ev;
    g_strlcpy(last_qname, ev->qname, sizeof(last_qname));
    g_strlcpy(last_reason, ev->reason ? ev->reason : "", sizeof(last_reason));
    g_strlcpy(last_rule, ev->rule ? ev->rule : "", sizeof(last_rule));
    g_strlcpy(last_cname, ev->cname ? ev->cname : "", sizeof(last_cname));
    if (ev->n_addrs > 0)
        last_addr = ev->addrs[0];
    if (ev->kind == SM_DNSSERVE_EVENT_LIMITED)
        limited_total += ev->count;
    else
        assert_int_equal(ev->count, 1);
    return true;
}

static void pin(void *data, const char *qname, const struct sm_addr *addrs, size_t n, uint32_t ttl)
{
    (void)data;
    tell('P');
    assert_int_equal(n, 1);
    g_strlcpy(pin_name, qname, sizeof(pin_name));
    pin_addr = addrs[0];
    pin_ttl = ttl;
}

static void on_reply(void *data, const struct sm_dnsserve_client *client, const uint8_t *msg, size_t len)
{
    (void)data;
    tell('R');
    assert_true(len <= sizeof(reply));
    memcpy(reply, msg, len);
    reply_len = len;
    reply_key = client->key;
    replies++;
    if (forget_in_reply)
        sm_dnsserve_forget(serve, client->key);
}

static void nobody(void *data, enum sm_resolver_status status, const struct sm_dns_response *resp)
{
    (void)data;
    (void)status;
    (void)resp;
}

static const struct sm_dnsserve_ops ops = {.judge = judge, .event = event, .pin = pin, .reply = on_reply};

static bool turn_end(void *data)
{
    (void)data;
    if (serve)
        sm_dnsserve_send(serve, !commit_fails);
    return false;
}

static int set_up_with(uint32_t qps, uint32_t burst)
{
    loop = sm_loop_new(NULL);
    server = upstream_new(loop, 7);
    struct sm_endpoint endpoint = upstream_endpoint(server);
    res = sm_resolver_new(loop, &endpoint, 1, NULL);
    serve = sm_dnsserve_new(loop, res, qps, burst, &ops, NULL);
    sm_loop_set_turn_end(loop, turn_end, NULL);
    told[0] = '\0';
    record_fails = commit_fails = forget_in_reply = false;
    replies = 0;
    limited_total = 0;
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(0, 0);
}

static int set_up_budget(void **state)
{
    (void)state;
    return set_up_with(10, 20);
}

static int tear_down(void **state)
{
    (void)state;
    sm_dnsserve_free(serve);
    sm_resolver_free(res);
    upstream_free(server);
    sm_loop_free(loop);
    return 0;
}

static void send_raw(const uint8_t *msg, size_t len, enum sm_dnsserve_transport transport, uint64_t key, int64_t now_us)
{
    struct sm_dnsserve_client client = {.key = key, .transport = transport};
    uint8_t *exact = g_memdup2(msg, len ? len : 1);
    sm_dnsserve_query(serve, &client, exact, len, now_us);
    g_free(exact);
}

static size_t make_query(const char *name, uint16_t type, uint8_t out[512])
{
    struct sm_dns_query q = {.qtype = type, .dnssec_ok = false};
    assert_true(sm_dns_name_from_text(name, &q.qname));
    /* What we would ask ourselves is a good query of a guest too. */
    return sm_dns_query_build(&q, 0xabcd, out, 512);
}

static void send_query(const char *name, uint16_t type, enum sm_dnsserve_transport transport, uint64_t key)
{
    uint8_t msg[512];
    size_t len = make_query(name, type, msg);
    send_raw(msg, len, transport, key, sm_loop_now(loop));
}

static void turn_until(unsigned want)
{
    int64_t end = sm_clock_us() + 20 * 1000000;
    while (replies < want) {
        assert_true(sm_clock_us() < end);
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    }
}

static void ask(const char *name, uint16_t type, enum sm_dnsserve_transport transport)
{
    told[0] = '\0';
    unsigned want = replies + 1;
    send_query(name, type, transport, 42);
    turn_until(want);
    assert_int_equal(reply_key, 42);
    assert_int_equal(reply[0] << 8 | reply[1], 0xabcd);
    assert_int_equal(reply[2] & 0x84, 0x80);
    assert_int_equal(sm_dnsserve_inflight(serve), 0);
}

static unsigned rcode(void)
{
    return reply[3] & 15;
}

static unsigned answers(void)
{
    return (unsigned)(reply[6] << 8 | reply[7]);
}

static void test_allowed(void **state)
{
    (void)state;
    ask("Ok.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FAPR"); /* record, then pin, then reply */
    assert_int_equal(rcode(), SM_DNS_NOERROR);
    assert_int_equal(answers(), 1);
    assert_string_equal(pin_name, "Ok.test");
    assert_int_equal(pin_addr.bytes[3], 7);
    assert_int_equal(pin_ttl, 120);
    assert_string_equal(last_qname, "Ok.test");
    assert_string_equal(last_rule, "rule .test");
    assert_int_equal(last.qtype, SM_DNS_A);
    assert_int_equal(last.n_addrs, 1);
    assert_int_equal(last_addr.bytes[3], 7);
    assert_string_equal(last_cname, "");

    /* The pin is for the name that was asked, not for where the chain ends. */
    ask("chain.test", SM_DNS_A, SM_DNSSERVE_TCP);
    assert_string_equal(told, "FAPR");
    assert_string_equal(pin_name, "chain.test");
    assert_int_equal(pin_ttl, 30);
    assert_string_equal(last_cname, "cdn.test");
    assert_int_equal(answers(), 2);

    /* Types without addresses make no pins; ech is gone, and h3 unless the judge leaves it. */
    ask("https.test", SM_DNS_HTTPS, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FAR");
    assert_int_equal(answers(), 1);
    assert_null(memmem(reply, reply_len, "ECH", 3));
    assert_null(memmem(reply, reply_len, "\2h3", 3));
    assert_non_null(memmem(reply, reply_len, "\2h2", 3));
    ask("https.pass.test", SM_DNS_HTTPS, SM_DNSSERVE_TCP);
    assert_null(memmem(reply, reply_len, "ECH", 3));
    assert_non_null(memmem(reply, reply_len, "\2h3", 3));

    ask("nx.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FAR");
    assert_int_equal(rcode(), SM_DNS_NXDOMAIN);
    assert_int_equal(last.rcode, SM_DNS_NXDOMAIN);
}

static void test_answered_here(void **state)
{
    (void)state;
    ask("ok.test", SM_DNS_AAAA, SM_DNSSERVE_UDP);
    assert_string_equal(told, "AR");
    assert_int_equal(rcode(), SM_DNS_NOERROR);
    assert_int_equal(answers(), 0);
    assert_string_equal(last_reason, "ipv6");
    ask("a.evil.test", SM_DNS_AAAA, SM_DNSSERVE_UDP);
    assert_string_equal(told, "DR");
    assert_int_equal(rcode(), SM_DNS_REFUSED);
    ask("a.evil.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "DR");
    assert_int_equal(rcode(), SM_DNS_REFUSED);
    assert_string_equal(last_reason, "unlisted");
    ask("nodata.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "AR");
    assert_int_equal(answers(), 0);
    assert_string_equal(last_reason, "said_nodata");
    static const uint16_t meta[] = {128, 249, 250, SM_DNS_IXFR, SM_DNS_AXFR, 253, 254, SM_DNS_ANY};
    for (size_t i = 0; i < SM_ARRAY_LEN(meta); i++) {
        ask("ok.test", meta[i], i % 2 ? SM_DNSSERVE_UDP : SM_DNSSERVE_TCP);
        assert_string_equal(told, "DR");
        assert_int_equal(rcode(), SM_DNS_REFUSED);
        assert_string_equal(last_reason, "qtype");
    }
    assert_int_equal(upstream_udp(server) + upstream_tcp(server), 0);
}

/* A query leaves when its record is written, and not before; what could not be written does not happen. */
static void test_record_comes_first(void **state)
{
    (void)state;
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 1);
    send_query("chain.test", SM_DNS_A, SM_DNSSERVE_UDP, 2);
    assert_string_equal(told, "FF");
    assert_int_equal(sm_dnsserve_inflight(serve), 2);
    assert_int_equal(sm_resolver_inflight(res), 0);
    commit_fails = true;
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    assert_int_equal(sm_dnsserve_inflight(serve), 0);
    assert_int_equal(sm_resolver_inflight(res), 0);
    assert_string_equal(told, "FF");
    assert_int_equal(upstream_udp(server), 0);
    /* The one that is forgotten meanwhile is not sent, the others are, in their order. */
    commit_fails = false;
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_TCP, 3);
    send_query("chain.test", SM_DNS_A, SM_DNSSERVE_TCP, 4);
    send_query("nx.test", SM_DNS_A, SM_DNSSERVE_TCP, 3);
    sm_dnsserve_forget(serve, 3);
    assert_int_equal(sm_dnsserve_inflight(serve), 1);
    turn_until(1);
    assert_int_equal(reply_key, 4);
    assert_int_equal(upstream_udp(server), 1);
}

/* Others took the room between the record and the query: the guest is told, and the record too. */
static void test_room_is_gone(void **state)
{
    (void)state;
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 5);
    while (sm_resolver_lookup(res, "other.test", (struct sm_resolver_done){.fn = nobody}))
        continue;
    assert_int_equal(sm_resolver_inflight(res), SM_RESOLVER_INFLIGHT_MAX);
    sm_dnsserve_send(serve, true);
    assert_string_equal(told, "FER");
    assert_string_equal(last_reason, "busy");
    assert_string_equal(last_rule, "rule .test");
    assert_int_equal(rcode(), SM_DNS_SERVFAIL);
    assert_int_equal(sm_dnsserve_inflight(serve), 0);
    /* ... and what comes now is told at once. */
    told[0] = '\0';
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 6);
    assert_string_equal(told, "ER");
}

static void test_malformed(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *told;
        unsigned rcode;
        const char *reason;
    } cases[] = {
        {"", 0, "D", 0, "malformed"},
        {"\1\2\1\0\0\1\0\0\0\0\0", 11, "D", 0, "malformed"},
        {"\1\2\x81\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", 19, "D", 0, "malformed"},
        {"\1\2\1\0\0\2\0\0\0\0\0\0\1a\0\0\1\0\1", 19, "DR", SM_DNS_FORMERR, "malformed"},
        {"\1\2\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", 18, "DR", SM_DNS_FORMERR, "malformed"},
        {"\1\2\x29\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", 19, "DR", SM_DNS_NOTIMP, "opcode"},
        {"\1\2\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\3", 19, "DR", SM_DNS_REFUSED, "class"},
    };
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        told[0] = '\0';
        send_raw((const uint8_t *)cases[i].bytes, cases[i].len, SM_DNSSERVE_UDP, 1, sm_loop_now(loop));
        assert_string_equal(told, cases[i].told);
        assert_string_equal(last_reason, cases[i].reason);
        if (cases[i].told[1]) {
            assert_int_equal(reply[0] << 8 | reply[1], 0x0102);
            assert_int_equal(rcode(), cases[i].rcode);
        }
    }
    assert_int_equal(upstream_udp(server), 0);
}

static void test_errors(void **state)
{
    (void)state;
    ask("servfail.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FER");
    assert_int_equal(rcode(), SM_DNS_SERVFAIL);
    assert_string_equal(last_reason, "upstream_servfail");
    assert_string_equal(last_rule, "rule .test");
    ask("refused.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FER");
    assert_int_equal(rcode(), SM_DNS_SERVFAIL); /* REFUSED is always our own policy */
    assert_string_equal(last_reason, "upstream_refused");
    ask("broken.test", SM_DNS_A, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FER");
    assert_string_equal(last_reason, "upstream_bad_answer");
}

static void test_truncation(void **state)
{
    (void)state;
    ask("big.test", SM_DNS_TXT, SM_DNSSERVE_UDP);
    assert_string_equal(told, "FAR");
    assert_int_equal(reply[2] & 2, 2);
    assert_int_equal(answers(), 0);
    assert_string_equal(last_reason, "truncated");
    ask("big.test", SM_DNS_TXT, SM_DNSSERVE_TCP);
    assert_int_equal(reply[2] & 2, 0);
    assert_int_equal(answers(), 40);
    assert_true(reply_len > 4000);
}

/* What cannot be recorded does not happen. */
static void test_unrecorded(void **state)
{
    (void)state;
    record_fails = true;
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 1);
    send_query("a.evil.test", SM_DNS_A, SM_DNSSERVE_UDP, 1);
    send_query("ok.test", SM_DNS_AAAA, SM_DNSSERVE_UDP, 1);
    assert_string_equal(told, "FDA");
    assert_int_equal(sm_resolver_inflight(res), 0);
    /* Recorded when it left, not when it came back: no pin, no reply. */
    record_fails = false;
    told[0] = '\0';
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 1);
    record_fails = true;
    while (sm_dnsserve_inflight(serve) > 0)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    assert_string_equal(told, "FA");
    assert_int_equal(replies, 0);
}

static void test_forget(void **state)
{
    (void)state;
    send_query("hold.a.test", SM_DNS_A, SM_DNSSERVE_TCP, 1);
    send_query("hold.b.test", SM_DNS_A, SM_DNSSERVE_TCP, 2);
    send_query("hold.c.test", SM_DNS_A, SM_DNSSERVE_TCP, 1);
    while (upstream_udp(server) < 3)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    sm_dnsserve_forget(serve, 1);
    sm_dnsserve_forget(serve, 99);
    assert_int_equal(sm_dnsserve_inflight(serve), 1);
    forget_in_reply = true;
    upstream_release(server);
    while (sm_resolver_inflight(res) > 0)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    assert_string_equal(told, "FFFAPR");
    assert_int_equal(reply_key, 2);
    /* Freed with queries in flight. */
    send_query("hold.d.test", SM_DNS_A, SM_DNSSERVE_TCP, 3);
    assert_int_equal(sm_loop_turn(loop, 0), 0);
    send_query("hold.e.test", SM_DNS_A, SM_DNSSERVE_TCP, 3); /* this one waits for its record */
    sm_dnsserve_free(sm_steal_ptr(&serve));
    while (upstream_release(server) == 0)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    while (sm_resolver_inflight(res) > 0)
        assert_int_equal(sm_loop_turn(loop, 1000), 0);
    assert_int_equal(replies, 1);
}

static void test_in_flight_is_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SM_DNSSERVE_INFLIGHT_MAX; i++)
        send_query("hold.test", SM_DNS_A, SM_DNSSERVE_UDP, i);
    assert_int_equal(replies, 0);
    told[0] = '\0';
    send_query("ok.test", SM_DNS_A, SM_DNSSERVE_UDP, 1);
    assert_string_equal(told, "ER");
    assert_int_equal(rcode(), SM_DNS_SERVFAIL);
    assert_string_equal(last_reason, "busy");
    /* The core's own lookups still find room. */
    assert_true(sm_resolver_inflight(res) < SM_RESOLVER_INFLIGHT_MAX);
}

/* 10 a second, 20 at once; time is the argument. */
static void test_budget(void **state)
{
    uint8_t msg[512];
    size_t len = make_query("a.evil.test", SM_DNS_A, msg);
    int64_t t0 = sm_loop_now(loop);

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0);
    assert_int_equal(strspn(told, "DR"), strlen(told));
    assert_int_equal(strlen(told), 40);
    told[0] = '\0';
    for (unsigned i = 0; i < 50; i++)
        send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0);
    /* One record at once, and REFUSED to each. */
    assert_int_equal(strlen(told), 51);
    assert_int_equal(told[0], 'L');
    assert_int_equal(strspn(told + 1, "R"), 50);
    assert_string_equal(last_reason, "budget");
    assert_string_equal(last_qname, "a.evil.test");
    assert_int_equal(limited_total, 1);
    /* 0.1 s later there is room for exactly one. */
    told[0] = '\0';
    send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0 + 99999);
    assert_string_equal(told, "R");
    send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0 + 100000);
    assert_string_equal(told, "RDR");
    send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0 + 100000);
    assert_string_equal(told, "RDRR");
    /* The rest of the count comes by itself, one second after the first record. */
    told[0] = '\0';
    while (limited_total < 52)
        assert_int_equal(sm_loop_turn(loop, 2000), 0);
    assert_string_equal(told, "L");
    assert_int_equal(last.count, 51);
    assert_true(sm_loop_now(loop) - t0 >= 1000000);
    /* Idle for long: full again, and not more than full. A clock that jumps does not overflow anything. */
    told[0] = '\0';
    for (unsigned i = 0; i < 21; i++)
        send_raw(msg, len, SM_DNSSERVE_UDP, 1, INT64_MAX);
    assert_int_equal(strlen(told), 42);
    assert_int_equal(told[40], 'L');
}

/* Over the budget and not recordable: no reply, and the count waits for a record that can be made. */
static void test_budget_unrecorded(void **state)
{
    uint8_t msg[512];
    size_t len = make_query("a.evil.test", SM_DNS_A, msg);
    int64_t t0 = sm_loop_now(loop);

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0);
    record_fails = true;
    told[0] = '\0';
    send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0);
    assert_string_equal(told, "L");
    record_fails = false;
    send_raw(msg, len, SM_DNSSERVE_UDP, 1, t0 + 1);
    while (limited_total < 2)
        assert_int_equal(sm_loop_turn(loop, 2000), 0);
    assert_int_equal(last.count, 2);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_allowed),
        T(test_answered_here),
        T(test_record_comes_first),
        T(test_room_is_gone),
        T(test_malformed),
        T(test_errors),
        T(test_truncation),
        T(test_unrecorded),
        T(test_forget),
        T(test_in_flight_is_bounded),
        cmocka_unit_test_setup_teardown(test_budget, set_up_budget, tear_down),
        cmocka_unit_test_setup_teardown(test_budget_unrecorded, set_up_budget, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
