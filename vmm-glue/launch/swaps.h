/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --egress-swap-config and --cred-swap, when all flags are known: both are read into one set, and each domain of it
 * must be one that a credential can go to (spec section 6).
 *
 * - Only guarded and strict judge anything; without TLS that is intercepted (--egress-opaque, --network isolated) a
 *   credential would go nowhere. An error, not a warning: the guest would go out without its credential.
 * - An exact domain must be admitted by an allow entry, on port 443 or on the port that an allow entry of it names, and
 *   there neither passthrough nor denied. A suffix must lie under an allow suffix, and under no passthrough suffix that
 *   beats that one and under no denied one. --cred-swap lists its host.
 *
 * - A reference to Vault needs VAULT_ADDR (VAULT_TOKEN is asked for at run time, as any other variable). A dry run only says so.
 *
 * No error has any part of a value that is not a reference, nor of a provider that is none (it may be a key).
 */
#ifndef SM_LAUNCH_SWAPS_H
#define SM_LAUNCH_SWAPS_H

#include "launch/options.h"

/**
 * sm_option_swaps() - fill o->swaps, which is empty, and list the hosts of providers in o->lists and o->flag_lists.
 * @file: of --egress-swap-config, or NULL. @cred_swaps: const char *, the values of --cred-swap.
 * Errors: SM_ERROR_INVALID, SM_ERROR_LIMIT; they begin with the flag.
 */
bool sm_option_swaps(struct sm_run_options *o, const char *file, const GPtrArray *cred_swaps,
                     GError **error) SM_WARN_UNUSED;

/** sm_option_swaps_apply() - is each domain of the swaps one that these lists let a credential go to? */
bool sm_option_swaps_apply(const struct sm_swaps *swaps, const struct sm_lists *lists, GError **error) SM_WARN_UNUSED;

/** sm_option_read_file() - a regular file that a flag names, of at most max bytes; g_free(). The error has no name. */
char *sm_option_read_file(const char *path, size_t max, size_t *ret_len, GError **error);

#endif
