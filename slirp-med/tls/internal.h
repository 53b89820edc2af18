/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of tls/ share and nobody else may see: the CA's signing, the connection's inside, the session cache,
 * failures.
 */
#ifndef SM_TLS_INTERNAL_H
#define SM_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/error.h"
#include "tls/ca.h"
#include "tls/conn.h"

/* --- ca.c: what a certificate looks like; leaves.c: which ones there are --- */

struct sm_tls_leaves;

struct sm_tls_ca {
    EVP_PKEY *key;
    X509 *cert;
    char *pem;
    EVP_PKEY *leaf_key;
    int64_t from_us, until_us; /* the CA's own validity */
    struct sm_tls_leaves *leaves;
};

/** sm_tls_ca_sign() - a fresh leaf, NULL on failure; *ret_from_us and *ret_until_us: its validity. */
X509 *sm_tls_ca_sign(struct sm_tls_ca *ca, const char *name, const struct sm_addr *addr, int64_t wall_us,
                     int64_t *ret_from_us, int64_t *ret_until_us);
/** sm_tls_ca_read_back() - the same certificate as if it had been received, or NULL. */
X509 *sm_tls_ca_read_back(X509 *cert);
struct sm_tls_leaves *sm_tls_leaves_new(void);
void sm_tls_leaves_free(struct sm_tls_leaves *leaves);

/* --- what was verified --- */

/** When a chain may be believed: from its last verification on, while all its certificates are valid. */
struct sm_tls_trust {
    int64_t verified_us;       /* the real verification's time; what rests on it inherits it */
    int64_t from_us, until_us; /* validity of the chain */
    size_t chain_len;          /* of the Certificate message */
};

/** sm_tls_trust_holds() - is it believed at this time? An hour at most, and never before it was verified. */
static inline bool sm_tls_trust_holds(const struct sm_tls_trust *t, int64_t wall_us)
{
    return wall_us >= t->verified_us && wall_us - t->verified_us < SM_TLS_SESSION_SECONDS * INT64_C(1000000) &&
           wall_us >= t->from_us && wall_us < t->until_us;
}

/* --- chains.c --- */

/** Verified chains that are remembered, of some 120 bytes each: as many as there are sessions. */
#define SM_TLS_CHAINS_MAX SM_TLS_SESSIONS_MAX

struct sm_tls_chains;
/** What a verification depends on, but for the roots and the time. */
struct sm_tls_chain_key {
    uint8_t sha256[32];
};

struct sm_tls_chains *sm_tls_chains_new(void);
void sm_tls_chains_free(struct sm_tls_chains *t);
/** sm_tls_chains_clear() - the roots have changed. */
void sm_tls_chains_clear(struct sm_tls_chains *t);
/** sm_tls_chain_key() - of all certificates as the server sent them, and the name or address they are to be for. */
bool sm_tls_chain_key(STACK_OF(X509) * sent, const char *identity, struct sm_tls_chain_key *ret) SM_WARN_UNUSED;
void sm_tls_chains_put(struct sm_tls_chains *t, const struct sm_tls_chain_key *key, const struct sm_tls_trust *trust);
/** sm_tls_chains_find() - was it verified, and is that believed now? */
bool sm_tls_chains_find(struct sm_tls_chains *t, const struct sm_tls_chain_key *key, int64_t wall_us,
                        struct sm_tls_trust *ret) SM_WARN_UNUSED;
size_t sm_tls_chains_count(const struct sm_tls_chains *t);

/* --- sessions.c --- */

/**
 * Sessions kept for one key: a browser or a package manager opens 6 to 20 connections at once, and each takes one
 * away.
 */
#define SM_TLS_SESSIONS_PER_KEY 32

struct sm_tls_sessions;
struct sm_tls_sessions *sm_tls_sessions_new(void);
void sm_tls_sessions_free(struct sm_tls_sessions *s);
/** sm_tls_sessions_put() - takes the reference. */
void sm_tls_sessions_put(struct sm_tls_sessions *s, const char *key, SSL_SESSION *session,
                         const struct sm_tls_trust *trust);
/** sm_tls_sessions_take() - a new reference to the newest usable one, or NULL; a TLS 1.3 session leaves the cache. */
SSL_SESSION *sm_tls_sessions_take(struct sm_tls_sessions *s, const char *key, int64_t wall_us,
                                  struct sm_tls_trust *ret_trust);
/** sm_tls_sessions_count() - for tests. */
size_t sm_tls_sessions_count(const struct sm_tls_sessions *s);
/** sm_tls_sessions_cost() - bytes, estimated: a chain that several sessions share counts once. */
size_t sm_tls_sessions_cost(const struct sm_tls_sessions *s);
/** sm_tls_upstream_sessions() - the factory's own. */
const struct sm_tls_sessions *sm_tls_upstream_sessions(const struct sm_tls_upstream *u);
/** sm_tls_upstream_chain() - a server's Certificate message has come, so long; false: that is too much. */
bool sm_tls_upstream_chain(struct sm_tls_conn *c, size_t len);
/** sm_tls_upstream_forget() - the connection ends. */
void sm_tls_upstream_forget(struct sm_tls_conn *c);
/** sm_tls_upstream_set_chains_cost() - in place of SM_TLS_CHAINS_COST: a test need not fill it. */
void sm_tls_upstream_set_chains_cost(struct sm_tls_upstream *u, size_t cost);

