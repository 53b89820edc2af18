/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of `run`: what is taken and as what, what is refused and in which words; and the messages that are made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "core/config.h"
#include "launch/dryrun.h"
#include "launch/hidden.h"
#include "launch/messages.h"
#include "nat/config.h"
#include "launch/options.h"
#include "launch/reload.h"
#include "launch/state.h"

static char dir[64];

/** Arguments behind "run", separated by one space; "''" is an empty one. */
static int parse(const char *args, struct sm_run_options *o, GError **error, char ***ret_argv)
{
    g_autofree char *line = g_strconcat("run ", args, NULL);
    char **argv = g_strsplit(line, " ", -1);
    int argc = (int)g_strv_length(argv);
    if (argv[argc - 1][0] == '\0') {
        g_free(argv[--argc]);
        argv[argc] = NULL;
    }
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "''") == 0)
            argv[i][0] = '\0';
    memset(o, 0, sizeof(*o));
    int r = sm_run_options_parse(argc, argv, o, error);
    *ret_argv = argv;
    return r;
}

static void good(const char *args, struct sm_run_options *o, char ***ret_argv)
{
    g_autoptr(GError) error = NULL;
    if (parse(args, o, &error, ret_argv) < 0)
        fail_msg("'%s': %s", args, error->message);
}

static void test_defaults(void **state)
{
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    good("curl -s https://ok.test/", &o, &argv);
    assert_int_equal(o.mode, SM_MODE_GUARDED);
    assert_true(o.name_generated);
    assert_true(sm_state_name_check(o.name, NULL));
    assert_true(g_str_has_prefix(o.name, "run-") && strlen(o.name) == 12);
    assert_int_equal(o.net.mtu, 1500);
    assert_int_equal(o.dns_qps, 100);
    assert_int_equal(o.audit_max_bytes, 1 << 30);
    assert_int_equal(o.net.mode, SM_NETWORK_USER);
    assert_false(o.opaque || o.ro || o.audit_sync || o.help || o.rootfs || o.state_dir);
    assert_int_equal(o.warnings->len, 0);
    assert_string_equal(o.argv[0], "curl");
    assert_string_equal(o.argv[1], "-s"); /* CMD's own */
    sm_run_options_clear(&o);
}

static void test_everything(void **state)
{
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    char text[SM_ENTRY_STRLEN], end[SM_ENDPOINT_STRLEN];
    good("--egress=strict --egress-allow ok.test --egress-allow=.PyPI.org.:443 --egress-passthrough 10.0.0.0/8 "
         "--egress-deny evil.test "
         "--egress-inside 203.0.113.0/24 --egress-inside=2001:db8::/32 --egress-opaque --egress-dns-qps 0 --dns "
         "192.0.2.53 --dns=[2001:db8::1]:5353 "
         "--mtu=65520 --name a.B_c-9 --state-dir relative/../x --audit-sync --audit-max-bytes 2M --datapath slirp "
         "--network user --ro --rootfs / "
         "--bind /tmp --bind /etc:/mnt/../e -- --egress off",
         &o, &argv);
    assert_int_equal(o.mode, SM_MODE_STRICT);
    assert_int_equal(sm_lists_count(o.lists, SM_LIST_ALLOW), 2);
    assert_string_equal(sm_entry_format(sm_lists_get(o.lists, SM_LIST_ALLOW, 1), text), ".pypi.org:443");
    assert_int_equal(sm_lists_count(o.lists, SM_LIST_PASSTHROUGH), 1);
    assert_int_equal(sm_lists_count(o.lists, SM_LIST_DENY), 1);
    assert_string_equal(g_ptr_array_index(o.inside, 1), "2001:db8::/32");
    assert_int_equal(o.dns_qps, 0);
    assert_int_equal(o.n_dns, 2);
    assert_string_equal(sm_endpoint_format(&o.dns[0], end), "192.0.2.53:53");
    assert_string_equal(sm_endpoint_format(&o.dns[1], end), "[2001:db8::1]:5353");
    assert_int_equal(o.net.mtu, 65520);
    assert_string_equal(o.name, "a.B_c-9");
    assert_false(o.name_generated);
    assert_true(g_path_is_absolute(o.state_dir) && g_str_has_suffix(o.state_dir, "/x") && !strstr(o.state_dir, ".."));
    assert_int_equal(o.audit_max_bytes, 2 << 20);
    assert_true(o.opaque && o.audit_sync && o.ro);
    assert_string_equal(o.rootfs, "/");
    assert_string_equal(g_ptr_array_index(o.binds, 0), "/tmp:/tmp");
    assert_string_equal(g_ptr_array_index(o.binds, 1), "/etc:/e");
    assert_string_equal(o.argv[0], "--egress"); /* behind "--" nothing is a flag */
    assert_string_equal(o.argv[1], "off");
    sm_run_options_clear(&o);
}

static void test_caps(void **state)
{
    static const struct {
        const char *args;
        struct sm_caps_limits caps;
        bool counts;
    } cases[] = {
        {"x", {0, 0, 0}, false},
        {"--egress-max-bps 1 x", {1, 0, 0}, true},
        {"--egress-max-bps 1000000 x", {1000000, 0, 0}, true},
        {"--egress-max-bps=3M x", {3 << 20, 0, 0}, true},
        {"--egress-max-bps 1024G x", {UINT64_C(1) << 40, 0, 0}, true},
        {"--egress-max-total-bytes 7K x", {0, 7168, 0}, true},
        {"--egress-max-total-bytes 4294967296G x", {0, UINT64_C(1) << 62, 0}, true},
        {"--egress strict --egress-allow a.test --egress-max-conns 50 x", {0, 0, 50}, false},
        {"--egress-max-conns 1K --egress-max-total-bytes 1G --egress-max-bps 10M x", {10 << 20, 1 << 30, 1024}, true},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        good(cases[i].args, &o, &argv);
        assert_memory_equal(&o.caps, &cases[i].caps, sizeof(o.caps));
        assert_int_equal(sm_run_options_counts(&o), cases[i].counts);
        assert_int_equal(o.warnings->len, 0);
        sm_run_options_clear(&o);
    }
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    good("--network isolated --egress-max-bps 1M x", &o, &argv);
    assert_false(sm_run_options_counts(&o));
    assert_int_equal(o.warnings->len, 1);
    assert_non_null(strstr(g_ptr_array_index(o.warnings, 0), "--egress-max-"));
    sm_run_options_clear(&o);
}

static void test_modes(void **state)
{
    static const struct {
        const char *args;
        enum sm_mode mode;
    } cases[] = {
        {"--egress guarded x", SM_MODE_GUARDED}, {"--egress '' x", SM_MODE_GUARDED}, {"--egress= x", SM_MODE_GUARDED},
        {"--egress strict x", SM_MODE_STRICT},   {"--egress off x", SM_MODE_OFF},    {"--egress open x", SM_MODE_OFF},
        {"--egress disabled x", SM_MODE_OFF},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        good(cases[i].args, &o, &argv);
        assert_int_equal(o.mode, cases[i].mode);
        sm_run_options_clear(&o);
    }
}

