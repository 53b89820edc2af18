/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first HTTP request head of a connection: is it HTTP at all, and if so, for whom?
 *
 * Sans-I/O. The caller keeps every byte that the guest has sent so far in one buffer that begins with the connection's
 * first byte, and calls sm_http_head_feed() with the whole of it each time more has come; the parser remembers how far
 * it has read, so the work is linear however the bytes are cut. No fd, no clock, no allocation. Results are spans
 * (offset, length) into that buffer, so the buffer may move.
 *
 * Sources: RFC 9110 (5.6.2 token, 7.2 Host), RFC 9112 (2.2 parsing, 3 request line, 3.2 target forms, 5 fields, 6
 * framing), RFC 9113 3.4 (preface).
 *
 * Reject, never repair: what two parsers could read in two ways is SM_HTTP_REJECT, because the parser behind us is
 * somebody else's. The names of the reasons say what is rejected; in short: anything but CRLF as line end, empty lines
 * before the request, a folded line, white space around a field name, control characters, Host missing (1.1), repeated,
 * empty, or not a plain host[:port], a target with an authority other than Host's, CONNECT, framing given twice or in
 * two ways, upgrades that change the protocol under us (TLS, HTTP by any name but h2c alone), over-size heads. A head
 * that offers h2c and nothing else is read (`h2c`); who passes it on takes the offer out (edit.h).
 *
 * NOT_HTTP is said as early as the bytes permit: a first byte that no method may begin with, a byte in the method that
 * is no token character, a method over SM_HTTP_METHOD_MAX, a line whose method is followed by CRLF or LF, a complete
 * first line without " HTTP/<digit>". A first line that a lenient server would take for a request ("GET  / HTTP/1.1", a
 * tab, VT, FF, CR or no-break space for a space, white space before a method that servers act on, a bare LF, an 8-bit
 * byte in the target, no less than the version at its end; GET with a path and no version, HTTP/0.9) is REJECT and not
 * NOT_HTTP: otherwise a sloppy line would buy what a strict one does not.
 *
 * What partial input means is `maybe` (see enum sm_http_maybe). With "GE" the answer is NEED_MORE and
 * SM_HTTP_MAYBE_TOKEN.
 */
#ifndef SM_HTTP_HEAD_H
#define SM_HTTP_HEAD_H

#include "base/defs.h"

/** The head with its final empty line. What servers take is 8 to 64 KiB; the front's copies of a flow
 * (SM_FLOW_HELD_MAX) hold as much. */
#define SM_HTTP_HEAD_MAX 65536
/** Longest registered method is 17 (UPDATEREDIRECTREF); more than this is no HTTP client. */
#define SM_HTTP_METHOD_MAX 32
/** Header lines in one head: servers stop at about 100; more is an attack on somebody's table. */
#define SM_HTTP_FIELDS_MAX 256

enum sm_http_status {
    SM_HTTP_NEED_MORE, /* undecided; look at `maybe` */
    SM_HTTP_NOT_HTTP,  /* no HTTP server would read it as a request */
    SM_HTTP_HTTP1,     /* a complete head; `consumed` is its length */
    SM_HTTP_HTTP2,     /* the whole client preface (24 bytes), prior knowledge; the authority is not known yet */
    SM_HTTP_REJECT,    /* HTTP that breaks a rule: refuse the flow with `reject` */
    SM_HTTP_STATUS_COUNT
};

/** How strongly an undecided beginning looks like HTTP: what a caller who must stop waiting (time-out, server spoke)
 * may conclude. */
enum sm_http_maybe {
    SM_HTTP_MAYBE_EMPTY,  /* no byte yet */
    SM_HTTP_MAYBE_TOKEN,  /* only token characters so far ("GE"): many protocols begin so; as good as unclassified */
    SM_HTTP_MAYBE_METHOD, /* a token and a space, first line not complete: probably HTTP or a line protocol ("EHLO x")
                           */
    SM_HTTP_MAYBE_LINE,   /* the request line is complete and says HTTP/1.x (or PRI * HTTP/2.0): it is HTTP; never treat
                             it as opaque */
    SM_HTTP_MAYBE_COUNT
};

