/* SPDX-License-Identifier: BSD-3-Clause */
/* What state a workspace is in, what delete takes, what is kept of an end; and clients of a control socket that never answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "launch/exit.h"
#include "launch/record.h"
#include "launch/settings.h"
#include "supervisor/client.h"

static char top[64];

static void open_workspace(const char *name, struct sm_workspace *ws)
{
    g_autoptr(GError) error = NULL;
    if (sm_workspace_open(top, name, true, ws, &error) < 0)
        fail_msg("%s", error->message);
}

static void put(const struct sm_workspace *ws, const char *name, const char *text)
{
    g_autoptr(GError) error = NULL;
    if (sm_workspace_write_file(ws, name, text, &error) < 0)
        fail_msg("%s", error->message);
}

static enum sm_workspace_state look(const struct sm_workspace *ws, pid_t *ret_pid)
{
    enum sm_workspace_state state = SM_WORKSPACE_STATES;
    assert_int_equal(sm_workspace_look(ws, &state, ret_pid), 0);
    return state;
}

static void remove_it(struct sm_workspace *ws)
{
    g_autoptr(GPtrArray) removed = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    if (sm_workspace_lock(ws, &error) < 0 || sm_workspace_delete(ws, false, removed, &error) < 0)
        fail_msg("%s", error->message);
    sm_workspace_close(ws);
}

static void test_states(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT, other = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    struct sm_supervisor_result ended = {.status = 7};
    pid_t pid;

    open_workspace("s", &ws);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_EMPTY);
    put(&ws, SM_AUDIT_FILE, "");
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_EMPTY);
    put(&ws, SM_STATE_SETTINGS, "{}");
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_STOPPED); /* of `run` */
    put(&ws, SM_STATE_CREATED, "{}");
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_CREATED);
    sm_exit_write(&ws, "2026-01-02T03:04:05Z", &ended);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_STOPPED);
    assert_int_equal(pid, 0);

    open_workspace("s", &other);
    assert_int_equal(sm_workspace_lock(&other, &error), 0);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_RUNNING);
    assert_int_equal(pid, getpid());
    sm_workspace_close(&other);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_STOPPED);

    pid_t child = fork();
    if (child == 0) {
        (void)!sm_workspace_lock(&ws, NULL);
        (void)raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_CRASHED);
    assert_int_equal(pid, child);
    assert_int_equal(sm_workspace_lock(&ws, &error), 0);
    assert_int_equal(ws.crashed_pid, child);
    sm_workspace_unlock(&ws);
    assert_int_equal(look(&ws, &pid), SM_WORKSPACE_STOPPED);
    for (unsigned i = 0; i < SM_WORKSPACE_STATES; i++)
        assert_string_not_equal(sm_workspace_state_name((enum sm_workspace_state)i), "invalid");
    remove_it(&ws);
}

static void test_delete(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GPtrArray) removed = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    g_autofree char *outside = g_build_filename(top, "outside", NULL);
    g_autofree char *path = g_build_filename(top, "d", NULL);
    struct stat st;

    assert_true(g_file_set_contents(outside, "kept", -1, NULL));
    open_workspace("d", &ws);
    assert_int_equal(sm_workspace_lock(&ws, &error), 0);
    put(&ws, SM_STATE_CREATED, "{}");
    put(&ws, SM_STATE_CREATED SM_STATE_NEW, "{");
    put(&ws, SM_AUDIT_FILE, "{}\n");
    assert_int_equal(symlinkat(outside, ws.dirfd, SM_STATE_CA_CERT), 0);

    /* A file of somebody else's, and a folder under a name of ours: nothing is touched. */
    put(&ws, "notes", "mine");
    assert_int_equal(sm_workspace_delete(&ws, false, removed, &error), -1);
    assert_non_null(strstr(error->message, "d/notes is not of slirp-med"));
    g_clear_error(&error);
    assert_int_equal(unlinkat(ws.dirfd, "notes", 0), 0);
    /* A hybrid vsock's socket is one of a port. */
    static const char *const odd[] = {SM_STATE_VSOCK "_", SM_STATE_VSOCK "_1\n\033[2J", SM_STATE_VSOCK "_1.bak"};
    for (size_t i = 0; i < SM_ARRAY_LEN(odd); i++) {
        put(&ws, odd[i], "mine");
        assert_int_equal(sm_workspace_delete(&ws, false, removed, &error), -1);
        assert_null(strpbrk(error->message, "\n\033"));
        g_clear_error(&error);
        assert_int_equal(unlinkat(ws.dirfd, odd[i], 0), 0);
    }
    put(&ws, SM_STATE_VSOCK "_1024", "");
    assert_int_equal(mkdirat(ws.dirfd, SM_STATE_COUNTERS, 0700), 0);
    assert_int_equal(sm_workspace_delete(&ws, false, removed, &error), -1);
    g_clear_error(&error);
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_COUNTERS, AT_REMOVEDIR), 0);
    assert_int_equal(removed->len, 0);
    assert_true(sm_settings_exist(&ws));

    assert_int_equal(sm_workspace_delete(&ws, true, removed, &error), 0);
    assert_int_equal(removed->len, 4);
    assert_int_equal(fstatat(ws.dirfd, SM_AUDIT_FILE, &st, 0), 0);
    assert_int_equal(sm_workspace_delete(&ws, false, removed, &error), 0);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(stat(outside, &st), 0);
    assert_int_equal(unlink(outside), 0);
    sm_workspace_close(&ws);
}

