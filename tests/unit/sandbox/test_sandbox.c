/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each act that a role may not do is done, in a child that entered the sandbox for real, and must kill it (SIGSYS).
 * Beside that: what must still work, and what /proc shows from outside. Root, nobody and a nested user namespace are
 * all tried, as far as the caller's rights go.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "base/fd.h"
#include "sandbox/internal.h"

enum how { AS_IS, AS_NOBODY, NESTED, HOWS };
static const char *const how_names[] = {"as is", "as nobody", "in a nested user namespace"};
SM_NAME_TABLE_COVERS(how_names, HOWS);

/* What a child was given before it entered. */
struct given {
    int link;     /* to the test */
    int udp;      /* connected to `peer` */
    int tcp;      /* unconnected */
    int file;     /* regular file, read-write, append */
    int listener; /* TCP, listening on loopback */
    int pipe[2];
    struct sockaddr_in other, listening;
};

typedef long (*act_fn)(struct given *g);

static struct sockaddr_in bind_loopback(int fd)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    return sin;
}

static void become(enum how how)
{
    GError *error = NULL;
    if (how == AS_NOBODY) {
        if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
            _exit(90);
    } else if (how == NESTED) {
        if (sm_sandbox_user_ns(0, 0, &error) != 1)
            _exit(91);
    }
}

static void need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("skipped: only root can become somebody else, or change its root\n");
    skip();
}

static void check_how(enum how how)
{
    if (how == AS_NOBODY)
        need_root();
}

struct child {
    pid_t pid;
    int link;
    int udp_peer; /* where the given socket's datagrams arrive */
    int listener;
};

/* A front that serves vhost-user, beside the roles. */
#define MEMORY_FRONT SM_ROLES
/* A front of accepted sockets. */
#define ACCEPT_FRONT (SM_ROLES + 1)
/* The kernel path's, which splices. */
#define SPLICE_FRONT (SM_ROLES + 2)
/* ... and has a vsock device besides, over memory that a VMM shares. */
#define SPLICE_MEMORY_FRONT (SM_ROLES + 3)
#define KINDS (SPLICE_MEMORY_FRONT + 1)

static bool has_memory(unsigned kind)
{
    return kind == MEMORY_FRONT || kind == SPLICE_MEMORY_FRONT;
}

static bool splices(unsigned kind)
{
    return kind == SPLICE_FRONT || kind == SPLICE_MEMORY_FRONT;
}

static bool accepts(unsigned kind)
{
    return kind == ACCEPT_FRONT || splices(kind);
}

/* If set, a client of the next child's listener is there before the child is. */
static int *client_of_next;

/* Start a child that enters as role and then does fn; its exit status is 0 when fn returned >= 0, else 1. */
static struct child start(enum how how, unsigned kind, act_fn fn)
{
    enum sm_role role = kind >= MEMORY_FRONT ? SM_ROLE_FRONT : (enum sm_role)kind;
    struct child c;
    struct given g;
    int pair[2];
    char path[] = "/tmp/slirp-med-test-XXXXXX";

    assert_int_equal(sm_fd_seqpair(pair, false), 0);
    c.udp_peer = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in peer = bind_loopback(c.udp_peer);
    int other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g.other = bind_loopback(other);
    g.udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(g.udp, (struct sockaddr *)&peer, sizeof(peer)), 0);
    g.tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g.listener = c.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g.listening = bind_loopback(c.listener);
    assert_int_equal(listen(c.listener, 4), 0);
    if (client_of_next) {
        *client_of_next = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(*client_of_next, (struct sockaddr *)&g.listening, sizeof(g.listening)), 0);
    }
    g.file = mkostemp(path, O_APPEND | O_CLOEXEC);
    assert_true(g.file >= 0);
    (void)unlink(path);
    assert_int_equal(pipe2(g.pipe, O_CLOEXEC | O_NONBLOCK), 0);
    c.link = pair[0];
    g.link = pair[1];

    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        GError *error = NULL;
        const int keep[] = {g.link, g.udp, g.tcp, g.file, g.listener, g.pipe[0], g.pipe[1]};
        const struct sm_sandbox_spec spec = {.keep_fds = keep,
                                             .n_keep_fds = SM_ARRAY_LEN(keep),
                                             .guest_memory = has_memory(kind),
                                             .accepts = accepts(kind),
                                             .splices = splices(kind),
                                             .parent_fd = g.link};
        (void)close(pair[0]);
        become(how);
        if (role == SM_ROLE_CORE &&
            OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL) != 1)
            _exit(92);
        if (sm_sandbox_early(role, &spec, &error) < 0 || sm_sandbox_enter(role, &spec, &error) < 0) {
            fprintf(stderr, "%s\n", error->message);
            _exit(93);
        }
        _exit(fn(&g) >= 0 ? 0 : 1);
    }
    sm_fd_close(&pair[1]);
    sm_fd_close(&g.udp);
    sm_fd_close(&g.tcp);
    sm_fd_close(&g.file);
    sm_fd_close(&g.pipe[0]);
    sm_fd_close(&g.pipe[1]);
    sm_fd_close(&other);
    return c;
}

static int finish(struct child *c)
{
    int status;
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    sm_fd_close(&c->link);
    sm_fd_close(&c->udp_peer);
    sm_fd_close(&c->listener);
    return status;
}

/* ---- acts ---- */

