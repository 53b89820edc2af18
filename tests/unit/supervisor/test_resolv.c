/* SPDX-License-Identifier: BSD-3-Clause */
/* Following resolv.conf through everything that system tools do to it: rewrite, replace, remove, link, exchange of the link's target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "supervisor/resolv.h"

static char dir[64];
static char *conf, *target, *temp;

struct seen {
    unsigned n;
    char *text;
};

static void on_change(void *data, int fd)
{
    struct seen *s = data;
    s->n++;
    g_free(s->text);
    s->text = sm_fd_read_all(fd, SM_RESOLV_MAX, NULL, NULL);
    assert_true(write(fd, "x", 1) < 0); /* sealed */
    close(fd);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/** Turn until the n-th change has come. */
static void until(struct sm_loop *loop, struct seen *s, unsigned n, const char *text)
{
    int64_t give_up = sm_clock_us() + 10000000;
    while (s->n < n && sm_clock_us() < give_up)
        (void)sm_loop_turn(loop, 100);
    assert_int_equal(s->n, n);
    assert_string_equal(s->text, text);
}

/** After a change that must not be reported, a second one is made that must: what comes first shows it. */
static void test_follow(void **state)
{
    struct sm_loop *loop = sm_loop_new(NULL);
    struct seen seen = {0};
    put(conf, "nameserver 192.0.2.1\n");
    struct sm_resolv_watch *w = sm_resolv_watch_new(loop, conf, "nameserver 192.0.2.1\n", on_change, &seen, NULL);
    assert_non_null(w);

    put(conf, "nameserver 192.0.2.2\n"); /* rewritten in place */
    until(loop, &seen, 1, "nameserver 192.0.2.2\n");
    put(temp, "nameserver 192.0.2.3\n"); /* replaced by rename */
    assert_int_equal(rename(temp, conf), 0);
    until(loop, &seen, 2, "nameserver 192.0.2.3\n");
    put(conf, "nameserver 192.0.2.3\n"); /* the same again: no news; nor is its removal */
    assert_int_equal(unlink(conf), 0);
    put(conf, "nameserver 192.0.2.4\n");
    until(loop, &seen, 3, "nameserver 192.0.2.4\n");
    put(target, "nameserver 192.0.2.5\n"); /* becomes a link into another folder */
    assert_int_equal(unlink(conf), 0);
    assert_int_equal(symlink(target, conf), 0);
    until(loop, &seen, 4, "nameserver 192.0.2.5\n");
    put(target, "nameserver 192.0.2.6\n"); /* and that file changes */
    until(loop, &seen, 5, "nameserver 192.0.2.6\n");
    put(temp, "nameserver 192.0.2.7\n");
    assert_int_equal(rename(temp, target), 0);
    until(loop, &seen, 6, "nameserver 192.0.2.7\n");

    int fd = sm_resolv_watch_get(w, NULL); /* asked for */
    g_autofree char *text = sm_fd_read_all(fd, 1000, NULL, NULL);
    assert_string_equal(text, "nameserver 192.0.2.7\n");
    close(fd);
    sm_resolv_watch_free(w);
    sm_loop_free(loop);
    g_free(seen.text);
}

static void test_read(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)unlink(conf);
    assert_null(sm_resolv_read(conf, &error));
    assert_non_null(strstr(error->message, conf));
    g_clear_error(&error);
    assert_int_equal(mkfifo(conf, 0600), 0); /* does not block */
    assert_null(sm_resolv_read(conf, &error));
    assert_non_null(strstr(error->message, "not a regular file"));
    g_clear_error(&error);
    (void)unlink(conf);
    g_autofree char *big = g_strnfill(SM_RESOLV_MAX + 1, '#');
    put(conf, big);
    assert_null(sm_resolv_read(conf, &error));
    g_clear_error(&error);
    big[SM_RESOLV_MAX] = '\0';
    put(conf, big);
    g_autofree char *text = sm_resolv_read(conf, NULL);
    assert_string_equal(text, big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_follow), cmocka_unit_test(test_read)};
    g_strlcpy(dir, "/tmp/sm-test-resolv-XXXXXX", sizeof(dir));
    if (!mkdtemp(dir))
        return 1;
    g_autofree char *a = g_build_filename(dir, "etc", NULL), *b = g_build_filename(dir, "run", NULL);
    if (mkdir(a, 0700) < 0 || mkdir(b, 0700) < 0)
        return 1;
    conf = g_build_filename(a, "resolv.conf", NULL);
    temp = g_build_filename(dir, "temp", NULL);
    target = g_build_filename(b, "stub-resolv.conf", NULL);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(conf);
    (void)unlink(temp);
    (void)unlink(target);
    (void)rmdir(a);
    (void)rmdir(b);
    (void)rmdir(dir);
    g_free(conf);
    g_free(temp);
    g_free(target);
    return r;
}
