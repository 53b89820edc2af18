/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core's process: read the configuration, build what needs files, enter the sandbox, record the start, say READY, run; at the end write
 * the close line of every flow and the stop line. Descriptors and messages as in base/link.h.
 */
#include "core/mediate.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/carry.h"
#include "core/creds.h"
#include "core/fetch.h"
#include "core/limits.h"
#include "core/vsock.h"
#include "sandbox/sandbox.h"

static void record_start(struct sm_core *core, struct sm_audit_record *r)
{
    const struct sm_core_config *c = core->config;

    sm_audit_begin(r, SM_AUDIT_EGRESS_START, sm_clock_wall_us());
    sm_audit_add_str(r, "mode", sm_mode_name(c->mode));
    sm_audit_add_str(r, "datapath", core->config->proxy ? "proxy" : core->config->tproxy ? "tproxy" : "slirp");
    sm_audit_add_bool(r, "opaque", c->opaque);
    sm_audit_add_uint(r, "allow", sm_lists_count(c->lists, SM_LIST_ALLOW));
    sm_audit_add_uint(r, "passthrough", sm_lists_count(c->lists, SM_LIST_PASSTHROUGH));
    sm_audit_add_uint(r, "deny", sm_lists_count(c->lists, SM_LIST_DENY));
    sm_limits_start_line(core, r);
    sm_audit_add_str(r, "version", SM_VERSION);
}

/* Every flow's close line, then the stop line; with the channel still open, so that nothing the front still carries goes unrecorded. */
void sm_core_stop(struct sm_core *core, const char *reason, int status)
{
    struct sm_audit_record r;
    GHashTableIter it;
    void *value;

    if (core->stopping)
        return;
    core->stopping = true;
    sm_core_run_ends(core);
    for (;;) {
        g_hash_table_iter_init(&it, core->sessions);
        if (!g_hash_table_iter_next(&it, NULL, &value))
            break;
        struct sm_session *s = value;
        uint64_t id = s->id;
        if (s->state == SM_SESSION_MEDIATED)
            sm_mediate_stop(s);
        if (g_hash_table_lookup(core->sessions, &id) != s)
            continue;
        sm_tcp_count(s);
        sm_session_close(s, "workspace_stop");
        sm_core_make_room(core);
    }
    sm_core_vsock_stop(core, "workspace_stop");
    sm_limits_stop(core);
    if (core->config->mode != SM_MODE_OFF) {
        if (core->dns)
            sm_dnsserve_tell(core->dns, sm_loop_now(core->loop));
        sm_audit_repeats_flush_all(core->repeats, core->audit, sm_clock_wall_us());
        sm_audit_begin(&r, SM_AUDIT_EGRESS_STOP, sm_clock_wall_us());
        sm_audit_add_str(&r, "reason", reason);
        sm_audit_add_uint(&r, "flows", core->n_opened);
        sm_audit_add_uint(&r, "allowed", core->n_allowed);
        sm_audit_add_uint(&r, "denied", core->n_denied);
        sm_core_note(core, &r);
        if (!sm_audit_commit(core->audit))
            sm_log_error("the end could not be recorded: %s", sm_audit_failure(core->audit));
    }
    sm_loop_quit(core->loop, status);
}

/** Messages of the supervisor in one turn: clients of published ports come in crowds, and share a write of the record. */
#define LINK_BATCH 16

static bool take_link(struct sm_core *core);

static void channel_failed(const char *text, void *data)
{
    struct sm_core *core = data;

    while (!core->stop_reason && !core->stopping && take_link(core))
        continue; /* STOP is sent to us before the front */
    if (core->stop_reason)
        sm_core_stop(core, core->stop_reason, 0);
    if (!core->stopping)
        sm_log_error("the front is gone: %s", text);
    sm_core_stop(core, "front_ended", 1);
}

/* The front still has counts to tell; its end of the channel is behind them. */
static void stop_asked(struct sm_core *core, const char *reason)
{
    if (core->stop_reason)
        return;
    core->stop_reason = g_strdup(reason);
    sm_loop_arm(core->loop, &core->stop_timer, sm_loop_now(core->loop) + SM_CORE_STOP_WAIT_US);
}

