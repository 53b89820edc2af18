/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TLS connections as engines: OpenSSL's state machine over two functions of the caller's that move bytes. Nothing
 * here opens, polls or waits.
 *
 * Two factories. `struct sm_tls_upstream` makes client connections to servers, verified against the roots it was
 * given, with a cache of sessions to resume and one of chains that were verified. `struct sm_tls_guest` makes server
 * connections to guests, with leaves of the workspace's CA. A connection is driven by its owner: handshake until OK,
 * then read, write, shutdown; each call does as much as the wire lets it and says what it waits for.
 *
 * The wire (struct sm_tls_wire): read and write as read(2) and write(2) do, -1 with errno EAGAIN when they would
 * block, read 0 at the end. What is written is gathered (up to SM_TLS_OUT_MAX) and goes out in large writes:
 * sm_tls_conn_flush() after a batch of writes, and whenever the wire can be written again. Reads are made in pieces of
 * up to 64 KiB. After a short read the wire is not asked again in the same call, so it must be watched
 * level-triggered. The buffers belong to the factory and are lent to the connection that is being driven; an idle
 * connection holds none (some 20 KiB of OpenSSL's state upstream, with the server's chain, and 14 KiB towards the
 * guest). The wire's functions must not call back into this module. A factory must outlive its connections; all of a
 * factory belongs to one thread.
 *
 * A wire that ends without close_notify is CUT, and can still be written to; a wire that takes no more bytes is ERROR
 * for the writer, while what came before can still be read.
 *
 * Policy of the versions: TLS 1.2 and 1.3 on both sides, no renegotiation, no compression, no early data, security
 * level 2 upstream (SHA-1 signatures and RSA below 2048 bits are refused), no tickets and no session cache towards the
 * guest (a resumption attempt becomes a full handshake, so no session of one name is ever used for another).
 *
 * Sources: RFC 8446, RFC 5246, RFC 7301 (ALPN), RFC 6066 (SNI), RFC 6125/9525 (names), RFC 8701.
 */
#ifndef SM_TLS_CONN_H
#define SM_TLS_CONN_H

#include <glib.h>
#include <sys/types.h>

#include "base/addr.h"
#include "base/defs.h"
#include "tls/ca.h"

/** Gathered output of one connection: eight full records; beyond it sm_tls_conn_write() says WANT_WRITE. */
#define SM_TLS_OUT_MAX (128u << 10)
/**
 * Messages that a peer may send after the handshake (key updates, tickets, requests to renegotiate; our alerts that
 * answer them count too), and the bytes of data that earn it one more. Each costs some ten times what a record of data
 * does. Servers send a handful of tickets at once, and a key update comes every few gigabytes or few hours.
 */
#define SM_TLS_LATER_MAX 64
#define SM_TLS_LATER_BYTES 1024
/** Records that one sm_tls_conn_read() takes: with one byte in each, 64 KiB would hold its caller for 50 ms. */
#define SM_TLS_READ_RECORDS 128
/**
 * A server's chain, as long as its Certificate message: real ones have 2 to 10 KiB, with post-quantum signatures 20. A
 * server may add to its own certificate whatever it likes, nobody verifies what is not needed; beyond this the
 * handshake fails (OpenSSL would take 100 KiB).
 */
#define SM_TLS_CHAIN_MAX (64u << 10)
/** What a byte of it costs once it is decoded: 5 in an ordinary chain, 14 in one of empty names and extensions. */
#define SM_TLS_CHAIN_COST 16
/**
 * What the chains of all live connections may cost: beyond it a server with more than its share fails, so that a
 * thousand connections to one that adds 64 KiB of junk are no gigabyte. Ten thousand ordinary chains are below it.
 */
#define SM_TLS_CHAINS_COST ((size_t)512 << 20)
#define SM_TLS_CHAIN_SHARE (16u << 10)
/**
 * Upstream sessions kept to resume, what they may cost together (tickets, and the chains that they hold), and for how
 * long a verification is believed.
 */
#define SM_TLS_SESSIONS_MAX 512
#define SM_TLS_SESSIONS_COST ((size_t)32 << 20)
#define SM_TLS_SESSION_SECONDS 3600

