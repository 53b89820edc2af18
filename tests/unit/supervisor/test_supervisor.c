/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The monitor with tiny children: this program, started again with "child" and a script. Each scenario gives a script to each child and says
 * how the workspace must end; after each, no process and no descriptor may be left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/loop.h"
#include "supervisor/control.h"
#include "supervisor/spawn.h"
#include "supervisor/supervisor.h"

/* ---- the child ---- */

/** Say what is wrong in the way that ends the workspace with our text as its reason. */
static void child_complain(const char *text)
{
    (void)sm_link_send(SM_LINK_FD, SM_LINK_FAIL, text, -1);
    _exit(99);
}

static unsigned count_fds(char *list, size_t cap)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;
    list[0] = '\0';
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' || atoi(e->d_name) == dirfd(d))
            continue;
        n++;
        g_strlcat(list, e->d_name, cap);
        g_strlcat(list, " ", cap);
    }
    closedir(d);
    return n;
}

static void child_step(const char *step)
{
    static struct sm_link_msg msg;
    g_auto(GStrv) w = g_strsplit(step, " ", 2);
    const char *arg = w[1] ? w[1] : "";
    char text[512];
    sigset_t set;
    int got;

    if (strcmp(w[0], "send") == 0) { /* raw, so that nonsense can be sent too */
        (void)sm_fd_send(SM_LINK_FD, arg, strlen(arg), NULL, 0);
    } else if (strcmp(w[0], "sendfd") == 0) {
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)sm_fd_send(SM_LINK_FD, arg, strlen(arg), &fd, 1);
        close(fd);
    } else if (strcmp(w[0], "recv") == 0) { /* "VERB text" */
        if (sm_link_recv(SM_LINK_FD, &msg) <= 0)
            _exit(98);
        g_snprintf(text, sizeof(text), "%s%s%s%s", sm_link_verb_name(msg.verb), msg.text[0] ? " " : "", msg.text,
                   msg.fd >= 0 ? " +fd" : "");
        if (strcmp(text, arg) != 0)
            child_complain(text);
        if (msg.fd >= 0)
            close(msg.fd);
    } else if (strcmp(w[0], "serve") == 0) { /* until STOP; with a text: report it */
        int r;
        while ((r = sm_link_recv(SM_LINK_FD, &msg)) > 0 && msg.verb == SM_LINK_STATUS && *arg)
            (void)sm_link_send(SM_LINK_FD, SM_LINK_STATUS, arg, -1);
        if (r <= 0)
            _exit(98);
        if (msg.verb != SM_LINK_STATUS)
            _exit(msg.verb == SM_LINK_STOP ? 0 : 97);
        child_step("serve");
    } else if (strcmp(w[0], "exit") == 0) {
        _exit(atoi(arg));
    } else if (strcmp(w[0], "kill") == 0) {
        (void)kill(getpid(), atoi(arg));
    } else if (strcmp(w[0], "hang") == 0) {
        for (;;)
            pause();
    } else if (strcmp(w[0], "close") == 0) {
        close(*arg ? atoi(arg) : SM_LINK_FD);
    } else if (strcmp(w[0], "eof") == 0) { /* nobody but the two has the channel */
        (void)fcntl(SM_CHANNEL_FD, F_SETFL, 0);
        if (read(SM_CHANNEL_FD, text, sizeof(text)) != 0)
            child_complain("no end of the channel");
    } else if (strcmp(w[0], "ignore") == 0) {
        (void)signal(atoi(arg), SIG_IGN);
    } else if (strcmp(w[0], "block") == 0) {
        (void)sigemptyset(&set);
        (void)sigaddset(&set, atoi(arg));
        (void)sigprocmask(SIG_BLOCK, &set, NULL);
    } else if (strcmp(w[0], "await") == 0) { /* blocked before */
        (void)sigemptyset(&set);
        (void)sigaddset(&set, atoi(arg));
        (void)sigwait(&set, &got);
    } else if (strcmp(w[0], "fds") == 0) {
        if (count_fds(text, sizeof(text)) != (unsigned)atoi(arg) || fcntl(2 + atoi(arg) - 2, F_GETFD) >= 0)
            child_complain(text);
    } else if (strcmp(w[0], "config") == 0) {
        g_autofree char *config = sm_fd_read_all(SM_CONFIG_FD, 1000, NULL, NULL);
        if (g_strcmp0(config, arg) != 0 || write(SM_CONFIG_FD, "x", 1) >= 0)
            child_complain(config ? config : "no config");
    } else if (strcmp(w[0], "env") == 0) {
        extern char **environ;
        g_autofree char *env = g_strjoinv(",", environ);
        if (strcmp(env, arg) != 0)
            child_complain(env);
    } else if (strcmp(w[0], "own-session") == 0) {
        if ((getsid(0) == getpid()) != (atoi(arg) != 0))
            child_complain("wrong session");
    } else if (strcmp(w[0], "ca") == 0) { /* core: fill the CA's files */
        if (write(SM_CA_KEY_FD, "key", 3) != 3 || write(SM_CA_CERT_FD, "certificate", 11) != 11 ||
            read(SM_CA_KEY_FD, text, 1) >= 0 || read(SM_CA_CERT_FD, text, 1) >= 0)
            child_complain("no CA files, or readable ones");
    } else if (strcmp(w[0], "counters") == 0) { /* core: the file of its caps */
        if (pwrite(SM_COUNTERS_FD, "counted", 7, 0) != 7 || fcntl(SM_CA_KEY_FD, F_GETFD) >= 0)
            child_complain("no counters, or more");
    } else if (strcmp(w[0], "certificate") == 0) { /* guest: the certificate alone */
        g_autofree char *pem = sm_fd_read_all(SM_GUEST_CA_FD, 1000, NULL, NULL);
        if (g_strcmp0(pem, "certificate") != 0 || write(SM_GUEST_CA_FD, "x", 1) >= 0 || fcntl(5, F_GETFD) >= 0 ||
            fcntl(6, F_GETFD) >= 0)
            child_complain(pem ? pem : "no certificate");
    } else if (strcmp(w[0], "listeners") == 0) { /* core: whatever they are */
        if (sm_link_recv(SM_LINK_FD, &msg) <= 0 || msg.verb != SM_LINK_LISTENERS || msg.fd >= 0)
            child_complain("no LISTENERS");
        child_step("send LISTENERS");
    } else if (strcmp(w[0], "ingress") == 0) { /* core: a client of port 8080 */
        if (sm_link_recv(SM_LINK_FD, &msg) <= 0 || msg.verb != SM_LINK_INGRESS || msg.fd < 0 ||
            strcmp(msg.text, "8080") != 0)
            child_complain("no INGRESS");
        close(msg.fd);
        child_step("send INGRESS");
    } else if (strcmp(w[0], "reports") == 0) { /* core: until something else comes than a question */
        while (recv(SM_LINK_FD, text, 6, MSG_PEEK) == 6 && memcmp(text, "STATUS", 6) == 0) {
            (void)sm_link_recv(SM_LINK_FD, &msg);
            child_step("send STATUS {}");
        }
    } else if (strcmp(w[0], "port") == 0) { /* front: a VMM's connection, and reports when asked on the way */
        while (sm_link_recv(SM_LINK_FD, &msg) > 0 && msg.verb == SM_LINK_STATUS)
            (void)sm_link_send(SM_LINK_FD, SM_LINK_STATUS, "{}", -1);
        if (msg.verb != SM_LINK_PORT || strcmp(msg.text, "net") != 0 || msg.fd < 0)
            child_complain("no connection");
        close(msg.fd);
    } else if (strcmp(w[0], "stop-behind") == 0) { /* core: STOP, behind connections; leaves a file of that name */
        int r;
        while ((r = sm_link_recv(SM_LINK_FD, &msg)) > 0 && msg.verb == SM_LINK_VSOCK && msg.fd >= 0)
            close(msg.fd);
        if (r <= 0 || msg.verb != SM_LINK_STOP)
            child_complain("no STOP");
        if (close(open(arg, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0)
            child_complain("no file");
    } else if (strcmp(w[0], "role-end") == 0) { /* front: the VMM that it was given leaves */
        if (read(SM_ROLE_FD, text, sizeof(text)) != 0)
            child_complain("no end of the VMM");
    } else if (strcmp(w[0], "channel") == 0) { /* core and front: a message across it */
        char buf[8] = "";
        struct timeval tv = {.tv_sec = 10};
        (void)fcntl(SM_CHANNEL_FD, F_SETFL, 0);
        (void)setsockopt(SM_CHANNEL_FD, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
        if (write(SM_CHANNEL_FD, "hello", 5) != 5 || read(SM_CHANNEL_FD, buf, 8) != 5)
            child_complain("no channel");
    } else {
        child_complain("unknown step");
    }
}

static int child_main(const char *script)
{
    g_auto(GStrv) steps = g_strsplit(script, "; ", -1);
    for (size_t i = 0; steps[i]; i++)
        child_step(steps[i]);
    _exit(0);
}

/* ---- scenarios ---- */

static struct sm_publish any_port;
static const struct sm_policy_source fake_policy;

static char workdir[64];
static int dirfd_;

struct scenario {
    const char *core, *front, *guest; /* core NULL: guest alone */
    int start_ms, grace_ms, stop_ms;
    uint64_t audit_max;
    bool take_signals;
    bool ca, counters, publish, policy;
    bool listens; /* without a guest: a VMM may come to vmm.sock */
    bool hybrid;  /* with listens: what comes there are connections of its vsock */
    bool ahead;   /* the core is started before the supervisor */
    bool given;   /* without a guest: it has come, and leaves when all runs */
    char *const *roots;
    const char *(*client)(void); /* runs beside it; says what it is not content with */
};

#define SERVE "send READY; serve {}"
#define GUEST_OK "sendfd TAP; recv GO; "

static pid_t pids[SM_CHILDREN];

/** A client that is not content ends the scenario, so that the test fails instead of hanging. */
static void *run_client(void *data)
{
    const struct scenario *sc = data;
    const char *complaint = sc->client();
    if (complaint)
        (void)kill(pids[SM_CHILD_GUEST] > 0 ? pids[SM_CHILD_GUEST] : pids[SM_CHILD_CORE], SIGKILL);
    return (void *)(uintptr_t)complaint;
}

static unsigned runnings, stoppings;
static int vmm_end; /* of a connection that was given */

static void on_running(void *data)
{
    runnings++;
    sm_fd_close(&vmm_end);
}

static void on_stopping(void *data)
{
    stoppings++;
}

static struct sm_supervisor_result play(const struct scenario *sc)
{
    char test[] = "test", child[] = "child";
    char none_config[] = "{\"config\": 1}";
    char *env[] = {(char[]){"A=1"}, NULL};
    char before[512], after[512];
    g_autoptr(GError) error = NULL;
    int audit_fd = sm_audit_open(dirfd_, NULL, NULL);
    json_t *facts = json_pack("{s:{}}", "network");
    struct sm_supervisor_spec spec = {
        .exe = SM_SPAWN_SELF,
        .name = "t",
        .dirfd = dirfd_,
        .audit_fd = audit_fd,
        .ca_key_fd = -1,
        .ca_cert_fd = -1,
        .ca_guest_fd = -1,
        .counters_fd = -1,
        .audit_max_bytes = sc->audit_max,
        .start_ms = sc->start_ms ? sc->start_ms : 20000,
        .grace_ms = sc->grace_ms,
        .stop_ms = sc->stop_ms,
        .take_signals = sc->take_signals,
        .roots_paths = sc->roots,
        .publishes = &any_port,
        .n_publishes = sc->publish ? 1 : 0,
        .policy = sc->policy ? &fake_policy : NULL,
        .facts = facts,
        .on_running = on_running,
        .on_stopping = on_stopping,
    };
    g_autofree char *vmm_path = g_strdup_printf("%s/vmm.sock", workdir);
    struct sm_listen_spec listens = {
        .kind = SM_LISTEN_UNIX, .single = true, .tag = SM_LISTEN_TAG_NET, .path = vmm_path};
    if (sc->hybrid) {
        listens.single = false;
        listens.tag = SM_LISTEN_TAG_HYBRID "1027";
    }
    int given[2] = {-1, -1};
    const char *scripts[SM_CHILDREN] = {sc->core, sc->front, sc->guest};
    char *argvs[SM_CHILDREN][4];
    pthread_t thread;

    assert_true(audit_fd >= 0);
    if (sc->ca) {
        spec.ca_key_fd = openat(dirfd_, "ca.key", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        spec.ca_cert_fd = openat(dirfd_, "ca.pem", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        spec.ca_guest_fd = openat(dirfd_, "ca.pem", O_RDONLY | O_CLOEXEC);
        assert_true(spec.ca_key_fd >= 0 && spec.ca_cert_fd >= 0 && spec.ca_guest_fd >= 0);
    }
    if (sc->counters) {
        spec.counters_fd = openat(dirfd_, "counters.json", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(spec.counters_fd >= 0);
    }
    runnings = stoppings = 0;
    vmm_end = -1;
    if (sc->listens) {
        spec.listens = &listens;
        spec.n_listens = 1;
        spec.port_source = SM_PORT_LATER;
    }
    if (sc->given) {
        assert_int_equal(sm_fd_seqpair(given, false), 0);
        spec.port_source = SM_PORT_GIVEN;
        spec.port_fd = given[0];
    }
    unsigned n_before = count_fds(before, sizeof(before));
    for (int i = 0; i < SM_CHILDREN; i++) {
        argvs[i][0] = test;
        argvs[i][1] = child;
        argvs[i][2] = (char *)(uintptr_t)scripts[i];
        argvs[i][3] = NULL;
        spec.children[i] =
            (struct sm_child_spec){scripts[i] != NULL, NULL, argvs[i], env, none_config, strlen(none_config)};
    }
    vmm_end = given[1];
    struct sm_ahead ahead = SM_AHEAD_INIT;
    if (sc->ahead) {
        assert_int_equal(sm_ahead_start(&ahead, SM_SPAWN_SELF, argvs[SM_CHILD_CORE], env, &error), 0);
        spec.core_ahead = &ahead;
    }
    struct sm_supervisor *s = sm_supervisor_new(&spec, &error);
    if (!s)
        fail_msg("%s", error->message);
    assert_true(ahead.pid == 0 && ahead.pidfd < 0 && ahead.link < 0); /* it is the supervisor's */
    for (int i = 0; i < SM_CHILDREN; i++)
        pids[i] = sm_supervisor_pid(s, (enum sm_child_role)i);
    if (sc->client)
        assert_int_equal(pthread_create(&thread, NULL, run_client, (void *)(uintptr_t)sc), 0);
    struct sm_supervisor_result r;
    sm_supervisor_run(s, &r);
    sm_supervisor_free(s);
    json_decref(facts);
    if (sc->client) {
        void *ok;
        assert_int_equal(pthread_join(thread, &ok), 0);
        if (ok)
            fail_msg("client: %s", (const char *)ok);
    }
    for (int i = 0; i < SM_CHILDREN; i++)
        if (pids[i] > 0)
            assert_int_equal(kill(pids[i], 0), -1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing unreaped, nothing running */
    assert_int_equal(errno, ECHILD);
    assert_int_equal(faccessat(dirfd_, SM_CONTROL_SOCKET, F_OK, 0), -1);
    assert_int_equal(faccessat(dirfd_, "vmm.sock", F_OK, 0), -1);
    assert_int_equal(runnings, r.started);
    assert_int_equal(stoppings, r.started);
    sm_fd_close(&vmm_end);
    if (count_fds(after, sizeof(after)) != n_before - (given[1] >= 0))
        fail_msg("descriptors before: %s after: %s", before, after);
    close(audit_fd);
    sm_fd_close(&given[0]);
    if (sc->counters) {
        close(spec.counters_fd);
        (void)unlinkat(dirfd_, "counters.json", 0);
    }
    if (sc->ca) {
        close(spec.ca_key_fd);
        close(spec.ca_cert_fd);
        close(spec.ca_guest_fd);
        (void)unlinkat(dirfd_, "ca.key", 0);
        (void)unlinkat(dirfd_, "ca.pem", 0);
    }
    return r;
}

static void expect(struct sm_supervisor_result r, int status, const char *reason)
{
    if (!reason && r.reason)
        fail_msg("unexpected reason: %s", r.reason);
    if (reason && (!r.reason || !strstr(r.reason, reason)))
        fail_msg("reason '%s' lacks '%s'", r.reason ? r.reason : "(none)", reason);
    assert_int_equal(r.status, status);
    g_free(r.reason);
}

static void test_whole_life(void **state)
{
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = "own-session 1; fds 7; env A=1; config {\"config\": 1}; channel; " SERVE,
        .front = "own-session 1; fds 7; channel; " SERVE,
        .guest = "own-session 0; fds 5; config {\"config\": 1}; " GUEST_OK "send EXIT 7; exit 7",
    });
    assert_true(r.started);
    expect(r, 7, NULL);
}

/** A core that was there before has its link alone, gets the same descriptors, and is held to the same; one that ends
 * early is met. */
static void test_core_ahead(void **state)
{
#define TAKEN "recv TAKE 2 +fd; recv TAKE 4 +fd; recv TAKE 5 +fd; recv TAKE 6 +fd; "
    expect(play(&(struct scenario){.core = "own-session 1; fds 4; env A=1; " TAKEN "recv TAKE; " SERVE,
                                   .front = SERVE,
                                   .guest = GUEST_OK "send EXIT 7; exit 7",
                                   .ahead = true}),
           7, NULL);
    expect(play(&(struct scenario){.core = TAKEN "recv TAKE 7 +fd; recv TAKE 8 +fd; recv TAKE 9 +fd; recv TAKE; " SERVE,
                                   .front = SERVE,
                                   .guest = GUEST_OK "send EXIT 0; exit 0",
                                   .ahead = true,
                                   .ca = true,
                                   .counters = true}),
           0, NULL);
    expect(play(&(struct scenario){.core = "exit 3", .front = SERVE, .guest = GUEST_OK "hang", .ahead = true}), 125,
           "the core ended unexpectedly (exit status 3)");
    expect(play(&(struct scenario){
               .core = "send FAIL no luck; exit 1", .front = SERVE, .guest = GUEST_OK "hang", .ahead = true}),
           125, "no luck");
    expect(play(&(struct scenario){.core = TAKEN "recv TAKE; send READY; send WANT passwd; hang",
                                   .front = SERVE,
                                   .guest = "hang",
                                   .ahead = true,
                                   .stop_ms = 3000}),
           125, "core broke the protocol and was ended: WANT of something that there is not");
#undef TAKEN

    /* One that nobody takes over is gone when its starter is done with it. */
    struct sm_ahead ahead = SM_AHEAD_INIT;
    char *argv[] = {(char[]){"test"}, (char[]){"child"}, (char[]){"hang"}, NULL}, *env[] = {NULL};
    assert_int_equal(sm_ahead_start(&ahead, SM_SPAWN_SELF, argv, env, NULL), 0);
    pid_t pid = ahead.pid;
    sm_ahead_end(&ahead);
    assert_int_equal(kill(pid, 0), -1);
    assert_true(ahead.pid == 0 && ahead.pidfd < 0 && ahead.link < 0);
    g_autoptr(GError) error = NULL;
    assert_int_equal(sm_ahead_start(&ahead, "/nonexistent", argv, env, &error), -1);
    assert_true(error && ahead.pid == 0);
    sm_ahead_end(&ahead);
}

/** What the core says of its CA is passed on at once, not at GO. */
static void test_ca_is_passed_on(void **state)
{
    expect(play(&(struct scenario){.core = "send CA 0123abcd; recv STOP; exit 0",
                                   .front = SERVE,
                                   .guest = "recv CA 0123abcd; send FAIL seen; exit 1"}),
           125, "seen");
    expect(play(&(struct scenario){.core = "send CA 0123abcd; " SERVE,
                                   .front = SERVE,
                                   .guest = "recv CA 0123abcd; " GUEST_OK "send EXIT 0; exit 0"}),
           0, NULL);
}

static void test_guest_alone(void **state)
{
    expect(play(&(struct scenario){.guest = "send TAP; recv GO; send EXIT 0; exit 0"}), 0, NULL);
    expect(play(&(struct scenario){.guest = "sendfd TAP; recv GO; send EXIT 0; exit 0"}), 125,
           "there is to be no network");
}

/** The CA: its key to the core alone, the certificate to the guest, complete at GO; nothing of it to the front. */
static void test_ca_files(void **state)
{
    expect(play(&(struct scenario){
               .core = "fds 9; ca; " SERVE,
               .front = "fds 7; " SERVE,
               .guest = "fds 6; " GUEST_OK "certificate; send EXIT 0; exit 0",
               .ca = true,
           }),
           0, NULL);
}

/** The core alone gets them, at their number, whether or not there is a CA. */
static void test_counters_file(void **state)
{
    expect(play(&(struct scenario){
               .core = "counters; " SERVE,
               .front = "fds 7; " SERVE,
               .guest = "fds 5; " GUEST_OK "send EXIT 0; exit 0",
               .counters = true,
           }),
           0, NULL);
}

/** The last words of a guest that is gone already still count. */
static void test_exit_without_ado(void **state)
{
    expect(play(&(struct scenario){.core = SERVE, .front = SERVE, .guest = GUEST_OK "send EXIT 3; kill 9"}), 3, NULL);
}

static void test_any_death_ends_it(void **state)
{
    static const struct {
        const char *core, *front, *guest, *reason;
        bool started;
    } cases[] = {
        {"kill 9", SERVE, GUEST_OK "hang", "the core ended unexpectedly (signal 9", false},
        {"exit 1", SERVE, GUEST_OK "hang", "the core ended unexpectedly (exit status 1)", false},
        {SERVE, "kill 31", GUEST_OK "hang", "the front ended unexpectedly (signal 31", false},
        {SERVE, SERVE, "kill 9", "the guest ended unexpectedly (signal 9", false},
        {SERVE, "recv STOP; exit 0", "sendfd TAP; exit 0", "the guest ended unexpectedly (exit status 0)", false},
        {SERVE, SERVE, GUEST_OK "kill 9", "the guest ended unexpectedly (signal 9", true},
        {SERVE, SERVE, GUEST_OK "exit 0", "the guest ended unexpectedly (exit status 0)", true},
        {"send FAIL no libcares\n", SERVE, "hang", "core: no libcares?", false},
        {SERVE, SERVE, "send FAIL no /dev/net/tun; exit 125", "guest: no /dev/net/tun", false},
        /* the front's complaint is only the echo of the core's crash, even when it comes first */
        {"send READY; close 5; recv STOP; kill 31", "send READY; eof; send FAIL the channel is gone; exit 1",
         GUEST_OK "hang", "the core ended unexpectedly (signal 31", true},
        {"send READY; close 5; recv STOP; exit 0", "send READY; eof; send FAIL the channel is gone; exit 1",
         GUEST_OK "hang", "the front failed: the channel is gone", true},
        {SERVE, SERVE, GUEST_OK "close; hang", "the guest ended unexpectedly (signal 9", true},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_supervisor_result r = play(&(struct scenario){
            .core = cases[i].core, .front = cases[i].front, .guest = cases[i].guest, .stop_ms = 3000});
        if (!r.reason || r.started != cases[i].started)
            fail_msg("case %zu: reason %s, started %d", i, r.reason ? r.reason : "(none)", r.started);
        expect(r, 125, cases[i].reason);
    }
}

static void test_protocol_is_held_to(void **state)
{
    static const struct {
        const char *core, *front, *guest, *reason;
    } cases[] = {
        {SERVE, "send WANT audit; hang", GUEST_OK "hang",
         "front broke the protocol and was ended: WANT is not its to say"},
        {"send WANT audit; hang", SERVE, GUEST_OK "hang",
         "core broke the protocol and was ended: WANT comes at the wrong time (started)"},
        {"send READY; send WANT passwd; hang", SERVE, "hang",
         "core broke the protocol and was ended: WANT of something that there is not"},
        {"send READY; send READY; hang", SERVE, "hang",
         "core broke the protocol and was ended: READY comes at the wrong time (serving)"},
        {SERVE, "send READY; send WANT roots; hang", GUEST_OK "hang",
         "front broke the protocol and was ended: WANT is not its to say"},
        {"sendfd READY; hang", SERVE, "hang", "core broke the protocol and was ended: READY has a descriptor"},
        {"send CA 0123abcd; send CA 0123abcd; hang", SERVE, "hang",
         "core broke the protocol and was ended: a second CA"},
        {"send CA ../../ab; hang", SERVE, "hang",
         "core broke the protocol and was ended: CA with a text that is no hash"},
        {SERVE, "send CA 0123abcd; hang", GUEST_OK "hang",
         "front broke the protocol and was ended: CA is not its to say"},
        {"send STATUS {}; hang", SERVE, "hang",
         "core broke the protocol and was ended: STATUS comes at the wrong time"},
        {"send READY; send STATUS {}; hang", SERVE, "hang",
         "core broke the protocol and was ended: STATUS was not asked for"},
        {"send READY; send INGRESS; hang", SERVE, "hang",
         "core broke the protocol and was ended: INGRESS was not asked for"},
        {"send READY; send LISTENERS; hang", SERVE, "hang",
         "core broke the protocol and was ended: LISTENERS was not asked for"},
        {"send READY; send POLICY; hang", SERVE, "hang",
         "core broke the protocol and was ended: POLICY was not asked for"},
        {SERVE, "send READY; send INGRESS; hang", GUEST_OK "hang",
         "front broke the protocol and was ended: INGRESS is not its to say"},
        {"send nonsense; hang", SERVE, "hang", "core broke the protocol and was ended: a message that does not decode"},
        {SERVE, SERVE, "send EXIT 0; hang", "guest broke the protocol and was ended: EXIT comes at the wrong time"},
        {SERVE, SERVE, GUEST_OK "send EXIT 300; hang",
         "guest broke the protocol and was ended: EXIT with a text that is no status"},
        {SERVE, SERVE, "send TAP; hang", "guest broke the protocol and was ended: TAP without a descriptor"},
        {SERVE, SERVE, "sendfd TAP; sendfd TAP; hang",
         "guest broke the protocol and was ended: TAP comes at the wrong time"},
        {SERVE, SERVE, "send GO; hang", "guest broke the protocol and was ended: GO is not its to say"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++)
        expect(play(&(struct scenario){
                   .core = cases[i].core, .front = cases[i].front, .guest = cases[i].guest, .stop_ms = 3000}),
               125, cases[i].reason);
}

static void test_start_time_out(void **state)
{
    struct sm_supervisor_result r = play(
        &(struct scenario){.core = "hang", .front = SERVE, .guest = GUEST_OK "hang", .start_ms = 300, .stop_ms = 200});
    assert_false(r.started);
    expect(r, 125, "not ready within 0 s: core");
}

static void test_who_does_not_stop_is_killed(void **state)
{
    int64_t begin = sm_clock_us();
    expect(play(&(struct scenario){.core = "send READY; hang",
                                   .front = "send READY; hang",
                                   .guest = GUEST_OK "send EXIT 4; exit 4",
                                   .stop_ms = 200}),
           4, NULL);
    assert_true(sm_clock_us() - begin < 5000000);
}

/* ---- with a client beside it ---- */

static int connect_control(void)
{
    return sm_control_connect(dirfd_, 20000);
}

static enum sm_child_role victim;
static int victim_signal; /* 0: no victim, and the core answers */

/** Ask until the workspace runs and the core has reported in time. Returns the connection and the last answer. */
static int wait_until_running(char **ret_line)
{
    int fd = connect_control();
    *ret_line = NULL;
    do {
        if (*ret_line)
            g_usleep(1000); /* nothing tells the moment; leave the processor to those that are to get there */
        g_free(*ret_line);
        *ret_line = fd >= 0 ? sm_control_ask(fd, SM_CONTROL_STATUS, NULL) : NULL;
    } while (*ret_line && (!strstr(*ret_line, "\"state\":\"running\"") ||
                           (victim_signal == 0 && strstr(*ret_line, "\"core\":null"))));
    return fd;
}

static const char *signal_victim(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line), pid = 0;
    json_t *o = line ? json_loads(line, 0, NULL) : NULL;

    pid = (int)json_integer_value(json_object_get(json_object_get(o, "pids"), sm_child_role_name(victim)));
    json_decref(o);
    if (pid <= 0 || kill(pid, victim_signal) < 0)
        return "no victim";
    close(fd);
    return NULL;
}

static void test_death_while_running(void **state)
{
    static const struct {
        enum sm_child_role victim;
        int signo;
        const char *core, *front, *guest, *reason;
    } cases[] = {
        {SM_CHILD_CORE, 9, SERVE, SERVE, GUEST_OK "hang", "the core ended unexpectedly (signal 9"},
        {SM_CHILD_FRONT, 9, SERVE, SERVE, GUEST_OK "hang", "the front ended unexpectedly (signal 9"},
        {SM_CHILD_GUEST, 9, SERVE, SERVE, GUEST_OK "hang", "the guest ended unexpectedly (signal 9"},
        {SM_CHILD_CORE, 10, "block 10; send READY; await 10; send FAIL lost; exit 1", SERVE, GUEST_OK "hang",
         "the core failed: lost; the workspace was stopped"},
        {SM_CHILD_CORE, 10, "block 10; send READY; await 10; close; hang", SERVE, GUEST_OK "hang",
         "the core ended unexpectedly (signal 9"},
        /* what CMD makes of its end does not hide the failure */
        {SM_CHILD_CORE, 9, SERVE, SERVE, "block 15; " GUEST_OK "await 15; send EXIT 0; exit 0",
         "the core ended unexpectedly (signal 9"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        victim = cases[i].victim;
        victim_signal = cases[i].signo;
        struct sm_supervisor_result r = play(&(struct scenario){.core = cases[i].core,
                                                                .front = cases[i].front,
                                                                .guest = cases[i].guest,
                                                                .stop_ms = 3000,
                                                                .client = signal_victim});
        victim_signal = 0;
        assert_true(r.started);
        expect(r, 125, cases[i].reason);
    }
}

static const char *status_then_stop(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    json_t *o = line ? json_loads(line, 0, NULL) : NULL;
    const char *name, *report, *core_state;
    int pid = 0;
    if (json_unpack(o, "{s:s, s:{s:s}, s:{s:s}, s:{s:i}}", "name", &name, "reports", "core", &report, "states", "core",
                    &core_state, "pids", "supervisor", &pid) < 0)
        return line ? g_strdup(line) : g_strdup("no answer");
    if (strcmp(name, "t") != 0 || strcmp(report, "{\"flows\": \"1\xef\xbf\xbd?[???[\"}") != 0 || pid != getpid())
        return g_strdup(line);
    json_decref(o);
    g_autofree char *answer = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    char c;
    if (!answer || recv(fd, &c, 1, 0) != 0) /* the end of the stream is the end of the workspace */
        return g_strdup("stop");
    close(fd);
    return NULL;
}

/** Reports are passed on as they are (but for what is invalid, or would act on the terminal where they are shown), and `stop` gives CMD a SIGTERM and waits. */
static void test_status_and_stop(void **state)
{
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = "send READY; serve {\"flows\": \"1\xff\x1b[\xc2\x9b\x7f[\"}",
        .front = SERVE,
        .guest = "block 15; " GUEST_OK "await 15; send EXIT 33; exit 33",
        .client = status_then_stop,
    });
    expect(r, 33, NULL);
}

static const char *just_stop(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    g_autofree char *answer = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    close(fd);
    return answer ? NULL : "no answer";
}

static void test_deaf_command_is_killed_after_the_grace(void **state)
{
    expect(play(&(struct scenario){.core = SERVE,
                                   .front = SERVE,
                                   .guest = "ignore 15; " GUEST_OK "hang",
                                   .grace_ms = 300,
                                   .client = just_stop}),
           128 + SIGTERM, "did not end within");
}

static const char *stop_at_once(void)
{
    int fd = connect_control();
    g_autofree char *answer = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    close(fd);
    return answer ? NULL : "no answer";
}

static void test_stop_before_all_are_ready(void **state)
{
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = "recv STOP; send READY; exit 0", .front = SERVE, .guest = "hang", .client = stop_at_once});
    assert_false(r.started);
    expect(r, 128 + SIGTERM, "stopped before the start was complete");
}

static const char *signal_us(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    close(fd);
    (void)kill(getpid(), SIGINT);  /* passed on */
    (void)kill(getpid(), SIGUSR1); /* passed on */
    (void)kill(getpid(), SIGHUP);  /* passed on, and the beginning of the end */
    return NULL;
}

static void test_signals_are_passed_on(void **state)
{
    expect(play(&(struct scenario){.core = SERVE,
                                   .front = SERVE,
                                   .guest = "block 2; block 10; block 1; " GUEST_OK
                                            "await 2; await 10; await 1; send EXIT 5; exit 5",
                                   .take_signals = true,
                                   .client = signal_us}),
           5, NULL);
}

/* ---- published ports and policy ---- */

static struct sm_publish any_port = {.host = {.addr = {.family = SM_FAMILY_V4, .bytes = {127, 0, 0, 1}}},
                                     .guest_port = 80};
static bool in_force;
static const char *load_error;

static char *fake_load(void *data, const char *path, json_t **ret_counts, GError **error)
{
    if (load_error) {
        g_set_error(error, g_quark_from_static_string("test"), 1, "%s", load_error);
        return NULL;
    }
    *ret_counts = json_pack("{s:s?}", "path", path);
    return g_strdup("{}");
}

static void fake_settled(void *data, bool taken)
{
    in_force = taken;
}

static const struct sm_policy_source fake_policy = {.load = fake_load, .settled = fake_settled};

/** Ask, and compare the answer; NULL: as it should be. */
static const char *asked(int fd, enum sm_control_verb verb, const char *argument, const char *want)
{
    g_autofree char *line = sm_control_ask_about(fd, verb, argument, NULL);
    return line && strstr(line, want) ? NULL
                                      : g_strdup_printf("%s: %s", sm_control_verb_name(verb), line ? line : "nothing");
}

static const char *publish_some(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line), first = 0;
    json_t *o = line ? json_loads(line, 0, NULL) : NULL;
    const char *wrong = NULL;

    /* The one of the start is served before GO. */
    (void)json_unpack(o, "{s:{s:[{s:i}]}}", "network", "publishes", "hostPort", &first);
    json_decref(o);
    if (first == 0)
        return line ? g_strdup(line) : "no answer";
    g_autofree char *answer = sm_control_ask_about(fd, SM_CONTROL_PUBLISH, "0:8080/tcp", NULL);
    o = answer ? json_loads(answer, 0, NULL) : NULL;
    int port = 0, guest_port = 0;
    if (json_unpack(o, "{s:b, s:{s:i, s:i}}", "ok", &first, "publish", "hostPort", &port, "guestPort", &guest_port) <
            0 ||
        port == 0 || guest_port != 8080)
        return answer ? g_strdup(answer) : "no answer to publish";
    json_decref(o);
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client, (struct sockaddr *)&in, sizeof(in)) < 0)
        return "not served";
    g_autofree char *spec = g_strdup_printf("127.0.0.1:%d:8080/tcp", port);
    wrong = asked(fd, SM_CONTROL_PUBLISH, spec, "published already");
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_PUBLISH, "nonsense", "HOST:HOSTPORT:GUESTPORT/tcp");
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_UNPUBLISH, "1:1/tcp", "not published");
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_UNPUBLISH, spec, "\"ok\":true");
    close(client);
    g_autofree char *stopped = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    close(fd);
    return wrong;
}

