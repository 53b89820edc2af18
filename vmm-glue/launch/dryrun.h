/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `slirp-med run ... --dry-run`: what a start with these options would judge how, and which credential would go where.
 *
 * Nothing is made, started, resolved or asked over a network. Of a reference it is told whether the host has what it
 * names: a variable that is set and not empty, a file that is regular, not empty, readable, its owner's alone; a Vault
 * is not asked. No secret is read, and none is in the result: no value of a variable, no claim, no placeholder, no
 * query of a URL, no argument of CMD.
 *
 *   workspace   string, or null: generated       mode, network, datapath      string
 *   opaque, intercepts   bool                    mtu                          integer
 *   plan        the network record (messages.h)  publishes    [{host, hostPort, guestPort, protocol}]
 *   lists       {allow, passthrough, deny, inside}: how many                  dns    [string]
 *   swaps       [{name, type, domains: [string], header, format, placeholder: bool, scrub: bool, token_url (no query),
 *                 refs: [{key, ref, present: bool or null (not asked), problem: string or null}]}]
 *   hidden      {variables: [string], files: [string]}   what CMD does not see
 *   warnings    [string]
 */
#ifndef SM_LAUNCH_DRYRUN_H
#define SM_LAUNCH_DRYRUN_H

#include <jansson.h>

#include "launch/options.h"

/** sm_dry_run() - a new reference. Looks at the environment and at the files that references name. */
json_t *sm_dry_run(const struct sm_run_options *o);
/** sm_dry_run_text() - the same for people; g_free(). */
char *sm_dry_run_text(const json_t *dry_run);

#endif
