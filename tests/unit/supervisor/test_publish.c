/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Published ports with a core that this test plays: what is told to it and when, who is let in, and what happens when the core, the kernel or
 * the clients misbehave. All on loopback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "supervisor/publish.h"

#define CLIENTS 200

struct world {
    struct sm_loop *loop;
    struct sm_publishes *ps;
    GPtrArray *told;      /* char *: texts of LISTENERS */
    int fds[CLIENTS];     /* of INGRESS */
    char *ports[CLIENTS]; /* ... their texts */
    unsigned n;
    int refuse;     /* errno of tell(); 0: it works */
    unsigned tells; /* INGRESS tried */
    uint64_t settled[64];
    char *errors[64];
    struct sm_publish actual[64];
    unsigned n_settled;
};

static int tell(void *data, enum sm_link_verb verb, const char *text, int fd)
{
    struct world *w = data;

    if (verb == SM_LINK_INGRESS)
        w->tells++;
    if (w->refuse) {
        errno = w->refuse;
        return -1;
    }
    if (verb == SM_LINK_LISTENERS) {
        assert_int_equal(fd, -1);
        g_ptr_array_add(w->told, g_strdup(text));
        return 0;
    }
    assert_int_equal(verb, SM_LINK_INGRESS);
    assert_true(fd >= 0 && w->n < CLIENTS);
    w->ports[w->n] = g_strdup(text);
    w->fds[w->n++] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return 0;
}

static void settled(void *data, uint64_t client, const struct sm_publish *p, const char *error)
{
    struct world *w = data;

    assert_true(w->n_settled < 64);
    w->settled[w->n_settled] = client;
    w->actual[w->n_settled] = *p;
    w->errors[w->n_settled++] = g_strdup(error);
}

static int setup(void **state)
{
    static const struct sm_publishes_ops ops = {.tell = tell, .settled = settled};
    struct world *w = g_new0(struct world, 1);

    w->loop = sm_loop_new(NULL);
    w->told = g_ptr_array_new_with_free_func(g_free);
    w->ps = sm_publishes_new(w->loop, &ops, w);
    *state = w;
    return 0;
}

static void forget_clients(struct world *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        g_free(w->ports[i]);
        close(w->fds[i]);
    }
    w->n = 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    sm_publishes_free(w->ps);
    sm_loop_free(w->loop);
    forget_clients(w);
    for (unsigned i = 0; i < w->n_settled; i++)
        g_free(w->errors[i]);
    g_ptr_array_unref(w->told);
    g_free(w);
    return 0;
}

static void turns(struct world *w)
{
    for (int i = 0; i < 40; i++)
        (void)sm_loop_turn(w->loop, 0);
}

static struct sm_publish spec(const char *text)
{
    struct sm_publish p;
    g_autoptr(GError) error = NULL;

    if (!sm_publish_parse(text, &p, &error))
        fail_msg("%s: %s", text, error->message);
    return p;
}

static void add(struct world *w, const char *text, uint64_t client)
{
    struct sm_publish p = spec(text);
    g_autoptr(GError) error = NULL;

    if (!sm_publishes_add(w->ps, &p, client, &error))
        fail_msg("%s: %s", text, error->message);
}

/* A published port that is served; returns its port. */
static uint16_t serve(struct world *w)
{
    assert_true(sm_publishes_begin(w->ps));
    add(w, "0:80/tcp", 7);
    sm_publishes_listeners_known(w->ps);
    assert_int_equal(w->n_settled, 1);
    assert_null(w->errors[0]);
    return w->actual[0].host.port;
}

