/* SPDX-License-Identifier: BSD-3-Clause */
/* Every message type there and back, cut at every byte, and with every enum out of range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/rw.h"
#include "flow/msg.h"
#include "flow/udpbatch.h"

static struct sm_flow_msg sample(enum sm_flow_type type)
{
    struct sm_flow_msg m = {
        .type = type,
        .id = 0x1122334455667788u,
        .proto = SM_FLOW_TCP,
        .src = {.addr = sm_addr_v4(10, 0, 2, 15), .port = 40000},
        .dst = {.addr = sm_addr_v4(203, 0, 113, 1), .port = 443},
        .how = SM_HOW_RST,
        .scope = SM_SCOPE_DESTINATION,
        .hold_ms = 1000,
        .consumed = 517,
        .why = SM_WHY_GUEST_RST,
        .other = SM_OTHER_IPV6,
        .ip_proto = 58,
        .guest_port = 8080,
        .count = 7,
        .data = (const uint8_t *)"hello",
        .data_len = 5,
    };
    if (type == SM_FLOW_DATAGRAM || type == SM_FLOW_OTHER || type == SM_FLOW_REPEATED || type == SM_FLOW_RELEASE)
        m.id = 0;
    if (type != SM_FLOW_BYTES && type != SM_FLOW_DATAGRAM)
        m.data_len = 0;
    if (type == SM_FLOW_OTHER)
        (void)!sm_addr_parse("ff02::2", &m.dst.addr);
    return m;
}

static void test_round_trip(void **state)
{
    for (unsigned type = 1; type < SM_FLOW_TYPES; type++) {
        uint8_t a[SM_FLOW_MSG_MAX], b[SM_FLOW_MSG_MAX];
        struct sm_flow_msg m = sample((enum sm_flow_type)type), back;
        size_t len = sm_flow_encode(&m, a, sizeof(a));
        assert_true(len > 0);
        assert_true(sm_flow_decode(a, len, &back));
        assert_int_equal(sm_flow_encode(&back, b, sizeof(b)), len);
        assert_memory_equal(a, b, len);
        /* A message without data must have its exact length; one with data must not be cut inside its fields. */
        bool open_ended = type == SM_FLOW_BYTES || type == SM_FLOW_DATAGRAM;
        for (size_t cut = 0; cut < len - m.data_len; cut++)
            assert_false(sm_flow_decode(a, cut, &back));
        if (!open_ended)
            assert_false(sm_flow_decode(a, len + 1, &back));
        for (size_t cap = 0; cap < len; cap++)
            assert_int_equal(sm_flow_encode(&m, b, cap), 0);
    }
}

static void test_bad_values(void **state)
{
    uint8_t a[SM_FLOW_MSG_MAX + 8] = {0};
    struct sm_flow_msg m = sample(SM_FLOW_REFUSE), back;
    size_t len = sm_flow_encode(&m, a, sizeof(a));
    a[12] = SM_HOWS;
    assert_false(sm_flow_decode(a, len, &back));
    a[12] = SM_HOW_RST;
    a[13] = SM_SCOPES;
    assert_false(sm_flow_decode(a, len, &back));
    a[13] = 0;
    a[1] = SM_FLOW_VERSION + 1;
    assert_false(sm_flow_decode(a, len, &back));
    a[1] = SM_FLOW_VERSION;
    a[0] = SM_FLOW_TYPES;
    assert_false(sm_flow_decode(a, len, &back));

    m = sample(SM_FLOW_OPEN);
    len = sm_flow_encode(&m, a, sizeof(a));
    a[13] = 5; /* address family */
    assert_false(sm_flow_decode(a, len, &back));
    m.id = 0;
    assert_int_equal(sm_flow_encode(&m, a, sizeof(a)), 0);

    m = sample(SM_FLOW_BYTES);
    static uint8_t big[SM_FLOW_DATA_MAX + 1];
    m.data = big;
    m.data_len = sizeof(big);
    assert_int_equal(sm_flow_encode(&m, a, sizeof(a)), 0);
    m.data_len = 0;
    assert_true((len = sm_flow_encode(&m, a, sizeof(a))) > 0);
    assert_false(sm_flow_decode(a, len, &back));
}

