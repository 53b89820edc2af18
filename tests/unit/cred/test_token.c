/* SPDX-License-Identifier: BSD-3-Clause */
/* Token requests byte by byte, and answers of every kind: which token is believed, and which word says why not. */
#include "engine.h"

#include <glib.h>

#include "cred/token.h"

#define URL "https://auth.example.com/oauth/token"

static void assert_field(const struct sm_cred_request *r, const char *name, const char *want)
{
    unsigned found = 0;
    for (size_t i = 0; i < r->n_fields; i++) {
        if (strcmp(r->fields[i].name, name) == 0) {
            found++;
            assert_secret(r->fields[i].value, want);
        }
    }
    assert_int_equal(found, 1);
}

static void client_request(struct sm_token_client client, const char *id, const char *client_secret,
                           struct sm_cred_request *ret)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *a = secret(id);
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *b = secret(client_secret);
    GError *error = NULL;

    client.token_url = URL;
    client.client_id = a;
    client.client_secret = b;
    assert_true(sm_token_client_request(&client, ret, &error));
    assert_null(error);
    assert_string_equal(ret->method, "POST");
    assert_string_equal(ret->url, URL);
    assert_field(ret, "Content-Type", "application/x-www-form-urlencoded");
    assert_field(ret, "Accept", "application/json");
}

static void test_body_request(void **state)
{
    const char *const scopes[] = {"read:all", "https://g.example/auth/x", NULL};
    const char *const none[] = {NULL};
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request r = {0};

    (void)state;
    client_request((struct sm_token_client){.scopes = scopes, .audience = "https://api.example.com/?a=b&c"}, "my id",
                   "s&c=r+t/%\xc3\xa9", &r);
    assert_secret(r.body, "grant_type=client_credentials&scope=read%3Aall+https%3A%2F%2Fg.example%2Fauth%2Fx"
                          "&audience=https%3A%2F%2Fapi.example.com%2F%3Fa%3Db%26c&client_id=my+id"
                          "&client_secret=s%26c%3Dr%2Bt%2F%25%C3%A9");
    assert_int_equal(r.n_fields, 2);
    sm_cred_request_clear(&r);
    assert_null(r.body);
    client_request((struct sm_token_client){.scopes = none}, "id", "secret", &r);
    assert_secret(r.body, "grant_type=client_credentials&client_id=id&client_secret=secret");
}

static void test_basic_request(void **state)
{
    const char *const scopes[] = {"a", NULL};
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request r = {0};

    (void)state;
    /* RFC 6749 2.3.1's own example. */
    client_request((struct sm_token_client){.scopes = scopes, .auth = SM_TOKEN_AUTH_BASIC}, "s6BhdRkqt3",
                   "7Fjfp0ZBr1KtDRbnfVdmIw", &r);
    assert_field(&r, "Authorization", "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
    assert_secret(r.body, "grant_type=client_credentials&scope=a");
    sm_cred_request_clear(&r);
    /* Both are encoded before they are joined: a colon in the id cannot move the border. "a%3Ab:p+%25~" */
    client_request((struct sm_token_client){.auth = SM_TOKEN_AUTH_BASIC}, "a:b", "p %~", &r);
    assert_field(&r, "Authorization", "Basic YSUzQWI6cCslMjV+");
}

static void test_assertion_request(void **state)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *jwt = secret("eyJhbGciOiJFUzI1NiJ9.e30.sig-_");
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request r = {0};
    GError *error = NULL;

    (void)state;
    assert_true(sm_token_assertion_request(URL, jwt, &r, &error));
    assert_secret(r.body, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
                          "&assertion=eyJhbGciOiJFUzI1NiJ9.e30.sig-_");
    assert_field(&r, "Content-Type", "application/x-www-form-urlencoded");
    sm_cred_request_clear(&r);
    assert_false(sm_token_assertion_request("http://auth.example.com/", jwt, &r, &error));
    assert_error(&error, SM_ERROR_INVALID, "https");
    assert_null(r.url);
}

