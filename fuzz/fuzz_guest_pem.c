/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest believes of what it is sent. A text that is believed is believed in normal form too, holds the
 * certificate that the reader of `run` finds in it, and no part of it was refused on the way: the channels stop at
 * the first refusal. The input as a system's bundle: what is taken is taken again, and a certificate of ours is not
 * among it. The hash is the library's.
 */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guest/pem.h"
#include "guest/sha256.h"
#include "paths/certs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static struct sm_guest_cert cert, again;

static void check_hash(const uint8_t *data, size_t size)
{
    char hex[SM_SHA256_HEX];
    g_autofree char *other = g_compute_checksum_for_data(G_CHECKSUM_SHA256, data, size);

    sm_guest_sha256(data, size, hex);
    CHECK(strcmp(hex, other) == 0);
}

static void check_believed(const char *text, size_t size)
{
    struct sm_certs *certs = sm_certs_new();
    size_t len;

    CHECK(cert.der_len >= 3 && cert.der_len <= SM_GUEST_DER_MAX && cert.pem_len > 0 &&
          cert.pem_len <= SM_GUEST_NORMAL_MAX);
    if (cert.pem_len <= SM_GUEST_PEM_MAX) {
        CHECK(sm_guest_pem_check(cert.pem, cert.pem_len, &again) == SM_PEM_NONE);
        CHECK(again.der_len == cert.der_len && memcmp(again.der, cert.der, cert.der_len) == 0);
        CHECK(again.pem_len == cert.pem_len && memcmp(again.pem, cert.pem, cert.pem_len) == 0);
    }
    CHECK(sm_certs_add_pem(certs, text, size) == 1);
    const uint8_t *der = sm_certs_get(certs, 0, &len);
    CHECK(len == cert.der_len && memcmp(der, cert.der, len) == 0);
    sm_certs_free(certs);
    /* At most 64 places: the whole is linear, this would be square. */
    for (size_t n = 0; n < size; n += size / 64 + 1) {
        enum sm_pem_fault fault = sm_guest_pem_check(text, n, &again);
        CHECK(fault == SM_PEM_NONE || fault == SM_PEM_UNFINISHED);
    }
}

static void check_bundle(const char *text, size_t size)
{
    g_autofree char *first = g_malloc(size + 1);
    size_t count, count_again;
    bool has, has_again;
    size_t len = sm_guest_bundle_filter(text, size, &cert, first, &count, &has);

    CHECK(len <= size + 1 && (count > 0) == (len > 0));
    g_autofree char *second = g_malloc(len + 1);
    CHECK(sm_guest_bundle_filter(first, len, &cert, second, &count_again, &has_again) == len);
    CHECK(!has_again && count_again == count && memcmp(first, second, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char ours[] = SM_GUEST_BEGIN "\nMAEA\n" SM_GUEST_END "\n";
    const char *text = (const char *)data;

    check_hash(data, size);
    enum sm_pem_fault fault = sm_guest_pem_check(text, size, &cert);
    CHECK(fault < SM_PEM_FAULTS && sm_pem_fault_names[fault]);
    if (fault == SM_PEM_NONE)
        check_believed(text, size);
    else
        CHECK(sm_guest_pem_check(ours, strlen(ours), &cert) == SM_PEM_NONE);
    check_bundle(text, size);
    return 0;
}
