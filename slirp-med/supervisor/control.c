/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket's server and client; see control.h. */
#include "supervisor/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

/** After accept(2) failed for want of descriptors or memory: look again then, instead of spinning. */
#define ACCEPT_PAUSE_US G_USEC_PER_SEC

static const char *const verb_names[] = {
    [SM_CONTROL_STATUS] = "status",   [SM_CONTROL_NETWORK] = "network",     [SM_CONTROL_STOP] = "stop",
    [SM_CONTROL_PUBLISH] = "publish", [SM_CONTROL_UNPUBLISH] = "unpublish", [SM_CONTROL_POLICY] = "policy",
    [SM_CONTROL_RELOAD] = "reload",   [SM_CONTROL_SNAPSHOT] = "snapshot",
};
SM_NAME_TABLE_COVERS(verb_names, SM_CONTROL_VERBS);

static bool has_argument(enum sm_control_verb verb)
{
    switch (verb) {
    case SM_CONTROL_PUBLISH:
    case SM_CONTROL_UNPUBLISH:
    case SM_CONTROL_POLICY:
        return true;
    case SM_CONTROL_STATUS:
    case SM_CONTROL_NETWORK:
    case SM_CONTROL_STOP:
    case SM_CONTROL_RELOAD:
    case SM_CONTROL_SNAPSHOT:
    case SM_CONTROL_VERBS:
        break;
    }
    return false;
}

enum client_state { CLIENT_READS, CLIENT_WAITS, CLIENT_TAKES, CLIENT_STAYS };

struct client {
    struct sm_control *control;
    uint64_t id; /* 0: free slot */
    int fd;
    enum client_state state;
    bool stay;
    int give; /* goes with the first byte of out; -1: nothing */
    struct sm_watch watch;
    struct sm_timer timer;
    size_t n_line;
    char line[SM_CONTROL_LINE_MAX];
    struct sm_buf out;
};

struct sm_control {
    struct sm_loop *loop;
    const struct sm_control_ops *ops;
    void *data;
    int dirfd; /* ours */
    int listener;
    struct sm_watch watch;
    struct sm_timer pause;
    uint64_t last_id;
    struct client clients[SM_CONTROL_CLIENTS_MAX];
};

const char *sm_control_verb_name(enum sm_control_verb verb)
{
    return (unsigned)verb < SM_CONTROL_VERBS ? verb_names[verb] : "invalid";
}

static socklen_t control_address(int dirfd, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    (void)g_snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/" SM_CONTROL_SOCKET, dirfd);
    return sizeof(*ret);
}

static void client_drop(struct client *c)
{
    sm_loop_unwatch(c->control->loop, &c->watch);
    sm_loop_disarm(c->control->loop, &c->timer);
    sm_fd_close(&c->fd);
    sm_fd_close(&c->give);
    sm_buf_clear(&c->out);
    c->id = 0;
}

static void client_on_timer(struct sm_timer *timer, int64_t now_us)
{
    client_drop(sm_container_of(timer, struct client, timer));
}

/** Watch for what the client's state needs; a client that waits for us is watched for its end only. */
static void client_arm(struct client *c, enum client_state state)
{
    static const uint32_t events[] = {
        [CLIENT_READS] = EPOLLIN, [CLIENT_WAITS] = 0, [CLIENT_TAKES] = EPOLLOUT, [CLIENT_STAYS] = 0};
    struct sm_loop *loop = c->control->loop;

    c->state = state;
    if (sm_loop_watch(loop, &c->watch, events[state]) < 0) {
        client_drop(c);
        return;
    }
    if (state == CLIENT_READS || state == CLIENT_TAKES)
        sm_loop_arm(loop, &c->timer, sm_clock_us() + SM_CONTROL_TIMEOUT_US);
    else
        sm_loop_disarm(loop, &c->timer);
}

static void client_read(struct client *c);

/** Some of out, with the descriptor that belongs to its beginning. */
static ssize_t client_send(struct client *c)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec data = {(void *)(uintptr_t)sm_buf_peek(&c->out), c->out.len};
    struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};

    if (c->give >= 0) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof(control.room);
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &c->give, sizeof(int));
    }
    ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        sm_fd_close(&c->give);
    return n;
}

static void client_flush(struct client *c)
{
    while (c->out.len > 0) {
        ssize_t n = client_send(c);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (c->state != CLIENT_TAKES) /* the time-out counts from the first byte that waits */
                client_arm(c, CLIENT_TAKES);
            return;
        }
        if (n < 0) {
            client_drop(c);
            return;
        }
        sm_buf_consume(&c->out, (size_t)n);
    }
    client_arm(c, c->stay ? CLIENT_STAYS : CLIENT_READS);
}

static void client_answer(struct client *c, const char *json)
{
    if (!sm_buf_append(&c->out, json, strlen(json)) || !sm_buf_append(&c->out, "\n", 1)) {
        client_drop(c);
        return;
    }
    client_flush(c);
}

