/* SPDX-License-Identifier: BSD-3-Clause */
#include "harness.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "ports/ports.h"
#include "ports/vhost_port.h"

static void on_port(void *data, unsigned ready)
{
    struct env *env = data;

    env->calls++;
    if (ready & SM_PORT_WRITABLE && sm_port_waiting(env->port) && sm_port_flush(env->port) < 0)
        env->dead = true;
    if (!env->reading || !(ready & SM_PORT_READABLE))
        return;
    int n = sm_port_read(env->port, env->frames, SM_PORT_BATCH);
    env->dead = env->dead || n < 0;
    env->max_batch = SM_MAX(env->max_batch, n);
    for (int i = 0; i < n; i++) {
        const struct sm_frame *f = &env->frames[i];
        size_t len = SM_MIN(f->len, f->cap);
        struct got *g = g_malloc(sizeof(*g) + len);
        g->len = f->len;
        g->offload = f->offload;
        memcpy(g->data, f->data, len);
        g_queue_push_tail(&env->got, g);
    }
}

void env_turn(struct env *env, int timeout_ms)
{
    unsigned want = (env->reading ? SM_PORT_READABLE : 0u) | (sm_port_waiting(env->port) ? SM_PORT_WRITABLE : 0u);

    if (sm_port_want(env->port, want) < 0)
        env->dead = true;
    SIM_MUST(sm_loop_turn(env->loop, timeout_ms) == 0);
}

static void turn(void *data, int timeout_ms)
{
    env_turn(data, timeout_ms);
}

struct env *env_new(const struct sim_config *cfg)
{
    return env_new_around(cfg, sm_port_vhost_net_new(-1, 1500, NULL));
}

struct env *env_new_around(const struct sim_config *cfg, struct sm_port *port)
{
    struct env *env = g_new0(struct env, 1);
    struct sim_config mine = *cfg;

    env->loop = sm_loop_new(NULL);
    env->port = port;
    SIM_MUST(env->loop && env->port);
    for (unsigned i = 0; i < SM_PORT_BATCH; i++) {
        env->frames[i].cap = env->port->max_frame + 1;
        env->frames[i].data = g_malloc(env->frames[i].cap);
    }
    sm_port_start(env->port, env->loop, on_port, env);
    env->reading = true;
    g_queue_init(&env->got);
    mine.turn = turn;
    mine.data = env;
    env->sim = sim_new(&mine);
    return env;
}

void env_free(struct env *env)
{
    sim_free(env->sim);
    sm_port_free(env->port);
    sm_loop_free(env->loop);
    g_queue_clear_full(&env->got, g_free);
    for (unsigned i = 0; i < SM_PORT_BATCH; i++)
        g_free(env->frames[i].data);
    g_free(env);
}

void env_connect(struct env *env, enum sim_order order)
{
    int pair[2];

    SIM_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    SIM_MUST(sm_port_connect(env->port, pair[1]) == 0);
    sim_connect(env->sim, pair[0], order);
}

/* A turn that only waited: nothing was told, and no message read. That it took its time is not enough, since the
 * machine may be busy. */
bool env_settle(struct env *env)
{
    const struct sm_vhost_stats *stats = &sm_vhost_port_of(env->port)->vhost.stats;

    for (unsigned i = 0; i < 500; i++) {
        uint64_t calls = env->calls, messages = stats->messages;
        int64_t before = sm_clock_us();
        env_turn(env, 1);
        if (sm_clock_us() - before >= 700 && env->calls == calls && stats->messages == messages)
            return true;
    }
    return false;
}

void env_frame(uint8_t *frame, size_t len, unsigned number)
{
    uint32_t x = number * 2654435761u + (uint32_t)len + 1;

    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        frame[i] = (uint8_t)x;
    }
}

struct got *env_take(struct env *env)
{
    return g_queue_pop_head(&env->got);
}

void env_send(struct env *env, const void *frame, size_t len, const struct sm_offload *offload)
{
    size_t head = SM_MIN(len, (size_t)14);
    struct iovec iov[] = {
        {.iov_base = (void *)frame, .iov_len = head},
        {.iov_base = (uint8_t *)(uintptr_t)frame + head, .iov_len = len - head},
    };
    struct sm_frame_out out = {.iov = iov, .n_iov = 2};

    if (offload)
        out.offload = *offload;
    if (sm_port_send(env->port, &out) < 0)
        env->dead = true;
}

/* The honest case takes a few turns; whatever does not come at rest does not come at all. */
static bool wait_for(struct env *env, bool (*came)(struct env *env, const uint8_t *frame, size_t len),
                     const uint8_t *frame, size_t len)
{
    for (unsigned i = 0; i < 4; i++) {
        env_turn(env, 0);
        if (came(env, frame, len))
            return true;
    }
    (void)env_settle(env);
    return came(env, frame, len);
}

static bool came_up(struct env *env, const uint8_t *frame, size_t len)
{
    struct got *g;
    bool found = false;

    while ((g = env_take(env))) {
        found = found || (g->len == len && memcmp(g->data, frame, len) == 0);
        g_free(g);
    }
    return found;
}

static bool came_down(struct env *env, const uint8_t *frame, size_t len)
{
    static uint8_t back[SIM_FRAME_MAX];
    struct sim_net_hdr hdr;
    bool found = false;
    ssize_t n;

    while ((n = sim_net_receive(env->sim, &hdr, back, sizeof(back))) >= 0)
        found = found || ((size_t)n == len && memcmp(back, frame, len) == 0);
    return found;
}

bool env_up(struct env *env)
{
    static unsigned number = 1000000;
    uint8_t frame[300];

    env_frame(frame, sizeof(frame), ++number);
    if (sim_net_send(env->sim, NULL, frame, sizeof(frame), &sim_shapes[0]) < 0)
        return false;
    bool found = wait_for(env, came_up, frame, sizeof(frame));
    (void)sim_net_reap(env->sim);
    return found;
}

bool env_down(struct env *env)
{
    static unsigned number = 2000000;
    uint8_t frame[300];

    env_frame(frame, sizeof(frame), ++number);
    (void)sim_net_supply(env->sim, 4, 2048, &sim_shapes[0]);
    env_send(env, frame, sizeof(frame), NULL);
    return wait_for(env, came_down, frame, sizeof(frame));
}

unsigned env_count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    SIM_MUST(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

unsigned env_count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    unsigned n = 0;
    int c;

    SIM_MUST(f);
    while ((c = getc(f)) != EOF)
        n += c == '\n';
    (void)fclose(f);
    return n;
}
