/* SPDX-License-Identifier: BSD-3-Clause */
/* The judgement of one frame, outermost header first; see guard.h. */
#include "nat/guard.h"

#include <string.h>

/* How much longer than the link's MTU a frame may be when the port carries segmentation offload. */
#define GSO_FRAME_MAX (SM_ETH_HLEN + SM_IP_MAX)

static const char *const action_names[] = {"drop", "report", "pass-ip", "pass-arp", "pass-dhcp", "pass-echo"};
SM_NAME_TABLE_COVERS(action_names, SM_GUARD_ACTIONS);

static const char *const reason_names[] = {
#define X(name, text, kind) text,
    SM_GUARD_REASONS(X)
#undef X
};
SM_NAME_TABLE_COVERS(reason_names, SM_GUARD_REASON_COUNT);

static const int8_t reason_kinds[] = {
#define X(name, text, kind) (int8_t)(kind),
    SM_GUARD_REASONS(X)
#undef X
};
SM_NAME_TABLE_COVERS(reason_kinds, SM_GUARD_REASON_COUNT);

const char *sm_guard_action_name(enum sm_guard_action action)
{
    return (unsigned)action < SM_ARRAY_LEN(action_names) ? action_names[action] : "?";
}

const char *sm_guard_reason_name(enum sm_guard_reason reason)
{
    return (unsigned)reason < SM_ARRAY_LEN(reason_names) ? reason_names[reason] : "?";
}

void sm_guard_init(struct sm_guard *guard, const struct sm_link *link, uint32_t offloads)
{
    memset(guard, 0, sizeof(*guard));
    guard->link = *link;
    guard->offloads = offloads;
}

/* A refusal: reported or silent as the reason's row says. proto and dst are whatever is known by then. */
static enum sm_guard_action refuse(struct sm_guard_verdict *v, enum sm_guard_reason reason)
{
    v->reason = reason;
    if (reason_kinds[reason] < 0)
        return v->action = SM_GUARD_DROP;
    v->other = (enum sm_flow_other)reason_kinds[reason];
    return v->action = SM_GUARD_REPORT;
}

static enum sm_guard_action pass(struct sm_guard_verdict *v, enum sm_guard_action action)
{
    v->reason = SM_GUARD_NONE;
    return v->action = action;
}

/* Metadata that this guest's driver and we have agreed on, whatever the frame is. */
static bool offload_known(const struct sm_guard *g, const struct sm_offload *o)
{
    if (o->gso_type >= SM_GSO_COUNT || (o->flags & ~g->offloads))
        return false;
    if (o->gso_type == SM_GSO_NONE)
        return !(o->flags & SM_OFFLOAD_ECN);
    /* Who cuts has to sum. */
    return (g->offloads & SM_OFFLOAD_GSO(o->gso_type)) && (o->flags & SM_OFFLOAD_NEEDS_CSUM);
}

/* A transport header as it was found; offsets from the start of the frame. */
struct found {
    uint8_t proto;
    uint8_t tcp_flags;
    size_t ip, l4, payload, end;
};

/* A checksum that is left to us is where this protocol has it (CVE-2024-11614: a csum_start behind the packet), and of a
 * packet that is to be cut each segment is one that the link has room for. */
static bool offload_fits(const struct sm_guard *g, const struct sm_frame *frame, const struct found *f)
{
    const struct sm_offload *o = &frame->offload;

    if (!(o->flags & SM_OFFLOAD_NEEDS_CSUM))
        return true;
    if (f->proto != SM_IPPROTO_TCP && f->proto != SM_IPPROTO_UDP)
        return false;
    if (o->csum_start != f->l4 || o->csum_offset != (f->proto == SM_IPPROTO_TCP ? SM_TCP_CSUM : SM_UDP_CSUM) ||
        o->hdr_len > frame->len)
        return false;
    if (o->gso_type == SM_GSO_NONE)
        return true;
    return f->proto == SM_IPPROTO_TCP && o->gso_size > 0 && o->gso_size <= f->end - f->payload &&
           f->payload - f->ip + o->gso_size <= g->link.mtu && o->hdr_len >= f->payload &&
           (!(o->flags & SM_OFFLOAD_ECN) || (f->tcp_flags & SM_TCP_CWR));
}

