/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ClientHello of a connection, read from raw TLS records: which name does it assert, and what does it offer?
 *
 * Sans-I/O. As in http/head.h the caller keeps all bytes from the connection's first one and calls sm_tls_hello_feed()
 * with the whole of them each time; the reader remembers how far it got and copies the handshake bytes out of the
 * records into a buffer of its own (a hello may span many records and exceed 16 KiB). No fd, no clock. The struct owns
 * that buffer: sm_tls_hello_clear() when done.
 *
 * Sources: RFC 8446 (4.1.2 ClientHello, 4.2 extensions, 5.1 record layer), RFC 5246 7.4.1.2, RFC 6066 3 (SNI), RFC
 * 7301 3.1 (ALPN), RFC 9849 (ECH), RFC 8701 (GREASE), RFC 5246 E.2 (the SSLv2-shaped hello).
 *
 * Nothing is repaired: a hello that a strict server would refuse is SM_TLS_REJECT. An ECH extension is only reported
 * (GREASE ECH looks the same as real ECH); then `sni` is the outer name, which says nothing about the name inside.
 */
#ifndef SM_TLS_CLIENTHELLO_H
#define SM_TLS_CLIENTHELLO_H

#include "base/defs.h"

/** Handshake bytes of one hello, header included. Real ones are 0.2 to 4 KiB; OpenSSL's own limit is 128 KiB, nobody
 * comes near 64. */
#define SM_TLS_HELLO_MAX 65536
/** Records that one hello may be spread over: one-byte records of a usual hello still fit, an endless drip does not. */
#define SM_TLS_HELLO_RECORDS_MAX 2048
/** The most raw bytes that feed() may need before it decides. Who holds fewer (SM_FLOW_HELD_MAX) refuses a large hello
 * in tiny records sooner. */
#define SM_TLS_HELLO_RAW_MAX (SM_TLS_HELLO_MAX + 5 * SM_TLS_HELLO_RECORDS_MAX)
/** Extensions in one hello: browsers send about 20, all registered ones are about 60. */
#define SM_TLS_HELLO_EXTENSIONS_MAX 128

enum sm_tls_status {
    SM_TLS_NEED_MORE,
    SM_TLS_NOT_TLS, /* said on the first bytes */
    SM_TLS_HELLO,   /* complete; `consumed` is where its last record ends */
    SM_TLS_REJECT,  /* TLS that breaks a rule: refuse the flow with `reject` */
    SM_TLS_STATUS_COUNT
};

/** How strongly an undecided beginning looks like TLS (compare enum sm_http_maybe). */
enum sm_tls_maybe {
    SM_TLS_MAYBE_EMPTY,  /* no byte yet */
    SM_TLS_MAYBE_BYTE,   /* one or two bytes that could begin a record or an SSLv2 hello: as good as unclassified */
    SM_TLS_MAYBE_RECORD, /* a record header with type and version of TLS: it is TLS; never treat it as opaque */
    SM_TLS_MAYBE_COUNT
};

enum sm_tls_reject {
    SM_TLS_REJECT_NONE,
    SM_TLS_REJECT_SSLV2,         /* an SSLv2-shaped hello */
    SM_TLS_REJECT_NOT_HANDSHAKE, /* the first record is an alert, data or change-cipher-spec */
    SM_TLS_REJECT_RECORD_LENGTH, /* a record of no bytes, or of more than 2^14 */
    SM_TLS_REJECT_INTERLEAVED,   /* another record type, or another protocol's version, inside the hello */
    SM_TLS_REJECT_NOT_HELLO,     /* the first handshake message is not a ClientHello */
    SM_TLS_REJECT_TOO_LARGE,     /* over SM_TLS_HELLO_MAX, or more than SM_TLS_HELLO_RECORDS_MAX records */
    SM_TLS_REJECT_MALFORMED,     /* lengths that do not fit, trailing bytes inside the hello, no cipher suites, no null
                                    compression */
    SM_TLS_REJECT_TRAILING,      /* the last record holds more than the hello */
    SM_TLS_REJECT_EXTENSION_TWICE, /* one extension type twice */
    SM_TLS_REJECT_EXTENSION_ORDER, /* pre_shared_key that is not the last extension */
    SM_TLS_REJECT_TOO_MANY,        /* over SM_TLS_HELLO_EXTENSIONS_MAX */
    SM_TLS_REJECT_SNI_MALFORMED,   /* empty list, empty name, another name type, lengths that do not fit */
    SM_TLS_REJECT_SNI_TWICE,       /* two names */
    SM_TLS_REJECT_SNI_CHARACTERS,  /* NUL or anything but letters, digits, '-', '_', '.'; over 253 bytes */
    SM_TLS_REJECT_SNI_ADDRESS,     /* an address, or a name whose last label is a number */
    SM_TLS_REJECT_ALPN_MALFORMED,
    SM_TLS_REJECT_VERSIONS_MALFORMED,
    SM_TLS_REJECT_ECH_INNER, /* an inner ECH extension in the clear, or an unknown ECH type */
    SM_TLS_REJECT_COUNT
};

struct sm_tls_hello {
    /* Result; valid when status is SM_TLS_HELLO. */
    enum sm_tls_status status;
    enum sm_tls_maybe maybe;
    enum sm_tls_reject reject;
    size_t consumed;
    char sni[256];       /* as sent (not canonical), NUL-terminated; "" when there is none */
    size_t sni_len;      /* 0: no SNI */
    bool ech;            /* an encrypted_client_hello (outer): `sni` is only the public name */
    bool session_ticket; /* a non-empty ticket */
    bool psk;
    bool early_data;
    uint16_t legacy_version;
    uint16_t max_version; /* the highest known version offered: 0x0304, 0x0303 ...; 0 when only unknown ones are */
    const uint8_t *alpn;  /* the protocol_name_list's entries (length byte + bytes, checked), or NULL; lives as long as
                             the struct */
    size_t alpn_len;
    bool alpn_h2;
    bool alpn_http11;

    /* Private. */
    uint8_t *hs; /* handshake bytes out of the records */
    size_t hs_len;
    size_t hs_cap;
    size_t scanned;     /* raw bytes already taken */
    size_t record_left; /* bytes of the current record still to come */
    uint32_t records;
};

void sm_tls_hello_init(struct sm_tls_hello *h);
/** sm_tls_hello_clear() - frees what it holds; the struct may be fed again after a new init. */
void sm_tls_hello_clear(struct sm_tls_hello *h);

/**
 * sm_tls_hello_feed() - read on.
 * @data, @len: all bytes of the connection so far, from the first one; each call must begin with the bytes of the call
 * before. Return: h->status. Once it is not NEED_MORE it does not change any more.
 */
enum sm_tls_status sm_tls_hello_feed(struct sm_tls_hello *h, const uint8_t *data, size_t len);

const char *sm_tls_status_name(enum sm_tls_status status);
/** sm_tls_reject_name() - a stable word for logs and audit: "tls_sni_twice". */
const char *sm_tls_reject_name(enum sm_tls_reject reject);

#endif
