/* SPDX-License-Identifier: BSD-3-Clause */
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

/** More descriptors than a test has open. */
#define FDS_MAX 1024
#define ARRIVES_MS 10000u

const struct sm_addr loopback = {.family = SM_FAMILY_V4, .bytes = {127, 0, 0, 1}};

static void channel_failed(const char *text, void *data)
{
    fail_msg("channel failed: %s", text);
}

struct fixture *fixture_new(const char *mode, const char *allow)
{
    return fixture_new_capped(mode, allow, (struct sm_caps_limits){0});
}

struct fixture *fixture_new_with(const struct harness_options *o)
{
    struct fixture *f = g_new0(struct fixture, 1);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);

    f->attached = -1;
    strcpy(f->dir, "/tmp/sm-core-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    harness_start(&f->core, f->dir, o, &f->audit_fd, &f->front);
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&in, &len), 0);
    f->port = ntohs(in.sin_port);
    return f;
}

static const struct harness_options usual = {
    .dns_port = 9,
    .dns_qps = 100,
    .pins = 64,
    .sessions = 100,
    .ops = &(const struct sm_channel_ops){.message = sm_core_message, .failed = channel_failed},
};

struct fixture *fixture_new_capped(const char *mode, const char *allow, struct sm_caps_limits caps)
{
    struct harness_options o = usual;

    o.mode = mode;
    o.allow = allow;
    o.caps = caps;
    return fixture_new_with(&o);
}

struct fixture *fixture_new_proxy(const char *mode, const char *allow, const char *routes, struct sm_caps_limits caps)
{
    struct harness_options o = usual;
    g_autofree char *proxy =
        g_strdup_printf("{\"listen\":\"172.20.0.1:3128\",\"clients\":[\"172.20.0.0/16\"],\"routes\":[%s]}", routes);

    o.mode = mode;
    o.allow = allow;
    o.caps = caps;
    o.proxy = proxy;
    return fixture_new_with(&o);
}

struct fixture *fixture_new_vsock(const char *mode, const char *vsock)
{
    struct harness_options o = usual;

    o.mode = mode;
    o.vsock = vsock;
    return fixture_new_with(&o);
}

void fixture_free(struct fixture *f)
{
    struct sm_core *core = &f->core;
    GHashTableIter it;
    void *value;

    for (;;) {
        g_hash_table_iter_init(&it, core->sessions);
        if (!g_hash_table_iter_next(&it, NULL, &value))
            break;
        sm_session_close(value, "test_end");
    }
    harness_end(core);
    sm_fd_close(&f->attached);
    close(f->front);
    sm_fd_close(&f->listener);
    close(f->audit_fd);
    g_autofree char *path = g_build_filename(f->dir, "egress.jsonl", NULL);
    unlink(path);
    rmdir(f->dir);
    g_free(f);
}

char *audit_text(const struct fixture *f)
{
    while (sm_timer_armed(&f->core.lines)) /* lines that wait for company */
        sm_loop_turn(f->core.loop, 100);
    return sm_fd_read_all(f->audit_fd, 1u << 20, NULL, NULL);
}

char *audit_line(const struct fixture *f, const char *event, unsigned n)
{
    g_autofree char *text = audit_text(f);
    g_autofree char *want = g_strdup_printf("\"event\":\"%s\"", event);
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strstr(line, want) && n-- == 0)
            return g_strdup(line);
    return NULL;
}

bool audit_has(const struct fixture *f, const char *event)
{
    g_autofree char *line = audit_line(f, event, 0);
    return line != NULL;
}

void tell(struct fixture *f, const struct sm_flow_msg *m)
{
    uint8_t buf[SM_FLOW_MSG_MAX];
    size_t len = sm_flow_encode(m, buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(write(f->front, buf, len), (int)len);
}

void open_tcp(struct fixture *f, uint64_t id, struct sm_addr dst, uint16_t port)
{
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = id,
                            .proto = SM_FLOW_TCP,
                            .src = {sm_addr_v4(10, 0, 2, 15), 40000},
                            .dst = {dst, port}};
    tell(f, &m);
}

