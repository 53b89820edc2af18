/* SPDX-License-Identifier: BSD-3-Clause */
/* What the audit tests share: a workspace folder that is removed again, its files, and lines taken apart. */
#ifndef SM_TEST_AUDIT_HELPER_H
#define SM_TEST_AUDIT_HELPER_H

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "audit/event.h"
#include "audit/file.h"
#include "audit/writer.h"
#include "base/fd.h"

/* 2026-11-22T21:04:05.123456Z */
#define T0 INT64_C(1795381445123456)

struct folder {
    char path[64];
    int fd;
};

static inline int folder_setup(void **state)
{
    struct folder *f = g_new0(struct folder, 1);
    g_strlcpy(f->path, "/tmp/sm-audit-XXXXXX", sizeof(f->path));
    assert_non_null(mkdtemp(f->path)); /* 0700 */
    f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    *state = f;
    return 0;
}

static inline int folder_teardown(void **state)
{
    struct folder *f = *state;
    GDir *dir = g_dir_open(f->path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        (void)unlinkat(f->fd, name, 0);
    if (dir)
        g_dir_close(dir);
    (void)rmdir(f->path);
    (void)close(f->fd);
    g_free(f);
    return 0;
}

static inline struct sm_audit_writer *writer_open_max(struct folder *f, uint64_t max_bytes)
{
    GError *error = NULL;
    struct sm_audit_options o = {.workspace = "demo", .max_bytes = max_bytes};
    int fd = sm_audit_open(f->fd, &o.seq_floor, &error);
    if (error)
        fail_msg("%s", error->message);
    struct sm_audit_writer *w = sm_audit_writer_new(fd, &o, T0, &error);
    if (error)
        fail_msg("%s", error->message);
    return w;
}

static inline struct sm_audit_writer *writer_open(struct folder *f)
{
    return writer_open_max(f, 0);
}

static inline char *slurp(struct folder *f, const char *name, size_t *ret_len)
{
    sm_autofd fd = openat(f->fd, name, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    if (fd < 0)
        return NULL;
    char *text = sm_fd_read_all(fd, SIZE_MAX / 2, &len, NULL);
    assert_non_null(text);
    if (ret_len)
        *ret_len = len;
    return text;
}

static inline size_t file_len(struct folder *f, const char *name)
{
    struct stat st;
    assert_int_equal(fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    return (size_t)st.st_size;
}

static inline void spit(struct folder *f, const char *name, const char *text, size_t len)
{
    sm_autofd fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sm_fd_write_all(fd, text, len), 0);
}

static inline void append_text(struct folder *f, const char *name, const char *text)
{
    sm_autofd fd = openat(f->fd, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sm_fd_write_all(fd, text, strlen(text)), 0);
}

/* All lines of a file as JSON objects (an array); fails the test when one is not. */
static inline json_t *load_lines(struct folder *f, const char *name)
{
    json_t *all = json_array();
    size_t len = 0;
    g_autofree char *text = slurp(f, name, &len);
    assert_non_null(text);
    for (size_t at = 0; at < len;) {
        const char *nl = memchr(text + at, '\n', len - at);
        json_error_t error;
        assert_non_null(nl); /* a torn line */
        size_t n = (size_t)(nl - text) - at;
        json_t *line = json_loadb(text + at, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
        if (!line)
            fail_msg("not JSON: %s: %.*s", error.text, (int)n, text + at);
        assert_true(json_is_object(line));
        json_array_append_new(all, line);
        at += n + 1;
    }
    return all;
}

static inline const char *str_at(const json_t *lines, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(lines, i), key));
}

static inline int64_t int_at(const json_t *lines, size_t i, const char *key)
{
    const json_t *v = json_object_get(json_array_get(lines, i), key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

/* seq counts up by one through the array, beginning with first. */
static inline void assert_seqs(const json_t *lines, int64_t first)
{
    for (size_t i = 0; i < json_array_size(lines); i++)
        assert_int_equal(int_at(lines, i, "seq"), first + (int64_t)i);
}

static inline void simple_record(struct sm_audit_record *r, enum sm_audit_event event, uint64_t flow)
{
    sm_audit_begin(r, event, T0);
    sm_audit_add_uint(r, "flow", flow);
}

static inline bool append_simple(struct sm_audit_writer *w, uint64_t flow)
{
    struct sm_audit_record r;
    simple_record(&r, SM_AUDIT_EGRESS_ALLOW, flow);
    return sm_audit_append(w, &r);
}

static inline bool note_simple(struct sm_audit_writer *w, uint64_t flow)
{
    struct sm_audit_record r;
    simple_record(&r, SM_AUDIT_EGRESS_CLOSE, flow);
    return sm_audit_note(w, &r);
}

/* In a child process: a failed check ends it with 1, which the test then sees. */
#define CHILD_CHECK(x)                                                                                                 \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: child: %s\n", __FILE__, __LINE__, #x);                                             \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Exit status of fn run in a child of its own (what it does to the process does not outlive it). */
static inline int in_child(void (*fn)(struct folder *f), struct folder *f)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed assertion must not go on with the parent's tests */
        fn(f);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
