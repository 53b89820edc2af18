/* SPDX-License-Identifier: BSD-3-Clause */
/* The writer with a disk that works: batches, seq over restarts and rotations, torn tails, removed files, bounds. */
#include "helper.h"

#include "base/error.h"

static void test_one_turn(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    assert_true(sm_audit_healthy(w));
    assert_null(sm_audit_failure(w));
    assert_true(append_simple(w, 1));
    assert_true(note_simple(w, 1));
    assert_true(append_simple(w, 2));
    assert_int_equal(sm_audit_pending(w), 3);

    assert_int_equal(file_len(f, SM_AUDIT_FILE), 0); /* nothing before the commit */

    assert_true(sm_audit_commit(w));
    assert_int_equal(sm_audit_pending(w), 0);
    assert_true(sm_audit_commit(w)); /* an empty turn */
    assert_true(sm_audit_next_seq(w) == 4);
    sm_audit_writer_free(w);

    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), 3);
    assert_seqs(lines, 1);
    assert_string_equal(str_at(lines, 0, "event"), "egress_allow");
    assert_string_equal(str_at(lines, 1, "event"), "egress_close"); /* in the order in which they came */
    assert_int_equal(int_at(lines, 2, "flow"), 2);
    assert_string_equal(str_at(lines, 0, "workspace"), "demo");
    assert_string_equal(str_at(lines, 0, "ts"), "2026-11-22T21:04:05.123456Z");
    json_decref(lines);
}

static void test_seq_goes_on_after_a_restart(void **state)
{
    struct folder *f = *state;
    for (uint64_t run = 0; run < 5; run++) {
        struct sm_audit_writer *w = writer_open(f);
        for (uint64_t i = 0; i < 10; i++)
            assert_true(append_simple(w, run * 10 + i));
        assert_true(sm_audit_commit(w));
        sm_audit_writer_free(w);
    }
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), 50);
    assert_seqs(lines, 1);
    json_decref(lines);
}

static void test_torn_tail_is_ended_and_recorded(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    append_text(f, SM_AUDIT_FILE, "{\"ts\":\"2026-");

    w = writer_open(f);
    assert_true(append_simple(w, 2) && sm_audit_commit(w));
    sm_audit_writer_free(w);

    g_autofree char *text = slurp(f, SM_AUDIT_FILE, NULL);
    g_auto(GStrv) rows = g_strsplit(text, "\n", -1);
    assert_int_equal(g_strv_length(rows), 5); /* the last is empty */
    assert_string_equal(rows[1], "{\"ts\":\"2026-");
    assert_non_null(strstr(rows[2], "\"seq\":2,\"event\":\"egress_log_repair\""));
    assert_non_null(strstr(rows[2], "\"torn_bytes\":12"));
    assert_non_null(strstr(rows[3], "\"seq\":3,\"event\":\"egress_allow\""));

    /* A clean end is not repaired. */
    w = writer_open(f);
    assert_true(sm_audit_next_seq(w) == 4);
    sm_audit_writer_free(w);
    g_autofree char *same = slurp(f, SM_AUDIT_FILE, NULL);
    assert_string_equal(text, same);
}

static void test_garbage_at_the_end(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(append_simple(w, i));
    assert_true(sm_audit_commit(w));
    sm_audit_writer_free(w);
    append_text(f, SM_AUDIT_FILE, "\x80\xff garbage\n{}\n[]\n\n{\"seq\":900}\n");
    w = writer_open(f);
    assert_true(sm_audit_next_seq(w) == 4);
    sm_audit_writer_free(w);
}

