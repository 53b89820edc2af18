/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DNS messages between a guest, us and the upstream resolver: nothing passes through as bytes. A guest's question is
 * parsed into struct sm_dns_query and a fresh query is built from it; the upstream's response is parsed, walked from
 * the question along its CNAME chain, and a fresh response is encoded from what the walk reached.
 *
 * Sans-I/O, no allocation, no clock. Every length is bounded by the constants below; names are decompressed with a
 * bound on jumps, and a pointer must point backwards.
 *
 * Sources: RFC 1035 (4.1 format, 4.2.2 TCP framing), RFC 2181 (8 TTL, 9 TC), RFC 3597 (unknown types), RFC 6891 (EDNS),
 * RFC 8482 (ANY), RFC 9460 (SVCB and HTTPS, 2.2 wire format), RFC 4035 3.2 (DO, AD, CD), RFC 5452 (matching answers to
 * questions).
 *
 * What the guest gets (sm_dns_reply_encode):
 *   - its own id and question, byte for byte in the letters it used; RA set, AA and AD clear (AD is never ours to say),
 * CD as it was asked;
 *   - from the answer section only what the chain reaches: the CNAMEs on it, DNAMEs above it, and at its end the
 * records of the asked type; RRSIGs on those when DO was asked. Everything else (out of bailiwick, other classes, stray
 * types) is left out;
 *   - from the authority section the SOA whose owner is the chain's end or above it (negative caching, RFC 2308), and
 * with DO the NSEC, NSEC3 and RRSIG records below that SOA's owner; nothing from the additional section but our own
 * OPT;
 *   - HTTPS and SVCB records without `ech` (spec section 4), and without ipv4hint and ipv6hint: an address that comes
 * only as a hint has no pin, so that a client that used it would be refused in strict, and IPv6 is not mediated. RRSIGs
 * over those types are left out. With no_h3 also without `h3` and `h3-*` in alpn: an alpn that would be empty goes, and
 * means the scheme's default (RFC 9460 7.1.2); `mandatory` names only what is still there; a record that says
 * no-default-alpn and has no alpn left is left out, because it is for HTTP/3 alone (so is one that came that way).
 *   - over UDP an answer that does not fit is empty with TC set (never a part of a set), and the guest asks again over
 * TCP.
 */
#ifndef SM_DNS_MESSAGE_H
#define SM_DNS_MESSAGE_H

#include "base/addr.h"
#include "base/rw.h"

/** RFC 1035: a name on the wire with its root label. */
#define SM_DNS_NAME_MAX 255
/** Text of a name: every byte may become \DDD, plus dots and NUL. */
#define SM_DNS_NAME_TEXT_MAX 1016
/** Longest query taken from a guest: one question and an OPT with padding; more is tunnelling or an attack. */
#define SM_DNS_QUERY_MAX 1232
/** Longest query built: header 12 + name 255 + 4 + OPT 11. */
#define SM_DNS_UPSTREAM_QUERY_MAX 282
/** ... whose last bytes are always this OPT. */
#define SM_DNS_UPSTREAM_OPT_LEN 11
/** Largest message (the length field of TCP framing). */
#define SM_DNS_MESSAGE_MAX 65535
/** Largest UDP reply to a guest, and what we offer upstream: no fragments on any usual path (DNS flag day 2020). */
#define SM_DNS_UDP_MAX 1232
/** CNAMEs followed from one question: resolvers stop between 8 and 17. */
#define SM_DNS_CHAIN_MAX 16
/** Records looked at in one response; a response with more is malformed for us. */
#define SM_DNS_RECORDS_MAX 512
/** Addresses taken from one response: what is not taken is not given to the guest either, so that every address it has
 * is pinned. */
#define SM_DNS_ADDRS_MAX 64

