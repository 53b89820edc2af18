/* SPDX-License-Identifier: BSD-3-Clause */
/* What is asked of Vault, and what is believed of its answer: KV of both versions, other engines, errors. */
#include "engine.h"

#include <glib.h>

#include "cred/url.h"
#include "cred/vault.h"

#define JSON "application/json"

static void assert_field(const struct sm_cred_request *r, size_t i, const char *name, const char *want)
{
    assert_true(i < r->n_fields);
    assert_string_equal(r->fields[i].name, name);
    assert_secret(r->fields[i].value, want);
}

static bool request(const char *addr, const char *token, const char *ns, const char *path, struct sm_cred_request *ret,
                    GError **error)
{
    sm_cleanup(sm_cred_secret_freep) struct sm_secret *t = secret(token);
    const struct sm_vault_server server = {.addr = addr, .token = t, .namespace_ = ns};
    return sm_vault_request(&server, path, ret, error);
}

static void test_request(void **state)
{
    const struct {
        const char *addr, *path, *url;
    } cases[] = {
        {"https://vault.example:8200", "secret/data/openai", "https://vault.example:8200/v1/secret/data/openai"},
        {"https://vault.example:8200/", "kv/a", "https://vault.example:8200/v1/kv/a"},
        {"https://vault.example/prefix//", "kv", "https://vault.example/prefix/v1/kv"},
        {"http://127.0.0.1:8200", "kv/a b/100%/\xc3\xa9:@+",
         "http://127.0.0.1:8200/v1/kv/a%20b/100%25/%C3%A9%3A%40%2B"},
        {"http://[::1]:8200", "kv/...", "http://[::1]:8200/v1/kv/..."},
        {"https://vault.example", "kv/%2e%2e/x", "https://vault.example/v1/kv/%252e%252e/x"},
    };
    GError *error = NULL;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        sm_cleanup(sm_cred_request_clear) struct sm_cred_request r = {0};
        const char *ns = i % 2 ? "team/a" : i ? "" : NULL;
        assert_true(request(cases[i].addr, "hvs.CAES", ns, cases[i].path, &r, &error));
        assert_string_equal(r.method, "GET");
        assert_string_equal(r.url, cases[i].url);
        assert_null(r.body);
        assert_int_equal(r.n_fields, i % 2 ? 4 : 3);
        assert_field(&r, 0, "Accept", "application/json");
        assert_field(&r, 1, "X-Vault-Request", "true");
        if (i % 2)
            assert_field(&r, 2, "X-Vault-Namespace", "team/a");
        assert_field(&r, r.n_fields - 1, "X-Vault-Token", "hvs.CAES");
    }
    assert_null(error);
}

static void test_refused_requests(void **state)
{
    const char *const paths[] = {"",     "/kv",  "kv/",    "kv//a", "kv/../sys", "..",      "kv/.",    "./kv",
                                 "kv?x", "kv#f", "kv\\..", "kv\na", "kv\x7f",    "kv/a/..", "kv/..\\a"};
    const char *const addrs[] = {"http://vault.example",
                                 "vault.example:8200",
                                 "https://u:p@vault.example",
                                 "https://vault.example?x",
                                 "https://vault.example/#f",
                                 "file:///etc/passwd",
                                 ""};
    const char *const tokens[] = {"", "a\nb", " a", "a ", "\xc3\xa9"};
    GError *error = NULL;
    struct sm_cred_request r;

    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(paths); i++) {
        assert_false(sm_vault_path_check(paths[i], &error));
        assert_error(&error, SM_ERROR_INVALID, "path");
        assert_false(request("https://vault.example", "t", NULL, paths[i], &r, &error));
        assert_error(&error, SM_ERROR_INVALID, "path");
        assert_null(r.url);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(addrs); i++) {
        assert_false(sm_vault_addr_check(addrs[i], &error));
        assert_error(&error, SM_ERROR_INVALID, "URL");
        assert_false(request(addrs[i], "t", NULL, "kv/a", &r, &error));
        assert_error(&error, SM_ERROR_INVALID, "URL");
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(tokens); i++) {
        assert_false(request("https://vault.example", tokens[i], NULL, "kv/a", &r, &error));
        assert_error(&error, SM_ERROR_INVALID, "VAULT_TOKEN");
    }
    assert_false(request("https://vault.example", "t", "a\r\nX-Vault-Token: b", "kv/a", &r, &error));
    assert_error(&error, SM_ERROR_INVALID, "VAULT_NAMESPACE");

    char *large = g_strnfill(SM_VAULT_PATH_MAX + 1, 'a');
    assert_false(sm_vault_path_check(large, &error));
    assert_error(&error, SM_ERROR_INVALID, "longer than");
    large[SM_VAULT_PATH_MAX] = '\0';
    assert_true(sm_vault_path_check(large, &error));
    memset(large, '%', SM_VAULT_PATH_MAX); /* three times as long in the URL */
    char *addr = g_strnfill(SM_CRED_URL_MAX - 1000, 'a');
    memcpy(addr, "https://vault/", 14);
    assert_false(request(addr, "t", NULL, large, &r, &error));
    assert_error(&error, SM_ERROR_INVALID, "together");
    assert_null(r.url);
    g_free(addr);
    assert_true(sm_vault_field_check("api key", &error));
    assert_false(sm_vault_field_check("", &error));
    assert_error(&error, SM_ERROR_INVALID, "field");
    assert_false(sm_vault_field_check(large, &error));
    assert_error(&error, SM_ERROR_INVALID, "field");
    g_free(large);
}

