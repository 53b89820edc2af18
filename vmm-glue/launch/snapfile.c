/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of a snapshot; see snapfile.h. */
#include "launch/snapfile.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "core/carry.h"
#include "policy/list.h"

#define MAGIC "slirp-med-snapshot "
#define MAC_BYTES 32
#define MAC_HEX 64
#define KEY_ID_HEX 16
/** A workspace's name, a version, a time: shorter than any of these. */
#define TEXT_MAX 128

void sm_snapshot_clear(struct sm_snapshot *s)
{
    g_free(s->created);
    g_free(s->program);
    g_free(s->workspace);
    json_decref(s->settings);
    json_decref(s->policy);
    json_decref(s->pins);
    g_free(s->ca_cert);
    sm_secret_free(s->ca_key);
    *s = (struct sm_snapshot){0};
}

static void hex_of(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

static bool mac_of(const struct sm_secret *key, const uint8_t *data, size_t len, uint8_t out[MAC_BYTES])
{
    size_t key_len, out_len = 0;
    const uint8_t *key_bytes = sm_secret_bytes(key, &key_len);

    return key_len == SM_SNAPSHOT_KEY_BYTES &&
           EVP_Q_mac(NULL, OSSL_MAC_NAME_HMAC, NULL, OSSL_DIGEST_NAME_SHA2_256, NULL, key_bytes, key_len, data, len,
                     out, MAC_BYTES, &out_len) &&
           out_len == MAC_BYTES;
}

/* Which key it was, without saying anything about the key: another HMAC with it, cut. */
static bool key_id(const struct sm_secret *key, char out[KEY_ID_HEX + 1])
{
    static const char what[] = "slirp-med snapshot key id";
    uint8_t mac[MAC_BYTES];

    if (!mac_of(key, (const uint8_t *)what, strlen(what), mac))
        return false;
    hex_of(mac, KEY_ID_HEX / 2, out);
    return true;
}

/* Writing. */

static char *payload(const struct sm_snapshot *s)
{
    json_t *ca = s->ca_cert ? json_pack("{s:s, s:s}", "cert", s->ca_cert, "sha256", s->ca_sha256) : json_null();
    json_t *policy = s->policy ? json_incref(s->policy) : json_null();
    json_auto_t *o = json_pack("{s:s, s:s, s:s, s:s, s:O, s:o, s:{s:I, s:I}, s:O, s:o}", "id", s->id, "created",
                               s->created, "program", s->program, "workspace", s->workspace, "settings", s->settings,
                               "policy", policy, "counters", "bytes_up", (json_int_t)s->counters[SM_CAPS_UP],
                               "bytes_down", (json_int_t)s->counters[SM_CAPS_DOWN], "pins", s->pins, "ca", ca);

    return o ? json_dumps(o, JSON_COMPACT) : NULL;
}

struct sm_secret *sm_snapshot_encode(const struct sm_snapshot *s, const struct sm_secret *key, GError **error)
{
    char head[SM_SNAPSHOT_HEAD_MAX], id[KEY_ID_HEX + 1];
    uint8_t mac[MAC_BYTES];
    size_t key_len = 0;
    const uint8_t *ca_key = s->ca_key ? sm_secret_bytes(s->ca_key, &key_len) : NULL;
    char *json = payload(s);

    if (!json || !key_id(key, id)) {
        free(json);
        sm_error_set(error, SM_ERROR_SYSTEM, "the snapshot cannot be put together");
        return NULL;
    }
    size_t json_len = strlen(json);
    size_t n =
        (size_t)g_snprintf(head, sizeof(head), MAGIC "%d %s %zu %zu\n", SM_SNAPSHOT_VERSION, id, json_len, key_len);
    size_t total = n + json_len + 1 + key_len + MAC_HEX + 1;
    if (total > SM_SNAPSHOT_FILE_MAX) {
        free(json);
        sm_error_set(error, SM_ERROR_LIMIT, "a snapshot of %zu bytes: more than %u", total, SM_SNAPSHOT_FILE_MAX);
        return NULL;
    }
    g_autofree uint8_t *file = g_malloc(total + 1);
    uint8_t *p = file;
    memcpy(p, head, n);
    p += n;
    memcpy(p, json, json_len);
    p += json_len;
    free(json);
    *p++ = '\n';
    if (key_len > 0)
        memcpy(p, ca_key, key_len);
    p += key_len;
    bool ok = mac_of(key, file, (size_t)(p - file), mac);
    hex_of(mac, sizeof(mac), (char *)p);
    p[MAC_HEX] = '\n';
    struct sm_secret *all = sm_secret_new(file, total); /* which wipes it */
    if (ok)
        return all;
    sm_secret_free(all);
    sm_error_set(error, SM_ERROR_SYSTEM, "the snapshot cannot be authenticated");
    return NULL;
}

/* Reading: the first line. */

struct head {
    size_t len; /* of itself */
    char key_id[KEY_ID_HEX + 1];
    size_t json_len, key_len;
};

/* Decimal, no leading zero, up to max; *p is moved behind it. */
static bool take_number(const char **p, size_t max, size_t *ret)
{
    size_t value = 0, digits = strspn(*p, "0123456789");

    if (digits == 0 || digits > 9 || (digits > 1 && **p == '0'))
        return false;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (size_t)((*p)[i] - '0');
    *p += digits;
    *ret = value;
    return value <= max;
}

static bool not_one(GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "not a snapshot: its first line is none");
    return false;
}

