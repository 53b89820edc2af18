/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The handoff: messages between a front and the core (design.md section 1). This header is the contract.
 *
 * A packet on a SOCK_SEQPACKET pair is one message, or several (SM_FLOW_PACKET_MANY). Encoding: a fixed head (type u8, version u8, 16-bit
 * zero, flow id u64), then the type's fields, big-endian. Addresses are a family byte (4 or 6) and 4 or 16 bytes; endpoints an address and a
 * u16 port. A message that does not decode exactly is an error of the peer: the receiver ends the channel, because a front that speaks wrongly
 * is broken or taken.
 *
 *   type       from   fields                                             descriptors
 *   OPEN       front  proto u8, src endpoint, dst endpoint               0
 *                     proto vsock: src port u32, dst port u32 in place of the endpoints (the guest's CID is its front's business)
 *                     proto tcp by name (proxy front): in place of dst u8 0, length u8 (1 and up), the name as the client wrote it
 *                     (an IPv6 address without its brackets), port u16
 *   REFUSE     core   how u8, scope u8, hold_ms u32, reason u8           0   (reason: enum sm_reason of policy/decide.h as a number, for
 *                     a front that can say why; 0: nobody decided it, upstream is as `how` says)
 *   ACCEPT     core   -                                                  0
 *   BYTES      front  data                                               0   (before ACCEPT too, where a guest need not wait for it)
 *   ATTACH     core   consumed u32                                       1
 *   ATTACHED   front  -        (acknowledges ATTACH: its fd is out of flight)
 *   ABORT      core   -        (a TCP flow that is attached: answered by GONE once the descriptor is closed)
 *   GONE       front  why u8
 *   INBOUND    core   guest port u16, src endpoint                       1
 *   DATAGRAM   both   src endpoint, dst endpoint, data                   0   (src is always the guest's side; id is 0)
 *   OTHER      front  kind u8, proto u8, dst address, count u32          0   (id is 0)
 *   REPEATED   front  proto u8, dst endpoint, count u32                  0   (attempts answered from a hold; id is 0)
 *   RELEASE    core   -        (a policy reload or a new pin: forget every hold; id is 0)
 *   EOF        front  -        (a flow that is not attached yet: the guest's FIN came, no more BYTES follow; as BYTES before ACCEPT)
 *
 * Ids are 64-bit, chosen by the front, rising from 1 and never reused (the core takes no OPEN whose id is not above all before it); ids of
 * INBOUND flows are chosen by the core and have bit 63 set.
 * A message for an id that is not live is dropped, its descriptor closed. Which message is legal in which state: docs/ARCHITECTURE.md.
 */
#ifndef SM_FLOW_MSG_H
#define SM_FLOW_MSG_H

#include "base/addr.h"
#include "base/rw.h"

#define SM_FLOW_VERSION 1

/** Largest data of BYTES: several go for a long ClientHello. DATAGRAM: a DNS message over UDP (RFC 6891 sizes stay far below). */
#define SM_FLOW_DATA_MAX 16384
/** Longest name of OPEN, as its length byte can say; whether it is one is the core's to judge (policy/names.h). */
#define SM_FLOW_NAME_MAX 255
/** Head, two v6 endpoints and data, rounded up: a receive buffer of this size never truncates a legal message. */
#define SM_FLOW_MSG_MAX (SM_FLOW_DATA_MAX + 64)
/** All BYTES of one flow together: more than any head we judge (a 64 KiB ClientHello with its record heads fits). */
#define SM_FLOW_HELD_MAX (72 * 1024)
/** Bit of ids that the core chose (INBOUND). */
#define SM_FLOW_ID_CORE (UINT64_C(1) << 63)
/** Un-acknowledged ATTACH and INBOUND messages: bounds descriptors in flight (the kernel's limit is RLIMIT_NOFILE a user). */
#define SM_FLOW_ATTACH_MAX 64
/** Largest packet on a UDP pair: runs of datagrams (udpbatch.h), as many as fit; the largest datagram does. */
#define SM_FLOW_UDP_BATCH_MAX 65600
/** ... and never more datagrams than this, so that many empty ones are no more work than many full ones. */
#define SM_FLOW_UDP_BATCH_DATAGRAMS 256

enum sm_flow_type {
    SM_FLOW_OPEN = 1,
    SM_FLOW_REFUSE,
    SM_FLOW_ACCEPT,
    SM_FLOW_BYTES,
    SM_FLOW_ATTACH,
    SM_FLOW_ATTACHED,
    SM_FLOW_ABORT,
    SM_FLOW_GONE,
    SM_FLOW_INBOUND,
    SM_FLOW_DATAGRAM,
    SM_FLOW_OTHER,
    SM_FLOW_REPEATED,
    SM_FLOW_RELEASE,
    SM_FLOW_EOF,
    SM_FLOW_TYPES
};

enum sm_flow_proto { SM_FLOW_TCP = 6, SM_FLOW_UDP = 17, SM_FLOW_VSOCK = 40 };

/** How a refusal looks to the guest. For a UDP flow RST is not legal; ICMP_PORT mirrors an upstream ECONNREFUSED. */
enum sm_flow_how {
    SM_HOW_SILENT = 0,
    SM_HOW_RST,
    SM_HOW_ICMP_ADMIN, /* type 3 code 13 */
    SM_HOW_ICMP_HOST,  /* type 3 code 1 */
    SM_HOW_ICMP_NET,   /* type 3 code 0 */
    SM_HOW_ICMP_PORT,  /* type 3 code 3 */
    SM_HOWS
};

/** What the front repeats a refusal for, without asking, during hold_ms. */
enum sm_flow_scope { SM_SCOPE_TUPLE = 0, SM_SCOPE_DESTINATION /* proto, dst address and port */, SM_SCOPES };

enum sm_flow_why {
    SM_WHY_CLOSED = 0,   /* both directions ended in order */
    SM_WHY_GUEST_RST,    /* the guest reset it */
    SM_WHY_UPSTREAM_RST, /* the attached descriptor failed; the front has closed it */
    SM_WHY_TIMEOUT,      /* the guest stopped answering, or an unreplied UDP flow was dropped by the front */
    SM_WHY_REFUSED,      /* acknowledges nothing; a pending flow's guest went away before the verdict */
    SM_WHY_LIMIT,        /* a bound of the front */
    SM_WHYS
};

enum sm_flow_other {
    SM_OTHER_ICMP = 0,
    SM_OTHER_IPV6,
    SM_OTHER_PROTO,    /* another IP protocol: see proto */
    SM_OTHER_SPOOFED,  /* source MAC or address is not the guest's */
    SM_OTHER_FRAGMENT, /* refused fragments */
    SM_OTHER_LINK,     /* VLAN or an unknown EtherType */
    SM_OTHER_MALFORMED,
    SM_OTHER_DEVICE, /* no packet: a ring of the guest's that broke, or a message of its VMM's that was refused */
    /* of a proxy front, no packets either; dst is the client's own address */
    SM_OTHER_CLIENT,  /* a client that may not use this proxy */
    SM_OTHER_AUTH,    /* a request with wrong credentials for the proxy, or without any */
    SM_OTHER_REQUEST, /* a request head that breaks HTTP, came too slowly, or is of no kind that a proxy serves */
    SM_OTHERS
};

struct sm_flow_msg {
    enum sm_flow_type type;
    uint64_t id;
    enum sm_flow_proto proto;
    struct sm_endpoint src;
    struct sm_endpoint dst;        /* OTHER uses dst.addr only */
    uint32_t vsock_src, vsock_dst; /* OPEN of proto vsock: ports, in place of src and dst */
    const char *name; /* OPEN by name: points into the decoded buffer, not terminated; dst has the port alone */
    size_t name_len;  /* 0: by address */
    enum sm_flow_how how;
    enum sm_flow_scope scope;
    uint32_t hold_ms;
    uint8_t reason; /* REFUSE */
    uint32_t consumed;
    enum sm_flow_why why;
    enum sm_flow_other other;
    uint8_t ip_proto; /* OTHER */
    uint16_t guest_port;
    uint32_t count;
    const uint8_t *data; /* BYTES, DATAGRAM: points into the decoded buffer */
    size_t data_len;
};

const char *sm_flow_type_name(enum sm_flow_type type);
const char *sm_flow_how_name(enum sm_flow_how how);
const char *sm_flow_why_name(enum sm_flow_why why);
const char *sm_flow_other_name(enum sm_flow_other other);

/** sm_flow_how_icmp_code() - how a refused datagram is answered: the code of a "destination unreachable", or -1: not at all. */
static inline int sm_flow_how_icmp_code(enum sm_flow_how how)
{
    switch (how) {
    case SM_HOW_ICMP_ADMIN:
        return 13;
    case SM_HOW_ICMP_HOST:
        return 1;
    case SM_HOW_ICMP_NET:
        return 0;
    case SM_HOW_ICMP_PORT:
        return 3;
    case SM_HOW_RST: /* has no meaning for UDP */
    case SM_HOW_SILENT:
    case SM_HOWS:
        break;
    }
    return -1;
}

/** sm_flow_encode() - write msg into out; returns its length, or 0 when a field is out of range or does not fit. */
size_t sm_flow_encode(const struct sm_flow_msg *msg, uint8_t *out, size_t cap);

/** sm_flow_decode() - strict: every byte is accounted for, every enum is in range. Returns false and leaves *ret alone otherwise. */
bool sm_flow_decode(const uint8_t *data, size_t len, struct sm_flow_msg *ret) SM_WARN_UNUSED;

/**
 * What one packet of the channel holds: a message, or, led by this byte, some of them, each behind its 16-bit length.
 * None of those may be of a type that carries a descriptor.
 */
#define SM_FLOW_PACKET_MANY 0xff
/** Messages in one packet, so that a packet is a bounded piece of work for whoever takes it. */
#define SM_FLOW_PACKET_MAX 128

/** A packet's messages, in order. bad: it broke the form; what came before is good. */
struct sm_flow_packet {
    struct sm_rd r;
    unsigned taken;
    bool many;
    bool bad;
};
struct sm_flow_packet sm_flow_packet_init(const uint8_t *data, size_t len);
/** sm_flow_packet_next() - the next message, which points into the packet; false at the end, or with bad set. */
bool sm_flow_packet_next(struct sm_flow_packet *p, struct sm_flow_msg *ret) SM_WARN_UNUSED;

/** sm_flow_fds() - how many descriptors a message of this type must carry. */
size_t sm_flow_fds(enum sm_flow_type type);

#endif