/** Each error names the flag, the value and what to do; nothing of the result is touched. */
static void test_refused(void **state)
{
    static const struct {
        const char *args, *words[3];
        enum sm_error_code code;
    } cases[] = {
        {"--egress wide x", {"--egress=wide: ", "guarded", "strict"}, SM_ERROR_INVALID},
        {"--egress Strict x", {"--egress=Strict: "}, SM_ERROR_INVALID},
        {"--egress", {"--egress: lacks its value", "--egress MODE"}, SM_ERROR_INVALID},
        {"--egress strict --egress guarded x", {"--egress=guarded: given twice"}, SM_ERROR_INVALID},
        {"--egress-opaque --egress-opaque x", {"--egress-opaque: given twice"}, SM_ERROR_INVALID},
        {"--egress-opaque=yes x", {"--egress-opaque=yes: takes no value"}, SM_ERROR_INVALID},
        {"--egress-allow '' x", {"--egress-allow=: "}, SM_ERROR_INVALID},
        {"--egress-allow .com x", {"--egress-allow=.com: ", "public suffix"}, SM_ERROR_INVALID},
        {"--egress-passthrough http://ok.test x", {"--egress-passthrough=http://ok.test: "}, SM_ERROR_INVALID},
        {"--egress-deny *.ok.test x", {"--egress-deny=*.ok.test: "}, SM_ERROR_INVALID},
        {"--egress-inside 10.0.0.1/8 x", {"--egress-inside=10.0.0.1/8: ", "203.0.113.0/24"}, SM_ERROR_INVALID},
        {"--egress-inside ten x", {"--egress-inside=ten: "}, SM_ERROR_INVALID},
        {"--egress-dns-qps -1 x", {"--egress-dns-qps=-1: "}, SM_ERROR_INVALID},
        {"--egress-dns-qps 1e3 x", {"--egress-dns-qps=1e3: "}, SM_ERROR_INVALID},
        {"--egress-dns-qps 1000001 x", {"--egress-dns-qps=1000001: "}, SM_ERROR_INVALID},
        {"--dns nowhere x", {"--dns=nowhere: ", "192.0.2.53"}, SM_ERROR_INVALID},
        {"--dns 0.0.0.0 x", {"--dns=0.0.0.0: "}, SM_ERROR_INVALID},
        {"--dns :: x", {"--dns=::: "}, SM_ERROR_INVALID},
        {"--dns 192.0.2.1:0 x", {"--dns=192.0.2.1:0: "}, SM_ERROR_INVALID},
        {"--dns 192.0.2.1:65536 x", {"--dns=192.0.2.1:65536: "}, SM_ERROR_INVALID},
        {"--mtu 575 x", {"--mtu=575: ", "576"}, SM_ERROR_INVALID},
        {"--mtu 65521 x", {"--mtu=65521: ", "65520"}, SM_ERROR_INVALID},
        {"--mtu 0x600 x", {"--mtu=0x600: "}, SM_ERROR_INVALID},
        {"--mtu 99999999999999999999999 x", {"--mtu=999"}, SM_ERROR_INVALID},
        {"--audit-max-bytes 1023K x", {"--audit-max-bytes=1023K: ", "1M"}, SM_ERROR_INVALID},
        {"--audit-max-bytes 17179869184G x", {"--audit-max-bytes=17179869184G: "}, SM_ERROR_INVALID},
        {"--audit-max-bytes 5m x", {"--audit-max-bytes=5m: "}, SM_ERROR_INVALID},
        {"--audit-max-bytes G x", {"--audit-max-bytes=G: "}, SM_ERROR_INVALID},
        {"--name ../x y", {"--name=../x: ", "letters"}, SM_ERROR_INVALID},
        {"--name '' y", {"--name=: "}, SM_ERROR_INVALID},
        {"--name .hidden y", {"--name=.hidden: "}, SM_ERROR_INVALID},
        {"--name aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa y",
         {"--name=aaa", "63"},
         SM_ERROR_INVALID},
        {"--state-dir '' y", {"--state-dir=: "}, SM_ERROR_INVALID},
        {"--state-dir / y", {"--state-dir=/: "}, SM_ERROR_INVALID},
        {"--network host y", {"--network=host: ", "isolated"}, SM_ERROR_INVALID},
        {"--datapath vhost y", {"--datapath=vhost: ", "tproxy"}, SM_ERROR_INVALID},
        {"--rootfs /nonexistent y", {"--rootfs=/nonexistent: "}, SM_ERROR_INVALID},
        {"--rootfs /etc/passwd y", {"--rootfs=/etc/passwd: "}, SM_ERROR_INVALID},
        {"--bind /nonexistent y", {"--bind=/nonexistent: "}, SM_ERROR_INVALID},
        {"--bind /etc:relative y", {"--bind=/etc:relative: ", "SRC:DST"}, SM_ERROR_INVALID},
        {"--bind /etc:/a:ro y", {"--bind=/etc:/a:ro: "}, SM_ERROR_INVALID},
        {"--egress-policy /nonexistent.yaml y", {"--egress-policy=/nonexistent.yaml: "}, SM_ERROR_INVALID},
        {"--egress-policy /dev/null y", {"--egress-policy=/dev/null: not a regular file"}, SM_ERROR_INVALID},
        {"--egress-alow ok.test y", {"--egress-alow: unknown flag", "did you mean --egress-allow?"}, SM_ERROR_INVALID},
        {"--nmae y z", {"--nmae: unknown flag", "did you mean --name?"}, SM_ERROR_INVALID},
        {"--no-such-thing y", {"--no-such-thing: unknown flag", "run --help"}, SM_ERROR_INVALID},
        {"-e y", {"-e: unknown flag"}, SM_ERROR_INVALID},
        {"--json y", {"--json: ", "--dry-run"}, SM_ERROR_INVALID},
        {"--spec f y", {"--spec=f: cannot be read"}, SM_ERROR_INVALID},
        {"--mediation 1:2:3 y", {"--mediation=1:2:3: ", "PORT=HOST:PORT"}, SM_ERROR_INVALID},
        {"--mediation 1=[::1]:80 --mediation-optional 1=a:80 y",
         {"--mediation-optional=1=a:80: ", "leads to [::1]:80 already"},
         SM_ERROR_INVALID},
        {"--guest-cid 3 y", {"--guest-cid: unknown flag"}, SM_ERROR_INVALID},
        {"--network isolated --mediation 1=a:80 y", {"--network isolated: "}, SM_ERROR_INVALID},
        {"--publish 80 y", {"--publish=80: ", "HOST:HOSTPORT:GUESTPORT/tcp"}, SM_ERROR_INVALID},
        {"--publish 8080:80/udp y", {"--publish=8080:80/udp: only tcp"}, SM_ERROR_INVALID},
        {"--publish 8080:80 --publish 127.0.0.1:8080:81 y",
         {"--publish=127.0.0.1:8080:81: its address is that of 127.0.0.1:8080:80/tcp"},
         SM_ERROR_INVALID},
        {"--network isolated --publish 8080:80 y", {"--publish=127.0.0.1:8080:80/tcp: ", "isolated"}, SM_ERROR_INVALID},
        {"--egress-swap-config=f y", {"--egress-swap-config=f: cannot be read"}, SM_ERROR_INVALID},
        {"--egress-max-bps 0 y", {"--egress-max-bps=0: ", "from 1 to 1024G"}, SM_ERROR_INVALID},
        {"--egress-max-bps 1025G y", {"--egress-max-bps=1025G: "}, SM_ERROR_INVALID},
        {"--egress-max-bps 1m y", {"--egress-max-bps=1m: "}, SM_ERROR_INVALID},
        {"--egress-max-bps -1 y", {"--egress-max-bps=-1: "}, SM_ERROR_INVALID},
        {"--egress-max-bps 1M --egress-max-bps 2M y", {"--egress-max-bps=2M: given twice"}, SM_ERROR_INVALID},
        {"--egress-max-total-bytes 0K y", {"--egress-max-total-bytes=0K: ", "without the flag"}, SM_ERROR_INVALID},
        {"--egress-max-total-bytes 4294967297G y", {"--egress-max-total-bytes=4294967297G: "}, SM_ERROR_INVALID},
        {"--egress-max-total-bytes 18446744073709551617 y", {"--egress-max-total-bytes="}, SM_ERROR_INVALID},
        {"--egress-max-conns 0 y", {"--egress-max-conns=0: ", "1 to 1048576"}, SM_ERROR_INVALID},
        {"--egress-max-conns 1.5 y", {"--egress-max-conns=1.5: "}, SM_ERROR_INVALID},
        {"--egress off --egress-max-conns 5 y", {"--egress-max-conns: ", "--egress off", "guarded"}, SM_ERROR_INVALID},
        {"--egress-max-bps 5M --egress off y", {"--egress-max-bps: ", "--egress off"}, SM_ERROR_INVALID},
        {"--egress off --egress-max-total-bytes 1 y", {"--egress-max-total-bytes: "}, SM_ERROR_INVALID},
        {"", {"no command"}, SM_ERROR_INVALID},
        {"--egress strict --", {"no command"}, SM_ERROR_INVALID},
        {"''", {"the command is an empty text"}, SM_ERROR_INVALID},
        {"echo \xff", {"argument 1 of the command is not UTF-8"}, SM_ERROR_INVALID},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        if (parse(cases[i].args, &o, &error, &argv) == 0)
            fail_msg("'%s' was taken", cases[i].args);
        assert_non_null(error);
        for (size_t w = 0; w < 3 && cases[i].words[w]; w++)
            if (!strstr(error->message, cases[i].words[w]))
                fail_msg("'%s': '%s' lacks '%s'", cases[i].args, error->message, cases[i].words[w]);
        assert_true(g_error_matches(error, SM_ERROR, (int)cases[i].code));
        assert_true(g_utf8_validate(error->message, -1, NULL));
        assert_null(o.name); /* untouched */
    }
}

