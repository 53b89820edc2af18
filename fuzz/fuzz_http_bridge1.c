/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/h1.c as a whole: the input is a script of what both sides send, take and end, and of the judge's answers.
 *
 * What must hold whatever they do: what the origin gets is the beginning of what the guest sent, byte for byte, but for
 * edited heads (edit.h); it does not grow while a request is at the judge, nor ever again after a refusal; a second,
 * plain reader finds in it no more requests than were passed, and no offer of h2c. A request whose path has "edit" in
 * it is answered with one, and with "bad" in it with one that cannot be made; with "again" in it, it is sent again after
 * a 401 if it can be, and then stands twice in what the origin gets, with another value. What the guest gets is the
 * beginning of what the origin sent, with asterisks where it was scrubbed, the 401 left out if there was such a one, and
 * a page of ours at most at its end. What waits is bounded, and every request is told of exactly once.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http/body.h"
#include "http/bridge.h"
#include "http/edit.h"
#include "http/head.h"
#include "http/scrub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGE_MAX 200
/** Requests that are followed when they are sent again. */
#define AGAIN_MAX 256

struct world {
    struct sm_bridge *b;
    GByteArray *sent[SM_BRIDGE_SIDES]; /* by that side */
    GByteArray *got[SM_BRIDGE_SIDES];
    bool eof[SM_BRIDGE_SIDES];
    uint64_t asked, passed, told;
    uint64_t pending; /* request at the judge */
    unsigned pages;
    bool later, refused, upgraded;
    struct sm_scrub *scrub;
    bool edit, bad; /* of the pending request */
    bool second;    /* it was answered before, and got a 401 */
    bool replayed[AGAIN_MAX];
    unsigned replays;
    size_t account;
    size_t limit; /* what the origin may have while the judge thinks, or after a refusal */
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

static size_t waiting(struct world *w, enum sm_bridge_side side)
{
    const uint8_t *p;
    size_t n;

    /* Everything is taken at once where it is counted, so that nothing hides in later blocks. */
    while ((n = sm_bridge_out(w->b, side, &p)) > 0) {
        g_byte_array_append(w->got[side], p, (guint)n);
        sm_bridge_took(w->b, side, n);
    }
    return w->got[side]->len;
}

static struct sm_bridge_edit edit_of(struct sm_scrub *scrub, bool second)
{
    return (struct sm_bridge_edit){.name = "X",
                                   .value = second ? "second" : "secret",
                                   .value_len = 6,
                                   .identity = true,
                                   .scrub = scrub,
                                   .replay = true};
}

static bool has(const void *p, size_t len, const char *word)
{
    return memmem(p, len, word, strlen(word)) != NULL;
}

static void answer(struct world *w, bool pass)
{
    struct sm_bridge_edit edit = edit_of(w->scrub, w->second);
    struct sm_bridge_answer a = {.pass = pass, .status = 403, .body = "{}", .body_len = 2};
    uint64_t req = w->pending;

    if (req == 0)
        return;
    if (w->edit || w->bad)
        a.edit = &edit;
    if (w->bad)
        edit.value = "a\r\nb:";
    pass &= !w->bad;
    w->pending = 0;
    w->passed += pass;
    w->refused |= !pass;
    w->pages += !pass;
    if (pass && w->second && req < AGAIN_MAX)
        w->replayed[req] = true;
    sm_bridge_answer(w->b, req, &a);
}

static bool on_rejected(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct world *w = ctx;

    require(w->pending == 0 && !w->refused && r->req == w->asked && r->req == w->told + 1 && b == w->b);
    require(has(r->path.ptr, r->path.len, "edit") && !w->bad && !r->upgrade);
    if (!has(r->path.ptr, r->path.len, "again") || r->req >= AGAIN_MAX)
        return false;
    w->pending = r->req;
    w->second = true;
    w->replays++;
    w->limit = waiting(w, SM_BRIDGE_ORIGIN);
    if (!w->later)
        answer(w, !has(r->path.ptr, r->path.len, "never"));
    return true;
}

static void on_request(void *ctx, struct sm_bridge *b, const struct sm_bridge_request *r)
{
    struct world *w = ctx;

    require(w->pending == 0 && !w->refused && r->req == w->asked + 1 && b == w->b);
    require(r->method.len > 0 && r->path.len > 0 && (r->authority.len > 0 || strcmp(r->protocol, "HTTP/1.0") == 0));
    w->asked++;
    w->pending = r->req;
    w->second = false;
    w->limit = waiting(w, SM_BRIDGE_ORIGIN);
    w->edit = has(r->path.ptr, r->path.len, "edit");
    w->bad = has(r->path.ptr, r->path.len, "bad");
    struct sm_text name, value;
    size_t hosts = 0;
    for (size_t at = 0; sm_bridge_request_field(r, &at, &name, &value);)
        hosts += name.len == 4 && strncasecmp(name.ptr, "host", 4) == 0;
    require(hosts <= 1 && (hosts == 1) == (sm_bridge_request_value(r, "Host", 0).ptr != NULL));
    if (!w->later)
        answer(w, !has(r->path.ptr, r->path.len, "deny"));
}

static void on_response(void *ctx, const struct sm_bridge_response *r)
{
    struct world *w = ctx;

    require(r->req == w->told + 1 && r->req <= w->asked);
    w->told++;
    w->upgraded |= r->outcome == SM_BRIDGE_UPGRADED;
    if (r->req == w->pending)
        w->pending = 0;
}

static void on_broken(void *ctx, enum sm_bridge_side by, uint64_t req, const char *reason)
{
    struct world *w = ctx;

    require(reason && reason[0] && req <= w->asked && by < SM_BRIDGE_SIDES);
    w->pages++;
}

static size_t on_page(void *ctx, uint16_t status, const char *reason, char *out, size_t cap)
{
    (void)ctx;
    (void)reason;
    require((status == 400 || status == 502) && cap >= 2);
    memcpy(out, "{}", 2);
    return 2;
}

static const struct sm_bridge_ops ops = {
    .request = on_request, .response = on_response, .broken = on_broken, .page = on_page, .rejected = on_rejected};

/* The message at p, of which the head is whole: what there is of it. True: its end is there. */
static bool message(const struct sm_http_head *head, const uint8_t *p, size_t left, const char *no_trailer,
                    size_t *ret_len)
{
    struct sm_http_body body;
    enum sm_http_body_status status = SM_HTTP_BODY_DONE;
    size_t used = 0;

    if (head->framing.chunked || head->framing.content_length > 0) {
        sm_http_body_init(&body, head->framing.chunked ? SM_HTTP_BODY_CHUNKED : SM_HTTP_BODY_LENGTH,
                          head->framing.content_length);
        body.no_trailer = no_trailer;
        status = sm_http_body_feed(&body, p + head->consumed, left - head->consumed, &used);
    }
    *ret_len = head->consumed + used;
    return status == SM_HTTP_BODY_DONE;
}

/*
 * What the guest sent, with its heads edited, if what follows the raw-th upgrade request (0 is the first) is no HTTP
 * any more.
 */
static GByteArray *wanted(const struct world *w, unsigned raw, unsigned *ret_upgrades)
{
    const GByteArray *sent = w->sent[SM_BRIDGE_GUEST];
    uint64_t req = 0;
    bool second = false;
    GByteArray *want = g_byte_array_new();
    const uint8_t *p = sent->data;
    size_t left = sent->len, len;
    struct sm_http_head head;

    *ret_upgrades = 0;
    while (left > 0 && *ret_upgrades <= raw) {
        sm_http_head_init(&head);
        if (sm_http_head_feed(&head, p, left) != SM_HTTP_HTTP1)
            break;
        *ret_upgrades += head.upgrade;
        struct sm_bridge_edit from = {.name = NULL};
        if (has(p + head.path.off, head.path.len, "edit"))
            from = edit_of(NULL, second);
        struct sm_http_edit none = {0}, *made = sm_http_edit_new(&from), *edit = made ? made : &none;
        edit->drop_h2c = head.h2c;
        bool whole = message(&head, p, left, edit->name, &len);
        g_autofree uint8_t *out = g_malloc(sm_http_edit_room(edit, head.consumed));
        g_byte_array_append(want, out, (guint)sm_http_edit_head(edit, p, head.consumed, out));
        sm_http_edit_free(made);
        g_byte_array_append(want, p + head.consumed, (guint)(len - head.consumed));
        req += !second;
        second = !second && whole && req < AGAIN_MAX && w->replayed[req];
        if (second)
            continue;
        p += len;
        left -= len;
        if (!whole)
            break;
    }
    g_byte_array_append(want, p, (guint)left);
    return want;
}

/* The origin has a beginning of it, whichever upgrade it has granted. */
static bool is_wanted(const struct world *w)
{
    const GByteArray *got = w->got[SM_BRIDGE_ORIGIN];
    bool ok = false;
    unsigned upgrades = 0;

    for (unsigned raw = 0; !ok && raw <= upgrades; raw++) {
        g_autoptr(GByteArray) want = wanted(w, raw, &upgrades);
        ok = got->len == 0 || (got->len <= want->len && memcmp(got->data, want->data, got->len) == 0);
    }
    return ok;
}

static void check(struct world *w)
{
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        size_t before = w->got[side]->len;
        size_t got = waiting(w, side);
        require(got - before <= SM_BRIDGE_OUT_MAX + PAGE_MAX);
    }
    const GByteArray *sent = w->sent[SM_BRIDGE_ORIGIN], *got = w->got[SM_BRIDGE_GUEST];
    size_t same = 0;
    /* Where something was left out, it is not said where. */
    for (size_t at = 0; same < got->len && at < sent->len; at++) {
        if (got->data[same] == sent->data[at] || (w->scrub && got->data[same] == '*'))
            same++;
        else if (w->replays == 0)
            break;
    }
    require(same == got->len || (w->pages > 0 && got->len - same <= PAGE_MAX));
    require(is_wanted(w));
    if (w->pending || w->refused)
        require(w->got[SM_BRIDGE_ORIGIN]->len <= w->limit);
    if (sm_bridge_ended(w->b) != SM_BRIDGE_LIVE)
        require(w->told == w->asked && sm_bridge_idle(w->b));
}