static void test_names(void **state)
{
    struct sm_workspace b = SM_WORKSPACE_INIT, a = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_build_filename(top, "file", NULL), *hidden = g_build_filename(top, ".key", NULL);
    g_autofree char *missing = g_build_filename(top, "missing", NULL);

    open_workspace("b", &b);
    open_workspace("a", &a);
    assert_true(g_file_set_contents(file, "", 0, NULL) && g_file_set_contents(hidden, "", 0, NULL));
    g_auto(GStrv) names = sm_state_names(top, &error);
    g_autofree char *all = g_strjoinv(" ", names);
    assert_string_equal(all, "a b");
    g_auto(GStrv) none = sm_state_names(missing, &error);
    assert_non_null(none);
    assert_null(none[0]);
    g_auto(GStrv) wrong = sm_state_names(file, &error);
    assert_null(wrong);
    assert_non_null(error);
    assert_int_equal(unlink(file) | unlink(hidden), 0);
    remove_it(&a);
    remove_it(&b);
}

static void test_exit(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    static char reason[] = "the core failed: \xff\n";
    static const struct {
        struct sm_supervisor_result result;
        const char *how;
    } rows[] = {
        {{.status = 0}, "exited"},
        {{.status = 137}, "exited"},
        {{.status = 143, .end_signal = SIGTERM}, "stopped"},
        {{.status = 125, .reason = reason}, "failed"},
        {{.status = 143, .end_signal = SIGTERM, .reason = reason}, "stopped"},
    };
    static const char *const damaged[] = {
        "",
        "[]",
        "{\"schema\": 1}",
        "{\"schema\": 2, \"how\": \"exited\", \"status\": 0, \"reason\": null, \"started\": \"\", \"ended\": \"\"}",
        "{\"schema\": 1, \"how\": \"exited\", \"status\": 0, \"reason\": 7, \"started\": \"\", \"ended\": \"\"}",
        "{\"schema\": 1, \"how\": \"exited\", \"status\": 0, \"reason\": null, \"started\": \"\", \"ended\": \"\", "
        "\"x\": 1}",
    };

    open_workspace("e", &ws);
    g_autoptr(GError) error = NULL;
    assert_null(sm_exit_read(&ws, &error));
    assert_null(error);
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        sm_exit_write(&ws, "2026-01-02T03:04:05Z", &rows[i].result);
        json_t *o = sm_exit_read(&ws, &error);
        assert_non_null(o);
        assert_string_equal(json_string_value(json_object_get(o, "how")), rows[i].how);
        assert_int_equal(json_integer_value(json_object_get(o, "status")), rows[i].result.status);
        assert_int_equal(json_is_string(json_object_get(o, "reason")), rows[i].result.reason != NULL);
        json_decref(o);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(damaged); i++) {
        put(&ws, SM_STATE_EXIT, damaged[i]);
        assert_null(sm_exit_read(&ws, &error));
        assert_non_null(strstr(error->message, "e/exit.json"));
        g_clear_error(&error);
    }
    remove_it(&ws);
}

/* ---- the control socket's clients ---- */

/** A listener in the workspace's folder that nobody serves. */
static int deaf(const struct sm_workspace *ws)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)g_snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SM_CONTROL_SOCKET, ws->dirfd);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 0), 0);
    return fd;
}

static void test_clients_have_a_time_out(void **state)
{
    struct sm_workspace hangs = SM_WORKSPACE_INIT, nobody = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    enum sm_client_failure why;

    open_workspace("hangs", &hangs);
    open_workspace("nobody", &nobody);
    int fd = deaf(&hangs);
    assert_null(sm_client_ask(hangs.dirfd, 50, SM_CONTROL_NETWORK, NULL, &why, &error));
    assert_int_equal(why, SM_CLIENT_SILENT);
    g_clear_error(&error);
    assert_null(sm_client_ask(nobody.dirfd, 50, SM_CONTROL_NETWORK, NULL, &why, &error));
    assert_int_equal(why, SM_CLIENT_UNREACHED);
    g_clear_error(&error);
    assert_int_equal(sm_client_stop(hangs.dirfd, 50, &error), -1);
    assert_non_null(error);
    g_clear_error(&error);

    /* Its queue is full by now: that does not block either. */
    struct sm_client_question many[300];
    for (size_t i = 0; i < SM_ARRAY_LEN(many); i++)
        many[i] = (struct sm_client_question){.dirfd = i % 2 ? hangs.dirfd : nobody.dirfd};
    int64_t began = sm_clock_us();
    sm_client_ask_all(many, SM_ARRAY_LEN(many), SM_CONTROL_NETWORK, 100);
    assert_true(sm_clock_us() - began < 2 * G_USEC_PER_SEC);
    for (size_t i = 0; i < SM_ARRAY_LEN(many); i++)
        assert_null(many[i].answer);
    (void)close(fd);
    remove_it(&hangs);
    remove_it(&nobody);
}

static int set_up(void **state)
{
    (void)g_strlcpy(top, "/tmp/sm-life-XXXXXX", sizeof(top));
    return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state)
{
    return rmdir(top); /* each test has removed what it made */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_exit),
        cmocka_unit_test(test_clients_have_a_time_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
