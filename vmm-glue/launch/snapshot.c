/* SPDX-License-Identifier: BSD-3-Clause */
/* What a snapshot holds, gathered and written; see snapshot.h. */
#include "launch/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "core/carry.h"
#include "launch/keepca.h"
#include "launch/restore.h"
#include "launch/settings.h"
#include "launch/snapkey.h"
#include "launch/state.h"
#include "supervisor/control.h"

/** The core's answer: it writes some MiB at most. */
#define ANSWER_MS 15000
/** A start that is under way has its control socket within milliseconds. */
#define BEGIN_TRIES 40
#define BEGIN_PAUSE_US 25000

static bool take_settings(struct sm_snapshot *s, const struct sm_settings *settings, GError **error)
{
    s->settings = sm_settings_json(settings);
    if (!s->settings)
        sm_error_set(error, SM_ERROR_INVALID, "a flag's value is not UTF-8");
    return s->settings != NULL;
}

static json_t *entries(const struct sm_lists *lists, enum sm_list_kind kind)
{
    char text[SM_ENTRY_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < sm_lists_count(lists, kind); i++)
        (void)json_array_append_new(a, json_string(sm_entry_format(sm_lists_get(lists, kind, i), text)));
    return a;
}

static bool take_counters(const struct sm_workspace *ws, struct sm_snapshot *s, GError **error)
{
    struct sm_counters c;

    if (!sm_workspace_read_counters(ws, &c, error))
        return false;
    memcpy(s->counters, c.bytes, sizeof(s->counters));
    return true;
}

/*
 * A workspace that does not run. It may be started meanwhile: what is read here is replaced as a whole or, as the counters, right at any time, and
 * a CA that is kept stays the same.
 */
static bool gather_stopped(const struct sm_workspace *ws, struct sm_snapshot *s, GError **error)
{
    char kept[SM_TLS_FINGERPRINT_STRLEN], *nothing[] = {(char *)(uintptr_t) "true", NULL};
    sm_cleanup(sm_settings_clear) struct sm_settings settings = {0};
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};
    g_auto(GStrv) argv = NULL;

    if (!sm_settings_exist(ws)) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "workspace '%s' does not run, and was not made by 'create': only while it runs is there something to "
            "be kept of it",
            ws->name);
        return false;
    }
    if (sm_settings_read(ws, &settings, error) < 0 || !take_settings(s, &settings, error))
        return false;
    bool lacks = settings.command == SM_COMMAND_RUN && !settings.cmd;
    if (sm_settings_options(&settings, ws, lacks ? nothing : NULL, &o, &argv, error) < 0)
        return false;
    bool ok = true;
    if (sm_run_options_intercepts(&o)) {
        int r = sm_kept_ca_read(ws, kept, error);
        if (r == 0)
            sm_error_set(
                error, SM_ERROR_INVALID,
                "workspace '%s' does not run, and keeps no CA: take the snapshot while it runs, or create it with "
                "--keep-ca and start it once",
                ws->name);
        ok = r > 0 && sm_kept_ca_load(ws, kept, &s->ca_cert, &s->ca_key, error);
        g_strlcpy(s->ca_sha256, ok ? kept : "", sizeof(s->ca_sha256));
    }
    if (o.net.mode == SM_NETWORK_USER && o.mode != SM_MODE_OFF)
        s->policy = json_pack("{s:o, s:o}", "allow", entries(o.lists, SM_LIST_ALLOW), "passthrough",
                              entries(o.lists, SM_LIST_PASSTHROUGH));
    sm_run_options_clear(&o); /* before the words that it points into */
    return ok && take_counters(ws, s, error) && sm_restored_pins(ws, &s->pins, error);
}