static void test_publishes(void **state)
{
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;
    char text[SM_PUBLISH_STRLEN];

    (void)state;
    /* Any free port may be asked for more than once. */
    good("--publish 0:80/tcp --publish 0:80 --publish [::1]:8080:80/tcp --publish 0.0.0.0:8080:1 x", &o, &argv);
    static const char *const want[] = {"127.0.0.1:0:80/tcp", "127.0.0.1:0:80/tcp", "[::1]:8080:80/tcp",
                                       "0.0.0.0:8080:1/tcp"};
    assert_int_equal(o.publishes->len, SM_ARRAY_LEN(want));
    for (guint i = 0; i < o.publishes->len; i++)
        assert_string_equal(sm_publish_format(&g_array_index(o.publishes, struct sm_publish, i), text), want[i]);
    g_autofree char *settings = sm_message_settings(&o, &error);
    assert_non_null(strstr(settings, "\"publishes\":[{\"host\":\"127.0.0.1\",\"hostPort\":0,\"guestPort\":80,"));
    sm_run_options_clear(&o);
}

/** What was written into a file, loaded into the running workspace. */
static char *load_again(struct sm_policy_source *source, const char *path, GError **error)
{
    json_t *counts = NULL;
    char *text = source->load(source->data, path, &counts, error);
    assert_int_equal(text != NULL, counts != NULL);
    json_decref(counts);
    return text;
}

static void write_file(const char *path, const char *text)
{
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void test_reload(void **state)
{
    g_autofree char *first = g_build_filename(dir, "first.yaml", NULL);
    g_autofree char *second = g_build_filename(dir, "second.json", NULL);
    g_autofree char *args =
        g_strdup_printf("--egress strict --egress-allow flag.test --egress-deny no.test --egress-policy %s x", first);
    g_auto(GStrv) argv = NULL;
    struct sm_run_options o;

    (void)state;
    write_file(first, "allow: [one.test]\n");
    good(args, &o, &argv);
    sm_cleanup(sm_reload_free) struct sm_reload *reload = sm_reload_new(&o);
    struct sm_policy_source source = sm_reload_source(reload);
    {
        g_autofree char *same = load_again(&source, NULL, NULL);
        assert_string_equal(same, "{\"allow\":[\"flag.test\",\"one.test\"],\"passthrough\":[],\"deny\":[\"no.test\"]}");
        source.settled(source.data, true);
    }
    {
        /* The file's new text; what was in it and is not any more is gone, the flags stay. */
        write_file(first, "passthrough: [two.test]\n");
        g_autofree char *other = load_again(&source, NULL, NULL);
        assert_string_equal(other, "{\"allow\":[\"flag.test\"],\"passthrough\":[\"two.test\"],\"deny\":[\"no.test\"]}");
        source.settled(source.data, true);
    }
    static const char *const wrong[] = {"allow: [one.test]\ndeny: [x.test]\n", "allow:\n  - .com\n", "allow: x\n"};
    static const char *const lines[] = {":2: ", ":2: ", ":1: "};
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        g_autoptr(GError) error = NULL;
        write_file(first, wrong[i]);
        assert_null(load_again(&source, NULL, &error));
        g_autofree char *place = g_strconcat(first, lines[i], NULL);
        if (!g_str_has_prefix(error->message, place))
            fail_msg("'%s' does not begin with '%s'", error->message, place);
    }
    {
        g_autoptr(GError) error = NULL;
        assert_null(load_again(&source, "/nonexistent.yaml", &error));
        assert_true(g_str_has_prefix(error->message, "/nonexistent.yaml: cannot be read"));
        g_clear_error(&error);
        assert_null(load_again(&source, "relative.yaml", &error));
        assert_non_null(strstr(error->message, "absolute"));
    }
    write_file(second, "{\"allow\": [\"three.test\"]}");
    {
        /* One that the core did not take is not the one that is read again. */
        g_autofree char *three = load_again(&source, second, NULL);
        assert_non_null(strstr(three, "three.test"));
        source.settled(source.data, false);
        write_file(first, "allow: [one.test]\n");
        g_autofree char *one = load_again(&source, NULL, NULL);
        assert_non_null(strstr(one, "one.test"));
        source.settled(source.data, true);
    }
    {
        g_autofree char *three = load_again(&source, second, NULL);
        source.settled(source.data, true);
        g_autofree char *again = load_again(&source, NULL, NULL);
        assert_string_equal(again, three);
        assert_null(strstr(again, "one.test"));
        source.settled(source.data, true);
    }
    sm_run_options_clear(&o);
    (void)unlink(first);
    (void)unlink(second);
}

/** What could not have been started with is not loaded: a credential whose host is not listed any more, mode off, no file. */
static void test_reload_refused(void **state)
{
    g_autofree char *file = g_build_filename(dir, "swap.yaml", NULL);
    static const struct {
        const char *args, *text, *why;
    } cases[] = {
        {"--cred-swap openai=env:X --egress-policy", "passthrough: [api.openai.com]\n", "passthrough"},
        {"--cred-swap openai=env:X --egress-policy", "allow: [a.test]\n", NULL},
        {"--egress guarded", NULL, "started without --egress-policy"},
        {"--egress off", NULL, "nothing is judged"},
    };

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        g_autofree char *args =
            g_strdup_printf("%s%s%s x", cases[i].args, cases[i].text ? " " : "", cases[i].text ? file : "");
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        struct sm_run_options o;
        write_file(file, "allow: [api.openai.com]\n");
        good(args, &o, &argv);
        sm_cleanup(sm_reload_free) struct sm_reload *reload = sm_reload_new(&o);
        struct sm_policy_source source = sm_reload_source(reload);
        write_file(file, cases[i].text ? cases[i].text : "");
        g_autofree char *text = load_again(&source, NULL, &error);
        assert_int_equal(text != NULL, cases[i].why == NULL);
        if (cases[i].why && !strstr(error->message, cases[i].why))
            fail_msg("'%s' lacks '%s'", error->message, cases[i].why);
        sm_run_options_clear(&o);
    }
    (void)unlink(file);
}