/* IPv6 has no way out; its destination is only wanted for the record. */
static enum sm_guard_action judge_ipv6(struct sm_guard_verdict *v, struct sm_rd *r)
{
    sm_rd_skip(r, 6);
    uint8_t next = sm_rd_u8(r);
    sm_rd_skip(r, 1 + 16);
    struct sm_addr dst = {.family = SM_FAMILY_V6};
    if (sm_rd_bytes(r, dst.bytes, 16)) {
        v->proto = next;
        v->dst = dst;
    }
    return refuse(v, SM_GUARD_IPV6);
}

static enum sm_guard_action judge_arp(const struct sm_guard *g, struct sm_guard_verdict *v, struct sm_rd *r)
{
    uint8_t sender_mac[SM_ETH_ALEN];
    uint16_t hardware = sm_rd_u16(r), protocol = sm_rd_u16(r);
    uint8_t hlen = sm_rd_u8(r), plen = sm_rd_u8(r);
    sm_rd_skip(r, 2);
    (void)sm_rd_bytes(r, sender_mac, SM_ETH_ALEN);
    uint32_t sender = sm_rd_u32(r);
    sm_rd_skip(r, SM_ETH_ALEN + 4);
    if (r->bad || hardware != 1 || protocol != SM_ETHERTYPE_IPV4 || hlen != SM_ETH_ALEN || plen != 4)
        return refuse(v, SM_GUARD_ARP_FORM);
    /* Sender 0.0.0.0 is a probe (RFC 5227). */
    if (memcmp(sender_mac, g->link.guest_mac, SM_ETH_ALEN) != 0 || (sender != g->link.guest && sender != 0))
        return refuse(v, SM_GUARD_ARP_SPOOF);
    v->frame_len = r->pos;
    v->l4 = SM_ETH_HLEN;
    return pass(v, SM_GUARD_PASS_ARP);
}

/* Options are stripped by libslirp; what must not even get that far is a source route, or a list that does not parse.
 */
static bool options_ok(struct sm_rd opts)
{
    while (sm_rd_left(&opts) > 0) {
        uint8_t kind = sm_rd_u8(&opts);
        if (kind == 0)
            return true;
        if (kind == 1)
            continue;
        uint8_t len = sm_rd_u8(&opts);
        if (kind == 131 || kind == 137 || len < 2) /* LSRR, SSRR */
            return false;
        sm_rd_skip(&opts, len - 2u);
    }
    return !opts.bad;
}

static bool is_group(const struct sm_link *link, uint32_t dst)
{
    /* 224.0.0.0/4, the limited broadcast, and both ends of our own subnet (RFC 1122 3.2.1.3). The rest of 240.0.0.0/4
     * goes on: hosts send there as to any address, and the core's refusal is one that the guest hears. */
    if (dst >> 28 == 0xe || dst == UINT32_MAX)
        return true;
    return link->prefix_len < 31 && (dst == sm_link_broadcast(link) || dst == (link->gateway & sm_link_mask(link)));
}

static enum sm_guard_action judge_fragment(struct sm_guard *g, struct sm_guard_verdict *v, const struct sm_frag *f,
                                           int64_t now_us)
{
    switch (sm_frags_judge(&g->frags, f, now_us)) {
    case SM_FRAG_PASS:
        return pass(v, SM_GUARD_PASS_IP);
    case SM_FRAG_TINY:
        return refuse(v, SM_GUARD_FRAG_TINY);
    case SM_FRAG_ALIGN:
        return refuse(v, SM_GUARD_FRAG_ALIGN);
    case SM_FRAG_TOO_LONG:
        return refuse(v, SM_GUARD_FRAG_TOO_LONG);
    case SM_FRAG_OVERLAP:
        return refuse(v, SM_GUARD_FRAG_OVERLAP);
    case SM_FRAG_REPEAT:
        return refuse(v, SM_GUARD_FRAG_REPEAT);
    case SM_FRAG_FULL:
    case SM_FRAG_VERDICTS:
        break;
    }
    return refuse(v, SM_GUARD_FRAG_FULL);
}

