/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine: OpenSSL between a wire and its owner.
 *
 *     wire.read ──► scratch.in ──► [c->in] ──► BIO ──► SSL ──► sm_tls_conn_read()
 *     wire.write ◄── scratch.out | c->out  ◄── BIO ◄── SSL ◄── sm_tls_conn_write()
 *
 * OpenSSL's own read-ahead would keep a large buffer a connection and move its rest for every record; so it asks our
 * BIO for exactly one record at a time, and the BIO reads the wire in large pieces into a buffer that all connections
 * of a factory share. What is left in it at the end of a call is moved to c->in; as a call reads no more of the wire
 * than it has room for, that is seldom.
 *
 * To OpenSSL the wire never ends: the BIO says "later", and we, who know better, say CUT. OpenSSL would take an end
 * without close_notify for a fatal error and refuse to write from then on, but a peer that shut down its sending half
 * may still be listening. For the same reason a wire that takes no more bytes only drops what is written: the alert
 * that explains it may be waiting to be read.
 */
#include "tls/conn.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <string.h>

#include "tls/internal.h"

/** Plaintext of one record, RFC 8446 5.1. */
#define RECORD_MAX 16384u
/** One read of the wire while there is no plaintext to be had yet: a flight with a chain of certificates. */
#define HANDSHAKE_READ 16384u
/** The least that one read asks for: a whole record with what stands around it. */
#define READ_MIN (RECORD_MAX + 512u)

/* --- the wire --- */

void sm_tls_scratch_init(struct sm_tls_scratch *s)
{
    s->in = g_malloc(SM_TLS_IN_MAX);
    s->out = g_malloc(SM_TLS_OUT_MAX + SM_TLS_OUT_SLACK);
}

void sm_tls_scratch_clear(struct sm_tls_scratch *s)
{
    g_free(s->in);
    g_free(s->out);
    *s = (struct sm_tls_scratch){0};
}

static bool flooded(const struct sm_tls_conn *c)
{
    return c->later > SM_TLS_LATER_MAX;
}

static size_t scratch_unsent(const struct sm_tls_conn *c)
{
    return c->scratch->out_of == c ? c->scratch->out_len - c->scratch->out_pos : 0;
}

size_t sm_tls_conn_unsent(const struct sm_tls_conn *c)
{
    return c->out.len + scratch_unsent(c);
}

size_t sm_tls_conn_held(const struct sm_tls_conn *c)
{
    return sm_tls_conn_unsent(c) + c->in.len;
}

/*
 * The shared output buffer becomes free; what its owner has not sent moves to the owner's queue, whose maximum is no
 * less.
 */
static void scratch_leave(struct sm_tls_scratch *s)
{
    struct sm_tls_conn *owner = s->out_of;
    if (owner && !sm_buf_append(&owner->out, s->out + s->out_pos, s->out_len - s->out_pos))
        g_assert_not_reached();
    s->out_of = NULL;
    s->out_pos = s->out_len = 0;
}

static bool fill_from_wire(struct sm_tls_conn *c)
{
    struct sm_tls_scratch *s = c->scratch;
    if (c->drained || c->wire_eof || c->read_errno != 0)
        return false;
    size_t want = SM_MIN(SM_MAX(c->want, (size_t)READ_MIN), (size_t)SM_TLS_IN_MAX);
    ssize_t n;
    do
        n = c->wire.read(c->wire.ctx, s->in, want);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        c->drained = true;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            c->read_errno = errno;
        return false;
    }
    if (n == 0) {
        c->wire_eof = true;
        return false;
    }
    s->in_pos = 0;
    s->in_len = (size_t)n;
    c->taken += (size_t)n;
    /* Asking again would only hear EAGAIN; and a peer that sends records without data for ever must not hold the caller. */
    c->drained = (size_t)n < want || c->taken >= 2 * SM_TLS_IN_MAX;
    return true;
}

