// SPDX-License-Identifier: BSD-3-Clause
/*
 * The UDP measuring tool of udp.py: datagrams a second from a guest to an origin and back.
 *
 *   udp serve ADDR PORT                              count what comes, and send what is asked for
 *   udp up    ADDR PORT SIZE MILLISECONDS RATE HOW   send RATE datagrams a second (0: as fast as may be), and ask how
 *                                                    many came
 *   udp down  ADDR PORT SIZE MILLISECONDS RATE HOW   the other way round
 *
 * HOW the sender gives 32 datagrams to its kernel with a system call: plain, as so many messages (sendmmsg), each of
 * which that kernel then takes through its stack; or cut, as one that it cuts (UDP_SEGMENT). The receiver always takes
 * them one by one.
 *
 * Prints: sent, received, seconds between the first and the last that was received.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, SIZE_MAX_UDP = 65507, RUNS = 64, ASK_MS = 200, ASKS = 25 };
enum kind { DATA = 1, ASK, TOLD, FLOOD, DONE };

struct head {
    uint32_t kind, run;
    uint64_t a, b; /* FLOOD: size, milliseconds and HOW | rate; TOLD: count and nanoseconds; DONE: count sent */
};

static uint8_t out_buf[SIZE_MAX_UDP], in_buf[BATCH][SIZE_MAX_UDP];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int open_socket(struct sockaddr_in *sin, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
    *sin = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    if (fd < 0 || inet_pton(AF_INET, argv[0], &sin->sin_addr) != 1)
        die("address");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)); /* as much as the machine allows */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    return fd;
}

/* BATCH of them. Returns how many the kernel took. */
static int send_batch(int fd, struct mmsghdr *m, size_t size, int cut)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control = {0};
    struct iovec iov = {.iov_base = out_buf, .iov_len = size * BATCH};
    struct msghdr h = m[0].msg_hdr;
    uint16_t each = (uint16_t)size;

    if (!cut)
        return sendmmsg(fd, m, BATCH, 0);
    h.msg_iov = &iov;
    h.msg_control = &control;
    h.msg_controllen = sizeof(control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = 103; /* UDP_SEGMENT */
    c->cmsg_len = CMSG_LEN(sizeof(each));
    memcpy(CMSG_DATA(c), &each, sizeof(each));
    return sendmsg(fd, &h, 0) < 0 ? -1 : BATCH;
}

/* DATA for so long at that rate. Returns how many the kernel took. */
static uint64_t flood(int fd, const struct sockaddr_in *to, uint32_t run, size_t size, uint64_t ms, uint64_t rate,
                      int cut)
{
    struct mmsghdr m[BATCH];
    struct iovec iov = {.iov_base = out_buf, .iov_len = size};
    struct head h = {.kind = DATA, .run = run};
    uint64_t begin = now_ns(), sent = 0;

    for (size_t i = 0; i < (cut ? BATCH : 1); i++)
        memcpy(out_buf + i * size, &h, sizeof(h));
    for (int i = 0; i < BATCH; i++) {
        m[i].msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
        if (to) {
            m[i].msg_hdr.msg_name = (void *)(uintptr_t)to;
            m[i].msg_hdr.msg_namelen = sizeof(*to);
        }
    }
    for (uint64_t now = begin, due = begin; now - begin < ms * 1000000; now = now_ns()) {
        if (rate && now < due) {
            struct timespec ts = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
            (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
            continue;
        }
        int n = send_batch(fd, m, size, cut);
        if (n < 0 && errno != ECONNREFUSED && errno != ENOBUFS && errno != EAGAIN)
            die("send");
        sent += n > 0 ? (uint64_t)n : 0;
        if (rate) {
            due += (uint64_t)BATCH * 1000000000 / rate;
            if (due + 2000000 < now) /* late by more than 2 ms: what was not sent then is not sent now */
                due = now;
        }
    }
    return sent;
}

static int take(int fd, struct mmsghdr *m, struct sockaddr_in *from, int flags)
{
    static struct iovec iov[BATCH];
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){.iov_base = in_buf[i], .iov_len = sizeof(in_buf[i])};
        m[i].msg_hdr =
            (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1, .msg_name = &from[i], .msg_namelen = sizeof(from[i])};
    }
    return recvmmsg(fd, m, BATCH, flags, NULL);
}

