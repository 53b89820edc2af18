/* SPDX-License-Identifier: BSD-3-Clause */
/* Lies told in guest memory: descriptors, indirect tables, indices, headers, and all of them while they are being read.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lies.h"

#define FRAME 60

static struct sim_queue *tx(struct sim *sim)
{
    return &sim->queues[NET_TX];
}

static struct sim_queue *rx(struct sim *sim)
{
    return &sim->queues[NET_RX];
}

static void desc(struct sim_queue *q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    sim_desc(q->sim, q->desc + (uint64_t)i * DESC_LEN, addr, len, flags, next);
}

/* Shows one head, and kicks in any case. */
static int show(struct sim_queue *q, uint16_t head)
{
    sim_queue_push(q, head);
    if (!sim_queue_publish(q))
        sim_queue_kick(q);
    sim_turns(q->sim, 4);
    return 0;
}

/* A place that holds a header of zeros and a frame. */
static uint64_t frame_at(struct sim *sim)
{
    uint64_t gpa = sim_buffer(sim, 1, NET_HDR + FRAME);

    sim_fill(sim, gpa, 0, NET_HDR + FRAME);
    return gpa;
}

/* ---- one chain in the sending ring ---- */

static int head(struct sim *sim, uint64_t value)
{
    return show(tx(sim), (uint16_t)value);
}

static int head_is_size(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return show(tx(sim), tx(sim)->size);
}

static int loop_of_one(struct sim *sim, uint64_t len)
{
    desc(tx(sim), 0, frame_at(sim), (uint32_t)len, DESC_NEXT, 0);
    return show(tx(sim), 0);
}

static int loop_of_two(struct sim *sim, uint64_t len)
{
    desc(tx(sim), 0, frame_at(sim), (uint32_t)len, DESC_NEXT, 1);
    desc(tx(sim), 1, frame_at(sim), (uint32_t)len, DESC_NEXT, 0);
    return show(tx(sim), 0);
}

/* Through every descriptor that there is, and once more. */
static int loop_of_all(struct sim *sim, uint64_t len)
{
    uint16_t n = tx(sim)->size;

    for (uint16_t i = 0; i < n; i++)
        desc(tx(sim), i, frame_at(sim), (uint32_t)len, DESC_NEXT, (uint16_t)((i + 1) % n));
    return show(tx(sim), 0);
}

static int next_out_of_range(struct sim *sim, uint64_t next)
{
    desc(tx(sim), 0, frame_at(sim), NET_HDR, DESC_NEXT, (uint16_t)next);
    return show(tx(sim), 0);
}

struct range {
    uint64_t gpa;
    uint32_t len;
};

static const struct range bad_ranges[] = {
    {UINT64_C(0x80000000), 100},     /* 0: in the hole */
    {UINT64_C(1) << 63, 100},        /* 1 */
    {UINT64_MAX - 50, 100},          /* 2: goes round */
    {UINT64_MAX, UINT32_MAX},        /* 3 */
    {SIM_PAGE, UINT32_MAX},          /* 4: almost 4 GiB */
    {(UINT64_C(1) << 32) - 1, 100},  /* 5: begins a byte before a region */
    {UINT64_C(0x7f5a00000000), 100}, /* 6: an address of the VMM */
    {0, 1u << 31},                   /* 7 */
};

static int bad_range(struct sim *sim, uint64_t which)
{
    desc(tx(sim), 0, bad_ranges[which].gpa, bad_ranges[which].len, 0, 0);
    return show(tx(sim), 0);
}

/* The header is good. */
static int bad_second(struct sim *sim, uint64_t which)
{
    desc(tx(sim), 0, frame_at(sim), NET_HDR, DESC_NEXT, 1);
    desc(tx(sim), 1, bad_ranges[which].gpa, bad_ranges[which].len, 0, 0);
    return show(tx(sim), 0);
}

/* A region's last byte, and one more. */
static int past_the_end(struct sim *sim, uint64_t more)
{
    const struct sim_region *r = &sim->regions[2];

    desc(tx(sim), 0, r->gpa + r->size - NET_HDR, (uint32_t)(NET_HDR + more), 0, 0);
    return show(tx(sim), 0);
}

static int of_length(struct sim *sim, uint64_t len)
{
    desc(tx(sim), 0, frame_at(sim), (uint32_t)len, 0, 0);
    return show(tx(sim), 0);
}