static void test_open_by_name(void **state)
{
    static const char longest[SM_FLOW_NAME_MAX + 2] = {[0 ... SM_FLOW_NAME_MAX] = 'a'};
    const char *const names[] = {"example.com", "::1", "a\0b", longest};
    const size_t lens[] = {11, 3, 3, SM_FLOW_NAME_MAX};
    uint8_t a[SM_FLOW_MSG_MAX], b[SM_FLOW_MSG_MAX];
    struct sm_flow_msg back;

    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        struct sm_flow_msg m = sample(SM_FLOW_OPEN);
        m.name = names[i];
        m.name_len = lens[i];
        size_t len = sm_flow_encode(&m, a, sizeof(a));
        assert_int_equal(len, 12 + 1 + 7 + 2 + lens[i] + 2);
        assert_true(sm_flow_decode(a, len, &back));
        assert_int_equal(back.name_len, lens[i]);
        assert_memory_equal(back.name, names[i], lens[i]);
        assert_int_equal(back.dst.addr.family, SM_FAMILY_NONE);
        assert_int_equal(back.dst.port, 443);
        assert_int_equal(sm_flow_encode(&back, b, sizeof(b)), len);
        assert_memory_equal(a, b, len);
        for (size_t cut = 0; cut < len; cut++)
            assert_false(sm_flow_decode(a, cut, &back));
        assert_false(sm_flow_decode(a, len + 1, &back));
        a[12] = SM_FLOW_UDP; /* datagrams have addresses */
        assert_false(sm_flow_decode(a, len, &back));
        m.proto = SM_FLOW_UDP;
        assert_int_equal(sm_flow_encode(&m, b, sizeof(b)), 0);
        m.proto = SM_FLOW_TCP;
        m.name_len = SM_FLOW_NAME_MAX + 1;
        assert_int_equal(sm_flow_encode(&m, b, sizeof(b)), 0);
    }
    /* An empty name is none. */
    struct sm_flow_msg m = sample(SM_FLOW_OPEN);
    m.name = "x";
    m.name_len = 1;
    size_t len = sm_flow_encode(&m, a, sizeof(a));
    a[21] = 0;
    memmove(a + 22, a + 23, 2);
    assert_false(sm_flow_decode(a, len - 1, &back));
}

static void test_refuse_says_why(void **state)
{
    uint8_t a[SM_FLOW_MSG_MAX];
    struct sm_flow_msg m = sample(SM_FLOW_REFUSE), back;

    m.reason = 200;
    size_t len = sm_flow_encode(&m, a, sizeof(a));
    assert_true(sm_flow_decode(a, len, &back));
    assert_int_equal(back.reason, 200);
}

static void next_is(struct sm_rd *r, unsigned *count, const char *data, size_t size)
{
    struct sm_dgrams_run run;

    assert_true(sm_udpbatch_next(r, count, &run));
    assert_int_equal(run.len, strlen(data));
    assert_int_equal(run.size, size);
    assert_memory_equal(run.data, data, run.len);
}

static void test_udp_batch(void **state)
{
    uint8_t buf[64];
    struct sm_udpbatch b = sm_udpbatch_init(buf, sizeof(buf));
    struct sm_dgrams_run run;
    unsigned count = 0;

    /* A shorter one ends a run, an empty one and a longer one are none of it. */
    assert_true(sm_udpbatch_add(&b, "abc", 3));
    assert_true(sm_udpbatch_add(&b, "def", 3));
    assert_true(sm_udpbatch_add(&b, "g", 1));
    assert_true(sm_udpbatch_add(&b, "h", 1));
    assert_true(sm_udpbatch_add(&b, "", 0));
    assert_true(sm_udpbatch_add(&b, "", 0));
    assert_true(sm_udpbatch_add(&b, "ij", 2));
    assert_true(sm_udpbatch_add(&b, "klm", 3));
    assert_int_equal(b.count, 8);
    struct sm_udpbatch before = b;
    assert_false(sm_udpbatch_add(&b, buf, 60));
    assert_memory_equal(&b, &before, sizeof(b));
    struct sm_rd r = sm_rd_init(buf, b.w.len);
    next_is(&r, &count, "abcdefg", 3);
    next_is(&r, &count, "h", 1);
    next_is(&r, &count, "", 0);
    next_is(&r, &count, "", 0);
    next_is(&r, &count, "ij", 2);
    next_is(&r, &count, "klm", 3);
    assert_false(sm_udpbatch_next(&r, &count, &run));
    assert_true(sm_rd_done(&r));
    assert_int_equal(count, 8);
}

