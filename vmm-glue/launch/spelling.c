/* SPDX-License-Identifier: BSD-3-Clause */
/* What a misspelt word was meant to be; see suggest.h. */
#include "launch/spelling.h"

#include <string.h>

#include "base/defs.h"

/** Optimal string alignment distance: an insertion, deletion, exchange or swap of neighbours costs one. */
static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 40 };
    unsigned d[MAX + 1][MAX + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > MAX || m > MAX)
        return MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned best = SM_MIN(d[i - 1][j], d[i][j - 1]) + 1;
            best = SM_MIN(best, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = SM_MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *sm_option_suggest(const char *text, const char *const *words, size_t n_words)
{
    const char *found = NULL;
    unsigned best = (unsigned)SM_MIN(strlen(text) / 3 + 1, 3u) + 1;

    for (size_t i = 0; i < n_words; i++) {
        unsigned d = distance(text, words[i]);
        if (d < best) {
            best = d;
            found = words[i];
        }
    }
    return found;
}
