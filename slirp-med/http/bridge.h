/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bridge relays HTTP between a guest and its origin, and lets a judge see every request before a byte of it goes on. This is the contract
 * that the HTTP/1 and the HTTP/2 bridge share, and what their one user (core/mediate.c) needs to know of them.
 *
 * Sans-I/O: bytes from each side are fed, bytes for each side are taken; no descriptor, no clock, no log. The judge is asked by a callback and
 * answers when it likes with sm_bridge_answer(): until then nothing of that request goes to the origin (HTTP/1: no later request is read
 * either; HTTP/2: the other streams go on).
 *
 * Flow control goes end to end: sm_bridge_room() is how many bytes of a side will surely be taken now; it is 0 while the other side does not
 * take what it was sent, so a slow reader slows the writer. Memory is bounded by SM_BRIDGE_OUT_MAX a side and what each bridge's file says.
 *
 * Strictness: a request that breaks a rule is answered 400 with a page (HTTP/1: then the connection ends; HTTP/2: RST_STREAM or GOAWAY as the
 * RFC has it) and told by ops->broken; nothing of it reaches the origin. A response that breaks a rule becomes 502 where the head has not been
 * passed on yet, and a cut connection otherwise. What no rule rewrites leaves with the same bytes.
 *
 * Edits: with its answer the judge may have a request that passes changed in two headers, and a secret taken out of its
 * response (struct sm_bridge_edit). This is all that is ever rewritten, but for Alt-Svc and an offer of h2c. A bridge
 * keeps its copy of a new value until the head has left, and wipes that, its queue's blocks that held it, and in HTTP/2
 * what nghttp2 allocated on a connection from the first such value on. (nghttp2's frame buffer holds the last head,
 * Huffman-coded, until it is used again or the connection ends.)
 *
 * Replay: a request whose edit says so is kept (its head as the guest sent it, its body), and when its final response is
 * 401 that response is held back and ops->rejected asked. Told to wait for another answer, the bridge sends the request
 * again, with that answer's edit, in place of the response: on the same connection (HTTP/1), on a new stream (HTTP/2).
 * Once a request; what comes then is the guest's, a second 401 too. 1xx of the first response have passed by then, and
 * the second one's follow: a client takes any number (RFC 9110 15.2). An Expect line is sent again as it is; the body
 * does not wait for the 100 (RFC 9110 10.1.1 asks for no wait), and a second 100 passes.
 * The 401 goes to the guest as if nothing were when it cannot be done: a body over SM_BRIDGE_REPLAY_BODY_MAX, or not
 * all of it sent on when the 401's head came; trailers behind it; a response over SM_BRIDGE_REPLAY_RESPONSE_MAX or
 * broken off; an HTTP/1 connection that ends with this exchange, or a guest that has ended its side of it; an origin
 * that takes no more requests or goes away before the second answer. An upgrade request is never sent again.
 * HTTP/1: requests behind one that may be sent again wait until its final response's head is there, so that the
 * responses keep their order.
 *
 * Callbacks must not free the bridge; they may call sm_bridge_answer() for the request they are told of.
 */
#ifndef SM_HTTP_BRIDGE_H
#define SM_HTTP_BRIDGE_H

#include "base/defs.h"
#include "http/head.h"

/** Bytes waiting for one side before the other is no longer read: 8 full TLS records. A bridge may exceed it by one head or one frame. */
#define SM_BRIDGE_OUT_MAX (128u << 10)

enum sm_bridge_side { SM_BRIDGE_GUEST, SM_BRIDGE_ORIGIN, SM_BRIDGE_SIDES };

/** Text of a message: not NUL-terminated, valid during the callback only. ptr NULL: absent. */
struct sm_text {
    const char *ptr;
    size_t len;
};

/** What the judge sees of a request. */
struct sm_bridge_request {
    uint64_t req;         /* 1, 2, ... within the connection */
    const char *protocol; /* "HTTP/1.0", "HTTP/1.1", "HTTP/2" */
    struct sm_text method;
    struct sm_text scheme; /* HTTP/2 and absolute-form: as sent; absent otherwise */
    struct sm_text
        authority; /* HTTP/1: the Host line's value (absent: HTTP/1.0 without); HTTP/2: :authority, else host */
    enum sm_http_host_kind host_kind;
    struct sm_text host;  /* of the authority, without port and brackets */
    uint16_t port;        /* of the authority; 0: none was given */
    struct sm_text path;  /* without the query; "*" for OPTIONS * */
    struct sm_text query; /* without '?'; absent when there is none */
    bool
        upgrade; /* asks for websocket: HTTP/1 Upgrade, HTTP/2 extended CONNECT (which is refused by the bridge itself) */

    /* Private: sm_bridge_request_field() */
    const void *head;
    size_t head_len;
    bool (*next_field)(const struct sm_bridge_request *r, size_t *at, struct sm_text *ret_name,
                       struct sm_text *ret_value);
};

