/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med proxy`: a workspace whose front is an explicit HTTP proxy, for clients on a network without a gateway
 * (spec section 11). What it has beyond the other commands: where it listens, who may use it, credentials of its own,
 * routes, and telling that all is ready.
 *
 * One process serves one network: --listen is an address of this machine in it, --client-net says who may come
 * (default: the network of the interface that has the address; of a loopback address: loopback). For several networks
 * several are started.
 *
 * Ready is told as `attach` tells it (attach.h): on stdout (the proxy's address and the path of the CA's certificate),
 * by --ready-fd, by sd_notify(3), and by a line on stderr.
 */
#ifndef SM_LAUNCH_PROXY_H
#define SM_LAUNCH_PROXY_H

#include <glib.h>
#include <jansson.h>

#include "core/config.h"
#include "policy/route.h"

struct sm_run_options;

/** Connections that wait in the kernel to be accepted; net.core.somaxconn cuts it. */
#define SM_PROXY_BACKLOG 4096
/** user:password of --proxy-auth: more than any client sends. */
#define SM_PROXY_AUTH_MAX 1024

struct sm_proxy_options {
    bool listens;
    struct sm_endpoint listen; /* port 0 until it is bound: any free one */
    struct sm_prefix clients[SM_PROXY_CLIENTS_MAX];
    size_t n_clients;
    char *auth; /* text of the reference; NULL: everybody of the clients */
    struct sm_routes routes;
};

/** Take a flag's value. False with error set, to which the caller puts the flag. */
bool sm_proxy_take_listen(struct sm_proxy_options *p, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_proxy_take_client(struct sm_proxy_options *p, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_proxy_take_auth(struct sm_proxy_options *p, const char *value, GError **error) SM_WARN_UNUSED;
bool sm_proxy_take_route(struct sm_proxy_options *p, const char *value, GError **error) SM_WARN_UNUSED;
/** sm_proxy_check() - what can only be said when all flags are known. */
bool sm_proxy_check(const struct sm_proxy_options *p, GError **error) SM_WARN_UNUSED;
void sm_proxy_clear(struct sm_proxy_options *p);

/**
 * sm_proxy_open() - bind and listen; the port and, unless they were given, the clients are filled in. The descriptor,
 * or -1 with error (SM_ERROR_INVALID: the address is in use, or not this machine's).
 */
int sm_proxy_open(struct sm_proxy_options *p, GError **error);

/** sm_proxy_core_message() - the key "proxy" of the core's configuration; a new reference. */
json_t *sm_proxy_core_message(const struct sm_proxy_options *p);
/**
 * sm_proxy_front_message() - the front's configuration (paths/proxy_config.h), g_free(). Reads what --proxy-auth
 * names. NULL with error.
 */
char *sm_proxy_front_message(const struct sm_run_options *o, GError **error);
/** sm_proxy_facts() - for `status` and workspace.json; a new reference. */
json_t *sm_proxy_facts(const struct sm_proxy_options *p);

/** sm_proxy_running() - for the supervisor; data is struct sm_attach_tell. (On stopping: sm_attach_stopping().) */
void sm_proxy_running(void *data);

#endif
