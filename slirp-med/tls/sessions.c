/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Upstream sessions to resume. What keeps a resumption from being weaker than a handshake: a session is only ever
 * found under the key that it was verified for, an hour after its last verification it is gone (a resumption does not
 * prolong it), it is not used at a time when a certificate of its chain is not valid, and a TLS 1.3 ticket is used
 * once (RFC 8446 C.4: a second use would let an observer link both).
 *
 * The sessions of one key, and those that come out of their resumptions, share one decoded chain. A server decides how
 * large that is, and its tickets: what all of them cost together is bounded as well as their number, and the oldest go.
 */
#include "tls/internal.h"

#define SECOND_US INT64_C(1000000)
/** A session without its ticket and its chain, with what stands around it here. */
#define SESSION_COST 1024u

struct entry {
    SSL_SESSION *session;
    struct bucket *bucket;
    struct sm_tls_trust trust;
    int64_t until_us; /* life: ours and the server's */
    size_t own_cost;
    size_t chain_cost; /* 0 while another session of the bucket answers for the chain */
    GList in_bucket;
    GList in_all;
};

struct bucket {
    char *key;
    GQueue entries; /* head: newest */
};

struct sm_tls_sessions {
    GHashTable *by_key;
    GQueue all; /* head: newest */
    size_t cost;
};

static void entry_free(void *p)
{
    struct entry *e = p;
    SSL_SESSION_free(e->session);
    g_free(e);
}

static void bucket_free(void *p)
{
    struct bucket *b = p;
    while (b->entries.head)
        entry_free(g_queue_pop_head_link(&b->entries)->data);
    g_free(b->key);
    g_free(b);
}

struct sm_tls_sessions *sm_tls_sessions_new(void)
{
    struct sm_tls_sessions *s = g_new0(struct sm_tls_sessions, 1);
    s->by_key = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, bucket_free);
    return s;
}

void sm_tls_sessions_free(struct sm_tls_sessions *s)
{
    if (!s)
        return;
    g_hash_table_destroy(s->by_key);
    g_free(s);
}

/* Another session of the bucket that holds the same chain. */
static struct entry *sharer(const struct bucket *b, const struct entry *e)
{
    const X509 *leaf = SSL_SESSION_get0_peer(e->session);
    for (const GList *l = b->entries.head; l && leaf; l = l->next) {
        struct entry *other = l->data;
        if (other != e && SSL_SESSION_get0_peer(other->session) == leaf)
            return other;
    }
    return NULL;
}

static void drop(struct sm_tls_sessions *s, struct entry *e)
{
    struct bucket *b = e->bucket;
    struct entry *heir = e->chain_cost > 0 ? sharer(b, e) : NULL;
    if (heir)
        heir->chain_cost = e->chain_cost;
    s->cost -= e->own_cost + (heir ? 0 : e->chain_cost);
    g_queue_unlink(&s->all, &e->in_all);
    g_queue_unlink(&b->entries, &e->in_bucket);
    entry_free(e);
    if (b->entries.length == 0)
        (void)g_hash_table_remove(s->by_key, b->key);
}

static bool single_use(SSL_SESSION *session)
{
    return SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
}

void sm_tls_sessions_put(struct sm_tls_sessions *s, const char *key, SSL_SESSION *session,
                         const struct sm_tls_trust *trust)
{
    struct bucket *b = g_hash_table_lookup(s->by_key, key);
    struct entry *e = g_new0(struct entry, 1);
    int64_t life = SM_TLS_SESSION_SECONDS;
    if (SSL_SESSION_has_ticket(session)) {
        /* RFC 8446 4.6.1: zero is "at once"; RFC 5077 3.3: zero is "you choose". */
        unsigned long hint = SSL_SESSION_get_ticket_lifetime_hint(session);
        if (single_use(session) || hint > 0)
            life = (int64_t)SM_MIN(hint, (unsigned long)SM_TLS_SESSION_SECONDS);
    }
    *e = (struct entry){.session = session, .trust = *trust, .until_us = trust->verified_us + life * SECOND_US};
    if (!b) {
        b = g_new0(struct bucket, 1);
        b->key = g_strdup(key);
        (void)g_hash_table_insert(s->by_key, b->key, b);
    }
    e->bucket = b;
    const unsigned char *ticket;
    size_t ticket_len = 0;
    SSL_SESSION_get0_ticket(session, &ticket, &ticket_len);
    e->own_cost = SESSION_COST + ticket_len;
    if (!sharer(b, e))
        e->chain_cost = trust->chain_len * SM_TLS_CHAIN_COST;
    s->cost += e->own_cost + e->chain_cost;
    e->in_bucket.data = e->in_all.data = e;
    g_queue_push_head_link(&b->entries, &e->in_bucket);
    g_queue_push_head_link(&s->all, &e->in_all);
    if (b->entries.length > SM_TLS_SESSIONS_PER_KEY)
        drop(s, b->entries.tail->data);
    while (s->all.length > SM_TLS_SESSIONS_MAX || s->cost > SM_TLS_SESSIONS_COST)
        drop(s, s->all.tail->data); /* one alone is never too much */
}

static bool usable(const struct entry *e, int64_t wall_us)
{
    return SSL_SESSION_is_resumable(e->session) && sm_tls_trust_holds(&e->trust, wall_us) && wall_us < e->until_us;
}

SSL_SESSION *sm_tls_sessions_take(struct sm_tls_sessions *s, const char *key, int64_t wall_us,
                                  struct sm_tls_trust *ret_trust)
{
    struct bucket *b;
    while ((b = g_hash_table_lookup(s->by_key, key))) {
        struct entry *e = b->entries.head->data;
        SSL_SESSION *session = NULL;
        if (usable(e, wall_us)) {
            session = e->session;
            (void)SSL_SESSION_up_ref(session);
            *ret_trust = e->trust;
        }
        if (!session || single_use(session))
            drop(s, e);
        if (session)
            return session;
    }
    return NULL;
}

size_t sm_tls_sessions_cost(const struct sm_tls_sessions *s)
{
    return s->cost;
}

size_t sm_tls_sessions_count(const struct sm_tls_sessions *s)
{
    return s->all.length;
}