static void read_whole(unsigned status, const char *type, const char *body, size_t len, const char *field,
                       enum sm_cred_reason want, const char *want_secret, uint32_t want_ttl)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, body, len);
    const struct sm_cred_response r = {.status = status, .content_type = type, .body = copy, .len = len};
    struct sm_vault_value got;

    enum sm_cred_reason reason = sm_vault_read(&r, field, &got);
    if (reason != want)
        fail_msg("%.60s: %s, not %s", body, sm_cred_reason_name(reason), sm_cred_reason_name(want));
    if (want_secret)
        assert_secret(got.secret, want_secret);
    else
        assert_null(got.secret);
    assert_int_equal(got.ttl_s, want_ttl);
    sm_secret_free(got.secret);
    free(copy);
}

static void good(const char *body, const char *field, const char *want, uint32_t ttl)
{
    read_whole(200, JSON, body, strlen(body), field, SM_CRED_OK, want, ttl);
}

static void bad(unsigned status, const char *type, const char *body, enum sm_cred_reason want)
{
    read_whole(status, type, body, strlen(body), "key", want, NULL, 0);
}

#define V1(lease, data)                                                                                                \
    "{\"request_id\":\"r\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":" lease ",\"data\":" data          \
    ",\"wrap_info\":null,\"warnings\":null,\"auth\":null}"
#define META                                                                                                           \
    "\"metadata\":{\"created_time\":\"2030-01-01T00:00:00Z\",\"deletion_time\":\"\",\"destroyed\":false,\"version\":"  \
    "3}"
#define V2(data) V1("0", "{\"data\":" data "," META "}")

static void test_versions(void **state)
{
    (void)state;
    good(V1("2764800", "{\"key\":\"sk-1\",\"other\":\"x\"}"), "key", "sk-1", SM_VAULT_TTL_MAX_S);
    good(V1("600", "{\"key\":\"sk-1\"}"), "key", "sk-1", 600);
    good(V1("0", "{\"key\":\"sk-1\"}"), "key", "sk-1", SM_VAULT_TTL_DEFAULT_S);
    good(V1("-3", "{\"key\":\"sk-1\"}"), "key", "sk-1", SM_VAULT_TTL_DEFAULT_S);
    good(V1("9223372036854775807", "{\"key\":\"sk-1\"}"), "key", "sk-1", SM_VAULT_TTL_MAX_S);
    good(V1("\"600\"", "{\"key\":\"sk-1\"}"), "key", "sk-1", SM_VAULT_TTL_DEFAULT_S);
    good("{\"data\":{\"key\":\"sk-1\"}}", "key", "sk-1", SM_VAULT_TTL_DEFAULT_S);
    good(V2("{\"key\":\"sk-2\",\"data\":\"d\"}"), "key", "sk-2", SM_VAULT_TTL_DEFAULT_S);
    good(V2("{\"key\":\"sk-2\",\"data\":\"d\"}"), "data", "d", SM_VAULT_TTL_DEFAULT_S);
    /* Version 1 whose fields are named as version 2's shape is: text is not an object. */
    good(V1("0", "{\"data\":\"d\",\"metadata\":\"m\"}"), "data", "d", SM_VAULT_TTL_DEFAULT_S);
    good(V1("0", "{\"data\":\"d\",\"metadata\":{}}"), "data", "d", SM_VAULT_TTL_DEFAULT_S);
    good(V1("0", "{\"data\":{\"key\":\"inner\"},\"key\":\"outer\"}"), "key", "outer", SM_VAULT_TTL_DEFAULT_S);
    /* A key in PEM keeps its line ends; a field's name is taken to the letter. */
    good(V2("{\"a.b\":\"-----BEGIN\\nx\\n\"}"), "a.b", "-----BEGIN\nx\n", SM_VAULT_TTL_DEFAULT_S);
}

