/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets that VMMs come to, or that go to them; see listens.h. */
#include "supervisor/listens.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

static const char *const kind_names[] = {
    [SM_LISTEN_UNIX] = "unix", [SM_LISTEN_TCP] = "tcp", [SM_LISTEN_DGRAM] = "dgram"};
SM_NAME_TABLE_COVERS(kind_names, SM_LISTEN_KINDS);

/** "/proc/self/fd/" and the number of a descriptor, '/', in front of a name in sun_path. */
#define NAME_MAX_LEN (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/proc/self/fd/2147483647/"))

/** A name in a folder that is held open. */
struct place {
    int dirfd;
    const char *name; /* the end of the spec's path */
};

/** Which file it was. The number of one that we hold open is nobody else's; of others it may come again, so the time says more. */
struct identity {
    dev_t dev;
    ino_t ino;
    struct timespec ctime;
};

struct row {
    struct sm_listens *all;
    struct sm_listen_spec spec;
    struct place place, peer;
    bool bound; /* the name at `place` is `own` */
    struct identity own;
    int fd; /* that listens, or connects just now; the dgram socket */
    struct sm_watch watch;
    struct sm_timer timer; /* client, dgram: the next attempt; a listener: the end of a pause */
    int64_t delay_us;
    int64_t since_us; /* when a connection was handed over last; 0: never */
    bool taken;       /* single */
    int held;         /* single: who comes next */
    struct sm_timer hold;
    bool said_refused, said_stranger; /* said once, until things change */
    bool peer_known;
    struct identity peer_was; /* that the dgram socket is connected to */
};

struct sm_listens {
    struct sm_loop *loop;
    const struct sm_listens_ops *ops;
    void *data;
    size_t n;
    bool started;
    struct row rows[];
};

const char *sm_listen_kind_name(enum sm_listen_kind kind)
{
    return (unsigned)kind < SM_LISTEN_KINDS ? kind_names[kind] : "invalid";
}

static bool is_loopback(const struct sm_addr *a)
{
    static const struct sm_addr one = {.family = SM_FAMILY_V6, .bytes = {[15] = 1}};
    return a->family == SM_FAMILY_V4 ? a->bytes[0] == 127 : sm_addr_equal(a, &one);
}

/** For messages: where it is. */
static const char *where(const struct row *row, char out[SM_ENDPOINT_STRLEN])
{
    return row->spec.kind == SM_LISTEN_TCP ? sm_endpoint_format(&row->spec.endpoint, out) : row->spec.path;
}

static bool check_path(const char *path, GError **error)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    if (!slash || path[0] != '/' || slash[1] == '\0' || strcmp(slash, "/.") == 0 || strcmp(slash, "/..") == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: not the path of a socket: give a file's name", path ? path : "");
        return false;
    }
    if (strlen(slash + 1) > NAME_MAX_LEN) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: the name of a socket may have at most %zu bytes", path,
                     NAME_MAX_LEN);
        return false;
    }
    return true;
}

bool sm_listens_check(const struct sm_listen_spec *spec, GError **error)
{
    char text[SM_ENDPOINT_STRLEN];

    switch (spec->kind) {
    case SM_LISTEN_UNIX:
        return check_path(spec->path, error);
    case SM_LISTEN_DGRAM:
        if (!check_path(spec->path, error) || !check_path(spec->peer, error))
            return false;
        if (strcmp(spec->path, spec->peer) != 0)
            return true;
        sm_error_set(error, SM_ERROR_INVALID, "%s: both ends cannot have one path", spec->path);
        return false;
    case SM_LISTEN_TCP:
        if (is_loopback(&spec->endpoint.addr) && spec->endpoint.port != 0)
            return true;
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s: not a port of a loopback address: frames are neither encrypted nor authenticated, so write "
                     "127.0.0.1:PORT or [::1]:PORT",
                     sm_endpoint_format(&spec->endpoint, text));
        return false;
    case SM_LISTEN_KINDS:
        break;
    }
    return false;
}

/* ---- paths ---- */

