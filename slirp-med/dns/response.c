/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which records of a response belong to its question? The walk starts at the question's name, takes one CNAME a step,
 * and at the end takes the records of the asked type. What the walk does not come to is as if it had not been sent.
 */
#include "dns/message.h"
#include "dns/wire.h"

/* A record by its place; its owner is decompressed when it is asked for. */
struct record {
    uint32_t ttl;
    uint16_t off; /* of the owner */
    uint16_t type;
    uint16_t rdata;
    uint16_t rdlen;
    bool in; /* class IN */
    bool used;
};

struct walk {
    struct sm_dns_response *resp;
    const struct sm_dns_query *q;
    struct record *records; /* the answer section first, then the authority section */
    unsigned n_answer;
    unsigned n_authority;
};

/* An owner that cannot be read makes r bad; the caller looks at it once, after all records. */
static void read_record(struct sm_rd *r, struct record *ret)
{
    struct sm_dns_name owner;

    *ret = (struct record){.off = (uint16_t)r->pos};
    sm_dns_name_read(r, &owner);
    ret->type = sm_rd_u16(r);
    ret->in = sm_rd_u16(r) == SM_DNS_CLASS_IN;
    ret->ttl = sm_rd_u32(r);
    ret->rdlen = sm_rd_u16(r);
    ret->rdata = (uint16_t)r->pos;
    sm_rd_skip(r, ret->rdlen);
    /* RFC 2181 section 8: a TTL with the top bit set is zero. */
    if (ret->ttl > INT32_MAX)
        ret->ttl = 0;
}

static struct sm_rd reader_at(const struct walk *w, size_t pos, size_t end)
{
    return (struct sm_rd){.p = w->resp->msg, .len = end, .pos = pos};
}

static bool owner_is(const struct walk *w, const struct record *rec, const struct sm_dns_name *name)
{
    struct sm_rd r = reader_at(w, rec->off, w->resp->msg_len);
    struct sm_dns_name owner;
    return sm_dns_name_read(&r, &owner) && sm_dns_name_equal(&owner, name);
}

/* Is the record's owner a proper ancestor of name (up), or below it or equal (down)? */
static bool owner_above(const struct walk *w, const struct record *rec, const struct sm_dns_name *name)
{
    struct sm_rd r = reader_at(w, rec->off, w->resp->msg_len);
    struct sm_dns_name owner;
    return sm_dns_name_read(&r, &owner) && owner.len < name->len && sm_dns_name_within(name, &owner);
}

static uint16_t covered_type(const struct walk *w, const struct record *rec)
{
    struct sm_rd r = reader_at(w, rec->rdata, (size_t)rec->rdata + rec->rdlen);
    return sm_rd_u16(&r);
}

/* Each record is kept at most once, so the table cannot overflow. */
static void keep(struct walk *w, struct record *rec, bool authority)
{
    if (rec->used)
        return;
    rec->used = true;
    w->resp->keep[w->resp->n_keep++] = (struct sm_dns_kept){.off = rec->off, .authority = authority};
    if (!authority)
        w->resp->min_ttl = SM_MIN(w->resp->min_ttl, rec->ttl);
}

/* Signatures over `type` at `name`. They do not count for the TTL. */
static void keep_signatures(struct walk *w, const struct sm_dns_name *name, uint16_t type)
{
    uint32_t ttl = w->resp->min_ttl;

    if (!w->q->dnssec_ok || type == SM_DNS_SVCB || type == SM_DNS_HTTPS)
        return; /* those records are changed on their way: a signature would only be wrong */
    for (unsigned i = 0; i < w->n_answer; i++) {
        struct record *rec = &w->records[i];
        if (rec->in && rec->type == SM_DNS_RRSIG && covered_type(w, rec) == type && owner_is(w, rec, name))
            keep(w, rec, false);
    }
    w->resp->min_ttl = ttl;
}

/* One step along the chain. Returns 1 when *name moved on, 0 at the end of the chain, -1 when the answer cannot be
 * believed. */
static int step(struct walk *w, struct sm_dns_name *name)
{
    struct record *cname = NULL;

    for (unsigned i = 0; i < w->n_answer; i++) {
        struct record *rec = &w->records[i];
        if (!rec->in || rec->type != SM_DNS_CNAME || !owner_is(w, rec, name))
            continue;
        if (cname || rec->used)
            return -1; /* two targets, or a loop */
        cname = rec;
    }
    if (!cname)
        return 0;
    for (unsigned i = 0; i < w->n_answer; i++) {
        struct record *rec = &w->records[i];
        if (rec->in && rec->type == SM_DNS_DNAME && owner_above(w, rec, name))
            keep(w, rec, false);
    }
    keep(w, cname, false);
    keep_signatures(w, name, SM_DNS_CNAME);
    struct sm_rd r = reader_at(w, cname->rdata, (size_t)cname->rdata + cname->rdlen);
    return sm_dns_name_read(&r, name) && sm_rd_done(&r) ? 1 : -1;
}

/* An address record at the end of the chain; false when it is none. */
static bool take_address(struct walk *w, const struct record *rec)
{
    struct sm_dns_response *resp = w->resp;
    struct sm_rd r = reader_at(w, rec->rdata, (size_t)rec->rdata + rec->rdlen);
    struct sm_addr addr = {.family = rec->type == SM_DNS_A ? SM_FAMILY_V4 : SM_FAMILY_V6};

    sm_rd_bytes(&r, addr.bytes, rec->type == SM_DNS_A ? 4 : 16);
    if (!sm_rd_done(&r))
        return false;
    resp->addrs[resp->n_addrs++] = addr;
    return true;
}

