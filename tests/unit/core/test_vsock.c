/* SPDX-License-Identifier: BSD-3-Clause */
/* The host's vsock ports: the certificate, the mediation channel, both ways in, and what is recorded of them. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "core/vsock.h"

#define PORT 5000u

static unsigned ready_calls;
static char *ready_error;

static void on_ready(struct sm_core *core, const GError *error)
{
    ready_calls++;
    g_free(ready_error);
    ready_error = error ? g_strdup(error->message) : NULL;
}

/* One target, at addr (NULL: the fixture's listener). */
static struct fixture *start_with(const char *mode, bool required, const char *addrs)
{
    /* The listener's port is only known once there is a fixture: so the table is filled in afterwards, as the loader would. */
    g_autofree char *vsock =
        g_strdup_printf("{\"ca_port\":1027,\"mediation\":[{\"port\":%u,\"target\":\"control:7000\",\"required\":%s,"
                        "\"addrs\":[%s]}]}",
                        PORT, required ? "true" : "false", addrs ? addrs : "\"127.0.0.1:1\"");
    struct fixture *f = fixture_new_vsock(mode, vsock);

    if (!addrs)
        f->core.config->mediation[0].addrs[0] = (struct sm_endpoint){loopback, f->port};
    ready_calls = 0;
    g_clear_pointer(&ready_error, g_free);
    sm_core_vsock_new(&f->core, on_ready);
    return f;
}

static void turn_until_ready(struct fixture *f)
{
    for (int i = 0; i < 200 && ready_calls == 0; i++)
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    assert_int_equal(ready_calls, 1);
}

/* Guarded, with a CA, and the target probed (its connection is taken and closed). */
static struct fixture *start(void)
{
    struct fixture *f = start_with("guarded", true, NULL);
    g_autoptr(GError) error = NULL;

    assert_true(sm_pki_make(&f->core, -1, -1, &error) && sm_pki_open(&f->core, &error));
    turn_until_ready(f);
    assert_null(ready_error);
    close(server_accept(f));
    return f;
}

static void stop(struct fixture *f)
{
    sm_core_vsock_stop(&f->core, "test_end");
    assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
    fixture_free(f);
    g_clear_pointer(&ready_error, g_free);
}

static void open_vsock(struct fixture *f, uint64_t id, uint32_t port)
{
    struct sm_flow_msg m = {
        .type = SM_FLOW_OPEN, .id = id, .proto = SM_FLOW_VSOCK, .vsock_src = 9999, .vsock_dst = port};
    tell(f, &m);
}

static int take_attached(struct fixture *f, uint64_t id)
{
    assert_int_equal(hear(f), SM_FLOW_ATTACH);
    assert_int_equal(f->last.id, id);
    return sm_steal_fd(&f->attached);
}

static void expect_refused(struct fixture *f, uint64_t id)
{
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    assert_int_equal(f->last.id, id);
    assert_int_equal(f->last.how, SM_HOW_RST);
    assert_int_equal(f->last.hold_ms, 0);
}

/* The guest's side of a connection that comes by the VMM's socket. */
static int take_hybrid(struct fixture *f, const char *port)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    sm_core_vsock_take(&f->core, port, &pair[1]);
    assert_int_equal(pair[1], -1);
    return pair[0];
}

