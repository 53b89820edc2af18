/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets that VMMs come to: who is let in, what is in the way, one at a time, going there, and running out of descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "supervisor/listens.h"

#define DEADLINE_US (10 * INT64_C(1000000))

static char *workdir;

struct w {
    struct sm_loop *loop;
    struct sm_listens *listens;
    int fds[64];
    const char *tags[64];
    unsigned n;
};

static void on_connected(void *data, const char *tag, int fd)
{
    struct w *w = data;
    assert_true(w->n < SM_ARRAY_LEN(w->fds));
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    w->fds[w->n] = fd;
    w->tags[w->n++] = tag;
}

static const struct sm_listens_ops ops = {.connected = on_connected};

static bool try_open(struct w *w, const struct sm_listen_spec *specs, size_t n, GError **error)
{
    memset(w, 0, sizeof(*w));
    w->loop = sm_loop_new(NULL);
    w->listens = sm_listens_new(w->loop, specs, n, &ops, w, error);
    if (!w->listens)
        sm_loop_free(w->loop);
    return w->listens != NULL;
}

static void begin(struct w *w, const struct sm_listen_spec *spec)
{
    g_autoptr(GError) error = NULL;
    if (!try_open(w, spec, 1, &error))
        fail_msg("%s", error->message);
    sm_listens_start(w->listens);
}

static void end(struct w *w)
{
    sm_listens_free(w->listens);
    for (unsigned i = 0; i < w->n; i++)
        sm_fd_close(&w->fds[i]);
    sm_loop_free(w->loop);
}

static void settle(struct w *w)
{
    for (int i = 0; i < 10; i++)
        assert_int_equal(sm_loop_turn(w->loop, 0), 0);
}

static void until_connected(struct w *w, unsigned n)
{
    int64_t late = sm_clock_us() + DEADLINE_US;
    while (w->n < n) {
        assert_true(sm_clock_us() < late);
        assert_int_equal(sm_loop_turn(w->loop, 1000), 0);
    }
}

static void refused(const struct sm_listen_spec *spec, enum sm_error_code code, const char *words)
{
    g_autoptr(GError) error = NULL;
    struct w w;
    assert_false(try_open(&w, spec, 1, &error));
    if (error->code != (int)code || !strstr(error->message, words))
        fail_msg("'%s' (%d) lacks '%s'", error->message, error->code, words);
}

static char *in_workdir(const char *name)
{
    return g_build_filename(workdir, name, NULL);
}

static void address(const char *path, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    assert_true(strlen(path) < sizeof(ret->sun_path));
    strcpy(ret->sun_path, path);
}

static int bound(const char *path, int type)
{
    struct sockaddr_un sun;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address(path, &sun);
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    return fd;
}

static int dial(const char *path)
{
    struct sockaddr_un sun;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address(path, &sun);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool is_closed(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void test_listens_and_goes(void **state)
{
    g_autofree char *path = in_workdir("net.sock");
    struct sm_listen_spec spec = {.kind = SM_LISTEN_UNIX, .tag = "net", .path = path};
    struct stat st;
    struct w w;
    mode_t old = umask(0);

    assert_true(try_open(&w, &spec, 1, NULL));
    assert_int_equal(umask(old), 0);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    int fd = dial(path); /* before the start: it waits */
    assert_true(fd >= 0);
    settle(&w);
    assert_int_equal(w.n, 0);
    sm_listens_start(w.listens);
    settle(&w);
    assert_int_equal(w.n, 1);
    assert_string_equal(w.tags[0], "net");
    assert_int_equal(write(fd, "hello", 5), 5);
    char buf[8];
    assert_int_equal(read(w.fds[0], buf, sizeof(buf)), 5);
    close(fd);
    end(&w);
    assert_false(exists(path));
}

/* sun_path holds 108 bytes; a path may have 4096. */
static void test_deep_path(void **state)
{
    g_autofree char *deep = in_workdir("deep");
    for (int i = 0; i < 12; i++) {
        char *next = g_strconcat(deep, "/twenty-characters-or", NULL);
        g_free(deep);
        deep = next;
    }
    assert_int_equal(g_mkdir_with_parents(deep, 0700), 0);
    g_autofree char *path = g_strconcat(deep, "/s", NULL);
    assert_true(strlen(path) > 200);
    struct w w;
    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "t", .path = path});
    int dirfd = open(deep, O_PATH | O_DIRECTORY | O_CLOEXEC);
    g_autofree char *near = g_strdup_printf("/proc/self/fd/%d/s", dirfd);
    int fd = dial(near);
    assert_true(fd >= 0);
    settle(&w);
    assert_int_equal(w.n, 1);
    close(fd);
    end(&w);
    assert_false(exists(path));
    close(dirfd);
}

