/* SPDX-License-Identifier: BSD-3-Clause */
/* The one binary: picks the subcommand. Roles (core, nat, guest-init) are subcommands that the supervisor starts, not users. */
#include <stdio.h>

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    fprintf(stderr, "slirp-med: no command\n");
    return 2;
}
