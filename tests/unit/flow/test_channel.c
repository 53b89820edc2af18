/* SPDX-License-Identifier: BSD-3-Clause */
/* The channel: descriptors arrive, a slow peer is felt and bounded, a malformed packet or a stray descriptor ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flow/channel.h"

struct side {
    struct sm_channel *ch;
    unsigned messages, failures, drains;
    uint64_t last_id;
    int last_fd;
    bool free_on_message;
    bool orders; /* ids rise; a DATAGRAM has none */
};

static void on_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct side *s = data;
    s->messages++;
    if (s->orders && msg->id == 0)
        return;
    assert_true(!s->orders || msg->id > s->last_id);
    s->last_id = msg->id;
    if (n_fds > 0) {
        if (s->last_fd >= 0)
            close(s->last_fd);
        s->last_fd = fds[0];
    }
    if (s->free_on_message) {
        sm_channel_free(s->ch);
        s->ch = NULL;
    }
}

static void on_failed(const char *text, void *data)
{
    ((struct side *)data)->failures++;
}

static void on_drained(void *data)
{
    ((struct side *)data)->drains++;
}

static const struct sm_channel_ops ops = {on_message, on_failed, on_drained};

struct fixture {
    struct sm_loop *loop;
    struct side core, front;
    int raw, core_fd;
};

static int setup(void **state)
{
    static struct fixture f;
    int pair[2];
    memset(&f, 0, sizeof(f));
    f.loop = sm_loop_new(NULL);
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    f.core.last_fd = f.front.last_fd = -1;
    f.core.ch = sm_channel_new(f.loop, pair[0], true, &ops, &f.core);
    f.front.ch = sm_channel_new(f.loop, pair[1], false, &ops, &f.front);
    f.raw = pair[1];
    f.core_fd = pair[0];
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_channel_free(f->core.ch);
    sm_channel_free(f->front.ch);
    sm_fd_close(&f->core.last_fd);
    sm_fd_close(&f->front.last_fd);
    sm_loop_free(f->loop);
    return 0;
}

static void test_attach_passes_fd(void **state)
{
    struct fixture *f = *state;
    int pipes[2];
    struct stat want, got;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(fstat(pipes[0], &want), 0);
    struct sm_flow_msg m = {.type = SM_FLOW_ATTACH, .id = 9, .consumed = 3};
    assert_true(sm_channel_send(f->core.ch, &m, pipes[0]));
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->front.messages, 1);
    assert_int_equal(f->front.last_id, 9);
    assert_int_equal(fstat(f->front.last_fd, &got), 0);
    assert_int_equal(want.st_ino, got.st_ino);
    close(pipes[1]);
}

static void test_slow_peer(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[SM_FLOW_DATA_MAX];
    struct sm_flow_msg open = {.type = SM_FLOW_OPEN,
                               .id = 1,
                               .proto = SM_FLOW_TCP,
                               .src = {sm_addr_v4(1, 1, 1, 1), 1},
                               .dst = {sm_addr_v4(1, 1, 1, 1), 1}};
    struct sm_flow_msg bytes = {.type = SM_FLOW_BYTES, .id = 1, .data = block, .data_len = sizeof(block)};
    unsigned sent = 0;

    while (!sm_channel_congested(f->front.ch)) {
        assert_true(sm_channel_send(f->front.ch, &bytes, -1));
        assert_true(++sent < 1000);
    }
    assert_false(sm_channel_send(f->front.ch, &open, -1)); /* droppable: refused and counted */
    assert_int_equal(sm_channel_dropped(f->front.ch), 1);
    assert_true(sm_channel_send(f->front.ch, &bytes, -1)); /* the reserved half */
    sent++;
    for (int i = 0; i < 1000 && f->core.messages < sent; i++)
        sm_loop_turn(f->loop, 100);
    assert_int_equal(f->core.messages, sent);
    assert_int_equal(f->front.drains, 1);
    assert_false(sm_channel_congested(f->front.ch));
    assert_true(sm_channel_send(f->front.ch, &open, -1));
}

static void test_peer_that_never_reads(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[SM_FLOW_DATA_MAX];
    struct sm_flow_msg bytes = {.type = SM_FLOW_BYTES, .id = 1, .data = block, .data_len = sizeof(block)};
    unsigned sent = 0;
    sm_channel_pause(f->core.ch, true);
    while (sm_channel_send(f->front.ch, &bytes, -1))
        assert_true(++sent < 10000);
    assert_int_equal(f->front.failures, 0); /* not from inside a send */
    for (int i = 0; i < 4 && !f->front.failures; i++)
        sm_loop_turn(f->loop, 100);
    assert_int_equal(f->front.failures, 1);
}

