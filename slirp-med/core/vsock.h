/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the guest finds at the host's vsock ports (CID 2): a table of the operator's, outside of egress policy. Nothing that is not in it
 * exists: RST.
 *
 *   port                     leads to
 *   ca_port (1027)           the workspace's CA certificate, PEM, then the end of the stream; nothing without a CA (off, --egress-opaque)
 *   a mediation port         the host TCP target that --mediation names: a raw byte pipe, half-close kept, nothing looked at
 *
 * A connection comes in one of two ways, and is served alike:
 *  - OPEN of proto vsock: the guest has a virtio-vsock device of ours (nat/vsock.h). The answer is REFUSE, or ATTACH with one end of a
 *    socket pair; its abrupt end is ABORT or GONE.
 *  - VSOCK PORT with a descriptor on the link: the VMM has a vsock of its own that meets the host in Unix sockets (Firecracker's and
 *    cloud-hypervisor's PATH_PORT). It is connected before it is judged: a refusal is its end.
 * A third way needs no vsock at all: SERIAL with a descriptor, the host's side of a virtio-serial port. The guest writes the line "ca" and
 * reads the certificate; anything else is answered with the line "error". One answer at a time, so nothing is amplified.
 *
 * Targets are the operator's: loopback and inside addresses are allowed, and no list or cap counts. Names were resolved by the launcher, once;
 * each address is tried in turn. At the start every target is tried: one that is required and does not answer ends the start; after that a
 * target that fails costs the connection that wanted it.
 *
 * Recorded (not with mode off): mediation_open before the dial, and before a byte of the guest's moves; mediation_close with its bytes;
 * mediation_error when it cannot be (not_listed, no_ca, too_many, or what the dial said); ca_delivered before the certificate leaves (repeats
 * within a second are counted).
 * Lines of one connection share `conn`, those of one over the channel also `flow`.
 */
#ifndef SM_CORE_VSOCK_H
#define SM_CORE_VSOCK_H

#include <jansson.h>

#include "core/core.h"

/** Mediation connections at once (spec section 9). */
#define SM_CORE_MEDIATION_MAX 128
/** Descriptors that they may take: the guest's end, its other end until it is handed over, the target's. */
#define SM_CORE_MEDIATION_FDS (3 * SM_CORE_MEDIATION_MAX)
/** Certificates being delivered at once: each is over in a moment. */
#define SM_CORE_CA_CONNS_MAX 16
/** Bytes that wait in a pipe, each direction. */
#define SM_CORE_MEDIATION_BUF (64u << 10)
/** One address of a target must answer in this time: they are near. */
#define SM_CORE_MEDIATION_DIAL_US INT64_C(5000000)
/** A guest that does not take its certificate, or does not end, is let go after this. */
#define SM_CORE_CA_US INT64_C(10000000)
/** Longest line on the serial port. */
#define SM_CORE_SERIAL_LINE_MAX 64

/**
 * sm_core_vsock_new() - the table comes from the configuration. Every target is tried now; done() is called, from the loop, when all that are
 * required have answered (error NULL), or one has not. Without targets it is called at once.
 */
void sm_core_vsock_new(struct sm_core *core, void (*done)(struct sm_core *core, const GError *error));
void sm_core_vsock_free(struct sm_core *core);

/** sm_core_vsock_open() - an OPEN of proto vsock with a fresh id. */
void sm_core_vsock_open(struct sm_core *core, const struct sm_flow_msg *msg);
/** sm_core_vsock_gone() - GONE for an id that is no session's. */
void sm_core_vsock_gone(struct sm_core *core, uint64_t id, enum sm_flow_why why);
/** sm_core_vsock_attached() - an ATTACHED came: there is room for one more descriptor in flight. */
void sm_core_vsock_attached(struct sm_core *core);
/** sm_core_vsock_take() - VSOCK from the supervisor: text is the port. Takes *fd. */
void sm_core_vsock_take(struct sm_core *core, const char *text, int *fd);
/** sm_core_vsock_serial() - SERIAL from the supervisor. Takes *fd; one that was there before is closed. */
void sm_core_vsock_serial(struct sm_core *core, int *fd);
/** sm_core_vsock_stop() - the close line of every connection. */
void sm_core_vsock_stop(struct sm_core *core, const char *reason);
/** sm_core_vsock_report() - what STATUS says: adds "mediationReady" and "mediation" when there are targets. */
void sm_core_vsock_report(const struct sm_core *core, json_t *report);

#endif
