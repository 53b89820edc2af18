/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Streams of virtio-vsock from the device's side; the rules stand in vsock.h.
 *
 * Lifetime: the owner may end the very stream that it is called for, so a stream that is over stays in the graveyard until the outermost
 * call into the engine returns, and the code behind a callback looks at its state.
 */
#include "nat/vsock.h"

#include <byteswap.h>
#include <glib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rw.h"

/* Values of the header's fields (virtio 1.2, 5.10.6). */
enum { TYPE_STREAM = 1 };
enum {
    OP_INVALID = 0,
    OP_REQUEST,
    OP_RESPONSE,
    OP_RST,
    OP_SHUTDOWN,
    OP_RW,
    OP_CREDIT_UPDATE,
    OP_CREDIT_REQUEST,
    OPS,
};
enum { SHUT_NO_RECEIVE = 1, SHUT_NO_SEND = 2, SHUT_BOTH = 3 };

static const char *const end_names[] = {
    [SM_VSOCK_END_CLEAN] = "clean",
    [SM_VSOCK_END_GUEST_RST] = "guest_rst",
    [SM_VSOCK_END_PROTOCOL] = "protocol",
    [SM_VSOCK_END_RESET] = "reset",
};
SM_NAME_TABLE_COVERS(end_names, SM_VSOCK_ENDS);

enum state { ASKED, OPEN, DRAINING, LINGERING, DEAD };

/** A header, decoded. */
struct head {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};

struct sm_vsock_stream {
    struct sm_vsock *v;
    void *cookie;
    uint64_t key; /* guest's port, our port */
    enum state state;
    GList link; /* in lingering or in the graveyard */

    struct sm_buf kept; /* of the guest, not taken yet */
    uint32_t fwd_cnt;   /* bytes of the guest that were taken */
    uint32_t told;      /* fwd_cnt as the guest knows it */
    uint32_t guest_shut;

    uint32_t tx_cnt; /* bytes that we sent */
    uint32_t peer_fwd, peer_buf;
    bool ended;  /* we send no more */
    bool wanted; /* the owner waits for credit */
    bool in_bytes;
};

struct sm_vsock {
    uint32_t cid;
    const struct sm_vsock_ops *ops;
    void *data;
    GHashTable *streams; /* &key -> stream; not those that are draining */
    GQueue draining;
    GQueue lingering; /* the oldest first */
    GQueue graveyard;
    unsigned depth; /* calls into the engine that have not returned */
    struct sm_vsock_stats stats;
};

_Static_assert(SM_VSOCK_OWN_PACKETS < 2048, "the port's queue has room for what is said without being asked");

const char *sm_vsock_end_name(enum sm_vsock_end how)
{
    return (unsigned)how < SM_VSOCK_ENDS ? end_names[how] : "invalid";
}

static uint64_t key_of(uint32_t guest_port, uint32_t host_port)
{
    return (uint64_t)guest_port << 32 | host_port;
}

/* ---- entering and leaving the engine ---- */

static struct sm_vsock *enter(struct sm_vsock *v)
{
    v->depth++;
    return v;
}

static void leave(struct sm_vsock **v)
{
    if (--(*v)->depth > 0)
        return;
    GList *l;
    while ((l = g_queue_pop_head_link(&(*v)->graveyard)))
        g_free(l->data);
}
#define ENTERED(v) sm_cleanup(leave) struct sm_vsock *entered_ __attribute__((unused)) = enter(v)

/* ---- packets out ---- */

static void put_le16(struct sm_wr *w, uint16_t v)
{
    sm_wr_u16(w, bswap_16(v));
}

static void put_le32(struct sm_wr *w, uint32_t v)
{
    sm_wr_u32(w, bswap_32(v));
}

static void put_le64(struct sm_wr *w, uint64_t v)
{
    sm_wr_u64(w, bswap_64(v));
}

