/* SPDX-License-Identifier: BSD-3-Clause */
/* `slirp-med egress NAME [--json] [--follow] [--state-dir DIR]`: print a workspace's audit, oldest first. */
#ifndef SM_CLI_EGRESS_H
#define SM_CLI_EGRESS_H

/**
 * sm_cli_egress() - the subcommand; argv[0] is "egress".
 * Returns the exit status: 0, 1 when reading failed, 2 for a usage error or a workspace that does not exist (message on
 * stderr).
 */
int sm_cli_egress(int argc, char **argv);

#endif