static int bio_read(BIO *bio, char *buf, int len)
{
    struct sm_tls_conn *c = BIO_get_data(bio);
    struct sm_tls_scratch *s = c->scratch;
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    if (flooded(c) || c->overloaded) { /* nothing more of it */
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t n = (size_t)len;
    if (c->in.len > 0) {
        n = SM_MIN(n, c->in.len);
        memcpy(buf, sm_buf_peek(&c->in), n);
        sm_buf_consume(&c->in, n);
        return (int)n;
    }
    if (s->in_pos == s->in_len && !fill_from_wire(c)) {
        BIO_set_retry_read(bio);
        return -1;
    }
    n = SM_MIN(n, s->in_len - s->in_pos);
    memcpy(buf, s->in + s->in_pos, n);
    s->in_pos += n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
    struct sm_tls_conn *c = BIO_get_data(bio);
    struct sm_tls_scratch *s = c->scratch;
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    size_t n = (size_t)len;
    if (c->write_broken || flooded(c))
        return len;
    if (sm_tls_conn_unsent(c) + n > SM_TLS_OUT_MAX + SM_TLS_OUT_SLACK) {
        /*
         * The slack is more than a record, so this is a flight that is far too long, or a peer that has us answer and
         * does not read.
         */
        BIO_set_retry_write(bio);
        return -1;
    }
    if (c->out.len == 0) {
        if (s->out_of != c) {
            scratch_leave(s);
            s->out_of = c;
        }
        if (s->out_len + n > SM_TLS_OUT_MAX + SM_TLS_OUT_SLACK) {
            memmove(s->out, s->out + s->out_pos, s->out_len - s->out_pos);
            s->out_len -= s->out_pos;
            s->out_pos = 0;
        }
        memcpy(s->out + s->out_len, buf, n);
        s->out_len += n;
    } else if (!sm_buf_append(&c->out, buf, n)) {
        g_assert_not_reached(); /* the sum was checked above */
    }
    return len;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_PUSH || cmd == BIO_CTRL_POP ? 1 : 0;
}

static BIO_METHOD *wire_method(void)
{
    static BIO_METHOD *method; /* one a process, for good */
    if (!method) {
        BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "slirp-med wire");
        if (!m || BIO_meth_set_read(m, bio_read) != 1 || BIO_meth_set_write(m, bio_write) != 1 ||
            BIO_meth_set_ctrl(m, bio_ctrl) != 1) {
            BIO_meth_free(m);
            return NULL;
        }
        method = m;
    }
    return method;
}

/* --- failures --- */

void sm_tls_conn_fail(struct sm_tls_conn *c, enum sm_tls_failure failure, const char *fmt, ...)
{
    va_list ap;
    if (c->failure != SM_TLS_FAILURE_NONE)
        return;
    c->failure = failure;
    va_start(ap, fmt);
    (void)g_vsnprintf(c->error, sizeof(c->error), fmt, ap);
    va_end(ap);
}

static void fail_errno(struct sm_tls_conn *c, int err)
{
    sm_tls_conn_fail(c, SM_TLS_FAILURE_RESET, "the connection failed: %s",
                     strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error");
}

/* OpenSSL has given up: why? */
static void fail_ssl(struct sm_tls_conn *c)
{
    unsigned long first = ERR_peek_error();
    const char *reason = ERR_reason_error_string(first);
    long verify = SSL_is_server(c->ssl) ? X509_V_OK : SSL_get_verify_result(c->ssl);

    c->dead = true;
    if (c->alert == SSL_AD_PROTOCOL_VERSION || c->alert == SSL_AD_CERTIFICATE_REQUIRED)
        sm_tls_conn_fail(
            c, c->alert == SSL_AD_PROTOCOL_VERSION ? SM_TLS_FAILURE_VERSION : SM_TLS_FAILURE_CLIENT_CERTIFICATE,
            "the peer sent the alert %s", sm_tls_alert_name(c->alert));
    else if (c->alert >= 0)
        sm_tls_conn_fail(c, SM_TLS_FAILURE_ALERT, "the peer sent the alert %s (%d)", sm_tls_alert_name(c->alert),
                         c->alert);
    else if (!c->handshaken && verify != X509_V_OK)
        sm_tls_conn_fail(c, sm_tls_failure_of_verify(verify), "%s", X509_verify_cert_error_string(verify));
    else
        sm_tls_conn_fail(c, first ? sm_tls_failure_of_error(first) : SM_TLS_FAILURE_PROTOCOL, "%s",
                         reason ? reason : "TLS failed without a reason");
    ERR_clear_error();
}

static void on_info(const SSL *ssl, int where, int ret)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && ret >> 8 == SSL3_AL_FATAL)
        c->alert = (int16_t)(ret & 0xff);
}