void open_name(struct fixture *f, uint64_t id, const char *name, uint16_t port)
{
    struct sm_flow_msg m = {.type = SM_FLOW_OPEN,
                            .id = id,
                            .proto = SM_FLOW_TCP,
                            .src = {sm_addr_v4(172, 20, 0, 2), 40000},
                            .name = name,
                            .name_len = strlen(name),
                            .dst = {.port = port}};
    tell(f, &m);
}

void bytes(struct fixture *f, uint64_t id, const void *data, size_t len)
{
    struct sm_flow_msg m = {.type = SM_FLOW_BYTES, .id = id, .data = data, .data_len = len};
    tell(f, &m);
}

void gone(struct fixture *f, uint64_t id, enum sm_flow_why why)
{
    struct sm_flow_msg m = {.type = SM_FLOW_GONE, .id = id, .why = why};
    tell(f, &m);
}

bool heard(struct fixture *f)
{
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;

    if (sm_flow_packet_next(&f->packet, &f->last))
        return true; /* another one of the last packet's */
    assert_false(f->packet.bad);
    ssize_t n = sm_fd_recv(f->front, f->buf, sizeof(f->buf), fds, &n_fds);
    if (n <= 0)
        return false;
    f->packet = sm_flow_packet_init(f->buf, (size_t)n);
    assert_true(sm_flow_packet_next(&f->packet, &f->last));
    assert_int_equal(n_fds, sm_flow_fds(f->last.type));
    if (n_fds) {
        struct sm_flow_msg ack = {.type = SM_FLOW_ATTACHED, .id = f->last.id};
        sm_fd_close(&f->attached);
        f->attached = fds[0];
        tell(f, &ack);
    }
    return true;
}

enum sm_flow_type hear(struct fixture *f)
{
    for (int i = 0; i < 200; i++) {
        if (heard(f))
            return f->last.type;
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    }
    fail_msg("the core says nothing");
    return SM_FLOW_TYPES;
}

bool says_nothing(struct fixture *f)
{
    struct pollfd p = {.fd = f->front, .events = POLLIN};
    for (int i = 0; i < 5; i++)
        sm_loop_turn(f->core.loop, 10);
    return poll(&p, 1, 0) == 0;
}

int server_accept(struct fixture *f)
{
    struct pollfd p = {.fd = f->listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    return accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
}

ssize_t recv_turning(struct fixture *f, int fd, void *buf, size_t cap)
{
    ssize_t n = -1;
    for (int i = 0; i < 200; i++) {
        n = recv(fd, buf, cap, MSG_DONTWAIT);
        if (n >= 0 || errno != EAGAIN)
            return n;
        assert_int_equal(sm_loop_turn(f->core.loop, 50), 0);
    }
    return n;
}

int core_end(int fd)
{
    struct sockaddr_in peer, in;
    socklen_t len = sizeof(peer);

    assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &len), 0);
    for (int i = 0; i < FDS_MAX; i++) {
        len = sizeof(in);
        if (getsockname(i, (struct sockaddr *)&in, &len) == 0 && len == sizeof(in) && in.sin_family == AF_INET &&
            in.sin_port == peer.sin_port)
            return i;
    }
    fail_msg("the core has no such connection");
    return -1;
}

void until_arrived(int core_fd, size_t len)
{
    int there = 0;

    /* poll() says when there is something; for the rest of it there is no event while nobody reads. */
    for (unsigned i = 0; i < ARRIVES_MS && (size_t)there < len; i++) {
        struct pollfd p = {.fd = core_fd, .events = POLLIN};
        assert_true(poll(&p, 1, (int)ARRIVES_MS) >= 0);
        assert_int_equal(ioctl(core_fd, FIONREAD, &there), 0);
        if ((size_t)there < len)
            (void)poll(NULL, 0, 1);
    }
    assert_true((size_t)there >= len);
}
