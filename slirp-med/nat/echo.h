/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Echo replies for the gateway (RFC 792), so that `ping` of the default route says that the wire works. Nothing behind
 * the gateway can be pinged. Rate-bounded by a token bucket: a flood is answered SM_ECHO_RATE times a second and
 * otherwise ignored.
 */
#ifndef SM_NAT_ECHO_H
#define SM_NAT_ECHO_H

#include "nat/wire.h"

/** Replies a second, and in one burst: `ping -f` still looks alive, a flood costs nothing to speak of. */
#define SM_ECHO_RATE 200
#define SM_ECHO_BURST 50

struct sm_echo {
    int64_t tokens_us; /* one reply costs 1000000 / SM_ECHO_RATE */
    int64_t last_us;
    bool started;
};

/**
 * sm_echo_answer() - the reply to a frame that the guard passed as an echo request, written into out.
 * @len: the frame's length without padding (the guard's frame_len); out has room for as much, and for SM_ETH_MIN at
 * least. Returns the reply's length, or 0 when there is none (a wrong checksum, or over the rate).
 */
size_t sm_echo_answer(struct sm_echo *echo, const struct sm_link *link, const uint8_t *frame, size_t len,
                      int64_t now_us, uint8_t *out, size_t cap);

#endif
