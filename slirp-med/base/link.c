/* SPDX-License-Identifier: BSD-3-Clause */
/* Supervisor link messages; see link.h. */
#include "base/link.h"

#include <errno.h>
#include <string.h>

static const char *const verb_names[] = {
    [SM_LINK_TAKE] = "TAKE",           [SM_LINK_READY] = "READY",     [SM_LINK_CA] = "CA",
    [SM_LINK_FAIL] = "FAIL",           [SM_LINK_TAP] = "TAP",         [SM_LINK_GO] = "GO",
    [SM_LINK_EXIT] = "EXIT",           [SM_LINK_SIGNAL] = "SIGNAL",   [SM_LINK_WANT] = "WANT",
    [SM_LINK_GIVE] = "GIVE",           [SM_LINK_FETCH] = "FETCH",     [SM_LINK_PORT] = "PORT",
    [SM_LINK_LISTENERS] = "LISTENERS", [SM_LINK_INGRESS] = "INGRESS", [SM_LINK_POLICY] = "POLICY",
    [SM_LINK_SNAPSHOT] = "SNAPSHOT",   [SM_LINK_VSOCK] = "VSOCK",     [SM_LINK_SERIAL] = "SERIAL",
    [SM_LINK_STATUS] = "STATUS",       [SM_LINK_STOP] = "STOP",
};
SM_NAME_TABLE_COVERS(verb_names, SM_LINK_VERBS);

const char *sm_link_verb_name(enum sm_link_verb verb)
{
    return (unsigned)verb < SM_LINK_VERBS ? verb_names[verb] : "invalid";
}

int sm_link_send(int sock, enum sm_link_verb verb, const char *text, int fd)
{
    g_autofree char *line =
        text && *text ? g_strdup_printf("%s %s", verb_names[verb], text) : g_strdup(verb_names[verb]);
    size_t len = strlen(line);

    if (len >= SM_LINK_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    return sm_fd_send(sock, line, len, &fd, fd >= 0 ? 1 : 0) < 0 ? -1 : 0;
}

int sm_link_recv(int sock, struct sm_link_msg *ret)
{
    char buf[SM_LINK_MAX];
    int fds[SM_FD_MSG_MAX];
    size_t n_fds;
    ssize_t n = sm_fd_recv(sock, buf, sizeof(buf) - 1, fds, &n_fds);

    if (n <= 0)
        return (int)n;
    buf[n] = '\0';
    bool whole = !memchr(buf, '\0', (size_t)n); /* text with a NUL inside is not ours */
    char *space = strchr(buf, ' ');
    if (space)
        *space = '\0';
    for (unsigned v = 0; v < SM_LINK_VERBS && n_fds <= 1 && whole; v++) {
        if (strcmp(buf, verb_names[v]) != 0)
            continue;
        ret->verb = (enum sm_link_verb)v;
        g_strlcpy(ret->text, space ? space + 1 : "", sizeof(ret->text));
        ret->fd = n_fds == 1 ? fds[0] : -1;
        return 1;
    }
    for (size_t i = 0; i < n_fds; i++)
        sm_fd_close(&fds[i]);
    errno = EPROTO;
    return -1;
}
