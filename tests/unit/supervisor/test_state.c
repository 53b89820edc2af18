/* SPDX-License-Identifier: BSD-3-Clause */
/* A workspace's folder: who may have made it, one supervisor at a time, and nothing left of a start that failed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "launch/state.h"

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

static void test_names(void **state)
{
    static const char *const right[] = {
        "a", "0", "a.b", "A_b-c", "run-0123abcd", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const wrong[] = {"",        ".",
                                        "..",      ".a",
                                        "-a",      "_a",
                                        "a/b",     "a b",
                                        "a\n",     "\xc3\xa4",
                                        "a\xff",   "a:b",
                                        "../../x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < SM_ARRAY_LEN(right); i++)
        assert_true(sm_state_name_check(right[i], NULL));
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        g_autoptr(GError) error = NULL;
        assert_false(sm_state_name_check(wrong[i], &error));
        assert_true(g_utf8_validate(error->message, -1, NULL));
        assert_null(strchr(error->message, '\n'));
    }
    g_autofree char *a = sm_state_name_new(), *b = sm_state_name_new();
    assert_true(sm_state_name_check(a, NULL));
    assert_string_not_equal(a, b);
}

static void test_default_base(void **state)
{
    g_autofree char *a = NULL, *b = NULL, *c = NULL;
    g_autofree char *old_xdg = g_strdup(getenv("XDG_STATE_HOME")), *old_home = g_strdup(getenv("HOME"));
    assert_int_equal(setenv("XDG_STATE_HOME", "/x/state", 1) | setenv("HOME", "/home/u", 1), 0);
    a = sm_state_default_base(NULL);
    assert_string_equal(a, "/x/state/slirp-med");
    assert_int_equal(setenv("XDG_STATE_HOME", "relative", 1), 0);
    b = sm_state_default_base(NULL);
    assert_string_equal(b, "/home/u/.local/state/slirp-med");
    assert_int_equal(unsetenv("XDG_STATE_HOME"), 0);
    c = sm_state_default_base(NULL);
    assert_string_equal(c, "/home/u/.local/state/slirp-med");
    if (old_xdg)
        (void)setenv("XDG_STATE_HOME", old_xdg, 1);
    if (old_home)
        (void)setenv("HOME", old_home, 1);
}

static void test_open(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT, again = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    g_autofree char *base = g_build_filename(top, "new", "base", NULL);
    struct stat st;

    expect_error(sm_workspace_open(base, "w", false, &ws, &error), &error, "there is no workspace 'w'",
                 SM_ERROR_INVALID);
    assert_int_equal(access(base, F_OK), -1); /* asking makes nothing */
    expect_error(sm_workspace_open(base, "../w", true, &ws, &error), &error, "no workspace name", SM_ERROR_INVALID);
    assert_int_equal(access(base, F_OK), -1);
    assert_int_equal(sm_workspace_open(base, "w", true, &ws, &error), 0);
    assert_true(ws.created);
    assert_int_equal(fstat(ws.dirfd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(fstat(ws.base_fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(sm_workspace_open(base, "w", true, &again, &error), 0);
    assert_false(again.created);
    sm_workspace_close(&again);
    expect_error(sm_workspace_open(base, "other", false, &again, &error), &error, "there is no workspace 'other'",
                 SM_ERROR_INVALID);
    sm_workspace_close(&ws);
}

static void test_distrust(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    g_autofree char *base = g_build_filename(top, "distrust", NULL), *w = g_build_filename(base, "w", NULL),
                    *l = g_build_filename(base, "l", NULL), *f = g_build_filename(base, "f", NULL),
                    *other = g_build_filename(top, "elsewhere", NULL);
    assert_int_equal(mkdir(base, 0700) | mkdir(other, 0700) | mkdir(w, 0700), 0);

    assert_int_equal(chmod(w, 0750), 0);
    expect_error(sm_workspace_open(base, "w", true, &ws, &error), &error, "open to others (mode 0750)",
                 SM_ERROR_INVALID);
    assert_int_equal(chmod(w, 0700), 0);
    assert_int_equal(symlink(other, l), 0);
    expect_error(sm_workspace_open(base, "l", true, &ws, &error), &error, "is not a folder", SM_ERROR_INVALID);
    int fd = open(f, O_WRONLY | O_CREAT, 0600);
    close(fd);
    expect_error(sm_workspace_open(base, "f", true, &ws, &error), &error, "is not a folder", SM_ERROR_INVALID);
    assert_int_equal(chmod(base, 0777), 0);
    expect_error(sm_workspace_open(base, "w", true, &ws, &error), &error, "others can write", SM_ERROR_INVALID);
    assert_int_equal(chmod(base, 01777), 0); /* as /tmp is: nobody else can exchange our folder there */
    assert_int_equal(sm_workspace_open(base, "w", true, &ws, &error), 0);
    /* nor is a link in place of a file followed */
    assert_int_equal(symlinkat(other, ws.dirfd, SM_STATE_LOCK), 0);
    expect_error(sm_workspace_lock(&ws, &error), &error, SM_STATE_LOCK, SM_ERROR_SYSTEM);
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_LOCK, 0), 0);
    assert_int_equal(symlinkat("../f", ws.dirfd, SM_STATE_SETTINGS), 0);
    assert_null(sm_workspace_read_settings(&ws, &error));
    g_clear_error(&error);
    assert_int_equal(sm_workspace_write_settings(&ws, "{}", &error), 0); /* replaced */
    struct stat st;
    assert_int_equal(stat(f, &st), 0);
    assert_int_equal(st.st_size, 0);
    sm_workspace_close(&ws);
}

static void test_one_at_a_time(void **state)
{
    struct sm_workspace first = SM_WORKSPACE_INIT, second = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    g_autofree char *pid = g_strdup_printf("pid %d", (int)getpid());
    pid_t holder = 1;

    assert_int_equal(sm_workspace_open(top, "lock", true, &first, &error), 0);
    assert_int_equal(sm_workspace_open(top, "lock", true, &second, &error), 0);
    assert_int_equal(sm_workspace_holder(&second, &holder), 0);
    assert_int_equal(sm_workspace_lock(&first, &error), 0);
    assert_int_equal(sm_workspace_holder(&second, &holder), 1);
    assert_int_equal(holder, getpid());
    expect_error(sm_workspace_lock(&second, &error), &error, pid, SM_ERROR_BUSY);
    expect_error(sm_workspace_lock(&second, &error), &error, "slirp-med stop lock", SM_ERROR_BUSY);
    sm_workspace_close(&first);
    assert_int_equal(sm_workspace_holder(&second, &holder), 0);
    assert_int_equal(sm_workspace_lock(&second, &error), 0);
    sm_workspace_close(&second);
}

/** The lock of one that was killed is free, whatever stands in the file. */
static void test_killed_holder(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    int ready[2];
    char c;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct sm_workspace child = SM_WORKSPACE_INIT;
        if (sm_workspace_open(top, "killed", true, &child, NULL) < 0 || sm_workspace_lock(&child, NULL) < 0)
            _exit(1);
        (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(sm_workspace_open(top, "killed", true, &ws, &error), 0);
    pid_t holder = 0;
    assert_int_equal(sm_workspace_holder(&ws, &holder), 1);
    assert_int_equal(holder, pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(sm_workspace_holder(&ws, &holder), 0);
    assert_int_equal(sm_workspace_lock(&ws, &error), 0);
    sm_workspace_close(&ws);
    close(ready[0]);
    close(ready[1]);
}

static void test_settings(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    struct stat st;

    assert_int_equal(sm_workspace_open(top, "settings", true, &ws, &error), 0);
    assert_null(sm_workspace_read_settings(&ws, &error));
    g_clear_error(&error);
    assert_int_equal(sm_workspace_write_settings(&ws, "{\"a\": 1}", &error), 0);
    assert_int_equal(sm_workspace_write_settings(&ws, "{\"b\": 1}", &error), 0);
    g_autofree char *text = sm_workspace_read_settings(&ws, &error);
    assert_string_equal(text, "{\"b\": 1}");
    assert_int_equal(fstatat(ws.dirfd, SM_STATE_SETTINGS, &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    sm_workspace_close(&ws);
}

static void ca_file(const struct sm_workspace *ws, const char *name, struct stat *ret)
{
    assert_int_equal(fstatat(ws->dirfd, name, ret, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(ret->st_mode));
    assert_int_equal(ret->st_mode & 07777, 0600);
    assert_int_equal(ret->st_size, 0);
}

/** New files whatever stands in their place: who had an old one open sees nothing of the new key. */
static void test_ca_files(void **state)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct stat victim_before, victim, key, cert;
    g_autofree char *outside = g_build_filename(top, "victim", NULL);
    char c;

    assert_int_equal(sm_workspace_open(top, "ca", true, &ws, NULL), 0);
    assert_true(g_file_set_contents(outside, "victim", -1, NULL));
    assert_int_equal(stat(outside, &victim_before), 0);
    assert_int_equal(symlinkat(outside, ws.dirfd, SM_STATE_CA_KEY), 0);
    assert_int_equal(linkat(AT_FDCWD, outside, ws.dirfd, SM_STATE_CA_CERT, 0), 0);

    mode_t mask = umask(0);
    sm_cleanup(sm_workspace_ca_close) struct sm_workspace_ca ca = SM_WORKSPACE_CA_INIT;
    assert_int_equal(sm_workspace_new_ca(&ws, &ca, NULL), 0);
    (void)umask(mask);
    ca_file(&ws, SM_STATE_CA_KEY, &key);
    ca_file(&ws, SM_STATE_CA_CERT, &cert);
    assert_int_equal(stat(outside, &victim), 0);
    assert_true(victim.st_size == 6 && victim.st_ino == victim_before.st_ino && victim.st_ino != cert.st_ino);
    (void)unlink(outside);

    assert_int_equal(write(ca.key_fd, "k", 1), 1);
    assert_int_equal(write(ca.cert_fd, "c", 1), 1);
    assert_true(read(ca.key_fd, &c, 1) < 0 && read(ca.cert_fd, &c, 1) < 0 && write(ca.guest_fd, "x", 1) < 0);
    assert_int_equal(read(ca.guest_fd, &c, 1), 1);
    assert_int_equal(c, 'c');

    /* The next start: other files, while the old ones are still open somewhere. */
    struct stat key2;
    sm_cleanup(sm_workspace_ca_close) struct sm_workspace_ca ca2 = SM_WORKSPACE_CA_INIT;
    assert_int_equal(sm_workspace_new_ca(&ws, &ca2, NULL), 0);
    ca_file(&ws, SM_STATE_CA_KEY, &key2);
    assert_int_not_equal(key.st_ino, key2.st_ino);

    sm_workspace_drop_ca(&ws, true);
    sm_workspace_drop_ca(&ws, true); /* nothing there is no error */
    assert_int_equal(faccessat(ws.dirfd, SM_STATE_CA_KEY, F_OK, AT_SYMLINK_NOFOLLOW), -1);
    ca_file(&ws, SM_STATE_CA_CERT, &cert);

    sm_workspace_drop_ca(&ws, false);
    assert_int_equal(faccessat(ws.dirfd, SM_STATE_CA_CERT, F_OK, AT_SYMLINK_NOFOLLOW), -1);

    /* What cannot be replaced is an error, and no key is left beside it. */
    g_autoptr(GError) error = NULL;
    struct sm_workspace_ca none = SM_WORKSPACE_CA_INIT;
    assert_int_equal(mkdirat(ws.dirfd, SM_STATE_CA_CERT, 0700), 0);
    expect_error(sm_workspace_new_ca(&ws, &none, &error), &error, SM_STATE_CA_CERT, SM_ERROR_SYSTEM);
    assert_int_equal(faccessat(ws.dirfd, SM_STATE_CA_KEY, F_OK, AT_SYMLINK_NOFOLLOW), -1);
    assert_true(none.key_fd < 0 && none.cert_fd < 0 && none.guest_fd < 0);
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_CA_CERT, AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(ws.base_fd, "ca", AT_REMOVEDIR), 0);
}

static void put_counters(const struct sm_workspace *ws, const char *text, size_t len, mode_t mode)
{
    int fd = openat(ws->dirfd, SM_STATE_COUNTERS, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void refuse_counters(struct sm_workspace *ws, const char *why)
{
    struct sm_counters got = {.seq = 7};
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) error2 = NULL;
    g_autofree char *path = g_build_filename(top, "counted", SM_STATE_COUNTERS, NULL);

    assert_int_equal(sm_workspace_open_counters(ws, &got, &error), -1);
    assert_non_null(strstr(error->message, path));
    if (why && !strstr(error->message, why))
        fail_msg("%s", error->message);
    assert_false(sm_workspace_read_counters(ws, &got, &error2));
    assert_non_null(strstr(error2->message, path));
    assert_int_equal(got.seq, 7);
}

static void test_counters(void **state)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    char file[SM_COUNTERS_FILE];
    struct sm_counters c = {.seq = 4, .bytes = {10, 20}}, got = {.seq = 7};
    struct stat st;
    g_autofree char *outside = g_build_filename(top, "other", NULL);

    assert_int_equal(sm_workspace_open(top, "counted", true, &ws, NULL), 0);
    assert_true(sm_workspace_read_counters(&ws, &got, NULL)); /* none yet: nothing was counted, and none is made */
    assert_int_equal(got.seq, 0);
    assert_int_equal(faccessat(ws.dirfd, SM_STATE_COUNTERS, F_OK, 0), -1);
    mode_t mask = umask(0);
    int fd = sm_workspace_open_counters(&ws, &got, NULL);
    (void)umask(mask);
    assert_true(fd >= 0 && got.seq == 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    sm_counters_encode(&c, file);
    assert_int_equal(pwrite(fd, file, SM_COUNTERS_RECORD, 0), SM_COUNTERS_RECORD);
    c.seq = 5;
    c.bytes[SM_CAPS_UP] = 11;
    sm_counters_encode(&c, file + SM_COUNTERS_RECORD);
    assert_int_equal(pwrite(fd, file + SM_COUNTERS_RECORD, SM_COUNTERS_RECORD, SM_COUNTERS_RECORD), SM_COUNTERS_RECORD);
    close(fd);
    fd = sm_workspace_open_counters(&ws, &got, NULL);
    assert_true(fd >= 0 && got.seq == 5 && got.bytes[SM_CAPS_UP] == 11 && got.bytes[SM_CAPS_DOWN] == 20);
    close(fd);
    assert_true(sm_workspace_read_counters(&ws, &got, NULL) && got.seq == 5);

    put_counters(&ws, file, sizeof(file) - 1, 0600);
    refuse_counters(&ws, "damaged");
    put_counters(&ws, "{}", 2, 0600);
    refuse_counters(&ws, "remove the file");
    memset(file + 20, '0', 4);
    memset(file + SM_COUNTERS_RECORD + 20, '0', 4);
    put_counters(&ws, file, sizeof(file), 0600);
    refuse_counters(&ws, "damaged");
    put_counters(&ws, "", 0, 0644);
    refuse_counters(&ws, "0600");
    put_counters(&ws, "", 0, 0600);
    assert_int_equal(linkat(ws.dirfd, SM_STATE_COUNTERS, AT_FDCWD, outside, 0), 0); /* a second name */
    refuse_counters(&ws, "plain file");
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_COUNTERS, 0), 0);
    assert_int_equal(symlinkat(outside, ws.dirfd, SM_STATE_COUNTERS), 0);
    refuse_counters(&ws, NULL);
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_COUNTERS, 0), 0);
    assert_int_equal(mkfifoat(ws.dirfd, SM_STATE_COUNTERS, 0600), 0);
    refuse_counters(&ws, "plain file");
    assert_int_equal(unlinkat(ws.dirfd, SM_STATE_COUNTERS, 0), 0);
    (void)unlink(outside);
}

static void test_undo(void **state)
{
    struct sm_workspace ws = SM_WORKSPACE_INIT;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(top, "undo", NULL);

    for (int i = 0; i < 2; i++) { /* made by this start, nothing recorded: gone again */
        assert_int_equal(sm_workspace_open(top, "undo", true, &ws, &error), 0);
        assert_int_equal(sm_workspace_lock(&ws, &error), 0);
        int fd = sm_audit_open(ws.dirfd, NULL, &error);
        assert_true(fd >= 0);
        assert_int_equal(sm_workspace_write_settings(&ws, "{}", &error), 0);
        struct sm_counters none;
        int counters = sm_workspace_open_counters(&ws, &none, &error);
        assert_true(counters >= 0);
        close(counters);
        if (i == 1)
            assert_int_equal(write(fd, "{}\n", 3), 3);
        close(fd);
        sm_workspace_undo(&ws);
        sm_workspace_close(&ws);
        assert_int_equal(access(path, F_OK), i == 0 ? -1 : 0); /* a record stays */
    }
    assert_int_equal(sm_workspace_open(top, "undo", true, &ws, &error), 0);
    sm_workspace_undo(&ws); /* was there before: not ours to remove */
    sm_workspace_close(&ws);
    assert_int_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_default_base),  cmocka_unit_test(test_open),
        cmocka_unit_test(test_distrust), cmocka_unit_test(test_one_at_a_time), cmocka_unit_test(test_killed_holder),
        cmocka_unit_test(test_settings), cmocka_unit_test(test_ca_files),      cmocka_unit_test(test_counters),
        cmocka_unit_test(test_undo),
    };
    g_strlcpy(top, "/tmp/sm-test-state-XXXXXX", sizeof(top));
    if (!mkdtemp(top))
        return 1;
    (void)umask(022);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, (char[]){"--"}, top, NULL};
    (void)g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    return r;
}
