/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-net and virtio-vsock over vhost-user: any sequence of messages, memory contents and kicks, with honest ones
 * among them so that the input gets further in. After each input an honest VMM connects, and a frame must pass each
 * way.
 *
 * The input is a list of operations, a byte each with its arguments behind it, so that mutation keeps meaning. Numbers
 * are often taken from a table of those that have edges.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tests/unit/vhost/harness.h"
#include "base/log.h"
#include "lies.h"
#include "ports/ports.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 200
#define QUEUE_SIZE 16
#define REGION (64 * SIM_PAGE)
#define VSOCK_HDR 44
#define VSOCK_OP 30
#define VSOCK_OP_RW 5

static const uint8_t *in, *end;

static unsigned byte(void)
{
    return in < end ? *in++ : 0;
}

static unsigned word(void)
{
    unsigned hi = byte();
    return hi << 8 | byte();
}

/* Sizes, lengths and indices. */
static uint32_t number(void)
{
    static const uint32_t edges[] = {0,
                                     1,
                                     2,
                                     8,
                                     11,
                                     12,
                                     13,
                                     15,
                                     16,
                                     17,
                                     31,
                                     32,
                                     60,
                                     72,
                                     255,
                                     256,
                                     257,
                                     1514,
                                     4095,
                                     4096,
                                     4097,
                                     REGION - 1,
                                     REGION,
                                     REGION + 1,
                                     32767,
                                     32768,
                                     65535,
                                     65536,
                                     INT32_MAX,
                                     1u << 31,
                                     UINT32_MAX - 15,
                                     UINT32_MAX};
    unsigned b = byte();
    return b < 128 ? edges[b % SM_ARRAY_LEN(edges)] : b & 1 ? b & 0x1f : word();
}

/* A guest address, or the VMM's for one. */
static uint64_t address(const struct sim *sim, bool uva)
{
    static const int64_t near[] = {0, 1, -1, 2, 16, -16, 4096, -4096, -12, -2, -6, 8192, 64, 72, 20000, 33000};
    unsigned b = byte();
    const struct sim_region *r = &sim->regions[b % SIM_REGIONS];
    uint64_t base = uva ? r->uva : r->gpa;

    switch (b / SIM_REGIONS % 4) {
    case 0:
        return base + (uint64_t)near[byte() % 16];
    case 1:
        return base + r->size + (uint64_t)near[byte() % 16];
    case 2:
        return base + word() % r->size;
    default:
        return (uint64_t)near[byte() % 16] << (b / 16);
    }
}

/* Where a ring's own parts are. */
static uint64_t part(const struct sim_queue *q)
{
    unsigned b = byte();
    uint64_t at = b % 3 == 0 ? q->desc : b % 3 == 1 ? q->avail : q->used;
    return at + b / 3 * 2;
}

static int some_fd(struct sim *sim)
{
    int pair[2];

    switch (byte() % 8) {
    case 0:
        return dup(sim->regions[byte() % SIM_REGIONS].fd);
    case 1:
        SIM_MUST(pipe(pair) == 0);
        (void)close(pair[1]);
        return pair[0];
    case 2: {
        int fd = memfd_create("fuzz", MFD_CLOEXEC);
        SIM_MUST(fd >= 0 && ftruncate(fd, (off_t)(word() % REGION)) == 0);
        return fd;
    }
    case 3:
        return dup(sim->queues[byte() % 2].call);
    default:
        return dup(sim->queues[byte() % 2].kick);
    }
}

/* Sent with up to three descriptors. No answer is waited for. */
static void message(struct env *env, uint32_t request, const void *payload, uint32_t size)
{
    struct sim *sim = env->sim;
    unsigned b = byte();
    int fds[3] = {-1, -1, -1};
    unsigned n = b % 4 == 3 ? b / 64 : b % 4 == 2 ? 1 : 0;
    uint32_t flags = b & 0x10 ? byte() : VU_VERSION | (b & 0x20 ? VU_NEED_REPLY : 0);

    for (unsigned i = 0; i < n; i++)
        SIM_MUST((fds[i] = some_fd(sim)) >= 0);
    (void)sim_send(sim, request, flags, payload, size, fds, n);
    for (unsigned i = 0; i < n; i++)
        (void)close(fds[i]);
    env_turn(env, 0);
}

