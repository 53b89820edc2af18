/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the core and the front say on stderr. They get a pipe and never the operator's terminal: a front that was taken over could otherwise
 * read what is typed there, or send it control sequences.
 *
 * Lines are passed on to our own stderr with everything but printable ASCII escaped, cut at SM_WORDS_LINE_MAX, and at most SM_WORDS_RATE of them
 * a second; what is over that is counted and said. The pipe is non-blocking at both ends: a child that talks too much loses words, not time.
 */
#ifndef SM_SUPERVISOR_WORDS_H
#define SM_SUPERVISOR_WORDS_H

#include <glib.h>

#include "base/loop.h"

#define SM_WORDS_LINE_MAX 2048
/** Lines a second; a sanitizer's report has about sixty. */
#define SM_WORDS_RATE 200

struct sm_words;

/** sm_words_new() - *ret_fd is the child's end, the caller's to close after the spawn. NULL with error set. */
struct sm_words *sm_words_new(struct sm_loop *loop, int out_fd, int *ret_fd, GError **error);
/** sm_words_drain() - pass on what waits, whole lines or not: the child has ended. */
void sm_words_drain(struct sm_words *words);
void sm_words_free(struct sm_words *words);

#endif
