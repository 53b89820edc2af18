/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seccomp allow-lists of the front and the core, as rules; see rules.h. What is not here kills the process
 * (SIGSYS), in every thread and every ABI.
 *
 * Each call stands beside the caller that needs it; a call without a caller is taken out. Two rules shape the front's
 * list:
 *
 *   - It holds connected sockets of the host's network namespace, so nothing that could point one elsewhere is there:
 *     no connect (AF_UNSPEC disconnects), no sendto/sendmsg/sendmmsg (an address on a connected UDP socket;
 *     MSG_FASTOPEN after a disconnect), no setsockopt, no ioctl, no io_uring (which does all of it past the filter), no
 *     bind, listen, accept, socket.
 *   - It cannot make a descriptor and cannot send one. (A front of accepted sockets takes them from listeners:
 *     rules_accepts. The kernel path's has pipes that it made before: rules_splices.)
 *
 * The fetch helper holds a connected socket too, and its list follows the same two rules, but for what libcurl and
 * OpenSSL call on that socket. What it calls beyond the list fails with EPERM.
 *
 * Memory: mmap only anonymous and never executable, mprotect never executable; a front that serves vhost-user maps a
 * VMM's files besides (rules_guest_memory). Calls without a condition on an argument cost next to nothing (the kernel
 * caches "always allowed" per call number), so conditions are put only where they mean something.
 */
#include "sandbox/rules.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/** The lower half of an int argument: the kernel drops the upper one, so a filter must not look at it. */
#define INT_MASK UINT64_C(0xffffffff)

struct call {
    int nr;
    const char *name;
};
#define CALL(name)                                                                                                     \
    {                                                                                                                  \
        SCMP_SYS(name), #name                                                                                          \
    }

static const struct call both_calls[] = {
    /* the loop */
    CALL(epoll_wait),
    CALL(epoll_pwait),
    CALL(epoll_ctl),
    CALL(clock_gettime), /* where the vDSO cannot serve it */
    CALL(gettimeofday),
    CALL(restart_syscall),
    /* flows, tap, channel, stderr */
    CALL(read),
    CALL(readv),
    CALL(recvmsg),
    CALL(write),
    CALL(writev),
    CALL(shutdown),
    CALL(close),
    /* malloc */
    CALL(brk),
    CALL(munmap),
    CALL(mremap), /* keeps a mapping's protection */
    CALL(madvise),
    CALL(futex),
    CALL(sched_yield),
    /* ids, hash seeds, ISNs */
    CALL(getrandom),
    /* qsort of the C library asks for the size of the memory */
    CALL(sysinfo),
    /* the end: exit, a handler's return, abort() */
    CALL(exit),
    CALL(exit_group),
    CALL(rt_sigreturn),
    CALL(rt_sigprocmask),
    CALL(getpid),
    CALL(gettid),
};

static const struct call core_calls[] = {
    /* dialling and relays; the resolver over c-ares (TCP and UDP) */
    CALL(connect),
    CALL(getsockopt), /* SO_ERROR, TCP_INFO, type and domain of a socket that a front sent */
    CALL(getsockname),
    CALL(getpeername),
    CALL(sendto),
    CALL(sendmsg), /* also descriptors to the front (ATTACH) */
    CALL(sendmmsg),
    CALL(recvfrom),
    CALL(recvmmsg),
    /* a relay's own duplicate of an upstream socket */
    CALL(dup),
    /* audit file; configuration and resolv.conf that the supervisor hands over as descriptors */
    CALL(fstat),
    CALL(lseek),
    CALL(pread64),
    CALL(pwrite64),
    CALL(ftruncate),
    CALL(fallocate),
    CALL(fsync),
    CALL(fdatasync),
    /* secrets: pages that stay out of swap */
    CALL(mlock),
    CALL(munlock),
};