static void test_refuses_what_is_no_log(void **state)
{
    struct folder *f = *state;
    GError *error = NULL;
    struct sm_audit_options o = {.workspace = "demo"};
    sm_autofd full = open("/dev/full", O_RDWR | O_APPEND | O_CLOEXEC);
    assert_null(sm_audit_writer_new(full, &o, T0, &error));
    assert_non_null(error);
    g_clear_error(&error);

    spit(f, "t", "", 0);
    sm_autofd no_append = openat(f->fd, "t", O_RDWR | O_CLOEXEC);
    assert_null(sm_audit_writer_new(no_append, &o, T0, &error));
    g_clear_error(&error);

    sm_autofd ok = openat(f->fd, "t", O_RDWR | O_APPEND | O_CLOEXEC);
    o.workspace = "../x";
    assert_null(sm_audit_writer_new(ok, &o, T0, &error));
    assert_non_null(strstr(error->message, "../x"));
    g_clear_error(&error);
    o.workspace = "demo";
    o.max_bytes = SM_AUDIT_MAX_BYTES_MIN - 1;
    assert_null(sm_audit_writer_new(ok, &o, T0, &error));
    assert_non_null(strstr(error->message, "--audit-max-bytes"));
    g_clear_error(&error);
    o.max_bytes = 0;
    o.seq_floor = SM_AUDIT_SEQ_MAX;
    assert_null(sm_audit_writer_new(ok, &o, T0, &error));
    g_clear_error(&error);
    assert_true(fcntl(ok, F_GETFD) >= 0); /* it stays the caller's */
}

/* Two files that never hold more than max_bytes together, whatever is written; seq goes on, the newest lines are there.
 */
static void test_rotation_bounds_the_disk(void **state)
{
    struct folder *f = *state;
    const uint64_t max = SM_AUDIT_MAX_BYTES_MIN;
    struct sm_audit_writer *w = writer_open_max(f, max);
    g_autofree char *fat = g_strnfill(900, 'x');
    unsigned rotations = 0;
    uint64_t n = 0;

    while (rotations < 5) {
        for (unsigned i = 0; i < 7; i++) {
            struct sm_audit_record r;
            simple_record(&r, SM_AUDIT_EGRESS_ALLOW, ++n);
            sm_audit_add_str(&r, "pad", fat);
            assert_true(sm_audit_append(w, &r));
        }
        assert_true(sm_audit_commit(w));
        if (sm_audit_need(w) == SM_AUDIT_NEED_ROTATE) {
            int fd = sm_audit_rotate(f->fd, NULL);
            assert_true(fd >= 0);
            assert_true(sm_audit_adopt(w, fd, T0));
            assert_int_equal(sm_audit_need(w), SM_AUDIT_NEED_NOTHING);
            rotations++;
        }
        struct stat a, b = {0};
        assert_int_equal(fstatat(f->fd, SM_AUDIT_FILE, &a, 0), 0);
        (void)fstatat(f->fd, SM_AUDIT_FILE_ROTATED, &b, 0);
        assert_true((uint64_t)a.st_size + (uint64_t)b.st_size <= max);
    }
    assert_true(append_simple(w, ++n) && sm_audit_commit(w));
    uint64_t next = sm_audit_next_seq(w);
    sm_audit_writer_free(w);

    json_t *old = load_lines(f, SM_AUDIT_FILE_ROTATED), *new = load_lines(f, SM_AUDIT_FILE);
    assert_string_equal(str_at(old, 0, "event"), "egress_log_rotate");
    assert_string_equal(str_at(new, 0, "event"), "egress_log_rotate");
    assert_string_equal(str_at(new, 0, "why"), "size");
    assert_true(int_at(new, 0, "previous_bytes") > 0);
    assert_seqs(old, int_at(old, 0, "seq"));
    assert_seqs(new, int_at(old, json_array_size(old) - 1, "seq") + 1);
    assert_int_equal(int_at(new, json_array_size(new) - 1, "seq") + 1, (int64_t)next);
    assert_true((uint64_t)next == n + rotations + 1);
    json_decref(old);
    json_decref(new);

    /* And over a restart too. */
    w = writer_open_max(f, max);
    assert_true(sm_audit_next_seq(w) == next);
    sm_audit_writer_free(w);
}