static void test_publish(void **state)
{
    expect(play(&(struct scenario){
               .core = "send READY; listeners; reports; listeners; ingress; listeners; recv STOP; exit 0",
               .front = SERVE,
               .guest = "block 15; " GUEST_OK "await 15; send EXIT 0; exit 0",
               .client = publish_some,
               .publish = true,
           }),
           0, NULL);
}

static const char *load_some(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    const char *wrong = asked(fd, SM_CONTROL_RELOAD, NULL, "{\"path\":null,\"ok\":true}");

    if (!wrong && !in_force)
        wrong = "the source was not told";
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_POLICY, "/x.yaml", "the core says \\\"no\\\"");
    if (!wrong && in_force)
        wrong = "the source takes it for loaded";
    load_error = "/x.yaml:3: odd";
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_POLICY, "/x.yaml", "{\"ok\":false,\"error\":\"/x.yaml:3: odd\"}");
    load_error = NULL;
    g_autofree char *stopped = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    close(fd);
    return wrong;
}

static void test_policy(void **state)
{
    expect(play(&(struct scenario){
               .core = "send READY; reports; recv POLICY +fd; send POLICY; recv POLICY +fd; "
                       "send POLICY the core says \"no\"; recv STOP; exit 0",
               .front = SERVE,
               .guest = "block 15; " GUEST_OK "await 15; send EXIT 0; exit 0",
               .client = load_some,
               .policy = true,
           }),
           0, NULL);
}

