/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med suggest NAME`: a policy file from what a workspace's audit says was used. What becomes an entry:
 * launch/suggest.h.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "cli/cli.h"
#include "cli/color.h"
#include "launch/state.h"
#include "launch/suggest.h"

/** Lines between two looks at the clock. */
#define PROGRESS_LINES 4096

static const char help[] =
    "usage: slirp-med suggest NAME [--json] [--output FILE] [--state-dir DIR]\n"
    "\n"
    "Print the smallest policy file that allows what workspace NAME's audit says was used. Refused destinations and\n"
    "warnings come as comments. Read it before you use it.\n"
    "\n"
    "  --json           the same as one JSON object\n"
    "  --output FILE    write it to FILE (0600), which is replaced whole or not at all\n" SM_COLOR_HELP
    "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
    "~/.local/state/slirp-med)\n"
    "  -h, --help       print this and exit\n"
    "\n"
    "Exit status: 0; 1 when the audit cannot be read or no such file can be made; 2 when a flag is wrong or there is "
    "no "
    "such workspace.";

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** The value of --output, taken out of argv. */
static bool take_output(int *argc, char **argv, const char **ret, GError **error)
{
    static const char flag[] = "--output";
    size_t len = strlen(flag);
    int to = 1;

    *ret = NULL;
    for (int i = 1; i < *argc; i++) {
        if (strncmp(argv[i], flag, len) != 0 || (argv[i][len] != '\0' && argv[i][len] != '=')) {
            argv[to++] = argv[i];
            continue;
        }
        const char *value = argv[i][len] == '=' ? argv[i] + len + 1 : i + 1 < *argc ? argv[++i] : NULL;
        if (!value || !value[0] || *ret) {
            sm_error_set(error, SM_ERROR_INVALID, "--output%s%.200s: %s", value ? "=" : "", value ? value : "",
                         !value      ? "lacks its value: write --output FILE"
                         : !value[0] ? "empty: name a file"
                                     : "given twice: give it once");
            return false;
        }
        *ret = value;
    }
    *argc = to;
    argv[to] = NULL;
    return true;
}

static uint64_t size_of(int dirfd, const char *name)
{
    struct stat st;
    return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

static bool read_audit(const struct sm_workspace *ws, struct sm_suggest *s, GError **error)
{
    struct sm_progress progress = sm_progress_begin("reading the audit", size_of(ws->dirfd, SM_AUDIT_FILE) +
                                                                             size_of(ws->dirfd, SM_AUDIT_FILE_ROTATED));
    struct sm_audit_reader *reader = sm_audit_reader_new(ws->dirfd, error);
    struct sm_audit_line line;
    uint64_t done = 0;
    int r = -1;

    for (unsigned n = 1; reader && (r = sm_audit_reader_next(reader, &line, error)) > 0; n++) {
        sm_suggest_line(s, &line);
        done += line.len + 1;
        if (n % PROGRESS_LINES == 0)
            sm_progress_at(&progress, done);
    }
    if (r == 0 && sm_audit_reader_tail(reader, &line))
        sm_suggest_line(s, &line);
    sm_progress_end(&progress);
    sm_audit_reader_free(reader);
    return r == 0;
}

static void say(const struct sm_suggest *s, const struct sm_suggestion *g, const struct sm_workspace *ws)
{
    struct sm_suggest_counts c = sm_suggest_counts(s);
    const char *text;

    for (size_t i = 0; (text = sm_suggest_bad(s, i)); i++)
        fprintf(stderr, "slirp-med: the audit of '%s': %s\n", ws->name, text);
    if (c.bad)
        fprintf(stderr, "slirp-med: %" G_GUINT64_FORMAT " lines of the audit were skipped\n", c.bad);
    if (c.dropped)
        fprintf(stderr, "slirp-med: %" G_GUINT64_FORMAT " records had names or addresses that are none: left out\n",
                c.dropped);
    if (c.missing)
        fprintf(stderr, "slirp-med: %" G_GUINT64_FORMAT " records had been rotated away\n", c.missing);
    if (c.over)
        fprintf(stderr,
                "slirp-med: warning: there were more destinations than are told apart: %" G_GUINT64_FORMAT
                " uses are not allowed by the suggestion\n",
                c.over);
    for (size_t i = 0; (text = sm_suggestion_warning(g, i)); i++)
        fprintf(stderr, "slirp-med: warning: %s\n", text);
    if (c.records == 0)
        fprintf(stderr, "slirp-med: the audit of '%s' has no records\n", ws->name);
}

/** Comments dim, warnings in their colour: the entries stand out. */
static void print_colored(const char *text)
{
    for (const char *at = text; *at;) {
        const char *nl = strchrnul(at, '\n'), *hash = memchr(at, '#', (size_t)(nl - at));
        if (!hash)
            hash = nl;
        fwrite(at, 1, (size_t)(hash - at), stdout);
        if (hash < nl) {
            fputs(sm_tint(true, g_str_has_prefix(hash, "# WARNING") ? SM_TINT_WARN : SM_TINT_DIM), stdout);
            fwrite(hash, 1, (size_t)(nl - hash), stdout);
            fputs(sm_tint_end(true), stdout);
        }
        if (*nl)
            fputc('\n', stdout);
        at = *nl ? nl + 1 : nl;
    }
}

static char *json_text(const struct sm_suggestion *g, const char *workspace)
{
    sm_cleanup(json_freep) json_t *json = sm_suggestion_json(g, workspace);
    char *dumped = json_dumps(json, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    char *text = g_strconcat(dumped ? dumped : "{}", "\n", NULL);

    free(dumped);
    return text;
}

int sm_cli_suggest(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_suggest_freep) struct sm_suggest *s = sm_suggest_new();
    enum sm_color_when color;
    struct sm_cli_named given;
    const char *output;

    if (!sm_color_take(&argc, argv, &color, &error) || !take_output(&argc, argv, &output, &error) ||
        !sm_cli_named_parse(argc, argv, true, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts(help);
        return 0;
    }
    if (sm_workspace_open(given.state_dir, given.name, false, &ws, &error) < 0)
        return sm_cli_fail(error, 1);
    if (!read_audit(&ws, s, &error)) {
        g_prefix_error(&error, "the audit of '%s': ", ws.name);
        (void)sm_cli_fail(error, 1);
        return 1;
    }
    sm_cleanup(sm_suggestion_freep) struct sm_suggestion *g = sm_suggest_finish(s);
    say(s, g, &ws);
    g_autofree char *text = given.json ? json_text(g, ws.name) : sm_suggestion_yaml(g, ws.name, &error);
    if (!text)
        return sm_cli_fail(error, 1);
    if (output) {
        if (!g_file_set_contents_full(output, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &error)) {
            g_prefix_error(&error, "--output=%.200s: ", output);
            return sm_cli_fail(error, 1);
        }
        return 0;
    }
    if (!given.json && sm_color_on(color, STDOUT_FILENO))
        print_colored(text);
    else
        fputs(text, stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}
