/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/h2.h between a guest and an origin that are both hostile. The input is a script: an operation, a length, that
 * many bytes.
 *
 * What must hold whatever they send: the origin sees no HEADERS that no answer let pass, and no DATA before its
 * HEADERS; what goes to either side is whole frames; every judged request is told of exactly once; the bridge takes
 * what it says that it has room for; all that it counted is given back. The answers may come with edits, and with such
 * that cannot be made; after a 401 a second answer may be asked for.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/bridge.h"
#include "http/scrub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ASKED_MAX 4096

enum op {
    OP_GUEST_RAW,
    OP_ORIGIN_RAW,
    OP_GUEST_FRAME, /* type, flags, stream, payload: the length is right */
    OP_ORIGIN_FRAME,
    OP_GUEST_REQUEST, /* a good head: which, flags */
    OP_ORIGIN_RESPONSE,
    OP_TAKE,
    OP_ANSWER,
    OP_EOF,
    OPS
};

/* A side's output, cut into frames. */
struct reader {
    uint64_t skip; /* of the preface, of payload */
    uint8_t head[9];
    size_t have;
};

struct play {
    struct sm_bridge *b;
    struct reader reader[SM_BRIDGE_SIDES];
    uint8_t asked[ASKED_MAX]; /* 1: asked, 2: answered, 3: told */
    bool again[ASKED_MAX];    /* asked a second time, too */
    uint64_t reqs;
    unsigned passed, heads;
    uint32_t highest; /* stream that the origin knows */
    uint32_t next;    /* of the guest */
    bool at_once, edits;
    struct sm_scrub *scrub;
    size_t account;
};

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};

static const uint8_t get_block[] = {0x82, 0x87, 0x84, 0x01, 0x01, 'a'};
static const uint8_t post_block[] = {0x83, 0x87, 0x84, 0x41, 0x04, 'a', '.', 'b', 'c', 0x40, 0x02,
                                     't',  'e',  0x08, 't',  'r',  'a', 'i', 'l', 'e', 'r',  's'};
static const uint8_t head_block[] = {0x02, 0x04, 'H', 'E', 'A', 'D', 0x87, 0x84, 0x01, 0x01, 'a'};
static const uint8_t trailer_block[] = {0x00, 0x01, 'x', 0x01, 'y'};
static const uint8_t ok_block[] = {0x88};
static const uint8_t length_block[] = {0x88, 0x0f, 0x0d, 0x01, '9'};
static const uint8_t interim_block[] = {0x08, 0x03, '1', '0', '3'};
static const uint8_t no_block[] = {0x08, 0x03, '4', '0', '1'};
static const uint8_t alt_svc_block[] = {0x88, 0x00, 0x07, 'a', 'l', 't', '-', 's', 'v', 'c', 0x04, 'h', '3', '=', 'x'};