enum sm_dns_type {
    SM_DNS_A = 1,
    SM_DNS_NS = 2,
    SM_DNS_CNAME = 5,
    SM_DNS_SOA = 6,
    SM_DNS_PTR = 12,
    SM_DNS_MX = 15,
    SM_DNS_TXT = 16,
    SM_DNS_AAAA = 28,
    SM_DNS_SRV = 33,
    SM_DNS_DNAME = 39,
    SM_DNS_OPT = 41,
    SM_DNS_RRSIG = 46,
    SM_DNS_NSEC = 47,
    SM_DNS_NSEC3 = 50,
    SM_DNS_SVCB = 64,
    SM_DNS_HTTPS = 65,
    SM_DNS_IXFR = 251,
    SM_DNS_AXFR = 252,
    SM_DNS_ANY = 255,
};

enum sm_dns_rcode {
    SM_DNS_NOERROR = 0,
    SM_DNS_FORMERR = 1,
    SM_DNS_SERVFAIL = 2,
    SM_DNS_NXDOMAIN = 3,
    SM_DNS_NOTIMP = 4,
    SM_DNS_REFUSED = 5,
    SM_DNS_BADVERS = 16, /* extended: needs an OPT in the reply */
};

/** A name as on the wire, uncompressed, root label included; case as received. len 0 is "no name"; the root is {1,
 * {0}}. */
struct sm_dns_name {
    uint8_t len;
    uint8_t wire[SM_DNS_NAME_MAX];
};

/** sm_dns_name_equal() - ASCII case folded, as DNS compares. */
bool sm_dns_name_equal(const struct sm_dns_name *a, const struct sm_dns_name *b);
/** sm_dns_name_within() - is name equal to zone or below it? */
bool sm_dns_name_within(const struct sm_dns_name *name, const struct sm_dns_name *zone);
/**
 * sm_dns_name_text() - presentation form without the final dot (the root is "."), letters as they are; a dot or
 * backslash inside a label is
 * "\." and "\\", other bytes outside '!'..'~' are "\DDD". A text with a backslash is never a host name. Returns out.
 */
const char *sm_dns_name_text(const struct sm_dns_name *name, char out[SM_DNS_NAME_TEXT_MAX]);
/** sm_dns_name_from_text() - plain host names only (no escapes); one final dot is allowed. False when a label or the
 * whole is too long or empty. */
bool sm_dns_name_from_text(const char *text, struct sm_dns_name *ret) SM_WARN_UNUSED;
/** sm_dns_name_read() - a name at r's position of the message msg; follows pointers (backwards only, bounded). False:
 * r->bad is set. */
bool sm_dns_name_read(struct sm_rd *r, struct sm_dns_name *ret);

/** A guest's question. */
struct sm_dns_query {
    uint16_t id;
    bool rd;
    bool cd;
    bool has_question; /* qname, qtype and qclass hold what was asked (also in some refused queries, so that it can be
                          echoed) */
    struct sm_dns_name qname;
    uint16_t qtype;
    uint16_t qclass;
    bool edns;
    uint16_t
        udp_size; /* what the guest can take over UDP: 512 without EDNS, else at least 512 and at most SM_DNS_UDP_MAX */
    bool dnssec_ok; /* DO */
};

enum sm_dns_query_result {
    SM_DNS_QUERY_OK,
    SM_DNS_QUERY_DROP,  /* shorter than a header, or itself a response: answering would make loops */
    SM_DNS_QUERY_ERROR, /* answer with *ret_rcode */
};

/**
 * sm_dns_query_parse() - exactly one question of class IN, opcode QUERY, no other records but one OPT, nothing behind
 * it.
 * @ret: filled as far as possible, also on ERROR (for the reply).
 * @ret_rcode: on ERROR what to answer: FORMERR, NOTIMP (opcode), REFUSED (class), BADVERS (EDNS version).
 */
enum sm_dns_query_result sm_dns_query_parse(const uint8_t *msg, size_t len, struct sm_dns_query *ret,
                                            enum sm_dns_rcode *ret_rcode);

/**
 * sm_dns_query_build() - the query for the upstream: id as given, RD, one question, OPT with SM_DNS_UDP_MAX and DO as
 * asked. No CD (the guest must not be able to ask for unvalidated data that then makes pins), no other option. Return:
 * length, or 0 when cap is too small (SM_DNS_UPSTREAM_QUERY_MAX always suffices).
 */
