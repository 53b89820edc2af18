/* SPDX-License-Identifier: BSD-3-Clause */
/* Network devices that somebody else made, by netlink. */
#ifndef SM_PATHS_NETDEV_H
#define SM_PATHS_NETDEV_H

/** sm_netdev_move() - a device of the current network namespace to the one behind ns. It is down there, and has lost
 * its addresses. Needs CAP_NET_ADMIN over both. 0, or -1 with errno. */
int sm_netdev_move(const char *device, int ns);

#endif
