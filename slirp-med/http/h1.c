/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/1 bridge: a queue of exchanges between two readers.
 *
 * The guest's reader turns bytes into exchanges: a head is read (head.h), shown to the judge, and nothing behind it is
 * looked at before the answer. What passes goes into the origin's queue byte for byte, head and body as they came, but
 * for what edit.h changes in a head. The origin's reader fills the first exchange of the queue: it reads response heads
 * (response.h) and bodies (body.h) and puts them into the guest's queue.
 *
 *   guest:   HEAD -> JUDGED -> BODY -> HEAD ...         origin:  HEAD -> [1xx: HEAD] -> BODY -> HEAD ...
 *                      |         \-> HOLD (upgrade asked) -> RAW (101) or HEAD (any other answer)
 *                      \-> DROP (refused, or nothing may follow)
 *
 * A request that may be sent again (bridge.h) is the last one in the queue until its final response's head has come: no
 * later head is read before. Its 401 is put aside as raw bytes (origin: HELD); once it is whole the judge is asked.
 * Whatever then speaks against a replay, those bytes are simply read again as if they came now.
 *
 * An exchange leaves the queue when its response is complete and its request is too. A refusal is an exchange whose response is a page of ours:
 * it waits for its turn, so that the responses before it come whole and first; then the connection is over, unless the judge would have it go
 * on (sm_bridge_answer.keep) and nothing of the refused request is left to read. A request head that breaks a rule
 * is answered in the same way, and so is a body that does, except that the end is then a cut: the origin has a beginning of that request, and
 * must not take it for a whole one.
 *
 * Whose fault, and what comes of it:
 *   guest's head     400 page in its turn, FINISHED; nothing of it at the origin. CONNECT is one of these (spec: refused inside)
 *   guest's body     400 page if nothing of the response has gone, CUT
 *   origin's head    502 page if the guest has nothing of this response but 1xx, FINISHED
 *   origin's body    CUT
 *   origin unasked   bytes while no request is at the origin: FINISHED, nothing of them goes on
 * An end of file in between is no broken rule: the guest's is passed on as it is (half-close), the origin's ends the connection without a page,
 * because a client may repeat a request that was never answered, and would not repeat one that got a 502.
 *
 * Bytes go from the caller's feed straight to the other side's queue, those of a body as a loan if the caller lends them.
 * Only what cannot go on yet is held: an unfinished head or framing line, what stands behind a request that waits for
 * its judge, and in a body that is scrubbed what may become a match (scrub.h), with the framing in between.
 */
#include "http/h1.h"

#include <glib.h>
#include <string.h>

#include "base/buf.h"
#include "base/secret.h"
#include "http/altsvc.h"
#include "http/bridge.h"
#include "http/edit.h"
#include "http/field.h"
#include "http/head.h"
#include "http/outq.h"
#include "http/page.h"
#include "http/response.h"
#include "http/scrub.h"

enum exchange_state {
    EXCHANGE_JUDGING, /* nothing of it is at the origin */
    EXCHANGE_PASSED,
    EXCHANGE_REJECTED, /* its 401 is held, whole, and the judge will answer once more */
    EXCHANGE_PAGE,     /* answered by us when its turn comes */
};

/** What is kept to send a request again. */
struct replay {
    struct sm_outq head; /* as the guest sent it */
    bool h2c;            /* ... and there is an offer of h2c in it */
    struct sm_outq body;
    struct sm_outq response; /* the 401, as far as it came; it may repeat the secret */
};

struct exchange {
    struct exchange *next;
    uint64_t req; /* 0: a head that broke a rule, the judge never saw it */
    enum exchange_state state;
    bool head;      /* the method is HEAD */
    bool http10;    /* no 1xx may come */
    bool upgrade;   /* a 101 may come */
    bool last;      /* the connection ends after it */
    bool sent;      /* the whole request is in the origin's queue */
    bool answering; /* the final response's head has gone to the guest */
    bool answered;  /* ... and all of the response */
    uint16_t status;
    uint64_t up, down;
    struct sm_http_edit *edit; /* NULL: none */
    struct sm_scrub *scrub;    /* NULL: none */
    struct sm_scrub_stream *stream;
    unsigned scrubbed;
    bool unscrubbed;
    struct replay *replay; /* NULL: it will not be sent again, (no) more */
    /* PAGE */
    enum sm_bridge_outcome outcome;
    bool cut;
    bool keep; /* the connection goes on behind it */
    uint16_t page_status;
    char *page;
    size_t page_len, page_body;
};

enum guest_state {
    GUEST_HEAD,
    GUEST_JUDGED, /* the held bytes begin with a head that the judge looks at */
    GUEST_BODY,
    GUEST_HOLD, /* behind an upgrade request: what comes next is not known yet */
    GUEST_RAW,
    GUEST_DROP,
};

enum origin_state {
    ORIGIN_HEAD,
    ORIGIN_BODY,
    ORIGIN_HELD, /* the body of a 401 that is put aside */
    ORIGIN_RAW,
    ORIGIN_DROP
};

struct h1 {
    struct sm_bridge base;
    struct exchange *first, *last;
    unsigned n_open;
    uint64_t next_req;
    enum guest_state guest;
    enum origin_state origin;
    struct sm_http_head head;
    struct sm_http_body up;
    struct sm_http_response response;
    struct sm_http_body down;
    struct sm_buf held[SM_BRIDGE_SIDES]; /* of what came from that side */
    size_t counted;                      /* ... as last added to the account; the queues count themselves */
    struct sm_outq out[SM_BRIDGE_SIDES];
    bool eof[SM_BRIDGE_SIDES];
    bool guest_over; /* nothing more of the guest's will go to the origin */
    bool busy;       /* inside a reader: an answer is noted, not acted on */
    bool lent;       /* ... which reads bytes that the caller lends */
    bool unread;     /* the guest is still sending what nobody will read */
    bool closing;    /* all is over but for the guest's last bytes */
    uint64_t dropped;
    enum sm_bridge_end end;
};

