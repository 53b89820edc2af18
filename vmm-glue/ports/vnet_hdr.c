/* SPDX-License-Identifier: BSD-3-Clause */
/* The virtio-net header; see vnet_hdr.h. */
#include "ports/vnet_hdr.h"

#include <linux/virtio_net.h>
#include <string.h>

/* VIRTIO_NET_HDR_GSO_UDP_L4 (virtio 1.3), which the headers of Linux before 6.2 do not have. Only sent: no port lets a
 * guest leave the cutting of datagrams to us. */
#define GSO_UDP_L4 5

static uint16_t get_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void sm_vnet_hdr_get(const uint8_t raw[SM_VNET_HLEN], struct sm_offload *ret)
{
    uint8_t flags = raw[0], gso = raw[1];

    *ret = (struct sm_offload){.hdr_len = get_le16(raw + 2),
                               .gso_size = get_le16(raw + 4),
                               .csum_start = get_le16(raw + 6),
                               .csum_offset = get_le16(raw + 8)};
    if (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        ret->flags |= SM_OFFLOAD_NEEDS_CSUM;
    if (flags & VIRTIO_NET_HDR_F_DATA_VALID)
        ret->flags |= SM_OFFLOAD_CSUM_OK;
    if (flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
        ret->flags |= SM_OFFLOAD_BAD;
    if (gso & VIRTIO_NET_HDR_GSO_ECN)
        ret->flags |= SM_OFFLOAD_ECN;
    gso &= (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    if (gso == VIRTIO_NET_HDR_GSO_TCPV4)
        ret->gso_type = SM_GSO_TCPV4;
    else if (gso != VIRTIO_NET_HDR_GSO_NONE)
        ret->flags |= SM_OFFLOAD_BAD;
}

void sm_vnet_hdr_put(const struct sm_offload *offload, uint8_t raw[SM_VNET_HLEN])
{
    memset(raw, 0, SM_VNET_HLEN);
    if (offload->flags & SM_OFFLOAD_NEEDS_CSUM)
        raw[0] |= VIRTIO_NET_HDR_F_NEEDS_CSUM;
    if (offload->flags & SM_OFFLOAD_CSUM_OK)
        raw[0] |= VIRTIO_NET_HDR_F_DATA_VALID;
    if (offload->gso_type == SM_GSO_TCPV4)
        raw[1] = VIRTIO_NET_HDR_GSO_TCPV4 | (offload->flags & SM_OFFLOAD_ECN ? VIRTIO_NET_HDR_GSO_ECN : 0);
    else if (offload->gso_type == SM_GSO_UDPV4)
        raw[1] = GSO_UDP_L4;
    put_le16(raw + 2, offload->hdr_len);
    put_le16(raw + 4, offload->gso_size);
    put_le16(raw + 6, offload->csum_start);
    put_le16(raw + 8, offload->csum_offset);
}
