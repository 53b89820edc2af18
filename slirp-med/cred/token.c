/* SPDX-License-Identifier: BSD-3-Clause */
/* Token requests and answers; see token.h. */
#include "cred/token.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "cred/json.h"
#include "cred/text.h"
#include "cred/url.h"

static const char *const auth_names[] = {[SM_TOKEN_AUTH_BODY] = "body", [SM_TOKEN_AUTH_BASIC] = "basic"};
SM_NAME_TABLE_COVERS(auth_names, SM_TOKEN_AUTHS);

const char *sm_token_auth_name(enum sm_token_auth auth)
{
    return (unsigned)auth < SM_TOKEN_AUTHS ? auth_names[auth] : "?";
}

bool sm_token_auth_parse(const char *name, enum sm_token_auth *ret)
{
    for (unsigned i = 0; i < SM_TOKEN_AUTHS; i++) {
        if (strcmp(name, auth_names[i]) == 0) {
            *ret = (enum sm_token_auth)i;
            return true;
        }
    }
    return false;
}

/* ---- asking ---- */

/* scope-token, RFC 6749 3.3 */
static bool is_scope(const char *scope)
{
    for (const char *p = scope; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\')
            return false;
    return *scope != '\0';
}

bool sm_token_params_check(const char *token_url, const char *const *scopes, const char *audience, GError **error)
{
    size_t len = 0;

    if (!sm_cred_url_parse(token_url, NULL, error))
        return false;
    for (size_t i = 0; scopes && scopes[i]; i++) {
        if (!is_scope(scopes[i])) {
            sm_error_set(error, SM_ERROR_INVALID,
                         "scope %zu is empty or has a blank, a quote, a backslash or a byte that is not visible ASCII",
                         i + 1);
            return false;
        }
        len += strlen(scopes[i]) + 1;
    }
    if (len > SM_TOKEN_PARAM_MAX || (audience && strlen(audience) > SM_TOKEN_PARAM_MAX)) {
        sm_error_set(error, SM_ERROR_LIMIT, "scopes or audience are longer than %d bytes", SM_TOKEN_PARAM_MAX);
        return false;
    }
    if (audience && *audience == '\0') {
        sm_error_set(error, SM_ERROR_INVALID, "the audience is empty: leave it out");
        return false;
    }
    return true;
}

static void add_param(struct sm_cred_text *form, const char *name, const void *value, size_t len)
{
    if (form->len > 0)
        sm_cred_text_str(form, "&");
    sm_cred_text_str(form, name);
    sm_cred_text_str(form, "=");
    sm_cred_text_form(form, value, len);
}

static void add_secret_param(struct sm_cred_text *form, const char *name, const struct sm_secret *value)
{
    size_t len;
    const uint8_t *p = sm_secret_bytes(value, &len);
    add_param(form, name, p, len);
}

static void add_scopes(struct sm_cred_text *form, const char *const *scopes)
{
    if (!scopes || !scopes[0])
        return;
    g_autofree char *joined = g_strjoinv(" ", (char **)scopes);
    add_param(form, "scope", joined, strlen(joined));
}

static struct sm_secret *basic(const struct sm_secret *id, const struct sm_secret *secret)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text pair = sm_cred_text_init(SM_TOKEN_FORM_MAX);
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text value = sm_cred_text_init(SM_TOKEN_FORM_MAX);
    size_t len;
    const uint8_t *p = sm_secret_bytes(id, &len);

    sm_cred_text_form(&pair, p, len);
    sm_cred_text_str(&pair, ":");
    p = sm_secret_bytes(secret, &len);
    sm_cred_text_form(&pair, p, len);
    if (pair.bad)
        return NULL;
    sm_cred_text_str(&value, "Basic ");
    sm_cred_text_base64(&value, pair.data, pair.len);
    return sm_cred_text_secret(&value);
}

static void begin(struct sm_cred_request *r, const char *token_url)
{
    *r = (struct sm_cred_request){.method = "POST", .url = g_strdup(token_url)};
    sm_cred_request_field(r, "Content-Type", "application/x-www-form-urlencoded");
    sm_cred_request_field(r, "Accept", "application/json");
}

static bool too_long(struct sm_cred_request *r, GError **error)
{
    sm_cred_request_clear(r);
    sm_error_set(error, SM_ERROR_LIMIT, "the token request is longer than %u bytes", SM_TOKEN_FORM_MAX);
    return false;
}

bool sm_token_client_request(const struct sm_token_client *client, struct sm_cred_request *ret, GError **error)
{
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text form = sm_cred_text_init(SM_TOKEN_FORM_MAX);

    *ret = (struct sm_cred_request){0};
    if (!sm_token_params_check(client->token_url, client->scopes, client->audience, error))
        return false;
    begin(ret, client->token_url);
    add_param(&form, "grant_type", "client_credentials", strlen("client_credentials"));
    add_scopes(&form, client->scopes);
    if (client->audience)
        add_param(&form, "audience", client->audience, strlen(client->audience));
    switch (client->auth) {
    case SM_TOKEN_AUTH_BODY:
        add_secret_param(&form, "client_id", client->client_id);
        add_secret_param(&form, "client_secret", client->client_secret);
        break;
    case SM_TOKEN_AUTH_BASIC:
        if (!sm_cred_request_secret(ret, "Authorization", basic(client->client_id, client->client_secret)))
            return too_long(ret, error);
        break;
    case SM_TOKEN_AUTHS:
        g_assert_not_reached();
    }
    ret->body = sm_cred_text_secret(&form);
    return ret->body || too_long(ret, error);
}

