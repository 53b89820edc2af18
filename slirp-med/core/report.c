/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The answer to STATUS: counts, the health of the record, caps, and the flows that live now. It is shown to the operator and decides nothing.
 *
 * Of the flows the youngest SM_REPORT_FLOWS_MAX are told, fewer where their names are long: all must fit into one message of the link
 * (SM_LINK_MAX), beside the rest. A guest chooses how many flows there are and how long their names, and must not be able to silence the report.
 */
#include "core/core.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/link.h"
#include "core/limits.h"
#include "core/vsock.h"

#define SM_REPORT_FLOWS_MAX 100
/** Of the message, for flows; */
#define FLOWS_ROOM (SM_LINK_MAX * 5 / 8)
/** ... and what one of them takes beside its name: thirteen keys with the longest addresses and numbers. */
#define FLOW_SIZE 420

static const char *host_of(const struct sm_session *s)
{
    if (s->inbound)
        return NULL;
    if (s->verdict.host[0])
        return s->verdict.host;
    return s->asserted.kind == SM_NAME_HOST ? s->asserted.name : NULL;
}

static json_t *flow_json(struct sm_session *s, const char *host, int64_t now)
{
    char src[SM_ENDPOINT_STRLEN], dst[SM_ENDPOINT_STRLEN];

    if (!s->inbound)
        sm_tcp_count(s);
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s?, s:s, s:s, s:b, s:b, s:I, s:I, s:I}", "flow",
                     (json_int_t)(s->id & ~SM_FLOW_ID_CORE), "proto", sm_proto_name(s->proto), "state",
                     sm_session_state_name(s->state), "src", sm_endpoint_format(&s->src, src), "dst",
                     sm_endpoint_format(&s->dst, dst), "host", host, "name_source",
                     sm_name_source_name(s->verdict.name_source), "classified", s->classified ? s->classified : "",
                     "mitm", (int)s->mitm, "inbound", (int)s->inbound, "age_ms",
                     (json_int_t)((now - s->opened_us) / 1000), "bytes_up", (json_int_t)s->bytes_up, "bytes_down",
                     (json_int_t)s->bytes_down);
}

static json_t *flows_json(struct sm_core *core)
{
    int64_t now = sm_loop_now(core->loop);
    json_t *flows = json_array();
    size_t room = FLOWS_ROOM;
    unsigned told = 0;

    for (GList *l = core->by_age.tail; l && told < SM_REPORT_FLOWS_MAX; l = l->prev, told++) {
        struct sm_session *s = l->data;
        const char *host = host_of(s);
        size_t size = FLOW_SIZE + (host ? strlen(host) : 0);
        if (size > room)
            break;
        room -= size;
        (void)json_array_append_new(flows, flow_json(s, host, now));
    }
    return flows;
}

static json_t *audit_json(const struct sm_core *core)
{
    return json_pack("{s:b, s:s?, s:I, s:I, s:I}", "healthy", (int)sm_audit_healthy(core->audit), "failure",
                     sm_audit_failure(core->audit), "next_seq", (json_int_t)sm_audit_next_seq(core->audit), "pending",
                     (json_int_t)sm_audit_pending(core->audit), "lost", (json_int_t)sm_audit_lost(core->audit));
}

char *sm_core_report(struct sm_core *core)
{
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:I}", "role", "core", "flows",
                          (json_int_t)g_hash_table_size(core->sessions), "opened", (json_int_t)core->n_opened,
                          "allowed", (json_int_t)core->n_allowed, "denied", (json_int_t)core->n_denied, "pins",
                          (json_int_t)sm_pins_count(core->pins), "audit_healthy", (int)sm_audit_healthy(core->audit),
                          "channel_dropped", (json_int_t)sm_channel_dropped(core->channel));
    (void)json_object_set_new(
        j, "ingress",
        json_pack("{s:I, s:I}", "now", (json_int_t)sm_ingress_count(core), "accepted", (json_int_t)core->n_ingress));
    (void)json_object_set_new(j, "udp_lost",
                              json_pack("{s:I, s:I}", sm_caps_dir_name(SM_CAPS_UP),
                                        (json_int_t)core->udp_lost[SM_CAPS_UP], sm_caps_dir_name(SM_CAPS_DOWN),
                                        (json_int_t)core->udp_lost[SM_CAPS_DOWN]));
    json_t *caps = sm_limits_report(core);
    if (caps)
        (void)json_object_set_new(j, "caps", caps);
    sm_core_vsock_report(core, j);
    (void)json_object_set_new(j, "audit", audit_json(core));
    (void)json_object_set_new(j, "live", flows_json(core));
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(j);
    return text;
}
