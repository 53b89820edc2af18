/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core's configuration message (descriptor 4, one JSON object), written by the launcher and read once before the sandbox closes.
 * The launcher has validated every value for the user's sake; the core decodes it strictly again, for its own.
 *
 *   workspace      string             name, for every audit line
 *   mode           "guarded" | "strict" | "off"
 *   opaque         bool
 *   log_query      bool               --egress-log-query: request lines keep the query
 *   extra_roots    string             PEM certificates of --egress-ca-file, one after the other; "" when there are none
 *   allow, passthrough, deny          arrays of entries (spec section 2), files already merged in
 *   swaps          {refs, entries}    credential swap: cred/swap.h, sm_swaps_to_json(); no secret is in it
 *   vault          {addr, namespace}  text of VAULT_ADDR and VAULT_NAMESPACE (may be ""); only where a reference is one of Vault's
 *   inside         array of CIDR      --egress-inside
 *   dns            array of "ADDR[:PORT]"; empty: from resolv_conf
 *   resolv_conf    string             the host's resolv.conf as it was at start
 *   dns_qps        integer            0: no budget
 *   network        {guest, prefix_len, gateway, resolver}  addresses as text
 *   tproxy         bool               optional: the front is the kernel path's (for the record)
 *   audit          {sync: bool, max_bytes: integer, seq_floor: integer}
 *   caps           {max_bps, max_total_bytes, max_conns: integer, 0: unlimited; counters: {seq, bytes_up, bytes_down: integer}}
 *                  counters: of counters.json as it was at start
 *
 *   vsock          {ca_port: integer, mediation: array of {port, target, required: bool, addrs: array of "ADDR:PORT"}}  the host's vsock
 *                  ports (core/vsock.h); target is the operator's text, addrs what its name meant at the start
 *   ca_sha256      string             the CA's files hold a CA that was kept, with this fingerprint; absent: they are empty, and one is made
 *   pins           array of {name, addr, expires_us}  pins of a snapshot (core/carry.h)
 *
 *   proxy          {listen: "ADDR:PORT", clients: array of CIDR, routes: array of "NAME:PORT=http://HOST:PORT"}  the front is a proxy: flows come by name and from
 *                  these clients, whose networks count as inside; there is no virtual network (network is not looked at)
 *
 * All keys but vault, vsock, proxy, ca_sha256 and pins are required, an unknown one is an error.
 */
#ifndef SM_CORE_CONFIG_H
#define SM_CORE_CONFIG_H

#include <glib.h>

#include "core/counters.h"
#include "core/resolver.h"
#include "cred/swap.h"
#include "policy/decide.h"

/** Largest configuration: 100k list entries of 300 bytes. */
#define SM_CORE_CONFIG_MAX (64u << 20)

/** Where the guest finds its CA certificate when nothing else is said: as slirp-med-guest looks for it. */
#define SM_VSOCK_CA_PORT 1027
/** Largest vsock port: the one above means any. */
#define SM_VSOCK_PORT_MAX 0xfffffffeu
/** Targets of a workspace, and addresses of one that are tried. */
#define SM_MEDIATION_TARGETS_MAX 64
#define SM_MEDIATION_ADDRS_MAX 4
/** Networks of a proxy's clients: those of the interfaces that one process listens on, and some. */
#define SM_PROXY_CLIENTS_MAX 64

/** A vsock port that leads to a TCP target of the operator's. */
struct sm_mediation_target {
    uint32_t port;
    char *text; /* HOST:PORT as it was given */
    bool required;
    struct sm_endpoint addrs[SM_MEDIATION_ADDRS_MAX];
    size_t n_addrs;
};

struct sm_core_config {
    char *workspace;
    enum sm_mode mode;
    bool opaque;
    bool log_query;
    char *extra_roots; /* never NULL */
    struct sm_lists *lists;
    struct sm_swaps *swaps;             /* never NULL */
    char *vault_addr, *vault_namespace; /* NULL: there is no reference to Vault */
    struct sm_ground
        *ground; /* extra ranges and the virtual network; the host's own addresses are added by ownaddr.c */
    struct sm_endpoint dns[SM_RESOLVER_SERVERS_MAX];
    size_t n_dns;
    bool dns_fixed; /* from --dns: news of resolv.conf do not change them */
    uint32_t dns_qps;
    struct sm_addr guest, gateway, resolver;
    struct sm_prefix network;
    bool audit_sync;
    uint64_t audit_max_bytes;
    uint64_t audit_seq_floor;
    struct sm_caps_limits caps;
    struct sm_counters counters;
    char *ca_sha256;     /* NULL: a new CA */
    struct json_t *pins; /* NULL: none; looked at, not loaded yet */
    uint32_t ca_port;
    struct sm_mediation_target mediation[SM_MEDIATION_TARGETS_MAX];
    size_t n_mediation;
    bool tproxy; /* the front is the kernel path's; for the record */
    bool proxy;
    struct sm_endpoint proxy_listen; /* which no flow may lead back to */
    struct sm_prefix clients[SM_PROXY_CLIENTS_MAX];
    size_t n_clients;
    struct sm_routes routes;
};

/** sm_core_config_load() - decode JSON text. Returns NULL with error naming the key. */
struct sm_core_config *sm_core_config_load(const char *text, size_t len, GError **error);
void sm_core_config_free(struct sm_core_config *config);

/** sm_core_config_lists() - the lists alone, as a reload gives them: {allow, passthrough, deny}, as above. NULL with error naming the key. */
struct sm_lists *sm_core_config_lists(const char *text, size_t len, GError **error);

#endif
