/* SPDX-License-Identifier: BSD-3-Clause */
/* The spec file: what is taken, and that each refusal names file, line and key, and leaves everything as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "launch/options.h"
#include "launch/spec.h"

struct result {
    struct sm_net_plan plan;
    GArray *publishes;
    json_t *kept;
    GError *error;
    bool ok;
};

static void result_clear(struct result *r)
{
    g_array_unref(r->publishes);
    json_decref(r->kept);
    g_clear_error(&r->error);
}

/* flags: "isolated", "user", or publishes behind spaces. */
static void apply(const char *file, const char *text, const char *flags, struct result *r)
{
    bool mode_given = false;
    g_auto(GStrv) words = g_strsplit(flags, " ", -1);

    *r = (struct result){.publishes = g_array_new(FALSE, FALSE, sizeof(struct sm_publish))};
    sm_net_plan_reference(&r->plan);
    for (size_t i = 0; words[i]; i++) {
        struct sm_publish p;
        if (sm_network_mode_parse(words[i], &r->plan.mode)) {
            mode_given = true;
        } else if (words[i][0]) {
            assert_true(sm_publish_parse(words[i], &p, NULL));
            g_array_append_val(r->publishes, p);
        }
    }
    r->ok = sm_spec_apply(file, text, strlen(text), mode_given, &r->plan, r->publishes, &r->kept, &r->error);
}

static char *publishes_text(const GArray *list)
{
    GString *out = g_string_new(NULL);
    char text[SM_PUBLISH_STRLEN];

    for (guint i = 0; i < list->len; i++)
        g_string_append_printf(out, "%s%s", i ? " " : "",
                               sm_publish_format(&g_array_index(list, struct sm_publish, i), text));
    return g_string_free(out, FALSE);
}

