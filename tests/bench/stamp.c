/* SPDX-License-Identifier: BSD-3-Clause */
/* In a virtual machine monitor's place: says when it was executed, in ns of CLOCK_MONOTONIC. See vm.py. */
#include <stdio.h>
#include <time.h>

int main(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    return 0;
}
