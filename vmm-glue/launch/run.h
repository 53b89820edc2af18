/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med run`, `vm`, `attach` and `start`, from valid options to an exit status: this process becomes the workspace's supervisor.
 *
 *   0 the core, ahead of all (supervisor/ahead.h)
 *   1 the caller's umask and limits are noted for CMD; supervisor's sandbox stage
 *   2 state folder, lock            (a second start of one name ends here and names the first one's pid)
 *   3 audit file, workspace.json, the CA's empty files
 *   4 control socket; the core gets what it waits for, guest-init starts; the front as soon as the tap has come
 *   5 all ready: GO; until the end; the CA's key is removed, and exit.json tells why it ended (exit.h)
 *
 * A step that fails undoes those before it. Exit status: CMD's; 128+n when it ended by signal n; 2 when a setting is wrong (flags, files, the
 * state folder); 125 when slirp-med itself failed, 126 and 127 when CMD could not be executed or was not found.
 */
#ifndef SM_LAUNCH_RUN_H
#define SM_LAUNCH_RUN_H

#include "launch/options.h"

#define SM_LAUNCH_USAGE 2

/** What `start` asks for beyond the options. */
struct sm_launch_how {
    bool stored; /* the options are those of settings.json: the workspace is there, and may not be started otherwise */
    int guest_err_fd;             /* CMD's stderr; 0: ours */
    void (*on_ready)(void *data); /* all run; may be NULL */
    void *data;
};

/** sm_launch_run() - @how: NULL for `run`, `vm` and `attach`. Returns the exit status; what failed has been said on stderr. */
int sm_launch_run(const struct sm_run_options *o, const struct sm_launch_how *how);

#endif
