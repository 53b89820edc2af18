/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A flag as it can be given again from another folder: what a created workspace keeps (settings.h). The metavar of the
 * flag says what its value is, so that a new flag is right by being shown right in --help.
 *
 *   metavar          value                                            kept
 *   FILE, DIR        a path                                           absolute
 *   PATH             a path, or "tcp:..."; a program may be a name    absolute where it has a '/' or names no program
 *   PATH[,PEER]      two paths                                        both absolute
 *   SRC[:DST]        a path here, and one of the guest's              SRC absolute
 *   PROVIDER[=REF]   a reference; "file:PATH" has a path              that path absolute
 *   all others       text                                             as it is
 */
#ifndef SM_LAUNCH_CANONICAL_H
#define SM_LAUNCH_CANONICAL_H

#include <glib.h>

#include "base/defs.h"

/**
 * sm_option_canonical() - "--name" or "--name=value"; g_free(). @metavar: NULL for a flag without value. Relative paths
 * begin at the current folder.
 */
char *sm_option_canonical(const char *name, const char *metavar, const char *value);

/** sm_option_of_one_start() - is that flag about one start (a descriptor, a dry run), so that it cannot be kept? */
bool sm_option_of_one_start(const char *name);

#endif
