/* SPDX-License-Identifier: BSD-3-Clause */
/* Fetch the certificate; see fetch.h. */
#include "guest/fetch.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "guest/sha256.h"
#include "guest/tool.h"

#define WHY_MAX 256
#define PATH_MAX_OURS 1024
#define REQUEST "ca\n"
#define NONE_TO_GIVE "error\n"
/** Names in /sys/class/virtio-ports: a device has at most 511 ports. */
#define PORTS_MAX 1024

const char *const sm_channel_names[] = {
    [SM_CHANNEL_VSOCK] = "vsock",
    [SM_CHANNEL_SERIAL] = "serial",
    [SM_CHANNEL_FW_CFG] = "fw_cfg",
    [SM_CHANNEL_FILE] = "file",
};
SM_NAME_TABLE_COVERS(sm_channel_names, SM_CHANNELS);

/* What shows the channel, when nothing has loaded it. Where a device is there, udev does. */
static const char *const modules[] = {
    [SM_CHANNEL_VSOCK] = "vmw_vsock_virtio_transport",
    [SM_CHANNEL_SERIAL] = "virtio_console",
    [SM_CHANNEL_FW_CFG] = "qemu_fw_cfg",
    [SM_CHANNEL_FILE] = NULL,
};
SM_NAME_TABLE_COVERS(modules, SM_CHANNELS);

static const char *module_of(enum sm_channel_kind kind)
{
    assert(kind < SM_CHANNELS);
    return modules[kind];
}

static const char *name_of(enum sm_channel_kind kind)
{
    assert(kind < SM_CHANNELS);
    return sm_channel_names[kind];
}

enum outcome {
    GOT,
    LATER, /* not there, or it broke off */
    NEVER, /* waiting will not help */
    BAD,   /* the bytes can be no certificate */
};

/** What a round leaves behind for the next, by channel. */
struct progress {
    bool over; /* it will never give anything */
    char why[WHY_MAX];
};

struct attempt {
    int64_t deadline;
    size_t len;
    char text[SM_GUEST_PEM_MAX + 1]; /* one more, so that too long is seen */
    char why[WHY_MAX];
};

static enum outcome fail(struct attempt *a, enum outcome o, const char *format, ...) SM_PRINTF(3, 4);
static enum outcome fail(struct attempt *a, enum outcome o, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(a->why, sizeof(a->why), format, args);
    va_end(args);
    return o;
}

/** Wait for a descriptor. Returns what poll(2) found, or 0: the attempt's time is over. */
static short wait_until(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - sm_guest_now();
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0)
            return p.revents;
        if (n == 0 || errno != EINTR)
            return 0;
    }
}

/** Judge what has come. The end of the stream has been seen, or (to_end false) the text ends itself. */
static enum outcome judge(struct attempt *a, bool eof, bool stream, struct sm_guest_cert *ret)
{
    enum sm_pem_fault fault = sm_guest_pem_check(a->text, a->len, ret);

    switch (fault) {
    case SM_PEM_NONE:
        return GOT;
    case SM_PEM_UNFINISHED:
        if (!eof)
            return LATER;
        if (a->len == 0)
            return fail(a, stream ? LATER : BAD, "it is empty");
        return fail(a, stream ? LATER : BAD, "%s", sm_pem_fault_names[fault]);
    case SM_PEM_TOO_LONG:
    case SM_PEM_CONTROL:
    case SM_PEM_NO_BEGIN:
    case SM_PEM_BASE64:
    case SM_PEM_TRAILING:
    case SM_PEM_DER:
    case SM_PEM_FAULTS:
        break;
    }
    return fail(a, BAD, "%s", sm_pem_fault_names[fault]);
}

/** Is what has come the beginning (or all) of the answer of a host without a CA? */
static bool is_none_to_give(const struct attempt *a)
{
    return a->len <= strlen(NONE_TO_GIVE) && memcmp(a->text, NONE_TO_GIVE, a->len) == 0;
}

/** Read until the end of the stream, or (self_ending) until the certificate ends. */
static enum outcome read_text(struct attempt *a, int fd, bool self_ending, bool stream, struct sm_guest_cert *ret)
{
    a->len = 0;
    for (;;) {
        if (!wait_until(fd, POLLIN, a->deadline))
            return a->len > 0 ? fail(a, LATER, "it stopped after %zu bytes", a->len)
                              : fail(a, LATER, "it says nothing");
        ssize_t n = sm_guest_read(fd, a->text + a->len, sizeof(a->text) - a->len);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n < 0)
            return fail(a, LATER, "%s", strerror(errno));
        a->len += (size_t)n;
        /* The whole line, so that nothing of it is left for who asks next. */
        if (n > 0 && self_ending && is_none_to_give(a) && a->len < strlen(NONE_TO_GIVE))
            continue;
        enum outcome o = judge(a, n == 0, stream, ret);
        if (n == 0 || o == BAD || (o == GOT && self_ending))
            return o;
    }
}