static void any_message(struct env *env)
{
    uint8_t payload[300] = {0};
    unsigned request = byte() % 48, size = byte();

    for (unsigned i = 0; i < size && in < end; i++)
        payload[i] = (uint8_t)byte();
    message(env, request, payload, size);
}

static void vring_message(struct env *env)
{
    static const uint32_t requests[] = {VU_SET_VRING_NUM,  VU_SET_VRING_BASE, VU_GET_VRING_BASE, VU_SET_VRING_ENABLE,
                                        VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ERR,  VU_SET_VRING_ADDR};
    unsigned b = byte();
    uint32_t request = requests[b % 8];
    const struct sim_queue *q = &env->sim->queues[b / 8 % 2];
    uint8_t p[40] = {0};

    sim_put32(p, b / 8 % 4 == 3 ? number() : b / 8 % 2);
    if (request != VU_SET_VRING_ADDR) {
        sim_put32(p + 4, request >= VU_SET_VRING_KICK && request <= VU_SET_VRING_ERR ? byte() / 128 : number());
        message(env, request, p, 8);
        return;
    }
    uint64_t gpa[3] = {q->desc, q->used, q->avail};
    for (unsigned i = 0; i < 3; i++)
        sim_put64(p + 8 + (size_t)i * 8, b / 32 == i + 1 ? address(env->sim, true) : sim_uva(env->sim, gpa[i]));
    message(env, request, p, sizeof(p));
}

static void memory_message(struct env *env)
{
    struct sim *sim = env->sim;
    uint8_t p[8 + 8 * VU_REGION] = {0};
    int fds[8];
    unsigned b = byte(), n = b % 8;

    sim_put32(p, b & 0x80 ? number() : n);
    for (unsigned i = 0; i < n; i++) {
        const struct sim_region *r = &sim->regions[(b / 8 + i) % SIM_REGIONS];
        unsigned lie = byte();
        sim_put_region(p + 8 + (size_t)i * VU_REGION, lie & 1 ? address(sim, false) : r->gpa,
                       lie & 2 ? number() : r->size, lie & 4 ? address(sim, true) : r->uva,
                       lie & 8 ? number() : r->offset);
        fds[i] = lie & 16 ? some_fd(sim) : dup(r->fd);
        SIM_MUST(fds[i] >= 0);
    }
    unsigned how = byte();
    if (how & 1 && n > 0) /* one slot */
        (void)sim_send(sim, how & 2 ? VU_REM_MEM_REG : VU_ADD_MEM_REG, VU_VERSION, p, 8 + VU_REGION, fds,
                       how & 2 ? 0 : 1);
    else
        (void)sim_send(sim, VU_SET_MEM_TABLE, VU_VERSION, p, 8 + n * VU_REGION, fds, how & 0x80 && n > 0 ? n - 1 : n);
    for (unsigned i = 0; i < n; i++)
        (void)close(fds[i]);
    env_turn(env, 0);
}

static void descriptor(struct env *env, bool indirect)
{
    struct sim *sim = env->sim;
    const struct sim_queue *q = &sim->queues[byte() % 2];
    unsigned place = byte(), b = byte();
    uint64_t table = indirect ? sim->regions[3].gpa + 64 : q->desc, addr = b & 1 ? address(sim, false) : table + 4096;
    uint32_t len = b & 2 ? number() : 100;
    uint16_t flags = (uint16_t)(b >> 2 & 7);

    if (flags & DESC_INDIRECT && b & 0x40) {
        addr = sim->regions[3].gpa + 64;
        len = (byte() % 20) * DESC_LEN;
    }
    sim_desc(sim, table + (uint64_t)(place % QUEUE_SIZE) * DESC_LEN, addr, len, flags,
             (uint16_t)(b & 0x80 ? number() : (place + 1) % QUEUE_SIZE));
}

