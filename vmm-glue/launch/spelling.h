/* SPDX-License-Identifier: BSD-3-Clause */
/* What a misspelt word was meant to be: of flags, commands, and keys of a spec file. Pure. */
#ifndef SM_LAUNCH_SPELLING_H
#define SM_LAUNCH_SPELLING_H

#include <stddef.h>

/** sm_option_suggest() - the word of the list that text is most likely a misspelling of, or NULL. */
const char *sm_option_suggest(const char *text, const char *const *words, size_t n_words);

#endif