/** One whole line (NUL-terminated, newline cut). */
static void client_line(struct client *c)
{
    char *blank = strchr(c->line, ' ');
    const char *argument = blank && blank[1] ? blank + 1 : NULL;

    if (blank)
        *blank = '\0';
    for (unsigned v = 0; v < SM_CONTROL_VERBS; v++) {
        enum sm_control_verb verb = (enum sm_control_verb)v;
        if (strcmp(c->line, verb_names[v]) != 0 || has_argument(verb) != (argument != NULL) ||
            has_argument(verb) != (blank != NULL))
            continue;
        client_arm(c, CLIENT_WAITS);
        if (c->id != 0)
            c->control->ops->request(c->control->data, c->id, verb, argument);
        return;
    }
    client_answer(c, "{\"ok\": false, \"error\": \"unknown request; known: status, network, stop, publish SPEC, "
                     "unpublish SPEC, policy PATH, reload, snapshot\"}");
}

static void client_read(struct client *c)
{
    /* What is behind the newline is refused: one request, one answer. */
    ssize_t n = recv(c->fd, c->line + c->n_line, sizeof(c->line) - c->n_line, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_drop(c);
        return;
    }
    c->n_line += (size_t)n;
    char *end = memchr(c->line, '\n', c->n_line);
    if (!end) {
        if (c->n_line == sizeof(c->line))
            client_drop(c);
        return;
    }
    if (end != c->line + c->n_line - 1 || memchr(c->line, '\0', c->n_line)) {
        client_drop(c);
        return;
    }
    *end = '\0';
    c->n_line = 0;
    client_line(c);
}

static void client_on_event(struct sm_watch *watch, uint32_t events)
{
    struct client *c = sm_container_of(watch, struct client, watch);

    switch (c->state) {
    case CLIENT_READS:
        client_read(c);
        return;
    case CLIENT_TAKES:
        if (events & (EPOLLERR | EPOLLHUP))
            client_drop(c);
        else
            client_flush(c);
        return;
    case CLIENT_WAITS:
    case CLIENT_STAYS:
        if (events & (EPOLLERR | EPOLLHUP))
            client_drop(c);
        return;
    }
}

static void control_on_pause(struct sm_timer *timer, int64_t now_us)
{
    struct sm_control *control = sm_container_of(timer, struct sm_control, pause);
    (void)sm_loop_watch(control->loop, &control->watch, EPOLLIN);
}

static bool peer_is_owner(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && len == sizeof(cred) && cred.uid == geteuid();
}

static void control_on_accept(struct sm_watch *watch, uint32_t events)
{
    static const char busy[] = "{\"ok\": false, \"error\": \"busy: too many control clients\"}\n";
    struct sm_control *control = sm_container_of(watch, struct sm_control, watch);
    sm_autofd fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            sm_loop_unwatch(control->loop, &control->watch);
            sm_loop_arm(control->loop, &control->pause, sm_clock_us() + ACCEPT_PAUSE_US);
        }
        return;
    }
    if (!peer_is_owner(fd)) {
        sm_log_warning("control socket: a client of another user was turned away");
        return;
    }
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++) {
        struct client *c = &control->clients[i];
        if (c->id != 0)
            continue;
        c->control = control;
        c->id = ++control->last_id;
        c->fd = sm_steal_fd(&fd);
        c->stay = false;
        c->n_line = 0;
        sm_buf_init(&c->out, SM_CONTROL_REPLY_MAX);
        sm_watch_init(&c->watch, c->fd, client_on_event);
        sm_timer_init(&c->timer, client_on_timer);
        client_arm(c, CLIENT_READS);
        return;
    }
    (void)!send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void sm_control_remove_stale(int dirfd)
{
    struct stat st;
    if (fstatat(dirfd, SM_CONTROL_SOCKET, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
        (void)unlinkat(dirfd, SM_CONTROL_SOCKET, 0);
}

struct sm_control *sm_control_new(struct sm_loop *loop, int dirfd, const struct sm_control_ops *ops, void *data,
                                  GError **error)
{
    struct sockaddr_un address;
    sm_autofd dir = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
    sm_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (dir < 0 || fd < 0) {
        sm_error_set_errno(error, errno, "control socket");
        return NULL;
    }
    sm_control_remove_stale(dir);
    socklen_t len = control_address(dir, &address);
    mode_t old = umask(0177);
    int r = bind(fd, (const struct sockaddr *)&address, len);
    int saved = errno;
    (void)umask(old);
    if (r < 0) {
        sm_error_set_errno(error, saved, "bind the control socket " SM_CONTROL_SOCKET);
        return NULL;
    }
    if (listen(fd, SM_CONTROL_CLIENTS_MAX) < 0) {
        sm_error_set_errno(error, errno, "listen on the control socket " SM_CONTROL_SOCKET);
        sm_control_remove_stale(dir);
        return NULL;
    }
    struct sm_control *control = g_new0(struct sm_control, 1);
    control->loop = loop;
    control->ops = ops;
    control->data = data;
    control->dirfd = sm_steal_fd(&dir);
    control->listener = sm_steal_fd(&fd);
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++)
        control->clients[i].fd = control->clients[i].give = -1;
    sm_watch_init(&control->watch, control->listener, control_on_accept);
    sm_timer_init(&control->pause, control_on_pause);
    if (sm_loop_watch(loop, &control->watch, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "watch the control socket");
        sm_control_free(control);
        return NULL;
    }
    return control;
}

void sm_control_free(struct sm_control *control)
{
    if (!control)
        return;
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++)
        if (control->clients[i].id != 0)
            client_drop(&control->clients[i]);
    sm_loop_unwatch(control->loop, &control->watch);
    sm_loop_disarm(control->loop, &control->pause);
    sm_control_remove_stale(control->dirfd);
    sm_fd_close(&control->listener);
    sm_fd_close(&control->dirfd);
    g_free(control);
}