/* Two clients, in order; the descriptor comes with the right answer, and none with a refusal. */
static const char *snapshot_some(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    sm_autofd got = -1, none = -1;
    g_autofree char *first = sm_control_ask_for(fd, SM_CONTROL_SNAPSHOT, &got, NULL);
    g_autofree char *second = sm_control_ask_for(fd, SM_CONTROL_SNAPSHOT, &none, NULL);
    const char *wrong = NULL;
    struct stat st;

    if (!first || !strstr(first, "\"core\":true") || !strstr(first, "\"ok\":true") ||
        !strstr(first, "\"settings\":null"))
        wrong = first ? g_strdup(first) : "no answer";
    else if (got < 0 || fstat(got, &st) < 0 || !S_ISREG(st.st_mode))
        wrong = "no descriptor came";
    else if (!second || !strstr(second, "{\"ok\":false,\"error\":\"no room\"}") || none >= 0)
        wrong = second ? g_strdup(second) : "no second answer";
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_SNAPSHOT, NULL, "the workspace ended");
    close(fd);
    return wrong;
}

static void test_snapshot(void **state)
{
    /* The third is asked of a core that ends instead. */
    expect(
        play(&(struct scenario){
            .core = "send READY; reports; recv SNAPSHOT +fd; send SNAPSHOT; recv SNAPSHOT +fd; send SNAPSHOT no room; "
                    "recv SNAPSHOT +fd; exit 1",
            .front = SERVE,
            .guest = "block 15; " GUEST_OK "await 15; exit 0",
            .client = snapshot_some,
        }),
        SM_SUPERVISOR_FAILED, "core");
}