static void test_malformed_and_stray_fd(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(write(f->raw, "nonsense", 8), 8);
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.failures, 1);
    assert_int_equal(f->core.messages, 0);
}

static void test_fd_on_wrong_type(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[64];
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 3};
    size_t len = sm_flow_encode(&gone, buf, sizeof(buf));
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(sm_fd_send(f->raw, buf, len, &null, 1), (int)len);
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.failures, 1);
    close(null);
}

static void test_peer_closes(void **state)
{
    struct fixture *f = *state;
    sm_channel_free(f->front.ch);
    f->front.ch = NULL;
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.failures, 1);
    struct sm_flow_msg m = {.type = SM_FLOW_ACCEPT, .id = 9};
    assert_false(sm_channel_send(f->core.ch, &m, -1));
}

/* What was sent before the end is heard before it: whether the peer finished behind a full queue, or just ended. */
static void test_last_words(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[SM_FLOW_DATA_MAX];
    struct sm_flow_msg bytes = {.type = SM_FLOW_BYTES, .id = 1, .data = block, .data_len = sizeof(block)};
    unsigned sent = 0;

    while (!sm_channel_congested(f->front.ch)) {
        assert_true(sm_channel_send(f->front.ch, &bytes, -1));
        sent++;
    }
    sm_channel_finish(f->front.ch);
    for (int i = 0; i < 1000 && !f->core.failures; i++)
        sm_loop_turn(f->loop, 100);
    assert_int_equal(f->core.messages, sent);
    assert_int_equal(f->core.failures, 1);
    assert_int_equal(f->front.failures, 0);
    sm_channel_free(f->core.ch);
    f->core.ch = NULL;
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->front.failures, 1);
}

static void test_last_words_behind_a_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg accept = {.type = SM_FLOW_ACCEPT, .id = 9}, gone = {.type = SM_FLOW_GONE, .id = 9};

    assert_true(sm_channel_send(f->core.ch, &accept, -1)); /* never read: the kernel says ECONNRESET first */
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    sm_channel_free(f->front.ch);
    f->front.ch = NULL;
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.messages, 1);
    assert_int_equal(f->core.failures, 1);
}

static void test_free_inside_callback(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg m = {.type = SM_FLOW_ACCEPT, .id = 9};
    f->front.free_on_message = true;
    assert_true(sm_channel_send(f->core.ch, &m, -1));
    assert_true(sm_channel_send(f->core.ch, &m, -1));
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->front.messages, 1);
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.failures, 1);
}

/* ... in the middle of a packet of many: nothing of the rest is told. */
static void test_free_inside_a_packet(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 7}, eof = {.type = SM_FLOW_EOF, .id = 8};

    f->core.free_on_message = true;
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    assert_true(sm_channel_send(f->front.ch, &eof, -1));
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.messages, 1);
    assert_null(f->core.ch);
    assert_int_equal(f->core.failures, 0);
}

/* Takes one packet from @fd, which must hold these types in this order. ret_msgs (NULL: not wanted): what they were, in
 * memory that the next call uses again. */
static void expect_packet(int fd, const enum sm_flow_type *types, unsigned n, struct sm_flow_msg *ret_msgs)
{
    static uint8_t raw[SM_FLOW_MSG_MAX];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;
    struct sm_flow_msg m;
    ssize_t len = sm_fd_recv(fd, raw, sizeof(raw), fds, &n_fds);

    assert_true(len > 0);
    assert_int_equal(raw[0] == SM_FLOW_PACKET_MANY, n > 1);
    struct sm_flow_packet p = sm_flow_packet_init(raw, (size_t)len);
    for (unsigned k = 0; k < n; k++) {
        assert_true(sm_flow_packet_next(&p, &m));
        assert_int_equal(m.type, types[k]);
        if (ret_msgs)
            ret_msgs[k] = m;
    }
    assert_false(sm_flow_packet_next(&p, &m));
    assert_false(p.bad);
}

