/* SPDX-License-Identifier: BSD-3-Clause */
/* Moving network devices; see netdev.h. */
#include "paths/netdev.h"

#include <linux/rtnetlink.h>
#include <net/if.h>

#include "paths/netlink.h"

int sm_netdev_move(const char *device, int ns)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(device)};

    if (fixed.ifi_index == 0)
        return -1;
    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWLINK, NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_u32(n, IFLA_NET_NS_FD, (uint32_t)ns);
    return sm_netlink_send(n, NETLINK_ROUTE);
}
