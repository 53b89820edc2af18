/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket: <state>/NAME/control.sock, for `slirp-med status`, `stop`, `publish`, `unpublish` and `reload`, and for embedders.
 *
 * A stream socket, mode 0600 in a folder that is 0700; a peer of another uid is turned away whatever the modes say. A client sends one line,
 * a verb of the table below and, where it has one, a blank and its argument, and gets one line of JSON: {"ok": true, ...} or
 * {"ok": false, "error": "..."}. It may ask again after the answer.
 *
 *   status            what runs, and what core and front report
 *   network           the same without the reports, answered at once: neither core nor front is asked
 *   stop              answered at once; the stream ends when the workspace has ended
 *   publish SPEC      HOST:HOSTPORT:GUESTPORT/tcp (publish.h); answered when it is served: "publish": {host, hostPort, guestPort,
 *                     protocol}, with the port that was found when 0 was asked for
 *   unpublish SPEC    the same, by its real port; connections that are there go on
 *   policy PATH       the entries of that policy file in place of those of the policy files; flags stay. Answered when they
 *                     are in force: "allow", "passthrough", "deny" (counts). PATH is absolute
 *   reload            the policy files are read again
 *   snapshot          what the core has of a snapshot (core/carry.h): with the answer comes a memfd that holds it, and "core": true; false, and
 *                     no descriptor, where there is no core (isolated). "settings": its flags, as settings.json has them
 *
 * Clients are hostile by assumption (anything that runs as this user may connect): their number, their lines, what may wait for them and how
 * long they may take are bounded, and none of them can block the loop. The socket is bound and reached through /proc/self/fd/N, so that the
 * length of the folder's path does not matter (sun_path holds 108 bytes) and no folder on the way can be exchanged.
 */
#ifndef SM_SUPERVISOR_CONTROL_H
#define SM_SUPERVISOR_CONTROL_H

#include <glib.h>
#include <jansson.h>

#include "base/loop.h"

#define SM_CONTROL_SOCKET "control.sock"
/** A person and a few scripts. */
#define SM_CONTROL_CLIENTS_MAX 8
/** The longest verb, and the longest path as its argument (PATH_MAX). */
#define SM_CONTROL_LINE_MAX (4096 + 16)
/** Longest answer: a status with the reports of two children (SM_LINK_MAX each, escaped as JSON text) and our own facts. */
#define SM_CONTROL_REPLY_MAX (512u << 10)
/** To send a line, and to take the answer. */
#define SM_CONTROL_TIMEOUT_US (10 * G_USEC_PER_SEC)

enum sm_control_verb {
    SM_CONTROL_STATUS,
    SM_CONTROL_NETWORK,
    SM_CONTROL_STOP,
    SM_CONTROL_PUBLISH,
    SM_CONTROL_UNPUBLISH,
    SM_CONTROL_POLICY,
    SM_CONTROL_RELOAD,
    SM_CONTROL_SNAPSHOT,
    SM_CONTROL_VERBS
};
const char *sm_control_verb_name(enum sm_control_verb verb);

struct sm_control;

struct sm_control_ops {
    /**
     * request() - a client asks. Answer with sm_control_reply() now or later; client is a number that is never used again, so that an answer to
     * a client that has left goes nowhere. argument: as it was sent, never empty; NULL for a verb that has none; for the call.
     */
    void (*request)(void *data, uint64_t client, enum sm_control_verb verb, const char *argument);
};

/** sm_control_new() - bind in the workspace's folder (an old socket is removed: the caller holds the workspace's lock) and listen. */
struct sm_control *sm_control_new(struct sm_loop *loop, int dirfd, const struct sm_control_ops *ops, void *data,
                                  GError **error);
/** sm_control_free() - close all clients and remove the socket. */
void sm_control_free(struct sm_control *control);

/** sm_control_reply() - one line of JSON (without newline). stay: keep the stream open afterwards with no time-out, until free. */
void sm_control_reply(struct sm_control *control, uint64_t client, const char *json, bool stay);
/** sm_control_attach() - the next answer to that client has a descriptor beside its first byte, a duplicate of fd. */
void sm_control_attach(struct sm_control *control, uint64_t client, int fd);
/** sm_control_clients() - connected now; for tests. */
unsigned sm_control_clients(const struct sm_control *control);

/** sm_control_remove_stale() - what a supervisor that was killed left behind. Only under the workspace's lock. */
void sm_control_remove_stale(int dirfd);

/** sm_control_connect() - the client's side: a blocking socket with time-outs (0: none; -1: it does not block), or -1 with errno (ENOENT, ECONNREFUSED: nobody). */
int sm_control_connect(int dirfd, int timeout_ms);
/** sm_control_ask() - send the verb, return the answer's line (g_free()), or NULL with error set. Blocks. */
char *sm_control_ask(int sock, enum sm_control_verb verb, GError **error);
/** sm_control_ask_about() - the same with an argument; one that no line can carry (too long, a newline) is SM_ERROR_INVALID. */
char *sm_control_ask_about(int sock, enum sm_control_verb verb, const char *argument, GError **error);
/** sm_control_ask_for() - the same without an argument, for an answer with a descriptor: *ret_fd (CLOEXEC) is the caller's, -1 when none came. */
char *sm_control_ask_for(int sock, enum sm_control_verb verb, int *ret_fd, GError **error);
/**
 * sm_control_decode_status() - of an answer to `status`, at the client: the reports of core and front, which came through the supervisor as
 * text, become objects (what is no JSON stays text), and the core's "mediationReady", which launchers ask for, stands at the top too.
 */
void sm_control_decode_status(json_t *status);

#endif
