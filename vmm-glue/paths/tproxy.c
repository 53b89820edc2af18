/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel path's namespaces, rules and sockets; see tproxy.h.
 *
 * Sources: linux/Documentation/networking/tproxy.rst, veth(4), nf_tables.h, packet(7), raw(7).
 */
#include "paths/tproxy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/dgrams.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/rw.h"
#include "paths/netlink.h"
#include "sandbox/sandbox.h"

#define TABLE "slirp_med"
#define CHAIN_SOURCE "source"
#define CHAIN_IN "prerouting"
#define CHAIN_THROUGH "forward"
/** iptables' "mangle": before routing, behind the assembly of fragments; and in front of that, which is at -400. */
#define PRIORITY (-150)
#define PRIORITY_SOURCE (-450)
/** What a client of a published port waits for at most is the kernel's business; this is TCP's backlog. */
#define BACKLOG 4096
/** A guest may go without a word, when its VMM is killed: a silent connection is asked after a minute, and given up when there is
 * no answer to four questions; the next guest behind a tap answers them with a RST. Seconds, and how many. */
#define ALIVE_AFTER 60
#define ALIVE_EVERY 15
#define ALIVE_TRIES 4
/** Datagrams of the guest that wait for the front, bytes: as much as net.core.rmem_max lets pass. */
#define DATAGRAM_BUFFER (4 << 20)

/* ---- the rules ---- */

static void rule_begin(struct sm_netlink *n, const char *chain)
{
    struct nfgenmsg fixed = {.nfgen_family = NFPROTO_INET};

    sm_netlink_begin(n, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, &fixed,
                     sizeof(fixed));
    sm_netlink_text(n, NFTA_RULE_TABLE, TABLE);
    sm_netlink_text(n, NFTA_RULE_CHAIN, chain);
    sm_netlink_open(n, NFTA_RULE_EXPRESSIONS);
}

static void expr_begin(struct sm_netlink *n, const char *name)
{
    sm_netlink_open(n, NFTA_LIST_ELEM);
    sm_netlink_text(n, NFTA_EXPR_NAME, name);
    sm_netlink_open(n, NFTA_EXPR_DATA);
}

static void expr_end(struct sm_netlink *n)
{
    sm_netlink_close(n);
    sm_netlink_close(n);
}

static void data_value(struct sm_netlink *n, uint16_t type, const void *value, size_t len)
{
    sm_netlink_open(n, type);
    sm_netlink_attr(n, NFTA_DATA_VALUE, value, len);
    sm_netlink_close(n);
}

static void expr_equals(struct sm_netlink *n, const void *value, size_t len)
{
    expr_begin(n, "cmp");
    sm_netlink_be32(n, NFTA_CMP_SREG, NFT_REG_1);
    sm_netlink_be32(n, NFTA_CMP_OP, NFT_CMP_EQ);
    data_value(n, NFTA_CMP_DATA, value, len);
    expr_end(n);
}

static void expr_meta(struct sm_netlink *n, enum nft_meta_keys key, const void *value, size_t len)
{
    expr_begin(n, "meta");
    sm_netlink_be32(n, NFTA_META_DREG, NFT_REG_1);
    sm_netlink_be32(n, NFTA_META_KEY, key);
    expr_end(n);
    expr_equals(n, value, len);
}

static void expr_payload(struct sm_netlink *n, enum nft_payload_bases base, uint32_t offset, const void *value,
                         size_t len)
{
    expr_begin(n, "payload");
    sm_netlink_be32(n, NFTA_PAYLOAD_DREG, NFT_REG_1);
    sm_netlink_be32(n, NFTA_PAYLOAD_BASE, base);
    sm_netlink_be32(n, NFTA_PAYLOAD_OFFSET, offset);
    sm_netlink_be32(n, NFTA_PAYLOAD_LEN, (uint32_t)len);
    expr_end(n);
    expr_equals(n, value, len);
}

