/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The supervisor: the small, trusted monitor that starts a workspace's processes, watches them, opens files for them by role, and ends them
 * all when one ends. It parses no byte of a guest or a peer; what children say is held to the table in requests.h.
 *
 *   phase       entered when                                 left when
 *   STARTING    core and guest are spawned; the front when   all are ready: GO is sent to the guest, if there is one
 *               the guest's TAP has come, or at once         -> RUNNING
 *                                                            start_ms pass, or one fails -> STOPPING
 *   RUNNING     GO was sent; the sockets let VMMs in         CMD ended, a child died or broke the protocol -> STOPPING
 *                                                            `stop`, SIGTERM, SIGHUP -> ENDING; without a guest of ours
 *                                                            these, SIGINT and SIGQUIT -> STOPPING
 *   ENDING      CMD was sent SIGTERM (or the signal); its    CMD ended -> STOPPING; grace_ms pass: the guest is killed -> STOPPING
 *               network is still there
 *   STOPPING    the guest: SIGTERM; the core: STOP; the      all are reaped -> done
 *               front: STOP when the core has ended          stop_ms pass: SIGKILL for what is left
 *
 * Signals of the supervisor itself (the launcher's `run` process): SIGINT and SIGQUIT from the terminal reach CMD from the terminal too (it is
 * in the same process group), so they are only survived here; sent by kill(2) they are passed on. SIGTERM and SIGHUP are passed on and begin
 * ENDING; USR1, USR2 and WINCH (by kill) are passed on. What was ignored when we started stays ignored. Core and front are in sessions of
 * their own: the terminal does not reach them.
 *
 * If the supervisor is killed, the children end by themselves (PR_SET_PDEATHSIG, set by their own sandbox code).
 *
 * One supervisor a process (it owns the process's signals and reaps its orphans); single-threaded.
 */
#ifndef SM_SUPERVISOR_SUPERVISOR_H
#define SM_SUPERVISOR_SUPERVISOR_H

#include <glib.h>
#include <jansson.h>

#include "supervisor/ahead.h"
#include "supervisor/listens.h"
#include "supervisor/publish.h"
#include "supervisor/refs.h"
#include "supervisor/requests.h"

/** Exit status of `run` when the fault is ours and not CMD's. */
#define SM_SUPERVISOR_FAILED 125

/** All READY: tens of milliseconds on an idle machine; sanitizer builds on a loaded one need seconds. */
#define SM_SUPERVISOR_START_MS 20000
/** CMD's time to end after SIGTERM, as container engines give it. */
#define SM_SUPERVISOR_GRACE_MS 10000
/** Core and front: to deliver what the guest sent last and to write the last lines (SM_FRONT_LINGER_US, SM_CORE_STOP_WAIT_US). */
#define SM_SUPERVISOR_STOP_MS 5000
/** How long `status` waits for the reports. */
#define SM_SUPERVISOR_REPORT_MS 1000

struct sm_child_spec {
    bool used;
    const char *exe; /* NULL: the supervisor's own, sm_supervisor_spec.exe */
    char *const *argv;
    char *const *envp;
    const char *config; /* text for descriptor 4 */
    size_t config_len;
};

/** Where the front's descriptor comes from. */
enum sm_port_source {
    SM_PORT_OF_GUEST, /* guest-init makes it: TAP; without a core TAP says that there is none */
    SM_PORT_GIVEN,    /* port_fd: the other end is in a VMM's hands, or in guest_more */
    SM_PORT_LATER,    /* a VMM connects when it likes: through a row of `listens`, or sm_supervisor_connect() */
};

/**
 * The lists of `policy` and `reload`: who has the flags and knows the files reads them; what comes of it goes to the core unread. One load at a
 * time: it is settled before the next.
 */
struct sm_policy_source {
    /** load() - the lists as text for the core (core/config.h), g_free(); and how many entries, for the client. @path NULL: the files again. */
    char *(*load)(void *data, const char *path, json_t **ret_counts, GError **error);
    /** settled() - what load() gave is in force, or it is not. */
    void (*settled)(void *data, bool in_force);
    void *data;
};

/** Tags of rows of `listens`: whose connections carry the frames of the front; */
#define SM_LISTEN_TAG_NET "net"
/** ... of its vsock device. */
#define SM_LISTEN_TAG_VSOCK "vsock"
/** Behind it stands a decimal vsock port: each connection is one of the guest's to that port, and the core's. */
#define SM_LISTEN_TAG_HYBRID "vsock:"
/** Whoever comes is sent the guest's card (tap_fd), and the connection ends: a VMM, or who starts one. */
#define SM_LISTEN_TAG_TAP "tap"
/** The host's side of the guest's virtio-serial port: the core's. */
#define SM_LISTEN_TAG_SERIAL "serial"

struct sm_supervisor_spec {
    const char *exe; /* of children whose own is NULL, and of fetch helpers; NULL: there are none */
    const char *name;
    int dirfd;                /* the workspace's folder; stays the caller's, must outlive the supervisor */
    int audit_fd;             /* the core's descriptor 6; stays the caller's; -1 without a core */
    uint64_t audit_max_bytes; /* a rotation asked for far below this is refused (it would wipe the record) */
    struct sm_child_spec children[SM_CHILDREN]; /* guest alone (isolated), all three, or
                                                    core and front: a VMM that somebody else starts */
    /** The core, if it was started ahead: taken over by sm_supervisor_new(). NULL: it is started there. */
    struct sm_ahead *core_ahead;
    int ca_key_fd, ca_cert_fd; /* the core's 7 and 8, the empty files; -1 both: nothing is intercepted */
    int ca_guest_fd;           /* the guest's 7, the same ca.pem for reading; stay the caller's, all three */
    enum sm_port_source port_source;
    pid_t keeper; /* of the kernel path, when the launcher has started it; 0: there is none, or TAP says which */
    int port_fd;  /* the front's 6 when it is given; stays the caller's */
    int tap_fd;   /* what comes of a row `tap` is sent this; stays the caller's */
    const char *tap_word;              /* with this text; borrowed */
    int guest_more[SM_GUEST_MORE_MAX]; /* the guest's 8 and up, as far as n_guest_more; stay the caller's */
    size_t n_guest_more;
    const struct sm_listen_spec *listens; /* sockets that VMMs come to; borrowed */
    size_t n_listens;
    /* what is published has changed, or got its port: an array as of sm_publishes_json(), for the call; may be NULL */
    void (*on_published)(void *data, const json_t *publishes);
    bool (*on_ready)(void *data,
                     GError **error); /* all are ready, nothing goes yet; false ends the start; may be NULL */
    void (*on_running)(void *data);   /* all are ready, and the sockets let in; may be NULL */
    void (*on_stopping)(void *data);  /* after on_running: the end has begun; may be NULL */
    void *on_data;
    int counters_fd;                  /* the core's 9, counters.json; -1: nothing is counted; stays the caller's */
    char *const *roots_paths;         /* for WANT roots (roots.h); NULL: there are none */
    const char *extra_roots;          /* PEM: for WANT fetchroots, behind those of roots_paths; NULL: none */
    const struct sm_ref_source *refs; /* for WANT ref:N */
    size_t n_refs;
    const char *resolv_path;            /* followed for the core; NULL: not followed */
    const char *resolv_text;            /* what the core's configuration holds of it */
    const struct sm_publish *publishes; /* bound by sm_supervisor_new(), served before GO; only with a core */
    size_t n_publishes;
    bool no_publish;                       /* there is no guest whose port could be published */
    const struct sm_policy_source *policy; /* NULL: there is nothing that could be reloaded */
    json_t *settings;                      /* object; goes with the answer to `snapshot`; NULL: none; borrowed */
    json_t *facts;                         /* object; merged into the answer to `status`; borrowed */
    int start_ms, grace_ms, stop_ms;       /* 0: the defaults above */
    bool owner_given;                      /* owner_fd: its end of file ends the workspace, as SIGTERM does */
    int owner_fd;                          /* non-blocking; stays the caller's */
    int guest_err_fd;                      /* the guest's 2; 0: our own stderr; stays the caller's */
    bool take_signals;                     /* handle our signals (false in unit tests) */
};

struct sm_supervisor_result {
    int status; /* CMD's, or 128+n, or SM_SUPERVISOR_FAILED; without a guest of ours 0 after `stop` or a signal, and when
                     the VMM left that a given descriptor led to */
    char *reason;   /* why, when it was not CMD that ended; NULL otherwise; g_free() */
    bool started;   /* GO was sent: CMD may have run */
    int end_signal; /* that began the end (`stop` counts as SIGTERM); 0: none */
};

struct sm_supervisor;

/** sm_supervisor_new() - control socket, core and guest. On failure nothing is left running and NULL is returned with error set. */
struct sm_supervisor *sm_supervisor_new(const struct sm_supervisor_spec *spec, GError **error);
/** sm_supervisor_run() - until all children have ended. */
void sm_supervisor_run(struct sm_supervisor *s, struct sm_supervisor_result *ret);
/** sm_supervisor_connect() - a VMM has connected: its descriptor for what ("net") goes to the front. Stays the caller's. 0, or -1 with errno. */
int sm_supervisor_connect(struct sm_supervisor *s, const char *what, int fd);
/** sm_supervisor_pid() - 0 when that child does not run. */
pid_t sm_supervisor_pid(const struct sm_supervisor *s, enum sm_child_role role);
/** sm_supervisor_free() - kills what still runs, and waits for it. */
void sm_supervisor_free(struct sm_supervisor *s);

#endif
