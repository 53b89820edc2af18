/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process `slirp-med-edge nat`: descriptors and configuration in, sandbox on, then the loop until one of the three
 * others goes away. After the sandbox the link is written with write(2) only, since sendmsg(2) is not on the front's
 * list.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <jansson.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "nat/front.h"
#include "nat/sock.h"
#include "nat/tproxy.h"
#include "sandbox/sandbox.h"

/** What a VMM connects to. */
enum device_name { DEVICE_NET, DEVICE_VSOCK, DEVICES };
static const char *const device_names[] = {[DEVICE_NET] = "net", [DEVICE_VSOCK] = "vsock"};
SM_NAME_TABLE_COVERS(device_names, DEVICES);

struct process;

struct device {
    struct process *p;
    enum device_name name;
    struct sm_port *port; /* the front's; NULL: there is none */
    bool left_untold;     /* its VMM has gone, and the link was full */
};

struct process {
    struct sm_loop *loop;
    const struct sm_port_kind *kinds;
    size_t n_kinds;
    struct device devices[DEVICES];
    struct sm_front *front;
    struct sm_watch link;
    bool stopping;
};

/** The supervisor lets the next VMM in when it knows: so this must not get lost. */
static void tell_left(struct device *d)
{
    char line[32];
    int n = g_snprintf(line, sizeof(line), "%s %s", sm_link_verb_name(SM_LINK_PORT), device_names[d->name]);
    uint32_t events = EPOLLIN;

    d->left_untold = write(d->p->link.fd, line, (size_t)n) < 0 && (errno == EAGAIN || errno == ENOBUFS);
    for (size_t i = 0; i < DEVICES; i++)
        if (d->p->devices[i].left_untold)
            events |= EPOLLOUT;
    if (sm_loop_watch(d->p->loop, &d->p->link, events) < 0)
        sm_log_warning("epoll_ctl: %s", strerror(errno));
}

static void on_port_left(void *data)
{
    struct device *d = data;

    if (d->name == DEVICE_NET)
        sm_front_guest_left(d->p->front);
    tell_left(d);
}

static void on_front_failed(const char *text, void *data)
{
    struct process *p = data;
    char line[256];

    if (p->stopping) { /* the core has read our last word and closed the channel, or the device went with the guest */
        sm_front_last_word(p->front);
        sm_loop_quit(p->loop, 0);
        return;
    }
    int n = g_snprintf(line, sizeof(line), "%s %s", sm_link_verb_name(SM_LINK_FAIL), text);

    sm_log_info("%s", text);
    (void)!write(p->link.fd, line, (size_t)n);
    sm_loop_quit(p->loop, 1);
}

static void send_status(struct process *p)
{
    const struct sm_port *net = p->devices[DEVICE_NET].port, *vsock = p->devices[DEVICE_VSOCK].port;
    struct sm_front_stats s;
    sm_front_stats(p->front, &s);
    json_t *j = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "opens", (json_int_t)s.opens, "opens_dropped",
        (json_int_t)s.opens_dropped, "repeated", (json_int_t)s.repeated, "attached", (json_int_t)s.attached, "gone",
        (json_int_t)s.gone, "dns", (json_int_t)s.dns_in, "udp_dropped", (json_int_t)s.udp_dropped, "others",
        (json_int_t)s.others, "channel_dropped", (json_int_t)s.channel_dropped, "tcp_now", (json_int_t)s.tcp_now,
        "udp_now", (json_int_t)s.udp_now, "asked_now", (json_int_t)s.asked_now, "held_now", (json_int_t)s.held_now,
        "queued_now", (json_int_t)s.queued_now, "spliced", (json_int_t)s.spliced);
    if (net) {
        json_t *o = json_pack("{s:b,s:I,s:I,s:I,s:I,s:I}", "connected", net->connected, "connections",
                              (json_int_t)net->connections, "rx_frames", (json_int_t)net->rx_frames, "tx_frames",
                              (json_int_t)net->tx_frames, "tx_dropped", (json_int_t)net->tx_dropped, "faults",
                              (json_int_t)net->faults);
        (void)json_object_update(j, o);
        json_decref(o);
    }
    if (vsock) {
        struct sm_vsock_stats v;
        sm_front_vsock_stats(p->front, &v);
        uint64_t wrong = v.malformed + v.cheated + v.foreign;
        json_t *o = json_pack("{s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "connected", vsock->connected, "connections",
                              (json_int_t)vsock->connections, "now", (json_int_t)s.vsock_now, "requests",
                              (json_int_t)v.requests, "refused", (json_int_t)v.refused, "wrong", (json_int_t)wrong,
                              "dropped", (json_int_t)vsock->tx_dropped, "faults", (json_int_t)vsock->faults);
        (void)json_object_set_new(j, "vsock", o);
    }
    char *text = json_dumps(j, JSON_COMPACT);
    if (text) {
        g_autofree char *line = g_strdup_printf("%s %s", sm_link_verb_name(SM_LINK_STATUS), text);
        (void)!write(p->link.fd, line, strlen(line));
    }
    free(text);
    json_decref(j);
}

