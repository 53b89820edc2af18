/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request head that a client of an explicit HTTP proxy sends: CONNECT HOST:PORT, or a method with an absolute-form
 * target (http://HOST/...). RFC 9110 7.6, 9.3.6, 11.7; RFC 9112 3.2.2, 3.2.3.
 *
 * Sans-I/O, as head.h: the caller keeps every byte of the connection so far and feeds the whole of it each time; the
 * work is linear however the bytes are cut; results are spans into the buffer. A head that is not CONNECT's is read by
 * head.h first, so it is held to all of its rules (a Host that differs from the target's authority is refused);
 * CONNECT's to the same ones, line by line.
 *
 * Reject, never repair. Refused beside what head.h refuses:
 *   - any target but an absolute http:// one, and CONNECT's HOST:PORT (whose port may not be left out). https:// would
 *     ask the proxy to speak TLS in the client's place
 *   - CONNECT with a Content-Length, a Transfer-Encoding or an Upgrade: what follows it is the tunnel, and not its body
 *   - Proxy-Authorization more than once
 *   - a Connection that names anything but close, keep-alive, upgrade, te and http2-settings: a proxy would have to take
 *     away what it names
 *
 * One absolute-form request a connection: the next may be for another host. What goes on (sm_proxy_head_rewrite()) says
 * `Connection: close`, so the origin's answer says so too, and ends; a request that wants another protocol (websocket)
 * says `Connection: Upgrade` in its place. An origin that keeps its connection all the same gets nothing by it: what
 * the client says behind its request is for the proxy, with the proxy's credentials, and goes nowhere
 * (sm_proxy_rest_says()).
 */
#ifndef SM_HTTP_PROXY_H
#define SM_HTTP_PROXY_H

#include "base/buf.h"
#include "http/body.h"
#include "http/head.h"

/** Largest head of a CONNECT: a name, a port, credentials and a User-Agent. */
#define SM_PROXY_CONNECT_MAX 16384
/** What a rewritten head may be longer than the one it was made of: Connection, Host (HTTP/1.0) and a slash. */
#define SM_PROXY_REWRITE_MORE 512

enum sm_proxy_status {
    SM_PROXY_NEED_MORE,
    SM_PROXY_CONNECT, /* a complete CONNECT; `consumed` is its length, the rest is the tunnel's */
    SM_PROXY_FORWARD, /* a complete absolute-form head */
    SM_PROXY_REJECT,
    SM_PROXY_STATUS_COUNT
};

enum sm_proxy_reject {
    SM_PROXY_REJECT_NONE,
    SM_PROXY_REJECT_HTTP,       /* breaks HTTP; `http` says how */
    SM_PROXY_REJECT_NOT_HTTP,   /* no HTTP/1 request */
    SM_PROXY_REJECT_ORIGIN,     /* a request to the proxy itself */
    SM_PROXY_REJECT_HTTPS,      /* an absolute https:// target */
    SM_PROXY_REJECT_AUTHORITY,  /* CONNECT to what is not HOST:PORT */
    SM_PROXY_REJECT_BODY,       /* CONNECT that has a body or an upgrade */
    SM_PROXY_REJECT_AUTH,       /* Proxy-Authorization twice, or one that is none */
    SM_PROXY_REJECT_CONNECTION, /* Connection names what a proxy would have to take away */
    SM_PROXY_REJECT_COUNT
};

struct sm_proxy_head {
    /* Result. */
    enum sm_proxy_status status;
    enum sm_proxy_reject reject;
    enum sm_http_reject http;
    size_t consumed;
    struct sm_http_span host; /* as written, without port and brackets; whether it is a name is for policy/names.h */
    uint16_t port;
    bool has_auth;            /* Proxy-Authorization: Basic, and */
    struct sm_http_span auth; /* ... its token68 */
    bool upgrade;             /* FORWARD: wants another protocol (websocket) */

    /* Private. */
    bool connect, other;
    bool seen_auth;
    bool seen_host;
    uint16_t fields;
    uint32_t scanned, line;
    struct sm_http_head head; /* FORWARD */
};

void sm_proxy_head_init(struct sm_proxy_head *h);
/** sm_proxy_head_feed() - read on; as sm_http_head_feed(). Once it is not NEED_MORE it does not change any more. */
enum sm_proxy_status sm_proxy_head_feed(struct sm_proxy_head *h, const uint8_t *data, size_t len);

/**
 * sm_proxy_head_rewrite() - FORWARD: the head as the origin gets it: origin-form target, Host as the client wrote it
 * (or, HTTP/1.0 without one, the target's authority), without Proxy-* and what else is for one hop. Returns its length,
 * or 0 if it does not fit; h->consumed + SM_PROXY_REWRITE_MORE always does.
 */
size_t sm_proxy_head_rewrite(const struct sm_proxy_head *h, const uint8_t *data, uint8_t *out, size_t cap);

/** What a client may still say behind a FORWARD head: the rest of its request, and a protocol that was agreed upon. */
struct sm_proxy_rest {
    bool over;     /* the request is complete */
    bool too_much; /* and the client has said more */
    bool open;     /* another protocol, or a body that is none: all goes on */

    /* Private. */
    bool upgrade;
    uint8_t n_status;
    uint8_t status[sizeof("HTTP/1.1 101") - 1]; /* the answer's beginning */
    struct sm_http_body body;
    struct sm_buf line; /* of the body's framing, not complete; its bytes went on already */
};

/** sm_proxy_rest_init() - behind this head, which is FORWARD. */
void sm_proxy_rest_init(struct sm_proxy_rest *r, const struct sm_proxy_head *h);
void sm_proxy_rest_clear(struct sm_proxy_rest *r);
/**
 * sm_proxy_rest_says() - the client's next bytes: how many of them may go upstream. What is left is of another request.
 * A body that breaks HTTP goes on as it is: where it ends nobody can say, and the core refuses what it reads.
 */
size_t sm_proxy_rest_says(struct sm_proxy_rest *r, const uint8_t *data, size_t len);
/**
 * sm_proxy_rest_hears() - the next bytes that the client gets: a 101 for a request that asked for one, and that nothing
 * was said behind, opens the way. An interim answer before it closes it: nobody sends one.
 */
void sm_proxy_rest_hears(struct sm_proxy_rest *r, const uint8_t *data, size_t len);

/** sm_proxy_reject_name() - a stable word for logs and pages; of HTTP the word of head.h. */
const char *sm_proxy_reject_name(const struct sm_proxy_head *h);
const char *sm_proxy_status_name(enum sm_proxy_status status);

#endif
