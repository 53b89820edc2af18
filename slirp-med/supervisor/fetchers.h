/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fetch helpers: one process for each request that the core makes on its own (core/fetcher.h). The supervisor starts it with the one
 * descriptor that the core sent, gives it so much time, and reaps it; it reads nothing from it. A helper that cannot be started is an end of
 * that descriptor, which the core sees.
 */
#ifndef SM_SUPERVISOR_FETCHERS_H
#define SM_SUPERVISOR_FETCHERS_H

#include "base/loop.h"

/** Helpers at once: as many as the core asks for (SM_FETCH_MAX), and those that are just ending. */
#define SM_FETCHERS_MAX 8
/** Longer than a fetch takes at most (10 s): what is left then hangs. */
#define SM_FETCHERS_LIFE_US INT64_C(15000000)

struct sm_fetchers;

/** sm_fetchers_new() - exe and envp stay the caller's and must live as long. */
struct sm_fetchers *sm_fetchers_new(struct sm_loop *loop, const char *exe, char *const *envp);
/** sm_fetchers_start() - fd stays the caller's. Logs what goes wrong. */
void sm_fetchers_start(struct sm_fetchers *f, int fd);
/** sm_fetchers_end() - kill and reap what runs. */
void sm_fetchers_end(struct sm_fetchers *f);
void sm_fetchers_free(struct sm_fetchers *f);

#endif
