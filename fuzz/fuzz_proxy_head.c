/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/proxy.h: the first byte says where to cut, the rest is the connection. The answer must not depend on the cut,
 * spans must lie inside the head, and what goes on to an origin must be one strict head that says nothing of the proxy.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct sm_http_span s, size_t len)
{
    if (s.off > len || s.len > len - s.off)
        abort();
}

static void check_forward(const struct sm_proxy_head *h, const uint8_t *data)
{
    static uint8_t out[SM_HTTP_HEAD_MAX + SM_PROXY_REWRITE_MORE];
    struct sm_http_head again;
    size_t len = sm_proxy_head_rewrite(h, data, out, h->consumed + SM_PROXY_REWRITE_MORE);

    if (len == 0)
        abort();
    sm_http_head_init(&again);
    /* Longer than the longest head it may have become, and then no origin of ours is sent it. */
    if (len < SM_HTTP_HEAD_MAX && (sm_http_head_feed(&again, out, len) != SM_HTTP_HTTP1 || again.consumed != len ||
                                   again.form == SM_HTTP_TARGET_ABSOLUTE || again.upgrade != h->upgrade))
        abort();
}

/* Where the request ends does not depend on the cut either, and behind it nothing goes on. */
static void check_rest(const struct sm_proxy_head *h, const uint8_t *data, size_t len, size_t step)
{
    struct sm_proxy_rest whole, cut;
    size_t went = 0;

    sm_proxy_rest_init(&whole, h);
    sm_proxy_rest_init(&cut, h);
    size_t want = sm_proxy_rest_says(&whole, data, len);
    for (size_t at = 0; at < len; at += step)
        went += sm_proxy_rest_says(&cut, data + at, SM_MIN(step, len - at));
    if (went != want || whole.over != cut.over || whole.open != cut.open || whole.too_much != cut.too_much ||
        whole.too_much != (want < len))
        abort();
    sm_proxy_rest_clear(&whole);
    sm_proxy_rest_clear(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_proxy_head whole, cut;

    if (size == 0)
        return 0;
    size_t step = data[0] % 17u + 1u;
    data++;
    size--;
    sm_proxy_head_init(&whole);
    sm_proxy_head_feed(&whole, data, size);
    sm_proxy_head_init(&cut);
    for (size_t n = 0; n < size; n += step)
        sm_proxy_head_feed(&cut, data, n);
    sm_proxy_head_feed(&cut, data, size);
    if (whole.status != cut.status || whole.reject != cut.reject || whole.http != cut.http ||
        whole.consumed != cut.consumed)
        abort();
    if ((whole.status == SM_PROXY_REJECT) != (whole.reject != SM_PROXY_REJECT_NONE))
        abort();
    if (whole.status != SM_PROXY_CONNECT && whole.status != SM_PROXY_FORWARD)
        return 0;
    if (whole.consumed > size || memcmp(data + whole.consumed - 4, "\r\n\r\n", 4) != 0 ||
        memchr(data, '\0', whole.consumed) || whole.host.len == 0 || whole.host.len > 255 || whole.port == 0)
        abort();
    inside(whole.host, whole.consumed);
    inside(whole.auth, whole.consumed);
    if (whole.status == SM_PROXY_FORWARD) {
        check_forward(&whole, data);
        check_rest(&whole, data + whole.consumed, size - whole.consumed, step);
    }
    return 0;
}
