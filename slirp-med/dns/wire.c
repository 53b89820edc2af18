/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing names and RDATA. RDATA that may hold names cannot be copied from one message to another, because a compressed
 * name points into the message it came from (RFC 3597 section 4); so each such type is described here once, and
 * everything else is opaque by that same RFC.
 */
#include "dns/wire.h"

#include <string.h>

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* Is the name that we wrote at offset off equal to the wire form at name? Our own pointers go backwards and end. */
static bool written_equals(const struct sm_wr *w, size_t off, const uint8_t *name)
{
    for (;;) {
        uint8_t n = w->p[off];
        if ((n & 0xc0) == 0xc0) {
            off = (size_t)(n & 0x3f) << 8 | w->p[off + 1];
            continue;
        }
        if (n != name[0])
            return false;
        if (n == 0)
            return true;
        for (unsigned i = 1; i <= n; i++)
            if (lower(w->p[off + i]) != lower(name[i]))
                return false;
        off += 1u + n;
        name += 1u + n;
    }
}

void sm_dns_write_name(struct sm_dns_writer *w, const struct sm_dns_name *name, bool compress)
{
    unsigned known = w->n_seen; /* labels of this name are not candidates for itself */

    for (size_t at = 0; at < name->len && !w->w.bad;) {
        uint8_t n = name->wire[at];
        if (n == 0) {
            sm_wr_u8(&w->w, 0);
            break;
        }
        for (unsigned i = 0; compress && i < known; i++) {
            if (written_equals(&w->w, w->seen[i], name->wire + at)) {
                sm_wr_u16(&w->w, (uint16_t)(0xc000 | w->seen[i]));
                goto done;
            }
        }
        if (w->n_seen < SM_DNS_COMPRESS_MAX && w->w.len < 0x4000)
            w->seen[w->n_seen++] = (uint16_t)w->w.len;
        sm_wr_bytes(&w->w, name->wire + at, 1u + n);
        at += 1u + n;
    }
done:
    /* A name that did not fit was cut: nothing may point into it. */
    if (w->w.bad)
        w->n_seen = known;
}

void sm_dns_write_opt(struct sm_wr *w, enum sm_dns_rcode rcode, bool dnssec_ok)
{
    sm_wr_u8(w, 0);
    sm_wr_u16(w, SM_DNS_OPT);
    sm_wr_u16(w, SM_DNS_UDP_MAX);
    sm_wr_u8(w, (uint8_t)((unsigned)rcode >> 4));
    sm_wr_u8(w, 0);
    sm_wr_u16(w, dnssec_ok ? 0x8000 : 0);
    sm_wr_u16(w, 0);
}

/* RDATA that is: some fixed bytes, some names, then a fixed or an open rest. */
enum { REST = 255 };
static const struct layout {
    uint8_t type;
    uint8_t prefix;
    uint8_t names;
    uint8_t suffix;    /* bytes, or REST */
    bool compressible; /* RFC 1035's own types may be compressed when sent, younger ones may not (RFC 3597) */
} layouts[] = {
    {SM_DNS_NS, 0, 1, 0, true},       {3 /* MD */, 0, 1, 0, true},       {4 /* MF */, 0, 1, 0, true},
    {SM_DNS_CNAME, 0, 1, 0, true},    {SM_DNS_SOA, 0, 2, 20, true},      {7 /* MB */, 0, 1, 0, true},
    {8 /* MG */, 0, 1, 0, true},      {9 /* MR */, 0, 1, 0, true},       {SM_DNS_PTR, 0, 1, 0, true},
    {14 /* MINFO */, 0, 2, 0, true},  {SM_DNS_MX, 2, 1, 0, true},        {17 /* RP */, 0, 2, 0, false},
    {18 /* AFSDB */, 2, 1, 0, false}, {21 /* RT */, 2, 1, 0, false},     {24 /* SIG */, 18, 1, REST, false},
    {26 /* PX */, 2, 2, 0, false},    {30 /* NXT */, 0, 1, REST, false}, {SM_DNS_SRV, 6, 1, 0, false},
    {36 /* KX */, 2, 1, 0, false},    {SM_DNS_DNAME, 0, 1, 0, false},    {SM_DNS_RRSIG, 18, 1, REST, false},
    {SM_DNS_NSEC, 0, 1, REST, false}, {58 /* TALINK */, 0, 2, 0, false}, {107 /* LP */, 2, 1, 0, false},
};

