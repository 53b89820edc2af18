/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http/response.h, body.h and altsvc.h: the first byte says where to cut and what the request was, the rest is a response. The answer must not
 * depend on the cut; what is used of a body is where a second reading ends too; a head without Alt-Svc's h3 is still a head, and still frames
 * the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/altsvc.h"
#include "http/body.h"
#include "http/response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

struct result {
    enum sm_http_body_status status;
    enum sm_http_reject reject;
    size_t used;
    uint64_t payload;
};

/* As the bridge does it: what is not used is shown again with `step` bytes more. */
static struct result read_body(enum sm_http_body_kind kind, uint64_t length, const uint8_t *data, size_t len,
                               size_t step)
{
    struct sm_http_body b;
    struct result r = {.status = SM_HTTP_BODY_MORE};
    size_t shown = 0;

    sm_http_body_init(&b, kind, length);
    while (shown < len && r.status == SM_HTTP_BODY_MORE) {
        size_t used;
        shown = len - shown > step ? shown + step : len;
        uint8_t *copy = malloc(shown - r.used ? shown - r.used : 1);
        require(copy);
        memcpy(copy, data + r.used, shown - r.used);
        r.status = sm_http_body_feed(&b, copy, shown - r.used, &used);
        free(copy);
        require(used <= shown - r.used);
        r.used += used;
    }
    r.reject = b.reject;
    r.payload = b.payload;
    require((r.status == SM_HTTP_BODY_BAD) == (r.reject != SM_HTTP_REJECT_NONE) && r.payload <= r.used);
    return r;
}

static void check_body(enum sm_http_body_kind kind, uint64_t length, const uint8_t *data, size_t len, size_t step)
{
    struct result whole = read_body(kind, length, data, len, SIZE_MAX);
    struct result cut = read_body(kind, length, data, len, step);

    require(whole.status == cut.status && whole.used == cut.used && whole.payload == cut.payload &&
            whole.reject == cut.reject);
    if (whole.status != SM_HTTP_BODY_DONE)
        return;
    /* The same bytes alone end in the same place, and one less does not. */
    struct result again = read_body(kind, length, data, whole.used, SIZE_MAX);
    require(again.status == SM_HTTP_BODY_DONE && again.used == whole.used);
    if (whole.used > 0)
        require(read_body(kind, length, data, whole.used - 1, SIZE_MAX).status == SM_HTTP_BODY_MORE);
}

static void check_alt_svc(const uint8_t *head, const struct sm_http_response *r)
{
    struct sm_http_response after;
    uint8_t *out = malloc(r->consumed);
    uint8_t *twice = malloc(r->consumed);

    require(out && twice);
    size_t len = sm_http_alt_svc_strip(head, r->consumed, out);
    require(len <= r->consumed && (r->alt_svc || (len == r->consumed && memcmp(out, head, len) == 0)));
    sm_http_response_init(&after);
    require(sm_http_response_feed(&after, out, len) == SM_HTTP_HTTP1 && after.consumed == len);
    require(after.code == r->code && after.framing.has_length == r->framing.has_length &&
            after.framing.content_length == r->framing.content_length && after.framing.chunked == r->framing.chunked &&
            after.framing.close == r->framing.close && after.upgrade == r->upgrade);
    /* Nothing is left to remove. */
    require(sm_http_alt_svc_strip(out, len, twice) == len && memcmp(out, twice, len) == 0);
    free(out);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_http_response whole, cut;

    if (size == 0)
        return 0;
    size_t step = data[0] % 17u + 1u;
    bool head = data[0] & 0x80;
    data++;
    size--;
    sm_http_response_init(&whole);
    sm_http_response_feed(&whole, data, size);
    sm_http_response_init(&cut);
    for (size_t n = 0; n < size; n += step)
        sm_http_response_feed(&cut, data, n);
    sm_http_response_feed(&cut, data, size);
    require(whole.status == cut.status && whole.reject == cut.reject && whole.consumed == cut.consumed);
    require((whole.status == SM_HTTP_REJECT) == (whole.reject != SM_HTTP_REJECT_NONE));
    if (whole.status != SM_HTTP_HTTP1) {
        check_body(SM_HTTP_BODY_CHUNKED, 0, data, size, step);
        return 0;
    }
    require(whole.consumed <= size && memcmp(data + whole.consumed - 4, "\r\n\r\n", 4) == 0);
    require(whole.code >= 100 && whole.code <= 999 && !(whole.framing.chunked && whole.framing.has_length));
    check_alt_svc(data, &whole);
    enum sm_http_body_kind kind = sm_http_response_body(&whole, head);
    if (kind != SM_HTTP_BODY_NONE)
        check_body(kind, whole.framing.content_length, data + whole.consumed, size - whole.consumed, step);
    return 0;
}