static socklen_t place_address(const struct place *p, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    (void)g_snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", p->dirfd, p->name);
    return sizeof(*ret);
}

static bool place_stat(const struct place *p, struct stat *ret)
{
    return fstatat(p->dirfd, p->name, ret, AT_SYMLINK_NOFOLLOW) == 0;
}

static struct identity identity_of(const struct stat *st)
{
    return (struct identity){st->st_dev, st->st_ino, st->st_ctim};
}

static bool same_file(const struct identity *a, const struct stat *st)
{
    return a->dev == st->st_dev && a->ino == st->st_ino;
}

static bool same_time(const struct identity *a, const struct stat *st)
{
    return a->ctime.tv_sec == st->st_ctim.tv_sec && a->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

static int open_place(const char *path, struct place *ret, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    struct stat st;
    sm_autofd fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: folder %s: %s", path, folder, strerror(errno));
        return -1;
    }
    if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)) { /* they would get the VMM's frames, or ours */
        sm_error_set(error, SM_ERROR_INVALID,
                     "%s: everybody may exchange files in %s: chmod o-w it, or use another folder", path, folder);
        return -1;
    }
    ret->dirfd = sm_steal_fd(&fd);
    ret->name = strrchr(path, '/') + 1;
    return 0;
}

/** Somebody may be behind the name that is in the way. Returns 0 when it was removed, -1 with error. */
static int remove_stale(const struct row *row, int type, GError **error)
{
    const struct place *p = &row->place;
    struct sockaddr_un address;
    struct stat st, again;
    sm_autofd probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (!place_stat(p, &st))
        return 0; /* it went by itself */
    if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid()) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: there is %s already: remove it, or give another path",
                     row->spec.path, S_ISSOCK(st.st_mode) ? "another user's socket" : "something that is no socket");
        return -1;
    }
    socklen_t len = place_address(p, &address);
    if (probe < 0 || connect(probe, (const struct sockaddr *)&address, len) == 0 || errno != ECONNREFUSED) {
        sm_error_set(error, SM_ERROR_BUSY, "%s: in use by another program", row->spec.path);
        return -1;
    }
    if (place_stat(p, &again) && again.st_ino == st.st_ino && unlinkat(p->dirfd, p->name, 0) < 0) {
        sm_error_set_errno(error, errno, "%s: remove an old socket", row->spec.path);
        return -1;
    }
    return 0;
}

static int bind_path(struct row *row, int fd)
{
    struct sockaddr_un address;
    socklen_t len = place_address(&row->place, &address);
    mode_t old = umask(0177);
    int r = bind(fd, (const struct sockaddr *)&address, len);
    int saved = errno;

    (void)umask(old);
    errno = saved;
    return r;
}

static void unbind(struct row *row)
{
    struct stat st;

    if (row->bound && place_stat(&row->place, &st) && same_file(&row->own, &st))
        (void)unlinkat(row->place.dirfd, row->place.name, 0);
    row->bound = false;
}

/** Bind, and listen if it is a stream: under a lock of the folder, since one that is bound and does not listen yet looks
 * stale to another start. */
static int open_named(struct row *row, int type, GError **error)
{
    struct stat st;
    sm_autofd fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        sm_error_set_errno(error, errno, "%s: socket", row->spec.path);
        return -1;
    }
    /* Who holds it may hold it for ever, for reasons of its own: then we go on without. */
    (void)flock(row->place.dirfd, LOCK_EX | LOCK_NB);
    int r = bind_path(row, fd);
    if (r < 0 && errno == EADDRINUSE) {
        if (remove_stale(row, type, error) < 0)
            return -1;
        r = bind_path(row, fd);
    }
    if (r < 0 || !place_stat(&row->place, &st)) {
        sm_error_set_errno(error, errno, "%s: bind", row->spec.path);
        return -1;
    }
    row->own = identity_of(&st);
    row->bound = true;
    if (type == SOCK_STREAM && listen(fd, SM_LISTENS_BACKLOG) < 0) {
        sm_error_set_errno(error, errno, "%s: listen", row->spec.path);
        return -1;
    }
    (void)flock(row->place.dirfd, LOCK_UN);
    row->fd = sm_steal_fd(&fd);
    return 0;
}

