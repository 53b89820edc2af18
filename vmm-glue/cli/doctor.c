/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med doctor`: runs the probes and prints the findings; see doctor.h. */
#include "cli/doctor.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/color.h"
#include "cli/doctor_probes.h"

#define SCHEMA 1

static void print_help(void)
{
    fputs(
        "usage: slirp-med doctor [--json] [--color WHEN]\n"
        "\n"
        "Tries on this machine what `slirp-med run` needs: namespaces, a tap, mounts, the sandbox, a TPROXY rule, the\n"
        "state folder, the resolvers. Says for each whether it works, and how to mend it. Nothing is left behind.\n"
        "\n"
        "  --json           one JSON object in place of the table\n" SM_COLOR_HELP "\n"
        "Exit status: 0 when `run` can work, 1 when it cannot, 2 for a wrong flag.\n",
        stdout);
}

static enum sm_tint tint_of(enum sm_probe_status status)
{
    switch (status) {
    case SM_PROBE_OK:
        return SM_TINT_ALLOW;
    case SM_PROBE_DEGRADED:
        return SM_TINT_WARN;
    case SM_PROBE_MISSING:
    case SM_PROBE_STATUSES:
        break;
    }
    return SM_TINT_DENY;
}

static void print_finding(const struct sm_probe *probe, const struct sm_probe_finding *f, bool color)
{
    printf("%s%-9s%s %-18s %s\n", sm_tint(color, tint_of(f->status)), sm_probe_status_name(f->status),
           sm_tint_end(color), probe->name, f->detail);
    if (f->status != SM_PROBE_OK && f->fix[0])
        printf("%-9s %-18s fix: %s\n", "", "", f->fix);
}

static json_t *json_finding(const struct sm_probe *probe, const struct sm_probe_finding *f)
{
    g_autofree char *detail = g_utf8_make_valid(f->detail, -1), *fix = g_utf8_make_valid(f->fix, -1);
    return json_pack("{s:s, s:s, s:s, s:o, s:s}", "name", probe->name, "status", sm_probe_status_name(f->status),
                     "detail", detail, "fix", f->status != SM_PROBE_OK && *fix ? json_string(fix) : json_null(),
                     "needed_for", sm_probe_need_name(probe->need));
}

int sm_cli_doctor(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    bool json = false, can_run = true;
    enum sm_color_when when;

    if (!sm_color_take(&argc, argv, &when, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    bool color = sm_color_on(when, STDOUT_FILENO);

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return 0;
        }
        if (strcmp(argv[i], "--json") != 0) {
            fprintf(stderr, "slirp-med doctor: '%.80s' is unknown; it takes --json, --color and --help only\n",
                    argv[i]);
            return SM_CLI_USAGE;
        }
        json = true;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < sm_n_probes; i++) {
        struct sm_probe_finding f;
        sm_probe_run(&sm_probes[i], &f);
        if (f.status == SM_PROBE_MISSING && sm_probes[i].need == SM_PROBE_FOR_RUN)
            can_run = false;
        if (json)
            (void)json_array_append_new(list, json_finding(&sm_probes[i], &f));
        else
            print_finding(&sm_probes[i], &f, color);
    }
    json_t *all =
        json_pack("{s:i, s:s, s:b, s:o}", "schema", SCHEMA, "version", SM_VERSION, "run", can_run, "probes", list);
    if (json) {
        (void)json_dumpf(all, stdout, JSON_INDENT(2));
        (void)putchar('\n');
    } else {
        printf("\n`slirp-med run` %s on this machine.\n", can_run ? "can work" : "cannot work");
    }
    json_decref(all);
    return fflush(stdout) != 0 || !can_run ? 1 : 0;
}
