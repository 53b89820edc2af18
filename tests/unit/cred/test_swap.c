/* SPDX-License-Identifier: BSD-3-Clause */
/* Swap files: what is taken and as what; that every refusal names file, line and key and never a secret; the set that
 * comes of them; and its way to the core and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "cred/provider.h"
#include "cred/swap.h"
#include "policy/tree.h"

static const char *variable(const char *name, void *data)
{
    static const struct {
        const char *name, *value;
    } set[] = {{"TEAM", "red"},         {"LONG", "0123456789012345678901234567890123456789012345678901234567890123"},
               {"EMPTY", ""},           {"CONTROL", "CANARY\n"},
               {"LATIN", "CANARY\xe9"}, {"TRICK", "${TEAM}"}};
    (void)data;
    for (size_t i = 0; i < SM_ARRAY_LEN(set); i++)
        if (strcmp(set[i].name, name) == 0)
            return set[i].value;
    return NULL;
}

static struct sm_swaps *parse(const char *file, const char *text, size_t len, GError **error)
{
    struct sm_swap_source source = {.file = file, .folder = "/srv/conf", .variable = variable};
    return sm_swaps_parse(&source, text, len, error);
}

static struct sm_swaps *must(const char *file, const char *text)
{
    g_autoptr(GError) error = NULL;
    struct sm_swaps *swaps = parse(file, text, strlen(text), &error);
    if (!swaps)
        fail_msg("%s", error->message);
    return swaps;
}

#define STATIC "type: static, key_ref: 'env:K', domains: [a.test]"
#define OAUTH                                                                                                          \
    "type: oauth2-cc, domains: [a.test], token_url: 'https://id.test/t', client_id_ref: 'env:I', "                     \
    "client_secret_ref: 'env:S'"
#define JWT "type: jwt-bearer, domains: [a.test], signing_key_ref: 'file:k.pem', algorithm: ES256"

/** The file of the origin project's documentation. */
static const char seed[] = "swaps:\n"
                           "  openai:\n"
                           "    type: static # static | oauth2-cc | jwt-bearer\n"
                           "    domains: [api.openai.com] # exact host, or .suffix for subdomains\n"
                           "    header: Authorization\n"
                           "    format: \"Bearer {key}\" # {key} is replaced by the acquired credential\n"
                           "    key_ref: env:OPENAI_API_KEY # resolved on the host; never enters the guest\n";

static void the_seed(void **state)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = must("swaps.yaml", seed);
    const struct sm_swap *s = sm_swaps_get(swaps, 0);

    assert_int_equal(sm_swaps_count(swaps), 1);
    assert_string_equal(s->name, "openai");
    assert_int_equal(s->type, SM_SWAP_STATIC);
    assert_string_equal(s->place, "swaps.yaml:2");
    assert_int_equal(s->n_domains, 1);
    assert_string_equal(s->domains[0].text, "api.openai.com");
    assert_string_equal(s->domains[0].place, "swaps.yaml:4");
    assert_string_equal(s->header, "Authorization");
    assert_string_equal(s->format, "Bearer {key}");
    assert_string_equal(s->key_ref->text, "env:OPENAI_API_KEY");
    assert_true(s->scrub);
    assert_null(s->placeholder);
    assert_null(s->token_url);
    assert_null(s->token_response_field);
    assert_null(s->scopes);
    assert_null(s->claims);
}

static const char full_yaml[] = "swaps:\n"
                                "  one:\n"
                                "    type: static\n"
                                "    domains: [.Example.COM, b\xc3\xbc"
                                "cher.example]\n"
                                "    header: x-api-key\n"
                                "    placeholder: sk-ant-0000-placeholder\n"
                                "    scrub: false\n"
                                "    key_ref: file:keys/one\n"
                                "  two:\n"
                                "    type: oauth2-cc\n"
                                "    domains:\n"
                                "      - api.two.test\n"
                                "    token_url: https://id.two.test:8443/oauth/token?tenant=1\n"
                                "    client_id_ref: env:TWO_ID\n"
                                "    client_secret_ref: vault:secret/two#secret\n"
                                "    scopes: [read, 'urn:x:write']\n"
                                "    audience: https://api.two.test/\n"
                                "    token_response_field: id_token\n"
                                "    token_ttl_seconds: 300\n"
                                "    auth_style: basic\n"
                                "  three:\n"
                                "    type: jwt-bearer\n"
                                "    domains: [three.test]\n"
                                "    format: token {token}\n"
                                "    signing_key_ref: file:/k.pem\n"
                                "    algorithm: EdDSA\n"
                                "    token_url: http://127.0.0.1:9/t\n"
                                "    claims:\n"
                                "      iss: ${TEAM}-app/$x/{y}/${TEAM}\n"
                                "      aud: [https://a.test, '${TEAM}', 7]\n"
                                "      level: 3\n"
                                "      ratio: 1.5\n"
                                "      trick: ${TRICK}\n"
                                "      quoted: '12'\n";