static void test_policy_file(void **state)
{
    g_autofree char *path = g_build_filename(dir, "p.yaml", NULL);
    g_autofree char *both = g_strdup_printf("--egress strict --egress-policy %s --egress-allow b.test x", path);
    g_autofree char *off = g_strdup_printf("--egress off --egress-policy %s x", path);
    struct sm_run_options o;
    g_autoptr(GError) error = NULL;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs("allow:\n  - a.test\npassthrough: [c.test]\n", f);
    (void)fclose(f);
    {
        g_auto(GStrv) argv = NULL;
        good(both, &o, &argv);
        assert_int_equal(sm_lists_count(o.lists, SM_LIST_ALLOW), 2);
        assert_int_equal(sm_lists_count(o.lists, SM_LIST_PASSTHROUGH), 1);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        assert_int_equal(parse(off, &o, &error, &argv), -1);
        assert_non_null(strstr(error->message, "--egress-policy="));
        g_clear_error(&error);
    }
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs("allow:\n  - a.test\nalow: []\n", f);
    (void)fclose(f);
    {
        g_auto(GStrv) argv = NULL;
        g_autofree char *place = g_strconcat(path, ":3", NULL);
        assert_int_equal(parse(both, &o, &error, &argv), -1);
        assert_non_null(strstr(error->message, "--egress-policy"));
        assert_non_null(strstr(error->message, place));
    }
    (void)unlink(path);
}

/** A self-signed certificate and its key, as PEM. */
static void make_certificate(const char *name, char **ret_cert, char **ret_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *cert = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());
    char *data;

    assert_true(key && x && cert && secret);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(x), 0);
    (void)X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    (void)X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
                                     0);
    (void)X509_set_issuer_name(x, X509_get_subject_name(x));
    (void)X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_bio_X509(cert, x), 1);
    assert_int_equal(PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL), 1);
    long n = BIO_get_mem_data(cert, &data);
    *ret_cert = g_strndup(data, (gsize)n);
    n = BIO_get_mem_data(secret, &data);
    *ret_key = g_strndup(data, (gsize)n);
    X509_free(x);
    EVP_PKEY_free(key);
    (void)BIO_free(cert);
    (void)BIO_free(secret);
}

static void test_ca_files(void **state)
{
    struct sm_run_options o;
    g_autofree char *one = NULL, *two = NULL, *key = NULL, *key2 = NULL;
    make_certificate("one", &one, &key);
    make_certificate("two", &two, &key2);
    g_autofree char *a = g_build_filename(dir, "a.pem", NULL);
    g_autofree char *b = g_build_filename(dir, "b.pem", NULL);
    g_autofree char *args = g_strdup_printf("--egress-ca-file %s --egress-ca-file=%s --egress-log-query x", a, b);
    /* Comments, also such as JSON could not hold, stay behind. */
    g_autofree char *commented = g_strdup_printf("friendlyName: caf\xe9\n%s# end\n", one);
    g_autofree char *both = g_strconcat(one, two, NULL);

    assert_true(g_file_set_contents(a, commented, -1, NULL));
    assert_true(g_file_set_contents(b, two, -1, NULL));
    {
        g_auto(GStrv) argv = NULL;
        struct sm_launch_ground ground = {.resolv_conf = "", .cwd = "/"};
        good(args, &o, &argv);
        assert_string_equal(o.extra_roots->str, both);
        assert_true(o.log_query);
        assert_int_equal(o.warnings->len, 0);
        g_autofree char *core = sm_message_core(&o, &ground, NULL);
        g_autofree char *settings = sm_message_settings(&o, NULL);
        json_t *j = json_loads(core, 0, NULL);
        const char *roots;
        int log_query;
        assert_int_equal(json_unpack(j, "{s:s s:b}", "extra_roots", &roots, "log_query", &log_query), 0);
        assert_string_equal(roots, both);
        assert_true(log_query);
        json_decref(j);
        j = json_loads(settings, 0, NULL);
        const char *kept[2];
        assert_int_equal(json_unpack(j, "{s:[s,s!] s:b}", "ca_files", &kept[0], &kept[1], "log_query", &log_query), 0);
        assert_string_equal(kept[0], a);
        assert_string_equal(kept[1], b);
        json_decref(j);
        sm_run_options_clear(&o);
    }
    /* Where nothing is intercepted the file does nothing, and that is said. */
    static const char *const modes[] = {"--egress off", "--egress-opaque", "--network isolated"};
    for (size_t i = 0; i < SM_ARRAY_LEN(modes); i++) {
        g_auto(GStrv) argv = NULL;
        g_autofree char *with = g_strdup_printf("%s --egress-ca-file %s x", modes[i], a);
        good(with, &o, &argv);
        assert_false(sm_run_options_intercepts(&o));
        assert_int_equal(o.warnings->len, 1);
        sm_run_options_clear(&o);
    }

    g_autofree char *with_key = g_strconcat(one, key, NULL);
    g_autofree char *broken = g_strconcat(one, "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n", NULL);
    g_autofree char *cut = g_strndup(one, strlen(one) / 2);
    g_autofree char *large = g_strnfill((4u << 20) + 1, '#');
    const struct {
        const char *text, *word;
    } refused[] = {{"", "no certificate"},    {"hello\n", "no certificate"},
                   {with_key, "private key"}, {broken, "certificate 2 of it is broken"},
                   {cut, "broken"},           {large, "4 MiB"}};
    for (size_t i = 0; i < SM_ARRAY_LEN(refused); i++) {
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        g_autofree char *place = g_strdup_printf("--egress-ca-file=%s: ", a);
        assert_true(g_file_set_contents(a, refused[i].text, -1, NULL));
        assert_int_equal(parse(args, &o, &error, &argv), -1);
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        if (!g_str_has_prefix(error->message, place) || !strstr(error->message, refused[i].word))
            fail_msg("case %zu: %s", i, error->message);
    }
    (void)unlink(a);
    {
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        assert_int_equal(parse(args, &o, &error, &argv), -1);
        assert_non_null(strstr(error->message, "cannot be read"));
    }
    (void)unlink(b);
}

static char *swap_file(const char *name, const char *text)
{
    char *path = g_build_filename(dir, name, NULL);
    assert_true(g_file_set_contents(path, text, -1, NULL));
    return path;
}

