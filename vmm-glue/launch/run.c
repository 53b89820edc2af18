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
#include "base/log.h"
#include "launch/exit.h"
#include "launch/hidden.h"
#include "launch/keepca.h"
#include "launch/kernelpath.h"
#include "launch/messages.h"
#include "launch/program.h"
#include "launch/reload.h"
#include "launch/restore.h"
#include "launch/settings.h"
#include "launch/state.h"
#include "launch/vm.h"
#include "sandbox/sandbox.h"
#include "supervisor/ahead.h"
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
    bool whole = g_str_has_prefix(error->message, SM_LINK_FAIL_AS_IT_IS);

    fprintf(stderr, "%s%s\n", whole ? "" : "slirp-med: ", error->message);
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

/** The sockets that VMMs come to, as rows whose texts may lie in @texts. Returns whether the network card's frames come
 * by one of them. */
static bool gather_doors(const struct sm_run_options *o, const struct sm_vm *vm, GArray *rows, GPtrArray *texts)
{
    struct sm_listen_spec card = {.kind = SM_LISTEN_UNIX, .single = true, .tag = SM_LISTEN_TAG_NET, .path = vm->socket};
    bool has = vm->socket || (o->command == SM_COMMAND_ATTACH && sm_attach_listens(&o->attach, &card));

    if (has)
        g_array_append_val(rows, card);
    sm_vsock_listens(&o->vsock, rows, texts);
    return has && strcmp(card.tag, SM_LISTEN_TAG_NET) == 0;
}

/** The flags for a snapshot, in the form in which a created workspace has them. Not CMD: people put secrets into arguments. NULL: it is of this start alone. */
static json_t *settings_of(const struct sm_run_options *o)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *when = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    sm_cleanup(sm_settings_clear) struct sm_settings s = {0};

    if (o->command == SM_COMMAND_ATTACH && o->attach.fd >= 0)
        return NULL; /* there would be no port in it */
    sm_settings_new(o, when, &s);
    g_clear_pointer(&s.cmd, g_strfreev);
    return sm_settings_json(&s);
}

/** Is there a guest of ours? */
static bool has_guest(const struct sm_run_options *o)
{
    return o->command == SM_COMMAND_RUN || o->command == SM_COMMAND_VM;
}

/** A start, and all that it holds until its end. */
struct launch {
    const struct sm_run_options *o;
    struct sm_run_options proxied; /* of a proxy, o: the caller's with what is known when it listens; owns nothing */
    const struct sm_launch_how *how;
    struct sm_workspace ws;
    char *core;            /* the program */
    struct sm_ahead ahead; /* the core, until it is the supervisor's */
    struct sm_vm vm;
    struct sm_launch_ground ground;
    bool networked;
    int audit_fd, counters_fd;
    int listener;                      /* of a proxy */
    struct sm_kernel_path kernel_path; /* of `attach` */
    struct sm_workspace_ca ca;
    char kept_ca[SM_TLS_FINGERPRINT_STRLEN]; /* "": the CA is a new one */
    json_t *pins;                            /* of a snapshot */
    char *edge;                              /* the program of the roles that face the guest */
    char *cwd, *default_base, *resolv_conf;
    char **files, **hidden;                          /* of references */
    char *core_config, *front_config, *guest_config; /* the children's messages, */
    char **service_env, **guest_env;                 /* and their environments */
    struct sm_ref_source *refs;                      /* what the core may ask for by number */
    size_t n_refs;
    char **roots_paths, *fetch_roots;
    GArray *doors; /* of struct sm_listen_spec */
    GPtrArray *door_texts;
    char *folder, *ca_path;
    struct sm_attach_tell tell;
    struct sm_reload *reload;
    json_t *told; /* what workspace.json says */
};

static void launch_clear(struct launch *l)
{
    unpin(l->refs, l->n_refs);
    g_clear_pointer(&l->refs, g_free);
    sm_reload_free(&l->reload);
    json_decref(l->told);
    sm_workspace_ca_close(&l->ca);
    json_decref(l->pins);
    sm_fd_close(&l->audit_fd);
    sm_fd_close(&l->counters_fd);
    sm_fd_close(&l->listener);
    sm_ahead_end(&l->ahead);
    sm_kernel_path_clear(&l->kernel_path);
    sm_vm_clear(&l->vm);
    g_clear_pointer(&l->doors, g_array_unref);
    g_clear_pointer(&l->door_texts, g_ptr_array_unref);
    g_strfreev(l->files);
    g_strfreev(l->hidden);
    g_strfreev(l->service_env);
    g_strfreev(l->guest_env);
    g_strfreev(l->roots_paths);
    g_free(l->edge);
    g_free(l->core);
    g_free(l->cwd);
    g_free(l->default_base);
    g_free(l->resolv_conf);
    g_free(l->core_config);
    g_free(l->front_config);
    g_free(l->guest_config);
    g_free(l->fetch_roots);
    g_free(l->folder);
    g_free(l->ca_path);
    sm_workspace_close(&l->ws); /* the lock goes last */
}