static long act_getppid(struct given *g)
{
    return syscall(SYS_getppid);
}
static long act_open(struct given *g)
{
    return syscall(SYS_open, "/etc/passwd", O_RDONLY);
}
static long act_openat(struct given *g)
{
    return openat(AT_FDCWD, "/", O_RDONLY);
}
static long act_openat2(struct given *g)
{
    uint64_t how[3] = {O_RDONLY};
    return syscall(SYS_openat2, AT_FDCWD, "/", how, sizeof(how));
}
static long act_socket(struct given *g)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}
static long act_socket_unix(struct given *g)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}
static long act_socket_raw(struct given *g)
{
    return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}
static long act_socket_netlink(struct given *g)
{
    return socket(AF_NETLINK, SOCK_RAW, 0);
}
static long act_socket_vsock(struct given *g)
{
    return socket(AF_VSOCK, SOCK_STREAM, 0);
}
static long act_socketpair(struct given *g)
{
    int p[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, p);
}
static long act_connect(struct given *g)
{
    return connect(g->tcp, (struct sockaddr *)&g->listening, sizeof(g->listening));
}
static long act_disconnect(struct given *g)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    return connect(g->udp, &none, sizeof(none));
}
static long act_bind(struct given *g)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    return bind(g->tcp, (struct sockaddr *)&sin, sizeof(sin));
}
static long act_listen(struct given *g)
{
    return listen(g->tcp, 1);
}
static long act_accept(struct given *g)
{
    (void)fcntl(g->listener, F_SETFL, O_NONBLOCK);
    return accept(g->listener, NULL, NULL);
}
static long act_accept4(struct given *g)
{
    (void)fcntl(g->listener, F_SETFL, O_NONBLOCK);
    return accept4(g->listener, NULL, NULL, 0);
}
static long act_accept4_flags(struct given *g)
{
    (void)fcntl(g->listener, F_SETFL, O_NONBLOCK);
    return accept4(g->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}
static long act_getsockname(struct given *g)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    return getsockname(g->udp, (struct sockaddr *)&sin, &len);
}
static long act_getpeername(struct given *g)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    return getpeername(g->udp, (struct sockaddr *)&sin, &len);
}
static long act_linger(struct given *g)
{
    struct linger now = {.l_onoff = 1};
    return setsockopt(g->tcp, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}
static long act_reuse(struct given *g)
{
    int on = 1;
    return setsockopt(g->tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}
static long act_sendto(struct given *g)
{
    return sendto(g->udp, "x", 1, 0, (struct sockaddr *)&g->other, sizeof(g->other));
}
static long act_sendmsg(struct given *g)
{
    char text[] = "x";
    struct iovec iov = {text, 1};
    struct msghdr m = {.msg_name = &g->other, .msg_namelen = sizeof(g->other), .msg_iov = &iov, .msg_iovlen = 1};
    return sendmsg(g->udp, &m, 0);
}
static long act_sendmmsg(struct given *g)
{
    char text[] = "x";
    struct iovec iov = {text, 1};
    struct mmsghdr m = {
        .msg_hdr = {.msg_name = &g->other, .msg_namelen = sizeof(g->other), .msg_iov = &iov, .msg_iovlen = 1}};
    return sendmmsg(g->udp, &m, 1, 0);
}
static long act_fastopen(struct given *g)
{
    return sendto(g->tcp, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&g->listening, sizeof(g->listening));
}
static long act_send_fd(struct given *g)
{
    return sm_fd_send(g->link, "x", 1, &g->udp, 1);
}
static long act_setsockopt(struct given *g)
{
    int one = 1;
    return setsockopt(g->tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}
static long act_bindtodevice(struct given *g)
{
    return setsockopt(g->tcp, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2);
}
static long act_attach_filter(struct given *g)
{
    struct sock_filter pass = {BPF_RET | BPF_K, 0, 0, 0xffff};
    struct sock_fprog prog = {1, &pass};
    return setsockopt(g->udp, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
}
static long act_ulp(struct given *g)
{
    return setsockopt(g->tcp, IPPROTO_TCP, TCP_ULP, "tls", 3);
}
/* From a file, to which there is a way by splice, into the front's pipe. */
static long splice_with(struct given *g, off_t *from_at, off_t *to_at, unsigned flags)
{
    return splice(g->file, from_at, g->pipe[1], to_at, 1, flags);
}
static long act_splice(struct given *g)
{
    return splice_with(g, NULL, NULL, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
}
static long act_splice_from_offset(struct given *g)
{
    off_t at = 0;
    return splice_with(g, &at, NULL, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
}
static long act_splice_to_offset(struct given *g)
{
    off_t at = 0;
    return splice_with(g, NULL, &at, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
}
static long act_splice_blocking(struct given *g)
{
    return splice_with(g, NULL, NULL, SPLICE_F_MOVE);
}
static long act_splice_more(struct given *g)
{
    return splice_with(g, NULL, NULL, SPLICE_F_NONBLOCK | SPLICE_F_MOVE | SPLICE_F_MORE);
}
static long act_vmsplice(struct given *g)
{
    char text[] = "x";
    struct iovec iov = {text, 1};
    return vmsplice(g->pipe[1], &iov, 1, SPLICE_F_NONBLOCK);
}
static long act_tee(struct given *g)
{
    return tee(g->pipe[0], g->pipe[1], 1, SPLICE_F_NONBLOCK);
}
static long act_sendfile(struct given *g)
{
    return sendfile(g->udp, g->file, NULL, 1);
}
static long act_pipe2(struct given *g)
{
    int p[2];
    return pipe2(p, O_CLOEXEC);
}
static long act_pipe_size(struct given *g)
{
    return fcntl(g->pipe[1], F_SETPIPE_SZ, 1 << 16);
}
static long act_ioctl(struct given *g)
{
    int n;
    return ioctl(g->udp, FIONREAD, &n);
}
static long act_io_uring(struct given *g)
{
    char params[256] = {0};
    return syscall(SYS_io_uring_setup, 4, params);
}
static long act_pidfd_open(struct given *g)
{
    return syscall(SYS_pidfd_open, getpid(), 0);
}
static long act_pidfd_getfd(struct given *g)
{
    return syscall(SYS_pidfd_getfd, 0, 0, 0);
}
static long act_exec(struct given *g)
{
    return execl("/bin/true", "true", NULL);
}
static long act_execveat(struct given *g)
{
    return syscall(SYS_execveat, AT_FDCWD, "/bin/true", NULL, NULL, 0);
}
static long act_fork(struct given *g)
{
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    return pid;
}
static long act_clone3(struct given *g)
{
    uint64_t args[8] = {0};
    return syscall(SYS_clone3, args, sizeof(args));
}
static long act_unshare(struct given *g)
{
    return unshare(CLONE_NEWUSER);
}
static long act_setns(struct given *g)
{
    return setns(g->file, 0);
}
static long act_capset(struct given *g)
{
    return syscall(SYS_capset, NULL, NULL);
}
static long act_setuid(struct given *g)
{
    return syscall(SYS_setuid, 0);
}
static long act_prctl_seccomp(struct given *g)
{
    return syscall(SYS_seccomp, 0, 0, NULL);
}
static long act_mount(struct given *g)
{
    return mount("none", "/", "tmpfs", 0, NULL);
}
static long act_chroot(struct given *g)
{
    return chroot("/");
}
static long act_mmap_exec(struct given *g)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static long act_mmap_file(struct given *g)
{
    return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, g->file, 0) == MAP_FAILED ? -1 : 0;
}
static long act_mmap_shared(struct given *g)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g->file, 0) == MAP_FAILED ? -1 : 0;
}
static long act_mmap_shared_exec(struct given *g)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, g->file, 0) == MAP_FAILED ? -1 : 0;
}
static long act_mmap_shared_fixed(struct given *g)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mmap(p, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, g->file, 0) == MAP_FAILED ? -1 : 0;
}
static long act_mmap_validate(struct given *g)
{
    return mmap(NULL, 4096, PROT_READ, MAP_SHARED_VALIDATE, g->file, 0) == MAP_FAILED ? -1 : 0;
}
static long act_get_seals(struct given *g)
{
    return fcntl(g->file, F_GET_SEALS);
}
static long act_add_seals(struct given *g)
{
    return fcntl(g->file, F_ADD_SEALS, F_SEAL_WRITE);
}
static long act_stat_path(struct given *g)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, "/", &st, 0);
}
static long act_mprotect_exec(struct given *g)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static long act_ptrace(struct given *g)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static long act_vm_read(struct given *g)
{
    return syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0);
}
static long act_kill(struct given *g)
{
    return kill(1, 0);
}
static long act_tgkill_other(struct given *g)
{
    return syscall(SYS_tgkill, 1, 1, 0);
}
static long act_setown(struct given *g)
{
    return fcntl(g->udp, F_SETOWN, 1);
}
static long act_dupfd(struct given *g)
{
    return fcntl(g->udp, F_DUPFD, 100);
}
static long act_dup2(struct given *g)
{
    return dup2(g->udp, 100);
}
static long act_bpf(struct given *g)
{
    return syscall(SYS_bpf, 0, NULL, 0);
}
static long act_keyctl(struct given *g)
{
    return syscall(SYS_keyctl, 0, 0, 0, 0, 0);
}
static long act_userfaultfd(struct given *g)
{
    return syscall(SYS_userfaultfd, 0);
}
static long act_memfd(struct given *g)
{
    return memfd_create("x", 0);
}
static long act_fchmod(struct given *g)
{
    return fchmod(g->file, 0777);
}
#if defined(__x86_64__)
static long act_int80(struct given *g)
{
    long rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20L /* getpid of i386 */) : "memory", "r8", "r9", "r10", "r11");
    return rc;
}
static long act_x32(struct given *g)
{
    return syscall(0x40000000 | SYS_getpid);
}
#endif

