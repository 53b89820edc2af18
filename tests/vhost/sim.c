/* SPDX-License-Identifier: BSD-3-Clause */
/* The front-end simulator: connection, messages and their order. Memory is in memory.c, rings are in ring.c. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "sim.h"

#define TIMEOUT_MS 5000
#define REGION_SIZE (UINT64_C(1) << 20)

static const char *const order_names[] = {
    [SIM_QEMU] = "qemu",
    [SIM_QEMU_SLOTS] = "qemu-slots",
    [SIM_CLOUD_HYPERVISOR] = "cloud-hypervisor",
    [SIM_CLOUD_HYPERVISOR_SLOTS] = "cloud-hypervisor-slots",
    [SIM_PLAIN] = "plain",
};
_Static_assert(sizeof(order_names) / sizeof(order_names[0]) == SIM_ORDER_COUNT, "an order misses a name");

const char *sim_order_name(enum sim_order order)
{
    return order_names[order];
}

void sim_die(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: the simulator itself: %s: %s\n", file, line, what, strerror(errno));
    abort();
}

void sim_wrong(struct sim *sim, const char *format, ...)
{
    va_list ap;

    if (sim->wrong[0])
        return;
    va_start(ap, format);
    (void)vsnprintf(sim->wrong, sizeof(sim->wrong), format, ap);
    va_end(ap);
}

void sim_turns(struct sim *sim, unsigned n)
{
    while (n-- > 0)
        sim->cfg.turn(sim->cfg.data, 0);
}

struct sim *sim_new(const struct sim_config *cfg)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    SIM_MUST(sim && cfg->turn && cfg->n_queues > 0 && cfg->n_queues <= SIM_QUEUES_MAX && cfg->queue_size > 0);
    sim->cfg = *cfg;
    if (sim->cfg.region_size == 0)
        sim->cfg.region_size = REGION_SIZE;
    if (sim->cfg.timeout_ms == 0)
        sim->cfg.timeout_ms = TIMEOUT_MS;
    sim->sock = -1;
    sim->limit = SIZE_MAX;
    sim_memory_init(sim);
    for (unsigned i = 0; i < cfg->n_queues; i++)
        sim_queue_init(sim, i);
    for (unsigned i = 0; i < SIM_REGIONS; i++)
        sim->regions[i].next = sim->regions[i].used;
    return sim;
}

void sim_free(struct sim *sim)
{
    if (!sim)
        return;
    sim_disconnect(sim);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++)
        sim_queue_clear(&sim->queues[i]);
    sim_memory_clear(sim);
    free(sim);
}

void sim_freep(struct sim **sim)
{
    sim_free(*sim);
}

/* ---- bytes ---- */

