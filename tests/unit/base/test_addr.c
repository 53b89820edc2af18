/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses: strict parsing, exact formatting, prefixes at every border. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/addr.h"

static void test_parse_v4(void **state)
{
    struct sm_addr a;
    char out[SM_ADDR_STRLEN];
    static const char *const good[] = {"0.0.0.0", "1.2.3.4", "255.255.255.255", "10.0.2.15"};
    static const char *const bad[] = {"",           "1",         "1.2.3",    "1.2.3.4.5", "01.2.3.4",
                                      "1.2.3.04",   "256.1.1.1", "1.2.3.4 ", " 1.2.3.4",  "0x7f.0.0.1",
                                      "2130706433", "127.1",     "1..2.3",   "1.2.3.",    ".1.2.3.4",
                                      "1.2.3.4/8",  "-1.2.3.4",  "1.2.3.+4", "1.2.3.4000"};
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        assert_true(sm_addr_parse(good[i], &a));
        assert_int_equal(a.family, SM_FAMILY_V4);
        assert_string_equal(sm_addr_format(&a, out), good[i]);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        if (sm_addr_parse(bad[i], &a))
            fail_msg("parsed '%s'", bad[i]);
}

static void test_parse_v6(void **state)
{
    struct sm_addr a;
    char out[SM_ADDR_STRLEN];
    assert_true(sm_addr_parse("2001:db8::1", &a));
    assert_string_equal(sm_addr_format(&a, out), "2001:db8::1");
    assert_true(sm_addr_parse("::ffff:10.0.0.1", &a));
    assert_false(sm_addr_parse("fe80::1%eth0", &a));
    assert_false(sm_addr_parse(":::", &a));
    assert_false(sm_addr_parse("2001:db8::1::", &a));
}

static void test_endpoint(void **state)
{
    struct sm_endpoint e, back;
    char out[SM_ENDPOINT_STRLEN];
    struct sockaddr_storage ss;
    static const char *const bad[] = {"1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:080", "[1.2.3.4]:80",
                                      "[::1",     "[::1]x",        "1.2.3.4:8a"};

    assert_true(sm_endpoint_parse("1.2.3.4:53", 1, &e));
    assert_int_equal(e.port, 53);
    assert_true(sm_endpoint_parse("1.2.3.4", 53, &e));
    assert_int_equal(e.port, 53);
    assert_true(sm_endpoint_parse("[2001:db8::1]:5353", 53, &e));
    assert_string_equal(sm_endpoint_format(&e, out), "[2001:db8::1]:5353");
    assert_int_equal(sm_endpoint_to_sockaddr(&e, &ss), sizeof(struct sockaddr_in6));
    assert_true(sm_endpoint_from_sockaddr(&ss, &back));
    assert_true(sm_endpoint_equal(&e, &back));
    assert_true(sm_endpoint_parse("2001:db8::1", 53, &e));
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        if (sm_endpoint_parse(bad[i], 1, &e))
            fail_msg("parsed '%s'", bad[i]);
}

static void test_prefix(void **state)
{
    struct sm_prefix p;
    struct sm_addr in, out;
    for (unsigned len = 0; len <= 32; len++) {
        p = (struct sm_prefix){.addr = sm_addr_from_u32(len ? 0xC0A80000u & (0xffffffffu << (32 - len)) : 0),
                               .len = (uint8_t)len};
        in = sm_addr_from_u32(sm_addr_to_u32(&p.addr) | (len < 32 ? 0xffffffffu >> len : 0));
        assert_true(sm_prefix_contains(&p, &in));
        if (len > 0) {
            out = sm_addr_from_u32(sm_addr_to_u32(&p.addr) ^ (0x80000000u >> (len - 1)));
            assert_false(sm_prefix_contains(&p, &out));
        }
    }
    assert_true(sm_prefix_parse("10.0.0.0/8", &p));
    assert_false(sm_prefix_parse("10.0.0.1/8", &p));
    assert_false(sm_prefix_parse("10.0.0.0/33", &p));
    assert_false(sm_prefix_parse("10.0.0.0/", &p));
    assert_true(sm_prefix_parse("fc00::/7", &p));
    assert_true(sm_addr_parse("fdff::1", &in));
    assert_true(sm_prefix_contains(&p, &in));
    in = sm_addr_v4(10, 0, 0, 1);
    assert_false(sm_prefix_contains(&p, &in));
    p = (struct sm_prefix){0};
    assert_false(sm_prefix_contains(&p, &in));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_v4),
        cmocka_unit_test(test_parse_v6),
        cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
