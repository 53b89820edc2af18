/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_table.c: which flow is this four-tuple's?
 *
 * A hash table of all flows, in being or in TIME-WAIT, with chains. It is as
 * large as the most flows there may be, so a chain is short; the memory is
 * there from the start, but a page of it is only used when a flow falls into
 * it. The guest chooses the four-tuples: the hash is SipHash-2-4 (Aumasson and
 * Bernstein, 2012) under a key that it does not know, made from the secret of
 * the instance by HMAC with a label of its own, as the initial sequence numbers
 * show something of another use of that secret.
 *
 * In front of it is the flow that was found last: packets come in trains.
 */
#include "slirp.h"

/* Least table: an embedder with a limit of a few flows. */
#define FLOW_TABLE_MIN 64

/* Of each packet, and small: in line. */
#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

INLINE void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

INLINE void sip_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

uint64_t flow_hash(const uint64_t key[2], struct in_addr guest,
                   uint16_t guest_port, struct in_addr peer,
                   uint16_t peer_port)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                      key[0] ^ 0x6c7967656e657261u,
                      key[1] ^ 0x7465646279746573u };
    int i;

    /* Twelve bytes: a word, and the rest with the length on top. */
    sip_word(v, (uint64_t)peer.s_addr << 32 | guest.s_addr);
    sip_word(v, (uint64_t)12 << 56 | (uint32_t)peer_port << 16 | guest_port);
    v[2] ^= 0xff;
    for (i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void flow_table_init(Slirp *slirp)
{
    static const char label[] = "slirp flow table";
    struct flow_state *fs = &slirp->fl;
    uint8_t digest[32];
    gsize len = sizeof(digest), size = FLOW_TABLE_MIN;
    GHmac *hmac;

    while (size < fs->max_flows)
        size *= 2;
    fs->table = g_new0(struct socket *, size);
    fs->table_mask = size - 1;
    hmac = g_hmac_new(G_CHECKSUM_SHA256, fs->secret, sizeof(fs->secret));
    g_hmac_update(hmac, (const guchar *)label, sizeof(label) - 1);
    g_hmac_get_digest(hmac, digest, &len);
    g_hmac_unref(hmac);
    memcpy(fs->table_key, digest, sizeof(fs->table_key));
}

void flow_table_free(Slirp *slirp)
{
    g_free(slirp->fl.table);
    memset(slirp->fl.table_key, 0, sizeof(slirp->fl.table_key));
}

static struct socket **flow_chain(Slirp *slirp, struct in_addr guest,
                                  uint16_t guest_port, struct in_addr peer,
                                  uint16_t peer_port)
{
    struct flow_state *fs = &slirp->fl;

    return &fs->table[flow_hash(fs->table_key, guest, guest_port, peer,
                                peer_port) &
                      fs->table_mask];
}

/* Ports in network order. */
struct socket *flow_find(Slirp *slirp, struct in_addr guest,
                         uint16_t guest_port, struct in_addr peer,
                         uint16_t peer_port)
{
    struct socket *so = slirp->tcp_last_so;

    if (so != &slirp->tcb && so->so_lport == guest_port &&
        so->so_fport == peer_port && so->so_faddr.s_addr == peer.s_addr &&
        so->so_laddr.s_addr == guest.s_addr)
        return so;
    so = *flow_chain(slirp, guest, guest_port, peer, peer_port);
    for (; so; so = so->fl.chain) {
        if (so->so_lport == guest_port && so->so_fport == peer_port &&
            so->so_faddr.s_addr == peer.s_addr &&
            so->so_laddr.s_addr == guest.s_addr) {
            slirp->tcp_last_so = so;
            return so;
        }
    }
    return NULL;
}

/* The addresses are set, and stay. */
void flow_table_add(struct socket *so)
{
    struct socket **head = flow_chain(so->slirp, so->so_laddr, so->so_lport,
                                      so->so_faddr, so->so_fport);

    so->fl.chain = *head;
    *head = so;
    so->fl.chained = true;
}

void flow_table_remove(struct socket *so)
{
    Slirp *slirp = so->slirp;
    struct socket **p;

    if (so == slirp->tcp_last_so)
        slirp->tcp_last_so = &slirp->tcb;
    if (!so->fl.chained)
        return;
    so->fl.chained = false;
    p = flow_chain(slirp, so->so_laddr, so->so_lport, so->so_faddr,
                   so->so_fport);
    while (*p != so)
        p = &(*p)->fl.chain;
    *p = so->fl.chain;
}
