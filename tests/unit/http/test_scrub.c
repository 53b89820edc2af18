/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The matcher of http/scrub.h: what it finds, at every split point; what it holds back and what not; and against a
 * model, a plain search that tries every form of the secret at every place, over texts that are made of pieces of
 * matches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>

#include "http/outq.h"
#include "http/scrub.h"

#define MODEL_TEXTS 3000

/* Takes all that is in the queue. */
static void drain(struct sm_outq *q, GString *to)
{
    const uint8_t *p;
    size_t n;

    while ((n = sm_outq_peek(q, &p)) > 0) {
        g_string_append_len(to, (const char *)p, (gssize)n);
        sm_outq_took(q, n);
    }
}

static void feed(struct sm_scrub_stream *s, const char *p, size_t n, GString *to)
{
    struct sm_outq q = {0};
    /* Of the exact size, so that the sanitizers see one byte too many. */
    g_autofree uint8_t *copy = g_memdup2(p, n);

    sm_scrub_data(s, copy, n, &q);
    drain(&q, to);
}

static void end(struct sm_scrub_stream *s, GString *to)
{
    struct sm_outq q = {0};

    sm_scrub_end(s, &q);
    drain(&q, to);
}

static struct sm_scrub *scrub_of(const char *secret)
{
    struct sm_scrub *k = sm_scrub_new((const uint8_t *)secret, strlen(secret));

    assert_non_null(k);
    return k;
}

/* The text whole, in two pieces cut at every place, and byte by byte; as a stream and as one text. */
static void check(const char *secret, const char *text, const char *want, unsigned matches)
{
    struct sm_scrub *k = scrub_of(secret);
    size_t len = strlen(text), account = 0;

    assert_int_equal(len, strlen(want));
    for (size_t cut = 0; cut <= len + 1; cut++) {
        struct sm_scrub_stream *s = sm_scrub_stream_new(k, &account);
        g_autoptr(GString) got = g_string_new(NULL);
        if (cut <= len) {
            feed(s, text, cut, got);
            feed(s, text + cut, len - cut, got);
        } else {
            for (size_t i = 0; i < len; i++)
                feed(s, text + i, 1, got);
        }
        assert_int_equal(got->len + sm_scrub_held(s), len);
        assert_int_equal(account, sm_scrub_held(s));
        end(s, got);
        assert_int_equal(sm_scrub_held(s), 0);
        assert_string_equal(got->str, want);
        assert_int_equal(sm_scrub_matches(s), matches);
        sm_scrub_stream_free(s);
        assert_int_equal(account, 0);
    }
    g_autofree char *copy = g_strdup(text);
    assert_int_equal(sm_scrub_text(k, (uint8_t *)copy, len), matches);
    assert_string_equal(copy, want);
    sm_scrub_unref(k);
}

#define KEY "sk-Test/0+9 z?"
#define STARS "**************" /* 14 */

static void test_plain_and_percent(void **state)
{
    (void)state;
    check(KEY, "", "", 0);
    check(KEY, KEY, STARS, 1);
    check(KEY, "a" KEY "b" KEY KEY "c", "a" STARS "b" STARS STARS "c", 3);
    check(KEY, "sk-Test/0+9 z", "sk-Test/0+9 z", 0);
    check(KEY, "sk-Test/0+9 zsk-Test/0+9 z?!", "sk-Test/0+9 z" STARS "!", 1);
    check(KEY, "sk-sk-sk-Test/0+9 z?", "sk-sk-" STARS, 1);
    check(KEY, "sk-test/0+9 z?", "sk-test/0+9 z?", 0); /* case counts */
    /* As RFC 3986 and as forms have it, in either case. */
    check(KEY, "q=sk-Test%2F0%2B9%20z%3F&r", "q=**********************&r", 1);
    check(KEY, "q=sk-Test%2f0%2b9+z%3f&r", "q=********************&r", 1);
    /* Whatever is encoded, and whatever is not. */
    check(KEY, "%73%6B%2d%54%65%73%74%2F%30%2b%39%20%7A%3f", "******************************************", 1);
    check(KEY, "s%6b-%54est/%30+9 %7A?", "**********************", 1);
    check(KEY, "%73k-Test/0+9+z?", "****************", 1);
    check(KEY, "%73k-Test/0+9%2Bz?", "%73k-Test/0+9%2Bz?", 0); /* a plus is no space */
    check(KEY, "%%73k-Test/0+9 z?%", "%****************%", 1);
    check(KEY, "%7%73k-Test/0+9 z%3", "%7%73k-Test/0+9 z%3", 0);
}

