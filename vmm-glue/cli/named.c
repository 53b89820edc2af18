/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments of the subcommands that are about one workspace, and errors on stderr; see cli.h. */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "launch/state.h"

int sm_cli_fail(const GError *error, int otherwise)
{
    fprintf(stderr, "slirp-med: %s\n", error->message);
    return g_error_matches(error, SM_ERROR, SM_ERROR_INVALID) ? SM_CLI_USAGE : otherwise;
}

json_t *sm_cli_ask(const struct sm_cli_named *given, int timeout_ms, enum sm_control_verb verb, const char *argument,
                   GError **error)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    pid_t pid;

    if (sm_workspace_open(given->state_dir, given->name, false, &ws, error) < 0)
        return NULL;
    int r = sm_workspace_holder(&ws, &pid);
    if (r == 0) {
        sm_error_set(error, SM_ERROR_MISSING, "workspace '%s' does not run", ws.name);
        return NULL;
    }
    if (r < 0) {
        sm_error_set_errno(error, errno, "%s/%s/" SM_STATE_LOCK, ws.base, ws.name);
        return NULL;
    }
    enum sm_client_failure why;
    json_t *answer = sm_client_ask(ws.dirfd, timeout_ms, verb, argument, &why, error);
    if (why == SM_CLIENT_UNREACHED || why == SM_CLIENT_SILENT)
        g_prefix_error(error, "workspace '%s' runs (pid %d), but ", ws.name, (int)pid);
    else if (!answer)
        g_prefix_error(error, "workspace '%s': ", ws.name);
    return answer;
}

int sm_cli_print_json(json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENSURE_ASCII);

    puts(text ? text : "null");
    free(text);
    json_decref(value);
    return fflush(stdout) == 0 ? 0 : 1;
}

static bool takes(const struct sm_cli_flag *flags, size_t n, int argc, char **argv, int *i, bool *ret_taken,
                  GError **error)
{
    const char *arg = argv[*i];

    *ret_taken = false;
    for (size_t f = 0; f < n; f++) {
        size_t len = strlen(flags[f].name);
        const char *value = NULL;
        if (strncmp(arg, flags[f].name, len) != 0 || (arg[len] != '\0' && arg[len] != '='))
            continue;
        if (!flags[f].value) {
            if (arg[len] == '=') {
                sm_error_set(error, SM_ERROR_INVALID, "%.80s: takes no value: write %s", arg, flags[f].name);
                return false;
            }
            *flags[f].on = true;
            *ret_taken = true;
            return true;
        }
        if (arg[len] == '=') {
            value = arg + len + 1;
        } else if (++*i == argc) {
            sm_error_set(error, SM_ERROR_INVALID, "%s: lacks its value: write %s %s", flags[f].name, flags[f].name,
                         flags[f].metavar);
            return false;
        } else {
            value = argv[*i];
        }
        if (*flags[f].value || !value[0]) {
            sm_error_set(error, SM_ERROR_INVALID, "%s=%.200s: %s", flags[f].name, value,
                         value[0] ? "given twice: give it once" : "empty");
            return false;
        }
        *flags[f].value = value;
        *ret_taken = true;
        return true;
    }
    return true;
}

bool sm_cli_parse(int argc, char **argv, unsigned may, const struct sm_cli_flag *flags, size_t n_flags,
                  struct sm_cli_named *ret, GError **error)
{
    struct sm_cli_named n = {0};
    const struct sm_cli_flag own[] = {{.name = "--json", .on = &n.json},
                                      {.name = "--state-dir", .value = &n.state_dir, .metavar = "DIR"}};

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        bool taken;
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            *ret = (struct sm_cli_named){.help = true};
            return true;
        }
        if (!takes(own + !(may & SM_CLI_MAY_JSON), SM_ARRAY_LEN(own) - !(may & SM_CLI_MAY_JSON), argc, argv, &i, &taken,
                   error) ||
            (!taken && !takes(flags, n_flags, argc, argv, &i, &taken, error)))
            return false;
        if (taken)
            continue;
        if (arg[0] == '-') {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: unknown flag ('slirp-med %s --help' lists all)", arg,
                         argv[0]);
            return false;
        }
        if (!n.name && !(may & SM_CLI_NO_NAME)) {
            n.name = arg;
            continue;
        }
        if (!n.more && (may & SM_CLI_MORE)) {
            if (!arg[0]) {
                sm_error_set(error, SM_ERROR_INVALID, "an empty argument ('slirp-med %s --help' says what goes there)",
                             argv[0]);
                return false;
            }
            n.more = arg;
            continue;
        }
        if (may & SM_CLI_MORE)
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: one argument too many, behind '%s'", arg, n.more);
        else if (may & SM_CLI_NO_NAME)
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: '%s' takes no NAME: leave it out", arg, argv[0]);
        else
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: one NAME is enough, and '%s' was it", arg, n.name);
        return false;
    }
    if (!n.name && !(may & SM_CLI_NO_NAME)) {
        sm_error_set(error, SM_ERROR_INVALID, "no NAME: write 'slirp-med %s NAME'", argv[0]);
        return false;
    }
    if (n.name && !sm_state_name_check(n.name, error))
        return false;
    *ret = n;
    return true;
}

bool sm_cli_named_parse(int argc, char **argv, bool may_json, struct sm_cli_named *ret, GError **error)
{
    return sm_cli_parse(argc, argv, may_json ? SM_CLI_MAY_JSON : 0, NULL, 0, ret, error);
}
