/* SPDX-License-Identifier: BSD-3-Clause */
/* References, tokens and who waits for them; see creds.h. */
#include "core/creds.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/link.h"
#include "base/log.h"
#include "core/fetch.h"
#include "cred/cache.h"
#include "cred/jwt.h"
#include "cred/token.h"
#include "cred/value.h"
#include "cred/vault.h"

/* One distinct reference of the set, or VAULT_TOKEN. */
struct reference {
    struct sm_creds *creds;
    const struct sm_ref *ref; /* NULL: VAULT_TOKEN, which is a variable */
    unsigned index;
    struct sm_secret *secret; /* cleaned; NULL: not known, or it failed */
    uint64_t version;         /* rises when the secret changes */
    enum sm_cred_reason reason;
    bool known; /* secret, or the reason why not, as of at_us */
    bool asked;
    int64_t at_us;
    struct sm_cred_cache cache; /* vault */
    struct sm_fetch *fetch;
    bool wants_fetch; /* the cache waits for a fetch that has not begun: VAULT_TOKEN is not there yet */
};

struct entry {
    struct sm_creds *creds;
    const struct sm_swap *swap;
    struct sm_credential *credential; /* the last one made */
    uint64_t version;                 /* static: of the reference that it was made of */
    struct sm_cred_cache cache;       /* tokens */
    struct sm_fetch *fetch;
    bool wants_fetch; /* the cache waits for a token whose fetch has not begun: a reference is not there yet */
    struct sm_jwt_key *key;
    uint64_t key_version;
    GQueue waiters; /* of struct sm_creds_waiter */
};

struct sm_creds {
    struct sm_core *core;
    struct reference *refs; /* those of the set, then VAULT_TOKEN */
    size_t n_refs;
    struct entry *entries;
    size_t n_entries;
    bool placeholders;    /* one entry at least has one */
    struct sm_timer wake; /* something that was waited for is there */
};

/** What a look at a reference gives. */
enum have { HAVE_NOT = 0 /* and will not: reason */, HAVE, HAVE_LATER };

static void on_wake(struct sm_timer *timer, int64_t now_us);
static void begin_token(struct entry *e);
static void begin_vault(struct reference *r);

struct sm_credential *sm_credential_ref(struct sm_credential *c)
{
    c->refs++;
    return c;
}

void sm_credential_unref(struct sm_credential *c)
{
    if (!c || --c->refs > 0)
        return;
    sm_secret_free(c->secret);
    sm_secret_free(c->header);
    sm_scrub_unref(c->scrub);
    g_free(c);
}

static struct sm_secret *copy_secret(const struct sm_secret *s)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(s, &len);
    uint8_t *bytes = g_memdup2(p, len);
    struct sm_secret *copy = sm_secret_new(bytes, len); /* wipes its source */

    g_free(bytes);
    return copy;
}

static int64_t now(const struct sm_creds *creds)
{
    return sm_loop_now(creds->core->loop);
}

/* Never from inside a question: whoever asks has not yet begun to wait. */
static void wake_later(struct sm_creds *creds)
{
    if (!sm_timer_armed(&creds->wake))
        sm_loop_arm(creds->core->loop, &creds->wake, now(creds));
}

/* ---- references ---- */

static bool is_vault(const struct reference *r)
{
    return r->ref && r->ref->kind == SM_REF_VAULT;
}

static bool is_current(const struct reference *r)
{
    if (!r->known)
        return false;
    if (!r->secret)
        return now(r->creds) - r->at_us < SM_CREDS_RETRY_US;
    bool file = r->ref && r->ref->kind == SM_REF_FILE;
    return !file || now(r->creds) - r->at_us < SM_CREDS_FILE_US;
}

static enum have look_vault(struct reference *r, const struct sm_secret **ret, uint64_t *ret_version,
                            enum sm_cred_reason *ret_reason)
{
    struct sm_cred_answer a = sm_cred_cache_ask(&r->cache, now(r->creds));

    switch (a.verdict) {
    case SM_CRED_REFRESH:
    case SM_CRED_FETCH:
        r->wants_fetch = true;
        begin_vault(r);
        if (a.verdict == SM_CRED_FETCH)
            return HAVE_LATER;
        a = sm_cred_cache_ask(&r->cache,
                              now(r->creds)); /* what was borrowed may have gone with a fetch that failed at once */
        if (!a.value)
            return HAVE_LATER;
        *ret = a.value;
        *ret_version = a.generation;
        return HAVE;
    case SM_CRED_USE:
        *ret = a.value;
        *ret_version = a.generation;
        return HAVE;
    case SM_CRED_WAIT:
        return HAVE_LATER;
    case SM_CRED_FAIL:
    case SM_CRED_VERDICTS:
        break;
    }
    *ret_reason = a.reason;
    return HAVE_NOT;
}

