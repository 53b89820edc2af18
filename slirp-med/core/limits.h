/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The caps in the core: what stands between the arithmetic (caps.h), the flows, the record and counters.json.
 *
 * What is counted: the bytes that the core writes to and reads from upstream sockets for the guest's flows, TCP and UDP
 * (payload of the transport: TLS records and handshakes count, TCP and IP heads and retransmissions do not). For an
 * intercepted flow that is what its origin sends and receives, as it is for any other; a request that a credential was
 * put into counts with it. Not counted, and not held back: what the core itself answers or asks (DNS, over UDP and TCP;
 * token endpoints and Vault, whose socket is the fetch helper's and no flow's), and denials.
 *
 * Under a byte cap (rate or total) no upstream socket is handed over: every TCP flow is a pair, and all its bytes pass
 * sm_limits_read() and sm_limits_write(). They do no more than read(2) and send(2) where there is no cap.
 *
 *   over the rate          EAGAIN; mediate.c does not watch the socket in that direction (sm_limits_blocked()) until
 *                          the flow is woken.
 *                          A datagram is dropped. egress_cap_exceeded once a second, with how often
 *   over the total         the flow that wants a byte more is torn down: egress_cap_exceeded with the flow, its close
 *                          line, RST or ICMP.
 *                          A new one is denied: max_total_bytes
 *   over the connections   denied: max_conns. Every admitted TCP and UDP flow counts until its close line
 *
 * Denials have lines of their own (egress_deny, egress_udp_deny); beside them egress_cap_exceeded tells their number,
 * once a second.
 *
 * counters.json is written in place through a descriptor (SM_COUNTERS_FD) that the launcher opened: at the start, then
 * whenever SM_LIMITS_STORE_BYTES have been moved since, every second when any have, and at the end. It survives the
 * death of any process with less than that lost. While it cannot be written no flow is admitted (counters_unwritable):
 * what cannot be counted is not begun.
 */
#ifndef SM_CORE_LIMITS_H
#define SM_CORE_LIMITS_H

#include "core/core.h"

/**
 * Bytes that a crash may leave uncounted: what the total may be exceeded by (issue 4: 256 KiB), with room for the one
 * read or write that completes them.
 */
#define SM_LIMITS_STORE_BYTES (128u << 10)
#define SM_LIMITS_STORE_US INT64_C(1000000)
/**
 * A flow that could use more than this gets its receive buffer sized by the kernel (net.core.rmem_max may allow us no
 * more).
 */
#define SM_LIMITS_BUFFER_MAX (128 << 10)
/**
 * When no more than this is left of the total, receive buffers share SM_LIMITS_NEAR_BUFFERS: what origins have sent and
 * nobody will read stays below 256 KiB. More than a window that is already open, less than anybody would notice to come
 * in smaller ones.
 */
#define SM_LIMITS_NEAR (UINT64_C(8) << 20)
#define SM_LIMITS_NEAR_BUFFERS (64u << 10)
/** A pair's queue is this share of a second's bytes, between a full write of the front and what the kernel likes. */
#define SM_LIMITS_PAIR_SHARE 16
#define SM_LIMITS_PAIR_MIN (16 << 10)
#define SM_LIMITS_PAIR_MAX (208 << 10)
/** Smallest receive buffer: a few segments with what the kernel needs to hold them. */
#define SM_LIMITS_BUFFER_MIN (4 << 10)

/**
 * sm_limits_init() - nothing is made when the configuration sets no cap. @fd: of counters.json; taken; -1 when no byte
 * cap is set.
 */
bool sm_limits_init(struct sm_core *core, int fd, GError **error) SM_WARN_UNUSED;
void sm_limits_free(struct sm_core *core);

/** sm_limits_admit() - may this flow begin? NULL: yes, and it is counted; otherwise the reason of its denial. */
const char *sm_limits_admit(struct sm_session *s);
/** sm_limits_quit() - its end; harmless for a flow that was not admitted. */
void sm_limits_quit(struct sm_session *s);
/** sm_limits_relays() - is there a byte cap, so that flows must not be handed over? */
bool sm_limits_relays(const struct sm_core *core);

