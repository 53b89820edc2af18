/* SPDX-License-Identifier: BSD-3-Clause */
/* The flags of `run`, `vm`, `attach` and `proxy`; see options.h. */
#include "launch/options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/writer.h"
#include "base/error.h"
#include "launch/cafile.h"
#include "launch/canonical.h"
#include "launch/netwarn.h"
#include "launch/spec.h"
#include "launch/state.h"
#include "launch/swaps.h"
#include "launch/vm.h"
#include "policy/file.h"
#include "ports/tap.h"

static const char *const command_names[] = {
    [SM_COMMAND_RUN] = "run", [SM_COMMAND_VM] = "vm", [SM_COMMAND_ATTACH] = "attach", [SM_COMMAND_PROXY] = "proxy"};
SM_NAME_TABLE_COVERS(command_names, SM_COMMANDS);

static const char *const datapath_names[] = {[SM_DATAPATH_SLIRP] = "slirp", [SM_DATAPATH_TPROXY] = "tproxy"};
SM_NAME_TABLE_COVERS(datapath_names, SM_DATAPATHS);

const char *sm_datapath_name(enum sm_datapath datapath)
{
    return (unsigned)datapath < SM_DATAPATHS ? datapath_names[datapath] : "invalid";
}

const char *sm_command_name(enum sm_command command)
{
    return (unsigned)command < SM_COMMANDS ? command_names[command] : "invalid";
}

bool sm_command_parse(const char *text, enum sm_command *ret)
{
    for (unsigned i = 0; i < SM_COMMANDS; i++) {
        if (strcmp(text, command_names[i]) == 0) {
            *ret = (enum sm_command)i;
            return true;
        }
    }
    return false;
}

/** What is being filled, beside the result. */
struct parse {
    struct sm_run_options o;
    const char *swap_file; /* or NULL */
    const char *spec_file; /* or NULL */
    bool network_given;
    GPtrArray *cred_swaps; /* const char *: values of --cred-swap */
    char *name_text;
    bool creating; /* for `create`: nothing is started */
};

struct flag;
typedef bool (*take_fn)(struct parse *p, const struct flag *flag, const char *value, GError **error);

struct flag {
    const char *name;    /* without the dashes */
    const char *metavar; /* NULL: takes no value */
    bool repeatable;
    take_fn take; /* NULL: of a later version */
    const char *help;
};

/** All other flags are of every command. */
static bool belongs(const struct flag *flag, enum sm_command command)
{
    static const char *const of_run[] = {"ro", "rootfs", NULL};
    static const char *const of_vm[] = {"kernel", "initrd", "append",        "memory", "cpus",
                                        "port",   "qemu",   "print-command", NULL};
    static const char *const of_attach[] = {
        "stream",     "vhost-user",       "dgram",     "fd",     "fd-kind", "client", "mac", "ready-fd", "owner-fd",
        "print-args", "vhost-user-vsock", "guest-cid", "serial", "tap",     "device", NULL};
    static const char *const of_run_and_vm[] = {"bind", "network", NULL};

    static const char *const of_proxy[] = {"listen", "client-net", "proxy-auth", "route", NULL};
    static const char *const of_guests[] = {"publish",       "mtu",   "mediation", "mediation-optional",
                                            "vsock-ca-port", "vsock", "bind",      "network",
                                            "datapath",      "spec",  NULL};

    if (g_strv_contains(of_proxy, flag->name))
        return command == SM_COMMAND_PROXY;
    if (command == SM_COMMAND_PROXY && g_strv_contains(of_guests, flag->name))
        return false;
    if (strcmp(flag->name, "ready-fd") == 0)
        return command == SM_COMMAND_ATTACH || command == SM_COMMAND_PROXY;
    if (g_strv_contains(of_run, flag->name))
        return command == SM_COMMAND_RUN;
    if (g_strv_contains(of_vm, flag->name))
        return command == SM_COMMAND_VM;
    if (g_strv_contains(of_attach, flag->name))
        return command == SM_COMMAND_ATTACH;
    return command != SM_COMMAND_ATTACH || !g_strv_contains(of_run_and_vm, flag->name);
}

/** "--flag=value: " in front of what a parser said. */
static bool prefix(const struct flag *flag, const char *value, GError **error)
{
    g_autofree char *shown = g_utf8_make_valid(value, -1);
    g_prefix_error(error, "--%s=%.200s: ", flag->name, shown);
    return false;
}

static bool bad(const struct flag *flag, const char *value, GError **error, const char *fix)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s", fix);
    return prefix(flag, value, error);
}

/** Decimal digits only: no sign, no white space, no hex. */
static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    if (!g_ascii_isdigit(text[0]))
        return false;
    errno = 0;
    guint64 v = g_ascii_strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

/** A number, or one with K, M or G: powers of 1024. */
static bool size(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    static const char units[] = "KMG";
    g_autofree char *digits = g_strdup(text);
    size_t len = strlen(digits);
    unsigned shift = 0;
    uint64_t n;

    if (len > 0 && strchr(units, digits[len - 1])) {
        shift = 10 * (unsigned)(strchr(units, digits[len - 1]) - units + 1);
        digits[len - 1] = '\0';
    }
    if (!number(digits, 0, max >> shift, &n) || (n << shift) < min)
        return false;
    *ret = n << shift;
    return true;
}

static bool take_egress(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_mode_parse(v, &p->o.mode, error) || prefix(f, v, error);
}

static bool add_entry(struct parse *p, enum sm_list_kind kind, const char *text, GError **error)
{
    return sm_lists_add_text(p->o.lists, kind, text, error) && sm_lists_add_text(p->o.flag_lists, kind, text, error);
}

static bool take_allow(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return add_entry(p, SM_LIST_ALLOW, v, error) || prefix(f, v, error);
}

static bool take_passthrough(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return add_entry(p, SM_LIST_PASSTHROUGH, v, error) || prefix(f, v, error);
}

static bool take_deny(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return add_entry(p, SM_LIST_DENY, v, error) || prefix(f, v, error);
}

