/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_lossy.c: bytes through a bad link arrive as they were sent, in both
 * directions at once. Same seed, same run.
 */
#include "stack.h"
#include "link.h"
#include "guest.h"

#include <string.h>
#include <cmocka.h>

struct world {
    struct st_stack *st;
    struct lk_link up, down; /* to the stack, to the guest */
    unsigned lose;           /* of 1000 packets to the guest, whole ones, before its card cuts them */
    unsigned lost;
    struct gt_conn *guests;
    unsigned n;
    uint64_t hash; /* of everything that came out of both links */
};

/* Whether guests offer window scaling, and whether frames that arrive at once
 * are handed over as a batch; every test runs with and without. */
static bool scaling, batches;

static void from_guest(const uint8_t *frame, size_t len, void *arg)
{
    static uint8_t left[FR_MAX];
    struct world *w = arg;

    memcpy(left, frame, len);
    if (w->st->offload) {
        fr_partial(left);
    }
    lk_put(&w->up, w->st->now_ns, left, len);
}

static void from_stack(const void *frame, size_t len, void *arg)
{
    struct world *w = arg;

    lk_put(&w->down, w->st->now_ns, frame, len);
}

static bool lose_whole(void *arg)
{
    struct world *w = arg;

    if (!lk_one_in_1000(&w->down, w->lose)) {
        return false;
    }
    w->lost++;
    return true;
}

static void mix(struct world *w, const uint8_t *p, size_t len)
{
    while (len--) {
        w->hash = (w->hash ^ *p++) * 0x100000001b3u;
    }
}

/* Go on until all guests are done or it takes more than `limit` seconds of
 * virtual time. */
static bool run(struct world *w, unsigned limit)
{
    int64_t end = w->st->now_ns + (int64_t)limit * 1000000000;
    struct fr_packet p;
    GBytes *b;
    unsigned i, done;

    for (;;) {
        int64_t next = MIN(lk_deadline(&w->up), lk_deadline(&w->down));
        int wait = slirp_flow_timeout(w->st->slirp);

        for (i = 0, done = 0; i < w->n; i++) {
            done += gt_done(&w->guests[i]) || w->guests[i].reset;
            next = MIN(next, w->guests[i].deadline);
        }
        if (done == w->n) {
            return true;
        }
        if (wait >= 0) {
            next = MIN(next, w->st->now_ns + (int64_t)wait * 1000000);
        }
        if (next > end) {
            w->st->now_ns = end; /* nothing wakes anybody before that */
            return false;
        }
        w->st->now_ns = MAX(w->st->now_ns, next);
        if (batches) {
            slirp_flow_begin(w->st->slirp);
        }
        while ((b = lk_get(&w->up, w->st->now_ns))) {
            mix(w, g_bytes_get_data(b, NULL), g_bytes_get_size(b));
            if (w->st->offload) {
                st_input_trusted(w->st, g_bytes_get_data(b, NULL), g_bytes_get_size(b));
            } else {
                st_input(w->st, g_bytes_get_data(b, NULL), g_bytes_get_size(b));
            }
            g_bytes_unref(b);
        }
        if (batches) {
            slirp_flow_end(w->st->slirp);
        }
        while ((b = lk_get(&w->down, w->st->now_ns))) {
            mix(w, g_bytes_get_data(b, NULL), g_bytes_get_size(b));
            if (fr_parse(g_bytes_get_data(b, NULL), g_bytes_get_size(b), &p)) {
                for (i = 0; i < w->n; i++) {
                    gt_input(&w->guests[i], &p, w->st->now_ns);
                }
            }
            g_bytes_unref(b);
        }
        for (i = 0; i < w->n; i++) {
            gt_timer(&w->guests[i], w->st->now_ns);
        }
        slirp_flow_timer(w->st->slirp);
    }
}

