/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What guest-init reads of a file system that a former CMD may have written. The input as a PEM file: what is taken out of it, written and read
 * again is the same. The input as a Java store: what is taken can be added to, and is taken again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "paths/certs.h"
#include "paths/jks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static void check_pem(const uint8_t *data, size_t size)
{
    struct sm_certs *first = sm_certs_new(), *again = sm_certs_new();
    size_t n = sm_certs_add_pem(first, (const char *)data, size);
    GString *pem = sm_certs_pem(first);

    CHECK(sm_certs_count(first) <= n && sm_certs_count(first) <= SM_CERTS_MAX);
    CHECK(sm_certs_add_pem(again, pem->str, pem->len) == sm_certs_count(first));
    CHECK(sm_certs_count(again) == sm_certs_count(first));
    for (size_t i = 0; i < sm_certs_count(first); i++) {
        size_t a_len, b_len;
        const uint8_t *a = sm_certs_get(first, i, &a_len), *b = sm_certs_get(again, i, &b_len);
        CHECK(a_len == b_len && a_len >= 3 && memcmp(a, b, a_len) == 0);
    }
    (void)g_string_free(pem, TRUE);
    sm_certs_free(first);
    sm_certs_free(again);
}

static void check_jks(const uint8_t *data, size_t size)
{
    static const uint8_t der[] = {0x30, 1, 0};
    struct sm_jks *jks = sm_jks_open(data, size);

    if (!jks)
        return;
    sm_jks_add(jks, "more", 0, der, sizeof(der));
    g_autoptr(GBytes) done = sm_jks_finish(jks);
    gsize len;
    const uint8_t *bytes = g_bytes_get_data(done, &len);
    CHECK(len > size && memcmp(bytes, data, 8) == 0);
    jks = sm_jks_open(bytes, len);
    CHECK(jks);
    sm_jks_free(jks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_pem(data, size);
    check_jks(data, size);
    return 0;
}
