/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A port over vhost-user on a loop, served as the front serves it, with the simulator on the other end of its socket.
 * What the port reads is kept; what is sent through it goes by sm_port_send(), with its queue.
 */
#ifndef TESTS_VHOST_HARNESS_H
#define TESTS_VHOST_HARNESS_H

#include <glib.h>

#include "base/loop.h"
#include "net.h"
#include "nat/port.h"

#define FEATURES                                                                                                       \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | NET_F_CSUM | NET_F_GUEST_CSUM |                \
     NET_F_GUEST_TSO4 | NET_F_GUEST_ECN | NET_F_HOST_TSO4 | NET_F_HOST_ECN | NET_F_MRG_RXBUF)
#define PROTOCOL (VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIGURE_MEM_SLOTS)

struct got {
    size_t len;
    struct sm_offload offload;
    uint8_t data[];
};

struct env {
    struct sm_loop *loop;
    struct sm_port *port;
    struct sim *sim;
    bool reading; /* as the front's: false while the channel to the core is full */
    bool dead;    /* the port said so */
    int max_batch;
    uint64_t calls; /* by the port */
    GQueue got;
    struct sm_frame frames[SM_PORT_BATCH];
};

/** env_new() - a port without a VMM, and a simulator without a connection. */
struct env *env_new(const struct sim_config *cfg);
/** env_new_around() - the same with another port over vhost-user, which is taken. */
struct env *env_new_around(const struct sim_config *cfg, struct sm_port *port);
void env_free(struct env *env);
/** env_connect() - a new socket pair. */
void env_connect(struct env *env, enum sim_order order);
/** env_turn() - one turn, as the front's. */
void env_turn(struct env *env, int timeout_ms);
/** env_settle() - turns until nothing happens any more. False: it never came to rest. */
bool env_settle(struct env *env);

/** env_frame() - a frame that can be told from all others of its number and length. */
void env_frame(uint8_t *frame, size_t len, unsigned number);
/** env_take() - the next frame that the port read, or NULL. For g_free(). */
struct got *env_take(struct env *env);
/** env_send() - to the guest. */
void env_send(struct env *env, const void *frame, size_t len, const struct sm_offload *offload);

/** env_up() - a frame from the guest arrives; env_down() - one to it does. Others are thrown away. */
bool env_up(struct env *env);
bool env_down(struct env *env);

/** What a connection may leave behind nothing of: descriptors and mappings of this process. */
unsigned env_count_fds(void);
unsigned env_count_maps(void);

#endif
