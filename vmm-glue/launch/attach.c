/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a VMM comes in, what it is to be started with, and telling that all is ready; see attach.h. */
#include "launch/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "launch/messages.h"
#include "launch/notify.h"
#include "launch/options.h"
#include "launch/qemu.h"
#include "nat/vsock.h"
#include "ports/tap.h"
#include "supervisor/supervisor.h"

/** RAM in what is printed: to be replaced, and said so. */
#define EXAMPLE_MEMORY "512M"
/** The peer's path of --dgram, if none is given: ours and this. */
#define PEER_SUFFIX ".vmm"

static const char *const way_names[] = {
    [SM_ATTACH_NONE] = "none",     [SM_ATTACH_STREAM] = "stream", [SM_ATTACH_VHOST_USER] = "vhost-user",
    [SM_ATTACH_DGRAM] = "dgram",   [SM_ATTACH_FD] = "fd",         [SM_ATTACH_TAP] = "tap",
    [SM_ATTACH_DEVICE] = "device",
};
SM_NAME_TABLE_COVERS(way_names, SM_ATTACH_WAYS);

static const char *const kind_names[] = {
    [SM_KIND_STREAM] = "stream",         [SM_KIND_DGRAM] = "dgram",       [SM_KIND_TAP] = "tap",
    [SM_KIND_VHOST_USER] = "vhost-user", [SM_KIND_TAP_VNET] = "tap-vnet", [SM_KIND_DEVICE] = "device",
};
SM_NAME_TABLE_COVERS(kind_names, SM_ATTACH_KINDS);

const char *sm_attach_way_name(enum sm_attach_way way)
{
    return (unsigned)way < SM_ATTACH_WAYS ? way_names[way] : "invalid";
}

const char *sm_attach_kind_name(enum sm_attach_kind kind)
{
    return (unsigned)kind < SM_ATTACH_KINDS ? kind_names[kind] : "invalid";
}

/* ---- flags ---- */

static bool set_way(struct sm_attach_options *a, enum sm_attach_way way, GError **error)
{
    if (a->way == SM_ATTACH_NONE) {
        a->way = way;
        return true;
    }
    sm_error_set(error, SM_ERROR_INVALID, "--%s was given too: a workspace has one port", way_names[a->way]);
    return false;
}

/** It is printed, as JSON and on one line. */
static bool take_path(const char *value, char **ret, GError **error)
{
    if (value[0] == '\0' || !g_utf8_validate(value, -1, NULL)) {
        sm_error_set(error, SM_ERROR_INVALID, "not the path of a socket, in UTF-8");
        return false;
    }
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            sm_error_set(error, SM_ERROR_INVALID, "a path may not have control characters here");
            return false;
        }
    }
    *ret = g_str_has_suffix(value, "/") ? g_strdup(value) : g_canonicalize_filename(value, NULL);
    return true;
}

static bool take_descriptor(const char *value, int *ret, GError **error)
{
    size_t n = strspn(value, "0123456789");
    int fd = n > 0 && n <= 7 && value[n] == '\0' ? (int)strtol(value, NULL, 10) : -1;

    if (fd < 3 || fcntl(fd, F_GETFD) < 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "not a descriptor that we were started with: write its number, 3 or more");
        return false;
    }
    *ret = fd;
    return true;
}

bool sm_attach_take_stream(struct sm_attach_options *a, const char *value, GError **error)
{
    if (!set_way(a, SM_ATTACH_STREAM, error))
        return false;
    a->kind = SM_KIND_STREAM;
    if (!g_str_has_prefix(value, "tcp:"))
        return take_path(value, &a->path, error);
    if (sm_endpoint_parse(value + strlen("tcp:"), 0, &a->endpoint))
        return true;
    sm_error_set(error, SM_ERROR_INVALID, "not an address: write tcp:127.0.0.1:PORT (or ./tcp:... for a path)");
    return false;
}

bool sm_attach_take_vhost_user(struct sm_attach_options *a, const char *value, GError **error)
{
    a->kind = SM_KIND_VHOST_USER;
    return set_way(a, SM_ATTACH_VHOST_USER, error) && take_path(value, &a->path, error);
}

