/* SPDX-License-Identifier: BSD-3-Clause */
/* The start of a workspace, step by step, and its undoing; see run.h. */
#include "launch/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/file.h"
#include "base/error.h"
#include "launch/edge.h"
#include "launch/hidden.h"
#include "launch/messages.h"
#include "launch/reload.h"
#include "launch/state.h"
#include "launch/vm.h"
#include "sandbox/sandbox.h"
#include "supervisor/resolv.h"
#include "supervisor/roots.h"
#include "supervisor/spawn.h"
#include "supervisor/supervisor.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

static int64_t soft_limit(int resource)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > INT32_MAX)
        return -1;
    return (int64_t)limit.rlim_cur;
}

/** The whole environment of core and front: the log level, and in sanitizer builds what tells them where to report. */
static char **service_environment(void)
{
    static const char *const kept[] = {
        "SLIRP_MED_LOG",
#if SANITIZED
        "ASAN_OPTIONS",
        "UBSAN_OPTIONS",
        "LSAN_OPTIONS",
#endif
    };
    GPtrArray *env = g_ptr_array_new();

    for (size_t i = 0; i < SM_ARRAY_LEN(kept); i++) {
        const char *value = getenv(kept[i]);
        if (value)
            g_ptr_array_add(env, g_strconcat(kept[i], "=", value, NULL));
    }
    g_ptr_array_add(env, NULL);
    return (char **)g_ptr_array_free(env, FALSE);
}

/**
 * guest-init's: ours, without what references name. It takes these out for CMD all the same, but what a process was
 * started with stays in its memory.
 */
static char **guest_environment(const struct sm_run_options *o)
{
    static const char *const for_vmm[] = {"PATH", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "HOME", "SLIRP_MED_LOG"};
    g_auto(GStrv) hidden = sm_swaps_hidden_variables(o->swaps);
    char **env = g_get_environ();

    if (o->command == SM_COMMAND_VM) {
        /* whoever takes a VMM over gets what it needs and not what the caller's shell holds */
        char **less = g_new0(char *, 1);
        for (size_t i = 0; i < SM_ARRAY_LEN(for_vmm); i++) {
            const char *value = g_environ_getenv(env, for_vmm[i]);
            if (value)
                less = g_environ_setenv(less, for_vmm[i], value, TRUE);
        }
        g_strfreev(env);
        env = g_environ_setenv(less, "TMPDIR", "/tmp", TRUE); /* QEMU's own choice, /var/tmp, is not there */
    }
    for (size_t i = 0; hidden[i]; i++)
        env = g_environ_unsetenv(env, hidden[i]);
    return env;
}

static void supervisor_freep(struct sm_supervisor **s)
{
    sm_supervisor_free(*s);
}

static void json_freep(json_t **j)
{
    json_decref(*j);
}

/** A setting of the user's that cannot work is a usage error here too; all else is ours. */
static int say(const GError *error)
{
    fprintf(stderr, "slirp-med: %s\n", error->message);
    return g_error_matches(error, SM_ERROR, SM_ERROR_INVALID) ? SM_LAUNCH_USAGE : SM_SUPERVISOR_FAILED;
}

/** What the core may ask for by number: the references of the swaps, and behind them VAULT_TOKEN. */
static size_t references(const struct sm_run_options *o, struct sm_ref_source **ret)
{
    size_t n = sm_swaps_ref_count(o->swaps);
    struct sm_ref_source *refs = g_new0(struct sm_ref_source, n + 1);

    for (size_t i = 0; i < n; i++) {
        const struct sm_ref *r = sm_swaps_ref(o->swaps, i);
        refs[i].env = r->kind == SM_REF_ENV;
        refs[i].what = r->kind == SM_REF_ENV ? r->name : r->kind == SM_REF_FILE ? r->path : NULL;
    }
    for (size_t i = 0; i < n; i++)
        sm_ref_pin(&refs[i]);
    refs[n] = (struct sm_ref_source){.env = true, .what = "VAULT_TOKEN"};
    *ret = refs;
    return n + 1;
}

static void unpin(struct sm_ref_source *refs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sm_ref_unpin(&refs[i]);
}

/** The sockets that VMMs come to, as rows whose texts may lie in @texts. Returns whether the network card's is one of them. */
static bool gather_doors(const struct sm_run_options *o, const struct sm_vm *vm, GArray *rows, GPtrArray *texts)
{
    struct sm_listen_spec card = {.kind = SM_LISTEN_UNIX, .single = true, .tag = SM_LISTEN_TAG_NET, .path = vm->socket};
    bool has = vm->socket || (o->command == SM_COMMAND_ATTACH && sm_attach_listens(&o->attach, &card));

    if (has)
        g_array_append_val(rows, card);
    sm_vsock_listens(&o->vsock, rows, texts);
    return has;
}

