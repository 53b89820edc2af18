/* SPDX-License-Identifier: BSD-3-Clause */
/* virtio-vsock packets over vhost-user: the port in vmm-glue/ports/vhost_vsock.c, driven by the front-end simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/loop.h"
#include "ports/ports.h"
#include "sim.h"

#define CID UINT64_C(0x1122334455)
#define HDR 44
#define OP_RW 5
#define OP_REQUEST 1
#define BUFFER 4096 /* what Linux posts */

enum { RX, TX };

static const struct sim_config usual = {.features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX,
                                        .protocol = VU_P_MQ | VU_P_REPLY_ACK | VU_P_CONFIG | VU_P_CONFIGURE_MEM_SLOTS,
                                        .n_queues = 3,
                                        .queue_size = 16,
                                        .region_size = 2u << 20};

struct env {
    struct sm_loop *loop;
    struct sm_port *port;
    struct sim *sim;
    struct sm_frame frames[SM_PORT_BATCH];
    GByteArray *up; /* what came, one after the other */
    GArray *lens;
};

static void on_port(void *data, unsigned ready)
{
    struct env *env = data;

    if (ready & SM_PORT_WRITABLE)
        assert_int_equal(sm_port_flush(env->port), 0);
    if (!(ready & SM_PORT_READABLE))
        return;
    int n = sm_port_read(env->port, env->frames, SM_PORT_BATCH);
    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        g_byte_array_append(env->up, env->frames[i].data, (guint)SM_MIN(env->frames[i].len, env->frames[i].cap));
        g_array_append_val(env->lens, env->frames[i].len);
        assert_int_equal(env->frames[i].offload.flags, 0);
    }
}

static void turn(void *data, int timeout_ms)
{
    struct env *env = data;

    assert_int_equal(sm_port_want(env->port, SM_PORT_READABLE | (sm_port_waiting(env->port) ? SM_PORT_WRITABLE : 0u)),
                     0);
    assert_int_equal(sm_loop_turn(env->loop, timeout_ms), 0);
}

static void connect_vmm(struct env *env)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(sm_port_connect(env->port, pair[1]), 0);
    sim_connect(env->sim, pair[0], SIM_QEMU);
}

static struct env *start(void)
{
    struct env *env = g_new0(struct env, 1);
    struct sim_config cfg = usual;

    env->loop = sm_loop_new(NULL);
    env->port = sm_port_vhost_vsock_new(-1, CID, NULL);
    assert_non_null(env->loop);
    assert_non_null(env->port);
    assert_int_equal(env->port->max_frame, 65536 + HDR);
    for (unsigned i = 0; i < SM_PORT_BATCH; i++) {
        env->frames[i].cap = env->port->max_frame + 1;
        env->frames[i].data = g_malloc(env->frames[i].cap);
    }
    env->up = g_byte_array_new();
    env->lens = g_array_new(FALSE, FALSE, sizeof(size_t));
    sm_port_start(env->port, env->loop, on_port, env);
    cfg.turn = turn;
    cfg.data = env;
    env->sim = sim_new(&cfg);
    connect_vmm(env);
    assert_int_equal(sim_start(env->sim), 0);
    assert_int_equal(env->sim->acked, usual.features | VU_F_PROTOCOL_FEATURES);
    return env;
}

static void end(struct env *env)
{
    assert_string_equal(env->sim->wrong, "");
    sim_free(env->sim);
    sm_port_free(env->port);
    sm_loop_free(env->loop);
    for (unsigned i = 0; i < SM_PORT_BATCH; i++)
        g_free(env->frames[i].data);
    (void)g_byte_array_free(env->up, TRUE);
    (void)g_array_free(env->lens, TRUE);
    g_free(env);
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 31 + i / 256 + seed);
}

/* ---- the configuration space ---- */

static bool config(struct env *env, uint32_t offset, uint32_t size, uint32_t carried, struct sim_msg *ret)
{
    uint8_t payload[600] = {0};

    sim_put32(payload, offset);
    sim_put32(payload + 4, size);
    return sim_send(env->sim, VU_GET_CONFIG, VU_VERSION, payload, 12 + carried, NULL, 0) && sim_recv(env->sim, ret);
}

