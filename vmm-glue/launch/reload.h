/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lists of a running workspace, read again: the flags of its start, and its policy files or another one in place of them. What could not
 * have been started with (a file that does not parse, a credential whose host is not listed any more) is not loaded either.
 *
 * Files are read here and nowhere else after the start; they are the operator's, as at the start. No byte of a guest or a peer is in them.
 */
#ifndef SM_LAUNCH_RELOAD_H
#define SM_LAUNCH_RELOAD_H

#include "launch/options.h"
#include "supervisor/supervisor.h"

struct sm_reload;

/** sm_reload_new() - @o is borrowed and outlives it. */
struct sm_reload *sm_reload_new(const struct sm_run_options *o);
/** sm_reload_free() - for sm_cleanup(). */
void sm_reload_free(struct sm_reload **r);
/** sm_reload_source() - for the supervisor. A file that was given in place of the others is the one that is read again, once it is in force. */
struct sm_policy_source sm_reload_source(struct sm_reload *r);

/** sm_reload_files() - whose entries are in force now, NULL-terminated; borrowed. */
char *const *sm_reload_files(const struct sm_reload *r);

#endif