static int run_locked(const struct sm_run_options *o, struct sm_workspace *ws, struct sm_launch_ground *ground,
                      struct sm_vm *vm, bool *ret_started)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *settings = NULL;
    g_autofree char *core_config = NULL;
    g_autofree char *front_config = NULL;
    g_autofree char *guest_config = NULL;
    g_autofree char *resolv_conf = NULL;
    g_auto(GStrv) service_env = service_environment();
    g_auto(GStrv) guest_env = guest_environment(o);
    g_auto(GStrv) files = sm_swaps_hidden_files(o->swaps);
    g_auto(GStrv) hidden = sm_hidden_paths(files, ground->cwd, getenv("HOME"));
    g_auto(GStrv) roots_paths = sm_roots_paths(getenv("SSL_CERT_FILE"));
    g_autofree char *edge = sm_edge_path(&error);
    sm_cleanup(sm_workspace_ca_close) struct sm_workspace_ca ca = SM_WORKSPACE_CA_INIT;
    sm_autofd audit_fd = -1;
    sm_autofd counters_fd = -1;
    bool networked = o->network == SM_NETWORK_USER;

    if (!edge)
        return say(error);
    if (networked) {
        audit_fd = sm_audit_open(ws->dirfd, &ground->seq_floor, &error);
        if (audit_fd < 0)
            return say(error);
        resolv_conf = o->n_dns > 0 ? NULL : sm_resolv_read(SM_RESOLV_PATH, NULL);
        if (resolv_conf && !g_utf8_validate(resolv_conf, -1, NULL))
            g_clear_pointer(&resolv_conf, g_free);
    }
    if (sm_run_options_counts(o)) {
        counters_fd = sm_workspace_open_counters(ws, &ground->counters, &error);
        if (counters_fd < 0)
            return say(error);
        if (o->caps.total && ground->counters.bytes[SM_CAPS_UP] + ground->counters.bytes[SM_CAPS_DOWN] >= o->caps.total)
            fprintf(
                stderr,
                "slirp-med: warning: --egress-max-total-bytes is used up by earlier runs: every flow will be refused "
                "(%s/%s/" SM_STATE_COUNTERS " counts them)\n",
                ws->base, ws->name);
    }
    ground->resolv_conf = resolv_conf ? resolv_conf : "";
    ground->hidden = hidden;
    const char *bare = sm_hidden_open(files, hidden);
    if (bare && o->command == SM_COMMAND_RUN) {
        g_autofree char *shown = g_strescape(bare, NULL);
        fprintf(
            stderr,
            "slirp-med: warning: %s is not in a folder of its own: if it is replaced while this runs, the command can "
            "read the new one (see file: in slirp-med(1))\n",
            shown);
    }

    if (o->command == SM_COMMAND_VM && sm_vm_connect(o, ws, vm, &error) < 0)
        return say(error);
    int given_port = o->command == SM_COMMAND_ATTACH ? o->attach.fd : vm->front_fd;
    ground->vmm_argv = vm->argv;
    ground->vmm_program = vm->program;
    ground->vmm_socket = vm->socket;
    ground->n_more = (int)vm->n_guest_fds;
    if (!(settings = sm_message_settings(o, &error)) || !(core_config = sm_message_core(o, ground, &error)) ||
        !(front_config = sm_message_front(o, &error)) ||
        (o->command != SM_COMMAND_ATTACH && !(guest_config = sm_message_guest(o, ws, ground, &error))) ||
        sm_workspace_write_settings(ws, settings, &error) < 0)
        return say(error);

    sm_workspace_drop_ca(ws, false); /* of an earlier run; its key too, when that was killed */
    if (sm_run_options_intercepts(o) && sm_workspace_new_ca(ws, &ca, &error) < 0)
        return say(error);

    g_autofree struct sm_ref_source *refs = NULL;
    size_t n_refs = references(o, &refs);
    g_autofree char *fetch_roots =
        g_strdup_printf("%s\n%s", o->extra_roots->str, o->vault_roots ? o->vault_roots->str : "");
    char self[] = "slirp-med", core[] = "core", front[] = "nat", guest[] = "guest-init";
    char *core_argv[] = {self, core, NULL}, *front_argv[] = {self, front, NULL}, *guest_argv[] = {self, guest, NULL};
    sm_cleanup(json_freep) json_t *facts = sm_message_facts(o);
    sm_cleanup(sm_reload_free) struct sm_reload *reload = sm_reload_new(o);
    const struct sm_policy_source policy = sm_reload_source(reload);
    g_autoptr(GArray) doors = g_array_new(FALSE, FALSE, sizeof(struct sm_listen_spec));
    g_autoptr(GPtrArray) door_texts = g_ptr_array_new_with_free_func(g_free);
    bool card_has_door = gather_doors(o, vm, doors, door_texts);
    g_autofree char *ca_path =
        sm_run_options_intercepts(o) ? g_strdup_printf("%s/%s/" SM_STATE_CA_CERT, ws->base, ws->name) : NULL;
    g_autofree char *folder = g_build_filename(ws->base, ws->name, NULL);
    struct sm_attach_tell tell = {.o = o, .ca = ca_path, .folder = folder};
    struct sm_supervisor_spec spec = {
        .exe = SM_SPAWN_SELF,
        .name = o->name,
        .dirfd = ws->dirfd,
        .audit_fd = audit_fd,
        .audit_max_bytes = o->audit_max_bytes,
        .ca_key_fd = ca.key_fd,
        .ca_cert_fd = ca.cert_fd,
        .ca_guest_fd = ca.guest_fd,
        .counters_fd = counters_fd,
        .roots_paths = roots_paths,
        .extra_roots = fetch_roots,
        .refs = refs,
        .n_refs = n_refs,
        .resolv_path = networked && o->n_dns == 0 ? SM_RESOLV_PATH : NULL,
        .resolv_text = ground->resolv_conf,
        .publishes = (const struct sm_publish *)(const void *)o->publishes->data,
        .n_publishes = o->publishes->len,
        .policy = &policy,
        .facts = facts,
        .port_source = card_has_door     ? SM_PORT_LATER
                       : given_port >= 0 ? SM_PORT_GIVEN
                                         : SM_PORT_OF_GUEST,
        .port_fd = given_port,
        .listens = (const struct sm_listen_spec *)(const void *)doors->data,
        .n_listens = doors->len,
        .on_running = o->command == SM_COMMAND_ATTACH ? sm_attach_running : NULL,
        .on_stopping = o->command == SM_COMMAND_ATTACH ? sm_attach_stopping : NULL,
        .on_data = &tell,
        .n_guest_more = vm->n_guest_fds,
        .owner_given = o->command == SM_COMMAND_ATTACH && o->attach.owner_fd >= 0,
        .owner_fd = o->attach.owner_fd,
        .take_signals = true,
    };
    memcpy(spec.guest_more, vm->guest_fds, sizeof(spec.guest_more));
    spec.children[SM_CHILD_CORE] =
        (struct sm_child_spec){networked, NULL, core_argv, service_env, core_config, strlen(core_config)};
    spec.children[SM_CHILD_FRONT] =
        (struct sm_child_spec){networked, edge, front_argv, service_env, front_config, strlen(front_config)};
    spec.children[SM_CHILD_GUEST] =
        (struct sm_child_spec){o->command != SM_COMMAND_ATTACH,        edge, guest_argv, guest_env, guest_config,
                               guest_config ? strlen(guest_config) : 0};

    sm_cleanup(supervisor_freep) struct sm_supervisor *supervisor = sm_supervisor_new(&spec, &error);
    if (!supervisor) {
        unpin(refs, n_refs);
        return say(error);
    }
    sm_workspace_ca_close(&ca); /* they are the children's */
    sm_fd_close(&counters_fd);
    sm_vm_let_go(vm);
    if (o->command == SM_COMMAND_ATTACH && o->attach.fd >= 0)
        (void)close(o->attach.fd); /* the VMM is to see the front's end, and not ours */
    struct sm_supervisor_result result;
    sm_supervisor_run(supervisor, &result);
    if (result.reason)
        fprintf(stderr, "slirp-med: %s\n", result.reason);
    g_free(result.reason);
    *ret_started = result.started;
    unpin(refs, n_refs);
    return result.status;
}