static void copy(struct sm_dns_writer *w, struct sm_rd *r, size_t n)
{
    const uint8_t *p = sm_rd_take(r, n);
    if (p)
        sm_wr_bytes(&w->w, p, n);
}

static void copy_name(struct sm_dns_writer *w, struct sm_rd *r, bool compress)
{
    struct sm_dns_name name;
    if (sm_dns_name_read(r, &name))
        sm_dns_write_name(w, &name, compress);
}

/* RFC 3403 4.1: order, preference, three character strings, a name. */
static void write_naptr(struct sm_dns_writer *w, struct sm_rd *r)
{
    copy(w, r, 4);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t n = sm_rd_u8(r);
        sm_wr_u8(&w->w, n);
        copy(w, r, n);
    }
    copy_name(w, r, false);
}

enum svc_param {
    SVC_MANDATORY = 0,
    SVC_ALPN = 1,
    SVC_NO_DEFAULT_ALPN = 2,
    SVC_IPV4HINT = 4,
    SVC_ECH = 5,
    SVC_IPV6HINT = 6
};

/* What the first look at a record's parameters finds out, because `mandatory` stands before all that it names. */
struct svcb {
    bool no_h3;           /* to be taken out of alpn */
    bool alpn;            /* an alpn that holds something is written */
    bool no_default_alpn; /* nothing but what alpn says is spoken there */
};

static bool svc_param_is_removed(const struct svcb *s, uint16_t key)
{
    return key == SVC_IPV4HINT || key == SVC_ECH || key == SVC_IPV6HINT || (key == SVC_ALPN && !s->alpn);
}

/* "h3" (RFC 9114) and what came before it, "h3-29", "h3-Q050": all are QUIC. ALPN ids compare as bytes (RFC 7301). */
static bool is_h3(const uint8_t *id, size_t len)
{
    return len >= 2 && id[0] == 'h' && id[1] == '3' && (len == 2 || id[2] == '-');
}

/* The next id of an alpn value (RFC 9460 7.1.1: length-prefixed, none empty) that the guest gets; NULL at the end. */
static const uint8_t *next_alpn(const struct svcb *s, struct sm_rd *value, uint8_t *ret_len)
{
    while (sm_rd_left(value) > 0) {
        *ret_len = sm_rd_u8(value);
        const uint8_t *id = sm_rd_take(value, *ret_len);
        if (*ret_len == 0)
            value->bad = true;
        if (value->bad)
            return NULL;
        if (!s->no_h3 || !is_h3(id, *ret_len))
            return id;
    }
    return NULL;
}

static void write_alpn(struct sm_dns_writer *w, const struct svcb *s, struct sm_rd *value)
{
    size_t start = w->w.len;
    uint8_t *len_at = (sm_wr_u16(&w->w, SVC_ALPN), sm_wr_room(&w->w, 2));
    const uint8_t *id;
    uint8_t n;

    while ((id = next_alpn(s, value, &n))) {
        sm_wr_u8(&w->w, n);
        sm_wr_bytes(&w->w, id, n);
    }
    if (w->w.bad || !len_at)
        return;
    size_t len = w->w.len - start - 4;
    len_at[0] = (uint8_t)(len >> 8);
    len_at[1] = (uint8_t)len;
}

/* `mandatory` may not name what is no longer there, or the client would have to ignore the record (RFC 9460 section 8).
 */
static void write_mandatory(struct sm_dns_writer *w, const struct svcb *s, struct sm_rd *value)
{
    size_t start = w->w.len;
    uint16_t len = 0;

    sm_wr_u16(&w->w, SVC_MANDATORY);
    uint8_t *len_at = sm_wr_room(&w->w, 2);
    while (sm_rd_left(value) > 0) {
        uint16_t key = sm_rd_u16(value);
        if (svc_param_is_removed(s, key))
            continue;
        sm_wr_u16(&w->w, key);
        len = (uint16_t)(len + 2);
    }
    if (w->w.bad || !len_at)
        return;
    if (len == 0) {
        w->w.len = start;
        return;
    }
    len_at[0] = (uint8_t)(len >> 8);
    len_at[1] = (uint8_t)len;
}

/* Parameters stand in strictly rising order of their keys; anything else is malformed. False: r->bad is set. */
static bool next_svc_param(struct sm_rd *r, int32_t *last, uint16_t *ret_key, struct sm_rd *ret_value)
{
    uint16_t key = sm_rd_u16(r);
    uint16_t len = sm_rd_u16(r);

    *ret_value = sm_rd_sub(r, len);
    if (key <= *last)
        r->bad = true;
    *last = *ret_key = key;
    return !r->bad;
}

