/* SPDX-License-Identifier: BSD-3-Clause */
/* What the guest gets: a message of our own, encoded anew from the records that the walk in response.c kept. */
#include "dns/message.h"
#include "dns/wire.h"

/* Header and question. Counts and TC are put in by finish(). */
static void begin(struct sm_dns_writer *w, const struct sm_dns_query *q, enum sm_dns_rcode rcode, uint8_t *out,
                  size_t cap)
{
    unsigned flags = SM_DNS_FLAG_QR | SM_DNS_FLAG_RA | (q->rd ? SM_DNS_FLAG_RD : 0u) | (q->cd ? SM_DNS_FLAG_CD : 0u);

    *w = (struct sm_dns_writer){.w = sm_wr_init(out, cap)};
    sm_wr_u16(&w->w, q->id);
    sm_wr_u16(&w->w, (uint16_t)(flags | ((unsigned)rcode & 15)));
    sm_wr_u16(&w->w, q->has_question);
    sm_wr_u32(&w->w, 0);
    sm_wr_u16(&w->w, 0);
    if (q->has_question) {
        sm_dns_write_name(w, &q->qname, false);
        sm_wr_u16(&w->w, q->qtype);
        sm_wr_u16(&w->w, q->qclass);
    }
}

static size_t finish(struct sm_dns_writer *w, const struct sm_dns_query *q, enum sm_dns_rcode rcode, unsigned answers,
                     unsigned authorities, bool truncated)
{
    if (q->edns)
        sm_dns_write_opt(&w->w, rcode, q->dnssec_ok);
    if (w->w.bad)
        return 0;
    uint8_t *head = w->w.p;
    if (truncated)
        head[2] |= SM_DNS_FLAG_TC >> 8;
    head[6] = (uint8_t)(answers >> 8);
    head[7] = (uint8_t)answers;
    head[8] = (uint8_t)(authorities >> 8);
    head[9] = (uint8_t)authorities;
    head[11] = q->edns;
    return w->w.len;
}

/* One kept record. Returns 1 when it was written, 0 when it had to be left out, -1 when there is no room (the writer is
 * as before). */
static int write_record(struct sm_dns_writer *w, const struct sm_dns_response *resp, const struct sm_dns_kept *kept)
{
    struct sm_dns_writer before = *w;
    struct sm_rd r = {.p = resp->msg, .len = resp->msg_len, .pos = kept->off};
    struct sm_dns_name owner;

    sm_dns_name_read(&r, &owner);
    uint16_t type = sm_rd_u16(&r);
    uint16_t class = sm_rd_u16(&r);
    uint32_t ttl = sm_rd_u32(&r);
    uint16_t rdlen = sm_rd_u16(&r);
    struct sm_rd rdata = {.p = r.p, .len = r.pos + rdlen, .pos = r.pos, .bad = r.bad || rdlen > sm_rd_left(&r)};

    sm_dns_write_name(w, &owner, true);
    sm_wr_u16(&w->w, type);
    sm_wr_u16(&w->w, class);
    sm_wr_u32(&w->w, ttl > INT32_MAX ? 0 : ttl);
    bool good = !rdata.bad && sm_dns_write_rdata(w, type, &rdata);
    if (good && !w->w.bad)
        return 1;
    *w = before;
    return good ? -1 : 0;
}

size_t sm_dns_reply_encode(const struct sm_dns_query *q, const struct sm_dns_response *resp, bool no_h3, size_t max,
                           uint8_t *out, size_t cap, bool *ret_truncated)
{
    struct sm_dns_writer w;
    unsigned counts[2] = {0, 0};
    size_t room = SM_MIN(max, cap);
    bool full = resp->truncated;
    enum sm_dns_rcode rcode = resp->rcode;

    /* Without an OPT there is no place for a number over 15. */
    if (rcode > 15 && !q->edns)
        rcode = SM_DNS_SERVFAIL;
    *ret_truncated = false;
    if (room < SM_DNS_HEADER + SM_DNS_OPT_LEN)
        return 0;
    begin(&w, q, rcode, out, room - (q->edns ? SM_DNS_OPT_LEN : 0));
    w.no_h3 = no_h3;
    size_t question_end = w.w.len;
    for (unsigned i = 0; i < resp->n_keep && !full && !w.w.bad; i++) {
        const struct sm_dns_kept *kept = &resp->keep[i];
        int wrote = write_record(&w, resp, kept);
        if (wrote > 0)
            counts[kept->authority]++;
        else if (wrote < 0 && kept->authority)
            break; /* RFC 2181 section 9: only what the answer needs makes it truncated */
        else if (wrote < 0)
            full = true;
    }
    if (full) {
        w.w.len = question_end;
        counts[0] = counts[1] = 0;
        *ret_truncated = true;
    }
    w.w.cap = room;
    return finish(&w, q, rcode, counts[0], counts[1], full);
}

size_t sm_dns_reply_simple(const struct sm_dns_query *q, enum sm_dns_rcode rcode, uint8_t *out, size_t cap)
{
    struct sm_dns_writer w;

    begin(&w, q, rcode, out, cap);
    return finish(&w, q, rcode, 0, 0, false);
}

const char *sm_dns_rcode_name(enum sm_dns_rcode rcode)
{
    switch (rcode) {
    case SM_DNS_NOERROR:
        return "NOERROR";
    case SM_DNS_FORMERR:
        return "FORMERR";
    case SM_DNS_SERVFAIL:
        return "SERVFAIL";
    case SM_DNS_NXDOMAIN:
        return "NXDOMAIN";
    case SM_DNS_NOTIMP:
        return "NOTIMP";
    case SM_DNS_REFUSED:
        return "REFUSED";
    case SM_DNS_BADVERS:
        return "BADVERS";
    }
    return "RCODE";
}

const char *sm_dns_type_name(uint16_t type)
{
    static const struct {
        uint16_t type;
        const char *name;
    } names[] = {
        {SM_DNS_A, "A"},       {SM_DNS_NS, "NS"},       {SM_DNS_CNAME, "CNAME"}, {SM_DNS_SOA, "SOA"},
        {SM_DNS_PTR, "PTR"},   {SM_DNS_MX, "MX"},       {SM_DNS_TXT, "TXT"},     {SM_DNS_AAAA, "AAAA"},
        {SM_DNS_SRV, "SRV"},   {SM_DNS_DNAME, "DNAME"}, {SM_DNS_OPT, "OPT"},     {SM_DNS_RRSIG, "RRSIG"},
        {SM_DNS_NSEC, "NSEC"}, {SM_DNS_NSEC3, "NSEC3"}, {SM_DNS_SVCB, "SVCB"},   {SM_DNS_HTTPS, "HTTPS"},
        {SM_DNS_IXFR, "IXFR"}, {SM_DNS_AXFR, "AXFR"},   {SM_DNS_ANY, "ANY"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        if (names[i].type == type)
            return names[i].name;
    return NULL;
}
