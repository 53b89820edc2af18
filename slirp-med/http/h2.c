/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The HTTP/2 bridge. How it works:
 *
 * sm_bridge_feed() gives bytes to the session of their side. nghttp2's callbacks turn them into events of one struct
 * stream, which is known to both sessions as their stream's user data, and an event of one side becomes something
 * submitted to the other side's session. Nothing is sent from a callback. After each entry settle() runs both
 * sessions' output into the two output queues until neither has more to say (what one sends frees windows of the
 * other), and then looks whether the connection is over. So whatever a call makes possible is in sm_bridge_out() when
 * it returns, for both sides.
 *
 * A body's bytes wait in the stream's queue (body[], by the side that they come from) from their arrival until a DATA
 * frame with them is put into the output queue, which is when they count as consumed. An output queue over
 * SM_BRIDGE_OUT_MAX stops its session from sending, so bodies stay in their queues, so windows close.
 *
 * A stream is freed when the guest's side is closed and nothing of it is owed to the origin; only then ops->response
 * is told.
 *
 * A request that may be sent again (bridge.h) keeps its head and a copy of each DATA frame that went to the origin. Its
 * 401 is not submitted to the guest: the head stays a block, the body in the queue where it would be anyway, so that
 * its bytes count as consumed when they leave or are dropped. When the stream at the origin has closed in order the
 * judge is asked, and with its answer the stream is as it was after the first question, but for the held response. That
 * is dropped when the request really goes to the origin again; whatever happens before that submits it to the guest.
 */
#include "http/h2.h"

#include <glib.h>
#include <string.h>

#include "base/secret.h"
#include "http/edit.h"
#include "http/h2_head.h"
#include "http/h2_mem.h"
#include "http/outq.h"
#include "http/scrub.h"

/*
 * Frames that cost us something and carry nothing are counted against useful work, because there is no clock here.
 * Each kind has so many free; work gives `back` of them.
 * - PING: an idle connection that is kept alive every 10 s takes a day to use up 10,000; acknowledgements that are not
 *   fetched stop at 1,000 in nghttp2.
 * - SETTINGS: clients that follow the bandwidth with their window send one now and then, always with data.
 * - WINDOW_UPDATE: two for each read of a client that reads 512 bytes at a time from a full DATA frame.
 * - PRIORITY: browsers send a few for each stream.
 * - Empty DATA: some libraries send one to flush.
 * - RESET (and requests that break a rule): streams that ended before the origin answered, CVE-2023-44487. Five rounds
 *   of all streams timing out at a dead origin are no attack; every response gives one back. nghttp2 counts 1,000 and
 *   33 a second on its own.
 */
enum sm_h2_flood { FLOOD_PING, FLOOD_SETTINGS, FLOOD_WINDOW, FLOOD_PRIORITY, FLOOD_EMPTY, FLOOD_RESET, FLOODS };

static const struct {
    uint32_t max;
    uint32_t back; /* for each DATA frame with data, either way */
    enum sm_h2_broken broken;
} floods[] = {
    [FLOOD_PING] = {10000, 10, SM_H2_BROKEN_PING_FLOOD},
    [FLOOD_SETTINGS] = {1000, 1, SM_H2_BROKEN_SETTINGS_FLOOD},
    [FLOOD_WINDOW] = {10000, 64, SM_H2_BROKEN_WINDOW_FLOOD},
    [FLOOD_PRIORITY] = {10000, 16, SM_H2_BROKEN_PRIORITY_FLOOD},
    [FLOOD_EMPTY] = {1000, 1, SM_H2_BROKEN_EMPTY_FLOOD},
    [FLOOD_RESET] = {500, 0, SM_H2_BROKEN_RESET_FLOOD},
};
_Static_assert(SM_ARRAY_LEN(floods) == FLOODS, "each flood has its bounds");

/**
 * Frames that a session may have queued behind a full output queue before the side that causes them is no longer read.
 */
#define BACKLOG_MAX 256u
/** CONTINUATION frames of one block: 64 KiB fit in four. (nghttp2 from 1.61 on, and Debian's, has 8.) */
#define CONTINUATIONS_MAX 64u
/** nghttp2's name for the same, which older headers do not have. */
#define ERR_TOO_MANY_CONTINUATIONS (-905)
/** The longest page that is sent for what the bridge itself refuses. */
#define PAGE_MAX 4096u

enum stream_state {
    STREAM_HEAD,    /* its request head is not complete */
    STREAM_ASKED,   /* the judge has not answered, the first time or the second */
    STREAM_WAITING, /* passed; the origin permits no more streams now */
    STREAM_OPEN,    /* submitted to the origin */
    STREAM_PAGE,    /* answered by us */
};

/** What is kept to send a request again. */
struct replay {
    struct sm_h2_block *head; /* as the guest sent it */
    struct sm_outq body;
    struct sm_h2_block *response; /* the held 401's head; its body is in the stream's queue. NULL: none came */
};

struct stream {
    struct h2 *h;
    struct stream *next, *prev; /* in order of req */
    uint64_t req;
    int32_t id[SM_BRIDGE_SIDES];
    enum stream_state state;

    struct sm_h2_block *head;  /* the request, until it is submitted */
    struct sm_http_edit *edit; /* NULL: none */
    struct sm_scrub *scrub;    /* of the response; NULL: none */
    struct sm_scrub_stream *scrubber;
    unsigned scrubbed;
    bool unscrubbed;

    struct replay *replay; /* NULL: it will not be sent again, (no) more */
    bool resent;           /* the guest's window knows already of the body that is sent */

    bool head_only; /* END_STREAM stood on it */
    bool method_head;
    bool judged;  /* ops->request was called: ops->response is owed */
    bool refused; /* by the judge */
    bool broken;  /* a rule was broken, and that was told */

    bool closed[SM_BRIDGE_SIDES];     /* ORIGIN: nothing more is owed to it, or it never had it */
    bool ended[SM_BRIDGE_SIDES];      /* that side sent END_STREAM */
    bool reset_ours[SM_BRIDGE_SIDES]; /* a RST_STREAM that we submitted, not nghttp2 */
    bool deferred[SM_BRIDGE_SIDES];   /* the session of that side waits for more of the body */
    bool guest_reset;                 /* RST_STREAM came from the guest */

    struct sm_outq body[SM_BRIDGE_SIDES];          /* by the side it comes from */
    struct sm_h2_block *trailers[SM_BRIDGE_SIDES]; /* likewise; until submitted */
    size_t unconsumed[SM_BRIDGE_SIDES];            /* likewise; sent on, but its sender is not told yet */
    uint32_t grown[SM_BRIDGE_SIDES];               /* likewise; receive window above SM_H2_WINDOW_MIN */
    bool tight[SM_BRIDGE_SIDES];                   /* likewise; the window was the limit */
    uint64_t bytes[SM_BRIDGE_SIDES];               /* likewise; body bytes sent on */

    uint16_t status;       /* of the final response; as submitted */
    bool answered;         /* the final response head was submitted to the guest's session */
    bool answer_sent;      /* it is in the guest's output queue */
    bool answer_ended;     /* END_STREAM too */
    unsigned heads_queued; /* HEADERS submitted to the guest's session and not yet sent */
    unsigned interim;
    bool
        reset_due; /* once what waits for the guest is sent: RST_STREAM with reset_code, unless both sides have ended */
    uint32_t reset_code;
};

struct h2 {
    struct sm_bridge base;
    struct sm_h2_mem mem; /* of both sessions */
    nghttp2_session *session[SM_BRIDGE_SIDES];
    struct sm_outq out[SM_BRIDGE_SIDES];
    struct stream *first, *last;
    unsigned streams;        /* in the list */
    unsigned streams_origin; /* submitted to the origin's session and not closed there */
    unsigned waiting;
    size_t waiting_bytes; /* of heads kept */
    uint64_t reqs;

    struct sm_h2_block *block[SM_BRIDGE_SIDES]; /* being received; NULL: none */
    struct sm_h2_block *spare;
    unsigned continuations[SM_BRIDGE_SIDES];
    uint32_t spent[SM_BRIDGE_SIDES][FLOODS];
    uint32_t pool[SM_BRIDGE_SIDES]; /* window growth handed out */
    bool unconsumed[SM_BRIDGE_SIDES];
    enum sm_h2_broken hint[SM_BRIDGE_SIDES]; /* what nghttp2 complained of last */
    uint8_t last_frame[SM_BRIDGE_SIDES];

    struct stream *asking;                  /* within ops->request: its head's text must stay */
    bool busy;                              /* a session is at work: settle() comes after it */
    bool goaway_told[SM_BRIDGE_SIDES];      /* nghttp2 sent the GOAWAY for what ends that side's connection */
    unsigned goaways_ours[SM_BRIDGE_SIDES]; /* GOAWAYs that we submitted, not yet sent */
    enum sm_h2_broken doom;                 /* set in a callback: the connection of doom_side ends now */
    enum sm_bridge_side doom_side;

