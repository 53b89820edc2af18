/* SPDX-License-Identifier: BSD-3-Clause */
/* What a created workspace is started with; see settings.h. */
#include "launch/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "launch/canonical.h"

static char **strings_dup(char *const *strings)
{
    return strings ? g_strdupv((char **)(uintptr_t)strings) : NULL;
}

void sm_settings_new(const struct sm_run_options *o, const char *created, struct sm_settings *ret)
{
    GPtrArray *args = g_ptr_array_new();

    for (guint i = 0; i < o->given->len; i++)
        g_ptr_array_add(args, g_strdup(g_ptr_array_index(o->given, i)));
    g_ptr_array_add(args, NULL);
    *ret = (struct sm_settings){
        .command = o->command,
        .args = (char **)g_ptr_array_free(args, FALSE),
        .cmd = strings_dup(o->argv),
        .spec = json_incref(o->spec),
        .created = g_strdup(created),
    };
}

void sm_settings_clear(struct sm_settings *s)
{
    g_clear_pointer(&s->args, g_strfreev);
    g_clear_pointer(&s->cmd, g_strfreev);
    g_clear_pointer(&s->spec, json_decref);
    g_clear_pointer(&s->created, g_free);
}

/* ---- as JSON ---- */

static json_t *strings_json(char *const *strings)
{
    json_t *a = json_array();

    for (size_t i = 0; strings[i]; i++) {
        if (json_array_append_new(a, json_string(strings[i])) < 0) { /* not UTF-8 */
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

json_t *sm_settings_json(const struct sm_settings *s)
{
    json_t *args = strings_json(s->args), *cmd = s->cmd ? strings_json(s->cmd) : json_null();
    json_t *spec = s->spec ? json_incref(s->spec) : json_null();

    if (!args || !cmd) {
        json_decref(args);
        json_decref(cmd);
        json_decref(spec);
        return NULL;
    }
    return json_pack("{s:i, s:s, s:o, s:o, s:o, s:s}", "version", SM_SETTINGS_VERSION, "command",
                     sm_command_name(s->command), "args", args, "cmd", cmd, "spec", spec, "created", s->created);
}

static bool wrong(const char *file, const char *key, const char *what, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s: %s: %s", file, key, what);
    return false;
}

/** An array of at most max texts. */
static bool take_strings(const char *file, const char *key, const json_t *value, size_t max, char ***ret,
                         GError **error)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(value))
        return wrong(file, key, "not an array of texts", error);
    if (json_array_size(value) > max) {
        sm_error_set(error, SM_ERROR_LIMIT, "%s: %s: more than %zu", file, key, max);
        return false;
    }
    char **strings = g_new0(char *, json_array_size(value) + 1);
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item)) {
            g_strfreev(strings);
            g_autofree char *at = g_strdup_printf("%s[%zu]", key, i);
            return wrong(file, at, "not a text", error);
        }
        strings[i] = g_strdup(json_string_value(item));
    }
    *ret = strings;
    return true;
}

/** Name and folder are where the file lies, and what is of one start was never kept. */
static bool check_args(const char *file, char *const *args, GError **error)
{
    for (size_t i = 0; args[i]; i++) {
        g_autofree char *at = g_strdup_printf("args[%zu]", i);
        if (!g_str_has_prefix(args[i], "--") || args[i][2] == '\0' || args[i][2] == '=')
            return wrong(file, at, "not a flag", error);
        g_autofree char *name = g_strndup(args[i] + 2, strcspn(args[i] + 2, "="));
        if (strcmp(name, "name") == 0 || strcmp(name, "state-dir") == 0 || strcmp(name, "help") == 0 ||
            strcmp(name, "spec") == 0 || sm_option_of_one_start(name))
            return wrong(file, at, "a flag that is not kept", error);
    }
    return true;
}

static bool take_key(const char *file, const char *key, const json_t *value, struct sm_settings *s, GError **error)
{
    if (strcmp(key, "version") == 0) {
        if (json_is_integer(value) && json_integer_value(value) == SM_SETTINGS_VERSION)
            return true;
        return wrong(file, key, "not a version that this slirp-med knows (" G_STRINGIFY(SM_SETTINGS_VERSION) ")",
                     error);
    }
    if (strcmp(key, "command") == 0) {
        const char *text = json_string_value(value);
        return (text && sm_command_parse(text, &s->command)) ||
               wrong(file, key, "write run, vm, attach or proxy", error);
    }
    if (strcmp(key, "args") == 0)
        return take_strings(file, key, value, SM_SETTINGS_ARGS_MAX, &s->args, error) &&
               check_args(file, s->args, error);
    if (strcmp(key, "cmd") == 0)
        return json_is_null(value) || take_strings(file, key, value, SM_SETTINGS_CMD_MAX, &s->cmd, error);
    if (strcmp(key, "spec") == 0) {
        if (!json_is_null(value) && !json_is_object(value))
            return wrong(file, key, "neither an object nor null", error);
        s->spec = json_is_null(value) ? NULL : json_incref((json_t *)(uintptr_t)value);
        return true;
    }
    if (strcmp(key, "created") == 0) {
        g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
        const char *text = json_string_value(value);
        g_autoptr(GDateTime) time = text ? g_date_time_new_from_iso8601(text, utc) : NULL;
        if (!time)
            return wrong(file, key, "not a time (RFC 3339)", error);
        s->created = g_strdup(text);
        return true;
    }
    g_autofree char *shown = g_strescape(key, NULL);
    g_autofree char *cut = g_strndup(shown, 80);
    return wrong(file, cut, "unknown key", error);
}