static void on_stop_timer(struct sm_timer *timer, int64_t now_us)
{
    struct sm_core *core = sm_container_of(timer, struct sm_core, stop_timer);

    (void)now_us;
    sm_log_error("the front did not say its last word");
    sm_core_stop(core, core->stop_reason, 0);
}

static void channel_drained(void *data)
{
    struct sm_core *core = data;
    sm_channel_pause(core->channel, false);
}

static void on_message(const struct sm_flow_msg *msg, const int *fds, size_t n_fds, void *data)
{
    struct sm_core *core = data;

    sm_core_message(msg, fds, n_fds, data);
    if (sm_channel_congested(core->channel))
        sm_channel_pause(core->channel, true); /* take nothing more in until the front has read */
}

static void report(struct sm_core *core)
{
    char *text = sm_core_report(core);
    (void)sm_link_send(core->link.fd, SM_LINK_STATUS, text, -1);
    free(text);
}

/* One message of the supervisor. False when there is none. */
static bool take_link(struct sm_core *core)
{
    static struct sm_link_msg m;
    int n = sm_link_recv(core->link.fd, &m);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        sm_core_stop(core, "supervisor_ended", 1);
        return false;
    }
    if (m.verb == SM_LINK_STOP) {
        stop_asked(core, m.text[0] ? m.text : "stop");
    } else if (m.verb == SM_LINK_STATUS) {
        report(core);
    } else if (m.verb == SM_LINK_GIVE && g_str_has_prefix(m.text, "audit")) {
        core->asked_audit = false;
        if (m.fd >= 0)
            (void)!sm_audit_adopt(core->audit, sm_steal_fd(&m.fd), sm_clock_wall_us());
    } else if (m.verb == SM_LINK_GIVE && strcmp(m.text, "resolv") == 0 && m.fd >= 0) {
        size_t len;
        g_autofree char *text = sm_fd_read_all(m.fd, 65536, &len, NULL);
        if (text)
            sm_names_news(core, text, len);
    } else if (m.verb == SM_LINK_GIVE && strcmp(m.text, "roots") == 0) {
        sm_pki_news(core, m.fd);
    } else if (m.verb == SM_LINK_GIVE && strcmp(m.text, "fetchroots") == 0) {
        sm_fetch_news(core, sm_steal_fd(&m.fd));
    } else if (m.verb == SM_LINK_GIVE && g_str_has_prefix(m.text, "ref:")) {
        sm_creds_news(core->creds, m.text + strlen("ref:"), m.fd);
    } else if (m.verb == SM_LINK_LISTENERS) {
        sm_ingress_listeners(core, m.text);
    } else if (m.verb == SM_LINK_INGRESS) {
        sm_ingress_take(core, m.text, &m.fd);
    } else if (m.verb == SM_LINK_POLICY) {
        sm_reload_take(core, m.fd);
    } else if (m.verb == SM_LINK_SNAPSHOT) {
        sm_carry_export(core, m.fd);
    } else if (m.verb == SM_LINK_VSOCK) {
        sm_core_vsock_take(core, m.text, &m.fd);
    } else if (m.verb == SM_LINK_SERIAL) {
        sm_core_vsock_serial(core, &m.fd);
    }
    sm_fd_close(&m.fd);
    return true;
}

static void on_link(struct sm_watch *watch, uint32_t events)
{
    struct sm_core *core = sm_container_of(watch, struct sm_core, link);

    (void)events;
    for (int i = 0; i < LINK_BATCH && !core->stopping && take_link(core); i++)
        continue;
}

/** As early as it can be: making CMD trust it takes longer than what we have yet to do. */
static bool tell_ca(const struct sm_core *core, GError **error)
{
    char hash[9];

    if (sm_tls_ca_subject_hash(core->ca, hash) && sm_link_send(SM_LINK_FD, SM_LINK_CA, hash, -1) == 0)
        return true;
    sm_error_set(error, SM_ERROR_SYSTEM, "the workspace's CA could not be told of");
    return false;
}