/*
 * Every record and every message, read or written. What comes after the handshake and is no data makes work for us, and
 * the owner would never learn of it: it is counted, and sm_tls_conn_read() ends the connection.
 */
static void on_message(int write_p, int version, int type, const void *buf, size_t len, SSL *ssl, void *arg)
{
    struct sm_tls_conn *c = SSL_get_app_data(ssl);
    if (!write_p && type == SSL3_RT_HEADER)
        c->records++;
    else if (!write_p && type == SSL3_RT_HANDSHAKE && c->upstream && !c->handshaken && len > 0 &&
             *(const uint8_t *)buf == SSL3_MT_CERTIFICATE)
        c->overloaded = !sm_tls_upstream_chain(c, len);
    else if (c->handshaken && type == (write_p ? SSL3_RT_ALERT : SSL3_RT_HANDSHAKE))
        c->later++;
}

/* --- life --- */

struct sm_tls_conn *sm_tls_conn_new(SSL *ssl, struct sm_tls_scratch *scratch, const struct sm_tls_wire *wire)
{
    BIO_METHOD *method = wire_method();
    BIO *bio = method ? BIO_new(method) : NULL;
    if (!bio) {
        SSL_free(ssl);
        return NULL;
    }
    struct sm_tls_conn *c = g_new0(struct sm_tls_conn, 1);
    c->ssl = ssl;
    c->wire = *wire;
    c->scratch = scratch;
    c->alert = -1;
    sm_buf_init(&c->in, SM_TLS_IN_MAX);
    sm_buf_init(&c->out, SM_TLS_OUT_MAX + SM_TLS_OUT_SLACK);
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, c);
    SSL_set_info_callback(ssl, on_info);
    SSL_set_msg_callback(ssl, on_message);
    return c;
}

void sm_tls_conn_free(struct sm_tls_conn *c)
{
    if (!c)
        return;
    if (c->scratch->out_of == c) {
        c->scratch->out_of = NULL;
        c->scratch->out_pos = c->scratch->out_len = 0;
    }
    /*
     * A connection that ends without close_notify would take its session with it (SSL_shutdown(3)); RFC 5246 7.2.1 no
     * longer asks for that.
     */
    sm_tls_upstream_forget(c);
    if (!c->dead)
        SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    ERR_clear_error();
    sm_buf_clear(&c->in);
    sm_buf_clear(&c->out);
    g_free(c->identity);
    g_free(c->session_key);
    g_free(c->alpn);
    g_free(c->sni);
    g_free(c);
}

/* ERR_clear_error() goes through all of the queue's places, twice a read and twice a write. */
static void forget_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

static void begin(struct sm_tls_conn *c, size_t want)
{
    forget_errors(); /* what others left behind would be taken for ours */
    c->drained = false;
    c->taken = 0;
    c->records = 0;
    c->want = want;
}

/* What OpenSSL has not taken of the shared input is kept with the connection. */
static void end(struct sm_tls_conn *c)
{
    struct sm_tls_scratch *s = c->scratch;
    if (s->in_pos < s->in_len && !sm_buf_append(&c->in, s->in + s->in_pos, s->in_len - s->in_pos))
        g_assert_not_reached(); /* the wire is only read when c->in is empty, and its maximum is one read */
    s->in_pos = s->in_len = 0;
    forget_errors();
}

/* --- output --- */