/* A secret that looks like what is encoded. */
static void test_percent_in_the_secret(void **state)
{
    (void)state;
    check("100%25!", "100%25!", "*******", 1);
    check("100%25!", "100%2525!", "*********", 1);
    check("100%25!", "100%25%32%35!", "*************", 1);
    check("100%25!", "1%300%252%35!", "*************", 1);
    check("100%25!", "100%2%25!", "100%2%25!", 0);
    check("%%%%%%", "%%%%%%%25", "******%25", 1);
    check("%%%%%%", "%25%%25%%25%%", "************%", 1);
    check("aaaaaa", "aaaaaaaaaaaaaaaaa", "************aaaaa", 2);
    check("abababab", "ababababab", "********ab", 1);
}

static void test_base64(void **state)
{
    (void)state;
    /* user:KEY and what else it may stand behind; the characters at the edges stay. */
    static const char *const before[] = {"", "u", "us", "user:", "user::"};
    static const char *const behind[] = {"", "x", "xy", "\n"};
    for (size_t i = 0; i < SM_ARRAY_LEN(before); i++) {
        for (size_t j = 0; j < SM_ARRAY_LEN(behind); j++) {
            g_autofree char *text = g_strconcat(before[i], KEY, behind[j], NULL);
            g_autofree char *coded = g_base64_encode((const guchar *)text, strlen(text));
            g_autofree char *want = g_strdup(coded);
            size_t from = (strlen(before[i]) * 8 + 5) / 6, to = (strlen(before[i]) + strlen(KEY)) * 8 / 6;
            memset(want + from, '*', to - from);
            check(KEY, coded, want, 1);
            for (char *c = coded; *c; c++)
                *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
            for (char *c = want; *c; c++)
                *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
            check(KEY, coded, want, 1);
        }
    }
    /* Both alphabets, mixed, and percent-encoded in a query. */
    const char *bits = "\xfb\xff\xbf\xfb\xef\xbe"; /* its base64 is of the alphabet's two last characters alone */
    g_autofree char *coded = g_base64_encode((const guchar *)bits, 6);
    assert_non_null(strchr(coded, '+'));
    assert_non_null(strchr(coded, '/'));
    check(bits, coded, "********", 1);
    *strchr(coded, '+') = '-';
    check(bits, coded, "********", 1);
    *strchr(coded, '/') = '_';
    check(bits, coded, "********", 1);
    g_autofree char *again = g_base64_encode((const guchar *)bits, 6);
    GString *query = g_string_new("q=");
    for (const char *c = again; *c; c++)
        g_string_append_printf(query, *c == '+' ? "%%2B" : *c == '/' ? "%%2f" : "%c", *c);
    g_autofree char *want = g_strnfill(query->len, '*');
    memcpy(want, "q=", 2);
    check(bits, query->str, want, 1);
    g_string_free(query, TRUE);
}

static void test_bounds(void **state)
{
    uint8_t secret[SM_SCRUB_SECRET_MAX + 1];

    (void)state;
    memset(secret, 'x', sizeof(secret));
    assert_null(sm_scrub_new(secret, 0));
    assert_null(sm_scrub_new(secret, SM_SCRUB_SECRET_MIN - 1));
    assert_null(sm_scrub_new(secret, SM_SCRUB_SECRET_MAX + 1));
    check("abcdef", "..abcdef..", "..******..", 1);
    check("abcdef", "..abcdeF..", "..abcdeF..", 0);

    /* The longest: percent-encoded base64 of it, and what is held of that. */
    for (size_t i = 0; i < sizeof(secret); i++)
        secret[i] = (uint8_t)(i * 131 + (i >> 3) + 1);
    struct sm_scrub *k = sm_scrub_new(secret, SM_SCRUB_SECRET_MAX);
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
    g_autofree char *coded = g_base64_encode(secret, SM_SCRUB_SECRET_MAX);
    g_autoptr(GString) text = g_string_new(NULL), got = g_string_new(NULL);
    for (size_t i = 0; i < SM_SCRUB_SECRET_MAX * 8 / 6; i++)
        g_string_append_printf(text, "%%%02x", (uint8_t)coded[i]);
    feed(s, text->str, 3 * 24 - 1, got);
    assert_int_equal(got->len, 0);
    assert_int_equal(sm_scrub_held(s), 3 * 24 - 1);
    feed(s, text->str + 3 * 24 - 1, text->len - 3 * 24, got);
    assert_int_equal(sm_scrub_held(s), 0); /* it is sure by now */
    feed(s, text->str + text->len - 1, 1, got);
    assert_int_equal(got->len, text->len);
    assert_int_equal(strspn(got->str, "*"), text->len);
    sm_scrub_stream_free(s);
    sm_scrub_unref(k);
}