static void test_a_snapshot_nobody_asked_for(void **state)
{
    expect(play(&(struct scenario){
               .core = "send READY; send SNAPSHOT; recv STOP; exit 0",
               .front = SERVE,
               .guest = "block 15; " GUEST_OK "await 15; exit 0",
           }),
           SM_SUPERVISOR_FAILED, "was not asked for");
}

static const char *isolated(void)
{
    g_autofree char *line = NULL;
    int fd = wait_until_running(&line);
    const char *wrong = asked(fd, SM_CONTROL_PUBLISH, "0:80", "isolated");

    wrong = wrong ? wrong : asked(fd, SM_CONTROL_UNPUBLISH, "1:80", "isolated");
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_RELOAD, NULL, "isolated");
    wrong = wrong ? wrong : asked(fd, SM_CONTROL_SNAPSHOT, NULL, "{\"core\":false,\"settings\":null,\"ok\":true}");
    g_autofree char *stopped = sm_control_ask(fd, SM_CONTROL_STOP, NULL);
    close(fd);
    return wrong;
}

static void test_isolated_has_neither(void **state)
{
    expect(play(&(struct scenario){.guest = "block 15; send TAP; recv GO; await 15; send EXIT 0; exit 0",
                                   .client = isolated}),
           0, NULL);
}

