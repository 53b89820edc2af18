/* SPDX-License-Identifier: BSD-3-Clause */
/* Starting the kernel path for a guest that is not ours to start; see kernelpath.h. */
#include "launch/kernelpath.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/loop.h"
#include "paths/keeper.h"
#include "paths/netdev.h"
#include "supervisor/spawn.h"
#include "supervisor/supervisor.h"

#define WHO "the kernel path's keeper"

/** A network card, a bridge or lo would take this machine's own network away: only what was made to have two ends is
 * taken. */
bool sm_kernel_path_check(const char *device, GError **error)
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq ifr = {0};
    sm_autofd sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    g_strlcpy(ifr.ifr_name, device, sizeof(ifr.ifr_name));
    if (if_nametoindex(device) == 0) {
        sm_error_set(error, SM_ERROR_INVALID, "--device=%s: there is no such network device here", device);
        return false;
    }
    ifr.ifr_data = (char *)&info;
    if (sock >= 0 && ioctl(sock, SIOCETHTOOL, &ifr) == 0) {
        info.driver[sizeof(info.driver) - 1] = info.bus_info[sizeof(info.bus_info) - 1] = '\0';
        if (strcmp(info.driver, "veth") == 0 || (strcmp(info.driver, "tun") == 0 && strcmp(info.bus_info, "tap") == 0))
            return true;
    }
    sm_error_set(error, SM_ERROR_INVALID, "--device=%s: neither one end of a veth pair nor a tap: make one of them",
                 device);
    return false;
}

static char *configuration(const struct sm_run_options *o)
{
    char ip[SM_ADDR_STRLEN], gateway[SM_ADDR_STRLEN], resolver[SM_ADDR_STRLEN];
    json_t *m = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s*}", "name", o->name, "ip",
                          sm_addr_format(&o->net.guest, ip), "gateway", sm_addr_format(&o->net.gateway, gateway),
                          "resolver", sm_addr_format(&o->net.resolver, resolver), "mac", o->net.guest_mac,
                          "gateway_mac", o->net.our_mac, "mtu", (int)o->net.mtu, "device", o->attach.device);
    char *dumped = json_dumps(m, JSON_COMPACT);
    char *text = g_strdup(dumped ? dumped : "");

    free(dumped);
    json_decref(m);
    return text;
}

/** The next message, in time. False with error set. */
static bool next(int link, int64_t until_us, struct sm_link_msg *msg, GError **error)
{
    struct pollfd p = {.fd = link, .events = POLLIN};
    int64_t left = until_us - sm_clock_us();
    int n = left > 0 ? poll(&p, 1, (int)(left / 1000) + 1) : 0;

    if (n < 0 && errno == EINTR)
        return next(link, until_us, msg, error);
    if (n <= 0) {
        sm_error_set(error, SM_ERROR_SYSTEM, WHO " is not ready in time");
        return false;
    }
    int got = sm_link_recv(link, msg);
    if (got > 0)
        return true;
    sm_error_set(error, SM_ERROR_SYSTEM, WHO " ended unexpectedly");
    return false;
}

static int bring_device(const struct sm_run_options *o, int link, int ns, GError **error)
{
    if (sm_netdev_move(o->attach.device, ns) < 0) {
        if (errno == EPERM)
            sm_error_set(
                error, SM_ERROR_MISSING,
                "--device=%s: it may be moved by whoever has CAP_NET_ADMIN over this network namespace: root, or "
                "its owner (unshare -Urn); --tap PATH needs no such right",
                o->attach.device);
        else
            sm_error_set_errno(error, errno, "--device=%s: move it to the mediator's network namespace",
                               o->attach.device);
        return -1;
    }
    if (sm_link_send(link, SM_LINK_GO, NULL, -1) == 0)
        return 0;
    sm_error_set_errno(error, errno, "message to " WHO);
    return -1;
}

/** Until all that there is to be has come. */
static int take(const struct sm_run_options *o, int link, struct sm_kernel_path *k, GError **error)
{
    static struct sm_link_msg msg; /* large */
    int64_t until_us = sm_clock_us() + SM_SUPERVISOR_START_MS * INT64_C(1000);
    bool wants_tap = !o->attach.device;

    while (k->bundle < 0 || (wants_tap && k->tap < 0)) {
        if (!next(link, until_us, &msg, error))
            return -1;
        sm_autofd fd = sm_steal_fd(&msg.fd);
        if (msg.verb == SM_LINK_FAIL) {
            bool whole = g_str_has_prefix(msg.text, SM_LINK_FAIL_AS_IT_IS);
            sm_error_set(error, SM_ERROR_MISSING, "%s%s", whole ? "" : WHO ": ", msg.text);
            return -1;
        }
        if (msg.verb == SM_LINK_TAP && fd >= 0 && !wants_tap && strcmp(msg.text, SM_KEEPER_NAMESPACE) == 0) {
            if (bring_device(o, link, fd, error) < 0)
                return -1;
        } else if (msg.verb == SM_LINK_TAP && fd >= 0 && k->bundle < 0 && msg.text[0] == '\0') {
            k->bundle = sm_steal_fd(&fd);
        } else if (msg.verb == SM_LINK_TAP && fd >= 0 && wants_tap && strcmp(msg.text, SM_KEEPER_CARD) == 0) {
            k->tap = sm_steal_fd(&fd);
        } else {
            sm_error_set(error, SM_ERROR_SYSTEM, WHO " said something else than it may");
            return -1;
        }
    }
    return 0;
}

int sm_kernel_path_start(const struct sm_run_options *o, const char *edge, char *const *envp,
                         struct sm_kernel_path *ret, GError **error)
{
    sm_cleanup(sm_kernel_path_clear) struct sm_kernel_path k = SM_KERNEL_PATH_INIT;
    char self[] = "slirp-med", role[] = "keeper";
    char *argv[] = {self, role, NULL};
    int pair[2];

    if (o->attach.device && !sm_kernel_path_check(o->attach.device, error))
        return -1;
    g_autofree char *text = configuration(o);
    sm_autofd config = sm_fd_memfd("config", text, strlen(text), error);
    if (config < 0)
        return -1;
    if (sm_fd_seqpair(pair, false) < 0) {
        sm_error_set_errno(error, errno, "socket pair for " WHO);
        return -1;
    }
    sm_autofd ours = pair[0], theirs = pair[1];
    struct sm_spawn_spec spec = {.exe = edge,
                                 .argv = argv,
                                 .envp = envp,
                                 .fds = {theirs, config},
                                 .n_fds = 2,
                                 .err_fd = -1,
                                 .own_session = true};
    k.keeper = sm_spawn(&spec, &k.pidfd, error);
    if (k.keeper < 0) {
        k.keeper = 0;
        return -1;
    }
    sm_fd_close(&theirs); /* its end is to be seen */
    if (take(o, ours, &k, error) < 0)
        return -1;
    *ret = (struct sm_kernel_path){.keeper = k.keeper,
                                   .pidfd = sm_steal_fd(&k.pidfd),
                                   .bundle = sm_steal_fd(&k.bundle),
                                   .tap = sm_steal_fd(&k.tap)};
    k.keeper = 0;
    return 0;
}

void sm_kernel_path_clear(struct sm_kernel_path *k)
{
    if (k->keeper > 0) {
        (void)sm_spawn_signal(k->pidfd, SIGKILL);
        while (waitpid(k->keeper, NULL, 0) < 0 && errno == EINTR)
            continue;
        k->keeper = 0;
    }
    sm_fd_close(&k->pidfd);
    sm_fd_close(&k->bundle);
    sm_fd_close(&k->tap);
}