/* ---- the steps (run.h), in their order; each false with error set ---- */

/** 0: the core, which takes the longest to start and needs nothing of the following to begin with. */
static bool start_core(struct launch *l, GError **error)
{
    char self[] = "slirp-med", core[] = "core", ahead[] = SM_LINK_AHEAD, tls[] = SM_LINK_AHEAD_TLS;
    char *argv[] = {self, core, ahead, sm_run_options_intercepts(l->o) ? tls : NULL, NULL};

    l->service_env = service_environment();
    l->core = l->networked ? sm_program_path(SM_CORE_NAME, error) : NULL;
    return !l->networked || (l->core && sm_ahead_start(&l->ahead, l->core, argv, l->service_env, error) == 0);
}

/** 1: what the caller's process gives to CMD. */
static bool note_caller(struct launch *l, GError **error)
{
    mode_t mask = umask(077);

    (void)umask(mask);
    l->edge = sm_program_path(SM_EDGE_NAME, error);
    if (!l->edge)
        return false;
    l->ground.umask = mask;
    l->ground.nofile = soft_limit(RLIMIT_NOFILE);
    l->ground.core = soft_limit(RLIMIT_CORE);
    l->ground.supervisor = getpid();
    char *here = getcwd(NULL, 0);
    l->cwd = g_strdup(here);
    free(here);
    if (!l->cwd) {
        sm_error_set(error, SM_ERROR_SYSTEM, "the current folder cannot be named (%s): cd to another one",
                     strerror(errno));
        return false;
    }
    l->ground.cwd = l->cwd;
    if (l->o->state_dir) {
        g_autofree char *wanted = sm_state_default_base(NULL);
        char *real = wanted ? realpath(wanted, NULL) : NULL;
        l->default_base = g_strdup(real);
        free(real);
        l->ground.default_base = l->default_base;
    }
    return true;
}

/** 2: the folder, and that nobody else runs it. */
static bool take_place(struct launch *l, GError **error)
{
    const struct sm_run_options *o = l->o;

    if (sm_workspace_open(o->state_dir, o->name, !l->how->stored, &l->ws, error) < 0)
        return false;
    if (!l->how->stored && sm_settings_exist(&l->ws)) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "workspace '%s' was made by 'create', with settings of its own: start it with 'slirp-med start %s', "
            "or choose another --name",
            o->name, o->name);
        return false;
    }
    if (sm_workspace_lock(&l->ws, error) < 0)
        return false;
    if (l->ws.crashed_pid > 0)
        fprintf(
            stderr,
            "slirp-med: workspace %s: its last run (pid %d) was killed or crashed; what it left behind is cleaned\n",
            o->name, (int)l->ws.crashed_pid);
    if (o->name_generated)
        fprintf(stderr, "slirp-med: workspace %s\n", o->name);
    return true;
}

/** 3: the files that the core writes, and what it is told of the host's. */
static bool open_files(struct launch *l, GError **error)
{
    const struct sm_run_options *o = l->o;
    struct sm_launch_ground *g = &l->ground;

    if (sm_kept_ca_check(&l->ws, sm_run_options_intercepts(o), o->keep_ca, l->kept_ca, error) < 0 ||
        !sm_restored_pins(&l->ws, &l->pins, error))
        return false;
    g->ca_sha256 = l->kept_ca[0] ? l->kept_ca : NULL;
    g->pins = l->pins;
    if (l->networked) {
        l->audit_fd = sm_audit_open(l->ws.dirfd, &g->seq_floor, error);
        if (l->audit_fd < 0)
            return false;
        l->resolv_conf = o->n_dns > 0 ? NULL : sm_resolv_read(SM_RESOLV_PATH, NULL);
        if (l->resolv_conf && !g_utf8_validate(l->resolv_conf, -1, NULL))
            g_clear_pointer(&l->resolv_conf, g_free);
    }
    g->resolv_conf = l->resolv_conf ? l->resolv_conf : "";
    if (!sm_run_options_counts(o))
        return true;
    l->counters_fd = sm_workspace_open_counters(&l->ws, &g->counters, error);
    if (l->counters_fd < 0)
        return false;
    if (o->caps.total && g->counters.bytes[SM_CAPS_UP] + g->counters.bytes[SM_CAPS_DOWN] >= o->caps.total)
        fprintf(stderr,
                "slirp-med: warning: --egress-max-total-bytes is used up by earlier runs: every flow will be refused "
                "(%s/%s/" SM_STATE_COUNTERS " counts them)\n",
                l->ws.base, l->ws.name);
    return true;
}

