/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med publish`, `unpublish` and `reload`: what changes in a workspace that runs, asked for over its control
 * socket.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "launch/state.h"
#include "supervisor/control.h"
#include "supervisor/publish.h"

#define ANSWER_MS 15000

#define COMMON_HELP                                                                                                    \
    "  --json           the answer as one JSON object\n"                                                               \
    "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "                     \
    "~/.local/state/slirp-med)\n"                                                                                      \
    "  -h, --help       print this and exit\n"                                                                         \
    "\n"                                                                                                               \
    "Exit status: 0; 1 when it cannot be done; 2 when a flag is wrong or there is no such workspace."

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** Of an answer: {host, hostPort, guestPort, protocol}. */
static int print_publish(const json_t *answer)
{
    const char *host, *protocol;
    int host_port, guest_port;

    if (json_unpack((json_t *)(uintptr_t)answer, "{s:{s:s, s:i, s:i, s:s}}", "publish", "host", &host, "hostPort",
                    &host_port, "guestPort", &guest_port, "protocol", &protocol) < 0)
        return 1;
    printf(strchr(host, ':') ? "[%s]:%d:%d/%s\n" : "%s:%d:%d/%s\n", host, host_port, guest_port, protocol);
    return fflush(stdout) == 0 ? 0 : 1;
}

static int change_publish(int argc, char **argv, enum sm_control_verb verb, const char *help)
{
    g_autoptr(GError) error = NULL;
    struct sm_cli_named given;
    struct sm_publish p;
    char canonical[SM_PUBLISH_STRLEN];

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON | SM_CLI_MORE, NULL, 0, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts(help);
        return 0;
    }
    if (!given.more) {
        sm_error_set(&error, SM_ERROR_INVALID, "no port: write 'slirp-med %s NAME HOST:HOSTPORT:GUESTPORT/tcp'",
                     argv[0]);
        return sm_cli_fail(error, SM_CLI_USAGE);
    }
    if (!sm_publish_parse(given.more, &p, &error)) {
        g_prefix_error(&error, "%.200s: ", given.more);
        return sm_cli_fail(error, SM_CLI_USAGE);
    }
    sm_cleanup(json_freep) json_t *answer =
        sm_cli_ask(&given, ANSWER_MS, verb, sm_publish_format(&p, canonical), &error);
    if (!answer)
        return sm_cli_fail(error, 1);
    return given.json ? sm_cli_print_json(sm_steal_ptr(&answer)) : print_publish(answer);
}

int sm_cli_publish(int argc, char **argv)
{
    return change_publish(argc, argv, SM_CONTROL_PUBLISH,
                          "usage: slirp-med publish NAME [HOST:]HOSTPORT:GUESTPORT[/tcp] [--json] [--state-dir DIR]\n"
                          "\n"
                          "From now on connections to HOST:HOSTPORT of this machine (127.0.0.1 where HOST is left out; "
                          "HOSTPORT 0: any free\n"
                          "port) go to GUESTPORT in workspace NAME, which runs. Prints the address with its port.\n"
                          "\n" COMMON_HELP);
}

int sm_cli_unpublish(int argc, char **argv)
{
    return change_publish(argc, argv, SM_CONTROL_UNPUBLISH,
                          "usage: slirp-med unpublish NAME [HOST:]HOSTPORT:GUESTPORT[/tcp] [--json] [--state-dir DIR]\n"
                          "\n"
                          "Take no more connections there. Those that are there go on.\n"
                          "\n" COMMON_HELP);
}

int sm_cli_reload(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct sm_cli_named given;
    const char *file = NULL;
    const struct sm_cli_flag flags[] = {{.name = "--egress-policy", .value = &file, .metavar = "FILE"}};
    json_int_t allow, passthrough, deny;

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON, flags, SM_ARRAY_LEN(flags), &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med reload NAME [--egress-policy FILE] [--json] [--state-dir DIR]\n"
             "\n"
             "Read the policy files of workspace NAME, which runs, again: the new entries are in force at once, and "
             "flows that\n"
             "they do not allow end. Entries of its flags stay. A file that is wrong changes nothing.\n"
             "\n"
             "  --egress-policy FILE\n"
             "                   read FILE in place of the policy files, now and at later reloads\n" COMMON_HELP);
        return 0;
    }
    g_autofree char *path = file ? g_canonicalize_filename(file, NULL) : NULL;
    sm_cleanup(json_freep) json_t *answer =
        sm_cli_ask(&given, ANSWER_MS, path ? SM_CONTROL_POLICY : SM_CONTROL_RELOAD, path, &error);
    if (!answer)
        return sm_cli_fail(error, 1);
    if (given.json)
        return sm_cli_print_json(sm_steal_ptr(&answer));
    if (json_unpack(answer, "{s:I, s:I, s:I}", "allow", &allow, "passthrough", &passthrough, "deny", &deny) < 0)
        return 1;
    printf("%lld allowed, %lld passthrough, %lld denied\n", (long long)allow, (long long)passthrough, (long long)deny);
    return fflush(stdout) == 0 ? 0 : 1;
}
