/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer when the disk does not take it: no line torn, none lost that had happened, no seq twice, admission stopped
 * and resumed.
 *
 * Each case runs in a child, because it changes the process: a file size limit (a write comes back short), a file
 * system of its own in a mount namespace (a disk that is really full, and one without fallocate), or a seccomp filter
 * that makes one system call fail.
 */
#include "helper.h"

#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#define SKIP 77

static void limit_file_size(rlim_t bytes)
{
    struct rlimit lim;
    CHILD_CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHILD_CHECK(getrlimit(RLIMIT_FSIZE, &lim) == 0);
    lim.rlim_cur = bytes;
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &lim) == 0);
}

static void make_fail(int syscall_nr, int err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    CHILD_CHECK(ctx && seccomp_rule_add(ctx, SCMP_ACT_ERRNO((unsigned)err), syscall_nr, 0) == 0);
    CHILD_CHECK(seccomp_load(ctx) == 0);
    seccomp_release(ctx);
}

static bool write_file(const char *path, const char *text)
{
    sm_autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && sm_fd_write_all(fd, text, strlen(text)) == 0;
}

/* A file system of our own over the test's folder, whose descriptor is opened anew. */
static void mount_over(struct folder *f, const char *type, const char *options)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWNS | (uid == 0 ? 0 : CLONE_NEWUSER)) < 0)
        _exit(SKIP);
    if (uid != 0) {
        char map[64];
        g_snprintf(map, sizeof(map), "%u %u 1", (unsigned)uid, (unsigned)uid);
        CHILD_CHECK(write_file("/proc/self/uid_map", map) && write_file("/proc/self/setgroups", "deny"));
        g_snprintf(map, sizeof(map), "%u %u 1", (unsigned)gid, (unsigned)gid);
        CHILD_CHECK(write_file("/proc/self/gid_map", map));
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(type, f->path, type, MS_NOSUID | MS_NODEV, options) < 0)
        _exit(SKIP);
    f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHILD_CHECK(f->fd >= 0 && fchmod(f->fd, 0700) == 0);
}

static void fill_disk(struct folder *f)
{
    static const char block[4096];
    sm_autofd fd = openat(f->fd, "filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHILD_CHECK(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    CHILD_CHECK(errno == ENOSPC);
}

static size_t size_of(struct folder *f, const char *name)
{
    struct stat st;
    CHILD_CHECK(fstatat(f->fd, name, &st, 0) == 0);
    return (size_t)st.st_size;
}

static bool append_padded(struct sm_audit_writer *w, uint64_t flow, size_t pad)
{
    struct sm_audit_record r;
    g_autofree char *text = g_strnfill(pad, 'p');
    simple_record(&r, SM_AUDIT_EGRESS_ALLOW, flow);
    sm_audit_add_str(&r, "pad", text);
    return sm_audit_append(w, &r);
}

/* What every case ends with: writing works again; the fact that came during the outage is there, the decisions are not.
 */
static void check_recovery(struct folder *f, struct sm_audit_writer *w, uint64_t recorded)
{
    CHILD_CHECK(!sm_audit_healthy(w));
    CHILD_CHECK(sm_audit_probe(w, T0 + 5));
    CHILD_CHECK(sm_audit_healthy(w) && !sm_audit_failure(w));
    CHILD_CHECK(append_simple(w, 900) && sm_audit_commit(w));
    sm_audit_writer_free(w);

    json_t *lines = load_lines(f, SM_AUDIT_FILE); /* every line whole */
    size_t n = json_array_size(lines);
    CHILD_CHECK(n == recorded + 3);
    for (size_t i = 0; i < n; i++)
        CHILD_CHECK(int_at(lines, i, "seq") == (int64_t)i + 1);
    CHILD_CHECK(int_at(lines, n - 3, "flow") == 800);
    CHILD_CHECK(strcmp(str_at(lines, n - 2, "event"), "egress_log_resume") == 0);
    CHILD_CHECK(int_at(lines, n - 2, "lost") == 0 && int_at(lines, n - 2, "failures") >= 1);
    CHILD_CHECK(int_at(lines, n - 1, "flow") == 900);
    json_decref(lines);
}

static void really_full(struct folder *f)
{
    mount_over(f, "tmpfs", "size=3m,mode=0700");
    struct sm_audit_writer *w = writer_open(f);
    CHILD_CHECK(append_simple(w, 1) && sm_audit_commit(w));
    fill_disk(f);

    /* What was reserved can still be used; then it ends, and not in the middle of a line. */
    uint64_t recorded = 1, flow = 1;
    for (;;) {
        CHILD_CHECK(append_padded(w, ++flow, 700) && append_padded(w, ++flow, 700));
        size_t before = size_of(f, SM_AUDIT_FILE);
        if (!sm_audit_commit(w)) {
            CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before);
            break;
        }
        recorded += 2;
    }
    CHILD_CHECK(recorded > 100); /* about a megabyte was there */
    CHILD_CHECK(strstr(sm_audit_failure(w), "No space left on device") && strstr(sm_audit_failure(w), "make room"));
    CHILD_CHECK(!append_simple(w, 700));
    CHILD_CHECK(note_simple(w, 800));
    CHILD_CHECK(sm_audit_commit(w)); /* nothing but a fact: nothing to undo */
    CHILD_CHECK(!sm_audit_probe(w, T0));
    CHILD_CHECK(unlinkat(f->fd, "filler", 0) == 0);
    check_recovery(f, w, recorded);
}