#define PLAIN (1u << SM_ROLE_FRONT)
#define MEMORY (1u << MEMORY_FRONT)
#define ACCEPT (1u << ACCEPT_FRONT)
#define SPLICE (1u << SPLICE_FRONT)
#define SPLICE_MEMORY (1u << SPLICE_MEMORY_FRONT)
#define F (PLAIN | MEMORY | ACCEPT | SPLICE | SPLICE_MEMORY)
#define C (1u << SM_ROLE_CORE)

static const struct {
    const char *name;
    act_fn fn;
    unsigned roles;
    bool refused_when_sanitized; /* AddressSanitizer's own files: EACCES there */
} acts[] = {
    {"a call outside the list", act_getppid, F | C, false},
    {"open", act_open, F | C, true},
    {"openat", act_openat, F | C, true},
    {"openat2", act_openat2, F | C, false},
    {"socket", act_socket, F, false},
    {"socket AF_UNIX", act_socket_unix, F | C, false},
    {"socket raw", act_socket_raw, F | C, false},
    {"socket netlink", act_socket_netlink, F | C, false},
    {"socket vsock", act_socket_vsock, F | C, false},
    {"socketpair", act_socketpair, F, false},
    {"connect", act_connect, F, false},
    {"disconnect", act_disconnect, F, false},
    {"bind", act_bind, F | C, false},
    {"listen", act_listen, F | C, false},
    {"accept", act_accept, F | C, false},
    {"accept4", act_accept4, F | C, false}, /* the flags are missing */
    {"accept4 of a non-blocking socket", act_accept4_flags, PLAIN | MEMORY | C, false},
    {"getsockname", act_getsockname, PLAIN | MEMORY, false},
    {"getpeername", act_getpeername, F, false},
    {"SO_LINGER", act_linger, PLAIN | MEMORY, false},
    {"SO_REUSEADDR", act_reuse, F | C, false},
    {"sendto another address on a connected UDP socket", act_sendto, F, false},
    {"sendmsg to another address", act_sendmsg, F, false},
    {"sendmmsg to another address", act_sendmmsg, F, false},
    {"MSG_FASTOPEN", act_fastopen, F, false},
    {"send a descriptor", act_send_fd, F, false},
    {"setsockopt", act_setsockopt, F, false},
    {"SO_BINDTODEVICE", act_bindtodevice, F | C, false},
    {"SO_ATTACH_FILTER", act_attach_filter, F | C, false},
    {"TCP_ULP", act_ulp, F | C, false},
    {"splice", act_splice, PLAIN | MEMORY | ACCEPT | C, false},
    {"splice with an offset of the source", act_splice_from_offset, F | C, false},
    {"splice with an offset of the sink", act_splice_to_offset, F | C, false},
    {"splice that may block", act_splice_blocking, F | C, false},
    {"splice with a further flag", act_splice_more, F | C, false},
    {"vmsplice", act_vmsplice, F | C, false},
    {"tee", act_tee, F | C, false},
    {"sendfile", act_sendfile, F | C, false},
    {"pipe2", act_pipe2, F | C, true},
    {"F_SETPIPE_SZ", act_pipe_size, F | C, false},
    {"ioctl", act_ioctl, F | C, true},
    {"io_uring_setup", act_io_uring, F | C, false},
    {"pidfd_open", act_pidfd_open, F | C, false},
    {"pidfd_getfd", act_pidfd_getfd, F | C, false},
    {"execve", act_exec, F | C, false},
    {"execveat", act_execveat, F | C, false},
    {"fork", act_fork, F | C, false},
    {"clone3", act_clone3, F | C, false},
    {"unshare", act_unshare, F | C, false},
    {"setns", act_setns, F | C, false},
    {"capset", act_capset, F | C, false},
    {"setuid", act_setuid, F | C, false},
    {"seccomp", act_prctl_seccomp, F | C, false},
    {"mount", act_mount, F | C, false},
    {"chroot", act_chroot, F | C, false},
    {"mmap PROT_EXEC", act_mmap_exec, F | C, false},
    {"mmap of a file", act_mmap_file, F | C, false},
    {"mmap of a file, shared", act_mmap_shared, PLAIN | ACCEPT | SPLICE | C, false},
    {"mmap of a file, shared, PROT_EXEC", act_mmap_shared_exec, F | C, false},
    {"mmap of a file over something", act_mmap_shared_fixed, F | C, false},
    {"mmap MAP_SHARED_VALIDATE", act_mmap_validate, F | C, false},
    {"F_GET_SEALS", act_get_seals, PLAIN | ACCEPT | SPLICE | C, false},
    {"F_ADD_SEALS", act_add_seals, F | C, false},
    {"stat of a path", act_stat_path, F | C, true},
    {"mprotect PROT_EXEC", act_mprotect_exec, F | C, false},
    {"ptrace", act_ptrace, F | C, false},
    {"process_vm_readv", act_vm_read, F | C, false},
    {"kill", act_kill, F | C, false},
    {"tgkill of another", act_tgkill_other, F | C, false},
    {"F_SETOWN", act_setown, F | C, false},
    {"F_DUPFD", act_dupfd, F | C, false},
    {"dup2", act_dup2, F | C, false},
    {"bpf", act_bpf, F | C, false},
    {"keyctl", act_keyctl, F | C, false},
    {"userfaultfd", act_userfaultfd, F | C, false},
    {"memfd_create", act_memfd, F | C, false},
    {"fchmod", act_fchmod, F | C, false},
#if defined(__x86_64__)
    {"int 0x80", act_int80, F | C, false},
    {"x32", act_x32, F | C, false},
#endif
};