static void test_what_is_in_the_way(void **state)
{
    g_autofree char *path = in_workdir("way.sock");
    g_autofree char *target = in_workdir("target");
    struct sm_listen_spec spec = {.kind = SM_LISTEN_UNIX, .tag = "t", .path = path};
    struct w w;

    /* left by one that was killed */
    for (unsigned i = 0; i < 2; i++) {
        close(bound(path, i ? SOCK_DGRAM : SOCK_STREAM));
        assert_true(exists(path));
        begin(&w, &spec);
        int fd = dial(path);
        assert_true(fd >= 0);
        close(fd);
        end(&w);
    }
    /* somebody answers, in whatever way: nothing is taken away */
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (size_t i = 0; i < SM_ARRAY_LEN(types); i++) {
        int other = bound(path, types[i]);
        if (types[i] != SOCK_DGRAM)
            assert_int_equal(listen(other, 1), 0);
        refused(&spec, SM_ERROR_BUSY, "in use");
        assert_true(exists(path));
        close(other);
        unlink(path);
    }
    /* no socket: not ours to remove */
    assert_true(g_file_set_contents(path, "precious", -1, NULL));
    refused(&spec, SM_ERROR_INVALID, "no socket");
    assert_true(exists(path));
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
    refused(&spec, SM_ERROR_INVALID, "no socket");
    assert_false(exists(target)); /* not followed */
    assert_true(exists(path));
    unlink(path);
    /* the end removes what we made, and nothing that stands there by then */
    begin(&w, &spec);
    unlink(path);
    int other = bound(path, SOCK_STREAM);
    end(&w);
    assert_true(exists(path));
    close(other);
    unlink(path);
}

static void test_paths_that_cannot_be(void **state)
{
    g_autofree char *long_name = g_strnfill(100, 'x');
    g_autofree char *too_long = g_build_filename(workdir, long_name, NULL);
    g_autofree char *nowhere = in_workdir("none/s");
    g_autofree char *open_dir = in_workdir("open");
    g_autofree char *in_open = in_workdir("open/s");
    g_autofree char *same = in_workdir("same");
    const char *wrong[] = {"", "relative", "/tmp/", "/tmp/.", "/tmp/..", too_long};
    struct sm_listen_spec spec = {.kind = SM_LISTEN_UNIX, .tag = "t"};
    struct w w;

    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        spec.path = wrong[i];
        refused(&spec, SM_ERROR_INVALID, "socket");
    }
    spec.path = nowhere;
    refused(&spec, SM_ERROR_INVALID, "No such file");
    assert_int_equal(mkdir(open_dir, 0700), 0);
    assert_int_equal(chmod(open_dir, 0777), 0);
    spec.path = in_open;
    refused(&spec, SM_ERROR_INVALID, "everybody");
    assert_int_equal(chmod(open_dir, 01777), 0);
    begin(&w, &spec);
    end(&w);
    refused(&(struct sm_listen_spec){.kind = SM_LISTEN_DGRAM, .tag = "t", .path = same, .peer = same}, SM_ERROR_INVALID,
            "both ends");
}

