/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening distrustfully, rotating by name, and finding the last seq from the end of anything. */
#include "helper.h"

#include "base/error.h"

static void refuse_open(struct folder *f, const char *says)
{
    GError *error = NULL;
    uint64_t floor = 99;
    assert_int_equal(sm_audit_open(f->fd, &floor, &error), -1);
    assert_non_null(error);
    assert_non_null(strstr(error->message, says));
    assert_true(floor == 99);
    g_clear_error(&error);
}

static void test_open_creates_privately(void **state)
{
    struct folder *f = *state;
    GError *error = NULL;
    uint64_t floor = 99;
    struct stat st;
    mode_t old = umask(0);
    sm_autofd fd = sm_audit_open(f->fd, &floor, &error);
    umask(old);
    assert_null(error);
    assert_true(fd >= 0);
    assert_true(floor == 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    int flags = fcntl(fd, F_GETFL);
    assert_true((flags & O_APPEND) && (flags & O_ACCMODE) == O_RDWR);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(sm_audit_is_current(f->fd, fd));
}

static void test_open_distrusts(void **state)
{
    struct folder *f = *state;

    assert_int_equal(symlinkat("elsewhere", f->fd, SM_AUDIT_FILE), 0);
    refuse_open(f, "symbolic link");
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE, 0), 0);

    assert_int_equal(mkfifoat(f->fd, SM_AUDIT_FILE, 0600), 0);
    refuse_open(f, "not a regular file"); /* and does not hang in open(2) */
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE, 0), 0);

    spit(f, SM_AUDIT_FILE, "x\n", 2);
    assert_int_equal(linkat(f->fd, SM_AUDIT_FILE, f->fd, "other", 0), 0);
    refuse_open(f, "2 hard links");
    assert_int_equal(unlinkat(f->fd, "other", 0), 0);

    assert_int_equal(fchmodat(f->fd, SM_AUDIT_FILE, 0640, 0), 0);
    refuse_open(f, "mode 0640");
    assert_int_equal(fchmodat(f->fd, SM_AUDIT_FILE, 0600, 0), 0);

    if (geteuid() == 0) {
        assert_int_equal(fchownat(f->fd, SM_AUDIT_FILE, 1234, (gid_t)-1, 0), 0);
        refuse_open(f, "user 1234");
        assert_int_equal(fchownat(f->fd, SM_AUDIT_FILE, 0, (gid_t)-1, 0), 0);
    }

    /* The rotated file's seq must not be lost either. */
    assert_int_equal(symlinkat("elsewhere", f->fd, SM_AUDIT_FILE_ROTATED), 0);
    refuse_open(f, SM_AUDIT_FILE_ROTATED);
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE_ROTATED, 0), 0);

    assert_int_equal(fchmod(f->fd, 0750), 0);
    refuse_open(f, "chmod 700");
    assert_int_equal(fchmod(f->fd, 0700), 0);

    sm_autofd fd = sm_audit_open(f->fd, NULL, NULL);
    assert_true(fd >= 0);
}

static void test_rotate(void **state)
{
    struct folder *f = *state;
    GError *error = NULL;
    uint64_t floor = 0;

    /* Nothing there yet: a new file. */
    sm_autofd first = sm_audit_rotate(f->fd, &error);
    assert_true(first >= 0);
    assert_int_equal(faccessat(f->fd, SM_AUDIT_FILE_ROTATED, F_OK, 0), -1);

    struct sm_audit_writer *w = writer_open(f);
    assert_true(append_simple(w, 1) && append_simple(w, 2) && sm_audit_commit(w));
    sm_audit_writer_free(w);

    /* A stale new file, left by a crash, is in nobody's way. */
    spit(f, SM_AUDIT_FILE_NEW, "stale", 5);
    sm_autofd second = sm_audit_rotate(f->fd, &error);
    assert_true(second >= 0);
    assert_true(sm_audit_is_current(f->fd, second));
    assert_false(sm_audit_is_current(f->fd, first));
    assert_int_equal(faccessat(f->fd, SM_AUDIT_FILE_NEW, F_OK, 0), -1);
    assert_int_equal(file_len(f, SM_AUDIT_FILE), 0);

    /* A crash right here: the new file is empty, and seq is still known. */
    sm_autofd again = sm_audit_open(f->fd, &floor, &error);
    assert_true(again >= 0);
    assert_true(floor == 2);

    /* What cannot be replaced leaves everything as it was. */
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE_ROTATED, 0), 0);
    assert_int_equal(mkdirat(f->fd, SM_AUDIT_FILE_ROTATED, 0700), 0);
    assert_int_equal(sm_audit_rotate(f->fd, &error), -1);
    assert_non_null(error);
    g_clear_error(&error);
    assert_true(sm_audit_is_current(f->fd, second));
    assert_int_equal(faccessat(f->fd, SM_AUDIT_FILE_NEW, F_OK, 0), -1);
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE_ROTATED, AT_REMOVEDIR), 0);
}