static const struct {
    const uint8_t *bytes;
    size_t len;
} blocks[SM_BRIDGE_SIDES][4] = {
    [SM_BRIDGE_GUEST] = {{get_block, sizeof(get_block)},
                         {post_block, sizeof(post_block)},
                         {head_block, sizeof(head_block)},
                         {trailer_block, sizeof(trailer_block)}},
    [SM_BRIDGE_ORIGIN] = {{ok_block, sizeof(ok_block)},
                          {length_block, sizeof(length_block)},
                          {interim_block, sizeof(interim_block)},
                          {alt_svc_block, sizeof(alt_svc_block)}},
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void answer(struct play *p, uint64_t req, bool pass)
{
    struct sm_bridge_edit edit = {
        .name = "X", .value = "secret", .value_len = 6, .identity = true, .scrub = p->scrub, .replay = true};
    struct sm_bridge_answer a = {.pass = pass, .status = 403, .body = "{}", .body_len = 2};
    if (p->edits && req % 4 != 0)
        a.edit = &edit;
    if (a.edit && req % 4 == 3) {
        edit.value_len = 5;
        edit.value = "a\nb: ";
        pass = false;
    }
    bool open = req < ASKED_MAX && p->asked[req] == 1;

    if (open) {
        p->asked[req] = 2;
        p->passed += pass;
    }
    sm_bridge_answer(p->b, req, &a);
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct play *p = ctx;

    must(r->req > p->reqs);
    must(r->method.len > 0 && r->scheme.len == 5 && r->authority.len > 0 && r->host.len > 0 && r->path.len > 0);
    for (size_t i = 0; i < r->authority.len; i++)
        must(r->authority.ptr[i] > ' ' && r->authority.ptr[i] < 0x7f && r->authority.ptr[i] != '@');
    p->reqs = r->req;
    struct sm_text name, value;
    for (size_t at = 0; sm_bridge_request_field(r, &at, &name, &value);)
        must(name.len > 0 && name.ptr[0] != ':');
    if (r->req < ASKED_MAX)
        p->asked[r->req] = 1;
    p->b = b;
    if (p->at_once || r->req >= ASKED_MAX)
        answer(p, r->req, r->req < ASKED_MAX);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct play *p = ctx;

    must(p->edits && r->req <= p->reqs && r->req < ASKED_MAX && p->asked[r->req] == 2 && !p->again[r->req]);
    must(r->method.len > 0 && r->path.len > 0 && r->next_field);
    if (r->req % 8 == 5)
        return false;
    p->again[r->req] = true;
    p->asked[r->req] = 1;
    if (p->at_once)
        answer(p, r->req, r->req % 16 != 6);
    return true;
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    struct play *p = ctx;

    must(r->req <= p->reqs && r->outcome < SM_BRIDGE_OUTCOMES);
    if (r->req < ASKED_MAX) {
        must(p->asked[r->req] == 1 || p->asked[r->req] == 2);
        p->asked[r->req] = 3;
    }
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    must(by < SM_BRIDGE_SIDES && reason && strncmp(reason, "h2_", 3) == 0);
}

static size_t on_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    must(cap >= 2);
    memcpy(out, "{}", 2);
    return 2;
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page, .rejected = on_rejected};

static void on_frame_out(struct play *p, enum sm_bridge_side to, const uint8_t *f)
{
    uint32_t id = ((uint32_t)f[5] << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8]) & 0x7fffffff;

    must(f[3] <= 9 && f[3] != 5 && ((uint32_t)f[0] << 16 | (uint32_t)f[1] << 8 | f[2]) <= 1u << 24);
    if (to != SM_BRIDGE_ORIGIN)
        return;
    if (f[3] == 1 && id > p->highest) {
        p->highest = id;
        must(++p->heads <= p->passed);
    }
    if (f[3] == 0 || f[3] == 3)
        must(id <= p->highest);
}

static void take(struct play *p, enum sm_bridge_side to, size_t max)
{
    struct reader *r = &p->reader[to];
    const uint8_t *bytes;
    size_t len;

    while (max > 0 && (len = sm_bridge_out(p->b, to, &bytes)) > 0) {
        len = len < max ? len : max;
        for (size_t i = 0; i < len;) {
            if (r->skip > 0) {
                size_t n = r->skip < len - i ? (size_t)r->skip : len - i;
                r->skip -= n;
                i += n;
                continue;
            }
            r->head[r->have++] = bytes[i++];
            if (r->have == 9) {
                on_frame_out(p, to, r->head);
                r->skip = (uint64_t)r->head[0] << 16 | (uint64_t)r->head[1] << 8 | r->head[2];
                r->have = 0;
            }
        }
        sm_bridge_took(p->b, to, len);
        max -= len;
    }
}

static void feed(struct play *p, enum sm_bridge_side from, const uint8_t *bytes, size_t len)
{
    if (len > sm_bridge_room(p->b, from) || len == 0)
        return;
    uint8_t *exact = malloc(len);
    must(exact);
    memcpy(exact, bytes, len);
    sm_bridge_feed(p->b, from, exact, len);
    free(exact);
}

