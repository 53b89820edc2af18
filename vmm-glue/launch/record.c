/* SPDX-License-Identifier: BSD-3-Clause */
/* What is shown of workspaces; see record.h. */
#include "launch/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "launch/exit.h"
#include "launch/messages.h"
#include "launch/settings.h"

/** Of the audit's end: more than the longest line, so that the last whole one is in it. */
#define TAIL (256u << 10)

static void set(json_t *o, const char *key, json_t *value)
{
    (void)json_object_set_new(o, key, value ? value : json_null());
}

static json_t *time_json(time_t seconds)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc((gint64)seconds);
    g_autofree char *text = time ? g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ") : NULL;
    return text ? json_string(text) : json_null();
}

/** When a file was last written; null: it is not there. */
static json_t *written_at(const struct sm_workspace *ws, const char *name)
{
    struct stat st;
    return fstatat(ws->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? time_json(st.st_mtime) : json_null();
}

static void warn(const GError *error)
{
    if (error)
        fprintf(stderr, "slirp-med: warning: %s\n", error->message);
}

static json_t *last_exit(const struct sm_record_place *p)
{
    g_autoptr(GError) error = NULL;
    json_t *o = sm_exit_read(p->ws, &error);

    warn(error);
    return o;
}

/** What `create` was told; null: it was not created. */
static json_t *settings_json(const struct sm_workspace *ws)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};

    if (!sm_settings_exist(ws))
        return json_null();
    if (sm_settings_read(ws, &s, &error) == 0)
        return sm_settings_json(&s);
    warn(error);
    return json_null();
}

/**
 * What the next start would write into workspace.json, of one that `restore` made; NULL: there is nothing to start
 * with.
 */
static json_t *from_settings(const struct sm_workspace *ws)
{
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) words = NULL;
    char any[] = "true", *cmd[] = {any, NULL};

    if (!sm_settings_exist(ws))
        return NULL;
    if (sm_settings_read(ws, &s, &error) < 0 ||
        sm_settings_options(&s, ws, s.command == SM_COMMAND_RUN && !s.cmd ? cmd : NULL, &o, &words, &error) < 0) {
        warn(error);
        return NULL;
    }
    g_autofree char *text = sm_message_settings(&o, NULL);
    return text ? json_loads(text, 0, NULL) : NULL;
}

/** What workspace.json says and, over that, the answer; and what all records begin with. */
static json_t *base(const struct sm_record_place *p)
{
    struct stat st;
    bool there = fstatat(p->ws->dirfd, SM_STATE_SETTINGS, &st, AT_SYMLINK_NOFOLLOW) == 0;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = there ? sm_workspace_read_settings(p->ws, &error) : NULL;
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;

    warn(error);
    if (!text && !error)
        o = from_settings(p->ws);
    if (!json_is_object(o)) {
        json_decref(o);
        o = json_object();
    }
    if (p->answer)
        (void)json_object_update(o, (json_t *)(uintptr_t)p->answer);
    set(o, "schema", json_integer(SM_RECORD_SCHEMA));
    set(o, "name", json_string(p->ws->name));
    if (!p->answer) {
        set(o, "state", json_string(sm_workspace_state_name(p->state)));
        set(o, "started", NULL);
    }
    /*
     * Of one that crashed nobody has written the end: it was alive when its lock was taken and when the last line was
     * recorded.
     */
    set(o, "last_seen", p->state == SM_WORKSPACE_CRASHED ? written_at(p->ws, SM_AUDIT_FILE) : NULL);
    if (p->state == SM_WORKSPACE_CRASHED)
        set(o, "started", written_at(p->ws, SM_STATE_LOCK));
    return o;
}

/* ---- processes ---- */

/** Memory and processor time of a process; null when it cannot be read. */
static json_t *process_json(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    enum { UTIME = 11, STIME = 12, RSS = 21, FIELDS }; /* counted from the state, behind the name */

    if (pid <= 0 || !g_file_get_contents(path, &text, NULL, NULL))
        return json_null();
    const char *behind_name = strrchr(text, ')'); /* a name may hold anything else */
    g_auto(GStrv) fields = behind_name && behind_name[1] ? g_strsplit(behind_name + 2, " ", FIELDS + 1) : NULL;
    if (!fields || g_strv_length(fields) < FIELDS)
        return json_null();
    unsigned long user = strtoul(fields[UTIME], NULL, 10), system = strtoul(fields[STIME], NULL, 10);
    long rss = strtol(fields[RSS], NULL, 10);
    long ticks = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE);
    return json_pack("{s:i, s:I, s:I}", "pid", (int)pid, "rss_bytes", (json_int_t)rss * page, "cpu_ms",
                     (json_int_t)((user + system) * 1000 / (unsigned long)ticks));
}

static json_t *processes_json(const json_t *answer)
{
    json_t *processes = json_object(), *pid;
    const char *role;

    json_object_foreach(json_object_get(answer, "pids"), role, pid)
    {
        set(processes, role, process_json((pid_t)json_integer_value(pid)));
    }
    return processes;
}

/* ---- the audit ---- */

