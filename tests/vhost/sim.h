/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end of vhost-user: what a VMM and the driver in its guest do, without a VM.
 *
 * It speaks over one stream socket, owns guest memory in memfds (several regions, one file behind two of them, offsets
 * in the files), has kick, call and error eventfds, and writes split rings as a driver does. Written from the
 * vhost-user specification and virtio 1.1, apart from the back-end. net.h lets it send and receive frames, lies.h makes
 * it misbehave.
 *
 * It shows robustness, order and speed. That a capability works with a real VMM is shown by a real QEMU guest only;
 * cloud-hypervisor is not packaged, so its order is shown by this alone.
 *
 * The back-end may live in the same thread: whenever the simulator waits it calls config.turn(), which lets the
 * back-end work. What the back-end does against the specification (a used entry that was never available, a reply that
 * nobody asked for) is kept in `wrong`, the first one; an empty string means that none was seen. What fails on the
 * simulator's own side (memory, descriptors) ends the program.
 */
#ifndef TESTS_VHOST_SIM_H
#define TESTS_VHOST_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define SIM_REGIONS 4 /* rings lie in the first three */
#define SIM_RING_REGIONS 3
#define SIM_QUEUES_MAX 3
#define SIM_STEPS_MAX 64
#define SIM_FDS_MAX 16
#define SIM_PAYLOAD_MAX 4096
#define SIM_PAGE 4096u

#define SIM_MUST(x)                                                                                                    \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            sim_die(__FILE__, __LINE__, #x);                                                                           \
    } while (0)
void sim_die(const char *file, int line, const char *what) __attribute__((noreturn));

enum sim_order {
    SIM_QEMU, /* as recorded from QEMU 7.2: the table in one message, SET_VRING_ENABLE before rings and memory exist */
    SIM_QEMU_SLOTS,       /* the same with CONFIGURE_MEM_SLOTS: ADD_MEM_REG for each region */
    SIM_CLOUD_HYPERVISOR, /* owner first, sizes of all rings, enable last, an acknowledgement wanted for every message
                           */
    SIM_CLOUD_HYPERVISOR_SLOTS, /* the same with ADD_MEM_REG for each region */
    SIM_PLAIN, /* no protocol features: rings are enabled as soon as they start (vhost-user, "ring states") */
    SIM_ORDER_COUNT
};
const char *sim_order_name(enum sim_order order);

struct sim_region {
    uint64_t gpa, size; /* where the guest sees it */
    uint64_t uva;       /* where the VMM claims to have it; no pointer of this process */
    uint64_t offset;    /* in the file */
    int fd;
    uint8_t *mem;  /* where it is in this process */
    uint64_t used; /* bytes given out by sim_alloc() */
    uint64_t next; /* sim_buffer()'s place */
    bool added;    /* by ADD_MEM_REG, on this connection */
};

/** One piece of a descriptor chain. */
struct sim_piece {
    uint64_t gpa;
    uint32_t len;
    bool write; /* the device writes it */
};

/** A chain that the device holds. */
struct sim_chain {
    struct sim_piece *pieces;
    unsigned n, cap;
    uint16_t descs; /* taken in the ring: 1 when indirect, 0 when free */
    uint64_t table; /* the indirect table, 0 if none */
};

struct sim_queue {
    struct sim *sim;
    unsigned index;
    uint16_t size;
    uint64_t desc, avail, used; /* guest addresses */
    uint8_t *desc_mem, *avail_mem, *used_mem;
    int kick, call, err;
    uint16_t avail_idx; /* published, except for `pending` */
    uint16_t pending;
    uint16_t last_used;
    uint16_t base; /* what SET_VRING_BASE says */
    uint16_t in_flight;
    uint16_t *free, n_free;
    uint16_t *link; /* the driver's own copy of `next` */
    struct sim_chain *chains;
    bool quiet;               /* calls are not wanted */
    uint64_t kicks, unkicked; /* publications that the device wanted to hear of, and that it did not */
    uint64_t calls;           /* notifications that were read */
};

