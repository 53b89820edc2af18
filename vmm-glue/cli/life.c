/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med create`, `start` and `delete`: workspaces that persist; see launch/settings.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/cli.h"
#include "launch/detach.h"
#include "launch/exit.h"
#include "launch/messages.h"
#include "launch/record.h"
#include "launch/run.h"
#include "launch/settings.h"

#define ANSWER_MS 5000

#define COMMON_HELP                                                                                                    \
    "  --json           the answer as one JSON object (docs/JSON.md)\n"                                                \
    "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "                     \
    "~/.local/state/slirp-med)\n"                                                                                      \
    "  -h, --help       print this and exit\n"

/** Of one workspace, whether it runs or not. Takes the answer. */
static int show_network(const struct sm_workspace *ws, bool json)
{
    g_autoptr(GError) error = NULL;
    struct sm_record_place place = {.ws = ws};

    if (sm_workspace_look(ws, &place.state, &place.pid) < 0) {
        sm_error_set_errno(&error, errno, "%s/%s", ws->base, ws->name);
        return sm_cli_fail(error, 1);
    }
    json_t *answer = place.state == SM_WORKSPACE_RUNNING
                         ? sm_client_ask(ws->dirfd, ANSWER_MS, SM_CONTROL_NETWORK, NULL, NULL, &error)
                         : NULL;
    if (error) {
        g_prefix_error(&error, "workspace '%s' runs (pid %d), but ", ws->name, (int)place.pid);
        return sm_cli_fail(error, 1);
    }
    place.answer = answer;
    json_t *record = sm_record_network(&place);
    json_decref(answer);
    if (json)
        return sm_cli_print_json(record);
    sm_cli_print_network(record);
    json_decref(record);
    return fflush(stdout) == 0 ? 0 : 1;
}

int sm_cli_network(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;

    if (!sm_cli_named_parse(argc, argv, true, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med network NAME [--json] [--state-dir DIR]\n"
             "\n"
             "Show the network of workspace NAME: its mode, its addresses, and what is published, with the ports that "
             "were found for 0 when it runs.\n"
             "\n" COMMON_HELP "\n"
             "Exit status: 0, also for one that does not run; 1 when it cannot be asked; 2 when a flag is wrong or "
             "there "
             "is no such workspace.");
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    return show_network(&ws, given.json);
}

/* ---- create ---- */

static void print_create_help(void)
{
    puts("usage: slirp-med create NAME [FLAGS] [-- CMD [ARG...]]\n"
         "       slirp-med create NAME --vm --kernel FILE [FLAGS] [-- QEMU ARGUMENT...]\n"
         "       slirp-med create NAME --attach --stream PATH | --vhost-user PATH | --dgram PATH[,PEER] [FLAGS]\n"
         "       slirp-med create NAME --proxy [FLAGS]\n"
         "\n"
         "Keep the flags of 'slirp-med run' (with --vm, --attach or --proxy: of that command) under NAME, which "
         "'slirp-med "
         "start NAME' then\n"
         "does again, as often as you like. All is checked now as at a start; nothing is started. Paths may be "
         "relative to "
         "this folder. Files of\n"
         "policy and swaps are read again at each start, and credentials are kept nowhere: only where they are.\n"
         "\n"
         "  --vm             a virtual machine under QEMU\n"
         "  --attach         a virtual machine that somebody else starts\n"
         "  --proxy          clients of an HTTP proxy\n" COMMON_HELP "\n"
         "Flags that are about one start (--dry-run, --fd, --ready-fd, --owner-fd, --print-args, --print-command) "
         "cannot be "
         "kept. CMD may be\n"
         "left out: 'slirp-med start NAME -- CMD' then says it.\n"
         "\n"
         "Exit status: 0; 1 when the folder cannot be written; 2 when a flag, a policy or swap file or the state "
         "folder is "
         "wrong, or there is\n"
         "such a workspace already.");
}

/** What `create` has of its own; the rest is an argv for the options. */
struct create {
    const char *name;
    bool json, vm, attach, proxy, help;
    GPtrArray *argv; /* borrowed words, NULL at the end */
};

static bool take_create(int argc, char **argv, struct create *c, GError **error)
{
    int i = 1;

    g_ptr_array_add(c->argv, NULL); /* the command's name: known at the end */
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            c->help = true;
        else if (strcmp(argv[i], "--json") == 0)
            c->json = true;
        else if (strcmp(argv[i], "--vm") == 0)
            c->vm = true;
        else if (strcmp(argv[i], "--attach") == 0)
            c->attach = true;
        else if (strcmp(argv[i], "--proxy") == 0)
            c->proxy = true;
        else if (!c->name && argv[i][0] != '-')
            c->name = argv[i];
        else if (!c->name) {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: NAME comes first: write 'slirp-med create NAME %.80s ...'",
                         argv[i], argv[i]);
            return false;
        } else
            g_ptr_array_add(c->argv, argv[i]);
    }
    if (c->help)
        return true;
    if (!c->name) {
        sm_error_set(error, SM_ERROR_INVALID, "no NAME: write 'slirp-med create NAME [FLAGS] [-- CMD...]'");
        return false;
    }
    if (c->vm + c->attach + c->proxy > 1) {
        sm_error_set(error, SM_ERROR_INVALID, "--vm, --attach and --proxy: kinds of guest: give one of them");
        return false;
    }
    for (; i < argc; i++)
        g_ptr_array_add(c->argv, argv[i]);
    return sm_state_name_check(c->name, error);
}

/**
 * A word in front of which no "--" stands is a value that was forgotten, or a command whose flags we would have taken
 * for ours.
 */
static bool check_command(char *const *argv, const struct sm_run_options *o, GError **error)
{
    if (!o->argv || o->argv == argv || strcmp(o->argv[-1], "--") == 0)
        return true;
    sm_error_set(error, SM_ERROR_INVALID, "%.80s: not a flag: the command goes behind --", o->argv[0]);
    return false;
}

/** The folder and its files. Nothing is left of one that fails. */
static bool make(const struct sm_run_options *o, struct sm_workspace *ws, GError **error)
{
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};
    g_autofree char *now = sm_exit_now();
    enum sm_workspace_state state;
    pid_t pid;

    if (sm_workspace_open(o->state_dir, o->name, true, ws, error) < 0)
        return false;
    if (sm_workspace_look(ws, &state, &pid) < 0) {
        sm_error_set_errno(error, errno, "%s/%s", ws->base, ws->name);
        return false;
    }
    if (state != SM_WORKSPACE_EMPTY) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "there is a workspace '%s' already (%s): choose another NAME, or remove it with 'slirp-med delete %s'",
            ws->name, sm_workspace_state_name(state), ws->name);
        return false;
    }
    if (sm_workspace_lock(ws, error) < 0)
        return false;
    if (sm_settings_exist(ws)) { /* by another 'create', just now */
        sm_error_set(error, SM_ERROR_INVALID, "there is a workspace '%s' already: choose another NAME", ws->name);
        return false;
    }
    sm_settings_new(o, now, &s);
    g_autofree char *facts = sm_message_settings(o, error);
    if (facts && sm_workspace_write_settings(ws, facts, error) == 0 && sm_settings_write(ws, &s, error) == 0)
        return true;
    sm_workspace_undo(ws);
    return false;
}

int sm_cli_create(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};
    struct create c = {.argv = words};

    sm_log_init("supervisor");
    if (!take_create(argc, argv, &c, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (c.help) {
        print_create_help();
        return 0;
    }
    g_autofree char *command = g_strdup(sm_command_name(c.vm       ? SM_COMMAND_VM
                                                        : c.attach ? SM_COMMAND_ATTACH
                                                        : c.proxy  ? SM_COMMAND_PROXY
                                                                   : SM_COMMAND_RUN));
    g_autofree char *name = g_strconcat("--name=", c.name, NULL);
    words->pdata[0] = command;
    g_ptr_array_insert(words, 1, name);
    int n = (int)words->len;
    g_ptr_array_add(words, NULL);
    char **line = (char **)words->pdata;
    if (sm_run_options_parse_create(n, line, &o, &error) < 0 || !check_command(line, &o, &error)) {
        if (!g_error_matches(error, SM_ERROR, SM_ERROR_MISSING))
            return sm_cli_fail(error, SM_CLI_USAGE);
        fprintf(stderr, "%s\n", error->message); /* the spec's words, as they are */
        return SM_SUPERVISOR_FAILED;
    }
    for (guint i = 0; i < o.warnings->len; i++)
        fprintf(stderr, "slirp-med: warning: %s\n", (const char *)g_ptr_array_index(o.warnings, i));
    if (!make(&o, &ws, &error))
        return sm_cli_fail(error, 1);
    sm_workspace_unlock(&ws);
    return show_network(&ws, c.json);
}

/* ---- start ---- */

static void print_start_help(void)
{
    puts("usage: slirp-med start NAME [--detach [--log FILE]] [-- CMD [ARG...]]\n"
         "\n"
         "Start workspace NAME, which 'slirp-med create' made, with its settings, and with CMD in place of the one "
         "that was "
         "kept. CMD runs in this\n"
         "folder and with this environment, in the foreground as of 'slirp-med run'.\n"
         "\n"
         "  --detach         in the background: return when it runs and print its network, or say why it does not\n"
         "  --log FILE       with --detach: append what CMD and slirp-med say to FILE, which is not bounded (default: "
         "nowhere)\n" COMMON_HELP "\n"
         "--json is about --detach. Exit status: as of 'slirp-med run' ('vm', 'attach'); with --detach 0 when it runs; "
         "2 when "
         "a setting is wrong\n"
         "or there is no such workspace; 125 when it runs already or cannot be started.");
}

/** Behind "--": CMD; NULL: there is none. *argc is cut there. */
static char **cut_command(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") != 0)
            continue;
        *argc = i;
        return &argv[i + 1];
    }
    return NULL;
}

struct start {
    struct sm_cli_named given;
    bool detach;
    const char *log;
    char **cmd; /* NULL: the stored one */
};

static bool take_start(int argc, char **argv, struct start *s, GError **error)
{
    const struct sm_cli_flag flags[] = {{.name = "--detach", .on = &s->detach},
                                        {.name = "--log", .value = &s->log, .metavar = "FILE"}};

    s->cmd = cut_command(&argc, argv);
    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON, flags, SM_ARRAY_LEN(flags), &s->given, error))
        return false;
    if (s->given.help)
        return true;
    if (s->cmd && !s->cmd[0]) {
        sm_error_set(error, SM_ERROR_INVALID, "--: there is no command behind it: write one, or leave -- out");
        return false;
    }
    if (!s->detach && (s->log || s->given.json)) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: only with --detach", s->log ? "--log" : "--json");
        return false;
    }
    return true;
}

/** Settings and options. The exit status, and -1: all is well. */
static int stored_options(const struct start *s, struct sm_workspace *ws, struct sm_run_options *o, char ***ret_argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_settings_clear) struct sm_settings settings = {0};

    if (sm_workspace_open(s->given.state_dir, s->given.name, false, ws, &error) < 0)
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    if (sm_settings_read(ws, &settings, &error) < 0) {
        bool missing = g_error_matches(error, SM_ERROR, SM_ERROR_MISSING);
        if (missing)
            g_prefix_error(&error, "start %s: ", s->given.name);
        return sm_cli_fail(error, missing || g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT) ? SM_CLI_USAGE
                                                                                              : SM_SUPERVISOR_FAILED);
    }
    if (settings.command == SM_COMMAND_RUN && !settings.cmd && !s->cmd)
        sm_error_set(&error, SM_ERROR_INVALID, "workspace '%s' has no command: write 'slirp-med start %s -- CMD'",
                     ws->name, ws->name);
    else if ((settings.command == SM_COMMAND_ATTACH || settings.command == SM_COMMAND_PROXY) && s->cmd)
        sm_error_set(&error, SM_ERROR_INVALID,
                     "%.80s: workspace '%s' serves what somebody else starts, and starts no command", s->cmd[0],
                     ws->name);
    if (error || sm_settings_options(&settings, ws, s->cmd, o, ret_argv, &error) < 0)
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    for (guint i = 0; i < o->warnings->len; i++)
        fprintf(stderr, "slirp-med: warning: %s\n", (const char *)g_ptr_array_index(o->warnings, i));
    if (!sm_vsock_resolve(&o->vsock, &error))
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    return -1;
}

static int start_here(const struct start *s, struct sm_detached *detached)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_run_options_clear) struct sm_run_options o = {0};
    g_auto(GStrv) words = NULL;
    struct sm_launch_how how = {.stored = true};

    int status = stored_options(s, &ws, &o, &words);
    if (status >= 0)
        return status;
    if (detached) {
        sm_detached_keep(detached);
        how.on_ready = sm_detached_ready;
        how.data = detached;
        how.guest_err_fd = STDOUT_FILENO; /* the log; our own stderr is still the caller's */
    }
    return sm_launch_run(&o, &how);
}

int sm_cli_start(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct start s = {0};

    sm_log_init("supervisor");
    if (!take_start(argc, argv, &s, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (s.given.help) {
        print_start_help();
        return 0;
    }
    if (!s.detach)
        return start_here(&s, NULL);

    int status = sm_detach(argv + 1, &error);
    if (status < 0)
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    if (status > 0)
        return status; /* it has said why */
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    if (sm_workspace_open(s.given.state_dir, s.given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    return show_network(&ws, s.given.json);
}

int sm_cli_detached(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct start s = {0};
    struct sm_detached detached;

    sm_log_init("supervisor");
    if (!take_start(argc, argv, &s, &error) || !sm_detached_enter(&detached, s.log, &error))
        return sm_cli_fail(error, SM_SUPERVISOR_FAILED);
    return start_here(&s, &detached);
}

/* ---- delete ---- */

static int removed(const struct sm_workspace *ws, const GPtrArray *files, bool json)
{
    if (!json) {
        for (guint i = 0; i < files->len; i++)
            printf("removed %s/%s/%s\n", ws->base, ws->name, (const char *)g_ptr_array_index(files, i));
        return fflush(stdout) == 0 ? 0 : 1;
    }
    json_t *names = json_array();
    for (guint i = 0; i < files->len; i++)
        (void)json_array_append_new(names, json_string(g_ptr_array_index(files, i)));
    return sm_cli_print_json(json_pack("{s:i, s:s, s:s, s:o}", "schema", SM_RECORD_SCHEMA, "name", ws->name, "state",
                                       "deleted", "removed", names));
}

int sm_cli_delete(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    struct sm_cli_named given;
    bool force = false, keep = false;
    const struct sm_cli_flag flags[] = {{.name = "--force", .on = &force}, {.name = "--keep-audit", .on = &keep}};
    enum sm_workspace_state state;
    pid_t pid;

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON, flags, SM_ARRAY_LEN(flags), &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med delete NAME [--force] [--keep-audit]\n"
             "\n"
             "Remove workspace NAME with all that slirp-med keeps of it, and print what was removed: its settings, its "
             "counters, its record. One that\n"
             "'slirp-med run' left behind too.\n"
             "\n"
             "  --force          end it first if it runs\n"
             "  --keep-audit     leave the record where it is; when the name is used again, it goes on\n" COMMON_HELP
             "\n"
             "Exit status: 0; 1 when it runs, or a file that is not slirp-med's is in its folder (nothing is removed "
             "then); 2 "
             "when a flag is wrong\n"
             "or there is no such workspace.");
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    if (sm_workspace_look(&ws, &state, &pid) < 0) {
        sm_error_set_errno(&error, errno, "%s/%s", ws.base, ws.name);
        return sm_cli_fail(error, 1);
    }
    if (state == SM_WORKSPACE_RUNNING) {
        if (!force) {
            fprintf(stderr,
                    "slirp-med: workspace '%s' runs (pid %d): end it with 'slirp-med stop %s', or add --force\n",
                    ws.name, (int)pid, ws.name);
            return 1;
        }
        int r = sm_cli_stop_it(&ws, pid, sm_cli_stop_ms(), &error);
        if (r != 0)
            return r < 0 ? sm_cli_fail(error, 1) : r;
    }
    if (sm_workspace_lock(&ws, &error) < 0 || sm_workspace_delete(&ws, keep, files, &error) < 0)
        return sm_cli_fail(error, 1);
    return removed(&ws, files, given.json);
}