/* Write p to the wire; returns how much it took, and sets write_broken when it takes nothing more. */
static size_t put(struct sm_tls_conn *c, const uint8_t *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = c->wire.write(c->wire.ctx, p + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            c->write_broken = true;
            fail_errno(c, errno);
        }
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

enum sm_tls_io sm_tls_conn_flush(struct sm_tls_conn *c)
{
    struct sm_tls_scratch *s = c->scratch;
    if (!c->write_broken && c->out.len > 0)
        sm_buf_consume(&c->out, put(c, sm_buf_peek(&c->out), c->out.len));
    if (!c->write_broken && c->out.len == 0 && scratch_unsent(c) > 0)
        s->out_pos += put(c, s->out + s->out_pos, s->out_len - s->out_pos);
    if (c->write_broken) {
        sm_buf_clear(&c->out);
        if (s->out_of == c)
            s->out_pos = s->out_len = 0;
        return SM_TLS_IO_ERROR;
    }
    if (s->out_of == c)
        scratch_leave(s);
    return c->out.len > 0 ? SM_TLS_IO_WANT_WRITE : SM_TLS_IO_OK;
}

enum sm_tls_io sm_tls_conn_write(struct sm_tls_conn *c, const void *buf, size_t len, size_t *ret_n)
{
    const uint8_t *p = buf;
    enum sm_tls_io io = SM_TLS_IO_OK;
    size_t done = 0;

    *ret_n = 0;
    if (c->dead || c->write_broken || c->closing || !c->handshaken)
        return SM_TLS_IO_ERROR;
    begin(c, 0);
    while (done < len && io == SM_TLS_IO_OK) {
        if (sm_tls_conn_unsent(c) >= SM_TLS_OUT_MAX) {
            io = sm_tls_conn_flush(c);
            if (io == SM_TLS_IO_WANT_WRITE && sm_tls_conn_unsent(c) < SM_TLS_OUT_MAX)
                io = SM_TLS_IO_OK;
            if (io != SM_TLS_IO_OK)
                break;
        }
        size_t n = 0;
        if (SSL_write_ex(c->ssl, p + done, SM_MIN(len - done, (size_t)RECORD_MAX), &n) == 1) {
            done += n;
            continue;
        }
        switch (SSL_get_error(c->ssl, 0)) {
        case SSL_ERROR_WANT_WRITE:
            io = SM_TLS_IO_WANT_WRITE;
            break;
        case SSL_ERROR_WANT_READ: /* a handshake message is half read; it goes on when more is there */
            io = SM_TLS_IO_WANT_READ;
            break;
        default:
            fail_ssl(c);
            io = SM_TLS_IO_ERROR;
        }
    }
    end(c);
    *ret_n = done;
    return done > 0 ? SM_TLS_IO_OK : io;
}

enum sm_tls_io sm_tls_conn_shutdown(struct sm_tls_conn *c)
{
    if (c->dead || c->write_broken)
        return SM_TLS_IO_ERROR;
    if (!c->closing && c->handshaken) {
        begin(c, 0);
        int rc = SSL_shutdown(c->ssl);
        if (rc < 0) {
            int why = SSL_get_error(c->ssl, rc);
            if (why == SSL_ERROR_WANT_WRITE) {
                end(c);
                (void)sm_tls_conn_flush(c);
                return c->write_broken ? SM_TLS_IO_ERROR : SM_TLS_IO_WANT_WRITE;
            }
            fail_ssl(c);
        }
        c->closing = true;
        end(c);
    }
    return sm_tls_conn_flush(c);
}

/* --- input --- */

/* SSL_read() or SSL_do_handshake() did not do what it should: what does that mean? */
static enum sm_tls_io explain(struct sm_tls_conn *c, int rc)
{
    switch (SSL_get_error(c->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        if (c->read_errno != 0) {
            fail_errno(c, c->read_errno);
            return SM_TLS_IO_ERROR;
        }
        return c->wire_eof ? SM_TLS_IO_CUT : SM_TLS_IO_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return SM_TLS_IO_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return SM_TLS_IO_EOF;
    case SSL_ERROR_WANT_X509_LOOKUP: /* on_client_certificate() */
        c->dead = true;
        return SM_TLS_IO_ERROR;
    default:
        fail_ssl(c);
        return SM_TLS_IO_ERROR;
    }
}

enum sm_tls_io sm_tls_conn_handshake(struct sm_tls_conn *c)
{
    if (c->dead)
        return SM_TLS_IO_ERROR;
    if (c->handshaken)
        return sm_tls_conn_flush(c);

    enum sm_tls_io io = SM_TLS_IO_OK;
    begin(c, HANDSHAKE_READ);
    int rc = SSL_do_handshake(c->ssl);
    if (c->overloaded) {
        c->dead = true;
        sm_tls_conn_fail(c, SM_TLS_FAILURE_RESOURCES, "the server's chain of certificates is too long");
        io = SM_TLS_IO_ERROR;
    } else if (rc == 1) {
        if (c->upstream && !sm_tls_upstream_accepted(c)) {
            c->dead = true;
            io = SM_TLS_IO_ERROR;
        } else {
            c->handshaken = true;
        }
    } else {
        io = explain(c, rc);
    }
    end(c);
    if (io == SM_TLS_IO_EOF || io == SM_TLS_IO_CUT) {
        c->dead = true;
        sm_tls_conn_fail(c, SM_TLS_FAILURE_CLOSED, "the peer closed the connection during the handshake");
        io = SM_TLS_IO_ERROR;
    }
    enum sm_tls_io sent = sm_tls_conn_flush(c);
    if (sent == SM_TLS_IO_ERROR)
        io = SM_TLS_IO_ERROR;
    else if (sent == SM_TLS_IO_WANT_WRITE && io == SM_TLS_IO_OK)
        io = SM_TLS_IO_WANT_WRITE;
    if (io == SM_TLS_IO_ERROR)
        c->dead = true;
    return io;
}

enum sm_tls_io sm_tls_conn_read(struct sm_tls_conn *c, void *buf, size_t cap, size_t *ret_n)
{
    uint8_t *p = buf;
    size_t done = 0;
    enum sm_tls_io io = SM_TLS_IO_OK;

    *ret_n = 0;
    c->end_due = false;
    if (c->dead || !c->handshaken)
        return SM_TLS_IO_ERROR;
    size_t unsent = sm_tls_conn_unsent(c);
    begin(c, cap);
    while (done < cap && c->records < SM_TLS_READ_RECORDS) {
        size_t n = 0;
        c->want = cap - done;
        int rc = SSL_read_ex(c->ssl, p + done, cap - done, &n);
        if (rc != 1) {
            io = explain(c, rc);
            break;
        }
        done += n;
    }
    if (flooded(c)) {
        c->dead = true;
        sm_tls_conn_fail(c, SM_TLS_FAILURE_PROTOCOL, "too many messages after the handshake");
        io = SM_TLS_IO_ERROR;
    }
    c->later_paid += done;
    c->later -= (unsigned)SM_MIN((size_t)c->later, c->later_paid / SM_TLS_LATER_BYTES);
    c->later_paid %= SM_TLS_LATER_BYTES;
    end(c);
    if (sm_tls_conn_unsent(c) > unsent)
        (void)sm_tls_conn_flush(c); /* OpenSSL has answered by itself: a key update, an alert */
    if (done > 0) {
        c->end_due = io != SM_TLS_IO_OK && io != SM_TLS_IO_WANT_READ && io != SM_TLS_IO_WANT_WRITE;
        io = SM_TLS_IO_OK;
    }
    *ret_n = done;
    return io;
}

bool sm_tls_conn_readable(const struct sm_tls_conn *c)
{
    return c->end_due || (c->handshaken && (SSL_pending(c->ssl) > 0 || c->in.len > 0));
}

/* --- facts --- */

const char *sm_tls_conn_version(const struct sm_tls_conn *c)
{
    return SSL_get_version(c->ssl);
}

const uint8_t *sm_tls_conn_alpn(const struct sm_tls_conn *c, size_t *ret_len)
{
    const unsigned char *chosen = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(c->ssl, &chosen, &len);
    *ret_len = len;
    return len > 0 ? chosen : NULL;
}

enum sm_tls_failure sm_tls_conn_failure(const struct sm_tls_conn *c)
{
    return c->failure;
}

const char *sm_tls_conn_alert(const struct sm_tls_conn *c)
{
    return c->alert >= 0 ? sm_tls_alert_name(c->alert) : NULL;
}

const char *sm_tls_conn_error(const struct sm_tls_conn *c)
{
    return c->error;
}