static void test_swaps(void **state)
{
    assert_int_equal(setenv("VAULT_ADDR", "https://vault.test:8200", 1), 0);
    g_autofree char *path = swap_file("s.yaml", "swaps:\n"
                                                "  corp:\n"
                                                "    type: jwt-bearer\n"
                                                "    domains: [api.corp.test, .eu.corp.test]\n"
                                                "    signing_key_ref: file:keys/corp\n"
                                                "    algorithm: ES256\n"
                                                "    claims: {iss: '${SM_TEST_TEAM}'}\n");
    g_autofree char *args =
        g_strdup_printf("--cred-swap openai --egress strict --egress-allow .corp.test --egress-swap-config %s "
                        "--cred-swap=gemini=file:gem/../key --cred-swap groq=vault:kv/groq#key x",
                        path);
    struct sm_launch_ground ground = {.resolv_conf = "", .cwd = "/", .nofile = -1, .core = -1};
    char base[] = "/state";
    struct sm_workspace ws = {.base = base, .base_fd = -1, .dirfd = -1, .lock_fd = -1};
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;

    g_setenv("SM_TEST_TEAM", "red", TRUE);
    good(args, &o, &argv);
    assert_int_equal(sm_swaps_count(o.swaps), 4);
    assert_string_equal(sm_swaps_match(o.swaps, "x.eu.corp.test")->name, "corp");
    assert_string_equal(sm_swaps_match(o.swaps, "api.openai.com")->key_ref->text, "env:OPENAI_API_KEY");
    assert_int_equal(sm_lists_count(o.lists, SM_LIST_ALLOW), 4); /* three of them by --cred-swap */

    /* Relative paths: of a file from its folder, of a flag from where we are. */
    g_autofree char *of_file = g_build_filename(dir, "keys/corp", NULL);
    g_autofree char *of_flag = g_canonicalize_filename("key", NULL);
    g_auto(GStrv) hidden = sm_swaps_hidden_files(o.swaps);
    ground.hidden = hidden;
    g_autofree char *guest = sm_message_guest(&o, &ws, &ground, &error);
    json_t *j = json_loads(guest, 0, NULL);
    const char *masks[2], *unset[3];
    assert_int_equal(json_unpack(j, "{s:[s,s!] s:[s,s,s!]}", "masks", &masks[0], &masks[1], "unset_env", &unset[0],
                                 &unset[1], &unset[2]),
                     0);
    assert_string_equal(masks[0], of_file);
    assert_string_equal(masks[1], of_flag);
    assert_string_equal(unset[0], "OPENAI_API_KEY");
    assert_string_equal(unset[1], "VAULT_TOKEN");
    assert_string_equal(unset[2], "SM_TEST_TEAM");
    json_decref(j);

    /* The core takes what the launcher writes, and numbers references as the launcher does. */
    g_autofree char *core = sm_message_core(&o, &ground, &error);
    struct sm_core_config *config = sm_core_config_load(core, strlen(core), &error);
    if (!config)
        fail_msg("%s", error->message);
    assert_int_equal(sm_swaps_count(config->swaps), 4);
    for (size_t i = 0; i < sm_swaps_ref_count(o.swaps); i++)
        assert_string_equal(sm_swaps_ref(config->swaps, i)->text, sm_swaps_ref(o.swaps, i)->text);
    assert_string_equal(
        json_string_value(json_object_get(sm_swaps_match(config->swaps, "api.corp.test")->claims, "iss")), "red");
    sm_core_config_free(config);
    g_autofree char *settings = sm_message_settings(&o, NULL);
    assert_null(strstr(settings, "\"red\""));
    sm_run_options_clear(&o);
    g_unsetenv("SM_TEST_TEAM");
    {
        g_auto(GStrv) again = NULL;
        g_autofree char *place =
            g_strconcat(path, ":7: swap 'corp': claims: iss: the variable SM_TEST_TEAM is not set", NULL);
        assert_int_equal(parse(args, &o, &error, &again), -1);
        assert_true(g_str_has_prefix(error->message, "--egress-swap-config: "));
        assert_non_null(strstr(error->message, place));
    }
    (void)unlink(path);
    assert_int_equal(unsetenv("VAULT_ADDR"), 0);
}

/** A domain that a credential could not go to, and values that are none, among them secrets in the wrong place. */
/* What the engines want of an entry, and of the environment, before anything is started. */
static void test_swaps_vault(void **state)
{
    static const struct {
        const char *addr, *ref, *want;
    } rows[] = {
        {NULL, "vault:kv/a#b", "vault:kv/a#b: VAULT_ADDR is not set"},
        {"", "vault:kv/a#b", "vault:kv/a#b: VAULT_ADDR is not set"},
        {"http://vault.test", "vault:kv/a#b", "VAULT_ADDR: "},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autofree char *line = g_strdup_printf("--cred-swap openai=%s x", rows[i].ref);
        g_auto(GStrv) argv = g_strsplit(line, " ", -1);
        g_autoptr(GPtrArray) args = g_ptr_array_new();
        struct sm_run_options o;
        g_autoptr(GError) error = NULL;
        char run[] = "run";
        if (rows[i].addr)
            assert_int_equal(setenv("VAULT_ADDR", rows[i].addr, 1), 0);
        else
            assert_int_equal(unsetenv("VAULT_ADDR"), 0);
        g_ptr_array_add(args, run);
        for (size_t k = 0; argv[k]; k++)
            g_ptr_array_add(args, argv[k]);
        g_ptr_array_add(args, NULL);
        assert_int_equal(sm_run_options_parse((int)args->len - 1, (char **)args->pdata, &o, &error), -1);
        if (!strstr(error->message, rows[i].want))
            print_error("%s\n", error->message);
        assert_non_null(strstr(error->message, rows[i].want));
    }
    assert_int_equal(unsetenv("VAULT_ADDR"), 0);
}

