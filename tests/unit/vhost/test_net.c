/* SPDX-License-Identifier: BSD-3-Clause */
/* virtio-net over vhost-user: the port in vmm-glue/ports/vhost_net.c, driven by the front-end simulator as honest VMMs
 * drive it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

static const struct sim_config usual = {
    .features = FEATURES, .protocol = PROTOCOL, .n_queues = 2, .queue_size = 256, .region_size = 2u << 20};

static struct env *start(const struct sim_config *cfg, enum sim_order order)
{
    struct env *env = env_new(cfg);

    env_connect(env, order);
    assert_int_equal(sim_start(env->sim), 0);
    assert_int_equal(env->sim->acked,
                     (env->sim->cfg.features & FEATURES) | (order == SIM_PLAIN ? 0 : VU_F_PROTOCOL_FEATURES));
    return env;
}

static void end(struct env *env)
{
    assert_false(env->dead);
    assert_string_equal(env->sim->wrong, "");
    env_free(env);
}

static void check_got(struct env *env, const void *frame, size_t len)
{
    struct got *g = env_take(env);

    assert_non_null(g);
    assert_int_equal(g->len, len);
    assert_memory_equal(g->data, frame, len);
    g_free(g);
}

static void check_received(struct env *env, const void *frame, size_t len, struct sim_net_hdr *ret_hdr)
{
    static uint8_t back[SIM_FRAME_MAX];
    ssize_t n = sim_net_receive(env->sim, ret_hdr, back, sizeof(back));

    assert_int_equal(n, (ssize_t)len);
    assert_memory_equal(back, frame, len);
}

/* ---- orders ---- */

static void test_orders(void **state)
{
    for (enum sim_order order = 0; order < SIM_ORDER_COUNT; order++) {
        struct env *env = start(&usual, order);
        assert_true(env_up(env) && env_down(env));
        /* The guest reboots: rings are stopped, and the driver begins with empty ones on the same connection. */
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(sim_stop(env->sim), 0);
            sim_rings_new(env->sim);
            assert_int_equal(sim_restart(env->sim), 0);
            assert_true(env_up(env) && env_down(env));
        }
        /* The VM is stopped and continued: the rings stay, and go on where the back-end said. */
        for (unsigned i = 0; i < 3; i++) {
            struct sim_queue *q = env->sim->queues;
            assert_int_equal(sim_stop(env->sim), 0);
            assert_int_equal(q[NET_TX].base, q[NET_TX].avail_idx);
            assert_int_equal(q[NET_RX].base, q[NET_RX].last_used);
            assert_int_equal(sim_restart(env->sim), 0);
            assert_true(env_up(env) && env_down(env));
        }
        end(env);
    }
}

/* Older cloud-hypervisors disable the rings when the guest reboots, and set them up anew: elsewhere, and from 0. */
static void test_old_reset(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct env *env = start(&usual, i < 2 ? SIM_CLOUD_HYPERVISOR : SIM_CLOUD_HYPERVISOR_SLOTS);
        for (unsigned round = 0; round < 3; round++) {
            assert_true(env_up(env) && env_down(env));
            assert_int_equal(sim_stop_old(env->sim, i % 2), 0);
            sim_rings_move(env->sim);
            assert_int_equal(sim_restart(env->sim), 0);
        }
        assert_true(env_up(env) && env_down(env));
        end(env);
    }
}

/* Each message in pieces of any length. */
static void test_pieces(void **state)
{
    for (enum sim_order order = 0; order < SIM_ORDER_COUNT; order++)
        for (unsigned chunk = 1; chunk <= 13; chunk += chunk < 5 ? 1 : 4) {
            struct env *env = env_new(&usual);
            env->sim->chunk = chunk;
            env_connect(env, order);
            assert_int_equal(sim_start(env->sim), 0);
            assert_true(env_up(env) && env_down(env));
            end(env);
        }
}

/* Gone after each message, and in the middle of each; descriptors and mappings go with it, and the next VMM is served.
 */
static void test_disconnect(void **state)
{
    for (enum sim_order order = 0; order < SIM_ORDER_COUNT; order++) {
        struct env *env = start(&usual, order);
        unsigned steps = env->sim->n_steps;

        sim_disconnect(env->sim);
        assert_true(env_settle(env));
        unsigned fds = env_count_fds(), maps = env_count_maps();
        for (unsigned i = 0; i <= steps; i++) {
            sim_rings_new(env->sim);
            env_connect(env, order);
            assert_int_equal(sim_run(env->sim, 0, i), 0);
            sim_disconnect(env->sim);
            assert_true(env_settle(env));
            assert_false(env->port->connected);
            assert_int_equal(env_count_fds(), fds);
        }
        for (size_t limit = 1;; limit += 7) {
            sim_rings_new(env->sim);
            env_connect(env, order);
            env->sim->limit = limit;
            int r = sim_start(env->sim);
            env->sim->limit = SIZE_MAX;
            sim_disconnect(env->sim);
            if (r == 0)
                break;
        }
        assert_true(env_settle(env));
        assert_int_equal(env_count_fds(), fds);
        assert_true(env_count_maps() <= maps + 2); /* the heap may have grown */
        sim_rings_new(env->sim);
        env_connect(env, order);
        assert_int_equal(sim_start(env->sim), 0);
        assert_true(env_up(env) && env_down(env));
        end(env);
    }
}