static int dial(uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* ---- text ---- */

static void test_text(void **state)
{
    static const struct {
        const char *text, *canonical;
    } good[] = {
        {"127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"},
        {"8080:80/tcp", "127.0.0.1:8080:80/tcp"},
        {"8080:80", "127.0.0.1:8080:80/tcp"},
        {"0:80", "127.0.0.1:0:80/tcp"},
        {"0.0.0.0:65535:65535/tcp", "0.0.0.0:65535:65535/tcp"},
        {"192.0.2.1:1:1", "192.0.2.1:1:1/tcp"},
        {"[::1]:8080:80/tcp", "[::1]:8080:80/tcp"},
        {"[::]:0:22", "[::]:0:22/tcp"},
    };
    static const char *const wrong[] = {
        "",
        "80",
        ":80",
        "::80",
        ":8080:80",
        "8080:",
        "8080:0",
        "8080:65536",
        "65536:80",
        "8080:80/udp",
        "8080:80/TCP",
        "8080:80/",
        "8080:80/tcp/tcp",
        "a:80",
        "8080:a",
        "+1:80",
        "-1:80",
        " 8080:80",
        "8080:80 ",
        "8080 :80",
        "0x50:80",
        "08080:80a",
        "host:1:1",
        "127.1:1:1",
        "127.0.0.1:1",
        "[::1]:80",
        "::1:8080:80",
        "[127.0.0.1]:1:1",
        "[]:1:1",
        "[::1:1:1",
        "::1]:1:1",
        "[::1%lo]:1:1",
        "127.0.0.1:1:1:1",
        "999999:1",
        "*:1:1",
        "127.0.0.1:8080:80/tcp\n",
    };
    char text[SM_PUBLISH_STRLEN];

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++) {
        struct sm_publish p = spec(good[i].text), again;
        assert_string_equal(sm_publish_format(&p, text), good[i].canonical);
        again = spec(text);
        assert_true(sm_endpoint_equal(&again.host, &p.host) && again.guest_port == p.guest_port);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        struct sm_publish p = {.guest_port = 4711};
        g_autoptr(GError) error = NULL;
        /* "127.0.0.1:1" and "[::1]:80" have a host where the host's port should be */
        if (sm_publish_parse(wrong[i], &p, &error))
            fail_msg("'%s' was taken", wrong[i]);
        assert_int_equal(p.guest_port, 4711);
        assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_INVALID));
        assert_non_null(strstr(error->message, "HOST:HOSTPORT:GUESTPORT/tcp"));
    }
}

/* ---- the core knows before anybody can connect ---- */

static void test_nobody_listens_before_the_core_knows(void **state)
{
    struct world *w = *state;

    add(w, "0:80", 0);
    add(w, "0:81", 0);
    turns(w);
    assert_int_equal(w->told->len, 0); /* there is no core yet */
    assert_true(sm_publishes_begin(w->ps));
    assert_int_equal(w->told->len, 1);
    assert_int_equal(sm_publishes_owed(w->ps, SM_LINK_LISTENERS), 1);
    assert_false(sm_publishes_all_listen(w->ps));
    uint16_t port = sm_publishes_get(w->ps, 0)->host.port;
    g_autofree char *want = g_strdup_printf("127.0.0.1:%u,127.0.0.1:%u", port, sm_publishes_get(w->ps, 1)->host.port);
    assert_string_equal(g_ptr_array_index(w->told, 0), want);
    assert_int_equal(dial(port), -1);
    assert_int_equal(errno, ECONNREFUSED);

    /* A third comes before the answer to the first list: that answer is not for it. */
    add(w, "0:82", 9);
    assert_int_equal(w->told->len, 2);
    sm_publishes_listeners_known(w->ps);
    assert_int_equal(w->n_settled, 2);
    int fd = dial(port);
    assert_true(fd >= 0);
    assert_int_equal(dial(sm_publishes_get(w->ps, 2)->host.port), -1);
    sm_publishes_listeners_known(w->ps);
    assert_int_equal(w->n_settled, 3);
    assert_int_equal(w->settled[2], 9);
    assert_true(sm_publishes_all_listen(w->ps));
    assert_int_equal(sm_publishes_owed(w->ps, SM_LINK_LISTENERS), 0);
    json_t *all = sm_publishes_json(w->ps);
    assert_int_equal(json_array_size(all), 3);
    json_decref(all);
    close(fd);
}

