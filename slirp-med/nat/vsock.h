/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-vsock device's side of the protocol (virtio 1.2, section 5.10.6): stream sockets that the guest opens to the host, CID 2.
 *
 * An engine without descriptors and without a clock: packets of the guest go in, packets for it come out through emit(), and each stream is
 * offered to the owner as a connection with back-pressure both ways. Its ops are shaped like those of the TCP stack beside it (slirp-flow.h).
 *
 *   state      entered by                                          the guest's ports are   leaves by
 *   ASKED      REQUEST; open() took it                             taken                   accept, refuse; the guest's RST or SHUTDOWN
 *   OPEN       sm_vsock_accept(): RESPONSE                         taken                   abort, RST; SHUTDOWN of both sides
 *   DRAINING   SHUTDOWN of both sides, and bytes of the guest are  free (RST was sent,     the owner has taken them; abort
 *              not taken yet                                       which acknowledges it)
 *   LINGERING  both have said SHUTDOWN for sending, all was taken; taken                   the guest's RST or SHUTDOWN; pressed out by newer ones
 *              closed() was called
 *
 * Every packet is the guest's and may lie:
 *  - a wrong CID, theirs or ours, or less than a header: dropped (there is nobody to answer);
 *  - another type than STREAM (SEQPACKET was not offered), a stream that is not known: RST, unless it is an RST itself;
 *  - len that is not the payload's length, a payload where none belongs, an operation that is none or not the guest's, bytes after SHUTDOWN,
 *    bytes beyond the credit that it has (buf_alloc, fwd_cnt), a fwd_cnt that counts what was never sent or that runs backwards: RST, the
 *    stream is over (SM_VSOCK_END_PROTOCOL).
 *  - REQUEST for ports that are in use: the guest has forgotten that stream (it began anew); the old one is over, the new one is asked for.
 *
 * Credit: what the owner does not take is kept here, at most SM_VSOCK_BUF a stream, and that much and no more is the guest's credit. What the
 * guest does not read is not kept here: the owner writes at most sm_vsock_room(). A packet that is emitted must not be lost: nothing is sent
 * twice in this protocol. So the owner stops giving packets in and stops writing while its queue to the guest is half full; the other
 * half has room for all that the engine may say by itself until then (SM_VSOCK_OWN_PACKETS).
 */
#ifndef SM_NAT_VSOCK_H
#define SM_NAT_VSOCK_H

#include <sys/uio.h>

#include "base/defs.h"

/** "Host" of the specification: the only CID that the guest can reach. */
#define SM_VSOCK_CID_HOST 2
/** 0, 1 and 2 are taken, 2^32 - 1 means any (virtio 1.2, 5.10.4). */
#define SM_VSOCK_CID_MIN 3
#define SM_VSOCK_CID_MAX 0xfffffffeu
#define SM_VSOCK_CID_DEFAULT 3

#define SM_VSOCK_HDR 44
/** Largest payload of the guest's that is taken: Linux's guests send at most 64 KiB, and more than its credit it cannot send anyway. */
#define SM_VSOCK_PAYLOAD_MAX (64u << 10)
#define SM_VSOCK_PACKET_MAX (SM_VSOCK_HDR + SM_VSOCK_PAYLOAD_MAX)
/** Largest payload of ours: a packet fits each receive buffer of Linux's guests, which are a page less what the kernel keeps in it. */
#define SM_VSOCK_PAYLOAD_OUT_MAX 3584

/** Credit that a stream's guest gets, kept here at worst: 16 MiB with all streams stuck. */
#define SM_VSOCK_BUF (64u << 10)
/** What the guest says that it has room for counts up to here: beyond it in-flight arithmetic would have to fear its 32 bits. */
#define SM_VSOCK_PEER_BUF_MAX (16u << 20)
/** Streams at once that are not lingering: the core takes 128 for mediation, and the CA's are over in a moment. */
#define SM_VSOCK_STREAMS_MAX 256
/** Streams that only wait for the guest's last word. */
#define SM_VSOCK_LINGER_MAX 256
/** Taken bytes after which the guest is told of its credit. */
#define SM_VSOCK_TELL (SM_VSOCK_BUF / 4)
/** Packets that the engine may emit without a packet of the guest and without sm_vsock_write(): for each stream its answer, its SHUTDOWN twice, its
 * RST and the credit for what is kept, and a question for more. Below half of SM_PORT_QUEUE_FRAMES. */
#define SM_VSOCK_OWN_PACKETS (SM_VSOCK_STREAMS_MAX * (4 + SM_VSOCK_BUF / SM_VSOCK_TELL - 1))

