/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of a running workspace; see reload.h. */
#include "launch/reload.h"

#include "base/error.h"
#include "launch/messages.h"
#include "launch/swaps.h"
#include "policy/file.h"

struct sm_reload {
    const struct sm_run_options *o;
    char **files; /* whose entries are in force beside the flags' */
    char **next;  /* loaded, not in force yet; NULL: the same */
};

static char **copy_paths(const GPtrArray *paths)
{
    char **copy = g_new0(char *, paths->len + 1);

    for (guint i = 0; i < paths->len; i++)
        copy[i] = g_strdup(g_ptr_array_index(paths, i));
    return copy;
}

struct sm_reload *sm_reload_new(const struct sm_run_options *o)
{
    struct sm_reload *r = g_new0(struct sm_reload, 1);

    r->o = o;
    r->files = copy_paths(o->policy_files);
    return r;
}

void sm_reload_free(struct sm_reload **r)
{
    if (!*r)
        return;
    g_strfreev((*r)->files);
    g_strfreev((*r)->next);
    g_clear_pointer(r, g_free);
}

static bool add_file(struct sm_lists *lists, const char *path, GError **error)
{
    size_t len;
    g_autofree char *data = sm_option_read_file(path, SM_POLICY_FILE_MAX, &len, error);

    if (!data) {
        g_prefix_error(error, "%s: ", path);
        return false;
    }
    return sm_policy_file_parse(path, data, len, lists, error); /* which names file and line */
}

static bool add_flags(struct sm_lists *lists, const struct sm_lists *flags, GError **error)
{
    for (unsigned kind = 0; kind < SM_LIST_KINDS; kind++)
        for (size_t i = 0; i < sm_lists_count(flags, (enum sm_list_kind)kind); i++)
            if (!sm_lists_add(lists, (enum sm_list_kind)kind, sm_lists_get(flags, (enum sm_list_kind)kind, i), error))
                return false;
    return true;
}

static char *load(void *data, const char *path, json_t **ret_counts, GError **error)
{
    struct sm_reload *r = data;
    char *one[] = {(char *)(uintptr_t)path, NULL}, **files = path ? one : r->files;
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();

    if (r->o->mode == SM_MODE_OFF) {
        sm_error_set(error, SM_ERROR_INVALID, "nothing is judged with --egress off");
        return NULL;
    }
    if (path && !g_path_is_absolute(path)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: not an absolute path", path);
        return NULL;
    }
    if (!files[0]) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "it was started without --egress-policy: name the file that is to be read");
        return NULL;
    }
    if (!add_flags(lists, r->o->flag_lists, error))
        return NULL;
    for (char **f = files; *f; f++)
        if (!add_file(lists, *f, error))
            return NULL;
    if (!sm_option_swaps_apply(r->o->swaps, lists, error))
        return NULL;
    char *text = sm_message_lists(lists, error);
    if (!text)
        return NULL;
    g_strfreev(r->next);
    r->next = path ? g_strdupv(one) : NULL;
    *ret_counts = json_pack("{s:I, s:I, s:I}", "allow", (json_int_t)sm_lists_count(lists, SM_LIST_ALLOW), "passthrough",
                            (json_int_t)sm_lists_count(lists, SM_LIST_PASSTHROUGH), "deny",
                            (json_int_t)sm_lists_count(lists, SM_LIST_DENY));
    return text;
}

static void settled(void *data, bool in_force)
{
    struct sm_reload *r = data;

    if (in_force && r->next) {
        g_strfreev(r->files);
        r->files = g_steal_pointer(&r->next);
    }
    g_strfreev(r->next);
    r->next = NULL;
}

struct sm_policy_source sm_reload_source(struct sm_reload *r)
{
    return (struct sm_policy_source){.load = load, .settled = settled, .data = r};
}

char *const *sm_reload_files(const struct sm_reload *r)
{
    return r->files;
}
