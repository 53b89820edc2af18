/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The judge of HTTP requests (the rule itself is rules.h's) and the lines that they leave.
 *
 * egress_http_request is written when a request may pass, before a byte of it goes upstream; a refused one leaves a denial and no request line.
 * A request that is sent again, because upstream said 401 to its token, has one request line and one response line, with the last status, and an
 * egress_swap line each time, the second with "replay": true.
 */
#include <string.h>

#include "base/log.h"
#include "core/mediate.h"
#include "http/page.h"

static struct sm_text text_of(const char *s)
{
    return (struct sm_text){s, strlen(s)};
}

static bool host_of(const struct sm_bridge_request *r, struct sm_host *ret)
{
    if (r->host_kind == SM_HTTP_HOST_V6) {
        char bracketed[64];
        int n = g_snprintf(bracketed, sizeof(bracketed), "[%.*s]", (int)SM_MIN(r->host.len, (size_t)48), r->host.ptr);
        return sm_host_parse(bracketed, (size_t)n, ret) != SM_NAME_BAD;
    }
    return sm_name_classify(r->host.ptr, r->host.len, ret) != SM_NAME_BAD;
}

static void ask_host(void *data, const struct sm_host *host, struct sm_verdict *ret)
{
    sm_session_ask_host(data, host, ret);
}

/* NULL: it may pass. *ret_host: whom it is for, BAD when it does not say. */
static const char *judge(struct sm_session *s, const struct sm_bridge_request *r, uint16_t *ret_status,
                         struct sm_host *ret_host)
{
    *ret_status = 421;
    *ret_host = (struct sm_host){0};
    if (!r->authority.ptr)
        return NULL; /* HTTP/1.0 without Host: it goes where the connection goes */
    if (!host_of(r, ret_host)) {
        *ret_status = 400;
        return "bad_name";
    }
    struct sm_rule_connection c = {.asserted = &s->asserted,
                                   .dst = s->dst,
                                   .tls = s->mediation->tls,
                                   .verified = s->verdict.host,
                                   .ask = ask_host,
                                   .data = s};
    return sm_rule_request(&c, ret_host, r->port, ret_status);
}

/* Has the host that the connection is with a credential? */
static bool has_credential(const struct sm_session *s)
{
    const char *name = s->asserted.kind == SM_NAME_HOST ? s->asserted.name : s->verdict.host;

    return name[0] && sm_creds_match(s->core->creds, name);
}

static void add_request(struct sm_audit_record *line, const struct sm_session *s, const struct sm_bridge_request *r)
{
    sm_audit_add_uint(line, "req", r->req);
    sm_audit_add_guest(line, "method", r->method.ptr, r->method.len);
    sm_audit_add_guest(line, "authority", r->authority.ptr, r->authority.len);
    sm_audit_add_guest(line, "path", r->path.ptr, r->path.len);
    if (s->core->config->log_query)
        sm_audit_add_guest(line, "query", r->query.ptr, r->query.len);
    sm_audit_add_str(line, "protocol", r->protocol);
}

static void open_clear(void *p)
{
    sm_credential_unref(((struct sm_mediate_open *)p)->credential);
}

static struct sm_mediate_open *open_of(struct sm_mediation *m, uint64_t req)
{
    for (guint i = 0; i < m->open->len; i++) {
        struct sm_mediate_open *o = &g_array_index(m->open, struct sm_mediate_open, i);
        if (o->req == req)
            return o;
    }
    return NULL;
}

/* Its request line was not written: there will be no response line either. */
static void forget_open(struct sm_mediation *m, uint64_t req)
{
    for (guint i = 0; i < m->open->len; i++) {
        if (g_array_index(m->open, struct sm_mediate_open, i).req == req) {
            g_array_remove_index(m->open, i);
            return;
        }
    }
}

static struct sm_bridge_edit edit_of(const struct sm_mediate_answer *a)
{
    struct sm_bridge_edit edit = {.name = a->swap->header, .scrub = a->credential->scrub};
    const uint8_t *value = sm_secret_bytes(a->value ? a->value : a->credential->header, &edit.value_len);

    edit.value = (const char *)value;
    edit.identity = edit.scrub != NULL;
    edit.replay = a->swap->type != SM_SWAP_STATIC && !a->again; /* another token may come, another key will not */
    return edit;
}

static void answer(struct sm_session *s, bool ok)
{
    struct sm_mediation *m = s->mediation;
    g_autoptr(GArray) answers = m->answers;
    char page[SM_HTTP_PAGE_MAX];

    m->answers = NULL;
    for (guint i = 0; i < answers->len; i++) {
        const struct sm_mediate_answer *a = &g_array_index(answers, struct sm_mediate_answer, i);
        struct sm_bridge_answer say = {.pass = ok && a->status == 0, .status = ok ? a->status : 503};
        if (!ok && !a->again)
            forget_open(m, a->req);
        if (!say.pass) {
            struct sm_http_page p = {.status = say.status,
                                     .reason = ok ? a->reason : "not_recorded",
                                     .host = a->host ? text_of(a->host) : (struct sm_text){NULL, 0},
                                     .workspace = s->core->config->workspace};
            say.body = page;
            say.body_len = sm_http_page_body(&p, page, sizeof(page));
            say.keep = ok && a->status == 502; /* the credential's fault, and the next request may get one */
        }
        struct sm_bridge_edit edit;
        if (say.pass && a->swap) {
            edit = edit_of(a);
            say.edit = &edit;
        }
        sm_bridge_answer(m->bridge, a->req, &say);
    }
    sm_mediate_pump(s);
}

static void answer_clear(void *p)
{
    struct sm_mediate_answer *a = p;

    g_free(a->host);
    sm_credential_unref(a->credential);
    sm_secret_free(a->value);
}

static void push_answer(struct sm_mediation *m, struct sm_mediate_answer a)
{
    if (!m->answers) {
        m->answers = g_array_new(FALSE, FALSE, sizeof(a));
        g_array_set_clear_func(m->answers, answer_clear);
    }
    g_array_append_val(m->answers, a);
    if (!m->s->effect)
        sm_core_effect(m->s, answer);
}

static void answer_later(struct sm_mediation *m, const struct sm_bridge_request *r, uint16_t status, const char *reason)
{
    struct sm_mediate_answer a = {
        .req = r->req, .status = status, .reason = reason, .again = open_of(m, r->req) != NULL};

    if (reason && r->host.ptr)
        a.host = g_strndup(r->host.ptr, SM_MIN(r->host.len, (size_t)SM_NAME_MAX));
    push_answer(m, a);
}

/* What a swap's lines say of it; never of the credential. */
static void add_swap(struct sm_audit_record *line, const struct sm_swap *swap)
{
    sm_audit_add_str(line, "name", swap->name);
    sm_audit_add_str(line, "type", sm_swap_type_name(swap->type));
    sm_audit_add_str(line, "header", swap->header);
}

void sm_request_pass(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap,
                     struct sm_credential *credential, struct sm_secret *value)
{
    struct sm_session *s = m->s;
    struct sm_mediate_open *again = open_of(m, r->req);
    struct sm_audit_record line;
    bool recorded = true;

    if (!again) {
        sm_session_line(s, &line, SM_AUDIT_EGRESS_HTTP_REQUEST, NULL);
        add_request(&line, s, r);
        recorded = sm_core_record(s->core, &line);
    }
    if (recorded && swap) {
        sm_audit_begin(&line, SM_AUDIT_EGRESS_SWAP, sm_clock_wall_us());
        sm_audit_add_uint(&line, "flow", s->id);
        sm_audit_add_uint(&line, "req", r->req);
        add_swap(&line, swap);
        if (again)
            sm_audit_add_bool(&line, "replay", true);
        recorded = sm_core_record(s->core, &line);
    }
    if (!recorded) {
        sm_credential_unref(credential);
        sm_secret_free(value);
        answer_later(m, r, 503, "not_recorded");
        return;
    }
    if (again) {
        sm_credential_unref(again->credential);
        again->credential = sm_credential_ref(credential);
    } else {
        struct sm_mediate_open o = {.req = r->req, .began_us = sm_loop_now(s->core->loop), .swap = swap};
        o.credential = credential ? sm_credential_ref(credential) : NULL;
        g_array_append_val(m->open, o);
    }
    push_answer(m, (struct sm_mediate_answer){
                       .req = r->req, .swap = swap, .credential = credential, .value = value, .again = again != NULL});
}

void sm_request_fail(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap,
                     enum sm_cred_reason reason)
{
    struct sm_session *s = m->s;
    struct sm_audit_record line;

    sm_session_line(s, &line, SM_AUDIT_EGRESS_SWAP_ERROR, sm_cred_reason_name(reason));
    add_request(&line, s, r);
    add_swap(&line, swap);
    sm_audit_add_uint(&line, "status", 502);
    if (open_of(m, r->req))
        sm_audit_add_bool(&line, "replay", true);
    sm_core_note(s->core, &line);
    answer_later(m, r, 502, sm_cred_reason_name(reason));
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct sm_mediation *m = ctx;
    struct sm_session *s = m->s;
    struct sm_audit_record line;
    struct sm_host host;
    uint16_t status;
    const char *reason = judge(s, r, &status, &host);
    /* Upstream's certificate was verified for this name. */
    const struct sm_swap *swap =
        !reason && m->tls && host.kind == SM_NAME_HOST ? sm_creds_match(s->core->creds, host.name) : NULL;

    (void)b;
    /* It would go out without the credential, and come back unscrubbed from a host that has it. */
    if (!reason && m->tls && !r->authority.ptr && has_credential(s))
        reason = "authority_mismatch";
    if (!reason && (reason = sm_inject_judge(m, r, swap)))
        status = 403;
    if (!reason && m->open->len + m->credentials.length >= SM_MEDIATE_REQUESTS_MAX) {
        reason = "too_many_requests";
        status = 403;
    }
    if (reason) {
        sm_session_line(s, &line, SM_AUDIT_EGRESS_DENY, reason);
        add_request(&line, s, r);
        sm_audit_add_uint(&line, "status", status);
        sm_session_record_denial(s, &line, reason, r->authority.ptr, r->authority.len);
        answer_later(m, r, status, reason);
        return;
    }
    if (swap)
        sm_inject(m, r, swap);
    else
        sm_request_pass(m, r, NULL, NULL, NULL);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct sm_mediation *m = ctx;
    struct sm_mediate_open *o = open_of(m, r->req);

    (void)b;
    if (!o || !o->swap || o->rejected)
        return false;
    o->rejected = true;
    if (!sm_creds_rejected(m->s->core->creds, o->swap, o->credential))
        return false;
    sm_inject(m, r, o->swap);
    return true;
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    struct sm_mediation *m = ctx;
    struct sm_session *s = m->s;
    struct sm_audit_record line;

    sm_inject_forget(m, r->req);
    for (guint i = 0; i < m->open->len; i++) {
        const struct sm_mediate_open *o = &g_array_index(m->open, struct sm_mediate_open, i);
        if (o->req != r->req)
            continue;
        sm_audit_begin(&line, SM_AUDIT_EGRESS_HTTP_RESPONSE, sm_clock_wall_us());
        sm_audit_add_uint(&line, "flow", s->id);
        sm_audit_add_uint(&line, "req", r->req);
        sm_audit_add_uint(&line, "status", r->status);
        sm_audit_add_uint(&line, "bytes_up", r->bytes_up);
        sm_audit_add_uint(&line, "bytes_down", r->bytes_down);
        sm_audit_add_int(&line, "ms", (sm_loop_now(s->core->loop) - o->began_us) / 1000);
        sm_audit_add_str(&line, "outcome", sm_bridge_outcome_name(r->outcome));
        if (r->scrubbed)
            sm_audit_add_uint(&line, "scrubbed", r->scrubbed);
        if (r->unscrubbed)
            sm_audit_add_bool(&line, "unscrubbed", true);
        sm_core_note(s->core, &line);
        if (o->swap && r->status == 401 && !o->rejected)
            (void)sm_creds_rejected(s->core->creds, o->swap, o->credential);
        g_array_remove_index(m->open, i);
        return;
    }
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    struct sm_mediation *m = ctx;
    struct sm_session *s = m->s;
    struct sm_audit_record line;
    enum sm_audit_event event = by == SM_BRIDGE_GUEST ? SM_AUDIT_EGRESS_DENY : SM_AUDIT_EGRESS_MITM_UPSTREAM_ERROR;

    m->why = reason;
    sm_session_line(s, &line, event, reason);
    if (req)
        sm_audit_add_uint(&line, "req", req);
    if (by == SM_BRIDGE_GUEST)
        sm_session_record_denial(s, &line, reason, NULL, 0);
    else
        sm_core_note(s->core, &line);
}

static size_t make_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    struct sm_mediation *m = ctx;
    struct sm_session *s = m->s;
    struct sm_http_page p = {.status = status, .reason = reason, .workspace = s->core->config->workspace};

    if (s->asserted.kind == SM_NAME_HOST)
        p.host = text_of(s->asserted.name);
    return sm_http_page_body(&p, out, cap);
}

const struct sm_bridge_ops sm_request_ops = {
    .request = on_request,
    .response = on_response,
    .broken = on_broken,
    .page = make_page,
    .rejected = on_rejected,
};

void sm_requests_init(struct sm_mediation *m)
{
    m->open = g_array_new(FALSE, FALSE, sizeof(struct sm_mediate_open));
    g_array_set_clear_func(m->open, open_clear);
    g_queue_init(&m->credentials);
}

/* What the bridge had not told yet when the flow ended has been told by its end, or is lost with it. */
void sm_requests_clear(struct sm_mediation *m)
{
    sm_inject_clear(m);
    g_clear_pointer(&m->answers, g_array_unref);
    g_clear_pointer(&m->open, g_array_unref);
}