static void expect_bytes(struct fixture *f, int fd, const void *want, size_t len)
{
    g_autofree uint8_t *got = g_malloc(len);

    for (size_t have = 0; have < len;) {
        ssize_t n = recv_turning(f, fd, got + have, len - have);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_memory_equal(got, want, len);
}

static void expect_end(struct fixture *f, int fd)
{
    char c;
    assert_int_equal(recv_turning(f, fd, &c, 1), 0);
}

static void wait_for_line(struct fixture *f, const char *event)
{
    for (int i = 0; i < 200 && !audit_has(f, event); i++)
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    assert_true(audit_has(f, event));
}

/* The value of a number in the line. */
static uint64_t number_in(const char *line, const char *key)
{
    g_autofree char *want = g_strdup_printf("\"%s\":", key);
    const char *at = strstr(line, want);
    assert_non_null(at);
    return g_ascii_strtoull(at + strlen(want), NULL, 10);
}

/* ---- the certificate ---- */

static void test_certificate(void **state)
{
    struct fixture *f = start();
    const char *pem = sm_tls_ca_cert_pem(f->core.ca);

    open_vsock(f, 1, 1027);
    int fd = take_attached(f, 1);
    expect_bytes(f, fd, pem, strlen(pem));
    expect_end(f, fd);
    close(fd);
    gone(f, 1, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "ca_delivered", 0);
    assert_non_null(line);
    assert_int_equal(number_in(line, "flow"), 1);
    assert_int_equal(number_in(line, "guest_port"), 9999);
    assert_non_null(strstr(line, "\"via\":\"vsock\""));
    /* Only the certificate. */
    g_autofree char *all = audit_text(f);
    assert_null(strstr(pem, "PRIVATE"));
    assert_null(strstr(all, "PRIVATE"));
    stop(f);
}

static void test_certificate_by_hybrid(void **state)
{
    struct fixture *f = start();
    const char *pem = sm_tls_ca_cert_pem(f->core.ca);
    int fd = take_hybrid(f, "1027");

    /* It says something first, as a client may that does not know better. */
    assert_int_equal(write(fd, "hello\n", 6), 6);
    expect_bytes(f, fd, pem, strlen(pem));
    expect_end(f, fd);
    close(fd);
    assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    g_autofree char *line = audit_line(f, "ca_delivered", 0);
    assert_non_null(strstr(line, "\"via\":\"unix\""));
    assert_null(strstr(line, "\"flow\""));
    stop(f);
}

static void test_certificate_talkative(void **state)
{
    struct fixture *f = start();
    static char much[4096];
    char c;

    open_vsock(f, 1, 1027);
    int fd = take_attached(f, 1);
    for (int i = 0; i < 4; i++)
        (void)!write(fd, much, sizeof(much));
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    while (recv_turning(f, fd, &c, 1) > 0)
        continue;
    close(fd);
    stop(f);
}

static void test_no_certificate(void **state)
{
    static const char *const modes[] = {"off", "guarded"}; /* guarded as with --egress-opaque: no CA was made */

    for (size_t i = 0; i < SM_ARRAY_LEN(modes); i++) {
        struct fixture *f = start_with(modes[i], false, NULL);
        open_vsock(f, 1, 1027);
        expect_refused(f, 1);
        int fd = take_hybrid(f, "1027");
        expect_end(f, fd);
        close(fd);
        assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
        assert_int_equal(audit_has(f, "mediation_error"), i == 1);
        stop(f);
    }
}

static void test_certificates_at_once(void **state)
{
    struct fixture *f = start();
    int fds[SM_CORE_CA_CONNS_MAX];

    for (unsigned i = 0; i < SM_CORE_CA_CONNS_MAX; i++) {
        open_vsock(f, i + 1, 1027);
        fds[i] = take_attached(f, i + 1);
    }
    open_vsock(f, 100, 1027);
    expect_refused(f, 100);
    close(fds[0]);
    assert_int_equal(sm_loop_turn(f->core.loop, 1000), 0); /* its end is seen: the next is served */
    open_vsock(f, 101, 1027);
    close(take_attached(f, 101));
    for (unsigned i = 1; i < SM_CORE_CA_CONNS_MAX; i++)
        close(fds[i]);
    stop(f);
}

/* ---- mediation ---- */

static void test_pipe(void **state)
{
    struct fixture *f = start();
    g_autofree char *open_line = NULL;

    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1);
    int target = server_accept(f);
    /* The line was there before the dial. */
    open_line = audit_line(f, "mediation_open", 0);
    assert_non_null(open_line);
    assert_int_equal(number_in(open_line, "flow"), 1);
    assert_int_equal(number_in(open_line, "vsock_port"), PORT);
    assert_non_null(strstr(open_line, "\"target\":\"control:7000\""));
    assert_int_equal(write(guest, "GET /", 5), 5);
    expect_bytes(f, target, "GET /", 5);
    assert_int_equal(write(target, "200", 3), 3);
    expect_bytes(f, guest, "200", 3);
    /* Half-close, both ways. */
    assert_int_equal(shutdown(guest, SHUT_WR), 0);
    expect_end(f, target);
    assert_int_equal(write(target, "more", 4), 4);
    expect_bytes(f, guest, "more", 4);
    assert_int_equal(shutdown(target, SHUT_WR), 0);
    expect_end(f, guest);
    wait_for_line(f, "mediation_close");
    gone(f, 1, SM_WHY_CLOSED); /* for an id that is gone: nothing */
    assert_true(says_nothing(f));
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_int_equal(number_in(line, "bytes_up"), 5);
    assert_int_equal(number_in(line, "bytes_down"), 7);
    assert_int_equal(number_in(line, "conn"), number_in(open_line, "conn"));
    assert_non_null(strstr(line, "\"reason\":\"closed\""));
    close(guest);
    close(target);
    stop(f);
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((i * 2654435761u + seed) >> 11);
}

static size_t feed(int fd, const uint8_t *p, size_t len)
{
    ssize_t n = send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n > 0 ? (size_t)n : 0;
}