static int open_tcp(struct row *row, GError **error)
{
    char text[SM_ENDPOINT_STRLEN];
    struct sockaddr_storage address;
    socklen_t len = sm_endpoint_to_sockaddr(&row->spec.endpoint, &address);
    const int on = 1;
    sm_autofd fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* Connections of the last run may still be in TIME_WAIT. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0) {
        sm_error_set_errno(error, errno, "%s: socket", sm_endpoint_format(&row->spec.endpoint, text));
        return -1;
    }
    if (bind(fd, (const struct sockaddr *)&address, len) < 0 || listen(fd, SM_LISTENS_BACKLOG) < 0) {
        int err = errno;
        (void)sm_endpoint_format(&row->spec.endpoint, text);
        if (err == EADDRINUSE)
            sm_error_set(error, SM_ERROR_BUSY, "%s: in use by another program", text);
        else
            sm_error_set_errno(error, err, "%s: listen", text);
        return -1;
    }
    row->fd = sm_steal_fd(&fd);
    return 0;
}

/* ---- letting in ---- */

/** The peer is one that may be served; says once why not. */
static bool may_enter(struct row *row, int fd)
{
    char text[SM_ENDPOINT_STRLEN];
    struct sockaddr_storage address = {0};
    struct sm_endpoint peer;
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (row->spec.kind == SM_LISTEN_UNIX) {
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && len == sizeof(cred) && cred.uid == geteuid())
            return true;
        if (!row->said_stranger)
            sm_log_warning("%s: a program of another user was turned away", row->spec.path);
    } else {
        len = sizeof(address);
        if (getpeername(fd, (struct sockaddr *)&address, &len) == 0 && sm_endpoint_from_sockaddr(&address, &peer) &&
            is_loopback(&peer.addr))
            return true;
        if (!row->said_stranger)
            sm_log_warning("%s: a peer that is not on loopback was turned away", where(row, text));
    }
    row->said_stranger = true;
    return false;
}

static void hand_over(struct row *row, int fd)
{
    row->taken = row->spec.single;
    row->since_us = sm_clock_us();
    row->said_refused = false;
    row->all->ops->connected(row->all->data, row->spec.tag, fd);
}

static void refuse(struct row *row, int *fd)
{
    char text[SM_ENDPOINT_STRLEN];

    if (!row->said_refused)
        sm_log_warning("%s: a second VMM was turned away: the first one is still connected", where(row, text));
    row->said_refused = true;
    sm_fd_close(fd);
}

static void on_hold_over(struct sm_timer *timer, int64_t now_us)
{
    struct row *row = sm_container_of(timer, struct row, hold);
    refuse(row, &row->held);
}

/** A connection: for the row's owner, for later, or for nobody. */
static void enter(struct row *row, int fd)
{
    const int on = 1;

    if (row->spec.kind == SM_LISTEN_TCP) /* the front may not; a frame is not to wait for the next */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!row->taken) {
        hand_over(row, fd);
    } else if (row->held < 0) {
        row->held = fd;
        sm_loop_arm(row->all->loop, &row->hold, sm_clock_us() + SM_LISTENS_HOLD_US);
    } else {
        refuse(row, &fd);
    }
}

static void on_accept(struct sm_watch *watch, uint32_t events)
{
    struct row *row = sm_container_of(watch, struct row, watch);
    sm_autofd fd = accept4(row->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            sm_loop_unwatch(row->all->loop, &row->watch);
            sm_loop_arm(row->all->loop, &row->timer, sm_clock_us() + SM_LISTENS_PAUSE_US);
        }
        return;
    }
    if (may_enter(row, fd))
        enter(row, sm_steal_fd(&fd));
}

static void listen_again(struct row *row)
{
    char text[SM_ENDPOINT_STRLEN];

    if (sm_loop_watch(row->all->loop, &row->watch, EPOLLIN) == 0)
        return;
    sm_log_warning("%s: cannot be watched: %s", where(row, text), strerror(errno));
    sm_loop_arm(row->all->loop, &row->timer, sm_clock_us() + SM_LISTENS_PAUSE_US);
}