static _Noreturn void serve(char **argv)
{
    static struct {
        uint32_t run;
        uint64_t count, first, last;
    } runs[RUNS];
    struct sockaddr_in sin, from[BATCH];
    struct mmsghdr m[BATCH];
    int fd = open_socket(&sin, argv);

    if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
        die("bind");
    puts("listening");
    fflush(stdout);
    for (;;) {
        int n = take(fd, m, from, MSG_WAITFORONE);
        uint64_t now = now_ns();
        for (int i = 0; i < n; i++) {
            struct head h;
            if (m[i].msg_len < sizeof(h))
                continue;
            memcpy(&h, in_buf[i], sizeof(h));
            uint32_t r = h.run % RUNS;
            if (runs[r].run != h.run) { /* another one that had this place */
                memset(&runs[r], 0, sizeof(runs[r]));
                runs[r].run = h.run;
            }
            if (h.kind == DATA) {
                if (runs[r].count++ == 0)
                    runs[r].first = now;
                runs[r].last = now;
            } else if (h.kind == ASK) {
                struct head t = {.kind = TOLD, .run = h.run, .a = runs[r].count, .b = runs[r].last - runs[r].first};
                (void)sendto(fd, &t, sizeof(t), 0, (struct sockaddr *)&from[i], sizeof(from[i]));
            } else if (h.kind == FLOOD) {
                struct head t = {.kind = DONE, .run = h.run};
                t.a = flood(fd, &from[i], h.run, h.a & 0xffff, h.a >> 17, h.b, h.a >> 16 & 1);
                for (int k = 0; k < 20; k++) { /* some of them come through */
                    struct timespec ts = {.tv_nsec = 20000000};
                    (void)sendto(fd, &t, sizeof(t), 0, (struct sockaddr *)&from[i], sizeof(from[i]));
                    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
                }
            }
        }
    }
}

static int up(int fd, uint32_t run, size_t size, uint64_t ms, uint64_t rate, int cut)
{
    uint64_t sent = flood(fd, NULL, run, size, ms, rate, cut);
    struct head ask = {.kind = ASK, .run = run}, told = {0};

    for (int i = 0; i < ASKS; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct timespec ts = {.tv_nsec = ASK_MS * 1000000L};
        if (i == 0) /* what is on its way arrives first */
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
        (void)send(fd, &ask, sizeof(ask), 0);
        if (poll(&p, 1, ASK_MS) > 0 && recv(fd, &told, sizeof(told), 0) == sizeof(told) && told.kind == TOLD &&
            told.run == run) {
            printf("%llu %llu %.6f\n", (unsigned long long)sent, (unsigned long long)told.a, (double)told.b / 1e9);
            return 0;
        }
    }
    fputs("the server does not answer\n", stderr);
    return 1;
}

static int down(int fd, uint32_t run, size_t size, uint64_t ms, uint64_t rate, int cut)
{
    struct head ask = {.kind = FLOOD, .run = run, .a = ms << 17 | (uint64_t)cut << 16 | size, .b = rate}, h;
    struct sockaddr_in from[BATCH];
    struct mmsghdr m[BATCH];
    struct timeval patience = {.tv_sec = 5};
    uint64_t count = 0, first = 0, last = 0;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (send(fd, &ask, sizeof(ask), 0) != sizeof(ask))
        die("send");
    for (;;) {
        int n = take(fd, m, from, MSG_WAITFORONE);
        uint64_t now = now_ns();
        if (n < 0)
            die("nothing came");
        for (int i = 0; i < n; i++) {
            if (m[i].msg_len < sizeof(h))
                continue;
            memcpy(&h, in_buf[i], sizeof(h));
            if (h.run != run)
                continue;
            if (h.kind == DONE) {
                printf("%llu %llu %.6f\n", (unsigned long long)h.a, (unsigned long long)count,
                       (double)(last - first) / 1e9);
                return 0;
            }
            if (h.kind == DATA) {
                if (count++ == 0)
                    first = now;
                last = now;
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in sin;

    (void)prctl(PR_SET_TIMERSLACK, 1);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        serve(argv + 2);
    if (argc != 8 || (strcmp(argv[1], "up") != 0 && strcmp(argv[1], "down") != 0)) {
        fputs("usage: udp serve ADDR PORT | udp up|down ADDR PORT SIZE MILLISECONDS RATE plain|cut\n", stderr);
        return 2;
    }
    size_t size = (size_t)atoi(argv[4]);
    int fd = open_socket(&sin, argv + 2);
    int cut = strcmp(argv[7], "cut") == 0;
    if (size < sizeof(struct head) || size > (cut ? SIZE_MAX_UDP / BATCH : SIZE_MAX_UDP) ||
        connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
        die("size or address");
    uint32_t run = (uint32_t)now_ns() ^ (uint32_t)getpid();
    return (argv[1][0] == 'u' ? up : down)(fd, run, size, (uint64_t)atoi(argv[5]), (uint64_t)atoi(argv[6]), cut);
}