static const char full_json[] =
    "{\"swaps\": {\n"
    "\"one\": {\"type\": \"static\", \"domains\": [\".Example.COM\", \"b\\u00fccher.example\"], \"header\": "
    "\"x-api-key\", \"placeholder\": \"sk-ant-0000-placeholder\", \"scrub\": false, \"key_ref\": \"file:keys/one\"},\n"
    "\"two\": {\"type\": \"oauth2-cc\", \"domains\": [\"api.two.test\"],\n"
    "\"token_url\": \"https://id.two.test:8443/oauth/token?tenant=1\", \"client_id_ref\": \"env:TWO_ID\",\n"
    "\"client_secret_ref\": \"vault:secret/two#secret\", \"scopes\": [\"read\", \"urn:x:write\"],\n"
    "\"audience\": \"https://api.two.test/\", \"token_response_field\": \"id_token\", \"token_ttl_seconds\": 300,\n"
    "\"auth_style\": \"basic\"},\n"
    "\"three\": {\"type\": \"jwt-bearer\", \"domains\": [\"three.test\"], \"format\": \"token {token}\",\n"
    "\"signing_key_ref\": \"file:/k.pem\", \"algorithm\": \"EdDSA\", \"token_url\": \"http://127.0.0.1:9/t\",\n"
    "\"claims\": {\"iss\": \"${TEAM}-app/$x/{y}/${TEAM}\", \"aud\": [\"https://a.test\", \"${TEAM}\", 7],\n"
    "\"level\": 3, \"ratio\": 1.5, \"trick\": \"${TRICK}\", \"quoted\": \"12\"}}}}\n";

static char *dump(const struct sm_swaps *swaps)
{
    json_t *json = sm_swaps_to_json(swaps);
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS), *copy = g_strdup(text);
    free(text);
    json_decref(json);
    return copy;
}

static void check_full(const struct sm_swaps *swaps)
{
    const struct sm_swap *one = sm_swaps_get(swaps, 0), *two = sm_swaps_get(swaps, 1), *three = sm_swaps_get(swaps, 2);

    assert_int_equal(sm_swaps_count(swaps), 3);
    assert_string_equal(one->domains[0].text, ".example.com");
    assert_int_equal(one->domains[0].entry.kind, SM_ENTRY_SUFFIX);
    assert_string_equal(one->domains[1].text, "xn--bcher-kva.example");
    assert_string_equal(one->header, "x-api-key");
    assert_string_equal(one->format, "{key}"); /* bare: the header is not Authorization */
    assert_string_equal(one->placeholder, "sk-ant-0000-placeholder");
    assert_false(one->scrub);
    assert_string_equal(one->key_ref->path, "/srv/conf/keys/one");

    assert_string_equal(two->format, "Bearer {token}");
    assert_string_equal(two->token_url, "https://id.two.test:8443/oauth/token?tenant=1");
    assert_string_equal(two->client_id_ref->name, "TWO_ID");
    assert_string_equal(two->client_secret_ref->field, "secret");
    assert_string_equal(two->scopes[0], "read");
    assert_string_equal(two->scopes[1], "urn:x:write");
    assert_null(two->scopes[2]);
    assert_string_equal(two->audience, "https://api.two.test/");
    assert_string_equal(two->token_response_field, "id_token");
    assert_int_equal(two->token_ttl_seconds, 300);
    assert_int_equal(two->auth_style, SM_SWAP_AUTH_BASIC);
    assert_true(two->scrub);

    assert_int_equal(three->algorithm, SM_SWAP_EDDSA);
    assert_string_equal(three->format, "token {token}");
    assert_string_equal(three->token_response_field, "access_token");
    json_t *claims =
        json_pack("{s:s, s:[s, s, i], s:i, s:f, s:s, s:s}", "iss", "red-app/$x/{y}/red", "aud", "https://a.test", "red",
                  7, "level", 3, "ratio", 1.5, "trick", "${TEAM}", "quoted", "12");
    assert_true(json_equal(three->claims, claims)); /* a variable's value is text, and is not looked into again */
    json_decref(claims);

    assert_int_equal(sm_swaps_ref_count(swaps), 4);
    assert_int_equal(sm_swaps_ref_index(swaps, three->signing_key_ref), 3);
    assert_ptr_equal(sm_swaps_ref(swaps, 2), two->client_secret_ref);
}

static void everything(void **state)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *yaml = must("s.yml", full_yaml);
    sm_cleanup(sm_swaps_freep) struct sm_swaps *json = must("s.json", full_json);
    g_autofree char *a = dump(yaml), *b = dump(json);

    check_full(yaml);
    check_full(json);
    assert_string_equal(a, b);
    assert_string_equal(sm_swaps_get(json, 2)->place, "s.json:8");

    g_auto(GStrv) variables = sm_swaps_hidden_variables(yaml);
    g_auto(GStrv) files = sm_swaps_hidden_files(yaml);
    g_autofree char *v = g_strjoinv(",", variables), *f = g_strjoinv(",", files);
    assert_string_equal(v, "TWO_ID,VAULT_TOKEN,TEAM,TRICK");
    assert_string_equal(f, "/srv/conf/keys/one,/k.pem");
}