static json_t *file_size(const struct sm_workspace *ws, const char *name)
{
    struct stat st;
    return fstatat(ws->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? json_integer((json_int_t)st.st_size) : json_null();
}

/** The seq of the last whole line; null: there is none. */
static json_t *last_seq(const struct sm_workspace *ws)
{
    struct stat st;
    sm_autofd fd = openat(ws->dirfd, SM_AUDIT_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return json_null();
    size_t want = (size_t)SM_MIN((uint64_t)st.st_size, (uint64_t)TAIL);
    g_autofree char *tail = g_malloc(want + 1);
    ssize_t n = pread(fd, tail, want, st.st_size - (off_t)want);
    if (n <= 0)
        return json_null();
    char *end = memrchr(tail, '\n', (size_t)n);
    if (!end)
        return json_null();
    char *before = memrchr(tail, '\n', (size_t)(end - tail));
    const char *line = before ? before + 1 : tail;
    json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL), *seq = json_object_get(o, "seq");
    json_t *ret = json_is_integer(seq) ? json_incref(seq) : json_null();
    json_decref(o);
    return ret;
}

static json_t *audit_json(const struct sm_record_place *p)
{
    g_autofree char *path = g_strdup_printf("%s/%s/" SM_AUDIT_FILE, p->ws->base, p->ws->name);
    const json_t *health = json_object_get(json_object_get(json_object_get(p->answer, "reports"), "core"), "audit");
    json_t *o = json_pack("{s:s, s:o, s:o, s:o, s:o}", "path", path, "bytes", file_size(p->ws, SM_AUDIT_FILE),
                          "rotated_bytes", file_size(p->ws, SM_AUDIT_FILE_ROTATED), "last_written",
                          written_at(p->ws, SM_AUDIT_FILE), "seq", last_seq(p->ws));

    /* Of one that runs, as the core says. */
    set(o, "healthy", json_incref(json_object_get(health, "healthy")));
    set(o, "failure", json_incref(json_object_get(health, "failure")));
    set(o, "lost", json_incref(json_object_get(health, "lost")));
    return o;
}

/** What has been counted against a byte cap; one that runs says so itself, in the core's report. */
static json_t *counters_json(const struct sm_record_place *p)
{
    g_autoptr(GError) error = NULL;
    const json_t *caps = json_object_get(json_object_get(json_object_get(p->answer, "reports"), "core"), "caps");
    struct sm_counters c;

    if (json_object_get(caps, "bytes_up"))
        return json_pack("{s:O, s:O}", "bytes_up", json_object_get(caps, "bytes_up"), "bytes_down",
                         json_object_get(caps, "bytes_down"));
    if (!sm_workspace_read_counters(p->ws, &c, &error)) {
        warn(error);
        return json_null();
    }
    if (!c.seq)
        return json_null();
    return json_pack("{s:I, s:I}", "bytes_up", (json_int_t)c.bytes[SM_CAPS_UP], "bytes_down",
                     (json_int_t)c.bytes[SM_CAPS_DOWN]);
}

/* ---- the records ---- */

json_t *sm_record_status(const struct sm_record_place *p)
{
    json_t *o = base(p), *core = json_object_get(json_object_get(o, "reports"), "core");

    set(o, "settings", settings_json(p->ws));
    set(o, "last_exit", last_exit(p));
    set(o, "audit", audit_json(p));
    set(o, "counters", counters_json(p));
    set(o, "processes", p->answer ? processes_json(p->answer) : NULL);
    /* They stand beside the reports, and not in them: a reader of flows need not know who told them. */
    set(o, "flows", json_incref(json_object_get(core, "live")));
    if (core) {
        (void)json_object_del(core, "live");
        (void)json_object_del(core, "audit");
    }
    return o;
}

json_t *sm_record_network(const struct sm_record_place *p)
{
    json_t *o = base(p);
    json_t *r = json_pack("{s:i, s:O, s:O, s:O}", "schema", SM_RECORD_SCHEMA, "name", json_object_get(o, "name"),
                          "state", json_object_get(o, "state"), "started", json_object_get(o, "started"));

    set(r, "datapath", json_incref(json_object_get(o, "datapath")));
    set(r, "network", json_incref(json_object_get(o, "network")));
    json_decref(o);
    return r;
}

/** Since when it is in its state. */
static json_t *since(const struct sm_record_place *p, const json_t *o, const json_t *exit)
{
    switch (p->state) {
    case SM_WORKSPACE_RUNNING:
        return json_incref(json_object_get(o, "started"));
    case SM_WORKSPACE_CREATED:
    case SM_WORKSPACE_RESTORED:
        return written_at(p->ws, SM_STATE_CREATED);
    case SM_WORKSPACE_STOPPED:
        return json_incref(json_object_get(exit, "ended"));
    case SM_WORKSPACE_CRASHED:
        return json_incref(json_object_get(o, "last_seen"));
    case SM_WORKSPACE_EMPTY:
    case SM_WORKSPACE_STATES:
        break;
    }
    return NULL;
}

json_t *sm_record_row(const struct sm_record_place *p)
{
    static const char *const copied[] = {"name", "state", "command", "mode", "opaque", "datapath", "network"};
    json_t *o = base(p), *exit = last_exit(p), *r = json_object();

    for (size_t i = 0; i < SM_ARRAY_LEN(copied); i++)
        set(r, copied[i], json_incref(json_object_get(o, copied[i])));
    set(r, "pid", p->pid > 0 ? json_integer(p->pid) : NULL);
    set(r, "responding", p->state == SM_WORKSPACE_RUNNING ? json_boolean(p->answer != NULL) : NULL);
    set(r, "since", since(p, o, exit));
    set(r, "last_exit", exit);
    json_decref(o);
    return r;
}
