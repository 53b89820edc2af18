/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slirp-med and slirp-med-core (launch/program.h): picks the subcommand out of one table. Roles (core, fetch; those
 * that face the guest are in slirp-med-edge) are started by the supervisor, not by users.
 */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/defs.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/egress.h"
#include "core/core.h"
#include "core/fetcher.h"
#include "launch/detach.h"
#include "launch/options.h"
#include "launch/program.h"

struct command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;    /* NULL: hidden */
    const char *process; /* hidden roles: name of the process in ps(1), at most 15 bytes */
};

static int help_main(int argc, char **argv);

static const struct command commands[] = {
    {"run", sm_cli_run, "run a command whose only network is the mediator", NULL},
    {"attach", sm_cli_run, "serve a virtual machine that somebody else starts", NULL},
    {"proxy", sm_cli_run, "be the HTTP proxy of clients on a network without a gateway", NULL},
    {"vm", sm_cli_run, "boot a virtual machine whose only network is the mediator", NULL},
    {"egress", sm_cli_egress, "print what a workspace tried to reach and how it was judged", NULL},
    {"create", sm_cli_create, "keep flags under a name, for 'start'", NULL},
    {"start", sm_cli_start, "start a workspace that was created", NULL},
    {"list", sm_cli_list, "show all workspaces", NULL},
    {"status", sm_cli_status, "show how a workspace is: settings, flows, caps, record, processes", NULL},
    {"network", sm_cli_network, "show a workspace's network and what is published", NULL},
    {"publish", sm_cli_publish, "let connections to a port of this machine through to a running workspace", NULL},
    {"unpublish", sm_cli_unpublish, "undo that", NULL},
    {"reload", sm_cli_reload, "read the policy files of a running workspace again, or another one", NULL},
    {"snapshot", sm_cli_snapshot, "keep a workspace's CA, pins, counters and entries in a file", NULL},
    {"restore", sm_cli_restore, "make a workspace of that file", NULL},
    {"check", sm_cli_check, "explain what would become of a connection, and by which rule", NULL},
    {"suggest", sm_cli_suggest, "make a policy file of what a workspace used", NULL},
    {"stop", sm_cli_stop, "end a running workspace", NULL},
    {"delete", sm_cli_delete, "remove a workspace and all that is kept of it", NULL},
    {"tap", sm_cli_tap, "start a virtual machine monitor with the tap of 'attach --tap'", NULL},
    {"doctor", sm_cli_doctor, "check what this machine has of what slirp-med needs", NULL},
    {"help", help_main, "print this, or the help of a command", NULL},
    {SM_DETACH_COMMAND, sm_cli_detached, NULL, NULL},
    {"core", sm_core_main, NULL, "slirp-med-core"},
    {"fetch", sm_fetcher_main, NULL, "slirp-med-fetch"},
};

static void print_help(FILE *to)
{
    fputs("slirp-med " SM_VERSION ": a command, a policy, and a record of every connection\n"
          "\n"
          "usage: slirp-med COMMAND ...\n"
          "\n",
          to);
    for (size_t i = 0; i < SM_ARRAY_LEN(commands); i++)
        if (commands[i].help)
            fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\n"
          "  slirp-med run --egress strict --egress-allow example.com -- curl https://example.com/\n"
          "\n"
          "'slirp-med COMMAND --help' explains a command, 'slirp-med --version' prints the version.\n",
          to);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *words[SM_ARRAY_LEN(commands)];
    size_t n = 0;

    for (size_t i = 0; i < SM_ARRAY_LEN(commands); i++)
        if (commands[i].help)
            words[n++] = commands[i].name;
    const char *like = sm_option_suggest(name, words, n);
    g_autofree char *shown = g_utf8_make_valid(name, -1);
    if (like)
        fprintf(stderr, "slirp-med: '%.80s' is no command; did you mean '%s'? ('slirp-med help' lists all)\n", shown,
                like);
    else
        fprintf(stderr, "slirp-med: '%.80s' is no command ('slirp-med help' lists all)\n", shown);
    return SM_CLI_USAGE;
}

static int help_main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-') {
        print_help(stdout);
        return 0;
    }
    const struct command *c = find_command(argv[1]);
    if (!c || !c->help)
        return unknown(argv[1]);
    if (c->main == help_main) {
        print_help(stdout);
        return 0;
    }
    char flag[] = "--help";
    char *args[] = {argv[1], flag, NULL};
    return c->main(2, args);
}

int main(int argc, char **argv)
{
    sm_program_begin(argv);
    if (argc < 2) {
        fputs("slirp-med: no command ('slirp-med help' lists all)\n", stderr);
        return SM_CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("slirp-med " SM_VERSION);
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "--json") == 0) { /* in front of the command it is the same as behind it */
        char *flag = argv[1];
        argv[1] = argv[2];
        argv[2] = flag;
    }
    const struct command *c = find_command(argv[1]);
    if (!c)
        return unknown(argv[1]);
    if (c->process)
        (void)prctl(PR_SET_NAME, c->process, 0, 0, 0);
    return c->main(argc - 1, argv + 1);
}
