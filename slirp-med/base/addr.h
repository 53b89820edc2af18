/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * IP addresses, prefixes and transport endpoints as plain values.
 *
 * Bytes are in network order; ports are in host order. A zeroed struct sm_addr is "no address" (family 0), so that a forgotten
 * field is never a wildcard. Parsing is strict: dotted quads with exactly four decimal parts and no leading zeros, RFC 4291 text for v6,
 * no zone, no short, octal or hex forms (inet_aton's shapes are what attackers write).
 */
#ifndef SM_BASE_ADDR_H
#define SM_BASE_ADDR_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/defs.h"

enum sm_family { SM_FAMILY_NONE = 0, SM_FAMILY_V4 = 4, SM_FAMILY_V6 = 6 };

struct sm_addr {
    uint8_t family;    /* enum sm_family */
    uint8_t bytes[16]; /* v4: the first four; the rest is zero */
};

struct sm_endpoint {
    struct sm_addr addr;
    uint16_t port; /* host order */
};

struct sm_prefix {
    struct sm_addr addr; /* host bits are zero */
    uint8_t len;         /* bits */
};

/** Longest text of an address, an endpoint ("[v6]:port") and a prefix, with the NUL. */
#define SM_ADDR_STRLEN 46
#define SM_ENDPOINT_STRLEN 54
#define SM_PREFIX_STRLEN 50

struct sm_addr sm_addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
/** sm_addr_from_u32() - from a host-order number; sm_addr_to_u32() - v4 only, else 0. */
struct sm_addr sm_addr_from_u32(uint32_t host_order);
uint32_t sm_addr_to_u32(const struct sm_addr *a);
struct sm_addr sm_addr_from_in(struct in_addr in);
struct in_addr sm_addr_to_in(const struct sm_addr *a);
struct sm_addr sm_addr_from_in6(const struct in6_addr *in6);

bool sm_addr_equal(const struct sm_addr *a, const struct sm_addr *b);
int sm_addr_cmp(const struct sm_addr *a, const struct sm_addr *b);
/** sm_addr_hash() - for hash tables keyed by our own data only where flooding does not matter (not keyed). */
uint32_t sm_addr_hash(const struct sm_addr *a);
/** sm_addr_parse() - whole string, strict (see above). Returns false and leaves *ret alone on failure. */
bool sm_addr_parse(const char *text, struct sm_addr *ret) SM_WARN_UNUSED;
const char *sm_addr_format(const struct sm_addr *a, char out[SM_ADDR_STRLEN]);

bool sm_endpoint_equal(const struct sm_endpoint *a, const struct sm_endpoint *b);
/** sm_endpoint_parse() - "A.B.C.D", "A.B.C.D:PORT", "[v6]:PORT", "v6"; without a port default_port is taken. */
bool sm_endpoint_parse(const char *text, uint16_t default_port, struct sm_endpoint *ret) SM_WARN_UNUSED;
const char *sm_endpoint_format(const struct sm_endpoint *e, char out[SM_ENDPOINT_STRLEN]);
/** sm_endpoint_to_sockaddr() - returns the length for bind/connect, 0 for family none. */
socklen_t sm_endpoint_to_sockaddr(const struct sm_endpoint *e, struct sockaddr_storage *ret);
bool sm_endpoint_from_sockaddr(const struct sockaddr_storage *ss, struct sm_endpoint *ret);

bool sm_prefix_contains(const struct sm_prefix *p, const struct sm_addr *a);
bool sm_prefix_equal(const struct sm_prefix *a, const struct sm_prefix *b);
/** sm_prefix_parse() - "ADDR/LEN", or a bare address (full length). Host bits that are not zero are an error. */
bool sm_prefix_parse(const char *text, struct sm_prefix *ret) SM_WARN_UNUSED;
const char *sm_prefix_format(const struct sm_prefix *p, char out[SM_PREFIX_STRLEN]);

#endif
