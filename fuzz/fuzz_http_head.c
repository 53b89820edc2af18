/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/head.h: the first byte says where to cut, the rest is the connection. The answer must not depend on the cut,
 * spans must lie inside the head, and an accepted head must hold the promises of the header.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct sm_http_span s, size_t len)
{
    if (s.off > len || s.len > len - s.off)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_http_head whole, cut;

    if (size == 0)
        return 0;
    size_t step = data[0] % 17u + 1u;
    data++;
    size--;
    sm_http_head_init(&whole);
    sm_http_head_feed(&whole, data, size);
    sm_http_head_init(&cut);
    for (size_t n = 0; n < size; n += step)
        sm_http_head_feed(&cut, data, n);
    sm_http_head_feed(&cut, data, size);
    if (whole.status != cut.status || whole.reject != cut.reject || whole.consumed != cut.consumed ||
        whole.maybe != cut.maybe)
        abort();
    if ((whole.status == SM_HTTP_REJECT) != (whole.reject != SM_HTTP_REJECT_NONE))
        abort();
    if (whole.status != SM_HTTP_HTTP1)
        return 0;
    if (whole.consumed > size || memcmp(data + whole.consumed - 4, "\r\n\r\n", 4) != 0 ||
        memchr(data, '\0', whole.consumed))
        abort();
    inside(whole.method, whole.consumed);
    inside(whole.target, whole.consumed);
    inside(whole.path, whole.consumed);
    inside(whole.host, whole.consumed);
    if ((whole.minor == 1 && whole.host_kind == SM_HTTP_HOST_NONE) ||
        (whole.framing.chunked && whole.framing.has_length))
        abort();
    return 0;
}
