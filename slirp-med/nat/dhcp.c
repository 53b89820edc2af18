/* SPDX-License-Identifier: BSD-3-Clause */
/* DHCP for one guest; see dhcp.h. */
#include "nat/dhcp.h"

#define MAGIC 0x63825363
#define BOOTP_MIN 300 /* RFC 1542 2.1: shorter replies are not accepted everywhere */
#define FLAG_BROADCAST 0x8000

enum {
    OPT_PAD = 0,
    OPT_MASK = 1,
    OPT_ROUTER = 3,
    OPT_DNS = 6,
    OPT_HOSTNAME = 12,
    OPT_MTU = 26,
    OPT_BROADCAST = 28,
    OPT_REQUESTED = 50,
    OPT_LEASE = 51,
    OPT_TYPE = 53,
    OPT_SERVER = 54,
    OPT_T1 = 58,
    OPT_T2 = 59,
    OPT_CLIENT_ID = 61,
    OPT_ROUTES = 121,
    OPT_END = 255,
};

static const char *const type_names[] = {"none", "discover", "offer",   "request", "decline",
                                         "ack",  "nak",      "release", "inform"};
SM_NAME_TABLE_COVERS(type_names, SM_DHCP_TYPES);

const char *sm_dhcp_type_name(enum sm_dhcp_type type)
{
    return (unsigned)type < SM_ARRAY_LEN(type_names) ? type_names[type] : "?";
}

/* What we need of a client's message. */
struct request {
    enum sm_dhcp_type type;
    uint32_t xid;
    uint16_t flags;
    uint32_t ciaddr;
    bool has_server, has_requested;
    uint32_t server, requested;
    const uint8_t *client_id;
    size_t client_id_len;
};

static bool parse_options(struct sm_rd *r, struct request *q)
{
    while (sm_rd_left(r) > 0) {
        uint8_t code = sm_rd_u8(r);
        if (code == OPT_PAD)
            continue;
        if (code == OPT_END)
            break;
        size_t len = sm_rd_u8(r);
        struct sm_rd o = sm_rd_sub(r, len);
        if (r->bad)
            return false;
        switch (code) {
        case OPT_TYPE:
            if (len != 1 || q->type != SM_DHCP_NONE)
                return false;
            q->type = (enum sm_dhcp_type)sm_rd_u8(&o);
            break;
        case OPT_REQUESTED:
            if (len != 4)
                return false;
            q->requested = sm_rd_u32(&o);
            q->has_requested = true;
            break;
        case OPT_SERVER:
            if (len != 4)
                return false;
            q->server = sm_rd_u32(&o);
            q->has_server = true;
            break;
        case OPT_CLIENT_ID:
            q->client_id = sm_rd_take(&o, len);
            q->client_id_len = len;
            break;
        default:
            break;
        }
    }
    return !r->bad;
}

static bool parse(const struct sm_dhcp *dhcp, const uint8_t *msg, size_t len, struct request *q)
{
    struct sm_rd r = sm_rd_init(msg, len);
    uint8_t chaddr[SM_ETH_ALEN];

    uint8_t op = sm_rd_u8(&r), htype = sm_rd_u8(&r), hlen = sm_rd_u8(&r);
    sm_rd_skip(&r, 1);
    q->xid = sm_rd_u32(&r);
    sm_rd_skip(&r, 2);
    q->flags = sm_rd_u16(&r);
    q->ciaddr = sm_rd_u32(&r);
    sm_rd_skip(&r, 8);
    uint32_t giaddr = sm_rd_u32(&r);
    (void)sm_rd_bytes(&r, chaddr, sizeof(chaddr));
    sm_rd_skip(&r, 10 + 64 + 128);
    uint32_t magic = sm_rd_u32(&r);
    if (r.bad || op != 1 || htype != 1 || hlen != SM_ETH_ALEN || magic != MAGIC || giaddr != 0)
        return false;
    if (memcmp(chaddr, dhcp->link.guest_mac, SM_ETH_ALEN) != 0)
        return false;
    return parse_options(&r, q) && q->type > SM_DHCP_NONE && q->type < SM_DHCP_TYPES;
}

