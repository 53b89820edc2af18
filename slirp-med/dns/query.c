/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest's question in, and the question for the upstream out; nothing but the meaning of the first goes into the
 * second. */
#include "dns/message.h"
#include "dns/wire.h"

#define UDP_SIZE_DEFAULT 512

static enum sm_dns_query_result fail(enum sm_dns_rcode rcode, enum sm_dns_rcode *ret_rcode)
{
    *ret_rcode = rcode;
    return SM_DNS_QUERY_ERROR;
}

/* RFC 6891 6.1.2. Options are walked, so that a lying length is a format error, and then forgotten. */
static bool read_opt(struct sm_rd *r, struct sm_dns_query *q, uint8_t *ret_version)
{
    uint8_t root = sm_rd_u8(r);
    uint16_t type = sm_rd_u16(r);
    uint16_t size = sm_rd_u16(r);
    sm_rd_skip(r, 1);
    uint8_t version = sm_rd_u8(r);
    uint16_t flags = sm_rd_u16(r);
    struct sm_rd options = sm_rd_sub(r, sm_rd_u16(r));

    if (r->bad || root != 0 || type != SM_DNS_OPT)
        return false;
    while (sm_rd_left(&options) > 0) {
        sm_rd_skip(&options, 2);
        sm_rd_skip(&options, sm_rd_u16(&options));
    }
    if (options.bad)
        return false;
    q->edns = true;
    q->udp_size = SM_MIN(SM_MAX(size, (uint16_t)UDP_SIZE_DEFAULT), (uint16_t)SM_DNS_UDP_MAX);
    q->dnssec_ok = flags & 0x8000;
    *ret_version = version;
    return true;
}

enum sm_dns_query_result sm_dns_query_parse(const uint8_t *msg, size_t len, struct sm_dns_query *ret,
                                            enum sm_dns_rcode *ret_rcode)
{
    struct sm_rd r = sm_rd_init(msg, len);
    uint8_t version = 0;

    ret->id = sm_rd_u16(&r);
    uint16_t flags = sm_rd_u16(&r);
    uint16_t questions = sm_rd_u16(&r);
    uint16_t answers = sm_rd_u16(&r);
    uint16_t authorities = sm_rd_u16(&r);
    uint16_t additionals = sm_rd_u16(&r);
    ret->rd = flags & SM_DNS_FLAG_RD;
    ret->cd = flags & SM_DNS_FLAG_CD;
    ret->has_question = false;
    ret->qname.len = 0;
    ret->qtype = 0;
    ret->qclass = 0;
    ret->edns = false;
    ret->udp_size = UDP_SIZE_DEFAULT;
    ret->dnssec_ok = false;

    if (r.bad || flags & SM_DNS_FLAG_QR)
        return SM_DNS_QUERY_DROP;
    if (SM_DNS_OPCODE(flags) != 0)
        return fail(SM_DNS_NOTIMP, ret_rcode);
    if (len > SM_DNS_QUERY_MAX || questions != 1 || answers != 0 || authorities != 0 || additionals > 1 ||
        flags & SM_DNS_FLAG_TC)
        return fail(SM_DNS_FORMERR, ret_rcode);
    if (!sm_dns_name_read(&r, &ret->qname))
        return fail(SM_DNS_FORMERR, ret_rcode);
    ret->qtype = sm_rd_u16(&r);
    ret->qclass = sm_rd_u16(&r);
    ret->has_question = !r.bad;
    if (r.bad || (additionals == 1 && !read_opt(&r, ret, &version)) || !sm_rd_done(&r))
        return fail(SM_DNS_FORMERR, ret_rcode);
    if (version != 0)
        return fail(SM_DNS_BADVERS, ret_rcode);
    if (ret->qclass != SM_DNS_CLASS_IN)
        return fail(SM_DNS_REFUSED, ret_rcode);
    if (ret->qtype == 0 || ret->qtype == SM_DNS_OPT)
        return fail(SM_DNS_FORMERR, ret_rcode);
    return SM_DNS_QUERY_OK;
}

size_t sm_dns_query_build(const struct sm_dns_query *q, uint16_t id, uint8_t *out, size_t cap)
{
    struct sm_wr w = sm_wr_init(out, cap);

    sm_wr_u16(&w, id);
    sm_wr_u16(&w, SM_DNS_FLAG_RD);
    sm_wr_u16(&w, 1);
    sm_wr_u32(&w, 0);
    sm_wr_u16(&w, 1);
    sm_wr_bytes(&w, q->qname.wire, q->qname.len);
    sm_wr_u16(&w, q->qtype);
    sm_wr_u16(&w, SM_DNS_CLASS_IN);
    sm_dns_write_opt(&w, SM_DNS_NOERROR, q->dnssec_ok);
    return w.bad ? 0 : w.len;
}

size_t sm_dns_frame_next(const uint8_t *data, size_t len, size_t max, const uint8_t **ret_msg, size_t *ret_msg_len,
                         bool *ret_bad)
{
    struct sm_rd r = sm_rd_init(data, len);
    size_t n = sm_rd_u16(&r);

    *ret_bad = !r.bad && (n < SM_DNS_HEADER || n > max);
    if (*ret_bad)
        return 0;
    const uint8_t *msg = sm_rd_take(&r, n);
    if (!msg)
        return 0;
    *ret_msg = msg;
    *ret_msg_len = n;
    return r.pos;
}
