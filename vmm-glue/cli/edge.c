/* SPDX-License-Identifier: BSD-3-Clause */
/* slirp-med-edge: the roles that face the guest (launch/program.h). Started by the supervisor, not by users. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/defs.h"
#include "nat/front.h"
#include "paths/guest_init.h"
#include "paths/keeper.h"
#include "paths/proxy_front.h"
#include "ports/ports.h"

static int nat_main(int argc, char **argv)
{
    return sm_nat_main(sm_port_kinds, sm_port_kinds_count);
}

static const struct role {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *process; /* its name in ps(1), at most 15 bytes */
} roles[] = {
    {"nat", nat_main, "slirp-med-front"},
    {"proxy-front", sm_proxy_front_main, "slirp-med-front"},
    {"guest-init", sm_guest_init_main, "slirp-med-guest"},
    {"keeper", sm_keeper_main, "slirp-med-keep"},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < SM_ARRAY_LEN(roles); i++) {
        if (strcmp(argv[1], roles[i].name) == 0) {
            (void)prctl(PR_SET_NAME, roles[i].process, 0, 0, 0);
            return roles[i].main(argc - 1, argv + 1);
        }
    }
    fputs("slirp-med-edge " SM_VERSION " is a part of slirp-med, which starts it: see slirp-med(1)\n", stderr);
    return 2;
}