/* The VMM's process ends and comes again, with the guest's rings as they were: nothing that was sent comes twice. */
static void test_reconnect(void **state)
{
    struct env *env = start(&usual, SIM_QEMU);
    uint8_t frame[100] = {0};

    for (unsigned i = 0; i < 20; i++) {
        uint64_t dropped = env->port->tx_dropped;
        assert_true(env_up(env) && env_down(env));
        sim_disconnect(env->sim);
        assert_true(env_settle(env));
        assert_false(env->port->connected);
        env_send(env, frame, sizeof(frame), NULL);
        env_send(env, frame, sizeof(frame), NULL);
        assert_int_equal(env->port->tx_dropped, dropped + 2);
        assert_false(sm_port_waiting(env->port));
        sim_rings_again(env->sim);
        env_connect(env, i % SIM_ORDER_COUNT);
        assert_int_equal(sim_start(env->sim), 0);
        assert_int_equal(g_queue_get_length(&env->got), 0);
    }
    assert_int_equal(env->port->connections, 21);
    /* A second VMM while the first is there takes its place. */
    sim_rings_again(env->sim);
    int old = env->sim->sock;
    env->sim->sock = -1;
    env_connect(env, SIM_QEMU);
    assert_int_equal(sim_start(env->sim), 0);
    assert_true(env_up(env) && env_down(env));
    (void)close(old);
    end(env);
}

/* A VMM that asks and does not listen: nothing more of it is read until it has, nothing spins, and no answer is lost.
 */