static void emit(struct sm_vsock *v, const struct head *h, const uint8_t *payload)
{
    uint8_t raw[SM_VSOCK_HDR];
    struct sm_wr w = sm_wr_init(raw, sizeof(raw));
    struct iovec iov[2] = {{.iov_base = raw, .iov_len = sizeof(raw)},
                           {.iov_base = (void *)(uintptr_t)payload, .iov_len = h->len}};

    put_le64(&w, h->src_cid);
    put_le64(&w, h->dst_cid);
    put_le32(&w, h->src_port);
    put_le32(&w, h->dst_port);
    put_le32(&w, h->len);
    put_le16(&w, h->type);
    put_le16(&w, h->op);
    put_le32(&w, h->flags);
    put_le32(&w, h->buf_alloc);
    put_le32(&w, h->fwd_cnt);
    g_assert(!w.bad && w.len == SM_VSOCK_HDR);
    if (h->op == OP_RST)
        v->stats.resets++;
    v->ops->emit(iov, h->len > 0 ? 2 : 1, v->data);
}

static void say(struct sm_vsock_stream *s, uint16_t op, uint32_t flags, const uint8_t *payload, size_t len)
{
    struct head h = {.src_cid = SM_VSOCK_CID_HOST,
                     .dst_cid = s->v->cid,
                     .src_port = (uint32_t)s->key,
                     .dst_port = (uint32_t)(s->key >> 32),
                     .len = (uint32_t)len,
                     .type = TYPE_STREAM,
                     .op = op,
                     .flags = flags,
                     .buf_alloc = SM_VSOCK_BUF,
                     .fwd_cnt = s->fwd_cnt};

    s->told = s->fwd_cnt;
    emit(s->v, &h, payload);
}

/* There is no such stream, or none of that type. Never an answer to an RST: two ends that do not know each other would say it for ever. */
static void answer_rst(struct sm_vsock *v, const struct head *in)
{
    struct head h = {.src_cid = SM_VSOCK_CID_HOST,
                     .dst_cid = v->cid,
                     .src_port = in->dst_port,
                     .dst_port = in->src_port,
                     .type = in->type,
                     .op = OP_RST};

    if (in->op != OP_RST)
        emit(v, &h, NULL);
}

/* ---- the life of a stream ---- */

static void count_kept(struct sm_vsock_stream *s, size_t before)
{
    s->v->stats.kept_now = s->v->stats.kept_now - before + s->kept.len;
}

/* Out of every list but the graveyard; no callback. */
static void bury(struct sm_vsock_stream *s)
{
    struct sm_vsock *v = s->v;
    size_t kept = s->kept.len;

    switch (s->state) {
    case ASKED:
    case OPEN:
        (void)g_hash_table_remove(v->streams, &s->key);
        v->stats.streams_now--;
        break;
    case DRAINING:
        g_queue_unlink(&v->draining, &s->link);
        v->stats.streams_now--;
        break;
    case LINGERING:
        (void)g_hash_table_remove(v->streams, &s->key);
        g_queue_unlink(&v->lingering, &s->link);
        v->stats.lingering_now--;
        break;
    case DEAD:
        return;
    }
    sm_buf_clear(&s->kept);
    count_kept(s, kept);
    s->state = DEAD;
    s->cookie = NULL;
    g_queue_push_tail_link(&v->graveyard, &s->link);
}

static void finish(struct sm_vsock_stream *s, enum sm_vsock_end how)
{
    struct sm_vsock *v = s->v;
    void *cookie = s->cookie;

    bury(s);
    if (cookie)
        v->ops->closed(cookie, how, v->data);
}

static void break_rules(struct sm_vsock_stream *s)
{
    say(s, OP_RST, 0, NULL, 0);
    finish(s, SM_VSOCK_END_PROTOCOL);
}

/* Both have ended and all is where it belongs: only the guest's last word is outstanding. */
static void linger(struct sm_vsock_stream *s)
{
    struct sm_vsock *v = s->v;
    void *cookie = s->cookie;

    say(s, OP_SHUTDOWN, SHUT_BOTH, NULL, 0);
    if (v->stats.lingering_now >= SM_VSOCK_LINGER_MAX)
        bury(v->lingering.head->data); /* what it still says is answered by RST */
    s->state = LINGERING;
    s->cookie = NULL;
    g_queue_push_tail_link(&v->lingering, &s->link);
    v->stats.streams_now--;
    v->stats.lingering_now++;
    v->ops->closed(cookie, SM_VSOCK_END_CLEAN, v->data);
}