/* Both directions at once, readers that take little: byte-identical, and what waits in the core is bounded. */
static void test_slow_readers(void **state)
{
    struct fixture *f = start();
    enum { TOTAL = 3 << 20 };
    g_autofree uint8_t *data = g_malloc(TOTAL), *at_guest = g_malloc(TOTAL), *at_target = g_malloc(TOTAL);
    size_t up = 0, down = 0, got_up = 0, got_down = 0;
    int guest = take_hybrid(f, "5000");
    int target = -1;

    fill(data, TOTAL, 7);
    for (int i = 0; i < 200 && target < 0; i++) {
        struct pollfd p = {.fd = f->listener, .events = POLLIN};
        sm_loop_turn(f->core.loop, 20);
        if (poll(&p, 1, 0) == 1)
            target = server_accept(f);
    }
    assert_true(target >= 0);
    for (int i = 0; i < 100000 && (got_up < TOTAL || got_down < TOTAL); i++) {
        up += feed(guest, data + up, TOTAL - up);
        down += feed(target, data + down, TOTAL - down);
        assert_int_equal(sm_loop_turn(f->core.loop, i % 16 ? 0 : 1), 0);
        /* Every now and then, so that all queues fill first. */
        if (i % 3 == 0) {
            ssize_t n = recv(target, at_target + got_up, SM_MIN((size_t)20000, TOTAL - got_up), MSG_DONTWAIT);
            got_up += n > 0 ? (size_t)n : 0;
        } else if (i % 3 == 1) {
            ssize_t n = recv(guest, at_guest + got_down, SM_MIN((size_t)30000, TOTAL - got_down), MSG_DONTWAIT);
            got_down += n > 0 ? (size_t)n : 0;
        }
    }
    assert_int_equal(got_up, TOTAL);
    assert_int_equal(got_down, TOTAL);
    assert_memory_equal(at_target, data, TOTAL);
    assert_memory_equal(at_guest, data, TOTAL);
    close(guest);
    expect_end(f, target);
    close(target);
    wait_for_line(f, "mediation_close");
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_int_equal(number_in(line, "bytes_up"), TOTAL);
    assert_int_equal(number_in(line, "bytes_down"), TOTAL);
    stop(f);
}

static bool was_reset(struct fixture *f, int fd)
{
    char c;
    ssize_t n;
    while ((n = recv_turning(f, fd, &c, 1)) > 0)
        continue;
    return n < 0 && errno == ECONNRESET;
}

static void test_resets(void **state)
{
    struct fixture *f = start();
    struct linger now = {.l_onoff = 1};

    /* The guest's RST reaches the target as one. */
    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1);
    int target = server_accept(f);
    close(guest);
    for (int i = 0; i < 3; i++) /* the end of the pair is seen before the front's word on it */
        assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    gone(f, 1, SM_WHY_GUEST_RST);
    assert_true(was_reset(f, target));
    close(target);
    wait_for_line(f, "mediation_close");
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"guest_reset\""));
    /* The target's reaches the guest as one: ABORT. */
    open_vsock(f, 2, PORT);
    guest = take_attached(f, 2);
    target = server_accept(f);
    assert_int_equal(setsockopt(target, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(target);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    assert_int_equal(f->last.id, 2);
    close(guest);
    g_autofree char *second = audit_line(f, "mediation_close", 1);
    assert_non_null(second);
    assert_non_null(strstr(second, "\"reason\":\"target_reset\""));
    stop(f);
}

/* Five short waits: do they wait? */
static bool sleeps(struct fixture *f)
{
    int64_t began = sm_clock_us();

    for (int i = 0; i < 5; i++)
        assert_int_equal(sm_loop_turn(f->core.loop, 40), 0);
    return sm_clock_us() - began >= 100000;
}

/* Ends that cannot be passed on yet, since the other side is full, do not wake us all the time. */
static void test_ends_that_wait(void **state)
{
    struct fixture *f = start();
    static uint8_t data[1 << 16];
    struct linger now = {.l_onoff = 1};
    int small = 4096, target = -1;

    assert_int_equal(setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)),
                     0); /* of what is accepted */
    int guest = take_hybrid(f, "5000");

    for (int i = 0; i < 100 && target < 0; i++) {
        struct pollfd p = {.fd = f->listener, .events = POLLIN};
        sm_loop_turn(f->core.loop, 20);
        target = poll(&p, 1, 0) == 1 ? server_accept(f) : -1;
    }
    size_t sent = 0, got = 0;
    for (int idle = 0; idle < 20;) {
        size_t n = feed(guest, data, sizeof(data));
        sent += n;
        idle = n > 0 ? 0 : idle + 1;
        assert_int_equal(sm_loop_turn(f->core.loop, 5), 0);
    }
    close(guest);
    assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    assert_true(sleeps(f));
    for (ssize_t n; (n = recv_turning(f, target, data, sizeof(data))) > 0;)
        got += (size_t)n;
    assert_int_equal(got, sent);
    close(target);
    wait_for_line(f, "mediation_close");

    /* A target that has ended its half, and then resets the other. */
    open_vsock(f, 1, PORT);
    guest = take_attached(f, 1);
    target = server_accept(f);
    assert_int_equal(shutdown(target, SHUT_WR), 0);
    expect_end(f, guest);
    assert_true(sleeps(f));
    assert_int_equal(setsockopt(target, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(target);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    close(guest);
    g_autofree char *line = audit_line(f, "mediation_close", 1);
    assert_non_null(strstr(line, "\"reason\":\"target_reset\""));

    stop(f);
}

/* A target that has said and ended all, wherever it waits: with the guest's socket full, our buffer full, or the rest in the kernel. */
static void test_target_ends_before_it_is_read(void **state)
{
    struct fixture *f = start();
    static uint8_t data[1 << 14];

    for (uint64_t id = 1; id <= 12; id++) {
        open_vsock(f, id, PORT);
        int guest = take_attached(f, id), target = server_accept(f);
        size_t sent = 0, got = 0, want = (size_t)id * 40000;
        while (sent < want) {
            sent += feed(target, data, SM_MIN(sizeof(data), want - sent));
            assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
        }
        assert_int_equal(shutdown(guest, SHUT_WR), 0);
        expect_end(f, target);
        close(target);
        for (int i = 0; i < 3; i++)
            assert_int_equal(sm_loop_turn(f->core.loop, 5), 0);
        assert_true(sleeps(f));
        for (ssize_t n; (n = recv_turning(f, guest, data, sizeof(data))) > 0;)
            got += (size_t)n;
        assert_int_equal(got, want);
        close(guest);
        gone(f, id, SM_WHY_CLOSED);
    }
    stop(f);
}

/* A front that closes and does not say how: after a while that is taken for an orderly end. */
static void test_no_word(void **state)
{
    struct fixture *f = start();

    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1), target = server_accept(f);
    assert_int_equal(write(guest, "x", 1), 1);
    close(guest);
    int64_t began = sm_clock_us();
    expect_bytes(f, target, "x", 1);
    expect_end(f, target);
    assert_true(sm_clock_us() - began >= SM_CORE_END_WAIT_US / 2);
    close(target);
    wait_for_line(f, "mediation_close");
    stop(f);
}