static enum outcome try_vsock(const struct sm_fetch *f, struct attempt *a, struct sm_guest_cert *ret)
{
    sm_guest_autofd fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = f->cid, .svm_port = f->port};
    int error = 0;
    socklen_t size = sizeof(error);

    if (fd < 0)
        return fail(a, LATER, "%s", errno == EAFNOSUPPORT ? "this kernel has none" : strerror(errno));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
        return fail(a, LATER, "%s", errno == ENODEV ? "there is no such device" : strerror(errno));
    if (!wait_until(fd, POLLOUT, a->deadline))
        return fail(a, LATER, "the host does not answer");
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (error != 0)
        return fail(a, LATER, "%s", strerror(error));
    return read_text(a, fd, false, true, ret);
}

/** The port's path without udev: sysfs has the names, /dev the devices. */
static bool find_port(const struct sm_fetch *f, char *path, size_t size)
{
    char folder[PATH_MAX_OURS], name[sizeof(SM_GUEST_SERIAL_NAME) + 1];
    struct dirent *e;
    bool found = false;

    (void)snprintf(path, size, "%s/virtio-ports/" SM_GUEST_SERIAL_NAME, f->dev);
    if (access(path, F_OK) == 0)
        return true;
    (void)snprintf(folder, sizeof(folder), "%s/class/virtio-ports", f->sys);
    DIR *dir = opendir(folder);
    for (unsigned left = PORTS_MAX; dir && !found && left > 0 && (e = readdir(dir)) != NULL; left--) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, size, "%s/%s/name", folder, e->d_name);
        sm_guest_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : sm_guest_read(fd, name, sizeof(name));
        if (n > 0 && name[n - 1] == '\n')
            n--;
        if (n != (ssize_t)strlen(SM_GUEST_SERIAL_NAME) || memcmp(name, SM_GUEST_SERIAL_NAME, (size_t)n) != 0)
            continue;
        (void)snprintf(path, size, "%s/%s", f->dev, e->d_name);
        found = access(path, F_OK) == 0;
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

static enum outcome try_serial(const struct sm_fetch *f, struct attempt *a, struct sm_guest_cert *ret)
{
    char path[2 * PATH_MAX_OURS];
    struct termios tio;

    if (f->serial)
        (void)snprintf(path, sizeof(path), "%s", f->serial);
    else if (!find_port(f, path, sizeof(path)))
        return fail(a, LATER, "there is no port " SM_GUEST_SERIAL_NAME);
    sm_guest_autofd fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return fail(a, LATER, "%s: %s", path, strerror(errno));
    if (tcgetattr(fd, &tio) == 0) { /* a real serial line: no echo of the host's bytes, no line editing */
        cfmakeraw(&tio);
        (void)tcsetattr(fd, TCSANOW, &tio);
    }
    /* A port whose host's side is not there is always hung up. */
    short found = wait_until(fd, POLLOUT, a->deadline);
    if (!(found & POLLOUT))
        return fail(a, LATER, "%s: nobody is at the host's side", path);
    ssize_t n = write(fd, REQUEST, strlen(REQUEST));
    if (n != (ssize_t)strlen(REQUEST))
        return fail(a, LATER, "%s: %s", path, n < 0 ? strerror(errno) : "it did not take the request");
    enum outcome o = read_text(a, fd, true, true, ret);
    /* A workspace that intercepts nothing has no CA, and will not have one. */
    if (o == BAD && is_none_to_give(a))
        return fail(a, NEVER, "the host has none to give");
    return o;
}

static enum outcome try_fw_cfg(const struct sm_fetch *f, struct attempt *a, struct sm_guest_cert *ret)
{
    char path[PATH_MAX_OURS];

    (void)snprintf(path, sizeof(path), "%s/firmware/qemu_fw_cfg/by_name/" SM_GUEST_FW_CFG_NAME "/raw", f->sys);
    sm_guest_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(a, LATER, "%s: %s", path, strerror(errno));
    return read_text(a, fd, false, false, ret);
}

static enum outcome try_file(const char *path, struct attempt *a, struct sm_guest_cert *ret)
{
    bool input = strcmp(path, "-") == 0;
    sm_guest_autofd fd = input ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return fail(a, NEVER, "%s: %s", path, strerror(errno));
    enum outcome o = read_text(a, fd, false, false, ret);
    return o == LATER ? NEVER : o;
}

