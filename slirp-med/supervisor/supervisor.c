/* SPDX-License-Identifier: BSD-3-Clause */
/* The monitor: one workspace's processes from start to end. The phases stand in supervisor.h; requests.c says what children may say. */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "supervisor/control.h"
#include "supervisor/fetchers.h"
#include "supervisor/publish.h"
#include "supervisor/resolv.h"
#include "supervisor/roots.h"
#include "supervisor/spawn.h"
#include "supervisor/words.h"

/** A child that closed its link but does not end is killed after this. */
#define LINGER_US (G_USEC_PER_SEC)
/** After a guest-init that was killed: for its processes inside, which the kernel kills in turn. */
#define ORPHANS_US (2 * G_USEC_PER_SEC)
/** The core may have the audit rotated only when the file holds this share of what it may hold: rotating twice wipes the record. */
#define ROTATE_SHARE 8
/** Control clients whose `status` waits for reports, at once. */
#define ASKERS_MAX SM_CONTROL_CLIENTS_MAX
/** What a VMM can have said by the thousand is said once in this time. */
#define SAY_US G_USEC_PER_SEC

enum phase { PHASE_STARTING, PHASE_RUNNING, PHASE_ENDING, PHASE_STOPPING, PHASE_DONE, PHASES };
static const char *const phase_names[] = {
    [PHASE_STARTING] = "starting", [PHASE_RUNNING] = "running", [PHASE_ENDING] = "ending",
    [PHASE_STOPPING] = "stopping", [PHASE_DONE] = "stopped",
};
SM_NAME_TABLE_COVERS(phase_names, PHASES);

struct child {
    struct sm_supervisor *sup;
    enum sm_child_role role;
    enum sm_child_state state;
    pid_t pid;
    int pidfd;
    int link;
    int channel; /* core, front: their end until they are spawned */
    struct sm_watch link_watch, pid_watch;
    struct sm_timer linger;
    unsigned asked;         /* STATUS requests without an answer */
    bool report_fresh;      /* an answer to the question that is out now */
    char *report;           /* the last one; opaque */
    bool killed;            /* by us */
    struct sm_words *words; /* core, front: what they say on stderr */
};

struct sm_supervisor {
    struct sm_supervisor_spec spec;
    struct sm_loop *loop;
    enum phase phase;
    struct child children[SM_CHILDREN];
    struct sm_control *control;
    struct sm_resolv_watch *resolv;
    struct sm_fetchers *fetchers;
    struct sm_publishes *publishes;
    bool policy_asked; /* the core has lists, and has not answered */
    uint64_t policy_client;
    json_t *policy_counts; /* its answer, if they are taken */
    struct wanted {
        uint64_t client;
        int fd;
    } wanted[ASKERS_MAX]; /* snapshots that the core has been asked for, in order */
    size_t n_wanted;
    struct sm_listens *listens;
    int audit_fd; /* the file that the core writes to now; ours */
    int tap;
    pid_t keeper;             /* of the kernel path, for `status`; 0: there is none */
    struct sm_timer deadline; /* of the phase */
    struct sm_timer report;   /* of `status` */
    uint64_t askers[ASKERS_MAX];
    size_t n_askers;
    int signal_fd;
    sigset_t old_mask;
    struct sm_watch signal_watch, owner_watch;
    char *started_at;   /* RFC 3339 */
    bool has_ca;        /* the core has said so */
    int status;         /* -1: not known yet */
    int end_signal;     /* that began ENDING or STOPPING; 0: none */
    uint64_t not_given; /* connections of a VMM that the core did not take */
    int64_t not_given_us;
    char *reason;
    bool reason_is_hearsay; /* a child's FAIL or its own exit, which may only be the echo of another one's death */
    bool guest_killed, went;
    bool vmm_left; /* the one that a given descriptor led to: there will be no other */
};

static void begin_stop(struct sm_supervisor *s);
static void on_link(struct sm_watch *watch, uint32_t events);

static int ms_or(int ms, int fallback)
{
    return ms > 0 ? ms : fallback;
}

static void arm_deadline(struct sm_supervisor *s, int ms)
{
    sm_loop_arm(s->loop, &s->deadline, sm_clock_us() + (int64_t)ms * 1000);
}

static bool is_alive(const struct child *c)
{
    return c->state != SM_CHILD_ABSENT && c->state != SM_CHILD_GONE;
}

static bool any_alive(const struct sm_supervisor *s)
{
    for (size_t i = 0; i < SM_CHILDREN; i++)
        if (is_alive(&s->children[i]))
            return true;
    return false;
}

static void kill_child(struct child *c)
{
    if (!is_alive(c))
        return;
    if (c->role == SM_CHILD_GUEST)
        c->sup->guest_killed = true;
    c->killed = true;
    if (sm_spawn_signal(c->pidfd, SIGKILL) < 0 && errno != ESRCH)
        sm_log_error("cannot kill the %s (pid %d): %s", sm_child_role_name(c->role), (int)c->pid, strerror(errno));
}