static void full_from_the_start(struct folder *f)
{
    mount_over(f, "tmpfs", "size=1m,mode=0700");
    spit(f, SM_AUDIT_FILE, "torn", 4);
    fill_disk(f);
    /* The repair does not fit: starting fails with the reason, the file is as it was. */
    GError *error = NULL;
    struct sm_audit_options o = {.workspace = "demo"};
    char fat[4096];
    memset(fat, 'x', sizeof(fat));
    sm_autofd fd = sm_audit_open(f->fd, &o.seq_floor, &error);
    CHILD_CHECK(fd >= 0);
    /* The last page of the file is there already: fill it up. */
    CHILD_CHECK(write(fd, fat, sizeof(fat) - 4) == (ssize_t)sizeof(fat) - 4);
    CHILD_CHECK(!sm_audit_writer_new(fd, &o, T0, &error));
    CHILD_CHECK(error && strstr(error->message, "No space left"));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == sizeof(fat));
}

static void short_write(struct folder *f)
{
    struct sm_audit_writer *w = writer_open(f);
    CHILD_CHECK(append_simple(w, 1) && sm_audit_commit(w));
    size_t before = size_of(f, SM_AUDIT_FILE);
    limit_file_size(before + 200); /* one line and a bit */
    CHILD_CHECK(append_simple(w, 2) && append_simple(w, 3) && append_simple(w, 4));
    CHILD_CHECK(note_simple(w, 800));
    CHILD_CHECK(!sm_audit_commit(w));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before);
    CHILD_CHECK(sm_audit_pending(w) == 1);
    CHILD_CHECK(strstr(sm_audit_failure(w), "File too large"));
    CHILD_CHECK(!sm_audit_probe(w, T0));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before);
    limit_file_size(RLIM_INFINITY);
    check_recovery(f, w, 1);
}

static void short_write_without_fallocate(struct folder *f)
{
    mount_over(f, "ramfs", "mode=0700");
    CHILD_CHECK(fallocate(f->fd, FALLOC_FL_KEEP_SIZE, 0, 1) < 0);
    short_write(f);
}

static void fallocate_not_permitted(struct folder *f)
{
    make_fail(SCMP_SYS(fallocate), EPERM);
    short_write(f);
}

static void disk_errors_when_reserving(struct folder *f)
{
    struct sm_audit_writer *w = writer_open(f);
    make_fail(SCMP_SYS(fallocate), EDQUOT);
    CHILD_CHECK(append_simple(w, 1));
    CHILD_CHECK(!sm_audit_commit(w));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == 0 && sm_audit_next_seq(w) == 1);
    sm_audit_writer_free(w);
}

static void sync_fails(struct folder *f)
{
    struct sm_audit_options o = {.workspace = "demo", .sync = true};
    struct sm_audit_writer *w = sm_audit_writer_new(sm_audit_open(f->fd, NULL, NULL), &o, T0, NULL);
    CHILD_CHECK(w && append_simple(w, 1) && sm_audit_commit(w));
    size_t before = size_of(f, SM_AUDIT_FILE);
    make_fail(SCMP_SYS(fdatasync), EIO);
    CHILD_CHECK(append_simple(w, 2));
    CHILD_CHECK(!sm_audit_commit(w));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before && sm_audit_next_seq(w) == 2);
    CHILD_CHECK(strstr(sm_audit_failure(w), "fdatasync"));
    sm_audit_writer_free(w);
}

