/* SPDX-License-Identifier: BSD-3-Clause */
#include "harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "core/limits.h"
#include "core/vsock.h"

void harness_start(struct sm_core *core, const char *dir, const struct harness_options *o, int *ret_audit_fd,
                   int *ret_front)
{
    struct sm_audit_options options = {.workspace = "test"};
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(dir, "egress.jsonl", NULL);
    g_autofree char *config = g_strdup_printf(
        "{\"workspace\":\"test\",\"mode\":\"%s\",\"opaque\":false,\"log_query\":false,\"extra_roots\":\"\","
        "\"allow\":[%s],\"passthrough\":[],\"deny\":[%s],\"swaps\":{\"refs\":[],\"entries\":{}},\"inside\":[],\"dns\":["
        "\"127.0.0.1:%u\"],"
        "\"resolv_conf\":\"\",\"dns_qps\":%u,\"network\":{\"guest\":\"10.0.2.15\",\"prefix_len\":24,"
        "\"gateway\":\"10.0.2.2\",\"resolver\":\"10.0.2.3\"},"
        "\"audit\":{\"sync\":false,\"max_bytes\":0,\"seq_floor\":0},"
        "\"caps\":{\"max_bps\":%" PRIu64 ",\"max_total_bytes\":%" PRIu64 ",\"max_conns\":%" PRIu64
        ",\"counters\":{\"seq\":0,\"bytes_up\":0,\"bytes_down\":0}}%s%s%s%s}",
        o->mode, o->allow ? o->allow : "", o->deny ? o->deny : "", o->dns_port, o->dns_qps, o->caps.bps, o->caps.total,
        o->caps.conns, o->vsock ? ",\"vsock\":" : "", o->vsock ? o->vsock : "", o->proxy ? ",\"proxy\":" : "",
        o->proxy ? o->proxy : "");
    int pair[2];

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    core->config = sm_core_config_load(config, strlen(config), &error);
    if (!core->config)
        fail_msg("%s", error->message);
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    *ret_audit_fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && *ret_audit_fd >= 0);
    core->audit = sm_audit_writer_new(fd, &options, sm_clock_wall_us(), &error);
    assert_non_null(core->audit);
    core->loop = sm_loop_new(NULL);
    core->repeats = sm_audit_repeats_new();
    core->pins = sm_pins_new(o->pins);
    core->sessions = g_hash_table_new(g_int64_hash, g_int64_equal);
    core->sessions_max = o->sessions;
    core->fd_max = INT_MAX;
    assert_true(sm_limits_init(core, -1, &error));
    assert_true(sm_names_init(core, &error));
    assert_int_equal(sm_fd_seqpair(pair, true), 0);
    core->channel = sm_channel_new(core->loop, pair[0], true, o->ops, core);
    *ret_front = pair[1];
    sm_timer_init(&core->second, sm_core_every_second);
    sm_timer_init(&core->lines, sm_core_lines_due);
    sm_watch_init(&core->link, -1, NULL);
    sm_watch_init(&core->ghost, -1, sm_tcp_ghost);
    sm_loop_set_turn_end(core->loop, sm_core_turn_end, core);
}

void harness_end(struct sm_core *core)
{
    assert_int_equal(g_hash_table_size(core->sessions), 0);
    sm_core_vsock_free(core);
    sm_limits_free(core);
    sm_udp_free(core);
    sm_channel_free(core->channel);
    sm_pki_free(core);
    sm_dnsserve_free(core->dns);
    sm_resolver_free(core->resolver);
    sm_audit_repeats_free(core->repeats);
    sm_audit_writer_free(core->audit);
    sm_pins_free(core->pins);
    g_hash_table_destroy(core->sessions);
    sm_core_config_free(core->config);
    sm_loop_disarm(core->loop, &core->second);
    sm_loop_free(core->loop);
    g_clear_pointer(&core->replies, g_byte_array_unref);
}

void harness_disk(bool full)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = full ? 0 : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}
