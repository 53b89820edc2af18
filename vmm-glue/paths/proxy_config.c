/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading the proxy front's configuration, and what is asked of it; see proxy_config.h. */
#include "paths/proxy_config.h"

#include <jansson.h>
#include <string.h>

#include "base/error.h"

static bool bad_key(const char *key, const char *want, GError **error)
{
    sm_error_set(error, SM_ERROR_INVALID, "proxy configuration: \"%s\" must be %s", key, want);
    return false;
}

static bool get_hex(const char *text, uint8_t *ret, size_t len)
{
    if (strlen(text) != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int hi = g_ascii_xdigit_value(text[2 * i]), lo = g_ascii_xdigit_value(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        ret[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool get_clients(json_t *array, struct sm_proxy_config *c, GError **error)
{
    size_t i;
    json_t *item;

    if (!json_is_array(array) || json_array_size(array) == 0 || json_array_size(array) > SM_PROXY_CLIENTS_MAX)
        return bad_key("clients", "an array of a few CIDRs", error);
    json_array_foreach(array, i, item)
    {
        if (!json_is_string(item) || !sm_prefix_parse(json_string_value(item), &c->clients[i]))
            return bad_key("clients", "an array of CIDRs", error);
        c->n_clients++;
    }
    return true;
}

bool sm_proxy_config_parse(const char *json, size_t len, struct sm_proxy_config *ret, GError **error)
{
    struct sm_proxy_config c = {0};
    json_error_t at;
    json_auto_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &at);
    const char *workspace, *salt = NULL, *digest = NULL;
    json_t *clients;

    if (!root || json_unpack_ex(root, &at, JSON_STRICT, "{s:s, s:o, s?{s:s, s:s !}}", "workspace", &workspace,
                                "clients", &clients, "auth", "salt", &salt, "digest", &digest) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "proxy configuration: %s", at.text);
        return false;
    }
    if (!get_clients(clients, &c, error))
        return false;
    c.auth = salt != NULL;
    if (c.auth && (!get_hex(salt, c.salt, sizeof(c.salt)) || !get_hex(digest, c.digest, sizeof(c.digest))))
        return bad_key("auth", "hexadecimal, 16 and 32 bytes", error);
    c.workspace = g_strdup(workspace);
    *ret = c;
    return true;
}

void sm_proxy_config_clear(struct sm_proxy_config *c)
{
    g_clear_pointer(&c->workspace, g_free);
}

void sm_proxy_digest(const uint8_t salt[SM_PROXY_SALT_LEN], const void *token, size_t len,
                     uint8_t ret[SM_PROXY_DIGEST_LEN])
{
    GHmac *hmac = g_hmac_new(G_CHECKSUM_SHA256, salt, SM_PROXY_SALT_LEN);
    gsize n = SM_PROXY_DIGEST_LEN;

    g_hmac_update(hmac, token, (gssize)len);
    g_hmac_get_digest(hmac, ret, &n);
    g_hmac_unref(hmac);
}

bool sm_proxy_config_admits(const struct sm_proxy_config *c, const void *token, size_t len)
{
    uint8_t got[SM_PROXY_DIGEST_LEN];
    unsigned differs = 0;

    sm_proxy_digest(c->salt, token, len, got);
    for (size_t i = 0; i < sizeof(got); i++)
        differs |= (unsigned)(got[i] ^ c->digest[i]);
    return differs == 0;
}

bool sm_proxy_config_is_client(const struct sm_proxy_config *c, const struct sm_addr *addr)
{
    for (size_t i = 0; i < c->n_clients; i++)
        if (sm_prefix_contains(&c->clients[i], addr))
            return true;
    return false;
}