static void test_config(void **state)
{
    struct env *env = start();
    static struct sim_msg m;

    assert_true(config(env, 0, 8, 8, &m));
    assert_int_equal(m.request, VU_GET_CONFIG);
    assert_int_equal(m.size, 12 + 8);
    assert_int_equal(sim_get64(m.payload + 12), CID);
    assert_true(config(env, 4, 4, 4, &m));
    assert_int_equal(sim_get32(m.payload + 12), CID >> 32);
    /* Beyond it: an answer without a payload, by which the VMM knows. */
    static const uint32_t beyond[][2] = {{0, 9}, {8, 1}, {1, 8}, {UINT32_MAX, 1}, {UINT32_MAX - 3, 8}, {0, 256}};
    for (size_t i = 0; i < SM_ARRAY_LEN(beyond); i++) {
        assert_true(config(env, beyond[i][0], beyond[i][1], beyond[i][1], &m));
        assert_int_equal(m.size, 0);
    }
    assert_int_equal(env->port->faults, 0);
    assert_false(config(env, 0, 8, 4, &m)); /* a size that is not the payload's */
    assert_true(env->sim->dropped);
    assert_int_equal(env->port->faults, 1);
    end(env);

    env = start();
    assert_false(config(env, 0, 257, 257, &m));
    assert_true(env->sim->dropped);
    end(env);
}

/* ---- from the guest ---- */

static void send_up(struct env *env, const uint8_t *packet, uint32_t len, uint32_t cut, bool indirect)
{
    struct sim_queue *q = &env->sim->queues[TX];
    uint64_t at = sim_alloc(env->sim, 3, len + 1);
    struct sim_piece pieces[2] = {{.gpa = at, .len = cut}, {.gpa = at + cut, .len = len - cut}};

    sim_write(env->sim, at, packet, len);
    assert_true(sim_queue_add(q, pieces, len > cut ? 2 : 1, indirect) >= 0);
    (void)sim_queue_publish(q);
}

static void test_up(void **state)
{
    static uint8_t packet[65536 + HDR + 100];
    static const uint32_t lens[] = {HDR, HDR + 1, 5000, 65536 + HDR, 65536 + HDR + 100, 3};
    struct env *env = start();
    size_t at = 0;

    for (size_t i = 0; i < SM_ARRAY_LEN(lens); i++) {
        fill(packet, lens[i], (unsigned)i);
        send_up(env, packet, lens[i], SM_MIN(lens[i], (uint32_t)HDR), i % 2);
        sim_turns(env->sim, 4);
        assert_int_equal(env->lens->len, i + 1);
        size_t got = g_array_index(env->lens, size_t, i);
        if (lens[i] > env->port->max_frame)
            assert_true(got > env->port->max_frame); /* too long: it can be seen */
        else
            assert_int_equal(got, lens[i]);
        assert_memory_equal(env->up->data + at, packet, SM_MIN(lens[i], env->port->max_frame));
        at = env->up->len;
        uint32_t used;
        assert_non_null(sim_queue_pop(&env->sim->queues[TX], &used));
        assert_int_equal(used, 0);
    }
    end(env);
}

/* ---- to the guest ---- */

static void post(struct env *env, uint32_t len, unsigned n)
{
    struct sim_queue *q = &env->sim->queues[RX];

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = sim_alloc(env->sim, 3, len);
        const struct sim_piece pieces[2] = {{.gpa = at, .len = SM_MIN(len, HDR), .write = true},
                                            {.gpa = at + HDR, .len = len - SM_MIN(len, HDR), .write = true}};
        assert_true(sim_queue_add(q, pieces, len > HDR ? 2 : 1, false) >= 0);
    }
    (void)sim_queue_publish(q);
    sim_turns(env->sim, 4);
}

static void send_down(struct env *env, uint16_t op, const uint8_t *payload, size_t len, size_t says)
{
    uint8_t h[HDR];
    /* The payload in two parts, as a ring buffer has it. */
    const struct iovec iov[] = {
        {h, HDR}, {(uint8_t *)(uintptr_t)payload, len / 3}, {(uint8_t *)(uintptr_t)payload + len / 3, len - len / 3}};
    const struct sm_frame_out f = {.iov = iov, .n_iov = SM_ARRAY_LEN(iov)};

    fill(h, HDR, 200);
    sim_put32(h + 24, (uint32_t)says);
    sim_put16(h + 30, op);
    assert_int_equal(sm_port_send(env->port, &f), 0);
    sim_turns(env->sim, 4);
}

/* What the guest finds in its next buffer; the header is checked but for its length and kind. */
static size_t receive(struct env *env, uint8_t *payload)
{
    uint32_t used;
    const struct sim_chain *c = sim_queue_pop(&env->sim->queues[RX], &used);
    uint8_t h[HDR], want[HDR];

    assert_non_null(c);
    assert_true(used >= HDR);
    sim_read(env->sim, c->pieces[0].gpa, h, HDR);
    size_t len = sim_get32(h + 24);
    assert_int_equal(used, HDR + len);
    if (len > 0)
        sim_read(env->sim, c->pieces[1].gpa, payload, len);
    fill(want, HDR, 200);
    memcpy(want + 24, h + 24, 4);
    memcpy(want + 30, h + 30, 2);
    assert_memory_equal(h, want, HDR);
    return len;
}