static void test_unread_answers(void **state)
{
    struct env *env = start(&usual, SIM_QEMU);
    int small = 2048;
    unsigned asked = 0, answered = 0;
    struct sim_msg m;

    assert_int_equal(setsockopt(env->port->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    assert_int_equal(setsockopt(env->sim->sock, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    for (;;) {
        uint8_t head[VU_HEADER] = {VU_GET_FEATURES, 0, 0, 0, VU_VERSION};
        if (send(env->sim->sock, head, sizeof(head), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(head)) {
            asked++;
            assert_in_range(asked, 1, 10000);
        } else if (!env_settle(env) || send(env->sim->sock, head, sizeof(head), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
        else
            asked++;
    }
    assert_true(env_settle(env));
    assert_true(env_up(env) && env_down(env)); /* frames pass all the same */
    while (answered < asked) {
        assert_true(sim_recv(env->sim, &m));
        assert_int_equal(m.request, VU_GET_FEATURES);
        answered++;
    }
    assert_int_equal(sim_sync(env->sim), 0);
    assert_true(env_up(env) && env_down(env));
    end(env);
}

/* What cannot be a VMM's connection is refused, and the next that can is served. */
static void test_no_connection(void **state)
{
    struct env *env = env_new(&usual);
    int fd = memfd_create("no socket", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(sm_port_connect(env->port, fd), -1);
    assert_false(env->port->connected);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was taken all the same */
    env_connect(env, SIM_QEMU);
    assert_int_equal(sim_start(env->sim), 0);
    assert_true(env_up(env) && env_down(env));
    end(env);
}

/* ---- frames from the guest ---- */

static void test_shapes_up(void **state)
{
    static const size_t lens[] = {14, 60, 61, 1514};
    uint8_t frame[1514];
    unsigned number = 0;
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned round = 0; round < 50; round++)
        for (unsigned i = 0; i < sim_n_shapes; i++) {
            size_t len = lens[(round + i) % 4];
            env_frame(frame, len, ++number);
            assert_int_equal(sim_net_send(env->sim, NULL, frame, len, &sim_shapes[i]), 0);
            env_turn(env, 0);
            check_got(env, frame, len);
            assert_int_equal(sim_net_reap(env->sim), 1);
        }
    end(env);
}

static void test_large_up(void **state)
{
    static uint8_t frame[14 + 65535];
    struct sim_net_hdr hdr = {.flags = NET_HDR_NEEDS_CSUM,
                              .gso_type = NET_GSO_TCPV4,
                              .hdr_len = 54,
                              .gso_size = 1460,
                              .csum_start = 34,
                              .csum_offset = 16};
    static const struct sim_shape shapes[] = {{.name = "one"},
                                              {.cuts = {NET_HDR}, .every = 4096},
                                              {.cuts = {NET_HDR, 54}, .every = 300},
                                              {.cuts = {NET_HDR}, .every = 4096, .indirect = true},
                                              {.cuts = {3, 70}, .every = 68, .indirect = true}};
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned i = 0; i < 20; i++) {
        size_t len = sizeof(frame) - i * 1000;
        env_frame(frame, len, i);
        assert_int_equal(sim_net_send(env->sim, &hdr, frame, len, &shapes[i % 5]), 0);
        env_turn(env, 0);
        struct got *g = g_queue_peek_head(&env->got);
        assert_non_null(g);
        assert_int_equal(g->offload.flags, SM_OFFLOAD_NEEDS_CSUM);
        assert_int_equal(g->offload.gso_type, SM_GSO_TCPV4);
        assert_int_equal(g->offload.gso_size, 1460);
        assert_int_equal(g->offload.hdr_len, 54);
        assert_int_equal(g->offload.csum_start, 34);
        assert_int_equal(g->offload.csum_offset, 16);
        check_got(env, frame, len);
        assert_int_equal(sim_net_reap(env->sim), 1);
    }
    end(env);
}

/* A full ring at once: batches of at most 64, in order, and others on the loop are served in between. */
static void test_batch(void **state)
{
    uint8_t frame[200];
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 256; i++) {
            env_frame(frame, sizeof(frame), i);
            assert_int_equal(sim_net_add(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        }
        assert_int_equal(sim_net_add(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), -1);
        assert_true(sim_queue_publish(&env->sim->queues[NET_TX]));
        env_turn(env, 0);
        assert_int_equal(g_queue_get_length(&env->got), SM_PORT_BATCH);
        assert_true(env_settle(env));
        assert_int_equal(g_queue_get_length(&env->got), 256);
        for (unsigned i = 0; i < 256; i++) {
            env_frame(frame, sizeof(frame), i);
            check_got(env, frame, sizeof(frame));
        }
        assert_int_equal(sim_net_reap(env->sim), 256);
    }
    assert_int_equal(env->max_batch, SM_PORT_BATCH);
    end(env);
}

/* The front reads nothing for a while (its channel is full): messages are answered all the same, and the frames come
 * later. */
static void test_paused(void **state)
{
    uint8_t frame[200];
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned round = 0; round < 10; round++) {
        env->reading = false;
        env_turn(env, 0);
        for (unsigned i = 0; i < 10; i++) {
            env_frame(frame, sizeof(frame), i);
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        }
        assert_true(env_settle(env));
        assert_int_equal(g_queue_get_length(&env->got), 0);
        assert_int_equal(sim_sync(env->sim), 0);
        env->reading = true;
        assert_true(env_settle(env));
        for (unsigned i = 0; i < 10; i++) {
            env_frame(frame, sizeof(frame), i);
            check_got(env, frame, sizeof(frame));
        }
        assert_int_equal(sim_net_reap(env->sim), 10);
    }
    end(env);
}

/* ---- frames to the guest ---- */

static void test_shapes_down(void **state)
{
    static const size_t lens[] = {14, 60, 61, 1514};
    uint8_t frame[1514];
    struct sim_net_hdr hdr;
    unsigned number = 0;
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned round = 0; round < 20; round++)
        for (unsigned i = 0; i < sim_n_shapes; i++) {
            size_t len = lens[(round + i) % 4];
            env_frame(frame, len, ++number);
            assert_int_equal(sim_net_supply(env->sim, 1, 1526, &sim_shapes[i]), 1);
            env_send(env, frame, len, NULL);
            check_received(env, frame, len, &hdr);
            assert_int_equal(hdr.flags | hdr.gso_type | hdr.gso_size | hdr.csum_start | hdr.csum_offset, 0);
            assert_int_equal(hdr.num_buffers, 1);
        }
    end(env);
}

/* One frame in as many buffers as it takes, whatever their size; and exactly as many. */
static void test_mergeable(void **state)
{
    static const uint32_t sizes[] = {NET_HDR + 1, NET_HDR + 60, 64, 256, 1526, 4096, 65562};
    static uint8_t frame[14 + 65535];
    static const size_t lens[] = {60, 64 - NET_HDR, 64 - NET_HDR + 1, 128 - NET_HDR, 1514, 9014, 14 + 65535};
    struct sim_net_hdr hdr;
    unsigned number = 0, tried = 0;
    struct env *env = start(&usual, SIM_QEMU);
    const struct sm_offload offload = {.flags = SM_OFFLOAD_NEEDS_CSUM,
                                       .gso_type = SM_GSO_TCPV4,
                                       .gso_size = 1400,
                                       .hdr_len = 54,
                                       .csum_start = 34,
                                       .csum_offset = 16};

    for (unsigned s = 0; s < SM_ARRAY_LEN(sizes); s++)
        for (unsigned l = 0; l < SM_ARRAY_LEN(lens); l++) {
            unsigned n = (unsigned)((NET_HDR + lens[l] + sizes[s] - 1) / sizes[s]);
            if (n > 44) /* a frame of 64 KiB in buffers of 1526 bytes: no driver has smaller ones */
                continue;
            tried++;
            env_frame(frame, lens[l], ++number);
            assert_int_equal(sim_net_supply(env->sim, n, sizes[s], &sim_shapes[number % 2 ? 0 : 1]), n);
            env_send(env, frame, lens[l], &offload);
            check_received(env, frame, lens[l], &hdr);
            assert_int_equal(hdr.num_buffers, n);
            assert_int_equal(hdr.flags, NET_HDR_NEEDS_CSUM);
            assert_int_equal(hdr.gso_type, NET_GSO_TCPV4);
            assert_int_equal(hdr.gso_size, 1400);
            assert_int_equal(hdr.hdr_len, 54);
            assert_int_equal(hdr.csum_start, 34);
            assert_int_equal(hdr.csum_offset, 16);
            assert_int_equal(env->sim->queues[NET_RX].in_flight, 0);
        }
    assert_in_range(tried, 30, 49);
    end(env);
}

/* Without MRG_RXBUF a frame has one buffer; what does not fit is dropped, counted, and does not stand in the way. */
static void test_not_mergeable(void **state)
{
    struct sim_config cfg = usual;
    uint8_t frame[1514];
    struct sim_net_hdr hdr;

    cfg.features &= ~NET_F_MRG_RXBUF;
    struct env *env = start(&cfg, SIM_QEMU);
    for (unsigned i = 0; i < 30; i++) {
        env_frame(frame, sizeof(frame), i);
        assert_int_equal(sim_net_supply(env->sim, 2, i % 3 == 0 ? 1000 : 1526, &sim_shapes[i % 3]), 2);
        uint64_t dropped = env->port->tx_dropped;
        env_send(env, frame, sizeof(frame), NULL);
        env_send(env, frame, 500, NULL);
        if (i % 3 != 0)
            check_received(env, frame, sizeof(frame), &hdr);
        else
            assert_int_equal(env->port->tx_dropped, dropped + 1);
        check_received(env, frame, 500, &hdr);
        assert_int_equal(hdr.num_buffers, 1);
        assert_true(env_settle(env));
        if (i % 3 == 0) { /* the buffer that is left */
            env_send(env, frame, 100, NULL);
            check_received(env, frame, 100, &hdr);
        }
    }
    end(env);
}

/* A guest that posts no buffers: up to the bound nothing is lost, beyond it frames are counted; order stays. */
static void test_starved(void **state)
{
    static uint8_t frame[1514];
    struct sim_net_hdr hdr;
    struct env *env = start(&usual, SIM_QEMU);
    unsigned bound = SM_MIN((unsigned)SM_PORT_QUEUE_FRAMES, (unsigned)(SM_PORT_QUEUE_BYTES / sizeof(frame)));

    for (unsigned round = 0; round < 3; round++) {
        unsigned sent = round == 0 ? 100 : round == 1 ? bound : bound + 50, seen = 0;
        uint64_t dropped = env->port->tx_dropped;
        for (unsigned i = 0; i < sent; i++) {
            env_frame(frame, sizeof(frame), i);
            env_send(env, frame, sizeof(frame), NULL);
            assert_int_equal(sm_port_congested(env->port),
                             i + 1 >= bound / 2 + (bound == SM_PORT_QUEUE_FRAMES ? 0 : 1));
        }
        assert_int_equal(env->port->tx_dropped - dropped, sent > bound ? sent - bound : 0);
        assert_true(env_settle(env));
        assert_int_equal(sim_queue_done(&env->sim->queues[NET_RX]), 0);
        while (seen < SM_MIN(sent, bound)) {
            unsigned n = sim_net_supply(env->sim, 1 + seen % 200, 1526, &sim_shapes[0]);
            assert_true(n > 0);
            assert_true(env_settle(env));
            for (unsigned i = 0; i < n && seen < SM_MIN(sent, bound); i++, seen++) {
                env_frame(frame, sizeof(frame), seen);
                check_received(env, frame, sizeof(frame), &hdr);
            }
        }
        assert_false(sm_port_waiting(env->port));
        assert_int_equal(env->port->tx_dropped - dropped, sent > bound ? sent - bound : 0);
        assert_int_equal(sim_stop(env->sim), 0); /* the buffers that are left would serve the next round */
        sim_rings_new(env->sim);
        assert_int_equal(sim_restart(env->sim), 0);
    }
    end(env);
}

/* Frames wait for buffers, and the ring goes: stopped, disabled, broken. They are dropped and counted, and nothing
 * waits for ever. */
static void test_starved_and_gone(void **state)
{
    uint8_t frame[500];
    struct env *env = start(&usual, SIM_CLOUD_HYPERVISOR);

    env_frame(frame, sizeof(frame), 1);
    for (unsigned how = 0; how < 4; how++) {
        struct sim_queue *rx = &env->sim->queues[NET_RX];
        uint64_t dropped = env->port->tx_dropped;
        for (unsigned i = 0; i < 100; i++)
            env_send(env, frame, sizeof(frame), NULL);
        assert_true(env_settle(env));
        assert_true(sm_port_waiting(env->port));
        assert_int_equal(env->port->tx_dropped, dropped);
        if (how == 0)
            assert_int_equal(sim_stop(env->sim), 0);
        else if (how == 1)
            assert_int_equal(sim_stop_old(env->sim, true), 0);
        else if (how == 2) { /* a buffer outside memory */
            sim_desc(env->sim, rx->desc, UINT64_C(0x80000000), 1000, DESC_WRITE, 0);
            sim_queue_push(rx, 0);
            (void)sim_queue_publish(rx);
        } else
            sim_disconnect(env->sim);
        assert_true(env_settle(env));
        assert_false(sm_port_waiting(env->port));
        if (how < 3)
            assert_int_equal(env->port->tx_dropped, dropped + 100);
        if (how == 2)
            assert_int_equal(sim_stop(env->sim), 0);
        sim_rings_new(env->sim);
        if (how < 3) {
            assert_int_equal(sim_restart(env->sim), 0);
            assert_true(env_up(env) && env_down(env));
            assert_int_equal(sim_stop(env->sim), 0);
            sim_rings_new(env->sim);
            assert_int_equal(sim_restart(env->sim), 0);
        }
    }
    end(env);
}

/* One buffer at a time, where a frame needs three: nothing is written before all are there, and no wake-up is lost. */
static void test_starved_merging(void **state)
{
    uint8_t frame[300];
    struct sim_net_hdr hdr;
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned i = 0; i < 50; i++) {
        env_frame(frame, sizeof(frame), i);
        env_send(env, frame, sizeof(frame), NULL);
        for (unsigned n = 0; n < 3; n++) {
            assert_int_equal(sim_queue_done(&env->sim->queues[NET_RX]), 0);
            assert_int_equal(sim_net_supply(env->sim, 1, 110, &sim_shapes[i % 2]), 1);
            assert_true(env_settle(env));
        }
        check_received(env, frame, sizeof(frame), &hdr);
        assert_int_equal(hdr.num_buffers, 3);
    }
    end(env);
}

/* ---- notifications ---- */

static void test_notifications(void **state)
{
    uint8_t frame[100];
    struct sim_net_hdr hdr;
    static uint8_t back[2048];

    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        struct sim_config cfg = usual;
        if (!event_idx)
            cfg.features &= ~VIRTIO_F_EVENT_IDX;
        struct env *env = start(&cfg, SIM_QEMU);
        struct sim_queue *tx = &env->sim->queues[NET_TX], *rx = &env->sim->queues[NET_RX];
        env_frame(frame, sizeof(frame), 1);
        assert_true(env_up(env) &&
                    env_down(env)); /* what was wanted before a ring began is not known: one call may be too many */
        assert_true(env_settle(env));
        (void)sim_queue_calls(tx);
        (void)sim_queue_calls(rx);

        /* A driver that frees sent frames when it has time to wants no calls. */
        sim_queue_quiet(tx, true);
        for (unsigned i = 0; i < 300; i++) {
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
            assert_true(env_settle(env));
            assert_int_equal(sim_net_reap(env->sim), 1);
        }
        assert_int_equal(sim_queue_calls(tx), 0);
        /* One that wants them gets one for each batch, not for each frame. */
        sim_queue_quiet(tx, false);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(sim_net_add(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        (void)sim_queue_publish(tx);
        assert_true(env_settle(env));
        assert_in_range(sim_queue_calls(tx), 1, 2);
        assert_int_equal(sim_net_reap(env->sim), 64);

        /* While frames are being read, further ones need no kick; at rest each does. */
        uint64_t kicks = tx->kicks;
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        if (event_idx)
            assert_in_range(tx->kicks - kicks, 1, 2);
        assert_true(env_settle(env));
        assert_int_equal(sim_net_reap(env->sim), 64);
        kicks = tx->kicks;
        for (unsigned i = 0; i < 5; i++) {
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
            assert_true(env_settle(env));
            assert_int_equal(sim_net_reap(env->sim), 1);
        }
        assert_int_equal(tx->kicks - kicks, 5);

        /* Buffers for a guest that is not behind are no news: no kick. */
        kicks = rx->kicks;
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(sim_net_supply(env->sim, 1, 1526, &sim_shapes[0]), 1);
        assert_int_equal(rx->kicks - kicks, 0);
        /* A call for a turn's frames, not for each. */
        sim_queue_quiet(rx, false);
        for (unsigned i = 0; i < 20; i++)
            env_send(env, frame, sizeof(frame), NULL);
        assert_true(env_settle(env));
        assert_int_equal(sim_queue_calls(rx), 1);
        while (sim_net_receive(env->sim, &hdr, back, sizeof(back)) >= 0)
            continue;
        /* A driver that polls wants none. */
        sim_queue_quiet(rx, true);
        for (unsigned i = 0; i < 20; i++)
            env_send(env, frame, sizeof(frame), NULL);
        assert_true(env_settle(env));
        assert_int_equal(sim_queue_calls(rx), 0);
        while (sim_net_receive(env->sim, &hdr, back, sizeof(back)) >= 0)
            continue;
        /* A call after the tenth. */
        if (event_idx) {
            sim_queue_call_after(rx, 10);
            for (unsigned i = 1; i <= 12; i++) {
                env_send(env, frame, sizeof(frame), NULL);
                assert_true(env_settle(env));
                assert_int_equal(sim_queue_calls(rx), i == 10);
            }
        }
        end(env);
    }
}

/* A frame came just before the ring is stopped: the guest is told before its descriptor goes. */
static void test_last_call(void **state)
{
    static uint8_t back[2048];
    uint8_t frame[100];
    struct sim_net_hdr hdr;
    struct env *env = start(&usual, SIM_QEMU);

    env_frame(frame, sizeof(frame), 1);
    assert_int_equal(sim_net_supply(env->sim, 20, 1526, &sim_shapes[0]), 20);
    for (unsigned i = 0; i < 10; i++) {
        (void)sim_queue_calls(&env->sim->queues[NET_RX]);
        env_send(env, frame, sizeof(frame), NULL);
        assert_int_equal(sim_stop(env->sim), 0);
        assert_int_equal(sim_queue_calls(&env->sim->queues[NET_RX]), 1);
        assert_int_equal(sim_net_receive(env->sim, &hdr, back, sizeof(back)), sizeof(frame));
        assert_int_equal(sim_restart(env->sim), 0);
        assert_true(env_settle(env));
    }
    end(env);
}

/* What an earlier VMM's driver was told says nothing to the next one's: it gets a call for its first frame, and for
 * each that it waits for. */
static void test_first_call(void **state)
{
    static uint8_t back[2048];
    uint8_t frame[100];
    struct sim_net_hdr hdr;
    struct env *env = env_new(&usual);

    env_frame(frame, sizeof(frame), 1);
    for (unsigned n = 1; n < 20; n++) {
        bool reboot = n > 1 && n % 3 != 0; /* else another VMM */
        if (reboot)
            assert_int_equal(sim_stop(env->sim), 0);
        else
            env_connect(env, n % SIM_ORDER_COUNT);
        sim_rings_new(env->sim);
        assert_int_equal(reboot ? sim_restart(env->sim) : sim_start(env->sim), 0);
        struct sim_queue *tx = &env->sim->queues[NET_TX], *rx = &env->sim->queues[NET_RX];
        assert_int_equal(sim_net_supply(env->sim, 20, 1526, &sim_shapes[0]), 20);
        (void)sim_queue_calls(tx);
        (void)sim_queue_calls(rx);
        for (unsigned i = 0; i < n % 5 + 1; i++) {
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
            env_send(env, frame, sizeof(frame), NULL);
            assert_true(env_settle(env));
            assert_int_equal(sim_queue_calls(tx), 1);
            assert_int_equal(sim_queue_calls(rx), 1);
            assert_int_equal(sim_net_reap(env->sim), 1);
            assert_int_equal(sim_net_receive(env->sim, &hdr, back, sizeof(back)), sizeof(frame));
        }
    }
    end(env);
}

/* Frames come and go without a kick or call too many being needed, from the guest's side as fast as it can: nothing
 * stalls. */
static void test_no_lost_wakeup(void **state)
{
    uint8_t frame[100];
    struct env *env = start(&usual, SIM_QEMU);
    unsigned sent = 0, got = 0;
    uint32_t x = 1;

    env_frame(frame, sizeof(frame), 1);
    while (got < 20000) {
        x = x * 1664525u + 1013904223u;
        for (unsigned i = 0; i < (x >> 16) % 70 && sent < 20000; i++)
            if (sim_net_add(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]) == 0)
                sent++;
        if (env->sim->queues[NET_TX].pending > 0)
            (void)sim_queue_publish(&env->sim->queues[NET_TX]);
        if ((x >> 8) % 8 == 0)
            assert_true(env_settle(env));
        else
            env_turn(env, 0);
        struct got *g;
        while ((g = env_take(env))) {
            assert_int_equal(g->len, sizeof(frame));
            g_free(g);
            got++;
        }
        (void)sim_net_reap(env->sim);
        if ((x >> 8) % 8 == 0)
            assert_int_equal(got, sent);
    }
    assert_int_equal(sent, 20000);
    end(env);
}

/* The guest's processor and ours at once: a thread takes every frame, or gives it back, and the driver sleeps until it
 * is called. A notification that is lost on either side shows as one that does not come in ten seconds. */
struct other {
    struct env *env;
    bool echo;
    atomic_uint taken;
    atomic_bool stop;
};

static void *other_thread(void *data)
{
    struct other *o = data;

    while (!atomic_load(&o->stop)) {
        struct got *g;
        env_turn(o->env, 20);
        while (!sm_port_congested(o->env->port) && (g = env_take(o->env))) {
            if (o->echo)
                env_send(o->env, g->data, g->len, NULL);
            g_free(g);
            atomic_fetch_add(&o->taken, 1);
        }
    }
    return NULL;
}

static bool sleep_until_called(struct sim_queue *q)
{
    struct pollfd p = {.fd = q->call, .events = POLLIN};

    sim_queue_quiet(q, false);
    if (sim_queue_done(q) > 0)
        return true;
    bool called = poll(&p, 1, 10000) == 1;
    (void)sim_queue_calls(q);
    return called;
}

/* Some frames; x says how many and how they are cut. */
static void send_some(struct env *env, unsigned *sent, unsigned total, uint32_t x)
{
    uint8_t frame[64];

    for (unsigned i = 0; i < 1 + (x >> 16) % 7 && *sent < total; i++) {
        env_frame(frame, sizeof(frame), *sent);
        if (sim_net_add(env->sim, NULL, frame, sizeof(frame), &sim_shapes[x >> 8 & 1]) < 0)
            break;
        ++*sent;
    }
    if (env->sim->queues[NET_TX].pending > 0)
        (void)sim_queue_publish(&env->sim->queues[NET_TX]);
}

static void talk(struct env *env, const struct other *o, unsigned total)
{
    static uint8_t back[2048];
    struct sim_queue *tx = &env->sim->queues[NET_TX], *rx = &env->sim->queues[NET_RX];
    unsigned sent = 0, received = 0;
    uint32_t x = total;

    while (o->echo ? received < total : sent < total || tx->in_flight > 0) {
        uint8_t frame[64];
        struct sim_net_hdr hdr;
        x = x * 1664525u + 1013904223u;
        send_some(env, &sent, total, x);
        if (o->echo)
            (void)sim_net_supply(env->sim, 1 + (x >> 20) % 4, 100, &sim_shapes[0]);
        ssize_t n;
        while ((n = sim_net_receive(env->sim, &hdr, back, sizeof(back))) >= 0) {
            env_frame(frame, sizeof(frame), received++);
            assert_int_equal(n, (ssize_t)sizeof(frame));
            assert_memory_equal(back, frame, sizeof(frame));
        }
        (void)sim_net_reap(env->sim);
        assert_string_equal(env->sim->wrong, "");
        if (o->echo && sent > received && rx->in_flight > 0 && (x >> 24) % 4 == 0)
            assert_true(sleep_until_called(rx));
        if (tx->n_free == 0 || sent == total)
            assert_true(tx->in_flight == 0 || sleep_until_called(tx));
    }
}

static void test_threads(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct sim_config cfg = usual;
        cfg.features &= i & 1 ? UINT64_MAX : ~VIRTIO_F_EVENT_IDX;
        cfg.queue_size = 16;
        struct env *env = start(&cfg, SIM_QEMU);
        struct other o = {.env = env, .echo = i & 2};
        pthread_t thread;
        assert_true(env_settle(env));
        assert_int_equal(pthread_create(&thread, NULL, other_thread, &o), 0);
        talk(env, &o, 30000);
        atomic_store(&o.stop, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        env_turn(env, 0);
        assert_int_equal(atomic_load(&o.taken) + g_queue_get_length(&env->got), 30000);
        end(env);
    }
}

/* ---- memory and states ---- */

/* Another table while frames wait in both rings: none is lost or comes twice. And other files behind it: they are what
 * is used. */
static void test_memory_replaced(void **state)
{
    uint8_t frame[700];
    struct sim_net_hdr hdr;
    struct env *env = start(&usual, SIM_QEMU);

    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(sim_net_supply(env->sim, 3, 1526, &sim_shapes[0]), 3);
        for (unsigned i = 0; i < 8; i++) {
            env_frame(frame, sizeof(frame), i);
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[i % 4]), 0);
            if (i == 3)
                assert_true(env_settle(env)); /* some were taken before */
        }
        sim_regions_again(env->sim);
        assert_int_equal(sim_set_table(env->sim, 0), 0);
        assert_true(env_settle(env));
        for (unsigned i = 0; i < 8; i++) {
            env_frame(frame, sizeof(frame), i);
            check_got(env, frame, sizeof(frame));
        }
        assert_null(env_take(env));
        for (unsigned i = 0; i < 3; i++) {
            env_frame(frame, sizeof(frame), i);
            env_send(env, frame, sizeof(frame), NULL);
            check_received(env, frame, sizeof(frame), &hdr);
        }
        assert_int_equal(sim_net_reap(env->sim), 8);
        assert_true(env_settle(env));
        sim_regions_copy(env->sim);
        assert_int_equal(sim_set_table(env->sim, 0), 0);
        assert_true(env_up(env) && env_down(env));
        (void)sim_stop(env->sim); /* the buffers that are left */
        sim_rings_new(env->sim);
        assert_int_equal(sim_restart(env->sim), 0);
    }
    end(env);
}