    bool dead[SM_BRIDGE_SIDES];   /* that side's session is no longer used */
    bool goaway[SM_BRIDGE_SIDES]; /* that side sent GOAWAY (a shutdown notice excepted) */
    bool no_more;                 /* the origin takes no new streams */
    uint32_t guest_goaway_code;
    bool cut;
    enum sm_bridge_end end;
};

static struct h2 *h2_of(struct sm_bridge *b)
{
    return (struct h2 *)b;
}

static enum sm_bridge_side other(enum sm_bridge_side side)
{
    return side == SM_BRIDGE_GUEST ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST;
}

static enum sm_bridge_side side_of(const struct h2 *h, const nghttp2_session *session)
{
    return session == h->session[SM_BRIDGE_GUEST] ? SM_BRIDGE_GUEST : SM_BRIDGE_ORIGIN;
}

static struct sm_h2_block *block_new(struct h2 *h)
{
    struct sm_h2_block *block = h->spare ? sm_steal_ptr(&h->spare) : g_new0(struct sm_h2_block, 1);

    sm_h2_block_reset(block);
    return block;
}

/* One block is kept for the next head, unless it had to grow. */
static void block_done(struct h2 *h, struct sm_h2_block **block)
{
    if (!*block)
        return;
    if (!h->spare && (*block)->cap <= 4096 && h->streams > 0) {
        h->spare = sm_steal_ptr(block);
        return;
    }
    sm_h2_block_clear(*block);
    g_free(sm_steal_ptr(block));
}

/* ---- words and codes ---- */

static enum sm_h2_broken broken_of_code(uint32_t code)
{
    switch (code) {
    case NGHTTP2_FLOW_CONTROL_ERROR:
        return SM_H2_BROKEN_FLOW_CONTROL;
    case NGHTTP2_STREAM_CLOSED:
        return SM_H2_BROKEN_STREAM_CLOSED;
    case NGHTTP2_FRAME_SIZE_ERROR:
        return SM_H2_BROKEN_FRAME_SIZE;
    case NGHTTP2_COMPRESSION_ERROR:
        return SM_H2_BROKEN_COMPRESSION;
    case NGHTTP2_INTERNAL_ERROR:
        return SM_H2_BROKEN_INTERNAL;
    default:
        return SM_H2_BROKEN_PROTOCOL;
    }
}

/* What GOAWAY says of it. */
static uint32_t code_of_broken(enum sm_h2_broken broken)
{
    switch (broken) {
    case SM_H2_BROKEN_RESET_FLOOD:
    case SM_H2_BROKEN_PING_FLOOD:
    case SM_H2_BROKEN_SETTINGS_FLOOD:
    case SM_H2_BROKEN_WINDOW_FLOOD:
    case SM_H2_BROKEN_PRIORITY_FLOOD:
    case SM_H2_BROKEN_EMPTY_FLOOD:
    case SM_H2_BROKEN_CONTINUATION_FLOOD:
    case SM_H2_BROKEN_HEADER_FLOOD:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case SM_H2_BROKEN_FLOW_CONTROL:
        return NGHTTP2_FLOW_CONTROL_ERROR;
    case SM_H2_BROKEN_FRAME_SIZE:
        return NGHTTP2_FRAME_SIZE_ERROR;
    case SM_H2_BROKEN_COMPRESSION:
        return NGHTTP2_COMPRESSION_ERROR;
    case SM_H2_BROKEN_STREAM_CLOSED:
        return NGHTTP2_STREAM_CLOSED;
    case SM_H2_BROKEN_INTERNAL:
        return NGHTTP2_INTERNAL_ERROR;
    case SM_H2_BROKEN_NONE:
    case SM_H2_BROKEN_HEADER_INVALID:
    case SM_H2_BROKEN_TOO_LARGE:
    case SM_H2_BROKEN_TOO_MANY_FIELDS:
    case SM_H2_BROKEN_PSEUDO:
    case SM_H2_BROKEN_METHOD:
    case SM_H2_BROKEN_CONNECT:
    case SM_H2_BROKEN_SCHEME:
    case SM_H2_BROKEN_PATH:
    case SM_H2_BROKEN_AUTHORITY_MISSING:
    case SM_H2_BROKEN_AUTHORITY_INVALID:
    case SM_H2_BROKEN_AUTHORITY_MISMATCH:
    case SM_H2_BROKEN_CONNECTION_FIELD:
    case SM_H2_BROKEN_TE:
    case SM_H2_BROKEN_LENGTH:
    case SM_H2_BROKEN_STATUS:
    case SM_H2_BROKEN_TRAILER:
    case SM_H2_BROKEN_MESSAGE:
    case SM_H2_BROKEN_INTERIM:
    case SM_H2_BROKEN_PREFACE:
    case SM_H2_BROKEN_PROTOCOL:
    case SM_H2_BROKEN_PUSH:
    case SM_H2_BROKEN_COUNT:
        break;
    }
    return NGHTTP2_PROTOCOL_ERROR;
}

/* A negative return of nghttp2_session_mem_recv(). */
static enum sm_h2_broken broken_of_error(const struct h2 *h, enum sm_bridge_side side, int error)
{
    switch (error) {
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        return SM_H2_BROKEN_PREFACE;
    case ERR_TOO_MANY_CONTINUATIONS:
        return SM_H2_BROKEN_CONTINUATION_FLOOD;
    case NGHTTP2_ERR_FLOODED:
        return h->last_frame[side] == NGHTTP2_SETTINGS ? SM_H2_BROKEN_SETTINGS_FLOOD : SM_H2_BROKEN_PING_FLOOD;
    default:
        return SM_H2_BROKEN_INTERNAL;
    }
}

static void tell_broken(struct h2 *h, enum sm_bridge_side by, uint64_t req, enum sm_h2_broken broken)
{
    if (h->base.ops->broken)
        h->base.ops->broken(h->base.ctx, by, req, sm_h2_broken_name(broken));
}

/* From a callback: end the connection of that side as soon as nghttp2 has returned. */
static int doom(struct h2 *h, enum sm_bridge_side side, enum sm_h2_broken broken)
{
    if (h->doom == SM_H2_BROKEN_NONE) {
        h->doom = broken;
        h->doom_side = side;
    }
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int spend(struct h2 *h, enum sm_bridge_side side, enum sm_h2_flood kind)
{
    if (++h->spent[side][kind] > floods[kind].max)
        return doom(h, side, floods[kind].broken);
    return 0;
}

static void earn(struct h2 *h)
{
    for (unsigned kind = 0; kind < FLOODS; kind++) {
        for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
            uint32_t *spent = &h->spent[side][kind];
            *spent -= SM_MIN(*spent, floods[kind].back);
        }
    }
}

/* ---- bodies and windows ---- */

/*
 * Bytes of a body have left us: its sender may send as many more. Held back while the sender does not even read what we
 * have for it already.
 */
static void consume(struct h2 *h, struct stream *s, enum sm_bridge_side from, size_t n)
{
    if (h->dead[from])
        return;
    if (from == SM_BRIDGE_GUEST && s->resent)
        n = 0;
    n += s->unconsumed[from];
    s->unconsumed[from] = 0;
    if (h->out[from].len >= SM_BRIDGE_OUT_MAX) {
        s->unconsumed[from] = n;
        h->unconsumed[from] = true;
    } else if (n > 0) {
        (void)nghttp2_session_consume(h->session[from], s->id[from], n);
    }
}

static void consume_held(struct h2 *h, enum sm_bridge_side from)
{
    h->unconsumed[from] = false;
    for (struct stream *s = h->first; s; s = s->next)
        if (s->unconsumed[from] > 0)
            consume(h, s, from, 0);
}

/* What is left of a body goes nowhere: its stream's window does not matter any more, but the connection's does. */
static void drop_body(struct h2 *h, struct stream *s, enum sm_bridge_side from)
{
    size_t n = s->unconsumed[from] + (from == SM_BRIDGE_GUEST && s->resent ? 0 : s->body[from].len);

    if (from == SM_BRIDGE_ORIGIN && s->scrubber) {
        n += sm_scrub_held(s->scrubber);
        s->scrubbed += sm_scrub_matches(s->scrubber);
        sm_scrub_stream_free(sm_steal_ptr(&s->scrubber));
    }
    if (n > 0 && !h->dead[from] && s->state != STREAM_PAGE)
        (void)nghttp2_session_consume_connection(h->session[from], n);
    s->unconsumed[from] = 0;
    sm_outq_clear(&s->body[from]);
    block_done(h, &s->trailers[from]);
}