/** What references name is covered in CMD's view. */
static void hide(struct launch *l)
{
    l->files = sm_swaps_hidden_files(l->o->swaps);
    l->hidden = sm_hidden_paths(l->files, l->cwd, getenv("HOME"));
    l->ground.hidden = l->hidden;
    const char *bare = sm_hidden_open(l->files, l->hidden);
    if (!bare || l->o->command != SM_COMMAND_RUN)
        return;
    g_autofree char *shown = g_strescape(bare, NULL);
    fprintf(stderr,
            "slirp-med: warning: %s is not in a folder of its own: if it is replaced while this runs, the command can "
            "read the new one (see file: in slirp-med(1))\n",
            shown);
}

/** The children's messages; and workspace.json, which tells what was started. */
static bool compose(struct launch *l, GError **error)
{
    const struct sm_run_options *o = l->o;
    struct sm_launch_ground *g = &l->ground;

    if (o->command == SM_COMMAND_PROXY) {
        l->proxied = *o;
        l->o = o = &l->proxied;
        l->listener = sm_proxy_open(&l->proxied.proxy, error);
        if (l->listener < 0)
            return false;
    }
    if (o->command == SM_COMMAND_VM)
        sm_vm_command(o, &l->vm);
    if (o->command == SM_COMMAND_VM && sm_vm_connect(o, &l->ws, &l->vm, error) < 0)
        return false;
    g->vmm_argv = l->vm.argv;
    g->vmm_program = l->vm.program;
    g->vmm_socket = l->vm.socket;
    g->n_more = (int)l->vm.n_guest_fds;
    if (o->command == SM_COMMAND_ATTACH && o->datapath == SM_DATAPATH_TPROXY &&
        sm_kernel_path_start(o, l->edge, l->service_env, &l->kernel_path, error) < 0)
        return false;
    l->guest_env = guest_environment(o);
    l->core_config = sm_message_core(o, g, error);
    l->front_config = l->core_config ? sm_message_front(o, error) : NULL;
    if (!l->front_config)
        return false;
    if (has_guest(o) && !(l->guest_config = sm_message_guest(o, &l->ws, g, error)))
        return false;
    g_autofree char *settings = sm_message_settings(o, error);
    l->told = settings ? json_loads(settings, 0, NULL) : NULL;
    return settings && sm_workspace_write_settings(&l->ws, settings, error) == 0;
}

/** The CA's files: still empty, or those that were kept. */
static bool make_ca(struct launch *l, GError **error)
{
    bool intercepts = sm_run_options_intercepts(l->o);

    if (!sm_kept_ca_exists(&l->ws))
        sm_workspace_drop_ca(&l->ws, false); /* of an earlier run; its key too, when that was killed */
    if (intercepts &&
        (l->kept_ca[0] ? sm_kept_ca_open(&l->ws, &l->ca, error) : sm_workspace_new_ca(&l->ws, &l->ca, error)) < 0)
        return false;
    l->folder = g_build_filename(l->ws.base, l->ws.name, NULL);
    l->ca_path = intercepts ? g_build_filename(l->folder, SM_STATE_CA_CERT, NULL) : NULL;
    return true;
}

/** All are ready, and the guest has not seen its CA yet: from here on there is one to come back to. */
static bool on_ready(void *data, GError **error)
{
    const struct launch *l = data;
    bool made = sm_run_options_intercepts(l->o) && !l->kept_ca[0];

    return !made || !l->o->keep_ca || sm_kept_ca_mark(&l->ws, error);
}

/* ---- while it runs ---- */

/** workspace.json follows, for `status` of one that is stopped or has crashed. Nothing is started from it. */
static void tell_again(const struct launch *l)
{
    g_autoptr(GError) error = NULL;
    char *text = json_dumps(l->told, JSON_COMPACT);

    if (text && sm_workspace_write_settings(&l->ws, text, &error) < 0)
        sm_log_warning("%s", error->message);
    free(text);
}

