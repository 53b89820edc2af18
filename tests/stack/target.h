/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * target.h: what a reproducer attacks. target_stock.c is libslirp 4.7.0 as
 * released, target_flow.c the one slirp-med is built with; repro.c is linked
 * once with each.
 */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/* The bugs are expected. */
extern const bool tg_has_bugs;

/* Start the one stack of this process. accept: what to say to a SYN, where
 * the stack asks. The host's loopback is forbidden as far as the stack can,
 * unless loopback is set. */
void tg_start(bool accept, bool loopback);
void tg_input(const uint8_t *frame, size_t len);

/* Let it work for up to ms; returns early when a frame to the guest is there. */
void tg_work(int ms);

/* The next frame to the guest, valid until the next call. */
bool tg_next(struct fr_packet *ret);

/* Bytes of TCP the stack has handed over, where that is not a host socket. */
size_t tg_taken(void);

#endif