/** What a core wrote (core/carry.h). */
static bool take_carried(const struct sm_workspace *ws, const char *text, size_t len, struct sm_snapshot *s,
                         GError **error)
{
    json_error_t at;
    json_auto_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    json_t *sha256, *counters, *policy, *pins;
    json_int_t taken;

    if (!o || json_unpack_ex(o, &at, JSON_STRICT, "{s:I, s:o, s:o, s:o, s:o}", "taken_us", &taken, "ca_sha256", &sha256,
                             "counters", &counters, "policy", &policy, "pins", &pins) < 0) {
        sm_error_set(error, SM_ERROR_SYSTEM, "workspace '%s': the core's part of the snapshot: %s", ws->name, at.text);
        return false;
    }
    if (json_is_string(sha256)) {
        const char *text_of = json_string_value(sha256);
        if (!sm_carry_is_hex(text_of, SM_TLS_FINGERPRINT_STRLEN - 1) ||
            !sm_kept_ca_load(ws, text_of, &s->ca_cert, &s->ca_key, error))
            return false;
        g_strlcpy(s->ca_sha256, text_of, sizeof(s->ca_sha256));
    }
    if (json_is_null(counters) ? !take_counters(ws, s, error) : !sm_carry_counters_check(counters, s->counters, error))
        return false;
    if (!sm_carry_pins_check(pins, error))
        return false;
    s->pins = json_incref(pins);
    s->policy = json_is_null(policy) ? NULL : json_incref(policy);
    return true;
}

static bool gather_running(const struct sm_workspace *ws, int sock, struct sm_snapshot *s, GError **error)
{
    sm_cleanup(sm_settings_clear) struct sm_settings settings = {0};
    sm_autofd fd = -1;
    g_autofree char *line = sm_control_ask_for(sock, SM_CONTROL_SNAPSHOT, &fd, error);
    json_auto_t *answer = line ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;
    size_t len;

    if (!line)
        return false;
    if (!json_is_true(json_object_get(answer, "ok"))) {
        const char *why = json_string_value(json_object_get(answer, "error"));
        sm_error_set(error, SM_ERROR_SYSTEM, "workspace '%s': %s", ws->name, why ? why : "its answer is none");
        return false;
    }
    if (sm_settings_exist(ws)) {
        if (sm_settings_read(ws, &settings, error) < 0)
            return false;
    } else if (!json_is_object(json_object_get(answer, "settings"))) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "workspace '%s' cannot be kept: its port is a descriptor that one start was given (--fd)",
                     ws->name);
        return false;
    } else {
        char *text = json_dumps(json_object_get(answer, "settings"), JSON_ENCODE_ANY);
        bool ok = text && sm_settings_parse("its flags", text, strlen(text), &settings, error);
        free(text);
        if (!ok) {
            g_prefix_error(error, "workspace '%s' cannot be kept: ", ws->name);
            return false;
        }
    }
    if (!take_settings(s, &settings, error))
        return false;
    if (!json_is_true(json_object_get(answer, "core"))) { /* isolated */
        s->pins = json_array();
        return take_counters(ws, s, error);
    }
    g_autofree char *text = fd >= 0 ? sm_fd_read_all(fd, SM_CARRY_MAX, &len, error) : NULL;
    if (fd < 0)
        sm_error_set(error, SM_ERROR_SYSTEM, "workspace '%s': the core's part of the snapshot did not come", ws->name);
    return text && take_carried(ws, text, len, s, error);
}

/* A start or an end that is under way is waited for. */
static bool gather(struct sm_workspace *ws, struct sm_snapshot *s, GError **error)
{
    enum sm_workspace_state state;
    pid_t pid;

    for (int i = 0; i < BEGIN_TRIES; i++) {
        if (sm_workspace_look(ws, &state, &pid) < 0) {
            sm_error_set_errno(error, errno, "workspace '%s'", ws->name);
            return false;
        }
        if (state != SM_WORKSPACE_RUNNING)
            return gather_stopped(ws, s, error);
        sm_autofd sock = sm_control_connect(ws->dirfd, ANSWER_MS);
        if (sock >= 0)
            return gather_running(ws, sock, s, error);
        g_usleep(BEGIN_PAUSE_US);
    }
    sm_error_set(error, SM_ERROR_BUSY, "workspace '%s' is neither running nor stopped: try again", ws->name);
    return false;
}

/* The file. */

static bool write_name(int dir, const char *name, int fd, bool force)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *other = g_strdup_printf(".%.200s.%d.new", name, (int)getpid());

    if (!force)
        return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) == 0;
    (void)unlinkat(dir, other, 0);
    if (linkat(AT_FDCWD, self, dir, other, AT_SYMLINK_FOLLOW) < 0)
        return false;
    if (renameat(dir, other, dir, name) == 0)
        return true;
    int saved = errno;
    (void)unlinkat(dir, other, 0);
    errno = saved;
    return false;
}

