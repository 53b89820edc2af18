/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ARP (RFC 826), the answering side only: gateway and resolver are here, and so is every other address of the subnet.
 * Nobody else is on this wire; answering for them (RFC 1027) lets a packet to one reach the core, which refuses it at
 * once and on the record, where silence would be seconds of waiting and no line. A probe or announcement of the guest's
 * own address gets no answer (RFC 5227: an answer would be a conflict), nor does a probe for a third one: the guest may
 * have it. We never ask, because the guest's MAC is known from the start. One reply at most for each request, so a
 * flood costs only itself.
 */
#ifndef SM_NAT_ARP_H
#define SM_NAT_ARP_H

#include "nat/wire.h"

/** Room for an answer: the shortest Ethernet frame. */
#define SM_ARP_REPLY_LEN SM_ETH_MIN

/**
 * sm_arp_answer() - the answer to a frame that the guard passed as ARP.
 * Returns SM_ARP_REPLY_LEN, or 0 when there is none.
 */
size_t sm_arp_answer(const struct sm_link *link, const uint8_t *frame, size_t len, uint8_t out[SM_ARP_REPLY_LEN]);

#endif
