/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The link between the supervisor and each process that it started: short text messages on a SOCK_SEQPACKET pair (descriptor 3 of the child).
 *
 * A message is a verb of the table below, then optionally one space and text (UTF-8, no NUL), and at most one descriptor. Both sides trust the
 * other no further than the table in supervisor/requests: the supervisor takes an unknown verb, or one that the child may not send, as the end
 * of that child, and parses no text beyond the named role.
 *
 *   TAKE n     +fd    sup -> core    to one that was started ahead (supervisor/ahead.h), before all else: this is to be
 *                                    your descriptor n;  TAKE  sup -> core  these were all
 *   READY             child -> sup   sandbox entered, serving (core and front; of the guest TAP says as much)
 *   CA hash           core -> sup    the CA's files are complete; the hash of its subject, by which OpenSSL finds it in
 *                                    a folder of certificates: eight hex digits;
 *                                    CA hash  sup -> guest  the same, passed on
 *   FAIL text         child -> sup   cannot start or cannot go on; text is for the operator; the child exits
 *   TAP [pid]  +fd    guest -> sup   the tap descriptor; on the kernel path the keeper's process and the bundle of
 *                                    nat/tproxy.h; nothing with it: the network is isolated
 *   GO                sup -> guest   run CMD now
 *   EXIT n            guest -> sup   CMD's exit status
 *   SIGNAL n          sup -> guest   pass signal n to CMD
 *   WANT role         core -> sup    open the file of that role ("audit": rotate; "resolv": resolv.conf; "roots": the certificates that
 *                                    the host trusts, PEM; "fetchroots": the same with what the operator adds, for the
 *                                    fetch helper; "ref:N": the credential that reference N names)
 *   GIVE role  +fd    sup -> core    the answer, or news (resolv.conf changed); without a descriptor: it could not be had (for a
 *                                    reference: "ref:N why")
 *   FETCH      +fd    core -> sup    start a fetch helper with this descriptor (core/fetchmsg.h)
 *   PORT what  +fd    sup -> front   a VMM has connected: "net" carries frames, "vsock" the packets of a vsock device (nat/port.h)
 *   PORT what         front -> sup   that VMM has gone, or could not be served: the next one may come
 *   LISTENERS text    sup -> core    our own listening addresses, all of them, with commas between (none: no text);
 *                                    LISTENERS  core -> sup  no guest reaches these from now on
 *   INGRESS port +fd  sup -> core    a client of the port that is published as the guest's port;
 *                                    INGRESS  core -> sup  one of these is with the front, or over
 *   POLICY     +fd    sup -> core    the lists from now on (core/config.h);  POLICY  core -> sup  they are in force;
 *                                    POLICY why  core -> sup  they are not, and those before still are
 *   SNAPSHOT   +fd    sup -> core    write what a snapshot keeps of you into this memfd (core/carry.h);
 *                                    SNAPSHOT  core -> sup  it is written;  SNAPSHOT why  core -> sup  it could not be
 *   VSOCK port +fd    sup -> core    the VMM's vsock has brought a connection of the guest's to that port (core/vsock.h)
 *   SERIAL     +fd    sup -> core    the host's side of the guest's virtio-serial port (core/vsock.h)
 *   STATUS            sup -> child   report;  STATUS json  child -> sup  the report
 *   STOP              sup -> child   end in order
 */
#ifndef SM_BASE_LINK_H
#define SM_BASE_LINK_H

#include "base/fd.h"

enum sm_link_verb {
    SM_LINK_TAKE,
    SM_LINK_READY,
    SM_LINK_CA,
    SM_LINK_FAIL,
    SM_LINK_TAP,
    SM_LINK_GO,
    SM_LINK_EXIT,
    SM_LINK_SIGNAL,
    SM_LINK_WANT,
    SM_LINK_GIVE,
    SM_LINK_FETCH,
    SM_LINK_PORT,
    SM_LINK_LISTENERS,
    SM_LINK_INGRESS,
    SM_LINK_POLICY,
    SM_LINK_SNAPSHOT,
    SM_LINK_VSOCK,
    SM_LINK_SERIAL,
    SM_LINK_STATUS,
    SM_LINK_STOP,
    SM_LINK_VERBS
};

/** Longest message: a status report is the largest. */
#define SM_LINK_MAX 32768

/** Descriptor numbers that every child of the supervisor finds. */
#define SM_LINK_FD 3    /* this link */
#define SM_CONFIG_FD 4  /* sealed memfd with one JSON object */
#define SM_CHANNEL_FD 5 /* core, front: the handoff channel */
#define SM_ROLE_FD                                                                                                     \
    6 /* core: the audit file; front: the tap, or what its kind of port wants (a PORT may bring it later) */

/* Only where TLS is intercepted (mode guarded or strict, not opaque, a network): the workspace's CA, made anew by the
 * core on each start. The files are empty when it gets them, and complete when it says CA; CMD's GO comes after that.
 * Where the configuration names a CA that was kept (ca_sha256), they are its files, for reading. */
#define SM_CA_KEY_FD 7   /* core: ca.key in the state folder, for writing */
#define SM_CA_CERT_FD 8  /* core: ca.pem, for writing */
#define SM_GUEST_CA_FD 7 /* guest: ca.pem, for reading */

/* Only under a byte cap: counters.json (core/counters.h), for writing. Its numbers come in the configuration. */
#define SM_COUNTERS_FD 9

/* guest: from here on, descriptors that the launcher meant for CMD (the sockets behind a virtual machine's devices). */
#define SM_GUEST_MORE_FD 8
#define SM_GUEST_MORE_MAX 4

/** Arguments of a core that is started ahead: so, and with OpenSSL made ready while it waits. */
#define SM_LINK_AHEAD "ahead"
#define SM_LINK_AHEAD_TLS "tls"

/** A FAIL at the start that begins so is told to the operator without the name of the child. */
#define SM_LINK_FAIL_AS_IT_IS "egress: "

struct sm_link_msg {
    enum sm_link_verb verb;
    char text[SM_LINK_MAX]; /* "" when there is none */
    int fd;                 /* -1 when there is none; the receiver's to close */
};

const char *sm_link_verb_name(enum sm_link_verb verb);

/** sm_link_send() - text may be NULL; fd may be -1 and stays the caller's. Returns 0, or -1 with errno. */
int sm_link_send(int sock, enum sm_link_verb verb, const char *text, int fd);
/** sm_link_recv() - returns 1, 0 at end of stream, or -1 with errno (EAGAIN; EPROTO for a malformed message). */
int sm_link_recv(int sock, struct sm_link_msg *ret);

#endif
