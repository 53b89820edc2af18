/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guest-init: three processes in a row (A, B, C of guest_init.h), each with less than the one before.
 *
 *   A  config, list of sockets (needs the caller's namespaces) -> namespaces, tap -> TAP -> fork B
 *      -> no capabilities -> GO -> opens the gate, passes signals on
 *   B  PID 1: mounts -> fork C -> no capabilities, reaps, passes signals on, exits with C's status
 *   C  limits, no capabilities, filter -> exec CMD
 *
 * All is made ready while core and front start, up to a gate just before the exec that A opens at GO. Where CMD is to
 * trust a CA, B has a gate too, between the mounts and the trust, which A opens when the core has made it (CA).
 *
 * A pipe goes from B and C to A. Whoever fails before CMD runs writes the reason into it; the exec closes it. A gate is
 * a pipe from A: a line and then the end of file; a gate that ends without a byte is A's end. A goes to watch() when GO
 * has come, or when a reason has.
 */
#include "paths/guest_init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "paths/guest_config.h"
#include "paths/guest_env.h"
#include "paths/guest_mounts.h"
#include "paths/guest_trust.h"
#include "paths/tproxy.h"
#include "ports/tap.h"
#include "sandbox/sandbox.h"

/* Shell convention: not executable, not found; and 128 + n for signal n. */
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127
#define STATUS_SIGNAL 128

/** Longest reason that is passed on. */
#define REASON_MAX 2048

/** What goes through a gate, with its line end: the hash of a CA's subject, or nothing. */
#define GATE_MAX 64

/** Descriptors that a VMM is given. */
#define PASSED_MAX (1 + SM_GUEST_MORE_MAX + SM_GUEST_FILES_MAX)
/** The tap of the kernel path, for a VMM. */
#define TAP_FD SM_GUEST_MORE_FD

struct guest {
    struct sm_guest_config *config;
    char **env;
    struct sm_guest_view *view;
    struct sm_trust *trust; /* NULL: nothing is intercepted */
    int gate;               /* B (which only passes it on) and C: opened by A at GO */
    int ca_gate;            /* B: opened by A at CA; -1: there is none */
    sigset_t handled;       /* taken by signalfd and sigwaitinfo in A and B, open again in C */
};

static void guest_clear(struct guest *g)
{
    g_clear_pointer(&g->config, sm_guest_config_free);
    g_clear_pointer(&g->env, g_strfreev);
    g_clear_pointer(&g->view, sm_guest_view_free);
    g_clear_pointer(&g->trust, sm_trust_free);
}

static int status_of(int wait_status)
{
    return WIFSIGNALED(wait_status) ? STATUS_SIGNAL + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* A's end: the supervisor prints the reason; we do only where it cannot be told. */
static int report_failure(const char *reason)
{
    if (sm_link_send(SM_LINK_FD, SM_LINK_FAIL, reason, -1) < 0)
        sm_log_error("%s", reason);
    return SM_GUEST_INIT_FAILED;
}

/* ---- C: CMD ---- */

static _Noreturn void fail_in_child(int pipe_fd, const GError *error)
{
    (void)sm_fd_write_all(pipe_fd, error->message, SM_MIN(strlen(error->message), REASON_MAX));
    _exit(SM_GUEST_INIT_FAILED);
}

static int soft_limit(__rlimit_resource_t what, int64_t value, GError **error)
{
    struct rlimit lim;

    if (value == -2)
        return 0;
    if (getrlimit(what, &lim) < 0)
        goto fail;
    rlim_t want = value < 0 ? RLIM_INFINITY : (rlim_t)value;
    lim.rlim_cur = SM_MIN(want, lim.rlim_max);
    if (setrlimit(what, &lim) == 0)
        return 0;
fail:
    sm_error_set_errno(error, errno, "resource limits");
    return -1;
}

static void restore_signals(void)
{
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction sa;
        if (sigaction(sig, NULL, &sa) < 0 || sa.sa_handler == SIG_DFL)
            continue;
        /* nohup and a shell's "&" mean CMD with these; everything else is ours or the supervisor's. */
        if (sa.sa_handler == SIG_IGN && (sig == SIGHUP || sig == SIGINT || sig == SIGQUIT))
            continue;
        sa = (struct sigaction){.sa_handler = SIG_DFL};
        (void)sigaction(sig, &sa, NULL);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* execvp(3) says EACCES as well when a folder of PATH cannot be searched and the command is in none. */
static bool found_in_path(const char *command)
{
    const char *path = getenv("PATH");
    if (strchr(command, '/'))
        return true;
    g_auto(GStrv) folders = g_strsplit(path ? path : "/usr/bin:/bin", ":", -1);
    for (char **f = folders; *f; f++) {
        g_autofree char *file = g_build_filename(**f ? *f : ".", command, NULL);
        if (access(file, F_OK) == 0)
            return true;
    }
    return false;
}

/* kill(0) reaches every member of the process group, also those outside the PID namespace: the caller's script. On a terminal CMD has to stay
 * in the group that is in the foreground, for Ctrl-C and Ctrl-Z. */
static void leave_process_group(void)
{
    sm_autofd tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0)
        (void)setpgid(0, 0);
}

/* A VMM on the kernel path has the guest's card in its hands. */
static bool gets_tap(const struct sm_guest_config *c)
{
    return c->bare && c->tproxy;
}

/* What a VMM is given beside 0, 1 and 2: the CA, its devices' sockets or its tap, its files. Returns how many. */
static size_t passed_fds(const struct sm_guest_config *c, int ret[static PASSED_MAX])
{
    size_t n = 0;

    if (c->bare && c->ca)
        ret[n++] = SM_GUEST_CA_FD;
    for (int i = 0; i < c->n_more; i++)
        ret[n++] = SM_GUEST_MORE_FD + i;
    if (gets_tap(c))
        ret[n++] = TAP_FD;
    for (int i = 0; c->files[i]; i++)
        ret[n++] = SM_GUEST_FILES_FD + i;
    return n;
}

static void close_passed(const struct sm_guest_config *c)
{
    int fds[PASSED_MAX];
    size_t n = passed_fds(c, fds);

    for (size_t i = 0; i < n; i++)
        (void)close(fds[i]);
}

/* CMD's trust in a CA is made by us (a VMM has it as a file). */
static bool makes_trust(const struct sm_guest_config *c)
{
    return c->ca && !c->bare;
}

/* Until A opens it; whoever is not let through ends. Returns the line. */
static char *pass_gate(int gate)
{
    char text[GATE_MAX];
    size_t len = 0;
    ssize_t n = -1;

    while (len < sizeof(text) && (n = read(gate, text + len, sizeof(text) - len)) != 0) {
        if (n > 0)
            len += (size_t)n;
        else if (errno != EINTR)
            break;
    }
    if (n != 0 || len == 0 || text[len - 1] != '\n')
        _exit(SM_GUEST_INIT_FAILED);
    (void)close(gate);
    return g_strndup(text, len - 1);
}

static _Noreturn void run_command(const struct guest *g, int pipe_fd)
{
    const struct sm_guest_config *c = g->config;
    GError *error = NULL;

    if (soft_limit(RLIMIT_NOFILE, c->nofile, &error) < 0 || soft_limit(RLIMIT_CORE, c->core, &error) < 0)
        fail_in_child(pipe_fd, error);
    if (c->umask >= 0)
        (void)umask((mode_t)c->umask);
    int kept[PASSED_MAX + 2];
    size_t n_passed = passed_fds(c, kept), n_kept = n_passed;
    kept[n_kept++] = pipe_fd;
    kept[n_kept++] = g->gate;
    if (sm_sandbox_close_fds(kept, n_kept) < 0) {
        sm_error_set_errno(&error, errno, "close_range (Linux 5.9 or later is needed)");
        fail_in_child(pipe_fd, error);
    }
    for (size_t i = 0; i < n_passed; i++)
        if (sm_fd_set_cloexec(kept[i], false) < 0) {
            sm_error_set_errno(&error, errno, "descriptor %d for the command", kept[i]);
            fail_in_child(pipe_fd, error);
        }
    (void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING,
                  NULL); /* off the caller's; the filter refuses the calls themselves */
    if (sm_sandbox_drop_caps(&error) < 0)
        fail_in_child(pipe_fd, error);
    /* After the drop: with capabilities a masked folder would let us in. */
    if (chdir(c->cwd) < 0) {
        sm_error_set_errno(
            &error, errno,
            "working directory %s inside (is it masked, or missing in the rootfs? start elsewhere or --bind it)",
            c->cwd);
        fail_in_child(pipe_fd, error);
    }
    leave_process_group();
    if (sm_sandbox_parent(-1, &error) < 0 || sm_sandbox_guest_filter(&error) < 0)
        fail_in_child(pipe_fd, error);
    g_free(pass_gate(g->gate));
    restore_signals();
    environ = g->env;
    (void)execvp(c->argv[0], c->argv);
    int err = errno;
    if (err == EACCES && !found_in_path(c->argv[0]))
        err = ENOENT;
    /* These two are CMD's fault, not ours: said as a shell says it. */
    (void)dprintf(STDERR_FILENO, "slirp-med run: %s: %s\n", c->argv[0],
                  err == ENOENT ? "command not found" : g_strerror(err));
    _exit(err == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE);
}

/* ---- B: PID 1 ---- */

static _Noreturn void reap_until(const struct guest *g, pid_t command)
{
    for (;;) {
        siginfo_t info;
        int sig = sigwaitinfo(&g->handled, &info);
        if (sig < 0)
            continue;
        /* What the terminal sends (si_code > 0) CMD has got itself: it is in the same process group. */
        if (sig != SIGCHLD && info.si_code <= 0)
            (void)kill(command, sig);
        int status;
        for (pid_t pid; sig == SIGCHLD && (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == command)
                _exit(status_of(status)); /* the kernel ends what else runs in here */
    }
}

/* The core has written the certificate before it said CA. */
static int take_ca(struct guest *g, const char *hash, GError **error)
{
    size_t len;

    sm_autofd fd = SM_GUEST_CA_FD;
    g_autofree char *pem = sm_fd_read_all(fd, SM_TRUST_CA_MAX, &len, error);
    if (!pem) {
        g_prefix_error(error, "the workspace's CA: ");
        return -1;
    }
    /* Nothing in it, or half of it: CMD would have a network in which no TLS verifies. */
    g->trust = sm_trust_new(pem, len, hash, error);
    return g->trust ? 0 : -1;
}

static _Noreturn void be_init(struct guest *g, int pipe_fd)
{
    GError *error = NULL;

    (void)prctl(PR_SET_NAME, "slirp-med-init");
    /* CMD, and the program that trust may need (guest_nss.h), have our user id: without this they could ptrace us. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        sm_error_set_errno(&error, errno, "PR_SET_DUMPABLE");
        fail_in_child(pipe_fd, error);
    }
    if (sm_sandbox_parent(pipe_fd, &error) < 0)
        fail_in_child(pipe_fd, error);
    if (sm_guest_view_apply(g->view, g->ca_gate >= 0, &error) < 0)
        fail_in_child(pipe_fd, error);
    if (g->ca_gate >= 0) {
        g_autofree char *hash = pass_gate(g->ca_gate);
        if (take_ca(g, hash, &error) < 0)
            fail_in_child(pipe_fd, error);
    }
    if (sm_guest_view_finish(g->view, g->trust, g->env, &error) < 0)
        fail_in_child(pipe_fd, error);
    if (g->trust) {
        char **env = sm_trust_environment(g->trust, g->env);
        g_strfreev(g->env);
        g->env = env;
    }
    pid_t command = fork();
    if (command == 0)
        run_command(g, pipe_fd);
    if (command < 0) {
        sm_error_set_errno(&error, errno, "fork");
        fail_in_child(pipe_fd, error);
    }
    if (sm_sandbox_drop_caps(&error) < 0)
        fail_in_child(pipe_fd, error);
    (void)sm_sandbox_close_fds(NULL, 0);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)close(fd); /* CMD's to end: a reader of its output must see the end of file */
    reap_until(g, command);
}

/* ---- A ---- */

/* A setting of the new network namespace. Not being able to make it (a read-only /proc/sys) costs comfort, not safety.
 */
static void set_kernel(const char *name, const char *value)
{
    g_autofree char *path = g_strconcat("/proc/sys/", name, NULL);
    sm_autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || sm_fd_write_all(fd, value, strlen(value)) < 0)
        sm_log_info("%s = %s: %s", path, value, g_strerror(errno));
}

/* The kernel path. A VMM's tap stands at its number from here on. */
static int make_tproxy(const struct sm_guest_config *c, struct sm_tproxy *ret, GError **error)
{
    struct sm_tproxy_spec spec = {.workspace = c->name,
                                  .kind = gets_tap(c) ? SM_TPROXY_TAP : SM_TPROXY_PAIR,
                                  .card = &c->tap,
                                  .resolver = c->resolver};

    memcpy(spec.our_mac, c->gateway_mac, sizeof(spec.our_mac));
    if (sm_tproxy_make(&spec, ret, error) < 0)
        return -1;
    if (gets_tap(c) && dup3(ret->tap, TAP_FD, O_CLOEXEC) < 0) {
        sm_error_set_errno(error, errno, "descriptor %d for the command", TAP_FD);
        return -1;
    }
    sm_fd_close(&ret->tap);
    return 0;
}

static int make_namespaces(const struct sm_guest_config *c, struct sm_tproxy *ret_tproxy, GError **error)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if ((c->uid >= 0 && c->uid != (int64_t)uid) || (c->gid >= 0 && c->gid != (int64_t)gid)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "guest-init runs as %u:%u, but the configuration says %" G_GINT64_FORMAT ":%" G_GINT64_FORMAT, uid,
                     gid, c->uid, c->gid);
        return -1;
    }
    int own_user_ns = sm_sandbox_user_ns(uid, gid, error);
    if (own_user_ns < 0)
        return -1;
    if (c->tproxy && make_tproxy(c, ret_tproxy, error) < 0)
        return -1;
    if (unshare((c->tproxy ? 0 : CLONE_NEWNET) | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID) < 0) {
        sm_error_set_errno(error, errno, "make network, mount, IPC, UTS and PID namespaces (see `slirp-med doctor`)");
        return -1;
    }
    if (sethostname(c->hostname, strlen(c->hostname)) < 0) {
        sm_error_set_errno(error, errno, "host name %s", c->hostname);
        return -1;
    }
    /* Only in our own: without one this would be the machine's setting. */
    if (own_user_ns)
        set_kernel("user/max_user_namespaces", "0");
    set_kernel("net/ipv6/conf/all/disable_ipv6", "1");
    set_kernel("net/ipv6/conf/default/disable_ipv6", "1");
    set_kernel("net/ipv4/ip_unprivileged_port_start", "0");
    g_autofree char *group = g_strdup_printf("%u %u", gid, gid);
    set_kernel("net/ipv4/ping_group_range", group);
    return sm_tap_loopback_up(error);
}

