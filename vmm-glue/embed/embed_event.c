/* SPDX-License-Identifier: BSD-3-Clause */
/* An audit line as a struct. The line is data: a key that is missing or of another type leaves its member empty. */
#include "embed/embed.h"

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static int64_t number(const json_t *o, const char *key, int64_t otherwise)
{
    const json_t *value = json_object_get(o, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static uint64_t count(const json_t *o, const char *key)
{
    int64_t value = number(o, key, 0);
    return value > 0 ? (uint64_t)value : 0;
}

void sm_embed_event_of(struct slirp_med_event *event, const struct sm_audit_line *line)
{
    const json_t *o = line->json;
    int64_t port = number(o, "port", 0);

    *event = (struct slirp_med_event){
        .type = SLIRP_MED_RECORD,
        .seq = line->seq,
        .ts = text(o, "ts"),
        .name = line->event,
        .flow = count(o, "flow"),
        .src = text(o, "src"),
        .dst = text(o, "dst"),
        .port = port > 0 && port <= UINT16_MAX ? (unsigned)port : 0,
        .host = text(o, "host"),
        .name_source = text(o, "name_source"),
        .rule = text(o, "rule"),
        .reason = text(o, "reason"),
        .unlisted = json_is_true(json_object_get(o, "unlisted")),
        .internal = json_is_true(json_object_get(o, "internal")),
        .mitm = json_is_true(json_object_get(o, "mitm")),
        .bytes_up = number(o, "bytes_up", -1),
        .bytes_down = number(o, "bytes_down", -1),
        .duration_ms = number(o, "duration_ms", -1),
        .count = count(o, "count"),
        .method = text(o, "method"),
        .path = text(o, "path"),
        .http_status = number(o, "status", -1),
        .json = line->text,
        .status = -1,
    };
}