void sm_control_reply(struct sm_control *control, uint64_t client, const char *json, bool stay)
{
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++) {
        struct client *c = &control->clients[i];
        if (client == 0 || c->id != client)
            continue;
        c->stay = stay;
        client_answer(c, json);
        return;
    }
}

void sm_control_attach(struct sm_control *control, uint64_t client, int fd)
{
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++) {
        struct client *c = &control->clients[i];
        if (client != 0 && c->id == client)
            c->give = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* without it the client finds none, and says so */
    }
}

unsigned sm_control_clients(const struct sm_control *control)
{
    unsigned n = 0;
    for (size_t i = 0; i < SM_CONTROL_CLIENTS_MAX; i++)
        n += control->clients[i].id != 0;
    return n;
}

int sm_control_connect(int dirfd, int timeout_ms)
{
    struct sockaddr_un address;
    sm_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (timeout_ms < 0 ? SOCK_NONBLOCK : 0), 0);
    int ms = SM_MAX(timeout_ms, 0);
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0)
        return -1;
    socklen_t len = control_address(dirfd, &address);
    if (connect(fd, (const struct sockaddr *)&address, len) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

char *sm_control_ask(int sock, enum sm_control_verb verb, GError **error)
{
    return sm_control_ask_about(sock, verb, NULL, error);
}

/** recv(2) that takes the one descriptor there may be. */
static ssize_t take_with(int sock, char *buf, size_t cap, int *fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {buf, cap};
    struct msghdr msg = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int))) {
        sm_autofd got = -1;
        memcpy(&got, CMSG_DATA(h), sizeof(int));
        if (*fd < 0)
            *fd = sm_steal_fd(&got);
    }
    return n;
}

static char *ask(int sock, enum sm_control_verb verb, const char *argument, int *fd, GError **error);

char *sm_control_ask_about(int sock, enum sm_control_verb verb, const char *argument, GError **error)
{
    sm_autofd ignored = -1;
    return ask(sock, verb, argument, &ignored, error);
}

char *sm_control_ask_for(int sock, enum sm_control_verb verb, int *ret_fd, GError **error)
{
    sm_autofd fd = -1;
    char *line = ask(sock, verb, NULL, &fd, error);

    if (line)
        *ret_fd = sm_steal_fd(&fd);
    return line;
}

static char *ask(int sock, enum sm_control_verb verb, const char *argument, int *fd, GError **error)
{
    g_autofree char *line =
        argument ? g_strconcat(verb_names[verb], " ", argument, "\n", NULL) : g_strconcat(verb_names[verb], "\n", NULL);
    g_autoptr(GString) answer = g_string_new(NULL);
    char buf[4096];

    if (strlen(line) > SM_CONTROL_LINE_MAX || (argument && (!argument[0] || strchr(argument, '\n')))) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: its argument is empty, too long or has a newline", verb_names[verb]);
        return NULL;
    }
    if (send(sock, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
        sm_error_set_errno(error, errno, "ask for %s", verb_names[verb]);
        return NULL;
    }
    for (;;) {
        ssize_t n = take_with(sock, buf, sizeof(buf), fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            sm_error_set_errno(error, errno == EAGAIN ? ETIMEDOUT : errno, "no answer to %s", verb_names[verb]);
            return NULL;
        }
        if (n == 0) {
            sm_error_set(error, SM_ERROR_SYSTEM, "no answer to %s: the workspace ended", verb_names[verb]);
            return NULL;
        }
        g_string_append_len(answer, buf, n);
        char *end = memchr(answer->str, '\n', answer->len);
        if (end) {
            g_string_truncate(answer, (gsize)(end - answer->str));
            return g_string_free(g_steal_pointer(&answer), FALSE);
        }
        if (answer->len > SM_CONTROL_REPLY_MAX) {
            sm_error_set(error, SM_ERROR_LIMIT, "the answer to %s is longer than %u bytes", verb_names[verb],
                         SM_CONTROL_REPLY_MAX);
            return NULL;
        }
    }
}

void sm_control_decode_status(json_t *status)
{
    json_t *reports = json_object_get(status, "reports"), *report;
    const char *role;
    void *next;

    json_object_foreach_safe(reports, next, role, report)
    {
        json_t *decoded = json_is_string(report) ? json_loads(json_string_value(report), 0, NULL) : NULL;
        if (decoded)
            (void)json_object_set_new(reports, role, decoded);
    }
    json_t *ready = json_object_get(json_object_get(reports, "core"), "mediationReady");
    if (ready)
        (void)json_object_set(status, "mediationReady", ready);
}