/* The guest's bytes have all been taken: what its SHUTDOWN said can be said on. */
static void taken_all(struct sm_vsock_stream *s)
{
    if (s->state == DRAINING) {
        finish(s, SM_VSOCK_END_CLEAN);
    } else if (s->state == OPEN && (s->guest_shut & SHUT_NO_SEND)) {
        if (s->ended)
            linger(s);
        else
            s->v->ops->eof(s->cookie, s->v->data);
    }
}

static void tell_credit(struct sm_vsock_stream *s)
{
    if (s->state == OPEN && !(s->guest_shut & SHUT_NO_SEND) && s->fwd_cnt - s->told >= SM_VSOCK_TELL)
        say(s, OP_CREDIT_UPDATE, 0, NULL, 0);
}

static size_t offer(struct sm_vsock_stream *s, const uint8_t *p, size_t len)
{
    s->in_bytes = true;
    size_t n = s->v->ops->bytes(s->cookie, p, len, s->v->data);
    s->in_bytes = false;
    g_assert(n <= len);
    s->fwd_cnt += (uint32_t)n;
    return n;
}

/* ---- packets in ---- */

static uint16_t get_le16(struct sm_rd *r)
{
    return bswap_16(sm_rd_u16(r));
}

static uint32_t get_le32(struct sm_rd *r)
{
    return bswap_32(sm_rd_u32(r));
}

static uint64_t get_le64(struct sm_rd *r)
{
    return bswap_64(sm_rd_u64(r));
}

static bool get_head(struct sm_rd *r, struct head *ret)
{
    ret->src_cid = get_le64(r);
    ret->dst_cid = get_le64(r);
    ret->src_port = get_le32(r);
    ret->dst_port = get_le32(r);
    ret->len = get_le32(r);
    ret->type = get_le16(r);
    ret->op = get_le16(r);
    ret->flags = get_le32(r);
    ret->buf_alloc = get_le32(r);
    ret->fwd_cnt = get_le32(r);
    return !r->bad;
}

/* What the guest may say, and whether what comes with it fits. */
static bool well_formed(const struct head *h, size_t payload)
{
    if (h->op == OP_INVALID || h->op >= OPS || h->op == OP_RESPONSE) /* we never ask for a connection */
        return false;
    return h->len == payload && payload <= SM_VSOCK_PAYLOAD_MAX && (payload == 0 || h->op == OP_RW);
}

/* False: it counts bytes that were never sent, or that it had counted already. */
static bool take_credit(struct sm_vsock_stream *s, const struct head *h)
{
    uint32_t before = s->tx_cnt - s->peer_fwd, now = s->tx_cnt - h->fwd_cnt;

    if (now > before)
        return false;
    s->peer_fwd = h->fwd_cnt;
    s->peer_buf = SM_MIN(h->buf_alloc, SM_VSOCK_PEER_BUF_MAX);
    return true;
}

static void cheat(struct sm_vsock_stream *s)
{
    s->v->stats.cheated++;
    break_rules(s);
}

static void on_request(struct sm_vsock *v, const struct head *h)
{
    v->stats.requests++;
    if (h->fwd_cnt != 0) {
        v->stats.cheated++;
        answer_rst(v, h);
        return;
    }
    struct sm_vsock_stream *s = NULL;
    if (v->stats.streams_now < SM_VSOCK_STREAMS_MAX) {
        s = g_new0(struct sm_vsock_stream, 1);
        s->v = v;
        s->key = key_of(h->src_port, h->dst_port);
        s->state = ASKED;
        s->link.data = s;
        s->peer_buf = SM_MIN(h->buf_alloc, SM_VSOCK_PEER_BUF_MAX);
        sm_buf_init(&s->kept, SM_VSOCK_BUF);
        g_hash_table_insert(v->streams, &s->key, s);
        v->stats.streams_now++;
        s->cookie = v->ops->open(s, h->src_port, h->dst_port, v->data);
        if (!s->cookie && s->state != DEAD)
            bury(s);
    }
    if (!s || s->state == DEAD) {
        v->stats.refused++;
        answer_rst(v, h);
    }
}

