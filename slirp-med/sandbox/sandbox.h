/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What each of our processes gives up, in named stages. After the last one a process that was taken over can do no more
 * than its role's list says.
 *
 *   start   (exec)              all that the user may do
 *   early   sm_sandbox_early()  only the named descriptors are open, the environment is empty, the supervisor's
 *                               death is ours, no core dump, no setuid. Files can still be opened: now read the
 *                               configuration, make the loop, initialise c-ares and OpenSSL (they read files)
 *   enter   sm_sandbox_enter()  own namespaces, empty read-only root, no capability, Landlock without a rule,
 *                               seccomp allow-list with KILL_PROCESS for the rest
 *   run                         now, and not before, bytes from a guest or a peer may be read
 *
 * sm_sandbox_enter() runs the early stage itself when it was left out. What a role may do after `enter`:
 *
 *                   front               core                             supervisor
 *   network         own and empty       the caller's                     the caller's
 *   root            empty, read-only    empty, read-only                 the caller's
 *   capabilities    none, ever          none, ever                       as started; no more by exec
 *   descriptors     read, write, close  + make and connect TCP and UDP   any
 *   new processes   none                none                             our own subcommands
 *   system calls    rules.c, both       rules.c, both + core             not filtered: CMD would inherit the filter
 *
 * A front that serves vhost-user maps guest memory as well: files that the VMM sends, shared, readable and writable, never executable
 * (`guest_memory`). It may then also look at such a file's size and seals. No other front may.
 *
 * A front of accepted sockets (nat/sock.h) takes clients from listening sockets that it was given, non-blocking, looks at their addresses,
 * and resets them: accept4, getsockname, and of setsockopt SO_LINGER alone (`accepts`). No other front may.
 *
 * The kernel path's front moves bytes by splice(2) besides (`splices`, with `accepts`): between pipes that it made
 * before and the sockets that it has, without an offset and with the two flags that it uses. No other front may, and
 * none can make a pipe after `enter`.
 *
 * The fetch helper (core/fetcher.h) is like the front: own and empty network, no file. Its list (rules.c) holds no call
 * that makes or connects a socket; what is not on it fails with EPERM instead of killing, since libcurl's needs change
 * with its version. Its memory is limited.
 *
 * The user namespace maps one id only (no subuid ranges): ours to 65534. Where user namespaces are refused (a chroot, a
 * sysctl) but we hold CAP_SYS_ADMIN, the other namespaces are made without one; where we hold neither, `enter` fails:
 * there is no silent lesser sandbox. Where pivot_root(2) is refused (a chroot), an empty chroot and Landlock take its
 * place, and both are then required.
 *
 * Sanitizer builds: AddressSanitizer's run time needs more system calls; rules.c adds them under SM_SANDBOX_SANITIZED
 * and lets open* and readlink* fail with EACCES there instead of killing, so that a report gets out. Leak detection is
 * switched off in a process that entered (it would clone and ptrace).
 *
 * Errors: SM_ERROR_MISSING when this machine refuses something (the message says how to allow it), SM_ERROR_SYSTEM
 * otherwise. After a failure the process is half sandboxed and must exit. Single-threaded; all functions may block.
 */
#ifndef SM_SANDBOX_SANDBOX_H
#define SM_SANDBOX_SANDBOX_H

#include <glib.h>
#include <sys/types.h>

#include "base/defs.h"

/**
 * RLIMIT_DATA of the fetch helper, hard. Roots of 9 MiB are the most that it needs, some times over; and libcurl keeps every trailer of a
 * response, however many come before its time is over. Without memory it ends, and the core sees that.
 */
#define SM_SANDBOX_FETCH_MEMORY (256u << 20)

enum sm_role {
    SM_ROLE_FRONT,
    SM_ROLE_CORE,
    SM_ROLE_FETCH,
    SM_ROLE_SUPERVISOR,
    SM_ROLES,
};

/** sm_role_name() - "front", "core", "fetch", "supervisor". */
const char *sm_role_name(enum sm_role role);

