/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request to a host that has a credential: which one, whether the guest's placeholder may pass, and the wait until the credential is there.
 *
 * A credential is for the name that upstream's certificate was verified for, inside TLS, and for nothing else. A placeholder stands for it:
 * where it goes to another host (or in cleartext) the guest is mistaken or misled, and the request is refused.
 *
 *   requests.c: judged ─► sm_inject_judge() ─► sm_inject() ─┬─ there: sm_request_pass() with it
 *                                                            ├─ waits (creds.h), the request is held by the bridge
 *                                                            └─ cannot be had: sm_request_fail(), 502
 *
 * Upstream's 401 to a token (http/bridge.h, ops->rejected) is told to creds.h; if another one will come, the request goes the same way from
 * sm_inject() on, once.
 */
#include <string.h>
#include <strings.h>

#include "core/creds.h"
#include "core/mediate.h"
#include "cred/text.h"

/** A request that waits; what is needed of it is kept here, for the callback's texts are the bridge's. */
struct waiting {
    struct sm_creds_waiter waiter;
    struct sm_mediation *m;
    const struct sm_swap *swap;
    struct sm_bridge_request r;
    char *texts[6];
    char *value; /* the guest's own header with the placeholder in it; NULL: none */
    GList link;  /* in m->credentials */
};

static bool has_placeholder(const struct sm_swap *swap, struct sm_text t)
{
    return swap->placeholder && t.ptr && memmem(t.ptr, t.len, swap->placeholder, strlen(swap->placeholder));
}

static bool is_word(struct sm_text t, const char *word)
{
    return t.len == strlen(word) && strncasecmp(t.ptr, word, t.len) == 0;
}

/* Somewhere in the head stands what is another host's. One text may hold both. */
static bool has_placeholder_of_other(const struct sm_creds *creds, const struct sm_bridge_request *r,
                                     const struct sm_swap *swap)
{
    const struct sm_text parts[] = {r->path, r->query, r->authority};
    struct sm_text name, value;
    size_t at = 0;

    for (size_t i = 0; i < SM_ARRAY_LEN(parts); i++)
        if (parts[i].ptr && sm_creds_placeholder_of_other(creds, swap, parts[i].ptr, parts[i].len))
            return true;
    while (sm_bridge_request_field(r, &at, &name, &value))
        if (sm_creds_placeholder_of_other(creds, swap, value.ptr, value.len))
            return true;
    return false;
}

const char *sm_inject_judge(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap)
{
    const struct sm_creds *creds = m->s->core->creds;

    if (sm_creds_has_placeholders(creds) && has_placeholder_of_other(creds, r, swap))
        return "placeholder_elsewhere";
    if (!swap)
        return NULL;
    /* RFC 9110 9.3.8: a server says back what it got. In any case, and with its other name, for servers that are not strict. */
    if (sm_rule_echoes(r->method.ptr, r->method.len))
        return "trace_with_credential";
    /* In absolute form (HTTP/1): a server that is a proxy too would send the request on in cleartext. */
    if (r->scheme.ptr && !is_word(r->scheme, "https"))
        return "cleartext_with_credential";
    return NULL;
}

/* The guest's header with the credential wherever the placeholder stands. NULL: it does not fit. */
static struct sm_secret *replace(const struct sm_swap *swap, const struct sm_credential *c, const char *value)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_BRIDGE_VALUE_MAX);
    size_t len, skip = strlen(swap->placeholder);
    const uint8_t *secret = sm_secret_bytes(c->secret, &len);

    for (const char *found; (found = strstr(value, swap->placeholder)); value = found + skip) {
        sm_cred_text_add(&t, value, (size_t)(found - value));
        sm_cred_text_add(&t, secret, len);
    }
    sm_cred_text_str(&t, value);
    return sm_cred_text_secret(&t);
}

static char *placeholder_value(const struct sm_swap *swap, const struct sm_bridge_request *r)
{
    struct sm_text v;

    for (size_t i = 0; swap->placeholder && (v = sm_bridge_request_value(r, swap->header, i)).ptr; i++)
        if (has_placeholder(swap, v))
            return g_strndup(v.ptr, v.len);
    return NULL;
}

static void waiting_free(struct waiting *w)
{
    sm_creds_wait_cancel(&w->waiter);
    if (w->link.data)
        g_queue_unlink(&w->m->credentials, &w->link);
    for (size_t i = 0; i < SM_ARRAY_LEN(w->texts); i++)
        g_free(w->texts[i]);
    g_free(w->value);
    g_free(w);
}

/* What the callback lent. */
static void keep_texts(struct waiting *w, const struct sm_bridge_request *r)
{
    struct sm_text *kept[] = {&w->r.method, &w->r.scheme, &w->r.authority, &w->r.host, &w->r.path, &w->r.query};

    w->r = *r;
    w->r.next_field = NULL;
    w->r.head = NULL;
    for (size_t i = 0; i < SM_ARRAY_LEN(kept); i++) {
        if (!kept[i]->ptr)
            continue;
        w->texts[i] = g_strndup(kept[i]->ptr, kept[i]->len);
        kept[i]->ptr = w->texts[i];
    }
}

/* True: it is answered, one way or the other. */
static bool try_now(struct waiting *w, const struct sm_bridge_request *r)
{
    struct sm_credential *c = NULL;
    enum sm_cred_reason reason = SM_CRED_REF_UNREADABLE;

    switch (sm_creds_ask(w->m->s->core->creds, w->swap, &w->waiter, &c, &reason)) {
    case SM_CREDS_WAIT:
        return false;
    case SM_CREDS_HAVE: {
        struct sm_secret *value = w->value ? replace(w->swap, c, w->value) : NULL;
        if (!w->value || value) {
            sm_request_pass(w->m, r, w->swap, c, value);
            return true;
        }
        sm_credential_unref(c);
        reason = SM_CRED_VALUE_TOO_LARGE;
        break;
    }
    case SM_CREDS_FAIL:
        break;
    }
    sm_request_fail(w->m, r, w->swap, reason);
    return true;
}

static void again(struct sm_creds_waiter *waiter)
{
    struct waiting *w = sm_container_of(waiter, struct waiting, waiter);

    if (try_now(w, &w->r))
        waiting_free(w);
}

void sm_inject(struct sm_mediation *m, const struct sm_bridge_request *r, const struct sm_swap *swap)
{
    struct waiting *w = g_new0(struct waiting, 1);

    w->m = m;
    w->swap = swap;
    w->waiter.again = again;
    w->value = placeholder_value(swap, r);
    if (try_now(w, r)) {
        waiting_free(w);
        return;
    }
    keep_texts(w, r);
    w->link.data = w;
    g_queue_push_tail_link(&m->credentials, &w->link);
}

void sm_inject_forget(struct sm_mediation *m, uint64_t req)
{
    for (GList *link = m->credentials.head; link; link = link->next) {
        struct waiting *w = link->data;
        if (w->r.req == req) {
            waiting_free(w);
            return;
        }
    }
}

void sm_inject_clear(struct sm_mediation *m)
{
    while (m->credentials.head)
        waiting_free(m->credentials.head->data);
}