static enum outcome try_channel(const struct sm_fetch *f, size_t i, struct attempt *a, struct sm_guest_cert *ret)
{
    switch (f->channels[i].kind) {
    case SM_CHANNEL_VSOCK:
        return try_vsock(f, a, ret);
    case SM_CHANNEL_SERIAL:
        return try_serial(f, a, ret);
    case SM_CHANNEL_FW_CFG:
        return try_fw_cfg(f, a, ret);
    case SM_CHANNEL_FILE:
        return try_file(f->channels[i].path, a, ret);
    case SM_CHANNELS:
        break;
    }
    return fail(a, NEVER, "no such channel");
}

static void load(const char *module)
{
    char path[PATH_MAX_OURS];
    const char *modprobe = sm_guest_tool_find("modprobe", path, sizeof(path));
    const char *argv[] = {modprobe, "-q", module, NULL};

    if (modprobe && geteuid() == 0)
        (void)sm_guest_tool_run(argv, SM_GUEST_TOOL_SECONDS);
}

/** Where it came from, in words. */
static void describe(const struct sm_fetch *f, size_t i, char *ret, size_t size)
{
    const char *name = name_of(f->channels[i].kind);

    if (f->channels[i].kind == SM_CHANNEL_VSOCK)
        (void)snprintf(ret, size, "%s (CID %u, port %u)", name, f->cid, f->port);
    else if (f->channels[i].kind == SM_CHANNEL_FILE)
        (void)snprintf(ret, size, "%s %s", name, f->channels[i].path);
    else
        (void)snprintf(ret, size, "%s", name);
}

/** One round. Returns GOT or BAD (at *ret_i), LATER, or NEVER when all are over. */
static enum outcome one_round(const struct sm_fetch *f, int64_t deadline, bool first, struct attempt *a,
                              struct progress *progress, struct sm_guest_cert *ret, size_t *ret_i)
{
    enum outcome all = NEVER;

    for (*ret_i = 0; *ret_i < f->n; (*ret_i)++) {
        struct progress *p = &progress[*ret_i];
        const char *module = module_of(f->channels[*ret_i].kind);
        int64_t now = sm_guest_now();
        if (p->over)
            continue;
        /* Also where the time is over (--wait 0), a channel that is there is given a moment. */
        a->deadline = now + SM_MAX((deadline - now) / (int64_t)(f->n - *ret_i), (int64_t)SM_FETCH_PAUSE_MS);
        enum outcome o = try_channel(f, *ret_i, a, ret);
        if (o == LATER && first && f->load && module) {
            load(module);
            o = try_channel(f, *ret_i, a, ret);
        }
        if (o == GOT || o == BAD)
            return o;
        (void)snprintf(p->why, sizeof(p->why), "%s", a->why);
        p->over = o == NEVER;
        if (o == LATER)
            all = LATER;
    }
    return all;
}

enum sm_guest_status sm_guest_fetch(const struct sm_fetch *f, struct sm_guest_cert *ret, struct sm_report *r)
{
    static struct attempt a;
    static struct progress progress[SM_FETCH_CHANNELS];
    int64_t deadline = sm_guest_now() + f->wait_ms;
    char from[PATH_MAX_OURS + 64], hex[SM_SHA256_HEX];
    size_t i;

    for (bool first = true;; first = false) {
        enum outcome o = one_round(f, deadline, first, &a, progress, ret, &i);
        if (o == GOT || o == BAD) {
            describe(f, i, from, sizeof(from));
            if (o == BAD) {
                sm_report_error(r, "%s gave no certificate that can be used: %s", from, a.why);
                return SM_GUEST_BAD_CERT;
            }
            sm_guest_sha256(ret->der, ret->der_len, hex);
            sm_report_fetched(r, from, hex);
            return SM_GUEST_DONE;
        }
        int64_t left = deadline - sm_guest_now();
        if (o == NEVER || left <= 0)
            break;
        (void)poll(NULL, 0, (int)SM_MIN(left, (int64_t)SM_FETCH_PAUSE_MS));
    }
    char all[SM_FETCH_CHANNELS * (WHY_MAX + 32)] = "";
    for (size_t used = i = 0; i < f->n && used < sizeof(all); i++)
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s: %s", i > 0 ? "; " : "",
                                 name_of(f->channels[i].kind), progress[i].why);
    sm_report_error(r, "no certificate within %lld s (%s)", (long long)(f->wait_ms / 1000), all);
    return SM_GUEST_NOT_FETCHED;
}