/** The first reason is the one that counts: what follows is its consequence. */
static void set_reason(struct sm_supervisor *s, const char *fmt, ...) SM_PRINTF(2, 3);
static void set_reason(struct sm_supervisor *s, const char *fmt, ...)
{
    if (s->reason || s->phase == PHASE_STOPPING)
        return;
    va_list ap;
    va_start(ap, fmt);
    s->reason = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

/** Bytes of a child that an operator may be shown: valid UTF-8 without control characters, neither C0 nor C1 (U+0080 to U+009F). */
static char *shown_text(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    for (char *p = valid; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if ((unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0)
            p[0] = p[1] = '?';
    }
    return g_steal_pointer(&valid);
}

/** The same in a message: bounded. */
static char *child_text(const char *text)
{
    g_autofree char *cut = g_strndup(text, 800);
    return shown_text(cut);
}

/* ---- starting ---- */

/** More descriptors of a child, from SM_CHANNEL_FD on; -1: that number stays closed. */
struct more_fds {
    int fd[SM_SPAWN_FDS_MAX - 2];
};

/** Give one that was started ahead what it waits for. One that has ended by now tells why through its link, and its
 * end. */
static int give_ahead(const struct sm_ahead *a, int config, struct more_fds more, int err_fd)
{
    bool all = sm_ahead_give(a, STDERR_FILENO, err_fd) == 0 && sm_ahead_give(a, SM_CONFIG_FD, config) == 0;

    for (size_t i = 0; all && i < SM_ARRAY_LEN(more.fd); i++)
        all = more.fd[i] < 0 || sm_ahead_give(a, SM_CHANNEL_FD + (int)i, more.fd[i]) == 0;
    return (all && sm_ahead_go(a) == 0) || errno == EPIPE || errno == ECONNRESET ? 0 : -1;
}

static int watch_child(struct child *c, int *link, GError **error)
{
    struct sm_supervisor *s = c->sup;

    c->state = SM_CHILD_STARTED;
    c->link = sm_steal_fd(link);
    c->link_watch.fd = c->link;
    c->pid_watch.fd = c->pidfd;
    if (sm_loop_watch(s->loop, &c->link_watch, EPOLLIN) < 0 || sm_loop_watch(s->loop, &c->pid_watch, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "watch the %s", sm_child_role_name(c->role));
        kill_child(c);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        c->state = SM_CHILD_GONE;
        return -1;
    }
    sm_log_debug("%s started, pid %d", sm_child_role_name(c->role), (int)c->pid);
    return 0;
}

/** The core that was started ahead; until it is ours it stays its starter's to end. */
static int adopt_child(struct child *c, struct sm_ahead *a, struct more_fds more, GError **error)
{
    const struct sm_child_spec *spec = &c->sup->spec.children[c->role];
    sm_autofd config = sm_fd_memfd("config", spec->config, spec->config_len, error);
    sm_autofd err_fd = -1;

    if (config < 0 || !(c->words = sm_words_new(c->sup->loop, STDERR_FILENO, &err_fd, error)))
        return -1;
    if (give_ahead(a, config, more, err_fd) < 0 || sm_fd_set_nonblock(a->link) < 0) {
        sm_error_set_errno(error, errno, "give the %s its descriptors", sm_child_role_name(c->role));
        return -1;
    }
    c->pid = a->pid;
    c->pidfd = sm_steal_fd(&a->pidfd);
    a->pid = 0;
    return watch_child(c, &a->link, error);
}

/** Start one child with its link, its configuration and the descriptors of its role. */
static int spawn_child(struct child *c, struct more_fds more, GError **error)
{
    struct sm_supervisor *s = c->sup;
    const struct sm_child_spec *spec = &s->spec.children[c->role];
    int pair[2];

    if (c->role == SM_CHILD_CORE && s->spec.core_ahead)
        return adopt_child(c, s->spec.core_ahead, more, error);
    if (sm_fd_seqpair(pair, false) < 0) {
        sm_error_set_errno(error, errno, "socket pair for the %s", sm_child_role_name(c->role));
        return -1;
    }
    sm_autofd ours = pair[0];
    sm_autofd theirs = pair[1];
    sm_autofd config = sm_fd_memfd("config", spec->config, spec->config_len, error);
    if (config < 0)
        return -1;
    struct sm_spawn_spec sp = {
        .exe = spec->exe ? spec->exe : s->spec.exe,
        .argv = spec->argv,
        .envp = spec->envp,
        .fds = {theirs, config},
        .n_fds = SM_SPAWN_FDS_MAX,
        .err_fd = c->role == SM_CHILD_GUEST && s->spec.guest_err_fd > 0 ? s->spec.guest_err_fd : -1,
        .own_session = c->role != SM_CHILD_GUEST,
        .sigmask = c->role == SM_CHILD_GUEST ? &s->old_mask : NULL,
    };
    memcpy(sp.fds + 2, more.fd, sizeof(more.fd));
    while (sp.fds[sp.n_fds - 1] < 0)
        sp.n_fds--;
    if (sm_fd_set_nonblock(ours) < 0) { /* our end only */
        sm_error_set_errno(error, errno, "link to the %s", sm_child_role_name(c->role));
        return -1;
    }
    sm_autofd err_fd = -1;
    if (c->role != SM_CHILD_GUEST) {
        c->words = sm_words_new(s->loop, STDERR_FILENO, &err_fd, error);
        if (!c->words)
            return -1;
        sp.err_fd = err_fd;
    }
    c->pid = sm_spawn(&sp, &c->pidfd, error);
    if (c->pid < 0)
        return -1;
    return watch_child(c, &ours, error);
}

static void fail_start(struct sm_supervisor *s, GError *error)
{
    set_reason(s, "%s", error->message);
    g_error_free(error);
    begin_stop(s);
}

/** With the tap, once the guest has brought it; the core's READY is waited for with everybody's. */
static int start_front(struct sm_supervisor *s, int port_fd, GError **error)
{
    struct child *front = &s->children[SM_CHILD_FRONT];

    int r = spawn_child(front, (struct more_fds){{front->channel, port_fd, -1, -1, -1, -1, -1}}, error);
    /* From here the front alone holds the guest's network, and the two ends of the channel are the children's alone. */
    sm_fd_close(&s->tap);
    sm_fd_close(&front->channel);
    return r;
}

/** Whoever asked for any port has to learn which one it is. */
static void tell_ports(const struct sm_supervisor *s)
{
    char text[SM_PUBLISH_STRLEN];

    for (size_t i = 0; i < s->spec.n_publishes; i++)
        if (s->spec.publishes[i].host.port == 0)
            fprintf(stderr, "slirp-med: published %s\n", sm_publish_format(sm_publishes_get(s->publishes, i), text));
}

/** A VMM connects as fast as it likes, so its connections get half of the link: the rest is for what the core has to
 * hear (STOP, its next audit file). */
static bool has_room(int link)
{
    int waiting, size;
    socklen_t len = sizeof(size);

    return ioctl(link, SIOCOUTQ, &waiting) == 0 && getsockopt(link, SOL_SOCKET, SO_SNDBUF, &size, &len) == 0 &&
           waiting < size / 2;
}

/** What does not reach it is closed: the guest sees the end of its connection. */
static void give_core(struct sm_supervisor *s, enum sm_link_verb verb, const char *text, int fd)
{
    const struct child *core = &s->children[SM_CHILD_CORE];
    const char *why = "too many wait for it already";
    int64_t now = sm_clock_us();

    if (core->state != SM_CHILD_SERVING)
        why = sm_child_state_name(core->state);
    else if (has_room(core->link) && sm_link_send(core->link, verb, text, fd) == 0)
        return;
    if (s->not_given++ > 0 && now - s->not_given_us < SAY_US)
        return;
    sm_log_warning("the core does not take a %s connection: %s (%" G_GUINT64_FORMAT " since the start)",
                   sm_link_verb_name(verb), why, s->not_given);
    s->not_given_us = now;
}

static void published(const struct sm_supervisor *s)
{
    if (!s->spec.on_published)
        return;
    json_t *all = sm_publishes_json(s->publishes);
    s->spec.on_published(s->spec.on_data, all);
    json_decref(all);
}

static void go_when_ready(struct sm_supervisor *s)
{
    if (s->phase != PHASE_STARTING)
        return;
    for (size_t i = 0; i < SM_CHILDREN; i++)
        if (s->spec.children[i].used && s->children[i].state != SM_CHILD_SERVING)
            return;
    if (!sm_publishes_all_listen(s->publishes))
        return;
    struct child *guest = &s->children[SM_CHILD_GUEST];
    GError *error = NULL;
    if (s->spec.on_ready && !s->spec.on_ready(s->spec.on_data, &error)) {
        fail_start(s, error);
        return;
    }
    if (s->spec.children[SM_CHILD_GUEST].used) {
        if (sm_link_send(guest->link, SM_LINK_GO, NULL, -1) < 0) {
            if (errno == EPIPE || errno == ECONNRESET)
                return; /* it has ended: why is in its link, which is read next */
            set_reason(s, "the guest does not take GO: %s", strerror(errno));
            begin_stop(s);
            return;
        }
        guest->state = SM_CHILD_RUNNING;
    }
    tell_ports(s);
    if (s->spec.n_publishes > 0)
        published(s);
    s->phase = PHASE_RUNNING;
    s->went = true;
    sm_loop_disarm(s->loop, &s->deadline);
    if (s->listens)
        sm_listens_start(s->listens);
    if (s->spec.on_running)
        s->spec.on_running(s->spec.on_data);
}

/** A VMM has come through one of our sockets. */
static void on_vmm(void *data, const char *tag, int connection)
{
    struct sm_supervisor *s = data;
    sm_autofd fd = connection;

    if (g_str_has_prefix(tag, SM_LISTEN_TAG_HYBRID)) {
        give_core(s, SM_LINK_VSOCK, tag + strlen(SM_LISTEN_TAG_HYBRID), fd);
    } else if (strcmp(tag, SM_LISTEN_TAG_TAP) == 0) {
        size_t len = strlen(s->spec.tap_word);
        if (sm_fd_send(fd, s->spec.tap_word, len, &s->spec.tap_fd, 1) != (ssize_t)len)
            sm_log_warning("who came for the tap does not take it: %s", strerror(errno));
    } else if (strcmp(tag, SM_LISTEN_TAG_SERIAL) == 0) {
        give_core(s, SM_LINK_SERIAL, NULL, fd);
    } else if (sm_supervisor_connect(s, tag, fd) < 0) {
        sm_log_warning("the front does not take a VMM's connection: %s", strerror(errno));
        sm_listens_gone(s->listens, tag);
    } else {
        sm_log_info("a VMM has connected (%s)", tag);
    }
}

static const struct sm_listens_ops listens_ops = {.connected = on_vmm};

/* ---- ending ---- */

static void signal_guest(struct sm_supervisor *s, int signo)
{
    struct child *guest = &s->children[SM_CHILD_GUEST];
    if (is_alive(guest) && sm_spawn_signal(guest->pidfd, signo) < 0 && errno != ESRCH)
        sm_log_warning("cannot pass signal %d on: %s", signo, strerror(errno));
}

static void send_stop(struct child *c)
{
    if (!is_alive(c) || c->state == SM_CHILD_STOPPING)
        return;
    c->state = SM_CHILD_STOPPING;
    if (sm_link_send(c->link, SM_LINK_STOP, NULL, -1) == 0)
        return;
    /* Its end is closed: it is ending by itself, or on_linger() will see to it. Otherwise it does not read. */
    if (errno != EPIPE && errno != ECONNRESET)
        kill_child(c);
}

/**
 * Both, the core first: it records the end when the front has told its last counts and shut its side of the channel, and
 * must know by then that this is no failure. The front stands until the core has closed the channel.
 */
static void stop_services(struct sm_supervisor *s)
{
    send_stop(&s->children[SM_CHILD_CORE]);
    send_stop(&s->children[SM_CHILD_FRONT]);
    /* The end that a front which was never started would have had. */
    sm_fd_close(&s->children[SM_CHILD_FRONT].channel);
    sm_fd_close(&s->tap);
}

static void begin_stop(struct sm_supervisor *s)
{
    struct child *guest = &s->children[SM_CHILD_GUEST];

    if (s->phase == PHASE_STOPPING || s->phase == PHASE_DONE)
        return;
    s->phase = PHASE_STOPPING;
    arm_deadline(s, ms_or(s->spec.stop_ms, SM_SUPERVISOR_STOP_MS));
    g_clear_pointer(&s->listens, sm_listens_free);
    if (s->went && s->spec.on_stopping)
        s->spec.on_stopping(s->spec.on_data);
    sm_fetchers_end(s->fetchers);
    sm_publishes_end(s->publishes);
    if (is_alive(guest) && guest->state != SM_CHILD_STOPPING) {
        guest->state = SM_CHILD_STOPPING;
        signal_guest(s, SIGTERM);
    }
    stop_services(s);
    /* The kernel lets go of an inotify only after others have (0.2 to 14 ms were measured): while they end, and not
     * after. */
    g_clear_pointer(&s->resolv, sm_resolv_watch_free);
    if (!any_alive(s)) {
        s->phase = PHASE_DONE;
        sm_loop_quit(s->loop, 0);
    }
}

/** CMD is asked to end while its network still stands. */
static void begin_ending(struct sm_supervisor *s, int signo)
{
    switch (s->phase) {
    case PHASE_STARTING:
        s->end_signal = signo;
        set_reason(s, "stopped before the start was complete");
        begin_stop(s);
        return;
    case PHASE_RUNNING:
        s->end_signal = signo;
        if (!s->spec.children[SM_CHILD_GUEST].used) { /* the guest is not ours to ask */
            begin_stop(s);
            return;
        }
        s->phase = PHASE_ENDING;
        arm_deadline(s, ms_or(s->spec.grace_ms, SM_SUPERVISOR_GRACE_MS));
        signal_guest(s, signo);
        return;
    case PHASE_ENDING:
        signal_guest(s, signo);
        return;
    case PHASE_STOPPING:
    case PHASE_DONE:
    case PHASES:
        return;
    }
}

static void on_deadline(struct sm_timer *timer, int64_t now_us)
{
    struct sm_supervisor *s = sm_container_of(timer, struct sm_supervisor, deadline);

    switch (s->phase) {
    case PHASE_STARTING: {
        g_autoptr(GString) late = g_string_new(NULL);
        for (size_t i = 0; i < SM_CHILDREN; i++)
            if (s->spec.children[i].used && s->children[i].state != SM_CHILD_SERVING)
                g_string_append_printf(late, "%s%s", late->len ? ", " : "", sm_child_role_name((enum sm_child_role)i));
        set_reason(s, "not ready within %d s: %s", ms_or(s->spec.start_ms, SM_SUPERVISOR_START_MS) / 1000, late->str);
        begin_stop(s);
        return;
    }
    case PHASE_ENDING:
        set_reason(s, "the command did not end within %d s of the signal and was killed",
                   ms_or(s->spec.grace_ms, SM_SUPERVISOR_GRACE_MS) / 1000);
        kill_child(&s->children[SM_CHILD_GUEST]);
        begin_stop(s);
        return;
    case PHASE_STOPPING:
        for (size_t i = 0; i < SM_CHILDREN; i++)
            kill_child(&s->children[i]);
        return;
    case PHASE_RUNNING:
    case PHASE_DONE:
    case PHASES:
        return;
    }
}

/* ---- status ---- */

static void set_new(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value ? value : json_null());
}

static char *status_text(struct sm_supervisor *s, bool with_reports)
{
    g_autofree char *text = NULL;
    json_t *o = s->spec.facts ? json_deep_copy(s->spec.facts) : json_object();
    json_t *pids = json_object(), *states = json_object(), *reports = json_object();

    set_new(o, "ok", json_true());
    set_new(o, "name", json_string(s->spec.name));
    set_new(o, "state", json_string(phase_names[s->phase]));
    set_new(o, "started", json_string(s->started_at));
    set_new(pids, "supervisor", json_integer(getpid()));
    for (size_t i = 0; i < SM_CHILDREN; i++) {
        const struct child *c = &s->children[i];
        const char *role = sm_child_role_name((enum sm_child_role)i);
        if (!s->spec.children[i].used)
            continue;
        set_new(pids, role, is_alive(c) ? json_integer(c->pid) : json_null());
        set_new(states, role, json_string(sm_child_state_name(c->state)));
        if (c->role != SM_CHILD_GUEST)
            set_new(reports, role, c->report_fresh && c->report ? json_string(c->report) : json_null());
    }
    if (s->keeper > 0) /* it lives as long as the front does, and nobody watches it but that */
        set_new(pids, "keeper", is_alive(&s->children[SM_CHILD_FRONT]) ? json_integer(s->keeper) : json_null());
    /* What is published now, beside the addresses that were fixed at the start. */
    if (s->spec.children[SM_CHILD_CORE].used && json_is_object(json_object_get(o, "network")))
        set_new(json_object_get(o, "network"), "publishes", sm_publishes_json(s->publishes));
    set_new(o, "pids", pids);
    set_new(o, "states", states);
    if (with_reports)
        set_new(o, "reports", reports);
    else
        json_decref(reports);
    char *dumped = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    text = g_strdup(dumped ? dumped : "{\"ok\": false, \"error\": \"no status\"}");
    free(dumped);
    return g_steal_pointer(&text);
}

static bool reports_due(const struct sm_supervisor *s)
{
    for (size_t i = 0; i < SM_CHILDREN; i++)
        if (is_alive(&s->children[i]) && s->children[i].asked > 0 && !s->children[i].report_fresh)
            return true;
    return false;
}

static void answer_askers(struct sm_supervisor *s)
{
    if (s->n_askers == 0)
        return;
    g_autofree char *text = status_text(s, true);
    size_t n = s->n_askers;
    s->n_askers = 0;
    sm_loop_disarm(s->loop, &s->report);
    for (size_t i = 0; i < n; i++)
        sm_control_reply(s->control, s->askers[i], text, false);
}

static void on_report_late(struct sm_timer *timer, int64_t now_us)
{
    answer_askers(sm_container_of(timer, struct sm_supervisor, report));
}

/* ---- publish and policy, as a client asks for them ---- */

/** {"ok": true, ...}, or with error {"ok": false, "error": ...}. Takes answer. */
static void reply_object(struct sm_supervisor *s, uint64_t client, json_t *answer, const char *error)
{
    json_t *o = answer && !error ? answer : json_object();

    set_new(o, "ok", json_boolean(!error));
    if (error) {
        g_autofree char *shown = shown_text(error);
        set_new(o, "error", json_string(shown));
        json_decref(answer);
    }
    char *text = json_dumps(o, JSON_COMPACT);
    sm_control_reply(s->control, client, text ? text : "{\"ok\": false, \"error\": \"no answer\"}", false);
    free(text);
    json_decref(o);
}

/** Why nothing can be asked of the core now; NULL: it can. */
static const char *core_is_away(const struct sm_supervisor *s)
{
    if (!s->spec.children[SM_CHILD_CORE].used)
        return "the workspace is isolated: it has no network";
    if (s->phase != PHASE_RUNNING || s->children[SM_CHILD_CORE].state != SM_CHILD_SERVING)
        return "the workspace is not running yet, or not any more";
    return NULL;
}

static void publish(struct sm_supervisor *s, uint64_t client, const char *text)
{
    g_autoptr(GError) error = NULL;
    struct sm_publish p;
    const char *away = core_is_away(s);

    if (away)
        sm_error_set(&error, SM_ERROR_INVALID, "%s", away);
    else if (s->spec.no_publish)
        sm_error_set(&error, SM_ERROR_INVALID, "the workspace is a proxy: it has no guest with ports to publish");
    else if (sm_publish_parse(text, &p, &error) && sm_publishes_add(s->publishes, &p, client, &error))
        return; /* answered in on_publish_settled() */
    if (error)
        reply_object(s, client, NULL, error->message);
}

static void unpublish(struct sm_supervisor *s, uint64_t client, const char *text)
{
    g_autoptr(GError) error = NULL;
    struct sm_publish p;
    const char *away = core_is_away(s);

    if (away)
        sm_error_set(&error, SM_ERROR_INVALID, "%s", away);
    else if (sm_publish_parse(text, &p, &error) && !sm_publishes_remove(s->publishes, &p))
        sm_error_set(&error, SM_ERROR_INVALID, "it is not published");
    if (error) {
        reply_object(s, client, NULL, error->message);
        return;
    }
    published(s);
    reply_object(s, client, json_pack("{s:o}", "publish", sm_publish_json(&p)), NULL);
}

static void on_publish_settled(void *data, uint64_t client, const struct sm_publish *p, const char *error)
{
    struct sm_supervisor *s = data;
    char text[SM_PUBLISH_STRLEN];

    if (client && !error)
        published(s);
    if (client)
        reply_object(s, client, json_pack("{s:o}", "publish", sm_publish_json(p)), error);
    else if (error) /* one that was asked for at the start */
        set_reason(s, "--publish=%s: %s", sm_publish_format(p, text), error);
    if (!client && error)
        begin_stop(s);
}

static int tell_core(void *data, enum sm_link_verb verb, const char *text, int fd)
{
    struct sm_supervisor *s = data;
    return sm_link_send(s->children[SM_CHILD_CORE].link, verb, text, fd);
}

static const struct sm_publishes_ops publish_ops = {.tell = tell_core, .settled = on_publish_settled};

/** New lists for the core; its answer comes in policy_settled(). @path NULL: the files of before. */
static void load_policy(struct sm_supervisor *s, uint64_t client, const char *path)
{
    const struct sm_policy_source *source = s->spec.policy;
    g_autoptr(GError) error = NULL;
    g_autofree char *lists = NULL;
    const char *away = core_is_away(s);

    if (away) {
        sm_error_set(&error, SM_ERROR_INVALID, "%s", away);
    } else if (!source) {
        sm_error_set(&error, SM_ERROR_INVALID, "this workspace has no policy that could be loaded again");
    } else if (s->policy_asked) {
        sm_error_set(&error, SM_ERROR_BUSY, "another policy is being loaded");
    } else if ((lists = source->load(source->data, path, &s->policy_counts, &error))) {
        sm_autofd fd = sm_fd_memfd("policy", lists, strlen(lists), &error);
        if (fd >= 0 && tell_core(s, SM_LINK_POLICY, NULL, fd) < 0)
            sm_error_set_errno(&error, errno, "the core does not take the policy");
        s->policy_asked = !error;
        s->policy_client = client;
        if (error)
            source->settled(source->data, false);
    }
    if (!error)
        return;
    if (lists)
        g_clear_pointer(&s->policy_counts, json_decref);
    reply_object(s, client, NULL, error->message);
}

static void policy_settled(struct sm_supervisor *s, const char *why)
{
    s->policy_asked = false;
    s->spec.policy->settled(s->spec.policy->data, !why[0]);
    reply_object(s, s->policy_client, g_steal_pointer(&s->policy_counts), why[0] ? why : NULL);
}

/* ---- the core's part of a snapshot ---- */

static json_t *snapshot_answer(const struct sm_supervisor *s, bool core)
{
    return json_pack("{s:b, s:O?}", "core", core, "settings", s->spec.settings);
}

/** The core writes into a memfd of ours, which goes to the client unread. It answers in the order of the questions. */
static void want_snapshot(struct sm_supervisor *s, uint64_t client)
{
    g_autoptr(GError) error = NULL;
    const char *away = core_is_away(s);
    sm_autofd fd = -1;

    if (!s->spec.children[SM_CHILD_CORE].used && s->phase == PHASE_RUNNING) {
        reply_object(s, client, snapshot_answer(s, false), NULL);
        return;
    }
    if (away)
        sm_error_set(&error, SM_ERROR_INVALID, "%s", away);
    else if (s->n_wanted == ASKERS_MAX)
        sm_error_set(&error, SM_ERROR_BUSY, "too many snapshots are being taken");
    else if ((fd = memfd_create("snapshot", MFD_CLOEXEC)) < 0)
        sm_error_set_errno(&error, errno, "memory for a snapshot");
    else if (tell_core(s, SM_LINK_SNAPSHOT, NULL, fd) < 0)
        sm_error_set_errno(&error, errno, "the core cannot be asked");
    if (error)
        reply_object(s, client, NULL, error->message);
    else
        s->wanted[s->n_wanted++] = (struct wanted){client, sm_steal_fd(&fd)};
}

static void snapshot_written(struct sm_supervisor *s, const char *why)
{
    sm_autofd fd = s->wanted[0].fd;
    uint64_t client = s->wanted[0].client;

    memmove(&s->wanted[0], &s->wanted[1], --s->n_wanted * sizeof(s->wanted[0]));
    if (!why[0])
        sm_control_attach(s->control, client, fd);
    reply_object(s, client, why[0] ? NULL : snapshot_answer(s, true), why[0] ? why : NULL);
}

static void snapshots_end(struct sm_supervisor *s)
{
    while (s->n_wanted > 0) {
        struct wanted w = s->wanted[--s->n_wanted];
        sm_fd_close(&w.fd);
        reply_object(s, w.client, NULL, "the workspace ended");
    }
}

static void on_control(void *data, uint64_t client, enum sm_control_verb verb, const char *argument)
{
    struct sm_supervisor *s = data;

    switch (verb) {
    case SM_CONTROL_STOP:
        sm_control_reply(s->control, client, "{\"ok\": true, \"state\": \"ending\"}", true);
        begin_ending(s, SIGTERM);
        return;
    case SM_CONTROL_STATUS:
        if (s->n_askers == ASKERS_MAX) { /* a client has one question out, but one that left may still stand here */
            sm_control_reply(s->control, client, "{\"ok\": false, \"error\": \"busy\"}", false);
            return;
        }
        s->askers[s->n_askers++] = client;
        if (s->n_askers > 1)
            return; /* the question is out already */
        for (size_t i = 0; i < SM_CHILDREN; i++) {
            struct child *c = &s->children[i];
            c->report_fresh = false;
            /* One question at a time to a child: one that never answers is not asked again. */
            if (c->role != SM_CHILD_GUEST && c->state == SM_CHILD_SERVING && c->asked == 0 &&
                sm_link_send(c->link, SM_LINK_STATUS, NULL, -1) == 0)
                c->asked++;
        }
        if (reports_due(s))
            sm_loop_arm(s->loop, &s->report, sm_clock_us() + SM_SUPERVISOR_REPORT_MS * 1000);
        else
            answer_askers(s);
        return;
    case SM_CONTROL_NETWORK: {
        g_autofree char *text = status_text(s, false);
        sm_control_reply(s->control, client, text, false);
        return;
    }
    case SM_CONTROL_PUBLISH:
        publish(s, client, argument);
        return;
    case SM_CONTROL_UNPUBLISH:
        unpublish(s, client, argument);
        return;
    case SM_CONTROL_POLICY:
    case SM_CONTROL_RELOAD:
        load_policy(s, client, argument);
        return;
    case SM_CONTROL_SNAPSHOT:
        want_snapshot(s, client);
        return;
    case SM_CONTROL_VERBS:
        return;
    }
}

/* ---- open by role ---- */

static void give(struct child *c, enum sm_open_role role, int fd)
{
    if (sm_link_send(c->link, SM_LINK_GIVE, sm_open_role_name(role), fd) < 0)
        sm_log_warning("the %s does not take %s: %s", sm_child_role_name(c->role), sm_open_role_name(role),
                       strerror(errno));
}

static void open_audit(struct child *c)
{
    struct sm_supervisor *s = c->sup;
    g_autoptr(GError) error = NULL;
    sm_autofd fd = -1;
    struct stat st;

    if (!sm_audit_is_current(s->spec.dirfd, s->audit_fd)) {
        fd = sm_audit_open(s->spec.dirfd, NULL, &error); /* somebody removed or renamed it: go on in a new one */
    } else if (fstat(s->audit_fd, &st) == 0 && (uint64_t)st.st_size >= s->spec.audit_max_bytes / ROTATE_SHARE) {
        fd = sm_audit_rotate(s->spec.dirfd, &error);
    } else {
        sm_log_error("the core asked for a rotation of an audit file that is not full: refused");
    }
    if (error)
        sm_log_error("audit of %s: %s", s->spec.name, error->message);
    give(c, SM_OPEN_AUDIT, fd);
    if (fd >= 0) {
        sm_fd_close(&s->audit_fd);
        s->audit_fd = sm_steal_fd(&fd);
    }
}

static void open_resolv(struct child *c)
{
    g_autoptr(GError) error = NULL;
    sm_autofd fd = -1;

    if (c->sup->resolv)
        fd = sm_resolv_watch_get(c->sup->resolv, &error);
    if (error)
        sm_log_warning("%s", error->message);
    give(c, SM_OPEN_RESOLV, fd);
}

static void open_roots(struct child *c)
{
    static char *const none[] = {NULL};
    g_autoptr(GError) error = NULL;
    sm_autofd fd = sm_roots_open(c->sup->spec.roots_paths ? c->sup->spec.roots_paths : none, NULL, &error);

    if (error)
        sm_log_warning("%s", error->message);
    give(c, SM_OPEN_ROOTS, fd);
}

/* The same, and behind it what the operator adds: for the fetch helper, which gets one file. */
static void open_fetchroots(struct child *c)
{
    static char *const none[] = {NULL};
    const struct sm_supervisor_spec *spec = &c->sup->spec;
    g_autoptr(GError) error = NULL;
    sm_autofd host = sm_roots_open(spec->roots_paths ? spec->roots_paths : none, NULL, &error);
    g_autoptr(GString) all = g_string_new(NULL);
    size_t len;

    if (host >= 0) {
        g_autofree char *text = sm_fd_read_all(host, SM_ROOTS_MAX, &len, NULL);
        if (text)
            g_string_append_len(all, text, (gssize)len);
    } else {
        sm_log_warning("%s", error->message);
    }
    g_string_append_printf(all, "\n%s", spec->extra_roots ? spec->extra_roots : "");
    sm_autofd fd = sm_fd_memfd("roots", all->str, all->len, NULL);
    give(c, SM_OPEN_FETCHROOTS, fd);
}

static void open_ref(struct child *c, unsigned index)
{
    const struct sm_supervisor_spec *spec = &c->sup->spec;
    const char *why = "ref_missing";
    sm_autofd fd = index < spec->n_refs ? sm_ref_open(&spec->refs[index], &why) : -1;
    g_autofree char *text =
        g_strdup_printf("%s:%u%s%s", sm_open_role_name(SM_OPEN_REF), index, fd < 0 ? " " : "", fd < 0 ? why : "");

    if (sm_link_send(c->link, SM_LINK_GIVE, text, fd) < 0)
        sm_log_warning("the core does not take a reference: %s", strerror(errno));
}

static void on_resolv_changed(void *data, int given)
{
    struct sm_supervisor *s = data;
    struct child *core = &s->children[SM_CHILD_CORE];
    sm_autofd fd = given;

    if (core->state == SM_CHILD_SERVING)
        give(core, SM_OPEN_RESOLV, fd);
}

/* ---- what children say, and their end ---- */

static void break_off(struct child *c, const char *fmt, ...) SM_PRINTF(2, 3);
static void break_off(struct child *c, const char *fmt, ...)
{
    struct sm_supervisor *s = c->sup;
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    set_reason(s, "the %s broke the protocol and was ended: %s", sm_child_role_name(c->role), text);
    sm_loop_unwatch(s->loop, &c->link_watch);
    kill_child(c);
    begin_stop(s);
}

static void on_vmm_gone(struct sm_supervisor *s, const char *what)
{
    sm_log_info("the VMM has gone (%s)", what);
    if (strcmp(what, SM_LISTEN_TAG_VSOCK) == 0) { /* the workspace stands and falls with the network card alone */
        if (s->listens)
            sm_listens_gone(s->listens, what);
    } else if (s->listens && s->spec.port_source == SM_PORT_LATER) {
        sm_listens_gone(s->listens, what);
    } else if (s->spec.port_source == SM_PORT_GIVEN && !s->spec.children[SM_CHILD_GUEST].used) {
        if (s->phase == PHASE_RUNNING)
            s->vmm_left = true;
        else
            set_reason(s, "the VMM left before the start was complete");
        begin_stop(s);
    }
}

/** CMD's trust is made while core and front come up. One that has ended already is told of by its own link. */
static void pass_ca(struct sm_supervisor *s, const char *hash)
{
    struct child *guest = &s->children[SM_CHILD_GUEST];

    if (s->phase != PHASE_STARTING || !is_alive(guest) || sm_link_send(guest->link, SM_LINK_CA, hash, -1) == 0 ||
        errno == EPIPE || errno == ECONNRESET)
        return;
    set_reason(s, "the guest does not take CA: %s", strerror(errno));
    begin_stop(s);
}

static void handle(struct child *c, enum sm_request_op op, struct sm_link_msg *msg)
{
    struct sm_supervisor *s = c->sup;
    enum sm_open_role role;
    unsigned index;

    switch (op) {
    case SM_REQUEST_CA:
        if (s->has_ca || !sm_request_ca_hash(msg->text)) {
            break_off(c, s->has_ca ? "a second CA" : "CA with a text that is no hash");
            return;
        }
        s->has_ca = true;
        pass_ca(s, msg->text);
        return;
    case SM_REQUEST_READY:
        if (c->state == SM_CHILD_STARTED)
            c->state = SM_CHILD_SERVING;
        go_when_ready(s);
        return;
    case SM_REQUEST_TAP:
        if ((msg->fd >= 0) != (s->spec.children[SM_CHILD_FRONT].used && s->spec.port_source == SM_PORT_OF_GUEST)) {
            break_off(c, "TAP %s", msg->fd >= 0 ? "although there is to be no network" : "without a descriptor");
            return;
        }
        if (msg->text[0] && (msg->fd < 0 || !sm_request_keeper_pid(msg->text, &s->keeper))) {
            break_off(c, "TAP with a text that is no process");
            return;
        }
        if (c->state == SM_CHILD_STARTED)
            c->state = SM_CHILD_SERVING;
        if (msg->fd >= 0 && s->phase == PHASE_STARTING) {
            GError *error = NULL;
            s->tap = sm_steal_fd(&msg->fd);
            if (start_front(s, s->tap, &error) < 0) {
                fail_start(s, error);
                return;
            }
        }
        go_when_ready(s);
        return;
    case SM_REQUEST_EXIT:
        if (!sm_request_exit_status(msg->text, &s->status)) {
            break_off(c, "EXIT with a text that is no status");
            return;
        }
        c->state = SM_CHILD_STOPPING;
        begin_stop(s);
        return;
    case SM_REQUEST_WANT:
        if (!sm_open_role_parse(msg->text, &role, &index)) {
            break_off(c, "WANT of something that there is not");
            return;
        }
        switch (role) {
        case SM_OPEN_AUDIT:
            open_audit(c);
            return;
        case SM_OPEN_RESOLV:
            open_resolv(c);
            return;
        case SM_OPEN_ROOTS:
            open_roots(c);
            return;
        case SM_OPEN_FETCHROOTS:
            open_fetchroots(c);
            return;
        case SM_OPEN_REF:
            open_ref(c, index);
            return;
        case SM_OPEN_ROLES:
            return;
        }
        return;
    case SM_REQUEST_FETCH:
        if (s->phase != PHASE_STOPPING && s->phase != PHASE_DONE)
            sm_fetchers_start(s->fetchers, msg->fd);
        return;
    case SM_REQUEST_LISTENERS:
        sm_publishes_listeners_known(s->publishes);
        go_when_ready(s);
        return;
    case SM_REQUEST_INGRESS:
        sm_publishes_taken(s->publishes);
        return;
    case SM_REQUEST_POLICY: {
        g_autofree char *text = child_text(msg->text);
        policy_settled(s, text);
        return;
    }
    case SM_REQUEST_SNAPSHOT: {
        g_autofree char *text = child_text(msg->text);
        snapshot_written(s, text);
        return;
    }
    case SM_REQUEST_PORT:
        if (strcmp(msg->text, SM_LISTEN_TAG_NET) != 0 && strcmp(msg->text, SM_LISTEN_TAG_VSOCK) != 0) {
            break_off(c, "PORT of something that there is not");
            return;
        }
        on_vmm_gone(s, msg->text);
        return;
    case SM_REQUEST_STATUS:
        c->asked--;
        c->report_fresh = true;
        g_free(c->report);
        c->report = shown_text(msg->text);
        if (!reports_due(s))
            answer_askers(s);
        return;
    case SM_REQUEST_FAIL: {
        g_autofree char *text = child_text(msg->text);
        s->reason_is_hearsay = !s->reason && s->phase != PHASE_STOPPING;
        if (s->phase == PHASE_STARTING && g_str_has_prefix(text, SM_LINK_FAIL_AS_IT_IS))
            set_reason(s, "%s", text);
        else if (s->phase == PHASE_STARTING)
            set_reason(s, "%s: %s", sm_child_role_name(c->role), text);
        else
            set_reason(s, "the %s failed: %s; the workspace was stopped", sm_child_role_name(c->role), text);
        begin_stop(s);
        return;
    }
    case SM_REQUEST_OPS:
        return;
    }
}

/** Answers to this verb that the child owes. */
static unsigned owed(const struct child *c, enum sm_link_verb verb)
{
    const struct sm_supervisor *s = c->sup;

    if (verb == SM_LINK_STATUS)
        return c->asked;
    if (c->role != SM_CHILD_CORE)
        return 0;
    if (verb == SM_LINK_SNAPSHOT)
        return (unsigned)s->n_wanted;
    return verb == SM_LINK_POLICY ? s->policy_asked : sm_publishes_owed(s->publishes, verb);
}

/** One message. Returns false when there is no more for now. */
static bool take_message(struct child *c)
{
    struct sm_link_msg msg;
    enum sm_request_op op;
    const char *why;

    int r = sm_link_recv(c->link, &msg);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (r < 0 && errno == ECONNRESET)
        return true; /* it ended without reading all that we sent; said once, and what it had to say comes behind */
    if (r < 0) {
        break_off(c, "a message that does not decode (%s)", strerror(errno));
        return false;
    }
    if (r <= 0) {
        /* It has ended, or soon will. */
        sm_loop_unwatch(c->sup->loop, &c->link_watch);
        sm_loop_arm(c->sup->loop, &c->linger, sm_clock_us() + LINGER_US);
        return false;
    }
    if (sm_request_find(c->role, c->state, &msg, owed(c, msg.verb), &op, &why))
        handle(c, op, &msg);
    else
        break_off(c, "%s %s (%s)", sm_link_verb_name(msg.verb), why, sm_child_state_name(c->state));
    sm_fd_close(&msg.fd);
    return c->link_watch.added;
}

static void on_link(struct sm_watch *watch, uint32_t events)
{
    (void)take_message(sm_container_of(watch, struct child, link_watch));
}

static void on_linger(struct sm_timer *timer, int64_t now_us)
{
    kill_child(sm_container_of(timer, struct child, linger));
}

static const char *describe_end(const siginfo_t *info, char out[64])
{
    if (info->si_code == CLD_EXITED)
        (void)g_snprintf(out, 64, "exit status %d", info->si_status);
    else
        (void)g_snprintf(out, 64, "signal %d, %s", info->si_status, strsignal(info->si_status));
    return out;
}

static void on_end(struct sm_watch *watch, uint32_t events)
{
    struct child *c = sm_container_of(watch, struct child, pid_watch);
    struct sm_supervisor *s = c->sup;
    siginfo_t info;
    char how[64];

    int r = sm_spawn_reap(c->pidfd, &info);
    if (r == 0)
        return;
    /* Its last words (EXIT, FAIL) may still wait. The number is bounded by the socket's queue. */
    while (c->link_watch.added && take_message(c))
        continue;
    if (c->words)
        sm_words_drain(c->words);
    sm_loop_unwatch(s->loop, &c->link_watch);
    sm_loop_unwatch(s->loop, &c->pid_watch);
    sm_loop_disarm(s->loop, &c->linger);
    sm_fd_close(&c->link);
    sm_fd_close(&c->pidfd);
    c->state = SM_CHILD_GONE;
    c->asked = 0;
    if (c->role == SM_CHILD_CORE)
        snapshots_end(s);
    if (r < 0) {
        set_reason(s, "lost sight of the %s: %s", sm_child_role_name(c->role), strerror(errno));
    } else {
        sm_log_debug("%s ended: %s", sm_child_role_name(c->role), describe_end(&info, how));
        if (c->role == SM_CHILD_GUEST && (info.si_code != CLD_EXITED || s->status < 0))
            s->guest_killed = true; /* what is inside may still be dying */
        bool crashed = info.si_code != CLD_EXITED && !c->killed && c->role != SM_CHILD_GUEST;
        if (crashed && s->reason_is_hearsay) { /* "the channel is gone", said the other one, faster */
            g_clear_pointer(&s->reason, g_free);
            s->reason = g_strdup_printf("the %s ended unexpectedly (%s); the workspace was stopped",
                                        sm_child_role_name(c->role), describe_end(&info, how));
            s->reason_is_hearsay = false;
        } else if (c->role == SM_CHILD_GUEST && s->phase == PHASE_ENDING && s->status < 0)
            s->status = 128 + s->end_signal;
        else {
            /* One that exits by itself has met the end of the other: whose death it was may be told yet. */
            if (!s->reason && s->phase != PHASE_STOPPING)
                s->reason_is_hearsay = !crashed && c->role != SM_CHILD_GUEST;
            set_reason(s, "the %s ended unexpectedly (%s); the workspace was stopped", sm_child_role_name(c->role),
                       describe_end(&info, how));
        }
    }
    if (!reports_due(s))
        answer_askers(s);
    begin_stop(s);
    stop_services(s);
    if (!any_alive(s) && s->phase != PHASE_DONE) {
        s->phase = PHASE_DONE;
        sm_loop_quit(s->loop, 0);
    }
}

/* ---- our own signals ---- */

static const int taken_signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};