static bool take_final(struct walk *w)
{
    struct sm_dns_response *resp = w->resp;
    bool address = w->q->qtype == SM_DNS_A || w->q->qtype == SM_DNS_AAAA;

    for (unsigned i = 0; i < w->n_answer; i++) {
        struct record *rec = &w->records[i];
        if (!rec->in || rec->used || rec->type != w->q->qtype || !owner_is(w, rec, &resp->final))
            continue;
        if (address) {
            if (resp->n_addrs == SM_DNS_ADDRS_MAX)
                continue;
            if (!take_address(w, rec))
                return false;
        }
        keep(w, rec, false);
        resp->n_final++;
    }
    if (resp->n_final > 0)
        keep_signatures(w, &resp->final, w->q->qtype);
    return true;
}

/* What a negative answer needs (RFC 2308; with DO also RFC 4035 3.1.3). */
static void take_authority(struct walk *w)
{
    struct record *begin = w->records + w->n_answer;
    struct record *end = begin + w->n_authority;
    struct record *soa = NULL;
    struct sm_dns_name zone;

    for (struct record *rec = begin; rec < end && !soa; rec++)
        if (rec->in && rec->type == SM_DNS_SOA &&
            (owner_is(w, rec, &w->resp->final) || owner_above(w, rec, &w->resp->final)))
            soa = rec;
    if (!soa)
        return;
    keep(w, soa, true);
    struct sm_rd r = reader_at(w, soa->off, w->resp->msg_len);
    if (!w->q->dnssec_ok || !sm_dns_name_read(&r, &zone))
        return;
    for (struct record *rec = begin; rec < end; rec++) {
        if (!rec->in || (rec->type != SM_DNS_NSEC && rec->type != SM_DNS_NSEC3 && rec->type != SM_DNS_RRSIG))
            continue;
        struct sm_dns_name owner;
        r = reader_at(w, rec->off, w->resp->msg_len);
        if (sm_dns_name_read(&r, &owner) && sm_dns_name_within(&owner, &zone))
            keep(w, rec, true);
    }
}

enum sm_dns_response_result sm_dns_response_parse(const uint8_t *msg, size_t len, uint16_t id,
                                                  const struct sm_dns_query *q, struct sm_dns_response *ret)
{
    struct record records[SM_DNS_RECORDS_MAX];
    struct sm_rd r = sm_rd_init(msg, len);
    struct sm_dns_name name;
    bool opt = false;

    uint16_t got_id = sm_rd_u16(&r);
    uint16_t flags = sm_rd_u16(&r);
    uint16_t questions = sm_rd_u16(&r);
    unsigned answers = sm_rd_u16(&r);
    unsigned authorities = sm_rd_u16(&r);
    unsigned additionals = sm_rd_u16(&r);
    if (r.bad || len > SM_DNS_MESSAGE_MAX || got_id != id || !(flags & SM_DNS_FLAG_QR) || SM_DNS_OPCODE(flags) != 0 ||
        questions != 1)
        return SM_DNS_RESPONSE_MISMATCH;
    sm_dns_name_read(&r, &name);
    uint16_t qtype = sm_rd_u16(&r);
    uint16_t qclass = sm_rd_u16(&r);
    if (r.bad || !sm_dns_name_equal(&name, &q->qname) || qtype != q->qtype || qclass != SM_DNS_CLASS_IN)
        return SM_DNS_RESPONSE_MISMATCH;

    ret->msg = msg;
    ret->msg_len = len;
    ret->rcode = (enum sm_dns_rcode)(flags & 15);
    ret->truncated = flags & SM_DNS_FLAG_TC;
    ret->final = q->qname;
    ret->chain_len = 0;
    ret->min_ttl = UINT32_MAX;
    ret->n_final = 0;
    ret->n_addrs = 0;
    ret->n_keep = 0;

    if (answers + authorities + additionals > SM_DNS_RECORDS_MAX)
        return SM_DNS_RESPONSE_MALFORMED;
    for (unsigned i = 0; i < answers + authorities + additionals && !r.bad; i++) {
        read_record(&r, &records[i]);
        if (records[i].type != SM_DNS_OPT)
            continue;
        if (opt || i < answers + authorities)
            return SM_DNS_RESPONSE_MALFORMED;
        opt = true;
        ret->rcode = (enum sm_dns_rcode)((flags & 15) | (records[i].ttl >> 24 & 0x7f) << 4);
    }
    if (!sm_rd_done(&r))
        return SM_DNS_RESPONSE_MALFORMED;
    ret->edns = opt;

    struct walk w = {.resp = ret, .q = q, .records = records, .n_answer = answers, .n_authority = authorities};
    int moved = 0;
    while (q->qtype != SM_DNS_CNAME && (moved = step(&w, &ret->final)) == 1)
        if (++ret->chain_len > SM_DNS_CHAIN_MAX)
            return SM_DNS_RESPONSE_MALFORMED;
    if (moved < 0 || !take_final(&w))
        return SM_DNS_RESPONSE_MALFORMED;
    take_authority(&w);
    if (ret->min_ttl == UINT32_MAX)
        ret->min_ttl = 0;
    return SM_DNS_RESPONSE_OK;
}
