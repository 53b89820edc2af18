/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a declared network hides from its guest: addresses that the guest believes to be its neighbours never come out, so a network of the host,
 * or the internet, that has the same ones cannot be reached. That may be meant, so it is a warning.
 */
#ifndef SM_LAUNCH_NETWARN_H
#define SM_LAUNCH_NETWARN_H

#include "launch/netplan.h"

/** sm_net_warn() - append to @warnings (char *, owned by it). Asks the system for this host's addresses. */
void sm_net_warn(const struct sm_net_plan *plan, GPtrArray *warnings);

#endif