static uint8_t *pattern(size_t len, unsigned salt)
{
    uint8_t *p = g_malloc(len + 1);
    uint32_t x = salt * 2654435761u + 1;
    size_t i;

    for (i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    return p;
}

/* n guests at once, each `up` bytes out and `down` bytes in. */
static uint64_t transfer(uint64_t seed, const struct lk_rates *rates, uint16_t mtu, unsigned n, size_t up, size_t down)
{
    struct world w = {.st = st_new(mtu), .n = n, .hash = 0xcbf29ce484222325u};
    uint8_t *up_data = pattern(up, 1), *down_data = pattern(down, 2);
    unsigned i;

    lk_init(&w.up, seed, rates);
    lk_init(&w.down, seed ^ 0xffffffff, rates);
    w.st->to_guest = from_stack;
    w.st->to_guest_arg = &w;
    if (w.st->offload && rates->drop) {
        w.lose = rates->drop;
        w.st->lose = lose_whole;
    }
    w.st->out = down_data;
    w.st->out_len = down;
    w.st->out_eof = true;
    w.guests = g_new0(struct gt_conn, n);
    for (i = 0; i < n; i++) {
        gt_init(&w.guests[i], (uint16_t)(5000 + i), (uint32_t)(0xfffff000u + i * 77), (uint16_t)(mtu - 40));
        w.guests[i].tso = w.st->offload & SLIRP_FLOW_OFFLOAD_TSO;
        w.guests[i].scale = scaling;
        w.guests[i].send = from_guest;
        w.guests[i].arg = &w;
        w.guests[i].out = up_data;
        w.guests[i].out_len = up;
        gt_open(&w.guests[i], w.st->now_ns);
    }
    assert_true(run(&w, 3600));
    st_advance(w.st, 700000); /* a last ACK may be lost: FIN is repeated */
    assert_int_equal(w.st->conns->len, n);
    for (i = 0; i < n; i++) {
        struct st_conn *conn = st_conn_at(w.st, i);
        struct gt_conn *gt = &w.guests[conn->addr.guest_port - 5000];

        assert_false(gt->reset);
        assert_int_equal(gt->scaling, scaling);
        assert_int_equal(conn->got->len, up);
        assert_memory_equal(conn->got->data, up_data, up);
        assert_int_equal(gt->in->len, down);
        assert_memory_equal(gt->in->data, down_data, down);
        assert_int_equal(conn->eof, 1);
    }
    if (rates->drop && up + down >= 100000) {
        assert_true(w.up.dropped + w.down.dropped + w.lost > 0);
    }
    if (w.st->offload & SLIRP_FLOW_OFFLOAD_TSO && down >= 100000 && mtu < 32768) {
        assert_true(w.st->card.super > 0);
    }
    for (i = 0; i < n; i++) {
        gt_clear(&w.guests[i]);
    }
    lk_clear(&w.up);
    lk_clear(&w.down);
    st_free(w.st);
    g_free(w.guests);
    g_free(up_data);
    g_free(down_data);
    return w.hash;
}

static const struct lk_rates perfect = {.delay_us = 100};
static const struct lk_rates drops = {.drop = 20, .delay_us = 500};
static const struct lk_rates doubles = {.duplicate = 200, .delay_us = 200, .overtake_us = 3000};
static const struct lk_rates disorder = {.reorder = 200, .delay_us = 200, .overtake_us = 2000};
static const struct lk_rates cuts = {.truncate = 20, .delay_us = 300};
static const struct lk_rates all = {
    .drop = 20, .duplicate = 20, .truncate = 10, .reorder = 50, .delay_us = 1000, .overtake_us = 5000};
static const struct lk_rates awful = {
    .drop = 150, .duplicate = 50, .truncate = 50, .reorder = 150, .delay_us = 1000, .overtake_us = 20000};

static void perfect_link(void **state)
{
    (void)state;
    transfer(1, &perfect, 1500, 1, 4 << 20, 4 << 20);
    transfer(1, &perfect, 65520, 1, 8 << 20, 8 << 20);
}

static void dropping_link(void **state)
{
    (void)state;
    transfer(2, &drops, 1500, 1, 1 << 20, 1 << 20);
}

static void doubling_link(void **state)
{
    (void)state;
    transfer(3, &doubles, 1500, 1, 2 << 20, 2 << 20);
}

static void disordered_link(void **state)
{
    (void)state;
    transfer(4, &disorder, 1500, 1, 2 << 20, 2 << 20);
}

static void cutting_link(void **state)
{
    (void)state;
    transfer(5, &cuts, 1500, 1, 1 << 20, 1 << 20);
}

static void bad_link(void **state)
{
    uint64_t seed;

    (void)state;
    for (seed = 10; seed < 20; seed++) {
        transfer(seed, &all, 1500, 1, 300000, 300000);
    }
    transfer(20, &all, 65520, 1, 2 << 20, 2 << 20);
    transfer(21, &all, 576, 1, 200000, 200000);
}

static void awful_link(void **state)
{
    uint64_t seed;

    (void)state;
    for (seed = 30; seed < 40; seed++) {
        transfer(seed, &awful, 1500, 1, 30000, 30000);
    }
}

static void one_way(void **state)
{
    (void)state;
    transfer(50, &all, 1500, 1, 1 << 20, 0);
    transfer(51, &all, 1500, 1, 0, 1 << 20);
    transfer(52, &all, 1500, 1, 0, 0);
    transfer(53, &all, 1500, 1, 1, 1);
}

static void many_at_once(void **state)
{
    (void)state;
    transfer(60, &all, 1500, 100, 20000, 20000);
    transfer(61, &perfect, 1500, 1000, 3000, 3000);
}

static void same_seed_same_run(void **state)
{
    uint64_t a = transfer(70, &all, 1500, 3, 50000, 50000);

    (void)state;
    assert_true(a == transfer(70, &all, 1500, 3, 50000, 50000));
    assert_true(a != transfer(71, &all, 1500, 3, 50000, 50000));
}

/* The embedder takes nothing for a while, again and again: nothing is lost,
 * and the window keeps what is held within bounds. */
static void slow_taker(void **state)
{
    struct world w = {.st = st_new(1500), .n = 1, .hash = 1};
    uint8_t *data = pattern(1 << 20, 3);
    struct gt_conn gt;
    struct st_conn *conn;
    size_t most = 0;
    unsigned i;

    (void)state;
    lk_init(&w.up, 80, &all);
    lk_init(&w.down, 81, &all);
    w.st->to_guest = from_stack;
    w.st->to_guest_arg = &w;
    w.st->quota = scaling ? 100000 : 0; /* a window grows when something is taken */
    w.st->eof_reply = true;
    w.guests = &gt;
    gt_init(&gt, 5000, 1, 1460);
    gt.tso = w.st->offload & SLIRP_FLOW_OFFLOAD_TSO;
    gt.scale = scaling;
    gt.send = from_guest;
    gt.arg = &w;
    gt.out = data;
    gt.out_len = 1 << 20;
    gt_open(&gt, w.st->now_ns);
    for (i = 0; i < 2000 && !run(&w, 1); i++) {
        if (w.st->conns->len && (conn = st_conn_at(w.st, 0))->flow) {
            assert_true(slirp_flow_held(conn->flow, NULL) <= (scaling ? 512u << 10 : 65536));
            most = MAX(most, slirp_flow_held(conn->flow, NULL));
            conn->quota = 1000 + 7001 * (i % 10);
            slirp_flow_pull(conn->flow);
            conn->quota = 0;
        }
    }
    conn = st_conn_at(w.st, 0);
    assert_true(gt_done(&gt));
    assert_true(!scaling || most > 65536);
    assert_int_equal(conn->got->len, 1 << 20);
    assert_memory_equal(conn->got->data, data, 1 << 20);
    gt_clear(&gt);
    lk_clear(&w.up);
    lk_clear(&w.down);
    st_free(w.st);
    g_free(data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perfect_link),       cmocka_unit_test(dropping_link), cmocka_unit_test(doubling_link),
        cmocka_unit_test(disordered_link),    cmocka_unit_test(cutting_link),  cmocka_unit_test(bad_link),
        cmocka_unit_test(awful_link),         cmocka_unit_test(one_way),       cmocka_unit_test(many_at_once),
        cmocka_unit_test(same_seed_same_run), cmocka_unit_test(slow_taker),
    };

    int failed;

    st_args(argc, argv);
    failed = cmocka_run_group_tests_name("windows to 64 KiB", tests, NULL, NULL);
    scaling = batches = true;
    return failed + cmocka_run_group_tests_name("scaled windows, batches", tests, NULL, NULL);
}