/** The longest new value: as much as servers take for a whole head, and twice what is scrubbed. */
#define SM_BRIDGE_VALUE_MAX 16384u
/**
 * The longest body of a request that is kept to be sent again, framing included: what calls an API fits, an upload does
 * not. A hundred streams that all keep one are 6 MiB, as much as their windows.
 */
#define SM_BRIDGE_REPLAY_BODY_MAX (64u << 10)
/**
 * The longest 401, head and body, that is held back: an error text. Less than an HTTP/2 window, so that what is held
 * cannot keep its own end from coming.
 */
#define SM_BRIDGE_REPLAY_RESPONSE_MAX (16u << 10)
/** The longest name of a header that is replaced. */
#define SM_BRIDGE_NAME_MAX 256u

/**
 * What is changed of a request that passes, and of its response. Zeroed: nothing.
 *
 * An edit that cannot be made (a name that is no token or one that frames, routes or belongs to the hop; a value with
 * CR, LF, NUL or another control character, with white space at an end, or too long) refuses the request: 502 with
 * ops->page's page for "edit_invalid", told as SM_BRIDGE_REFUSED.
 */
struct sm_bridge_edit {
    /**
     * Replace a header: every line of this name (in any case) goes, and one with the new value stands where the first
     * was, or at the end of the head. Its name is taken out of Connection. In HTTP/2 it is marked never to be indexed.
     * A trailer of this name is refused as a broken rule ("http_trailer", "h2_trailer"): what comes behind a body must
     * not add to what was judged and replaced.
     */
    const char *name; /* NULL: none */
    const char *value;
    size_t value_len;
    /** Accept-Encoding likewise becomes "identity", and Range, Request-Range and A-IM go: the response comes whole and can be read. */
    bool identity;
    /**
     * Overwrite what matches in the response with asterisks (scrub.h): values of all heads (1xx too) and trailers,
     * reason phrases, the body. Framing does not change: not what Content-Length, Transfer-Encoding, Connection and
     * chunk lines say. NULL: no. The bridge takes a reference.
     */
    struct sm_scrub *scrub;
    /** Keep it, and ask ops->rejected when the response is 401. Not of a second answer. */
    bool replay;
};

/** The judge's answer. Zeroed it is a refusal with 403 and no words. */
struct sm_bridge_answer {
    bool pass;
    uint16_t status;  /* of the refusal: 403, 421, 502 ... */
    const char *body; /* the page (http/page.h), copied; NULL: none. Sent as application/json */
    size_t body_len;
    /**
     * A refusal that says nothing against the connection: HTTP/1 goes on behind it too, where the request has no body
     * (nothing has to be read for nothing) and neither side has ended the connection with it.
     */
    bool keep;
    const struct sm_bridge_edit *edit; /* NULL: none. Of a request that passes; copied */
};

/**
 * sm_bridge_request_field() - the next header of a request, in the order of the head, Host included and HTTP/2's
 * pseudo-headers not. During the callback only. @at: where to go on, 0 at first. False: no more.
 */
bool sm_bridge_request_field(const struct sm_bridge_request *r, size_t *at, struct sm_text *ret_name,
                             struct sm_text *ret_value);
/**
 * sm_bridge_request_value() - the value of the index-th header of this name, in any case; ptr NULL: there are not so
 * many.
 */
struct sm_text sm_bridge_request_value(const struct sm_bridge_request *r, const char *name, size_t index);

enum sm_bridge_outcome {
    SM_BRIDGE_DONE,     /* the response came to its end */
    SM_BRIDGE_REFUSED,  /* the judge's answer was sent */
    SM_BRIDGE_BROKEN,   /* a rule was broken (by whom: ops->broken said so) */
    SM_BRIDGE_RESET,    /* a side reset the stream, or its connection ended in between */
    SM_BRIDGE_UPGRADED, /* 101: what follows is not HTTP; told when the connection ends */
    SM_BRIDGE_OUTCOMES
};

/** Told once for every request that the judge was asked about, when it is over. */
struct sm_bridge_response {
    uint64_t req;
    uint16_t status;     /* as the guest got it; 0: it got none */
    uint64_t bytes_up;   /* body bytes, framing not counted; of a replay: what was sent again is not counted again, */
    uint64_t bytes_down; /* ... nor is the response that it replaced */
    enum sm_bridge_outcome outcome;
    unsigned scrubbed; /* matches that were overwritten (struct sm_bridge_edit) */
    /** A scrub was asked for and the body passed as it is: Content-Encoding other than identity, or upgraded. */
    bool unscrubbed;
};

struct sm_bridge;
struct sm_scrub;

