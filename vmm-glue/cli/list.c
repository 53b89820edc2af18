/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med list`: all workspaces of a state folder, and network records for people.
 *
 * Those that run are asked all at once and without their core and front, and together have ANSWER_MS: one that hangs is
 * listed as running all the same, since its lock says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"
#include "launch/record.h"

#define ANSWER_MS 1000
/** Asked in one go: each has two folders and a lock open. */
#define BATCH 100

struct found {
    struct sm_workspace ws;
    struct sm_record_place place;
};

static void found_clear(struct found *f)
{
    json_decref((json_t *)(uintptr_t)f->place.answer);
    f->place.answer = NULL;
    sm_workspace_close(&f->ws);
}

/** False: it went away meanwhile, is not to be shown, or cannot be looked at (which is warned of). */
static bool find(const char *state_dir, const char *name, struct found *f)
{
    g_autoptr(GError) error = NULL;

    *f = (struct found){.ws = SM_WORKSPACE_INIT};
    f->place.ws = &f->ws;
    if (sm_workspace_open(state_dir, name, false, &f->ws, &error) < 0) {
        fprintf(stderr, "slirp-med: warning: %s\n", error->message);
        return false;
    }
    if (sm_workspace_look(&f->ws, &f->place.state, &f->place.pid) == 0 && f->place.state != SM_WORKSPACE_EMPTY)
        return true;
    found_clear(f);
    return false;
}

static void add_rows(const char *state_dir, char *const *names, size_t n, json_t *rows)
{
    struct found found[BATCH];
    struct sm_client_question questions[BATCH];
    size_t n_found = 0, n_questions = 0;

    for (size_t i = 0; i < n; i++)
        if (find(state_dir, names[i], &found[n_found]))
            n_found++;
    for (size_t i = 0; i < n_found; i++) {
        found[i].place.ws = &found[i].ws;
        if (found[i].place.state == SM_WORKSPACE_RUNNING)
            questions[n_questions++] = (struct sm_client_question){.dirfd = found[i].ws.dirfd};
    }
    sm_client_ask_all(questions, n_questions, SM_CONTROL_NETWORK, ANSWER_MS);
    n_questions = 0;
    for (size_t i = 0; i < n_found; i++) {
        if (found[i].place.state == SM_WORKSPACE_RUNNING)
            found[i].place.answer = questions[n_questions++].answer;
        (void)json_array_append_new(rows, sm_record_row(&found[i].place));
        found_clear(&found[i]);
    }
}

/* ---- for people ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "-";
}

/** "127.0.0.1:8080->80, ..." */
static char *publishes_text(const json_t *publishes)
{
    GString *out = g_string_new(NULL);
    const json_t *p;
    size_t i;

    json_array_foreach(publishes, i, p)
    {
        const char *host = text_of(p, "host");
        g_string_append_printf(out, strchr(host, ':') ? "%s[%s]:%d->%d" : "%s%s:%d->%d", i ? ", " : "", host,
                               (int)json_integer_value(json_object_get(p, "hostPort")),
                               (int)json_integer_value(json_object_get(p, "guestPort")));
    }
    return g_string_free(out, FALSE);
}

void sm_cli_print_network(const json_t *record)
{
    const json_t *network = json_object_get(record, "network");
    const char *key;
    json_t *value;

    printf("%-10s%s\n%-10s%s\n%-10s%s\n", "name", text_of(record, "name"), "state", text_of(record, "state"),
           "datapath", text_of(record, "datapath"));
    json_object_foreach((json_t *)(uintptr_t)network, key, value)
    {
        if (strcmp(key, "publishes") == 0 || json_is_null(value))
            continue;
        char *text =
            json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        printf("%-10s%s\n", strcmp(key, "mode") == 0 ? "network" : key, text ? text : json_string_value(value));
        free(text);
    }
    g_autofree char *published = publishes_text(json_object_get(network, "publishes"));
    printf("%-10s%s\n", "published", published[0] ? published : "-");
}

/** How it ended, in a word or two. */
static char *end_text(const json_t *row)
{
    const json_t *exit = json_object_get(row, "last_exit");
    const char *state = text_of(row, "state");

    if (strcmp(state, "stopped") != 0 || !json_is_object(exit))
        return g_strdup(state);
    return g_strdup_printf("%s (%s, %d)", state, text_of(exit, "how"),
                           (int)json_integer_value(json_object_get(exit, "status")));
}

enum { COLUMNS = 8 };

static void print_rows(const json_t *rows)
{
    static const char *const titles[COLUMNS] = {"NAME",   "STATE",   "PID",   "KIND",
                                                "EGRESS", "NETWORK", "SINCE", "PUBLISHED"};
    g_autoptr(GPtrArray) cells = g_ptr_array_new_with_free_func(g_free);
    glong width[COLUMNS];
    const json_t *row;
    size_t i;

    for (size_t c = 0; c < COLUMNS; c++)
        g_ptr_array_add(cells, g_strdup(titles[c]));
    json_array_foreach(rows, i, row)
    {
        const json_t *pid = json_object_get(row, "pid");
        const json_t *record = json_object_get(row, "network");
        const char *network = text_of(record, "mode");
        g_ptr_array_add(cells, g_strdup(text_of(row, "name")));
        g_ptr_array_add(cells, end_text(row));
        g_ptr_array_add(cells, pid && !json_is_null(pid) ? g_strdup_printf("%d", (int)json_integer_value(pid))
                                                         : g_strdup("-"));
        g_ptr_array_add(cells, g_strdup(text_of(row, "command")));
        g_ptr_array_add(cells, g_strdup_printf("%s%s", text_of(row, "mode"),
                                               json_is_true(json_object_get(row, "opaque")) ? ", opaque" : ""));
        g_ptr_array_add(cells, strcmp(network, "user") == 0 ? g_strdup_printf("user/%s", text_of(row, "datapath"))
                                                            : g_strdup(network));
        g_ptr_array_add(cells, g_strdup(text_of(row, "since")));
        g_ptr_array_add(cells, publishes_text(json_object_get(record, "publishes")));
    }
    memset(width, 0, sizeof(width));
    for (guint c = 0; c < cells->len; c++)
        width[c % COLUMNS] = SM_MAX(width[c % COLUMNS], g_utf8_strlen(g_ptr_array_index(cells, c), -1));
    for (guint c = 0; c < cells->len; c++) {
        const char *cell = g_ptr_array_index(cells, c);
        bool last = c % COLUMNS == COLUMNS - 1;
        printf("%-*s%s", last ? 0 : (int)width[c % COLUMNS] + 2, cell, last ? "\n" : "");
    }
}

int sm_cli_list(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct sm_cli_named given;

    if (!sm_cli_parse(argc, argv, SM_CLI_MAY_JSON | SM_CLI_NO_NAME, NULL, 0, &given, &error))
        return sm_cli_fail(error, SM_CLI_USAGE);
    if (given.help) {
        puts("usage: slirp-med list [--json] [--state-dir DIR]\n"
             "\n"
             "Show all workspaces, those that were created and those of 'run', 'vm', 'attach' and 'proxy': whether "
             "each was "
             "only created, "
             "runs, was stopped\n"
             "(and how it ended, with its exit status) or has crashed.\n"
             "\n"
             "  --json           as one JSON object (docs/JSON.md)\n"
             "  --state-dir DIR  where workspaces keep their state (default $XDG_STATE_HOME/slirp-med, or "
             "~/.local/state/slirp-med)\n"
             "  -h, --help       print this and exit\n"
             "\n"
             "Exit status: 0; 1 when the state folder cannot be read; 2 when a flag is wrong.");
        return 0;
    }
    g_auto(GStrv) names = sm_state_names(given.state_dir, &error);
    if (!names)
        return sm_cli_fail(error, 1);
    json_t *rows = json_array();
    size_t n = g_strv_length(names);
    for (size_t i = 0; i < n; i += BATCH)
        add_rows(given.state_dir, names + i, SM_MIN(n - i, (size_t)BATCH), rows);
    if (given.json)
        return sm_cli_print_json(json_pack("{s:i, s:o}", "schema", SM_RECORD_SCHEMA, "workspaces", rows));
    print_rows(rows);
    json_decref(rows);
    return fflush(stdout) == 0 ? 0 : 1;
}