static int hand_over_tap(const struct sm_guest_config *c, struct sm_tproxy *tproxy, GError **error)
{
    sm_autofd tap = sm_steal_fd(&tproxy->bundle);
    char keeper[16] = "";

    if (c->tproxy) {
        (void)g_snprintf(keeper, sizeof(keeper), "%d", (int)tproxy->keeper);
    } else if (!c->isolated) {
        tap = sm_tap_open(c->tap.name, c->tap.vnet_hdr, error);
        /* Else the front could not end before the kernel has taken the device down, and the workspace would wait for
         * that. */
        if (tap < 0 || sm_tap_keep(tap, error) < 0)
            return -1;
    }
    if (!c->isolated && sm_tap_configure(&c->tap, error) < 0)
        return -1;
    if (sm_link_send(SM_LINK_FD, SM_LINK_TAP, keeper[0] ? keeper : NULL, tap) < 0) {
        sm_error_set_errno(error, errno, "send the tap to the supervisor");
        return -1;
    }
    return 0;
}

/* One message from the supervisor. Returns 1, 0 at its end, -1 with error set. */
static int receive(struct sm_link_msg *msg, GError **error)
{
    int rc = sm_link_recv(SM_LINK_FD, msg);
    if (rc < 0) {
        sm_error_set_errno(error, errno, "message from the supervisor");
        return -1;
    }
    if (rc > 0 && msg->fd >= 0)
        sm_fd_close(&msg->fd); /* none is ever sent to us */
    return rc;
}