/* A row fails: those before it leave nothing. */
static void test_all_or_nothing(void **state)
{
    g_autofree char *first = in_workdir("first");
    struct sm_listen_spec specs[] = {{.kind = SM_LISTEN_UNIX, .tag = "a", .path = first},
                                     {.kind = SM_LISTEN_UNIX, .tag = "b", .path = "relative"}};
    struct w w;
    assert_false(try_open(&w, specs, 2, NULL));
    assert_false(exists(first));
}

static void test_rows_and_tags(void **state)
{
    g_autofree char *a = in_workdir("v.sock_1027");
    g_autofree char *b = in_workdir("v.sock_4000");
    struct sm_listen_spec specs[] = {{.kind = SM_LISTEN_UNIX, .tag = "vsock:1027", .path = a},
                                     {.kind = SM_LISTEN_UNIX, .tag = "vsock:4000", .path = b}};
    struct w w;
    int fds[20];

    assert_true(try_open(&w, specs, 2, NULL));
    sm_listens_start(w.listens);
    for (int i = 0; i < 20; i++) { /* not single: as many as come */
        fds[i] = dial(i % 2 ? b : a);
        assert_true(fds[i] >= 0);
        settle(&w);
        assert_int_equal(w.n, i + 1);
        assert_string_equal(w.tags[i], specs[i % 2].tag);
    }
    for (int i = 0; i < 20; i++)
        close(fds[i]);
    end(&w);
}

static void test_one_at_a_time(void **state)
{
    g_autofree char *path = in_workdir("single");
    struct w w;
    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "net", .path = path, .single = true});

    int first = dial(path), second = dial(path), third = dial(path);
    settle(&w);
    assert_int_equal(w.n, 1);
    assert_false(is_closed(first));
    assert_false(is_closed(second)); /* held: the first may be on its way out */
    assert_true(is_closed(third));
    sm_listens_gone(w.listens, "other");
    assert_int_equal(w.n, 1);
    sm_listens_gone(w.listens, "net");
    assert_int_equal(w.n, 2);
    assert_int_equal(write(second, "x", 1), 1);
    char c;
    assert_int_equal(read(w.fds[1], &c, 1), 1);

    /* the one that is there stays: who came in its place is closed in the end */
    int late = dial(path);
    int64_t from = sm_clock_us();
    settle(&w);
    assert_false(is_closed(late));
    while (!is_closed(late)) {
        assert_true(sm_clock_us() - from < DEADLINE_US);
        assert_int_equal(sm_loop_turn(w.loop, 1000), 0);
    }
    assert_true(sm_clock_us() - from >= SM_LISTENS_HOLD_US);
    assert_int_equal(w.n, 2);

    /* and when that one has gone, the next comes in at once; gone twice is gone once */
    sm_listens_gone(w.listens, "net");
    sm_listens_gone(w.listens, "net");
    int next = dial(path);
    settle(&w);
    assert_int_equal(w.n, 3);
    /* the end closes who is held */
    int held = dial(path);
    settle(&w);
    end(&w);
    assert_true(is_closed(held));
    close(first);
    close(second);
    close(third);
    close(late);
    close(next);
    close(held);
}

static void test_other_users(void **state)
{
    g_autofree char *path = in_workdir("uid");
    struct w w;

    if (geteuid() != 0)
        skip(); /* it takes root to be somebody else */
    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "net", .path = path});
    /* The modes alone would keep them out; here they are opened, so that the check is what does it. */
    assert_int_equal(chmod(workdir, 0755), 0);
    assert_int_equal(chmod(path, 0666), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        if (setresuid(12345, 12345, 12345) < 0)
            _exit(2);
        int fd = dial(path);
        if (fd < 0)
            _exit(3);
        _exit(read(fd, &c, 1) == 0 ? 0 : 4); /* closed */
    }
    int status = -1;
    int64_t late = sm_clock_us() + DEADLINE_US;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        assert_true(sm_clock_us() < late);
        assert_int_equal(sm_loop_turn(w.loop, 10), 0);
    }
    assert_int_equal(status, 0);
    assert_int_equal(w.n, 0);
    int fd = dial(path);
    settle(&w);
    assert_int_equal(w.n, 1);
    close(fd);
    end(&w);
    assert_false(exists(path)); /* though its modes were changed */
    assert_int_equal(chmod(workdir, 0700), 0);
}