/** A port in use ends the start before anything is started, and the error names it. */
static void test_published_port_in_use(void **state)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sm_publish p = any_port;
    char *argv[] = {(char[]){"x"}, (char[]){"core"}, NULL}, *env[] = {NULL};
    g_autoptr(GError) error = NULL;

    assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    p.host.port = ntohs(in.sin_port);
    g_autofree char *named =
        g_strdup_printf("--publish=127.0.0.1:%u:80/tcp: 127.0.0.1:%u is in use", p.host.port, p.host.port);
    struct sm_supervisor_spec spec = {.exe = "/nonexistent",
                                      .name = "t",
                                      .dirfd = dirfd_,
                                      .audit_fd = -1,
                                      .ca_key_fd = -1,
                                      .ca_cert_fd = -1,
                                      .ca_guest_fd = -1,
                                      .counters_fd = -1,
                                      .publishes = &p,
                                      .n_publishes = 1};
    for (int i = 0; i < SM_CHILDREN; i++)
        spec.children[i] = (struct sm_child_spec){true, NULL, argv, env, "{}", 2};
    assert_null(sm_supervisor_new(&spec, &error));
    if (!g_str_has_prefix(error->message, named))
        fail_msg("%s", error->message);
    close(fd);
}

/* ---- without a guest of ours ---- */