struct sm_bridge_ops {
    /** A complete request head. Answer now or later with sm_bridge_answer(). */
    void (*request)(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r);
    void (*response)(void *ctx, const struct sm_bridge_response *r);
    /** A side broke a rule. @reason: a stable word ("http_bare_lf", "h2_ping_flood"). @req: 0 when it is the connection's. */
    void (*broken)(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason);
    /**
     * The page for what the bridge itself refuses (400, 502): write at most cap bytes of JSON, return the length. NULL: no body.
     */
    size_t (*page)(void *ctx, uint16_t status, const char *reason, char *out, size_t cap);
    /**
     * 401 came for a request whose edit says replay; @r: the request, as the judge saw it. True: sm_bridge_answer() is
     * called once more for it, now or later: pass and it is sent again, else the page. False: the 401 goes on. NULL:
     * as if always false.
     */
    bool (*rejected)(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r);
};

struct sm_bridge_config {
    size_t *account;    /* NULL, or where the bytes that wait in this bridge are counted; outlives it */
    bool tls;           /* both sides are inside TLS: scheme must be https (HTTP/2), Alt-Svc h3 is removed */
    bool strip_alt_svc; /* remove Alt-Svc values that name h3 (or all of the line when nothing else is left) */
};

/** What kind of bridge fits: decided by ALPN, or by the guest's first bytes. */
struct sm_bridge *sm_bridge_new_h1(const struct sm_bridge_ops *ops, void *ctx, const struct sm_bridge_config *config);
struct sm_bridge *sm_bridge_new_h2(const struct sm_bridge_ops *ops, void *ctx, const struct sm_bridge_config *config);
/** sm_bridge_new_raw() - for what is not HTTP: relays both ways and asks nobody. */
struct sm_bridge *sm_bridge_new_raw(const struct sm_bridge_config *config);
void sm_bridge_free(struct sm_bridge *b);

/** sm_bridge_room() - bytes from that side that sm_bridge_feed() will take now. */
size_t sm_bridge_room(const struct sm_bridge *b, enum sm_bridge_side from);
/** sm_bridge_feed() - len must be at most sm_bridge_room(). After the bridge ended bytes are dropped. */
void sm_bridge_feed(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len);
/**
 * sm_bridge_lend() - as sm_bridge_feed(), but the bytes stay where they are until sm_bridge_keep(): bodies can go on
 * from there without a copy. In between the caller takes what comes out, and does nothing else with the bridge.
 */
void sm_bridge_lend(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len);
void sm_bridge_keep(struct sm_bridge *b);
/** sm_bridge_eof() - that side will send no more. @cut: without an orderly end (reset, TLS without close_notify). */
void sm_bridge_eof(struct sm_bridge *b, enum sm_bridge_side from, bool cut);

/** sm_bridge_out() - contiguous bytes for that side (may be only a part of what waits; 0: nothing now). */
size_t sm_bridge_out(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret);
/** sm_bridge_took() - n of them were taken. */
void sm_bridge_took(struct sm_bridge *b, enum sm_bridge_side to, size_t n);
/** sm_bridge_out_closed() - nothing more will ever come for that side: once sm_bridge_out() gives 0, shut its writing side down. */
bool sm_bridge_out_closed(const struct sm_bridge *b, enum sm_bridge_side to);

void sm_bridge_answer(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer);

enum sm_bridge_end {
    SM_BRIDGE_LIVE,
    SM_BRIDGE_FINISHED, /* over in order: send what sm_bridge_out() still has to both sides, then close both */
    /* Over, and a side must not take it for a complete end: send what waits, then reset both (inside TLS: end them
     * without close_notify). */
    SM_BRIDGE_CUT,
    SM_BRIDGE_ENDS
};
enum sm_bridge_end sm_bridge_ended(const struct sm_bridge *b);

/** sm_bridge_idle() - no request is open. For tests: nothing of a request may be left when it is over. */
bool sm_bridge_idle(const struct sm_bridge *b);

const char *sm_bridge_side_name(enum sm_bridge_side side);
const char *sm_bridge_outcome_name(enum sm_bridge_outcome outcome);

/**
 * The vtable behind the functions above; only bridges know it. A bridge embeds struct sm_bridge as its first member.
 */
struct sm_bridge_vtable {
    void (*free)(struct sm_bridge *b);
    size_t (*room)(const struct sm_bridge *b, enum sm_bridge_side from);
    void (*feed)(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len, bool lent);
    void (*keep)(struct sm_bridge *b); /* NULL: it copies all at once */
    void (*eof)(struct sm_bridge *b, enum sm_bridge_side from, bool cut);
    size_t (*out)(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret);
    void (*took)(struct sm_bridge *b, enum sm_bridge_side to, size_t n);
    bool (*out_closed)(const struct sm_bridge *b, enum sm_bridge_side to);
    void (*answer)(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer);
    enum sm_bridge_end (*ended)(const struct sm_bridge *b);
    bool (*idle)(const struct sm_bridge *b);
};

struct sm_bridge {
    const struct sm_bridge_vtable *vtable;
    const struct sm_bridge_ops *ops;
    void *ctx;
    struct sm_bridge_config config;
};

#endif