static void rule_accept(struct sm_netlink *n)
{
    expr_begin(n, "immediate");
    sm_netlink_be32(n, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    sm_netlink_open(n, NFTA_IMMEDIATE_DATA);
    sm_netlink_open(n, NFTA_DATA_VERDICT);
    sm_netlink_be32(n, NFTA_VERDICT_CODE, NF_ACCEPT);
    sm_netlink_close(n);
    sm_netlink_close(n);
    expr_end(n);
    sm_netlink_close(n); /* NFTA_RULE_EXPRESSIONS */
}

/* IPv4 of the guest that came in by its device, from its card, to us alone (no broadcast): each fragment by itself, for
 * what they make is from where the first one was. */
static void rule_source(struct sm_netlink *n, const struct sm_tproxy_source *from)
{
    uint8_t v4 = NFPROTO_IPV4, to_us = PACKET_HOST;
    char name[IFNAMSIZ] = {0};

    g_strlcpy(name, from->device, sizeof(name));
    rule_begin(n, CHAIN_SOURCE);
    expr_meta(n, NFT_META_NFPROTO, &v4, sizeof(v4));
    expr_meta(n, NFT_META_IIFNAME, name, sizeof(name));
    expr_meta(n, NFT_META_PKTTYPE, &to_us, sizeof(to_us));
    expr_payload(n, NFT_PAYLOAD_LL_HEADER, ETH_ALEN, from->mac, ETH_ALEN);
    expr_payload(n, NFT_PAYLOAD_NETWORK_HEADER, 12, from->guest->bytes, 4);
    rule_accept(n);
}

static void rule_tproxy(struct sm_netlink *n, uint8_t proto)
{
    uint8_t v4 = NFPROTO_IPV4;
    uint16_t port = htons(SM_TPROXY_PORT_NUMBER);

    rule_begin(n, CHAIN_IN);
    expr_meta(n, NFT_META_NFPROTO, &v4, sizeof(v4));
    expr_meta(n, NFT_META_L4PROTO, &proto, sizeof(proto));
    expr_begin(n, "immediate");
    sm_netlink_be32(n, NFTA_IMMEDIATE_DREG, NFT_REG_1);
    data_value(n, NFTA_IMMEDIATE_DATA, &port, sizeof(port));
    expr_end(n);
    expr_begin(n, "tproxy");
    sm_netlink_be32(n, NFTA_TPROXY_FAMILY, NFPROTO_IPV4);
    sm_netlink_be32(n, NFTA_TPROXY_REG_PORT, NFT_REG_1);
    expr_end(n); /* no socket: the rule ends here, and the chain's policy drops */
    rule_accept(n);
}

/* An echo request that is for the gateway: there is no other echo that is answered (spec section 3). */
static void rule_echo(struct sm_netlink *n, const struct sm_addr *gateway)
{
    uint8_t v4 = NFPROTO_IPV4, icmp = IPPROTO_ICMP, request = 8;

    rule_begin(n, CHAIN_IN);
    expr_meta(n, NFT_META_NFPROTO, &v4, sizeof(v4));
    expr_meta(n, NFT_META_L4PROTO, &icmp, sizeof(icmp));
    expr_payload(n, NFT_PAYLOAD_NETWORK_HEADER, 16, gateway->bytes, 4);
    expr_payload(n, NFT_PAYLOAD_TRANSPORT_HEADER, 0, &request, 1);
    rule_accept(n);
}

static void chain(struct sm_netlink *n, const char *name, uint32_t hook, int priority)
{
    struct nfgenmsg fixed = {.nfgen_family = NFPROTO_INET};

    sm_netlink_begin(n, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_text(n, NFTA_CHAIN_TABLE, TABLE);
    sm_netlink_text(n, NFTA_CHAIN_NAME, name);
    sm_netlink_open(n, NFTA_CHAIN_HOOK);
    sm_netlink_be32(n, NFTA_HOOK_HOOKNUM, hook);
    sm_netlink_be32(n, NFTA_HOOK_PRIORITY, (uint32_t)priority);
    sm_netlink_close(n);
    sm_netlink_be32(n, NFTA_CHAIN_POLICY, NF_DROP);
    sm_netlink_text(n, NFTA_CHAIN_TYPE, "filter");
}

static void batch(struct sm_netlink *n, uint16_t type)
{
    struct nfgenmsg fixed = {.res_id = htons(NFNL_SUBSYS_NFTABLES)};
    sm_netlink_begin(n, type, 0, &fixed, sizeof(fixed));
}

/* gateway: NULL: no echo is answered. */
static int make_rules(const struct sm_tproxy_source *from, const struct sm_addr *gateway)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct nfgenmsg fixed = {.nfgen_family = NFPROTO_INET};

    sm_netlink_init(n);
    batch(n, NFNL_MSG_BATCH_BEGIN);
    sm_netlink_begin(n, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_text(n, NFTA_TABLE_NAME, TABLE);
    chain(n, CHAIN_SOURCE, NF_INET_PRE_ROUTING, PRIORITY_SOURCE);
    chain(n, CHAIN_IN, NF_INET_PRE_ROUTING, PRIORITY);
    chain(n, CHAIN_THROUGH, NF_INET_FORWARD, 0);
    rule_source(n, from);
    rule_tproxy(n, IPPROTO_TCP);
    rule_tproxy(n, IPPROTO_UDP);
    if (gateway)
        rule_echo(n, gateway);
    batch(n, NFNL_MSG_BATCH_END);
    return sm_netlink_send(n, NETLINK_NETFILTER);
}

int sm_tproxy_rules(const struct sm_tproxy_source *from)
{
    return make_rules(from, NULL);
}

/* ---- devices and routes ---- */

/* The pair: our end here, the guest's in the namespace behind guest_ns. */
static int make_pair(const struct sm_tproxy_spec *spec, int guest_ns)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC};

    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_text(n, IFLA_IFNAME, SM_TPROXY_DEVICE);
    sm_netlink_attr(n, IFLA_ADDRESS, spec->our_mac, sizeof(spec->our_mac));
    sm_netlink_u32(n, IFLA_MTU, spec->card->mtu);
    sm_netlink_open(n, IFLA_LINKINFO);
    sm_netlink_text(n, IFLA_INFO_KIND, "veth");
    sm_netlink_open(n, IFLA_INFO_DATA);
    sm_netlink_open_with(n, VETH_INFO_PEER, &fixed, sizeof(fixed));
    sm_netlink_text(n, IFLA_IFNAME, spec->card->name);
    sm_netlink_u32(n, IFLA_MTU, spec->card->mtu);
    sm_netlink_u32(n, IFLA_NET_NS_FD, (uint32_t)guest_ns);
    sm_netlink_close(n);
    sm_netlink_close(n);
    sm_netlink_close(n);
    return sm_netlink_send(n, NETLINK_ROUTE);
}

