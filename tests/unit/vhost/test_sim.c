/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulator itself, against a peer of a few lines: QEMU's order is what was recorded from QEMU, what it writes into
 * rings is what virtio 1.1 says, and a device that breaks the rules is noticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"

#define OFFERED                                                                                                        \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | NET_F_MRG_RXBUF | VU_F_PROTOCOL_FEATURES)
#define PROTOCOL (VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIGURE_MEM_SLOTS)

/* A peer that answers everything, and writes down what it was asked. */
struct peer {
    int sock;
    char log[4096];
    unsigned n_fds;
};

static const char *const names[] = {
    [1] = "GET_FEATURES",           [2] = "SET_FEATURES",    [3] = "SET_OWNER",         [5] = "SET_MEM_TABLE",
    [8] = "SET_VRING_NUM",          [9] = "SET_VRING_ADDR",  [10] = "SET_VRING_BASE",   [11] = "GET_VRING_BASE",
    [12] = "SET_VRING_KICK",        [13] = "SET_VRING_CALL", [14] = "SET_VRING_ERR",    [15] = "GET_PROTOCOL_FEATURES",
    [16] = "SET_PROTOCOL_FEATURES", [17] = "GET_QUEUE_NUM",  [18] = "SET_VRING_ENABLE", [36] = "GET_MAX_MEM_SLOTS",
    [37] = "ADD_MEM_REG",
};

static size_t get(struct peer *p, uint8_t *bytes, size_t len)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(SIM_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = bytes, .iov_len = len};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(p->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n <= 0)
        return 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            (void)close(fd);
            p->n_fds++;
        }
    return (size_t)n;
}

static void peer_turn(void *data, int timeout_ms)
{
    struct peer *p = data;
    uint8_t m[VU_HEADER + SIM_PAYLOAD_MAX];

    (void)timeout_ms;
    p->n_fds = 0;
    if (get(p, m, VU_HEADER) != VU_HEADER)
        return;
    uint32_t request = sim_get32(m), flags = sim_get32(m + 4), size = sim_get32(m + 8);
    if (size > 0)
        assert_int_equal(get(p, m + VU_HEADER, size), size);
    assert_true(request < sizeof(names) / sizeof(names[0]) && names[request]);
    size_t at = strlen(p->log);
    int ring = request >= 8 && request <= 18 && size > 0 && request != 16 ? (int)(m[VU_HEADER]) : -1;
    if (ring >= 0)
        (void)snprintf(p->log + at, sizeof(p->log) - at, "%s %d %u\n", names[request], ring, p->n_fds);
    else
        (void)snprintf(p->log + at, sizeof(p->log) - at, "%s %u\n", names[request], p->n_fds);
    uint64_t value = request == 1 ? OFFERED : request == 15 ? PROTOCOL : request == 17 ? 1 : request == 36 ? 8 : 0;
    bool answer = request == 1 || request == 15 || request == 17 || request == 36 || request == 11;
    if (answer || flags & VU_NEED_REPLY) {
        sim_put32(m + 4, VU_VERSION | VU_REPLY);
        sim_put32(m + 8, 8);
        if (request != 11)
            sim_put64(m + VU_HEADER, value);
        assert_int_equal(send(p->sock, m, VU_HEADER + 8, MSG_NOSIGNAL), VU_HEADER + 8);
    }
}

static struct sim *start(struct peer *p, enum sim_order order, uint16_t size)
{
    int pair[2];
    struct sim_config cfg = {
        .features = OFFERED, .protocol = PROTOCOL, .n_queues = 2, .queue_size = size, .turn = peer_turn, .data = p};
    struct sim *sim = sim_new(&cfg);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    memset(p, 0, sizeof(*p));
    p->sock = pair[1];
    sim_connect(sim, pair[0], order);
    assert_int_equal(sim_start(sim), 0);
    return sim;
}

static void end(struct sim *sim, struct peer *p)
{
    sim_free(sim);
    (void)close(p->sock);
}