static bool core_init(struct sm_core *core, GError **error)
{
    size_t len;
    g_autofree char *text = sm_fd_read_all(SM_CONFIG_FD, SM_CORE_CONFIG_MAX, &len, error);
    struct rlimit files;

    if (!text || !(core->config = sm_core_config_load(text, len, error)))
        return false;
    struct sm_audit_options options = {.workspace = core->config->workspace,
                                       .max_bytes = core->config->audit_max_bytes,
                                       .seq_floor = core->config->audit_seq_floor,
                                       .sync = core->config->audit_sync};
    core->audit = sm_audit_writer_new(SM_ROLE_FD, &options, sm_clock_wall_us(), error);
    if (!core->audit || !(core->loop = sm_loop_new(error)))
        return false;
    sm_watch_init(&core->ghost, -1, sm_tcp_ghost);
    core->fetch_roots = -1;
    core->repeats = sm_audit_repeats_new();
    core->pins = sm_pins_new(SM_PINS_MAX);
    (void)sm_carry_pins_load(core->config->pins, core->pins, sm_loop_now(core->loop), sm_clock_wall_us());
    core->sessions = g_hash_table_new(g_int64_hash, g_int64_equal);
    rlim_t reserve = SM_CORE_FD_RESERVE + (core->config->n_mediation > 0 ? SM_CORE_MEDIATION_FDS : 0);
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) {
        sm_error_set_errno(error, errno, "getrlimit");
        return false;
    }
    rlim_t most = SM_MIN(files.rlim_cur, (rlim_t)INT_MAX);
    core->fd_max = (int)(most > 2 * reserve ? most - reserve : most / 2);
    core->sessions_max = (unsigned)SM_MIN(SM_CORE_SESSIONS_MAX, core->fd_max);
    /* Where nothing is intercepted there is no CA, and the launcher gave no files for one. */
    if (core->config->mode != SM_MODE_OFF && !core->config->opaque &&
        !(sm_pki_make(core, SM_CA_KEY_FD, SM_CA_CERT_FD, error) && tell_ca(core, error) && sm_pki_open(core, error)))
        return false;
    core->creds = sm_creds_new(core);
    bool counts = core->config->caps.bps || core->config->caps.total;
    return sm_limits_init(core, counts ? SM_COUNTERS_FD : -1, error) && sm_ownaddr_init(core, error) &&
           sm_names_init(core, error);
}

static int fail(const GError *error)
{
    (void)sm_link_send(SM_LINK_FD, SM_LINK_FAIL, error ? error->message : "out of resources", -1);
    return 1;
}

/* All that must be there is there, or the start ends here. */
static void ready(struct sm_core *core, const GError *error)
{
    if (error) {
        (void)fail(error);
        sm_core_stop(core, "mediation_unreachable", 1);
    } else if (sm_link_send(SM_LINK_FD, SM_LINK_READY, NULL, -1) < 0) {
        sm_core_stop(core, "supervisor_ended", 1);
    }
}

/**
 * One that was started ahead (supervisor/ahead.h) gets its descriptors through the link. @tls: meanwhile OpenSSL is
 * made ready, which takes longer than all that is waited for.
 */
static bool wait_for_files(bool tls, GError **error)
{
    static struct sm_link_msg m; /* large */
    unsigned taken = 0;
    int n = 1;

    /* The numbers are kept free: a library may open something. */
    for (int i = SM_CONFIG_FD; i <= SM_COUNTERS_FD; i++)
        if (dup2(STDIN_FILENO, i) < 0)
            n = -1;
    if (n < 0) {
        sm_error_set_errno(error, errno, "keep descriptors free");
        return false;
    }
    if (tls && !sm_tls_library_init(error))
        return false;
    while ((n = sm_link_recv(SM_LINK_FD, &m)) > 0 && m.verb == SM_LINK_TAKE && m.fd >= 0) {
        int number = m.text[0] >= '0' && m.text[0] <= '9' && !m.text[1] ? m.text[0] - '0' : -1;
        bool ok = (number == STDERR_FILENO || (number >= SM_CONFIG_FD && number <= SM_COUNTERS_FD)) &&
                  dup2(m.fd, number) >= 0;
        sm_fd_close(&m.fd);
        taken |= ok ? 1U << number : 0;
        if (!ok) {
            sm_error_set(error, SM_ERROR_SYSTEM, "the supervisor gave a descriptor %s that cannot be taken", m.text);
            return false;
        }
    }
    for (int i = SM_CONFIG_FD; i <= SM_COUNTERS_FD; i++)
        if (!(taken & 1U << i))
            (void)close(i);
    if (n > 0 && m.verb == SM_LINK_TAKE)
        return true;
    if (n > 0)
        sm_fd_close(&m.fd);
    sm_error_set(error, SM_ERROR_SYSTEM, "the supervisor gave no descriptors");
    return false;
}