bool sm_attach_take_dgram(struct sm_attach_options *a, const char *value, GError **error)
{
    const char *comma = strchr(value, ',');
    g_autofree char *ours = comma ? g_strndup(value, (gsize)(comma - value)) : g_strdup(value);
    g_autofree char *peer = comma ? g_strdup(comma + 1) : g_strconcat(value, PEER_SUFFIX, NULL);

    a->kind = SM_KIND_DGRAM;
    return set_way(a, SM_ATTACH_DGRAM, error) && take_path(ours, &a->path, error) && take_path(peer, &a->peer, error);
}

bool sm_attach_take_fd(struct sm_attach_options *a, const char *value, GError **error)
{
    return set_way(a, SM_ATTACH_FD, error) && take_descriptor(value, &a->fd, error);
}

bool sm_attach_take_tap(struct sm_attach_options *a, const char *value, GError **error)
{
    a->kind = SM_KIND_TAP;
    return set_way(a, SM_ATTACH_TAP, error) && take_path(value, &a->path, error);
}

bool sm_attach_take_device(struct sm_attach_options *a, const char *value, GError **error)
{
    size_t len = strlen(value);

    a->kind = SM_KIND_DEVICE;
    if (!set_way(a, SM_ATTACH_DEVICE, error))
        return false;
    /* As the kernel has it (dev_valid_name()), and printable. */
    if (len == 0 || len >= IFNAMSIZ || strcmp(value, ".") == 0 || strcmp(value, "..") == 0 ||
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+=") != len) {
        sm_error_set(error, SM_ERROR_INVALID, "not the name of a network device");
        return false;
    }
    a->device = g_strdup(value);
    return true;
}

bool sm_attach_take_kind(struct sm_attach_options *a, const char *value, GError **error)
{
    for (unsigned i = 0; i < SM_KIND_TAP_VNET; i++) {
        if (strcmp(value, kind_names[i]) == 0) {
            a->kind = (enum sm_attach_kind)i;
            a->kind_given = true;
            return true;
        }
    }
    sm_error_set(error, SM_ERROR_INVALID, "no such kind: write stream, dgram, tap or vhost-user");
    return false;
}

bool sm_attach_take_ready_fd(struct sm_attach_options *a, const char *value, GError **error)
{
    return take_descriptor(value, &a->ready_fd, error);
}

bool sm_attach_take_owner_fd(struct sm_attach_options *a, const char *value, GError **error)
{
    return take_descriptor(value, &a->owner_fd, error);
}

/** What --fd is, and whether it is what --fd-kind says. */
static bool look_at_fd(struct sm_attach_options *a, GError **error)
{
    int type = 0;
    socklen_t len = sizeof(type);
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof(peer);
    bool vnet_hdr;

    if (getsockopt(a->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
        if (a->kind_given && a->kind != SM_KIND_TAP) {
            sm_error_set(error, SM_ERROR_INVALID, "--fd-kind=%s: descriptor %d is no socket", kind_names[a->kind],
                         a->fd);
            return false;
        }
        if (sm_tap_adopt(a->fd, &vnet_hdr, error) < 0) {
            g_prefix_error(error, "--fd=%d: no socket, and ", a->fd);
            return false;
        }
        a->kind = vnet_hdr ? SM_KIND_TAP_VNET : SM_KIND_TAP;
        return true;
    }
    bool stream = !a->kind_given || a->kind == SM_KIND_STREAM || a->kind == SM_KIND_VHOST_USER;
    bool dgram = !a->kind_given || a->kind == SM_KIND_DGRAM;
    if (!(type == SOCK_STREAM && stream) && !(type == SOCK_DGRAM && dgram)) {
        sm_error_set(error, SM_ERROR_INVALID, "--fd=%d: a socket of another kind%s%s", a->fd,
                     a->kind_given ? " than --fd-kind=" : ": stream and datagram sockets carry frames",
                     a->kind_given ? kind_names[a->kind] : "");
        return false;
    }
    if (!a->kind_given)
        a->kind = type == SOCK_STREAM ? SM_KIND_STREAM : SM_KIND_DGRAM;
    if (getpeername(a->fd, (struct sockaddr *)&peer, &peer_len) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "--fd=%d: not connected: give one end of a connection", a->fd);
        return false;
    }
    return true;
}