static int dial_vmm(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)g_snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/vmm.sock", workdir);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
        return fd;
    close(fd);
    return -1;
}

/** One VMM after the other; the second is there before the first is known to be gone. */
static const char *two_vmms(void)
{
    g_autofree char *line = NULL;
    int control = wait_until_running(&line), first = dial_vmm(), second = dial_vmm();
    char c;
    if (control < 0 || first < 0 || second < 0)
        return "no connection";
    if (recv(first, &c, 1, 0) != 0 || recv(second, &c, 1, 0) != 0) /* the front's script drops both */
        return "a VMM's connection stays";
    g_autofree char *answer = sm_control_ask(control, SM_CONTROL_STOP, NULL);
    close(control);
    close(first);
    close(second);
    return answer ? NULL : "no answer";
}

static void test_vmms_come_and_go(void **state)
{
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = "send READY; serve {}",
        .front = "fds 6; send READY; port; send PORT net; port; send PORT net; serve {}",
        .listens = true,
        .client = two_vmms,
    });
    assert_true(r.started);
    expect(r, 0, NULL);
}

/** More connections than the link holds; the last is closed when it had its turn. */
static const char *vsock_flood(void)
{
    enum { CONNECTIONS = 400 };
    g_autofree char *line = NULL;
    int control = wait_until_running(&line), fds[CONNECTIONS];
    char c;
    if (control < 0)
        return "no control socket";
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        fds[i] = dial_vmm();
        if (fds[i] < 0)
            return "no connection";
    }
    if (recv(fds[CONNECTIONS - 1], &c, 1, 0) != 0)
        return "the last connection stays";
    g_autofree char *answer = sm_control_ask(control, SM_CONTROL_STOP, NULL);
    close(control);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    return answer ? NULL : "no answer";
}