static int tcp_socket(struct sockaddr_in *ret)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(*ret);
    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)ret, sizeof(*ret)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
    return fd;
}

static void test_tcp(void **state)
{
    static const char *const wrong[] = {"0.0.0.0:7", "10.0.0.1:7",      "203.0.113.7:7", "128.0.0.1:7",
                                        "[::]:7",    "[2001:db8::1]:7", "127.0.0.1:0"};
    struct sockaddr_in sin;
    struct sm_listen_spec spec = {.kind = SM_LISTEN_TCP, .tag = "net"};
    struct w w;
    int on = 0;
    socklen_t len = sizeof(on);

    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        assert_true(sm_endpoint_parse(wrong[i], 0, &spec.endpoint));
        assert_false(sm_listens_check(&spec, NULL));
        refused(&spec, SM_ERROR_INVALID, "loopback");
    }
    int other = tcp_socket(&sin);
    assert_int_equal(listen(other, 1), 0);
    spec.endpoint = (struct sm_endpoint){sm_addr_v4(127, 0, 0, 1), ntohs(sin.sin_port)};
    refused(&spec, SM_ERROR_BUSY, "in use");
    close(other);
    begin(&w, &spec);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    settle(&w);
    assert_int_equal(w.n, 1);
    assert_int_equal(getsockopt(w.fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_int_equal(on, 1);
    close(fd);
    end(&w);
}

static void test_client(void **state)
{
    g_autofree char *path = in_workdir("theirs");
    struct w w;
    begin(&w,
          &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "net", .path = path, .client = true, .single = true});
    settle(&w);
    assert_int_equal(w.n, 0);
    assert_false(exists(path)); /* it is the VMM's to make */
    close(bound(path, SOCK_STREAM));
    settle(&w);
    assert_int_equal(w.n, 0);
    unlink(path);
    int vmm = bound(path, SOCK_STREAM);
    assert_int_equal(listen(vmm, 4), 0);
    until_connected(&w, 1);
    settle(&w);
    assert_int_equal(w.n, 1);
    int served = accept(vmm, NULL, NULL);
    assert_true(served >= 0);
    assert_int_equal(accept(vmm, NULL, NULL), -1); /* once */
    close(served);
    sm_listens_gone(w.listens, "net");
    until_connected(&w, 2);
    close(vmm);
    unlink(path);
    sm_listens_gone(w.listens, "net");
    settle(&w);
    vmm = bound(path, SOCK_STREAM);
    assert_int_equal(listen(vmm, 4), 0);
    until_connected(&w, 3);
    end(&w);
    assert_true(exists(path));
    close(vmm);
    unlink(path);
}

static void test_client_tcp(void **state)
{
    struct sockaddr_in sin;
    struct w w;
    int vmm = tcp_socket(&sin);

    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_TCP,
                                       .tag = "net",
                                       .client = true,
                                       .single = true,
                                       .endpoint = {sm_addr_v4(127, 0, 0, 1), ntohs(sin.sin_port)}});
    settle(&w);
    assert_int_equal(w.n, 0);
    assert_int_equal(listen(vmm, 4), 0);
    until_connected(&w, 1);
    assert_int_equal(write(w.fds[0], "x", 1), 1);
    int served = accept(vmm, NULL, NULL);
    char c;
    assert_int_equal(read(served, &c, 1), 1);
    close(served);
    close(vmm);
    end(&w);
}