/* Opens one. What can fail here does so because B has ended: why, watch() is told. */
static void open_gate(int *gate, const char *text)
{
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    if (strlen(line) < GATE_MAX)
        (void)sm_fd_write_all(*gate, line, strlen(line));
    sm_fd_close(gate);
}

/* Returns 0 when watch() comes next: *ret_go says whether for GO; the exit status otherwise. *ca_gate is opened in
 * between. */
static int wait_for_go(int signals, int reasons, int *ca_gate, bool *ret_go)
{
    static struct sm_link_msg msg; /* large */
    struct pollfd p[] = {
        {.fd = SM_LINK_FD, .events = POLLIN}, {.fd = signals, .events = POLLIN}, {.fd = reasons, .events = POLLIN}};

    for (;;) {
        g_autoptr(GError) error = NULL;
        if (poll(p, SM_ARRAY_LEN(p), -1) < 0) {
            if (errno == EINTR)
                continue;
            return report_failure("poll");
        }
        if (p[1].revents) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info) &&
                (info.ssi_signo == SIGHUP || info.ssi_signo == SIGINT || info.ssi_signo == SIGQUIT ||
                 info.ssi_signo == SIGTERM))
                return STATUS_SIGNAL + (int)info.ssi_signo;
        }
        if (p[2].revents)
            return 0;
        if (!p[0].revents)
            continue;
        int rc = receive(&msg, &error);
        if (rc < 0)
            return report_failure(error->message);
        if (rc == 0 || msg.verb == SM_LINK_STOP)
            return SM_GUEST_INIT_FAILED;
        if (msg.verb == SM_LINK_GO && *ca_gate >= 0)
            return report_failure("the supervisor sent GO before CA");
        if (msg.verb == SM_LINK_GO) {
            *ret_go = true;
            return 0;
        }
        if (msg.verb != SM_LINK_CA)
            return report_failure("the supervisor sent something else than GO");
        if (*ca_gate >= 0)
            open_gate(ca_gate, msg.text);
    }
}

