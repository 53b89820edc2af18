/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The subcommands that need no header of their own. Each gets argv[0] = its name and returns the exit status: 0, 1 when
 * what was asked for could not be had, SM_CLI_USAGE for wrong flags (a message on stderr that names the flag, the value
 * and the fix); `run`: see launch/run.h.
 */
#ifndef SM_CLI_CLI_H
#define SM_CLI_CLI_H

#include <glib.h>

#include "base/defs.h"
#include "launch/state.h"
#include "supervisor/client.h"

#define SM_CLI_USAGE 2

/**
 * `slirp-med run [FLAGS] [--] CMD...`, `slirp-med vm [FLAGS] --kernel FILE ... [-- QEMU ARGUMENT...]` and `slirp-med
 * attach [NAME] [FLAGS]`
 */
int sm_cli_run(int argc, char **argv);
/** `slirp-med create NAME [--vm | --attach] [FLAGS] [-- CMD...]` */
int sm_cli_create(int argc, char **argv);
/** `slirp-med start NAME [--detach [--log FILE]] [-- CMD...]`; and what --detach starts: a hidden subcommand */
int sm_cli_start(int argc, char **argv);
int sm_cli_detached(int argc, char **argv);
/** `slirp-med delete NAME [--force] [--keep-audit]` */
int sm_cli_delete(int argc, char **argv);
/** `slirp-med list`, `slirp-med network NAME` */
int sm_cli_list(int argc, char **argv);
int sm_cli_network(int argc, char **argv);
/** `slirp-med status NAME [--flows]` */
int sm_cli_status(int argc, char **argv);
/** `slirp-med stop NAME [--timeout SECONDS]` */
int sm_cli_stop(int argc, char **argv);

/** `slirp-med publish NAME SPEC`, `slirp-med unpublish NAME SPEC`, both with [--json] [--state-dir DIR] */
int sm_cli_publish(int argc, char **argv);
int sm_cli_unpublish(int argc, char **argv);
/** `slirp-med reload NAME [--egress-policy FILE] [--json] [--state-dir DIR]` */
int sm_cli_reload(int argc, char **argv);

/** `slirp-med snapshot NAME FILE` and `slirp-med restore FILE`; their flags stand in snapshot.c */
int sm_cli_snapshot(int argc, char **argv);
int sm_cli_restore(int argc, char **argv);
/**
 * `slirp-med check [NAME | FLAGS] HOST[:PORT] [METHOD PATH] [--as WHAT] [--address ADDRESS] [--json] [--color WHEN]
 * [--state-dir DIR]`
 */
int sm_cli_check(int argc, char **argv);
/** `slirp-med suggest NAME [--json] [--output FILE] [--color WHEN] [--state-dir DIR]` */
int sm_cli_suggest(int argc, char **argv);

/** `slirp-med tap PATH [--] CMD...` and `slirp-med tap PATH --fd N` */
int sm_cli_tap(int argc, char **argv);

/** What a subcommand about one workspace was given. */
struct sm_cli_named {
    const char *name;
    const char *more;      /* the argument behind it */
    const char *state_dir; /* NULL: the default */
    bool json, help;
};
/** One more flag of such a subcommand. */
struct sm_cli_flag {
    const char *name; /* with its dashes */
    bool *on;         /* takes no value; or */
    const char **value;
    const char *metavar;
};
/** What there may be. */
#define SM_CLI_MAY_JSON 1u
#define SM_CLI_NO_NAME 2u
#define SM_CLI_MORE 4u
/**
 * sm_cli_parse() - NAME (unless SM_CLI_NO_NAME), one more argument (with SM_CLI_MORE; NULL when it is not there, which
 * is for the caller to say), --state-dir, --help and these flags, in any order. False with error set.
 */
bool sm_cli_parse(int argc, char **argv, unsigned may, const struct sm_cli_flag *flags, size_t n_flags,
                  struct sm_cli_named *ret, GError **error);
/** sm_cli_named_parse() - NAME, --json (if may_json), --state-dir, --help, in any order. False with error set. */
bool sm_cli_named_parse(int argc, char **argv, bool may_json, struct sm_cli_named *ret, GError **error);

/**
 * sm_cli_ask() - ask a workspace that runs. The answer (a new reference), or NULL with error set: there is none of that
 * name (SM_ERROR_INVALID), it does not run (SM_ERROR_MISSING), cannot be reached, or refuses.
 */
json_t *sm_cli_ask(const struct sm_cli_named *given, int timeout_ms, enum sm_control_verb verb, const char *argument,
                   GError **error);
/**
 * sm_cli_stop_it() - end a workspace and wait until its name is free. 0; 1 when it has not ended in time; -1 with error
 * set: it could not be asked.
 * @pid: its supervisor, for what is said.
 */
int sm_cli_stop_it(const struct sm_workspace *ws, pid_t pid, int timeout_ms, GError **error);
/** sm_cli_stop_ms() - everything that a stop may take, and then some. */
int sm_cli_stop_ms(void);
/** sm_cli_print_network() - a network record, for people. */
void sm_cli_print_network(const json_t *record);
/** sm_cli_print_json() - on stdout; takes the reference. Returns the exit status. */
int sm_cli_print_json(json_t *value);

/**
 * sm_cli_fail() - print the error and return the exit status that fits its code: SM_CLI_USAGE for SM_ERROR_INVALID,
 * otherwise `otherwise`.
 */
int sm_cli_fail(const GError *error, int otherwise);

#endif
