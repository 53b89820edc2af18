/* SPDX-License-Identifier: BSD-3-Clause */
/* What `create` keeps and `start` gets back: flags from any folder, strict reading, and errors that name the stored flag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "launch/canonical.h"
#include "launch/settings.h"

#define CREATED "2026-01-02T03:04:05Z"

static char top[64];

static void expect_error(int r, GError **error, const char *words, enum sm_error_code code)
{
    assert_int_equal(r, -1);
    assert_non_null(*error);
    if (!strstr((*error)->message, words))
        fail_msg("'%s' lacks '%s'", (*error)->message, words);
    assert_int_equal((*error)->code, code);
    g_clear_error(error);
}

/** Words separated by one blank. */
static int create(const char *line, struct sm_run_options *o, char ***ret_argv, GError **error)
{
    *ret_argv = g_strsplit(line, " ", -1);
    memset(o, 0, sizeof(*o));
    return sm_run_options_parse_create((int)g_strv_length(*ret_argv), *ret_argv, o, error);
}

static void open_workspace(const char *name, struct sm_workspace *ws)
{
    g_autoptr(GError) error = NULL;
    if (sm_workspace_open(top, name, true, ws, &error) < 0)
        fail_msg("%s", error->message);
}

static void test_canonical(void **state)
{
    g_autofree char *here = g_get_current_dir();
    static const struct {
        const char *name, *metavar, *value, *kept; /* @ stands for the current folder */
    } rows[] = {
        {"ro", NULL, NULL, "--ro"},
        {"egress", "MODE", "strict", "--egress=strict"},
        {"egress-policy", "FILE", "a/../p.yaml", "--egress-policy=@/p.yaml"},
        {"egress-policy", "FILE", "/p.yaml", "--egress-policy=/p.yaml"},
        {"rootfs", "DIR", ".", "--rootfs=@"},
        {"stream", "PATH", "tcp:127.0.0.1:9", "--stream=tcp:127.0.0.1:9"},
        {"stream", "PATH", "s.sock", "--stream=@/s.sock"},
        {"stream", "PATH", "folder/", "--stream=@/folder/"},
        {"qemu", "PATH", "qemu-system-x86_64", "--qemu=qemu-system-x86_64"},
        {"qemu", "PATH", "bin/q", "--qemu=@/bin/q"},
        {"dgram", "PATH[,PEER]", "a,b", "--dgram=@/a,@/b"},
        {"dgram", "PATH[,PEER]", "/a", "--dgram=/a"},
        {"bind", "SRC[:DST]", "a:/b", "--bind=@/a:/b"},
        {"bind", "SRC[:DST]", "a", "--bind=@/a"},
        {"cred-swap", "PROVIDER[=REF]", "openai", "--cred-swap=openai"},
        {"cred-swap", "PROVIDER[=REF]", "openai=env:X", "--cred-swap=openai=env:X"},
        {"cred-swap", "PROVIDER[=REF]", "openai=file:k/x", "--cred-swap=openai=file:@/k/x"},
        {"proxy-auth", "REF", "env:X", "--proxy-auth=env:X"},
        {"proxy-auth", "REF", "file:k/x", "--proxy-auth=file:@/k/x"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autofree char *got = sm_option_canonical(rows[i].name, rows[i].metavar, rows[i].value);
        g_auto(GStrv) parts = g_strsplit(rows[i].kept, "@", -1);
        g_autofree char *kept = g_strjoinv(here, parts);
        assert_string_equal(got, kept);
    }
}

static void test_there_and_back(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_run_options o, again = {0};
    g_auto(GStrv) argv = NULL;
    g_auto(GStrv) argv_again = NULL;
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0}, read = {0};
    g_autofree char *policy = g_build_filename(top, "p.yaml", NULL);
    g_autofree char *line =
        g_strdup_printf("run --egress=strict --egress-allow ok.test --egress-allow .b.test --name there "
                        "--egress-policy %s --publish 8080:80 --egress-max-total-bytes 1M --mtu 1400 -- "
                        "echo a --egress=off",
                        policy);
    static const char *const kept[] = {"--egress=strict", "--egress-allow=ok.test", "--egress-allow=.b.test"};

    assert_true(g_file_set_contents(policy, "allow: [c.test]\n", -1, NULL));
    assert_int_equal(create(line, &o, &argv, &error), 0);
    sm_settings_new(&o, CREATED, &s);
    assert_int_equal(g_strv_length(s.args), 7); /* not --name */
    for (size_t i = 0; i < SM_ARRAY_LEN(kept); i++)
        assert_string_equal(s.args[i], kept[i]);
    open_workspace("there", &ws);
    assert_false(sm_settings_exist(&ws));
    assert_int_equal(sm_settings_write(&ws, &s, &error), 0);
    assert_true(sm_settings_exist(&ws));
    struct stat st;
    assert_int_equal(fstatat(ws.dirfd, SM_SETTINGS_FILE, &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(sm_settings_read(&ws, &read, &error), 0);
    assert_int_equal(read.command, SM_COMMAND_RUN);
    assert_string_equal(read.created, CREATED);
    assert_true(g_strv_equal((const char *const *)read.args, (const char *const *)s.args));
    assert_true(g_strv_equal((const char *const *)read.cmd, (const char *const *)s.cmd));

    if (sm_settings_options(&read, &ws, NULL, &again, &argv_again, &error) < 0)
        fail_msg("%s", error->message);
    assert_string_equal(again.name, "there");
    assert_string_equal(again.state_dir, ws.base);
    assert_int_equal(again.mode, SM_MODE_STRICT);
    assert_int_equal(sm_lists_count(again.lists, SM_LIST_ALLOW), 3); /* the file was read again */
    assert_int_equal(again.publishes->len, 1);
    assert_int_equal(again.caps.total, 1 << 20);
    assert_int_equal(again.net.mtu, 1400);
    assert_string_equal(again.argv[2], "--egress=off");
    sm_run_options_clear(&again);
    g_clear_pointer(&argv_again, g_strfreev);

    char other[] = "true";
    char *cmd[] = {other, NULL};
    assert_int_equal(sm_settings_options(&read, &ws, cmd, &again, &argv_again, &error), 0);
    assert_string_equal(again.argv[0], "true");
    assert_null(again.argv[1]);
    sm_run_options_clear(&again);

    sm_run_options_clear(&o);
    sm_workspace_close(&ws);
}

/** A start tells which stored flag does not do any more. */
static void test_errors_of_a_start(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_run_options o, again = {0};
    g_auto(GStrv) argv = NULL;
    char **none = NULL;
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
    g_autofree char *policy = g_build_filename(top, "gone.yaml", NULL);
    g_autofree char *line = g_strdup_printf("run --egress-policy=%s", policy);
    g_autofree char *words = g_strdup_printf("errors/settings.json: --egress-policy=%s: cannot be read", policy);

    assert_true(g_file_set_contents(policy, "allow: [c.test]\n", -1, NULL));
    assert_int_equal(create(line, &o, &argv, &error), 0);
    assert_null(o.argv); /* `start` will say what is to be run */
    sm_settings_new(&o, CREATED, &s);
    open_workspace("errors", &ws);
    expect_error(sm_settings_options(&s, &ws, NULL, &again, &none, &error), &error, "no command", SM_ERROR_INVALID);
    assert_int_equal(unlink(policy), 0);
    char other[] = "true";
    char *cmd[] = {other, NULL};
    expect_error(sm_settings_options(&s, &ws, cmd, &again, &none, &error), &error, words, SM_ERROR_INVALID);
    assert_null(none);
    sm_run_options_clear(&o);
    sm_workspace_close(&ws);
}

/* A flag at the end that lacks its value does not take the workspace's name for it. */
static void test_a_value_that_lacks(void **state)
{
    static const char text[] = "{\"version\":1,\"command\":\"attach\",\"args\":[\"--audit-max-bytes=1M\",\"--stream\"],"
                               "\"cmd\":null,\"spec\":null,\"created\":\"2026-01-01T00:00:00Z\"}";
    struct sm_workspace ws = {
        .name = g_strdup("mine"), .base = g_strdup("/nowhere"), .dirfd = -1, .base_fd = -1, .lock_fd = -1};
    struct sm_run_options o = {0};
    struct sm_settings s;
    g_autoptr(GError) error = NULL;
    char **words = NULL;

    assert_true(sm_settings_parse("f", text, strlen(text), &s, &error));
    assert_int_equal(sm_settings_options(&s, &ws, NULL, &o, &words, &error), -1);
    assert_non_null(strstr(error->message, "--stream"));
    assert_null(strstr(error->message, "--name"));
    sm_settings_clear(&s);
    g_free(ws.name);
    g_free(ws.base);
}

static void test_of_one_start(void **state)
{
    static const char *const lines[] = {"run --dry-run",
                                        "run --json",
                                        "attach --stream /tmp/x --print-args",
                                        "attach --fd 0",
                                        "attach --stream /tmp/x --ready-fd 1",
                                        "vm --kernel /bin/sh --print-command"};
    for (size_t i = 0; i < SM_ARRAY_LEN(lines); i++) {
        struct sm_run_options o;
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;
        expect_error(create(lines[i], &o, &argv, &error), &error, "is about one start", SM_ERROR_INVALID);
    }
}

static void test_strict(void **state)
{
#define REST "\"cmd\": null, \"spec\": null, \"created\": \"" CREATED "\"}"
#define HEAD "{\"version\": 1, \"command\": \"run\", "
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"", "f:1: "},
        {"[]", "f: the document: not an object"},
        {"{}", "f: version: missing"},
        {HEAD "\"args\": [], " REST " x", "f:1: "},
        {HEAD "\"args\": [], \"args\": [], " REST, "duplicate"},
        {"{\"version\": 2, \"command\": \"run\", \"args\": [], " REST, "f: version: not a version"},
        {"{\"version\": \"1\", \"command\": \"run\", \"args\": [], " REST, "f: version: not a version"},
        {"{\"version\": 1, \"command\": \"core\", \"args\": [], " REST, "f: command: write run, vm, attach or proxy"},
        {"{\"version\": 1, \"command\": 7, \"args\": [], " REST, "f: command: write run, vm, attach or proxy"},
        {HEAD "\"args\": {}, " REST, "f: args: not an array"},
        {HEAD "\"args\": [1], " REST, "f: args[0]: not a text"},
        {HEAD "\"args\": [\"--ro\", \"ls\"], " REST, "f: args[1]: not a flag"},
        {HEAD "\"args\": [\"--\"], " REST, "f: args[0]: not a flag"},
        {HEAD "\"args\": [\"--name=x\"], " REST, "f: args[0]: a flag that is not kept"},
        {HEAD "\"args\": [\"--state-dir=/x\"], " REST, "f: args[0]: a flag that is not kept"},
        {HEAD "\"args\": [\"--help\"], " REST, "f: args[0]: a flag that is not kept"},
        {HEAD "\"args\": [\"--owner-fd=3\"], " REST, "f: args[0]: a flag that is not kept"},
        {HEAD "\"args\": [], \"more\": 1, " REST, "f: more: unknown key"},
        {HEAD "\"args\": [], \"cmd\": \"ls\", \"spec\": null, \"created\": \"" CREATED "\"}", "f: cmd: not an array"},
        {HEAD "\"args\": [], \"cmd\": null, \"spec\": [], \"created\": \"" CREATED "\"}", "f: spec: neither"},
        {HEAD "\"args\": [], \"cmd\": null, \"spec\": null, \"created\": \"yesterday\"}", "f: created: not a time"},
    };

    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
        g_autoptr(GError) error = NULL;
        bool ok = sm_settings_parse("f", rows[i].text, strlen(rows[i].text), &s, &error);
        expect_error(ok ? 0 : -1, &error, rows[i].words, SM_ERROR_INVALID);
        assert_null(s.args);
    }
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
    g_autoptr(GError) error = NULL;
    static const char right[] = HEAD "\"args\": [\"--ro\"], " REST;
    assert_true(sm_settings_parse("f", right, strlen(right), &s, &error));
    assert_string_equal(s.args[0], "--ro");
    assert_null(s.cmd);

    g_autoptr(GString) many = g_string_new(HEAD "\"args\": [");
    for (size_t i = 0; i <= SM_SETTINGS_ARGS_MAX; i++)
        g_string_append_printf(many, "%s\"--ro\"", i ? "," : "");
    g_string_append(many, "], " REST);
    sm_cleanup(sm_settings_clear) struct sm_settings too_many = {0};
    assert_false(sm_settings_parse("f", many->str, many->len, &too_many, &error));
    assert_int_equal(error->code, SM_ERROR_LIMIT);
}

