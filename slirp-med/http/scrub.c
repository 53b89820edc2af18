/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The matcher: four patterns (the secret, and its base64 at three offsets) of units, followed from one beginning at a
 * time. See scrub.h.
 *
 * A unit is one character of a pattern: what it looks like as it is, and what %XX must stand for. From one beginning
 * few states are possible: one for each pattern, and more only where a '%' in the text may be both itself and the
 * beginning of %25. So the states are a list, and the beginning need not be kept in them: it is the same for all.
 * When the list is empty the next beginning is tried; the bytes for that are there, because they were held back.
 */
#include "http/scrub.h"

#include <glib.h>
#include <string.h>

#include "base/secret.h"
#include "http/field.h"

#define PATTERNS 4
/**
 * States from one beginning: four patterns, and few more for a secret that contains percent-encoded text (of thousands
 * that were made of nothing else none needed six). One that is made to need more gets what it asks for: its beginnings
 * are overwritten.
 */
#define STATES_MAX 16
/**
 * A pattern at least so long is taken for the secret after its first half, or SURE_MAX of it: what follows is overwritten whatever it is. A
 * guest that lets an origin say its guesses back sees where bytes are held, and so how far a guess was right: it learns this much, and
 * nothing of the rest. More than the public beginning of any key that we know (sk-ant-api03-), which documentation may well contain.
 */
#define SURE_FROM 32u
#define SURE_MAX 24u
/** The window of the skip table. A longer one skips further but lets more pairs through; measured on text. */
#define WINDOW_MAX 12u
#define PAIRS 4096u
#define FAR 0x7fu    /* how far the window may move on */
#define BEGINS 0x80u /* this pair may begin a match */
#define NEXT_MAX 32u

struct unit {
    uint8_t raw[2]; /* twice the same if there is one way only */
    uint8_t coded[2];
};

struct pattern {
    const struct unit *units;
    uint32_t len;
    uint32_t sure; /* units behind which it is taken for the secret; len: nothing less than all */
};

struct sm_scrub {
    unsigned refs;
    unsigned window;
    struct pattern patterns[PATTERNS];
    struct sm_secret *units; /* of all patterns */
    bool first[256];         /* may begin a match */
    bool part[256];          /* what a match that is sure goes on over */
    uint8_t skip[PAIRS];     /* by pair(): FAR and BEGINS */
};

/* Where in a unit: nothing yet, behind its '%', behind the first digit of coded[0], coded[1] or both. */
enum within { AT_UNIT, AT_PERCENT, AT_DIGIT };

struct state {
    uint8_t pattern;
    uint8_t within; /* AT_DIGIT + 0, 1, 2: of coded[0], coded[1], both */
    uint32_t unit;
};

struct states {
    struct state list[STATES_MAX];
    unsigned n;
};

/* The rest of a match that is sure. */
struct rest {
    uint32_t units;
    uint8_t within; /* bytes of a %XX so far */
};

enum outcome { OPEN, DEAD, MATCH };

struct framing {
    size_t at; /* how many bytes of the held text stand before it */
    size_t len;
};

struct bytes {
    uint8_t *p;
    size_t len, cap;
};

struct sm_scrub_stream {
    struct sm_scrub *scrub;
    size_t *account;
    unsigned matches;
    struct rest rest;     /* to be overwritten yet; then nothing is held */
    struct states states; /* after the held text */
    struct bytes text;    /* held: begins with what may be the beginning of a match */
    struct bytes framing; /* held with it, and where: */
    GArray *frames;       /* of struct framing; NULL: none */
    size_t frames_done;   /* left already, while text is being released */
    size_t framing_done;
};

static size_t pair(uint8_t a, uint8_t b)
{
    return (size_t)a << 4 ^ b;
}

/* Patterns. */

static struct unit unit_of(uint8_t a, uint8_t b, uint8_t coded_b)
{
    return (struct unit){.raw = {a, b}, .coded = {a, coded_b}};
}

static size_t add_plain(struct unit *units, const uint8_t *secret, size_t len)
{
    for (size_t i = 0; i < len; i++)
        units[i] = unit_of(secret[i], secret[i] == ' ' ? '+' : secret[i], secret[i]);
    return len;
}

/* The characters of base64 that depend on the secret alone, where it begins behind `before` bytes (modulo 3). */
static size_t add_base64(struct unit *units, const uint8_t *secret, size_t len, size_t before)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t begin = (before * 8 + 5) / 6, end = (before + len) * 8 / 6;
    size_t n = 0;

    for (size_t c = begin; c < end; c++) {
        unsigned value = 0;
        for (size_t bit = c * 6 - before * 8, i = 0; i < 6; i++, bit++)
            value = value << 1 | (secret[bit / 8] >> (7 - bit % 8) & 1u);
        uint8_t a = (uint8_t)alphabet[value];
        uint8_t b = value == 62 ? '-' : value == 63 ? '_' : a;
        units[n++] = unit_of(a, b, b);
    }
    return n;
}