static bool nothing_there(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* Ends and acknowledgements wait for company, keep their place, and go by themselves when none comes. */
static void test_ends_wait(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[1000];
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 7}, eof = {.type = SM_FLOW_EOF, .id = 8};
    struct sm_flow_msg acked = {.type = SM_FLOW_ATTACHED, .id = 9};
    struct sm_flow_msg bytes = {.type = SM_FLOW_BYTES, .id = 8, .data = block, .data_len = sizeof(block)};

    sm_channel_pause(f->core.ch, true);
    assert_true(sm_channel_send(f->front.ch, &acked, -1));
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    sm_channel_flush(f->front.ch);
    assert_true(nothing_there(f->core_fd));
    /* Somebody waits for this one: with what is older, and at once. */
    assert_true(sm_channel_send(f->front.ch, &eof, -1));
    expect_packet(f->core_fd, (enum sm_flow_type[]){SM_FLOW_ATTACHED, SM_FLOW_GONE, SM_FLOW_EOF}, 3, NULL);
    assert_true(sm_channel_send(f->front.ch, &eof, -1));
    expect_packet(f->core_fd, (enum sm_flow_type[]){SM_FLOW_EOF}, 1, NULL);
    for (unsigned i = 0; i < SM_FLOW_PACKET_MAX + 1; i++)
        assert_true(sm_channel_send(f->front.ch, &gone, -1));
    enum sm_flow_type full[SM_FLOW_PACKET_MAX];
    for (unsigned i = 0; i < SM_FLOW_PACKET_MAX; i++)
        full[i] = SM_FLOW_GONE;
    expect_packet(f->core_fd, full, SM_FLOW_PACKET_MAX, NULL); /* no room for the last one */
    assert_true(nothing_there(f->core_fd));
    assert_true(sm_channel_send(f->front.ch, &bytes, -1));
    expect_packet(f->core_fd, (enum sm_flow_type[]){SM_FLOW_GONE, SM_FLOW_BYTES}, 2, NULL);
    sm_channel_pause(f->core.ch, false);
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    for (int i = 0; i < 10 && f->core.messages == 0; i++)
        sm_loop_turn(f->loop, 1000); /* nobody says anything more: the loop wakes up for it */
    assert_int_equal(f->core.messages, 1);
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    sm_channel_finish(f->front.ch); /* the last word goes before the end */
    for (int i = 0; i < 10 && f->core.failures == 0; i++)
        sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->core.messages, 2);
}

/* A reset does not wait: the core sees the front's end of a pair close at once, and must not take that for a FIN. */
static void test_resets_do_not_wait(void **state)
{
    struct fixture *f = *state;
    struct sm_flow_msg gone = {.type = SM_FLOW_GONE, .id = 7, .why = SM_WHY_GUEST_RST};
    struct sm_flow_msg acked = {.type = SM_FLOW_ATTACHED, .id = 9};

    sm_channel_pause(f->core.ch, true);
    assert_true(sm_channel_send(f->front.ch, &acked, -1));
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    expect_packet(f->core_fd, (enum sm_flow_type[]){SM_FLOW_ATTACHED, SM_FLOW_GONE}, 2, NULL);
    assert_true(sm_channel_send(f->front.ch, &gone, -1));
    expect_packet(f->core_fd, (enum sm_flow_type[]){SM_FLOW_GONE}, 1, NULL);
}

/* Types of every kind in any order, to a peer that reads when it likes: what may not be dropped arrives, all in order. */
static void test_order_at_random(void **state)
{
    static const enum sm_flow_type types[] = {SM_FLOW_ATTACHED, SM_FLOW_GONE, SM_FLOW_GONE,     SM_FLOW_EOF,
                                              SM_FLOW_BYTES,    SM_FLOW_OPEN, SM_FLOW_DATAGRAM, SM_FLOW_ATTACHED};
    static uint8_t block[SM_FLOW_DATA_MAX];
    struct fixture *f = *state;
    uint64_t rng = 4711, id = 0;
    unsigned sent = 0;

    f->core.orders = true;
    for (unsigned i = 0; i < 20000 || f->core.messages < sent; i++) {
        assert_true(i < 100000);
        rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint32_t r = (uint32_t)(rng >> 33);
        struct sm_flow_msg m = {.type = types[r % SM_ARRAY_LEN(types)],
                                .id = ++id,
                                .proto = SM_FLOW_TCP,
                                .src = {sm_addr_v4(1, 1, 1, 1), 1},
                                .dst = {sm_addr_v4(1, 1, 1, 1), 1},
                                .why = r & 256 ? SM_WHY_CLOSED : SM_WHY_GUEST_RST,
                                .data = block,
                                .data_len = r & 512 ? sizeof(block) : 10};
        if (m.type == SM_FLOW_DATAGRAM)
            m.id = 0;
        if (i < 20000 && !sm_channel_congested(f->front.ch))
            sent += sm_channel_send(f->front.ch, &m, -1);
        if ((r >> 10) % 8 == 0)
            sm_channel_flush(f->front.ch);
        if ((r >> 13) % 64 == 0 && i < 20000)
            sm_channel_pause(f->core.ch, r & 1024);
        if (i >= 20000)
            sm_channel_pause(f->core.ch, false);
        if ((r >> 20) % 16 == 0 || i >= 20000)
            sm_loop_turn(f->loop, i < 20000 ? 0 : 100);
    }
    assert_int_equal(f->core.messages, sent);
    assert_int_equal(f->core.failures + f->front.failures, 0);
}

/* DATAGRAMs go together, in order among themselves and before what is sent behind them, and by themselves in the next
 * turn. */
