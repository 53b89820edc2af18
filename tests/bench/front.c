/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front for measurements: the core alone, without libslirp and without a guest. It starts `slirp-med-core core` as
 * the supervisor would, and every TCP connection that it accepts becomes a flow to a fixed destination, over the handoff
 * that flow/msg.h describes.
 *
 *   front --core FILE --dir FOLDER --roots PEM [--opaque] [--swaps JSON --secret FILE] --map LISTEN=DESTINATION [--map ...]
 *
 * JSON is a file with the core's `swaps` (cred/swap.h); whatever reference the core asks for, it gets the secret FILE.
 * FOLDER gets egress.jsonl, ca.key and ca.pem. It prints "ready PID" (the core's), and ends in order at the end of its standard input.
 *
 * The relay is as plain as nat/tcp.c's: one copy in a direction, bytes kept only while the other side is full. With --opaque it is handed
 * the upstream sockets, without it the core's pairs; all else is the same, so that the two can be compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/link.h"
#include "base/loop.h"
#include "flow/channel.h"
#include "supervisor/spawn.h"

#define MAPS_MAX 8
#define ACCEPT_BATCH 64
/* As much as a socket is likely to hold: one system call for what has come. */
#define COPY_MAX (256u << 10)
#define GUEST "10.0.2.15"

struct front;

/* One side of a flow and what waits to be written to it. */
struct side {
    struct sm_watch watch;
    uint8_t *pending;
    size_t pending_len, pending_at;
    bool eof; /* it has said its last byte */
};

struct flow {
    struct front *front;
    uint64_t id;
    struct side guest, upstream; /* upstream's descriptor is -1 until ATTACH */
    struct sm_buf before;        /* guest bytes that were shown to the core */
    bool accepted;
    struct flow *next_dead;
};

struct map {
    struct front *front;
    struct sm_watch watch;
    struct sm_endpoint listen, dst;
};

struct front {
    struct sm_loop *loop;
    struct sm_channel *channel;
    struct sm_watch link, end;
    struct map maps[MAPS_MAX];
    size_t n_maps;
    GHashTable *flows;
    struct flow *dead;
    uint64_t last_id;
    const char *roots, *dir, *swaps, *secret;
    int dir_fd, core_pidfd;
    bool ready, ending;
    uint8_t scratch[COPY_MAX];
};

static void die(const char *what)
{
    fprintf(stderr, "front: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void tell(struct front *f, enum sm_flow_type type, uint64_t id, enum sm_flow_why why)
{
    struct sm_flow_msg m = {.type = type, .id = id, .why = why};
    (void)sm_channel_send(f->channel, &m, -1);
}

/* ---- a flow ---- */

static void side_close(struct flow *fl, struct side *s)
{
    sm_loop_unwatch(fl->front->loop, &s->watch);
    sm_fd_close(&s->watch.fd);
    g_free(s->pending);
    s->pending = NULL;
}

/* Freed at the end of the turn: a callback of it may be running. */
static void flow_end(struct flow *fl, bool reset)
{
    if (reset && fl->guest.watch.fd >= 0)
        (void)setsockopt(fl->guest.watch.fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
                         sizeof(struct linger));
    side_close(fl, &fl->guest);
    side_close(fl, &fl->upstream);
    sm_buf_clear(&fl->before);
    g_hash_table_remove(fl->front->flows, &fl->id);
    fl->next_dead = fl->front->dead;
    fl->front->dead = fl;
}

static void flow_gone(struct flow *fl, enum sm_flow_why why)
{
    struct front *f = fl->front;
    uint64_t id = fl->id;

    flow_end(fl, why != SM_WHY_CLOSED);
    tell(f, SM_FLOW_GONE, id, why);
}

/* Read from a while nothing of it waits for b; write to b when something does. */
static void interest(struct flow *fl, struct side *a, struct side *b)
{
    uint32_t events = (a->eof || b->pending ? 0 : EPOLLIN) | (a->pending ? EPOLLOUT : 0);

    if (a->watch.added && a->watch.events == events && events != 0)
        return;
    if (events == 0)
        sm_loop_unwatch(fl->front->loop, &a->watch); /* or a hang-up would be told for ever */
    else if (sm_loop_watch(fl->front->loop, &a->watch, events) < 0)
        die("epoll");
}

static bool alive(const struct flow *fl)
{
    return fl->guest.watch.fd >= 0;
}

static enum sm_flow_why fault_of(const struct flow *fl, const struct side *s)
{
    return s == &fl->guest ? SM_WHY_GUEST_RST : SM_WHY_UPSTREAM_RST;
}

/* What could not be written yet is kept. */
static bool put(struct flow *fl, struct side *to, const uint8_t *p, size_t n)
{
    ssize_t done = send(to->watch.fd, p, n, MSG_NOSIGNAL);

    if (done < 0 && errno != EAGAIN && errno != EINTR) {
        flow_gone(fl, fault_of(fl, to));
        return false;
    }
    size_t written = done > 0 ? (size_t)done : 0;
    if (written < n) {
        to->pending = g_memdup2(p + written, n - written);
        to->pending_len = n - written;
        to->pending_at = 0;
    }
    return true;
}

static void pass_end(struct flow *fl, const struct side *from, struct side *to)
{
    if (from->eof && !to->pending)
        (void)shutdown(to->watch.fd, SHUT_WR);
    if (fl->guest.eof && fl->upstream.eof && !fl->guest.pending && !fl->upstream.pending)
        flow_gone(fl, SM_WHY_CLOSED);
}

static void flush(struct flow *fl, struct side *to, struct side *from)
{
    ssize_t n = send(to->watch.fd, to->pending + to->pending_at, to->pending_len - to->pending_at, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        flow_gone(fl, fault_of(fl, to));
        return;
    }
    to->pending_at += n > 0 ? (size_t)n : 0;
    if (to->pending_at < to->pending_len)
        return;
    g_free(to->pending);
    to->pending = NULL;
    if (from->eof)
        pass_end(fl, from, to);
}

static void carry(struct flow *fl, struct side *from, struct side *to)
{
    ssize_t n = recv(from->watch.fd, fl->front->scratch, COPY_MAX, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        flow_gone(fl, fault_of(fl, from));
        return;
    }
    if (n == 0) {
        from->eof = true;
        pass_end(fl, from, to);
        return;
    }
    (void)put(fl, to, fl->front->scratch, (size_t)n);
}

/* The guest speaks before there is an upstream: kept, and shown to the core. */
static void hold(struct flow *fl)
{
    struct front *f = fl->front;
    size_t room = SM_MIN(sm_buf_room(&fl->before), (size_t)SM_FLOW_DATA_MAX);

    if (room == 0) {
        sm_loop_unwatch(f->loop, &fl->guest.watch);
        return;
    }
    ssize_t n = recv(fl->guest.watch.fd, f->scratch, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        flow_gone(fl, SM_WHY_GUEST_RST);
        return;
    }
    if (n == 0) {
        fl->guest.eof = true;
        sm_loop_unwatch(f->loop, &fl->guest.watch);
        tell(f, SM_FLOW_EOF, fl->id, SM_WHY_CLOSED);
        return;
    }
    struct sm_flow_msg m = {.type = SM_FLOW_BYTES, .id = fl->id, .data = f->scratch, .data_len = (size_t)n};
    (void)!sm_buf_append(&fl->before, f->scratch, (size_t)n);
    (void)sm_channel_send(f->channel, &m, -1);
}

static void on_side(struct flow *fl, struct side *a, struct side *b, uint32_t events)
{
    if (b->watch.fd < 0) {
        hold(fl);
        return;
    }
    if (a->pending && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        flush(fl, a, b);
    if (alive(fl) && !a->eof && !b->pending && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        carry(fl, a, b);
    if (!alive(fl))
        return;
    interest(fl, a, b);
    interest(fl, b, a);
}

static void on_guest(struct sm_watch *watch, uint32_t events)
{
    struct flow *fl = sm_container_of(watch, struct flow, guest.watch);
    on_side(fl, &fl->guest, &fl->upstream, events);
}

static void on_upstream(struct sm_watch *watch, uint32_t events)
{
    struct flow *fl = sm_container_of(watch, struct flow, upstream.watch);
    on_side(fl, &fl->upstream, &fl->guest, events);
}

static void attach(struct flow *fl, uint32_t consumed, int fd)
{
    sm_watch_init(&fl->upstream.watch, fd, on_upstream);
    sm_buf_consume(&fl->before, SM_MIN((size_t)consumed, fl->before.len));
    if (fl->before.len > 0 && !put(fl, &fl->upstream, sm_buf_peek(&fl->before), fl->before.len))
        return;
    sm_buf_clear(&fl->before);
    if (fl->guest.eof)
        pass_end(fl, &fl->guest, &fl->upstream);
    if (!alive(fl))
        return;
    interest(fl, &fl->guest, &fl->upstream);
    interest(fl, &fl->upstream, &fl->guest);
}

static void on_listen(struct sm_watch *watch, uint32_t events)
{
    struct map *map = sm_container_of(watch, struct map, watch);
    struct front *f = map->front;

    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        int one = 1, fd = accept4(watch->fd, &from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        struct flow *fl = g_new0(struct flow, 1);
        fl->front = f;
        fl->id = ++f->last_id;
        sm_watch_init(&fl->guest.watch, fd, on_guest);
        sm_watch_init(&fl->upstream.watch, -1, on_upstream);
        sm_buf_init(&fl->before, SM_FLOW_HELD_MAX);
        g_hash_table_insert(f->flows, &fl->id, fl);
        struct sm_flow_msg m = {.type = SM_FLOW_OPEN, .id = fl->id, .proto = SM_FLOW_TCP, .dst = map->dst};
        (void)!sm_addr_parse(GUEST, &m.src.addr);
        m.src.port = ntohs(from.sin_port);
        if (!sm_channel_send(f->channel, &m, -1))
            flow_end(fl, true);
    }
}

/* ---- the core ---- */

static void on_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct front *f = data;
    struct flow *fl = g_hash_table_lookup(f->flows, &msg->id);
    sm_autofd fd = n_fds > 0 ? fds[0] : -1;

    if (msg->type == SM_FLOW_ATTACH)
        tell(f, SM_FLOW_ATTACHED, msg->id, SM_WHY_CLOSED);
    if (!fl)
        return;
    if (msg->type == SM_FLOW_REFUSE || msg->type == SM_FLOW_ABORT) {
        flow_end(fl, true);
    } else if (msg->type == SM_FLOW_ACCEPT || msg->type == SM_FLOW_ATTACH) {
        if (!fl->accepted && sm_loop_watch(f->loop, &fl->guest.watch, EPOLLIN) < 0)
            die("epoll");
        fl->accepted = true;
        if (msg->type == SM_FLOW_ATTACH)
            attach(fl, msg->consumed, sm_steal_fd(&fd));
    }
}

static void on_failed(const char *text, void *data)
{
    struct front *f = data;

    if (!f->ending)
        fprintf(stderr, "front: the channel ended: %s\n", text);
    sm_loop_quit(f->loop, f->ending ? 0 : 1);
}

static int open_in(const struct front *f, const char *name)
{
    int fd = openat(f->dir_fd, name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        die(name);
    return fd;
}

static void on_link(struct sm_watch *watch, uint32_t events)
{
    struct front *f = sm_container_of(watch, struct front, link);
    static struct sm_link_msg m;

    (void)events;
    if (sm_link_recv(watch->fd, &m) <= 0) {
        sm_loop_unwatch(f->loop, watch);
        sm_loop_quit(f->loop, f->ending ? 0 : 1);
        f->ending = true;
        return;
    }
    sm_fd_close(&m.fd);
    if (m.verb == SM_LINK_READY) {
        f->ready = true;
    } else if (m.verb == SM_LINK_WANT) {
        if (strcmp(m.text, "audit") == 0)
            (void)renameat(f->dir_fd, "egress.jsonl", f->dir_fd, "egress.jsonl.1");
        const char *file = g_str_has_prefix(m.text, "ref:") && f->secret ? f->secret : f->roots;
        sm_autofd fd = strcmp(m.text, "audit") == 0 ? open_in(f, "egress.jsonl") : open(file, O_RDONLY | O_CLOEXEC);
        (void)sm_link_send(watch->fd, SM_LINK_GIVE, m.text, fd);
    } else if (m.verb == SM_LINK_FAIL) {
        fprintf(stderr, "front: the core says: %s\n", m.text);
        sm_loop_quit(f->loop, 1);
    }
}

static void on_end(struct sm_watch *watch, uint32_t events)
{
    struct front *f = sm_container_of(watch, struct front, end);
    char c[64];

    (void)events;
    if (read(watch->fd, c, sizeof(c)) > 0)
        return;
    sm_loop_unwatch(f->loop, watch);
    f->ending = true;
    (void)sm_link_send(f->link.fd, SM_LINK_STOP, NULL, -1);
    sm_channel_finish(f->channel);
}

static bool on_turn_end(void *data)
{
    struct front *f = data;

    while (f->dead) {
        struct flow *fl = f->dead;
        f->dead = fl->next_dead;
        g_free(fl);
    }
    return false;
}

static pid_t start_core(struct front *f, const char *exe, bool opaque)
{
    int link[2], channel[2];
    g_autoptr(GError) error = NULL;
    json_t *j = json_pack("{s:s, s:s, s:b, s:b, s:s, s:[], s:[], s:[], s:{s:[], s:{}}, s:[], s:[s], s:s, s:i, s:{s:s, "
                          "s:i, s:s, s:s}, s:{s:b, s:I, s:i}, s:{s:i, s:i, s:i, s:{s:i, s:i, s:i}}}",
                          "workspace", "bench", "mode", "guarded", "opaque", (int)opaque, "log_query", 0, "extra_roots",
                          "", "allow", "passthrough", "deny", "swaps", "refs", "entries", "inside", "dns", "127.0.0.1",
                          "resolv_conf", "", "dns_qps", 0, "network", "guest", GUEST, "prefix_len", 24, "gateway",
                          "10.0.2.2", "resolver", "10.0.2.3", "audit", "sync", 0, "max_bytes",
                          (json_int_t)(INT64_C(16) << 30), "seq_floor", 0, "caps", "max_bps", 0, "max_total_bytes", 0,
                          "max_conns", 0, "counters", "seq", 0, "bytes_up", 0, "bytes_down", 0);
    if (f->swaps && (!j || json_object_set_new(j, "swaps", json_load_file(f->swaps, 0, NULL)) < 0))
        die(f->swaps);
    char *config = j ? json_dumps(j, JSON_COMPACT) : NULL;

    if (!config || sm_fd_seqpair(link, false) < 0 || sm_fd_seqpair(channel, true) < 0)
        die("the core's descriptors");
    sm_autofd config_fd = sm_fd_memfd("config", config, strlen(config), &error);
    sm_autofd audit = open_in(f, "egress.jsonl");
    sm_autofd key = open_in(f, "ca.key");
    sm_autofd cert = open_in(f, "ca.pem");
    char *argv[] = {(char *)"slirp-med", (char *)"core", NULL}, *envp[] = {NULL};
    struct sm_spawn_spec spec = {.exe = exe,
                                 .argv = argv,
                                 .envp = envp,
                                 .fds = {link[1], config_fd, channel[1], audit, opaque ? -1 : key, opaque ? -1 : cert},
                                 .n_fds = opaque ? 4 : 6,
                                 .err_fd = -1};
    pid_t pid = config_fd < 0 ? -1 : sm_spawn(&spec, &f->core_pidfd, &error);
    if (pid < 0) {
        fprintf(stderr, "front: %s\n", error->message);
        exit(1);
    }
    (void)close(link[1]);
    (void)close(channel[1]);
    free(config);
    json_decref(j);
    if (sm_fd_set_nonblock(link[0]) < 0)
        die("link");
    sm_watch_init(&f->link, link[0], on_link);
    static const struct sm_channel_ops ops = {.message = on_message, .failed = on_failed};
    f->channel = sm_channel_new(f->loop, channel[0], false, &ops, f);
    if (sm_loop_watch(f->loop, &f->link, EPOLLIN) < 0)
        die("epoll");
    while (!f->ready && !f->ending)
        if (sm_loop_turn(f->loop, -1) < 0)
            die("epoll");
    return f->ready ? pid : -1;
}

static void start_listening(struct front *f, struct map *map)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(map->listen.port),
                             .sin_addr.s_addr = htonl(sm_addr_to_u32(&map->listen.addr))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4096) < 0)
        die("listen");
    map->front = f;
    sm_watch_init(&map->watch, fd, on_listen);
    if (sm_loop_watch(f->loop, &map->watch, EPOLLIN) < 0)
        die("epoll");
}

int main(int argc, char **argv)
{
    static struct front f = {.core_pidfd = -1};
    static const struct option options[] = {{"core", 1, NULL, 'c'},   {"dir", 1, NULL, 'd'}, {"roots", 1, NULL, 'r'},
                                            {"opaque", 0, NULL, 'o'}, {"map", 1, NULL, 'm'}, {"swaps", 1, NULL, 's'},
                                            {"secret", 1, NULL, 'k'}, {NULL, 0, NULL, 0}};
    struct rlimit files;
    const char *core = NULL;
    bool opaque = false, good = true;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        struct map *map = &f.maps[f.n_maps];
        char **sides;
        switch (c) {
        case 'c':
            core = optarg;
            break;
        case 'd':
            f.dir = optarg;
            break;
        case 'r':
            f.roots = optarg;
            break;
        case 'o':
            opaque = true;
            break;
        case 's':
            f.swaps = optarg;
            break;
        case 'k':
            f.secret = optarg;
            break;
        case 'm':
            sides = g_strsplit(optarg, "=", 2);
            good = good && f.n_maps < MAPS_MAX && g_strv_length(sides) == 2 &&
                   sm_endpoint_parse(sides[0], 0, &map->listen) && sm_endpoint_parse(sides[1], 0, &map->dst);
            f.n_maps += good;
            g_strfreev(sides);
            break;
        default:
            good = false;
        }
    }
    if (!good || !core || !f.dir || !f.roots || f.n_maps == 0) {
        fprintf(stderr, "usage: front --core FILE --dir FOLDER --roots PEM [--opaque] [--swaps JSON --secret FILE] "
                        "--map LISTEN=DESTINATION ...\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    f.loop = sm_loop_new(NULL);
    f.flows = g_hash_table_new(g_int64_hash, g_int64_equal);
    f.dir_fd = open(f.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!f.loop || f.dir_fd < 0)
        die(f.dir);
    pid_t pid = start_core(&f, core, opaque);
    if (pid < 0)
        return 1;
    for (size_t i = 0; i < f.n_maps; i++)
        start_listening(&f, &f.maps[i]);
    sm_watch_init(&f.end, STDIN_FILENO, on_end);
    sm_loop_set_turn_end(f.loop, on_turn_end, &f);
    if (sm_loop_watch(f.loop, &f.end, EPOLLIN) < 0)
        die("epoll");
    printf("ready %d\n", (int)pid);
    (void)fflush(stdout);
    int status = sm_loop_run(f.loop);
    (void)sm_spawn_signal(f.core_pidfd, status == 0 ? SIGCONT : SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return status;
}
