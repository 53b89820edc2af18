/* SPDX-License-Identifier: BSD-3-Clause */
/* The pure parts of guest-init: the socket table, the environment, the MAC address, the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "paths/guest_config.h"
#include "paths/guest_env.h"

static void test_table(void **state)
{
    g_autoptr(GHashTable) set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *text =
        g_strdup("Num       RefCount Protocol Flags    Type St Inode Path\n"
                 "0000000000000000: 00000002 00000000 00010000 0005 01 20391 /run/udev/control\n"
                 "0000000000000000: 00000003 00000000 00000000 0001 03   201\n"
                 "0000000000000000: 00000002 00000000 00010000 0001 01 20400 @/tmp/.X11-unix/X0\n"
                 "ffff888003c3a000: 00000002 00000000 00010000 0001 01 1234567890 /home/a b/ssh agent.sock\n"
                 "0000000000000000: 00000003 00000000 00000000 0001 03 20391 /run/udev/control\n"
                 "0000000000000000: 00000002 00000000 00010000 0001 01 20400 relative/path\n"
                 "garbage\n"
                 "\n"
                 "0000000000000000: 00000002 00000000 00010000 0001 01 7 /last");
    sm_guest_sockets_parse(text, set);
    assert_int_equal(g_hash_table_size(set), 3);
    assert_true(g_hash_table_contains(set, "/run/udev/control"));
    assert_true(g_hash_table_contains(set, "/home/a b/ssh agent.sock"));
    assert_true(g_hash_table_contains(set, "/last"));
}

static void test_environment(void **state)
{
    g_autoptr(GHashTable) set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    (void)g_hash_table_add(set, g_strdup("/tmp/agent.1"));
    char *env[] = {(char[]){"PATH=/bin:/tmp/agent.1"},
                   (char[]){"A=/tmp/agent.10"},
                   (char[]){"B=unix:/tmp/agent.1,guid=x"},
                   (char[]){"C=/tmp/agent.1/x"},
                   (char[]){"D="},
                   (char[]){"E=/tmp/agent.10 /tmp/agent.1"},
                   (char[]){"TOKEN=x"},
                   (char[]){"TOKENS=x"},
                   (char[]){"DBUS_STARTER_ADDRESS=x"},
                   (char[]){"LISTEN_FDNAMES=x"},
                   (char[]){"=odd"},
                   (char[]){"odd"},
                   NULL};
    char *unset[] = {(char[]){"TOKEN"}, NULL};
    g_auto(GStrv) kept = sm_guest_environment(env, unset, set);
    g_autofree char *all = g_strjoinv(" ", kept);
    assert_string_equal(all, "A=/tmp/agent.10 C=/tmp/agent.1/x D= TOKENS=x");
}

static void test_mac(void **state)
{
    static const char *const bad[] = {"",
                                      "52:55:0a:00:02",
                                      "52:55:0a:00:02:0f:",
                                      "52-55-0a-00-02-0f",
                                      "5:55:0a:00:02:0f0",
                                      "53:55:0a:00:02:0f",
                                      "zz:55:0a:00:02:0f"};
    uint8_t mac[6] = {0};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        assert_false(sm_tap_parse_mac(bad[i], mac));
    assert_int_equal(mac[0], 0);
    assert_true(sm_tap_parse_mac("52:55:0A:00:02:0f", mac));
    assert_memory_equal(mac, ((uint8_t[]){0x52, 0x55, 0x0a, 0, 2, 0x0f}), 6);
}

static void test_config(void **state)
{
    static const char good[] = "{\"name\":\"w\",\"argv\":[\"a\",\"\"],\"cwd\":\"/"
                               "\",\"mac\":\"52:55:0a:00:02:0f\",\"ip\":\"10.0.2.15\",\"prefix_len\":24,"
                               "\"gateway\":\"10.0.2.2\",\"dns\":[\"10.0.2.3\"],\"routes\":[\"0.0.0.0/"
                               "0\"],\"mtu\":65520,\"binds\":[\"/a\",\"/b:/c\"],\"core\":-1}";
    GError *error = NULL;
    struct sm_guest_config *c = sm_guest_config_parse(good, strlen(good), &error);
    assert_null(error);
    assert_non_null(c);
    assert_string_equal(c->hostname, "w");
    assert_int_equal(c->tap.mtu, 65520);
    assert_int_equal(c->uid, -1);
    assert_int_equal(c->nofile, -2);
    assert_int_equal(c->core, -1);
    assert_false(c->ro);
    assert_int_equal(c->n_binds, 2);
    assert_string_equal(c->binds[0].dst, "/a");
    assert_string_equal(c->binds[1].src, "/b");
    assert_string_equal(c->binds[1].dst, "/c");
    assert_int_equal(g_strv_length(c->masks), 0);
    sm_guest_config_free(c);

    /* Every shorter text is refused, with a reason. */
    for (size_t len = 0; len < strlen(good); len++) {
        assert_null(sm_guest_config_parse(good, len, &error));
        assert_non_null(error);
        g_clear_error(&error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_mac),
        cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