/* *ret is borrowed until the loop's next turn. */
static enum have look(struct reference *r, const struct sm_secret **ret, uint64_t *ret_version,
                      enum sm_cred_reason *ret_reason)
{
    char text[32];

    if (is_vault(r))
        return look_vault(r, ret, ret_version, ret_reason);
    if (!is_current(r)) {
        (void)g_snprintf(text, sizeof(text), "ref:%u", r->index);
        if (!r->asked && sm_link_send(r->creds->core->link.fd, SM_LINK_WANT, text, -1) < 0) {
            *ret_reason = SM_CRED_REF_UNREADABLE;
            return HAVE_NOT;
        }
        r->asked = true;
        return HAVE_LATER;
    }
    if (!r->secret) {
        *ret_reason = r->reason;
        return HAVE_NOT;
    }
    *ret = r->secret;
    *ret_version = r->version;
    return HAVE;
}

static struct reference *reference_of(struct sm_creds *creds, const struct sm_ref *ref)
{
    return &creds->refs[sm_swaps_ref_index(creds->core->config->swaps, ref)];
}

/* What a descriptor holds, cleaned. */
static enum sm_cred_reason read_secret(int fd, struct sm_secret **ret)
{
    size_t len;
    char *text = sm_fd_read_all(fd, SM_CRED_SECRET_MAX + 2, &len, NULL);
    struct sm_secret *raw;

    if (!text)
        return SM_CRED_REF_UNREADABLE;
    raw = sm_secret_new(text, len);
    g_free(text);
    enum sm_cred_reason reason = sm_cred_value_clean(raw, ret);
    sm_secret_free(raw);
    return reason;
}

static bool same_secret(const struct sm_secret *a, const struct sm_secret *b)
{
    size_t a_len, b_len;
    const uint8_t *p = sm_secret_bytes(a, &a_len), *q = sm_secret_bytes(b, &b_len);

    return a_len == b_len && memcmp(p, q, a_len) == 0;
}

void sm_creds_news(struct sm_creds *creds, const char *text, int fd)
{
    g_auto(GStrv) words = g_strsplit(text, " ", 2);
    guint64 index;

    if (!creds || !words[0] || !g_ascii_string_to_unsigned(words[0], 10, 0, UINT_MAX, &index, NULL) ||
        index >= creds->n_refs || !creds->refs[index].asked)
        return;
    struct reference *r = &creds->refs[index];
    struct sm_secret *secret = NULL;
    enum sm_cred_reason reason =
        fd >= 0 ? read_secret(fd, &secret) : sm_cred_reason_parse(words[1] ? words[1] : "", SM_CRED_REF_UNREADABLE);
    r->asked = false;
    r->known = true;
    r->at_us = now(creds);
    r->reason = reason;
    if (secret && r->secret && same_secret(secret, r->secret)) {
        sm_secret_free(secret);
    } else {
        sm_secret_free(r->secret);
        r->secret = secret;
        r->version++;
    }
    wake_later(creds);
}

/* ---- Vault ---- */

static void on_vault(void *data, enum sm_cred_reason reason, const struct sm_cred_response *response)
{
    struct reference *r = data;
    struct sm_vault_value value = {0};
    struct sm_secret *clean = NULL;

    r->fetch = NULL;
    if (reason == SM_CRED_OK)
        reason = sm_vault_read(response, r->ref->field, &value);
    if (reason == SM_CRED_OK)
        reason = sm_cred_value_clean(value.secret, &clean);
    sm_secret_free(value.secret);
    if (reason == SM_CRED_OK)
        sm_cred_cache_fetched(&r->cache, now(r->creds), clean, value.ttl_s);
    else
        sm_cred_cache_failed(&r->cache, now(r->creds), reason);
    wake_later(r->creds);
}

/* The cache waits for a fetch: begin it as soon as VAULT_TOKEN is there. */
static void begin_vault(struct reference *r)
{
    struct sm_creds *creds = r->creds;
    const struct sm_core_config *config = creds->core->config;
    struct sm_cred_request request = {0};
    const struct sm_secret *token = NULL;
    uint64_t version;
    enum sm_cred_reason reason = SM_CRED_FETCH_BUSY;

    switch (look(&creds->refs[creds->n_refs - 1], &token, &version, &reason)) {
    case HAVE_LATER:
        return;
    case HAVE: {
        struct sm_vault_server server = {
            .addr = config->vault_addr, .token = token, .namespace_ = config->vault_namespace};
        if (!config->vault_addr || !sm_vault_request(&server, r->ref->path, &request, NULL))
            reason = SM_CRED_VALUE_INVALID;
        else
            r->fetch = sm_fetch_start(creds->core, "vault", &request, on_vault, r);
        sm_cred_request_clear(&request);
        break;
    }
    case HAVE_NOT:
        break;
    }
    r->wants_fetch = false;
    if (!r->fetch) {
        sm_cred_cache_failed(&r->cache, now(creds), reason);
        wake_later(creds);
    }
}