static int64_t now_ms(void)
{
    struct timespec t;

    SIM_MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* How long to wait for the back-end. */
struct patience {
    int64_t end_ms;
    unsigned turns;
};

static struct patience patience(const struct sim *sim)
{
    return (struct patience){.end_ms = sim->cfg.max_turns ? 0 : now_ms() + sim->cfg.timeout_ms};
}

/* Let it work once more, the first time without waiting. False: that was long enough. */
static bool wait_more(struct sim *sim, struct patience *p)
{
    if (sim->cfg.max_turns ? p->turns >= sim->cfg.max_turns : now_ms() > p->end_ms)
        return false;
    sim->cfg.turn(sim->cfg.data, p->turns == 0 || sim->cfg.max_turns ? 0 : 1);
    p->turns++;
    return true;
}

static void gone(struct sim *sim)
{
    sim->dropped = true;
    if (sim->sock >= 0)
        (void)close(sim->sock);
    sim->sock = -1;
}

bool sim_send_bytes(struct sim *sim, const void *bytes, size_t len, const int *fds, unsigned n_fds)
{
    const uint8_t *p = bytes;
    struct patience left = patience(sim);

    SIM_MUST(n_fds <= SIM_FDS_MAX);
    while (len > 0) {
        union {
            struct cmsghdr align;
            uint8_t bytes[CMSG_SPACE(SIM_FDS_MAX * sizeof(int))];
        } control;
        size_t part = sim->chunk > 0 && sim->chunk < len ? sim->chunk : len;
        struct iovec iov = {.iov_base = (void *)p, .iov_len = part < sim->limit ? part : sim->limit};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

        if (sim->sock < 0)
            return false;
        if (sim->limit == 0) {
            gone(sim);
            return false;
        }
        if (n_fds > 0) {
            memset(&control, 0, sizeof(control));
            msg.msg_control = control.bytes;
            msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
            struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
            memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        ssize_t n = sendmsg(sim->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_more(sim, &left))
                return false;
            continue;
        }
        if (n < 0) {
            gone(sim);
            return false;
        }
        p += n;
        len -= (size_t)n;
        n_fds = 0;
        if (sim->limit != SIZE_MAX)
            sim->limit -= (size_t)n;
        if (sim->chunk > 0)
            sim_turns(sim, 1);
    }
    return true;
}

bool sim_send(struct sim *sim, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
              unsigned n_fds)
{
    uint8_t bytes[VU_HEADER + SIM_PAYLOAD_MAX];

    SIM_MUST(size <= SIM_PAYLOAD_MAX);
    sim_put32(bytes, request);
    sim_put32(bytes + 4, flags);
    sim_put32(bytes + 8, size);
    if (size > 0)
        memcpy(bytes + VU_HEADER, payload, size);
    return sim_send_bytes(sim, bytes, VU_HEADER + size, fds, n_fds);
}

static bool whole(struct sim *sim, struct sim_msg *ret)
{
    if (sim->in_len < VU_HEADER)
        return false;
    ret->request = sim_get32(sim->in);
    ret->flags = sim_get32(sim->in + 4);
    ret->size = sim_get32(sim->in + 8);
    if (ret->size > SIM_PAYLOAD_MAX) {
        sim_wrong(sim, "a reply of %u bytes", ret->size);
        gone(sim);
        return false;
    }
    size_t len = VU_HEADER + ret->size;
    if (sim->in_len < len)
        return false;
    memcpy(ret->payload, sim->in + VU_HEADER, ret->size);
    sim->in_len -= len;
    memmove(sim->in, sim->in + len, sim->in_len);
    if ((ret->flags & 3) != VU_VERSION || !(ret->flags & VU_REPLY))
        sim_wrong(sim, "a reply to %u with flags %x", ret->request, ret->flags);
    return true;
}

bool sim_recv(struct sim *sim, struct sim_msg *ret)
{
    struct patience left = patience(sim);

    for (;;) {
        if (sim->sock < 0)
            return false;
        ssize_t n = recv(sim->sock, sim->in + sim->in_len, sizeof(sim->in) - sim->in_len, MSG_DONTWAIT);
        if (n > 0)
            sim->in_len += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            gone(sim);
        if (whole(sim, ret))
            return true;
        if (n > 0)
            continue;
        if (sim->sock < 0 || !wait_more(sim, &left))
            return false;
    }
}

/* ---- messages ---- */

static int tell(struct sim *sim, bool ack, uint32_t request, const void *payload, uint32_t size, const int *fds,
                unsigned n_fds)
{
    struct sim_msg m;

    if (!sim_send(sim, request, VU_VERSION | (ack ? VU_NEED_REPLY : 0), payload, size, fds, n_fds))
        return -1;
    if (!ack)
        return 0;
    if (!sim_recv(sim, &m))
        return -1;
    if (m.request != request || m.size != 8) {
        sim_wrong(sim, "the acknowledgement of %u is of %u and %u bytes long", request, m.request, m.size);
        return -1;
    }
    return sim_get64(m.payload) == 0 ? 0 : 1;
}

static bool of_cloud_hypervisor(const struct sim *sim)
{
    return sim->order == SIM_CLOUD_HYPERVISOR || sim->order == SIM_CLOUD_HYPERVISOR_SLOTS;
}

static bool of_qemu(const struct sim *sim)
{
    return sim->order == SIM_QEMU || sim->order == SIM_QEMU_SLOTS;
}

static bool wants_acks(const struct sim *sim)
{
    return sim->protocol & VU_P_REPLY_ACK && of_cloud_hypervisor(sim);
}

int sim_tell(struct sim *sim, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n_fds)
{
    return tell(sim, wants_acks(sim), request, payload, size, fds, n_fds);
}

int sim_ask(struct sim *sim, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n_fds)
{
    return tell(sim, (sim->protocol & VU_P_REPLY_ACK) != 0, request, payload, size, fds, n_fds);
}

static int ask(struct sim *sim, uint32_t request, const void *payload, uint32_t size, uint32_t want,
               struct sim_msg *ret)
{
    uint32_t flags = VU_VERSION | (wants_acks(sim) ? VU_NEED_REPLY : 0);

    if (!sim_send(sim, request, flags, payload, size, NULL, 0) || !sim_recv(sim, ret))
        return -1;
    if (ret->request != request || ret->size != want) {
        sim_wrong(sim, "the reply to %u is of %u and %u bytes long", request, ret->request, ret->size);
        return -1;
    }
    return 0;
}

int sim_get_u64(struct sim *sim, uint32_t request, uint64_t *ret)
{
    struct sim_msg m;
    int r = ask(sim, request, NULL, 0, 8, &m);

    if (r == 0)
        *ret = sim_get64(m.payload);
    return r;
}

int sim_tell_u64(struct sim *sim, uint32_t request, uint64_t value)
{
    uint8_t p[8];

    sim_put64(p, value);
    return sim_tell(sim, request, p, sizeof(p), NULL, 0);
}

int sim_vring_state(struct sim *sim, uint32_t request, uint32_t index, uint32_t num)
{
    uint8_t p[8];

    sim_put32(p, index);
    sim_put32(p + 4, num);
    return sim_tell(sim, request, p, sizeof(p), NULL, 0);
}

int sim_vring_fd(struct sim *sim, uint32_t request, uint64_t value, int fd)
{
    uint8_t p[8];

    sim_put64(p, value);
    return sim_tell(sim, request, p, sizeof(p), &fd, fd >= 0 ? 1 : 0);
}

int sim_vring_addr(struct sim *sim, uint32_t index, uint32_t flags, uint64_t desc, uint64_t used, uint64_t avail)
{
    uint8_t p[40] = {0};

    sim_put32(p, index);
    sim_put32(p + 4, flags);
    sim_put64(p + 8, desc);
    sim_put64(p + 16, used);
    sim_put64(p + 24, avail);
    return sim_tell(sim, VU_SET_VRING_ADDR, p, sizeof(p), NULL, 0);
}

int sim_get_base(struct sim *sim, uint32_t index, uint16_t *ret)
{
    struct sim_msg m;
    uint8_t p[8];

    sim_put32(p, index);
    sim_put32(p + 4, 0);
    int r = ask(sim, VU_GET_VRING_BASE, p, sizeof(p), 8, &m);
    if (r != 0)
        return r;
    if (sim_get32(m.payload) != index || sim_get32(m.payload + 4) > UINT16_MAX)
        sim_wrong(sim, "the base of ring %u: %u %u", index, sim_get32(m.payload), sim_get32(m.payload + 4));
    *ret = (uint16_t)sim_get32(m.payload + 4);
    return 0;
}

void sim_put_region(uint8_t p[VU_REGION], uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset)
{
    sim_put64(p, gpa);
    sim_put64(p + 8, size);
    sim_put64(p + 16, uva);
    sim_put64(p + 24, offset);
}

int sim_set_table(struct sim *sim, unsigned unused)
{
    uint8_t p[8 + SIM_REGIONS * VU_REGION] = {0};
    int fds[SIM_REGIONS];

    (void)unused;
    sim_put32(p, SIM_REGIONS);
    for (unsigned i = 0; i < SIM_REGIONS; i++) {
        const struct sim_region *r = &sim->regions[i];
        sim_put_region(p + 8 + (size_t)i * VU_REGION, r->gpa, r->size, r->uva, r->offset);
        fds[i] = r->fd;
    }
    return sim_ask(sim, VU_SET_MEM_TABLE, p, sizeof(p), fds, SIM_REGIONS);
}

int sim_add_region(struct sim *sim, unsigned region)
{
    struct sim_region *r = &sim->regions[region];
    uint8_t p[8 + VU_REGION] = {0};

    sim_put_region(p + 8, r->gpa, r->size, r->uva, r->offset);
    int rc = sim_ask(sim, VU_ADD_MEM_REG, p, sizeof(p), &r->fd, 1);
    r->added = r->added || rc == 0;
    return rc;
}

int sim_rem_region(struct sim *sim, unsigned region)
{
    struct sim_region *r = &sim->regions[region];
    uint8_t p[8 + VU_REGION] = {0};

    sim_put_region(p + 8, r->gpa, r->size, r->uva, r->offset);
    int rc = sim_ask(sim, VU_REM_MEM_REG, p, sizeof(p), NULL, 0);
    r->added = r->added && rc != 0;
    return rc;
}

int sim_sync(struct sim *sim)
{
    uint64_t v;
    return sim_get_u64(sim, VU_GET_FEATURES, &v);
}

/* ---- the messages of an order ---- */

static int step_get_features(struct sim *sim, unsigned unused)
{
    (void)unused;
    return sim_get_u64(sim, VU_GET_FEATURES, &sim->offered);
}

static int step_get_protocol(struct sim *sim, unsigned unused)
{
    (void)unused;
    if (!(sim->offered & VU_F_PROTOCOL_FEATURES))
        sim_wrong(sim, "protocol features are not offered");
    return sim_get_u64(sim, VU_GET_PROTOCOL_FEATURES, &sim->offered_protocol);
}

static int step_set_protocol(struct sim *sim, unsigned unused)
{
    uint64_t protocol = sim->offered_protocol & sim->cfg.protocol;

    (void)unused;
    if (sim->order == SIM_QEMU || sim->order == SIM_CLOUD_HYPERVISOR)
        protocol &= ~VU_P_CONFIGURE_MEM_SLOTS;
    int r = sim_tell_u64(sim, VU_SET_PROTOCOL_FEATURES, protocol); /* before acknowledgements can be asked for */
    sim->protocol = protocol;
    return r;
}

static int step_queue_num(struct sim *sim, unsigned unused)
{
    uint64_t n = 0;

    (void)unused;
    if (!(sim->protocol & VU_P_MQ))
        return 0;
    return sim_get_u64(sim, VU_GET_QUEUE_NUM, &n);
}

static int step_slots(struct sim *sim, unsigned unused)
{
    uint64_t n = 0;

    (void)unused;
    if (!(sim->protocol & VU_P_CONFIGURE_MEM_SLOTS)) {
        sim_wrong(sim, "memory slots are not offered");
        return -1;
    }
    int r = sim_get_u64(sim, VU_GET_MAX_MEM_SLOTS, &n);
    if (r == 0 && n < SIM_REGIONS)
        sim_wrong(sim, "%u memory slots", (unsigned)n);
    return r;
}

static int step_owner(struct sim *sim, unsigned unused)
{
    (void)unused;
    return sim_tell(sim, VU_SET_OWNER, NULL, 0, NULL, 0);
}

static int step_features(struct sim *sim, unsigned unused)
{
    (void)unused;
    sim->acked = sim->offered & (sim->cfg.features | (sim->order == SIM_PLAIN ? 0 : VU_F_PROTOCOL_FEATURES));
    return sim_tell_u64(sim, VU_SET_FEATURES, sim->acked);
}

static int step_num(struct sim *sim, unsigned i)
{
    return sim_vring_state(sim, VU_SET_VRING_NUM, i, sim->queues[i].size);
}

static int step_base(struct sim *sim, unsigned i)
{
    return sim_vring_state(sim, VU_SET_VRING_BASE, i, sim->queues[i].base);
}

static int step_addr(struct sim *sim, unsigned i)
{
    const struct sim_queue *q = &sim->queues[i];
    return sim_vring_addr(sim, i, 0, sim_uva(sim, q->desc), sim_uva(sim, q->used), sim_uva(sim, q->avail));
}

static int step_kick(struct sim *sim, unsigned i)
{
    return sim_vring_fd(sim, VU_SET_VRING_KICK, i, sim->queues[i].kick);
}

static int step_call(struct sim *sim, unsigned i)
{
    return sim_vring_fd(sim, VU_SET_VRING_CALL, i, sim->queues[i].call);
}

static int step_err(struct sim *sim, unsigned i)
{
    return sim_vring_fd(sim, VU_SET_VRING_ERR, i, sim->queues[i].err);
}

static int step_enable(struct sim *sim, unsigned i)
{
    return sim_vring_state(sim, VU_SET_VRING_ENABLE, i, 1);
}

static int step_add_region(struct sim *sim, unsigned region)
{
    return sim->regions[region].added ? 0 : sim_add_region(sim, region);
}

static void add(struct sim *sim, const char *name, int (*fn)(struct sim *, unsigned), unsigned arg)
{
    SIM_MUST(sim->n_steps < SIM_STEPS_MAX);
    sim->steps[sim->n_steps++] = (struct sim_step){.name = name, .fn = fn, .arg = arg};
}

static void add_memory(struct sim *sim, bool slots)
{
    if (!slots)
        add(sim, "SET_MEM_TABLE", sim_set_table, 0);
    for (unsigned i = 0; slots && i < SIM_REGIONS; i++)
        add(sim, "ADD_MEM_REG", step_add_region, i);
}

/* As a proxy between QEMU 7.2.22 and a back-end saw it, with the cloud kernel's virtio_net as the driver: up to the
 * second enable when QEMU connects, the third when the firmware resets the device, the rest when the driver is ready.
 */
static void plan_qemu(struct sim *sim, bool slots)
{
    add(sim, "GET_FEATURES", step_get_features, 0);
    add(sim, "GET_PROTOCOL_FEATURES", step_get_protocol, 0);
    add(sim, "SET_PROTOCOL_FEATURES", step_set_protocol, 0);
    add(sim, "GET_QUEUE_NUM", step_queue_num, 0);
    if (slots)
        add(sim, "GET_MAX_MEM_SLOTS", step_slots, 0);
    add(sim, "SET_OWNER", step_owner, 0);
    add(sim, "GET_FEATURES", step_get_features, 0);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        add(sim, "SET_VRING_CALL", step_call, i);
        add(sim, "SET_VRING_ERR", step_err, i);
    }
    for (unsigned times = 0; times < 3; times++)
        for (unsigned i = 0; i < sim->cfg.n_queues; i++)
            add(sim, "SET_VRING_ENABLE", step_enable, i);
    add(sim, "SET_FEATURES", step_features, 0);
    add_memory(sim, slots);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        add(sim, "SET_VRING_NUM", step_num, i);
        add(sim, "SET_VRING_BASE", step_base, i);
        add(sim, "SET_VRING_ADDR", step_addr, i);
        add(sim, "SET_VRING_KICK", step_kick, i);
        add(sim, "SET_VRING_CALL", step_call, i);
    }
}