static void on_bytes(struct sm_vsock_stream *s, const uint8_t *p, size_t len)
{
    if (s->state != OPEN || (s->guest_shut & SHUT_NO_SEND)) {
        s->v->stats.malformed++;
        break_rules(s);
        return;
    }
    if (len > sm_buf_room(&s->kept)) {
        cheat(s);
        return;
    }
    size_t n = 0, kept = s->kept.len;
    if (kept == 0 && len > 0)
        n = offer(s, p, len);
    if (s->state != OPEN)
        return;
    bool fits = sm_buf_append(&s->kept, p + n, len - n);
    g_assert(fits);
    count_kept(s, kept);
    tell_credit(s);
}

static void on_shutdown(struct sm_vsock_stream *s, uint32_t flags)
{
    struct sm_vsock *v = s->v;
    uint32_t before = s->guest_shut;

    s->guest_shut |= flags & SHUT_BOTH;
    if (s->state == ASKED || s->state == LINGERING) {
        if (s->state == LINGERING && s->guest_shut != SHUT_BOTH)
            return;
        say(s, OP_RST, 0, NULL, 0);
        finish(s, SM_VSOCK_END_GUEST_RST); /* a lingering one has no owner to hear of it */
        return;
    }
    if (s->guest_shut == SHUT_BOTH) {
        say(s, OP_RST, 0, NULL, 0); /* the acknowledgement that it waits for */
        (void)g_hash_table_remove(v->streams, &s->key);
        g_queue_push_tail_link(&v->draining, &s->link);
        s->state = DRAINING;
    }
    if (s->kept.len == 0 && s->guest_shut != before)
        taken_all(s);
}

static void on_credit(struct sm_vsock_stream *s)
{
    if (s->state != OPEN || !s->wanted || sm_vsock_room(s) == 0)
        return;
    s->wanted = false;
    s->v->ops->writable(s->cookie, s->v->data);
}

static void on_packet(struct sm_vsock_stream *s, const struct head *h, const uint8_t *payload, size_t len)
{
    if (h->op == OP_RST) {
        finish(s, SM_VSOCK_END_GUEST_RST);
        return;
    }
    if (!take_credit(s, h)) {
        cheat(s);
        return;
    }
    if (h->op == OP_RW)
        on_bytes(s, payload, len);
    else if (h->op == OP_SHUTDOWN)
        on_shutdown(s, h->flags);
    else if (h->op == OP_CREDIT_REQUEST && s->state != ASKED)
        say(s, OP_CREDIT_UPDATE, 0, NULL, 0);
    on_credit(s);
}

void sm_vsock_input(struct sm_vsock *v, const uint8_t *packet, size_t len)
{
    struct sm_rd r = sm_rd_init(packet, len);
    struct head h;
    ENTERED(v);

    if (!get_head(&r, &h)) {
        v->stats.malformed++;
        return;
    }
    if (h.src_cid != v->cid || h.dst_cid != SM_VSOCK_CID_HOST) {
        v->stats.foreign++;
        return;
    }
    if (h.type != TYPE_STREAM) {
        v->stats.refused++;
        answer_rst(v, &h);
        return;
    }
    uint64_t key = key_of(h.src_port, h.dst_port);
    struct sm_vsock_stream *s = g_hash_table_lookup(v->streams, &key);
    size_t payload_len = sm_rd_left(&r);
    const uint8_t *payload = sm_rd_take(&r, payload_len);
    if (!well_formed(&h, payload_len)) {
        v->stats.malformed++;
        if (s)
            break_rules(s);
        else
            answer_rst(v, &h);
        return;
    }
    if (h.op == OP_REQUEST) {
        if (s)
            finish(s, SM_VSOCK_END_GUEST_RST); /* no RST: it would meet the new one */
        on_request(v, &h);
    } else if (s) {
        on_packet(s, &h, payload, payload_len);
    } else {
        v->stats.unknown++;
        answer_rst(v, &h);
    }
}

/* ---- the owner's side ---- */

void sm_vsock_accept(struct sm_vsock_stream *s)
{
    ENTERED(s->v);

    g_assert(s->state == ASKED);
    s->state = OPEN;
    say(s, OP_RESPONSE, 0, NULL, 0);
}