/* A client does not spin on a VMM that closes at once. */
static void test_client_backs_off(void **state)
{
    g_autofree char *path = in_workdir("rude");
    struct w w;
    int vmm = bound(path, SOCK_STREAM);
    assert_int_equal(listen(vmm, 16), 0);
    begin(&w,
          &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "net", .path = path, .client = true, .single = true});
    int64_t from = sm_clock_us();
    for (unsigned i = 1; i <= 5; i++) {
        until_connected(&w, i);
        close(accept(vmm, NULL, NULL));
        sm_listens_gone(w.listens, "net");
    }
    /* 50, 100, 200, 400 ms between the five */
    assert_true(sm_clock_us() - from >= 15 * SM_LISTENS_RETRY_MIN_US);
    end(&w);
    close(vmm);
    unlink(path);
}

static void test_out_of_descriptors(void **state)
{
    g_autofree char *path = in_workdir("emfile");
    struct rlimit old, low;
    struct w w;
    unsigned turns = 0;

    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_UNIX, .tag = "net", .path = path});
    int fd = dial(path);
    assert_true(fd >= 0);
    int next = dup(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    close(next);
    low = (struct rlimit){(rlim_t)next, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int64_t until = sm_clock_us() + 300000;
    while (sm_clock_us() < until) {
        assert_int_equal(sm_loop_turn(w.loop, 100), 0);
        turns++;
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(w.n, 0);
    assert_true(turns < 10); /* it waits, and does not spin */
    until_connected(&w, 1);
    close(fd);
    end(&w);
}

static void test_dgram(void **state)
{
    g_autofree char *ours = in_workdir("d.ours");
    g_autofree char *theirs = in_workdir("d.vmm");
    struct sockaddr_un sun;
    struct stat st;
    struct w w;
    char buf[16];

    address(ours, &sun);
    begin(&w, &(struct sm_listen_spec){.kind = SM_LISTEN_DGRAM, .tag = "net", .path = ours, .peer = theirs});
    assert_int_equal(w.n, 1); /* there is a socket, be there a VMM or not */
    assert_int_equal(lstat(ours, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(write(w.fds[0], "x", 1), -1);
    close(bound(theirs, SOCK_DGRAM)); /* an old one, with nobody behind it */
    settle(&w);
    for (unsigned round = 0; round < 3; round++) {
        unlink(theirs);
        int vmm = bound(theirs, SOCK_DGRAM);
        int64_t late = sm_clock_us() + DEADLINE_US;
        while (write(w.fds[0], "frame", 5) != 5) {
            assert_true(sm_clock_us() < late);
            assert_int_equal(sm_loop_turn(w.loop, 1000), 0);
        }
        assert_int_equal(recv(vmm, buf, sizeof(buf), MSG_DONTWAIT), 5);
        assert_int_equal(sendto(vmm, "answer", 6, 0, (struct sockaddr *)&sun, sizeof(sun)), 6);
        assert_int_equal(recv(w.fds[0], buf, sizeof(buf), MSG_DONTWAIT), 6);
        assert_int_equal(w.n, 1 + round); /* told that it is another one */
        close(vmm);
    }
    end(&w);
    assert_false(exists(ours));
    assert_true(exists(theirs));
    unlink(theirs);
}

static int group_setup(void **state)
{
    char name[] = "/tmp/sm-listens-XXXXXX";
    (void)signal(SIGPIPE, SIG_IGN);
    sm_log_set_level(SM_LOG_ERROR);
    workdir = g_strdup(mkdtemp(name));
    return workdir ? 0 : -1;
}

static int group_teardown(void **state)
{
    char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, workdir, NULL};
    return g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listens_and_goes),
        cmocka_unit_test(test_deep_path),
        cmocka_unit_test(test_what_is_in_the_way),
        cmocka_unit_test(test_paths_that_cannot_be),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_rows_and_tags),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_other_users),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_client),
        cmocka_unit_test(test_client_tcp),
        cmocka_unit_test(test_client_backs_off),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_dgram),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