/* What was made otherwise: our end's name, card and size. It is down. */
static int adopt_device(const struct sm_tproxy_spec *spec, const char *name)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(name)};

    if (fixed.ifi_index == 0)
        return -1;
    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWLINK, NLM_F_ACK, &fixed, sizeof(fixed));
    if (strcmp(name, SM_TPROXY_DEVICE) != 0)
        sm_netlink_text(n, IFLA_IFNAME, SM_TPROXY_DEVICE);
    sm_netlink_attr(n, IFLA_ADDRESS, spec->our_mac, sizeof(spec->our_mac));
    sm_netlink_u32(n, IFLA_MTU, spec->card->mtu);
    return sm_netlink_send(n, NETLINK_ROUTE);
}

/* The guest's card is known, and stays what it is: nobody is asked for it, and who claims its address is not believed. */
static int add_neighbour(const struct sm_tap_spec *card)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ndmsg fixed = {
        .ndm_family = AF_INET, .ndm_ifindex = (int)if_nametoindex(SM_TPROXY_DEVICE), .ndm_state = NUD_PERMANENT};

    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_attr(n, NDA_DST, card->ip.bytes, 4);
    sm_netlink_attr(n, NDA_LLADDR, card->mac, sizeof(card->mac));
    return sm_netlink_send(n, NETLINK_ROUTE);
}

static int add_address(const struct sm_addr *addr)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ifaddrmsg fixed = {
        .ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = if_nametoindex(SM_TPROXY_DEVICE)};

    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &fixed, sizeof(fixed));
    sm_netlink_attr(n, IFA_LOCAL, addr->bytes, 4);
    sm_netlink_attr(n, IFA_ADDRESS, addr->bytes, 4);
    return sm_netlink_send(n, NETLINK_ROUTE);
}

static int device_up(void)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC,
                              .ifi_index = (int)if_nametoindex(SM_TPROXY_DEVICE),
                              .ifi_flags = IFF_UP,
                              .ifi_change = IFF_UP};

    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWLINK, NLM_F_ACK, &fixed, sizeof(fixed));
    return sm_netlink_send(n, NETLINK_ROUTE);
}