static struct h1 *h1_of(struct sm_bridge *b)
{
    return (struct h1 *)b;
}

static const struct h1 *h1_of_const(const struct sm_bridge *b)
{
    return (const struct h1 *)b;
}

/* Over for good, or only waiting for the guest to stop. */
static bool is_over(const struct h1 *h)
{
    return h->closing || h->end != SM_BRIDGE_LIVE;
}

/* Exchanges. */

static struct exchange *exchange_add(struct h1 *h)
{
    struct exchange *x = g_new0(struct exchange, 1);

    if (h->last)
        h->last->next = x;
    else
        h->first = x;
    h->last = x;
    h->n_open++;
    return x;
}

static struct replay *replay_new(const struct h1 *h)
{
    struct replay *r = g_new0(struct replay, 1);

    r->head.account = r->body.account = r->response.account = h->base.config.account;
    return r;
}

static void replay_drop(struct exchange *x)
{
    struct replay *r = sm_steal_ptr(&x->replay);

    if (!r)
        return;
    sm_outq_clear(&r->head);
    sm_outq_clear(&r->body);
    sm_outq_clear(&r->response);
    g_free(r);
}

/* The responses must keep their order: nothing may be at the origin behind what may be sent again. */
static bool behind_replay(const struct h1 *h)
{
    return h->guest == GUEST_HEAD && h->last && h->last->replay;
}

static void exchange_free(struct exchange *x)
{
    replay_drop(x);
    sm_http_edit_free(x->edit);
    sm_scrub_stream_free(x->stream);
    sm_scrub_unref(x->scrub);
    g_free(x->page);
    g_free(x);
}

/* The body is over, so what was held back of it is no match. */
static void scrub_end(struct h1 *h, struct exchange *x)
{
    if (!x->stream)
        return;
    sm_scrub_end(x->stream, &h->out[SM_BRIDGE_GUEST]);
    x->scrubbed += sm_scrub_matches(x->stream);
    sm_scrub_stream_free(sm_steal_ptr(&x->stream));
}

/* The first exchange is over. */
static void exchange_end(struct h1 *h, enum sm_bridge_outcome outcome)
{
    struct exchange *x = h->first;

    scrub_end(h, x);
    struct sm_bridge_response r = {.req = x->req,
                                   .status = x->status,
                                   .bytes_up = x->up,
                                   .bytes_down = x->down,
                                   .outcome = outcome,
                                   .scrubbed = x->scrubbed,
                                   .unscrubbed = x->unscrubbed};

    h->first = x->next;
    if (!h->first)
        h->last = NULL;
    h->n_open--;
    exchange_free(x);
    if (r.req > 0)
        h->base.ops->response(h->base.ctx, &r);
}

/* The connection is over; what is still open has got no answer. */
static void finish(struct h1 *h, enum sm_bridge_end end)
{
    if (h->end != SM_BRIDGE_LIVE)
        return;
    h->end = end;
    while (h->first)
        exchange_end(h, h->guest == GUEST_RAW ? SM_BRIDGE_UPGRADED : SM_BRIDGE_RESET);
}

/* The guest has all that it will get. If it is still sending it may not have read it yet: then the end waits for its end. */
static void close_down(struct h1 *h)
{
    bool linger = h->unread || h->dropped > 0 || h->guest == GUEST_BODY || h->guest == GUEST_JUDGED;

    if (!linger || h->eof[SM_BRIDGE_GUEST]) {
        finish(h, SM_BRIDGE_FINISHED);
        return;
    }
    h->closing = true;
    h->guest = GUEST_DROP;
    h->origin = ORIGIN_DROP;
    while (h->first)
        exchange_end(h, SM_BRIDGE_RESET);
}

static void put(struct h1 *h, enum sm_bridge_side to, const void *p, size_t len)
{
    sm_outq_put(&h->out[to], p, len);
}

/* Bytes of a body, as they are being read. */
static void pass(struct h1 *h, enum sm_bridge_side to, const void *p, size_t len)
{
    (h->lent ? sm_outq_lend : sm_outq_put)(&h->out[to], p, len);
}

/* From here on x is answered by a page of ours. */
static void make_page(struct exchange *x, enum sm_bridge_outcome outcome, uint16_t status, const char *body, size_t len)
{
    size_t cap = SM_HTTP_PAGE_HEAD_MAX + len;

    x->state = EXCHANGE_PAGE;
    x->outcome = outcome;
    x->page_status = status;
    x->page = g_malloc(cap);
    x->page_len = sm_http_page_wrap(status, body, len, x->head, x->keep, x->page, cap);
    x->page_body = x->head || !body ? 0 : len;
}

static void make_own_page(struct h1 *h, struct exchange *x, enum sm_bridge_outcome outcome, uint16_t status,
                          const char *reason)
{
    char body[SM_HTTP_PAGE_MAX];
    size_t len = h->base.ops->page ? h->base.ops->page(h->base.ctx, status, reason, body, sizeof(body)) : 0;

    make_page(x, outcome, status, len > 0 ? body : NULL, SM_MIN(len, sizeof(body)));
}

