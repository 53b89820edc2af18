/* SPDX-License-Identifier: BSD-3-Clause */
/* Encoding and strict decoding of the handoff messages; the format is in msg.h. */
#include "flow/msg.h"

#include "base/rw.h"

static const char *const type_names[] = {
    [0] = "none",
    [SM_FLOW_OPEN] = "open",
    [SM_FLOW_REFUSE] = "refuse",
    [SM_FLOW_ACCEPT] = "accept",
    [SM_FLOW_BYTES] = "bytes",
    [SM_FLOW_ATTACH] = "attach",
    [SM_FLOW_ATTACHED] = "attached",
    [SM_FLOW_ABORT] = "abort",
    [SM_FLOW_GONE] = "gone",
    [SM_FLOW_INBOUND] = "inbound",
    [SM_FLOW_DATAGRAM] = "datagram",
    [SM_FLOW_OTHER] = "other",
    [SM_FLOW_REPEATED] = "repeated",
    [SM_FLOW_RELEASE] = "release",
    [SM_FLOW_EOF] = "eof",
};
SM_NAME_TABLE_COVERS(type_names, SM_FLOW_TYPES);

static const char *const how_names[] = {
    [SM_HOW_SILENT] = "silent",       [SM_HOW_RST] = "rst",           [SM_HOW_ICMP_ADMIN] = "icmp_admin",
    [SM_HOW_ICMP_HOST] = "icmp_host", [SM_HOW_ICMP_NET] = "icmp_net", [SM_HOW_ICMP_PORT] = "icmp_port",
};
SM_NAME_TABLE_COVERS(how_names, SM_HOWS);

static const char *const why_names[] = {
    [SM_WHY_CLOSED] = "closed",   [SM_WHY_GUEST_RST] = "guest_reset", [SM_WHY_UPSTREAM_RST] = "upstream_reset",
    [SM_WHY_TIMEOUT] = "timeout", [SM_WHY_REFUSED] = "gone_before",   [SM_WHY_LIMIT] = "front_limit",
};
SM_NAME_TABLE_COVERS(why_names, SM_WHYS);

static const char *const other_names[] = {
    [SM_OTHER_ICMP] = "icmp",
    [SM_OTHER_IPV6] = "ipv6",
    [SM_OTHER_PROTO] = "protocol",
    [SM_OTHER_SPOOFED] = "spoofed",
    [SM_OTHER_FRAGMENT] = "fragment",
    [SM_OTHER_LINK] = "link",
    [SM_OTHER_MALFORMED] = "malformed",
    [SM_OTHER_DEVICE] = "device",
    [SM_OTHER_CLIENT] = "proxy_client",
    [SM_OTHER_AUTH] = "proxy_auth",
    [SM_OTHER_REQUEST] = "proxy_request",
};
SM_NAME_TABLE_COVERS(other_names, SM_OTHERS);

const char *sm_flow_type_name(enum sm_flow_type type)
{
    return (unsigned)type < SM_FLOW_TYPES ? type_names[type] : "invalid";
}

const char *sm_flow_how_name(enum sm_flow_how how)
{
    return (unsigned)how < SM_HOWS ? how_names[how] : "invalid";
}

const char *sm_flow_why_name(enum sm_flow_why why)
{
    return (unsigned)why < SM_WHYS ? why_names[why] : "invalid";
}

const char *sm_flow_other_name(enum sm_flow_other other)
{
    return (unsigned)other < SM_OTHERS ? other_names[other] : "invalid";
}

struct sm_flow_packet sm_flow_packet_init(const uint8_t *data, size_t len)
{
    struct sm_flow_packet p = {.r = sm_rd_init(data, len), .many = len > 0 && data[0] == SM_FLOW_PACKET_MANY};

    if (p.many)
        sm_rd_skip(&p.r, 1);
    p.bad = sm_rd_left(&p.r) == 0; /* nothing is no message */
    return p;
}

bool sm_flow_packet_next(struct sm_flow_packet *p, struct sm_flow_msg *ret)
{
    struct sm_flow_msg m;

    if (p->bad || sm_rd_left(&p->r) == 0)
        return false;
    size_t len = p->many ? sm_rd_u16(&p->r) : p->r.len;
    const uint8_t *data = sm_rd_take(&p->r, len);
    if (!data || !sm_flow_decode(data, len, &m) || (p->many && sm_flow_fds(m.type) > 0) ||
        p->taken == SM_FLOW_PACKET_MAX) {
        p->bad = true;
        return false;
    }
    p->taken++;
    *ret = m;
    return true;
}