static const struct call fetch_calls[] = {
    /* libcurl's transfer over the socket that it was given; its wake-up pair was made before */
    CALL(poll),
    CALL(ppoll),
    CALL(getsockopt),
    CALL(getsockname),
    CALL(getpeername),
    CALL(recvfrom),
    /* the roots' memfd */
    CALL(fstat),
    CALL(lseek),
    CALL(pread64),
    /* secrets: pages that stay out of swap */
    CALL(mlock),
    CALL(munlock),
};

#if SM_SANDBOX_SANITIZED
/* What AddressSanitizer's run time needs after its start: stack of handlers, thread registry, printing a report. */
static const struct call sanitizer_calls[] = {
    CALL(sigaltstack), CALL(rt_sigaction), CALL(sched_getaffinity), CALL(prctl), CALL(getrlimit),
    CALL(prlimit64),   CALL(fstat),
};
/* The report's symbolizer tries files; the root is empty, and it goes on without them. */
static const struct call sanitizer_refused[] = {
    CALL(open),       CALL(openat), CALL(readlink), CALL(readlinkat), CALL(stat),
    CALL(newfstatat), CALL(access), CALL(pipe),     CALL(pipe2),      CALL(ioctl),
};
#endif

struct sockopt {
    int level;
    int name;
};

/* Only what a dialled socket is tuned with. Not here: filters (SO_ATTACH_*), TCP_ULP, TCP_REPAIR, multicast, SO_MARK,
 * SO_BINDTODEVICE. */
static const struct sockopt core_sockopts[] = {
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_LINGER},
    {SOL_SOCKET, SO_SNDBUF},
    {SOL_SOCKET, SO_RCVBUF},
    {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, 72 /* SO_BUF_LOCK */}, /* core/limits.c: a buffer that begins small and may grow */
    {SOL_SOCKET, SO_PASSCRED},
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_QUICKACK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_UDP, 103 /* UDP_SEGMENT */},
    {IPPROTO_UDP, 104 /* UDP_GRO */},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
    {IPPROTO_IPV6, IPV6_V6ONLY},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_TCLASS},
};

/* Not an address: what is said goes where the socket is connected to, and nowhere else. */
static const struct sockopt fetch_sockopts[] = {{IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_KEEPALIVE}};

/* One rule; the first failure sticks in *rc. */
static void rule(scmp_filter_ctx ctx, int *rc, uint32_t action, int nr, unsigned n, const struct scmp_arg_cmp *cmp)
{
    if (*rc == 0)
        *rc = seccomp_rule_add_array(ctx, action, nr, n, cmp);
}

static void rules(scmp_filter_ctx ctx, int *rc, uint32_t action, const struct call *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rule(ctx, rc, action, calls[i].nr, 0, NULL);
}

static void rules_memory(scmp_filter_ctx ctx, int *rc)
{
    const struct scmp_arg_cmp map[] = {
        SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
        SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS),
    };
    const struct scmp_arg_cmp protect[] = {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)};

    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(mmap), SM_ARRAY_LEN(map), map);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), SM_ARRAY_LEN(protect), protect);
}

/* vmm-glue/vhost/mem.c. Of the descriptors that a front can have, files come from the VMM alone; a socket has no such
 * mapping. The kernel picks the place: nothing is mapped over something else. */
static void rules_guest_memory(scmp_filter_ctx ctx, int *rc)
{
    const struct scmp_arg_cmp map[] = {
        SCMP_A2(SCMP_CMP_MASKED_EQ, ~(scmp_datum_t)(PROT_READ | PROT_WRITE), 0),
        SCMP_A3(SCMP_CMP_EQ, MAP_SHARED),
    };
    const struct scmp_arg_cmp seals[] = {SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK, F_GET_SEALS)};
    const struct scmp_arg_cmp empty[] = {SCMP_A3(SCMP_CMP_MASKED_EQ, INT_MASK, AT_EMPTY_PATH)};

    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(mmap), SM_ARRAY_LEN(map), map);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), SM_ARRAY_LEN(seals), seals);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(fstat), 0, NULL);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), SM_ARRAY_LEN(empty), empty); /* fstat() of glibc 2.33-2.38 */
}