/* RFC 2131 4.3.2: which of its four states a DHCPREQUEST comes from is told by what it carries. */
static enum sm_dhcp_type answer_request(const struct sm_link *link, const struct request *q)
{
    if (q->has_server) {
        if (q->server != link->gateway)
            return SM_DHCP_NONE; /* SELECTING, and it selected somebody else */
        return q->has_requested && q->requested == link->guest ? SM_DHCP_ACK : SM_DHCP_NAK;
    }
    if (q->has_requested) /* INIT-REBOOT */
        return q->requested == link->guest ? SM_DHCP_ACK : SM_DHCP_NAK;
    if (q->ciaddr == 0)
        return SM_DHCP_NONE;
    return q->ciaddr == link->guest ? SM_DHCP_ACK : SM_DHCP_NAK; /* RENEWING, REBINDING */
}

static void put_u32(struct sm_wr *w, uint8_t code, uint32_t value)
{
    sm_wr_u8(w, code);
    sm_wr_u8(w, 4);
    sm_wr_u32(w, value);
}

static void put_bytes(struct sm_wr *w, uint8_t code, const void *data, size_t len)
{
    sm_wr_u8(w, code);
    sm_wr_u8(w, (uint8_t)len);
    sm_wr_bytes(w, data, len);
}

/* RFC 3442: the prefix's length, as many of its bytes as that needs, the router. */
static void put_routes(struct sm_wr *w, const struct sm_link *link)
{
    bool everywhere = false;
    size_t len = 0;

    for (unsigned i = 0; i < link->n_routes; i++) {
        everywhere |= link->routes[i].len == 0;
        len += 1 + (link->routes[i].len + 7u) / 8 + 4;
    }
    if (everywhere)
        put_u32(w, OPT_ROUTER, link->gateway);
    if (len == 0 || (everywhere && link->n_routes == 1))
        return;
    sm_wr_u8(w, OPT_ROUTES);
    sm_wr_u8(w, (uint8_t)len); /* at most SM_LINK_ROUTES_MAX * 9 */
    for (unsigned i = 0; i < link->n_routes; i++) {
        sm_wr_u8(w, link->routes[i].len);
        for (unsigned bits = 0; bits < link->routes[i].len; bits += 8)
            sm_wr_u8(w, (uint8_t)(link->routes[i].net >> (24 - bits)));
        sm_wr_u32(w, link->gateway);
    }
}

static void build_message(struct sm_wr *w, const struct sm_dhcp *dhcp, const struct request *q, enum sm_dhcp_type type)
{
    const struct sm_link *link = &dhcp->link;
    bool lease = type == SM_DHCP_OFFER || (type == SM_DHCP_ACK && q->type == SM_DHCP_REQUEST);
    size_t start = w->len;

    sm_wr_u32(w, 2u << 24 | 1u << 16 | SM_ETH_ALEN << 8);
    sm_wr_u32(w, q->xid);
    sm_wr_u16(w, 0);
    sm_wr_u16(w, q->flags & FLAG_BROADCAST);
    sm_wr_u32(w, type == SM_DHCP_ACK ? q->ciaddr : 0);
    sm_wr_u32(w, lease ? link->guest : 0);
    sm_wr_u32(w, 0); /* siaddr: no next server */
    sm_wr_u32(w, 0);
    sm_wr_bytes(w, link->guest_mac, SM_ETH_ALEN);
    uint8_t *zero = sm_wr_room(w, 10 + 64 + 128);
    if (zero)
        memset(zero, 0, 10 + 64 + 128);
    sm_wr_u32(w, MAGIC);

    uint8_t type_byte = (uint8_t)type;
    put_bytes(w, OPT_TYPE, &type_byte, 1);
    put_u32(w, OPT_SERVER, link->gateway);
    if (lease) {
        put_u32(w, OPT_LEASE, SM_DHCP_LEASE_S);
        put_u32(w, OPT_T1, SM_DHCP_LEASE_S / 2);
        put_u32(w, OPT_T2, SM_DHCP_LEASE_S / 8 * 7);
    }
    if (type != SM_DHCP_NAK) {
        uint8_t mtu[2];
        sm_put_u16(mtu, link->mtu);
        put_u32(w, OPT_MASK, sm_link_mask(link));
        put_u32(w, OPT_BROADCAST, sm_link_broadcast(link));
        put_routes(w, link);
        sm_wr_u8(w, OPT_DNS);
        sm_wr_u8(w, (uint8_t)(4 * link->n_dns));
        for (unsigned i = 0; i < link->n_dns; i++)
            sm_wr_u32(w, link->dns[i]);
        put_bytes(w, OPT_MTU, mtu, sizeof(mtu));
    }
    if (q->client_id && q->client_id_len > 0 && q->client_id_len <= SM_DHCP_CLIENT_ID_MAX)
        put_bytes(w, OPT_CLIENT_ID, q->client_id, q->client_id_len);
    /* The one option that is for show: it goes where the others have left room for it and for the end. */
    size_t name_len = type != SM_DHCP_NAK ? strlen(dhcp->hostname) : 0;
    if (name_len > 0 && w->len + 2 + name_len + 1 <= w->cap)
        put_bytes(w, OPT_HOSTNAME, dhcp->hostname, name_len);
    sm_wr_u8(w, OPT_END);
    while (!w->bad && w->len - start < BOOTP_MIN)
        sm_wr_u8(w, OPT_PAD);
}