/** How a stream ended, as the owner hears it in closed(). */
enum sm_vsock_end {
    SM_VSOCK_END_CLEAN, /* all that the guest sent was taken, and neither side will send more or the guest will not read it */
    SM_VSOCK_END_GUEST_RST, /* the guest reset it, or forgot it */
    SM_VSOCK_END_PROTOCOL,  /* the guest broke the rules */
    SM_VSOCK_END_RESET,     /* the device was reset: sm_vsock_reset() */
    SM_VSOCK_ENDS
};

struct sm_vsock;
struct sm_vsock_stream;

struct sm_vsock_ops {
    /** A packet for the guest, header first; 1 or 2 parts that live until the call returns. */
    void (*emit)(const struct iovec *iov, unsigned n_iov, void *data);
    /** The guest asks for host_port. Returns what the other ops get, or NULL: refused at once. The answer comes by sm_vsock_accept() or
     * sm_vsock_refuse(), from outside of this call. */
    void *(*open)(struct sm_vsock_stream *s, uint32_t guest_port, uint32_t host_port, void *data);
    /** Bytes of the guest. Returns how many are taken; the rest is kept and offered again by sm_vsock_flush(). */
    size_t (*bytes)(void *cookie, const uint8_t *p, size_t len, void *data);
    /** The guest sends no more, and all was taken. Not called when closed() says it as well. */
    void (*eof)(void *cookie, void *data);
    /** There is room again after sm_vsock_want(). */
    void (*writable)(void *cookie, void *data);
    /** It is over: the stream is gone when this returns. Not called for sm_vsock_refuse() and sm_vsock_abort(). */
    void (*closed)(void *cookie, enum sm_vsock_end how, void *data);
};

/** All counters since the start, but for those that say "now". */
struct sm_vsock_stats {
    uint64_t requests, refused; /* refused: by a bound, by the owner, or of a type that there is not */
    uint64_t foreign;           /* wrong CID */
    uint64_t unknown;           /* a stream that there is not */
    uint64_t malformed, cheated;
    uint64_t resets; /* RST that we sent */
    size_t streams_now, lingering_now, kept_now;
};

const char *sm_vsock_end_name(enum sm_vsock_end how);

/** sm_vsock_new() - @guest_cid: SM_VSOCK_CID_MIN to SM_VSOCK_CID_MAX. The ops stay the caller's. */
struct sm_vsock *sm_vsock_new(uint32_t guest_cid, const struct sm_vsock_ops *ops, void *data);
/** sm_vsock_free() - no callback is made and nothing is emitted. NULL is fine. Not from inside a callback. */
void sm_vsock_free(struct sm_vsock *v);

/** sm_vsock_input() - one packet of the guest, whole; the bytes are read once and stay the caller's. */
void sm_vsock_input(struct sm_vsock *v, const uint8_t *packet, size_t len);
/** sm_vsock_reset() - the guest's driver began anew, or the guest is gone: every stream ends, nothing is emitted. */
void sm_vsock_reset(struct sm_vsock *v);

/* Of one stream. All but refuse and abort may end it: closed() is called then, and the handle is dead on return. */

/** sm_vsock_accept() - the guest's connect(2) returns. Only while ASKED. */
void sm_vsock_accept(struct sm_vsock_stream *s);
/** sm_vsock_refuse() - ECONNRESET for the guest; the handle is dead. Only while ASKED. */
void sm_vsock_refuse(struct sm_vsock_stream *s);
/** sm_vsock_abort() - RST, unless the guest has closed it already; kept bytes are dropped; the handle is dead. */
void sm_vsock_abort(struct sm_vsock_stream *s);
/** sm_vsock_room() - bytes that may be written now, 0 while not OPEN or when the guest does not read any more. */
size_t sm_vsock_room(const struct sm_vsock_stream *s);
/** sm_vsock_write() - at most SM_VSOCK_PAYLOAD_OUT_MAX bytes in one packet. Returns how many were sent (up to the room). */
size_t sm_vsock_write(struct sm_vsock_stream *s, const uint8_t *p, size_t len);
/** sm_vsock_want() - there is something to write and no room: the guest is asked for credit, and writable() comes when it has given some. */
void sm_vsock_want(struct sm_vsock_stream *s);
/** sm_vsock_end() - nothing more will be written. */
void sm_vsock_end(struct sm_vsock_stream *s);
/** sm_vsock_flush() - offer what is kept once more. */
void sm_vsock_flush(struct sm_vsock_stream *s);
/** sm_vsock_kept() - bytes that wait to be taken. */
size_t sm_vsock_kept(const struct sm_vsock_stream *s);

void sm_vsock_stats(const struct sm_vsock *v, struct sm_vsock_stats *ret);

#endif