static void rules_sockopts(scmp_filter_ctx ctx, int *rc, const struct sockopt *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct scmp_arg_cmp cmp[] = {
            SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)options[i].level),
            SCMP_A2(SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)options[i].name),
        };
        rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(setsockopt), SM_ARRAY_LEN(cmp), cmp);
    }
}

/* nat/sock.c. What comes out of a listener is a connection to us; SO_LINGER decides how a socket ends, and no more. */
static void rules_accepts(scmp_filter_ctx ctx, int *rc)
{
    static const struct sockopt options[] = {{SOL_SOCKET, SO_LINGER}};
    const struct scmp_arg_cmp take[] = {SCMP_A3(SCMP_CMP_MASKED_EQ, INT_MASK, SOCK_NONBLOCK | SOCK_CLOEXEC)};

    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(accept4), SM_ARRAY_LEN(take), take);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(getsockname), 0, NULL);
    rules_sockopts(ctx, rc, options, SM_ARRAY_LEN(options));
}

/* nat/pipes.c. Bytes go between two descriptors that are there already, as by read and write: no offset, so nothing
 * that they would not reach, no address, and no flag but the two that are used. What one of them is cannot be seen
 * here: one end has to be a pipe, and none can be made. Not vmsplice and tee. */
static void rules_splices(scmp_filter_ctx ctx, int *rc)
{
    const struct scmp_arg_cmp move[] = {
        SCMP_A1(SCMP_CMP_EQ, 0),
        SCMP_A3(SCMP_CMP_EQ, 0),
        SCMP_A5(SCMP_CMP_MASKED_EQ, INT_MASK, SPLICE_F_NONBLOCK | SPLICE_F_MOVE),
    };

    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(splice), SM_ARRAY_LEN(move), move);
}

static void rules_fcntl(scmp_filter_ctx ctx, int *rc, bool duplicates)
{
    /* Not F_SETOWN and F_SETSIG (signals to others), not F_DUPFD in the front, no leases, seals or pipe sizes. */
    static const int commands[] = {F_GETFL, F_SETFL, F_GETFD, F_SETFD};

    for (size_t i = 0; i < SM_ARRAY_LEN(commands); i++) {
        const struct scmp_arg_cmp cmp[] = {SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)commands[i])};
        rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, cmp);
    }
    if (duplicates) {
        const struct scmp_arg_cmp cmp[] = {SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK, F_DUPFD_CLOEXEC)};
        rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, cmp);
    }
}

static void rules_abort(scmp_filter_ctx ctx, int *rc, uint32_t pid)
{
    /* abort() and failed assertions: a signal to ourselves only. */
    const struct scmp_arg_cmp cmp[] = {SCMP_A0(SCMP_CMP_MASKED_EQ, INT_MASK, pid)};
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, cmp);
}

static void rules_core_sockets(scmp_filter_ctx ctx, int *rc)
{
    static const int families[] = {AF_INET, AF_INET6};
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    for (size_t f = 0; f < SM_ARRAY_LEN(families); f++)
        for (size_t t = 0; t < SM_ARRAY_LEN(types); t++) {
            const struct scmp_arg_cmp cmp[] = {
                SCMP_A0(SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)families[f]),
                SCMP_A1(SCMP_CMP_MASKED_EQ, INT_MASK & ~(scmp_datum_t)(SOCK_CLOEXEC | SOCK_NONBLOCK),
                        (scmp_datum_t)types[t]),
            };
            rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(socket), SM_ARRAY_LEN(cmp), cmp);
        }
    const struct scmp_arg_cmp pair[] = {SCMP_A0(SCMP_CMP_MASKED_EQ, INT_MASK, AF_UNIX)};
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
         pair); /* mediated flows and all UDP: one end goes to the front */
    rules_sockopts(ctx, rc, core_sockopts, SM_ARRAY_LEN(core_sockopts));
    /* fstat() of glibc 2.33-2.38 is newfstatat(fd, "", AT_EMPTY_PATH); a path in its place finds an empty root. */
    const struct scmp_arg_cmp empty[] = {SCMP_A3(SCMP_CMP_MASKED_EQ, INT_MASK, AT_EMPTY_PATH)};
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, empty);
}

