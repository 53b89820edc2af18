/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One end of the handoff channel: sends without ever blocking, and says when to slow down.
 *
 * The kernel's socket queue is the first buffer; what it does not take waits here, in order, up to SM_CHANNEL_QUEUE_MAX bytes.
 * OPEN, OTHER, REPEATED and DATAGRAM may be dropped: they are refused (and counted) as soon as anything waits beyond a quarter of the queue,
 * since the guest sends again. Every other type may use the whole queue; when half of it is full sm_channel_congested() is true, and the
 * owner stops reading from the guest (front) or from the channel (core) until it is false again. A queue that overflows all the same is a
 * broken peer: the channel fails.
 *
 * A packet of the kernel's is a system call and a wake-up of the peer, so messages share them where nobody is the worse for it. DATAGRAMs are
 * gathered until the packet is full or the owner calls sm_channel_flush(), which it does at the end of its turn.
 * ATTACHED and an ordered GONE, which nobody waits for, stay for SM_CHANNEL_PATIENCE_US. Any other message leaves at
 * once, and what was gathered before it with it.
 *
 * The front must not use sendmsg(2): an end made with may_send_fds false writes with write(2) only and refuses messages that carry descriptors.
 */
#ifndef SM_FLOW_CHANNEL_H
#define SM_FLOW_CHANNEL_H

#include <glib.h>

#include "base/fd.h"
#include "base/loop.h"
#include "flow/msg.h"

/** Waiting messages: 64 flows' worth of held bytes; a core that is slower than this for a moment is not a failure. */
#define SM_CHANNEL_QUEUE_MAX (4u << 20)
/** Messages handled in one turn, and the rest of a packet, so that one busy channel does not starve timers and
 * sockets. */
#define SM_CHANNEL_BATCH 128

/** How long an acknowledgement or an end waits for company: what an epoll_wait(2) can be told, and far below what a reader of the log sees. */
#define SM_CHANNEL_PATIENCE_US 1000

struct sm_channel;

struct sm_channel_ops {
    /** A legal message arrived. fds are the receiver's to close (n_fds == sm_flow_fds(type), or 0 or 1 for OPEN). */
    void (*message)(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data);
    /** The peer closed, an error, or a message that does not decode. Called once; the channel is dead. text says which. */
    void (*failed)(const char *text, void *data);
    /** Congestion ended: reading from the guest may go on. */
    void (*drained)(void *data);
};

/** sm_channel_new() - takes the (non-blocking SEQPACKET) descriptor. may_send_fds: false in the front. */
struct sm_channel *sm_channel_new(struct sm_loop *loop, int fd, bool may_send_fds, const struct sm_channel_ops *ops,
                                  void *data);
/** sm_channel_free() - may be called from inside a callback of this channel; no callback follows. What was gathered is sent. */
void sm_channel_free(struct sm_channel *ch);

/**
 * sm_channel_send() - queue or send a message; on success the channel owns fd (-1: none), on failure it stays the caller's.
 * Returns false when a droppable message was dropped or the channel is dead.
 */
bool sm_channel_send(struct sm_channel *ch, const struct sm_flow_msg *msg, int fd);
/** sm_channel_flush() - the end of a turn: what was gathered leaves now, if there is a DATAGRAM in it. Without it: in the next turn of the loop. */
void sm_channel_flush(struct sm_channel *ch);
/** sm_channel_finish() - nothing more will be sent: the peer's failed() is called behind all that was, ours when it closes. */
void sm_channel_finish(struct sm_channel *ch);
bool sm_channel_congested(const struct sm_channel *ch);
/** sm_channel_crowded() - a message that may be dropped would be: who can wait with it does. */
bool sm_channel_crowded(const struct sm_channel *ch);
/** sm_channel_pause() - stop or resume taking messages in (the core does so while its own queue drains). */
void sm_channel_pause(struct sm_channel *ch, bool pause);
/** sm_channel_dropped() - messages refused since the start. */
uint64_t sm_channel_dropped(const struct sm_channel *ch);

#endif