/* --- conn.c --- */

/** One read of the wire. 64 KiB: four full records, and it stays in the cache beside the output. */
#define SM_TLS_IN_MAX (64u << 10)
/** Over SM_TLS_OUT_MAX there is room for one full record, or for a flight of a handshake. */
#define SM_TLS_OUT_SLACK (20u << 10)

/**
 * Buffers of the connection that is being driven right now: one pair a factory, so that an idle connection has none
 * and a busy one finds them warm in the cache. Input that OpenSSL did not take and output that the wire did not take
 * move into the connection's own queues.
 */
struct sm_tls_scratch {
    uint8_t *in;
    size_t in_pos, in_len;
    struct sm_tls_conn *out_of; /* whose output is in `out` */
    uint8_t *out;
    size_t out_pos, out_len;
};

void sm_tls_scratch_init(struct sm_tls_scratch *s);
void sm_tls_scratch_clear(struct sm_tls_scratch *s);

struct sm_tls_conn {
    SSL *ssl;
    struct sm_tls_wire wire;
    struct sm_tls_scratch *scratch;
    struct sm_buf in;  /* read from the wire, not yet taken by OpenSSL */
    struct sm_buf out; /* not taken by the wire; when this holds something, scratch->out holds nothing of ours */
    size_t want;       /* how much of the wire the running call can use */
    enum sm_tls_failure failure;
    int read_errno;    /* the wire's reading end failed */
    bool drained;      /* the running call has read all that the wire has for now, or as much as one call may */
    size_t taken;      /* bytes of the wire that the running call has read */
    bool wire_eof;     /* the wire has ended */
    bool write_broken; /* the wire takes nothing more: what is written is dropped */
    bool dead;         /* OpenSSL's state machine has failed */
    bool overloaded;   /* upstream: the server's chain is more than may be held */
    bool handshaken;
    bool closing;      /* close_notify is queued or sent */
    bool end_due;      /* an end was seen behind data that was returned: the next read tells */
    unsigned records;  /* that the running call has read */
    unsigned later;    /* messages after the handshake that no data has paid for, see SM_TLS_LATER_MAX */
    size_t later_paid; /* bytes read that have not paid for one yet */
    int16_t alert;     /* received fatal alert, -1: none */
    char error[160];

    /* Upstream. */
    struct sm_tls_upstream *upstream;
    char *identity; /* whom the certificate must be for: a name, or an address in text */
    char *session_key;
    uint8_t *alpn; /* upstream: the offer; guest: the one to choose */
    size_t alpn_len;
    size_t chain_cost;           /* counted in the factory */
    struct sm_tls_trust trust;   /* of the chain that stands behind this connection */
    struct sm_tls_trust resumes; /* ... and of the session that it offers */

    /* Guest. */
    char *sni;
};

/** sm_tls_conn_new() - the common part. The SSL is taken. */
struct sm_tls_conn *sm_tls_conn_new(SSL *ssl, struct sm_tls_scratch *scratch, const struct sm_tls_wire *wire);
/** sm_tls_conn_fail() - the first failure counts. */
void sm_tls_conn_fail(struct sm_tls_conn *c, enum sm_tls_failure failure, const char *fmt, ...) SM_PRINTF(3, 4);
/**
 * sm_tls_upstream_accepted() - after an upstream handshake: is what the server chose something that was offered?
 * Notes what a resumption rests on.
 */
bool sm_tls_upstream_accepted(struct sm_tls_conn *c);

/* --- failure.c --- */

enum sm_tls_failure sm_tls_failure_of_verify(long verify_result);
enum sm_tls_failure sm_tls_failure_of_error(unsigned long error);
/** sm_tls_alert_name() - RFC 8446 6.2, or "unknown_alert". */
const char *sm_tls_alert_name(int alert);
/** sm_tls_set_error() - error := what, and OpenSSL's first reason. Empties OpenSSL's queue. */
void sm_tls_set_error(GError **error, enum sm_error_code code, const char *what);

/* --- provider.c --- */

/**
 * sm_tls_provider_load() - OpenSSL's default provider, with OpenSSL before 3.2 only the part that we use, because there
 * every public key costs in proportion to what is loaded. Once a process; again does nothing.
 */
bool sm_tls_provider_load(void) SM_WARN_UNUSED;

/* --- library.c --- */

/** sm_tls_ctx_common() - what both sides set. */
bool sm_tls_ctx_common(SSL_CTX *ctx);

/** Time of an ASN1_TIME in microseconds since the epoch; INT64_MIN when it is none. */
int64_t sm_tls_time_us(const ASN1_TIME *t);

#endif