static bool read_head(const uint8_t *data, size_t len, struct head *ret, GError **error)
{
    char line[SM_SNAPSHOT_HEAD_MAX];
    const uint8_t *end = len > 0 ? memchr(data, '\n', SM_MIN(len, sizeof(line) - 1)) : NULL;
    size_t version;

    if (!end || memchr(data, '\0', (size_t)(end - data)))
        return not_one(error);
    ret->len = (size_t)(end - data) + 1;
    memcpy(line, data, ret->len - 1);
    line[ret->len - 1] = '\0';
    if (!g_str_has_prefix(line, MAGIC))
        return not_one(error);
    const char *p = line + strlen(MAGIC);
    if (!take_number(&p, 999999999, &version) || *p++ != ' ')
        return not_one(error);
    if (version != SM_SNAPSHOT_VERSION) {
        sm_error_set(error, SM_ERROR_INVALID, "version %zu: this slirp-med (%s) reads version %d", version, SM_VERSION,
                     SM_SNAPSHOT_VERSION);
        return false;
    }
    if (strspn(p, "0123456789abcdef") != KEY_ID_HEX)
        return not_one(error);
    g_strlcpy(ret->key_id, p, sizeof(ret->key_id));
    p += KEY_ID_HEX;
    if (*p++ != ' ' || !take_number(&p, SM_SNAPSHOT_FILE_MAX, &ret->json_len) || *p++ != ' ' ||
        !take_number(&p, SM_TLS_CA_KEY_PEM_MAX, &ret->key_len) || *p != '\0')
        return not_one(error);
    return true;
}