static bool take_policy(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    size_t len;
    g_autofree char *data = sm_option_read_file(v, SM_POLICY_FILE_MAX, &len, error);
    if (!data)
        return prefix(f, v, error);
    if (!sm_policy_file_parse(v, data, len, p->o.lists, error)) {
        g_prefix_error(error, "--%s: ", f->name); /* the parser names file and line */
        return false;
    }
    g_ptr_array_add(p->o.policy_files, g_canonicalize_filename(v, NULL));
    return true;
}

/* Both are looked at when all flags are known: names must differ, and a host must be listed, between them. */
static bool take_swap_config(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->swap_file = v;
    return true;
}

static bool take_cred_swap(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    g_ptr_array_add(p->cred_swaps, (gpointer)(uintptr_t)v);
    return true;
}

static bool take_dry_run(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.dry_run = true;
    return true;
}

static bool take_json(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.json = true;
    return true;
}

static bool take_inside(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    struct sm_prefix prefix_value;
    char text[SM_PREFIX_STRLEN];

    if (!sm_prefix_parse(v, &prefix_value))
        return bad(f, v, error,
                   "not a range: write ADDRESS/BITS with zeros behind the prefix, for instance 203.0.113.0/24");
    g_ptr_array_add(p->o.inside, g_strdup(sm_prefix_format(&prefix_value, text)));
    return true;
}

static bool take_opaque(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.opaque = true;
    return true;
}

static bool take_keep_ca(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.keep_ca = true;
    return true;
}

static bool take_ca_file(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (sm_ca_file_read(v, p->o.extra_roots, error) < 0)
        return prefix(f, v, error);
    g_ptr_array_add(p->o.ca_files, g_canonicalize_filename(v, NULL));
    return true;
}

static bool take_log_query(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.log_query = true;
    return true;
}

static bool take_qps(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    uint64_t n;
    if (!number(v, 0, SM_OPTIONS_DNS_QPS_MAX, &n))
        return bad(f, v, error, "not a number of queries a second: write 0 (no limit) to 1000000");
    p->o.dns_qps = (unsigned)n;
    return true;
}

static bool take_dns(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    static const struct sm_addr any4 = {.family = SM_FAMILY_V4}, any6 = {.family = SM_FAMILY_V6};
    struct sm_endpoint e;

    if (!sm_endpoint_parse(v, 53, &e) || e.port == 0 || sm_addr_equal(&e.addr, &any4) || sm_addr_equal(&e.addr, &any6))
        return bad(f, v, error, "not a DNS server: write ADDRESS or ADDRESS:PORT ([v6]:PORT), for instance 192.0.2.53");
    if (p->o.n_dns == SM_OPTIONS_DNS_MAX)
        return bad(f, v, error, "too many DNS servers: at most 8");
    p->o.dns[p->o.n_dns++] = e;
    return true;
}

static bool take_mtu(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    uint64_t n;
    if (!number(v, SM_TAP_MTU_MIN, SM_TAP_MTU_MAX, &n))
        return bad(f, v, error, "not an MTU: write 576 to 65520");
    p->o.net.mtu = (unsigned)n;
    return true;
}

static bool take_network(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->network_given = true;
    if (sm_network_mode_parse(v, &p->o.net.mode))
        return true;
    return bad(f, v, error, "no such network: write user or isolated");
}

static bool take_publish(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    struct sm_publish publish;
    char text[SM_PUBLISH_STRLEN];

    if (!sm_publish_parse(v, &publish, error))
        return prefix(f, v, error);
    if (p->o.publishes->len == SM_PUBLISH_MAX)
        return bad(f, v, error, "too many: at most 256 ports can be published");
    for (guint i = 0; i < p->o.publishes->len; i++) {
        const struct sm_publish *other = &g_array_index(p->o.publishes, struct sm_publish, i);
        if (sm_publish_clashes(other, &publish)) {
            sm_error_set(error, SM_ERROR_INVALID, "its address is that of %s: give it once",
                         sm_publish_format(other, text));
            return prefix(f, v, error);
        }
    }
    g_array_append_val(p->o.publishes, publish);
    return true;
}

/* Looked at when all flags are known, which it may contradict. */
static bool take_spec(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->spec_file = v;
    return true;
}

static bool take_datapath(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    for (unsigned i = 0; i < SM_DATAPATHS; i++) {
        if (strcmp(v, datapath_names[i]) != 0)
            continue;
        p->o.datapath = (enum sm_datapath)i;
        return true;
    }
    return bad(f, v, error, "no such datapath: write slirp or tproxy");
}

static bool take_name(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (!sm_state_name_check(v, error))
        return prefix(f, v, error);
    g_free(p->o.name);
    p->o.name = g_strdup(v);
    p->o.name_generated = false;
    return true;
}

static bool take_state_dir(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (v[0] == '\0')
        return bad(f, v, error, "empty: give a folder");
    p->o.state_dir = g_canonicalize_filename(v, NULL);
    if (strcmp(p->o.state_dir, "/") == 0)
        return bad(f, v, error, "the root folder cannot be hidden from the command: give a folder of its own");
    return true;
}

static bool take_audit_sync(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.audit_sync = true;
    return true;
}

static bool take_audit_max(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return size(v, SM_AUDIT_MAX_BYTES_MIN, UINT64_C(1) << 50, &p->o.audit_max_bytes) ||
           bad(f, v, error,
               "not a size: write a number of bytes, or with K, M or G (powers of 1024), from 1M to 1048576G");
}

static bool take_max_bps(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return size(v, 1, SM_CAPS_BPS_MAX, &p->o.caps.bps) ||
           bad(f, v, error,
               "not a rate: write bytes a second, or with K, M or G (powers of 1024), from 1 to 1024G; without the "
               "flag there is no limit");
}

static bool take_max_total(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return size(v, 1, SM_CAPS_TOTAL_MAX, &p->o.caps.total) ||
           bad(f, v, error,
               "not a size: write a number of bytes, or with K, M or G (powers of 1024), from 1 to 4294967296G; "
               "without "
               "the flag there is no limit");
}