static void on_published(void *data, const json_t *publishes)
{
    struct launch *l = data;

    (void)json_object_set_new(json_object_get(l->told, "network"), "publishes", json_deep_copy(publishes));
    tell_again(l);
}

static char *load_policy(void *data, const char *path, json_t **ret_counts, GError **error)
{
    struct launch *l = data;
    struct sm_policy_source source = sm_reload_source(l->reload);
    return source.load(source.data, path, ret_counts, error);
}

static void policy_settled(void *data, bool in_force)
{
    struct launch *l = data;
    struct sm_policy_source source = sm_reload_source(l->reload);
    json_t *files = json_array();

    source.settled(source.data, in_force);
    for (char *const *f = sm_reload_files(l->reload); *f; f++)
        (void)json_array_append_new(files, json_string(*f));
    (void)json_object_set_new(l->told, "policy_files", files);
    if (in_force)
        tell_again(l);
}

/** 5: all are ready. */
static void on_running(void *data)
{
    struct launch *l = data;

    if (l->o->command == SM_COMMAND_ATTACH)
        sm_attach_running(&l->tell);
    if (l->o->command == SM_COMMAND_PROXY)
        sm_proxy_running(&l->tell);
    if (l->how->on_ready)
        l->how->on_ready(l->how->data);
}

static void on_stopping(void *data)
{
    struct launch *l = data;

    if (!has_guest(l->o))
        sm_attach_stopping(&l->tell);
}

/** 4: the supervisor and its children, until their end. False: not even started. */
static bool supervise(struct launch *l, struct sm_supervisor_result *ret, GError **error)
{
    const struct sm_run_options *o = l->o;
    char self[] = "slirp-med", front[] = "nat", proxy[] = "proxy-front", guest[] = "guest-init";
    bool proxies = o->command == SM_COMMAND_PROXY;
    char *front_argv[] = {self, proxies ? proxy : front, NULL}, *guest_argv[] = {self, guest, NULL};
    sm_cleanup(json_freep) json_t *facts = sm_message_facts(o);
    sm_cleanup(json_freep) json_t *flags = settings_of(o);
    const struct sm_policy_source policy = {.load = load_policy, .settled = policy_settled, .data = l};
    bool card_has_door = gather_doors(o, &l->vm, l->doors, l->door_texts);
    int given_port = proxies                           ? l->listener
                     : l->kernel_path.bundle >= 0      ? l->kernel_path.bundle
                     : o->command == SM_COMMAND_ATTACH ? o->attach.fd
                                                       : l->vm.front_fd;

    l->reload = sm_reload_new(o);
    l->tell = (struct sm_attach_tell){.o = o, .ca = l->ca_path, .folder = l->folder};
    struct sm_supervisor_spec spec = {
        .exe = l->core,
        .name = o->name,
        .dirfd = l->ws.dirfd,
        .audit_fd = l->audit_fd,
        .audit_max_bytes = o->audit_max_bytes,
        .core_ahead = l->networked ? &l->ahead : NULL,
        .ca_key_fd = l->ca.key_fd,
        .ca_cert_fd = l->ca.cert_fd,
        .ca_guest_fd = l->ca.guest_fd,
        .counters_fd = l->counters_fd,
        .roots_paths = l->roots_paths,
        .extra_roots = l->fetch_roots,
        .refs = l->refs,
        .n_refs = l->n_refs,
        .resolv_path = l->networked && o->n_dns == 0 ? SM_RESOLV_PATH : NULL,
        .resolv_text = l->ground.resolv_conf,
        .publishes = (const struct sm_publish *)(const void *)o->publishes->data,
        .n_publishes = o->publishes->len,
        .policy = &policy,
        .facts = facts,
        .settings = flags,
        .port_source = card_has_door     ? SM_PORT_LATER
                       : given_port >= 0 ? SM_PORT_GIVEN
                                         : SM_PORT_OF_GUEST,
        .port_fd = given_port,
        .keeper = l->kernel_path.keeper,
        .tap_fd = l->kernel_path.tap,
        .tap_word = SM_KERNEL_PATH_WORD,
        .listens = (const struct sm_listen_spec *)(const void *)l->doors->data,
        .n_listens = l->doors->len,
        .on_ready = on_ready,
        .no_publish = proxies,
        .on_published = on_published,
        .on_running = on_running,
        .on_stopping = on_stopping,
        .on_data = l,
        .n_guest_more = l->vm.n_guest_fds,
        .owner_given = o->command == SM_COMMAND_ATTACH && o->attach.owner_fd >= 0,
        .owner_fd = o->attach.owner_fd,
        .guest_err_fd = l->how->guest_err_fd,
        .take_signals = true,
    };
    memcpy(spec.guest_more, l->vm.guest_fds, sizeof(spec.guest_more));
    spec.children[SM_CHILD_CORE] =
        (struct sm_child_spec){l->networked, NULL, NULL, l->service_env, l->core_config, strlen(l->core_config)};
    spec.children[SM_CHILD_FRONT] = (struct sm_child_spec){l->networked,   l->edge,         front_argv,
                                                           l->service_env, l->front_config, strlen(l->front_config)};
    spec.children[SM_CHILD_GUEST] =
        (struct sm_child_spec){has_guest(o), l->edge,         guest_argv,
                               l->guest_env, l->guest_config, l->guest_config ? strlen(l->guest_config) : 0};

    sm_cleanup(supervisor_freep) struct sm_supervisor *supervisor = sm_supervisor_new(&spec, error);
    if (!supervisor)
        return false;
    sm_workspace_ca_close(&l->ca); /* they are the children's */
    sm_fd_close(&l->counters_fd);
    sm_vm_let_go(&l->vm);
    sm_fd_close(&l->kernel_path.bundle);
    sm_fd_close(&l->listener); /* the front's: when that ends, nobody is let in */
    if (o->command == SM_COMMAND_ATTACH && o->attach.fd >= 0)
        (void)close(o->attach.fd); /* the VMM is to see the front's end, and not ours */
    sm_supervisor_run(supervisor, ret);
    return true;
}

