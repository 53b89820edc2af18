/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med proxy`: its flags, the socket, and what its children are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "launch/messages.h"
#include "launch/options.h"
#include "paths/proxy_config.h"

static int parse(const char *args, struct sm_run_options *o, GError **error)
{
    g_autofree char *line = g_strconcat("proxy ", args, NULL);
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);

    memset(o, 0, sizeof(*o));
    return sm_run_options_parse((int)g_strv_length(argv), argv, o, error);
}

static struct sm_run_options good(const char *args)
{
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;

    if (parse(args, &o, &error) < 0)
        fail_msg("'%s': %s", args, error->message);
    assert_int_equal(o.command, SM_COMMAND_PROXY);
    return o;
}

static void wrong(const char *args, const char *words)
{
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;

    if (parse(args, &o, &error) == 0)
        fail_msg("'%s' is taken", args);
    assert_int_equal(error->code, SM_ERROR_INVALID);
    if (!strstr(error->message, words))
        fail_msg("'%s': '%s' lacks '%s'", args, error->message, words);
}

static void flags(void **state)
{
    struct sm_run_options o =
        good("agents --listen 127.0.0.1:3128 --client-net 172.20.0.0/16 --client-net fd00::/8 --proxy-auth env:PROXY "
             "--route search=http://127.0.0.1:8080 --egress strict --egress-allow a.test --egress-max-conns 7");
    assert_string_equal(o.name, "agents");
    assert_int_equal(o.proxy.listen.port, 3128);
    assert_int_equal(o.proxy.n_clients, 2);
    assert_string_equal(o.proxy.auth, "env:PROXY");
    assert_int_equal(o.proxy.routes.n, 1);
    assert_int_equal(o.caps.conns, 7);
    assert_true(sm_run_options_intercepts(&o));
    sm_run_options_clear(&o);
    o = good("--listen [::1]:0");
    assert_int_equal(o.proxy.listen.addr.family, SM_FAMILY_V6);
    sm_run_options_clear(&o);

    wrong("w", "--listen");
    wrong("--listen 127.0.0.1", "ADDRESS:PORT");
    wrong("--listen ::1:80", "ADDRESS:PORT");
    wrong("--listen localhost:80", "ADDRESS:PORT");
    wrong("--listen 127.0.0.1:x", "ADDRESS:PORT");
    wrong("--listen 127.0.0.1:99999", "ADDRESS:PORT");
    wrong("--listen 127.0.0.1:1 --listen 127.0.0.1:2", "given twice");
    wrong("--listen 0.0.0.0:1", "--client-net");
    wrong("--listen [::]:1", "--client-net");
    wrong("--listen 127.0.0.1:1 --client-net 10.0.0.1/8", "--client-net=10.0.0.1/8");
    wrong("--listen 127.0.0.1:1 --route search=https://x", "--route: 'search=https://x'");
    wrong("--listen 127.0.0.1:1 --proxy-auth vault:a#b", "--proxy-auth");
    wrong("--listen 127.0.0.1:1 --publish 1:2", "not for proxy");
    wrong("--listen 127.0.0.1:1 --stream /x", "not for proxy");
    wrong("--listen 127.0.0.1:1 --network isolated", "not for proxy");
    wrong("--listen 127.0.0.1:1 -- true", "starts no command");
    wrong("a b --listen 127.0.0.1:1", "one NAME");
}

static void a_password_in_place_of_a_reference_is_not_shown(void **state)
{
    g_autoptr(GError) error = NULL;
    struct sm_run_options o;

    assert_int_equal(parse("--listen 127.0.0.1:1 --proxy-auth user:s3cret", &o, &error), -1);
    assert_null(strstr(error->message, "s3cret"));
}

static void the_socket(void **state)
{
    struct sm_run_options o = good("--listen 127.0.0.2:0");
    g_autoptr(GError) error = NULL;
    char text[SM_PREFIX_STRLEN];
    int fd = sm_proxy_open(&o.proxy, &error);

    assert_true(fd >= 0);
    assert_int_not_equal(o.proxy.listen.port, 0);
    assert_int_equal(o.proxy.n_clients, 1); /* loopback's network, which has this address too */
    assert_string_equal(sm_prefix_format(&o.proxy.clients[0], text), "127.0.0.0/8");
    struct sm_proxy_options again = o.proxy;
    assert_int_equal(sm_proxy_open(&again, &error), -1);
    assert_int_equal(error->code, SM_ERROR_INVALID);
    assert_non_null(strstr(error->message, "--listen=127.0.0.2:"));
    close(fd);
    sm_run_options_clear(&o);
}

static void the_front_is_told_a_digest(void **state)
{
    struct sm_run_options o =
        good("w --listen 127.0.0.1:3128 --client-net 10.0.0.0/8 --proxy-auth env:SM_TEST_PROXY_AUTH");
    struct sm_proxy_config c;
    g_autoptr(GError) error = NULL;

    assert_int_equal(setenv("SM_TEST_PROXY_AUTH", "user:pass", 1), 0);
    g_autofree char *text = sm_message_front(&o, &error);
    assert_non_null(text);
    assert_null(strstr(text, "pass"));
    assert_null(strstr(text, "dXNlcjpwYXNz"));
    assert_true(sm_proxy_config_parse(text, strlen(text), &c, NULL));
    assert_true(sm_proxy_config_admits(&c, "dXNlcjpwYXNz", 12));
    assert_false(sm_proxy_config_admits(&c, "dXNlcjpwYXNz", 11));
    assert_false(sm_proxy_config_admits(&c, "", 0));
    g_autofree char *second = sm_message_front(&o, &error);
    assert_string_not_equal(text, second); /* another salt */
    sm_proxy_config_clear(&c);
    assert_int_equal(setenv("SM_TEST_PROXY_AUTH", "no colon", 1), 0);
    assert_null(sm_message_front(&o, &error));
    assert_null(strstr(error->message, "no colon"));
    sm_run_options_clear(&o);
}

static void the_core_is_told_where_it_listens(void **state)
{
    struct sm_run_options o =
        good("w --listen 127.0.0.1:3128 --client-net 198.51.100.0/24 --route search=http://[fd00::1]:81");
    struct sm_launch_ground g = {.resolv_conf = ""};
    g_autoptr(GError) error = NULL;
    g_autofree char *text = sm_message_core(&o, &g, &error);
    struct sm_core_config *c = sm_core_config_load(text, strlen(text), &error);

    if (!c)
        fail_msg("%s", error->message);
    assert_true(c->proxy);
    assert_int_equal(c->n_clients, 1);
    assert_int_equal(c->routes.n, 1);
    assert_int_equal(sm_ground_kind(c->ground, &o.proxy.listen, NULL), SM_INSIDE_LISTENER);
    struct sm_endpoint client = {.addr = sm_addr_v4(198, 51, 100, 9), .port = 80},
                       plain = {.addr = sm_addr_v4(10, 0, 2, 15), .port = 80};
    assert_int_equal(sm_ground_kind(c->ground, &client, NULL), SM_INSIDE_EXTRA);
    assert_int_equal(sm_ground_kind(c->ground, &plain, NULL), SM_INSIDE_PRIVATE); /* there is no virtual network */
    sm_core_config_free(c);
    sm_run_options_clear(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags),
        cmocka_unit_test(a_password_in_place_of_a_reference_is_not_shown),
        cmocka_unit_test(the_socket),
        cmocka_unit_test(the_front_is_told_a_digest),
        cmocka_unit_test(the_core_is_told_where_it_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
