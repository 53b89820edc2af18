/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling whoever started us that we are ready, so that nobody need poll: the protocol of sd_notify(3), which is one
 * datagram to the socket that $NOTIFY_SOCKET names, and a line on a descriptor that was asked for.
 */
#ifndef SM_LAUNCH_NOTIFY_H
#define SM_LAUNCH_NOTIFY_H

#include "base/defs.h"

/** sm_notify_send() - text is lines of NAME=VALUE. @socket: $NOTIFY_SOCKET, a path or "@abstract"; NULL: nobody waits, nothing is done. 0, or -1 with errno. */
int sm_notify_send(const char *socket, const char *text);

#endif
