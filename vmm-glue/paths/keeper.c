/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel path's keeper as a process of its own; see keeper.h. */
#include "paths/keeper.h"

#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "paths/tproxy.h"
#include "sandbox/sandbox.h"

#define STATUS_FAILED 125

/** What the configuration says; device points into text. */
struct wanted {
    json_t *root;
    struct sm_tap_spec card;
    struct sm_tproxy_spec spec;
};

static void wanted_clear(struct wanted *w)
{
    json_decref(w->root);
}

static int report_failure(const char *reason)
{
    if (sm_link_send(SM_LINK_FD, SM_LINK_FAIL, reason, -1) < 0)
        sm_log_error("%s", reason);
    return STATUS_FAILED;
}

static bool v4(const char *text, struct sm_addr *ret)
{
    return sm_addr_parse(text, ret) && ret->family == SM_FAMILY_V4;
}

static int parse(struct wanted *w, const char *text, size_t len, GError **error)
{
    json_error_t where;
    const char *name, *ip, *gateway, *resolver, *mac, *gateway_mac, *device = NULL;
    int mtu;

    w->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!w->root || json_unpack_ex(w->root, &where, JSON_STRICT, "{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s?s}", "name",
                                   &name, "ip", &ip, "gateway", &gateway, "resolver", &resolver, "mac", &mac,
                                   "gateway_mac", &gateway_mac, "mtu", &mtu, "device", &device) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "keeper configuration: %s", where.text);
        return -1;
    }
    if (!v4(ip, &w->card.ip) || !v4(gateway, &w->card.gateway) || !v4(resolver, &w->spec.resolver) ||
        !sm_tap_parse_mac(mac, w->card.mac) || !sm_tap_parse_mac(gateway_mac, w->spec.our_mac) ||
        mtu < SM_TAP_MTU_MIN || mtu > SM_TAP_MTU_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "keeper configuration: an address, a MAC address or an MTU that is none");
        return -1;
    }
    w->card.mtu = (unsigned)mtu;
    w->card.vnet_hdr = true;
    w->spec.workspace = name;
    w->spec.kind = device ? SM_TPROXY_GIVEN : SM_TPROXY_TAP;
    w->spec.card = &w->card;
    w->spec.given = device;
    return 0;
}

/* The launcher has the right to move the device; we have none outside of our own namespaces. */
static int fetch(void *data, int ns, GError **error)
{
    static struct sm_link_msg msg; /* large */

    if (sm_link_send(SM_LINK_FD, SM_LINK_TAP, SM_KEEPER_NAMESPACE, ns) < 0) {
        sm_error_set_errno(error, errno, "message to the launcher");
        return -1;
    }
    int got = sm_link_recv(SM_LINK_FD, &msg);
    if (got > 0)
        sm_fd_close(&msg.fd);
    if (got > 0 && msg.verb == SM_LINK_GO)
        return 0;
    sm_error_set(error, SM_ERROR_SYSTEM, "the launcher brings no device");
    return -1;
}

static int make(struct wanted *w, int *ret_keeper_end, GError **error)
{
    sm_cleanup(sm_tproxy_close_fds) int fds[SM_TPROXY_FDS] = SM_TPROXY_NO_FDS;
    sm_autofd config_fd = SM_CONFIG_FD, tap = -1, end = -1;
    size_t len;

    if (sm_sandbox_parent(SM_LINK_FD, error) < 0)
        return -1;
    g_autofree char *text = sm_fd_read_all(config_fd, SM_KEEPER_CONFIG_MAX, &len, error);
    if (!text || parse(w, text, len, error) < 0)
        return -1;
    w->spec.fetch = fetch;
    if (sm_sandbox_user_ns(geteuid(), getegid(), error) < 0)
        return -1;
    if (unshare(CLONE_NEWNET) < 0) {
        sm_error_set_errno(error, errno, "make the mediator's network namespace (see `slirp-med doctor`)");
        return -1;
    }
    /* The namespaces changed our credentials, which can undo the first one. */
    if (sm_sandbox_parent(SM_LINK_FD, error) < 0 || sm_tproxy_furnish(&w->spec, -1, fds, &tap, error) < 0)
        return -1;
    sm_autofd bundle = sm_tproxy_bundle(fds, &end, error);
    if (bundle < 0)
        return -1;
    if (sm_link_send(SM_LINK_FD, SM_LINK_TAP, NULL, bundle) < 0 ||
        (tap >= 0 && sm_link_send(SM_LINK_FD, SM_LINK_TAP, SM_KEEPER_CARD, tap) < 0)) {
        sm_error_set_errno(error, errno, "message to the launcher");
        return -1;
    }
    *ret_keeper_end = sm_steal_fd(&end);
    return 0;
}

int sm_keeper_main(int argc, char **argv)
{
    static const int keep[] = {SM_LINK_FD, SM_CONFIG_FD};
    sm_cleanup(wanted_clear) struct wanted w = {0};
    g_autoptr(GError) error = NULL;
    int end = -1;

    sm_log_init("keeper");
    if (argc > 1) {
        sm_log_error("keeper is started by `slirp-med attach` and takes no arguments (found '%s')", argv[1]);
        return 2;
    }
    if (sm_sandbox_close_fds(keep, SM_ARRAY_LEN(keep)) < 0 || sm_fd_set_cloexec(SM_LINK_FD, true) < 0 ||
        sm_fd_set_cloexec(SM_CONFIG_FD, true) < 0) {
        sm_log_error("keeper is started by `slirp-med attach`: descriptors %d and %d are missing", SM_LINK_FD,
                     SM_CONFIG_FD);
        return 2;
    }
    if (make(&w, &end, &error) < 0)
        return report_failure(error->message);
    sm_tproxy_keep(end, &w.card.ip);
}