static void available(struct env *env)
{
    struct sim_queue *q = &env->sim->queues[byte() % 2];
    unsigned b = byte();

    for (unsigned i = 0; i <= b % 4; i++)
        sim_queue_push(q, (uint16_t)(b & 0x80 ? number() : (b / 4 + i) % QUEUE_SIZE));
    if (!sim_queue_publish(q) && b & 0x40)
        sim_queue_kick(q);
    env_turn(env, 0);
}

/* Two bytes of a ring. */
static void scribble(struct env *env)
{
    struct sim_queue *q = &env->sim->queues[byte() % 2];
    uint64_t at = part(q);
    uint8_t *p = sim_at(env->sim, at, 2);

    sim_put16(p, (uint16_t)number());
    sim_queue_kick(q);
    env_turn(env, 0);
}

static void frame_up(struct env *env)
{
    static uint8_t frame[2000];
    unsigned b = byte();
    struct sim_net_hdr hdr = {0};

    if (b & 0x80)
        hdr = (struct sim_net_hdr){.flags = (uint8_t)byte(),
                                   .gso_type = (uint8_t)byte(),
                                   .hdr_len = (uint16_t)number(),
                                   .gso_size = (uint16_t)number(),
                                   .csum_start = (uint16_t)number(),
                                   .csum_offset = (uint16_t)number()};
    (void)sim_net_send(env->sim, &hdr, frame, 1 + number() % 150, &sim_shapes[b % 0x80 % sim_n_shapes]);
    env_turn(env, 0);
}

static void frame_down(struct env *env)
{
    static uint8_t frame[65536];
    unsigned b = byte();
    struct sm_offload o = {0};
    size_t len = 14 + (b & 0x40 ? number() % (sizeof(frame) - 14) : 50);

    frame[VSOCK_OP] = b & 0x20 ? VSOCK_OP_RW : 1; /* stream data are cut to the guest's buffers, the rest is not */

    if (b & 0x80)
        o = (struct sm_offload){.flags = env->port->tx_offloads & SM_OFFLOAD_NEEDS_CSUM,
                                .gso_type =
                                    env->port->tx_offloads >> (16 + SM_GSO_TCPV4) & 1 ? SM_GSO_TCPV4 : SM_GSO_NONE,
                                .gso_size = 1460,
                                .csum_start = 34,
                                .csum_offset = 16};
    env_send(env, frame, len, &o);
    env_turn(env, 0);
}