/* How many request heads would a server see? What follows an upgrade request may be raw. */
static uint64_t heads_in(const GByteArray *bytes)
{
    const uint8_t *p = bytes->data;
    size_t left = bytes->len;
    uint64_t n = 0;

    while (left > 0) {
        struct sm_http_head head;
        size_t len;
        sm_http_head_init(&head);
        if (sm_http_head_feed(&head, p, left) != SM_HTTP_HTTP1)
            break;
        require(!head.h2c); /* and so no HTTP2-Settings either: alone they are refused */
        n++;
        if (head.upgrade || !message(&head, p, left, NULL, &len))
            break;
        p += len;
        left -= len;
    }
    return n;
}

static void send_bytes(struct world *w, enum sm_bridge_side side, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = SM_MIN(sm_bridge_room(w->b, side), len);
        if (n == 0 || w->eof[side])
            return;
        uint8_t *copy = g_memdup2(data, n);
        g_byte_array_append(w->sent[side], data, (guint)n);
        sm_bridge_lend(w->b, side, copy, n);
        sm_bridge_keep(w->b);
        g_free(copy);
        check(w);
        data += n;
        len -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {0};
    struct sm_bridge_config config = {.tls = true, .account = &w.account};
    size_t at = 1;

    if (size < 1)
        return 0;
    w.later = data[0] & 1;
    w.scrub = data[0] & 2 ? sm_scrub_new((const uint8_t *)"secret", 6) : NULL;
    w.b = sm_bridge_new_h1(&ops, &w, &config);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        w.sent[side] = g_byte_array_new();
        w.got[side] = g_byte_array_new();
    }
    while (at < size) {
        uint8_t op = data[at++];
        enum sm_bridge_side side = op & 1 ? SM_BRIDGE_ORIGIN : SM_BRIDGE_GUEST;
        switch (op >> 5) {
        case 0: /* end */
            if (!w.eof[side]) {
                w.eof[side] = true;
                sm_bridge_eof(w.b, side, op & 2);
            }
            break;
        case 1:
            answer(&w, !(op & 2));
            break;
        default: { /* the next bytes, up to a length of its own or a NUL */
            size_t left = size - at;
            const uint8_t *nul = memchr(data + at, 0, left);
            size_t len = nul ? (size_t)(nul - data) - at : left;
            if ((op >> 5) & 1)
                for (size_t i = 0; i < len; i++)
                    send_bytes(&w, side, data + at + i, 1);
            else
                send_bytes(&w, side, data + at, len);
            at += len + (nul ? 1 : 0);
            break;
        }
        }
        check(&w);
    }
    require(heads_in(w.got[SM_BRIDGE_ORIGIN]) <= w.passed);
    require(w.told <= w.asked);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        if (!w.eof[side])
            sm_bridge_eof(w.b, side, true);
        check(&w);
    }
    answer(&w, true);
    check(&w);
    require(sm_bridge_ended(w.b) != SM_BRIDGE_LIVE && w.told == w.asked);
    sm_bridge_free(w.b);
    require(w.account == 0);
    sm_scrub_unref(w.scrub);
    for (unsigned side = 0; side < SM_BRIDGE_SIDES; side++) {
        g_byte_array_unref(w.sent[side]);
        g_byte_array_unref(w.got[side]);
    }
    return 0;
}