/* A short write that cannot even be taken back: the torn line is ended and told of, no seq is used twice. */
static void cannot_cut_back(struct folder *f)
{
    struct sm_audit_writer *w = writer_open(f);
    CHILD_CHECK(append_simple(w, 1) && sm_audit_commit(w));
    size_t before = size_of(f, SM_AUDIT_FILE);
    limit_file_size(before + 150);
    make_fail(SCMP_SYS(ftruncate), EPERM);
    CHILD_CHECK(append_simple(w, 2) && append_simple(w, 3) && append_simple(w, 4));
    CHILD_CHECK(!sm_audit_commit(w));
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before + 150);
    CHILD_CHECK(!sm_audit_probe(w, T0)); /* nothing at all fits: nothing changes */
    CHILD_CHECK(size_of(f, SM_AUDIT_FILE) == before + 150);
    limit_file_size(RLIM_INFINITY);
    CHILD_CHECK(sm_audit_probe(w, T0));
    CHILD_CHECK(append_simple(w, 5) && sm_audit_commit(w));
    sm_audit_writer_free(w);

    g_autofree char *text = slurp(f, SM_AUDIT_FILE, NULL);
    g_auto(GStrv) rows = g_strsplit(text, "\n", -1);
    CHILD_CHECK(g_strv_length(rows) == 7);
    CHILD_CHECK(strstr(rows[1], "\"seq\":2,") && g_str_has_suffix(rows[1], "}"));
    CHILD_CHECK(!g_str_has_suffix(rows[2], "}")); /* torn */
    g_autofree char *torn = g_strdup_printf(
        "\"seq\":5,\"event\":\"egress_log_repair\",\"workspace\":\"demo\",\"torn_bytes\":%zu}", strlen(rows[2]));
    CHILD_CHECK(strstr(rows[3], torn));
    CHILD_CHECK(strstr(rows[4], "\"seq\":6,\"event\":\"egress_log_resume\""));
    CHILD_CHECK(strstr(rows[5], "\"seq\":7,\"event\":\"egress_allow\""));
}

static void out_of_descriptors_when_rotating(struct folder *f)
{
    struct sm_audit_writer *w = writer_open(f);
    struct rlimit lim = {0};
    GError *error = NULL;
    CHILD_CHECK(append_simple(w, 1) && sm_audit_commit(w));
    CHILD_CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
    rlim_t old = lim.rlim_cur;
    lim.rlim_cur = 3;
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
    CHILD_CHECK(sm_audit_rotate(f->fd, &error) == -1 && strstr(error->message, "Too many open files"));
    /* No name has changed and the writer goes on. */
    CHILD_CHECK(faccessat(f->fd, SM_AUDIT_FILE_ROTATED, F_OK, 0) < 0 && faccessat(f->fd, SM_AUDIT_FILE, F_OK, 0) == 0);
    CHILD_CHECK(append_simple(w, 2) && sm_audit_commit(w));
    lim.rlim_cur = old;
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
    CHILD_CHECK(sm_audit_adopt(w, sm_audit_rotate(f->fd, NULL), T0));
    CHILD_CHECK(append_simple(w, 3) && sm_audit_commit(w));
    sm_audit_writer_free(w);
}

/* kill -9 at any moment: what commit said it wrote is there, and the next start continues. */
static void killed(struct folder *f)
{
    struct sm_audit_writer *w = writer_open(f);
    for (uint64_t i = 1;; i++) {
        CHILD_CHECK(append_simple(w, i) && append_simple(w, i) && sm_audit_commit(w));
        sm_autofd done = openat(f->fd, "done", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        CHILD_CHECK(pwrite(done, &i, sizeof(i), 0) == sizeof(i));
    }
}

static void test_killed(void **state)
{
    struct folder *f = *state;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        killed(f);
        _exit(1);
    }
    uint64_t done = 0;
    while (done < 200) {
        sm_autofd fd = openat(f->fd, "done", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, &done, sizeof(done), 0) != sizeof(done))
            sched_yield();
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    sm_autofd fd = openat(f->fd, "done", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &done, sizeof(done), 0), sizeof(done));
    json_t *lines = load_lines(f, SM_AUDIT_FILE);
    size_t n = json_array_size(lines);
    assert_true(n >= 2 * done);
    assert_seqs(lines, 1);
    json_decref(lines);
    struct sm_audit_writer *w = writer_open(f);
    assert_true(sm_audit_next_seq(w) == n + 1);
    sm_audit_writer_free(w);
}

static void run(void **state, void (*fn)(struct folder *f))
{
    int status = in_child(fn, *state);
    if (status == SKIP) {
        print_message("skipped: no mount namespace can be had here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#define CASE(fn)                                                                                                       \
    static void test_##fn(void **state)                                                                                \
    {                                                                                                                  \
        run(state, fn);                                                                                                \
    }
CASE(really_full)
CASE(full_from_the_start)
CASE(short_write)
CASE(short_write_without_fallocate)
CASE(fallocate_not_permitted)
CASE(disk_errors_when_reserving)
CASE(sync_fails)
CASE(cannot_cut_back)
CASE(out_of_descriptors_when_rotating)

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, folder_setup, folder_teardown)
    const struct CMUnitTest tests[] = {
        T(test_really_full),
        T(test_full_from_the_start),
        T(test_short_write),
        T(test_short_write_without_fallocate),
        T(test_fallocate_not_permitted),
        T(test_disk_errors_when_reserving),
        T(test_sync_fails),
        T(test_cannot_cut_back),
        T(test_out_of_descriptors_when_rotating),
        T(test_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
