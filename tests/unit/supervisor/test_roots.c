/* SPDX-License-Identifier: BSD-3-Clause */
/* This machine's certificates: which file is taken, what is passed over, and that what is handed out cannot be written to. */
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
#include "base/fd.h"
#include "supervisor/roots.h"

static char dir[64];

static char *at(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void expect(char *const *paths, const char *want, const char *text)
{
    const char *path = NULL;
    g_autoptr(GError) error = NULL;
    sm_autofd fd = sm_roots_open(paths, &path, &error);

    if (fd < 0)
        fail_msg("%s", error->message);
    assert_string_equal(path, want);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    g_autofree char *got = sm_fd_read_all(fd, SM_ROOTS_MAX, NULL, NULL);
    assert_string_equal(got, text);
    assert_true(write(fd, "x", 1) < 0);
}

static void test_first_that_can_be_had(void **state)
{
    g_autofree char *none = at("none"), *empty = at("empty"), *pipe = at("pipe"), *large = at("large"),
                    *good = at("good");
    g_autofree char *link = at("link"), *below = at("good/x");
    char *const all[] = {none, below, empty, pipe, dir, large, link, NULL};
    g_autofree char *much = g_strnfill(SM_ROOTS_MAX + 1, 'x');

    assert_true(g_file_set_contents(empty, "", 0, NULL));
    assert_true(g_file_set_contents(large, much, -1, NULL));
    assert_true(g_file_set_contents(good, "roots", -1, NULL));
    assert_int_equal(mkfifo(pipe, 0600), 0); /* nobody writes: must not be waited for */
    assert_int_equal(symlink("good", link), 0);
    expect(all, link, "roots");
    char *const first[] = {good, large, NULL};
    expect(first, good, "roots");

    char *const wrong[] = {none, empty, pipe, large, NULL};
    g_autoptr(GError) error = NULL;
    assert_int_equal(sm_roots_open(wrong, NULL, &error), -1);
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_MISSING));
    assert_non_null(strstr(error->message, "empty: empty"));
    assert_non_null(strstr(error->message, "pipe: not a regular file"));
    assert_non_null(strstr(error->message, "large: larger than 4 MiB"));
    assert_null(strstr(error->message, "none"));
    g_clear_error(&error);
    char *const nothing[] = {none, NULL};
    assert_int_equal(sm_roots_open(nothing, NULL, &error), -1);
    assert_non_null(strstr(error->message, "install ca-certificates"));

    char *const made[] = {empty, pipe, large, good, link};
    for (size_t i = 0; i < SM_ARRAY_LEN(made); i++)
        (void)unlink(made[i]);
}

static void test_paths(void **state)
{
    g_auto(GStrv) plain = sm_roots_paths(NULL);
    g_auto(GStrv) relative = sm_roots_paths("my.pem");
    g_auto(GStrv) own = sm_roots_paths("/my.pem");

    assert_string_equal(plain[0], "/etc/ssl/certs/ca-certificates.crt");
    assert_int_equal(g_strv_length(relative), g_strv_length(plain));
    assert_int_equal(g_strv_length(own), g_strv_length(plain) + 1);
    assert_string_equal(own[0], "/my.pem");
    assert_string_equal(own[1], plain[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_that_can_be_had), cmocka_unit_test(test_paths)};
    g_strlcpy(dir, "/tmp/sm-test-roots-XXXXXX", sizeof(dir));
    if (!mkdtemp(dir))
        return 1;
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(dir);
    return r;
}
