/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `start --detach`: the supervisor in a session of its own, as a child that is this program again with a subcommand of
 * its own ("detached").
 *
 *   caller ── spawn: session of its own, one end of a socket ──► child: stdin from /dev/null, stdout to the log or /dev/null
 *                                                                stderr still the caller's: what goes wrong is said there
 *          ◄── "ready" ──────────────────────────────────────── all run: from here on stderr is stdout
 *          or the end of the stream: its exit status
 *
 * A caller that goes away before that (Ctrl-C) takes the start with it: the child finds the socket's other end closed
 * and ends in order.
 *
 * What CMD says goes nowhere unless a log was asked for, and a log is not bounded: a guest writes as much as it likes,
 * and only the operator knows how much there may be. Why the workspace ended is in exit.json in any case.
 */
#ifndef SM_LAUNCH_DETACH_H
#define SM_LAUNCH_DETACH_H

#include <glib.h>

#include "base/defs.h"

/** The hidden subcommand. */
#define SM_DETACH_COMMAND "detached"

/**
 * sm_detach() - start it. @args: those of `start`, NULL-terminated. 0: it runs; else its exit status (it has said why);
 * -1 with error set.
 */
int sm_detach(char *const *args, GError **error);

/** The child's side. */
struct sm_detached {
    int tell_fd;
};
/** sm_detached_enter() - take the streams. @log: path to append to, or NULL. */
bool sm_detached_enter(struct sm_detached *ret, const char *log, GError **error) SM_WARN_UNUSED;
/** sm_detached_keep() - this process stays the program that it is (launch/program.h): from here on what it executes is
 * not to have the starter's socket. */
void sm_detached_keep(const struct sm_detached *d);
/** sm_detached_ready() - all run; data is struct sm_detached. For struct sm_launch_how. */
void sm_detached_ready(void *data);

#endif
