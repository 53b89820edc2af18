/* SPDX-License-Identifier: BSD-3-Clause */
/* How a run ended; see exit.h. */
#include "launch/exit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"

#define SCHEMA 1

static const char *const how_names[] = {
    [SM_EXIT_EXITED] = "exited", [SM_EXIT_STOPPED] = "stopped", [SM_EXIT_FAILED] = "failed"};
SM_NAME_TABLE_COVERS(how_names, SM_EXIT_HOWS);

const char *sm_exit_how_name(enum sm_exit_how how)
{
    return (unsigned)how < SM_EXIT_HOWS ? how_names[how] : "invalid";
}

char *sm_exit_now(void)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    return g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
}

static enum sm_exit_how how_of(const struct sm_supervisor_result *r)
{
    if (r->end_signal)
        return SM_EXIT_STOPPED;
    return r->reason ? SM_EXIT_FAILED : SM_EXIT_EXITED;
}

void sm_exit_write(const struct sm_workspace *ws, const char *began, const struct sm_supervisor_result *result)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *now = sm_exit_now();
    g_autofree char *reason = result->reason ? g_utf8_make_valid(result->reason, -1) : NULL;
    json_t *o = json_pack("{s:i, s:s, s:i, s:s?, s:s, s:s}", "schema", SCHEMA, "how", sm_exit_how_name(how_of(result)),
                          "status", result->status, "reason", reason, "started", began, "ended", now);
    char *text = json_dumps(o, JSON_COMPACT);

    if (sm_workspace_write_file(ws, SM_EXIT_FILE, text ? text : "null", &error) < 0)
        fprintf(stderr, "slirp-med: warning: %s\n", error->message);
    free(text);
    json_decref(o);
}

json_t *sm_exit_read(const struct sm_workspace *ws, GError **error)
{
    struct stat st;
    const char *how, *started, *ended;
    int schema, status;
    size_t len;

    if (fstatat(ws->dirfd, SM_EXIT_FILE, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return NULL;
    g_autofree char *text = sm_workspace_read_file(ws, SM_EXIT_FILE, SM_EXIT_FILE_MAX, &len, error);
    if (!text)
        return NULL;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *reason;
    if (json_unpack(o, "{s:i, s:s, s:i, s:o, s:s, s:s !}", "schema", &schema, "how", &how, "status", &status, "reason",
                    &reason, "started", &started, "ended", &ended) == 0 &&
        schema == SCHEMA && (json_is_string(reason) || json_is_null(reason)))
        return o;
    json_decref(o);
    sm_error_set(error, SM_ERROR_INVALID, "%s/%s/" SM_EXIT_FILE ": not what a run leaves: remove it", ws->base,
                 ws->name);
    return NULL;
}