bool sm_settings_parse(const char *file, const char *text, size_t len, struct sm_settings *ret, GError **error)
{
    static const char *const keys[] = {"version", "command", "args", "cmd", "spec", "created"};
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
    json_error_t where;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    const char *key;
    json_t *value;
    bool ok = true;

    if (!o) {
        sm_error_set(error, SM_ERROR_INVALID, "%s:%d: %s", file, where.line, where.text);
        return false;
    }
    if (!json_is_object(o))
        ok = wrong(file, "the document", "not an object", error);
    for (size_t i = 0; ok && i < SM_ARRAY_LEN(keys); i++)
        if (!json_object_get(o, keys[i]))
            ok = wrong(file, keys[i], "missing", error);
    if (ok) {
        json_object_foreach(o, key, value)
        {
            ok = take_key(file, key, value, &s, error);
            if (!ok)
                break;
        }
    }
    json_decref(o);
    if (!ok)
        return false;
    *ret = s;
    s = (struct sm_settings){0}; /* handed over */
    return true;
}

/* ---- as a file ---- */

int sm_settings_write(const struct sm_workspace *ws, const struct sm_settings *s, GError **error)
{
    json_t *o = sm_settings_json(s);
    char *dumped = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    g_autofree char *text = dumped ? g_strconcat(dumped, "\n", NULL) : NULL;

    free(dumped);
    json_decref(o);
    if (!text) {
        sm_error_set(error, SM_ERROR_INVALID, "a path or a flag's value is not UTF-8: it cannot be kept; rename it");
        return -1;
    }
    if (strlen(text) > SM_SETTINGS_FILE_MAX || g_strv_length(s->args) > SM_SETTINGS_ARGS_MAX ||
        (s->cmd && g_strv_length(s->cmd) > SM_SETTINGS_CMD_MAX)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "too much to be kept: put lists into a policy file, and a long command into a script");
        return -1;
    }
    return sm_workspace_write_file(ws, SM_SETTINGS_FILE, text, error);
}

bool sm_settings_exist(const struct sm_workspace *ws)
{
    struct stat st;
    return fstatat(ws->dirfd, SM_SETTINGS_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int sm_settings_read(const struct sm_workspace *ws, struct sm_settings *ret, GError **error)
{
    g_autofree char *file = g_strdup_printf("%s/%s/" SM_SETTINGS_FILE, ws->base, ws->name);
    size_t len;

    if (!sm_settings_exist(ws)) {
        sm_error_set(error, SM_ERROR_MISSING,
                     "workspace '%s' was not made by 'create': it has no settings to start with", ws->name);
        return -1;
    }
    g_autofree char *text = sm_workspace_read_file(ws, SM_SETTINGS_FILE, SM_SETTINGS_FILE_MAX, &len, error);
    if (!text)
        return -1;
    return sm_settings_parse(file, text, len, ret, error) ? 0 : -1;
}

/* ---- as options ---- */

int sm_settings_options(const struct sm_settings *s, const struct sm_workspace *ws, char *const *cmd,
                        struct sm_run_options *ret, char ***ret_argv, GError **error)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
    char *const *command = cmd ? cmd : s->cmd;

    g_ptr_array_add(argv, g_strdup(sm_command_name(s->command)));
    /* First: behind a flag that lacks its value these would be it. */
    g_ptr_array_add(argv, g_strconcat("--name=", ws->name, NULL));
    g_ptr_array_add(argv, g_strconcat("--state-dir=", ws->base, NULL));
    for (size_t i = 0; s->args[i]; i++)
        g_ptr_array_add(argv, g_strdup(s->args[i]));
    if (command) {
        g_ptr_array_add(argv, g_strdup("--"));
        for (size_t i = 0; command[i]; i++)
            g_ptr_array_add(argv, g_strdup(command[i]));
    }
    int argc = (int)argv->len;
    g_ptr_array_add(argv, NULL);
    g_ptr_array_set_free_func(argv, NULL);
    char **words = (char **)g_ptr_array_free(argv, FALSE);
    if (sm_run_options_parse_stored(argc, words, s->spec, ret, error) < 0) {
        g_prefix_error(error, "workspace '%s': %s/%s/" SM_SETTINGS_FILE ": ", ws->name, ws->base, ws->name);
        g_strfreev(words);
        return -1;
    }
    *ret_argv = words;
    return 0;
}