static void feed_frame(struct play *p, enum sm_bridge_side from, uint8_t type, uint8_t flags, uint32_t id,
                       const uint8_t *payload, size_t len)
{
    uint8_t frame[9 + 256] = {0, (uint8_t)(len >> 8), (uint8_t)len, type, flags, 0, 0, (uint8_t)(id >> 8), (uint8_t)id};

    memcpy(frame + 9, payload, len);
    feed(p, from, frame, 9 + len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct play p;
    struct sm_bridge_config config = {.tls = true, .strip_alt_svc = true, .account = &p.account};

    if (size < 1)
        return 0;
    p = (struct play){.next = 1, .at_once = data[0] & 1, .edits = data[0] & 8};
    p.scrub = p.edits ? sm_scrub_new((const uint8_t *)"secret", 6) : NULL;
    p.reader[SM_BRIDGE_ORIGIN].skip = 24;
    p.b = sm_bridge_new_h2(&ops, &p, &config);
    if (!(data[0] & 2))
        feed(&p, SM_BRIDGE_GUEST, preface, sizeof(preface) - 1);
    if (!(data[0] & 4))
        feed(&p, SM_BRIDGE_ORIGIN, settings, sizeof(settings));
    for (size_t at = 1; at + 2 <= size;) {
        enum op op = data[at] % OPS;
        const uint8_t *arg = data + at + 2;
        size_t len = data[at + 1];
        len = len < size - at - 2 ? len : size - at - 2;
        at += 2 + len;
        enum sm_bridge_side side = op & 1 ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST;
        switch (op) {
        case OP_GUEST_RAW:
        case OP_ORIGIN_RAW:
            feed(&p, side, arg, len);
            break;
        case OP_GUEST_FRAME:
        case OP_ORIGIN_FRAME:
            if (len >= 3)
                feed_frame(&p, side, arg[0] % 13, arg[1], arg[2], arg + 3, len - 3);
            break;
        case OP_GUEST_REQUEST:
            if (len >= 2) {
                feed_frame(&p, side, 1, (arg[1] & 1) | 4, p.next, blocks[side][arg[0] % 4].bytes,
                           blocks[side][arg[0] % 4].len);
                p.next += 2;
            }
            break;
        case OP_ORIGIN_RESPONSE:
            if (len >= 3 && arg[0] >= 0xf0)
                feed_frame(&p, side, 1, (arg[1] & 1) | 4, arg[2], no_block, sizeof(no_block));
            else if (len >= 3)
                feed_frame(&p, side, 1, (arg[1] & 1) | 4, arg[2], blocks[side][arg[0] % 4].bytes,
                           blocks[side][arg[0] % 4].len);
            break;
        case OP_TAKE:
            if (len >= 2)
                take(&p, arg[0] & 1 ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST, arg[1] * 97u + 1);
            break;
        case OP_ANSWER:
            if (len >= 2)
                answer(&p, arg[0], arg[1] & 1);
            break;
        case OP_EOF:
            if (len >= 2)
                sm_bridge_eof(p.b, arg[0] & 1 ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST, arg[1] & 1);
            break;
        case OPS:
            break;
        }
    }
    take(&p, SM_BRIDGE_GUEST, SIZE_MAX);
    take(&p, SM_BRIDGE_ORIGIN, SIZE_MAX);
    sm_bridge_eof(p.b, SM_BRIDGE_ORIGIN, false);
    take(&p, SM_BRIDGE_GUEST, SIZE_MAX);
    sm_bridge_eof(p.b, SM_BRIDGE_GUEST, true);
    must(sm_bridge_ended(p.b) != SM_BRIDGE_LIVE);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        take(&p, side, SIZE_MAX);
        must(p.reader[side].skip == 0 && p.reader[side].have == 0);
        must(sm_bridge_out_closed(p.b, side));
    }
    for (uint64_t req = 1; req <= p.reqs && req < ASKED_MAX; req++)
        must(p.asked[req] == 0 || p.asked[req] == 3);
    must(sm_bridge_idle(p.b));
    sm_bridge_free(p.b);
    must(p.account == 0);
    sm_scrub_unref(p.scrub);
    return 0;
}