static void test_bad(void **state)
{
    (void)state;
    bad(200, JSON, V2("{\"other\":\"x\"}"), SM_CRED_VAULT_FIELD_MISSING);
    bad(200, JSON, V2("{\"Key\":\"x\"}"), SM_CRED_VAULT_FIELD_MISSING);
    bad(200, JSON, V1("0", "{\"a\":{\"key\":\"x\"}}"), SM_CRED_VAULT_FIELD_MISSING);
    /* Version 2 does not fall back to the outer object. */
    bad(200, JSON, V1("0", "{\"key\":\"x\",\"data\":{},\"metadata\":{}}"), SM_CRED_VAULT_FIELD_MISSING);
    bad(200, JSON, V1("0", "{\"data\":null,\"metadata\":{\"version\":1}}"), SM_CRED_VAULT_FIELD_MISSING);
    bad(200, JSON, V2("{\"key\":7}"), SM_CRED_VAULT_FIELD_INVALID);
    bad(200, JSON, V2("{\"key\":null}"), SM_CRED_VAULT_FIELD_INVALID);
    bad(200, JSON, V2("{\"key\":\"\"}"), SM_CRED_VAULT_FIELD_INVALID);
    bad(200, JSON, V2("{\"key\":[\"x\"]}"), SM_CRED_VAULT_FIELD_INVALID);
    bad(200, JSON, "{\"data\":null}", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, JSON, "{\"data\":\"key\"}", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, JSON, "{\"key\":\"x\"}", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, JSON, "[]", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, JSON, "", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, JSON, "{\"data\":{\"key\":\"a\"},\"data\":{\"key\":\"b\"}}", SM_CRED_VAULT_RESPONSE_MALFORMED);
    bad(200, "text/html", V2("{\"key\":\"x\"}"), SM_CRED_VAULT_RESPONSE_TYPE);
    bad(200, NULL, V2("{\"key\":\"x\"}"), SM_CRED_VAULT_RESPONSE_TYPE);
    bad(204, JSON, "", SM_CRED_VAULT_STATUS);
    bad(400, JSON, "{\"errors\":[\"canary\"]}", SM_CRED_VAULT_STATUS);
    bad(403, JSON, "{\"errors\":[\"permission denied\"]}", SM_CRED_VAULT_DENIED);
    bad(404, JSON, V2("null"), SM_CRED_VAULT_NOT_FOUND);
    bad(404, JSON, "{\"errors\":[]}", SM_CRED_VAULT_NOT_FOUND);
    bad(429, JSON, "{}", SM_CRED_VAULT_STATUS);
    bad(503, JSON, "{\"errors\":[\"Vault is sealed\"]}", SM_CRED_VAULT_SEALED);
    bad(307, NULL, "", SM_CRED_ENDPOINT_REDIRECT);
    bad(500, "text/plain", "", SM_CRED_VAULT_STATUS);
    /* Also with a body that would be good. */
    bad(403, JSON, V2("{\"key\":\"x\"}"), SM_CRED_VAULT_DENIED);
}

static void test_size(void **state)
{
    char *value = g_strnfill(SM_CRED_SECRET_MAX + 1, 'x');
    g_autofree char *over = g_strdup_printf("{\"data\":{\"key\":\"%s\"}}", value);
    value[SM_CRED_SECRET_MAX] = '\0';
    g_autofree char *exact = g_strdup_printf("{\"data\":{\"key\":\"%s\"}}", value);
    char *large = g_strnfill(SM_CRED_BODY_MAX + 1, ' ');

    (void)state;
    bad(200, JSON, over, SM_CRED_VAULT_FIELD_INVALID);
    good(exact, "key", value, SM_VAULT_TTL_DEFAULT_S);
    g_free(value);
    memcpy(large, "{\"data\":{\"key\":\"x\"}}", 20);
    read_whole(200, JSON, large, SM_CRED_BODY_MAX, "key", SM_CRED_OK, "x", SM_VAULT_TTL_DEFAULT_S);
    read_whole(200, JSON, large, SM_CRED_BODY_MAX + 1, "key", SM_CRED_VAULT_RESPONSE_TOO_LARGE, NULL, 0);
    g_free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),  cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_versions), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