struct sim_config {
    uint64_t features; /* wanted; what is acknowledged is the part of them that was offered */
    uint64_t protocol;
    unsigned n_queues;
    uint16_t queue_size;
    uint64_t region_size; /* of each region; 0: 1 MiB */
    int timeout_ms;       /* for a reply; 0: 5 s */
    unsigned max_turns; /* for a reply, in place of a time: for fuzzing, where the clock must not matter; 0: no bound */
    void (*turn)(void *data, int timeout_ms); /* let the back-end work; waits at most so long */
    void *data;
};

struct sim_msg {
    uint32_t request, flags, size;
    uint8_t payload[SIM_PAYLOAD_MAX];
};

struct sim;

/** A message of an order. Returns 0, 1 (refused by its acknowledgement) or -1 (the connection is gone, or no reply
 * came). */
struct sim_step {
    const char *name;
    int (*fn)(struct sim *sim, unsigned arg);
    unsigned arg;
};

struct sim {
    struct sim_config cfg;
    enum sim_order order;
    int sock; /* -1 when there is none */
    struct sim_region regions[SIM_REGIONS];
    struct sim_queue queues[SIM_QUEUES_MAX];
    uint64_t offered, acked, offered_protocol, protocol;
    struct sim_step steps[SIM_STEPS_MAX];
    unsigned n_steps;
    bool dropped; /* the back-end closed the connection */
    uint8_t in[VU_HEADER + SIM_PAYLOAD_MAX];
    size_t in_len;
    size_t chunk; /* bytes that are sent at once, with a turn in between; 0: no bound */
    size_t limit; /* so many bytes are sent, then the connection is closed; SIZE_MAX: no bound */
    char wrong[256];
};

struct sim *sim_new(const struct sim_config *cfg);
void sim_free(struct sim *sim);
void sim_freep(struct sim **sim);