static void round_trip(void **state)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = must("s.yaml", full_yaml);
    g_autofree char *text = dump(swaps);
    json_t *json = json_loads(text, 0, NULL);
    g_autoptr(GError) error = NULL;
    sm_cleanup(sm_swaps_freep) struct sm_swaps *again = sm_swaps_from_json(json, &error);

    if (!again)
        fail_msg("%s", error->message);
    json_decref(json);
    /* Keys were sorted on the way, and with them the entries. */
    assert_string_equal(sm_swaps_get(again, 1)->name, "three");
    assert_string_equal(sm_swaps_match(again, "three.test")->claims ? "claims" : "", "claims");
    g_autofree char *text2 = dump(again);
    assert_string_equal(text, text2);

    static const struct {
        const char *text, *says;
    } bad[] = {
        {"[]", "must be an object"},
        {"{\"refs\": []}", "must be an object"},
        {"{\"refs\": [], \"entries\": {}, \"x\": 1}", "must be an object"},
        {"{\"refs\": {}, \"entries\": {}}", "must be an array"},
        {"{\"refs\": [\"env:A\", \"env:A\"], \"entries\": {}}", "refs[1]"},
        {"{\"refs\": [\"sk-CANARY\"], \"entries\": {}}", "refs[0]"},
        {"{\"refs\": [\"file:CANARY\"], \"entries\": {}}", "refs[0]"},
        {"{\"refs\": [\"file:/a/../CANARY\"], \"entries\": {}}", "refs[0]"},
        {"{\"refs\": [7], \"entries\": {}}", "refs[0]"},
        {"{\"refs\": [], \"entries\": []}", "wrong type"},
        {"{\"refs\": [], \"entries\": [[[[[[[[[]]]]]]]]]}", "too deep"},
        {"{\"refs\": [\"env:A\"], \"entries\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], \"key_ref\": "
         "1}}}",
         "swaps: swap 'a': key_ref: not the number of a reference"},
        {"{\"refs\": [\"env:A\"], \"entries\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], \"key_ref\": "
         "-1}}}",
         "not the number"},
        {"{\"refs\": [\"env:A\"], \"entries\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], \"key_ref\": "
         "\"env:CANARY\"}}}",
         "not the number"},
        {"{\"refs\": [\"env:A\"], \"entries\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], \"key_ref\": "
         "0, \"header\": \"Host\"}}}",
         "routes"},
        {"{\"refs\": [\"env:A\"], \"entries\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], \"key_ref\": "
         "0, \"CANARY\": \"x\"}}}",
         "unknown key"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        g_autoptr(GError) why = NULL;
        json_t *j = json_loads(bad[i].text, 0, NULL);
        assert_non_null(j);
        if (sm_swaps_from_json(j, &why))
            fail_msg("row %zu was taken", i);
        if (!strstr(why->message, bad[i].says) || strstr(why->message, "CANARY"))
            fail_msg("row %zu: %s", i, why->message);
        json_decref(j);
    }

    sm_cleanup(sm_swaps_freep) struct sm_swaps *none = sm_swaps_new();
    g_autofree char *empty = dump(none);
    assert_string_equal(empty, "{\"entries\":{},\"refs\":[]}");
}