/* The guest has closed with bytes on the way: they arrive, whatever the target still had to say. */
static void test_guest_closes_with_bytes_behind(void **state)
{
    struct fixture *f = start();
    int guest, target;

    open_vsock(f, 1, PORT);
    guest = take_attached(f, 1);
    target = server_accept(f);
    assert_int_equal(write(target, "unread", 6), 6);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    assert_int_equal(write(guest, "last words", 10), 10);
    close(guest);
    gone(f, 1, SM_WHY_CLOSED);
    expect_bytes(f, target, "last words", 10);
    expect_end(f, target);
    close(target);
    wait_for_line(f, "mediation_close");
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_int_equal(number_in(line, "bytes_up"), 10);
    assert_true(says_nothing(f));
    stop(f);
}

/* Nothing is left to do: turns of the loop that last. With an event that is told again and again none does, but that
 * this process may be made to wait in the middle of one. */
static bool comes_to_rest(struct fixture *f)
{
    for (int i = 0, quiet = 0; i < 200; i++) {
        int64_t before = sm_clock_us();
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
        quiet = sm_clock_us() - before >= 45000 ? quiet + 1 : 0;
        if (quiet == 5)
            return true;
    }
    return false;
}

static size_t feed_until_full(struct fixture *f, int fd)
{
    static const uint8_t zeros[65536];
    size_t fed = 0;

    for (int idle = 0; idle < 20;) { /* TCP finds room late: window probes */
        size_t n = feed(fd, zeros, sizeof(zeros));
        idle = n > 0 ? 0 : idle + 1;
        fed += n;
        assert_int_equal(sm_loop_turn(f->core.loop, n > 0 ? 0 : 50), 0);
    }
    return fed;
}

static size_t read_to_the_end(struct fixture *f, int fd)
{
    static uint8_t buf[65536];
    size_t got = 0;
    ssize_t n;

    while ((n = recv_turning(f, fd, buf, sizeof(buf))) > 0)
        got += (size_t)n;
    assert_int_equal(n, 0);
    return got;
}

static int take_target(struct fixture *f)
{
    struct pollfd p = {.fd = f->listener, .events = POLLIN};

    for (int i = 0; i < 200 && poll(&p, 1, 0) != 1; i++)
        assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    return server_accept(f);
}

/* One side has gone and the other does not read: the core waits, it does not turn round and round. */
static void test_ends_that_nobody_reads(void **state)
{
    struct fixture *f = start();
    int small = 8192;

    assert_int_equal(setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    int guest = take_hybrid(f, "5000");
    int target = take_target(f);
    size_t fed = feed_until_full(f, guest);
    close(guest);
    assert_true(comes_to_rest(f));
    assert_int_equal(read_to_the_end(f, target), fed);
    close(target);

    /* The other way, with both directions of the target's connection over. */
    guest = take_hybrid(f, "5000");
    target = take_target(f);
    fed = feed_until_full(f, target);
    assert_int_equal(shutdown(guest, SHUT_WR), 0);
    assert_int_equal(read_to_the_end(f, target), 0);
    close(target);
    assert_true(comes_to_rest(f));
    assert_int_equal(read_to_the_end(f, guest), fed);
    close(guest);
    stop(f);
}

/* A target that has ended its half, and is then gone altogether: the guest hears of it though nobody writes. */
static void test_reset_behind_the_end(void **state)
{
    struct fixture *f = start();
    struct linger now = {.l_onoff = 1};

    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1);
    int target = server_accept(f);
    assert_int_equal(shutdown(target, SHUT_WR), 0);
    expect_end(f, guest);
    assert_int_equal(setsockopt(target, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(target);
    assert_int_equal(hear(f), SM_FLOW_ABORT);
    close(guest);
    assert_true(comes_to_rest(f));
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"target_reset\""));
    stop(f);
}

