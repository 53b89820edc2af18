/* SPDX-License-Identifier: BSD-3-Clause */
/* guest-init alone as a program, for test_guest_init.py, which plays the supervisor. */
#include "paths/guest_init.h"

int main(int argc, char **argv)
{
    return sm_guest_init_main(argc, argv);
}