/* The receiver keeps up and the window was the limit: a larger one costs no memory as long as that stays so. */
static void grow_window(struct h2 *h, struct stream *s, enum sm_bridge_side from)
{
    uint32_t now = SM_H2_WINDOW_MIN + s->grown[from];
    uint32_t more = SM_MIN(now, SM_H2_WINDOW_POOL - h->pool[from]);

    s->tight[from] = false;
    if (now + more > SM_H2_WINDOW_MAX || more < SM_H2_WINDOW_MIN / 2 || s->ended[from] || h->dead[from])
        return;
    if (nghttp2_session_set_local_window_size(h->session[from], NGHTTP2_FLAG_NONE, s->id[from],
                                              (int32_t)(now + more)) != 0)
        return;
    s->grown[from] += more;
    h->pool[from] += more;
}

static void resume(struct h2 *h, struct stream *s, enum sm_bridge_side to)
{
    if (s->deferred[to]) {
        s->deferred[to] = false;
        (void)nghttp2_session_resume_data(h->session[to], s->id[to]);
    }
}

static int submit_trailers(struct h2 *h, struct stream *s, enum sm_bridge_side to)
{
    enum sm_bridge_side from = other(to);
    nghttp2_nv nv[SM_H2_FIELDS_MAX];

    sm_h2_block_nv(s->trailers[from], nv);
    int rv = nghttp2_submit_trailer(h->session[to], s->id[to], nv, s->trailers[from]->n);
    block_done(h, &s->trailers[from]);
    if (to == SM_BRIDGE_GUEST && rv == 0)
        s->heads_queued++;
    return rv;
}

/* No more of the response's body will come, so what the scrub holds back of it is no match. */
static void release_held(struct h2 *h, struct stream *s)
{
    if (!s->scrubber)
        return;
    sm_scrub_end(s->scrubber, &s->body[SM_BRIDGE_ORIGIN]);
    s->scrubbed += sm_scrub_matches(s->scrubber);
    sm_scrub_stream_free(sm_steal_ptr(&s->scrubber));
    if (s->body[SM_BRIDGE_ORIGIN].len > 0)
        resume(h, s, SM_BRIDGE_GUEST);
}

/* The body, or the message, has come to its end on one side: let the other side know. */
static void end_body(struct h2 *h, struct stream *s, enum sm_bridge_side from)
{
    enum sm_bridge_side to = other(from);

    if (from == SM_BRIDGE_ORIGIN)
        release_held(h, s);
    /* With nothing left to send in front of them trailers need no empty DATA frame. */
    if (s->deferred[to] && s->trailers[from] && s->body[from].len == 0) {
        s->deferred[to] = false;
        (void)submit_trailers(h, s, to);
        return;
    }
    resume(h, s, to);
}

/* How much of the body goes into the next DATA frame of the session. The bytes are taken in send_data(). */
static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                         nghttp2_data_source *source, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side to = side_of(h, session), from = other(to);
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (!s)
        return NGHTTP2_ERR_DEFERRED; /* its reset is on the way */
    size_t n = SM_MIN(len, s->body[from].len);
    bool last = s->ended[from] && n == s->body[from].len;
    if (n == 0 && !last) {
        s->deferred[to] = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (last) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers[from]) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (submit_trailers(h, s, to) != 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

/* ---- replay ---- */

static void count_block(struct h2 *h, const struct sm_h2_block *block, bool more)
{
    if (h->base.config.account)
        *h->base.config.account += more ? block->cap : -block->cap;
}

/* Its text may repeat the secret. */
static void response_done(struct h2 *h, struct sm_h2_block **block)
{
    if (!*block)
        return;
    count_block(h, *block, false);
    sm_wipe((*block)->text, (*block)->len);
    block_done(h, block);
}

static void replay_drop(struct h2 *h, struct stream *s)
{
    struct replay *r = sm_steal_ptr(&s->replay);

    if (!r)
        return;
    if (r->head) {
        count_block(h, r->head, false);
        block_done(h, &r->head);
    }
    response_done(h, &r->response);
    sm_outq_clear(&r->body);
    g_free(r);
}

static void keep_body(struct h2 *h, struct stream *s, const uint8_t *data, size_t len)
{
    if (s->replay && s->replay->body.len + len <= SM_BRIDGE_REPLAY_BODY_MAX)
        sm_outq_put(&s->replay->body, data, len);
    else
        replay_drop(h, s);
}

/* Its 401 is put aside, as far as it came. */
static bool is_held(const struct stream *s)
{
    return s->replay && s->replay->response;
}

/* A 401 has come, whose head is the origin's block: is it held back? */
static bool hold(struct h2 *h, struct stream *s)
{
    struct sm_h2_block *block = h->block[SM_BRIDGE_ORIGIN];

    /* The request is with the origin whole only when its END_STREAM is. */
    if (!s->replay || h->no_more || block->list_size > SM_BRIDGE_REPLAY_RESPONSE_MAX ||
        nghttp2_session_get_stream_local_close(h->session[SM_BRIDGE_ORIGIN], s->id[SM_BRIDGE_ORIGIN]) != 1)
        return false;
    s->replay->response = sm_steal_ptr(&h->block[SM_BRIDGE_ORIGIN]);
    count_block(h, s->replay->response, true);
    return true;
}

/* More of its body than is held? */
static bool hold_body(struct stream *s, const uint8_t *data, size_t len)
{
    struct sm_outq *body = &s->body[SM_BRIDGE_ORIGIN];

    if (s->replay->response->list_size + body->len + len > SM_BRIDGE_REPLAY_RESPONSE_MAX)
        return false;
    sm_outq_put_secret(body, data, len);
    return true;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd, size_t len,
                     nghttp2_data_source *source, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side to = side_of(h, session), from = other(to);
    struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    if (!s || s->body[from].len < len)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    sm_outq_put(&h->out[to], framehd, 9);
    for (size_t left = len; left > 0;) {
        const uint8_t *p;
        size_t part = SM_MIN(sm_outq_peek(&s->body[from], &p), left);
        sm_outq_put(&h->out[to], p, part);
        if (to == SM_BRIDGE_ORIGIN)
            keep_body(h, s, p, part);
        sm_outq_took(&s->body[from], part);
        left -= part;
    }
    s->bytes[from] += len;
    if (len > 0) {
        earn(h);
        if (s->state != STREAM_PAGE) {
            if (s->tight[from] && s->body[from].len == 0)
                grow_window(h, s, from);
            consume(h, s, from, len);
        }
    }
    return h->out[to].len >= SM_BRIDGE_OUT_MAX ? NGHTTP2_ERR_PAUSE : 0;
}

static void release(struct h2 *h, struct stream *s);

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                         void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side from = side_of(h, session);
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);

    earn(h);
    if (!s || s->state == STREAM_PAGE || s->broken ||
        (from == SM_BRIDGE_GUEST && s->state == STREAM_OPEN && s->closed[SM_BRIDGE_ORIGIN])) {
        /* Nobody wants it: what counts is that the connection goes on. */
        (void)nghttp2_session_consume(session, id, len);
        return 0;
    }
    if (from == SM_BRIDGE_ORIGIN && is_held(s)) {
        if (hold_body(s, data, len))
            return 0;
        release(h, s);
    }
    if (from == SM_BRIDGE_ORIGIN && s->scrubber)
        sm_scrub_data(s->scrubber, data, len, &s->body[from]);
    else
        sm_outq_put(&s->body[from], data, len);
    if (!s->tight[from] && nghttp2_session_get_stream_effective_recv_data_length(session, id) >=
                               nghttp2_session_get_stream_effective_local_window_size(session, id) / 4 * 3)
        s->tight[from] = true;
    resume(h, s, other(from));
    return 0;
}

/* ---- streams ---- */

static void count_waiting(struct h2 *h, gssize change)
{
    h->waiting_bytes += (size_t)change;
    if (h->base.config.account)
        *h->base.config.account += (size_t)change;
}

static struct stream *stream_new(struct h2 *h, int32_t id)
{
    struct stream *s = g_new0(struct stream, 1);
    s->body[SM_BRIDGE_GUEST].account = s->body[SM_BRIDGE_ORIGIN].account = h->base.config.account;

    s->h = h;
    s->id[SM_BRIDGE_GUEST] = id;
    s->req = ++h->reqs;
    s->closed[SM_BRIDGE_ORIGIN] = true;
    s->prev = h->last;
    if (h->last)
        h->last->next = s;
    else
        h->first = s;
    h->last = s;
    h->streams++;
    return s;
}

static void head_done(struct h2 *h, struct stream *s)
{
    if (s->head && s != h->asking) {
        count_waiting(h, -(gssize)s->head->cap);
        block_done(h, &s->head);
    }
}

