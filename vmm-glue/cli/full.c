/* SPDX-License-Identifier: BSD-3-Clause */
/* slirp-med-core has everything, and becomes nothing else; see launch/program.h. */
#include "launch/program.h"

void sm_program_begin(char **argv)
{
    (void)argv;
}

void sm_program_settle(void)
{
}
