/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The numbers of the vhost-user protocol and of virtio 1.1 as the front-end's side needs them.
 *
 * Written from the vhost-user specification (QEMU's docs/interop/vhost-user) and from virtio 1.1 (2.6 split rings, 5.1
 * network device), apart from the back-end's own header: a number that is wrong there must not be wrong here too.
 */
#ifndef TESTS_VHOST_WIRE_H
#define TESTS_VHOST_WIRE_H

#include <stdint.h>

/* ---- vhost-user messages: u32 request, u32 flags, u32 payload size, payload; all little endian ---- */

#define VU_HEADER 12
#define VU_VERSION 0x1u
#define VU_REPLY (1u << 2)
#define VU_NEED_REPLY (1u << 3)

enum vu_request {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_OWNER = 3,
    VU_RESET_OWNER = 4,
    VU_SET_MEM_TABLE = 5,
    VU_SET_LOG_BASE = 6,
    VU_SET_LOG_FD = 7,
    VU_SET_VRING_NUM = 8,
    VU_SET_VRING_ADDR = 9,
    VU_SET_VRING_BASE = 10,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_SET_VRING_CALL = 13,
    VU_SET_VRING_ERR = 14,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_SET_PROTOCOL_FEATURES = 16,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_VRING_ENABLE = 18,
    VU_SEND_RARP = 19,
    VU_NET_SET_MTU = 20,
    VU_GET_CONFIG = 24,
    VU_SET_CONFIG = 25,
    VU_GET_INFLIGHT_FD = 31,
    VU_SET_INFLIGHT_FD = 32,
    VU_RESET_DEVICE = 34,
    VU_GET_MAX_MEM_SLOTS = 36,
    VU_ADD_MEM_REG = 37,
    VU_REM_MEM_REG = 38,
    VU_SET_STATUS = 39,
    VU_GET_STATUS = 40,
};

#define VU_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)

#define VU_P_MQ (UINT64_C(1) << 0)
#define VU_P_LOG_SHMFD (UINT64_C(1) << 1)
#define VU_P_RARP (UINT64_C(1) << 2)
#define VU_P_REPLY_ACK (UINT64_C(1) << 3)
#define VU_P_MTU (UINT64_C(1) << 4)
#define VU_P_CONFIG (UINT64_C(1) << 9)
#define VU_P_INFLIGHT (UINT64_C(1) << 12)
#define VU_P_CONFIGURE_MEM_SLOTS (UINT64_C(1) << 15)

/** In the u64 of SET_VRING_KICK, CALL and ERR: the ring's index, and "no descriptor comes with this". */
#define VU_VRING_INDEX 0xffu
#define VU_VRING_NOFD (1u << 8)

/** SET_MEM_TABLE: u32 count, u32 padding, then per region: guest address, size, the VMM's address, offset in the file.
 */
#define VU_REGION 32
#define VU_TABLE_REGIONS 8

/* ---- virtio ---- */

#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

#define NET_F_CSUM (UINT64_C(1) << 0)
#define NET_F_GUEST_CSUM (UINT64_C(1) << 1)
#define NET_F_GUEST_TSO4 (UINT64_C(1) << 7)
#define NET_F_GUEST_ECN (UINT64_C(1) << 9)
#define NET_F_HOST_TSO4 (UINT64_C(1) << 11)
#define NET_F_HOST_ECN (UINT64_C(1) << 13)
#define NET_F_MRG_RXBUF (UINT64_C(1) << 15)

#define NET_RX 0
#define NET_TX 1

#define DESC_NEXT 1
#define DESC_WRITE 2
#define DESC_INDIRECT 4
#define DESC_LEN 16

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

/** virtio_net_hdr with VERSION_1: u8 flags, u8 gso_type, then u16 hdr_len, gso_size, csum_start, csum_offset,
 * num_buffers. */
#define NET_HDR 12
#define NET_HDR_NEEDS_CSUM 1
#define NET_HDR_DATA_VALID 2
#define NET_GSO_NONE 0
#define NET_GSO_TCPV4 1
#define NET_GSO_UDP 3
#define NET_GSO_TCPV6 4
#define NET_GSO_ECN 0x80

#endif