/* Written by a proxy between QEMU 7.2 and a back-end; the firmware's and the driver's resets repeat the enables. */
static const char recorded[] = "GET_FEATURES 0\n"
                               "GET_PROTOCOL_FEATURES 0\n"
                               "SET_PROTOCOL_FEATURES 0\n"
                               "GET_QUEUE_NUM 0\n"
                               "SET_OWNER 0\n"
                               "GET_FEATURES 0\n"
                               "SET_VRING_CALL 0 1\n"
                               "SET_VRING_ERR 0 1\n"
                               "SET_VRING_CALL 1 1\n"
                               "SET_VRING_ERR 1 1\n"
                               "SET_VRING_ENABLE 0 0\n"
                               "SET_VRING_ENABLE 1 0\n"
                               "SET_VRING_ENABLE 0 0\n"
                               "SET_VRING_ENABLE 1 0\n"
                               "SET_VRING_ENABLE 0 0\n"
                               "SET_VRING_ENABLE 1 0\n"
                               "SET_FEATURES 0\n"
                               "SET_MEM_TABLE 4\n"
                               "SET_VRING_NUM 0 0\n"
                               "SET_VRING_BASE 0 0\n"
                               "SET_VRING_ADDR 0 0\n"
                               "SET_VRING_KICK 0 1\n"
                               "SET_VRING_CALL 0 1\n"
                               "SET_VRING_NUM 1 0\n"
                               "SET_VRING_BASE 1 0\n"
                               "SET_VRING_ADDR 1 0\n"
                               "SET_VRING_KICK 1 1\n"
                               "SET_VRING_CALL 1 1\n"
                               "GET_FEATURES 0\n"; /* sim_start()'s own, to know that all was read */

static void test_orders(void **state)
{
    struct peer p;
    struct sim *sim = start(&p, SIM_QEMU, 256);

    assert_string_equal(p.log, recorded);
    assert_int_equal(sim->acked, OFFERED);
    p.log[0] = '\0';
    assert_int_equal(sim_stop(sim), 0);
    sim_turns(sim, 8);
    assert_string_equal(p.log, "GET_VRING_BASE 0 0\nGET_VRING_BASE 1 0\nSET_VRING_ENABLE 0 0\nSET_VRING_ENABLE 1 0\n");
    /* The guest's driver is unbound and bound again: recorded too. */
    p.log[0] = '\0';
    assert_int_equal(sim_restart(sim), 0);
    assert_string_equal(p.log, strstr(recorded, "SET_FEATURES"));
    assert_string_equal(sim->wrong, "");
    end(sim, &p);
    for (enum sim_order order = SIM_QEMU_SLOTS; order < SIM_ORDER_COUNT; order++) {
        sim = start(&p, order, 256);
        assert_int_equal(strstr(p.log, "SET_MEM_TABLE") != NULL, order == SIM_CLOUD_HYPERVISOR || order == SIM_PLAIN);
        assert_int_equal(strstr(p.log, "ADD_MEM_REG 1\nADD_MEM_REG 1\nADD_MEM_REG 1\nADD_MEM_REG 1\n") != NULL,
                         order != SIM_CLOUD_HYPERVISOR && order != SIM_PLAIN);
        assert_int_equal(sim_stop(sim), 0);
        p.log[0] = '\0';
        assert_int_equal(sim_restart(sim), 0);
        assert_null(strstr(p.log, "ADD_MEM_REG")); /* the slots are still there */
        assert_string_equal(sim->wrong, "");
        end(sim, &p);
    }
}

/* A device in ten lines: reads a chain as the specification says. Returns its length; id is its head. */
static size_t walk(struct sim_queue *q, uint16_t at, uint8_t *ret, size_t cap, uint16_t *ret_head)
{
    uint16_t i = sim_get16(q->avail_mem + 4 + 2 * (size_t)(at % q->size));
    const uint8_t *table = q->desc_mem, *d;
    size_t len = 0;

    *ret_head = i;
    do {
        d = table + (size_t)i * DESC_LEN;
        uint32_t n = sim_get32(d + 8);
        if (sim_get16(d + 12) & DESC_INDIRECT) {
            table = sim_at(q->sim, sim_get64(d), n);
            i = 0;
            continue;
        }
        assert_true(len + n <= cap);
        sim_read(q->sim, sim_get64(d), ret + len, n);
        len += n;
        i = sim_get16(d + 14);
    } while (sim_get16(d + 12) & (DESC_NEXT | DESC_INDIRECT));
    return len;
}