/* The transport header of a whole (not fragmented) packet. */
static enum sm_guard_action judge_transport(const struct sm_guard *g, struct sm_guard_verdict *v,
                                            const struct sm_frame *frame, struct sm_rd r, uint32_t src, uint32_t dst)
{
    const struct sm_link *link = &g->link;
    size_t all = sm_rd_left(&r);
    struct found f = {.proto = v->proto, .ip = SM_ETH_HLEN, .l4 = v->l4, .end = v->frame_len};

    if (v->proto == SM_IPPROTO_ICMP) {
        uint8_t type = sm_rd_u8(&r), code = sm_rd_u8(&r);
        sm_rd_skip(&r, 6);
        if (r.bad || type != 8 || code != 0 || dst != link->gateway || src != link->guest)
            return refuse(v, SM_GUARD_ICMP);
        return offload_fits(g, frame, &f) ? pass(v, SM_GUARD_PASS_ECHO) : refuse(v, SM_GUARD_OFFLOAD);
    }

    uint16_t sport = sm_rd_u16(&r), dport = sm_rd_u16(&r);
    if (v->proto == SM_IPPROTO_UDP) {
        uint16_t ulen = sm_rd_u16(&r);
        sm_rd_skip(&r, 2);
        if (r.bad || ulen < SM_UDP_HLEN || ulen > all)
            return refuse(v, SM_GUARD_L4_HEADER);
        f.payload = f.l4 + SM_UDP_HLEN;
        if (!offload_fits(g, frame, &f))
            return refuse(v, SM_GUARD_OFFLOAD);
        if (dport == 67 && (dst == UINT32_MAX || dst == sm_link_broadcast(link) || dst == link->gateway)) {
            v->l4 += SM_UDP_HLEN;
            v->frame_len = v->l4 + ulen - SM_UDP_HLEN;
            return pass(v, SM_GUARD_PASS_DHCP);
        }
    } else {
        sm_rd_skip(&r, 8);
        size_t header = (size_t)(sm_rd_u8(&r) >> 4) * 4;
        f.tcp_flags = sm_rd_u8(&r);
        if (r.bad || header < SM_TCP_HLEN || header > all)
            return refuse(v, SM_GUARD_L4_HEADER);
        f.payload = f.l4 + header;
        if (!offload_fits(g, frame, &f))
            return refuse(v, SM_GUARD_OFFLOAD);
    }
    if (src == 0)
        return refuse(v, SM_GUARD_IP_SOURCE);
    if (is_group(link, dst))
        return refuse(v, SM_GUARD_GROUP);
    if (dport == 0 || (sport == 0 && v->proto == SM_IPPROTO_TCP))
        return refuse(v, SM_GUARD_PORT_ZERO);
    return pass(v, SM_GUARD_PASS_IP);
}

static enum sm_guard_action judge_ipv4(struct sm_guard *g, struct sm_guard_verdict *v, const struct sm_frame *frame,
                                       struct sm_rd *r, int64_t now_us)
{
    const struct sm_link *link = &g->link;
    size_t in_frame = sm_rd_left(r);
    const uint8_t *start = r->p + r->pos;

    uint8_t version_ihl = sm_rd_u8(r);
    sm_rd_skip(r, 1);
    uint16_t total = sm_rd_u16(r), id = sm_rd_u16(r), frag = sm_rd_u16(r);
    sm_rd_skip(r, 1);
    uint8_t proto = sm_rd_u8(r);
    sm_rd_skip(r, 2);
    uint32_t src = sm_rd_u32(r), dst = sm_rd_u32(r);
    if (r->bad)
        return refuse(v, SM_GUARD_RUNT);
    size_t header = (size_t)(version_ihl & 15) * 4;
    if (version_ihl >> 4 != 4 || header < SM_IP_HLEN)
        return refuse(v, SM_GUARD_IP_HEADER);
    v->proto = proto;
    v->dst = sm_addr_from_u32(dst);
    if (total < header || total > in_frame)
        return refuse(v, SM_GUARD_IP_LENGTH);
    if (src != link->guest && src != 0)
        return refuse(v, SM_GUARD_IP_SOURCE);
    if (src == dst)
        return refuse(v, SM_GUARD_IP_LAND);

    struct sm_rd options = sm_rd_sub(r, header - SM_IP_HLEN);
    if (!options_ok(options))
        return refuse(v, SM_GUARD_IP_OPTIONS);
    struct sm_rd payload = sm_rd_init(start + header, total - header);
    v->frame_len = SM_ETH_HLEN + total;
    v->l4 = SM_ETH_HLEN + header;

