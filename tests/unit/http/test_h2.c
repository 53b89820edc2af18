/* SPDX-License-Identifier: BSD-3-Clause */
/* The HTTP/2 bridge between a real client and a real server: what each of them gets. */
#include "h2_world.h"

static void plain_get(void **state)
{
    struct h2_world w;
    h2_world_init(&w, NULL);
    int32_t id = h2_request(&w, "GET", "/size/1000?a=b", -1,
                            "user-agent: x\nx-secret! y\nte: trailers\ncookie: aaaaaaaaaaaaaaaaaaaaaaaa=1\ncookie: "
                            "bbbbbbbbbbbbbbbbbbbbbbbbb=2\n");
    h2_run(&w);
    struct h2_seen *c = h2_seen(&w, SM_BRIDGE_GUEST, id), *s = h2_seen(&w, SM_BRIDGE_ORIGIN, 1);
    assert_string_equal(w.asked->str, "1 GET https ok.test 0 /size/1000 ?a=b\n");
    assert_string_equal(s->head->str, ":method: GET\n:scheme: https\n:authority: ok.test\n:path: /size/1000?a=b\n"
                                      "user-agent: x\nx-secret! y\nte: trailers\ncookie: "
                                      "aaaaaaaaaaaaaaaaaaaaaaaa=1\ncookie: bbbbbbbbbbbbbbbbbbbbbbbbb=2\n");
    assert_true(s->ended);
    assert_int_equal(c->status, 200);
    assert_string_equal(c->head->str, ":status: 200\nserver: test\n");
    assert_int_equal(c->body, 1000);
    assert_false(c->bad_body);
    assert_true(c->ended && c->closed);
    assert_int_equal(c->code, 0);
    assert_string_equal(w.told->str, "1 done 200 0 1000\n");
    assert_string_equal(w.broken->str, "");
    assert_true(sm_bridge_idle(w.b));
    assert_int_equal(sm_bridge_ended(w.b), SM_BRIDGE_LIVE);
    h2_world_done(&w);
}

static void echo(void **state)
{
    static const uint64_t sizes[] = {0, 1, 16384, 65535, 65536, 3000000};
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        struct h2_world w;
        h2_world_init(&w, NULL);
        int32_t id = h2_request(&w, "POST", "/echo", (int64_t)sizes[i], NULL);
        h2_run(&w);
        struct h2_seen *c = h2_seen(&w, SM_BRIDGE_GUEST, id);
        assert_int_equal(c->body, sizes[i]);
        assert_false(c->bad_body || h2_seen(&w, SM_BRIDGE_ORIGIN, 1)->bad_body);
        assert_true(c->ended);
        g_autofree char *told = g_strdup_printf("1 done 200 %u %u\n", (unsigned)sizes[i], (unsigned)sizes[i]);
        assert_string_equal(w.told->str, told);
        h2_world_done(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_get),
        cmocka_unit_test(echo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