static int add_route(const struct sm_addr *dst, uint8_t len, uint8_t type, uint8_t scope, const char *device)
{
    g_autofree struct sm_netlink *n = g_new(struct sm_netlink, 1);
    struct rtmsg fixed = {.rtm_family = AF_INET,
                          .rtm_dst_len = len,
                          .rtm_table = RT_TABLE_MAIN,
                          .rtm_protocol = RTPROT_BOOT,
                          .rtm_scope = scope,
                          .rtm_type = type};

    sm_netlink_init(n);
    sm_netlink_begin(n, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &fixed, sizeof(fixed));
    if (len > 0)
        sm_netlink_attr(n, RTA_DST, dst->bytes, 4);
    sm_netlink_u32(n, RTA_OIF, if_nametoindex(device));
    return sm_netlink_send(n, NETLINK_ROUTE);
}

/* The guest is behind the device. Every other address is ours, the rest of its subnet too (so ARP is answered for it): what
 * TPROXY has given to a socket is delivered here, and what anybody here sends goes nowhere. */
static int add_routes(const struct sm_addr *guest)
{
    if (add_route(guest, 32, RTN_UNICAST, RT_SCOPE_LINK, SM_TPROXY_DEVICE) < 0)
        return -1;
    return add_route(NULL, 0, RTN_LOCAL, RT_SCOPE_HOST, "lo");
}

/* ---- the sockets ---- */

static struct sockaddr_in sockaddr_of(const struct sm_addr *addr, uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = sm_addr_to_in(addr), .sin_port = htons(port)};
}

static int set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value));
}

static int on(int fd, int level, int option)
{
    return set(fd, level, option, 1);
}

/* Its clients inherit all of this. */
static int open_listener(void)
{
    static const struct sm_addr any = {.family = SM_FAMILY_V4};
    struct sockaddr_in here = sockaddr_of(&any, SM_TPROXY_PORT_NUMBER);
    sm_autofd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || on(fd, IPPROTO_IP, IP_TRANSPARENT) < 0 || on(fd, IPPROTO_TCP, TCP_NODELAY) < 0 ||
        on(fd, SOL_SOCKET, SO_KEEPALIVE) < 0 || set(fd, IPPROTO_TCP, TCP_KEEPIDLE, ALIVE_AFTER) < 0 ||
        set(fd, IPPROTO_TCP, TCP_KEEPINTVL, ALIVE_EVERY) < 0 || set(fd, IPPROTO_TCP, TCP_KEEPCNT, ALIVE_TRIES) < 0 ||
        bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(fd, BACKLOG) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

static int open_datagram(void)
{
    static const struct sm_addr any = {.family = SM_FAMILY_V4};
    struct sockaddr_in here = sockaddr_of(&any, SM_TPROXY_PORT_NUMBER);
    int size = DATAGRAM_BUFFER;
    sm_autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || on(fd, IPPROTO_IP, IP_TRANSPARENT) < 0 || on(fd, IPPROTO_IP, IP_RECVORIGDSTADDR) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0 ||
        bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
        return -1;
    sm_dgrams_gather(fd); /* what the guest leaves to its kernel to cut comes whole */
    return sm_steal_fd(&fd);
}

static int open_raw(const struct sm_addr *guest)
{
    struct sockaddr_in there = sockaddr_of(guest, 0);
    sm_autofd fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);

    if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof(there)) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

