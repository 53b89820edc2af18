/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * struct virtio_net_hdr_v1 (virtio 1.1, 5.1.6), little-endian, as bytes: what stands before each frame on a tap with
 * IFF_VNET_HDR and in a virtio-net ring. Translated to and from struct sm_offload and no more: whether it is true of the
 * frame is the guard's to say, and what has no name there comes out as SM_OFFLOAD_BAD, which the guard refuses.
 *
 *   0 flags   1 gso_type   2 hdr_len   4 gso_size   6 csum_start   8 csum_offset   10 num_buffers
 */
#ifndef SM_PORTS_VNET_HDR_H
#define SM_PORTS_VNET_HDR_H

#include "nat/port.h"

#define SM_VNET_HLEN 12
/** Offset of num_buffers, which is the ring's business: read by nobody, written as 0. */
#define SM_VNET_NUM_BUFFERS 10

void sm_vnet_hdr_get(const uint8_t raw[SM_VNET_HLEN], struct sm_offload *ret);
void sm_vnet_hdr_put(const struct sm_offload *offload, uint8_t raw[SM_VNET_HLEN]);

#endif