static void bad_files(void **state)
{
    static const struct {
        const char *name, *text;
        size_t line; /* 0: the message names the file alone */
        const char *says;
    } rows[] = {
        {"s.txt", "swaps: {}", 0, "ends in .yaml, .yml or .json"},
        /* the document */
        {"s.yaml", "", 1, "empty"},
        {"s.yaml", "# nothing\n", 2, "empty"},
        {"s.yaml", "[]", 1, "with the key swaps, not a list"},
        {"s.yaml", "{}", 1, "lacks the key swaps"},
        {"s.yaml", "swaps:\n", 1, "not empty"},
        {"s.yaml", "swaps: []\n", 1, "not a list"},
        {"s.yaml", "swaps: {}\nswap: {}\n", 2, "unknown key 'swap'"},
        {"s.yaml", "swaps: {}\nswaps: {}\n", 2, "twice"},
        {"s.yaml", "swaps: {}\n---\nswaps: {}\n", 2, "a second document"},
        {"s.yaml", "swaps: &a {}\n", 1, "anchors"},
        {"s.yaml", "swaps:\n  a: {" STATIC "}\n  b: *a\n", 3, "aliases"},
        {"s.yaml", "swaps: !!map {}\n", 1, "tags"},
        {"s.yaml", "%TAG ! tag:x,2000:\n---\nswaps: {}\n", 1, "tags"},
        {"s.yaml", "swaps:\n  a:\n    <<: {}\n", 3, "merge keys"},
        {"s.yaml", "swaps:\n  ? [a]\n  : {}\n", 2, "a key is text"},
        {"s.yaml", "swaps: {a: {" STATIC "}\n", 2, "not YAML"},
        {"s.yaml", "swaps: {}\n\xff\n", 2, "not YAML"},
        {"s.yaml", "swaps: [[[[[[[[[[]]]]]]]]]]\n", 1, "too deep"},
        {"s.json", "", 1, "not JSON"},
        {"s.json", "{\"swaps\": {}}\n{}", 2, "not JSON"},
        {"s.json", "{\"swaps\": {},\n\"swaps\": {}}", 2, "not JSON: duplicate object key"},
        {"s.json", "{\n\"swaps\": null}", 2, "not empty"},
        {"s.json", "{\"swaps\": {\n\n\"a\": []}}", 3, "swap 'a': wrong type"},
        /* the entry */
        {"s.yaml", "swaps:\n  -a: {" STATIC "}\n", 2, "the name of a swap"},
        {"s.yaml", "swaps:\n  'a b': {" STATIC "}\n", 2, "the name of a swap"},
        {"s.yaml", "swaps:\n  '': {" STATIC "}\n", 2, "the name of a swap"},
        {"s.yaml", "swaps:\n  \"a\\0b\": {" STATIC "}\n", 2, "NUL"},
        {"s.yaml", "swaps:\n  a:\n", 2, "swap 'a': wrong type: a swap is a mapping, not empty"},
        {"s.yaml", "swaps:\n  a: {" STATIC "}\n  a: {" STATIC "}\n", 3, "twice"},
        {"s.yaml", "swaps:\n  a:\n    domains: [a.test]\n", 2, "lacks type"},
        {"s.yaml", "swaps:\n  a:\n    type: Static\n", 3, "type: write static, oauth2-cc or jwt-bearer"},
        {"s.yaml", "swaps:\n  a:\n    type: static\n    key_ref: env:K\n", 2, "lacks domains"},
        {"s.yaml", "swaps:\n  a:\n    type: static\n    domains: [a.test]\n", 2, "lacks key_ref"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  hedaer: x}\n", 3, "swap 'a': unknown key 'hedaer'"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  token_url: 'https://a.test'}\n", 3,
         "type static has no key 'token_url'"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  scopes: []}\n", 3, "type jwt-bearer has no key 'scopes'"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  key_ref: 'env:K'}\n", 3, "type oauth2-cc has no key 'key_ref'"},
        {"s.yaml", "swaps:\n  a: {" JWT ", token_response_field: x}\n", 2, "there is no token_url"},
        /* domains */
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: a.test}\n", 2, "domains: wrong type"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: []}\n", 2, "domains: is empty"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [a.test,\n '']}\n", 3, "is empty"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [a.test,\n 443]}\n", 3, "wrong type"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [no]}\n", 2, "wrong type"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [.com]}\n", 2, "public suffix"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: ['a.test:443']}\n", 2, "has a port"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [203.0.113.1]}\n", 2, "is an address"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: ['2001:db8::/32']}\n", 2, "is an address"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: ['*.a.test']}\n", 2, "no wildcards"},
        {"s.yaml", "swaps:\n  a: {type: static, key_ref: 'env:K', domains: [a.test,\n A.test.]}\n", 3,
         "domain 'a.test' of swap 'a' is there already, in 'a' (s.yaml:2)"},
        {"s.yaml",
         "swaps:\n  a: {" STATIC "}\n  b:\n    type: static\n    domains:\n    - b.test\n    - a.test\n"
         "    key_ref: env:B\n",
         7, "domain 'a.test' of swap 'b' is there already, in 'a' (s.yaml:2)"},
        /* header, format, placeholder, scrub */
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  header: Host}\n", 3, "header: 'host' frames or routes"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  header: ':authority'}\n", 3, "HTTP/2"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  header: 'X: y'}\n", 3, "not the name of a header"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  header: \"X\\r\\nY\"}\n", 3, "not the name of a header"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  header: ''}\n", 3, "header: is empty"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: Bearer}\n", 3, "must hold {key} exactly once"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: '{key}{key}'}\n", 3, "must hold {key} exactly once"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: 'Bearer {token}'}\n", 3, "type static has {key}, not {token}"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  format: 'Bearer {key}'}\n", 3, "type oauth2-cc has {token}, not {key}"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: \"{key}\\n\"}\n", 3, "visible ASCII"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: \"{key}\\x80\"}\n", 3, "visible ASCII"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  format: ' {key}'}\n", 3, "no space at its ends"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  placeholder: sk-1234}\n", 3, "too short"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  placeholder: sk 12345678}\n", 3, "letters, digits"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  placeholder: 123456789}\n", 3, "wrong type"},
        {"s.yaml",
         "swaps:\n  a: {" STATIC ", placeholder: aaaaaaaaaa}\n  b: {type: static, key_ref: 'env:K', domains: "
         "[b.test], placeholder: xaaaaaaaaaay}\n",
         3, "the placeholder of 'b' and that of 'a' (s.yaml:2)"},
        {"s.yaml",
         "swaps:\n  a: {" STATIC ", placeholder: xaaaaaaaaaay}\n  b: {type: static, key_ref: 'env:K', domains: "
         "[b.test], placeholder: aaaaaaaaaa}\n",
         3, "the placeholder of 'b' and that of 'a' (s.yaml:2)"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  scrub: yes}\n", 3, "scrub: write true or false"},
        {"s.yaml", "swaps:\n  a: {" STATIC ",\n  scrub: 'true'}\n", 3, "scrub: write true or false"},
        /* oauth2-cc */
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  scopes: read}\n", 3, "scopes: wrong type"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  scopes: [read write]}\n", 3, "a scope is"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  audience: 12}\n", 3, "audience: wrong type"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  audience: a b}\n", 3, "audience: visible"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_response_field: a b}\n", 3, "the name of a field"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_ttl_seconds: 0}\n", 3, "1 to 86400"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_ttl_seconds: 86401}\n", 3, "1 to 86400"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_ttl_seconds: 1.5}\n", 3, "1 to 86400"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_ttl_seconds: 0x10}\n", 3, "1 to 86400"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  token_ttl_seconds: '60'}\n", 3, "1 to 86400"},
        {"s.yaml", "swaps:\n  a: {" OAUTH ",\n  auth_style: Basic}\n", 3, "auth_style: write body or basic"},
        /* jwt-bearer */
        {"s.yaml", "swaps:\n  a: {type: jwt-bearer, domains: [a.test], signing_key_ref: 'env:K',\n algorithm: none}\n",
         3, "algorithm: write RS256, ES256 or EdDSA"},
        {"s.yaml", "swaps:\n  a: {type: jwt-bearer, domains: [a.test], signing_key_ref: 'env:K',\n algorithm: HS256}\n",
         3, "algorithm: write"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: []}\n", 3, "claims: wrong type"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {iss: x,\n iat: 1}}\n", 4, "'iat' is set for each token"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {exp: 1}}\n", 3, "token_ttl_seconds"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {jti: x}}\n", 3, "'jti' is set"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {'': x}}\n", 3, "empty name"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: {b: c}}}\n", 3, "claims: a: wrong type"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: true}}\n", 3, "claims: a: wrong type"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: null}}\n", 3, "claims: a: wrong type"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: [[b]]}}\n", 3, "claims: a: wrong type"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: 1_000}}\n", 3, "quote it"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: 0777}}\n", 3, "quote it"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: 99999999999999999999}}\n", 3, "quote it"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: 1e999}}\n", 3, "quote it"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: \"b\\tc\"}}\n", 3, "control character"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${UNSET_ONE}'}}\n", 3,
         "swap 'a': claims: a: the variable UNSET_ONE is not set"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: [b,\n '${UNSET_ONE}']}}\n", 4, "UNSET_ONE is not set"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${EMPTY}'}}\n", 3, "the variable EMPTY is empty"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${CONTROL}'}}\n", 3, "the variable CONTROL has a control"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${LATIN}'}}\n", 3, "is not UTF-8"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: 'x ${TEAM'}}\n", 3, "write ${NAME}"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${}'}}\n", 3, "write ${NAME}"},
        {"s.yaml", "swaps:\n  a: {" JWT ",\n  claims: {a: '${TEAM:-x}'}}\n", 3, "write ${NAME}"},
        {"s.json",
         "{\"swaps\": {\"a\": {\"type\": \"jwt-bearer\",\n\"domains\": [\"a.test\"],\n\"claims\": {\"a\":\n"
         "\"${UNSET_ONE}\"}}}}",
         4, "UNSET_ONE is not set"},
        {"s.json", "{\"swaps\": {\"a\": {\"type\": \"static\",\n\"domains\": [\"a.test\",\n\"b.test:1\"]}}}", 3,
         "has a port"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *place = rows[i].line ? g_strdup_printf("%s:%zu: ", rows[i].name, rows[i].line)
                                              : g_strdup_printf("%s: ", rows[i].name);
        if (parse(rows[i].name, rows[i].text, strlen(rows[i].text), &error))
            fail_msg("row %zu was taken: %s", i, rows[i].text);
        if (!g_str_has_prefix(error->message, place) || !strstr(error->message, rows[i].says))
            fail_msg("row %zu: '%s' is not '%s...%s'", i, error->message, place, rows[i].says);
        assert_null(strstr(error->message, "CANARY"));
        assert_true(g_utf8_validate(error->message, -1, NULL));
    }
}