/** Its frames go through the kernel, or none do. */
static bool check_datapath(const struct sm_attach_options *a, bool tproxy, GError **error)
{
    bool device = a->way == SM_ATTACH_TAP || a->way == SM_ATTACH_DEVICE;

    if (a->way == SM_ATTACH_NONE)
        sm_error_set(error, SM_ERROR_INVALID, "no port: say where the VMM comes in: %s",
                     tproxy ? "--tap PATH or --device NAME"
                            : "--stream PATH, --vhost-user PATH, --dgram PATH or --fd N");
    else if (device && !tproxy)
        sm_error_set(error, SM_ERROR_INVALID,
                     "--%s: only with --datapath tproxy: add that, or write --stream PATH or another port in its place",
                     way_names[a->way]);
    else if (!device && tproxy)
        sm_error_set(
            error, SM_ERROR_INVALID,
            "--%s: with --datapath tproxy frames come by a network device of the kernel's: write --tap PATH or "
            "--device NAME in its place",
            way_names[a->way]);
    return a->way != SM_ATTACH_NONE && device == tproxy;
}

bool sm_attach_check(struct sm_attach_options *a, bool tproxy, GError **error)
{
    struct sm_listen_spec row;

    if (!check_datapath(a, tproxy, error))
        return false;
    if (a->way != SM_ATTACH_FD && a->kind_given) {
        sm_error_set(error, SM_ERROR_INVALID, "--fd-kind: says what --fd is: leave it out");
        return false;
    }
    if (a->client && a->way != SM_ATTACH_STREAM && a->way != SM_ATTACH_VHOST_USER) {
        sm_error_set(error, SM_ERROR_INVALID, "--client: only with --stream and --vhost-user: leave it out");
        return false;
    }
    if (a->way == SM_ATTACH_FD && (a->fd == a->ready_fd || a->fd == a->owner_fd)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s=%d: that is --fd: give another one",
                     a->fd == a->ready_fd ? "--ready-fd" : "--owner-fd", a->fd);
        return false;
    }
    if (a->owner_fd >= 0 && (a->owner_fd == a->ready_fd || sm_fd_set_nonblock(a->owner_fd) < 0)) {
        sm_error_set(error, SM_ERROR_INVALID, "--owner-fd=%d: not a descriptor of its own", a->owner_fd);
        return false;
    }
    if (a->way == SM_ATTACH_FD)
        return look_at_fd(a, error);
    if (!sm_attach_listens(a, &row) || sm_listens_check(&row, error))
        return true;
    g_prefix_error(error, "--%s: ", way_names[a->way]);
    return false;
}

void sm_attach_clear(struct sm_attach_options *a)
{
    g_clear_pointer(&a->path, g_free);
    g_clear_pointer(&a->peer, g_free);
    g_clear_pointer(&a->device, g_free);
}

bool sm_attach_listens(const struct sm_attach_options *a, struct sm_listen_spec *ret)
{
    if (a->way == SM_ATTACH_NONE || a->way == SM_ATTACH_FD || a->way == SM_ATTACH_DEVICE)
        return false;
    *ret = (struct sm_listen_spec){
        .kind = a->way == SM_ATTACH_DGRAM ? SM_LISTEN_DGRAM
                : a->path                 ? SM_LISTEN_UNIX
                                          : SM_LISTEN_TCP,
        .client = a->client,
        .single = a->way != SM_ATTACH_TAP,
        .tag = a->way == SM_ATTACH_TAP ? SM_LISTEN_TAG_TAP : SM_LISTEN_TAG_NET,
        .path = a->path,
        .peer = a->peer,
        .endpoint = a->endpoint,
    };
    return true;
}

/* ---- what the VMM is started with ---- */

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