static const char *kind_name(unsigned kind)
{
    if (kind == MEMORY_FRONT)
        return "front with guest memory";
    if (kind == SPLICE_FRONT)
        return "front of the kernel path";
    if (kind == SPLICE_MEMORY_FRONT)
        return "front of the kernel path with guest memory";
    return kind == ACCEPT_FRONT ? "front of accepted sockets" : sm_role_name((enum sm_role)kind);
}

static void forbidden(enum how how)
{
    unsigned wrong = 0;

    check_how(how);
    for (size_t i = 0; i < SM_ARRAY_LEN(acts); i++)
        for (unsigned role = 0; role < KINDS; role++) {
            if (!(acts[i].roles & (1u << role)))
                continue;
            struct child c = start(how, role, acts[i].fn);
            int status = finish(&c);
            bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
            bool refused =
                SM_SANDBOX_SANITIZED && acts[i].refused_when_sanitized && WIFEXITED(status) && WEXITSTATUS(status) == 1;
            if (!killed && !refused) {
                print_error("%s in the %s, %s: wait status %#x\n", acts[i].name, kind_name(role), how_names[how],
                            status);
                wrong++;
            }
        }
    assert_int_equal(wrong, 0);
}

static void test_forbidden(void **state)
{
    forbidden(AS_IS);
}
static void test_forbidden_nobody(void **state)
{
    forbidden(AS_NOBODY);
}
static void test_forbidden_nested(void **state)
{
    forbidden(NESTED);
}

