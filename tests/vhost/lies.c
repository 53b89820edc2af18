/* SPDX-License-Identifier: BSD-3-Clause */
/* Lies told in messages. Those told in memory are in lies_ring.c. */
#include "lies.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEM UINT64_C(0x100000)

int sim_negotiate(struct sim *sim)
{
    unsigned n = 0;

    while (n < sim->n_steps && strcmp(sim->steps[n].name, "SET_FEATURES") != 0)
        n++;
    return sim_run(sim, 0, n + 1);
}

/* A message that may be answered in any way: 0 only if its acknowledgement says success. */
static int any(struct sim *sim, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
               unsigned n_fds)
{
    struct sim_msg m;

    if (!sim_send(sim, request, flags, payload, size, fds, n_fds) || !sim_recv(sim, &m))
        return -1;
    return m.size == 8 && sim_get64(m.payload) == 0 ? 0 : 1;
}

static int ask(struct sim *sim, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n_fds)
{
    return any(sim, request, VU_VERSION | VU_NEED_REPLY, payload, size, fds, n_fds);
}

static int file(uint64_t size)
{
    int fd = memfd_create("lie", MFD_CLOEXEC);

    SIM_MUST(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return fd;
}

/* ---- which ring ---- */

static int ring_state(struct sim *sim, uint32_t request, uint64_t index, uint32_t num)
{
    uint8_t p[8];

    sim_put32(p, (uint32_t)index);
    sim_put32(p + 4, num);
    return ask(sim, request, p, sizeof(p), NULL, 0);
}

static int num_of_ring(struct sim *sim, uint64_t index)
{
    return ring_state(sim, VU_SET_VRING_NUM, index, 64);
}

static int base_of_ring(struct sim *sim, uint64_t index)
{
    return ring_state(sim, VU_SET_VRING_BASE, index, 0);
}

static int enable_ring(struct sim *sim, uint64_t index)
{
    return ring_state(sim, VU_SET_VRING_ENABLE, index, 1);
}

static int get_base_of_ring(struct sim *sim, uint64_t index)
{
    struct sim_msg m;
    uint8_t p[8];

    sim_put32(p, (uint32_t)index);
    sim_put32(p + 4, 0);
    if (!sim_send(sim, VU_GET_VRING_BASE, VU_VERSION, p, sizeof(p), NULL, 0) || !sim_recv(sim, &m))
        return -1;
    return 0;
}

static int addr_of_ring(struct sim *sim, uint64_t index)
{
    const struct sim_queue *q = &sim->queues[0];
    uint8_t p[40] = {0};

    sim_put32(p, (uint32_t)index);
    sim_put64(p + 8, sim_uva(sim, q->desc));
    sim_put64(p + 16, sim_uva(sim, q->used));
    sim_put64(p + 24, sim_uva(sim, q->avail));
    return ask(sim, VU_SET_VRING_ADDR, p, sizeof(p), NULL, 0);
}

static int fd_of_ring(struct sim *sim, uint32_t request, uint64_t value, int fd)
{
    uint8_t p[8];

    sim_put64(p, value);
    return ask(sim, request, p, sizeof(p), &fd, fd >= 0 ? 1 : 0);
}

static int kick_of_ring(struct sim *sim, uint64_t index)
{
    return fd_of_ring(sim, VU_SET_VRING_KICK, index, sim->queues[0].kick);
}

static int call_of_ring(struct sim *sim, uint64_t index)
{
    return fd_of_ring(sim, VU_SET_VRING_CALL, index, sim->queues[0].call);
}

static int err_of_ring(struct sim *sim, uint64_t index)
{
    return fd_of_ring(sim, VU_SET_VRING_ERR, index, sim->queues[0].err);
}

/* ---- how large, from where, at which address ---- */

static int num(struct sim *sim, uint64_t n)
{
    return ring_state(sim, VU_SET_VRING_NUM, 0, (uint32_t)n);
}

static int base(struct sim *sim, uint64_t n)
{
    return ring_state(sim, VU_SET_VRING_BASE, 0, (uint32_t)n);
}

static int enable_with(struct sim *sim, uint64_t value)
{
    return ring_state(sim, VU_SET_VRING_ENABLE, 0, (uint32_t)value);
}

/* The sending ring is stopped and started again with other addresses. Each row moves one of the three parts. */
enum part { PART_DESC, PART_AVAIL, PART_USED };
#define MOVED(part, to) ((uint64_t)(part) | (uint64_t)(to) << 8)
enum to { TO_NOWHERE, TO_NULL, TO_TOP, TO_END, TO_GUEST_ADDRESS, TO_ODD };

static uint64_t moved(struct sim *sim, uint64_t gpa, enum to to)
{
    const struct sim_region *r = &sim->regions[2];

    switch (to) {
    case TO_NOWHERE:
        return UINT64_C(0x1000);
    case TO_NULL:
        return 0;
    case TO_TOP:
        return UINT64_MAX - 15;
    case TO_END:
        return r->uva + r->size - 16; /* the rest lies behind the region */
    case TO_GUEST_ADDRESS:
        return gpa;
    case TO_ODD:
        return sim_uva(sim, gpa) + 1;
    }
    return 0;
}

static int restart_tx(struct sim *sim, const uint64_t uva[3])
{
    uint8_t p[40] = {0};
    uint16_t at;

    if (sim_get_base(sim, NET_TX, &at) != 0)
        return -1;
    sim_put32(p, NET_TX);
    sim_put64(p + 8, uva[PART_DESC]);
    sim_put64(p + 16, uva[PART_USED]);
    sim_put64(p + 24, uva[PART_AVAIL]);
    if (ask(sim, VU_SET_VRING_ADDR, p, sizeof(p), NULL, 0) != 0)
        return 1;
    if (ring_state(sim, VU_SET_VRING_BASE, NET_TX, at) != 0)
        return 1;
    return fd_of_ring(sim, VU_SET_VRING_KICK, NET_TX, sim->queues[NET_TX].kick);
}

static int addr_moved(struct sim *sim, uint64_t arg)
{
    const struct sim_queue *q = &sim->queues[NET_TX];
    uint64_t gpa[3] = {[PART_DESC] = q->desc, [PART_AVAIL] = q->avail, [PART_USED] = q->used}, uva[3];

    for (unsigned i = 0; i < 3; i++)
        uva[i] = i == (arg & 0xff) ? moved(sim, gpa[i], (enum to)(arg >> 8)) : sim_uva(sim, gpa[i]);
    return restart_tx(sim, uva);
}

/* With a log of what is written, which was not offered. */
static int addr_logged(struct sim *sim, uint64_t flags)
{
    const struct sim_queue *q = &sim->queues[0];
    uint8_t p[40] = {0};

    sim_put32(p + 4, (uint32_t)flags);
    sim_put64(p + 8, sim_uva(sim, q->desc));
    sim_put64(p + 16, sim_uva(sim, q->used));
    sim_put64(p + 24, sim_uva(sim, q->avail));
    return ask(sim, VU_SET_VRING_ADDR, p, sizeof(p), NULL, 0);
}

/* Every part at the same place. */
static int addr_one(struct sim *sim, uint64_t unused)
{
    uint64_t at = sim_uva(sim, sim->queues[NET_TX].desc), uva[3] = {at, at, at};

    (void)unused;
    return restart_tx(sim, uva);
}

/* As large as can be, where the memory is smaller. */
static int num_beyond_memory(struct sim *sim, uint64_t unused)
{
    const struct sim_queue *q = &sim->queues[NET_TX];
    uint64_t end = sim->regions[2].uva + sim->regions[2].size - SIM_PAGE, uva[3];
    uint16_t at;

    (void)unused;
    if (sim_get_base(sim, NET_TX, &at) != 0 || ring_state(sim, VU_SET_VRING_NUM, NET_TX, 32768) != 0)
        return 1;
    uva[PART_DESC] = end;
    uva[PART_AVAIL] = sim_uva(sim, q->avail);
    uva[PART_USED] = sim_uva(sim, q->used);
    return restart_tx(sim, uva);
}

/* ---- memory ---- */

struct said {
    uint64_t gpa, size, uva, offset;
};

static int table(struct sim *sim, uint32_t count, const struct said *said, unsigned n, const int *fds, unsigned n_fds)
{
    uint8_t p[8 + 16 * VU_REGION] = {0};

    SIM_MUST(n <= 16);
    sim_put32(p, count);
    for (unsigned i = 0; i < n; i++)
        sim_put_region(p + 8 + (size_t)i * VU_REGION, said[i].gpa, said[i].size, said[i].uva, said[i].offset);
    return ask(sim, VU_SET_MEM_TABLE, p, 8 + n * VU_REGION, fds, n_fds);
}

static const struct said honest[] = {
    {0 * MEM, MEM, UINT64_C(0x7f0000000000) + 0 * MEM, 0}, {1 * MEM, MEM, UINT64_C(0x7f0000000000) + 1 * MEM, 0},
    {2 * MEM, MEM, UINT64_C(0x7f0000000000) + 2 * MEM, 0}, {3 * MEM, MEM, UINT64_C(0x7f0000000000) + 3 * MEM, 0},
    {4 * MEM, MEM, UINT64_C(0x7f0000000000) + 4 * MEM, 0}, {5 * MEM, MEM, UINT64_C(0x7f0000000000) + 5 * MEM, 0},
    {6 * MEM, MEM, UINT64_C(0x7f0000000000) + 6 * MEM, 0}, {7 * MEM, MEM, UINT64_C(0x7f0000000000) + 7 * MEM, 0},
    {8 * MEM, MEM, UINT64_C(0x7f0000000000) + 8 * MEM, 0},
};

/* How many it says, how many there are, and how many descriptors come. */
#define COUNTS(said, there, fds) ((uint64_t)(said) | (uint64_t)(there) << 32 | (uint64_t)(fds) << 40)

static int table_counts(struct sim *sim, uint64_t arg)
{
    unsigned there = arg >> 32 & 0xff, n_fds = arg >> 40 & 0xff;
    int fd = file(MEM), fds[SIM_FDS_MAX];

    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = fd;
    int r = table(sim, (uint32_t)arg, honest, there, fds, n_fds);
    (void)close(fd);
    return r;
}

/* One region, in a file of one MEM. */
static const struct said regions[] = {
    {0, 0, MEM, 0},                                                               /* 0: no bytes */
    {0, 2 * MEM, MEM, 0},                                                         /* 1: longer than its file */
    {0, MEM, MEM, SIM_PAGE},                                                      /* 2: ends behind its file */
    {0, SIM_PAGE, MEM, 2 * MEM},                                                  /* 3: lies behind its file */
    {UINT64_MAX - SIM_PAGE + 1, MEM, MEM, 0},                                     /* 4: the guest address goes round */
    {0, MEM, UINT64_MAX - SIM_PAGE + 1, 0},                                       /* 5: the VMM's address goes round */
    {0, MEM, MEM, UINT64_MAX - SIM_PAGE + 1},                                     /* 6: the offset goes round */
    {0, UINT64_C(1) << 63, MEM, 0},                                               /* 7: half of all */
    {0, UINT64_MAX, MEM, 0},                                                      /* 8: all */
    {0, UINT64_MAX - SIM_PAGE + 1, MEM, SIM_PAGE},                                /* 9: offset and size go round to 0 */
    {UINT64_C(1) << 63, UINT64_C(1) << 63, UINT64_C(1) << 63, UINT64_C(1) << 63}, /* 10 */
    {0, MEM + 1, MEM, 0},                                                         /* 11: one byte more than its file */
};

static int table_region(struct sim *sim, uint64_t which)
{
    int fd = file(MEM), r = table(sim, 1, &regions[which], 1, &fd, 1);

    (void)close(fd);
    return r;
}

static int add_said(struct sim *sim, const struct said *said, const int *fds, unsigned n_fds)
{
    uint8_t p[8 + VU_REGION] = {0};

    sim_put_region(p + 8, said->gpa, said->size, said->uva, said->offset);
    return ask(sim, VU_ADD_MEM_REG, p, sizeof(p), fds, n_fds);
}

static int add_region(struct sim *sim, uint64_t which)
{
    int fd = file(MEM), r = add_said(sim, &regions[which], &fd, 1);

    (void)close(fd);
    return r;
}

static int add_fds(struct sim *sim, uint64_t n_fds)
{
    int fd = file(MEM), fds[] = {fd, fd, fd};
    int r = add_said(sim, &honest[0], fds, (unsigned)n_fds);

    (void)close(fd);
    return r;
}

/* Regions that share bytes: for the guest (bit 0), for the VMM (bit 1). */
static int overlapping(struct sim *sim, uint64_t how)
{
    struct said said[2] = {honest[0], honest[4]};
    int fd = file(MEM), fds[] = {fd, fd};

    if (how & 1)
        said[1].gpa = said[0].gpa + SIM_PAGE;
    if (how & 2)
        said[1].uva = said[0].uva + MEM - 1;
    int r = table(sim, 2, said, 2, fds, 2);
    (void)close(fd);
    return r;
}

static int add_overlapping(struct sim *sim, uint64_t how)
{
    struct said second = honest[4];
    int fd = file(MEM);

    if (how & 1)
        second.gpa = honest[0].gpa;
    if (how & 2)
        second.uva = honest[0].uva;
    int r = add_said(sim, &honest[0], &fd, 1);
    SIM_MUST(r == 0);
    r = add_said(sim, &second, &fd, 1);
    (void)close(fd);
    return r;
}

/* Pages without end: some must be refused. */
static int add_many(struct sim *sim, uint64_t n)
{
    int fd = file(SIM_PAGE), r = 0;

    for (uint64_t i = 0; i < n && r == 0; i++) {
        struct said said = {i * MEM, SIM_PAGE, MEM + i * MEM, 0};
        r = add_said(sim, &said, &fd, 1);
    }
    (void)close(fd);
    return r;
}

static int remove_unknown(struct sim *sim, uint64_t unused)
{
    uint8_t p[8 + VU_REGION] = {0};

    (void)unused;
    sim_put_region(p + 8, honest[7].gpa, honest[7].size, honest[7].uva, honest[7].offset);
    return ask(sim, VU_REM_MEM_REG, p, sizeof(p), NULL, 0);
}

/* The memory under the rings goes away. */
static int remove_used(struct sim *sim, uint64_t region)
{
    return sim_rem_region(sim, (unsigned)region);
}

/* What cannot be mapped, or not be written. */
enum unmappable { MAP_EVENTFD, MAP_SOCKET, MAP_PIPE, MAP_NULL, MAP_FOLDER, MAP_EPOLL, MAP_READONLY, MAP_SEALED };

static int unmappable(enum unmappable what, int *ret_other)
{
    int pair[2], fd, again;
    char path[64];

    *ret_other = -1;
    switch (what) {
    case MAP_EVENTFD:
        return eventfd(0, EFD_CLOEXEC);
    case MAP_SOCKET:
        SIM_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        *ret_other = pair[1];
        return pair[0];
    case MAP_PIPE:
        SIM_MUST(pipe2(pair, O_CLOEXEC) == 0);
        *ret_other = pair[1];
        return pair[0];
    case MAP_NULL:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case MAP_FOLDER:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case MAP_EPOLL:
        return epoll_create1(EPOLL_CLOEXEC);
    case MAP_READONLY:
        fd = file(MEM);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_RDONLY | O_CLOEXEC);
        (void)close(fd);
        return again;
    case MAP_SEALED:
        fd = memfd_create("lie", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        SIM_MUST(fd >= 0 && ftruncate(fd, (off_t)MEM) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
        return fd;
    }
    return -1;
}

static int table_unmappable(struct sim *sim, uint64_t what)
{
    int other, fd = unmappable((enum unmappable)what, &other);

    SIM_MUST(fd >= 0);
    int r = table(sim, 1, honest, 1, &fd, 1);
    (void)close(fd);
    if (other >= 0)
        (void)close(other);
    return r;
}

/* ---- lengths, numbers and flags of messages ---- */

/* A length field without so many bytes behind it. */
static int length(struct sim *sim, uint64_t size)
{
    uint8_t head[VU_HEADER];

    sim_put32(head, VU_SET_FEATURES);
    sim_put32(head + 4, VU_VERSION);
    sim_put32(head + 8, (uint32_t)size);
    if (!sim_send_bytes(sim, head, sizeof(head), NULL, 0))
        return -1;
    return sim_sync(sim); /* its bytes are the payload, if they are not refused */
}

#define SIZED(request, size) ((uint64_t)(request) | (uint64_t)(size) << 32)

static int sized(struct sim *sim, uint64_t arg)
{
    static const uint8_t zero[SIM_PAYLOAD_MAX];
    return ask(sim, (uint32_t)arg, zero, (uint32_t)(arg >> 32), NULL, 0);
}

static int with_flags(struct sim *sim, uint64_t flags)
{
    uint8_t p[8] = {0};
    struct sim_msg m;

    sim_put32(p, NET_TX);
    sim_put32(p + 4, 64);
    if (!sim_send(sim, VU_SET_VRING_NUM, (uint32_t)flags, p, sizeof(p), NULL, 0))
        return -1;
    if (flags & VU_NEED_REPLY)
        return sim_recv(sim, &m) ? sim_get64(m.payload) != 0 : -1;
    return sim_sync(sim);
}

static int features(struct sim *sim, uint64_t more)
{
    uint8_t p[8];

    sim_put64(p, (sim->offered & sim->cfg.features) | more);
    return ask(sim, VU_SET_FEATURES, p, sizeof(p), NULL, 0);
}

static int protocol(struct sim *sim, uint64_t more)
{
    uint8_t p[8];

    sim_put64(p, sim->protocol | more);
    return ask(sim, VU_SET_PROTOCOL_FEATURES, p, sizeof(p), NULL, 0);
}

/* Before it was agreed upon: no answer may come, so only the next one counts. */
static int need_reply_early(struct sim *sim, uint64_t unused)
{
    (void)unused;
    if (!sim_send(sim, VU_SET_OWNER, VU_VERSION | VU_NEED_REPLY, NULL, 0, NULL, 0))
        return -1;
    return sim_sync(sim);
}

/* ---- descriptors ---- */

/* With the message that has none, and more of them than any message has. */
static int fds_with(struct sim *sim, uint64_t arg)
{
    static const uint8_t zero[SIM_PAYLOAD_MAX];
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fds[SIM_FDS_MAX];
    unsigned n = (unsigned)(arg >> 48);

    for (unsigned i = 0; i < n; i++)
        fds[i] = fd;
    int r = ask(sim, (uint32_t)arg, zero, arg >> 32 & 0xffff, fds, n);
    (void)close(fd);
    return r;
}
#define FDS(request, size, n) ((uint64_t)(request) | (uint64_t)(size) << 32 | (uint64_t)(n) << 48)

static int no_fd(struct sim *sim, uint64_t request)
{
    return fd_of_ring(sim, (uint32_t)request, NET_TX, -1);
}

static int none(struct sim *sim, uint64_t request)
{
    return fd_of_ring(sim, (uint32_t)request, NET_TX | VU_VRING_NOFD, -1);
}

static int fd_and_none(struct sim *sim, uint64_t request)
{
    return fd_of_ring(sim, (uint32_t)request, NET_TX | VU_VRING_NOFD, sim->queues[0].call);
}

/* Descriptors in the middle of a message, with its last byte. */
static int fds_late(struct sim *sim, uint64_t unused)
{
    uint8_t p[VU_HEADER + 8];
    struct sim_msg m;

    (void)unused;
    sim_put32(p, VU_SET_VRING_CALL);
    sim_put32(p + 4, VU_VERSION | VU_NEED_REPLY);
    sim_put32(p + 8, 8);
    sim_put64(p + VU_HEADER, NET_TX);
    if (!sim_send_bytes(sim, p, sizeof(p) - 1, NULL, 0))
        return -1;
    sim_turns(sim, 2);
    if (!sim_send_bytes(sim, p + sizeof(p) - 1, 1, &sim->queues[NET_TX].call, 1) || !sim_recv(sim, &m))
        return -1;
    return sim_get64(m.payload) != 0;
}

/* What no eventfd is, as kick or call. The other end of a pair is closed: a hang-up that never ends. */
static int strange_fd(struct sim *sim, uint32_t request, enum unmappable what)
{
    int other, fd = unmappable(what, &other);

    SIM_MUST(fd >= 0);
    if (other >= 0)
        (void)close(other);
    int r = fd_of_ring(sim, request, NET_TX, fd);
    (void)close(fd);
    sim_turns(sim, 4);
    return r;
}

static int strange_kick(struct sim *sim, uint64_t what)
{
    return strange_fd(sim, VU_SET_VRING_KICK, (enum unmappable)what);
}

static int strange_call(struct sim *sim, uint64_t what)
{
    int r = strange_fd(sim, VU_SET_VRING_CALL, (enum unmappable)what);
    uint8_t frame[64] = {0};

    if (r == 0) /* a reason to use it */
        (void)sim_net_send(sim, NULL, frame, sizeof(frame), &sim_shapes[0]);
    sim_turns(sim, 4);
    return r;
}

/* A call that would block whoever writes it: the counter is full, and the descriptor blocks. */
static int call_blocks(struct sim *sim, uint64_t unused)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t full = UINT64_MAX - 1;
    uint8_t frame[64] = {0};

    (void)unused;
    SIM_MUST(fd >= 0 && write(fd, &full, sizeof(full)) == (ssize_t)sizeof(full));
    int r = fd_of_ring(sim, VU_SET_VRING_CALL, NET_TX, fd);
    if (r == 0)
        (void)sim_net_send(sim, NULL, frame, sizeof(frame), &sim_shapes[0]);
    sim_turns(sim, 4);
    (void)close(fd);
    return r;
}

/* The back-end's own socket as its kick. */
static int kick_is_the_socket(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return fd_of_ring(sim, VU_SET_VRING_KICK, NET_TX, sim->sock);
}

/* ---- at the wrong time ---- */

static int enable_twice(struct sim *sim, uint64_t unused)
{
    (void)unused;
    for (unsigned i = 0; i < 4; i++)
        if (enable_ring(sim, i % 2) != 0)
            return 1;
    return 0;
}

static int owner_twice(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return ask(sim, VU_SET_OWNER, NULL, 0, NULL, 0);
}

static int running_num(struct sim *sim, uint64_t n)
{
    return ring_state(sim, VU_SET_VRING_NUM, NET_TX, (uint32_t)n);
}

static int running_base(struct sim *sim, uint64_t n)
{
    return ring_state(sim, VU_SET_VRING_BASE, NET_TX, (uint32_t)n);
}

static int running_addr(struct sim *sim, uint64_t unused)
{
    uint8_t p[40] = {0};

    (void)unused;
    sim_put32(p, NET_TX);
    return ask(sim, VU_SET_VRING_ADDR, p, sizeof(p), NULL, 0);
}

static int running_features(struct sim *sim, uint64_t features)
{
    uint8_t p[8];

    sim_put64(p, features);
    return ask(sim, VU_SET_FEATURES, p, sizeof(p), NULL, 0);
}

/* All memory goes while the rings run. */
static int running_other_table(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return table_counts(sim, COUNTS(1, 1, 1));
}

static int running_kick(struct sim *sim, uint64_t unused)
{
    (void)unused;
    for (unsigned i = 0; i < 4; i++)
        if (fd_of_ring(sim, VU_SET_VRING_KICK, NET_TX, sim->queues[NET_TX].kick) != 0)
            return 1;
    return 0;
}

/* A base for a ring that never ran, and again. */
static int base_twice(struct sim *sim, uint64_t unused)
{
    (void)unused;
    return get_base_of_ring(sim, 1) != 0 || get_base_of_ring(sim, 1) != 0;
}

/* A table that fails after one that was good: the old one must not be half gone. */
static int table_then_bad(struct sim *sim, uint64_t unused)
{
    struct said said[2] = {honest[0], regions[1]};
    int fd = file(MEM), fds[] = {fd, fd};

    (void)unused;
    int r = table(sim, 2, said, 2, fds, 2);
    (void)close(fd);
    return r;
}

/* A ring is started, and there is no memory at all. */
static int start_without_memory(struct sim *sim, uint64_t unused)
{
    (void)unused;
    int r = num_of_ring(sim, NET_TX);
    r = r != 0 ? r : addr_of_ring(sim, NET_TX);
    r = r != 0 ? r : base_of_ring(sim, NET_TX);
    r = r != 0 ? r : fd_of_ring(sim, VU_SET_VRING_KICK, NET_TX, sim->queues[NET_TX].kick);
    r = r != 0 ? r : enable_ring(sim, NET_TX);
    if (r == 0)
        sim_queue_kick(&sim->queues[NET_TX]);
    sim_turns(sim, 4);
    return r;
}

/* Half a message, and the end. */
static int half(struct sim *sim, uint64_t n)
{
    uint8_t p[VU_HEADER + 8] = {0};

    sim_put32(p, VU_SET_VRING_CALL);
    sim_put32(p + 4, VU_VERSION);
    sim_put32(p + 8, 8);
    (void)sim_send_bytes(sim, p, (size_t)n, &sim->queues[0].call, 1);
    sim_turns(sim, 4);
    sim_disconnect(sim);
    sim_turns(sim, 4);
    return -1;
}

#define NOT_OFFERED_FEATURES (UINT64_C(1) << 17 | UINT64_C(1) << 34)

#define INDEX_ROWS(label, fn)                                                                                          \
    {label ", ring 2", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fn, 2},                                                     \
        {label ", ring 255", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fn, 255},                                             \
    {                                                                                                                  \
        label ", ring 2 while running", SIM_AT_STARTED, SIM_END_REFUSED, fn, 2                                         \
    }
#define INDEX32_ROWS(label, fn)                                                                                        \
    INDEX_ROWS(label, fn), {label ", ring 2^31", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fn, UINT64_C(1) << 31},           \
        {label ", ring 256", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fn, 256},                                             \
    {                                                                                                                  \
        label ", ring 2^32-1", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fn, UINT32_MAX                                      \
    }

const struct sim_lie sim_lies_message[] = {
    INDEX32_ROWS("SET_VRING_NUM", num_of_ring),
    INDEX32_ROWS("SET_VRING_BASE", base_of_ring),
    INDEX32_ROWS("SET_VRING_ADDR", addr_of_ring),
    INDEX32_ROWS("SET_VRING_ENABLE", enable_ring),
    INDEX32_ROWS("GET_VRING_BASE", get_base_of_ring),
    INDEX_ROWS("SET_VRING_KICK", kick_of_ring),
    INDEX_ROWS("SET_VRING_CALL", call_of_ring),
    INDEX_ROWS("SET_VRING_ERR", err_of_ring),

    {"no descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, 0},
    {"3 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, 3},
    {"255 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, 255},
    {"32767 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, 32767},
    {"65536 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, 65536},
    {"2^31 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, UINT64_C(1) << 31},
    {"2^32-1 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, num, UINT32_MAX},
    {"base of 65536", SIM_AT_NEGOTIATED, SIM_END_ANY, base, 65536},
    {"enable with 2", SIM_AT_NEGOTIATED, SIM_END_ANY, enable_with, 2},
    {"a ring larger than its memory", SIM_AT_STARTED, SIM_END_TX_BROKEN, num_beyond_memory, 0},

    {"descriptors nowhere", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_DESC, TO_NOWHERE)},
    {"descriptors at null", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_DESC, TO_NULL)},
    {"descriptors at the top", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_DESC, TO_TOP)},
    {"descriptors end behind memory", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_DESC, TO_END)},
    {"descriptors by guest address", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_DESC, TO_GUEST_ADDRESS)},
    {"available ring nowhere", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_AVAIL, TO_NOWHERE)},
    {"available ring at the top", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_AVAIL, TO_TOP)},
    {"available ring ends behind memory", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_AVAIL, TO_END)},
    {"available ring at an odd address", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_AVAIL, TO_ODD)},
    {"used ring nowhere", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_USED, TO_NOWHERE)},
    {"used ring at the top", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_USED, TO_TOP)},
    {"used ring ends behind memory", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_USED, TO_END)},
    {"used ring at an odd address", SIM_AT_STARTED, SIM_END_TX_BROKEN, addr_moved, MOVED(PART_USED, TO_ODD)},
    {"a ring that is logged", SIM_AT_NEGOTIATED, SIM_END_REFUSED, addr_logged, 1},
    {"all of a ring at one place", SIM_AT_STARTED, SIM_END_ANY, addr_one, 0},

    {"a table of no regions", SIM_AT_NEGOTIATED, SIM_END_ANY, table_counts, COUNTS(0, 0, 0)},
    {"a table of no regions with a descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(0, 0, 1)},
    {"9 regions", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(9, 9, 9)},
    {"2^32-1 regions", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(UINT32_MAX, 1, 1)},
    {"2^27 regions, whose length goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(1 << 27, 0, 0)},
    {"more regions than bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(2, 1, 2)},
    {"fewer regions than bytes", SIM_AT_NEGOTIATED, SIM_END_ANY, table_counts, COUNTS(1, 2, 1)},
    {"a region without its descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(2, 2, 1)},
    {"regions without descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(2, 2, 0)},
    {"more descriptors than regions", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(1, 1, 2)},
    {"16 descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_counts, COUNTS(1, 1, 16)},
    {"a region of no bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 0},
    {"a region longer than its file", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 1},
    {"a region that ends behind its file", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 2},
    {"a region behind its file", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 3},
    {"guest address + size goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 4},
    {"VMM address + size goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 5},
    {"offset + size goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 6},
    {"a region of 2^63 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 7},
    {"a region of 2^64-1 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 8},
    {"offset + size is 0", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 9},
    {"all goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 10},
    {"a byte more than its file", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_region, 11},
    {"regions overlap for the guest", SIM_AT_NEGOTIATED, SIM_END_REFUSED, overlapping, 1},
    {"regions overlap for the VMM", SIM_AT_NEGOTIATED, SIM_END_REFUSED, overlapping, 2},
    {"a region twice", SIM_AT_NEGOTIATED, SIM_END_REFUSED, overlapping, 3},
    {"memory in an eventfd", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_EVENTFD},
    {"memory in a socket", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_SOCKET},
    {"memory in a pipe", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_PIPE},
    {"memory in /dev/null", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_NULL},
    {"memory in a folder", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_FOLDER},
    {"memory in an epoll", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_EPOLL},
    {"memory in a file for reading", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_READONLY},
    {"memory in a file sealed against writing", SIM_AT_NEGOTIATED, SIM_END_REFUSED, table_unmappable, MAP_SEALED},
    {"a bad table while running", SIM_AT_STARTED, SIM_END_ANY, table_then_bad, 0},

    {"added: no bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_region, 0},
    {"added: longer than its file", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_region, 1},
    {"added: guest address goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_region, 4},
    {"added: VMM address goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_region, 5},
    {"added: offset goes round", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_region, 6},
    {"added without a descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_fds, 0},
    {"added with two descriptors", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_fds, 2},
    {"added: overlaps for the guest", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_overlapping, 1},
    {"added: overlaps for the VMM", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_overlapping, 2},
    {"added without end", SIM_AT_NEGOTIATED, SIM_END_REFUSED, add_many, 600},
    {"an unknown region is removed", SIM_AT_NEGOTIATED, SIM_END_REFUSED, remove_unknown, 0},
    {"the descriptors' memory is removed", SIM_AT_STARTED, SIM_END_ANY, remove_used, 0},
    {"the available ring's memory is removed", SIM_AT_STARTED, SIM_END_ANY, remove_used, 1},
    {"the used ring's memory is removed", SIM_AT_STARTED, SIM_END_ANY, remove_used, 2},

    {"a message of 2^32-1 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, length, UINT32_MAX},
    {"a message of 2^31 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, length, UINT64_C(1) << 31},
    {"a message of 64 KiB", SIM_AT_NEGOTIATED, SIM_END_REFUSED, length, 65536},
    {"a message of 9 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, length, 9},
    {"request 0", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(0, 0)},
    {"request 41", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(41, 8)},
    {"request 2^32-1", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(UINT32_MAX, 8)},
    {"SET_LOG_BASE", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_LOG_BASE, 16)},
    {"SET_LOG_FD", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_LOG_FD, 0)},
    {"SEND_RARP", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SEND_RARP, 8)},
    {"NET_SET_MTU", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_NET_SET_MTU, 8)},
    {"SET_CONFIG", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_CONFIG, 268)},
    {"GET_CONFIG without its feature", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_GET_CONFIG, 268)},
    {"GET_INFLIGHT_FD", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_GET_INFLIGHT_FD, 24)},
    {"SET_INFLIGHT_FD", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_INFLIGHT_FD, 24)},
    {"SET_STATUS", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_STATUS, 8)},
    {"SET_FEATURES of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_FEATURES, 0)},
    {"SET_FEATURES of 7 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_FEATURES, 7)},
    {"SET_FEATURES of 4096 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_FEATURES, 4096)},
    {"SET_MEM_TABLE of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_MEM_TABLE, 0)},
    {"SET_MEM_TABLE of 7 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_MEM_TABLE, 7)},
    {"SET_MEM_TABLE of 4096 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_MEM_TABLE, 4096)},
    {"SET_VRING_NUM of 4 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_VRING_NUM, 4)},
    {"SET_VRING_ADDR of 39 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_VRING_ADDR, 39)},
    {"SET_VRING_BASE of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_VRING_BASE, 0)},
    {"SET_VRING_KICK of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_VRING_KICK, 0)},
    {"SET_VRING_ENABLE of 12 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_SET_VRING_ENABLE, 12)},
    {"GET_VRING_BASE of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_GET_VRING_BASE, 0)},
    {"ADD_MEM_REG of 0 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_ADD_MEM_REG, 0)},
    {"REM_MEM_REG of 8 bytes", SIM_AT_NEGOTIATED, SIM_END_REFUSED, sized, SIZED(VU_REM_MEM_REG, 8)},
    {"version 0", SIM_AT_NEGOTIATED, SIM_END_REFUSED, with_flags, 0},
    {"version 2", SIM_AT_NEGOTIATED, SIM_END_REFUSED, with_flags, 2},
    {"version 3", SIM_AT_NEGOTIATED, SIM_END_REFUSED, with_flags, 3},
    {"a reply to no question", SIM_AT_NEGOTIATED, SIM_END_REFUSED, with_flags, VU_VERSION | VU_REPLY},
    {"a reply that wants one", SIM_AT_NEGOTIATED, SIM_END_REFUSED, with_flags, VU_VERSION | VU_REPLY | VU_NEED_REPLY},
    {"unknown flags", SIM_AT_NEGOTIATED, SIM_END_ANY, with_flags, VU_VERSION | 0xfffffff0},
    {"an acknowledgement is asked for too early", SIM_AT_FRESH, SIM_END_ANY, need_reply_early, 0},
    {"features that were not offered", SIM_AT_NEGOTIATED, SIM_END_REFUSED, features, NOT_OFFERED_FEATURES},
    {"all features", SIM_AT_NEGOTIATED, SIM_END_REFUSED, features, UINT64_MAX},
    {"protocol features that were not offered", SIM_AT_NEGOTIATED, SIM_END_REFUSED, protocol, VU_P_INFLIGHT},
    {"all protocol features", SIM_AT_NEGOTIATED, SIM_END_REFUSED, protocol, UINT64_MAX},

    {"a descriptor with SET_FEATURES", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_FEATURES, 8, 1)},
    {"a descriptor with SET_OWNER", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_OWNER, 0, 1)},
    {"a descriptor with SET_VRING_BASE", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_VRING_BASE, 8, 1)},
    {"two descriptors with SET_VRING_CALL", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_VRING_CALL, 8, 2)},
    {"16 descriptors with SET_VRING_CALL", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_VRING_CALL, 8, 16)},
    {"16 descriptors with SET_OWNER", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fds_with, FDS(VU_SET_OWNER, 0, 16)},
    {"SET_VRING_KICK without its descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, no_fd, VU_SET_VRING_KICK},
    {"SET_VRING_CALL without its descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, no_fd, VU_SET_VRING_CALL},
    {"SET_VRING_ERR without its descriptor", SIM_AT_NEGOTIATED, SIM_END_REFUSED, no_fd, VU_SET_VRING_ERR},
    {"a kick that says none", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fd_and_none, VU_SET_VRING_KICK},
    {"a call that says none", SIM_AT_NEGOTIATED, SIM_END_REFUSED, fd_and_none, VU_SET_VRING_CALL},
    {"a kick by polling, which nobody does", SIM_AT_NEGOTIATED, SIM_END_REFUSED, none, VU_SET_VRING_KICK},
    {"no call at all", SIM_AT_STARTED, SIM_END_HARMLESS, none, VU_SET_VRING_CALL},
    {"a descriptor with the last byte", SIM_AT_NEGOTIATED, SIM_END_ANY, fds_late, 0},
    {"the kick is a socket without its peer", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_SOCKET},
    {"the kick is a pipe without its writer", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_PIPE},
    {"the kick is /dev/null", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_NULL},
    {"the kick is a folder", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_FOLDER},
    {"the kick is an epoll", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_EPOLL},
    {"the kick is a file", SIM_AT_STARTED, SIM_END_ANY, strange_kick, MAP_READONLY},
    {"the kick is the VMM's own socket", SIM_AT_STARTED, SIM_END_ANY, kick_is_the_socket, 0},
    {"the call is a socket without its peer", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_SOCKET},
    {"the call is a pipe's end for reading", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_PIPE},
    {"the call is /dev/null", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_NULL},
    {"the call is a folder", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_FOLDER},
    {"the call is an epoll", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_EPOLL},
    {"the call is a file for reading", SIM_AT_STARTED, SIM_END_ANY, strange_call, MAP_READONLY},
    {"the call would block", SIM_AT_STARTED, SIM_END_ANY, call_blocks, 0},

    {"enable, many times", SIM_AT_STARTED, SIM_END_HARMLESS, enable_twice, 0},
    {"SET_OWNER, twice", SIM_AT_STARTED, SIM_END_ANY, owner_twice, 0},
    {"SET_VRING_NUM while running, smaller", SIM_AT_STARTED, SIM_END_ANY, running_num, 1},
    {"SET_VRING_NUM while running, larger", SIM_AT_STARTED, SIM_END_ANY, running_num, 32768},
    {"SET_VRING_BASE while running", SIM_AT_STARTED, SIM_END_ANY, running_base, 40000},
    {"SET_VRING_ADDR while running", SIM_AT_STARTED, SIM_END_ANY, running_addr, 0},
    {"SET_FEATURES while running: none", SIM_AT_STARTED, SIM_END_ANY, running_features, 0},
    {"other memory while running", SIM_AT_STARTED, SIM_END_ANY, running_other_table, 0},
    {"SET_VRING_KICK while running", SIM_AT_STARTED, SIM_END_ANY, running_kick, 0},
    {"GET_VRING_BASE of a ring that never ran", SIM_AT_NEGOTIATED, SIM_END_ANY, base_twice, 0},
    {"a ring without memory", SIM_AT_NEGOTIATED, SIM_END_ANY, start_without_memory, 0},
    {"a byte, and the end", SIM_AT_FRESH, SIM_END_REFUSED, half, 1},
    {"a header, and the end", SIM_AT_NEGOTIATED, SIM_END_REFUSED, half, VU_HEADER},
    {"all but a byte, and the end", SIM_AT_STARTED, SIM_END_REFUSED, half, VU_HEADER + 7},
};
const unsigned sim_n_lies_message = sizeof(sim_lies_message) / sizeof(sim_lies_message[0]);
