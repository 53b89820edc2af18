/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file slirp-med.h
 * Embedding slirp-med: a launcher starts a workspace for a guest of its own, hears every decision, and stops it.
 *
 * What happens: slirp_med_start_fd() or slirp_med_start_path() starts the program slirp-med as a child (by
 * posix_spawn(3): safe in a process with threads). It runs `slirp-med attach`, which is the workspace's supervisor with
 * the core and the front under it, each in its sandbox: no byte of the guest is parsed in the launcher's process. The
 * library speaks with it over the workspace's control socket, and follows the workspace's audit log.
 *
 * @code
 *   struct slirp_med_config config = SLIRP_MED_CONFIG_INIT;
 *   struct slirp_med_error error;
 *   struct slirp_med_event event;
 *   int vm[2];
 *
 *   config.name = "agent-7";
 *   config.mode = SLIRP_MED_STRICT;
 *   config.allow = (const char *const[]){"api.example.com", ".pypi.org", NULL};
 *   socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vm);
 *   struct slirp_med *med = slirp_med_new(&config, &error);
 *   if (!med || slirp_med_start_fd(med, SLIRP_MED_STREAM, vm[0], &error) < 0 ||
 *       slirp_med_wait_ready(med, 10000, &error) < 0)
 *       errx(1, "%s", error.message);
 *   close(vm[0]);
 *   start_the_guest(vm[1]);                          // qemu -netdev stream,id=n0,addr.type=fd,addr.str=N ...
 *   while (slirp_med_wait(med, -1, &event) > 0 && event.type != SLIRP_MED_STOPPED)
 *       if (event.type == SLIRP_MED_RECORD)
 *           printf("%s %s:%u %s\n", event.name, event.host ? event.host : event.dst, event.port, event.reason);
 *   slirp_med_free(med);
 * @endcode
 *
 * Threads: one object is used by one thread at a time; objects share nothing. The calls do not look at, and do not
 * change, signal dispositions, the working folder, the environment or the locale. The library makes no thread.
 *
 * Children: the library waits for its own child by pidfd. A launcher that reaps all children (waitpid(-1, ...), or
 * SIGCHLD ignored) may take its exit status away; STOPPED then comes with status -1.
 *
 * SIGPIPE: the library's writes never raise it.
 *
 * Strings that the library is given are copied. Strings that it returns belong to the object, and last as the function
 * says. All text is UTF-8; guest bytes in it are escaped as in the audit log (docs/man/slirp-med.1).
 *
 * Errors: a function that can fail returns -1 (or NULL) and fills *error, if it is not NULL: a code to act on and a
 * sentence for the operator, which names the key or the file. On success *error is left alone.
 *
 * Versions: semantic. Structures begin with their size, so that a program built against an older minor version goes on
 * working; new members are added at the end, and 0 is their default.
 */
#ifndef SLIRP_MED_SLIRP_MED_H
#define SLIRP_MED_SLIRP_MED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <slirp-med/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLIRP_MED_EXPORT __attribute__((visibility("default")))
#else
#define SLIRP_MED_EXPORT
#endif

/** One workspace, from slirp_med_new() to slirp_med_free(). */
struct slirp_med;

enum slirp_med_code {
    SLIRP_MED_ERROR_INVALID = 1, /**< an argument or a setting is wrong; nothing was started or changed */
    SLIRP_MED_ERROR_SYSTEM,      /**< the system refused something (memory, descriptors, processes) */
    SLIRP_MED_ERROR_STATE,       /**< not in this state: not started, or ended */
    SLIRP_MED_ERROR_REFUSED,     /**< the workspace answered no: a port in use, a policy that does not parse */
    SLIRP_MED_ERROR_TIMEOUT      /**< it did not happen in time */
};

struct slirp_med_error {
    enum slirp_med_code code;
    char message[1024]; /**< one line, no newline */
};

/** `--egress`; what each does is in slirp-med(1). */
enum slirp_med_mode {
    SLIRP_MED_GUARDED = 0, /**< the public internet, nothing inside */
    SLIRP_MED_STRICT,      /**< only what is listed */
    SLIRP_MED_OFF          /**< no mediation, no audit */
};

/** What carries the guest's Ethernet frames. */
enum slirp_med_port {
    SLIRP_MED_STREAM =
        0, /**< SOCK_STREAM, QEMU's `-netdev stream`: each frame behind its length, 4 bytes, big-endian */
    SLIRP_MED_VHOST_USER, /**< SOCK_STREAM, the vhost-user protocol; we are the back-end */
    SLIRP_MED_DGRAM,      /**< a connected SOCK_DGRAM, QEMU's `-netdev dgram`: one frame a datagram */
    SLIRP_MED_TAP         /**< a tap, IFF_TAP | IFF_NO_PI */
};

/**
 * The settings of a workspace; each is the flag of that name of `slirp-med attach`, which slirp-med(1) explains. Lists
 * end in NULL; NULL is an empty list. 0 and NULL are the defaults everywhere.
 */
