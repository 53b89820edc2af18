/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med snapshot` and `slirp-med restore`; what they do stands in launch/snapshot.h and launch/restore.h. */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>

#include "base/error.h"
#include "cli/cli.h"
#include "launch/restore.h"
#include "launch/snapkey.h"
#include "launch/snapshot.h"
#include "launch/state.h"
#include "sandbox/sandbox.h"

/** From here on a key may be in our memory; and a file size limit is a full disk, not our death. */
static bool harden(GError **error)
{
    (void)signal(SIGXFSZ, SIG_IGN);
    return sm_sandbox_enter(SM_ROLE_SUPERVISOR, &(struct sm_sandbox_spec){.parent_fd = -1}, error) == 0;
}

static json_t *counters_json(const uint64_t bytes[SM_CAPS_DIRS])
{
    return json_pack("{s:I, s:I}", "bytes_up", (json_int_t)bytes[SM_CAPS_UP], "bytes_down",
                     (json_int_t)bytes[SM_CAPS_DOWN]);
}

static json_t *ca_json(const struct sm_snapshot *s)
{
    return s->ca_cert ? json_string(s->ca_sha256) : json_null();
}

static void print_snapshot_help(void)
{
    puts("usage: slirp-med snapshot NAME FILE [--key-file FILE] [--force] [--json] [--state-dir DIR]\n"
         "\n"
         "Keep what workspace NAME is in FILE: its flags, the entries in force, pins, counters and its CA with the "
         "private "
         "key. For the\n"
         "moment at which its guest is kept too, by the VMM. 'slirp-med restore' makes a workspace of it. NAME runs, "
         "or was "
         "created with\n"
         "--keep-ca (or intercepts nothing). Prints the CA's SHA-256 fingerprint, for restore's --expect-ca.\n"
         "\n"
         "  --key-file FILE  authenticate it with this key (default: the state folder's " SM_SNAPSHOT_KEY_FILE
         ", made if there "
         "is none)\n"
         "  --force          replace FILE\n"
         "  --json           the answer as one JSON object\n"
         "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
         "~/.local/state/slirp-med)\n"
         "  -h, --help       print this and exit\n"
         "\n"
         "Exit status: 0; 1 when it cannot be done; 2 when a flag is wrong, there is no such workspace, or FILE is "
         "there.");
}

int sm_cli_snapshot(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = {0};
    struct sm_snapshot_request r = {0};
    struct sm_cli_named given;
    const struct sm_cli_flag flags[] = {{.name = "--key-file", .value = &r.key_file, .metavar = "FILE"},
                                        {.name = "--force", .on = &r.force}};

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON | SM_CLI_MORE, flags, SM_ARRAY_LEN(flags), &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        print_snapshot_help();
        return 0;
    }
    if (!given.more) {
        sm_error_set(&error, SM_ERROR_INVALID, "no FILE: write 'slirp-med snapshot NAME FILE'");
        return sm_cli_fail(error, SM_CLI_USAGE);
    }
    r.state_dir = given.state_dir;
    r.name = given.name;
    r.file = given.more;
    if (!harden(&error) || sm_snapshot_take(&r, &s, &error) < 0)
        return sm_cli_fail(error, 1);
    if (given.json)
        return sm_cli_print_json(json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:I, s:o}", "schema", 1, "id", s.id,
                                           "workspace", s.workspace, "file", r.file, "created", s.created, "ca_sha256",
                                           ca_json(&s), "pins", (json_int_t)json_array_size(s.pins), "counters",
                                           counters_json(s.counters)));
    printf("snapshot %s\nca-sha256 %s\n", s.id, s.ca_cert ? s.ca_sha256 : "none");
    return fflush(stdout) == 0 ? 0 : 1;
}

static void print_restore_help(void)
{
    puts(
        "usage: slirp-med restore FILE [--name NAME] [--expect-ca SHA256] [--key-file FILE] [--reset-caps] "
        "[--refuse-fork]\n"
        "                         [--force] [--json] [--state-dir DIR]\n"
        "\n"
        "Make a workspace of a snapshot that 'slirp-med snapshot' wrote. 'slirp-med start' then has the same CA, pins, "
        "counters and entries.\n"
        "Connections that the guest had open are reset. A restore that fails changes nothing.\n"
        "\n"
        "  --name NAME         its name (default: the one that the snapshot was taken of)\n"
        "  --expect-ca SHA256  refuse another CA: what was kept beside the guest's own snapshot\n"
        "  --key-file FILE     the key that the snapshot was made with (default: the state "
        "folder's " SM_SNAPSHOT_KEY_FILE ")\n"
        "  --reset-caps        count from zero (default: from the snapshot's counters, or the name's own where they "
        "are "
        "higher)\n"
        "  --refuse-fork       refuse when another workspace is of the same snapshot or has its CA (default: warn)\n"
        "  --force             replace a workspace of that name that does not run; its audit goes on\n"
        "  --json              the answer as one JSON object\n"
        "  --state-dir DIR     where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
        "~/.local/state/slirp-med)\n"
        "  -h, --help          print this and exit\n"
        "\n"
        "Exit status: 0; 1 when it cannot be done; 2 when a flag or the file is wrong, or the name is taken.");
}

int sm_cli_restore(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_restore_result_clear) struct sm_restore_result out = {0};
    struct sm_restore_request r = {0};
    struct sm_cli_named given;
    const struct sm_cli_flag flags[] = {{.name = "--name", .value = &r.name, .metavar = "NAME"},
                                        {.name = "--expect-ca", .value = &r.expect_ca, .metavar = "SHA256"},
                                        {.name = "--key-file", .value = &r.key_file, .metavar = "FILE"},
                                        {.name = "--reset-caps", .on = &r.reset_caps},
                                        {.name = "--refuse-fork", .on = &r.refuse_fork},
                                        {.name = "--force", .on = &r.force}};

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON | SM_CLI_NO_NAME | SM_CLI_MORE, flags, SM_ARRAY_LEN(flags), &given,
                      &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        print_restore_help();
        return 0;
    }
    if (!given.more)
        sm_error_set(&error, SM_ERROR_INVALID, "no FILE: write 'slirp-med restore FILE'");
    else if (r.name && !sm_state_name_check(r.name, &error))
        g_prefix_error(&error, "--name: ");
    if (error)
        return sm_cli_fail(error, SM_CLI_USAGE);
    r.state_dir = given.state_dir;
    r.file = given.more;
    if (!harden(&error) || sm_restore(&r, &out, &error) < 0)
        return sm_cli_fail(error, 1);
    for (guint i = 0; i < out.shares->len; i++)
        fprintf(stderr,
                "slirp-med: warning: workspace '%s' has the same CA: what is known of one's guest's connections is "
                "known of "
                "both (--refuse-fork refuses)\n",
                (const char *)g_ptr_array_index(out.shares, i));
    if (given.json) {
        json_t *shares = json_array();
        for (guint i = 0; i < out.shares->len; i++)
            (void)json_array_append_new(shares, json_string(g_ptr_array_index(out.shares, i)));
        return sm_cli_print_json(json_pack(
            "{s:i, s:s, s:s, s:s, s:s, s:o, s:I, s:o, s:o}", "schema", 1, "name", out.name, "state", "restored",
            "snapshot", out.snapshot.id, "created", out.snapshot.created, "ca_sha256", ca_json(&out.snapshot), "pins",
            (json_int_t)out.pins, "counters", counters_json(out.counters), "shares_ca_with", shares));
    }
    printf("restored %s\nca-sha256 %s\n", out.name, out.snapshot.ca_cert ? out.snapshot.ca_sha256 : "none");
    return fflush(stdout) == 0 ? 0 : 1;
}
