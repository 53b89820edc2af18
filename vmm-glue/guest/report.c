/* SPDX-License-Identifier: BSD-3-Clause */
/* What was done; see report.h. */
#include "guest/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const file_states[] = {
    [SM_FILE_UNCHANGED] = "unchanged",
    [SM_FILE_WRITTEN] = "written",
    [SM_FILE_REMOVED] = "removed",
};
SM_NAME_TABLE_COVERS(file_states, SM_FILE_STATES);

static const char *const update_states[] = {
    [SM_UPDATE_NONE] = "none",       [SM_UPDATE_CURRENT] = "not needed", [SM_UPDATE_DONE] = "done",
    [SM_UPDATE_MISSING] = "missing", [SM_UPDATE_SKIPPED] = "skipped",    [SM_UPDATE_FAILED] = "failed",
};
SM_NAME_TABLE_COVERS(update_states, SM_UPDATE_STATES);

/** A copy, or the end: without memory there is nothing to report with. */
static char *format_copy(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
static char *format_copy(const char *format, va_list args)
{
    char *s = NULL;

    if (vasprintf(&s, format, args) < 0)
        abort();
    return s;
}

/** As it happens. */
static bool says(const struct sm_report *r)
{
    return !r->json && !r->quiet;
}

void sm_report_fetched(struct sm_report *r, const char *from, const char *sha256)
{
    free(r->from);
    r->from = strdup(from);
    (void)snprintf(r->sha256, sizeof(r->sha256), "%s", sha256);
    if (says(r))
        printf("certificate: SHA-256 %s, from %s\n", sha256, from);
}

void sm_report_file(struct sm_report *r, const char *path, enum sm_file_state state)
{
    if (r->n_files == SM_REPORT_FILES)
        abort();
    r->files[r->n_files].path = path;
    r->files[r->n_files++].state = state;
    if (says(r))
        printf("%s%s: %s\n", r->dry_run && state != SM_FILE_UNCHANGED ? "would be " : "", file_states[state], path);
}

void sm_report_note(struct sm_report *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *note = format_copy(format, args);
    va_end(args);
    if (says(r))
        printf("note: %s\n", note);
    if (r->n_notes < SM_REPORT_NOTES)
        r->notes[r->n_notes++] = note;
    else
        free(note);
}

void sm_report_error(struct sm_report *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *error = format_copy(format, args);
    va_end(args);
    (void)fflush(stdout);
    fprintf(stderr, "slirp-med-guest: %s\n", error);
    if (r->error)
        free(error);
    else
        r->error = error;
}

bool sm_report_changed(const struct sm_report *r)
{
    for (size_t i = 0; i < r->n_files; i++)
        if (r->files[i].state != SM_FILE_UNCHANGED)
            return true;
    return r->update == SM_UPDATE_DONE || r->update == SM_UPDATE_FAILED;
}

/** A JSON string, or null. Paths are bytes: what is no ASCII goes through as it is. */
static void quote(const char *s)
{
    if (!s) {
        (void)fputs("null", stdout);
        return;
    }
    (void)putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            printf("\\u%04x", c);
        else
            (void)putchar(c);
    }
    (void)putchar('"');
}

static void key(const char *name, const char *value)
{
    printf("\"%s\": ", name);
    quote(value);
    (void)fputs(", ", stdout);
}

static void print_json(const struct sm_report *r, enum sm_guest_status status, const char *result)
{
    (void)putchar('{');
    key("schema", "slirp-med-guest/1");
    key("version", SM_VERSION);
    key("result", status == SM_GUEST_DONE ? result : "failed");
    printf("\"status\": %d, \"dry_run\": %s, ", (int)status, r->dry_run ? "true" : "false");
    key("error", r->error);
    key("from", r->from);
    key("sha256", r->sha256[0] ? r->sha256 : NULL);
    key("root", r->root);
    key("layout", r->layout);
    printf("\"replaced\": %s, ", r->replaced ? "true" : "false");
    key("system_bundle", r->system_bundle);
    printf("\"system_certificates\": %zu, ", r->system_count);
    (void)fputs("\"update\": {", stdout);
    key("tool", r->update_tool);
    printf("\"state\": \"%s\"}, \"files\": [", update_states[r->update]);
    for (size_t i = 0; i < r->n_files; i++) {
        (void)fputs(i > 0 ? ", {" : "{", stdout);
        key("path", r->files[i].path);
        printf("\"state\": \"%s\"}", file_states[r->files[i].state]);
    }
    (void)fputs("], \"notes\": [", stdout);
    for (size_t i = 0; i < r->n_notes; i++) {
        if (i > 0)
            (void)fputs(", ", stdout);
        quote(r->notes[i]);
    }
    (void)fputs("]}\n", stdout);
}

void sm_report_finish(struct sm_report *r, enum sm_guest_status status, const char *result)
{
    if (r->json)
        print_json(r, status, result);
    else if (status == SM_GUEST_DONE)
        printf("%s%s\n", result, r->dry_run ? " (dry run: nothing was changed)" : "");
    (void)fflush(stdout);
    for (size_t i = 0; i < r->n_notes; i++)
        free(r->notes[i]);
    free(r->error);
    free(r->from);
    *r = (struct sm_report){0};
}