json_t *sm_attach_facts(const struct sm_attach_options *a)
{
    char text[SM_ENDPOINT_STRLEN];
    bool tcp = a->way == SM_ATTACH_STREAM && !a->path;

    return json_pack("{s:s, s:o, s:o, s:o, s:b, s:o}", "kind", kind_names[a->kind], "path", text_or_null(a->path),
                     "peer", text_or_null(a->peer), "address",
                     tcp ? json_string(sm_endpoint_format(&a->endpoint, text)) : json_null(), "client", (int)a->client,
                     "device", text_or_null(a->device));
}

static void add(json_t *list, const char *fmt, ...) SM_PRINTF(2, 3);
static void add(json_t *list, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    (void)json_array_append_new(list, json_string(text));
}

/** In QEMU's options a comma is written twice. */
static char *qemu_value(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    return g_strjoinv(",,", parts);
}

/** The certificate's and the mediation channel's ways into QEMU's guest. */
static void add_devices(const struct sm_vsock_options *v, json_t *args)
{
    if (v->device) {
        g_autofree char *path = qemu_value(v->device);
        add(args, "-chardev");
        add(args, "socket,id=vsock0,path=%s", path);
        add(args, "-device");
        add(args, "vhost-user-vsock-pci,chardev=vsock0");
    }
    if (v->serial) {
        g_autofree char *path = qemu_value(v->serial);
        add(args, "-chardev");
        add(args, "socket,id=serial0,path=%s", path);
        add(args, "-device");
        add(args, "virtio-serial-pci");
        add(args, "-device");
        add(args, "virtserialport,chardev=serial0,name=" SM_VSOCK_SERIAL_NAME);
    }
}

/** QEMU's helper of its taps: a command for a shell, to which it adds --fd and --br (cli/tap.c). */
static char *tap_helper(const char *path)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *program = g_shell_quote(self ? self : "slirp-med");
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *command = g_strdup_printf("%s tap %s", program, quoted);
    return qemu_value(command);
}

static json_t *qemu_args(const struct sm_run_options *o, const char *ca)
{
    const struct sm_attach_options *a = &o->attach;
    g_autofree char *path = qemu_value(a->path ? a->path : "");
    g_autofree char *peer = qemu_value(a->peer ? a->peer : "");
    const char *server = a->client ? "on" : "off";
    char ip[SM_ADDR_STRLEN];
    json_t *args = json_array();

    bool our_tap = a->way == SM_ATTACH_TAP;
    if (!our_tap && (a->kind == SM_KIND_TAP || a->kind == SM_KIND_TAP_VNET || a->kind == SM_KIND_DEVICE)) {
        json_decref(args);
        return json_null();
    }
    if (a->kind == SM_KIND_VHOST_USER || o->vsock.device) {
        add(args, "-m");
        add(args, EXAMPLE_MEMORY);
        add(args, "-object");
        add(args, "memory-backend-memfd,id=mem0,size=" EXAMPLE_MEMORY ",share=on");
        add(args, "-machine");
        add(args, "memory-backend=mem0");
    }
    if (a->kind == SM_KIND_VHOST_USER) {
        add(args, "-chardev");
        if (a->way == SM_ATTACH_FD)
            add(args, "socket,id=chr0,fd=FD");
        else
            add(args, "socket,id=chr0,path=%s%s", path, a->client ? ",server=on" : "");
    }
    add(args, "-netdev");
    if (our_tap) {
        g_autofree char *helper = tap_helper(a->path);
        add(args, "tap,id=net0,helper=%s", helper);
    } else if (a->kind == SM_KIND_VHOST_USER)
        add(args, "vhost-user,id=net0,chardev=chr0");
    else if (a->way == SM_ATTACH_FD)
        add(args, a->kind == SM_KIND_STREAM ? "stream,id=net0,server=off,addr.type=fd,addr.str=FD"
                                            : "dgram,id=net0,local.type=fd,local.str=FD");
    else if (a->way == SM_ATTACH_DGRAM)
        add(args, "dgram,id=net0,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", peer, path);
    else if (a->path)
        add(args, "stream,id=net0,server=%s,addr.type=unix,addr.path=%s", server, path);
    else
        add(args, "stream,id=net0,server=%s,addr.type=inet,addr.host=%s,addr.port=%u", server,
            sm_addr_format(&a->endpoint.addr, ip), (unsigned)a->endpoint.port);
    add(args, "-device");
    add(args, "virtio-net-pci,netdev=net0,mac=%s", o->net.guest_mac);
    add_devices(&o->vsock, args);
    if (ca) { /* where there is no vsock and no virtio-serial port, this needs neither */
        g_autofree char *file = qemu_value(ca);
        add(args, "-fw_cfg");
        add(args, "name=" SM_QEMU_FW_CFG_CA ",file=%s", file);
    }
    return args;
}