/* Sends alone, by the device, frames that are to be cut. */
static int open_runs(void)
{
    struct sockaddr_ll device = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(SM_TPROXY_DEVICE)};
    sm_autofd fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* of no protocol: it hears nothing */

    if (fd < 0 || on(fd, SOL_PACKET, PACKET_VNET_HDR) < 0 || bind(fd, (struct sockaddr *)&device, sizeof(device)) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

/* What comes in by the device, but what the TPROXY rules take: so TCP and UDP of the guest's own card and address, to us,
 * without options and without a tag of a VLAN, are left out; but for the destinations to which the kernel then delivers nothing. */
static int open_frames(const struct sm_tap_spec *card)
{
    const uint8_t *mac = card->mac;
    const uint32_t mac_head = (uint32_t)mac[0] << 24 | (uint32_t)mac[1] << 16 | (uint32_t)mac[2] << 8 | mac[3];
    const uint32_t mac_tail = (uint32_t)mac[4] << 8 | mac[5], guest = sm_addr_to_u32(&card->ip);
    /* A jump that is not taken goes on; SEEN and LEFT_OUT are the last two. */
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 29, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ETH_HLEN + 20, 0, 26), /* it would be cut off at the first load behind it */
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 24),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 22),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_ALEN),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mac_head, 0, 20),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, ETH_ALEN + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mac_tail, 0, 18),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_HLEN + 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, guest, 0, 16),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ETH_HLEN),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x45, 0, 14), /* version 4, a header of 20 bytes */
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 12),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ETH_HLEN + 9),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 9),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_HLEN + 16), /* TCP to many */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, INADDR_BROADCAST, 7, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 28),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xe, 5, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_HLEN + 16), /* to nobody, to the guest itself, to a loopback */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, INADDR_ANY, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, guest, 2, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 24),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IN_LOOPBACKNET, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX), /* SEEN */
        BPF_STMT(BPF_RET | BPF_K, 0),          /* LEFT_OUT */
    };
    struct sock_fprog filter = {.len = SM_ARRAY_LEN(code), .filter = (struct sock_filter *)(uintptr_t)code};
    struct sockaddr_ll device = {.sll_family = AF_PACKET,
                                 .sll_protocol = htons(ETH_P_ALL),
                                 .sll_ifindex = (int)if_nametoindex(SM_TPROXY_DEVICE)};
    sm_autofd fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* deaf until it is bound */

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ||
        on(fd, SOL_SOCKET, SO_LOCK_FILTER) < 0 || on(fd, SOL_PACKET, PACKET_AUXDATA) < 0 ||
        bind(fd, (struct sockaddr *)&device, sizeof(device)) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

/* ---- the keeper ---- */

/* The only process in the mediator's namespace makes sockets to the guest and does nothing else. */
static int keeper_filter(void)
{
    static const int calls[] = {SCMP_SYS(read),       SCMP_SYS(setsockopt),   SCMP_SYS(bind),
                                SCMP_SYS(connect),    SCMP_SYS(sendmsg),      SCMP_SYS(close),
                                SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall)};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc = ctx ? 0 : -ENOMEM;

    for (size_t i = 0; i < SM_ARRAY_LEN(calls) && rc == 0; i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                              SCMP_A0(SCMP_CMP_MASKED_EQ, UINT64_C(0xffffffff), AF_INET),
                              SCMP_A1(SCMP_CMP_MASKED_EQ, UINT64_C(0xffffffff),
                                      (scmp_datum_t)(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)));
    if (rc == 0)
        rc = seccomp_load(ctx);
    if (ctx)
        seccomp_release(ctx);
    return rc;
}

/* CAP_NET_RAW alone, which IP_TRANSPARENT asks for; and none that an exec could bring. */
static int keeper_caps(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    const uint32_t raw = CAP_TO_MASK(CAP_NET_RAW);

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    data[CAP_TO_INDEX(CAP_NET_RAW)] = (struct __user_cap_data_struct){.effective = raw, .permitted = raw};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &head, data) < 0 ||
                   prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0
               ? -1
               : 0;
}

/* A connection to the guest as if it came from src; -1 when it cannot be. */
static int dial(uint32_t src, uint16_t src_port, const struct sm_addr *guest, uint16_t guest_port)
{
    struct sm_addr from = sm_addr_from_u32(src);
    struct sockaddr_in here = sockaddr_of(&from, src_port), there = sockaddr_of(guest, guest_port);
    sm_autofd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* Two clients of two published ports may have one address and port. */
    if (fd < 0 || on(fd, IPPROTO_IP, IP_TRANSPARENT) < 0 || on(fd, SOL_SOCKET, SO_REUSEADDR) < 0 ||
        on(fd, IPPROTO_TCP, TCP_NODELAY) < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0 ||
        (connect(fd, (struct sockaddr *)&there, sizeof(there)) < 0 && errno != EINPROGRESS))
        return -1;
    return sm_steal_fd(&fd);
}