/** A VMM whose guest opens vsock connections faster than the core takes them: what we have to say to the core gets through. */
static void test_vsock_flood(void **state)
{
    g_autofree char *heard = g_strdup_printf("%s/heard", workdir);
    g_autofree char *core = g_strdup_printf("send READY; reports; channel; stop-behind %s; exit 0", heard);
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = core,
        .front = "send READY; reports; recv STOP; channel; exit 0",
        .listens = true,
        .hybrid = true,
        .client = vsock_flood,
    });
    assert_true(r.started);
    expect(r, 0, NULL);
    assert_int_equal(unlink(heard), 0); /* it was not killed for being deaf */
}

/** Not for every text, and only the front: the rest is the table's (test_requests.c). */
static void test_port_of_nothing(void **state)
{
    expect(play(&(struct scenario){.core = SERVE, .front = "send READY; send PORT what; hang", .listens = true}), 125,
           "PORT of something");
}

/** A connection that was given has no successor: the workspace ends in order. */
static void test_given_vmm_leaves(void **state)
{
    struct sm_supervisor_result r = play(&(struct scenario){
        .core = SERVE, .front = "fds 7; send READY; role-end; send PORT net; serve {}", .given = true});
    assert_true(r.started);
    expect(r, 0, NULL);
}

static void test_given_vmm_leaves_too_early(void **state)
{
    struct sm_supervisor_result r = play(
        &(struct scenario){.core = "recv STOP; exit 0", .front = "send READY; send PORT net; serve {}", .given = true});
    assert_false(r.started);
    expect(r, 125, "before the start was complete");
}

