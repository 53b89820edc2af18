/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med status` and `slirp-med stop`: the control socket's client.
 *
 * A workspace runs when its lock is held. What runs answers for itself; of one that does not, workspace.json tells the settings of its last
 * start. The reports of core and front come as opaque text through the supervisor and are decoded here, outside of it.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "launch/state.h"
#include "supervisor/control.h"
#include "supervisor/supervisor.h"

#define ANSWER_MS 5000
/** Everything that a stop may take, and then some. */
#define STOP_MS (SM_SUPERVISOR_GRACE_MS + 2 * SM_SUPERVISOR_STOP_MS + 6000)
#define NOT_RUNNING 1

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** What a stopped workspace has counted; one that runs says so itself, in the core's report. */
static void add_counters(const struct sm_workspace *ws, json_t *settings)
{
    g_autoptr(GError) error = NULL;
    struct sm_counters c;

    if (!sm_workspace_read_counters(ws, &c, &error)) {
        fprintf(stderr, "slirp-med: %s\n", error->message);
        return;
    }
    if (c.seq)
        (void)json_object_set_new(settings, "counters",
                                  json_pack("{s:I, s:I}", "bytes_up", (json_int_t)c.bytes[SM_CAPS_UP], "bytes_down",
                                            (json_int_t)c.bytes[SM_CAPS_DOWN]));
}

static json_t *stopped_status(const struct sm_workspace *ws)
{
    g_autofree char *text = sm_workspace_read_settings(ws, NULL);
    json_t *settings = text ? json_loads(text, 0, NULL) : NULL;

    if (!json_is_object(settings)) {
        json_decref(settings);
        settings = json_object();
    }
    (void)json_object_set_new(settings, "name", json_string(ws->name));
    (void)json_object_set_new(settings, "state", json_string("stopped"));
    add_counters(ws, settings);
    return settings;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "-";
}

static void print_object(const char *title, const json_t *o)
{
    const char *key;
    json_t *value;
    bool first = true;

    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        char *text =
            json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        printf("%-10s%s %s\n", first ? title : "", key, text ? text : json_string_value(value));
        free(text);
        first = false;
    }
}

static void print_status(const json_t *status)
{
    printf("%-10s%s\n", "name", text_of(status, "name"));
    printf("%-10s%s\n", "state", text_of(status, "state"));
    if (json_object_get(status, "started"))
        printf("%-10s%s\n", "started", text_of(status, "started"));
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
    print_object("pids", json_object_get(status, "pids"));
    print_object("reports", json_object_get(status, "reports"));
}

int sm_cli_status(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;
    pid_t pid;

    if (!sm_cli_named_parse(argc, argv, true, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med status NAME [--json] [--state-dir DIR]\n"
             "\n"
             "Show whether workspace NAME runs, its mode, network and processes.\n"
             "\n"
             "  --json           as one JSON object\n"
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
    sm_cleanup(json_freep) json_t *status = sm_workspace_holder(&ws, &pid) == 0
                                                ? stopped_status(&ws)
                                                : sm_cli_ask(&given, ANSWER_MS, SM_CONTROL_STATUS, NULL, &error);
    if (!status)
        return sm_cli_fail(error, 1);
    if (given.json) {
        char *text = json_dumps(status, JSON_INDENT(2) | JSON_ENSURE_ASCII);
        puts(text ? text : "{}");
        free(text);
    } else {
        print_status(status);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int sm_cli_stop(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;
    pid_t pid;

    if (!sm_cli_named_parse(argc, argv, false, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        printf(
            "usage: slirp-med stop NAME [--state-dir DIR]\n"
            "\n"
            "End workspace NAME: its command gets SIGTERM, and SIGKILL after %d seconds. Returns when all has ended.\n"
            "\n"
            "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
            "~/.local/state/slirp-med)\n"
            "  -h, --help       print this and exit\n"
            "\n"
            "Exit status: 0; 1 when it does not run or cannot be reached; 2 when a flag is wrong or there is no such "
            "workspace.\n",
            SM_SUPERVISOR_GRACE_MS / 1000);
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    int r = sm_workspace_holder(&ws, &pid);
    if (r == 0) {
        fprintf(stderr, "slirp-med: workspace '%s' does not run\n", ws.name);
        return NOT_RUNNING;
    }
    r = sm_client_stop(ws.dirfd, STOP_MS, &error);
    if (r < 0) {
        g_prefix_error(&error, "workspace '%s' runs (pid %d), but ", ws.name, (int)pid);
        return sm_cli_fail(error, 1);
    }
    if (r == 0) {
        fprintf(stderr, "slirp-med: workspace '%s' (pid %d) has not ended within %d seconds\n", ws.name, (int)pid,
                STOP_MS / 1000);
        return 1;
    }
    /* The lock goes a moment after the stream, and then the name is free. */
    for (int i = 0; i < 100 && sm_workspace_holder(&ws, &pid) == 1; i++)
        g_usleep(5000);
    return 0;
}
