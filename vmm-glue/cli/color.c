/* SPDX-License-Identifier: BSD-3-Clause */
/* Colour and progress; see color.h. */
#include "cli/color.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/loop.h"

#define FIRST_US INT64_C(500000)
#define EVERY_US INT64_C(200000)

static const char *const when_names[] = {
    [SM_COLOR_AUTO] = "auto", [SM_COLOR_ALWAYS] = "always", [SM_COLOR_NEVER] = "never"};
SM_NAME_TABLE_COVERS(when_names, SM_COLOR_WHENS);

static const char *const tints[] = {
    [SM_TINT_ALLOW] = "\x1b[32m", [SM_TINT_DENY] = "\x1b[31m", [SM_TINT_WARN] = "\x1b[33m", [SM_TINT_DIM] = "\x1b[2m"};
SM_NAME_TABLE_COVERS(tints, SM_TINTS);

const char *sm_color_when_name(enum sm_color_when when)
{
    return (unsigned)when < SM_COLOR_WHENS ? when_names[when] : "?";
}

static bool parse(const char *text, enum sm_color_when *ret, GError **error)
{
    for (unsigned i = 0; i < SM_COLOR_WHENS; i++) {
        if (strcmp(text, when_names[i]) == 0) {
            *ret = (enum sm_color_when)i;
            return true;
        }
    }
    g_autofree char *shown = g_utf8_make_valid(text, -1);
    sm_error_set(error, SM_ERROR_INVALID, "--color=%.80s: write auto, always or never", shown);
    return false;
}

bool sm_color_take(int *argc, char **argv, enum sm_color_when *ret, GError **error)
{
    static const char flag[] = "--color";
    size_t len = strlen(flag);
    int to = 1;

    *ret = SM_COLOR_AUTO;
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) { /* what is behind it is no flag */
            while (i < *argc)
                argv[to++] = argv[i++];
            break;
        }
        if (strncmp(argv[i], flag, len) != 0 || (argv[i][len] != '\0' && argv[i][len] != '=')) {
            argv[to++] = argv[i];
            continue;
        }
        const char *value = argv[i][len] == '=' ? argv[i] + len + 1 : i + 1 < *argc ? argv[++i] : NULL;
        if (!value) {
            sm_error_set(error, SM_ERROR_INVALID, "--color: lacks its value: write auto, always or never");
            return false;
        }
        if (!parse(value, ret, error))
            return false;
    }
    *argc = to;
    argv[to] = NULL;
    return true;
}

bool sm_color_on(enum sm_color_when when, int fd)
{
    const char *no = g_getenv("NO_COLOR"), *term = g_getenv("TERM");

    switch (when) {
    case SM_COLOR_ALWAYS:
        return true;
    case SM_COLOR_AUTO:
        return isatty(fd) && !(no && no[0]) && term && term[0] && strcmp(term, "dumb") != 0;
    case SM_COLOR_NEVER:
    case SM_COLOR_WHENS:
        break;
    }
    return false;
}

const char *sm_tint(bool on, enum sm_tint tint)
{
    return on && (unsigned)tint < SM_TINTS ? tints[tint] : "";
}

const char *sm_tint_end(bool on)
{
    return on ? "\x1b[0m" : "";
}

struct sm_progress sm_progress_begin(const char *what, uint64_t total)
{
    const char *term = g_getenv("TERM");

    return (struct sm_progress){.what = what,
                                .total = total,
                                .on = total > 0 && isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0,
                                .next_us = sm_clock_us() + FIRST_US};
}

void sm_progress_at(struct sm_progress *p, uint64_t done)
{
    if (!p->on)
        return;
    int64_t now = sm_clock_us();
    if (now < p->next_us)
        return;
    p->next_us = now + EVERY_US;
    p->shown = true;
    fprintf(stderr, "\r%s: %u %%\x1b[K", p->what,
            done >= p->total ? 100u : (unsigned)((double)done * 100 / (double)p->total));
    fflush(stderr);
}

void sm_progress_end(struct sm_progress *p)
{
    if (p->shown)
        fputs("\r\x1b[K", stderr);
    p->shown = false;
}