static void test_params(void **state)
{
    const char *const bad_scopes[] = {"", "a b", "a\"b", "a\\b", "a\nb", "\xc3\xa9", "a\x7f"};
    GError *error = NULL;

    (void)state;
    assert_true(sm_token_params_check(URL, NULL, NULL, &error));
    for (size_t i = 0; i < SM_ARRAY_LEN(bad_scopes); i++) {
        const char *const scopes[] = {"fine", bad_scopes[i], NULL};
        assert_false(sm_token_params_check(URL, scopes, NULL, &error));
        assert_error(&error, SM_ERROR_INVALID, "scope 2");
    }
    assert_false(sm_token_params_check(URL, NULL, "", &error));
    assert_error(&error, SM_ERROR_INVALID, "audience is empty");
    char *large = g_strnfill(SM_TOKEN_PARAM_MAX + 1, 'a');
    const char *const scopes[] = {large, NULL};
    assert_false(sm_token_params_check(URL, scopes, NULL, &error));
    assert_error(&error, SM_ERROR_LIMIT, "longer than");
    assert_false(sm_token_params_check(URL, NULL, large, &error));
    assert_error(&error, SM_ERROR_LIMIT, "longer than");
    g_free(large);

    /* The longest secrets fit, whatever is in them. */
    sm_cleanup(sm_cred_request_clear) struct sm_cred_request r = {0};
    char *worst = g_strnfill(SM_CRED_SECRET_MAX, '%');
    char *most = g_strnfill(SM_TOKEN_PARAM_MAX - 1, '%');
    const char *const longest[] = {most, NULL};
    client_request((struct sm_token_client){.auth = SM_TOKEN_AUTH_BODY, .scopes = longest, .audience = most}, worst,
                   worst, &r);
    g_free(most);
    sm_cred_request_clear(&r);
    client_request((struct sm_token_client){.auth = SM_TOKEN_AUTH_BASIC}, worst, worst, &r);
    g_free(worst);

    enum sm_token_auth auth;
    for (unsigned i = 0; i < SM_TOKEN_AUTHS; i++) {
        assert_true(sm_token_auth_parse(sm_token_auth_name((enum sm_token_auth)i), &auth));
        assert_int_equal(auth, i);
    }
    assert_false(sm_token_auth_parse("Basic", &auth));
}

struct expected {
    enum sm_cred_reason reason;
    const char *token;
    uint32_t ttl_s;
    const char *code;
};

static void read_whole(unsigned status, const char *type, const char *body, size_t len, const char *field, uint32_t ttl,
                       const struct expected *want)
{
    uint8_t *copy = malloc(len ? len : 1); /* of the exact size, for ASan */
    memcpy(copy, body, len);
    const struct sm_cred_response r = {.status = status, .content_type = type, .body = copy, .len = len};
    struct sm_token got;

    enum sm_cred_reason reason = sm_token_read(&r, field, ttl, &got);
    if (reason != want->reason)
        fail_msg("%.60s: %s, not %s", body, sm_cred_reason_name(reason), sm_cred_reason_name(want->reason));
    assert_int_equal(reason == SM_CRED_OK, got.token != NULL);
    assert_int_equal(got.ttl_s, want->ttl_s);
    if (want->token)
        assert_secret(got.token, want->token);
    if (want->code)
        assert_string_equal(got.error_code, want->code);
    else
        assert_null(got.error_code);
    sm_secret_free(got.token);
    free(copy);
}

static void read_text(unsigned status, const char *type, const char *body, const char *field, uint32_t ttl,
                      const struct expected *want)
{
    read_whole(status, type, body, strlen(body), field, ttl, want);
}

#define OK(token, ttl) (&(const struct expected){SM_CRED_OK, token, ttl, NULL})
#define BAD(reason) (&(const struct expected){SM_CRED_##reason, NULL, 0, NULL})
#define SAYS(reason, code) (&(const struct expected){SM_CRED_##reason, NULL, 0, code})
#define JSON "application/json"

/* 200, application/json, access_token, no default. */
static void plain(const char *body, const struct expected *want)
{
    read_text(200, JSON, body, SM_TOKEN_FIELD, 0, want);
}