static json_t *cloud_hypervisor_args(const struct sm_run_options *o)
{
    const struct sm_attach_options *a = &o->attach;
    json_t *args = json_array();

    /* Of its options a comma cannot be part. */
    if (a->way != SM_ATTACH_VHOST_USER || strchr(a->path, ',')) {
        json_decref(args);
        return json_null();
    }
    add(args, "--memory");
    add(args, "size=" EXAMPLE_MEMORY ",shared=on");
    add(args, "--net");
    add(args, "vhost_user=true,socket=%s%s,mac=%s", a->path, a->client ? ",vhost_mode=server" : "", o->net.guest_mac);
    if (o->vsock.hybrid && !strchr(o->vsock.hybrid, ',')) {
        add(args, "--vsock");
        add(args, "cid=%d,socket=%s", SM_VSOCK_CID_DEFAULT, o->vsock.hybrid);
    }
    return args;
}

static json_t *hints(const struct sm_run_options *o)
{
    const struct sm_attach_options *a = &o->attach;
    json_t *list = json_array();

    if (a->kind == SM_KIND_VHOST_USER || o->vsock.device) {
        add(list, "put the guest's RAM in place of " EXAMPLE_MEMORY ", wherever it stands; it has to be shared");
        add(list,
            "QEMU 7.2 without KVM (TCG) crashes with vhost-user and MSI-X: add vectors=0 to each vhost-user device");
    }
    if (a->way == SM_ATTACH_TAP) {
        g_autofree char *path = g_shell_quote(a->path);
        add(list, "any other VMM: slirp-med tap %s -- VMM ... starts it with the tap as descriptor 3", path);
    } else if (a->way == SM_ATTACH_DEVICE)
        add(list,
            "the guest is whoever has the other end of %s; its MAC address has to be the one above, its address the "
            "one that DHCP offers",
            a->device);
    else if (a->kind == SM_KIND_TAP || a->kind == SM_KIND_TAP_VNET)
        add(list, "the guest is whoever uses the tap's interface; its MAC address has to be the one above");
    else if (a->way == SM_ATTACH_FD)
        add(list, "FD is the number that the other end of the connection has in the VMM");
    if (a->way == SM_ATTACH_STREAM && !a->path)
        add(list, "every user of this machine can connect to a TCP port: a path keeps others out");
    if (o->vsock.hybrid)
        add(list, "hybrid vsock: the VMM's own socket is %s (cloud-hypervisor: --vsock socket=, Firecracker: uds_path)",
            o->vsock.hybrid);
    if (o->net.mtu != SM_NET_MTU_DEFAULT)
        add(list, "the guest learns the MTU of %u by DHCP", o->net.mtu);
    if (a->client)
        add(list, "the VMM may be started before or after: it is looked for until it is there");
    return list;
}

json_t *sm_attach_args(const struct sm_run_options *o, const char *ca)
{
    return json_pack("{s:s, s:o, s:s, s:i, s:o, s:o, s:o, s:o}", "workspace", o->name, "port",
                     sm_attach_facts(&o->attach), "mac", o->net.guest_mac, "mtu", (int)o->net.mtu, "ca_certificate",
                     text_or_null(ca), "qemu", qemu_args(o, ca), "cloud_hypervisor", cloud_hypervisor_args(o), "hints",
                     hints(o));
}

