/* SPDX-License-Identifier: BSD-3-Clause */
/* A workspace out of a snapshot; see restore.h. */
#include "launch/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "core/carry.h"
#include "launch/exit.h"
#include "launch/keepca.h"
#include "launch/messages.h"
#include "launch/settings.h"
#include "launch/snapkey.h"
#include "launch/snapshot.h"

#define RESTORED_FILE_MAX 4096

void sm_restore_result_clear(struct sm_restore_result *r)
{
    g_clear_pointer(&r->name, g_free);
    sm_snapshot_clear(&r->snapshot);
    g_clear_pointer(&r->shares, g_ptr_array_unref);
}

/* "AB:CD:..." as openssl prints it, or as we do. */
static bool read_fingerprint(const char *text, char out[SM_TLS_FINGERPRINT_STRLEN], GError **error)
{
    size_t n = 0;

    for (const char *p = text; *p && n < SM_TLS_FINGERPRINT_STRLEN - 1; p++)
        if (*p != ':')
            out[n++] = g_ascii_tolower(*p);
    out[n] = '\0';
    g_autofree char *bare = g_strdup(text);
    size_t digits = strlen(g_strdelimit(bare, ":", ' '));
    for (const char *p = bare; *p; p++)
        digits -= *p == ' ';
    if (digits == SM_TLS_FINGERPRINT_STRLEN - 1 && sm_carry_is_hex(out, SM_TLS_FINGERPRINT_STRLEN - 1))
        return true;
    sm_error_set(error, SM_ERROR_INVALID, "--expect-ca=%.100s: not a SHA-256 fingerprint: write 64 hex digits", text);
    return false;
}

/* What can be said of the file alone. */
static bool check_ca(const struct sm_restore_request *r, const struct sm_snapshot *s, GError **error)
{
    char expected[SM_TLS_FINGERPRINT_STRLEN];

    if (r->expect_ca) {
        if (!read_fingerprint(r->expect_ca, expected, error))
            return false;
        if (strcmp(expected, s->ca_sha256) != 0) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "--expect-ca=%s: the snapshot's CA is %s: it belongs to another guest", expected,
                         s->ca_sha256[0] ? s->ca_sha256 : "none");
            return false;
        }
    }
    if (!s->ca_cert)
        return true;
    struct sm_tls_ca *ca = sm_tls_ca_load(s->ca_cert, s->ca_key, error);
    bool ok = ca && sm_tls_ca_lasts(ca, g_get_real_time(), error);
    sm_tls_ca_free(ca);
    return ok;
}