/* ---- tokens ---- */

static void token_failed(struct entry *e, enum sm_cred_reason reason)
{
    e->wants_fetch = false;
    sm_cred_cache_failed(&e->cache, now(e->creds), reason);
    wake_later(e->creds);
}

static void on_token(void *data, enum sm_cred_reason reason, const struct sm_cred_response *response)
{
    struct entry *e = data;
    struct sm_token token = {0};

    e->fetch = NULL;
    if (reason == SM_CRED_OK)
        reason = sm_token_read(response, e->swap->token_response_field, e->swap->token_ttl_seconds, &token);
    if (reason == SM_CRED_OK) {
        sm_cred_cache_fetched(&e->cache, now(e->creds), token.token, token.ttl_s);
    } else {
        if (token.error_code)
            sm_log_warning("credential %s: the token endpoint says %s", e->swap->name, token.error_code);
        sm_cred_cache_failed(&e->cache, now(e->creds), reason);
    }
    wake_later(e->creds);
}

static void fetch_token(struct entry *e, struct sm_cred_request *request)
{
    e->wants_fetch = false;
    e->fetch = sm_fetch_start(e->creds->core, e->swap->name, request, on_token, e);
    if (!e->fetch)
        token_failed(e, SM_CRED_FETCH_BUSY);
}

static void begin_oauth2(struct entry *e)
{
    const struct sm_swap *swap = e->swap;
    struct sm_token_client client = {
        .token_url = swap->token_url,
        .scopes = (const char *const *)swap->scopes,
        .audience = swap->audience,
        .auth = swap->auth_style == SM_SWAP_AUTH_BASIC ? SM_TOKEN_AUTH_BASIC : SM_TOKEN_AUTH_BODY,
    };
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request request = {0};
    enum sm_cred_reason reason = SM_CRED_OK;
    uint64_t version;

    /* Both at once, so that neither waits for the other. */
    enum have id = look(reference_of(e->creds, swap->client_id_ref), &client.client_id, &version, &reason);
    enum have secret = look(reference_of(e->creds, swap->client_secret_ref), &client.client_secret, &version, &reason);
    if (id == HAVE_NOT || secret == HAVE_NOT)
        token_failed(e, reason);
    else if (id == HAVE && secret == HAVE) {
        if (sm_token_client_request(&client, &request, NULL))
            fetch_token(e, &request);
        else
            token_failed(e, SM_CRED_VALUE_INVALID);
    }
}

static enum sm_jwt_alg alg_of(enum sm_swap_algorithm a)
{
    switch (a) {
    case SM_SWAP_ES256:
        return SM_JWT_ES256;
    case SM_SWAP_EDDSA:
        return SM_JWT_EDDSA;
    case SM_SWAP_RS256:
    case SM_SWAP_ALGORITHMS:
        break;
    }
    return SM_JWT_RS256;
}

static void begin_jwt(struct entry *e)
{
    const struct sm_swap *swap = e->swap;
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request request = {0};
    g_autoptr(GError) error = NULL;
    const struct sm_secret *pem = NULL;
    enum sm_cred_reason reason = SM_CRED_OK;
    uint64_t version = 0;
    uint32_t ttl_s = swap->token_ttl_seconds ? swap->token_ttl_seconds : SM_TOKEN_TTL_DEFAULT_S;

    switch (look(reference_of(e->creds, swap->signing_key_ref), &pem, &version, &reason)) {
    case HAVE_LATER:
        return;
    case HAVE_NOT:
        token_failed(e, reason);
        return;
    case HAVE:
        break;
    }
    if (!e->key || e->key_version != version) {
        sm_jwt_key_free(e->key);
        e->key = sm_jwt_key_load(alg_of(swap->algorithm), pem, &error);
        e->key_version = version;
    }
    if (!e->key) {
        sm_log_warning("credential %s: %s", swap->name, error ? error->message : "the signing key cannot be used");
        token_failed(e, SM_CRED_SIGNING_KEY);
        return;
    }
    struct sm_secret *jwt = sm_jwt_sign(e->key, NULL, swap->claims, sm_clock_wall_us(),
                                        swap->token_url ? SM_CREDS_ASSERTION_TTL_S : ttl_s, &error);
    if (!jwt) {
        token_failed(e, SM_CRED_SIGNING);
    } else if (!swap->token_url) {
        e->wants_fetch = false;
        sm_cred_cache_fetched(&e->cache, now(e->creds), jwt, ttl_s);
        wake_later(e->creds);
    } else {
        if (sm_token_assertion_request(swap->token_url, jwt, &request, NULL))
            fetch_token(e, &request);
        else
            token_failed(e, SM_CRED_VALUE_INVALID);
        sm_secret_free(jwt);
    }
}