static void test_limit_holds_when_nobody_rotates(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open_max(f, SM_AUDIT_MAX_BYTES_MIN);
    uint64_t n = 0, recorded = 0;
    while (append_simple(w, ++n)) {
        if (!sm_audit_commit(w))
            break;
        recorded++;
    }
    assert_false(sm_audit_healthy(w));
    assert_int_equal(sm_audit_need(w), SM_AUDIT_NEED_ROTATE);
    assert_non_null(strstr(sm_audit_failure(w), "maximum size"));
    assert_false(append_simple(w, 1));
    assert_true(note_simple(w, 777));
    assert_false(sm_audit_probe(w, T0)); /* still full */
    struct stat st;
    assert_int_equal(fstatat(f->fd, SM_AUDIT_FILE, &st, 0), 0);
    assert_true((uint64_t)st.st_size <= SM_AUDIT_MAX_BYTES_MIN / 2);

    int fd = sm_audit_rotate(f->fd, NULL);
    assert_true(sm_audit_adopt(w, fd, T0));
    assert_true(sm_audit_healthy(w)); /* probed at once */
    assert_true(append_simple(w, 778) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    json_t *new = load_lines(f, SM_AUDIT_FILE);
    assert_string_equal(str_at(new, 0, "event"), "egress_log_rotate");
    assert_int_equal(int_at(new, 0, "seq"), (int64_t)recorded + 1);
    assert_int_equal(int_at(new, 1, "flow"), 777); /* the fact was kept */
    assert_string_equal(str_at(new, 2, "event"), "egress_log_resume");
    assert_int_equal(int_at(new, 3, "flow"), 778);
    assert_seqs(new, (int64_t)recorded + 1);
    json_decref(new);
}

static void test_removed_while_writing(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    assert_int_equal(unlinkat(f->fd, SM_AUDIT_FILE, 0), 0);

    assert_true(append_simple(w, 2));
    assert_false(sm_audit_commit(w)); /* a line that nobody can read is no record */
    assert_false(sm_audit_healthy(w));
    assert_int_equal(sm_audit_need(w), SM_AUDIT_NEED_REOPEN);
    assert_non_null(strstr(sm_audit_failure(w), "removed"));
    assert_false(append_simple(w, 3));
    assert_false(sm_audit_probe(w, T0));

    int fd = sm_audit_open(f->fd, NULL, NULL);
    assert_true(sm_audit_adopt(w, fd, T0));
    assert_true(sm_audit_healthy(w));
    assert_true(append_simple(w, 4) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_string_equal(str_at(lines, 0, "event"), "egress_log_rotate");
    assert_string_equal(str_at(lines, 0, "why"), "removed");
    assert_seqs(lines, 2);
    json_decref(lines);
}

static void test_renamed_by_somebody_else(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    sm_autofd supervisors = sm_audit_open(f->fd, NULL, NULL);
    assert_true(sm_audit_is_current(f->fd, supervisors));
    assert_int_equal(renameat(f->fd, SM_AUDIT_FILE, f->fd, "elsewhere"), 0);
    assert_false(sm_audit_is_current(f->fd, supervisors));
    /* The writer cannot see it and goes on in the file that it has. */
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    assert_true(sm_audit_adopt(w, sm_audit_open(f->fd, NULL, NULL), T0));
    assert_true(append_simple(w, 2) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_string_equal(str_at(lines, 0, "why"), "requested");
    assert_seqs(lines, 2);
    json_decref(lines);
}

static void test_adopt_refuses(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open(f);
    int pair[2];
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    assert_false(sm_audit_adopt(w, pair[1], T0));
    assert_int_equal(fcntl(pair[1], F_GETFD), -1); /* taken over in any case */
    (void)close(pair[0]);
    assert_false(sm_audit_adopt(w, -1, T0));
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
}

/* Reserved space is given back, in the file that is left and in the one that is rotated away. */
static void test_reserved_space_is_given_back(void **state)
{
    struct folder *f = *state;
    struct stat st;
    struct sm_audit_writer *w = writer_open(f);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    assert_int_equal(fstatat(f->fd, SM_AUDIT_FILE, &st, 0), 0);
    if (st.st_blocks * 512 < SM_AUDIT_RESERVE_BYTES) {
        sm_audit_writer_free(w);
        print_message("skipped: this file system has no fallocate\n");
        skip();
    }
    assert_true(sm_audit_adopt(w, sm_audit_rotate(f->fd, NULL), T0));
    assert_int_equal(fstatat(f->fd, SM_AUDIT_FILE_ROTATED, &st, 0), 0);
    assert_true(st.st_blocks * 512 < 65536);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    assert_int_equal(fstatat(f->fd, SM_AUDIT_FILE, &st, 0), 0);
    assert_true(st.st_blocks * 512 < 65536);
}

static void test_batch_is_bounded(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open_max(f, SM_AUDIT_MAX_BYTES_MIN);
    uint64_t decisions = 0, facts = 0;
    while (append_simple(w, decisions))
        decisions++;
    assert_true(decisions > 50);
    assert_true(sm_audit_healthy(w));
    while (note_simple(w, facts)) /* facts have room of their own */
        facts++;
    assert_true(facts > 50);
    assert_true(sm_audit_lost(w) == 1);
    assert_true(sm_audit_commit(w));
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), decisions + facts + 2);
    assert_seqs(lines, 1);
    /* That one was lost is in the log. */
    assert_string_equal(str_at(lines, decisions + facts, "event"), "egress_log_resume");
    assert_int_equal(int_at(lines, decisions + facts, "lost"), 1);
    json_decref(lines);
}

static void test_longest_lines(void **state)
{
    struct folder *f = *state;
    struct sm_audit_writer *w = writer_open_max(f, SM_AUDIT_MAX_BYTES_MIN);
    g_autofree char *fat = g_strnfill(2 * SM_AUDIT_LINE_MAX, 'x');
    for (int i = 0; i < 4; i++) {
        struct sm_audit_record r;
        sm_audit_begin(&r, SM_AUDIT_EGRESS_MITM_HANDSHAKE_ERROR, T0);
        sm_audit_add_str(&r, "fat", fat);
        assert_true(sm_audit_append(w, &r));
        assert_true(sm_audit_commit(w));
    }
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), 4);
    json_decref(lines);
}

