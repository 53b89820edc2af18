/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's own addresses, which are inside (spec section 3), followed as they change: rtnetlink(7) tells of a change, and then all
 * addresses are asked for again, so that a lost message cannot leave a stale set behind.
 */
#include "core/core.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

static bool ask(int fd)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg body;
    } req = {.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
                      .nlmsg_type = RTM_GETADDR,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                      .nlmsg_seq = 1},
             .body = {.ifa_family = AF_UNSPEC}};
    return send(fd, &req, req.head.nlmsg_len, 0) >= 0;
}

struct gather {
    struct sm_addr addrs[SM_GROUND_OWN_MAX];
    size_t n;
};

static void take_addr(struct gather *g, struct nlmsghdr *h)
{
    struct ifaddrmsg *ifa = NLMSG_DATA(h);
    int left = (int)IFA_PAYLOAD(h);

    for (struct rtattr *a = IFA_RTA(ifa); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if ((a->rta_type != IFA_ADDRESS && a->rta_type != IFA_LOCAL) || g->n == SM_GROUND_OWN_MAX)
            continue;
        /* On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL then comes too and is ours. */
        if (ifa->ifa_family == AF_INET && RTA_PAYLOAD(a) == 4) {
            struct in_addr in;
            memcpy(&in, RTA_DATA(a), sizeof(in));
            if (a->rta_type == IFA_LOCAL)
                g->addrs[g->n++] = sm_addr_from_in(in);
        } else if (ifa->ifa_family == AF_INET6 && RTA_PAYLOAD(a) == 16) {
            struct in6_addr in6;
            memcpy(&in6, RTA_DATA(a), sizeof(in6));
            g->addrs[g->n++] = sm_addr_from_in6(&in6);
        }
    }
}

/* Reads what is there. *changed: an address came or went; *dump: this was (part of) the answer to our question. */
static bool drain(struct sm_core *core, struct gather *g, bool *changed, bool *done)
{
    static uint8_t buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));

    ssize_t n = recv(core->netlink.fd, buf, sizeof(buf), 0);
    if (n < 0) {
        *changed = errno == ENOBUFS; /* messages were lost: ask again */
        return errno != EAGAIN;
    }
    for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
        if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
            *done = true;
        else if (h->nlmsg_type == RTM_NEWADDR && (h->nlmsg_flags & NLM_F_MULTI))
            take_addr(g, h);
        else if (h->nlmsg_type == RTM_NEWADDR || h->nlmsg_type == RTM_DELADDR)
            *changed = true;
    }
    return true;
}

static struct gather gathered; /* one core a process; 70 KiB are too much for a stack frame */

static void on_netlink(struct sm_watch *watch, uint32_t events)
{
    struct sm_core *core = sm_container_of(watch, struct sm_core, netlink);
    bool changed = false, done = false;

    (void)events;
    if (!drain(core, &gathered, &changed, &done))
        return;
    if (done) {
        if (!sm_ground_set_own(core->config->ground, gathered.addrs, gathered.n))
            sm_log_warning("this host has more addresses than are followed");
        gathered.n = 0;
    }
    if (changed && ask(watch->fd))
        gathered.n = 0;
}

bool sm_ownaddr_init(struct sm_core *core, GError **error)
{
    struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    bool changed = false, done = false;

    sm_watch_init(&core->netlink, fd, on_netlink);
    if (fd < 0 || bind(fd, (struct sockaddr *)&nl, sizeof(nl)) < 0 || !ask(fd)) {
        sm_error_set_errno(error, errno, "rtnetlink: cannot learn this host's own addresses");
        return false;
    }
    while (!done && drain(core, &gathered, &changed, &done))
        ;
    if (!done || !sm_ground_set_own(core->config->ground, gathered.addrs, gathered.n)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "rtnetlink: cannot learn this host's own addresses");
        return false;
    }
    gathered.n = 0;
    if (sm_fd_set_nonblock(fd) < 0 || sm_loop_watch(core->loop, &core->netlink, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "rtnetlink: watch");
        return false;
    }
    if (changed)
        (void)!ask(fd);
    return true;
}