static void plan_cloud_hypervisor(struct sim *sim, bool slots)
{
    add(sim, "SET_OWNER", step_owner, 0);
    add(sim, "GET_FEATURES", step_get_features, 0);
    add(sim, "GET_PROTOCOL_FEATURES", step_get_protocol, 0);
    add(sim, "SET_PROTOCOL_FEATURES", step_set_protocol, 0);
    add(sim, "GET_QUEUE_NUM", step_queue_num, 0);
    if (slots)
        add(sim, "GET_MAX_MEM_SLOTS", step_slots, 0);
    add(sim, "SET_FEATURES", step_features, 0);
    add_memory(sim, slots);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++)
        add(sim, "SET_VRING_NUM", step_num, i);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        add(sim, "SET_VRING_ADDR", step_addr, i);
        add(sim, "SET_VRING_BASE", step_base, i);
        add(sim, "SET_VRING_CALL", step_call, i);
        add(sim, "SET_VRING_KICK", step_kick, i);
    }
    for (unsigned i = 0; i < sim->cfg.n_queues; i++)
        add(sim, "SET_VRING_ENABLE", step_enable, i);
}

static void plan_plain(struct sim *sim)
{
    add(sim, "GET_FEATURES", step_get_features, 0);
    add(sim, "SET_OWNER", step_owner, 0);
    add(sim, "SET_FEATURES", step_features, 0);
    add_memory(sim, false);
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        add(sim, "SET_VRING_NUM", step_num, i);
        add(sim, "SET_VRING_BASE", step_base, i);
        add(sim, "SET_VRING_ADDR", step_addr, i);
        add(sim, "SET_VRING_CALL", step_call, i);
        add(sim, "SET_VRING_KICK", step_kick, i);
    }
}