static void append_command(GString *out, const char *program, const json_t *args)
{
    GPtrArray *argv = g_ptr_array_new();
    json_t *arg;
    size_t i;

    if (!json_is_array(args)) {
        g_ptr_array_unref(argv);
        return;
    }
    g_ptr_array_add(argv, (gpointer)(uintptr_t)program);
    json_array_foreach((json_t *)(uintptr_t)args, i, arg)
    {
        g_ptr_array_add(argv, (gpointer)(uintptr_t)json_string_value(arg));
    }
    g_ptr_array_add(argv, NULL);
    g_autofree char *text = sm_qemu_show((char *const *)argv->pdata);
    g_string_append_printf(out, "%s\n", text);
    g_ptr_array_unref(argv);
}

char *sm_attach_args_text(const json_t *args)
{
    GString *out = g_string_new(NULL);
    const char *ca = json_string_value(json_object_get(args, "ca_certificate"));
    json_t *hint;
    size_t i;

    append_command(out, SM_QEMU_PROGRAM, json_object_get(args, "qemu"));
    append_command(out, "cloud-hypervisor", json_object_get(args, "cloud_hypervisor"));
    g_string_append_printf(out, "# MAC address     %s\n", json_string_value(json_object_get(args, "mac")));
    if (ca)
        g_string_append_printf(out, "# CA certificate  %s\n", ca);
    json_array_foreach(json_object_get(args, "hints"), i, hint)
    {
        g_string_append_printf(out, "# %s\n", json_string_value(hint));
    }
    return g_string_free(out, FALSE);
}

/* ---- telling ---- */

static const char *notify_socket(void)
{
    return getenv("NOTIFY_SOCKET");
}

static void tell_manager(const char *text)
{
    if (sm_notify_send(notify_socket(), text) < 0)
        fprintf(stderr, "slirp-med: warning: NOTIFY_SOCKET=%s: %s\n", notify_socket(), strerror(errno));
}

static void tell_owner(const struct sm_attach_tell *tell)
{
    json_t *o =
        json_pack("{s:s, s:b, s:s?}", "folder", tell->folder, "audit", tell->o->mode != SM_MODE_OFF, "ca", tell->ca);
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
    g_autofree char *line = g_strconcat(text ? text : "{}", "\n", NULL);

    /* One that does not read it has gone, or will be missed by nobody. */
    if (send(tell->o->attach.owner_fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        fprintf(stderr, "slirp-med: warning: --owner-fd=%d: %s\n", tell->o->attach.owner_fd, strerror(errno));
    free(text);
    json_decref(o);
}

void sm_attach_tell_ready(const struct sm_attach_tell *tell, const char *kind, const char *where)
{
    const struct sm_attach_options *a = &tell->o->attach;

    if (a->ready_fd >= 0) {
        g_autofree char *line = g_strdup_printf("ready %s\n", tell->o->name);
        if (write(a->ready_fd, line, strlen(line)) < 0)
            fprintf(stderr, "slirp-med: warning: --ready-fd=%d: %s\n", a->ready_fd, strerror(errno));
        (void)close(a->ready_fd);
    }
    if (a->owner_fd >= 0)
        tell_owner(tell);
    g_autofree char *state = g_strdup_printf("READY=1\nSTATUS=workspace %s, %s %s\n", tell->o->name, kind, where);
    tell_manager(state);
    fprintf(stderr, "slirp-med: ready: %s %s %s\n", tell->o->name, kind, where);
}

void sm_attach_running(void *data)
{
    const struct sm_attach_tell *tell = data;
    const struct sm_attach_options *a = &tell->o->attach;
    char address[SM_ENDPOINT_STRLEN];
    json_t *args = sm_attach_args(tell->o, tell->ca);
    g_autofree char *number = g_strdup_printf("descriptor %d", a->fd);
    const char *where = a->way == SM_ATTACH_FD ? number
                        : a->device            ? a->device
                        : a->path              ? a->path
                                               : sm_endpoint_format(&a->endpoint, address);

    if (tell->o->json) {
        char *text = json_dumps(args, JSON_COMPACT);
        puts(text ? text : "null");
        free(text);
    } else {
        g_autofree char *text = sm_attach_args_text(args);
        fputs(text, stdout);
    }
    json_decref(args);
    (void)fflush(stdout); /* nobody need read it */

    sm_attach_tell_ready(tell, kind_names[a->kind], where);
}

void sm_attach_stopping(void *data)
{
    tell_manager("STOPPING=1\n");
}