/* One byte more in one state: at most two states behind it. A unit at the end of its pattern is a match. */
static unsigned step(const struct sm_scrub *k, struct state s, uint8_t c, struct state ret[2])
{
    const struct unit *u = &k->patterns[s.pattern].units[s.unit];
    unsigned n = 0;

    if (s.within == AT_UNIT) {
        if (c == u->raw[0] || c == u->raw[1])
            ret[n++] = (struct state){.pattern = s.pattern, .within = AT_UNIT, .unit = s.unit + 1};
        if (c == '%')
            ret[n++] = (struct state){.pattern = s.pattern, .within = AT_PERCENT, .unit = s.unit};
        return n;
    }
    if (!sm_http_is(c, SM_HTTP_HEX))
        return 0;
    unsigned digit = sm_http_hex(c);
    if (s.within == AT_PERCENT) {
        bool a = u->coded[0] >> 4 == digit, b = u->coded[1] >> 4 == digit;
        if (a || b) {
            uint8_t which = a && b ? 2 : b ? 1 : 0;
            ret[n++] = (struct state){.pattern = s.pattern, .within = AT_DIGIT + which, .unit = s.unit};
        }
        return n;
    }
    unsigned which = s.within - (unsigned)AT_DIGIT;
    if ((which != 1 && (u->coded[0] & 15u) == digit) || (which != 0 && (u->coded[1] & 15u) == digit))
        ret[n++] = (struct state){.pattern = s.pattern, .within = AT_UNIT, .unit = s.unit + 1};
    return n;
}

/* What could be the next byte in a state: more than that does no harm, step() knows. */
static size_t next_bytes(const struct sm_scrub *k, struct state s, uint8_t ret[NEXT_MAX])
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const struct unit *u = &k->patterns[s.pattern].units[s.unit];

    if (s.within != AT_UNIT) {
        memcpy(ret, digits, sizeof(digits) - 1);
        return sizeof(digits) - 1;
    }
    ret[0] = u->raw[0];
    ret[1] = u->raw[1];
    ret[2] = '%';
    return u->raw[0] == '%' || u->raw[1] == '%' ? 2 : 3;
}

static bool is_known(const struct state *list, size_t n, struct state s)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].pattern == s.pattern && list[i].within == s.within && list[i].unit == s.unit)
            return true;
    return false;
}

/* Byte a in a state, at that offset of the window: what it may be followed by, and the states behind it. */
static void fill_from(struct sm_scrub *k, struct state s, uint8_t a, unsigned offset, GArray *next)
{
    uint8_t far = (uint8_t)(k->window - 2 - offset), b[NEXT_MAX];
    struct state one[2], two[2];
    unsigned n = step(k, s, a, one);

    if (offset == 0 && n > 0)
        k->first[a] = true;
    for (unsigned i = 0; i < n; i++) {
        if (!is_known((const void *)next->data, next->len, one[i]))
            g_array_append_val(next, one[i]);
        size_t b_len = next_bytes(k, one[i], b);
        for (size_t y = 0; y < b_len; y++) {
            uint8_t *skip = &k->skip[pair(a, b[y])];
            if (step(k, one[i], b[y], two) == 0)
                continue;
            if ((*skip & FAR) > far)
                *skip = (uint8_t)((*skip & BEGINS) | far);
            if (offset == 0)
                *skip |= BEGINS;
        }
    }
}

/* The pairs of bytes that a window in which a match begins may hold, offset by offset. */
static void fill_pairs(struct sm_scrub *k, unsigned pattern)
{
    GArray *now = g_array_new(FALSE, FALSE, sizeof(struct state));
    struct state first = {.pattern = (uint8_t)pattern};
    uint8_t a[NEXT_MAX];

    g_array_append_val(now, first);
    for (unsigned offset = 0; offset + 2 <= k->window; offset++) {
        GArray *next = g_array_new(FALSE, FALSE, sizeof(struct state));
        for (guint i = 0; i < now->len; i++) {
            struct state s = g_array_index(now, struct state, i);
            size_t n = next_bytes(k, s, a);
            for (size_t x = 0; x < n; x++)
                fill_from(k, s, a[x], offset, next);
        }
        g_array_unref(now);
        now = next;
    }
    g_array_unref(now);
}