/* The new value has gone to nghttp2, or never will. */
static void value_done(struct h2 *h, struct stream *s)
{
    if (!s->edit || !s->edit->value)
        return;
    count_waiting(h, -(gssize)s->edit->value_len);
    sm_http_edit_spent(s->edit);
}

static void stream_free(struct h2 *h, struct stream *s)
{
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        if (!s->closed[side] && !h->dead[side])
            (void)nghttp2_session_set_stream_user_data(h->session[side], s->id[side], NULL);
        drop_body(h, s, side);
        h->pool[side] -= s->grown[side];
    }
    if (s->state == STREAM_WAITING)
        h->waiting--;
    head_done(h, s);
    value_done(h, s);
    replay_drop(h, s);
    sm_http_edit_free(s->edit);
    sm_scrub_unref(s->scrub);
    if (s->prev)
        s->prev->next = s->next;
    else
        h->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        h->last = s->prev;
    h->streams--;
    if (s->judged && h->base.ops->response) {
        struct sm_bridge_response r = {
            .req = s->req,
            .status = s->answer_sent ? s->status : 0,
            .bytes_up = s->bytes[SM_BRIDGE_GUEST],
            .bytes_down = s->bytes[SM_BRIDGE_ORIGIN],
            .outcome = s->broken          ? SM_BRIDGE_BROKEN
                       : !s->answer_ended ? SM_BRIDGE_RESET
                       : s->refused       ? SM_BRIDGE_REFUSED
                                          : SM_BRIDGE_DONE,
            .scrubbed = s->scrubbed,
            .unscrubbed = s->unscrubbed,
        };
        h->base.ops->response(h->base.ctx, &r);
    }
    g_free(s);
}

static void reset(struct h2 *h, struct stream *s, enum sm_bridge_side to, uint32_t code)
{
    if (s->closed[to] || s->reset_ours[to] || h->dead[to])
        return;
    s->reset_ours[to] = true;
    (void)nghttp2_submit_rst_stream(h->session[to], NGHTTP2_FLAG_NONE, s->id[to], code);
}

/* nghttp2 sends a RST_STREAM before what is queued for the stream, so it is submitted only when nothing is. */
static void reset_guest_if_due(struct h2 *h, struct stream *s)
{
    if (!s->reset_due || s->closed[SM_BRIDGE_GUEST] || s->heads_queued > 0 || s->body[SM_BRIDGE_ORIGIN].len > 0 ||
        (s->answered && s->ended[SM_BRIDGE_ORIGIN] && !s->answer_ended))
        return;
    if (!(s->answer_ended && s->ended[SM_BRIDGE_GUEST]))
        reset(h, s, SM_BRIDGE_GUEST, s->reset_code);
}

static void reset_guest_after(struct h2 *h, struct stream *s, uint32_t code)
{
    if (s->reset_due)
        return;
    s->reset_due = true;
    s->reset_code = code;
    reset_guest_if_due(h, s);
}

/* The guest's request ends here: an answer of our own. */
static void send_page(struct h2 *h, struct stream *s, uint16_t status, const char *body, size_t len)
{
    char status_text[8], len_text[24];
    nghttp2_data_provider provider = {.read_callback = read_body};
    nghttp2_nv nv[] = {
        {(uint8_t *)":status", (uint8_t *)status_text, 7, 3, NGHTTP2_NV_FLAG_NONE},
        {(uint8_t *)"content-type", (uint8_t *)"application/json", 12, 16, NGHTTP2_NV_FLAG_NONE},
        {(uint8_t *)"content-length", (uint8_t *)len_text, 14, 0, NGHTTP2_NV_FLAG_NONE},
    };

    drop_body(h, s, SM_BRIDGE_GUEST);
    drop_body(h, s, SM_BRIDGE_ORIGIN);
    replay_drop(h, s);
    if (s->state == STREAM_WAITING)
        h->waiting--;
    s->state = STREAM_PAGE;
    s->status = status >= 200 && status <= 999 ? status : 403;
    g_snprintf(status_text, sizeof(status_text), "%u", (unsigned)s->status);
    nv[2].valuelen = (size_t)g_snprintf(len_text, sizeof(len_text), "%zu", len);
    bool with_body = len > 0 && !s->method_head;
    if (with_body)
        sm_outq_put(&s->body[SM_BRIDGE_ORIGIN], body, len);
    s->ended[SM_BRIDGE_ORIGIN] = true;
    s->answered = true;
    /* A page without a body has nothing that is JSON. */
    size_t n = len > 0 ? SM_ARRAY_LEN(nv) : 1;
    if (nghttp2_submit_response(h->session[SM_BRIDGE_GUEST], s->id[SM_BRIDGE_GUEST], nv, n,
                                with_body ? &provider : NULL) == 0)
        s->heads_queued++;
    else
        sm_outq_clear(&s->body[SM_BRIDGE_ORIGIN]);
    head_done(h, s);
    reset_guest_after(h, s, NGHTTP2_NO_ERROR);
}

static void send_own_page(struct h2 *h, struct stream *s, uint16_t status, const char *reason)
{
    char page[PAGE_MAX];
    size_t len = 0;

    if (h->base.ops->page)
        len = SM_MIN(h->base.ops->page(h->base.ctx, status, reason, page, sizeof(page)), sizeof(page));
    send_page(h, s, status, page, len);
}

/* The guest broke a rule on this stream, before anything of it went on. */
static int refuse_broken(struct h2 *h, struct stream *s, enum sm_h2_broken broken)
{
    bool large = broken == SM_H2_BROKEN_TOO_LARGE || broken == SM_H2_BROKEN_TOO_MANY_FIELDS;

    s->broken = true;
    tell_broken(h, SM_BRIDGE_GUEST, s->req, broken);
    send_own_page(h, s, large ? 431 : 400, sm_h2_broken_name(broken));
    return spend(h, SM_BRIDGE_GUEST, FLOOD_RESET);
}

/* The guest broke a rule in a stream that the origin may know already. */
static int break_guest(struct h2 *h, struct stream *s, enum sm_h2_broken broken)
{
    s->broken = true;
    tell_broken(h, SM_BRIDGE_GUEST, s->req, broken);
    reset(h, s, SM_BRIDGE_ORIGIN, NGHTTP2_CANCEL);
    reset(h, s, SM_BRIDGE_GUEST, NGHTTP2_PROTOCOL_ERROR);
    return spend(h, SM_BRIDGE_GUEST, FLOOD_RESET);
}

/* What the guest gets for an origin that broke a rule. */
static void answer_broken(struct h2 *h, struct stream *s, enum sm_h2_broken broken)
{
    s->broken = true;
    release_held(h, s);
    if (!s->answered && !s->closed[SM_BRIDGE_GUEST])
        send_own_page(h, s, 502, sm_h2_broken_name(broken));
    else
        reset_guest_after(h, s, NGHTTP2_INTERNAL_ERROR);
}

static void break_origin(struct h2 *h, struct stream *s, enum sm_h2_broken broken)
{
    tell_broken(h, SM_BRIDGE_ORIGIN, s->req, broken);
    reset(h, s, SM_BRIDGE_ORIGIN, NGHTTP2_PROTOCOL_ERROR);
    answer_broken(h, s, broken);
}