void sim_connect(struct sim *sim, int sock, enum sim_order order)
{
    sim_disconnect(sim);
    sim->sock = sock;
    sim->order = order;
    sim->dropped = false;
    sim->in_len = 0;
    sim->offered = sim->acked = sim->offered_protocol = sim->protocol = 0;
    sim->n_steps = 0;
    for (unsigned i = 0; i < SIM_REGIONS; i++)
        sim->regions[i].added = false;
    switch (order) {
    case SIM_QEMU:
        plan_qemu(sim, false);
        break;
    case SIM_QEMU_SLOTS:
        plan_qemu(sim, true);
        break;
    case SIM_CLOUD_HYPERVISOR:
        plan_cloud_hypervisor(sim, false);
        break;
    case SIM_CLOUD_HYPERVISOR_SLOTS:
        plan_cloud_hypervisor(sim, true);
        break;
    case SIM_PLAIN:
        plan_plain(sim);
        break;
    case SIM_ORDER_COUNT:
        SIM_MUST(!"an order");
    }
}

void sim_disconnect(struct sim *sim)
{
    if (sim->sock >= 0)
        (void)close(sim->sock);
    sim->sock = -1;
}

int sim_run(struct sim *sim, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end && i < sim->n_steps; i++) {
        int r = sim->steps[i].fn(sim, sim->steps[i].arg);
        if (r != 0)
            return r;
    }
    return 0;
}