static void fill_part(struct sm_scrub *k)
{
    static const char token68[] = "-._~+/=%"; /* and what is sm_http_is() ALPHA or DIGIT: nearly every credential */

    for (unsigned c = 0; c < 256; c++)
        k->part[c] = sm_http_is((uint8_t)c, SM_HTTP_ALPHA | SM_HTTP_DIGIT) || (c && strchr(token68, (int)c));
    for (unsigned i = 0; i < PATTERNS; i++)
        for (uint32_t u = 0; u < k->patterns[i].len; u++)
            k->part[k->patterns[i].units[u].raw[0]] = k->part[k->patterns[i].units[u].raw[1]] = true;
}

struct sm_scrub *sm_scrub_new(const uint8_t *secret, size_t len)
{
    if (len < SM_SCRUB_SECRET_MIN || len > SM_SCRUB_SECRET_MAX)
        return NULL;
    struct sm_scrub *k = g_new0(struct sm_scrub, 1);
    size_t cap = len + 3 * (len / 3 * 4 + 4), n = 0, counts[PATTERNS];
    struct unit *units = g_new0(struct unit, cap);

    for (unsigned i = 0; i < PATTERNS; i++) {
        counts[i] = i == 0 ? add_plain(units + n, secret, len) : add_base64(units + n, secret, len, i - 1);
        n += counts[i];
    }
    k->refs = 1;
    k->window = WINDOW_MAX;
    k->units = sm_secret_new(units, n * sizeof(*units));
    g_free(units);
    const struct unit *at = (const void *)sm_secret_bytes(k->units, &n);
    for (unsigned i = 0; i < PATTERNS; i++) {
        uint32_t n_units = (uint32_t)counts[i];
        k->patterns[i] = (struct pattern){
            .units = at, .len = n_units, .sure = n_units < SURE_FROM ? n_units : SM_MIN(n_units / 2, SURE_MAX)};
        at += counts[i];
        k->window = SM_MIN(k->window, k->patterns[i].len);
    }
    /* The second byte of a pair at the window's end may be a match's first. */
    memset(k->skip, (int)k->window - 1, sizeof(k->skip));
    for (unsigned i = 0; i < PATTERNS; i++)
        fill_pairs(k, i);
    fill_part(k);
    return k;
}

struct sm_scrub *sm_scrub_ref(struct sm_scrub *k)
{
    k->refs++;
    return k;
}

void sm_scrub_unref(struct sm_scrub *k)
{
    if (!k || --k->refs > 0)
        return;
    sm_secret_free(k->units);
    sm_wipe(k, sizeof(*k));
    g_free(k);
}

/* The search. */

/* The next place at or behind `at` where a match may begin; len: none. */
static size_t find(const struct sm_scrub *k, const uint8_t *p, size_t len, size_t at)
{
    size_t window = k->window;

    while (at + window <= len) {
        unsigned far = k->skip[pair(p[at + window - 2], p[at + window - 1])] & FAR;
        /* Nearly always. Said so, the processor need not wait for this look-up to begin the next. */
        if (far == window - 1)
            at += window - 1;
        else if (far > 0)
            at += far;
        else if (k->skip[pair(p[at], p[at + 1])] & BEGINS)
            return at;
        else
            at++;
    }
    while (at < len && !k->first[p[at]])
        at++;
    return at;
}

static void begin(struct states *s)
{
    s->n = PATTERNS;
    for (unsigned i = 0; i < PATTERNS; i++)
        s->list[i] = (struct state){.pattern = (uint8_t)i};
}

/* Is this byte of the rest too? A byte that no match may contain ends it; %XX is one unit, whatever it stands for. */
static bool takes(const struct sm_scrub *k, struct rest *r, uint8_t c)
{
    if (r->within > 0 && !sm_http_is(c, SM_HTTP_HEX)) { /* that '%' stood for itself, and so did the digit behind it */
        r->units -= SM_MIN(r->units, (uint32_t)r->within);
        r->within = 0;
    }
    if (r->units == 0 || !k->part[c]) {
        *r = (struct rest){0};
        return false;
    }
    if (r->within > 0 || c == '%')
        r->within++;
    if (r->within == 0 || r->within == 3) {
        r->within = 0;
        r->units--;
    }
    return true;
}