static void test_table_only(void **state)
{
    struct fixture *f = start();
    static const uint32_t ports[] = {0, 1, 1026, 4999, 5001, 22, UINT32_MAX, PORT + 65536};
    uint64_t id = 1;

    for (size_t i = 0; i < SM_ARRAY_LEN(ports); i++) {
        open_vsock(f, id, ports[i]);
        expect_refused(f, id++);
        g_autofree char *text = g_strdup_printf("%u", ports[i]);
        int fd = take_hybrid(f, text);
        expect_end(f, fd);
        close(fd);
    }
    /* What the supervisor never says. */
    static const char *const odd[] = {"", "x", "-1", "4294967296", "5000 ", "5000x"};
    for (size_t i = 0; i < SM_ARRAY_LEN(odd); i++) {
        int fd = take_hybrid(f, odd[i]);
        expect_end(f, fd);
        close(fd);
    }
    int none = -1;
    sm_core_vsock_take(&f->core, "5000", &none);
    assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
    assert_false(audit_has(f, "mediation_open"));
    g_autofree char *line = audit_line(f, "mediation_error", 0);
    assert_non_null(strstr(line, "\"reason\":\"not_listed\""));
    struct pollfd p = {.fd = f->listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0); /* nobody was dialled */
    stop(f);
}

/* A guest that tries ports by the thousand does not fill the record. */
static void test_refusals_are_counted(void **state)
{
    struct fixture *f = start();

    for (uint64_t id = 1; id <= 300; id++) {
        open_vsock(f, id, 4000);
        expect_refused(f, id);
    }
    g_autofree char *text = audit_text(f);
    unsigned lines = 0;
    for (const char *at = text; (at = strstr(at, "mediation_error")); at++)
        lines++;
    assert_in_range(lines, 1, 30);
    stop(f);
}

static void test_128_at_once(void **state)
{
    struct fixture *f = start();
    int guests[SM_CORE_MEDIATION_MAX], targets[SM_CORE_MEDIATION_MAX];

    for (unsigned i = 0; i < SM_CORE_MEDIATION_MAX; i++) {
        if (i % 2) {
            open_vsock(f, i + 1, PORT);
            guests[i] = take_attached(f, i + 1);
        } else {
            guests[i] = take_hybrid(f, "5000");
        }
        struct pollfd p = {.fd = f->listener, .events = POLLIN};
        for (int k = 0; k < 200 && poll(&p, 1, 0) == 0; k++)
            sm_loop_turn(f->core.loop, 20);
        targets[i] = server_accept(f);
    }
    open_vsock(f, 1000, PORT);
    expect_refused(f, 1000);
    int fd = take_hybrid(f, "5000");
    expect_end(f, fd);
    close(fd);
    g_autofree char *line = audit_line(f, "mediation_error", 0);
    assert_non_null(strstr(line, "\"reason\":\"too_many\""));
    /* One ends: one more may come. The certificate has its own count. */
    close(guests[0]);
    close(targets[0]);
    wait_for_line(f, "mediation_close");
    open_vsock(f, 1001, PORT);
    guests[0] = take_attached(f, 1001);
    targets[0] = server_accept(f);
    open_vsock(f, 1002, 1027);
    close(take_attached(f, 1002));
    for (unsigned i = 0; i < SM_CORE_MEDIATION_MAX; i++) {
        close(guests[i]);
        close(targets[i]);
    }
    stop(f);
}

/* The front acknowledges nothing: descriptors in flight stay bounded, and the others follow later. */
static void test_attach_is_bounded(void **state)
{
    struct fixture *f = start();
    unsigned attached = 0, n = SM_FLOW_ATTACH_MAX + 10;
    int fds[SM_FLOW_ATTACH_MAX + 10];
    uint64_t ids[SM_FLOW_ATTACH_MAX + 10];

    assert_int_equal(listen(f->listener, 128), 0);
    for (unsigned i = 0; i < n; i++) {
        open_vsock(f, i + 1, PORT);
        sm_loop_turn(f->core.loop, 20);
    }
    for (int i = 0; i < 100; i++) {
        uint8_t buf[SM_FLOW_MSG_MAX];
        int got[SM_FD_MSG_MAX];
        size_t n_fds;
        struct sm_flow_msg m;
        ssize_t len = sm_fd_recv(f->front, buf, sizeof(buf), got, &n_fds);
        if (len <= 0) {
            sm_loop_turn(f->core.loop, 5);
            continue;
        }
        assert_true(sm_flow_decode(buf, (size_t)len, &m));
        assert_int_equal(m.type, SM_FLOW_ATTACH);
        ids[attached] = m.id;
        fds[attached++] = got[0];
    }
    assert_int_equal(attached, SM_FLOW_ATTACH_MAX);
    for (unsigned i = 0; i < SM_FLOW_ATTACH_MAX; i++) {
        struct sm_flow_msg ack = {.type = SM_FLOW_ATTACHED, .id = ids[i]};
        tell(f, &ack);
    }
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(hear(f), SM_FLOW_ATTACH);
        attached++;
    }
    assert_int_equal(attached, n);
    for (unsigned i = 0; i < SM_FLOW_ATTACH_MAX; i++)
        close(fds[i]);
    stop(f);
}