/* Memory is unplugged and plugged while the rings run on. */
static void test_memory_slots(void **state)
{
    static const struct sim_shape spread = {.every = 100}; /* the fourth piece lies in the region that comes and goes */
    uint8_t frame[700];
    struct env *env = start(&usual, SIM_QEMU_SLOTS);

    env_frame(frame, sizeof(frame), 1);
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(sim_rem_region(env->sim, 3), 0);
        assert_true(env_up(env) && env_down(env));
        assert_int_equal(sim_add_region(env->sim, 3), 0);
        assert_true(env_up(env) && env_down(env));
        assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &spread), 0);
        env_turn(env, 0);
        check_got(env, frame, sizeof(frame));
        assert_int_equal(sim_net_reap(env->sim), 1);
    }
    /* As soon as a frame lies in what is not there, its ring is broken; the other goes on. */
    assert_int_equal(sim_rem_region(env->sim, 3), 0);
    assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &spread), 0);
    assert_true(env_settle(env));
    assert_false(env_up(env));
    assert_true(env_down(env));
    assert_int_equal(sim_sync(env->sim), 0);
    end(env);
}

/* A ring that is not enabled is not looked at (backend.h says why): what the guest sends comes when it is, nothing goes
 * to it meanwhile. */
static void test_disabled(void **state)
{
    struct env *env = start(&usual, SIM_CLOUD_HYPERVISOR);
    uint8_t frame[100], back[2048];
    struct sim_net_hdr hdr;

    for (unsigned round = 0; round < 5; round++) {
        env_frame(frame, sizeof(frame), round);
        assert_int_equal(sim_vring_state(env->sim, VU_SET_VRING_ENABLE, NET_TX, 0), 0);
        assert_int_equal(sim_vring_state(env->sim, VU_SET_VRING_ENABLE, NET_RX, 0), 0);
        assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
        (void)sim_net_supply(env->sim, 4, 2048, &sim_shapes[0]);
        env_send(env, frame, sizeof(frame), NULL);
        assert_true(env_settle(env));
        assert_null(env_take(env));
        assert_int_equal(sim_net_receive(env->sim, &hdr, back, sizeof(back)), -1);
        assert_int_equal(sim_vring_state(env->sim, VU_SET_VRING_ENABLE, NET_TX, 1), 0);
        assert_int_equal(sim_vring_state(env->sim, VU_SET_VRING_ENABLE, NET_RX, 1), 0);
        assert_true(env_settle(env));
        check_got(env, frame, sizeof(frame));
        assert_int_equal(sim_net_reap(env->sim), 1);
        assert_true(env_up(env) && env_down(env));
    }
    end(env);
}

