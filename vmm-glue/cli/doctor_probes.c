/* SPDX-License-Identifier: BSD-3-Clause */
/* The probes of `doctor`; see doctor_probes.h. */
#include "cli/doctor_probes.h"

#include <ares.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <idn2.h>
#include <jansson.h>
#include <libpsl.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yaml.h>

#include "base/error.h"
#include "base/fd.h"
#include "core/resolver.h"
#include "launch/state.h"
#include "paths/tproxy.h"
#include "ports/tap.h"
#include "sandbox/sandbox.h"
#include "supervisor/roots.h"

/** No probe does more than a few system calls; nft may have to load a module. */
#define PROBE_TIMEOUT_MS 10000
/** A workspace with 1,000 connections needs about three descriptors for each. */
#define NOFILE_WANTED 4096

static const char *const status_names[] = {
    [SM_PROBE_OK] = "ok",
    [SM_PROBE_DEGRADED] = "degraded",
    [SM_PROBE_MISSING] = "missing",
};
SM_NAME_TABLE_COVERS(status_names, SM_PROBE_STATUSES);

static const char *const need_names[] = {
    [SM_PROBE_FOR_RUN] = "run",
    [SM_PROBE_FOR_TPROXY] = "tproxy",
    [SM_PROBE_FOR_HARDENING] = "hardening",
    [SM_PROBE_FOR_COMFORT] = "comfort",
};
SM_NAME_TABLE_COVERS(need_names, SM_PROBE_NEEDS);

const char *sm_probe_status_name(enum sm_probe_status status)
{
    return status_names[status];
}

const char *sm_probe_need_name(enum sm_probe_need need)
{
    return need_names[need];
}

static void found(struct sm_probe_finding *ret, enum sm_probe_status status, const char *fix, const char *fmt, ...)
    SM_PRINTF(4, 5);
static void found(struct sm_probe_finding *ret, enum sm_probe_status status, const char *fix, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(ret->detail, sizeof(ret->detail), fmt, ap);
    va_end(ap);
    ret->status = status;
    g_strlcpy(ret->fix, fix, sizeof(ret->fix));
}

/* Our errors end in the fix. */
static void found_error(struct sm_probe_finding *ret, enum sm_probe_status status, const char *fix, const GError *error)
{
    found(ret, status, fix, "%s", error->message);
}

static const char *const user_ns_fix =
    "as root: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000 (Debian), "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04 and later); in a container allow unshare(2)";

/* The other probes stand on this one; uid and gid are what we appear as inside. Returns false with ret filled in. */
static bool scratch_as(uid_t uid, gid_t gid, int spaces, struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    if (sm_sandbox_user_ns(uid, gid, &error) < 0) {
        found_error(ret, SM_PROBE_MISSING, user_ns_fix, error);
        return false;
    }
    if (unshare(spaces) < 0) {
        found(ret, SM_PROBE_MISSING,
              "allow unshare(2) of network, mount and PID namespaces (container profile, kernel configuration)",
              "namespaces cannot be made: %s", g_strerror(errno));
        return false;
    }
    return true;
}

static bool scratch(int spaces, struct sm_probe_finding *ret)
{
    return scratch_as(geteuid(), getegid(), spaces, ret);
}

static void probe_user_namespace(struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    int rc = sm_sandbox_user_ns(geteuid(), getegid(), &error);

    if (rc > 0)
        found(ret, SM_PROBE_OK, "", "made one for uid %u", geteuid());
    else if (rc == 0)
        found(ret, SM_PROBE_DEGRADED, user_ns_fix,
              "refused (a chroot?), but this process has CAP_SYS_ADMIN and can do without");
    else
        found_error(ret, SM_PROBE_MISSING, user_ns_fix, error);
}

static void probe_network_namespace(struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    if (!scratch(CLONE_NEWNET, ret))
        return;
    if (sm_tap_loopback_up(&error) < 0)
        found_error(ret, SM_PROBE_MISSING, "", error);
    else
        found(ret, SM_PROBE_OK, "", "made one and brought lo up");
}