/* Pass a signal to B, which passes it to CMD. */
static void pass_on(pid_t init, const char *number)
{
    int64_t sig = g_ascii_strtoll(number, NULL, 10);
    if (sig > 0 && sig < NSIG)
        (void)kill(init, (int)sig);
}

/* Until B ends: signals, messages, the reason of a failure. Returns the exit status. */
static int watch(pid_t init, int reasons, int signals)
{
    static struct sm_link_msg msg; /* large */
    char reason[REASON_MAX + 1];
    size_t reason_len = 0;
    struct pollfd p[] = {
        {.fd = signals, .events = POLLIN}, {.fd = SM_LINK_FD, .events = POLLIN}, {.fd = reasons, .events = POLLIN}};
    int status = 0;
    bool stopped = false;
    /* B may have ended while we waited for GO, and its SIGCHLD was taken there. */
    bool ended = waitpid(init, &status, WNOHANG) == init;

    while (!ended || p[2].fd >= 0) {
        if (poll(p, SM_ARRAY_LEN(p), -1) < 0 && errno != EINTR)
            break;
        struct signalfd_siginfo info;
        if (p[0].revents && read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            if (info.ssi_signo == SIGCHLD)
                ended = ended || waitpid(init, &status, WNOHANG) == init;
            else if (info.ssi_code <= 0 && !ended) /* sent with kill(2); the terminal's own reach CMD directly */
                (void)kill(init, (int)info.ssi_signo);
        }
        if (p[1].revents && !ended) {
            g_autoptr(GError) error = NULL;
            if (receive(&msg, &error) <= 0 || msg.verb == SM_LINK_STOP) {
                (void)kill(init, SIGKILL);
                stopped = true;
                p[1].fd = -1;
            } else if (msg.verb == SM_LINK_SIGNAL) {
                pass_on(init, msg.text);
            }
        }
        if (p[2].revents) {
            ssize_t n = read(reasons, reason + reason_len, REASON_MAX - reason_len);
            if (n > 0)
                reason_len += (size_t)n;
            else
                p[2].fd = -1;
        }
    }
    if (reason_len > 0) {
        reason[reason_len] = '\0';
        return report_failure(reason);
    }
    /* B ends itself with CMD's status, whatever ended CMD: a signal was somebody else's doing. */
    if (WIFSIGNALED(status) && !stopped)
        return report_failure("the guest's init was killed from outside");
    char text[16];
    (void)snprintf(text, sizeof(text), "%d", status_of(status));
    if (sm_link_send(SM_LINK_FD, SM_LINK_EXIT, text, -1) < 0)
        sm_log_info("EXIT could not be sent: %s", g_strerror(errno));
    return status_of(status);
}