struct slirp_med_config {
    size_t size; /**< sizeof(struct slirp_med_config); SLIRP_MED_CONFIG_INIT sets it */

    const char *name;      /**< required: [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
    const char *state_dir; /**< where workspaces are; NULL: as slirp-med(1) says */
    const char *program;   /**< path of slirp-med; NULL: where this library was installed to */

    enum slirp_med_mode mode;
    bool opaque;                           /**< no TLS interception */
    const char *const *allow;              /**< entries: host, .suffix, address, CIDR, each with :port */
    const char *const *passthrough;        /**< allowed, never intercepted */
    const char *const *deny;               /**< refused, whatever else allows it */
    const char *const *inside;             /**< CIDRs that count as inside */
    const char *policy_file;               /**< slirp-med-policy(5) */
    const char *swap_config;               /**< credentials */
    const char *const *cred_swaps;         /**< PROVIDER[=REF] */
    const char *const *ca_files;           /**< more roots to verify upstreams with */
    const char *const *dns;                /**< ADDR[:PORT]; NULL: the host's resolvers */
    uint64_t max_bps;                      /**< bytes a second, each direction */
    uint64_t max_total_bytes;              /**< bytes, both directions, over all runs under this name */
    uint64_t max_conns;                    /**< TCP connections and UDP flows at once */
    uint64_t audit_max_bytes;              /**< space for the audit */
    bool audit_sync;                       /**< fsync before effects */
    const char *const *publish;            /**< HOST:HOSTPORT:GUESTPORT/tcp */
    const char *const *mediation;          /**< PORT=HOST:PORT, required: the start fails when it is unreachable */
    const char *const *mediation_optional; /**< the same, not required */
    const char *vsock; /**< path of the VMM's hybrid vsock socket; PATH_PORT sockets are made beside it */
    const char *mac;   /**< the guest's MAC address; NULL: slirp_med_network() says the default */
    unsigned mtu;      /**< 576 to 65520; 0: 1500 */

    const char *const *more;        /**< further flags, as on the command line, behind all of the above */
    const char *const *environment; /**< NAME=VALUE, for env: references and XDG_STATE_HOME; NULL: the process's own */
};
#define SLIRP_MED_CONFIG_INIT                                                                                          \
    {                                                                                                                  \
        .size = sizeof(struct slirp_med_config)                                                                        \
    }

/**
 * slirp_med_new() - an object with a copy of the configuration. Starts nothing.
 * Returns it, for slirp_med_free(), or NULL: INVALID (a member out of range; what only slirp-med can judge is an error
 * of the start), SYSTEM.
 */
SLIRP_MED_EXPORT struct slirp_med *slirp_med_new(const struct slirp_med_config *config, struct slirp_med_error *error);

/**
 * slirp_med_free() - ends the workspace if it runs (as slirp_med_stop() with 10 s, then SIGKILL), and frees the object.
 * May block for that long. NULL is fine.
 */
SLIRP_MED_EXPORT void slirp_med_free(struct slirp_med *med);

/**
 * slirp_med_start_fd() - start it, over a connected descriptor of the guest's device. fd stays the caller's, who may
 * close it at once. Does not wait: READY or STOPPED follow as events. Once an object; again after STOPPED.
 * 0, or -1: INVALID, SYSTEM, STATE (runs already).
 */
SLIRP_MED_EXPORT int slirp_med_start_fd(struct slirp_med *med, enum slirp_med_port port, int fd,
                                        struct slirp_med_error *error);

/**
 * slirp_med_start_path() - the same over a Unix socket at path (STREAM, VHOST_USER, DGRAM), mode 0600, which VMMs of
 * this user connect to, one at a time and again after a restart. client: the VMM listens, and we connect. STREAM takes
 * "tcp:127.0.0.1:PORT" too.
 */
SLIRP_MED_EXPORT int slirp_med_start_path(struct slirp_med *med, enum slirp_med_port port, const char *path,
                                          bool client, struct slirp_med_error *error);

/** What an event is. */
enum slirp_med_event_type {
    SLIRP_MED_READY = 1, /**< all processes serve: the guest may be started */
    SLIRP_MED_RECORD,    /**< a line of the audit log of this run: a decision, and what became of it */
    SLIRP_MED_LOST,      /**< lines were rotated away before they were read; count says how many */
    SLIRP_MED_MESSAGE,   /**< a line that the workspace's processes said for the operator; text. Unread, it is lost */
    SLIRP_MED_STOPPED    /**< the workspace has ended; status, and text says why if it was not asked to */
};

/**
 * An event. Members that a type or a record does not have are 0, -1 (bytes, durations, statuses) or NULL. Strings last
 * until the next call for this object.
 */
struct slirp_med_event {
    enum slirp_med_event_type type;