static void test_down(void **state)
{
    static uint8_t payload[65536], got[65536];
    struct env *env = start();

    post(env, BUFFER, 6);
    fill(payload, 10000, 7);
    send_down(env, OP_REQUEST, payload, 0, 0);
    assert_int_equal(receive(env, got), 0);
    send_down(env, OP_RW, payload, 100, 100);
    assert_int_equal(receive(env, got), 100);
    assert_memory_equal(got, payload, 100);
    /* Cut to the guest's buffers, each piece with its own length. */
    send_down(env, OP_RW, payload, 10000, 10000);
    assert_int_equal(receive(env, got), BUFFER - HDR);
    assert_int_equal(receive(env, got + BUFFER - HDR), BUFFER - HDR);
    assert_int_equal(receive(env, got + 2 * (BUFFER - HDR)), 10000 - 2 * (BUFFER - HDR));
    assert_memory_equal(got, payload, 10000);
    assert_int_equal(env->port->queued_frames, 0);
    assert_int_equal(env->port->tx_dropped, 0);
    end(env);
}

/* Buffers come one by one: what was delivered is not delivered again, and nothing is lost or overtakes. */
static void test_starving(void **state)
{
    static uint8_t payload[65536], got[65536];
    struct env *env = start();
    size_t have = 0;

    fill(payload, sizeof(payload), 9);
    post(env, BUFFER, 2);
    send_down(env, OP_RW, payload, sizeof(payload), sizeof(payload));
    send_down(env, OP_RW, payload, 5, 5);
    assert_int_equal(env->port->queued_frames, 2);
    have += receive(env, got);
    have += receive(env, got + have);
    while (have < sizeof(payload)) {
        uint32_t len = 100 + (uint32_t)(have * 7 % 9000);
        post(env, len, 1);
        size_t n = receive(env, got + have);
        assert_int_equal(n, SM_MIN(len - HDR, sizeof(payload) - have));
        have += n;
    }
    assert_int_equal(have, sizeof(payload));
    assert_memory_equal(got, payload, sizeof(payload));
    assert_int_equal(env->port->queued_frames, 1);
    post(env, BUFFER, 1);
    assert_int_equal(receive(env, got), 5);
    assert_memory_equal(got, payload, 5);
    assert_int_equal(env->port->queued_frames, 0);

    /* Half of one is out when the VMM goes; the next guest gets whole ones. */
    post(env, BUFFER, 1);
    send_down(env, OP_RW, payload, 10000, 10000);
    assert_int_equal(receive(env, got), BUFFER - HDR);
    sim_disconnect(env->sim);
    for (int i = 0; i < 50 && env->port->connected; i++)
        turn(env, 1);
    assert_false(env->port->connected);
    sim_rings_new(env->sim);
    connect_vmm(env);
    assert_int_equal(sim_start(env->sim), 0);
    post(env, BUFFER, 2);
    send_down(env, OP_RW, payload, 300, 300);
    assert_int_equal(receive(env, got), 300);
    assert_memory_equal(got, payload, 300);
    end(env);
}

static void test_faults(void **state)
{
    static uint8_t payload[8192], got[8192];
    static const uint32_t small[] = {HDR - 1, HDR};

    /* No room for a header; room for a header only, and there is data. */
    for (size_t i = 0; i < SM_ARRAY_LEN(small); i++) {
        struct env *env = start();
        post(env, small[i], 1);
        send_down(env, OP_RW, payload, 10, 10);
        assert_null(sim_queue_pop(&env->sim->queues[RX], &(uint32_t){0}));
        assert_int_equal(env->port->queued_frames, 0); /* nothing waits for a broken ring */
        assert_true(env->port->tx_dropped > 0);
        assert_int_equal(env->port->faults, 1);
        /* The other ring is served, and a driver that starts anew gets a new one. */
        send_up(env, payload, HDR, HDR, false);
        sim_turns(env->sim, 4);
        assert_int_equal(env->lens->len, 1);
        assert_int_equal(sim_stop(env->sim), 0);
        sim_rings_new(env->sim);
        assert_int_equal(sim_restart(env->sim), 0);
        post(env, BUFFER, 1);
        send_down(env, OP_RW, payload, 10, 10);
        assert_int_equal(receive(env, got), 10);
        end(env);
    }

    /* Only stream data may be cut: anything else is dropped, and what follows arrives. */
    struct env *env = start();
    post(env, BUFFER, 2);
    send_down(env, OP_REQUEST, payload, 5000, 5000);
    assert_int_equal(env->port->tx_dropped, 1);
    send_down(env, OP_RW, payload, 10, 10);
    assert_int_equal(receive(env, got), 10);
    end(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),   cmocka_unit_test(test_up),     cmocka_unit_test(test_down),
        cmocka_unit_test(test_starving), cmocka_unit_test(test_faults),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