static bool origin_has_place(const struct h2 *h)
{
    uint32_t theirs =
        nghttp2_session_get_remote_settings(h->session[SM_BRIDGE_ORIGIN], NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

    return h->streams_origin < SM_MIN(theirs, SM_H2_STREAMS_MAX);
}

/* From here on the held response is none any more, and the request is sent as if for the first time. */
static void send_again(struct h2 *h, struct stream *s)
{
    drop_body(h, s, SM_BRIDGE_ORIGIN);
    s->ended[SM_BRIDGE_ORIGIN] = false;
    sm_outq_move(&s->body[SM_BRIDGE_GUEST], &s->replay->body);
    s->bytes[SM_BRIDGE_GUEST] = 0;
    s->resent = true;
    replay_drop(h, s);
}

/* A judged request goes to the origin. */
static void submit_request(struct h2 *h, struct stream *s)
{
    nghttp2_nv nv[SM_H2_FIELDS_MAX + SM_HTTP_EDIT_FIELDS];
    nghttp2_data_provider provider = {.read_callback = read_body};
    size_t n = s->head->n;

    if (is_held(s))
        send_again(h, s);
    sm_h2_block_nv(s->head, nv);
    if (s->edit)
        n = sm_http_edit_nv(s->edit, nv, n);
    s->state = STREAM_OPEN;
    int32_t id = nghttp2_submit_request(h->session[SM_BRIDGE_ORIGIN], NULL, nv, n, s->head_only ? NULL : &provider, s);
    if (s->replay) {
        count_waiting(h, -(gssize)s->head->cap);
        count_block(h, s->head, true);
        s->replay->head = sm_steal_ptr(&s->head);
    }
    head_done(h, s);
    value_done(h, s);
    if (id < 0) {
        drop_body(h, s, SM_BRIDGE_GUEST);
        reset_guest_after(h, s, NGHTTP2_REFUSED_STREAM);
        return;
    }
    s->id[SM_BRIDGE_ORIGIN] = id;
    s->closed[SM_BRIDGE_ORIGIN] = false;
    h->streams_origin++;
}

static void submit_waiting(struct h2 *h)
{
    for (struct stream *s = h->first, *next; s && h->waiting > 0; s = next) {
        next = s->next;
        if (s->state != STREAM_WAITING)
            continue;
        if (h->dead[SM_BRIDGE_ORIGIN] || h->no_more) {
            h->waiting--;
            s->state = STREAM_OPEN;
            if (is_held(s))
                release(h, s);
            else
                reset_guest_after(h, s, NGHTTP2_REFUSED_STREAM);
        } else if (origin_has_place(h)) {
            h->waiting--;
            submit_request(h, s);
        } else {
            return;
        }
    }
}

static void pass(struct h2 *h, struct stream *s)
{
    /* A reset that came between the question and the answer has freed the stream, so the guest still wants it. */
    s->state = STREAM_WAITING;
    h->waiting++;
    submit_waiting(h);
}

/* ---- callbacks of both sessions ---- */

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);

    h->last_frame[side] = hd->type;
    h->hint[side] = SM_H2_BROKEN_NONE;
    if (hd->type != NGHTTP2_CONTINUATION)
        h->continuations[side] = 0;
    switch (hd->type) {
    case NGHTTP2_DATA:
        return hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM) ? spend(h, side, FLOOD_EMPTY) : 0;
    case NGHTTP2_CONTINUATION:
        return ++h->continuations[side] > CONTINUATIONS_MAX ? doom(h, side, SM_H2_BROKEN_CONTINUATION_FLOOD) : 0;
    case NGHTTP2_PING:
        return spend(h, side, FLOOD_PING);
    case NGHTTP2_SETTINGS:
        return spend(h, side, FLOOD_SETTINGS);
    case NGHTTP2_WINDOW_UPDATE:
        return spend(h, side, FLOOD_WINDOW);
    case NGHTTP2_PRIORITY:
        return spend(h, side, FLOOD_PRIORITY);
    case NGHTTP2_PUSH_PROMISE:
        return doom(h, side, SM_H2_BROKEN_PUSH);
    default:
        return 0;
    }
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);

    block_done(h, &h->block[side]);
    if (side == SM_BRIDGE_GUEST && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (h->no_more || h->streams >= SM_H2_STREAMS_HELD_MAX || h->waiting_bytes >= SM_H2_WAITING_MAX) {
            (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
            return h->no_more ? 0 : spend(h, side, FLOOD_RESET);
        }
        (void)nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream_new(h, frame->hd.stream_id));
    }
    h->block[side] = block_new(h);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);

    if (!h->block[side])
        return 0;
    if (!sm_h2_block_add(h->block[side], name, name_len, value, value_len, flags & NGHTTP2_NV_FLAG_NO_INDEX))
        return doom(h, side, SM_H2_BROKEN_HEADER_FLOOD);
    return 0;
}

/* nghttp2 would go on without the field: that is repair. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                             const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    struct h2 *h = user_data;
    struct sm_h2_block *block = h->block[side_of(h, session)];

    if (block && block->fault == SM_H2_BROKEN_NONE)
        block->fault = SM_H2_BROKEN_HEADER_INVALID;
    return on_header(session, frame, name, name_len, value, value_len, flags, user_data);
}

static int on_request(struct h2 *h, struct stream *s, bool ended)
{
    struct sm_bridge_request request;

    s->head = sm_steal_ptr(&h->block[SM_BRIDGE_GUEST]);
    count_waiting(h, (gssize)s->head->cap);
    s->head_only = s->ended[SM_BRIDGE_GUEST] = ended;
    struct sm_text method = sm_h2_block_get(s->head, ":method");
    s->method_head = method.len == 4 && memcmp(method.ptr, "HEAD", 4) == 0;
    enum sm_h2_broken broken = sm_h2_head_request(s->head, h->base.config.tls, &request);
    if (broken != SM_H2_BROKEN_NONE)
        return refuse_broken(h, s, broken);
    request.req = s->req;
    s->state = STREAM_ASKED;
    s->judged = true;
    h->asking = s;
    h->base.ops->request(h->base.ctx, &h->base, &request);
    h->asking = NULL;
    if (s->state != STREAM_ASKED && s->state != STREAM_WAITING)
        head_done(h, s);
    return 0;
}

/* A header that was replaced must not come again behind the body. */
static bool has_replaced(const struct stream *s, const struct sm_h2_block *trailers)
{
    return s->edit && s->edit->name && trailers && sm_h2_block_get(trailers, s->edit->name).ptr;
}

static int on_trailers(struct h2 *h, struct stream *s, enum sm_bridge_side from)
{
    enum sm_h2_broken broken = sm_h2_head_trailers(h->block[from], from);

    if (broken == SM_H2_BROKEN_NONE && from == SM_BRIDGE_GUEST && has_replaced(s, h->block[from]))
        broken = SM_H2_BROKEN_TRAILER;
    if (broken != SM_H2_BROKEN_NONE) {
        if (from == SM_BRIDGE_GUEST)
            return break_guest(h, s, broken);
        break_origin(h, s, broken);
        return 0;
    }
    if (from == SM_BRIDGE_ORIGIN && s->scrub && !is_held(s))
        s->scrubbed += sm_h2_block_scrub(h->block[from], s->scrub);
    if (from == SM_BRIDGE_GUEST)
        replay_drop(h, s);
    if (h->block[from]->n > 0)
        s->trailers[from] = sm_steal_ptr(&h->block[from]);
    s->ended[from] = true;
    end_body(h, s, from);
    return 0;
}

/* What is changed of a response's head. */
static void edit_response(const struct h2 *h, struct stream *s, struct sm_h2_block *block)
{
    if (h->base.config.strip_alt_svc)
        sm_h2_block_strip_alt_svc(block);
    if (s->scrub)
        s->scrubbed += sm_h2_block_scrub(block, s->scrub);
}

/* The final response's head goes to the guest. */
static void submit_response(struct h2 *h, struct stream *s, struct sm_h2_block *block, uint16_t status, bool ended)
{
    nghttp2_nv nv[SM_H2_FIELDS_MAX];
    nghttp2_data_provider provider = {.read_callback = read_body};

    edit_response(h, s, block);
    sm_h2_block_nv(block, nv);
    s->status = status;
    s->answered = true;
    if (s->scrub && !ended && !s->method_head) {
        s->unscrubbed = sm_h2_block_coded(block);
        if (!s->unscrubbed)
            s->scrubber = sm_scrub_stream_new(s->scrub, h->base.config.account);
    }
    if (nghttp2_submit_response(h->session[SM_BRIDGE_GUEST], s->id[SM_BRIDGE_GUEST], nv, block->n,
                                ended ? NULL : &provider) == 0)
        s->heads_queued++;
}

/* No replay: the held 401 goes to the guest, as far as it came. */
static void release(struct h2 *h, struct stream *s)
{
    struct sm_h2_block *block = sm_steal_ptr(&s->replay->response);
    struct sm_h2_block *trailers = s->trailers[SM_BRIDGE_ORIGIN];
    struct sm_outq *body = &s->body[SM_BRIDGE_ORIGIN], raw = *body;

    *body = (struct sm_outq){.account = raw.account};
    head_done(h, s);
    value_done(h, s);
    replay_drop(h, s);
    s->state = STREAM_OPEN;
    submit_response(h, s, block, 401, s->ended[SM_BRIDGE_ORIGIN] && raw.len == 0 && !trailers);
    response_done(h, &block);
    if (trailers && s->scrub)
        s->scrubbed += sm_h2_block_scrub(trailers, s->scrub);
    for (const uint8_t *p; s->scrubber && raw.len > 0;) {
        size_t n = sm_outq_peek(&raw, &p);
        sm_scrub_data(s->scrubber, p, n, body);
        sm_outq_took(&raw, n);
    }
    sm_outq_move(body, &raw);
    if (s->ended[SM_BRIDGE_ORIGIN])
        release_held(h, s);
}