static void on_signal(struct sm_watch *watch, uint32_t events)
{
    struct sm_supervisor *s = sm_container_of(watch, struct sm_supervisor, signal_watch);
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    int signo = (int)info.ssi_signo;
    bool from_terminal = info.ssi_code == SI_KERNEL; /* CMD has it too */
    switch (signo) {
    case SIGTERM:
    case SIGHUP:
        begin_ending(s, signo);
        return;
    default:
        if ((s->phase == PHASE_STARTING || !s->spec.children[SM_CHILD_GUEST].used) &&
            (signo == SIGINT || signo == SIGQUIT))
            begin_ending(s, signo);
        else if (!from_terminal && (s->phase == PHASE_RUNNING || s->phase == PHASE_ENDING))
            signal_guest(s, signo);
        return;
    }
}

/** Who started us says nothing; that it has gone is the end. */
static void on_owner(struct sm_watch *watch, uint32_t events)
{
    struct sm_supervisor *s = sm_container_of(watch, struct sm_supervisor, owner_watch);
    char ignored[64];
    ssize_t n = read(watch->fd, ignored, sizeof(ignored));

    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    sm_loop_unwatch(s->loop, watch);
    begin_ending(s, SIGTERM);
}

/** Take the signals over. What the caller ignored (nohup, a background job) stays ignored. */
static int take_signals(struct sm_supervisor *s, GError **error)
{
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < SM_ARRAY_LEN(taken_signals); i++) {
        struct sigaction sa;
        if (sigaction(taken_signals[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
            (void)sigaddset(&set, taken_signals[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, &s->old_mask) < 0 ||
        (s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0) {
        sm_error_set_errno(error, errno, "signalfd");
        return -1;
    }
    sm_watch_init(&s->signal_watch, s->signal_fd, on_signal);
    if (sm_loop_watch(s->loop, &s->signal_watch, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "watch signals");
        return -1;
    }
    return 0;
}

/* ---- the whole ---- */

static const struct sm_control_ops control_ops = {.request = on_control};

static int start(struct sm_supervisor *s, GError **error)
{
    const struct sm_supervisor_spec *spec = &s->spec;

    /* Orphans of a guest-init that was killed come to us, so that we can wait until the last of them is gone. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) {
        sm_error_set_errno(error, errno, "become a subreaper");
        return -1;
    }
    if (spec->take_signals && take_signals(s, error) < 0)
        return -1;
    if (spec->owner_given) {
        sm_watch_init(&s->owner_watch, spec->owner_fd, on_owner);
        if (sm_loop_watch(s->loop, &s->owner_watch, EPOLLIN | EPOLLRDHUP) < 0) {
            sm_error_set_errno(error, errno, "watch the owner's descriptor");
            return -1;
        }
    }
    s->control = sm_control_new(s->loop, spec->dirfd, &control_ops, s, error);
    if (!s->control)
        return -1;
    for (size_t i = 0; i < spec->n_publishes; i++) {
        char text[SM_PUBLISH_STRLEN];
        if (!sm_publishes_add(s->publishes, &spec->publishes[i], 0, error)) {
            g_prefix_error(error, "--publish=%s: ", sm_publish_format(&spec->publishes[i], text));
            return -1;
        }
    }
    if (spec->n_listens > 0 &&
        !(s->listens = sm_listens_new(s->loop, spec->listens, spec->n_listens, &listens_ops, s, error)))
        return -1;
    if (spec->children[SM_CHILD_CORE].used) {
        struct child *core = &s->children[SM_CHILD_CORE], *front = &s->children[SM_CHILD_FRONT];
        int channel[2];
        if (sm_fd_seqpair(channel, true) < 0) {
            sm_error_set_errno(error, errno, "socket pair for the channel");
            return -1;
        }
        sm_autofd core_end = channel[0];
        front->channel = channel[1];
        s->audit_fd = fcntl(spec->audit_fd, F_DUPFD_CLOEXEC, 3);
        if (s->audit_fd < 0) {
            sm_error_set_errno(error, errno, "duplicate the audit file's descriptor");
            return -1;
        }
        if (spawn_child(core,
                        (struct more_fds){
                            {core_end, s->audit_fd, spec->ca_key_fd, spec->ca_cert_fd, spec->counters_fd, -1, -1}},
                        error) < 0)
            return -1;
    }
    /* The guest first: what it has to do is longer than the front's. */
    if (spec->children[SM_CHILD_GUEST].used) {
        struct more_fds more = {{-1, -1, spec->ca_guest_fd, -1, -1, -1, -1}};
        memcpy(more.fd + (SM_GUEST_MORE_FD - SM_CHANNEL_FD), spec->guest_more, spec->n_guest_more * sizeof(int));
        if (spawn_child(&s->children[SM_CHILD_GUEST], more, error) < 0)
            return -1;
    }
    if (spec->children[SM_CHILD_CORE].used) {
        if (spec->port_source != SM_PORT_OF_GUEST &&
            start_front(s, spec->port_source == SM_PORT_GIVEN ? spec->port_fd : -1, error) < 0)
            return -1;
        if (!sm_publishes_begin(s->publishes)) {
            sm_error_set_errno(error, errno, "tell the core what is published");
            return -1;
        }
    }
    if (spec->resolv_path && spec->children[SM_CHILD_CORE].used) {
        g_autoptr(GError) local = NULL;
        s->resolv = sm_resolv_watch_new(s->loop, spec->resolv_path, spec->resolv_text, on_resolv_changed, s, &local);
        if (!s->resolv)
            sm_log_warning("changes of %s will not be followed: %s", spec->resolv_path, local->message);
    }
    arm_deadline(s, ms_or(spec->start_ms, SM_SUPERVISOR_START_MS));
    return 0;
}

struct sm_supervisor *sm_supervisor_new(const struct sm_supervisor_spec *spec, GError **error)
{
    struct sm_loop *loop = sm_loop_new(error);
    if (!loop)
        return NULL;
    g_assert(spec->children[SM_CHILD_GUEST].used ||
             (spec->children[SM_CHILD_CORE].used && spec->port_source != SM_PORT_OF_GUEST));
    g_assert(spec->n_guest_more <= SM_GUEST_MORE_MAX);
    g_assert(spec->children[SM_CHILD_CORE].used == spec->children[SM_CHILD_FRONT].used);
    g_assert(spec->n_publishes == 0 || spec->children[SM_CHILD_CORE].used);

    struct sm_supervisor *s = g_new0(struct sm_supervisor, 1);
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    s->spec = *spec;
    s->loop = loop;
    s->audit_fd = s->tap = s->signal_fd = -1;
    s->keeper = spec->keeper;
    s->status = -1;
    s->publishes = sm_publishes_new(loop, &publish_ops, s);
    s->fetchers = sm_fetchers_new(loop, spec->exe, spec->children[SM_CHILD_CORE].envp);
    s->started_at = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    (void)sigprocmask(SIG_SETMASK, NULL, &s->old_mask);
    sm_timer_init(&s->deadline, on_deadline);
    sm_timer_init(&s->report, on_report_late);
    sm_watch_init(&s->signal_watch, -1, on_signal);
    sm_watch_init(&s->owner_watch, -1, on_owner);
    for (size_t i = 0; i < SM_CHILDREN; i++) {
        struct child *c = &s->children[i];
        c->sup = s;
        c->role = (enum sm_child_role)i;
        c->pidfd = c->link = c->channel = -1;
        sm_watch_init(&c->link_watch, -1, on_link);
        sm_watch_init(&c->pid_watch, -1, on_end);
        sm_timer_init(&c->linger, on_linger);
    }
    if (start(s, error) < 0) {
        sm_supervisor_free(s);
        return NULL;
    }
    return s;
}

/** Wait for what a killed guest-init left: its processes get SIGKILL from the kernel one after the other. */
static void wait_for_orphans(void)
{
    int64_t until = sm_clock_us() + ORPHANS_US;

    while (sm_clock_us() < until) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0 && errno == ECHILD)
            return;
        if (pid == 0)
            g_usleep(1000); /* only here, when everything else is over: nobody waits for us */
    }
    sm_log_warning("processes of the workspace have not ended yet");
}

/** The keeper of the kernel path ends with the front, and is ours since guest-init ended: it is to be gone when we say
 * that all is over. */
static void wait_for_keeper(pid_t pid)
{
    sm_autofd fd = pidfd_open(pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (waitpid(pid, NULL, WNOHANG) != 0)
        return;
    if (fd >= 0)
        (void)poll(&p, 1, (int)(ORPHANS_US / 1000));
    if (waitpid(pid, NULL, WNOHANG) == 0)
        sm_log_warning("the workspace's keeper (pid %d) has not ended yet", (int)pid);
}

void sm_supervisor_run(struct sm_supervisor *s, struct sm_supervisor_result *ret)
{
    if (s->phase != PHASE_DONE && sm_loop_run(s->loop) < 0) {
        set_reason(s, "epoll: %s", strerror(errno));
        for (size_t i = 0; i < SM_CHILDREN; i++)
            kill_child(&s->children[i]);
    }
    if (s->guest_killed)
        wait_for_orphans();
    else if (s->keeper > 0 && s->keeper != s->spec.keeper) /* that one is its starter's to end */
        wait_for_keeper(s->keeper);
    ret->started = s->went;
    ret->end_signal = s->end_signal;
    if (s->reason && !s->end_signal)
        ret->status = SM_SUPERVISOR_FAILED; /* whatever CMD made of its sudden end */
    else if (s->status >= 0)
        ret->status = s->status;
    else if (s->went && !s->spec.children[SM_CHILD_GUEST].used && (s->end_signal || s->vmm_left))
        ret->status = 0; /* there is no command whose end could be told: this was the orderly end */
    else
        ret->status = s->end_signal ? 128 + s->end_signal : SM_SUPERVISOR_FAILED;
    ret->reason = g_steal_pointer(&s->reason);
}

int sm_supervisor_connect(struct sm_supervisor *s, const char *what, int fd)
{
    const struct child *front = &s->children[SM_CHILD_FRONT];

    if (front->state != SM_CHILD_SERVING) {
        errno = ENOTCONN;
        return -1;
    }
    return sm_link_send(front->link, SM_LINK_PORT, what, fd);
}

pid_t sm_supervisor_pid(const struct sm_supervisor *s, enum sm_child_role role)
{
    return is_alive(&s->children[role]) ? s->children[role].pid : 0;
}

void sm_supervisor_free(struct sm_supervisor *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < SM_CHILDREN; i++) {
        struct child *c = &s->children[i];
        kill_child(c);
        if (is_alive(c)) {
            while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
                continue;
        }
        sm_loop_unwatch(s->loop, &c->link_watch);
        sm_loop_unwatch(s->loop, &c->pid_watch);
        sm_loop_disarm(s->loop, &c->linger);
        sm_fd_close(&c->link);
        sm_fd_close(&c->pidfd);
        sm_fd_close(&c->channel);
        sm_words_free(c->words);
        g_free(c->report);
    }
    for (size_t i = 0; i < s->n_wanted; i++)
        sm_fd_close(&s->wanted[i].fd);
    sm_listens_free(s->listens);
    sm_fetchers_free(s->fetchers);
    sm_publishes_free(s->publishes);
    json_decref(s->policy_counts);
    sm_resolv_watch_free(s->resolv);
    sm_control_free(s->control);
    if (s->signal_fd >= 0) {
        sm_loop_unwatch(s->loop, &s->signal_watch);
        /* They stay blocked: a second SIGTERM, or the first one when all was over by itself, must not cut off what the process
         * has yet to put in order, nor make a signal's death of its exit status. */
        sm_fd_close(&s->signal_fd);
    }
    sm_loop_unwatch(s->loop, &s->owner_watch);
    sm_loop_disarm(s->loop, &s->deadline);
    sm_loop_disarm(s->loop, &s->report);
    sm_fd_close(&s->audit_fd);
    sm_fd_close(&s->tap);
    sm_loop_free(s->loop);
    g_free(s->started_at);
    g_free(s->reason);
    g_free(s);
}
