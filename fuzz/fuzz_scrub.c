/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/scrub.c: the input is a secret (its length comes first) and a text with framing (bytes of 0x1e and above 0xf0)
 * in it.
 *
 * What must hold: text and framing keep their length and places; only whole runs become asterisks; the text as a
 * stream, cut in any way, gives what the text gives at once; the secret is not in it any more; what is held is bounded
 * and counted.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/outq.h"
#include "http/scrub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static bool is_framing(uint8_t c)
{
    return c == 0x1e || c > 0xf0;
}

static void drain(struct sm_outq *q, GByteArray *to)
{
    const uint8_t *p;
    size_t n;

    while ((n = sm_outq_peek(q, &p)) > 0) {
        g_byte_array_append(to, p, (guint)n);
        sm_outq_took(q, n);
    }
}

static void check_stream(struct sm_scrub *k, const uint8_t *data, size_t size, size_t step, const GByteArray *plain,
                         unsigned matches)
{
    size_t account = 0, in_plain = 0;
    struct sm_scrub_stream *s = sm_scrub_stream_new(k, &account);
    struct sm_outq q = {0};
    g_autoptr(GByteArray) got = g_byte_array_new();

    for (size_t at = 0; at < size;) {
        bool framing = is_framing(data[at]);
        size_t n = 1;
        while (n < step && at + n < size && is_framing(data[at + n]) == framing)
            n++;
        g_autofree uint8_t *copy = g_memdup2(data + at, n);
        if (framing)
            sm_scrub_framing(s, copy, n, &q);
        else
            sm_scrub_data(s, copy, n, &q);
        drain(&q, got);
        at += n;
        require(account == sm_scrub_held(s) && account <= SM_SCRUB_HELD_MAX && got->len + account == at);
    }
    sm_scrub_end(s, &q);
    drain(&q, got);
    require(account == 0 && got->len == size && sm_scrub_matches(s) == matches);
    for (size_t i = 0; i < size; i++)
        require(got->data[i] == (is_framing(data[i]) ? data[i] : plain->data[in_plain++]));
    sm_scrub_stream_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* More than is held cannot be compared: what is over the bound depends on how it is cut. */
    if (size < 2 || size > SM_SCRUB_HELD_MAX)
        return 0;
    size_t len = SM_MIN((size_t)data[0], size - 2), step = data[1] % 31u + 1u;
    const uint8_t *secret = data + 2;
    struct sm_scrub *k = sm_scrub_new(secret, len);

    data += 2 + len;
    size -= 2 + len;
    require((k != NULL) == (len >= SM_SCRUB_SECRET_MIN));
    if (!k)
        return 0;
    g_autoptr(GByteArray) before = g_byte_array_new();
    for (size_t i = 0; i < size; i++)
        if (!is_framing(data[i]))
            g_byte_array_append(before, data + i, 1);
    g_autoptr(GByteArray) after = g_byte_array_new();
    g_byte_array_append(after, before->data, before->len);
    unsigned matches = sm_scrub_text(k, after->data, after->len);
    size_t stars = 0;
    for (size_t i = 0; i < after->len; i++) {
        bool changed = after->data[i] != before->data[i];
        require(!changed || after->data[i] == '*');
        stars += after->data[i] == '*';
    }
    require(stars >= matches);
    if (!memchr(secret, '*', len))
        require(!memmem(after->data, after->len, secret, len));
    check_stream(k, data, size, step, after, matches);
    check_stream(k, data, size, SIZE_MAX, after, matches);
    check_stream(k, data, size, 1, after, matches);
    sm_scrub_unref(k);
    return 0;
}
