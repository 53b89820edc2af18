/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med check`: explains what would become of a connection (launch/check.h), of a workspace as it was last started
 * or reloaded (workspace.json), or of the flags given. How many arguments there are says which: HOST and HOST METHOD
 * PATH are about the flags, NAME HOST and NAME HOST METHOD PATH about workspace NAME.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/color.h"
#include "launch/check.h"
#include "launch/settings.h"
#include "launch/state.h"

static const char help[] =
    "usage: slirp-med check NAME HOST[:PORT] [METHOD PATH]\n"
    "       slirp-med check [EGRESS FLAGS] HOST[:PORT] [METHOD PATH]\n"
    "\n"
    "Explain what would become of a connection, step by step, and which entry decides. Nothing is resolved or sent.\n"
    "The policy is that of workspace NAME as it was last started or reloaded, with its policy files as they are now;\n"
    "or that of the flags ('slirp-med run --help' lists them).\n"
    "\n"
    "  --as WHAT          tls, http, opaque or udp: what the connection carries (default: by the port, else opaque)\n"
    "  --address ADDRESS  take the name to have this address\n"
    "  --json             as one JSON object\n" SM_COLOR_HELP
    "  --state-dir DIR    where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
    "~/.local/state/slirp-med)\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0 it would be allowed (a name: at a public address, or the one given), 1 denied, 2 it cannot be "
    "said: "
    "a wrong flag, no such workspace, a policy that does not parse.";

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** Of the command itself; what is left in argv is flags of a start, and what to check. */
struct own {
    const char *as, *address, *state_dir;
    bool json, help;
};

static bool take_own(int *argc, char **argv, struct own *ret, GError **error)
{
    struct {
        const char *flag;
        const char **value;
    } values[] = {{"--as", &ret->as}, {"--address", &ret->address}, {"--state-dir", &ret->state_dir}};
    int to = 1;

    for (int i = 1; i < *argc; i++) {
        char *arg = argv[i];
        bool taken = false;
        if (strcmp(arg, "--") == 0) {
            while (i < *argc)
                argv[to++] = argv[i++];
            break;
        }
        if (strcmp(arg, "--json") == 0 || strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            *(strcmp(arg, "--json") == 0 ? &ret->json : &ret->help) = true;
            continue;
        }
        for (size_t k = 0; k < SM_ARRAY_LEN(values) && !taken; k++) {
            size_t len = strlen(values[k].flag);
            if (strncmp(arg, values[k].flag, len) != 0 || (arg[len] != '\0' && arg[len] != '='))
                continue;
            const char *value = arg[len] == '=' ? arg + len + 1 : i + 1 < *argc ? argv[++i] : NULL;
            if (!value || !value[0] || *values[k].value) {
                sm_error_set(error, SM_ERROR_INVALID, "%s%s%.200s: %s", values[k].flag, value ? "=" : "",
                             value ? value : "",
                             !value      ? "lacks its value"
                             : !value[0] ? "empty"
                                         : "given twice");
                return false;
            }
            *values[k].value = value;
            taken = true;
        }
        if (!taken)
            argv[to++] = arg;
    }
    *argc = to;
    argv[to] = NULL;
    return true;
}

static bool take_as(const char *text, enum sm_check_as *ret, GError **error)
{
    if (!text)
        return true;
    for (unsigned i = SM_CHECK_AS_PORT + 1; i < SM_CHECK_AS_COUNT; i++) {
        if (strcmp(text, sm_check_as_name((enum sm_check_as)i)) == 0) {
            *ret = (enum sm_check_as)i;
            return true;
        }
    }
    g_autofree char *shown = g_utf8_make_valid(text, -1);
    sm_error_set(error, SM_ERROR_INVALID, "--as=%.80s: write tls, http, opaque or udp", shown);
    return false;
}

/** Flags of workspace.json, behind "run" and "--dry-run". False: something else stands there. */
static bool add_stored(GPtrArray *args, const json_t *list, const char *flag)
{
    if (!json_is_array(list))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || (!flag && (text[0] != '-' || text[1] != '-' || !text[2])))
            return false;
        g_ptr_array_add(args, g_strconcat(flag ? flag : "", text, NULL));
    }
    return true;
}

/**
 * What a workspace was last started with, as far as it judges; of one that was only created, what it would be started
 * with.
 */
static bool stored_options(const struct own *own, const char *name, struct sm_run_options *ret, char ***ret_argv,
                           GError **error)
{
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_settings_clear) struct sm_settings created = {0};
    g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);

    if (!sm_state_name_check(name, error) || sm_workspace_open(own->state_dir, name, false, &ws, error) < 0)
        return false;
    if (faccessat(ws.dirfd, SM_STATE_SETTINGS, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && sm_settings_exist(&ws)) {
        if (sm_settings_read(&ws, &created, error) < 0)
            return false;
        char some[] = "true", *any[] = {some, NULL}; /* the command may come with `start`, and judges nothing */
        bool lacks = created.command == SM_COMMAND_RUN && !created.cmd;
        return sm_settings_options(&created, &ws, lacks ? any : NULL, ret, ret_argv, error) == 0;
    }
    g_autofree char *text = sm_workspace_read_settings(&ws, error);
    if (!text)
        return false;
    sm_cleanup(json_freep) json_t *settings = json_loads(text, 0, NULL);
    g_ptr_array_add(args, g_strdup("run"));
    g_ptr_array_add(args, g_strdup("--dry-run"));
    if (!add_stored(args, json_object_get(settings, "policy_flags"), NULL) ||
        !add_stored(args, json_object_get(settings, "policy_files"), "--egress-policy=")) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "workspace '%s': its " SM_STATE_SETTINGS
                     " does not say what it judges by (of an older version?): give the flags instead of the name",
                     name);
        return false;
    }
    int n = (int)args->len;
    g_ptr_array_add(args, NULL);
    *ret_argv = g_strdupv((char **)args->pdata);
    const json_t *spec = json_object_get(settings, "spec");
    if (sm_run_options_parse_stored(n, *ret_argv, json_is_object(spec) ? spec : NULL, ret, error) == 0)
        return true;
    g_prefix_error(error, "workspace '%s', as it was last started: ", name);
    return false;
}

static bool usage(GError **error, const char *text)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s ('slirp-med check --help' explains)", text);
    return false;
}

/** What to check, and by what. *ret_name: the workspace, or NULL. */
static bool parse(int argc, char **argv, const struct own *own, struct sm_run_options *ret_o, char ***ret_argv,
                  struct sm_check *ret, const char **ret_name, GError **error)
{
    g_autofree char **args = g_new0(char *, (gsize)argc + 2);
    char run[] = "run", dry[] = "--dry-run";
    struct sm_run_options o = {0};

    args[0] = run;
    args[1] = dry;
    for (int i = 1; i < argc; i++) {
        if (!argv[i][0])
            return usage(error, "an argument is empty");
        args[i + 1] = argv[i];
    }
    if (sm_run_options_parse(argc + 1, args, &o, error) < 0)
        return false;
    char *none[] = {NULL};
    char **words = o.argv ? o.argv : none;
    unsigned n = g_strv_length(words);
    bool named = n == 2 || n == 4, flags = argv[1] && n + 1 < (unsigned)argc && strcmp(argv[1], "--") != 0;
    bool ok = false;
    const char *name = named ? words[0] : NULL;

    words += named;
    if (n == 0 || n > 4)
        (void)usage(error, n ? "too many arguments" : "no HOST");
    else if (named && flags)
        (void)usage(error, "flags and NAME: a workspace has its own, leave one of them out");
    else
        ok = sm_check_parse(words[0], ret, error) &&
             (n - named == 1 || sm_check_request(words[1], words[2], ret, error)) && take_as(own->as, &ret->as, error);
    if (ok && own->address && (!sm_addr_parse(own->address, &ret->address) || ret->host.kind != SM_NAME_HOST)) {
        g_autofree char *shown = g_utf8_make_valid(own->address, -1);
        sm_error_set(error, SM_ERROR_INVALID, "--address=%.80s: %s", shown,
                     ret->host.kind == SM_NAME_HOST ? "not an address" : "HOST is an address already");
        ok = false;
    }
    if (ok && named) {
        sm_run_options_clear(&o);
        o = (struct sm_run_options){0};
        ok = stored_options(own, name, &o, ret_argv, error);
    }
    if (!ok) {
        if (o.lists)
            sm_run_options_clear(&o);
        return false;
    }
    *ret_o = o;
    *ret_name = name;
    return true;
}

/* ---- for a person ---- */

static const char *word(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void print_action(const char *action, bool color)
{
    bool deny = strcmp(action, "deny") == 0;

    printf("%s%s%s", sm_tint(color, deny ? SM_TINT_DENY : SM_TINT_ALLOW), action, sm_tint_end(color));
}

static void print_step(const json_t *step, bool color)
{
    const char *rule = word(step, "rule"), *place = word(step, "place"), *list = word(step, "list");
    const char *answer = word(step, "answer");

    printf("  %-12s ", word(step, "step"));
    print_action(word(step, "action"), color);
    printf(": %s", word(step, "reason"));
    if (rule)
        printf(", by %s%s%s%s%s%s", list ? list : "", list ? " " : "", rule, place ? " (" : "", place ? place : "",
               place ? ")" : "");
    if (answer)
        printf(", the guest gets %s", answer);
    if (json_object_get(step, "status"))
        printf(", the guest gets %d", (int)json_integer_value(json_object_get(step, "status")));
    putchar('\n');
}

static void print_case(const json_t *one, bool named, bool color)
{
    const char *inside = word(one, "inside"), *kind = word(one, "address"), *treated = word(one, "treatment");
    const json_t *credential = json_object_get(one, "credential");
    const json_t *steps = json_object_get(one, "steps");
    bool given = strcmp(kind, "given") == 0;

    printf("%s%s%s%s%s%s: ", named ? "resolves to " : "", given ? "" : kind, given ? "" : ", for instance ",
           word(one, "example"), inside ? ", inside: " : "", inside ? inside : "");
    print_action(word(one, "action"), color);
    printf("%s%s\n", treated ? ", " : "", treated ? treated : "");
    for (size_t i = 0; i < json_array_size(steps); i++)
        print_step(json_array_get(steps, i), color);
    if (credential)
        printf("  %-12s %s (%s) is put into header %s\n", "credential", word(credential, "name"),
               word(credential, "type"), word(credential, "header"));
}

static void print_report(const json_t *report, bool color)
{
    const json_t *cases = json_object_get(report, "cases"), *dns = json_object_get(report, "dns");
    const char *reason = word(report, "reason"), *key;
    json_t *value;

    printf("%s port %d as %s, %s%s: ", word(report, "host"), (int)json_integer_value(json_object_get(report, "port")),
           word(report, "as"), word(report, "mode"), json_is_true(json_object_get(report, "opaque")) ? ", opaque" : "");
    print_action(word(report, "verdict"), color);
    printf("%s%s\n", reason ? ": " : "", reason ? reason : "");
    if (dns)
        print_step(dns, color);
    for (size_t i = 0; i < json_array_size(cases); i++)
        print_case(json_array_get(cases, i), dns != NULL, color);
    json_object_foreach(json_object_get(report, "caps"), key, value)
    {
        if (json_is_integer(value))
            printf("cap %s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
    }
}

int sm_cli_check(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct sm_check check = {0};
    struct sm_run_options o = {0};
    struct own own = {0};
    enum sm_color_when color;
    g_auto(GStrv) stored = NULL;
    const char *name;

    if (!sm_color_take(&argc, argv, &color, &error) || !take_own(&argc, argv, &own, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (own.help) {
        puts(help);
        return 0;
    }
    if (!parse(argc, argv, &own, &o, &stored, &check, &name, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    sm_cleanup(json_freep) json_t *report = sm_check_run(&o, &check, &error);
    sm_run_options_clear(&o);
    if (!report)
        return sm_cli_fail(error, SM_CLI_USAGE);
    (void)json_object_set_new(report, "workspace", name ? json_string(name) : json_null());
    if (own.json) {
        char *text = json_dumps(report, JSON_INDENT(2) | JSON_ENSURE_ASCII);
        puts(text ? text : "{}");
        free(text);
    } else {
        print_report(report, sm_color_on(color, STDOUT_FILENO));
    }
    if (fflush(stdout) != 0)
        return SM_CLI_USAGE;
    return sm_check_allowed(report) ? 0 : 1;
}
