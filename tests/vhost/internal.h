/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the simulator's own files. */
#ifndef TESTS_VHOST_INTERNAL_H
#define TESTS_VHOST_INTERNAL_H

#include "sim.h"

void sim_memory_init(struct sim *sim);
void sim_memory_clear(struct sim *sim);
void sim_queue_init(struct sim *sim, unsigned index);
void sim_queue_reset(struct sim_queue *q);
void sim_queue_clear(struct sim_queue *q);

#endif
