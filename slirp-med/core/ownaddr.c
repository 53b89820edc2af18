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

/*
 * The state of the question. One core a process; 70 KiB are too much for a stack frame. The kernel answers one dump at a time, and a set is
 * only taken over when its dump is complete and nothing changed meanwhile: half a set would open the other half.
 */
static struct {
    struct sm_addr addrs[SM_GROUND_OWN_MAX];
    size_t n;
    bool overflow; /* there are more than addrs holds */
    uint32_t seq;  /* of the dump that is asked for; 0: none yet */
    bool asking;
    bool again; /* something changed since it was asked for */
} own;

static bool ask(int fd)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg body;
    } req = {.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
                      .nlmsg_type = RTM_GETADDR,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                      .nlmsg_seq = ++own.seq},
             .body = {.ifa_family = AF_UNSPEC}};

    own.n = 0;
    own.overflow = own.again = false;
    own.asking = send(fd, &req, req.head.nlmsg_len, 0) >= 0;
    return own.asking;
}

static void take(struct sm_addr addr)
{
    if (own.n < SM_GROUND_OWN_MAX)
        own.addrs[own.n++] = addr;
    else
        own.overflow = true;
}

static void take_addr(struct nlmsghdr *h)
{
    struct ifaddrmsg *ifa = NLMSG_DATA(h);
    int left = (int)IFA_PAYLOAD(h);

    for (struct rtattr *a = IFA_RTA(ifa); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        /* On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL then comes too and is ours. IPv6 has it only then. */
        if (ifa->ifa_family == AF_INET && a->rta_type == IFA_LOCAL && RTA_PAYLOAD(a) == 4) {
            struct in_addr in;
            memcpy(&in, RTA_DATA(a), sizeof(in));
            take(sm_addr_from_in(in));
        } else if (ifa->ifa_family == AF_INET6 && (a->rta_type == IFA_ADDRESS || a->rta_type == IFA_LOCAL) &&
                   RTA_PAYLOAD(a) == 16) {
            struct in6_addr in6;
            memcpy(&in6, RTA_DATA(a), sizeof(in6));
            take(sm_addr_from_in6(&in6));
        }
    }
}

enum drained { NOTHING, PART, DONE, FAILED };

/* Reads what is there. An address that came or went, or a message that was lost (ENOBUFS), sets own.again. */
static enum drained drain(int fd)
{
    static uint8_t buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
    enum drained ret = PART;

    ssize_t n = recv(fd, buf, sizeof(buf), 0);
    if (n < 0 && errno == ENOBUFS) {
        own.again = true;
        return PART;
    }
    if (n < 0)
        return errno == EINTR ? PART : NOTHING;
    for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
        bool answer = own.asking && h->nlmsg_seq == own.seq;
        if (answer && (h->nlmsg_flags & NLM_F_DUMP_INTR))
            own.again = true;
        if (answer && h->nlmsg_type == NLMSG_DONE)
            ret = DONE;
        else if (answer && h->nlmsg_type == NLMSG_ERROR)
            ret = FAILED;
        else if (answer && h->nlmsg_type == RTM_NEWADDR && (h->nlmsg_flags & NLM_F_MULTI))
            take_addr(h);
        else if (h->nlmsg_type == RTM_NEWADDR || h->nlmsg_type == RTM_DELADDR)
            own.again = true;
    }
    if (ret == DONE || ret == FAILED)
        own.asking = false;
    return ret;
}

static bool adopt(struct sm_core *core)
{
    return !own.overflow && sm_ground_set_own(core->config->ground, own.addrs, own.n);
}

static void on_netlink(struct sm_watch *watch, uint32_t events)
{
    struct sm_core *core = sm_container_of(watch, struct sm_core, netlink);

    (void)events;
    switch (drain(watch->fd)) {
    case NOTHING:
        return;
    case DONE:
        if (!own.again && !adopt(core))
            sm_log_error("this host has more addresses than can be followed (%d): new ones are not known to be inside",
                         SM_GROUND_OWN_MAX);
        break;
    case FAILED:
        sm_log_error("rtnetlink: the host's own addresses could not be read: those known before stay inside");
        break;
    case PART:
        break;
    }
    if (own.again && !own.asking && !ask(watch->fd))
        sm_log_error("rtnetlink: the host's own addresses could not be asked for: those known before stay inside");
}

bool sm_ownaddr_init(struct sm_core *core, GError **error)
{
    struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    enum drained got = PART;

    sm_watch_init(&core->netlink, fd, on_netlink);
    if (fd < 0 || bind(fd, (struct sockaddr *)&nl, sizeof(nl)) < 0 || !ask(fd)) {
        sm_error_set_errno(error, errno, "rtnetlink: cannot learn this host's own addresses");
        return false;
    }
    while (got == PART || (got == DONE && own.again && ask(fd)))
        got = drain(fd);
    if (got != DONE || own.again || !adopt(core)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "rtnetlink: cannot learn this host's own addresses%s",
                     own.overflow ? ": too many" : "");
        return false;
    }
    if (sm_fd_set_nonblock(fd) < 0 || sm_loop_watch(core->loop, &core->netlink, EPOLLIN) < 0) {
        sm_error_set_errno(error, errno, "rtnetlink: watch");
        return false;
    }
    return true;
}