    bool fragment = frag & (SM_IP_MF | SM_IP_OFFMASK);
    if (proto == SM_IPPROTO_ICMP) {
        if (fragment || header != SM_IP_HLEN)
            return refuse(v, SM_GUARD_ICMP);
    } else if (proto != SM_IPPROTO_TCP && proto != SM_IPPROTO_UDP) {
        return refuse(v, SM_GUARD_IP_PROTO);
    }
    if (!fragment)
        return judge_transport(g, v, frame, payload, src, dst);
    /* A kernel sums before it cuts a datagram into fragments. */
    if (frame->offload.flags & SM_OFFLOAD_NEEDS_CSUM)
        return refuse(v, SM_GUARD_OFFLOAD);
    if (src == 0)
        return refuse(v, SM_GUARD_IP_SOURCE);
    if (is_group(link, dst))
        return refuse(v, SM_GUARD_GROUP);
    struct sm_frag f = {.dst = dst,
                        .id = id,
                        .proto = proto,
                        .more = frag & SM_IP_MF,
                        .offset = (frag & SM_IP_OFFMASK) * 8u,
                        .payload = payload.p,
                        .len = payload.len};
    return judge_fragment(g, v, &f, now_us);
}

static enum sm_guard_action judge(struct sm_guard *g, struct sm_guard_verdict *v, const struct sm_frame *frame,
                                  int64_t now_us)
{
    const struct sm_link *link = &g->link;
    size_t max = frame->offload.gso_type == SM_GSO_NONE ? SM_ETH_HLEN + (size_t)link->mtu : GSO_FRAME_MAX;
    struct sm_rd r = sm_rd_init(frame->data, frame->len);
    uint8_t dst_mac[SM_ETH_ALEN], src_mac[SM_ETH_ALEN];

    (void)sm_rd_bytes(&r, dst_mac, SM_ETH_ALEN);
    (void)sm_rd_bytes(&r, src_mac, SM_ETH_ALEN);
    uint16_t type = sm_rd_u16(&r);
    if (r.bad)
        return refuse(v, SM_GUARD_RUNT);
    if (memcmp(src_mac, link->guest_mac, SM_ETH_ALEN) != 0)
        return refuse(v, SM_GUARD_SRC_MAC);
    /* Bit 0 of the first byte: a group address. What that may carry is decided by the IP destination. */
    if (!(dst_mac[0] & 1) && memcmp(dst_mac, link->our_mac, SM_ETH_ALEN) != 0)
        return refuse(v, SM_GUARD_DST_MAC);
    if (frame->len > max)
        return refuse(v, SM_GUARD_OVERSIZE);
    if (!offload_known(g, &frame->offload))
        return refuse(v, SM_GUARD_OFFLOAD);
    v->csum_ok = frame->offload.flags & (SM_OFFLOAD_NEEDS_CSUM | SM_OFFLOAD_CSUM_OK);

    switch (type) {
    case SM_ETHERTYPE_IPV4:
        return judge_ipv4(g, v, frame, &r, now_us);
    case SM_ETHERTYPE_ARP:
        if (frame->offload.flags & SM_OFFLOAD_NEEDS_CSUM)
            return refuse(v, SM_GUARD_OFFLOAD);
        return judge_arp(g, v, &r);
    case SM_ETHERTYPE_IPV6:
        return judge_ipv6(v, &r);
    case SM_ETHERTYPE_VLAN:
    case SM_ETHERTYPE_QINQ:
        return refuse(v, SM_GUARD_VLAN);
    default:
        return refuse(v, SM_GUARD_ETHERTYPE);
    }
}

struct sm_guard_verdict sm_guard_judge(struct sm_guard *guard, const struct sm_frame *frame, int64_t now_us)
{
    struct sm_guard_verdict v = {.action = SM_GUARD_DROP};
    (void)judge(guard, &v, frame, now_us);
    /* A unicast packet in a broadcast frame is not to be believed (RFC 1122 3.3.6). */
    if ((v.action == SM_GUARD_PASS_IP || v.action == SM_GUARD_PASS_ECHO) && (frame->data[0] & 1))
        (void)refuse(&v, SM_GUARD_DST_MAC);
    guard->counts[v.reason]++;
    return v;
}