size_t sm_dns_query_build(const struct sm_dns_query *q, uint16_t id, uint8_t *out, size_t cap);

/** What a response says about its question. */
struct sm_dns_response {
    enum sm_dns_rcode rcode; /* header rcode and EDNS extension together; unknown numbers are kept */
    bool truncated;
    bool edns;                /* it had an OPT */
    struct sm_dns_name final; /* the end of the CNAME chain; qname when there is none */
    unsigned chain_len;       /* CNAMEs followed */
    uint32_t min_ttl;         /* seconds, over the chain and the final records; 0 when there are none */
    unsigned n_final;         /* records of the asked type at the end of the chain */
    unsigned n_addrs;         /* A and AAAA among them, in order */
    struct sm_addr addrs[SM_DNS_ADDRS_MAX];

    /* Private: the message and the records that are kept, by offset; msg stays the caller's and must live as long. */
    const uint8_t *msg;
    size_t msg_len;
    unsigned n_keep;
    struct sm_dns_kept {
        uint16_t off; /* where the owner's name begins */
        bool authority;
    } keep[SM_DNS_RECORDS_MAX];
};

enum sm_dns_response_result {
    SM_DNS_RESPONSE_OK,
    SM_DNS_RESPONSE_MISMATCH,  /* not an answer to this query: other id, question, opcode, or no response */
    SM_DNS_RESPONSE_MALFORMED, /* an answer that cannot be believed: treat as SERVFAIL */
};

/**
 * sm_dns_response_parse() - read a response to q that was asked with the given id.
 * @msg: kept by reference in *ret.
 * A response with QR clear, a wrong id, other than exactly our question, is MISMATCH; counts that lie, loops, bad
 * names, two CNAMEs at one owner, a chain over SM_DNS_CHAIN_MAX, records behind the counts, are MALFORMED.
 */
enum sm_dns_response_result sm_dns_response_parse(const uint8_t *msg, size_t len, uint16_t id,
                                                  const struct sm_dns_query *q, struct sm_dns_response *ret);

/**
 * sm_dns_reply_encode() - the guest's reply from a parsed response, as the head of this file says.
 * @no_h3: the name would be intercepted, which HTTP/3 cannot be: take it out of HTTPS and SVCB records.
 * @max: the largest message to make: q->udp_size over UDP, SM_DNS_MESSAGE_MAX over TCP; cap must be at least max.
 * @ret_truncated: set when the answer did not fit and TC is set instead (then nothing in it may make pins).
 * Return: length, 0 when even the question does not fit.
 */
size_t sm_dns_reply_encode(const struct sm_dns_query *q, const struct sm_dns_response *resp, bool no_h3, size_t max,
                           uint8_t *out, size_t cap, bool *ret_truncated);

/**
 * sm_dns_reply_simple() - a reply without records: REFUSED, SERVFAIL, FORMERR, NOTIMP, NXDOMAIN, or NODATA (rcode
 * NOERROR). The question is echoed when the query had one that could be read; an OPT is added when the query had one.
 */
size_t sm_dns_reply_simple(const struct sm_dns_query *q, enum sm_dns_rcode rcode, uint8_t *out, size_t cap);

/** sm_dns_rcode_name() - "NOERROR", "REFUSED" ...; "RCODE" for numbers without a name here. sm_dns_type_name() - "A",
 * ... or NULL. */
const char *sm_dns_rcode_name(enum sm_dns_rcode rcode);
const char *sm_dns_type_name(uint16_t type);

/**
 * sm_dns_frame_next() - DNS over TCP: the next message of a byte stream.
 * @data, @len: what is held of the stream, from a frame's beginning.
 * @max: a frame that announces more (or less than a header, 12) is a framing error: *ret_bad is set, close the
 * connection. Return: bytes of the whole frame (drop them after use), with *ret_msg and *ret_msg_len inside data; 0:
 * need more, or *ret_bad.
 */
size_t sm_dns_frame_next(const uint8_t *data, size_t len, size_t max, const uint8_t **ret_msg, size_t *ret_msg_len,
                         bool *ret_bad);

#endif