struct sm_tls_wire {
    ssize_t (*read)(void *ctx, void *buf, size_t len);
    ssize_t (*write)(void *ctx, const void *buf, size_t len);
    void *ctx;
};

enum sm_tls_io {
    SM_TLS_IO_OK,
    SM_TLS_IO_WANT_READ,  /* nothing more until the wire can be read */
    SM_TLS_IO_WANT_WRITE, /* ... be written */
    SM_TLS_IO_EOF,        /* the peer's close_notify: an orderly end */
    SM_TLS_IO_CUT,        /* the wire ended without close_notify */
    SM_TLS_IO_ERROR,      /* failed for good: sm_tls_conn_failure() */
    SM_TLS_IO_COUNT
};

/** Why a connection failed. The names are the audit's words. */
enum sm_tls_failure {
    SM_TLS_FAILURE_NONE,
    SM_TLS_FAILURE_EXPIRED,            /* certificate_expired */
    SM_TLS_FAILURE_NOT_YET_VALID,      /* certificate_not_yet_valid */
    SM_TLS_FAILURE_NAME_MISMATCH,      /* certificate_name_mismatch */
    SM_TLS_FAILURE_SELF_SIGNED,        /* certificate_self_signed: the leaf itself, or an unknown root in the chain */
    SM_TLS_FAILURE_UNKNOWN_ISSUER,     /* certificate_unknown_issuer: unknown CA, or an intermediate is missing */
    SM_TLS_FAILURE_WEAK,               /* certificate_weak: key or signature under security level 2 */
    SM_TLS_FAILURE_NAME_CONSTRAINT,    /* certificate_name_constraint */
    SM_TLS_FAILURE_REVOKED,            /* certificate_revoked */
    SM_TLS_FAILURE_PURPOSE,            /* certificate_purpose: not for servers, or a CA that may not sign */
    SM_TLS_FAILURE_CERTIFICATE,        /* certificate_invalid: anything else that verification says */
    SM_TLS_FAILURE_CLIENT_CERTIFICATE, /* client_certificate_required */
    SM_TLS_FAILURE_VERSION,            /* tls_version: no common version */
    SM_TLS_FAILURE_ALERT,              /* peer_alert: the peer refused; sm_tls_conn_alert() has which */
    SM_TLS_FAILURE_PROTOCOL,           /* tls_protocol_error: what came is not what a handshake says */
    SM_TLS_FAILURE_CLOSED,             /* closed_in_handshake */
    SM_TLS_FAILURE_RESET,              /* the wire failed: reset */
    SM_TLS_FAILURE_RENAMED,            /* guest: the hello is not the one that was judged: hello_changed */
    SM_TLS_FAILURE_RESOURCES,          /* out_of_resources */
    SM_TLS_FAILURE_COUNT
};

struct sm_tls_conn;

/* --- towards servers --- */

struct sm_tls_upstream;

/**
 * sm_tls_upstream_new() - a factory with no roots: every verification fails until some are added.
 */
struct sm_tls_upstream *sm_tls_upstream_new(GError **error);
void sm_tls_upstream_free(struct sm_tls_upstream *u);
/**
 * sm_tls_upstream_add_roots() - trust the certificates of a PEM bundle (text around them is skipped; a broken or
 * repeated one is skipped too). Returns how many were added.
 */
size_t sm_tls_upstream_add_roots(struct sm_tls_upstream *u, const char *pem, size_t len);

struct sm_tls_peer {
    const char *name;    /* canonical DNS name that the certificate must be for; NULL: it must be for addr */
    struct sm_addr addr; /* the address dialled */
    uint16_t port;
    bool send_sni;       /* name goes out as SNI (false: the guest sent none) */
    const uint8_t *alpn; /* the guest's offer, wire format (length byte + bytes each), checked; NULL: none */
    size_t alpn_len;
    int64_t wall_us; /* now, for the validity of certificates and sessions */
};

struct sm_tls_conn *sm_tls_conn_new_upstream(struct sm_tls_upstream *u, const struct sm_tls_peer *peer,
                                             const struct sm_tls_wire *wire, GError **error);
/** sm_tls_conn_resumed() - was the handshake a resumption? */
bool sm_tls_conn_resumed(const struct sm_tls_conn *c);

/* --- towards guests --- */

struct sm_tls_guest;