int sm_core_main(int argc, char **argv)
{
    static const int keep[] = {SM_LINK_FD,   SM_CONFIG_FD,  SM_CHANNEL_FD, SM_ROLE_FD,
                               SM_CA_KEY_FD, SM_CA_CERT_FD, SM_COUNTERS_FD};
    static const struct sm_channel_ops ops = {
        .message = on_message, .failed = channel_failed, .drained = channel_drained};
    struct sm_sandbox_spec sandbox = {.keep_fds = keep, .n_keep_fds = SM_ARRAY_LEN(keep), .parent_fd = SM_LINK_FD};
    static struct sm_core core; /* one a process */
    struct sm_audit_record r;
    g_autoptr(GError) error = NULL;

    bool ahead = argc > 1 && strcmp(argv[1], SM_LINK_AHEAD) == 0;
    bool tls = argc > 2 && strcmp(argv[2], SM_LINK_AHEAD_TLS) == 0;

    sm_log_init("core");
    /* Relay buffers of up to 148 KiB come and go with every burst: by default each would be mapped, zeroed and unmapped. */
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 4 << 20);
    (void)mallopt(M_TOP_PAD, 256 << 10);
    if (sm_sandbox_early(SM_ROLE_CORE, &sandbox, &error) < 0)
        return fail(error);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not our death */
    if (ahead && !wait_for_files(tls, &error))
        return fail(error);
    if (!core_init(&core, &error) || sm_sandbox_enter(SM_ROLE_CORE, &sandbox, &error) < 0)
        return fail(error);
    (void)close(SM_CONFIG_FD);
    if (core.config->mode != SM_MODE_OFF) {
        record_start(&core, &r);
        if (!sm_audit_append(core.audit, &r) || !sm_audit_commit(core.audit)) {
            sm_error_set(&error, SM_ERROR_SYSTEM, "the audit log cannot be written: %s", sm_audit_failure(core.audit));
            return fail(error);
        }
    }
    if (sm_fd_set_nonblock(SM_CHANNEL_FD) < 0 || sm_fd_set_nonblock(SM_LINK_FD) < 0)
        return fail(NULL);
    core.channel = sm_channel_new(core.loop, SM_CHANNEL_FD, true, &ops, &core);
    sm_watch_init(&core.link, SM_LINK_FD, on_link);
    sm_timer_init(&core.stop_timer, on_stop_timer);
    sm_timer_init(&core.second, sm_core_every_second);
    sm_timer_init(&core.lines, sm_core_lines_due);
    sm_loop_arm(core.loop, &core.second, sm_loop_now(core.loop) + 1000000);
    sm_loop_set_turn_end(core.loop, sm_core_turn_end, &core);
    if (sm_loop_watch(core.loop, &core.link, EPOLLIN) < 0)
        return fail(NULL);
    sm_core_vsock_new(&core, ready);
    int status = sm_loop_run(core.loop);

    sm_channel_free(core.channel); /* the front sees the end of the channel and ends too */
    sm_core_vsock_free(&core);
    sm_creds_free(core.creds);
    sm_fetch_free_all(&core);
    sm_limits_free(&core);
    sm_udp_free(&core);
    sm_pki_free(&core);
    sm_dnsserve_free(core.dns);
    sm_resolver_free(core.resolver);
    sm_audit_repeats_free(core.repeats);
    sm_audit_writer_free(core.audit);
    sm_pins_free(core.pins);
    g_clear_pointer(&core.replies, g_byte_array_unref);
    sm_loop_unwatch(core.loop, &core.netlink);
    g_hash_table_destroy(core.sessions);
    g_free(core.stop_reason);
    sm_core_config_free(core.config);
    sm_loop_free(core.loop);
    return status < 0 ? 1 : status;
}
