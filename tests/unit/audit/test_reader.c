/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading while the file is written, cut back, rotated and removed; lines that are none. */
#include "helper.h"

#include "audit/reader.h"

#include <poll.h>
#include <signal.h>

static struct sm_audit_reader *reader_open(struct folder *f)
{
    GError *error = NULL;
    struct sm_audit_reader *r = sm_audit_reader_new(f->fd, &error);
    assert_null(error);
    return r;
}

static int next(struct sm_audit_reader *r, struct sm_audit_line *line)
{
    GError *error = NULL;
    int n = sm_audit_reader_next(r, line, &error);
    if (error)
        fail_msg("%s", error->message);
    return n;
}

static void expect_seq(struct sm_audit_reader *r, uint64_t seq, uint64_t missing)
{
    struct sm_audit_line line;
    assert_int_equal(next(r, &line), 1);
    assert_int_equal(line.kind, SM_AUDIT_LINE_RECORD);
    assert_int_equal(line.seq, seq);
    assert_int_equal(line.missing, missing);
}

static void expect_end(struct sm_audit_reader *r)
{
    struct sm_audit_line line;
    assert_int_equal(next(r, &line), 0);
}

static void write_n(struct sm_audit_writer *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_true(append_simple(w, i));
    assert_true(sm_audit_commit(w));
}

static void rotate(struct folder *f, struct sm_audit_writer *w)
{
    assert_true(sm_audit_adopt(w, sm_audit_rotate(f->fd, NULL), T0));
}

static void test_nothing_yet(void **state)
{
    struct folder *f = *state;
    struct sm_audit_reader *r = reader_open(f);
    struct sm_audit_line line;
    expect_end(r);
    expect_end(r);
    assert_false(sm_audit_reader_tail(r, &line));
    struct sm_audit_writer *w = writer_open(f);
    expect_end(r);
    write_n(w, 2);
    expect_seq(r, 1, 0);
    expect_seq(r, 2, 0);
    expect_end(r);
    sm_audit_writer_free(w);
    sm_audit_reader_free(r);
}

static void test_oldest_first_over_both_files(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    write_n(w, 3);
    rotate(f, w);
    write_n(w, 2); /* and the rotate line */
    sm_audit_writer_free(w);
    struct sm_audit_reader *r = reader_open(f);
    for (uint64_t seq = 1; seq <= 6; seq++)
        expect_seq(r, seq, 0);
    expect_end(r);
    sm_audit_reader_free(r);
}

/* The writer goes on in the old file between the rename and the hand-over: the reader must not leave it too early. */
static void test_lines_behind_the_rename(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    struct sm_audit_reader *r = reader_open(f);
    write_n(w, 1);
    expect_seq(r, 1, 0);
    expect_end(r);
    int fd = sm_audit_rotate(f->fd, NULL);
    expect_end(r);
    write_n(w, 1); /* into egress.jsonl.1 */
    expect_seq(r, 2, 0);
    expect_end(r);
    write_n(w, 1);
    assert_true(sm_audit_adopt(w, fd, T0));
    write_n(w, 1);
    expect_seq(r, 3, 0);
    expect_seq(r, 4, 0);
    expect_seq(r, 5, 0);
    expect_end(r);
    sm_audit_writer_free(w);
    sm_audit_reader_free(r);
}

static void test_two_rotations_behind(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    struct sm_audit_reader *r = reader_open(f);
    write_n(w, 2);
    expect_seq(r, 1, 0);
    rotate(f, w);
    write_n(w, 1); /* 3 rotate, 4 */
    rotate(f, w);
    write_n(w, 1); /* 5 rotate, 6 */
    for (uint64_t seq = 2; seq <= 6; seq++)
        expect_seq(r, seq, 0); /* its own file has no name any more, but is still held */
    expect_end(r);
    /* Three: what was in the file between is gone, and that is said. */
    rotate(f, w);
    write_n(w, 1); /* 7 rotate, 8: lost with the next rotation but one */
    rotate(f, w);
    write_n(w, 1); /* 9 rotate, 10 */
    rotate(f, w);
    write_n(w, 1); /* 11 rotate, 12 */
    expect_seq(r, 9, 2);
    expect_seq(r, 10, 0);
    expect_seq(r, 11, 0);
    expect_seq(r, 12, 0);
    expect_end(r);
    sm_audit_writer_free(w);
    sm_audit_reader_free(r);
}

static void test_removed_while_reading(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    write_n(w, 1);
    rotate(f, w);
    write_n(w, 2); /* 2 rotate, 3, 4 */
    struct sm_audit_reader *r = reader_open(f);
    expect_seq(r, 1, 0);
    expect_seq(r, 2, 0);
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE, 0), 0);
    expect_seq(r, 3, 0);
    expect_seq(r, 4, 0);
    expect_end(r);
    assert_true(append_simple(w, 9));
    assert_false(sm_audit_commit(w));
    assert_true(sm_audit_adopt(w, sm_audit_open(f->fd, NULL, NULL), T0));
    write_n(w, 1);
    /* egress.jsonl.1 is older than what was read: nothing of it is repeated. */
    expect_seq(r, 5, 0);
    expect_seq(r, 6, 0); /* egress_log_resume */
    expect_seq(r, 7, 0);
    expect_end(r);
    sm_audit_writer_free(w);
    sm_audit_reader_free(r);
}

