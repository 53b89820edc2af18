/* SPDX-License-Identifier: BSD-3-Clause */
/* Who has any address of the subnet but the guest's? We do; see arp.h. */
#include "nat/arp.h"

/* Sender 0 is a probe: only who owns the address may answer it (RFC 5227 2.1.1). */
static bool is_ours(const struct sm_link *link, uint32_t sender, uint32_t target)
{
    if (target == link->gateway || target == link->resolver)
        return true;
    if (sender != link->guest || target == link->guest)
        return false;
    uint32_t mask = sm_link_mask(link);
    return (target & mask) == (link->gateway & mask) && target != sm_link_broadcast(link) && target != (target & mask);
}

size_t sm_arp_answer(const struct sm_link *link, const uint8_t *frame, size_t len, uint8_t out[SM_ARP_REPLY_LEN])
{
    struct sm_rd r = sm_rd_init(frame, len);
    uint8_t sender_mac[SM_ETH_ALEN];

    sm_rd_skip(&r, SM_ETH_HLEN + 6);
    uint16_t op = sm_rd_u16(&r);
    (void)sm_rd_bytes(&r, sender_mac, SM_ETH_ALEN);
    uint32_t sender = sm_rd_u32(&r);
    sm_rd_skip(&r, SM_ETH_ALEN);
    uint32_t target = sm_rd_u32(&r);
    if (r.bad || op != 1 || !is_ours(link, sender, target))
        return 0;

    memset(out, 0, SM_ARP_REPLY_LEN);
    struct sm_wr w = sm_wr_init(out, SM_ARP_REPLY_LEN);
    sm_wr_eth(&w, sender_mac, link->our_mac, SM_ETHERTYPE_ARP);
    sm_wr_u16(&w, 1);
    sm_wr_u16(&w, SM_ETHERTYPE_IPV4);
    sm_wr_u16(&w, SM_ETH_ALEN << 8 | 4);
    sm_wr_u16(&w, 2);
    sm_wr_bytes(&w, link->our_mac, SM_ETH_ALEN);
    sm_wr_u32(&w, target);
    sm_wr_bytes(&w, sender_mac, SM_ETH_ALEN);
    sm_wr_u32(&w, sender);
    return SM_ARP_REPLY_LEN;
}