void sm_tproxy_keep(int front, const struct sm_addr *guest)
{
    uint8_t ask[SM_TPROXY_ASK_LEN], answer[SM_TPROXY_ANSWER_LEN];

    (void)prctl(PR_SET_NAME, "slirp-med-keep");
    if (sm_sandbox_close_fds(&front, 1) < 0 || keeper_caps() < 0)
        _exit(1);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)close(fd); /* CMD's to end */
    if (chdir("/") < 0 || keeper_filter() < 0)
        _exit(1);
    while (read(front, ask, sizeof(ask)) == (ssize_t)sizeof(ask)) {
        struct sm_rd r = sm_rd_init(ask, sizeof(ask));
        uint64_t id = sm_rd_u64(&r);
        uint32_t src = sm_rd_u32(&r);
        uint16_t src_port = sm_rd_u16(&r), guest_port = sm_rd_u16(&r);
        sm_autofd fd = dial(src, src_port, guest, guest_port);
        struct sm_wr w = sm_wr_init(answer, sizeof(answer));
        sm_wr_u64(&w, id);
        if (sm_fd_send(front, answer, sizeof(answer), &fd, fd >= 0 ? 1 : 0) < 0)
            break;
    }
    _exit(0);
}

/* ---- the whole ---- */

static bool set_kernel(const char *name, const char *value)
{
    g_autofree char *path = g_strconcat("/proc/sys/net/", name, NULL);
    sm_autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && sm_fd_write_all(fd, value, strlen(value)) == 0;
}

