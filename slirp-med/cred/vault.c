/* SPDX-License-Identifier: BSD-3-Clause */
/* Vault's request and answer; see vault.h. */
#include "cred/vault.h"

#include <string.h>

#include "base/error.h"
#include "cred/json.h"
#include "cred/text.h"
#include "cred/url.h"

static bool fail(GError **error, const char *what)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s", what);
    return false;
}

bool sm_vault_addr_check(const char *addr, GError **error)
{
    if (!sm_cred_url_parse(addr, NULL, error))
        return false;
    if (strchr(addr, '?'))
        return fail(error, "the URL must not have a query (?...)");
    return true;
}

bool sm_vault_path_check(const char *path, GError **error)
{
    size_t len = strlen(path);

    if (len == 0)
        return fail(error, "the path is empty");
    if (len > SM_VAULT_PATH_MAX)
        return fail(error, "the path is longer than 512 bytes");
    for (const uint8_t *p = (const uint8_t *)path; *p; p++)
        if (*p < 0x20 || *p == 0x7f || strchr("?#\\", *p))
            return fail(error, "the path must not have '?', '#', a backslash or control bytes");
    for (const char *at = path;; at++) {
        size_t n = strcspn(at, "/");
        if (n == 0)
            return fail(error, "the path must not begin or end with '/' or have an empty part");
        if ((n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
            return fail(error, "the path must not have '.' or '..' as a part");
        at += n;
        if (*at == '\0')
            return true;
    }
}

bool sm_vault_field_check(const char *field, GError **error)
{
    size_t len = strlen(field);
    if (len == 0 || len > SM_VAULT_FIELD_MAX)
        return fail(error, "the field's name must have 1 to 256 bytes");
    return true;
}

/*
 * ADDR without slashes at its end, /v1/, PATH with its odd bytes escaped. The path is no secret; the buffer is for its
 * encoder.
 */
static char *url_of(const char *addr, const char *path)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t =
        sm_cred_text_init(SM_CRED_URL_MAX + (size_t)3 * SM_VAULT_PATH_MAX);
    size_t len = strlen(addr);

    while (len > 0 && addr[len - 1] == '/')
        len--;
    sm_cred_text_add(&t, addr, len);
    sm_cred_text_str(&t, "/v1");
    for (const char *at = path; *at; at += *at == '/') {
        size_t n = strcspn(at, "/");
        sm_cred_text_str(&t, "/");
        sm_cred_text_percent(&t, at, n);
        at += n;
    }
    return t.bad ? NULL : g_strndup((const char *)t.data, t.len);
}

bool sm_vault_request(const struct sm_vault_server *server, const char *path, struct sm_cred_request *ret,
                      GError **error)
{
    size_t len;
    const uint8_t *token = sm_secret_bytes(server->token, &len);
    bool in_namespace = server->namespace_ && *server->namespace_;

    *ret = (struct sm_cred_request){0};
    if (!sm_vault_addr_check(server->addr, error) || !sm_vault_path_check(path, error))
        return false;
    if (len > SM_CRED_TOKEN_MAX || !sm_cred_value_ok(token, len))
        return fail(error, "VAULT_TOKEN is empty, too long or has bytes that cannot stand in a header");
    if (in_namespace && !sm_cred_value_ok(server->namespace_, strlen(server->namespace_)))
        return fail(error, "VAULT_NAMESPACE has bytes that cannot stand in a header");
    g_autofree char *url = url_of(server->addr, path);
    if (!url || !sm_cred_url_parse(url, NULL, NULL))
        return fail(error, "VAULT_ADDR and the path are together longer than 2048 bytes");
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_TOKEN_MAX);
    sm_cred_text_add(&t, token, len);
    *ret = (struct sm_cred_request){.method = "GET", .url = sm_steal_ptr(&url)};
    sm_cred_request_field(ret, "Accept", "application/json");
    /* Vault's agent and proxy can be set up to refuse requests without it, against forged ones from browsers. */
    sm_cred_request_field(ret, "X-Vault-Request", "true");
    if (in_namespace)
        sm_cred_request_field(ret, "X-Vault-Namespace", server->namespace_);
    bool fits = sm_cred_request_secret(ret, "X-Vault-Token", sm_cred_text_secret(&t));
    g_assert(fits);
    return true;
}

static enum sm_cred_reason of_status(unsigned status)
{
    if (status >= 300 &&
        status <= 399) /* a standby node sends its clients to the active one: VAULT_ADDR must name that */
        return SM_CRED_ENDPOINT_REDIRECT;
    switch (status) {
    case 200:
        return SM_CRED_OK;
    case 403:
        return SM_CRED_VAULT_DENIED;
    case 404:
        return SM_CRED_VAULT_NOT_FOUND;
    case 503:
        return SM_CRED_VAULT_SEALED;
    default:
        return SM_CRED_VAULT_STATUS;
    }
}

static uint32_t life(const json_t *root)
{
    const json_t *lease = json_object_get(root, "lease_duration");
    json_int_t s = json_is_integer(lease) ? json_integer_value(lease) : 0;

    return s <= 0 ? SM_VAULT_TTL_DEFAULT_S : (uint32_t)SM_MIN(s, (json_int_t)SM_VAULT_TTL_MAX_S);
}

static enum sm_cred_reason read_object(const json_t *root, const char *field, struct sm_vault_value *ret)
{
    const json_t *data = json_object_get(root, "data");
    const json_t *inner = json_object_get(data, "data");

    if (!json_is_object(data))
        return SM_CRED_VAULT_RESPONSE_MALFORMED;
    if (json_is_object(inner) && json_is_object(json_object_get(data, "metadata")))
        data = inner;
    const json_t *value = json_object_get(data, field);
    if (!value)
        return SM_CRED_VAULT_FIELD_MISSING;
    size_t len = json_string_length(value);
    if (!json_is_string(value) || len == 0 || len > SM_CRED_SECRET_MAX)
        return SM_CRED_VAULT_FIELD_INVALID;
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_SECRET_MAX);
    sm_cred_text_add(&t, json_string_value(value), len);
    ret->secret = sm_cred_text_secret(&t);
    ret->ttl_s = life(root);
    return SM_CRED_OK;
}

enum sm_cred_reason sm_vault_read(const struct sm_cred_response *r, const char *field, struct sm_vault_value *ret)
{
    static const struct sm_cred_response_words words = {SM_CRED_VAULT_RESPONSE_TYPE, SM_CRED_VAULT_RESPONSE_TOO_LARGE,
                                                        SM_CRED_VAULT_RESPONSE_MALFORMED};
    json_t *root = NULL;

    *ret = (struct sm_vault_value){0};
    enum sm_cred_reason reason = of_status(r->status);
    if (reason == SM_CRED_OK)
        reason = sm_cred_response_object(r, &words, &root);
    if (reason == SM_CRED_OK)
        reason = read_object(root, field, ret);
    json_decref(root);
    return reason;
}
