/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asking a workspace that runs, over its control socket (control.h): one question and its answer, the same question to many at once, and `stop`.
 *
 * All of these block, and none longer than it is told: a supervisor that hangs, or a socket that somebody else listens on, costs its time-out.
 * An answer is one JSON object; "ok" is taken out of it. What is in it is the supervisor's word; its reports of core and front are theirs.
 */
#ifndef SM_SUPERVISOR_CLIENT_H
#define SM_SUPERVISOR_CLIENT_H

#include "supervisor/control.h"

/** Why there is no answer. */
enum sm_client_failure {
    SM_CLIENT_NONE,      /* there is one */
    SM_CLIENT_ARGUMENT,  /* no line can carry the argument */
    SM_CLIENT_UNREACHED, /* nobody takes the connection */
    SM_CLIENT_SILENT,    /* no answer in time, or one that is none */
    SM_CLIENT_REFUSED,   /* "ok": false; the message is its reason */
    SM_CLIENT_FAILURES
};

/** sm_client_ask() - @argument: NULL for a verb without. The answer (a new reference), or NULL with error set and *ret_why (may be NULL). */
json_t *sm_client_ask(int dirfd, int timeout_ms, enum sm_control_verb verb, const char *argument,
                      enum sm_client_failure *ret_why, GError **error);

struct sm_client_question {
    int dirfd;      /* of the workspace; the caller's */
    json_t *answer; /* filled in: a new reference; NULL: none */
};
/** sm_client_ask_all() - a verb without argument to all of them; those that have not answered after timeout_ms have no answer. */
void sm_client_ask_all(struct sm_client_question *questions, size_t n, enum sm_control_verb verb, int timeout_ms);

/** sm_client_stop() - ask for the end and wait for it. 1: it has ended; 0: not within timeout_ms, and it goes on ending; -1 with error set: it
 * could not be asked. */
int sm_client_stop(int dirfd, int timeout_ms, GError **error);

#endif
