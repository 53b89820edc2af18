/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.h: Ethernet frames as a guest makes and reads them.
 *
 * Builders write a whole frame with right checksums into a buffer of
 * FR_MAX bytes and return its length; addresses and numbers are in host order.
 * A test that wants a wrong frame builds a right one and spoils it.
 * fr_parse takes a frame apart and says whether its checksums hold.
 */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FR_MAX (14 + 65535)

/* Under ASan the heap is another one, so tests of it make no sense. */
#if defined(__SANITIZE_ADDRESS__)
#define FR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FR_ASAN 1
#endif
#endif

#define FR_FIN 0x01
#define FR_SYN 0x02
#define FR_RST 0x04
#define FR_PSH 0x08
#define FR_ACK 0x10
#define FR_URG 0x20

#define FR_ICMP 1
#define FR_TCP 6
#define FR_UDP 17

#define FR_IP(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

/* The link of every test. */
#define FR_GUEST FR_IP(10, 0, 2, 15)
#define FR_GATEWAY FR_IP(10, 0, 2, 2)
#define FR_RESOLVER FR_IP(10, 0, 2, 3)
#define FR_PEER FR_IP(203, 0, 113, 10)
extern const uint8_t fr_guest_mac[6];
extern const uint8_t fr_gateway_mac[6];

struct fr_tcp {
    uint32_t src, dst;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t win, urp;
    uint16_t mss;        /* 0: no option */
    const uint8_t *opts; /* raw options after that, nopts a multiple of 4 */
    size_t nopts;
    const void *data;
    size_t len;
};

/* What fr_parse found. Pointers lead into the frame. */
struct fr_packet {
    uint16_t ether_type;
    uint8_t proto;
    uint32_t src, dst;
    uint16_t frag; /* flags and offset as on the wire */
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t win;
    uint16_t mss; /* 0: no option */
    bool scaled;  /* window scale option */
    uint8_t scale;
    uint8_t icmp_type, icmp_code;
    const uint8_t *data; /* TCP or UDP payload; ICMP after its 8 bytes */
    size_t len;
};

size_t fr_ip4(uint8_t *buf, uint8_t proto, uint32_t src, uint32_t dst, uint16_t id, uint16_t frag, const void *payload,
              size_t len);
size_t fr_tcp(uint8_t *buf, const struct fr_tcp *tcp);
size_t fr_udp(uint8_t *buf, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, const void *data, size_t len);
size_t fr_echo(uint8_t *buf, uint32_t src, uint32_t dst, uint16_t id, const void *data, size_t len);
size_t fr_arp(uint8_t *buf, const uint8_t sha[6], uint32_t sip, uint32_t tip);

/* The transport part (header and payload, checksummed) of a UDP datagram, for
 * tests that cut it into fragments. Returns its length. */
size_t fr_udp_part(uint8_t *buf, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, const void *data,
                   size_t len);

/* Leave the checksum of a TCP or UDP frame to the card: the field gets the sum
 * of the pseudo header, as a guest's kernel does. */
void fr_partial(uint8_t *frame);

/* RFC 1071. */
uint16_t fr_sum(const uint8_t *p, size_t len, uint32_t start);

/* False: truncated, or a checksum is wrong. Of ARP only ether_type, src and
 * dst (sender and target address) are filled in. */
bool fr_parse(const uint8_t *frame, size_t len, struct fr_packet *ret);

#endif
