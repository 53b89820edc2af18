/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vsock engine between a hostile guest and a careless owner: the input is a list of records, a kind byte, a length byte and as many bytes.
 * A packet's head may be whole or short, made of the input alone or with the CIDs put right, so that the table behind them is reached.
 * Whatever comes: what goes out is well formed, what is kept is bounded, no byte is made up or lost, and the counts come out even.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/rw.h"
#include "nat/vsock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Few ports, so that packets meet streams. */
#define PORTS 8

struct owner {
    struct sm_vsock_stream *s;
    bool asked;
};

static struct world {
    struct sm_vsock *v;
    struct owner owners[SM_VSOCK_STREAMS_MAX * 8];
    size_t n_owners, open;
    uint8_t take, abort_at;
    unsigned emitted;
} w;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static uint64_t le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = n; i > 0; i--)
        v = v << 8 | p[i - 1];
    return v;
}

static void on_emit(const struct iovec *iov, unsigned n, void *ctx)
{
    const uint8_t *h = iov[0].iov_base;

    must(n >= 1 && n <= 2 && iov[0].iov_len == SM_VSOCK_HDR);
    must(le(h, 8) == SM_VSOCK_CID_HOST && le(h + 8, 8) == SM_VSOCK_CID_DEFAULT);
    must(le(h + 24, 4) == (n == 2 ? iov[1].iov_len : 0));
    must(n == 1 || (iov[1].iov_len > 0 && iov[1].iov_len <= SM_VSOCK_PAYLOAD_OUT_MAX));
    must(le(h + 30, 2) >= 2 && le(h + 30, 2) <= 7); /* we ask for nothing */
    w.emitted++;
}

static void *on_open(struct sm_vsock_stream *s, uint32_t guest_port, uint32_t host_port, void *ctx)
{
    if (w.n_owners == SM_ARRAY_LEN(w.owners) || host_port == 0)
        return NULL;
    w.owners[w.n_owners] = (struct owner){.s = s, .asked = true};
    w.open++;
    return &w.owners[w.n_owners++];
}

static void gone(struct owner *o)
{
    must(o->s != NULL);
    o->s = NULL;
    w.open--;
}

static size_t on_bytes(void *cookie, const uint8_t *p, size_t len, void *ctx)
{
    struct owner *o = cookie;
    static uint8_t copy[SM_VSOCK_BUF];

    must(o->s != NULL && !o->asked && len > 0 && len <= SM_VSOCK_BUF);
    memcpy(copy, p, len);
    if (w.abort_at && --w.abort_at == 0) {
        sm_vsock_abort(o->s);
        gone(o);
    }
    return len * w.take / 255;
}

static void on_eof(void *cookie, void *ctx)
{
    struct owner *o = cookie;
    must(o->s != NULL && sm_vsock_kept(o->s) == 0);
}

static void on_writable(void *cookie, void *ctx)
{
    struct owner *o = cookie;
    must(o->s != NULL && sm_vsock_room(o->s) > 0);
    (void)sm_vsock_write(o->s, (const uint8_t *)"again", 5);
}

static void on_closed(void *cookie, enum sm_vsock_end how, void *ctx)
{
    must((unsigned)how < SM_VSOCK_ENDS);
    gone(cookie);
}

static const struct sm_vsock_ops ops = {
    .emit = on_emit, .open = on_open, .bytes = on_bytes, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void owner_acts(uint8_t which, uint8_t what)
{
    static const uint8_t data[5000];
    size_t at = w.n_owners ? which % w.n_owners : 0;
    struct owner *o = &w.owners[at];

    if (w.n_owners == 0 || !o->s)
        return;
    if (o->asked) {
        o->asked = false;
        if (what % 4 != 0) {
            sm_vsock_accept(o->s);
            return;
        }
        sm_vsock_refuse(o->s);
        gone(o);
        return;
    }
    switch (what % 6) {
    case 0: {
        size_t room = sm_vsock_room(o->s), n = sm_vsock_write(o->s, data, what * 20u);
        must(n <= room);
        break;
    }
    case 1:
        if (sm_vsock_room(o->s) == 0)
            sm_vsock_want(o->s);
        break;
    case 2:
        sm_vsock_end(o->s);
        break;
    case 3:
    case 4:
        sm_vsock_flush(o->s);
        break;
    default:
        sm_vsock_abort(o->s);
        gone(o);
        break;
    }
}

/* The input's bytes are the packet; with `friendly` the CIDs are right, the ports few and the payload as long as it says. */
static void packet(struct sm_rd *r, size_t len, bool friendly)
{
    size_t extra = friendly && len >= 2 ? (size_t)sm_rd_u16(r) : 0;
    size_t rest = len - (friendly && len >= 2 ? 2 : 0);
    size_t total = friendly ? SM_VSOCK_HDR + extra : rest;
    uint8_t *p = calloc(1, total ? total : 1);

    must(p != NULL);
    const uint8_t *src = sm_rd_take(r, rest);
    must(src != NULL);
    if (!friendly) {
        memcpy(p, src, rest);
    } else {
        /* src port, dst port, type, op, flags, a byte each; buf_alloc and fwd_cnt as they come */
        uint8_t f[16] = {0};
        memcpy(f, src, SM_MIN(rest, sizeof(f)));
        p[0] = SM_VSOCK_CID_DEFAULT;
        p[8] = SM_VSOCK_CID_HOST;
        p[16] = f[0] % PORTS;
        p[20] = f[1] % PORTS;
        p[24] = (uint8_t)extra;
        p[25] = (uint8_t)(extra >> 8);
        p[28] = f[2] < 250 ? 1 : f[2];
        p[30] = f[3] % 9;
        p[32] = f[4];
        memcpy(p + 36, f + 5, 8);
    }
    sm_vsock_input(w.v, p, total);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_rd r = sm_rd_init(data, size);
    struct sm_vsock_stats st;

    w = (struct world){.take = 255};
    w.v = sm_vsock_new(SM_VSOCK_CID_DEFAULT, &ops, NULL);
    while (sm_rd_left(&r) >= 2) {
        uint8_t kind = sm_rd_u8(&r), len = sm_rd_u8(&r);
        switch (kind % 8) {
        case 0:
            packet(&r, SM_MIN((size_t)len, sm_rd_left(&r)), false);
            break;
        case 1:
        case 2:
        case 3:
            packet(&r, SM_MIN((size_t)len, sm_rd_left(&r)), true);
            break;
        case 4:
            w.take = len;
            break;
        case 5:
            w.abort_at = len;
            break;
        case 6:
            if (len == 77)
                sm_vsock_reset(w.v);
            break;
        default:
            owner_acts(len, sm_rd_u8(&r));
            break;
        }
        sm_vsock_stats(w.v, &st);
        must(st.streams_now == w.open && st.streams_now <= SM_VSOCK_STREAMS_MAX);
        must(st.lingering_now <= SM_VSOCK_LINGER_MAX && st.kept_now <= st.streams_now * SM_VSOCK_BUF);
    }
    /* Half of them end by a reset, the others with the engine. */
    if (size % 2) {
        sm_vsock_reset(w.v);
        must(w.open == 0);
        sm_vsock_stats(w.v, &st);
        must(st.streams_now == 0 && st.lingering_now == 0 && st.kept_now == 0);
    }
    sm_vsock_free(w.v);
    return 0;
}