static void test_rotate_after_a_crash_between_its_renames(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    uint64_t floor = 0;
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    assert_int_equal(renameat(f->fd, SM_AUDIT_FILE, f->fd, SM_AUDIT_FILE_ROTATED), 0);
    sm_autofd fd = sm_audit_open(f->fd, &floor, NULL);
    assert_true(fd >= 0);
    assert_true(floor == 1);
}

#define HEAD(seq) "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":" #seq ",\"event\":\"egress_allow\"}"

static void check_tail(struct folder *f, const char *text, size_t len, int found, uint64_t seq, uint64_t torn)
{
    uint64_t got = 12345, size = 0, got_torn = 0;
    spit(f, "t", text, len);
    sm_autofd fd = openat(f->fd, "t", O_RDONLY | O_CLOEXEC);
    assert_int_equal(sm_audit_last_seq(fd, &got, &size, &got_torn), found);
    assert_true(got == (found ? seq : 12345));
    assert_true(size == len);
    assert_true(got_torn == torn);
}

static void test_last_seq(void **state)
{
    struct folder *f = *state;
#define CHECK(text, found, seq, torn) check_tail(f, text, sizeof(text) - 1, found, seq, torn)
    CHECK("", 0, 0, 0);
    CHECK("\n", 0, 0, 0);
    CHECK("x", 0, 0, 1);
    CHECK(HEAD(7) "\n", 1, 7, 0);
    CHECK(HEAD(7), 0, 0, sizeof(HEAD(7)) - 1); /* a line without its newline does not count */
    CHECK(HEAD(7) "\n" HEAD(8), 1, 7, sizeof(HEAD(8)) - 1);
    CHECK(HEAD(7) "\n" HEAD(8) "\n{\"ts\"", 1, 8, 5);
    CHECK(HEAD(7) "\n\n\n", 1, 7, 0);
    CHECK(HEAD(7) "\ngarbage\n\0\0\0\n", 1, 7, 0);
    CHECK("x" HEAD(7) "\n", 0, 0, 0); /* not at the beginning of its line */
    CHECK(HEAD(7) "\nx" HEAD(9) "\n", 1, 7, 0);
#undef CHECK

    /* A line at every distance from the borders of the chunks that are read. */
    size_t len = 2 * 65536 + 200, head = sizeof(HEAD(5)) - 1;
    for (size_t back = 65536 - 100; back <= 65536 + 100; back++) {
        g_autofree char *text = g_strnfill(len, 'g');
        size_t at = len - back;
        text[at - 1] = '\n';
        memcpy(text + at, HEAD(5), head);
        text[at + head] = '\n';
        check_tail(f, text, len, 1, 5, len - at - head - 1);
        text[at + head] = 'x'; /* its end is further on */
        text[len - 1] = '\n';
        check_tail(f, text, len, 1, 5, 0);
    }
    /* Megabytes of garbage without a newline. */
    len = 9u << 20;
    g_autofree char *garbage = g_malloc0(len);
    memcpy(garbage, HEAD(6) "\n", head + 1);
    check_tail(f, garbage, len, 1, 6, len - head - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_creates_privately, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_open_distrusts, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_rotate, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_rotate_after_a_crash_between_its_renames, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_last_seq, folder_setup, folder_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