/* Only what may still become a match waits. */
static void test_what_is_held(void **state)
{
    static const struct {
        const char *text;
        size_t held;
    } samples[] = {
        {"data: hello\n\n", 0},
        {"sk-Test/0+9 z", 13},
        {"data: sk-Test/0+9 ", 12},
        {"sk-Test/0+9 zs", 1},
        {"sk-Test/0+9 y", 0},
        {"ssssssss", 1},
        {"sksksk", 2},
        {"100%", 1},
        {"100%7", 2},
        {"100%73", 3},
        {"100%74", 0},
        {"sk%2dT%65st%2", 13},
        {"sk-Test/0+9 z% sk-T", 4},
    };
    struct sm_scrub *k = scrub_of(KEY);

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(samples); i++) {
        for (size_t cut = 0; cut <= strlen(samples[i].text); cut++) {
            struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
            g_autoptr(GString) got = g_string_new(NULL);
            feed(s, samples[i].text, cut, got);
            feed(s, samples[i].text + cut, strlen(samples[i].text) - cut, got);
            if (sm_scrub_held(s) != samples[i].held)
                fail_msg("%s: %zu held", samples[i].text, sm_scrub_held(s));
            end(s, got);
            assert_string_equal(got->str, samples[i].text);
            sm_scrub_stream_free(s);
        }
    }
    /* What is held goes on by itself when it cannot become a match any more, and a stream can be used again. */
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
    g_autoptr(GString) got = g_string_new(NULL);
    feed(s, "id: sk-Test/0", 13, got);
    assert_string_equal(got->str, "id: ");
    feed(s, "\n", 1, got);
    assert_string_equal(got->str, "id: sk-Test/0\n");
    feed(s, "sk-Te", 5, got);
    end(s, got);
    feed(s, "st/0+9 z?", 9, got);
    end(s, got);
    assert_string_equal(got->str, "id: sk-Test/0\nsk-Test/0+9 z?");
    assert_int_equal(sm_scrub_matches(s), 0);
    sm_scrub_stream_free(s);
    sm_scrub_unref(k);
}

/* What a guest sees of a guess that it lets an origin say: what is held back while the origin waits, and what came in the end. */
static char *seen(struct sm_scrub *k, const char *known, size_t len, char guess)
{
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
    GString *got = g_string_new(NULL);

    feed(s, "> ", 2, got);
    feed(s, known, len, got);
    feed(s, &guess, 1, got);
    g_string_append_printf(got, "%zu|", sm_scrub_held(s));
    feed(s, "A9\"", 3, got);
    g_string_append_printf(got, "%zu", sm_scrub_held(s));
    sm_scrub_stream_free(s);
    return g_string_free(got, FALSE);
}

/* Guess by guess a secret would be read to its end; behind its first half all guesses look the same. */
static void test_no_oracle(void **state)
{
    static const char secret[] = "sk-ant-api03-R2D9xQ_7bWm4TzKp-LcV8yHsN1dEfGjUo5Ai6kXt0Bq3rZwJvMhSgPuY";
    static const char guesses[] = "ABCabc019-_.";

    (void)state;
    struct sm_scrub *k = scrub_of(secret);
    for (size_t n = 0; n + 1 < strlen(secret); n++) {
        g_autofree char *right = seen(k, secret, n, secret[n]);
        for (const char *g = guesses; *g; g++) {
            g_autofree char *wrong = seen(k, secret, n, *g);
            if (n >= 24 && strcmp(right, wrong) != 0)
                fail_msg("character %zu, '%c': %s, and the right one: %s", n, *g, wrong, right);
            assert_true(*g == secret[n] || n >= 23 || strcmp(right, wrong) != 0 || n == 0);
        }
    }
    sm_scrub_unref(k);
}

#define LONG "0123456789abcdefghijklmnopqrstuvwxyzABCD" /* 40: sure after 20 */

