/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments of the subcommands that are about one workspace, and errors on stderr; see cli.h. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "launch/state.h"

int sm_cli_fail(const GError *error, int otherwise)
{
    fprintf(stderr, "slirp-med: %s\n", error->message);
    return g_error_matches(error, SM_ERROR, SM_ERROR_INVALID) ? SM_CLI_USAGE : otherwise;
}

bool sm_cli_named_parse(int argc, char **argv, bool may_json, struct sm_cli_named *ret, GError **error)
{
    struct sm_cli_named n = {0};

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            *ret = (struct sm_cli_named){.help = true};
            return true;
        }
        if (may_json && strcmp(arg, "--json") == 0) {
            n.json = true;
        } else if (g_str_has_prefix(arg, "--state-dir=")) {
            n.state_dir = arg + strlen("--state-dir=");
        } else if (strcmp(arg, "--state-dir") == 0) {
            if (++i == argc) {
                sm_error_set(error, SM_ERROR_INVALID, "--state-dir: lacks its value: write --state-dir DIR");
                return false;
            }
            n.state_dir = argv[i];
        } else if (arg[0] == '-') {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: unknown flag ('slirp-med %s --help' lists all)", arg,
                         argv[0]);
            return false;
        } else if (n.name) {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: one NAME is enough, and '%s' was it", arg, n.name);
            return false;
        } else {
            n.name = arg;
        }
    }
    if (!n.name) {
        sm_error_set(error, SM_ERROR_INVALID, "no NAME: write 'slirp-med %s NAME'", argv[0]);
        return false;
    }
    if (n.state_dir && n.state_dir[0] == '\0') {
        sm_error_set(error, SM_ERROR_INVALID, "--state-dir=: empty: give a folder");
        return false;
    }
    if (!sm_state_name_check(n.name, error))
        return false;
    *ret = n;
    return true;
}