static void send_page(struct h1 *h)
{
    struct exchange *x = h->first;
    bool cut = x->cut, keep = x->keep;

    put(h, SM_BRIDGE_GUEST, x->page, x->page_len);
    x->status = x->page_status;
    x->down = x->page_body;
    exchange_end(h, x->outcome);
    if (cut)
        finish(h, SM_BRIDGE_CUT);
    else if (!keep)
        close_down(h);
}

/* Exchanges whose time has come leave the queue. */
static void settle(struct h1 *h)
{
    while (h->first && !is_over(h)) {
        struct exchange *x = h->first;
        if (x->state == EXCHANGE_PAGE) {
            send_page(h);
        } else if (x->answered && (x->last || (h->guest_over && !x->sent))) {
            exchange_end(h, SM_BRIDGE_DONE);
            close_down(h);
        } else if (x->answered && x->sent) {
            exchange_end(h, SM_BRIDGE_DONE);
        } else {
            return;
        }
    }
}

/* The guest's side. */

static void guest_head_begin(struct h1 *h)
{
    h->guest = GUEST_HEAD;
    sm_http_head_init(&h->head);
}

static void guest_drop(struct h1 *h, bool unread)
{
    h->guest = GUEST_DROP;
    h->unread |= unread;
}

/* The guest broke a rule in a head. */
static void guest_head_broken(struct h1 *h, const uint8_t *data, const char *reason)
{
    struct exchange *x = exchange_add(h);

    x->head = h->head.method.len == 4 && memcmp(data + h->head.method.off, "HEAD", 4) == 0;
    guest_drop(h, true);
    h->base.ops->broken(h->base.ctx, SM_BRIDGE_GUEST, 0, reason);
    make_own_page(h, x, SM_BRIDGE_BROKEN, 400, reason);
    settle(h);
}

static void guest_body_broken(struct h1 *h)
{
    struct exchange *x = h->last;
    const char *reason = sm_http_reject_name(h->up.reject);

    guest_drop(h, true);
    h->base.ops->broken(h->base.ctx, SM_BRIDGE_GUEST, x->req, reason);
    if (x->answering) {
        /* It had its answer, or a part of it. */
        while (h->first != x)
            exchange_end(h, SM_BRIDGE_RESET);
        exchange_end(h, SM_BRIDGE_BROKEN);
        finish(h, SM_BRIDGE_CUT);
        return;
    }
    make_own_page(h, x, SM_BRIDGE_BROKEN, 400, reason);
    x->cut = true;
    settle(h);
}

static struct sm_text text_at(const uint8_t *data, struct sm_http_span s)
{
    return (struct sm_text){(const char *)data + s.off, s.len};
}

static bool next_field(const struct sm_bridge_request *r, size_t *at, struct sm_text *ret_name,
                       struct sm_text *ret_value)
{
    const uint8_t *head = r->head, *lf;
    struct sm_http_field f;

    if (*at == 0) {
        lf = memchr(head, '\n', r->head_len);
        *at = lf ? (size_t)(lf - head) + 1 : r->head_len;
    }
    lf = memchr(head + *at, '\n', r->head_len - *at);
    size_t line = lf ? (size_t)(lf - head) - *at - 1 : 0; /* the head is valid: there is a CR */
    if (line == 0 || sm_http_field_read(head + *at, line, &f) != SM_HTTP_REJECT_NONE)
        return false;
    *ret_name = (struct sm_text){(const char *)f.name, f.name_len};
    *ret_value = (struct sm_text){(const char *)f.value, f.value_len};
    *at += line + 2;
    return true;
}

/* A complete head, for the judge. */
static struct sm_bridge_request describe(const struct sm_http_head *head, const uint8_t *data, uint64_t req)
{
    struct sm_bridge_request r = {
        .req = req,
        .protocol = head->minor == 0 ? "HTTP/1.0" : "HTTP/1.1",
        .method = text_at(data, head->method),
        .host_kind = head->host_kind,
        .port = head->port,
        .path = text_at(data, head->path),
        .upgrade = head->upgrade && head->minor > 0,
        .head = data,
        .head_len = head->consumed,
        .next_field = next_field,
    };
    const char *target = (const char *)data + head->target.off;
    const char *target_end = target + head->target.len;

    if (head->authority.len > 0)
        r.authority = text_at(data, head->authority);
    if (head->host_kind != SM_HTTP_HOST_NONE)
        r.host = text_at(data, head->host);
    if (head->form == SM_HTTP_TARGET_ABSOLUTE) {
        r.scheme = (struct sm_text){target, (size_t)((const char *)memchr(target, ':', head->target.len) - target)};
        /* HTTP/1.0 without a Host line: the target is all there is. */
        if (!r.authority.ptr)
            r.authority = (struct sm_text){target + r.scheme.len + 3, (size_t)(r.path.ptr - target) - r.scheme.len - 3};
    }
    const char *query = r.path.ptr + r.path.len;
    if (query < target_end && *query == '?')
        r.query = (struct sm_text){query + 1, (size_t)(target_end - query) - 1};
    if (r.path.len == 0)
        r.path = head->form == SM_HTTP_TARGET_ASTERISK ? (struct sm_text){"*", 1} : (struct sm_text){"/", 1};
    return r;
}

static void ask(struct h1 *h, const uint8_t *data)
{
    const struct sm_http_head *head = &h->head;
    struct exchange *x = exchange_add(h);
    struct sm_bridge_request r = describe(head, data, ++h->next_req);

    x->req = r.req;
    x->head = r.method.len == 4 && memcmp(r.method.ptr, "HEAD", 4) == 0;
    x->http10 = head->minor == 0;
    x->upgrade = r.upgrade;
    x->last = !sm_http_framing_persists(&head->framing, head->minor);
    h->guest = GUEST_JUDGED;
    h->base.ops->request(h->base.ctx, &h->base, &r);
}

