/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med-edge guest-init`: makes the namespaces that CMD lives in, the tap that is its only way out, masks what leads
 * around it, and runs CMD.
 *
 * Processes: A (this program, outside the new PID namespace) -> B (PID 1 inside: mounts, then a small init) -> C (CMD).
 * A dies with the supervisor, B with A, everything inside with B. All three keep the caller's process group, session
 * and terminal: a Ctrl-C reaches CMD straight from the terminal; a signal that was sent to A with kill(2) (HUP INT QUIT
 * TERM USR1 USR2 WINCH CONT TSTP ...) is passed on to CMD, once.
 *
 * Descriptors at start: 0 1 2 become CMD's; 3 SOCK_SEQPACKET to the supervisor; 4 memfd with the configuration; 7, when
 * the configuration says "ca", ca.pem for reading, complete when CA comes; from 8 on as many as "more" says. All others
 * are closed. The environment at start is the caller's; CMD gets it less the variables named below.
 *
 * Messages on 3 (base/link.h):
 *   A -> TAP +fd    namespaces and device stand; the fd is the tap (non-blocking, close-on-exec).
 *                   Without fd when network is "isolated". On the kernel path "TAP pid +fd": the keeper's, and the bundle
 *                   of tproxy.h.
 *   S -> CA hash    ca.pem is complete; the hash of its subject: make CMD trust it. Once, before GO, and only when the
 *                   configuration says "ca" without "bare"; in other cases it is passed over
 *   S -> GO         the front and the core are ready: start CMD. All that CMD is to find is made before.
 *                   Closing the link instead ends guest-init, status 125.
 *   S -> SIGNAL n   pass signal n to CMD (the same as kill(2) on guest-init)
 *   S -> STOP       end everything inside with SIGKILL
 *   A -> EXIT n     CMD ended, n = its status, 128+signal, 126 (not executable) or 127 (not found); guest-init then
 *                   exits with n too
 *   A -> FAIL text  something before CMD failed; text names the step and the fix, in one line; guest-init then exits
 *                   with 125. The supervisor prints it. guest-init writes to stderr itself only where it cannot send,
 *                   and for 126 and 127.
 *
 * Configuration (JSON object; * = required; unknown keys are an error):
 *   name*        string     workspace, for messages
 *   argv*        [string]   CMD, looked up in PATH when argv[0] has no slash
 *   cwd*         string     absolute; where CMD starts (made inside; refused when it is masked)
 *   network      string     "user" (default) or "isolated": only lo
 *   mac          string     "52:55:0a:00:02:0f"; the following are required for "user":
 *   ip           string     address of eth0
 *   prefix_len   int        1-30
 *   gateway      string     what the routes lead through; must lie in ip/prefix_len
 *   dns          [string]   nameservers in /etc/resolv.conf, 1 to 8
 *   routes       [string]   CIDRs behind the gateway, at most 8; 0.0.0.0/0 is the default route
 *   mtu          int        576-65520
 *   vnet_hdr     bool       tap with a virtio-net header (default false)
 *   datapath     string     "slirp" (default): the card is a tap; "tproxy": it is one end of a pair (tproxy.h), and what TAP
 *                           brings are the sockets at the other; the following two are required then. With "bare" CMD
 *                           has a tap in its hands (descriptor 8, "more" is 0) in place of a card, and its own namespace
 *                           has lo alone
 *   gateway_mac  string     of the other end
 *   resolver     string     an address of the other end, beside the gateway's (or the same)
 *   hostname     string     default: name
 *   uid, gid     int        must equal guest-init's effective ids (a check against a mixed-up caller)
 *   umask        int        CMD's; default: as inherited
 *   nofile, core int        CMD's soft RLIMIT_NOFILE and RLIMIT_CORE (-1: unlimited); default: as inherited
 *   state_dir    string     our state folder (all workspaces): CMD sees an empty, unreadable folder
 *   masks        [string]   files and folders that CMD must not read (`file:` references); missing ones are skipped
 *   unset_env    [string]   variables to remove (`env:` references)
 *   ca           bool       descriptor 7 holds the workspace's CA: have CMD trust it (guest_trust.h; default false)
 *   bare         bool       CMD is a VMM, which a guest may take over: its root is new and holds the machine's programs
 *                           and libraries, read-only, and binds; descriptor 7 (when "ca") is CMD's as it is
 *   more         int        0-4, with "bare": descriptors 8, 9, ... become CMD's
 *   files        [string]   with "bare": at most 5 files of the caller's view that CMD gets opened, for reading, as
 *                           descriptors 12, 13, ...; of a socket, a descriptor through whose /proc/self/fd/N it connects
 *   ro           bool       all mounts read-only, but /dev and /proc, private writable /run and /tmp, and binds
 *   rootfs       string     folder that becomes the root; missing /proc /dev /sys /run /tmp /etc are made in it
 *   binds        [string]   "SRC" or "SRC:DST", absolute; SRC is looked up in the caller's view; a SRC in state_dir or
 *                           masks is refused
 *
 * CMD starts with default signals, but that an ignored HUP, INT or QUIT stays ignored (nohup, a shell's "&"): the
 * supervisor must not ignore these three itself.
 *
 * What CMD sees: new user (its own ids only), net, mount, PID, IPC and UTS namespaces. New /proc (kernel settings
 * read-only), /sys read-only, a minimal /dev (null zero full random urandom tty ptmx pts kvm shm fd), private /run,
 * empty $XDG_RUNTIME_DIR, /etc/resolv.conf and /etc/hosts of ours (laid over files that
 * must be there; without /etc/hosts on the machine CMD has none). Over every pathname Unix socket that the kernel
 * lists or that lies in /tmp, /var/tmp or the home folder, in each place where the same file is visible, lies an empty
 * file. Removed from the environment: unset_env, DBUS_*_ADDRESS, SSH_AUTH_SOCK, SSH_AGENT_PID, DOCKER_HOST,
 * CONTAINER_HOST, GPG_AGENT_INFO, XDG_RUNTIME_DIR, WAYLAND_DISPLAY, WAYLAND_SOCKET, DISPLAY, PULSE_SERVER,
 * NOTIFY_SOCKET, LISTEN_*, SLIRP_MED_*, and each variable whose value contains the path of a masked socket. IPv6 is
 * off, ping and ports below 1024 need no privilege. No capability in any set, no_new_privs, the filter of sandbox.h's
 * sm_sandbox_guest_filter(), only descriptors 0, 1, 2 (and with "bare" those named above).
 */
#ifndef SM_PATHS_GUEST_INIT_H
#define SM_PATHS_GUEST_INIT_H

/** Largest configuration: an argv of ARG_MAX (2 MiB) escaped as JSON, and the rest. */
#define SM_GUEST_INIT_CONFIG_MAX (16u << 20)
/** Exit status when CMD was not started. */
#define SM_GUEST_INIT_FAILED 125

/** sm_guest_init_main() - the subcommand. Returns the process's exit status. */
int sm_guest_init_main(int argc, char **argv);

#endif
