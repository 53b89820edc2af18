/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The providers that `--cred-swap` knows (spec section 6): host, header, format and the usual variable of each.
 */
#ifndef SM_CRED_PROVIDER_H
#define SM_CRED_PROVIDER_H

#include "base/defs.h"

struct sm_provider {
    const char *name;
    const char *host;
    const char *header;
    const char *format;
    const char *ref; /* when the operator gives none */
};

extern const struct sm_provider sm_providers[];
extern const size_t sm_n_providers;

/** sm_provider_find() - by its name, or NULL. */
const struct sm_provider *sm_provider_find(const char *name);

#endif
