/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med attach`: a workspace for a virtual machine that somebody else starts. What it has beyond `run` and `vm`: where
 * the VMM's frames come from, what the VMM is to be started with, and telling the launcher that all is ready.
 *
 *   way           front's port   the VMM comes by
 *   --stream      stream         a unix socket, or TCP on loopback: QEMU's -netdev stream
 *   --vhost-user  vhost-user     a unix socket: QEMU's -netdev vhost-user, cloud-hypervisor's --net vhost_user=true
 *   --dgram       dgram          a pair of unix datagram sockets: QEMU's -netdev dgram
 *   --tap         tproxy         a unix socket, over which it is sent a tap (kernelpath.h); with --datapath tproxy only
 *   --device      tproxy         a device of ours that is moved (kernelpath.h); the same
 *   --fd          any of them,   a descriptor that we inherit, whose other end is the VMM's; when a stream ends, so does
 *                 or a tap       the workspace, since nothing else can come
 *
 * Ready means: core and front are sandboxed and serving, and the sockets let VMMs in. It is told, in this order, by what
 * is printed on stdout (flushed), by a line on the descriptor of --ready-fd (which is then closed), by a line of JSON on
 * that of --owner-fd, by sd_notify(3) (READY=1), and by a line on stderr: "slirp-med: ready: NAME ...".
 *
 * --owner-fd N is for a program that starts us (vmm-glue/embed): N is one end of a socket. The line is
 * {"folder": the workspace's, "audit": whether there is one, "ca": path of the certificate or null}; when the other end
 * is closed, which the kernel does for a program that dies, the workspace ends as by SIGTERM.
 */
#ifndef SM_LAUNCH_ATTACH_H
#define SM_LAUNCH_ATTACH_H

#include <glib.h>
#include <jansson.h>

#include "supervisor/listens.h"

struct sm_run_options;

enum sm_attach_way {
    SM_ATTACH_NONE,
    SM_ATTACH_STREAM,
    SM_ATTACH_VHOST_USER,
    SM_ATTACH_DGRAM,
    SM_ATTACH_FD,
    SM_ATTACH_TAP,
    SM_ATTACH_DEVICE,
    SM_ATTACH_WAYS
};
/** sm_attach_way_name() - the flag, without the dashes. */
const char *sm_attach_way_name(enum sm_attach_way way);

/** What carries frames. */
enum sm_attach_kind {
    SM_KIND_STREAM,
    SM_KIND_DGRAM,
    SM_KIND_TAP,
    SM_KIND_VHOST_USER,
    SM_KIND_TAP_VNET,
    SM_KIND_DEVICE,
    SM_ATTACH_KINDS
};
/** sm_attach_kind_name() - as the front calls its port (ports/ports.h), but on the kernel path, where it has none. */
const char *sm_attach_kind_name(enum sm_attach_kind kind);

struct sm_attach_options {
    enum sm_attach_way way;
    enum sm_attach_kind kind;    /* of whichever way */
    bool kind_given;             /* --fd-kind */
    char *path, *peer;           /* absolute; NULL: a TCP address, --fd, or --device */
    char *device;                /* of --device, or NULL */
    struct sm_endpoint endpoint; /* TCP, when path is NULL */
    bool client;                 /* the VMM listens */
    int fd, ready_fd, owner_fd;  /* -1: none; the caller's of the whole program */
    bool print_args;             /* and nothing else */
};

/** Take a flag's value. False with error set, to which the caller puts the flag. */
bool sm_attach_take_stream(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_vhost_user(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_dgram(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_fd(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_tap(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_device(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_kind(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_ready_fd(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_attach_take_owner_fd(struct sm_attach_options *a, const char *value, GError **error) SM_WARN_UNUSED;
/** sm_attach_check() - what can only be said when all flags are known; looks what --fd is. @tproxy: --datapath
 * tproxy. */
bool sm_attach_check(struct sm_attach_options *a, bool tproxy, GError **error) SM_WARN_UNUSED;
void sm_attach_clear(struct sm_attach_options *a);

/** sm_attach_listens() - the row for the supervisor; false: none is needed (--fd, --device). */
bool sm_attach_listens(const struct sm_attach_options *a, struct sm_listen_spec *ret) SM_WARN_UNUSED;
/** sm_attach_facts() - for `status` and workspace.json; a new reference. */
json_t *sm_attach_facts(const struct sm_attach_options *a);

/**
 * sm_attach_args() - what a VMM is started with, as JSON: workspace, port, mac, mtu, ca_certificate, qemu, cloud_hypervisor (arrays of arguments,
 * or null where that VMM has no such port), hints. A new reference.
 * @ca: path of the certificate, or NULL.
 */
json_t *sm_attach_args(const struct sm_run_options *o, const char *ca);
/** sm_attach_args_text() - the same for people, made of the JSON and of nothing else; g_free(). */
char *sm_attach_args_text(const json_t *args);

/** For whom is told what. */
struct sm_attach_tell {
    const struct sm_run_options *o;
    const char *ca, *folder;
};
/** sm_attach_tell_ready() - what follows stdout: --ready-fd, --owner-fd, sd_notify(3) and stderr. @kind, @where: of the port, in words. */
void sm_attach_tell_ready(const struct sm_attach_tell *tell, const char *kind, const char *where);
/** sm_attach_running(), sm_attach_stopping() - for the supervisor; data is struct sm_attach_tell. */
void sm_attach_running(void *data);
void sm_attach_stopping(void *data);

#endif