static void test_good(void **state)
{
    (void)state;
    plain("{\"access_token\":\"abc\",\"token_type\":\"Bearer\",\"expires_in\":3600}", OK("abc", 3600));
    plain("{\"access_token\":\"abc\"}", OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    read_text(200, JSON, "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 77, OK("abc", 77));
    read_text(200, JSON, "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, UINT32_MAX, OK("abc", SM_TOKEN_TTL_MAX_S));
    read_text(200, JSON, "{\"access_token\":\"abc\",\"expires_in\":9}", SM_TOKEN_FIELD, 77, OK("abc", 9));
    plain("{\"access_token\":\"a b\",\"token_type\":\"bEARER\",\"expires_in\":\"120\"}", OK("a b", 120));
    plain("{\"access_token\":\"abc\",\"token_type\":\"BearerToken\",\"expires_in\":59.9}", OK("abc", 59));
    plain("{\"access_token\":\"abc\",\"token_type\":null,\"expires_in\":null}", OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    plain("{\"access_token\":\"abc\",\"expires_in\":9223372036854775807}", OK("abc", SM_TOKEN_TTL_MAX_S));
    plain("{\"access_token\":\"abc\",\"expires_in\":1e300}", OK("abc", SM_TOKEN_TTL_MAX_S));
    plain("{\"access_token\":\"abc\",\"expires_in\":\"9999999999\"}", OK("abc", SM_TOKEN_TTL_MAX_S));
    plain("{\"access_token\":\"abc\",\"expires_in\":1}", OK("abc", 1));
    plain("{\"access_token\":\"abc\",\"error\":\"invalid_client\"}", OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    plain(" {\"x\":{\"access_token\":\"no\"},\"access_token\":\"abc\"}\r\n ", OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    plain("{\"access_token\":\"\\u0041\\u002f\"}", OK("A/", SM_TOKEN_TTL_DEFAULT_S));
    /* A member of the operator's own: its token_type means nothing. Dots are no path. */
    read_text(200, JSON, "{\"id_token\":\"i\",\"access_token\":\"a\",\"token_type\":\"mac\"}", "id_token", 0,
              OK("i", SM_TOKEN_TTL_DEFAULT_S));
    read_text(200, JSON, "{\"a.b\":\"right\",\"a\":{\"b\":\"wrong\"}}", "a.b", 0, OK("right", SM_TOKEN_TTL_DEFAULT_S));
    read_text(200, JSON, "{\"a\":{\"b\":\"wrong\"}}", "a.b", 0, BAD(TOKEN_MISSING));
}

static void test_content_type(void **state)
{
    const char *const good[] = {"application/json", "Application/JSON", "application/json;charset=UTF-8",
                                "application/json ; x=y"};
    const char *const bad[] = {"",
                               "text/html",
                               "text/json",
                               "application/jsonp",
                               "application/json-seq",
                               " application/json",
                               "application/x-www-form-urlencoded",
                               "application/json, text/html"};

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(good); i++)
        read_text(200, good[i], "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 0, OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        read_text(200, bad[i], "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_RESPONSE_TYPE));
    read_text(200, NULL, "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_RESPONSE_TYPE));
}

static void test_bad(void **state)
{
    (void)state;
    plain("", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("[\"access_token\",\"abc\"]", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("\"abc\"", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"abc\"", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"abc\"}{}", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"abc\",\"access_token\":\"abd\"}", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"a\\u0000b\"}", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"\xff\"}", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{\"access_token\":\"abc\",\"n\":123456789012345678901234567890}", BAD(TOKEN_RESPONSE_MALFORMED));
    plain("{}", BAD(TOKEN_MISSING));
    plain("{\"access_token\":null}", BAD(TOKEN_MISSING));
    plain("{\"Access_Token\":\"abc\"}", BAD(TOKEN_MISSING));
    plain("{\"access_token\":\"\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":7}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":{\"access_token\":\"abc\"}}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\"a\\r\\nX-Evil: 1\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\"a\\tb\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\" abc\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\"abc\\n\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\"\xc3\xa9\"}", BAD(TOKEN_INVALID));
    plain("{\"access_token\":\"abc\",\"token_type\":\"mac\"}", BAD(TOKEN_TYPE));
    plain("{\"access_token\":\"abc\",\"token_type\":\"DPoP\"}", BAD(TOKEN_TYPE));
    plain("{\"access_token\":\"abc\",\"token_type\":\"\"}", BAD(TOKEN_TYPE));
    plain("{\"access_token\":\"abc\",\"token_type\":1}", BAD(TOKEN_TYPE));
    static const char *const lives[] = {"0",      "-1",      "0.5",     "\"\"",    "\"0\"",
                                        "\"-5\"", "\"1e3\"", "\" 60\"", "\"60s\"", "\"12345678901\"",
                                        "true",   "[60]",    "{}"};
    for (size_t i = 0; i < SM_ARRAY_LEN(lives); i++) {
        g_autofree char *body = g_strdup_printf("{\"access_token\":\"abc\",\"expires_in\":%s}", lives[i]);
        plain(body, BAD(TOKEN_EXPIRY));
    }
}

static void test_status(void **state)
{
    static const unsigned redirects[] = {300, 301, 302, 303, 307, 308};
    static const unsigned others[] = {0, 100, 199, 201, 204, 206, 400, 401, 403, 404, 429, 500, 503, 999};

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(redirects); i++)
        read_text(redirects[i], JSON, "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 0, BAD(ENDPOINT_REDIRECT));
    for (size_t i = 0; i < SM_ARRAY_LEN(others); i++)
        read_text(others[i], JSON, "{\"access_token\":\"abc\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    /* The code of RFC 6749 5.2 is shown when it is one, and nothing else of the answer ever is. */
    read_text(400, JSON, "{\"error\":\"invalid_scope\",\"error_description\":\"canary\"}", SM_TOKEN_FIELD, 0,
              SAYS(TOKEN_STATUS, "invalid_scope"));
    read_text(401, JSON, "{\"error\":\"invalid_client\"}", SM_TOKEN_FIELD, 0, SAYS(TOKEN_STATUS, "invalid_client"));
    read_text(400, JSON, "{\"error\":\"the secret s3cr3t is wrong\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    read_text(400, JSON, "{\"error\":\"INVALID_CLIENT\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    read_text(400, JSON, "{\"error\":{\"code\":\"invalid_client\"}}", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    read_text(400, "text/html", "{\"error\":\"invalid_client\"}", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    read_text(500, JSON, "not json", SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    plain("{\"error\":\"invalid_grant\"}", SAYS(TOKEN_MISSING, "invalid_grant"));
}

static void test_size(void **state)
{
    size_t head = strlen("{\"access_token\":\"abc\"}");
    char *large = g_strnfill(SM_CRED_BODY_MAX + 1, ' ');
    char *token = g_strnfill(SM_CRED_TOKEN_MAX + 1, 'x');

    (void)state;
    memcpy(large, "{\"access_token\":\"abc\"}", head);
    read_whole(200, JSON, large, SM_CRED_BODY_MAX, SM_TOKEN_FIELD, 0, OK("abc", SM_TOKEN_TTL_DEFAULT_S));
    read_whole(200, JSON, large, SM_CRED_BODY_MAX + 1, SM_TOKEN_FIELD, 0, BAD(TOKEN_RESPONSE_TOO_LARGE));
    read_whole(200, "text/html", large, SM_CRED_BODY_MAX + 1, SM_TOKEN_FIELD, 0, BAD(TOKEN_RESPONSE_TOO_LARGE));
    read_whole(400, JSON, large, SM_CRED_BODY_MAX + 1, SM_TOKEN_FIELD, 0, BAD(TOKEN_STATUS));
    g_free(large);
    g_autofree char *over = g_strdup_printf("{\"access_token\":\"%s\"}", token);
    plain(over, BAD(TOKEN_INVALID));
    token[SM_CRED_TOKEN_MAX] = '\0';
    g_autofree char *exact = g_strdup_printf("{\"access_token\":\"%s\"}", token);
    plain(exact, OK(token, SM_TOKEN_TTL_DEFAULT_S));
    g_free(token);
    /* As deep as it goes. */
    char *deep = g_strnfill(SM_CRED_BODY_MAX, '[');
    plain(deep, BAD(TOKEN_RESPONSE_MALFORMED));
    memcpy(deep, "{\"a\":", 5);
    plain(deep, BAD(TOKEN_RESPONSE_MALFORMED));
    g_free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_body_request),
        cmocka_unit_test(test_basic_request),
        cmocka_unit_test(test_assertion_request),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_content_type),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
