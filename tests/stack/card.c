/* SPDX-License-Identifier: BSD-3-Clause */
/* card.c: segmentation and checksums by offset; see card.h. */
#include "card.h"

#include <stdbool.h>
#include <string.h>
#include <glib.h>

#define ETH 14
#define IP 20 /* the stack sends no options */
#define TCP 20

#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            cd_failed(#x, __LINE__);                                                                                   \
    } while (0)

static unsigned get16(const uint8_t *p)
{
    return (unsigned)(p[0] << 8 | p[1]);
}

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

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* The sum of the pseudo header of the transport part of a frame, which is `len` bytes. */
static uint32_t pseudo(const uint8_t *frame, size_t len)
{
    const uint8_t *ip = frame + ETH;

    return get16(ip + 12) + get16(ip + 14) + get16(ip + 16) + get16(ip + 18) + ip[9] + (uint32_t)len;
}

static void check_meta(const struct cd_card *card, const uint8_t *frame, size_t len, size_t first,
                       const SlirpFlowMeta *meta)
{
    const uint8_t *ip = frame + ETH, *l4 = ip + IP;
    bool tcp;

    if (!meta->needs_csum) {
        MUST(meta->csum_start == 0);
        MUST(meta->csum_offset == 0);
        MUST(meta->gso_size == 0);
        MUST(meta->hdr_len == 0);
        MUST(len <= ETH + MAX((size_t)card->mtu, 50));
        return;
    }
    MUST(card->offload & SLIRP_FLOW_OFFLOAD_CSUM);
    MUST(get16(frame + 12) == 0x0800);
    MUST(ip[0] == 0x45);
    MUST((get16(ip + 6) & 0x3fff) == 0); /* no fragment */
    MUST(get16(ip + 2) == len - ETH);
    tcp = ip[9] == FR_TCP;
    MUST(tcp || ip[9] == FR_UDP);
    MUST(meta->csum_start == ETH + IP);
    MUST(meta->csum_offset == (tcp ? 16 : 6));
    MUST(meta->hdr_len == ETH + IP + (tcp ? TCP : 8));
    MUST(first >= meta->hdr_len);
    if (tcp) {
        MUST(l4[12] >> 4 == TCP / 4);
    }
    MUST(get16(l4 + meta->csum_offset) == (uint16_t)~fr_sum(ip, 0, pseudo(frame, len - ETH - IP)));
    if (!meta->gso_size) {
        MUST(len <= (size_t)ETH + card->mtu);
        return;
    }
    MUST(card->offload & SLIRP_FLOW_OFFLOAD_TSO);
    MUST(tcp);
    MUST((l4[13] & (FR_SYN | FR_RST | FR_URG)) == 0);
    MUST(len - meta->hdr_len > meta->gso_size);
    MUST(meta->gso_size <= card->mtu - IP - TCP);
    if (card->mss) {
        MUST(meta->gso_size == card->mss);
    }
}

/* Each IPv4 packet, and each segment, has an identification of its own (RFC 6864). */
static void check_id(struct cd_card *card, const uint8_t *frame)
{
    uint32_t id = get16(frame + ETH + 4) | 0x10000;

    if (get16(frame + 12) != 0x0800 || (get16(frame + ETH + 6) & 0x1fff)) {
        return;
    }
    MUST(card->last_id == 0 || (uint16_t)(id - card->last_id - 1) < 0x8000);
    card->last_id = id;
}

static void finish(struct cd_card *card, uint8_t *frame, size_t len, const SlirpFlowMeta *meta,
                   void (*out)(const uint8_t *, size_t, void *), void *arg)
{
    uint8_t *l4 = frame + ETH + IP;
    uint16_t sum;

    if (meta->needs_csum) {
        put16(l4 + meta->csum_offset, 0);
        sum = fr_sum(l4, len - ETH - IP, pseudo(frame, len - ETH - IP));
        put16(l4 + meta->csum_offset, sum || frame[ETH + 9] == FR_TCP ? sum : 0xffff);
    }
    card->segments++;
    out(frame, len, arg);
}

/* What tcp_gso_segment() of a kernel does. */
static void cut(struct cd_card *card, const uint8_t *frame, size_t len, const SlirpFlowMeta *meta,
                void (*out)(const uint8_t *, size_t, void *), void *arg)
{
    uint8_t *piece = g_malloc(meta->hdr_len + (size_t)meta->gso_size);
    size_t all = len - meta->hdr_len, at, n;
    unsigned k = 0;

    for (at = 0; at < all; at += n, k++) {
        uint8_t *ip = piece + ETH, *l4 = ip + IP;

        n = MIN(all - at, (size_t)meta->gso_size);
        memcpy(piece, frame, meta->hdr_len);
        memcpy(piece + meta->hdr_len, frame + meta->hdr_len + at, n);
        put16(ip + 2, (unsigned)(meta->hdr_len - ETH + n));
        put16(ip + 4, (get16(ip + 4) + k) & 0xffff);
        put16(ip + 10, 0);
        put16(ip + 10, fr_sum(ip, IP, 0));
        put32(l4 + 4, get32(l4 + 4) + (uint32_t)at);
        if (at + n < all) {
            l4[13] &= (uint8_t) ~(FR_FIN | FR_PSH);
        }
        finish(card, piece, meta->hdr_len + n, meta, out, arg);
    }
    card->last_id += k - 1;
    g_free(piece);
}

void cd_take(struct cd_card *card, const struct iovec *iov, int cnt, const SlirpFlowMeta *meta,
             void (*out)(const uint8_t *frame, size_t len, void *arg), void *arg)
{
    size_t len = 0, at = 0;
    uint8_t *frame;
    int i;

    MUST(cnt >= 1 && cnt <= SLIRP_FLOW_IOV_MAX);
    for (i = 0; i < cnt; i++) {
        MUST(iov[i].iov_len > 0);
        len += iov[i].iov_len;
    }
    MUST(len <= FR_MAX);
    frame = g_malloc(len);
    for (i = 0; i < cnt; i++) {
        memcpy(frame + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    check_meta(card, frame, len, iov[0].iov_len, meta);
    check_id(card, frame);
    card->packets++;
    card->pieces = MAX(card->pieces, cnt);
    card->partial += meta->needs_csum;
    card->last = *meta;
    card->last_len = len;
    card->largest = MAX(card->largest, len);
    card->last_data = cnt > 1 ? iov[1].iov_base : NULL;
    if (meta->gso_size) {
        card->super++;
        cut(card, frame, len, meta, out, arg);
    } else {
        finish(card, frame, len, meta, out, arg);
    }
    g_free(frame);
}