/* ---- going there ---- */

static void try_later(struct row *row)
{
    sm_loop_unwatch(row->all->loop, &row->watch);
    sm_fd_close(&row->fd);
    sm_loop_arm(row->all->loop, &row->timer, sm_clock_us() + row->delay_us);
    row->delay_us = SM_MIN(2 * row->delay_us, SM_LISTENS_RETRY_MAX_US);
}

/** A connect to a free port of the range that clients' ports come from can meet itself. */
static bool is_own_echo(int fd)
{
    struct sockaddr_storage a = {0}, b = {0};
    socklen_t n = sizeof(a), m = sizeof(b);

    return getsockname(fd, (struct sockaddr *)&a, &n) == 0 && getpeername(fd, (struct sockaddr *)&b, &m) == 0 &&
           n == m && memcmp(&a, &b, n) == 0;
}

static void on_connected(struct row *row)
{
    if ((row->spec.kind == SM_LISTEN_TCP && is_own_echo(row->fd)) || !may_enter(row, row->fd)) {
        try_later(row);
        return;
    }
    sm_loop_unwatch(row->all->loop, &row->watch);
    enter(row, sm_steal_fd(&row->fd));
}

static void on_connect_done(struct sm_watch *watch, uint32_t events)
{
    struct row *row = sm_container_of(watch, struct row, watch);
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(row->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err != 0)
        try_later(row);
    else
        on_connected(row);
}

static void go_there(struct row *row)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_un sun;
    socklen_t len;

    if (row->spec.kind == SM_LISTEN_UNIX) {
        len = place_address(&row->place, &sun);
        memcpy(&address, &sun, len);
    } else {
        len = sm_endpoint_to_sockaddr(&row->spec.endpoint, &address);
    }
    row->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (row->fd < 0) {
        try_later(row);
        return;
    }
    sm_watch_init(&row->watch, row->fd, on_connect_done);
    if (connect(row->fd, (const struct sockaddr *)&address, len) == 0)
        on_connected(row);
    else if (errno != EINPROGRESS || sm_loop_watch(row->all->loop, &row->watch, EPOLLOUT) < 0)
        try_later(row); /* of a unix socket: ENOENT, ECONNREFUSED, EAGAIN */
}

/* ---- datagrams ---- */

/** The socket itself stays ours: it is connected anew in place. */
static bool give_dgram(struct row *row)
{
    int fd = fcntl(row->fd, F_DUPFD_CLOEXEC, 3);

    if (fd < 0)
        return false;
    hand_over(row, fd);
    return true;
}

/** Connect, or connect anew when the peer's socket is another one; then the front is told by the same socket once more. */
static void look_for_peer(struct row *row)
{
    struct sockaddr_un address;
    struct stat st;

    sm_loop_arm(row->all->loop, &row->timer, sm_clock_us() + SM_LISTENS_LOOK_US);
    if (!place_stat(&row->peer, &st) || !S_ISSOCK(st.st_mode) ||
        (row->peer_known && same_file(&row->peer_was, &st) && same_time(&row->peer_was, &st)))
        return;
    if (st.st_uid != geteuid()) {
        if (!row->said_stranger)
            sm_log_warning("%s: another user's socket: not connected to", row->spec.peer);
        row->said_stranger = true;
        return;
    }
    socklen_t len = place_address(&row->peer, &address);
    if (connect(row->fd, (const struct sockaddr *)&address, len) < 0)
        return; /* left by one that ended, or not ready yet */
    bool another = row->peer_known;
    row->peer_known = true;
    row->peer_was = identity_of(&st);
    sm_log_debug("%s: connected to %s", row->spec.path, row->spec.peer);
    if (another && !give_dgram(row))
        sm_log_warning("%s: out of descriptors: the last VMM's connections stay", row->spec.path);
}

static void start_dgram(struct row *row)
{
    if (give_dgram(row))
        look_for_peer(row);
    else /* no descriptors: later */
        sm_loop_arm(row->all->loop, &row->timer, sm_clock_us() + SM_LISTENS_PAUSE_US);
}

