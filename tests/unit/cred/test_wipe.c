/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * No copy of a secret is left behind in the heap. This program's own free() and realloc() look through each block that
 * is given back for a canary; every engine runs with a secret that has it, on its good and on its bad ways. The
 * libraries are held to it as well, which is how jansson's blocks are known to be wiped. What the test itself frees it
 * wipes first.
 *
 * Not with a sanitizer, which has an allocator of its own.
 */
#include "engine.h"
#include "keys.h"

#include <malloc.h>
#include <stdio.h>

#include "cred/cache.h"
#include "cred/jwt.h"
#include "cred/token.h"
#include "cred/value.h"
#include "cred/vault.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define LOOKS 0
#else
#define LOOKS 1
#endif

/* Spelled so that it is the same in text, form and JSON; base64 of it, in the three ways it can lie. */
#define CANARY "cAnArYsEcReT7"

static const char *needles[8];
static unsigned n_needles;
static unsigned long hits, blocks;

#if LOOKS
void __libc_free(void *p);
void *__libc_realloc(void *p, size_t n);

static void look(const void *p)
{
    if (!p)
        return;
    size_t len = malloc_usable_size((void *)p);
    blocks++;
    for (unsigned i = 0; i < n_needles; i++)
        hits += memmem(p, len, needles[i], strlen(needles[i])) != NULL;
}

void free(void *p)
{
    look(p);
    __libc_free(p);
}

/* A block that moves leaves its old place unwiped: nobody who holds a secret may call this. */
void *realloc(void *p, size_t n)
{
    look(p);
    return __libc_realloc(p, n);
}
#endif

static void seek(const char *needle)
{
    assert_true(n_needles < SM_ARRAY_LEN(needles));
    needles[n_needles++] = needle;
}

static int setup(void **state)
{
    (void)state;
    n_needles = 0;
    hits = blocks = 0;
    return 0;
}

static void assert_nothing_found(void)
{
    n_needles = 0;
    assert_int_equal(hits, 0);
    if (LOOKS)
        assert_true(blocks > 0);
}

/* Without the heap. */
static struct sm_secret *canary_secret(const char *text)
{
    static uint8_t buf[8192];
    size_t len = strlen(text);
    assert_true(len <= sizeof(buf));
    memcpy(buf, text, len);
    return sm_secret_new(buf, len);
}

/* The look-out sees what it is there to see. */
static void test_the_test(void **state)
{
    (void)state;
    if (!LOOKS)
        skip();
    seek(CANARY);
    char *leak = strdup("x" CANARY);
    free(leak);
    assert_int_equal(hits, 1);
    /* jansson by itself does not wipe. This test is the first: nobody has asked it to. */
    json_t *json = json_string(CANARY);
    json_decref(json);
    assert_int_equal(hits, 2);
}

static void test_values(void **state)
{
    struct sm_secret *raw = canary_secret("sk-" CANARY "\n"), *clean = NULL, *header = NULL;

    (void)state;
    seek(CANARY);
    assert_int_equal(sm_cred_value_clean(raw, &clean), SM_CRED_OK);
    assert_int_equal(sm_cred_value_header(clean, "Bearer {key}", "{key}", &header), SM_CRED_OK);
    struct sm_secret *bad = canary_secret(CANARY "\n\n"), *none = NULL, *half = NULL;
    assert_int_equal(sm_cred_value_clean(bad, &half), SM_CRED_OK);
    assert_int_equal(sm_cred_value_header(half, "{key}", "{key}", &none), SM_CRED_VALUE_INVALID);
    sm_secret_free(half);
    sm_secret_free(bad);
    sm_secret_free(header);
    sm_secret_free(clean);
    sm_secret_free(raw);
    assert_nothing_found();
}

static void test_token_requests(void **state)
{
    const char *const scopes[] = {"a", "b", NULL};
    struct sm_secret *id = canary_secret("id"), *s = canary_secret(CANARY);
    GError *error = NULL;

    (void)state;
    seek(CANARY);
    /* "id:cAnArYsEcReT7" in base64, from where the canary begins */
    seek("Y0FuQXJZc0VjUmVUNw");
    for (unsigned auth = 0; auth < SM_TOKEN_AUTHS; auth++) {
        const struct sm_token_client client = {.token_url = "https://a.example/t",
                                               .client_id = id,
                                               .client_secret = s,
                                               .scopes = scopes,
                                               .auth = (enum sm_token_auth)auth};
        struct sm_cred_request r;
        assert_true(sm_token_client_request(&client, &r, &error));
        sm_cred_request_clear(&r);
        assert_true(sm_token_assertion_request("https://a.example/t", s, &r, &error));
        sm_cred_request_clear(&r);
    }
    const struct sm_vault_server server = {.addr = "https://v.example", .token = s};
    struct sm_cred_request r;
    assert_true(sm_vault_request(&server, "kv/a", &r, &error));
    sm_cred_request_clear(&r);
    sm_secret_free(id);
    sm_secret_free(s);
    assert_nothing_found();
}