static void headers(void **state)
{
    static const char *const taken[] = {"HOST",
                                        "content-length",
                                        "Transfer-Encoding",
                                        "Connection",
                                        "TE",
                                        "Trailer",
                                        "Upgrade",
                                        "Keep-Alive",
                                        "Proxy-Connection",
                                        "Expect",
                                        "Proxy-Authorization",
                                        "Accept-Encoding",
                                        "HTTP2-Settings"};
    static const char *const free_[] = {"Authorization", "x-api-key", "X-Goog-Api-Key",
                                        "Cookie",        "api_key",   "X!#$%&'*+"};

    for (size_t i = 0; i < SM_ARRAY_LEN(taken) + SM_ARRAY_LEN(free_); i++) {
        bool good = i >= SM_ARRAY_LEN(taken);
        const char *name = good ? free_[i - SM_ARRAY_LEN(taken)] : taken[i];
        g_autofree char *text = g_strdup_printf("{\"swaps\": {\"a\": {\"type\": \"static\", \"domains\": [\"a.test\"], "
                                                "\"key_ref\": \"env:K\", \"header\": \"%s\"}}}",
                                                name);
        sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = parse("s.json", text, strlen(text), NULL);
        if (good != !!swaps)
            fail_msg("%s", name);
        if (good)
            assert_string_equal(sm_swaps_get(swaps, 0)->format,
                                strcmp(name, "Authorization") == 0 ? "Bearer {key}" : "{key}");
    }
}

