/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket against clients that misbehave: floods, half lines, NULs, no reading, too many, leaving in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "supervisor/control.h"

static char workdir[400];
static int dirfd_;

struct server {
    struct sm_loop *loop;
    struct sm_control *control;
    uint64_t asked[64];
    enum sm_control_verb verbs[64];
    char *arguments[64]; /* NULL: none */
    unsigned n;
};

static void on_request(void *data, uint64_t client, enum sm_control_verb verb, const char *argument)
{
    struct server *s = data;
    assert_true(s->n < 64);
    s->asked[s->n] = client;
    s->arguments[s->n] = g_strdup(argument);
    s->verbs[s->n++] = verb;
}

static const struct sm_control_ops ops = {.request = on_request};

static void setup(struct server *s)
{
    memset(s, 0, sizeof(*s));
    s->loop = sm_loop_new(NULL);
    s->control = sm_control_new(s->loop, dirfd_, &ops, s, NULL);
    assert_non_null(s->control);
}

static void teardown(struct server *s)
{
    sm_control_free(s->control);
    sm_loop_free(s->loop);
    for (unsigned i = 0; i < s->n; i++)
        g_free(s->arguments[i]);
    assert_int_equal(faccessat(dirfd_, SM_CONTROL_SOCKET, F_OK, 0), -1);
}

static void turns(struct server *s)
{
    for (int i = 0; i < 20; i++)
        (void)sm_loop_turn(s->loop, 0);
}

static int client(void)
{
    int fd = sm_control_connect(dirfd_, 5000);
    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/** Bytes that are there; -1: the stream has ended. */
static ssize_t take(int fd, char *buf, size_t cap)
{
    ssize_t n = recv(fd, buf, cap - 1, MSG_DONTWAIT);
    buf[n > 0 ? n : 0] = '\0';
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return -1;
    return n < 0 ? 0 : n;
}

static void test_modes(void **state)
{
    struct server s;
    struct stat st;
    mode_t old = umask(0);
    setup(&s);
    assert_int_equal(fstatat(dirfd_, SM_CONTROL_SOCKET, &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(umask(old), 0); /* the caller's umask is as it was */
    teardown(&s);
}

static void test_stale_socket_is_replaced(void **state)
{
    struct server s;
    char target[] = "somewhere";
    /* left by one that was killed; a symbolic link in its place is removed, not followed */
    assert_int_equal(symlinkat(target, dirfd_, SM_CONTROL_SOCKET), 0);
    setup(&s);
    int fd = client();
    close(fd);
    teardown(&s);
    assert_int_equal(faccessat(dirfd_, target, F_OK, 0), -1);
}

static void test_question_and_answer(void **state)
{
    struct server s;
    char buf[4096];
    setup(&s);
    int fd = client();
    say(fd, "status\n");
    turns(&s);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.verbs[0], SM_CONTROL_STATUS);
    assert_int_equal(take(fd, buf, sizeof(buf)), 0);
    sm_control_reply(s.control, s.asked[0], "{\"ok\": true}", false);
    assert_int_equal(take(fd, buf, sizeof(buf)), 13);
    assert_string_equal(buf, "{\"ok\": true}\n");
    say(fd, "sta"); /* a line may come in pieces, and one connection may ask again */
    turns(&s);
    say(fd, "tus\n");
    turns(&s);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.asked[1], s.asked[0]);
    sm_control_reply(s.control, s.asked[1], "{}", false);
    assert_int_equal(take(fd, buf, sizeof(buf)), 3);
    say(fd, "stop\n");
    turns(&s);
    assert_int_equal(s.verbs[2], SM_CONTROL_STOP);
    sm_control_reply(s.control, s.asked[2], "{}", true);
    assert_int_equal(take(fd, buf, sizeof(buf)), 3);
    turns(&s);
    assert_int_equal(take(fd, buf, sizeof(buf)), 0); /* stays open */
    teardown(&s);
    assert_int_equal(take(fd, buf, sizeof(buf)), -1); /* and ends with the workspace */
    close(fd);
}

static void test_nonsense(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        bool answered; /* with an error; otherwise the client is dropped */
    } cases[] = {
        {"restart\n", 8, true},          {"\n", 1, true},         {"STATUS\n", 7, true},
        {"publish\n", 8, true},          {"publish \n", 9, true}, {"reload x\n", 9, true},
        {" status\n", 8, true},          {"stop now\n", 9, true}, {"policy\n", 7, true},
        {"status \n", 8, true},          {"status\r\n", 8, true}, {"status\0\n", 8, false},
        {"status\nstatus\n", 14, false}, {"stop\nx", 6, false},   {"\xff\xfe\n", 3, true},
        {"GET / HTTP/1.1\n", 15, true},
    };
    struct server s;
    char buf[4096];
    setup(&s);
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        int fd = client();
        assert_int_equal(send(fd, cases[i].text, cases[i].len, 0), cases[i].len);
        turns(&s);
        if (cases[i].answered) {
            assert_true(take(fd, buf, sizeof(buf)) > 0);
            assert_non_null(strstr(buf, "\"ok\": false"));
        } else {
            assert_int_equal(take(fd, buf, sizeof(buf)), -1);
        }
        close(fd);
        turns(&s);
        assert_int_equal(sm_control_clients(s.control), 0);
    }
    assert_int_equal(s.n, 0);
    teardown(&s);
}

