/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request table: what each child may say to the supervisor, in which state, with what attached. One table, one look-up; whatever it
 * does not list ends the child that said it (and with it the workspace). Pure: no descriptor is touched here.
 *
 *   verb     who                in state                          text        descriptor     means
 *   CA       core               STARTED, STOPPING, once           a hash      none           its CA is made
 *   READY    core, front        STARTED, STOPPING                 none        none           sandboxed and serving
 *   TAP      guest              STARTED, STOPPING                 none        one, or none   the tap (none: network isolated)
 *   EXIT     guest              RUNNING, STOPPING                 a number    none           CMD's status
 *   WANT     core               SERVING, STOPPING                 a role      none           open by role: "audit", "resolv", "roots",
 *                                                                                            "fetchroots", "ref:N"
 *   FETCH    core               SERVING, STOPPING                 none        one            start a fetch helper that has it
 *   LISTENERS core              SERVING, STOPPING, when told      none        none           the guest does not reach our listeners
 *   INGRESS  core               SERVING, STOPPING, when it has    none        none           room for one more client of a published port
 *                               clients of published ports
 *   POLICY   core               SERVING, STOPPING, when given     why, or none none          the lists are in force, or they are not
 *   SNAPSHOT core               SERVING, STOPPING, when asked     why, or none none          its part of a snapshot is written, or it is not
 *   PORT     front              SERVING, STOPPING                 "net"       none           the VMM of that port has gone
 *   STATUS   core, front        SERVING, STOPPING, when asked     a report    none           for the control socket, passed on unread
 *   FAIL     core, front, guest STARTED to STOPPING               a message   none           for the operator; the child exits
 *
 * CA, READY and TAP are also taken in STOPPING, without effect: the child had not read STOP when it sent them.
 *
 * A child's states:  ABSENT -> STARTED -> SERVING (core, front: READY came; guest: TAP came) -> RUNNING (guest only: GO was sent)
 *                    -> STOPPING (STOP was sent, or EXIT came) -> GONE (reaped).
 */
#ifndef SM_SUPERVISOR_REQUESTS_H
#define SM_SUPERVISOR_REQUESTS_H

#include "base/link.h"

enum sm_child_role { SM_CHILD_CORE, SM_CHILD_FRONT, SM_CHILD_GUEST, SM_CHILDREN };

enum sm_child_state {
    SM_CHILD_ABSENT,
    SM_CHILD_STARTED,
    SM_CHILD_SERVING,
    SM_CHILD_RUNNING,
    SM_CHILD_STOPPING,
    SM_CHILD_GONE,
    SM_CHILD_STATES
};

enum sm_request_op {
    SM_REQUEST_CA,
    SM_REQUEST_READY,
    SM_REQUEST_TAP,
    SM_REQUEST_EXIT,
    SM_REQUEST_WANT,
    SM_REQUEST_FETCH,
    SM_REQUEST_LISTENERS,
    SM_REQUEST_INGRESS,
    SM_REQUEST_POLICY,
    SM_REQUEST_SNAPSHOT,
    SM_REQUEST_PORT,
    SM_REQUEST_STATUS,
    SM_REQUEST_FAIL,
    SM_REQUEST_OPS
};

/** What a child may ask to have opened. The supervisor knows the paths; a child names only the role. */
enum sm_open_role { SM_OPEN_AUDIT, SM_OPEN_RESOLV, SM_OPEN_ROOTS, SM_OPEN_FETCHROOTS, SM_OPEN_REF, SM_OPEN_ROLES };
/** References of one workspace, "ref:0" to "ref:1023". */
#define SM_OPEN_REFS_MAX 1024

const char *sm_child_role_name(enum sm_child_role role);
const char *sm_child_state_name(enum sm_child_state state);
const char *sm_request_op_name(enum sm_request_op op);
const char *sm_open_role_name(enum sm_open_role role);
/** sm_open_role_parse() - false when text is no role. *ret_index: the N of "ref:N", below SM_OPEN_REFS_MAX; else 0. */
bool sm_open_role_parse(const char *text, enum sm_open_role *ret, unsigned *ret_index) SM_WARN_UNUSED;

/** sm_request_ca_hash() - CA's text: eight lower-case hex digits. */
bool sm_request_ca_hash(const char *text) SM_WARN_UNUSED;

/** sm_request_keeper_pid() - TAP's text on the kernel path: a process's number. For `status`, and to wait for its end
 * behind all others': nobody signals it. */
bool sm_request_keeper_pid(const char *text, pid_t *ret) SM_WARN_UNUSED;
/** sm_request_exit_status() - EXIT's text: 0 to 255 in decimal, nothing around it. */
bool sm_request_exit_status(const char *text, int *ret) SM_WARN_UNUSED;

/**
 * sm_request_find() - may that child say this now?
 * @asked: answers that it owes to this verb (STATUS, LISTENERS, INGRESS, POLICY and SNAPSHOT are said only as such).
 * @ret_why: on refusal a static text that says what was wrong.
 * Returns true and *ret, or false.
 */
bool sm_request_find(enum sm_child_role role, enum sm_child_state state, const struct sm_link_msg *msg, unsigned asked,
                     enum sm_request_op *ret, const char **ret_why) SM_WARN_UNUSED;

#endif
