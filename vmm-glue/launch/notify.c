/* SPDX-License-Identifier: BSD-3-Clause */
/* sd_notify(3)'s protocol; see notify.h. */
#include "launch/notify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"

int sm_notify_send(const char *name, const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!name || name[0] == '\0')
        return 0;
    size_t len = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || name[1] == '\0' || len >= sizeof(address.sun_path)) {
        errno = EINVAL; /* vsock:CID:PORT too: a manager of virtual machines asks its guests for that */
        return -1;
    }
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract namespace: the length counts, and no NUL ends it */
    sm_autofd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] == '/'));
    /* systemd reads promptly; one that does not is not waited for. */
    if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address, size) < 0)
        return -1;
    return 0;
}