/* Before all else makes descriptors: these numbers are free. */
static int open_files(const struct sm_guest_config *c, GError **error)
{
    for (int i = 0; c->files[i]; i++) {
        struct stat st;
        /* A socket is no file to open: this is a name for it that connect(2) takes. */
        bool is_socket = stat(c->files[i], &st) == 0 && S_ISSOCK(st.st_mode);
        int fd = open(c->files[i], (is_socket ? O_PATH : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
        if (fd < 0 || dup3(fd, SM_GUEST_FILES_FD + i, O_CLOEXEC) < 0) {
            sm_error_set_errno(error, errno, "%s", c->files[i]);
            return -1;
        }
        (void)close(fd);
    }
    return 0;
}

/* Those that the configuration speaks of are there, and no others. */
static int take_more(const struct sm_guest_config *c, GError **error)
{
    for (int i = 0; i < SM_GUEST_MORE_MAX; i++) {
        int fd = SM_GUEST_MORE_FD + i;
        if (fd == TAP_FD && gets_tap(c)) { /* its number is kept until there is one */
            sm_autofd null = open("/dev/null", O_RDONLY | O_CLOEXEC);
            if (null < 0 || dup3(null, TAP_FD, O_CLOEXEC) < 0) {
                sm_error_set_errno(error, errno, "/dev/null");
                return -1;
            }
        } else if (i >= c->n_more) {
            (void)close(fd); /* nothing of ours has that number yet */
        } else if (sm_fd_set_cloexec(fd, true) < 0) {
            sm_error_set(error, SM_ERROR_SYSTEM, "guest-init is started by `slirp-med vm`: descriptor %d is missing",
                         fd);
            return -1;
        }
    }
    return open_files(c, error);
}

static int prepare(struct guest *g, GError **error)
{
    sm_autofd config_fd = SM_CONFIG_FD;
    size_t len;

    if (sm_sandbox_parent(SM_LINK_FD, error) < 0)
        return -1;
    g_autofree char *text = sm_fd_read_all(config_fd, SM_GUEST_INIT_CONFIG_MAX, &len, error);
    if (!text) {
        g_prefix_error(error, "guest-init configuration: ");
        return -1;
    }
    g->config = sm_guest_config_parse(text, len, error);
    if (!g->config)
        return -1;
    if (!g->config->ca) {
        (void)close(SM_GUEST_CA_FD); /* nothing of ours has that number yet */
    } else if (sm_fd_set_cloexec(SM_GUEST_CA_FD, true) < 0) {
        sm_error_set(error, SM_ERROR_SYSTEM, "guest-init is started by `slirp-med run`: descriptor %d (ca) is missing",
                     SM_GUEST_CA_FD);
        return -1;
    }
    if (take_more(g->config, error) < 0)
        return -1;
    /* In a bare view there is no folder of the caller's, and so no socket to be covered. */
    g_autoptr(GHashTable) sockets =
        g->config->bare ? g_hash_table_new(g_str_hash, g_str_equal) : sm_guest_sockets(g_getenv("HOME"));
    g->env = sm_guest_environment(environ, g->config->unset_env, sockets);
    sm_cleanup(sm_tproxy_clear) struct sm_tproxy tproxy = SM_TPROXY_INIT;
    if (make_namespaces(g->config, &tproxy, error) < 0)
        return -1;
    /* The namespaces changed our credentials, which can undo the first one. */
    if (sm_sandbox_parent(SM_LINK_FD, error) < 0)
        return -1;
    g->view = sm_guest_view_prepare(g->config, sockets, g_getenv("XDG_RUNTIME_DIR"), error);
    if (!g->view)
        return -1;
    return hand_over_tap(g->config, &tproxy, error); /* last: who has the tap knows that all else is ready */
}

int sm_guest_init_main(int argc, char **argv)
{
    static const int keep[] = {
        SM_LINK_FD,           SM_CONFIG_FD,         SM_GUEST_CA_FD,       SM_GUEST_MORE_FD,
        SM_GUEST_MORE_FD + 1, SM_GUEST_MORE_FD + 2, SM_GUEST_MORE_FD + 3,
    };
    _Static_assert(SM_ARRAY_LEN(keep) == 3 + SM_GUEST_MORE_MAX, "all that a launcher may add");
    sm_cleanup(guest_clear) struct guest g = {0};
    g_autoptr(GError) error = NULL;
    int pipe_fds[2], gate[2], ca_gate[2] = {-1, -1};

    sm_log_init("guest-init");
    if (argc > 1) {
        sm_log_error("guest-init is started by `slirp-med run` and takes no arguments (found '%s')", argv[1]);
        return 2;
    }
    if (sm_sandbox_close_fds(keep, SM_ARRAY_LEN(keep)) < 0)
        return report_failure("close_range (Linux 5.9 or later is needed)");
    if (sm_fd_set_cloexec(SM_LINK_FD, true) < 0 || sm_fd_set_cloexec(SM_CONFIG_FD, true) < 0) {
        sm_log_error("guest-init is started by `slirp-med run`: descriptors %d and %d are missing", SM_LINK_FD,
                     SM_CONFIG_FD);
        return 2;
    }
    (void)sigfillset(&g.handled);
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    for (size_t i = 0; i < SM_ARRAY_LEN(faults); i++)
        (void)sigdelset(&g.handled, faults[i]);
    (void)sigprocmask(SIG_SETMASK, &g.handled, NULL);
    sm_autofd signals = signalfd(-1, &g.handled, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return report_failure("signalfd");

    if (prepare(&g, &error) < 0)
        return report_failure(error->message);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0 || pipe2(gate, O_CLOEXEC) < 0 ||
        (makes_trust(g.config) && pipe2(ca_gate, O_CLOEXEC) < 0))
        return report_failure("pipe");
    pid_t init = fork();
    if (init == 0) {
        (void)close(pipe_fds[0]);
        (void)close(gate[1]);
        sm_fd_close(&ca_gate[1]);
        (void)close(signals);
        (void)close(SM_LINK_FD);
        g.gate = gate[0];
        g.ca_gate = ca_gate[0];
        be_init(&g, pipe_fds[1]);
    }
    (void)close(pipe_fds[1]);
    (void)close(gate[0]);
    sm_fd_close(&ca_gate[0]);
    sm_autofd reasons = pipe_fds[0];
    if (init < 0)
        return report_failure("fork: the PID namespace could not be entered");
    close_passed(g.config);
    if (makes_trust(g.config))
        (void)close(SM_GUEST_CA_FD);
    g_clear_pointer(&g.view, sm_guest_view_free); /* its descriptors are B's now */
    if (sm_sandbox_drop_caps(&error) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        (void)kill(init, SIGKILL);
        return report_failure(error ? error->message : "PR_SET_DUMPABLE");
    }
    bool go = false;
    int rc = wait_for_go(signals, reasons, &ca_gate[1], &go);
    if (rc != 0)
        return rc; /* and with us B */
    if (go)
        open_gate(&gate[1], "");
    sm_fd_close(&gate[1]);
    sm_fd_close(&ca_gate[1]);
    return watch(init, reasons, signals);
}
