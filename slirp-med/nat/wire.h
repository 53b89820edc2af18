/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two ends of the guest's wire, and the handful of constants and sums that every reader and builder of frames in
 * nat/ shares.
 *
 * struct sm_link is the whole addressing truth of the front: who the guest is and which addresses are ours. It is
 * filled once from the supervisor's configuration and never changes. IPv4 addresses are host-order numbers here,
 * because ranges are compared. Sources: Ethernet II, RFC 791 (IPv4), RFC 1071 (checksum).
 */
#ifndef SM_NAT_WIRE_H
#define SM_NAT_WIRE_H

#include "base/defs.h"
#include "base/rw.h"

#define SM_ETH_ALEN 6
#define SM_ETH_HLEN 14
#define SM_ETH_MIN 60 /* without the FCS; shorter frames we build are padded to this */
#define SM_ETHERTYPE_IPV4 0x0800
#define SM_ETHERTYPE_ARP 0x0806
#define SM_ETHERTYPE_VLAN 0x8100
#define SM_ETHERTYPE_QINQ 0x88a8
#define SM_ETHERTYPE_IPV6 0x86dd

#define SM_IP_HLEN 20
#define SM_IP_MAX 65535
#define SM_IP_DF 0x4000
#define SM_IP_MF 0x2000
#define SM_IP_OFFMASK 0x1fff
#define SM_IPPROTO_ICMP 1
#define SM_IPPROTO_TCP 6
#define SM_IPPROTO_UDP 17
#define SM_UDP_HLEN 8
#define SM_UDP_CSUM 6 /* offset of the checksum in the header */
#define SM_TCP_HLEN 20
#define SM_TCP_CSUM 16
#define SM_TCP_CWR 0x80

/** Bounds of --mtu: RFC 791's least reassembly size, and the largest that a 16-bit total length leaves for tap
 * (slirp4netns uses it too). */
#define SM_MTU_MIN 576
#define SM_MTU_MAX 65520
#define SM_MTU_DEFAULT 1500

/** What the guest is told at most, so that a DHCP answer holds it: as many resolvers as anybody lists, and routes that fit beside them. */
#define SM_LINK_DNS_MAX 8
#define SM_LINK_ROUTES_MAX 8

struct sm_link_route {
    uint32_t net; /* bits behind the prefix are zero */
    uint8_t len;
};

struct sm_link {
    uint8_t guest_mac[SM_ETH_ALEN];
    uint8_t our_mac[SM_ETH_ALEN]; /* gateway and resolver share it */
    uint32_t guest;               /* host order, as all below */
    uint32_t gateway;
    uint32_t resolver;
    uint8_t prefix_len;
    uint16_t mtu;
    /* What the guest is told: resolvers, at least one, and what lies behind the gateway. */
    uint32_t dns[SM_LINK_DNS_MAX];
    struct sm_link_route routes[SM_LINK_ROUTES_MAX];
    uint8_t n_dns, n_routes;
};

static inline uint32_t sm_link_mask(const struct sm_link *link)
{
    return link->prefix_len == 0 ? 0 : UINT32_MAX << (32 - link->prefix_len);
}

/** sm_link_broadcast() - the subnet's directed broadcast address. */
static inline uint32_t sm_link_broadcast(const struct sm_link *link)
{
    return link->gateway | ~sm_link_mask(link);
}

/** sm_mix64() - a bijective 64-bit mixer (the finaliser of splitmix64); XOR a secret in first when a guest chooses the
 * input. */
static inline uint64_t sm_mix64(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/** sm_csum_add() - add bytes to a running one's complement sum (RFC 1071); every part but the last has an even length.
 */
static inline uint32_t sm_csum_add(uint32_t sum, const uint8_t *p, size_t n)
{
    uint64_t s = sum;
    size_t i = 0;
    for (; i + 1 < n; i += 2)
        s += (uint32_t)p[i] << 8 | p[i + 1];
    if (i < n)
        s += (uint32_t)p[i] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint32_t)s;
}

/** sm_csum_fold() - the value for the header field. */
static inline uint16_t sm_csum_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/** sm_csum_udp() - the sum of a UDP datagram with its pseudo header (RFC 768); never 0. */
static inline uint16_t sm_csum_udp(uint32_t src, uint32_t dst, const uint8_t *udp, size_t len)
{
    uint32_t sum = (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + SM_IPPROTO_UDP + (uint32_t)len;
    uint16_t folded = sm_csum_fold(sm_csum_add(sum, udp, len));
    return folded ? folded : 0xffff;
}

/** sm_csum_udp_pseudo() - what stands in the header of a datagram of len bytes whose sum is still to be made: that of the
 * pseudo header alone, not inverted. */
static inline uint16_t sm_csum_udp_pseudo(uint32_t src, uint32_t dst, size_t len)
{
    uint32_t sum = (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + SM_IPPROTO_UDP + (uint32_t)len;
    return (uint16_t)~sm_csum_fold(sum);
}

static inline void sm_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/** sm_wr_eth() - an Ethernet header. */
static inline void sm_wr_eth(struct sm_wr *w, const uint8_t dst[SM_ETH_ALEN], const uint8_t src[SM_ETH_ALEN],
                             uint16_t type)
{
    sm_wr_bytes(w, dst, SM_ETH_ALEN);
    sm_wr_bytes(w, src, SM_ETH_ALEN);
    sm_wr_u16(w, type);
}

/** sm_wr_ip() - an option-less IPv4 header with its checksum, don't-fragment set; payload is the length of what follows
 * it. */
static inline void sm_wr_ip(struct sm_wr *w, uint32_t src, uint32_t dst, uint8_t proto, size_t payload)
{
    uint8_t *at = sm_wr_room(w, SM_IP_HLEN);
    if (!at || payload > SM_IP_MAX - SM_IP_HLEN) {
        w->bad = true;
        return;
    }
    struct sm_wr h = sm_wr_init(at, SM_IP_HLEN);
    sm_wr_u16(&h, 0x4500);
    sm_wr_u16(&h, (uint16_t)(SM_IP_HLEN + payload));
    sm_wr_u32(&h, 0x00004000);
    sm_wr_u8(&h, 64);
    sm_wr_u8(&h, proto);
    sm_wr_u16(&h, 0);
    sm_wr_u32(&h, src);
    sm_wr_u32(&h, dst);
    sm_put_u16(at + 10, sm_csum_fold(sm_csum_add(0, at, SM_IP_HLEN)));
}

#endif