static void probe_tap(struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    struct sm_tap_spec spec = {.name = "eth0",
                               .mac = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x0f},
                               .ip = sm_addr_v4(10, 0, 2, 15),
                               .prefix_len = 24,
                               .gateway = sm_addr_v4(10, 0, 2, 2),
                               .routes = {{sm_addr_v4(0, 0, 0, 0), 0}},
                               .n_routes = 1,
                               .mtu = SM_TAP_MTU_MAX};

    if (!scratch(CLONE_NEWNET, ret))
        return;
    if (sm_tap_loopback_up(&error) < 0) {
        found_error(ret, SM_PROBE_MISSING, "", error);
        return;
    }
    sm_autofd fd = sm_tap_open(spec.name, true, &error);
    if (fd < 0 || sm_tap_configure(&spec, &error) < 0)
        found_error(ret, SM_PROBE_MISSING,
                    "as root: modprobe tun && chmod 0666 /dev/net/tun; in a container pass the device in (--device "
                    "/dev/net/tun)",
                    error);
    else
        found(ret, SM_PROBE_OK, "", "made a tap with a virtio-net header, address, MTU %d and default route",
              SM_TAP_MTU_MAX);
}

static void probe_proc(struct sm_probe_finding *ret)
{
    if (!scratch(CLONE_NEWPID | CLONE_NEWNS, ret))
        return;
    pid_t pid = fork();
    if (pid == 0) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL)
            _exit(errno);
        _exit(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? errno : 0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        found(ret, SM_PROBE_MISSING, "", "no process could be started in a new PID namespace");
    else if (WEXITSTATUS(status) == 0)
        found(ret, SM_PROBE_OK, "", "mounted a new /proc in a new PID namespace");
    else
        found(
            ret, SM_PROBE_MISSING,
            "in a container: --security-opt systempaths=unconfined (Docker, Podman), procMount: Unmasked (Kubernetes)",
            "a new /proc cannot be mounted: %s", g_strerror(WEXITSTATUS(status)));
}

static void probe_mounts(struct sm_probe_finding *ret)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    if (!scratch(CLONE_NEWNS, ret))
        return;
    if ((mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL) ||
        mount("none", "/tmp", "tmpfs", 0, NULL) < 0) {
        found(ret, SM_PROBE_MISSING, "allow mount(2) in user namespaces (container profile)",
              "tmpfs cannot be mounted: %s", g_strerror(errno));
        return;
    }
    sm_autofd tree = open_tree(AT_FDCWD, "/tmp", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
        move_mount(tree, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) < 0) {
        found(ret, SM_PROBE_MISSING,
              "Linux 5.12 or later is needed (and a container profile that lets open_tree, mount_setattr and "
              "move_mount pass)",
              "mounts cannot be moved by descriptor: %s", g_strerror(errno));
        return;
    }
    if (chdir("/tmp") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        found(ret, SM_PROBE_DEGRADED,
              "start from a real root, not a chroot (systemd-nspawn, or unshare --mount with pivot_root)",
              "pivot_root: %s; --rootfs cannot work, and the sandbox falls back to chroot and Landlock",
              g_strerror(errno));
    else
        found(ret, SM_PROBE_OK, "", "tmpfs, moved mounts and pivot_root work");
}

static void probe_sandbox(struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    struct sm_sandbox_spec spec = {.parent_fd = -1};
    int reason[2], status;

    if (pipe2(reason, O_CLOEXEC) < 0) {
        found(ret, SM_PROBE_MISSING, "", "pipe: %s", g_strerror(errno));
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        spec.keep_fds = &reason[1];
        spec.n_keep_fds = 1;
        if (sm_sandbox_enter(SM_ROLE_FRONT, &spec, &error) < 0) {
            (void)!write(reason[1], error->message, strlen(error->message));
            _exit(1);
        }
        (void)syscall(SYS_getppid); /* not in the list: must kill */
        _exit(2);
    }
    (void)close(reason[1]);
    char text[900] = {0};
    ssize_t n = read(reason[0], text, sizeof(text) - 1);
    (void)close(reason[0]);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        found(ret, SM_PROBE_MISSING, "", "no child could be started");
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        found(ret, SM_PROBE_OK, "", "a child entered the front's sandbox and was killed for a forbidden system call");
    else if (n > 0)
        found(ret, SM_PROBE_MISSING, "see the other findings", "%s", text);
    else
        found(ret, SM_PROBE_MISSING, "a kernel with CONFIG_SECCOMP_FILTER is needed",
              "a child in the front's sandbox survived a forbidden system call (wait status %#x)", status);
}

static void probe_seccomp(struct sm_probe_finding *ret)
{
    g_autoptr(GError) error = NULL;
    if (sm_sandbox_guest_filter(&error) == 0) {
        errno = 0;
        if (socket(AF_VSOCK, SOCK_STREAM, 0) < 0 && errno == EAFNOSUPPORT)
            found(ret, SM_PROBE_OK, "", "CMD's filter loads and refuses; libseccomp API level %u", seccomp_api_get());
        else
            found(ret, SM_PROBE_MISSING, "a kernel with CONFIG_SECCOMP_FILTER is needed",
                  "CMD's filter loads but does not refuse");
    } else {
        found_error(ret, SM_PROBE_MISSING, "a kernel with CONFIG_SECCOMP_FILTER is needed", error);
    }
}

