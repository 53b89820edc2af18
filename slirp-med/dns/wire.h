/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer's half of a DNS message, shared by query.c and reply.c: header bits, names with compression against what
 * this message already holds, and RDATA of other messages written anew. Private to dns/.
 */
#ifndef SM_DNS_WIRE_H
#define SM_DNS_WIRE_H

#include "dns/message.h"

#define SM_DNS_HEADER 12
#define SM_DNS_OPT_LEN SM_DNS_UPSTREAM_OPT_LEN
#define SM_DNS_CLASS_IN 1
/** Label positions remembered for compression: more would make encoding slow for a hostile answer and shorter for none.
 */
#define SM_DNS_COMPRESS_MAX 64

enum sm_dns_flag {
    SM_DNS_FLAG_QR = 0x8000,
    SM_DNS_FLAG_TC = 0x0200,
    SM_DNS_FLAG_RD = 0x0100,
    SM_DNS_FLAG_RA = 0x0080,
    SM_DNS_FLAG_CD = 0x0010,
};
#define SM_DNS_OPCODE(flags) ((flags) >> 11 & 15)

struct sm_dns_writer {
    struct sm_wr w;
    uint16_t seen[SM_DNS_COMPRESS_MAX]; /* offsets of labels that a pointer may go to */
    unsigned n_seen;
    bool no_h3; /* SVCB and HTTPS lose HTTP/3 too (sm_dns_reply_encode()) */
};

/** sm_dns_write_name() - compressed when asked (RFC 1035 4.1.4), and remembered for later names either way. */
void sm_dns_write_name(struct sm_dns_writer *w, const struct sm_dns_name *name, bool compress);
/** sm_dns_write_opt() - our own OPT without options. */
void sm_dns_write_opt(struct sm_wr *w, enum sm_dns_rcode rcode, bool dnssec_ok);
/**
 * sm_dns_write_rdata() - RDLENGTH and RDATA of a record of another message, every name in it decompressed first.
 * @r: over that message from its first byte, ending where the RDATA ends, standing where it begins.
 * Return: false when the RDATA is malformed or of a type that cannot be carried; then drop the record. A full buffer is
 * w->w.bad.
 */
bool sm_dns_write_rdata(struct sm_dns_writer *w, uint16_t type, struct sm_rd *r);

#endif
