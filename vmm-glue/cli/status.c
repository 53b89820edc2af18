/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med status` and `slirp-med stop`.
 *
 * A workspace runs when its lock is held. What runs answers for itself; of one that does not, its files tell
 * (launch/record.h). The reports of core and front come as opaque text through the supervisor and are decoded here,
 * outside of it.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/color.h"
#include "launch/record.h"
#include "supervisor/supervisor.h"

#define ANSWER_MS 5000
/** The lock goes a moment after the control socket. */
#define UNLOCK_TRIES 100
#define UNLOCK_PAUSE_US 5000
#define TIMEOUT_MAX_S 86400
#define NOT_RUNNING 1

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "-";
}

/** Its members, a line each; those that are null are left out. */
static void print_object(const char *title, const json_t *o)
{
    const char *key;
    json_t *value;
    bool first = true;

    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        if (json_is_null(value) || strcmp(key, "schema") == 0) /* the latter is for programs */
            continue;
        char *text =
            json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        printf("%-10s%s %s\n", first ? title : "", key, text ? text : json_string_value(value));
        free(text);
        first = false;
    }
}

static void print_text(const json_t *status, const char *key)
{
    if (json_is_string(json_object_get(status, key)))
        printf("%-10s%s\n", key, text_of(status, key));
}

static void print_settings(const json_t *settings)
{
    static const char *const keys[] = {"args", "cmd"};
    json_t *word;
    size_t i;

    if (!json_is_object(settings))
        return;
    printf("%-10s%s", "settings", text_of(settings, "command"));
    for (size_t k = 0; k < SM_ARRAY_LEN(keys); k++) {
        if (k == 1 && json_is_array(json_object_get(settings, keys[k])))
            printf(" --");
        json_array_foreach(json_object_get(settings, keys[k]), i, word)
        {
            g_autofree char *quoted = g_shell_quote(json_string_value(word));
            g_autofree char *plain = g_strescape(json_string_value(word), NULL);
            bool bare = strspn(plain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,+@") ==
                        strlen(plain);
            printf(" %s", bare ? plain : quoted);
        }
    }
    printf("\n");
}

static enum sm_tint tint_of(const char *state)
{
    if (strcmp(state, "running") == 0)
        return SM_TINT_ALLOW;
    return strcmp(state, "crashed") == 0 ? SM_TINT_DENY : SM_TINT_DIM;
}

static void print_status(const json_t *status, bool color)
{
    const char *state = text_of(status, "state");

    printf("%-10s%s\n", "name", text_of(status, "name"));
    printf("%-10s%s%s%s\n", "state", sm_tint(color, tint_of(state)), state, sm_tint_end(color));
    print_text(status, "started");
    print_text(status, "last_seen");
    print_object("last exit", json_object_get(status, "last_exit"));
    print_settings(json_object_get(status, "settings"));
    printf("%-10s%s%s\n", "egress", text_of(status, "mode"),
           json_is_true(json_object_get(status, "opaque")) ? ", opaque" : "");
    printf("%-10s%s\n", "datapath", text_of(status, "datapath"));
    print_object("network", json_object_get(status, "network"));
    print_object("port", json_object_get(status, "port"));
    print_object("vm", json_object_get(status, "vm"));
    if (json_object_get(status, "mediationReady"))
        printf("%-10s%s\n", "mediation",
               json_is_true(json_object_get(status, "mediationReady")) ? "ready" : "not ready");
    print_object("vsock", json_object_get(status, "vsock"));
    print_object("caps", json_object_get(status, "caps"));
    print_object("counters", json_object_get(status, "counters"));
    print_object("audit", json_object_get(status, "audit"));
    print_object("processes", json_object_get(status, "processes"));
    print_object("reports", json_object_get(status, "reports"));
}

/** The guest chose these names: as JSON has them they hold no control characters. */
static void print_flows(const json_t *flows)
{
    const json_t *f;
    size_t i;

    printf("\n%-6s %-22s %-22s %-9s %12s %12s %10s  %s\n", "PROTO", "SOURCE", "DESTINATION", "STATE", "UP", "DOWN",
           "AGE", "HOST");
    json_array_foreach(flows, i, f)
    {
        g_autofree char *age =
            g_strdup_printf("%.1f s", (double)json_integer_value(json_object_get(f, "age_ms")) / 1000);
        g_autofree char *host = g_strescape(text_of(f, "host"), NULL);
        printf("%-6s %-22s %-22s %-9s %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT " %10s  %s\n",
               text_of(f, "proto"), text_of(f, "src"), text_of(f, "dst"), text_of(f, "state"),
               json_integer_value(json_object_get(f, "bytes_up")), json_integer_value(json_object_get(f, "bytes_down")),
               age, host);
    }
}

int sm_cli_status(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;
    bool flows = false;
    const struct sm_cli_flag flags[] = {{.name = "--flows", .on = &flows}};
    struct sm_record_place place = {.ws = &ws};

    enum sm_color_when color;

    if (!sm_color_take(&argc, argv, &color, &error) ||
        !sm_cli_parse(argc, argv, SM_CLI_MAY_JSON, flags, SM_ARRAY_LEN(flags), &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med status NAME [--flows] [--json] [--color WHEN] [--state-dir DIR]\n"
             "\n"
             "Show how workspace NAME is: its state, how its last run ended, what it was created with, its mode and "
             "network, "
             "caps and what is used\n"
             "of them, its record's health, its processes, and what core and front report.\n"
             "\n"
             "  --flows          also the flows that live now, the youngest 100\n"
             "  --json           as one JSON object (docs/JSON.md)\n" SM_COLOR_HELP
             "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
             "~/.local/state/slirp-med)\n"
             "  -h, --help       print this and exit\n"
             "\n"
             "Exit status: 0, also for one that is stopped; 1 when it cannot be asked; 2 when a flag is wrong or there "
             "is no such workspace.");
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    if (sm_workspace_look(&ws, &place.state, &place.pid) < 0) {
        sm_error_set_errno(&error, errno, "%s/%s", ws.base, ws.name);
        return sm_cli_fail(error, 1);
    }
    json_t *answer = NULL;
    if (place.state == SM_WORKSPACE_RUNNING &&
        !(answer = sm_cli_ask(&given, ANSWER_MS, SM_CONTROL_STATUS, NULL, &error)))
        return sm_cli_fail(error, 1);
    place.answer = answer;
    json_t *status = sm_record_status(&place);
    json_decref(answer);
    if (!flows) /* they may be many */
        (void)json_object_del(status, "flows");
    if (given.json)
        return sm_cli_print_json(status);
    print_status(status, sm_color_on(color, STDOUT_FILENO));
    if (flows)
        print_flows(json_object_get(status, "flows"));
    json_decref(status);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* ---- stop ---- */

int sm_cli_stop_ms(void)
{
    return SM_SUPERVISOR_GRACE_MS + 2 * SM_SUPERVISOR_STOP_MS + 6000;
}

int sm_cli_stop_it(const struct sm_workspace *ws, pid_t pid, int timeout_ms, GError **error)
{
    int r = sm_client_stop(ws->dirfd, timeout_ms, error);
    if (r < 0) {
        g_prefix_error(error, "workspace '%s' runs (pid %d), but ", ws->name, (int)pid);
        return -1;
    }
    if (r == 0) {
        fprintf(stderr, "slirp-med: workspace '%s' (pid %d) has not ended within %d seconds; it goes on ending\n",
                ws->name, (int)pid, timeout_ms / 1000);
        return 1;
    }
    for (int i = 0; i < UNLOCK_TRIES && sm_workspace_holder(ws, &pid) == 1; i++)
        g_usleep(UNLOCK_PAUSE_US);
    return 0;
}

static bool take_timeout(const char *text, int *ret_ms, GError **error)
{
    guint64 seconds;

    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 1, TIMEOUT_MAX_S, &seconds, NULL)) {
        sm_error_set(error, SM_ERROR_INVALID, "--timeout=%.80s: not a number of seconds: write 1 to %d", text,
                     TIMEOUT_MAX_S);
        return false;
    }
    *ret_ms = (int)seconds * 1000;
    return true;
}

int sm_cli_stop(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;
    const char *timeout = NULL;
    const struct sm_cli_flag flags[] = {{.name = "--timeout", .value = &timeout, .metavar = "SECONDS"}};
    int timeout_ms = sm_cli_stop_ms();
    pid_t pid;

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON, flags, SM_ARRAY_LEN(flags), &given, &error) ||
        !take_timeout(timeout, &timeout_ms, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        printf(
            "usage: slirp-med stop NAME [--timeout SECONDS] [--json] [--state-dir DIR]\n"
            "\n"
            "End workspace NAME: its command gets SIGTERM, and SIGKILL after %d seconds. Returns when all has ended.\n"
            "\n"
            "  --timeout SECONDS\n"
            "                   wait no longer than this (default %d); what is not waited for goes on ending\n"
            "  --json           how it ended, as one JSON object (docs/JSON.md)\n"
            "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
            "~/.local/state/slirp-med)\n"
            "  -h, --help       print this and exit\n"
            "\n"
            "Exit status: 0; 1 when it does not run, cannot be reached or has not ended in time; 2 when a flag is "
            "wrong or "
            "there is no such\n"
            "workspace.\n",
            SM_SUPERVISOR_GRACE_MS / 1000, sm_cli_stop_ms() / 1000);
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    int r = sm_workspace_holder(&ws, &pid);
    if (r == 0) {
        fprintf(stderr, "slirp-med: workspace '%s' does not run\n", ws.name);
        return NOT_RUNNING;
    }
    if (r < 0) {
        sm_error_set_errno(&error, errno, "%s/%s/" SM_STATE_LOCK, ws.base, ws.name);
        return sm_cli_fail(error, 1);
    }
    r = sm_cli_stop_it(&ws, pid, timeout_ms, &error);
    if (r != 0)
        return r < 0 ? sm_cli_fail(error, 1) : r;
    if (!given.json)
        return 0;
    struct sm_record_place place = {.ws = &ws, .state = SM_WORKSPACE_STOPPED};
    return sm_cli_print_json(sm_record_row(&place));
}
