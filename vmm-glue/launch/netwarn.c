/* SPDX-License-Identifier: BSD-3-Clause */
/* What a declared network hides; see netwarn.h. */
#include "launch/netwarn.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>

#include "policy/inside.h"

static unsigned bits_of(const struct sockaddr *mask)
{
    struct sockaddr_in in;

    if (!mask)
        return 32;
    memcpy(&in, mask, sizeof(in));
    return (unsigned)__builtin_popcount(in.sin_addr.s_addr);
}

static void warn_of(const struct sm_net_plan *plan, const struct ifaddrs *ifa, GPtrArray *warnings)
{
    char net[SM_PREFIX_STRLEN], own[SM_PREFIX_STRLEN];
    struct sockaddr_in in;
    struct sm_prefix p;

    memcpy(&in, ifa->ifa_addr, sizeof(in));
    p.len = (uint8_t)bits_of(ifa->ifa_netmask);
    p.addr = sm_addr_from_u32(ntohl(in.sin_addr.s_addr) & (p.len == 0 ? 0 : UINT32_MAX << (32 - p.len)));
    if (sm_net_overlap(&plan->subnet, &p))
        g_ptr_array_add(warnings, g_strdup_printf("network.subnet %s overlaps %s of this host's %s: the guest cannot "
                                                  "reach what is in both",
                                                  sm_prefix_format(&plan->subnet, net), sm_prefix_format(&p, own),
                                                  ifa->ifa_name));
}

void sm_net_warn(const struct sm_net_plan *plan, GPtrArray *warnings)
{
    char net[SM_PREFIX_STRLEN];
    struct ifaddrs *all = NULL;

    if (sm_inside_kind(&plan->subnet.addr) == SM_INSIDE_NONE)
        g_ptr_array_add(warnings, g_strdup_printf("network.subnet %s is of the public internet: the guest cannot reach "
                                                  "the hosts that have its addresses",
                                                  sm_prefix_format(&plan->subnet, net)));
    if (getifaddrs(&all) < 0)
        return; /* a warning less */
    for (const struct ifaddrs *ifa = all; ifa; ifa = ifa->ifa_next)
        if (ifa->ifa_addr && ifa->ifa_addr->sa_family == AF_INET)
            warn_of(plan, ifa, warnings);
    freeifaddrs(all);
}
