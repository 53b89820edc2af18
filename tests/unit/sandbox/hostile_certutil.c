/* SPDX-License-Identifier: BSD-3-Clause */
/* /usr/bin/certutil as a former CMD may have left it in a root: it puts links in the place of what guest-init has made. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    static const char *const names[] = {"nss-1", "folder-1", "folder-2", "store-1"};
    if (chdir("/run/slirp-med") < 0)
        return 1;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char away[32];
        (void)snprintf(away, sizeof(away), "away-%zu", i);
        (void)rename(names[i], away);
        (void)!symlink("/bound", names[i]);
    }
    return 0;
}
