/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is shown of workspaces: the JSON of `status`, `list`, `network`, `create` and `start --detach` (docs/JSON.md),
 * made of the files of the state folder and, of one that runs, of its supervisor's answer. Nothing here blocks but
 * reading these files.
 */
#ifndef SM_LAUNCH_RECORD_H
#define SM_LAUNCH_RECORD_H

#include <jansson.h>

#include "launch/state.h"

#define SM_RECORD_SCHEMA 1

/** A workspace as it is found. */
struct sm_record_place {
    const struct sm_workspace *ws;
    enum sm_workspace_state state;
    pid_t pid;            /* of its supervisor, running or crashed; 0: not known */
    const json_t *answer; /* of `status` or `network`, of one that runs; NULL: it did not answer, or does not run */
};

/** All return a new reference. A file that is damaged is warned of on stderr, and what it would have said is null. */
json_t *sm_record_status(const struct sm_record_place *place);
json_t *sm_record_network(const struct sm_record_place *place);
/** sm_record_row() - for `list`. */
json_t *sm_record_row(const struct sm_record_place *place);

#endif