/* Nothing between header and frame. */
static int empty_piece(struct sim *sim, uint64_t unused)
{
    uint64_t at = frame_at(sim);

    (void)unused;
    desc(tx(sim), 0, at, NET_HDR, DESC_NEXT, 1);
    desc(tx(sim), 1, at, 0, DESC_NEXT, 2);
    desc(tx(sim), 2, at + NET_HDR, FRAME, 0, 0);
    return show(tx(sim), 0);
}

static int too_long(struct sim *sim, uint64_t len)
{
    desc(tx(sim), 0, frame_at(sim), NET_HDR, DESC_NEXT, 1);
    desc(tx(sim), 1, sim->regions[0].gpa, (uint32_t)len, 0, 0);
    return show(tx(sim), 0);
}

/* The same megabyte again and again: more bytes than memory. */
static int same_again(struct sim *sim, uint64_t unused)
{
    uint16_t n = tx(sim)->size;

    (void)unused;
    for (uint16_t i = 0; i < n; i++)
        desc(tx(sim), i, sim->regions[0].gpa, (uint32_t)sim->regions[0].size, i + 1 < n ? DESC_NEXT : 0,
             (uint16_t)(i + 1));
    return show(tx(sim), 0);
}

static int writable(struct sim *sim, uint64_t which)
{
    uint64_t at = frame_at(sim);

    desc(tx(sim), 0, at, NET_HDR, (uint16_t)(DESC_NEXT | (which & 1 ? DESC_WRITE : 0)), 1);
    desc(tx(sim), 1, at + NET_HDR, FRAME, which & 2 ? DESC_WRITE : 0, 0);
    return show(tx(sim), 0);
}

static int same_head(struct sim *sim, uint64_t times)
{
    desc(tx(sim), 0, frame_at(sim), NET_HDR + FRAME, 0, 0);
    for (uint64_t i = 0; i < times; i++)
        sim_queue_push(tx(sim), 0);
    (void)sim_queue_publish(tx(sim));
    sim_turns(sim, 4);
    return 0;
}

static int unknown_flags(struct sim *sim, uint64_t flags)
{
    desc(tx(sim), 0, frame_at(sim), NET_HDR + FRAME, (uint16_t)flags, 0);
    return show(tx(sim), 0);
}

/* ---- indices ---- */

static int jump(struct sim_queue *q, uint16_t by)
{
    sim_put16(q->avail_mem + 2, (uint16_t)(q->avail_idx + by));
    sim_queue_kick(q);
    sim_turns(q->sim, 4);
    return 0;
}

static int jump_by_size_and_one(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return jump(tx(sim), (uint16_t)(tx(sim)->size + 1));
}

static int jump_by(struct sim *sim, uint64_t by)
{
    return jump(tx(sim), (uint16_t)by);
}

static int rx_jump_by(struct sim *sim, uint64_t by)
{
    return jump(rx(sim), (uint16_t)by);
}

/* The guest writes what is the device's. */
static int used_scribbled(struct sim *sim, uint64_t unused)
{
    (void)unused;
    memset(tx(sim)->used_mem, 0x5a, 6 + 8 * (size_t)tx(sim)->size);
    sim_queue_kick(tx(sim));
    sim_turns(sim, 4);
    return 0;
}

/* ---- indirect tables ---- */

static uint64_t indirect_table(struct sim *sim)
{
    uint64_t t = (sim_buffer(sim, 2, 40 * DESC_LEN) + DESC_LEN - 1) / DESC_LEN * DESC_LEN;

    for (uint16_t i = 0; i < 32; i++)
        sim_desc(sim, t + (uint64_t)i * DESC_LEN, frame_at(sim), NET_HDR, i < 31 ? DESC_NEXT : 0, (uint16_t)(i + 1));
    return t;
}