static void test_unpublish(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);
    struct sm_publish p = {.host = {sm_addr_v4(127, 0, 0, 1), port}, .guest_port = 81};

    assert_false(sm_publishes_remove(w->ps, &p)); /* another port of the guest */
    p.guest_port = 80;
    int there = dial(port);
    turns(w);
    assert_int_equal(w->n, 1);
    assert_true(sm_publishes_remove(w->ps, &p));
    assert_false(sm_publishes_remove(w->ps, &p));
    assert_int_equal(dial(port), -1);
    assert_string_equal(g_ptr_array_index(w->told, w->told->len - 1), "");
    assert_int_equal(send(w->fds[0], "x", 1, 0), 1); /* who is there goes on */
    char c;
    assert_int_equal(recv(there, &c, 1, 0), 1);
    close(there);

    /* One that is not served yet: who waits for it hears of it. */
    add(w, "0:80", 11);
    p = *sm_publishes_get(w->ps, 0);
    assert_true(sm_publishes_remove(w->ps, &p));
    assert_int_equal(w->settled[w->n_settled - 1], 11);
    assert_non_null(w->errors[w->n_settled - 1]);
}

static void test_in_use(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);
    g_autofree char *text = g_strdup_printf("%u:81", port);
    struct sm_publish p = spec(text);
    g_autoptr(GError) error = NULL;

    assert_false(sm_publishes_add(w->ps, &p, 1, &error));
    assert_non_null(strstr(error->message, "published already"));
    g_clear_error(&error);

    /* Another program listens. */
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    assert_int_equal(setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(other, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(other, (struct sockaddr *)&in, &len), 0);
    g_autofree char *named = g_strdup_printf("127.0.0.1:%u", ntohs(in.sin_port));
    g_autofree char *taken = g_strdup_printf("%s:80/tcp", named);
    p = spec(taken);
    /* ... not yet: both are bound, and the kernel tells when we want to listen. */
    assert_true(sm_publishes_add(w->ps, &p, 5, &error));
    assert_int_equal(listen(other, 1), 0);
    sm_publishes_listeners_known(w->ps);
    assert_int_equal(w->settled[w->n_settled - 1], 5);
    assert_non_null(strstr(w->errors[w->n_settled - 1], named));
    assert_non_null(strstr(w->errors[w->n_settled - 1], "in use"));
    sm_publishes_listeners_known(w->ps); /* the list without it */
    assert_int_equal(sm_publishes_owed(w->ps, SM_LINK_LISTENERS), 0);
    /* ... and now it does, and the error names it at once. */
    assert_false(sm_publishes_add(w->ps, &p, 5, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_BUSY));
    assert_non_null(strstr(error->message, named));
    close(other);

    g_clear_error(&error);
    p = spec("192.0.2.7:8080:80");
    assert_false(sm_publishes_add(w->ps, &p, 5, &error));
    assert_non_null(strstr(error->message, "192.0.2.7:8080 is no address of this host"));
    assert_int_equal(sm_publishes_get(w->ps, 0)->host.port, port); /* all as it was */
}