static void test_target_refuses(void **state)
{
    struct fixture *f = start();

    sm_fd_close(&f->listener);
    open_vsock(f, 1, PORT);
    expect_refused(f, 1);
    assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
    g_autofree char *line = audit_line(f, "mediation_error", 0);
    assert_non_null(line);
    assert_non_null(strstr(line, "\"reason\":\"refused\""));
    assert_non_null(strstr(line, "\"error\""));
    assert_int_equal(number_in(line, "flow"), 1);
    assert_false(audit_has(f, "mediation_close"));
    json_t *report = json_object();
    sm_core_vsock_report(&f->core, report);
    assert_true(json_is_false(json_object_get(report, "mediationReady")));
    json_decref(report);
    stop(f);
}

/* The guest gives up while the target has not answered. */
static void test_gone_while_dialling(void **state)
{
    struct fixture *f = start();
    int backlog[64];
    unsigned n = 0;

    /* A listener whose queue is full does not answer. */
    assert_int_equal(listen(f->listener, 0), 0);
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(f->port)};
    for (; n < SM_ARRAY_LEN(backlog); n++) {
        struct pollfd p = {.events = POLLOUT};
        backlog[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(backlog[n], (struct sockaddr *)&in, sizeof(in));
        p.fd = backlog[n];
        if (poll(&p, 1, 100) == 0) {
            n++;
            break;
        }
    }
    open_vsock(f, 1, PORT);
    assert_true(says_nothing(f));
    gone(f, 1, SM_WHY_REFUSED);
    wait_for_line(f, "mediation_close");
    assert_true(says_nothing(f));
    for (unsigned i = 0; i < n; i++)
        close(backlog[i]);
    stop(f);
}

/* ---- the start ---- */

static void test_required_and_unreachable(void **state)
{
    struct fixture *f = start_with("guarded", true, "\"127.0.0.1:1\"");

    assert_int_equal(ready_calls, 0);
    turn_until_ready(f);
    assert_non_null(ready_error);
    assert_non_null(strstr(ready_error, "5000"));
    assert_non_null(strstr(ready_error, "control:7000"));
    assert_non_null(strstr(ready_error, "--mediation-optional"));
    wait_for_line(f, "mediation_error");
    stop(f);
}

static void test_required_and_unresolved(void **state)
{
    struct fixture *f = start_with("guarded", true, "");

    turn_until_ready(f);
    assert_non_null(ready_error);
    assert_non_null(strstr(ready_error, "no address"));
    stop(f);
}

static void test_optional_and_unreachable(void **state)
{
    struct fixture *f = start_with("guarded", false, "\"127.0.0.1:1\"");

    assert_int_equal(ready_calls, 1); /* nobody waits for it */
    assert_null(ready_error);
    wait_for_line(f, "mediation_error");
    json_t *report = json_object();
    sm_core_vsock_report(&f->core, report);
    assert_true(json_is_true(json_object_get(report, "mediationReady")));
    const json_t *row = json_array_get(json_object_get(report, "mediation"), 0);
    assert_true(json_is_false(json_object_get(row, "ready")));
    assert_string_equal(json_string_value(json_object_get(row, "target")), "control:7000");
    json_decref(report);
    stop(f);
}

/* The first address does not answer, the second does: at the start, and for a connection. */
static void test_next_address(void **state)
{
    struct fixture *f = start_with("guarded", true, "\"127.0.0.1:1\",\"127.0.0.1:2\"");

    f->core.config->mediation[0].addrs[1] = (struct sm_endpoint){loopback, f->port};
    turn_until_ready(f);
    assert_null(ready_error);
    close(server_accept(f));
    open_vsock(f, 1, PORT);
    close(take_attached(f, 1));
    close(server_accept(f));
    stop(f);
}

static void test_nothing_to_wait_for(void **state)
{
    struct fixture *f = fixture_new_vsock("guarded", NULL);
    json_t *report = json_object();

    ready_calls = 0;
    sm_core_vsock_new(&f->core, on_ready);
    assert_int_equal(ready_calls, 1);
    sm_core_vsock_report(&f->core, report);
    assert_int_equal(json_object_size(report), 0);
    json_decref(report);
    stop(f);
}

/* ---- the record ---- */

