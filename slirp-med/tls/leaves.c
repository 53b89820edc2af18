/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of leaves: by name, least recently used goes first, and a token bucket before every signature. The bucket
 * is what keeps a flood of new names from the others: a name that has its leaf never asks it.
 */
#include "tls/ca.h"

#include <string.h>

#include "tls/internal.h"

#define SECOND_US INT64_C(1000000)
#define DAY_US (86400 * SECOND_US)
#define MINT_US (SECOND_US / SM_TLS_MINT_PER_SECOND) /* one token */

/**
 * OpenSSL keeps the encoding of a certificate that it has read, and encodes one that it has made twice for each
 * handshake. Reading ours back takes as long as some six handshakes lose by that, so not for a name that is asked for
 * once.
 */
#define READ_BACK_AT 4

/** A name, a blank, an address. */
#define SM_LEAF_KEY_MAX (256 + SM_ADDR_STRLEN)

struct leaf {
    char *key;
    X509 *cert;
    int64_t from_us, until_us;
    unsigned used;
    GList link;
};

struct sm_tls_leaves {
    GHashTable *by_key;
    GQueue used; /* head: used last */
    uint64_t minted;
    int64_t full_us; /* when the bucket is full again, had nothing more been taken: now + (burst - tokens) * MINT_US */
};

static void leaf_free(void *p)
{
    struct leaf *leaf = p;
    X509_free(leaf->cert);
    g_free(leaf->key);
    g_free(leaf);
}

struct sm_tls_leaves *sm_tls_leaves_new(void)
{
    struct sm_tls_leaves *t = g_new0(struct sm_tls_leaves, 1);
    t->by_key = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, leaf_free);
    t->full_us = INT64_MIN;
    return t;
}

void sm_tls_leaves_free(struct sm_tls_leaves *t)
{
    if (!t)
        return;
    g_hash_table_destroy(t->by_key);
    g_free(t);
}

static void drop(struct sm_tls_leaves *t, struct leaf *leaf)
{
    g_queue_unlink(&t->used, &leaf->link);
    (void)g_hash_table_remove(t->by_key, leaf->key);
}

/* A token, or when there is one. */
static bool take_token(struct sm_tls_leaves *t, int64_t now_us, int64_t *ret_at_us)
{
    int64_t full = SM_MAX(t->full_us, now_us);
    if (full - now_us > (SM_TLS_MINT_BURST - 1) * MINT_US) {
        *ret_at_us = full - (SM_TLS_MINT_BURST - 1) * MINT_US;
        return false;
    }
    t->full_us = full + MINT_US;
    return true;
}

/* Signing again would give a leaf with no more life than this one has, if the CA's end is what bounds it. */
static bool fresh(const struct sm_tls_ca *ca, const struct leaf *leaf, int64_t wall_us)
{
    return wall_us >= leaf->from_us && (wall_us < leaf->until_us - DAY_US || leaf->until_us >= ca->until_us);
}

static void read_back(struct leaf *leaf)
{
    X509 *cert = sm_tls_ca_read_back(leaf->cert);
    if (cert) {
        X509_free(leaf->cert); /* connections have references of their own */
        leaf->cert = cert;
    }
}

enum sm_tls_leaf_status sm_tls_ca_leaf(struct sm_tls_ca *ca, const char *name, const struct sm_addr *addr,
                                       int64_t now_us, int64_t wall_us, X509 **ret_cert, int64_t *ret_at_us)
{
    struct sm_tls_leaves *t = ca->leaves;
    char text[SM_ADDR_STRLEN] = "", key[SM_LEAF_KEY_MAX];
    /* A canonical name and an address are never the same text: no name ends in a number, and none has a colon or a blank. */
    if (addr)
        (void)sm_addr_format(addr, text);
    g_snprintf(key, sizeof(key), "%s%s%s", name ? name : "", name && addr ? " " : "", text);
    struct leaf *leaf = g_hash_table_lookup(t->by_key, key);

    if (leaf && fresh(ca, leaf, wall_us)) {
        g_queue_unlink(&t->used, &leaf->link);
        g_queue_push_head_link(&t->used, &leaf->link);
        if (leaf->used < READ_BACK_AT && ++leaf->used == READ_BACK_AT)
            read_back(leaf);
        (void)X509_up_ref(leaf->cert);
        *ret_cert = leaf->cert;
        return SM_TLS_LEAF_OK;
    }
    if (!take_token(t, now_us, ret_at_us))
        return SM_TLS_LEAF_LATER;

    int64_t from_us, until_us;
    X509 *cert = sm_tls_ca_sign(ca, name, addr, wall_us, &from_us, &until_us);
    if (!cert)
        return SM_TLS_LEAF_FAILED;
    t->minted++;
    if (leaf)
        drop(t, leaf);
    else if (t->used.length >= SM_TLS_LEAVES_MAX)
        drop(t, t->used.tail->data);
    leaf = g_new0(struct leaf, 1);
    *leaf = (struct leaf){.key = g_strdup(key), .cert = cert, .from_us = from_us, .until_us = until_us};
    leaf->link.data = leaf;
    g_queue_push_head_link(&t->used, &leaf->link);
    (void)g_hash_table_insert(t->by_key, leaf->key, leaf);
    (void)X509_up_ref(cert);
    *ret_cert = cert;
    return SM_TLS_LEAF_OK;
}

size_t sm_tls_ca_leaves(const struct sm_tls_ca *ca)
{
    return ca->leaves->used.length;
}

uint64_t sm_tls_ca_minted(const struct sm_tls_ca *ca)
{
    return ca->leaves->minted;
}
