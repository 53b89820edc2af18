/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cred/vault.h: the first byte says which status and content type, then a path and a line end, the rest is the body. A
 * secret is believed only from 200 and JSON, has a bounded life and stands in the answer; a path that is taken becomes
 * a URL that is taken, without a part that leads elsewhere.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cred/json.h"
#include "cred/url.h"
#include "cred/vault.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_path(const char *path)
{
    static const char base[] = "https://vault.example:8200/v1/";
    char token[] = "t";
    struct sm_secret *secret = sm_secret_new(token, 1);
    const struct sm_vault_server server = {.addr = "https://vault.example:8200/", .token = secret};
    struct sm_cred_request r;
    struct sm_cred_url url;

    bool taken = sm_vault_path_check(path, NULL);
    require(sm_vault_request(&server, path, &r, NULL) == taken);
    if (taken) {
        require(g_str_has_prefix(r.url, base) && sm_cred_url_parse(r.url, &url, NULL));
        require(!strstr(r.url + strlen(base), "//") && !strstr(r.url, "/../") && !strstr(r.url, "/./"));
        require(!g_str_has_suffix(r.url, "/..") && !g_str_has_suffix(r.url, "/.") && !strpbrk(r.url, "?#\\ "));
        /* Nothing is lost: undoing the escapes gives the path. */
        g_autofree char *back = g_uri_unescape_string(r.url + strlen(base), NULL);
        require(back && strcmp(back, path) == 0);
    }
    sm_cred_request_clear(&r);
    sm_secret_free(secret);
}

/* The field is in data, or in data.data. */
static bool stands_in(const uint8_t *body, size_t size, const uint8_t *p, size_t len)
{
    json_t *root = sm_cred_json_object(body, size);
    const json_t *outer = json_object_get(root, "data"), *inner = json_object_get(outer, "data");
    const json_t *in[2] = {json_object_get(outer, "key"), json_object_get(inner, "key")};
    bool found = false;

    for (size_t i = 0; i < 2; i++)
        found |= json_string_length(in[i]) == len && len > 0 && memcmp(json_string_value(in[i]), p, len) == 0;
    json_decref(root);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned statuses[] = {200, 200, 200, 403, 404, 307, 503, 500};
    static const char *const types[] = {"application/json", "application/json;x=y", "text/plain", NULL};
    struct sm_vault_value got;

    if (size == 0)
        return 0;
    const uint8_t *end = memchr(data + 1, '\n', size - 1);
    const uint8_t *body = end ? end + 1 : data + size;
    size_t body_len = (size_t)(data + size - body);
    g_autofree char *path = g_strndup((const char *)data + 1, (size_t)(body - data) - 1 - (end ? 1 : 0));
    check_path(path);

    const struct sm_cred_response r = {
        .status = statuses[data[0] & 7], .content_type = types[data[0] >> 3 & 3], .body = body, .len = body_len};
    enum sm_cred_reason reason = sm_vault_read(&r, "key", &got);
    require((reason == SM_CRED_OK) == (got.secret != NULL) && (unsigned)reason < SM_CRED_REASONS);
    if (reason != SM_CRED_OK) {
        require(got.ttl_s == 0);
        return 0;
    }
    size_t len;
    const uint8_t *p = sm_secret_bytes(got.secret, &len);
    require(r.status == 200 && sm_cred_content_is_json(r.content_type));
    require(got.ttl_s >= 1 && got.ttl_s <= SM_VAULT_TTL_MAX_S && len <= SM_CRED_SECRET_MAX);
    require(stands_in(body, body_len, p, len));
    sm_secret_free(got.secret);
    return 0;
}