static void probe_landlock(struct sm_probe_finding *ret)
{
    int abi = sm_sandbox_landlock_abi();
    if (abi > 0)
        found(ret, SM_PROBE_OK, "", "version %d", abi);
    else
        found(ret, SM_PROBE_DEGRADED, "boot with lsm=landlock,... (CONFIG_SECURITY_LANDLOCK)",
              "this kernel offers no Landlock: the empty root stands alone");
}

static void probe_tproxy(struct sm_probe_finding *ret)
{
    static const char modules[] = "as root: modprobe -a nft_tproxy veth";
    static const struct sm_addr guest = {.family = SM_FAMILY_V4, .bytes = {10, 0, 2, 15}};
    static const uint8_t mac[6] = {0x52, 0x55, 10, 0, 2, 15};
    const struct sm_tproxy_source from = {.device = SM_TPROXY_DEVICE, .guest = &guest, .mac = mac};
    int one = 1;

    if (!scratch(CLONE_NEWNET, ret))
        return;
    sm_autofd sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || setsockopt(sock, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)) < 0) {
        found(ret, SM_PROBE_MISSING, modules, "a transparent socket cannot be made: %s", g_strerror(errno));
        return;
    }
    /* The very rules that a workspace gets. */
    if (sm_tproxy_rules(&from) < 0)
        found(ret, SM_PROBE_MISSING, modules, "the kernel refuses a TPROXY rule: %s", g_strerror(errno));
    else
        found(ret, SM_PROBE_OK, "", "TPROXY rules for TCP and UDP load");
}

static void probe_libraries(struct sm_probe_finding *ret)
{
    int major, minor, patch;
    const struct scmp_version *seccomp = seccomp_version();

    yaml_get_version(&major, &minor, &patch);
    found(ret, SM_PROBE_OK, "",
          "glib %u.%u.%u, openssl %s, c-ares %s, jansson %s, libyaml %d.%d.%d, libseccomp %u.%u.%u, libidn2 %s, libpsl "
          "%s",
          glib_major_version, glib_minor_version, glib_micro_version, OpenSSL_version(OPENSSL_VERSION_STRING),
          ares_version(NULL), jansson_version_str(), major, minor, patch, seccomp->major, seccomp->minor,
          seccomp->micro, idn2_check_version(NULL), psl_get_version());
}

static void probe_resolver(struct sm_probe_finding *ret)
{
    static const char fix[] = "write `nameserver ADDRESS` into /etc/resolv.conf, or give --dns ADDRESS to run";
    struct sm_endpoint servers[SM_RESOLVER_SERVERS_MAX];
    g_autoptr(GError) error = NULL;
    size_t len = 0;

    sm_autofd fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        found(ret, SM_PROBE_DEGRADED, fix, "/etc/resolv.conf: %s", g_strerror(errno));
        return;
    }
    g_autofree char *text = sm_fd_read_all(fd, 1u << 20, &len, &error);
    if (!text) {
        found_error(ret, SM_PROBE_DEGRADED, fix, error);
        return;
    }
    size_t n = sm_resolv_conf_parse(text, len, servers, SM_ARRAY_LEN(servers));
    g_autoptr(GString) list = g_string_new(NULL);
    for (size_t i = 0; i < n; i++) {
        char buf[SM_ADDR_STRLEN];
        g_string_append_printf(list, "%s%s", i ? ", " : "", sm_addr_format(&servers[i].addr, buf));
    }
    if (n == 0)
        found(ret, SM_PROBE_DEGRADED, fix, "/etc/resolv.conf names no server");
    else
        found(ret, SM_PROBE_OK, "", "/etc/resolv.conf: %s", list->str);
}

static void probe_roots(struct sm_probe_finding *ret)
{
    g_auto(GStrv) paths = sm_roots_paths(getenv("SSL_CERT_FILE"));
    g_autoptr(GError) error = NULL;
    size_t len;
    const char *path = "";

    sm_autofd fd = sm_roots_open(paths, &path, &error);
    g_autofree char *text = fd < 0 ? NULL : sm_fd_read_all(fd, SM_ROOTS_MAX, &len, &error);
    if (!text) {
        found_error(ret, SM_PROBE_DEGRADED,
                    "install ca-certificates, or give the servers' CAs with --egress-ca-file FILE", error);
        return;
    }
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, "-----BEGIN")) != NULL; at++)
        n++;
    if (n == 0)
        found(ret, SM_PROBE_DEGRADED, "let SSL_CERT_FILE name a file of certificates in PEM, or leave it unset",
              "%s: no certificate in it: no server can be verified", path);
    else
        found(ret, SM_PROBE_OK, "", "%s: %zu certificates", path, n);
}