bool sm_token_assertion_request(const char *token_url, const struct sm_secret *assertion, struct sm_cred_request *ret,
                                GError **error)
{
    static const char grant[] = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text form = sm_cred_text_init(SM_TOKEN_FORM_MAX);

    *ret = (struct sm_cred_request){0};
    if (!sm_token_params_check(token_url, NULL, NULL, error))
        return false;
    begin(ret, token_url);
    add_param(&form, "grant_type", grant, sizeof(grant) - 1);
    add_secret_param(&form, "assertion", assertion);
    ret->body = sm_cred_text_secret(&form);
    return ret->body || too_long(ret, error);
}

/* ---- believing ---- */

/* RFC 6749 5.2 and 4.1.2.1 (which servers use here as well), RFC 8707 2. */
static const char *registered_error(const json_t *root)
{
    static const char *const codes[] = {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",     "unsupported_grant_type",
        "invalid_scope",   "access_denied",  "server_error",  "temporarily_unavailable", "invalid_target",
    };
    const char *code = json_string_value(json_object_get(root, "error"));

    for (size_t i = 0; code && i < SM_ARRAY_LEN(codes); i++)
        if (strcmp(code, codes[i]) == 0)
            return codes[i];
    return NULL;
}

static bool type_fits(const json_t *root, const char *field)
{
    const json_t *type = json_object_get(root, "token_type");

    if (strcmp(field, SM_TOKEN_FIELD) != 0 || !type || json_is_null(type))
        return true;
    const char *text = json_string_value(type);
    return text && (g_ascii_strcasecmp(text, "bearer") == 0 || g_ascii_strcasecmp(text, "bearertoken") == 0);
}

/* A whole number of seconds in text; at most ten digits, so that it fits. */
static bool seconds_of_text(const char *text, double *ret)
{
    size_t len = strlen(text);
    double n = 0;

    if (len < 1 || len > 10 || strspn(text, "0123456789") != len)
        return false;
    for (size_t i = 0; i < len; i++)
        n = n * 10 + (text[i] - '0');
    *ret = n;
    return true;
}

static bool life(const json_t *root, uint32_t default_ttl_s, uint32_t *ret)
{
    const json_t *expires = json_object_get(root, "expires_in");
    double s = default_ttl_s ? default_ttl_s : SM_TOKEN_TTL_DEFAULT_S;

    if (json_is_number(expires))
        s = json_number_value(expires);
    else if (json_is_string(expires) && !seconds_of_text(json_string_value(expires), &s))
        return false;
    else if (expires && !json_is_null(expires) && !json_is_string(expires))
        return false;
    if (!isfinite(s) || s < 1)
        return false;
    *ret = s < SM_TOKEN_TTL_MAX_S ? (uint32_t)s : SM_TOKEN_TTL_MAX_S;
    return true;
}

/* 200 and an object. */
static enum sm_cred_reason read_object(const json_t *root, const char *field, uint32_t default_ttl_s,
                                       struct sm_token *ret)
{
    const json_t *token = json_object_get(root, field);
    uint32_t ttl_s = 0;

    if (!token || json_is_null(token))
        return SM_CRED_TOKEN_MISSING;
    if (!json_is_string(token) || json_string_length(token) > SM_CRED_TOKEN_MAX ||
        !sm_cred_value_ok(json_string_value(token), json_string_length(token)))
        return SM_CRED_TOKEN_INVALID;
    if (!type_fits(root, field))
        return SM_CRED_TOKEN_TYPE;
    if (!life(root, default_ttl_s, &ttl_s))
        return SM_CRED_TOKEN_EXPIRY;
    sm_cleanup(sm_cred_text_clear) struct sm_cred_text t = sm_cred_text_init(SM_CRED_TOKEN_MAX);
    sm_cred_text_add(&t, json_string_value(token), json_string_length(token));
    ret->token = sm_cred_text_secret(&t);
    ret->ttl_s = ttl_s;
    return SM_CRED_OK;
}

enum sm_cred_reason sm_token_read(const struct sm_cred_response *r, const char *field, uint32_t default_ttl_s,
                                  struct sm_token *ret)
{
    static const struct sm_cred_response_words words = {SM_CRED_TOKEN_RESPONSE_TYPE, SM_CRED_TOKEN_RESPONSE_TOO_LARGE,
                                                        SM_CRED_TOKEN_RESPONSE_MALFORMED};
    json_t *root;

    *ret = (struct sm_token){0};
    if (r->status >= 300 && r->status <= 399)
        return SM_CRED_ENDPOINT_REDIRECT;
    enum sm_cred_reason reason = sm_cred_response_object(r, &words, &root);
    if (r->status != 200)
        reason = SM_CRED_TOKEN_STATUS;
    else if (reason == SM_CRED_OK)
        reason = read_object(root, field, default_ttl_s, ret);
    if (reason != SM_CRED_OK)
        ret->error_code = registered_error(root);
    json_decref(root);
    return reason;
}