/* The cache waits for a token: begin its fetch as soon as what that needs is there. */
static void begin_token(struct entry *e)
{
    switch (e->swap->type) {
    case SM_SWAP_OAUTH2_CC:
        begin_oauth2(e);
        return;
    case SM_SWAP_JWT_BEARER:
        begin_jwt(e);
        return;
    case SM_SWAP_STATIC:
    case SM_SWAP_TYPES:
        return;
    }
}

/* ---- what a request gets ---- */

/* A new credential around a secret, which is copied. NULL: it cannot stand in a header. */
static bool make(struct entry *e, const struct sm_secret *secret, uint64_t generation, enum sm_cred_reason *ret_reason)
{
    struct sm_secret *header = NULL;
    size_t len;

    *ret_reason = sm_cred_value_header(secret, e->swap->format, sm_swap_marker(e->swap->type), &header);
    if (*ret_reason != SM_CRED_OK)
        return false;
    const uint8_t *bytes = sm_secret_bytes(secret, &len);
    struct sm_credential *c = g_new0(struct sm_credential, 1);
    c->refs = 1;
    c->secret = copy_secret(secret);
    c->header = header;
    c->scrub = e->swap->scrub ? sm_scrub_new(bytes, len) : NULL;
    c->generation = generation;
    sm_credential_unref(e->credential);
    e->credential = c;
    return true;
}

static enum have ask_static(struct entry *e, enum sm_cred_reason *ret_reason)
{
    const struct sm_secret *secret = NULL;
    uint64_t version = 0;
    enum have have = look(reference_of(e->creds, e->swap->key_ref), &secret, &version, ret_reason);

    if (have == HAVE && (!e->credential || e->version != version)) {
        if (!make(e, secret, 0, ret_reason))
            return HAVE_NOT;
        e->version = version;
    }
    return have;
}

static enum have ask_token(struct entry *e, enum sm_cred_reason *ret_reason)
{
    struct sm_cred_answer a = sm_cred_cache_ask(&e->cache, now(e->creds));

    if (a.verdict == SM_CRED_FETCH || a.verdict == SM_CRED_REFRESH) {
        e->wants_fetch = true;
        begin_token(e);
        /* A signature is there at once; a fetch that failed at once is told from the loop. */
        a = sm_cred_cache_ask(&e->cache, now(e->creds));
    }
    switch (a.verdict) {
    case SM_CRED_USE:
    case SM_CRED_REFRESH:
        if ((!e->credential || e->credential->generation != a.generation) &&
            !make(e, a.value, a.generation, ret_reason))
            return HAVE_NOT;
        return HAVE;
    case SM_CRED_WAIT:
    case SM_CRED_FETCH:
        return HAVE_LATER;
    case SM_CRED_FAIL:
    case SM_CRED_VERDICTS:
        break;
    }
    *ret_reason = a.reason;
    return HAVE_NOT;
}

static struct entry *entry_of(struct sm_creds *creds, const struct sm_swap *swap)
{
    for (size_t i = 0; i < creds->n_entries; i++)
        if (creds->entries[i].swap == swap)
            return &creds->entries[i];
    g_assert_not_reached(); /* swaps are ours: sm_creds_match() */
}

enum sm_creds_answer sm_creds_ask(struct sm_creds *creds, const struct sm_swap *swap, struct sm_creds_waiter *w,
                                  struct sm_credential **ret, enum sm_cred_reason *ret_reason)
{
    struct entry *e = entry_of(creds, swap);
    enum have have = swap->type == SM_SWAP_STATIC ? ask_static(e, ret_reason) : ask_token(e, ret_reason);

    switch (have) {
    case HAVE:
        *ret = sm_credential_ref(e->credential);
        return SM_CREDS_HAVE;
    case HAVE_LATER:
        w->link = (GList){.data = w};
        w->in = &e->waiters;
        g_queue_push_tail_link(w->in, &w->link);
        return SM_CREDS_WAIT;
    case HAVE_NOT:
        break;
    }
    return SM_CREDS_FAIL;
}