size_t sm_flow_fds(enum sm_flow_type type)
{
    return type == SM_FLOW_ATTACH || type == SM_FLOW_INBOUND ? 1 : 0;
}

static void put_addr(struct sm_wr *w, const struct sm_addr *a)
{
    if (a->family != SM_FAMILY_V4 && a->family != SM_FAMILY_V6) {
        w->bad = true;
        return;
    }
    sm_wr_u8(w, a->family);
    sm_wr_bytes(w, a->bytes, a->family == SM_FAMILY_V4 ? 4 : 16);
}

static void put_endpoint(struct sm_wr *w, const struct sm_endpoint *e)
{
    put_addr(w, &e->addr);
    sm_wr_u16(w, e->port);
}

static struct sm_addr get_addr(struct sm_rd *r)
{
    struct sm_addr a = {.family = sm_rd_u8(r)};
    if (a.family == SM_FAMILY_V4)
        (void)sm_rd_bytes(r, a.bytes, 4);
    else if (a.family == SM_FAMILY_V6)
        (void)sm_rd_bytes(r, a.bytes, 16);
    else
        r->bad = true;
    return a;
}

static struct sm_endpoint get_endpoint(struct sm_rd *r)
{
    struct sm_endpoint e = {.addr = get_addr(r)};
    e.port = sm_rd_u16(r);
    return e;
}

/* The destination of an OPEN by name. A family byte of 0 is no address, so that the two cannot be mistaken for each other. */
static void put_name(struct sm_wr *w, const struct sm_flow_msg *m)
{
    if (m->proto != SM_FLOW_TCP || m->name_len > SM_FLOW_NAME_MAX) {
        w->bad = true;
        return;
    }
    sm_wr_u8(w, SM_FAMILY_NONE);
    sm_wr_u8(w, (uint8_t)m->name_len);
    sm_wr_bytes(w, m->name, m->name_len);
    sm_wr_u16(w, m->dst.port);
}

static void get_destination(struct sm_rd *r, struct sm_flow_msg *m)
{
    struct sm_rd peek = *r;

    if (m->proto != SM_FLOW_TCP || sm_rd_u8(&peek) != SM_FAMILY_NONE || peek.bad) {
        m->dst = get_endpoint(r);
        return;
    }
    *r = peek;
    m->name_len = sm_rd_u8(r);
    m->name = (const char *)sm_rd_take(r, m->name_len);
    m->dst.port = sm_rd_u16(r);
    if (m->name_len == 0)
        r->bad = true;
}

static bool get_proto(struct sm_rd *r, enum sm_flow_proto *ret)
{
    unsigned proto = sm_rd_u8(r);

    *ret = (enum sm_flow_proto)proto;
    return proto == SM_FLOW_TCP || proto == SM_FLOW_UDP || proto == SM_FLOW_VSOCK;
}

static bool has_id(enum sm_flow_type type)
{
    return type != SM_FLOW_DATAGRAM && type != SM_FLOW_OTHER && type != SM_FLOW_REPEATED && type != SM_FLOW_RELEASE;
}

size_t sm_flow_encode(const struct sm_flow_msg *m, uint8_t *out, size_t cap)
{
    struct sm_wr w = sm_wr_init(out, cap);

    sm_wr_u8(&w, (uint8_t)m->type);
    sm_wr_u8(&w, SM_FLOW_VERSION);
    sm_wr_u16(&w, 0);
    sm_wr_u64(&w, m->id);
    if (has_id(m->type) != (m->id != 0) || m->data_len > SM_FLOW_DATA_MAX)
        return 0;
    switch (m->type) {
    case SM_FLOW_OPEN:
        sm_wr_u8(&w, (uint8_t)m->proto);
        if (m->proto == SM_FLOW_VSOCK) {
            sm_wr_u32(&w, m->vsock_src);
            sm_wr_u32(&w, m->vsock_dst);
            break;
        }
        put_endpoint(&w, &m->src);
        if (m->name_len > 0)
            put_name(&w, m);
        else
            put_endpoint(&w, &m->dst);
        break;
    case SM_FLOW_REFUSE:
        sm_wr_u8(&w, (uint8_t)m->how);
        sm_wr_u8(&w, (uint8_t)m->scope);
        sm_wr_u32(&w, m->hold_ms);
        sm_wr_u8(&w, m->reason);
        break;
    case SM_FLOW_BYTES:
        sm_wr_bytes(&w, m->data, m->data_len);
        break;
    case SM_FLOW_ATTACH:
        sm_wr_u32(&w, m->consumed);
        break;
    case SM_FLOW_GONE:
        sm_wr_u8(&w, (uint8_t)m->why);
        break;
    case SM_FLOW_INBOUND:
        sm_wr_u16(&w, m->guest_port);
        put_endpoint(&w, &m->src);
        break;
    case SM_FLOW_DATAGRAM:
        put_endpoint(&w, &m->src);
        put_endpoint(&w, &m->dst);
        sm_wr_bytes(&w, m->data, m->data_len);
        break;
    case SM_FLOW_OTHER:
        sm_wr_u8(&w, (uint8_t)m->other);
        sm_wr_u8(&w, m->ip_proto);
        put_addr(&w, &m->dst.addr);
        sm_wr_u32(&w, m->count);
        break;
    case SM_FLOW_REPEATED:
        sm_wr_u8(&w, (uint8_t)m->proto);
        put_endpoint(&w, &m->dst);
        sm_wr_u32(&w, m->count);
        break;
    case SM_FLOW_ACCEPT:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_ABORT:
    case SM_FLOW_RELEASE:
    case SM_FLOW_EOF:
        break;
    case SM_FLOW_TYPES:
        return 0;
    }
    return w.bad ? 0 : w.len;
}