/* The whole of the last request is in the origin's queue. */
static void guest_request_sent(struct h1 *h)
{
    struct exchange *x = h->last;

    x->sent = true;
    if (x->upgrade && !x->answering)
        h->guest = GUEST_HOLD;
    else if (x->last)
        guest_drop(h, false);
    else
        guest_head_begin(h);
    settle(h);
}

static void put_request_head(struct h1 *h, struct exchange *x, const uint8_t *data, size_t len, bool h2c)
{
    struct sm_http_edit none = {0}, *edit = x->edit ? x->edit : &none;

    edit->drop_h2c = h2c;
    if (!sm_http_edit_any(edit)) {
        put(h, SM_BRIDGE_ORIGIN, data, len);
        return;
    }
    size_t room = sm_http_edit_room(edit, len);
    g_autofree uint8_t *copy = g_malloc(room);
    len = sm_http_edit_head(edit, data, len, copy);
    if (edit->value) {
        sm_outq_put_secret(&h->out[SM_BRIDGE_ORIGIN], copy, len);
        sm_wipe(copy, room);
        sm_http_edit_spent(edit);
    } else {
        put(h, SM_BRIDGE_ORIGIN, copy, len);
    }
}

/* The judge has said that it may pass. */
static void guest_pass(struct h1 *h, const uint8_t *data)
{
    const struct sm_http_framing *f = &h->head.framing;
    struct replay *replay = h->last->replay;

    put_request_head(h, h->last, data, h->head.consumed, h->head.h2c);
    if (replay) {
        sm_outq_put(&replay->head, data, h->head.consumed);
        replay->h2c = h->head.h2c;
    }
    if (f->chunked || (f->has_length && f->content_length > 0)) {
        sm_http_body_init(&h->up, f->chunked ? SM_HTTP_BODY_CHUNKED : SM_HTTP_BODY_LENGTH, f->content_length);
        h->up.no_trailer = h->last->edit ? h->last->edit->name : NULL;
        h->guest = GUEST_BODY;
    } else {
        guest_request_sent(h);
    }
}

static void keep_body(struct exchange *x, const uint8_t *data, size_t len)
{
    if (x->replay && x->replay->body.len + len <= SM_BRIDGE_REPLAY_BODY_MAX)
        sm_outq_put(&x->replay->body, data, len);
    else
        replay_drop(x);
}

/*
 * May the connection go on behind the refusal of the last request? Only if the next byte is the next request's, the
 * guest takes what it is told (else it could make us hold ever more pages), and the origin is still there for the next.
 */
static bool guest_may_go_on(const struct h1 *h)
{
    const struct exchange *x = h->last;
    const struct sm_http_framing *f = &h->head.framing;
    /* Where the second answer refuses the request has gone whole, and the head that is read now is nobody's yet. */
    bool rest = !x->sent && (f->chunked || (f->has_length && f->content_length > 0));

    return !rest && !x->last && !x->http10 && !x->upgrade && !h->eof[SM_BRIDGE_ORIGIN] &&
           h->out[SM_BRIDGE_GUEST].len < SM_BRIDGE_OUT_MAX;
}

/* The judge has refused it, and the page is made. */
static void guest_refuse(struct h1 *h, size_t len)
{
    const struct sm_http_framing *f = &h->head.framing;

    if (h->last->keep) {
        guest_head_begin(h);
        settle(h);
        return;
    }
    guest_drop(h, f->chunked || (f->has_length && f->content_length > 0) || len > h->head.consumed);
    settle(h);
}

static void read_head(struct h1 *h, const uint8_t *data, size_t len)
{
    switch (sm_http_head_feed(&h->head, data, len)) {
    case SM_HTTP_NEED_MORE:
    case SM_HTTP_STATUS_COUNT:
        break;
    case SM_HTTP_HTTP1:
        ask(h, data);
        break;
    case SM_HTTP_NOT_HTTP:
        guest_head_broken(h, data, sm_http_reject_name(SM_HTTP_REJECT_REQUEST_LINE));
        break;
    case SM_HTTP_HTTP2:
        guest_head_broken(h, data, sm_http_reject_name(SM_HTTP_REJECT_PREFACE));
        break;
    case SM_HTTP_REJECT:
        guest_head_broken(h, data, sm_http_reject_name(h->head.reject));
        break;
    }
}