static void urls(void **state)
{
    static const struct {
        const char *url;
        bool good;
    } rows[] = {
        {"https://id.test/token", true},
        {"HTTPS://id.test", true},
        {"https://id.test:8443/t?a=b&c=%20", true},
        {"https://203.0.113.1/t", true},
        {"https://[2001:db8::1]:443/t", true},
        {"http://127.0.0.1:8200/t", true},
        {"http://127.9.9.9/t", true},
        {"http://[::1]:8200/t", true},
        {"http://localhost/t", true},
        {"http://LocalHost:1/t", true},
        {"http://id.test/t", false},
        {"http://localhost.id.test/t", false},
        {"http://x.localhost/t", false},
        {"http://10.0.0.1/t", false},
        {"http://127.0.0.1.id.test/t", false},
        {"http://127.1/t", false},
        {"http://2130706433/t", false},
        {"http://[::ffff:127.0.0.1]/t", false},
        {"http://localhost@id.test/t", false},
        {"https://user@id.test/t", false},
        {"https://user:CANARY@id.test/t", false},
        {"https://id.test/t#f", false},
        {"https://id.test#f", false},
        {"https://id.test\\@evil.test/t", false},
        {"https://id.test/a b", false},
        {"https://id.test/\xc3\xbc", false},
        {"https:///t", false},
        {"https://:443/t", false},
        {"https://id.test:0/t", false},
        {"https://id.test:99999/t", false},
        {"https:id.test/t", false},
        {"ftp://id.test/t", false},
        {"file:///etc/passwd", false},
        {"//id.test/t", false},
        {"id.test", false},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        json_t *j =
            json_pack("{s:{s:{s:s, s:[s], s:s, s:s, s:s}}}", "swaps", "a", "type", "oauth2-cc", "domains", "a.test",
                      "token_url", rows[i].url, "client_id_ref", "env:I", "client_secret_ref", "env:S");
        char *text = json_dumps(j, 0);
        g_autoptr(GError) error = NULL;
        sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = parse("s.json", text, strlen(text), &error);
        if (rows[i].good != !!swaps)
            fail_msg("%s: %s", rows[i].url, error ? error->message : "taken");
        if (error) {
            assert_non_null(strstr(error->message, "token_url: "));
            assert_null(strstr(error->message, "CANARY"));
        }
        free(text);
        json_decref(j);
    }
}

/** A literal secret in each place where a reference is expected, in each way in which people write one. */
static void canary(void **state)
{
    static const char *const keys[] = {"key_ref", "client_id_ref", "client_secret_ref", "signing_key_ref"};
    static const char *const types[] = {"static", "oauth2-cc", "oauth2-cc", "jwt-bearer"};
    static const char *const yaml[] = {
        "CANARY-71qx",
        "sk-ant-CANARY-71qx",
        "'CANARY-71qx'",
        "\"CANARY-71qx\\n\"",
        "env:CANARY-71qx",
        "vault:CANARY-71qx",
        "{CANARY-71qx: x}",
        "[CANARY-71qx]",
        "{k: CANARY-71qx}",
        "|\n      CANARY-71qx\n",
        ">-\n      CANARY-71qx\n      71qx\n",
        "!CANARY-71qx x",
        "&CANARY-71qx x",
        "*CANARY-71qx",
        "@CANARY-71qx",
        "\"CANARY-71qx",
        "'CANARY-71qx",
        "%CANARY-71qx",
        "CANARY-71qx: x",
        "[CANARY-71qx",
        "{CANARY-71qx",
        "`CANARY-71qx`",
        "\"\\CANARY-71qx\"",
        "CANARY-71qx\n\tCANARY-71qx",
        "x\n    CANARY-71qx: y\n",
        "x\n    'CANARY-71qx': y\n",
    };
    static const char *const json[] = {
        "\"CANARY-71qx\"",
        "CANARY-71qx",
        "\"CANARY-71qx",
        "[\"CANARY-71qx\"]",
        "{\"CANARY-71qx\": 1}",
        "'CANARY-71qx'",
        "\"CANARY-71qx\" CANARY-71qx",
        "\"\\qCANARY-71qx\"",
        "\"CANARY-71qx\n\"",
        "\"CANARY-71qx\xff\"",
        "\"x\", \"CANARY-71qx\": 1",
        "{\"CANARY-71qx\": 1, \"CANARY-71qx\": 2}",
        "\"env:CANARY-71qx\"",
        "\"x\", \"CANARY-71qx\"",
    };
    for (size_t k = 0; k < SM_ARRAY_LEN(keys); k++) {
        for (size_t i = 0; i < SM_ARRAY_LEN(yaml) + SM_ARRAY_LEN(json); i++) {
            bool is_yaml = i < SM_ARRAY_LEN(yaml);
            const char *value = is_yaml ? yaml[i] : json[i - SM_ARRAY_LEN(yaml)];
            g_autofree char *text =
                is_yaml ? g_strdup_printf("swaps:\n  a:\n    type: %s\n    %s: %s\n    domains: [a.test]\n", types[k],
                                          keys[k], value)
                        : g_strdup_printf("{\"swaps\": {\"a\": {\"type\": \"%s\", \"%s\": %s, \"domains\": "
                                          "[\"a.test\"]}}}",
                                          types[k], keys[k], value);
            g_autoptr(GError) error = NULL;
            if (parse(is_yaml ? "s.yaml" : "s.json", text, strlen(text), &error))
                fail_msg("taken: %s", text);
            if (strstr(error->message, "CANARY") || strstr(error->message, "71qx"))
                fail_msg("%s", error->message);
        }
    }
    for (size_t p = 0; p < sm_n_providers; p++) {
        sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_new();
        g_autoptr(GError) error = NULL;
        assert_false(sm_swaps_add_provider(swaps, &sm_providers[p], "sk-CANARY-71qx", "/", "--cred-swap", &error));
        assert_null(strstr(error->message, "CANARY"));
        assert_int_equal(sm_swaps_count(swaps), 0);
        assert_int_equal(sm_swaps_ref_count(swaps), 0);
    }
    /* A placeholder is no secret, but a real key in its place would be one. */
    {
        static const char text[] = "swaps:\n  a: {" STATIC ", placeholder: 'CANARY 71qx'}\n";
        g_autoptr(GError) error = NULL;
        assert_null(parse("s.yaml", text, strlen(text), &error));
        assert_null(strstr(error->message, "CANARY"));
    }
}

