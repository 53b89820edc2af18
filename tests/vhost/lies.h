/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a hostile VMM or guest does over vhost-user: one row a lie, with what has to come of it.
 *
 * Two things hold for all of them and are the caller's to check: the back-end lives and does not spin, and an honest
 * VMM that connects afterwards is served. The table says what else.
 */
#ifndef TESTS_VHOST_LIES_H
#define TESTS_VHOST_LIES_H

#include "net.h"

enum sim_lie_at {
    SIM_AT_FRESH,      /* connected, nothing said */
    SIM_AT_NEGOTIATED, /* features are agreed upon, there is no memory and no ring */
    SIM_AT_STARTED,    /* both rings run, and frames can pass */
};

enum sim_lie_end {
    SIM_END_REFUSED,   /* tell() returns != 0: a refusal was said or the connection closed */
    SIM_END_TX_BROKEN, /* nothing that the guest sends afterwards arrives */
    SIM_END_RX_BROKEN, /* after one frame for the guest, which finds the lie, nothing that is sent to it arrives */
    SIM_END_HARMLESS,  /* both directions go on */
    SIM_END_ANY,       /* refused, broken or ignored: the specification leaves it open */
};

struct sim_lie {
    const char *name;
    enum sim_lie_at at;
    enum sim_lie_end end;
    int (*tell)(struct sim *sim, uint64_t arg);
    uint64_t arg;
};

/** Told in messages (lies.c); told in memory, by the guest (lies_ring.c). */
extern const struct sim_lie sim_lies_message[], sim_lies_ring[];
extern const unsigned sim_n_lies_message, sim_n_lies_ring;

/** sim_negotiate() - the part of a cloud-hypervisor start that comes before memory and rings. */
int sim_negotiate(struct sim *sim);

#endif