/* The first line, the length, the key, the HMAC: in this order, and nothing else before. */
static bool authenticate(const uint8_t *data, size_t len, const struct sm_secret *key, struct head *ret, GError **error)
{
    char id[KEY_ID_HEX + 1], hex[MAC_HEX + 1];
    uint8_t mac[MAC_BYTES];

    if (!read_head(data, len, ret, error))
        return false;
    size_t signed_len = ret->len + ret->json_len + 1 + ret->key_len;
    size_t total = signed_len + MAC_HEX + 1;
    if (len != total) {
        sm_error_set(error, SM_ERROR_INVALID,
                     len < total ? "cut off: %zu of %zu bytes" : "%zu bytes, and %zu belong to it", len, total);
        return false;
    }
    if (!key_id(key, id) || !mac_of(key, data, signed_len, mac)) {
        sm_error_set(error, SM_ERROR_SYSTEM, "HMAC-SHA256 cannot be had");
        return false;
    }
    if (strcmp(id, ret->key_id) != 0) {
        sm_error_set(
            error, SM_ERROR_INVALID,
            "authenticated with another key (%s, and this one is %s): give the one it was made with, --key-file "
            "FILE",
            ret->key_id, id);
        return false;
    }
    hex_of(mac, sizeof(mac), hex);
    if (CRYPTO_memcmp(hex, data + signed_len, MAC_HEX) != 0 || data[total - 1] != '\n') {
        sm_error_set(error, SM_ERROR_INVALID, "not authentic: it was changed after it was written");
        return false;
    }
    return true;
}

/* Reading: what was authenticated. */

static bool wrong(const char *field, const char *want, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "%s: must be %s", field, want);
    return false;
}

static bool take_text(const json_t *o, const char *field, char **ret, GError **error)
{
    const char *text = json_string_value(json_object_get(o, field));

    if (!text || strlen(text) == 0 || strlen(text) > TEXT_MAX || strcspn(text, "\x7f") != strlen(text))
        return wrong(field, "a short text", error);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20)
            return wrong(field, "a short text", error);
    *ret = g_strdup(text);
    return true;
}

static bool take_list(const json_t *policy, enum sm_list_kind kind, struct sm_lists *lists, GError **error)
{
    const char *name = sm_list_kind_name(kind);
    const json_t *array = json_object_get(policy, name), *item;
    g_autofree char *field = g_strconcat("policy.", name, NULL);
    size_t i;

    if (!json_is_array(array))
        return wrong(field, "an array", error);
    json_array_foreach(array, i, item)
    {
        const char *text = json_string_value(item);
        if (!text) {
            g_autofree char *at = g_strdup_printf("%s[%zu]", field, i);
            return wrong(at, "an entry", error);
        }
        if (!sm_lists_add_text(lists, kind, text, error)) {
            g_prefix_error(error, "%s[%zu]: ", field, i);
            return false;
        }
    }
    return true;
}

static bool take_policy(const json_t *o, struct sm_snapshot *s, GError **error)
{
    json_t *policy = json_object_get(o, "policy");
    sm_cleanup(sm_lists_freep) struct sm_lists *lists = sm_lists_new();

    if (json_is_null(policy))
        return true;
    if (!json_is_object(policy) || json_object_size(policy) != 2)
        return wrong("policy", "an object of allow and passthrough, or null", error);
    if (!take_list(policy, SM_LIST_ALLOW, lists, error) || !take_list(policy, SM_LIST_PASSTHROUGH, lists, error))
        return false;
    s->policy = json_incref(policy);
    return true;
}

static bool take_ca(const json_t *o, const uint8_t *key, size_t key_len, struct sm_snapshot *s, GError **error)
{
    const json_t *ca = json_object_get(o, "ca");
    char found[SM_TLS_FINGERPRINT_STRLEN];

    if (json_is_null(ca) && key_len == 0)
        return true;
    if (json_is_null(ca))
        return wrong("ca", "there, since there is a key", error);
    if (json_is_object(ca) && !json_object_get(ca, "sha256"))
        return wrong("ca.sha256", "there: without the fingerprint of its CA nothing is restored", error);
    const char *cert = json_string_value(json_object_get(ca, "cert")),
               *sha256 = json_string_value(json_object_get(ca, "sha256"));
    if (!json_is_object(ca) || json_object_size(ca) != 2 || !cert || strlen(cert) > SM_TLS_CA_CERT_PEM_MAX)
        return wrong("ca", "an object of cert and sha256, or null", error);
    if (!sha256 || !sm_carry_is_hex(sha256, SM_TLS_FINGERPRINT_STRLEN - 1))
        return wrong("ca.sha256", "64 lower-case hex digits", error);
    uint8_t copy[SM_TLS_CA_KEY_PEM_MAX];
    memcpy(copy, key, key_len);
    s->ca_key = sm_secret_new(copy, key_len);
    struct sm_tls_ca *loaded = sm_tls_ca_load(cert, s->ca_key, error);
    if (!loaded) {
        g_prefix_error(error, "ca: ");
        return false;
    }
    sm_tls_ca_fingerprint(loaded, found);
    sm_tls_ca_free(loaded);
    if (strcmp(found, sha256) != 0) {
        sm_error_set(error, SM_ERROR_INVALID, "ca.sha256: %s, and its certificate has %s", sha256, found);
        return false;
    }
    s->ca_cert = g_strdup(cert);
    g_strlcpy(s->ca_sha256, found, sizeof(s->ca_sha256));
    return true;
}