/** A file without a name, or, where there is no such thing (NFS, overlayfs of old), one with a name of ours. */
static int open_nameless(int dir, const char *name, char **ret_name)
{
    int fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    *ret_name = g_strdup_printf(".%.200s.%d.part", name, (int)getpid());
    return openat(dir, *ret_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static bool write_file(const char *file, const struct sm_secret *data, bool force, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(file), *name = g_path_get_basename(file), *part = NULL;
    g_autofree char *shown = g_utf8_make_valid(file, -1);
    size_t len;
    const uint8_t *bytes = sm_secret_bytes(data, &len);
    sm_autofd dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    sm_autofd fd = dir < 0 ? -1 : open_nameless(dir, name, &part);

    bool ok = fd >= 0 && fchmod(fd, 0600) == 0 && sm_fd_write_all(fd, bytes, len) == 0 && fsync(fd) == 0 &&
              (part ? (force ? renameat(dir, part, dir, name) : linkat(dir, part, dir, name, 0)) == 0
                    : write_name(dir, name, fd, force));
    int saved = errno;
    if (part && fd >= 0)
        (void)unlinkat(dir, part, 0);
    if (ok)
        return true;
    if (saved == EEXIST)
        sm_error_set(error, SM_ERROR_INVALID, "%s: is there already: choose another name, or give --force", shown);
    else
        sm_error_set_errno(error, saved, "write %s", shown);
    return false;
}

int sm_snapshot_take(const struct sm_snapshot_request *r, struct sm_snapshot *ret, GError **error)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = {0};
    sm_cleanup(sm_secret_freep) struct sm_secret *key = NULL, *all = NULL;
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    uint8_t id[(SM_SNAPSHOT_ID_STRLEN - 1) / 2];
    struct stat st;

    if (!r->force && lstat(r->file, &st) == 0) { /* said before anything is asked; decided when it gets its name */
        g_autofree char *shown = g_utf8_make_valid(r->file, -1);
        sm_error_set(error, SM_ERROR_INVALID, "%s: is there already: choose another name, or give --force", shown);
        return -1;
    }
    if (sm_workspace_open(r->state_dir, r->name, false, &ws, error) < 0)
        return -1;
    if (r->key_file && !(key = sm_snapshot_key_file(r->key_file, error)))
        return -1;
    if (!gather(&ws, &s, error))
        return -1;
    if (!key && !(key = sm_snapshot_key(ws.base_fd, ws.base, true, error)))
        return -1;
    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id)) {
        sm_error_set_errno(error, errno, "random bytes");
        return -1;
    }
    for (size_t i = 0; i < sizeof(id); i++)
        (void)g_snprintf(s.id + 2 * i, 3, "%02x", id[i]);
    s.created = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    s.program = g_strdup(SM_VERSION);
    s.workspace = g_strdup(ws.name);
    if (!(all = sm_snapshot_encode(&s, key, error)) || !write_file(r->file, all, r->force, error))
        return -1;
    *ret = s;
    s = (struct sm_snapshot){0}; /* handed over */
    return 0;
}

bool sm_snapshot_load(const char *file, const struct sm_secret *key, struct sm_snapshot *ret, GError **error)
{
    g_autofree char *shown = g_utf8_make_valid(file, -1);
    sm_autofd fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: %s", shown, strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "%s: it holds a key, and is not a file of yours that is closed to others: chmod 600 it if you trust "
            "what is in it",
            shown);
        return false;
    }
    if (st.st_size > SM_SNAPSHOT_FILE_MAX) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: larger than %u bytes: no snapshot", shown, SM_SNAPSHOT_FILE_MAX);
        return false;
    }
    size_t cap = (size_t)st.st_size + 1, len = 0; /* one more: a file that grows meanwhile is too long */
    g_autofree uint8_t *data = g_malloc(cap);
    ssize_t n;
    while (len < cap && (n = pread(fd, data + len, cap - len, (off_t)len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            sm_error_set_errno(error, errno, "read %s", shown);
            sm_wipe(data, len);
            return false;
        }
        len += (size_t)n;
    }
    bool ok = sm_snapshot_decode(data, len, key, ret, error);
    sm_wipe(data, len);
    if (!ok)
        g_prefix_error(error, "%s: ", shown);
    return ok;
}