/**
 * sm_limits_dialling() - a socket that is to be connected: under a rate its receive buffer begins small and stays so
 * while the rate is used.
 *
 * What an origin sends beyond what is read waits in the kernel. It would hold 64 KiB a flow from the start and enlarge
 * that whenever a flow reads in pieces: fifty flows at 1 MiB/s would have three seconds' worth there, refilled all at
 * once, and the rate would be right in the guest and wrong at the origin. So the buffer is ours to size: a quantum, and
 * twice as large each time a flow has read two of them, finds nothing more and the rate has been left unused for
 * SM_CAPS_SLACK_US (a far origin, which needs a window). Beyond SM_LIMITS_BUFFER_MAX it is the kernel's again. Before
 * Linux 5.14 it could not be given back (SO_BUF_LOCK), and is left alone. Near the end of the total all buffers are
 * small (SM_LIMITS_NEAR).
 */
void sm_limits_dialling(struct sm_session *s, int fd);
/**
 * sm_limits_pair_bytes() - what the pair's queues may hold, where @otherwise (0: as the kernel likes) would be without
 * a rate. The front is told that it may write again when three quarters have been read: of a large queue, at a small
 * share of the rate, that is a stall of minutes.
 */
int sm_limits_pair_bytes(const struct sm_session *s, int otherwise);
/**
 * sm_limits_read(), sm_limits_write() - read(2) and send(2) on the flow's upstream socket, as far as the caps let it.
 */
ssize_t sm_limits_read(struct sm_session *s, void *buf, size_t len);
ssize_t sm_limits_write(struct sm_session *s, const void *buf, size_t len);
/** sm_limits_blocked() - it waits for its turn, or for its end: the socket is not to be watched for that direction. */
bool sm_limits_blocked(const struct sm_session *s, enum sm_caps_dir dir);
/** sm_limits_cut_short() - the last read ended where the cap did, and not where the bytes did. */
bool sm_limits_cut_short(const struct sm_session *s);
/** sm_limits_stop_waiting() - the upstream socket is gone: nothing is waited for any more. */
void sm_limits_stop_waiting(struct sm_session *s);
/** sm_limits_count() - bytes_up and bytes_down of a stream under a byte cap; false: there is none, the kernel knows. */
bool sm_limits_count(struct sm_session *s);
/** sm_limits_moved() - n bytes of a datagram went on. */
void sm_limits_moved(struct sm_session *s, enum sm_caps_dir dir, size_t n);

/** What becomes of a datagram. SPENT: the flow has been closed. */
enum sm_limits_fate { SM_LIMITS_PASS, SM_LIMITS_DROP, SM_LIMITS_SPENT };
/** sm_limits_datagram() - asked before it is sent on; sm_limits_moved() when it was. */
enum sm_limits_fate sm_limits_datagram(struct sm_session *s, enum sm_caps_dir dir, size_t len);

/** sm_limits_waits() - is there anything for it to do? */
bool sm_limits_waits(const struct sm_core *core);
/** sm_limits_every_second() - the lines that come once a second, and the counters' file. */
void sm_limits_every_second(struct sm_core *core);
/** sm_limits_stop() - all flows have ended: the last lines, the last record of the file. */
void sm_limits_stop(struct sm_core *core);
/** sm_limits_start_line() - the caps, for egress_start. */
void sm_limits_start_line(const struct sm_core *core, struct sm_audit_record *r);
/** sm_limits_total() - bytes counted, of all runs; 0 without a cap. */
uint64_t sm_limits_total(const struct sm_core *core);
/** sm_limits_counted() - the same by direction. False: this run counts nothing. */
bool sm_limits_counted(const struct sm_core *core, uint64_t ret[SM_CAPS_DIRS]);
/**
 * sm_limits_report() - for `status`: {max_bps, max_total_bytes, max_conns, conns, bytes_up, bytes_down}, null:
 * unlimited. NULL: no cap.
 */
struct json_t *sm_limits_report(const struct sm_core *core);

#endif
