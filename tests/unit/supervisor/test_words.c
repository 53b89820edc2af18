/* SPDX-License-Identifier: BSD-3-Clause */
/* Children's stderr: whole lines, escaped, bounded, and never a child that waits for us. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "supervisor/words.h"

struct fixture {
    struct sm_loop *loop;
    struct sm_words *words;
    int child, out[2];
};

static int setup(void **state)
{
    static struct fixture f;
    f.loop = sm_loop_new(NULL);
    assert_int_equal(pipe2(f.out, O_NONBLOCK | O_CLOEXEC), 0);
    (void)fcntl(f.out[1], F_SETPIPE_SZ, 1 << 20);
    f.words = sm_words_new(f.loop, f.out[1], &f.child, NULL);
    assert_non_null(f.words);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_words_free(f->words);
    sm_fd_close(&f->child);
    close(f->out[0]);
    close(f->out[1]);
    sm_loop_free(f->loop);
    return 0;
}

static size_t shown(struct fixture *f, char *buf, size_t cap)
{
    ssize_t n = read(f->out[0], buf, cap - 1);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static void test_lines_are_escaped(void **state)
{
    struct fixture *f = *state;
    char buf[256];
    assert_int_equal(write(f->child, "one\ntw", 6), 6);
    sm_loop_turn(f->loop, 100);
    shown(f, buf, sizeof(buf));
    assert_string_equal(buf, "one\n");
    assert_int_equal(write(f->child, "o\x1b[2J\xc2\x9b\n", 8), 8);
    sm_loop_turn(f->loop, 100);
    shown(f, buf, sizeof(buf));
    assert_string_equal(buf, "two\\x1b[2J\\xc2\\x9b\n");
}

static void test_last_words(void **state)
{
    struct fixture *f = *state;
    char buf[256];
    assert_int_equal(write(f->child, "no newline", 10), 10);
    sm_fd_close(&f->child);
    sm_words_drain(f->words);
    shown(f, buf, sizeof(buf));
    assert_string_equal(buf, "no newline\n");
}

static void test_flood_is_bounded_and_does_not_block(void **state)
{
    struct fixture *f = *state;
    static char buf[1 << 20];
    size_t lines = 0;
    for (int i = 0; i < 20000; i++) {
        ssize_t n = write(f->child, "x\n", 2);
        if (n < 0)
            assert_int_equal(errno, EAGAIN); /* lost, not waited for */
        if (i % 1000 == 0)
            sm_loop_turn(f->loop, 0);
    }
    sm_words_drain(f->words);
    size_t n = shown(f, buf, sizeof(buf));
    for (size_t i = 0; i < n; i++)
        lines += buf[i] == '\n';
    assert_true(lines >= SM_WORDS_RATE && lines <= 3 * SM_WORDS_RATE);
}

static void test_long_line_is_cut(void **state)
{
    struct fixture *f = *state;
    static char buf[3 * SM_WORDS_LINE_MAX];
    char line[SM_WORDS_LINE_MAX + 5];
    memset(line, 'a', sizeof(line));
    assert_int_equal(write(f->child, line, sizeof(line)), (int)sizeof(line));
    sm_words_drain(f->words);
    assert_int_equal(shown(f, buf, sizeof(buf)), sizeof(line) + 2);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_lines_are_escaped),
        T(test_last_words),
        T(test_flood_is_bounded_and_does_not_block),
        T(test_long_line_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
