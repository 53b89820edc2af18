/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med egress` as a process: its output, messages, exit status, and when --follow ends. */
#include "helper.h"

#include <limits.h>
#include <signal.h>
#include <sys/file.h>

#include "cli/egress.h"

/* A state folder with one workspace "demo" in it. */
struct state {
    struct folder base;
    struct folder ws;
};

struct run {
    pid_t pid;
    int out;
    int err;
};

static int setup(void **state)
{
    struct state *s = g_new0(struct state, 1);
    g_strlcpy(s->base.path, "/tmp/sm-audit-XXXXXX", sizeof(s->base.path));
    assert_non_null(mkdtemp(s->base.path));
    s->base.fd = open(s->base.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(s->base.fd, "demo", 0700), 0);
    g_snprintf(s->ws.path, sizeof(s->ws.path), "%s/demo", s->base.path);
    s->ws.fd = open(s->ws.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(s->ws.fd >= 0);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct state *s = *state;
    static const char *const names[] = {SM_AUDIT_FILE, SM_AUDIT_FILE_ROTATED, "lock"};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        (void)unlinkat(s->ws.fd, names[i], 0);
    (void)rmdir(s->ws.path);
    (void)close(s->ws.fd);
    (void)rmdir(s->base.path);
    (void)close(s->base.fd);
    g_free(s);
    return 0;
}

static struct run start(char **argv)
{
    struct run r;
    int out[2], err[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    fflush(NULL);
    r.pid = fork();
    assert_true(r.pid >= 0);
    if (r.pid == 0) {
        (void)dup2(out[1], STDOUT_FILENO);
        (void)dup2(err[1], STDERR_FILENO);
        (void)close_range(3, UINT_MAX, 0); /* above all the lock, which is held by whoever has it open */
        int status = sm_cli_egress((int)g_strv_length(argv), argv);
        fflush(NULL);
        _exit(status);
    }
    (void)close(out[1]);
    (void)close(err[1]);
    r.out = out[0];
    r.err = err[0];
    return r;
}

static char *read_all(int fd)
{
    GString *text = g_string_new(NULL);
    char buf[4096];
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        g_string_append_len(text, buf, n);
    (void)close(fd);
    return g_string_free(text, FALSE);
}

/* Wait for a line of output; the test's own time limit is the only one. */
static char *read_line(struct run *r)
{
    GString *text = g_string_new(NULL);
    char c;
    while (read(r->out, &c, 1) == 1 && c != '\n')
        g_string_append_c(text, c);
    return g_string_free(text, FALSE);
}

static int finish(struct run *r, char **ret_out, char **ret_err)
{
    int status = 0;
    char *out = read_all(r->out), *err = read_all(r->err);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    if (ret_out)
        *ret_out = out;
    else
        g_free(out);
    if (ret_err)
        *ret_err = err;
    else
        g_free(err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define ARGS(...) ((char *[]){(char *)"egress", __VA_ARGS__, NULL})

static void refuse(char **argv, const char *says)
{
    g_autofree char *out = NULL, *err = NULL;
    struct run r = start(argv);
    assert_int_equal(finish(&r, &out, &err), 2);
    assert_string_equal(out, "");
    if (!strstr(err, says))
        fail_msg("'%s' is not in: %s", says, err);
}

static void test_refusals(void **state)
{
    struct state *s = *state;
    char *dir = s->base.path;
    refuse(((char *[]){(char *)"egress", NULL}), "NAME is missing");
    refuse(ARGS((char *)"--state-dir", dir, (char *)"nope"), "no workspace 'nope'");
    refuse(ARGS((char *)"--state-dir", dir, (char *)".."), "not a workspace name");
    refuse(ARGS((char *)"--state-dir", dir, (char *)"demo/../demo"), "not a workspace name");
    refuse(ARGS((char *)"--state-dir", dir, (char *)"a\x1b[2J"), "not a workspace name");
    refuse(ARGS((char *)"--state-dir", (char *)"/nonexistent", (char *)"demo"), "no workspace 'demo' in /nonexistent");
    refuse(ARGS((char *)"demo", (char *)"--state-dir"), "--state-dir");
    refuse(ARGS((char *)"demo", (char *)"--state-dir="), "--state-dir");
    refuse(ARGS((char *)"demo", (char *)"other"), "'other'");
    refuse(ARGS((char *)"demo", (char *)"--jsno"), "--jsno");
    /* A link to a folder elsewhere is no workspace. */
    assert_int_equal(symlinkat("demo", s->base.fd, "link"), 0);
    refuse(ARGS((char *)"--state-dir", dir, (char *)"link"), "no workspace 'link'");
    assert_int_equal(unlinkat(s->base.fd, "link", 0), 0);
}

static void test_print(void **state)
{
    struct state *s = *state;
    g_autofree char *out = NULL, *json = NULL, *empty = NULL, *empty_json = NULL, *help = NULL;

    struct run r = start(ARGS((char *)"demo", (char *)"--state-dir", s->base.path));
    assert_int_equal(finish(&r, &empty, NULL), 0);
    assert_string_equal(empty, "");
    r = start(ARGS((char *)"--json", (char *)"demo", (char *)"--state-dir", s->base.path));
    assert_int_equal(finish(&r, &empty_json, NULL), 0);
    assert_string_equal(empty_json, "[]\n");

    struct sm_audit_writer *w = writer_open(&s->ws);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    assert_true(sm_audit_adopt(w, sm_audit_rotate(s->ws.fd, NULL), T0));
    assert_true(append_simple(w, 2) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    append_text(&s->ws, SM_AUDIT_FILE, "junk\x1b\n{\"torn");

    /* Found through XDG_STATE_HOME too. */
    g_autofree char *product = g_build_filename(s->base.path, "slirp-med", NULL);
    assert_int_equal(symlink(".", product), 0);
    g_setenv("XDG_STATE_HOME", s->base.path, TRUE);
    r = start(ARGS((char *)"demo"));
    assert_int_equal(finish(&r, &out, NULL), 0);
    g_unsetenv("XDG_STATE_HOME");
    assert_int_equal(unlink(product), 0);
    g_auto(GStrv) rows = g_strsplit(out, "\n", -1);
    assert_int_equal(g_strv_length(rows), 7);
    assert_true(g_str_has_prefix(rows[0], "TIME"));
    assert_non_null(strstr(rows[1], "egress_allow              1"));
    assert_non_null(strstr(rows[2], "egress_log_rotate"));
    assert_non_null(strstr(rows[3], "egress_allow              2"));
    assert_non_null(strstr(rows[4], "(invalid line of 5 bytes: junk\\u001b)"));
    assert_non_null(strstr(rows[5], "(torn line of 6 bytes: {\"torn)"));

    r = start(ARGS((char *)"--state-dir", s->base.path, (char *)"--json", (char *)"--", (char *)"demo"));
    assert_int_equal(finish(&r, &json, NULL), 0);
    json_error_t error;
    json_t *all = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(all);
    assert_int_equal(json_array_size(all), 5);
    assert_int_equal(int_at(all, 2, "seq"), 3);
    assert_string_equal(str_at(all, 3, "invalid"), "invalid");
    assert_string_equal(str_at(all, 4, "invalid"), "torn");
    json_decref(all);

    r = start(ARGS((char *)"--help"));
    assert_int_equal(finish(&r, &help, NULL), 0);
    assert_non_null(strstr(help, "usage: slirp-med egress NAME"));
}

static int hold_lock(struct state *s)
{
    int fd = openat(s->ws.fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    return fd;
}

static void put_event(struct sm_audit_writer *w, enum sm_audit_event event, uint64_t flow)
{
    struct sm_audit_record r;
    simple_record(&r, event, flow);
    assert_true(sm_audit_append(w, &r) && sm_audit_commit(w));
}

static void test_follow_until_stop(void **state)
{
    struct state *s = *state;
    int lock = hold_lock(s);
    struct sm_audit_writer *w = writer_open(&s->ws);
    put_event(w, SM_AUDIT_EGRESS_START, 1);
    put_event(w, SM_AUDIT_EGRESS_STOP, 2); /* of an earlier run: does not end it */
    struct run r =
        start(ARGS((char *)"demo", (char *)"--follow", (char *)"--json", (char *)"--state-dir", s->base.path));
    for (int i = 1; i <= 2; i++) {
        g_autofree char *line = read_line(&r);
        assert_non_null(strstr(line, i == 1 ? "egress_start" : "egress_stop"));
    }
    put_event(w, SM_AUDIT_EGRESS_START, 3);
    put_event(w, SM_AUDIT_EGRESS_ALLOW, 4);
    for (int i = 3; i <= 4; i++) {
        g_autofree char *line = read_line(&r);
        json_t *json = json_loads(line, 0, NULL); /* one object a line */
        assert_int_equal(json_integer_value(json_object_get(json, "flow")), i);
        json_decref(json);
    }
    /* Over a rotation. */
    assert_true(sm_audit_adopt(w, sm_audit_rotate(s->ws.fd, NULL), T0));
    put_event(w, SM_AUDIT_EGRESS_CLOSE, 5);
    g_autofree char *rotated = read_line(&r), *closed = read_line(&r);
    assert_non_null(strstr(rotated, "egress_log_rotate"));
    assert_non_null(strstr(closed, "egress_close"));
    put_event(w, SM_AUDIT_EGRESS_STOP, 6);
    g_autofree char *rest = NULL, *err = NULL;
    assert_int_equal(finish(&r, &rest, &err), 0); /* although the lock is still held */
    assert_non_null(strstr(rest, "egress_stop"));
    assert_string_equal(err, "");
    sm_audit_writer_free(w);
    (void)close(lock);
}

static void test_follow_until_killed(void **state)
{
    struct state *s = *state;
    int lock = hold_lock(s);
    struct sm_audit_writer *w = writer_open(&s->ws);
    put_event(w, SM_AUDIT_EGRESS_START, 1);
    struct run r = start(ARGS((char *)"demo", (char *)"-f", (char *)"--state-dir", s->base.path));
    g_autofree char *heading = read_line(&r), *first = read_line(&r);
    assert_true(g_str_has_prefix(heading, "TIME"));
    assert_non_null(strstr(first, "egress_start"));
    sm_audit_writer_free(w);
    append_text(&s->ws, SM_AUDIT_FILE, "{\"to");
    (void)close(lock); /* everything of the workspace is dead, no egress_stop */
    g_autofree char *rest = NULL;
    assert_int_equal(finish(&r, &rest, NULL), 0);
    assert_non_null(strstr(rest, "(torn line of 4 bytes"));
}

static void test_follow_what_does_not_run(void **state)
{
    struct state *s = *state;
    struct sm_audit_writer *w = writer_open(&s->ws);
    put_event(w, SM_AUDIT_EGRESS_START, 1);
    sm_audit_writer_free(w);
    for (int i = 0; i < 2; i++) {
        g_autofree char *out = NULL;
        struct run r = start(ARGS((char *)"demo", (char *)"-f", (char *)"--state-dir", s->base.path));
        assert_int_equal(finish(&r, &out, NULL), 0);
        assert_non_null(strstr(out, "egress_start"));
        (void)close(hold_lock(s)); /* the second time there is a lock file that nobody holds */
    }
}

static void test_follow_until_interrupted(void **state)
{
    struct state *s = *state;
    static const int signals[] = {SIGINT, SIGTERM};
    int lock = hold_lock(s);
    struct sm_audit_writer *w = writer_open(&s->ws);
    put_event(w, SM_AUDIT_EGRESS_START, 1);
    for (size_t i = 0; i < SM_ARRAY_LEN(signals); i++) {
        struct run r = start(ARGS((char *)"demo", (char *)"-f", (char *)"--state-dir", s->base.path));
        g_autofree char *heading = read_line(&r), *first = read_line(&r);
        assert_true(g_str_has_prefix(heading, "TIME"));
        assert_non_null(strstr(first, "egress_start"));
        assert_int_equal(kill(r.pid, signals[i]), 0);
        assert_int_equal(finish(&r, NULL, NULL), 0);
    }
    sm_audit_writer_free(w);
    (void)close(lock);
}

/* `slirp-med egress demo -f | head -1` ends when head does. */
static void test_follow_into_a_closed_pipe(void **state)
{
    struct state *s = *state;
    int lock = hold_lock(s);
    struct sm_audit_writer *w = writer_open(&s->ws);
    put_event(w, SM_AUDIT_EGRESS_START, 1);
    struct run r = start(ARGS((char *)"demo", (char *)"-f", (char *)"--state-dir", s->base.path));
    g_autofree char *heading = read_line(&r), *first = read_line(&r);
    assert_true(g_str_has_prefix(heading, "TIME"));
    assert_non_null(strstr(first, "egress_start"));
    (void)close(r.out);
    r.out = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(finish(&r, NULL, NULL), 0);
    sm_audit_writer_free(w);
    (void)close(lock);
}

static void test_missing_lines_are_told(void **state)
{
    struct state *s = *state;
    g_autofree char *err = NULL;
    append_text(&s->ws, SM_AUDIT_FILE, "{\"seq\":3}\n{\"seq\":9}\n");
    struct run r = start(ARGS((char *)"demo", (char *)"--state-dir", s->base.path));
    assert_int_equal(finish(&r, NULL, &err), 0);
    assert_non_null(strstr(err, "5 lines before seq 9"));
}

static void test_full_output(void **state)
{
    struct state *s = *state;
    append_text(&s->ws, SM_AUDIT_FILE, "{\"seq\":3}\n");
    int err[2], status;
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
        (void)dup2(err[1], STDERR_FILENO);
        char **argv = ARGS((char *)"demo", (char *)"--state-dir", s->base.path);
        _exit(sm_cli_egress(4, argv));
    }
    (void)close(err[1]);
    g_autofree char *text = read_all(err[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(text, "No space left"));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_refusals),
        T(test_print),
        T(test_follow_until_stop),
        T(test_follow_until_killed),
        T(test_follow_what_does_not_run),
        T(test_follow_until_interrupted),
        T(test_follow_into_a_closed_pipe),
        T(test_missing_lines_are_told),
        T(test_full_output),
    };
    (void)alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