/* The 401 is whole and its stream at the origin closed. True: an answer will come, or has. */
static bool ask_again(struct h2 *h, struct stream *s)
{
    struct sm_bridge_request request;

    if (h->no_more || h->dead[SM_BRIDGE_ORIGIN] ||
        sm_h2_head_request(s->replay->head, h->base.config.tls, &request) != SM_H2_BROKEN_NONE)
        return false;
    request.req = s->req;
    s->head = sm_steal_ptr(&s->replay->head);
    count_block(h, s->head, false);
    count_waiting(h, (gssize)s->head->cap);
    s->state = STREAM_ASKED;
    h->asking = s;
    bool again = h->base.ops->rejected(h->base.ctx, &h->base, &request);
    h->asking = NULL;
    if (again && s->state != STREAM_ASKED && s->state != STREAM_WAITING)
        head_done(h, s);
    return again;
}

static void on_response(struct h2 *h, struct stream *s, bool ended)
{
    struct sm_h2_block *block = h->block[SM_BRIDGE_ORIGIN];
    nghttp2_session *guest = h->session[SM_BRIDGE_GUEST];
    nghttp2_nv nv[SM_H2_FIELDS_MAX];
    uint16_t status = 0;

    enum sm_h2_broken broken = sm_h2_head_response(block, &status);
    if (broken == SM_H2_BROKEN_NONE && status < 200 && (ended || ++s->interim > SM_H2_INTERIM_MAX))
        broken = ended ? SM_H2_BROKEN_MESSAGE : SM_H2_BROKEN_INTERIM;
    if (broken != SM_H2_BROKEN_NONE) {
        break_origin(h, s, broken);
        return;
    }
    if (s->closed[SM_BRIDGE_GUEST])
        return;
    if (status < 200) {
        edit_response(h, s, block);
        sm_h2_block_nv(block, nv);
        if (nghttp2_submit_headers(guest, NGHTTP2_FLAG_NONE, s->id[SM_BRIDGE_GUEST], NULL, nv, block->n, NULL) == 0)
            s->heads_queued++;
        return;
    }
    s->ended[SM_BRIDGE_ORIGIN] = ended;
    if (status == 401 && hold(h, s))
        return;
    replay_drop(h, s);
    submit_response(h, s, block, status, ended);
}

/*
 * The origin takes its leave, and so do we. The streams that it will not process have been or will be reset one by one.
 */
static void submit_goaway(struct h2 *h, uint32_t code, const uint8_t *debug, size_t debug_len)
{
    nghttp2_session *guest = h->session[SM_BRIDGE_GUEST];

    h->goaway[SM_BRIDGE_ORIGIN] = true;
    if (nghttp2_submit_goaway(guest, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(guest), code, debug,
                              SM_MIN(debug_len, (size_t)SM_H2_DEBUG_MAX)) == 0)
        h->goaways_ours[SM_BRIDGE_GUEST]++;
}

static void on_goaway_of_origin(struct h2 *h, const nghttp2_goaway *g)
{
    nghttp2_session *guest = h->session[SM_BRIDGE_GUEST];

    h->no_more = true;
    if (h->dead[SM_BRIDGE_GUEST])
        return;
    if (g->last_stream_id == INT32_MAX && g->error_code == NGHTTP2_NO_ERROR) {
        if (nghttp2_submit_shutdown_notice(guest) == 0)
            h->goaways_ours[SM_BRIDGE_GUEST]++;
    } else {
        submit_goaway(h, g->error_code, g->opaque_data, g->opaque_data_len);
    }
    submit_waiting(h);
}

static int on_headers(struct h2 *h, enum sm_bridge_side side, const nghttp2_frame *frame)
{
    struct stream *s = nghttp2_session_get_stream_user_data(h->session[side], frame->hd.stream_id);
    bool ended = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    int rv = 0;

    if (!s || !h->block[side])
        return 0;
    if (side == SM_BRIDGE_GUEST && s->state == STREAM_HEAD)
        rv = on_request(h, s, ended);
    else if (s->broken || s->state == STREAM_PAGE)
        s->ended[SM_BRIDGE_GUEST] |= ended && side == SM_BRIDGE_GUEST;
    else if (side == SM_BRIDGE_ORIGIN && !s->answered && !is_held(s))
        on_response(h, s, ended);
    else
        rv = on_trailers(h, s, side);
    block_done(h, &h->block[side]);
    return rv;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);
    struct stream *s = frame->hd.stream_id ? nghttp2_session_get_stream_user_data(session, frame->hd.stream_id) : NULL;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return on_headers(h, side, frame);
    case NGHTTP2_DATA:
        if (s && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            bool cut_off = s->broken || s->state == STREAM_PAGE;
            if (!cut_off || side == SM_BRIDGE_GUEST)
                s->ended[side] = true;
            if (!cut_off)
                end_body(h, s, side);
        } else if (frame->hd.length > 0 && frame->hd.length == frame->data.padlen) {
            return spend(h, side, FLOOD_EMPTY);
        }
        return 0;
    case NGHTTP2_RST_STREAM:
        if (s && side == SM_BRIDGE_GUEST)
            s->guest_reset = true;
        return 0;
    case NGHTTP2_SETTINGS:
        if (side == SM_BRIDGE_ORIGIN)
            submit_waiting(h);
        return 0;
    case NGHTTP2_GOAWAY:
        if (side == SM_BRIDGE_ORIGIN) {
            on_goaway_of_origin(h, &frame->goaway);
        } else {
            h->goaway[SM_BRIDGE_GUEST] = true;
            h->guest_goaway_code = frame->goaway.error_code;
        }
        return 0;
    default:
        return 0;
    }
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);

    if (error == NGHTTP2_ERR_HTTP_HEADER)
        h->hint[side] = SM_H2_BROKEN_HEADER_INVALID;
    else if (error == NGHTTP2_ERR_HTTP_MESSAGING)
        h->hint[side] = SM_H2_BROKEN_MESSAGE;
    else if (error == NGHTTP2_ERR_REFUSED_STREAM)
        return spend(h, side, FLOOD_RESET); /* more streams at once than we offer */
    /*
     * nghttp2 resets the stream with PROTOCOL_ERROR or ends the connection; on_frame_send() sees which. The word would
     * be gone by then.
     */
    struct stream *s = frame->hd.stream_id ? nghttp2_session_get_stream_user_data(session, frame->hd.stream_id) : NULL;
    if (s && h->hint[side] != SM_H2_BROKEN_NONE && !s->broken) {
        s->broken = true;
        tell_broken(h, side, s->req, h->hint[side]);
        if (side == SM_BRIDGE_GUEST)
            return spend(h, side, FLOOD_RESET);
        answer_broken(h, s, h->hint[side]);
    }
    return 0;
}

/* A RST_STREAM that is not ours is nghttp2's verdict over what that side sent. */
static void on_reset_sent(struct h2 *h, enum sm_bridge_side side, struct stream *s, uint32_t code)
{
    if (s->reset_ours[side] || s->broken || code == NGHTTP2_REFUSED_STREAM)
        return;
    /* A body of another length than announced is told in no other way. */
    enum sm_h2_broken broken = code == NGHTTP2_PROTOCOL_ERROR ? SM_H2_BROKEN_LENGTH : broken_of_code(code);
    s->broken = true;
    tell_broken(h, side, s->req, broken);
    if (side == SM_BRIDGE_ORIGIN)
        answer_broken(h, s, broken);
    else if (spend(h, side, FLOOD_RESET) != 0)
        return; /* settle() sees the doom */
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2 *h = user_data;
    enum sm_bridge_side side = side_of(h, session);
    struct stream *s = frame->hd.stream_id ? nghttp2_session_get_stream_user_data(session, frame->hd.stream_id) : NULL;

    if (frame->hd.type == NGHTTP2_GOAWAY) {
        if (h->goaways_ours[side] > 0) {
            h->goaways_ours[side]--;
            return 0;
        }
        /* nghttp2's verdict over what that side sent. It resets too fast by its clock: INTERNAL_ERROR. */
        uint32_t code = frame->goaway.error_code;
        h->goaway_told[side] = true;
        (void)doom(h, side,
                   code == NGHTTP2_INTERNAL_ERROR && h->last_frame[side] == NGHTTP2_RST_STREAM
                       ? SM_H2_BROKEN_RESET_FLOOD
                       : broken_of_code(code));
        return 0;
    }
    if (!s)
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        on_reset_sent(h, side, s, frame->rst_stream.error_code);
        return 0;
    }
    if (side != SM_BRIDGE_GUEST || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && s->heads_queued > 0 && --s->heads_queued == 0 && s->answered)
        s->answer_sent = true;
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        s->answer_sent = s->answer_ended = true;
        if (h->spent[SM_BRIDGE_GUEST][FLOOD_RESET] > 0 && !s->broken)
            h->spent[SM_BRIDGE_GUEST][FLOOD_RESET]--;
    }
    reset_guest_if_due(h, s);
    return 0;
}