static void test_files(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};

    open_workspace("files", &ws);
    expect_error(sm_settings_read(&ws, &s, &error), &error, "was not made by 'create'", SM_ERROR_MISSING);
    assert_int_equal(symlinkat("/etc/passwd", ws.dirfd, SM_SETTINGS_FILE), 0);
    expect_error(sm_settings_read(&ws, &s, &error), &error, "files/settings.json", SM_ERROR_SYSTEM);
    assert_int_equal(unlinkat(ws.dirfd, SM_SETTINGS_FILE, 0), 0);
    assert_int_equal(mkfifoat(ws.dirfd, SM_SETTINGS_FILE, 0600), 0);
    expect_error(sm_settings_read(&ws, &s, &error), &error, "not a regular file", SM_ERROR_INVALID);
    assert_int_equal(unlinkat(ws.dirfd, SM_SETTINGS_FILE, 0), 0);

    /* What cannot be written leaves the old file as it was, and no half of a new one. */
    struct sm_run_options o;
    g_auto(GStrv) argv = NULL;
    assert_int_equal(create("run --ro -- ls", &o, &argv, &error), 0);
    sm_settings_new(&o, CREATED, &s);
    assert_int_equal(sm_settings_write(&ws, &s, &error), 0);
    g_free(s.args[0]);
    s.args[0] = g_strdup("--bind=/\xff");
    expect_error(sm_settings_write(&ws, &s, &error), &error, "not UTF-8", SM_ERROR_INVALID);
    sm_cleanup(sm_settings_clear) struct sm_settings old = {0};
    assert_int_equal(sm_settings_read(&ws, &old, &error), 0);
    assert_string_equal(old.args[0], "--ro");
    assert_int_equal(faccessat(ws.dirfd, SM_SETTINGS_FILE SM_STATE_NEW, F_OK, 0), -1);
    sm_run_options_clear(&o);
    sm_workspace_close(&ws);
}

static int set_up(void **state)
{
    (void)g_strlcpy(top, "/tmp/sm-settings-XXXXXX", sizeof(top));
    return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"there", "errors", "files"};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        g_autofree char *dir = g_build_filename(top, names[i], NULL);
        g_autofree char *file = g_build_filename(dir, SM_SETTINGS_FILE, NULL);
        (void)unlink(file);
        (void)rmdir(dir);
    }
    g_autofree char *policy = g_build_filename(top, "p.yaml", NULL);
    (void)unlink(policy);
    return rmdir(top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_errors_of_a_start),
        cmocka_unit_test(test_a_value_that_lacks),
        cmocka_unit_test(test_of_one_start),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