static int own_namespace(void)
{
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static int unavailable(const struct sm_tproxy_spec *spec, const char *what, GError **error)
{
    sm_log_info("%s: %s", what, strerror(errno));
    sm_error_set(error, SM_ERROR_MISSING,
                 "egress: UDP mediation (TPROXY) unavailable for workspace %s \xe2\x80\x94 load the TPROXY kernel "
                 "modules or use --egress off",
                 spec->workspace);
    return -1;
}

/* The device is there, and down. The kernel says what it could not. */
static int make_device(const struct sm_tproxy_spec *spec, int guest_ns, int *ret_tap, GError **error)
{
    switch (spec->kind) {
    case SM_TPROXY_PAIR:
        if (make_pair(spec, guest_ns) == 0)
            return 0;
        sm_error_set_errno(error, errno, "network devices of the kernel path (veth; as root: modprobe veth)");
        return -1;
    case SM_TPROXY_TAP: {
        sm_autofd tap = sm_tap_open(SM_TPROXY_DEVICE, true, error);
        if (tap < 0)
            return -1;
        if (adopt_device(spec, SM_TPROXY_DEVICE) < 0) {
            sm_error_set_errno(error, errno, "the tap of the kernel path");
            return -1;
        }
        *ret_tap = sm_steal_fd(&tap);
        return 0;
    }
    case SM_TPROXY_GIVEN: {
        sm_autofd ns = own_namespace();
        if (ns < 0) {
            sm_error_set_errno(error, errno, "the mediator's network namespace");
            return -1;
        }
        if (spec->fetch(spec->fetch_data, ns, error) < 0)
            return -1;
        if (adopt_device(spec, spec->given) == 0)
            return 0;
        sm_error_set_errno(error, errno, "--device=%s: name, MAC address and MTU of it", spec->given);
        return -1;
    }
    case SM_TPROXY_KINDS:
        break;
    }
    sm_error_set(error, SM_ERROR_INVALID, "there is no such kind of device");
    return -1;
}

int sm_tproxy_furnish(const struct sm_tproxy_spec *spec, int guest_ns, int fds[SM_TPROXY_FDS], int *ret_tap,
                      GError **error)
{
    const struct sm_tap_spec *card = spec->card;
    struct sm_addr ours[] = {card->gateway, spec->resolver};
    size_t n_ours = sm_addr_equal(&ours[0], &ours[1]) ? 1 : 2;
    const struct sm_tproxy_source from = {.device = SM_TPROXY_DEVICE, .guest = &card->ip, .mac = card->mac};

    /* Before there is a device. The rules drop IPv6 and what would be forwarded in any case. */
    if (!set_kernel("ipv6/conf/all/disable_ipv6", "1") || !set_kernel("ipv6/conf/default/disable_ipv6", "1"))
        sm_log_info("IPv6 stays on in the mediator's network namespace, where the rules drop it");
    /* A source route is the guest's word on the way of the answer: the kernel drops it, and the front records it. What a
     * guest sends to 127.0.0.0/8 is for nobody here either, and is refused and recorded like the rest instead of lost. */
    if (!set_kernel("ipv4/ip_forward", "0") || !set_kernel("ipv4/ip_unprivileged_port_start", "0") ||
        !set_kernel("ipv4/conf/all/accept_source_route", "0") || !set_kernel("ipv4/conf/all/route_localnet", "1"))
        sm_log_info("net.ipv4 of the mediator's network namespace: %s", strerror(errno));
    if (sm_tap_loopback_up(error) < 0)
        return -1;
    if (make_rules(&from, &card->gateway) < 0)
        return unavailable(spec, "the kernel refuses a TPROXY rule", error);
    if ((fds[SM_TPROXY_LISTENER] = open_listener()) < 0 || (fds[SM_TPROXY_DATAGRAM] = open_datagram()) < 0)
        return unavailable(spec, "a transparent socket cannot be made", error);
    if (make_device(spec, guest_ns, ret_tap, error) < 0)
        return -1;
    if (add_address(&ours[0]) < 0 || (n_ours > 1 && add_address(&ours[1]) < 0) || device_up() < 0 ||
        add_routes(&card->ip) < 0 || add_neighbour(card) < 0) {
        sm_error_set_errno(error, errno, "addresses and routes of the kernel path");
        return -1;
    }
    if ((fds[SM_TPROXY_RAW] = open_raw(&card->ip)) < 0 || (fds[SM_TPROXY_FRAME] = open_frames(card)) < 0 ||
        (fds[SM_TPROXY_RUNS] = open_runs()) < 0) {
        sm_error_set_errno(error, errno, "sockets of the kernel path");
        return -1;
    }
    return 0;
}

int sm_tproxy_bundle(int fds[SM_TPROXY_FDS], int *ret_keeper_end, GError **error)
{
    const char hello = SM_TPROXY_HELLO;
    int pair[2];

    if (sm_fd_seqpair(pair, false) < 0) {
        sm_error_set_errno(error, errno, "socket pair between front and keeper");
        return -1;
    }
    sm_autofd front = pair[0], keeper = pair[1];
    if (sm_fd_send(keeper, &hello, 1, fds, SM_TPROXY_FDS) != 1) {
        sm_error_set_errno(error, errno, "hand the sockets of the kernel path over");
        return -1;
    }
    *ret_keeper_end = sm_steal_fd(&keeper);
    return sm_steal_fd(&front);
}

void sm_tproxy_close_fds(int (*fds)[SM_TPROXY_FDS])
{
    for (size_t i = 0; i < SM_TPROXY_FDS; i++)
        sm_fd_close(&(*fds)[i]);
}

void sm_tproxy_clear(struct sm_tproxy *t)
{
    sm_fd_close(&t->bundle);
    sm_fd_close(&t->tap);
}

int sm_tproxy_make(const struct sm_tproxy_spec *spec, struct sm_tproxy *ret, GError **error)
{
    sm_cleanup(sm_tproxy_close_fds) int fds[SM_TPROXY_FDS] = SM_TPROXY_NO_FDS;
    sm_cleanup(sm_tproxy_clear) struct sm_tproxy made = SM_TPROXY_INIT;
    sm_autofd guest_ns = -1, keeper_end = -1;

    if (spec->kind == SM_TPROXY_PAIR && (unshare(CLONE_NEWNET) < 0 || (guest_ns = own_namespace()) < 0)) {
        sm_error_set_errno(error, errno, "make the guest's network namespace (see `slirp-med doctor`)");
        return -1;
    }
    if (unshare(CLONE_NEWNET) < 0) {
        sm_error_set_errno(error, errno, "make the mediator's network namespace (see `slirp-med doctor`)");
        return -1;
    }
    if (sm_tproxy_furnish(spec, guest_ns, fds, &made.tap, error) < 0 ||
        (made.bundle = sm_tproxy_bundle(fds, &keeper_end, error)) < 0)
        return -1;
    made.keeper = fork();
    if (made.keeper == 0)
        sm_tproxy_keep(keeper_end, &spec->card->ip);
    if (made.keeper < 0 || (guest_ns >= 0 ? setns(guest_ns, CLONE_NEWNET) : unshare(CLONE_NEWNET)) < 0) {
        sm_error_set_errno(error, errno, "enter the guest's network namespace");
        return -1;
    }
    *ret =
        (struct sm_tproxy){.bundle = sm_steal_fd(&made.bundle), .tap = sm_steal_fd(&made.tap), .keeper = made.keeper};
    return 0;
}