static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data)
{
    struct h2 *h = user_data;

    if (side_of(h, session) == SM_BRIDGE_GUEST && frame->hd.type == NGHTTP2_HEADERS) {
        struct stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        /* Whatever kept it back: a guest must not wait for what will not come. */
        if (s) {
            s->heads_queued = 0;
            sm_outq_clear(&s->body[SM_BRIDGE_ORIGIN]);
            s->ended[SM_BRIDGE_ORIGIN] = false;
            reset(h, s, SM_BRIDGE_GUEST, NGHTTP2_INTERNAL_ERROR);
        }
    }
    return 0;
}

/*
 * The guest's side is over. Either all was said, and only a rest of the request may still be owed to the origin; or
 * nobody wants the rest.
 */
static int guest_closed(struct h2 *h, struct stream *s, uint32_t code)
{
    bool whole = s->answer_ended && s->ended[SM_BRIDGE_GUEST] && code == NGHTTP2_NO_ERROR;
    int rv = 0;

    s->closed[SM_BRIDGE_GUEST] = true;
    if (!whole) {
        if (!s->answer_sent && s->guest_reset)
            rv = spend(h, SM_BRIDGE_GUEST, FLOOD_RESET);
        reset(h, s, SM_BRIDGE_ORIGIN, s->guest_reset ? code : NGHTTP2_CANCEL);
        stream_free(h, s);
    } else if (s->closed[SM_BRIDGE_ORIGIN]) {
        stream_free(h, s);
    }
    return rv;
}

static void origin_closed(struct h2 *h, struct stream *s, uint32_t code)
{
    bool in_order = s->ended[SM_BRIDGE_ORIGIN] && code == NGHTTP2_NO_ERROR && s->ended[SM_BRIDGE_GUEST];

    s->closed[SM_BRIDGE_ORIGIN] = true;
    if (s->closed[SM_BRIDGE_GUEST]) {
        stream_free(h, s);
        return;
    }
    if (is_held(s)) {
        if (in_order && ask_again(h, s))
            return;
        release(h, s);
    }
    bool whole = in_order && s->answered;
    release_held(h, s);
    if (s->state != STREAM_PAGE)
        drop_body(h, s, SM_BRIDGE_GUEST);
    if (!whole && s->state != STREAM_PAGE)
        reset_guest_after(h, s, s->broken ? NGHTTP2_INTERNAL_ERROR : code);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user_data)
{
    struct h2 *h = user_data;
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (side_of(h, session) == SM_BRIDGE_GUEST)
        return s ? guest_closed(h, s, code) : 0;
    h->streams_origin--;
    if (s)
        origin_closed(h, s, code);
    submit_waiting(h);
    return 0;
}

/* ---- output, and the end ---- */

/* Headers and their continuations are one: nothing of ours may come between. */
static bool block_open(const uint8_t *frame, size_t len)
{
    return len >= 9 && (frame[3] == NGHTTP2_HEADERS || frame[3] == NGHTTP2_CONTINUATION) &&
           !(frame[4] & NGHTTP2_FLAG_END_HEADERS);
}

static bool pump(struct h2 *h, enum sm_bridge_side to, size_t limit)
{
    bool more = false, open = false;

    while (!h->dead[to] && h->doom == SM_H2_BROKEN_NONE && (open || h->out[to].len < limit)) {
        size_t before = h->out[to].len;
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(h->session[to], &p);
        more |= h->out[to].len != before;
        if (n < 0 && h->doom == SM_H2_BROKEN_NONE)
            (void)doom(h, to, SM_H2_BROKEN_INTERNAL);
        if (n <= 0)
            break;
        open = block_open(p, (size_t)n);
        if (h->mem.wipe && to == SM_BRIDGE_ORIGIN)
            sm_outq_put_secret(&h->out[to], p, (size_t)n);
        else
            sm_outq_put(&h->out[to], p, (size_t)n);
        more = true;
    }
    return more;
}

static void pump_both(struct h2 *h)
{
    bool more = true;

    while (more && h->doom == SM_H2_BROKEN_NONE) {
        more = pump(h, SM_BRIDGE_GUEST, SM_BRIDGE_OUT_MAX);
        more |= pump(h, SM_BRIDGE_ORIGIN, SM_BRIDGE_OUT_MAX);
    }
}

static void free_streams(struct h2 *h)
{
    while (h->first)
        stream_free(h, h->first);
}

static void end(struct h2 *h, enum sm_bridge_end how)
{
    if (h->end != SM_BRIDGE_LIVE)
        return;
    h->end = how;
    h->dead[SM_BRIDGE_GUEST] = h->dead[SM_BRIDGE_ORIGIN] = true;
    free_streams(h);
}

/* A last GOAWAY by our own hand: nghttp2 makes none after an error of its own, or not this one. */
static void put_goaway(struct h2 *h, enum sm_bridge_side to, uint32_t code)
{
    uint32_t last = (uint32_t)nghttp2_session_get_last_proc_stream_id(h->session[to]);
    uint8_t frame[17] = {0, 0, 8, NGHTTP2_GOAWAY};

    for (unsigned i = 0; i < 4; i++) {
        frame[9 + i] = (uint8_t)(last >> (24 - 8 * i));
        frame[13 + i] = (uint8_t)(code >> (24 - 8 * i));
    }
    sm_outq_put(&h->out[to], frame, sizeof(frame));
}

/* Take leave of an origin whose guest has gone: reset what is open, so that it stops working for nobody. */
static void leave_origin(struct h2 *h, uint32_t code)
{
    if (h->dead[SM_BRIDGE_ORIGIN])
        return;
    h->no_more = true;
    for (struct stream *s = h->first; s; s = s->next)
        reset(h, s, SM_BRIDGE_ORIGIN, NGHTTP2_CANCEL);
    while (h->doom == SM_H2_BROKEN_NONE && pump(h, SM_BRIDGE_ORIGIN, SIZE_MAX))
        ;
    put_goaway(h, SM_BRIDGE_ORIGIN, code);
    h->dead[SM_BRIDGE_ORIGIN] = true;
}

/* The origin's connection is over while the guest's lives on, to bring what has come to its end. */
static void origin_gone(struct h2 *h, enum sm_h2_broken broken)
{
    unsigned draining = 0, orphans = 0;

    h->dead[SM_BRIDGE_ORIGIN] = true;
    h->no_more = true;
    h->streams_origin = 0;
    submit_waiting(h);
    for (struct stream *s = h->first; s; s = s->next) {
        bool gone = !s->closed[SM_BRIDGE_ORIGIN];
        if (is_held(s))
            release(h, s);
        release_held(h, s);
        s->closed[SM_BRIDGE_ORIGIN] = true;
        if (s->state == STREAM_ASKED)
            continue; /* refused when it is answered, so that it is answered */
        if (gone && s->answered && s->ended[SM_BRIDGE_ORIGIN])
            reset_guest_after(h, s, NGHTTP2_NO_ERROR);
        if (gone && !s->ended[SM_BRIDGE_ORIGIN])
            orphans++;
        else
            draining++;
    }
    if (broken == SM_H2_BROKEN_NONE && orphans > 0 && draining == 0) {
        /*
         * A direct client would lose its connection now, and some act on exactly that: give it what came, and then the
         * same.
         */
        pump_both(h);
        put_goaway(h, SM_BRIDGE_GUEST, NGHTTP2_NO_ERROR);
        end(h, h->cut ? SM_BRIDGE_CUT : SM_BRIDGE_FINISHED);
        return;
    }
    for (struct stream *s = h->first, *next; s; s = next) {
        next = s->next;
        if (s->closed[SM_BRIDGE_GUEST])
            stream_free(h, s);
        else if (s->state == STREAM_OPEN && !s->ended[SM_BRIDGE_ORIGIN] && !s->reset_due) {
            if (broken != SM_H2_BROKEN_NONE)
                answer_broken(h, s, broken);
            else
                reset_guest_after(h, s, NGHTTP2_INTERNAL_ERROR);
        }
    }
    if (!h->goaway[SM_BRIDGE_ORIGIN])
        submit_goaway(h, NGHTTP2_NO_ERROR, NULL, 0);
}

/* A side broke a rule that ends its connection. */
static void fail(struct h2 *h)
{
    enum sm_h2_broken broken = h->doom;
    enum sm_bridge_side by = h->doom_side;

    h->doom = SM_H2_BROKEN_NONE;
    if (h->dead[by])
        return;
    tell_broken(h, by, 0, broken);
    if (!h->goaway_told[by])
        put_goaway(h, by, code_of_broken(broken));
    if (by == SM_BRIDGE_ORIGIN) {
        origin_gone(h, broken);
        return;
    }
    h->dead[SM_BRIDGE_GUEST] = true;
    for (struct stream *s = h->first; s; s = s->next)
        s->broken = true;
    leave_origin(h, NGHTTP2_NO_ERROR);
    end(h, SM_BRIDGE_FINISHED);
}