    /* RECORD; the fields are those of the audit log, slirp-med(1). */
    uint64_t seq;
    const char *ts;   /**< RFC 3339, UTC, microseconds */
    const char *name; /**< "egress_allow", "egress_deny", "egress_http_request", ...; never NULL here */
    uint64_t flow;
    const char *src, *dst;
    unsigned port;
    const char *host;
    const char *name_source; /**< pin, sni, host, connect, ip */
    const char *rule;
    const char *reason;
    bool unlisted, internal, mitm;
    int64_t bytes_up, bytes_down, duration_ms;
    uint64_t count;            /**< repeats of a denial; LOST: lines */
    const char *method, *path; /**< of an HTTP request */
    int64_t http_status;
    const char *json; /**< the whole line, for what has no member here */

    int status;       /**< STOPPED: exit status of slirp-med attach; -1: not known */
    const char *text; /**< MESSAGE; STOPPED: why, or NULL */
};

/**
 * slirp_med_fd() - one descriptor (an epoll instance) that is readable when slirp_med_next() has something. It is the
 * object's: poll it, do nothing else with it. The same for the life of the object. Never -1.
 */
SLIRP_MED_EXPORT int slirp_med_fd(const struct slirp_med *med);

/**
 * slirp_med_next() - the next event. Does not block. 1 with *event filled, 0: none now. The last one of a run is
 * STOPPED.
 */
SLIRP_MED_EXPORT int slirp_med_next(struct slirp_med *med, struct slirp_med_event *event);

/** slirp_med_wait() - the same, waiting for at most timeout_ms (-1: without limit). 0: none came, or it does not run. */
SLIRP_MED_EXPORT int slirp_med_wait(struct slirp_med *med, int timeout_ms, struct slirp_med_event *event);

/**
 * slirp_med_wait_ready() - wait for READY. MESSAGE events on the way are dropped, but for the last one, which is the
 * error's text. 0, or -1: REFUSED (it ended; the message is slirp-med's own), TIMEOUT (it goes on starting), STATE.
 */
SLIRP_MED_EXPORT int slirp_med_wait_ready(struct slirp_med *med, int timeout_ms, struct slirp_med_error *error);

/**
 * slirp_med_stop() - ask it to end in order (SIGTERM: the last lines are written), and wait for at most timeout_ms; 0:
 * do not wait. STOPPED is still delivered by slirp_med_next(). 0, or -1: TIMEOUT, STATE (does not run).
 */
SLIRP_MED_EXPORT int slirp_med_stop(struct slirp_med *med, int timeout_ms, struct slirp_med_error *error);

/** The network record. Strings last until the next call of slirp_med_network(). */
struct slirp_med_network {
    const char *guest, *gateway, *resolver; /**< addresses */
    unsigned prefix_len;
    const char *mac; /**< that the guest's device has to have */
    unsigned mtu;
    const char *state; /**< "starting", "running", ... */
    bool connected;    /**< a VMM is there */
    uint64_t rx_frames, tx_frames, tx_dropped;
    const char *ca_path;    /**< the CA's certificate (PEM) on the host, or NULL: nothing is intercepted */
    const char *audit_path; /**< the audit log, or NULL (SLIRP_MED_OFF has none) */
    const char *json;       /**< all of it, as `slirp-med status --json` says it */
};

/** slirp_med_network() - asks the running workspace; blocks for at most 5 s. 0, or -1: STATE, REFUSED, TIMEOUT. */
SLIRP_MED_EXPORT int slirp_med_network(struct slirp_med *med, struct slirp_med_network *ret,
                                       struct slirp_med_error *error);

/**
 * slirp_med_publish() - open HOST:HOSTPORT:GUESTPORT/tcp on the host now (HOST: loopback when left out; HOSTPORT 0: any).
 * ret_port (may be NULL): the host's port. Blocks for at most 5 s. 0, or -1: INVALID, REFUSED (in use), STATE, TIMEOUT.
 */
SLIRP_MED_EXPORT int slirp_med_publish(struct slirp_med *med, const char *spec, unsigned *ret_port,
                                       struct slirp_med_error *error);
/** slirp_med_unpublish() - close it: no new connections; those that are there go on. Errors as slirp_med_publish(). */
SLIRP_MED_EXPORT int slirp_med_unpublish(struct slirp_med *med, const char *spec, struct slirp_med_error *error);

/**
 * slirp_med_load_policy() - put this policy file (slirp-med-policy(5)) in the place of the one it runs with; NULL: read
 * that one again. One that is wrong changes nothing: REFUSED, and the message names file and line. Flows that are not
 * allowed any more end. Blocks for at most 5 s.
 */
SLIRP_MED_EXPORT int slirp_med_load_policy(struct slirp_med *med, const char *path, struct slirp_med_error *error);

/** slirp_med_pid() - the supervisor's pid, 0 when it does not run. */
SLIRP_MED_EXPORT int slirp_med_pid(const struct slirp_med *med);

/** slirp_med_version() - "0.1.0", of the library that is linked. Static. */
SLIRP_MED_EXPORT const char *slirp_med_version(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
