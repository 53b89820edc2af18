/* SPDX-License-Identifier: BSD-3-Clause */
/* Reader, writer, buffer, secrets, descriptor messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/rw.h"
#include "base/secret.h"

static void test_reader_is_sticky(void **state)
{
    const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct sm_rd r = sm_rd_init(data, sizeof(data));
    assert_int_equal(sm_rd_u24(&r), 0x010203);
    struct sm_rd sub = sm_rd_sub(&r, 2);
    assert_int_equal(sm_rd_u16(&sub), 0x0405);
    assert_true(sm_rd_done(&sub));
    assert_int_equal(sm_rd_u64(&r), 0x0607080900000000u);
    assert_true(r.bad);
    assert_int_equal(sm_rd_u8(&r), 0);
    assert_int_equal(sm_rd_left(&r), 0);
    assert_false(sm_rd_done(&r));
    r = sm_rd_init(data, sizeof(data));
    sub = sm_rd_sub(&r, SIZE_MAX);
    assert_true(sub.bad && r.bad);
}

static void test_writer_is_bounded(void **state)
{
    uint8_t out[5] = {0};
    struct sm_wr w = sm_wr_init(out, 4);
    sm_wr_u16(&w, 0x0102);
    sm_wr_u32(&w, 0xffffffff);
    assert_true(w.bad);
    assert_int_equal(out[4], 0);
    assert_true(w.len <= 4);
}

static void test_buf(void **state)
{
    struct sm_buf b;
    sm_buf_init(&b, 5000);
    uint8_t block[700];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)i;
    size_t in = 0, out = 0;
    for (int round = 0; round < 200; round++) {
        size_t n = (size_t)(round * 37 % 700);
        if (sm_buf_append(&b, block, n)) {
            in += n;
        } else {
            assert_true(b.len + n > 5000);
        }
        size_t take = SM_MIN(b.len, (size_t)(round * 53 % 900));
        sm_buf_consume(&b, take);
        out += take;
        assert_int_equal(in - out, b.len);
    }
    sm_buf_clear(&b);
    assert_true(sm_buf_append(&b, block, 0));
    assert_null(sm_buf_reserve(&b, 5001));
    assert_non_null(sm_buf_reserve(&b, 5000));
    sm_buf_clear(&b);
}

static void test_secret_read(void **state)
{
    char text[] = "very secret";
    size_t len;
    sm_autofd fd = memfd_create("secret", MFD_CLOEXEC);

    assert_int_equal(write(fd, text, 11), 11);
    struct sm_secret *s = sm_secret_read(fd, 11); /* from the beginning, wherever the file stands */
    assert_memory_equal(sm_secret_bytes(s, &len), "very secret", 11);
    assert_int_equal(len, 11);
    sm_secret_free(s);
    errno = 0;
    assert_null(sm_secret_read(fd, 10));
    assert_int_equal(errno, EFBIG);
    assert_null(sm_secret_read(-1, 10));
    assert_int_equal(errno, EBADF);
    assert_int_equal(ftruncate(fd, SM_SECRET_READ_MAX + 1), 0);
    assert_null(sm_secret_read(fd, SIZE_MAX));
    assert_int_equal(errno, EFBIG);
    assert_int_equal(ftruncate(fd, SM_SECRET_READ_MAX), 0);
    s = sm_secret_read(fd, SIZE_MAX);
    assert_non_null(s);
    sm_secret_free(s);
    assert_int_equal(ftruncate(fd, 0), 0);
    s = sm_secret_read(fd, 10);
    assert_memory_equal(sm_secret_bytes(s, &len), "", 0);
    assert_int_equal(len, 0);
    sm_secret_free(s);
}

static void test_secret_wipes_source(void **state)
{
    char key[] = "very secret";
    size_t len;
    struct sm_secret *s = sm_secret_new(key, 11);
    for (int i = 0; i < 11; i++)
        assert_int_equal(key[i], 0);
    assert_memory_equal(sm_secret_bytes(s, &len), "very secret", 11);
    assert_int_equal(len, 11);
    sm_secret_free(s);
}

static void test_fd_messages(void **state)
{
    int pair[2], pipes[2], got[SM_FD_MSG_MAX];
    size_t n_fds;
    char buf[16];
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(sm_fd_send(pair[0], "hello", 5, pipes, 2), 5);
    assert_int_equal(sm_fd_recv(pair[1], buf, sizeof(buf), got, &n_fds), 5);
    assert_int_equal(n_fds, 2);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    assert_int_equal(sm_fd_send(pair[0], "0123456789abcdefg", 17, pipes, 1), 17);
    assert_int_equal(sm_fd_recv(pair[1], buf, sizeof(buf), got, &n_fds), -1);
    assert_int_equal(errno, EMSGSIZE);
    assert_int_equal(n_fds, 0);
    assert_int_equal(sm_fd_recv(pair[1], buf, sizeof(buf), got, &n_fds), -1);
    assert_int_equal(errno, EAGAIN);
    close(pair[0]);
    assert_int_equal(sm_fd_recv(pair[1], buf, sizeof(buf), got, &n_fds), 0);
    close(pair[1]);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_memfd(void **state)
{
    size_t len;
    sm_autofd fd = sm_fd_memfd("test", "config", 6, NULL);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), -1);
    g_autofree char *back = sm_fd_read_all(fd, 6, &len, NULL);
    assert_string_equal(back, "config");
    g_autoptr(GError) error = NULL;
    assert_null(sm_fd_read_all(fd, 5, &len, &error));
    assert_non_null(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_is_sticky),
        cmocka_unit_test(test_writer_is_bounded),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_secret_wipes_source),
        cmocka_unit_test(test_secret_read),
        cmocka_unit_test(test_fd_messages),
        cmocka_unit_test(test_memfd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
