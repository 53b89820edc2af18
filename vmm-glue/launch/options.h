/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of `slirp-med run`, `vm`, `attach` and `proxy`: one table of flags from which parsing, errors and help come.
 *
 * "--flag value" and "--flag=value" are the same; "--" ends the flags, as does the first argument that is none; the rest is CMD, or
 * with vm (where "--" must be written) QEMU's own. `attach` and `proxy` have no command: the one argument that is no flag is the workspace's
 * name. A flag that
 * holds one value may be given once: two values for one question are a mistake, and in a policy a dangerous one. Everything is validated here,
 * before anything is made on disk or started. Errors begin with the flag and the value and say what to write instead.
 *
 * Errors: SM_ERROR_INVALID (exit status 2), and SM_ERROR_MISSING for what this machine or version cannot do (exit status 125).
 */
#ifndef SM_LAUNCH_OPTIONS_H
#define SM_LAUNCH_OPTIONS_H

#include <glib.h>

#include "base/addr.h"
#include "core/caps.h"
#include "cred/swap.h"
#include "launch/attach.h"
#include "launch/netplan.h"
#include "launch/proxy.h"
#include "launch/qemu.h"
#include "launch/spelling.h"
#include "launch/vsock.h"
#include "policy/decide.h"
#include "policy/list.h"
#include "supervisor/publish.h"

/** As many as the core's resolver takes (SM_RESOLVER_SERVERS_MAX). */
#define SM_OPTIONS_DNS_MAX 8
#define SM_OPTIONS_DNS_QPS_DEFAULT 100
#define SM_OPTIONS_DNS_QPS_MAX 1000000

/** The subcommands that start a workspace, each with a guest of another kind. */
enum sm_command {
    SM_COMMAND_RUN,    /* a process tree */
    SM_COMMAND_VM,     /* QEMU */
    SM_COMMAND_ATTACH, /* a VMM that somebody else starts */
    SM_COMMAND_PROXY,  /* clients of an HTTP proxy */
    SM_COMMANDS
};
const char *sm_command_name(enum sm_command command);
/** sm_command_parse() - false when text is none of them. */
bool sm_command_parse(const char *text, enum sm_command *ret) SM_WARN_UNUSED;

/** RAM of a virtual machine: the distribution's kernels need about 100 MiB. */
#define SM_OPTIONS_MEMORY_DEFAULT_MIB 512
#define SM_OPTIONS_MEMORY_MIN_MIB 64
#define SM_OPTIONS_MEMORY_MAX_MIB (UINT64_C(16) << 20)
/** QEMU's own bound for its q35 machine is 288. */
#define SM_OPTIONS_CPUS_MAX 255

/** What `vm` has beyond `run`. */
struct sm_vm_options {
    char *kernel, *initrd; /* absolute; initrd may be NULL */
    char *append;          /* or NULL */
    char *qemu;            /* as given, or NULL */
    uint64_t memory_mib;
    unsigned cpus;
    enum sm_qemu_port port;
    bool print_command;
};

enum sm_datapath { SM_DATAPATH_SLIRP, SM_DATAPATH_TPROXY, SM_DATAPATHS };
/** sm_datapath_name() - "slirp", "tproxy". */
const char *sm_datapath_name(enum sm_datapath datapath);

struct sm_run_options {
    enum sm_command command;
    enum sm_datapath datapath;
    struct sm_vm_options vm;
    struct sm_attach_options attach; /* of `proxy`: ready_fd alone */
    struct sm_proxy_options proxy;
    struct sm_vsock_options vsock;
    char *name; /* generated when --name was absent */
    bool name_generated;
    char *state_dir; /* NULL: the default */
    enum sm_mode mode;
    bool opaque;
    struct sm_lists *lists;             /* flags and files */
    struct sm_lists *flag_lists;        /* flags alone: what a reload begins with */
    GPtrArray *policy_files;            /* char *: --egress-policy, absolute */
    struct sm_swaps *swaps;             /* --egress-swap-config and --cred-swap; each could apply (swaps.h) */
    char *vault_addr, *vault_namespace; /* of the environment; NULL: no reference is one of Vault's */
    GString *vault_roots;               /* the certificates of VAULT_CACERT, PEM; may be empty */
    GPtrArray *inside;                  /* char *: canonical CIDRs */
    GPtrArray *ca_files;                /* char *: --egress-ca-file, absolute */
    GString *extra_roots;               /* the certificates in them, PEM */
    bool log_query;
    unsigned dns_qps; /* 0: no budget */
    struct sm_caps_limits caps;
    struct sm_endpoint dns[SM_OPTIONS_DNS_MAX];
    size_t n_dns;
    struct sm_net_plan net;
    bool audit_sync;
    bool keep_ca;
    uint64_t audit_max_bytes;
    GArray *publishes; /* of struct sm_publish */
    bool ro;
    char *rootfs;        /* absolute, or NULL */
    GPtrArray *binds;    /* char *: "SRC:DST", absolute */
    char **argv;         /* CMD, or QEMU's own arguments (or NULL); NULL-terminated; points into the caller's argv */
    bool help;           /* --help was given: nothing else was looked at */
    bool dry_run;        /* show what would be done (dryrun.h); argv may be NULL then */
    bool json;           /* with dry_run; of `attach` also what a VMM is started with */
    GPtrArray *warnings; /* char *: what was given and will do nothing */
    GPtrArray *given; /* char *: the flags as they can be given again (canonical.h), without --name and --state-dir */
    json_t *spec;     /* what --spec FILE held, an object; NULL: it was not given */
};

/** sm_run_options_parse() - argv[0] is the command. Returns 0 and *ret, or -1 with error set and *ret untouched. Reads policy and swap
 * files, and the variables that the latter's claims name. */
int sm_run_options_parse(int argc, char **argv, struct sm_run_options *ret, GError **error);
/** sm_run_options_parse_create() - the same for `create`: CMD may be missing, and what is about one start cannot be kept. */
int sm_run_options_parse_create(int argc, char **argv, struct sm_run_options *ret, GError **error);
/** sm_run_options_parse_stored() - of settings.json. @spec: what --spec once held, or NULL; it is not looked for in argv then. */
int sm_run_options_parse_stored(int argc, char **argv, const json_t *spec, struct sm_run_options *ret, GError **error);
void sm_run_options_clear(struct sm_run_options *o);

/** sm_run_options_intercepts() - is TLS terminated, so that the workspace has a CA? As the core concludes from mode and opaque. */
bool sm_run_options_intercepts(const struct sm_run_options *o);

/** sm_run_options_counts() - is there a byte cap, so that the workspace has counters.json? As the core concludes. */
bool sm_run_options_counts(const struct sm_run_options *o);

/** sm_run_options_help() - the table of flags of a command as text, for --help; g_free(). */
char *sm_run_options_help(enum sm_command command);

#endif
