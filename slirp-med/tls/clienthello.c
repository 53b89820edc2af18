/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads a ClientHello out of raw records: a record layer that strips headers into one handshake buffer, and a parser
 * that runs once, over the complete message.
 */
#include "tls/clienthello.h"

#include <stdlib.h>
#include <string.h>

#include "base/rw.h"

enum { RECORD_CCS = 20, RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23 };
enum { RECORD_HEADER = 5, HANDSHAKE_HEADER = 4, RECORD_MAX = 1 << 14, CLIENT_HELLO = 1 };

enum extension {
    EXT_SERVER_NAME = 0,
    EXT_ALPN = 16,
    EXT_SESSION_TICKET = 35,
    EXT_PRE_SHARED_KEY = 41,
    EXT_EARLY_DATA = 42,
    EXT_SUPPORTED_VERSIONS = 43,
    EXT_ECH = 0xfe0d,
};

/* Longest name without its final dot, as DNS counts it in text. */
#define SNI_MAX 253
/* An SSLv2-shaped hello is recognised by its first bytes: length, type, version, three lengths. */
#define SSLV2_HEADER 11

static const char *const status_names[] = {[SM_TLS_NEED_MORE] = "need_more",
                                           [SM_TLS_NOT_TLS] = "not_tls",
                                           [SM_TLS_HELLO] = "hello",
                                           [SM_TLS_REJECT] = "reject"};
SM_NAME_TABLE_COVERS(status_names, SM_TLS_STATUS_COUNT);

static const char *const reject_names[] = {
    [SM_TLS_REJECT_NONE] = "tls_none",
    [SM_TLS_REJECT_SSLV2] = "tls_sslv2",
    [SM_TLS_REJECT_NOT_HANDSHAKE] = "tls_not_handshake",
    [SM_TLS_REJECT_RECORD_LENGTH] = "tls_record_length",
    [SM_TLS_REJECT_INTERLEAVED] = "tls_record_interleaved",
    [SM_TLS_REJECT_NOT_HELLO] = "tls_not_client_hello",
    [SM_TLS_REJECT_TOO_LARGE] = "tls_hello_too_large",
    [SM_TLS_REJECT_MALFORMED] = "tls_hello_malformed",
    [SM_TLS_REJECT_TRAILING] = "tls_hello_trailing",
    [SM_TLS_REJECT_EXTENSION_TWICE] = "tls_extension_twice",
    [SM_TLS_REJECT_EXTENSION_ORDER] = "tls_extension_order",
    [SM_TLS_REJECT_TOO_MANY] = "tls_too_many_extensions",
    [SM_TLS_REJECT_SNI_MALFORMED] = "tls_sni_malformed",
    [SM_TLS_REJECT_SNI_TWICE] = "tls_sni_twice",
    [SM_TLS_REJECT_SNI_CHARACTERS] = "tls_sni_characters",
    [SM_TLS_REJECT_SNI_ADDRESS] = "tls_sni_address",
    [SM_TLS_REJECT_ALPN_MALFORMED] = "tls_alpn_malformed",
    [SM_TLS_REJECT_VERSIONS_MALFORMED] = "tls_versions_malformed",
    [SM_TLS_REJECT_ECH_INNER] = "tls_ech_inner",
};
SM_NAME_TABLE_COVERS(reject_names, SM_TLS_REJECT_COUNT);

const char *sm_tls_status_name(enum sm_tls_status status)
{
    return status_names[status];
}

const char *sm_tls_reject_name(enum sm_tls_reject reject)
{
    return reject_names[reject];
}