static bool take_max_conns(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return size(v, 1, SM_CAPS_CONNS_MAX, &p->o.caps.conns) ||
           bad(f, v, error,
               "not a number of connections: write 1 to 1048576 (or with K or M); without the flag there is no limit");
}

static bool take_ro(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.ro = true;
    return true;
}

static bool take_rootfs(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    struct stat st;
    if (v[0] == '\0' || stat(v, &st) < 0 || !S_ISDIR(st.st_mode))
        return bad(f, v, error, "no such folder: give the folder that is to be the root");
    p->o.rootfs = g_canonicalize_filename(v, NULL);
    return true;
}

static bool take_bind(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    const char *colon = strchr(v, ':');
    g_autofree char *given = colon ? g_strndup(v, (gsize)(colon - v)) : g_strdup(v);
    struct stat st;

    if (given[0] == '\0' || (colon && (colon[1] != '/' || strchr(colon + 1, ':'))))
        return bad(f, v, error, "write SRC or SRC:DST, DST beginning with '/'");
    if (stat(given, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s: %s", given, strerror(errno));
        return prefix(f, v, error);
    }
    g_autofree char *src = g_canonicalize_filename(given, NULL);
    g_autofree char *dst = g_canonicalize_filename(colon ? colon + 1 : src, NULL);
    g_ptr_array_add(p->o.binds, g_strconcat(src, ":", dst, NULL));
    return true;
}

/** A file that QEMU is to read: it is opened again by guest-init, as the same user. */
static bool take_file(const struct flag *f, const char *v, char **ret, GError **error)
{
    struct stat st;
    sm_autofd fd = open(v, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "%s", strerror(errno));
        return prefix(f, v, error);
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return bad(f, v, error, "not a file with something in it: give the path of the image");
    *ret = g_canonicalize_filename(v, NULL);
    return true;
}

static bool take_kernel(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return take_file(f, v, &p->o.vm.kernel, error);
}

static bool take_initrd(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return take_file(f, v, &p->o.vm.initrd, error);
}

static bool take_append(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (!g_utf8_validate(v, -1, NULL))
        return bad(f, v, error, "not UTF-8");
    p->o.vm.append = g_strdup(v);
    return true;
}

static bool take_memory(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    const uint64_t mib = 1 << 20;
    bool plain = v[0] != '\0' && strspn(v, "0123456789") == strlen(v);

    if (plain ? number(v, SM_OPTIONS_MEMORY_MIN_MIB, SM_OPTIONS_MEMORY_MAX_MIB, &p->o.vm.memory_mib)
              : size(v, SM_OPTIONS_MEMORY_MIN_MIB * mib, SM_OPTIONS_MEMORY_MAX_MIB * mib, &p->o.vm.memory_mib)) {
        if (!plain)
            p->o.vm.memory_mib /= mib;
        return true;
    }
    return bad(f, v, error, "not a memory size: write MiB, or a number with M or G, from 64M to 16384G");
}

static bool take_cpus(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    uint64_t n;
    if (!number(v, 1, SM_OPTIONS_CPUS_MAX, &n))
        return bad(f, v, error, "not a number of processors: write 1 to 255");
    p->o.vm.cpus = (unsigned)n;
    return true;
}

static bool take_port(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    g_autoptr(GString) names = g_string_new("no such port: write ");

    if (sm_qemu_port_parse(v, &p->o.vm.port))
        return true;
    for (unsigned i = 0; i < SM_QEMU_PORTS; i++)
        g_string_append_printf(names, "%s%s", i ? " or " : "", sm_qemu_port_name((enum sm_qemu_port)i));
    return bad(f, v, error, names->str);
}

static bool take_qemu(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (v[0] == '\0' || !g_utf8_validate(v, -1, NULL))
        return bad(f, v, error, "not a program: write its name or path");
    p->o.vm.qemu = g_strdup(v);
    return true;
}

static bool take_print_command(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.vm.print_command = true;
    return true;
}

static bool take_stream(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_stream(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_vhost_user(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_vhost_user(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_dgram(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_dgram(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_fd(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_fd(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_tap(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_tap(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_device(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_device(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_fd_kind(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_kind(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_ready_fd(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_ready_fd(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_listen(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_proxy_take_listen(&p->o.proxy, v, error) || prefix(f, v, error);
}

static bool take_client_net(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_proxy_take_client(&p->o.proxy, v, error) || prefix(f, v, error);
}

/* The value is not shown: somebody may have written a password in place of a reference. */
static bool take_proxy_auth(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (sm_proxy_take_auth(&p->o.proxy, v, error))
        return true;
    g_prefix_error(error, "--%s: ", f->name);
    return false;
}

static bool take_route(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    if (sm_proxy_take_route(&p->o.proxy, v, error))
        return true;
    g_prefix_error(error, "--%s: ", f->name); /* its text names the value */
    return false;
}

static bool take_client(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.attach.client = true;
    return true;
}

static bool take_owner_fd(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_attach_take_owner_fd(&p->o.attach, v, error) || prefix(f, v, error);
}

static bool take_print_args(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    p->o.attach.print_args = true;
    return true;
}

static bool take_mac(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    static const uint8_t none[6];
    uint8_t mac[6], gateway[6];

    if (!sm_tap_parse_mac(v, mac) || memcmp(mac, none, sizeof(mac)) == 0)
        return bad(f, v, error, "not the MAC address of a card: write six bytes, as in " SM_NET_GUEST_MAC);
    if (sm_tap_parse_mac(SM_NET_GATEWAY_MAC, gateway) && memcmp(mac, gateway, sizeof(mac)) == 0)
        return bad(f, v, error, "that is the gateway's: write another one");
    for (size_t i = 0; i < SM_NET_MAC_STRLEN; i++)
        p->o.net.guest_mac[i] = g_ascii_tolower(v[i]);
    return true;
}

static bool take_mediation(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_target(&p->o.vsock, v, true, error) || prefix(f, v, error);
}

static bool take_mediation_optional(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_target(&p->o.vsock, v, false, error) || prefix(f, v, error);
}

static bool take_vsock(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_path(v, &p->o.vsock.hybrid, error) || prefix(f, v, error);
}

static bool take_vsock_ca_port(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_ca_port(&p->o.vsock, v, error) || prefix(f, v, error);
}

static bool take_vhost_user_vsock(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_path(v, &p->o.vsock.device, error) || prefix(f, v, error);
}

static bool take_guest_cid(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_cid(&p->o.vsock, v, error) || prefix(f, v, error);
}

static bool take_serial(struct parse *p, const struct flag *f, const char *v, GError **error)
{
    return sm_vsock_take_path(v, &p->o.vsock.serial, error) || prefix(f, v, error);
}

static const struct flag flags[] = {
    {"stream", "PATH", false, take_stream,
     "the VMM comes to the unix socket PATH, or to tcp:127.0.0.1:PORT, and speaks as QEMU's -netdev stream does"},
    {"vhost-user", "PATH", false, take_vhost_user,
     "it comes to the unix socket PATH and speaks vhost-user (QEMU, cloud-hypervisor)"},
    {"dgram", "PATH[,PEER]", false, take_dgram,
     "frames are datagrams between the unix sockets PATH (ours) and PEER (the VMM's; default PATH.vmm), as of QEMU's "
     "-netdev dgram"},
    {"fd", "N", false, take_fd, "frames come over descriptor N: one end of a connection, or a tap"},
    {"fd-kind", "KIND", false, take_fd_kind,
     "what N is: stream, dgram, tap or vhost-user (default: looked at; a stream socket is a stream)"},
    {"tap", "PATH", false, take_tap,
     "with --datapath tproxy: whoever comes to the unix socket PATH is sent the descriptor of a tap (QEMU comes by its "
     "helper=, "
     "others by 'slirp-med tap')"},
    {"device", "NAME", false, take_device,
     "with --datapath tproxy: frames come by the network device NAME, one end of a veth pair or a tap that a VMM has, "
     "which is taken "
     "away from here; needs root, or a network namespace of your own"},
    {"client", NULL, false, take_client, "the VMM listens, and we connect, as often as it takes"},
    {"mac", "MAC", false, take_mac, "the MAC address of the guest's card (default " SM_NET_GUEST_MAC ")"},
    {"ready-fd", "N", false, take_ready_fd, "write a line to descriptor N, and close it, when all is ready"},
    {"owner-fd", "N", false, take_owner_fd,
     "N is a socket: a line of JSON is written to it when all is ready, and when its other end closes, the workspace "
     "ends"},
    {"print-args", NULL, false, take_print_args,
     "start nothing and make nothing: print what the VMM is to be started with"},
    {"listen", "ADDR:PORT", false, take_listen,
     "clients come to this address of this machine (PORT 0: any free one, which is printed)"},
    {"client-net", "CIDR", true, take_client_net,
     "who may use the proxy (default: the network of the interface that has the address); repeatable"},
    {"proxy-auth", "REF", false, take_proxy_auth,
     "clients need the USER:PASSWORD that env:NAME or file:PATH holds (Proxy-Authorization: Basic)"},
    {"route", "NAME[:PORT]=URL", true, take_route,
     "requests for the host NAME go to http://HOST[:PORT], which may be inside; repeatable"},
    {"kernel", "FILE", false, take_kernel, "the guest's kernel (bzImage, or an ELF file with a PVH entry)"},
    {"initrd", "FILE", false, take_initrd, "its initial RAM disk"},
    {"append", "TEXT", false, take_append,
     "more for the kernel's command line, which begins with '" SM_QEMU_APPEND "'"},
    {"memory", "N[M|G]", false, take_memory, "its RAM, in MiB unless M or G is written (default 512M)"},
    {"cpus", "N", false, take_cpus, "its processors (default 1)"},
    {"port", "PORT", false, take_port,
     "how frames leave QEMU: stream (default), over a socket; or vhost-user, out of the "
     "guest's memory: faster, but a QEMU that was taken over can then attack the front more closely"},
    {"qemu", "PATH", false, take_qemu, "the QEMU to run (default: " SM_QEMU_PROGRAM " in PATH)"},
    {"print-command", NULL, false, take_print_command,
     "start nothing and make nothing: print QEMU's command line, in which descriptors stand for sockets and files"},
    {"egress", "MODE", false, take_egress,
     "guarded (default): the public internet, nothing inside; strict: only what is listed; off: no mediation "
     "(also: open, disabled)"},
    {"egress-allow", "ENTRY", true, take_allow,
     "list a host, .suffix, address or CIDR, each with :PORT if you like; repeatable"},
    {"egress-passthrough", "ENTRY", true, take_passthrough, "the same, and never intercept TLS to it; repeatable"},
    {"egress-deny", "ENTRY", true, take_deny, "refuse it, whatever else allows it; repeatable"},
    {"egress-policy", "FILE", true, take_policy,
     "entries from a .yaml, .yml or .json file with the keys allow and passthrough; repeatable"},
    {"egress-swap-config", "FILE", false, take_swap_config,
     "put credentials that CMD never holds into its requests: the swaps in a .yaml, .yml or .json file; each host must "
     "be listed"},
    {"cred-swap", "PROVIDER[=REF]", true, take_cred_swap,
     "the same for anthropic, openai, gemini, groq, openrouter or deepseek, whose host is listed by it; REF says where "
     "the key is: env:NAME (default: PROVIDER_API_KEY), file:PATH or vault:PATH#FIELD; repeatable"},
    {"egress-inside", "CIDR", true, take_inside, "one more range that counts as inside; repeatable"},
    {"egress-opaque", NULL, false, take_opaque, "do not intercept TLS, and give CMD no CA; names are still policed"},
    {"keep-ca", NULL, false, take_keep_ca,
     "the CA that intercepts TLS stays the same in all runs of this name (default: a new one each time)"},
    {"egress-ca-file", "FILE", true, take_ca_file,
     "intercepted servers may also be certified by the CAs in FILE (PEM), beside those that this machine trusts; "
     "repeatable"},
    {"egress-log-query", NULL, false, take_log_query,
     "keep the query of each request's path in the audit (it may hold secrets)"},
    {"egress-dns-qps", "N", false, take_qps, "DNS queries a second (default 100; 0: no limit)"},
    {"egress-max-bps", "N", false, take_max_bps,
     "N bytes a second, each direction on its own; N here and below may end in K, M or G (default: no limit)"},
    {"egress-max-total-bytes", "N", false, take_max_total,
     "N bytes in all, both directions together, over all runs of this name (default: no limit)"},
    {"egress-max-conns", "N", false, take_max_conns,
     "N TCP connections and UDP flows at the same time (default: no limit)"},
    {"dns", "ADDR[:PORT]", true, take_dns, "ask this DNS server instead of those in /etc/resolv.conf; repeatable"},
    {"network", "MODE", false, take_network, "user (default), or isolated: no network device at all"},
    {"publish", "SPEC", true, take_publish,
     "HOST:PORT:GUESTPORT/tcp: connections to that address of this machine go to GUESTPORT of the guest (HOST left "
     "out: "
     "127.0.0.1; PORT 0: any free one, which is printed); repeatable"},
    {"spec", "FILE", false, take_spec,
     "the network that a .yaml, .yml or .json file declares: addresses, routes, forwards (see slirp-med-spec(5))"},
    {"datapath", "KIND", false, take_datapath,
     "slirp (default), or tproxy: the kernel's own, for a command, or for a machine whose card is a tap"},
    {"mtu", "N", false, take_mtu, "MTU of the guest's device, 576 to 65520 (default 1500)"},
    {"name", "NAME", false, take_name, "name of the workspace (default: generated, and printed)"},
    {"state-dir", "DIR", false, take_state_dir,
     "keep workspaces in DIR instead of $XDG_STATE_HOME/slirp-med (~/.local/state/slirp-med)"},
    {"audit-sync", NULL, false, take_audit_sync, "have every decision on disk (fsync) before it takes effect"},
    {"audit-max-bytes", "N[K|M|G]", false, take_audit_max, "space for the audit, both its files together (default 1G)"},
    {"ro", NULL, false, take_ro, "CMD sees the file system read-only, but for /tmp and /run, which are its own"},
    {"rootfs", "DIR", false, take_rootfs, "DIR is CMD's root folder"},
    {"bind", "SRC[:DST]", true, take_bind,
     "SRC stays visible (at DST) and as writable as it is, also with --ro and --rootfs; a virtual machine's QEMU "
     "sees nothing else of yours; repeatable"},
    {"dry-run", NULL, false, take_dry_run,
     "start nothing and make nothing: print what would be judged how, and what would be swapped where"},
    {"json", NULL, false, take_json, "print what is printed (a dry run; a VMM's arguments) as JSON"},
    {"mediation", "PORT=HOST:PORT", true, take_mediation,
     "the guest's vsock port PORT leads to the TCP target HOST:PORT, outside of egress policy; the start fails when it "
     "does not "
     "answer; repeatable"},
    {"mediation-optional", "PORT=HOST:PORT", true, take_mediation_optional, "the same, but it may be down; repeatable"},
    {"vsock", "PATH", false, take_vsock,
     "unix sockets PATH_PORT stand for the host's vsock ports, as Firecracker's and cloud-hypervisor's guests meet "
     "them"},
    {"vsock-ca-port", "PORT", false, take_vsock_ca_port,
     "the vsock port that gives the CA's certificate (default 1027)"},
    {"vhost-user-vsock", "PATH", false, take_vhost_user_vsock,
     "a vsock device for a VMM that comes to the unix socket PATH (QEMU's vhost-user-vsock-pci)"},
    {"guest-cid", "CID", false, take_guest_cid, "the guest's CID on that device (default 3)"},
    {"serial", "PATH", false, take_serial,
     "the host's side of the guest's virtio-serial port is the unix socket PATH: the CA's certificate without any "
     "vsock"},
    {"keep-ca", NULL, false, NULL, NULL},
};

/** What an unknown flag may have been meant for. */
static const char *command_hint(enum sm_command command)
{
    static const char *const texts[] = {[SM_COMMAND_RUN] = "; flags of CMD go behind it",
                                        [SM_COMMAND_VM] = "; flags of QEMU go behind --",
                                        [SM_COMMAND_ATTACH] = "",
                                        [SM_COMMAND_PROXY] = ""};
    SM_NAME_TABLE_COVERS(texts, SM_COMMANDS);
    return texts[command];
}

static const struct flag *find_flag(const char *name, enum sm_command which, GError **error)
{
    const char *command = command_names[which];
    const char *words[SM_ARRAY_LEN(flags)];
    size_t n = 0;

    for (size_t i = 0; i < SM_ARRAY_LEN(flags); i++) {
        bool same = strcmp(flags[i].name, name) == 0;
        if (!belongs(&flags[i], which)) {
            if (same && (which == SM_COMMAND_ATTACH || which == SM_COMMAND_PROXY)) {
                sm_error_set(error, SM_ERROR_INVALID, "--%s: not for %s, which starts no guest: leave it out", name,
                             command);
                return NULL;
            }
            continue;
        }
        if (same)
            return &flags[i];
        if (flags[i].take)
            words[n++] = flags[i].name;
    }
    g_autofree char *shown = g_utf8_make_valid(name, -1);
    const char *like = sm_option_suggest(name, words, n);
    if (like)
        sm_error_set(error, SM_ERROR_INVALID,
                     "--%.100s: unknown flag; did you mean --%s? ('slirp-med %s --help' lists all)", shown, like,
                     command);
    else
        sm_error_set(error, SM_ERROR_INVALID, "--%.100s: unknown flag ('slirp-med %s --help' lists all%s)", shown,
                     command, command_hint(which));
    return NULL;
}

static void parse_clear(struct parse *p)
{
    sm_run_options_clear(&p->o);
    g_free(p->name_text);
    g_ptr_array_unref(p->cred_swaps);
}

/** The name is wanted by an error message of another flag, wherever it stands. */
static char *name_for_messages(int argc, char **argv)
{
    for (int i = 1; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++) {
        if (g_str_has_prefix(argv[i], "--name="))
            return g_strdup(argv[i] + strlen("--name="));
        if (strcmp(argv[i], "--name") == 0 && i + 1 < argc)
            return g_strdup(argv[i + 1]);
        for (size_t f = 0; f < SM_ARRAY_LEN(flags); f++) {
            if (flags[f].metavar && strcmp(argv[i] + SM_MIN(strlen(argv[i]), 2u), flags[f].name) == 0) {
                i++;
                break;
            }
        }
    }
    return NULL;
}

/** What was given and will do nothing. Returns true. */
static bool warn_whole(struct sm_run_options *o)
{
    size_t listed = sm_lists_count(o->lists, SM_LIST_ALLOW) + sm_lists_count(o->lists, SM_LIST_PASSTHROUGH);
    size_t denied = sm_lists_count(o->lists, SM_LIST_DENY);
    if (o->mode == SM_MODE_OFF && (listed || denied || o->inside->len || o->opaque))
        g_ptr_array_add(o->warnings, g_strdup("--egress off: nothing is judged, so the lists do nothing"));
    if (o->mode == SM_MODE_STRICT && !listed && o->net.mode == SM_NETWORK_USER)
        g_ptr_array_add(
            o->warnings,
            g_strdup("--egress strict with nothing listed: nothing can be reached (list hosts with --egress-allow)"));
    if (o->keep_ca && !sm_run_options_intercepts(o))
        g_ptr_array_add(o->warnings, g_strdup("--keep-ca: TLS is not intercepted, so there is no CA"));
    if (o->ca_files->len && !sm_run_options_intercepts(o))
        g_ptr_array_add(o->warnings, g_strdup("--egress-ca-file: TLS is not intercepted, so it does nothing"));
    if ((o->caps.bps || o->caps.total || o->caps.conns) && o->net.mode == SM_NETWORK_ISOLATED)
        g_ptr_array_add(o->warnings, g_strdup("--egress-max-*: there is no network, so they do nothing"));
    if (o->log_query && (o->mode == SM_MODE_OFF || o->net.mode == SM_NETWORK_ISOLATED))
        g_ptr_array_add(o->warnings, g_strdup("--egress-log-query: no request is recorded, so it does nothing"));
    return true;
}

static bool check_utf8(const struct sm_run_options *o, GError **error)
{
    for (size_t i = 0; o->argv[i]; i++) {
        if (!g_utf8_validate(o->argv[i], -1, NULL)) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "argument %zu of the command is not UTF-8: put it into a script, and run that", i);
            return false;
        }
    }
    return true;
}

/** The spec file of this command line, or what one held when the workspace was created. */
static bool apply_spec(struct parse *p, GError **error)
{
    struct sm_run_options *o = &p->o;
    char *dumped = NULL;
    size_t len = 0;

    if (!p->spec_file && !o->spec)
        return true;
    g_autofree char *text = NULL;
    if (p->spec_file) {
        text = sm_option_read_file(p->spec_file, SM_SPEC_FILE_MAX, &len, error);
        if (!text) {
            g_prefix_error(error, "--spec=%.200s: ", p->spec_file);
            return false;
        }
    } else {
        dumped = json_dumps(o->spec, JSON_INDENT(2));
        text = g_strdup(dumped ? dumped : "");
        len = strlen(text);
        free(dumped);
    }
    g_clear_pointer(&o->spec, json_decref);
    if (!sm_spec_apply(p->spec_file ? p->spec_file : "spec.json", text, len, p->network_given, &o->net, o->publishes,
                       &o->spec, error)) {
        g_prefix_error(error, "--spec: "); /* the parser names file, line and key */
        return false;
    }
    if (o->command == SM_COMMAND_ATTACH && o->net.mode == SM_NETWORK_ISOLATED) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--spec=%.200s: network.mode isolated: attach is there to serve a network card: leave it out",
                     p->spec_file ? p->spec_file : "");
        return false;
    }
    if (o->net.mode == SM_NETWORK_USER)
        sm_net_warn(&o->net, o->warnings);
    return true;
}

/** What can only be said when all flags are known. */
static bool check_whole(struct parse *p, GError **error)
{
    struct sm_run_options *o = &p->o;

    if (!apply_spec(p, error))
        return false;

    if (o->mode == SM_MODE_OFF && o->policy_files->len) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--egress-policy=%s: nothing is judged with --egress off: leave the file out, or use --egress "
                     "guarded or strict",
                     (const char *)g_ptr_array_index(o->policy_files, 0));
        return false;
    }
    if (o->datapath == SM_DATAPATH_TPROXY && o->command == SM_COMMAND_VM && sm_qemu_port_connects(o->vm.port)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--port=%s: with --datapath tproxy frames leave QEMU by a tap: leave one of them out",
                     sm_qemu_port_name(o->vm.port));
        return false;
    }
    if (o->net.mode == SM_NETWORK_ISOLATED && o->publishes->len) {
        char text[SM_PUBLISH_STRLEN];
        sm_error_set(error, SM_ERROR_INVALID,
                     "--publish=%s: there is no network with --network isolated: leave one of them out",
                     sm_publish_format(&g_array_index(o->publishes, struct sm_publish, 0), text));
        return false;
    }
    if (o->mode == SM_MODE_OFF && (o->caps.bps || o->caps.total || o->caps.conns)) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "--egress-max-%s: nothing is recorded with --egress off, and what a cap does has to be: leave it "
                     "out, or use --egress guarded or strict",
                     o->caps.bps     ? "bps"
                     : o->caps.total ? "total-bytes"
                                     : "conns");
        return false;
    }
    if (!sm_option_swaps(o, p->swap_file, p->cred_swaps, error))
        return false;
    if (!sm_vsock_check(&o->vsock, o->net.mode == SM_NETWORK_ISOLATED, o->command == SM_COMMAND_VM, o->warnings, error))
        return false;
    if (o->command == SM_COMMAND_VM)
        sm_vm_devices(o);
    if (o->command == SM_COMMAND_ATTACH) {
        if (o->argv) {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: attach starts no command: leave it out", o->argv[0]);
            return false;
        }
        if (!sm_attach_check(&o->attach, o->datapath == SM_DATAPATH_TPROXY, error))
            return false;
        if (o->attach.way == SM_ATTACH_STREAM && !o->attach.path && !o->attach.client)
            g_ptr_array_add(o->warnings,
                            g_strdup("--stream tcp: every user of this machine can connect to a TCP port"));
        return warn_whole(o);
    }
    if (o->command == SM_COMMAND_PROXY) {
        if (o->argv) {
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: proxy starts no command: leave it out", o->argv[0]);
            return false;
        }
        return sm_proxy_check(&o->proxy, error) && warn_whole(o);
    }
    if (o->json && !o->dry_run) {
        sm_error_set(error, SM_ERROR_INVALID, "--json: shows a dry run: add --dry-run, or leave it out");
        return false;
    }
    if (o->command == SM_COMMAND_VM && !o->vm.kernel) {
        sm_error_set(error, SM_ERROR_INVALID, "no kernel: name one with --kernel FILE");
        return false;
    }
    if (!o->argv && (o->dry_run || p->creating || o->command == SM_COMMAND_VM))
        return warn_whole(o);
    if (o->command == SM_COMMAND_VM)
        return check_utf8(o, error) && warn_whole(o);
    if (!o->argv || !o->argv[0]) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "no command: write it behind the flags, as in 'slirp-med run --egress strict -- curl "
                     "https://example.com/'");
        return false;
    }
    if (o->argv[0][0] == '\0') {
        sm_error_set(error, SM_ERROR_INVALID, "the command is an empty text: write its name or path");
        return false;
    }
    return check_utf8(o, error) && warn_whole(o);
}

bool sm_run_options_intercepts(const struct sm_run_options *o)
{
    return o->net.mode == SM_NETWORK_USER && o->mode != SM_MODE_OFF && !o->opaque;
}

bool sm_run_options_counts(const struct sm_run_options *o)
{
    return o->net.mode == SM_NETWORK_USER && (o->caps.bps || o->caps.total);
}

/** As it can be given again. */
static bool keep(struct parse *p, const struct flag *flag, const char *value, GError **error)
{
    if (strcmp(flag->name, "name") == 0 || strcmp(flag->name, "state-dir") == 0 ||
        strcmp(flag->name, "spec") == 0) /* what it held is kept, not where that was */
        return true;
    if (!sm_option_of_one_start(flag->name)) {
        g_ptr_array_add(p->o.given, sm_option_canonical(flag->name, flag->metavar, value));
        return true;
    }
    if (!p->creating)
        return true;
    sm_error_set(error, SM_ERROR_INVALID, "--%s: is about one start, and 'create' starts nothing: leave it out",
                 flag->name);
    return false;
}

/** The one argument that is no flag is the workspace's name. */
static bool takes_name(enum sm_command command)
{
    return command == SM_COMMAND_ATTACH || command == SM_COMMAND_PROXY;
}

static int parse_all(int argc, char **argv, bool creating, const json_t *spec, struct sm_run_options *ret,
                     GError **error)
{
    sm_cleanup(parse_clear) struct parse p = {.o = {.name_generated = true,
                                                    .mode = SM_MODE_GUARDED,
                                                    .dns_qps = SM_OPTIONS_DNS_QPS_DEFAULT,
                                                    .audit_max_bytes = SM_AUDIT_MAX_BYTES_DEFAULT}};
    bool seen[SM_ARRAY_LEN(flags)] = {false};
    int i;

    bool known = argc > 0 && sm_command_parse(argv[0], &p.o.command);
    g_assert(known);
    p.o.attach.fd = p.o.attach.ready_fd = p.o.attach.owner_fd = -1;
    enum sm_command command = p.o.command;
    p.o.vm.memory_mib = SM_OPTIONS_MEMORY_DEFAULT_MIB;
    sm_net_plan_reference(&p.o.net);
    p.o.vm.cpus = 1;
    p.o.name = sm_state_name_new();
    p.o.lists = sm_lists_new();
    p.o.flag_lists = sm_lists_new();
    p.o.policy_files = g_ptr_array_new_with_free_func(g_free);
    p.o.publishes = g_array_new(FALSE, FALSE, sizeof(struct sm_publish));
    p.o.swaps = sm_swaps_new();
    p.cred_swaps = g_ptr_array_new();
    p.o.inside = g_ptr_array_new_with_free_func(g_free);
    p.o.ca_files = g_ptr_array_new_with_free_func(g_free);
    p.o.extra_roots = g_string_new(NULL);
    p.o.binds = g_ptr_array_new_with_free_func(g_free);
    p.o.warnings = g_ptr_array_new_with_free_func(g_free);
    p.o.given = g_ptr_array_new_with_free_func(g_free);
    p.o.spec = spec ? json_incref((json_t *)(uintptr_t)spec) : NULL;
    p.creating = creating;
    p.name_text = name_for_messages(argc, argv);
    if (!p.name_text)
        p.name_text = g_strdup(p.o.name);

    for (i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--") == 0) {
            i++;
            break;
        }
        if (arg[0] != '-' || arg[1] == '\0') {
            if (takes_name(command)) { /* NAME */
                if (!p.o.name_generated) {
                    sm_error_set(error, SM_ERROR_INVALID, "%.80s: one NAME is enough, and '%s' was it", arg, p.o.name);
                    return -1;
                }
                const struct flag *name_flag = find_flag("name", command, error);
                if (!name_flag || !name_flag->take(&p, name_flag, arg, error))
                    return -1;
                continue;
            }
            if (p.o.command != SM_COMMAND_VM)
                break;
            sm_error_set(error, SM_ERROR_INVALID, "%.200s: not a flag: QEMU's own arguments go behind --", arg);
            return -1;
        }
        if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
            p.o.help = true;
            *ret = p.o;
            memset(&p.o, 0, sizeof(p.o));
            return 0;
        }
        if (arg[1] != '-') {
            sm_error_set(error, SM_ERROR_INVALID, "%s: unknown flag ('slirp-med %s --help' lists all%s)", arg,
                         command_names[command], command_hint(command));
            return -1;
        }
        const char *equals = strchr(arg, '=');
        g_autofree char *name = equals ? g_strndup(arg + 2, (gsize)(equals - arg - 2)) : g_strdup(arg + 2);
        const struct flag *flag = find_flag(name, command, error);
        if (!flag)
            return -1;
        if (!flag->take) {
            sm_error_set(error, SM_ERROR_INVALID, "--%s: not available in this version (%s): leave it out", flag->name,
                         SM_VERSION);
            return -1;
        }
        const char *value = equals ? equals + 1 : NULL;
        if (!flag->metavar && value) {
            sm_error_set(error, SM_ERROR_INVALID, "--%s=%.200s: takes no value: write --%s", flag->name, value,
                         flag->name);
            return -1;
        }
        if (flag->metavar && !value) {
            if (i + 1 >= argc) {
                sm_error_set(error, SM_ERROR_INVALID, "--%s: lacks its value: write --%s %s", flag->name, flag->name,
                             flag->metavar);
                return -1;
            }
            value = argv[++i];
        }
        if (takes_name(command) && flag->take == take_name && !p.o.name_generated)
            seen[flag - flags] = true; /* as an argument */
        if (seen[flag - flags] && !flag->repeatable) {
            sm_error_set(error, SM_ERROR_INVALID, "--%s%s%.200s: given twice: give it once", flag->name,
                         value ? "=" : "", value ? value : "");
            return -1;
        }
        seen[flag - flags] = true;
        if (!keep(&p, flag, value, error) || !flag->take(&p, flag, value, error))
            return -1;
    }
    if (i < argc)
        p.o.argv = argv + i;
    if (!check_whole(&p, error))
        return -1;
    *ret = p.o;
    memset(&p.o, 0, sizeof(p.o)); /* handed over */
    return 0;
}

int sm_run_options_parse(int argc, char **argv, struct sm_run_options *ret, GError **error)
{
    return parse_all(argc, argv, false, NULL, ret, error);
}

int sm_run_options_parse_create(int argc, char **argv, struct sm_run_options *ret, GError **error)
{
    return parse_all(argc, argv, true, NULL, ret, error);
}

int sm_run_options_parse_stored(int argc, char **argv, const json_t *spec, struct sm_run_options *ret, GError **error)
{
    return parse_all(argc, argv, false, spec, ret, error);
}

void sm_run_options_clear(struct sm_run_options *o)
{
    g_clear_pointer(&o->given, g_ptr_array_unref);
    g_clear_pointer(&o->spec, json_decref);
    g_clear_pointer(&o->name, g_free);
    g_clear_pointer(&o->state_dir, g_free);
    g_clear_pointer(&o->lists, sm_lists_free);
    g_clear_pointer(&o->flag_lists, sm_lists_free);
    g_clear_pointer(&o->policy_files, g_ptr_array_unref);
    g_clear_pointer(&o->publishes, g_array_unref);
    g_clear_pointer(&o->swaps, sm_swaps_free);
    g_clear_pointer(&o->vault_addr, g_free);
    g_clear_pointer(&o->vault_namespace, g_free);
    if (o->vault_roots)
        (void)g_string_free(o->vault_roots, TRUE);
    o->vault_roots = NULL;
    g_clear_pointer(&o->inside, g_ptr_array_unref);
    g_clear_pointer(&o->ca_files, g_ptr_array_unref);
    if (o->extra_roots)
        (void)g_string_free(o->extra_roots, TRUE);
    o->extra_roots = NULL;
    g_clear_pointer(&o->binds, g_ptr_array_unref);
    g_clear_pointer(&o->warnings, g_ptr_array_unref);
    g_clear_pointer(&o->rootfs, g_free);
    g_clear_pointer(&o->vm.kernel, g_free);
    g_clear_pointer(&o->vm.initrd, g_free);
    g_clear_pointer(&o->vm.append, g_free);
    g_clear_pointer(&o->vm.qemu, g_free);
    sm_attach_clear(&o->attach);
    sm_proxy_clear(&o->proxy);
    sm_vsock_clear(&o->vsock);
    o->argv = NULL;
}

/** Append text, broken between words into lines of at most width columns, each after the first indented. */
static void append_wrapped(GString *out, const char *text, size_t indent, size_t width)
{
    size_t column = indent;
    g_auto(GStrv) words = g_strsplit(text, " ", -1);

    for (size_t i = 0; words[i]; i++) {
        size_t len = strlen(words[i]);
        if (i > 0 && column + 1 + len > width) {
            g_string_append_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (i > 0) {
            g_string_append_c(out, ' ');
            column++;
        }
        g_string_append(out, words[i]);
        column += len;
    }
    g_string_append_c(out, '\n');
}

char *sm_run_options_help(enum sm_command command)
{
    enum { INDENT = 32, WIDTH = 100 };
    GString *out = g_string_new(NULL);

    for (size_t i = 0; i < SM_ARRAY_LEN(flags); i++) {
        if (!flags[i].take || !belongs(&flags[i], command))
            continue;
        g_autofree char *left = g_strdup_printf("  --%s%s%s", flags[i].name, flags[i].metavar ? " " : "",
                                                flags[i].metavar ? flags[i].metavar : "");
        g_string_append_printf(out, "%-*s", INDENT, left);
        append_wrapped(out, flags[i].help, INDENT, WIDTH);
    }
    g_string_append_printf(out, "%-*s", INDENT, "  -h, --help");
    append_wrapped(out, "print this and exit", INDENT, WIDTH);
    return g_string_free(out, FALSE);
}