static void test_sure(void **state)
{
    (void)state;
    check(LONG, "<" LONG ">", "<****************************************>", 1);
    check(LONG, "0123456789abcdefghi", "0123456789abcdefghi", 0);
    check(LONG, "0123456789abcdefghij", "********************", 1);
    check(LONG, "\"0123456789abcdefghij\", \"next\"", "\"********************\", \"next\"", 1);
    check(LONG, "0123456789abcdefghij...wxyz next", "*************************** next", 1);
    check(LONG, LONG "xyz", "****************************************xyz", 1);
    check(LONG, "0123456789abcdefghijABCDEFGHIJKLMNOPQRSTUVWXYZ", "****************************************UVWXYZ", 1);
    check(LONG, "%30%3123456789abcdefghij%6blm%6e!", "********************************!", 1);
    check(LONG, "0123456789abcdefghij%%%4!", "************************!", 1);
    check(LONG, LONG LONG "0123",
          "********************************************************************************0123", 2);
}

/* '|' stands for framing: it keeps its place and is no part of a match. */
static void check_framing(const char *text, const char *want, unsigned matches)
{
    struct sm_scrub *k = scrub_of(KEY);
    size_t len = strlen(text);

    for (size_t cut = 0; cut <= len; cut++) {
        size_t account = 0;
        struct sm_scrub_stream *s = sm_scrub_stream_new(k, &account);
        g_autoptr(GString) got = g_string_new(NULL);
        for (size_t at = 0; at < len;) {
            size_t n = text[at] == '|' ? strspn(text + at, "|") : strcspn(text + at, "|");
            if (at < cut)
                n = SM_MIN(n, cut - at);
            if (text[at] == '|') {
                struct sm_outq q = {0};
                sm_scrub_framing(s, (const uint8_t *)text + at, n, &q);
                drain(&q, got);
            } else {
                feed(s, text + at, n, got);
            }
            at += n;
        }
        assert_int_equal(account, sm_scrub_held(s));
        assert_int_equal(got->len + account, len);
        end(s, got);
        assert_string_equal(got->str, want);
        assert_int_equal(sm_scrub_matches(s), matches);
        sm_scrub_stream_free(s);
    }
    sm_scrub_unref(k);
}

static void test_framing(void **state)
{
    (void)state;
    check_framing("|", "|", 0);
    check_framing("|a|b||c|", "|a|b||c|", 0);
    check_framing("|sk-Test|/0+9 z?|", "|*******|*******|", 1);
    check_framing("||s|k|-|T|e|s|t|/|0|+|9| |z|?||", "||*|*|*|*|*|*|*|*|*|*|*|*|*|*||", 1);
    check_framing("|s|k|-|T|e|s|t|/|0|+|9| |z|!|", "|s|k|-|T|e|s|t|/|0|+|9| |z|!|", 0);
    check_framing("x|sk-sk-T|||est/0+9 z|?y|", "x|sk-****|||*********|*y|", 1);
    check_framing("sk-Test/0+9 z|sk-Test/0+9 z|?|" KEY "|sk-", "sk-Test/0+9 z|*************|*|" STARS "|sk-", 2);
    check_framing("s|sk|sk-|sk-T|sk-Te|sk-Tes|", "s|sk|sk-|sk-T|sk-Te|sk-Tes|", 0);

    /* More framing than is held: what cannot be decided is decided against it. */
    struct sm_scrub *k = scrub_of(KEY);
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
    struct sm_outq q = {0};
    g_autofree char *frame = g_strnfill(SM_SCRUB_HELD_MAX - 3, '|');
    sm_scrub_data(s, (const uint8_t *)"ask-", 4, &q);
    sm_scrub_framing(s, (const uint8_t *)frame, SM_SCRUB_HELD_MAX - 3, &q);
    assert_int_equal(q.len, 1);
    sm_scrub_framing(s, (const uint8_t *)"|", 1, &q);
    assert_int_equal(sm_scrub_held(s), 0);
    g_autoptr(GString) got = g_string_new(NULL);
    drain(&q, got);
    assert_int_equal(got->len, 4 + SM_SCRUB_HELD_MAX - 2);
    assert_memory_equal(got->str, "a***|", 5);
    assert_int_equal(sm_scrub_matches(s), 1);
    feed(s, "Test", 4, got);
    assert_int_equal(sm_scrub_held(s), 0);
    sm_scrub_stream_free(s);
    sm_scrub_unref(k);
}

