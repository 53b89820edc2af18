/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med egress`: the audit on stdout, and with --follow until the workspace stops.
 *
 * "Runs" means that somebody holds the flock on <state>/NAME/lock, as the launcher does from before egress_start until
 * all of the workspace's processes are gone: so also a workspace that was killed ends the following. The probe takes a
 * shared lock for a few microseconds.
 */
#include "cli/egress.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/event.h"
#include "audit/file.h"
#include "audit/reader.h"
#include "audit/show.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/color.h"

static const char usage[] = "usage: slirp-med egress NAME [--json] [--follow] [--color WHEN] [--state-dir DIR]\n"
                            "\n"
                            "Print what workspace NAME tried to reach and how it was judged, oldest first.\n"
                            "\n"
                            "  --json           a JSON array; with --follow one JSON object a line\n"
                            "  -f, --follow     go on with new lines until the workspace stops or Ctrl-C\n"
                            "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, "
                            "or ~/.local/state/slirp-med)\n" SM_COLOR_HELP;

/* Output is collected to this much, and written at once when there is nothing to read. */
#define OUT_BYTES (64u << 10)
/* A workspace that was killed is noticed within this, should no event tell. */
#define LOCK_PROBE_MS 1000

struct egress {
    const char *name;
    const char *state_dir;
    bool json;
    bool follow;
    bool help;
    bool color;

    int dirfd;
    struct sm_audit_reader *reader;
    GString *out;
    bool any;     /* a line was printed */
    bool stopped; /* the last start or stop seen was a stop */
    bool closed;  /* nobody reads our output any more */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static bool usage_error(GError **error, const char *what, const char *value)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s%s%s%s (see slirp-med egress --help)", what, value ? ": '" : "",
                 value ? value : "", value ? "'" : "");
    return false;
}

static bool parse_args(struct egress *e, int argc, char **argv, GError **error)
{
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (options && strcmp(arg, "--") == 0) {
            options = false;
        } else if (options && strcmp(arg, "--json") == 0) {
            e->json = true;
        } else if (options && (strcmp(arg, "--follow") == 0 || strcmp(arg, "-f") == 0)) {
            e->follow = true;
        } else if (options && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            e->help = true;
        } else if (options && strcmp(arg, "--state-dir") == 0) {
            if (++i >= argc)
                return usage_error(error, "--state-dir: names no folder: give one behind it", NULL);
            e->state_dir = argv[i];
        } else if (options && g_str_has_prefix(arg, "--state-dir=")) {
            e->state_dir = arg + strlen("--state-dir=");
        } else if (options && arg[0] == '-' && arg[1]) {
            return usage_error(error, "unknown option", arg);
        } else if (e->name) {
            return usage_error(error, "one NAME is expected, this is a second", arg);
        } else {
            e->name = arg;
        }
    }
    if (e->help)
        return true;
    if (!e->name)
        return usage_error(error, "NAME is missing: which workspace's log?", NULL);
    if (!sm_audit_name_valid(e->name))
        return usage_error(
            error, "not a workspace name (letters, digits, '.', '_', '-'; at most 63, the first a letter or digit)",
            e->name);
    if (e->state_dir && !e->state_dir[0])
        return usage_error(error, "--state-dir: empty: give a folder", NULL);
    return true;
}

/* --state-dir, $XDG_STATE_HOME/slirp-med, $HOME/.local/state/slirp-med. The XDG specification has relative values
 * ignored. */
static char *state_dir(const struct egress *e, GError **error)
{
    const char *xdg = g_getenv("XDG_STATE_HOME"), *home = g_getenv("HOME");
    if (e->state_dir)
        return g_strdup(e->state_dir);
    if (xdg && xdg[0] == '/')
        return g_build_filename(xdg, "slirp-med", NULL);
    if (home && home[0] == '/')
        return g_build_filename(home, ".local", "state", "slirp-med", NULL);
    sm_error_set(error, SM_ERROR_INVALID, "neither XDG_STATE_HOME nor HOME is set: use --state-dir DIR");
    return NULL;
}

static bool open_workspace(struct egress *e, GError **error)
{
    g_autofree char *base = state_dir(e, error);
    if (!base)
        return false;
    sm_autofd state = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (state >= 0)
        e->dirfd = openat(state, e->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (e->dirfd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
            sm_error_set(error, SM_ERROR_INVALID, "no workspace '%s' in %s: check the name, or give --state-dir",
                         e->name, base);
        else
            sm_error_set_errno(error, errno, "cannot open workspace '%s' in %s", e->name, base);
        return false;
    }
    return true;
}

/* Whether the workspace runs: its launcher holds the lock. */
static bool is_running(const struct egress *e)
{
    sm_autofd fd = openat(e->dirfd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* Write out what is collected. False when there is no use in going on. */
static bool flush(struct egress *e, GError **error)
{
    size_t done = 0;
    while (done < e->out->len) {
        ssize_t n = write(STDOUT_FILENO, e->out->str + done, e->out->len - done);
        if (n < 0 && errno == EINTR) {
            if (interrupted)
                break;
            continue;
        }
        if (n < 0 && errno == EAGAIN) { /* somebody else's terminal setting */
            struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
            (void)poll(&p, 1, -1);
            if (interrupted)
                break;
            continue;
        }
        if (n < 0) {
            if (errno == EPIPE)
                e->closed = true;
            else
                sm_error_set_errno(error, errno, "cannot write to standard output");
            return false;
        }
        done += (size_t)n;
    }
    g_string_truncate(e->out, 0);
    return true;
}

/**
 * What was refused or failed, and what was let through; all else is as it is. By the name: also of a version that has
 * more events.
 */
static const char *tint_of(const struct sm_audit_line *line)
{
    if (line->kind != SM_AUDIT_LINE_RECORD)
        return sm_tint(true, SM_TINT_WARN);
    if (g_str_has_suffix(line->event, "_deny") || strcmp(line->event, "egress_loop_guard") == 0)
        return sm_tint(true, SM_TINT_DENY);
    if (g_str_has_suffix(line->event, "_error") || strcmp(line->event, "egress_cap_exceeded") == 0)
        return sm_tint(true, SM_TINT_WARN);
    if (g_str_has_suffix(line->event, "_allow"))
        return sm_tint(true, SM_TINT_ALLOW);
    return "";
}

static void print_line(struct egress *e, const struct sm_audit_line *line)
{
    if (line->missing > 0)
        fprintf(stderr,
                "slirp-med egress: %" G_GUINT64_FORMAT " lines before seq %" G_GUINT64_FORMAT
                " are not in the log any more\n",
                line->missing, line->seq);
    if (e->json) {
        if (!e->follow)
            g_string_append(e->out, e->any ? ",\n" : "[\n");
        sm_audit_show_json(e->out, line);
        if (e->follow)
            g_string_append_c(e->out, '\n');
    } else {
        if (!e->any)
            sm_audit_show_header(e->out);
        const char *tint = e->color ? tint_of(line) : "";
        g_string_append(e->out, tint);
        sm_audit_show_columns(e->out, line);
        if (tint[0]) /* in front of the newline: a terminal that is cut off in between keeps no colour */
            g_string_insert(e->out, (gssize)e->out->len - 1, sm_tint_end(true));
    }
    e->any = true;
    if (strcmp(line->event, sm_audit_event_name(SM_AUDIT_EGRESS_STOP)) == 0)
        e->stopped = true;
    else if (strcmp(line->event, sm_audit_event_name(SM_AUDIT_EGRESS_START)) == 0)
        e->stopped = false;
}

/* Print all that is there now. */
static bool print_available(struct egress *e, GError **error)
{
    struct sm_audit_line line;
    int n;
    while (!interrupted && (n = sm_audit_reader_next(e->reader, &line, error)) != 0) {
        if (n < 0)
            return false;
        print_line(e, &line);
        if (e->out->len >= OUT_BYTES && !flush(e, error))
            return false;
    }
    return flush(e, error);
}

static bool print_end(struct egress *e, GError **error)
{
    struct sm_audit_line line;
    if (!interrupted && sm_audit_reader_tail(e->reader, &line))
        print_line(e, &line);
    if (e->json && !e->follow)
        g_string_append(e->out, e->any ? "\n]\n" : "[]\n");
    return flush(e, error);
}

/* Until the current run stops. A stop that was there before we came belongs to an earlier run when somebody holds the
 * lock now. */
static bool follow(struct egress *e, GError **error)
{
    struct sigaction sa = {.sa_handler = on_signal}, old_int, old_term;
    int watch = sm_audit_reader_watch_fd(e->reader);
    sigset_t block, old_mask;
    bool ok;

    if (watch < 0) {
        sm_error_set_errno(error, errno, "cannot watch the workspace's folder (inotify)");
        return false;
    }
    /* Blocked except inside ppoll: Ctrl-C is not missed between the check and the wait. */
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGINT, &sa, &old_int);
    (void)sigaction(SIGTERM, &sa, &old_term);

    bool running = is_running(e);
    ok = print_available(e, error);
    if (running)
        e->stopped = false;
    while (ok && running && !e->stopped && !interrupted) {
        struct pollfd fds[] = {{.fd = watch, .events = POLLIN}, {.fd = STDOUT_FILENO}};
        struct timespec timeout = {.tv_sec = LOCK_PROBE_MS / 1000};
        (void)sigprocmask(SIG_BLOCK, &block, &old_mask);
        if (!interrupted)
            (void)ppoll(fds, SM_ARRAY_LEN(fds), &timeout, &old_mask);
        (void)sigprocmask(SIG_SETMASK, &old_mask, NULL);
        if (interrupted)
            break;
        if (fds[1].revents & POLLERR) {
            e->closed = true;
            break;
        }
        bool gone = sm_audit_reader_drain_watch(e->reader);
        /* The lock first: what was written before it was released is then printed. */
        running = !gone && is_running(e);
        ok = print_available(e, error);
    }
    (void)sigaction(SIGINT, &old_int, NULL);
    (void)sigaction(SIGTERM, &old_term, NULL);
    return ok;
}

static int report(const GError *error)
{
    /* Whoever fails has set it, in a file that the analyzer does not see. */
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
    fprintf(stderr, "slirp-med egress: %s\n", error->message);
    return g_error_matches(error, SM_ERROR, SM_ERROR_INVALID) ? 2 : 1;
}

int sm_cli_egress(int argc, char **argv)
{
    struct egress e = {.dirfd = -1};
    g_autoptr(GError) error = NULL;

    enum sm_color_when when;

    if (!sm_color_take(&argc, argv, &when, &error) || !parse_args(&e, argc, argv, &error))
        return report(error);
    e.color = !e.json && sm_color_on(when, STDOUT_FILENO);
    if (e.help) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (!open_workspace(&e, &error))
        return report(error);

    e.out = g_string_sized_new(2 * OUT_BYTES);
    interrupted = 0;
    e.reader = sm_audit_reader_new(e.dirfd, &error);
    bool ok = e.reader && (e.follow ? follow(&e, &error) : print_available(&e, &error)) && print_end(&e, &error);
    sm_audit_reader_free(e.reader);
    g_string_free(e.out, TRUE);
    sm_fd_close(&e.dirfd);
    if (error)
        return report(error);
    return ok || e.closed ? 0 : 1;
}