/* ---- what must work ---- */

static long both_work(struct given *g)
{
    char buf[16];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;

    for (size_t size = 16; size < 8u << 20; size *= 3) { /* brk, mmap, mremap, munmap */
        char *p = malloc(size);
        memset(p, 1, size);
        p = realloc(p, size * 2);
        if (!p)
            return -1;
        free(p);
    }
    char text[] = "frame";
    struct iovec iov = {text, 5};
    if (write(g->udp, "frame", 5) != 5 || writev(g->udp, &iov, 1) != 5)
        return -2;
    if (sm_fd_recv(g->link, buf, sizeof(buf), fds, &n_fds) != 4 || n_fds != 1 || memcmp(buf, "take", 4) != 0)
        return -3;
    if (write(fds[0], "via fd", 6) != 6 || shutdown(fds[0], SHUT_WR) < 0 || close(fds[0]) < 0)
        return -4;
    if (sm_fd_set_nonblock(g->link) < 0 || sm_fd_set_cloexec(g->link, true) < 0)
        return -5;
    if (recvmsg(g->link, &(struct msghdr){.msg_iov = &(struct iovec){buf, sizeof(buf)}, .msg_iovlen = 1}, 0) != -1 ||
        errno != EAGAIN)
        return -6;
    if (read(g->link, buf, sizeof(buf)) != -1 || errno != EAGAIN)
        return -7;
    int big[4096];
    for (int i = 0; i < 4096; i++)
        big[i] = 4096 - i;
    GArray *a = g_array_new(FALSE, FALSE, sizeof(int));
    g_array_append_vals(a, big, 4096);
    g_array_free(a, TRUE);
    return 0;
}

static long core_works(struct given *g)
{
    char buf[16] = {0};
    int pair[2], one = 1;
    struct stat st;
    struct tcp_info info;
    socklen_t len = sizeof(info);
    uint8_t key[32], sig[128];
    size_t sig_len = sizeof(sig);

    long rc = both_work(g);
    if (rc < 0)
        return rc;
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (tcp < 0 || setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        return -20;
    if (connect(tcp, (struct sockaddr *)&g->listening, sizeof(g->listening)) < 0)
        return -21;
    if (getsockopt(tcp, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || fcntl(tcp, F_DUPFD_CLOEXEC, 0) < 0)
        return -22;
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (udp < 0 || sendto(udp, "frame", 5, 0, (struct sockaddr *)&g->other, sizeof(g->other)) != 5)
        return -23;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || sm_fd_send(pair[0], "x", 1, &tcp, 1) != 1)
        return -24;
    if (fstat(g->file, &st) < 0 || fallocate(g->file, FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 ||
        write(g->file, "line\n", 5) != 5 || pread(g->file, buf, 5, 0) != 5 || memcmp(buf, "line\n", 5) != 0 ||
        fdatasync(g->file) < 0 || ftruncate(g->file, 0) < 0)
        return -25;
    /* the crypto that interception will need */
    if (RAND_bytes(key, sizeof(key)) != 1)
        return -26;
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!pkey || EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, pkey) != 1 ||
        EVP_DigestSign(md, sig, &sig_len, key, sizeof(key)) != 1)
        return -27;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    return 0;
}

static long front_works(struct given *g)
{
    return both_work(g);
}

/* A VMM's memory: its size, its seals, and both ways through the mapping. */
static long memory_works(struct given *g)
{
    char text[8] = "frame";
    struct stat st;
    char buf[16] = {0};

    if (write(g->file, "guest's", 7) != 7 || fstat(g->file, &st) < 0 || st.st_size != 7)
        return -30;
    if (fcntl(g->file, F_GET_SEALS) < 0 && errno != EINVAL) /* no memfd */
        return -31;
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g->file, 0);
    if (p == MAP_FAILED || memcmp(p, "guest's", 7) != 0)
        return -32;
    memcpy(p, text, 5);
    memcpy(buf, p, 7);
    if (madvise(p, 4096, MADV_DONTDUMP) < 0 || munmap(p, 4096) < 0 || memcmp(buf, "frame's", 7) != 0)
        return -33;
    return 0;
}

static long memory_front_works(struct given *g)
{
    long failed = memory_works(g);
    return failed ? failed : both_work(g);
}

/* A client is taken, asked where it came to, and reset. */
static long accept_front_works(struct given *g)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    struct linger now = {.l_onoff = 1};

    if (sm_fd_set_nonblock(g->listener) < 0)
        return -40;
    int fd = accept4(g->listener, (struct sockaddr *)&sin, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    len = sizeof(sin);
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&sin, &len) < 0 || sin.sin_port != g->listening.sin_port)
        return -41;
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0 || close(fd) < 0)
        return -42;
    return both_work(g);
}

/* As the one of accepted sockets; and a client's byte goes through the pipe back to it. */
static long splice_front_works(struct given *g)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    struct linger now = {.l_onoff = 1};

    int fd = accept4(g->listener, (struct sockaddr *)&sin, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -50;
    while (splice(fd, NULL, g->pipe[1], NULL, 4096, SPLICE_F_NONBLOCK | SPLICE_F_MOVE) != 1)
        if (errno != EAGAIN)
            return -51;
    if (splice(g->pipe[0], NULL, g->udp, NULL, 1, SPLICE_F_NONBLOCK | SPLICE_F_MOVE) != 1)
        return -52;
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0 || close(fd) < 0)
        return -53;
    return both_work(g);
}