/* As far as it goes now. Returns what was used of the bytes; the rest has to be shown again. */
static size_t read_guest(struct h1 *h, const uint8_t *data, size_t len)
{
    size_t used = 0;
    size_t n;

    while (used < len && !is_over(h)) {
        const uint8_t *p = data + used;
        size_t left = len - used;
        switch (h->guest) {
        case GUEST_HEAD:
            if (h->n_open >= SM_H1_IN_FLIGHT_MAX || behind_replay(h))
                return used;
            read_head(h, p, left);
            if (h->guest == GUEST_HEAD)
                return used; /* it needs more */
            break;
        case GUEST_JUDGED:
            switch (h->last->state) {
            case EXCHANGE_JUDGING:
            case EXCHANGE_REJECTED:
                return used;
            case EXCHANGE_PASSED:
                if (h->eof[SM_BRIDGE_ORIGIN]) {
                    finish(h, SM_BRIDGE_FINISHED); /* there is nobody to pass it to */
                    break;
                }
                if (h->first->last && h->first != h->last) {
                    guest_drop(h, true); /* the origin has said meanwhile that it reads no more requests */
                    break;
                }
                used += h->head.consumed;
                guest_pass(h, p);
                break;
            case EXCHANGE_PAGE:
                used += h->head.consumed;
                guest_refuse(h, left);
                break;
            }
            break;
        case GUEST_BODY: {
            enum sm_http_body_status status = sm_http_body_feed(&h->up, p, left, &n);
            pass(h, SM_BRIDGE_ORIGIN, p, n);
            keep_body(h->last, p, n);
            used += n;
            h->last->up = h->up.payload;
            if (sm_http_body_has_trailers(&h->up))
                replay_drop(h->last);
            if (status == SM_HTTP_BODY_DONE)
                guest_request_sent(h);
            else if (status == SM_HTTP_BODY_BAD)
                guest_body_broken(h);
            else
                return used;
            break;
        }
        case GUEST_HOLD:
            return used;
        case GUEST_RAW:
            pass(h, SM_BRIDGE_ORIGIN, p, left);
            h->last->up += left;
            used = len;
            break;
        case GUEST_DROP:
            h->dropped += left;
            used = len;
            break;
        }
    }
    return used;
}

/* The origin's side. */

static void origin_head_begin(struct h1 *h)
{
    h->origin = ORIGIN_HEAD;
    sm_http_response_init(&h->response);
}

static size_t read_origin(struct h1 *h, const uint8_t *data, size_t len);

/* No replay: what was put aside is read as if it came now. */
static void release(struct h1 *h)
{
    struct exchange *x = h->first;
    size_t len = x->replay->response.len;
    g_autofree uint8_t *data = sm_outq_flat(&x->replay->response);
    bool lent = h->lent;

    x->state = EXCHANGE_PASSED;
    replay_drop(x);
    origin_head_begin(h);
    h->lent = false;                 /* these are ours, and go at once */
    (void)read_origin(h, data, len); /* each byte was used once, and is now */
    h->lent = lent;
    sm_wipe(data, len);
}

/* Nothing can be sent any more: the guest gets the 401, and then the end. */
static void release_last(struct h1 *h)
{
    h->first->last = true;
    release(h);
}

/* The 401 is whole. */
static void origin_rejected(struct h1 *h)
{
    struct exchange *x = h->first;
    g_autofree uint8_t *data = sm_outq_flat(&x->replay->head);
    struct sm_http_head head;

    sm_http_head_init(&head);
    if (sm_http_head_feed(&head, data, x->replay->head.len) != SM_HTTP_HTTP1)
        g_assert_not_reached(); /* it has been read before */
    struct sm_bridge_request r = describe(&head, data, x->req);
    x->state = EXCHANGE_REJECTED;
    origin_head_begin(h);
    /* With true it may have been answered: x may be gone. */
    if (!h->base.ops->rejected(h->base.ctx, &h->base, &r))
        release(h);
}

/* The final response's head: is it a 401 that may be replaced? */
static bool hold(struct h1 *h, const uint8_t *data, enum sm_http_body_kind kind)
{
    struct exchange *x = h->first;

    if (!x->replay || h->response.code != 401 || !x->sent || x->last || h->guest_over || kind == SM_HTTP_BODY_CLOSE ||
        !sm_http_framing_persists(&h->response.framing, h->response.minor) ||
        h->response.consumed > SM_BRIDGE_REPLAY_RESPONSE_MAX) {
        replay_drop(x);
        return false;
    }
    sm_outq_put_secret(&x->replay->response, data, h->response.consumed);
    sm_http_body_init(&h->down, kind, h->response.framing.content_length);
    h->origin = ORIGIN_HELD;
    if (kind == SM_HTTP_BODY_NONE)
        origin_rejected(h);
    return true;
}

/* The origin broke a rule. */
static void origin_broken(struct h1 *h, const char *reason)
{
    struct exchange *x = h->first;
    bool open = x && (x->state == EXCHANGE_PASSED || x->state == EXCHANGE_REJECTED);

    h->base.ops->broken(h->base.ctx, SM_BRIDGE_ORIGIN, open ? x->req : 0, reason);
    if (open && x->state == EXCHANGE_REJECTED) {
        release_last(h);
    } else if (open && !x->answering) {
        make_own_page(h, x, SM_BRIDGE_BROKEN, 502, reason);
        settle(h);
    } else if (open && !x->answered) {
        exchange_end(h, SM_BRIDGE_BROKEN);
        finish(h, SM_BRIDGE_CUT);
    } else {
        if (open)
            exchange_end(h, SM_BRIDGE_DONE);
        close_down(h);
    }
}

static void put_response_head(struct h1 *h, const uint8_t *data)
{
    size_t len = h->response.consumed;
    bool strip = h->response.alt_svc && h->base.config.strip_alt_svc;
    struct exchange *x = h->first;

    if (!strip && !x->scrub) {
        put(h, SM_BRIDGE_GUEST, data, len);
        return;
    }
    g_autofree uint8_t *copy = g_malloc(len);
    if (strip)
        len = sm_http_alt_svc_strip(data, len, copy);
    else
        memcpy(copy, data, len);
    if (x->scrub)
        x->scrubbed += sm_http_scrub_head(x->scrub, copy, len);
    put(h, SM_BRIDGE_GUEST, copy, len);
}

