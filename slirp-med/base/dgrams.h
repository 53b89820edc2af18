/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many datagrams with one system call, on a connected UDP socket.
 *
 * Sending: a run (neighbours of one size, the last of which may be shorter) goes as one message that the kernel cuts
 * (UDP_SEGMENT, udp(7)), and all messages with one sendmmsg(2). What is on the wire is what one send(2) for each would
 * have put there. A path whose MTU is smaller than the datagram (or a kernel or device that cannot cut) refuses that:
 * then each goes by itself, fragmented if need be, and `segment_max` remembers it for the socket's next ones.
 *
 * Receiving: one recvmmsg(2); with sm_dgrams_gather() the kernel may hand over neighbours of one size as one message
 * (UDP_GRO), which is taken apart here along the size that it says.
 *
 * System calls: sendmmsg, recvmmsg, setsockopt(IPPROTO_UDP, UDP_GRO).
 */
#ifndef SM_BASE_DGRAMS_H
#define SM_BASE_DGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/defs.h"

/** Payload of the largest UDP datagram over IPv4. */
#define SM_DGRAM_MAX 65507
/** Datagrams in one run: the kernel's UDP_MAX_SEGMENTS before Linux 6.9. */
#define SM_DGRAMS_RUN_MAX 64
/** Messages in one sendmmsg(2). */
#define SM_DGRAMS_SEND_MAX 64
/** Messages in one recvmmsg(2): enough to make the call cheap beside the copies, few enough that their memory is
 * small. */
#define SM_DGRAMS_RECV_MAX 32

/** Datagrams that lie behind each other and have one size, but for the last, which may be shorter. An empty one is a
 * run of its own. */
struct sm_dgrams_run {
    const uint8_t *data;
    size_t len;  /* of all */
    size_t size; /* of each */
};

static inline size_t sm_dgrams_run_count(const struct sm_dgrams_run *run)
{
    return run->len <= run->size ? 1 : (run->len + run->size - 1) / run->size;
}

/** sm_dgrams_run_take() - the first datagram of a run, of which the rest remains; false when it was the last one. */
static inline bool sm_dgrams_run_take(struct sm_dgrams_run *run, struct iovec *ret)
{
    size_t len = run->len < run->size ? run->len : run->size;

    *ret = (struct iovec){.iov_base = (void *)(uintptr_t)run->data, .iov_len = len};
    run->data += len;
    run->len -= len;
    return run->len > 0;
}

/** What became of datagrams; those that are neither sent nor lost lie behind a fatal error. */
struct sm_dgrams_sent {
    size_t sent, bytes;
    size_t lost; /* no room, or too large for the path */
    int err;     /* errno of the fatal error that ended it, or 0 */
};

/**
 * sm_dgrams_send() - in order; each run of at most SM_DGRAMS_RUN_MAX datagrams and SM_DGRAM_MAX bytes.
 * @segment_max: of this socket, UINT16_MAX at first: larger datagrams are not left to the kernel to cut.
 * @fatal: is the socket of no use after this errno? If not, the datagram that met it is lost and the next one is tried.
 */
struct sm_dgrams_sent sm_dgrams_send(int fd, const struct sm_dgrams_run *runs, size_t n, uint16_t *segment_max,
                                     bool (*fatal)(int err));

/** Buffers of sm_dgrams_recv(): 2 MiB, of which what was never filled costs nothing. */
struct sm_dgrams;
struct sm_dgrams *sm_dgrams_new(void);
void sm_dgrams_free(struct sm_dgrams *d);
/** sm_dgrams_gather() - let the kernel gather on this socket; one that cannot does not. */
void sm_dgrams_gather(int fd);
/** sm_dgrams_size() - of the datagrams that a message of len bytes was gathered from, as its control says; of one that was not, len. */
size_t sm_dgrams_size(struct msghdr *msg, size_t len);
/** sm_dgrams_recv() - what is there now. Return: messages, or -1 with errno. */
int sm_dgrams_recv(struct sm_dgrams *d, int fd);
/** sm_dgrams_next() - the next run of the last sm_dgrams_recv(), valid until the next one; false: no more. */
bool sm_dgrams_next(struct sm_dgrams *d, struct sm_dgrams_run *ret);

#endif