int sim_start(struct sim *sim)
{
    int r = sim_run(sim, 0, sim->n_steps);
    return r != 0 ? r : sim_sync(sim);
}

int sim_restart(struct sim *sim)
{
    unsigned first = 0;

    while (first < sim->n_steps && strcmp(sim->steps[first].name, "SET_FEATURES") != 0)
        first++;
    int r = sim_run(sim, first, sim->n_steps);
    return r != 0 ? r : sim_sync(sim);
}

/* cloud-hypervisor disables and stops ring by ring; until 2022 it only disabled them, with or without RESET_OWNER. */
int sim_stop(struct sim *sim)
{
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        int r = of_cloud_hypervisor(sim) ? sim_vring_state(sim, VU_SET_VRING_ENABLE, i, 0) : 0;
        if (r == 0)
            r = sim_get_base(sim, i, &sim->queues[i].base);
        if (r != 0)
            return r;
    }
    for (unsigned i = 0; of_qemu(sim) && i < sim->cfg.n_queues; i++) {
        int r = step_enable(sim, i);
        if (r != 0)
            return r;
    }
    return 0;
}

int sim_stop_old(struct sim *sim, bool reset_owner)
{
    for (unsigned i = 0; i < sim->cfg.n_queues; i++) {
        int r = sim_vring_state(sim, VU_SET_VRING_ENABLE, i, 0);
        if (r != 0)
            return r;
    }
    return reset_owner ? sim_tell(sim, VU_RESET_OWNER, NULL, 0, NULL, 0) : 0;
}

void sim_rings_new(struct sim *sim)
{
    for (unsigned i = 0; i < sim->cfg.n_queues; i++)
        sim_queue_reset(&sim->queues[i]);
}

void sim_rings_move(struct sim *sim)
{
    struct sim_queue *q = sim->queues, first = q[0];
    unsigned last = sim->cfg.n_queues - 1;

    for (unsigned i = 0; i <= last; i++) {
        const struct sim_queue *from = i < last ? &q[i + 1] : &first;
        q[i].desc = from->desc;
        q[i].avail = from->avail;
        q[i].used = from->used;
        q[i].desc_mem = from->desc_mem;
        q[i].avail_mem = from->avail_mem;
        q[i].used_mem = from->used_mem;
    }
    sim_rings_new(sim);
}

void sim_rings_again(struct sim *sim)
{
    for (unsigned i = 0; i < sim->cfg.n_queues; i++)
        sim->queues[i].base =
            of_cloud_hypervisor(sim) ? sim->queues[i].avail_idx : sim_get16(sim->queues[i].used_mem + 2);
}