static void probe_state(struct sm_probe_finding *ret)
{
    static const char fix[] = "make that folder writable for you, or give --state-dir DIR";
    g_autoptr(GError) error = NULL;
    g_autofree char *base = sm_state_default_base(&error);
    if (!base) {
        found_error(ret, SM_PROBE_MISSING, fix, error);
        return;
    }
    /* The deepest folder that is there: `run` makes the rest. */
    g_autofree char *at = g_strdup(base);
    while (access(at, F_OK) < 0 && errno == ENOENT && strcmp(at, "/") != 0) {
        char *up = g_path_get_dirname(at);
        g_free(at);
        at = up;
    }
    g_autofree char *trial = g_build_filename(at, ".slirp-med-doctor-XXXXXX", NULL);
    if (!mkdtemp(trial)) {
        found(ret, SM_PROBE_MISSING, fix, "%s: nothing can be made in %s: %s", base, at, g_strerror(errno));
        return;
    }
    (void)rmdir(trial);
    found(ret, SM_PROBE_OK, "", "%s%s", base, strcmp(at, base) == 0 ? "" : " (will be made)");
}

static void probe_descriptors(struct sm_probe_finding *ret)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        found(ret, SM_PROBE_DEGRADED, "", "getrlimit: %s", g_strerror(errno));
    else if (lim.rlim_max < NOFILE_WANTED)
        found(ret, SM_PROBE_DEGRADED, "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE= of the service",
              "at most %llu open files: about %llu connections at once", (unsigned long long)lim.rlim_max,
              (unsigned long long)lim.rlim_max / 3);
    else
        found(ret, SM_PROBE_OK, "", "at most %llu open files", (unsigned long long)lim.rlim_max);
}

const struct sm_probe sm_probes[] = {
    {"user_namespace", SM_PROBE_FOR_RUN, probe_user_namespace},
    {"network_namespace", SM_PROBE_FOR_RUN, probe_network_namespace},
    {"tap", SM_PROBE_FOR_RUN, probe_tap},
    {"proc", SM_PROBE_FOR_RUN, probe_proc},
    {"mounts", SM_PROBE_FOR_RUN, probe_mounts},
    {"sandbox", SM_PROBE_FOR_RUN, probe_sandbox},
    {"seccomp", SM_PROBE_FOR_RUN, probe_seccomp},
    {"state_dir", SM_PROBE_FOR_RUN, probe_state},
    {"landlock", SM_PROBE_FOR_HARDENING, probe_landlock},
    {"tproxy", SM_PROBE_FOR_TPROXY, probe_tproxy},
    {"resolver", SM_PROBE_FOR_COMFORT, probe_resolver},
    {"roots", SM_PROBE_FOR_COMFORT, probe_roots},
    {"descriptors", SM_PROBE_FOR_COMFORT, probe_descriptors},
    {"libraries", SM_PROBE_FOR_COMFORT, probe_libraries},
};
const size_t sm_n_probes = SM_ARRAY_LEN(sm_probes);

void sm_probe_run(const struct sm_probe *probe, struct sm_probe_finding *ret)
{
    int out[2], status = 0;

    memset(ret, 0, sizeof(*ret));
    if (pipe2(out, O_CLOEXEC) < 0) {
        found(ret, SM_PROBE_MISSING, "", "pipe: %s", g_strerror(errno));
        return;
    }
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        probe->fn(ret);
        (void)!write(out[1], ret, sizeof(*ret));
        _exit(0);
    }
    (void)close(out[1]);
    struct pollfd p = {.fd = out[0], .events = POLLIN};
    bool told =
        pid > 0 && poll(&p, 1, PROBE_TIMEOUT_MS) > 0 && read(out[0], ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
    (void)close(out[0]);
    if (pid > 0 && !told)
        (void)kill(pid, SIGKILL);
    if (pid > 0)
        (void)waitpid(pid, &status, 0);
    if (pid < 0)
        found(ret, SM_PROBE_MISSING, "", "no process could be started");
    else if (!told)
        found(ret, SM_PROBE_MISSING, "report this with the kernel's version",
              "the probe ended without an answer (wait status %#x)", status);
}