static void use(struct sim_queue *q, uint16_t idx, uint32_t head, uint32_t len)
{
    sim_put32(q->used_mem + 4 + 8 * (size_t)(idx % q->size), head);
    sim_put32(q->used_mem + 8 + 8 * (size_t)(idx % q->size), len);
    sim_put16(q->used_mem + 2, (uint16_t)(idx + 1));
}

static void test_shapes(void **state)
{
    static uint8_t frame[1514], seen[2048];
    struct peer p;
    struct sim *sim = start(&p, SIM_QEMU, 256);
    struct sim_queue *q = &sim->queues[NET_TX];
    struct sim_net_hdr hdr = {.flags = 1, .gso_type = 1, .hdr_len = 54, .gso_size = 1460, .csum_start = 34}, back;
    uint16_t idx = 0, head;

    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 256);
    /* More than once round the ring. */
    for (unsigned round = 0; round < 100; round++)
        for (unsigned i = 0; i < sim_n_shapes; i++, idx++) {
            size_t len = sizeof(frame) - round;
            assert_int_equal(sim_net_send(sim, &hdr, frame, len, &sim_shapes[i]), 0);
            assert_int_equal(sim_get16(q->avail_mem + 2), (uint16_t)(idx + 1));
            assert_int_equal(walk(q, idx, seen, sizeof(seen), &head), NET_HDR + len);
            sim_net_hdr_get(seen, &back);
            assert_memory_equal(&back, &hdr, sizeof(hdr));
            assert_memory_equal(seen + NET_HDR, frame, len);
            use(q, idx, head, 0);
            assert_int_equal(sim_net_reap(sim), 1);
            assert_int_equal(q->n_free, q->size);
        }
    assert_string_equal(sim->wrong, "");
    end(sim, &p);
}

static void test_event_idx(void **state)
{
    uint8_t frame[60] = {0};
    struct peer p;
    struct sim *sim = start(&p, SIM_QEMU, 8);
    struct sim_queue *q = &sim->queues[NET_TX];
    uint8_t *event = q->used_mem + 4 + 8 * (size_t)q->size;

    /* The device wants to hear of the third. */
    sim_put16(event, 2);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(sim_net_send(sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
    assert_int_equal(q->kicks, 1);
    assert_int_equal(q->unkicked, 5);
    sim_queue_call_after(q, 3);
    assert_int_equal(sim_get16(q->avail_mem + 4 + 2 * (size_t)q->size), 2);
    end(sim, &p);
}

static void test_noticed(void **state)
{
    uint8_t frame[60] = {0};
    struct peer p;
    struct sim_net_hdr hdr;
    uint8_t got[2048];

    for (unsigned which = 0; which < 5; which++) {
        struct sim *sim = start(&p, SIM_QEMU, 8);
        struct sim_queue *q = &sim->queues[which < 3 ? NET_TX : NET_RX];
        uint16_t head;

        assert_int_equal(sim_net_send(sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        assert_int_equal(sim_net_supply(sim, 2, 1000, &sim_shapes[0]), 2);
        (void)walk(q, 0, got, sizeof(got), &head);
        assert_string_equal(sim->wrong, "");
        if (which == 0)
            use(q, 0, (uint32_t)head + 1, 0); /* another than the one it had */
        else if (which == 1)
            use(q, 0, head, 1); /* wrote where it may only read */
        else if (which == 2)
            sim_put16(q->used_mem + 2, 2); /* more than it had */
        else if (which == 3)
            use(q, 0, head, NET_HDR); /* a frame in no buffers */
        else {
            uint8_t *at = sim_at(sim, q->chains[head].pieces[0].gpa, 1000);
            sim_put16(at + 10, 1);
            at[NET_HDR + 60] = 1; /* behind what it says */
            use(q, 0, head, NET_HDR + 60);
        }
        if (which < 3)
            (void)sim_net_reap(sim);
        else
            (void)sim_net_receive(sim, &hdr, got, sizeof(got));
        assert_string_not_equal(sim->wrong, "");
        end(sim, &p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_event_idx),
        cmocka_unit_test(test_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