/* ---- the whole ---- */

static void begin(struct row *row)
{
    switch (row->spec.kind) {
    case SM_LISTEN_UNIX:
    case SM_LISTEN_TCP:
        if (row->spec.client)
            go_there(row);
        else
            listen_again(row);
        return;
    case SM_LISTEN_DGRAM:
        if (!row->since_us)
            start_dgram(row);
        else
            look_for_peer(row);
        return;
    case SM_LISTEN_KINDS:
        return;
    }
}

static void on_timer(struct sm_timer *timer, int64_t now_us)
{
    begin(sm_container_of(timer, struct row, timer));
}

static int open_row(struct row *row, GError **error)
{
    const struct sm_listen_spec *spec = &row->spec;

    if (!sm_listens_check(spec, error) || (spec->path && open_place(spec->path, &row->place, error) < 0) ||
        (spec->peer && open_place(spec->peer, &row->peer, error) < 0))
        return -1;
    if (spec->client)
        return 0;
    switch (spec->kind) {
    case SM_LISTEN_UNIX:
        return open_named(row, SOCK_STREAM, error);
    case SM_LISTEN_DGRAM:
        return open_named(row, SOCK_DGRAM, error);
    case SM_LISTEN_TCP:
        return open_tcp(row, error);
    case SM_LISTEN_KINDS:
        break;
    }
    return -1;
}

struct sm_listens *sm_listens_new(struct sm_loop *loop, const struct sm_listen_spec *specs, size_t n_specs,
                                  const struct sm_listens_ops *ops, void *data, GError **error)
{
    g_assert(n_specs <= SM_LISTENS_MAX);
    struct sm_listens *l = g_malloc0(sizeof(*l) + n_specs * sizeof(l->rows[0]));

    l->loop = loop;
    l->ops = ops;
    l->data = data;
    for (size_t i = 0; i < n_specs; i++) {
        struct row *row = &l->rows[i];
        row->all = l;
        row->spec = specs[i];
        row->fd = row->held = row->place.dirfd = row->peer.dirfd = -1;
        row->delay_us = SM_LISTENS_RETRY_MIN_US;
        sm_watch_init(&row->watch, -1, on_accept);
        sm_timer_init(&row->timer, on_timer);
        sm_timer_init(&row->hold, on_hold_over);
        l->n++;
        if (open_row(row, error) < 0) {
            sm_listens_free(l);
            return NULL;
        }
        sm_watch_init(&row->watch, row->fd, on_accept);
    }
    return l;
}

void sm_listens_start(struct sm_listens *l)
{
    for (size_t i = 0; i < l->n && !l->started; i++)
        begin(&l->rows[i]);
    l->started = true;
}

void sm_listens_gone(struct sm_listens *l, const char *tag)
{
    for (size_t i = 0; i < l->n; i++) {
        struct row *row = &l->rows[i];
        if (!row->taken || strcmp(row->spec.tag, tag) != 0)
            continue;
        row->taken = false;
        row->said_refused = false;
        sm_loop_disarm(l->loop, &row->hold);
        if (row->held >= 0)
            hand_over(row, sm_steal_fd(&row->held));
        else if (row->spec.client && row->spec.kind != SM_LISTEN_DGRAM) {
            /* One that lasted was a VMM's; one that is closed at once may be closed at once again. */
            if (sm_clock_us() - row->since_us >= SM_LISTENS_RETRY_MAX_US)
                row->delay_us = SM_LISTENS_RETRY_MIN_US;
            try_later(row);
        }
        return;
    }
}

void sm_listens_free(struct sm_listens *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n; i++) {
        struct row *row = &l->rows[i];
        sm_loop_unwatch(l->loop, &row->watch);
        sm_loop_disarm(l->loop, &row->timer);
        sm_loop_disarm(l->loop, &row->hold);
        unbind(row);
        sm_fd_close(&row->fd);
        sm_fd_close(&row->held);
        sm_fd_close(&row->place.dirfd);
        sm_fd_close(&row->peer.dirfd);
    }
    g_free(l);
}
