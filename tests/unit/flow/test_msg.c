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

static void test_udp_batch(void **state)
{
    uint8_t buf[64];
    struct sm_wr w = sm_wr_init(buf, sizeof(buf));
    assert_true(sm_udpbatch_add(&w, "abc", 3));
    assert_true(sm_udpbatch_add(&w, "", 0));
    assert_false(sm_udpbatch_add(&w, buf, 60));
    assert_false(w.bad);
    struct sm_rd r = sm_rd_init(buf, w.len);
    const uint8_t *d;
    size_t n;
    assert_true(sm_udpbatch_next(&r, &d, &n));
    assert_int_equal(n, 3);
    assert_true(sm_udpbatch_next(&r, &d, &n));
    assert_int_equal(n, 0);
    assert_false(sm_udpbatch_next(&r, &d, &n));
    assert_true(sm_rd_done(&r));
    r = sm_rd_init(buf, 4);
    assert_false(sm_udpbatch_next(&r, &d, &n));
    assert_true(r.bad);
    memset(buf, 0xff, sizeof(buf));
    r = sm_rd_init(buf, sizeof(buf));
    assert_false(sm_udpbatch_next(&r, &d, &n));
    assert_true(r.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_bad_values), cmocka_unit_test(test_open_by_name),
        cmocka_unit_test(test_refuse_says_why), cmocka_unit_test(test_udp_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
