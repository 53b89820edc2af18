/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Colour and progress: for a person at a terminal, never in a pipe or a file.
 *
 * `--color auto` (the default) colours when the descriptor is a terminal, NO_COLOR is unset or empty (no-color.org) and
 * TERM is set and not "dumb"; `always` and `never` say it outright. Progress is written to stderr, and only when that
 * is a terminal.
 */
#ifndef SM_CLI_COLOR_H
#define SM_CLI_COLOR_H

#include <glib.h>

#include "base/defs.h"

enum sm_color_when { SM_COLOR_AUTO = 0, SM_COLOR_ALWAYS, SM_COLOR_NEVER, SM_COLOR_WHENS };
const char *sm_color_when_name(enum sm_color_when when);

enum sm_tint { SM_TINT_ALLOW = 0, SM_TINT_DENY, SM_TINT_WARN, SM_TINT_DIM, SM_TINTS };

/** sm_color_take() - take every --color WHEN and --color=WHEN out of argv. False with error that names the flag. */
bool sm_color_take(int *argc, char **argv, enum sm_color_when *ret, GError **error) SM_WARN_UNUSED;
/** sm_color_on() - is what goes to this descriptor to be coloured? */
bool sm_color_on(enum sm_color_when when, int fd);
/** sm_tint() - what turns the colour on; sm_tint_end() - and off. Both "" when it is not on. */
const char *sm_tint(bool on, enum sm_tint tint);
const char *sm_tint_end(bool on);

/** Progress of long work: one line that is written over, at most five times a second. */
struct sm_progress {
    const char *what;
    uint64_t total; /* bytes; 0: not known */
    bool on, shown;
    int64_t next_us;
};
/** sm_progress_begin() - nothing is shown for work that is done within a moment. */
struct sm_progress sm_progress_begin(const char *what, uint64_t total);
void sm_progress_at(struct sm_progress *p, uint64_t done);
/** sm_progress_end() - the line is wiped. */
void sm_progress_end(struct sm_progress *p);

/** `--color` in the help of the commands that have it. */
#define SM_COLOR_HELP "  --color WHEN     auto (the default: on a terminal, unless NO_COLOR is set), always or never\n"

#endif
