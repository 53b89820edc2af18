/* SPDX-License-Identifier: BSD-3-Clause */
/* Configuration messages of the children; see messages.h. */
#include "launch/messages.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/** Put a value that jansson may have refused: a missing one is told apart from null at the end, in finish(). */
static void put(json_t *o, bool *ok, const char *key, json_t *value)
{
    if (!value || json_object_set_new(o, key, value) < 0)
        *ok = false;
}

static char *finish(json_t *o, bool ok, const char *what, GError **error)
{
    char *dumped = ok ? json_dumps(o, JSON_COMPACT) : NULL;
    char *text = g_strdup(dumped);

    free(dumped);
    json_decref(o);
    if (!text)
        sm_error_set(error, SM_ERROR_INVALID, "a path or a name for the %s is not UTF-8: rename it", what);
    return text;
}

static json_t *strings(GPtrArray *list)
{
    json_t *a = json_array();
    for (guint i = 0; list && i < list->len; i++) {
        if (json_array_append_new(a, json_string(g_ptr_array_index(list, i))) < 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

static json_t *entries(const struct sm_lists *lists, enum sm_list_kind kind)
{
    char text[SM_ENTRY_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < sm_lists_count(lists, kind); i++)
        (void)json_array_append_new(a, json_string(sm_entry_format(sm_lists_get(lists, kind, i), text)));
    return a;
}

char *sm_message_lists(const struct sm_lists *lists, GError **error)
{
    json_t *m = json_object();
    bool ok = true;

    put(m, &ok, "allow", entries(lists, SM_LIST_ALLOW));
    put(m, &ok, "passthrough", entries(lists, SM_LIST_PASSTHROUGH));
    put(m, &ok, "deny", entries(lists, SM_LIST_DENY));
    return finish(m, ok, "core", error);
}

static json_t *publishes(const struct sm_run_options *o)
{
    json_t *a = json_array();

    for (guint i = 0; i < o->publishes->len; i++)
        (void)json_array_append_new(a, sm_publish_json(&g_array_index(o->publishes, struct sm_publish, i)));
    return a;
}

static json_t *dns_servers(const struct sm_run_options *o)
{
    char text[SM_ENDPOINT_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < o->n_dns; i++)
        (void)json_array_append_new(a, json_string(sm_endpoint_format(&o->dns[i], text)));
    return a;
}

static json_t *address(const struct sm_addr *a)
{
    char text[SM_ADDR_STRLEN];
    return json_string(sm_addr_format(a, text));
}

static json_t *guest_dns(const struct sm_net_plan *plan)
{
    json_t *a = json_array();

    for (size_t i = 0; i < plan->n_dns; i++)
        (void)json_array_append_new(a, address(&plan->dns[i]));
    return a;
}

/** For front and guest-init: all lead through the gateway. */
static json_t *guest_routes(const struct sm_net_plan *plan)
{
    char text[SM_PREFIX_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < plan->n_routes; i++)
        (void)json_array_append_new(a, json_string(sm_prefix_format(&plan->routes[i], text)));
    return a;
}

/** For people, as in a spec file. */
static json_t *shown_routes(const struct sm_net_plan *plan)
{
    char text[SM_NET_ROUTE_STRLEN];
    json_t *a = json_array();

    for (size_t i = 0; i < plan->n_routes; i++)
        (void)json_array_append_new(a, json_string(sm_net_route_format(plan, i, text)));
    return a;
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *core_caps(const struct sm_run_options *o, const struct sm_counters *c)
{
    return json_pack("{s:o, s:o, s:o, s:{s:o, s:o, s:o}}", sm_cap_name(SM_CAP_MAX_BPS), number(o->caps.bps),
                     sm_cap_name(SM_CAP_MAX_TOTAL_BYTES), number(o->caps.total), sm_cap_name(SM_CAP_MAX_CONNS),
                     number(o->caps.conns), "counters", "seq", number(c->seq), "bytes_up", number(c->bytes[SM_CAPS_UP]),
                     "bytes_down", number(c->bytes[SM_CAPS_DOWN]));
}

/** null: no limit. */
static json_t *cap_facts(const struct sm_caps_limits *caps)
{
    return json_pack("{s:o, s:o, s:o}", sm_cap_name(SM_CAP_MAX_BPS), caps->bps ? number(caps->bps) : json_null(),
                     sm_cap_name(SM_CAP_MAX_TOTAL_BYTES), caps->total ? number(caps->total) : json_null(),
                     sm_cap_name(SM_CAP_MAX_CONNS), caps->conns ? number(caps->conns) : json_null());
}

char *sm_message_core(const struct sm_run_options *o, const struct sm_launch_ground *g, GError **error)
{
    json_t *m = json_object(), *network = json_object(), *audit = json_object();
    bool ok = true;

    put(network, &ok, "guest", address(&o->net.guest));
    put(network, &ok, "prefix_len", json_integer(o->net.subnet.len));
    put(network, &ok, "gateway", address(&o->net.gateway));
    put(network, &ok, "resolver", address(&o->net.resolver));
    put(audit, &ok, "sync", json_boolean(o->audit_sync));
    put(audit, &ok, "max_bytes", json_integer((json_int_t)o->audit_max_bytes));
    put(audit, &ok, "seq_floor", json_integer((json_int_t)g->seq_floor));

    put(m, &ok, "workspace", json_string(o->name));
    put(m, &ok, "mode", json_string(sm_mode_name(o->mode)));
    put(m, &ok, "opaque", json_boolean(o->opaque));
    put(m, &ok, "log_query", json_boolean(o->log_query));
    put(m, &ok, "extra_roots", json_string(o->extra_roots->str));
    put(m, &ok, "allow", entries(o->lists, SM_LIST_ALLOW));
    put(m, &ok, "passthrough", entries(o->lists, SM_LIST_PASSTHROUGH));
    put(m, &ok, "deny", entries(o->lists, SM_LIST_DENY));
    put(m, &ok, "swaps", sm_swaps_to_json(o->swaps));
    if (o->vault_addr)
        put(m, &ok, "vault", json_pack("{s:s, s:s}", "addr", o->vault_addr, "namespace", o->vault_namespace));
    put(m, &ok, "inside", strings(o->inside));
    put(m, &ok, "dns", dns_servers(o));
    put(m, &ok, "resolv_conf", json_string(g->resolv_conf));
    put(m, &ok, "dns_qps", json_integer(o->dns_qps));
    put(m, &ok, "network", network);
    put(m, &ok, "audit", audit);
    put(m, &ok, "caps", core_caps(o, &g->counters));
    if (o->datapath == SM_DATAPATH_TPROXY)
        put(m, &ok, "tproxy", json_true());
    if (g->ca_sha256)
        put(m, &ok, "ca_sha256", json_string(g->ca_sha256));
    if (g->pins)
        put(m, &ok, "pins", json_incref(g->pins));
    if (sm_vsock_given(&o->vsock))
        put(m, &ok, "vsock", sm_vsock_core_message(&o->vsock));
    if (o->command == SM_COMMAND_PROXY)
        put(m, &ok, "proxy", sm_proxy_core_message(&o->proxy));
    return finish(m, ok, "core", error);
}

char *sm_message_front(const struct sm_run_options *o, GError **error)
{
    if (o->command == SM_COMMAND_PROXY)
        return sm_proxy_front_message(o, error);
    json_t *m = json_object();
    bool ok = true;

    put(m, &ok, "workspace", json_string(o->name));
    put(m, &ok, "mac", json_string(o->net.guest_mac));
    put(m, &ok, "gateway_mac", json_string(o->net.our_mac));
    put(m, &ok, "guest", address(&o->net.guest));
    put(m, &ok, "prefix_len", json_integer(o->net.subnet.len));
    put(m, &ok, "gateway", address(&o->net.gateway));
    put(m, &ok, "resolver", address(&o->net.resolver));
    put(m, &ok, "dns", guest_dns(&o->net));
    put(m, &ok, "routes", guest_routes(&o->net));
    put(m, &ok, "mtu", json_integer(o->net.mtu));
    put(m, &ok, "dns_any", json_boolean(o->mode != SM_MODE_OFF));
    put(m, &ok, "port",
        json_string(o->datapath == SM_DATAPATH_TPROXY ? sm_datapath_name(o->datapath)
                    : o->command == SM_COMMAND_VM     ? sm_qemu_port_name(o->vm.port)
                    : o->command == SM_COMMAND_ATTACH ? sm_attach_kind_name(o->attach.kind)
                                                      : "tap-vnet"));
    if (o->vsock.device)
        put(m, &ok, "vsock",
            json_pack("{s:s, s:I}", "port", "vhost-user-vsock", "cid", (json_int_t)sm_vsock_cid(&o->vsock)));
    return finish(m, ok, "front", error);
}

char *sm_message_guest(const struct sm_run_options *o, const struct sm_workspace *ws, const struct sm_launch_ground *g,
                       GError **error)
{
    json_t *m = json_object(), *argv = json_array(), *masks = json_array();
    bool ok = true;

    char *const *command = o->command == SM_COMMAND_VM ? g->vmm_argv : o->argv;
    for (size_t i = 0; command[i]; i++)
        ok = json_array_append_new(argv, json_string(command[i])) == 0 && ok;
    if (g->default_base && strcmp(g->default_base, ws->base) != 0)
        ok = json_array_append_new(masks, json_string(g->default_base)) == 0 && ok;

    /* What a reference names is for the host alone. */
    g_auto(GStrv) variables = sm_swaps_hidden_variables(o->swaps);
    json_t *unset = json_array();
    for (size_t i = 0; g->hidden[i]; i++)
        ok = json_array_append_new(masks, json_string(g->hidden[i])) == 0 && ok;
    for (size_t i = 0; variables[i]; i++)
        ok = json_array_append_new(unset, json_string(variables[i])) == 0 && ok;

    put(m, &ok, "name", json_string(o->name));
    put(m, &ok, "argv", argv);
    put(m, &ok, "cwd", json_string(o->command == SM_COMMAND_VM ? "/" : g->cwd));
    /* A VMM has no network at all: its guest's frames leave by a socket that it was given, or by the tap of the kernel
     * path. */
    bool tap = o->net.mode == SM_NETWORK_USER && (o->command != SM_COMMAND_VM || o->datapath == SM_DATAPATH_TPROXY);
    put(m, &ok, "network", json_string(sm_network_mode_name(tap ? SM_NETWORK_USER : SM_NETWORK_ISOLATED)));
    if (o->command == SM_COMMAND_VM) {
        put(m, &ok, "bare", json_true());
        put(m, &ok, "more", json_integer(g->n_more));
        put(m, &ok, "files",
            json_pack("[s*, s*, s*, s*, s*]", o->vm.kernel, o->vm.initrd, g->vmm_socket, o->vsock.device,
                      o->vsock.serial));
    }
    if (tap) {
        put(m, &ok, "mac", json_string(o->net.guest_mac));
        put(m, &ok, "ip", address(&o->net.guest));
        put(m, &ok, "prefix_len", json_integer(o->net.subnet.len));
        put(m, &ok, "gateway", address(&o->net.gateway));
        put(m, &ok, "dns", guest_dns(&o->net));
        put(m, &ok, "routes", guest_routes(&o->net));
        put(m, &ok, "mtu", json_integer(o->net.mtu));
        put(m, &ok, "vnet_hdr", json_true()); /* the front's port says so too */
        if (o->datapath == SM_DATAPATH_TPROXY) {
            put(m, &ok, "datapath", json_string(sm_datapath_name(o->datapath)));
            put(m, &ok, "gateway_mac", json_string(o->net.our_mac));
            put(m, &ok, "resolver", address(&o->net.resolver));
        }
    }
    put(m, &ok, "ca", json_boolean(sm_run_options_intercepts(o)));
    put(m, &ok, "umask", json_integer(g->umask));
    put(m, &ok, "nofile", json_integer(g->nofile));
    put(m, &ok, "core", json_integer(g->core));
    put(m, &ok, "state_dir", json_string(ws->base));
    put(m, &ok, "masks", masks);
    put(m, &ok, "unset_env", unset);
    put(m, &ok, "ro", json_boolean(o->ro));
    if (o->rootfs)
        put(m, &ok, "rootfs", json_string(o->rootfs));
    json_t *binds = strings(o->binds);
    /* A VMM from elsewhere: what lies below /usr is in its view anyway. */
    if (o->command == SM_COMMAND_VM && binds && !g_str_has_prefix(g->vmm_program, "/usr/"))
        ok = json_array_append_new(binds, json_string(g->vmm_program)) == 0 && ok;
    put(m, &ok, "binds", binds);
    return finish(m, ok, "command", error);
}

/** `network` of a spec file, which may have said nothing. */
static json_t *declared(json_t *spec)
{
    json_t *network = json_object_get(spec, "network");
    return network ? network : spec;
}

json_t *sm_message_network(const struct sm_run_options *o)
{
    json_t *network = json_object();
    char subnet[SM_PREFIX_STRLEN];
    bool proxy = o->command == SM_COMMAND_PROXY;
    bool ok = true;

    put(network, &ok, "mode", json_string(proxy ? "proxy" : sm_network_mode_name(o->net.mode)));
    if (proxy) {
        put(network, &ok, "dns", dns_servers(o));
        put(network, &ok, "proxy", sm_proxy_facts(&o->proxy));
    } else if (o->net.mode == SM_NETWORK_USER) {
        put(network, &ok, "ip", address(&o->net.guest));
        put(network, &ok, "subnet", json_string(sm_prefix_format(&o->net.subnet, subnet)));
        put(network, &ok, "gateway", address(&o->net.gateway));
        put(network, &ok, "resolver", address(&o->net.resolver));
        put(network, &ok, "resolvers", guest_dns(&o->net));
        put(network, &ok, "routes", shown_routes(&o->net));
        put(network, &ok, "mac", json_string(o->net.guest_mac));
        put(network, &ok, "mtu", json_integer(o->net.mtu));
        put(network, &ok, "dns", dns_servers(o));
    }
    put(network, &ok, "publishes", publishes(o));
    if (o->spec)
        put(network, &ok, "declared", json_incref(declared(o->spec)));
    return network;
}

json_t *sm_message_facts(const struct sm_run_options *o)
{
    json_t *facts = json_object();
    bool ok = true;

    put(facts, &ok, "command", json_string(sm_command_name(o->command)));
    put(facts, &ok, "mode", json_string(sm_mode_name(o->mode)));
    put(facts, &ok, "opaque", json_boolean(o->opaque));
    put(facts, &ok, "datapath", json_string(o->command == SM_COMMAND_PROXY ? "proxy" : sm_datapath_name(o->datapath)));
    put(facts, &ok, "network", sm_message_network(o));
    if (o->command == SM_COMMAND_ATTACH)
        put(facts, &ok, "port", sm_attach_facts(&o->attach));
    if (sm_vsock_given(&o->vsock))
        put(facts, &ok, "vsock", sm_vsock_facts(&o->vsock));
    if (o->command == SM_COMMAND_VM)
        put(facts, &ok, "vm",
            json_pack("{s:s, s:s, s:s, s:s*, s:I, s:i}", "vmm", "qemu", "port",
                      o->datapath == SM_DATAPATH_TPROXY ? "tap" : sm_qemu_port_name(o->vm.port), "kernel", o->vm.kernel,
                      "initrd", o->vm.initrd, "memory_mib", (json_int_t)o->vm.memory_mib, "cpus", (int)o->vm.cpus));
    put(facts, &ok, "caps", cap_facts(&o->caps));
    return facts;
}

/**
 * What is judged by, of the flags that were given: for `check`, which parses them again. The policy files stand beside
 * them.
 */
static json_t *policy_flags(const struct sm_run_options *o)
{
    static const char *const kept[] = {"--egress",
                                       "--egress-opaque",
                                       "--egress-allow",
                                       "--egress-deny",
                                       "--egress-passthrough",
                                       "--egress-inside",
                                       "--egress-max-bps",
                                       "--egress-max-total-bytes",
                                       "--egress-max-conns",
                                       "--egress-swap-config",
                                       "--cred-swap",
                                       "--network",
                                       NULL};
    json_t *a = json_array();

    for (guint i = 0; i < o->given->len; i++) {
        const char *flag = g_ptr_array_index(o->given, i);
        g_autofree char *name = g_strndup(flag, strcspn(flag, "="));
        if (g_strv_contains(kept, name) && json_array_append_new(a, json_string(flag)) < 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

char *sm_message_settings(const struct sm_run_options *o, GError **error)
{
    json_t *m = sm_message_facts(o);
    bool ok = true;

    /* Not CMD: people put secrets into arguments, and this file stays. */
    put(m, &ok, "schema", json_integer(1));
    put(m, &ok, "name", json_string(o->name));
    put(m, &ok, "dns_qps", json_integer(o->dns_qps));
    put(m, &ok, "keep_ca", json_boolean(o->keep_ca));
    put(m, &ok, "audit_sync", json_boolean(o->audit_sync));
    put(m, &ok, "audit_max_bytes", json_integer((json_int_t)o->audit_max_bytes));
    put(m, &ok, "policy_files", strings(o->policy_files));
    put(m, &ok, "policy_flags", policy_flags(o));
    put(m, &ok, "spec", o->spec ? json_incref(o->spec) : json_null());
    put(m, &ok, "inside", strings(o->inside));
    put(m, &ok, "log_query", json_boolean(o->log_query));
    put(m, &ok, "ca_files", strings(o->ca_files));
    put(m, &ok, "ro", json_boolean(o->ro));
    put(m, &ok, "rootfs", o->rootfs ? json_string(o->rootfs) : json_null());
    put(m, &ok, "binds", strings(o->binds));
    return finish(m, ok, "settings", error);
}