void sm_vsock_refuse(struct sm_vsock_stream *s)
{
    ENTERED(s->v);

    g_assert(s->state == ASKED);
    s->v->stats.refused++;
    say(s, OP_RST, 0, NULL, 0);
    bury(s);
}

void sm_vsock_abort(struct sm_vsock_stream *s)
{
    ENTERED(s->v);

    if (s->state == ASKED || s->state == OPEN)
        say(s, OP_RST, 0, NULL, 0);
    bury(s);
}

size_t sm_vsock_room(const struct sm_vsock_stream *s)
{
    uint32_t in_flight = s->tx_cnt - s->peer_fwd;

    if (s->state != OPEN || s->ended || (s->guest_shut & SHUT_NO_RECEIVE) || in_flight >= s->peer_buf)
        return 0;
    return s->peer_buf - in_flight;
}

size_t sm_vsock_write(struct sm_vsock_stream *s, const uint8_t *p, size_t len)
{
    size_t n = SM_MIN(SM_MIN(len, sm_vsock_room(s)), (size_t)SM_VSOCK_PAYLOAD_OUT_MAX);
    ENTERED(s->v);

    if (n == 0)
        return 0;
    s->tx_cnt += (uint32_t)n;
    say(s, OP_RW, 0, p, n);
    return n;
}

void sm_vsock_want(struct sm_vsock_stream *s)
{
    ENTERED(s->v);

    if (s->state != OPEN || s->wanted)
        return;
    s->wanted = true;
    if (!(s->guest_shut & SHUT_NO_RECEIVE))
        say(s, OP_CREDIT_REQUEST, 0, NULL, 0);
}

void sm_vsock_end(struct sm_vsock_stream *s)
{
    ENTERED(s->v);

    if (s->state != OPEN || s->ended)
        return;
    s->ended = true;
    if ((s->guest_shut & SHUT_NO_SEND) && s->kept.len == 0)
        linger(s);
    else
        say(s, OP_SHUTDOWN, SHUT_NO_SEND, NULL, 0);
}

void sm_vsock_flush(struct sm_vsock_stream *s)
{
    size_t kept = s->kept.len;
    ENTERED(s->v);

    if ((s->state != OPEN && s->state != DRAINING) || kept == 0 || s->in_bytes)
        return;
    size_t n = offer(s, sm_buf_peek(&s->kept), kept);
    if (s->state != OPEN && s->state != DRAINING)
        return;
    sm_buf_consume(&s->kept, n);
    count_kept(s, kept);
    tell_credit(s);
    if (s->kept.len == 0)
        taken_all(s);
}

size_t sm_vsock_kept(const struct sm_vsock_stream *s)
{
    return s->kept.len;
}

/* ---- the whole ---- */

struct sm_vsock *sm_vsock_new(uint32_t guest_cid, const struct sm_vsock_ops *ops, void *data)
{
    struct sm_vsock *v = g_new0(struct sm_vsock, 1);

    v->cid = guest_cid;
    v->ops = ops;
    v->data = data;
    v->streams = g_hash_table_new(g_int64_hash, g_int64_equal);
    return v;
}

static struct sm_vsock_stream *any_stream(struct sm_vsock *v)
{
    GHashTableIter it;
    gpointer s;

    if (v->draining.head)
        return v->draining.head->data;
    g_hash_table_iter_init(&it, v->streams);
    return g_hash_table_iter_next(&it, NULL, &s) ? s : NULL;
}

void sm_vsock_reset(struct sm_vsock *v)
{
    struct sm_vsock_stream *s;
    ENTERED(v);

    while ((s = any_stream(v)))
        finish(s, SM_VSOCK_END_RESET);
}

void sm_vsock_free(struct sm_vsock *v)
{
    struct sm_vsock_stream *s;

    if (!v)
        return;
    {
        ENTERED(v);
        while ((s = any_stream(v)))
            bury(s);
    }
    g_hash_table_destroy(v->streams);
    g_free(v);
}

void sm_vsock_stats(const struct sm_vsock *v, struct sm_vsock_stats *ret)
{
    *ret = v->stats;
}