/* What a port may carry is what was agreed on, each time anew. */
static void test_renegotiated(void **state)
{
    static const uint64_t sums = NET_F_CSUM | NET_F_GUEST_CSUM, tso = NET_F_GUEST_TSO4 | NET_F_HOST_TSO4;
    static const uint64_t sets[] = {0, NET_F_CSUM, NET_F_GUEST_CSUM, sums, sums | tso, sums | NET_F_HOST_TSO4};
    struct env *env = env_new(&usual);
    uint8_t frame[300];
    struct sim_net_hdr hdr;
    const struct sm_offload partial = {.flags = SM_OFFLOAD_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};

    env_frame(frame, sizeof(frame), 1);
    for (unsigned i = 0; i < 2 * SM_ARRAY_LEN(sets); i++) {
        uint64_t set = sets[i % SM_ARRAY_LEN(sets)];
        env->sim->cfg.features = VIRTIO_F_VERSION_1 | NET_F_MRG_RXBUF | set;
        sim_rings_new(env->sim);
        env_connect(env, i % SIM_ORDER_COUNT);
        assert_int_equal(sim_start(env->sim), 0);
        uint32_t gso = 1u << (16 + SM_GSO_TCPV4);
        assert_int_equal(env->port->rx_offloads & SM_OFFLOAD_NEEDS_CSUM, set & NET_F_CSUM ? SM_OFFLOAD_NEEDS_CSUM : 0);
        assert_int_equal(env->port->rx_offloads & gso, set & NET_F_HOST_TSO4 ? gso : 0);
        assert_int_equal(env->port->tx_offloads & SM_OFFLOAD_NEEDS_CSUM,
                         set & NET_F_GUEST_CSUM ? SM_OFFLOAD_NEEDS_CSUM : 0);
        assert_int_equal(env->port->tx_offloads & gso, set & NET_F_GUEST_TSO4 ? gso : 0);
        assert_true(env_up(env) && env_down(env));
        /* A partial sum goes only to a guest that completes it. */
        env_send(env, frame, sizeof(frame), &partial);
        if (set & NET_F_GUEST_CSUM) {
            check_received(env, frame, sizeof(frame), &hdr);
            assert_int_equal(hdr.flags, NET_HDR_NEEDS_CSUM);
        } else
            assert_int_equal(sim_queue_done(&env->sim->queues[NET_RX]), 0);
    }
    end(env);
}