static void rules_fetch(scmp_filter_ctx ctx, int *rc)
{
    /* send(2) is sendto(2) without an address and without MSG_FASTOPEN. */
    const struct scmp_arg_cmp send[] = {
        SCMP_A3(SCMP_CMP_MASKED_EQ, INT_MASK & ~(scmp_datum_t)(MSG_NOSIGNAL | MSG_DONTWAIT), 0),
        SCMP_A4(SCMP_CMP_EQ, 0),
    };
    const struct scmp_arg_cmp empty[] = {SCMP_A3(SCMP_CMP_MASKED_EQ, INT_MASK, AT_EMPTY_PATH)};

    rules(ctx, rc, SCMP_ACT_ALLOW, fetch_calls, SM_ARRAY_LEN(fetch_calls));
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(sendto), SM_ARRAY_LEN(send), send);
    rule(ctx, rc, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, empty); /* fstat() of glibc 2.33-2.38 */
    rules_sockopts(ctx, rc, fetch_sockopts, SM_ARRAY_LEN(fetch_sockopts));
    /* libcurl 7.88 connects although it was told that the socket is connected. It is told so again; EINPROGRESS would
     * cost it 200 ms. */
    rule(ctx, rc, SCMP_ACT_ERRNO(0), SCMP_SYS(connect), 0, NULL);
}

int sm_sandbox_rules(enum sm_filter filter, uint32_t pid, scmp_filter_ctx *ret)
{
    bool front = filter <= SM_FILTER_FRONT_MEMORY_SPLICES;
    bool splices = filter == SM_FILTER_FRONT_SPLICES || filter == SM_FILTER_FRONT_MEMORY_SPLICES;
    bool guest_memory = filter == SM_FILTER_FRONT_MEMORY || filter == SM_FILTER_FRONT_MEMORY_SPLICES;
    bool accepts = filter == SM_FILTER_FRONT_ACCEPTS || splices;
    scmp_filter_ctx ctx = seccomp_init(filter == SM_FILTER_FETCH ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_KILL_PROCESS);
    int rc = ctx ? 0 : -ENOMEM;

    /* A call through another ABI (int 0x80, x32) has other numbers: it dies as well. */
    if (rc == 0)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (rc == 0)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree, not a chain of comparisons */

    rules(ctx, &rc, SCMP_ACT_ALLOW, both_calls, SM_ARRAY_LEN(both_calls));
    rules_memory(ctx, &rc);
    rules_fcntl(ctx, &rc, filter == SM_FILTER_CORE);
    rules_abort(ctx, &rc, pid);
    if (guest_memory)
        rules_guest_memory(ctx, &rc);
    if (accepts)
        rules_accepts(ctx, &rc);
    if (splices)
        rules_splices(ctx, &rc);
    if (filter == SM_FILTER_CORE) {
        rules(ctx, &rc, SCMP_ACT_ALLOW, core_calls, SM_ARRAY_LEN(core_calls));
        rules_core_sockets(ctx, &rc);
    }
    if (filter == SM_FILTER_FETCH)
        rules_fetch(ctx, &rc);
#if SM_SANDBOX_SANITIZED
    rules(ctx, &rc, SCMP_ACT_ALLOW, sanitizer_calls, SM_ARRAY_LEN(sanitizer_calls));
    for (size_t i = 0; i < SM_ARRAY_LEN(sanitizer_refused); i++)
        if (sanitizer_refused[i].nr != SCMP_SYS(newfstatat) || (front && !guest_memory))
            rule(ctx, &rc, SCMP_ACT_ERRNO(EACCES), sanitizer_refused[i].nr, 0, NULL);
#endif
    (void)front;
    *ret = ctx;
    return rc;
}
