/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New lists while the workspace runs: POLICY of the supervisor (base/link.h), whose descriptor holds what config.h says of lists.
 *
 *   decode ─► egress_policy, written at once ─► the lists change ─► flows that they do not allow end ─► RELEASE ─► POLICY
 *
 * All or nothing: lists that do not decode, or whose line cannot be written, change nothing and are answered with the reason. What the record has
 * behind egress_policy was judged by the new lists; that is why its line does not wait for the end of the turn.
 *
 * Every flow is asked about again (sm_session_rejudge()) as a new one would be at the stage that it has reached. Pins stay: they say which name
 * stood behind an address, and what that is worth the lists say each time. So do answers to DNS queries that are on their way: the pin that one
 * makes is worth nothing where its name is not listed any more.
 */
#include "base/error.h"
#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/core.h"

static void sweep(struct sm_core *core)
{
    g_autoptr(GArray) ids = g_array_sized_new(FALSE, FALSE, sizeof(uint64_t), g_hash_table_size(core->sessions));
    GHashTableIter it;
    void *key;

    sm_core_run_ends(core);
    g_hash_table_iter_init(&it, core->sessions);
    while (g_hash_table_iter_next(&it, &key, NULL))
        g_array_append_val(ids, *(const uint64_t *)key);
    for (guint i = 0; i < ids->len; i++) {
        struct sm_session *s = g_hash_table_lookup(core->sessions, &g_array_index(ids, uint64_t, i));
        if (s)
            sm_session_rejudge(s);
        sm_core_make_room(core);
    }
}

static bool record(struct sm_core *core, const struct sm_lists *lists)
{
    struct sm_audit_record r;

    sm_audit_begin(&r, SM_AUDIT_EGRESS_POLICY, sm_clock_wall_us());
    sm_audit_add_uint(&r, "allow", sm_lists_count(lists, SM_LIST_ALLOW));
    sm_audit_add_uint(&r, "passthrough", sm_lists_count(lists, SM_LIST_PASSTHROUGH));
    sm_audit_add_uint(&r, "deny", sm_lists_count(lists, SM_LIST_DENY));
    sm_audit_add_str(&r, "reason", "reload");
    return sm_core_record(core, &r) && sm_core_commit_now(core);
}

static bool change(struct sm_core *core, int fd, GError **error)
{
    struct sm_flow_msg release = {.type = SM_FLOW_RELEASE};
    size_t len;

    if (core->config->mode == SM_MODE_OFF) {
        sm_error_set(error, SM_ERROR_INVALID, "nothing is judged with --egress off");
        return false;
    }
    g_autofree char *text = sm_fd_read_all(fd, SM_CORE_CONFIG_MAX, &len, error);
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = text ? sm_core_config_lists(text, len, error) : NULL;
    if (!lists)
        return false;
    if (!sm_audit_healthy(core->audit) || !record(core, lists)) {
        const char *why = sm_audit_failure(core->audit);
        sm_error_set(error, SM_ERROR_SYSTEM, "the change cannot be recorded: %s",
                     why ? why : "too much waits for the log");
        return false;
    }
    struct sm_lists *old = core->config->lists;
    core->config->lists = sm_steal_ptr(&lists);
    lists = old; /* freed when all have been asked again */
    sweep(core);
    core->hold_until_us = 0;
    (void)sm_channel_send(core->channel, &release, -1);
    return true;
}

void sm_reload_take(struct sm_core *core, int fd)
{
    g_autoptr(GError) error = NULL;

    (void)change(core, fd, &error);
    if (sm_link_send(core->link.fd, SM_LINK_POLICY, error ? error->message : NULL, -1) < 0)
        sm_log_error("the supervisor is not told what became of the policy");
}