static void drain(struct env *env)
{
    static uint8_t frame[SIM_FRAME_MAX];
    struct sim_net_hdr hdr;
    struct got *g;
    uint8_t bytes[512];

    (void)sim_net_reap(env->sim);
    for (unsigned i = 0; i < 8 && sim_net_receive(env->sim, &hdr, frame, sizeof(frame)) >= 0; i++)
        continue;
    while ((g = env_take(env))) {
        SIM_MUST(g->len <= env->port->max_frame + 1);
        g_free(g);
    }
    while (env->sim->sock >= 0 && recv(env->sim->sock, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        continue;
}

static void operation(struct env *env)
{
    struct sim *sim = env->sim;
    uint8_t bytes[16];
    unsigned b;

    switch (byte() % 18) {
    case 0:
        any_message(env);
        break;
    case 1:
    case 2:
        vring_message(env);
        break;
    case 3:
        memory_message(env);
        break;
    case 4:
        b = byte();
        drain(env); /* an answer to an earlier message would be taken for one to these */
        (void)sim_run(sim, b % 64, b % 64 + 1 + byte() % 40);
        break;
    case 5:
        drain(env);
        (void)sim_start(sim);
        break;
    case 6:
    case 7:
        descriptor(env, false);
        break;
    case 8:
        descriptor(env, true);
        break;
    case 9:
    case 10:
        available(env);
        break;
    case 11:
        scribble(env);
        break;
    case 12:
        frame_up(env);
        break;
    case 13:
        b = byte();
        (void)sim_net_supply(sim, 1 + b % 8, b & 0x40 ? 12 + number() % 2000 : 1526, &sim_shapes[b / 8 % 8]);
        break;
    case 14:
        frame_down(env);
        break;
    case 15:
        drain(env);
        env->reading = byte() & 1;
        env_turn(env, 0);
        break;
    case 16:
        b = byte();
        if (b & 1)
            sim_rings_new(sim);
        sim_disconnect(sim);
        env_turn(env, 0);
        env_connect(env, b / 2 % SIM_ORDER_COUNT);
        break;
    default: /* bytes as they are */
        b = byte() % sizeof(bytes);
        for (unsigned i = 0; i < b; i++)
            bytes[i] = (uint8_t)byte();
        (void)sim_send_bytes(sim, bytes, b, NULL, 0);
        env_turn(env, 0);
        break;
    }
}

/* A packet each way over vsock. */
static void honest_vsock(struct env *env)
{
    struct sim *sim = env->sim;
    uint8_t packet[VSOCK_HDR + 8] = {0};
    struct sim_piece out = {.gpa = sim_buffer(sim, 0, sizeof(packet)), .len = sizeof(packet)},
                     into = {.gpa = sim_buffer(sim, 1, 4096), .len = 4096, .write = true};
    uint32_t len;

    packet[VSOCK_OP] = VSOCK_OP_RW;
    packet[24] = 8;
    sim_write(sim, out.gpa, packet, sizeof(packet));
    SIM_MUST(sim_queue_add(&sim->queues[1], &out, 1, false) >= 0 && sim_queue_publish(&sim->queues[1]));
    SIM_MUST(sim_queue_add(&sim->queues[0], &into, 1, false) >= 0);
    (void)sim_queue_publish(&sim->queues[0]);
    env_turn(env, 0);
    env_turn(env, 0);
    struct got *g = env_take(env);
    SIM_MUST(g && g->len == sizeof(packet) && memcmp(g->data, packet, sizeof(packet)) == 0);
    g_free(g);
    env_send(env, packet, sizeof(packet), NULL);
    SIM_MUST(sim_queue_pop(&sim->queues[0], &len) && len == sizeof(packet));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sim_config cfg = {.features = FEATURES,
                             .protocol = PROTOCOL,
                             .n_queues = 2,
                             .queue_size = QUEUE_SIZE,
                             .region_size = REGION,
                             .max_turns = 8};
    (void)signal(SIGPIPE, SIG_IGN);
    sm_log_set_level(SM_LOG_ERROR);
    in = data;
    end = data + size;
    unsigned first = byte();
    bool vsock = first & 0x80;
    if (vsock) {
        cfg.n_queues = 3;
        cfg.protocol |= VU_P_CONFIG;
    }
    struct env *env =
        env_new_around(&cfg, vsock ? sm_port_vhost_vsock_new(-1, 3, NULL) : sm_port_vhost_net_new(-1, 1500, NULL));
    env_connect(env, first % SIM_ORDER_COUNT);
    for (unsigned i = 0; i < MAX_OPS && in < end && !env->dead; i++)
        operation(env);
    drain(env);
    SIM_MUST(!env->dead);

    env->reading = true;
    sim_disconnect(env->sim);
    env_turn(env, 0);
    sim_rings_new(env->sim);
    env->sim->wrong[0] = '\0';
    env_connect(env, SIM_QEMU);
    SIM_MUST(sim_start(env->sim) == 0);
    if (vsock)
        honest_vsock(env);
    else
        SIM_MUST(env_up(env) && env_down(env));
    if (env->sim->wrong[0])
        sim_die(__FILE__, __LINE__, env->sim->wrong);
    env_free(env);
    return 0;
}
