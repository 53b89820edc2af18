/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_table.c: which flow is this four-tuple's?
 *
 * A hash table of all flows, in being or in TIME-WAIT, with chains. It is as
 * large as the most flows there may be, so a chain is short; the memory is
 * there from the start, but a page of it is only used when a flow falls into
 * it. The guest chooses the four-tuples: the hash is SipHash-1-3 (Aumasson and
 * Bernstein, 2012; as in the tables of Linux, Rust and Python) under a key that
 * it does not know. That key and the initial sequence numbers' are made from
 * the secret of the instance by HMAC, each under its own label.
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

/* SipHash-c-d of a four-tuple: twelve bytes are a word, and the rest with the
 * length on top. */
INLINE uint64_t sip(const uint64_t key[2], struct in_addr guest,
                    uint16_t guest_port, struct in_addr peer,
                    uint16_t peer_port, int c, int d)
{
    uint64_t word[2] = { (uint64_t)peer.s_addr << 32 | guest.s_addr,
                         (uint64_t)12 << 56 | (uint32_t)peer_port << 16 |
                             guest_port };
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                      key[0] ^ 0x6c7967656e657261u,
                      key[1] ^ 0x7465646279746573u };
    int i, k;

    for (i = 0; i < 2; i++) {
        v[3] ^= word[i];
        for (k = 0; k < c; k++)
            sip_round(v);
        v[0] ^= word[i];
    }
    v[2] ^= 0xff;
    for (k = 0; k < d; k++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t flow_hash(const uint64_t key[2], struct in_addr guest,
                   uint16_t guest_port, struct in_addr peer,
                   uint16_t peer_port)
{
    return sip(key, guest, guest_port, peer, peer_port, 1, 3);
}

/* The initial sequence numbers' function, of which the guest sees values. */
uint64_t flow_prf(const uint64_t key[2], struct in_addr guest,
                  uint16_t guest_port, struct in_addr peer, uint16_t peer_port)
{
    return sip(key, guest, guest_port, peer, peer_port, 2, 4);
}

static void flow_key(Slirp *slirp, const char *label, uint64_t ret_key[2])
{
    struct flow_state *fs = &slirp->fl;
    uint8_t digest[32];
    gsize len = sizeof(digest);
    GHmac *hmac;

    hmac = g_hmac_new(G_CHECKSUM_SHA256, fs->secret, sizeof(fs->secret));
    g_hmac_update(hmac, (const guchar *)label, -1);
    g_hmac_get_digest(hmac, digest, &len);
    g_hmac_unref(hmac);
    memcpy(ret_key, digest, 16);
}

void flow_table_init(Slirp *slirp)
{
    struct flow_state *fs = &slirp->fl;
    gsize size = FLOW_TABLE_MIN;

    while (size < fs->max_flows)
        size *= 2;
    fs->table = g_new0(struct socket *, size);
    fs->table_mask = size - 1;
    flow_key(slirp, "slirp flow table", fs->table_key);
    flow_key(slirp, "slirp isn", fs->isn_key);
}

void flow_table_free(Slirp *slirp)
{
    g_free(slirp->fl.table);
    memset(slirp->fl.table_key, 0, sizeof(slirp->fl.table_key));
    memset(slirp->fl.isn_key, 0, sizeof(slirp->fl.isn_key));
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
