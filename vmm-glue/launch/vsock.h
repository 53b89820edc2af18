/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guest's vsock, as the command line says it: what is behind its ports, and by which doors it comes in. What the core does with it stands
 * in core/vsock.h.
 *
 *   flag                                  meaning
 *   --mediation PORT=HOST:PORT            guest vsock port PORT leads to the TCP target HOST:PORT of this machine's network; must answer at the start
 *   --mediation-optional PORT=HOST:PORT   the same, but it may be down
 *   --vsock-ca-port PORT                  where the CA certificate is (1027)
 *   --vsock PATH                          hybrid vsock: unix sockets PATH_PORT, one for each of these ports (Firecracker, cloud-hypervisor)
 *   --vhost-user-vsock PATH               a vsock device of ours for a VMM that speaks vhost-user (attach only)
 *   --guest-cid CID                       the guest's CID on that device (3)
 *   --serial PATH                         the host's side of a virtio-serial port: the certificate without any vsock (attach only)
 *
 * HOST is resolved by this process with getaddrinfo(3), once, when the workspace starts: the addresses that it has then are those that are dialled.
 */
#ifndef SM_LAUNCH_VSOCK_H
#define SM_LAUNCH_VSOCK_H

#include <glib.h>
#include <jansson.h>

#include "core/config.h"
#include "supervisor/listens.h"

/** The name of the virtio-serial port, by which the guest finds it. */
#define SM_VSOCK_SERIAL_NAME "org.slirp-med.0"

struct sm_vsock_options {
    uint32_t ca_port;   /* 0: the default */
    uint32_t guest_cid; /* 0: the default */
    char *hybrid;       /* --vsock, absolute; NULL: none */
    char *device;       /* --vhost-user-vsock */
    char *serial;       /* --serial */
    struct sm_mediation_target targets[SM_MEDIATION_TARGETS_MAX];
    size_t n_targets;
};

/** Take a flag's value. False with error set, to which the caller puts the flag. */
bool sm_vsock_take_target(struct sm_vsock_options *v, const char *value, bool required, GError **error) SM_WARN_UNUSED;
bool sm_vsock_take_ca_port(struct sm_vsock_options *v, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_vsock_take_cid(struct sm_vsock_options *v, const char *value, GError **error) SM_WARN_UNUSED;
/** sm_vsock_take_path() - of a socket; *ret is one of the three paths. */
bool sm_vsock_take_path(const char *value, char **ret, GError **error) SM_WARN_UNUSED;
/** sm_vsock_check() - what can only be said when all flags are known. May add a warning. */
bool sm_vsock_check(const struct sm_vsock_options *v, bool isolated, bool guest_has_device, GPtrArray *warnings,
                    GError **error) SM_WARN_UNUSED;
void sm_vsock_clear(struct sm_vsock_options *v);

uint32_t sm_vsock_ca_port(const struct sm_vsock_options *v);
uint32_t sm_vsock_cid(const struct sm_vsock_options *v);
/** sm_vsock_given() - was any of the flags there? */
bool sm_vsock_given(const struct sm_vsock_options *v);

/**
 * sm_vsock_resolve() - fill in the targets' addresses. False with error set (SM_ERROR_MISSING) when a required one has none; of an optional
 * one it is said on stderr. Asks the host's resolver, and waits for it.
 */
bool sm_vsock_resolve(struct sm_vsock_options *v, GError **error) SM_WARN_UNUSED;

/** sm_vsock_core_message() - the key "vsock" of the core's configuration; sm_vsock_facts() - for `status` and workspace.json, NULL when nothing was
 * given. New references. */
json_t *sm_vsock_core_message(const struct sm_vsock_options *v);
json_t *sm_vsock_facts(const struct sm_vsock_options *v);

/** sm_vsock_listens() - append the rows for the supervisor. What they borrow lives in texts. */
void sm_vsock_listens(const struct sm_vsock_options *v, GArray *rows, GPtrArray *texts);

#endif