static void test_unfinished_lines(void **state)
{
    struct folder *f = *state;
    struct sm_audit_line line;
    struct sm_audit_writer *w = writer_open(f);
    write_n(w, 1);
    sm_audit_writer_free(w);
    struct sm_audit_reader *r = reader_open(f);
    append_text(f, SM_AUDIT_FILE, "{\"ts\":\"x\",\"se");
    expect_seq(r, 1, 0);
    expect_end(r);
    assert_true(sm_audit_reader_tail(r, &line));
    assert_int_equal(line.kind, SM_AUDIT_LINE_TORN);
    assert_int_equal(line.len, 13);
    /* Finished later: one line. */
    append_text(f, SM_AUDIT_FILE, "q\":2}\n{\"seq\":3");
    expect_seq(r, 2, 0);
    expect_end(r);
    /* Taken back, and another in its place. */
    size_t len = file_len(f, SM_AUDIT_FILE);
    sm_autofd fd = openat(f->fd, SM_AUDIT_FILE, O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)len - 8), 0);
    append_text(f, SM_AUDIT_FILE, "{\"seq\":3,\"event\":\"other\"}\n");
    assert_int_equal(next(r, &line), 1);
    assert_string_equal(line.event, "other");
    expect_end(r);
    /* Cut back behind what was read already. */
    assert_int_equal(ftruncate(fd, 0), 0);
    expect_end(r);
    append_text(f, SM_AUDIT_FILE, "{\"seq\":4}\n");
    expect_seq(r, 4, 0);
    expect_end(r);
    assert_false(sm_audit_reader_tail(r, &line));
    sm_audit_reader_free(r);
}

static void test_torn_end_of_a_rotated_file(void **state)
{
    struct folder *f = *state;
    struct sm_audit_line line;
    spit(f, SM_AUDIT_FILE_ROTATED, "{\"seq\":1}\n{\"seq\":2", 18);
    spit(f, SM_AUDIT_FILE, "{\"seq\":3}\n", 10);
    struct sm_audit_reader *r = reader_open(f);
    expect_seq(r, 1, 0);
    assert_int_equal(next(r, &line), 1);
    assert_int_equal(line.kind, SM_AUDIT_LINE_TORN);
    assert_int_equal(line.len, 8);
    expect_seq(r, 3, 1);
    expect_end(r);
    sm_audit_reader_free(r);
}

static void test_lines_that_are_none(void **state)
{
    struct folder *f = *state;
    struct sm_audit_line line;
    static const char *const bad[] = {"",
                                      "garbage",
                                      "[1,2]",
                                      "\"x\"",
                                      "{\"a\":1,\"a\":2}",
                                      "{",
                                      "{\"a\":\"\x01\"}",
                                      "{\"a\":\"\xff\"}",
                                      "{\"a\":1}{\"b\":2}",
                                      "null",
                                      "\x1b[2J",
                                      "{\"a\":99999999999999999999999}"};
    GString *text = g_string_new(NULL);
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        g_string_append_printf(text, "%s\n", bad[i]);
    g_string_append_len(text, "nul\0byte\n", 9);
    /* Too long, far too long, and a good one behind. */
    g_autofree char *longest = g_strnfill(SM_AUDIT_LINE_MAX, 'x');
    g_autofree char *huge = g_strnfill(10 * SM_AUDIT_LINE_MAX, ' ');
    memcpy(huge, "{\"seq\":5", 8);
    g_string_append_printf(text, "%s\n%s}\n{\"seq\":1}\n", longest, huge);
    spit(f, SM_AUDIT_FILE, text->str, text->len);
    g_string_free(text, TRUE);

    struct sm_audit_reader *r = reader_open(f);
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        assert_int_equal(next(r, &line), 1);
        assert_int_equal(line.kind, SM_AUDIT_LINE_INVALID);
        assert_int_equal(line.len, strlen(bad[i]));
        assert_string_equal(line.text, bad[i]);
        assert_null(line.json);
    }
    assert_int_equal(next(r, &line), 1);
    assert_int_equal(line.len, 8);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(next(r, &line), 1);
        assert_int_equal(line.kind, SM_AUDIT_LINE_INVALID);
        assert_int_equal(line.len, SM_AUDIT_LINE_MAX);
    }
    expect_seq(r, 1, 0);
    expect_end(r);
    sm_audit_reader_free(r);
}