static void settle_more(struct h2 *h)
{
    while (h->end == SM_BRIDGE_LIVE) {
        pump_both(h);
        if (h->doom != SM_H2_BROKEN_NONE) {
            fail(h);
            continue;
        }
        if (h->streams > 0)
            return;
        /* Nothing is open. Is anything still to come? */
        if (h->dead[SM_BRIDGE_ORIGIN] || h->goaway[SM_BRIDGE_ORIGIN] || h->goaway[SM_BRIDGE_GUEST]) {
            if (pump(h, SM_BRIDGE_GUEST, SIZE_MAX))
                continue;
            leave_origin(h, h->guest_goaway_code);
            end(h, h->cut ? SM_BRIDGE_CUT : SM_BRIDGE_FINISHED);
        }
        if (h->spare) {
            sm_h2_block_clear(h->spare);
            g_free(sm_steal_ptr(&h->spare));
        }
        return;
    }
}

static void settle(struct h2 *h)
{
    /* The judge may answer from within a callback: whoever was called first finishes. */
    if (h->busy)
        return;
    h->busy = true;
    settle_more(h);
    h->busy = false;
}

/* ---- the contract ---- */

static void h2_free(struct sm_bridge *b)
{
    struct h2 *h = h2_of(b);

    /* Who frees a living bridge does not want to hear of it; sm_bridge_eof() before it is how to be told. */
    for (struct stream *stream = h->first; stream; stream = stream->next)
        stream->judged = false;
    end(h, SM_BRIDGE_CUT);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        nghttp2_session_del(h->session[side]);
        sm_outq_clear(&h->out[side]);
        block_done(h, &h->block[side]);
    }
    block_done(h, &h->spare);
    g_free(h);
}

static size_t h2_room(const struct sm_bridge *b, enum sm_bridge_side from)
{
    const struct h2 *h = (const struct h2 *)b;
    enum sm_bridge_side to = other(from);

    if (h->end != SM_BRIDGE_LIVE)
        return 0;
    /* Bodies are held back by their windows; this is for what has none: heads, resets. */
    if (!h->dead[to] && h->out[to].len >= SM_BRIDGE_OUT_MAX &&
        nghttp2_session_get_outbound_queue_size(h->session[to]) > BACKLOG_MAX)
        return 0;
    return SM_BRIDGE_OUT_MAX;
}

static void h2_feed(struct sm_bridge *b, enum sm_bridge_side from, const uint8_t *data, size_t len, bool lent)
{
    struct h2 *h = h2_of(b);

    if (h->end != SM_BRIDGE_LIVE || h->dead[from] || len == 0)
        return;
    h->busy = true;
    ssize_t n = nghttp2_session_mem_recv(h->session[from], data, len);
    h->busy = false;
    if (n < 0 && h->doom == SM_H2_BROKEN_NONE)
        (void)doom(h, from, broken_of_error(h, from, (int)n));
    settle(h);
}

static void h2_eof(struct sm_bridge *b, enum sm_bridge_side from, bool cut)
{
    struct h2 *h = h2_of(b);

    if (h->end != SM_BRIDGE_LIVE || h->dead[from])
        return;
    h->cut |= cut;
    h->busy = true;
    if (from == SM_BRIDGE_ORIGIN) {
        origin_gone(h, SM_H2_BROKEN_NONE);
    } else {
        /* Nobody can open windows or end streams for it any more. */
        h->dead[SM_BRIDGE_GUEST] = true;
        leave_origin(h, h->guest_goaway_code);
        end(h, cut ? SM_BRIDGE_CUT : SM_BRIDGE_FINISHED);
    }
    h->busy = false;
    settle(h);
}

static size_t h2_out(struct sm_bridge *b, enum sm_bridge_side to, const uint8_t **ret)
{
    return sm_outq_peek(&h2_of(b)->out[to], ret);
}

static void h2_took(struct sm_bridge *b, enum sm_bridge_side to, size_t n)
{
    struct h2 *h = h2_of(b);
    bool full = h->out[to].len >= SM_BRIDGE_OUT_MAX;

    sm_outq_took(&h->out[to], n);
    if (h->end != SM_BRIDGE_LIVE || !full || h->out[to].len >= SM_BRIDGE_OUT_MAX)
        return;
    if (h->unconsumed[to])
        consume_held(h, to);
    settle(h);
}

static bool h2_out_closed(const struct sm_bridge *b, enum sm_bridge_side to)
{
    const struct h2 *h = (const struct h2 *)b;

    return h->end != SM_BRIDGE_LIVE || h->dead[to];
}

static void pass_edited(struct h2 *h, struct stream *s, const struct sm_bridge_edit *edit)
{
    if (!sm_http_edit_valid(edit)) {
        s->refused = true;
        send_own_page(h, s, 502, SM_HTTP_EDIT_INVALID);
        return;
    }
    s->edit = sm_http_edit_new(edit);
    s->scrub = edit->scrub ? sm_scrub_ref(edit->scrub) : NULL;
    if (edit->replay && h->base.ops->rejected && !is_held(s) && !s->trailers[SM_BRIDGE_GUEST]) {
        s->replay = g_new0(struct replay, 1);
        s->replay->body.account = h->base.config.account;
    }
    if (s->edit && s->edit->value) {
        count_waiting(h, (gssize)s->edit->value_len);
        h->mem.wipe = true;
    }
    /* They may have come before the answer. */
    if (has_replaced(s, s->trailers[SM_BRIDGE_GUEST]))
        (void)refuse_broken(h, s, SM_H2_BROKEN_TRAILER);
    else
        pass(h, s);
}

static void h2_answer(struct sm_bridge *b, uint64_t req, const struct sm_bridge_answer *answer)
{
    struct h2 *h = h2_of(b);
    struct stream *s = h->last;

    /* Mostly it is the last one, which was asked about just now. */
    while (s && s->req != req)
        s = s->prev;
    if (!s || s->state != STREAM_ASKED)
        return;
    sm_http_edit_free(sm_steal_ptr(&s->edit)); /* of the first answer; its value is spent */
    sm_scrub_unref(sm_steal_ptr(&s->scrub));
    if (!answer->pass) {
        s->refused = true;
        send_page(h, s, answer->status ? answer->status : 403, answer->body, answer->body_len);
    } else if (answer->edit) {
        pass_edited(h, s, answer->edit);
    } else {
        pass(h, s);
    }
    settle(h);
}

static enum sm_bridge_end h2_ended(const struct sm_bridge *b)
{
    return ((const struct h2 *)b)->end;
}

static bool h2_idle(const struct sm_bridge *b)
{
    return ((const struct h2 *)b)->streams == 0;
}

static const struct sm_bridge_vtable h2_vtable = {
    .free = h2_free,
    .room = h2_room,
    .feed = h2_feed,
    .eof = h2_eof,
    .out = h2_out,
    .took = h2_took,
    .out_closed = h2_out_closed,
    .answer = h2_answer,
    .ended = h2_ended,
    .idle = h2_idle,
};

static nghttp2_session *session_new(struct h2 *h, enum sm_bridge_side side)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;

    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        g_error("nghttp2: out of memory");
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);

    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    /* What was received is sent on, and HPACK's estimate of it is larger than it. */
    nghttp2_option_set_max_send_header_block_length(option, SM_H2_BOMB_FACTOR * SM_H2_LIST_MAX);
    if (side == SM_BRIDGE_ORIGIN)
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1);

    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, SM_H2_LIST_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {side == SM_BRIDGE_GUEST ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         side == SM_BRIDGE_GUEST ? SM_H2_STREAMS_MAX : 0},
    };
    int rv = side == SM_BRIDGE_GUEST ? nghttp2_session_server_new3(&session, callbacks, h, option, &h->mem.mem)
                                     : nghttp2_session_client_new3(&session, callbacks, h, option, &h->mem.mem);
    if (rv != 0 || nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, SM_ARRAY_LEN(settings)) != 0 ||
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, (int32_t)SM_H2_WINDOW_CONNECTION) != 0)
        g_error("nghttp2: %s", nghttp2_strerror(rv));
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return session;
}

struct sm_bridge *sm_bridge_new_h2(const struct sm_bridge_ops *ops, void *ctx, const struct sm_bridge_config *config)
{
    struct h2 *h = g_new0(struct h2, 1);

    h->base = (struct sm_bridge){.vtable = &h2_vtable, .ops = ops, .ctx = ctx, .config = *config};
    sm_h2_mem_init(&h->mem);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        h->session[side] = session_new(h, side);
        h->out[side].account = config->account;
    }
    settle(h);
    return &h->base;
}