static long splice_memory_front_works(struct given *g)
{
    long failed = memory_works(g);
    return failed ? failed : splice_front_works(g);
}

static void works(enum how how, unsigned role, act_fn fn)
{
    char buf[16];
    int pair[2];

    check_how(how);
    sm_autofd client = -1;
    client_of_next = accepts(role) ? &client : NULL;
    struct child c = start(how, role, fn);
    if (splices(role))
        assert_int_equal(write(client, "s", 1), 1);
    assert_int_equal(sm_fd_seqpair(pair, false), 0);
    assert_int_equal(sm_fd_send(c.link, "take", 4, &pair[1], 1), 4);
    sm_fd_close(&pair[1]);
    ssize_t got = read(pair[0], buf, sizeof(buf));
    int status;
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    if (status != 0)
        print_error("%s, %s: wait status %#x\n", kind_name(role), how_names[how], status);
    assert_int_equal(status, 0);
    assert_int_equal(got, 6);
    assert_memory_equal(buf, "via fd", 6);
    if (splices(role)) { /* through the pipe, to where that socket is connected */
        assert_int_equal(recv(c.udp_peer, buf, sizeof(buf), MSG_DONTWAIT), 1);
        assert_int_equal(buf[0], 's');
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(recv(c.udp_peer, buf, sizeof(buf), MSG_DONTWAIT), 5);
    if (client >= 0) {
        assert_int_equal(recv(client, buf, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
    }
    client_of_next = NULL;
    sm_fd_close(&c.link);
    sm_fd_close(&c.udp_peer);
    sm_fd_close(&c.listener);
    sm_fd_close(&pair[0]);
}

static void test_works(void **state)
{
    works(AS_IS, SM_ROLE_FRONT, front_works);
    works(AS_IS, MEMORY_FRONT, memory_front_works);
    works(AS_IS, ACCEPT_FRONT, accept_front_works);
    works(AS_IS, SPLICE_FRONT, splice_front_works);
    works(AS_IS, SPLICE_MEMORY_FRONT, splice_memory_front_works);
    works(AS_IS, SM_ROLE_CORE, core_works);
}
static void test_works_nobody(void **state)
{
    works(AS_NOBODY, SM_ROLE_FRONT, front_works);
    works(AS_NOBODY, MEMORY_FRONT, memory_front_works);
    works(AS_NOBODY, ACCEPT_FRONT, accept_front_works);
    works(AS_NOBODY, SPLICE_FRONT, splice_front_works);
    works(AS_NOBODY, SPLICE_MEMORY_FRONT, splice_memory_front_works);
    works(AS_NOBODY, SM_ROLE_CORE, core_works);
}
static void test_works_nested(void **state)
{
    works(NESTED, SM_ROLE_FRONT, front_works);
    works(NESTED, MEMORY_FRONT, memory_front_works);
    works(NESTED, ACCEPT_FRONT, accept_front_works);
    works(NESTED, SPLICE_FRONT, splice_front_works);
    works(NESTED, SPLICE_MEMORY_FRONT, splice_memory_front_works);
    works(NESTED, SM_ROLE_CORE, core_works);
}

/* The fetch helper's list refuses instead of killing; what it was given works, and leads nowhere else. */
static bool refused(long rc)
{
    return rc < 0 && (errno == EPERM || errno == EACCES);
}

static long fetch_refused(struct given *g)
{
    const struct sockaddr *other = (const struct sockaddr *)&g->other, none = {.sa_family = AF_UNSPEC};
    char x[] = "x", *const argv[] = {x, NULL};
    struct iovec iov = {x, 1};
    struct msghdr to = {.msg_name = &g->other, .msg_namelen = sizeof(g->other), .msg_iov = &iov, .msg_iovlen = 1};
    int pair[2], on = 1;

    if (send(g->udp, "hello", 5, MSG_NOSIGNAL) != 5)
        return -1;
    if (!refused(sendto(g->udp, "x", 1, 0, other, sizeof(g->other))) || !refused(sendmsg(g->udp, &to, 0)) ||
        !refused(send(g->udp, "x", 1, MSG_FASTOPEN)))
        return -2;
    /* It says that it did, and has done nothing: still connected to where it was. */
    if (connect(g->udp, &none, sizeof(none)) != 0 || connect(g->udp, other, sizeof(g->other)) != 0 ||
        send(g->udp, "again", 5, 0) != 5)
        return -3;
    if (!refused(socket(AF_INET, SOCK_STREAM, 0)) || !refused(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) ||
        !refused(accept(g->listener, NULL, NULL)) || !refused(listen(g->tcp, 1)) ||
        !refused(setsockopt(g->tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on))) || !refused(dup(g->udp)) ||
        !refused(fcntl(g->udp, F_DUPFD_CLOEXEC, 0)))
        return -4;
    if (!refused(open("/", O_RDONLY | O_DIRECTORY)) || !refused(execve("/proc/self/exe", argv, argv)) ||
        !refused(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL)) || !refused(kill(getppid(), 0)) ||
        !refused(syscall(SYS_io_uring_setup, 1, NULL)) || !refused(syscall(SYS_memfd_create, "x", 0)))
        return -5;
    return 0;
}

static void test_fetch_refused(void **state)
{
    for (enum how how = AS_IS; how <= NESTED; how++) {
        char buf[16];
        if (how == AS_NOBODY && geteuid() != 0)
            continue;
        struct child c = start(how, SM_ROLE_FETCH, fetch_refused);
        int status;
        assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
        if (status != 0)
            print_error("%s: wait status %#x\n", how_names[how], status);
        assert_int_equal(status, 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(recv(c.udp_peer, buf, sizeof(buf), MSG_DONTWAIT), 5);
        assert_int_equal(recv(c.udp_peer, buf, sizeof(buf), MSG_DONTWAIT), -1);
        sm_fd_close(&c.link);
        sm_fd_close(&c.udp_peer);
        sm_fd_close(&c.listener);
    }
}

static long act_abort(struct given *g)
{
    abort();
}

static void test_abort_is_sigabrt(void **state)
{
    /* A failed assertion must look like one, not like an attack. */
    for (unsigned role = SM_ROLE_FRONT; role <= SM_ROLE_CORE; role++) {
        struct child c = start(AS_IS, (enum sm_role)role, act_abort);
        int status = finish(&c);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

/* ---- what /proc shows ---- */

static long wait_for_end(struct given *g)
{
    char b;
    (void)!write(g->link, "in", 2);
    return read(g->link, &b, 1); /* 0: the test closed its end */
}

static char *proc_text(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", pid, name);
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autofree char *text = g_malloc0(65536);
    if (fd < 0)
        return NULL;
    size_t len = 0;
    for (ssize_t n; len < 65535 && (n = read(fd, text + len, 65535 - len)) > 0;)
        len += (size_t)n;
    return g_memdup2(text, len + 1);
}

static void assert_status_line(const char *status, const char *line)
{
    if (!strstr(status, line))
        print_error("missing \"%s\" in\n%s", line, status);
    assert_non_null(strstr(status, line));
}

static char *ns_of(pid_t pid, const char *ns)
{
    char buf[64] = {0};
    g_autofree char *path = g_strdup_printf("/proc/%d/ns/%s", pid, ns);
    return readlink(path, buf, sizeof(buf) - 1) < 0 ? NULL : g_strdup(buf);
}

static int count_dir(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n - 2;
}

static void proc_state(enum how how, enum sm_role role)
{
    char buf[4];

    check_how(how);
    struct child c = start(how, role, wait_for_end);
    assert_int_equal(read(c.link, buf, sizeof(buf)), 2);
    g_autofree char *status = proc_text(c.pid, "status");
    assert_non_null(status);
    assert_status_line(status, "\nNoNewPrivs:\t1\n");
    assert_status_line(status, "\nSeccomp:\t2\n");
    assert_status_line(status, "\nCapInh:\t0000000000000000\n");
    assert_status_line(status, "\nCapPrm:\t0000000000000000\n");
    assert_status_line(status, "\nCapEff:\t0000000000000000\n");
    assert_status_line(status, "\nCapBnd:\t0000000000000000\n");
    assert_status_line(status, "\nCapAmb:\t0000000000000000\n");
    assert_status_line(status, "\nUmask:\t0077\n");
    assert_status_line(status, "\nThreads:\t1\n");
    g_autofree char *limits = proc_text(c.pid, "limits");
    assert_non_null(limits);
    assert_non_null(strstr(limits, "Max core file size        0                    0 "));
    if (geteuid() == 0) { /* the rest of /proc/PID of a process that is not dumpable is root's */
        g_autofree char *environment = proc_text(c.pid, "environ");
        assert_non_null(environment);
        assert_null(strstr(environment, "PATH="));
        g_autofree char *root = g_strdup_printf("/proc/%d/root", c.pid);
        assert_int_equal(count_dir(root), 0);
        g_autofree char *probe = g_strdup_printf("/proc/%d/root/x", c.pid);
        assert_true(open(probe, O_CREAT | O_WRONLY, 0600) < 0);
        assert_int_equal(errno, EROFS);
        g_autofree char *fds = g_strdup_printf("/proc/%d/fd", c.pid);
        assert_int_equal(count_dir(fds), 3 + 7);
        g_autofree char *zero = g_strdup_printf("/proc/%d/fd/0", c.pid);
        char target[64] = {0};
        assert_true(readlink(zero, target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "/dev/null");
        struct stat st;
        g_autofree char *dir = g_strdup_printf("/proc/%d/fd", c.pid);
        assert_int_equal(stat(dir, &st), 0);
        if (how == AS_NOBODY)
            assert_int_equal(st.st_uid, 0); /* not dumpable: root's, not nobody's */
        static const char *const spaces[] = {"net", "mnt", "ipc", "uts", "user"};
        for (size_t i = 0; i < SM_ARRAY_LEN(spaces); i++) {
            g_autofree char *mine = ns_of(getpid(), spaces[i]);
            g_autofree char *theirs = ns_of(c.pid, spaces[i]);
            assert_non_null(theirs);
            if (strcmp(spaces[i], "net") == 0 && role == SM_ROLE_CORE)
                assert_string_equal(mine, theirs);
            else
                assert_string_not_equal(mine, theirs);
        }
        if (role == SM_ROLE_FRONT) { /* its network is empty: lo, and that is down */
            g_autofree char *dev = proc_text(c.pid, "net/dev");
            g_autofree char *route = proc_text(c.pid, "net/fib_trie");
            assert_non_null(strstr(dev, "lo:"));
            assert_null(strstr(dev, "eth"));
            assert_true(!route || !strstr(route, "127.0.0.1"));
        }
    }
    sm_fd_close(&c.link); /* what the child waits for */
    assert_int_equal(finish(&c), 0);
}

static void test_proc(void **state)
{
    for (enum how how = AS_IS; how < HOWS; how++) {
        if (how == AS_NOBODY && geteuid() != 0)
            continue;
        proc_state(how, SM_ROLE_FRONT);
        proc_state(how, SM_ROLE_CORE);
    }
}

/* ---- the early stage ---- */

static void test_parent_gone(void **state)
{
    int pair[2];
    GError *error = NULL;

    assert_int_equal(sm_fd_seqpair(pair, false), 0);
    sm_fd_close(&pair[0]);
    pid_t pid = fork();
    if (pid == 0)
        _exit(sm_sandbox_parent(pair[1], &error) < 0 && error ? 0 : 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    sm_fd_close(&pair[1]);
}

static void test_dies_with_parent(void **state)
{
    /* middle starts a sandboxed child and is killed: the child must die with it, though its link to us stays open. */
    int pair[2], report[2];
    char b;

    assert_int_equal(sm_fd_seqpair(pair, false), 0);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid_t middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) {
        if (fork() == 0) {
            const int keep[] = {pair[1], report[1]};
            const struct sm_sandbox_spec spec = {.keep_fds = keep, .n_keep_fds = 2, .parent_fd = pair[1]};
            GError *error = NULL;
            if (sm_sandbox_enter(SM_ROLE_CORE, &spec, &error) < 0)
                _exit(1);
            (void)!write(report[1], "r", 1);
            (void)!read(pair[1], &b, 1);
            _exit(0);
        }
        for (;;)
            (void)pause();
    }
    sm_fd_close(&report[1]);
    assert_int_equal(read(report[0], &b, 1), 1);
    assert_int_equal(kill(middle, SIGKILL), 0);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    assert_int_equal(read(report[0], &b, 1), 0); /* end of file: the last holder of the write end is dead */
    sm_fd_close(&report[0]);
    sm_fd_close(&pair[0]);
    sm_fd_close(&pair[1]);
}

static void test_supervisor(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        GError *error = NULL;
        const struct sm_sandbox_spec spec = {.parent_fd = -1};
        struct rlimit before, after;
        mode_t mask = umask(022);
        (void)umask(mask);
        (void)getrlimit(RLIMIT_CORE, &before);
        if (sm_sandbox_enter(SM_ROLE_SUPERVISOR, &spec, &error) < 0)
            _exit(1);
        if (prctl(PR_GET_DUMPABLE) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
            _exit(2);
        (void)getrlimit(RLIMIT_CORE, &after);
        if (after.rlim_cur != 0 || after.rlim_max != before.rlim_max)
            _exit(3);
        if (!getenv("PATH") || umask(0) != mask)
            _exit(4);
        _exit(open("/proc/self/exe", O_RDONLY) >= 0 ? 0 : 5);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_close_fds(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 10; fd < 30; fd++)
            if (dup2(STDERR_FILENO, fd) < 0)
                _exit(2);
        const int keep[] = {20, 12, 20, 1, 29};
        if (sm_sandbox_close_fds(keep, SM_ARRAY_LEN(keep)) < 0)
            _exit(3);
        for (int fd = 0; fd < 40; fd++) {
            bool want = fd <= 2 || fd == 12 || fd == 20 || fd == 29;
            if ((fcntl(fd, F_GETFD) >= 0) != want)
                _exit(fd + 10);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- a chroot: no user namespace, no pivot_root ---- */

static void test_chroot_fallback(void **state)
{
    need_root();
    char dir[] = "/tmp/slirp-med-chroot-XXXXXX";
    assert_non_null(mkdtemp(dir));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        GError *error = NULL;
        const struct sm_sandbox_spec spec = {.parent_fd = -1};
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(0); /* root without the right to mount: nothing to show */
        if (chdir(dir) < 0 || mkdir("dev", 0755) < 0 || mkdir("tmp", 0755) < 0)
            _exit(2);
        int null = open("dev/null", O_CREAT | O_WRONLY, 0666);
        if (null < 0 || mount("/dev/null", "dev/null", NULL, MS_BIND, NULL) < 0 || chroot(".") < 0)
            _exit(3);
        if (sm_sandbox_enter(SM_ROLE_FRONT, &spec, &error) < 0) {
            fprintf(stderr, "%s\n", error->message);
            /* Without Landlock it must refuse and say so. */
            _exit(sm_sandbox_landlock_abi() == 0 && strstr(error->message, "Landlock") ? 0 : 4);
        }
        (void)syscall(SYS_getppid);
        _exit(5);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    g_autofree char *null = g_strconcat(dir, "/dev/null", NULL);
    g_autofree char *dev = g_strconcat(dir, "/dev", NULL);
    g_autofree char *tmp = g_strconcat(dir, "/tmp", NULL);
    (void)unlink(null);
    (void)rmdir(dev);
    (void)rmdir(tmp);
    assert_int_equal(rmdir(dir), 0);
    assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_close_fds),
        cmocka_unit_test(test_parent_gone),
        cmocka_unit_test(test_dies_with_parent),
        cmocka_unit_test(test_supervisor),
        cmocka_unit_test(test_works),
        cmocka_unit_test(test_works_nobody),
        cmocka_unit_test(test_works_nested),
        cmocka_unit_test(test_fetch_refused),
        cmocka_unit_test(test_abort_is_sigabrt),
        cmocka_unit_test(test_proc),
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_forbidden_nobody),
        cmocka_unit_test(test_forbidden_nested),
        cmocka_unit_test(test_chroot_fallback),
    };
    (void)alarm(110); /* a hang fails instead of waiting for the harness */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