/* sm_http_body_feed(), and what it used goes through the scrub: data as a stream, trailers one by one. */
static enum sm_http_body_status scrub_body(struct h1 *h, const uint8_t *data, size_t len, size_t *ret_used)
{
    struct exchange *x = h->first;
    struct sm_outq *out = &h->out[SM_BRIDGE_GUEST];
    enum sm_http_body_status status = SM_HTTP_BODY_MORE;
    size_t n = 1;

    for (*ret_used = 0; status == SM_HTTP_BODY_MORE && n > 0 && *ret_used < len; *ret_used += n) {
        const uint8_t *p = data + *ret_used;
        bool is_data, trailer = sm_http_body_trailers(&h->down);
        status = sm_http_body_piece(&h->down, p, len - *ret_used, &n, &is_data);
        if (trailer && n > 2) {
            g_autofree uint8_t *line = g_memdup2(p, n);
            x->scrubbed += sm_http_scrub_line(x->scrub, line, n - 2);
            sm_outq_put(out, line, n);
        } else if (!x->stream) {
            sm_outq_put(out, p, n); /* encoded, or behind the body's last byte */
        } else if (is_data) {
            sm_scrub_data(x->stream, p, n, out);
        } else {
            sm_scrub_framing(x->stream, p, n, out);
            if (sm_http_body_trailers(&h->down))
                scrub_end(h, x);
        }
    }
    return status;
}

static void origin_answered(struct h1 *h)
{
    scrub_end(h, h->first);
    h->first->answered = true;
    origin_head_begin(h);
    settle(h);
}

static void origin_switch(struct h1 *h, const uint8_t *data)
{
    struct exchange *x = h->first;

    /* Not in the middle of a request: the guest's bytes would then be of two protocols at once. */
    if (!x->upgrade || !x->sent || !h->response.upgrade) {
        origin_broken(h, "http_upgrade_unasked");
        return;
    }
    put_response_head(h, data);
    x->answering = true;
    x->status = 101;
    x->unscrubbed = x->scrub != NULL;
    h->origin = ORIGIN_RAW;
    h->guest = GUEST_RAW;
}

static void origin_final(struct h1 *h, const uint8_t *data)
{
    struct exchange *x = h->first;
    enum sm_http_body_kind kind = sm_http_response_body(&h->response, x->head);

    if (hold(h, data, kind))
        return;
    put_response_head(h, data);
    x->answering = true;
    x->status = h->response.code;
    x->last |= kind == SM_HTTP_BODY_CLOSE || !sm_http_framing_persists(&h->response.framing, h->response.minor);
    if (h->guest == GUEST_HOLD)
        guest_head_begin(h); /* no upgrade: it goes on as HTTP */
    if (x->last && h->guest == GUEST_HEAD)
        guest_drop(h, false);
    if (kind == SM_HTTP_BODY_NONE) {
        origin_answered(h);
        return;
    }
    sm_http_body_init(&h->down, kind, h->response.framing.content_length);
    if (x->scrub && h->response.coded)
        x->unscrubbed = true;
    else if (x->scrub)
        x->stream = sm_scrub_stream_new(x->scrub, h->base.config.account);
    h->origin = ORIGIN_BODY;
}

/* False: it needs more. */
static bool read_response(struct h1 *h, const uint8_t *data, size_t len, size_t *used)
{
    struct exchange *x = h->first;

    if (!x || x->state != EXCHANGE_PASSED || x->answered) {
        origin_broken(h, "http_response_unasked");
        return true;
    }
    switch (sm_http_response_feed(&h->response, data, len)) {
    case SM_HTTP_NEED_MORE:
    case SM_HTTP_NOT_HTTP:
    case SM_HTTP_HTTP2:
    case SM_HTTP_STATUS_COUNT:
        return false;
    case SM_HTTP_REJECT:
        origin_broken(h, sm_http_reject_name(h->response.reject));
        return true;
    case SM_HTTP_HTTP1:
        break;
    }
    *used += h->response.consumed;
    if (h->response.code == 101) {
        origin_switch(h, data);
    } else if (h->response.code >= 200) {
        origin_final(h, data);
    } else if (x->http10) {
        origin_broken(h, "http_response_interim");
    } else {
        put_response_head(h, data);
        origin_head_begin(h);
    }
    return true;
}

static size_t read_origin(struct h1 *h, const uint8_t *data, size_t len)
{
    size_t used = 0;
    size_t n;

    while (used < len && !is_over(h)) {
        const uint8_t *p = data + used;
        size_t left = len - used;
        switch (h->origin) {
        case ORIGIN_HEAD:
            if (!read_response(h, p, left, &used))
                return used;
            break;
        case ORIGIN_BODY: {
            enum sm_http_body_status status;
            if (h->first->scrub) {
                status = scrub_body(h, p, left, &n);
            } else {
                status = sm_http_body_feed(&h->down, p, left, &n);
                pass(h, SM_BRIDGE_GUEST, p, n);
            }
            used += n;
            h->first->down = h->down.payload;
            if (status == SM_HTTP_BODY_DONE)
                origin_answered(h);
            else if (status == SM_HTTP_BODY_BAD)
                origin_broken(h, sm_http_reject_name(h->down.reject));
            else
                return used;
            break;
        }
        case ORIGIN_HELD: {
            struct sm_outq *held = &h->first->replay->response;
            enum sm_http_body_status status = sm_http_body_feed(&h->down, p, left, &n);
            if (held->len + n > SM_BRIDGE_REPLAY_RESPONSE_MAX) {
                release(h); /* and these are read again, behind it */
                break;
            }
            sm_outq_put_secret(held, p, n);
            used += n;
            if (status == SM_HTTP_BODY_DONE)
                origin_rejected(h);
            else if (status == SM_HTTP_BODY_BAD)
                origin_broken(h, sm_http_reject_name(h->down.reject));
            else
                return used;
            break;
        }
        case ORIGIN_RAW:
            pass(h, SM_BRIDGE_GUEST, p, left);
            h->first->down += left;
            used = len;
            break;
        case ORIGIN_DROP:
            used = len;
            break;
        }
    }
    return used;
}