/* The example of the page that this comes from, in both formats. */
static void test_whole(void **state)
{
    static const struct {
        const char *file, *text;
    } rows[] = {
        {"ws.yaml",
         "network:\n  mode: user\n  ip: 192.168.64.2/24\n  subnet: 192.168.64.0/24\n  gateway: 192.168.64.1\n  "
         "dns:\n    - 1.1.1.1\n    - 8.8.8.8\n  routes:\n    - 0.0.0.0/0 via 192.168.64.1\n  forwards:\n    "
         "- host: 127.0.0.1\n      hostPort: 8080\n      guestPort: 80\n      protocol: tcp\n    - "
         "hostPort: 0\n      guestPort: 22\n"},
        {"ws.json", "{\"network\": {\"mode\": \"user\", \"ip\": \"192.168.64.2/24\", \"subnet\": \"192.168.64.0/24\", "
                    "\"gateway\": \"192.168.64.1\", \"dns\": [\"1.1.1.1\", \"8.8.8.8\"], \"routes\": [\"0.0.0.0/0 via "
                    "192.168.64.1\"], \"forwards\": [{\"host\": \"127.0.0.1\", \"hostPort\": 8080, \"guestPort\": 80, "
                    "\"protocol\": \"tcp\"}, {\"hostPort\": 0, \"guestPort\": 22}]}}"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(result_clear) struct result r;
        char text[SM_ADDR_STRLEN], route[SM_NET_ROUTE_STRLEN];
        apply(rows[i].file, rows[i].text, "9090:90", &r);
        if (!r.ok)
            fail_msg("%s", r.error->message);
        assert_int_equal(r.plan.mode, SM_NETWORK_USER);
        assert_string_equal(sm_addr_format(&r.plan.guest, text), "192.168.64.2");
        assert_string_equal(sm_addr_format(&r.plan.gateway, text), "192.168.64.1");
        assert_string_equal(sm_addr_format(&r.plan.resolver, text), "192.168.64.1");
        assert_int_equal(r.plan.n_dns, 2);
        assert_string_equal(sm_addr_format(&r.plan.dns[1], text), "8.8.8.8");
        assert_int_equal(r.plan.n_routes, 1);
        assert_string_equal(sm_net_route_format(&r.plan, 0, route), "0.0.0.0/0 via 192.168.64.1");
        g_autofree char *all = publishes_text(r.publishes);
        assert_string_equal(all, "127.0.0.1:9090:90/tcp 127.0.0.1:8080:80/tcp 127.0.0.1:0:22/tcp");

        /* What is kept says the same. */
        char *kept = json_dumps(r.kept, JSON_INDENT(2));
        sm_cleanup(result_clear) struct result again;
        apply("spec.json", kept, "9090:90", &again);
        assert_true(again.ok);
        assert_true(sm_net_plan_equal(&again.plan, &r.plan));
        assert_true(json_equal(again.kept, r.kept));
        free(kept);
    }
}

static void test_little(void **state)
{
    static const char *const texts[] = {"{}", "network: {}", "network:\n  mode: user\n  forwards: []\n"};
    struct sm_net_plan reference;

    sm_net_plan_reference(&reference);
    for (size_t i = 0; i < SM_ARRAY_LEN(texts); i++) {
        sm_cleanup(result_clear) struct result r;
        apply("ws.yml", texts[i], "user 1:2", &r);
        assert_true(r.ok);
        assert_true(sm_net_plan_equal(&r.plan, &reference));
        assert_int_equal(r.publishes->len, 1);
    }
    sm_cleanup(result_clear) struct result r;
    apply("ws.yaml", "network: {mode: isolated}", "", &r);
    assert_true(r.ok);
    assert_int_equal(r.plan.mode, SM_NETWORK_ISOLATED);
    sm_cleanup(result_clear) struct result none;
    apply("ws.yaml", "network: {routes: [], ip: 10.9.0.7/16}", "", &none);
    assert_true(none.ok);
    assert_int_equal(none.plan.n_routes, 0);
}

static void test_refused(void **state)
{
    static const struct {
        const char *file, *text, *flags;
        const char *says; /* all of it up to here, from the beginning */
    } rows[] = {
        /* the document */
        {"ws.txt", "", "", "ws.txt: the name of a spec file ends in .yaml, .yml or .json"},
        {"ws.yaml", "", "", "ws.yaml:1: the file is empty: write network: {} for the reference network"},
        {"ws.yaml", "network: {}\n---\nnetwork: {}\n", "", "ws.yaml:2: a second document: a spec file has one"},
        {"ws.yaml", "[]", "", "ws.yaml:1: wrong type: a spec file is a mapping with the key network, not a list"},
        {"ws.yaml", "network: []", "", "ws.yaml:1: network: wrong type: it is a mapping, not a list"},
        {"ws.yaml", "network:\n", "", "ws.yaml:1: network: wrong type: it is a mapping, not empty"},
        {"ws.yaml", "network: {}\nnetwork: {}\n", "", "ws.yaml:2: key 'network' is there twice"},
        {"ws.yaml", "network:\n  ip: 10.0.2.9\n  ip: 10.0.2.9\n", "", "ws.yaml:3: key 'ip' is there twice"},
        {"ws.yaml", "network:\n  ? [a]\n  : b\n", "", "ws.yaml:2: wrong type: a key is text, not a list"},
        {"ws.yaml", "network: {ip: 10.0.2.9", "", "ws.yaml:2: not YAML"},
        {"ws.json", "{\"network\": {\"ip\": \"10.0.2.9\"}", "", "ws.json:1: not JSON"},
        {"ws.yaml", "network: &a {}\n", "", "ws.yaml:1: anchors (&name) are not allowed"},
        /* keys */
        {"ws.yaml", "name: web\n", "", "ws.yaml:1: name: unknown key (there are network)"},
        {"ws.yaml", "netwrok: {}\n", "", "ws.yaml:1: netwrok: unknown key; did you mean network?"},
        {"ws.yaml", "network:\n  gatway: 10.0.2.1\n", "",
         "ws.yaml:2: network.gatway: unknown key; did you mean gateway?"},
        {"ws.yaml", "network:\n  mtu: 1500\n", "",
         "ws.yaml:2: network.mtu: unknown key (there are mode, ip, subnet, gateway, dns, routes, forwards)"},
        {"ws.yaml", "network: {}\negress: strict\n", "", "ws.yaml:2: egress: egress settings are flags"},
        {"ws.yaml", "network:\n  egress-allow: [a.test]\n", "", "ws.yaml:2: network.egress-allow: egress settings are"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostport: 1, guestPort: 1}\n", "",
         "ws.yaml:3: network.forwards[0].hostport: unknown key; did you mean hostPort?"},
        /* types, and nothing */
        {"ws.yaml", "network:\n  ip: 10\n", "", "ws.yaml:2: network.ip: wrong type: it is text, not a number"},
        {"ws.yaml", "network:\n  ip: ''\n", "", "ws.yaml:2: network.ip: is empty: leave it out"},
        {"ws.yaml", "network:\n  gateway:\n", "", "ws.yaml:2: network.gateway: wrong type: it is text, not empty"},
        {"ws.yaml", "network:\n  dns: 1.1.1.1\n", "", "ws.yaml:2: network.dns: wrong type: it is a list, not text"},
        {"ws.yaml", "network:\n  dns: []\n", "", "ws.yaml:2: network.dns: is empty: leave it out"},
        {"ws.yaml", "network:\n  dns:\n  - 1.1.1.1\n  -\n", "",
         "ws.yaml:4: network.dns[1]: wrong type: it is text, not empty"},
        {"ws.yaml", "network:\n  dns: [\"1.1.1.1\\0\"]\n", "", "ws.yaml:2: network.dns[0]: a NUL byte is in it"},
        {"ws.yaml", "network:\n  dns: [1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9]\n", "",
         "ws.yaml:2: network.dns: more than 8"},
        {"ws.yaml", "network:\n  forwards:\n  - 8080\n", "",
         "ws.yaml:3: network.forwards[0]: wrong type: a forward is a mapping, not a number"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: '1', guestPort: 1}\n", "",
         "ws.yaml:3: network.forwards[0].hostPort: wrong type: it is a number, not text"},
        {"ws.yaml", "network:\n  mode: yes\n", "", "ws.yaml:2: network.mode: wrong type: it is text, not a word that"},
        /* values */
        {"ws.yaml", "network:\n  mode: bridge\n", "",
         "ws.yaml:2: network.mode: no such network: write user or isolated"},
        {"ws.yaml", "network:\n  ip: fd00::2/64\n", "", "ws.yaml:2: network.ip: 'fd00::2/64' is not an IPv4 address"},
        {"ws.yaml", "network:\n  ip: 10.0.2.9/33\n", "", "ws.yaml:2: network.ip: '10.0.2.9/33' is not"},
        {"ws.yaml", "network:\n  ip: 10.0.2.9/\n", "", "ws.yaml:2: network.ip: '10.0.2.9/' is not"},
        {"ws.yaml", "network:\n  ip: 10.0.2.09/24\n", "", "ws.yaml:2: network.ip: '10.0.2.09/24' is not"},
        {"ws.yaml", "network:\n  subnet: 10.0.2.1/24\n", "", "ws.yaml:2: network.subnet: '10.0.2.1/24' is not an IPv4"},
        {"ws.yaml", "network:\n  subnet: 10.0.2.0\n", "", "ws.yaml:2: network.subnet: '10.0.2.0' is not an IPv4 range"},
        {"ws.yaml", "network:\n  dns: [dns.example]\n", "", "ws.yaml:2: network.dns[0]: 'dns.example' is not an IPv4"},
        {"ws.yaml", "network:\n  routes: [0.0.0.0/0]\n", "",
         "ws.yaml:2: network.routes[0]: '0.0.0.0/0' is not a route"},
        {"ws.yaml", "network:\n  routes: [default via 10.0.2.2]\n", "", "ws.yaml:2: network.routes[0]: 'default via"},
        {"ws.yaml", "network:\n  routes: [0.0.0.0/0 via  10.0.2.2]\n", "",
         "ws.yaml:2: network.routes[0]: '0.0.0.0/0 via"},
        {"ws.yaml", "network:\n  forwards:\n  - hostPort: 80\n", "", "ws.yaml:3: network.forwards[0]: lacks guestPort"},
        {"ws.yaml", "network:\n  forwards:\n  - guestPort: 80\n", "", "ws.yaml:3: network.forwards[0]: lacks hostPort"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: 65536, guestPort: 80}\n", "",
         "ws.yaml:3: network.forwards[0].hostPort: 65536 is no port: write 0 to 65535"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: 80, guestPort: 0}\n", "",
         "ws.yaml:3: network.forwards[0].guestPort: 0 is no port: write 1 to 65535"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: 80, guestPort: 80, protocol: udp}\n", "",
         "ws.yaml:3: network.forwards[0].protocol: only tcp can be forwarded"},
        {"ws.yaml", "network:\n  forwards:\n  - {host: localhost, hostPort: 80, guestPort: 80}\n", "",
         "ws.yaml:3: network.forwards[0].host: it is no address of this host"},
        /* contradictions */
        {"ws.yaml",
         "# a workspace\nnetwork:\n  mode: user\n\n  ip: 192.168.64.2/24\n  subnet: 192.168.64.0/24\n  gateway: "
         "10.1.0.1\n",
         "", "ws.yaml:7: network.gateway: 10.1.0.1 is not in network.subnet 192.168.64.0/24"},
        {"ws.yaml", "network:\n  ip: 192.168.64.2/24\n  gateway: 192.168.64.2\n", "",
         "ws.yaml:3: network.gateway: 192.168.64.2 is the guest's own address (network.ip)"},
        {"ws.yaml", "network:\n  ip: 192.168.64.2/16\n  subnet: 192.168.64.0/24\n", "",
         "ws.yaml:2: network.ip: its prefix of 16 bits is not that of network.subnet 192.168.64.0/24"},
        {"ws.yaml", "network:\n  subnet: 127.0.0.0/8\n", "",
         "ws.yaml:2: network.subnet: 127.0.0.0/8 overlaps loopback"},
        {"ws.yaml", "network:\n  dns:\n  - 1.1.1.1\n  - 127.0.0.1\n", "",
         "ws.yaml:4: network.dns[1]: 127.0.0.1 is loopback"},
        {"ws.yaml", "network:\n  routes:\n  - 0.0.0.0/0 via 10.0.2.2\n  - 172.16.0.0/12 via 10.0.2.7\n", "",
         "ws.yaml:4: network.routes[1]: 10.0.2.7 is not the gateway, 10.0.2.2"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: 80, guestPort: 80}\n  - {hostPort: 80, guestPort: 81}\n", "",
         "ws.yaml:4: network.forwards[1]: its address on this host is that of 127.0.0.1:80:80/tcp"},
        {"ws.yaml", "network:\n  forwards:\n  - {hostPort: 80, guestPort: 80}\n", "80:1",
         "ws.yaml:3: network.forwards[0]: its address on this host is that of --publish=127.0.0.1:80:1/tcp"},
        {"ws.yaml", "network:\n  forwards:\n  - {host: 0.0.0.0, hostPort: 80, guestPort: 80}\n", "80:1",
         "ws.yaml:3: network.forwards[0]: its address on this host is that of --publish="},
        {"ws.yaml", "network:\n  mode: isolated\n", "user",
         "ws.yaml:2: network.mode: isolated, and --network says user"},
        {"ws.yaml", "network:\n  mode: user\n", "isolated",
         "ws.yaml:2: network.mode: user, and --network says isolated"},
        {"ws.yaml", "network:\n  mode: isolated\n  forwards:\n  - {hostPort: 80, guestPort: 80}\n", "",
         "ws.yaml:4: network.forwards: there is no network device with network.mode isolated"},
        {"ws.yaml", "network:\n  ip: 10.0.2.9\n", "isolated",
         "ws.yaml:2: network.ip: there is no network device with --network isolated"},
        {"ws.yaml", "network:\n  mode: isolated\n", "8080:80",
         "ws.yaml:2: network.mode: isolated, and --publish=127.0.0.1:8080:80/tcp needs a network"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(result_clear) struct result before, r;
        apply("ws.yaml", "{}", rows[i].flags, &before);
        apply(rows[i].file, rows[i].text, rows[i].flags, &r);
        if (r.ok)
            fail_msg("row %zu is taken: %s", i, rows[i].text);
        if (!g_str_has_prefix(r.error->message, rows[i].says))
            fail_msg("row %zu: '%s' is not '%s...'", i, r.error->message, rows[i].says);
        assert_null(r.kept);
        assert_int_equal(r.publishes->len, before.publishes->len);
        if (before.ok)
            assert_true(sm_net_plan_equal(&r.plan, &before.plan));
    }
}

