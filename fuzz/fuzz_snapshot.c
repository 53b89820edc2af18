/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The snapshot file, twice over the same bytes: as they are (the first line, and that nothing without the right HMAC passes), and as JSON, a NUL and a
 * key that somebody who has the operator's key put into an envelope (what stands behind the HMAC). Beyond "no crash": what is taken
 * is written again and read as the same; a refusal is valid UTF-8.
 */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/snapfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static struct sm_secret *the_key(void)
{
    char text[] = "0123456789abcdef0123456789abcdef";

    return sm_secret_new(text, SM_SNAPSHOT_KEY_BYTES);
}

static void mac(const void *data, size_t len, char out[65])
{
    uint8_t bytes[32];
    size_t n = 0;

    require(EVP_Q_mac(NULL, OSSL_MAC_NAME_HMAC, NULL, OSSL_DIGEST_NAME_SHA2_256, NULL,
                      "0123456789abcdef0123456789abcdef", SM_SNAPSHOT_KEY_BYTES, data, len, bytes, sizeof(bytes), &n) &&
            n == sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void check(const uint8_t *data, size_t len, const struct sm_secret *key)
{
    sm_cleanup(sm_snapshot_clear) struct sm_snapshot s = {0}, again = {0};
    g_autoptr(GError) error = NULL;

    if (!sm_snapshot_decode(data, len, key, &s, &error)) {
        require(error && g_utf8_validate(error->message, -1, NULL));
        return;
    }
    require(!error && s.workspace && s.settings && s.pins && (s.ca_cert != NULL) == (s.ca_key != NULL));
    sm_cleanup(sm_secret_freep) struct sm_secret *file = sm_snapshot_encode(&s, key, NULL);
    size_t n;
    const uint8_t *bytes = file ? sm_secret_bytes(file, &n) : NULL;
    require(file && sm_snapshot_decode(bytes, n, key, &again, NULL));
    require(json_equal(s.settings, again.settings) && json_equal(s.pins, again.pins) &&
            (s.policy ? json_equal(s.policy, again.policy) : !again.policy) &&
            memcmp(s.counters, again.counters, sizeof(s.counters)) == 0 && strcmp(s.ca_sha256, again.ca_sha256) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_cleanup(sm_secret_freep) struct sm_secret *key = the_key();
    const uint8_t *nul = memchr(data, '\0', size);
    size_t json_len = nul ? (size_t)(nul - data) : size, key_len = nul ? size - json_len - 1 : 0;
    char id[65], sum[65];

    check(data, size, key);
    mac("slirp-med snapshot key id", strlen("slirp-med snapshot key id"), id);
    g_autoptr(GString) file = g_string_new(NULL);
    g_string_append_printf(file, "slirp-med-snapshot 1 %.16s %zu %zu\n", id, json_len, key_len);
    g_string_append_len(file, (const char *)data, (gssize)json_len);
    g_string_append_c(file, '\n');
    if (nul)
        g_string_append_len(file, (const char *)nul + 1, (gssize)key_len);
    mac(file->str, file->len, sum);
    g_string_append_printf(file, "%s\n", sum);
    check((const uint8_t *)file->str, file->len, key);
    return 0;
}
