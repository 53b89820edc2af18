/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Chains that were verified. A server that does not resume sends the same certificates each time, and their signatures
 * do not change; so a verification is believed again, for an hour, if everything that it depended on is the same: each
 * byte of each certificate that was sent, in order, and the name or address that was asked for. The time must be one at
 * which the verified chain is valid, and not before the verification. Whether the server has the key is no part of
 * this: its signature in the handshake is verified every time.
 *
 * Only what was accepted is kept. The least recently used goes first.
 */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "tls/internal.h"

struct chain {
    struct sm_tls_chain_key key;
    struct sm_tls_trust trust;
    GList link;
};

struct sm_tls_chains {
    GHashTable *by_key;
    GQueue used; /* head: used last */
};

static guint key_hash(gconstpointer p)
{
    guint h; /* the key is a hash already */
    memcpy(&h, p, sizeof(h));
    return h;
}

static gboolean key_equal(gconstpointer a, gconstpointer b)
{
    return memcmp(a, b, sizeof(struct sm_tls_chain_key)) == 0;
}

struct sm_tls_chains *sm_tls_chains_new(void)
{
    struct sm_tls_chains *t = g_new0(struct sm_tls_chains, 1);
    t->by_key = g_hash_table_new_full(key_hash, key_equal, NULL, g_free);
    return t;
}

void sm_tls_chains_free(struct sm_tls_chains *t)
{
    if (!t)
        return;
    g_hash_table_destroy(t->by_key);
    g_free(t);
}

void sm_tls_chains_clear(struct sm_tls_chains *t)
{
    g_hash_table_remove_all(t->by_key);
    g_queue_init(&t->used);
}

static void drop(struct sm_tls_chains *t, struct chain *c)
{
    g_queue_unlink(&t->used, &c->link);
    (void)g_hash_table_remove(t->by_key, &c->key);
}

bool sm_tls_chain_key(STACK_OF(X509) * sent, const char *identity, struct sm_tls_chain_key *ret)
{
    /* Each part begins with its length: no two lists give the same bytes. DER says its own. */
    uint32_t len = (uint32_t)strlen(identity);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_byte_array_append(bytes, (const guint8 *)&len, sizeof(len));
    g_byte_array_append(bytes, (const guint8 *)identity, len);
    for (int i = 0; i < sk_X509_num(sent); i++) {
        X509 *cert = sk_X509_value(sent, i);
        int n = i2d_X509(cert, NULL);
        if (n <= 0)
            return false;
        guint at = bytes->len;
        g_byte_array_set_size(bytes, at + (guint)n);
        unsigned char *p = bytes->data + at;
        if (i2d_X509(cert, &p) != n)
            return false;
    }
    return EVP_Digest(bytes->data, bytes->len, ret->sha256, NULL, EVP_sha256(), NULL) == 1;
}

void sm_tls_chains_put(struct sm_tls_chains *t, const struct sm_tls_chain_key *key, const struct sm_tls_trust *trust)
{
    struct chain *c = g_hash_table_lookup(t->by_key, key);
    if (c)
        drop(t, c);
    c = g_new0(struct chain, 1);
    c->key = *key;
    c->trust = *trust;
    c->link.data = c;
    (void)g_hash_table_insert(t->by_key, &c->key, c);
    g_queue_push_head_link(&t->used, &c->link);
    if (t->used.length > SM_TLS_CHAINS_MAX)
        drop(t, t->used.tail->data);
}

bool sm_tls_chains_find(struct sm_tls_chains *t, const struct sm_tls_chain_key *key, int64_t wall_us,
                        struct sm_tls_trust *ret)
{
    struct chain *c = g_hash_table_lookup(t->by_key, key);
    if (!c)
        return false;
    if (!sm_tls_trust_holds(&c->trust, wall_us)) {
        drop(t, c);
        return false;
    }
    g_queue_unlink(&t->used, &c->link);
    g_queue_push_head_link(&t->used, &c->link);
    *ret = c->trust;
    return true;
}

size_t sm_tls_chains_count(const struct sm_tls_chains *t)
{
    return t->used.length;
}