/* Follow the states over more bytes. *ret_used: how many were looked at; *ret_rest: of a match. */
static enum outcome follow(const struct sm_scrub *k, struct states *s, const uint8_t *p, size_t len, size_t *ret_used,
                           struct rest *ret_rest)
{
    for (size_t i = 0; i < len; i++) {
        struct states next = {.n = 0};
        *ret_used = i + 1;
        for (unsigned j = 0; j < s->n; j++) {
            struct state after[2];
            unsigned n = step(k, s->list[j], p[i], after);
            for (unsigned x = 0; x < n; x++) {
                const struct pattern *pattern = &k->patterns[after[x].pattern];
                *ret_rest = (struct rest){0};
                if (after[x].unit == pattern->sure && after[x].within == AT_UNIT) {
                    ret_rest->units = pattern->len - pattern->sure;
                    return MATCH;
                }
                if (next.n == STATES_MAX)
                    return MATCH;
                next.list[next.n++] = after[x];
            }
        }
        if (next.n == 0)
            return DEAD;
        s->n = next.n;
        memcpy(s->list, next.list, next.n * sizeof(next.list[0]));
    }
    return OPEN;
}

unsigned sm_scrub_text(const struct sm_scrub *k, uint8_t *text, size_t len)
{
    unsigned matches = 0;
    struct states states;
    struct rest rest;

    for (size_t at = 0; (at = find(k, text, len, at)) < len;) {
        size_t used = 0;
        begin(&states);
        if (follow(k, &states, text + at, len - at, &used, &rest) == MATCH) {
            while (at + used < len && takes(k, &rest, text[at + used]))
                used++;
            memset(text + at, '*', used);
            at += used;
            matches++;
        } else {
            at++;
        }
    }
    return matches;
}

/* Held bytes. */

/* Without leaving a copy behind. */
static void append(struct bytes *b, const uint8_t *p, size_t len)
{
    if (b->len + len > b->cap) {
        size_t cap = SM_MAX(SM_MAX(b->cap * 2, (size_t)64), b->len + len);
        uint8_t *larger = g_malloc(cap);
        if (b->len > 0)
            memcpy(larger, b->p, b->len);
        sm_wipe(b->p, b->cap);
        g_free(b->p);
        b->p = larger;
        b->cap = cap;
    }
    if (len > 0)
        memcpy(b->p + b->len, p, len);
    b->len += len;
}

static void drop(struct bytes *b, size_t n)
{
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->len - n);
    sm_wipe(b->p + b->len - n, n);
    b->len -= n;
}

static void bytes_free(struct bytes *b)
{
    sm_wipe(b->p, b->cap);
    g_free(b->p);
    *b = (struct bytes){0};
}

struct sm_scrub_stream *sm_scrub_stream_new(struct sm_scrub *k, size_t *account)
{
    struct sm_scrub_stream *s = g_new0(struct sm_scrub_stream, 1);

    s->scrub = sm_scrub_ref(k);
    s->account = account;
    return s;
}

size_t sm_scrub_held(const struct sm_scrub_stream *s)
{
    return s->text.len + s->framing.len;
}

unsigned sm_scrub_matches(const struct sm_scrub_stream *s)
{
    return s->matches;
}

void sm_scrub_stream_free(struct sm_scrub_stream *s)
{
    if (!s)
        return;
    if (s->account)
        *s->account -= sm_scrub_held(s);
    bytes_free(&s->text);
    bytes_free(&s->framing);
    if (s->frames)
        g_array_unref(s->frames);
    sm_scrub_unref(s->scrub);
    g_free(s);
}

static void put_stars(struct sm_outq *out, size_t n)
{
    static const char stars[] = "****************************************************************";

    for (size_t part; n > 0; n -= part) {
        part = SM_MIN(n, sizeof(stars) - 1);
        sm_outq_put(out, stars, part);
    }
}

static void put(struct sm_outq *out, const uint8_t *p, size_t n, bool star)
{
    if (star)
        put_stars(out, n);
    else if (n > 0)
        sm_outq_put(out, p, n);
}

/*
 * The text is the held one and `p` behind it. Put [from, to) of it into out, with the framing that then has nothing in
 * front of it any more.
 */
static void release(struct sm_scrub_stream *s, const uint8_t *p, size_t from, size_t to, bool star, struct sm_outq *out)
{
    size_t held = s->text.len;

    while (s->frames && s->frames_done < s->frames->len) {
        const struct framing *f = &g_array_index(s->frames, struct framing, s->frames_done);
        if (f->at > to)
            break;
        put(out, s->text.p + from, f->at - from, star);
        sm_outq_put(out, s->framing.p + s->framing_done, f->len);
        from = f->at;
        s->framing_done += f->len;
        s->frames_done++;
    }
    if (from < held) {
        size_t part = SM_MIN(to, held);
        put(out, s->text.p + from, part - from, star);
        from = part;
    }
    if (from < to)
        put(out, p + (from - held), to - from, star);
}

