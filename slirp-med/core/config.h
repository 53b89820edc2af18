/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core's configuration message (descriptor 4, one JSON object), written by the launcher and read once before the sandbox closes.
 * The launcher has validated every value for the user's sake; the core decodes it strictly again, for its own.
 *
 *   workspace      string             name, for every audit line
 *   mode           "guarded" | "strict" | "off"
 *   opaque         bool
 *   allow, passthrough, deny          arrays of entries (spec section 2), files already merged in
 *   inside         array of CIDR      --egress-inside
 *   dns            array of "ADDR:PORT"; empty: from resolv_conf
 *   resolv_conf    string             the host's resolv.conf as it was at start
 *   dns_qps        integer            0: no budget
 *   network        {guest, prefix_len, gateway, resolver}  addresses as text
 *   audit          {sync: bool, max_bytes: integer}
 *   pids           {supervisor: integer}                   for egress_start
 */
#ifndef SM_CORE_CONFIG_H
#define SM_CORE_CONFIG_H

#include <glib.h>

#include "base/addr.h"
#include "policy/decide.h"

struct sm_core_config {
    char *workspace;
    enum sm_mode mode;
    bool opaque;
    struct sm_policy *policy; /* owned */
    struct sm_ground *ground; /* owned: inside CIDRs and the virtual network; own addresses are added by the core */
    struct sm_endpoint *dns;
    size_t n_dns;
    char *resolv_conf;
    unsigned dns_qps;
    struct sm_addr guest, gateway, resolver;
    bool audit_sync;
    int64_t audit_max_bytes;
};

/** sm_core_config_load() - decode JSON text. Returns NULL with error naming the key. */
struct sm_core_config *sm_core_config_load(const char *text, size_t len, GError **error);
void sm_core_config_free(struct sm_core_config *config);

#endif