static void test_swaps_refused(void **state)
{
    g_autofree char *path = swap_file(
        "s.yaml",
        "swaps:\n  one:\n    type: static\n    domains:\n      - a.test\n      - .b.test\n    key_ref: env:K\n");
    g_autofree char *openai =
        swap_file("o.yaml", "swaps:\n  openai:\n    type: static\n    domains: [o.test]\n    key_ref: env:K\n");
    g_autofree char *host = swap_file(
        "h.json", "{\"swaps\": {\"h\": {\"type\": \"static\", \"domains\":\n[\"api.openai.com\"], \"key_ref\": "
                  "\"env:K\"}}}");
    g_autofree char *literal =
        swap_file("l.yaml", "swaps:\n  l:\n    type: static\n    domains: [o.test]\n    key_ref: sk-CANARY\n");
    const struct {
        const char *flags, *file, *says; /* says NULL: it is taken */
    } cases[] = {
        {"--egress-allow a.test --egress-allow .b.test", path, NULL},
        {"--egress-allow .a.test --egress-allow .b.test", path, NULL},
        {"--egress-allow a.test:443 --egress-allow .b.test:8443", path, NULL},
        {"--egress-allow a.test:8443 --egress-allow .b.test", path, NULL},
        {"--egress strict --egress-allow a.test --egress-allow .b.test --egress-passthrough x.b.test", path, NULL},
        {"--egress-allow a.test --egress-allow .b.test --egress-passthrough .a.test --egress-passthrough .c.b.test",
         path, NULL},
        {"--egress-allow a.test --egress-allow .b.test --egress-passthrough a.test:22", path, NULL},
        {"--egress-allow a.test --egress-allow .b.test --egress-deny x.b.test", path, NULL},
        {"", path, "s.yaml:5: swap 'one': 'a.test' is not listed: add --egress-allow a.test"},
        {"--egress-allow 203.0.113.0/24", path, "'a.test' is not listed"},
        {"--egress-allow a.test", path, "s.yaml:6: swap 'one': '.b.test' is not listed as a whole: add --egress-allow"},
        {"--egress-allow a.test --egress-allow b.test --egress-allow .x.b.test", path,
         "'.b.test' is not listed as a whole"},
        {"--egress-passthrough a.test --egress-allow .b.test", path, "'a.test' is passthrough by 'a.test'"},
        {"--egress-allow a.test --egress-passthrough a.test --egress-allow .b.test", path,
         "is passthrough by 'a.test'"},
        {"--egress-allow a.test --egress-passthrough a.test:443 --egress-allow .b.test", path, "by 'a.test:443'"},
        {"--egress-allow .a.test --egress-passthrough a.test --egress-allow .b.test", path,
         "is passthrough by 'a.test'"},
        {"--egress-allow a.test --egress-passthrough .b.test", path, "'.b.test' is not listed as a whole"},
        {"--egress-allow a.test --egress-allow .b.test --egress-passthrough .b.test", path, "passthrough by '.b.test'"},
        {"--egress-allow a.test --egress-allow .b.test --egress-deny a.test", path, "'a.test' is denied by 'a.test'"},
        {"--egress-allow a.test --egress-allow .b.test --egress-deny .b.test", path,
         "'.b.test' is denied by '.b.test'"},
        {"--egress-allow a.test:8443 --egress-deny a.test:8443 --egress-allow .b.test", path,
         "'a.test' is denied by 'a.test:8443'"},
        {"--egress-passthrough a.test:8443 --egress-allow .b.test", path, "'a.test' is passthrough by 'a.test:8443'"},
        {"--egress off --egress-allow a.test --egress-allow .b.test", path, "--egress-swap-config: nothing is judged"},
        {"--egress-opaque --egress-allow a.test --egress-allow .b.test", path, "--egress-opaque"},
        {"--network isolated --egress-allow a.test --egress-allow .b.test", path, "--network isolated"},
        {"--egress-swap-config x.yaml", path, "given twice"},
        {"--egress-allow o.test --cred-swap openai", openai, "--cred-swap=openai: a swap 'openai' is there already"},
        {"--cred-swap openai", host,
         "--cred-swap=openai: domain 'api.openai.com' of swap 'openai' is there already, in 'h'"},
        {"--egress-allow o.test", literal, "l.yaml:5: swap 'l': key_ref: not a reference"},
        {"--cred-swap openai", NULL, NULL},
        {"--cred-swap openai --cred-swap openai=env:X", NULL, "--cred-swap=openai: a swap 'openai' is there already"},
        {"--cred-swap openai --egress-passthrough api.openai.com", NULL, "is passthrough"},
        {"--cred-swap openai --egress-deny .openai.com", NULL, "is denied by '.openai.com'"},
        {"--cred-swap openai --egress off", NULL, "--cred-swap: nothing is judged with --egress off"},
        {"--cred-swap openai --egress-opaque", NULL, "--cred-swap: no TLS is intercepted"},
        {"--cred-swap openai --network isolated", NULL, "--cred-swap: there are no requests"},
        {"--cred-swap opneai", NULL, "did you mean openai?"},
        {"--cred-swap OpenAI", NULL, "no such provider"},
        {"--cred-swap ''", NULL, "no such provider"},
        {"--cred-swap sk-ant-CANARY", NULL, "no such provider: write PROVIDER or PROVIDER=REF"},
        {"--cred-swap sk-ant-CANARY=env:X", NULL, "no such provider"},
        {"--cred-swap openai=", NULL, "--cred-swap=openai: empty"},
        {"--cred-swap openai=sk-CANARY", NULL, "--cred-swap=openai: not a reference"},
        {"--cred-swap=openai=env:sk-CANARY", NULL, "--cred-swap=openai: env:"},
        {"--cred-swap openai=vault:CANARY", NULL, "--cred-swap=openai: vault:"},
        {"--cred-swap", NULL, "lacks its value"},
        {"--dry-run=yes", NULL, "takes no value"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        bool bare = g_str_has_suffix(cases[i].flags, "--cred-swap");
        g_autofree char *args =
            g_strconcat(cases[i].file ? "--egress-swap-config=" : "", cases[i].file ? cases[i].file : "",
                        cases[i].file && cases[i].flags[0] ? " " : "", cases[i].flags, bare ? "" : " x", NULL);
        int r = parse(args, &o, &error, &argv);
        if (r == 0 && cases[i].says)
            fail_msg("'%s' was taken", args);
        if (r < 0 && (!cases[i].says || !strstr(error->message, cases[i].says)))
            fail_msg("'%s': %s", args, error->message);
        if (r < 0) {
            assert_null(strstr(error->message, "CANARY"));
            assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
            assert_true(g_str_has_prefix(error->message, "--"));
            assert_null(o.name); /* untouched */
        } else {
            sm_run_options_clear(&o);
        }
    }
    const char *const files[] = {path, openai, host, literal};
    for (size_t i = 0; i < SM_ARRAY_LEN(files); i++)
        (void)unlink(files[i]);
}

static void test_dry_run(void **state)
{
    g_autofree char *key = swap_file("key", "CANARY-in-a-file");
    g_autofree char *path = swap_file("d.yaml", "swaps:\n"
                                                "  corp:\n"
                                                "    type: oauth2-cc\n"
                                                "    domains: [api.corp.test, x.corp.test, y.corp.test]\n"
                                                "    header: X-Token\n"
                                                "    placeholder: CANARY-placeholder\n"
                                                "    token_url: https://id.corp.test/t?key=CANARY\n"
                                                "    client_id_ref: env:SM_TEST_ID\n"
                                                "    client_secret_ref: file:key\n"
                                                "  gh:\n"
                                                "    type: jwt-bearer\n"
                                                "    domains: [gh.test]\n"
                                                "    signing_key_ref: vault:kv/gh#pem\n"
                                                "    algorithm: RS256\n"
                                                "    claims: {iss: '${SM_TEST_TEAM}'}\n");
    g_autofree char *args =
        g_strdup_printf("--egress strict --egress-allow .corp.test --egress-allow gh.test "
                        "--egress-swap-config %s --cred-swap openai=env:SM_TEST_KEY --dry-run --json",
                        path);
    g_autofree char *with_command = g_strconcat(args, " echo CANARY-argument", NULL);
    static const struct {
        const char *id;
        mode_t mode;
        const char *id_problem, *file_problem;
        bool id_present;
    } cases[] = {
        {NULL, 0600, "not set", NULL, false},
        {"", 0640, "empty", "mode 0640", false},
        {"CANARY-id", 0400, NULL, NULL, true},
    };
    g_setenv("SM_TEST_TEAM", "CANARY-team", TRUE);
    g_setenv("SM_TEST_KEY", "CANARY-key", TRUE);
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        const char *present_problem;
        int id, file, openai;
        g_unsetenv("SM_TEST_ID");
        if (cases[i].id)
            g_setenv("SM_TEST_ID", cases[i].id, TRUE);
        assert_int_equal(chmod(key, cases[i].mode), 0);
        good(i ? args : with_command, &o, &argv);
        assert_true(o.dry_run && o.json);
        assert_int_equal(o.argv != NULL, i == 0); /* a dry run needs no command */
        json_t *d = sm_dry_run(&o);
        json_t *id_problem, *file_problem, *vault, *name;
        assert_non_null(d);
        assert_int_equal(json_unpack(d, "{s:[{s:[{s:b,s:o},{s:b,s:o}]},{s:[{s:o,s:s}]},{s:[{s:b}]}], s:o}", "swaps",
                                     "refs", "present", &id, "problem", &id_problem, "present", &file, "problem",
                                     &file_problem, "refs", "present", &vault, "problem", &present_problem, "refs",
                                     "present", &openai, "workspace", &name),
                         0);
        assert_int_equal(id, cases[i].id_present);
        assert_int_equal(g_strcmp0(json_string_value(id_problem), cases[i].id_problem), 0);
        assert_true(file);
        assert_int_equal(json_is_null(file_problem), !cases[i].file_problem);
        if (cases[i].file_problem)
            assert_true(g_str_has_prefix(json_string_value(file_problem), cases[i].file_problem));
        assert_true(json_is_false(vault));
        assert_string_equal(present_problem, "VAULT_ADDR is not set");
        assert_true(openai);
        assert_true(json_is_null(name));
        char *json = json_dumps(d, JSON_INDENT(2));
        g_autofree char *text = sm_dry_run_text(d);
        assert_null(strstr(json, "CANARY"));
        assert_null(strstr(text, "CANARY"));
        static const char *const shown[] = {"corp",
                                            "oauth2-cc",
                                            "api.corp.test",
                                            "y.corp.test",
                                            "X-Token",
                                            "{token}",
                                            "client_id_ref env:SM_TEST_ID",
                                            "gh.test",
                                            "vault:kv/gh#pem",
                                            "SM_TEST_TEAM",
                                            "openai",
                                            "Bearer {key}",
                                            "env:SM_TEST_KEY",
                                            "strict",
                                            "intercepted",
                                            "3 allowed"};
        for (size_t k = 0; k < SM_ARRAY_LEN(shown); k++)
            if (!strstr(text, shown[k]))
                fail_msg("'%s' is not in:\n%s", shown[k], text);
        free(json);
        json_decref(d);
        sm_run_options_clear(&o);
    }
    /* What is there instead of a file. */
    assert_int_equal(chmod(key, 0600), 0);
    static const struct {
        const char *ref, *problem;
    } files[] = {
        {"/nonexistent/key", "no such file"}, {"/proc", "not a regular file"}, {"/proc/self/setgroups", "empty"}};
    for (size_t i = 0; i < SM_ARRAY_LEN(files); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        g_autofree char *one = g_strdup_printf("--dry-run --cred-swap openai=file:%s", files[i].ref);
        int present;
        const char *problem;
        good(one, &o, &argv);
        json_t *d = sm_dry_run(&o);
        assert_int_equal(
            json_unpack(d, "{s:[{s:[{s:b,s:s}]}]}", "swaps", "refs", "present", &present, "problem", &problem), 0);
        assert_false(present);
        assert_string_equal(problem, files[i].problem);
        json_decref(d);
        sm_run_options_clear(&o);
    }
    g_unsetenv("SM_TEST_TEAM");
    g_unsetenv("SM_TEST_KEY");
    g_unsetenv("SM_TEST_ID");
    (void)unlink(key);
    (void)unlink(path);
}