/* The largest packets: by bytes, by datagrams in a run, by datagrams. */
static void test_udp_batch_full(void **state)
{
    static uint8_t buf[SM_FLOW_UDP_BATCH_MAX], data[SM_DGRAM_MAX + 1];
    struct sm_udpbatch b = sm_udpbatch_init(buf, sizeof(buf));
    struct sm_dgrams_run run;
    unsigned count = 0;

    assert_false(sm_udpbatch_add(&b, data, SM_DGRAM_MAX + 1));
    assert_true(sm_udpbatch_add(&b, data, SM_DGRAM_MAX));
    assert_true(sm_udpbatch_add(&b, data, 1)); /* a run is no longer than the largest datagram: it begins a new one */
    struct sm_rd r = sm_rd_init(buf, b.w.len);
    assert_true(sm_udpbatch_next(&r, &count, &run));
    assert_int_equal(run.len, SM_DGRAM_MAX);
    assert_true(sm_udpbatch_next(&r, &count, &run));
    assert_int_equal(run.len, 1);

    b = sm_udpbatch_init(buf, sizeof(buf));
    for (unsigned i = 0; i < SM_FLOW_UDP_BATCH_DATAGRAMS; i++)
        assert_true(sm_udpbatch_add(&b, data, 2));
    assert_false(sm_udpbatch_add(&b, data, 2));
    assert_false(sm_udpbatch_add(&b, data, 0));
    r = sm_rd_init(buf, b.w.len);
    for (count = 0; sm_udpbatch_next(&r, &count, &run);)
        assert_int_equal(sm_dgrams_run_count(&run), SM_DGRAMS_RUN_MAX);
    assert_true(sm_rd_done(&r));
    assert_int_equal(count, SM_FLOW_UDP_BATCH_DATAGRAMS);

    /* One more than a packet may have, and more of them than it may have: empty ones cost work and no bytes. */
    memset(buf, 0, sizeof(buf));
    r = sm_rd_init(buf, sizeof(buf));
    for (count = 0; sm_udpbatch_next(&r, &count, &run);)
        continue;
    assert_true(r.bad);
    assert_int_equal(count, SM_FLOW_UDP_BATCH_DATAGRAMS);
}

static void test_udp_batch_malformed(void **state)
{
    static const struct {
        const char *what;
        uint8_t raw[12];
        size_t len;
    } cases[] = {
        {"a cut head", {0, 1, 0}, 3},
        {"fewer bytes than the head says", {0, 3, 0, 3, 'a', 'b'}, 6},
        {"datagrams of no size", {0, 1, 0, 0, 'a'}, 5},
        {"larger than all", {0, 1, 0, 2, 'a'}, 5},
        {"an empty one of some size", {0, 0, 0, 1}, 4},
        {"more than UDP carries", {0xff, 0xff, 0xff, 0xff}, 4},
    };
    uint8_t many[4 + SM_DGRAMS_RUN_MAX + 1] = {0, SM_DGRAMS_RUN_MAX + 1, 0, 1};
    struct sm_dgrams_run run;

    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_rd r = sm_rd_init(cases[i].raw, cases[i].len);
        unsigned count = 0;
        if (sm_udpbatch_next(&r, &count, &run) || !r.bad || count != 0)
            fail_msg("%s: taken", cases[i].what);
    }
    for (size_t cut = 0; cut < 2; cut++) { /* a run of one too many, and of just so many */
        struct sm_rd r = sm_rd_init(many, sizeof(many) - cut);
        unsigned count = 0;
        many[1] = (uint8_t)(SM_DGRAMS_RUN_MAX + 1 - cut);
        assert_int_equal(sm_udpbatch_next(&r, &count, &run), cut == 1);
        assert_int_equal(count, cut ? SM_DGRAMS_RUN_MAX : 0);
    }
}