/* The model: every way to write one unit, tried one after another. Returns the end of the match that is over first. */
static size_t model_match(const char *const (*ways)[4], size_t units, const char *text, size_t len, size_t at)
{
    if (units == 0)
        return at;
    size_t best = 0;
    for (unsigned w = 0; w < 4 && (*ways)[w]; w++) {
        const char *way = (*ways)[w];
        size_t n = strlen(way), end_at = 0;
        bool same = n <= len - at;
        for (size_t i = 0; same && i < n; i++)
            same = i > 0 && way[0] == '%' && n == 3 ? g_ascii_tolower(text[at + i]) == way[i] : text[at + i] == way[i];
        if (same)
            end_at = model_match(ways + 1, units - 1, text, len, at + n);
        if (end_at > 0 && (best == 0 || end_at < best))
            best = end_at;
    }
    return best;
}

struct form {
    const char *(*ways)[4];
    size_t units;
};

static void add_way(struct form *f, unsigned w, char c, bool coded)
{
    f->ways[f->units][w] = coded ? g_strdup_printf("%%%02x", (uint8_t)c) : g_strndup(&c, 1);
}

static void form_free(struct form *f)
{
    for (size_t i = 0; i < f->units; i++)
        for (unsigned w = 0; w < 4; w++)
            g_free((char *)f->ways[i][w]);
    g_free(f->ways);
}

/*
 * The four forms, base64 by GLib's encoder: what two texts around the secret that differ in every bit have in common.
 */
static void make_forms(const char *secret, struct form forms[4])
{
    size_t len = strlen(secret);

    forms[0] = (struct form){.ways = (void *)g_new0(const char *, 4 * len)};
    for (size_t i = 0; i < len; i++, forms[0].units++) {
        add_way(&forms[0], 0, secret[i], false);
        add_way(&forms[0], 1, secret[i], true);
        if (secret[i] == ' ')
            add_way(&forms[0], 2, '+', false);
    }
    for (size_t before = 0; before < 3; before++) {
        struct form *f = &forms[before + 1];
        size_t all = (len + 8) / 3 * 3; /* no padding */
        g_autofree guchar *a = g_malloc0(all), *b = g_malloc(all);
        memset(b, 0xff, all);
        memcpy(a + before, secret, len);
        memcpy(b + before, secret, len);
        g_autofree char *x = g_base64_encode(a, all), *y = g_base64_encode(b, all);
        *f = (struct form){.ways = (void *)g_new0(const char *, 4 * strlen(x))};
        for (size_t i = 0; x[i]; i++) {
            if (x[i] != y[i])
                continue;
            char other = x[i] == '+' ? '-' : x[i] == '/' ? '_' : '\0';
            add_way(f, 0, x[i], false);
            add_way(f, 1, x[i], true);
            if (other) {
                add_way(f, 2, other, false);
                add_way(f, 3, other, true);
            }
            f->units++;
        }
    }
}

static bool model_is_part(const struct form forms[4], char c)
{
    bool part = g_ascii_isalnum(c) || (c && strchr("-._~+/=%", c));

    for (unsigned i = 0; i < 4; i++)
        for (size_t u = 0; u < forms[i].units; u++)
            for (unsigned w = 0; w < 4 && forms[i].ways[u][w]; w++)
                part = part || (strlen(forms[i].ways[u][w]) == 1 && *forms[i].ways[u][w] == c);
    return part;
}

/* So many units more, whatever they are. */
static size_t model_rest(const struct form forms[4], size_t units, const char *text, size_t len, size_t at)
{
    while (units > 0 && at < len && model_is_part(forms, text[at])) {
        size_t n = 1;
        while (text[at] == '%' && n < 3 && at + n < len && g_ascii_isxdigit(text[at + n]))
            n++;
        at += n;
        units -= n == 3 ? 1 : SM_MIN(units, n);
    }
    return at;
}

static size_t sure_of(size_t units)
{
    return units < 32 ? units : SM_MIN(units / 2, (size_t)24);
}

static unsigned model(const struct form forms[4], const char *text, size_t len, char *out)
{
    unsigned matches = 0;

    memcpy(out, text, len);
    for (size_t at = 0; at < len;) {
        size_t best = 0, rest = 0;
        for (unsigned i = 0; i < 4; i++) {
            size_t sure = sure_of(forms[i].units);
            size_t to = model_match((const void *)forms[i].ways, sure, text, len, at);
            if (to > 0 && (best == 0 || to < best)) {
                best = to;
                rest = forms[i].units - sure;
            }
        }
        if (best == 0) {
            at++;
            continue;
        }
        best = model_rest(forms, rest, text, len, best);
        memset(out + at, '*', best - at);
        at = best;
        matches++;
    }
    return matches;
}