/* Both. */

/* The guest has ended: what of it will never be whole is forgotten, and when nothing is open all is over. */
static void guest_ended(struct h1 *h)
{
    bool waits =
        h->guest == GUEST_JUDGED || (h->first && h->first->state == EXCHANGE_REJECTED) ||
        (h->held[SM_BRIDGE_GUEST].len > 0 &&
         (h->guest == GUEST_HOLD || (h->guest == GUEST_HEAD && h->n_open >= SM_H1_IN_FLIGHT_MAX) || behind_replay(h)));

    if (h->closing) {
        finish(h, SM_BRIDGE_FINISHED);
        return;
    }
    if (waits)
        return;
    sm_buf_clear(&h->held[SM_BRIDGE_GUEST]);
    h->guest_over = true;
    settle(h);
    if (!h->first || (h->guest == GUEST_RAW && h->eof[SM_BRIDGE_ORIGIN]))
        finish(h, SM_BRIDGE_FINISHED);
}

static void count_held(struct h1 *h)
{
    size_t now = h->held[SM_BRIDGE_GUEST].len + h->held[SM_BRIDGE_ORIGIN].len;

    if (h->base.config.account)
        *h->base.config.account += now - h->counted;
    h->counted = now;
}

/* Something has changed: what is held may now go on. */
static void advance(struct h1 *h)
{
    struct sm_buf *held = &h->held[SM_BRIDGE_GUEST];

    h->busy = true;
    while (held->len > 0 && !is_over(h)) {
        size_t n = read_guest(h, sm_buf_peek(held), held->len);
        if (n == 0)
            break;
        sm_buf_consume(held, n);
    }
    h->busy = false;
    if (h->eof[SM_BRIDGE_GUEST] && h->end == SM_BRIDGE_LIVE)
        guest_ended(h);
    if (h->closing && h->dropped > SM_H1_LINGER_MAX)
        finish(h, SM_BRIDGE_FINISHED);
    if (is_over(h)) {
        sm_buf_clear(&h->held[SM_BRIDGE_GUEST]);
        sm_buf_clear(&h->held[SM_BRIDGE_ORIGIN]);
    }
    count_held(h);
}

static void h1_feed(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len, bool lent)
{
    struct h1 *h = h1_of(b);
    struct sm_buf *held = &h->held[from];
    size_t (*read)(struct h1 *, const uint8_t *, size_t) = from == SM_BRIDGE_GUEST ? read_guest : read_origin;

    g_assert(len <= sm_bridge_room(b, from) && !h->eof[from]);
    if (h->closing && from == SM_BRIDGE_GUEST)
        h->dropped += len;
    if (len > 0 && !is_over(h)) {
        h->busy = true;
        if (held->len == 0) {
            h->lent = lent;
            size_t n = read(h, data, len);
            h->lent = false; /* what is held is ours, and moves */
            if (!is_over(h) && !sm_buf_append(held, data + n, len - n))
                g_assert_not_reached(); /* room counts what is held */
        } else if (sm_buf_append(held, data, len)) {
            sm_buf_consume(held, read(h, sm_buf_peek(held), held->len));
        }
        h->busy = false;
    }
    advance(h);
}

static void h1_keep(struct sm_bridge *b)
{
    sm_outq_keep(&h1_of(b)->out[SM_BRIDGE_GUEST]);
    sm_outq_keep(&h1_of(b)->out[SM_BRIDGE_ORIGIN]);
}

static void origin_ended(struct h1 *h, bool cut)
{
    struct exchange *x = h->first;
    enum sm_bridge_end end = cut ? SM_BRIDGE_CUT : SM_BRIDGE_FINISHED;

    if (h->closing)
        return;
    if (!x) {
        finish(h, SM_BRIDGE_FINISHED);
        return;
    }
    switch (h->origin) {
    case ORIGIN_HELD:
        release(h);
        finish(h, SM_BRIDGE_CUT);
        break;
    case ORIGIN_RAW:
        if (cut || h->guest_over)
            finish(h, end);
        break;
    case ORIGIN_BODY:
        if (h->down.kind == SM_HTTP_BODY_CLOSE && !cut)
            origin_answered(h);
        else
            finish(h, SM_BRIDGE_CUT);
        break;
    case ORIGIN_HEAD:
        if (h->held[SM_BRIDGE_ORIGIN].len > 0) {
            origin_broken(h, "http_response_truncated");
        } else if (x->state == EXCHANGE_REJECTED) {
            release_last(h);
        } else if (x->state == EXCHANGE_PASSED && x->answered) {
            exchange_end(h, SM_BRIDGE_DONE);
            close_down(h);
        } else if (x->state == EXCHANGE_PASSED) {
            finish(h, end);
        }
        /* JUDGING: it may still be refused, for which no origin is needed. */
        break;
    case ORIGIN_DROP:
        break;
    }
}

static void h1_eof(struct sm_bridge *b, enum sm_bridge_side from, bool cut)
{
    struct h1 *h = h1_of(b);

    if (h->eof[from] || h->end != SM_BRIDGE_LIVE)
        return;
    h->eof[from] = true;
    if (from == SM_BRIDGE_ORIGIN)
        origin_ended(h, cut);
    else if (cut && h->first)
        finish(h, SM_BRIDGE_CUT);
    advance(h);
}

