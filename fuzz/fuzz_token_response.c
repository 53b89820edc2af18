/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cred/token.h: the first byte says which status, content type and member, the rest is the body. A token is believed
 * only from 200 and JSON; it may stand in a header, and its bytes are in the answer's one member (a second reading by
 * jansson without our rules agrees). Where there is none, nothing of the answer comes out. The token then goes through
 * the cache, which must use it and forget it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cred/cache.h"
#include "cred/json.h"
#include "cred/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_token(const struct sm_token *got, const uint8_t *body, size_t size, const char *field)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(got->token, &len);
    json_t *root = sm_cred_json_object(body, size);
    const json_t *value = json_object_get(root, field);

    require(len > 0 && len <= SM_CRED_TOKEN_MAX && sm_cred_value_ok(p, len));
    require(json_string_length(value) == len && memcmp(json_string_value(value), p, len) == 0);
    require(got->ttl_s >= 1 && got->ttl_s <= SM_TOKEN_TTL_MAX_S);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned statuses[] = {200, 200, 200, 200, 400, 401, 302, 503};
    static const char *const types[] = {"application/json", "Application/JSON; charset=utf-8", "text/html", NULL};
    static const char *const fields[] = {SM_TOKEN_FIELD, "id_token"};
    struct sm_cred_cache cache = {0};
    struct sm_token got;
    struct sm_secret *header = NULL;

    if (size == 0)
        return 0;
    const struct sm_cred_response r = {
        .status = statuses[data[0] & 7], .content_type = types[data[0] >> 3 & 3], .body = data + 1, .len = size - 1};
    const char *field = fields[data[0] >> 5 & 1];
    enum sm_cred_reason reason = sm_token_read(&r, field, data[0] >> 6, &got);
    require((reason == SM_CRED_OK) == (got.token != NULL) && (unsigned)reason < SM_CRED_REASONS);
    if (reason != SM_CRED_OK) {
        require(got.ttl_s == 0);
        return 0;
    }
    require(r.status == 200 && sm_cred_content_is_json(r.content_type) && !got.error_code);
    check_token(&got, r.body, r.len, field);
    require(sm_cred_value_header(got.token, "Bearer {token}", "{token}", &header) == SM_CRED_OK);
    require(sm_cred_cache_ask(&cache, 0).verdict == SM_CRED_FETCH);
    sm_cred_cache_fetched(&cache, 0, header, got.ttl_s);
    require(sm_cred_cache_ask(&cache, 0).verdict == SM_CRED_USE);
    require(sm_cred_cache_ask(&cache, INT64_C(1000000) * got.ttl_s).verdict == SM_CRED_FETCH);
    sm_cred_cache_clear(&cache);
    sm_secret_free(got.token);
    return 0;
}