/* Sizes from one descriptor to the largest, and rings that are many times gone round. */
static void test_sizes(void **state)
{
    static const uint16_t sizes[] = {1, 2, 4, 64, 1024, 32768};

    for (unsigned i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        struct sim_config cfg = usual;
        cfg.queue_size = sizes[i];
        cfg.region_size = 4u << 20;
        struct env *env = start(&cfg, SIM_CLOUD_HYPERVISOR);
        uint8_t frame[100];
        struct sim_net_hdr hdr;
        env_frame(frame, sizeof(frame), i);
        unsigned times = sizes[i] == 4 ? 70000 : 4000; /* 70,000: the indices go round their 16 bits */
        for (unsigned n = 0; n < times; n++) {
            assert_int_equal(sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]), 0);
            env_turn(env, 0);
            if (n % 1000 == 0)
                check_got(env, frame, sizeof(frame));
            else
                g_free(env_take(env));
            assert_int_equal(sim_net_reap(env->sim), 1);
            assert_int_equal(sim_net_supply(env->sim, 1, 200, &sim_shapes[0]), 1);
            env_send(env, frame, sizeof(frame), NULL);
            check_received(env, frame, sizeof(frame), &hdr);
        }
        end(env);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_old_reset),
        cmocka_unit_test(test_first_call),
        cmocka_unit_test(test_last_call),
        cmocka_unit_test(test_starved_and_gone),
        cmocka_unit_test(test_unread_answers),
        cmocka_unit_test(test_no_connection),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_disconnect),
        cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_shapes_up),
        cmocka_unit_test(test_large_up),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_paused),
        cmocka_unit_test(test_shapes_down),
        cmocka_unit_test(test_mergeable),
        cmocka_unit_test(test_not_mergeable),
        cmocka_unit_test(test_starved),
        cmocka_unit_test(test_starved_merging),
        cmocka_unit_test(test_notifications),
        cmocka_unit_test(test_no_lost_wakeup),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory_replaced),
        cmocka_unit_test(test_memory_slots),
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_renegotiated),
        cmocka_unit_test(test_sizes),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