static void test_warnings_and_help(void **state)
{
    struct sm_run_options o;
    {
        g_auto(GStrv) argv = NULL;
        good("--egress off --egress-deny evil.test x", &o, &argv);
        assert_int_equal(o.warnings->len, 1);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        good("--egress strict x", &o, &argv);
        assert_int_equal(o.warnings->len, 1);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        good("--egress strict --help", &o, &argv);
        assert_true(o.help);
        sm_run_options_clear(&o);
    }
    {
        g_auto(GStrv) argv = NULL;
        good("ls --help", &o, &argv); /* CMD's */
        assert_false(o.help);
        sm_run_options_clear(&o);
    }
    g_autofree char *help = sm_run_options_help(SM_COMMAND_RUN);
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);
    for (size_t i = 0; lines[i]; i++)
        assert_true(strlen(lines[i]) <= 100);
    assert_non_null(strstr(help, "--egress-passthrough ENTRY"));
    assert_non_null(strstr(help, "--keep-ca"));
}

static void test_suggest(void **state)
{
    static const char *const words[] = {"egress", "egress-allow", "name", "network"};
    assert_string_equal(sm_option_suggest("egres", words, 4), "egress");
    assert_string_equal(sm_option_suggest("nmae", words, 4), "name");
    assert_string_equal(sm_option_suggest("egress-alow", words, 4), "egress-allow");
    assert_null(sm_option_suggest("zzz", words, 4));
    assert_null(sm_option_suggest("", words, 4));
    assert_null(sm_option_suggest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", words, 4));
}

/** The keys that the children's decoders ask for, with the values that were given. */
/* A folder that holds nothing but credentials is hidden as a whole: a cover over a file does not outlast a rename. */
static void test_hidden(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("sm-hidden-XXXXXX", NULL);
    g_autofree char *own = g_build_filename(folder, "own", NULL), *mixed = g_build_filename(folder, "mixed", NULL);
    g_autofree char *key = g_build_filename(own, "key", NULL), *later = g_build_filename(own, "later", NULL);
    g_autofree char *among = g_build_filename(mixed, "key", NULL), *other = g_build_filename(mixed, "other", NULL);
    g_autofree char *link = g_build_filename(mixed, "link", NULL);
    char *files[] = {key, later, among, link, NULL}, *good[] = {key, later, NULL};

    (void)state;
    assert_int_equal(mkdir(own, 0755), 0);
    assert_int_equal(mkdir(mixed, 0700), 0);
    assert_true(g_file_set_contents(key, "k", 1, NULL) && g_file_set_contents(among, "k", 1, NULL) &&
                g_file_set_contents(other, "o", 1, NULL));
    assert_int_equal(symlink(key, link), 0);
    {
        g_auto(GStrv) hidden = sm_hidden_paths(files, folder, NULL);
        g_autofree char *all = g_strjoinv(" ", hidden);
        g_autofree char *want = g_strjoin(" ", key, own, later, among, link, NULL);
        assert_string_equal(all, want);
        assert_ptr_equal(sm_hidden_open(files, hidden), among);
        assert_null(sm_hidden_open(good, hidden));
    }
    for (unsigned i = 0; i < 4; i++) { /* a folder that CMD needs, that others write in, or that has something else */
        g_autofree char *more = g_build_filename(own, "more", NULL);
        assert_int_equal(chmod(own, i == 2 ? 0770 : 0700), 0);
        assert_true(i != 3 || g_file_set_contents(more, "m", 1, NULL));
        g_auto(GStrv) hidden = sm_hidden_paths(good, i == 0 ? own : folder, i == 1 ? own : NULL);
        assert_int_equal(g_strv_length(hidden), 2);
        assert_ptr_equal(sm_hidden_open(good, hidden), key);
    }
}

static void test_messages(void **state)
{
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;
    struct sm_launch_ground ground = {.resolv_conf = "nameserver 192.0.2.1\n",
                                      .seq_floor = 77,
                                      .counters = {.seq = 3, .bytes = {5, INT64_MAX}},
                                      .supervisor = 4,
                                      .cwd = "/tmp",
                                      .default_base = "/d",
                                      .hidden = (char *[]){NULL},
                                      .umask = 022,
                                      .nofile = 1024,
                                      .core = -1};
    char base[] = "/state";
    struct sm_workspace ws = {.base = base, .base_fd = -1, .dirfd = -1, .lock_fd = -1};
    good("--egress strict --egress-allow ok.test:443 --egress-deny .evil.test --egress-inside 198.51.100.0/24 --dns "
         "192.0.2.53 --mtu 9000 --name w --ro --egress-max-bps 2M --egress-max-conns 9 -- echo a",
         &o, &argv);

    g_autofree char *core = sm_message_core(&o, &ground, &error);
    json_t *j = json_loads(core, 0, NULL);
    const char *mode, *allow, *deny, *inside, *dns, *conf;
    json_int_t floor;
    assert_int_equal(json_unpack(j, "{s:s s:[s!] s:[] s:[s!] s:[s!] s:[s!] s:s s:{s:I s:b s:I}}", "mode", &mode,
                                 "allow", &allow, "passthrough", "deny", &deny, "inside", &inside, "dns", &dns,
                                 "resolv_conf", &conf, "audit", "seq_floor", &floor, "sync", &(int){0}, "max_bytes",
                                 &(json_int_t){0}),
                     0);
    assert_string_equal(mode, "strict");
    assert_string_equal(allow, "ok.test:443");
    assert_string_equal(deny, ".evil.test");
    assert_string_equal(inside, "198.51.100.0/24");
    assert_string_equal(dns, "192.0.2.53:53");
    assert_int_equal(floor, 77);
    json_int_t bps, total, conns, seq, up, down;
    assert_int_equal(json_unpack(j, "{s:{s:I s:I s:I s:{s:I s:I s:I !} !}}", "caps", "max_bps", &bps, "max_total_bytes",
                                 &total, "max_conns", &conns, "counters", "seq", &seq, "bytes_up", &up, "bytes_down",
                                 &down),
                     0);
    assert_true(bps == 2 << 20 && total == 0 && conns == 9 && seq == 3 && up == 5 && down == INT64_MAX);
    json_decref(j);

    g_autofree char *front = sm_message_front(&o, &error);
    j = json_loads(front, 0, NULL);
    int mtu, any;
    const char *port;
    assert_int_equal(json_unpack_ex(j, NULL, JSON_STRICT, "{s:s s:s s:s s:s s:s s:s s:[s!] s:[s!] s:i s:i s:b s:s}",
                                    "workspace", &mode, "mac", &mode, "gateway_mac", &mode, "guest", &mode, "gateway",
                                    &mode, "resolver", &mode, "dns", &mode, "routes", &mode, "prefix_len", &(int){0},
                                    "mtu", &mtu, "dns_any", &any, "port", &port),
                     0);
    assert_int_equal(mtu, 9000);
    assert_true(any);
    assert_string_equal(port, "tap-vnet");
    json_decref(j);

    g_autofree char *guest = sm_message_guest(&o, &ws, &ground, &error);
    j = json_loads(guest, 0, NULL);
    const char *arg, *state_dir, *mask;
    int ro, nofile, umask_;
    assert_int_equal(json_unpack(j, "{s:[s,s!] s:s s:[s!] s:b s:i s:i}", "argv", &arg, &mode, "state_dir", &state_dir,
                                 "masks", &mask, "ro", &ro, "nofile", &nofile, "umask", &umask_),
                     0);
    assert_string_equal(mode, "a");
    assert_string_equal(state_dir, "/state");
    assert_string_equal(mask, "/d");
    assert_true(ro);
    assert_int_equal(nofile, 1024);
    assert_int_equal(umask_, 022);
    json_decref(j);

    /* A path that JSON cannot hold is an error, not something else. */
    ground.cwd = "/tmp/\xff";
    assert_null(sm_message_guest(&o, &ws, &ground, &error));
    assert_non_null(strstr(error->message, "UTF-8"));

    g_autofree char *settings = sm_message_settings(&o, NULL);
    assert_null(strstr(settings, "echo")); /* CMD stays out of the file that stays */
    sm_run_options_clear(&o);
}

/* What the launcher writes of the vsock, the core and the front take. */
static void test_vsock(void **state)
{
    struct sm_run_options o;
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) argv = NULL;
    struct sm_launch_ground ground = {.resolv_conf = ""};

    good("--vsock v --vsock-ca-port 7 --mediation 5000=localhost:80 --mediation-optional 4294967294=[::1]:65535 "
         "--mediation-optional 1=192.0.2.1:1 y",
         &o, &argv);
    assert_int_equal(o.warnings->len, 0);
    assert_true(sm_vsock_resolve(&o.vsock, &error));
    g_autofree char *core = sm_message_core(&o, &ground, &error);
    struct sm_core_config *config = sm_core_config_load(core, strlen(core), &error);
    if (!config)
        fail_msg("%s", error->message);
    assert_int_equal(config->ca_port, 7);
    assert_int_equal(config->n_mediation, 3);
    assert_int_equal(config->mediation[0].port, 5000);
    assert_string_equal(config->mediation[0].text, "localhost:80");
    assert_true(config->mediation[0].required);
    assert_true(config->mediation[0].n_addrs >= 1);
    assert_int_equal(config->mediation[0].addrs[0].port, 80);
    assert_int_equal(config->mediation[1].port, 4294967294u);
    assert_false(config->mediation[1].required);
    assert_int_equal(config->mediation[1].addrs[0].addr.family, SM_FAMILY_V6);
    assert_int_equal(config->mediation[1].addrs[0].port, 65535);
    sm_core_config_free(config);

    g_autofree char *settings = sm_message_settings(&o, NULL);
    json_t *j = json_loads(settings, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(json_object_get(j, "vsock"), "mediation")), 3);
    json_decref(j);
    g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(struct sm_listen_spec));
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    sm_vsock_listens(&o.vsock, rows, texts);
    assert_int_equal(rows->len, 4);
    const struct sm_listen_spec *row = &g_array_index(rows, struct sm_listen_spec, 1);
    assert_true(g_str_has_suffix(row->path, "/v_5000"));
    assert_string_equal(row->tag, "vsock:5000");
    assert_false(row->single);
    sm_run_options_clear(&o);

    /* A device of ours, and a serial port, for a VMM that somebody else starts. */
    static char attach[] = "attach", stream[] = "--stream=/n", device[] = "--vhost-user-vsock=/v",
                cid[] = "--guest-cid=9", serial[] = "--serial=/s";
    char *attach_argv[] = {attach, stream, device, cid, serial, NULL};
    assert_int_equal(sm_run_options_parse(5, attach_argv, &o, &error), 0);
    g_autofree char *front = sm_message_front(&o, &error);
    struct sm_nat_config nat;
    assert_true(sm_nat_config_parse(front, strlen(front), &nat, &error));
    assert_string_equal(nat.vsock_port, "vhost-user-vsock");
    assert_int_equal(nat.vsock_cid, 9);
    g_array_set_size(rows, 0);
    sm_vsock_listens(&o.vsock, rows, texts);
    assert_int_equal(rows->len, 2);
    row = &g_array_index(rows, struct sm_listen_spec, 0);
    assert_string_equal(row->tag, "vsock");
    assert_true(row->single);
    sm_run_options_clear(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_everything),
        cmocka_unit_test(test_modes),          cmocka_unit_test(test_caps),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_policy_file),
        cmocka_unit_test(test_publishes),      cmocka_unit_test(test_reload),
        cmocka_unit_test(test_reload_refused), cmocka_unit_test(test_warnings_and_help),
        cmocka_unit_test(test_ca_files),       cmocka_unit_test(test_suggest),
        cmocka_unit_test(test_messages),       cmocka_unit_test(test_swaps),
        cmocka_unit_test(test_swaps_vault),    cmocka_unit_test(test_swaps_refused),
        cmocka_unit_test(test_dry_run),        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_vsock),
    };
    g_strlcpy(dir, "/tmp/sm-test-options-XXXXXX", sizeof(dir));
    if (!mkdtemp(dir))
        return 1;
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(dir);
    return r;
}