int sm_launch_run(const struct sm_run_options *o)
{
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_workspace_close) struct sm_workspace ws = SM_WORKSPACE_INIT;
    sm_cleanup(sm_vm_clear) struct sm_vm vm = SM_VM_INIT;
    g_autofree char *cwd = NULL;
    g_autofree char *default_base = NULL;
    struct sm_launch_ground ground = {0};

    int missing = o->command == SM_COMMAND_VM ? sm_vm_prepare(o, &vm, &error) : 0;
    if (missing) {
        (void)say(error);
        return missing;
    }
    mode_t mask = umask(077);
    (void)umask(mask);
    ground.umask = mask;
    ground.nofile = soft_limit(RLIMIT_NOFILE);
    ground.core = soft_limit(RLIMIT_CORE);
    ground.supervisor = getpid();
    char *here = getcwd(NULL, 0);
    cwd = g_strdup(here);
    free(here);
    if (!cwd) {
        fprintf(stderr, "slirp-med: the current folder cannot be named (%s): cd to another one\n", strerror(errno));
        return SM_SUPERVISOR_FAILED;
    }
    ground.cwd = cwd;
    if (o->state_dir) {
        g_autofree char *wanted = sm_state_default_base(NULL);
        char *real = wanted ? realpath(wanted, NULL) : NULL;
        default_base = g_strdup(real);
        free(real);
        ground.default_base = default_base;
    }

    if (sm_sandbox_enter(SM_ROLE_SUPERVISOR, &(struct sm_sandbox_spec){.parent_fd = -1}, &error) < 0)
        return say(error);
    if (sm_workspace_open(o->state_dir, o->name, true, &ws, &error) < 0)
        return say(error);
    if (sm_workspace_lock(&ws, &error) < 0)
        return say(error);
    if (o->name_generated)
        fprintf(stderr, "slirp-med: workspace %s\n", o->name);
    bool started = false;
    int status = run_locked(o, &ws, &ground, &vm, &started);
    sm_workspace_drop_ca(&ws, true);
    if (!started)
        sm_workspace_undo(&ws);
    return status;
}