static void test_datagrams_together(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[SM_FLOW_DATA_MAX];
    struct sm_flow_msg dns = {.type = SM_FLOW_DATAGRAM,
                              .src = {sm_addr_v4(1, 1, 1, 1), 1},
                              .dst = {sm_addr_v4(1, 1, 1, 1), 53},
                              .data = block,
                              .data_len = 30};
    struct sm_flow_msg eof = {.type = SM_FLOW_EOF, .id = 7}, got[4];
    static const enum sm_flow_type three_and_eof[] = {SM_FLOW_DATAGRAM, SM_FLOW_DATAGRAM, SM_FLOW_DATAGRAM,
                                                      SM_FLOW_EOF};

    sm_channel_pause(f->core.ch, true);
    for (uint8_t i = 0; i < 3; i++) {
        block[0] = i;
        assert_true(sm_channel_send(f->front.ch, &dns, -1));
    }
    assert_true(nothing_there(f->core_fd));
    assert_true(sm_channel_send(f->front.ch, &eof, -1));
    assert_true(sm_channel_send(f->front.ch, &dns, -1));
    dns.data_len = SM_FLOW_DATA_MAX; /* no room beside another one */
    assert_true(sm_channel_send(f->front.ch, &dns, -1));
    sm_channel_flush(f->front.ch);
    sm_channel_flush(f->front.ch);
    expect_packet(f->core_fd, three_and_eof, 4, got);
    for (uint8_t i = 0; i < 3; i++) {
        assert_int_equal(got[i].data_len, 30);
        assert_int_equal(got[i].data[0], i);
    }
    expect_packet(f->core_fd, three_and_eof, 1, got);
    assert_int_equal(got[0].data_len, 30);
    expect_packet(f->core_fd, three_and_eof, 1, got);
    assert_int_equal(got[0].data_len, SM_FLOW_DATA_MAX);
    assert_true(nothing_there(f->core_fd));
    /* Nobody says flush: the loop does, and the other end has all of them. */
    sm_channel_pause(f->core.ch, false);
    dns.data_len = 200;
    for (int i = 0; i < 200; i++)
        assert_true(sm_channel_send(f->front.ch, &dns, -1));
    for (int i = 0; i < 10 && f->core.messages < 200; i++)
        sm_loop_turn(f->loop, 100);
    assert_int_equal(f->core.messages, 200);
    assert_int_equal(sm_channel_dropped(f->front.ch), 0);
    /* A peer that does not read: what is lost is counted, each of them. */
    sm_channel_pause(f->core.ch, true);
    unsigned sent = 0;
    while (sm_channel_dropped(f->front.ch) == 0 && sent++ < 100000)
        (void)sm_channel_send(f->front.ch, &dns, -1);
    sm_channel_flush(f->front.ch);
    sm_channel_pause(f->core.ch, false);
    for (int i = 0; i < 10000 && f->core.messages + sm_channel_dropped(f->front.ch) < 200 + sent; i++)
        sm_loop_turn(f->loop, 0);
    assert_int_equal(f->core.messages + sm_channel_dropped(f->front.ch), 200 + sent);
    assert_int_equal(f->front.failures + f->core.failures, 0);
}

/* Freed or failing in the middle of a packet: the rest of it is nobody's. */
static void test_datagrams_and_the_end(void **state)
{
    struct fixture *f = *state;
    uint8_t block[30] = {0};
    struct sm_flow_msg dns = {.type = SM_FLOW_DATAGRAM,
                              .src = {sm_addr_v4(1, 1, 1, 1), 1},
                              .dst = {sm_addr_v4(1, 1, 1, 1), 53},
                              .data = block,
                              .data_len = sizeof(block)};

    for (int i = 0; i < 5; i++)
        assert_true(sm_channel_send(f->core.ch, &dns, -1));
    sm_channel_flush(f->core.ch);
    f->front.free_on_message = true;
    sm_loop_turn(f->loop, 1000);
    assert_int_equal(f->front.messages, 1);
    assert_null(f->front.ch);
    assert_true(sm_channel_send(f->core.ch, &dns, -1)); /* gathered; the loop finds out that nobody is there */
    for (int i = 0; i < 10 && !f->core.failures; i++)
        sm_loop_turn(f->loop, 100);
    assert_int_equal(f->core.failures, 1);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_attach_passes_fd),
        T(test_slow_peer),
        T(test_peer_that_never_reads),
        T(test_malformed_and_stray_fd),
        T(test_fd_on_wrong_type),
        T(test_peer_closes),
        T(test_ends_wait),
        T(test_resets_do_not_wait),
        T(test_order_at_random),
        T(test_datagrams_together),
        T(test_datagrams_and_the_end),
        T(test_free_inside_callback),
        T(test_free_inside_a_packet),
        T(test_last_words),
        T(test_last_words_behind_a_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