static void read_token(unsigned status, const char *body)
{
    const struct sm_cred_response r = {
        .status = status, .content_type = "application/json", .body = (const uint8_t *)body, .len = strlen(body)};
    struct sm_token token;
    struct sm_vault_value value;
    (void)sm_token_read(&r, SM_TOKEN_FIELD, 0, &token);
    sm_secret_free(token.token);
    (void)sm_vault_read(&r, "key", &value);
    sm_secret_free(value.secret);
}

static void test_responses(void **state)
{
    static const char *const bodies[] = {
        "{\"access_token\":\"" CANARY "\",\"expires_in\":60}",
        "{\"access_token\":\"" CANARY "\\u0020" CANARY "\",\"x\":\"" CANARY "\"}",
        "{\"access_token\":\"" CANARY "\\n\",\"expires_in\":60}",
        "{\"access_token\":\"" CANARY "\",\"expires_in\":\"x\"}",
        "{\"access_token\":[[\"" CANARY "\"]],\"" CANARY "\":1}",
        "{\"access_token\":\"" CANARY,
        "{\"access_token\":\"" CANARY "\",\"access_token\":\"" CANARY "\"}",
        "{\"error\":\"" CANARY "\"}",
        "\"" CANARY "\"",
        "{\"data\":{\"key\":\"" CANARY "\"}}",
        "{\"data\":{\"data\":{\"key\":\"" CANARY "\",\"other\":\"" CANARY "\"},\"metadata\":{}}}",
        "{\"data\":{\"key\":{\"x\":\"" CANARY "\"}}}",
    };

    (void)state;
    seek(CANARY);
    for (size_t i = 0; i < SM_ARRAY_LEN(bodies); i++) {
        read_token(200, bodies[i]);
        read_token(400, bodies[i]);
    }
    assert_nothing_found();
}

static void test_cache(void **state)
{
    struct sm_cred_cache c = {0};

    (void)state;
    seek(CANARY);
    sm_cred_cache_ask(&c, 0);
    sm_cred_cache_fetched(&c, 0, canary_secret(CANARY), 3600);
    assert_true(sm_cred_cache_rejected(&c, 1, 1));
    sm_cred_cache_ask(&c, 1);
    sm_cred_cache_fetched(&c, 1, canary_secret(CANARY), 3600);
    sm_cred_cache_clear(&c);
    n_needles = 0;
    assert_int_equal(hits, 0);
}

/*
 * Claims and token. Not the key: OpenSSL 3.0 frees copies of it as it reads it (jwt.h), next to the one that lives as
 * long as the entry.
 */
static void test_signing(void **state)
{
    struct sm_secret *pem = canary_secret(ED25519);
    json_t *claims = json_pack("{s:s}", "secret_claim", CANARY);
    GError *error = NULL;

    (void)state;
    seek("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9."); /* the token */
    seek(CANARY);
    struct sm_jwt_key *key = sm_jwt_key_load(SM_JWT_EDDSA, pem, &error);
    assert_non_null(key);
    struct sm_secret *token = sm_jwt_sign(key, NULL, claims, 1893456000000000, 300, &error);
    assert_non_null(token);
    sm_secret_free(token);
    sm_jwt_key_free(key);
    assert_null(sm_jwt_key_load(SM_JWT_RS256, pem, &error));
    assert_null(strstr(error->message, CANARY));
    g_clear_error(&error);
    json_decref(claims);
    sm_secret_free(pem);
    assert_nothing_found();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_test, setup),       cmocka_unit_test_setup(test_values, setup),
        cmocka_unit_test_setup(test_token_requests, setup), cmocka_unit_test_setup(test_responses, setup),
        cmocka_unit_test_setup(test_cache, setup),          cmocka_unit_test_setup(test_signing, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
