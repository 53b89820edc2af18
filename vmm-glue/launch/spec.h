/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spec file (--spec FILE, .yaml, .yml or .json): the declared network of a workspace. slirp-med-spec(5) is its manual.
 *
 *   network:
 *     mode: user                        # or isolated
 *     ip: 192.168.64.2/24
 *     subnet: 192.168.64.0/24
 *     gateway: 192.168.64.1
 *     dns: [1.1.1.1, 8.8.8.8]           # what the guest is told; the core answers whatever it asks
 *     routes: ["0.0.0.0/0 via 192.168.64.1"]
 *     forwards:
 *       - {host: 127.0.0.1, hostPort: 8080, guestPort: 80, protocol: tcp}
 *
 * Strict: an unknown key, a wrong type, an empty value, a second document, anything given twice, and every contradiction is an error that begins
 * with "FILE:LINE: " and the key's path, as in "ws.yaml:7: network.gateway: 10.1.0.1 is not in network.subnet 192.168.64.0/24". Egress settings
 * are flags and nothing else.
 *
 * A forward is a --publish in other words: both make one list. What is left out follows from the rest (netplan.h).
 *
 * Opening and reading the file is the caller's. Pure.
 */
#ifndef SM_LAUNCH_SPEC_H
#define SM_LAUNCH_SPEC_H

#include <glib.h>
#include <jansson.h>

#include "launch/netplan.h"

/** Largest spec file: 256 forwards of 200 bytes, and room for comments. */
#define SM_SPEC_FILE_MAX ((size_t)64 * 1024)
/** Values in it: 256 forwards of four, and what is beside them. */
#define SM_SPEC_NODES_MAX 2048

/**
 * sm_spec_apply() - what the file says, in addition to what flags said.
 * @mode_given: --network was given, and plan->mode is what it said.
 * @plan: the reference network (but for mode, MTU and MAC addresses); complete afterwards.
 * @publishes: struct sm_publish of the flags; those of the file are appended.
 * @ret: the document as JSON, to be kept and given again as "....json"; a new reference.
 * Returns false with error (SM_ERROR_INVALID, SM_ERROR_LIMIT), and nothing changed.
 */
bool sm_spec_apply(const char *file, const char *text, size_t len, bool mode_given, struct sm_net_plan *plan,
                   GArray *publishes, json_t **ret, GError **error) SM_WARN_UNUSED;

#endif
