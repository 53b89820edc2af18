/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest frames for tests and corpora: built whole, with right checksums, so that a test then spoils exactly one thing.
 */
#ifndef SM_TESTS_NAT_FRAMES_H
#define SM_TESTS_NAT_FRAMES_H

#include "nat/wire.h"

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static const struct sm_link test_link = {
    .guest_mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
    .our_mac = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02},
    .guest = IP4(10, 0, 2, 15),
    .gateway = IP4(10, 0, 2, 2),
    .resolver = IP4(10, 0, 2, 3),
    .dns = {IP4(10, 0, 2, 3)},
    .n_dns = 1,
    .routes = {{0, 0}},
    .n_routes = 1,
    .prefix_len = 24,
    .mtu = 1500,
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

struct buf {
    uint8_t data[70000];
    size_t len;
};

static inline uint16_t transport_sum(uint32_t src, uint32_t dst, uint8_t proto, const uint8_t *p, size_t len)
{
    uint32_t pseudo = (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + (uint32_t)len;
    return sm_csum_fold(sm_csum_add(pseudo, p, len));
}

/* An IPv4 frame from the guest to us around a payload; frag is the flags-and-offset field. */
static inline void ip_frame(struct buf *b, uint32_t src, uint32_t dst, uint8_t proto, uint16_t id, uint16_t frag,
                            const void *payload, size_t len)
{
    struct sm_wr w = sm_wr_init(b->data, sizeof(b->data));
    sm_wr_eth(&w, test_link.our_mac, test_link.guest_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&w, src, dst, proto, len);
    uint8_t *ip = b->data + SM_ETH_HLEN;
    sm_put_u16(ip + 4, id);
    sm_put_u16(ip + 6, frag);
    sm_put_u16(ip + 10, 0);
    sm_put_u16(ip + 10, sm_csum_fold(sm_csum_add(0, ip, SM_IP_HLEN)));
    sm_wr_bytes(&w, payload, len);
    b->len = w.len;
}

static inline void udp_frame(struct buf *b, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport,
                             const void *data, size_t len)
{
    static uint8_t udp[66000];
    struct sm_wr w = sm_wr_init(udp, sizeof(udp));
    sm_wr_u16(&w, sport);
    sm_wr_u16(&w, dport);
    sm_wr_u16(&w, (uint16_t)(SM_UDP_HLEN + len));
    sm_wr_u16(&w, 0);
    sm_wr_bytes(&w, data, len);
    sm_put_u16(udp + 6, sm_csum_udp(src, dst, udp, w.len));
    ip_frame(b, src, dst, SM_IPPROTO_UDP, 1, 0, udp, w.len);
}

static inline void tcp_frame(struct buf *b, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, uint32_t seq,
                             uint32_t ack, uint8_t flags, const void *data, size_t len)
{
    static uint8_t tcp[66000];
    struct sm_wr w = sm_wr_init(tcp, sizeof(tcp));
    sm_wr_u16(&w, sport);
    sm_wr_u16(&w, dport);
    sm_wr_u32(&w, seq);
    sm_wr_u32(&w, ack);
    sm_wr_u8(&w, flags & TCP_SYN ? 0x60 : 0x50);
    sm_wr_u8(&w, flags);
    sm_wr_u16(&w, 65535);
    sm_wr_u32(&w, 0);
    if (flags & TCP_SYN)
        sm_wr_u32(&w, 0x020405b4); /* MSS 1460 */
    sm_wr_bytes(&w, data, len);
    sm_put_u16(tcp + 16, transport_sum(src, dst, SM_IPPROTO_TCP, tcp, w.len));
    ip_frame(b, src, dst, SM_IPPROTO_TCP, 1, 0x4000, tcp, w.len);
}

static inline void echo_frame(struct buf *b, uint32_t dst, const void *data, size_t len)
{
    static uint8_t icmp[66000];
    struct sm_wr w = sm_wr_init(icmp, sizeof(icmp));
    sm_wr_u32(&w, 8u << 24);
    sm_wr_u32(&w, 0x12340001);
    sm_wr_bytes(&w, data, len);
    sm_put_u16(icmp + 2, sm_csum_fold(sm_csum_add(0, icmp, w.len)));
    ip_frame(b, test_link.guest, dst, SM_IPPROTO_ICMP, 1, 0, icmp, w.len);
}

static inline void arp_frame(struct buf *b, uint16_t op, uint32_t sender, uint32_t target)
{
    static const uint8_t everyone[] = {255, 255, 255, 255, 255, 255}, nobody[SM_ETH_ALEN];
    struct sm_wr w = sm_wr_init(b->data, sizeof(b->data));
    sm_wr_eth(&w, everyone, test_link.guest_mac, SM_ETHERTYPE_ARP);
    sm_wr_u32(&w, 0x00010800);
    sm_wr_u16(&w, 0x0604);
    sm_wr_u16(&w, op);
    sm_wr_bytes(&w, test_link.guest_mac, SM_ETH_ALEN);
    sm_wr_u32(&w, sender);
    sm_wr_bytes(&w, nobody, SM_ETH_ALEN);
    sm_wr_u32(&w, target);
    b->len = w.len;
}

/* A DHCP message of a client without a lease; options after the magic are given whole. */
static inline void dhcp_message(struct buf *b, uint32_t ciaddr, uint16_t flags, const uint8_t *options, size_t len)
{
    struct sm_wr w = sm_wr_init(b->data, sizeof(b->data));
    sm_wr_u32(&w, 0x01010600);
    sm_wr_u32(&w, 0xdeadbeef);
    sm_wr_u16(&w, 3);
    sm_wr_u16(&w, flags);
    sm_wr_u32(&w, ciaddr);
    for (int i = 0; i < 3; i++)
        sm_wr_u32(&w, 0);
    sm_wr_bytes(&w, test_link.guest_mac, SM_ETH_ALEN);
    uint8_t *zero = sm_wr_room(&w, 10 + 64 + 128);
    memset(zero, 0, 10 + 64 + 128);
    sm_wr_u32(&w, 0x63825363);
    sm_wr_bytes(&w, options, len);
    b->len = w.len;
}

#endif