static void test_not_recorded_not_done(void **state)
{
    struct fixture *f = start();

    harness_disk(true);
    open_vsock(f, 1, PORT);
    expect_refused(f, 1);
    open_vsock(f, 2, 1027);
    expect_refused(f, 2);
    int fd = take_hybrid(f, "5000");
    expect_end(f, fd);
    close(fd);
    struct pollfd p = {.fd = f->listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    harness_disk(false);
    stop(f);
}

/* A certificate whose line was lost was refused, and the next ones are not counted behind it: they have a line. */
static void test_certificate_behind_a_lost_line(void **state)
{
    struct fixture *f = start();

    harness_disk(true);
    open_vsock(f, 1, 1027);
    expect_refused(f, 1);
    harness_disk(false);
    sm_core_every_second(&f->core.second, sm_loop_now(f->core.loop));
    assert_true(sm_audit_healthy(f->core.audit));
    open_vsock(f, 2, 1027);
    int fd = take_attached(f, 2);
    g_autofree char *line = audit_line(f, "ca_delivered", 0);
    assert_non_null(line);
    close(fd);
    stop(f);
}

static void test_off_records_nothing(void **state)
{
    struct fixture *f = start_with("off", true, NULL);

    turn_until_ready(f);
    close(server_accept(f));
    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1), target = server_accept(f);
    assert_int_equal(write(guest, "x", 1), 1);
    expect_bytes(f, target, "x", 1);
    close(guest);
    close(target);
    open_vsock(f, 2, 4);
    expect_refused(f, 2);
    g_autofree char *text = audit_text(f);
    assert_string_equal(text, "");
    stop(f);
}

/* The end of the workspace: every connection has its close line. */
static void test_stop(void **state)
{
    struct fixture *f = start();

    open_vsock(f, 1, PORT);
    int guest = take_attached(f, 1), target = server_accept(f);
    sm_core_vsock_stop(&f->core, "workspace_stop");
    assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
    g_autofree char *line = audit_line(f, "mediation_close", 0);
    assert_non_null(strstr(line, "\"reason\":\"workspace_stop\""));
    expect_end(f, target);
    expect_end(f, guest);
    close(guest);
    close(target);
    stop(f);
}

/* ---- the serial port ---- */

static int serial(struct fixture *f)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    sm_core_vsock_serial(&f->core, &pair[1]);
    assert_int_equal(pair[1], -1);
    return pair[0];
}

static void test_serial(void **state)
{
    struct fixture *f = start();
    const char *pem = sm_tls_ca_cert_pem(f->core.ca);
    int fd = serial(f);
    static const char *const wrong[] = {"\n", "CA\n", "ca \n", " ca\n", "ca\r\n", "key\n", "caca\n"};
    char long_line[200];

    assert_int_equal(write(fd, "c", 1), 1);
    assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    assert_int_equal(write(fd, "a\n", 2), 2);
    expect_bytes(f, fd, pem, strlen(pem));
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        assert_int_equal(write(fd, wrong[i], strlen(wrong[i])), strlen(wrong[i]));
        expect_bytes(f, fd, "error\n", 6);
    }
    memset(long_line, 'x', sizeof(long_line));
    memcpy(long_line + 150, "\nca\n", 4);
    assert_int_equal(write(fd, long_line, 154), 154);
    expect_bytes(f, fd, "error\n", 6);
    expect_bytes(f, fd, pem, strlen(pem));
    g_autofree char *line = audit_line(f, "ca_delivered", 0);
    assert_non_null(strstr(line, "\"via\":\"serial\""));
    close(fd);
    assert_int_equal(sm_loop_turn(f->core.loop, 20), 0);
    assert_int_equal(sm_loop_turn(f->core.loop, 0), 0); /* its end does not wake us for ever */
    stop(f);
}

/* Questions without reading the answers: one answer is in flight, whatever is asked; the rest waits in the guest's socket. */
/* While nothing can be written no certificate is counted either. */
static void test_serial_while_the_log_is_full(void **state)
{
    struct fixture *f = start();
    const char *pem = sm_tls_ca_cert_pem(f->core.ca);
    int fd = serial(f);

    assert_int_equal(write(fd, "ca\n", 3), 3);
    expect_bytes(f, fd, pem, strlen(pem));
    harness_disk(true);
    open_vsock(f, 1, PORT);
    expect_refused(f, 1);
    harness_disk(false); /* but nobody has tried yet */
    assert_false(sm_audit_healthy(f->core.audit));
    assert_int_equal(write(fd, "ca\n", 3), 3);
    expect_bytes(f, fd, "error\n", 6);
    close(fd);
    stop(f);
}

static void test_serial_flood(void **state)
{
    struct fixture *f = start();
    const char *pem = sm_tls_ca_cert_pem(f->core.ca);
    int fd = serial(f);
    unsigned asked = 0, idle = 0;

    for (int i = 0; i < 100000 && idle < 50; i++) {
        if (send(fd, "ca\n", 3, MSG_DONTWAIT) == 3) {
            asked++;
            idle = 0;
        } else {
            idle++;
        }
        if (i % 64 == 0 || idle)
            assert_int_equal(sm_loop_turn(f->core.loop, 0), 0);
    }
    assert_int_equal(idle, 50); /* it was held back */
    for (unsigned i = 0; i < asked; i++)
        expect_bytes(f, fd, pem, strlen(pem));
    close(fd);
    stop(f);
}