/** sm_tls_guest_new() - @ca is borrowed and must outlive the factory. */
struct sm_tls_guest *sm_tls_guest_new(struct sm_tls_ca *ca, GError **error);
void sm_tls_guest_free(struct sm_tls_guest *g);

/**
 * sm_tls_conn_new_guest() - a server connection.
 * @sni: what the judged hello said (as sent, compared without case), or NULL when it said nothing: a hello that says
 * otherwise fails (RENAMED) with the alert unrecognized_name before anything else is answered.
 * @leaf: from sm_tls_ca_leaf(); a reference is taken. @alpn: the one protocol that upstream chose, or NULL: none is
 * chosen. A hello that does not offer it fails (RENAMED too) with the alert no_application_protocol.
 */
struct sm_tls_conn *sm_tls_conn_new_guest(struct sm_tls_guest *g, const char *sni, X509 *leaf, const uint8_t *alpn,
                                          size_t alpn_len, const struct sm_tls_wire *wire, GError **error);

/**
 * sm_tls_alert_for() - the alert that tells a guest why its server was not acceptable, as a plaintext record that may
 * be sent before any ServerHello (RFC 8446 6): 7 bytes.
 */
void sm_tls_alert_for(enum sm_tls_failure failure, uint8_t out[7]);

/* --- both --- */

void sm_tls_conn_free(struct sm_tls_conn *c);
/**
 * sm_tls_conn_handshake() - OK once it is complete; flushes by itself. After ERROR the alert (if one is due) has been
 * flushed as far as the wire took it.
 */
enum sm_tls_io sm_tls_conn_handshake(struct sm_tls_conn *c);
/**
 * sm_tls_conn_read() - up to cap bytes, over as many records as are there (SM_TLS_READ_RECORDS at most: look at
 * sm_tls_conn_readable() before you wait). OK: *ret_n > 0.
 */
enum sm_tls_io sm_tls_conn_read(struct sm_tls_conn *c, void *buf, size_t cap, size_t *ret_n);
/** sm_tls_conn_write() - OK: *ret_n of len were taken (may be fewer). Call sm_tls_conn_flush() after the batch. */
enum sm_tls_io sm_tls_conn_write(struct sm_tls_conn *c, const void *buf, size_t len, size_t *ret_n);
/** sm_tls_conn_flush() - OK when nothing is left to send, WANT_WRITE, or ERROR. */
enum sm_tls_io sm_tls_conn_flush(struct sm_tls_conn *c);
/** sm_tls_conn_shutdown() - send close_notify (after what was written); reading goes on. OK, WANT_WRITE, ERROR. */
enum sm_tls_io sm_tls_conn_shutdown(struct sm_tls_conn *c);
/** sm_tls_conn_unsent() - bytes gathered and not yet taken by the wire. */
size_t sm_tls_conn_unsent(const struct sm_tls_conn *c);
/** sm_tls_conn_held() - those, and the bytes of the wire that are not yet read: what waits in this connection. */
size_t sm_tls_conn_held(const struct sm_tls_conn *c);
/** sm_tls_conn_readable() - has OpenSSL bytes that need no more of the wire? (epoll would not tell.) */
bool sm_tls_conn_readable(const struct sm_tls_conn *c);

/** Facts, valid after the handshake. */
const char *sm_tls_conn_version(const struct sm_tls_conn *c);                  /* "TLSv1.3" */
const uint8_t *sm_tls_conn_alpn(const struct sm_tls_conn *c, size_t *ret_len); /* NULL: none was chosen */
/**
 * ... after a failure: why, which alert the peer sent (RFC 8446 6.2 name such as "unknown_ca"; NULL: none), and a
 * text for people.
 */
enum sm_tls_failure sm_tls_conn_failure(const struct sm_tls_conn *c);
const char *sm_tls_conn_alert(const struct sm_tls_conn *c);
const char *sm_tls_conn_error(const struct sm_tls_conn *c);

const char *sm_tls_io_name(enum sm_tls_io io);
const char *sm_tls_failure_name(enum sm_tls_failure failure);

/**
 * sm_tls_library_init() - before the sandbox closes: everything that OpenSSL would otherwise do lazily with files.
 * What comes after the first time does nothing.
 */
bool sm_tls_library_init(GError **error) SM_WARN_UNUSED;

#endif