static void test_too_many(void **state)
{
    struct world *w = *state;
    struct sm_publish p = spec("0:80");
    g_autoptr(GError) error = NULL;

    for (int i = 0; i < SM_PUBLISH_MAX; i++)
        assert_true(sm_publishes_add(w->ps, &p, 0, NULL));
    assert_false(sm_publishes_add(w->ps, &p, 0, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    assert_true(sm_publishes_begin(w->ps));
    assert_true(strlen(g_ptr_array_index(w->told, 0)) < SM_LINK_MAX - 16); /* all of them in one message */
}

/* ---- clients ---- */

static void test_clients(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);
    int fds[CLIENTS / 2];
    struct sockaddr_in peer, own;
    socklen_t len = sizeof(peer), own_len = sizeof(own);

    for (size_t i = 0; i < SM_ARRAY_LEN(fds); i++)
        assert_true((fds[i] = dial(port)) >= 0); /* the kernel has them */
    turns(w);
    /* As many as the core may have unanswered, and no more. */
    assert_int_equal(w->n, SM_PUBLISH_INFLIGHT_MAX);
    assert_int_equal(sm_publishes_owed(w->ps, SM_LINK_INGRESS), SM_PUBLISH_INFLIGHT_MAX);
    assert_string_equal(w->ports[0], "80");
    assert_int_equal(getpeername(w->fds[0], (struct sockaddr *)&peer, &len), 0);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&own, &own_len), 0);
    assert_int_equal(peer.sin_port, own.sin_port);
    assert_true(fcntl(w->fds[0], F_GETFL) & O_NONBLOCK);
    sm_publishes_taken(w->ps);
    turns(w);
    assert_int_equal(w->n, SM_PUBLISH_INFLIGHT_MAX + 1);
    for (size_t i = 0; i < SM_ARRAY_LEN(fds); i++) {
        if (sm_publishes_owed(w->ps, SM_LINK_INGRESS))
            sm_publishes_taken(w->ps);
        turns(w);
    }
    assert_int_equal(w->n, SM_ARRAY_LEN(fds)); /* nobody was lost */
    for (size_t i = 0; i < SM_ARRAY_LEN(fds); i++)
        close(fds[i]);
}

/* Where the link is full the client waits, and nobody spins; where the core is gone it is reset. */
static void test_link_is_full(void **state)
{
    static const int soft[] = {EAGAIN, ENOBUFS, ETOOMANYREFS};
    struct world *w = *state;
    uint16_t port = serve(w);

    for (size_t i = 0; i < SM_ARRAY_LEN(soft); i++) {
        w->refuse = soft[i];
        w->tells = 0;
        int fd = dial(port), second = dial(port);
        turns(w);
        assert_int_equal(w->tells, 1);
        assert_int_equal(w->n, 0);
        w->refuse = 0;
        for (int k = 0; k < 100 && w->n < 2; k++)
            (void)sm_loop_turn(w->loop, 50);
        assert_int_equal(w->n, 2);
        assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
        close(fd);
        close(second);
        forget_clients(w);
        sm_publishes_taken(w->ps);
        sm_publishes_taken(w->ps);
    }
    w->refuse = EPIPE;
    int fd = dial(port);
    turns(w);
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

/* No descriptor left: the listener rests, without a busy loop, and takes the client when there is one again. */
static void test_no_descriptor(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);
    struct rlimit old, none;
    int fd = dial(port);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int64_t begin = sm_clock_us();
    int rounds = 0;
    while (sm_clock_us() - begin < 150000) {
        (void)sm_loop_turn(w->loop, 20);
        rounds++;
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(w->n, 0);
    assert_true(rounds < 20); /* it waited */
    for (int k = 0; k < 100 && w->n == 0; k++)
        (void)sm_loop_turn(w->loop, 50);
    assert_int_equal(w->n, 1);
    close(fd);
}

/* Reset before it was accepted: handed on like any other (the core looks at it), and the next one is well. */
static void test_reset_at_once(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);
    struct linger now = {.l_onoff = 1};

    for (int i = 0; i < 20; i++) {
        int fd = dial(port);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
        close(fd);
    }
    int fd = dial(port);
    turns(w);
    assert_true(w->n >= 1 && w->n <= 21);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    char c;
    struct pollfd p = {.fd = w->fds[w->n - 1], .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(recv(w->fds[w->n - 1], &c, 1, 0), 1);
    close(fd);
}

static void test_end(void **state)
{
    struct world *w = *state;
    uint16_t port = serve(w);

    sm_publishes_end(w->ps);
    assert_int_equal(dial(port), -1);
    sm_publishes_taken(w->ps);
    turns(w);
    assert_int_equal(w->n, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        T(test_nobody_listens_before_the_core_knows),
        T(test_unpublish),
        T(test_in_use),
        T(test_too_many),
        T(test_clients),
        T(test_link_is_full),
        T(test_no_descriptor),
        T(test_reset_at_once),
        T(test_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