/* The first n bytes of the held text have left. */
static void forget(struct sm_scrub_stream *s, size_t n)
{
    drop(&s->text, n);
    drop(&s->framing, s->framing_done);
    if (s->frames) {
        if (s->frames_done > 0)
            g_array_remove_range(s->frames, 0, (guint)s->frames_done);
        for (guint i = 0; i < s->frames->len; i++)
            g_array_index(s->frames, struct framing, i).at -= n;
    }
    s->framing_done = s->frames_done = 0;
}

static void recount(struct sm_scrub_stream *s, size_t before)
{
    if (s->account)
        *s->account += sm_scrub_held(s) - before;
}

/* Too much is held: what cannot be decided within the bound is decided against it. */
static void bound(struct sm_scrub_stream *s, struct sm_outq *out)
{
    if (sm_scrub_held(s) <= SM_SCRUB_HELD_MAX)
        return;
    release(s, NULL, 0, s->text.len, true, out);
    forget(s, s->text.len);
    s->matches++;
}

void sm_scrub_framing(struct sm_scrub_stream *s, const uint8_t *data, size_t len, struct sm_outq *out)
{
    struct framing f = {.at = s->text.len, .len = len};
    size_t before = sm_scrub_held(s);

    if (len == 0)
        return;
    if (s->text.len == 0) {
        sm_outq_put(out, data, len);
        return;
    }
    append(&s->framing, data, len);
    if (!s->frames)
        s->frames = g_array_new(FALSE, FALSE, sizeof(f));
    g_array_append_val(s->frames, f);
    bound(s, out);
    recount(s, before);
}

void sm_scrub_end(struct sm_scrub_stream *s, struct sm_outq *out)
{
    size_t before = sm_scrub_held(s);

    release(s, NULL, 0, s->text.len, false, out);
    forget(s, s->text.len);
    s->rest = (struct rest){0};
    recount(s, before);
}

/* find() over the held text, of which little is left, and what stands behind it. */
static size_t find_in_both(const struct sm_scrub_stream *s, const uint8_t *p, size_t len, size_t at)
{
    size_t held = s->text.len;

    for (; at < held; at++)
        if (s->scrub->first[s->text.p[at]])
            return at;
    return held + find(s->scrub, p, len, at - held);
}

static enum outcome follow_in_both(struct sm_scrub_stream *s, const uint8_t *p, size_t len, size_t *pos)
{
    size_t held = s->text.len, used = 0;
    enum outcome outcome = OPEN;

    if (*pos < held) {
        outcome = follow(s->scrub, &s->states, s->text.p + *pos, held - *pos, &used, &s->rest);
        *pos += used;
    }
    if (outcome == OPEN && held + len > *pos) {
        outcome = follow(s->scrub, &s->states, p + (*pos - held), held + len - *pos, &used, &s->rest);
        *pos += used;
    }
    return outcome;
}

/* Where the rest of a match ends, as far as it is there. */
static size_t skip_rest(struct sm_scrub_stream *s, const uint8_t *p, size_t len, size_t pos)
{
    size_t held = s->text.len;

    while (pos < held + len && takes(s->scrub, &s->rest, pos < held ? s->text.p[pos] : p[pos - held]))
        pos++;
    return pos;
}

void sm_scrub_data(struct sm_scrub_stream *s, const uint8_t *data, size_t len, struct sm_outq *out)
{
    size_t held = s->text.len, before = sm_scrub_held(s), end = held + len;
    size_t left = 0;         /* of the text; what is in front of it has been released */
    size_t at = 0;           /* a match may begin here */
    size_t pos = held;       /* ... and this byte is the next to look at */
    bool follows = held > 0; /* the states are those of an earlier call */

    if (len == 0)
        return;
    if (s->rest.units > 0 && !follows) {
        left = at = skip_rest(s, data, len, 0);
        release(s, data, 0, at, true, out);
    }
    while (follows || (at = find_in_both(s, data, len, at)) < end) {
        if (!follows) {
            begin(&s->states);
            pos = at;
        }
        follows = false;
        enum outcome outcome = follow_in_both(s, data, len, &pos);
        if (outcome == OPEN)
            break;
        if (outcome == DEAD) {
            at++;
            continue;
        }
        release(s, data, left, at, false, out);
        pos = skip_rest(s, data, len, pos);
        release(s, data, at, pos, true, out);
        s->matches++;
        left = at = pos;
    }
    release(s, data, left, at, false, out);
    forget(s, SM_MIN(at, held));
    append(&s->text, data + (SM_MAX(at, held) - held), end - SM_MAX(at, held));
    bound(s, out);
    recount(s, before);
}
