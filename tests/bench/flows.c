/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many flows at once, from within a guest, and the server that they reach.
 *
 *   flows serve ADDR PORT        answer each TCP connection's and each datagram's 64 bytes with as many, until killed;
 *                                on PORT and the seven behind it, which clients take in turn: TIME-WAIT keeps a port of
 *                                theirs for each destination
 *   flows tcp|udp ADDR PORT      do what is said on standard input, one line each, and answer with one line:
 *                                  open N    have N flows open, each of which has had its 64 bytes back: milliseconds
 *                                  probe N   N new flows one after the other, each with 64 bytes and back: p50 p99 in
 *                                            us
 *                                  close N   keep the N oldest: milliseconds
 *
 * A UDP flow is a socket of its own; the mediator may keep it for longer than we do.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT 64
#define FLOWS_MAX 65536
#define PORTS 8
#define WAIT_MS 10000
/* A datagram that was lost is sent again: a full queue on the way is no fault of the path. */
#define RESEND_MS 200

static struct sockaddr_in peer;
static int type = SOCK_STREAM;
static int flows[FLOWS_MAX], n_flows;
static char word[64] = "\x01request"; /* no HTTP method, no TLS record: opaque from its first byte */

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void fail(const char *what)
{
    fprintf(stderr, "flows: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add(int ep, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
        fail("epoll_ctl");
}

static _Noreturn void serve(void)
{
    struct epoll_event got[64];
    struct sockaddr_in from;
    char buf[64];
    int one = 1, ep = epoll_create1(0),
        first = -1; /* the doors are first to first + 2 * PORTS - 1, by turns TCP and UDP */

    for (int i = 0; i < PORTS; i++) {
        int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), us = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in at = peer;

        at.sin_port = htons((uint16_t)(ntohs(peer.sin_port) + i));
        if (first < 0)
            first = ls;
        setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(ls, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (us != ls + 1 || bind(ls, (struct sockaddr *)&at, sizeof at) != 0 || listen(ls, 4096) != 0)
            fail("listen");
        if (bind(us, (struct sockaddr *)&at, sizeof at) != 0)
            fail("bind");
        add(ep, ls);
        add(ep, us);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, got, 64, -1);

        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            ssize_t r;

            bool door = fd >= first && fd < first + 2 * PORTS, udp = door && (fd - first) % 2 == 1;
            if (door && !udp) {
                int ls = fd;
                while ((fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                    add(ep, fd);
            } else if (udp) {
                socklen_t len = sizeof from;
                int us = fd;
                while ((r = recvfrom(us, buf, sizeof buf, 0, (struct sockaddr *)&from, &len)) > 0)
                    (void)!sendto(us, buf, (size_t)r, 0, (struct sockaddr *)&from, len);
            } else if ((r = read(fd, buf, sizeof buf)) <= 0 || write(fd, buf, (size_t)r) != r) {
                close(fd);
            }
        }
    }
}

static int begin(int flags)
{
    static int turn;
    struct sockaddr_in to = peer;
    int one = 1, fd = socket(AF_INET, type | flags, 0);

    to.sin_port = htons((uint16_t)(ntohs(peer.sin_port) + turn++ % PORTS));

    if (fd < 0)
        fail("socket");
    if (type == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        fail("connect");
    return fd;
}

static void say(int fd)
{
    if (send(fd, word, sizeof word, MSG_NOSIGNAL) != (ssize_t)sizeof word)
        fail("send");
}

static void open_flows(int want)
{
    int ep = epoll_create1(0), out = 0, first = n_flows;
    struct epoll_event ev, got[IN_FLIGHT];
    char buf[sizeof word];

    if (want > FLOWS_MAX)
        fail("too many");
    while (n_flows < want || out > 0) {
        while (out < IN_FLIGHT && n_flows < want) {
            int fd = begin(SOCK_NONBLOCK);
            ev = (struct epoll_event){.events = type == SOCK_STREAM ? EPOLLOUT : EPOLLIN, .data.fd = fd};
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
            if (type == SOCK_DGRAM)
                say(fd);
            flows[n_flows++] = fd;
            out++;
        }
        int k = epoll_wait(ep, got, IN_FLIGHT, type == SOCK_DGRAM ? RESEND_MS : WAIT_MS);
        if (k == 0 && type == SOCK_DGRAM) { /* of those that have been answered nothing comes a second time */
            static int resent;
            if (++resent > WAIT_MS / RESEND_MS)
                fail("datagrams are missing");
            for (int i = first; i < n_flows; i++)
                say(flows[i]);
            continue;
        }
        if (k <= 0)
            fail("flows are missing");
        for (int i = 0; i < k; i++) {
            int fd = got[i].data.fd;
            if (got[i].events & EPOLLOUT) {
                int e = 0;
                socklen_t len = sizeof e;
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
                if ((errno = e))
                    fail("connect");
                say(fd);
                ev = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
                continue;
            }
            if (recv(fd, buf, sizeof buf, 0) != (ssize_t)sizeof buf)
                fail("recv");
            epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL);
            out--;
        }
    }
    close(ep);
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void probe(int n)
{
    double *us = calloc((size_t)n, sizeof *us);
    struct timeval wait = {.tv_sec = WAIT_MS / 1000};
    int resent = 0;
    char buf[sizeof word];

    if (type == SOCK_DGRAM)
        wait = (struct timeval){.tv_usec = RESEND_MS * 1000};
    for (int i = -20; i < n; i++) { /* the first twenty warm the path */
        double t = now_us();
        int fd = begin(0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        say(fd);
        for (size_t have = 0; have < sizeof buf;) {
            ssize_t r = recv(fd, buf + have, sizeof buf - have, 0);
            if (r < 0 && errno == EAGAIN && type == SOCK_DGRAM && ++resent < WAIT_MS / RESEND_MS) {
                say(fd);
                continue;
            }
            if (r <= 0)
                fail("recv");
            have += (size_t)r;
        }
        if (i >= 0)
            us[i] = now_us() - t;
        close(fd);
    }
    qsort(us, (size_t)n, sizeof *us, cmp);
    printf("%.1f %.1f\n", us[n / 2], us[n * 99 / 100]);
    free(us);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    char line[64];

    if (argc != 4 || inet_pton(AF_INET, argv[2], &peer.sin_addr) != 1) {
        fprintf(stderr, "usage: flows serve|tcp|udp ADDR PORT\n");
        return 2;
    }
    peer.sin_family = AF_INET;
    peer.sin_port = htons((uint16_t)atoi(argv[3]));
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (strcmp(argv[1], "serve") == 0)
        serve();
    if (strcmp(argv[1], "udp") == 0)
        type = SOCK_DGRAM;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        double t = now_us();
        int n;
        if (sscanf(line, "open %d", &n) == 1) {
            open_flows(n);
            printf("%.1f\n", (now_us() - t) / 1e3);
        } else if (sscanf(line, "probe %d", &n) == 1) {
            probe(n);
        } else if (sscanf(line, "close %d", &n) == 1) {
            while (n_flows > n)
                close(flows[--n_flows]);
            printf("%.1f\n", (now_us() - t) / 1e3);
        } else {
            fprintf(stderr, "flows: what is %s", line);
            return 2;
        }
        fflush(stdout);
    }
    return 0;
}