static void refuse(struct sm_tls_hello *h, enum sm_tls_reject reject)
{
    h->status = SM_TLS_REJECT;
    h->reject = reject;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* Is the last label a number, in any of the shapes that inet_aton knows? Then the whole is an address, or meant to be
 * taken for one. */
static bool ends_in_number(const uint8_t *p, size_t len)
{
    if (len > 0 && p[len - 1] == '.')
        len--;
    size_t begin = len;
    while (begin > 0 && p[begin - 1] != '.')
        begin--;
    bool hex = len - begin >= 2 && p[begin] == '0' && (p[begin + 1] | 0x20) == 'x';
    for (size_t i = hex ? begin + 2 : begin; i < len; i++)
        if (!is_digit(p[i]) && !(hex && (p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f'))
            return false;
    return len > begin;
}

/* RFC 6066 section 3. Two names, or a name of a type that nobody defined, would let two readers see two hosts. */
static void read_sni(struct sm_tls_hello *h, struct sm_rd *ext)
{
    struct sm_rd list = sm_rd_sub(ext, sm_rd_u16(ext));
    uint8_t type = sm_rd_u8(&list);
    size_t len = sm_rd_u16(&list);
    const uint8_t *name = sm_rd_take(&list, len);

    if (!name || len == 0 || type != 0 || !sm_rd_done(ext)) {
        refuse(h, SM_TLS_REJECT_SNI_MALFORMED);
        return;
    }
    if (sm_rd_left(&list) > 0) {
        refuse(h, SM_TLS_REJECT_SNI_TWICE);
        return;
    }
    if (memchr(name, ':', len)) {
        refuse(h, SM_TLS_REJECT_SNI_ADDRESS);
        return;
    }
    size_t bare = name[len - 1] == '.' ? len - 1 : len;
    bool good = bare > 0 && bare <= SNI_MAX;
    for (size_t i = 0; good && i < len; i++)
        good = is_alpha(name[i]) || is_digit(name[i]) || name[i] == '-' || name[i] == '_' ||
               (name[i] == '.' && i > 0 && name[i - 1] != '.');
    if (!good) {
        refuse(h, SM_TLS_REJECT_SNI_CHARACTERS);
        return;
    }
    if (ends_in_number(name, len)) {
        refuse(h, SM_TLS_REJECT_SNI_ADDRESS);
        return;
    }
    memcpy(h->sni, name, len);
    h->sni[len] = '\0';
    h->sni_len = len;
}

static void read_alpn(struct sm_tls_hello *h, struct sm_rd *ext)
{
    struct sm_rd list = sm_rd_sub(ext, sm_rd_u16(ext));

    if (list.bad || list.len == 0 || !sm_rd_done(ext)) {
        refuse(h, SM_TLS_REJECT_ALPN_MALFORMED);
        return;
    }
    h->alpn = list.p;
    h->alpn_len = list.len;
    while (sm_rd_left(&list) > 0) {
        size_t len = sm_rd_u8(&list);
        const uint8_t *protocol = sm_rd_take(&list, len);
        if (!protocol || len == 0) {
            refuse(h, SM_TLS_REJECT_ALPN_MALFORMED);
            return;
        }
        h->alpn_h2 |= len == 2 && memcmp(protocol, "h2", 2) == 0;
        h->alpn_http11 |= len == 8 && memcmp(protocol, "http/1.1", 8) == 0;
    }
}

/* RFC 8446 4.2.1. GREASE and drafts are unknown numbers and count for nothing. */
static void read_versions(struct sm_tls_hello *h, struct sm_rd *ext)
{
    struct sm_rd list = sm_rd_sub(ext, sm_rd_u8(ext));

    if (list.bad || list.len < 2 || list.len % 2 != 0 || !sm_rd_done(ext)) {
        refuse(h, SM_TLS_REJECT_VERSIONS_MALFORMED);
        return;
    }
    h->max_version = 0;
    while (sm_rd_left(&list) > 0) {
        uint16_t version = sm_rd_u16(&list);
        if (version >= 0x0300 && version <= 0x0304)
            h->max_version = SM_MAX(h->max_version, version);
    }
}

/* Inside a hello on the wire only the outer form (0) may stand; what is in it is not ours to read. */
static void read_ech(struct sm_tls_hello *h, struct sm_rd *ext)
{
    uint8_t type = sm_rd_u8(ext);

    if (ext->bad || type != 0)
        refuse(h, SM_TLS_REJECT_ECH_INNER);
    else
        h->ech = true;
}

static void read_extensions(struct sm_tls_hello *h, struct sm_rd *exts)
{
    uint16_t seen[SM_TLS_HELLO_EXTENSIONS_MAX];
    size_t n = 0;

    while (h->status == SM_TLS_NEED_MORE && sm_rd_left(exts) > 0) {
        uint16_t type = sm_rd_u16(exts);
        struct sm_rd ext = sm_rd_sub(exts, sm_rd_u16(exts));
        if (exts->bad) {
            refuse(h, SM_TLS_REJECT_MALFORMED);
            return;
        }
        if (h->psk) {
            refuse(h, SM_TLS_REJECT_EXTENSION_ORDER);
            return;
        }
        for (size_t i = 0; i < n; i++) {
            if (seen[i] == type) {
                refuse(h, SM_TLS_REJECT_EXTENSION_TWICE);
                return;
            }
        }
        if (n == SM_TLS_HELLO_EXTENSIONS_MAX) {
            refuse(h, SM_TLS_REJECT_TOO_MANY);
            return;
        }
        seen[n++] = type;
        if (type == EXT_SERVER_NAME)
            read_sni(h, &ext);
        else if (type == EXT_ALPN)
            read_alpn(h, &ext);
        else if (type == EXT_SUPPORTED_VERSIONS)
            read_versions(h, &ext);
        else if (type == EXT_ECH)
            read_ech(h, &ext);
        else if (type == EXT_SESSION_TICKET)
            h->session_ticket = ext.len > 0;
        else if (type == EXT_PRE_SHARED_KEY)
            h->psk = true;
        else if (type == EXT_EARLY_DATA)
            h->early_data = true;
    }
}

/* RFC 8446 4.1.2: the body of the handshake message. */
static void read_hello(struct sm_tls_hello *h, const uint8_t *body, size_t len)
{
    struct sm_rd r = sm_rd_init(body, len);

    h->legacy_version = sm_rd_u16(&r);
    sm_rd_skip(&r, 32);
    struct sm_rd session = sm_rd_sub(&r, sm_rd_u8(&r));
    struct sm_rd ciphers = sm_rd_sub(&r, sm_rd_u16(&r));
    struct sm_rd compression = sm_rd_sub(&r, sm_rd_u8(&r));
    if (r.bad || h->legacy_version >> 8 != 3 || session.len > 32 || ciphers.len < 2 || ciphers.len % 2 != 0 ||
        compression.len == 0 || !memchr(compression.p, 0, compression.len)) {
        refuse(h, SM_TLS_REJECT_MALFORMED);
        return;
    }
    h->max_version = SM_MIN(h->legacy_version, (uint16_t)0x0303);
    if (sm_rd_left(&r) == 0)
        return; /* SSL 3 and early TLS 1.0: no extensions at all */
    struct sm_rd exts = sm_rd_sub(&r, sm_rd_u16(&r));
    if (!sm_rd_done(&r)) {
        refuse(h, SM_TLS_REJECT_MALFORMED);
        return;
    }
    read_extensions(h, &exts);
}

/* Appends handshake bytes; the announced length is checked as soon as it is there, so memory never exceeds
 * SM_TLS_HELLO_MAX. */
static bool take_bytes(struct sm_tls_hello *h, const uint8_t *p, size_t n)
{
    if (h->hs_len + n > h->hs_cap) {
        size_t cap = SM_MAX(h->hs_cap * 2, (size_t)2048);
        while (cap < h->hs_len + n)
            cap *= 2;
        uint8_t *grown = realloc(h->hs, cap);
        if (!grown)
            return false;
        h->hs = grown;
        h->hs_cap = cap;
    }
    memcpy(h->hs + h->hs_len, p, n);
    h->hs_len += n;
    return true;
}

/* The whole length of the handshake message, header included; 0 while its header is not complete. */
static size_t message_len(const struct sm_tls_hello *h)
{
    struct sm_rd r = sm_rd_init(h->hs, h->hs_len);

    sm_rd_skip(&r, 1);
    uint32_t len = sm_rd_u24(&r);
    return r.bad ? 0 : HANDSHAKE_HEADER + (size_t)len;
}

/* RFC 5246 E.2: a two-byte length with the high bit set, then a hello whose three lengths add up to it. */
static enum sm_tls_status judge_sslv2(const uint8_t *p, size_t len)
{
    struct sm_rd r = sm_rd_init(p, len);
    uint32_t total = sm_rd_u16(&r) & 0x7fff;

    if (len >= 3 && p[2] != CLIENT_HELLO)
        return SM_TLS_NOT_TLS;
    if ((len >= 4 && p[3] != 3 && p[3] != 0) || (len >= 5 && (p[3] == 3 ? p[4] > 4 : p[4] != 2)))
        return SM_TLS_NOT_TLS;
    if (len < SSLV2_HEADER)
        return SM_TLS_NEED_MORE;
    sm_rd_skip(&r, 3);
    uint32_t ciphers = sm_rd_u16(&r);
    uint32_t session = sm_rd_u16(&r);
    uint32_t challenge = sm_rd_u16(&r);
    return ciphers % 3 == 0 && ciphers + session + challenge + 9 == total ? SM_TLS_REJECT : SM_TLS_NOT_TLS;
}

/* The first record's header, as far as it is there. */
static void judge_start(struct sm_tls_hello *h, const uint8_t *p, size_t len)
{
    if (len == 0)
        return;
    h->maybe = SM_TLS_MAYBE_BYTE;
    if (p[0] & 0x80) {
        enum sm_tls_status v2 = judge_sslv2(p, len);
        if (v2 == SM_TLS_REJECT)
            refuse(h, SM_TLS_REJECT_SSLV2);
        else
            h->status = v2;
        return;
    }
    if (p[0] < RECORD_CCS || p[0] > RECORD_DATA || (len >= 2 && p[1] != 3) || (len >= 3 && p[2] > 4)) {
        h->status = SM_TLS_NOT_TLS;
        return;
    }
    if (len < 3)
        return;
    h->maybe = SM_TLS_MAYBE_RECORD;
    if (p[0] != RECORD_HANDSHAKE)
        refuse(h, SM_TLS_REJECT_NOT_HANDSHAKE);
}

/* One record header at p, complete. */
static void open_record(struct sm_tls_hello *h, const uint8_t *p)
{
    struct sm_rd r = sm_rd_init(p, RECORD_HEADER);
    uint8_t type = sm_rd_u8(&r);
    uint16_t version = sm_rd_u16(&r);
    uint16_t len = sm_rd_u16(&r);

    if (type != RECORD_HANDSHAKE || version >> 8 != 3)
        refuse(h, SM_TLS_REJECT_INTERLEAVED);
    else if (len == 0 || len > RECORD_MAX)
        refuse(h, SM_TLS_REJECT_RECORD_LENGTH);
    else if (h->records == SM_TLS_HELLO_RECORDS_MAX)
        refuse(h, SM_TLS_REJECT_TOO_LARGE);
    h->records++;
    h->record_left = len;
}

void sm_tls_hello_init(struct sm_tls_hello *h)
{
    *h = (struct sm_tls_hello){.status = SM_TLS_NEED_MORE};
}

void sm_tls_hello_clear(struct sm_tls_hello *h)
{
    free(h->hs);
    sm_tls_hello_init(h);
}

enum sm_tls_status sm_tls_hello_feed(struct sm_tls_hello *h, const uint8_t *data, size_t len)
{
    if (h->status == SM_TLS_NEED_MORE && h->scanned == 0)
        judge_start(h, data, len);

    /* An SSLv2 hello that is still too short to judge has no record header to open. */
    while (h->status == SM_TLS_NEED_MORE && h->maybe == SM_TLS_MAYBE_RECORD) {
        if (h->record_left == 0) {
            if (len < h->scanned + RECORD_HEADER)
                break;
            open_record(h, data + h->scanned);
            h->scanned += RECORD_HEADER;
            continue;
        }
        size_t n = SM_MIN(len - h->scanned, h->record_left);
        if (n == 0)
            break;
        /* Never past the message: its length decides what may still come. */
        size_t total = message_len(h);
        n = SM_MIN(n, (total ? total : HANDSHAKE_HEADER) - h->hs_len);
        if (!take_bytes(h, data + h->scanned, n)) {
            refuse(h, SM_TLS_REJECT_TOO_LARGE);
            break;
        }
        h->scanned += n;
        h->record_left -= n;
        total = message_len(h);
        if (h->hs[0] != CLIENT_HELLO) {
            refuse(h, SM_TLS_REJECT_NOT_HELLO);
        } else if (total > SM_TLS_HELLO_MAX) {
            refuse(h, SM_TLS_REJECT_TOO_LARGE);
        } else if (total == h->hs_len) {
            if (h->record_left > 0) {
                refuse(h, SM_TLS_REJECT_TRAILING);
                break;
            }
            read_hello(h, h->hs + HANDSHAKE_HEADER, total - HANDSHAKE_HEADER);
            if (h->status == SM_TLS_NEED_MORE) {
                h->consumed = h->scanned;
                h->status = SM_TLS_HELLO;
            }
        }
    }
    return h->status;
}
