/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exit.json: how the last run of a workspace ended, written by its supervisor's process as the last thing before the
 * lock goes. One that is killed writes none, and leaves its pid in the lock file: that is how a crash is known
 * (state.h).
 *
 *   {"schema": 1, "how": "exited" | "stopped" | "failed", "status": N, "reason": "..." | null, "started": "RFC 3339", "ended": "RFC 3339"}
 *
 *   exited    CMD ended by itself: status is its own, or 128+n
 *   stopped   `stop` or a signal ended it
 *   failed    it could not be started, or slirp-med or one of its processes failed: reason says why
 */
#ifndef SM_LAUNCH_EXIT_H
#define SM_LAUNCH_EXIT_H

#include <jansson.h>

#include "launch/state.h"
#include "supervisor/supervisor.h"

#define SM_EXIT_FILE SM_STATE_EXIT
/**
 * A reason holds at most one message of a child (800 bytes) and our words around it; JSON may escape each byte in six.
 */
#define SM_EXIT_FILE_MAX 16384

enum sm_exit_how { SM_EXIT_EXITED, SM_EXIT_STOPPED, SM_EXIT_FAILED, SM_EXIT_HOWS };
const char *sm_exit_how_name(enum sm_exit_how how);

/** sm_exit_now() - the time as it stands in the file; g_free(). */
char *sm_exit_now(void);
/**
 * sm_exit_write() - what cannot be written is said on stderr: the run is over all the same. @began: sm_exit_now() of
 * the start.
 */
void sm_exit_write(const struct sm_workspace *ws, const char *began, const struct sm_supervisor_result *result);
/** sm_exit_read() - the object; NULL: no run has ended, or (error set) the file is not what it should be. */
json_t *sm_exit_read(const struct sm_workspace *ws, GError **error);

#endif
