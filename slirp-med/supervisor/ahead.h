/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A child that is started before it is known what it will have: while its starter reads settings and opens files, it
 * loads its libraries and prepares what depends on nothing. It is started with its link alone, sheds what a child of
 * ours sheds first, and waits; then its descriptors come through the link, one a TAKE with the number that it is to
 * have, and a TAKE with nothing says that these were all. From there on it is as any other child. Its stderr is its
 * starter's until then: it has met no byte of anybody.
 */
#ifndef SM_SUPERVISOR_AHEAD_H
#define SM_SUPERVISOR_AHEAD_H

#include <glib.h>
#include <sys/types.h>

struct sm_ahead {
    pid_t pid; /* 0: there is none */
    int pidfd, link;
};
#define SM_AHEAD_INIT                                                                                                  \
    {                                                                                                                  \
        .pidfd = -1, .link = -1                                                                                        \
    }

/** sm_ahead_start() - 0, or -1 with error set and nothing started. */
int sm_ahead_start(struct sm_ahead *ahead, const char *exe, char *const *argv, char *const *envp, GError **error);

/** sm_ahead_give() - fd, which stays the caller's, becomes the child's descriptor `number`. 0 or -1 with errno; EPIPE,
 * ECONNRESET: it has ended. */
int sm_ahead_give(const struct sm_ahead *ahead, int number, int fd);
/** sm_ahead_go() - it has all. As above. */
int sm_ahead_go(const struct sm_ahead *ahead);

/** sm_ahead_end() - kill and reap one that nobody has taken over; fit for sm_cleanup(). */
void sm_ahead_end(struct sm_ahead *ahead);

#endif