/** Without a guest a front or a core that dies ends it all the same, and it is no orderly end. */
static void test_death_without_a_guest(void **state)
{
    expect(play(&(struct scenario){.core = SERVE, .front = "send READY; kill 9", .listens = true}), 125,
           "front ended unexpectedly");
    expect(play(&(struct scenario){.core = "send READY; kill 9", .front = SERVE, .listens = true}), 125,
           "core ended unexpectedly");
}

/* ---- open by role ---- */

static void test_audit_rotation(void **state)
{
    /* Not full: refused, the record stays. */
    (void)unlinkat(dirfd_, SM_AUDIT_FILE_ROTATED, 0);
    expect(play(&(struct scenario){.core = "send READY; send WANT audit; recv GIVE audit; recv STOP; exit 0",
                                   .front = SERVE,
                                   .guest = "sendfd TAP; recv GO; send EXIT 0; exit 0",
                                   .audit_max = 1 << 20}),
           0, NULL);
    assert_int_equal(faccessat(dirfd_, SM_AUDIT_FILE_ROTATED, F_OK, 0), -1);
    /* Full enough: rotated, once; the new one is empty, so a second request is refused. */
    int fd = openat(dirfd_, SM_AUDIT_FILE, O_WRONLY | O_APPEND);
    char block[1000];
    memset(block, 'x', sizeof(block));
    assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
    close(fd);
    expect(
        play(&(struct scenario){
            .core =
                "send READY; send WANT audit; recv GIVE audit +fd; send WANT audit; recv GIVE audit; recv STOP; exit 0",
            .front = SERVE,
            .guest = "sendfd TAP; recv GO; send EXIT 0; exit 0",
            .audit_max = 8000}),
        0, NULL);
    struct stat st;
    assert_int_equal(fstatat(dirfd_, SM_AUDIT_FILE_ROTATED, &st, 0), 0);
    assert_int_equal(st.st_size, sizeof(block));
}

static void test_resolv_without_a_path(void **state)
{
    expect(play(&(struct scenario){.core = "send READY; send WANT resolv; recv GIVE resolv; recv STOP; exit 0",
                                   .front = SERVE,
                                   .guest = "sendfd TAP; recv GO; send EXIT 0; exit 0"}),
           0, NULL);
}

static void test_roots(void **state)
{
    g_autofree char *path = g_build_filename(workdir, "roots.pem", NULL);
    char *const paths[] = {path, NULL};
    struct scenario sc = {.core = "send READY; send WANT roots; recv GIVE roots; recv STOP; exit 0",
                          .front = SERVE,
                          .guest = "sendfd TAP; recv GO; send EXIT 0; exit 0"};
    expect(play(&sc), 0, NULL);
    sc.roots = paths; /* there is none yet */
    expect(play(&sc), 0, NULL);
    assert_true(g_file_set_contents(path, "roots", -1, NULL));
    sc.core =
        "send READY; send WANT roots; recv GIVE roots +fd; send WANT roots; recv GIVE roots +fd; recv STOP; exit 0";
    expect(play(&sc), 0, NULL);
    (void)unlink(path);
}

static void test_no_such_executable(void **state)
{
    char *argv[] = {(char[]){"x"}, (char[]){"core"}, NULL}, *env[] = {NULL};
    g_autoptr(GError) error = NULL;
    struct sm_supervisor_spec spec = {.exe = "/nonexistent",
                                      .name = "t",
                                      .dirfd = dirfd_,
                                      .audit_fd = -1,
                                      .ca_key_fd = -1,
                                      .ca_cert_fd = -1,
                                      .ca_guest_fd = -1,
                                      .counters_fd = -1};
    spec.children[SM_CHILD_GUEST] = (struct sm_child_spec){true, NULL, argv, env, "{}", 2};
    assert_null(sm_supervisor_new(&spec, &error));
    assert_non_null(strstr(error->message, "/nonexistent"));
    assert_int_equal(faccessat(dirfd_, SM_CONTROL_SOCKET, F_OK, 0), -1);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0)
        return child_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_life),
        cmocka_unit_test(test_core_ahead),
        cmocka_unit_test(test_ca_is_passed_on),
        cmocka_unit_test(test_guest_alone),
        cmocka_unit_test(test_exit_without_ado),
        cmocka_unit_test(test_any_death_ends_it),
        cmocka_unit_test(test_death_while_running),
        cmocka_unit_test(test_protocol_is_held_to),
        cmocka_unit_test(test_start_time_out),
        cmocka_unit_test(test_who_does_not_stop_is_killed),
        cmocka_unit_test(test_status_and_stop),
        cmocka_unit_test(test_deaf_command_is_killed_after_the_grace),
        cmocka_unit_test(test_stop_before_all_are_ready),
        cmocka_unit_test(test_signals_are_passed_on),
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_a_snapshot_nobody_asked_for),
        cmocka_unit_test(test_isolated_has_neither),
        cmocka_unit_test(test_published_port_in_use),
        cmocka_unit_test(test_vmms_come_and_go),
        cmocka_unit_test(test_vsock_flood),
        cmocka_unit_test(test_port_of_nothing),
        cmocka_unit_test(test_given_vmm_leaves),
        cmocka_unit_test(test_given_vmm_leaves_too_early),
        cmocka_unit_test(test_death_without_a_guest),
        cmocka_unit_test(test_audit_rotation),
        cmocka_unit_test(test_resolv_without_a_path),
        cmocka_unit_test(test_ca_files),
        cmocka_unit_test(test_counters_file),
        cmocka_unit_test(test_roots),
        cmocka_unit_test(test_no_such_executable),
    };
    g_strlcpy(workdir, "/tmp/sm-test-supervisor-XXXXXX", sizeof(workdir));
    if (!mkdtemp(workdir) || (dirfd_ = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return 1;
    (void)signal(SIGPIPE, SIG_IGN);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlinkat(dirfd_, SM_AUDIT_FILE, 0);
    (void)unlinkat(dirfd_, SM_AUDIT_FILE_ROTATED, 0);
    close(dirfd_);
    (void)rmdir(workdir);
    return r;
}