size_t sm_dhcp_answer(const struct sm_dhcp *dhcp, const uint8_t *msg, size_t len, enum sm_dhcp_type *ret_got,
                      uint8_t out[SM_DHCP_FRAME_MAX])
{
    const struct sm_link *link = &dhcp->link;
    struct request q = {0};
    enum sm_dhcp_type type = SM_DHCP_NONE;
    bool ok = parse(dhcp, msg, len, &q);

    if (ret_got)
        *ret_got = ok ? q.type : SM_DHCP_NONE;
    if (!ok)
        return 0;
    switch (q.type) {
    case SM_DHCP_DISCOVER:
        type = SM_DHCP_OFFER;
        break;
    case SM_DHCP_REQUEST:
        type = answer_request(link, &q);
        break;
    case SM_DHCP_INFORM:
        type = q.ciaddr == link->guest ? SM_DHCP_ACK : SM_DHCP_NONE;
        break;
    case SM_DHCP_DECLINE:
    case SM_DHCP_RELEASE:
    case SM_DHCP_NONE:
    case SM_DHCP_OFFER:
    case SM_DHCP_ACK:
    case SM_DHCP_NAK:
    case SM_DHCP_TYPES:
        break;
    }
    if (type == SM_DHCP_NONE)
        return 0;

    /* RFC 2131 4.1: to ciaddr when the client has one, else broadcast when it asks for that (a NAK always), else to
     * what it is given. */
    static const uint8_t everyone[SM_ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    bool broadcast = type == SM_DHCP_NAK || (q.ciaddr == 0 && (q.flags & FLAG_BROADCAST));
    uint32_t to = broadcast ? UINT32_MAX : link->guest;
    const size_t udp_at = SM_ETH_HLEN + SM_IP_HLEN, msg_at = udp_at + SM_UDP_HLEN;

    struct sm_wr body = sm_wr_init(out + msg_at, SM_DHCP_FRAME_MAX - msg_at);
    build_message(&body, dhcp, &q, type);
    if (body.bad)
        return 0;
    size_t udp_len = SM_UDP_HLEN + body.len;
    struct sm_wr head = sm_wr_init(out, msg_at);
    sm_wr_eth(&head, broadcast ? everyone : link->guest_mac, link->our_mac, SM_ETHERTYPE_IPV4);
    sm_wr_ip(&head, link->gateway, to, SM_IPPROTO_UDP, udp_len);
    sm_wr_u16(&head, 67);
    sm_wr_u16(&head, 68);
    sm_wr_u16(&head, (uint16_t)udp_len);
    sm_wr_u16(&head, 0);
    sm_put_u16(out + udp_at + 6, sm_csum_udp(link->gateway, to, out + udp_at, udp_len));
    return head.bad ? 0 : udp_at + udp_len;
}