static bool take_all(const json_t *o, const uint8_t *key, size_t key_len, struct sm_snapshot *s, GError **error)
{
    static const char *const fields[] = {"id",     "created",  "program", "workspace", "settings",
                                         "policy", "counters", "pins",    "ca"};
    const char *id = json_string_value(json_object_get(o, "id"));
    json_t *settings = json_object_get(o, "settings"), *pins = json_object_get(o, "pins");
    const char *name;
    json_t *value;

    if (!json_is_object(o))
        return wrong("the payload", "an object", error);
    for (size_t i = 0; i < SM_ARRAY_LEN(fields); i++)
        if (!json_object_get(o, fields[i]))
            return wrong(fields[i], "there", error);
    json_object_foreach((json_t *)(uintptr_t)o, name, value)
    {
        bool known = false;
        for (size_t i = 0; i < SM_ARRAY_LEN(fields); i++)
            known = known || strcmp(fields[i], name) == 0;
        if (!known) {
            g_autofree char *shown = g_strescape(name, NULL);
            sm_error_set(error, SM_ERROR_INVALID, "%.80s: unknown field", shown);
            return false;
        }
    }
    if (!id || !sm_carry_is_hex(id, SM_SNAPSHOT_ID_STRLEN - 1))
        return wrong("id", "32 lower-case hex digits", error);
    g_strlcpy(s->id, id, sizeof(s->id));
    if (!json_is_object(settings))
        return wrong("settings", "an object", error);
    if (!take_text(o, "created", &s->created, error) || !take_text(o, "program", &s->program, error) ||
        !take_text(o, "workspace", &s->workspace, error) || !take_policy(o, s, error) ||
        !sm_carry_counters_check(json_object_get(o, "counters"), s->counters, error) ||
        !sm_carry_pins_check(pins, error) || !take_ca(o, key, key_len, s, error))
        return false;
    s->settings = json_incref(settings);
    s->pins = json_incref(pins);
    return true;
}

bool sm_snapshot_decode(const uint8_t *data, size_t len, const struct sm_secret *key, struct sm_snapshot *ret,
                        GError **error)
{
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = {0};
    struct head head;
    json_error_t at;

    if (len > SM_SNAPSHOT_FILE_MAX) {
        sm_error_set(error, SM_ERROR_LIMIT, "larger than %u bytes", SM_SNAPSHOT_FILE_MAX);
        return false;
    }
    if (!authenticate(data, len, key, &head, error))
        return false;
    const char *json = (const char *)data + head.len;
    json_auto_t *o = json_loadb(json, head.json_len, JSON_REJECT_DUPLICATES, &at);
    if (!o) {
        sm_error_set(error, SM_ERROR_INVALID, "the payload is not JSON: line %d: %s", at.line, at.text);
        return false;
    }
    if (json[head.json_len] != '\n')
        return wrong("the payload", "ended by a newline", error);
    if (!take_all(o, data + head.len + head.json_len + 1, head.key_len, &s, error))
        return false;
    *ret = s;
    s = (struct sm_snapshot){0}; /* handed over */
    return true;
}
