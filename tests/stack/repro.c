/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repro.c: the known bugs of libslirp 4.7.0, as frames.
 *
 * Each reproducer runs in a child and says BUG or FINE, or dies, which is a
 * BUG where dying is the bug. On the stock library each has to say BUG, on
 * ours FINE; so neither can pass because the attack has stopped working.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <unistd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <cmocka.h>

#include "target.h"

enum outcome { FINE = 40, BUG = 41, SETUP = 42, DIED = 43 };

#define GUEST_PORT 3000

/* Stock reaches the host's loopback through the gateway's address; ours asks
 * and does not care. */
struct talk {
    uint32_t dst;
    uint16_t dport;
    uint32_t seq, ack;
};

static int listener(int type, uint16_t *ret_port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(sin);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || (type == SOCK_STREAM && listen(fd, 5) < 0) ||
        getsockname(fd, (struct sockaddr *)&sin, &len) < 0) {
        _exit(SETUP);
    }
    *ret_port = ntohs(sin.sin_port);
    return fd;
}

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

static void say(struct talk *t, uint32_t offset, uint8_t flags, uint16_t urp, const void *data, size_t len)
{
    uint8_t buf[4096];
    struct fr_tcp tcp = {
        .src = FR_GUEST,
        .dst = t->dst,
        .sport = GUEST_PORT,
        .dport = t->dport,
        .seq = t->seq + offset,
        .ack = t->ack,
        .flags = flags,
        .win = 65535,
        .urp = urp,
        .data = data,
        .len = len,
    };

    tg_input(buf, fr_tcp(buf, &tcp));
}

static void handshake(struct talk *t, uint32_t isn)
{
    struct fr_packet p;

    t->seq = isn;
    t->ack = 0;
    say(t, 0, FR_SYN, 0, NULL, 0);
    tg_work(5000);
    if (!tg_next(&p) || p.proto != FR_TCP || p.flags != (FR_SYN | FR_ACK)) {
        _exit(SETUP);
    }
    t->seq++;
    t->ack = p.seq + 1;
    say(t, 0, FR_ACK, 0, NULL, 0);
}

/* (a) Two segments out of order after which the next expected number is 0. */
static enum outcome reass_list_end(void)
{
    struct talk t = {.dst = FR_GATEWAY};

    listener(SOCK_STREAM, &t.dport);
    tg_start(true, true);
    handshake(&t, (uint32_t)-21);
    say(&t, 10, FR_ACK, 0, "0123456789", 10);
    say(&t, 0, FR_ACK, 0, "abcdefghij", 10);
    tg_work(100);
    return FINE;
}

/* (b) An urgent pointer beyond the data. */
static enum outcome urgent_stale_heap(void)
{
    struct talk t = {.dst = FR_GATEWAY};
    int fd = listener(SOCK_STREAM, &t.dport), peer;
    uint8_t got[4096];
    size_t sum = 0;
    ssize_t n;
    char *secret;

#ifndef FR_ASAN
    mallopt(M_PERTURB, 0); /* meson test sets it */
    mallopt(M_MMAP_THRESHOLD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    secret = malloc(2 << 20);
    if (!secret) {
        return SETUP;
    }
    memset(secret, 'S', 2 << 20);
    __asm__ volatile("" : : "r"(secret) : "memory"); /* the compiler must not see that it is for nothing */
    free(secret);
#else
    (void)secret;
#endif
    tg_start(true, true);
    handshake(&t, 1);
    say(&t, 0, FR_ACK | FR_URG, 1500, "x", 1);
    tg_work(100);
    if (!tg_has_bugs) {
        return tg_taken() == 1 ? FINE : BUG;
    }
    peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (readable(peer, 200) && (n = recv(peer, got + sum, sizeof(got) - sum, 0)) > 0) {
        sum += (size_t)n;
    }
#ifndef FR_ASAN
    if (sum <= 1 || memchr(got + 1, 'S', sum - 1) == NULL) {
        return FINE;
    }
#endif
    return sum > 1 ? BUG : FINE;
}

/* (c) Destinations on the host itself, with the host's loopback forbidden. */
static enum outcome loopback_reached(uint32_t dst)
{
    struct talk t = {.dst = dst, .seq = 1};
    int fd = listener(SOCK_STREAM, &t.dport);

    tg_start(false, false);
    say(&t, 0, FR_SYN, 0, NULL, 0);
    tg_work(300);
    return readable(fd, 200) ? BUG : FINE;
}

static enum outcome loopback_127(void)
{
    return loopback_reached(FR_IP(127, 0, 0, 1));
}

static enum outcome loopback_zero(void)
{
    return loopback_reached(0);
}

static unsigned open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

/* (d) A datagram from somebody the guest has never written to. */
static enum outcome udp_stranger(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    socklen_t len = sizeof(sin);
    uint16_t friend_port, stranger_port;
    int friend = listener(SOCK_DGRAM, &friend_port), stranger = listener(SOCK_DGRAM, &stranger_port);
    uint8_t buf[256];
    struct fr_packet p;
    unsigned fds;

    tg_start(true, true);
    fds = open_fds();
    tg_input(buf, fr_udp(buf, FR_GUEST, FR_GATEWAY, GUEST_PORT, friend_port, "hello", 5));
    if (!tg_has_bugs) {
        /* nothing was opened that a stranger could write to */
        return open_fds() == fds && !readable(friend, 50) ? FINE : BUG;
    }
    if (!readable(friend, 1000) || recvfrom(friend, buf, sizeof(buf), 0, (struct sockaddr *)&sin, &len) != 5) {
        return SETUP;
    }
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sendto(stranger, "boo", 3, 0, (struct sockaddr *)&sin, len) != 3) {
        return SETUP;
    }
    tg_work(1000);
    while (tg_next(&p)) {
        if (p.proto == FR_UDP && p.sport == stranger_port && p.dport == GUEST_PORT && p.len == 3) {
            return BUG;
        }
    }
    return FINE;
}

static void run(enum outcome (*attack)(void), bool may_die)
{
    enum outcome outcome;
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct rlimit none = {0, 0};
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        setrlimit(RLIMIT_CORE, &none);
        /* cmocka would catch the signal that is looked for */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        if (tg_has_bugs && null >= 0) {
            dup2(null, 2);
        }
        _exit(attack());
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    outcome = WIFEXITED(status) && WEXITSTATUS(status) >= FINE && WEXITSTATUS(status) <= SETUP
                  ? (enum outcome)WEXITSTATUS(status)
                  : DIED;
    assert_int_not_equal(outcome, SETUP);
    if (tg_has_bugs) {
        assert_int_equal(outcome, may_die ? DIED : BUG);
    } else {
        assert_int_equal(outcome, FINE);
    }
}

static void test_reass_list_end(void **state)
{
    (void)state;
    run(reass_list_end, true);
}

static void test_urgent_stale_heap(void **state)
{
    (void)state;
    run(urgent_stale_heap, false);
}

static void test_loopback(void **state)
{
    (void)state;
    run(loopback_127, false);
    run(loopback_zero, false);
}

static void test_udp_stranger(void **state)
{
    (void)state;
    run(udp_stranger, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reass_list_end),
        cmocka_unit_test(test_urgent_stale_heap),
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_udp_stranger),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
