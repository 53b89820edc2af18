/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Harnesses whose instructions, system calls and allocations are counted (counts.py): a front, or a core, in one process with a
 * scripted other side, doing the same thing again and again. Only what runs below counts_turn() is counted, so the
 * other side may be as simple as it likes; and that only after counts_begin(), so that start-up and the first of
 * everything fall out. A harness leaves what it made to the end of the process.
 */
#ifndef SM_BENCH_COUNTS_H
#define SM_BENCH_COUNTS_H

#include <stddef.h>

#include "base/loop.h"

struct counts_case {
    const char *name;
    const char *unit; /* what is done n times, in words */
    unsigned n;
    void (*run)(unsigned n);
};

/** counts_begin() - what is counted begins here. */
void counts_begin(void);
/** counts_turn() - one turn of the loop of what is looked at; the caller has made sure that there is something to do,
 * or waits for it (timeout_ms). */
void counts_turn(struct sm_loop *loop, int timeout_ms);

/** counts_allocations_count() - allocations count from here on, or no more; counts_allocations_made() - how many there were. */
void counts_allocations_count(bool on);
unsigned long counts_allocations_made(void);

/** UNTIL() - turns, by the turn() of the file, until it is so: as few as are needed. */
#define UNTIL(what)                                                                                                    \
    do {                                                                                                               \
        unsigned turns_ = 0;                                                                                           \
        while (!(what)) {                                                                                              \
            assert_true(turns_++ < TURNS_MAX);                                                                         \
            turn();                                                                                                    \
        }                                                                                                              \
    } while (0)
#define TURNS_MAX 500

/** What happens between two turns: so many frames or datagrams at most, as a card under load has them. */
#define BURST 16u
#define DATAGRAM 1400u

extern const struct counts_case counts_front[], counts_vhost[], counts_core[];
extern const size_t n_counts_front, n_counts_vhost, n_counts_core;

#endif