/* A packet of many: whole, at least one, not too many, and no descriptors. */
static void test_packet(void **state)
{
    uint8_t raw[3 * SM_FLOW_MSG_MAX], one[SM_FLOW_MSG_MAX];
    struct sm_flow_msg m = sample(SM_FLOW_DATAGRAM), back;
    size_t len = sm_flow_encode(&m, one, sizeof(one)), n = 1;
    struct sm_flow_packet p;

    for (enum sm_flow_type type = SM_FLOW_OPEN; type < SM_FLOW_TYPES; type++) {
        struct sm_flow_msg alone = sample(type);
        size_t size = sm_flow_encode(&alone, raw, sizeof(raw));
        p = sm_flow_packet_init(raw, size);
        assert_true(sm_flow_packet_next(&p, &back));
        assert_int_equal(back.type, type);
        assert_false(sm_flow_packet_next(&p, &back));
        assert_false(p.bad);
        memmove(raw + 3, raw, size);
        raw[0] = SM_FLOW_PACKET_MANY;
        raw[1] = (uint8_t)(size >> 8);
        raw[2] = (uint8_t)size;
        p = sm_flow_packet_init(raw, size + 3);
        assert_int_equal(sm_flow_packet_next(&p, &back), sm_flow_fds(type) == 0);
        assert_int_equal(p.bad, sm_flow_fds(type) > 0);
    }
    raw[0] = SM_FLOW_PACKET_MANY;
    for (int i = 0; i < 3; i++, n += 2 + len) {
        raw[n] = (uint8_t)(len >> 8);
        raw[n + 1] = (uint8_t)len;
        memcpy(raw + n + 2, one, len);
    }
    for (size_t cut = 0; cut <= n; cut++) {
        unsigned got = 0;
        p = sm_flow_packet_init(raw, cut);
        while (sm_flow_packet_next(&p, &back)) {
            assert_int_equal(back.data_len, m.data_len);
            assert_memory_equal(back.data, m.data, m.data_len);
            got++;
        }
        bool whole = cut > 1 && (cut - 1) % (2 + len) == 0;
        assert_int_equal(p.bad, !whole);
        assert_int_equal(got, cut < 1 ? 0 : (cut - 1) / (2 + len));
    }
    static uint8_t ends[1 + (SM_FLOW_PACKET_MAX + 1) * 32];
    m = sample(SM_FLOW_EOF);
    len = sm_flow_encode(&m, one, sizeof(one));
    ends[0] = SM_FLOW_PACKET_MANY;
    n = 1;
    for (unsigned i = 0; i <= SM_FLOW_PACKET_MAX; i++, n += 2 + len) {
        assert_true(n + 2 + len <= sizeof(ends));
        ends[n + 1] = (uint8_t)len;
        memcpy(ends + n + 2, one, len);
    }
    for (unsigned more = 0; more < 2; more++) { /* as many as there may be, and one more */
        unsigned got = 0;
        p = sm_flow_packet_init(ends, n - (1 - more) * (2 + len));
        while (sm_flow_packet_next(&p, &back))
            got++;
        assert_int_equal(got, SM_FLOW_PACKET_MAX);
        assert_int_equal(p.bad, more);
    }
    p = sm_flow_packet_init((const uint8_t *)"\xff\0\0", 3);
    assert_false(sm_flow_packet_next(&p, &back));
    assert_true(p.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_open_by_name),   cmocka_unit_test(test_refuse_says_why),
        cmocka_unit_test(test_packet),         cmocka_unit_test(test_udp_batch),
        cmocka_unit_test(test_udp_batch_full), cmocka_unit_test(test_udp_batch_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
