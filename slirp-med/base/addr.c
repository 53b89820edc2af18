/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses, prefixes, endpoints: strict parsing and plain formatting; see addr.h. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

struct sm_addr sm_addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    return (struct sm_addr){.family = SM_FAMILY_V4, .bytes = {a, b, c, d}};
}

struct sm_addr sm_addr_from_u32(uint32_t v)
{
    return sm_addr_v4((uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v);
}

uint32_t sm_addr_to_u32(const struct sm_addr *a)
{
    if (a->family != SM_FAMILY_V4)
        return 0;
    return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

struct sm_addr sm_addr_from_in(struct in_addr in)
{
    return sm_addr_from_u32(ntohl(in.s_addr));
}

struct in_addr sm_addr_to_in(const struct sm_addr *a)
{
    return (struct in_addr){.s_addr = htonl(sm_addr_to_u32(a))};
}

struct sm_addr sm_addr_from_in6(const struct in6_addr *in6)
{
    struct sm_addr a = {.family = SM_FAMILY_V6};
    memcpy(a.bytes, in6->s6_addr, 16);
    return a;
}

int sm_addr_cmp(const struct sm_addr *a, const struct sm_addr *b)
{
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool sm_addr_equal(const struct sm_addr *a, const struct sm_addr *b)
{
    return sm_addr_cmp(a, b) == 0;
}

uint32_t sm_addr_hash(const struct sm_addr *a)
{
    uint32_t h = 2166136261u ^ a->family; /* FNV-1a */
    for (size_t i = 0; i < sizeof(a->bytes); i++)
        h = (h ^ a->bytes[i]) * 16777619u;
    return h;
}

static bool parse_v4(const char *text, uint8_t out[4])
{
    const char *p = text;
    for (int part = 0; part < 4; part++) {
        unsigned value = 0;
        int digits = 0;
        while (*p >= '0' && *p <= '9') {
            if (digits == 1 && value == 0)
                return false; /* leading zero: octal elsewhere */
            value = value * 10 + (unsigned)(*p - '0');
            if (++digits > 3 || value > 255)
                return false;
            p++;
        }
        if (digits == 0)
            return false;
        out[part] = (uint8_t)value;
        if (*p != (part < 3 ? '.' : '\0'))
            return false;
        p++;
    }
    return true;
}

bool sm_addr_parse(const char *text, struct sm_addr *ret)
{
    uint8_t v4[4];
    struct in6_addr v6;

    if (parse_v4(text, v4)) {
        *ret = sm_addr_v4(v4[0], v4[1], v4[2], v4[3]);
        return true;
    }
    if (strchr(text, ':') && inet_pton(AF_INET6, text, &v6) == 1) {
        *ret = sm_addr_from_in6(&v6);
        return true;
    }
    return false;
}

/* printf and inet_ntop (which is printf) are most of what a line of the record costs: these are for them. */
static char *put_number(char *out, unsigned v)
{
    char rev[10];
    size_t n = 0;

    do {
        rev[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    while (n > 0)
        *out++ = rev[--n];
    return out;
}

static char *put_addr(const struct sm_addr *a, char *out)
{
    if (a->family != SM_FAMILY_V4) {
        if (a->family == SM_FAMILY_NONE || !inet_ntop(AF_INET6, a->bytes, out, SM_ADDR_STRLEN))
            memcpy(out, "none", sizeof("none"));
        return out + strlen(out);
    }
    for (int i = 0; i < 4; i++) {
        out = put_number(out, a->bytes[i]);
        *out++ = '.';
    }
    return out - 1;
}

const char *sm_addr_format(const struct sm_addr *a, char out[SM_ADDR_STRLEN])
{
    *put_addr(a, out) = '\0';
    return out;
}

bool sm_endpoint_equal(const struct sm_endpoint *a, const struct sm_endpoint *b)
{
    return a->port == b->port && sm_addr_equal(&a->addr, &b->addr);
}

static bool parse_port(const char *text, uint16_t *ret)
{
    unsigned value = 0;
    size_t n = strlen(text);
    if (n == 0 || n > 5 || (text[0] == '0' && n > 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value > 65535)
        return false;
    *ret = (uint16_t)value;
    return true;
}

bool sm_endpoint_parse(const char *text, uint16_t default_port, struct sm_endpoint *ret)
{
    char host[SM_ENDPOINT_STRLEN];
    struct sm_endpoint e = {.port = default_port};
    size_t n = strlen(text);

    if (n >= sizeof(host))
        return false;
    memcpy(host, text, n + 1);
    char *addr = host;
    if (host[0] == '[') {
        char *close = strchr(host, ']');
        if (!close)
            return false;
        *close = '\0';
        addr = host + 1;
        if (!strchr(addr, ':'))
            return false;
        if (close[1] == ':') {
            if (!parse_port(close + 2, &e.port))
                return false;
        } else if (close[1] != '\0') {
            return false;
        }
    } else {
        char *colon = strchr(host, ':');
        if (colon && !strchr(colon + 1, ':')) {
            *colon = '\0';
            if (!parse_port(colon + 1, &e.port))
                return false;
        }
    }
    if (!sm_addr_parse(addr, &e.addr))
        return false;
    *ret = e;
    return true;
}

const char *sm_endpoint_format(const struct sm_endpoint *e, char out[SM_ENDPOINT_STRLEN])
{
    bool v6 = e->addr.family == SM_FAMILY_V6;
    char *at = out;

    if (v6)
        *at++ = '[';
    at = put_addr(&e->addr, at);
    if (v6)
        *at++ = ']';
    *at++ = ':';
    *put_number(at, e->port) = '\0';
    return out;
}

socklen_t sm_endpoint_to_sockaddr(const struct sm_endpoint *e, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (e->addr.family == SM_FAMILY_V4) {
        struct sockaddr_in in = {
            .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = sm_addr_to_in(&e->addr)};
        memcpy(ret, &in, sizeof(in));
        return sizeof(in);
    }
    if (e->addr.family == SM_FAMILY_V6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
        memcpy(in6.sin6_addr.s6_addr, e->addr.bytes, 16);
        memcpy(ret, &in6, sizeof(in6));
        return sizeof(in6);
    }
    return 0;
}

bool sm_endpoint_from_sockaddr(const struct sockaddr_storage *ss, struct sm_endpoint *ret)
{
    if (ss->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, ss, sizeof(in));
        *ret = (struct sm_endpoint){.addr = sm_addr_from_in(in.sin_addr), .port = ntohs(in.sin_port)};
        return true;
    }
    if (ss->ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, ss, sizeof(in6));
        *ret = (struct sm_endpoint){.addr = sm_addr_from_in6(&in6.sin6_addr), .port = ntohs(in6.sin6_port)};
        return true;
    }
    return false;
}

static unsigned family_bits(uint8_t family)
{
    return family == SM_FAMILY_V4 ? 32 : 128;
}

bool sm_prefix_contains(const struct sm_prefix *p, const struct sm_addr *a)
{
    if (p->addr.family == SM_FAMILY_NONE || p->addr.family != a->family)
        return false;
    unsigned whole = p->len / 8, rest = p->len % 8;
    if (memcmp(p->addr.bytes, a->bytes, whole) != 0)
        return false;
    if (rest == 0)
        return true;
    uint8_t mask = (uint8_t)(0xff << (8 - rest));
    return (p->addr.bytes[whole] & mask) == (a->bytes[whole] & mask);
}

bool sm_prefix_equal(const struct sm_prefix *a, const struct sm_prefix *b)
{
    return a->len == b->len && sm_addr_equal(&a->addr, &b->addr);
}

bool sm_prefix_parse(const char *text, struct sm_prefix *ret)
{
    char addr[SM_PREFIX_STRLEN];
    struct sm_prefix p = {0};
    uint16_t len;
    size_t n = strlen(text);

    if (n >= sizeof(addr))
        return false;
    memcpy(addr, text, n + 1);
    char *slash = strchr(addr, '/');
    if (slash)
        *slash = '\0';
    if (!sm_addr_parse(addr, &p.addr))
        return false;
    len = (uint16_t)family_bits(p.addr.family);
    if (slash && (!parse_port(slash + 1, &len) || len > family_bits(p.addr.family)))
        return false;
    p.len = (uint8_t)len;
    for (unsigned bit = p.len; bit < family_bits(p.addr.family); bit++)
        if (p.addr.bytes[bit / 8] & (0x80 >> (bit % 8)))
            return false;
    *ret = p;
    return true;
}

const char *sm_prefix_format(const struct sm_prefix *p, char out[SM_PREFIX_STRLEN])
{
    char addr[SM_ADDR_STRLEN];
    (void)snprintf(out, SM_PREFIX_STRLEN, "%s/%u", sm_addr_format(&p->addr, addr), p->len);
    return out;
}