/** A verb's argument comes as it was sent: blanks and all, as long as a path may be. */
static void test_arguments(void **state)
{
    struct server s;
    g_autofree char *path = g_strnfill(4096, 'p');
    g_autofree char *line = g_strdup_printf("policy %s\n", path);
    g_autofree char *too_long = g_strnfill(SM_CONTROL_LINE_MAX, 'p');
    g_autoptr(GError) error = NULL;
    static const struct {
        const char *line, *argument;
        enum sm_control_verb verb;
    } cases[] = {
        {"publish 127.0.0.1:8080:80/tcp\n", "127.0.0.1:8080:80/tcp", SM_CONTROL_PUBLISH},
        {"unpublish :80\n", ":80", SM_CONTROL_UNPUBLISH},
        {"policy /a b/c\n", "/a b/c", SM_CONTROL_POLICY},
        {"policy  /a\n", " /a", SM_CONTROL_POLICY},
        {"reload\n", NULL, SM_CONTROL_RELOAD},
    };
    setup(&s);
    int fd = client();
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        char buf[64];
        say(fd, cases[i].line);
        turns(&s);
        assert_int_equal(s.n, i + 1);
        assert_int_equal(s.verbs[i], cases[i].verb);
        if (cases[i].argument)
            assert_string_equal(s.arguments[i], cases[i].argument);
        else
            assert_null(s.arguments[i]);
        sm_control_reply(s.control, s.asked[i], "{}", false);
        assert_int_equal(take(fd, buf, sizeof(buf)), 3);
    }
    say(fd, line);
    turns(&s);
    assert_int_equal(s.n, SM_ARRAY_LEN(cases) + 1);
    assert_string_equal(s.arguments[SM_ARRAY_LEN(cases)], path);
    /* What no line can carry is not sent. */
    assert_null(sm_control_ask_about(fd, SM_CONTROL_POLICY, too_long, &error));
    assert_int_equal(error->code, SM_ERROR_INVALID);
    g_clear_error(&error);
    assert_null(sm_control_ask_about(fd, SM_CONTROL_POLICY, "/a\nstop", &error));
    g_clear_error(&error);
    assert_null(sm_control_ask_about(fd, SM_CONTROL_PUBLISH, "", &error));
    turns(&s);
    assert_int_equal(s.n, SM_ARRAY_LEN(cases) + 1);
    close(fd);
    teardown(&s);
}

static void test_endless_line(void **state)
{
    struct server s;
    char buf[4096], flood[SM_CONTROL_LINE_MAX * 4];
    setup(&s);
    memset(flood, 'a', sizeof(flood));
    int fd = client();
    assert_int_equal(send(fd, flood, sizeof(flood), 0), sizeof(flood));
    turns(&s);
    assert_int_equal(sm_control_clients(s.control), 0);
    assert_int_equal(take(fd, buf, sizeof(buf)), -1);
    close(fd);
    teardown(&s);
}

static void test_too_many(void **state)
{
    enum { N = SM_CONTROL_CLIENTS_MAX };
    struct server s;
    char buf[256];
    int fds[N];
    setup(&s);
    for (int i = 0; i < N; i++) {
        fds[i] = client();
        turns(&s);
    }
    int more = client();
    turns(&s);
    assert_true(take(more, buf, sizeof(buf)) > 0);
    assert_non_null(strstr(buf, "busy"));
    assert_int_equal(take(more, buf, sizeof(buf)), -1);
    close(more);
    assert_int_equal(sm_control_clients(s.control), N);
    close(fds[3]); /* one leaves: there is room again */
    turns(&s);
    fds[3] = client();
    say(fds[3], "status\n");
    turns(&s);
    assert_int_equal(s.n, 1);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    turns(&s);
    teardown(&s);
}