/** PORT: a VMM has come to one of our devices. Takes fd. */
static void connect_device(struct process *p, const char *name, int fd)
{
    for (size_t i = 0; i < DEVICES; i++) {
        struct device *d = &p->devices[i];
        if (!d->port || strcmp(device_names[i], name) != 0)
            continue;
        if (d->port->connected && d->name == DEVICE_NET) /* a datagram socket: the only sign of the last VMM's end */
            sm_front_guest_left(p->front);
        if (sm_port_connect(d->port, fd) < 0) {
            sm_log_warning("the VMM's connection cannot be served: %s", strerror(errno));
            tell_left(d);
        }
        return;
    }
    (void)close(fd);
}

static void on_link(struct sm_watch *watch, uint32_t events)
{
    struct process *p = sm_container_of(watch, struct process, link);
    struct sm_link_msg msg;
    for (size_t i = 0; i < DEVICES && (events & EPOLLOUT); i++)
        if (p->devices[i].left_untold)
            tell_left(&p->devices[i]);
    int got = sm_link_recv(watch->fd, &msg);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        sm_log_info("the supervisor is gone");
        sm_loop_quit(p->loop, 1);
        return;
    }
    if (msg.verb == SM_LINK_PORT && msg.fd >= 0)
        connect_device(p, msg.text, sm_steal_fd(&msg.fd));
    sm_fd_close(&msg.fd);
    if (msg.verb == SM_LINK_STATUS)
        send_status(p);
    else if (msg.verb == SM_LINK_STOP && !p->stopping) {
        p->stopping = true;
        sm_front_finish(p->front);
    }
}

static bool read_config(struct sm_front_config *ret, GError **error)
{
    size_t len = 0;
    g_autofree char *json = sm_fd_read_all(SM_CONFIG_FD, SM_NAT_CONFIG_MAX, &len, error);
    if (!json || !sm_nat_config_parse(json, len, &ret->net, error))
        return false;
    if (getrandom(ret->secret, sizeof(ret->secret), 0) != (ssize_t)sizeof(ret->secret)) {
        sm_error_set_errno(error, errno, "front: getrandom");
        return false;
    }
    return true;
}

static const struct sm_port_kind *find_kind(const struct process *p, const char *name)
{
    for (size_t i = 0; i < p->n_kinds; i++)
        if (strcmp(p->kinds[i].name, name) == 0)
            return &p->kinds[i];
    return NULL;
}

static struct sm_port *new_net(const struct process *p, const struct sm_nat_config *c, struct sm_sandbox_spec *spec,
                               GError **error)
{
    const struct sm_port_kind *kind = find_kind(p, c->port);

    if (!kind || kind->vsock) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: port: there is no kind '%s'", c->port);
        return NULL;
    }
    spec->guest_memory |= kind->guest_memory;
    bool later = kind->later && fcntl(SM_ROLE_FD, F_GETFD) < 0; /* a PORT will bring it */
    if (!later && sm_fd_set_nonblock(SM_ROLE_FD) < 0) {
        sm_error_set_errno(error, errno, "front: a descriptor of the supervisor is missing");
        return NULL;
    }
    return kind->new (later ? -1 : SM_ROLE_FD, c->link.mtu, error);
}

/** A vsock device's VMM always comes by PORT. */
static struct sm_port *new_vsock(const struct process *p, const struct sm_nat_config *c, struct sm_sandbox_spec *spec,
                                 GError **error)
{
    const struct sm_port_kind *kind = find_kind(p, c->vsock_port);

    if (!kind || !kind->vsock) {
        sm_error_set(error, SM_ERROR_INVALID, "front configuration: vsock: there is no kind '%s'", c->vsock_port);
        return NULL;
    }
    spec->guest_memory |= kind->guest_memory;
    return kind->new (-1, c->vsock_cid, error);
}

