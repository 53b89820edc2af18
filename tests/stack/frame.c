/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame.c: building and reading frames, by offset, so that nothing in the
 * tests shares a structure with the code they test.
 */
#include "frame.h"

#include <string.h>

const uint8_t fr_guest_mac[6] = {0x02, 0x53, 0x4d, 0x00, 0x00, 0x01};
const uint8_t fr_gateway_mac[6] = {0x52, 0x55, 10, 0, 2, 2};

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

uint16_t fr_sum(const uint8_t *p, size_t len, uint32_t start)
{
    uint64_t sum = start;

    for (; len > 1; p += 2, len -= 2) {
        sum += get16(p);
    }
    if (len) {
        sum += (uint64_t)p[0] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static uint32_t pseudo(uint32_t src, uint32_t dst, uint8_t proto, size_t len)
{
    return (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + (uint32_t)len;
}

size_t fr_ip4(uint8_t *buf, uint8_t proto, uint32_t src, uint32_t dst, uint16_t id, uint16_t frag, const void *payload,
              size_t len)
{
    uint8_t *ip = buf + 14;

    memcpy(buf, fr_gateway_mac, 6);
    memcpy(buf + 6, fr_guest_mac, 6);
    put16(buf + 12, 0x0800);
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)(20 + len));
    put16(ip + 4, id);
    put16(ip + 6, frag);
    ip[8] = 64;
    ip[9] = proto;
    put32(ip + 12, src);
    put32(ip + 16, dst);
    put16(ip + 10, fr_sum(ip, 20, 0));
    if (payload && len && payload != ip + 20) {
        memcpy(ip + 20, payload, len);
    }
    return 34 + len;
}

size_t fr_tcp(uint8_t *buf, const struct fr_tcp *tcp)
{
    uint8_t *p = buf + 34;
    size_t head = 20;

    memset(p, 0, 20);
    put16(p, tcp->sport);
    put16(p + 2, tcp->dport);
    put32(p + 4, tcp->seq);
    put32(p + 8, tcp->ack);
    p[13] = tcp->flags;
    put16(p + 14, tcp->win);
    put16(p + 18, tcp->urp);
    if (tcp->mss) {
        p[head] = 2;
        p[head + 1] = 4;
        put16(p + head + 2, tcp->mss);
        head += 4;
    }
    if (tcp->nopts) {
        memcpy(p + head, tcp->opts, tcp->nopts);
        head += tcp->nopts;
    }
    p[12] = (uint8_t)(head / 4 << 4);
    if (tcp->len) {
        memcpy(p + head, tcp->data, tcp->len);
    }
    put16(p + 16, fr_sum(p, head + tcp->len, pseudo(tcp->src, tcp->dst, FR_TCP, head + tcp->len)));
    return fr_ip4(buf, FR_TCP, tcp->src, tcp->dst, 1, 0x4000, p, head + tcp->len);
}

size_t fr_udp_part(uint8_t *p, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, const void *data, size_t len)
{
    uint16_t sum;

    put16(p, sport);
    put16(p + 2, dport);
    put16(p + 4, (unsigned)(8 + len));
    put16(p + 6, 0);
    if (len) {
        memcpy(p + 8, data, len);
    }
    sum = fr_sum(p, 8 + len, pseudo(src, dst, FR_UDP, 8 + len));
    put16(p + 6, sum ? sum : 0xffff);
    return 8 + len;
}

size_t fr_udp(uint8_t *buf, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, const void *data, size_t len)
{
    size_t n = fr_udp_part(buf + 34, src, dst, sport, dport, data, len);

    return fr_ip4(buf, FR_UDP, src, dst, 1, 0x4000, buf + 34, n);
}

size_t fr_echo(uint8_t *buf, uint32_t src, uint32_t dst, uint16_t id, const void *data, size_t len)
{
    uint8_t *p = buf + 34;

    memset(p, 0, 8);
    p[0] = 8;
    put16(p + 4, id);
    if (len) {
        memcpy(p + 8, data, len);
    }
    put16(p + 2, fr_sum(p, 8 + len, 0));
    return fr_ip4(buf, FR_ICMP, src, dst, 1, 0, p, 8 + len);
}

size_t fr_arp(uint8_t *buf, const uint8_t sha[6], uint32_t sip, uint32_t tip)
{
    uint8_t *p = buf + 14;

    memset(buf, 0xff, 6);
    memcpy(buf + 6, fr_guest_mac, 6);
    put16(buf + 12, 0x0806);
    memset(p, 0, 28);
    put16(p, 1);
    put16(p + 2, 0x0800);
    p[4] = 6;
    p[5] = 4;
    put16(p + 6, 1);
    memcpy(p + 8, sha, 6);
    put32(p + 14, sip);
    put32(p + 24, tip);
    return 42;
}

void fr_partial(uint8_t *frame)
{
    uint8_t *ip = frame + 14;
    size_t head = (size_t)(ip[0] & 15) * 4, len = get16(ip + 2) - head;

    put16(ip + head + (ip[9] == FR_TCP ? 16 : 6),
          (uint16_t)~fr_sum(ip, 0, pseudo(get32(ip + 12), get32(ip + 16), ip[9], len)));
}

static bool parse_tcp(const uint8_t *p, size_t len, struct fr_packet *ret)
{
    size_t head, i;

    if (len < 20 || fr_sum(p, len, pseudo(ret->src, ret->dst, FR_TCP, len)) != 0) {
        return false;
    }
    head = (size_t)(p[12] >> 4) * 4;
    if (head < 20 || head > len) {
        return false;
    }
    ret->seq = get32(p + 4);
    ret->ack = get32(p + 8);
    ret->flags = p[13];
    ret->win = get16(p + 14);
    for (i = 20; i + 3 <= head && p[i] != 0; i += p[i] == 1 ? 1 : (p[i + 1] ? p[i + 1] : 40)) {
        if (p[i] == 2 && i + 4 <= head) {
            ret->mss = get16(p + i + 2);
        }
        if (p[i] == 3) {
            ret->scaled = true;
            ret->scale = p[i + 2];
        }
    }
    ret->data = p + head;
    ret->len = len - head;
    return true;
}

bool fr_parse(const uint8_t *frame, size_t len, struct fr_packet *ret)
{
    const uint8_t *ip, *p;
    size_t head, total;

    memset(ret, 0, sizeof(*ret));
    if (len < 34) {
        return false;
    }
    ip = frame + 14;
    ret->ether_type = get16(frame + 12);
    if (ret->ether_type == 0x0806) {
        ret->src = get32(frame + 28);
        ret->dst = get32(frame + 38);
        return len >= 42;
    }
    head = (size_t)(ip[0] & 15) * 4;
    total = get16(ip + 2);
    if (ret->ether_type != 0x0800 || ip[0] >> 4 != 4 || head < 20 || total < head || total > len - 14 ||
        fr_sum(ip, head, 0) != 0) {
        return false;
    }
    ret->proto = ip[9];
    ret->src = get32(ip + 12);
    ret->dst = get32(ip + 16);
    ret->frag = get16(ip + 6);
    p = ip + head;
    total -= head;
    if (ret->frag & 0x3fff) { /* a fragment: no transport header to look at */
        ret->data = p;
        ret->len = total;
        return true;
    }
    if (ret->proto == FR_ICMP) {
        if (total < 8 || fr_sum(p, total, 0) != 0) {
            return false;
        }
        ret->icmp_type = p[0];
        ret->icmp_code = p[1];
        ret->data = p + 8;
        ret->len = total - 8;
        return true;
    }
    if (total < 8) {
        return false;
    }
    ret->sport = get16(p);
    ret->dport = get16(p + 2);
    if (ret->proto == FR_TCP) {
        return parse_tcp(p, total, ret);
    }
    if (ret->proto != FR_UDP || get16(p + 4) != total ||
        (get16(p + 6) && fr_sum(p, total, pseudo(ret->src, ret->dst, FR_UDP, total)) != 0)) {
        return false;
    }
    ret->data = p + 8;
    ret->len = total - 8;
    return true;
}
