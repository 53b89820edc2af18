/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * settings.json: what `create` was told, which each `start` does again. Written once, by `create`; nothing that happens
 * to a workspace while it runs changes it (what does stands in workspace.json: state.h).
 *
 *   {"version": 1, "command": "run" | "vm" | "attach" | "proxy", "args": ["--flag=value", ...], "cmd": [...] | null, "spec": {...} | null,
 *    "created": "RFC 3339"}
 *
 * `args` are the flags in the form of canonical.h, in the order in which they were given, without name and state
 * folder, which are where the file lies. They are parsed again by sm_run_options_parse() on each start, so that one
 * parser knows what is right, and its errors name the flag. Policy, swap and certificate files are read again then;
 * secrets are nowhere but behind references. `spec` is what the file of --spec held. `cmd` is the command, or QEMU's
 * own arguments.
 *
 * Reading is strict: an unknown or missing key, a wrong type, another version, a flag that could not have been kept,
 * and anything over a bound is an error that names file and key. The file is the operator's own (0600), but not
 * believed for that.
 */
#ifndef SM_LAUNCH_SETTINGS_H
#define SM_LAUNCH_SETTINGS_H

#include <jansson.h>

#include "launch/options.h"
#include "launch/state.h"

#define SM_SETTINGS_FILE SM_STATE_CREATED
#define SM_SETTINGS_VERSION 1
/** Flags: more lists than a person keeps in flags; the rest belongs into a policy file. */
#define SM_SETTINGS_ARGS_MAX 4096
/** Words of the command, as many as a shell script may have. */
#define SM_SETTINGS_CMD_MAX 4096
/** The whole file; the kernel takes 2 MiB of arguments by default, and JSON may double them. */
#define SM_SETTINGS_FILE_MAX (4u << 20)

struct sm_settings {
    enum sm_command command;
    char **args; /* "--flag=value" or "--flag" */
    char **cmd;  /* NULL: none */
    json_t *spec;
    char *created;
};

/** sm_settings_new() - of options that `create` parsed. @created: RFC 3339. */
void sm_settings_new(const struct sm_run_options *o, const char *created, struct sm_settings *ret);
/** sm_settings_clear() - fit for sm_cleanup(); a zeroed struct is empty. */
void sm_settings_clear(struct sm_settings *s);

/** sm_settings_write() - replace settings.json. 0, or -1 with error set and the old one in place. */
int sm_settings_write(const struct sm_workspace *ws, const struct sm_settings *s, GError **error);
/** sm_settings_exist() - was this workspace made by `create`? */
bool sm_settings_exist(const struct sm_workspace *ws);
/**
 * sm_settings_read() - 0 and *ret, or -1 with error set: SM_ERROR_MISSING when there is no such file, else
 * SM_ERROR_INVALID or SM_ERROR_SYSTEM.
 */
int sm_settings_read(const struct sm_workspace *ws, struct sm_settings *ret, GError **error);
/** sm_settings_parse() - the same of text; @file is for errors. */
bool sm_settings_parse(const char *file, const char *text, size_t len, struct sm_settings *ret,
                       GError **error) SM_WARN_UNUSED;
/** sm_settings_json() - as in the file; a new reference. NULL: a text that is not UTF-8. */
json_t *sm_settings_json(const struct sm_settings *s);

/**
 * sm_settings_options() - the options of a start.
 * @cmd: in place of the stored command; NULL: the stored one.
 * @ret_argv: what the options point into, for g_strfreev() after sm_run_options_clear().
 * Returns 0, or -1 with error set: as of sm_run_options_parse(), with the file in front of the flag.
 */
int sm_settings_options(const struct sm_settings *s, const struct sm_workspace *ws, char *const *cmd,
                        struct sm_run_options *ret, char ***ret_argv, GError **error);

#endif