static bool start(struct process *p, struct sm_sandbox_spec *spec, GError **error)
{
    struct sm_front_config cfg = {0};

    if (sm_sandbox_early(SM_ROLE_FRONT, spec, error) < 0 || !read_config(&cfg, error))
        return false;
    (void)close(SM_CONFIG_FD);
    struct rlimit nofile;
    if (getrlimit(RLIMIT_NOFILE, &nofile) < 0 || nofile.rlim_cur < 2 * SM_FRONT_FDS_RESERVED) {
        sm_error_set(error, SM_ERROR_MISSING, "front: the limit of open files is too low; raise it (ulimit -n 4096)");
        return false;
    }
    bool tproxy = strcmp(cfg.net.port, SM_TPROXY_PORT) == 0;
    cfg.max_live =
        (unsigned)SM_MIN(nofile.rlim_cur, (rlim_t)SM_FRONT_TCP_MAX + SM_FRONT_UDP_MAX) - SM_FRONT_FDS_RESERVED;
    if (tproxy) /* two for each, and those that are on their way */
        cfg.max_live = (cfg.max_live - SM_MIN(cfg.max_live / 2, SM_FLOW_ATTACH_MAX)) / 2;
    if (sm_fd_set_nonblock(SM_LINK_FD) < 0 || sm_fd_set_nonblock(SM_CHANNEL_FD) < 0) {
        sm_error_set_errno(error, errno, "front: a descriptor of the supervisor is missing");
        return false;
    }
    p->loop = sm_loop_new(error);
    if (!p->loop)
        return false;
    for (size_t i = 0; i < DEVICES; i++)
        p->devices[i] = (struct device){.p = p, .name = (enum device_name)i};
    struct device *net = &p->devices[DEVICE_NET], *vsock = &p->devices[DEVICE_VSOCK];
    if (tproxy) {
        spec->accepts = spec->splices = true;
        p->front = sm_front_new_tproxy(p->loop, &cfg, SM_ROLE_FD, SM_CHANNEL_FD, on_front_failed, p, error);
    } else {
        net->port = new_net(p, &cfg.net, spec, error);
        if (!net->port)
            return false;
        p->front = sm_front_new(p->loop, &cfg, net->port, SM_CHANNEL_FD, on_front_failed, p, error);
    }
    if (!p->front)
        return false;
    if (cfg.net.vsock_port[0]) {
        vsock->port = new_vsock(p, &cfg.net, spec, error);
        if (!vsock->port)
            return false;
    }
    if (vsock->port)
        sm_front_add_vsock(p->front, vsock->port, cfg.net.vsock_cid);
    sm_watch_init(&p->link, SM_LINK_FD, on_link);
    if (sm_loop_watch(p->loop, &p->link, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "front: epoll_ctl");
        return false;
    }
    for (size_t i = 0; i < DEVICES; i++)
        if (p->devices[i].port)
            sm_port_on_leave(p->devices[i].port, on_port_left, &p->devices[i]);
    return sm_sandbox_enter(SM_ROLE_FRONT, spec, error) == 0;
}

int sm_nat_main(const struct sm_port_kind *kinds, size_t n_kinds)
{
    static const int keep[] = {SM_LINK_FD, SM_CONFIG_FD, SM_CHANNEL_FD, SM_ROLE_FD};
    struct sm_sandbox_spec spec = {.keep_fds = keep, .n_keep_fds = SM_ARRAY_LEN(keep), .parent_fd = SM_LINK_FD};
    struct process p = {.kinds = kinds, .n_kinds = n_kinds};
    g_autoptr(GError) error = NULL;

    sm_log_init("nat");
    if (!start(&p, &spec, &error)) {
        sm_log_error("%s", error->message);
        g_autofree char *line = g_strdup_printf("%s %s", sm_link_verb_name(SM_LINK_FAIL), error->message);
        (void)!write(SM_LINK_FD, line, strlen(line));
        return 1;
    }
    const char *ready = sm_link_verb_name(SM_LINK_READY);
    if (write(SM_LINK_FD, ready, strlen(ready)) < 0)
        return 1;
    int status = sm_loop_run(p.loop);
    /* The kernel frees everything; closing the descriptors by ending is what the core waits for. */
    return status < 0 ? 1 : status;
}