void sm_creds_wait_cancel(struct sm_creds_waiter *w)
{
    if (!w->in)
        return;
    g_queue_unlink(w->in, &w->link);
    w->in = NULL;
}

bool sm_creds_rejected(struct sm_creds *creds, const struct sm_swap *swap, const struct sm_credential *c)
{
    struct entry *e = entry_of(creds, swap);

    return swap->type != SM_SWAP_STATIC && sm_cred_cache_rejected(&e->cache, now(creds), c->generation);
}

/* Something is there that was not: go on with what waited for it, then ask those who wait. */
static void on_wake(struct sm_timer *timer, int64_t now_us)
{
    struct sm_creds *creds = sm_container_of(timer, struct sm_creds, wake);

    (void)now_us;
    for (size_t i = 0; i < creds->n_refs; i++)
        if (creds->refs[i].wants_fetch)
            begin_vault(&creds->refs[i]);
    for (size_t i = 0; i < creds->n_entries; i++)
        if (creds->entries[i].wants_fetch)
            begin_token(&creds->entries[i]);
    for (size_t i = 0; i < creds->n_entries; i++) {
        GQueue *waiters = &creds->entries[i].waiters;
        /* Each of those who wait now once: who has to wait on stands behind them. */
        for (guint n = waiters->length; n > 0 && waiters->head; n--) {
            struct sm_creds_waiter *w = waiters->head->data;
            sm_creds_wait_cancel(w);
            w->again(w);
        }
    }
}

/* ---- life ---- */

struct sm_creds *sm_creds_new(struct sm_core *core)
{
    const struct sm_swaps *swaps = core->config->swaps;

    if (sm_swaps_count(swaps) == 0)
        return NULL;
    struct sm_creds *creds = g_new0(struct sm_creds, 1);
    creds->core = core;
    creds->n_refs = sm_swaps_ref_count(swaps) + 1;
    creds->refs = g_new0(struct reference, creds->n_refs);
    for (size_t i = 0; i < creds->n_refs; i++) {
        creds->refs[i].creds = creds;
        creds->refs[i].index = (unsigned)i;
        creds->refs[i].ref = i + 1 < creds->n_refs ? sm_swaps_ref(swaps, i) : NULL;
    }
    creds->n_entries = sm_swaps_count(swaps);
    creds->entries = g_new0(struct entry, creds->n_entries);
    for (size_t i = 0; i < creds->n_entries; i++) {
        struct entry *e = &creds->entries[i];
        e->creds = creds;
        e->swap = sm_swaps_get(swaps, i);
        g_queue_init(&e->waiters);
        creds->placeholders = creds->placeholders || e->swap->placeholder;
    }
    sm_timer_init(&creds->wake, on_wake);
    return creds;
}

void sm_creds_free(struct sm_creds *creds)
{
    if (!creds)
        return;
    sm_loop_disarm(creds->core->loop, &creds->wake);
    for (size_t i = 0; i < creds->n_refs; i++) {
        if (creds->refs[i].fetch)
            sm_fetch_cancel(creds->refs[i].fetch);
        sm_secret_free(creds->refs[i].secret);
        sm_cred_cache_clear(&creds->refs[i].cache);
    }
    for (size_t i = 0; i < creds->n_entries; i++) {
        if (creds->entries[i].fetch)
            sm_fetch_cancel(creds->entries[i].fetch);
        sm_credential_unref(creds->entries[i].credential);
        sm_cred_cache_clear(&creds->entries[i].cache);
        sm_jwt_key_free(creds->entries[i].key);
        while (creds->entries[i].waiters.head)
            sm_creds_wait_cancel(creds->entries[i].waiters.head->data);
    }
    g_free(creds->refs);
    g_free(creds->entries);
    g_free(creds);
}

const struct sm_swap *sm_creds_match(const struct sm_creds *creds, const char *name)
{
    return creds ? sm_swaps_match(creds->core->config->swaps, name) : NULL;
}

bool sm_creds_has_placeholders(const struct sm_creds *creds)
{
    return creds && creds->placeholders;
}

bool sm_creds_placeholder_of_other(const struct sm_creds *creds, const struct sm_swap *swap, const char *text,
                                   size_t len)
{
    for (size_t i = 0; i < creds->n_entries; i++) {
        const struct sm_swap *other = creds->entries[i].swap;
        const char *p = other->placeholder;
        if (p && other != swap && memmem(text, len, p, strlen(p)))
            return true;
    }
    return false;
}