static void test_counters_near_the_end(void **state)
{
    struct folder *f = *state;
    const char *last =
        "{\"ts\":\"2026-11-22T21:04:05.123456Z\",\"seq\":9223372036854775804,\"event\":\"egress_allow\"}\n";
    spit(f, SM_AUDIT_FILE, last, strlen(last));
    struct sm_audit_writer *w = writer_open(f);
    assert_true(sm_audit_next_seq(w) == SM_AUDIT_SEQ_MAX - 1);
    assert_true(append_simple(w, UINT64_MAX) && sm_audit_commit(w));
    assert_true(append_simple(w, 2));
    assert_false(sm_audit_commit(w)); /* it stops, it does not wrap */
    assert_false(sm_audit_healthy(w));
    sm_audit_writer_free(w);
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    assert_int_equal(json_array_size(lines), 2);
    assert_true(int_at(lines, 1, "flow") == INT64_MAX);
    json_decref(lines);
}

static void test_sync(void **state)
{
    struct folder *f = *state;
    struct sm_audit_options o = {.workspace = "demo", .sync = true};
    struct sm_audit_writer *w = sm_audit_writer_new(sm_audit_open(f->fd, NULL, NULL), &o, T0, NULL);
    assert_non_null(w);
    assert_true(append_simple(w, 1) && sm_audit_commit(w));
    sm_audit_writer_free(w);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, folder_setup, folder_teardown)
    const struct CMUnitTest tests[] = {
        T(test_one_turn),
        T(test_seq_goes_on_after_a_restart),
        T(test_torn_tail_is_ended_and_recorded),
        T(test_garbage_at_the_end),
        T(test_refuses_what_is_no_log),
        T(test_rotation_bounds_the_disk),
        T(test_limit_holds_when_nobody_rotates),
        T(test_removed_while_writing),
        T(test_renamed_by_somebody_else),
        T(test_adopt_refuses),
        T(test_reserved_space_is_given_back),
        T(test_batch_is_bounded),
        T(test_longest_lines),
        T(test_counters_near_the_end),
        T(test_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