/* Pieces of the forms, some of them whole, between bytes that may be taken for more of them. */
static void make_text(GRand *rand, const struct form forms[4], GString *text)
{
    for (gint pieces = g_rand_int_range(rand, 1, 8); pieces > 0; pieces--) {
        const struct form *f = &forms[g_rand_int_range(rand, 0, 4)];
        gint from = g_rand_int_range(rand, 0, 3) ? 0 : g_rand_int_range(rand, 0, (gint)f->units);
        gint to = g_rand_int_range(rand, 0, 2) ? (gint)f->units : g_rand_int_range(rand, from, (gint)f->units + 1);
        bool coded = g_rand_int_range(rand, 0, 2);
        for (gint i = from; i < to; i++) {
            unsigned ways = 0;
            while (ways < 4 && f->ways[i][ways])
                ways++;
            const char *way = f->ways[i][coded ? g_rand_int_range(rand, 0, (gint)ways) : 0];
            bool upper = way[1] && g_rand_int_range(rand, 0, 2);
            for (; *way; way++)
                g_string_append_c(text, upper ? g_ascii_toupper(*way) : *way);
        }
        for (gint n = g_rand_int_range(rand, 0, 4); n > 0; n--)
            g_string_append_c(text, "%2s+ \n5k"[g_rand_int_range(rand, 0, 8)]);
    }
}

static void test_model(void **state)
{
    static const char *const secrets[] = {KEY,
                                          "abcdef",
                                          "sk-ant-api03-aB3dE5fG7hI9jK1lM3nO5pQ7rS9",
                                          "%2%25%",
                                          "aaaaaa",
                                          "abaabaab",
                                          "\xc3\xa4 \x01\xff?\?>>",
                                          "+/+/ + "};
    GRand *rand = g_rand_new_with_seed(4);
    unsigned found = 0;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(secrets); i++) {
        struct sm_scrub *k = scrub_of(secrets[i]);
        struct form forms[4];
        make_forms(secrets[i], forms);
        for (unsigned n = 0; n < MODEL_TEXTS; n++) {
            g_autoptr(GString) text = g_string_new(NULL), got = g_string_new(NULL);
            make_text(rand, forms, text);
            g_autofree char *want = g_strndup(text->str, text->len);
            unsigned matches = model(forms, text->str, text->len, want);
            struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
            gint most = g_rand_int_range(rand, 1, g_rand_int_range(rand, 0, 2) ? 5 : 200);
            for (size_t at = 0; at < text->len;) {
                size_t part = (size_t)g_rand_int_range(rand, 1, most + 1);
                part = SM_MIN(part, text->len - at);
                feed(s, text->str + at, part, got);
                at += part;
            }
            end(s, got);
            if (got->len != text->len || memcmp(got->str, want, got->len) != 0)
                fail_msg("secret %zu, text %u (%zu, %zu):\n%s\n%s\nexpected\n%s", i, n, (size_t)text->len,
                         (size_t)got->len, text->str, got->str, want);
            assert_int_equal(sm_scrub_matches(s), matches);
            found += matches;
            sm_scrub_stream_free(s);
        }
        for (unsigned f = 0; f < 4; f++)
            form_free(&forms[f]);
        sm_scrub_unref(k);
    }
    assert_true(found > 20000); /* the texts are worth searching */
    g_rand_free(rand);
}

/* References count, and a stream keeps its own. */
static void test_references(void **state)
{
    struct sm_scrub *k = scrub_of(KEY);
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, NULL);
    g_autoptr(GString) got = g_string_new(NULL);

    (void)state;
    sm_scrub_unref(sm_scrub_ref(k));
    sm_scrub_unref(k);
    feed(s, KEY, strlen(KEY), got);
    assert_string_equal(got->str, STARS);
    sm_scrub_stream_free(s);
    sm_scrub_stream_free(NULL);
    sm_scrub_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_and_percent),
        cmocka_unit_test(test_percent_in_the_secret),
        cmocka_unit_test(test_no_oracle),
        cmocka_unit_test(test_sure),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_what_is_held),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