/* Is there a workspace? As sm_workspace_look(), which would find us; a folder that a killed restore left is none. */
static bool is_taken(const struct sm_workspace *ws)
{
    struct stat st;

    return fstatat(ws->dirfd, SM_SETTINGS_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
           fstatat(ws->dirfd, SM_STATE_SETTINGS, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Forks. */

/* The workspace has the snapshot's CA (its key, now), or was restored from the same snapshot. */
static bool is_relative(const struct sm_workspace *ws, const struct sm_snapshot *s, bool *ret_ca)
{
    struct stat st;
    g_autofree char *cert = sm_workspace_read_file(ws, SM_STATE_CA_CERT, SM_TLS_CA_CERT_PEM_MAX, NULL, NULL);
    g_autofree char *text = sm_workspace_read_file(ws, SM_STATE_RESTORED, RESTORED_FILE_MAX, NULL, NULL);
    json_auto_t *restored = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *id = json_string_value(json_object_get(restored, "snapshot"));

    *ret_ca = cert && s->ca_cert && strcmp(cert, s->ca_cert) == 0 &&
              fstatat(ws->dirfd, SM_STATE_CA_KEY, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return *ret_ca || (id && strcmp(id, s->id) == 0);
}

/** Whose CA, or snapshot, it is too. */
static void find_relatives(const struct sm_workspace *ws, const struct sm_snapshot *s, GPtrArray *shares,
                           GPtrArray *forks)
{
    DIR *dir = opendir(ws->base);

    for (const struct dirent *e; dir && (e = readdir(dir));) {
        sm_cleanup(sm_workspace_close) struct sm_workspace other = SM_WORKSPACE_INIT;
        bool same_ca;
        if (strcmp(e->d_name, ws->name) == 0 || !sm_state_name_check(e->d_name, NULL) ||
            sm_workspace_open(ws->base, e->d_name, false, &other, NULL) < 0 || !is_relative(&other, s, &same_ca))
            continue;
        g_ptr_array_add(forks, g_strdup(e->d_name));
        if (same_ca)
            g_ptr_array_add(shares, g_strdup(e->d_name));
    }
    if (dir)
        (void)closedir(dir);
}

/* Files. */

static bool stage_json(const struct sm_workspace *ws, const char *name, const json_t *value, GError **error)
{
    char *text = json_dumps(value, JSON_COMPACT);
    bool ok = text && sm_workspace_stage(ws, name, text, strlen(text), error) == 0;

    free(text);
    return ok;
}

static bool stage_counters(const struct sm_workspace *ws, const struct sm_counters *old,
                           const uint64_t bytes[SM_CAPS_DIRS], GError **error)
{
    char file[SM_COUNTERS_FILE];

    for (uint64_t i = 1; i <= 2; i++) {
        struct sm_counters c = {.seq = old->seq + i, .bytes = {bytes[SM_CAPS_UP], bytes[SM_CAPS_DOWN]}};
        sm_counters_encode(&c, file + c.seq % 2 * SM_COUNTERS_RECORD);
    }
    return sm_workspace_stage(ws, SM_STATE_COUNTERS, file, sizeof(file), error) == 0;
}

static bool stage_ca(const struct sm_workspace *ws, const struct sm_snapshot *s, GError **error)
{
    size_t len;
    const uint8_t *key = sm_secret_bytes(s->ca_key, &len);
    g_autofree char *mark = g_strconcat(s->ca_sha256, "\n", NULL);

    return sm_workspace_stage(ws, SM_STATE_CA_KEY, key, len, error) == 0 &&
           sm_workspace_stage(ws, SM_STATE_CA_CERT, s->ca_cert, strlen(s->ca_cert), error) == 0 &&
           sm_workspace_stage(ws, SM_STATE_CA_KEPT, mark, strlen(mark), error) == 0;
}

/** In the order in which they come into force: with settings.json there is a workspace. */
static const char *const files[] = {SM_STATE_CA_KEY,   SM_STATE_CA_CERT, SM_STATE_CA_KEPT,
                                    SM_STATE_POLICY,   SM_STATE_PINS,    SM_STATE_COUNTERS,
                                    SM_STATE_RESTORED, SM_SETTINGS_FILE, SM_STATE_SETTINGS};

/** Every file of a folder that this restore made, and the folder. */
static void remove_all(const struct sm_workspace *ws)
{
    sm_autofd copy = fcntl(ws->dirfd, F_DUPFD_CLOEXEC, 3);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (dir)
        (void)sm_steal_fd(&copy);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        (void)unlinkat(ws->dirfd, e->d_name, 0);
    if (dir)
        (void)closedir(dir);
    (void)unlinkat(ws->base_fd, ws->name, AT_REMOVEDIR);
}

static void undo(const struct sm_workspace *ws)
{
    if (ws->created) {
        remove_all(ws);
        return;
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(files); i++) {
        g_autofree char *new_name = g_strconcat(files[i], SM_STATE_NEW, NULL);
        (void)unlinkat(ws->dirfd, new_name, 0);
    }
}

/* Settings. */

/** The flags as they are from now on. @policy: path of the file of entries, or NULL. */
static void change_args(struct sm_settings *settings, bool ca, const char *policy)
{
    GPtrArray *args = g_ptr_array_new();

    for (size_t i = 0; settings->args[i]; i++) {
        const char *arg = settings->args[i];
        if (!g_str_has_prefix(arg, "--egress-policy=") && strcmp(arg, "--keep-ca") != 0)
            g_ptr_array_add(args, g_strdup(arg));
    }
    if (ca)
        g_ptr_array_add(args, g_strdup("--keep-ca"));
    if (policy)
        g_ptr_array_add(args, g_strconcat("--egress-policy=", policy, NULL));
    g_ptr_array_add(args, NULL);
    g_strfreev(settings->args);
    settings->args = (char **)g_ptr_array_free(args, FALSE);
}

static void add_entries(GPtrArray *words, const json_t *policy, const char *key, const char *flag)
{
    const json_t *array = json_object_get(policy, key);

    for (size_t i = 0; i < json_array_size(array); i++)
        g_ptr_array_add(words, g_strconcat(flag, json_string_value(json_array_get(array, i)), NULL));
}

/**
 * Could it be started? Everything that its flags name is looked at, as `create` does; the entries stand in flags here, since their file is not in
 * its place yet. Returns workspace.json, g_free().
 */
static char *check_settings(const struct sm_restore_request *r, const struct sm_settings *settings,
                            const struct sm_workspace *ws, const struct sm_snapshot *s, const char *policy,
                            GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};
    bool lacks = settings->command == SM_COMMAND_RUN && !settings->cmd;

    g_ptr_array_add(words, g_strdup(sm_command_name(settings->command)));
    g_ptr_array_add(words, g_strconcat("--name=", ws->name, NULL)); /* as sm_settings_options() */
    g_ptr_array_add(words, g_strconcat("--state-dir=", ws->base, NULL));
    for (size_t i = 0; settings->args[i]; i++)
        if (!g_str_has_prefix(settings->args[i], "--egress-policy="))
            g_ptr_array_add(words, g_strdup(settings->args[i]));
    if (policy) {
        add_entries(words, s->policy, "allow", "--egress-allow=");
        add_entries(words, s->policy, "passthrough", "--egress-passthrough=");
    }
    if (settings->cmd || lacks)
        g_ptr_array_add(words, g_strdup("--"));
    for (size_t i = 0; settings->cmd && settings->cmd[i]; i++)
        g_ptr_array_add(words, g_strdup(settings->cmd[i]));
    if (lacks)
        g_ptr_array_add(words, g_strdup("true")); /* `start NAME -- CMD` brings it */
    int argc = (int)words->len;
    g_ptr_array_add(words, NULL);
    if (sm_run_options_parse_stored(argc, (char **)words->pdata, settings->spec, &o, error) < 0) {
        g_autofree char *shown = g_utf8_make_valid(r->file, -1);
        g_prefix_error(error, "%s: settings: ", shown);
        return NULL;
    }
    char *facts = NULL;
    if (sm_run_options_intercepts(&o) && !s->ca_cert) {
        g_autofree char *shown = g_utf8_make_valid(r->file, -1);
        sm_error_set(error, SM_ERROR_INVALID, "%s: ca: there is none, and its settings intercept TLS", shown);
    } else {
        if (policy)
            g_ptr_array_add(o.policy_files, g_strdup(policy));
        facts = sm_message_settings(&o, error);
    }
    sm_run_options_clear(&o); /* before the words that it points into */
    return facts;
}

static bool begin_settings(const struct sm_restore_request *r, const struct sm_snapshot *s, struct sm_settings *ret,
                           GError **error)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *shown = g_utf8_make_valid(r->file, -1);
    g_autofree char *where = g_strconcat(shown, ": settings", NULL);
    char *text = json_dumps(s->settings, JSON_COMPACT);
    bool ok = text && sm_settings_parse(where, text, strlen(text), ret, error);

    free(text);
    if (ok) {
        g_free(ret->created);
        ret->created = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    }
    return ok;
}

/* Everything is known, and the folder is ours. */
static bool write_all(const struct sm_restore_request *r, const struct sm_workspace *ws, struct sm_settings *settings,
                      const struct sm_counters *old, struct sm_restore_result *out, GError **error)
{
    const struct sm_snapshot *s = &out->snapshot;
    json_auto_t *restored = json_pack("{s:s, s:s, s:s, s:o}", "snapshot", s->id, "workspace", s->workspace, "created",
                                      s->created, "ca_sha256", s->ca_cert ? json_string(s->ca_sha256) : json_null());
    bool lists = json_array_size(json_object_get(s->policy, "allow")) +
                     json_array_size(json_object_get(s->policy, "passthrough")) >
                 0;
    g_autofree char *policy = lists ? g_strdup_printf("%s/%s/" SM_STATE_POLICY, ws->base, ws->name) : NULL;

    change_args(settings, s->ca_cert != NULL, policy);
    g_autofree char *facts = check_settings(r, settings, ws, s, policy, error);
    if (!facts)
        return false;
    json_auto_t *json = sm_settings_json(settings);
    if ((s->ca_cert && !stage_ca(ws, s, error)) || (policy && !stage_json(ws, SM_STATE_POLICY, s->policy, error)) ||
        !stage_json(ws, SM_STATE_PINS, s->pins, error) || !stage_counters(ws, old, out->counters, error) ||
        !stage_json(ws, SM_STATE_RESTORED, restored, error) || !stage_json(ws, SM_SETTINGS_FILE, json, error) ||
        sm_workspace_stage(ws, SM_STATE_SETTINGS, facts, strlen(facts), error) < 0)
        return false;
    (void)unlinkat(ws->dirfd, SM_EXIT_FILE,
                   0); /* of the workspace that is replaced, as what is not there any more below */
    for (size_t i = 0; i < SM_ARRAY_LEN(files); i++) {
        bool not_ours =
            (g_str_has_prefix(files[i], "ca.") && !s->ca_cert) || (strcmp(files[i], SM_STATE_POLICY) == 0 && !policy);
        if (not_ours)
            (void)unlinkat(ws->dirfd, files[i], 0);
        else if (sm_workspace_commit(ws, files[i], error) < 0)
            return false;
    }
    return true;
}

static bool restore_into(const struct sm_restore_request *r, const struct sm_workspace *ws,
                         struct sm_settings *settings, struct sm_restore_result *out, GError **error)
{
    const struct sm_snapshot *s = &out->snapshot;
    g_autoptr(GPtrArray) forks = g_ptr_array_new_with_free_func(g_free);
    struct sm_counters old = {0};

    if (!ws->created && is_taken(ws) && !r->force) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "workspace '%s' is there already: choose another one with --name, or give --force to replace it",
                     ws->name);
        return false;
    }
    find_relatives(ws, s, out->shares, forks);
    if (r->refuse_fork && forks->len > 0) {
        sm_error_set(error, SM_ERROR_BUSY, "workspace '%s' is of the same snapshot, or has its CA (--refuse-fork)",
                     (const char *)g_ptr_array_index(forks, 0));
        return false;
    }
    if (!sm_workspace_read_counters(ws, &old, r->reset_caps ? NULL : error) && !r->reset_caps)
        return false;
    for (size_t i = 0; i < SM_CAPS_DIRS; i++)
        out->counters[i] = r->reset_caps ? 0 : SM_MAX(old.bytes[i], s->counters[i]);
    return write_all(r, ws, settings, &old, out, error);
}