/* The next key that `mandatory` names, or none. */
static int32_t next_mandatory(struct sm_rd *list)
{
    return sm_rd_left(list) > 0 ? sm_rd_u16(list) : -1;
}

/* Reads a copy of what write_svcb() will read. False: the record is malformed, or nothing true could be left of it. */
static bool survey_svcb(struct svcb *s, struct sm_rd r)
{
    int32_t last = -1, need = -1;
    uint16_t key;
    struct sm_rd value, mandatory = {0};

    while (sm_rd_left(&r) > 0) {
        if (!next_svc_param(&r, &last, &key, &value))
            return false;
        /* RFC 9460 section 8: rising order again, so that one look at each side is enough; never `mandatory` itself. */
        if (need >= 0 && key > need)
            return false;
        if (key == need)
            need = next_mandatory(&mandatory);
        uint8_t n;
        switch (key) {
        case SVC_MANDATORY:
            if (sm_rd_left(&value) == 0 || sm_rd_left(&value) % 2 != 0)
                return false;
            mandatory = value;
            need = next_mandatory(&mandatory);
            break;
        case SVC_ALPN:
            if (sm_rd_left(&value) == 0)
                return false;
            while (next_alpn(s, &value, &n))
                s->alpn = true;
            if (value.bad)
                return false;
            break;
        case SVC_NO_DEFAULT_ALPN:
            s->no_default_alpn = true;
            break;
        default: /* keys are the peer's numbers, not an enum */
            break;
        }
    }
    /* RFC 9460 7.1.1: no-default-alpn needs an alpn. Who speaks h3 alone has nothing for a client that may not. */
    return need < 0 && (s->alpn || !s->no_default_alpn);
}

/* RFC 9460 2.2: priority, target, parameters. AliasMode (priority 0) has no parameters. */
static void write_svcb(struct sm_dns_writer *w, struct sm_rd *r)
{
    uint16_t priority = sm_rd_u16(r);
    struct svcb s = {.no_h3 = w->no_h3};
    int32_t last = -1;
    uint16_t key;
    struct sm_rd value;

    sm_wr_u16(&w->w, priority);
    copy_name(w, r, false);
    if (priority != 0 && !r->bad && !survey_svcb(&s, *r))
        r->bad = true;
    while (sm_rd_left(r) > 0 && next_svc_param(r, &last, &key, &value)) {
        if (priority == 0 || svc_param_is_removed(&s, key))
            continue;
        if (key == SVC_MANDATORY) {
            write_mandatory(w, &s, &value);
            continue;
        }
        if (key == SVC_ALPN) {
            write_alpn(w, &s, &value);
            continue;
        }
        uint16_t len = (uint16_t)sm_rd_left(&value);
        sm_wr_u16(&w->w, key);
        sm_wr_u16(&w->w, len);
        copy(w, &value, len);
    }
}

bool sm_dns_write_rdata(struct sm_dns_writer *w, uint16_t type, struct sm_rd *r)
{
    const struct layout *layout = NULL;
    uint8_t *len_at = sm_wr_room(&w->w, 2);
    size_t start = w->w.len;

    for (size_t i = 0; i < SM_ARRAY_LEN(layouts); i++)
        if (layouts[i].type == type)
            layout = &layouts[i];
    if (layout) {
        copy(w, r, layout->prefix);
        for (unsigned i = 0; i < layout->names; i++)
            copy_name(w, r, layout->compressible);
        copy(w, r, layout->suffix == REST ? sm_rd_left(r) : layout->suffix);
    } else if (type == SM_DNS_SVCB || type == SM_DNS_HTTPS) {
        write_svcb(w, r);
    } else if (type == 35 /* NAPTR */) {
        write_naptr(w, r);
    } else if (type == 38 /* A6: historic, and its name is in an odd place */ || type == SM_DNS_OPT) {
        return false;
    } else {
        copy(w, r, sm_rd_left(r));
    }
    if (!sm_rd_done(r))
        return false;
    if (!w->w.bad && len_at) {
        size_t len = w->w.len - start;
        len_at[0] = (uint8_t)(len >> 8);
        len_at[1] = (uint8_t)len;
    }
    return true;
}