/** Steps 3 to 5, under the lock. */
static bool run_locked(struct launch *l, struct sm_supervisor_result *ret, GError **error)
{
    const struct sm_run_options *o = l->o;

    if (!open_files(l, error))
        return false;
    hide(l);
    if (!compose(l, error) || !make_ca(l, error))
        return false;
    l->n_refs = references(o, &l->refs);
    l->roots_paths = sm_roots_paths(getenv("SSL_CERT_FILE"));
    l->fetch_roots = g_strdup_printf("%s\n%s", o->extra_roots->str, o->vault_roots ? o->vault_roots->str : "");
    return supervise(l, ret, error);
}

int sm_launch_run(const struct sm_run_options *o, const struct sm_launch_how *given)
{
    static const struct sm_launch_how plain = {0};
    g_autoptr(GError) error = NULL;
    sm_cleanup(launch_clear) struct launch l = {
        .o = o,
        .how = given ? given : &plain,
        .ws = SM_WORKSPACE_INIT,
        .vm = SM_VM_INIT,
        .ahead = SM_AHEAD_INIT,
        .ca = SM_WORKSPACE_CA_INIT,
        .networked = o->net.mode == SM_NETWORK_USER,
        .audit_fd = -1,
        .counters_fd = -1,
        .listener = -1,
        .kernel_path = SM_KERNEL_PATH_INIT,
        .doors = g_array_new(FALSE, FALSE, sizeof(struct sm_listen_spec)),
        .door_texts = g_ptr_array_new_with_free_func(g_free),
    };
    struct sm_supervisor_result result = {.status = SM_SUPERVISOR_FAILED};

    sm_program_settle();
    if (!start_core(&l, &error))
        return say(error);
    int missing = o->command == SM_COMMAND_VM ? sm_vm_prepare(o, &l.vm, &error) : 0;
    if (missing) {
        (void)say(error);
        return missing;
    }
    if (!note_caller(&l, &error) ||
        sm_sandbox_enter(SM_ROLE_SUPERVISOR, &(struct sm_sandbox_spec){.parent_fd = -1}, &error) < 0 ||
        !take_place(&l, &error))
        return say(error);
    g_autofree char *began = sm_exit_now();
    if (!run_locked(&l, &result, &error)) {
        result.status = say(error);
        result.reason = g_strdup(error->message);
    } else if (result.reason) {
        bool whole = g_str_has_prefix(result.reason, SM_LINK_FAIL_AS_IT_IS);
        fprintf(stderr, "%s%s\n", whole ? "" : "slirp-med: ", result.reason);
    }
    if (!sm_kept_ca_exists(&l.ws))
        sm_workspace_drop_ca(&l.ws, true);
    if (result.started || !l.ws.created)
        sm_exit_write(&l.ws, began, &result);
    if (!result.started)
        sm_workspace_undo(&l.ws);
    g_free(result.reason);
    return result.status;
}