static struct sm_secret *find_key(const struct sm_restore_request *r, GError **error)
{
    g_autofree char *base = NULL;

    if (r->key_file)
        return sm_snapshot_key_file(r->key_file, error);
    sm_autofd fd = sm_state_base_open(r->state_dir, false, &base, error);
    if (fd >= 0)
        return sm_snapshot_key(fd, base, false, error);
    g_prefix_error(error, "there is no key to look at the snapshot with (--key-file FILE names another machine's): ");
    return NULL;
}

static size_t alive(const json_t *pins)
{
    int64_t now = g_get_real_time();
    size_t n = 0;

    for (size_t i = 0; i < json_array_size(pins); i++)
        n += json_integer_value(json_object_get(json_array_get(pins, i), "expires_us")) > now;
    return n;
}

int sm_restore(const struct sm_restore_request *r, struct sm_restore_result *ret, GError **error)
{
    sm_cleanup(sm_restore_result_clear) struct sm_restore_result out = {.shares =
                                                                            g_ptr_array_new_with_free_func(g_free)};
    sm_cleanup(sm_settings_clear) struct sm_settings settings = {0};
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_secret_freep) struct sm_secret *key = find_key(r, error);

    if (!key || !sm_snapshot_load(r->file, key, &out.snapshot, error))
        return -1;
    /* --name was looked at by whoever took it; sm_workspace_open() looks again */
    out.name = g_strdup(r->name ? r->name : out.snapshot.workspace);
    out.pins = alive(out.snapshot.pins);
    if (!begin_settings(r, &out.snapshot, &settings, error))
        return -1;
    if (!sm_state_name_check(out.snapshot.workspace, error) || !check_ca(r, &out.snapshot, error)) {
        g_autofree char *shown = g_utf8_make_valid(r->file, -1);
        g_prefix_error(error, "%s: ", shown);
        return -1;
    }
    if (sm_workspace_open(r->state_dir, out.name, true, &ws, error) < 0)
        return -1;
    if (flock(ws.base_fd, LOCK_EX) < 0) { /* until ws is closed */
        sm_error_set_errno(error, errno, "lock %s", ws.base);
        undo(&ws);
        return -1;
    }
    if (sm_workspace_lock(&ws, error) < 0)
        return -1; /* somebody's: not ours to undo */
    if (!restore_into(r, &ws, &settings, &out, error)) {
        undo(&ws);
        return -1;
    }
    *ret = out;
    out = (struct sm_restore_result){0}; /* handed over */
    return 0;
}