static void test_longest_valid_line(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    struct sm_audit_record r;
    g_autofree char *fat = g_strnfill(2 * SM_AUDIT_LINE_MAX, 'x');
    for (int i = 0; i < 20; i++) {
        sm_audit_begin(&r, SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR, T0);
        sm_audit_add_str(&r, "fat", fat);
        assert_true(sm_audit_append(w, &r));
    }
    assert_true(sm_audit_commit(w));
    sm_audit_writer_free(w);
    struct sm_audit_reader *reader = reader_open(f);
    for (uint64_t seq = 1; seq <= 20; seq++)
        expect_seq(reader, seq, 0);
    expect_end(reader);
    sm_audit_reader_free(reader);
}

static void test_distrusts_the_name(void **state)
{
    struct folder *f = *state;
    struct sm_audit_line line;
    GError *error = NULL;
    assert_int_equal(mkfifoat(f->fd, SM_AUDIT_FILE, 0600), 0);
    struct sm_audit_reader *r = reader_open(f);
    assert_int_equal(sm_audit_reader_next(r, &line, &error), -1); /* and does not hang */
    assert_non_null(error);
    g_clear_error(&error);
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE, 0), 0);
    assert_int_equal(symlinkat("/etc/passwd", f->fd, SM_AUDIT_FILE), 0);
    assert_int_equal(sm_audit_reader_next(r, &line, &error), -1);
    g_clear_error(&error);
    sm_audit_reader_free(r);
}

enum { CONCURRENT_LINES = 6000 };

static void write_and_rotate(struct folder *f)
{
    struct sm_audit_writer *w = writer_open_max(f, SM_AUDIT_MAX_BYTES_MIN);
    g_autofree char *fat = g_strnfill(400, 'x');
    for (uint64_t i = 1; i <= CONCURRENT_LINES; i++) {
        struct sm_audit_record r;
        simple_record(&r, SM_AUDIT_EGRESS_ALLOW, i);
        sm_audit_add_str(&r, "pad", fat);
        CHILD_CHECK(sm_audit_append(w, &r));
        if (i % 5 == 0)
            CHILD_CHECK(sm_audit_commit(w));
        if (sm_audit_need(w) == SM_AUDIT_NEED_ROTATE)
            CHILD_CHECK(sm_audit_adopt(w, sm_audit_rotate(f->fd, NULL), T0));
    }
    struct sm_audit_record r;
    simple_record(&r, SM_AUDIT_EGRESS_STOP, 0);
    CHILD_CHECK(sm_audit_append(w, &r) && sm_audit_commit(w));
    sm_audit_writer_free(w);
}

/* A writer at full speed with rotations, and a reader that waits on inotify: every line once, in order, none torn. */
static void test_concurrent_reader(void **state)
{
    struct folder *f = *state;
    struct sm_audit_reader *r = reader_open(f);
    int watch = sm_audit_reader_watch_fd(r);
    assert_true(watch >= 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        write_and_rotate(f);
        _exit(0);
    }
    uint64_t flows = 0, seq = 0, missing = 0;
    bool stopped = false;
    while (!stopped) {
        struct sm_audit_line line;
        while (next(r, &line) == 1) {
            assert_int_equal(line.kind, SM_AUDIT_LINE_RECORD);
            assert_int_equal(line.seq, seq + line.missing + 1);
            missing += line.missing;
            seq = line.seq;
            flows += strcmp(line.event, "egress_allow") == 0;
            stopped = strcmp(line.event, "egress_stop") == 0;
        }
        if (stopped)
            break;
        struct pollfd p = {.fd = watch, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 20000), 1); /* an event comes for every change */
        assert_false(sm_audit_reader_drain_watch(r));
    }
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* A reader that is slower than two rotations misses whole files, says so, and misses nothing else. */
    assert_true(flows + missing >= CONCURRENT_LINES);
    assert_true(seq > CONCURRENT_LINES);
    sm_audit_reader_free(r);
}

static void test_folder_removed(void **state)
{
    struct folder *f = *state;
    struct sm_audit_reader *r = reader_open(f);
    int watch = sm_audit_reader_watch_fd(r);
    assert_int_equal(sm_audit_reader_watch_fd(r), watch);
    assert_false(sm_audit_reader_drain_watch(r));
    assert_int_equal(rmdir(f->path), 0);
    assert_true(sm_audit_reader_drain_watch(r));
    expect_end(r);
    sm_audit_reader_free(r);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, folder_setup, folder_teardown)
    const struct CMUnitTest tests[] = {
        T(test_nothing_yet),
        T(test_oldest_first_over_both_files),
        T(test_lines_behind_the_rename),
        T(test_two_rotations_behind),
        T(test_removed_while_reading),
        T(test_unfinished_lines),
        T(test_torn_end_of_a_rotated_file),
        T(test_lines_that_are_none),
        T(test_longest_valid_line),
        T(test_distrusts_the_name),
        T(test_concurrent_reader),
        T(test_folder_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
