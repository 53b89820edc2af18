/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The small half of the benchmark: connections rather than bytes.
 *
 *   crr serve ADDR PORT [PORTS]     answer each connection's first read with 64 bytes, on that many ports, until killed
 *   crr crr ADDR PORT N             N times connect, send 64 bytes, read 64, close; prints p50 p99 mean in microseconds
 *   crr once ADDR PORT              the same once, without warming anything up before
 *   crr refused ADDR PORT N STEP    N connects that must be refused, 64 in flight; port advances by STEP each time
 *                                   (0: the same destination again and again); prints microseconds for each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT 64
/** Exchanges that warm the path up before those that are timed. */
#define WARM 50

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *ip, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    if (inet_pton(AF_INET, ip, &a.sin_addr) != 1) {
        fprintf(stderr, "crr: %s is not an address\n", ip);
        exit(2);
    }
    return a;
}

/** In an event of a listening socket, beside its descriptor. */
#define LISTENS (UINT64_C(1) << 32)

static void listen_on(int ep, const char *ip, int port)
{
    struct sockaddr_in a = address(ip, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = LISTENS | (uint64_t)fd};

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0)
        fail("crr: listen");
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static _Noreturn void serve(const char *ip, int port, int ports)
{
    struct epoll_event got[64];
    int ep = epoll_create1(0);
    char buf[64] = {0};

    for (int i = 0; i < ports; i++)
        listen_on(ep, ip, port + i);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, got, 64, -1);

        for (int i = 0; i < n; i++) {
            int fd = (int)(got[i].data.u64 & 0xffffffff);

            if (got[i].data.u64 & LISTENS) {
                struct epoll_event ev = {.events = EPOLLIN};
                int ls = fd;

                while ((fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    ev.data.u64 = (uint64_t)fd;
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
                }
            } else if (read(fd, buf, sizeof buf) > 0) {
                if (write(fd, buf, sizeof buf) < 0)
                    close(fd);
            } else {
                close(fd);
            }
        }
    }
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int crr(const char *ip, int port, int warm, int n)
{
    struct sockaddr_in a = address(ip, port);
    double *us = calloc((size_t)n, sizeof *us), sum = 0;
    char buf[64] = "\x01request";

    for (int i = -warm; i < n; i++) {
        double t = now_us();
        size_t have = 0;
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
            fail("crr: connect");
        buf[0] = 1; /* no HTTP method, no TLS record: opaque from its first byte */
        if (write(fd, buf, sizeof buf) != (ssize_t)sizeof buf)
            fail("crr: write");
        while (have < sizeof buf) {
            ssize_t r = read(fd, buf + have, sizeof buf - have);

            if (r <= 0)
                fail("crr: read");
            have += (size_t)r;
        }
        close(fd);
        if (i >= 0)
            sum += us[i] = now_us() - t;
    }
    qsort(us, (size_t)n, sizeof *us, cmp);
    printf("%.1f %.1f %.1f\n", us[n / 2], us[n * 99 / 100], sum / n);
    free(us);
    return 0;
}

static int refused(const char *ip, int port, int n, int step)
{
    struct sockaddr_in a = address(ip, port);
    struct epoll_event ev, got[IN_FLIGHT];
    int ep = epoll_create1(0), out = 0, done = 0, begun = 0, other = 0;
    double t = now_us();

    while (done < n) {
        while (out < IN_FLIGHT && begun < n) {
            int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

            a.sin_port = htons((uint16_t)(1024 + (port - 1024 + (long)begun * step) % 60000));
            begun++;
            if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno != EINPROGRESS) {
                other += errno != ECONNREFUSED;
                done++;
                close(fd);
                continue;
            }
            ev.events = EPOLLOUT;
            ev.data.fd = fd;
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
            out++;
        }
        int k = epoll_wait(ep, got, IN_FLIGHT, 10000);

        if (k <= 0) {
            fprintf(stderr, "crr: %d of %d refusals are missing\n", out, n);
            return 1;
        }
        for (int i = 0; i < k; i++) {
            int e = 0;
            socklen_t len = sizeof e;

            getsockopt(got[i].data.fd, SOL_SOCKET, SO_ERROR, &e, &len);
            other += e != ECONNREFUSED;
            close(got[i].data.fd);
            out--;
            done++;
        }
    }
    t = now_us() - t;
    if (other != 0) {
        fprintf(stderr, "crr: %d connects ended otherwise than refused\n", other);
        return 1;
    }
    printf("%.2f\n", t / n);
    return 0;
}

int main(int argc, char **argv)
{
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "serve") == 0)
        serve(argv[2], atoi(argv[3]), argc == 5 ? atoi(argv[4]) : 1);
    if (argc == 5 && strcmp(argv[1], "crr") == 0)
        return crr(argv[2], atoi(argv[3]), WARM, atoi(argv[4]));
    if (argc == 4 && strcmp(argv[1], "once") == 0)
        return crr(argv[2], atoi(argv[3]), 0, 1);
    if (argc == 6 && strcmp(argv[1], "refused") == 0)
        return refused(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    fprintf(stderr,
            "usage: crr serve ADDR PORT [PORTS] | crr ADDR PORT N | once ADDR PORT | refused ADDR PORT N STEP\n");
    return 2;
}