/* The second answer is there. */
static void answered_again(struct h1 *h, struct exchange *x)
{
    if (x->state == EXCHANGE_PASSED) {
        struct replay *replay = x->replay;
        g_autofree uint8_t *head = sm_outq_flat(&replay->head);
        put_request_head(h, x, head, replay->head.len, replay->h2c);
        sm_outq_move(&h->out[SM_BRIDGE_ORIGIN], &replay->body);
        replay_drop(x);
    } else {
        if (!x->keep)
            guest_drop(h, h->held[SM_BRIDGE_GUEST].len > 0);
        settle(h);
    }
}

static void h1_answer(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer)
{
    struct h1 *h = h1_of(b);
    struct exchange *x = h->last;
    bool again = x && x->state == EXCHANGE_REJECTED;

    /* Only the last request can be unanswered; anything else is an answer that comes too late. */
    if (!x || x->req != req || (x->state != EXCHANGE_JUDGING && !again))
        return;
    sm_http_edit_free(sm_steal_ptr(&x->edit));
    sm_scrub_unref(sm_steal_ptr(&x->scrub));
    if (answer->pass && answer->edit && !sm_http_edit_valid(answer->edit)) {
        make_own_page(h, x, SM_BRIDGE_REFUSED, 502, SM_HTTP_EDIT_INVALID);
    } else if (answer->pass) {
        x->state = EXCHANGE_PASSED;
        if (answer->edit) {
            x->edit = sm_http_edit_new(answer->edit);
            x->scrub = answer->edit->scrub ? sm_scrub_ref(answer->edit->scrub) : NULL;
            if (answer->edit->replay && h->base.ops->rejected && !again && !x->upgrade && !x->last)
                x->replay = replay_new(h);
        }
    } else {
        x->keep = answer->keep && guest_may_go_on(h);
        make_page(x, SM_BRIDGE_REFUSED, answer->status ? answer->status : 403, answer->body, answer->body_len);
    }
    if (again)
        answered_again(h, x);
    if (!h->busy)
        advance(h);
}

static size_t h1_room(const struct sm_bridge *b, enum sm_bridge_side from)
{
    const struct h1 *h = h1_of_const(b);
    size_t waits = h->held[from].len + h->out[from == SM_BRIDGE_GUEST ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST].len;

    if (is_over(h))
        return SM_BRIDGE_OUT_MAX;
    if (from == SM_BRIDGE_ORIGIN && h->first && h->first->stream)
        waits += sm_scrub_held(h->first->stream);
    if (from == SM_BRIDGE_GUEST) {
        if (h->guest == GUEST_DROP)
            return SM_BRIDGE_OUT_MAX;
        if (h->guest == GUEST_JUDGED || h->guest == GUEST_HOLD ||
            (h->guest == GUEST_HEAD && h->n_open >= SM_H1_IN_FLIGHT_MAX))
            return 0;
        /* Nothing to read for now; but a guest that waits for its response and goes is to be noticed. */
        if (behind_replay(h) && h->held[SM_BRIDGE_GUEST].len > 0)
            return 0;
    }
    return waits < SM_BRIDGE_OUT_MAX ? SM_BRIDGE_OUT_MAX - waits : 0;
}

static size_t h1_out(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret)
{
    return sm_outq_peek(&h1_of(b)->out[to], ret);
}

static void h1_took(struct sm_bridge *b, enum sm_bridge_side to, size_t n)
{
    sm_outq_took(&h1_of(b)->out[to], n);
}

static bool h1_out_closed(const struct sm_bridge *b, enum sm_bridge_side to)
{
    const struct h1 *h = h1_of_const(b);

    if (is_over(h))
        return true;
    return to == SM_BRIDGE_ORIGIN ? h->guest_over : h->origin == ORIGIN_RAW && h->eof[SM_BRIDGE_ORIGIN];
}

static enum sm_bridge_end h1_ended(const struct sm_bridge *b)
{
    return h1_of_const(b)->end;
}

static bool h1_idle(const struct sm_bridge *b)
{
    return !h1_of_const(b)->first;
}

static void h1_free(struct sm_bridge *b)
{
    struct h1 *h = h1_of(b);

    while (h->first) {
        struct exchange *x = h->first;
        h->first = x->next;
        exchange_free(x);
    }
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        sm_buf_clear(&h->held[side]);
        sm_outq_clear(&h->out[side]);
    }
    count_held(h);
    g_free(h);
}

static const struct sm_bridge_vtable h1_vtable = {
    .free = h1_free,
    .room = h1_room,
    .feed = h1_feed,
    .keep = h1_keep,
    .eof = h1_eof,
    .out = h1_out,
    .took = h1_took,
    .out_closed = h1_out_closed,
    .answer = h1_answer,
    .ended = h1_ended,
    .idle = h1_idle,
};

struct sm_bridge *sm_bridge_new_h1(const struct sm_bridge_ops *ops, void *ctx, const struct sm_bridge_config *config)
{
    struct h1 *h = g_new0(struct h1, 1);

    h->base = (struct sm_bridge){.vtable = &h1_vtable, .ops = ops, .ctx = ctx, .config = *config};
    guest_head_begin(h);
    origin_head_begin(h);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        sm_buf_init(&h->held[side], SM_BRIDGE_OUT_MAX);
        h->out[side].account = config->account;
    }
    return &h->base;
}