static void matches(void **state)
{
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps =
        must("s.yaml", "swaps:\n"
                       "  exact: {type: static, key_ref: 'env:K', domains: [api.example.com, example.org]}\n"
                       "  wide: {type: static, key_ref: 'env:K', domains: [.example.com]}\n"
                       "  deep: {type: static, key_ref: 'env:K', domains: [.eu.example.com]}\n");
    static const struct {
        const char *name, *entry;
    } rows[] = {
        {"api.example.com", "exact"},
        {"example.com", "wide"},
        {"x.example.com", "wide"},
        {"x.api.example.com", "wide"},
        {"eu.example.com", "deep"},
        {"a.b.eu.example.com", "deep"},
        {"xeu.example.com", "wide"},
        {"notexample.com", NULL},
        {"example.org", "exact"},
        {"x.example.org", NULL},
        {"com", NULL},
        {"", NULL},
        {".example.com", NULL},
        {"example.com.evil.test", NULL},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        const struct sm_swap *s = sm_swaps_match(swaps, rows[i].name);
        if (g_strcmp0(s ? s->name : NULL, rows[i].entry) != 0)
            fail_msg("%s: %s", rows[i].name, s ? s->name : "none");
    }
    g_autofree char *over = g_strnfill(1000, 'a');
    assert_null(sm_swaps_match(swaps, over));
    assert_int_equal(sm_swaps_ref_count(swaps), 1); /* one reference, however often it is used */
}

static void providers(void **state)
{
    static const struct {
        const char *name, *host, *header, *format, *ref;
    } rows[] = {
        {"anthropic", "api.anthropic.com", "x-api-key", "{key}", "env:ANTHROPIC_API_KEY"},
        {"openai", "api.openai.com", "Authorization", "Bearer {key}", "env:OPENAI_API_KEY"},
        {"gemini", "generativelanguage.googleapis.com", "x-goog-api-key", "{key}", "env:GEMINI_API_KEY"},
        {"groq", "api.groq.com", "Authorization", "Bearer {key}", "env:GROQ_API_KEY"},
        {"openrouter", "openrouter.ai", "Authorization", "Bearer {key}", "env:OPENROUTER_API_KEY"},
        {"deepseek", "api.deepseek.com", "Authorization", "Bearer {key}", "env:DEEPSEEK_API_KEY"},
    };
    sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = sm_swaps_new();
    g_autoptr(GError) error = NULL;

    assert_int_equal(sm_n_providers, SM_ARRAY_LEN(rows));
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        const struct sm_provider *p = sm_provider_find(rows[i].name);
        assert_non_null(p);
        assert_true(sm_swaps_add_provider(swaps, p, NULL, NULL, "--cred-swap", &error));
        const struct sm_swap *s = sm_swaps_match(swaps, rows[i].host);
        assert_non_null(s);
        assert_string_equal(s->name, rows[i].name);
        assert_string_equal(s->header, rows[i].header);
        assert_string_equal(s->format, rows[i].format);
        assert_string_equal(s->key_ref->text, rows[i].ref);
        assert_int_equal(s->type, SM_SWAP_STATIC);
        assert_true(s->scrub);
    }
    assert_null(sm_provider_find("OpenAI"));
    assert_null(sm_provider_find(""));
    assert_false(sm_swaps_add_provider(swaps, &sm_providers[0], "file:x", "/home/u", "--cred-swap=anthropic", &error));
    assert_non_null(strstr(error->message, "--cred-swap=anthropic: a swap 'anthropic' is there already (--cred-swap)"));
    assert_int_equal(sm_swaps_ref_count(swaps), 6); /* untouched */
}

