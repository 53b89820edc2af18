/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients of published ports in the core: what is looked at, what is recorded before anything happens, what the guest sees of the client, and
 * how it ends; with a front and a supervisor that this test plays.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/link.h"
#include "fixture.h"

/* The supervisor's side: its end of the link, and a socket that listens for it. */
struct ground {
    struct fixture *f;
    int link;
    int listener;
    uint16_t port;
};

static struct ground *ground_new(const char *mode)
{
    struct ground *g = g_new0(struct ground, 1);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int pair[2];

    g->f = fixture_new(mode, NULL);
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    g->f->core.link.fd = pair[0];
    g->link = pair[1];
    g->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(g->listener, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(g->listener, 128), 0);
    assert_int_equal(getsockname(g->listener, (struct sockaddr *)&in, &len), 0);
    g->port = ntohs(in.sin_port);
    return g;
}

static void ground_free(struct ground *g)
{
    int link = g->f->core.link.fd;

    fixture_free(g->f);
    close(link);
    close(g->link);
    close(g->listener);
    g_free(g);
}

/* A client on loopback, from an address of its own. Returns its end; *ret_accepted is what the supervisor would send. */
static int client(struct ground *g, const char *from, int *ret_accepted)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(g->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in own = {.sin_family = AF_INET};
    struct sm_addr addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(sm_addr_parse(from, &addr));
    own.sin_addr = sm_addr_to_in(&addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    *ret_accepted = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(*ret_accepted >= 0);
    return fd;
}

static void take(struct ground *g, const char *port, int accepted)
{
    int fd = accepted;

    sm_ingress_take(&g->f->core, port, &fd);
    sm_fd_close(&fd); /* as main.c does */
}

/* How many words of the core wait on the link. */
static unsigned words(struct ground *g, enum sm_link_verb verb)
{
    static struct sm_link_msg m;
    unsigned n = 0;

    while (sm_link_recv(g->link, &m) == 1) {
        assert_int_equal(m.verb, verb);
        n++;
    }
    return n;
}

static bool reset(struct ground *g, int fd)
{
    char c;
    ssize_t n = recv_turning(g->f, fd, &c, 1);
    return n < 0 && errno == ECONNRESET;
}

static void test_whole_life(void **state)
{
    struct ground *g = ground_new("guarded");
    struct fixture *f = g->f;
    int accepted, fd = client(g, "127.0.0.1", &accepted);
    char c[8];

    (void)state;
    take(g, "8080", accepted);
    assert_false(heard(f)); /* nothing before the line is written */
    assert_int_equal(hear(f), SM_FLOW_INBOUND);
    assert_int_equal(words(g, SM_LINK_INGRESS), 1);
    assert_int_equal(f->last.guest_port, 8080);
    assert_true(f->last.id & SM_FLOW_ID_CORE);
    assert_true(sm_addr_equal(&f->last.src.addr, &f->core.config->gateway)); /* loopback is not for the guest's eyes */
    assert_true(f->last.src.port >= 1024);
    uint64_t id = f->last.id;
    g_autofree char *line = audit_line(f, "ingress_accept", 0);
    assert_non_null(strstr(line, "\"src\":\"127.0.0.1:"));
    assert_non_null(strstr(line, "\"dst\":\"10.0.2.15\",\"port\":8080"));
    assert_non_null(strstr(line, "\"seen_as\":\"10.0.2.2:1024\""));
    assert_non_null(strstr(line, "\"reason\":\"published\""));

    /* The descriptor is the client's connection. */
    assert_int_equal(send(fd, "abc", 3, 0), 3);
    struct pollfd p = {.fd = f->attached, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(read(f->attached, c, sizeof(c)), 3);
    assert_int_equal(write(f->attached, "defgh", 5), 5);
    assert_int_equal(recv(fd, c, 5, MSG_WAITALL), 5);
    /* Half-close both ways, then the front's word. */
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(read(f->attached, c, 1), 0);
    assert_int_equal(shutdown(f->attached, SHUT_WR), 0);
    assert_int_equal(recv(fd, c, 1, 0), 0);
    sm_fd_close(&f->attached);
    gone(f, id, SM_WHY_CLOSED);
    assert_true(says_nothing(f));
    g_autofree char *end = audit_line(f, "ingress_close", 0);
    assert_non_null(strstr(end, "\"reason\":\"closed\""));
    assert_non_null(strstr(end, "\"bytes_up\":5,\"bytes_down\":3"));
    assert_int_equal(sm_ingress_count(&f->core), 0);
    assert_int_equal(f->core.n_opened, 0); /* it is not the guest's flow */
    close(fd);
    ground_free(g);
}

/** The guest has nobody there: the client's connection is reset. */
static void test_guest_refuses(void **state)
{
    struct ground *g = ground_new("guarded");
    int accepted, fd = client(g, "127.0.0.1", &accepted);

    (void)state;
    take(g, "80", accepted);
    assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
    uint64_t id = g->f->last.id;
    sm_fd_close(&g->f->attached); /* the front closes first */
    gone(g->f, id, SM_WHY_GUEST_RST);
    assert_true(reset(g, fd));
    g_autofree char *end = audit_line(g->f, "ingress_close", 0);
    assert_non_null(strstr(end, "\"reason\":\"guest_reset\""));
    close(fd);
    ground_free(g);
}

/** A front that says that it is over and keeps the connection does not keep it working. */
static void test_front_keeps_it(void **state)
{
    struct ground *g = ground_new("guarded");
    int accepted, fd = client(g, "127.0.0.1", &accepted);
    char c;

    (void)state;
    take(g, "80", accepted);
    assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
    gone(g->f, g->f->last.id, SM_WHY_CLOSED);
    assert_int_equal(recv_turning(g->f, fd, &c, 1), 0);
    assert_int_equal(send(g->f->attached, "x", 1, MSG_NOSIGNAL), -1);
    close(fd);
    ground_free(g);
}

static void test_what_the_guest_sees(void **state)
{
    static const struct {
        const char *client;
        bool as_is;
    } cases[] = {
        {"203.0.113.7", true},  {"8.8.8.8", true},    {"10.0.0.5", true},        {"192.168.7.7", true},
        {"172.16.0.1", true},   {"100.64.0.9", true}, {"10.0.3.1", true},        {"10.0.2.15", false},
        {"10.0.2.2", false},    {"10.0.2.77", false}, {"127.0.0.1", false},      {"127.9.9.9", false},
        {"169.254.1.1", false}, {"0.0.0.1", false},   {"224.0.0.1", false},      {"255.255.255.255", false},
        {"240.0.0.1", false},   {"::1", false},       {"2001:db8::1", false},    {"fe80::1", false},
        {"169.255.0.1", true},  {"198.18.0.5", true}, {"::ffff:8.8.8.8", false},
    };
    struct sm_prefix network;

    (void)state;
    assert_true(sm_prefix_parse("10.0.2.0/24", &network));
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_addr a;
        assert_true(sm_addr_parse(cases[i].client, &a));
        if (sm_ingress_shown_as_is(&network, &a) != cases[i].as_is)
            fail_msg("%s", cases[i].client);
    }
}

/** Clients behind one address are told apart, whatever ports they have themselves. */
static void test_ports_are_not_shared(void **state)
{
    struct ground *g = ground_new("guarded");
    int fds[3];
    uint16_t seen[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        int accepted;
        g_autofree char *from = g_strdup_printf("127.0.0.%d", i + 1);
        fds[i] = client(g, from, &accepted);
        take(g, "80", accepted);
        assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
        seen[i] = g->f->last.src.port;
        for (int k = 0; k < i; k++)
            assert_int_not_equal(seen[i], seen[k]);
    }
    assert_int_equal(sm_ingress_count(&g->f->core), 3);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    ground_free(g);
}

/** What is no connection of a client is not handed to the guest, whoever sends it. */
static void test_descriptors(void **state)
{
    struct ground *g = ground_new("guarded");
    int pair[2], accepted;

    (void)state;
    take(g, "80", -1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    take(g, "80", pair[0]);
    close(pair[1]);
    take(g, "80", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    take(g, "80", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); /* not connected */
    take(g, "80", fcntl(g->listener, F_DUPFD_CLOEXEC, 3));
    take(g, "80", fcntl(g->f->audit_fd, F_DUPFD_CLOEXEC, 3));
    assert_int_equal(words(g, SM_LINK_INGRESS), 6);
    static const char *const ports[] = {"0", "65536", "-1", "", "80 ", "x"};
    for (size_t i = 0; i < SM_ARRAY_LEN(ports); i++) {
        int fd = client(g, "127.0.0.1", &accepted);
        take(g, ports[i], accepted);
        close(fd);
    }
    assert_int_equal(words(g, SM_LINK_INGRESS), SM_ARRAY_LEN(ports));
    assert_true(says_nothing(g->f));
    assert_int_equal(sm_ingress_count(&g->f->core), 0);
    assert_true(audit_has(g->f, "ingress_deny"));
    assert_false(audit_has(g->f, "ingress_accept"));
    ground_free(g);
}

/** Reset before it was looked at: nothing reaches the guest, and one line says so however often it happens. */
static void test_client_is_gone(void **state)
{
    struct ground *g = ground_new("guarded");
    struct linger now = {.l_onoff = 1};

    (void)state;
    for (int i = 0; i < 5; i++) {
        int accepted, fd = client(g, "127.0.0.1", &accepted);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
        close(fd);
        take(g, "80", accepted);
    }
    assert_true(says_nothing(g->f));
    assert_int_equal(words(g, SM_LINK_INGRESS), 5);
    g_autofree char *line = audit_line(g->f, "ingress_deny", 0), *second = audit_line(g->f, "ingress_deny", 1);
    assert_non_null(strstr(line, "\"reason\":\"client_gone\""));
    assert_null(second); /* repeats are counted */
    ground_free(g);
}

/** Reset while the front has it. */
static void test_client_resets(void **state)
{
    struct ground *g = ground_new("guarded");
    struct linger now = {.l_onoff = 1};
    int accepted, fd = client(g, "127.0.0.1", &accepted);

    (void)state;
    take(g, "80", accepted);
    assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
    uint64_t id = g->f->last.id;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(fd);
    sm_fd_close(&g->f->attached);
    gone(g->f, id, SM_WHY_UPSTREAM_RST);
    assert_true(says_nothing(g->f));
    g_autofree char *end = audit_line(g->f, "ingress_close", 0);
    assert_non_null(strstr(end, "\"reason\":\"upstream_reset\""));
    ground_free(g);
}

/** What cannot be recorded is not handed over: the client is reset, the guest hears nothing. */
static void test_not_recorded(void **state)
{
    struct ground *g = ground_new("guarded");
    int accepted, fd = client(g, "127.0.0.1", &accepted), fd2;

    (void)state;
    harness_disk(true);
    take(g, "80", accepted);
    assert_true(reset(g, fd));
    fd2 = client(g, "127.0.0.1", &accepted); /* the log is known to be down now */
    take(g, "80", accepted);
    assert_true(reset(g, fd2));
    harness_disk(false);
    while (heard(g->f)) /* a refusal for an id that the front never heard of */
        assert_int_not_equal(g->f->last.type, SM_FLOW_INBOUND);
    assert_int_equal(words(g, SM_LINK_INGRESS), 2);
    assert_int_equal(sm_ingress_count(&g->f->core), 0);
    assert_false(audit_has(g->f, "ingress_accept"));
    assert_false(audit_has(g->f, "ingress_close"));
    close(fd);
    close(fd2);
    ground_free(g);
}

/** Mode off: it works, and no line is written. */
static void test_off(void **state)
{
    struct ground *g = ground_new("off");
    int accepted, fd = client(g, "127.0.0.1", &accepted);

    (void)state;
    take(g, "80", accepted);
    assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
    sm_fd_close(&g->f->attached);
    gone(g->f, g->f->last.id, SM_WHY_CLOSED);
    take(g, "80", -1);
    assert_true(says_nothing(g->f));
    g_autofree char *text = audit_text(g->f);
    assert_string_equal(text, "");
    close(fd);
    ground_free(g);
}

/** Descriptors on their way to the front are bounded; who waits is served when it has caught up, and a client that leaves meanwhile is let go. */
static void test_front_is_slow(void **state)
{
    enum { N = 80 };
    struct ground *g = ground_new("guarded");
    struct sm_flow_msg ack = {.type = SM_FLOW_ATTACHED, .id = 1};
    struct fixture *f = g->f;
    int fds[N], sent = 0;

    (void)state;
    f->core.sessions_max = 1000;
    for (int i = 0; i < N; i++) {
        int accepted;
        fds[i] = client(g, "127.0.0.1", &accepted);
        take(g, "80", accepted);
    }
    for (int i = 0; i < 10; i++)
        (void)sm_loop_turn(f->core.loop, 0);
    assert_int_equal(words(g, SM_LINK_INGRESS), SM_FLOW_ATTACH_MAX); /* credits for those that are on their way */
    assert_int_equal(f->core.attach_wait.length, N - SM_FLOW_ATTACH_MAX);
    /* hear() acknowledges each. */
    for (sent = 0; sent < N; sent++) {
        assert_int_equal(hear(f), SM_FLOW_INBOUND);
        for (int i = 0; i < 3; i++)
            (void)sm_loop_turn(f->core.loop, 0);
    }
    assert_int_equal(words(g, SM_LINK_INGRESS), N - SM_FLOW_ATTACH_MAX);
    assert_int_equal(f->core.attach_wait.length, 0);
    /* More acknowledgements than there was anything to acknowledge do no harm. */
    for (int i = 0; i < 5; i++)
        tell(f, &ack);
    assert_true(says_nothing(f));
    for (int i = 0; i < N; i++)
        close(fds[i]);
    ground_free(g);
}

/** A flood of clients leaves half of all flows to the guest, and is recorded once. */
static void test_share(void **state)
{
    struct ground *g = ground_new("guarded");
    struct fixture *f = g->f;
    int fds[12];

    (void)state;
    f->core.sessions_max = 20;
    for (int i = 0; i < 12; i++) {
        int accepted;
        fds[i] = client(g, "127.0.0.1", &accepted);
        take(g, "80", accepted);
    }
    for (int i = 0; i < 10; i++)
        assert_int_equal(hear(f), SM_FLOW_INBOUND);
    assert_true(says_nothing(f));
    assert_true(reset(g, fds[10]));
    assert_true(reset(g, fds[11]));
    assert_int_equal(sm_ingress_count(&f->core), 10);
    g_autofree char *line = audit_line(f, "ingress_deny", 0), *second = audit_line(f, "ingress_deny", 1);
    assert_non_null(strstr(line, "too_many_flows"));
    assert_null(second);
    open_tcp(f, 1, loopback, f->port); /* the guest's own are judged as ever */
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    for (int i = 0; i < 12; i++)
        close(fds[i]);
    ground_free(g);
}

/* Places of clients that are over are there for those who come in the same turn. */
static void test_share_of_those_who_left(void **state)
{
    struct ground *g = ground_new("guarded");
    struct fixture *f = g->f;
    struct sm_flow_msg over = {.type = SM_FLOW_GONE, .why = SM_WHY_CLOSED};
    int accepted;

    (void)state;
    f->core.sessions_max = 2;
    int first = client(g, "127.0.0.1", &accepted);
    take(g, "80", accepted);
    assert_int_equal(hear(f), SM_FLOW_INBOUND);
    over.id = f->last.id;
    assert_true(says_nothing(f));
    sm_fd_close(&f->attached);
    sm_core_message(&over, NULL, 0, &f->core);
    int second = client(g, "127.0.0.1", &accepted);
    take(g, "80", accepted);
    assert_int_equal(hear(f), SM_FLOW_INBOUND);
    assert_int_equal(sm_ingress_count(&f->core), 1);
    assert_false(audit_has(f, "ingress_deny"));
    close(first);
    close(second);
    ground_free(g);
}

/** A word that the link does not take is said later: a credit that is lost would be lost for ever. */
static void test_full_link(void **state)
{
    struct ground *g = ground_new("guarded");
    unsigned full = 0;

    (void)state;
    while (sm_link_send(g->f->core.link.fd, SM_LINK_READY, NULL, -1) == 0)
        full++;
    take(g, "80", -1);
    assert_int_equal(g->f->core.ingress_unsaid, 1);
    static struct sm_link_msg m;
    for (unsigned i = 0; i < full; i++)
        assert_int_equal(sm_link_recv(g->link, &m), 1);
    sm_ingress_every_second(&g->f->core);
    assert_int_equal(words(g, SM_LINK_INGRESS), 1);
    assert_int_equal(g->f->core.ingress_unsaid, 0);
    ground_free(g);
}

/** A guest that dials our own listener meets the loop guard, whatever the lists say. */
static void test_loop_guard(void **state)
{
    struct ground *g = ground_new("guarded");
    struct fixture *f = g->f;
    g_autofree char *text = g_strdup_printf("127.0.0.1:%u,[::]:9", g->port);
    struct sm_addr own = sm_addr_v4(203, 0, 113, 9);

    (void)state;
    assert_true(sm_lists_add_text(f->core.config->lists, SM_LIST_ALLOW, "127.0.0.0/24", NULL));
    assert_true(sm_ground_set_own(f->core.config->ground, &own, 1));
    sm_ingress_listeners(&f->core, text);
    assert_int_equal(words(g, SM_LINK_LISTENERS), 1);
    open_tcp(f, 1, loopback, g->port);
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    g_autofree char *line = audit_line(f, "egress_loop_guard", 0);
    assert_non_null(strstr(line, "\"reason\":\"listener\""));
    assert_false(audit_has(f, "egress_internal_deny"));
    open_tcp(f, 2, own, 9); /* every address of this host */
    assert_int_equal(hear(f), SM_FLOW_REFUSE);
    g_autofree char *second = audit_line(f, "egress_loop_guard", 1);
    assert_non_null(second);

    sm_ingress_listeners(&f->core, "");
    assert_int_equal(words(g, SM_LINK_LISTENERS), 1);
    open_tcp(f, 3, loopback, g->port); /* listed, and nobody's of ours any more */
    assert_int_equal(hear(f), SM_FLOW_ACCEPT);
    sm_ingress_listeners(&f->core, "127.0.0.1:80,nonsense"); /* not answered: nobody will listen */
    assert_int_equal(words(g, SM_LINK_LISTENERS), 0);
    ground_free(g);
}

/** The front's ids and these never meet in the record. */
static void test_ids(void **state)
{
    struct ground *g = ground_new("guarded");
    int accepted, fd = client(g, "127.0.0.1", &accepted);

    (void)state;
    take(g, "80", accepted);
    assert_int_equal(hear(g->f), SM_FLOW_INBOUND);
    uint64_t recorded = g->f->last.id & ~SM_FLOW_ID_CORE;
    assert_true(recorded < UINT64_C(1) << 53);
    open_tcp(g->f, recorded, loopback, 80);
    assert_true(says_nothing(g->f)); /* as for an id that is used twice */
    /* What is only legal for the guest's flows does nothing to it. */
    bytes(g->f, g->f->last.id, "x", 1);
    tell(g->f, &(struct sm_flow_msg){.type = SM_FLOW_EOF, .id = g->f->last.id});
    assert_true(says_nothing(g->f));
    assert_int_equal(sm_ingress_count(&g->f->core), 1);
    close(fd);
    ground_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_life),
        cmocka_unit_test(test_guest_refuses),
        cmocka_unit_test(test_front_keeps_it),
        cmocka_unit_test(test_what_the_guest_sees),
        cmocka_unit_test(test_ports_are_not_shared),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_client_is_gone),
        cmocka_unit_test(test_client_resets),
        cmocka_unit_test(test_not_recorded),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_front_is_slow),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_share_of_those_who_left),
        cmocka_unit_test(test_full_link),
        cmocka_unit_test(test_loop_guard),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