static int indirect_length(struct sim *sim, uint64_t len)
{
    desc(tx(sim), 0, indirect_table(sim), (uint32_t)len, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_at(struct sim *sim, uint64_t gpa)
{
    desc(tx(sim), 0, gpa, 2 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

/* A table whose second half is behind the region. */
static int indirect_past_the_end(struct sim *sim, uint64_t unused)
{
    const struct sim_region *r = &sim->regions[2];
    uint64_t at = r->gpa + r->size - DESC_LEN;

    (void)unused;
    sim_desc(sim, at, frame_at(sim), NET_HDR, DESC_NEXT, 1);
    desc(tx(sim), 0, at, 2 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_nested(struct sim *sim, uint64_t place)
{
    uint64_t t = indirect_table(sim), inner = indirect_table(sim);

    sim_desc(sim, t + place * DESC_LEN, inner, 32 * DESC_LEN, DESC_INDIRECT, 0);
    desc(tx(sim), 0, t, 32 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_itself(struct sim *sim, uint64_t unused)
{
    uint64_t t = indirect_table(sim);

    (void)unused;
    sim_desc(sim, t, t, 32 * DESC_LEN, DESC_INDIRECT, 0);
    desc(tx(sim), 0, t, 32 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_and_next(struct sim *sim, uint64_t unused)
{
    (void)unused;
    desc(tx(sim), 0, indirect_table(sim), 32 * DESC_LEN, DESC_INDIRECT | DESC_NEXT, 1);
    desc(tx(sim), 1, frame_at(sim), FRAME, 0, 0);
    return show(tx(sim), 0);
}

/* With bytes it is too long for a frame some day; without any it is only the count that ends it. */
static int indirect_loop(struct sim *sim, uint64_t len)
{
    uint64_t t = indirect_table(sim);

    for (uint16_t i = 0; i < 4; i++)
        sim_desc(sim, t + (uint64_t)i * DESC_LEN, frame_at(sim), (uint32_t)len, DESC_NEXT, (uint16_t)((i + 1) % 4));
    desc(tx(sim), 0, t, 32 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_next_out_of_range(struct sim *sim, uint64_t next)
{
    uint64_t t = indirect_table(sim);

    sim_desc(sim, t + DESC_LEN, frame_at(sim), NET_HDR, DESC_NEXT, (uint16_t)next);
    desc(tx(sim), 0, t, 32 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

static int indirect_bad_range(struct sim *sim, uint64_t which)
{
    uint64_t t = indirect_table(sim);

    sim_desc(sim, t + DESC_LEN, bad_ranges[which].gpa, bad_ranges[which].len, 0, 0);
    desc(tx(sim), 0, t, 2 * DESC_LEN, DESC_INDIRECT, 0);
    return show(tx(sim), 0);
}

/* ---- the receiving ring: found out when a frame comes ---- */

/* Descriptors that an honest driver comes to late: buffers that are supplied afterwards do not overwrite them. */
#define FAR 200

static int rx_bad_range(struct sim *sim, uint64_t which)
{
    desc(rx(sim), FAR, bad_ranges[which].gpa, bad_ranges[which].len, DESC_WRITE, 0);
    return show(rx(sim), FAR);
}

static int rx_readable(struct sim *sim, uint64_t unused)
{
    (void)unused;
    desc(rx(sim), FAR, sim_buffer(sim, 0, 2048), 2048, 0, 0);
    return show(rx(sim), FAR);
}

static int rx_half_readable(struct sim *sim, uint64_t unused)
{
    (void)unused;
    desc(rx(sim), FAR, sim_buffer(sim, 0, 2048), 2048, DESC_WRITE | DESC_NEXT, FAR + 1);
    desc(rx(sim), FAR + 1, sim_buffer(sim, 0, 2048), 2048, 0, 0);
    return show(rx(sim), FAR);
}

static int rx_loop(struct sim *sim, uint64_t len)
{
    uint64_t at = sim_buffer(sim, 0, 64);

    desc(rx(sim), FAR, at, (uint32_t)len, DESC_WRITE | DESC_NEXT, FAR + 1);
    desc(rx(sim), FAR + 1, at, (uint32_t)len, DESC_WRITE | DESC_NEXT, FAR);
    return show(rx(sim), FAR);
}

static int rx_head(struct sim *sim, uint64_t value)
{
    return show(rx(sim), (uint16_t)value);
}

static int rx_next_out_of_range(struct sim *sim, uint64_t next)
{
    desc(rx(sim), FAR, sim_buffer(sim, 0, 64), 16, DESC_WRITE | DESC_NEXT, (uint16_t)next);
    return show(rx(sim), FAR);
}

static int rx_of_length(struct sim *sim, uint64_t len)
{
    desc(rx(sim), FAR, sim_buffer(sim, 0, 64), (uint32_t)len, DESC_WRITE, 0);
    return show(rx(sim), FAR);
}

/* Frames are to be written over the ring that says where. */
static int rx_over_ring(struct sim *sim, uint64_t which)
{
    uint64_t at = which == 0 ? rx(sim)->desc : which == 1 ? rx(sim)->avail : rx(sim)->used;

    for (uint16_t i = 0; i < 8; i++) {
        desc(rx(sim), i, at, 2048, DESC_WRITE, 0);
        sim_queue_push(rx(sim), i);
    }
    (void)sim_queue_publish(rx(sim));
    return 0;
}

/* ---- headers ---- */

/* Bytes of the header, as a number: flags, gso_type, hdr_len, gso_size | csum_start, csum_offset, num_buffers in
 * `rows`. */
static const struct sim_net_hdr bad_headers[] = {
    {.flags = NET_HDR_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535},       /* 0 */
    {.flags = NET_HDR_NEEDS_CSUM, .csum_start = FRAME - 1, .csum_offset = 0},       /* 1 */
    {.flags = NET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = FRAME - 34 - 1}, /* 2 */
    {.flags = NET_HDR_NEEDS_CSUM, .csum_start = 0, .csum_offset = 0},               /* 3 */
    {.flags = 0xff, .gso_type = 0xff, .hdr_len = 0xffff, .gso_size = 0xffff, .csum_start = 1, .csum_offset = 0xffff},
    {.gso_type = NET_GSO_TCPV4, .hdr_len = 54, .gso_size = 1460}, /* 5 */
    {.flags = NET_HDR_NEEDS_CSUM,
     .gso_type = NET_GSO_TCPV4,
     .hdr_len = 54,
     .csum_start = 34,
     .csum_offset = 16}, /* 6 */
    {.flags = NET_HDR_NEEDS_CSUM,
     .gso_type = NET_GSO_TCPV4,
     .hdr_len = 54,
     .gso_size = 1,
     .csum_start = 34,
     .csum_offset = 16}, /* 7 */
    {.flags = NET_HDR_NEEDS_CSUM,
     .gso_type = NET_GSO_TCPV4,
     .hdr_len = 65535,
     .gso_size = 1460,
     .csum_start = 34,
     .csum_offset = 16}, /* 8 */
    {.flags = NET_HDR_NEEDS_CSUM,
     .gso_type = NET_GSO_UDP,
     .hdr_len = 42,
     .gso_size = 1460,
     .csum_start = 34,
     .csum_offset = 6}, /* 9 */
    {.flags = NET_HDR_NEEDS_CSUM,
     .gso_type = NET_GSO_TCPV6,
     .hdr_len = 74,
     .gso_size = 1440,
     .csum_start = 54,
     .csum_offset = 16},                                                                     /* 10 */
    {.gso_type = NET_GSO_ECN},                                                               /* 11 */
    {.num_buffers = 65535},                                                                  /* 12 */
    {.flags = NET_HDR_NEEDS_CSUM | NET_HDR_DATA_VALID, .csum_start = 34, .csum_offset = 16}, /* 13 */
    {.flags = 0xfc},                                                                         /* 14 */
};

static int header(struct sim *sim, uint64_t which)
{
    uint8_t frame[FRAME] = {0};

    SIM_MUST(sim_net_send(sim, &bad_headers[which], frame, sizeof(frame), &sim_shapes[0]) == 0);
    sim_turns(sim, 4);
    (void)sim_net_reap(sim);
    return 0;
}

/* ---- while it is being read ---- */

struct racer {
    struct sim *sim;
    atomic_bool stop;
    uint64_t what;
};

/* Races on purpose: this is the guest's other processor, and the accesses are as plain as a guest's. */
__attribute__((no_sanitize("thread"))) static void *race(void *data)
{
    struct racer *r = data;
    struct sim_queue *q = tx(r->sim), *in = rx(r->sim);
    uint8_t *idx = q->avail_mem + 2;

    for (unsigned i = 0; !atomic_load(&r->stop); i++) {
        volatile uint8_t *d = q->desc_mem + (size_t)(i / 64 % 4) * DESC_LEN, *rd = in->desc_mem;
        switch (r->what) {
        case 0: /* length */
            d[8] = (uint8_t)i;
            d[11] = (uint8_t)(i >> 3);
            break;
        case 1: /* address */
            d[5] = (uint8_t)i;
            d[7] = (uint8_t)(i >> 2);
            break;
        case 2: /* flags and next */
            d[12] = (uint8_t)i;
            d[14] = (uint8_t)(i >> 3);
            break;
        case 3: /* the available index */
            *(volatile uint16_t *)(void *)idx = (uint16_t)(i * 7);
            break;
        case 4: /* the receiving side */
            rd[8] = (uint8_t)i;
            rd[10] = (uint8_t)(i >> 4);
            rd[12] = (uint8_t)(i >> 2);
            break;
        default: /* the used ring */
            q->used_mem[2 + i % 8] = (uint8_t)i;
            in->used_mem[2 + i % 8] = (uint8_t)i;
            break;
        }
    }
    return NULL;
}

/* A thousand turns of a ring whose memory does not stand still. */
static int racing(struct sim *sim, uint64_t what)
{
    struct racer r = {.sim = sim, .what = what};
    pthread_t thread;

    for (uint16_t i = 0; i < 4; i++)
        desc(tx(sim), i, frame_at(sim), NET_HDR + FRAME, i % 2 ? 0 : DESC_NEXT, (uint16_t)(i + 1));
    desc(rx(sim), 0, sim_buffer(sim, 0, 2048), 2048, DESC_WRITE, 0);
    sim_queue_push(rx(sim), 0);
    (void)sim_queue_publish(rx(sim));
    SIM_MUST(pthread_create(&thread, NULL, race, &r) == 0);
    for (unsigned i = 0; i < 1000; i++) {
        sim_queue_push(tx(sim), (uint16_t)(i % 4));
        (void)sim_queue_publish(tx(sim));
        if (i % 16 == 0)
            sim_queue_kick(tx(sim));
        sim_turns(sim, 1);
    }
    atomic_store(&r.stop, true);
    SIM_MUST(pthread_join(thread, NULL) == 0);
    return 0;
}

static int kick_storm(struct sim *sim, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        sim_queue_kick(i % 2 ? tx(sim) : rx(sim));
        if (i % 8 == 0)
            sim_turns(sim, 1);
    }
    return 0;
}

#define T SIM_AT_STARTED, SIM_END_TX_BROKEN
#define R SIM_AT_STARTED, SIM_END_RX_BROKEN
#define H SIM_AT_STARTED, SIM_END_HARMLESS
#define A SIM_AT_STARTED, SIM_END_ANY

const struct sim_lie sim_lies_ring[] = {
    {"a head of the ring's size", T, head_is_size, 0},
    {"a head of 32768", T, head, 32768},
    {"a head of 65535", T, head, 65535},
    {"a descriptor that is its own next", T, loop_of_one, NET_HDR},
    {"two descriptors in a circle", T, loop_of_two, FRAME},
    {"two empty descriptors in a circle", T, loop_of_two, 0},
    {"all descriptors in a circle", T, loop_of_all, 1},
    {"next is the ring's size", T, next_out_of_range, 256},
    {"next is 65535", T, next_out_of_range, 65535},
    {"a buffer in the hole", T, bad_range, 0},
    {"a buffer far above", T, bad_range, 1},
    {"a buffer that goes round", T, bad_range, 2},
    {"a buffer at the last byte", T, bad_range, 3},
    {"a buffer of 4 GiB", T, bad_range, 4},
    {"a buffer that begins outside", T, bad_range, 5},
    {"a buffer by the VMM's address", T, bad_range, 6},
    {"a buffer of 2 GiB", T, bad_range, 7},
    {"a frame in the hole", T, bad_second, 0},
    {"a frame that goes round", T, bad_second, 2},
    {"a frame of 4 GiB", T, bad_second, 4},
    {"a buffer that ends a byte behind memory", T, past_the_end, 1},
    {"a header and no frame", A, of_length, NET_HDR},
    {"less than a header", A, of_length, NET_HDR - 1},
    {"an empty buffer", A, of_length, 0},
    {"an empty piece", A, empty_piece, 0},
    {"a frame of 128 KiB", A, too_long, 131072},
    {"a frame larger than memory", A, same_again, 0},
    {"a header for the device to write", T, writable, 1},
    {"a frame for the device to write", T, writable, 2},
    {"all for the device to write", T, writable, 3},
    {"a head three times", A, same_head, 3},
    {"unknown flags of a descriptor", A, unknown_flags, 0xfff8},
    {"available by the ring's size and one", T, jump_by_size_and_one, 0},
    {"available by 32768", T, jump_by, 32768},
    {"available backwards", T, jump_by, 65535},
    {"the used ring overwritten", A, used_scribbled, 0},
    {"an indirect table of no bytes", T, indirect_length, 0},
    {"an indirect table of 15 bytes", T, indirect_length, 15},
    {"an indirect table of 17 bytes", T, indirect_length, 17},
    {"an indirect table of 2^32-16 bytes", A, indirect_length, UINT32_MAX - 15},
    {"an indirect table in the hole", T, indirect_at, UINT64_C(0x80000000)},
    {"an indirect table at the top", T, indirect_at, UINT64_MAX - 15},
    {"an indirect table that ends behind memory", T, indirect_past_the_end, 0},
    {"an indirect table in an indirect table", T, indirect_nested, 0},
    {"an indirect table deep in an indirect table", T, indirect_nested, 7},
    {"an indirect table in itself", T, indirect_itself, 0},
    {"an indirect table and a next", A, indirect_and_next, 0},
    {"a circle in an indirect table", T, indirect_loop, NET_HDR},
    {"an empty circle in an indirect table", T, indirect_loop, 0},
    {"next is behind the indirect table", T, indirect_next_out_of_range, 32},
    {"next is far behind the indirect table", T, indirect_next_out_of_range, 65535},
    {"an indirect buffer in the hole", T, indirect_bad_range, 0},
    {"an indirect buffer of 4 GiB", T, indirect_bad_range, 4},

    {"rx: a head of 65535", R, rx_head, 65535},
    {"rx: a buffer in the hole", R, rx_bad_range, 0},
    {"rx: a buffer that goes round", R, rx_bad_range, 2},
    {"rx: a buffer at the last byte", R, rx_bad_range, 3},
    {"rx: a buffer of 4 GiB", A, rx_bad_range, 4},
    {"rx: a buffer for the device to read", R, rx_readable, 0},
    {"rx: a second buffer for the device to read", A, rx_half_readable, 0},
    {"rx: a circle", A, rx_loop, 64},
    {"rx: an empty circle", R, rx_loop, 0},
    {"rx: next is 65535", A, rx_next_out_of_range, 65535},
    {"rx: an empty buffer", A, rx_of_length, 0},
    {"rx: less than a header", A, rx_of_length, NET_HDR - 1},
    {"rx: a header and no frame", A, rx_of_length, NET_HDR},
    {"rx: over the descriptors", A, rx_over_ring, 0},
    {"rx: over the available ring", A, rx_over_ring, 1},
    {"rx: over the used ring", A, rx_over_ring, 2},
    {"rx: available by 32768", R, rx_jump_by, 32768},
    {"rx: available backwards", R, rx_jump_by, 65535},

    {"a checksum at 65535", H, header, 0},
    {"a checksum at the last byte", H, header, 1},
    {"a checksum half outside", H, header, 2},
    {"a checksum of everything, into itself", H, header, 3},
    {"a header of all ones", H, header, 4},
    {"TSO without a checksum", H, header, 5},
    {"TSO in segments of 0", H, header, 6},
    {"TSO in segments of 1", H, header, 7},
    {"TSO with a header longer than the frame", H, header, 8},
    {"UFO", H, header, 9},
    {"TSO for IPv6", H, header, 10},
    {"ECN of no segmentation", H, header, 11},
    {"a buffer count from the driver", H, header, 12},
    {"a checksum that is both partial and good", H, header, 13},
    {"unknown flags of a header", H, header, 14},

    {"lengths change", A, racing, 0},
    {"addresses change", A, racing, 1},
    {"flags change", A, racing, 2},
    {"the available index changes", A, racing, 3},
    {"receiving descriptors change", A, racing, 4},
    {"used rings change", A, racing, 5},
    {"a storm of kicks", H, kick_storm, 20000},
};
const unsigned sim_n_lies_ring = sizeof(sim_lies_ring) / sizeof(sim_lies_ring[0]);