static void test_limits(void **state)
{
    g_autoptr(GString) many = g_string_new("network:\n  forwards:\n");
    g_autofree char *big = g_strnfill(SM_SPEC_FILE_MAX + 1, '#');
    sm_cleanup(result_clear) struct result r, over, large;

    for (unsigned i = 1; i <= SM_PUBLISH_MAX; i++)
        g_string_append_printf(many, "  - {host: 127.0.0.1, hostPort: %u, guestPort: %u, protocol: tcp}\n", i, i);
    apply("ws.yaml", many->str, "", &r);
    if (!r.ok)
        fail_msg("%s", r.error->message);
    assert_int_equal(r.publishes->len, SM_PUBLISH_MAX);
    apply("ws.yaml", many->str, "9999:1", &over);
    assert_false(over.ok);
    assert_non_null(strstr(over.error->message, "ws.yaml:258: network.forwards[255]: too many"));
    apply("ws.yaml", big, "", &large);
    assert_true(g_error_matches(large.error, SM_ERROR, SM_ERROR_LIMIT));
}

/* As a flag: together with others, kept by value, and given again. */
static void test_flag(void **state)
{
    g_autofree char *dir = g_dir_make_tmp("spec-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "ws.yaml", NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *flag = g_strconcat("--spec=", path, NULL);
    g_autofree char *line = g_strjoin(" ", "run", flag, "--publish=9090:90 -- true", NULL);
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);
    g_auto(GStrv) stored = g_strsplit("run --publish=9090:90 -- true", " ", -1);
    g_auto(GStrv) wrong = g_strsplit("run --publish=8080:90 -- true", " ", -1);
    char text[SM_ADDR_STRLEN];
    struct sm_run_options o, again;

    assert_true(g_file_set_contents(
        path, "network:\n  ip: 172.31.9.9/24\n  forwards:\n  - {hostPort: 8080, guestPort: 80}\n", -1, NULL));
    assert_int_equal(sm_run_options_parse_create(5, argv, &o, &error), 0);
    assert_string_equal(sm_addr_format(&o.net.guest, text), "172.31.9.9");
    assert_int_equal(o.publishes->len, 2);
    assert_int_equal(o.given->len, 1); /* not the file's name */
    assert_non_null(o.spec);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(sm_run_options_parse_stored(4, stored, o.spec, &again, &error), 0);
    assert_true(sm_net_plan_equal(&again.net, &o.net));
    assert_int_equal(again.publishes->len, 2);
    assert_true(json_equal(again.spec, o.spec));
    sm_run_options_clear(&again);
    assert_int_equal(sm_run_options_parse_stored(4, wrong, o.spec, &again, &error), -1);
    assert_non_null(strstr(error->message, "--spec: spec.json:"));
    g_clear_error(&error);
    assert_int_equal(sm_run_options_parse(5, argv, &again, &error), -1);
    assert_true(g_str_has_prefix(error->message, "--spec="));
    assert_non_null(strstr(error->message, "No such file"));
    sm_run_options_clear(&o);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),  cmocka_unit_test(test_little), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
