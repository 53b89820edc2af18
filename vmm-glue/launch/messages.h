/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration messages (descriptor 4) of the three children, the settings kept in workspace.json, and the facts
 * that `status` shows: all composed in one place from the options of a start. What each key means stands with its
 * reader: core/config.h, nat/config.h, paths/guest_init.h. Pure: what must be asked of the system comes in as struct
 * sm_launch_ground.
 */
#ifndef SM_LAUNCH_MESSAGES_H
#define SM_LAUNCH_MESSAGES_H

#include <jansson.h>

#include "launch/options.h"
#include "launch/state.h"

/** What the machine and the caller's process add to the options. */
struct sm_launch_ground {
    const char *resolv_conf;     /* text of the host's; "" when it cannot be read or --dns is given */
    uint64_t seq_floor;          /* from sm_audit_open() */
    struct sm_counters counters; /* from sm_workspace_open_counters() */
    const char *ca_sha256;       /* of the CA that was kept (keepca.h); NULL: a new one */
    json_t *pins;                /* of a snapshot, or NULL; borrowed */
    pid_t supervisor;
    const char *cwd;
    char *const *vmm_argv;    /* of a virtual machine: QEMU's whole command line, */
    const char *vmm_program;  /* its own, */
    const char *vmm_socket;   /* the socket that it connects to, or NULL, */
    int n_more;               /* and its descriptors from SM_GUEST_MORE_FD on */
    const char *default_base; /* where other workspaces may be when --state-dir is given; NULL: nowhere */
    char *const *hidden;      /* sm_hidden_paths() of the references */
    unsigned umask;
    int64_t nofile, core; /* soft limits of CMD, -1: unlimited */
};

/** All return text for g_free(), or NULL with error when a value cannot be put into JSON (a path that is not UTF-8). */
char *sm_message_core(const struct sm_run_options *o, const struct sm_launch_ground *g, GError **error);
char *sm_message_front(const struct sm_run_options *o, GError **error);
char *sm_message_guest(const struct sm_run_options *o, const struct sm_workspace *ws, const struct sm_launch_ground *g,
                       GError **error);
/** sm_message_settings() - workspace.json. */
char *sm_message_settings(const struct sm_run_options *o, GError **error);
/** sm_message_lists() - for POLICY: {allow, passthrough, deny}. */
char *sm_message_lists(const struct sm_lists *lists, GError **error);
/**
 * sm_message_network() - the network record without what changes while it runs: mode, ip, subnet, gateway, resolver
 * (ours), resolvers and routes (what the guest is told), mac, mtu, dns (--dns), and `declared`: the spec file's network
 * as it was written. A new reference.
 */
json_t *sm_message_network(const struct sm_run_options *o);
/** sm_message_facts() - mode, datapath and the network record; a new reference. */
json_t *sm_message_facts(const struct sm_run_options *o);

#endif