struct sm_sandbox_spec {
    const int *keep_fds; /* descriptors that stay open beside 0, 1 and 2; any order; used by the early stage only */
    size_t n_keep_fds;
    bool guest_memory; /* front: maps memory that a VMM shares (vmm-glue/vhost/mem.h) */
    bool accepts;  /* front: takes clients from listening sockets (nat/sock.h); with guest_memory only if it splices */
    bool splices;  /* front: of those, the kernel path's: splice(2) (nat/pipes.h) */
    int parent_fd; /* socket whose other end only the supervisor holds; -1: our life is not tied to a parent's */
};

/**
 * sm_sandbox_early() - the first thing that a subcommand does.
 *
 * front, core and fetch: parent-death signal SIGKILL (and an error if the parent is gone already: parent_fd hangs up), not
 * dumpable, RLIMIT_CORE 0, no_new_privs, every descriptor outside keep_fds closed, 0 and 1 put on /dev/null, SIGPIPE
 * ignored, signal mask and dispositions reset, environment wiped (strings from getenv() die here; SLIRP_MED_LOG stays),
 * RLIMIT_NOFILE soft = hard, umask 077, cwd "/". supervisor: not dumpable, no_new_privs, SIGPIPE ignored, RLIMIT_NOFILE
 * soft = hard, soft RLIMIT_CORE 0; the environment, umask and descriptors stay, since CMD is to inherit them
 * (guest_init.h says how it gets its limits and SIGPIPE back).
 *
 * Returns 0, or -1 with error set.
 */
int sm_sandbox_early(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error);

/** sm_sandbox_enter() - the last stage; see the tables above. For SM_ROLE_SUPERVISOR it is the early stage. Returns 0,
 * or -1 with error. */
int sm_sandbox_enter(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error);

/* The steps, for guest-init and doctor, which put them together in another order. */

/** sm_sandbox_parent() - SIGKILL when the parent dies; fails if parent_fd (-1: not looked at) has hung up. Repeat after
 * credential changes. */
int sm_sandbox_parent(int parent_fd, GError **error);

/** sm_sandbox_close_fds() - close all descriptors but 0, 1, 2 and those in keep. Returns 0 or -1 with errno. */
int sm_sandbox_close_fds(const int *keep, size_t n_keep);

/**
 * sm_sandbox_user_ns() - a new user namespace in which our effective ids appear as uid and gid; setgroups(2) is denied
 * in it.
 *
 * Must come before PR_SET_DUMPABLE 0 (the map files of a process that is not dumpable belong to root); it sets the
 * process dumpable for the time of the call. Returns 1 when it was made, 0 when it was refused but we hold
 * CAP_SYS_ADMIN and can do without, -1 with error set.
 */
int sm_sandbox_user_ns(uid_t uid, gid_t gid, GError **error);

/** sm_sandbox_drop_caps() - no capability in any set (bounding and ambient too), securebits locked, no_new_privs. 0 or
 * -1 with error set. */
int sm_sandbox_drop_caps(GError **error);

/** sm_sandbox_landlock_abi() - the kernel's Landlock version, 0 when it has none or it is switched off. */
int sm_sandbox_landlock_abi(void);

/** sm_sandbox_filter() - load the role's seccomp allow-list; of spec, guest_memory, accepts and splices count. 0 or
 * -1 with error set. */
int sm_sandbox_filter(enum sm_role role, const struct sm_sandbox_spec *spec, GError **error);

/**
 * sm_sandbox_guest_filter() - the deny-list that CMD runs under: all is allowed but what leads out of the namespaces or
 * back to the caller's session. EPERM: TIOCSTI and TIOCLINUX (typing into the caller's terminal), add_key, keyctl,
 * request_key (the caller's keyrings), bpf, perf_event_open, userfaultfd, open_by_handle_at, kexec, module loading, new
 * user namespaces. EAFNOSUPPORT: every socket family but UNIX, INET, INET6, NETLINK and PACKET (AF_VSOCK and some
 * others know no network namespace). ENOSYS: clone3 (its flags cannot be judged; C libraries fall back to clone) and,
 * for 32-bit programs, socketcall.
 */
int sm_sandbox_guest_filter(GError **error);

#endif