static void test_serial_without_ca(void **state)
{
    struct fixture *f = start_with("off", false, NULL);
    int fd = serial(f), second = serial(f);

    expect_end(f, fd); /* the second put it out */
    assert_int_equal(write(second, "ca\n", 3), 3);
    expect_bytes(f, second, "error\n", 6);
    close(fd);
    close(second);
    stop(f);
}

/* ---- the configuration ---- */

static void test_config(void **state)
{
    static const char *const bad[] = {
        "{\"ca_port\":1027}",
        "{\"ca_port\":0,\"mediation\":[]}",
        "{\"ca_port\":4294967295,\"mediation\":[]}",
        "{\"ca_port\":1027,\"mediation\":[],\"x\":1}",
        "{\"ca_port\":1027,\"mediation\":{}}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":1027,\"target\":\"a:1\",\"required\":true,\"addrs\":[]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":0,\"target\":\"a:1\",\"required\":true,\"addrs\":[]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":true,\"addrs\":[\"a:1\"]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":true,\"addrs\":[\"1.2.3.4\"]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":true,\"addrs\":[\"1.2.3.4:5\","
        "\"1.2.3.4:5\",\"1.2.3.4:5\",\"1.2.3.4:5\",\"1.2.3.4:5\"]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":1,\"addrs\":[]}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":true,\"addrs\":[],\"y\":1}]}",
        "{\"ca_port\":1027,\"mediation\":[{\"port\":5,\"target\":\"a:1\",\"required\":true,\"addrs\":[]},"
        "{\"port\":5,\"target\":\"b:1\",\"required\":true,\"addrs\":[]}]}",
        "7",
    };
    static const char *const rest =
        "{\"workspace\":\"test\",\"mode\":\"guarded\",\"opaque\":false,\"log_query\":false,\"extra_roots\":\"\","
        "\"allow\":[],\"passthrough\":[],\"deny\":[],\"swaps\":{\"refs\":[],\"entries\":{}},\"inside\":[],\"dns\":[],"
        "\"resolv_conf\":\"\",\"dns_qps\":1,\"network\":{\"guest\":\"10.0.2.15\",\"prefix_len\":24,"
        "\"gateway\":\"10.0.2.2\",\"resolver\":\"10.0.2.3\"},"
        "\"audit\":{\"sync\":false,\"max_bytes\":0,\"seq_floor\":0},\"caps\":{\"max_bps\":0,\"max_total_bytes\":0,"
        "\"max_conns\":0,\"counters\":{\"seq\":0,\"bytes_up\":0,\"bytes_down\":0}}";

    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = g_strdup_printf("%s,\"vsock\":%s}", rest, bad[i]);
        if (sm_core_config_load(text, strlen(text), &error))
            fail_msg("taken: %s", bad[i]);
        assert_non_null(strstr(error->message, "vsock"));
    }
    g_autofree char *good = g_strdup_printf("%s}", rest);
    g_autoptr(GError) error = NULL;
    struct sm_core_config *c = sm_core_config_load(good, strlen(good), &error);
    assert_non_null(c);
    assert_int_equal(c->ca_port, 1027);
    assert_int_equal(c->n_mediation, 0);
    sm_core_config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_certificate_by_hybrid),
        cmocka_unit_test(test_certificate_talkative),
        cmocka_unit_test(test_no_certificate),
        cmocka_unit_test(test_certificates_at_once),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_slow_readers),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_no_word),
        cmocka_unit_test(test_ends_that_wait),
        cmocka_unit_test(test_target_ends_before_it_is_read),
        cmocka_unit_test(test_guest_closes_with_bytes_behind),
        cmocka_unit_test(test_ends_that_nobody_reads),
        cmocka_unit_test(test_reset_behind_the_end),
        cmocka_unit_test(test_table_only),
        cmocka_unit_test(test_refusals_are_counted),
        cmocka_unit_test(test_128_at_once),
        cmocka_unit_test(test_attach_is_bounded),
        cmocka_unit_test(test_target_refuses),
        cmocka_unit_test(test_gone_while_dialling),
        cmocka_unit_test(test_required_and_unreachable),
        cmocka_unit_test(test_required_and_unresolved),
        cmocka_unit_test(test_optional_and_unreachable),
        cmocka_unit_test(test_next_address),
        cmocka_unit_test(test_nothing_to_wait_for),
        cmocka_unit_test(test_not_recorded_not_done),
        cmocka_unit_test(test_certificate_behind_a_lost_line),
        cmocka_unit_test(test_off_records_nothing),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_serial_while_the_log_is_full),
        cmocka_unit_test(test_serial_flood),
        cmocka_unit_test(test_serial_without_ca),
        cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