/** An answer to one that has left goes nowhere, and never to the one that took its place. */
static void test_leaving_before_the_answer(void **state)
{
    struct server s;
    char buf[256];
    setup(&s);
    int fd = client();
    say(fd, "status\n");
    turns(&s);
    close(fd);
    turns(&s);
    assert_int_equal(sm_control_clients(s.control), 0);
    int next = client();
    turns(&s);
    assert_int_equal(sm_control_clients(s.control), 1);
    sm_control_reply(s.control, s.asked[0], "{\"for\": \"the other\"}", false);
    sm_control_reply(s.control, 0, "{}", false);
    turns(&s);
    assert_int_equal(take(next, buf, sizeof(buf)), 0);
    close(next);
    turns(&s);
    teardown(&s);
}

/** One that does not read holds its answer in bounded memory and blocks nobody; one that then reads gets all of it. */
static void test_slow_reader(void **state)
{
    struct server s;
    g_autofree char *big = g_malloc(SM_CONTROL_REPLY_MAX + 10);
    g_autofree char *got = g_malloc(SM_CONTROL_REPLY_MAX + 10);
    char buf[256];
    int small = 4096;
    setup(&s);
    int fd = client(), other = client();
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    say(fd, "status\n");
    turns(&s);
    memset(big, 'x', SM_CONTROL_REPLY_MAX - 1);
    big[SM_CONTROL_REPLY_MAX - 1] = '\0';
    sm_control_reply(s.control, s.asked[0], big, false);
    say(other, "status\n");
    turns(&s);
    assert_int_equal(s.n, 2);
    sm_control_reply(s.control, s.asked[1], "{}", false);
    assert_int_equal(take(other, buf, sizeof(buf)), 3);
    size_t n = 0;
    while (n < SM_CONTROL_REPLY_MAX) {
        ssize_t r = take(fd, got + n, SM_CONTROL_REPLY_MAX + 10 - n);
        assert_true(r >= 0);
        n += (size_t)r;
        turns(&s);
    }
    assert_int_equal(n, SM_CONTROL_REPLY_MAX);
    assert_memory_equal(got, big, SM_CONTROL_REPLY_MAX - 1);
    assert_int_equal(got[n - 1], '\n');
    /* longer than the maximum: dropped, not cut */
    say(fd, "status\n");
    turns(&s);
    big[SM_CONTROL_REPLY_MAX - 1] = 'x';
    big[SM_CONTROL_REPLY_MAX] = '\0';
    sm_control_reply(s.control, s.asked[2], big, false);
    turns(&s);
    assert_int_equal(take(fd, got, 100), -1);
    close(fd);
    close(other);
    turns(&s);
    teardown(&s);
}

static void test_ask_when_the_end_comes_first(void **state)
{
    int pair[2];
    g_autoptr(GError) error = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
    assert_null(sm_control_ask(pair[0], SM_CONTROL_STATUS, &error));
    assert_non_null(strstr(error->message, "ended"));
    close(pair[0]);
    close(pair[1]);
}

static void test_nobody_there(void **state)
{
    assert_int_equal(sm_control_connect(dirfd_, 1000), -1);
    assert_int_equal(errno, ENOENT);
}

static void test_status_is_decoded(void **state)
{
    json_t *s = json_pack("{s:{s:s, s:s, s:n}}", "reports", "core", "{\"flows\": 2, \"mediationReady\": true}", "front",
                          "{\"half", "guest");
    sm_control_decode_status(s);
    const json_t *reports = json_object_get(s, "reports");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(reports, "core"), "flows")), 2);
    assert_string_equal(json_string_value(json_object_get(reports, "front")), "{\"half"); /* as it came */
    assert_true(json_is_null(json_object_get(reports, "guest")));
    assert_true(json_is_true(json_object_get(s, "mediationReady")));
    json_decref(s);

    s = json_pack("{s:{s:s}}", "reports", "core", "{\"flows\": 2}");
    sm_control_decode_status(s);
    assert_null(json_object_get(s, "mediationReady"));
    json_decref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_is_decoded),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_stale_socket_is_replaced),
        cmocka_unit_test(test_question_and_answer),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_endless_line),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_leaving_before_the_answer),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_ask_when_the_end_comes_first),
        cmocka_unit_test(test_nobody_there),
    };
    char base[] = "/tmp/sm-test-control-XXXXXX";
    if (!mkdtemp(base))
        return 1;
    /* longer than sun_path */
    (void)g_snprintf(workdir, sizeof(workdir), "%s/%0120d", base, 1);
    if (mkdir(workdir, 0700) < 0 || (dirfd_ = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return 1;
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    close(dirfd_);
    (void)rmdir(workdir);
    (void)rmdir(base);
    return r;
}