static void limits(void **state)
{
    g_autoptr(GString) text = g_string_new("swaps:\n");
    g_autoptr(GError) error = NULL;
    g_autofree char *big = g_strnfill(SM_SWAP_FILE_MAX + 1, '#');

    assert_null(parse("s.yaml", big, SM_SWAP_FILE_MAX + 1, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    g_clear_error(&error);

    for (int i = 0; i <= SM_SWAPS_MAX; i++)
        g_string_append_printf(text, "  s%d: {type: static, key_ref: 'env:K', domains: [h%d.test]}\n", i, i);
    assert_null(parse("s.yaml", text->str, text->len, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    assert_true(g_str_has_prefix(error->message, "s.yaml:66: more than 64 swaps"));
    g_clear_error(&error);

    g_string_assign(text, "swaps:\n  a:\n    type: static\n    key_ref: env:K\n    domains:\n");
    for (int i = 0; i <= SM_SWAP_DOMAINS_MAX; i++)
        g_string_append_printf(text, "    - h%d.test\n", i);
    assert_null(parse("s.yaml", text->str, text->len, &error));
    assert_true(g_error_matches(error, SM_ERROR, SM_ERROR_LIMIT));
    g_clear_error(&error);

    g_string_assign(text, "swaps: [");
    for (int i = 0; i <= SM_SWAP_NODES_MAX; i++)
        g_string_append(text, "a,");
    assert_null(parse("s.yaml", text->str, text->len, &error));
    assert_non_null(strstr(error->message, "values"));
    g_clear_error(&error);

    g_string_assign(text, "swaps: {a: {" JWT ", claims: {a: '");
    for (int i = 0; i < 17; i++)
        g_string_append(text, "${LONG}");
    g_string_append(text, "'}}}");
    assert_null(parse("s.yaml", text->str, text->len, &error));
    assert_non_null(strstr(error->message, "too long: at most 1024 bytes"));
    g_clear_error(&error);

    /* Each text at its bound and one byte over it. */
    static const struct {
        const char *before, *behind;
        size_t max;
    } rows[] = {
        {"a: {" STATIC ", header: ", "}", SM_SWAP_HEADER_MAX},
        {"a: {" STATIC ", format: '{key}", "'}", SM_SWAP_FORMAT_MAX - 5},
        {"a: {" STATIC ", placeholder: ", "}", SM_SWAP_PLACEHOLDER_MAX},
        {"q", ": {" STATIC "}", SM_SWAP_NAME_MAX - 1},
        {"a: {" OAUTH ", audience: ", "}", SM_SWAP_AUDIENCE_MAX},
        {"a: {" OAUTH ", scopes: [", "]}", SM_SWAP_SCOPE_MAX},
        {"a: {" OAUTH ", token_response_field: ", "}", SM_SWAP_FIELD_MAX},
        {"a: {" JWT ", token_url: 'https://a.test/", "'}", SM_SWAP_URL_MAX - 15},
        {"a: {" JWT ", claims: {", ": x}}", SM_SWAP_CLAIM_NAME_MAX},
        {"a: {" JWT ", claims: {x: ", "}}", SM_SWAP_CLAIM_TEXT_MAX},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        for (size_t more = 0; more < 2; more++) {
            g_autofree char *fill = g_strnfill(rows[i].max + more, 'q');
            g_autofree char *file = g_strconcat("swaps:\n  ", rows[i].before, fill, rows[i].behind, "\n", NULL);
            sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = parse("s.yaml", file, strlen(file), &error);
            if (!swaps == !more)
                fail_msg("row %zu, %zu over: %s", i, more, error ? error->message : "taken");
            g_clear_error(&error);
        }
    }
}

static void bytes_that_end_early(void **state)
{
    const char *const texts[] = {full_yaml, full_json};
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(texts[i]);
        for (size_t cut = 0; cut <= len; cut++) {
            g_autofree char *copy = g_memdup2(texts[i], cut ? cut : 1);
            g_autoptr(GError) error = NULL;
            sm_cleanup(sm_swaps_freep) struct sm_swaps *swaps = parse(i ? "s.json" : "s.yaml", copy, cut, &error);
            assert_int_equal(swaps != NULL, error == NULL);
            if (cut == len)
                assert_non_null(swaps);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_seed),
        cmocka_unit_test(everything),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(headers),
        cmocka_unit_test(urls),
        cmocka_unit_test(canary),
        cmocka_unit_test(matches),
        cmocka_unit_test(providers),
        cmocka_unit_test(limits),
        cmocka_unit_test(bytes_that_end_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
