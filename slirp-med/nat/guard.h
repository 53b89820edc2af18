/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guard: every frame of the guest is judged here before any other code reads it. Pure: bytes and a time in, a
 * verdict out.
 *
 * What passes is an IPv4 packet from the known MAC and the leased address, of TCP or UDP, whose lengths agree with each
 * other and with the frame; an ARP frame; a DHCP message (then 0.0.0.0 is allowed as source); an echo request to the
 * gateway. Everything else is dropped, and most of it is reported to the core so that the audit shows it (OTHER,
 * flow/msg.h). Checksums are libslirp's to check, lengths are ours. The guard knows no policy: addresses inside or
 * outside are the core's business, except that broadcast and multicast have no flow.
 *
 * Metadata of a frame (struct sm_offload) is guest bytes as well. It is held against the headers as they are found, and
 * nothing is ever reached by it: a checksum may be left to us only at the place where TCP or UDP has it, and only a TCP
 * packet may be longer than the MTU, if the segments that it asks to be cut into are not. hdr_len is a hint (virtio 1.1,
 * 5.1.6.2) that nobody here takes, but one that cuts into the headers or lies behind the frame is no driver's.
 *
 * SM_GUARD_REASONS is the whole table: name, text, and how it is reported (-1: only counted).
 * Sources: RFC 791, RFC 826, RFC 1122 3.2.1, RFC 1858, RFC 6274 (security assessment of IPv4).
 */
#ifndef SM_NAT_GUARD_H
#define SM_NAT_GUARD_H

#include "base/addr.h"
#include "flow/msg.h"
#include "nat/frags.h"
#include "nat/port.h"
#include "nat/wire.h"

#define SM_GUARD_REASONS(X)                                                                                            \
    X(NONE, "passed", -1)                                                                                              \
    X(RUNT, "shorter than its headers", SM_OTHER_MALFORMED)                                                            \
    X(OVERSIZE, "longer than the link's MTU", SM_OTHER_MALFORMED)                                                      \
    X(OFFLOAD, "offload metadata that does not fit the frame", SM_OTHER_MALFORMED)                                     \
    X(SRC_MAC, "source MAC is not the guest's", SM_OTHER_SPOOFED)                                                      \
    X(DST_MAC, "not for us", -1)                                                                                       \
    X(VLAN, "VLAN tag", SM_OTHER_LINK)                                                                                 \
    X(ETHERTYPE, "unknown EtherType", SM_OTHER_LINK)                                                                   \
    X(IPV6, "IPv6", SM_OTHER_IPV6)                                                                                     \
    X(ARP_FORM, "not an ARP frame for IPv4 on Ethernet", -1)                                                           \
    X(ARP_SPOOF, "ARP sender is not the guest", SM_OTHER_SPOOFED)                                                      \
    X(IP_HEADER, "bad IPv4 version or header length", SM_OTHER_MALFORMED)                                              \
    X(IP_LENGTH, "IPv4 total length does not fit the frame", SM_OTHER_MALFORMED)                                       \
    X(IP_SOURCE, "source address is not the leased one", SM_OTHER_SPOOFED)                                             \
    X(IP_OPTIONS, "source route or malformed options", SM_OTHER_MALFORMED)                                             \
    X(IP_LAND, "source and destination are the same", SM_OTHER_SPOOFED)                                                \
    X(IP_PROTO, "neither TCP nor UDP", SM_OTHER_PROTO)                                                                 \
    X(ICMP, "ICMP that is not an echo to the gateway", SM_OTHER_ICMP)                                                  \
    X(GROUP, "to a broadcast or multicast address", SM_OTHER_PROTO)                                                    \
    X(L4_HEADER, "TCP or UDP header does not fit the packet", SM_OTHER_MALFORMED)                                      \
    X(PORT_ZERO, "port 0", SM_OTHER_MALFORMED)                                                                         \
    X(FRAG_TINY, "fragment inside the transport header", SM_OTHER_FRAGMENT)                                            \
    X(FRAG_ALIGN, "fragment of an odd length", SM_OTHER_FRAGMENT)                                                      \
    X(FRAG_TOO_LONG, "fragment behind 65535", SM_OTHER_FRAGMENT)                                                       \
    X(FRAG_OVERLAP, "overlapping fragment", SM_OTHER_FRAGMENT)                                                         \
    X(FRAG_REPEAT, "repeated fragment", -1)                                                                            \
    X(FRAG_FULL, "too many fragments", SM_OTHER_FRAGMENT)

enum sm_guard_reason {
#define X(name, text, kind) SM_GUARD_##name,
    SM_GUARD_REASONS(X)
#undef X
        SM_GUARD_REASON_COUNT
};

enum sm_guard_action {
    SM_GUARD_DROP, /* a verdict starts as this */
    SM_GUARD_REPORT,
    SM_GUARD_PASS_IP,
    SM_GUARD_PASS_ARP,
    SM_GUARD_PASS_DHCP,
    SM_GUARD_PASS_ECHO,
    SM_GUARD_ACTIONS
};

struct sm_guard_verdict {
    enum sm_guard_action action;
    enum sm_guard_reason reason;
    /* For REPORT: */
    enum sm_flow_other other;
    uint8_t proto;      /* IP protocol or IPv6 next header; 0 where there is none */
    struct sm_addr dst; /* family none where there is none */
    bool csum_ok; /* the guest left the TCP or UDP checksum to us, or its kernel has seen to it: not to be looked at */
    /* For PASS_*: the frame without padding, and where the transport part starts in it (DHCP: the BOOTP message). */
    size_t frame_len;
    size_t l4;
};

struct sm_guard {
    struct sm_link link;
    uint32_t offloads; /* the port's rx_offloads now: what is not in it was not negotiated, and is refused */
    struct sm_frags frags;
    uint64_t counts[SM_GUARD_REASON_COUNT];
};

/** sm_guard_init() - link is copied. */
void sm_guard_init(struct sm_guard *guard, const struct sm_link *link, uint32_t offloads);

/** sm_guard_judge() - one frame as it came from the port; now_us is monotonic. Changes nothing but the fragment table
 * and the counts. */
struct sm_guard_verdict sm_guard_judge(struct sm_guard *guard, const struct sm_frame *frame, int64_t now_us);

const char *sm_guard_action_name(enum sm_guard_action action);
const char *sm_guard_reason_name(enum sm_guard_reason reason);

#endif