bool sm_flow_decode(const uint8_t *data, size_t len, struct sm_flow_msg *ret)
{
    struct sm_rd r = sm_rd_init(data, len);
    struct sm_flow_msg m = {0};
    unsigned type = sm_rd_u8(&r);

    if (sm_rd_u8(&r) != SM_FLOW_VERSION || sm_rd_u16(&r) != 0 || type == 0 || type >= SM_FLOW_TYPES)
        return false;
    m.type = (enum sm_flow_type)type;
    m.id = sm_rd_u64(&r);
    if (has_id(m.type) != (m.id != 0))
        return false;
    switch (m.type) {
    case SM_FLOW_OPEN:
        if (!get_proto(&r, &m.proto))
            return false;
        if (m.proto == SM_FLOW_VSOCK) {
            m.vsock_src = sm_rd_u32(&r);
            m.vsock_dst = sm_rd_u32(&r);
            break;
        }
        m.src = get_endpoint(&r);
        get_destination(&r, &m);
        break;
    case SM_FLOW_REFUSE: {
        unsigned how = sm_rd_u8(&r), scope = sm_rd_u8(&r);
        if (how >= SM_HOWS || scope >= SM_SCOPES)
            return false;
        m.how = (enum sm_flow_how)how;
        m.scope = (enum sm_flow_scope)scope;
        m.hold_ms = sm_rd_u32(&r);
        m.reason = sm_rd_u8(&r);
        break;
    }
    case SM_FLOW_ATTACH:
        m.consumed = sm_rd_u32(&r);
        break;
    case SM_FLOW_GONE: {
        unsigned why = sm_rd_u8(&r);
        if (why >= SM_WHYS)
            return false;
        m.why = (enum sm_flow_why)why;
        break;
    }
    case SM_FLOW_INBOUND:
        m.guest_port = sm_rd_u16(&r);
        m.src = get_endpoint(&r);
        break;
    case SM_FLOW_DATAGRAM:
        m.src = get_endpoint(&r);
        m.dst = get_endpoint(&r);
        m.data_len = sm_rd_left(&r);
        m.data = sm_rd_take(&r, m.data_len);
        break;
    case SM_FLOW_OTHER: {
        unsigned other = sm_rd_u8(&r);
        if (other >= SM_OTHERS)
            return false;
        m.other = (enum sm_flow_other)other;
        m.ip_proto = sm_rd_u8(&r);
        m.dst.addr = get_addr(&r);
        m.count = sm_rd_u32(&r);
        break;
    }
    case SM_FLOW_REPEATED:
        if (!get_proto(&r, &m.proto))
            return false;
        m.dst = get_endpoint(&r);
        m.count = sm_rd_u32(&r);
        break;
    case SM_FLOW_BYTES:
        m.data_len = sm_rd_left(&r);
        m.data = sm_rd_take(&r, m.data_len);
        if (m.data_len == 0)
            return false;
        break;
    case SM_FLOW_ACCEPT:
    case SM_FLOW_ATTACHED:
    case SM_FLOW_ABORT:
    case SM_FLOW_RELEASE:
    case SM_FLOW_EOF:
        break;
    case SM_FLOW_TYPES:
        return false;
    }
    if (!sm_rd_done(&r) || m.data_len > SM_FLOW_DATA_MAX)
        return false;
    *ret = m;
    return true;
}