enum sm_http_reject {
    SM_HTTP_REJECT_NONE,
    SM_HTTP_REJECT_LEADING_CRLF,       /* an empty line before the request line */
    SM_HTTP_REJECT_REQUEST_LINE,       /* says HTTP/ but is not `token SP target SP HTTP/1.x CRLF` */
    SM_HTTP_REJECT_VERSION,            /* HTTP/x.y other than 1.0 and 1.1 */
    SM_HTTP_REJECT_PREFACE,            /* begins as the HTTP/2 preface and departs from it */
    SM_HTTP_REJECT_BARE_LF,            /* a line ended by LF alone */
    SM_HTTP_REJECT_BARE_CR,            /* CR not followed by LF */
    SM_HTTP_REJECT_CONTROL,            /* NUL or another control character */
    SM_HTTP_REJECT_FIELD_NAME,         /* empty, not a token, or no colon */
    SM_HTTP_REJECT_SPACE_BEFORE_COLON, /* "Host : x" */
    SM_HTTP_REJECT_FOLDED_LINE,        /* a header line that begins with SP or HT (obs-fold) */
    SM_HTTP_REJECT_TOO_LARGE,          /* head over SM_HTTP_HEAD_MAX */
    SM_HTTP_REJECT_TOO_MANY_FIELDS,    /* over SM_HTTP_FIELDS_MAX */
    SM_HTTP_REJECT_CONNECT,            /* CONNECT (authority-form) */
    SM_HTTP_REJECT_TARGET, /* none of origin-form, absolute-form with http(s), and OPTIONS' asterisk; or a fragment, a
                              userinfo */
    SM_HTTP_REJECT_HOST_MISSING,      /* HTTP/1.1 without Host */
    SM_HTTP_REJECT_HOST_REPEATED,     /* two Host lines */
    SM_HTTP_REJECT_HOST_INVALID,      /* not host[:port]: empty, other characters, a number that is not a dotted quad */
    SM_HTTP_REJECT_HOST_MISMATCH,     /* absolute-form names another authority than Host */
    SM_HTTP_REJECT_LENGTH_REPEATED,   /* two Content-Length lines, or a list */
    SM_HTTP_REJECT_LENGTH_INVALID,    /* not 1 to 18 digits */
    SM_HTTP_REJECT_LENGTH_AND_CODING, /* Content-Length and Transfer-Encoding */
    SM_HTTP_REJECT_CODING,            /* Transfer-Encoding other than exactly one `chunked`, or in HTTP/1.0 */
    SM_HTTP_REJECT_CONNECTION,        /* Connection names a field that frames or routes the message */
    SM_HTTP_REJECT_UPGRADE,           /* Upgrade to TLS, to HTTP, to h2c among others; HTTP2-Settings without h2c */
    /* Not of request heads: response.h, body.h. */
    SM_HTTP_REJECT_STATUS_LINE, /* not `HTTP/1.x SP 3DIGIT [SP reason] CRLF` */
    SM_HTTP_REJECT_CHUNK,       /* chunk size, extension or line end */
    SM_HTTP_REJECT_TRAILER,     /* a field that must not stand behind a body */
    SM_HTTP_REJECT_COUNT
};

enum sm_http_host_kind {
    SM_HTTP_HOST_NONE, /* HTTP/1.0 without Host, or HTTP/2 */
    SM_HTTP_HOST_NAME, /* letters, digits, '-', '_', '.'; not yet canonical: policy/names decides whether it is a name
                        */
    SM_HTTP_HOST_V4,   /* a strict dotted quad */
    SM_HTTP_HOST_V6,   /* the text between the brackets; hex digits, ':' and '.' only, not yet parsed */
    SM_HTTP_HOST_KIND_COUNT
};

enum sm_http_target_form {
    SM_HTTP_TARGET_ORIGIN,
    SM_HTTP_TARGET_ABSOLUTE,
    SM_HTTP_TARGET_ASTERISK,
    SM_HTTP_TARGET_COUNT
};

/** A piece of the caller's buffer. */
struct sm_http_span {
    uint32_t off;
    uint32_t len;
};

/** What says where a message ends, and whether its connection does (field.h reads it). */
struct sm_http_framing {
    bool has_length; /* Content-Length */
    uint64_t content_length;
    bool chunked;
    bool close; /* Connection: close */
    bool keep_alive;
};

struct sm_http_head {
    /* Result. */
    enum sm_http_status status;
    enum sm_http_maybe maybe;
    enum sm_http_reject reject;
    size_t consumed; /* HTTP1: bytes of the head, HTTP2: 24; else 0 */
    uint8_t minor;   /* HTTP1: 0 or 1 */
    enum sm_http_target_form form;
    struct sm_http_span method;
    struct sm_http_span target; /* as sent, query included */
    struct sm_http_span path;   /* the target's path without authority and query; empty for "http://host" and for '*' */
    enum sm_http_host_kind host_kind;
    struct sm_http_span host;      /* without port and without brackets */
    uint16_t port;                 /* 0: none was given */
    struct sm_http_span authority; /* the Host line's value; empty without */
    struct sm_http_framing framing;
    bool upgrade; /* an Upgrade line that is allowed (websocket): what follows a 101 is not HTTP */
    bool h2c;     /* offers h2c and nothing else: must not go on as it is */

    /* Private. */
    uint8_t state;
    bool not_preface; /* the bytes are not the beginning of the HTTP/2 preface */
    bool known;       /* the method is one that servers act on */
    uint8_t lead;     /* white space before it */
    bool seen_host;
    bool h2_settings; /* has an HTTP2-Settings line */
    bool abs_https;   /* the authority in an absolute-form target */
    uint16_t fields;
    uint16_t abs_port;
    enum sm_http_host_kind abs_kind;
    struct sm_http_span abs_host;
    uint32_t scanned; /* bytes already judged */
    uint32_t line;    /* where the current line begins */
};

void sm_http_head_init(struct sm_http_head *h);

/**
 * sm_http_head_feed() - read on.
 * @data, @len: all bytes of the connection so far, from the first one; each call must begin with the bytes of the call
 * before. Return: h->status. Once it is not NEED_MORE it does not change any more, whatever is fed.
 */
enum sm_http_status sm_http_head_feed(struct sm_http_head *h, const uint8_t *data, size_t len);
/**
 * sm_http_head_end() - the guest has ended; the same bytes as were fed last. A request line without its line end is one
 * to a server that reads up to the end: then REJECT, otherwise the status stays.
 */
enum sm_http_status sm_http_head_end(struct sm_http_head *h, const uint8_t *data, size_t len);

const char *sm_http_status_name(enum sm_http_status status);
/** sm_http_reject_name() - a stable word for logs and audit: "http_host_repeated". */
const char *sm_http_reject_name(enum sm_http_reject reject);

#endif