/** sim_wrong() - the back-end broke a rule; the first is kept. */
void sim_wrong(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** sim_turns() - let the back-end work n times without waiting. */
void sim_turns(struct sim *sim, unsigned n);

/* ---- the connection ---- */

/** sim_connect() - takes a connected stream socket and makes the plan for the order. Rings and memory stay as they are.
 */
void sim_connect(struct sim *sim, int sock, enum sim_order order);
void sim_disconnect(struct sim *sim);
/** sim_run() - the steps first..end-1 of the plan. Returns 0 or what the step that failed returned. */
int sim_run(struct sim *sim, unsigned first, unsigned end);
/** sim_start() - the whole plan. */
int sim_start(struct sim *sim);
/** sim_restart() - after sim_stop(), on the same connection: from SET_FEATURES on; memory slots that are there stay. */
int sim_restart(struct sim *sim);
/** sim_stop() - as the order's VMM stops a device; the bases that come back are kept for the next start. */
int sim_stop(struct sim *sim);
/** sim_stop_old() - as a cloud-hypervisor of 2022 and before: rings are disabled, and set up anew without having been
 * stopped. */
int sim_stop_old(struct sim *sim, bool reset_owner);
/** sim_rings_new() - the guest's driver starts over: empty rings, nothing in flight. */
void sim_rings_new(struct sim *sim);
/** sim_rings_move() - the same, and they lie elsewhere: ring 0 where ring 1 was, and so on. */
void sim_rings_move(struct sim *sim);
/** sim_rings_again() - the VMM will connect again while the driver keeps its rings. QEMU's base is the used index,
 * cloud-hypervisor's the available one: what was in flight is lost there. By the order of the connection before. */
void sim_rings_again(struct sim *sim);

/* ---- messages ---- */

/** sim_send_bytes() - as they are, descriptors with the first byte. Returns false when the connection is gone. */
bool sim_send_bytes(struct sim *sim, const void *bytes, size_t len, const int *fds, unsigned n_fds);
bool sim_send(struct sim *sim, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
              unsigned n_fds);
/** sim_recv() - the next reply; false: none came in time, or the connection is gone (then `dropped`). */
bool sim_recv(struct sim *sim, struct sim_msg *ret);
/** sim_tell() - a message without an answer of its own; an acknowledgement is asked for if the order does. Returns as a
 * step. */
int sim_tell(struct sim *sim, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n_fds);
/** sim_ask() - the same, and an acknowledgement is asked for whenever it was negotiated. */
int sim_ask(struct sim *sim, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n_fds);
int sim_get_u64(struct sim *sim, uint32_t request, uint64_t *ret);
int sim_tell_u64(struct sim *sim, uint32_t request, uint64_t value);
int sim_vring_state(struct sim *sim, uint32_t request, uint32_t index, uint32_t num);
int sim_vring_fd(struct sim *sim, uint32_t request, uint64_t value, int fd);
int sim_vring_addr(struct sim *sim, uint32_t index, uint32_t flags, uint64_t desc, uint64_t used, uint64_t avail);
int sim_get_base(struct sim *sim, uint32_t index, uint16_t *ret);
/** sim_put_region() - one region of a message. */
void sim_put_region(uint8_t p[VU_REGION], uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset);
int sim_set_table(struct sim *sim, unsigned unused);
int sim_add_region(struct sim *sim, unsigned region);
int sim_rem_region(struct sim *sim, unsigned region);
/** sim_sync() - all messages so far were read: GET_FEATURES and its reply. Returns as a step. */
int sim_sync(struct sim *sim);

/* ---- memory ---- */

/** sim_at() - guest memory in this process; the range must be in one region. */
uint8_t *sim_at(struct sim *sim, uint64_t gpa, uint64_t len);
void sim_write(struct sim *sim, uint64_t gpa, const void *data, size_t len);
void sim_read(struct sim *sim, uint64_t gpa, void *data, size_t len);
void sim_fill(struct sim *sim, uint64_t gpa, uint8_t c, size_t len);
/** sim_alloc() - for good; page aligned. */
uint64_t sim_alloc(struct sim *sim, unsigned region, uint64_t len);
/** sim_buffer() - a place for len bytes, given out in a circle: what is in flight must be less than the region. */
uint64_t sim_buffer(struct sim *sim, unsigned region, uint32_t len);
/** sim_buffer_across() - a place that begins in region 0 and ends in region 1, which lie side by side for the guest
 * only. */
uint64_t sim_buffer_across(struct sim *sim, uint32_t len);
/** sim_uva() - what the VMM calls that guest address. */
uint64_t sim_uva(struct sim *sim, uint64_t gpa);
/** sim_regions_again() - the same files by new descriptors: what SET_MEM_TABLE during I/O brings. */
void sim_regions_again(struct sim *sim);
/** sim_regions_copy() - other files with the same contents; whatever the back-end does before it is told is lost. */
void sim_regions_copy(struct sim *sim);

void sim_put16(uint8_t *p, uint16_t v);
void sim_put32(uint8_t *p, uint32_t v);
void sim_put64(uint8_t *p, uint64_t v);
uint16_t sim_get16(const uint8_t *p);
uint32_t sim_get32(const uint8_t *p);
uint64_t sim_get64(const uint8_t *p);

/* ---- rings ---- */

/** sim_desc() - write one descriptor, whatever it says, at a guest address (the ring's or an indirect table's). */
void sim_desc(struct sim *sim, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
/** sim_queue_add() - a chain; not yet published. Returns its head, or -1 when there is no room. */
int sim_queue_add(struct sim_queue *q, const struct sim_piece *pieces, unsigned n, bool indirect);
/** sim_queue_push() - put a head into the available ring, whatever it is; not yet published. */
void sim_queue_push(struct sim_queue *q, uint16_t head);
/** sim_queue_publish() - show what was added and kick if the device wants to hear of it. Returns whether it was kicked.
 */
bool sim_queue_publish(struct sim_queue *q);
void sim_queue_kick(struct sim_queue *q);
/** sim_queue_pop() - the next used chain, valid until its head is added again; NULL: none. */
const struct sim_chain *sim_queue_pop(struct sim_queue *q, uint32_t *ret_len);
/** sim_queue_done() - used chains that were not popped yet. */
unsigned sim_queue_done(struct sim_queue *q);
/** sim_queue_quiet() - with true no calls are wanted; with false one for the next used chain. */
void sim_queue_quiet(struct sim_queue *q, bool quiet);
/** sim_queue_call_after() - with EVENT_IDX: a call when n more chains are used (n >= 1). */
void sim_queue_call_after(struct sim_queue *q, uint16_t n);
/** sim_queue_calls() - read the call eventfd; adds to q->calls and returns what it held. */
uint64_t sim_queue_calls(struct sim_queue *q);

#endif
